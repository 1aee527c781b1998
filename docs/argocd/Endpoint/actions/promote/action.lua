-- Skip the bake of the step that is under way. A value is acted on once, and the revision may be deployed again: the
-- resourceVersion makes every click a new one.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
local deployment = obj.status.deployment
obj.metadata.annotations["sluice.dev/promote"] = deployment.revision .. "/" .. tostring(deployment.step) .. "/argocd-"
  .. obj.metadata.resourceVersion
return obj
