-- cma.lua - CMA-ES (Hansen 2016) over the knobs' unit intervals: for many continuous knobs that depend on each other.
--
-- The search distribution is made anew from the recorded evaluations, so a resumed run proposes the same; the reason of each says which
-- search it belongs to. A generation has 4 + 3 ln n points. What falls outside the unit cube is measured, and told, at its border.
-- halving.lua says what a proposer is.

local native = require "evection.native"
local space = require "evection.space"

local cma = {}

local SIGMA = 0.3 -- a third of each interval: the optimum lies within

local function clamp(point)
  for i, u in ipairs(point) do point[i] = math.max(0, math.min(1, u)) end
  return point
end

-- The best measurement on all users: whose child a proposal is.
local function parent_of(history)
  local best
  for _, e in ipairs(history) do
    if e.reward and e.users == 1 and (not best or e.reward > best.reward) then best = e end
  end
  return best and best.number or 1
end

function cma.propose(state)
  local mean, mine, proposals = {}, {}, {}
  for i, d in ipairs(state.dims) do mean[i] = space.to_unit(d.dim, d.value) end
  for _, e in ipairs(state.history) do
    if e.proposer == "cma" then mine[#mine + 1] = e end
  end
  local seed = mine[1] and tonumber(mine[1].reason:match "^search (%d+)") or state.rng:below(2 ^ 31)
  local search = native.arms(nil, { kind = "cma", n_dims = #mean, seed = seed })
  search:set(mean, SIGMA)
  local points, generation = search:ask()
  while #mine >= (generation + 1) * #points do
    local values = {}
    for k, point in ipairs(points) do
      local reward = mine[generation * #points + k].reward
      clamp(point)
      values[k] = reward and -reward or 0 / 0
    end
    search:tell(points, values, generation)
    points, generation = search:ask()
  end
  local parent = parent_of(state.history)
  for k = #mine - generation * #points + 1, math.min(#points, #mine - generation * #points + math.min(state.batch, state.budget)) do
    local sets = {}
    clamp(points[k])
    for i, d in ipairs(state.dims) do sets[d.path] = space.from_unit(d.dim, points[k][i]) end
    local reason = ("search %d: point %d of generation %d"):format(seed, k, generation + 1)
    proposals[#proposals + 1] = { sets = sets, users = 1, rung = 0, parent = parent, reason = reason }
  end
  return proposals
end

return cma
