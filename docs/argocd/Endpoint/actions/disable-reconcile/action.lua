-- Break glass: the operator observes and makes no change in AWS until this is taken back.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/reconcile"] = "disabled"
return obj
