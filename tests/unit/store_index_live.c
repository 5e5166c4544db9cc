/* store_index_live.c - the index under threads, faults and interruption. */
#include <unistd.h>

#include "index_world.h"

/* ---- Threads --------------------------------------------------------------------------------------------------*/
static void the_number_of_threads_does_not_change_a_bit(void **s) {
  (void)s;
  enum { QUERIES = 30, K = 10 };
  static const int threads[] = {1, 2, 5};
  float *vectors = vectors_of(ROWS, 21), *q = vectors_of(QUERIES, 22);
  uint64_t allowed[ROWS / 64 + 1];
  memset(allowed, 0x92, sizeof allowed);
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    ev_hash hash[N_OF(threads)];
    uint32_t rows[3][2 * QUERIES * K + K];
    float scores[3][2 * QUERIES * K + K];
    for (size_t t = 0; t < N_OF(threads); t++) {
      ev_threads_set(threads[t]);
      ev_index *x = new_index(kinds[kind], metrics[kind % 3], "i8", true);
      put_range(x, vectors, 0, 5000);
      for (uint32_t i = 0; i < 900; i += 3) assert_int_equal(ev_index_delete(x, &i, 1), EV_OK);
      put_range(x, vectors, 5000, ROWS);
      ev_search search = {.k = K};
      assert_int_equal(ev_index_search(x, q, QUERIES, &search, rows[t], scores[t]), EV_OK);
      assert_int_equal(ev_index_search(x, q, 1, &search, rows[t] + 2 * QUERIES * K, scores[t] + 2 * QUERIES * K), EV_OK);
      search.allowed = allowed;
      search.n_allowed = ROWS;
      assert_int_equal(ev_index_search(x, q, QUERIES, &search, rows[t] + QUERIES * K, scores[t] + QUERIES * K), EV_OK);
      char path[160];
      ev_pack *p;
      snprintf(path, sizeof path, "%s", in_folder("threads"));
      assert_int_equal(write_index(x, path, NULL, 0), EV_OK);
      assert_int_equal(ev_pack_open(&p, path), EV_OK);
      ev_pack_hash(p, &hash[t]);
      ev_pack_close(p);
      ev_index_free(x);
      assert_memory_equal(rows[t], rows[0], sizeof rows[t]);
      assert_memory_equal(scores[t], scores[0], sizeof scores[t]);
      assert_memory_equal(&hash[t], &hash[0], sizeof hash[t]);
      assert_memory_equal(rows[t] + 2 * QUERIES * K, rows[t], K * sizeof(uint32_t)); /* alone or among others */
      assert_memory_equal(scores[t] + 2 * QUERIES * K, scores[t], K * sizeof(float));
    }
  }
  ev_threads_set(0);
  free(vectors);
  free(q);
}

/* A writer deletes rows and puts them again; a row's vector tells its version: readers must see versions whole. Rows below
 * STAY are never touched and must always be found. */
enum { STAY = 4300, TURNING = 500 };
typedef struct shared {
  ev_index *x;
  const float *vectors;
  atomic_bool done;
  _Atomic size_t searches, wrong;
} shared;

static void version_of(float *v, uint32_t row, uint32_t version) { /* direction by row, length by version */
  make_vectors(v, 1, 100000 + row);
  for (size_t i = 0; i < DIMS; i++) v[i] *= (float)(1 + version % 4);
}

