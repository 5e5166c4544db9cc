/* learn_world.h - what the unit tests of recall models share: a small world, and a model against the scores it should give. */
#ifndef TESTS_LEARN_WORLD_H
#define TESTS_LEARN_WORLD_H

#include <math.h>

#include "import_world.h"
#include "learn/learn.h"

/* ---- A small world: users like one of five groups; some items nobody touched, some users touched nothing --------*/
typedef struct world {
  ev_snapshot *s;
  ev_view *v; /* the training fold */
  size_t n_users, n_items;
  size_t *number; /* (n_items) of each item's id */
} world;

__attribute__((unused)) static size_t many(void) { return getenv("EVECTION_SLOW") != NULL ? 200 : 1100; } /* under valgrind: one tile of the matrix, not three */

enum { COLD_ITEMS = 12, STRANGERS = 2, LONG_HISTORY = 300 };

static void open_world(world *w, size_t n_users, size_t n_items) {
  ev_buf inter = {0}, items = {0}, users = {0};
  ev_rng r;
  ev_rng_seed(&r, 7, n_items);
  uint8_t *taken = ev_alloc(n_items, 1);
  ev_buf_printf(&inter, "user,item\n");
  for (size_t u = 0; u < n_users; u++) {
    size_t n = u == 0 && n_items > 2 * LONG_HISTORY ? 2 * LONG_HISTORY : 4 + ev_rng_below(&r, 20);
    memset(taken, 0, n_items);
    while (n > 0) {
      size_t i = ev_rng_below(&r, (uint32_t)n_items);
      if (taken[i] || (i % 5 != u % 5 && ev_rng_below(&r, 4) > 0)) continue;
      taken[i] = 1;
      ev_buf_printf(&inter, "u%zu,i%zu\n", u, i);
      n--;
    }
  }
  ev_buf_printf(&items, "item_id:token\tgenre:token_seq\tbrand:token\n");
  for (size_t i = 0; i < n_items + COLD_ITEMS; i++) { /* one genre stands twice, one is everywhere; every ninth has no brand */
    ev_buf_printf(&items, "i%zu\tg%zu h%zu g%zu all\t", i, i % 5, i % 7, i % 5);
    if (i % 9 != 0) ev_buf_printf(&items, "b%zu", i % 13);
    ev_buf_printf(&items, "\n");
  }
  ev_buf_printf(&users, "user_id:token\n");
  for (size_t u = 0; u < n_users + STRANGERS; u++) ev_buf_printf(&users, "u%zu\n", u);
  import_world(&w->s, EV_SPLIT_RATIO, &inter, &users, &items);
  assert_int_equal(ev_view_new(&w->v, w->s, EV_TRAIN), EV_OK);
  w->n_users = ev_snapshot_n_users(w->s);
  w->n_items = ev_snapshot_n_items(w->s);
  assert_int_equal(w->n_users, n_users + STRANGERS);
  assert_true(w->n_items == n_items + COLD_ITEMS);
  w->number = ev_alloc(w->n_items, sizeof *w->number);
  for (size_t i = 0; i < w->n_items; i++) {
    size_t len;
    w->number[i] = strtoull(ev_snapshot_item_id(w->s, (uint32_t)i, &len) + 1, NULL, 10);
  }
  ev_free(taken);
}

static void close_world(world *w) {
  ev_view_free(w->v);
  ev_snapshot_close(w->s);
  ev_free(w->number);
}

static double degree(const ev_csr *m, size_t row) { return (double)(m->ptr[row + 1] - m->ptr[row]); }
__attribute__((unused)) static double *square(size_t n) { return ev_zalloc(n, n * sizeof(double)); }
static ev_requests everybody(const world *w) {
  return (ev_requests){w->n_users, NULL, w->v->by_user.ptr, w->v->by_user.idx, w->v->by_user.ptr, w->v->seen};
}

