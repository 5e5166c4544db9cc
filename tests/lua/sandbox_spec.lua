-- sandbox_spec.lua - attacks: what an agent's code may try, and that it gets an error, its own copy, or a dead process.

local native = require "evection.native"
local agent = require "evection.agent"
local compose = require "evection.compose"
local runner = require "evection.runner"
local sandbox = require "evection.sandbox"
local support = require "support"
local world = require "evection.world"

local words = support.words

-- Runs text as an agent's file would be. → ok, value or message
local function run(text, env)
  local chunk, message = sandbox.load(text, "attack", env or sandbox.environment {})
  if not chunk then return false, message end
  return pcall(chunk)
end

local function gives(expected, text)
  local ok, value = run("return " .. text)
  assert(ok, value)
  assert.equal(expected, value)
end

local function denied(text, pattern)
  local ok, message = run("return " .. text)
  assert.is_false(ok, text .. " gave " .. tostring(message))
  if pattern then assert.matches(pattern, tostring(message)) end
end

describe("the environment", function()
  it("has nothing that opens a door", function()
    for _, name in ipairs(words [[load loadstring loadfile dofile getfenv setfenv getmetatable setmetatable rawset rawget rawequal collectgarbage newproxy
      module xpcall print gcinfo io os debug package coroutine ffi jit bit arg native evection]]) do
      gives(nil, name)
      gives(nil, "_G." .. name)
    end
    for _, name in ipairs(words "dump buffer pack unpack") do gives(nil, "string." .. name) end
    for _, name in ipairs(words "random randomseed") do gives(nil, "math." .. name) end
  end)

  it("leads to no forbidden function and to no table that others have, however far one walks", function()
    local forbidden, shared = {}, {}
    for _, library in ipairs { io, os, debug, package, coroutine, require "ffi", jit, bit, native } do
      shared[library] = true
      for _, value in pairs(library) do
        if type(value) == "function" and value ~= native.vector then forbidden[value] = true end
      end
    end
    for _, name in ipairs(words [[load loadstring loadfile dofile getfenv setfenv getmetatable setmetatable rawset rawget rawequal collectgarbage newproxy
      module require xpcall print]]) do forbidden[_G[name]] = true end
    forbidden[string.rep], forbidden[string.dump] = true, true
    for _, t in ipairs { _G, string, math, table, sandbox, agent } do shared[t] = true end
    local seen, found = {}, 0
    local function walk(t)
      assert.is_nil(shared[t])
      if seen[t] then return end
      seen[t] = true
      for _, value in pairs(t) do
        found = found + 1
        assert.is_nil(forbidden[value])
        if type(value) == "table" then walk(value) end
      end
    end
    walk(sandbox.environment {})
    assert.is_true(found > 50)
  end)

  it("requires only what it is given", function()
    for _, name in ipairs(words "ffi os io string debug evection.native evection.sandbox jit.util string.buffer table.new ../x") do
      denied(("require %q"):format(name), "agents may require")
    end
    denied("require()", "agents may require")
    denied("require {}", "agents may require")
    denied("require(0 / 0)", "agents may require")
  end)
end)

describe("code", function()
  it("is taken as text only", function()
    for _, strip in ipairs { true, false } do
      local bytecode = string.dump(function() return 1 end, strip)
      for _, text in ipairs { bytecode, "#!x\n" .. bytecode, "\239\187\191" .. bytecode, "\239\187\191#\n" .. bytecode, bytecode:sub(1, 5), "\27" } do
        assert.is_nil(sandbox.load(text, "attack", {}))
        assert.is_nil(sandbox.expression(text, "attack"))
      end
    end
  end)

  it("is bounded in size, and its nesting too", function()
    assert.is_nil(sandbox.load(string.rep(" ", 1048577), "attack", {}))
    for _, opening in ipairs { "(", "{", "- ", "not ", "do ", "a.", "function() return " } do
      assert.is_nil(sandbox.load("return " .. opening:rep(50000) .. "1", "attack", {}))
    end
    assert.is_nil(sandbox.load("local " .. ("a,"):rep(300) .. "a", "attack", {}))
    assert.is_function(sandbox.load("return " .. ("1 + "):rep(10000) .. "1", "attack", {}) or function() end)
  end)

  it("of an expression is one expression", function()
    for _, text in ipairs { "1 end do", "1; x = 2", "1\nlocal y = 2", ") or (", "", " ", "-- x", "1, 2", "return 1", "function", "1 --[[" } do
      assert.is_nil(sandbox.expression(text, "attack"))
    end
    local f = sandbox.expression("(function() x = 1; string.rep = nil; _G.y = 2; return a end)()", "attack")
    assert.equal(5, f { a = 5 })
    local g = sandbox.expression("tostring(x) .. tostring(y) .. tostring(string.rep ~= nil)", "attack")
    assert.equal("nilniltrue", g {})
  end)
end)

