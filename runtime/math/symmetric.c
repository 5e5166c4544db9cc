/* symmetric.c - a half-stored symmetric matrix in square tiles, and its inverse in place.
 *
 * Three sweeps over the tiles, each tile operation one BLAS or LAPACK call on one thread:
 *   A = L Lᵀ (right-looking Cholesky)    L ← L⁻¹ (by columns of tiles)    A⁻¹ = L⁻ᵀ L⁻¹ (by rows of tiles)
 * Tiles within a step are independent and shared out by our own pool, so the result has the same bits for any number
 * of threads. LAPACK's rectangular full packed form (spftrf, spftri) stores as little, but is threaded only inside
 * its few large calls, and a row of it is scattered over memory; here a row is a run in each tile. */
#include <cblas.h>
#include <stdatomic.h>
#include <string.h>

#include "lapack.h"
#include "math.h"

#define T EV_SYM_TILE
#define AREA ((size_t)T * T)

static size_t tiles_of(size_t n) { return (n + T - 1) / T; }
static float *tile(float *a, size_t i, size_t j) { return a + (i * (i + 1) / 2 + j) * AREA; }

size_t ev_sym_size(size_t n) {
  size_t t = tiles_of(n);
  return t * (t + 1) / 2 * AREA;
}

size_t ev_sym_at(size_t i, size_t j) {
  if (i < j) {
    size_t swap = i;
    i = j;
    j = swap;
  }
  size_t row = i / T, column = j / T;
  return (row * (row + 1) / 2 + column) * AREA + (i % T) * T + j % T;
}

/* Row-major lower is LAPACK's column-major upper. */
static const int side = T;
static ev_status potrf(float *a) {
  int info;
  spotrf_("U", &side, a, &side, &info, 1);
  for (size_t i = 0; i < T && info == 0; i++)
    if (!(a[i * T + i] > 0)) info = (int)i + 1; /* OpenBLAS lets NaN pass */
  return info == 0 ? EV_OK : ev_fail(EV_EINVAL, "the matrix is not positive definite");
}

typedef struct sweep {
  float *a;
  size_t t, k; /* tiles a side, step */
} sweep;

/* Cholesky, step k: the column below the diagonal tile, A(i,k) ← A(i,k) L(k,k)⁻ᵀ. */
static void chol_column(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sweep *s = ctx;
  for (size_t x = begin; x < end; x++)
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, T, T, 1, tile(s->a, s->k, s->k), T, tile(s->a, s->k + 1 + x, s->k), T);
}

/* Rows of the trailing tiles, longest first, so that the last slices are short. */
static void chol_trailing(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sweep *s = ctx;
  size_t m = s->t - s->k - 1;
  for (size_t x = begin; x < end; x++) { /* x numbers the pairs (i, j), k < j <= i < t, from the last row up */
    size_t row = 0, left = x;
    while (left >= m - row) left -= m - row, row++;
    size_t i = s->t - 1 - row, j = s->k + 1 + left;
    const float *li = tile(s->a, i, s->k), *lj = tile(s->a, j, s->k);
    if (i == j) cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, T, T, -1, li, T, 1, tile(s->a, i, i), T);
    else cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, T, T, T, -1, li, T, lj, T, 1, tile(s->a, i, j), T);
  }
}

/* Inverse of L by columns: with M = L⁻¹, M(i,j) = −M(i,i) Σ_{j<=k<i} L(i,k) M(k,j). Step k makes row k of M:
 * every tile (k, j), j < k, needs rows of M above and row k of L, which is still whole. */
typedef struct row_step {
  float *a, *scratch; /* scratch: (t tiles) the new row k */
  size_t k;
} row_step;

static void invert_row(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  row_step *s = ctx;
  for (size_t j = begin; j < end; j++) {
    float *sum = s->scratch + j * AREA;
    memset(sum, 0, AREA * sizeof *sum);
    for (size_t k = j; k < s->k; k++) {
      /* M(j,j) is lower triangular with zeros above, like any tile to sgemm */
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, T, T, T, -1, tile(s->a, s->k, k), T, tile(s->a, k, j), T, 1, sum, T);
    }
    cblas_strmm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, T, T, 1, tile(s->a, s->k, s->k), T, sum, T);
  }
}

