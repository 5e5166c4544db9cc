-- No kind of item may fill the slate: a cap for each value of a feature.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "quota", role = "rerank",
  about = "At most `cap` items of the slate share a feature value.",
  references = { "Steck: Calibrated recommendations, RecSys 2018 (the aim); caps as in most hand-made pipelines" },
  space = { cap = space.int(1, 20, 8) },
  act = function(_, request, slate, ctx)
    if ctx.feature then slate:quota(ctx.data, { column = ctx.feature, cap = ctx.knobs.cap, n = request.n }) end
  end,
}
