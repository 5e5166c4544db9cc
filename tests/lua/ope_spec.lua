-- ope_spec.lua - off-policy evaluation from scripts: estimates worked out by hand, and that no argument does harm.

local native = require "evection.native"
local ope = require "evection.ope"
local support = require "support"

local function small()
  return ope.log { n_arms = 3, n_positions = 2, arm = { 0, 1, 2, 1 }, position = { 0, 1, 0, 1 }, reward = { 1, 0, 2, 1 }, propensity = { 0.5, 0.25, 0.5, 0.25 },
    context = { { 1, 0 }, { 0, 0 }, { -1, 2 }, { 0, 1 } } }
end

describe("a bandit log", function()
  it("from columns gives estimates that can be worked out by hand", function()
    local log = small()
    local policy = ope.policy(log, function(context, row)
      assert.equal(context[1], context["1"])
      return row.position == 1 and { 0.25, 0.25, 0.5 } or { ["1"] = 1 }
    end)
    local result = ope.evaluate(log, policy, { model = "none", max_unsupported = 1, clip = 2 })
    -- weights 0.5, 4, 1, 4
    assert.is_true(math.abs(result.estimates.ips.value - (0.5 * 1 + 4 * 0 + 1 * 2 + 4 * 1) / 4) < 1e-12)
    assert.is_true(math.abs(result.estimates.snips.value - 6.5 / 9.5) < 1e-12)
    assert.is_true(math.abs(result.estimates.clipped_ips.value - (0.5 + 2 + 2) / 4) < 1e-12)
    assert.equal(0.5, result.estimates.clipped_ips.changed)
    assert.is_true(math.abs(result.weights.ess - 9.5 ^ 2 / (0.25 + 16 + 1 + 16)) < 1e-12)
    assert.is_nil(result.estimates.dr)
    -- arm 1 at the first position was never shown: 1/4 of the mass of half of the rows
    assert.is_true(math.abs(result.weights.unsupported - 0.125) < 1e-12)
    assert.has_error(function() ope.evaluate(log, policy, { model = "none" }) end)
  end)

  it("has an exact doubly robust estimate where the model is exact", function()
    local log = ope.log { n_arms = 2, arm = { 0, 1, 0, 1, 0, 1 }, reward = { 1, 3, 1, 3, 1, 3 }, propensity = { 0.5, 0.5, 0.5, 0.5, 0.5, 0.5 } }
    local policy = ope.policy(log, function() return { 0.25, 0.75 } end)
    local result = ope.evaluate(log, policy, { folds = 2, penalty = 1e-9, bootstrap = 10 })
    for _, name in ipairs { "dm", "dr", "sndr", "mrdr", "dros", "switch_dr" } do
      assert.is_true(math.abs(result.estimates[name].value - 2.5) < 1e-6, name)
    end
  end)

  it("of slates is measured place by place", function()
    local log = ope.log { n_arms = 2, arm = { { 0, 1 }, { 1, 0 } }, reward = { { 1, 0 }, { 0, 2 } }, propensity = { { 0.5, 1 }, { 0.5, 1 } } }
    local policy = ope.policy(log, function(_, row)
      if row.place == 1 then return { 0.8, 0.2 } end
      return row.above[1] == "0" and { 0, 1 } or { 1, 0 }
    end)
    local result = ope.evaluate(log, policy, { model = "none" })
    assert.is_true(math.abs(result.estimates.sips.value - (1.6 * 1 + 0.4 * 2) / 2) < 1e-12)
    assert.is_true(math.abs(result.estimates.iips.value - (1.6 * 1 + 1 * 2) / 2) < 1e-12)
  end)

  it("gives the policy of another log by position", function()
    local log = small()
    local row = ope.find_policy(log, "uniform"):get(0)
    assert.same({ 1 / 3, 1 / 3, 1 / 3 }, row)
    row = log:shares(log, true):get(1)
    assert.same({ 0, 1, 0 }, row)
    row = log:shares(log, false):get(0)
    assert.is_true(math.abs(row[1] - 0.5) < 1e-12 and math.abs(row[3] - 0.5) < 1e-12)
  end)

  it("refuses what is wrong, by row", function()
    local function refused(change, word)
      local columns = { n_arms = 2, arm = { 0, 1 }, reward = { 0, 1 }, propensity = { 0.5, 0.5 } }
      change(columns)
      local ok, message = pcall(ope.log, columns)
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find(word, 1, true), tostring(message))
    end
    refused(function(c) c.propensity[2] = 0 end, "row 2")
    refused(function(c) c.propensity[1] = 1.5 end, "row 1")
    refused(function(c) c.propensity[1] = 0 / 0 end, "row 1")
    refused(function(c) c.reward[2] = math.huge end, "row 2")
    refused(function(c) c.arm[2] = 2 end, "row 2")
    refused(function(c) c.arm[2] = 0.5 end, "row 2")
    refused(function(c) c.reward[3] = 1 end, "3")
    refused(function(c) c.n_arms = nil end, "n_arms")
    refused(function(c) c.propensity = nil end, "propensity")
    local log = small()
    assert.has_error(function() ope.policy(log, function() return { 0.5, 0.5, 0.5 } end) end)
    assert.has_error(function() ope.policy(log, function() return { -1, 1, 1 } end) end)
    assert.has_error(function() ope.policy(log, function() return {} end) end)
    assert.has_error(function() log:measure(small():uniform(), nil, nil, {}) end) -- of another log
  end)

  it("survives hostile arguments", function()
    local log = small()
    local matrix = log:matrix()
    local hostile = { false, 0 / 0, math.huge, -math.huge, -1, 2 ^ 53, 1e300, "x", {}, { { {} } }, print, matrix, log, native.vector and native.vector(3) or 1 }
    for _, a in ipairs(hostile) do
      for _, b in ipairs(hostile) do
        for _, name in ipairs(support.words "uniform shares regress mrdr measure measure_slates row matrix logged evaluated info names") do
          pcall(log[name], log, a, b, a, b)
          pcall(log[name], a, b)
        end
        pcall(matrix.set, matrix, a, b, { 1, 0, 0 })
        pcall(matrix.set, matrix, 0, 0, a, b)
        pcall(matrix.get, matrix, a, b)
        pcall(ope.log, { n_arms = a, arm = b, reward = a, propensity = b, context = a, pair = b })
        pcall(ope.log, { n_arms = 2, arm = { a }, reward = { b }, propensity = { 0.5 } })
      end
    end
    collectgarbage()
    assert.equal(4, log:info().n)
  end)
end)
