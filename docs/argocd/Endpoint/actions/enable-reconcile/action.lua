-- The operator may change things again.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/reconcile"] = nil
-- Argo CD reads an empty table as an empty list, and keeps what was there: with its last annotation the map goes.
if next(obj.metadata.annotations) == nil then
  obj.metadata.annotations = nil
end
return obj
