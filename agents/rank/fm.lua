-- Logistic regression plus every pair of features, through low-rank vectors.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "fm", role = "rank",
  about = "Factorisation machine over recall scores and feature columns.",
  references = { "Rendle: Factorization machines, ICDM 2010" },
  space = {
    n_dims         = space.logint(2, 64, 8),
    epochs         = space.logint(1, 100, 5),
    learning_rate  = space.log(0.001, 1, 0.02),
    regularization = space.log(1e-6, 100, 0.01),
    frequency_power = space.linear(0, 1, 1), -- 1: a token is held back by each of its rows; 0: by a fixed amount, the rare ones most
    negatives_per_positive = space.log(1, 100, 20),
    use_features   = space.bool(true), -- feature columns of user and item, beside the recall scores
    use_ids        = space.choice { "clicks", "always", "never", default = "clicks" }, -- who and what itself; "clicks": where no recall scores tell
  },
}
