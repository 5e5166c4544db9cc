-- estimators.lua STUDY SEED REPLICATIONS … - studies in a simulated feed, where the truth is known; one JSON document.
--   intervals SEED R N BOOTSTRAP   how often intervals of off-policy estimates from N events hold the truth
--   errors SEED R N                how far off the estimates are
--   sequences SEED R N             how often confidence sequences hold it at N events at once
--   aa SEED R N SHARE LIFT         how often a canary promotes, looked at after every event; LIFT 0: the same policy twice

local feed = require "evection.feed"
local native = require "evection.native"
local ope = require "evection.ope"
local sequential = require "evection.sequential"

local study, seed, replications = arg[1], tonumber(arg[2]), tonumber(arg[3])
local n = tonumber(arg[4])

-- ---- A bandit ------------------------------------------------------------------------------------------------
-- One place, twenty items, nothing that changes: events are independent and the value of a policy is a sum over users and items.
local USERS, ITEMS, DIMS = 500, 20, 4
local SOFT, SHARP = 2, 0.6 -- temperatures of the policy logged and the one evaluated
local function bandit()
  local f = feed.new {
    users = USERS, items = ITEMS, dims = DIMS, places = 1, seed = seed, click = -1.5, activity = 0, loyalty = 0, drift = 0, satiation = 0, item_days = 0, convert = 0,
  }
  local u, v, appeal = f:features(0.3)
  local w = { feed = f, u = u, v = v, appeal = appeal, score = {}, context = {}, pi = {}, truth = 0, logged_truth = 0, max_weight = 0 }
  local b, clicks = f:batch(USERS):everyone(), {}
  for a = 0, ITEMS - 1 do
    for row = 1, USERS do b:show(row, { a }) end
    b:worth()
    clicks[a + 1] = b:expected()
  end
  local function softmax(scores, temperature)
    local e, sum = {}, 0
    for a = 1, ITEMS do
      e[a] = math.exp(scores[a] / temperature)
      sum = sum + e[a]
    end
    for a = 1, ITEMS do e[a] = e[a] / sum end
    return e
  end
  for user = 0, USERS - 1 do
    local scores, context = {}, {}
    for k = 1, DIMS do context[k] = u[user * DIMS + k] end
    for a = 0, ITEMS - 1 do
      local x = appeal[a + 1]
      for k = 1, DIMS do x = x + context[k] * v[a * DIMS + k] end
      scores[a + 1] = x
    end
    local logged, pi = softmax(scores, SOFT), softmax(scores, SHARP)
    w.score[user], w.context[user], w.pi[user] = scores, context, pi
    for a = 1, ITEMS do
      w.max_weight = math.max(w.max_weight, pi[a] / logged[a])
      w.truth = w.truth + pi[a] * clicks[a][user + 1] / USERS
      w.logged_truth = w.logged_truth + logged[a] * clicks[a][user + 1] / USERS
    end
  end
  return w
end

-- n events under the logging policy: a log, the target policy over its rows, weights and rewards.
local function events(w, b)
  b:arrive():show_sampled(w.u, w.v, w.appeal, SOFT, 11):step()
  local users, arms, rewards, propensities = b:users(), b:slates(), b:clicks(), b:propensities()
  local context, pair, weights = {}, {}, {}
  for i = 1, #b do
    local user = users[i]
    context[i], pair[i] = w.context[user], w.score[user]
    weights[i] = w.pi[user][arms[i] + 1] / propensities[i]
  end
  local log = ope.log { n_arms = ITEMS, arm = arms, reward = rewards, propensity = propensities, context = context, pair = pair }
  local policy = log:matrix()
  for i = 1, #b do policy:set(i - 1, 0, w.pi[users[i]]) end
  return log, policy, weights, rewards
end

local function estimate(w, b, bootstrap, run)
  local log, policy, weights, rewards = events(w, b)
  local result = ope.evaluate(log, policy, {
    bootstrap = bootstrap, reward_low = 0, reward_high = 1, max_weight = w.max_weight * (1 + 1e-6), max_unsupported = 1, model = "logistic", seed = run,
  })
  return result, weights, rewards
