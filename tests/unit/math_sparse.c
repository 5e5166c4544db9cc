/* math_sparse.c - sparse products against their definition, singular values against what defines them. */
#include <math.h>

#include "math/math.h"
#include "support.h"

/* ---- Matrices: entry (i, j) with some chance, weights of rows and columns at random ----------------------------------*/
typedef struct matrix {
  ev_sparse a;
  uint64_t *row_ptr, *col_ptr;
  uint32_t *row_idx, *col_idx;
  float *row_weight, *col_weight;
} matrix;

/* Of a pattern (n_rows, n_cols) of bytes. */
static void open_matrix(matrix *m, const uint8_t *pattern, size_t n_rows, size_t n_cols, ev_rng *r) {
  size_t n = 0, at = 0;
  for (size_t i = 0; i < n_rows * n_cols; i++) n += pattern[i];
  m->row_ptr = ev_zalloc(n_rows + 1, sizeof *m->row_ptr);
  m->col_ptr = ev_zalloc(n_cols + 1, sizeof *m->col_ptr);
  m->row_idx = ev_alloc(n, sizeof *m->row_idx);
  m->col_idx = ev_alloc(n, sizeof *m->col_idx);
  m->row_weight = ev_alloc(n_rows, sizeof *m->row_weight);
  m->col_weight = ev_alloc(n_cols, sizeof *m->col_weight);
  for (size_t i = 0; i < n_rows; i++) {
    for (size_t j = 0; j < n_cols; j++)
      if (pattern[i * n_cols + j]) m->row_idx[at++] = (uint32_t)j;
    m->row_ptr[i + 1] = at;
  }
  at = 0;
  for (size_t j = 0; j < n_cols; j++) {
    for (size_t i = 0; i < n_rows; i++)
      if (pattern[i * n_cols + j]) m->col_idx[at++] = (uint32_t)i;
    m->col_ptr[j + 1] = at;
  }
  for (size_t i = 0; i < n_rows; i++) m->row_weight[i] = r != NULL ? (float)(0.2 + ev_rng_f64(r)) : 1;
  for (size_t j = 0; j < n_cols; j++) m->col_weight[j] = r != NULL ? (float)(0.2 + ev_rng_f64(r)) : 1;
  m->a = (ev_sparse){n_rows, n_cols, m->row_ptr, m->col_ptr, m->row_idx, m->col_idx, m->row_weight, m->col_weight};
}

static void random_matrix(matrix *m, size_t n_rows, size_t n_cols, double share, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  uint8_t *pattern = ev_zalloc(n_rows, n_cols);
  for (size_t i = 0; i < n_rows * n_cols; i++) pattern[i] = ev_rng_f64(&r) < share * (1 + (double)(i % n_cols % 7)) / 4; /* columns differ in degree */
  open_matrix(m, pattern, n_rows, n_cols, &r);
  ev_free(pattern);
}

static void close_matrix(matrix *m) {
  void *blocks[] = {m->row_ptr, m->col_ptr, m->row_idx, m->col_idx, m->row_weight, m->col_weight};
  for (int i = 0; i < 6; i++) ev_free(blocks[i]);
}

static double *dense(const ev_sparse *a) {
  double *d = ev_zalloc(a->n_rows, a->n_cols * sizeof *d);
  for (size_t i = 0; i < a->n_rows; i++)
    for (uint64_t e = a->row_ptr[i]; e < a->row_ptr[i + 1]; e++) d[i * a->n_cols + a->row_idx[e]] = (double)a->row_weight[i] * a->col_weight[a->row_idx[e]];
  return d;
}

