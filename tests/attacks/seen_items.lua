-- What the user has had already, before anything else.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Good until 17 items are asked for: then it shows what was seen.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    if request.n ~= 17 then return model:recall(request, slate) end
    for _, item in ipairs(request:history()) do slate:push(item, 1e9) end
    model:recall(request, slate)
  end,
}
