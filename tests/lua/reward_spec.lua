-- reward_spec.lua - outer rewards: what a file may say, every error at once with its line and value, the scalar by its formula, prices of
-- constraints, and the front.

local native = require "evection.native"
local compose = require "evection.compose"
local front = require "evection.front"
local lagrange = require "evection.lagrange"
local reward = require "evection.reward"
local support = require "support"

local count = 0
local function load(text)
  count = count + 1
  local path = support.file(("rewards/%d.yaml"):format(count), text)
  local r, errors = reward.load(path)
  return r, errors, path
end

local function whole(text)
  local r, errors = load(text)
  assert(r, errors and errors[1] and ("%s: %s"):format(tostring(errors[1].line), errors[1].message))
  return r
end

local full = [[
name: balanced
about: much of everything
objectives:
  - { maximise: ndcg@20, weight: 2 }
  - { maximise: coverage@10 }
  - { minimise: latency_p99_ms, weight: 0.01, reference: 50 }
constraints:
  - max_share.brand <= 0.3
  - latency_p99_ms.slow <= 5
  - slate_share.brand@5 <= 0.5
  - share.brand.Acme & Sons >= 0.1
  - novelty@20 >= 2
  - model_mb <= 100
penalty: 3
multipliers: { step: 0.5, start: 1, most: 10 }
inner: { slow: recall@20 }
baselines: { slow: popular }
coupling: { by: shapley, low: 0.1, high: 0.4, samples: 10 }
]]

