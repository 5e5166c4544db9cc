-- Items that gain interactions faster than their past suggests; live clicks count at once.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "rising", role = "recall",
  about = "More interactions lately than ever before.",
  space = {
    window_days = space.log(1, 365, 30),
    prior       = space.log(0.1, 100, 20), -- interactions an unknown item is credited with
  },
  state = { clicks = "items" },
  fit = function(knobs, data)
    local lately = data:item_counts { window_days = knobs.window_days }
    return data:item_scores(lately / (data:item_counts() + knobs.prior))
  end,
  act = function(model, request, slate, ctx)
    local scores = model:item_scores()
    if ctx.state then scores:add(ctx.state.clicks:vector()) end
    request:top(scores, slate)
  end,
  learn = function(state, events)
    for _, event in ipairs(events) do state.clicks:add(event.item, event.value, 0.999) end
  end,
}
