-- Each item explained by a few others: an elastic net for every item, learned from who has them together.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "slim", role = "recall",
  about = "Sparse linear item-to-item weights (SLIM) by coordinate descent.",
  references = {
    "Ning, Karypis: SLIM: Sparse linear methods for top-n recommender systems, ICDM 2011",
    "Friedman, Hastie, Tibshirani: Regularization paths for generalized linear models via coordinate descent, JSS 2010",
  },
  space = {
    l1          = space.log(0.01, 100, 2),      -- on raw counts: a pair of items must share more users than this
    l2          = space.log(0.1, 1000, 20),
    nonnegative = space.bool(true),
    candidates  = space.logint(50, 5000, 1000), -- nearest items by cosine that a model may use (fsSLIM)
    user_power  = space.linear(0, 0.5, 0),      -- how much less a user of long history says
  },
  fit = function(knobs, data) return data:slim(knobs) end,
}
