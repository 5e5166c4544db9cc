/* ledger.c - the memory of what was tried and what came of it: one SQLite file in WAL mode. Here: opening, transactions.
 *
 * synchronous = FULL: a transaction that returned is on disk. A connection remembers what it needs for every row (ranges, how
 * far the totals are, names), and reads it again when SQLite's data_version says that another one has written. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ledger.h"

#define BUSY_MS 5000
/* Ids come in no order, so a commit touches pages all over their index: they stay in memory (64 MB at most), and are copied
 * from the log into the file when some of them have changed more than once (every 16 MB of log). */
#define CACHES "PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 4000"

const char *const ledger_count_names[N_COUNTS] = {
    "duplicate_events", "duplicate_impressions", "conflicting_duplicates", "joined_late", "before_impression", "not_in_slate",
    "expired", "clock_steps_back", "clock_back_ms", "pruned_events", "pruned_impressions"};

static const char *const statements[N_SQL] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_DATA_VERSION] = "PRAGMA data_version",
    [SQL_IMPRESSION] = "INSERT INTO impressions (id, user, version, propensity, time_ms, received_ms_wall) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
    [SQL_IMPRESSION_FIND] = "SELECT i.number, i.version, i.time_ms, s.position, s.agent FROM impressions i LEFT JOIN shown s ON s.impression = i.number AND s.item = ?2 "
                            "WHERE i.id = ?1 ORDER BY s.position LIMIT 1",
    [SQL_IMPRESSION_SAME] = "SELECT user = ? AND propensity = ? AND (SELECT count(*) FROM shown WHERE impression = number) = ? FROM impressions WHERE id = ?",
    [SQL_SHOWN] = "INSERT INTO shown (impression, position, item, propensity, agent) VALUES (?, ?, ?, ?, ?)",
    [SQL_SHOWN_MANY] = "INSERT INTO shown (impression, position, item, propensity, agent) VALUES (?1, ?2, ?3, ?4, ?5), (?1, ?6, ?7, ?8, ?9), (?1, ?10, ?11, ?12, ?13), "
                       "(?1, ?14, ?15, ?16, ?17), (?1, ?18, ?19, ?20, ?21), (?1, ?22, ?23, ?24, ?25), (?1, ?26, ?27, ?28, ?29), (?1, ?30, ?31, ?32, ?33), "
                       "(?1, ?34, ?35, ?36, ?37), (?1, ?38, ?39, ?40, ?41)",
    [SQL_EVENT] = "INSERT INTO events (id, user, item, type, value, time_ms, received_ms_wall, version, agent, impression, position, waits_for) "
                  "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
    [SQL_EVENT_SAME] = "SELECT user = ? AND item = ? AND type = ? AND value = ? FROM events WHERE id = ?",
    [SQL_WAITING] = "SELECT number, item, type, value, time_ms, version FROM events WHERE waits_for = ? LIMIT 1",
    [SQL_JOIN] = "UPDATE events SET impression = ?, position = ?, agent = ?, version = ?, waits_for = NULL WHERE number = ?",
    [SQL_VERSION_FIND] = "SELECT number FROM versions WHERE version = ?",
    [SQL_VERSION_ADD] = "INSERT INTO versions (version, made_ms_wall) VALUES (?, ?)",
    [SQL_AGENT_FIND] = "SELECT number FROM agents WHERE agent = ?",
    [SQL_AGENT_ADD] = "INSERT INTO agents (agent) VALUES (?)",
    [SQL_COUNT] = "INSERT INTO counters (name, count) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET "
                  "count = CASE WHEN name = 'clock_back_ms' THEN max(count, excluded.count) ELSE count + excluded.count END",
};

/* ---- SQLite --------------------------------------------------------------------------------------------*/
ev_status ledger_fail(const ev_ledger *l) {
  int code = sqlite3_errcode(l->db), system = sqlite3_system_errno(l->db);
  bool writing = sqlite3_extended_errcode(l->db) == SQLITE_IOERR_WRITE;
  const char *text = sqlite3_errmsg(l->db);
  if (code == SQLITE_NOMEM) return ev_fail(EV_ENOMEM, "out of memory: ledger");
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return ev_fail(EV_ECORRUPT, "%s: %s", l->path, text);
  if (code == SQLITE_BUSY) return ev_fail(EV_EIO, "%s: %s by another process", l->path, text);
  if (writing && system == 0) return ev_fail(EV_EIO, "%s: %s: it cannot be written (a quota, a limit on the size of files, or a broken disk)", l->path, text);
  if ((code == SQLITE_IOERR || code == SQLITE_FULL) && system != 0) return ev_fail(EV_EIO, "%s: %s (%s)", l->path, text, strerror(system));
  return ev_fail(EV_EIO, "%s: %s", l->path, text);
}

