-- Layers that multiply what they get by the features once more, beside or before a deep net: crosses of bounded degree, learnt.
-- The first begins as a factorisation machine: x₀ ⊙ W x₀ with W = 1 between every two fields sums to twice all pairs' products.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "dcn_v2", role = "rank",
  about = "Deep & cross network: explicit crosses of features and a deep net (DCN-V2).",
  references = { "Wang, Shivanna, Cheng, Jain, Lin, Hong, Chi: DCN V2: improved deep & cross network, WWW 2021" },
  space = {
    n_dims   = space.logint(2, 64, 32),
    crosses  = space.int(1, 5, 1),
    rank     = space.logint(1, 256, 16),       -- of what the crosses' matrices learn: x₀ ⊙ (W₀ x + U V x + b) + x, W₀ of the first alone
    hidden   = space.logint(4, 1024, 32),
    layers   = space.int(1, 4, 1),
    dropout  = space.linear(0, 0.9, 0.5),
    structure = space.choice { "stacked", "parallel" },
    field_dropout = space.linear(0, 0.9, 0.1), -- of a row's tokens: who and what is new is then nothing new
    l2       = space.log(1e-8, 10, 0.06),      -- of the vectors and weights of each row's features
    own_l2   = space.log(0.01, 100, 0.3),      -- what it counts for a user's own
    scale    = space.log(0.001, 1, 0.03),      -- of the vectors at the beginning
    rate     = space.log(1e-4, 1, 0.1),
    deep_rate = space.log(1e-4, 10, 0.01),     -- of all but the vectors, times that
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
      local crossed, slow, rank = f.flat, knobs.deep_rate, math.min(knobs.rank, f.width)
      for i = 1, knobs.crosses do
        local name = "cross" .. i
        local down = nn.linear(net, f.width, rank, { bias = false, rate = slow, name = name .. ".v" })
        local up = nn.linear(net, rank, f.width, { scale = 0, rate = slow, name = name .. ".u" })
        local by = up(down(crossed))
        crossed = f.flat * (i == 1 and by + f.others(crossed) or by) + crossed
      end
      local sizes = nn.sizes(f.width, knobs.hidden, knobs.layers)
      local deep = nn.mlp(net, sizes, { dropout = knobs.dropout, last = "relu", rate = slow, name = "deep" })
      local both = knobs.structure == "parallel" and crossed:concat(deep(f.flat), 2) or deep(crossed)
      local out = nn.linear(net, both:shape()[2], 1, { bias = false, scale = 0, rate = slow, name = "out" })
      return f.linear() + (crossed - f.flat):sum(2) * 0.5 + out(both):reshape(-1)
    end }
  end,
}
