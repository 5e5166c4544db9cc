-- The items that earned most per look, and now and then any: the baseline of every other explorer.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "epsilon_greedy", role = "explore",
  about = "By the share of looks that were rewarded; with probability epsilon a place goes to any candidate.",
  references = { "Sutton, Barto: Reinforcement learning, 2nd edition, section 2.2, MIT Press 2018" },
  space = {
    pool    = space.logint(1, 1000, 50),      -- candidates, best first, that may be shown
    epsilon = space.log(0.001, 1, 0.1),
    doubt   = space.log(0.1, 1000, 20),       -- looks without a reward that everybody is credited with
    decay   = space.linear(0.99, 1, 1),       -- what a look leaves of all before it
  },
  state = { arms = { kind = "counts", n = "items", decay = "decay" } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    local knobs = ctx.knobs
    slate:truncate(math.max(request.n, knobs.pool))
    ctx.state.arms:choose(slate, { rule = "greedy", epsilon = knobs.epsilon, prior_b = knobs.doubt, k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.arms:reward(e.user, e.item, math.min(1, e.value)) end
  end,
}
