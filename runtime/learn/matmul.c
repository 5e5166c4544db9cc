/* matmul.c - matrix products and row-wise inner products.
 *
 * Every product that comes up, forwards or backwards, is one of two kinds: so many products side by side (a batch, or one),
 * or their sum (the gradient of what a batch shares). The first kind is cut into blocks of the output, the second, and a
 * product whose inner dimension is much longer than its output is large (the gradient of a weight matrix), into blocks of
 * what is summed, whose parts are added in order. The cuts depend on shapes only, so results have the same bits for any
 * number of threads. A block is one call of ev_gemm. */
#include <string.h>

#include "graph.h"

#define ALONE 1000000    /* multiply-adds that the calling thread does by itself: some 20 µs */
#define DOT_ALONE 262144 /* the same of floats that dot reads */
#define BLOCK 1000000    /* multiply-adds that are a block's worth */
#define PARTS 16         /* parts of a sum, at most */
#define PART_INNER 256   /* terms of a part, at least */
#define PARTED 65536     /* elements of an output made in parts, at most */

/* out[i] (m, n) [+]= op(a[i]) op(b[i]) for i < batch; or, with `sum`, out (m, n) [+]= Σ_i of that. Strides: floats from one
 * i to the next, 0 when shared. */
typedef struct product {
  float *out;
  const float *a, *b;
  size_t stride_out, stride_a, stride_b, batch, m, n, k;
  bool turn_a, turn_b, add, sum;
  float *parts;                       /* (n_parts, m, n), scratch */
  size_t n_parts;
  size_t rows, cols, n_rows, n_cols;  /* of a block, and how many blocks */
} product;

static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t pieces(size_t n, size_t of) { return n == 0 ? 0 : (n - 1) / of + 1; }

/* Rows [i, i + rows) by columns [j, j + cols) of product number `at`, over the terms [from, to). */
static void multiply(const product *p, float *out, size_t ld_out, bool add, size_t at, size_t i, size_t rows, size_t j, size_t cols, size_t from,
    size_t to) {
  size_t ld_a = p->turn_a ? p->m : p->k, ld_b = p->turn_b ? p->k : p->n;
  const float *a = p->a + at * p->stride_a + (p->turn_a ? from * ld_a + i : i * ld_a + from);
  const float *b = p->b + at * p->stride_b + (p->turn_b ? j * ld_b + from : from * ld_b + j);
  ev_gemm(out, ld_out, a, ld_a, p->turn_a, b, ld_b, p->turn_b, add, rows, cols, to - from);
}

static void blocks(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const product *p = ctx;
  for (size_t b = begin; b < end; b++) {
    size_t at = b / (p->n_rows * p->n_cols), i = b / p->n_cols % p->n_rows * p->rows, j = b % p->n_cols * p->cols;
    multiply(p, p->out + at * p->stride_out + i * p->n + j, p->n, p->add, at, i, least(p->rows, p->m - i), j, least(p->cols, p->n - j), 0, p->k);
  }
}

/* Part number s: its share of the batch, or of the terms. */
static void parts(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const product *p = ctx;
  for (size_t s = begin; s < end; s++) {
    float *part = p->parts + s * p->m * p->n;
    if (p->batch == 1) {
      multiply(p, part, p->n, false, 0, 0, p->m, 0, p->n, p->k * s / p->n_parts, p->k * (s + 1) / p->n_parts);
      continue;
    }
    for (size_t at = p->batch * s / p->n_parts, to = p->batch * (s + 1) / p->n_parts, first = at; at < to; at++)
      multiply(p, part, p->n, at > first, at, 0, p->m, 0, p->n, 0, p->k);
  }
}

static void add_parts(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const product *p = ctx;
  size_t size = p->m * p->n;
  for (size_t s = 0; s < p->n_parts; s++) {
    const float *part = p->parts + s * size;
    if (s == 0 && !p->add) memcpy(p->out + begin, part + begin, (end - begin) * sizeof *part);
    else ev_axpy(p->out + begin, part + begin, 1, end - begin);
  }
}

static size_t parts_of(size_t batch, size_t k) { return batch > 1 ? least(batch, PARTS) : least(pieces(k, PART_INNER), PARTS); }

