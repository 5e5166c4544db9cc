-- credit_spec.lua - Shapley values and differences: the axioms, all orders written out, sampled against exact within the stated error;
-- and of a real composition, fitted once.

local native = require "evection.native"
local credit = require "evection.credit"
local reward = require "evection.reward"
local support = require "support"

-- A random game of n players: a value for each coalition.
local function random_game(n, seed)
  local rng, v = native.rng(seed, 21), {}
  for mask = 0, 2 ^ n - 1 do v[mask] = rng:normal() end
  return function(mask) return v[mask] end, v
end

-- By definition: the mean of a player's gain over all n! orders.
local function by_orders(n, v)
  local phi, orders = {}, 0
  for i = 1, n do phi[i] = 0 end
  local function go(mask, left, gains)
    if left == 0 then
      orders = orders + 1
      for i = 1, n do phi[i] = phi[i] + gains[i] end
      return
    end
    for i = 1, n do
      local bit = 2 ^ (i - 1)
      if math.floor(mask / bit) % 2 == 0 then
        gains[i] = v[mask + bit] - v[mask]
        go(mask + bit, left - 1, gains)
      end
    end
  end
  go(0, n, {})
  for i = 1, n do phi[i] = phi[i] / orders end
  return phi
end

describe("of a game", function()
  it("the exact values are the mean over all orders", function()
    for n = 1, 6 do
      local value, v = random_game(n, n)
      local g = credit.game(n, value, { method = "shapley" })
      for i, phi in ipairs(by_orders(n, v)) do assert.near(phi, g.shapley[i], 1e-12) end
      assert.equal(2 ^ n, g.coalitions)
      assert.is_nil(g.difference)
    end
  end)

  it("all gain what the whole gains, a dummy nothing, equals the same", function()
    local weights = { 3, -2, 0, 1.5, 1.5 }
    local function value(mask)
      local sum, on = 0, {}
      for i, w in ipairs(weights) do
        on[i] = math.floor(mask / 2 ^ (i - 1)) % 2 == 1
        if on[i] then sum = sum + w end
      end
      return sum + (on[4] and on[5] and 10 or 0) -- only together
    end
    local g = credit.game(5, value, {})
    for i, w in ipairs { 3, -2, 0, 6.5, 6.5 } do assert.near(w, g.shapley[i], 1e-12) end
    for i, w in ipairs { 3, -2, 0, 11.5, 11.5 } do assert.near(w, g.difference[i], 1e-12) end
    assert.same({ 14, 0 }, { g.whole, g.empty })
  end)

  it("a player who only the last of a redundant pair misses earns by Shapley, not by difference", function()
    local g = credit.game(2, function(mask) return mask > 0 and 1 or 0 end, {})
    assert.same({ 0, 0 }, g.difference)
    assert.same({ 0.5, 0.5 }, g.shapley)
  end)

  it("each coalition is asked once, and sampled values still add up", function()
    local value, v = random_game(9, 4)
    local asked = {}
    local g = credit.game(9, function(mask)
      assert.is_nil(asked[mask])
      asked[mask] = true
      return value(mask)
    end, { samples = 20, seed = 3 })
    local sum = 0
    for i = 1, 9 do sum = sum + g.shapley[i] end
    assert.near(v[511] - v[0], sum, 1e-12)
    assert.is_true(g.coalitions <= 2 + 9 + 20 * 8)
    assert.is_false(g.exact)
  end)

  it("the vectors add up with the same coefficients", function()
    local value = random_game(4, 6)
    local sums = {}
    local g = credit.game(4, function(mask) return value(mask), value(mask) end, {
      samples = 8, seed = 2, on_vector = function(name, i, coefficient, x) sums[name .. i] = (sums[name .. i] or 0) + coefficient * x end,
    })
    for i = 1, 4 do
      assert.near(g.shapley[i], sums["shapley" .. i], 1e-12)
      assert.near(g.difference[i], sums["difference" .. i], 1e-12)
    end
  end)

  it("a seed gives the same orders, another one others", function()
    local value = random_game(8, 5)
    local function sampled(seed) return credit.game(8, value, { method = "shapley", samples = 16, seed = seed }).shapley end
    assert.same(sampled(1), sampled(1))
    assert.are_not.same(sampled(1), sampled(2))
  end)
end)

describe("sampled values", function()
  it("lie about the exact ones as the stated error says, at the level of the interval", function()
    local value = random_game(8, 7)
    local exact = credit.game(8, value, { method = "shapley" }).shapley
    local inside, asked, squares = 0, 0, 0
    local PAIRS = 16
    for seed = 1, 200 do
      local g = credit.game(8, value, { method = "shapley", samples = 2 * PAIRS, seed = seed })
      for i = 1, 8 do
        local away = math.abs(g.shapley[i] - exact[i])
        if away <= credit.student_quantile(0.975, PAIRS - 1) * g.errors[i] then inside = inside + 1 end
        squares, asked = squares + (away / g.errors[i]) ^ 2, asked + 1
      end
    end
    -- values of one sample are dependent: eight, as if they were two
    local error = math.sqrt(0.95 * 0.05 / (200 * 2))
    assert.is_true(math.abs(inside / asked - 0.95) < 3 * error, ("%g inside"):format(inside / asked))
    local expected = (PAIRS - 1) / (PAIRS - 3) -- variance of Student's t
    assert.is_true(math.abs(squares / asked - expected) < 0.2, squares / asked)
  end)

  it("come nearer with the root of the orders", function()
    local value = random_game(8, 8)
    local function mean_error(samples)
      local sum = 0
      for seed = 1, 20 do
        for _, e in ipairs(credit.game(8, value, { method = "shapley", samples = samples, seed = seed }).errors) do sum = sum + e / 160 end
      end
      return sum
    end
    assert.near(2, mean_error(32) / mean_error(128), 0.25)
  end)
end)