static void *search_along(void *arg) {
  shared *h = arg;
  ev_rng r;
  ev_rng_seed(&r, (uint64_t)(uintptr_t)&r, 0);
  float v[DIMS], base[DIMS], scores[10];
  uint32_t rows[10];
  while (!atomic_load_explicit(&h->done, memory_order_relaxed)) {
    uint32_t row = ev_rng_below(&r, STAY);
    const float *q = h->vectors + row * DIMS;
    ev_search search = {.k = 10, .effort = 30};
    if (ev_index_search(h->x, q, 1, &search, rows, scores) != EV_OK) atomic_fetch_add(&h->wrong, 1);
    if (rows[0] != row || scores[0] != 0) atomic_fetch_add(&h->wrong, 1); /* l2 to itself */
    for (int i = 1; i < 10; i++)
      if (rows[i] == EV_NONE || rows[i] >= STAY + TURNING || rows[i] == rows[i - 1] || !(scores[i] <= scores[i - 1])) atomic_fetch_add(&h->wrong, 1);
    uint32_t turning = STAY + ev_rng_below(&r, TURNING);
    version_of(base, turning, 0);
    if (ev_index_get(h->x, turning, v) == EV_OK) { /* one of the versions, whole */
      bool is = false;
      for (int version = 1; version <= 4 && !is; version++) {
        is = true;
        for (size_t i = 0; i < DIMS && is; i++) is = v[i] == base[i] * (float)version;
      }
      if (!is) atomic_fetch_add(&h->wrong, 1);
    }
    atomic_fetch_add(&h->searches, 1);
  }
  return NULL;
}

static void readers_see_whole_rows_and_all_that_stay_while_a_writer_works(void **s) {
  (void)s;
  float *vectors = vectors_of(STAY, 31), v[20 * DIMS];
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    shared h = {.x = new_index(kinds[kind], "l2", "i8", true), .vectors = vectors};
    pthread_t readers[2];
    bool there[TURNING] = {false};
    uint32_t versions[TURNING] = {0};
    ev_rng r;
    ev_rng_seed(&r, 33, kind);
    put_range(h.x, vectors, 0, STAY);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&readers[i], NULL, search_along, &h), 0);
    while (atomic_load(&h.searches) < 2) continue;
    for (int turn = 0; turn < (slow() ? 60 : 400); turn++) {
      uint32_t rows[20];
      size_t n = 0, want = 1 + ev_rng_below(&r, 20), first = ev_rng_below(&r, TURNING);
      bool putting = !there[first];
      for (size_t i = first; i < TURNING && n < want; i++) {
        if (there[i] == putting) continue;
        there[i] = putting;
        if (putting) version_of(v + n * DIMS, STAY + (uint32_t)i, versions[i]++);
        rows[n++] = STAY + (uint32_t)i;
      }
      assert_int_equal(putting ? ev_index_put(h.x, rows, v, n) : ev_index_delete(h.x, rows, n), EV_OK);
    }
    atomic_store(&h.done, true);
    for (int i = 0; i < 2; i++) pthread_join(readers[i], NULL);
    if (atomic_load(&h.wrong) != 0) fail_msg("%s: %zu wrong in %zu searches", kinds[kind], atomic_load(&h.wrong), atomic_load(&h.searches));
    ev_index_free(h.x);
  }
  free(vectors);
}

typedef struct renewal {
  ev_index *x;
  const float *vector;
  atomic_bool done;
} renewal;

static void *renew(void *arg) {
  renewal *w = arg;
  if (ev_index_put(w->x, &(const uint32_t){7}, w->vector, 1) == EV_OK) atomic_store(&w->done, true);
  return NULL;
}

static void a_row_is_used_again_only_when_its_readers_have_left(void **s) {
  (void)s;
  float *vectors = vectors_of(21, 35), got[DIMS];
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    renewal w = {.x = new_index(kinds[kind], "l2", "f32", false), .vector = vectors + 20 * DIMS};
    pthread_t writer;
    put_range(w.x, vectors, 0, 20);
    unsigned place = ev_epoch_enter(ev_index_epochs(w.x)); /* a reader comes in and finds row 7 */
    const float *seen = (const float *)ev_index_code(w.x, 7);
    assert_int_equal(ev_index_delete(w.x, &(const uint32_t){7}, 1), EV_OK);
    assert_int_equal(pthread_create(&writer, NULL, renew, &w), 0);
    usleep(30000);
    assert_false(atomic_load(&w.done));
    assert_memory_equal(seen, vectors + 7 * DIMS, sizeof got);
    ev_epoch_leave(ev_index_epochs(w.x), place);
    pthread_join(writer, NULL);
    assert_true(atomic_load(&w.done));
    assert_int_equal(ev_index_get(w.x, 7, got), EV_OK);
    assert_memory_equal(got, vectors + 20 * DIMS, sizeof got);
    ev_index_free(w.x);
  }
  free(vectors);
}

