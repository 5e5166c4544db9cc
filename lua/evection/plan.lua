-- plan.lua - plans: what may evolve, by which proposers, in which world, with what budget, and what a promotion must show.
--
--   composition: ../compositions/hand_written.yaml   # beside the plan
--   data: movielens
--   reward: ../rewards/accuracy.yaml                 # or a metric: ndcg@20
--   task: slates                                     # or clicks: what a ranker says of a fold's interactions; metrics auc, gauc, log_loss
--   positive_rating: 4                               # clicks: rated so much or more
--   evolve: ["*"]                                    # patterns of node.knob, * for anything
--   proposers: [halving, tpe]                        # in this order; files of lua/evection/evolve or paths
--   budget: { evaluations: 60, seconds: 1800 }
--   promotion: { metric: ndcg@20, confidence: 0.95 } # or metric: reward
--     then: canary and share: 0.1 in it: what the running service does with the champion: stage, canary or publish
--   batch: 4        # proposals made at once; results do not depend on the number of workers
--   timeout_s: 300  # of one evaluation
--   memory_mb: 2000 # of one evaluation; without it, its share of the machine's
--   seed: 1

local native = require "evection.native"
local compose = require "evection.compose"
local faults = require "evection.faults"
local reward = require "evection.reward"
local yaml = require "evection.yaml"

local plan = {}

local fields = {
  name = "string", about = "string", composition = "string", data = "string", reward = "string", evolve = "table", proposers = "table",
  task = "string", positive_rating = "number",
  budget = "table", promotion = "table", batch = "number", timeout_s = "number", memory_mb = "number", seed = "number",
}

local function path_of(base, path)
  if path:match "^agent:" or path:match "^/" then return path end
  return base .. "/" .. path
end

local function whole(t, key, low, high, fallback, found)
  local x = t[key]
  if x == nil then return fallback end
  if type(x) ~= "number" or x % 1 ~= 0 or x < low or x > high then
    found:add(yaml.line(t, key), "%s must be a whole number from %d to %d, not '%s'", key, low, high, tostring(x))
    return fallback
  end
  return x
end

-- "knn.*" → a Lua pattern for the whole of "knn.shrink"
local function pattern_of(text) return "^" .. tostring(text):gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0"):gsub("%*", ".*") .. "$" end

-- plan.handing(then, share, complain) → { then, share }: what a running service is to do with a champion; nil: nothing, or complain(field,
-- message, …) was told what is wrong.
function plan.handing(word, share, complain)
  if word ~= nil and word ~= "stage" and word ~= "canary" and word ~= "publish" then
    complain("then", "then: '%s' is none of stage, canary, publish", tostring(word))
  elseif share ~= nil and word ~= "canary" then
    complain("share", "share wants then: canary")
  elseif share ~= nil and (type(share) ~= "number" or not (share > 0 and share <= 1)) then
    complain("share", "share must be above 0 and at most 1, not '%s'", tostring(share))
  else
    return word and { ["then"] = word, share = word == "canary" and (share or 0.1) or nil }
  end
end

local of_clicks = { auc = true, gauc = true, log_loss = true }

-- A metric that is a mean over users, or the reward itself where some part of it is told by users.
local function has_user_values(metric, r)
  if metric == "reward" then return r and reward.by_users(r) end
  local m = reward.parse(metric)
  return m and m.kind == "mean"
end

local function check_click_metrics(p, t, found)
  for _, list in ipairs { p.reward and p.reward.objectives or {}, p.reward and p.reward.constraints or {} } do
    for _, part in ipairs(list) do
      if not of_clicks[part.metric] then
        found:add(yaml.line(t, "reward") or 1, "the reward names '%s'; of clicks, auc, gauc and log_loss are measured", tostring(part.metric))
      end
    end
  end
  if p.reward and p.reward.coupling.by ~= "none" then
    found:add(yaml.line(t, "reward") or 1, "the reward couples agents by '%s'; of clicks, the ranker alone is measured", p.reward.coupling.by)
  end
  if not of_clicks[p.promotion.metric] then
    found:add(yaml.line(t.promotion or {}, "metric") or 1, "promotion: '%s' is no metric of clicks, such as auc", tostring(p.promotion.metric))
  end
end

local function check_metrics(p, t, found)
  if p.task == "clicks" then return check_click_metrics(p, t, found) end
  local before = #found
  for _, list in ipairs { p.reward and p.reward.objectives or {}, p.reward and p.reward.constraints or {} } do
    for _, part in ipairs(list) do
      local m = reward.parse(part.metric)
      if not m or m.kind == "clicks" then
        found:add(yaml.line(t, "reward") or 1, "the reward names '%s', which is not measured at @5, @10 or @20", part.metric)
      end
    end
  end
  if p.reward and p.composition and #found == before then found:take(reward.check(p.reward, p.composition)) end
  if not has_user_values(p.promotion.metric, p.reward) then
    found:add(yaml.line(t.promotion or {}, "metric") or 1, "promotion: '%s' is no metric with a value for each user, such as ndcg@20",
      tostring(p.promotion.metric))
  end
end

