-- A factorisation machine and a deep net over the same vectors, added: pairs of features by their product, the rest by the net.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "deep_fm", role = "rank",
  about = "Factorisation machine plus a deep net on shared vectors (DeepFM).",
  references = { "Guo, Tang, Ye, Li, He: DeepFM: a factorization-machine based neural network for CTR prediction, IJCAI 2017" },
  space = {
    n_dims   = space.logint(2, 64, 8),
    hidden   = space.logint(8, 1024, 128),
    layers   = space.int(1, 4, 1),
    dropout  = space.linear(0, 0.9, 0.3),
    field_dropout = space.linear(0, 0.9, 0.26), -- of a row's tokens: who and what is new is then nothing new
    rate     = space.log(1e-5, 0.05, 6e-3),
    l2       = space.log(1e-8, 0.1, 4e-4),     -- weight decay of all parameters
    epochs   = space.int(1, 100, 12),
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
    local sizes = { f.width }
    for _ = 1, knobs.layers do sizes[#sizes + 1] = knobs.hidden end
    sizes[#sizes + 1] = 1
    local deep = nn.mlp(net, sizes, { dropout = knobs.dropout, name = "deep" })
    local logit = f.linear() + f.pairs() + deep(f.flat):reshape(-1)
    return nn.train {
      data = data, net = net, batches = b, loss = nn.loss.log_loss()(logit, b.label),
      optimiser = scheme.optimiser, schedule = scheme.schedule, epochs = knobs.epochs,
      model = function() return data:network { logit = logit, batches = b } end,
    }
  end,
}
