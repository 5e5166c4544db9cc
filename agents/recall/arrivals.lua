-- What was put while serving and no model knows yet; newest first. An evaluation has no such items, so there it proposes nothing, and
-- evolution cannot tell what its knobs are worth.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "arrivals", role = "recall",
  about = "Items put into the catalogue since the data were imported, newest first.",
  space = {
    half_life_hours = space.log(0.1, 8760, 24), -- of the score: 1 when an item is put, a half after this time
  },

  act = function(_, request, slate, ctx)
    request:arrivals(slate, 3600 * ctx.knobs.half_life_hours)
  end,
}
