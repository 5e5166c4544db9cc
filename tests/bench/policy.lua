-- policy.lua FOLDER - microseconds a slate of what agents/rank/linear_policy does to 500 candidates, and of its parts; the inputs are
-- left in FOLDER for the twin in C.

local native = require "evection.native"
local agent = require "evection.agent"
local world = require "evection.world"

local SLATES, CANDIDATES, SECONDS = 64, 500, 0.5
local folder = arg[1]
local w = world.open "policy"
local data = w:view(native.TRAIN).data
local policy = agent.find "rank/linear_policy"
local knobs, names = agent.knobs(policy), {}
for name, dim in pairs(policy.space) do
  if dim.kind == "linear" then names[#names + 1] = name end
end
table.sort(names)
assert(#names == 16)
for i, name in ipairs(names) do knobs[name] = 1 / (i + 1) end
native.data_artifact(data, folder .. "/model", 1)
local model = policy.fit(knobs, data)
local ctx = { knobs = knobs, data = data }

-- Candidates as a recall gives them: distinct items, best first.
local rng, requests, filled, out = native.rng(5), {}, {}, io.open(folder .. "/slates", "w")
out:write(native.model_path(model), "\n", SLATES, " ", CANDIDATES, "\n")
for i, name in ipairs(names) do out:write(name, " ", ("%.9g"):format(knobs[name]), i < #names and " " or "\n") end
for s = 1, SLATES do
  local user = rng:below(data:n_users())
  requests[s] = native.requests(data, { user })
  local slate, taken, score, history = native.slate(), {}, 3, data:history(user)
  out:write(#history, " ", table.concat(history, " "), "\n")
  while #slate < CANDIDATES do
    local item = rng:below(data:n_items())
    if not taken[item] then
      taken[item], score = true, score * (0.99 + 0.01 * rng:below(1000) / 1000)
      slate:push(item, score)
      out:write(item, " ", ("%.9g"):format(slate:score_at(#slate)), " ")
    end
  end
  out:write "\n"
  filled[s] = slate
end
out:close()

-- The least time a slate of five runs, each of half a second on the process's own clock.
local function time(act)
  local best = math.huge
  for _ = 1, 5 do
    local done, start = 0, os.clock()
    repeat
      for s = 1, SLATES do act(s) end
      done = done + SLATES
    until os.clock() - start > SECONDS
    best = math.min(best, (os.clock() - start) / done)
  end
  return best * 1e6
end

-- What the runner does before each act: the candidates anew.
local slate = native.slate()
local result = {}
result.copy = time(function(s) slate:copy(filled[s]) end)
result.whole = time(function(s)
  slate:copy(filled[s])
  policy.act(model, requests[s], slate, ctx)
end) - result.copy
local sum = 0
for s = 1, SLATES do
  slate:copy(filled[s])
  policy.act(model, requests[s], slate, ctx)
  for i = 1, #slate do sum = sum + slate:score_at(i) * (i % 7 + 1) end
end
result.checksum = sum
result.weigh = time(function() slate:weigh(knobs) end)

-- The same sum, column after column, as one writes it.
local c, k = slate, knobs
result.columns = time(function()
  c.score:mul(k.score)
  c.score:add(c.scaled, k.scaled):add(c.place, k.place):add(c.affinity, k.affinity):add(c.mine, k.mine)
  c.score:add(c.popular, k.popular):add(c.popular_root, k.popular_root):add(c.popular_square, k.popular_square):add(c.rare, k.rare)
  c.score:add(c.light, k.light):add(c.lighter, k.lighter):add(c.company, k.company):add(c.cluster_size, k.cluster_size)
  c.score:add(c.cluster_popular, k.cluster_popular):add(c.share, k.share):add(c.cluster_place, k.cluster_place)
end)
io.write(native.json_encode(result), "\n")
