-- Deploy the same content again, under the Endpoint's policy.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/redeploy"] = "argocd-" .. obj.metadata.resourceVersion
return obj