/* score(u, j) = Σ_{i in history} decay(steps back) w(i, j) */
__attribute__((unused)) static double *spread(const world *w, const double *weights, double half_life) {
  double *out = ev_zalloc(w->n_users, w->n_items * sizeof *out);
  const ev_csr *m = &w->v->by_user;
  for (size_t u = 0; u < w->n_users; u++)
    for (uint64_t e = m->ptr[u]; e < m->ptr[u + 1]; e++) {
      double decay = half_life > 0 ? pow(2, -(double)(m->ptr[u + 1] - 1 - e) / half_life) : 1;
      for (size_t j = 0; j < w->n_items; j++) out[u * w->n_items + j] += decay * weights[m->idx[e] * w->n_items + j];
    }
  return out;
}

static int descending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

/* Every list holds the best of what the user has not seen, with the reference's scores; one request alone, and the scores of
 * given items, agree with it. sparse: an item of score 0 is not known to the model. */
__attribute__((unused)) static void check_model(const world *w, const char *path, const double *reference, bool sparse) {
  enum { K = 25 };
  size_t n = w->n_items;
  ev_model *m;
  assert_int_equal(ev_model_open(&m, path), EV_OK);
  assert_int_equal(ev_model_n_items(m), n);
  ev_requests all = everybody(w);
  uint32_t *ids = ev_alloc(w->n_users, K * sizeof *ids), *every = ev_alloc(n, sizeof *every), mine[K];
  float *scores = ev_alloc(w->n_users, K * sizeof *scores), *given = ev_alloc(n, sizeof *given), my_scores[K];
  double *best = ev_alloc(n, sizeof *best);
  for (size_t i = 0; i < n; i++) every[i] = (uint32_t)i;
  assert_int_equal(ev_model_recall(m, &all, K, ids, scores), EV_OK);
  for (size_t u = 0; u < w->n_users; u++) {
    const double *row = reference + u * n;
    double scale = 0;
    ev_requests one = {1, NULL, all.history_ptr + u, all.history, all.seen_ptr + u, all.seen};
    size_t open = 0;
    memcpy(best, row, n * sizeof *best);
    for (uint64_t e = all.seen_ptr[u]; e < all.seen_ptr[u + 1]; e++) best[all.seen[e]] = -INFINITY;
    if (degree(&w->v->by_user, u) == 0) /* nothing is known of a stranger */
      for (size_t i = 0; i < n; i++) best[i] = -INFINITY;
    for (size_t i = 0; i < n; i++) {
      if (sparse && best[i] <= 1e-12) best[i] = -INFINITY;
      open += best[i] > -INFINITY;
      scale = fmax(scale, fabs(row[i]));
    }
    double tolerance = 2e-5 * scale;
    assert_int_equal(ev_model_recall(m, &one, K, mine, my_scores), EV_OK);
    assert_int_equal(ev_model_score(m, &one, every, n, given), EV_OK);
    for (size_t i = 0; i < n; i++)
      if (!(fabs(given[i] - row[i]) <= tolerance)) fail_msg("user %zu: item %zu scores %g, %g expected", u, i, (double)given[i], row[i]);
    for (size_t k = 0; k < K && k < open; k++) { /* what is listed may be listed, and has its score */
      uint32_t i = ids[u * K + k], j = mine[k];
      if (i >= n || j >= n || !(best[i] > -INFINITY) || !(best[j] > -INFINITY)) fail_msg("user %zu: place %zu has %u, %u alone", u, k, i, j);
      assert_true(fabs(scores[u * K + k] - row[i]) <= tolerance && fabs(my_scores[k] - row[j]) <= tolerance);
      for (size_t other = 0; other < k; other++) assert_true(ids[u * K + other] != i && mine[other] != j);
    }
    qsort(best, n, sizeof *best, descending);
    for (size_t k = 0; k < K; k++) { /* and is as good as its place */
      uint32_t i = ids[u * K + k], j = mine[k];
      if (k < open) assert_true(fabs(row[i] - best[k]) <= 2 * tolerance && fabs(row[j] - best[k]) <= 2 * tolerance);
      else assert_true(i == EV_NONE && j == EV_NONE && scores[u * K + k] == -INFINITY && my_scores[k] == -INFINITY);
    }
  }
  ev_model_close(m);
  void *blocks[] = {ids, every, scores, given, best};
  for (int i = 0; i < 5; i++) ev_free(blocks[i]);
}

#endif
