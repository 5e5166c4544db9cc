-- space_spec.lua - decision spaces: what they refuse, and that every kind maps to [0, 1] and back.

local native = require "evection.native"
local space = require "evection.space"
local support = require "support"

local function dims()
  return {
    space.linear(-3, 7, 0), space.linear(0, 1e-9, 0), space.log(0.1, 365, 30), space.log(1e-8, 0.1, 1e-5), space.int(-2, 2, 0), space.int(0, 1, 1),
    space.int(1, 1000, 7), space.logint(1, 9, 2), space.logint(8, 512, 64), space.choice { "a", "b", "c" }, space.choice { 5, 1, default = 1 },
    space.bool(true), space.bool(),
  }
end

local function values_of(dim)
  if dim.kind == "choice" then return dim.choices end
  if dim.kind == "bool" then return { false, true } end
  local list = {}
  for value = dim.low, dim.high do list[#list + 1] = value end
  return list
end

local function discrete(dim) return dim.kind ~= "linear" and dim.kind ~= "log" end

describe("a dimension", function()
  it("refuses bounds that make no sense", function()
    for _, kind in ipairs { "linear", "log", "int", "logint" } do
      local make = space[kind]
      support.refused("three numbers", make, 1, 2)
      support.refused("three numbers", make, "1", 2, 1)
      support.refused("three numbers", make, 1, 1 / 0, 1)
      support.refused("three numbers", make, 0 / 0, 2, 1)
      support.refused("not below", make, 2, 2, 2)
      support.refused("not below", make, 3, 2, 2)
      support.refused("outside", make, 1, 3, 4)
      support.refused("outside", make, 1, 3, 0)
    end
    support.refused("not positive", space.log, 0, 1, 0.5)
    support.refused("not positive", space.logint, -1, 4, 2)
    support.refused("whole", space.int, 0.5, 3, 2)
    support.refused("whole", space.int, 0, 3.5, 2)
    support.refused("whole", space.logint, 1, 3, 1.5)
  end)

  it("refuses choices that are none", function()
    support.refused("at least two", space.choice, "a")
    support.refused("at least two", space.choice, { "a" })
    support.refused("given twice", space.choice, { "a", "b", "a" })
    support.refused("not among", space.choice, { "a", "b", default = "c" })
    support.refused("is a table", space.choice, { "a", {} })
    support.refused("is a boolean", space.choice, { true, false })
    support.refused("true or false", space.bool, 1)
    support.refused("text of an expression", space.program, "")
    support.refused("text of an expression", space.program, 7)
  end)

  it("has a default that is valid", function()
    for _, dim in ipairs(dims()) do assert.is_true((space.valid(dim, dim.default))) end
    assert.equal(1, space.choice { 5, 1, default = 1 }.default)
    assert.equal("a", space.choice { "a", "b" }.default)
    assert.is_false(space.bool().default)
    assert.is_true((space.valid(space.program "a + b", "a + b")))
  end)

  it("can be copied, and the copy is its own", function()
    for _, dim in ipairs(dims()) do
      local copy = space.copy(dim)
      assert.same(dim, copy)
      assert.are_not.equal(dim, copy)
    end
    support.refused("outside", space.copy, { kind = "linear", low = 0, high = 1, default = 2 })
  end)
end)

describe("validation", function()
  it("takes what lies in the range and nothing else", function()
    local linear, int, choice = space.linear(0, 1, 0.5), space.int(1, 5, 3), space.choice { "a", "b" }
    for _, x in ipairs { 0, 1, 0.25 } do assert.is_true((space.valid(linear, x))) end
    for _, x in ipairs { -1e-9, 1 + 1e-9, 0 / 0, 1 / 0, -1 / 0, "0.5", true, {} } do assert.is_false((space.valid(linear, x))) end
    for _, x in ipairs { 1, 3, 5 } do assert.is_true((space.valid(int, x))) end
    for _, x in ipairs { 0, 6, 2.5, 0 / 0, "3" } do assert.is_false((space.valid(int, x))) end
    for _, x in ipairs { "c", "A", 1, true, {} } do assert.is_false((space.valid(choice, x))) end
    for _, x in ipairs { 0, 1, "true", {} } do assert.is_false((space.valid(space.bool(), x))) end
    assert.is_false((space.valid(space.program "x", ("x"):rep(65537))))
    assert.is_false((space.valid(space.program "x", 3)))
  end)

  it("says why not", function()
    local function why(dim, x) return select(2, space.valid(dim, x)) end
    assert.matches("2 is outside %[0, 1%]", why(space.linear(0, 1, 0.5), 2))
    assert.matches("'x' is not a number", why(space.linear(0, 1, 0.5), "x"))
    assert.matches("2.5 is not a whole number", why(space.int(1, 5, 3), 2.5))
    assert.matches("'c' is not one of a, b", why(space.choice { "a", "b" }, "c"))
  end)

  it("is refused nothing hostile, and takes nothing hostile", function()
    for _, dim in ipairs(dims()) do
      for i = 1, support.n_hostile do
        local x = support.hostile[i]
        local ok = space.valid(dim, x)
        if ok and type(x) == "number" and dim.low then assert.is_true(x >= dim.low and x <= dim.high) end
        if type(x) == "table" or type(x) == "function" or x == nil then assert.is_false(ok) end
      end
    end
  end)
end)

describe("the unit interval", function()
  it("has the bounds of the range at its ends, and nothing beyond them", function()
    for _, dim in ipairs(dims()) do
      local values = discrete(dim) and values_of(dim) or { dim.low, dim.high }
      for _, u in ipairs { -5, -1e-12, 0 } do assert.equal(values[1], space.from_unit(dim, u)) end
      for _, u in ipairs { 1, 1 + 1e-12, 17 } do assert.equal(values[#values], space.from_unit(dim, u)) end
    end
  end)

  it("gives back what was put in", function()
    for _, dim in ipairs(dims()) do
      if discrete(dim) then
        for _, value in ipairs(values_of(dim)) do assert.equal(value, space.from_unit(dim, space.to_unit(dim, value))) end
      else
        for i = 0, 1000 do
          local value = space.from_unit(dim, i / 1000) -- kept to six digits: half a unit of the sixth is lost
          local lost = dim.kind == "log" and 5e-6 / math.log(dim.high / dim.low) or 5e-6 * math.abs(value) / (dim.high - dim.low)
          assert.near(i / 1000, space.to_unit(dim, value), lost * 1.001 + 1e-12)
        end
      end
    end
  end)

  it("is cut into equal shares by whole numbers and choices", function()
    for _, dim in ipairs { space.int(-2, 2, 0), space.choice { "a", "b", "c" }, space.bool() } do
      local values, counts, n = values_of(dim), {}, 30000
      for i = 0, n - 1 do
        local value = space.from_unit(dim, (i + 0.5) / n)
        counts[value] = (counts[value] or 0) + 1
      end
      for _, value in ipairs(values) do assert.near(n / #values, counts[value], 1) end
    end
  end)

  it("gives a logarithmic whole number k the share log((k + ½) / (k − ½)) of its range", function()
    local dim, counts, n = space.logint(1, 9, 2), {}, 100000
    for i = 0, n - 1 do
      local value = space.from_unit(dim, (i + 0.5) / n)
      counts[value] = (counts[value] or 0) + 1
    end
    for k = 1, 9 do assert.near(n * math.log((k + 0.5) / (k - 0.5)) / math.log(9.5 / 0.5), counts[k], 2) end
  end)

  it("has the geometric mean of a logarithmic range in its middle", function()
    assert.near(math.sqrt(0.1 * 365), space.from_unit(space.log(0.1, 365, 30), 0.5), 5e-5)
    assert.near(2, space.from_unit(space.linear(-3, 7, 0), 0.5), 1e-12)
  end)

  it("grows with the value", function()
    for _, dim in ipairs(dims()) do
      if dim.low then
        local last = dim.low
        for i = 0, 999 do
          local value = space.from_unit(dim, i / 999)
          assert.is_true(value >= last)
          last = value
        end
      end
    end
  end)
end)

describe("sampling", function()
  it("stays in the range, whatever the range", function()
    local rng = native.rng(3)
    for _ = 1, 300 do
      local low = (rng:float() - 0.5) * 10 ^ rng:below(12)
      local high = low + 10 ^ (rng:below(20) - 8.0)
      local positive = math.abs(low) + 1e-6
      local list = {}
      if high > low then list[1] = space.linear(low, high, low) end
      list[#list + 1] = space.log(positive, positive * (1 + rng:float() * 1e6), positive)
      list[#list + 1] = space.int(math.floor(low), math.floor(low) + 1 + rng:below(50), math.floor(low))
      list[#list + 1] = space.logint(math.ceil(positive), math.ceil(positive) + 1 + rng:below(50), math.ceil(positive))
      for _, dim in ipairs(list) do
        for _ = 1, 20 do
          local value = space.sample(dim, rng)
          local ok, why = space.valid(dim, value)
          assert.is_true(ok, why)
        end
      end
    end
  end)

  it("is uniform: the greatest distance from the diagonal is that of chance", function()
    local rng, n = native.rng(11), 4000
    for _, dim in ipairs { space.linear(-3, 7, 0), space.log(0.1, 365, 30) } do
      local units, distance = {}, 0
      for i = 1, n do units[i] = space.to_unit(dim, space.sample(dim, rng)) end
      table.sort(units)
      for i, u in ipairs(units) do distance = math.max(distance, math.abs(u - i / n), math.abs(u - (i - 1) / n)) end
      assert.is_true(distance < 1.95 / math.sqrt(n)) -- Kolmogorov and Smirnov at 0.001
    end
  end)

  it("is a matter of the seed alone, and leaves programs be", function()
    for _, dim in ipairs(dims()) do assert.equal(space.sample(dim, native.rng(5)), space.sample(dim, native.rng(5))) end
    assert.equal("rate * decay", space.sample(space.program "rate * decay", native.rng(5)))
  end)
end)

it("a dimension describes itself", function()
  assert.equal("0.1 … 365, log, default 30", space.describe(space.log(0.1, 365, 30)))
  assert.equal("one of a, b, default a", space.describe(space.choice { "a", "b" }))
  assert.equal("bool, default false", space.describe(space.bool()))
end)
