-- Go back to the revision that served before. Change Git as well, or the next edit there goes on from what it says.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/rollback"] = obj.status.previousRevision.name
return obj
