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

/* The tiles of a matrix on their way to its inverse. Only what belongs to the n × n matrix is computed: with n a little
 * above a multiple of T, whole tiles at the edge would cost (1 + T / n)³. */
typedef struct sweep {
  float *a, *scratch; /* scratch: (t tiles) the new row k; then, of the last sweep, M(k,k) */
  size_t n, t, k;     /* order, tiles a side, step */
} sweep;

static int edge(const sweep *s, size_t i) { return i + 1 < s->t ? T : (int)(s->n - i * T); } /* rows of row i of tiles */

static const int side = T;

/* Row-major lower is LAPACK's column-major upper. */
static ev_status potrf(const sweep *s) {
  int info, n = edge(s, s->k);
  float *d = tile(s->a, s->k, s->k);
  spotrf_("U", &n, d, &side, &info, 1);
  for (int i = 0; i < n && info == 0; i++)
    if (!(d[(size_t)i * T + i] > 0)) info = i + 1; /* OpenBLAS lets NaN pass */
  return info == 0 ? EV_OK : ev_fail(EV_EINVAL, "the matrix is not positive definite");
}

/* Cholesky, step k: the column below the diagonal tile, A(i,k) ← A(i,k) L(k,k)⁻ᵀ. */
static void chol_column(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sweep *s = ctx;
  for (size_t i = s->k + 1 + begin; i < s->k + 1 + end; i++)
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, edge(s, i), T, 1, tile(s->a, s->k, s->k), T, tile(s->a, i, s->k), T);
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
    if (i == j) cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, edge(s, i), T, -1, li, T, 1, tile(s->a, i, i), T);
    else cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, edge(s, i), T, T, -1, li, T, lj, T, 1, tile(s->a, i, j), T);
  }
}

/* Inverse of L by columns: with M = L⁻¹, M(i,j) = −M(i,i) Σ_{j<=k<i} L(i,k) M(k,j). Step k makes row k of M:
 * every tile (k, j), j < k, needs rows of M above and row k of L, which is still whole. */
static void invert_row(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sweep *s = ctx;
  int n = edge(s, s->k);
  for (size_t j = begin; j < end; j++) {
    float *sum = s->scratch + j * AREA;
    for (size_t k = j; k < s->k; k++) /* M(j,j) is lower triangular with zeros above, like any tile to sgemm */
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, T, T, -1, tile(s->a, s->k, k), T, tile(s->a, k, j), T, k > j, sum, T);
    cblas_strmm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, n, T, 1, tile(s->a, s->k, s->k), T, sum, T);
  }
}

/* P = MᵀM by columns of P: P(i,j) = Σ_{k>=i} M(k,i)ᵀ M(k,j), i >= j. Row i of P may overwrite row i of M, because
 * later rows of P need only rows of M below: rows are made from the top. M(i,i), which all of row i needs, is kept aside. */
static void square_row(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sweep *s = ctx;
  size_t i = s->k;
  int n = edge(s, i);
  for (size_t x = begin; x < end; x++) {
    size_t j = i - x; /* the diagonal tile first */
    float *out = tile(s->a, i, j);
    if (j < i) {
      cblas_strmm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, n, T, 1, s->scratch, T, out, T);
      for (size_t k = i + 1; k < s->t; k++)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, T, edge(s, k), 1, tile(s->a, k, i), T, tile(s->a, k, j), T, 1, out, T);
      continue;
    }
    int info;
    slauum_("U", &n, out, &side, &info, 1); /* row-major lower L: LᵀL = (column-major upper U) U Uᵀ */
    for (size_t k = i + 1; k < s->t; k++) cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, n, edge(s, k), 1, tile(s->a, k, i), T, 1, out, T);
    for (int r = 0; r < n; r++) /* both triangles of a diagonal tile, so that a row of it is a run */
      for (int c = 0; c < r; c++) out[(size_t)c * T + r] = out[(size_t)r * T + c];
  }
}

static void clear_above(float *d) {
  for (size_t i = 0; i < T; i++) memset(d + i * T + i + 1, 0, (T - i - 1) * sizeof *d);
}

ev_status ev_sym_inverse(float *a, size_t n) {
  sweep s = {.a = a, .n = n, .t = tiles_of(n)};
  if (n == 0) return EV_OK;
  s.scratch = ev_alloc(s.t, AREA * sizeof *s.scratch);
  if (s.scratch == NULL) return EV_ENOMEM;
  ev_status status = EV_OK;
  for (s.k = 0; s.k < s.t && status == EV_OK; s.k++) {
    size_t m = s.t - s.k - 1;
    if (ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
    else status = potrf(&s);
    if (status != EV_OK) break;
    clear_above(tile(a, s.k, s.k));
    ev_parallel_for(m, 1, chol_column, &s);
    ev_parallel_for(m * (m + 1) / 2, 1, chol_trailing, &s);
  }
  for (s.k = 0; s.k < s.t && status == EV_OK; s.k++) {
    int info, last = edge(&s, s.k);
    if (ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
    strtri_("U", "N", &last, tile(a, s.k, s.k), &side, &info, 1, 1);
    ev_parallel_for(s.k, 1, invert_row, &s);
    for (size_t j = 0; j < s.k; j++) memcpy(tile(a, s.k, j), s.scratch + j * AREA, (size_t)last * T * sizeof *a);
  }
  for (s.k = 0; s.k < s.t && status == EV_OK; s.k++) {
    if (ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
    memcpy(s.scratch, tile(a, s.k, s.k), AREA * sizeof *a);
    ev_parallel_for(s.k + 1, 1, square_row, &s);
  }
  ev_free(s.scratch);
  return status;
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