local function choose_dims(p, t, found)
  local dims, used = {}, {}
  for _, d in ipairs(compose.space(p.composition)) do
    local wanted = false
    for i, text in ipairs(p.evolve) do
      if d.path:match(pattern_of(text)) and d.dim.kind ~= "program" then wanted, used[i] = true, true end
    end
    if wanted then dims[#dims + 1] = d end
  end
  for i, text in ipairs(p.evolve) do
    if not used[i] then found:add(t.evolve and yaml.line(t.evolve, i) or 1, "evolve: '%s' matches no knob", tostring(text)) end
  end
  if #dims == 0 then found:add(yaml.line(t, "evolve") or 1, "there is nothing to evolve: no knob matches") end
  return dims
end

local function load_proposer(name)
  if not name:match "^[%l_]+$" then return nil, ("'%s' is no name of a proposer"):format(name) end
  local ok, module = pcall(require, "evection.evolve." .. name)
  if not ok or type(module) ~= "table" or not module.propose then return nil, ("no proposer '%s'"):format(name) end
  return module
end

-- load(path) → plan { name, composition, data, reward, evolve, dims, proposers, evaluations, seconds, promotion, handing ({ then, share } or
-- nil), batch, timeout_s, seed, source }, or nil and all errors.
function plan.load(path)
  local t, errors = yaml.load(path)
  if t == nil then return nil, errors end
  local found = faults.new(path)
  if type(t) ~= "table" then
    found:add(1, "a plan is a mapping")
    return nil, found
  end
  local names = compose.sorted_keys(fields)
  for _, key in ipairs(compose.sorted_keys(t)) do
    if not fields[key] then found:add(yaml.line(t, key), "a plan has no field '%s'%s", tostring(key), faults.suggest(tostring(key), names))
    elseif type(t[key]) ~= fields[key] then
      found:add(yaml.line(t, key), "%s must be a %s, not a %s", key, fields[key] == "table" and "list or mapping" or fields[key], type(t[key]))
    end
  end
  if t.composition == nil then found:add(1, "a plan names a composition") end
  if #found > 0 then return nil, found end
  if t.name and not t.name:match "^[%w_.-]+$" then found:add(yaml.line(t, "name"), "name: '%s': letters, digits, . _ -", t.name) end
  local base = path:match "^(.*)/[^/]*$" or "."
  local p = { file = path, name = t.name or path, data = t.data, evolve = t.evolve or { "*" }, proposers = {}, source = t }
  p.composition, errors = compose.load(path_of(base, t.composition))
  if not p.composition then found:take(errors) end
  p.task, p.positive_rating = t.task or "slates", t.positive_rating
  if p.task ~= "slates" and p.task ~= "clicks" then found:add(yaml.line(t, "task"), "task: '%s': slates and clicks can be measured", p.task) end
  if p.task == "clicks" and of_clicks[t.reward or "auc"] then p.reward = reward.of_metric(t.reward or "auc")
  elseif t.reward and t.reward:match "@" then p.reward = reward.of_metric(t.reward)
  elseif t.reward then
    p.reward, errors = reward.load(path_of(base, t.reward))
    if not p.reward then found:take(errors) end
  else
    p.reward = reward.of_metric "ndcg@20"
  end
  for i, name in ipairs(t.proposers or { "halving", "tpe" }) do
    local module, why = load_proposer(tostring(name))
    if module then p.proposers[i] = { name = name, module = module } else found:add(yaml.line(t.proposers or {}, i), "%s", why) end
  end
  local budget = t.budget or {}
  p.evaluations = whole(budget, "evaluations", 1, 1000000, 60, found)
  p.seconds = budget.seconds
  if p.seconds ~= nil and (type(p.seconds) ~= "number" or p.seconds <= 0) then
    found:add(yaml.line(budget, "seconds"), "seconds must be a positive number")
  end
  for key in pairs(budget) do
    if key ~= "evaluations" and key ~= "seconds" then
      found:add(yaml.line(budget, key), "a budget has no '%s'; evaluations and seconds are known", tostring(key))
    end
  end
  if t.proposers and #t.proposers == 0 then found:add(yaml.line(t, "proposers"), "proposers: a plan wants one or more") end
  local promotion = t.promotion or {}
  for key in pairs(promotion) do
    if key ~= "metric" and key ~= "confidence" and key ~= "then" and key ~= "share" then
      found:add(yaml.line(promotion, key), "a promotion has no '%s'; metric, confidence, then and share are known", tostring(key))
    end
  end
  p.promotion = { metric = promotion.metric or (p.task == "clicks" and "auc" or "ndcg@20"), confidence = promotion.confidence or 0.95 }
  if type(p.promotion.confidence) ~= "number" or p.promotion.confidence <= 0.5 or p.promotion.confidence >= 1 then
    found:add(yaml.line(promotion, "confidence"), "confidence must lie between 0.5 and 1")
  end
  p.handing = plan.handing(promotion["then"], promotion.share, function(field, ...) found:add(yaml.line(promotion, field), ...) end)
  check_metrics(p, t, found)
  p.batch = whole(t, "batch", 1, 1000, 4, found)
  p.seed = whole(t, "seed", 0, 2 ^ 53, 1, found)
  p.timeout_s = t.timeout_s or 600
  if p.timeout_s <= 0 then found:add(yaml.line(t, "timeout_s"), "timeout_s must be positive") end
  p.memory_mb = t.memory_mb
  if p.memory_mb and p.memory_mb < 64 then found:add(yaml.line(t, "memory_mb"), "memory_mb must be 64 or more, not '%s'", tostring(p.memory_mb)) end
  if p.composition then p.dims = choose_dims(p, t, found) end
  if #found > 0 then return nil, found end
  return p
end

-- open(path) → plan; raises (status invalid) with all errors.
function plan.open(path)
  local p, errors = plan.load(path)
  return faults.check(p, errors)
end

-- identity(plan): everything that decides what a run does, as a plain table.
function plan.identity(p)
  return {
    composition = p.composition.hash, reward = reward.identity(p.reward), task = p.task ~= "slates" and p.task or nil, positive_rating = p.positive_rating,
    evolve = native.array(p.evolve), evaluations = p.evaluations, batch = p.batch,
    promotion = p.promotion, proposers = native.array((function()
      local names = {}
      for i, proposer in ipairs(p.proposers) do names[i] = proposer.name end
      return names
    end)()),
  }
end

return plan
