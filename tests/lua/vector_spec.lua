-- vector_spec.lua - vectors against plain Lua loops over the same 32-bit numbers, NaN and infinities included.

local ffi = require "ffi"
local native = require "evection.native"
local support = require "support"

local vector = native.vector
local NAN, INF = 0 / 0, 1 / 0

local function f32(x) return tonumber(ffi.cast("float", x)) end

local function same(a, b) return a == b or (a ~= a and b ~= b) end

-- Values that are hard in some place: signs, zeros, tiny, huge, NaN, infinities; then n random ones.
local function numbers(n, seed)
  local list, rng = { 0, -0.0, 1, -1, 0.5, 1e-45, 1e-38, 3.4e38, -3.4e38, NAN, INF, -INF, 1e10, -1e-10 }, native.rng(seed)
  for _ = 1, n do list[#list + 1] = rng:normal() * 10 ^ (rng:below(9) - 4.0) end
  for i, x in ipairs(list) do list[i] = f32(x) end
  return list
end

local function assert_list(expected, v, relative)
  assert.equal(#expected, #v)
  for i, x in ipairs(expected) do
    local close = same(x, v[i]) or (relative and math.abs(x - v[i]) <= relative * math.abs(x) + 1e-45)
    if not close then error(("element %d: %.9g, not %.9g"):format(i, v[i], x), 2) end
  end
end

local function each(a, fn)
  local list = {}
  for i, x in ipairs(a) do list[i] = fn(x, i) end
  return list
end

describe("a vector", function()
  it("is made of a list, or of zeros", function()
    assert_list({ 0, 0, 0 }, vector(3))
    assert_list({ 1, f32(0.1), NAN }, vector { 1, 0.1, NAN })
    assert.equal(0, #vector(0))
    assert.equal(0, #vector {})
  end)

  it("refuses sizes and elements that are none", function()
    for _, n in ipairs { -1, 0.5, NAN, INF, 2 ^ 26 + 1, 2 ^ 53, 1e300 } do support.refused("whole number", vector, n) end
    support.refused("number expected", vector)
    support.refused("number expected", vector, "x")
    support.refused("element 2.* is a string", vector, { 1, "2" })
    support.refused("element 1.* is a table", vector, { {} })
  end)

  it("is read and written by place, never beside it", function()
    local v = vector { 1, 2, 3 }
    v[2] = 7
    assert.equal(7, v[2])
    assert.equal(3, v:get(3))
    assert.equal(v, v:set(1, 0.1))
    assert.equal(f32(0.1), v[1])
    for _, i in ipairs { 0, 4, -1, 1.5, NAN, INF, -INF, 2 ^ 31, 2 ^ 32 + 1, 2 ^ 53, 1e300 } do
      support.refused("whole number", function() return v[i] end)
      support.refused("whole number", function() v[i] = 1 end)
    end
    support.refused("number expected", function() v[1] = "x" end)
    support.refused("number expected", function() v.x = 1 end)
    support.refused("whole number", function() return vector(0)[1] end)
    assert_list({ f32(0.1), 7, 3 }, v)
  end)

  it("shows what it is, and nothing of its metatable", function()
    assert.equal("vector(3: -1 … 2)", tostring(vector { 0, -1, 2 }))
    assert.equal("vector(0)", tostring(vector(0)))
    assert.is_nil(vector(1).nothing)
    assert.is_nil(vector(1).__gc)
    assert.is_nil(vector(1).__index)
    assert.is_false(getmetatable(vector(1)))
  end)
end)

describe("operators", function()
  local a, b = numbers(500, 1), numbers(500, 2)
  for i = 1, 14 do b[i], b[#b - 14 + i] = b[#b - 14 + i], b[i] end
  local x, y = vector(a), vector(b)

  local exact = {
    ["+"] = { function(p, q) return p + q end, function(p, q) return p + q end },
    ["-"] = { function(p, q) return p - q end, function(p, q) return p - q end },
    ["*"] = { function(p, q) return p * q end, function(p, q) return p * q end },
    ["/"] = { function(p, q) return p / q end, function(p, q) return p / q end },
    gt = { function(p, q) return p:gt(q) end, function(p, q) return p > q and 1 or 0 end },
    max_with = { function(p, q) return p:max_with(q) end, function(p, q) return p > q and p or q end },
    min_with = { function(p, q) return p:min_with(q) end, function(p, q) return p < q and p or q end },
  }
  for name, pair in pairs(exact) do
    it("do element by element what Lua does: " .. name, function()
      local on_vectors, on_numbers = pair[1], pair[2]
      assert_list(each(a, function(p, i) return f32(on_numbers(p, b[i])) end), on_vectors(x, y))
      assert_list(each(a, function(p) return f32(on_numbers(p, 2.5)) end), on_vectors(x, 2.5))
      assert_list(each(a, function(p) return f32(on_numbers(p, NAN)) end), on_vectors(x, NAN))
    end)
  end

  it("take a number on the left", function()
    assert_list(each(a, function(p) return f32(1 - p) end), 1 - x)
    assert_list(each(a, function(p) return f32(1 / p) end), 1 / x)
  end)

  it("take powers and functions to the precision of 32 bits", function()
    assert_list(each(a, function(p, i) return f32(p ^ b[i]) end), x ^ y, 4e-7)
    assert_list(each(a, function(p) return f32(math.log(p)) end), x:log(), 4e-7)
    assert_list(each(a, function(p) return f32(math.exp(p)) end), x:exp(), 4e-7)
    assert_list(each(a, function(p) return f32(math.sqrt(p)) end), x:sqrt(), 1e-7)
    assert_list(each(a, math.abs), x:abs())
    assert_list(each(a, function(p) return -p end), -x)
  end)

  it("leave their operands alone", function()
    local p, q = vector { 1, 2 }, vector { 3, 4 }
    assert.equal(5, #{ p + q, p * 2, -p, p:log():set(1, 9), p:copy():set(1, 9) })
    assert_list({ 1, 2 }, p)
    assert_list({ 3, 4 }, q)
  end)

  it("refuse what does not fit", function()
    local p = vector { 1, 2 }
    support.refused("vectors of", function() return p + vector { 1 } end)
    support.refused("vectors of", function() return vector(0) + p end)
    for _, verb in ipairs { "gt", "max_with", "min_with", "add", "mul", "set" } do
      support.refused(".", p[verb], p) -- an operand is missing
      support.refused(".", p[verb], p, {})
      support.refused(".", p[verb], p, "x")
      support.refused(".", p[verb], p, native.slate())
      support.refused(".", p[verb])
    end
    support.refused(".", function() return p + nil end)
    support.refused(".", function() return p .. p end)
  end)
end)

describe("methods that change", function()
  local a, b = numbers(300, 3), numbers(300, 4)

  it("add a weighted vector or number, the vector itself too", function()
    local v = vector(a)
    assert.equal(v, v:add(vector(b), 0.25))
    for i, x in ipairs(a) do
      local sum = x + 0.25 * b[i] -- fused or rounded between: within an ulp of the larger part
      local slack = 1.2e-7 * math.max(math.abs(x), math.abs(0.25 * b[i])) + 1e-44
      assert.is_true(same(v[i], f32(sum)) or math.abs(v[i] - sum) <= slack, ("element %d: %g, not %g"):format(i, v[i], sum))
    end
    assert_list(each({ 1, -2, 3 }, function(x) return x + 1.5 end), vector { 1, -2, 3 }:add(1.5))
    local w = vector { 1, -2, 3 }
    assert_list({ 3, -6, 9 }, w:add(w, 2))
  end)

  it("multiply, copy over and map", function()
    assert_list(each(a, function(x, i) return f32(x * b[i]) end), vector(a):mul(vector(b)))
    assert_list(b, vector(a):set(vector(b)))
    assert_list(each(a, function() return 7 end), vector(a):set(7))
    assert_list(each(a, function(x, i) return f32(x * x + i) end), vector(a):map(function(x, i) return x * x + i end))
  end)

  it("refuse a map that gives no number, and pass its errors on", function()
    support.refused("number expected", function() vector(2):map(function() return "x" end) end)
    support.refused("number expected", function() vector(2):map(function() end) end)
    support.refused("mine", function() vector(2):map(function() error "mine" end) end)
    support.refused("function expected", function() vector(2):map(3) end)
  end)

  it("normalise to [0, 1], only what the mask keeps, NaN to 0", function()
    assert_list({ 0, 0.5, 1 }, vector { 2, 3, 4 }:normalise())
    assert_list({ 0, 0, 1, 0 }, vector { -100, 2, 4, NAN }:normalise(vector { 0, 1, 1, 1 }))
    assert_list({ 1, 1, 0 }, vector { 5, 5, 9 }:normalise(vector { 1, 1, 0 }))
    assert_list({ 0, 0 }, vector { 5, 6 }:normalise(vector { 0, 0 }))
    assert.equal(0, #vector(0):normalise())
  end)
end)

describe("reductions", function()
  it("sum to within the rounding of 32 bits", function()
    local list, sum = {}, 0
    local rng = native.rng(9)
    for i = 1, 10007 do
      list[i] = f32(rng:normal() * 1000)
      sum = sum + list[i]
    end
    assert.near(sum, vector(list):sum(), 1e-6 * 1000 * math.sqrt(10007))
    assert.equal(0, vector(0):sum())
    local nan, inf = vector { 1, NAN }:sum(), vector { 1, INF }:sum()
    assert.is_true(nan ~= nan)
    assert.equal(INF, inf)
  end)

  it("find the least and the greatest", function()
    for n = 1, 40 do
      local list = {}
      local rng = native.rng(n)
      for i = 1, n do list[i] = f32(rng:normal()) end
      local low, high = vector(list):range()
      assert.equal(math.min(unpack(list)), low)
      assert.equal(math.max(unpack(list)), high)
    end
    local low, high = vector { -INF, 3, INF }:range()
    assert.equal(-INF, low)
    assert.equal(INF, high)
  end)
end)

describe("chances", function()
  it("are a softmax of logits, at a temperature", function()
    for _, temperature in ipairs { 1, 0.25, 8 } do
      local list, sum, rng = {}, 0, native.rng(5)
      for i = 1, 700 do
        list[i] = f32(rng:normal() * 3)
        sum = sum + math.exp(list[i] / temperature)
      end
      local v = vector(list)
      assert.equal(v, v:softmax(temperature))
      assert_list(each(list, function(x) return math.exp(x / temperature) / sum end), v, 1e-5)
    end
    assert_list({ 0.5, 0, 0.5 }, vector { 3, -INF, 3 }:softmax())
    assert.equal(0, #vector(0):softmax())
    for _, t in ipairs { 0, -1, NAN, INF } do support.refused("temperature", function() vector(2):softmax(t) end) end
  end)

  it("have a log-sum-exp that does not overflow", function()
    assert.near(1000 + math.log(2), vector { 1000, 1000 }:logsumexp(), 1e-4)
    assert.near(math.log(math.exp(1) + math.exp(2)), vector { 1, 2, -INF }:logsumexp(), 1e-6)
    assert.equal(-INF, vector(0):logsumexp())
  end)

  it("are drawn from without replacement, the same with the same seed", function()
    local logits = vector { 0, math.log(3), -INF, math.log(6) }
    local first, draws = { 0, 0, 0, 0 }, 4000
    for seed = 1, draws do
      local places = logits:sample(2, seed)
      assert.equal(2, #places)
      assert.is_true(places[1] ~= places[2] and places[1] ~= 3 and places[2] ~= 3)
      first[places[1]] = first[places[1]] + 1
    end
    for i, p in ipairs { 0.1, 0.3, 0, 0.6 } do assert.near(p, first[i] / draws, 4 * math.sqrt(p * (1 - p) / draws)) end
    assert.same(logits:sample(3, 7), vector { 1, 3, 0, 6 }:sample(3, 7, "weights"))
    assert.same(logits:sample(3), logits:sample(3, 1))
    assert.equal(3, #logits:sample(100, 2))
    assert.same({}, logits:sample(0))
    assert.same({}, vector(0):sample(5))
  end)

  it("refuse what is no chance", function()
    support.refused("logit 2 is", function() vector { 0, NAN }:sample(1) end)
    support.refused("weight 2 is", function() vector { 0, -1 }:sample(1, 1, "weights") end)
    support.refused("invalid option", function() vector { 0, 1 }:sample(1, 1, "votes") end)
    for _, k in ipairs { -1, 0.5, NAN } do support.refused("whole number", function() vector(2):sample(k) end) end
  end)
end)

describe("a slate's column", function()
  local function slate_of(n)
    local s = native.slate()
    for i = 1, n do s:push(100 + i, i) end
    return s
  end

  it("is a vector that follows its slate", function()
    local s = slate_of(3)
    local score, x = s.score, s:column "x"
    score:add(10)
    x:set(vector { 1, 2, 3 })
    assert.equal(12, s:score_at(2))
    for i = 1, 1000 do s:push(i, 0) end -- the column's memory moves
    assert.equal(1003, #score)
    assert_list({ 1, 2, 3 }, vector { x[1], x[2], x[3] })
    assert.equal(0, x[4])
    s:truncate(2)
    assert.equal(2, #score)
    support.refused("whole number", function() return score[3] end)
    s:clear()
    assert.equal(0, #score)
    support.refused("no longer", function() return #x end)
  end)

  it("outlives the script's name for the slate", function()
    local score = slate_of(5).score
    for _ = 1, 3 do collectgarbage() end
    assert.equal(15, score:sum())
  end)

  it("of a slate that never held anything is empty", function()
    assert.equal(0, #native.slate().score)
    assert.equal(0, native.slate().score:add(1):sum())
  end)

  it("cannot be mapped out from under itself", function()
    local s = slate_of(4)
    support.refused("changed its length", function()
      s.score:map(function()
        s:truncate(1)
        return 1
      end)
    end)
    local t = slate_of(4)
    local x = t:column "x"
    support.refused("no longer", function()
      x:map(function()
        t:clear()
        return 1
      end)
    end)
  end)
end)
