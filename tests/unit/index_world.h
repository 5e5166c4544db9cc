/* index_world.h - what the tests of the index share: a world of vectors, and what is true of it, worked out in double precision. */
#ifndef TESTS_INDEX_WORLD_H
#define TESTS_INDEX_WORLD_H

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "store/index.h"
#include "support.h"

static const char *const kinds[] = {"flat", "hnsw", "ivf"};
static const char *const metrics[] = {"dot", "cosine", "l2"};
__attribute__((unused)) static const char *const forms[] = {"f32", "f16", "bf16", "i8"};
#define N_OF(array) (sizeof(array) / sizeof *(array))

__attribute__((unused)) static bool slow(void) { return getenv("EVECTION_SLOW") != NULL; } /* under valgrind: a part of each test will do */
__attribute__((unused)) static uint32_t rows_for(size_t kind, uint32_t n) { return slow() && kind == 1 ? n / 8 : n; } /* a graph takes long there */

enum { DIMS = 24, ROWS = 6000, CLUSTERS = 60 };

__attribute__((unused)) static void make_vectors(float *out, size_t n, uint64_t seed) { /* clustered, of different lengths */
  ev_rng centre, r;
  ev_rng_seed(&r, seed, 1);
  for (size_t i = 0; i < n; i++) {
    ev_rng_seed(&centre, 77, ev_rng_below(&r, CLUSTERS));
    double length = 0.5 + ev_rng_f64(&r);
    for (size_t k = 0; k < DIMS; k++) out[i * DIMS + k] = (float)(length * (ev_rng_normal(&centre) + 0.5 * ev_rng_normal(&r)));
  }
}

__attribute__((unused)) static float *vectors_of(size_t n, uint64_t seed) {
  float *v = malloc(n * DIMS * sizeof *v);
  make_vectors(v, n, seed);
  return v;
}

__attribute__((unused)) static double truth(const char *metric, const float *q, const float *v) {
  double dot = 0, qq = 0, vv = 0, between = 0;
  for (size_t i = 0; i < DIMS; i++) {
    dot += (double)q[i] * v[i];
    qq += (double)q[i] * q[i];
    vv += (double)v[i] * v[i];
    between += ((double)q[i] - v[i]) * ((double)q[i] - v[i]);
  }
  if (strcmp(metric, "dot") == 0) return dot;
  if (strcmp(metric, "l2") == 0) return -between;
  return qq > 0 && vv > 0 ? dot / sqrt(qq * vv) : 0;
}

typedef bool may_fn(const void *ctx, uint32_t row);

typedef struct scored {
  double score;
  uint32_t row;
} scored;

static int by_score(const void *a, const void *b) {
  const scored *x = a, *y = b;
  return x->score > y->score ? -1 : x->score < y->score ? 1 : x->row < y->row ? -1 : x->row > y->row;
}

/* All rows that may be found, best first; how many. */
__attribute__((unused)) static size_t exact(scored *out, const char *metric, const float *q, const float *vectors, const bool *there, size_t n, may_fn *may, const void *ctx) {
  size_t used = 0;
  for (uint32_t i = 0; i < n; i++)
    if (there[i] && (may == NULL || may(ctx, i))) out[used++] = (scored){truth(metric, q, vectors + i * DIMS), i};
  qsort(out, used, sizeof *out, by_score);
  return used;
}

__attribute__((unused)) static ev_index *new_index(const char *kind, const char *metric, const char *form, bool rescore) {
  ev_index_options o;
  ev_index *x;
  ev_index_defaults(&o);
  o.kind = kind;
  o.metric = metric;
  o.form = form;
  o.rescore = rescore;
  o.n_dims = DIMS;
  o.max_rows = 1 << 16;
  o.n_links = 12;
  o.effort_build = 60; /* enough for so few rows */
  o.seed = 5;
  if (ev_index_new(&x, &o) != EV_OK) fail_msg("%s %s %s: %s", kind, metric, form, ev_error());
  return x;
}

__attribute__((unused)) static void put_range(ev_index *x, const float *vectors, uint32_t from, uint32_t to) {
  uint32_t *rows = malloc((to - from + 1) * sizeof *rows);
  for (uint32_t i = from; i < to; i++) rows[i - from] = i;
  if (ev_index_put(x, rows, vectors + (size_t)from * DIMS, to - from) != EV_OK) fail_msg("put: %s", ev_error());
  free(rows);
}

/* Checks an answer in every respect but how good it is; gives the share of the true best that it has. Rows whose true score
 * ties with the k-th within rounding count as right. */
__attribute__((unused)) static double check_answer(const char *what, const scored *best, size_t n_best, const uint32_t *rows, const float *scores, size_t k, double tolerance) {
  size_t expected = n_best < k ? n_best : k, hits = 0;
  double span = fabs(best[0].score) + fabs(best[n_best > 0 ? n_best - 1 : 0].score) + 3; /* and what cancels out in a small score */
  for (size_t i = 0; i < k; i++) {
    if (i >= expected) {
      if (rows[i] != EV_NONE || scores[i] != -INFINITY) fail_msg("%s: place %zu of %zu is not empty", what, i, expected);
      continue;
    }
    if (rows[i] == EV_NONE) fail_msg("%s: only %zu of %zu", what, i, expected);
    if (i > 0 && (scores[i] > scores[i - 1] || (scores[i] == scores[i - 1] && rows[i] <= rows[i - 1]))) fail_msg("%s: out of order at %zu", what, i);
    size_t at = 0;
    while (at < n_best && best[at].row != rows[i]) at++;
    if (at == n_best) fail_msg("%s: row %u may not be found", what, rows[i]);
    if (fabs(best[at].score - (double)scores[i]) > tolerance * span) fail_msg("%s: row %u scores %g, not %g", what, rows[i], (double)scores[i], best[at].score);
    for (size_t j = 0; j < i; j++)
      if (rows[j] == rows[i]) fail_msg("%s: row %u twice", what, rows[i]);
    hits += best[at].score >= best[expected - 1].score - 1e-6 * span;
  }
  return expected == 0 ? 1 : (double)hits / (double)expected;
}
__attribute__((unused)) static ev_status write_index(const ev_index *x, const char *path, const uint32_t *keep, size_t n_keep) {
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "index"));
  ev_status status = ev_index_write(x, w, keep, n_keep);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

__attribute__((unused)) static ev_status map_index(ev_index **out, ev_pack **p, const char *path) {
  EV_TRY(ev_pack_map(p, path));
  ev_status status = ev_index_map(out, *p, 1 << 16);
  if (status != EV_OK) ev_pack_close(*p);
  return status;
}

#endif
