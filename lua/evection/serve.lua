-- serve.lua - what a script worker does before it is asked: a version is loaded and warmed once. The asking is C's (runtime/script/asks.c).

local jit_util = require "jit.util"
local native = require "evection.native"
local compose = require "evection.compose"
local runner = require "evection.runner"
local world = require "evection.world"

local serve = {}

local ALL = native.TRAIN + native.VALID + native.TEST
local WARM_SECONDS = 0.5
local WARM_ROUND = 64 -- requests; a function is compiled after some 112 calls, so two rounds at least
local WARM_LENGTHS = { 10, 20 }
local WARM_HISTORY = 1000 -- items of a user's past, at most

local run, w

-- The recall behind each source bit, in order of the bits; those beyond the 32nd share its bit.
local function recalls()
  local names = native.array {}
  for _, node in ipairs(run.list) do
    if node.bit and #names < 32 then names[#names + 1] = node.name end
  end
  return names
end

-- load{ composition, data, seed, snapshot_s } → { version, files, recalls, nodes }. The composition is read, fitted on all that is known (or its
-- artifacts mapped), and its learning state opened; from then on this state may be asked. Raises with every error.
function serve.load(args)
  local c, data = compose.open(args.composition), world.open(args.data)
  local fitted = runner.fit(c, data, { folds = ALL, seed = args.seed or 1, state = true })
  fitted.kept_apart = true -- what answers may write no file
  fitted.snapshot_s = args.snapshot_s or fitted.snapshot_s
  fitted:serve()
  run, w = fitted, data
  return { version = c.hash, files = native.array(c.files), recalls = recalls(), nodes = #run.list }
end

-- keep(now) → whether what the agents have learnt is all in snapshots now. Of a process beside those that answer. now: whether due or not.
function serve.keep(now) return run:keep(now) end

local function traces()
  local n = 0
  while jit_util.traceinfo(n + 1) do n = n + 1 end
  return n
end

local function latest(list, n)
  local some = {}
  for i = math.max(1, #list - n + 1), #list do some[#some + 1] = list[i] end
  return some
end

-- warm() → how many requests it took. Random users with their own histories, and a stranger, are asked for until nothing is compiled any
-- more or half a second is over; nothing of it stays in the learning state. A process that is forked afterwards answers compiled at once. A
-- version that cannot answer raises here, so that it is never published.
function serve.warm()
  local rng, n_users, n = native.rng(1, 17), w.snapshot:n_users(), 0
  run:apart(function()
    local started, before = native.now(), -1
    native.ask(nil, {}, 1)
    repeat
      local compiled = traces()
      if compiled == before then break end
      before = n > 0 and compiled or -1
      for _ = 1, WARM_ROUND do
        local user = n_users > 0 and rng:below(n_users) or nil
        native.ask(user, user and latest(w:history(user, ALL), WARM_HISTORY) or {}, WARM_LENGTHS[n % #WARM_LENGTHS + 1])
        n = n + 1
        if native.now() - started > WARM_SECONDS then return end
      end
    until false
  end)
  return n
end

return serve
