-- Lower places are looked at less: an item is judged by what it earned per look, not per showing.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "slate_thompson", role = "explore",
  about = "Thompson sampling in the position-based model: place k is looked at with probability k^-examination.",
  references = {
    "Lagrée, Vernade, Cappé: Multiple-play bandits in the position-based model, NIPS 2016",
    "Chuklin, Markov, de Rijke: Click models for web search, Morgan & Claypool 2015",
  },
  space = {
    pool        = space.logint(1, 1000, 50),
    examination = space.linear(0, 2, 1),
    doubt       = space.log(0.1, 1000, 20),
    decay       = space.linear(0.99, 1, 1),
    draws       = space.logint(16, 4096, 128),
  },
  state = { arms = { kind = "counts", n = "items", decay = "decay", examination = "examination" } },

  act = function(_, request, slate, ctx)
    if not ctx.state then return end
    local knobs = ctx.knobs
    slate:truncate(math.max(request.n, knobs.pool))
    ctx.state.arms:choose(slate, { rule = "thompson", prior_b = knobs.doubt, draws = knobs.draws, k = request.n, user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.arms:reward(e.user, e.item, math.min(1, e.value)) end
  end,
}
