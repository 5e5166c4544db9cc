-- proposers_spec.lua - random, halving, tpe, cma: a matter of the seed, inside the space, and worth their evaluations.

local native = require "evection.native"
local cma = require "evection.evolve.cma"
local halving = require "evection.evolve.halving"
local loop = require "evection.evolve.loop"
local random = require "evection.evolve.random"
local space = require "evection.space"
local tpe = require "evection.evolve.tpe"

local modules = { random = random, halving = halving, tpe = tpe, cma = cma }

local function mixed()
  local dims = {
    { path = "a.linear", dim = space.linear(-3, 7, 0) }, { path = "a.log", dim = space.log(1e-4, 10, 0.05) }, { path = "b.int", dim = space.int(-5, 40, 3) },
    { path = "b.logint", dim = space.logint(1, 1000, 200) }, { path = "c.choice", dim = space.choice { "x", "y", "z" } },
    { path = "c.bool", dim = space.bool(false) },
  }
  for _, d in ipairs(dims) do d.value = d.dim.default end
  return dims
end

-- The smooth bowl all tests climb: 0 at the target in unit coordinates, worse with the square of the distance.
local target = { 0.8, 0.25, 0.6, 0.35, "z", true }
local function bowl(dims, sets)
  local sum = 0
  for i, d in ipairs(dims) do
    local value = sets[d.path]
    if value == nil then value = d.value end
    if type(target[i]) == "number" then sum = sum - (space.to_unit(d.dim, value) - target[i]) ^ 2
    elseif value ~= target[i] then sum = sum - 0.2 end
  end
  return sum
end

-- The loop with these proposers; reward(e) may give nil and an error. → history
local function evolve(names, dims, total, seed, reward, batch)
  local proposers = {}
  for i, name in ipairs(names) do proposers[i] = { name = name, module = modules[name] } end
  return loop.run {
    dims = dims, proposers = proposers, evaluations = total, batch = batch or 4, seed = seed, recorded = {}, record = function() end,
    evaluate = function(list, done)
      for _, e in ipairs(list) do
        e.reward, e.error = reward(e)
        done(e)
      end
    end,
  }
end

