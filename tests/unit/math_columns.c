/* math_columns.c - softmax, log-sum-exp and weighted sums against doubles, on every instruction set. */
#include <math.h>

#include "math/math.h"
#include "support.h"

static const char *const sets[] = {"scalar", "avx2", "avx512", "avx512vnni", "neon"};
#define N_SETS (sizeof sets / sizeof *sets)
#define MOST 1300

static void fill(float *x, size_t n, float scale, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  for (size_t i = 0; i < n; i++) x[i] = scale * (float)ev_rng_normal(&r);
}

static double log_sum(const float *x, double temperature, size_t n) {
  double most = -INFINITY, sum = 0;
  for (size_t i = 0; i < n; i++) most = fmax(most, x[i]);
  for (size_t i = 0; i < n; i++) sum += exp((x[i] - most) / temperature);
  return most / temperature + log(sum);
}

static void softmax_is_that_of_doubles(void **s) {
  (void)s;
  static float x[MOST + 3], out[MOST + 4];
  static const float scales[] = {0, 0.01f, 1, 30, 1000}, temperatures[] = {1, 0.1f, 7, 1e-30f};
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t n = 0; n <= MOST; n += n < 300 ? 1 : 97) {
      float *v = x + n % 3, t = temperatures[n % 4];
      fill(v, n, scales[n % 5], n);
      if (n > 5) v[n / 2] = -INFINITY;
      out[n] = 77;
      ev_softmax(out, v, t, n);
      assert_true(out[n] == 77);
      double most = -INFINITY, sum = 0, all = 0;
      for (size_t i = 0; i < n; i++) most = fmax(most, v[i]);
      for (size_t i = 0; i < n; i++) sum += exp((v[i] - most) / t);
      for (size_t i = 0; i < n; i++) {
        double p = exp((v[i] - most) / t) / sum;
        all += out[i];
        if (fabs(out[i] - p) > 1e-5 * p + 1e-44) fail_msg("%s n %zu: %g, not %g", sets[set], n, out[i], p);
      }
      if (n > 0) assert_true(fabs(all - 1) < 1e-5);
      if (n > 5) assert_true(out[n / 2] == 0);
      float expected[MOST];
      memcpy(expected, out, n * sizeof *out);
      ev_softmax(v, v, t, n); /* in place */
      assert_memory_equal(expected, v, n * sizeof *v);
    }
  }
}

static void what_is_no_number_spoils_all(void **s) {
  (void)s;
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t n = 1; n < 70; n++) {
      for (size_t at = 0; at < n; at++) {
        float x[70], out[70];
        fill(x, n, 1, n);
        x[at] = NAN;
        ev_softmax(out, x, 1, n);
        for (size_t i = 0; i < n; i++) assert_true(isnan(out[i]));
        assert_true(isnan(ev_logsumexp(x, n)));
        x[at] = INFINITY;
        ev_softmax(out, x, 1, n);
        for (size_t i = 0; i < n; i++) assert_true(isnan(out[i]));
        assert_true(ev_logsumexp(x, n) == INFINITY);
        x[n - 1 - at] = NAN;
        assert_true(isnan(ev_logsumexp(x, n)));
        for (size_t i = 0; i < n; i++) x[i] = -INFINITY;
        assert_true(ev_logsumexp(x, n) == -INFINITY);
        ev_softmax(out, x, 1, n);
        for (size_t i = 0; i < n; i++) assert_true(isnan(out[i]));
        x[at] = NAN;
        assert_true(isnan(ev_logsumexp(x, n)));
        x[at] = -3.5f;
        assert_true(ev_logsumexp(x, n) == -3.5f);
      }
    }
    assert_true(ev_logsumexp(NULL, 0) == -INFINITY);
  }
}

static void logsumexp_is_that_of_doubles(void **s) {
  (void)s;
  enum { N = 1000000 };
  float *x = ev_alloc(N, sizeof *x);
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t n = 1; n <= 3000; n += n < 300 ? 1 : 311) {
      fill(x, n, n % 2 ? 1 : 1000, n);
      double expected = log_sum(x, 1, n);
      assert_true(fabs(ev_logsumexp(x, n) - expected) <= 1e-6 * (1 + fabs(expected)));
    }
    for (size_t i = 0; i < N; i++) x[i] = 1; /* a million alike: nothing is lost in the sum */
    assert_true(fabs(ev_logsumexp(x, N) - (1 + log(N))) < 2e-6);
    ev_softmax(x, x, 1, N);
    assert_true(fabs(x[N - 1] * 1e6 - 1) < 1e-6);
  }
  ev_free(x);
}

static void weighted_sums_are_those_of_doubles(void **s) {
  (void)s;
  enum { N = 2100 };
  static float columns[5][N + 1], out[N + 1], expected[N];
  const float *pointers[5], weights[] = {0.5f, -2, 3, 1e-3f, 0};
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t n = 0; n <= N; n += n < 100 ? 1 : 500) {
      for (size_t c = 0; c <= 5; c++) {
        for (size_t j = 0; j < c; j++) fill(columns[j], n, 1, 10 * n + j), pointers[j] = columns[j];
        out[n] = 77;
        ev_weighted_sum(out, pointers, weights, c, n);
        assert_true(out[n] == 77);
        for (size_t i = 0; i < n; i++) {
          double sum = 0;
          for (size_t j = 0; j < c; j++) sum += (double)weights[j] * columns[j][i];
          assert_true(fabs(out[i] - sum) <= 1e-6 * (1 + fabs(sum)));
        }
        if (c < 3) continue;
        memcpy(expected, out, n * sizeof *out);
        ev_weighted_sum(columns[2], pointers, weights, c, n); /* into one of them */
        assert_memory_equal(columns[2], expected, n * sizeof *out);
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(softmax_is_that_of_doubles), cmocka_unit_test(what_is_no_number_spoils_all), cmocka_unit_test(logsumexp_is_that_of_doubles),
      cmocka_unit_test(weighted_sums_are_those_of_doubles),
  };
  return RUN(tests);
}