ev_status ev_ledger_exec(ev_ledger *l, const char *sql) {
  return sqlite3_exec(l->db, sql, NULL, NULL, NULL) == SQLITE_OK ? EV_OK : ledger_fail(l);
}

ev_status ledger_prepare(ev_ledger *l, const char *sql, sqlite3_stmt **out) {
  return sqlite3_prepare_v3(l->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) == SQLITE_OK ? EV_OK : ledger_fail(l);
}

ev_status ledger_step(ev_ledger *l, sqlite3_stmt *s, bool *row) {
  int code = sqlite3_step(s);
  *row = code == SQLITE_ROW;
  if (*row) return EV_OK;
  ev_status status = code == SQLITE_DONE ? EV_OK : ledger_fail(l);
  sqlite3_reset(s);
  return status;
}

ev_status ledger_run(ev_ledger *l, sqlite3_stmt *s) {
  ev_status status = sqlite3_step(s) == SQLITE_DONE ? EV_OK : ledger_fail(l);
  sqlite3_reset(s);
  return status;
}

ev_status ledger_number(ev_ledger *l, const char *sql, int64_t *out) {
  sqlite3_stmt *s = NULL;
  *out = 0;
  int code = sqlite3_prepare_v2(l->db, sql, -1, &s, NULL);
  if (code == SQLITE_OK) code = sqlite3_step(s);
  if (code == SQLITE_ROW) *out = sqlite3_column_int64(s, 0);
  ev_status status = code == SQLITE_ROW || code == SQLITE_DONE ? EV_OK : ledger_fail(l);
  sqlite3_finalize(s);
  return status;
}

/* ---- What is remembered --------------------------------------------------------------------------------*/
static void forget_ranges(ev_ledger *l) {
  for (size_t i = 0; i < l->n_ranges; i++) ev_free(l->ranges[i].type);
  ev_free(l->ranges);
  l->ranges = NULL;
  l->n_ranges = 0;
}

static void forget_names(ledger_names *n) {
  for (size_t i = 0; i < n->n; i++) ev_free(n->at[i].name);
  n->n = n->last = 0;
}

static ev_status read_ranges(ev_ledger *l) {
  sqlite3_stmt *s = NULL;
  int64_t n;
  bool row;
  forget_ranges(l);
  EV_TRY(ledger_number(l, "SELECT count(*) FROM ranges", &n));
  if (n == 0) return EV_OK;
  l->ranges = ev_zalloc((size_t)n, sizeof *l->ranges);
  if (l->ranges == NULL) return EV_ENOMEM;
  ev_status status = ledger_prepare(l, "SELECT type, low, high FROM ranges ORDER BY type", &s);
  while (status == EV_OK && (status = ledger_step(l, s, &row)) == EV_OK && row && l->n_ranges < (size_t)n) {
    ledger_range *r = &l->ranges[l->n_ranges];
    const char *type = (const char *)sqlite3_column_text(s, 0);
    r->type = type != NULL ? ev_strndup(type, strlen(type)) : NULL;
    r->low = sqlite3_column_double(s, 1);
    r->high = sqlite3_column_double(s, 2);
    if (r->type == NULL) status = EV_ENOMEM;
    else l->n_ranges++;
  }
  sqlite3_finalize(s);
  return status;
}

static ev_status remember(ev_ledger *l) {
  int64_t last_impression, last_event, received;
  ledger_recent_clear(l);
  EV_TRY(read_ranges(l));
  EV_TRY(ledger_number(l, "SELECT impressions FROM folded", &l->folded_impressions));
  EV_TRY(ledger_number(l, "SELECT events FROM folded", &l->folded_events));
  EV_TRY(ledger_number(l, "SELECT max(number) FROM impressions", &last_impression));
  EV_TRY(ledger_number(l, "SELECT max(number) FROM events", &last_event));
  l->tail_rows = (last_event - l->folded_events) + 10 * (last_impression - l->folded_impressions);
  ledger_tally_reset(l, l->tail_rows == 0);
  EV_TRY(ledger_number(l, "SELECT value FROM settings WHERE name = 'pruned_before_ms'", &l->pruned_before_ms));
  EV_TRY(ledger_number(l, "SELECT received_ms_wall FROM events ORDER BY number DESC LIMIT 1", &received));
  if (received > l->last_received_ms) l->last_received_ms = received;
  EV_TRY(ledger_number(l, "SELECT received_ms_wall FROM impressions ORDER BY number DESC LIMIT 1", &received));
  if (received > l->last_received_ms) l->last_received_ms = received;
  return EV_OK;
}

/* A clock that was put back must not make later rows look earlier than those before. */
int64_t ledger_now_ms(ev_ledger *l) {
  int64_t now = ev_wall_ms(), back = l->last_received_ms - now;
  if (back <= 0) return l->last_received_ms = now;
  if (back >= 1000) { /* less is two machines' clocks, or one that is being steered */
    l->counts[COUNT_CLOCK_STEPS]++;
    if (back > l->counts[COUNT_CLOCK_BACK_MS]) l->counts[COUNT_CLOCK_BACK_MS] = back;
  }
  return l->last_received_ms;
}

