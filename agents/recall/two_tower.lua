-- Users and items from their ids and their features, each by a small net of its own. Ids are dropped in a share of the rows, so
-- that features learn to stand alone: who is new is placed by them.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "two_tower", role = "recall",
  about = "Ids and features of users and items through two small nets; serves new items and users.",
  references = {
    "Covington, Adams, Sargin: Deep neural networks for YouTube recommendations, RecSys 2016",
    "Yi et al.: Sampling-bias-corrected neural modeling for large corpus item recommendations, RecSys 2019",
    "Volkovs, Yu, Poutanen: DropoutNet: addressing cold start in recommender systems, NIPS 2017",
  },
  space = {
    n_dims     = space.logint(8, 512, 64),
    hidden     = space.logint(8, 1024, 128),
    dropout    = space.linear(0, 0.9, 0.1),   -- of the nets' hidden numbers
    id_dropout = space.linear(0, 0.9, 0.2),   -- share of rows without their ids
    rate       = space.log(1e-5, 0.05, 2e-3),
    l2         = space.log(1e-7, 1, 1e-4),    -- on the vectors that a batch touches
    size       = space.logint(128, 65536, 1024), -- pairs a batch
    epochs     = space.int(1, 500, 40),       -- at most: the best on pairs held out of the training data is kept
    loss       = space.choice { "sampled_softmax", "in_batch_softmax", "bpr", "bce" },
    negatives  = space.logint(1, 4096, 256),  -- of a batch
    power      = space.linear(0, 1, 0.5),     -- of popularity, in drawing negatives: 0 is uniform
    use_features = space.bool(true),
    -- Over nn and the other knobs: what is minimised, on which negatives, how steps are taken.
    scheme = space.program [[{
  loss = nn.loss[loss](),
  sampler = loss ~= "in_batch_softmax" and nn.sampler.popularity(negatives, { power = power, shared = true }) or nil,
  optimiser = nn.adam { rate = rate },
  schedule = nn.schedule.warm_up(0.02, nn.schedule.cosine { floor = 0.05 }),
  regulariser = nn.regulariser.l2(l2),
}]],
  },

  fit = function(knobs, data)
    local scheme = nn.scheme(knobs, { nn = nn })
    local train, held = nn.holdout(data, { share = 0.1, users = 2000 })
    local net, d = nn.net { data = data }, knobs.n_dims

    -- A vector of one's own, where one is known, plus the sum of the features' vectors, bent by a net.
    local function tower(side, n)
      local own = net:parameter(side, { n, d }, { init = "normal", scale = 0.05 })
      local features = knobs.use_features and net:features(data, side) or nil
      local weights = features and net:parameter(side .. ".features", { features:shape()[2], d }, { init = "normal", scale = 0.05 })
      local bend = nn.mlp(net, { d, knobs.hidden, d }, { dropout = knobs.dropout, name = side .. ".net" })
      return function(ids, b, word)
        local x = own[b[word .. "_known"]]
        if features then x = x + features:bag(weights, ids) end
        local shape = x:shape()
        local flat = #shape == 3 and x:reshape(-1, d) or x
        local y = flat + bend(flat)
        return #shape == 3 and y:reshape(-1, shape[2], d) or y
      end
    end
    local user, item = tower("user", data:n_users()), tower("item", data:n_items())
    local m = nn.match {
      net = net, data = train, user = user, item = item, size = knobs.size, scheme = scheme,
      draw = { id_dropout = knobs.id_dropout, known_only = true }, -- a new item has done nothing wrong
    }
    local b = m.batches
    local users, items = user(b.user, b, "user"), item(b.item, b, "item")
    return nn.train {
      data = data, net = net, batches = b, loss = m.loss, scheme = scheme,
      epochs = knobs.epochs, held = held, known = train,
      model = function() return data:vectors { user = users, item = items, batches = b, cold = true, cosine = m.cosine } end,
    }
  end,
}
