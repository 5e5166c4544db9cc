/* gru.c - a gated recurrent unit over sequences of different lengths that stand one after the other in one matrix.
 *
 *   r = σ(x w_r + b_r + h u_r)   z = σ(x w_z + b_z + h u_z)   n = tanh(x w_n + b_n + r ⊙ h u_n)   h' = (1 − z) ⊙ n + z ⊙ h
 *
 * from h = 0 (Cho et al. 2014, in the form whose reset gate comes after the product, so that one product serves all gates).
 * All of x w is one product. The steps are then taken by blocks of sequences, the longest first: a block's states are a
 * matrix whose upper rows are the sequences that still go on, and blocks need nothing of each other, so a thread takes one
 * from end to end. Weights' gradients are products over all rows at once, cut by columns. */
#include <string.h>

#include "broadcast.h"

#define BLOCK 64    /* sequences */
#define ROWS 128    /* of x, in one product */
#define COLUMNS 128 /* of a gate's weights, in one product */

enum { IN_X, IN_W, IN_U, IN_BIAS, IN_LENGTHS };

static ev_status infer(const ev_graph *g, ev_node *n) {
  for (unsigned i = 0; i < IN_LENGTHS; i++) EV_TRY(ev_op_kind(g, n, i, EV_NODE_OP));
  EV_TRY(ev_op_kind(g, n, IN_LENGTHS, EV_NODE_IDS));
  const ev_shape *x = &ev_op_in(g, n, IN_X)->shape, *w = &ev_op_in(g, n, IN_W)->shape, *u = &ev_op_in(g, n, IN_U)->shape;
  const ev_shape *bias = &ev_op_in(g, n, IN_BIAS)->shape, *lengths = &ev_op_in(g, n, IN_LENGTHS)->shape;
  if (x->rank != 2 || w->rank != 2 || u->rank != 2 || bias->rank != 1 || lengths->rank != 1)
    return ev_op_wrong(g, n, "it takes x (T, C), w (C, 3 D), u (D, 3 D), bias (3 D) and the lengths of the sequences");
  size_t d = u->dim[0];
  if (w->axis != 0 || u->axis != 0 || bias->axis != 0) return ev_op_wrong(g, n, "weights have fixed sizes");
  if (d == 0 || u->dim[1] != 3 * d || w->dim[1] != 3 * d || bias->dim[0] != 3 * d) return ev_op_wrong(g, n, "with u (%zu, ·) w, u and the bias must have 3 · %zu columns", d, d);
  if (w->dim[0] != x->dim[1]) return ev_op_wrong(g, n, "inner sizes %zu and %zu differ", x->dim[1], w->dim[0]);
  n->shape = (ev_shape){.rank = 2, .dim = {x->dim[0], d}, .axis = x->axis};
  return EV_OK;
}

typedef struct job {
  const ev_call *c;
  size_t t, d, in, n_sequences; /* rows, size of a state, columns of x */
  uint32_t *order, *start;      /* (n_sequences) the longest first, and the first row of each in this order */
  const uint32_t *length;       /* by sequence */
  float *room;                  /* (blocks, BLOCK, 4 d): states, then products */
  float *before;                /* (t, d) backward: the state before each row's */
} job;

/* Scratch, in this order: room, before, counts, order, start. */
static size_t room_size(size_t n_sequences, size_t d) { return (n_sequences + BLOCK - 1) / BLOCK * BLOCK * 4 * d; }

static size_t scratch(const ev_graph *g, const ev_node *n) {
  size_t t = n->shape.dim[0], d = n->shape.dim[1], b = ev_op_in(g, n, IN_LENGTHS)->shape.dim[0];
  return room_size(b, d) + t * d + (t + 2) + 2 * b;
}

static size_t keep(const ev_graph *g, const ev_node *n) { return (void)g, n->shape.dim[0] * 4 * n->shape.dim[1]; }

