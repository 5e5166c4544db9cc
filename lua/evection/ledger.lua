-- ledger.lua - what evolution writes to the ledger and reads from it. The schema is documented in docs/reference.

local native = require "evection.native"

local ledger = {}

-- open() → the ledger of $EVECTION_HOME.
function ledger.open()
  native.mkdirs(native.home)
  return native.ledger(native.home .. "/ledger.db")
end

-- look(l, { data, data_hash, genome, why }) → how often the test fold of these data was opened, this time included.
function ledger.look(l, look)
  l:exec("INSERT INTO looks (data, data_hash, genome, why, at_ms_wall) VALUES (?, ?, ?, ?, ?)",
    { look.data, look.data_hash, look.genome, look.why, native.wall_ms() })
  return l:exec("SELECT count(*) AS n FROM looks WHERE data_hash = ?", { look.data_hash })[1].n
end

function ledger.put_genome(l, composition)
  l:exec("INSERT INTO genomes (hash, composition) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING",
    { composition.hash, native.json_encode(composition.source) })
end

function ledger.put_run(l, run)
  l:exec([[INSERT INTO runs (run, plan, data, data_hash, seed, started_ms_wall) VALUES (?, ?, ?, ?, ?, ?)]],
    { run.run, native.json_encode(run.plan), run.data, run.data_hash, run.seed, native.wall_ms() })
end

function ledger.end_run(l, run, champion, report)
  l:exec("UPDATE runs SET champion = ?, report = ? WHERE run = ?", { champion, report and native.json_encode(report) or native.null, run })
end

-- find_run(l[, prefix]) → the run whose name starts with prefix (the latest without one), or nil.
function ledger.find_run(l, prefix)
  return l:exec("SELECT * FROM runs WHERE run LIKE ? || '%' ORDER BY started_ms_wall DESC LIMIT 1", { prefix or "" })[1]
end

function ledger.forget_run(l, run)
  l:begin()
  l:exec("DELETE FROM evaluations WHERE run = ?", { run })
  l:exec("DELETE FROM reward_states WHERE run = ?", { run })
  l:exec("DELETE FROM runs WHERE run = ?", { run })
  l:commit()
end

-- put_evaluation(l, run, e): e as evolve.lua keeps them. One statement, so it is there whole or not at all.
function ledger.put_evaluation(l, run, e)
  local null = native.null
  l:exec([[INSERT OR REPLACE INTO evaluations (run, number, genome, parent, proposer, reason, sets, rung, users, fold, seed,
      reward, metrics, error, cost_seconds, peak_rss_mb, ended_ms_wall) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)]],
    { run, e.number, e.genome, e.parent or null, e.proposer, e.reason, native.json_encode(e.sets), e.rung, e.users, "valid", e.seed,
      e.reward or null, e.metrics and native.json_encode(e.metrics) or null, e.error or null, e.seconds or null, e.peak_rss_mb or null, native.wall_ms() })
end

-- put_reward_state(l, run, number, state): multipliers, coupling weights, front and hypervolume once evaluations 1 to number are done.
function ledger.put_reward_state(l, run, number, state)
  l:exec("INSERT OR REPLACE INTO reward_states (run, number, state) VALUES (?, ?, ?)", { run, number, native.json_encode(state) })
end

-- evaluations(l, run) → { number → evaluation }, as they were put.
function ledger.evaluations(l, run)
  local list = {}
  for _, row in ipairs(l:exec("SELECT * FROM evaluations WHERE run = ? ORDER BY number", { run })) do
    row.sets = native.json_decode(row.sets)
    row.metrics = row.metrics and native.json_decode(row.metrics)
    row.seconds = row.cost_seconds
    list[row.number] = row
  end
  return list
end

