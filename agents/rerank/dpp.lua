-- A slate that is good and spread out at once: the likeliest of a determinantal point process, found greedily.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "dpp", role = "rerank",
  about = "Greedy MAP of a determinantal point process: θ Σ score + (1 − θ) log det of likeness.",
  references = { "Chen, Zhang, Zhou: Fast greedy MAP inference for determinantal point process to improve recommendation diversity, NeurIPS 2018" },
  space = {
    theta = space.linear(0, 0.99, 0.8), -- how much scores count against spread
    alike = space.linear(0, 1, 0.9),    -- likeness of two items with the same tokens; at 1 they never come together
  },
  act = function(_, request, slate, ctx)
    if not ctx.feature then return end
    slate:dpp(ctx.data, { column = ctx.feature, theta = ctx.knobs.theta, alike = ctx.knobs.alike, n = request.n })
  end,
}
