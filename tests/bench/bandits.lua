-- bandits.lua WORLD ROUNDS SEEDS - pseudo-regret of policies in a world whose truth is known, as JSON: { policy = { { t, regret, deviation }, … } }
--
--   bernoulli  ten arms that pay 1 with a fixed probability     drift    the same, and each 20,000 rounds the payments move one arm on
--   linear     ten candidates of eight features, xᵀθ + noise    cascade  sixteen items, lists of four, read to the first click
--   curved     ten candidates of four features, rewards no line can follow: sin(3 x₁) x₂ + |x₃| − ½ + noise
--   advice     experts over ten arms, one of them good, and which one changes half way
-- and: updates N D, LinUCB updates a second; decide, the time of a slate; cma FUNCTION, evaluations to 1e-10; logged N, the worth of a policy learnt from N rows.

local native, nn = require "evection.native", require "evection.nn"

local which, rounds, seeds = arg[1], tonumber(arg[2]), tonumber(arg[3] or 1)

local function checkpoints(n)
  local list, last = {}, 0
  for k = 0, 60 do
    local t = math.floor(10 ^ (1 + k / 60 * (math.log10(n) - 1)) + 0.5)
    if t > last then list[#list + 1], last = t, t end
  end
  return list
end

-- play(policy(seed) → step(t) → regret of the round) over all seeds.
local function measured(policy)
  local marks = checkpoints(rounds)
  local sums, squares = {}, {}
  for seed = 1, seeds do
    local step, regret, at = policy(seed), 0, 1
    for t = 1, rounds do
      regret = regret + step(t)
      if t == marks[at] then
        sums[at], squares[at] = (sums[at] or 0) + regret, (squares[at] or 0) + regret ^ 2
        at = at + 1
      end
    end
  end
  local list = native.array {}
  for i, t in ipairs(marks) do
    local mean = sums[i] / seeds
    list[i] = native.array { t, mean, math.sqrt(math.max(0, squares[i] / seeds - mean ^ 2) / math.max(1, seeds - 1)) }
  end
  return list
end

local MEANS = { 0.1, 0.05, 0.05, 0.05, 0.02, 0.02, 0.02, 0.01, 0.01, 0.01 } -- Kaufmann, Korda, Munos 2012: clicks are rare
local FIRM = { 0.9, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.5, 0.4, 0.3 }

-- Arms with means(t); options of the state and of the choice.
local function arms(means, state, choice)
  choice.exact, choice.draws = 0, 0 -- propensities are not what is measured
  return function(seed)
    local options = { n = 10, window = 0, seed = seed }
    for key, value in pairs(state) do options[key] = value end
    local bandit, rng = native.arms(nil, options), native.rng(seed, 77)
    return function(t)
      local mean = means(t)
      local arm, p = bandit:pick(10, choice)
      local best = 0
      for i = 1, 10 do best = math.max(best, mean[i]) end
      bandit:update(arm - 1, rng:float() < mean[arm] and 1 or 0, nil, p == p and p or 1)
      return best - mean[arm]
    end
  end
end

local function shifted(t) -- the best arm is another each 20,000 rounds
  local by, list = math.floor((t - 1) / 20000) * 3, {}
  for i = 1, 10 do list[i] = FIRM[(i - 1 + by) % 10 + 1] end
  return list
end
local kept, kept_at
local function drifting(t)
  local at = math.floor((t - 1) / 20000)
  if kept_at ~= at then kept, kept_at = shifted(t), at end
  return kept
end

local function contextual(state, choice)
  local K, D = 10, 8
  choice.exact, choice.draws = 0, 0
  return function(seed)
    local options = { n = 1, n_dims = D, window = 0, seed = seed }
    for key, value in pairs(state) do options[key] = value end
    local bandit, rng, theta, x = native.arms(nil, options), native.rng(seed, 78), {}, native.vector(K * D)
    local length = 0
    for j = 1, D do
      theta[j] = rng:normal()
      length = length + theta[j] ^ 2
    end
    for j = 1, D do theta[j] = theta[j] / math.sqrt(length) end
    return function()
      local mean, best = {}, -math.huge
      for i = 1, K do
        local sum = 0
        for j = 1, D do
          local v = (2 * rng:float() - 1) / math.sqrt(D)
          x:set((i - 1) * D + j, v)
          sum = sum + v * theta[j]
        end
        mean[i] = sum
        best = math.max(best, sum)
      end
      local chosen, _, _, keep = bandit:pick(K, choice, x)
      bandit:update(0, mean[chosen] + 0.1 * rng:normal(), keep)
      return best - mean[chosen]
    end
  end
end

-- Neural-linear (Riquelme, Tucker, Snoek 2018): a net of two layers is trained on the past every 1000 rounds, and the linear model begun
-- anew over what its last layer makes of the latest 5000. Without `hidden` the linear model sees the features and a constant.
local function curved(hidden, choice)
  local K, D, KEPT, BATCH = 10, 4, 5000, 256
  choice.exact, choice.draws = 0, 0
  return function(seed)
    local rng, width = native.rng(seed, 81), hidden or D + 1
    local function fresh() return native.arms(nil, { kind = "linear", n_dims = width, window = 0, seed = seed }) end
    local bandit, past, rewards = fresh(), {}, {}
    local plan, train, latest, x, batch, target, all, optimiser, seen, y
    if hidden then
      local net = nn.net { seed = seed }
      local body, head = nn.mlp(net, { D, 32, hidden }, { last = "relu" }), nn.linear(net, hidden, 1)
      x, batch, target, all = net:input("x", { K, D }), net:input("batch", { BATCH, D }), net:input("target", { BATCH }), net:input("all", { KEPT, D })
      seen, y = body(x), body(all)
      plan, latest = net:plan { outputs = { seen } }, net:plan { outputs = { y } }
      train = net:plan { loss = (head(body(batch)):reshape(-1) - target):square():mean() }
      optimiser = train:optimiser(nn.adam { rate = 0.003 }.options)
    end
    local function retrain(t)
      for step = 1, 300 do
        local rows, values = {}, {}
        for b = 1, BATCH do
          local i = rng:below(#rewards) + 1
          for j = 1, D do rows[(b - 1) * D + j] = past[(i - 1) * D + j] end
          values[b] = rewards[i]
        end
        batch:fill(rows)
        target:fill(values)
        train:run(t + step, true)
        optimiser:step(0.003)
      end
      local rows, values, n = {}, native.vector(math.min(KEPT, #rewards)), #rewards
      for k = 1, KEPT do
        local i = math.max(1, n - KEPT + k)
        for j = 1, D do rows[(k - 1) * D + j] = past[(i - 1) * D + j] end
        if k > KEPT - #values then values:set(k - KEPT + #values, rewards[i]) end
      end
      all:fill(rows)
      latest:run(0)
      local features, made = native.vector(#values * hidden), latest:value(y)
      for i = 1, #features do features:set(i, made[(KEPT - #values) * hidden + i]) end
      bandit = fresh()
      bandit:update_many(features, values)
    end
    return function(t)
      local numbers, mean, best = {}, {}, -math.huge
      for i = 1, K do
        for j = 1, D do numbers[(i - 1) * D + j] = 2 * rng:float() - 1 end
        local at = (i - 1) * D
        mean[i] = math.sin(3 * numbers[at + 1]) * numbers[at + 2] + math.abs(numbers[at + 3]) - 0.5
        best = math.max(best, mean[i])
      end
      local features
      if hidden then
        x:fill(numbers)
        plan:run(0)
        features = plan:value(seen)
      else
        features = native.vector(K * width)
        for i = 1, K do
          features:set((i - 1) * width + 1, 1)
          for j = 1, D do features:set((i - 1) * width + 1 + j, numbers[(i - 1) * D + j]) end
        end
      end
      local chosen, _, _, keep = bandit:pick(K, choice, features)
      local reward = mean[chosen] + 0.1 * rng:normal()
      bandit:update(0, reward, keep)
      if hidden then
        for j = 1, D do past[#rewards * D + j] = numbers[(chosen - 1) * D + j] end
        rewards[#rewards + 1] = reward
        if t == 200 or t % 1000 == 0 then retrain(t * 1000) end
      end
      return best - mean[chosen]
    end
  end
end

local function cascade(state, choice) -- attraction 0.3 of four items, 0.1 of twelve; regret: the chance of a click that was missed
  local L, K = 16, 4
  choice.exact, choice.draws, choice.k = 0, 0, K
  return function(seed)
    local options = { kind = "counts", n = L, window = 0, seed = seed }
    for key, value in pairs(state) do options[key] = value end
    local bandit, rng = native.arms(nil, options), native.rng(seed, 79)
    local function pays(i) return (i * 5) % L < 4 and 0.3 or 0.1 end
    return function()
      local list = bandit:pick(L, choice)
      local missed, clicked = 1, false
      for _, i in ipairs(list) do
        missed = missed * (1 - pays(i))
        if not clicked then
          clicked = rng:float() < pays(i)
          bandit:update(i - 1, clicked and 1 or 0)
        end
      end
      return missed - (1 - 0.3) ^ K
    end
  end
end

-- Five experts: one is right most of the time, the others point anywhere; half way another is the right one.
local function advice(options)
  local K, N = 10, 5
  return function(seed)
    local o = { kind = "weights", n = N, n_dims = N, window = 0, seed = seed }
    for key, value in pairs(options) do o[key] = value end
    local bandit, rng, x = native.arms(nil, o), native.rng(seed, 80), native.vector(K * N)
    local choice = {}
    return function(t)
      local good, right = rng:below(K) + 1, t <= rounds / 2 and 2 or 4
      x:mul(0)
      for e = 1, N do
        local says = e == right and rng:float() < 0.9 and good or rng:below(K) + 1
        x:set((says - 1) * N + e, 1)
      end
      local arm, p, _, keep = bandit:pick(K, choice, x)
      local mean = arm == good and 0.8 or 0.2
      bandit:update(0, rng:float() < mean and 1 or 0, keep, p)
      return (0.9 + 0.1 / K) * 0.8 + (0.1 - 0.1 / K) * 0.2 - mean -- against who follows the right one
    end
  end
end

local worlds = {
  bernoulli = function()
    local function fixed() return MEANS end
    return {
      ["ε-greedy 0.05"] = arms(fixed, { kind = "counts" }, { rule = "greedy", epsilon = 0.05, prior_a = 0.01, prior_b = 0.01 }),
      UCB1 = arms(fixed, { kind = "counts" }, { rule = "ucb" }), ["KL-UCB"] = arms(fixed, { kind = "counts" }, { rule = "kl_ucb" }),
      ["Thompson, Beta"] = arms(fixed, { kind = "counts" }, { rule = "thompson" }),
      ["Thompson, Gaussian"] = arms(fixed, { kind = "counts" }, { rule = "thompson", gaussian = true, noise = 0.3, prior_b = 0.1 }),
      EXP3 = arms(fixed, { kind = "weights", rate = math.min(1, math.sqrt(10 * math.log(10) / ((math.exp(1) - 1) * rounds))) }, {}),
    }
  end,
  drift = function()
    return {
      UCB1 = arms(drifting, { kind = "counts" }, { rule = "ucb" }), ["UCB1, decay 0.9995"] = arms(drifting, { kind = "counts", decay = 0.9995 }, { rule = "ucb", alpha = 0.5 }),
      ["KL-UCB"] = arms(drifting, { kind = "counts" }, { rule = "kl_ucb" }), ["KL-UCB, decay 0.9995"] = arms(drifting, { kind = "counts", decay = 0.9995 }, { rule = "kl_ucb" }),
      ["Thompson, Beta"] = arms(drifting, { kind = "counts" }, { rule = "thompson" }),
      ["Thompson, decay 0.9995"] = arms(drifting, { kind = "counts", decay = 0.9995 }, { rule = "thompson" }),
      EXP3 = arms(drifting, { kind = "weights", rate = 0.05 }, {}), ["EXP3.S"] = arms(drifting, { kind = "weights", rate = 0.05, share = 1 / rounds }, {}),
    }
  end,
  linear = function()
    return {
      LinUCB = contextual({ kind = "linear" }, { rule = "ucb", alpha = 0.2 }), ["linear Thompson"] = contextual({ kind = "linear" }, { rule = "thompson", alpha = 0.1 }),
      SquareCB = contextual({ kind = "linear" }, { rule = "squarecb", alpha = 100 }), ["ε-greedy 0.05"] = contextual({ kind = "linear" }, { rule = "greedy", epsilon = 0.05 }),
      ["diagonal Thompson"] = contextual({ kind = "linear", diagonal = true }, { rule = "thompson", alpha = 0.1 }),
    }
  end,
  curved = function()
    return { LinUCB = curved(nil, { rule = "ucb", alpha = 0.2 }), ["neural-linear"] = curved(16, { rule = "thompson", alpha = 0.1 }) }
  end,
  cascade = function()
    return { CascadeUCB1 = cascade({}, { rule = "ucb", alpha = 1.5 }), ["CascadeKL-UCB"] = cascade({}, { rule = "kl_ucb" }), ["cascade Thompson"] = cascade({}, { rule = "thompson" }) }
  end,
  advice = function()
    local rate = math.sqrt(10 * math.log(5) / ((math.exp(1) - 1) * rounds))
    return { EXP4 = advice { rate = rate }, ["EXP4, share"] = advice { rate = rate, share = 1 / rounds }, ["EXP4, decay 0.9999"] = advice { rate = rate, decay = 0.9999 } }
  end,
}

local functions = {
  sphere = function(x)
    local s = 0
    for i = 1, #x do s = s + x[i] ^ 2 end
    return s
  end,
  ellipsoid = function(x)
    local s = 0
    for i = 1, #x do s = s + 1e6 ^ ((i - 1) / (#x - 1)) * x[i] ^ 2 end
    return s
  end,
  rosenbrock = function(x)
    local s = 0
    for i = 1, #x - 1 do s = s + 100 * (x[i + 1] - x[i] ^ 2) ^ 2 + (1 - x[i]) ^ 2 end
    return s
  end,
}

local result
if worlds[which] then
  result = {}
  for name, policy in pairs(worlds[which]()) do result[name] = measured(policy) end
elseif which == "updates" then
  local n, d = rounds, seeds
  local rng, x, r = native.rng(1), native.vector(20000 * d), native.vector(20000)
  for i = 1, 20000 * d do x:set(i, rng:normal()) end
  for i = 1, 20000 do r:set(i, rng:float()) end
  local model = native.arms(nil, { kind = "linear", n_dims = d, window = 0 })
  local one = native.vector(d)
  for j = 1, d do one:set(j, x[j]) end
  model:update_many(x, r)
  result = { many = 0, single = 0 } -- the best of many pieces: other processes take from some
  for _ = 1, n / 20000 do
    local start = native.now()
    model:update_many(x, r)
    result.many = math.max(result.many, 20000 / (native.now() - start))
    start = native.now()
    for _ = 1, 20000 do model:update(0, 0.5, one) end
    result.single = math.max(result.single, 20000 / (native.now() - start))
  end
elseif which == "decide" then -- microseconds to fill 20 places from 50 candidates, propensities told; the best of 300
  result = {}
  for name, case in pairs {
    ["Thompson, Beta, 128 draws"] = { { kind = "counts", n = 50 }, { rule = "thompson", k = 20 } },
    ["linear Thompson, 16 features"] = { { kind = "linear", n_dims = 16 }, { rule = "thompson", k = 20 } },
    ["LinUCB, 16 features"] = { { kind = "linear", n_dims = 16 }, { rule = "ucb", k = 20 } }, ["EXP4, 8 experts"] = { { kind = "weights", n = 8, n_dims = 8 }, { k = 20 } },
  } do
    local state, slate, best = native.arms(nil, case[1]), native.slate(), math.huge
    for _ = 1, 300 do
      slate:clear()
      for i = 0, 49 do slate:push(i, 50 - i) end
      local start = native.now()
      state:choose(slate, case[2])
      best = math.min(best, native.now() - start)
    end
    result[name] = best * 1e6
  end
elseif which == "cma" then
  local f, used_all = functions[arg[2]], native.array {}
  for seed = 1, 10 do
    local search, mean = native.arms(nil, { kind = "cma", n_dims = 10, seed = seed }), {}
    for i = 1, 10 do mean[i] = arg[2] == "rosenbrock" and 0 or 1 end
    search:set(mean, 0.5)
    local used, best = 0, math.huge
    while best > 1e-10 and used < 1e5 do
      local points, generation = search:ask()
      local values = {}
      for k, point in ipairs(points) do
        values[k] = f(point)
        best = math.min(best, values[k])
      end
      search:tell(points, values, generation)
      used = used + #points
    end
    used_all[seed] = used
  end
  result = used_all
elseif which == "logged" then -- five candidates of four features; the logging policy likes the first feature, rewards follow the second
  local N, K, D = rounds, 5, 4
  local function world(rng, x, at)
    for j = 1, K * D do x:set(at + j, rng:normal()) end
    local worth, logits = {}, {}
    for k = 1, K do
      worth[k] = 1 / (1 + math.exp(1 - 1.5 * x[at + (k - 1) * D + 2] + 0.5 * x[at + (k - 1) * D + 3]))
      logits[k] = x[at + (k - 1) * D + 1]
    end
    return worth, logits
  end
  local function softmax(z)
    local top, sum, p = math.max(unpack(z)), 0, {}
    for k, v in ipairs(z) do
      p[k] = math.exp(v - top)
      sum = sum + p[k]
    end
    for k = 1, #p do p[k] = p[k] / sum end
    return p
  end
  local rng, x = native.rng(5), native.vector(N * K * D)
  local log = { n = {}, chosen = {}, reward = native.vector(N), propensity = native.vector(N), x = x }
  local q, logged = native.vector(N * K), 0
  local model = native.arms(nil, { kind = "linear", n_dims = D + 1, window = 0 })
  local one = native.vector(D + 1)
  for i = 1, N do
    local worth, logits = world(rng, x, (i - 1) * K * D)
    local p, u, c = softmax(logits), rng:float(), 1
    while c < K and u >= p[c] do
      u, c = u - p[c], c + 1
    end
    local r = rng:float() < worth[c] and 1 or 0
    log.n[i], log.chosen[i] = K, c
    log.reward:set(i, r)
    log.propensity:set(i, p[c])
    one:set(1, 1)
    for j = 1, D do one:set(j + 1, x[((i - 1) * K + c - 1) * D + j]) end
    model:update(0, r, one)
    logged = logged + worth[c] / N
  end
  local theta = model:read(0)
  for i = 1, N * K do
    local z = theta[5]
    for j = 1, D do z = z + theta[5 + j] * x[(i - 1) * D + j] end
    q:set(i, z)
  end
  local function worth_of(policy) -- in 20,000 fresh decisions
    local t, fresh, y, sum, best = policy:read(0), native.rng(6), native.vector(K * D), 0, 0
    for _ = 1, 20000 do
      local worth, z = world(fresh, y, 0), {}
      for k = 1, K do
        z[k] = 0
        for j = 1, D do z[k] = z[k] + t[4 + j] * y[(k - 1) * D + j] end
      end
      local p = softmax(z)
      for k = 1, K do sum = sum + p[k] * worth[k] / 20000 end
      best = best + math.max(unpack(worth)) / 20000
    end
    return sum, best
  end
  result = { logging = logged }
  for name, with in pairs { ips = false, dr = true } do
    local policy = native.arms(nil, { kind = "policy", n_dims = D })
    log.q = with and q or nil
    policy:learn_logged(log, { steps = 300, clip = 50, l2 = 1e-4 })
    result[name], result.best = worth_of(policy)
  end
  local policy = native.arms(nil, { kind = "policy", n_dims = D, window = 0, rate = 0.1 }) -- REINFORCE in the same world, live
  local live, y = native.rng(7), native.vector(K * D)
  for _ = 1, N do
    local worth = world(live, y, 0)
    local c, _, _, keep = policy:pick(K, {}, y)
    policy:update(0, live:float() < worth[c] and 1 or 0, keep)
  end
  result.reinforce = worth_of(policy)
end
io.write(native.json_encode(result), "\n")
