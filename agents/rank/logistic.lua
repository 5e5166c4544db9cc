-- A click model over recall scores and features: the simplest ranker, and hard to beat by accident.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "logistic", role = "rank",
  about = "Logistic regression over recall scores and feature columns.",
  references = { "McMahan et al.: Ad click prediction: a view from the trenches, KDD 2013" },
  space = {
    epochs         = space.logint(1, 100, 5),
    learning_rate  = space.log(0.001, 1, 0.02),
    regularization = space.log(1e-8, 100, 1e-5),
    frequency_power = space.linear(0, 1, 1), -- 1: a token is held back by each of its rows; 0: by a fixed amount, the rare ones most
    negatives_per_positive = space.log(1, 100, 20),
    use_features   = space.bool(true), -- feature columns of user and item, beside the recall scores
    use_ids        = space.choice { "clicks", "always", "never", default = "clicks" }, -- who and what itself; "clicks": where no recall scores tell
  },
}
