/* index_items.c - what index.py measures of the live table: growing it, opening it, searching it while it is written.
 *
 * Verbs: threads fill open search close live. Item i has the id "i", its vector and two features. */
#include <pthread.h>
#include <stdatomic.h>

#include "index_protocol.h"
#include "store/store.h"

static ev_items *items;

static void check(ev_status status) {
  if (status != EV_OK) die("%s: %s", ev_status_name(status), ev_error());
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static ev_items_options options(void) {
  ev_items_options o;
  ev_items_defaults(&o);
  o.index.kind = "hnsw";
  o.index.metric = "l2";
  o.index.form = text_or("form", "i8");
  o.index.n_dims = number("d");
  o.index.n_links = 16;
  o.index.effort_build = 200;
  o.index.seed = 1;
  return o;
}

enum { PUT_MOST = 65536 };
static char ids[PUT_MOST][16], shelves[PUT_MOST][16];
static const char *shelf_of[PUT_MOST];
static ev_field fields[PUT_MOST][2];
static ev_item batch_of[PUT_MOST];

/* Items `which` (n), each with its vector and, as a number, its version. */
static void put(ev_items *t, const uint32_t *which, size_t n, const float *vectors, size_t d, double version) {
  for (size_t j = 0; j < n; j++) {
    snprintf(ids[j], sizeof ids[j], "%u", which[j]);
    snprintf(shelves[j], sizeof shelves[j], "s%u", which[j] % 100);
    shelf_of[j] = shelves[j];
    fields[j][0] = (ev_field){.name = "version", .type = EV_FLOAT, .number = version};
    fields[j][1] = (ev_field){.name = "shelf", .type = EV_TOKEN, .tokens = &shelf_of[j], .n_tokens = 1};
    batch_of[j] = (ev_item){.id = ids[j], .vector = vectors + j * d, .fields = fields[j], .n_fields = 2};
  }
  check(ev_items_put(t, batch_of, n));
}

static void fill(void) { /* a new table of the first n vectors, then compacted, so that it opens from its snapshot */
  const size_t n = number("n"), d = number("d"), batch = number_or("batch", 10000);
  if (batch > PUT_MOST) die("batch %zu", batch);
  const float *base = map_file(text("base"), n * d * sizeof(float));
  ev_items_options o = options();
  o.create = true;
  o.compact_bytes = (size_t)1 << 40;
  uint32_t *which = fresh(batch * sizeof *which);
  const double before = memory_bytes(), start = now();
  check(ev_items_open(&items, text("folder"), &o));
  for (size_t first = 0; first < n; first += batch) {
    const size_t count = first + batch < n ? batch : n - first;
    for (size_t j = 0; j < count; j++) which[j] = (uint32_t)(first + j);
    put(items, which, count, base + first * d, d, 0);
  }
  const double filled = now();
  ev_items_stats s;
  ev_items_stat(items, &s);
  const double bytes = memory_bytes() - before;
  check(ev_items_compact(items));
  answer("{\"seconds\": %.6f, \"compact_seconds\": %.6f, \"bytes\": %.0f, \"counted\": %zu}", filled - start, now() - filled, bytes, s.memory_bytes);
  free(which);
  munmap((void *)(uintptr_t)base, n * d * sizeof(float));
}

static void open_table(void) {
  ev_items_options o;
  ev_items_defaults(&o);
  const double start = now();
  check(ev_items_open(&items, text("folder"), &o));
  const double seconds = now() - start;
  ev_items_stats s;
  ev_items_stat(items, &s);
  answer("{\"ms\": %.4f, \"n\": %zu, \"snapshot_bytes\": %zu}", seconds * 1e3, s.n_items, s.snapshot_bytes);
}

static void search(void) { /* all queries in one call of one reader; ids as numbers */
  const size_t m = number("m"), k = number("k"), d = ev_items_index(items)->n_dims;
  const float *q = map_file(text("q"), m * d * sizeof(float));
  uint32_t *rows = fresh(m * k * sizeof *rows);
  float *scores = fresh(m * k * sizeof *scores);
  const ev_search s = {.k = k, .effort = (unsigned)number_or("ef", 0)};
  ev_items_reader r;
  const double start = now();
  ev_items_begin(&r, items);
  check(ev_items_search(&r, q, m, &s, NULL, rows, scores));
  const double seconds = now() - start;
  if (text_or("out", NULL) != NULL) {
    for (size_t i = 0; i < m * k; i++) {
      if (rows[i] == EV_NONE) continue;
      size_t len;
      const char *id = ev_items_id(&r, rows[i], &len);
      char copy[16] = {0};
      memcpy(copy, id, len);
      rows[i] = (uint32_t)strtoul(copy, NULL, 10);
    }
    write_file(text("out"), rows, m * k * sizeof *rows);
  }
  ev_items_end(&r);
  answer("{\"seconds\": %.6f}", seconds);
  free(rows);
  free(scores);
  munmap((void *)(uintptr_t)q, m * d * sizeof(float));
}

/* One reader searches, query after query; a writer replaces items as fast as it can. The n-th call writes version n: item i then has
 * the vector base[i] with (n modulo 64) / 64 added to its last element, and the feature version = n. What a search finds must have a
 * score that its vector gives, a feature that its vector tells, and a version that no later one had replaced when the search
 * began and that was begun when it ended: neither half of a state nor a state that was not. */
enum { STEPS = 64, KNOWN = 8 };
typedef struct live_run {
  const float *base;
  size_t n, d, batch;
  _Atomic uint32_t (*versions)[KNOWN]; /* (n) of each item the last ones begun, in a ring; 0 = as it was filled */
  uint32_t *n_versions;                /* (n) the writer's: how many were begun */
  _Atomic uint32_t begun, acked;       /* calls */
  atomic_bool stop;
  double write_seconds;
} live_run;

static float shift(uint32_t version) { return (float)(version % STEPS) / STEPS; }

static void *write_on(void *arg) {
  live_run *w = arg;
  ev_rng random;
  ev_rng_seed(&random, 7, 1);
  uint32_t *which = fresh(w->batch * sizeof *which);
  float *vectors = fresh(w->batch * w->d * sizeof *vectors);
  const size_t stretch = w->n / w->batch;
  const double start = now();
  for (uint32_t version = 1; !atomic_load(&w->stop); version++) {
    atomic_store(&w->begun, version);
    for (size_t j = 0; j < w->batch; j++) { /* one item out of each stretch, so that none comes twice in a call */
      const uint32_t i = which[j] = (uint32_t)(j * stretch + ev_rng_below(&random, (uint32_t)stretch));
      memcpy(vectors + j * w->d, w->base + i * w->d, w->d * sizeof(float));
      vectors[j * w->d + w->d - 1] += shift(version);
      atomic_store(&w->versions[i][w->n_versions[i]++ % KNOWN], version);
    }
    put(items, which, w->batch, vectors, w->d, version);
    atomic_store(&w->acked, version);
  }
  w->write_seconds = now() - start;
  free(which);
  free(vectors);
  return NULL;
}

/* Returns what is wrong with a result, or NULL. acked: calls that had returned when the search began. */
static const char *look(const live_run *w, const ev_items_reader *r, const float *q, uint32_t row, float score, uint32_t acked, float *vector) {
  if (row == EV_NONE) return "fewer results than there are items";
  size_t len, column = 0;
  const char *id = ev_items_id(r, row, &len);
  char copy[16] = {0};
  if (len >= sizeof copy) return "an id that was never put";
  memcpy(copy, id, len);
  const uint32_t item = (uint32_t)strtoul(copy, NULL, 10);
  if (item >= w->n) return "an id that was never put";
  check(ev_items_vector(r, row, vector));
  while (strcmp(ev_items_column_at(r, column)->name, "version") != 0) column++;
  const uint32_t version = (uint32_t)ev_items_column_at(r, column)->values[row];
  if (version > atomic_load(&w->begun)) return "a version from the future";
  bool known = version == 0;
  uint32_t oldest = UINT32_MAX;
  for (size_t v = 0; v < KNOWN; v++) {
    const uint32_t other = atomic_load(&w->versions[item][v]);
    if (other > version && other <= acked) return "a version that was replaced before";
    known |= other == version;
    if (other < oldest) oldest = other;
  }
  if (!known && oldest == 0) return "a version that it never had";
  float away = 0;
  for (size_t j = 0; j < w->d; j++) {
    if (vector[j] != w->base[item * w->d + j] + (j + 1 == w->d ? shift(version) : 0)) return "a vector of another version than the features";
    away += (q[j] - vector[j]) * (q[j] - vector[j]);
  }
  if (score > -away + 1e-4f * (1 + away) || score < -away - 1e-4f * (1 + away)) return "a score that the vector does not give";
  return NULL;
}

/* Searches for so many seconds and prints how it went; every eighth list is looked through, outside the clock. */
static void phase(const char *name, live_run *w, const float *q, size_t m, size_t k, unsigned ef, double seconds) {
  static double times[1 << 22];
  size_t n = 0, looked_at = 0;
  uint32_t *rows = fresh(k * sizeof *rows);
  float *scores = fresh(k * sizeof *scores), *vector = fresh(w->d * sizeof *vector);
  const ev_search s = {.k = k, .effort = ef};
  double spent = 0;
  for (const double end = now() + seconds; now() < end && n < sizeof times / sizeof *times; n++) {
    const float *query = q + n % m * w->d;
    const uint32_t acked = atomic_load(&w->acked);
    ev_items_reader r;
    const double start = now();
    ev_items_begin(&r, items);
    check(ev_items_search(&r, query, 1, &s, NULL, rows, scores));
    times[n] = now() - start;
    spent += times[n];
    for (size_t j = 0; j < k && (n + n / m) % 8 == 0; j++, looked_at++) {
      const char *wrong = look(w, &r, query, rows[j], scores[j], acked, vector);
      if (wrong != NULL) die("%s: result %zu of search %zu: %s", name, j, n, wrong);
    }
    ev_items_end(&r);
  }
  qsort(times, n, sizeof *times, by_value);
  printf("\"%s\": {\"searches\": %zu, \"qps\": %.3f, \"p50\": %.9f, \"p99\": %.9f, \"checked\": %zu}, ", name, n, (double)n / spent,
         times[n / 2], times[(n - 1) * 99 / 100], looked_at);
  free(rows);
  free(scores);
  free(vector);
}

static void live(void) { /* idle, then under writes, of a table that `fill` made */
  live_run w = {.n = number("n"), .d = number("d"), .batch = number("batch")};
  const size_t m = number("m"), k = number("k");
  const unsigned ef = (unsigned)number_or("ef", 0);
  const double seconds = (double)number("seconds");
  w.base = map_file(text("base"), w.n * w.d * sizeof(float));
  const float *q = map_file(text("q"), m * w.d * sizeof(float));
  w.versions = calloc(w.n, sizeof *w.versions);
  w.n_versions = calloc(w.n, sizeof *w.n_versions);
  if (w.versions == NULL || w.n_versions == NULL) die("no memory");
  printf("{");
  phase("warm", &w, q, m, k, ef, 1);
  phase("idle", &w, q, m, k, ef, seconds);
  pthread_t writer;
  if (pthread_create(&writer, NULL, write_on, &w) != 0) die("no thread");
  phase("writes", &w, q, m, k, ef, seconds);
  atomic_store(&w.stop, true);
  pthread_join(writer, NULL);
  phase("after", &w, q, m, k, ef, seconds);
  ev_items_stats s;
  ev_items_stat(items, &s);
  answer("\"upserts\": %zu, \"write_seconds\": %.3f, \"syncs\": %llu}", w.acked * w.batch, w.write_seconds, (unsigned long long)s.n_syncs);
  free((void *)w.versions);
  free(w.n_versions);
  munmap((void *)(uintptr_t)q, m * w.d * sizeof(float));
  munmap((void *)(uintptr_t)w.base, w.n * w.d * sizeof(float));
}

int main(void) {
  for (const char *verb; (verb = command_read()) != NULL;) {
    if (strcmp(verb, "threads") == 0) {
      ev_threads_set((int)number("n"));
      answer("{}");
    } else if (strcmp(verb, "fill") == 0) fill();
    else if (strcmp(verb, "open") == 0) open_table();
    else if (strcmp(verb, "search") == 0) search();
    else if (strcmp(verb, "live") == 0) live();
    else if (strcmp(verb, "close") == 0) {
      ev_items_close(items);
      items = NULL;
      answer("{}");
    } else die("no verb %s", verb);
  }
  return 0;
}
