-- What a candidate's columns say it will earn, and how little is known of such columns.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "lin_ucb", role = "explore",
  about = "LinUCB over the slate's columns: what they predict, and a bonus for what is seldom seen.",
  references = { "Li, Chu, Langford, Schapire: A contextual-bandit approach to personalized news article recommendation, WWW 2010" },
  space = {
    pool  = space.logint(1, 1000, 50),
    alpha = space.log(0.01, 10, 0.5),      -- weight of the bonus
    ridge = space.log(0.01, 100, 1),
    decay = space.linear(0.99, 1, 1),
  },
  state = { model = { kind = "linear", n_dims = 16, ridge = "ridge", decay = "decay" } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    slate:truncate(math.max(request.n, ctx.knobs.pool))
    ctx.state.model:choose(slate, { rule = "ucb", alpha = ctx.knobs.alpha, k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.model:reward(e.user, e.item, e.value) end
  end,
}