end

local function intervals()
  local w, bootstrap = bandit(), tonumber(arg[5])
  local b, held = w.feed:batch(n), {}
  local function count(name, low, high, width, truth)
    truth = truth or w.truth
    local h = held[name] or { n = 0, width = 0, above = 0, below = 0 }
    held[name] = h
    if low > truth then h.above = h.above + 1 elseif high < truth then h.below = h.below + 1 else h.n = h.n + 1 end
    h.width = h.width + (width or high - low) / replications
  end
  for run = 1, replications do
    local other = w.feed:copy():batch(n) -- the same users, served by the policy evaluated: what a comparison online would see
    other:show_sampled(w.u, w.v, w.appeal, SHARP, 12):step()
    local result, weights, rewards = estimate(w, b, bootstrap, run)
    local d = native.paired_bootstrap(rewards, other:clicks(), run, bootstrap)
    count("difference of two policies on the same users, paired bootstrap", d.low, d.high, nil, w.truth - w.logged_truth)
    for name, e in pairs(result.estimates) do
      count(name .. ", bootstrap", e.low, e.high)
      if e.bernstein_low then count(name .. ", Bernstein", e.bernstein_low, e.bernstein_high) end
    end
    for _, kind in ipairs { "betting", "bernstein", "drifting" } do
      local s, worst_low, worst_high = sequential.mean { kind = kind }, -math.huge, math.huge
      for i = 1, n do
        s:add(rewards[i], weights[i])
        if kind ~= "drifting" or i % 10 == 0 then
          local low, high = s:interval()
          worst_low, worst_high = math.max(worst_low, low), math.min(worst_high, high)
        end
      end
      local low, high = s:interval()
      count(kind .. ", at all times", worst_low, worst_high, high - low)
    end
    if native.interrupted() then native.raise("failed", "interrupted") end
  end
  return { truth = w.truth, max_weight = w.max_weight, held = held }
end

local function errors()
  local w = bandit()
  local b, of = w.feed:batch(n), {}
  for run = 1, replications do
    for name, e in pairs(estimate(w, b, 0, run).estimates) do
      local o = of[name] or { squares = 0, bias = 0 }
      of[name] = o
      o.squares, o.bias = o.squares + (e.value - w.truth) ^ 2 / replications, o.bias + (e.value - w.truth) / replications
    end
    if native.interrupted() then native.raise("failed", "interrupted") end
  end
  return { truth = w.truth, errors = of }
end

-- ---- Sequences -----------------------------------------------------------------------------------------------
-- constant: the bandit's clicks under its logging policy. drifting: a whole feed, whose users tire, drift and stay away; the truth is
-- the average of what was expected so far.
local function sequences()
  local w, held = bandit(), {}
  local value = w.logged_truth
  local moving = feed.new { users = 300, items = 50, places = 1, seed = seed, click = -1, item_days = 10, drift_days = 10, satiation = 1, loyalty = 0.8 }
  local b, c = w.feed:batch(n), moving:batch(n)
  for run = 1, replications do
    b:arrive():show_sampled(w.u, w.v, w.appeal, SOFT, 11):step()
    c:arrive():show_random(5):step()
    local constant, changing, expected = b:clicks(), c:clicks(), c:expected()
    for _, kind in ipairs { "betting", "bernstein", "drifting" } do
      local s, out = sequential.mean { kind = kind }, false
      for i = 1, n do
        s:add(constant[i])
        if kind ~= "drifting" or i % 10 == 0 then
          local low, high = s:interval()
          out = out or low > value or high < value
        end
      end
      local h = held[kind] or { n = 0, width = 0 }
      held[kind] = h
      local low, high = s:interval()
      h.n, h.width = h.n + (out and 0 or 1), h.width + (high - low) / replications
    end
    local s, out, sum = sequential.mean { kind = "drifting" }, false, 0
    for i = 1, n do
      s:add(changing[i])
      sum = sum + expected[i]
      if i % 10 == 0 then
        local low, high = s:interval()
        out = out or low > sum / i or high < sum / i
      end
    end
    local h = held["drifting, a feed that drifts"] or { n = 0, width = 0 }
    held["drifting, a feed that drifts"] = h
    local low, high = s:interval()
    h.n, h.width = h.n + (out and 0 or 1), h.width + (high - low) / replications
    local naive, total = false, 0 -- the interval of a fixed number of events, looked at all the time
    for i = 1, n do
      total = total + constant[i]
      local mean = total / i
      if i >= 100 then naive = naive or math.abs(mean - value) > 1.959964 * math.sqrt(mean * (1 - mean) / i) end
    end
    h = held["normal, of one fixed time"] or { n = 0, width = 0 }
    held["normal, of one fixed time"] = h
    h.n, h.width = h.n + (naive and 0 or 1), h.width + 2 * 1.959964 * math.sqrt(total / n * (1 - total / n) / n) / replications
    if run % 10 == 0 and native.interrupted() then native.raise("failed", "interrupted") end
  end
  return { truth = value, held = held }
