-- Self-attention over what somebody had, in order: the next item. Item vectors are tied: the same before and after the blocks.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "sasrec", role = "recall",
  about = "The next item, by self-attention over the history.",
  references = {
    "Kang, McAuley: Self-attentive sequential recommendation, ICDM 2018",
    "Klenitskiy, Vasilev: Turning dross into gold loss: is BERT4Rec really better than SASRec?, RecSys 2023",
  },
  space = {
    n_dims     = space.logint(16, 512, 64),
    blocks     = space.int(1, 6, 2),
    heads      = space.choice { 1, 2, 4, default = 2 },
    max_length = space.logint(5, 500, 50),   -- of a history, what is read: the last so many
    dropout    = space.linear(0, 0.9, 0.5),
    rate       = space.log(1e-5, 0.02, 1e-3),
    decay      = space.log(1e-6, 1, 1e-4),   -- of weights
    size       = space.logint(16, 2048, 128), -- histories a batch
    epochs     = space.int(1, 500, 100),     -- at most: the best on items held out of the training data is kept
    patience   = space.int(1, 50, 8),
    position   = space.choice { "end", "start" }, -- counted from there; the end, as published, did no worse on what was tried
    loss       = space.choice { "full_softmax", "sampled_softmax", "bce" }, -- bce, one negative an item: as published
    negatives  = space.logint(1, 4096, 256), -- of sampled_softmax
    -- Over nn and the other knobs: what is minimised, on which negatives, how steps are taken.
    scheme = space.program [[{
  loss = nn.loss[loss](),
  sampler = loss == "sampled_softmax" and nn.sampler.popularity(negatives, { shared = true }) or loss == "bce" and nn.sampler.uniform(1) or nil,
  optimiser = nn.adamw { rate = rate, weight_decay = decay },
  schedule = nn.schedule.warm_up(0.02),
}]],
  },

  fit = function(knobs, data)
    local scheme = nn.scheme(knobs, { nn = nn })
    local train, held = nn.holdout(data, { share = 0.01, users = 2000 }) -- one item of each
    local net, d = nn.net { data = data }, knobs.n_dims
    local item = net:parameter("item", { data:n_items(), d }, { init = "normal", scale = 0.02 })
    local place = net:parameter("place", { knobs.max_length, d }, { init = "normal", scale = 0.02 })
    local drop, blocks, norm = nn.dropout(knobs.dropout), {}, nn.layer_norm(net, d)
    for i = 1, knobs.blocks do
      blocks[i] = nn.transformer(net, d, { heads = knobs.heads, hidden = d, dropout = knobs.dropout, activation = "relu", causal = true })
    end
    local m = nn.next_item {
      net = net, data = train, item = item, scheme = scheme,
      size = knobs.size, max_length = knobs.max_length, position = knobs.position,
      encode = function(b)
        local x = drop(item[b.item] * math.sqrt(d) + place[b.position])
        for _, block in ipairs(blocks) do x = block(x, b.length) end
        return norm(x)
      end,
    }
    return nn.train {
      data = data, net = net, batches = m.batches, loss = m.loss, scheme = scheme,
      epochs = knobs.epochs, held = held, known = train, metric = "ndcg@10", patience = knobs.patience,
      model = function() return data:encoder { query = m.query, item = item, batches = m.batches } end,
    }
  end,
}