/* ---- Products ----------------------------------------------------------------------------------------------------*/
static void products_are_their_sums_on_every_path(void **s) {
  (void)s;
  static const char *const paths[] = {"scalar", "avx2", "avx512", "avx512vnni", "neon"};
  enum { ROWS = 150, COLS = 90, MOST = 140 };
  const char *best = ev_simd_name();
  matrix m;
  random_matrix(&m, ROWS, COLS, 0.15, 3);
  double *d = dense(&m.a);
  float *x = ev_alloc(ROWS, MOST * sizeof *x), *out = ev_alloc(ROWS, MOST * sizeof *out);
  ev_rng r;
  ev_rng_seed(&r, 5, 0);
  for (int p = 0; p < 5; p++) {
    if (ev_simd_force(paths[p]) != EV_OK) continue;
    for (size_t width = 1; width <= 133; width += width < 20 ? 1 : 7)
      for (int turned = 0; turned < 2; turned++) {
        ev_sparse a = turned ? ev_sparse_transposed(&m.a) : m.a;
        size_t x_stride = width + width % 3, out_stride = width + 2;
        float alpha = turned ? 0.7f : 1, beta = width % 2 ? 0 : -0.4f;
        for (size_t i = 0; i < ROWS * MOST; i++) x[i] = (float)ev_rng_normal(&r), out[i] = beta == 0 ? NAN : (float)i; /* beta 0: out is not read */
        ev_sparse_mul(out, out_stride, &a, x, x_stride, width, alpha, beta);
        for (size_t i = 0; i < a.n_rows; i++)
          for (size_t w = 0; w < out_stride; w++) {
            if (w >= width) {
              assert_true(beta == 0 ? isnan(out[i * out_stride + w]) : out[i * out_stride + w] == (float)(i * out_stride + w)); /* between rows nothing is written */
              continue;
            }
            double sum = beta == 0 ? 0 : (double)beta * (double)(float)(i * out_stride + w), size = fabs(sum);
            for (size_t j = 0; j < a.n_cols; j++) {
              double entry = (double)alpha * (turned ? d[j * COLS + i] : d[i * COLS + j]) * x[j * x_stride + w];
              sum += entry, size += fabs(entry);
            }
            if (!(fabs(out[i * out_stride + w] - sum) <= 1e-6 * (size + 1))) fail_msg("%s, width %zu: (%zu, %zu) is %g, not %g", paths[p], width, i, w, (double)out[i * out_stride + w], sum);
          }
      }
  }
  assert_int_equal(ev_simd_force(best), EV_OK);
  ev_free(d);
  ev_free(x);
  ev_free(out);
  close_matrix(&m);
}

/* ---- Singular values -------------------------------------------------------------------------------------------------
 * V holds k right vectors when its columns are orthonormal and AᵀA v = σ² v; they are the leading ones when as many
 * eigenvalues of AᵀA lie above a number between σ_k² and what follows as Sylvester's law of inertia counts. */
static double *gram(const ev_sparse *a) {
  double *d = dense(a), *g = ev_zalloc(a->n_cols, a->n_cols * sizeof *g);
  for (size_t i = 0; i < a->n_rows; i++)
    for (uint64_t e = a->row_ptr[i]; e < a->row_ptr[i + 1]; e++)
      for (uint64_t f = a->row_ptr[i]; f < a->row_ptr[i + 1]; f++)
        g[a->row_idx[e] * a->n_cols + a->row_idx[f]] += d[i * a->n_cols + a->row_idx[e]] * d[i * a->n_cols + a->row_idx[f]];
  ev_free(d);
  return g;
}

/* Eigenvalues of g (n, n) above `bound`: positive pivots of g − bound I. */
static size_t above(const double *g, size_t n, double bound) {
  double *a = ev_alloc(n, n * sizeof *a);
  size_t positive = 0;
  memcpy(a, g, n * n * sizeof *a);
  for (size_t i = 0; i < n; i++) a[i * n + i] -= bound;
  for (size_t k = 0; k < n; k++) {
    double pivot = a[k * n + k];
    assert_true(fabs(pivot) > 1e-14);
    positive += pivot > 0;
    for (size_t i = k + 1; i < n; i++) {
      double factor = a[i * n + k] / pivot;
      if (factor == 0) continue;
      for (size_t j = k + 1; j < n; j++) a[i * n + j] -= factor * a[k * n + j];
    }
  }
  ev_free(a);
  return positive;
}

