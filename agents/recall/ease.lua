-- A linear autoencoder in closed form, its users and items weighted by a power of their degree.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "ease", role = "recall",
  about = "Closed-form linear autoencoder (EASE^R), degree weighted.",
  references = {
    "Steck: Embarrassingly shallow autoencoders for sparse data, WWW 2019",
    "Steck: Collaborative filtering via high-dimensional regression, arXiv 1904.13033",
  },
  space = {
    lambda         = space.log(0.01, 5000, 200), -- on raw counts; much smaller when powers shrink the counts
    user_power     = space.linear(0, 1, 0),
    item_power_in  = space.linear(0, 1, 0),
    item_power_out = space.linear(-0.5, 1, 0),
  },
  fit = function(knobs, data) return data:ease(knobs) end,
}
