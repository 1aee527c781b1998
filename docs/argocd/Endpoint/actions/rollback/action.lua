-- Go back to the revision that served before: what a deployment that has not ended replaces, else the one before it.
-- Change Git as well, or the next edit there goes on from what it says. A value is acted on once, and what has been gone
-- back to may have to be again: what follows the slash makes every click a new one.
local status = obj.status
local revision = status.previousRevision
local under_way = status.deployment ~= nil and status.revision ~= nil
  and status.deployment.revision ~= status.revision.name
if under_way or (status.endpointStatus == "UpdateRollbackFailed" and status.revision ~= nil) then
  revision = status.revision
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sluice.dev/rollback"] = revision.name .. "/argocd-" .. obj.metadata.resourceVersion
return obj