/* Sorts the sequences by length, equal ones in their order. */
static ev_status prepare(job *j, const ev_call *c) {
  size_t t = c->shape.dim[0], d = c->shape.dim[1], b = c->in_shape[IN_LENGTHS].dim[0];
  uint64_t sum = 0;
  *j = (job){.c = c, .t = t, .d = d, .in = c->in_shape[IN_X].dim[1], .n_sequences = b, .length = c->ids[IN_LENGTHS], .room = c->scratch};
  for (size_t i = 0; i < b; i++) sum += j->length[i];
  if (sum != t) return ev_fail(EV_EINVAL, "gru: the lengths in '%s' add up to %llu, but there are %zu rows", c->in_name[IN_LENGTHS], (unsigned long long)sum, t);
  j->before = j->room + room_size(b, d);
  uint32_t *next = (uint32_t *)(void *)(j->before + t * d); /* (t + 2) by t − length: where the next one of this length goes */
  j->order = next + t + 2;
  j->start = j->order + b;
  memset(next, 0, (t + 2) * sizeof *next);
  for (size_t i = 0; i < b; i++) next[t - j->length[i] + 1]++;
  for (size_t l = 1; l <= t; l++) next[l] += next[l - 1];
  for (size_t i = 0, row = 0; i < b; row += j->length[i++]) {
    uint32_t at = next[t - j->length[i]]++;
    j->order[at] = (uint32_t)i;
    j->start[at] = (uint32_t)row;
  }
  return EV_OK;
}

static size_t length_at(const job *j, size_t place) { return j->length[j->order[place]]; }

/* ---- Forward -------------------------------------------------------------------------------------------------*/
static void input_products(void *ctx, size_t begin, size_t end, int worker) { /* of blocks of rows, into the first three parts of what is kept */
  (void)worker;
  const job *j = ctx;
  for (size_t b = begin; b < end; b++) {
    size_t row = b * ROWS, rows = j->t - row < ROWS ? j->t - row : ROWS;
    ev_gemm(j->c->keep + row * 4 * j->d, 4 * j->d, j->c->in[IN_X] + row * j->in, j->in, false, j->c->in[IN_W], 3 * j->d, false, false, rows, 3 * j->d, j->in);
  }
}

static void steps_forward(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  size_t d = j->d;
  for (size_t block = begin; block < end; block++) {
    size_t first = block * BLOCK, alive = j->n_sequences - first < BLOCK ? j->n_sequences - first : BLOCK;
    float *h = j->room + first * 4 * d, *product = h + BLOCK * d;
    memset(h, 0, BLOCK * 4 * d * sizeof *h);
    for (size_t step = 0;; step++) {
      while (alive > 0 && length_at(j, first + alive - 1) <= step) alive--;
      if (alive == 0) break;
      if (step > 0) ev_gemm(product, 3 * d, h, d, false, j->c->in[IN_U], 3 * d, false, false, alive, 3 * d, d);
      for (size_t i = 0; i < alive; i++) {
        size_t row = j->start[first + i] + step;
        float *out = j->c->out + row * d;
        ev_gru_cell(out, j->c->keep + row * 4 * d, product + i * 3 * d, j->c->in[IN_BIAS], h + i * d, d);
        memcpy(h + i * d, out, d * sizeof *h);
      }
    }
  }
}

static size_t blocks_of(size_t n, size_t block) { return (n + block - 1) / block; }

static void run(job *j, size_t n, size_t floats, ev_range_fn *fn) { ev_parallel_for(n, ev_slice_rows(n > 0 ? floats / n : 0), fn, j); }

static ev_status forward(ev_call *c) {
  job j;
  EV_TRY(prepare(&j, c));
  run(&j, blocks_of(j.t, ROWS), j.t * 3 * j.d, input_products);
  run(&j, blocks_of(j.n_sequences, BLOCK), j.t * 4 * j.d, steps_forward);
  return EV_OK;
}

/* ---- Backward ------------------------------------------------------------------------------------------------
 * What was kept is overwritten, row by row, with the gradients of the three parts of x w and of h u_n. */
