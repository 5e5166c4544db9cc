-- Each place goes to the item whose reward, drawn from what is believed of it, is the largest.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "thompson", role = "explore",
  about = "Thompson sampling over items: Beta or Gaussian posteriors of what a look earns.",
  references = {
    "Thompson: On the likelihood that one unknown probability exceeds another in view of the evidence of two samples, Biometrika 1933",
    "Agrawal, Goyal: Further optimal regret bounds for Thompson sampling, AISTATS 2013",
  },
  space = {
    pool      = space.logint(1, 1000, 50),
    posterior = space.choice { "beta", "gaussian", default = "beta" },
    doubt     = space.log(0.1, 1000, 20),  -- looks without a reward that everybody is credited with
    noise     = space.log(0.01, 10, 0.3),  -- gaussian: standard deviation of what a look earns
    decay     = space.linear(0.99, 1, 1),
    draws     = space.logint(16, 4096, 128), -- of the posterior, for the propensities of long lists
  },
  state = { arms = { kind = "counts", n = "items", decay = "decay" } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    local knobs = ctx.knobs
    slate:truncate(math.max(request.n, knobs.pool))
    ctx.state.arms:choose(slate, { rule = "thompson", gaussian = knobs.posterior == "gaussian", noise = knobs.noise, prior_b = knobs.doubt,
      draws = knobs.draws, k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.arms:reward(e.user, e.item, math.min(1, e.value)) end
  end,
}
