-- faults.lua - a list of errors found in files: gathered, sorted, printed one a line.

local native = require "evection.native"

local Faults = {}
Faults.__index = Faults

-- add(line or nil, format, …)
function Faults:add(line, format, ...)
  self[#self + 1] = { file = self.file, line = line, message = format:format(...) }
end

function Faults:take(others)
  for _, fault in ipairs(others) do self[#self + 1] = fault end
end

local faults = {}

function faults.new(file) return setmetatable({ file = file }, Faults) end

function faults.text(fault)
  if fault.file and fault.line then return ("%s:%d: %s"):format(fault.file, fault.line, fault.message) end
  if fault.file then return ("%s: %s"):format(fault.file, fault.message) end
  return fault.message
end

-- All errors in the order of their files and lines, one a line.
function faults.describe(list)
  local order = {}
  for i, fault in ipairs(list) do order[i] = { fault, i } end
  table.sort(order, function(a, b)
    local x, y = a[1].line or 0, b[1].line or 0
    if x ~= y then return x < y end
    return a[2] < b[2]
  end)
  local lines = {}
  for i, entry in ipairs(order) do lines[i] = faults.text(entry[1]) end
  return table.concat(lines, "\n")
end

-- value or, where it is nil, an error that lists what is wrong.
function faults.check(value, list)
  if value == nil then native.raise("invalid", faults.describe(list)) end
  return value
end

-- An error that lists what is wrong, where something is.
function faults.raise(list)
  if #list > 0 then native.raise("invalid", faults.describe(list)) end
end

-- The name in `names` (an array) nearest to a mistyped one, as " (did you mean 'x'?)", or "".
function faults.suggest(word, names)
  word = tostring(word)
  local best, least = nil, 3
  for _, name in ipairs(names) do
    local row = {}
    for j = 0, #name do row[j] = j end
    for i = 1, #word do
      local diagonal = row[0]
      row[0] = i
      for j = 1, #name do
        local up = row[j]
        local cost = word:byte(i) == name:byte(j) and 0 or 1
        row[j] = math.min(diagonal + cost, up + 1, row[j - 1] + 1)
        diagonal = up
      end
    end
    if row[#name] < least then best, least = name, row[#name] end
  end
  return best and (" (did you mean '%s'?)"):format(best) or ""
end

return faults
