-- What is served before and after an attack.
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "The most popular items.",
  fit = function(_, data) return data:item_scores(data:item_counts()) end,
}
