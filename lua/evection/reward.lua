-- reward.lua - the outer reward: what the whole is for, in several objectives with constraints, and what each agent is paid by.
--
--   name: balanced
--   objectives:
--     - { maximise: ndcg@20, weight: 1 }
--     - { maximise: coverage@20, weight: 0.05 }
--     - { minimise: latency_p99_ms, weight: 0.001, reference: 50 }   # reference: the worst that counts in the hypervolume
--   constraints: [ max_share.brand <= 0.3, gini@20 <= 0.97 ]
--   penalty: 1                                  # of a unit of violation
--   multipliers: { step: 1, start: 0, most: 100 }
--   inner: { near: recall@20 }                  # by what a node alone is measured; default: the first objective that is a mean over users
--   baselines: { near: popular }                # who stands in for a node that is taken away; default: nobody
--   coupling: { by: difference, low: 0, high: 0.5, samples: 32 }
--
-- With f = Σ weight · metric (minimised ones negative) and gⱼ = (metric − bound) / max(|bound|, 1), negative for >=:
--   reward     = f − penalty · Σ max(0, gⱼ)
--   Lagrangian = f − Σ λⱼ gⱼ − penalty · Σ max(0, gⱼ)              lagrange.lua moves λ

local native = require "evection.native"
local faults = require "evection.faults"
local yaml = require "evection.yaml"

local reward = {}

-- Where a reward was read: reward → { file, lines = { key → line } }. Beside it, so that it stays plain data.
local places = setmetatable({}, { __mode = "k" })

-- ---- Metrics ------------------------------------------------------------------------------------------------

local cutoffs = { ["5"] = true, ["10"] = true, ["20"] = true }
local LONGEST = 20
-- What can be measured, with the least and the greatest value it can have.
local means = { recall = 1, ndcg = 1, hit = 1, precision = 1, mrr = 1, map = 1, diversity = 1, novelty = math.huge }
local totals = { coverage = 1, gini = 1 }
local shares = { max_share = true, slate_share = true, share = true }
local latencies = { latency_mean_ms = true, latency_p50_ms = true, latency_p99_ms = true }
local costs = { memory_mb = true, model_mb = true }
local of_feeds = { feed_clicks = true, feed_live = true, feed_worth = true } -- of data that are a simulated feed
local of_clicks = { auc = 1, gauc = 1, log_loss = math.huge }

