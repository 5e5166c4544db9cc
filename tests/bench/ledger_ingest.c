/* ledger_ingest.c - rows into a ledger: ours, or a minimal loop of prepared INSERTs over the same tables.
 *
 *   ledger_ingest ours|put|raw slates|events|live FILE ROWS BATCH CALLERS order|random → {"rows_s": …}
 *
 * ours goes through the writer (CALLERS threads, each waits for its batch), put through ev_ledger_put in this thread. raw has
 * the same schema, journal, cache and synchronous setting, the same values in the same columns, and one transaction a batch; what ours
 * does besides (checks, ids that are known, joining, totals) it does not. Opening and closing count. slates are of ten items, eleven
 * rows; events are of no slate; live is half slates, half events about one of the last thousand slates. Ids have 16 hexadecimal digits,
 * in order or (as clients make them) in none. Some items are shown far more often than others, as a power law has it. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reward/reward.h"

enum { SLATE = 10, ITEMS = 10000, USERS = 50000, AGENTS = 3, VERSIONS = 2, WINDOW = 1000 };
static const char *const agents[AGENTS] = {"ease", "popular", "item_knn"};
static const char *const versions[VERSIONS] = {"2f1d3c9a4b5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8", "9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e0d9c8b7a6f5e4d3c2b1a0f9e8d"};

static size_t n_rows, batch_rows, callers, n_slates, n_events, n_batches; /* slates and events: of a batch */
static bool in_order, joined;
static char (*item_of)[12]; /* (65536) names of items, drawn beforehand */

