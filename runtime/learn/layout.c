/* layout.c - the same numbers under other shapes and in other places: reshape, transpose, concat, slice.
 *
 * Only a first dimension can carry an axis, so whatever would move, join or cut a dimension that does is refused. */
#include <string.h>

#include "graph.h"

#define ALONE 262144 /* floats that the calling thread moves by itself */
#define SLICE 32768  /* floats a thread takes at a time otherwise */
#define EDGE 8       /* of a square that is transposed within the cache */
#define HEIGHT 64    /* of a slab of them: what is written next to each other */

static size_t product_of(const size_t *dim, unsigned from, unsigned to) {
  size_t n = 1;
  for (unsigned i = from; i < to; i++) n *= dim[i];
  return n;
}

/* How many of n runs make a slice. */
static size_t grain_of(size_t n, size_t run) {
  if (run == 0) run = 1;
  return n <= ALONE / run ? n : run >= SLICE ? 1 : SLICE / run;
}

/* out [+]= x. Nothing is said with memcpy about no elements. */
static void put(float *out, const float *x, bool add, size_t n) {
  if (n == 0) return;
  if (add) ev_axpy(out, x, 1, n);
  else memcpy(out, x, n * sizeof *out);
}

/* ---- reshape: a view ---------------------------------------------------------------------------------------*/
static ev_status reshape_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  const ev_shape *x = &ev_op_in(g, n, 0)->shape;
  size_t size = ev_shape_size(x), known = 1;
  int unknown = -1;
  n->shape = (ev_shape){.rank = n->n_attr};
  for (unsigned i = 0; i < n->n_attr; i++) {
    int64_t dim;
    EV_TRY(ev_op_integer(g, n, i, "dimension", -1, INT64_C(1) << 40, &dim));
    if (dim < 0 && unknown >= 0) return ev_op_wrong(g, n, "only one dimension may be -1");
    if (dim < 0) unknown = (int)i;
    else n->shape.dim[i] = (size_t)dim;
    if (dim > 0 && known > size / (size_t)dim) known = size + 1; /* too many, whatever else there is */
    else if (dim >= 0) known *= (size_t)dim;
  }
  if (unknown >= 0 && (known == 0 || size % known != 0))
    return ev_op_wrong(g, n, "%zu elements do not fill the other dimensions, which hold %zu", size, known);
  if (unknown >= 0) n->shape.dim[unknown] = size / known;
  char text[64];
  ev_shape_text(text, &n->shape);
  if (unknown < 0 && known != size) return ev_op_wrong(g, n, "%zu elements do not fill %s", size, text);
  if (x->axis != 0 && n->shape.dim[0] != x->dim[0])
    return ev_op_wrong(g, n, "%s would break the rows of its axis: the first dimension must stay %zu", text, x->dim[0]);
  n->shape.axis = x->axis;
  return EV_OK;
}

/* ---- transpose: two dimensions change places -----------------------------------------------------------------
 * As (outer, p, middle, q, inner) → (outer, q, middle, p, inner). */
typedef struct turn {
  float *out;
  const float *x;
  size_t p, middle, q, inner;
  bool add;
} turn;

typedef float quad __attribute__((vector_size(16)));

