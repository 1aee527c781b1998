-- Try again what failed. A value is acted on once; the resourceVersion makes every click a new one.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/retry"] = "argocd-" .. obj.metadata.resourceVersion
return obj
