/* ledger_schema.c - the tables and views of the ledger, and how a file of an older schema becomes one of the newest.
 *
 * Columns whose names end in _seconds, _ms_wall or _mb hold times and sizes of the machine; everything else is the same for
 * the same seed. Versions and agents, whose names are long and few, are numbers in the tables and names in the views; 0 is
 * "not known", NULL in the views. Totals are written some ten thousand rows at a time (`folded` says up to which), because a
 * total of each item a commit would cost as much as the rows; the views add the rows that are not in them yet. */
#include <stdio.h>

#include "ledger.h"

#define SCHEMA_VERSION 2
#define TEXT_TIME(ms) "strftime('%Y-%m-%d %H:%M:%f', " ms " / 1000.0, 'unixepoch')"

static const char evolution[] =
    "CREATE TABLE genomes ("        /* what can be evolved, by content */
    "  hash TEXT PRIMARY KEY,"
    "  composition TEXT NOT NULL"   /* JSON: what `evection eval` takes */
    ") WITHOUT ROWID;"
    "CREATE TABLE runs ("           /* one `evection evolve` */
    "  run TEXT PRIMARY KEY,"       /* hash of plan, data and seed */
    "  plan TEXT NOT NULL,"         /* JSON */
    "  data TEXT NOT NULL, data_hash TEXT NOT NULL, seed INTEGER NOT NULL,"
    "  champion INTEGER,"           /* number of the best evaluation, once the run is done */
    "  report TEXT,"                /* JSON: the sealed comparison, made once */
    "  started_ms_wall INTEGER NOT NULL"
    ") WITHOUT ROWID;"
    "CREATE TABLE evaluations ("    /* number 1 is the composition as it was given */
    "  run TEXT NOT NULL, number INTEGER NOT NULL,"
    "  genome TEXT NOT NULL, parent INTEGER,"
    "  proposer TEXT NOT NULL, reason TEXT NOT NULL,"
    "  sets TEXT NOT NULL,"         /* JSON: knobs that differ from the given composition */
    "  rung INTEGER NOT NULL, users REAL NOT NULL, fold TEXT NOT NULL, seed INTEGER NOT NULL,"
    "  reward REAL, metrics TEXT, error TEXT,"
    "  cost_seconds REAL, peak_rss_mb REAL, ended_ms_wall INTEGER,"
    "  PRIMARY KEY (run, number)"
    ") WITHOUT ROWID;"
    "CREATE TABLE looks ("          /* each opening of a sealed test fold */
    "  number INTEGER PRIMARY KEY, data TEXT NOT NULL, data_hash TEXT NOT NULL, genome TEXT NOT NULL, why TEXT NOT NULL,"
    "  at_ms_wall INTEGER NOT NULL"
    ");";

static const char reward_states[] = /* what a run knows of its rewards after each batch */
    "CREATE TABLE reward_states ("
    "  run TEXT NOT NULL, number INTEGER NOT NULL," /* evaluations 1 to number were done */
    "  state TEXT NOT NULL,"        /* JSON: multipliers, weights, front, hypervolume, reference */
    "  PRIMARY KEY (run, number)"
    ") WITHOUT ROWID;";