/* ---- Transactions --------------------------------------------------------------------------------------*/
ev_status ledger_begin(ev_ledger *l) {
  sqlite3_stmt *s = l->sql[SQL_DATA_VERSION];
  bool row;
  EV_TRY(ledger_run(l, l->sql[SQL_BEGIN]));
  ev_status status = ledger_step(l, s, &row);
  if (status == EV_OK && row) {
    int64_t version = sqlite3_column_int64(s, 0);
    sqlite3_reset(s);
    if (version != l->data_version) status = remember(l);
    if (status == EV_OK) l->data_version = version;
  }
  if (status != EV_OK) ledger_rollback(l);
  return status;
}

void ledger_rollback(ev_ledger *l) {
  char message[512];
  snprintf(message, sizeof message, "%s", ev_error());
  if (!sqlite3_get_autocommit(l->db)) sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
  ev_fail(EV_OK, "%s", message);
  memset(l->counts, 0, sizeof l->counts);
  forget_names(&l->versions); /* some may have been of the transaction */
  forget_names(&l->agents);
  ledger_recent_clear(l);
  l->data_version = -1;
}

ev_status ledger_commit(ev_ledger *l) {
  ev_status status = EV_OK;
  sqlite3_stmt *s = l->sql[SQL_COUNT];
  for (size_t i = 0; i < N_COUNTS && status == EV_OK; i++) {
    if (l->counts[i] == 0) continue;
    sqlite3_bind_text(s, 1, ledger_count_names[i], -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, l->counts[i]);
    status = ledger_run(l, s);
  }
  if (status == EV_OK) status = ledger_run(l, l->sql[SQL_COMMIT]);
  if (status != EV_OK) ledger_rollback(l);
  else memset(l->counts, 0, sizeof l->counts);
  return status;
}

/* ---- Opening -------------------------------------------------------------------------------------------*/
/* SQLite does not wait for the lock that turns a new file to WAL: who finds it taken asks again. */
static ev_status use_wal(ev_ledger *l) {
  uint64_t deadline_ns = ev_now_ns() + BUSY_MS * UINT64_C(1000000);
  while (sqlite3_exec(l->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) != SQLITE_OK) {
    if (sqlite3_errcode(l->db) != SQLITE_BUSY || ev_now_ns() > deadline_ns) return ledger_fail(l);
    sqlite3_sleep(5);
  }
  return EV_OK;
}

static ev_status set_up(ev_ledger *l, const char *path) {
  int flags = l->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  flags |= SQLITE_OPEN_NOMUTEX; /* a connection is one thread's at a time */
  l->data_version = -1;
  l->path = ev_strndup(path, strlen(path));
  if (l->path == NULL) return EV_ENOMEM;
  if (sqlite3_open_v2(path, &l->db, flags, NULL) != SQLITE_OK) return ledger_fail(l);
  sqlite3_busy_timeout(l->db, BUSY_MS);
  if (!l->read_only) EV_TRY(use_wal(l));
  EV_TRY(ev_ledger_exec(l, "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"));
  if (!l->read_only) EV_TRY(ev_ledger_exec(l, CACHES));
  EV_TRY(ledger_make_schema(l));
  EV_TRY(remember(l));
  for (size_t i = 0; i < N_SQL && !l->read_only; i++) EV_TRY(ledger_prepare(l, statements[i], &l->sql[i]));
  return EV_OK;
}

static ev_status open_ledger(ev_ledger **out, const char *path, bool read_only) {
  *out = NULL;
  if (read_only && !ev_file_exists(path)) return ev_fail(EV_ENOTFOUND, "%s: no ledger there yet", path);
  ev_ledger *l = ev_zalloc(1, sizeof *l);
  if (l == NULL) return EV_ENOMEM;
  l->read_only = read_only;
  ev_status status = set_up(l, path);
  if (status == EV_OK) *out = l;
  else ev_ledger_close(l);
  return status;
}

ev_status ev_ledger_open(ev_ledger **out, const char *path) { return open_ledger(out, path, false); }
ev_status ev_ledger_open_reader(ev_ledger **out, const char *path) { return open_ledger(out, path, true); }

void ev_ledger_close(ev_ledger *l) {
  if (l == NULL) return;
  for (size_t i = 0; i < N_SQL; i++) sqlite3_finalize(l->sql[i]);
  sqlite3_close(l->db);
  forget_ranges(l);
  forget_names(&l->versions);
  forget_names(&l->agents);
  ledger_recent_free(l);
  ledger_tally_free(l);
  ev_free(l->path);
  ev_free(l);
}

sqlite3 *ev_ledger_db(ev_ledger *l) { return l->db; }
