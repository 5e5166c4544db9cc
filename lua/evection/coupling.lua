-- coupling.lua - inner and outer rewards in one: how far an agent's own measure may lead evolution, and when it leads astray.
--
-- Each evaluation knows its outer reward and each node's inner one. With ρᵢ the rank correlation (Spearman 1904) of node i's inner
-- reward with the outer reward over the n evaluations on all users that measured both, the node's weight is
--   wᵢ = low + (high − low) · max(0, ρᵢ · n / (n + 8))
-- so that an inner reward counts as far as it was seen to go with the whole, and little is believed from few. Outer o and inner rewards
-- iᵢ in units of their deviations from the mean over those evaluations, m nodes, w̄ = Σ wᵢ / m:
--   layered = (1 − w̄) · o + Σ wᵢ · iᵢ / m
-- An agent's pay, of what it measured alone and what it earns from the whole (credit.lua): wᵢ · inner + (1 − wᵢ) · credit.

local native = require "evection.native"

local coupling = {}

local PRIOR = 8 -- evaluations that a correlation of 0 is worth
local LEAST = 5 -- evaluations before a correlation is told

-- Ranks from 1, equals sharing the mean of theirs.
local function ranks(x)
  local by, rank = {}, {}
  for i = 1, #x do by[i] = i end
  table.sort(by, function(a, b) return x[a] < x[b] or (x[a] == x[b] and a < b) end)
  local first = 1
  while first <= #by do
    local last = first
    while last < #by and x[by[last + 1]] == x[by[first]] do last = last + 1 end
    for i = first, last do rank[by[i]] = (first + last) / 2 end
    first = last + 1
  end
  return rank
end

-- Mean and standard deviation; 0 of equals, not what rounding leaves.
local function moments(x)
  local mean, square, same = 0, 0, true
  for _, v in ipairs(x) do mean, same = mean + v / #x, same and v == x[1] end
  if same then return x[1] or 0, 0 end
  for _, v in ipairs(x) do square = square + (v - mean) ^ 2 / #x end
  return mean, math.sqrt(square)
end

-- spearman(x, y) → ρ, or nil when one of them never changes.
function coupling.spearman(x, y)
  local a, b = ranks(x), ranks(y)
  local ma, sa = moments(a)
  local mb, sb = moments(b)
  if not (sa > 0 and sb > 0) then return nil end
  local sum = 0
  for i = 1, #a do sum = sum + (a[i] - ma) * (b[i] - mb) / #a end
  return sum / (sa * sb)
end

-- Standard normal distribution function: Abramowitz and Stegun 7.1.26, to 1e-7.
local function normal_cdf(x)
  local z = math.abs(x) / math.sqrt(2)
  local t = 1 / (1 + 0.3275911 * z)
  local tail = 0.5 * (((((1.061405429 * t - 1.453152027) * t) + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * math.exp(-z * z)
  return x > 0 and 1 - tail or tail
end

local function nodes_of(history)
  local names, seen = {}, {}
  for _, e in ipairs(history) do
    for metric in pairs(e.metrics or {}) do
      local node = metric:match "^inner%.(.+)$"
      if node and not seen[node] then names[#names + 1], seen[node] = node, true end
    end
  end
  table.sort(names)
  return names
end

local function measured(history, node)
  local inner, outer = {}, {}
  for _, e in ipairs(history) do
    local value = e.reward and e.users == 1 and e.metrics and e.metrics["inner." .. node]
    if value then inner[#inner + 1], outer[#outer + 1] = value, e.reward end
  end
  return inner, outer
end

-- weights(reward, history) → { node → { weight, correlation, evaluations, p } }. p: one-sided, of a correlation so far below 0 by
-- chance (ρ √(n − 1) is nearly normal).
function coupling.weights(r, history)
  local list, c = {}, r.coupling
  for _, node in ipairs(nodes_of(history)) do
    local inner, outer = measured(history, node)
    local rho = #inner >= LEAST and coupling.spearman(inner, outer) or nil
    local w = c.low + (c.high - c.low) * math.max(0, (rho or 0) * #inner / (#inner + PRIOR))
    list[node] = { weight = w, correlation = rho, evaluations = #inner, p = rho and normal_cdf(rho * math.sqrt(#inner - 1)) or nil }
  end
  return list
end

-- layers(history, weights) → function(outer, metrics): the layered reward in units of the outer one's; that itself while
-- nothing is known, or no weight is above 0.
function coupling.layers(history, weights)
  local outers, parts, total, n = {}, {}, 0, 0
  for _, e in ipairs(history) do
    if e.reward and e.users == 1 then outers[#outers + 1] = e.reward end
  end
  local mean, deviation = 0, 0
  if #outers > 0 then mean, deviation = moments(outers) end
  for node, w in pairs(weights) do
    local m, s = moments(measured(history, node))
    n, total = n + 1, total + w.weight
    parts[#parts + 1] = { metric = "inner." .. node, weight = w.weight, mean = m, deviation = s }
  end
  table.sort(parts, function(a, b) return a.metric < b.metric end)
  if n == 0 or total == 0 or deviation == 0 then return function(outer) return outer end end
  return function(outer, metrics)
    local sum = (1 - total / n) * (outer - mean) / deviation
    for _, part in ipairs(parts) do
      local value = metrics[part.metric]
      if value and part.deviation > 0 then sum = sum + part.weight / n * (value - part.mean) / part.deviation end
    end
    return mean + deviation * sum
  end
end

-- pay(weight, inner, credit) → what an agent is paid
function coupling.pay(weight, inner, credit) return weight * inner + (1 - weight) * credit end

-- opposed(weights, confidence) → nodes whose inner reward went against the outer one over the run, beyond chance (Bonferroni over nodes).
function coupling.opposed(weights, confidence)
  local list, n = native.array {}, 0
  for _ in pairs(weights) do n = n + 1 end
  for node, w in pairs(weights) do
    if w.p and w.correlation < 0 and w.p * n <= 1 - confidence then list[#list + 1] = node end
  end
  table.sort(list)
  return list
end

-- One side of a paired bootstrap: how likely the resampled difference does not go in this direction.
local function one_sided(d, sign)
  local half = d.p / 2
  if d.value * sign > 0 then return half end
  return d.value == 0 and 1 or 1 - half
end

-- divergence(given, best, { seed, confidence, resamples }) → { outer, nodes = list of { node, inner, p, diverges }, diverges }.
-- given and best: { outer = vector over users, inner = { node → vector over users, or over blocks of users } }, of two compositions in
-- the same world. Diverging is that a node's inner reward is up and the outer one is down. Both are asked of a paired bootstrap, and
-- the larger of the two p-values counts (intersection-union, Berger 1982); the inner one is multiplied by the number of nodes.
function coupling.divergence(given, best, opts)
  local alpha = 1 - opts.confidence
  local function compare(a, b) return native.paired_bootstrap(a, b, opts.seed, opts.resamples or 5000, opts.confidence) end
  local result = { outer = compare(given.outer, best.outer), nodes = native.array {}, diverges = false }
  local down, names = one_sided(result.outer, -1), {}
  for node in pairs(best.inner) do
    if given.inner[node] then names[#names + 1] = node end
  end
  table.sort(names)
  for _, node in ipairs(names) do
    local d = compare(given.inner[node], best.inner[node])
    local p = math.max(down, math.min(1, one_sided(d, 1) * #names))
    local diverges = p <= alpha
    result.nodes[#result.nodes + 1] = { node = node, inner = d, p = p, diverges = diverges }
    result.diverges = result.diverges or diverges
  end
  return result
end

return coupling
