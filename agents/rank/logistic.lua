-- A click model over recall scores and features: the simplest ranker, and hard to beat by accident.
local agent, space = require "evection.agent", require "evection.space"

-- Columns with more values than this say who somebody is, not what he is like.
local TOKENS_MAX = 5000

local function usable(columns)
  local names = {}
  for _, column in ipairs(columns) do
    if column.n_tokens <= TOKENS_MAX then names[#names + 1] = column.name end
  end
  return names
end

return agent {
  name = "logistic", role = "rank",
  about = "Logistic regression over recall scores and feature columns.",
  references = { "McMahan et al.: Ad click prediction: a view from the trenches, KDD 2013" },
  space = {
    epochs         = space.int(1, 30, 5),
    learning_rate  = space.log(0.001, 1, 0.05),
    regularization = space.log(1e-8, 0.1, 1e-5),
    negatives_per_positive = space.log(1, 100, 20),
    use_features   = space.bool(true), -- feature columns of user and item, beside the recall scores
  },
  fit = function(knobs, data)
    local features = knobs.use_features
    return data:ranker {
      n_dims = knobs.n_dims, epochs = knobs.epochs, learning_rate = knobs.learning_rate, regularization = knobs.regularization,
      negatives_per_positive = knobs.negatives_per_positive,
      user_columns = features and usable(data:columns "user") or nil,
      item_columns = features and usable(data:columns "item") or nil,
    }
  end,
}
