-- A recurrent net over what somebody had, in order: the next item. Item vectors are tied: the same before and after the net.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

-- TOP1 (Hidasi et al. 2016): mean σ(s⁻ − s⁺) + σ(s⁻²).
local function top1(positive, negative)
  return ((negative - positive:reshape(-1, 1)):sigmoid() + negative:square():sigmoid()):mean()
end

return agent {
  name = "gru4rec", role = "recall",
  about = "The next item, by gated recurrent units over the history.",
  references = {
    "Hidasi, Karatzoglou, Baltrunas, Tikk: Session-based recommendations with recurrent neural networks, ICLR 2016",
    "Hidasi, Karatzoglou: Recurrent neural networks with top-k gains for session-based recommendations, CIKM 2018",
  },
  space = {
    n_dims     = space.logint(16, 512, 64),
    layers     = space.int(1, 3, 1),
    max_length = space.logint(5, 500, 50),   -- of a history, what is read: the last so many
    dropout    = space.linear(0, 0.9, 0.4),
    rate       = space.log(1e-5, 0.05, 2e-3),
    decay      = space.log(1e-6, 1, 1e-4),   -- of weights
    size       = space.logint(16, 2048, 128), -- histories a batch
    epochs     = space.int(1, 500, 60),      -- at most: the best on items held out of the training data is kept
    patience   = space.int(1, 50, 6),
    loss       = space.choice { "full_softmax", "sampled_softmax", "bpr", "top1" }, -- bpr and top1: as published
    negatives  = space.logint(1, 4096, 256), -- of a batch, for all losses but the first
    power      = space.linear(0, 1, 1),      -- of popularity, in drawing them: 1 is what other rows of a batch are
    -- Over nn, top1 and the other knobs: what is minimised, on which negatives, how steps are taken.
    scheme = space.program [[{
  loss = loss == "top1" and top1 or nn.loss[loss](),
  sampler = loss ~= "full_softmax" and nn.sampler.popularity(negatives, { power = power, shared = true }) or nil,
  optimiser = nn.adamw { rate = rate, weight_decay = decay, clip_norm = 5 },
  schedule = nn.schedule.warm_up(0.02),
}]],
  },

  fit = function(knobs, data)
    local scheme = nn.scheme(knobs, { nn = nn, top1 = top1 })
    local train, held = nn.holdout(data, { share = 0.01, users = 2000 }) -- one item of each
    local net, d = nn.net { data = data }, knobs.n_dims
    local item = net:parameter("item", { data:n_items(), d }, { init = "normal", scale = 0.1 })
    local bias = net:parameter("bias", { data:n_items() })
    local drop, layers = nn.dropout(knobs.dropout), {}
    for i = 1, knobs.layers do layers[i] = nn.gru(net, d, d) end
    local m = nn.next_item {
      net = net, data = train, item = item, bias = bias, scheme = scheme,
      size = knobs.size, max_length = knobs.max_length,
      encode = function(b)
        local x = item[b.item]
        for _, layer in ipairs(layers) do x = layer(drop(x), b.length) end
        return drop(x)
      end,
    }
    return nn.train {
      data = data, net = net, batches = m.batches, loss = m.loss, scheme = scheme,
      epochs = knobs.epochs, held = held, known = train, metric = "ndcg@10", patience = knobs.patience,
      model = function() return data:encoder { query = m.query, item = item, bias = bias, batches = m.batches } end,
    }
  end,
}