-- put_version(l, { version, genome, parent, reason }) → its number. What is known of it already stands; parent is a version's name.
function ledger.put_version(l, v)
  local null = native.null
  local parent = v.parent and ledger.put_version(l, { version = v.parent }) or null
  l:exec([[INSERT INTO versions (version, genome, parent, reason, made_ms_wall) VALUES (?, ?, ?, ?, ?) ON CONFLICT (version) DO UPDATE SET
      genome = coalesce(genome, excluded.genome), parent = coalesce(parent, excluded.parent), reason = coalesce(reason, excluded.reason)]],
    { v.version, v.genome or null, parent, v.reason or null, native.wall_ms() })
  return l:exec("SELECT number FROM versions WHERE version = ?", { v.version })[1].number
end

-- put_reward(l, { kind, name, value, low, high, weight, n, agent, version | run and evaluation, from_ms, until_ms }): kind is "inner", "outer",
-- "difference" or "shapley"; without an agent it is the whole's.
function ledger.put_reward(l, r)
  local null = native.null
  l:exec([[INSERT INTO rewards (run, evaluation, version, agent, kind, name, value, low, high, weight, n, from_ms, until_ms, at_ms_wall)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)]],
    { r.run or null, r.evaluation or null, r.version and ledger.put_version(l, { version = r.version }) or null, r.agent or null, r.kind, r.name, r.value,
      r.low or null, r.high or null, r.weight or null, r.n or null, r.from_ms or null, r.until_ms or null, native.wall_ms() })
end

-- put_promotion(l, { version, against, action, share, reason, evidence, from_ms, until_ms }) → its number: action is "stage", "canary", "promote" or
-- "rollback". A canary without until_ms is running, and keeps its events from being pruned until end_canary(l, number).
function ledger.put_promotion(l, p)
  local null = native.null
  local version, against = ledger.put_version(l, { version = p.version }), p.against and ledger.put_version(l, { version = p.against }) or null
  l:exec([[INSERT INTO promotions (version, against, action, share, reason, evidence, from_ms, until_ms, at_ms_wall) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)]],
    { version, against, p.action, p.share or null, p.reason, p.evidence and native.json_encode(p.evidence) or null, p.from_ms or null,
      p.until_ms or null, native.wall_ms() })
  return l:exec("SELECT last_insert_rowid() AS number")[1].number
end

function ledger.end_canary(l, number) l:exec("UPDATE promotions SET until_ms = ? WHERE number = ? AND until_ms IS NULL", { native.wall_ms(), number }) end

-- item_totals(l, version) → array of { item, agent, impressions, type, events, value_sum, value_squares }: what each item was shown and earned, without a
-- scan of the rows. An item without events has one row without a type.
function ledger.item_totals(l, version)
  return l:exec([[WITH v (number) AS (SELECT number FROM versions WHERE version = ?),
    i AS (SELECT item, agent, sum(impressions) AS impressions FROM (
      SELECT item, agent, impressions FROM impression_items WHERE version = (SELECT number FROM v) UNION ALL
      SELECT s.item, s.agent, 1 FROM impressions p JOIN shown s ON s.impression = p.number
        WHERE p.number > (SELECT impressions FROM folded) AND p.version = (SELECT number FROM v)) GROUP BY item, agent),
    e AS (SELECT item, agent, type, sum(events) AS events, sum(value_sum) AS value_sum, sum(value_squares) AS value_squares FROM (
      SELECT item, agent, type, events, value_sum, value_squares FROM event_items WHERE version = (SELECT number FROM v) UNION ALL
      SELECT item, agent, type, 1, value, value * value FROM events WHERE number > (SELECT events FROM folded) AND version = (SELECT number FROM v))
      GROUP BY item, agent, type)
    SELECT i.item, a.agent, i.impressions, e.type, coalesce(e.events, 0) AS events, coalesce(e.value_sum, 0) AS value_sum,
      coalesce(e.value_squares, 0) AS value_squares
    FROM i LEFT JOIN e ON e.item = i.item AND e.agent = i.agent LEFT JOIN agents a ON a.number = i.agent ORDER BY i.item, a.agent, e.type]], { version })
end

return ledger