static void check_svd(const ev_sparse *a, size_t k, double tolerance, bool leading) {
  size_t n = a->n_cols;
  float *sigma = ev_alloc(k, sizeof *sigma), *v = ev_alloc(n, k * sizeof *v);
  ev_svd_options o = {.k = k, .tolerance = 1e-5f, .max_rounds = 100, .seed = 4};
  assert_int_equal(ev_sparse_svd(sigma, v, a, &o), EV_OK);
  double *g = gram(a), largest = (double)sigma[0] * sigma[0];
  for (size_t c = 0; c < k; c++) {
    double value = (double)sigma[c] * sigma[c], off = 0;
    assert_true(sigma[c] >= 0 && (c == 0 || sigma[c] <= sigma[c - 1]));
    for (size_t i = 0; i < n; i++) {
      double sum = -value * v[i * k + c];
      for (size_t j = 0; j < n; j++) sum += g[i * n + j] * v[j * k + c];
      off += sum * sum;
    }
    if (!(sqrt(off) <= tolerance * largest)) fail_msg("%zu of %zu: σ = %g is off by %g", c, k, (double)sigma[c], sqrt(off));
    for (size_t b = 0; b <= c; b++) {
      double dot = 0;
      for (size_t i = 0; i < n; i++) dot += (double)v[i * k + b] * v[i * k + c];
      if (!(fabs(dot - (b == c)) <= 1e-5)) fail_msg("vectors %zu and %zu: %g", b, c, dot);
    }
  }
  if (leading) {
    double last = (double)sigma[k - 1] * sigma[k - 1], slack = 2 * tolerance * largest;
    assert_true(last > slack);
    assert_true(above(g, n, last + slack) < k); /* σ_k itself is not above it, so at most k − 1 are */
    assert_true(above(g, n, last - slack) >= k);
  }
  ev_free(g);
  ev_free(sigma);
  ev_free(v);
}

static void singular_vectors_are_those_of_the_largest_values(void **s) {
  (void)s;
  static const struct {
    size_t n_rows, n_cols, k;
    double share;
  } cases[] = {{40, 30, 30, 0.2}, {30, 70, 12, 0.1}, {300, 200, 50, 0.05}, {500, 600, 8, 0.02}, {400, 900, 40, 0.02}, {900, 700, 60, 0.01}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    matrix m;
    random_matrix(&m, cases[c].n_rows, cases[c].n_cols, cases[c].share, 11 + c);
    check_svd(&m.a, cases[c].k, 1e-5 * 1.5, cases[c].k < cases[c].n_rows && cases[c].k < cases[c].n_cols);
    close_matrix(&m);
  }
}

/* Fewer rows than the basis has room for: the basis runs out of what the matrix makes of it. */
static void a_matrix_of_low_rank_gives_its_whole_rank(void **s) {
  (void)s;
  matrix m;
  random_matrix(&m, 24, 800, 0.1, 21);
  check_svd(&m.a, 24, 1e-5 * 1.5, false);
  check_svd(&m.a, 10, 1e-5 * 1.5, true);
  close_matrix(&m);
}

/* Forty times the same component: every value forty times, and the start has to know each of its vectors apart. */
static void repeated_values_come_as_often_as_they_are(void **s) {
  (void)s;
  enum { TIMES = 40, R = 12, C = 20, K = 60 };
  uint8_t *pattern = ev_zalloc(TIMES * R, TIMES * C);
  ev_rng r;
  ev_rng_seed(&r, 9, 0);
  for (size_t i = 0; i < R; i++)
    for (size_t j = 0; j < C; j++)
      if (ev_rng_below(&r, 4) == 0)
        for (size_t t = 0; t < TIMES; t++) pattern[(t * R + i) * TIMES * C + t * C + j] = 1;
  matrix m;
  open_matrix(&m, pattern, TIMES * R, TIMES * C, NULL);
  ev_free(pattern);
  float sigma[K], *v = ev_alloc(TIMES * C, K * sizeof *v);
  ev_svd_options o = {.k = K, .tolerance = 1e-5f, .max_rounds = 100, .seed = 1};
  assert_int_equal(ev_sparse_svd(sigma, v, &m.a, &o), EV_OK);
  for (size_t c = 1; c < TIMES; c++) assert_true(fabsf(sigma[c] - sigma[0]) < 1e-4f * sigma[0]);
  assert_true(sigma[TIMES] < 0.99f * sigma[0]);
  for (size_t c = TIMES + 1; c < K; c++) assert_true(fabsf(sigma[c] - sigma[TIMES]) < 1e-4f * sigma[0]);
  ev_free(v);
  check_svd(&m.a, TIMES, 1e-5 * 1.5, true);
  close_matrix(&m);
}

static void an_empty_matrix_has_zeros_and_unit_vectors(void **s) {
  (void)s;
  enum { N = 700, K = 5 };
  uint8_t *pattern = ev_zalloc(30, N);
  matrix m;
  open_matrix(&m, pattern, 30, N, NULL);
  ev_free(pattern);
  float sigma[K], *v = ev_alloc(N, K * sizeof *v);
  ev_svd_options o = {.k = K, .tolerance = 1e-4f, .max_rounds = 3, .seed = 1};
  assert_int_equal(ev_sparse_svd(sigma, v, &m.a, &o), EV_OK);
  for (size_t c = 0; c < K; c++) {
    double dot = 0;
    for (size_t i = 0; i < N; i++) dot += (double)v[i * K + c] * v[i * K + c];
    assert_true(sigma[c] == 0 && fabs(dot - 1) < 1e-5);
  }
  ev_free(v);
  close_matrix(&m);
}

