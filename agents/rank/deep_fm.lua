-- A factorisation machine and a deep net over the same vectors, added: pairs of features by their product, the rest by the net,
-- which begins as nothing and learns slower.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "deep_fm", role = "rank",
  about = "Factorisation machine plus a deep net on shared vectors (DeepFM).",
  references = { "Guo, Tang, Ye, Li, He: DeepFM: a factorization-machine based neural network for CTR prediction, IJCAI 2017" },
  space = {
    n_dims   = space.logint(2, 64, 32),
    hidden   = space.logint(4, 1024, 32),
    layers   = space.int(1, 4, 1),
    dropout  = space.linear(0, 0.9, 0.5),
    field_dropout = space.linear(0, 0.9, 0.1), -- of a row's tokens: who and what is new is then nothing new
    l2       = space.log(1e-8, 10, 0.06),      -- of the vectors and weights of each row's features
    own_l2   = space.log(0.01, 100, 0.3),      -- what it counts for a user's own
    scale    = space.log(0.001, 1, 0.03),      -- of the vectors at the beginning
    rate     = space.log(1e-4, 1, 0.1),
    deep_rate = space.log(1e-4, 10, 0.03),     -- of the net, times that
    epochs   = space.int(1, 100, 12),
    held     = space.linear(0, 0.5, 0),        -- a share of the rows is not learnt from, but ends the training when it is told no better
    held_by  = space.choice { "rows", "slates" }, -- single rows, or all that a slate (of clicks: a user) has: those who are new
    patience = space.int(1, 20, 2),
    size     = space.logint(16, 16384, 128),   -- rows a batch
    negatives_per_positive = space.log(1, 100, 20),
    use_features = space.bool(true), -- feature columns of user and item, beside the recall scores
    use_ids  = space.choice { "clicks", "always", "never", default = "clicks" }, -- who and what itself; "clicks": where no recall scores tell
    -- Over nn and the other knobs: how steps are taken. Of a batch's mean, epsilon = 1 / size starts Adagrad as 1 does of single rows.
    scheme = space.program [[{
  optimiser = nn.adagrad { rate = rate, epsilon = 1 / size },
  schedule = nn.schedule.linear { floor = 0.3 },
}]],
  },

  fit = function(knobs, data)
    return nn.rank { data = data, knobs = knobs, scheme = nn.scheme(knobs, { nn = nn }), logit = function(net, f)
      local deep = nn.mlp(net, nn.sizes(f.width, knobs.hidden, knobs.layers, 1), { dropout = knobs.dropout, rate = knobs.deep_rate, begin = 0, name = "deep" })
      return f.linear() + f.pairs() + deep(f.flat):reshape(-1)
    end }
  end,
}