static const char traffic[] =
    "CREATE TABLE versions ("       /* what was served, is on trial, or was replaced */
    "  number INTEGER PRIMARY KEY, version TEXT NOT NULL UNIQUE,"
    "  genome TEXT, parent INTEGER REFERENCES versions, reason TEXT, made_ms_wall INTEGER NOT NULL"
    ");"
    "CREATE TABLE agents (number INTEGER PRIMARY KEY, agent TEXT NOT NULL UNIQUE);"
    "CREATE TABLE impressions ("    /* a served slate */
    "  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL, version INTEGER NOT NULL,"
    "  propensity REAL NOT NULL,"   /* of the whole slate */
    "  time_ms INTEGER NOT NULL, received_ms_wall INTEGER NOT NULL"
    ");"
    "CREATE INDEX impressions_by_time ON impressions (time_ms);"
    "CREATE TABLE shown ("          /* its positions, 1 = the top */
    "  impression INTEGER NOT NULL, position INTEGER NOT NULL, item TEXT NOT NULL, propensity REAL NOT NULL, agent INTEGER NOT NULL,"
    "  PRIMARY KEY (impression, position)"
    ") WITHOUT ROWID;"
    "CREATE TABLE events ("         /* what happened to served slates; id makes them count once */
    "  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL, item TEXT NOT NULL, type TEXT NOT NULL,"
    "  value REAL NOT NULL, time_ms INTEGER NOT NULL, received_ms_wall INTEGER NOT NULL,"
    "  version INTEGER NOT NULL, agent INTEGER NOT NULL,"
    "  impression INTEGER, position INTEGER," /* of the impression it has joined; no position: its item was not in the slate */
    "  waits_for TEXT"              /* id of an impression that is not stored yet */
    ");"
    "CREATE INDEX events_by_time ON events (time_ms);"
    "CREATE INDEX events_by_impression ON events (impression) WHERE impression IS NOT NULL;"
    "CREATE INDEX events_waiting ON events (waits_for) WHERE waits_for IS NOT NULL;"
    "CREATE TABLE impression_hours (hour INTEGER, version INTEGER, impressions INTEGER NOT NULL, PRIMARY KEY (hour, version)) WITHOUT ROWID;"
    "CREATE TABLE event_hours (hour INTEGER, version INTEGER, type TEXT,"
    "  events INTEGER NOT NULL, value_sum REAL NOT NULL, value_squares REAL NOT NULL, PRIMARY KEY (hour, version, type)) WITHOUT ROWID;"
    "CREATE TABLE impression_items (version INTEGER, item TEXT, agent INTEGER, impressions INTEGER NOT NULL, PRIMARY KEY (version, item, agent)) WITHOUT ROWID;"
    "CREATE TABLE event_items (version INTEGER, item TEXT, agent INTEGER, type TEXT,"
    "  events INTEGER NOT NULL, value_sum REAL NOT NULL, value_squares REAL NOT NULL, PRIMARY KEY (version, item, agent, type)) WITHOUT ROWID;"
    "CREATE TABLE folded (one INTEGER PRIMARY KEY CHECK (one = 1), impressions INTEGER NOT NULL, events INTEGER NOT NULL);"
    "INSERT INTO folded VALUES (1, 0, 0);"
    "CREATE TABLE counters (name TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;" /* pruned_before_ms */
    "CREATE TABLE ranges (type TEXT PRIMARY KEY, low REAL NOT NULL, high REAL NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE rewards ("        /* what an agent, or the whole, was found to be worth */
    "  number INTEGER PRIMARY KEY,"
    "  run TEXT, evaluation INTEGER, version INTEGER REFERENCES versions," /* of what: an evaluation, or a version in service */
    "  agent TEXT,"                 /* NULL: the whole */
    "  kind TEXT NOT NULL CHECK (kind IN ('inner', 'outer', 'difference', 'shapley')),"
    "  name TEXT NOT NULL, value REAL NOT NULL, low REAL, high REAL, weight REAL, n INTEGER,"
    "  from_ms INTEGER, until_ms INTEGER, at_ms_wall INTEGER NOT NULL"
    ");"
    "CREATE TABLE promotions ("     /* what was done with a version, and on what grounds */
    "  number INTEGER PRIMARY KEY, version INTEGER NOT NULL REFERENCES versions, against INTEGER REFERENCES versions,"
    "  action TEXT NOT NULL CHECK (action IN ('stage', 'canary', 'promote', 'rollback')),"
    "  share REAL, reason TEXT NOT NULL, evidence TEXT," /* evidence: JSON */
    "  from_ms INTEGER, until_ms INTEGER," /* a canary without until_ms is running: its events are not pruned */
    "  at_ms_wall INTEGER NOT NULL"
    ");";

