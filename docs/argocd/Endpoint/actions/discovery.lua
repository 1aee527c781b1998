-- Which commands the Argo CD UI offers for an Endpoint. They are annotations, never spec: Git stays the owner of it.
-- Pause and promote are for the cluster: SageMaker can do neither with a running update, and the operator refuses both.

local status = obj.status or {}
local annotations = obj.metadata.annotations or {}
local disabled = annotations["sluice.dev/reconcile"] == "disabled"
local deployment = status.deployment
local steered = obj.spec ~= nil and obj.spec.backend == "Cluster" and deployment ~= nil
  and deployment.stage ~= "RollingBack" and deployment.stage ~= "CleaningUp"
local paused = annotations["sluice.dev/pause"] ~= nil and annotations["sluice.dev/pause"] ~= ""

-- What served before: see the action. While a deployment has not ended, that is what it replaces.
local under_way = deployment ~= nil and status.revision ~= nil and deployment.revision ~= status.revision.name
local back = status.previousRevision ~= nil or under_way
  or (status.endpointStatus == "UpdateRollbackFailed" and status.revision ~= nil)

local stalled = false
local firing = false
for _, one in ipairs(status.conditions or {}) do
  if one.type == "Stalled" and one.status == "True" then
    stalled = true
  end
  if one.type == "Reconciling" and one.status == "True" and one.reason == "AlarmFiring" then
    firing = true
  end
end

return {
  ["retry"] = {["disabled"] = not stalled},
  ["rollback"] = {["disabled"] = not back},
  ["ignore-firing"] = {["disabled"] = not firing or status.desiredRevision == nil},
  ["pause"] = {["disabled"] = not steered or paused},
  ["resume"] = {["disabled"] = not paused},
  ["promote"] = {["disabled"] = not steered},
  ["promote-full"] = {["disabled"] = not steered},
  ["redeploy"] = {["disabled"] = status.revision == nil},
  ["disable-reconcile"] = {["disabled"] = disabled},
  ["enable-reconcile"] = {["disabled"] = not disabled},
}
