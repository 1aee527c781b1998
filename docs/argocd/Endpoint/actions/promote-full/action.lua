-- Skip all bakes that are left. Pods, routers and a firing alarm are still waited for. The resourceVersion makes
-- every click a new one.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/promote"] = obj.status.deployment.revision .. "//argocd-"
  .. obj.metadata.resourceVersion
return obj
