-- stage_spec.lua - from an edited file to a version: kept whole, refused with a reason, its learning state carried or not dropped in silence.

local native = require "evection.native"
local compose = require "evection.compose"
local ledger = require "evection.ledger"
local runner = require "evection.runner"
local stage = require "evection.stage"
local support = require "support"
local world = require "evection.world"

local refused = support.refused
local w
setup(function() w = world.open(support.data("tiny", 90)) end)

local recall = [[return require "evection.agent" { name = "%s", role = "recall", about = "x",
  fit = function(_, data) return data:item_scores(%s * data:item_counts()) end,
  act = function(model, request, slate) %s model:recall(request, slate) end }]]

-- A composition of one agent of one's own → its path
local function composition(name, factor, act)
  support.file(("stage/%s.lua"):format(name), recall:format(name, factor or "1", act or ""))
  return support.file(("stage/%s.yaml"):format(name), ("nodes:\n  a: { agent: %s.lua }\noutput: a\n"):format(name))
end

local function run(source, more)
  local args = { composition = source, data = "tiny", seed = 1 }
  for key, value in pairs(more or {}) do args[key] = value end
  return stage.run(args)
end

local function folder(version) return native.home .. "/versions/" .. version end
local function remove(version)
  for _, name in ipairs(native.list(folder(version))) do native.remove(folder(version) .. "/" .. name) end
  native.remove(folder(version))
end