local function state_of(dims, history, seed, batch, total)
  return { dims = dims, history = history, total = total or 100, budget = (total or 100) - #history, batch = batch or 4, rng = native.rng(seed, #history + 1) }
end

describe("every proposer", function()
  for name, module in pairs(modules) do
    it("is a matter of seed and history alone: " .. name, function()
      local dims = mixed()
      local function bowl_of(e) return bowl(dims, e.sets) end
      local history = evolve({ "random" }, dims, 30, 5, bowl_of)
      local one, two = module.propose(state_of(dims, history, 7)), module.propose(state_of(dims, history, 7))
      assert.equal(native.json_encode(one), native.json_encode(two))
      assert.are_not.equal(native.json_encode(one), native.json_encode(module.propose(state_of(dims, history, 8))))
      local function run(seed) return native.json_encode(evolve({ name }, dims, 40, seed, bowl_of)) end
      assert.equal(run(1), run(1))
      assert.are_not.equal(run(1), run(2))
    end)

    it("stays in the space and in its budget, whatever fails: " .. name, function()
      local dims = mixed()
      for seed = 1, 5 do
        for _, total in ipairs { 1, 2, 5, 9, 60 } do
          local rng = native.rng(seed, 99)
          local history = evolve({ name }, dims, total, seed, function(e)
            local luck = rng:float()
            if luck < 0.3 then return nil, "failed" end
            if luck < 0.4 then return -1e300 end
            if luck < 0.5 then return 0 end -- many equals
            return bowl(dims, e.sets)
          end, seed)
          assert.is_true(#history <= total)
          for _, e in ipairs(history) do
            for path, value in pairs(e.sets) do
              local dim
              for _, d in ipairs(dims) do dim = d.path == path and d.dim or dim end
              assert(space.valid(dim, value))
            end
            assert.is_true(e.users > 0 and e.users <= 1)
            assert.is_true(e.number == 1 or (e.parent >= 1 and e.parent < e.number and #e.reason > 0))
          end
        end
      end
    end)

    it("proposes no more than a batch, also when everything failed: " .. name, function()
      local dims = mixed()
      local failed = evolve({ "random" }, dims, 20, 1, function() return nil, "failed" end)
      for _, batch in ipairs { 1, 3, 50 } do
        for _, history in ipairs { {}, failed } do
          local proposals = module.propose(state_of(dims, history, 3, batch, 25))
          assert.is_true(#proposals <= batch)
          for _, p in ipairs(proposals) do
            for _, d in ipairs(dims) do assert(space.valid(d.dim, p.sets[d.path])) end
          end
        end
      end
    end)
  end
end)

describe("random", function()
  it("covers the space evenly", function()
    local dims, counts, n = mixed(), {}, 3000
    for _, p in ipairs(random.propose(state_of(dims, {}, 1, n, n))) do
      local key = ("%d %s %s"):format(math.floor(4 * space.to_unit(dims[1].dim, p.sets["a.linear"])), p.sets["c.choice"], tostring(p.sets["c.bool"]))
      counts[key] = (counts[key] or 0) + 1
    end
    local chi, cells = 0, 0
    for _, count in pairs(counts) do
      chi, cells = chi + (count - n / 24) ^ 2 / (n / 24), cells + 1
    end
    assert.equal(24, cells)
    assert.is_true(chi < 49.7) -- χ² with 23 degrees of freedom at 0.001
  end)
end)

describe("tpe", function()
  it("finds the optimum of a smooth function better than random, over seeds", function()
    local dims, wins, sums = mixed(), 0, { tpe = 0, random = 0 }
    for seed = 1, 12 do
      local best = {}
      for name in pairs(sums) do
        best[name] = loop.champion(evolve({ name }, dims, 80, seed, function(e) return bowl(dims, e.sets) end)).reward
        sums[name] = sums[name] + best[name] / 12
      end
      if best.tpe > best.random then wins = wins + 1 end
    end
    assert.is_true(wins >= 10, ("%d wins of 12"):format(wins))
    assert.is_true(sums.tpe > 0.35 * sums.random, ("%g, random %g"):format(sums.tpe, sums.random)) -- both negative: nearer to 0
    assert.is_true(sums.tpe > -0.05)
  end)

  it("finds it through noise, too", function()
    local dims, sums = mixed(), { tpe = 0, random = 0 }
    for seed = 1, 8 do
      for name in pairs(sums) do
        local rng = native.rng(seed, 5)
        local history = evolve({ name }, dims, 80, seed, function(e) return bowl(dims, e.sets) + 0.03 * rng:normal() end)
        sums[name] = sums[name] + bowl(dims, loop.champion(history).sets) / 8 -- what the champion is worth, not what it was lucky to get
      end
    end
    assert.is_true(sums.tpe > 0.7 * sums.random, ("%g, random %g"):format(sums.tpe, sums.random))
  end)

  it("does not look at partial measurements nor at failures", function()
    local dims = mixed()
    local function with(extra)
      local history = evolve({ "random" }, dims, 20, 3, function(e) return bowl(dims, e.sets) end)
      for i = 1, 15 do
        local e = extra(i)
        e.number, e.sets, e.rung, e.proposer = #history + 1, { ["a.linear"] = -3 + i / 3 }, 0, "halving"
        history[#history + 1] = e
      end
      return native.json_encode(tpe.propose(state_of(dims, history, 9, 8, 200)))
    end
    local one = with(function() return { users = 1 / 3, reward = 100 } end)
    assert.equal(one, with(function() return { users = 1 / 3, reward = -100 } end))
    assert.equal(one, with(function() return { users = 1, error = "failed" } end))
    assert.are_not.equal(one, with(function() return { users = 1, reward = 100 } end))
  end)

  it("does not freeze on one point", function()
    local dims, seen, n = { mixed()[1] }, {}, 0
    for _, e in ipairs(evolve({ "tpe" }, dims, 60, 1, function() return 0.5 end)) do
      local value = e.sets["a.linear"] or 0
      if not seen[value] then seen[value], n = true, n + 1 end
    end
    assert.is_true(n > 50)
  end)
end)

describe("cma", function()
  it("finds the optimum of many knobs that depend on each other, where random does not", function()
    local dims = {}
    for i = 1, 6 do
      dims[i] = { path = "a.k" .. i, dim = space.linear(0, 1, 0.5) }
      dims[i].value = 0.5
    end
    local function ridge(e) -- long and narrow, along no axis: its bottom is at 0.3 … 0.55
      local sum, x = 0, {}
      for i, d in ipairs(dims) do x[i] = (e.sets[d.path] or 0.5) - (0.25 + 0.05 * i) end
      for i = 1, 6 do sum = sum - x[i] ^ 2 - 100 * (x[i] - (x[i + 1] or x[1])) ^ 2 end
      return sum
    end
    for seed = 1, 3 do
      local best = loop.champion(evolve({ "cma" }, dims, 600, seed, ridge)).reward
      local luck = loop.champion(evolve({ "random" }, dims, 600, seed, ridge)).reward
      assert.is_true(best > -0.02 and luck < -0.5, ("seed %d: %g, random %g"):format(seed, best, luck))
    end
  end)

  it("proposes the same generation whatever the batch", function()
    local dims = mixed()
    local function points(batch)
      local list = {}
      for i, e in ipairs(evolve({ "cma" }, dims, 40, 1, function(e) return bowl(dims, e.sets) end, batch)) do list[i] = native.json_encode(e.sets) end
      return list
    end
    assert.same(points(3), points(50))
  end)
end)

describe("halving", function()
  local total = 60
  local starters = math.floor(0.5 * total / (1 + 1 / 3 + 1 / 9)) -- half of the budget, over all rungs

  -- The rungs of a run, each in order of number.
  local function rungs(history)
    local list = { [0] = {}, {}, {} }
    for _, e in ipairs(history) do
      if e.proposer == "halving" then table.insert(list[e.rung], e) end
    end
    return list
  end

  local function best_of(rung, n)
    local good = {}
    for _, e in ipairs(rung) do
      if e.reward then good[#good + 1] = e end
    end
    table.sort(good, function(a, b) return a.reward > b.reward or (a.reward == b.reward and a.number < b.number) end)
    local best = {}
    for i = 1, math.min(n, #good) do best[i] = good[i] end
    return best
  end

  -- Each rung is the best third of the one before, best first, on three times the users.
  local function assert_promotes(history)
    local rung = rungs(history)
    local shares = { [0] = 1 / 9, 1 / 3, 1 }
    assert.equal(starters, #rung[0])
    for r = 0, 2 do
      for _, e in ipairs(rung[r]) do assert.equal(shares[r], e.users) end
    end
    for r = 1, 2 do
      local expected = best_of(rung[r - 1], math.floor(starters / 3 ^ r))
      assert.equal(#expected, #rung[r])
      for i, parent in ipairs(expected) do
        assert.equal(parent.number, rung[r][i].parent)
        assert.same(parent.sets, rung[r][i].sets)
      end
    end
  end

  it("promotes the best third of each rung, in any batch", function()
    local dims = mixed()
    for seed = 1, 6 do
      for _, batch in ipairs { 1, 4, 7, 100 } do assert_promotes(evolve({ "halving" }, dims, total, seed, function(e) return bowl(dims, e.sets) end, batch)) end
    end
  end)

  it("goes by what was measured on the rung itself, never promotes a failure, takes the first of equals", function()
    local dims = mixed()
    for seed = 1, 6 do
      local rng = native.rng(seed, 3)
      assert_promotes(evolve({ "halving" }, dims, total, seed, function() return rng:normal() end)) -- another reward on each rung
      assert_promotes(evolve({ "halving" }, dims, total, seed, function()
        if rng:float() < 0.5 then return nil, "failed" end
        return rng:normal()
      end))
      assert_promotes(evolve({ "halving" }, dims, total, seed, function() return 1 end))
    end
  end)

  it("finds the best of what it drew when small measurements tell", function()
    local dims = mixed()
    for seed = 1, 6 do
      local history = evolve({ "halving" }, dims, total, seed, function(e) return bowl(dims, e.sets) end)
      local first, last = rungs(history)[0], rungs(history)[2]
      assert.equal(best_of(first, 1)[1].reward, best_of(last, 1)[1].reward)
    end
  end)

  it("leaves the other half of the budget to others", function()
    local dims = mixed()
    local history = evolve({ "halving", "tpe" }, dims, total, 1, function(e) return bowl(dims, e.sets) end)
    local by = {}
    for _, e in ipairs(history) do by[e.proposer] = (by[e.proposer] or 0) + 1 end
    assert.equal(total, #history)
    assert.equal(1, by.given)
    assert.equal(starters + math.floor(starters / 3) + math.floor(starters / 9), by.halving)
    assert.is_true(by.tpe > total / 3)
  end)

  it("ends early when all it drew failed", function()
    local history = evolve({ "halving" }, mixed(), total, 1, function() return nil, "failed" end)
    assert.equal(1 + starters, #history)
    assert.is_nil(loop.champion(history))
  end)
end)

it("a proposer is asked with numbers of its own for each batch", function()
  local dims = mixed()
  local history = evolve({ "random" }, dims, 41, 1, function() return 0 end)
  local seen = {}
  for _, e in ipairs(history) do
    local text = native.json_encode(e.sets)
    assert.is_nil(seen[text])
    seen[text] = true
  end
end)
