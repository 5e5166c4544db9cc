/* sparse.c - a sparse matrix times a dense one, or its transpose times one: graph propagation.
 *
 * Threads take rows of the result; each row's sum goes through its entries in order, whichever thread has it. What comes back
 * is the product with the transpose, which the graph holds too. */
#include "broadcast.h"

static bool is_transposed(const ev_node *n) { return n->attr[0] != 0; }

static ev_status infer(const ev_graph *g, ev_node *n) {
  int64_t transposed;
  EV_TRY(ev_op_kind(g, n, 0, EV_NODE_SPARSE));
  EV_TRY(ev_op_kind(g, n, 1, EV_NODE_OP));
  EV_TRY(ev_op_integer(g, n, 0, "transposed", 0, 1, &transposed));
  const ev_shape *s = &ev_op_in(g, n, 0)->shape, *x = &ev_op_in(g, n, 1)->shape;
  size_t rows = s->dim[transposed ? 1 : 0], cols = s->dim[transposed ? 0 : 1];
  if (x->rank != 2 || x->axis != 0) return ev_op_wrong(g, n, "the second must be a matrix with a fixed number of rows");
  if (x->dim[0] != cols) return ev_op_wrong(g, n, "inner sizes %zu and %zu differ%s", cols, x->dim[0], transposed ? " (the first is transposed)" : "");
  n->shape = (ev_shape){.rank = 2, .dim = {rows, x->dim[1]}};
  return EV_OK;
}

typedef struct job {
  const uint64_t *ptr;
  const uint32_t *idx;
  const float *values, *x;
  float *out;
  size_t n_rows, d;
  bool add;
} job;

static void part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  ev_sparse_rows(j->out, j->ptr, j->idx, j->values, j->x, j->n_rows, begin, end, j->d, j->add);
}

static void multiply(float *out, const ev_edges *s, bool transposed, const float *x, size_t d, bool add) {
  job j = {s->ptr, s->idx, s->values, x, out, s->n_rows, d, add};
  if (transposed) j.ptr = s->t_ptr, j.idx = s->t_idx, j.values = s->t_values, j.n_rows = s->n_cols;
  size_t grain = ev_slice_rows((j.ptr[j.n_rows] / j.n_rows + 1) * d), few = j.n_rows / 512; /* slices enough to even out the rows that have most */
  ev_parallel_for(j.n_rows, grain > few ? grain : few, part, &j);
}

static ev_status forward(ev_call *c) {
  multiply(c->out, c->sparse[0], is_transposed(c->node), c->in[1], c->shape.dim[1], false);
  return EV_OK;
}

static ev_status backward(ev_call *c) {
  if (c->grad_in[1] != NULL) multiply(c->grad_in[1], c->sparse[0], !is_transposed(c->node), c->grad, c->shape.dim[1], c->add[1]);
  return EV_OK;
}

const ev_op ev_ops_sparse[] = {
    {"spmm", 2, 2, 0, 1, 0, infer, forward, backward, NULL, NULL},
    {.name = NULL},
};