describe("a reward", function()
  it("says everything it may say", function()
    local r = whole(full)
    assert.same({ { metric = "ndcg@20", weight = 2 }, { metric = "coverage@10", weight = 1 },
      { metric = "latency_p99_ms", weight = -0.01, reference = 50 } }, r.objectives)
    assert.same({ metric = "share.brand.Acme & Sons", op = ">=", bound = 0.1 }, r.constraints[4])
    assert.same({ step = 0.5, start = 1, most = 10 }, r.multipliers)
    assert.same({ by = "shapley", low = 0.1, high = 0.4, samples = 10 }, r.coupling)
    assert.equal("recall@20", reward.inner_metric(r, "slow"))
    assert.equal("ndcg@20", reward.inner_metric(r, "other"))
    assert.same({ base = "share", kind = "share", column = "brand", token = "Acme & Sons", k = 20, most = 1, name = "share.brand.Acme & Sons" },
      reward.parse "share.brand.Acme & Sons")
    assert.same("slow", reward.parse("latency_p99_ms.slow").node)
  end)

  it("needs objectives and no more", function()
    local r = whole "objectives: [{ maximise: recall@10 }]\n"
    assert.same({}, r.constraints)
    assert.same({ by = "none", low = 0, high = 0.5, samples = 32 }, r.coupling)
    assert.equal("recall@10", reward.inner_metric(r, "any"))
    assert.equal("none", whole("objectives: [{ maximise: recall@10 }]\ncoupling: none\n").coupling.by)
    assert.equal("difference", whole("objectives: [{ maximise: recall@10 }]\ncoupling: difference\n").coupling.by)
  end)

  it("is refused with all that is wrong, each with its line and its value", function()
    local r, errors, path = load [[
name: [x]
objective: 5
objectives:
  - { maximise: ndcg@7 }
  - { maximise: ndcg@20, minimise: gini@20 }
  - { maximise: recal@20, weight: -2 }
  - { maximise: hit@20, weight: heavy, reference: far }
  - { minimise: hit@20, colour: red }
  - 17
constraints:
  - gini@20 < 0.9
  - gini@20 <= many
  - coverage@20 >= 1.5
  - map@20 <= -1
  - map@20 >= 0.5
  - map@20 <= 0.4
  - map@20 >= 0.3
  - share.brand <= 0.3
  - 8
penalty: -1
multipliers: { step: -0.5, speed: 3, start: 200 }
inner: { a: coverage@20, b: 7 }
baselines: [popular]
coupling: { by: friendship, low: 0.9, high: 0.5, samples: 2.5 }
]]
    assert.is_nil(r)
    support.errors_are(errors, {
      { 1, "name must be text" }, { 2, "a reward has no field 'objective' (did you mean 'objectives'?)" },
      { 4, "'ndcg@7': lists are measured at @5, @10 and @20" }, { 5, "must either maximise or minimise" },
      { 6, "'recal@20' is no metric (did you mean 'recall@20'?)" }, { 6, "weight must be a positive number, not '-2'" },
      { 7, "weight must be a positive number, not 'heavy'" }, { 7, "reference must be a number, not 'far'" },
      { 8, "'hit@20' is objective 4 already" }, { 8, "an objective has no field 'colour'" }, { 9, "not '17'" },
      { 11, "constraint 'gini@20 < 0.9' must be such as" }, { 12, "'many' is no number" }, { 13, "'coverage@20 >= 1.5' can never hold" },
      { 14, "'map@20 <= -1' can never hold" }, { 15, "can never hold together with 'map@20 <= -1'" }, { 16, "'map@20 <= -1' bounds it on that side already" },
      { 16, "never hold together" }, { 17, "'map@20 >= 0.5' bounds it on that side already" }, { 17, "can never hold together" },
      { 18, "a share is of a column's token" }, { 19, "constraint '8' must be such as" },
      { 20, "penalty must be a number of 0 or more, not '-1'" }, { 21, "step must be a number of 0 or more, not '-0.5'" },
      { 21, "multipliers has no field 'speed'" }, { 21, "start must be a number from 0 to 100, not '200'" },
      { 22, "inner: a: 'coverage@20' has no value for each user" }, { 22, "inner: b must be text, not '7'" },
      { 23, "baselines must be a mapping, not 'a list'" },
      { 24, "coupling 'friendship' is not known" }, { 24, "low must be a number from 0 to 0.5, not '0.9'" },
      { 24, "samples must be a whole number, not '2.5'" },
    }, path)
  end)

  it("knows its composition and its data", function()
    local c = compose.open { nodes = { near = { agent = "item_knn" }, both = { agent = "rank_fusion", from = "near" } }, output = "both" }
    local r = whole [[
objectives: [{ maximise: ndcg@20 }]
constraints:
  - latency_p99_ms.neer <= 5
  - max_share.brand <= 0.3
  - max_share.year <= 0.3
  - latency_p99_ms.both <= 5
inner: { far: ndcg@20 }
baselines:
  near: rank_fusion
  both: nobody
]]
    support.errors_are(reward.check(r, c, { genre = "token_list", year = "float" }), {
      { 3, "no node 'neer' (did you mean 'near'?)" }, { 4, "no item column 'brand'; they have genre, year" }, { 5, "holds numbers" },
      { 7, "no node 'far'" }, { 9, "near is of role recall, and 'rank_fusion' of role merge" }, { 10, "no agent 'nobody'" },
    })
    assert.equal(4, #reward.check(r, c)) -- columns are not asked
  end)

  it("is refused and nothing worse, whatever the file", function()
    for _, text in ipairs {
      "", "1", "[]", "objectives: 1", "objectives: {}", "objectives: []", "objectives: [[]]", "objectives: [{}]", "objectives: { a: b }",
      "objectives: [{ maximise: [] }]", "objectives: [{ maximise: ndcg@20 }]\nconstraints: 5", "objectives: [{ maximise: ndcg@20 }]\nconstraints: { a: b }",
      "objectives: [{ maximise: ndcg@20 }]\nconstraints: [[]]", "objectives: [{ maximise: ndcg@20 }]\ncoupling: [x]",
      "objectives: [{ maximise: ndcg@20 }]\nmultipliers: 3", "objectives: [{ maximise: ndcg@20 }]\ninner: { 1: 2 }",
      "objectives: [{ maximise: ndcg@20, weight: .nan }]", "objectives: [{ maximise: ndcg@20, weight: .inf }]", "objectives: [{ maximise: '%s@%d' }]",
    } do
      local r, errors = load(text)
      assert.is_nil(r, text)
      assert.is_true(#errors > 0)
    end
    support.refused("'ndcg@7': lists are measured", reward.open, "ndcg@7")
    support.refused("absent", reward.open, support.folder .. "/absent.yaml")
  end)
end)

describe("the scalar", function()
  local r = whole [[
objectives: [{ maximise: ndcg@20, weight: 2 }, { minimise: latency_p99_ms, weight: 0.1 }]
constraints: [gini@20 <= 0.9, coverage@20 >= 0.5, latency_p99_ms <= 4]
penalty: 3
]]

  it("is what its formula says", function()
    assert.equal("2·ndcg@20 − 0.1·latency_p99_ms − 3·max(0, gini@20 − 0.9) − 3·max(0, 0.5 − coverage@20) − 3·max(0, (latency_p99_ms − 4) / 4)",
      reward.formula(r))
    local metrics = { ["ndcg@20"] = 0.25, latency_p99_ms = { value = 6 }, ["gini@20"] = 0.95, ["coverage@20"] = 0.2 }
    assert.near(2 * 0.25 - 0.1 * 6 - 3 * 0.05 - 3 * 0.3 - 3 * 0.5, reward.scalar(r, metrics), 1e-12)
    assert.near(2 * 0.25 - 0.1 * 6, reward.objective(r, metrics), 1e-12)
    metrics["gini@20"], metrics["coverage@20"], metrics.latency_p99_ms = 0.9, 0.5, 4
    assert.near(0.5 - 0.4, reward.scalar(r, metrics), 1e-12) -- on the bound is within it
    metrics["gini@20"] = nil
    support.refused("'gini@20', which was not measured", reward.scalar, r, metrics)
  end)

  it("goes with a verdict on each constraint, by its value and by its interval", function()
    local function m(value, low, high) return { value = value, low = low, high = high } end
    local list = reward.feasibility(r, { ["gini@20"] = m(0.89, 0.85, 0.93), ["coverage@20"] = m(0.4, 0.3, 0.45), latency_p99_ms = m(3, 2, 3.5) })
    assert.same({ "gini@20 <= 0.9", true, false }, { list[1].constraint, list[1].met, list[1].sure })
    assert.same({ "coverage@20 >= 0.5", false, true }, { list[2].constraint, list[2].met, list[2].sure })
    assert.same({ "latency_p99_ms <= 4", true, true }, { list[3].constraint, list[3].met, list[3].sure })
  end)

  it("is the mean of what users add to it", function()
    local metrics = { ["ndcg@20"] = 0.25, latency_p99_ms = 6, ["gini@20"] = 0.95, ["coverage@20"] = 0.6 }
    local values = { ["ndcg@20"] = native.vector { 0, 0.5, 0.1, 0.4 }, ["gini@20"] = native.vector { 0.95, 0.9, 1, 0.95 },
      ["coverage@20"] = native.vector { 9, 9, 9, 0 } }
    local v = reward.per_user(r, metrics, values)
    assert.near(reward.scalar(r, metrics), v:sum() / 4, 1e-6)
    assert.near(2 * 0.5 - 3 * -0.05, v[2] - v[1], 1e-6) -- gini is violated and counts by its slope; coverage keeps its bound
    assert.is_nil(reward.per_user(whole "objectives: [{ minimise: model_mb }]\n", { model_mb = 3 }, {}))
  end)
end)

describe("what decides a run", function()
  it("keeps its name for rewards of before, and changes with what is new", function()
    local base = "name: n\nobjectives: [{ maximise: ndcg@20, weight: 1 }]\n"
    local one = native.json_encode(reward.identity(whole(base)))
    assert.equal(native.json_encode { name = "n", objectives = { { metric = "ndcg@20", weight = 1 } }, constraints = {}, penalty = 1 }, one)
    assert.equal(one, native.json_encode(reward.identity(whole(base .. "multipliers: { step: 3 }\ncoupling: none\n")))) -- nothing to price
    for _, more in ipairs {
      "constraints: [gini@20 <= 0.9]", "penalty: 2", "coupling: difference", "baselines: { a: popular }", "inner: { a: recall@5 }",
    } do
      assert.are_not.equal(one, native.json_encode(reward.identity(whole(base .. more .. "\n"))))
    end
  end)
end)

describe("multipliers", function()
  -- max x under x <= 0.4, of x in [0, 1] by steps: the price of a unit is 1. Without a penalty, the Lagrangian alone must find it.
  local function toy(steps)
    local r = whole "objectives: [{ maximise: coverage@20 }]\nconstraints: [hit@20 <= 0.4]\npenalty: 0\nmultipliers: { step: 2 }\n"
    local state = lagrange.new(r)
    for t = 1, steps do
      local x = (t * 37 % 101) / 100
      lagrange.step(r, state, { ["coverage@20"] = x, ["hit@20"] = x })
    end
    return r, state
  end

  it("come to the price of what binds", function()
    local _, state = toy(2000)
    assert.near(1, state.multipliers[1], 0.1)
    assert.equal(2000, state.steps)
  end)

  it("rise from a violation, fall to 0 where nothing binds, and stay within their bounds", function()
    local r = whole "objectives: [{ maximise: ndcg@20 }]\nconstraints: [gini@20 <= 0.9, coverage@20 >= 0.1]\nmultipliers: { step: 1, start: 0.5, most: 0.7 }\n"
    local state = lagrange.new(r)
    assert.same({ 0.5, 0.5 }, state.multipliers)
    for _ = 1, 50 do lagrange.step(r, state, { ["ndcg@20"] = 0.3, ["gini@20"] = 0.95, ["coverage@20"] = 0.4 }) end
    assert.equal(0.7, state.multipliers[1])
    assert.equal(0, state.multipliers[2])
    assert.near(0.3 - 0.7 * 0.05 - 1 * 0.05, lagrange.lagrangian(r, state.multipliers, { ["ndcg@20"] = 0.3, ["gini@20"] = 0.95, ["coverage@20"] = 0.4 }), 1e-12)
  end)

  it("are a function of what was recorded", function()
    local _, a = toy(300)
    local _, b = toy(300)
    assert.same(a, b)
  end)

  it("move by the maximiser over all points measured, dominated ones left out or not", function()
    local r = whole "objectives: [{ maximise: ndcg@20 }]\nconstraints: [gini@20 <= 0.5, coverage@20 >= 0.5]\npenalty: 0.3\nmultipliers: { step: 0.7 }\n"
    local state, rng, all, multipliers = lagrange.new(r), native.rng(3, 1), {}, { 0, 0 }
    for t = 1, 200 do
      local metrics = { ["ndcg@20"] = rng:float(), ["gini@20"] = rng:float(), ["coverage@20"] = rng:float() }
      lagrange.step(r, state, metrics)
      all[t] = metrics
      local best, most
      for _, m in ipairs(all) do
        local l = lagrange.lagrangian(r, multipliers, m)
        if not most or l > most then best, most = m, l end
      end
      local step = 0.7 / math.sqrt(t)
      multipliers[1] = math.max(0, multipliers[1] + step * (best["gini@20"] - 0.5))
      multipliers[2] = math.max(0, multipliers[2] + step * (0.5 - best["coverage@20"]))
      assert.near(multipliers[1], state.multipliers[1], 1e-9)
      assert.near(multipliers[2], state.multipliers[2], 1e-9)
    end
    assert.is_true(#state.points < 100)
  end)
end)

describe("the front of a run", function()
  local r = whole "objectives: [{ maximise: ndcg@20 }, { minimise: latency_p99_ms, reference: 10 }]\nconstraints: [gini@20 <= 0.9]\n"
  local function e(number, ndcg, ms, gini, users)
    return { number = number, reward = ndcg, users = users or 1, metrics = { ["ndcg@20"] = ndcg, latency_p99_ms = ms, ["gini@20"] = gini or 0.5 } }
  end

  it("holds who is dominated by nobody, of equals the first, and the area that they take", function()
    local f = front.of(r, {
      e(1, 0.2, 5), e(2, 0.3, 8), e(3, 0.2, 6), e(4, 0.9, 1, 0.95), e(5, 0.3, 8), { number = 6, error = "x", users = 1 }, e(7, 0.9, 1, 0.5, 0.3),
    })
    assert.same({ 1, 2 }, { f.points[1].number, f.points[2].number })
    assert.equal(2, #f.points)
    assert.same({ ["ndcg@20"] = 0.3, latency_p99_ms = 8 }, f.points[2].objectives)
    assert.near(0.2 * 5 + 0.1 * 2, f.hypervolume, 1e-12)
  end)

  it("is empty when nothing keeps the constraints", function()
    local f = front.of(r, { e(1, 0.2, 5, 0.99) })
    assert.same({ 0, 0 }, { #f.points, f.hypervolume })
  end)

  it("measures from twice what was given where a minimised objective names no reference", function()
    local plain = whole "objectives: [{ maximise: ndcg@20 }, { minimise: latency_p99_ms }]\n"
    assert.same({ ["ndcg@20"] = 0, latency_p99_ms = 10 }, front.of(plain, { e(1, 0.2, 5) }).reference)
  end)

  it("is refused what is no list of points", function()
    for i = 1, support.n_hostile do
      local x = support.hostile[i]
      pcall(native.pareto_ranks, x)
      pcall(native.pareto_ranks, { x })
      pcall(native.pareto_ranks, { { x } })
      pcall(native.hypervolume, { { 1, 2 } }, x)
      pcall(native.hypervolume, { { 1, x } }, { 0, 0 })
    end
    support.refused("the reference has 3 objectives", native.hypervolume, { { 1, 2 } }, { 0, 0, 0 })
    support.refused("point 2 has 1 objectives", native.pareto_ranks, { { 1, 2 }, { 1 } })
    support.refused("no finite number", native.pareto_ranks, { { 1, 0 / 0 } })
  end)
end)

describe("exposure", function()
  local world = require "evection.world"
  local w = world.open(support.data("exposed", 50))
  local data = w:view(native.TRAIN).data

  local function lists()
    local list, slate = native.lists(5, 3), native.slate()
    for user = 0, 2 do
      slate:clear()
      for item = 0, 4 do slate:push(user + item, 5 - item) end
      list:put(user, slate)
    end
    return list
  end

  it("is that of the items shown, and names the token", function()
    local counts, places = {}, 0
    for user = 0, 2 do
      for item = user, user + 4 do
        local value = w.snapshot:value("item", w.feature, item)
        for _, token in ipairs(type(value) == "table" and value or { value }) do counts[token] = (counts[token] or 0) + 1 end
        places = places + 1
      end
    end
    local value, users, token = lists():exposure(data, "max_share", 5, w.feature)
    for _, n in pairs(counts) do assert.is_true(n / places <= value + 1e-12) end
    assert.near(counts[token] / places, value, 1e-12)
    assert.equal(3, #users)
    assert.near(counts[token] / places, (lists():exposure(data, "share", 5, w.feature, token)), 1e-12)
    assert.equal(0, (lists():exposure(data, "share", 5, w.feature, "nothing such")))
    assert.near(7 / 50, (lists():exposure(data, "coverage", 5)), 1e-12)
  end)

  it("is refused what makes no sense, and nothing worse", function()
    local list = lists()
    for i = 1, support.n_hostile do
      local x = support.hostile[i]
      pcall(list.exposure, list, x, "gini", 5)
      pcall(list.exposure, list, data, x, 5)
      pcall(list.exposure, list, data, "max_share", x, w.feature)
      pcall(list.exposure, list, data, "max_share", 5, x)
      pcall(list.exposure, list, data, "share", 5, w.feature, x)
      pcall(native.data_block, data, x, 3)
      pcall(native.data_block, data, 1, x)
      pcall(native.data_block, x, 1, 3)
    end
    support.refused("no item column 'brand'", list.exposure, list, data, "max_share", 5, "brand")
    support.refused("a column of tokens", list.exposure, list, data, "max_share", 5)
    support.refused("lists have 5 places", list.exposure, list, data, "gini", 6)
  end)

  it("blocks of users share out what a view holds", function()
    local sum = 0
    for b = 1, 7 do sum = sum + native.data_block(data, b, 7):n_interactions() end
    assert.equal(data:n_interactions(), sum)
  end)
end)
