-- canary_spec.lua - how a canary stands, in words and a chart that fits a terminal.

local canary = require "evection.canary"

local function status()
  local history = {}
  for i = 1, 100 do
    local width = 0.6 / math.sqrt(i)
    history[i] = { 40 * i, -0.05, -0.05 - width, -0.05 + width }
  end
  local function share(value, users) return { value = value, low = value / 2, high = 2 * value, users = users } end
  return {
    champion = "0123456789abcdef", challenger = "fedcba9876543210", share = 0.1, since_ms = 1000, now_ms = 1000 + 7260000,
    users = 12345, users_max = 2097152, in_flight = 8345, ignored_slates = 0,
    options = { confidence = 0.95 }, units = { champion = 3600, challenger = 400 },
    slates = { champion = 18123, challenger = 2011 }, events = { champion = 9876, challenger = 543 },
    outer = { champion = 0.5, challenger = 0.45, difference = -0.05, low = -0.11, high = 0.01,
      e_better = 0.4, e_worse = 8, need_better = 20, need_worse = 25, decision = "go on" },
    inner = { { agent = "ease", champion = share(0.3, 3600), challenger = share(0.2, 400) } },
    guardrails = { errors = { champion = share(0.01, 9000), challenger = share(0.012, 900), holds = true },
      latency = { late_ms = 100, champion = { p99_ms = 12.3, users = 0 }, challenger = { p99_ms = 14, users = 0 }, holds = false } },
    verdict = "wait", reason = "not decided: 0.45 a slate against 0.5", history = history, outlook = { toward = "roll back", more_users = 2345 },
  }
end

-- Characters, not bytes.
local function width(line) return select(2, line:gsub("[^\128-\191]", "")) end

local function lines_of(text)
  local lines = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = line end
  return lines
end

describe("a canary's status", function()
  it("is told in words", function()
    local text = canary.text(status())
    for _, part in ipairs {
      "fedcba987654 against 0123456789ab: not decided", "10 % of the users, for 2 h 01 min",
      "not decided: 0.45 a slate against 0.5", "12,345 users came, 8,345", "by ease", "broken", "1.2 %", "18,123", "9,876", "events counted  ",
    } do
      assert.is_truthy(text:find(part, 1, true), part .. "\n" .. text)
    end
    assert.is_truthy(text:gsub("%s+", " "):find("about 2,345 more users have to be measured until it is rolled back", 1, true))
  end)

  it("fits 80 columns", function()
    local s = status()
    s.reason = ("a reason that is long "):rep(12)
    for _, line in ipairs(lines_of(canary.text(s))) do assert.is_true(width(line) <= 80, line) end
  end)

  it("does not foretell what cannot be foretold", function()
    local s = status()
    s.outlook = nil
    assert.is_truthy(canary.missing(s):find("cannot be said", 1, true))
    s.verdict = "roll back"
    assert.is_nil(canary.missing(s))
    assert.is_truthy(canary.text(s):find("to be rolled back", 1, true))
    s.verdict = "promote"
    assert.is_truthy(canary.text(s):find("to be promoted", 1, true))
  end)

  it("draws the difference below zero, and its interval around both", function()
    local lines = lines_of(canary.chart(status().history))
    local zero, block
    for i, line in ipairs(lines) do
      if line:find("┼", 1, true) then zero = i end
      if line:find("█", 1, true) then block = i end
    end
    assert.is_true(block > zero)
    assert.equal(10, #lines)
    for _, i in ipairs { zero - 1, zero + 1 } do assert.is_truthy(lines[i]:find("░", 1, true)) end
    assert.is_truthy(lines[#lines]:find("4,000 users", 1, true))
    assert.is_true(width(lines[1]) < width(lines[zero])) -- the interval narrows
  end)

  it("can be told before anything was measured, and of nothing but zeros", function()
    local s = { champion = "", challenger = "", share = 0.5, verdict = "wait", reason = "no user has been measured yet",
      units = { champion = 0, challenger = 0 }, outer = { e_better = 1, e_worse = 1, need_better = 20, need_worse = 25 }, inner = {}, history = {},
      guardrails = { errors = { champion = { users = 0 }, challenger = { users = 0 }, holds = true } } }
    assert.is_truthy(canary.text(s):find("no user has been measured yet", 1, true))
    assert.is_nil(canary.chart {})
    assert.is_string(canary.chart { { 1, 0, 0, 0 }, { 2, 0, 0, 0 } })
    s.ignored_slates, s.users_max = 5, 100
    assert.is_truthy(canary.text(s):find("No more than 100 users", 1, true))
  end)
end)
