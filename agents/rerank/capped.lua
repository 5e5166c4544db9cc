-- No kind of item may fill the slate, the kinds being clusters that the ranker left as a column: where the data name none.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "capped", role = "rerank",
  about = "At most `cap` items of the slate are of one cluster.",
  references = { "Steck: Calibrated recommendations, RecSys 2018 (the aim); caps as in most hand-made pipelines" },
  space = { cap = space.int(1, 50, 10) },
  act = function(_, request, slate, ctx)
    if slate.cluster then slate:cap { column = "cluster", cap = ctx.knobs.cap, n = request.n } end
  end,
}
