-- batches_spec.lua - batches, holding out and measuring, models of nets, and the agents made of them, as scripts hold them.

local native = require "evection.native"
local agent = require "evection.agent"
local nn = require "evection.nn"
local support = require "support"

local words = support.words

-- A data set of rows "user,item,time" and of item features, imported once. → snapshot
local function import(name, rows, items, options)
  local path = ("%s/data/%s.evs"):format(native.home, name)
  if not native.exists(path) then
    local files = support.file(name .. ".csv", "user,item,time\n" .. table.concat(rows, "\n") .. "\n")
    if items then files = files .. "' '" .. support.file(name .. ".item", table.concat(items, "\n") .. "\n") end
    local command = ("'%s' data import '%s' --as %s --home '%s' --quiet %s >/dev/null"):format(support.binary(), files, name, native.home, options or "")
    assert.equal(0, os.execute(command))
  end
  return native.snapshot(path)
end

local serial = 0
-- A data handle that can fit.
local function fitting(snapshot, folds)
  serial = serial + 1
  local data = snapshot:view(folds or native.TRAIN)
  native.data_artifact(data, ("%s/batches%d.model"):format(support.folder, serial), 1)
  return data
end

local small = native.snapshot(support.data("small", 70))

local function set_of(list)
  local set = {}
  for _, x in ipairs(list) do set[x] = true end
  return set
end

-- Runs an agent's fit; knobs over its defaults. → model, agent
local function fit(name, data, knobs)
  local a = assert(agent.find(name))
  return a.fit(agent.live(a, assert(agent.knobs(a, knobs))), data), a
end