/* Four rows of four become four columns, in registers. */
static inline void turn_quads(float *out, size_t ld_out, const float *x, size_t ld_x, bool add) {
  quad r[4], o;
  for (size_t i = 0; i < 4; i++) memcpy(&r[i], x + i * ld_x, sizeof *r);
  quad a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
  quad c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7), d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  r[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5), r[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  r[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5), r[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
  for (size_t i = 0; i < 4; i++) {
    if (add) memcpy(&o, out + i * ld_out, sizeof o), r[i] += o;
    memcpy(out + i * ld_out, &r[i], sizeof *r);
  }
}

/* out (q, p) [+]= xᵀ for x (p, q) in rows ld_x apart, the rows of out ld_out apart: by squares, strips of rows after one another. */
static void turn_matrix(float *out, size_t ld_out, const float *x, size_t ld_x, bool add, size_t p, size_t q) {
  for (size_t i0 = 0; i0 < p; i0 += EDGE)
    for (size_t j0 = 0; j0 < q; j0 += EDGE) {
      size_t i1 = i0 + EDGE < p ? i0 + EDGE : p, j1 = j0 + EDGE < q ? j0 + EDGE : q, i = i0;
      for (; i + 4 <= i1; i += 4) {
        size_t j = j0;
        for (; j + 4 <= j1; j += 4) turn_quads(out + j * ld_out + i, ld_out, x + i * ld_x + j, ld_x, add);
        for (; j < j1; j++)
          for (size_t k = i; k < i + 4; k++) out[j * ld_out + k] = add ? out[j * ld_out + k] + x[k * ld_x + j] : x[k * ld_x + j];
      }
      for (; i < i1; i++)
        for (size_t j = j0; j < j1; j++) out[j * ld_out + i] = add ? out[j * ld_out + i] + x[i * ld_x + j] : x[i * ld_x + j];
    }
}

/* Slabs: (outer, middle, p or a part of it). */
static void turn_slabs(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const turn *t = ctx;
  size_t strips = (t->p + HEIGHT - 1) / HEIGHT;
  for (size_t s = begin; s < end; s++) {
    size_t from = s % strips * HEIGHT, to = from + HEIGHT < t->p ? from + HEIGHT : t->p, m = s / strips % t->middle, o = s / strips / t->middle;
    const float *x = t->x + o * t->p * t->middle * t->q * t->inner;
    float *out = t->out + o * t->p * t->middle * t->q * t->inner;
    if (t->inner == 1) {
      turn_matrix(out + m * t->p + from, t->middle * t->p, x + (from * t->middle + m) * t->q, t->middle * t->q, t->add, to - from, t->q);
      continue;
    }
    for (size_t i = from; i < to; i++)
      for (size_t j = 0; j < t->q; j++)
        put(out + ((j * t->middle + m) * t->p + i) * t->inner, x + ((i * t->middle + m) * t->q + j) * t->inner, t->add, t->inner);
  }
}

static void turn_all(float *out, const float *x, const ev_shape *s, const double *attr, bool add) {
  unsigned i = (unsigned)attr[0], j = (unsigned)attr[1];
  if (i > j) {
    unsigned k = i;
    i = j, j = k;
  }
  if (ev_shape_size(s) == 0) return;
  if (i == j) {
    put(out, x, add, ev_shape_size(s));
    return;
  }
  turn t = {out, x, s->dim[i], product_of(s->dim, i + 1, j), s->dim[j], product_of(s->dim, j + 1, s->rank), add};
  size_t slabs = product_of(s->dim, 0, i) * t.middle * ((t.p + HEIGHT - 1) / HEIGHT);
  ev_parallel_for(slabs, grain_of(slabs, (t.p < HEIGHT ? t.p : HEIGHT) * t.q * t.inner), turn_slabs, &t);
}

static ev_status transpose_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  int64_t i, j;
  const ev_shape *x = &ev_op_in(g, n, 0)->shape;
  if (x->rank == 0) return ev_op_wrong(g, n, "a scalar has no dimensions");
  EV_TRY(ev_op_integer(g, n, 0, "dimension", 0, (int64_t)x->rank - 1, &i));
  EV_TRY(ev_op_integer(g, n, 1, "dimension", 0, (int64_t)x->rank - 1, &j));
  if (x->axis != 0 && i != j && (i == 0 || j == 0)) return ev_op_wrong(g, n, "the first dimension is along an axis and must stay the first");
  n->shape = *x;
  n->shape.dim[i] = x->dim[j];
  n->shape.dim[j] = x->dim[i];
  return EV_OK;
}

static ev_status transpose_forward(ev_call *c) {
  turn_all(c->out, c->in[0], &c->in_shape[0], c->node->attr, false);
  return EV_OK;
}

static ev_status transpose_backward(ev_call *c) {
  if (c->grad_in[0] != NULL) turn_all(c->grad_in[0], c->grad, &c->shape, c->node->attr, c->add[0]);
  return EV_OK;
}

/* ---- Runs of floats from one place to another -----------------------------------------------------------------*/
typedef struct move {
  float *out;
  const float *x;
  size_t out_step, x_step, run; /* floats from one run to the next; floats in one */
  bool add;
} move;

static void move_runs(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const move *m = ctx;
  for (size_t i = begin; i < end; i++) put(m->out + i * m->out_step, m->x + i * m->x_step, m->add, m->run);
}

static void fill_runs(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const move *m = ctx;
  for (size_t i = begin; i < end; i++) memset(m->out + i * m->out_step, 0, m->run * sizeof(float));
}

/* One long run is cut, so that threads share it. */
static void move_all(size_t n, float *out, size_t out_step, const float *x, size_t x_step, size_t run, bool add) {
  if (n == 0 || run == 0) return;
  if (n == 1 && run > ALONE) {
    size_t whole = run / SLICE;
    ev_parallel_for(whole, 1, move_runs, &(move){out, x, SLICE, SLICE, SLICE, add});
    put(out + whole * SLICE, x + whole * SLICE, add, run % SLICE);
  } else {
    ev_parallel_for(n, grain_of(n, run), move_runs, &(move){out, x, out_step, x_step, run, add});
  }
}

static void zero_all(size_t n, float *out, size_t out_step, size_t run) {
  if (n > 0 && run > 0) ev_parallel_for(n, grain_of(n, run), fill_runs, &(move){.out = out, .out_step = out_step, .run = run});
}

