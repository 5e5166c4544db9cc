-- A linear model drawn from its posterior chooses each place.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "lin_thompson", role = "explore",
  about = "Thompson sampling of a linear model over the slate's columns.",
  references = { "Agrawal, Goyal: Thompson sampling for contextual bandits with linear payoffs, ICML 2013" },
  space = {
    pool  = space.logint(1, 1000, 50),
    scale = space.log(0.01, 10, 0.3),      -- of the posterior's deviation
    ridge = space.log(0.01, 100, 1),
    decay = space.linear(0.99, 1, 1),
    draws = space.logint(16, 4096, 128),
  },
  state = { model = { kind = "linear", n_dims = 16, ridge = "ridge", decay = "decay" } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    local knobs = ctx.knobs
    slate:truncate(math.max(request.n, knobs.pool))
    ctx.state.model:choose(slate, { rule = "thompson", alpha = knobs.scale, draws = knobs.draws, k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.model:reward(e.user, e.item, e.value) end
  end,
}
