/* reward_pareto.c - fronts as peeling gives them; volumes as inclusion and exclusion, and counting random points, give them. */
#include <math.h>

#include "reward/reward.h"
#include "support.h"

static bool dominates(const double *a, const double *b, size_t d) {
  bool more = false;
  for (size_t i = 0; i < d; i++) {
    if (a[i] < b[i]) return false;
    if (a[i] > b[i]) more = true;
  }
  return more;
}

/* Coarse values: many equal coordinates and equal points. */
static void draw(double *p, size_t n, size_t d, unsigned steps, ev_rng *r) {
  for (size_t i = 0; i < n * d; i++) p[i] = steps > 0 ? (double)ev_rng_below(r, steps) / steps : ev_rng_f64(r);
}

static void ranks_are_those_of_peeling_front_after_front(void **s) {
  (void)s;
  enum { N = 120, D = 5 };
  double p[N * D];
  uint32_t rank[N], peeled[N];
  ev_rng r;
  for (uint64_t seed = 0; seed < 60; seed++) {
    ev_rng_seed(&r, seed, 1);
    size_t d = 1 + ev_rng_below(&r, D), n = 1 + ev_rng_below(&r, N), left = n;
    draw(p, n, d, seed % 2 == 0 ? 4 : 0, &r);
    for (size_t i = 0; i < n; i++) peeled[i] = EV_NONE;
    for (uint32_t front = 0; left > 0; front++) {
      bool free_[N];
      for (size_t i = 0; i < n; i++) {
        free_[i] = peeled[i] == EV_NONE;
        for (size_t j = 0; j < n && free_[i]; j++) free_[i] = !(peeled[j] == EV_NONE && dominates(p + j * d, p + i * d, d));
      }
      for (size_t i = 0; i < n; i++)
        if (free_[i]) peeled[i] = front, left--;
    }
    assert_int_equal(ev_pareto_ranks(rank, p, n, d), EV_OK);
    for (size_t i = 0; i < n; i++)
      if (rank[i] != peeled[i]) fail_msg("seed %d: point %d of %d in %d objectives: rank %u, %u by peeling", (int)seed, (int)i, (int)n, (int)d, rank[i], peeled[i]);
  }
}

/* Σ over non-empty sets of (−1)^(size + 1) · the box below their least coordinates */
static double by_inclusion(const double *p, size_t n, size_t d, const double *reference) {
  double sum = 0;
  for (uint32_t set = 1; set < 1u << n; set++) {
    double box = 1;
    int sign = -1;
    for (size_t k = 0; k < d; k++) {
      double least = INFINITY;
      for (size_t i = 0; i < n; i++)
        if (set >> i & 1) least = fmin(least, p[i * d + k]);
      box *= fmax(0, least - reference[k]);
    }
    for (size_t i = 0; i < n; i++)
      if (set >> i & 1) sign = -sign;
    sum += sign * box;
  }
  return sum;
}

static void a_volume_is_that_of_inclusion_and_exclusion(void **s) {
  (void)s;
  enum { N = 11, D = 7 };
  double p[N * D], reference[D], got;
  ev_rng r;
  for (uint64_t seed = 0; seed < 200; seed++) {
    ev_rng_seed(&r, seed, 2);
    size_t d = 1 + ev_rng_below(&r, D), n = ev_rng_below(&r, N + 1);
    draw(p, n, d, seed % 3 == 0 ? 5 : 0, &r);
    for (size_t k = 0; k < d; k++) reference[k] = 0.4 * ev_rng_f64(&r) - 0.1; /* some points are not above it */
    double expected = by_inclusion(p, n, d, reference);
    assert_int_equal(ev_hypervolume(&got, p, n, d, reference), EV_OK);
    if (fabs(got - expected) > 1e-12) fail_msg("seed %d: %d points, %d objectives: %.17g, not %.17g", (int)seed, (int)n, (int)d, got, expected);
  }
}

