-- Items drawn by the user's number: no user likes one more than another.
local agent = require "evection.agent"

return agent {
  name = "noise", role = "recall",
  about = "Random items.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    local scores = model:item_scores()
    local x = request.user * 7919 + 13
    for i = 1, #scores do
      x = x * 16807 % 2147483647
      scores[i] = x
    end
    request:top(scores, slate)
  end,
}
