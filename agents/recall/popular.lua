-- The most interacted-with items, the same for everybody: the baseline, and what a stranger gets.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "popular", role = "recall",
  about = "The most popular items; live events count at once.",
  references = { "Cremonesi, Koren, Turrin: Performance of recommender algorithms on top-n tasks, RecSys 2010" },
  space = {
    live_weight = space.log(0.01, 100, 1), -- what a live event counts, in interactions of the training data
  },
  fit_knobs = {},
  state = { clicks = "items" },

  fit = function(_, data)
    return data:item_scores(data:item_counts())
  end,

  act = function(model, request, slate, ctx)
    if not ctx.state then return model:recall(request, slate) end
    request:top(model:item_scores():add(ctx.state.clicks:vector(), ctx.knobs.live_weight), slate)
  end,

  learn = function(state, events)
    for _, event in ipairs(events) do state.clicks:add(event.item, event.value) end
  end,
}
