-- Its own evaluate praises what ruins the whole: the more noise it puts before the rest, the better it finds itself.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "boaster", role = "rerank",
  about = "Moves a share of the candidates to the front, from the end of the list.",
  space = { share = space.linear(0, 1, 0) },
  act = function(_, _, slate, ctx)
    local n = #slate
    for i = 1, math.floor(ctx.knobs.share * n) do slate.score[n + 1 - i] = 1e6 + i end
    slate:sort()
  end,
  evaluate = function(_, _, ctx) return 0.2 + 0.5 * ctx.knobs.share end,
}
