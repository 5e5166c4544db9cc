-- The further a candidate's prediction lies behind the best, the less often it is shown.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "square_cb", role = "explore",
  about = "SquareCB: a linear prediction, and probabilities by the inverse of the gap to the best.",
  references = {
    "Foster, Rakhlin: Beyond UCB: optimal and efficient contextual bandits with regression oracles, ICML 2020",
    "Abe, Long: Associative reinforcement learning using linear probabilistic concepts, ICML 1999",
  },
  space = {
    pool      = space.logint(1, 1000, 50),
    sharpness = space.log(0.1, 1000, 10),  -- γ = sharpness √decisions
    ridge     = space.log(0.01, 100, 1),
    decay     = space.linear(0.99, 1, 1),
  },
  state = { model = { kind = "linear", n_dims = 16, ridge = "ridge", decay = "decay" } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    slate:truncate(math.max(request.n, ctx.knobs.pool))
    ctx.state.model:choose(slate, { rule = "squarecb", alpha = ctx.knobs.sharpness, k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.model:reward(e.user, e.item, e.value) end
  end,
}
