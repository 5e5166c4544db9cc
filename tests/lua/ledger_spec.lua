-- ledger_spec.lua - versions, rewards and promotions in the ledger; what items were shown and earned.

local native = require "evection.native"
local ledger = require "evection.ledger"
local support = require "support"

describe("the ledger", function()
  local l

  before_each(function()
    os.remove(support.folder .. "/spec.db")
    l = native.ledger(support.folder .. "/spec.db")
    l:exec "PRAGMA synchronous = OFF"
  end)

  after_each(function() l:close() end)

  it("keeps versions once, with their ancestors", function()
    local first = ledger.put_version(l, { version = "a", reason = "given" })
    local third = ledger.put_version(l, { version = "c", genome = "g", parent = "b", reason = "mutated" })
    assert.are.equal(third, ledger.put_version(l, { version = "c", genome = "another", reason = "another" }))
    ledger.put_version(l, { version = "b", parent = "a" })
    assert.are.equal(first, ledger.put_version(l, { version = "a" }))
    local up = l:exec("SELECT ancestor, reason, genome FROM version_lineage WHERE version = 'c' ORDER BY steps")
    assert.are.same({ { ancestor = "c", reason = "mutated", genome = "g" }, { ancestor = "b" }, { ancestor = "a", reason = "given" } }, up)
  end)

  it("keeps rewards of agents and of the whole", function()
    ledger.put_reward(l, { kind = "outer", name = "clicks", value = 0.25, low = 0.2, high = 0.3, n = 100, version = "v" })
    ledger.put_reward(l, { kind = "shapley", agent = "ease", name = "clicks", value = 0.1, run = "r", evaluation = 3, weight = 0.5 })
    local rows = l:exec("SELECT agent, kind, value, low, version, run, evaluation, weight FROM reward_log ORDER BY number")
    assert.are.same({ { agent = "(whole)", kind = "outer", value = 0.25, low = 0.2, version = "v" },
      { agent = "ease", kind = "shapley", value = 0.1, run = "r", evaluation = 3, weight = 0.5 } }, rows)
    assert.has_error(function() ledger.put_reward(l, { kind = "other", name = "x", value = 1 }) end)
  end)

  it("keeps promotions, and a canary runs until it is ended", function()
    local canary = ledger.put_promotion(l, { version = "new", against = "old", action = "canary", share = 0.1, reason = "on trial", from_ms = 1000 })
    ledger.put_promotion(l, { version = "new", against = "old", action = "promote", reason = "better", evidence = { e_value = 40 },
      from_ms = 1000, until_ms = 2000 })
    assert.are.equal(1, l:exec("SELECT count(*) AS n FROM promotions WHERE action = 'canary' AND until_ms IS NULL")[1].n)
    ledger.end_canary(l, canary)
    assert.are.equal(0, l:exec("SELECT count(*) AS n FROM promotions WHERE until_ms IS NULL")[1].n)
    local row = l:exec("SELECT version, against, action, evidence FROM promotion_log ORDER BY number DESC LIMIT 1")[1]
    assert.are.same({ version = "new", against = "old", action = "promote", evidence = '{"e_value":40}' }, row)
  end)

  it("says what items were shown and earned, in the totals or not", function()
    l:exec "INSERT INTO versions VALUES (1, 'v', NULL, NULL, NULL, 0), (2, 'w', NULL, NULL, NULL, 0)"
    l:exec "INSERT INTO agents VALUES (1, 'x')"
    l:exec "INSERT INTO impression_items VALUES (1, 'a', 1, 10), (1, 'b', 0, 5), (2, 'a', 1, 99)"
    l:exec "INSERT INTO event_items VALUES (1, 'a', 1, 'click', 3, 3.5, 4.25), (2, 'a', 1, 'click', 9, 9, 9)"
    l:exec "INSERT INTO impressions VALUES (1, 'i', 'u', 1, 1, 0, 0)"
    l:exec "INSERT INTO shown VALUES (1, 1, 'a', 1, 1)"
    l:exec "INSERT INTO events VALUES (1, 'e', 'u', 'a', 'click', 0.5, 0, 0, 1, 1, 1, 1, NULL)"
    assert.are.same({ { item = "a", agent = "x", impressions = 11, type = "click", events = 4, value_sum = 4, value_squares = 4.5 },
      { item = "b", impressions = 5, events = 0, value_sum = 0, value_squares = 0 } }, ledger.item_totals(l, "v"))
    assert.are.same({}, ledger.item_totals(l, "nobody"))
  end)
end)
