/* svd.c - the leading singular values and right vectors of a sparse matrix.
 *
 * Block Lanczos on M = AᵀA (Golub, Underwood 1977; from a random block: Musco and Musco 2015), every new block made
 * orthogonal to the whole basis, twice, and the basis cut back to its best Ritz vectors when it is full (thick restart,
 * Wu and Simon 2000). With M Q = Q H + Q₊ R Eᵀ, a Ritz pair H y = θ y is off by |R y_last|, so convergence costs nothing
 * to know. Iterating a block with powers or Chebyshev polynomials of M (Halko, Martinsson, Tropp 2011) needs about ten times
 * the products, and in single precision a filter steep enough to be fast drowns the small values in the large ones.
 *
 * Products are sparse.c's, the rest is BLAS and LAPACK over row blocks whose bounds depend on the shape alone, shared out
 * by our pool: the same bits for any number of threads. */
#include <cblas.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "kernels.h"
#include "lapack.h"

#define ROWS 1024    /* rows of the basis in a BLAS call; at least the largest block */
#define QR_ROWS 512  /* rows factored together */
#define BLOCK_MAX 64

typedef struct lanczos {
  const ev_sparse *a;
  ev_sparse at;
  size_t n, s, limit, dim; /* length of a vector, vectors a block, room and vectors in the basis */
  float *q;       /* (n, limit) the basis, by rows */
  float *w;       /* (n, s) the block at work */
  float *u;       /* (n_rows, s) A w */
  float *h;       /* (limit, limit) symmetric */
  float *c;       /* (limit, s) coefficients */
  float *parts;   /* (row blocks, limit, s) */
  float *r;       /* (s, s) what ties the next block to the last */
  float *stack, *tau;      /* (QR blocks, s, s) and (QR blocks, s) */
  float *values, *vectors; /* (limit) and (limit, limit) of H, best first */
  const float *map;        /* (m, dim): what rotate() makes of the basis */
  size_t m;
  ev_rng rng;
  atomic_int failed;
} lanczos;

static size_t row_blocks(const lanczos *l) { return (l->n + ROWS - 1) / ROWS; }
static size_t rows_of(const lanczos *l, size_t block) { return l->n - block * ROWS < ROWS ? l->n - block * ROWS : ROWS; }
static size_t qr_blocks(const lanczos *l) { return l->n < 2 * QR_ROWS ? 1 : l->n / QR_ROWS; }
static size_t qr_rows(const lanczos *l, size_t block) { return block + 1 < qr_blocks(l) ? QR_ROWS : l->n - block * QR_ROWS; }

/* ---- Steps over row blocks -----------------------------------------------------------------------------*/
static void project_block(void *ctx, size_t begin, size_t end, int worker) { /* parts[b] = Q_bᵀ W_b */
  (void)worker;
  lanczos *l = ctx;
  for (size_t b = begin; b < end; b++)
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)l->dim, (int)l->s, (int)rows_of(l, b), 1, l->q + b * ROWS * l->limit, (int)l->limit,
                l->w + b * ROWS * l->s, (int)l->s, 0, l->parts + b * l->limit * l->s, (int)l->s);
}

static void subtract_block(void *ctx, size_t begin, size_t end, int worker) { /* W_b −= Q_b C */
  (void)worker;
  lanczos *l = ctx;
  for (size_t b = begin; b < end; b++)
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows_of(l, b), (int)l->s, (int)l->dim, -1, l->q + b * ROWS * l->limit, (int)l->limit,
                l->c, (int)l->s, 1, l->w + b * ROWS * l->s, (int)l->s);
}

/* W −= Q (QᵀW), the coefficients left in c. */
static void orthogonalise(lanczos *l) {
  ev_parallel_for(row_blocks(l), 1, project_block, l);
  memcpy(l->c, l->parts, l->dim * l->s * sizeof *l->c);
  for (size_t b = 1; b < row_blocks(l); b++) ev_axpy(l->c, l->parts + b * l->limit * l->s, 1, l->dim * l->s);
  ev_parallel_for(row_blocks(l), 1, subtract_block, l);
}

/* ---- W = Q R by a tree of Householder factorisations of row blocks (TSQR, Demmel et al. 2012) --------------------------
 * LAPACK's columns are our rows: the row-major block is factored as its transpose, L Q. */
static ev_status factor(float *a, size_t rows, size_t s, float *tau, float *r) {
  float work[BLOCK_MAX * 64];
  int m = (int)s, n = (int)rows, lwork = BLOCK_MAX * 64, info;
  sgelqf_(&m, &n, a, &m, tau, work, &lwork, &info);
  for (size_t i = 0; i < s && info == 0; i++)
    for (size_t j = 0; j < s; j++) r[i * s + j] = j < i ? 0 : a[i * s + j];
  if (info == 0) sorglq_(&m, &n, &m, a, &m, tau, work, &lwork, &info);
  return info == 0 ? EV_OK : EV_EINVAL;
}

