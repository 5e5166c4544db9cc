-- json_spec.lua - JSON: what is refused, what comes back as it went, and that equal values give equal text.

local native = require "evection.native"
local support = require "support"

local encode, decode, array = native.json_encode, native.json_decode, native.array

local function nested(n, open, close) return open:rep(n) .. close:rep(n) end

-- A random value that JSON can say: no NaN, no empty holes.
local function value(rng, depth)
  local kind = rng:below(depth > 0 and 6 or 4)
  if kind == 0 then return rng:normal() * 10 ^ (rng:below(40) - 20.0) end
  if kind == 1 then return rng:below(2 ^ 31) - 2.0 ^ 30 end
  if kind == 2 then return rng:below(2) == 0 end
  if kind == 3 then
    local chars = { "a", "\"", "\\", "/", "\n", "\t", "\1", "\127", "\0", "é", "→", "\240\159\140\153", " ", "{" }
    local parts = {}
    for i = 1, rng:below(9) do parts[i] = chars[rng:below(#chars) + 1] end
    return table.concat(parts)
  end
  local t = kind == 4 and array {} or {}
  for i = 1, rng:below(6) do t[kind == 4 and i or "k" .. rng:below(100)] = value(rng, depth - 1) end
  return t
end

local function shuffled(t, rng) -- the same table, its keys put in another order
  if type(t) ~= "table" then return t end
  local keys, copy = {}, getmetatable(t) and array {} or {}
  for key in pairs(t) do keys[#keys + 1] = key end
  if getmetatable(t) then
    for i = 1, #t do copy[i] = shuffled(t[i], rng) end
    return copy
  end
  for i = #keys, 2, -1 do
    local j = rng:below(i) + 1
    keys[i], keys[j] = keys[j], keys[i]
  end
  for _, key in ipairs(keys) do copy[key] = shuffled(t[key], rng) end
  return copy
end

describe("what is written", function()
  it("has its keys sorted and its numbers short", function()
    assert.equal([[{"a":1,"b":[1,2.5,-0.1],"c":{"d":true}}]], encode { c = { d = true }, b = { 1, 2.5, -0.1 }, a = 1 })
    assert.equal("[]", encode(array {}))
    assert.equal("{}", encode {})
    assert.equal("null", encode(nil))
    assert.equal("0", encode(-0.0))
    assert.equal("1e+300", encode(1e300))
    assert.equal("0.1", encode(0.1))
    assert.equal("4503599627370497", encode(2 ^ 52 + 1))
  end)

  it("has no word for NaN and infinities but null", function()
    assert.equal("[null,null,null]", encode { 0 / 0, 1 / 0, -1 / 0 })
  end)

  it("escapes what must be, and leaves UTF-8 as it is", function()
    assert.equal([["\"\\\n\u0009\u0000é"]], encode "\"\\\n\t\0é")
  end)

  it("is refused where there is no such form", function()
    support.refused("function", encode, { a = function() end })
    support.refused("userdata", encode, native.vector(1))
    support.refused("number key", encode, { 1, x = 2 })
    support.refused("number key", encode, { [1.5] = 1 })
    support.refused("number key", encode, { nil, 2, x = 1 })
    support.refused("key", encode, { [true] = 1 })
    support.refused("NUL", encode, { ["a\0b"] = 1 })
    support.refused("UTF%-8", encode, "\255")
    support.refused("UTF%-8", encode, { ["\192\128"] = 1 })
    support.refused("UTF%-8", encode, "\237\160\128") -- half a surrogate pair
    support.refused("value expected", encode)
  end)

  it("ends at 64 levels, so that a circle ends too", function()
    local t = 1
    for _ = 1, 64 do t = { t } end
    assert.equal(nested(64, "[", "]"):gsub("%[%]", "[1]"), encode(t))
    support.refused("deeper than 64", encode, { t })
    local circle = {}
    circle.circle = circle
    support.refused("deeper than 64", encode, circle)
  end)
end)

describe("what is read", function()
  it("becomes Lua's values; null is nil", function()
    assert.same({ a = { 1, 2 }, b = "x", c = true }, decode [[ {"a": [1, 2], "b": "x", "c": true, "d": null} ]])
    assert.equal("é→", decode [["\u00e9\u2192"]])
    assert.equal("\240\159\140\153", decode [["\ud83c\udf19"]])
    assert.equal("a\0b", decode [["a\u0000b"]])
    assert.is_nil(decode "null")
    assert.equal("[]", encode(decode "[]"))
    assert.equal("{}", encode(decode "{}"))
    assert.equal(-1.5e-7, decode "-1.5e-7")
  end)

  it("must be one whole document", function()
    for _, text in ipairs { "", " ", "{", "[1,", "[1 2]", "{\"a\"}", "{a: 1}", "'a'", "nul", "1 2", "[1]]", "[1,]", "{\"a\":1,}", "01", "1.", ".5", "+1", "NaN",
      "Infinity", "-", "\"\\x\"", "\"\\ud800\"", "\"a\nb\"", "\"a", "// x\n1", "\0" } do
      support.refused("JSON, line %d", decode, text)
    end
  end)

  it("must be UTF-8, and numbers that a double holds", function()
    for _, bad in ipairs { "\255", "\192\128", "\237\160\128", "\244\144\128\128", "\226\130" } do support.refused("JSON", decode, '"' .. bad .. '"') end
    support.refused("JSON", decode, "1e400")
    support.refused("JSON", decode, "-1e999")
    support.refused("JSON", decode, ("9"):rep(400))
  end)

  it("may not give a key twice", function()
    support.refused("duplicate", decode, [[{"a": 1, "a": 2}]])
    support.refused("duplicate", decode, [[{"a": 1, "\u0061": 2}]])
    support.refused("duplicate", decode, [[{"x": {"a": null, "a": null}}]])
    assert.same({ a = 1, b = { a = 2 } }, decode [[{"a": 1, "b": {"a": 2}}]])
  end)

  it("says in which line it is wrong", function()
    support.refused("line 3", decode, "{\n\"a\": 1,\n oops\n}")
  end)

  it("is bounded in depth, however deep the text", function()
    assert.is_table(decode(nested(1000, "[", "]")))
    for _, n in ipairs { 2050, 100000, 1000000 } do
      support.refused("JSON", decode, nested(n, "[", "]"))
      support.refused("JSON", decode, ("["):rep(n))
      support.refused("JSON", decode, string.rep('{"a":', n))
    end
  end)

  it("may be large in breadth", function()
    local list = {}
    for i = 1, 100000 do list[i] = i end
    assert.equal(100000, #decode(encode(list)))
  end)

  it("takes only text", function()
    for i = 1, support.n_hostile do
      local x = support.hostile[i]
      if type(x) ~= "number" and type(x) ~= "string" then support.refused("string expected", decode, x) end
    end
  end)
end)

describe("there and back", function()
  it("every number is itself again", function()
    local rng = native.rng(21)
    for _ = 1, 5000 do
      local x = rng:normal() * 10 ^ (rng:below(600) - 300.0)
      assert.equal(x, decode(encode(x)))
    end
    for _, x in ipairs { 2 ^ 53, -2 ^ 53, 9e15, 9e15 - 1, 1 / 3, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1 + 0.2 } do
      assert.equal(x, decode(encode(x)))
    end
  end)

  it("every tree is itself again, and its text does not depend on the order of its making", function()
    local rng = native.rng(22)
    for _ = 1, 500 do
      local t = value(rng, 5)
      local text = encode(t)
      assert.same(t, decode(text))
      assert.equal(text, encode(shuffled(t, rng)))
      assert.equal(text, encode(decode(text)))
    end
  end)
end)

it("garbage is refused or read, and never more", function()
  local rng = native.rng(23)
  local seeds = { [[{"a": [1, 2.5e3, "x\u00e9\n", null, true], "b": {"c": []}}]], "[[[[1]]],{}]", [["\ud83c\udf19"]] }
  for _ = 1, 5000 do
    local text = seeds[rng:below(#seeds) + 1]
    for _ = 1, rng:below(4) + 1 do
      local at = rng:below(#text) + 1
      text = text:sub(1, at - 1) .. string.char(rng:below(256)) .. text:sub(at + rng:below(3))
    end
    local ok, tree = pcall(decode, text)
    if ok then encode(tree) end
  end
end)
