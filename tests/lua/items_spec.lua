-- items_spec.lua - live tables from Lua: what is put is there, also after opening anew; and no argument does harm.

local items = require "evection.items"
local native = require "evection.native"
local support = require "support"

local words = support.words

local d, n_tables = 4, 0

-- A new table in a folder of its own, and the folder.
local function make(options)
  n_tables = n_tables + 1
  local folder = ("%s/tables/t%d"):format(support.folder, n_tables)
  local all = { create = true, n_dims = d, kind = "flat", form = "f32" }
  for key, value in pairs(options or {}) do all[key] = value end
  return items.open(folder, all), folder
end

local function film(i)
  return {
    id = "film " .. i, vector = { i, i * i % 7, -i, 1 }, genre = i % 3 > 0 and { "g" .. i % 3, "g" .. i % 5 } or nil, year = i % 4 > 0 and 1980 + i or nil,
    title = "Number " .. i, seen = i % 2 == 0,
  }
end

local function films(n)
  local list = {}
  for i = 1, n do list[i] = film(i) end
  return list
end

local function plain(item) -- a vector handle as a list of numbers
  if item and item.vector then
    local v = {}
    for i = 1, #item.vector do v[i] = item.vector[i] end
    item.vector = v
  end
  return item
end

local function expected(i)
  local item = film(i)
  item.seen = tostring(item.seen)
  return item
end

local function ids(hits)
  local list = {}
  for i, hit in ipairs(hits) do list[i] = hit.id end
  return list
end

