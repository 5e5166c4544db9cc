-- front.lua - the Pareto front of a run's evaluations over the reward's objectives, and its hypervolume.
--
-- Only evaluations on all users that keep every constraint take part. Objectives are oriented so that more is better. The volume is
-- measured from a reference, the worst that counts: an objective's own `reference`; else 0 of a maximised one, and of a minimised
-- one twice what the given composition measured.

local native = require "evection.native"
local reward = require "evection.reward"

local front = {}

local function given(history, metric)
  local e = history[1]
  local value = e and e.metrics and e.metrics[metric]
  return value and value > 0 and 2 * value or 1
end

-- reference(reward, history) → { metric → value }, in the objectives' own direction.
function front.reference(r, history)
  local list = {}
  for _, o in ipairs(r.objectives) do list[o.metric] = o.reference or (o.weight > 0 and 0 or given(history, o.metric)) end
  return list
end

-- of(reward, history) → { points = { { number, objectives = { metric → value } } }, hypervolume, reference }, points by number;
-- nil with more objectives than a volume is computed for.
function front.of(r, history)
  local names, points, from = {}, {}, {}
  for i, o in ipairs(r.objectives) do names[i] = { metric = o.metric, sign = o.weight > 0 and 1 or -1 } end
  if #names > 16 then return nil end
  for _, e in ipairs(history) do
    if e.reward and e.metrics and e.users == 1 and select(2, reward.excesses(r, e.metrics)) == 0 then
      local point = {}
      for i, n in ipairs(names) do point[i] = n.sign * e.metrics[n.metric] end
      points[#points + 1], from[#from + 1] = point, e
    end
  end
  local reference, oriented = front.reference(r, history), {}
  for i, n in ipairs(names) do oriented[i] = n.sign * reference[n.metric] end
  local kept, seen = native.array {}, {}
  for i, rank in ipairs(#points > 0 and native.pareto_ranks(points) or {}) do
    local key = table.concat(points[i], " ")
    if rank == 0 and not seen[key] then -- of equals the first
      local objectives = {}
      for k, n in ipairs(names) do objectives[n.metric] = n.sign * points[i][k] end
      kept[#kept + 1], seen[key] = { number = from[i].number, objectives = objectives }, true
    end
  end
  return { points = kept, hypervolume = native.hypervolume(points, oriented), reference = reference }
end

return front
