-- Health of VMImage, ImageSite and ImageSubscription for Argo CD, which does not read the conditions of kstatus by itself.
-- docs/gitops.md says where it goes.
local function condition(wanted)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, each in ipairs(obj.status.conditions) do
      if each.type == wanted then
        return each
      end
    end
  end
  return nil
end

local ready = condition("Ready")
local stalled = condition("Stalled")
local message = ""
if ready ~= nil and ready.message ~= nil then
  message = ready.message
end

if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "being removed: " .. message }
end
if obj.spec ~= nil and obj.spec.suspend == true then
  return { status = "Suspended", message = "suspended" }
end
-- What the controller has not looked at yet says nothing about the spec as it is now.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the controller has not seen this version yet" }
end
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end
if ready ~= nil and ready.status == "True" then
  return { status = "Healthy", message = message }
end
return { status = "Progressing", message = message }
