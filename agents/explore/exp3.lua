-- Nothing is assumed of how rewards come about; a share of weight for all keeps up with whoever was bad for long.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "exp3", role = "explore",
  about = "EXP3.S over a catalogue of at most 4096 items: exponential weights for rewards that follow no law.",
  references = { "Auer, Cesa-Bianchi, Freund, Schapire: The nonstochastic multiarmed bandit problem, SIAM J. Computing 2002" },
  space = {
    pool  = space.logint(1, 1000, 50),
    rate  = space.log(0.001, 1, 0.1),      -- γ: uniform exploration, and the size of steps
    share = space.log(1e-8, 0.1, 1e-5),    -- α
  },
  state = { weights = { kind = "weights", n = "items", rate = "rate", share = "share" } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    slate:truncate(math.max(request.n, ctx.knobs.pool))
    ctx.state.weights:choose(slate, { k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.weights:reward(e.user, e.item, e.value) end
  end,
}
