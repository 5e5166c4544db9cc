-- A training scheme to play with: change a line, run it again.
local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"

return agent {
  name = "scheme", role = "recall",
  about = "Vectors for users and items, trained as it says here.",
  space = {
    n_dims = space.logint(8, 128, 32),
    rate   = space.log(1e-3, 0.1, 0.01),
  },
  fit = function(knobs, data)
    local train, held = nn.holdout(data, { share = 0.1, users = 1000 })
    local net = nn.net { data = data }

    -- The architecture: what stands for a user, and for an item.
    local user = net:parameter("user", { data:n_users(), knobs.n_dims }, { init = "normal", scale = 0.1 })
    local item = net:parameter("item", { data:n_items(), knobs.n_dims }, { init = "normal", scale = 0.1 })

    -- The sampler: 512 pairs a step, each with 8 items that its user does not have.
    local batch = net:pairs(train, { size = 512, negatives = 8, sampler = "popularity", power = 0.5 })
    local u, i, j = user[batch.user], item[batch.item], item[batch.negative]

    -- The loss: what the user has should score above what he does not have.
    local loss = nn.loss.bpr()(u:dot(i), u:dot(j)) + nn.regulariser.l2(0.01)(u, i, j)

    return nn.train {
      data = data, net = net, batches = batch, loss = loss, optimiser = nn.adam { rate = knobs.rate },
      epochs = 40, held = held, known = train, patience = 4,
      model = function() return data:vectors { user = user, item = item } end,
    }
  end,
}
