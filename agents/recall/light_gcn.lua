-- Vectors spread over the graph of who has what: a user is the mean of his own vector and of what 1, 2, … steps away says.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

-- Every user's and item's vectors after 0 … layers steps of A, averaged (He et al. 2020, equations 7 and 8).
local function propagate(graph, user, item, layers)
  local users, items = { user }, { item }
  for k = 1, layers do
    users[k + 1], items[k + 1] = graph:spmm(items[k]), graph:spmm(users[k], true)
  end
  return nn.mean_of(users), nn.mean_of(items)
end

return agent {
  name = "light_gcn", role = "recall",
  about = "Vectors propagated over the user-item graph (LightGCN).",
  references = {
    "He, Deng, Wang, Li, Zhang, Wang: LightGCN: Simplifying and powering graph convolution network for recommendation, SIGIR 2020",
    "Wu, Wang, Gao, Chen, Fu, Qiu: On the effectiveness of sampled softmax loss for item recommendation, TOIS 2024",
  },
  space = {
    n_dims    = space.logint(8, 512, 64),
    layers    = space.int(1, 4, 3),
    rate      = space.log(1e-4, 0.1, 0.005),
    l2        = space.log(1e-9, 1, 1e-4),      -- on the vectors before propagation, of those in a batch
    epochs    = space.int(1, 1000, 100),        -- at most: the best on pairs held out of the training data is kept
    size      = space.logint(512, 65536, 8192), -- pairs a batch: large, since each step propagates the whole graph; but 40 steps an epoch
    init      = space.log(1e-4, 1, 0.1),
    loss      = space.choice { "bpr", "bce", "cosine_contrastive", "sampled_softmax", "in_batch_softmax", default = "bpr" },
    temperature = space.log(0.02, 1, 0.1),     -- of the softmax
    negatives = space.logint(1, 4096, 4),
    power     = space.linear(0, 1, 0),         -- of popularity, in drawing negatives: 0 is uniform
    -- The softmax is learnt on cosines (Wu et al. 2022) and served as dot products: popularity, which drawing negatives by it takes
    -- out of the directions, comes back as the vectors' lengths.
    scheme = space.program [[{
  loss = loss == "sampled_softmax" and nn.loss.sampled_softmax { temperature = temperature, log_q = false } or nn.loss[loss](),
  cosine = loss == "sampled_softmax" or nil,
  served_as_cosine = loss == "cosine_contrastive",
  sampler = loss ~= "in_batch_softmax" and nn.sampler.popularity(negatives, { power = power, shared = negatives > 16 }) or nil,
  optimiser = nn.adam { rate = rate },
  schedule = loss == "sampled_softmax" and nn.schedule.cosine { floor = 0.05 } or nn.schedule.constant(),
  regulariser = nn.regulariser.l2(l2),
}]],
  },

  fit = function(knobs, data)
    local scheme = nn.scheme(knobs, { nn = nn })
    local train, held = nn.holdout(data, { share = 0.05, users = 5000 })
    local net = nn.net { data = data }
    local user = net:parameter("user", { data:n_users(), knobs.n_dims }, { init = "normal", scale = knobs.init })
    local item = net:parameter("item", { data:n_items(), knobs.n_dims }, { init = "normal", scale = knobs.init })
    local users, items = propagate(net:interactions(train, { user_power = 0.5, item_power = 0.5 }), user, item, knobs.layers)
    local m = nn.match {
      net = net, data = train, user = users, item = items, size = math.min(knobs.size, math.ceil(train:n_interactions() / 40)),
      scheme = scheme, regularised = { user = user, item = item },
    }
    return nn.train {
      data = data, net = net, batches = m.batches, loss = m.loss, scheme = scheme,
      epochs = knobs.epochs, held = held, known = train, patience = 10,
      model = function() return data:vectors { user = users, item = items, cosine = scheme.served_as_cosine } end,
    }
  end,
}
