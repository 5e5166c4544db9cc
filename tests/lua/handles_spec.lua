-- handles_spec.lua - what agents hold of C: slates, vectors, data, models, requests, states. Whatever they are called
-- with gives a value or a Lua error, and they stay what they are.

local native = require "evection.native"
local support = require "support"

local words = support.words

-- A world of 90 items and one of 70, each with a model of every kind, a request, a slate and a state.
local function make(name, n_items)
  local h = { snapshot = native.snapshot(support.data(name, n_items)) }
  h.data = h.snapshot:view(native.TRAIN)
  h.artifact = ("%s/%s.model"):format(support.folder, name)
  native.data_artifact(h.data, h.artifact, 1)
  h.request = native.requests(h.data, { 0, 1, 2 })
  h.slate = native.slate()
  local rows = { "score" }
  native.data_set_rows(h.data, rows)
  h.popular = h.data:item_scores(h.data:item_counts())
  for user = 0, 20 do
    local request = native.requests(h.data, { user })
    h.slate:clear()
    h.popular:recall(request, h.slate, 40)
    native.data_add_rows(h.data, h.slate, user, h.snapshot:view(native.VALID))
  end
  h.models = { h.popular, h.data:item_knn { neighbours = 5 }, h.data:content { neighbours = 5 }, h.data:ease {}, h.data:ials { n_dims = 4, epochs = 1 },
    h.data:ials { n_dims = 4, epochs = 1, index = { kind = "hnsw" } }, h.data:ranker { epochs = 1 } }
  h.columns = h.data:item_columns { kind = native.vector(n_items) }
  h.state = native.state(("%s/%s.f64"):format(support.folder, name), n_items)
  h.vector = native.vector(n_items)
  h.n_items = n_items
  return h
end

local methods = {
  vector = words "get set add mul map sum range normalise gt max_with min_with log exp sqrt abs copy",
  slate = words "item score_at source_at items push clear sort truncate copy lookup set_source union mmr quota dpp calibrate columns column cap places weigh",
  data = words [[n_users n_items n_interactions n_of_user history columns item_counts n_rows item_scores item_knn content ease ials ranker gbdt item_columns]],
  model = words "kind recall score rank item_scores fill share clusters",
  request = words "history top",
  state = words "get add vector lookup",
  snapshot = words "hash n_users n_items user_id item_id find_user find_item columns value view",
}

local a, b

setup(function() a, b = make("tiny", 90), make("small", 70) end)

