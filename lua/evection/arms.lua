-- arms.lua - learning state for scripts and simulators. Agents declare theirs and get it in ctx.state; docs/reference/explore.md.
--
--   local arms = require "evection.arms"
--   local bandit = arms.new { kind = "counts", n = 10 }          -- this process's own, gone with it
--   local kept = arms.open("prices", { kind = "linear", n_dims = 8 })  -- $EVECTION_HOME/state/prices.arms, shared by who opens it

local native = require "evection.native"

local arms = {}

local function path_of(name)
  if type(name) ~= "string" or not name:match "^[%w_-]+$" then
    native.raise("invalid", ("'%s' is no name for learning state: letters, digits, _ and -"):format(tostring(name)))
  end
  return ("%s/state/%s.arms"):format(native.home, name)
end

function arms.new(options) return native.arms(nil, options) end

function arms.open(name, options)
  local path = path_of(name)
  native.mkdirs(native.home .. "/state")
  return native.arms(path, options)
end

-- A checksummed copy beside the state: what it is made of again after a crash of the machine.
function arms.snapshot(state, name) native.arms_snapshot(state, path_of(name) .. ".snapshot") end

function arms.restore(state, name) native.arms_restore(state, path_of(name) .. ".snapshot") end

return arms
