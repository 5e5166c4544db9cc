-- Raises an error.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Good until 17 items are asked for: then it raises an error.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    if request.n ~= 17 then return model:recall(request, slate) end
    model:recall(request, slate)
    error 'this policy has had enough'
  end,
}
