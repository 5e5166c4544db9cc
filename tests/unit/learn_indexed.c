/* learn_indexed.c - factors behind an index give what the factors give; columns over items reach a slate as they are. */
#include <math.h>

#include "learn_world.h"

enum { D = 12, K = 30, NEW = 4 };
static const ev_ials_options ials = {D, 4, 0.1f, 0.02f, 1, 0.1f, 5};

static ev_status fit(const world *w, const char *path, const char *kind, const char *form) {
  ev_index_options o;
  ev_index_defaults(&o);
  o.kind = kind;
  o.form = form;
  return ev_fit_indexed(path, w->v, &ials, &o, NULL);
}

/* Askers of every sort: known users as they were trained; known users with NEW items more; strangers with the same; nobody. */
typedef struct askers {
  ev_requests r;
  uint32_t *user, *history, *seen;
  uint64_t *ptr;
} askers;

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static askers ask_all(const world *w) {
  const ev_csr *m = &w->v->by_user;
  size_t n = 3 * w->n_users + 1, most = 3 * (m->ptr[m->n_rows] + NEW * w->n_users), at = 0;
  askers a = {.user = ev_alloc(n, 4), .history = ev_alloc(most, 4), .seen = ev_alloc(most, 4), .ptr = ev_zalloc(n + 1, sizeof(uint64_t))};
  for (size_t i = 0; i < n; i++) {
    size_t u = i % w->n_users, begin = at;
    bool nobody = i == n - 1;
    a.user[i] = nobody || i >= 2 * w->n_users ? EV_NONE : (uint32_t)u;
    for (uint64_t e = m->ptr[u]; e < m->ptr[u + 1] && !nobody; e++) a.history[at++] = m->idx[e];
    for (size_t added = 0, item = u * 13 % w->n_items; i >= w->n_users && !nobody && added < NEW; item = (item + 1) % w->n_items)
      if (degree(&w->v->by_item, item) > 0 && !ev_sorted_has(w->v->seen + m->ptr[u], m->ptr[u + 1] - m->ptr[u], (uint32_t)item)) a.history[at++] = (uint32_t)item, added++;
    memcpy(a.seen + begin, a.history + begin, (at - begin) * sizeof *a.seen);
    qsort(a.seen + begin, at - begin, sizeof *a.seen, by_number);
    a.ptr[i + 1] = at;
  }
  a.r = (ev_requests){n, a.user, a.ptr, a.history, a.ptr, a.seen};
  return a;
}

static void askers_free(askers *a) {
  ev_free(a->user);
  ev_free(a->history);
  ev_free(a->seen);
  ev_free(a->ptr);
}

static ev_requests only(const ev_requests *r, size_t i) {
  return (ev_requests){1, r->user + i, r->history_ptr + i, r->history, r->seen_ptr + i, r->seen};
}

typedef struct lists {
  uint32_t *ids; /* (n, K) */
  float *scores;
} lists;

static lists recall(const char *path, const ev_requests *r, unsigned effort) {
  ev_model *m;
  lists l = {ev_alloc(r->n, K * sizeof *l.ids), ev_alloc(r->n, K * sizeof *l.scores)};
  assert_int_equal(ev_model_open(&m, path), EV_OK);
  assert_int_equal(ev_model_search(m, r, K, effort, l.ids, l.scores), EV_OK);
  ev_model_close(m);
  return l;
}

static void lists_free(lists *l) {
  ev_free(l->ids);
  ev_free(l->scores);
}

