-- A click model over recall scores and features: the simplest ranker, and hard to beat by accident.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "logistic", role = "rank",
  about = "Logistic regression over recall scores and feature columns.",
  references = { "McMahan et al.: Ad click prediction: a view from the trenches, KDD 2013" },
  space = {
    epochs         = space.int(1, 30, 5),
    learning_rate  = space.log(0.001, 1, 0.02),
    regularization = space.log(1e-8, 0.1, 1e-5),
    negatives_per_positive = space.log(1, 100, 20),
    use_features   = space.bool(true), -- feature columns of user and item, beside the recall scores
    use_ids        = space.choice { "clicks", "always", "never", default = "clicks" }, -- who and what itself; "clicks": where no recall scores tell
  },
}