it("Student's quantiles are SciPy's", function() -- scipy.stats.t.ppf
  for _, x in ipairs {
    { 0.975, 3, 3.182446305284263 }, { 0.975, 7, 2.3646242510102993 }, { 0.975, 31, 2.0395134463964077 }, { 0.995, 31, 2.7440419192941268 },
  } do
    assert.near(x[3], credit.student_quantile(x[1], x[2]), 0.012)
  end
end)

describe("of a composition", function()
  local composition = {
    name = "three",
    nodes = {
      near = { agent = "item_knn", n = 40 }, known = { agent = "popular", n = 40 }, both = { agent = "rank_fusion", from = { "near", "known" }, n = 40 },
      spread = { agent = "mmr", from = "both", n = 20 },
    },
    output = "spread",
  }
  local function measured(more)
    local opts = { composition = composition, data = support.data("credit", 50), reward = reward.of_metric "ndcg@20" }
    for key, x in pairs(more or {}) do opts[key] = x end
    return credit.measure(opts)
  end

  it("the values add up to the whole, with an interval that holds each, and nobody is fitted twice", function()
    local result = measured()
    local sum, artifacts = 0, #native.list(native.home .. "/artifacts")
    for _, a in ipairs(result.agents) do
      sum = sum + a.shapley.value
      assert.is_true(a.shapley.low <= a.shapley.value and a.shapley.value <= a.shapley.high)
      assert.is_true(a.difference.low <= a.difference.value and a.difference.value <= a.difference.high)
      assert.is_true(a.inner >= 0 and a.inner <= 1)
      assert.is_nil(a.shapley.error)
    end
    assert.near(result.whole - result.empty, sum, 1e-9)
    assert.same({ 0, 16, true, 4 }, { result.empty, result.coalitions, result.exact, #result.agents })
    local again = measured()
    assert.equal(native.json_encode(credit.kept(result)), native.json_encode(credit.kept(again)))
    assert.equal(artifacts, #native.list(native.home .. "/artifacts"))
  end)

  it("the whole is what an evaluation measures, and a difference is that of two evaluations", function()
    local world = require "evection.world"
    local result = measured { method = "difference" }
    local function ndcg(nodes, output)
      return world.evaluate { composition = { nodes = nodes, output = output }, data = support.data("credit", 50), bootstrap = 0 }.metrics["ndcg@20"].value
    end
    assert.near(ndcg(composition.nodes, "spread"), result.whole, 1e-9)
    local n = composition.nodes
    for _, a in ipairs(result.agents) do
      if a.node == "spread" then -- without the rerank the candidates come through as they are
        assert.near(result.whole - ndcg({ near = n.near, known = n.known, both = n.both }, "both"), a.difference.value, 1e-9)
      elseif a.node == "near" then -- a fusion of what is left
        local left = { known = n.known, both = { agent = "rank_fusion", from = "known", n = 40 }, spread = n.spread }
        assert.near(result.whole - ndcg(left, "spread"), a.difference.value, 1e-9)
      end
    end
  end)

  it("a node that is its own baseline earns nothing", function()
    for _, a in ipairs(measured({ method = "difference", baselines = { known = "popular" } }).agents) do
      if a.node == "known" then assert.same({ 0, "popular" }, { a.difference.value, a.baseline }) end
    end
    support.refused("no node 'far'", measured, { baselines = { far = "popular" } })
    support.refused("of role merge, the node of role recall", measured, { baselines = { known = "rank_fusion" } })
    support.refused("no agent 'nobody'", measured, { baselines = { known = "nobody" } })
  end)

  it("an agent's own evaluate is its inner reward", function()
    local path = support.file("boast.lua", [[
      local agent, space = require "evection.agent", require "evection.space"
      return agent { name = "boast", role = "recall", about = "Says much.", space = { claim = space.linear(0, 9, 4) },
        fit = function(_, data) return data:item_scores(data:item_counts()) end,
        evaluate = function(_, heldout, ctx) return ctx.knobs.claim + (heldout:n_interactions() > 0 and 0 or 100) end }
    ]])
    local t = { nodes = { boast = { agent = path }, both = { agent = "rank_fusion", from = "boast" } }, output = "both" }
    local agents = measured({ composition = t }).agents
    for _, a in ipairs(agents) do
      if a.node == "boast" then assert.same({ 4, "evaluate" }, { a.inner, a.inner_of }) else assert.equal("ndcg@20", a.inner_of) end
    end
    local text = native.read_file(path, 10000):gsub('"boast"', '"mute"'):gsub("return ctx.knobs.claim[^\n]*\n", 'return "much" end }\n')
    local bad = support.file("mute.lua", text)
    support.refused("evaluate: a number is wanted, not 'much'", measured, { composition = { nodes = { mute = { agent = bad } }, output = "mute" } })
  end)
end)
