-- A net learns from the past what users and items are like; a linear model over that learns from live rewards, and knows what it
-- does not know.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

local DIMS = 16 -- the net's: the linear model sees the item's vector, its product with the user's, and 1

return agent {
  name = "neural_linear", role = "explore",
  about = "Thompson sampling of a linear model over the vectors that a net has learnt.",
  references = { "Riquelme, Tucker, Snoek: Deep Bayesian bandits showdown, ICLR 2018" },
  space = {
    rate   = space.log(1e-4, 0.1, 0.005),
    epochs = space.int(1, 100, 10),
    pool   = space.logint(1, 1000, 50),
    scale  = space.log(0.01, 10, 0.3),     -- of the posterior's deviation
    ridge  = space.log(0.01, 100, 1),
    decay  = space.linear(0.99, 1, 1),
    draws  = space.logint(16, 4096, 128),
  },
  fit_knobs = { "rate", "epochs" },
  state = { model = { kind = "linear", n_dims = 2 * DIMS + 1, ridge = "ridge", decay = "decay" } },

  fit = function(knobs, data)
    local train, held = nn.holdout(data, { share = 0.1, users = 2000 })
    local net = nn.net { data = data }
    local user = net:parameter("user", { data:n_users(), DIMS }, { init = "normal", scale = 0.01 })
    local item = net:parameter("item", { data:n_items(), DIMS }, { init = "normal", scale = 0.01 })
    local m = nn.match { net = net, data = train, user = user, item = item, size = 1024, loss = nn.loss.sampled_softmax(),
      sampler = nn.sampler.popularity(64, { power = 0.5, shared = true }) }
    return nn.train { data = data, net = net, batches = m.batches, loss = m.loss, optimiser = nn.adam { rate = knobs.rate }, epochs = knobs.epochs,
      held = held, known = train, model = function() return data:vectors { user = user, item = item } end }
  end,

  act = function(model, request, slate, ctx)
    if not ctx.state then return end
    local knobs = ctx.knobs
    slate:truncate(math.max(request.n, knobs.pool))
    ctx.state.model:choose(slate, { rule = "thompson", alpha = knobs.scale, draws = knobs.draws, model = model, request = request, k = request.n,
      user = request.user })
  end,

  learn = function(state, events)
    for _, e in ipairs(events) do state.model:reward(e.user, e.item, e.value) end
  end,
}
