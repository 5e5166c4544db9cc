-- reward.lua - the outer reward: a scalar from several objectives, with constraints.
--
--   reward = Σ weight · metric (minimised ones negative) − penalty · Σ violation / max(|bound|, 1)
-- A file:
--   name: accuracy_first
--   objectives:
--     - { maximise: ndcg@20, weight: 1 }
--     - { maximise: coverage@20, weight: 0.05 }
--   constraints: [ "gini@20 <= 0.97" ]
--   penalty: 1

local faults = require "evection.faults"
local yaml = require "evection.yaml"

local reward = {}

local function read_objective(o, i, t, found)
  local line = yaml.line(t.objectives, i)
  if type(o) ~= "table" then
    found:add(line, "objective %d must be such as { maximise: ndcg@20, weight: 1 }", i)
    return
  end
  local metric, sign = o.maximise, 1
  if o.minimise then metric, sign = o.minimise, -1 end
  local weight = o.weight or 1
  if type(metric) ~= "string" or (o.maximise and o.minimise) then
    found:add(line, "objective %d must either maximise or minimise a metric", i)
  end
  if type(weight) ~= "number" or weight <= 0 then found:add(line, "objective %d: weight must be a positive number, not '%s'", i, tostring(weight)) end
  for key in pairs(o) do
    if key ~= "maximise" and key ~= "minimise" and key ~= "weight" then
      found:add(yaml.line(o, key) or line, "an objective has no field '%s'", tostring(key))
    end
  end
  return { metric = metric, weight = sign * (tonumber(weight) or 1) }
end

local function read_constraint(text, i, t, found)
  local metric, op, bound = tostring(text):match "^%s*([%w_@.]+)%s*([<>]=)%s*([-%d.eE+]+)%s*$"
  if not metric or not tonumber(bound) then
    found:add(yaml.line(t.constraints, i), "constraint '%s' must be such as gini@20 <= 0.97", tostring(text))
    return
  end
  return { metric = metric, op = op, bound = tonumber(bound) }
end

-- load(path or table) → reward { name, objectives, constraints, penalty }, or nil and all errors.
function reward.load(source)
  local t, file = source, "reward"
  if type(source) == "string" then
    local errors
    file = source
    t, errors = yaml.load(source)
    if t == nil then return nil, errors end
  end
  local found = faults.new(file)
  if type(t) ~= "table" or type(t.objectives) ~= "table" or #t.objectives == 0 then
    found:add(1, "a reward needs objectives: a list of { maximise: METRIC, weight: W }")
    return nil, found
  end
  local known = { name = true, about = true, objectives = true, constraints = true, penalty = true, coupling = true }
  for key in pairs(t) do
    if not known[key] then found:add(yaml.line(t, key), "a reward has no field '%s'", tostring(key)) end
  end
  local r = { name = t.name, objectives = {}, constraints = {}, penalty = t.penalty or 1 }
  for i, o in ipairs(t.objectives) do r.objectives[i] = read_objective(o, i, t, found) end
  if t.constraints ~= nil and type(t.constraints) ~= "table" then
    found:add(yaml.line(t, "constraints"), "constraints must be a list")
  else
    for i, c in ipairs(t.constraints or {}) do r.constraints[i] = read_constraint(c, i, t, found) end
  end
  if type(r.penalty) ~= "number" or r.penalty < 0 then found:add(yaml.line(t, "penalty"), "penalty must be a number of 0 or more") end
  if t.coupling ~= nil and t.coupling ~= "none" then found:add(yaml.line(t, "coupling"), "coupling '%s' is not known: none is", tostring(t.coupling)) end
  if #found > 0 then return nil, found end
  return r
end

-- of_metric(name): the reward that is one metric; a loss counts negative.
function reward.of_metric(name)
  return { name = name, objectives = { { metric = name, weight = name:match "loss$" and -1 or 1 } }, constraints = {}, penalty = 1 }
end

local function value_of(metrics, name)
  local m = metrics[name]
  if not m then error(("the reward names '%s', which was not measured"):format(name), 0) end
  return m.value
end

-- scalar(reward, metrics) → number. Raises when a metric is not there.
function reward.scalar(r, metrics)
  local sum = 0
  for _, o in ipairs(r.objectives) do sum = sum + o.weight * value_of(metrics, o.metric) end
  for _, c in ipairs(r.constraints) do
    local over = value_of(metrics, c.metric) - c.bound
    if c.op == ">=" then over = -over end
    if over > 0 then sum = sum - r.penalty * over / math.max(math.abs(c.bound), 1) end
  end
  return sum
end

return reward
