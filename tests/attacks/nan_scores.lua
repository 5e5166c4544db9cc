-- Scores that are no numbers.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Good until 17 items are asked for: then its scores are not a number.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    if request.n ~= 17 then return model:recall(request, slate) end
    model:recall(request, slate)
    local nan = 0 / 0
    for i = 1, #slate do slate.score[i] = nan end
  end,
}
