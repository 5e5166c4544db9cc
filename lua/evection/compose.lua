-- compose.lua - compositions: reading, checking and ordering the graph of agents.
--
-- A composition is YAML, or the same table:
--   name: hand_written
--   data: movielens              # optional: the data set it is meant for
--   nodes:
--     knn:   { agent: item_knn, n: 200, knobs: { shrink: 20 } }
--     pop:   { agent: popular, n: 50 }
--     blend: { agent: rank_fusion, from: [knn, pop] }
--   output: blend
--   budget: { latency_ms: 10 }   # nodes may have one too; theirs must fit in it
-- It is checked as a whole: every error is found, each with file, line and node.

local native = require "evection.native"
local agent = require "evection.agent"
local faults = require "evection.faults"
local yaml = require "evection.yaml"

local compose = {}

local top_fields = { name = "string", about = "string", data = "string", nodes = "table", output = "string", budget = "table" }
local node_fields = { agent = "string", from = true, n = "number", knobs = "table", budget = "table" }

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end
compose.sorted_keys = sorted_keys

-- Fields of a wrong type are taken out, so that the rest can be checked. → { field → true } of those
local function check_fields(t, known, what, found)
  local names, wrong = sorted_keys(known), {}
  for _, key in ipairs(sorted_keys(t)) do
    local want = known[key]
    if want == nil then
      found:add(yaml.line(t, key), "%s has no field '%s'%s", what, tostring(key), faults.suggest(tostring(key), names))
    elseif want ~= true and type(t[key]) ~= want then
      found:add(yaml.line(t, key), "%s: %s must be a %s, not a %s", what, key, want == "table" and "mapping" or want, type(t[key]))
      t[key], wrong[key] = nil, true
    end
  end
  return wrong
end

local function check_budget(t, what, found)
  local budget = t.budget
  if budget == nil then return nil end
  for _, key in ipairs(sorted_keys(budget)) do
    if key ~= "latency_ms" then
      found:add(yaml.line(budget, key), "%s: a budget has no '%s'; latency_ms is known", what, tostring(key))
    elseif type(budget[key]) ~= "number" or budget[key] <= 0 then
      found:add(yaml.line(budget, key), "%s: latency_ms must be a positive number, not '%s'", what, tostring(budget[key]))
    end
  end
  return type(budget.latency_ms) == "number" and budget.latency_ms or nil
end

-- One node of the file → the node that runs, with all that is wrong in `found`.
local function read_node(name, spec, nodes, base, found)
  local line = yaml.line(nodes, name)
  local what = ("node %s"):format(tostring(name))
  if type(name) ~= "string" or not name:match "^[%a_][%w_]*$" or #name > 40 then
    found:add(line, "'%s' is no name for a node: letters, digits and _, at most 40", tostring(name))
    return
  end
  if type(spec) ~= "table" then
    found:add(line, "%s must be a mapping such as { agent: popular }", what)
    return
  end
  local wrong_types = check_fields(spec, node_fields, what, found)
  local node = { name = name, n = spec.n, from = {} }
  if spec.n and (spec.n < 1 or spec.n > 65536 or spec.n % 1 ~= 0) then
    found:add(yaml.line(spec, "n"), "%s: n must be a whole number from 1 to 65536, not %g", what, spec.n)
  end
  if type(spec.from) == "string" then node.from = { spec.from }
  elseif type(spec.from) == "table" then
    for i, input in ipairs(spec.from) do node.from[i] = input end
  elseif spec.from ~= nil then
    found:add(yaml.line(spec, "from"), "%s: from must be a node or a list of nodes", what)
  end
  node.budget_ms = check_budget(spec, what, found)
  if spec.agent == nil then
    if not wrong_types.agent then found:add(line, "%s names no agent", what) end
    return node
  end
  local a, errors = agent.find(spec.agent, base)
  if not a then
    if errors[1].file then found:take(errors) else found:add(yaml.line(spec, "agent") or line, "%s: %s", what, errors[1].message) end
    return node
  end
  -- A file is named so that a champion written elsewhere still finds it.
  local found_as = spec.agent:match "%.lua$" and native.absolute(a.file) or spec.agent
  node.agent, node.agent_name, node.role = a, found_as, a.role
  local values, wrong = agent.knobs(a, spec.knobs)
  for _, w in ipairs(wrong or {}) do
    found:add(yaml.line(spec.knobs, w.knob) or line, "%s: %s", what, w.message)
  end
  node.knobs = values
  return node