/* Looking through all lists must compare each live row once, however often rows went and came, and however the index grew. */
static void lists_hold_each_row_once(void **s) {
  (void)s;
  enum { FEW = 4200, MANY = 34000, LISTS = 30 };
  float *vectors = vectors_of(MANY, 36), scores[5];
  uint32_t rows[300], found[5];
  ev_index_options o;
  ev_index *x;
  ev_index_defaults(&o);
  o.kind = "ivf";
  o.n_dims = DIMS;
  o.n_lists = LISTS;
  assert_int_equal(ev_index_new(&x, &o), EV_OK);
  put_range(x, vectors, 0, FEW);
  size_t before = ev_index_bytes(x);
  ev_search search = {.k = 5, .effort = LISTS};
  for (int turn = 0; turn < 60; turn++) {
    for (uint32_t i = 0; i < 300; i++) rows[i] = (uint32_t)turn * 31 % 900 + 11 * i;
    assert_int_equal(ev_index_delete(x, rows, 300), EV_OK);
    assert_int_equal(ev_index_put(x, rows, vectors + turn * DIMS, 300), EV_OK);
  }
  assert_true(ev_index_bytes(x) < before * 5 / 4); /* 18 000 went and came: lists do not grow by them */
  for (int turn = 0; turn < 2; turn++) {
    if (turn == 1) put_range(x, vectors, FEW, MANY); /* more than eight times as many: lists are made anew */
    unsigned place = ev_epoch_enter(ev_index_epochs(x));
    const ev_index_kind *kind = x->kind;
    ev_prepared q;
    ev_found best[5];
    size_t n, looked_at = 0;
    assert_int_equal(ev_index_prepare(x, &q, vectors), EV_OK);
    assert_int_equal(kind->search(x, &q, &search, 0, 5, 10 * LISTS, best, &n, &looked_at), EV_OK);
    assert_int_equal(looked_at, LISTS + ev_index_n(x));
    ev_index_prepared_free(&q);
    ev_epoch_leave(ev_index_epochs(x), place);
    assert_int_equal(ev_index_search(x, vectors, 1, &search, found, scores), EV_OK);
  }
  ev_index_free(x);
  free(vectors);
}

/* ---- Faults ---------------------------------------------------------------------------------------------------*/
static ev_status make_and_free(const ev_index_options *o) {
  ev_index *x;
  EV_TRY(ev_index_new(&x, o));
  ev_index_free(x);
  return EV_OK;
}