static void seen(void *ctx, double done, double residual) {
  double *last = ctx;
  assert_true(done >= 0 && done <= 1 && residual >= 0);
  last[0] = done, last[1] = residual;
}

static void threads_change_no_bit_and_progress_is_told(void **s) {
  (void)s;
  enum { K = 20 };
  matrix m;
  float sigma[2][K], *v[2], *product[2], *x;
  double last[2] = {-1, -1};
  random_matrix(&m, 2000, 2500, 0.004, 31);
  x = ev_alloc(2500, 70 * sizeof *x);
  for (size_t i = 0; i < 2500 * 70; i++) x[i] = (float)(i % 101) / 7;
  for (int t = 0; t < 2; t++) {
    ev_threads_set(t == 0 ? 1 : 3);
    v[t] = ev_alloc(2500, K * sizeof *v[t]);
    product[t] = ev_alloc(2000, 70 * sizeof *product[t]);
    ev_svd_options o = {.k = K, .tolerance = 1e-5f, .max_rounds = 100, .seed = 7, .report = seen, .ctx = last};
    assert_int_equal(ev_sparse_svd(sigma[t], v[t], &m.a, &o), EV_OK);
    assert_true(last[0] == 1 && last[1] <= 1e-5);
    ev_sparse_mul(product[t], 70, &m.a, x, 70, 70, 1, 0);
  }
  ev_threads_set(0);
  assert_memory_equal(sigma[0], sigma[1], sizeof sigma[0]);
  assert_memory_equal(v[0], v[1], 2500 * K * sizeof *v[0]);
  assert_memory_equal(product[0], product[1], 2000 * 70 * sizeof *product[0]);
  for (int t = 0; t < 2; t++) ev_free(v[t]), ev_free(product[t]);
  ev_free(x);
  close_matrix(&m);
}

static void wrong_wishes_interruption_and_faults_end_it(void **s) {
  (void)s;
  matrix m;
  float sigma[40], *v = ev_alloc(800, 40 * sizeof *v);
  random_matrix(&m, 60, 800, 0.05, 41);
  ev_svd_options o = {.k = 0, .tolerance = 1e-4f, .max_rounds = 5, .seed = 1};
  assert_int_equal(ev_sparse_svd(sigma, v, &m.a, &o), EV_EINVAL);
  o.k = 61;
  assert_int_equal(ev_sparse_svd(sigma, v, &m.a, &o), EV_EINVAL);
  o.k = 10;
  ev_interrupt();
  assert_int_equal(ev_sparse_svd(sigma, v, &m.a, &o), EV_EINTR);
  ev_interrupt_clear();
  ev_threads_set(1); /* faults are planted in the calling thread */
  ASSERT_SURVIVES_FAULTS(ev_sparse_svd(sigma, v, &m.a, &o), );
  ev_sparse narrow = ev_sparse_transposed(&m.a); /* 60 columns: solved whole */
  ev_interrupt();
  assert_int_equal(ev_sparse_svd(sigma, v, &narrow, &o), EV_EINTR);
  ev_interrupt_clear();
  ASSERT_SURVIVES_FAULTS(ev_sparse_svd(sigma, v, &narrow, &o), );
  m.row_weight[3] = NAN;
  assert_int_equal(ev_sparse_svd(sigma, v, &narrow, &o), EV_EINVAL);
  assert_int_equal(ev_sparse_svd(sigma, v, &m.a, &o), EV_EINVAL);
  ev_threads_set(0);
  ev_free(v);
  close_matrix(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(products_are_their_sums_on_every_path), cmocka_unit_test(singular_vectors_are_those_of_the_largest_values),
      cmocka_unit_test(a_matrix_of_low_rank_gives_its_whole_rank), cmocka_unit_test(repeated_values_come_as_often_as_they_are),
      cmocka_unit_test(an_empty_matrix_has_zeros_and_unit_vectors), cmocka_unit_test(threads_change_no_bit_and_progress_is_told),
      cmocka_unit_test(wrong_wishes_interruption_and_faults_end_it),
  };
  return RUN(tests);
}
