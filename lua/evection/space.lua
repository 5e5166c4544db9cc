-- space.lua - decision spaces: the dimensions along which an agent may evolve.
--
-- A dimension is a plain table { kind, low, high, default, choices }. Every kind maps to and from [0, 1], which
-- is what samplers and optimisers work in; a program is text and is left alone by them.

local space = {}

-- Who called space.KIND is at level 2: it calls this as its last act.
local function number(kind, low, high, default, whole)
  local function good(x) return type(x) == "number" and x == x and math.abs(x) < math.huge end
  if not (good(low) and good(high) and good(default)) then
    error(("space.%s(low, high, default) wants three numbers"):format(kind), 2)
  end
  if low >= high then error(("space.%s: low %g is not below high %g"):format(kind, low, high), 2) end
  if default < low or default > high then error(("space.%s: default %g is outside [%g, %g]"):format(kind, default, low, high), 2) end
  if (kind == "log" or kind == "logint") and low <= 0 then error(("space.%s: low %g is not positive"):format(kind, low), 2) end
  if whole and (low % 1 ~= 0 or high % 1 ~= 0 or default % 1 ~= 0) then error(("space.%s wants whole numbers"):format(kind), 2) end
  return { kind = kind, low = low, high = high, default = default }
end

-- Real numbers, evenly spread.
function space.linear(low, high, default) return number("linear", low, high, default) end
-- Positive real numbers, evenly spread in their logarithm.
function space.log(low, high, default) return number("log", low, high, default) end
-- Whole numbers.
function space.int(low, high, default) return number("int", low, high, default, true) end
-- Positive whole numbers, evenly spread in their logarithm.
function space.logint(low, high, default) return number("logint", low, high, default, true) end

-- One of several values: space.choice { "a", "b", default = "b" }; without a default the first.
function space.choice(choices)
  if type(choices) ~= "table" or #choices < 2 then error("space.choice wants a list of at least two values", 2) end
  local list, default, seen = {}, choices.default, {}
  if default == nil then default = choices[1] end
  for i, value in ipairs(choices) do
    local t = type(value)
    if t ~= "string" and t ~= "number" then error(("space.choice: value %d is a %s"):format(i, t), 2) end
    if seen[value] then error(("space.choice: '%s' is given twice"):format(tostring(value)), 2) end
    seen[value] = true
    list[i] = value
  end
  if not seen[default] then error(("space.choice: the default '%s' is not among the values"):format(tostring(default)), 2) end
  return { kind = "choice", choices = list, default = default }
end

-- true or false.
function space.bool(default)
  if default ~= nil and type(default) ~= "boolean" then error("space.bool wants true or false", 2) end
  return { kind = "bool", default = default or false }
end

-- A Lua expression over named values, open-ended: it may be rewritten as a whole.
function space.program(text)
  if type(text) ~= "string" or text == "" then error("space.program wants the text of an expression", 2) end
  return { kind = "program", default = text }
end

-- copy(dim): the same dimension made anew. Raises when a table that looks like one is none.
function space.copy(dim)
  if dim.kind == "choice" then
    local choices = { default = dim.default }
    for i, value in ipairs(dim.choices) do choices[i] = value end
    return space.choice(choices)
  elseif dim.kind == "bool" or dim.kind == "program" then
    return space[dim.kind](dim.default)
  end
  return space[dim.kind](dim.low, dim.high, dim.default)
end

local function round(x) return math.floor(x + 0.5) end

-- Six digits of the range are finer than any knob is felt, and a champion's file stays readable.
local function tidy(x, low, high)
  local digits = 6 + math.max(0, math.floor(math.log10(math.max(math.abs(low), math.abs(high)) / (high - low))))
  return math.max(low, math.min(high, tonumber(("%%.%dg"):format(math.min(17, digits)):format(x))))
end

-- from_unit(dim, u): the value at u in [0, 1].
function space.from_unit(dim, u)
  u = math.max(0, math.min(1, u))
  local kind, low, high = dim.kind, dim.low, dim.high
  if kind == "linear" then return tidy(low + u * (high - low), low, high) end
  if kind == "log" then return tidy(low * (high / low) ^ u, low, high) end
  -- Whole numbers own equal shares of [low − ½, high + ½].
  if kind == "int" then return math.max(low, math.min(high, round(low - 0.5 + u * (high - low + 1)))) end
  if kind == "logint" then
    local from, to = low - 0.5 > 0 and low - 0.5 or low / 2, high + 0.5
    return math.max(low, math.min(high, round(from * (to / from) ^ u)))
  end
  if kind == "choice" then return dim.choices[math.min(#dim.choices, math.floor(u * #dim.choices) + 1)] end
  if kind == "bool" then return u >= 0.5 end
  return dim.default
end

-- to_unit(dim, value): where the value lies in [0, 1]; the middle of its share for discrete kinds.
function space.to_unit(dim, value)
  local kind, low, high = dim.kind, dim.low, dim.high
  if kind == "linear" then return (value - low) / (high - low) end
  if kind == "log" then return math.log(value / low) / math.log(high / low) end
  if kind == "int" then return (value - low + 0.5) / (high - low + 1) end
  if kind == "logint" then
    local from, to = low - 0.5 > 0 and low - 0.5 or low / 2, high + 0.5
    return math.log(value / from) / math.log(to / from)
  end
  if kind == "choice" then
    for i, choice in ipairs(dim.choices) do
      if choice == value then return (i - 0.5) / #dim.choices end
    end
  end
  if kind == "bool" then return value and 0.75 or 0.25 end
  return 0.5
end

-- sample(dim, rng): uniform in the unit interval of the kind.
function space.sample(dim, rng) return space.from_unit(dim, rng:float()) end

-- valid(dim, value) → true, or false and why not.
function space.valid(dim, value)
  local kind = dim.kind
  if kind == "choice" then
    for _, choice in ipairs(dim.choices) do
      if choice == value then return true end
    end
    local names = {}
    for i, choice in ipairs(dim.choices) do names[i] = tostring(choice) end
    return false, ("'%s' is not one of %s"):format(tostring(value), table.concat(names, ", "))
  elseif kind == "bool" then
    if type(value) == "boolean" then return true end
    return false, ("'%s' is not true or false"):format(tostring(value))
  elseif kind == "program" then
    if type(value) == "string" and #value <= 65536 then return true end
    return false, "a program is text of at most 64 KiB"
  end
  if type(value) ~= "number" or value ~= value then return false, ("'%s' is not a number"):format(tostring(value)) end
  if value < dim.low or value > dim.high then return false, ("%g is outside [%g, %g]"):format(value, dim.low, dim.high) end
  if (kind == "int" or kind == "logint") and value % 1 ~= 0 then return false, ("%g is not a whole number"):format(value) end
  return true
end

-- describe(dim) → "0.1 … 365, log, default 30"
function space.describe(dim)
  local kind = dim.kind
  if kind == "choice" then
    local names = {}
    for i, choice in ipairs(dim.choices) do names[i] = tostring(choice) end
    return ("one of %s, default %s"):format(table.concat(names, ", "), tostring(dim.default))
  elseif kind == "bool" or kind == "program" then
    return ("%s, default %s"):format(kind, tostring(dim.default))
  end
  return ("%g … %g, %s, default %g"):format(dim.low, dim.high, kind, dim.default)
end

return space