describe("strings", function()
  it("lead through their methods to bounded functions only", function()
    denied("('x'):rep(1e9)", "more than 1048576")
    denied("string.rep('x', 2 ^ 53)", "more than")
    denied("string.rep('x', 1 / 0)", "more than")
    denied("('x'):rep('1e7')", "more than")
    denied("('x'):rep(2, ('y'):rep(1e6))", "more than")
    denied("string.rep({}, 1)")
    gives("", "('x'):rep(-1)")
    gives("", "('x'):rep(-1 / 0)")
    gives("", "(''):rep(1e18)")
    gives(1048576, "#('x'):rep(1048576)")
    gives("x,x", "('x'):rep(2, ',')")
    gives(nil, "('x').dump")
    denied("('x'):dump()")
    gives("X", "('x'):upper()")
  end)

  it("hide their metatable, also from who has getmetatable", function()
    assert.is_false(getmetatable "")
    assert.is_false(pcall(setmetatable, "", {}))
    denied("(function() local s = 'x' s.rep = 1 end)()")
  end)

  it("give no more patterns and formats than they can carry", function()
    denied("('x'):format(1):rep(2e6)", "more than")
    denied("('%1000d'):format(1)")
    denied("('%s'):format()")
    denied("('x'):find('[')")
    denied("('x'):find('%')")
    denied("('x'):match(('('):rep(100) .. (')'):rep(100))")
    denied("('x'):match('%f')")
    denied("('x'):match('%1')")
    denied("('x'):gsub('x', '%9')")
    denied("(('x'):rep(300000)):match(('x-'):rep(300000) .. 'y')", "pattern too complex")
    denied("unpack({}, 1, 1e8)", "too many results")
    denied("select(-1)")
    denied("table.concat({ {} })")
  end)
end)

describe("what one script writes", function()
  it("reaches no other script and nothing trusted", function()
    local vandal = support.file("sandbox/vandal.lua", [[
      local agent, space = require "evection.agent", require "evection.space"
      for _, t in pairs { string, math, table, space, _G } do
        for name in pairs(t) do if name ~= "_G" and name ~= "pairs" then t[name] = nil end end
      end
      space.int = function() return { kind = "bool", default = "vandal" } end
      leaked = "leak"
      return agent { name = "vandal", role = "recall", about = "x", act = function() end }]])
    assert(agent.load(vandal))
    assert.is_function(math.floor)
    assert.is_function(("x").gsub)
    assert.is_nil(rawget(_G, "leaked"))
    local ok, value = run "return tostring(leaked) .. tostring(math.pi) .. ('x'):upper() .. table.concat { 1, 2 }"
    assert(ok, value)
    assert.equal("nil" .. tostring(math.pi) .. "X12", value)
    local whole = agent.find "item_knn"
    assert.equal("logint", whole.space.neighbours.kind)
  end)

  it("into the vocabulary of schemes stays its own", function()
    local vandal = support.file("sandbox/scheme_vandal.lua", [[
      local agent, nn = require "evection.agent", require "evection.nn"
      local hinge, sampler = nn.loss.hinge(), nn.sampler.uniform(3)
      hinge.of, hinge.text, sampler.options.negatives, sampler.scores = nil, nil, 7, nil
      for _, t in pairs { nn.loss, nn.sampler, nn.schedule, nn.regulariser, nn } do
        for name in pairs(t) do t[name] = nil end
      end
      return agent { name = "vandal", role = "recall", about = "x", act = function() end }]])
    assert(agent.load(vandal))
    local other = support.file("sandbox/scheme_reader.lua", [[
      local agent, nn = require "evection.agent", require "evection.nn"
      return agent { name = "reader", role = "recall", about = "x", fit = function() return nn end }]])
    local nn, shared, seen, found = assert(agent.load(other)).fit(), require "evection.nn", {}, 0
    assert.equal("nn.loss.hinge", tostring(nn.loss.hinge()))
    assert.equal(3, nn.sampler.uniform(3).options.negatives)
    assert.is_function(nn.sampler.uniform(3).scores)
    local forbidden = {}
    for _, value in pairs(native) do forbidden[value] = type(value) == "function" end
    local function walk(t, theirs)
      if seen[t] then return end
      seen[t] = true
      assert.are_not.equal(theirs, t)
      for name, value in pairs(t) do
        found = found + 1
        assert.is_falsy(forbidden[value], name)
        if type(value) == "table" then walk(value, theirs and theirs[name]) end
      end
    end
    walk(nn, shared)
    assert.is_true(found > 40)
    walk { nn.loss.bpr(), nn.sampler.in_batch(), nn.schedule.cosine(), nn.adam(), nn.regulariser.l2(1), nn.mlp(nn.net {}, { 1, 1 }) }
  end)

  it("into an error that C raised stays in that error", function()
    local _, a = pcall(native.raise, "invalid", "one")
    for _, key in ipairs(words "__index __newindex __gc __tostring __metatable") do assert.is_nil(a[key]) end
    a.__tostring, a.message = function() return "mine" end, 7
    local _, b = pcall(native.raise, "invalid", "two")
    assert.equal("two", tostring(b))
    assert.is_false(getmetatable(b))
  end)
end)

