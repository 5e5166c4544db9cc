/* ledger_ingest.c - rows into a ledger: ours, or a minimal loop of prepared INSERTs over the same tables.
 *
 *   ledger_ingest ours|raw|put FILE IMPRESSIONS EVENTS BATCH CALLERS order|random → {"impression_rows_s": …, "event_rows_s": …}
 *
 * ours goes through the writer (CALLERS threads, each waits for its batch), put through ev_ledger_put in this thread. raw has
 * the same schema, journal, cache and synchronous setting, the same values in the same columns, and one transaction a batch; what ours does
 * besides (checks, ids that are known, joining, totals) it does not. Ids have 16 hexadecimal digits, in
 * order or (as clients make them) in none. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reward/reward.h"

enum { SLATE = 10, ITEMS = 10000, USERS = 50000, AGENTS = 3, VERSIONS = 2 };
static const char *const agents[AGENTS] = {"ease", "popular", "item_knn"};
static const char *const versions[VERSIONS] = {"2f1d3c9a4b5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8", "9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e0d9c8b7a6f5e4d3c2b1a0f9e8d"};

static bool in_order;

static uint64_t mixed(uint64_t x) { /* splitmix64's */
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

typedef struct slate {
  char id[20], user[12], items[SLATE][12];
  ev_shown shown[SLATE];
  int version;
} slate;

static ev_impression impression_of(size_t n, slate *s) {
  uint64_t r = mixed(n);
  snprintf(s->id, sizeof s->id, "%016llx", (unsigned long long)(in_order ? n : r));
  snprintf(s->user, sizeof s->user, "u%llu", (unsigned long long)(r % USERS));
  s->version = (int)(r >> 20 & 1);
  for (size_t k = 0; k < SLATE; k++) {
    uint64_t x = mixed(r + k);
    snprintf(s->items[k], sizeof s->items[k], "i%llu", (unsigned long long)(x % ITEMS));
    s->shown[k] = (ev_shown){s->items[k], 1.0 / (double)(k + 1), agents[x >> 40 & 1], 0};
  }
  return (ev_impression){s->id, s->user, versions[s->version], 0.001, 1700000000000 + (int64_t)n * 50, s->shown, SLATE};
}

typedef struct happening {
  char id[20];
  slate s;
  size_t impression, position;
} happening;

/* Nine in ten clicks are about a slate of the last thousand, one about any. */
static ev_event event_of(size_t n, size_t n_events, size_t n_impressions, happening *h) {
  uint64_t r = mixed(n ^ 0xABCDEF00000000);
  size_t now = (size_t)((double)n / (double)n_events * (double)n_impressions), window = r % 10 == 0 ? now : now < 1000 ? now : 1000;
  h->impression = now - (window > 0 ? (r >> 8) % window : 0);
  h->position = (r >> 40) % SLATE;
  impression_of(h->impression, &h->s);
  snprintf(h->id, sizeof h->id, "%016llx", (unsigned long long)(in_order ? n : r));
  return (ev_event){h->id, h->s.user, h->s.items[h->position], r >> 50 & 1 ? "click" : "view", 1, 1700000000000 + (int64_t)h->impression * 50 + 900, NULL, h->s.id};
}

/* ---- Ours ----------------------------------------------------------------------------------------------*/
static size_t n_impressions, n_events, batch, callers;
static ev_ledger_writer *writer;
static ev_ledger *ledger;

static void check(ev_status status) {
  if (status == EV_OK) return;
  fprintf(stderr, "%s\n", ev_error());
  exit(1);
}

static void store(const ev_ledger_batch *b) {
  ev_ledger_receipt r;
  check(writer != NULL ? ev_ledger_submit(writer, b, &r) : ev_ledger_put(ledger, b, &r));
  if (r.known > 0 || r.waiting > 0) {
    fprintf(stderr, "%zu known, %zu waiting: the rows are not what they should be\n", r.known, r.waiting);
    exit(1);
  }
}

