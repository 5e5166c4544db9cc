-- Allocates without end outside the Lua heap: vectors are C's.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Good until 17 items are asked for: then it makes vectors without end.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    if request.n ~= 17 then return model:recall(request, slate) end
    local kept = {}
    for i = 1, 1e9 do
      kept[i] = model:item_scores() * i
      if kept[i][1] ~= kept[i][1] then kept = {} end
    end
  end,
}
