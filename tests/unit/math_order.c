/* math_order.c - keys in ascending order whatever their number and digits; scores as keys; eigenvectors of symmetric matrices. */
#include <math.h>

#include "math/math.h"
#include "support.h"

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void keys_are_sorted_as_by_comparison(void **s) {
  (void)s;
  enum { MOST = 3000 };
  static uint64_t keys[MOST], room[MOST], expected[MOST];
  ev_rng r;
  ev_rng_seed(&r, 3, 0);
  for (size_t n = 0; n <= MOST; n += n < 140 ? 1 : 271)
    for (unsigned kind = 0; kind < 4; kind++) {
      for (size_t i = 0; i < n; i++) { /* any; the upper half alone; few different ones; already sorted */
        uint64_t x = (uint64_t)ev_rng_below(&r, UINT32_MAX) << 32 | ev_rng_below(&r, UINT32_MAX);
        keys[i] = kind == 0 ? x : kind == 1 ? x & 0xFFFFFFFF00000000 : kind == 2 ? x % 7 << 20 : i * 1000003;
      }
      memcpy(expected, keys, n * sizeof *keys);
      qsort(expected, n, sizeof *expected, ascending);
      ev_sort_keys(keys, room, n);
      assert_memory_equal(keys, expected, n * sizeof *keys);
    }
}

static void keys_of_scores_have_their_order(void **s) {
  (void)s;
  static const float falling[] = {INFINITY, 3e38f, 7, 1.0000001f, 1, 1e-40f, 0, -1e-40f, -1, -2, -3e38f, -INFINITY, NAN};
  for (size_t i = 0; i < sizeof falling / sizeof *falling; i++)
    for (size_t j = 0; j < sizeof falling / sizeof *falling; j++)
      assert_int_equal((ev_score_key(falling[i]) < ev_score_key(falling[j])), (i < j));
  assert_int_equal(ev_score_key(-0.0f), ev_score_key(0));
  assert_int_equal(ev_score_key(-NAN), ev_score_key(NAN));
}

static void eigenvectors_make_the_matrix_diagonal(void **s) {
  (void)s;
  static const size_t sizes[] = {1, 2, 3, 17, 64, 130};
  ev_rng r;
  ev_rng_seed(&r, 4, 0);
  for (size_t t = 0; t < sizeof sizes / sizeof *sizes; t++) {
    size_t n = sizes[t];
    float *a = ev_alloc(n, n * sizeof *a), *e = ev_alloc(n, n * sizeof *e), *values = ev_alloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++)
      for (size_t j = 0; j <= i; j++) a[i * n + j] = a[j * n + i] = (float)ev_rng_normal(&r);
    memcpy(e, a, n * n * sizeof *a);
    assert_int_equal(ev_symmetric_eigen(e, values, n), EV_OK);
    for (size_t i = 0; i < n; i++) {
      if (i > 0) assert_true(values[i] >= values[i - 1]);
      for (size_t j = 0; j < n; j++) { /* eᵢ A eⱼ and eᵢ eⱼ, in doubles */
        double middle = 0, product = 0;
        for (size_t x = 0; x < n; x++) {
          double row = 0;
          for (size_t y = 0; y < n; y++) row += (double)a[x * n + y] * e[j * n + y];
          middle += e[i * n + x] * row;
          product += (double)e[i * n + x] * e[j * n + x];
        }
        assert_true(fabs(middle - (i == j ? (double)values[i] : 0)) < 2e-5 * (double)n && fabs(product - (i == j)) < 1e-5);
      }
    }
    ev_free(a);
    ev_free(e);
    ev_free(values);
  }
  assert_int_equal(ev_symmetric_eigen(NULL, NULL, 0), EV_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(keys_are_sorted_as_by_comparison), cmocka_unit_test(keys_of_scores_have_their_order),
                                     cmocka_unit_test(eigenvectors_make_the_matrix_diagonal)};
  return RUN(tests);
}