/* Blocks of the output are the first choice; parts are for outputs too small to be cut among many threads. */
static bool by_parts(const product *p) {
  if (p->m * p->n > PARTED || (p->batch > 1 && !p->sum)) return false;
  return p->batch > 1 || (p->k >= 2 * PART_INNER && pieces(p->m, 128) * pieces(p->n, 128) < PARTS);
}

static void run(product *p) {
  double work = (double)p->batch * (double)p->m * (double)p->n * (double)p->k;
  if (p->sum && p->turn_a && !p->turn_b && p->stride_a == p->m * p->k && p->stride_b == p->k * p->n) p->k *= p->batch, p->batch = 1; /* one long sum */
  if (!p->sum && !p->turn_a && p->stride_b == 0 && p->batch > 1) p->m *= p->batch, p->batch = 1; /* one tall product */
  if (p->sum && p->batch == 0) p->k = 0, p->batch = 1;
  if (p->m == 0 || p->n == 0 || p->batch == 0) return;
  if (work > ALONE && by_parts(p)) {
    p->n_parts = parts_of(p->batch, p->k);
    ev_parallel_for(p->n_parts, 1, parts, p);
    ev_parallel_for(p->m * p->n, 8192, add_parts, p);
    return;
  }
  if (p->sum && p->batch > 1) { /* one after the other */
    product one = *p;
    one.batch = 1;
    for (size_t i = 0; i < p->batch; i++, one.a += p->stride_a, one.b += p->stride_b, one.add = true) run(&one);
    return;
  }
  /* Blocks of 128 to 512 rows; columns are cut when one row of blocks alone would be too much for one thread. */
  double row = (double)p->n * (double)most(p->k, 1);
  p->rows = least(most((size_t)(BLOCK / row), 128), 512);
  p->cols = (double)p->rows * row > 16.0 * BLOCK && p->n > 1024 ? 1024 : p->n;
  p->n_rows = pieces(p->m, p->rows);
  p->n_cols = pieces(p->n, p->cols);
  size_t n = p->batch * p->n_rows * p->n_cols;
  ev_parallel_for(n, work <= ALONE ? n : most(1, (size_t)(ALONE / (work / (double)n))), blocks, p);
}

/* ---- matmul ------------------------------------------------------------------------------------------------*/
typedef struct sizes {
  size_t batch, m, k, n;
  size_t stride_a, stride_b;
  bool turn_a, turn_b, sum_b; /* sum_b: one b for the whole batch */
} sizes;

static sizes sizes_of(const ev_node *node, const ev_shape *a, const ev_shape *b) {
  sizes s = {.batch = a->rank == 3 ? a->dim[0] : 1, .turn_a = node->attr[0] != 0, .turn_b = node->attr[1] != 0, .sum_b = b->rank == 2};
  const size_t *da = a->dim + (a->rank - 2), *db = b->dim + (b->rank - 2);
  s.m = da[s.turn_a], s.k = da[!s.turn_a], s.n = db[!s.turn_b];
  s.stride_a = a->rank == 3 ? da[0] * da[1] : 0;
  s.stride_b = b->rank == 3 ? db[0] * db[1] : 0;
  return s;
}

static ev_status matmul_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  int64_t flag;
  EV_TRY(ev_op_integer(g, n, 0, "transpose_a", 0, 1, &flag));
  EV_TRY(ev_op_integer(g, n, 1, "transpose_b", 0, 1, &flag));
  const ev_shape *a = &ev_op_in(g, n, 0)->shape, *b = &ev_op_in(g, n, 1)->shape;
  if ((a->rank != 2 && a->rank != 3) || (b->rank != 2 && b->rank != 3) || b->rank > a->rank)
    return ev_op_wrong(g, n, "takes matrices, batches of matrices, or a batch and a matrix");
  bool turn_a = n->attr[0] != 0, turn_b = n->attr[1] != 0;
  const size_t *da = a->dim + (a->rank - 2), *db = b->dim + (b->rank - 2);
  if (da[!turn_a] != db[turn_b])
    return ev_op_wrong(g, n, "inner sizes %zu and %zu differ%s", da[!turn_a], db[turn_b], turn_a || turn_b ? " (transposed as asked)" : "");
  if (b->rank == 3) {
    if (a->dim[0] != b->dim[0] || a->axis != b->axis)
      return ev_op_wrong(g, n, "batches of %zu and %zu%s", a->dim[0], b->dim[0], a->dim[0] == b->dim[0] ? " along different axes" : "");
    n->shape = (ev_shape){.rank = 3, .dim = {a->dim[0], da[turn_a], db[!turn_b]}, .axis = a->axis};
    return EV_OK;
  }
  if (a->rank == 3) {
    if (b->axis != 0) return ev_op_wrong(g, n, "the matrix that a batch shares cannot have an axis");
    n->shape = (ev_shape){.rank = 3, .dim = {a->dim[0], da[turn_a], db[!turn_b]}, .axis = a->axis};
    return EV_OK;
  }
  unsigned inner_a = turn_a ? a->axis : 0, inner_b = turn_b ? 0 : b->axis;
  if (inner_a != inner_b) return ev_op_wrong(g, n, "the inner sizes are those of different axes");
  if (turn_b && b->axis != 0) return ev_op_wrong(g, n, "columns cannot be along an axis: only a first dimension can");
  n->shape = (ev_shape){.rank = 2, .dim = {da[turn_a], db[!turn_b]}, .axis = turn_a ? 0 : a->axis};
  return EV_OK;
}

