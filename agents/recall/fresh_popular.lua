-- Popular lately. How fast the past fades, and how rate and decay make a score, evolve.
local agent, space = require "evection.agent", require "evection.space"

local window_days = { day = 1, week = 7, month = 30, all = 0 }

return agent {
  name = "fresh_popular", role = "recall",
  about = "Popular lately, with a half-life that evolves.",
  references = { "Ji, Sun, Zhang, Li: A re-visit of the popularity baseline in recommender systems, SIGIR 2020" },
  space = {
    half_life_days = space.log(0.1, 365, 30),
    window         = space.choice { "day", "week", "month", "all", default = "all" },
    -- Over items: rate = interactions in the window, decay = how fresh they are on average, in (0, 1].
    score          = space.program "rate * decay",
    forget         = space.linear(0.9, 1, 0.999), -- what a live click keeps of the clicks before it
  },
  fit_knobs = { "half_life_days", "window", "score" },
  state = { clicks = "items" },

  fit = function(knobs, data)
    local days = window_days[knobs.window]
    local rate = data:item_counts { window_days = days }
    local faded = data:item_counts { window_days = days, half_life_days = knobs.half_life_days }
    return data:item_scores(knobs.score { rate = rate, decay = faded / rate:max_with(1) })
  end,

  act = function(model, request, slate, ctx)
    if not ctx.state then return model:recall(request, slate) end
    request:top(model:item_scores():add(ctx.state.clicks:vector()), slate)
  end,

  learn = function(state, events, ctx)
    for _, event in ipairs(events) do state.clicks:add(event.item, event.value, ctx.knobs.forget) end
  end,
}
