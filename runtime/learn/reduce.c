/* reduce.c - sums, means, maxima and log-sums of exponentials along one dimension or over everything.
 *
 * A tensor is seen as (outer, n, inner), n being what goes. Sums are those that come back from a broadcast (broadcast.c).
 * Nothing has the sum 0, the mean 0, and the maximum and log-sum −∞. A maximum's gradient goes to the first of equals. */
#include <math.h>

#include "broadcast.h"

#define CHUNK 512 /* columns taken together where n does not stand innermost */

static int dim_of(const ev_node *n) { return (int)n->attr[0]; }

static ev_status infer(const ev_graph *g, ev_node *n) {
  int64_t dim, keep = 0;
  EV_TRY(ev_op_floats(g, n));
  const ev_shape *x = &ev_op_in(g, n, 0)->shape;
  EV_TRY(ev_op_integer(g, n, 0, "dimension", -1, (int64_t)x->rank - 1, &dim));
  EV_TRY(ev_op_integer(g, n, 1, "keep", 0, 1, &keep));
  n->shape = (ev_shape){.axis = dim == 0 || dim == -1 ? 0 : x->axis};
  for (unsigned i = 0; i < x->rank; i++) {
    bool goes = dim == -1 || dim == (int64_t)i;
    if (!goes || keep) n->shape.dim[n->shape.rank++] = goes ? 1 : x->dim[i];
  }
  return EV_OK;
}

/* The result's shape with a 1 for what went: it repeats to x. */
static ev_shape kept_shape(const ev_node *n, const ev_shape *x) {
  ev_shape s = *x;
  for (unsigned i = 0; i < x->rank; i++)
    if (dim_of(n) == -1 || dim_of(n) == (int)i) s.dim[i] = 1;
  return s;
}

typedef struct split {
  size_t outer, n, inner;
} split;

static split split_of(const ev_node *n, const ev_shape *x) {
  if (dim_of(n) == -1) return (split){1, ev_shape_size(x), 1};
  split s = {1, 1, 1};
  for (int i = 0; i < (int)x->rank; i++) *(i < dim_of(n) ? &s.outer : i == dim_of(n) ? &s.n : &s.inner) *= x->dim[i];
  return s;
}

/* ---- Sum and mean --------------------------------------------------------------------------------------------*/
static bool is_mean(const ev_node *n) { return n->op->name[0] == 'm'; }

static ev_status sum_forward(ev_call *c) {
  ev_shape target = kept_shape(c->node, &c->in_shape[0]);
  ev_broadcast_back(c->out, &target, false, c->in[0], &c->in_shape[0], NULL, NULL, NULL, NULL, EV_ZIP_ADD, 0, c->scratch);
  size_t n = split_of(c->node, &c->in_shape[0]).n;
  if (is_mean(c->node) && n > 0) ev_scale(c->out, 1 / (float)n, ev_shape_size(&target));
  return EV_OK;
}

static ev_status sum_backward(ev_call *c) {
  static const ev_shape scalar;
  if (c->grad_in[0] == NULL) return EV_OK;
  ev_shape target = kept_shape(c->node, &c->in_shape[0]);
  size_t n = split_of(c->node, &c->in_shape[0]).n;
  float share = is_mean(c->node) && n > 0 ? 1 / (float)n : 1;
  ev_broadcast(c->grad_in[0], &c->in_shape[0], c->grad, &target, &share, &scalar, EV_ZIP_MUL, c->add[0]);
  return EV_OK;
}

static size_t sum_scratch(const ev_graph *g, const ev_node *n) {
  ev_shape target = kept_shape(n, &ev_op_in(g, n, 0)->shape);
  return ev_broadcast_scratch(&target, &ev_op_in(g, n, 0)->shape);
}

/* ---- Maximum and log-sum of exponentials ------------------------------------------------------------------------*/
typedef struct job {
  split s;
  bool logsumexp, add;
  const float *x, *y, *g;
  float *out; /* y, or the gradient of x */
} job;

static void rows_forward(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  (j->logsumexp ? ev_logsumexp_rows : ev_max_rows)(j->out + begin, j->x + begin * j->s.n, end - begin, j->s.n);
}

static void rows_backward(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  size_t at = begin * j->s.n;
  (j->logsumexp ? ev_logsumexp_back : ev_max_back)(j->out + at, j->g + begin, j->x + at, j->y + begin, j->add, end - begin, j->s.n);
}

/* One piece: `some` columns of one outer index, whose first element is at `at` in x and at `to` in the result. */
typedef struct piece {
  size_t at, to, some;
} piece;

