/* bag.c - rows of a sparse matrix times a table: an embedding bag.
 *
 *   out[n] = Σ_c s[ids[n], c] x[c],   (R, C) (C, D) (N…) → (N…, D);   EV_NONE gives zeros
 *   x̄[c]  = Σ_n s[ids[n], c] ȳ[n]
 * Backwards, the gradients of positions that name one row are summed first (sorted by id, in order of position), then each
 * row c of x̄ adds up what its column of s has of the rows that appeared, in their order: nothing is added by two threads,
 * and the order is the same for any number of them. Going over all of s, where few rows appeared, costs less than sorting
 * their entries: a column's rows lie one after the other, and those that did not appear are one look each. */
#include <stdatomic.h>
#include <string.h>

#include "graph.h"

#define SLICE 16384 /* floats a thread takes at a time */

static size_t grain_of(size_t d) { return d >= SLICE ? 1 : SLICE / (d == 0 ? 1 : d); }

static ev_status infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_kind(g, n, 0, EV_NODE_SPARSE));
  EV_TRY(ev_op_kind(g, n, 1, EV_NODE_OP));
  EV_TRY(ev_op_kind(g, n, 2, EV_NODE_IDS));
  const ev_shape *s = &ev_op_in(g, n, 0)->shape, *x = &ev_op_in(g, n, 1)->shape, *ids = &ev_op_in(g, n, 2)->shape;
  if (x->rank != 2 || x->axis != 0) return ev_op_wrong(g, n, "the table has two dimensions and no axis");
  if (x->dim[0] != s->dim[1]) return ev_op_wrong(g, n, "inner sizes %zu and %zu differ", s->dim[1], x->dim[0]);
  if (ids->rank + 1 > EV_TENSOR_RANK)
    return ev_op_wrong(g, n, "rows for ids of %u dimensions would have %u, but %d is the most", ids->rank, ids->rank + 1, EV_TENSOR_RANK);
  n->shape = *ids;
  n->shape.dim[n->shape.rank++] = x->dim[1];
  return EV_OK;
}

typedef struct bag_job {
  const ev_edges *s;
  const uint32_t *ids;
  const float *x;  /* forward: (C, D); backward: (unique, D) sums of gradients */
  float *out;      /* forward: (N, D); backward: (C, D) */
  const uint32_t *place; /* (R) backward: which of the sums is a row's; EV_NONE: it did not appear */
  size_t d;
  bool add;
  atomic_bool wrong;
} bag_job;

static void add_row(float *out, const bag_job *j, const uint64_t *ptr, const uint32_t *idx, const float *values, size_t row) {
  for (uint64_t e = ptr[row]; e < ptr[row + 1]; e++) {
    uint32_t from = j->place != NULL ? j->place[idx[e]] : idx[e];
    if (from != EV_NONE) ev_axpy(out, j->x + from * j->d, values != NULL ? values[e] : 1, j->d);
  }
}

static void forward_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  bag_job *j = ctx;
  for (size_t i = begin; i < end; i++) {
    uint32_t id = j->ids[i];
    memset(j->out + i * j->d, 0, j->d * sizeof *j->out);
    if (id < j->s->n_rows) add_row(j->out + i * j->d, j, j->s->ptr, j->s->idx, j->s->values, id);
    else if (id != EV_NONE) atomic_store(&j->wrong, true);
  }
}

static ev_status forward(ev_call *c) {
  size_t n = ev_shape_size(&c->in_shape[2]), d = c->in_shape[1].dim[1], i = 0;
  bag_job j = {.s = c->sparse[0], .ids = c->ids[2], .x = c->in[1], .out = c->out, .d = d};
  ev_parallel_for(n, grain_of(d), forward_rows, &j);
  if (!atomic_load(&j.wrong)) return EV_OK;
  while (i + 1 < n && (j.ids[i] < j.s->n_rows || j.ids[i] == EV_NONE)) i++;
  return ev_fail(EV_EINVAL, "%s: id %u, but '%s' has %zu rows", c->node->op->name, j.ids[i], c->in_name[0], j.s->n_rows);
}

static void backward_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  bag_job *j = ctx;
  for (size_t c = begin; c < end; c++) {
    float *out = j->out + c * j->d;
    if (!j->add) memset(out, 0, j->d * sizeof *out);
    add_row(out, j, j->s->t_ptr, j->s->t_idx, j->s->t_values, c);
  }
}

static ev_status backward(ev_call *c) {
  if (c->grad_in[1] == NULL) return EV_OK;
  const ev_edges *s = c->sparse[0];
  const uint32_t *ids = c->ids[2];
  size_t n = ev_shape_size(&c->in_shape[2]), d = c->in_shape[1].dim[1];
  uint32_t *order = (void *)c->scratch, *starts = order + n, *scratch = starts + n + 1, *place = scratch + 2 * n;
  float *sums = (float *)(void *)(place + s->n_rows);
  size_t unique = ev_rows_sort(order, starts, scratch, ids, n);
  memset(place, 0xFF, s->n_rows * sizeof *place);
  for (size_t u = 0; u < unique; u++) place[ids[order[starts[u]]]] = (uint32_t)u;
  ev_rows_sum(sums, NULL, &(ev_rows_part){c->grad, n}, 1, order, starts, unique, d);
  bag_job j = {.s = s, .x = sums, .out = c->grad_in[1], .place = place, .d = d, .add = c->add[1]};
  ev_parallel_for(s->n_cols, 16, backward_rows, &j);
  return EV_OK;
}

static size_t scratch_size(const ev_graph *g, const ev_node *n) {
  size_t ids = ev_shape_size(&ev_op_in(g, n, 2)->shape);
  return 4 * ids + 1 + ev_op_in(g, n, 0)->shape.dim[0] + ids * ev_op_in(g, n, 1)->shape.dim[1];
}

const ev_op ev_ops_bag[] = {{.name = "bag", .min_in = 3, .max_in = 3, .infer = infer,
                             .forward = forward, .backward = backward, .scratch = scratch_size}, {.name = NULL}};
