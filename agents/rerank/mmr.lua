-- Trades a little score for a slate whose items differ from each other.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "mmr", role = "rerank",
  about = "Maximal marginal relevance: λ score − (1 − λ) likeness to what is already chosen.",
  references = { "Carbonell, Goldstein: The use of MMR, SIGIR 1998" },
  space = { lambda = space.linear(0.3, 1, 0.8) },
  act = function(_, request, slate, ctx)
    if ctx.feature then slate:mmr(ctx.data, { column = ctx.feature, lambda = ctx.knobs.lambda, n = request.n }) end
  end,
}
