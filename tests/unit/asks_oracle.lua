-- asks_oracle.lua COMPOSITION DATA - the same questions as script_asks.c asks in C, to the runner of an evaluation: require "oracle".

local native = require "evection.native"
local compose, runner, world = require "evection.compose", require "evection.runner", require "evection.world"

local w = world.open(arg[2])
local run = runner.fit(compose.open(arg[1]), w, { folds = native.TRAIN + native.VALID + native.TEST, seed = 1, state = "memory" })

-- Names of the recalls that proposed an item, from its source bits.
local function sources_of(bits)
  local names = native.array {}
  for _, node in ipairs(run.list) do
    if node.bit and bits % (2 * node.bit) >= node.bit then names[#names + 1] = node.name end
  end
  return names
end

package.loaded.oracle = {
  answer = function(message)
    local slate, items = run:recommend { user = message.user, history = message.history, seen = message.seen, n = message.n }, native.array {}
    for i = 1, #slate do items[i] = { id = w:item_id(slate:item(i)), score = slate:score_at(i), sources = sources_of(slate:source_at(i)) } end
    return { items = items }
  end,
}
