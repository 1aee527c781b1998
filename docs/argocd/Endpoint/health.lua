-- Health of endpoints.sluice.dev: is the revision that Git asks for in service?
-- InService alone says little: SageMaker is InService on the old revision after a rollback as well.

local function condition(wanted)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, one in ipairs(obj.status.conditions) do
      if one.type == wanted then
        return one
      end
    end
  end
  return nil
end

local function told(one)
  if one.message ~= nil and one.message ~= "" then
    return one.reason .. ": " .. one.message
  end
  return one.reason
end

local function progress()
  local deployment = obj.status.deployment
  if deployment == nil then
    return ""
  end
  local text = " [" .. deployment.stage
  if deployment.stepText ~= nil then
    text = text .. ", step " .. deployment.stepText
  end
  if deployment.trafficText ~= nil then
    text = text .. ", traffic " .. deployment.trafficText
  end
  return text .. "]"
end

if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = "Deleting"}
end

local ready = condition("Ready")
if ready == nil then
  return {status = "Progressing", message = "The operator has not seen this Endpoint yet"}
end
-- Conditions of an older generation say nothing about what was synced last.
if obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The operator has not seen the newest spec yet"}
end

local stalled = condition("Stalled")
local reconciling = condition("Reconciling")
for _, one in ipairs({ready, stalled or ready, reconciling or ready}) do
  if one.reason == "ReconcileDisabled" or one.reason == "ReadOnly" then
    return {status = "Suspended", message = told(one)}
  end
end

if stalled ~= nil and stalled.status == "True" then
  -- Within one sync the reference may arrive a moment later, and a Degraded object would end the sync.
  if stalled.reason == "MissingReference" and obj.status.revision == nil then
    return {status = "Progressing", message = told(stalled)}
  end
  return {status = "Degraded", message = told(stalled)}
end
if reconciling ~= nil and reconciling.status == "True" and reconciling.reason == "Paused" then
  return {status = "Suspended", message = told(reconciling) .. progress()}
end
if reconciling ~= nil and reconciling.status == "True" then
  return {status = "Progressing", message = told(reconciling) .. progress()}
end
if ready.status == "True" then
  return {status = "Healthy", message = told(ready)}
end
if ready.status == "False" then
  return {status = "Degraded", message = told(ready)}
end
return {status = "Progressing", message = told(ready)}
