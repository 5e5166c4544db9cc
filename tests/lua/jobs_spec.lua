-- jobs_spec.lua - native.jobs_run: whatever a job does costs its own job an error and nothing else.

local native = require "evection.native"
local support = require "support"

-- Runs victims[fn] over args; → list of { ok, result, seconds, mb }, in the order of args.
local function run(fn, args, opts)
  local results = {}
  opts = opts or {}
  native.jobs_run {
    module = "victims", fn = fn, args = native.array(args), workers = opts.workers or 2, timeout_s = opts.timeout_s or 5, max_memory_mb = opts.max_memory_mb,
    on_done = function(i, ok, result, seconds, mb)
      assert(results[i] == nil, "a job is done twice")
      results[i] = { ok = ok, result = result, seconds = seconds, mb = mb }
    end,
  }
  return results
end

-- One bad job between two good ones: the good ones must not notice. → the bad one's result
local function among_good(fn, arg, opts)
  local bad = run(fn, { arg == nil and native.array {} or arg }, opts)[1]
  local good = run("double", { 4, 5 })
  assert.same({ true, 8, true, 10 }, { good[1].ok, good[1].result, good[2].ok, good[2].result })
  return bad
end

local function fails(pattern, fn, arg, opts)
  local r = among_good(fn, arg, opts)
  assert.is_false(r.ok)
  assert.matches(pattern, r.result)
  return r
end

describe("jobs", function()
  it("give every argument its result, whatever the number of workers", function()
    local args = {}
    for i = 1, 40 do args[i] = i end
    for _, workers in ipairs { -3, 0, 1, 3, 100 } do
      local results = run("double", args, { workers = workers })
      for i = 1, 40 do assert.equal(2 * i, results[i].result) end
    end
    assert.same({}, run("double", {}))
    for _, x in ipairs { 0, -1, 0 / 0, 1 / 0, 1e300 } do
      assert.equal(14, run("double", { 7 }, { workers = x, timeout_s = x, max_memory_mb = x })[1].result)
    end
  end)

  it("run in processes of their own, each in a fresh state", function()
    local seen = { [native.pid()] = true }
    for _, r in ipairs(run("pid", { 1, 2, 3, 4 })) do
      assert.is_nil(seen[r.result])
      seen[r.result] = true
      assert.is_true(r.seconds > 0 and r.seconds < 5)
      assert.is_true(r.mb > 0.1 and r.mb < 1000)
    end
  end)

  it("carry every value there and back that has a JSON form", function()
    local rng = native.rng(1)
    local args = { "", "a\0b", "é→", true, 0.1 + 0.2, { x = { 1, 2, native.array {} }, y = {} }, native.array {}, string.rep("x", 300000) }
    for _ = 1, 10 do args[#args + 1] = rng:normal() * 10 ^ (rng:below(300) - 150.0) end
    for i, r in ipairs(run("echo", args)) do assert.same(args[i], r.result) end
  end)
end)

describe("a job that", function()
  it("loops is stopped at its deadline", function()
    for _, fn in ipairs { "loop", "loop_in_pcall", "sleep" } do
      local r = fails("ran out of", fn, nil, { timeout_s = 0.3 })
      assert.is_true(r.seconds >= 0.29 and r.seconds < 2)
    end
  end)

  it("loops does not hold up the others", function()
    local results, start = {}, native.now()
    native.jobs_run {
      module = "victims", fn = "sandboxed", workers = 3, timeout_s = 0.5,
      args = native.array { "return 1", "while true do end", "return 3", "while true do end", "return 5", "return 6" },
      on_done = function(i, ok, result) results[i] = ok and result or "failed" end,
    }
    assert.same({ "1", "failed", "3", "failed", "5", "6" }, results)
    assert.is_true(native.now() - start < 2)
  end)

  it("allocates without end is stopped at its limit", function()
    for _, fn in ipairs { "hoard", "hoard_vectors" } do
      local r = fails("memory", fn, nil, { max_memory_mb = 100, timeout_s = 20 })
      assert.is_true(r.mb < 600)
    end
    fails("stack overflow", "recurse")
  end)

  it("crashes costs itself alone", function()
    fails("exit code 3", "exit", 3)
    fails("exit code 0 and no result", "exit", 0)
    fails("signal 9", "signal", 9)
    fails("signal 15", "signal", 15)
    fails("signal 6", "signal", 6)
    fails(".", "segfault")
  end)

  it("raises gives its message", function()
    fails("^mine$", "raise", "mine")
    fails("^nothing here$", "raise_status")
    fails("without a message", "raise_table")
    fails("without a message", "raise_nil")
    fails("é", "raise", string.rep("é", 100000)) -- cut somewhere, and then no longer UTF-8
  end)

  it("returns what has no JSON form is told so", function()
    fails("function has no JSON form", "a_function")
    fails("userdata has no JSON form", "a_vector")
    fails("UTF%-8", "bytes")
    fails("deeper than 64", "deep")
    fails("deeper than 64", "circle")
    assert.equal("a\0b", among_good("nul").result)
    assert.is_nil(among_good("nothing").result)
    assert.is_true(among_good("nothing").ok)
  end)

  it("returns too much is refused, and a large result arrives whole", function()
    local r = run("large", { 9 })[1]
    assert.equal(9 * 1048576, #r.result)
    fails(".", "large", 80, { timeout_s = 20 })
  end)

  it("writes nonsense into the pipe is found out", function()
    fails("no result", "garbage", "")
    fails(".", "garbage", "x")
    fails("damaged", "garbage", ("nonsense"):rep(1000))
    fails("signal 9", "garbage_without_end", nil, { timeout_s = 20 })
    fails(".", "close_all")
  end)

  it("leaves a grandchild behind is ended all the same", function()
    local r = fails("ran out of", "fugitive", nil, { timeout_s = 0.3 })
    assert.is_true(r.seconds < 3)
  end)

  it("is not there is an error", function()
    fails("no function", "absent")
    local result
    native.jobs_run { module = "no.such.module", fn = "x", args = native.array { 1 }, on_done = function(_, ok, text) result = { ok, text } end }
    assert.is_false(result[1])
    assert.matches("no.such.module", result[2], 1, true)
  end)
end)

describe("the caller", function()
  it("may stop a batch by raising; the children are gone", function()
    support.refused("enough", function()
      native.jobs_run { module = "victims", fn = "echo", args = native.array { 1, 2, 3 }, workers = 1, on_done = function() error("enough", 0) end }
    end)
    assert.equal(2, run("double", { 1 })[1].result)
  end)

  it("is told of what makes no sense", function()
    local function with(changes)
      local opts = { module = "victims", fn = "echo", args = native.array { 1 }, on_done = function() end }
      for key, value in pairs(changes) do opts[key] = value end
      if changes.drop then opts[changes.drop] = nil end
      return opts
    end
    support.refused("table expected", native.jobs_run)
    for _, key in ipairs { "args", "on_done", "module", "fn" } do support.refused("expected", native.jobs_run, with { drop = key }) end
    support.refused("JSON form", native.jobs_run, with { args = { function() end } })
    support.refused("number expected", native.jobs_run, with { workers = "x" })
    support.refused("number expected", native.jobs_run, with { timeout_s = {} })
  end)
end)