/* Whoever brings a history gets the factors' own lists and scores, to what folding in leaves open; nobody else is looked at. */
static void as_the_factors(const world *w, const char *path, const askers *a, unsigned effort) {
  ev_model *factors, *m;
  size_t n = w->n_items;
  float *expected = ev_alloc(n, sizeof *expected), *given = ev_alloc(n, sizeof *given);
  uint32_t *every = ev_alloc(n, sizeof *every);
  double *best = ev_alloc(n, sizeof *best);
  lists l = recall(path, &a->r, effort);
  assert_int_equal(ev_model_open(&factors, in_folder("factors")), EV_OK);
  assert_int_equal(ev_model_open(&m, path), EV_OK);
  for (size_t i = 0; i < n; i++) every[i] = (uint32_t)i;
  for (size_t q = 0; q < a->r.n; q++) {
    ev_requests one = only(&a->r, q);
    uint64_t begin = a->r.history_ptr[q], end = a->r.history_ptr[q + 1];
    double scale = 0;
    size_t open = 0;
    if (begin == end) continue;
    assert_int_equal(ev_model_score(factors, &one, every, n, expected), EV_OK);
    assert_int_equal(ev_model_score(m, &one, every, n, given), EV_OK);
    for (size_t i = 0; i < n; i++) {
      scale = fmax(scale, fabs((double)expected[i]));
      bool seen = ev_sorted_has(a->r.seen + begin, end - begin, (uint32_t)i);
      best[i] = seen ? -INFINITY : (double)expected[i];
      open += !seen;
    }
    for (size_t i = 0; i < n; i++)
      if (!(fabs((double)(given[i] - expected[i])) <= 1e-4 * scale)) fail_msg("asker %zu: item %zu scores %g, %g expected", q, i, (double)given[i], (double)expected[i]);
    for (size_t k = 0; k < K && k < open; k++) {
      uint32_t i = l.ids[q * K + k];
      if (i >= n || !(best[i] > -INFINITY)) fail_msg("asker %zu: place %zu has %u", q, k, i);
      assert_true(fabs((double)l.scores[q * K + k] - best[i]) <= 1e-4 * scale);
      for (size_t other = 0; other < k; other++) assert_true(l.ids[q * K + other] != i);
    }
    double *sorted = best;
    double mine[K];
    for (size_t k = 0; k < K && k < open; k++) mine[k] = (double)expected[l.ids[q * K + k]];
    qsort(sorted, n, sizeof *sorted, descending);
    for (size_t k = 0; k < K && k < open; k++) assert_true(fabs(mine[k] - sorted[k]) <= 2e-4 * scale);
  }
  ev_model_close(factors);
  ev_model_close(m);
  lists_free(&l);
  ev_free(expected);
  ev_free(given);
  ev_free(every);
  ev_free(best);
}

static void every_kind_and_form_gives_what_the_factors_give(void **s) {
  (void)s;
  static const struct {
    const char *kind, *form;
  } all[] = {{"flat", "f32"}, {"flat", "i8"}, {"hnsw", "f32"}, {"hnsw", "f16"}, {"hnsw", "i8"}, {"ivf", "bf16"}};
  world w;
  open_world(&w, 200, 600);
  assert_int_equal(ev_fit_ials(in_folder("factors"), w.v, &ials, NULL), EV_OK);
  askers a = ask_all(&w);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    assert_int_equal(fit(&w, in_folder("m"), all[i].kind, all[i].form), EV_OK);
    as_the_factors(&w, in_folder("m"), &a, 100000); /* as much effort as there are items: exact */
  }
  askers_free(&a);
  close_world(&w);
}

static void a_walk_finds_most_of_what_a_scan_finds(void **s) {
  (void)s;
  world w;
  open_world(&w, 300, 4000);
  askers a = ask_all(&w);
  assert_int_equal(fit(&w, in_folder("flat"), "flat", "f32"), EV_OK);
  assert_int_equal(fit(&w, in_folder("graph"), "hnsw", "i8"), EV_OK);
  lists exact = recall(in_folder("flat"), &a.r, 0), little = recall(in_folder("graph"), &a.r, 1), more = recall(in_folder("graph"), &a.r, 150);
  size_t hits[2] = {0}, all = 0;
  for (size_t q = 0; q < a.r.n; q++)
    for (size_t k = 0; k < K; k++) {
      uint32_t i = exact.ids[q * K + k];
      all++;
      for (size_t j = 0; j < K; j++) hits[0] += little.ids[q * K + j] == i, hits[1] += more.ids[q * K + j] == i;
    }
  double low = (double)hits[0] / (double)all, high = (double)hits[1] / (double)all;
  if (!(low > 0.5 && high > 0.97 && high > low)) fail_msg("recall %.3f at the least effort, %.3f at 150", low, high);
  ev_threads_set(3);
  lists again = recall(in_folder("graph"), &a.r, 150);
  ev_threads_set(0);
  assert_memory_equal(again.ids, more.ids, a.r.n * K * sizeof *more.ids);
  assert_memory_equal(again.scores, more.scores, a.r.n * K * sizeof *more.scores);
  ev_model *m;
  assert_int_equal(ev_model_open(&m, in_folder("graph")), EV_OK);
  for (size_t q = 0; q < a.r.n; q += 37) { /* alone as in a batch, to the bit */
    ev_requests one = only(&a.r, q);
    uint32_t ids[K];
    float scores[K];
    assert_int_equal(ev_model_search(m, &one, K, 150, ids, scores), EV_OK);
    assert_memory_equal(ids, more.ids + q * K, sizeof ids);
    assert_memory_equal(scores, more.scores + q * K, sizeof scores);
  }
  ev_model_close(m);
  lists *done[] = {&exact, &little, &more, &again};
  for (int i = 0; i < 4; i++) lists_free(done[i]);
  askers_free(&a);
  close_world(&w);
}

