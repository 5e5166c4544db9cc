-- ledger.lua - what evolution writes to the ledger and reads from it. The schema is documented in docs/reference.

local native = require "evection.native"

local ledger = {}

-- What a run knows of its rewards after each batch: beside the schema, so that ledgers made before it have it too.
local REWARD_STATES = [[CREATE TABLE IF NOT EXISTS reward_states (
  run TEXT NOT NULL, number INTEGER NOT NULL, -- evaluations 1 to number were done
  state TEXT NOT NULL,                        -- JSON: multipliers, weights, front, hypervolume, reference
  PRIMARY KEY (run, number)) WITHOUT ROWID]]

-- open() → the ledger of $EVECTION_HOME.
function ledger.open()
  native.mkdirs(native.home)
  local l = native.ledger(native.home .. "/ledger.db")
  l:exec(REWARD_STATES)
  return l
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

return ledger
