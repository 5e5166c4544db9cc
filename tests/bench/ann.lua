-- ann.lua N - the recall of policies/compositions/serve_bench.yaml through several indexes, and the parts of the composition's answer:
-- microseconds of one thread's CPU time, and the share of the exact N best that each finds.

local native = require "evection.native"
local compose = require "evection.compose"
local runner = require "evection.runner"
local world = require "evection.world"

local N, USERS, RUNS = tonumber(arg[1]), 1000, 3
local file = "policies/compositions/serve_bench.yaml"
local w = world.open "gowalla"
local view = w:view(native.TRAIN).data
local rng, users = native.rng(3), {}
while #users < USERS do
  local user = rng:below(view:n_users())
  if view:n_of_user(user) > 0 then users[#users + 1] = user end
end
local users_asked = {}
for i, user in ipairs(users) do users_asked[i] = { user = user, history = view:history(user) } end

local function answers(run, node) -- each user alone, as a service asks; least of the runs
  local best, lists = math.huge, {}
  for turn = 1, RUNS do
    local requests = {}
    for i, q in ipairs(users_asked) do requests[i] = native.request(w.snapshot, q.user, q.history, q.history) end
    collectgarbage()
    local start = os.clock()
    for i = 1, USERS do
      local slate = run:run_until(node, requests[i], 1)
      if turn == 1 then lists[i] = slate:items() end
    end
    local took = os.clock() - start
    if turn > 1 then best = math.min(best, took / USERS) end
  end
  return best * 1e6, lists
end

local exact
local function measure(sets)
  local c = compose.open(file, sets)
  local run = runner.fit(c, w, { folds = native.TRAIN, seed = 1 })
  run:set_n(20)
  local us, lists = answers(run, "recall")
  exact = exact or lists
  local hits = 0
  for i = 1, USERS do
    local has = {}
    for _, item in ipairs(exact[i]) do has[item] = true end
    for _, item in ipairs(lists[i]) do hits = hits + (has[item] and 1 or 0) end
  end
  return us, hits / (USERS * N), run
end

local out = { recalls = native.array {} }
for i, v in ipairs {
  { "flat, f32", { ["recall.index"] = "flat", ["recall.form"] = "f32" } }, { "flat, i8", { ["recall.index"] = "flat" } }, { "hnsw, i8, 8 links", {} },
  { "hnsw, i8, 16 links", { ["recall.n_links"] = 16, ["recall.effort_build"] = 200 } }, { "hnsw, f32, 8 links", { ["recall.form"] = "f32" } },
  { "ivf, i8, 64 lists", { ["recall.index"] = "ivf", ["recall.effort"] = 64 } },
} do
  local us, recall, run = measure(v[2])
  out.recalls[i] = { name = v[1], us = us, recall = recall }
  if v[1] == "hnsw, i8, 8 links" then
    local ranked = answers(run, "ranked")
    local whole = answers(run, "slate")
    out.ranked, out.rerank, out.whole, out.of_recall = ranked - us, whole - ranked, whole, us
    local changed = {}
    for k, q in ipairs(users_asked) do changed[k] = { user = q.user, history = { unpack(q.history) } } end
    for _, q in ipairs(changed) do q.history[#q.history + 1] = rng:below(view:n_items()) end
    users_asked, changed = changed, users_asked
    out.folded = answers(run, "recall")
    users_asked = changed
  end
end
io.write(native.json_encode(out), "\n")
