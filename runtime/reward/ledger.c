/* ledger.c - the memory of what was tried and what came of it: one SQLite file in WAL mode.
 *
 * synchronous = FULL: a transaction that returned is on disk. Columns whose names end in _seconds, _ms_wall or _mb hold
 * times and sizes of the machine; everything else is the same for the same seed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "reward.h"

#define BUSY_MS 5000
#define SCHEMA_VERSION 1

static const char schema[] =
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
    ");"
    "CREATE TABLE events ("         /* what happened to served slates; id makes them count once */
    "  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL, item TEXT NOT NULL, type TEXT NOT NULL,"
    "  value REAL NOT NULL, time_ms INTEGER NOT NULL, version TEXT"
    ");"
    "CREATE INDEX events_by_time ON events (time_ms);"
    "PRAGMA user_version = 1;";

struct ev_ledger {
  sqlite3 *db;
  sqlite3_stmt *insert_event;
  char *path;
};

static ev_status sql_fail(const ev_ledger *l) {
  int code = sqlite3_errcode(l->db);
  const char *text = sqlite3_errmsg(l->db);
  if (code == SQLITE_NOMEM) return ev_fail(EV_ENOMEM, "out of memory: ledger");
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return ev_fail(EV_ECORRUPT, "%s: %s", l->path, text);
  return ev_fail(EV_EIO, "%s: %s", l->path, text);
}

ev_status ev_ledger_exec(ev_ledger *l, const char *sql) {
  return sqlite3_exec(l->db, sql, NULL, NULL, NULL) == SQLITE_OK ? EV_OK : sql_fail(l);
}

static ev_status read_version(ev_ledger *l, int *version) {
  sqlite3_stmt *s = NULL;
  *version = 0;
  bool ok = sqlite3_prepare_v2(l->db, "PRAGMA user_version", -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW;
  if (ok) *version = sqlite3_column_int(s, 0);
  sqlite3_finalize(s);
  return ok ? EV_OK : sql_fail(l);
}

/* SQLite does not wait for the lock that turns a new file to WAL: who finds it taken asks again. */
static ev_status use_wal(ev_ledger *l) {
  uint64_t deadline_ns = ev_now_ns() + BUSY_MS * UINT64_C(1000000);
  while (sqlite3_exec(l->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) != SQLITE_OK) {
    if (sqlite3_errcode(l->db) != SQLITE_BUSY || ev_now_ns() > deadline_ns) return sql_fail(l);
    sqlite3_sleep(5);
  }
  return EV_OK;
}

/* Two processes may open a new file at once: the one that gets the lock makes the schema, the other finds it. */
static ev_status make_schema(ev_ledger *l) {
  int version;
  EV_TRY(read_version(l, &version));
  if (version == 0) {
    EV_TRY(ev_ledger_exec(l, "BEGIN IMMEDIATE"));
    ev_status status = read_version(l, &version);
    if (status == EV_OK && version == 0) status = ev_ledger_exec(l, schema);
    if (status != EV_OK) {
      char message[512];
      snprintf(message, sizeof message, "%s", ev_error());
      sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
      return ev_fail(status, "%s", message);
    }
    EV_TRY(ev_ledger_exec(l, "COMMIT"));
    version = SCHEMA_VERSION;
  }
  return version == SCHEMA_VERSION || version == 0 ? EV_OK : ev_fail(EV_EINVAL, "%s: made by a newer version (schema %d)", l->path, version);
}

ev_status ev_ledger_open(ev_ledger **out, const char *path) {
  *out = NULL;
  ev_ledger *l = ev_zalloc(1, sizeof *l);
  if (l == NULL) return EV_ENOMEM;
  ev_status status = EV_ENOMEM;
  l->path = ev_strndup(path, strlen(path));
  if (l->path == NULL) goto fail;
  if (sqlite3_open_v2(path, &l->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK) {
    status = sql_fail(l);
    goto fail;
  }
  sqlite3_busy_timeout(l->db, BUSY_MS);
  status = use_wal(l);
  if (status == EV_OK) status = ev_ledger_exec(l, "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;");
  if (status == EV_OK) status = make_schema(l);
  if (status == EV_OK &&
      sqlite3_prepare_v2(l->db,
                         "INSERT INTO events (id, user, item, type, value, time_ms, version) VALUES (?, ?, ?, ?, ?, ?, ?) "
                         "ON CONFLICT (id) DO NOTHING",
                         -1, &l->insert_event, NULL) != SQLITE_OK)
    status = sql_fail(l);
  if (status != EV_OK) goto fail;
  *out = l;
  return EV_OK;
fail:
  ev_ledger_close(l);
  return status;
}

void ev_ledger_close(ev_ledger *l) {
  if (l == NULL) return;
  sqlite3_finalize(l->insert_event);
  sqlite3_close(l->db);
  ev_free(l->path);
  ev_free(l);
}

sqlite3 *ev_ledger_db(ev_ledger *l) { return l->db; }

/* Equal events without an id are one event. */
static void made_id(char out[65], const ev_event *e) {
  char text[512];
  ev_hash h;
  snprintf(text, sizeof text, "%.17g %lld", e->value, (long long)e->time_ms);
  ev_hasher *hasher = ev_hasher_new();
  const char *parts[] = {e->user, e->item, e->type, text};
  if (hasher == NULL) {
    out[0] = '\0';
    return;
  }
  for (size_t i = 0; i < 4; i++) ev_hasher_add(hasher, parts[i], strlen(parts[i]) + 1);
  ev_hasher_end(hasher, &h);
  ev_hash_hex(out, &h);
}

static ev_status insert(ev_ledger *l, const ev_event *e, size_t *n_new) {
  sqlite3_stmt *s = l->insert_event;
  if (e->user == NULL || e->item == NULL || e->type == NULL || !isfinite(e->value)) return ev_fail(EV_EINVAL, "an event wants a user, an item, a type and a finite value");
  char id[65];
  if (e->id == NULL) {
    made_id(id, e);
    if (id[0] == '\0') return EV_ENOMEM;
  }
  sqlite3_bind_text(s, 1, e->id != NULL ? e->id : id, -1, SQLITE_TRANSIENT);
  sqlite3_bind_text(s, 2, e->user, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 3, e->item, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 4, e->type, -1, SQLITE_STATIC);
  sqlite3_bind_double(s, 5, e->value);
  sqlite3_bind_int64(s, 6, e->time_ms);
  if (e->version != NULL) sqlite3_bind_text(s, 7, e->version, -1, SQLITE_STATIC);
  else sqlite3_bind_null(s, 7);
  int code = sqlite3_step(s);
  ev_status status = code == SQLITE_DONE ? EV_OK : sql_fail(l);
  if (status == EV_OK) *n_new += (size_t)sqlite3_changes(l->db);
  sqlite3_reset(s);
  return status;
}

ev_status ev_ledger_events(ev_ledger *l, const ev_event *events, size_t n, size_t *n_new) {
  *n_new = 0;
  EV_TRY(ev_ledger_exec(l, "BEGIN IMMEDIATE"));
  ev_status status = EV_OK;
  for (size_t i = 0; i < n && status == EV_OK; i++) status = insert(l, &events[i], n_new);
  if (status == EV_OK) status = ev_ledger_exec(l, "COMMIT");
  if (status != EV_OK) {
    char message[512];
    snprintf(message, sizeof message, "%s", ev_error());
    sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
    *n_new = 0;
    return ev_fail(status, "%s", message);
  }
  return EV_OK;
}