static void every_call_survives_faults(void **s) {
  (void)s;
  enum { K = 5 };
  float *vectors = vectors_of(ROWS, 41), *q = vectors_of(3, 42), scores[3 * K], before[3 * K];
  uint32_t *rows = malloc(ROWS * sizeof *rows), found[3 * K], found_before[3 * K];
  for (uint32_t i = 0; i < ROWS; i++) rows[i] = i;
  ev_threads_set(1); /* faults are a thread's own */
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    char path[160];
    ev_index *x = new_index(kinds[kind], "cosine", "i8", true), *y;
    ev_pack *p;
    ev_search search = {.k = K};
    uint64_t allowed[ROWS / 64 + 1] = {[3] = 0xFFFF};
    ASSERT_SURVIVES_FAULTS(make_and_free(ev_index_opts(x)), );
    const uint32_t first = rows_for(kind, 4000), then = first + 150, last = slow() ? then + 50 : ROWS; /* 4096 are what lists begin with */
    put_range(x, vectors, 0, first);
    assert_int_equal(ev_index_search(x, q, 3, &search, found_before, before), EV_OK);
    for (int64_t fault = 0;; fault += slow() ? 9 : 1) { /* the put that makes the lists, and one after it; a failed one leaves no trace */
      ev_mem_fail_at(fault);
      ev_status status = ev_index_put(x, rows + first, vectors + first * DIMS, 150);
      ev_mem_fail_at(-1);
      if (status == EV_OK) break;
      assert_int_equal(status, EV_ENOMEM);
      assert_true(ev_index_n(x) == first && ev_index_n_rows(x) == first && !ev_index_has(x, first));
      assert_int_equal(ev_index_search(x, q, 3, &search, found, scores), EV_OK);
      assert_memory_equal(found, found_before, sizeof found);
      assert_memory_equal(scores, before, sizeof scores);
    }
    ASSERT_SURVIVES_FAULTS(ev_index_put(x, rows + then, vectors + then * DIMS, last - then), );
    assert_int_equal(ev_index_n(x), last);
    const uint32_t some[3] = {7, 3, 5};
    ASSERT_SURVIVES_FAULTS(ev_index_delete(x, some, 3), );
    assert_int_equal(ev_index_n(x), last - 3);
    ASSERT_SURVIVES_FAULTS(ev_index_put(x, some, vectors, 3), );
    ASSERT_SURVIVES_FAULTS(ev_index_search(x, q, 3, &search, found, scores), );
    search.allowed = allowed;
    search.n_allowed = ROWS;
    ASSERT_SURVIVES_FAULTS(ev_index_search(x, q, 3, &search, found, scores), );
    snprintf(path, sizeof path, "%s", in_folder("faults"));
    ASSERT_SURVIVES_FAULTS(write_index(x, path, NULL, 0), );
    ASSERT_SURVIVES_FAULTS(map_index(&y, &p, path), (ev_index_free(y), ev_pack_close(p)));
    ev_index_free(x);
  }
  ev_threads_set(0);
  free(vectors);
  free(q);
  free(rows);
}

static void an_interrupted_call_ends_and_leaves_no_trace(void **s) {
  (void)s;
  float *vectors = vectors_of(ROWS, 51), scores[4];
  uint32_t found[4], *rows = malloc(ROWS * sizeof *rows);
  for (uint32_t i = 0; i < ROWS; i++) rows[i] = i;
  for (size_t kind = 1; kind < N_OF(kinds); kind++) {
    ev_index *x = new_index(kinds[kind], "dot", "i8", true);
    ev_search search = {.k = 4};
    ev_interrupt();
    assert_int_equal(ev_index_put(x, rows, vectors, ROWS), EV_EINTR);
    ev_interrupt_clear();
    assert_int_equal(ev_index_n(x), 0);
    assert_int_equal(ev_index_n_rows(x), 0);
    assert_int_equal(ev_index_put(x, rows, vectors, ROWS), EV_OK);
    ev_interrupt();
    assert_int_equal(ev_index_search(x, vectors, 1, &search, found, scores), EV_EINTR);
    ev_interrupt_clear();
    assert_int_equal(ev_index_search(x, vectors, 1, &search, found, scores), EV_OK);
    ev_index_free(x);
  }
  free(vectors);
  free(rows);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_number_of_threads_does_not_change_a_bit),
      cmocka_unit_test(readers_see_whole_rows_and_all_that_stay_while_a_writer_works),
      cmocka_unit_test(a_row_is_used_again_only_when_its_readers_have_left),
      cmocka_unit_test(lists_hold_each_row_once),
      cmocka_unit_test(every_call_survives_faults),
      cmocka_unit_test(an_interrupted_call_ends_and_leaves_no_trace),
  };
  return RUN(tests);
}
