-- Layers that multiply what they get by the features once more, beside a deep net: crosses of bounded degree, learnt.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "dcn_v2", role = "rank",
  about = "Deep & cross network: explicit crosses of features beside a deep net (DCN-V2).",
  references = { "Wang, Shivanna, Cheng, Jain, Lin, Hong, Chi: DCN V2: improved deep & cross network, WWW 2021" },
  space = {
    n_dims   = space.logint(2, 64, 8),
    crosses  = space.int(1, 5, 1),
    rank     = space.logint(1, 256, 16),       -- of the crosses' matrices: x₀ ⊙ (U V x + b) + x
    hidden   = space.logint(8, 1024, 128),
    layers   = space.int(1, 4, 2),
    dropout  = space.linear(0, 0.9, 0.16),
    field_dropout = space.linear(0, 0.9, 0.32), -- of a row's tokens: who and what is new is then nothing new
    structure = space.choice { "parallel", "stacked" },
    rate     = space.log(1e-5, 0.05, 0.001),
    l2       = space.log(1e-8, 0.1, 0.0002),     -- weight decay of all parameters
    epochs   = space.int(1, 100, 8),
    size     = space.logint(64, 16384, 1024),   -- rows a batch
    negatives_per_positive = space.log(1, 100, 20),
    use_features = space.bool(true), -- feature columns of user and item, beside the recall scores
    use_ids  = space.choice { "clicks", "always", "never", default = "clicks" }, -- who and what itself; "clicks": where no recall scores tell
    -- Over nn and the other knobs: how steps are taken.
    scheme = space.program [[{
  optimiser = nn.adam { rate = rate, weight_decay = l2 },
  schedule = nn.schedule.warm_up(0.05, nn.schedule.cosine { floor = 0.05 }),
}]],
  },

  fit = function(knobs, data)
    local values = { nn = nn }
    for name, value in pairs(knobs) do values[name] = value end
    local scheme = knobs.scheme(values)
    local net = nn.net { data = data }
    local b = net:rows(data, {
      size = knobs.size, negatives_per_positive = knobs.negatives_per_positive, use_features = knobs.use_features, use_ids = knobs.use_ids,
    })
    local f = nn.fields(net, b, knobs.n_dims, { dropout = knobs.field_dropout })
    local crossed, rank = f.flat, math.min(knobs.rank, f.width)
    for i = 1, knobs.crosses do
      local name = "cross" .. i
      local down, up = nn.linear(net, f.width, rank, { bias = false, name = name .. ".v" }), nn.linear(net, rank, f.width, { name = name .. ".u" })
      crossed = f.flat * up(down(crossed)) + crossed
    end
    local sizes = { f.width }
    for _ = 1, knobs.layers do sizes[#sizes + 1] = knobs.hidden end
    local deep = nn.mlp(net, sizes, { dropout = knobs.dropout, last = "relu", name = "deep" })
    local both = knobs.structure == "parallel" and crossed:concat(deep(f.flat), 2) or deep(crossed)
    local logit = nn.linear(net, both:shape()[2], 1, { name = "out" })(both):reshape(-1)
    return nn.train {
      data = data, net = net, batches = b, loss = nn.loss.log_loss()(logit, b.label),
      optimiser = scheme.optimiser, schedule = scheme.schedule, epochs = knobs.epochs,
      model = function() return data:network { logit = logit, batches = b } end,
    }
  end,
}
