-- A factorisation machine and layers of neurons over the same vectors: pairs of features, and whatever else there is in them.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "deep_fm", role = "rank",
  about = "Factorisation machine and a network that share their embeddings (DeepFM).",
  references = { "Guo, Tang, Ye, Li, He: DeepFM: A factorization-machine based neural network for CTR prediction, IJCAI 2017" },
  space = {
    n_dims   = space.logint(2, 64, 16),
    hidden   = space.logint(8, 512, 64),
    layers   = space.int(1, 4, 2),
    dropout  = space.linear(0, 0.8, 0.3),
    epochs   = space.int(1, 50, 8),
    rate     = space.log(1e-4, 0.1, 0.002),
    decay    = space.log(1e-7, 0.1, 1e-3),  -- of weights, and of the vectors that a step touches
    size     = space.logint(64, 8192, 512), -- rows a step
    negatives_per_positive = space.log(1, 100, 20),
    use_features = space.bool(true), -- feature columns of user and item, beside the recall scores
    use_ids      = space.choice { "clicks", "always", "never", default = "clicks" }, -- who and what itself; "clicks": where no recall scores tell
  },

  fit = function(knobs, data)
    local net = nn.net { data = data }
    local rows = net:rows(data, {
      size = knobs.size, negatives_per_positive = knobs.negatives_per_positive, use_features = knobs.use_features, use_ids = knobs.use_ids,
    })
    local parts, bias = nn.features(net, rows, knobs.n_dims, { linear = true }), net:parameter("bias", { 1 }, { decay = 0 })
    local sum = parts.vectors:sum(2)
    local pairs = (sum:square() - parts.vectors:square():sum(2)):sum(2, true) * 0.5
    local sizes = { parts.width }
    for layer = 1, knobs.layers do sizes[layer + 1] = knobs.hidden end
    sizes[#sizes + 1] = 1
    local deep = nn.mlp(net, sizes, { dropout = knobs.dropout })(parts.flat:dropout(knobs.dropout))
    local logit = parts.linear + pairs + deep + bias
    return nn.train {
      data = data, net = net, batches = rows, loss = nn.loss.log_loss()(logit:reshape(-1), rows.label),
      optimiser = nn.adam { rate = knobs.rate, weight_decay = knobs.decay }, epochs = knobs.epochs,
      model = function() return data:network { logit = logit, batches = rows } end,
    }
  end,
}
