-- Many small trees, each mending what those before it got wrong: strong on features of every kind, without scaling any.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "gbdt", role = "rank",
  about = "Gradient-boosted trees over recall scores and feature columns.",
  references = {
    "Friedman: Greedy function approximation: a gradient boosting machine, Annals of Statistics 2001",
    "Chen, Guestrin: XGBoost: a scalable tree boosting system, KDD 2016",
  },
  space = {
    n_trees          = space.logint(10, 1000, 100),
    learning_rate    = space.log(0.01, 1, 0.1),
    n_leaves         = space.logint(2, 256, 31),
    max_depth        = space.int(1, 16, 6),
    min_child_weight = space.log(0.1, 1000, 1),  -- least curvature in a leaf: about four rows a unit where chances are even
    l2               = space.log(0.01, 1000, 1),
    subsample        = space.linear(0.2, 1, 1),  -- of the rows, for each tree
    column_share     = space.linear(0.2, 1, 1),  -- of the columns, for each tree
    smoothing        = space.log(0.1, 1000, 10), -- rows of the overall mean that a token's own mean is mixed with
    negatives_per_positive = space.log(1, 100, 20),
    use_features     = space.bool(true), -- feature columns of user and item, beside the recall scores
    use_ids          = space.choice { "clicks", "always", "never", default = "clicks" }, -- who and what itself; "clicks": where no recall scores tell
  },
  fit = function(knobs, data) return data:gbdt(knobs) end,
}
