-- feed_spec.lua - the simulated feed from scripts: parameters that are wrong are named with their line; what happens is what was
-- expected; policies are worth what they are worth.

local feed = require "evection.feed"
local native = require "evection.native"
local sequential = require "evection.sequential"
local support = require "support"

local function small(more)
  local t = { users = 100, items = 40, places = 4, seed = 5 }
  for key, value in pairs(more or {}) do t[key] = value end
  return feed.new(t)
end

describe("a feed's parameters", function()
  it("come from a file, each mistake with its line", function()
    local path = support.file("feed.yaml", "users: 200\nitems: 50\nsegments:\n  - name: new\n    share: 0.3\n    click: -1\n  - name: old\n    share: 0.7\n")
    local f = feed.new(path)
    assert.equal(200, f:option "users")
    local of, names = f:segments()
    assert.same({ "new", "old" }, names)
    local new = 0
    for i = 1, 200 do new = new + (of[i] == 1 and 1 or 0) end
    assert.is_true(new > 35 and new < 85)
    path = support.file("wrong.yaml", "users: 0\nitmes: 50\nsegments:\n  - name: new\n    share: x\n  - share: 1\ndims: 2.5\n")
    support.refused("wrong.yaml:1: users: 0 is not between", feed.new, path)
    support.refused("wrong.yaml:2: a feed has no 'itmes' %(did you mean 'items'%?%)", feed.new, path)
    support.refused("wrong.yaml:5: share must be a number", feed.new, path)
    support.refused("segment 2 needs a name", feed.new, path)
    support.refused("wrong.yaml:7: dims: 2.5 is not a whole number", feed.new, path)
    support.refused("No such file", feed.new, support.folder .. "/none.yaml")
    support.refused("places: 10 places for 5 items", feed.new, { items = 5 })
    support.refused("segments must be a list", feed.new, { segments = {} })
    support.refused("users: %-1 is not between", native.feed, { users = -1 })
  end)

  it("are documented", function()
    local page = native.read_file(native.root .. "/docs/reference/feed.md")
    for _, list in ipairs { feed.parameters() } do
      for _, p in ipairs(list) do assert.is_truthy(page:find("`" .. p.name .. "`", 1, true), p.name) end
    end
  end)
end)

