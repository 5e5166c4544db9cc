/* math_kernels.c - every instruction set against the scalar reference; top-k against a sort; the half-stored inverse. */
#include <math.h>

#include "math/math.h"
#include "support.h"

static const char *const sets[] = {"scalar", "avx2", "avx512", "neon"};
#define N_SETS 4

static void fill(float *x, size_t n, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  for (size_t i = 0; i < n; i++) x[i] = (float)ev_rng_normal(&r);
}

static void every_path_agrees_with_doubles(void **s) {
  (void)s;
  enum { MOST = 300 };
  float a[MOST + 3], b[MOST + 3], out[MOST + 3];
  fill(a, MOST + 3, 1);
  fill(b, MOST + 3, 2);
  for (int set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t n = 0; n <= MOST; n++) {
      for (size_t shift = 0; shift < 3; shift++) { /* misaligned starts */
        const float *x = a + shift, *y = b + (2 - shift);
        double dot = 0, sum = 0, size = 0;
        for (size_t i = 0; i < n; i++) dot += (double)x[i] * y[i], sum += x[i], size += fabs((double)x[i] * y[i]) + fabs(x[i]);
        assert_true(fabs(ev_dot(x, y, n) - dot) <= 1e-5 * size + 1e-6);
        assert_true(fabs(ev_sum(x, n) - sum) <= 1e-5 * size + 1e-6);
        memcpy(out, y, n * sizeof *out);
        out[n] = 77;
        ev_axpy(out, x, 0.5f, n);
        for (size_t i = 0; i < n; i++) assert_true(fabsf(out[i] - (y[i] + 0.5f * x[i])) <= 1e-6f * (1 + fabsf(y[i])));
        ev_scale(out, -2, n);
        for (size_t i = 0; i < n; i++) assert_true(fabsf(out[i] + 2 * (y[i] + 0.5f * x[i])) <= 1e-5f * (1 + fabsf(y[i])));
        assert_true(out[n] == 77); /* nothing behind the end is touched */
      }
    }
    float odd[5] = {NAN, 1, INFINITY, -3, 1e-42f}, lo, hi;
    ev_minmax(&lo, &hi, odd, 5);
    assert_true(lo == -3 && hi == INFINITY);
    assert_true(isnan(ev_sum(odd, 5)) && isnan(ev_dot(odd, odd, 5)));
    assert_true(ev_dot(odd + 4, odd + 1, 1) == 1e-42f); /* denormals are not flushed */
  }
  assert_int_equal(ev_simd_force("abacus"), EV_EINVAL);
}

typedef struct scored {
  float score;
  uint32_t id;
} scored;

static int best_first(const void *a, const void *b) {
  const scored *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return x->id < y->id ? -1 : 1;
}

static void check_topk(const float *x, size_t n, size_t k) {
  scored *all = ev_alloc(n, sizeof *all);
  uint32_t *ids = ev_alloc(k, sizeof *ids);
  float *scores = ev_alloc(k, sizeof *scores);
  size_t m = 0;
  for (size_t i = 0; i < n; i++)
    if (x[i] > -INFINITY) all[m++] = (scored){x[i], (uint32_t)i};
  qsort(all, m, sizeof *all, best_first);
  size_t found = ev_topk(ids, scores, x, n, k);
  assert_int_equal(found, m < k ? m : k);
  for (size_t i = 0; i < k; i++) {
    assert_int_equal(ids[i], i < found ? all[i].id : EV_NONE);
    assert_true(scores[i] == (i < found ? all[i].score : -INFINITY));
  }
  ev_free(all);
  ev_free(ids);
  ev_free(scores);
}

static void the_k_best_are_those_of_a_sort(void **s) {
  (void)s;
  enum { MOST = 3000 };
  static float x[MOST];
  ev_rng r;
  ev_rng_seed(&r, 11, 0);
  for (int set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (int round = 0; round < 200; round++) {
      size_t n = ev_rng_below(&r, MOST), k = ev_rng_below(&r, 120);
      for (size_t i = 0; i < n; i++) { /* few values: many ties; and what must never be chosen */
        uint32_t kind = ev_rng_below(&r, 20);
        x[i] = kind == 0 ? NAN : kind == 1 ? -INFINITY : kind == 2 ? INFINITY : (float)ev_rng_below(&r, 40);
      }
      check_topk(x, n, k);
    }
  }
}

