/* math_symmetric.c - the half-stored inverse against Gauss and Jordan in doubles; dense products and solves against plain loops. */
#include <math.h>

#include "math/math.h"
#include "support.h"

static bool slow(void) { return getenv("EVECTION_SLOW") != NULL; } /* under valgrind: the first sizes of each test will do */

/* Where math.h says element (i, j) lies. */
static size_t place(size_t i, size_t j) {
  if (j > i) return place(j, i);
  size_t I = i / EV_SYM_TILE, J = j / EV_SYM_TILE;
  return (I * (I + 1) / 2 + J) * EV_SYM_TILE * EV_SYM_TILE + (i - I * EV_SYM_TILE) * EV_SYM_TILE + (j - J * EV_SYM_TILE);
}

static void elements_lie_where_the_header_says(void **s) {
  (void)s;
  size_t tile = (size_t)EV_SYM_TILE * EV_SYM_TILE;
  assert_int_equal(ev_sym_size(0), 0);
  assert_int_equal(ev_sym_size(1), tile);
  assert_int_equal(ev_sym_size(EV_SYM_TILE), tile);
  assert_int_equal(ev_sym_size(EV_SYM_TILE + 1), 3 * tile);
  assert_int_equal(ev_sym_size(4 * EV_SYM_TILE), 10 * tile);
  enum { N = 2 * EV_SYM_TILE + 9 };
  uint8_t *used = ev_zalloc(ev_sym_size(N), 1);
  for (size_t i = 0; i < N; i++)
    for (size_t j = 0; j <= i; j++) {
      size_t at = ev_sym_at(i, j);
      if (at != place(i, j) || at != ev_sym_at(j, i) || at >= ev_sym_size(N) || used[at]) fail_msg("(%zu, %zu) at %zu", i, j, at);
      used[at] = 1;
    }
  ev_free(used);
}

/* Inverse in place by Gauss and Jordan; a positive definite matrix needs no pivoting. Its n³ steps go unchecked: that is half
 * of this program's time under the sanitizers. */
__attribute__((no_sanitize("address", "undefined"))) static void invert(double *a, size_t n) {
  double *pivot_row = malloc(n * sizeof *pivot_row);
  for (size_t k = 0; k < n; k++) {
    double pivot = 1 / a[k * n + k];
    a[k * n + k] = 1;
    for (size_t j = 0; j < n; j++) pivot_row[j] = a[k * n + j] *= pivot;
    for (size_t i = 0; i < n; i++) {
      if (i == k) continue;
      double *row = a + i * n, factor = row[k];
      row[k] = 0;
      for (size_t j = 0; j < n; j++) row[j] -= factor * pivot_row[j];
    }
  }
  free(pivot_row);
}

/* Symmetric with eigenvalues spread over about one to ten: noise over a heavy diagonal. Storage that holds no element is NaN. */
static float *planted(double *dense, size_t n, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, n);
  float *a = ev_alloc(ev_sym_size(n), sizeof *a);
  for (size_t i = 0; i < ev_sym_size(n); i++) a[i] = NAN;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j <= i; j++) {
      float x = (float)(ev_rng_normal(&r) / sqrt((double)n) + (i == j ? 3 : 0));
      a[place(i, j)] = x;
      if (dense != NULL) dense[i * n + j] = dense[j * n + i] = x;
    }
  return a;
}

static void check_rows(const float *a, const double *p, size_t n, ev_rng *r) {
  float *row = ev_alloc(n, sizeof *row);
  for (int round = 0; round < 60; round++) {
    size_t i = ev_rng_below(r, (uint32_t)n), begin = ev_rng_below(r, (uint32_t)n), end = begin + ev_rng_below(r, (uint32_t)(n - begin) + 1);
    for (size_t j = 0; j < n; j++) row[j] = (float)j;
    ev_sym_add_row(row, a, -2, i, begin, end);
    for (size_t j = 0; j < n; j++) { /* out begins at `begin`; what is behind the run stays */
      double expected = (double)j - (j < end - begin ? 2 * p[i * n + begin + j] : 0);
      if (fabs(row[j] - expected) > 1e-4 + 1e-6 * (double)j) fail_msg("n = %zu: row %zu from %zu to %zu, place %zu", n, i, begin, end, j);
    }
  }
  ev_free(row);
}

static void the_inverse_is_that_of_gauss_and_jordan(void **s) {
  (void)s;
  static const size_t sizes[] = {1, 63, EV_SYM_TILE + 1, 2, EV_SYM_TILE - 1, EV_SYM_TILE, 700};
  ev_rng r;
  ev_rng_seed(&r, 5, 0);
  for (size_t t = 0; t < (slow() ? 3 : 7); t++) {
    size_t n = sizes[t];
    double *p = malloc(n * n * sizeof *p), worst = 0;
    float *a = planted(p, n, 21);
    invert(p, n);
    assert_int_equal(ev_sym_inverse(a, n), EV_OK);
    for (size_t i = 0; i < n; i++)
      for (size_t j = 0; j < n; j++) {
        double off = fabs(a[place(i, j)] - p[i * n + j]);
        if (!(off <= worst)) worst = off; /* NaN too */
      }
    if (!(worst <= 1e-5)) fail_msg("n = %zu: off by %g", n, worst);
    check_rows(a, p, n, &r);
    ev_free(a);
    free(p);
  }
  assert_int_equal(ev_sym_inverse(NULL, 0), EV_OK);
}

