-- index_spec.lua - indices in memory, against scores worked out in Lua; and that no argument does them harm.

local index = require "evection.index"
local native = require "evection.native"
local support = require "support"

local words = support.words

local d = 12
local rng = native.rng(7)

local function random_vector()
  local v = {}
  for i = 1, d do v[i] = rng:normal() end
  return v
end

local function dot(a, b)
  local sum = 0
  for i = 1, d do sum = sum + a[i] * b[i] end
  return sum
end

-- The k best rows by score, then by row.
local function best(vectors, q, k, may)
  local list = {}
  for row, v in pairs(vectors) do
    if may == nil or may(row) then list[#list + 1] = { row = row, score = dot(q, v) } end
  end
  table.sort(list, function(a, b) return a.score > b.score or (a.score == b.score and a.row < b.row) end)
  local rows = {}
  for i = 1, math.min(k, #list) do rows[i] = list[i].row end
  return rows
end

-- An index of n random vectors and the vectors by row.
local function make(kind, n)
  local x = index.new { kind = kind, form = "f32", n_dims = d, seed = 3 }
  local vectors, list = {}, {}
  for i = 1, n do
    list[i] = random_vector()
    vectors[i - 1] = list[i]
  end
  x:put(0, list)
  return x, vectors
end

describe("an index", function()
  it("of each kind finds the best rows, given the effort, and leaves out what is deleted", function()
    for _, kind in ipairs { "flat", "hnsw", "ivf" } do
      local x, vectors = make(kind, 400)
      for row = 0, 399, 2 do
        vectors[row] = nil
        x:delete(row)
      end
      for _ = 1, 20 do
        local q = random_vector()
        assert.same(best(vectors, q, 10), (x:search(q, 10, { effort = 400 })))
        assert.same(best(vectors, q, 10, function(row) return row == 1 or row == 77 end), (x:search(q, 10, { allowed = { 77, 1, 2 } })))
      end
      for row = 0, 399, 2 do
        vectors[row] = random_vector()
        x:put(row, vectors[row])
      end
      local q = random_vector()
      assert.same(best(vectors, q, 10), (x:search(q, 10, { effort = 400 })))
    end
  end)

  it("finds the best rows, as many as there are", function()
    local x, vectors = make("flat", 300)
    assert.equal(300, #x)
    for _, k in ipairs { 1, 10, 300, 500 } do
      local q = random_vector()
      local rows, scores, looked_at = x:search(q, k)
      assert.same(best(vectors, q, k), rows)
      assert.equal(#rows, #scores)
      assert.equal(300, looked_at)
      for i, row in ipairs(rows) do assert.near(dot(q, vectors[row]), scores[i], 1e-4) end
    end
  end)

  it("leaves out what is excluded, not allowed or deleted", function()
    local x, vectors = make("flat", 200)
    local q, allowed, exclude, gone = random_vector(), {}, {}, {}
    for row = 0, 199, 3 do allowed[#allowed + 1] = row end
    for row = 0, 199, 5 do exclude[#exclude + 1] = row end
    for row = 0, 199, 7 do gone[#gone + 1] = row end
    assert.same(best(vectors, q, 20, function(row) return row % 3 == 0 and row % 5 ~= 0 end), (x:search(q, 20, { allowed = allowed, exclude = exclude })))
    x:delete(gone)
    x:delete(1)
    assert.equal(200 - #gone - 1, #x)
    local function left(row) return row % 7 ~= 0 and row ~= 1 end
    assert.same(best(vectors, q, 20, left), (x:search(q, 20)))
    assert.same({}, (x:search(q, 20, { allowed = {} })))
    assert.is_false(x:has(0))
    assert.is_true(x:has(2))
    assert.is_nil(x:get(0))
    local v = x:get(2)
    for i = 1, d do assert.near(vectors[2][i], v[i], 1e-6) end
  end)

  it("answers many queries as it answers each", function()
    local x = make("flat", 150)
    local queries = {}
    for i = 1, 9 do queries[i] = random_vector() end
    local rows, scores = x:search_many(queries, 7, { exclude = { 3, 5, 8 } })
    assert.equal(9, #rows)
    for i, q in ipairs(queries) do
      local r, s = x:search(q, 7, { exclude = { 8, 5, 3, 3 } })
      assert.same(r, rows[i])
      for k = 1, 7 do assert.near(s[k], scores[i][k], 1e-4) end
    end
  end)

  it("takes vectors in each form there is: lists, vectors, many in one", function()
    local x = index.new { kind = "flat", n_dims = 2, form = "f32" }
    x:put(5, { 1, 2 })
    x:put({ 0, 9 }, { { 3, 4 }, native.vector { 5, 6 } })
    x:put(20, native.vector { 7, 8, 9, 10 })
    x:put({ 30, 31 }, { 11, 12, 13, 14 })
    assert.equal(7, #x)
    assert.equal(14, x:get(31)[2])
    assert.equal(8, x:get(20)[2])
    assert.same({ 31, 30, 21, 20, 9, 0, 5 }, (x:search(native.vector { 1, 1 }, 10)))
  end)

  it("may be saved and opened", function()
    local x, vectors = make("flat", 100)
    local path, q = support.folder .. "/saved.index", random_vector()
    x:save(path)
    local y = index.open(path)
    assert.same(best(vectors, q, 10), (y:search(q, 10)))
    y:put(100, random_vector())
    assert.equal(101, #y)
    assert.equal(100, #x)
    support.refused("not an index", function() index.open(support.data("tiny", 90)) end)
    support.refused("No such file", index.open, support.folder .. "/none")
    support.refused("", x.save, x, "/nowhere/at/all")
  end)

  it("tells what it is", function()
    local x = make("flat", 10)
    local stats = x:stats()
    assert.equal("flat", stats.kind)
    assert.equal("dot", stats.metric)
    assert.equal("f32", stats.form)
    assert.equal(d, stats.n_dims)
    assert.equal(10, stats.n)
    assert.is_true(stats.bytes > 10 * d * 4)
    assert.equal("index(flat, dot, f32: 10 vectors of 12)", tostring(x))
    x:close()
    assert.equal("index(closed)", tostring(x))
    x:close()
  end)
end)

describe("a wrong call", function()
  it("is refused, and says why", function()
    local x = make("flat", 10)
    support.refused("n_dims", index.new, { kind = "flat" })
    support.refused("metric: 'x'", index.new, { n_dims = 2, metric = "x" })
    support.refused("no option 'metrik'", index.new, { n_dims = 2, metrik = "l2" })
    support.refused("no option 'number'", index.new, { 2 })
    support.refused("not a whole number", index.new, { n_dims = 2.5 })
    support.refused("not between", index.new, { n_dims = 65537 })
    support.refused("table expected", index.new)
    support.refused("row 3", x.put, x, 3, random_vector())
    support.refused("have 12", x.put, x, 30, { 1, 2, 3 })
    support.refused("have 12", x.put, x, 30, { { 1, 2, 3 } })
    support.refused("vector 2 is a number", x.put, x, 30, { random_vector(), 3 })
    support.refused("number 1 is nan", x.put, x, 30, { { 0 / 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 } })
    support.refused("number 12 is a string", x.put, x, 30, { { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, "1" } })
    support.refused("1e%+300", x.put, x, 30, { { 1e300, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 } })
    support.refused("3 rows for 2 vectors", x.put, x, { 30, 31, 32 }, { random_vector(), random_vector() })
    support.refused("not a whole number", x.put, x, -1, random_vector())
    support.refused("not a whole number", x.put, x, 4294967295, random_vector())
    support.refused("", x.put, x, 4294967294, { random_vector(), random_vector() })
    support.refused("20", x.delete, x, { 1, 20 })
    support.refused("one vector", x.search, x, { random_vector(), random_vector() }, 3)
    support.refused("whole number from 1", x.search, x, random_vector(), 0)
    support.refused("no option 'where'", x.search, x, random_vector(), 3, { where = "x == 1" })
    support.refused("not a whole number", x.search, x, random_vector(), 3, { allowed = { 0.5 } })
    assert.equal(10, #x)
    assert.is_true(x:has(1))
    x:close()
    for _, name in ipairs(words "put delete search search_many") do support.refused("closed", x[name], x, 1, random_vector()) end
    for _, name in ipairs(words "has get") do support.refused("closed", x[name], x, 1) end
    support.refused("closed", x.stats, x)
    support.refused("closed", x.save, x, support.folder .. "/closed")
    support.refused("closed", function() return #x end)
  end)

  it("of any kind does no harm", function()
    local x, y = make("flat", 20), make("flat", 5)
    local list, n = {}, support.n_hostile
    for i = 1, n do list[i] = support.hostile[i] end
    for _, v in ipairs { native.vector(d), native.vector(3), random_vector(), { random_vector() }, { 1, 2, 3 }, x, y, native.slate() } do
      n = n + 1
      list[n] = v
    end
    local closed = make("flat", 3)
    closed:close()
    for _, object in ipairs { x, closed } do
      for _, name in ipairs(words "put delete has get search search_many stats") do
        local method = object[name]
        support.refused("expected", method)
        for i = 1, n do
          pcall(method, object, list[i])
          if type(list[i]) ~= "userdata" then support.refused("expected", method, list[i]) end
          for j = 1, n do
            pcall(method, object, list[i], list[j])
            local k = (i * 7 + j * 3) % n + 1
            pcall(method, object, list[i], list[j], list[k])
            pcall(method, object, list[i], list[j], { allowed = list[k], exclude = list[i], effort = list[j] })
          end
        end
      end
    end
    assert.is_true(#x <= 60)
    for _, key in ipairs(words "kind metric form n_dims max_rows n_links effort_build n_lists effort seed") do
      for i = 1, support.n_hostile do
        local options = { n_dims = 2 }
        options[key] = support.hostile[i]
        pcall(index.new, options)
      end
    end
  end)

  it("finds no way to the metatable, nor from one kind of handle to another", function()
    local x = make("flat", 3)
    assert.is_false(getmetatable(x))
    for _, key in ipairs(words "__gc __index __len") do assert.is_nil(x[key]) end
    assert.is_false(pcall(function() x.search = print end))
    for _, name in ipairs(words "put delete has get search search_many stats save close") do
      for _, other in ipairs { native.slate(), native.vector(3), native.rng(1) } do support.refused("bad argument", x[name], other, 1, 1) end
    end
  end)

  it("from a finalizer or a metamethod, in the middle of another, does no harm", function()
    for round = 1, 40 do
      local x = make("flat", 30)
      local proxy = newproxy(true)
      getmetatable(proxy).__gc = function() x:close() end
      local options = setmetatable({}, { __index = function(_, key)
        if round % 2 == 0 then x:close() end
        return ({ allowed = { 1, 2, 3 }, exclude = { 1 }, effort = 5 })[key]
      end })
      proxy = nil -- luacheck: ignore
      for _ = 1, 50 do
        pcall(x.search, x, random_vector(), 5, options)
        pcall(x.put, x, 100, { random_vector(), random_vector() })
        pcall(x.get, x, 1)
        pcall(x.stats, x)
      end
    end
  end)
end)

describe("agents", function()
  it("can neither reach indices nor tables", function()
    local sandbox = require "evection.sandbox"
    for _, module in ipairs { "evection.index", "evection.items", "evection.native" } do
      local chunk = assert(sandbox.load(("return require '%s'"):format(module), "attack", sandbox.environment {}))
      assert.is_false(pcall(chunk))
    end
  end)
end)