static ev_status matmul_forward(ev_call *c) {
  sizes s = sizes_of(c->node, &c->in_shape[0], &c->in_shape[1]);
  product p = {.out = c->out, .a = c->in[0], .b = c->in[1], .stride_out = s.m * s.n, .stride_a = s.stride_a, .stride_b = s.stride_b, .batch = s.batch,
               .m = s.m, .n = s.n, .k = s.k, .turn_a = s.turn_a, .turn_b = s.turn_b, .parts = c->scratch};
  run(&p);
  return EV_OK;
}

/* With C = A B and its gradient G: Ā = G Bᵀ, B̄ = Aᵀ G; each turned round when the input stands turned. */
static ev_status matmul_backward(ev_call *c) {
  sizes s = sizes_of(c->node, &c->in_shape[0], &c->in_shape[1]);
  size_t stride_g = s.m * s.n;
  if (c->grad_in[0] != NULL) {
    product p = {.out = c->grad_in[0], .stride_out = s.m * s.k, .batch = s.batch, .k = s.n, .add = c->add[0], .parts = c->scratch};
    if (!s.turn_a) p.a = c->grad, p.stride_a = stride_g, p.m = s.m, p.b = c->in[1], p.stride_b = s.stride_b, p.turn_b = !s.turn_b, p.n = s.k;
    else p.a = c->in[1], p.stride_a = s.stride_b, p.turn_a = s.turn_b, p.m = s.k, p.b = c->grad, p.stride_b = stride_g, p.turn_b = true, p.n = s.m;
    run(&p);
  }
  if (c->grad_in[1] != NULL) {
    product p = {.out = c->grad_in[1], .stride_out = s.k * s.n, .batch = s.batch, .k = s.m, .add = c->add[1], .sum = s.sum_b, .parts = c->scratch};
    if (!s.turn_b) p.a = c->in[0], p.stride_a = s.stride_a, p.turn_a = !s.turn_a, p.m = s.k, p.b = c->grad, p.stride_b = stride_g, p.n = s.n;
    else p.a = c->grad, p.stride_a = stride_g, p.turn_a = true, p.m = s.n, p.b = c->in[0], p.stride_b = s.stride_a, p.turn_b = s.turn_a, p.n = s.k;
    run(&p);
  }
  return EV_OK;
}

/* Parts of whichever of the three products may need most. A live output may be cut in parts where one at full capacity is
 * too large for it: hence the bound. */
static size_t parts_size(size_t batch, size_t m, size_t n, size_t k) {
  return batch == 1 && k < 2 * PART_INNER ? 0 : parts_of(batch, k) * least(m * n, PARTED);
}

static size_t matmul_scratch(const ev_graph *g, const ev_node *n) {
  sizes s = sizes_of(n, &ev_op_in(g, n, 0)->shape, &ev_op_in(g, n, 1)->shape);
  size_t tall = s.sum_b && !s.turn_a ? s.batch : 1; /* products that become one */
  size_t forward = parts_size(1, tall * s.m, s.n, s.k), left = parts_size(1, tall * s.m, s.k, s.n);
  size_t right = parts_size(1, s.k, s.n, tall * s.m), shared = s.sum_b && s.turn_a ? parts_size(s.batch, s.k, s.n, s.m) : 0;
  return most(most(forward, left), most(right, shared));
}

