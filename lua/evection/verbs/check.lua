-- check.lua - `evection check`: validates files before anything runs, all errors at once.

local native = require "evection.native"
local agent = require "evection.agent"
local compose = require "evection.compose"
local faults = require "evection.faults"
local yaml = require "evection.yaml"

local check = {}

-- What a YAML file is, by the field that only its kind has.
local kinds = {
  { field = "nodes", kind = "composition", load = function(path) return compose.load(path) end },
  { field = "objectives", kind = "reward", load = function(path) return require "evection.reward".load(path) end },
  { field = "composition", kind = "plan", load = function(path) return require "evection.plan".load(path) end },
}

local function check_file(path)
  if path:match "%.lua$" then
    local a, errors = agent.load(path)
    return "agent", a, errors
  end
  local tree, errors = yaml.load(path)
  if tree == nil then return "file", nil, errors end
  for _, k in ipairs(kinds) do
    if type(tree) == "table" and tree[k.field] ~= nil then
      local ok, list = k.load(path)
      return k.kind, ok, list
    end
  end
  return "file", nil, { { file = path, line = 1, message = "neither a composition (nodes), a reward (objectives) nor a plan (composition)" } }
end

function check.main(opts)
  local files, all = native.array {}, {}
  for _, path in ipairs(opts.args) do
    local kind, ok, errors = check_file(path)
    local messages = native.array {}
    if not ok then
      for line in (faults.describe(errors) .. "\n"):gmatch "(.-)\n" do
        messages[#messages + 1] = line
        all[#all + 1] = line
      end
    end
    files[#files + 1] = { file = path, kind = kind, ok = ok ~= nil, errors = messages }
    if ok and not opts.json then print(("%s: a sound %s"):format(path, kind)) end
  end
  if opts.json and #all == 0 then return { files = files, ok = true } end
  if opts.json then print(native.json_encode { files = files, ok = false }) end
  if #all == 0 then return end
  io.stderr:write(table.concat(all, "\n"), "\n") -- as many as there are: an error message has a bounded length
  native.raise("invalid", ("%d error%s in %d file%s"):format(#all, #all == 1 and "" or "s", #files, #files == 1 and "" or "s"))
end

return check
