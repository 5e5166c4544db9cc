-- compose_spec.lua - compositions: every error at once with its line and node, the order of running, hashes.

local native = require "evection.native"
local compose = require "evection.compose"
local support = require "support"
local yaml = require "evection.yaml"

local count = 0

local function load(text, sets)
  count = count + 1
  local path = support.file(("compositions/c%d.yaml"):format(count), text)
  local c, errors = compose.load(path, sets)
  return c, errors, path
end

local function whole(text, sets)
  local c, errors = load(text, sets)
  assert(c, errors and errors[1] and errors[1].message)
  return c
end

local function errors_of(text, expected)
  local c, errors, path = load(text)
  assert.is_nil(c)
  support.errors_are(errors, expected, path)
end

local pipeline = [[
name: pipeline
data: somewhere
nodes:
  knn:   { agent: item_knn, n: 200, knobs: { shrink: 20 } }
  pop:   { agent: popular, n: 50, budget: { latency_ms: 2 } }
  blend: { agent: rank_fusion, from: [knn, pop], budget: { latency_ms: 3 } }
  best:  { agent: mmr, from: blend, n: 20 }
output: best
budget: { latency_ms: 5 }
]]

describe("errors", function()
  it("come all at once, each with line and node", function()
    errors_of([[
name: broken
nodes:
  knn:   { agent: item_kn, n: 200 }
  pop:   { agent: popular, n: 0, knobs: { live_weight: 1000, lvie_weight: 1 } }
  fused: { agent: rank_fusion, from: [knn, popp, pop, pop] }
  a:     { agent: mmr, from: b }
  b:     { agent: mmr, from: a }
  lone:  { agent: popular, budget: { latency_ms: 8, cpu: 1 } }
  two:   { agent: mmr, from: [pop, fused] }
  none:  { agent: rank_fusion }
  fed:   { agent: popular, from: pop }
  odd:   { agent: popular, knob: {}, n: x, knobs: [1] }
  1bad:  { agent: popular }
  text:  popular
  empty: { n: 5 }
  typed: { agent: [popular], from: 7, budget: 3 }
output: slat
budget: { latency_ms: 5 }
extra: 1
]], {
      { 3, "node knn: no agent 'item_kn' (did you mean 'item_knn'?)" },
      { 4, "node pop: n must be a whole number from 1 to 65536, not 0" },
      { 4, "node pop: live_weight: 1000 is outside [0.01, 100]" }, { 4, "node pop: agent popular has no knob 'lvie_weight' (did you mean 'live_weight'?)" },
      { 5, "node fused: no node 'popp' to take from (did you mean 'pop'?)" }, { 5, "node fused takes from 'pop' twice" },
      { 6, "node a: a cycle: a → b → a" },
      { 8, "node lone: a budget has no 'cpu'" },
      { 9, "node two: an agent of role rerank takes one input, not 2" }, { 10, "node none: an agent of role merge takes one or more inputs, not 0" },
      { 11, "node fed: an agent of role recall takes no input, not 1" },
      { 12, "node odd has no field 'knob' (did you mean 'knobs'?)" }, { 12, "node odd: n must be a number, not a string" }, { 12, "no knob '1'" },
      { 13, "'1bad' is no name for a node" }, { 14, "node text must be a mapping" }, { 15, "node empty names no agent" },
      { 16, "node typed: agent must be a string, not a table" }, { 16, "node typed: from must be a node or a list" },
      { 16, "node typed: budget must be a mapping, not a number" },
      { 17, "output 'slat' is no node" }, { 18, "the budget of 5 ms is below the sum of its parts, 8 ms" }, { 19, "a composition has no field 'extra'" },
    })
  end)

  it("tell of a missing output, of nodes that feed nothing, of longer cycles", function()
    errors_of("nodes:\n  a: { agent: popular }\n", { { 1, "output is missing" } })
    errors_of("nodes:\n  a: { agent: popular }\noutput: 5\n", { { 3, "output must be a string, not a number" } })
    errors_of("nodes:\n  a: { agent: popular }\n  b: { agent: popular }\noutput: a\n", { { 3, "node b feeds nothing that reaches the output" } })
    errors_of("nodes:\n  a: { agent: mmr, from: c }\n  b: { agent: mmr, from: a }\n  c: { agent: mmr, from: b }\noutput: c\n",
      { { 2, "node a: a cycle: a → c → b → a" } })
    errors_of("nodes:\n  a: { agent: mmr, from: a }\noutput: a\n", { { 2, "node a: a cycle: a → a" } })
  end)

  it("tell of budgets that are none, or smaller than their parts", function()
    errors_of("nodes:\n  a: { agent: popular, budget: { latency_ms: 0 } }\noutput: a\nbudget: { latency_ms: x }\n",
      { { 2, "node a: latency_ms must be a positive number, not '0'" }, { 4, "the composition: latency_ms must be a positive number, not 'x'" } })
    assert.equal(5, whole(pipeline).budget_ms) -- 2 + 3 is not above 5
    local _, errors = load((pipeline:gsub("latency_ms: 3", "latency_ms: 3.01")))
    assert.matches("below the sum of its parts, 5.01 ms", errors[1].message)
  end)

  it("of an agent's own file are given with that file", function()
    local broken = support.file("compositions/broken.lua", "return {\n  name = 'X',\n  role = 'recall', about = 'x', act = function() end }")
    local _, errors, path = load "nodes:\n  a: { agent: broken.lua }\n  b: { agent: nothing }\noutput: a\n"
    assert.equal(3, #errors)
    local files = {}
    for _, e in ipairs(errors) do files[e.file .. ":" .. e.line] = true end
    assert.same({ [broken .. ":2"] = true, [path .. ":3"] = true }, { [broken .. ":2"] = files[broken .. ":2"], [path .. ":3"] = files[path .. ":3"] })
  end)

  it("are errors and nothing worse, whatever the file or table", function()
    for _, text in ipairs {
      "", "1", "[]", "nodes: 1", "nodes: []", "nodes: {}", "nodes: { a: }", "nodes: { a: { agent: '' } }\noutput: a",
      "nodes: { a: { agent: recall/ } }\noutput: a",
      "nodes: { a: { agent: popular, from: [[x]] } }\noutput: a", "nodes: { a: { agent: mmr, from: [{ x: 1 }] } }\noutput: a",
      "nodes: [ { agent: popular } ]\noutput: a",
      "nodes: { a: { agent: popular, knobs: { live_weight: [1] } } }\noutput: a", "nodes: { a: { agent: 'agent:popular' } }\noutput: a",
      "nodes: { " .. ("a"):rep(41) .. ": { agent: popular } }\noutput: a", "nodes: { a: { agent: /etc/passwd.lua } }\noutput: a",
    } do
      local c, errors = load(text)
      assert.is_nil(c, text)
      assert.is_true(#errors > 0)
    end
    for _, t in ipairs { {}, { nodes = {} }, { nodes = { a = { agent = 1 } }, output = "a" }, { nodes = { a = 1 }, output = {} } } do
      local c, errors = compose.load(t)
      assert.is_nil(c)
      assert.is_true(#errors > 0)
    end
    support.refused("did you mean 'popular'", compose.open, "agent:poplar")
    support.refused(".", compose.open, support.folder .. "/absent.yaml")
  end)
end)

describe("a composition", function()
  it("runs each node after its inputs, whatever the order in the file", function()
    local c = whole(pipeline)
    local place = {}
    for i, node in ipairs(c.nodes) do
      place[node.name] = i
      for _, input in ipairs(node.from) do assert.is_true(place[input] < i) end
    end
    assert.equal(4, #c.nodes)
    assert.equal("best", c.output)
    assert.equal("somewhere", c.data)
    assert.same({ shrink = 20, neighbours = 200, alpha = 0.5, user_power = 0 }, c.nodes[place.knn].knobs)
    assert.equal(5, #c.files) -- itself and four agents
  end)

  it("has a hash of what it does, not of how it is written", function()
    local hash = whole(pipeline).hash
    local function with(what, by) return whole((pipeline:gsub(what, by))).hash end
    assert.equal(hash, with("name: pipeline", "name: other"))
    assert.equal(hash, with("shrink: 20", "shrink: 20, alpha: 0.5")) -- the default, said aloud
    assert.equal(hash, with("from: blend", "from: [blend]"))
    assert.equal(hash, with("item_knn", "recall/item_knn"))
    assert.are_not.equal(hash, with("shrink: 20", "shrink: 21"))
    assert.are_not.equal(hash, with("%[knn, pop%]", "[pop, knn]"))
    assert.are_not.equal(hash, with("n: 200", "n: 201"))
    assert.are_not.equal(hash, with("agent: mmr", "agent: quota"))
  end)

  it("is the same from a table, from what it keeps of itself, and from that written as YAML", function()
    local c = whole(pipeline)
    assert.equal(c.hash, compose.open(c.source).hash)
    assert.equal(c.hash, compose.open(native.json_decode(native.json_encode(c.source))).hash)
    assert.equal(c.hash, whole(yaml.emit(c.source)).hash)
    assert.same(c.source, compose.open(c.source).source)
  end)

  it("lets knobs be set from outside, and leaves the given table alone", function()
    local c = whole(pipeline, { ["knn.shrink"] = 5, ["best.lambda"] = 0.5 })
    assert.equal(5, c.source.nodes.knn.knobs.shrink)
    assert.equal(whole((pipeline:gsub("shrink: 20", "shrink: 5"):gsub("n: 20 }", "n: 20, knobs: { lambda: 0.5 } }"))).hash, c.hash)
    local source = whole(pipeline).source
    local before = native.json_encode(source)
    compose.open(source, { ["knn.shrink"] = 5 })
    assert.equal(before, native.json_encode(source))
    local _, errors = load(pipeline, { ["kn.shrink"] = 1, ["knn.shrnk"] = 1, ["knn.shrink"] = "x", odd = 1 })
    local text = {}
    for i, e in ipairs(errors) do text[i] = e.message end
    text = table.concat(text, "\n")
    for _, part in ipairs { "no node 'kn' %(did you mean 'knn'%?%)", "no knob 'shrnk'", "'x' is not a number", "no node 'odd'" } do
      assert.matches(part, text)
    end
    assert.equal(4, #errors)
    _, errors = load("nodes:\n  a: { agent: popular, knobs: 5 }\noutput: a\n", { ["a.live_weight"] = 2 })
    assert.matches("knobs must be a mapping", errors[1].message)
  end)

  it("offers every knob of every node as its space, sorted", function()
    local dims = compose.space(whole(pipeline))
    local by_path = {}
    for i, d in ipairs(dims) do
      by_path[d.path] = d
      assert.is_true(i == 1 or dims[i - 1].path < d.path)
    end
    assert.equal(20, by_path["knn.shrink"].value)
    assert.equal("log", by_path["knn.shrink"].dim.kind)
    assert.equal(0.8, by_path["best.lambda"].value)
    assert.is_table(by_path["blend.k"])
  end)

  it("may be an agent alone, which is fed when it needs an input", function()
    local ease = compose.open "agent:ease"
    assert.equal(1, #ease.nodes)
    local mmr = compose.open "agent:mmr"
    assert.equal(2, #mmr.nodes)
    assert.equal("popular", mmr.nodes[1].agent.name)
    assert.equal("mmr", mmr.output)
  end)

  it("finds agents beside its file", function()
    support.file("beside/mine.lua", 'return { name = "mine", role = "recall", about = "x", act = function() end }')
    local path = support.file("beside/c.yaml", "nodes: { a: { agent: mine.lua } }\noutput: a\n")
    assert.equal(support.folder .. "/beside/mine.lua", compose.open(path).files[2])
  end)

  it("that ships is whole", function()
    for _, file in ipairs(native.list(native.root .. "/policies/compositions")) do
      assert.is_table(compose.open(native.root .. "/policies/compositions/" .. file))
    end
  end)
end)
