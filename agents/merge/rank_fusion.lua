-- Several recalls into one by where each puts an item, whatever their scores mean.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "rank_fusion", role = "merge",
  about = "Reciprocal rank fusion: Σ weight / (k + rank).",
  references = { "Cormack, Clarke, Büttcher: Reciprocal rank fusion outperforms Condorcet, SIGIR 2009" },
  space = {
    k  = space.log(1, 500, 60),
    w1 = space.linear(0, 1, 1), w2 = space.linear(0, 1, 1), w3 = space.linear(0, 1, 1), w4 = space.linear(0, 1, 1),
  },
  act = function(_, _, slate, ctx)
    for i, name in ipairs(ctx.inputs) do
      local rank = slate["rank." .. name]
      slate.score:add(rank:gt(0) / (rank + ctx.knobs.k), ctx.knobs["w" .. i] or 1)
    end
  end,
}