static void threads_change_no_bit_of_the_inverse(void **s) {
  (void)s;
  static const size_t sizes[] = {5, EV_SYM_TILE + 1, 2 * EV_SYM_TILE + 3};
  static const int threads[] = {1, 2, 4};
  for (size_t t = 0; t < (slow() ? 2 : 3); t++) {
    float *first = NULL;
    for (int k = 0; k < 3; k++) {
      float *a = planted(NULL, sizes[t], 4);
      ev_threads_set(threads[k]);
      assert_int_equal(ev_sym_inverse(a, sizes[t]), EV_OK);
      if (first == NULL) {
        first = a;
        continue;
      }
      for (size_t i = 0; i < sizes[t]; i++)
        for (size_t j = 0; j <= i; j++) assert_memory_equal(&a[place(i, j)], &first[place(i, j)], sizeof *a);
      ev_free(a);
    }
    ev_free(first);
  }
  ev_threads_set(0);
}

static ev_status inverse_with(size_t n, size_t i, size_t j, float x) {
  float *a = planted(NULL, n, 9);
  a[place(i, j)] = x;
  ev_status status = ev_sym_inverse(a, n);
  ev_free(a);
  return status;
}

static void what_has_no_inverse_is_refused(void **s) {
  (void)s;
  static const size_t sizes[] = {1, 63, 2, EV_SYM_TILE + 1};
  for (size_t t = 0; t < (slow() ? 2 : 4); t++) {
    size_t n = sizes[t];
    assert_int_equal(inverse_with(n, n - 1, n - 1, 3), EV_OK);
    assert_int_equal(inverse_with(n, n - 1, n - 1, -1), EV_EINVAL); /* the last pivot, in the last tile */
    assert_int_equal(inverse_with(n, 0, 0, 0), EV_EINVAL);
    assert_int_equal(inverse_with(n, n / 2, n / 2, NAN), EV_EINVAL);
    if (n == 1) continue;
    assert_int_equal(inverse_with(n, n - 1, 0, 50), EV_EINVAL); /* a positive diagonal, indefinite all the same */
    assert_int_equal(inverse_with(n, n - 1, 0, NAN), EV_EINVAL);
  }
}

static void an_interrupt_or_a_lack_of_memory_ends_the_inverse(void **s) {
  (void)s;
  float *a = planted(NULL, 20, 1);
  ev_interrupt();
  assert_int_equal(ev_sym_inverse(a, 20), EV_EINTR);
  ev_interrupt_clear();
  ev_free(a);
  a = planted(NULL, 20, 1);
  ev_mem_fail_at(0);
  assert_int_equal(ev_sym_inverse(a, 20), EV_ENOMEM);
  ev_mem_fail_at(-1);
  ev_free(a);
}

/* ---- Dense ---------------------------------------------------------------------------------------------*/
static float *noise(size_t n, ev_rng *r) {
  float *x = ev_alloc(n, sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = (float)ev_rng_normal(r);
  return x;
}

typedef void product(float *out, const float *a, const float *b, float beta, size_t m, size_t n, size_t k);

static void check_product(product *f, bool transposed, float beta, size_t m, size_t n, size_t k, ev_rng *r) {
  float *a = noise(m * k, r), *b = noise(n * k, r), *before = noise(m * n + 1, r), *out = ev_alloc(m * n + 1, sizeof *out);
  memcpy(out, before, (m * n + 1) * sizeof *out);
  if (beta == 0)
    for (size_t i = 0; i < m * n; i++) out[i] = NAN; /* what was there does not matter */
  f(out, a, b, beta, m, n, k);
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < n; j++) {
      double sum = beta == 0 ? 0 : (double)beta * before[i * n + j];
      for (size_t x = 0; x < k; x++) sum += (double)a[i * k + x] * (transposed ? b[j * k + x] : b[x * n + j]);
      if (!(fabs(out[i * n + j] - sum) < 1e-4)) fail_msg("%zu x %zu x %zu, beta %g: (%zu, %zu)", m, n, k, (double)beta, i, j);
    }
  assert_true(out[m * n] == before[m * n]);
  void *blocks[] = {a, b, before, out};
  for (int i = 0; i < 4; i++) ev_free(blocks[i]);
}

static void products_are_their_sums(void **s) {
  (void)s;
  static const size_t sizes[] = {0, 1, 3, 17, 40};
  static const float betas[] = {0, 1, 0.5f};
  ev_rng r;
  ev_rng_seed(&r, 2, 2);
  for (size_t m = 0; m < 5; m++)
    for (size_t n = 0; n < 5; n++)
      for (size_t k = 0; k < 5; k++)
        for (size_t b = 0; b < 3; b++) {
          check_product(ev_gemm_nt, true, betas[b], sizes[m], sizes[n], sizes[k], &r);
          check_product(ev_gemm_nn, false, betas[b], sizes[m], sizes[n], sizes[k], &r);
        }
}

