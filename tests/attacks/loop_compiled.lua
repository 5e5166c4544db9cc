-- A loop that LuaJIT compiles: no count hook ever fires in it.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Good until 17 items are asked for: then it loops in compiled code.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    if request.n ~= 17 then return model:recall(request, slate) end
    local x = 0
    while true do x = (x + 1) % 1e9 end
  end,
}
