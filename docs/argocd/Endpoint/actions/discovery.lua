-- Which commands the Argo CD UI offers for an Endpoint. They are annotations, never spec: Git stays the owner of it.
-- There is no pause and no promote: SageMaker can do neither with a running update, and the operator refuses both.

local status = obj.status or {}
local annotations = obj.metadata.annotations or {}
local disabled = annotations["sluice.dev/reconcile"] == "disabled"

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
  ["rollback"] = {["disabled"] = status.previousRevision == nil},
  ["ignore-firing"] = {["disabled"] = not firing or status.desiredRevision == nil},
  ["redeploy"] = {["disabled"] = status.revision == nil},
  ["disable-reconcile"] = {["disabled"] = disabled},
  ["enable-reconcile"] = {["disabled"] = not disabled},
}
