-- Skip the bake of the step that is under way.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
local deployment = obj.status.deployment
obj.metadata.annotations["sluice.dev/promote"] = deployment.revision .. "/" .. tostring(deployment.step)
return obj
