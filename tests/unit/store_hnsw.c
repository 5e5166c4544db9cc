/* store_hnsw.c - what is the graph's own: that it holds together whatever comes, goes and comes again. What every kind of
 * index must do is in store_index.c. Recall is against an exact search in double precision; a search that had to fall back
 * on a plain scan is told by the rows it looked at. */
#include <math.h>

#include "store/store.h"
#include "support.h"

enum { DIMS = 24, K = 10, QUERIES = 100 };

typedef struct world {
  const char *metric;
  float *vectors; /* (n, DIMS) */
  bool *there;
  size_t n;
  float q[QUERIES * DIMS];
} world;

static void draw(float *out, size_t n, ev_rng *r, uint32_t n_clusters, bool in_order) { /* clustered, of different lengths */
  ev_rng centre;
  for (size_t i = 0; i < n; i++) {
    ev_rng_seed(&centre, 77, in_order ? i * n_clusters / n : ev_rng_below(r, n_clusters));
    double length = exp(0.5 * ev_rng_normal(r));
    for (size_t k = 0; k < DIMS; k++) out[i * DIMS + k] = (float)(length * (ev_rng_normal(&centre) + 0.5 * ev_rng_normal(r)));
  }
}

static void make_world(world *w, const char *metric, size_t n, uint64_t seed, bool in_order) {
  ev_rng r;
  ev_rng_seed(&r, seed, 3);
  *w = (world){.metric = metric, .n = n, .vectors = malloc(n * DIMS * sizeof(float)), .there = calloc(n, 1)};
  draw(w->vectors, n, &r, 40, in_order);
  draw(w->q, QUERIES, &r, 40, false);
}

static void free_world(world *w) {
  free(w->vectors);
  free(w->there);
}

static double truth(const world *w, const float *q, const float *v) {
  double dot = 0, qq = 0, vv = 0;
  for (size_t i = 0; i < DIMS; i++) dot += (double)q[i] * v[i], qq += (double)q[i] * q[i], vv += (double)v[i] * v[i];
  if (strcmp(w->metric, "dot") == 0) return dot;
  if (strcmp(w->metric, "l2") == 0) return 2 * dot - qq - vv;
  return qq > 0 && vv > 0 ? dot / sqrt(qq * vv) : 0;
}

static ev_index *new_graph(const char *metric, size_t d, unsigned n_links) {
  ev_index_options o;
  ev_index *x;
  ev_index_defaults(&o);
  o.metric = metric;
  o.n_dims = d;
  o.max_rows = 1 << 16;
  o.n_links = n_links;
  o.effort_build = 100;
  assert_int_equal(ev_index_new(&x, &o), EV_OK);
  return x;
}

static void put(ev_index *x, world *w, const uint32_t *rows, size_t n) {
  float *v = malloc(n * DIMS * sizeof *v);
  for (size_t i = 0; i < n; i++) memcpy(v + i * DIMS, w->vectors + rows[i] * (size_t)DIMS, DIMS * sizeof *v), w->there[rows[i]] = true;
  assert_int_equal(ev_index_put(x, rows, v, n), EV_OK);
  free(v);
}

static void put_all(ev_index *x, world *w, size_t step) {
  uint32_t *rows = malloc(w->n * sizeof *rows);
  for (uint32_t i = 0; i < w->n; i++) rows[i] = i;
  for (size_t i = 0; i < w->n; i += step) put(x, w, rows + i, w->n - i < step ? w->n - i : step);
  free(rows);
}

static void take(ev_index *x, world *w, uint32_t row) {
  assert_int_equal(ev_index_delete(x, &row, 1), EV_OK);
  w->there[row] = false;
}

static void shuffle(uint32_t *rows, size_t n, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 4);
  for (uint32_t i = 0; i < n; i++) rows[i] = i;
  for (size_t i = n; i > 1; i--) {
    uint32_t j = ev_rng_below(&r, (uint32_t)i), swap = rows[i - 1];
    rows[i - 1] = rows[j], rows[j] = swap;
  }
}

/* The share of the K best that is found; what scores like the K-th counts. looked_at: rows a query, on average. */
static double recall(const ev_index *x, const world *w, const uint64_t *allowed, unsigned effort, double *looked_at) {
  static uint32_t rows[QUERIES * K];
  static float scores[QUERIES * K];
  size_t looked, hits = 0, expected = 0;
  double *all = malloc(w->n * sizeof *all);
  ev_search s = {.k = K, .effort = effort, .allowed = allowed, .n_allowed = w->n, .n_looked_at = &looked};
  assert_int_equal(ev_index_search(x, w->q, QUERIES, &s, rows, scores), EV_OK);
  for (size_t i = 0; i < QUERIES; i++) {
    double best[K];
    size_t n = 0;
    for (size_t r = 0; r < w->n; r++) {
      if (!w->there[r] || (allowed != NULL && (allowed[r / 64] >> r % 64 & 1) == 0)) continue;
      double score = truth(w, w->q + i * DIMS, w->vectors + r * DIMS);
      if (n == K && score <= best[K - 1]) continue;
      size_t at = n < K ? n++ : K - 1;
      for (; at > 0 && best[at - 1] < score; at--) best[at] = best[at - 1];
      best[at] = score;
    }
    expected += n;
    for (size_t k = 0; k < n; k++) {
      uint32_t row = rows[i * K + k];
      assert_true(row < w->n && w->there[row]);
      for (size_t j = 0; j < k; j++) assert_true(rows[i * K + j] != row);
      hits += truth(w, w->q + i * DIMS, w->vectors + row * (size_t)DIMS) >= best[n - 1] - 1e-4 * (fabs(best[n - 1]) + 1);
    }
  }
  free(all);
  if (looked_at != NULL) *looked_at = (double)looked / QUERIES;
  return expected == 0 ? 1 : (double)hits / (double)expected;
}