-- Everything an argument could be: hostile values, then the handles of both worlds.
local function arguments()
  local list, n = {}, support.n_hostile
  for i = 1, n do list[i] = support.hostile[i] end
  for _, h in ipairs { a, b } do
    for _, handle in ipairs { h.vector, h.slate, h.data, h.request, h.state, h.models[1], h.models[#h.models] } do
      n = n + 1
      list[n] = handle
    end
  end
  return list, n
end

local function refill(h)
  h.slate:clear()
  for i = 0, 9 do h.slate:push(i * 7, 10 - i) end
end

describe("every method of", function()
  local function all(kind, objects)
    it("a " .. kind .. " takes any argument without harm", function()
      local list, n = arguments()
      for _, get in ipairs(objects) do
        local object = get(a)
        for _, name in ipairs(methods[kind]) do
          local method = object[name]
          assert.is_function(method, name)
          refill(a)
          for i = 1, n do
            pcall(method, object, list[i])
            support.refused("expected", method) -- no self
            for j = 1, n do
              pcall(method, object, list[i], list[j])
              if (i + j) % 5 == 0 then pcall(method, object, list[i], list[j], list[(i * 7 + j * 3) % n + 1]) end
            end
            assert.is_true(#a.slate <= 65536)
            if #a.slate > 5000 then refill(a) end
          end
          for i = 1, n do
            local self = list[i]
            if type(self) ~= "userdata" then support.refused("expected", method, self) end
          end
        end
      end
    end)
  end
  all("vector", { function(h) return h.vector end, function(h) return h.slate.score end, function(h) return h.slate:column "x" end,
    function() return native.vector(0) end })
  all("slate", { function(h) return h.slate end })
  all("model", { function(h) return h.models[1] end, function(h) return h.models[2] end, function(h) return h.models[3] end, function(h) return h.models[4] end,
    function(h) return h.models[5] end, function(h) return h.models[6] end, function(h) return h.models[7] end, function(h) return h.columns end })
  all("request", { function(h) return h.request end })
  all("state", { function(h) return h.state end })
  all("snapshot", { function(h) return h.snapshot end })
  all("data", { function(h) return h.snapshot:view(native.TRAIN) end })
end)

describe("a handle", function()
  it("has no door to its metatable: neither __gc nor __index, and nothing can be written to it", function()
    for _, object in ipairs { a.vector, a.slate, a.data, a.request, a.state, a.snapshot, a.models[1], native.rng(1), native.lists(1, 1) } do
      assert.is_false(getmetatable(object))
      for _, key in ipairs(words "__gc __index __newindex __metatable __len __tostring __name close free") do assert.is_nil(object[key], key) end
      for _, key in ipairs(words "recall push __gc __index x") do assert.is_false(pcall(function() object[key] = print end)) end
      assert.is_false(pcall(setmetatable, object, {}))
    end
  end)

  it("is not mistaken for one of another kind", function()
    local list = { vector = a.vector, slate = a.slate, data = a.data, request = a.request, state = a.state, snapshot = a.snapshot, model = a.models[1] }
    for kind, names in pairs(methods) do
      for _, name in ipairs(names) do
        for other, object in pairs(list) do
          local tolerant = kind == "vector" and (name == "gt" or name:match "_with$") -- either operand may be the vector
          if other ~= kind and not tolerant then support.refused("bad argument", list[kind][name], object, 1, 1) end
        end
      end
    end
  end)

  it("keeps alive what it stands on", function()
    local snapshot = native.snapshot(support.data("tiny", 90))
    local data = snapshot:view(native.TRAIN)
    local rest, held = native.data_split(data, 0.3, 1)
    native.data_artifact(rest, support.folder .. "/alive", 1)
    local model, request = rest:ease {}, native.requests(rest, { 0 })
    local n, id = data:n_interactions(), data:columns("item")[1].name
    snapshot, data = nil, nil -- luacheck: ignore
    for _ = 1, 5 do collectgarbage() end
    assert.equal(n, rest:n_interactions() + held:n_interactions())
    assert.equal(id, rest:columns("item")[1].name)
    rest, held = nil, nil -- luacheck: ignore
    for _ = 1, 5 do collectgarbage() end
    local slate = native.slate()
    model:recall(request, slate, 5)
    assert.equal(5, #slate)
    os.remove(support.folder .. "/alive.1")
    assert.equal(5, #model:score(request, slate)) -- a file that is gone stays mapped
  end)
end)

describe("items and places", function()
  local outside = { -1, 0.5, 0 / 0, 1 / 0, -1 / 0, 2 ^ 31, 2 ^ 32, 2 ^ 53, 1e300, -1e300 }

  it("out of range are refused by slates", function()
    refill(a)
    for _, i in ipairs(outside) do
      for _, name in ipairs(words "item score_at source_at") do support.refused("whole number", a.slate[name], a.slate, i) end
      support.refused("whole number", a.slate.truncate, a.slate, i)
      if i ~= 2 ^ 31 then support.refused("whole number", a.slate.push, a.slate, i, 1) end
    end
    for _, i in ipairs { 0, 11 } do support.refused("whole number", a.slate.item, a.slate, i) end
    support.refused("whole number", a.slate.push, a.slate, 4294967295, 1)
    support.refused("whole number", a.slate.set_source, a.slate, 2 ^ 32)
    assert.equal(10, #a.slate)
  end)

  it("out of range are refused by data, snapshots and states", function()
    outside[#outside + 1] = 90
    for _, i in ipairs(outside) do
      support.refused("whole number", a.data.history, a.data, i)
      support.refused("whole number", a.data.n_of_user, a.data, i)
      support.refused("whole number", a.snapshot.item_id, a.snapshot, i)
      support.refused("whole number", a.snapshot.user_id, a.snapshot, i)
      support.refused("whole number", a.state.get, a.state, i)
      support.refused("whole number", a.state.add, a.state, i, 1)
      support.refused("whole number", native.requests, a.data, { i })
      support.refused("whole number", native.request, a.snapshot, i, {}, {})
      support.refused("whole number", native.request, a.snapshot, nil, { i }, {})
      support.refused("whole number", native.request, a.snapshot, nil, {}, { i })
    end
    for _, x in ipairs { 0 / 0, 1 / 0, -1 / 0 } do support.refused("amount", a.state.add, a.state, 0, x) end
    for _, x in ipairs { 0 / 0, -0.1, 1.1, 1 / 0 } do support.refused("amount", a.state.add, a.state, 0, 1, x) end
  end)

  it("that no model knows have the score 0, and no features, when a slate holds them", function()
    local known, some = native.slate(), {}
    for _, item in ipairs { 0, 89 } do known:push(item, 1) end
    a.slate:clear()
    for _, item in ipairs { 90, 0, 1000, 2 ^ 31, 89, 2 ^ 32 - 2 } do a.slate:push(item, 1) end
    local function agrees(alone, all)
      assert.same({ 0, alone[1], 0, 0, alone[2], 0 }, { all[1], all[2], all[3], all[4], all[5], all[6] })
      assert.equal(6, #all)
      for i = 1, 2 do some[#some + 1] = alone[i] ~= 0 or nil end
    end
    for i, model in ipairs(a.models) do
      if i < #a.models then agrees(model:score(a.request, known), model:score(a.request, a.slate)) end
    end
    for _, slate in ipairs { known, a.slate } do a.columns:fill(slate) end
    for _, name in ipairs(known:columns()) do agrees(known[name], a.slate[name]) end
    agrees(a.columns:share(a.request, known, "kind"), a.columns:share(a.request, a.slate, "kind"))
    assert.is_true(#some > 4) -- not all of them are 0 anyway
    a.models[#a.models]:rank(a.request, a.slate, a.data)
    assert.equal(6, #a.slate.score)
    for i = 1, 6 do assert.is_true(math.abs(a.slate.score[i]) < 1e6) end
    local tokens
    for _, column in ipairs(a.data:columns "item") do tokens = tokens or (column.type ~= "float" and column.name) end
    a.slate:mmr(a.data, { column = tokens, lambda = 0.5, n = 6 })
    a.slate:quota(a.data, { column = tokens, cap = 1, n = 6 })
    a.slate:dpp(a.data, { column = tokens, theta = 0.5, n = 6 })
    a.slate:calibrate(a.data, { column = tokens, lambda = 0.5, n = 6 }, a.request)
    local looked = a.slate:lookup(a.vector:set(2))
    assert.equal(4, looked:sum()) -- of the two items there are; 0 elsewhere
    assert.equal(0, a.state:lookup(a.slate):sum())
    assert.equal(6, #a.slate)
  end)

  it("of another world are not taken by a model", function()
    local slate = native.slate()
    for i, model in ipairs(a.models) do
      if i < #a.models then
        support.refused("knows 90 items, the data 70", model.recall, model, b.request, slate, 5)
        support.refused("knows 90 items, the data 70", model.score, model, b.request, slate)
      end
    end
    support.refused("70 scores for 90 items", a.request.top, a.request, b.vector, slate)
    support.refused("scores for 90 items", a.data.item_scores, a.data, b.vector)
    refill(a)
    pcall(a.models[#a.models].rank, a.models[#a.models], a.request, a.slate, b.data) -- taken when the columns are alike: items beyond 70 have no features
    for i = 1, 10 do assert.is_true(math.abs(a.slate.score[i]) < 1e6) end
  end)
end)

describe("options", function()
  it("of a fit are refused out of their range, and never crash it", function()
    local known = {
      item_knn = words "neighbours shrink alpha user_power", content = words "columns neighbours idf_power half_life",
      ease = words "lambda user_power item_power_in item_power_out", ials = words "n_dims unobserved_weight regularization frequency_power init_std seed",
      ranker = words "n_dims learning_rate regularization frequency_power negatives_per_positive user_columns item_columns seed use_features use_ids",
      gbdt = words [[n_leaves max_depth n_bins one_hot learning_rate l2 min_child_weight min_gain subsample column_share smoothing
        negatives_per_positive user_columns item_columns seed use_features use_ids]],
      item_counts = words "half_life_days window_days",
    }
    for name, keys in pairs(known) do
      for _, key in ipairs(keys) do
        for i = 1, support.n_hostile do
          local x = support.hostile[i]
          native.data_artifact(a.data, a.artifact .. ".hostile", 1)
          local ok, message = pcall(a.data[name], a.data, { [key] = x })
          if type(x) == "number" and x ~= x and key ~= "use_features" then assert.is_false(ok, key) end
          if type(x) == "function" and key ~= "use_features" then assert.is_false(ok, key) end
          if not ok then assert.is_string(tostring(message)) end
        end
      end
    end
  end)

  it("name columns by text that is theirs", function()
    for _, names in ipairs { { 1, 2 }, { true }, { {} }, { "absent" }, { "" }, { ("x"):rep(100000) } } do
      native.data_artifact(a.data, a.artifact .. ".hostile", 1)
      assert.is_false(pcall(a.data.content, a.data, { columns = names }))
      assert.is_false(pcall(a.data.ranker, a.data, { item_columns = names }))
    end
    support.refused("at most", a.data.content, a.data, { columns = words(("x "):rep(65)) })
    for _, name in ipairs { "", ("x"):rep(48), ("x"):rep(100000) } do support.refused("no name for a column", a.slate.column, a.slate, name) end
    support.refused("text", a.slate.union, a.slate, { native.slate() }, { 1 })
    support.refused("own union", a.slate.union, a.slate, { a.slate }, { "x" })
  end)

  it("of a slate are bounded: 64 columns, 65536 candidates", function()
    local slate = native.slate()
    slate:push(1, 1)
    for i = 1, 64 do slate:column("c" .. i) end
    support.refused("at most 64", slate.column, slate, "one_more")
    slate:clear()
    for i = 0, 65535 do slate:push(i, -i) end
    support.refused("at most 65536", slate.push, slate, 1, 1)
    slate:sort()
    assert.equal(65536, #slate)
    assert.equal(0, slate:item(1))
  end)

  it("do not let a handle without an artifact fit, nor one make more than sixteen models", function()
    local view = a.snapshot:view(native.TRAIN)
    for _, name in ipairs(words "item_knn content ease ials ranker gbdt") do support.refused("cannot fit", view[name], view, {}) end
    support.refused("cannot fit", view.item_scores, view, view:item_counts())
    native.data_artifact(view, a.artifact .. ".many", 1)
    for _ = 1, 16 do view:item_scores(view:item_counts()) end
    support.refused("at most 16", view.item_scores, view, view:item_counts())
    support.refused("only an agent of role rank", function()
      native.data_artifact(view, a.artifact .. ".many", 1)
      view:ranker {}
    end)
    support.refused("only an agent of role rank", view.gbdt, view, {})
    native.data_artifact(a.data, a.artifact .. ".hostile", 1)
    support.refused("clicks, always or never", a.data.ranker, a.data, { use_ids = "sometimes" })
    support.refused("not a number", view.item_scores, view, view:item_counts():mul(0 / 0))
  end)
end)
