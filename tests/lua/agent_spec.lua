-- agent_spec.lua - agents: what the base does for them, every error at once with its line, their knobs, where they lie.

local native = require "evection.native"
local agent = require "evection.agent"
local support = require "support"

local count = 0

-- The agent of this text; errors come second, the path third.
local function load(text)
  count = count + 1
  local path = support.file(("agents/a%d.lua"):format(count), text)
  local a, errors = agent.load(path)
  return a, errors, path
end

local function whole(text)
  local a, errors = load('local agent, space = require "evection.agent", require "evection.space"\n' .. text)
  assert(a, errors and errors[1].message)
  return a
end

describe("the base", function()
  it("recalls from the model when an agent has a fit and no act", function()
    local a = whole 'return agent { name = "a", role = "recall", about = "x", fit = function(_, data) return data end }'
    local seen
    a.act({ recall = function(...) seen = { ... } end }, "request", "slate", {})
    assert.equal("request", seen[2])
    assert.equal("slate", seen[3])
    assert.same({}, a.space)
    assert.same({}, a.state)
    assert.equal(7, a.fit({}, 7))
  end)

  it("fits and ranks for an agent of role rank that says nothing", function()
    local a = whole 'return agent { name = "a", role = "rank", about = "x", space = { epochs = space.int(1, 9, 2) } }'
    local seen, knobs
    a.act({ rank = function(...) seen = { ... } end }, "request", "slate", { data = "data" })
    assert.equal("data", seen[4])
    assert.equal("model", a.fit({ epochs = 3 }, { ranker = function(_, k)
      knobs = k
      return "model"
    end }))
    assert.same({ epochs = 3 }, knobs)
  end)

  it("leaves alone what an agent does itself", function()
    local a = whole 'return agent { name = "a", role = "rerank", about = "x", act = function(model, request) return request end }'
    assert.is_nil(a.fit)
    assert.equal(2, a.act(1, 2))
  end)

  it("knows the file and the hash of the text", function()
    local text = 'return require "evection.agent" { name = "a", role = "merge", about = "x", act = function() end }'
    local a, _, path = load(text)
    assert.equal(path, a.file)
    assert.equal(native.hash(text), a.hash)
    assert.are_not.equal(a.hash, load(text .. "\n").hash)
  end)

  it("keeps a copy: a script that holds on to its table changes nothing", function()
    local a = whole [[
      local spec = { name = "a", role = "recall", about = "x", space = { k = space.int(1, 9, 2) }, fit_knobs = { "k" }, state = { s = 3 } }
      spec.act = function()
        spec.name, spec.hash, spec.file, spec.role, spec.fit = "b", "0", "elsewhere", "rank", function() end
        spec.space.k.high, spec.space.j, spec.fit_knobs[1], spec.state.s = 1e9, { kind = "bool" }, "j", 1e9
      end
      return agent(spec)]]
    local hash, file = a.hash, a.file
    a.act()
    assert.equal("a", a.name)
    assert.equal("recall", a.role)
    assert.equal(hash, a.hash)
    assert.equal(file, a.file)
    assert.is_nil(a.fit)
    assert.same({ k = { kind = "int", low = 1, high = 9, default = 2 } }, a.space)
    assert.same({ "k" }, a.fit_knobs)
    assert.same({ s = 3 }, a.state)
  end)

  it("takes a plain table too", function() assert.is_table(load 'return { name = "a", role = "recall", about = "x", act = function() end }') end)
end)

