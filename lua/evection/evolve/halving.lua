-- halving.lua - successive halving (Jamieson and Talwalkar 2016): many points on few users, the best third of them on
-- three times as many, until the last are measured on all.
--
-- A proposer is a table with propose(state) → list of { sets, users, rung, parent, reason }, empty when it has no more
-- to say. state = { dims, history (evaluations by number, all done), budget (evaluations left), batch, rng }. It must
-- depend on nothing else, so that a resumed run proposes the same.

local space = require "evection.space"

local halving = {}

local ETA = 3
local SHARES = { 1 / 9, 1 / 3, 1 }
local PART = 0.5 -- of the whole budget; the rest is for those who learn from what was found

local function sample(dims, rng)
  local sets = {}
  for _, d in ipairs(dims) do sets[d.path] = space.sample(d.dim, rng) end
  return sets
end

local function mine(history, rung)
  local list = {}
  for _, e in ipairs(history) do
    if e.proposer == "halving" and e.rung == rung then list[#list + 1] = e end
  end
  return list
end

-- The best third of a rung, best first; failures never, equals by number.
local function survivors(list, n)
  local good = {}
  for _, e in ipairs(list) do
    if e.reward then good[#good + 1] = e end
  end
  table.sort(good, function(a, b) return a.reward > b.reward or (a.reward == b.reward and a.number < b.number) end)
  for i = #good, n + 1, -1 do good[i] = nil end
  return good
end

-- How many points start, so that all rungs together stay within the part of the budget.
local function starters(total)
  local weight = 0
  for rung = 0, #SHARES - 1 do weight = weight + ETA ^ -rung end
  return math.max(ETA, math.floor(total * PART / weight))
end

function halving.propose(state)
  local n = starters(state.total)
  local proposals = {}
  local first = mine(state.history, 0)
  if #first < n then
    for _ = 1, math.min(state.batch, n - #first) do
      proposals[#proposals + 1] = { sets = sample(state.dims, state.rng), users = SHARES[1], rung = 0, parent = 1, reason = "a point drawn at random" }
    end
    return proposals
  end
  for rung = 1, #SHARES - 1 do
    local before, here = mine(state.history, rung - 1), mine(state.history, rung)
    local chosen = survivors(before, math.max(1, math.floor(n / ETA ^ rung)))
    if #here < #chosen then
      for i = #here + 1, math.min(#chosen, #here + state.batch) do
        proposals[#proposals + 1] = {
          sets = chosen[i].sets, users = SHARES[rung + 1], rung = rung, parent = chosen[i].number,
          reason = ("place %d of %d at %.0f %% of the users"):format(i, #before, SHARES[rung] * 100),
        }
      end
      return proposals
    end
  end
  return proposals
end

return halving
