-- loop_spec.lua - the evolution loop over a cheap evaluation: stopped anywhere and resumed, it walks the same way.

local native = require "evection.native"
local ledger = require "evection.ledger"
local lineage = require "evection.lineage"
local loop = require "evection.evolve.loop"
local space = require "evection.space"
local support = require "support"

local TOTAL = 26

local dims = {
  { path = "a.x", dim = space.linear(0, 1, 0.5), value = 0.25 }, { path = "a.n", dim = space.logint(1, 100, 10), value = 10 },
  { path = "b.kind", dim = space.choice { "p", "q", "r" }, value = "q" }, { path = "b.on", dim = space.bool(true), value = true },
}

local proposers = {
  { name = "halving", module = require "evection.evolve.halving" }, { name = "tpe", module = require "evection.evolve.tpe" },
}

-- A pure function of the evaluation, as a real one is: a reward, or for one in seven an error.
local function measure(e)
  local text = native.json_encode(e.sets) .. e.users
  local luck = tonumber(native.hash(text):sub(1, 8), 16) / 2 ^ 32
  if e.number > 1 and luck < 1 / 7 then return nil, "failed by luck" end
  local x, n = e.sets["a.x"] or 0.25, e.sets["a.n"] or 10
  return 1 - (x - 0.7) ^ 2 - 0.1 * math.abs(math.log(n / 30)) - (e.sets["b.kind"] == "r" and 0 or 0.1) + 0.02 * luck
end

local path, count = support.folder .. "/loop.db", 0

-- The tests' ledger, opened again. What is on disk when the machine loses its power is not asked here.
local function open()
  local l = native.ledger(path)
  l:exec "PRAGMA synchronous = OFF"
  return l
end

local function new_run()
  count = count + 1
  return "run" .. count, open()
end

-- Runs until `last` evaluations were made in this go (nil: to the end). The batch is measured in an order of its own, as
-- workers would. → history, number of evaluations made
local function go(run, l, opts)
  local made, rng = 0, native.rng(opts.order or 1, 77)
  local ok, history = pcall(loop.run, {
    dims = dims, proposers = opts.proposers or proposers, evaluations = opts.total or TOTAL, batch = opts.batch or 4, seed = opts.seed or 1,
    recorded = ledger.evaluations(l, run), record = function(e) ledger.put_evaluation(l, run, e) end,
    evaluate = function(list, done)
      local order = {}
      for i = 1, #list do table.insert(order, rng:below(i) + 1, list[i]) end
      for _, e in ipairs(order) do
        if made == opts.last then error("stopped", 0) end
        made = made + 1
        e.reward, e.error = measure(e)
        e.metrics = e.reward and { ["ndcg@20"] = e.reward / 2 }
        e.genome, e.seed = native.hash(native.json_encode(e.sets)), 1
        done(e)
      end
    end,
  })
  if not ok and history ~= "stopped" then error(history, 0) end
  return ok and history or nil, made
end

-- The ledger's rows of a run, without clocks.
local function rows(run, l)
  local list = l:exec("SELECT * FROM evaluations WHERE run = ? ORDER BY number", { run })
  for _, row in ipairs(list) do row.run, row.cost_seconds, row.peak_rss_mb, row.ended_ms_wall = nil, nil, nil, nil end
  return native.json_encode(native.array(list))
end

local whole_rows, whole_champion

setup(function()
  local run, l = new_run()
  local history = go(run, l, {})
  whole_rows, whole_champion = rows(run, l), loop.champion(history)
  l:close()
end)