describe("errors", function()
  it("come all at once, each with file and line", function()
    local a, errors, path = load [[
local agent, space = require "evection.agent", require "evection.space"
return agent {
  name = "Not Lower",
  role = "recal",
  abuot = "x",
  space = {
    fine  = space.int(1, 9, 2),
    made_up = { kind = "linear", low = 3, high = 1, default = 2 },
    odd = 7,
    prog = space.program "1 +",
  },
  fit_knobs = { "fine", "absent" },
  state = { clicks = "item", n = 0.5 },
  fit = "no function",
  ["x-y"] = 1,
}
]]
    assert.is_nil(a)
    support.errors_are(errors, {
      { 3, "name must be lower_case, not 'Not Lower'" }, { 4, "role must be recall, merge, rank, rerank or explore, not 'recal'" },
      { 5, "an agent has no field 'abuot' (did you mean 'about'?)" }, { 1, "about must say" }, { 8, "knob 'made_up': space.linear: low 3 is not below high 1" },
      { 9, "knob 'odd' must be made by" }, { 10, "knob 'prog'" }, { 12, "fit_knobs names 'absent'" }, { 13, "state.clicks" }, { 13, "state.n" },
      { 14, "fit must be a function, not a string" }, { 1, "no field 'x-y'" },
    }, path)
  end)

  it("name the line of a syntax error and of an error while loading", function()
    local _, errors, path = load "return {\n  1,\n  oops oops\n}"
    support.errors_are(errors, { { 3, "oops" } }, path)
    _, errors, path = load "local x\n\nreturn x.y"
    support.errors_are(errors, { { 3, "x" } }, path)
    _, errors, path = load "\nerror 'mine'"
    support.errors_are(errors, { { 2, "mine" } }, path)
    _, errors, path = load 'local space = require "evection.space"\nreturn { space.int(1, 0, 0) }'
    support.errors_are(errors, { { 2, "low 1 is not below high 0" } }, path)
    _, errors, path = load 'local agent = require "evection.agent"\nreturn agent(3)'
    support.errors_are(errors, { { 1, "wants a table" } }, path)
  end)

  it("are errors and nothing worse, whatever a file returns or throws", function()
    for _, text in ipairs {
      "", "return", "return 1", "return function() end", "return {}", "return { 1, 2, 3 }", "return nil, {}", "error()", "error({})", "error({ status = 6 })",
      "return { [{}] = 1, [true] = 2, [1.5] = 3 }", "return { name = {}, role = {}, about = {}, space = 1, state = 1, fit = 1, act = {} }",
      "return { name = 'a', role = 'recall', about = 'x', act = function() end, space = { [1] = 2, [{}] = {}, ['%'] = { kind = 'log' } } }",
      "return { ['['] = 1, ['%'] = 2, ['(()'] = 3, [''] = 4, ['\\0'] = 5, [('a*'):rep(50)] = 6 }",
      "return { name = 'a', role = 'recall', about = 'x', act = function() end, space = { k = { kind = 'choice' }, l = { kind = {} } } }",
      "return { name = 'a', role = 'recall', about = 'x', act = function() end, space = { m = { kind = 'program' } } }",
      "return { name = 'a', role = 'recall', about = 'x', act = function() end, fit_knobs = { {}, 1, 0 / 0 }, state = { [{}] = {}, s = 0 / 0, t = 1e300 } }",
      "local t = {} t.t = t return t", "local t = { name = 'a', role = 'recall', about = 'x' } t.space = { t = t } t.state = t return t",
      "\27LJ\2\n", "\0", ("("):rep(10000), "return " .. ("-"):rep(1000),
    } do
      local a, errors, path = load(text)
      assert.is_nil(a)
      assert.is_true(#errors >= 1)
      for _, e in ipairs(errors) do assert.equal(path, e.file) end
    end
  end)

  it("say what is missing from a role", function()
    local _, errors, path = load 'return {\n  name = "a",\n  role = "rerank",\n  about = "x" }'
    support.errors_are(errors, { { 3, "an agent of role rerank needs act" }, { 3, "needs fit or act" } }, path)
    _, errors, path = load 'return {\n  name = "a",\n  role = "recall",\n  about = "x" }'
    support.errors_are(errors, { { 3, "an agent of role recall needs fit or act" } }, path)
  end)

  it("say that a file is not there, too large, or bytecode", function()
    local a, errors = agent.load(support.folder .. "/absent.lua")
    assert.is_nil(a)
    assert.equal(support.folder .. "/absent.lua", errors[1].file)
    a, errors = load(string.rep("-- 12345\n", 120000))
    assert.is_nil(a)
    assert.equal(1, #errors)
    a, errors = load(string.dump(function() return {} end))
    assert.is_nil(a)
    assert.matches("wrong mode", errors[1].message)
  end)
end)

describe("knobs", function()
  local function one()
    return whole [[return agent { name = "a", role = "recall", about = "x", act = function() end, space = {
      shrink = space.log(0.1, 1000, 10), n = space.int(1, 9, 2), kind = space.choice { "x", "y" }, on = space.bool(true), f = space.program "a + b" } }]]
  end

  it("are the defaults where nothing is given", function()
    assert.same({ shrink = 10, n = 2, kind = "x", on = true, f = "a + b" }, agent.knobs(one()))
    assert.same({ shrink = 10, n = 3, kind = "x", on = false, f = "a + b" }, agent.knobs(one(), { n = 3, on = false }))
  end)

  it("are refused all at once, each with why", function()
    local values, wrong = agent.knobs(one(), { shrnk = 1, n = 2.5, kind = "z", on = 1, shrink = 1e4, f = "1 +" })
    assert.is_nil(values)
    local why = {}
    for _, w in ipairs(wrong) do why[w.knob] = w.message end
    assert.matches("no knob 'shrnk' %(did you mean 'shrink'%?%)", why.shrnk)
    assert.matches("not a whole number", why.n)
    assert.matches("not one of x, y", why.kind)
    assert.matches("not true or false", why.on)
    assert.matches("outside", why.shrink)
    assert.matches("unexpected symbol", why.f)
    assert.equal(6, #wrong)
  end)

  it("live: programs are functions of named values, blind to each other and to the world", function()
    local live = agent.live(one(), agent.knobs(one(), { f = "a + b * 2" }))
    assert.equal(2, live.n)
    assert.equal(7, live.f { a = 1, b = 3 })
    support.refused("nil", live.f, { a = 1 }) -- b is forgotten between calls
    local peek = agent.live(one(), agent.knobs(one(), { f = "io or os or package or load or getmetatable or native or a" }))
    assert.equal("a", peek.f { a = "a" })
  end)
end)

describe("the agents that ship", function()
  it("are whole, each in the folder of its role under its name", function()
    local paths = agent.list()
    assert.is_true(#paths >= 10)
    for _, path in ipairs(paths) do
      local a, errors = agent.load(path)
      assert(a, errors and errors[1] and errors[1].message)
      local role, name = path:match "([^/]+)/([^/]+)%.lua$"
      assert.equal(role, a.role)
      assert.equal(name, a.name)
      assert.is_table(agent.knobs(a))
      for _, knob in ipairs(a.fit_knobs or {}) do assert.is_table(a.space[knob]) end
    end
  end)

  it("are found by name, by role and name, and by path", function()
    local by_name, by_role = agent.find "ease", agent.find "recall/ease"
    assert.equal(by_name.file, by_role.file)
    assert.equal(by_name.hash, agent.find(by_name.file).hash)
    local path = support.file("near/mine.lua", 'return { name = "mine", role = "recall", about = "x", act = function() end }')
    assert.equal(path, agent.find("mine.lua", support.folder .. "/near").file)
  end)

  it("are guessed at when mistyped", function()
    for _, name in ipairs { "eases", "", "/", "recall/", "rank/ease", "..", "%", ("x"):rep(10000) } do
      local a, errors = agent.find(name)
      assert.is_nil(a)
      assert.matches("no agent", errors[1].message)
    end
    local _, errors = agent.find "item_kn"
    assert.matches("did you mean 'item_knn'", errors[1].message)
  end)
end)