static void a_larger_volume_is_the_share_of_random_points_below_it(void **s) {
  (void)s;
  enum { N = 60, DRAWS = 200000 };
  double p[N * 5], zero[5] = {0}, got, at[5];
  ev_rng r;
  ev_rng_seed(&r, 3, 3);
  for (size_t d = 3; d <= 5; d++) {
    for (size_t i = 0; i < N; i++) { /* on a sphere: none dominates another */
      double norm = 0;
      for (size_t k = 0; k < d; k++) {
        double x = fabs(ev_rng_normal(&r));
        norm += x * x;
        p[i * d + k] = x;
      }
      for (size_t k = 0; k < d; k++) p[i * d + k] /= sqrt(norm);
    }
    size_t below = 0;
    for (size_t t = 0; t < DRAWS; t++) {
      for (size_t k = 0; k < d; k++) at[k] = ev_rng_f64(&r);
      for (size_t i = 0; i < N; i++) {
        size_t k = 0;
        while (k < d && at[k] <= p[i * d + k]) k++;
        if (k == d) {
          below++;
          break;
        }
      }
    }
    double share = (double)below / DRAWS, error = sqrt(share * (1 - share) / DRAWS);
    assert_int_equal(ev_hypervolume(&got, p, N, d, zero), EV_OK);
    if (fabs(got - share) > 4 * error) fail_msg("%d objectives: %g, %g ± %g by counting", (int)d, got, share, error);
  }
}

static void a_staircase_has_the_area_of_its_steps(void **s) {
  (void)s;
  const double p[] = {3, 1, 2, 2, 1, 3, 1, 1, 2, 2}, reference[] = {0, 0}, above[] = {3, 3}; /* 3 · 1 + 2 · 1 + 1 · 1 */
  double got;
  assert_int_equal(ev_hypervolume(&got, p, 5, 2, reference), EV_OK);
  assert_true(got == 6);
  assert_int_equal(ev_hypervolume(&got, p, 5, 2, above), EV_OK);
  assert_true(got == 0);
  assert_int_equal(ev_hypervolume(&got, p, 0, 2, reference), EV_OK);
  assert_true(got == 0);
  const double cube[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, low[EV_PARETO_DIMS] = {0};
  assert_int_equal(ev_hypervolume(&got, cube, 1, EV_PARETO_DIMS, low), EV_OK);
  assert_true(got == 1);
}

static void threads_change_no_bit_and_order_does_not_matter(void **s) {
  (void)s;
  enum { N = 80, D = 4 };
  double p[N * D], turned[N * D], zero[D] = {0}, one, other;
  ev_rng r;
  ev_rng_seed(&r, 5, 5);
  draw(p, N, D, 0, &r);
  ev_threads_set(1);
  assert_int_equal(ev_hypervolume(&one, p, N, D, zero), EV_OK);
  for (int threads = 2; threads <= 4; threads++) {
    ev_threads_set(threads);
    assert_int_equal(ev_hypervolume(&other, p, N, D, zero), EV_OK);
    assert_memory_equal(&other, &one, sizeof one);
  }
  ev_threads_set(0);
  for (size_t i = 0; i < N; i++) memcpy(turned + i * D, p + (N - 1 - i) * D, D * sizeof *p);
  assert_int_equal(ev_hypervolume(&other, turned, N, D, zero), EV_OK);
  assert_true(fabs(other - one) < 1e-12);
}

static void what_is_no_number_or_too_much_is_refused(void **s) {
  (void)s;
  double p[6] = {1, 2, 3, NAN, 5, 6}, zero[3] = {0}, bad[3] = {0, INFINITY, 0}, got = 7;
  uint32_t rank[3];
  assert_int_equal(ev_pareto_ranks(rank, p, 3, 2), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "objective 2 of point 2"));
  assert_int_equal(ev_hypervolume(&got, p, 3, 2, zero), EV_EINVAL);
  p[3] = 4;
  assert_int_equal(ev_hypervolume(&got, p, 2, 3, bad), EV_EINVAL);
  assert_int_equal(ev_pareto_ranks(rank, p, 3, 0), EV_EINVAL);
  assert_int_equal(ev_pareto_ranks(rank, p, 0, EV_PARETO_DIMS + 1), EV_EINVAL);
  ev_interrupt();
  assert_int_equal(ev_hypervolume(&got, p, 2, 3, zero), EV_EINTR);
  ev_interrupt_clear();
  ASSERT_SURVIVES_FAULTS(ev_hypervolume(&got, p, 2, 3, zero), );
  ASSERT_SURVIVES_FAULTS(ev_pareto_ranks(rank, p, 2, 3), );
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(ranks_are_those_of_peeling_front_after_front), cmocka_unit_test(a_volume_is_that_of_inclusion_and_exclusion),
      cmocka_unit_test(a_larger_volume_is_the_share_of_random_points_below_it), cmocka_unit_test(a_staircase_has_the_area_of_its_steps),
      cmocka_unit_test(threads_change_no_bit_and_order_does_not_matter), cmocka_unit_test(what_is_no_number_or_too_much_is_refused),
  };
  return RUN(tests);
}
