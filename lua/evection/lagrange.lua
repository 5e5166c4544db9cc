-- lagrange.lua - constraints with a price: multipliers moved by projected dual ascent over a run's evaluations.
--
-- Over the points measured so far the dual is d(λ) = max L(x, λ), with
--   L(x, λ) = f(x) − Σ λⱼ gⱼ(x) − penalty · Σ max(0, gⱼ(x))                    g above 0: violated (reward.lua)
-- and −g of its maximiser is a subgradient (Shor 1985; Nedić and Ozdaglar 2009). Each evaluation on all users, in order of number,
-- makes one step against it, cut to [0, most]:
--   λⱼ ← min(most, max(0, λⱼ + step / √t · gⱼ(argmax L(·, λ))))
-- So a constraint that the best points break grows dear until points that keep it come out ahead, and one that binds nowhere
-- costs nothing. The state is a function of the recorded evaluations alone: a resumed run has the same.

local reward = require "evection.reward"

local lagrange = {}

-- new(reward) → state { multipliers = { λ }, steps, points }. points: those that no other dominates in f and −g; the maximiser for
-- any λ >= 0 is among them.
function lagrange.new(r)
  local state = { multipliers = {}, steps = 0, points = {} }
  for j in ipairs(r.constraints) do state.multipliers[j] = r.multipliers.start end
  return state
end

local function covers(a, b)
  if a.f < b.f then return false end
  for j, g in ipairs(a.g) do
    if g > b.g[j] then return false end
  end
  return true
end

local function keep(points, x)
  for _, p in ipairs(points) do
    if covers(p, x) then return points end
  end
  local left = {}
  for _, p in ipairs(points) do
    if not covers(x, p) then left[#left + 1] = p end
  end
  left[#left + 1] = x
  return left
end

local function value(r, multipliers, x)
  local sum = x.f - r.penalty * x.violation
  for j, g in ipairs(x.g) do sum = sum - multipliers[j] * g end
  return sum
end

-- lagrangian(reward, multipliers, metrics) → L
function lagrange.lagrangian(r, multipliers, metrics)
  local g, violation = reward.excesses(r, metrics)
  return value(r, multipliers, { f = reward.objective(r, metrics), g = g, violation = violation })
end

-- step(reward, state, metrics): an evaluation on all users was made.
function lagrange.step(r, state, metrics)
  if #r.constraints == 0 then return end
  local g, violation = reward.excesses(r, metrics)
  state.points = keep(state.points, { f = reward.objective(r, metrics), g = g, violation = violation })
  local best, most
  for _, x in ipairs(state.points) do
    local l = value(r, state.multipliers, x)
    if not most or l > most then best, most = x, l end
  end
  state.steps = state.steps + 1
  for j, of in ipairs(best.g) do
    state.multipliers[j] = math.min(r.multipliers.most, math.max(0, state.multipliers[j] + r.multipliers.step / math.sqrt(state.steps) * of))
  end
end

return lagrange
