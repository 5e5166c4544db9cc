-- Allocates without end, in the Lua heap, and goes on when it is refused.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Good until 17 items are asked for: then it allocates without end.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    if request.n ~= 17 then return model:recall(request, slate) end
    local kept = {}
    while true do
      pcall(function()
        for i = 1, 1e6 do kept[#kept + 1] = { i, ('%d'):format(i) } end
      end)
    end
  end,
}