local names
local function suggest(word)
  if not names then
    names = {}
    for base in pairs(means) do names[#names + 1] = base .. "@20" end
    for base in pairs(totals) do names[#names + 1] = base .. "@20" end
    for _, list in ipairs { latencies, costs, of_feeds, of_clicks } do
      for name in pairs(list) do names[#names + 1] = name end
    end
    table.sort(names)
  end
  return faults.suggest(word, names)
end

-- parse("max_share.brand@10") → { name, kind, base, k, column, token, node, most }, or nil and what is wrong with it.
-- kinds: mean (over users), total (of all lists together), share (of exposure), latency, cost, feed, clicks.
function reward.parse(name)
  if type(name) ~= "string" then return nil, ("'%s' is no metric"):format(tostring(name)) end
  if latencies[name] then return { name = name, kind = "latency", base = name, most = math.huge } end
  if costs[name] then return { name = name, kind = "cost", base = name, most = math.huge } end
  if of_feeds[name] then return { name = name, kind = "feed", base = name, most = math.huge } end
  if of_clicks[name] then return { name = name, kind = "clicks", base = name, most = of_clicks[name] } end
  local base, rest = name:match "^([%l_%d]+)%.(.+)$"
  if base and latencies[base] then return { name = name, kind = "latency", base = base, node = rest, most = math.huge } end
  if base and shares[base] then
    local what, k = rest:match "^(.*)@(%d+)$"
    if k and not cutoffs[k] then return nil, ("'%s': lists are measured at @5, @10 and @20"):format(name) end
    what = what or rest
    local m = { name = name, kind = "share", base = base, k = tonumber(k) or LONGEST, column = what, most = 1 }
    if base == "share" then
      m.column, m.token = what:match "^([^.]+)%.(.+)$"
      if not m.token then return nil, ("'%s': a share is of a column's token, such as share.brand.acme"):format(name) end
    end
    return m
  end
  local plain, k = name:match "^([%l_]+)@(%d+)$"
  local most = plain and (means[plain] or totals[plain])
  if not most then return nil, ("'%s' is no metric%s"):format(name, suggest(name)) end
  if not cutoffs[k] then return nil, ("'%s': lists are measured at @5, @10 and @20"):format(name) end
  return { name = name, kind = means[plain] and "mean" or "total", base = plain, k = tonumber(k), most = most }
end

-- ---- Reading ------------------------------------------------------------------------------------------------

local function finite(x) return type(x) == "number" and x == x and math.abs(x) < math.huge end

local function check_keys(t, known, what, found)
  local list = {}
  for key in pairs(known) do list[#list + 1] = key end
  table.sort(list)
  for key in pairs(t) do
    if not known[key] then found:add(yaml.line(t, key), "%s has no field '%s'%s", what, tostring(key), faults.suggest(tostring(key), list)) end
  end
end

local objective_fields = { maximise = true, minimise = true, weight = true, reference = true }

local function read_objective(o, i, t, seen, found)
  local line = yaml.line(t.objectives, i)
  if type(o) ~= "table" then
    found:add(line, "objective %d must be such as { maximise: ndcg@20, weight: 1 }, not '%s'", i, tostring(o))
    return
  end
  check_keys(o, objective_fields, "an objective", found)
  local metric, sign, key = o.maximise, 1, "maximise"
  if o.minimise ~= nil then metric, sign, key = o.minimise, -1, "minimise" end
  local weight = o.weight == nil and 1 or o.weight
  if metric == nil or (o.maximise ~= nil and o.minimise ~= nil) then
    found:add(line, "objective %d must either maximise or minimise a metric", i)
  else
    local m, why = reward.parse(metric)
    if not m then found:add(yaml.line(o, key) or line, "objective %d: %s", i, why)
    elseif seen[metric] then found:add(yaml.line(o, key) or line, "objective %d: '%s' is objective %d already", i, metric, seen[metric]) end
    seen[metric] = seen[metric] or i
  end
  if not finite(weight) or weight <= 0 then
    found:add(yaml.line(o, "weight") or line, "objective %d: weight must be a positive number, not '%s'", i, tostring(weight))
    weight = 1
  end
  if o.reference ~= nil and not finite(o.reference) then
    found:add(yaml.line(o, "reference") or line, "objective %d: reference must be a number, not '%s'", i, tostring(o.reference))
  end
  return { metric = metric, weight = sign * weight, reference = o.reference }
end

local function read_constraint(text, i, t, read, found)
  local line = yaml.line(t.constraints, i)
  local metric, op, bound
  if type(text) == "string" then metric, op, bound = text:match "^%s*(.-)%s*([<>]=)%s*(%S+)%s*$" end
  if not metric then
    found:add(line, "constraint '%s' must be such as gini@20 <= 0.97", tostring(text))
    return
  end
  local number = tonumber(bound)
  local m, why = reward.parse(metric)
  if not m then found:add(line, "constraint '%s': %s", text, why) end
  if not finite(number) then
    found:add(line, "constraint '%s': '%s' is no number", text, bound)
    return
  end
  if m and ((op == ">=" and number > m.most) or (op == "<=" and number < 0)) then
    found:add(line, "constraint '%s' can never hold: %s lies between 0 and %s", text, metric, m.most < math.huge and m.most or "infinity")
  end
  for _, other in ipairs(read) do
    if other.metric == metric and other.op == op then
      found:add(line, "constraint '%s': '%s %s %g' bounds it on that side already", text, other.metric, other.op, other.bound)
    elseif other.metric == metric and (op == "<=" and number < other.bound or op == ">=" and number > other.bound) then
      found:add(line, "constraint '%s' can never hold together with '%s %s %g'", text, other.metric, other.op, other.bound)
    end
  end
  return { metric = metric, op = op, bound = number }
end

-- A field that is a number within [low, high], or the fallback.
local function number(t, key, low, high, fallback, what, found)
  local x = t[key]
  if x == nil then return fallback end
  if not finite(x) or x < low or x > high then
    local range = high < math.huge and ("from %g to %g"):format(low, high) or ("of %g or more"):format(low)
    found:add(yaml.line(t, key), "%s%s must be a number %s, not '%s'", what, key, range, tostring(x))
    return fallback
  end
  return x
end

local function mapping(t, key, found)
  if t[key] == nil then return {} end
  if type(t[key]) ~= "table" or #t[key] > 0 then
    found:add(yaml.line(t, key), "%s must be a mapping, not '%s'", key, type(t[key]) == "table" and "a list" or tostring(t[key]))
    return {}
  end
  return t[key]
end

local function read_multipliers(t, found)
  local m = mapping(t, "multipliers", found)
  check_keys(m, { step = true, start = true, most = true }, "multipliers", found)
  local most = number(m, "most", 0, math.huge, 100, "multipliers: ", found)
  return { step = number(m, "step", 0, math.huge, 1, "multipliers: ", found), start = number(m, "start", 0, most, 0, "multipliers: ", found), most = most }
end

local methods = { none = true, difference = true, shapley = true }

local function read_coupling(t, found)
  local c = t.coupling
  if type(c) == "string" then c = { by = c } end
  if c ~= nil and type(c) ~= "table" then
    found:add(yaml.line(t, "coupling"), "coupling must be none, difference, shapley or a mapping, not '%s'", tostring(c))
    c = nil
  end
  c = c or {}
  check_keys(c, { by = true, low = true, high = true, samples = true }, "a coupling", found)
  local by = c.by == nil and "none" or c.by
  if not methods[by] then
    found:add(yaml.line(c, "by") or yaml.line(t, "coupling"), "coupling '%s' is not known: none, difference and shapley are", tostring(by))
  end
  local high = number(c, "high", 0, 1, 0.5, "coupling: ", found)
  local coupling = { by = by, high = high, low = number(c, "low", 0, high, 0, "coupling: ", found) }
  coupling.samples = number(c, "samples", 2, 1e6, 32, "coupling: ", found)
  if coupling.samples % 1 ~= 0 then found:add(yaml.line(c, "samples"), "coupling: samples must be a whole number, not '%s'", tostring(c.samples)) end
  return coupling
end

-- { node → text } of inner or baselines, with the lines of its nodes.
local function read_nodes(t, key, lines, found)
  local list = {}
  for node, value in pairs(mapping(t, key, found)) do
    local line = yaml.line(t[key], node)
    lines[key .. "." .. tostring(node)] = line
    if type(node) ~= "string" then found:add(line, "%s: '%s' is no name of a node", key, tostring(node))
    elseif type(value) ~= "string" then found:add(line, "%s: %s must be text, not '%s'", key, node, type(value) == "table" and "a list" or tostring(value))
    else list[node] = value end
  end
  return list
end

local function default_inner(r)
  for _, o in ipairs(r.objectives) do
    local m = reward.parse(o.metric)
    if m and m.kind == "mean" then return o.metric end
  end
  return "ndcg@20"
end

local known = {
  name = true, about = true, objectives = true, constraints = true, penalty = true, coupling = true, multipliers = true, inner = true, baselines = true,
}

local function new(name)
  return {
    name = name, objectives = {}, constraints = {}, penalty = 1, multipliers = { step = 1, start = 0, most = 100 }, inner = {}, baselines = {},
    coupling = { by = "none", low = 0, high = 0.5, samples = 32 },
  }
end

-- load(path or table) → reward { name, objectives, constraints, penalty, multipliers, inner, baselines, coupling }, or nil and all errors.
function reward.load(source)
  local t, file = source, "reward"
  if type(source) == "string" then
    local errors
    file = source
    t, errors = yaml.load(source)
    if t == nil then return nil, errors end
  end
  local found, lines = faults.new(file), {}
  if type(t) ~= "table" or type(t.objectives) ~= "table" or #t.objectives == 0 then
    found:add(type(t) == "table" and yaml.line(t, "objectives") or 1, "a reward needs objectives: a list of { maximise: METRIC, weight: W }")
    if type(t) ~= "table" then return nil, found end
  end
  check_keys(t, known, "a reward", found)
  local r, seen = new(t.name), {}
  if t.name ~= nil and type(t.name) ~= "string" then
    found:add(yaml.line(t, "name"), "name must be text, not '%s'", type(t.name) == "table" and "a list" or tostring(t.name))
  end
  for i, o in ipairs(type(t.objectives) == "table" and t.objectives or {}) do
    r.objectives[i] = read_objective(o, i, t, seen, found)
    lines["objective." .. i] = yaml.line(t.objectives, i)
  end
  if t.constraints ~= nil and (type(t.constraints) ~= "table" or (next(t.constraints) ~= nil and #t.constraints == 0)) then
    found:add(yaml.line(t, "constraints"), "constraints must be a list, not '%s'", type(t.constraints) == "table" and "a mapping" or tostring(t.constraints))
  else
    for i, c in ipairs(t.constraints or {}) do
      local read = read_constraint(c, i, t, r.constraints, found)
      if read then r.constraints[#r.constraints + 1] = read end
      lines["constraint." .. #r.constraints] = yaml.line(t.constraints, i)
    end
  end
  r.penalty = number(t, "penalty", 0, math.huge, 1, "", found)
  r.multipliers, r.coupling = read_multipliers(t, found), read_coupling(t, found)
  r.inner, r.baselines = read_nodes(t, "inner", lines, found), read_nodes(t, "baselines", lines, found)
  for node, metric in pairs(r.inner) do
    local m, why = reward.parse(metric)
    if not m or m.kind ~= "mean" then
      found:add(lines["inner." .. node], "inner: %s: %s", node, why or ("'%s' has no value for each user, as ndcg@20 has"):format(metric))
    end
  end
  if #found > 0 then return nil, found end
  places[r] = { file = file, lines = lines }
  return r
end

-- open(path or metric) → reward; raises (status invalid) with all errors.
function reward.open(text)
  if reward.parse(text) then return reward.of_metric(text) end
  if type(text) == "string" and text:match "^[%l_]+@%d+$" then native.raise("invalid", "reward: " .. select(2, reward.parse(text))) end
  local r, errors = reward.load(text)
  return faults.check(r, errors)
end

-- of_metric(name): the reward that is one metric; a loss or a cost counts negative.
function reward.of_metric(name)
  local m = reward.parse(name)
  local less = name:match "loss$" or (m and (m.kind == "latency" or m.kind == "cost" or m.base:match "share$"))
  local r = new(name)
  r.objectives[1] = { metric = name, weight = less and -1 or 1 }
  return r
end

-- inner_metric(reward, node name) → by which metric the slates of a node are measured.
function reward.inner_metric(r, node) return r.inner[node] or default_inner(r) end

-- parts(reward) → the parsed metrics of objectives and constraints, each once, in order, with `line` where it is known.
function reward.parts(r)
  local list, seen = {}, {}
  local lines = places[r] and places[r].lines or {}
  for kind, parts in pairs { objective = r.objectives, constraint = r.constraints } do
    for i, part in ipairs(parts) do
      if not seen[part.metric] then
        local m = assert(reward.parse(part.metric))
        m.line, seen[part.metric] = lines[kind .. "." .. i], true
        list[#list + 1] = m
      end
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- check(reward, composition, columns) → list of errors: nodes that the composition has not, stand-ins of another role, and item
-- columns that the data have not. columns: { name → type }, nil: not asked.
function reward.check(r, c, columns)
  local place = places[r] or { lines = {} }
  local found, nodes, known_nodes = faults.new(place.file), {}, {}
  for _, node in ipairs(c.nodes) do
    nodes[node.name] = node
    known_nodes[#known_nodes + 1] = node.name
  end
  local function need(name, line, what)
    if not nodes[name] then found:add(line, "%s: the composition has no node '%s'%s", what, name, faults.suggest(name, known_nodes)) end
    return nodes[name]
  end
  for node in pairs(r.inner) do need(node, place.lines["inner." .. node], "inner") end
  for node, name in pairs(r.baselines) do
    local line = place.lines["baselines." .. node]
    local of = need(node, line, "baselines")
    local a, errors = require "evection.agent".find(name, place.file and place.file:match "^(.*)/[^/]*$" or ".")
    if not a then found:add(line, "baselines: %s: %s", node, faults.text { message = errors[1].message })
    elseif of and a.role ~= of.role then found:add(line, "baselines: %s is of role %s, and '%s' of role %s", node, of.role, name, a.role) end
  end
  for _, m in ipairs(reward.parts(r)) do
    if m.node then need(m.node, m.line, m.name) end
    if m.column and columns and columns[m.column] == nil then
      local list = {}
      for name in pairs(columns) do list[#list + 1] = name end
      table.sort(list)
      found:add(m.line, "'%s': the data have no item column '%s'%s", m.name, m.column, #list > 0 and "; they have " .. table.concat(list, ", ") or "")
    elseif m.column and columns and columns[m.column] == "float" then
      found:add(m.line, "'%s': item column '%s' holds numbers; shares go by tokens", m.name, m.column)
    end
  end
  return found
end

-- identity(reward) → what decides a run, as a plain table. What has its default is left out: the names of earlier runs stay.
function reward.identity(r)
  local function unless(value, default) return native.json_encode(value) ~= native.json_encode(default) and value or nil end
  local plain = new()
  local objectives = {}
  for i, o in ipairs(r.objectives) do objectives[i] = { metric = o.metric, weight = o.weight } end -- a reference decides nothing
  return {
    name = r.name, objectives = objectives, constraints = r.constraints, penalty = r.penalty,
    multipliers = #r.constraints > 0 and unless(r.multipliers, plain.multipliers) or nil, inner = unless(r.inner, {}),
    coupling = unless(r.coupling, plain.coupling), baselines = unless(r.baselines, {}),
  }
end

-- ---- Weighing -----------------------------------------------------------------------------------------------

local function value_of(metrics, name)
  local m = metrics[name]
  if not m then error(("the reward names '%s', which was not measured"):format(name), 0) end
  return type(m) == "table" and m.value or m
end

-- objective(reward, metrics) → f. metrics: name → number or { value }. Raises when a metric is not there.
function reward.objective(r, metrics)
  local sum = 0
  for _, o in ipairs(r.objectives) do sum = sum + o.weight * value_of(metrics, o.metric) end
  return sum
end

-- excess(constraint, value) → g: above 0 when it is violated.
function reward.excess(c, value)
  return (c.op == ">=" and c.bound - value or value - c.bound) / math.max(math.abs(c.bound), 1)
end

-- excesses(reward, metrics) → { g of each constraint }, Σ max(0, g)
function reward.excesses(r, metrics)
  local list, sum = {}, 0
  for i, c in ipairs(r.constraints) do
    list[i] = reward.excess(c, value_of(metrics, c.metric))
    sum = sum + math.max(0, list[i])
  end
  return list, sum
end

-- scalar(reward, metrics) → number. Raises when a metric is not there.
function reward.scalar(r, metrics)
  local _, violation = reward.excesses(r, metrics)
  return reward.objective(r, metrics) - r.penalty * violation
end

local function plain_number(x) return ("%.4g"):format(x) end

-- formula(reward) → "1·ndcg@20 − 0.001·latency_p99_ms − 1·max(0, gini@20 − 0.97)"
function reward.formula(r)
  local parts = {}
  local function part(sign, text)
    parts[#parts + 1] = (#parts > 0 and (sign < 0 and " − " or " + ") or (sign < 0 and "−" or "")) .. text
  end
  for _, o in ipairs(r.objectives) do part(o.weight, ("%s·%s"):format(plain_number(math.abs(o.weight)), o.metric)) end
  for _, c in ipairs(r.constraints) do
    local scale = math.max(math.abs(c.bound), 1)
    local gap = c.op == ">=" and ("%s − %s"):format(plain_number(c.bound), c.metric) or ("%s − %s"):format(c.metric, plain_number(c.bound))
    part(-1, ("%s·max(0, %s)"):format(plain_number(r.penalty), scale > 1 and ("(%s) / %s"):format(gap, plain_number(scale)) or gap))
  end
  return table.concat(parts)
end

-- feasibility(reward, metrics) → list of { constraint, value, low, high, met, sure }. met: the value keeps to it; sure: so does,
-- or does not, the whole interval.
function reward.feasibility(r, metrics)
  local list = native.array {}
  for i, c in ipairs(r.constraints) do
    local m = metrics[c.metric]
    local met = reward.excess(c, m.value) <= 0
    local low, high = reward.excess(c, m.low) <= 0, reward.excess(c, m.high) <= 0
    list[i] = { constraint = reward.text(c), value = m.value, low = m.low, high = m.high, met = met, sure = low == met and high == met }
  end
  return list
end

-- text(constraint) → "gini@20 <= 0.97"
function reward.text(c) return ("%s %s %.10g"):format(c.metric, c.op, c.bound) end

-- by_users(reward) → whether some part of it is told by users: not latencies and costs alone.
function reward.by_users(r)
  for _, m in ipairs(reward.parts(r)) do
    if m.kind == "mean" or m.kind == "total" or m.kind == "share" then return true end
  end
  return false
end

-- per_user(reward, metrics, values) → vector whose mean is the scalar, of what each user adds to it; nil when no part of it is told by
-- users. values: metric → vector. A violated constraint counts by its slope; what has no values (latency, cost) is the same for all.
function reward.per_user(r, metrics, values)
  local sum
  local function add(name, weight)
    if not values[name] then return end
    sum = sum and sum:add(values[name], weight) or values[name] * weight
  end
  for _, o in ipairs(r.objectives) do add(o.metric, o.weight) end
  for _, c in ipairs(r.constraints) do
    local slope = reward.excess(c, value_of(metrics, c.metric)) > 0 and r.penalty or 0
    add(c.metric, (c.op == ">=" and 1 or -1) * slope / math.max(math.abs(c.bound), 1))
  end
  return sum and sum:add(reward.scalar(r, metrics) - sum:sum() / #sum)
end

return reward
