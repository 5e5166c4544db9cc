-- credit.lua - what each agent of a composition earns from the whole.
--
-- v(S) is the outer reward of the composition with the nodes of S at work and the others taken away (Runner.absent): what a missing
-- recall would bring is missing, a missing rank or rerank passes its candidates on, a missing merge orders them by the best rank
-- of any input; a node with a baseline in the reward file is stood in for by that agent. The others act with the models they have,
-- so nothing is fitted for a coalition.
--   difference   Dᵢ = v(N) − v(N \ i)                                              (Wolpert and Tumer 2001)
--   shapley      φᵢ = mean over the orders of N of v(those before i, and i) − v(those before i)   (Shapley 1953)
-- exact over all 2ⁿ coalitions up to EXACT nodes, else over sampled orders (Castro, Gómez, Tejada 2009), each followed by its
-- reverse (antithetic: Mitchell, Cooper, Frank, Holmes 2022). Whatever the sample, Σ φᵢ = v(N) − v(∅).
--
-- Every coalition answers the same users, and v is linear in what each user adds, so φᵢ and Dᵢ have a value for each user: their
-- interval is a bootstrap over users of that one column, and what all coalitions share cancels. The error of sampled orders is
-- s / √pairs of the pairs' means; the interval holds both: half-widths add as squares.

local native = require "evection.native"
local agent = require "evection.agent"
local coupling = require "evection.coupling"
local reward = require "evection.reward"
local world = require "evection.world"

local credit = {}

credit.EXACT = 8 -- nodes: 256 coalitions
local MOST = 50 -- nodes: a coalition is a whole number of so many bits
local RESAMPLES = 2000
local MODERATION = 4 -- pairs of orders
local ROUNDING = 1e-6 -- of the largest value of a coalition: less is what single precision leaves of a sum that is 0

-- Quantile of the standard normal: Abramowitz and Stegun 26.2.23, to 4.5e-4.
local function normal_quantile(p)
  local t = math.sqrt(-2 * math.log(1 - p))
  return t - (2.515517 + 0.802853 * t + 0.010328 * t ^ 2) / (1 + 1.432788 * t + 0.189269 * t ^ 2 + 0.001308 * t ^ 3)
end

-- Quantile of Student's t above one half, by its expansion about the normal (Abramowitz and Stegun 26.7.5); nu >= 3.
function credit.student_quantile(p, nu)
  local z = normal_quantile(p)
  return z + (z ^ 3 + z) / (4 * nu) + (5 * z ^ 5 + 16 * z ^ 3 + 3 * z) / (96 * nu ^ 2)
    + (3 * z ^ 7 + 19 * z ^ 5 + 17 * z ^ 3 - 15 * z) / (384 * nu ^ 3)
    + (79 * z ^ 9 + 776 * z ^ 7 + 1482 * z ^ 5 - 1920 * z ^ 3 - 945 * z) / (92160 * nu ^ 4)
end

-- ---- Which coalitions, and what each counts for whom ---------------------------------------------------------

-- A list of coalitions (masks: bit i − 1 is player i) in the order they are asked for, each with { player → coefficient }.
local function new_terms() return { masks = {}, of = {} } end