static void fused_scores_are_those_of_brute_force(void **s) {
  (void)s;
  enum { M = 131, N = 2500, D = 17, K = 23 };
  float *q = ev_alloc(M, D * sizeof(float)), *x = ev_alloc(N, D * sizeof(float)), *scores = ev_alloc(M, K * sizeof(float)), *row = ev_alloc(N, sizeof(float));
  uint32_t *ids = ev_alloc(M, K * sizeof(uint32_t)), *seen = ev_alloc(M, 10 * sizeof(uint32_t)), *again = ev_alloc(M, K * sizeof(uint32_t));
  uint64_t ptr[M + 1];
  fill(q, M * D, 5);
  fill(x, N * D, 6);
  for (size_t i = 0; i <= M; i++) ptr[i] = 10 * i;
  for (size_t i = 0; i < M * 10; i++) seen[i] = (uint32_t)((i % 10) * 249 + i / 10 % 7);
  for (int threads = 1; threads <= 4; threads++) {
    ev_threads_set(threads);
    assert_int_equal(ev_score_topk(threads == 1 ? ids : again, scores, q, x, ptr, seen, M, N, D, K), EV_OK);
    if (threads > 1) assert_memory_equal(ids, again, M * K * sizeof *ids);
  }
  ev_threads_set(0);
  for (size_t i = 0; i < M; i++) {
    for (size_t j = 0; j < N; j++) {
      double sum = 0;
      for (size_t d = 0; d < D; d++) sum += (double)q[i * D + d] * x[j * D + d];
      row[j] = (float)sum;
    }
    for (int k = 0; k < 10; k++) row[seen[i * 10 + (size_t)k]] = -INFINITY;
    for (size_t k = 0; k < K; k++) { /* rounding may swap near equals: each must be as good as its place */
      assert_true(row[ids[i * K + k]] > -INFINITY);
      size_t better = 0;
      for (size_t j = 0; j < N; j++) better += row[j] > row[ids[i * K + k]] + 1e-4f;
      assert_true(better <= k);
    }
  }
  void *blocks[] = {q, x, scores, row, ids, seen, again};
  for (int i = 0; i < 7; i++) ev_free(blocks[i]);
}

static void the_inverse_times_the_matrix_is_one(void **s) {
  (void)s;
  static const size_t sizes[] = {1, 7, EV_SYM_TILE, EV_SYM_TILE + 1, 2 * EV_SYM_TILE + 77};
  for (size_t t = 0; t < sizeof sizes / sizeof *sizes; t++) {
    size_t n = sizes[t], m = n + 20;
    float *x = ev_alloc(m, n * sizeof *x), *g = ev_zalloc(n, n * sizeof *g), *a = ev_zalloc(ev_sym_size(n), sizeof *a), *b = ev_alloc(ev_sym_size(n), sizeof *b), *row = ev_alloc(n, sizeof *row);
    fill(x, m * n, 8);
    ev_syrk_tn(g, x, 0, n, m);
    for (size_t i = 0; i < n; i++) g[i * n + i] += (float)n;
    for (size_t i = 0; i < n; i++)
      for (size_t j = 0; j <= i; j++) a[ev_sym_at(i, j)] = g[i * n + j];
    memcpy(b, a, ev_sym_size(n) * sizeof *a);
    ev_threads_set(1);
    assert_int_equal(ev_sym_inverse(a, n), EV_OK);
    ev_threads_set(3);
    assert_int_equal(ev_sym_inverse(b, n), EV_OK);
    ev_threads_set(0);
    assert_memory_equal(a, b, ev_sym_size(n) * sizeof *a); /* the same bits for any number of threads */
    double worst = 0;
    for (size_t i = 0; i < n; i++) { /* row i of the inverse, taken as scoring takes it, times G */
      memset(row, 0, n * sizeof *row);
      ev_sym_add_row(row, a, 1, i, 0, n);
      for (size_t j = 0; j < n; j += 1 + n / 40) {
        double sum = 0;
        for (size_t k = 0; k < n; k++) sum += (double)row[k] * g[k * n + j];
        worst = fmax(worst, fabs(sum - (i == j)));
      }
    }
    if (worst > 2e-4) fail_msg("n = %zu: off by %g", n, worst);
    void *blocks[] = {x, g, a, b, row};
    for (int i = 0; i < 5; i++) ev_free(blocks[i]);
  }
  float bad[1] = {-1};
  float *one = ev_zalloc(ev_sym_size(1), sizeof *one);
  one[0] = bad[0];
  assert_int_equal(ev_sym_inverse(one, 1), EV_EINVAL);
  ev_free(one);
}

static void small_systems_are_solved(void **s) {
  (void)s;
  float a[4] = {4, 1, 1, 3}, b[4] = {1, 2, 0, 1};
  assert_int_equal(ev_spd_solve(a, b, 2, 2), EV_OK);
  assert_true(fabsf(b[0] - 1.0f / 11) < 1e-6f && fabsf(b[1] - 7.0f / 11) < 1e-6f && fabsf(b[2] + 1.0f / 11) < 1e-6f && fabsf(b[3] - 4.0f / 11) < 1e-6f);
  float c[4] = {1, 2, 2, 1}, d[2] = {1, 1};
  assert_int_equal(ev_spd_solve(c, d, 2, 1), EV_EINVAL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_path_agrees_with_doubles), cmocka_unit_test(the_k_best_are_those_of_a_sort),
      cmocka_unit_test(fused_scores_are_those_of_brute_force), cmocka_unit_test(the_inverse_times_the_matrix_is_one), cmocka_unit_test(small_systems_are_solved),
  };
  return RUN(tests);
}