/* P = MᵀM by columns of P: P(i,j) = Σ_{k>=i} M(k,i)ᵀ M(k,j), i >= j. Row i of P may overwrite row i of M, because
 * later rows of P need only rows of M below: rows are made from the top. */
static void square_row(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sweep *s = ctx;
  size_t i = s->k;
  for (size_t j = begin; j < end; j++) {
    float *out = tile(s->a, i, j);
    if (j == i) continue; /* the diagonal tile comes last: the others still need M(i,i) */
    cblas_strmm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, T, T, 1, tile(s->a, i, i), T, out, T);
    for (size_t k = i + 1; k < s->t; k++)
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, T, T, T, 1, tile(s->a, k, i), T, tile(s->a, k, j), T, 1, out, T);
  }
}

static void square_diagonal(sweep *s) {
  int info;
  float *d = tile(s->a, s->k, s->k);
  slauum_("U", &side, d, &side, &info, 1); /* row-major lower L: LᵀL = (column-major upper U) U Uᵀ */
  for (size_t k = s->k + 1; k < s->t; k++) cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, T, T, 1, tile(s->a, k, s->k), T, 1, d, T);
}

static void clear_above(float *d) {
  for (size_t i = 0; i < T; i++) memset(d + i * T + i + 1, 0, (T - i - 1) * sizeof *d);
}

ev_status ev_sym_inverse(float *a, size_t n) {
  size_t t = tiles_of(n);
  if (n == 0) return EV_OK;
  for (size_t i = n; i < t * T; i++) { /* the padding becomes an identity block: it stays apart */
    for (size_t j = 0; j < i; j++) a[ev_sym_at(i, j)] = 0;
    a[ev_sym_at(i, i)] = 1;
  }
  for (size_t k = 0; k < t; k++) {
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    sweep s = {a, t, k};
    size_t m = t - k - 1;
    EV_TRY(potrf(tile(a, k, k)));
    clear_above(tile(a, k, k));
    ev_parallel_for(m, 1, chol_column, &s);
    ev_parallel_for(m * (m + 1) / 2, 1, chol_trailing, &s);
  }
  float *scratch = ev_alloc(t, AREA * sizeof *scratch);
  if (scratch == NULL) return EV_ENOMEM;
  for (size_t k = 0; k < t; k++) {
    if (ev_interrupted()) {
      ev_free(scratch);
      return ev_fail(EV_EINTR, "interrupted");
    }
    int info;
    strtri_("U", "N", &side, tile(a, k, k), &side, &info, 1, 1);
    row_step s = {a, scratch, k};
    ev_parallel_for(k, 1, invert_row, &s);
    if (k > 0) memcpy(tile(a, k, 0), scratch, k * AREA * sizeof *scratch); /* tiles of a row lie side by side */
  }
  ev_free(scratch);
  for (size_t k = 0; k < t; k++) {
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    sweep s = {a, t, k};
    ev_parallel_for(k + 1, 1, square_row, &s);
    square_diagonal(&s);
    float *d = tile(a, k, k);
    for (size_t i = 0; i < T; i++) /* both triangles of a diagonal tile, so that a row of it is a run */
      for (size_t j = 0; j < i; j++) d[j * T + i] = d[i * T + j];
  }
  return EV_OK;
}

void ev_sym_add_row(float *out, const float *a, float alpha, size_t i, size_t begin, size_t end) {
  size_t mine = i / T, r = i % T;
  for (size_t j = begin; j < end;) {
    size_t other = j / T, stop = (other + 1) * T < end ? (other + 1) * T : end;
    if (other <= mine) {
      ev_axpy(out + (j - begin), a + (mine * (mine + 1) / 2 + other) * AREA + r * T + j % T, alpha, stop - j);
    } else { /* the tile below the diagonal holds it as a column */
      const float *column = a + (other * (other + 1) / 2 + mine) * AREA + r;
      for (size_t k = j; k < stop; k++) out[k - begin] += alpha * column[(k % T) * T];
    }
    j = stop;
  }
}