static void *put_impressions(void *arg) {
  size_t first = (size_t)(uintptr_t)arg, each = batch / (SLATE + 1) > 0 ? batch / (SLATE + 1) : 1;
  slate *s = malloc(each * sizeof *s);
  ev_impression *list = malloc(each * sizeof *list);
  for (size_t at = first * each; at < n_impressions; at += callers * each) {
    size_t n = at + each <= n_impressions ? each : n_impressions - at;
    for (size_t i = 0; i < n; i++) list[i] = impression_of(at + i, &s[i]);
    store(&(ev_ledger_batch){.impressions = list, .n_impressions = n});
  }
  free(s);
  free(list);
  return NULL;
}

static void *put_events(void *arg) {
  size_t first = (size_t)(uintptr_t)arg;
  happening *h = malloc(batch * sizeof *h);
  ev_event *list = malloc(batch * sizeof *list);
  for (size_t at = first * batch; at < n_events; at += callers * batch) {
    size_t n = at + batch <= n_events ? batch : n_events - at;
    for (size_t i = 0; i < n; i++) list[i] = event_of(at + i, n_events, n_impressions, &h[i]);
    store(&(ev_ledger_batch){.events = list, .n_events = n});
  }
  free(h);
  free(list);
  return NULL;
}

static double seconds_of(void *(*fn)(void *)) {
  pthread_t threads[64];
  uint64_t start = ev_now_ns();
  for (size_t i = 1; i < callers; i++)
    if (pthread_create(&threads[i], NULL, fn, (void *)(uintptr_t)i) != 0) exit(1);
  fn((void *)0);
  for (size_t i = 1; i < callers; i++) pthread_join(threads[i], NULL);
  return (double)(ev_now_ns() - start) * 1e-9;
}

/* ---- Raw -----------------------------------------------------------------------------------------------*/
static sqlite3 *db;

static void sql(const char *text) {
  if (sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK) return;
  fprintf(stderr, "%s: %s\n", text, sqlite3_errmsg(db));
  exit(1);
}

static sqlite3_stmt *prepared(const char *text) {
  sqlite3_stmt *s;
  if (sqlite3_prepare_v2(db, text, -1, &s, NULL) == SQLITE_OK) return s;
  fprintf(stderr, "%s: %s\n", text, sqlite3_errmsg(db));
  exit(1);
}

static void step(sqlite3_stmt *s) {
  if (sqlite3_step(s) != SQLITE_DONE) exit((fprintf(stderr, "%s\n", sqlite3_errmsg(db)), 1));
  sqlite3_reset(s);
}

static int agent_number(const char *name) {
  for (int i = 0; i < AGENTS; i++)
    if (agents[i] == name) return i + 1;
  return 0;
}

static double raw_impressions(void) {
  sqlite3_stmt *one = prepared("INSERT INTO impressions (id, user, version, propensity, time_ms, received_ms_wall) VALUES (?, ?, ?, ?, ?, ?)"),
               *position = prepared("INSERT INTO shown (impression, position, item, propensity, agent) VALUES (?, ?, ?, ?, ?)");
  size_t each = batch / (SLATE + 1) > 0 ? batch / (SLATE + 1) : 1;
  slate *s = malloc(each * sizeof *s);
  ev_impression *list = malloc(each * sizeof *list);
  uint64_t start = ev_now_ns();
  for (size_t at = 0; at < n_impressions; at += each) {
    size_t n = at + each <= n_impressions ? each : n_impressions - at;
    for (size_t i = 0; i < n; i++) list[i] = impression_of(at + i, &s[i]);
    sql("BEGIN IMMEDIATE");
    int64_t now = ev_wall_ms();
    for (size_t i = 0; i < n; i++) {
      sqlite3_bind_text(one, 1, list[i].id, -1, SQLITE_STATIC);
      sqlite3_bind_text(one, 2, list[i].user, -1, SQLITE_STATIC);
      sqlite3_bind_int(one, 3, s[i].version + 1);
      sqlite3_bind_double(one, 4, list[i].propensity);
      sqlite3_bind_int64(one, 5, list[i].time_ms);
      sqlite3_bind_int64(one, 6, now);
      step(one);
      int64_t number = sqlite3_last_insert_rowid(db);
      for (int k = 0; k < SLATE; k++) {
        sqlite3_bind_int64(position, 1, number);
        sqlite3_bind_int(position, 2, k + 1);
        sqlite3_bind_text(position, 3, list[i].items[k].item, -1, SQLITE_STATIC);
        sqlite3_bind_double(position, 4, list[i].items[k].propensity);
        sqlite3_bind_int(position, 5, agent_number(list[i].items[k].agent));
        step(position);
      }
    }
    sql("COMMIT");
  }
  double seconds = (double)(ev_now_ns() - start) * 1e-9;
  sqlite3_finalize(one);
  sqlite3_finalize(position);
  free(s);
  free(list);
  return seconds;
}

