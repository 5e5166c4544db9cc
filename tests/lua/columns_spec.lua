-- columns_spec.lua - columns over items and candidates, and what is made of them: a recall with an index, a policy of weights, a cap.
local support = require "support"
local native = require "evection.native"
local compose = require "evection.compose"
local runner = require "evection.runner"
local world = require "evection.world"

local data, request, slate

setup(function()
  local snapshot = native.snapshot(support.data("columns", 120))
  data = snapshot:view(native.TRAIN)
  native.data_artifact(data, support.folder .. "/columns.evm", 1)
  request, slate = native.requests(data, { 3 }), native.slate()
end)

local function fill()
  slate:clear()
  for i = 0, 9 do slate:push(i * 7, i % 4) end
end

describe("columns of items", function()
  it("are looked up by a slate", function()
    local square = native.vector(data:n_items()):map(function(_, i) return (i - 1) ^ 2 end)
    local model = data:item_columns { square = square, third = native.vector(data:n_items()):map(function(_, i) return (i - 1) % 3 end) }
    assert.equal("item_columns", model:kind())
    fill()
    model:fill(slate)
    assert.same({ "square", "third" }, slate:columns())
    for i = 1, 10 do assert.equal(slate:item(i) ^ 2, slate.square[i]) end
    local count, history = {}, request:history()
    for _, item in ipairs(history) do count[item % 3] = (count[item % 3] or 0) + 1 end
    local share = model:share(request, slate, "third")
    for i = 1, 10 do assert.is_true(math.abs(share[i] - (count[slate:item(i) % 3] or 0) / #history) < 1e-6) end
    support.refused("no column 'none'", model.share, model, request, slate, "none")
    support.refused("cannot recall", model.recall, model, request, slate)
  end)

  it("have names and a number for every item", function()
    support.refused("120 items", data.item_columns, data, { x = native.vector(5) })
    support.refused("by name", data.item_columns, data, { native.vector(data:n_items()) })
    support.refused("1 to 64", data.item_columns, data, {})
    support.refused("no name for a column", data.item_columns, data, { score = native.vector(data:n_items()) })
  end)

  it("may be clusters of their vectors", function()
    local model = data:ials { n_dims = 4, epochs = 2 }
    local clusters = model:clusters(5, 2)
    assert.equal(data:n_items(), #clusters)
    local low, high = clusters:range()
    assert.is_true(low >= 0 and high < 5 and high > low)
    assert.same(tostring(clusters), tostring(model:clusters(5, 2)))
    support.refused("no vectors of items", function() data:item_scores(data:item_counts()):clusters(5) end)
  end)
end)

describe("a slate", function()
  it("weighs its columns, and no others", function()
    fill()
    slate:column("a"):set(native.vector { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 })
    slate:column("b"):set(2)
    local before = slate.score:copy()
    slate:weigh { a = 0.5, b = -3, score = 2, absent = 7, other = "x" }
    for i = 1, 10 do assert.equal(0.5 * i - 6 + 2 * before[i], slate.score[i]) end
    slate:weigh {}
    assert.same({ 0, 0 }, { slate.score:range() })
    support.refused("table", slate.weigh, slate, 3)
  end)

  it("knows the places of its candidates", function()
    fill()
    local places = slate:places()
    assert.same({ 10, 1, 10 }, { #places, places[1], places[10] })
  end)

  it("holds a cap on the numbers of a column", function()
    fill()
    slate:column("kind"):set(native.vector { 1, 1, 1, 2, 2, 3, 3, 3, 1, 2 })
    slate:cap { column = "kind", cap = 1, n = 3 }
    assert.same({ 1, 2, 3, 1 }, { slate.kind[1], slate.kind[2], slate.kind[3], slate.kind[4] })
    support.refused("no column 'none'", slate.cap, slate, { column = "none" })
    support.refused("no option 'lambda'", slate.cap, slate, { lambda = 1 })
  end)

  it("gives the same handle for a column, which is always of what the slate holds now", function()
    fill()
    local a, score = slate:column "a", slate.score
    assert.is_true(rawequal(a, slate.a) and rawequal(score, slate.score))
    a:set(1)
    slate:clear()
    assert.equal(0, #score)
    assert.is_nil(slate.a)
    support.refused("no longer has a column 'a'", a.sum, a)
    slate:push(5, 3)
    assert.equal(3, score[1])
    slate:column("z"):set(9)
    slate:column("a"):set(4)
    assert.same({ 4, 9 }, { a[1], slate.z[1] })
  end)
end)

describe("factors with an index", function()
  it("say which options an index has", function()
    support.refused("no option 'metric'", data.ials, data, { index = { metric = "cosine" } })
    support.refused("kind: 'tree'", data.ials, data, { index = { kind = "tree" } })
    support.refused("table", data.ials, data, { index = 3 })
  end)

  it("take an effort, which no other model does", function()
    local model, plain = data:ials { n_dims = 4, epochs = 2, index = { kind = "hnsw" } }, data:ials { n_dims = 4, epochs = 2 }
    local lists = {}
    for i, effort in ipairs { 1000, 1 } do
      slate:clear()
      model:recall(request, slate, 20, effort)
      lists[i] = slate:items()
      assert.equal(20, #slate)
    end
    slate:clear()
    plain:recall(request, slate, 20)
    assert.same(slate:items(), lists[1])
    support.refused("no index to search", plain.recall, plain, request, slate, 20, 10)
  end)
end)

describe("the composition of a service", function()
  it("gives slates that an event changes, and keeps its cap", function()
    local c = compose.open {
      name = "small",
      nodes = {
        recall = { agent = "ann", n = 60, knobs = { n_dims = 8, epochs = 2 } },
        ranked = { agent = "linear_policy", from = { "recall" }, n = 60, knobs = { clusters = 8 } },
        slate = { agent = "capped", from = { "ranked" }, n = 20, knobs = { cap = 3 } },
      },
      output = "slate",
    }
    local w = world.open "columns"
    local run = runner.fit(c, w, { folds = native.TRAIN, seed = 1 })
    run:set_n(20)
    local history = w:view(native.TRAIN).data:history(3)
    local first = run:recommend { user = 3, history = history, n = 20 }
    local items, kinds, unlike = first:items(), {}, 0
    for i = 1, 20 do kinds[first.cluster[i]] = (kinds[first.cluster[i]] or 0) + 1 end
    for _, n in pairs(kinds) do
      if n <= 3 then unlike = unlike + 1 end
    end
    assert.is_true(unlike >= 2)
    assert.equal(16, #first:columns())
    history[#history + 1] = items[5]
    local second = run:recommend { user = 3, history = history, n = 20 }
    assert.not_same(items, second:items())
    for _, item in ipairs(second:items()) do assert.not_equal(items[5], item) end
    assert.equal(20, #run:recommend { history = {}, n = 20 }) -- a stranger gets what most have
  end)
end)
