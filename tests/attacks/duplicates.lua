-- The same item in every place.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Good until 17 items are asked for: then every item is the same.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    if request.n ~= 17 then return model:recall(request, slate) end
    for i = 1, request.n do slate:push(1, -i) end
  end,
}