/* ---- concat --------------------------------------------------------------------------------------------------*/
static ev_status concat_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  const ev_shape *x = &ev_op_in(g, n, 0)->shape;
  if (x->rank == 0) return ev_op_wrong(g, n, "scalars have no dimension to be joined along");
  int64_t dim;
  EV_TRY(ev_op_integer(g, n, 0, "dimension", 0, (int64_t)x->rank - 1, &dim));
  n->shape = *x;
  for (unsigned k = 0; k < n->n_in; k++) {
    const ev_shape *y = &ev_op_in(g, n, k)->shape;
    if (dim == 0 && y->axis != 0) return ev_op_wrong(g, n, "rows along an axis cannot be joined with others");
    if (y->axis != x->axis) return ev_op_wrong(g, n, "inputs 1 and %u are along different axes", k + 1);
    if (y->rank != x->rank) return ev_op_wrong(g, n, "inputs 1 and %u have %u and %u dimensions", k + 1, x->rank, y->rank);
    for (unsigned i = 0; i < x->rank; i++)
      if (i != (unsigned)dim && y->dim[i] != x->dim[i])
        return ev_op_wrong(g, n, "dimension %u is %zu in input 1 and %zu in input %u", i, x->dim[i], y->dim[i], k + 1);
    if (k > 0) n->shape.dim[dim] += y->dim[dim];
  }
  return EV_OK;
}

static ev_status concat_forward(ev_call *c) {
  unsigned dim = (unsigned)c->node->attr[0];
  size_t inner = product_of(c->shape.dim, dim + 1, c->shape.rank), n = product_of(c->shape.dim, 0, dim), whole = c->shape.dim[dim] * inner, at = 0;
  for (unsigned k = 0; k < c->node->n_in; k++) {
    size_t run = c->in_shape[k].dim[dim] * inner;
    move_all(n, c->out + at, whole, c->in[k], run, run, false);
    at += run;
  }
  return EV_OK;
}

static ev_status concat_backward(ev_call *c) {
  unsigned dim = (unsigned)c->node->attr[0];
  size_t inner = product_of(c->shape.dim, dim + 1, c->shape.rank), n = product_of(c->shape.dim, 0, dim), whole = c->shape.dim[dim] * inner, at = 0;
  for (unsigned k = 0; k < c->node->n_in; k++) {
    size_t run = c->in_shape[k].dim[dim] * inner;
    if (c->grad_in[k] != NULL) move_all(n, c->grad_in[k], run, c->grad + at, whole, run, c->add[k]);
    at += run;
  }
  return EV_OK;
}

/* ---- slice ---------------------------------------------------------------------------------------------------*/
static ev_status slice_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  const ev_shape *x = &ev_op_in(g, n, 0)->shape;
  if (x->rank == 0) return ev_op_wrong(g, n, "a scalar has no dimensions");
  int64_t dim, from, to;
  EV_TRY(ev_op_integer(g, n, 0, "dimension", 0, (int64_t)x->rank - 1, &dim));
  if (dim == 0 && x->axis != 0) return ev_op_wrong(g, n, "rows along an axis cannot be cut: how many there are is known only when it runs");
  EV_TRY(ev_op_integer(g, n, 1, "the first place", 0, (int64_t)x->dim[dim] - 1, &from));
  EV_TRY(ev_op_integer(g, n, 2, "the end", from + 1, (int64_t)x->dim[dim], &to));
  n->shape = *x;
  n->shape.dim[dim] = (size_t)(to - from);
  return EV_OK;
}

static ev_status slice_forward(ev_call *c) {
  unsigned dim = (unsigned)c->node->attr[0];
  size_t inner = product_of(c->shape.dim, dim + 1, c->shape.rank), n = product_of(c->shape.dim, 0, dim);
  size_t whole = c->in_shape[0].dim[dim] * inner, run = c->shape.dim[dim] * inner, from = (size_t)c->node->attr[1] * inner;
  move_all(n, c->out, run, c->in[0] + from, whole, run, false);
  return EV_OK;
}

static ev_status slice_backward(ev_call *c) {
  unsigned dim = (unsigned)c->node->attr[0];
  size_t inner = product_of(c->shape.dim, dim + 1, c->shape.rank), n = product_of(c->shape.dim, 0, dim);
  size_t whole = c->in_shape[0].dim[dim] * inner, run = c->shape.dim[dim] * inner, from = (size_t)c->node->attr[1] * inner;
  float *grad = c->grad_in[0];
  if (grad == NULL) return EV_OK;
  if (!c->add[0]) zero_all(n, grad, whole, from), zero_all(n, grad + from + run, whole, whole - from - run);
  move_all(n, grad + from, whole, c->grad, run, run, c->add[0]);
  return EV_OK;
}

const ev_op ev_ops_layout[] = {
    {.name = "reshape", .min_in = 1, .max_in = 1, .min_attr = 1, .max_attr = EV_TENSOR_RANK, .flags = EV_VIEW, .infer = reshape_infer},
    {.name = "transpose", .min_in = 1, .max_in = 1, .min_attr = 2, .max_attr = 2, .infer = transpose_infer, .forward = transpose_forward,
     .backward = transpose_backward},
    {.name = "concat", .min_in = 1, .max_in = EV_OP_INPUTS, .min_attr = 1, .max_attr = 1, .infer = concat_infer, .forward = concat_forward,
     .backward = concat_backward},
    {.name = "slice", .min_in = 1, .max_in = 1, .min_attr = 3, .max_attr = 3, .infer = slice_infer, .forward = slice_forward, .backward = slice_backward},
    {.name = NULL},
};
