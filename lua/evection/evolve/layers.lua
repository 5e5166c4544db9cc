-- layers.lua - what a run makes of its rewards beyond one number an evaluation: prices of constraints, coupling weights, the front.
--
-- All of it is a function of the recorded evaluations in order of number, so a resumed run has the same state; the ledger keeps
-- it after each batch for whoever asks later.

local coupling = require "evection.coupling"
local front = require "evection.front"
local lagrange = require "evection.lagrange"
local reward = require "evection.reward"

local layers = {}

-- needed(reward): a reward of one objective and nothing else is its own layer.
function layers.needed(r) return #r.constraints > 0 or #r.objectives > 1 or r.coupling.by ~= "none" end

local function named(r, multipliers)
  local list = {}
  for j, c in ipairs(r.constraints) do list[reward.text(c)] = multipliers[j] end
  return list
end

-- new(reward, keep) → layers { judge, done, view, state }. keep(number, state) is called after each batch that recorded something new.
function layers.new(r, keep)
  local self = { lagrange = lagrange.new(r), weights = {}, reached = 0 }

  -- How far a result is from keeping the constraints.
  function self.judge(e)
    if e.reward and e.metrics then e.violation = select(2, reward.excesses(r, e.metrics)) end
  end

  -- After a batch: multipliers move, weights are told anew.
  function self.done(history)
    for number = self.reached + 1, #history do
      local e = history[number]
      if e.reward and e.metrics and e.users == 1 then lagrange.step(r, self.lagrange, e.metrics) end
    end
    self.reached = #history
    if r.coupling.by ~= "none" then
      self.weights = coupling.weights(r, history)
      local layer = coupling.layers(history, self.weights)
      for _, e in ipairs(history) do
        if e.reward and e.users == 1 then e.layered = layer(e.reward, e.metrics) end
      end
    end
    if keep then keep(#history, self.state(history)) end
  end

  -- What proposers see: the Lagrangian at the multipliers of now, and where agents are coupled, with the inner rewards.
  function self.view(history)
    local seen, layer = {}, coupling.layers(history, self.weights)
    for number, e in ipairs(history) do
      local value = e.reward
      if value and e.metrics then value = layer(lagrange.lagrangian(r, self.lagrange.multipliers, e.metrics), e.metrics) end
      seen[number] = setmetatable({ reward = value }, { __index = e })
    end
    return seen
  end

  -- → { multipliers, weights, front, hypervolume, reference } as plain data
  function self.state(history)
    local state = { multipliers = #r.constraints > 0 and named(r, self.lagrange.multipliers) or nil, weights = next(self.weights) and self.weights or nil }
    local f = front.of(r, history)
    if f then state.front, state.hypervolume, state.reference = f.points, f.hypervolume, f.reference end
    return state
  end

  return self
end

-- told(state) → lines for people.
function layers.told(state)
  local lines, parts = {}, {}
  for text, value in pairs(state.multipliers or {}) do parts[#parts + 1] = ("%s: λ %.4g"):format(text, value) end
  table.sort(parts)
  if #parts > 0 then lines[#lines + 1] = "multipliers  " .. table.concat(parts, "; ") end
  parts = {}
  for node, w in pairs(state.weights or {}) do
    parts[#parts + 1] = ("%s %.3f%s"):format(node, w.weight, w.correlation and (" (correlation %+.2f)"):format(w.correlation) or "")
  end
  table.sort(parts)
  if #parts > 0 then lines[#lines + 1] = "weight of inner rewards  " .. table.concat(parts, "; ") end
  if state.front and next(state.reference or {}) then
    lines[#lines + 1] = ("Pareto front: %d evaluation%s, hypervolume %.6g"):format(#state.front, #state.front == 1 and "" or "s", state.hypervolume)
  end
  return lines
end

return layers
