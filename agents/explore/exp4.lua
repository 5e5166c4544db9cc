-- The agents merged before it are experts; those whose advice earned are listened to more, whatever law rewards follow.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "exp4", role = "explore",
  about = "EXP4 over the rankings of the agents merged before it, each advising a candidate in proportion to 1 / rank.",
  references = { "Auer, Cesa-Bianchi, Freund, Schapire: The nonstochastic multiarmed bandit problem, SIAM J. Computing 2002" },
  space = {
    pool  = space.logint(1, 1000, 50),
    rate  = space.log(0.001, 1, 0.1),
    share = space.log(1e-8, 0.1, 1e-5),
  },
  state = { weights = { kind = "weights", n = 32, n_dims = 32, rate = "rate", share = "share" } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    slate:truncate(math.max(request.n, ctx.knobs.pool))
    ctx.state.weights:choose(slate, { k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.weights:reward(e.user, e.item, e.value) end
  end,
}