static const char *const metrics[] = {"dot", "cosine", "l2"};

/* ---- Building ---------------------------------------------------------------------------------------------*/
static void a_batch_and_rows_one_by_one_make_graphs_of_one_quality(void **s) {
  (void)s;
  for (size_t m = 0; m < 3; m++)
    for (int in_order = 0; in_order < 2; in_order++) { /* in order: a batch is one cluster, its rows each other's only neighbours */
      world w;
      make_world(&w, metrics[m], 6000, 1, in_order);
      double found[2], looked_at[2];
      for (int i = 0; i < 2; i++) {
        ev_index *x = new_graph(metrics[m], DIMS, 12);
        put_all(x, &w, i == 0 ? w.n : 1);
        found[i] = recall(x, &w, NULL, 40, &looked_at[i]);
        ev_index_free(x);
      }
      if (found[0] < 0.97 || found[0] < found[1] - 0.01 || looked_at[0] > 0.3 * (double)w.n)
        fail_msg("%s%s: %.3f of %g rows; one by one %.3f of %g", metrics[m], in_order ? " in order" : "", found[0], looked_at[0], found[1], looked_at[1]);
      free_world(&w);
    }
}

/* ---- Coming and going -------------------------------------------------------------------------------------*/
static void replacing_every_row_leaves_a_graph_as_good_as_new(void **s) {
  (void)s;
  for (size_t m = 0; m < 3; m++)
    for (size_t step = 1; step <= 50; step += 49) {
      world w;
      make_world(&w, metrics[m], 5000, 2, false);
      uint32_t *order = malloc(w.n * sizeof *order);
      ev_index *x = new_graph(metrics[m], DIMS, 12), *fresh = new_graph(metrics[m], DIMS, 12);
      put_all(x, &w, w.n);
      ev_rng r;
      ev_rng_seed(&r, 9, m);
      shuffle(order, w.n, 5);
      for (size_t i = 0; i < w.n; i += step) {
        assert_int_equal(ev_index_delete(x, order + i, step), EV_OK);
        for (size_t k = i; k < i + step; k++) draw(w.vectors + order[k] * (size_t)DIMS, 1, &r, 40, false);
        put(x, &w, order + i, step);
      }
      put_all(fresh, &w, w.n);
      double found = recall(x, &w, NULL, 40, NULL), anew = recall(fresh, &w, NULL, 40, NULL);
      if (found < anew - (m == 0 ? 0.04 : 0.01)) fail_msg("%s, %zu at a time: %.3f, anew %.3f", metrics[m], step, found, anew);
      ev_index_free(x);
      ev_index_free(fresh);
      free(order);
      free_world(&w);
    }
}

static void what_stays_is_found_when_half_is_deleted_and_then_all_but_some(void **s) {
  (void)s;
  for (size_t m = 0; m < 3; m++) {
    world w;
    make_world(&w, metrics[m], 5000, 3, false);
    uint32_t *order = malloc(w.n * sizeof *order);
    ev_index *x = new_graph(metrics[m], DIMS, 12);
    put_all(x, &w, w.n);
    double looked_at, before = recall(x, &w, NULL, 40, NULL);
    shuffle(order, w.n, 6);
    for (size_t i = 0; i < w.n / 4; i++) take(x, &w, order[i]);
    assert_int_equal(ev_index_delete(x, order + w.n / 4, w.n / 4), EV_OK); /* many at once */
    for (size_t i = w.n / 4; i < w.n / 2; i++) w.there[order[i]] = false;
    double found = recall(x, &w, NULL, 40, &looked_at);
    if (found < before - 0.02 || looked_at > 0.4 * (double)w.n) fail_msg("%s: %.3f of %g rows, before %.3f", metrics[m], found, looked_at, before);
    for (size_t i = w.n / 2; i < w.n; i++) {
      take(x, &w, order[i]);
      size_t left = w.n - 1 - i;
      if (left == 500 || left == 12 || left <= 2) assert_true(recall(x, &w, NULL, 40, NULL) > 0.95);
    }
    assert_int_equal(ev_index_n(x), 0);
    put_all(x, &w, w.n);
    found = recall(x, &w, NULL, 40, NULL);
    if (found < before - 0.02) fail_msg("%s put again: %.3f, before %.3f", metrics[m], found, before);
    ev_index_free(x);
    free(order);
    free_world(&w);
  }
}