static const char views[] =
    "CREATE VIEW event_log AS SELECT e.number, e.id, " TEXT_TIME("e.time_ms") " AS time, e.user, e.item, e.type, e.value, v.version, a.agent,"
    "  i.id AS impression, e.position, e.waits_for, (e.received_ms_wall - e.time_ms) / 1000.0 AS late_seconds, e.time_ms"
    "  FROM events e LEFT JOIN versions v ON v.number = e.version LEFT JOIN agents a ON a.number = e.agent"
    "  LEFT JOIN impressions i ON i.number = e.impression;"
    "CREATE VIEW impression_log AS SELECT i.number, i.id, " TEXT_TIME("i.time_ms") " AS time, i.user, v.version, i.propensity,"
    "  (SELECT count(*) FROM shown s WHERE s.impression = i.number) AS items,"
    "  (SELECT count(*) FROM events e WHERE e.impression = i.number) AS events,"
    "  (SELECT total(e.value) FROM events e WHERE e.impression = i.number) AS reward, i.time_ms"
    "  FROM impressions i LEFT JOIN versions v ON v.number = i.version;"
    /* one row a position, with what its item earned there: what off-policy estimates are made of */
    "CREATE VIEW bandit_log AS SELECT i.id AS impression, " TEXT_TIME("i.time_ms") " AS time, i.user, v.version, s.position, s.item, a.agent,"
    "  s.propensity, i.propensity AS slate_propensity,"
    "  (SELECT count(*) FROM events e WHERE e.impression = i.number AND e.position = s.position) AS events,"
    "  (SELECT total(e.value) FROM events e WHERE e.impression = i.number AND e.position = s.position) AS reward, i.time_ms"
    "  FROM impressions i JOIN shown s ON s.impression = i.number LEFT JOIN versions v ON v.number = i.version"
    "  LEFT JOIN agents a ON a.number = s.agent;"
    /* the same as `evection ope` reads it, without slates that no policy chose */
    "CREATE VIEW decisions AS SELECT item AS arm, position, reward, propensity, user, time_ms / 1000.0 AS time, impression AS _impression, version AS _version FROM bandit_log WHERE version IS NOT 'fallback';"
    "CREATE VIEW impressions_by_hour AS SELECT strftime('%Y-%m-%d %H:00', hour * 3600, 'unixepoch') AS hour, v.version, sum(impressions) AS impressions, hour AS hour_number FROM ("
    "  SELECT hour, version, impressions FROM impression_hours UNION ALL"
    "  SELECT time_ms / 3600000, version, 1 FROM impressions WHERE number > (SELECT impressions FROM folded)"
    "  ) t LEFT JOIN versions v ON v.number = t.version GROUP BY t.hour, t.version;"
    "CREATE VIEW events_by_hour AS SELECT strftime('%Y-%m-%d %H:00', hour * 3600, 'unixepoch') AS hour, v.version, type, sum(events) AS events,"
    "  sum(value_sum) AS value_sum, sum(value_squares) AS value_squares, sum(value_sum) / sum(events) AS mean, hour AS hour_number FROM ("
    "  SELECT hour, version, type, events, value_sum, value_squares FROM event_hours UNION ALL"
    "  SELECT time_ms / 3600000, version, type, 1, value, value * value FROM events WHERE number > (SELECT events FROM folded)"
    "  ) t LEFT JOIN versions v ON v.number = t.version GROUP BY t.hour, t.version, t.type;"
    "CREATE VIEW impressions_by_item AS SELECT v.version, item, a.agent, sum(impressions) AS impressions FROM ("
    "  SELECT version, item, agent, impressions FROM impression_items UNION ALL"
    "  SELECT i.version, s.item, s.agent, 1 FROM impressions i JOIN shown s ON s.impression = i.number WHERE i.number > (SELECT impressions FROM folded)"
    "  ) t LEFT JOIN versions v ON v.number = t.version LEFT JOIN agents a ON a.number = t.agent GROUP BY t.version, t.item, t.agent;"
    "CREATE VIEW events_by_item AS SELECT v.version, item, a.agent, type, sum(events) AS events, sum(value_sum) AS value_sum,"
    "  sum(value_squares) AS value_squares, sum(value_sum) / sum(events) AS mean FROM ("
    "  SELECT version, item, agent, type, events, value_sum, value_squares FROM event_items UNION ALL"
    "  SELECT version, item, agent, type, 1, value, value * value FROM events WHERE number > (SELECT events FROM folded)"
    "  ) t LEFT JOIN versions v ON v.number = t.version LEFT JOIN agents a ON a.number = t.agent GROUP BY t.version, t.item, t.agent, t.type;"
    "CREATE VIEW version_totals AS SELECT v.version, e.type, coalesce(i.impressions, 0) AS impressions, coalesce(e.events, 0) AS events, e.value_sum, e.value_squares,"
    "  e.value_sum / nullif(i.impressions, 0) AS per_impression FROM (SELECT version FROM impressions_by_hour UNION SELECT version FROM events_by_hour) v"
    "  LEFT JOIN (SELECT version, type, sum(events) AS events, sum(value_sum) AS value_sum, sum(value_squares) AS value_squares FROM events_by_hour GROUP BY version, type) e"
    "  ON e.version IS v.version"
    "  LEFT JOIN (SELECT version, sum(impressions) AS impressions FROM impressions_by_hour GROUP BY version) i ON i.version IS v.version;"
    "CREATE VIEW version_lineage AS WITH RECURSIVE up (version, steps, number, parent) AS ("
    "  SELECT version, 0, number, parent FROM versions UNION ALL"
    "  SELECT up.version, up.steps + 1, v.number, v.parent FROM up JOIN versions v ON v.number = up.parent WHERE up.steps < 10000)"
    "  SELECT up.version, up.steps, v.version AS ancestor, v.genome, v.reason, " TEXT_TIME("v.made_ms_wall") " AS made FROM up JOIN versions v ON v.number = up.number;"
    "CREATE VIEW promotion_log AS SELECT p.number, " TEXT_TIME("p.at_ms_wall") " AS time, p.action, v.version, a.version AS against, p.share, p.reason, p.evidence,"
    "  " TEXT_TIME("p.from_ms") " AS \"from\", " TEXT_TIME("p.until_ms") " AS \"until\""
    "  FROM promotions p JOIN versions v ON v.number = p.version LEFT JOIN versions a ON a.number = p.against;"
    "CREATE VIEW reward_log AS SELECT r.number, " TEXT_TIME("r.at_ms_wall") " AS time, r.run, r.evaluation, v.version, coalesce(r.agent, '(whole)') AS agent, r.kind,"
    "  r.name, r.value, r.low, r.high, r.weight, r.n, " TEXT_TIME("r.from_ms") " AS \"from\", " TEXT_TIME("r.until_ms") " AS \"until\""
    "  FROM rewards r LEFT JOIN versions v ON v.number = r.version;"
    "CREATE VIEW evaluation_log AS SELECT substr(run, 1, 12) AS run, number, parent, proposer, reason, sets, reward, users, error, cost_seconds, peak_rss_mb,"
    "  " TEXT_TIME("ended_ms_wall") " AS ended FROM evaluations;"
    "CREATE VIEW look_log AS SELECT number, " TEXT_TIME("at_ms_wall") " AS time, data, substr(data_hash, 1, 12) AS data_hash, substr(genome, 1, 12) AS genome, why,"
    "  (SELECT count(*) FROM looks b WHERE b.data_hash = looks.data_hash AND b.number <= looks.number) AS look FROM looks;";

