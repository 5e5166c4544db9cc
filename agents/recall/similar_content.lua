-- Items with the same features as what you have; knows an item before anybody touched it.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "similar_content", role = "recall",
  about = "Content neighbours over the items' tokens; serves cold items.",
  references = { "Salton, Buckley: Term-weighting approaches in automatic text retrieval, 1988" },
  space = {
    neighbours = space.logint(10, 1000, 200),
    idf_power  = space.linear(0, 2, 1),
    half_life  = space.log(1, 200, 20), -- steps of history: the last things count most
  },
  fit = function(knobs, data) return data:content(knobs) end,
}