static double raw_events(void) {
  sqlite3_stmt *s = prepared("INSERT INTO events (id, user, item, type, value, time_ms, received_ms_wall, version, agent, impression, position) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  happening *h = malloc(batch * sizeof *h);
  ev_event *list = malloc(batch * sizeof *list);
  uint64_t start = ev_now_ns();
  for (size_t at = 0; at < n_events; at += batch) {
    size_t n = at + batch <= n_events ? batch : n_events - at;
    for (size_t i = 0; i < n; i++) list[i] = event_of(at + i, n_events, n_impressions, &h[i]);
    sql("BEGIN IMMEDIATE");
    int64_t now = ev_wall_ms();
    for (size_t i = 0; i < n; i++) {
      sqlite3_bind_text(s, 1, list[i].id, -1, SQLITE_STATIC);
      sqlite3_bind_text(s, 2, list[i].user, -1, SQLITE_STATIC);
      sqlite3_bind_text(s, 3, list[i].item, -1, SQLITE_STATIC);
      sqlite3_bind_text(s, 4, list[i].type, -1, SQLITE_STATIC);
      sqlite3_bind_double(s, 5, list[i].value);
      sqlite3_bind_int64(s, 6, list[i].time_ms);
      sqlite3_bind_int64(s, 7, now);
      sqlite3_bind_int(s, 8, h[i].s.version + 1);
      sqlite3_bind_int(s, 9, agent_number(h[i].s.shown[h[i].position].agent));
      sqlite3_bind_int64(s, 10, (int64_t)h[i].impression + 1);
      sqlite3_bind_int64(s, 11, (int64_t)h[i].position + 1);
      step(s);
    }
    sql("COMMIT");
  }
  double seconds = (double)(ev_now_ns() - start) * 1e-9;
  sqlite3_finalize(s);
  free(h);
  free(list);
  return seconds;
}

int main(int argc, char **argv) {
  if (argc != 8) return 2;
  const char *how = argv[1], *path = argv[2];
  n_impressions = strtoull(argv[3], NULL, 10);
  n_events = strtoull(argv[4], NULL, 10);
  batch = strtoull(argv[5], NULL, 10);
  callers = strtoull(argv[6], NULL, 10);
  in_order = strcmp(argv[7], "order") == 0;
  double impressions, events, closing = 0;
  if (strcmp(how, "raw") == 0) {
    ev_ledger *l;
    check(ev_ledger_open(&l, path)); /* the same tables and journal */
    ev_ledger_close(l);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) return 1;
    sql("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 4000");
    impressions = raw_impressions();
    events = raw_events();
    sqlite3_close(db);
  } else {
    if (strcmp(how, "put") == 0) check(ev_ledger_open(&ledger, path));
    else check(ev_ledger_writer_open(&writer, path, NULL));
    impressions = seconds_of(put_impressions);
    events = seconds_of(put_events);
    uint64_t start = ev_now_ns();
    if (writer != NULL) check(ev_ledger_writer_close(writer)); /* the totals that were put off are ours to pay */
    ev_ledger_close(ledger);
    closing = (double)(ev_now_ns() - start) * 1e-9;
  }
  printf("{\"impression_rows_s\": %.1f, \"event_rows_s\": %.1f, \"closing_s\": %.3f}\n", (double)n_impressions * (SLATE + 1) / impressions, (double)n_events / (events + closing), closing);
  return 0;
}
