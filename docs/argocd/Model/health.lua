-- Health of models.sluice.dev: is the declaration accepted?
-- RolledOut is left out on purpose: an Endpoint of a later sync wave rolls it out, and that wave waits for this one.

if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = "Deleting"}
end

local ready = nil
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, one in ipairs(obj.status.conditions) do
    if one.type == "Ready" then
      ready = one
    end
  end
end
if ready == nil then
  return {status = "Progressing", message = "The operator has not seen this Model yet"}
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The operator has not seen the newest spec yet"}
end

local message = ready.reason
if ready.message ~= nil and ready.message ~= "" then
  message = ready.reason .. ": " .. ready.message
end
if ready.status == "True" then
  return {status = "Healthy", message = message}
end
if ready.status == "False" then
  return {status = "Degraded", message = message}
end
return {status = "Progressing", message = message}
