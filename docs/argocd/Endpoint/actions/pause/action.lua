-- Hold the deployment that runs: its bake stands still and no step is taken. Alarms and the deadline go on.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/pause"] = obj.status.deployment.revision
return obj
