-- nets_spec.lua - nets, tensors, plans and optimisers as scripts hold them: what they print, what they refuse and where it points,
-- and that no order of using or dropping them reads what is not theirs.

local native = require "evection.native"
local nn = require "evection.nn"
local sandbox = require "evection.sandbox"
local support = require "support"

local words = support.words

local function list(v)
  local values = {}
  for i = 1, #v do values[i] = v[i] end
  return values
end

local function compute(t)
  local plan = t:net():plan { outputs = { t } }
  plan:run(0)
  return list((plan:value(t)))
end

-- A small regression: w (3, 2) fitted to x w = y.
local function problem(seed)
  local net = nn.net { seed = seed or 1 }
  local x, y = net:input("x", { 4, 3 }), net:input("y", { 4, 2 })
  local w = net:parameter("w", { 3, 2 }, { init = "normal", scale = 1 })
  x:fill { 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1 }
  y:fill { 1, 2, 3, 4, 5, 6, 9, 12 }
  local loss = (x:matmul(w) - y):square():mean()
  local plan = net:plan { loss = loss }
  return { net = net, x = x, y = y, w = w, loss = loss, plan = plan, optimiser = plan:optimiser { kind = "momentum" } }
end

describe("a tensor", function()
  it("says what it is and where it was made", function()
    local net = nn.net {}
    local a = net:parameter("a", { 4, 3 }, { init = "normal" })
    local b = a:matmul(a, false, true)
    local line = debug.getinfo(1, "l").currentline - 1
    assert.equal(("tensor (4, 4) of matmul at %s:%d"):format(debug.getinfo(1, "S").source:sub(2), line):sub(-40), tostring(b):sub(-40))
    assert.matches("^tensor %(4, 3%) of a at ", tostring(a))
    assert.matches("^tensor %(%) of mean at .*nets_spec.lua:", tostring(nn.loss.squared()(a, a))) -- the script's line, not the library's
    assert.same({ 4, 4 }, b:shape())
    assert.matches("^net %(1 parameters of 12 numbers, %d+ nodes%)$", tostring(net))
    assert.matches("^plan %(a loss and 0 outputs, 0.0 MB%)$", tostring(net:plan { loss = b:sum() }))
  end)

  it("is added to, multiplied by and raised to numbers and tensors", function()
    local net = nn.net {}
    local x = net:input("x", { 3 })
    local y = net:input("y", { 3 })
    x:fill { 1, 2, 4 }
    y:fill { 2, -1, 0.5 }
    for _, case in ipairs {
      { x + y, { 3, 1, 4.5 } }, { x - y, { -1, 3, 3.5 } }, { x * y, { 2, -2, 2 } }, { x / y, { 0.5, -2, 8 } }, { -x, { -1, -2, -4 } },
      { x + 1, { 2, 3, 5 } }, { 1 + x, { 2, 3, 5 } }, { x - 1, { 0, 1, 3 } }, { 1 - x, { 0, -1, -3 } }, { x * 3, { 3, 6, 12 } }, { 3 * x, { 3, 6, 12 } },
      { x / 2, { 0.5, 1, 2 } }, { 8 / x, { 8, 4, 2 } }, { x ^ 2, { 1, 4, 16 } }, { x ^ 0.5, { 1, math.sqrt(2), 2 } }, { x ^ 3, { 1, 8, 64 } },
      { x:clip(1.5), { 1.5, 2, 4 } }, { x:clip(-math.huge, 3), { 1, 2, 3 } }, { x:clip { high = 1 }, { 1, 1, 1 } }, { x:op("sqrt"), { 1, math.sqrt(2), 2 } },
      { nn.op("add", x, y), { 3, 1, 4.5 } }, { net:op("add", x, y), { 3, 1, 4.5 } }, { x:sum(), { 7 } }, { x:mean(1, true), { 7 / 3 } },
    } do
      local got = compute(case[1])
      assert.equal(#case[2], #got)
      for i, value in ipairs(case[2]) do assert.is_true(math.abs(value - got[i]) < 1e-6, ("%s: %g, not %g"):format(tostring(case[1]), got[i], value)) end
    end
  end)

  it("counts dimensions and places from 1, or from the end", function()
    local net = nn.net {}
    local x = net:input("x", { 2, 3 })
    x:fill { 1, 2, 3, 4, 5, 6 }
    assert.same({ 5, 7, 9 }, compute(x:sum(1)))
    assert.same({ 6, 15 }, compute(x:sum(2)))
    assert.same({ 6, 15 }, compute(x:sum(-1)))
    assert.same({ 6, 15 }, compute(x:sum { dim = 2 }))
    assert.same({ 2, 1 }, x:sum(2, true):shape())
    assert.same({ 2, 3, 5, 6 }, compute(x:slice(2, 2, 3)))
    assert.same({ 2, 3, 5, 6 }, compute(x:slice(-1, -2)))
    assert.same({ 4, 5, 6 }, compute(x:slice(1, 2, 2)))
    assert.same({ 1, 4, 2, 5, 3, 6 }, compute(x:transpose()))
    assert.same({ 3, 2 }, x:reshape(-1, 2):shape())
    assert.same({ 2, 6 }, nn.concat { x, x }:shape())
    assert.same({ 4, 3 }, nn.concat({ x, x }, 1):shape())
    for _, bad in ipairs { 0, 3, -3, 1.5, 0 / 0, 1 / 0 } do support.refused("sum: dim", x.sum, x, bad) end
    support.refused("slice: to lies outside a dimension of 3", x.slice, x, 2, 1, 4)
    support.refused("sum has no option 'dimm'", x.sum, x, { dimm = 1 })
    support.refused("sum takes at most 2 numbers", x.sum, x, 1, true, 3)
    support.refused("dropout wants p", x.dropout, x)
  end)

  it("is indexed by ids, and padded by zeros where an id is -1", function()
    local net = nn.net {}
    local table_, ids = net:input("t", { 3, 2 }), net:ids("ids", { 2, 2 })
    table_:fill { 1, 2, 3, 4, 5, 6 }
    ids:fill { 2, 0, -1, 1 }
    assert.same({ 5, 6, 1, 2, 0, 0, 3, 4 }, compute(table_[ids]))
    assert.same({ 2, 2, 2 }, table_[ids]:shape())
    assert.same({ 2, 0, -1, 1 }, ids:values())
    ids:fill { 3, 0, 0, 0 }
    support.refused("nets_spec.lua:%d+: gather: id 3", compute, table_[ids])
    for _, key in ipairs { 1, true, {}, net } do support.refused("indexed by a tensor of ids", function() return table_[key] end) end
    support.refused("ids", function() return table_[table_] end)
  end)

  it("has rows that come and go along an axis", function()
    local net = nn.net {}
    local rows = net:axis(4)
    local x = net:input("x", { rows, 2 })
    local w = net:parameter("w", { 2, 1 }, { init = "ones" })
    local y = x:matmul(w)
    local plan = net:plan { outputs = { y }, loss = y:mean() }
    rows:set(3)
    assert.equal(3, #rows)
    x:fill { 1, 2, 3, 4, 5, 6 }
    assert.equal(7, plan:run(0))
    local v, shape = plan:value(y)
    assert.same({ 3, 1 }, shape)
    assert.same({ 3, 7, 11 }, list(v))
    rows:set(1)
    support.refused("filled since", plan.value, plan, y)
    assert.equal(3, plan:run(1))
    support.refused("6 numbers for 2 places", x.fill, x, { 1, 2, 3, 4, 5, 6 })
    support.refused("whole number", rows.set, rows, 5)
    assert.equal("axis (1 of 4 rows)", tostring(rows))
  end)
end)

describe("a wrong scheme", function()
  -- Runs text as an agent's would be; → its error.
  local function fails(text)
    local chunk = assert(sandbox.load("local nn, net = ...\n" .. text, "scheme.lua", sandbox.environment {}))
    local ok, message = pcall(chunk, nn, nn.net { max_mb = 64 })
    assert.is_false(ok)
    return tostring(message)
  end

  it("is told the operator, the shapes and the line", function()
    assert.matches("^scheme.lua:3: matmul %(4, 3%) x %(4, 2%): ", fails [[
local a, b = net:parameter("a", { 4, 3 }), net:parameter("b", { 4, 2 })
local c = a:matmul(b)
return c]])
    assert.matches("^scheme.lua:2: add %(4, 3%) x %(2%)", fails [[local x = net:parameter("a", { 4, 3 }) + net:parameter("b", { 2 })]])
    assert.matches("^scheme.lua:4: .*%(4%)", fails [[
local a = net:parameter("a", { 4, 3 })
local y = a:sum(2)
net:plan { loss = nn.mean_of { y, y }
}]])
    assert.matches("^scheme.lua:2: there is no operator 'matmull'", fails [[local x = net:parameter("a", { 2, 2 }) local y = x:matmull(x)]])
  end)

  it("that asks for 100 GB is refused with the parameter, its shape and the line", function()
    local message = fails [[

local x = net:parameter("huge", { 1e6, 25000 })]]
    assert.matches("^scheme.lua:3: huge %(1000000, 25000%): 100000.0 MB more than ", message)
    message = fails [[
local x = net:parameter("x", { 10000, 1 })
local y = x:matmul(x, false, true):exp()
net:plan { loss = y:sum() }]]
    assert.matches("^scheme.lua:3: %w+ %(10000, 10000%): %d+%.%d MB more than ", message)
    assert.matches("too large", fails [[local x = net:parameter("huge", { 1e12, 1e12 })]])
  end)

  it("whose loss is no number is told which operator began it", function()
    local message = fails [[
local x = net:parameter("x", { 3 }, { init = "zeros" })
local y = x:log()
local plan = net:plan { loss = (y * 2):sum() }
plan:run(7, true)]]
    assert.matches("^scheme.lua:3: the loss is no number at step 7: log %(3%) gave the first %-inf", message)
  end)

  it("that names an id that is not there is told the table", function()
    local message = fails [[
local table_, ids = net:parameter("items", { 3, 2 }), net:ids("which", { 2 })
ids:fill { 1, 9 }
local x = table_[ids]
net:plan { loss = x:sum() }:run(0, true)]]
    assert.matches("^scheme.lua:4: gather", message)
    assert.matches("9", message)
  end)
end)

describe("handles", function()
  it("of one net are no good in another", function()
    local a, b = problem(1), problem(2)
    support.refused("belongs to another net", function() return a.w + b.w end)
    support.refused("belongs to another net", a.net.plan, a.net, { loss = b.loss })
    support.refused("belongs to another net", a.net.plan, a.net, { outputs = { a.loss, b.loss } })
    support.refused("belongs to another net", a.plan.value, a.plan, b.loss)
    support.refused("belongs to another net", a.plan.gradient, a.plan, b.w)
    support.refused("belongs to another net", a.net.op, a.net, "add", b.w, b.w)
    support.refused("belongs to another net", a.net.input, a.net, "z", { b.net:axis(3) })
  end)

  it("keep alive what they stand on, whoever goes first", function()
    for _, kept in ipairs { "w", "loss", "plan", "optimiser", "net" } do
      local p = problem()
      local one = p[kept]
      p = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      if kept == "w" then assert.equal(6, #one:values())
      elseif kept == "loss" then assert.is_true(one:net():plan { loss = one }:run(0) > 0)
      elseif kept == "plan" then
        assert.is_true(one:run(0, true) > 0)
        one:optimiser { kind = "sgd" }:step(0.1)
      elseif kept == "optimiser" then
        assert.equal(0, one:steps())
        support.refused("follows a training run", one.step, one, 0.1)
      else assert.is_not_nil(one:find "w") end
    end
    for i = 1, 200 do problem(i) end -- nobody holds them
    collectgarbage()
  end)

  it("stay sound while the net grows beside them", function()
    local p = problem()
    local before = p.plan:run(0, true)
    local y = p.w
    for i = 1, 300 do y = y * 1.0001 + (i % 7) end
    local more = p.net:parameter("more", { 50, 50 })
    assert.equal(before, p.plan:run(0, true))
    p.optimiser:step(0.01)
    assert.is_true(p.plan:run(1, true) < before)
    support.refused("no output of this plan", p.plan.value, p.plan, y)
    support.refused("no output of this plan", p.plan.value, p.plan, more)
    support.refused("no parameter", p.plan.gradient, p.plan, more)
    local later = p.net:plan { loss = y:sum() + more:sum(), outputs = { y } }
    later:run(0, true)
    assert.equal(6, #later:value(y))
    assert.is_true(p.plan:run(2, true) > 0)
  end)

  it("make an optimiser follow a run, with nothing filled in between", function()
    local p = problem()
    support.refused("follows a training run", p.optimiser.step, p.optimiser, 0.1)
    p.plan:run(0, false)
    support.refused("follows a training run", p.optimiser.step, p.optimiser, 0.1)
    p.plan:run(0, true)
    p.x:fill(p.x:values())
    support.refused("filled between", p.optimiser.step, p.optimiser, 0.1)
    p.plan:run(0, true)
    p.optimiser:step(0.1)
    support.refused("follows a training run", p.optimiser.step, p.optimiser, 0.1)
    for _, rate in ipairs { 0 / 0, -1, 1 / 0 } do
      p.plan:run(0, true)
      support.refused("learning rate", p.optimiser.step, p.optimiser, rate)
    end
  end)

  it("learn: momentum finds the matrix that the equations have", function()
    local p = problem()
    for step = 1, 500 do
      p.plan:run(step, true)
      p.optimiser:step(0.1)
    end
    for i, value in ipairs { 1, 2, 3, 4, 5, 6 } do assert.is_true(math.abs(p.w:values()[i] - value) < 1e-3) end
    assert.equal(500, p.optimiser:steps())
  end)

  it("give the gradient of a parameter", function()
    local net = nn.net {}
    local w = net:parameter("w", { 4, 2 }, { init = "ones" })
    local ids = net:ids("ids", { 3 })
    ids:fill { 1, 3, 1 }
    local plan = net:plan { loss = (w[ids] * 3):sum() }
    support.refused("follows a training run", plan.gradient, plan, w)
    plan:run(0, true)
    assert.same({ 0, 0, 6, 6, 0, 0, 3, 3 }, list(plan:gradient(w)))
  end)

  it("have no door to their metatables", function()
    local p = problem()
    for _, object in ipairs { p.net, p.w, p.plan, p.optimiser, p.net:axis(2), nn.loss.bpr(), nn.sampler.uniform(1), nn.adam(), nn.linear(p.net, 1, 1) } do
      assert.is_false(getmetatable(object))
      for _, key in ipairs(words "__gc __index __newindex __metatable __call __tostring __name _x Upper") do assert.is_nil(object[key], key) end
      assert.is_false(pcall(setmetatable, object, {}))
    end
  end)

  it("are few: a script in a loop makes no more than 64 nets at once", function()
    local held = {}
    support.refused("more than 64 nets", function()
      for i = 1, 100 do held[i] = nn.net {} end
    end)
    assert.is_true(#held <= 64)
    held = nil -- luacheck: ignore
    assert.is_not_nil(nn.net {})
  end)
end)

describe("every method of", function()
  local p, other, data
  local function arguments()
    local args, n = {}, support.n_hostile
    for i = 1, n do args[i] = support.hostile[i] end
    for _, handle in ipairs { p.net, p.w, p.x, p.ids, p.loss, p.plan, p.optimiser, p.rows, other.w, other.plan, data,
      native.vector { 1, 2 }, { 1, 2, 3 }, { 2, 2 },
      { p.rows, 2 }, { loss = p.loss }, { outputs = { p.w, p.x } }, "matmul", "gather", "topk" } do
      n = n + 1
      args[n] = handle
    end
    return args, n
  end

  setup(function()
    p, other = problem(1), problem(2)
    p.rows = p.net:axis(3)
    p.ids = p.net:ids("some", { p.rows })
    data = native.snapshot(support.data("tiny", 90)):view(native.TRAIN)
  end)

  local methods = {
    net = words "parameter input ids axis constant interactions op plan find unique seed",
    w = words [[op shape net name values fill matmul sum mean topk dropout reshape slice concat transpose gather pick attention conv1d gru spmm layer_norm
      mask_equal clip pow scale softmax log_softmax normalise dot exp relu logsumexp nonsense]],
    plan = words "run value gradient bytes optimiser",
    optimiser = words "step steps norm",
    rows = words "set",
  }
  for kind, names in pairs(methods) do
    it("a " .. kind .. " takes any argument without harm", function()
      local args, n = arguments()
      for _, name in ipairs(names) do
        local method = p[kind][name]
        assert.is_function(method)
        for i = 1, n do
          pcall(method, p[kind], args[i])
          pcall(method, args[i])
          for j = 1, n do
            pcall(method, p[kind], args[i], args[j])
            if (i + j) % 7 == 0 then pcall(method, p[kind], args[i], args[j], args[(i * 5 + j * 3) % n + 1]) end
          end
        end
        support.refused("expected", method)
      end
      p.rows:set(3)
      p.w:fill { 1, 2, 3, 4, 5, 6 }
      p.x:fill { 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1 }
      p.y:fill { 1, 2, 3, 4, 5, 6, 9, 12 }
      assert.equal(0, p.plan:run(0, true))
    end)
  end

  it("options is refused out of its range", function()
    for i = 1, support.n_hostile do
      local x = support.hostile[i]
      for _, key in ipairs(words "init scale decay") do pcall(p.net.parameter, p.net, "h" .. key .. i, { 2, 2 }, { [key] = x }) end
      for _, key in ipairs(words "kind momentum beta1 beta2 epsilon weight_decay clip_norm") do pcall(p.plan.optimiser, p.plan, { [key] = x }) end
      for _, key in ipairs(words "seed data max_mb") do pcall(nn.net, { [key] = x }) end
      for _, key in ipairs(words "user_power item_power name") do pcall(p.net.interactions, p.net, data, { [key] = x }) end
      pcall(p.net.parameter, p.net, x, x, x)
    end
    support.refused("no option 'siid'", nn.net, { siid = 1 })
    support.refused("init: 'norml' is none of", p.net.parameter, p.net, "norml", { 2 }, { init = "norml" })
    support.refused("kind: 'adm' is none of", p.plan.optimiser, p.plan, { kind = "adm" })
    support.refused("there is a tensor 'w' already", p.net.parameter, p.net, "w", { 2 })
  end)
end)
