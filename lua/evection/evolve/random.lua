-- random.lua - points drawn at random, measured on all users: the baseline of every other proposer (Bergstra and
-- Bengio 2012). halving.lua says what a proposer is.

local space = require "evection.space"

local random = {}

function random.propose(state)
  local proposals = {}
  for i = 1, math.min(state.batch, state.budget) do
    local sets = {}
    for _, d in ipairs(state.dims) do sets[d.path] = space.sample(d.dim, state.rng) end
    proposals[i] = { sets = sets, users = 1, rung = 0, parent = 1, reason = "a point drawn at random" }
  end
  return proposals
end

return random