describe("an unbroken run", function()
  it("evaluates the given composition first and spends its budget", function()
    local run, l = new_run()
    local history, made = go(run, l, {})
    assert.equal(TOTAL, #history)
    assert.equal(TOTAL, made)
    assert.equal("given", history[1].proposer)
    assert.same({}, history[1].sets)
    for i, e in ipairs(history) do
      assert.equal(i, e.number)
      assert.is_true((e.reward == nil) ~= (e.error == nil))
    end
    l:close()
  end)

  it("has the best full measurement for its champion, the first of equals", function()
    local best
    for _, row in ipairs(native.json_decode(whole_rows)) do
      if row.reward and row.users == 1 and (not best or row.reward > best.reward) then best = row end
    end
    assert.equal(best.number, whole_champion.number)
    local equals = { { users = 1, error = "x" }, { users = 1, reward = 3, number = 2 }, { users = 1, reward = 3 }, { users = 0.5, reward = 9 } }
    assert.equal(2, loop.champion(equals).number)
    assert.is_nil(loop.champion {})
  end)

  it("does not depend on the order in which a batch is done", function()
    for order = 2, 6 do
      local run, l = new_run()
      go(run, l, { order = order })
      assert.equal(whole_rows, rows(run, l))
      l:close()
    end
  end)

  it("leaves out knobs that are as given", function()
    local run, l = new_run()
    local proposal = { sets = { ["a.x"] = 0.25, ["a.n"] = 11 }, users = 1, rung = 0, parent = 1, reason = "x" }
    local history = go(run, l, { total = 2, proposers = { { name = "same", module = { propose = function() return { proposal } end } } } })
    assert.same({ ["a.n"] = 11 }, history[2].sets)
    l:close()
  end)
end)

describe("a run stopped after k evaluations and resumed", function()
  it("ends with the same ledger and champion, for every k, and measures nothing twice", function()
    for k = 0, TOTAL do
      local run, l = new_run()
      local history = go(run, l, { last = k, order = k + 1 })
      assert.equal(k == TOTAL, history ~= nil)
      l:close()
      l = open()
      local made
      history, made = go(run, l, { order = k + 100 })
      assert.equal(TOTAL - k, made)
      assert.equal(whole_rows, rows(run, l))
      assert.equal(whole_champion.number, loop.champion(history).number)
      assert.equal(whole_champion.reward, loop.champion(history).reward)
      assert.equal(native.json_encode(whole_champion.sets), native.json_encode(loop.champion(history).sets))
      l:close()
    end
  end)

  it("ends so after any number of stops", function()
    local run, l = new_run()
    local history
    local all = 0
    for _ = 1, 40 do
      if history then break end
      local made
      history, made = go(run, l, { last = 3, order = all + 1 })
      all = all + made
      l:close()
      l = open()
    end
    assert.equal(TOTAL, all)
    assert.equal(whole_rows, rows(run, l))
    l:close()
  end)

  it("keeps failures as they were, and does not try them again", function()
    local failed = 0
    for _, row in ipairs(native.json_decode(whole_rows)) do
      if row.error then failed = failed + 1 end
    end
    assert.is_true(failed > 0)
  end)

  it("takes up a larger budget where the smaller one ended, and measures what was recorded of another walk again", function()
    local only = { proposers[2] }
    local run, l = new_run()
    local _, made = go(run, l, { total = 10, proposers = only })
    assert.equal(10, made)
    _, made = go(run, l, { total = 18, proposers = only })
    assert.equal(8, made)
    local fresh = new_run()
    go(fresh, l, { total = 18, proposers = only })
    assert.equal(rows(fresh, l), rows(run, l))
    l:exec("UPDATE evaluations SET sets = '{\"a.x\":0.125}' WHERE number = 7 AND run = ?", { run })
    _, made = go(run, l, { total = 18, proposers = only })
    assert.equal(1, made)
    assert.equal(rows(fresh, l), rows(run, l))
    l:close()
  end)
end)

it("another seed walks another way", function()
  local run, l = new_run()
  go(run, l, { seed = 2 })
  assert.are_not.equal(whole_rows, rows(run, l))
  l:close()
end)

it("a budget of seconds ends a run between batches", function()
  local endless = { name = "endless", module = { propose = function()
    return { { sets = {}, users = 1, rung = 0, parent = 1, reason = "x" } }
  end } }
  local history, why = loop.run {
    dims = dims, proposers = { endless }, evaluations = 1000000, batch = 1, seed = 1, seconds = 0.05, recorded = {}, record = function() end,
    evaluate = function(list, done)
      list[1].reward = 1
      done(list[1])
    end,
  }
  assert.equal("seconds", why)
  assert.is_true(#history > 1 and #history < 1000000)
end)

it("the lineage of a run leads from the champion to the given composition, each step with what changed", function()
  local run, l = new_run()
  local history = go(run, l, {})
  for n in ipairs(history) do
    local line = lineage.ancestors(history, n)
    assert.equal(1, line[1])
    assert.equal(n, line[#line])
    for i = 2, #line do assert.equal(line[i - 1], history[line[i]].parent) end
  end
  local steps = lineage.steps(history, loop.champion(history).number, native)
  for i = 2, #steps do
    local changed = 0
    local sets, before = history[steps[i].number].sets, history[steps[i - 1].number].sets
    for _, d in ipairs(dims) do
      if sets[d.path] ~= before[d.path] then changed = changed + 1 end
    end
    assert.equal(changed, #steps[i].changes)
  end
  assert.matches("^1  ", lineage.text(history, #history))
  local lines = select(2, lineage.all(history):gsub("\n", "")) + 1
  assert.equal(TOTAL, lines)
  l:close()
end)
