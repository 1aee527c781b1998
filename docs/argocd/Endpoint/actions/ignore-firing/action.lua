-- Start the waiting deployment although an alarm fires; the alarm counts again once it has been OK.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/ignore-firing"] = obj.status.desiredRevision.name
return obj
