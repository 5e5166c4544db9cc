-- coupling_spec.lua - weights of inner rewards by how they go with the whole; divergence told from noise.

local native = require "evection.native"
local coupling = require "evection.coupling"
local loop = require "evection.evolve.loop"
local layers = require "evection.evolve.layers"
local reward = require "evection.reward"
local support = require "support"

local function coupled(text)
  local path = support.file(("coupled/%s.yaml"):format(native.hash(text):sub(1, 12)), "objectives: [{ maximise: ndcg@20 }]\n" .. text)
  return assert(reward.load(path))
end

-- n evaluations whose outer reward is drawn and whose inner rewards are fn(outer, noise) by node.
local function run(n, nodes, seed)
  local rng, history = native.rng(seed, 5), {}
  for number = 1, n do
    local outer, metrics = rng:normal(), {}
    metrics["ndcg@20"] = outer
    for node, fn in pairs(nodes) do metrics["inner." .. node] = fn(outer, rng:normal()) end
    history[number] = { number = number, users = 1, reward = outer, metrics = metrics, sets = {} }
  end
  return history
end

describe("the rank correlation", function()
  it("is Spearman's, ties by mean rank", function()
    assert.near(1, coupling.spearman({ 1, 2, 3, 9 }, { 10, 20, 21, 22 }), 1e-12)
    assert.near(-1, coupling.spearman({ 1, 2, 3, 9 }, { 4, 3, 2, 1 }), 1e-12)
    -- scipy.stats.spearmanr([1, 2, 2, 4, 5, 7, 7, 7], [3, 1, 4, 1, 5, 9, 2, 6])
    assert.near(0.5001524855174212, coupling.spearman({ 1, 2, 2, 4, 5, 7, 7, 7 }, { 3, 1, 4, 1, 5, 9, 2, 6 }), 1e-12)
    assert.is_nil(coupling.spearman({ 1, 1, 1 }, { 1, 2, 3 }))
  end)
end)

describe("a weight", function()
  local r = coupled "coupling: { by: difference, low: 0.1, high: 0.6 }\n"
  local nodes = {
    with = function(o) return 3 * o + 7 end, against = function(o) return -o end, apart = function(_, e) return e end, still = function() return 5 end,
  }

  it("lies between low and high, high for what goes with the whole, low for what does not", function()
    local weights = coupling.weights(r, run(40, nodes, 1))
    assert.near(0.1 + 0.5 * 40 / 48, weights.with.weight, 1e-12) -- ρ = 1, shrunk by 8 evaluations of nothing
    assert.equal(0.1, weights.against.weight)
    assert.near(-1, weights.against.correlation, 1e-12)
    assert.equal(0.1, weights.still.weight)
    assert.is_nil(weights.still.correlation)
    assert.is_true(weights.apart.weight < 0.35)
    for seed = 1, 50 do
      for _, w in pairs(coupling.weights(r, run(3 + seed, nodes, seed))) do assert.is_true(w.weight >= 0.1 and w.weight <= 0.6) end
    end
  end)

  it("is low before there is evidence", function()
    for _, w in pairs(coupling.weights(r, run(4, nodes, 1))) do assert.equal(0.1, w.weight) end
  end)

  it("falls when what went with the whole turns against it", function()
    local history = run(30, { a = function(o) return o end }, 3)
    local before = coupling.weights(r, history).a.weight
    for number, e in ipairs(run(60, { a = function(o) return -o end }, 4)) do
      e.number = 30 + number
      history[e.number] = e
    end
    assert.is_true(coupling.weights(r, history).a.weight < before - 0.2)
  end)

  it("names who went against the whole beyond chance, seldom anybody else", function()
    assert.same({ "against" }, { unpack(coupling.opposed(coupling.weights(r, run(40, nodes, 2)), 0.95)) })
    local alarms = 0
    for seed = 1, 400 do
      local weights = coupling.weights(r, run(30, { a = function(_, e) return e end, b = function(_, e) return e end }, seed))
      if #coupling.opposed(weights, 0.95) > 0 then alarms = alarms + 1 end
    end
    assert.is_true(alarms < 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95), alarms)
  end)
end)

describe("the layered reward", function()
  it("is the outer one while no weight is above 0", function()
    local history = run(20, { a = function(o) return -o end }, 1)
    local layer = coupling.layers(history, coupling.weights(coupled "coupling: difference\n", history))
    for _, e in ipairs(history) do assert.equal(e.reward, layer(e.reward, e.metrics)) end
    assert.equal(3, coupling.layers({}, {})(3, {}))
  end)

  it("is the weighted sum of both in deviations from their means", function()
    local history = run(25, { a = function(_, e) return 100 * e end, b = function(o, e) return o + e end }, 2)
    local weights = { a = { weight = 0.2 }, b = { weight = 0.6 } }
    local layer, n = coupling.layers(history, weights), #history
    local function z(of)
      local mean, square = 0, 0
      for _, e in ipairs(history) do mean = mean + of(e) / n end
      for _, e in ipairs(history) do square = square + (of(e) - mean) ^ 2 / n end
      return function(e) return (of(e) - mean) / math.sqrt(square) end, mean, math.sqrt(square)
    end
    local o, mean, deviation = z(function(e) return e.reward end)
    local a, b = z(function(e) return e.metrics["inner.a"] end), z(function(e) return e.metrics["inner.b"] end)
    for _, e in ipairs(history) do
      local expected = (1 - 0.4) * o(e) + 0.1 * a(e) + 0.3 * b(e)
      assert.near(mean + deviation * expected, layer(e.reward, e.metrics), 1e-9)
    end
  end)
end)