/* Version 1 had events alone, with their version as text, and did not know when they came. */
static const char from_1[] =
    "INSERT INTO versions (version, made_ms_wall) SELECT version, min(time_ms) FROM events_1 WHERE version IS NOT NULL GROUP BY version ORDER BY min(number);"
    "INSERT INTO events (number, id, user, item, type, value, time_ms, received_ms_wall, version, agent)"
    "  SELECT e.number, e.id, e.user, e.item, e.type, e.value, e.time_ms, e.time_ms, coalesce(v.number, 0), 0"
    "  FROM events_1 e LEFT JOIN versions v ON v.version = e.version;"
    "DROP TABLE events_1;";

static ev_status make_all(ev_ledger *l, int64_t version) {
  if (version == 0) EV_TRY(ev_ledger_exec(l, evolution));
  EV_TRY(ev_ledger_exec(l, reward_states));
  if (version == 1) EV_TRY(ev_ledger_exec(l, "DROP INDEX events_by_time; ALTER TABLE events RENAME TO events_1"));
  EV_TRY(ev_ledger_exec(l, traffic));
  if (version == 1) EV_TRY(ev_ledger_exec(l, from_1));
  EV_TRY(ev_ledger_exec(l, views));
  char sql[64];
  snprintf(sql, sizeof sql, "PRAGMA user_version = %d", SCHEMA_VERSION);
  return ev_ledger_exec(l, sql);
}

/* Two processes may open a new file at once: the one that gets the lock makes the schema, the other finds it. */
ev_status ledger_make_schema(ev_ledger *l) {
  int64_t version;
  EV_TRY(ledger_number(l, "PRAGMA user_version", &version));
  if (l->read_only && version >= 0 && version < SCHEMA_VERSION)
    return ev_fail(EV_EINVAL, "%s: %s", l->path, version == 0 ? "no ledger" : "a ledger of an older schema; anything that writes to it brings it up to date");
  if (version >= 0 && version < SCHEMA_VERSION) {
    EV_TRY(ev_ledger_exec(l, "BEGIN IMMEDIATE"));
    ev_status status = ledger_number(l, "PRAGMA user_version", &version);
    if (status == EV_OK && version >= 0 && version < SCHEMA_VERSION) status = make_all(l, version);
    if (status == EV_OK) status = ev_ledger_exec(l, "COMMIT");
    if (status == EV_OK) status = ledger_number(l, "PRAGMA user_version", &version);
    if (status != EV_OK) {
      ledger_rollback(l);
      return status;
    }
  }
  return version == SCHEMA_VERSION ? EV_OK : ev_fail(EV_EINVAL, "%s: made by a newer version (schema %lld)", l->path, (long long)version);
}
