-- serve.lua - what a script worker does: load a version once, then answer one message at a time.

local native = require "evection.native"
local compose = require "evection.compose"
local runner = require "evection.runner"
local world = require "evection.world"

local serve = {}

local run, w

-- Names of the recalls that proposed an item, from its source bits.
local function sources_of(bits)
  local names = native.array {}
  for _, node in ipairs(run.list) do
    if node.bit and bits % (2 * node.bit) >= node.bit then names[#names + 1] = node.name end
  end
  return names
end

-- load{ composition, data, seed } → { version, files }. Fitted on all that is known; raises with every error.
function serve.load(args)
  local c = compose.open(args.composition)
  w = world.open(args.data)
  run = runner.fit(c, w, { folds = native.TRAIN + native.VALID + native.TEST, seed = args.seed, state = true })
  return { version = c.hash, files = native.array(c.files) }
end

-- The first request finds compiled code, and a version that cannot answer is never published.
function serve.warm() run:warm() end

local SMALLEST = 2 ^ -1022 -- a slate's propensity is above 0, however long it is

-- Propensities are null where the explorer could not tell them, and absent where none chose.
local function recommend(message)
  local slate = run:recommend { user = message.user, history = message.history, seen = message.seen, n = message.n }
  local items, places, whole = native.array {}, slate.propensity, 1
  for i = 1, #slate do
    local item, p = slate:item(i), places and places[i]
    items[i] = { id = w:item_id(item), title = w.title and w:item_title(item) or nil, score = slate:score_at(i), sources = sources_of(slate:source_at(i)),
      propensity = p and (p == p and p or native.null) }
    whole = whole * (p or 1)
  end
  return { items = items, propensity = places and (whole == whole and math.max(whole, SMALLEST) or native.null) or nil }
end

-- answer(message) → what the front sends on: { items } for recommend, {} for learn.
function serve.answer(message)
  if message.op == "recommend" then return recommend(message) end
  run:learn(message.events)
  return {}
end

return serve
