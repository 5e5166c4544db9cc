-- A slate whose kinds of items come in the shares that the user's history has them in.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "calibrated", role = "rerank",
  about = "Calibration: (1 − λ) score − λ divergence of the slate's shares from the history's.",
  references = { "Steck: Calibrated recommendations, RecSys 2018" },
  space = {
    lambda = space.linear(0, 1, 0.5),
    alpha  = space.log(1e-4, 0.5, 0.01), -- how much of the history's shares is mixed into the slate's, so that none is 0
  },
  act = function(_, request, slate, ctx)
    if not ctx.feature then return end
    slate:calibrate(ctx.data, { column = ctx.feature, lambda = ctx.knobs.lambda, alpha = ctx.knobs.alpha, n = request.n }, request)
  end,
}