describe("a feed", function()
  it("does what was expected of it, and the same again", function()
    local function live()
      local f = small()
      local b, seen, expected = f:batch(256), 0, 0
      for _ = 1, 40 do
        b:arrive():show_random(3):step()
        seen, expected = seen + b:clicks():sum(), expected + b:expected():sum()
      end
      assert.equal(256 * 40, f:sessions())
      assert.near(256 * 40 / 100, f:days(), 1e-9)
      return seen, expected
    end
    local seen, expected = live()
    assert.is_true(math.abs(seen - expected) < 4 * math.sqrt(expected))
    assert.same({ seen, expected }, { live() })
  end)

  it("rewards the better policy, by the worth that is true", function()
    local f = small { drift = 0, satiation = 0, loyalty = 0, item_days = 0, convert = 0 }
    local users, items, appeal = f:features(0)
    local good = function(b) b:show_ranked(users, items, appeal) end
    local best, clicks = feed.value(f, good)
    local popular = feed.value(f, function(b) b:show_top(appeal) end)
    local random = feed.value(f, function(b) b:show_random(1) end)
    assert.is_true(best > 1.1 * popular and popular > 1.2 * random)
    assert.near(best, clicks, 1e-6) -- no conversions: worth is clicks
    local mean, b = sequential.mean { high = 4 }, f:batch(1000)
    for _ = 1, 10 do
      good(b:arrive())
      mean:add(b:step():rewards())
    end
    local low, high = mean:interval()
    assert.is_true(low < best and best < high and high - low < 0.3)
  end)

  it("shares a batch between two policies, and tallies each", function()
    local f = small()
    local b = f:batch(500)
    local arm, scores, worst = b:coin(0.3, 9), native.vector(40), native.vector(40)
    scores:set(8, 1)
    worst:set(20, 1)
    b:show_top(scores):show_top(worst, arm):step()
    local shown, clicks, slates = native.vector(40), native.vector(40), b:slates()
    b:tally(clicks, shown, arm)
    assert.equal(arm:sum() * 4, shown:sum())
    assert.equal(arm:sum(), shown[20])
    assert.is_true(arm:sum() > 100 and arm:sum() < 200)
    for i = 1, 500 do assert.equal(arm[i] == 1 and 19 or 7, slates[4 * i - 3]) end
    assert.equal(b:clicks():sum(), b:rewards():sum())
  end)

  it("may be given slates row by row, and refuses those that cannot be", function()
    local f = small()
    local b = f:batch(2)
    b:show(1, { 3, 5 }):show(2, { 1, 2, 3, 4 })
    assert.same({ 3, 5, -1, -1, 1, 2, 3, 4 }, (function()
      local list, v = {}, b:slates()
      for i = 1, 8 do list[i] = v[i] end
      return list
    end)())
    assert.equal(2, #b:worth())
    local other, slates = f:batch(2), b:slates()
    assert.equal(b:worth()[1], other:put(slates):worth()[1])
    for _, wrong in ipairs { 40, -2, 1.5, 0 / 0 } do
      slates:set(2, wrong)
      support.refused("number 2 is", other.put, other, slates)
    end
    support.refused("numbers", other.put, other, feed.vector(7))
    support.refused("", b.show, b, 1, { 40 })
    support.refused("", b.show, b, 3, { 1 })
    support.refused("5 items for 4 places", b.show, b, 1, { 1, 2, 3, 4, 5 })
    support.refused("numbers", b.show_top, b, native.vector(39))
    support.refused("mask", b.show_random, b, 1, native.vector(3))
    b:show(1, { 3, 3 })
    support.refused("row 1 shows item 3 twice", b.step, b)
    assert.equal(0, f:sessions())
  end)

  it("copies itself with its future", function()
    local f = small { item_days = 2 }
    local b = f:batch(300)
    for _ = 1, 5 do b:arrive():show_random(1):step() end
    local g = f:copy()
    local c = g:batch(300)
    for _ = 1, 5 do
      b:arrive():show_random(2):step()
      c:arrive():show_random(2):step()
      assert.equal(b:clicks():sum(), c:clicks():sum())
    end
    assert.equal(#f:due(), #g:due())
    assert.is_true((f:items()):sum() > 40)
    b = nil -- luacheck: ignore
    f = nil -- luacheck: ignore
    collectgarbage()
    assert.equal(c, c:arrive())
  end)
end)

describe("a feed as data", function()
  local world, reward = require "evection.world", require "evection.reward"
  local path = support.file("world.yaml", "users: 150\nitems: 60\nplaces: 4\nclick: -2.5\nitem_days: 40\n")

  local function evaluate(composition, more)
    local opts = { composition = composition, data = "feed:" .. path, bootstrap = 20 }
    for key, value in pairs(more or {}) do opts[key] = value end
    return world.evaluate(opts)
  end

  it("measures a composition by its truth, the same each time", function()
    local r, again = evaluate "agent:popular", evaluate "agent:popular"
    for _, name in ipairs { "feed_clicks", "feed_live", "feed_worth", "ndcg@20" } do assert.same(r.metrics[name], again.metrics[name]) end
    assert.equal(r.data_hash, again.data_hash)
    assert.is_true(r.metrics.feed_worth.value > r.metrics.feed_clicks.value and r.metrics.feed_clicks.value > 0.05)
    local live = r.metrics.feed_live
    assert.is_true(live.low < live.value and live.value < live.high)
    local scalar = evaluate("agent:popular", { reward = reward.of_metric "feed_worth" }).reward
    assert.near(r.metrics.feed_worth.value, scalar, 1e-12)
    assert.equal("feed", reward.parse "feed_worth".kind)
  end)

  it("is worth what the slates are worth to the users as they are", function()
    local snapshot_path, f = require "evection.feed_world".prepare(path)
    local w, sum, n = world.open(snapshot_path), 0, 0
    local run = require "evection.runner".fit(require "evection.compose".open "agent:popular", w, { folds = native.TRAIN, seed = 1 })
    local held, known = w:view(native.VALID).data, w:view(native.TRAIN).data
    run:set_n(20)
    for user = 0, held:n_users() - 1 do
      if held:n_of_user(user) > 0 then
        local slate, items = run:answer(native.requests(known, { user }), 1), {}
        for i = 1, math.min(4, #slate) do items[i] = tonumber(w:item_id(slate:item(i)):sub(2)) end
        local b = f:batch(1):everyone(tonumber(w:user_id(user):sub(2))):show(1, items)
        sum, n = sum + b:worth()[1], n + 1
      end
    end
    assert.is_true(n > 50)
    assert.near(sum / n, evaluate("agent:popular").metrics.feed_worth.value, 1e-5)
  end)

  it("names what is wrong in its file", function()
    support.refused("No such file", evaluate, "agent:popular", { data = "feed:" .. support.folder .. "/none.yaml" })
    local wrong = support.file("wrong_world.yaml", "users: 150\nitem: 60\n")
    support.refused("wrong_world.yaml:2: a feed has no 'item'", evaluate, "agent:popular", { data = "feed:" .. wrong })
    support.refused("which was not measured", world.evaluate, {
      composition = "agent:popular", data = support.data("tiny", 90), bootstrap = 0, reward = reward.of_metric "feed_worth",
    })
  end)
end)