local function add_term(terms, mask, player, coefficient)
  local of = terms.of[mask]
  if not of then
    of = {}
    terms.masks[#terms.masks + 1], terms.of[mask] = mask, of
  end
  of[player] = (of[player] or 0) + coefficient
end

local function difference_terms(n)
  local terms, all = new_terms(), 2 ^ n - 1
  for i = 1, n do
    add_term(terms, all, i, 1)
    add_term(terms, all - 2 ^ (i - 1), i, -1)
  end
  return terms
end

-- φᵢ = Σ over S without i of |S|! (n − |S| − 1)! / n! · (v(S + i) − v(S))
local function exact_terms(n)
  local terms, weight = new_terms(), { [0] = 1 / n }
  for s = 1, n - 1 do weight[s] = weight[s - 1] * s / (n - s) end
  for mask = 0, 2 ^ n - 1 do
    local size = 0
    for i = 1, n do size = size + math.floor(mask / 2 ^ (i - 1)) % 2 end
    for i = 1, n do
      local bit = 2 ^ (i - 1)
      if math.floor(mask / bit) % 2 == 0 then
        add_term(terms, mask, i, -weight[size])
        add_term(terms, mask + bit, i, weight[size])
      end
    end
  end
  return terms
end

-- Orders in pairs, the second the reverse of the first. → terms, orders (lists of players)
local function sampled_terms(n, n_orders, seed)
  local terms, orders, rng = new_terms(), {}, native.rng(seed, 19)
  for first = 1, n_orders, 2 do
    local order, reverse = {}, {}
    for i = 1, n do order[i] = i end
    for i = n, 2, -1 do
      local j = rng:below(i) + 1
      order[i], order[j] = order[j], order[i]
    end
    for i = 1, n do reverse[i] = order[n + 1 - i] end
    orders[first], orders[first + 1] = order, reverse
  end
  for _, order in ipairs(orders) do
    local mask = 0
    for _, i in ipairs(order) do
      add_term(terms, mask, i, -1 / #orders)
      mask = mask + 2 ^ (i - 1)
      add_term(terms, mask, i, 1 / #orders)
    end
  end
  return terms, orders
end

-- Standard errors over the pairs of orders. → { player → s / √pairs }
-- Gains have few values, so the spread of a few pairs may be nothing by luck: each player's variance is moderated by the mean of all
-- players', which counts as much as MODERATION pairs (as Smyth 2004 does for genes). Who never gained anything has no error.
local function sampling_errors(n, orders, value)
  local errors, gains, variances, total, moved = {}, {}, {}, 0, 0
  for i = 1, n do gains[i] = { most = 0 } end
  for at, order in ipairs(orders) do
    local mask, pair = 0, math.ceil(at / 2)
    for _, i in ipairs(order) do
      local before = value[mask]
      mask = mask + 2 ^ (i - 1)
      local gain = value[mask] - before
      gains[i][pair] = (gains[i][pair] or 0) + gain / 2
      gains[i].most = math.max(gains[i].most, math.abs(gain))
    end
  end
  for i = 1, n do
    local mean, square, pairs_made = 0, 0, #gains[i]
    for _, x in ipairs(gains[i]) do mean = mean + x / pairs_made end
    for _, x in ipairs(gains[i]) do square = square + (x - mean) ^ 2 end
    variances[i] = square / (pairs_made - 1)
    if gains[i].most > 0 then total, moved = total + variances[i], moved + 1 end
  end
  for i = 1, n do
    local own = #gains[i] - 1
    errors[i] = gains[i].most > 0 and math.sqrt((own * variances[i] + MODERATION * total / moved) / (own + MODERATION) / #gains[i]) or 0
  end
  return errors
end

-- game(n, value, { method, samples, seed }) → { shapley = { φ }, errors = { … } or nil, difference = { D }, whole, empty, most, orders, coalitions }.
-- value(mask) → v, or v and a vector; each coalition is asked once. on_vector(method, player, coefficient, vector) gets each
-- coalition's vector with what it counts. method: "shapley", "difference", nil: both. samples: orders; nil: exact up to EXACT players.
function credit.game(n, value, opts)
  local wanted, result, orders = {}, { exact = true }, nil
  if opts.method ~= "shapley" then wanted[#wanted + 1] = { name = "difference", terms = difference_terms(n) } end
  if opts.method ~= "difference" then
    local terms
    if opts.samples then terms, orders = sampled_terms(n, opts.samples, opts.seed) else terms = exact_terms(n) end
    wanted[#wanted + 1] = { name = "shapley", terms = terms }
    result.exact, result.orders = not opts.samples, opts.samples
  end
  local masks, seen = { 0, 2 ^ n - 1 }, { [0] = true, [2 ^ n - 1] = true }
  for _, w in ipairs(wanted) do
    result[w.name] = {}
    for i = 1, n do result[w.name][i] = 0 end
    for _, mask in ipairs(w.terms.masks) do
      if not seen[mask] then masks[#masks + 1], seen[mask] = mask, true end
    end
  end
  local values = {}
  result.most = 0
  for at, mask in ipairs(masks) do
    local v, vector = value(mask, at, #masks)
    values[mask], result.most = v, math.max(result.most, math.abs(v))
    for _, w in ipairs(wanted) do
      for i = 1, n do
        local coefficient = (w.terms.of[mask] or {})[i]
        if coefficient and coefficient ~= 0 then
          result[w.name][i] = result[w.name][i] + coefficient * v
          if vector and opts.on_vector then opts.on_vector(w.name, i, coefficient, vector) end
        end
      end
    end
  end
  if orders then result.errors = sampling_errors(n, orders, values) end
  result.whole, result.empty, result.coalitions = values[2 ^ n - 1], values[0], #masks
  return result
end

-- ---- Of a composition ---------------------------------------------------------------------------------------

-- value, low, high, p of a column of what each user adds; error: of sampling, widens the interval.
local function interval(value, column, opts, error, pairs_made)
  local d = native.paired_bootstrap(native.vector(#column):set(0), column, opts.seed, RESAMPLES, opts.confidence)
  local low, high = d.value - d.low, d.high - d.value
  if error then
    local half = error * credit.student_quantile((1 + opts.confidence) / 2, pairs_made - 1)
    low, high = math.sqrt(low ^ 2 + half ^ 2), math.sqrt(high ^ 2 + half ^ 2)
  end
  return { value = value, low = value - low, high = value + high, error = error }
end

local function without_rounding(m, least)
  for _, key in ipairs { "value", "low", "high", "error" } do
    if m[key] and math.abs(m[key]) < least then m[key] = 0 end
  end
  return m
end

local function verdict(m)
  if m.low > 0 then return "earns" end
  if m.high < 0 then return "harms" end
  return "nothing shown"
end

-- What stands in for nodes: baselines of the reward file, over which those of opts.baselines go.
local function stand_ins(t, r, opts)
  local given = {}
  for node, name in pairs(r.baselines) do given[node] = name end
  for node, name in pairs(opts.baselines or {}) do given[node] = name end
  local list = {}
  for node, name in pairs(given) do
    local of = t.run.by_name[node]
    if not of then native.raise("invalid", ("baseline: the composition has no node '%s'"):format(node)) end
    local a, errors = agent.find(name, ".")
    if not a then native.raise("invalid", ("baseline of %s: %s"):format(node, errors[1].message)) end
    if a.role ~= of.role then native.raise("invalid", ("baseline of %s: '%s' is of role %s, the node of role %s"):format(node, name, a.role, of.role)) end
    list[node] = t.run:stand_in(node, a, { seed = t.seed, progress = opts.progress, checkpoints = opts.checkpoints })
  end
  return list, given
end

-- measure{ composition, sets, data, fold, seed, users, reward, method, samples, confidence, baselines, weights, progress, checkpoints } →
-- { agents = { { node, agent, role, baseline, inner, inner_of, difference, shapley, verdict, weight, pay } }, whole, empty, exact, orders, … }.
-- method: "difference", "shapley" or nil for both. samples: orders, made even; nil: exact up to EXACT nodes, else 64.
-- baselines: { node → agent }. weights: { node → of its inner reward }, or nil: no pay is told.
function credit.measure(opts)
  local start, r, confidence = native.now(), opts.reward or reward.of_metric "ndcg@20", opts.confidence or 0.95
  local t = world.trial {
    composition = opts.composition, sets = opts.sets, data = opts.data, fold = opts.fold, seed = opts.seed, users = opts.users, reward = r,
    progress = opts.progress, checkpoints = opts.checkpoints,
  }
  local nodes, n = t.run.list, #t.run.list
  if n > MOST then native.raise("invalid", ("%d nodes: credit is told of at most %d"):format(n, MOST)) end
  local instead, baselines = stand_ins(t, r, opts)
  local samples = opts.samples
  if not samples and n > credit.EXACT and opts.method ~= "difference" then samples = 64 end
  if samples then samples = math.max(8, samples + samples % 2) end
  local columns, progress = {}, opts.progress
  local function value(mask, at, all)
    if native.interrupted() then native.raise("failed", "interrupted") end
    if progress then progress("coalitions", at - 1, all) end
    local absent = {}
    for i, node in ipairs(nodes) do
      if math.floor(mask / 2 ^ (i - 1)) % 2 == 0 then absent[node.name] = instead[node.name] or true end
    end
    local metrics, vector = t.measure(absent)
    return reward.scalar(r, metrics), vector
  end
  local g = credit.game(n, value, {
    method = opts.method, samples = samples, seed = t.seed,
    on_vector = function(name, i, coefficient, vector)
      local key = name .. i
      columns[key] = columns[key] and columns[key]:add(vector, coefficient) or vector * coefficient
    end,
  })
  local inner, list = t.inner(), native.array {}
  local how = { seed = t.seed, confidence = confidence }
  for i, node in ipairs(nodes) do
    local a = { node = node.name, agent = node.agent.name, role = node.role, baseline = baselines[node.name], inner = inner[node.name].value,
      inner_of = inner[node.name].of }
    for _, name in ipairs { "difference", "shapley" } do
      local column = columns[name .. i]
      local error = name == "shapley" and g.errors and g.errors[i] or nil
      if g[name] and column then a[name] = interval(g[name][i], column, how, error, samples and samples / 2)
      elseif g[name] then a[name] = { value = g[name][i], low = g[name][i], high = g[name][i], error = error } end
      if a[name] then without_rounding(a[name], ROUNDING * g.most) end
    end
    local paid = a.shapley or a.difference
    a.verdict = verdict(paid)
    if opts.weights then
      a.weight = opts.weights[node.name] or 0
      a.pay = coupling.pay(a.weight, a.inner, paid.value)
    end
    list[i] = a
  end
  return {
    agents = list, whole = g.whole, empty = g.empty, exact = g.exact, orders = g.orders, coalitions = g.coalitions, confidence = confidence,
    reward = r.name, formula = reward.formula(r), data = t.world.name, data_hash = t.world.hash, fold = t.fold, genome = t.composition.hash,
    name = t.composition.name, seed = t.seed, n_users = #t.users, seconds = native.now() - start, max_rss_mb = native.peak_rss_mb(),
  }
end

-- kept(result) → what does not depend on the machine: without seconds and megabytes.
function credit.kept(result)
  local copy = {}
  for key, value in pairs(result) do copy[key] = value end
  copy.seconds, copy.max_rss_mb = nil, nil
  return copy
end

return credit