static void an_event_changes_the_next_list_and_nobody_gets_what_most_have(void **s) {
  (void)s;
  world w;
  open_world(&w, 200, 600);
  askers a = ask_all(&w);
  const char *kinds[] = {"flat", "hnsw"};
  for (int t = 0; t < 2; t++) {
    assert_int_equal(fit(&w, in_folder("m"), kinds[t], "i8"), EV_OK);
    lists l = recall(in_folder("m"), &a.r, 0);
    size_t changed = 0, with = 0;
    for (size_t u = 0; u < w.n_users; u++) {
      if (degree(&w.v->by_user, u) == 0) continue;
      with++;
      changed += memcmp(l.ids + u * K, l.ids + (w.n_users + u) * K, K * sizeof *l.ids) != 0;
    }
    if (with < 150 || changed != with) fail_msg("%zu of %zu lists changed", changed, with);
    size_t last = a.r.n - 1;
    for (size_t k = 0; k < K; k++) {
      uint32_t i = l.ids[last * K + k];
      assert_true(i < w.n_items && (double)l.scores[last * K + k] == degree(&w.v->by_item, i));
      if (k > 0) assert_true(l.scores[last * K + k] < l.scores[last * K + k - 1] || (l.scores[last * K + k] == l.scores[last * K + k - 1] && i > l.ids[last * K + k - 1]));
    }
    size_t more = 0;
    for (size_t i = 0; i < w.n_items; i++) more += degree(&w.v->by_item, i) > (double)l.scores[last * K + K - 1];
    assert_true(more < K);
    uint32_t seen[2] = {l.ids[last * K + 1], l.ids[last * K + 3]}, ids[K], items[1] = {l.ids[last * K]};
    qsort(seen, 2, sizeof *seen, by_number);
    ev_requests nobody = {1, NULL, (uint64_t[]){0, 0}, NULL, (uint64_t[]){0, 2}, seen};
    float scores[K];
    ev_model *m;
    assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
    assert_int_equal(ev_model_recall(m, &nobody, K, ids, scores), EV_OK);
    assert_true(ids[0] == l.ids[last * K] && ids[1] == l.ids[last * K + 2] && ids[2] == l.ids[last * K + 4]);
    assert_int_equal(ev_model_score(m, &nobody, items, 1, scores), EV_OK);
    assert_true(scores[0] == l.scores[last * K]);
    ev_model_close(m);
    lists_free(&l);
  }
  askers_free(&a);
  close_world(&w);
}

static void hard_equations_are_solved_whole(void **s) { /* hardly any ridge, long histories: the steps do not end */
  (void)s;
  world w;
  open_world(&w, 200, 700);
  ev_ials_options o = {40, 2, 1e-4f, 1e-5f, 1, 0.1f, 5};
  ev_index_options x;
  ev_index_defaults(&x);
  x.kind = "flat";
  assert_int_equal(ev_fit_ials(in_folder("factors"), w.v, &o, NULL), EV_OK);
  assert_int_equal(ev_fit_indexed(in_folder("m"), w.v, &o, &x, NULL), EV_OK);
  ev_model *m[2];
  assert_int_equal(ev_model_open(&m[0], in_folder("factors")), EV_OK);
  assert_int_equal(ev_model_open(&m[1], in_folder("m")), EV_OK);
  ev_requests all = everybody(&w);
  uint32_t items[60];
  float scores[2][60];
  for (uint32_t i = 0; i < 60; i++) items[i] = i * 11;
  for (size_t u = 0; u < w.n_users; u++) {
    ev_requests one = {1, NULL, all.history_ptr + u, all.history, NULL, NULL};
    if (degree(&w.v->by_user, u) == 0) continue;
    double scale = 0;
    for (int k = 0; k < 2; k++) assert_int_equal(ev_model_score(m[k], &one, items, 60, scores[k]), EV_OK);
    for (int i = 0; i < 60; i++) scale = fmax(scale, fabs((double)scores[0][i]));
    for (int i = 0; i < 60; i++)
      if (!(fabs((double)(scores[0][i] - scores[1][i])) <= 5e-3 * scale)) fail_msg("user %zu: %g, %g expected", u, (double)scores[1][i], (double)scores[0][i]);
  }
  ev_model_close(m[0]);
  ev_model_close(m[1]);
  close_world(&w);
}