-- The ids among 1 … n that a search for q must give: by score, then in the order they were put.
local function best(n, q, k, may)
  local list = {}
  for i = 1, n do
    local v, score = film(i).vector, 0
    for j = 1, d do score = score + v[j] * q[j] end
    if may == nil or may(film(i)) then list[#list + 1] = { i = i, score = score } end
  end
  table.sort(list, function(a, b) return a.score > b.score or (a.score == b.score and a.i < b.i) end)
  local found = {}
  for i = 1, math.min(k, #list) do found[i] = "film " .. list[i].i end
  return found
end

describe("a table", function()
  it("gives back what was put into it, now and when it is opened anew", function()
    local t, folder = make()
    t:put(films(50))
    t:put(film(51))
    for round = 1, 3 do
      assert.equal(51, #t)
      local all = t:ids()
      table.sort(all, function(a, b) return tonumber(a:match "%d+") < tonumber(b:match "%d+") end)
      for i = 1, 51 do assert.equal("film " .. i, all[i]) end
      assert.equal(51, #all)
      for i = 1, 51 do assert.same(expected(i), plain(t:get("film " .. i))) end
      assert.is_nil(t:get "film 52")
      assert.is_true(t:has "film 1")
      assert.is_false(t:has "film")
      t:close()
      t = items.open(folder)
      if round == 2 then t:compact() end
    end
    t:verify()
    t:close()
  end)

  it("takes whole items and replaces whole items", function()
    local t = make()
    t:put(film(1))
    t:put { id = "film 1", year = 7 }
    assert.same({ id = "film 1", year = 7 }, t:get "film 1")
    t:put { { id = 5, vector = native.vector { 1, 2, 3, 4.5 }, tags = { 1, "b" }, empty = {} }, { id = "x" } }
    assert.same({ id = "5", vector = { 1, 2, 3, 4.5 }, tags = { "1", "b" } }, plain(t:get(5)))
    local again = t:get "5"
    again.id = "copy"
    t:put(again)
    assert.same({ id = "copy", vector = { 1, 2, 3, 4.5 }, tags = { "1", "b" } }, plain(t:get "copy"))
    t:put {}
    assert.equal(4, #t)
    t:put { id = "0.1", price = 0.1 }
    assert.equal(0.1, t:get("0.1").price)
  end)

  it("deletes all or none", function()
    local t = make()
    t:put(films(10))
    t:delete "film 1"
    t:delete { "film 2", "film 3" }
    assert.equal(7, #t)
    support.refused("film 1'?", t.delete, t, { "film 4", "film 1" })
    assert.equal(7, #t)
    assert.is_true(t:has "film 4")
    t:delete {}
    t:put(film(1))
    assert.equal(8, #t)
  end)

  it("finds the best, among those that fulfil a condition and are not left out", function()
    local t = make()
    t:put(films(200))
    local q = { 0.5, 3, 0.25, -1 }
    assert.same(best(200, q, 10), ids(t:search(q, 10)))
    assert.same(best(200, q, 300), ids(t:search(native.vector(q), 300)))
    local function wanted(x)
      local drama = false
      for _, g in ipairs(x.genre or {}) do drama = drama or g == "g1" or g == "g4" end
      return drama and x.year ~= nil and x.year >= 2000
    end
    assert.same(best(200, q, 10, wanted), ids(t:search(q, 10, { where = 'genre in {"g1", "g4"} and year >= 2000' })))
    local first = ids(t:search(q, 3))
    local function rest(x) return x.id ~= first[1] and x.id ~= first[3] end
    assert.same(best(200, q, 10, rest), ids(t:search(q, 10, { exclude = { first[1], first[3], first[3], "nobody" } })))
    assert.same(best(200, film(9).vector, 10, function(x) return x.id ~= "film 9" end), ids(t:search("film 9", 10)))
    assert.same({}, t:search(q, 5, { where = "year > 1e9" }))
    t:delete(first[1])
    assert.equal(first[2], t:search(q, 1, { effort = 10 })[1].id)
  end)

  it("without vectors is one of features", function()
    local t = make { n_dims = 0 }
    t:put { id = "a", x = 1 }
    assert.same({ id = "a", x = 1 }, t:get "a")
    support.refused("without", t.put, t, { id = "b", vector = { 1 } })
    support.refused("without vectors", t.search, t, { 1 }, 1)
  end)

  it("is one process's to write and anybody's to read", function()
    local t, folder = make()
    t:put(films(5))
    support.refused(".", items.open, folder)
    local reader = items.open(folder, { read_only = true })
    t:put(film(6))
    assert.equal(5, #reader)
    support.refused(".", reader.put, reader, film(7))
    assert.equal("film 5", reader:get("film 5").id)
    reader:close()
    t:close()
    t = items.open(folder)
    assert.equal(6, #t)
  end)

  it("by its name lies in $EVECTION_HOME", function()
    local t = items.open("by_name", { create = true })
    t:put { id = "a" }
    t:close()
    assert.same({ "by_name" }, items.list())
    assert.is_true(native.exists(native.home .. "/items/by_name"))
    for _, name in ipairs { "", ".", "..", "a b", "ä", ("x"):rep(101), {}, 3, true } do support.refused("name", items.open, name, { create = true }) end
    support.refused("none", items.open, "none")
  end)

  it("tells what it is", function()
    local t = make()
    t:put(films(3))
    local stats = t:stats()
    assert.equal(3, stats.n_items)
    assert.equal(3, stats.n_vectors)
    assert.equal("flat", stats.kind)
    assert.equal(1, stats.n_commits)
    assert.is_true(stats.log_bytes > 0)
    assert.equal("items(3, 3 with a vector)", tostring(t))
    t:close()
    assert.equal("items(closed)", tostring(t))
    t:close()
  end)
end)

describe("a wrong call", function()
  it("is refused, says why, and leaves nothing", function()
    local t, folder = make()
    t:put(films(5))
    local function refuse(pattern, item) support.refused(pattern, t.put, t, { film(6), item }) end
    refuse("without an id", { vector = { 1, 2, 3, 4 } })
    refuse("without an id", { id = true })
    refuse("without an id", { id = 0.5 })
    refuse("empty", { id = "" })
    refuse("255 bytes", { id = ("x"):rep(256) })
    refuse("NUL", { id = "a\0b" })
    refuse("UTF", { id = "\255" })
    refuse("twice", film(6))
    refuse("item 'b': a vector of 3 numbers; those of this table have 4", { id = "b", vector = { 1, 2, 3 } })
    refuse("have 4", { id = "b", vector = {} })
    refuse("vector is a number", { id = "b", vector = 4 })
    refuse("number 2 is a string", { id = "b", vector = { 1, "2", 3, 4 } })
    refuse("number 4 is nan", { id = "b", vector = { 1, 2, 3, 0 / 0 } })
    refuse("number 1 is inf", { id = "b", vector = { 1 / 0, 2, 3, 4 } })
    refuse("number 1 is 1", { id = "b", vector = { 1e300, 2, 3, 4 } })
    refuse("year", { id = "b", year = "1990" })
    refuse("title", { id = "b", title = 3 })
    refuse("genre", { id = "b", genre = "g1" })
    refuse("year is nan", { id = "b", year = 0 / 0 })
    refuse("genre: text 2 of the list is a table", { id = "b", genre = { "a", {} } })
    refuse("f is a function", { id = "b", f = print })
    refuse("is no name", { id = "b", [1] = 3 })
    refuse("47 bytes", { id = "b", [("n"):rep(48)] = 3 })
    refuse("47 bytes", { id = "b", [""] = 3 })
    refuse("item 2 is a string", "b")
    assert.equal(5, #t)
    assert.is_false(t:has "film 6")
    support.refused("whole number", t.search, t, { 1, 2, 3, 4 }, 0)
    support.refused("those of this table have 4", t.search, t, { 1, 2, 3 }, 1)
    support.refused("where: column 1: no column 'yaer'; did you mean 'year'", t.search, t, { 1, 2, 3, 4 }, 1, { where = "yaer > 1" })
    support.refused("NUL", t.search, t, { 1, 2, 3, 4 }, 1, { where = "year > 1\0" })
    support.refused("text", t.search, t, { 1, 2, 3, 4 }, 1, { where = {} })
    support.refused("no option 'wher'", t.search, t, { 1, 2, 3, 4 }, 1, { wher = "" })
    support.refused("no item 'x'", t.search, t, "x", 1)
    support.refused("an id is expected", t.get, t, { "film 1" })
    support.refused("no option 'creat'", items.open, folder, { creat = true })
    t:close()
    for _, name in ipairs(words "put delete search") do support.refused("closed", t[name], t, {}, 1) end
    for _, name in ipairs(words "get has") do support.refused("closed", t[name], t, "a") end
    for _, name in ipairs(words "ids stats compact verify") do support.refused("closed", t[name], t) end
    support.refused("closed", function() return #t end)
    t = items.open(folder)
    assert.equal(5, #t)
  end)

  it("of any kind does no harm", function()
    local t, closed = make(), make()
    closed:close()
    t:put(films(5))
    local list, n = {}, support.n_hostile
    for i = 1, n do list[i] = support.hostile[i] end
    for _, v in ipairs { native.vector(d), native.vector(3), { 1, 2, 3, 4 }, film(1), films(2), t, native.slate(), ("x"):rep(300) } do
      n = n + 1
      list[n] = v
    end
    for _, object in ipairs { t, closed } do
      for _, name in ipairs(words "put get has ids delete search stats verify") do
        local method = object[name]
        support.refused("expected", method)
        for i = 1, n do
          pcall(method, object, list[i])
          pcall(method, object, { id = "h", vector = list[i] })
          pcall(method, object, { id = "h", f = list[i], g = { list[i] } })
          pcall(method, object, { id = list[i], vector = { 1, 2, 3, 4 } })
          if type(list[i]) ~= "userdata" then support.refused("expected", method, list[i]) end
          for j = 1, n do
            pcall(method, object, list[i], list[j])
            pcall(method, object, list[i], 3, { where = list[j], exclude = list[i], effort = list[(i + j) % n + 1] })
          end
        end
      end
    end
    for _, key in ipairs(words "create read_only compact_mb kind metric form n_dims max_rows n_links effort_build n_lists effort seed") do
      for i = 1, support.n_hostile do
        local options = { create = true, n_dims = 2, kind = "flat" }
        options[key] = support.hostile[i]
        local ok, handle = pcall(items.open, ("%s/tables/hostile %s %d"):format(support.folder, key, i), options)
        if ok then handle:close() end
      end
    end
  end)

  it("finds no way to the metatable, nor from one kind of handle to another", function()
    local t = make()
    assert.is_false(getmetatable(t))
    for _, key in ipairs(words "__gc __index __len") do assert.is_nil(t[key]) end
    assert.is_false(pcall(function() t.search = print end))
    local index = native.index { n_dims = d, kind = "flat" }
    for _, name in ipairs(words "put get has ids delete search stats compact verify close") do
      for _, other in ipairs { native.slate(), native.vector(3), native.rng(1), index } do support.refused("bad argument", t[name], other, 1, 1) end
    end
    support.refused("bad argument", index.search, t, { 1, 2, 3, 4 }, 1)
  end)

  it("from a finalizer or a metamethod, in the middle of another, does no harm", function()
    for round = 1, 20 do
      local t = make()
      t:put(films(30))
      local proxy = newproxy(true)
      getmetatable(proxy).__gc = function()
        pcall(t.put, t, film(99))
        t:close()
      end
      local options = setmetatable({}, { __index = function(_, key)
        if round % 2 == 0 then t:close() end
        return ({ where = "year >= " .. 1900 + round, exclude = { "film 1" }, effort = 5 })[key]
      end })
      proxy = nil -- luacheck: ignore
      for i = 1, 50 do
        pcall(t.search, t, { 1, 2, 3, 4 }, 5, options)
        pcall(t.put, t, films(20))
        pcall(t.get, t, "film 7")
        pcall(t.stats, t)
        if i == 30 then collectgarbage() end
      end
    end
  end)
end)
