-- dump.lua DATA AGENT SETS(JSON) K FOLDS → for every user the K best items with scores, as JSON. The tests' window into
-- what the models answer.
local native = require "evection.native"
local compose = require "evection.compose"
local runner = require "evection.runner"
local world = require "evection.world"

local data, source, sets, k = arg[1], arg[2], native.json_decode(arg[3]), tonumber(arg[4])
local c = compose.open(source, sets)
local w = world.open(data)
local run = runner.fit(c, w, { folds = native.TRAIN, seed = 1 })
run:set_n(k)
local users, lists = {}, native.array {}
for user = 0, w.snapshot:n_users() - 1 do users[#users + 1] = user end
local batch = native.requests(w:view(native.TRAIN).data, users)
for row, user in ipairs(users) do
  local function list(requests, r)
    local slate, items, scores = run:answer(requests, r), native.array {}, native.array {}
    for i = 1, #slate do
      items[i], scores[i] = w:item_id(slate:item(i)), slate:score_at(i)
    end
    return items, scores
  end
  local items, scores = list(batch, row)
  local alone = list(native.requests(w:view(native.TRAIN).data, { user }), 1)
  local function ids(fold)
    local t = native.array {}
    for i, item in ipairs(w:history(user, fold)) do t[i] = w:item_id(item) end
    return t
  end
  lists[row] = { user = w:user_id(user), items = items, scores = scores, alone = alone, train = ids(native.TRAIN), valid = ids(native.VALID) }
end
io.write(native.json_encode { lists = lists, n_items = w.snapshot:n_items() })