static void steps_backward(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  size_t d = j->d;
  for (size_t block = begin; block < end; block++) {
    size_t first = block * BLOCK, most = j->n_sequences - first < BLOCK ? j->n_sequences - first : BLOCK, alive = 0;
    float *dh = j->room + first * 4 * d, *product = dh + BLOCK * d;
    memset(dh, 0, BLOCK * 4 * d * sizeof *dh);
    for (size_t step = length_at(j, first); step-- > 0;) {
      while (alive < most && length_at(j, first + alive) > step) alive++;
      for (size_t i = 0; i < alive; i++) {
        size_t row = j->start[first + i] + step;
        float *before = j->before + row * d;
        if (step > 0) memcpy(before, j->c->out + (row - 1) * d, d * sizeof *before);
        else memset(before, 0, d * sizeof *before);
        ev_axpy(dh + i * d, j->c->grad + row * d, 1, d);
        ev_gru_cell_back(dh + i * d, product + i * 3 * d, j->c->keep + row * 4 * d, before, d);
      }
      if (step > 0) ev_gemm(dh, d, product, 3 * d, false, j->c->in[IN_U], 3 * d, true, true, alive, d, 3 * d);
    }
  }
}

/* Blocks of columns of each gate: of w's gradient xᵀ dx_w, or of u's, hᵀ dh_u. */
static void weights_backward(const job *j, size_t part, unsigned which) {
  size_t pieces = blocks_of(j->d, COLUMNS), gate = part / pieces, from = part % pieces * COLUMNS, cols = j->d - from < COLUMNS ? j->d - from : COLUMNS;
  const float *grad = j->c->keep + (which == IN_U && gate == 2 ? 3 : gate) * j->d + from;
  const float *left = which == IN_W ? j->c->in[IN_X] : j->before;
  size_t rows = which == IN_W ? j->in : j->d;
  ev_gemm(j->c->grad_in[which] + gate * j->d + from, 3 * j->d, left, rows, true, grad, 4 * j->d, false, j->c->add[which], rows, cols, j->t);
}

static void w_backward(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  for (size_t i = begin; i < end; i++) weights_backward(ctx, i, IN_W);
}

static void u_backward(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  for (size_t i = begin; i < end; i++) weights_backward(ctx, i, IN_U);
}

static void bias_backward(void *ctx, size_t begin, size_t end, int worker) { /* columns of the sum over rows */
  (void)worker;
  const job *j = ctx;
  const float *grad = j->c->keep + begin;
  ev_plane none = {grad, 0, 0};
  ev_zip_back(j->c->grad_in[IN_BIAS] + begin, 0, 1, grad, 4 * j->d, &none, &none, EV_ZIP_ADD, 0, j->c->add[IN_BIAS], j->t, end - begin);
}

static void x_backward(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  for (size_t b = begin; b < end; b++) {
    size_t row = b * ROWS, rows = j->t - row < ROWS ? j->t - row : ROWS;
    ev_gemm(j->c->grad_in[IN_X] + row * j->in, j->in, j->c->keep + row * 4 * j->d, 4 * j->d, false, j->c->in[IN_W], 3 * j->d, true, j->c->add[IN_X], rows, j->in, 3 * j->d);
  }
}

static ev_status backward(ev_call *c) {
  job j;
  EV_TRY(prepare(&j, c));
  size_t pieces = 3 * blocks_of(j.d, COLUMNS);
  if (j.t == 0) { /* sums over nothing */
    for (unsigned i = IN_W; i <= IN_BIAS; i++)
      if (c->grad_in[i] != NULL && !c->add[i]) memset(c->grad_in[i], 0, ev_shape_size(&c->in_shape[i]) * sizeof(float));
    return EV_OK;
  }
  run(&j, blocks_of(j.n_sequences, BLOCK), j.t * 4 * j.d, steps_backward);
  if (c->grad_in[IN_W] != NULL) run(&j, pieces, j.t * 3 * j.d, w_backward);
  if (c->grad_in[IN_U] != NULL) run(&j, pieces, j.t * 3 * j.d, u_backward);
  if (c->grad_in[IN_BIAS] != NULL) ev_parallel_for(3 * j.d, j.t * 64 < EV_SLICE ? EV_SLICE / j.t / 64 * 64 : 64, bias_backward, &j);
  if (c->grad_in[IN_X] != NULL) run(&j, blocks_of(j.t, ROWS), j.t * 3 * j.d, x_backward);
  return EV_OK;
}

const ev_op ev_ops_gru[] = {
    {"gru", 5, 5, 0, 0, EV_BACK_IN | EV_BACK_OUT, infer, forward, backward, keep, scratch},
    {.name = NULL},
};
