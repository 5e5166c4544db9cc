/* store_items_threads.c - threads that write, read and compact one live table together. */
#include <pthread.h>
#include <stdatomic.h>

#include "items_model.h"

int fdatasync(int fd) { /* before the C library's: a disk that is slow enough for calls to gather, and no slower */
  usleep(200);
  return fd >= 0 ? 0 : -1;
}

int fsync(int fd) { return fd >= 0 ? 0 : -1; }

/* cmocka's assertions jump, which only the test's own thread may. */
#define REQUIRE(x) ((x) ? (void)0 : (fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #x, ev_error()), abort()))

enum { WRITERS = 6, CALLS = 150, OWN = MODEL_IDS / WRITERS };

typedef struct work {
  ev_items *t;
  model *m; /* the writer's own ids only */
  int number;
  atomic_bool *stop;
  size_t n_refused;
} work;

static void *write_own(void *arg) { /* ids number, number + WRITERS, … */
  work *w = arg;
  ev_rng r;
  ev_rng_seed(&r, 31, (uint64_t)w->number);
  for (int i = 0; i < CALLS; i++) {
    model_call *c = calloc(1, sizeof *c);
    unsigned first = ev_rng_below(&r, OWN);
    size_t n = 1 + ev_rng_below(&r, 4);
    bool deletes = ev_rng_below(&r, 4) == 0;
    for (size_t k = 0; k < n; k++) {
      unsigned id = (first + (unsigned)k) % OWN * WRITERS + (unsigned)w->number;
      if (deletes) {
        char name[32];
        const char *names[1] = {name};
        model_id(name, id);
        ev_status status = ev_items_delete(w->t, names, 1);
        REQUIRE(status == (w->m->items[id].there ? EV_OK : EV_ENOTFOUND));
        w->m->items[id].there = false;
      } else {
        w->m->items[id] = model_random(&r, true);
        model_add(c, id, &w->m->items[id]);
      }
    }
    REQUIRE(deletes || ev_items_put(w->t, c->items, c->n) == EV_OK);
    free(c);
  }
  return NULL;
}

static void *read_always(void *arg) { /* one reader sees one state: twice the same, and each item once in a search */
  work *w = arg;
  float q[MODEL_DIMS] = {1, 2, -1, 0, 3, 1}, scores[50];
  uint32_t rows[50], again[MODEL_IDS];
  ev_search s = {.k = 50};
  size_t len;
  while (!atomic_load(w->stop)) {
    ev_items_reader r;
    uint32_t found[MODEL_IDS];
    char name[32];
    ev_items_begin(&r, w->t);
    for (unsigned i = 0; i < MODEL_IDS; i++) {
      model_id(name, i);
      found[i] = ev_items_find(&r, name, strlen(name));
    }
    REQUIRE(ev_items_search(&r, q, 1, &s, ev_items_n_columns(&r) == 3 && w->number % 2 ? "year > 1985 or year == nil" : NULL, rows, scores) == EV_OK);
    uint64_t met[2] = {0};
    for (size_t i = 0; i < 50 && rows[i] != EV_NONE; i++) {
      unsigned id = (unsigned)atoi(ev_items_id(&r, rows[i], &len) + 5);
      REQUIRE(found[id] == rows[i] && (met[id / 64] >> id % 64 & 1) == 0); /* neither the state's version, or both */
      met[id / 64] |= (uint64_t)1 << id % 64;
    }
    for (unsigned i = 0; i < MODEL_IDS; i++) {
      model_id(name, i);
      again[i] = ev_items_find(&r, name, strlen(name));
    }
    REQUIRE(memcmp(found, again, sizeof found) == 0);
    ev_items_end(&r);
  }
  return NULL;
}

static void *compact_always(void *arg) {
  work *w = arg;
  while (!atomic_load(w->stop)) REQUIRE(ev_items_compact(w->t) == EV_OK);
  return NULL;
}

static void threads_write_read_and_compact_together(void **s) {
  (void)s;
  static const char *const kinds[] = {"flat", "hnsw"};
  for (int kind = 0; kind < 2; kind++) {
    ev_items_options o = options(kinds[kind], MODEL_DIMS);
    const char *path = strdup(in_folder(kind == 0 ? "threads-flat" : "threads-hnsw"));
    ev_items *t = open_items(path, &o);
    model *m = calloc(WRITERS, sizeof *m);
    atomic_bool stop = false;
    work w[WRITERS + 3];
    pthread_t id[WRITERS + 3];
    for (int i = 0; i < WRITERS + 3; i++) {
      w[i] = (work){t, &m[i < WRITERS ? i : 0], i, &stop, 0};
      assert_int_equal(pthread_create(&id[i], NULL, i < WRITERS ? write_own : i < WRITERS + 2 ? read_always : compact_always, &w[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(id[i], NULL);
    atomic_store(&stop, true);
    for (int i = WRITERS; i < WRITERS + 3; i++) pthread_join(id[i], NULL);
    for (unsigned i = 0; i < MODEL_IDS; i++) m[0].items[i] = m[i % WRITERS].items[i];
    check(t, m, "after all");
    ev_items_stats st;
    ev_items_stat(t, &st);
    assert_true(st.n_commits >= WRITERS * CALLS / 2);
    assert_true(st.n_syncs < st.n_commits); /* some calls shared one */
    ev_items_close(t);
    t = open_items(path, &o);
    check(t, m, "opened again");
    ev_items_close(t);
    free(m);
    free((void *)(uintptr_t)path);
  }
}

static void *put_typed(void *arg) {
  work *w = arg;
  const char *token = "x";
  for (int i = 0; i < 40; i++) {
    char id[32], name[32];
    snprintf(id, sizeof id, "%d-%d", w->number, i);
    snprintf(name, sizeof name, "field %d", i);
    ev_field f = w->number % 2 ? (ev_field){.name = name, .type = EV_FLOAT, .number = 1} : (ev_field){.name = name, .type = EV_TOKEN, .tokens = &token, .n_tokens = 1};
    ev_status status = ev_items_put(w->t, &(ev_item){id, NULL, &f, 1}, 1);
    if (status == EV_EINVAL) w->n_refused++;
    else REQUIRE(status == EV_OK);
  }
  return NULL;
}

static void a_column_has_one_type_whoever_comes_first(void **s) {
  (void)s;
  ev_items_options o = options("flat", 0);
  const char *path = strdup(in_folder("types"));
  ev_items *t = open_items(path, &o);
  atomic_bool stop = false;
  work w[4];
  pthread_t id[4];
  for (int i = 0; i < 4; i++) {
    w[i] = (work){t, NULL, i, &stop, 0};
    assert_int_equal(pthread_create(&id[i], NULL, put_typed, &w[i]), 0);
  }
  size_t refused = 0;
  for (int i = 0; i < 4; i++) pthread_join(id[i], NULL), refused += w[i].n_refused;
  assert_int_equal(refused, 80); /* two of the four for each field */
  ev_items_close(t);
  t = open_items(path, &o); /* the log says the same */
  ev_items_stats st;
  ev_items_stat(t, &st);
  assert_true(st.n_items == 80 && st.n_columns == 40);
  ev_items_close(t);
  free((void *)(uintptr_t)path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(threads_write_read_and_compact_together),
      cmocka_unit_test(a_column_has_one_type_whoever_comes_first),
  };
  return RUN(tests);
}
