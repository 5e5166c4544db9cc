/* reward_bootstrap.c - comparisons: even p where nothing differs, a planted difference found; quantiles as NumPy's. */
#include <math.h>

#include "reward/bootstrap.h"
#include "reward/reward.h"
#include "support.h"

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Scores of two systems that differ by noise of deviation 1 and by `shift`. */
static void draw_pair(float *a, float *b, size_t n, double shift, ev_rng *r) {
  for (size_t i = 0; i < n; i++) {
    a[i] = (float)(3 * ev_rng_normal(r)); /* what they share cancels */
    b[i] = a[i] + (float)(shift + ev_rng_normal(r));
  }
}

static void quantiles_lie_between_neighbours(void **s) {
  (void)s;
  double x[] = {30, 10, 20, 50, 40}, one[] = {7}, y[1000]; /* numpy.quantile([10, 20, 30, 40, 50], q) */
  assert_true(ev_quantile(x, 5, 0) == 10 && ev_quantile(x, 5, 1) == 50 && ev_quantile(x, 5, 0.5) == 30);
  assert_true(fabs(ev_quantile(x, 5, 0.1) - 14) < 1e-12 && fabs(ev_quantile(x, 5, 0.975) - 49) < 1e-12);
  assert_true(ev_quantile(one, 1, 0.025) == 7);
  ev_rng r;
  ev_rng_seed(&r, 1, 1);
  for (int i = 0; i < 1000; i++) y[i] = ev_rng_f64(&r);
  for (double q = 0.01; q < 1; q += 0.01) { /* at most that share lies below */
    double at = ev_quantile(y, 1000, q);
    int below = 0;
    for (int i = 0; i < 1000; i++) below += y[i] < at;
    assert_true(fabs(below - q * 999) <= 1);
  }
}

static void a_resample_draws_every_row_alike(void **s) {
  (void)s;
  enum { N = 50, DRAWS = 4000 };
  uint32_t drawn[N], again[N];
  double count[N] = {0}, chi = 0, means[3], expected = 0;
  float rows[N];
  for (unsigned b = 0; b < DRAWS; b++) {
    ev_bootstrap_draw(drawn, N, b, 5);
    for (int i = 0; i < N; i++) count[drawn[i]]++;
  }
  for (int i = 0; i < N; i++) chi += (count[i] - DRAWS) * (count[i] - DRAWS) / DRAWS;
  assert_true(chi > 23.98 && chi < 85.35); /* 0.1 % and 99.9 % points of chi square with 49 degrees of freedom */
  ev_bootstrap_draw(again, N, DRAWS - 1, 5);
  assert_memory_equal(again, drawn, sizeof drawn);
  for (int i = 0; i < N; i++) rows[i] = (float)(i * i);
  assert_int_equal(ev_bootstrap_means(means, rows, N, 1, 3, 5), EV_OK); /* the means are of those draws */
  ev_bootstrap_draw(drawn, N, 2, 5);
  for (int i = 0; i < N; i++) expected += (double)rows[drawn[i]] / N;
  assert_true(fabs(means[2] - expected) < 1e-9);
  assert_int_equal(ev_bootstrap_means(means, rows, 0, 1, 3, 5), EV_EINVAL);
}

static void p_values_are_even_where_nothing_differs(void **s) {
  (void)s;
  enum { USERS = 150, PAIRS = 500, RESAMPLES = 400 };
  float a[USERS], b[USERS];
  double p[PAIRS], distance = 0;
  ev_rng r;
  ev_rng_seed(&r, 12, 0);
  for (int i = 0; i < PAIRS; i++) {
    ev_difference d;
    draw_pair(a, b, USERS, 0, &r);
    assert_int_equal(ev_paired_bootstrap(&d, a, b, USERS, RESAMPLES, 0.95, (uint64_t)i), EV_OK);
    assert_true(d.p > 0 && d.p <= 1);
    p[i] = d.p;
  }
  qsort(p, PAIRS, sizeof *p, ascending);
  for (int i = 0; i < PAIRS; i++) distance = fmax(distance, fmax(fabs((i + 1.0) / PAIRS - p[i]), fabs((double)i / PAIRS - p[i])));
  double bound = 1.95 / sqrt(PAIRS) + 2.0 / RESAMPLES; /* Kolmogorov's 0.1 % point, and the steps of p */
  if (!(distance < bound)) fail_msg("Kolmogorov distance %g, at most %g", distance, bound);
}

static void a_planted_difference_is_found_and_measured(void **s) {
  (void)s;
  enum { USERS = 400 };
  float a[USERS], b[USERS];
  ev_rng r;
  ev_rng_seed(&r, 13, 0);
  for (uint64_t i = 0; i < 20; i++) {
    ev_difference d, mirrored, again, none;
    draw_pair(a, b, USERS, 0.3, &r);
    double sum = 0, squares = 0;
    for (int u = 0; u < USERS; u++) sum += (double)b[u] - a[u], squares += ((double)b[u] - a[u]) * ((double)b[u] - a[u]);
    double mean = sum / USERS, error = sqrt((squares / USERS - mean * mean) / USERS);
    assert_int_equal(ev_paired_bootstrap(&d, a, b, USERS, 2000, 0.95, i), EV_OK);
    assert_true(fabs(d.value - mean) < 1e-5 && d.p < 0.01);
    assert_true(fabs(d.low - (mean - 1.96 * error)) < 0.2 * error && fabs(d.high - (mean + 1.96 * error)) < 0.2 * error);
    assert_int_equal(ev_paired_bootstrap(&mirrored, b, a, USERS, 2000, 0.95, i), EV_OK);
    assert_true(fabs(mirrored.value + d.value) < 1e-9 && fabs(mirrored.low + d.high) < 1e-9 && fabs(mirrored.high + d.low) < 1e-9 && mirrored.p == d.p);
    ev_threads_set(1 + (int)(i % 4));
    assert_int_equal(ev_paired_bootstrap(&again, a, b, USERS, 2000, 0.95, i), EV_OK);
    assert_memory_equal(&again, &d, sizeof d);
    ev_threads_set(0);
    assert_int_equal(ev_paired_bootstrap(&none, a, a, USERS, 100, 0.95, i), EV_OK);
    assert_true(none.value == 0 && none.low == 0 && none.high == 0 && none.p == 1);
  }
  ev_difference d;
  for (int u = 0; u < USERS; u++) b[u] = a[u] + 1; /* beyond doubt: the least p there is */
  assert_int_equal(ev_paired_bootstrap(&d, a, b, USERS, 99, 0.95, 1), EV_OK);
  assert_true(fabs(d.p - 0.01) < 1e-12 && fabs(d.low - 1) < 1e-5 && fabs(d.high - 1) < 1e-5);
  assert_int_equal(ev_paired_bootstrap(&d, a, b, 0, 99, 0.95, 1), EV_EINVAL);
  assert_int_equal(ev_paired_bootstrap(&d, a, b, USERS, 0, 0.95, 1), EV_EINVAL);
  ASSERT_SURVIVES_FAULTS(ev_paired_bootstrap(&d, a, b, USERS, 10, 0.95, 1), );
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(quantiles_lie_between_neighbours), cmocka_unit_test(a_resample_draws_every_row_alike),
      cmocka_unit_test(p_values_are_even_where_nothing_differs), cmocka_unit_test(a_planted_difference_is_found_and_measured),
  };
  return RUN(tests);
}
