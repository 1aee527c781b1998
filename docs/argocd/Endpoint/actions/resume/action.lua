-- Let a paused deployment go on: the bake goes on with what was left of it.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/pause"] = nil
return obj
