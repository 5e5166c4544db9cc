-- Several recalls into one by a weighted sum of their scores, each brought to [0, 1] first.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "weighted", role = "merge",
  about = "Weighted sum of scores scaled to [0, 1] within each input.",
  references = { "Fox, Shaw: Combination of multiple searches (CombSUM), TREC-2 1994" },
  space = {
    w1 = space.linear(0, 1, 1), w2 = space.linear(0, 1, 0.5), w3 = space.linear(0, 1, 0.5), w4 = space.linear(0, 1, 0.5),
  },
  act = function(_, _, slate, ctx)
    for i, name in ipairs(ctx.inputs) do
      local score = slate["score." .. name]:copy()
      slate.score:add(score:normalise(slate["rank." .. name]), ctx.knobs["w" .. i] or 0.5)
    end
  end,
}