end

-- ---- A/A and A/B --------------------------------------------------------------------------------------------
-- Both arms show the same slates of five (LIFT 0), or the challenger shows items with more appeal. A reward: there was a click.
local function aa()
  local share, lift = tonumber(arg[5]), tonumber(arg[6])
  local promoted, rolled_back, missed, naive, at = 0, 0, 0, 0, 0
  local when, naive_when = native.array {}, native.array {}
  for run = 1, replications do
    local f = feed.new { users = 300, items = 100, places = 5, seed = seed * 100000 + run, click = -3 }
    local b, _, _, appeal = f:batch(250), f:features(0)
    local rng, plain, better = native.rng(run, 5), feed.vector(100), nil
    for i = 1, 100 do plain:set(i, rng:float()) end
    better = plain + appeal * lift
    local canary, decided, seen, peeked = sequential.canary {}, nil, 0, nil
    local sum, count = { 0, 0 }, { 0, 0 }
    for _ = 1, math.ceil(n / #b) do
      local arm = b:arrive():coin(share, 17)
      b:show_top(plain):show_top(better, arm):step()
      local rewards = b:rewards "any"
      for i = 1, #b do
        local challenger, r = arm[i] == 1, rewards[i]
        local decision = canary:add(challenger, r, share)
        seen = seen + 1
        if not decided and decision ~= "go on" then decided = { decision, seen } end
        local k = challenger and 2 or 1
        sum[k], count[k] = sum[k] + r, count[k] + 1
        if not peeked and count[2] >= 50 and count[1] >= 50 then -- the two-proportion test at 5 %, one-sided
          local p1, p2, p = sum[1] / count[1], sum[2] / count[2], (sum[1] + sum[2]) / seen
          if p2 - p1 > 1.644854 * math.sqrt(p * (1 - p) * (1 / count[1] + 1 / count[2])) then peeked = seen end
        end
      end
    end
    local r = canary:result()
    if decided and decided[1] == "promote" then promoted, at, when[#when + 1] = promoted + 1, at + decided[2], decided[2] end
    if decided and decided[1] == "roll back" then rolled_back = rolled_back + 1 end
    if peeked then naive, naive_when[#naive_when + 1] = naive + 1, peeked end
    if lift == 0 and (r.low > 0 or r.high < 0) then missed = missed + 1 end
    if native.interrupted() then native.raise("failed", "interrupted") end
  end
  return { promoted = promoted, rolled_back = rolled_back, missed = missed, naive = naive, mean_events = promoted > 0 and at / promoted or nil, when = when, naive_when = naive_when }
end

local studies = { intervals = intervals, errors = errors, sequences = sequences, aa = aa }
print(native.json_encode(studies[study]()))