describe("divergence", function()
  local N = 300
  -- Two systems over N users: what both share cancels; the outer reward and node a's inner one move by these, beside noise.
  local function pair(outer, inner, rng)
    local given = { outer = native.vector(N), inner = { a = native.vector(N), b = native.vector(N) } }
    local best = { outer = native.vector(N), inner = { a = native.vector(N), b = native.vector(N) } }
    for u = 1, N do
      local taste, o, i = rng:normal(), rng:normal(), rng:normal()
      given.outer[u], best.outer[u] = taste, taste + outer + 0.5 * o
      given.inner.a[u], best.inner.a[u] = taste, taste + inner + 0.5 * i
      given.inner.b[u], best.inner.b[u] = taste, taste
    end
    return coupling.divergence(given, best, { seed = 1, confidence = 0.95, resamples = 400 })
  end

  it("planted is found, at the node where it is", function()
    for seed = 1, 20 do
      local d = pair(-0.15, 0.2, native.rng(seed, 9))
      assert.is_true(d.diverges)
      assert.same({ "a", true, "b", false }, { d.nodes[1].node, d.nodes[1].diverges, d.nodes[2].node, d.nodes[2].diverges })
      assert.is_true(d.outer.high < 0 and d.nodes[1].inner.low > 0)
    end
  end)

  it("is neither both up, nor both down, nor one of them alone", function()
    for _, move in ipairs { { 0.2, 0.2 }, { -0.2, -0.2 }, { 0.2, -0.2 }, { -0.2, 0 }, { 0, 0.2 } } do
      local found = 0
      for seed = 1, 40 do
        if pair(move[1], move[2], native.rng(seed, 10)).diverges then found = found + 1 end
      end
      -- a move of 0 is up or down beyond doubt one time in twenty, at most
      assert.is_true(found <= (move[1] * move[2] == 0 and 6 or 0), ("%g %g: %d"):format(move[1], move[2], found))
    end
  end)

  it("is hardly ever told of noise", function()
    local found = 0
    for seed = 1, 200 do
      if pair(0, 0, native.rng(seed, 11)).diverges then found = found + 1 end
    end
    assert.is_true(found <= 3, found) -- both sides must err at once
  end)

  it("of equal systems is none", function()
    local v = native.vector { 1, 2, 3 }
    local d = coupling.divergence({ outer = v, inner = { a = v } }, { outer = v, inner = { a = v } }, { seed = 1, confidence = 0.95 })
    assert.is_false(d.diverges)
    assert.equal(0, #coupling.divergence({ outer = v, inner = { a = v } }, { outer = v, inner = { c = v } }, { seed = 1, confidence = 0.95 }).nodes)
  end)
end)

describe("a champion", function()
  it("keeps the constraints before it is good, and breaks them little before it is good", function()
    local history = {
      { number = 1, users = 1, reward = 1, violation = 0.2 }, { number = 2, users = 1, reward = 9, violation = 0.3 },
      { number = 3, users = 1, reward = 0.5, violation = 0.1 }, { number = 4, users = 0.3, reward = 99, violation = 0 },
    }
    assert.equal(3, loop.champion(history).number)
    history[5] = { number = 5, users = 1, reward = 0.1, violation = 0 }
    history[6] = { number = 6, users = 1, reward = 0.2, violation = 0 }
    assert.equal(6, loop.champion(history).number)
    history[5].layered, history[6].layered = 3, 2
    assert.equal(5, loop.champion(history).number)
  end)

  it("is led by inner rewards only as far as they go with the whole", function()
    local function champion(text, sign)
      local r = coupled(text)
      local history, above = run(30, { a = function(o, e) return sign * o + 0.01 * e end }, 6), layers.new(coupled(text))
      for _, e in ipairs(history) do above.judge(e) end
      above.done(history)
      assert.equal(r.coupling.by, "difference")
      return loop.champion(history), history
    end
    local best, history = champion("coupling: { by: difference, high: 1 }\n", -1)
    for _, e in ipairs(history) do assert.is_true(e.reward <= best.reward) end
    best = champion("coupling: { by: difference, low: 1, high: 1 }\n", -1)
    for _, e in ipairs(history) do assert.is_true(e.reward >= best.reward) end -- told to follow the inner reward, it does
  end)
end)

it("layers keep their state after each batch, as a function of what was recorded", function()
  local r = coupled "constraints: [gini@20 <= 0.5]\ncoupling: difference\n"
  local history = run(24, { a = function(o, e) return o + e end }, 8)
  for _, e in ipairs(history) do e.metrics["gini@20"] = 0.4 + 0.2 * math.tanh(e.reward) end
  local function states(batch)
    local kept, so_far = {}, {}
    local above = layers.new(r, function(number, state) kept[number] = native.json_encode(state) end)
    for first = 1, #history, batch do
      for n = first, math.min(first + batch - 1, #history) do
        above.judge(history[n])
        so_far[n] = history[n]
      end
      above.done(so_far)
    end
    return kept
  end
  local by_one, by_eight = states(1), states(8)
  for _, number in ipairs { 8, 16, 24 } do assert.equal(by_one[number], by_eight[number]) end
  local state = native.json_decode(by_one[24])
  assert.is_true(state.multipliers["gini@20 <= 0.5"] > 0 and state.weights.a.weight > 0 and state.hypervolume ~= nil)
  assert.is_false(layers.needed(reward.of_metric "ndcg@20"))
  assert.is_true(layers.needed(r))
end)