static piece piece_of(const split *s, size_t i) {
  size_t pieces = (s->inner + CHUNK - 1) / CHUNK, o = i / pieces, from = i % pieces * CHUNK;
  return (piece){o * s->n * s->inner + from, o * s->inner + from, s->inner - from < CHUNK ? s->inner - from : CHUNK};
}

static void zip_row(float *out, const float *x, const float *y, ev_zip_kind f, bool add, size_t n) {
  ev_plane a = {x, 0, 1}, b = {y, 0, 1};
  ev_zip(out, 0, &a, &b, f, add, 1, n);
}

static void columns_forward(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  for (size_t i = begin; i < end; i++) {
    piece p = piece_of(&j->s, i);
    float *y = j->out + p.to, shifted[CHUNK], e[CHUNK], sum[CHUNK] = {0};
    for (size_t k = 0; k < p.some; k++) y[k] = -INFINITY;
    for (size_t r = 0; r < j->s.n; r++) zip_row(y, y, j->x + p.at + r * j->s.inner, EV_ZIP_MAX, false, p.some);
    if (!j->logsumexp) continue;
    for (size_t r = 0; r < j->s.n; r++) {
      zip_row(shifted, j->x + p.at + r * j->s.inner, y, EV_ZIP_SUB, false, p.some);
      ev_map_apply(e, shifted, EV_MAP_EXP, 0, 0, p.some);
      ev_axpy(sum, e, 1, p.some);
    }
    for (size_t k = 0; k < p.some; k++)
      if (!isinf(y[k])) y[k] += logf(sum[k]);
  }
}

/* The first that is the largest takes all that is left of the gradient. */
static void take(float *restrict out, float *restrict left, const float *restrict x, const float *restrict y, bool add, size_t n) {
  for (size_t k = 0; k < n; k++) {
    float given = x[k] == y[k] ? left[k] : 0;
    left[k] = x[k] == y[k] ? 0 : left[k];
    out[k] = add ? out[k] + given : given;
  }
}

static void columns_backward(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  for (size_t i = begin; i < end; i++) {
    piece p = piece_of(&j->s, i);
    const float *g = j->g + p.to, *y = j->y + p.to;
    float left[CHUNK], shift[CHUNK], shifted[CHUNK];
    for (size_t k = 0; k < p.some; k++) left[k] = j->logsumexp && y[k] == -INFINITY ? 0 : g[k], shift[k] = y[k] == -INFINITY ? 0 : y[k];
    for (size_t r = 0; r < j->s.n; r++) {
      const float *x = j->x + p.at + r * j->s.inner;
      float *out = j->out + p.at + r * j->s.inner;
      if (j->logsumexp) {
        zip_row(shifted, x, shift, EV_ZIP_SUB, false, p.some);
        ev_map_apply(shifted, shifted, EV_MAP_EXP, 0, 0, p.some);
        zip_row(out, shifted, left, EV_ZIP_MUL, j->add, p.some);
      } else {
        take(out, left, x, y, j->add, p.some);
      }
    }
  }
}

static void run(job *j, ev_range_fn *rows, ev_range_fn *columns) {
  if (j->s.inner == 1) ev_parallel_for(j->s.outer, ev_slice_rows(j->s.n), rows, j);
  else if (j->s.inner > 1) ev_parallel_for(j->s.outer * ((j->s.inner + CHUNK - 1) / CHUNK), ev_slice_rows(j->s.n * (j->s.inner < CHUNK ? j->s.inner : CHUNK)), columns, j);
}

static bool is_logsumexp(const ev_node *n) { return n->op->name[0] == 'l'; }

static ev_status most_forward(ev_call *c) {
  job j = {.s = split_of(c->node, &c->in_shape[0]), .logsumexp = is_logsumexp(c->node), .x = c->in[0], .out = c->out};
  run(&j, rows_forward, columns_forward);
  return EV_OK;
}

static ev_status most_backward(ev_call *c) {
  job j = {.s = split_of(c->node, &c->in_shape[0]), .logsumexp = is_logsumexp(c->node), .add = c->add[0], .x = c->in[0], .y = c->out, .g = c->grad, .out = c->grad_in[0]};
  if (j.out != NULL) run(&j, rows_backward, columns_backward);
  return EV_OK;
}

const ev_op ev_ops_reduce[] = {
    {"sum", 1, 1, 1, 2, 0, infer, sum_forward, sum_backward, NULL, sum_scratch},
    {"mean", 1, 1, 1, 2, 0, infer, sum_forward, sum_backward, NULL, sum_scratch},
    {"max", 1, 1, 1, 2, EV_BACK_IN | EV_BACK_OUT, infer, most_forward, most_backward, NULL, NULL},
    {"logsumexp", 1, 1, 1, 2, EV_BACK_IN | EV_BACK_OUT, infer, most_forward, most_backward, NULL, NULL},
    {.name = NULL},
};