static void factor_block(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  lanczos *l = ctx;
  for (size_t b = begin; b < end; b++)
    if (factor(l->w + b * QR_ROWS * l->s, qr_rows(l, b), l->s, l->tau + b * l->s, l->stack + b * l->s * l->s) != EV_OK) atomic_store(&l->failed, EV_EINVAL);
}

static void apply_block(void *ctx, size_t begin, size_t end, int worker) { /* W_b ← W_b times its part of the stack's Q */
  (void)worker;
  lanczos *l = ctx;
  float *made = ev_alloc(2 * QR_ROWS, l->s * sizeof *made);
  if (made == NULL) {
    atomic_store(&l->failed, EV_ENOMEM);
    return;
  }
  for (size_t b = begin; b < end; b++) {
    float *rows = l->w + b * QR_ROWS * l->s;
    ev_gemm_nn(made, rows, l->stack + b * l->s * l->s, 0, qr_rows(l, b), l->s, l->s);
    memcpy(rows, made, qr_rows(l, b) * l->s * sizeof *made);
  }
  ev_free(made);
}

/* r (s, s): the factor. Columns that depend on others come out as some unit vectors, with a zero on r's diagonal. */
static void orthonormalise(lanczos *l, float *r) {
  ev_parallel_for(qr_blocks(l), 1, factor_block, l);
  if (atomic_load(&l->failed) != EV_OK) return;
  if (qr_blocks(l) == 1) {
    memcpy(r, l->stack, l->s * l->s * sizeof *r);
    return;
  }
  if (factor(l->stack, qr_blocks(l) * l->s, l->s, l->tau, r) != EV_OK) atomic_store(&l->failed, EV_EINVAL);
  ev_parallel_for(qr_blocks(l), 4, apply_block, l);
}

/* ---- Rayleigh, Ritz ------------------------------------------------------------------------------------*/
/* Eigenvalues (n), descending, and vectors (n, n), one a row, of the symmetric a (n, n), which is used up. */
static ev_status eigen(float *values, float *vectors, float *a, size_t n) {
  int size = (int)n, lwork = (int)(1 + 6 * n + 2 * n * n), liwork = (int)(3 + 5 * n), info;
  if (n > 30000) return ev_fail(EV_ELIMIT, "an eigenproblem of order %zu", n);
  float *work = ev_alloc((size_t)lwork, sizeof *work), *ascending = ev_alloc(n, sizeof *ascending);
  int *iwork = ev_alloc((size_t)liwork, sizeof *iwork);
  ev_status status = work == NULL || ascending == NULL || iwork == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    ssyevd_("V", "L", &size, a, &size, ascending, work, &lwork, iwork, &liwork, &info, 1, 1);
    if (info != 0) status = ev_fail(EV_EINVAL, "ssyevd: %d", info);
  }
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    values[i] = ascending[n - 1 - i];
    memcpy(vectors + i * n, a + (n - 1 - i) * n, n * sizeof *vectors);
  }
  ev_free(work);
  ev_free(ascending);
  ev_free(iwork);
  return status;
}

static void rotate_block(void *ctx, size_t begin, size_t end, int worker) { /* Q_b ← Q_b mapᵀ, in its first m columns */
  (void)worker;
  lanczos *l = ctx;
  enum { FEW = 256 };
  float *made = ev_alloc(FEW, l->m * sizeof *made);
  if (made == NULL) {
    atomic_store(&l->failed, EV_ENOMEM);
    return;
  }
  for (size_t row = begin * FEW; row < end * FEW && row < l->n; row += FEW) {
    size_t rows = l->n - row < FEW ? l->n - row : FEW;
    float *q = l->q + row * l->limit;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)l->m, (int)l->dim, 1, q, (int)l->limit, l->map, (int)l->dim, 0, made, (int)l->m);
    for (size_t i = 0; i < rows; i++) memcpy(q + i * l->limit, made + i * l->m, l->m * sizeof *made);
  }
  ev_free(made);
}

/* The basis becomes its m best Ritz vectors. */
static void rotate(lanczos *l, size_t m) {
  l->map = l->vectors;
  l->m = m;
  ev_parallel_for((l->n + 255) / 256, 4, rotate_block, l);
  l->dim = m;
}

