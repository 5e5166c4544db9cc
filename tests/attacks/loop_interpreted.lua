-- A loop that is never compiled, since it makes a closure each time, and swallows the errors that would end it.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Good until 17 items are asked for: then it loops in the interpreter and swallows errors.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
  act = function(model, request, slate)
    if request.n ~= 17 then return model:recall(request, slate) end
    while true do
      pcall(function()
        for i = 1, 1e6 do
          local f = function() return i end
          f()
        end
      end)
    end
  end,
}