end

local function check_ports(node, spec, all, found)
  if not node.agent then return end
  local least, most = unpack(agent.ports[node.role])
  local line = yaml.line(spec, "from") or yaml.line(spec, "agent")
  if #node.from < least or #node.from > most then
    local want = most == 0 and "takes no input" or most == 1 and "takes one input" or "takes one or more inputs"
    found:add(line, "node %s: an agent of role %s %s, not %d", node.name, node.role, want, #node.from)
  end
  local seen = {}
  for _, input in ipairs(node.from) do
    if all[input] == nil then
      found:add(line, "node %s: no node '%s' to take from%s", node.name, tostring(input), faults.suggest(tostring(input), sorted_keys(all)))
    elseif seen[input] then
      found:add(line, "node %s takes from '%s' twice", node.name, input)
    end
    seen[input] = true
  end
end

-- The nodes in an order in which each comes after its inputs; equals by name. A cycle is an error.
local function order(nodes, lines, found)
  local placed, list, state = {}, {}, {}
  local function visit(name, path)
    if placed[name] or not nodes[name] then return end
    if state[name] then
      found:add(lines[name], "node %s: a cycle: %s", name, table.concat(path, " → ") .. " → " .. name)
      return
    end
    state[name] = true
    path[#path + 1] = name
    for _, input in ipairs(nodes[name].from) do visit(input, path) end
    path[#path] = nil
    placed[name] = true
    list[#list + 1] = nodes[name]
  end
  for _, name in ipairs(sorted_keys(nodes)) do visit(name, {}) end
  return list
end

local function check_output(t, nodes, list, found)
  if t.output == nil then
    found:add(1, "output is missing: which node's slate is returned")
  elseif nodes[t.output] == nil then
    found:add(yaml.line(t, "output"), "output '%s' is no node%s", t.output, faults.suggest(t.output, sorted_keys(nodes)))
  else
    local used = { [t.output] = true }
    for i = #list, 1, -1 do
      if used[list[i].name] then
        for _, input in ipairs(list[i].from) do used[input] = true end
      end
    end
    for _, node in ipairs(list) do
      if not used[node.name] then found:add(yaml.line(t.nodes, node.name), "node %s feeds nothing that reaches the output", node.name) end
    end
  end
end

-- Knobs given from outside, { ["node.knob"] = value }, put into a copy of the table.
local function apply_sets(t, sets, found)
  for _, path in ipairs(sorted_keys(sets)) do
    local name, knob = path:match "^([^.]+)%.(.+)$"
    local spec = name and t.nodes and t.nodes[name]
    if type(spec) ~= "table" then
      found:add(nil, "--set %s: no node '%s'%s", path, name or path, faults.suggest(name or path, sorted_keys(t.nodes or {})))
    else
      spec.knobs = spec.knobs or {}
      if type(spec.knobs) == "table" then spec.knobs[knob] = sets[path] end
    end
  end
end

-- The plain table that says the same: what a genome keeps, and what load takes again.
local function plain(t, nodes)
  local source = { name = t.name, about = t.about, data = t.data, output = t.output, budget = t.budget, nodes = {} }
  for name, node in pairs(nodes) do
    local knobs = {}
    for knob, value in pairs(node.knobs) do
      if value ~= node.agent.space[knob].default then knobs[knob] = value end
    end
    local from
    if #node.from == 1 then from = node.from[1] elseif #node.from > 1 then from = native.array { unpack(node.from) } end
    source.nodes[name] = { agent = node.agent_name, from = from, n = node.n, knobs = next(knobs) and knobs or nil,
      budget = node.budget_ms and { latency_ms = node.budget_ms } or nil }
  end
  return source
end

local function content_hash(c)
  local parts = { output = c.output, nodes = {} }
  for _, node in ipairs(c.nodes) do
    parts.nodes[node.name] = { agent = node.agent.hash, knobs = node.knobs, from = native.array { unpack(node.from) }, n = node.n or 0,
      budget_ms = node.budget_ms }
  end
  parts.budget_ms = c.budget_ms
  return native.hash(native.json_encode(parts))
end

-- agent:NAME stands for that agent alone, fed by `popular` when it needs an input.
local function alone(name)
  local a, errors = agent.find(name)
  if not a then return nil, errors end
  local nodes = { [a.name] = { agent = name } }
  if agent.ports[a.role][1] > 0 then
    nodes.candidates = { agent = "popular", n = 200 }
    nodes[a.name].from = "candidates"
  end
  return { name = a.name, nodes = nodes, output = a.name }
end

local function read(source)
  if type(source) == "table" then return native.json_decode(native.json_encode(source)), "composition" end
  local name = source:match "^agent:(.+)$"
  if name then
    local t, errors = alone(name)
    return t, "agent:" .. name, errors
  end
  local t, errors = yaml.load(source)
  return t, source, errors
end

-- load(path | "agent:NAME" | table[, sets]) → composition, or nil and the list of all errors.
-- composition: name, data, nodes (in running order: name, agent, agent_name, role, from, n, knobs, budget_ms), output,
-- files (all that it was read from), hash (of what it does: agents' text, knobs, graph), source (plain table).
function compose.load(source, sets)
  local t, file, errors = read(source)
  if t == nil then return nil, errors end
  local found = faults.new(file)
  if type(t) ~= "table" or type(t.nodes) ~= "table" or next(t.nodes) == nil then
    found:add(1, "a composition needs nodes: a mapping of names to { agent: … }")
    return nil, found
  end
  local wrong_types = check_fields(t, top_fields, "a composition", found)
  if sets then apply_sets(t, sets, found) end
  local base = type(source) == "string" and source:match "^(.*)/[^/]*$" or "."
  local nodes = {}
  for _, name in ipairs(sorted_keys(t.nodes)) do nodes[name] = read_node(name, t.nodes[name], t.nodes, base, found) end
  for _, name in ipairs(sorted_keys(nodes)) do check_ports(nodes[name], t.nodes[name], t.nodes, found) end
  local list = order(nodes, yaml.lines(t.nodes), found)
  if not wrong_types.output then check_output(t, nodes, list, found) end
  local budget, sum = check_budget(t, "the composition", found), 0
  for _, node in ipairs(list) do sum = sum + (node.budget_ms or 0) end
  if budget and sum > budget then
    found:add(yaml.line(t.budget, "latency_ms"), "the budget of %g ms is below the sum of its parts, %g ms", budget, sum)
  end
  if #found > 0 then return nil, found end
  local c = { name = t.name or file, data = t.data, nodes = list, output = t.output, files = {}, budget_ms = budget }
  if type(source) == "string" and not source:match "^agent:" then c.files[1] = source end
  for _, node in ipairs(list) do c.files[#c.files + 1] = node.agent.file end
  c.source, c.hash = plain(t, nodes), content_hash(c)
  return c
end

-- open(source[, sets]) → composition; raises (status invalid) with all errors.
function compose.open(source, sets)
  local c, errors = compose.load(source, sets)
  return faults.check(c, errors)
end

-- space(composition) → its decision space: array of { path = "node.knob", dim, value }, sorted by path.
function compose.space(c)
  local dims = {}
  for _, node in ipairs(c.nodes) do
    for name, dim in pairs(node.agent.space) do
      dims[#dims + 1] = { path = node.name .. "." .. name, dim = dim, value = node.knobs[name] }
    end
  end
  table.sort(dims, function(a, b) return a.path < b.path end)
  return dims
end

-- fit lives with the runner; it is offered here because callers think of it as something done to a composition.
function compose.fit(...) return require "evection.runner".fit(...) end

return compose
