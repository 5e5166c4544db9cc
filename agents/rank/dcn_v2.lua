-- Features crossed explicitly, a degree more with each layer, beside a network.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "dcn_v2", role = "rank",
  about = "Cross layers and a network side by side (DCN-V2).",
  references = { "Wang, Shivanna, Cheng, Jain, Lin, Hong, Chi: DCN V2: Improved deep & cross network and practical lessons for web-scale learning to rank systems, WWW 2021" },
  space = {
    n_dims   = space.logint(2, 64, 16),
    crosses  = space.int(1, 4, 2),
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
    local parts = nn.features(net, rows, knobs.n_dims)
    local x0 = parts.flat:dropout(knobs.dropout)
    local x, width = x0, parts.width
    for _ = 1, knobs.crosses do x = x0 * nn.linear(net, width, width, { name = "cross" })(x) + x end -- equation 1
    local sizes = { width }
    for layer = 1, knobs.layers do sizes[layer + 1] = knobs.hidden end
    local deep = nn.mlp(net, sizes, { dropout = knobs.dropout, last = "relu" })(x0)
    local logit = nn.linear(net, width + knobs.hidden, 1, { name = "out" })(nn.concat({ x, deep }, 2))
    return nn.train {
      data = data, net = net, batches = rows, loss = nn.loss.log_loss()(logit:reshape(-1), rows.label),
      optimiser = nn.adam { rate = knobs.rate, weight_decay = knobs.decay }, epochs = knobs.epochs,
      model = function() return data:network { logit = logit, batches = rows } end,
    }
  end,
}
