-- sequential_spec.lua - sequential statistics from scripts: lists and vectors alike, saved and loaded, nonsense refused.

local native = require "evection.native"
local sequential = require "evection.sequential"
local support = require "support"

describe("a confidence sequence", function()
  it("takes numbers, lists and vectors alike", function()
    local rng, list = native.rng(3), {}
    for i = 1, 500 do list[i] = rng:float() < 0.25 and 1 or 0 end
    for _, kind in ipairs { "betting", "bernstein", "drifting" } do
      local one, many, vector = sequential.mean { kind = kind }, sequential.mean { kind = kind }, sequential.mean { kind = kind }
      for _, x in ipairs(list) do one:add(x) end
      many:add(list)
      vector:add(native.vector(list))
      assert.same({ one:interval() }, { many:interval() })
      assert.same({ one:interval() }, { vector:interval() })
      local low, high, value = one:interval()
      assert.is_true(low < value and value < high and low > 0.1 and high < 0.5)
      assert.equal(500, #one)
      assert.is_false(one:drifted())
    end
  end)

  it("goes on from where it was saved", function()
    for _, s in ipairs { sequential.mean { low = -1, high = 2 }, sequential.mean { kind = "drifting", confidence = 0.9 } } do
      s:add { 0.1, 0.9, 0.3, 0.2 }
      local t = sequential.load(s:save())
      s:add(0.5)
      t:add(0.5)
      assert.same({ s:interval() }, { t:interval() })
      assert.equal(5, #t)
    end
  end)

  it("weighs rewards", function()
    local s, plain = sequential.mean(), sequential.mean()
    s:add({ 1, 0, 1 }, { 1, 1, 1 })
    plain:add { 1, 0, 1 }
    assert.same({ plain:interval() }, { s:interval() })
    s:add(1, 25)
    assert.near((0.5 * 1 - 0.5 + 0.5 + 25 * 0.5) / 4 + 0.5, select(3, s:interval()), 1e-9)
  end)

  it("refuses what makes no sense", function()
    local s = sequential.mean()
    support.refused("reward 2 is 1.5", s.add, s, { 0.5, 1.5 })
    support.refused("weight 1 is %-1", s.add, s, 1, -1)
    support.refused("2 rewards with 1 weights", s.add, s, { 1, 1 }, { 1 })
    support.refused("number 2 of the list is a string", s.add, s, { 1, "x" })
    support.refused("none of those there are", sequential.mean, { kind = "magic" })
    support.refused("no option 'kin'", sequential.mean, { kin = "betting" })
    support.refused("confidence", sequential.mean, { confidence = 1 })
    support.refused("rewards from", sequential.mean, { low = 2, high = 1 })
    local text = s:save()
    support.refused("no saved", sequential.load, text:sub(1, -2))
    support.refused("no saved", sequential.load, text:sub(1, 100) .. "x" .. text:sub(102))
    support.refused("no saved", sequential.load, "")
  end)
end)

describe("a canary", function()
  it("promotes what is better and rolls back what is worse", function()
    for _, case in ipairs { { 0.1, 0.3, "promote" }, { 0.3, 0.1, "roll back" } } do
      local c, rng = sequential.canary(), native.rng(5)
      local decision, n = "go on", 0
      while decision == "go on" and n < 5000 do
        local challenger = rng:float() < 0.2
        decision = c:add(challenger, rng:float() < (challenger and case[2] or case[1]) and 1 or 0, 0.2)
        n = n + 1
      end
      local r, again = c:result(), sequential.load(c:save()):result()
      assert.equal(case[3], decision)
      assert.same(r, again)
      assert.equal(n, r.n_champion + r.n_challenger)
      assert.equal(case[3], r.decision)
      if decision == "promote" then assert.is_true(r.better >= 20 and r.p <= 0.05) else assert.is_true(r.worse >= 20) end
    end
  end)

  it("takes many events at once, and refuses nonsense", function()
    local a, b = sequential.canary { margin = 0.01 }, sequential.canary { margin = 0.01 }
    local arms, rewards = { 1, 0, 0, 1, 1 }, { 1, 0, 1, 1, 0 }
    for i = 1, 5 do a:add(arms[i] == 1, rewards[i], 0.5) end
    b:add(native.vector(arms), rewards, 0.5)
    assert.same(a:result(), b:result())
    support.refused("0 is the champion", b.add, b, { 2 }, { 1 }, 0.5)
    support.refused("a share of 1", b.add, b, true, 1, 1)
    support.refused("a reward of 3", b.add, b, true, 3, 0.5)
    assert.is_nil(sequential.canary():result().challenger)
  end)
end)

describe("many challengers", function()
  it("are adjusted for their number", function()
    local function near(wanted, got) for i, x in ipairs(wanted) do assert.near(x, got[i], 1e-9) end end
    local p = { 0.01, 0.04, 0.03, 0.005 }
    near({ 0.03, 0.06, 0.06, 0.02 }, sequential.adjust(p, "holm"))
    near({ 0.02, 0.04, 0.04, 0.02 }, sequential.adjust(p, "bh"))
    near({ 0.02, 0.04, 0.04, 0.02 }, sequential.adjust({ 100, 25, 100 / 3, 200 }, "e-bh"))
    support.refused("p-value 2", sequential.adjust, { 0.5, 2 })
  end)

  it("are tested one after the other", function()
    for _, method in ipairs { "e-lond", "lord++" } do
      local o = sequential.online { method = method, level = 0.1 }
      local first = o:level()
      assert.near((method == "e-lond" and 0.1 or 0.05) / 2.2857656656801293, first, 1e-9)
      local found, level = o:test(method == "e-lond" and 1000 or 0.0001)
      assert.is_true(found)
      assert.equal(first, level)
      o = sequential.load(o:save())
      assert.is_false((o:test(method == "e-lond" and 1 or 0.5)))
    end
  end)
end)