static void a_gram_matrix_is_whole_and_symmetric(void **s) {
  (void)s;
  static const size_t sizes[] = {0, 1, 2, 7, 33, 70};
  static const float betas[] = {0, 1, -0.5f};
  ev_rng r;
  ev_rng_seed(&r, 2, 3);
  for (size_t t = 0; t < 6; t++)
    for (size_t k = 0; k < 6; k++)
      for (int b = 0; b < 3; b++) {
        size_t n = sizes[t], m = sizes[k];
        float *a = noise(m * n, &r), *out = noise(n * n + 1, &r), *before = ev_alloc(n * n, sizeof *before), last = out[n * n];
        for (size_t i = 0; i < n; i++)
          for (size_t j = 0; j < i; j++) out[j * n + i] = out[i * n + j];
        memcpy(before, out, n * n * sizeof *out);
        if (betas[b] == 0)
          for (size_t i = 0; i < n * n; i++) out[i] = NAN;
        ev_syrk_tn(out, a, betas[b], n, m);
        for (size_t i = 0; i < n; i++)
          for (size_t j = 0; j < n; j++) {
            double sum = betas[b] == 0 ? 0 : (double)betas[b] * before[i * n + j];
            for (size_t x = 0; x < m; x++) sum += (double)a[x * n + i] * a[x * n + j];
            if (!(fabs(out[i * n + j] - sum) < 1e-4)) fail_msg("%zu columns of %zu, beta %g: (%zu, %zu)", n, m, (double)betas[b], i, j);
          }
        assert_true(out[n * n] == last);
        ev_free(a);
        ev_free(out);
        ev_free(before);
      }
}

static void what_solves_a_system_gives_its_right_side(void **s) {
  (void)s;
  ev_rng r;
  ev_rng_seed(&r, 2, 4);
  for (size_t n = 0; n <= 40; n++)
    for (size_t n_rhs = 0; n_rhs <= 3; n_rhs++) {
      float *x = noise((n + 5) * n, &r), *a = ev_zalloc(n * n, sizeof *a), *whole = ev_alloc(n * n, sizeof *whole);
      float *b = noise(n * n_rhs, &r), *right = ev_alloc(n * n_rhs, sizeof *right);
      for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
          double sum = i == j ? 4 : 0;
          for (size_t k = 0; k < n + 5; k++) sum += (double)x[k * n + i] * x[k * n + j];
          a[i * n + j] = (float)sum;
        }
      memcpy(whole, a, n * n * sizeof *a);
      memcpy(right, b, n * n_rhs * sizeof *b);
      assert_int_equal(ev_spd_solve(a, b, n, n_rhs), EV_OK);
      for (size_t k = 0; k < n_rhs; k++)
        for (size_t i = 0; i < n; i++) {
          double sum = 0;
          for (size_t j = 0; j < n; j++) sum += (double)whole[i * n + j] * b[k * n + j];
          if (!(fabs(sum - right[k * n + i]) < 1e-4)) fail_msg("n = %zu, right side %zu: off by %g", n, k, sum - right[k * n + i]);
        }
      void *blocks[] = {x, a, whole, b, right};
      for (int i = 0; i < 5; i++) ev_free(blocks[i]);
    }
}

static void a_system_that_is_not_positive_definite_is_refused(void **s) {
  (void)s;
  float zero[4] = {0}, indefinite[4] = {1, 2, 2, 1}, negative[4] = {-1, 0, 0, 1}, last[9] = {1, 0, 0, 0, 1, 0, 0, 0, -1}, unknown[4] = {1, 0, 0, NAN};
  float b[3] = {1, 1, 1};
  assert_int_equal(ev_spd_solve(zero, b, 2, 1), EV_EINVAL);
  assert_int_equal(ev_spd_solve(indefinite, b, 2, 1), EV_EINVAL);
  assert_int_equal(ev_spd_solve(negative, b, 2, 1), EV_EINVAL);
  assert_int_equal(ev_spd_solve(last, b, 3, 1), EV_EINVAL);
  assert_int_equal(ev_spd_solve(unknown, b, 2, 1), EV_EINVAL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(elements_lie_where_the_header_says), cmocka_unit_test(the_inverse_is_that_of_gauss_and_jordan),
      cmocka_unit_test(threads_change_no_bit_of_the_inverse), cmocka_unit_test(what_has_no_inverse_is_refused),
      cmocka_unit_test(an_interrupt_or_a_lack_of_memory_ends_the_inverse), cmocka_unit_test(products_are_their_sums),
      cmocka_unit_test(a_gram_matrix_is_whole_and_symmetric), cmocka_unit_test(what_solves_a_system_gives_its_right_side),
      cmocka_unit_test(a_system_that_is_not_positive_definite_is_refused),
  };
  return RUN(tests);
}