describe("a version", function()
  it("is kept with its agents and does what the source did, whatever becomes of the source", function()
    local path = composition "kept"
    local r = run(path)
    assert.equal(compose.open(path).hash, r.version)
    assert.equal(r.version, compose.open(r.composition).hash)
    assert.same({ "composition.yaml", "kept.lua", "version.json" }, native.list(folder(r.version)))
    assert.same({ path, support.folder .. "/stage/kept.lua" }, r.files)
    assert.same({ "a" }, r.recalls)
    composition("kept", "-1")
    local now = run(path)
    assert.are_not.equal(r.version, now.version)
    assert.equal(r.version, compose.open(r.composition).hash)
    local again = run(r.version:sub(1, 10))
    assert.equal(r.version, again.version)
    assert.same({}, again.files)
    assert.equal(native.absolute(path), again.source)
  end)

  it("keeps knobs, graph, budgets and two agents of one name", function()
    support.file("stage/one/same.lua", recall:format("same", "1", ""))
    support.file("stage/two/same.lua", recall:format("same", "-1", ""))
    local path = support.file("stage/both.yaml", [[
name: "with: odd, characters"
nodes:
  a: { agent: one/same.lua, n: 7, budget: { latency_ms: 3 } }
  b: { agent: two/same.lua }
  c: { agent: weighted, from: [b, a], knobs: { inputs: "1" } }
output: c
budget: { latency_ms: 20 }
]])
    local c = compose.load(path)
    if not c then -- weighted has no such knob: the graph is what matters here
      path = support.file("stage/both.yaml", native.read_file(path):gsub(", knobs: { inputs: \"1\" }", ""))
      c = compose.open(path)
    end
    local kept = compose.open(run(path).composition)
    assert.equal(c.hash, kept.hash)
    assert.equal(20, kept.budget_ms)
    assert.same({ 7, 3 }, { kept.nodes[1].n, kept.nodes[1].budget_ms })
    assert.are_not.equal(kept.nodes[1].agent.hash, kept.nodes[2].agent.hash)
    local slower = support.file("stage/slower.yaml", native.read_file(path):gsub("latency_ms: 20", "latency_ms: 30"))
    assert.are_not.equal(c.hash, compose.open(slower).hash) -- a budget is a part of what is served
  end)

  it("remembers its source, its parent and when it was made", function()
    local parent = run(composition "parent").version
    local r = run(composition("child", "-1"), { champion = parent })
    local made = stage.list()[1]
    assert.same({ r.version, parent, native.absolute(support.folder .. "/stage/child.yaml") }, { made.version, made.parent, made.source })
    run(composition("child", "-1"), { champion = r.version })
    local again = stage.list()[1]
    assert.same({ r.version, parent, made.made_ms }, { again.version, again.parent, again.made_ms })
    assert.is_true(again.staged_ms >= made.staged_ms)
  end)

  it("that was tampered with is written again from the source, and refused by its name", function()
    local path = composition "tampered"
    local r = run(path)
    local file = folder(r.version) .. "/tampered.lua"
    native.write_file(file, recall:format("tampered", "-1", ""))
    refused("it was changed", run, r.version)
    native.write_file(file, "not Lua at all (")
    refused("tampered.lua:1", run, r.version)
    assert.equal(r.version, run(path).version)
    assert.equal(r.version, compose.open(r.composition).hash)
  end)

  it("is not found by a name that several have, or none", function()
    refused("no version 'abcdefabcdef'", run, "abcdefabcdef")
    local found, prefix = {}, nil
    for _, v in ipairs(stage.list()) do
      local first = v.version:sub(1, 1)
      if found[first] then prefix = first end
      found[first] = true
    end
    if prefix then refused("several that begin so", stage.find, prefix) end
    assert.is_nil(stage.find "zz")
  end)

  it("leaves nothing half made when it is refused, and sweeps up after who was killed", function()
    local path = composition("refused", "1", "")
    local c = compose.open(path)
    native.write_file(support.folder .. "/stage/refused.lua", recall:format("refused", "2", ""))
    refused("changed while it was staged", stage.snapshot, c, { source = path })
    for _, name in ipairs(native.list(native.home .. "/versions")) do assert.is_nil(name:match "draft", name) end
    local dead = native.home .. "/versions/" .. ("a"):rep(64) .. ".draft4194305" -- beyond any process number
    native.mkdirs(dead)
    native.write_file(dead .. "/composition.yaml", "half")
    run(path)
    assert.is_false(native.exists(dead))
  end)

  it("goes when it is old, unless it is live or was ever promoted", function()
    local names = {}
    for i = 1, 5 do names[i] = run(composition("old" .. i)).version end
    local l = ledger.open()
    ledger.put_promotion(l, { version = names[1], against = names[2], action = "promote", reason = "test" })
    ledger.put_promotion(l, { version = names[3], action = "stage", reason = "test" })
    l:close()
    local before = #stage.list()
    local gone = stage.prune { keep = 1, live = { names[4] } }
    local left = {}
    for _, v in ipairs(stage.list()) do left[v.version] = true end
    assert.same({ true, true, nil, true, true }, { left[names[1]], left[names[2]], left[names[3]], left[names[4]], left[names[5]] })
    assert.equal(before - #gone, #stage.list())
    assert.same({}, stage.prune { keep = 1000 })
  end)
end)

describe("static checks", function()
  it("tell of every error with its file and line", function()
    local path = support.file("stage/wrong.yaml", "nodes:\n  a: { agent: populer }\n  b: { agent: ease, knobs: { lamda: 3 } }\noutput: a\n")
    local message = refused("wrong.yaml:2: node a: no agent 'populer'", run, path)
    assert.is_truthy(message:find("wrong.yaml:3: node b: agent ease has no knob 'lamda'", 1, true))
    refused("what is to be staged", run, "")
    refused("no agent 'nobody'", run, "agent:nobody")
    refused("no data set 'nowhere'", run, "agent:popular", { data = "nowhere" })
  end)
end)

describe("the gate", function()
  it("measures slates of real users and of strangers", function()
    local gate = run("agent:popular", { gate = { probes = 10 }, deadline_ms = 1000 }).gate
    assert.equal(12, gate.probes)
    assert.is_true(gate.median_ms > 0 and gate.median_ms <= gate.worst_ms and gate.worst_ms < 1000)
    assert.equal(0, run("agent:popular", { gate = false }).gate.probes)
  end)

  it("warns where a stranger gets nothing", function()
    local r = run "agent:item_knn"
    assert.same({ "somebody new gets an empty slate, and will be shown what is popular" }, r.warnings)
  end)

  local bad = {
    ["an error of the script"] = { "error 'broken'", "broken" },
    ["an empty slate"] = { "if request.n_history > 0 then return end", "an empty slate" },
    ["items that were seen"] = { "for _, item in ipairs(request:history()) do slate:push(item, 1e6) end", "was seen" },
    ["an item twice"] = { "slate:push(0, 1e6) slate:push(0, 1e6)", "stands in it twice" },
    ["a score that is no number"] = { "model:recall(request, slate) slate.score:set(0 / 0) if true then return end", "has the score" },
  }
  for name, case in pairs(bad) do
    it("refuses " .. name, function() refused("gate: .*" .. case[2], run, composition("bad", "1", case[1])) end)
  end

  it("refuses what is too slow", function()
    local slow = "local x = 0 for i = 1, 3e7 do x = x + math.sin(i) end if x == 0.5 then return end"
    refused("the deadline is 5 ms", run, composition("slow", "1", slow), { gate = { probes = 1 }, deadline_ms = 5 })
  end)

  it("refuses what measures worse than the champion beyond doubt, and nothing else", function()
    local best, worst = run("agent:popular", { gate = false }).version, composition("worst", "-1")
    local message = refused("ndcg@20", run, worst, { champion = best, gate = { metric = "ndcg@20", users = 1 } })
    local pattern = "ndcg@20 is ([%d.]+), the champion's ([%d.]+): a difference of %-[%d.]+ %[(%-[%d.]+), (%-[%d.]+)%]"
    local of, their, low, high = message:match(pattern)
    assert.is_not_nil(of, message)
    assert.is_true(tonumber(of) < tonumber(their) and tonumber(low) < tonumber(high) and tonumber(high) < -0.02 * tonumber(their))
    -- as world.evaluate measures it
    assert.near(tonumber(their),
      world.evaluate({ composition = "agent:popular", data = "tiny", fold = "valid", seed = 1, bootstrap = 0 }).metrics["ndcg@20"].value, 5e-5)
    local same = run(best, { champion = best, gate = { metric = "ndcg@20", users = 1 } }).gate.metric
    assert.same({ 0, 0, 0 }, { same.difference.value, same.difference.low, same.difference.high })
    run(worst, { champion = best, gate = { metric = "ndcg@20", users = 1, margin = 1 } }) -- a margin of everything lets anything pass
    for _, none in ipairs { "", native.null } do
      assert.is_nil(run(best, { champion = none, drop_state = native.null, gate = native.null, deadline_ms = native.null }).parent)
    end
    local first = run(worst, { gate = { metric = "ndcg@20" } })
    assert.same({ "there is no champion to compare ndcg@20 with" }, first.warnings)
  end)

  it("knows what it may be asked", function()
    for pattern, gate in pairs {
      ["has no 'probe'"] = { probe = 3 }, ["probes must be a number"] = { probes = "3" }, ["probes must be a whole number"] = { probes = -1 },
      ["metric 'gini@20'"] = { metric = "gini@20" }, ["metric 'ndcg'"] = { metric = "ndcg" }, ["margin must be between"] = { margin = 2 },
      ["users must be a share"] = { users = 0 },
    } do refused(pattern, run, "agent:popular", { gate = gate }) end
  end)
end)

describe("learning state", function()
  local learner = [[return require "evection.agent" { name = "%s", role = "explore", about = "x", state = { %s },
    act = function() end, learn = function(state, events) %s end, migrate = %s }]]

  local function learning(name, state, migrate, learn)
    support.file(("stage/%s.lua"):format(name), learner:format(name, state, learn or "", migrate or "nil"))
    return support.file(("stage/%s.yaml"):format(name), ("nodes:\n  p: { agent: popular, n: 20 }\n  x: { agent: %s.lua, from: p }\noutput: x\n"):format(name))
  end

  -- The version, fitted as it serves: with the state of its files.
  local function served(version) return runner.fit(compose.open(folder(version) .. "/composition.yaml"), w, { folds = 7, seed = 1, state = true }) end
  local function state_of(version, node) return served(version).by_name[node or "x"].ctx.state end

  it("that nobody has learnt from may be dropped", function()
    local champion = run(learning("idle", "seen = 'items'")).version
    served(champion)
    assert.same({}, run("agent:popular", { champion = champion }).drops)
  end)

  it("is carried where the shape is the same, and dropped by word alone where it is not", function()
    local champion = run(learning("shaped", "seen = 'items', arms = { kind = 'counts', n = 3 }")).version
    local state = state_of(champion)
    state.seen:add(4, 2)
    state.arms:update(1, 1)
    assert.same({}, run(learning("shaped", "arms = { kind = 'counts', n = 3 }, seen = 'items', new = 5"), { champion = champion }).drops)
    local other = learning("shaped", "seen = 7, arms = { kind = 'counts', n = 4 }")
    local message = refused("would drop the learning state of", run, other, { champion = champion })
    assert.is_truthy(message:find("shaped.arms (counts, n 3, window as usual: it has another shape now), shaped.seen (90 numbers", 1, true), message)
    assert.is_truthy(message:find("say drop_state to do so", 1, true))
    local r = run(other, { champion = champion, drop_state = true })
    assert.equal(2, #r.drops)
    refused("the agent is not in it", run, "agent:popular", { champion = champion })
    assert.equal(2, state_of(champion).seen:get(4)) -- what is dropped is still there for who goes back
  end)

  local carry = [[function(old_version, state)
    for arm = 0, 2 do state.arms.new:write(arm + 1, state.arms.old:read(arm)) end
    for i = 0, 6 do state.seen.new:add(i, state.seen.old:get(i)) end
    if #old_version ~= 64 or #state.arms.new ~= 4 or #state.seen.old ~= 90 then error "wrong" end
  end]]

  it("migrates: the new state is what migrate made of a copy of the old", function()
    local champion = run(learning("moved", "seen = 'items', arms = { kind = 'counts', n = 3 }")).version
    local live = state_of(champion)
    for _ = 1, 3 do live.arms:update(2, 1) end
    live.arms:update(2, 0)
    live.seen:add(4, 2)
    local source = learning("moved", "seen = 7, arms = { kind = 'counts', n = 4 }", carry)
    local r = run(source, { champion = champion })
    assert.same({ {}, { "moved" } }, { r.drops, r.migrated })
    local state = state_of(r.version)
    assert.same({ 4, 3, 3 }, { unpack(state.arms:read(3), 1, 3) })
    assert.equal(0, state.arms:read(2)[1])
    assert.same({ 2, 0 }, { state.seen:get(4), state.seen:get(5) })
    assert.equal(4, live.arms:read(2)[1])
    -- once: what it has learnt since stays
    state.arms:update(0, 1)
    live.arms:update(0, 1)
    local again = run(source, { champion = champion })
    assert.same({ {}, { "moved has migrated its learning state before: it goes on with that" } }, { again.migrated, again.warnings })
    assert.equal(1, state_of(r.version).arms:read(0)[1])
    assert.equal(0, state_of(r.version).arms:read(1)[1])
    -- another text is another migration, and what was there is kept beside
    local edited = run(learning("moved", "seen = 7, arms = { kind = 'counts', n = 4 }", carry .. " --[[ edited ]]"), { champion = champion })
    assert.same({ "moved" }, edited.migrated)
    assert.equal(1, state_of(edited.version).arms:read(1)[1])
    local beside = 0
    for _, name in ipairs(native.list(runner.state_folder(w))) do
      if name:match "^moved.*%.before$" then beside = beside + 1 end
      assert.is_nil(name:match "%.draft", name)
    end
    assert.equal(2, beside)
  end)

  it("is carried by the documentation's example as the formulas have it", function()
    local page = native.read_file(native.root .. "/docs/reference/versions.md")
    local new = assert(page:match "```lua\n(.-)```")
    local before = new:gsub("n_dims = 6", "n_dims = 4"):gsub("migrate = .*$", "}\n")
    local path = support.file("stage/bandit.yaml", "nodes:\n  p: { agent: popular, n: 20 }\n  x: { agent: bandit.lua, from: p }\noutput: x\n")
    support.file("stage/bandit.lua", before)
    local champion = run(path).version
    local old, rng = state_of(champion).model, native.rng(1)
    for _ = 1, 50 do old:update(0, rng:float(), native.vector { 1, rng:float(), rng:float(), rng:float() }) end
    support.file("stage/bandit.lua", new)
    local r = run(path, { champion = champion })
    assert.same({ "bandit" }, r.migrated)
    local model = state_of(r.version).model
    local means, deviations = old:beliefs(2, { rule = "ucb" }, native.vector { 1, 0.5, 0.2, 0.9, 1, 0.1, 0.7, 0.3 })
    local mean, deviation = model:beliefs(2, { rule = "ucb" }, native.vector { 1, 0.5, 0.2, 0.9, 0, 0, 1, 0.1, 0.7, 0.3, 0, 0 })
    for i = 1, 2 do
      assert.near(means[i], mean[i], 1e-12)
      assert.near(deviations[i], deviation[i], 1e-12)
    end
    local _, prior = model:beliefs(1, { rule = "ucb", alpha = 1 }, native.vector { 0, 0, 0, 0, 3, 4 })
    assert.near(5, prior[1], 1e-9) -- nothing is known there: the prior's deviation is |x|
  end)

  it("that a migration cannot carry stays as it was, and the stage fails", function()
    local champion = run(learning("fails", "seen = 'items'")).version
    state_of(champion).seen:add(1, 5)
    local files = native.list(runner.state_folder(w))
    local source = learning("fails", "seen = 8", "function(_, state) state.seen.new:add(1, 7) state.seen.old:add(1, 9) error 'no way' end")
    refused("node x: migrate: .*no way; nothing was changed", run, source, { champion = champion })
    assert.same(files, native.list(runner.state_folder(w)))
    assert.equal(5, state_of(champion).seen:get(1))
  end)

  it("is found whole after a crash in the middle of the moves", function()
    local champion = run(learning("crashed", "seen = 'items'")).version
    state_of(champion).seen:add(1, 5)
    local source = learning("crashed", "seen = 8", "function(_, state) state.seen.new:add(1, state.seen.old:get(1)) end")
    local r = run(source, { champion = champion })
    local at = runner.state_folder(w) .. "/crashed.seen.8.f64"
    local journal = native.json_decode(native.read_file(runner.state_folder(w) .. "/crashed.migration"))
    assert.is_nil(journal.moves)
    native.rename(at, at .. ".draft4194305") -- as if it had been killed before that move
    journal.moves = native.array { { from = at .. ".draft4194305", to = at } }
    native.write_file(runner.state_folder(w) .. "/crashed.migration", native.json_encode(journal))
    assert.same({}, run(source, { champion = champion }).migrated)
    assert.equal(5, state_of(r.version).seen:get(1))
  end)

  it("of a champion that is gone is told of", function()
    local champion = run(composition "lost").version
    remove(champion)
    assert.is_truthy(run("agent:popular", { champion = champion }).warnings[1]:find("cannot be read", 1, true))
  end)
end)

it("an error in a file with a long path still names the file and its line", function()
  local path = support.file(("long/"):rep(20) .. ("a"):rep(64) .. "/far.lua", recall:format("far", "1", "error 'here'"))
  local text = support.file("stage/far.yaml", ("nodes:\n  a: { agent: %s }\noutput: a\n"):format(path))
  refused("far%.lua:3: here", run, text)
  support.file("stage/far/composition.yaml", "nodes:\n  a: { agent: " .. path .. " }\noutput: a\n")
  native.write_file(path, "return nil,\n\n  oops(")
  refused("far.lua:3: ", run, text)
end)

it("a slot is written as it is read, and nothing that no slot can have", function()
  local options = { kind = "linear", n = 2, n_dims = 2, window = 0 }
  local a, b = native.arms(nil, options), native.arms(nil, options)
  for i = 1, 5 do a:update(1, 0.5, native.vector { 1, i }) end
  b:write(1, a:read(1))
  assert.same(a:read(1), b:read(1))
  assert.are_not.same(a:read(0), b:read(1))
  assert.same({ (a:beliefs({ 1 }, { rule = "ucb" }, native.vector { 1, 2 })) }, { (b:beliefs({ 1 }, { rule = "ucb" }, native.vector { 1, 2 })) })
  local slot = a:read(1)
  slot[3] = 0 / 0
  refused("not finite", b.write, b, 1, slot)
  slot = a:read(1)
  slot[9] = -1 -- a variance
  refused("not positive", b.write, b, 1, slot)
  refused("numbers, 12 expected", b.write, b, 1, { 1, 2 })
  refused("whole number", b.write, b, 2, slot)
  assert.same(a:read(1), b:read(1))
  local fading = native.arms(nil, { kind = "counts", n = 3, decay = 0.5, window = 0 })
  for arm = 0, 2 do fading:write(arm, { 8, 4, 4, 100 }) end
  assert.same({ 8, 4, 4 }, { unpack(fading:read(0), 1, 3) }) -- writing fades nothing
  fading:update(1, 1)
  assert.same({ 4, 2, 2 }, { unpack(fading:read(0), 1, 3) })
end)
