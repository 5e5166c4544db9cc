-- explore_spec.lua - agents of role explore: they learn what pays, tell with which probability they showed it, and their state is what
-- they declare. The numbers themselves are checked in C (tests/unit/reward_arms*.c) and against NumPy (tests/e2e/explore.py).

local native = require "evection.native"
local agent = require "evection.agent"
local compose = require "evection.compose"
local runner = require "evection.runner"
local support = require "support"
local world = require "evection.world"

local words = support.words

local unpopular = [[return require "evection.agent" { name = "unpopular", role = "recall", about = "x",
  fit = function(_, data) return data:item_scores(-1 * data:item_counts()) end }]]

local w
setup(function()
  w = world.open(support.data("tiny", 90))
  support.file("explore/unpopular.lua", unpopular)
end)

local function fitted(name, knobs, state)
  return runner.fit(compose.open {
    nodes = {
      a = { agent = "popular", n = 90 }, b = { agent = support.folder .. "/explore/unpopular.lua", n = 90 },
      m = { agent = "rank_fusion", from = native.array { "a", "b" } }, x = { agent = name, from = "m", knobs = knobs },
    }, output = "x",
  }, w, { folds = native.TRAIN, seed = 1, state = state })
end

-- Slates of five for random users; what half of the users or fewer know pays more often. → mean reward of the first and of the last third
local function live(run, rounds)
  local counts, rng = w:view(native.TRAIN).data:item_counts(), native.rng(1, 1)
  local sorted = {}
  for i = 1, #counts do sorted[i] = counts[i] end
  table.sort(sorted)
  local median, third, sums = sorted[45], math.floor(rounds / 3), { 0, 0, 0 }
  for round = 1, rounds do
    local user = rng:below(w.snapshot:n_users())
    local slate, events = run:recommend { user = user, n = 5 }, {}
    for k = 1, #slate do
      local item = slate:item(k)
      if rng:float() < (counts[item + 1] < median and 0.6 or 0.05) then events[#events + 1] = { user = user, item = item, type = "click", value = 1 } end
    end
    run:learn(events)
    local part = math.min(3, math.ceil(round / third))
    sums[part] = sums[part] + #events / third
  end
  return sums[1], sums[3]
end

describe("an explorer", function()
  local all = {
    epsilon_greedy = { doubt = 1 }, thompson = { doubt = 1, draws = 16 }, lin_ucb = {}, lin_thompson = { draws = 16 }, logistic_thompson = { draws = 16 },
    square_cb = { sharpness = 20 }, neural_linear = { epochs = 5, draws = 16 }, cascade_ucb = {}, slate_thompson = { doubt = 1, draws = 16, examination = 0 },
    exp3 = { rate = 0.5 }, exp4 = { rate = 0.3 }, reinforce = { rate = 0.05 },
  }
  for name, knobs in pairs(all) do
    it("finds what pays: " .. name, function()
      knobs.pool = 90
      local first, last = live(fitted(name, knobs, "memory"), 1200)
      local by_chance = 5 * (0.6 + 0.05) / 2
      assert.is_true(last > 1.2 * by_chance, ("%g, then %g rewards a slate; %g by chance"):format(first, last, by_chance))
    end)
  end

  it("ships for each of these, and no other", function()
    local names = {}
    for _, path in ipairs(agent.list()) do
      local name = path:match "explore/([^/]+)%.lua$"
      if name then
        names[name] = true
        assert.is_not_nil(all[name], name)
      end
    end
    for name in pairs(all) do assert.is_true(names[name], name) end
  end)

  it("leaves the order as it is where nothing can be learnt", function()
    local with, without = fitted("thompson", { pool = 90 }, nil), fitted("mmr", nil, nil)
    for user = 0, 9 do assert.same(without:recommend { user = user, n = 5 }:items(), with:recommend { user = user, n = 5 }:items()) end
  end)

  it("shows the same slates for the same seed, and others for another", function()
    local function slates(seed)
      local run, list = fitted("thompson", { pool = 90 }, "memory"), {}
      if seed ~= 1 then
        run.seed = seed
        run:open_state "memory"
      end
      for user = 0, 9 do list[user + 1] = run:recommend { user = user, n = 5 }:items() end
      return list
    end
    assert.same(slates(1), slates(1))
    assert.are_not.same(slates(1), slates(2))
  end)

  it("tells a probability for each place, and carries every column along", function()
    local run = fitted("thompson", { pool = 90 }, "memory")
    local slate = run:recommend { user = 3, n = 5 }
    local counts = w:view(native.TRAIN).data:item_counts()
    for k = 1, 5 do
      assert.is_true(slate.propensity[k] > 0 and slate.propensity[k] <= 1)
      assert.is_true(slate.propensity_error[k] > 0) -- many candidates: by draws
      local rank = slate["rank.a"][k]
      assert.is_true(rank > 0)
      local better = 0
      for i = 1, #counts do
        if counts[i] > counts[slate:item(k) + 1] then better = better + 1 end
      end
      assert.is_true(rank <= better + 20) -- among equals any order
    end
    slate = fitted("lin_ucb", { pool = 90 }, "memory"):recommend { user = 3, n = 5 }
    for k = 1, 5 do
      assert.equal(1, slate.propensity[k]) -- it is sure
      assert.equal(0, slate.propensity_error[k])
    end
  end)

  it("learns of what was shown, nothing of what warmed it up, and knows late rewards", function()
    local run = fitted("thompson", { pool = 90 }, "memory")
    local arms = run.by_name.x.ctx.state.arms
    run:warm()
    assert.equal(arms, run.by_name.x.ctx.state.arms)
    assert.equal(0, arms:stats().shown)
    local items = run:recommend { user = 3, n = 5 }:items()
    run:learn { { user = 3, item = items[2], value = 1 }, { user = 4, item = items[1], value = 1 } }
    arms:settle()
    local s = arms:stats()
    assert.same({ 5, 1, 1, 5 }, { s.shown, s.rewarded, s.late, s.updates })
    for k, item in ipairs(items) do
      local slot = arms:read(item)
      assert.same({ 1, k == 2 and 1 or 0 }, { slot[1], slot[2] })
    end
  end)
end)

describe("learning state", function()
  local function load(state)
    local path = support.file("explore/bad.lua", ([[local space = require "evection.space"
return require "evection.agent" {
  name = "a", role = "explore", about = "x",
  space = { decay = space.linear(0, 1, 1), which = space.bool(true) },
  state = {
    arms = %s,
  }, act = function() end
}]]):format(state))
    local a, errors = agent.load(path)
    return a, errors
  end

  it("is refused where it is declared wrong, each fault with its line", function()
    for text, pattern in pairs {
      ['{ kind = "count" }'] = "kind must be counts", ["{}"] = "kind must be counts", ['{ kind = "counts", n = "item" }'] = 'n must be "items"',
      ['{ kind = "counts", n = 1.5 }'] = 'n must be "items"', ['{ kind = "linear", n_dims = "x" }'] = "n_dims must be a number",
      ['{ kind = "linear", decay = "ridge" }'] = "names 'ridge', which is no knob", ['{ kind = "linear", decay = "which" }'] = "no knob of numbers",
      ['{ kind = "linear" }'] = "n_dims must be from 1 to 1024", ['{ kind = "counts", n_dims = 3 }'] = "n_dims must be from 0 to 0",
      ['{ kind = "weights", n = 5, n_dims = 4 }'] = "n_dims must be 0 or n", ['{ kind = "weights", n = "items", n_dims = 4 }'] = "n_dims must be 0 or n",
      ['{ kind = "weights", n = 5000 }'] = "at most 4096", ['{ kind = "counts", window = -1 }'] = "window", ['{ kind = "counts", window = 1e9 }'] = "window",
      ['{ kind = "linear", n_dims = 2, decay = 0 }'] = "decay must be in (0, 1]", ['{ kind = "linear", n_dims = 2, ridge = 0 }'] = "ridge must be above 0",
      ['{ kind = "linear", dims = 3 }'] = "no field 'dims'", ['{ kind = "linear", cascade = 1 }'] = "cascade must be a boolean",
    } do
      local a, errors = load(text)
      assert.is_nil(a, text)
      assert.is_true(errors[1].line == 6 and errors[1].message:find(pattern, 1, true) ~= nil, text .. ": " .. errors[1].message)
    end
    assert.is_table(load '{ kind = "linear", n_dims = 3, decay = "decay", n = "users", cascade = true }')
  end)

  it("outlives the code: another text of the agent finds what was learnt, another shape begins anew", function()
    local function run(state, extra)
      local path = support.file("explore/mine.lua", ([[return require "evection.agent" {
        name = "mine", role = "explore", about = "x", state = { arms = %s },
        act = function(_, request, slate, ctx) ctx.state.arms:choose(slate, { k = request.n, user = request.user }) end,
      } %s]]):format(state, extra or ""))
      local r = fitted(path, nil, true)
      return r.by_name.x.ctx.state.arms, r
    end
    local arms, whole = run '{ kind = "counts", n = "items" }'
    arms:update(7, 1)
    assert.equal(1, run('{ kind = "counts", n = "items", decay = 0.9 }', "-- another text"):read(7)[1])
    assert.equal(0, run('{ kind = "counts", n = "items", window = 50 }'):read(7)[1])
    local snapshot = whole.snapshots[1].path
    whole:learn {}
    assert.is_false(native.exists(snapshot)) -- not yet a minute old
    whole.snapshot_s = 0
    whole:learn {}
    arms:update(7, 1)
    native.arms_restore(arms, snapshot)
    assert.equal(1, arms:read(7)[1])
  end)

  it("takes any argument without harm, and is no door to anything", function()
    local data = w:view(native.TRAIN).data
    local slate, request = native.slate(), native.requests(data, { 0, 1 })
    local model = support.folder .. "/explore_model"
    native.data_artifact(data, model, 1)
    local list, n = {}, support.n_hostile
    for i = 1, n do list[i] = support.hostile[i] end
    for _, more in ipairs { slate, request, native.vector(8), native.vector(90 * 4), data, { 0, 1, 2 }, { k = 2 }, { k = 2, rule = "greedy", user = 1 },
      { k = -1 }, { model = 1 }, { columns = { "x" } }, { columns = { "score" }, k = 3 }, { arms = { 1 } } } do
      n = n + 1
      list[n] = more
    end
    local methods = words "choose show reward settle pick beliefs update update_many read stats learn_logged set ask tell distribution"
    for _, o in ipairs {
      { kind = "counts", n = 90 }, { kind = "linear", n_dims = 4 }, { kind = "logistic", n_dims = 4, diagonal = true }, { kind = "weights", n = 90 },
      { kind = "weights", n = 4, n_dims = 4 }, { kind = "policy", n_dims = 4 }, { kind = "cma", n_dims = 4 },
    } do
      local state = native.arms(nil, o)
      assert.is_false(getmetatable(state))
      for _, key in ipairs(words "__index __gc snapshot restore close") do assert.is_nil(state[key], key) end
      for _, name in ipairs(methods) do
        support.refused("expected", state[name])
        slate:clear()
        for i = 0, 9 do slate:push(i * 7, 10 - i) end
        for i = 1, n do
          pcall(state[name], state, list[i])
          support.refused("expected", state[name], list[i] ~= state and list[i] or nil)
          for j = 1, n do
            pcall(state[name], state, list[i], list[j])
            pcall(state[name], state, list[i], list[j], list[(i * 7 + j * 3) % n + 1])
          end
        end
      end
      assert.is_true(#slate <= 10)
    end
    for text, pattern in pairs { count = "none of counts" } do support.refused(pattern, native.arms, nil, { kind = text }) end
    support.refused("n_dims", native.arms, nil, { kind = "linear" })
    support.refused("no option 'dims'", native.arms, nil, { kind = "linear", dims = 3 })
  end)
end)

describe("arms by number", function()
  it("learn from a log what the logging policy did not know", function()
    local rng, n, x, chosen, reward, propensity = native.rng(3), {}, native.vector(2000 * 6), {}, native.vector(2000), native.vector(2000)
    for i = 1, 2000 do
      n[i], chosen[i] = 3, rng:below(3) + 1
      for k = 1, 6 do x:set((i - 1) * 6 + k, rng:normal()) end
      reward:set(i, rng:float() < 1 / (1 + math.exp(-2 * x[(i - 1) * 6 + 2 * chosen[i]])) and 1 or 0) -- the second of a candidate's two features pays
      propensity:set(i, 1 / 3)
    end
    local policy = native.arms(nil, { kind = "policy", n_dims = 2 })
    local log = { n = n, x = x, chosen = chosen, reward = reward, propensity = propensity }
    local value = policy:learn_logged(log, { steps = 100 })
    local theta = policy:read(0)
    assert.is_true(value > 0.7 and theta[6] > 1 and math.abs(theta[5]) < 0.3 * theta[6], ("%g: %g, %g"):format(value, theta[5], theta[6]))
    log.q = native.vector(6000):add(0.5)
    assert.is_true(math.abs(policy:learn_logged(log, { steps = 0 }) - value) < 0.05)
    log.n[5] = 4
    support.refused("numbers", policy.learn_logged, policy, log)
  end)
end)
