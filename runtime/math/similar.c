/* similar.c - similarities as they are defined, one query to many rows and many to many.
 *
 * Squared distances are summed from differences: |x|² − 2 x·y + |y|² loses the digits of near vectors. Eight-bit rows take
 * that way all the same, with exact whole sums and doubles. Cosines of vectors whose squares leave the range of a float
 * are computed again in double. */
#include <cblas.h>
#include <math.h>
#include <stdatomic.h>

#include "kernels.h"

#define TILE 512
#define GROUP 256
#define BLAS_FROM 8

typedef struct similar {
  const ev_form_kernels *form;
  ev_form f;
  ev_similarity s;
  const float *q;
  const int8_t *codes; /* (m, d) of queries against i8 rows, or NULL */
  float *weights;      /* (m) scale of a query's code; cosine: 1 / |code|, NaN: to be done in double */
  double *squares;     /* (m) |code|², for l2 by products; or NULL */
  const char *rows;
  const float *scales;
  size_t m, n, d, stride;
  float *out;
  atomic_int failed;
} similar;

static const void *query(const similar *c, size_t i) { return c->codes != NULL ? (const void *)(c->codes + i * c->d) : c->q + i * c->d; }

/* 1 / |x| of a vector with this square, 0 for the zero vector, NaN where the square is not to be trusted. */
static float inverse(float square, const void *x, size_t bytes) {
  if (square > 1e-30f && square < 1e30f) return 1 / sqrtf(square);
  if (square == 0) {
    const char *p = x;
    size_t i = 0;
    while (i < bytes && p[i] == 0) i++;
    if (i == bytes) return 0;
  }
  return NAN;
}

static double element(const void *x, ev_form f, size_t i) {
  float v;
  ev_form_decode(&v, (const char *)x + i * ev_form_bytes(f), 1, f, 1);
  return v;
}

static float careful_cosine(const similar *c, size_t i, const void *row) {
  double dot = 0, qq = 0, rr = 0;
  for (size_t k = 0; k < c->d; k++) {
    double x = element(query(c, i), c->codes != NULL ? EV_FORM_I8 : EV_FORM_F32, k), y = element(row, c->f, k);
    dot += x * y, qq += x * x, rr += y * y;
  }
  return qq == 0 || rr == 0 ? 0 : (float)(dot / (sqrt(qq) * sqrt(rr)));
}

/* Queries [begin, end) against n <= TILE rows from `first` on; decoded has room for a tile where it is wanted. */
static void score_tile(const similar *c, size_t begin, size_t end, size_t first, size_t n, float *decoded) {
  const char *rows = c->rows + first * c->stride;
  const float *scales = c->scales != NULL ? c->scales + first : NULL;
  float inverses[TILE];
  double squares[TILE];
  bool products = c->s != EV_L2 || c->squares != NULL, careful = false;
  if (c->s == EV_COSINE) {
    for (size_t j = 0; j < n; j++) {
      inverses[j] = inverse(c->form->pair(rows + j * c->stride, rows + j * c->stride, c->d), rows + j * c->stride, c->stride);
      careful |= isnan(inverses[j]);
    }
    for (size_t j = 0; j < n && scales != NULL; j++)
      if (scales[j] == 0) inverses[j] = 0;
  } else if (c->squares != NULL) {
    for (size_t j = 0; j < n; j++) {
      double scale = scales != NULL ? scales[j] : 1;
      squares[j] = c->form->pair(rows + j * c->stride, rows + j * c->stride, c->d) * scale * scale;
    }
  }
  bool blas = products && end - begin >= BLAS_FROM && decoded != NULL;
  if (blas) {
    const float *x = (const float *)(const void *)rows;
    if (c->f != EV_FORM_F32) c->form->decode(decoded, rows, 1, n * c->d), x = decoded;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)(end - begin), (int)n, (int)c->d, 1, c->q + begin * c->d, (int)c->d, x, (int)c->d, 0,
                c->out + begin * c->n + first, (int)c->n);
  }
  for (size_t i = begin; i < end; i++) {
    float *out = c->out + i * c->n + first;
    if (!products) {
      c->form->distances(out, query(c, i), rows, c->stride, n, c->d);
      ev_scale(out, -1, n);
      continue;
    }
    if (!blas) c->form->dots(out, query(c, i), rows, c->stride, n, c->d);
    if (c->s == EV_DOT && (scales != NULL || c->weights[i] != 1)) ev_kernels_now()->affine(out, c->weights[i], scales, NULL, n);
    if (c->s == EV_COSINE) {
      ev_kernels_now()->affine(out, c->weights[i], inverses, NULL, n);
      for (size_t j = 0; j < n && (careful || isnan(c->weights[i])); j++)
        if (isnan(out[j])) out[j] = scales != NULL && scales[j] == 0 ? 0 : careful_cosine(c, i, rows + j * c->stride);
    }
    if (c->s == EV_L2)
      for (size_t j = 0; j < n; j++) {
        double square = c->squares[i] + squares[j] - 2.0 * c->weights[i] * (scales != NULL ? scales[j] : 1) * out[j];
        out[j] = square > 0 ? (float)-square : square == square ? 0 : NAN;
      }
  }
}

