-- agent.lua - what an agent is: one Lua file that returns agent { … }.
--
-- The base does what is common, so that a new agent overrides two or three verbs:
--   fit(knobs, data) → model      rank: data:ranker(knobs); else default: none; the model is then nil
--   act(model, request, slate, ctx)   recall: model:recall(request, slate); rank: model:rank(request, slate, ctx.data)
--   learn(state, events)          default: none: the agent's loop is open and it stays a module
--   migrate(old_version, state)   default: none: learning state of another shape begins anew
--   evaluate(model, heldout, ctx) → number   default: the whole pipeline's measure of the agent alone
-- ctx = { knobs, data (the view it was fitted on, read only), inputs (names of what is merged), feature (the item
-- column that diversity goes by, or nil), state (while serving: the agent's shared arrays, else nil) }.

local native = require "evection.native"
local faults = require "evection.faults"
local sandbox = require "evection.sandbox"
local space = require "evection.space"

local agent = {}

local roles = { recall = true, merge = true, rank = true, rerank = true, explore = true }
-- How many inputs a role takes: least, most.
agent.ports = { recall = { 0, 0 }, merge = { 1, 32 }, rank = { 1, 1 }, rerank = { 1, 1 }, explore = { 1, 1 } }

local fields = {
  name = "string", role = "string", about = "string", references = "table", space = "table", state = "table",
  fit_knobs = "table", fit = "function", act = "function", learn = "function", evaluate = "function", migrate = "function",
}

local kinds = { linear = true, log = true, int = true, logint = true, choice = true, bool = true, program = true }

local default_fits = {
  rank = function(knobs, data) return data:ranker(knobs) end,
}

local default_acts = {
  recall = function(model, request, slate) model:recall(request, slate) end,
  rank = function(model, request, slate, ctx)
    model:rank(request, slate, ctx.data)
  end,
}

-- The line of `field =` in the agent's text: where an error about it points. What is missing is missing from line 1.
local function line_of(text, field)
  local line = 0
  field = field:gsub("%p", "%%%0")
  for row in (text .. "\n"):gmatch "(.-)\n" do
    line = line + 1
    if row:match("^%s*" .. field .. "%s*=") then return line end
  end
  return 1
end

local function check_fields(spec, text, found)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  for key, value in pairs(spec) do
    local want = fields[key]
    if not want then
      local word = tostring(key)
      found:add(line_of(text, word), "an agent has no field '%s'%s", word, faults.suggest(word, names))
    elseif type(value) ~= want then
      found:add(line_of(text, key), "%s must be a %s, not a %s", key, want, type(value))
    end
  end
end

local function check_space(spec, text, found)
  for name, dim in pairs(spec.space) do
    if type(name) ~= "string" or not name:match "^[%a_][%w_]*$" then
      found:add(line_of(text, "space"), "'%s' is no name for a knob", tostring(name))
    elseif type(dim) ~= "table" or not kinds[dim.kind] then
      found:add(line_of(text, name), "knob '%s' must be made by space.log, linear, int, logint, choice, bool or program", name)
    else
      local ok, message = pcall(space.copy, dim)
      if ok and dim.kind == "program" then ok, message = sandbox.expression(dim.default, tostring(spec.name) .. "." .. name) end
      if not ok then found:add(line_of(text, name), "knob '%s': %s", name, (message:gsub("^.-%.lua:%d+: ", ""))) end
    end
  end
  for _, name in ipairs(type(spec.fit_knobs) == "table" and spec.fit_knobs or {}) do
    if not spec.space[name] then found:add(line_of(text, "fit_knobs"), "fit_knobs names '%s', which is no knob", tostring(name)) end
  end
end

local function is_size(size)
  return size == "items" or size == "users" or (type(size) == "number" and size >= 1 and size <= 2 ^ 26 and size % 1 == 0)
end

-- Learning state of a kind: { kind, n, n_dims, … }; a number that a knob may set is named by the knob.
local state_fields = {
  kind = "string", n = "size", n_dims = "number", window = "number", diagonal = "boolean", cascade = "boolean",
  decay = "knob", ridge = "knob", rate = "knob", share = "knob", examination = "knob", seed = "number",
}

-- What cannot be opened is wrong, too: a small one is, with the knobs at their defaults.
local function probe(s, spec)
  local options = {}
  for key, value in pairs(s) do options[key] = state_fields[key] == "knob" and type(value) == "string" and spec.space[value].default or value end
  if s.kind ~= "weights" or type(s.n) ~= "number" then options.n = nil end
  if s.kind == "weights" and type(s.n) ~= "number" and s.n_dims then return false, "weights: n_dims must be 0 or n" end
  if s.window and s.window >= 0 and s.window <= 2 ^ 22 then options.window = 0 end
  return pcall(native.arms, nil, options)
end

local function check_arms(name, s, spec, text, found)
  local line, names, before = line_of(text, name), {}, #found
  for key in pairs(state_fields) do names[#names + 1] = key end
  table.sort(names)
  for key, value in pairs(s) do
    local want, kind = state_fields[key], type(value)
    if not want then
      found:add(line, "state.%s has no field '%s'%s", name, tostring(key), faults.suggest(tostring(key), names))
    elseif want == "size" and not is_size(value) then
      found:add(line, "state.%s: n must be \"items\", \"users\" or a whole number", name)
    elseif want == "knob" and kind == "string" then
      local dim = type(spec.space) == "table" and spec.space[value]
      if type(dim) ~= "table" or dim.kind == "choice" or dim.kind == "bool" or dim.kind == "program" then
        found:add(line, "state.%s: %s names '%s', which is no knob of numbers", name, key, value)
      end
    elseif want ~= "size" and kind ~= (want == "knob" and "number" or want) then
      found:add(line, "state.%s: %s must be a %s, not a %s", name, key, want == "knob" and "number or a knob's name" or want, kind)
    end
  end
  if type(s.kind) ~= "string" or not native.arms_kinds[s.kind] then
    found:add(line, "state.%s: kind must be counts, linear, logistic, weights, policy or cma, not '%s'", name, tostring(s.kind))
  end
  if #found > before then return end
  local ok, message = probe(s, spec)
  if not ok then found:add(line, "state.%s: %s", name, (tostring(message):gsub("^.-%.lua:%d+: ", ""))) end
end

local function check_state(spec, text, found)
  for name, size in pairs(spec.state) do
    local named = type(name) == "string" and name:match "^[%a_][%w_]*$"
    if named and type(size) == "table" then
      check_arms(name, size, spec, text, found)
    elseif not named or not is_size(size) then
      found:add(line_of(text, "state"), "state.%s must be \"items\", \"users\", a whole number or { kind = … }", tostring(name))
    end
  end
end

-- check(spec, text, file) → list of errors, empty when the agent is whole.
local function check(spec, text, file)
  local found = faults.new(file)
  if type(spec) ~= "table" then
    found:add(1, "the file must return agent { … }")
    return found
  end
  spec.space, spec.state = spec.space or {}, spec.state or {}
  check_fields(spec, text, found)
  if type(spec.name) ~= "string" or not spec.name:match "^[%l_][%l%d_]*$" then
    found:add(line_of(text, "name"), "name must be lower_case, not '%s'", tostring(spec.name))
  end
  if not roles[spec.role] then
    found:add(line_of(text, "role"), "role must be recall, merge, rank, rerank or explore, not '%s'", tostring(spec.role))
  end
  if type(spec.about) ~= "string" then found:add(line_of(text, "about"), "about must say in a line what the agent does") end
  if type(spec.space) == "table" then check_space(spec, text, found) end
  if type(spec.state) == "table" then check_state(spec, text, found) end
  if roles[spec.role] then
    if not spec.act and not default_acts[spec.role] then found:add(line_of(text, "role"), "an agent of role %s needs act", spec.role) end
    if not spec.fit and not spec.act and not default_fits[spec.role] then
      found:add(line_of(text, "role"), "an agent of role %s needs fit or act", spec.role)
    end
  end
  return found
end

-- The agent as the runtime keeps it: copied, so that a script that holds on to its table cannot change it later.
local function keep(spec)
  local a = {}
  for key in pairs(fields) do a[key] = spec[key] end
  a.space = {}
  for name, dim in pairs(spec.space) do a.space[name] = space.copy(dim) end
  for _, key in ipairs { "state", "fit_knobs", "references" } do
    a[key] = spec[key] and {}
    for name, value in pairs(spec[key] or {}) do
      if type(value) == "table" then
        local copy = {}
        for field, of in pairs(value) do copy[field] = of end
        value = copy
      end
      a[key][name] = value
    end
  end
  return a
end

-- A library's table with the tables in it, made anew.
local function copy_of(library)
  local copy = {}
  for name, value in pairs(library) do copy[name] = type(value) == "table" and copy_of(value) or value end
  return copy
end

-- What the sandbox's require gives. Each load gets its own tables: nothing is shared between agents.
local function modules()
  local list = {
    ["evection.agent"] = function(spec)
      if type(spec) ~= "table" then error("agent { … } wants a table", 2) end
      return spec
    end,
    ["evection.space"] = copy_of(space),
  }
  return setmetatable(list, { __index = function(_, name) -- loaded for who asks for it
    if name ~= "evection.nn" then return nil end
    list[name] = copy_of(require "evection.nn")
    return list[name]
  end })
end

-- What a chunk is called in messages: its path, which Lua would cut at 60 bytes without its end. The hash in it is told by its beginning.
local function chunk_name(path)
  if #path < 56 then return path end
  path = path:gsub("%x+", function(hash) return #hash == 64 and hash:sub(1, 12) or nil end)
  if #path < 56 then return path end
  return "..." .. path:sub(-52):gsub("^[\128-\191]+", "") -- no half of a letter
end

-- agent.load(path) → agent, or nil and a list of errors. An agent carries file, text and hash.
function agent.load(path)
  local ok, text = pcall(native.read_file, path, 1048576)
  if not ok then return nil, { { file = path, message = tostring(text):gsub("^.-: ", "", 1) } } end
  local name = chunk_name(path)
  local function fail(message)
    local line, rest = tostring(message):match("^" .. name:gsub("%p", "%%%0") .. ":(%d+): (.*)$")
    return nil, { { file = path, line = tonumber(line) or 1, message = rest or tostring(message) } }
  end
  local chunk, message = sandbox.load(text, name, sandbox.environment(modules()))
  if not chunk then return fail(message) end
  local spec
  ok, spec = pcall(chunk)
  if not ok then return fail(spec) end
  local found = check(spec, text, path)
  if #found > 0 then return nil, found end
  spec = keep(spec)
  spec.fit = spec.fit or (not spec.act and default_fits[spec.role] or nil)
  spec.act = spec.act or default_acts[spec.role]
  spec.file, spec.hash = path, native.hash(text)
  return spec
end

-- The files that may hold the agent called `name`: agents of the current folder first, then those that ship.
local function candidates(name, base)
  local paths = {}
  if name:match "%.lua$" then
    if base and not name:match "^/" then paths[1] = base .. "/" .. name end
    paths[#paths + 1] = name
    return paths
  end
  local short = name:match "([^/]*)$"
  for _, root in ipairs { "agents", native.root .. "/agents" } do
    for _, role in ipairs { "recall", "merge", "rank", "rerank", "explore" } do
      if short == name or name == role .. "/" .. short then paths[#paths + 1] = ("%s/%s/%s.lua"):format(root, role, short) end
    end
  end
  return paths
end

-- agent.find(name, base) → agent, or nil and errors. `name` is "ease", "recall/ease" or a path ending in .lua
-- (beside the file `base` lies in, or here).
function agent.find(name, base)
  for _, path in ipairs(candidates(name, base)) do
    if native.exists(path) then return agent.load(path) end
  end
  local names = {}
  for _, known in ipairs(agent.list()) do names[#names + 1] = known:match "([^/]+)%.lua$" end
  return nil, { { message = ("no agent '%s'%s"):format(name, faults.suggest(name, names)) } }
end

-- agent.list() → paths of all agents, those of the current folder first, each folder's in order of name.
function agent.list()
  local paths, seen = {}, {}
  for _, root in ipairs { "agents", native.root .. "/agents" } do
    for _, role in ipairs { "recall", "merge", "rank", "rerank", "explore" } do
      for _, file in ipairs(native.list(root .. "/" .. role)) do
        local key = role .. "/" .. file
        if file:match "%.lua$" and not seen[key] then
          seen[key] = true
          paths[#paths + 1] = root .. "/" .. key
        end
      end
    end
  end
  return paths
end

-- agent.knobs(a, given) → values with defaults filled in, or nil and { { knob, message } }.
function agent.knobs(a, given)
  local values, wrong, names = {}, {}, {}
  for name, dim in pairs(a.space) do
    values[name] = dim.default
    names[#names + 1] = name
  end
  table.sort(names)
  for name, value in pairs(given or {}) do
    local dim = a.space[name]
    if not dim then
      wrong[#wrong + 1] = { knob = name, message = ("agent %s has no knob '%s'%s"):format(a.name, name, faults.suggest(name, names)) }
    else
      local ok, why = space.valid(dim, value)
      if ok and dim.kind == "program" then ok, why = sandbox.expression(value, a.name .. "." .. name) end
      if not ok then wrong[#wrong + 1] = { knob = name, message = ("%s: %s"):format(name, why) } end
      values[name] = value
    end
  end
  if #wrong > 0 then return nil, wrong end
  return values
end

-- agent.live(a, knobs) → the knobs as the agent sees them: programs compiled to functions of named values.
function agent.live(a, knobs)
  local live = {}
  for name, value in pairs(knobs) do
    live[name] = a.space[name].kind == "program" and assert(sandbox.expression(value, a.name .. "." .. name)) or value
  end
  return live
end

return agent
