-- train.lua MODEL STEPS DATA - training steps a second of one of the models of tests/bench/train_torch.py; prints a number.
local native, nn, world = require "evection.native", require "evection.nn", require "evection.world"

local name, steps, data = arg[1], tonumber(arg[2]), arg[3]
local w = world.open(data)
local view = w:view(name == "sasrec" and native.TRAIN or native.TRAIN + native.VALID).data
local net = nn.net { seed = 1 }
local n_users, n_items, d = view:n_users(), view:n_items(), 64

local function softplus_mean(x) return x:softplus():mean() end

local models = {}

function models.mf()
  local batch = net:pairs(view, { size = 4096, negatives = 4, sampler = "uniform" })
  local user, item = net:parameter("user", { n_users, d }, { init = "normal", scale = 1 }), net:parameter("item", { n_items, d }, { init = "normal", scale = 1 })
  local u = user[batch.user]
  local positive, negative = u:dot(item[batch.item]), u:dot(item[batch.negative])
  return batch, softplus_mean(negative - positive:reshape(-1, 1))
end

function models.light_gcn()
  local batch = net:pairs(view, { size = 2048, negatives = 1, sampler = "uniform" })
  local graph = net:interactions(view, { user_power = 0.5, item_power = 0.5 })
  local user, item = net:parameter("user", { n_users, d }, { init = "normal", scale = 0.1 }), net:parameter("item", { n_items, d }, { init = "normal", scale = 0.1 })
  local users, items = { user }, { item }
  for layer = 2, 4 do
    users[layer], items[layer] = graph:spmm(items[layer - 1], false), graph:spmm(users[layer - 1], true)
  end
  local final_user, final_item = nn.mean_of(users), nn.mean_of(items)
  local u = final_user[batch.user]
  return batch, softplus_mean(u:dot(final_item[batch.negative]) - u:dot(final_item[batch.item]):reshape(-1, 1))
end

function models.sasrec()
  local batch = net:sequences(view, { size = 128, max_length = 50, negatives = 1, sampler = "uniform" })
  local item, place = net:parameter("item", { n_items, d }, { init = "normal", scale = 1 }), net:parameter("place", { 50, d }, { init = "normal", scale = 1 })
  local h = (item[batch.item] * math.sqrt(d) + place[batch.position]):dropout(0.2)
  for block = 1, 2 do
    local norm = nn.layer_norm(net, d)
    local q = norm(h)
    local function projected(x, word) return nn.linear(net, d, d, { name = word .. block })(x) end
    h = q + projected(projected(q, "q"):attention(projected(h, "k"), projected(h, "v"), batch.length, 1, true), "o")
    q = nn.layer_norm(net, d)(h)
    h = q + projected(projected(q, "up"):relu():dropout(0.2), "down"):dropout(0.2)
  end
  h = nn.layer_norm(net, d)(h)
  local positive, negative = h:dot(item[batch.target]), h:dot(item[batch.negative])
  return batch, softplus_mean(-positive) + softplus_mean(negative)
end

local batch, loss = models[name]()
local plan = net:plan { loss = loss }
local optimiser = plan:optimiser(nn.adam { rate = 0.001 }.options)
local start
for step = 0, steps + 2 do
  if step == 3 then start = native.now() end
  batch:fill(step)
  plan:run(step, true)
  optimiser:step(0.001)
end
print(steps / (native.now() - start))
