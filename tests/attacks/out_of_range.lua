-- Items that there are not.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Good until 17 items are asked for: then its items do not exist.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    if request.n ~= 17 then return model:recall(request, slate) end
    for i = 1, request.n do slate:push(2 ^ 31 + i, -i) end
  end,
}
