-- tpe.lua - tree-structured Parzen estimator (Bergstra, Bardenet, Bengio, Kégl 2011) over mixed spaces.
--
-- Full measurements are cut into the good (the best few) and the rest. Each dimension, in its unit interval, gets a
-- density l of the good and g of the rest: Gaussians around the points, truncated to [0, 1], with a uniform prior;
-- counts with a prior for choices. Candidates are drawn from l, and the one with the largest Π l / g is proposed.
-- Every fourth proposal varies the best point in a few dimensions, which the product of densities alone is slow to do.
-- halving.lua says what a proposer is.

local space = require "evection.space"

local tpe = {}

local CANDIDATES = 32
local LEAST = 8 -- full measurements before the model is asked

local function discrete(dim) return dim.kind == "choice" or dim.kind == "bool" end

local function categories(dim) return dim.kind == "bool" and 2 or #dim.choices end

local function category(dim, u) return math.min(categories(dim), math.floor(u * categories(dim)) + 1) end

-- Points of the history in unit coordinates, best first.
local function measured(state)
  local points = {}
  for _, e in ipairs(state.history) do
    if e.reward and e.users == 1 then
      local unit = {}
      for i, d in ipairs(state.dims) do
        local value = e.sets[d.path]
        if value == nil then value = d.value end -- the given composition
        unit[i] = space.to_unit(d.dim, value)
      end
      points[#points + 1] = { unit = unit, reward = e.reward, number = e.number }
    end
  end
  table.sort(points, function(a, b) return a.reward > b.reward or (a.reward == b.reward and a.number < b.number) end)
  return points
end

local function erf(x) -- Abramowitz and Stegun 7.1.26: to 1.5e-7, enough for a truncated density
  local t = 1 / (1 + 0.3275911 * math.abs(x))
  local y = 1 - (((((1.061405429 * t - 1.453152027) * t) + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * math.exp(-x * x)
  return x < 0 and -y or y
end

local function normal_cdf(x) return 0.5 * (1 + erf(x / math.sqrt(2))) end

-- Density of one dimension: { centres, width } or { shares }.
local function density(dim, points, first, last, i)
  local n = last - first + 1
  if discrete(dim) then
    local k, shares = categories(dim), {}
    for c = 1, k do shares[c] = 1 / (n + k) end
    for p = first, last do
      local c = category(dim, points[p].unit[i])
      shares[c] = shares[c] + 1 / (n + k)
    end
    return { shares = shares }
  end
  local mean, square, centres = 0, 0, {}
  for p = first, last do
    local u = points[p].unit[i]
    centres[#centres + 1] = u
    mean, square = mean + u / n, square + u * u / n
  end
  local deviation = math.sqrt(math.max(0, square - mean * mean))
  -- Scott's rule with a floor, so that a few equal points do not freeze the search.
  return { centres = centres, width = math.max(0.05, deviation * n ^ -0.2) }
end

local function likelihood(dim, d, u)
  if d.shares then return d.shares[category(dim, u)] end
  local n, sum = #d.centres, 1 -- 1: the uniform prior, of the weight of one point
  for _, centre in ipairs(d.centres) do
    local z = (u - centre) / d.width
    local mass = normal_cdf((1 - centre) / d.width) - normal_cdf(-centre / d.width)
    sum = sum + math.exp(-0.5 * z * z) / (d.width * 2.5066282746 * mass)
  end
  return sum / (n + 1)
end

local function draw(d, rng)
  if d.shares then
    local x, c = rng:float(), 1
    while c < #d.shares and x >= d.shares[c] do
      x = x - d.shares[c]
      c = c + 1
    end
    return (c - 0.5) / #d.shares
  end
  local pick = rng:below(#d.centres + 1)
  if pick == #d.centres then return rng:float() end
  for _ = 1, 20 do
    local u = d.centres[pick + 1] + d.width * rng:normal()
    if u >= 0 and u <= 1 then return u end
  end
  return d.centres[pick + 1]
end

local function from_model(state, points)
  local n_good = math.max(3, math.min(25, math.ceil(0.2 * #points)))
  local good, rest = {}, {}
  for i, d in ipairs(state.dims) do
    good[i] = density(d.dim, points, 1, n_good, i)
    rest[i] = density(d.dim, points, n_good + 1, #points, i)
  end
  local best, most
  for _ = 1, CANDIDATES do
    local unit, score = {}, 0
    for i, d in ipairs(state.dims) do
      unit[i] = draw(good[i], state.rng)
      score = score + math.log(likelihood(d.dim, good[i], unit[i])) - math.log(likelihood(d.dim, rest[i], unit[i]))
    end
    if not most or score > most then best, most = unit, score end
  end
  return best
end

-- The best point moved in about two of its dimensions.
local function around_best(state, points)
  local unit, share = {}, math.min(1, 2 / #state.dims)
  local forced = state.rng:below(#state.dims) + 1
  for i, d in ipairs(state.dims) do
    local u = points[1].unit[i]
    if i == forced or state.rng:float() < share then
      if discrete(d.dim) then u = state.rng:float()
      else u = math.max(0, math.min(1, u + 0.12 * state.rng:normal())) end
    end
    unit[i] = u
  end
  return unit
end

function tpe.propose(state)
  local points, proposals = measured(state), {}
  for k = 1, math.min(state.batch, state.budget) do
    local unit, reason
    if #points < LEAST then
      unit, reason = {}, "a point drawn at random, too little is known for a model"
      for i = 1, #state.dims do unit[i] = state.rng:float() end
    elseif k % 4 == 0 then
      unit, reason = around_best(state, points), ("evaluation %d, moved in a few knobs"):format(points[1].number)
    else
      unit, reason = from_model(state, points), ("likely among the good of %d measured points"):format(#points)
    end
    local sets = {}
    for i, d in ipairs(state.dims) do sets[d.path] = space.from_unit(d.dim, unit[i]) end
    proposals[k] = { sets = sets, users = 1, rung = 0, parent = points[1] and points[1].number or 1, reason = reason }
  end
  return proposals
end

return tpe