static void score_tiles(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  similar *c = ctx;
  float *decoded = NULL;
  size_t tiles = (c->n + TILE - 1) / TILE;
  if (ev_interrupted()) atomic_store(&c->failed, EV_EINTR);
  if (atomic_load(&c->failed) != EV_OK) return;
  if (c->m >= BLAS_FROM && c->f != EV_FORM_I8 && c->d > 0 && (decoded = ev_alloc(c->f == EV_FORM_F32 ? 0 : TILE * c->d, sizeof *decoded)) == NULL) {
    atomic_store(&c->failed, EV_ENOMEM);
    return;
  }
  for (size_t at = begin; at < end; at++) {
    size_t first = at % tiles * TILE, from = at / tiles * GROUP;
    score_tile(c, from, c->m - from < GROUP ? c->m : from + GROUP, first, c->n - first < TILE ? c->n - first : TILE, decoded);
  }
  ev_free(decoded);
}

static ev_status run(float *out, const float *q, const void *rows, const float *scales, ev_form f, ev_similarity s, size_t m, size_t n, size_t d, bool threads) {
  if (m == 0 || n == 0) return EV_OK;
  similar c = {.form = ev_kernels_now()->forms[f], .f = f, .s = s, .q = q, .rows = rows, .scales = scales, .m = m, .n = n, .d = d,
               .stride = d * ev_form_bytes(f), .out = out};
  atomic_init(&c.failed, EV_OK);
  int8_t *codes = NULL;
  ev_status status = EV_ENOMEM;
  if ((c.weights = ev_alloc(m, sizeof *c.weights)) == NULL) goto done;
  if (f == EV_FORM_I8 && (c.codes = codes = ev_alloc(m, d)) == NULL) goto done;
  if (s == EV_L2 && (f == EV_FORM_I8 || scales != NULL) && (c.squares = ev_alloc(m, sizeof *c.squares)) == NULL) goto done;
  for (size_t i = 0; i < m; i++) {
    c.weights[i] = 1;
    if (codes != NULL) c.form->encode(codes + i * d, &c.weights[i], q + i * d, d);
    ev_dot_fn *pair = ev_dot_pair_of(codes != NULL ? f : EV_FORM_F32);
    float square = s == EV_DOT ? 0 : pair(query(&c, i), query(&c, i), d);
    if (c.squares != NULL) c.squares[i] = (double)square * c.weights[i] * c.weights[i];
    if (s == EV_COSINE) c.weights[i] = inverse(square, query(&c, i), d * ev_form_bytes(codes != NULL ? f : EV_FORM_F32));
  }
  size_t parts = (n + TILE - 1) / TILE * ((m + GROUP - 1) / GROUP);
  if (threads) ev_parallel_for(parts, 1, score_tiles, &c);
  else score_tiles(&c, 0, parts, 0);
  status = (ev_status)atomic_load(&c.failed);
done:
  ev_free(codes);
  ev_free(c.weights);
  ev_free(c.squares);
  if (status == EV_ENOMEM) return ev_fail(status, "out of memory: similarities of %zu queries", m);
  if (status == EV_EINTR) return ev_fail(status, "interrupted");
  return status;
}

ev_status ev_similar(float *out, const float *q, const void *rows, const float *scales, ev_form f, ev_similarity s, size_t n, size_t d) {
  return run(out, q, rows, scales, f, s, 1, n, d, false);
}

ev_status ev_similar_many(float *out, const float *q, const void *rows, const float *scales, ev_form f, ev_similarity s, size_t m, size_t n, size_t d) {
  return run(out, q, rows, scales, f, s, m, n, d, true);
}
