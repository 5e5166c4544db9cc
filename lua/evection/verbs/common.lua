-- common.lua - what the verbs share: --set, --cutoffs.

local native = require "evection.native"

local common = {}

common.CHECKPOINT_S = 60 -- between two checkpoints of a training: writing one takes well under a second

local function value_of(text)
  if text == "true" then return true end
  if text == "false" then return false end
  return tonumber(text) or text
end

-- { "node.knob=value", … } → { ["node.knob"] = value }
function common.sets(list)
  if not list then return nil end
  local sets = {}
  for _, text in ipairs(list) do
    local path, value = text:match "^([^=]+)=(.*)$"
    if not path or not path:match "^[^.]+%.[^.]+$" then
      native.raise("invalid", ("--set %s: node.knob=value is wanted"):format(text))
    end
    sets[path] = value_of(value)
  end
  return sets
end

-- "5,10,20" → ascending whole numbers
function common.cutoffs(text)
  if not text then return nil end
  local list = {}
  for part in (text .. ","):gmatch "([^,]*)," do
    local k = tonumber(part)
    if not k or k < 1 or k > 1000 or k % 1 ~= 0 then native.raise("invalid", ("--cutoffs: '%s' is not a whole number from 1 to 1000"):format(part)) end
    list[#list + 1] = k
  end
  table.sort(list)
  return list
end

-- The share or seed that was given, checked; nil when it was not.
function common.number(opts, key, low, high)
  local x = opts[key]
  if x and (x < low or x > high) then native.raise("invalid", ("--%s: %g is not between %g and %g"):format((key:gsub("_", "-")), x, low, high)) end
  return x
end

return common