/* ---- Columns -----------------------------------------------------------------------------------------------------*/
enum { ITEMS = 50, COLUMNS = 3 };

static void columns_reach_a_slate_as_they_are(void **s) {
  (void)s;
  const char *names[COLUMNS] = {"b", "a long name with spaces", "c"};
  float values[COLUMNS][ITEMS];
  const float *columns[COLUMNS] = {values[0], values[1], values[2]};
  for (int c = 0; c < COLUMNS; c++)
    for (int i = 0; i < ITEMS; i++) values[c][i] = (float)(c == 2 ? i % 7 : (i * 31 + c) % 17) - 3;
  assert_int_equal(ev_fit_item_columns(in_folder("c"), names, columns, COLUMNS, ITEMS), EV_OK);
  ev_model *m;
  assert_int_equal(ev_model_open(&m, in_folder("c")), EV_OK);
  assert_string_equal(ev_model_kind(m), "item_columns");
  ev_slate *slate = ev_slate_new();
  uint32_t items[] = {49, 3, 0, 3, 17};
  float scores[5] = {0}, share[5];
  assert_int_equal(ev_model_fill(m, slate), EV_OK); /* of nothing */
  ev_slate_clear(slate);
  assert_int_equal(ev_slate_append(slate, items, scores, 5, 0), EV_OK);
  assert_int_equal(ev_model_fill(m, slate), EV_OK);
  assert_int_equal(ev_slate_n_columns(slate), COLUMNS);
  for (int c = 0; c < COLUMNS; c++)
    for (int i = 0; i < 5; i++) assert_true(ev_slate_find(slate, names[c])[i] == values[c][items[i]]);
  uint32_t history[] = {1, 8, 15, 17, 49, 2, 3};
  for (uint64_t n = 0; n <= 7; n++) { /* against counting */
    ev_requests r = {1, NULL, (uint64_t[]){0, n}, history, NULL, NULL};
    assert_int_equal(ev_model_share(m, &r, slate, "c", share), EV_OK);
    for (int i = 0; i < 5; i++) {
      double same = 0;
      for (uint64_t h = 0; h < n; h++) same += values[2][history[h]] == values[2][items[i]];
      assert_true(fabs((double)share[i] - (n > 0 ? same / (double)n : 0)) < 1e-6);
    }
  }
  ev_requests r = {1, NULL, (uint64_t[]){0, 1}, history, NULL, NULL}, wrong = {1, NULL, (uint64_t[]){0, 1}, (uint32_t[]){ITEMS}, NULL, NULL};
  assert_int_equal(ev_model_share(m, &r, slate, "d", share), EV_EINVAL);
  assert_int_equal(ev_model_share(m, &wrong, slate, "c", share), EV_EINVAL);
  uint32_t beyond = ITEMS, ids[2];
  assert_int_equal(ev_slate_append(slate, &beyond, scores, 1, 0), EV_OK);
  assert_int_equal(ev_model_fill(m, slate), EV_OK); /* an item that the model does not know has nothing */
  for (int c = 0; c < COLUMNS; c++) assert_true(ev_slate_find(slate, names[c])[5] == 0);
  assert_int_equal(ev_model_recall(m, &r, 2, ids, scores), EV_EINVAL);
  assert_int_equal(ev_model_score(m, &r, ids, 0, scores), EV_EINVAL);
  assert_int_equal(ev_model_search(m, &r, 2, 5, ids, scores), EV_EINVAL);
  assert_int_equal(ev_model_clusters(m, ids, 2, 1), EV_EINVAL);
  ev_slate_free(slate);
  ev_model_close(m);
  unlink(in_folder("c"));
  const char *bad[][2] = {{"x", "x"}, {"score", "y"}, {"", "y"}, {"a\nb", "y"}, {"a name of more than forty-seven bytes, which no column has", "y"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(ev_fit_item_columns(in_folder("c"), bad[i], columns, 2, ITEMS), EV_EINVAL);
  values[1][7] = NAN;
  assert_int_equal(ev_fit_item_columns(in_folder("c"), names, columns, COLUMNS, ITEMS), EV_EINVAL);
  assert_int_equal(ev_fit_item_columns(in_folder("c"), names, columns, 0, ITEMS), EV_EINVAL);
  assert_false(ev_file_exists(in_folder("c")));
}

static void a_damaged_file_of_columns_is_refused(void **s) {
  (void)s;
  static const char *const names[] = {"a\nb", "a\nb\n\n", "a\na\n", "\nb\n", "a\nb\nc\n", "a\n"};
  float values[2 * 4] = {0};
  ev_model *m;
  for (size_t i = 0; i <= sizeof names / sizeof *names; i++) {
    const char *text = i < sizeof names / sizeof *names ? names[i] : "a\nb\n";
    ev_pack_writer *w;
    assert_int_equal(ev_pack_writer_open(&w, in_folder("c"), "item_columns"), EV_OK);
    assert_int_equal(ev_pack_write(w, "names", EV_U8, text, strlen(text), 1), EV_OK);
    assert_int_equal(ev_pack_write(w, "values", EV_F32, values, 4, 2), EV_OK);
    assert_int_equal(ev_pack_writer_commit(w), EV_OK);
    assert_int_equal(ev_model_open(&m, in_folder("c")), i < sizeof names / sizeof *names ? EV_ECORRUPT : EV_OK); /* the last one is whole */
    ev_model_close(m);
  }
}

static void clusters_are_of_directions_and_the_same_for_any_threads(void **s) {
  (void)s;
  enum { GROUPS = 5, N = 600, DIMS = 6 };
  float *item = ev_alloc(N, DIMS * sizeof *item);
  uint32_t one[N], four[N];
  ev_rng r;
  ev_rng_seed(&r, 9, 0);
  for (size_t i = 0; i < N; i++)
    for (size_t f = 0; f < DIMS; f++) item[i * DIMS + f] = (float)(1 + i % 9) * ((f == i % GROUPS ? 1.0f : 0.0f) + 0.02f * (float)ev_rng_normal(&r));
  assert_int_equal(ev_fit_vectors(in_folder("v"), &(ev_vectors){.item = item, .n_items = N, .n_dims = DIMS, .history_power = 1}), EV_OK);
  ev_model *m;
  assert_int_equal(ev_model_open(&m, in_folder("v")), EV_OK);
  ev_threads_set(1);
  assert_int_equal(ev_model_clusters(m, one, 2 * GROUPS, 3), EV_OK);
  ev_threads_set(4);
  assert_int_equal(ev_model_clusters(m, four, 2 * GROUPS, 3), EV_OK);
  ev_threads_set(0);
  assert_memory_equal(one, four, sizeof one);
  for (size_t i = 0; i < N; i++) { /* no cluster has two directions */
    assert_true(one[i] < 2 * GROUPS);
    for (size_t j = 0; j < i; j++)
      if (one[i] == one[j]) assert_int_equal(i % GROUPS, j % GROUPS);
  }
  assert_int_equal(ev_model_clusters(m, one, 0, 3), EV_EINVAL);
  assert_int_equal(ev_model_clusters(m, one, 10 * N, 3), EV_OK); /* as many as there are items at most */
  ev_model_close(m);
  ev_free(item);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_kind_and_form_gives_what_the_factors_give), cmocka_unit_test(a_walk_finds_most_of_what_a_scan_finds),
      cmocka_unit_test(an_event_changes_the_next_list_and_nobody_gets_what_most_have), cmocka_unit_test(hard_equations_are_solved_whole),
      cmocka_unit_test(columns_reach_a_slate_as_they_are), cmocka_unit_test(a_damaged_file_of_columns_is_refused),
      cmocka_unit_test(clusters_are_of_directions_and_the_same_for_any_threads)};
  return RUN(tests);
}