/* ---- dot ---------------------------------------------------------------------------------------------------*/
typedef struct dot_job {
  float *out, *da, *db;
  const float *a, *b, *grad;
  size_t m, d;
  bool add_a, add_b;
} dot_job;

static void dot_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const dot_job *j = ctx;
  size_t m = j->m, d = j->d;
  if (m == 1) {
    ev_dot_fn *dot = ev_dot_of(EV_FORM_F32);
    for (size_t i = begin; i < end; i++) j->out[i] = dot(j->a + i * d, j->b + i * d, d);
    return;
  }
  for (size_t i = begin; i < end; i++) ev_dots(j->out + i * m, j->a + i * d, j->b + i * m * d, EV_FORM_F32, d * sizeof(float), m, d);
}

/* ā = Σ_m ḡ_m b_m, b̄_m = ḡ_m a, row by row, so that both inputs are read once. */
static void dot_rows_back(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const dot_job *j = ctx;
  size_t m = j->m, d = j->d;
  for (size_t i = begin; i < end; i++) {
    const float *g = j->grad + i * m, *a = j->a + i * d, *b = j->b + i * m * d;
    if (j->da != NULL && m == 1) {
      if (j->add_a) ev_axpy(j->da + i * d, b, *g, d);
      else ev_scaled(j->da + i * d, b, *g, d);
    } else if (j->da != NULL) {
      ev_gemm(j->da + i * d, d, g, m, false, b, d, false, j->add_a, 1, d, m);
    }
    for (size_t k = 0; k < m && j->db != NULL; k++) {
      float *db = j->db + (i * m + k) * d;
      if (j->add_b) ev_axpy(db, a, g[k], d);
      else ev_scaled(db, a, g[k], d);
    }
  }
}

static ev_status dot_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  const ev_shape *a = &ev_op_in(g, n, 0)->shape, *b = &ev_op_in(g, n, 1)->shape;
  if (a->rank != 2 || (b->rank != 2 && b->rank != 3)) return ev_op_wrong(g, n, "takes (N, D) and (N, D), or (N, D) and (N, M, D)");
  if (a->dim[0] != b->dim[0] || a->axis != b->axis)
    return ev_op_wrong(g, n, "%zu rows and %zu%s", a->dim[0], b->dim[0], a->dim[0] == b->dim[0] ? " along different axes" : "");
  if (a->dim[1] != b->dim[b->rank - 1]) return ev_op_wrong(g, n, "rows of %zu and %zu numbers", a->dim[1], b->dim[b->rank - 1]);
  n->shape = (ev_shape){.rank = b->rank - 1, .dim = {a->dim[0], b->rank == 3 ? b->dim[1] : 0}, .axis = a->axis};
  return EV_OK;
}

static dot_job dot_of(const ev_call *c) {
  const ev_shape *b = &c->in_shape[1];
  return (dot_job){.a = c->in[0], .b = c->in[1], .m = b->rank == 3 ? b->dim[1] : 1, .d = c->in_shape[0].dim[1]};
}

static size_t dot_grain(size_t n, const dot_job *j) {
  size_t row = most(j->m * j->d, 1);
  return n <= DOT_ALONE / row ? n : most(1, 32768 / row);
}

static ev_status dot_forward(ev_call *c) {
  dot_job j = dot_of(c);
  j.out = c->out;
  ev_parallel_for(c->shape.dim[0], dot_grain(c->shape.dim[0], &j), dot_rows, &j);
  return EV_OK;
}

static ev_status dot_backward(ev_call *c) {
  dot_job j = dot_of(c);
  j.grad = c->grad;
  j.da = c->grad_in[0], j.db = c->grad_in[1];
  j.add_a = c->add[0], j.add_b = c->add[1];
  ev_parallel_for(c->shape.dim[0], dot_grain(c->shape.dim[0], &j), dot_rows_back, &j);
  return EV_OK;
}

const ev_op ev_ops_matmul[] = {
    {.name = "matmul", .min_in = 2, .max_in = 2, .max_attr = 2, .flags = EV_BACK_IN, .infer = matmul_infer, .forward = matmul_forward,
     .backward = matmul_backward, .scratch = matmul_scratch},
    {.name = "dot", .min_in = 2, .max_in = 2, .flags = EV_BACK_IN, .infer = dot_infer, .forward = dot_forward, .backward = dot_backward},
    {.name = NULL},
};
