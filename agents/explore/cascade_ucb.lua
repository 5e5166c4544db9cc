-- Users look from the top until something pleases them: what stands below the click was not looked at.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "cascade_ucb", role = "explore",
  about = "CascadeUCB: the items of the largest upper bounds; learns of a slate down to its first click.",
  references = { "Kveton, Szepesvári, Wen, Ashkan: Cascading bandits: learning to rank in the cascade model, ICML 2015" },
  space = {
    pool  = space.logint(1, 1000, 50),
    bound = space.choice { "ucb", "kl_ucb", default = "kl_ucb" },
    decay = space.linear(0.99, 1, 1),
  },
  state = { arms = { kind = "counts", n = "items", decay = "decay", cascade = true } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    slate:truncate(math.max(request.n, ctx.knobs.pool))
    ctx.state.arms:choose(slate, { rule = ctx.knobs.bound, k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.arms:reward(e.user, e.item, math.min(1, e.value)) end
  end,
}
