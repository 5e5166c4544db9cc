-- A softmax over the candidates, moved towards what earned more than usual.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "reinforce", role = "explore",
  about = "A softmax policy over the slate's columns, learnt by REINFORCE with a baseline.",
  references = { "Williams: Simple statistical gradient-following algorithms for connectionist reinforcement learning, Machine Learning 1992" },
  space = {
    pool    = space.logint(1, 1000, 50),
    rate    = space.log(0.0001, 1, 0.01),
    epsilon = space.log(0.001, 1, 0.02),   -- of places go to any candidate
    decay   = space.linear(0.9, 1, 0.999), -- of the baseline
  },
  state = { policy = { kind = "policy", n_dims = 16, rate = "rate", decay = "decay" } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    slate:truncate(math.max(request.n, ctx.knobs.pool))
    ctx.state.policy:choose(slate, { epsilon = ctx.knobs.epsilon, k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.policy:reward(e.user, e.item, e.value) end
  end,
}
