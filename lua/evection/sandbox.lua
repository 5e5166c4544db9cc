-- sandbox.lua - the environment that agents and programs are loaded into.
--
-- Text only, never bytecode; a fresh environment for each chunk; whitelisted functions; copies of the library
-- tables, so that nothing written there reaches anybody else. What can still go wrong (loops, huge patterns) ends
-- at the process boundary: evaluations and script workers run in processes with deadlines.

local native = require "evection.native"

local sandbox = {}

local TEXT_MAX = 1048576

local raw_rep = string.rep
-- string.rep, bounded; also reached through ("x"):rep.
local function rep(s, n, separator)
  local size = (#tostring(s) + #tostring(separator or "")) * (tonumber(n) or 0)
  if size > TEXT_MAX then error(("string.rep: %d bytes are more than %d"):format(size, TEXT_MAX), 2) end
  return raw_rep(s, n, separator)
end

local function pick(library, names)
  local copy = {}
  for name in names:gmatch "%S+" do copy[name] = library[name] end
  return copy
end

local strings = "byte char find format gmatch gsub len lower match reverse sub upper"
local maths = "abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp ldexp log log10 max min modf pow rad "
  .. "sin sinh sqrt tan tanh"

-- Strings have one metatable for the whole state: scripts that reach it through ("x").rep get the bounded copy.
do
  local safe = pick(string, strings)
  safe.rep, safe.dump = rep, nil
  getmetatable("").__index = setmetatable(safe, { __index = function(_, key) -- the trusted library keeps what it had
    return key ~= "rep" and key ~= "dump" and string[key] or nil
  end })
  getmetatable("").__metatable = false
end

-- A fresh environment; `modules` are what its require knows.
function sandbox.environment(modules)
  local env = pick(_G, "assert error ipairs next pairs pcall select tonumber tostring type unpack")
  env.string = pick(string, strings)
  env.string.rep = rep
  env.math = pick(math, maths)
  env.math.huge, env.math.pi = math.huge, math.pi
  env.table = pick(table, "concat insert maxn remove sort")
  env.vector = native.vector
  env._G = env
  function env.require(name)
    local module = modules and modules[name]
    if module == nil then error(("require '%s': agents may require evection.agent, evection.space and evection.nn"):format(tostring(name)), 2) end
    return module
  end
  return env
end

-- load(text, name, env) → function, or nil and "NAME:LINE: …".
function sandbox.load(text, name, env)
  if #text > TEXT_MAX then return nil, ("%s: larger than %d bytes"):format(name, TEXT_MAX) end
  return load(text, "=" .. name, "t", env)
end

-- expression(text, name) → function(values): the expression's value with the names in `values` in sight.
function sandbox.expression(text, name)
  local base = sandbox.environment()
  local env = setmetatable({}, { __index = base })
  local chunk, message = sandbox.load("return (" .. text .. "\n)", name, env) -- one value: neither none nor two
  if not chunk then return nil, message end
  return function(values)
    for key in pairs(env) do env[key] = nil end
    for key, value in pairs(values) do env[key] = value end
    return chunk()
  end
end

return sandbox
