/* arms_world.h - what the tests of learning state share. */
#ifndef TESTS_ARMS_WORLD_H
#define TESTS_ARMS_WORLD_H

#include <math.h>

#include "reward/reward.h"
#include "support.h"

#define OK(call)                                                                                     \
  do {                                                                                               \
    ev_status ok_ = (call);                                                                          \
    if (ok_ != EV_OK) fail_msg("line %d: %s: %s", __LINE__, ev_status_name(ok_), ev_error());        \
  } while (0)

#define NEAR(a, b, tolerance)                                                                        \
  do {                                                                                               \
    double near_a_ = (a), near_b_ = (b), near_t_ = (tolerance);                                      \
    if (!(fabs(near_a_ - near_b_) <= near_t_)) fail_msg("line %d: %.17g, not %.17g (within %g)", __LINE__, near_a_, near_b_, near_t_); \
  } while (0)

__attribute__((unused)) static ev_arms *new_arms(ev_arms_kind kind, uint32_t n, uint32_t d) {
  ev_arms_options o;
  ev_arms *a;
  ev_arms_defaults(&o, kind);
  o.n = n;
  o.n_dims = d;
  OK(ev_arms_open(&a, NULL, &o));
  return a;
}

/* The inverse by Gauss and Jordan with the largest pivot of a column: not how the runtime does it. */
__attribute__((unused)) static void invert(double *out, const double *m, size_t n) {
  long double a[64][128];
  assert_true(n <= 64);
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) a[i][j] = (long double)m[i * n + j], a[i][n + j] = i == j;
  for (size_t c = 0; c < n; c++) {
    size_t pivot = c;
    for (size_t i = c; i < n; i++)
      if (fabsl(a[i][c]) > fabsl(a[pivot][c])) pivot = i;
    for (size_t j = 0; j < 2 * n; j++) {
      long double swap = a[c][j];
      a[c][j] = a[pivot][j];
      a[pivot][j] = swap;
    }
    for (size_t j = 2 * n; j-- > c;) a[c][j] /= a[c][c];
    for (size_t i = 0; i < n; i++)
      if (i != c)
        for (size_t j = 2 * n; j-- > c;) a[i][j] -= a[i][c] * a[c][j];
  }
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) out[i * n + j] = (double)a[i][n + j];
}

#endif