describe("batches of pairs", function()
  it("are inputs of the net, made when they are asked for", function()
    local data, net = small:view(native.TRAIN), nn.net {}
    local before = #net
    local b = net:pairs(data, { size = 32, negatives = 3 })
    assert.equal(before, #net)
    assert.same({ 32, 3 }, b.negative:shape())
    assert.same({ 32 }, b.user:shape())
    assert.equal(before + 2, #net)
    assert.equal("batch.user", b.user:name())
    assert.equal(before + 2, #net)
    assert.equal("batch2.user", net:pairs(data).user:name()) -- others on the same net
    assert.same({ 5 }, net:pairs(data, { negatives = 5, shared = true }).negative:shape())
    assert.equal(data:n_interactions(), b:rows())
    assert.equal(math.ceil(data:n_interactions() / 32), b:per_epoch())
    assert.matches("^batches %(%d+ steps an epoch, %d+ rows%)$", tostring(b))
  end)

  it("hold what users have, and negatives that they have not", function()
    local data, net = small:view(native.TRAIN), nn.net { seed = 4 }
    local b = net:pairs(data, { size = 32, negatives = 3 })
    local user, item, negative, has = b.user, b.item, b.negative, {}
    for u = 0, data:n_users() - 1 do has[u] = set_of(data:history(u)) end
    local n = 0
    for step = 0, b:per_epoch() - 1 do
      local rows = b:fill(step)
      n = n + rows
      local us, is, ns = user:values(), item:values(), negative:values()
      assert.equal(rows, #us)
      assert.equal(rows * 3, #ns)
      for r = 1, rows do
        assert.is_true(has[us[r]][is[r]])
        for k = 1, 3 do assert.is_nil(has[us[r]][ns[(r - 1) * 3 + k]]) end
      end
    end
    assert.equal(data:n_interactions(), n)
  end)

  it("are the same for a step whenever it is filled, and others for another seed", function()
    local data = small:view(native.TRAIN)
    local function at(seed, steps)
      local b = nn.net { seed = 9 }:pairs(data, { size = 16, negatives = 2, seed = seed })
      local t = b.negative
      for _, step in ipairs(steps) do b:fill(step) end
      return t:values()
    end
    assert.same(at(3, { 5 }), at(3, { 0, 99, 2, 5 }))
    assert.are_not.same(at(3, { 5 }), at(4, { 5 }))
    assert.are_not.same(at(3, { 5 }), at(3, { 6 }))
    assert.same(at(9, { 1 }), at(nil, { 1 })) -- the net's seed
  end)

  it("refuse what they do not know, and say what there is", function()
    local data, net = small:view(native.TRAIN), nn.net {}
    local b = net:pairs(data, { negatives = 0 })
    support.refused("have no 'negative'; there are user, item, item_log_q", function() return b.negative end)
    support.refused("have no 'position'", function() return b.position end)
    support.refused("no option 'colour'; there are size", net.pairs, net, data, { colour = 1 })
    support.refused("sampler: 'best' is none of", net.pairs, net, data, { sampler = "best" })
    support.refused("wants mix", net.pairs, net, data, { sampler = "mixed" })
    support.refused("mix is of a mixed sampler", net.pairs, net, data, { sampler = "uniform", mix = { uniform = 1 } })
    support.refused("seen: 'hide' is none of", net.pairs, net, data, { seen = "hide" })
    support.refused("shares 0 and 0", net.pairs, net, data, { mix = {} })
    support.refused("size: .* is not between", net.pairs, net, data, { size = 1e12 })
    support.refused("is not a whole number", b.fill, b, -1)
    support.refused("scheme", function() -- where it stands
      return load("local b = ... return b.nothing", "=scheme.lua")(b)
    end)
  end)
end)

describe("batches of sequences", function()
  it("hold histories, each row with what came after it", function()
    local data, net = small:view(native.TRAIN), nn.net {}
    for _, position in ipairs { "start", "end" } do
      local b = net:sequences(data, { size = 8, max_length = 5, position = position })
      local item, target, places, length, last, user = b.item, b.target, b.position, b.length, b.last, b.user
      local seen = {}
      for step = 0, b:per_epoch() - 1 do
        local rows, at = b:fill(step), 0
        local items, targets, ps, lengths, lasts, users = item:values(), target:values(), places:values(), length:values(), last:values(), user:values()
        for s, u in ipairs(users) do
          local history, n = data:history(u), lengths[s]
          assert.is_nil(seen[u])
          seen[u] = true
          assert.equal(math.min(5, #history - 1), n)
          for i = 1, n do
            assert.equal(history[#history - n + i - 1], items[at + i])
            assert.equal(history[#history - n + i], targets[at + i])
            assert.equal(position == "start" and i - 1 or n - i, ps[at + i])
          end
          at = at + n
          assert.equal(at - 1, lasts[s])
        end
        assert.equal(rows, at)
      end
      for u = 0, data:n_users() - 1 do assert.equal(data:n_of_user(u) >= 2 or nil, seen[u]) end
    end
    support.refused("position: 'middle' is none of", net.sequences, net, data, { position = "middle" })
    support.refused("have no 'negative'", function() return net:sequences(data).negative end)
  end)
end)

describe("feature matrices", function()
  it("are sparse tensors over the columns that describe, or those named", function()
    local net, data = nn.net {}, small:view(native.TRAIN)
    local f = net:features(data, "item")
    local shape = f:shape()
    assert.equal(70, shape[1])
    local width = 0
    for _, column in ipairs(data:columns "item") do
      if column.type == "float" or column.n_tokens * 4 <= 70 then width = width + (column.type == "float" and 1 or column.n_tokens) end
    end
    assert.equal(width, shape[2])
    local column = data:columns("item")[1]
    assert.equal(column.type == "float" and 1 or column.n_tokens, net:features(data, "item", { column.name }):shape()[2])
    assert.is_nil(net:features(data, "item", {}))
    support.refused("no item column 'price'", net.features, net, data, "item", { "price" })
    support.refused("name 1 is a number", net.features, net, data, "item", { 1 })
    support.refused("invalid option", net.features, net, data, "interaction")
  end)
end)

-- recall@k and ndcg@k in plain Lua, of lists by user.
local function plain_measure(held, lists, k)
  local recall, ndcg, n = 0, 0, 0
  for u = 0, held:n_users() - 1 do
    local wanted = held:history(u)
    if #wanted > 0 then
      local has, dcg, ideal, hits = set_of(wanted), 0, 0, 0
      for rank = 1, k do
        if has[lists[u][rank]] then hits, dcg = hits + 1, dcg + math.log(2) / math.log(rank + 1) end
        if rank <= #wanted then ideal = ideal + math.log(2) / math.log(rank + 1) end
      end
      recall, ndcg, n = recall + hits / #wanted, ndcg + dcg / ideal, n + 1
    end
  end
  return recall / n, ndcg / n, n
end

describe("holding out", function()
  it("leaves each user his earlier interactions, and so many users all they have", function()
    local data = small:view(native.TRAIN)
    for _, users in ipairs { 5, 1000 } do
      local rest, held = data:split(0.2, 3, users)
      local cut = 0
      for u = 0, data:n_users() - 1 do
        local all, before, after = data:history(u), rest:history(u), held:history(u)
        assert.equal(#all, #before + #after)
        for i, item in ipairs(before) do assert.equal(all[i], item) end -- the generated world is cut in time
        for i, item in ipairs(after) do assert.equal(all[#before + i], item) end
        if #after > 0 then
          cut = cut + 1
          assert.equal(math.ceil(0.2 * #all), #after)
        end
      end
      assert.equal(true, users == 5 and cut == 5 or cut > 40)
    end
    local rest = data:split(0.2)
    support.refused("cannot fit", rest.item_knn, rest, {})
    for _, share in ipairs { 0, 1, -1, 0 / 0, 2 } do support.refused("a share between 0 and 1", data.split, data, share) end
    support.refused("not a whole number", data.split, data, 0.5, 1, 0)
  end)

  it("is measured as the metrics are", function()
    local data = fitting(small)
    local rest, held = data:split(0.3, 3)
    local model = data:item_knn { neighbours = 30 }
    for _, k in ipairs { 3, 10 } do
      local lists = {}
      for u = 0, data:n_users() - 1 do
        local slate = native.slate()
        model:recall(native.requests(rest, { u }), slate, k)
        lists[u] = slate:items()
      end
      local recall, ndcg, n = plain_measure(held, lists, k)
      local got = held:measure(model, rest, k)
      assert.near(recall, got.recall, 1e-6)
      assert.near(ndcg, got.ndcg, 1e-6)
      assert.equal(n, got.n_users)
      assert.equal(k, got.k)
    end
    assert.equal(20, held:measure(model, rest).k)
    local other = native.snapshot(support.data("tiny", 90)):view(native.TRAIN)
    support.refused("of different data", held.measure, held, model, other)
    support.refused("the model knows 70 items", other.measure, other, model, other)
    local _, nothing = rest:split(0.1, 1, 1)
    nothing = select(2, nothing:split(0.1))
    support.refused("nothing is held out", nothing.measure, nothing, model, rest)
  end)
end)

describe("a model of a net", function()
  it("has its file until it is discarded, and then says so", function()
    local data, net = fitting(small), nn.net {}
    local item = net:parameter("item", { 70, 4 }, { init = "normal" })
    local first
    for i = 1, 40 do -- more than one fit may have at a time
      local model = data:vectors { item = item }
      assert.equal("vectors", model:kind())
      if i == 1 then first = model
      else
        local path = native.model_path(model)
        assert.is_true(native.exists(path))
        native.model_discard(data, model)
        assert.is_false(native.exists(path))
        for _, method in ipairs(words "kind recall score rank item_scores") do support.refused("was discarded", model[method], model) end
        support.refused("was discarded", native.model_discard, data, model)
      end
    end
    support.refused("did not make", native.model_discard, fitting(small), first)
    for _ = 2, 16 do data:vectors { item = item } end
    support.refused("at most 16 models", data.vectors, data, { item = item })
  end)

  it("is refused for tensors that are none, and says why", function()
    local data, net = fitting(small), nn.net {}
    local item, user = net:parameter("item", { 70, 4 }), net:parameter("user", { 60, 4 })
    local b, s = net:pairs(data), net:sequences(data)
    local far = nn.net {}:parameter("far", { 70, 4 })
    support.refused("vectors want item", data.vectors, data, { user = user })
    support.refused("no table of 70 items", data.vectors, data, { item = user })
    support.refused("user has 3 numbers a row", data.vectors, data, { item = item, user = net:parameter("thin", { 60, 3 }) })
    support.refused("bias has 4 numbers a row", data.vectors, data, { item = item, bias = item })
    support.refused("belongs to another net", data.vectors, data, { item = item, user = far })
    support.refused("depends on 'batch.item'", data.vectors, data, { item = item[b.item] })
    support.refused("depends on 'batch.user'", data.vectors, data, { item = user[b.user], batches = b })
    support.refused("of another net than the tensors", data.vectors, data, { item = far, batches = b })
    support.refused("no option 'items'", data.vectors, data, { items = item })
    support.refused("an encoder wants", data.encoder, data, { item = item, query = item[s.item] })
    support.refused("which no request brings", data.encoder, data, { item = item, query = item[s.target], batches = s })
    support.refused("these batches have none", data.encoder, data, { item = item, query = item[b.item], batches = b })
    support.refused("a network wants", data.network, data, { logit = item })
    support.refused("these batches have none", data.network, data, { logit = item:sum(2), batches = b })
    support.refused("cannot fit", small:view(1).vectors, small:view(1), { item = item })
  end)

  it("is what its tensors are, computed for everybody", function()
    local data, net = fitting(small), nn.net { seed = 2 }
    local item, user = net:parameter("item", { 70, 4 }, { init = "normal" }), net:parameter("user", { 60, 4 }, { init = "normal" })
    local w, b = net:parameter("w", { 4, 3 }, { init = "normal" }), net:pairs(data, { size = 16 })
    local request, slate = native.requests(data, { 7 }), native.slate()
    for i = 0, 69 do slate:push(i, 0) end
    local whole = data:vectors { item = item:matmul(w), user = user:matmul(w), cold = true }
    local swept = data:vectors { item = item[b.item]:matmul(w), user = user[b.user]:matmul(w), cold = true, batches = b }
    local x, y = whole:score(request, slate), swept:score(request, slate)
    local iv, uv, wv = item:values(), user:values(), w:values()
    for i = 0, 69 do
      local sum = 0
      for c = 1, 3 do
        local p, q = 0, 0
        for k = 1, 4 do
          p = p + iv[i * 4 + k] * wv[(k - 1) * 3 + c]
          q = q + uv[7 * 4 + k] * wv[(k - 1) * 3 + c]
        end
        sum = sum + p * q
      end
      assert.near(sum, x[i + 1], 1e-4 * (1 + math.abs(sum)))
      assert.near(sum, y[i + 1], 1e-4 * (1 + math.abs(sum)))
    end
  end)
end)

describe("handles", function()
  it("keep alive what they stand on, whoever goes first", function()
    for round = 1, 30 do
      local data = small:view(native.TRAIN)
      local net = nn.net { seed = round }
      local b = round % 2 == 0 and net:pairs(data, { size = 64, negatives = 2 }) or net:sequences(data, { size = 8, negatives = 2 })
      local t, rest, held = b.negative, data:split(0.3)
      data, net = nil, nil
      collectgarbage()
      collectgarbage()
      assert.is_true(b:fill(round) > 0)
      if round % 3 == 0 then b = nil end
      collectgarbage()
      assert.is_true(#t:values() > 0)
      assert.is_true(rest:n_interactions() > held:n_interactions())
      assert.is_nil(data or net or (round % 3 == 0 and b or nil))
    end
  end)

  it("take any argument without harm", function()
    local data, net = fitting(small), nn.net {}
    local item = net:parameter("item", { 70, 4 })
    local model, b, s = data:vectors { item = item }, net:pairs(data), net:sequences(data)
    local given, n = {}, support.n_hostile
    for i = 1, n do given[i] = support.hostile[i] end
    for _, handle in ipairs { data, net, item, model, b, s } do
      n = n + 1
      given[n] = handle
    end
    local calls = {
      { net, words "pairs sequences rows features" }, { data, words "vectors encoder network split measure" },
      { model, words "kind recall score rank item_scores" }, { data:encoder { query = item[s.item], item = item, batches = s }, words "recall score rank" },
      { b, words "fill per_epoch rows held fill_held fields n_features" }, { s, words "fill fields" },
    }
    for _, call in ipairs(calls) do
      for _, method in ipairs(call[2]) do
        for i = 1, n do
          for j = 1, n, 3 do
            pcall(call[1][method], call[1], given[i], given[j])
            pcall(call[1][method], given[i], given[j], given[i])
            if i % 5 == 0 then pcall(call[1][method], call[1], data, given[j], given[i]) end
          end
        end
      end
    end
    for i = 1, n do pcall(function() return b[given[i]] end) end
    collectgarbage()
    assert.equal(true, b:fill(3) > 0)
    assert.same({ 70, 4 }, item:shape())
  end)

  it("of batches have no door to their metatables", function()
    local b = nn.net {}:pairs(small:view(native.TRAIN))
    assert.is_false(getmetatable(b))
    support.refused("__gc", function() return b.__gc end)
    support.refused(".", function() b.user = 1 end)
  end)
end)

-- ---- Agents --------------------------------------------------------------------------------------------------
-- Walks along one of many fixed rounds of n items: what comes next is certain, for who looks at the order.
local function rounds(n)
  local rows, rng = {}, native.rng(11)
  for u = 1, 300 do
    local at, length = rng:below(n), 4 + rng:below(4)
    for i = 1, length do rows[#rows + 1] = ("u%d,i%d,%d"):format(u, (at + i * 7) % n, i) end
  end
  return import("rounds", rows, nil, "--split leave-one-out")
end

describe("an agent of sequences", function()
  for name, knobs in pairs {
    sasrec = { n_dims = 16, epochs = 40, rate = 0.01, dropout = 0.1, size = 32, heads = 1, blocks = 1 },
    gru4rec = { n_dims = 24, epochs = 40, rate = 0.02, dropout = 0.1, size = 32 },
  } do
    for _, loss in ipairs { "full_softmax", "sampled_softmax", name == "sasrec" and "bce" or "top1" } do
      it(("(%s, %s) learns what comes next"):format(name, loss), function()
        local snapshot, own = rounds(29), {}
        for knob, value in pairs(knobs) do own[knob] = value end
        own.loss, own.negatives = loss, loss ~= "bce" and 24 or nil
        if loss == "bce" then own.epochs = 120 end
        local data = fitting(snapshot)
        local model = fit(name, data, own)
        assert.equal("encoder", model:kind())
        local test = snapshot:view(native.VALID)
        local got = test:measure(model, data, 5)
        -- By chance 5 of some 24; counting who has what with what does no better than half.
        if not (got.recall > 0.9 and got.ndcg > (loss == "full_softmax" and 0.9 or 0.7)) then
          error(("recall %.3f, ndcg %.3f"):format(got.recall, got.ndcg))
        end
        -- The same whoever asks: a stranger with the same history.
        local history, mine, theirs = data:history(5), native.slate(), native.slate()
        model:recall(native.requests(data, { 5 }), mine, 5)
        model:recall(native.request(snapshot, nil, history, history), theirs, 5)
        assert.same(mine:items(), theirs:items())
        local nobody = native.slate()
        model:recall(native.request(snapshot, nil, {}, {}), nobody, 5)
        assert.equal(0, #nobody)
      end)
    end
  end
end)

-- Users like one of three makers; of each maker some items are new: they have features and nobody has had them.
local function makers()
  local rows, items, rng = {}, { "item_id:token\tmaker:token\tyear:float" }, native.rng(5)
  for u = 1, 240 do
    local maker, had = u % 3, {}
    for _ = 1, 12 do
      local item = rng:below(20) * 3 + (rng:below(10) == 0 and rng:below(3) or maker)
      if not had[item] then rows[#rows + 1] = ("u%d,i%d,%d"):format(u, item, #rows) end
      had[item] = true
    end
  end
  for i = 0, 74 do items[#items + 1] = ("i%d\tm%d\t%d"):format(i, i % 3, 1980 + i % 7) end
  return import("makers", rows, items, "--split ratio --valid-share 0.1 --test-share 0.1")
end

describe("two towers", function()
  it("place new items and new users by their features", function()
    local snapshot = makers()
    local data = fitting(snapshot)
    local model = fit("two_tower", data, { n_dims = 12, hidden = 24, epochs = 30, size = 128, rate = 0.01, negatives = 32, id_dropout = 0.4 })
    local function maker_of(item) return tonumber(snapshot:value("item", "maker", item):match "%d") end
    local right, all = 0, 0
    for u = 0, data:n_users() - 1 do
      local counts = { [0] = 0, 0, 0 }
      for _, item in ipairs(data:history(u)) do counts[maker_of(item)] = counts[maker_of(item)] + 1 end
      local slate, favourite = native.slate(), nil
      for maker = 0, 2 do if counts[maker] * 2 > #data:history(u) then favourite = maker end end
      for i = 0, 74 do
        local item = snapshot:find_item("i" .. i)
        if i >= 60 then slate:push(item, 0) end
      end
      if favourite then
        local scores, best = model:score(native.requests(data, { u }), slate), 1
        for i = 2, #slate do if scores[i] > scores[best] then best = i end end
        all, right = all + 1, right + (maker_of(slate:item(best)) == favourite and 1 or 0)
      end
    end
    assert.is_true(all > 200)
    if right < 0.95 * all then error(("%d of %d new items are of the maker whom the user likes"):format(right, all)) end
    -- Nobody has had items 60 … 74: they are recommended all the same.
    local new = 0
    for u = 0, data:n_users() - 1 do
      local slate = native.slate()
      model:recall(native.requests(data, { u }), slate, 10)
      for i = 1, #slate do new = new + (tonumber(snapshot:item_id(slate:item(i)):match "%d+") >= 60 and 1 or 0) end
    end
    assert.is_true(new > 0)
  end)

  it("do without features, and then have nothing to say of new items", function()
    local data = fitting(small)
    local model = fit("two_tower", data, { n_dims = 8, hidden = 8, epochs = 2, use_features = false, loss = "bpr", negatives = 4 })
    local slate = native.slate()
    model:recall(native.requests(data, { 3 }), slate, 10)
    assert.equal(10, #slate)
  end)
end)

-- ---- Rankers -------------------------------------------------------------------------------------------------
-- Slates of random items for each user of `makers`, as a ranker's rows; a click is what the user has had.
local function ranked(snapshot)
  local data, all, rng, slate = fitting(snapshot), snapshot:view(native.TRAIN + native.VALID + native.TEST), native.rng(8), native.slate()
  native.data_set_rows(data, { "score" })
  for u = 0, data:n_users() - 1 do
    slate:clear()
    local there = {}
    for _ = 1, 20 do
      local item = rng:below(60)
      if not there[item] then slate:push(item, rng:float()) end
      there[item] = true
    end
    native.data_add_rows(data, slate, u, all)
  end
  return data, all
end

describe("a ranker's fields", function()
  it("are the sums of a factorisation machine", function()
    local data = ranked(makers())
    local net, d = nn.net { seed = 3 }, 3
    local b = net:rows(data, { size = 16, use_ids = "always" })
    local f = nn.fields(net, b, d, { scale = 0.5 })
    local linear, pairs_of, others, l2 = f.linear(), f.pairs(), f.others(f.flat), f.l2(0.25)
    local names = {}
    for i, field in ipairs(b:fields()) do
      names[i] = ("%s %s%s"):format(field.from, field.name, field.id and "(id)" or "")
      assert.equal(field.column == nil, field.first ~= nil)
    end
    assert.same({ "slate score", "user (id)", "item (id)", "item maker", "item year" }, names)
    assert.equal(3 * d + 2, f.width)
    assert.same({ 16, 3 * d + 2 }, f.flat:shape())
    assert.equal(240 + 75 + 3 + 2, b:n_features())
    local lv = net:find "fields.linear"
    local numbers = {}
    for i = 1, 320 do numbers[i] = math.sin(i) end
    lv:fill(numbers)
    net:find("fields.linear.dense"):fill { 0.3, -0.7 }
    net:find("fields.base"):fill { 0.25 }
    local rows = b:fill(2)
    local plan = net:plan { outputs = { linear, pairs_of, f.flat, others, l2 } }
    plan:run(0)
    local got_linear, got_pairs, flat, got_others = plan:value(linear), plan:value(pairs_of), plan:value(f.flat), plan:value(others)
    local codes, weights, dense, table_, own = b.codes:values(), b.weights:values(), b.dense:values(),
      net:find("fields.vectors"):values(), net:find("fields.vectors.dense"):values()
    local w, squares = { 0.3, -0.7 }, 0
    for r = 0, rows - 1 do
      local sum, parts = 0.25, {}
      for s = 1, 3 do
        local code, x = codes[r * 3 + s], weights[r * 3 + s]
        local size = numbers[code + 1] ^ 2
        for c = 1, d do size = size + table_[code * d + c] ^ 2 end
        squares = squares + size * x * (s == 1 and 0.25 or 1) / rows
      end
      for s = 1, 3 do
        local code, x = codes[r * 3 + s], weights[r * 3 + s]
        sum = sum + numbers[code + 1] * x
        parts[s] = {}
        for c = 1, d do
          parts[s][c] = table_[code * d + c] * x
          assert.near(parts[s][c], flat[r * (3 * d + 2) + (s - 1) * d + c], 1e-5)
        end
      end
      for k = 1, 2 do
        sum = sum + w[k] * dense[r * 2 + k]
        parts[3 + k] = {}
        for c = 1, d do parts[3 + k][c] = own[(k - 1) * d + c] * dense[r * 2 + k] end
        assert.near(dense[r * 2 + k], flat[r * (3 * d + 2) + 3 * d + k], 1e-5)
      end
      for c = 1, d do
        for s = 1, 3 do
          assert.near(parts[1][c] + parts[2][c] + parts[3][c] - parts[s][c], got_others[r * (3 * d + 2) + (s - 1) * d + c], 1e-5)
        end
      end
      for k = 1, 2 do assert.equal(0, got_others[r * (3 * d + 2) + 3 * d + k]) end
      local product = 0
      for i = 1, 5 do
        for j = i + 1, 5 do
          for c = 1, d do product = product + parts[i][c] * parts[j][c] end
        end
      end
      assert.near(sum, got_linear[r + 1], 1e-4)
      assert.near(product, got_pairs[r + 1], 1e-4)
    end
    for k = 1, 2 do
      squares = squares + w[k] ^ 2
      for c = 1, d do squares = squares + own[(k - 1) * d + c] ^ 2 end
    end
    assert.near(squares / 2, plan:value(l2)[1], 1e-4)
  end)

  it("are of rows, a share of which no epoch has", function()
    local data = ranked(makers())
    local all = nn.net {}:rows(data, { size = 64 }):rows()
    for _, by in ipairs { "rows", "slates" } do
      local net = nn.net { seed = 3 }
      local b = net:rows(data, { size = 64, held = 0.3, held_by = by, use_ids = "always" })
      local codes, first, there = b.codes, 0, { {}, {} }
      local function look(n, list)
        local c = codes:values()
        for r = 0, n - 1 do list[c[3 * r + 1]] = (list[c[3 * r + 1]] or 0) + 1 end
      end
      assert.equal(all, b:rows() + b:held())
      assert.near(0.3 * all, b:held(), 0.1 * all)
      for step = 0, b:per_epoch() - 1 do look(b:fill(step), there[1]) end
      while first < b:held() do
        local n = b:fill_held(first)
        look(n, there[2])
        first = first + n
      end
      assert.equal(b:held(), first)
      local both, users = 0, 0
      for user in pairs(there[2]) do both, users = both + (there[1][user] and 1 or 0), users + 1 end
      if by == "slates" then assert.equal(0, both) else assert.equal(true, both > 0.8 * users) end
      support.refused("of " .. b:held() .. " that are held", b.fill_held, b, b:held())
    end
    support.refused("held_by: 'user'", function() nn.net {}:rows(data, { held = 0.5, held_by = "user" }) end)
    support.refused("that are held", function() nn.net {}:pairs(small:view(native.TRAIN)):fill_held(0) end)
  end)

  it("are asked for by who ranks alone", function()
    local net = nn.net {}
    support.refused("role rank has rows", net.rows, net, small:view(native.TRAIN))
    local b = net:pairs(small:view(native.TRAIN))
    support.refused("they have no fields", b.fields, b)
    support.refused("they have no fields", b.n_features, b)
    support.refused("use_ids must be", net.rows, net, (ranked(makers())), { use_ids = "sometimes" })
    support.refused("no item column 'price'", net.rows, net, (ranked(makers())), { item_columns = { "price" } })
  end)
end)

-- How often a ranker puts what a user has had above what he has not, over all 60 items that anybody has had.
local function auc(model, data, all)
  local slate, above, n = native.slate(), 0, 0
  for u = 0, 200 do
    local has, scores = set_of(all:history(u)), { [true] = {}, [false] = {} }
    slate:clear()
    for item = 0, 59 do slate:push(item, 0.5) end
    model:rank(native.requests(data, { u }), slate, data)
    for i = 1, #slate do
      local list = scores[has[slate:item(i)] or false]
      list[#list + 1] = slate:score_at(i)
    end
    for _, p in ipairs(scores[true]) do
      for _, q in ipairs(scores[false]) do above, n = above + (p > q and 1 or p == q and 0.5 or 0), n + 1 end
    end
  end
  return above / n
end

describe("a net that ranks", function()
  it("stops when the rows that are held are told no better, and is the best until then", function()
    local data = ranked(makers())
    local function held_loss(net, b, loss)
      local plan = net:plan { outputs = { loss } }
      b:fill_held(0) -- all of them
      plan:run(0)
      return plan:value(loss)[1]
    end
    local function train(epochs, patience)
      local net = nn.net { seed = 3 }
      local b = net:rows(data, { size = 2048, held = 0.2, use_ids = "always" })
      assert.equal(true, b:held() <= 2048)
      local f = nn.fields(net, b, 8)
      local logit = f.linear() + f.pairs()
      local loss, losses, made = nn.loss.log_loss()(logit, b.label), {}, {}
      serial = serial + 1
      native.data_artifact(data, ("%s/held%d.model"):format(support.folder, serial), 1)
      local model = nn.train { data = data, net = net, batches = b, loss = loss, held_loss = loss, epochs = epochs, patience = patience,
        optimiser = nn.adam { rate = 0.1 }, model = function()
          losses[#losses + 1] = held_loss(net, b, loss)
          made[#made + 1] = data:network { logit = logit, batches = b }
          return made[#made]
        end }
      return model, losses, made
    end
    local model, losses, made = train(60, 3)
    local best = 1
    for i, x in ipairs(losses) do if x < losses[best] then best = i end end
    assert.equal(true, best > 1 and best < 57)
    assert.equal(best + 3, #losses)
    assert.equal(made[best], model)
    local _, again = train(best, 3) -- held rows change nothing of what is learnt after them
    assert.same({ unpack(losses, 1, best) }, again)
  end)

  for _, name in ipairs { "deep_fm", "dcn_v2" } do
    it(("(%s) learns who likes what, where neither alone tells"):format(name), function()
      local data, all = ranked(makers())
      local model = fit(name, data, { epochs = 40, rate = 0.1, size = 128, use_ids = "always", l2 = 0.01, dropout = 0.1, field_dropout = 0.1 })
      assert.equal("network", model:kind())
      local plain, got = auc(data:ranker { use_ids = "always" }, data, all), auc(model, data, all)
      if got <= plain + 0.1 then error(("AUC %.3f, of a logistic regression %.3f"):format(got, plain)) end
    end)
  end
end)