static ev_status ritz(lanczos *l) {
  float *copy = ev_alloc(l->dim, l->dim * sizeof *copy);
  if (copy == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < l->dim; i++) memcpy(copy + i * l->dim, l->h + i * l->limit, l->dim * sizeof *copy);
  ev_status status = eigen(l->values, l->vectors, copy, l->dim);
  ev_free(copy);
  return status;
}

static double residual(const lanczos *l, size_t i) { /* |R y_last| of pair i */
  const float *y = l->vectors + i * l->dim + l->dim - l->s;
  double sum = 0;
  for (size_t a = 0; a < l->s; a++) {
    double x = 0;
    for (size_t b = 0; b < l->s; b++) x += (double)l->r[a * l->s + b] * y[b];
    sum += x * x;
  }
  return sqrt(sum);
}

static bool all_finite(const float *x, size_t n) {
  float sum = ev_sum(x, n);
  return sum - sum == 0;
}

/* ---- The iteration -------------------------------------------------------------------------------------*/
static ev_status state(lanczos *l) {
  ev_status status = (ev_status)atomic_load(&l->failed);
  if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
  if (status == EV_ENOMEM) return ev_fail(status, "out of memory: %zu vectors of %zu", l->limit, l->n);
  return status == EV_OK ? EV_OK : ev_fail(status, "a block of vectors cannot be made orthogonal");
}

/* Where the basis already holds all that M makes of it, a column of W is rounding: chance takes its place, tied by nothing.
 * Returns whether there was such a column. */
static bool replace_noise(lanczos *l, float *r) {
  float lo, hi;
  bool any = false;
  ev_minmax(&lo, &hi, l->c, l->dim * l->s);
  float least = 1e-6f * fmaxf(fabsf(lo), fabsf(hi));
  for (size_t j = 0; j < l->s; j++) {
    if (fabsf(r[j * l->s + j]) > least) continue;
    for (size_t i = 0; i < l->n; i++) l->w[i * l->s + j] = (float)ev_rng_normal(&l->rng);
    memset(r + j * l->s, 0, l->s * sizeof *r);
    any = true;
  }
  return any;
}

/* Adds W to the basis and its column to H; W becomes the next block, tied by R. */
static ev_status expand(lanczos *l) {
  float first[BLOCK_MAX * BLOCK_MAX], second[BLOCK_MAX * BLOCK_MAX];
  size_t s = l->s, begin = l->dim;
  for (size_t i = 0; i < l->n; i++) memcpy(l->q + i * l->limit + begin, l->w + i * s, s * sizeof *l->w);
  l->dim += s;
  ev_sparse_mul(l->u, s, l->a, l->w, s, s, 1, 0);
  ev_sparse_mul(l->w, s, &l->at, l->u, s, s, 1, 0);
  orthogonalise(l);
  for (size_t i = 0; i < l->dim; i++)
    for (size_t j = 0; j < s; j++) l->h[i * l->limit + begin + j] = l->h[(begin + j) * l->limit + i] = l->c[i * s + j];
  if (!all_finite(l->c, l->dim * s)) return ev_fail(EV_EINVAL, "the matrix has weights that are no finite numbers");
  orthonormalise(l, first);
  EV_TRY(state(l));
  bool noise = replace_noise(l, first);
  for (int pass = 0; pass < (noise ? 2 : 1); pass++) { /* once leaves rounding of the size of what was taken away */
    orthogonalise(l);
    orthonormalise(l, second);
    EV_TRY(state(l));
    ev_gemm_nn(l->r, second, first, 0, s, s, s);
    memcpy(first, l->r, s * s * sizeof *first);
  }
  return EV_OK;
}

static ev_status iterate(lanczos *l, float *sigma, float *v, const ev_svd_options *o) {
  float r[BLOCK_MAX * BLOCK_MAX];
  size_t keep = o->k + (l->limit - o->k) / 3;
  ev_rng_seed(&l->rng, o->seed, 21);
  for (size_t i = 0; i < l->n * l->s; i++) l->w[i] = (float)ev_rng_normal(&l->rng);
  orthonormalise(l, r);
  EV_TRY(state(l));
  for (unsigned round = 0;; round++) {
    while (l->dim + l->s <= l->limit) EV_TRY(expand(l));
    EV_TRY(ritz(l));
    size_t good = 0;
    double worst = 0, bound = (double)o->tolerance * fmax((double)l->values[0], 1e-30);
    for (size_t i = 0; i < o->k; i++) {
      double off = residual(l, i);
      good += off <= bound;
      worst = fmax(worst, off);
    }
    if (o->report != NULL) o->report(o->ctx, (double)good / (double)o->k, worst / fmax((double)l->values[0], 1e-30));
    if (good == o->k || round >= o->max_rounds) break;
    rotate(l, keep);
    memset(l->h, 0, l->limit * l->limit * sizeof *l->h);
    for (size_t i = 0; i < keep; i++) l->h[i * l->limit + i] = l->values[i];
    EV_TRY(state(l));
  }
  for (size_t i = 0; i < o->k; i++) sigma[i] = sqrtf(fmaxf(l->values[i], 0));
  rotate(l, o->k);
  EV_TRY(state(l));
  for (size_t i = 0; i < l->n; i++) memcpy(v + i * o->k, l->q + i * l->limit, o->k * sizeof *v);
  return EV_OK;
}

