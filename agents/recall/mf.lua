-- Matrix factorisation by gradients, with any loss and any sampler. How it is trained is one text, its scheme, that evolution may
-- rewrite as a whole.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "mf", role = "recall",
  about = "User and item vectors, trained by a scheme that evolves.",
  references = {
    "Rendle, Freudenthaler, Gantner, Schmidt-Thieme: BPR: Bayesian personalized ranking from implicit feedback, UAI 2009",
    "Rendle, Krichene, Zhang, Anderson: Neural collaborative filtering vs. matrix factorization revisited, RecSys 2020",
  },
  space = {
    n_dims    = space.logint(8, 512, 64),
    rate      = space.log(1e-4, 0.1, 0.005),
    l2        = space.log(1e-7, 1, 0.1),       -- on the vectors that a batch touches
    epochs    = space.int(1, 500, 60),         -- at most: the best on pairs held out of the training data is kept
    size      = space.logint(128, 65536, 1024), -- pairs a batch
    init      = space.log(1e-4, 1, 0.01),      -- standard deviation of the first vectors
    loss      = space.choice { "bce", "bpr", "hinge", "cosine_contrastive", "sampled_softmax", "full_softmax", "in_batch_softmax",
      default = "sampled_softmax" },
    negatives = space.logint(1, 1024, 256),
    power     = space.linear(0, 1, 0.5),       -- of popularity, in drawing negatives: 0 is uniform
    -- Over nn and the other knobs: what is minimised, on which negatives, how steps are taken.
    scheme = space.program [[{
  loss = nn.loss[loss](),
  sampler = loss ~= "full_softmax" and loss ~= "in_batch_softmax" and nn.sampler.popularity(negatives, { power = power, shared = negatives > 16 }) or nil,
  optimiser = nn.adam { rate = rate },
  schedule = nn.schedule.warm_up(0.02, nn.schedule.cosine { floor = 0.05 }),
  regulariser = nn.regulariser.l2(l2),
}]],
  },

  fit = function(knobs, data)
    local scheme = nn.scheme(knobs, { nn = nn })
    local train, held = nn.holdout(data, { share = 0.1, users = 2000 })
    local net = nn.net { data = data }
    local user = net:parameter("user", { data:n_users(), knobs.n_dims }, { init = "normal", scale = knobs.init })
    local item = net:parameter("item", { data:n_items(), knobs.n_dims }, { init = "normal", scale = knobs.init })
    local bias = net:parameter("bias", { data:n_items() })
    local m = nn.match {
      net = net, data = train, user = user, item = item, bias = bias, size = knobs.size, scheme = scheme,
    }
    return nn.train {
      data = data, net = net, batches = m.batches, loss = m.loss, scheme = scheme,
      epochs = knobs.epochs, held = held, known = train,
      model = function() return data:vectors { user = user, item = item, bias = bias, cosine = m.cosine } end,
    }
  end,
}