describe("the agents of a composition", function()
  local w
  setup(function() w = world.open(support.data("tiny", 90)) end)

  local function fitted(files, nodes, output)
    for name, text in pairs(files) do support.file("pair/" .. name .. ".lua", text) end
    for _, node in pairs(nodes) do node.agent = support.folder .. "/pair/" .. node.agent .. ".lua" end
    return runner.fit(compose.open { nodes = nodes, output = output }, w, { folds = native.TRAIN, seed = 1, state = true })
  end

  local counting = [[return require "evection.agent" { name = "counts", role = "recall", about = "x", state = { clicks = "items" }, act = function() end,
    learn = function(state, events) for _, e in ipairs(events) do state.clicks:add(e.item, e.value) end end }]]

  it("do not see what another did to the events", function()
    local run_ = fitted({
      alters = [[return require "evection.agent" { name = "alters", role = "recall", about = "x", state = { clicks = "items" }, act = function() end,
        learn = function(_, events) for i, e in ipairs(events) do e.value, e.item = 1e6, 0 end events[#events + 1] = { item = 1, value = 9 } end }]],
      counts = counting,
      both = [[return require "evection.agent" { name = "both", role = "merge", about = "x", act = function() end }]],
    }, { a = { agent = "alters" }, b = { agent = "counts" }, m = { agent = "both", from = native.array { "a", "b" } } }, "m")
    local events = { { item = 3, value = 2, type = "click" } }
    run_:learn(events)
    assert.same({ { item = 3, value = 2, type = "click" } }, events)
    local clicks = run_.by_name.b.ctx.state.clicks
    assert.equal(2, clicks:get(3))
    assert.equal(2, clicks:vector():sum())
  end)

  it("cannot rewire the graph through what they are handed", function()
    local run_ = fitted({
      pushes = [[return require "evection.agent" { name = "pushes", role = "recall", about = "x", act = function(_, _, slate) slate:push(5, 1) end }]],
      rewires = [[return require "evection.agent" { name = "rewires", role = "merge", about = "x", act = function(_, request, slate, ctx)
        ctx.inputs[1], ctx.inputs[2], ctx.knobs, ctx.data, ctx.feature = "m", nil, nil, nil, nil end }]],
    }, { a = { agent = "pushes" }, b = { agent = "pushes" }, m = { agent = "rewires", from = native.array { "a", "b" } } }, "m")
    for _ = 1, 3 do assert.same({ 5 }, run_:recommend { n = 3 }:items()) end
    assert.same({ "a", "b" }, { unpack(run_.by_name.m.from) })
  end)

  it("that fail, or give items that are none, cost a request an error", function()
    for _, body in ipairs {
      "error 'mine'", "error()", "error({})", "error({ status = 1 })", "slate.nothing:add(1)", "request.user.x = 1", "ctx.data:ease{}", "error(slate)",
      "local function f() return 1 + f() end f()",
    } do
      local text = [[return require "evection.agent" { name = "bad", role = "recall", about = "x", act = function(_, request, slate, ctx) ]] .. body .. " end }"
      local run_ = fitted({ bad = text }, { a = { agent = "bad" } }, "a")
      support.refused("^node a: act: ", run_.recommend, run_, { n = 3 })
    end
    local run_ = fitted({ odd = [[return require "evection.agent" { name = "odd", role = "recall", about = "x", act = function(_, _, slate)
      slate:push(4294967294, 0 / 0) slate:push(90, 1 / 0) slate:push(3, 1) end }]] }, { a = { agent = "odd" } }, "a")
    local slate = run_:recommend { n = 3 }
    assert.same({ 90, 3, 4294967294 }, slate:items())
    support.refused("whole number", w.item_id, w, 90)
    local lists = native.lists(3, 1)
    lists:put(0, slate)
    support.refused("there are 90", lists.measure, lists, w:view(native.VALID).data, w:view(native.TRAIN).data, { cutoffs = { 3 } })
  end)

  it("may return from fit only a model that this fit made", function()
    local text = [[local kept
      return require "evection.agent" { name = "keeps", role = "recall", about = "x", space = { k = require "evection.space".int(1, 9, 1) },
        fit = function(_, data) kept = kept or data:item_scores(data:item_counts()) return kept end }]]
    support.file("pair/keeps.lua", text)
    local c = compose.open { nodes = { a = { agent = support.folder .. "/pair/keeps.lua" } }, output = "a" }
    local first = runner.fit(c, w, { folds = native.TRAIN, seed = 1 })
    assert.is_true(#first:recommend { n = 3 } == 3)
    support.refused("^node a: fit: .* no model that it made$", runner.fit, c, w, { folds = native.TRAIN, seed = 2 })
    assert.is_true(native.exists(("%s/artifacts/%s.evm"):format(native.home, first.output.key)))
    for result, pattern in pairs { ["vector(3)"] = "no model", data = "no model", ["error{}"] = "node a: fit", ["7"] = false, ["{}"] = false } do
      support.file("pair/odd_fit.lua", [[return require "evection.agent" { name = "odd_fit", role = "recall", about = "x", act = function() end,
        fit = function(_, data) return ]] .. result .. " end }")
      local odd = compose.open { nodes = { a = { agent = support.folder .. "/pair/odd_fit.lua" } }, output = "a" }
      if pattern then support.refused(pattern, runner.fit, odd, w, { folds = native.TRAIN, seed = 1 })
      else assert.is_table(runner.fit(odd, w, { folds = native.TRAIN, seed = 1 })) end
    end
  end)
end)

describe("what the state cannot stop", function()
  local function all_end(pattern, texts, opts)
    local n = 0
    native.jobs_run {
      module = "victims", fn = "sandboxed", args = native.array(texts), workers = 4, timeout_s = opts.timeout_s, max_memory_mb = opts.max_memory_mb,
      on_done = function(i, ok, message)
        n = n + 1
        assert.is_false(ok, texts[i])
        assert.matches(pattern, message)
      end,
    }
    assert.equal(#texts, n)
  end

  it("ends with its process at the deadline: loops, also in pcall, and pattern bombs", function()
    all_end("ran out of", {
      "while true do end", "while true do pcall(function() while true do end end) end", "return (('a'):rep(40)):match(('a?'):rep(40) .. ('a'):rep(40))",
      "return (('a'):rep(100000)):find(('.-'):rep(12) .. 'b')", "local t = {} for i = 1, 100 do t[i] = i end table.sort(t, function() while true do end end)",
      "return vector(9):map(function() while true do end end)",
    }, { timeout_s = 0.25 })
  end)

  it("ends with its process at the memory limit: strings, tables and vectors without end", function()
    all_end("memory", {
      "local s = ('x'):rep(2 ^ 20) return #s:gsub('x', s)", "local t, s = {}, ('x'):rep(2 ^ 20) for i = 1, 4000 do t[i] = s end return #table.concat(t)",
      "local s = 'x' while true do s = s .. s end", "local t = {} while true do t[#t + 1] = {} end",
      "local t = {} while true do t[#t + 1] = vector(2 ^ 20) end",
    }, { timeout_s = 20, max_memory_mb = 100 })
  end)
end)