static uint64_t mixed(uint64_t x) { /* splitmix64's */
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

typedef struct slate {
  char id[20], user[12];
  ev_shown shown[SLATE];
  int version;
} slate;

static ev_impression impression_of(size_t n, slate *s) {
  uint64_t r = mixed(n);
  snprintf(s->id, sizeof s->id, "%016llx", (unsigned long long)(in_order ? n : r));
  snprintf(s->user, sizeof s->user, "u%llu", (unsigned long long)(r % USERS));
  s->version = (int)(r >> 20 & 1);
  for (size_t k = 0; k < SLATE; k++) s->shown[k] = (ev_shown){item_of[mixed(r + k) % 65536], 1.0 / (double)(k + 1), agents[r >> (40 + k) & 1], 0};
  return (ev_impression){s->id, s->user, versions[s->version], 0.001, 1700000000000 + (int64_t)n * 50, s->shown, SLATE};
}

typedef struct happening {
  char id[20], user[12];
  slate s;
  size_t impression, position;
} happening;

static ev_event event_of(size_t n, size_t slates_so_far, happening *h) {
  uint64_t r = mixed(n ^ 0xABCDEF00000000);
  snprintf(h->id, sizeof h->id, "%016llx", (unsigned long long)(in_order ? n : r));
  ev_event e = {.id = h->id, .type = r >> 50 & 1 ? "click" : "view", .value = 1, .time_ms = 1700000000000 + (int64_t)n * 50};
  if (joined) {
    h->impression = slates_so_far - 1 - r % (slates_so_far < WINDOW ? slates_so_far : WINDOW);
    h->position = (r >> 40) % SLATE;
    impression_of(h->impression, &h->s);
    e.user = h->s.user;
    e.item = h->s.shown[h->position].item;
    e.impression = h->s.id;
  } else {
    snprintf(h->user, sizeof h->user, "u%llu", (unsigned long long)(r % USERS));
    e.user = h->user;
    e.item = item_of[r >> 20 & 65535];
    e.version = versions[r >> 51 & 1];
    h->s.version = (int)(r >> 51 & 1);
  }
  return e;
}

typedef struct rows { /* of one batch */
  slate *slates;
  happening *happenings;
  ev_impression *impressions;
  ev_event *events;
} rows;

static rows rows_new(void) {
  return (rows){malloc((n_slates + 1) * sizeof(slate)), malloc((n_events + 1) * sizeof(happening)), malloc((n_slates + 1) * sizeof(ev_impression)),
                malloc((n_events + 1) * sizeof(ev_event))};
}

static ev_ledger_batch rows_fill(rows *r, size_t batch) {
  for (size_t i = 0; i < n_slates; i++) r->impressions[i] = impression_of(batch * n_slates + i, &r->slates[i]);
  for (size_t i = 0; i < n_events; i++) r->events[i] = event_of(batch * n_events + i, (batch + 1) * n_slates, &r->happenings[i]);
  return (ev_ledger_batch){r->impressions, n_slates, r->events, n_events};
}

static void rows_free(rows *r) {
  free(r->slates);
  free(r->happenings);
  free(r->impressions);
  free(r->events);
}

/* ---- Ours ----------------------------------------------------------------------------------------------*/
static ev_ledger_writer *writer;
static ev_ledger *ledger;

static void check(ev_status status) {
  if (status == EV_OK) return;
  fprintf(stderr, "%s\n", ev_error());
  exit(1);
}

static void *put_batches(void *arg) {
  rows r = rows_new();
  for (size_t batch = (size_t)(uintptr_t)arg; batch < n_batches; batch += callers) {
    ev_ledger_batch b = rows_fill(&r, batch);
    ev_ledger_receipt got;
    check(writer != NULL ? ev_ledger_submit(writer, &b, &got) : ev_ledger_put(ledger, &b, &got));
    if (got.new_events == n_events && got.new_impressions == n_slates && (callers > 1 || got.waiting == 0)) continue;
    fprintf(stderr, "%zu events and %zu slates are new, %zu wait\n", got.new_events, got.new_impressions, got.waiting);
    exit(1);
  }
  rows_free(&r);
  return NULL;
}

static void ours(const char *path, bool writes) {
  pthread_t threads[64];
  check(writes ? ev_ledger_writer_open(&writer, path, NULL) : ev_ledger_open(&ledger, path));
  for (size_t i = 1; i < callers; i++)
    if (pthread_create(&threads[i], NULL, put_batches, (void *)(uintptr_t)i) != 0) exit(1);
  put_batches((void *)0);
  for (size_t i = 1; i < callers; i++) pthread_join(threads[i], NULL);
  if (writes) check(ev_ledger_writer_close(writer)); /* totals that were put off are ours to pay */
  ev_ledger_close(ledger);
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
  if (sqlite3_step(s) != SQLITE_DONE) {
    fprintf(stderr, "%s\n", sqlite3_errmsg(db));
    exit(1);
  }
  sqlite3_reset(s);
}

static int agent_number(const char *name) {
  for (int i = 0; i < AGENTS; i++)
    if (agents[i] == name) return i + 1;
  return 0;
}

static void raw(const char *path) {
  if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) exit(1);
  sql("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 4000");
  sqlite3_stmt *one = prepared("INSERT INTO impressions (id, user, version, propensity, time_ms, received_ms_wall) VALUES (?, ?, ?, ?, ?, ?)"),
               *position = prepared("INSERT INTO shown (impression, position, item, propensity, agent) VALUES (?, ?, ?, ?, ?)"),
               *event = prepared("INSERT INTO events (id, user, item, type, value, time_ms, received_ms_wall, version, agent, impression, position) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  rows r = rows_new();
  for (size_t batch = 0; batch < n_batches; batch++) {
    rows_fill(&r, batch);
    sql("BEGIN IMMEDIATE");
    int64_t now = ev_wall_ms();
    for (size_t i = 0; i < n_slates; i++) {
      const ev_impression *x = &r.impressions[i];
      sqlite3_bind_text(one, 1, x->id, -1, SQLITE_STATIC);
      sqlite3_bind_text(one, 2, x->user, -1, SQLITE_STATIC);
      sqlite3_bind_int(one, 3, r.slates[i].version + 1);
      sqlite3_bind_double(one, 4, x->propensity);
      sqlite3_bind_int64(one, 5, x->time_ms);
      sqlite3_bind_int64(one, 6, now);
      step(one);
      int64_t number = sqlite3_last_insert_rowid(db);
      for (int k = 0; k < SLATE; k++) {
        sqlite3_bind_int64(position, 1, number);
        sqlite3_bind_int(position, 2, k + 1);
        sqlite3_bind_text(position, 3, x->items[k].item, -1, SQLITE_STATIC);
        sqlite3_bind_double(position, 4, x->items[k].propensity);
        sqlite3_bind_int(position, 5, agent_number(x->items[k].agent));
        step(position);
      }
    }
    for (size_t i = 0; i < n_events; i++) {
      const ev_event *e = &r.events[i];
      const happening *h = &r.happenings[i];
      sqlite3_bind_text(event, 1, e->id, -1, SQLITE_STATIC);
      sqlite3_bind_text(event, 2, e->user, -1, SQLITE_STATIC);
      sqlite3_bind_text(event, 3, e->item, -1, SQLITE_STATIC);
      sqlite3_bind_text(event, 4, e->type, -1, SQLITE_STATIC);
      sqlite3_bind_double(event, 5, e->value);
      sqlite3_bind_int64(event, 6, e->time_ms);
      sqlite3_bind_int64(event, 7, now);
      sqlite3_bind_int(event, 8, h->s.version + 1);
      sqlite3_bind_int(event, 9, joined ? agent_number(h->s.shown[h->position].agent) : 0);
      if (joined) sqlite3_bind_int64(event, 10, (int64_t)h->impression + 1);
      if (joined) sqlite3_bind_int64(event, 11, (int64_t)h->position + 1);
      step(event);
    }
    sql("COMMIT");
  }
  rows_free(&r);
  sqlite3_finalize(one);
  sqlite3_finalize(position);
  sqlite3_finalize(event);
  sqlite3_close(db);
}

int main(int argc, char **argv) {
  if (argc != 8) return 2;
  const char *how = argv[1], *what = argv[2], *path = argv[3];
  ev_ledger *l;
  n_rows = strtoull(argv[4], NULL, 10);
  batch_rows = strtoull(argv[5], NULL, 10);
  callers = strtoull(argv[6], NULL, 10);
  in_order = strcmp(argv[7], "order") == 0;
  joined = strcmp(what, "live") == 0;
  n_slates = strcmp(what, "events") == 0 ? 0 : batch_rows / (joined ? 2 : 1) / (SLATE + 1);
  if (n_slates == 0 && strcmp(what, "events") != 0) n_slates = 1;
  n_events = strcmp(what, "slates") == 0 ? 0 : batch_rows - n_slates * (SLATE + 1);
  n_batches = n_rows / (n_events + n_slates * (SLATE + 1));
  item_of = malloc(65536 * sizeof *item_of);
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  for (size_t i = 0; i < 65536; i++) snprintf(item_of[i], sizeof *item_of, "i%d", (int)(ITEMS * pow(ev_rng_f64(&r), 2.5)));
  check(ev_ledger_open(&l, path)); /* the tables are there when either begins */
  ev_ledger_close(l);
  uint64_t start = ev_now_ns();
  if (strcmp(how, "raw") == 0) raw(path);
  else ours(path, strcmp(how, "ours") == 0);
  printf("{\"rows_s\": %.1f}\n", (double)n_batches * (double)(n_events + n_slates * (SLATE + 1)) / ((double)(ev_now_ns() - start) * 1e-9));
  free(item_of);
  return 0;
}
