-- object.lua - what layers, losses, samplers, schedules and optimisers have in common: a text that they print as.
--
-- An object is a table with a metatable that scripts cannot reach; what it shares with others of its kind lies in that
-- metatable, so that nobody can change it for all.

local object = {}

-- kind(methods, call) → make(text, fields): an object that prints as the text and is called by call(self, …).
function object.kind(methods, call)
  local meta = { __index = methods, __call = call, __metatable = false }
  function meta.__tostring(self) return tostring(self.text) end
  return function(text, fields)
    fields.text = text
    return setmetatable(fields, meta)
  end
end

local function short(x) return type(x) == "number" and ("%.6g"):format(x) or tostring(x) end

-- show("bpr", { weight = 2 }) → "bpr { weight = 2 }"; names in order, and "bpr" alone when there is nothing to say.
function object.show(word, options)
  local names, parts = {}, {}
  for name in pairs(options or {}) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for i, name in ipairs(names) do parts[i] = ("%s = %s"):format(name, short(options[name])) end
  return #parts == 0 and word or ("%s { %s }"):format(word, table.concat(parts, ", "))
end

-- options(given, defaults, word) → the defaults with what was given. An option that there is not, or of another type than its
-- default, is an error in the script that gave it: `level` frames up (3: who called the function that calls this).
function object.options(given, defaults, word, level)
  level = level or 3
  local all = {}
  for name, value in pairs(defaults) do all[name] = value end
  if given == nil then return all end
  if type(given) ~= "table" then error(("%s takes a table of options, not a %s"):format(word, type(given)), level) end
  for name, value in pairs(given) do
    local default = defaults[name]
    if default == nil then
      local names = {}
      for known in pairs(defaults) do names[#names + 1] = known end
      table.sort(names)
      error(("%s has no option '%s'; there are: %s"):format(word, tostring(name), table.concat(names, ", ")), level)
    end
    if type(value) ~= type(default) then error(("%s: %s is a %s, not a %s"):format(word, name, type(value), type(default)), level) end
    if value ~= value then error(("%s: %s is not a number"):format(word, name), level) end
    all[name] = value
  end
  return all
end

-- number(x, low, high, what, level): x, when it is a number within [low, high].
function object.number(x, low, high, what, level)
  if type(x) ~= "number" or not (x >= low and x <= high) then
    error(("%s: a number from %s to %s is wanted, not %s"):format(what, short(low), short(high), short(x)), level or 3)
  end
  return x
end

return object