/* A matrix with few columns is multiplied out and solved whole. */
static ev_status whole(float *sigma, float *v, const ev_sparse *a, size_t k) {
  size_t n = a->n_cols, width = n < 64 ? n : 64;
  ev_sparse at = ev_sparse_transposed(a);
  float *m = ev_alloc(n, n * sizeof *m), *x = ev_alloc(n, width * sizeof *x), *u = ev_alloc(a->n_rows, width * sizeof *u);
  float *values = ev_alloc(n, sizeof *values), *vectors = ev_alloc(n, n * sizeof *vectors);
  ev_status status = m == NULL || x == NULL || u == NULL || values == NULL || vectors == NULL ? EV_ENOMEM : EV_OK;
  for (size_t first = 0; first < n && status == EV_OK; first += width) { /* columns of the identity, by panels */
    size_t w = n - first < width ? n - first : width;
    memset(x, 0, n * width * sizeof *x);
    for (size_t i = 0; i < w; i++) x[(first + i) * width + i] = 1;
    ev_sparse_mul(u, width, a, x, width, w, 1, 0);
    ev_sparse_mul(m + first, n, &at, u, width, w, 1, 0);
    if (ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
  }
  if (status == EV_OK && !all_finite(m, n * n)) status = ev_fail(EV_EINVAL, "the matrix has weights that are no finite numbers");
  if (status == EV_OK) status = eigen(values, vectors, m, n);
  for (size_t i = 0; i < k && status == EV_OK; i++) {
    sigma[i] = sqrtf(fmaxf(values[i], 0));
    for (size_t j = 0; j < n; j++) v[j * k + i] = vectors[i * n + j];
  }
  void *blocks[] = {m, x, u, values, vectors};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  return status;
}

ev_status ev_sparse_svd(float *sigma, float *v, const ev_sparse *a, const ev_svd_options *o) {
  size_t most = a->n_rows < a->n_cols ? a->n_rows : a->n_cols;
  if (o->k == 0 || o->k > most) return ev_fail(EV_EINVAL, "%zu singular values of a %zu x %zu matrix", o->k, a->n_rows, a->n_cols);
  lanczos l = {.a = a, .at = ev_sparse_transposed(a), .n = a->n_cols};
  l.s = o->k <= 256 ? 16 : o->k <= 512 ? 32 : BLOCK_MAX; /* a cache line at least; wider blocks make fewer, dearer steps */
  l.limit = (2 * o->k + 8 * l.s + l.s - 1) / l.s * l.s;
  if (2 * l.limit > l.n || l.n <= 512) return whole(sigma, v, a, o->k);
  atomic_init(&l.failed, EV_OK);
  ev_status status = EV_ENOMEM;
  l.q = ev_alloc(l.n, l.limit * sizeof *l.q);
  l.w = ev_alloc(l.n, l.s * sizeof *l.w);
  l.u = ev_alloc(a->n_rows, l.s * sizeof *l.u);
  l.h = ev_zalloc(l.limit, l.limit * sizeof *l.h);
  l.c = ev_alloc(l.limit, l.s * sizeof *l.c);
  l.parts = ev_alloc(row_blocks(&l) * l.limit, l.s * sizeof *l.parts);
  l.r = ev_alloc(l.s, l.s * sizeof *l.r);
  l.stack = ev_alloc(qr_blocks(&l) * l.s, l.s * sizeof *l.stack);
  l.tau = ev_alloc(qr_blocks(&l), l.s * sizeof *l.tau);
  l.values = ev_alloc(l.limit, sizeof *l.values);
  l.vectors = ev_alloc(l.limit, l.limit * sizeof *l.vectors);
  if (l.q != NULL && l.w != NULL && l.u != NULL && l.h != NULL && l.c != NULL && l.parts != NULL && l.r != NULL && l.stack != NULL && l.tau != NULL &&
      l.values != NULL && l.vectors != NULL)
    status = iterate(&l, sigma, v, o);
  void *blocks[] = {l.q, l.w, l.u, l.h, l.c, l.parts, l.r, l.stack, l.tau, l.values, l.vectors};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  return status;
}