/* ---- What is all alike ------------------------------------------------------------------------------------*/
static void equal_vectors_are_found_and_hide_nobody(void **s) {
  (void)s;
  for (size_t m = 0; m < 3; m++)
    for (int zero = 0; zero < 2; zero++)
      for (size_t step = 1; step <= 4000; step += 3999) {
        world w;
        make_world(&w, metrics[m], 4000, 4, false);
        for (size_t i = 0; i < w.n; i += 4)
          for (size_t k = 0; k < DIMS; k++) w.vectors[i * DIMS + k] = zero ? 0 : 1 + 0.1f * (float)k;
        ev_index *x = new_graph(metrics[m], DIMS, 12);
        put_all(x, &w, step);
        double looked_at, found = recall(x, &w, NULL, 60, &looked_at);
        if (found < 0.95 || looked_at > 0.5 * (double)w.n) fail_msg("%s%s: %.3f of %g rows", metrics[m], zero ? " of zeros" : "", found, looked_at);
        if (!zero) { /* by their own vector, all of them come first */
          static uint32_t rows[200];
          static float scores[200];
          ev_search search = {.k = 200, .effort = 400};
          assert_int_equal(ev_index_search(x, w.vectors, 1, &search, rows, scores), EV_OK);
          if (m > 0)
            for (size_t i = 0; i < 200; i++) assert_true(rows[i] % 4 == 0);
        }
        ev_index_free(x);
        free_world(&w);
      }
}

static void nothing_but_zeros_one_row_and_one_dimension_are_no_special_case(void **s) {
  (void)s;
  for (size_t m = 0; m < 3; m++) {
    world w;
    make_world(&w, metrics[m], 1000, 5, false);
    ev_index *x = new_graph(metrics[m], DIMS, 2);
    put_all(x, &w, 1000);
    assert_true(recall(x, &w, NULL, 200, NULL) > 0.9); /* two links a node */
    ev_index_free(x);
    x = new_graph(metrics[m], DIMS, 12);
    memset(w.vectors, 0, w.n * DIMS * sizeof(float));
    put_all(x, &w, 100);
    assert_true(recall(x, &w, NULL, 40, NULL) == 1);
    ev_index_free(x);
    x = new_graph(metrics[m], 1, 8);
    float line[2000], q = 0.5f;
    uint32_t rows[2000], best[3];
    float scores[3];
    for (uint32_t i = 0; i < 2000; i++) rows[i] = i, line[i] = (float)i - 1000;
    assert_int_equal(ev_index_put(x, rows, line, 1), EV_OK);
    ev_search search = {.k = 3, .effort = 30};
    assert_int_equal(ev_index_search(x, &q, 1, &search, best, scores), EV_OK);
    assert_true(best[0] == 0 && best[1] == EV_NONE);
    assert_int_equal(ev_index_put(x, rows + 1, line + 1, 1999), EV_OK);
    assert_int_equal(ev_index_search(x, &q, 1, &search, best, scores), EV_OK);
    if (m == 0) assert_true(best[0] == 1999 && best[1] == 1998 && best[2] == 1997);
    if (m == 2) assert_true(best[0] == 1000 && best[1] == 1001 && scores[1] == -0.25f);
    ev_index_free(x);
    free_world(&w);
  }
}

/* ---- Filters ----------------------------------------------------------------------------------------------*/
static void a_filter_of_any_share_leaves_the_best_of_what_it_lets_through(void **s) {
  (void)s;
  for (size_t m = 0; m < 3; m++) {
    world w;
    make_world(&w, metrics[m], 20000, 6, false);
    ev_index *x = new_graph(metrics[m], DIMS, 12);
    put_all(x, &w, w.n);
    static const double shares[] = {0.5, 0.1, 0.01, 0.001, 0};
    uint64_t *allowed = malloc((w.n + 63) / 64 * sizeof *allowed);
    ev_rng r;
    for (size_t i = 0; i < 5; i++) {
      ev_rng_seed(&r, i, 8);
      memset(allowed, 0, (w.n + 63) / 64 * sizeof *allowed);
      for (size_t row = 0; row < w.n; row++) allowed[row / 64] |= (uint64_t)(ev_rng_f64(&r) < shares[i]) << row % 64;
      double looked_at, found = recall(x, &w, allowed, 64, &looked_at);
      if (found < 0.97) fail_msg("%s, share %g: %.3f of %g rows", metrics[m], shares[i], found, looked_at);
    }
    ev_index_free(x);
    free(allowed);
    free_world(&w);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_batch_and_rows_one_by_one_make_graphs_of_one_quality), cmocka_unit_test(replacing_every_row_leaves_a_graph_as_good_as_new),
      cmocka_unit_test(what_stays_is_found_when_half_is_deleted_and_then_all_but_some), cmocka_unit_test(equal_vectors_are_found_and_hide_nobody),
      cmocka_unit_test(nothing_but_zeros_one_row_and_one_dimension_are_no_special_case), cmocka_unit_test(a_filter_of_any_share_leaves_the_best_of_what_it_lets_through),
  };
  return RUN(tests);
}
