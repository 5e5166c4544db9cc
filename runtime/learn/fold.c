/* fold.c - a graph to be kept: what depends on nothing that is given becomes a parameter of its value.
 *
 * So a saved graph needs no sparse matrix, and what is the same for every request (item vectors that a net computes from all
 * their features, a propagation over the whole graph) is computed once, when it is written. A bag of rows that are asked for, over
 * a table that is not, is a gather from the whole product. */
#include <stdio.h>
#include <string.h>

#include "graph.h"

typedef struct folding {
  ev_graph *from, *to;
  size_t n;          /* nodes of `from` when it began */
  bool *needed;      /* (n) the output depends on it */
  bool *varies;      /* (n) it depends on an input */
  ev_tensor *table;  /* (n) of a bag over a fixed table: the whole product, in `from` */
  ev_tensor *as;     /* (n) number in `to`; EV_NONE: not there */
} folding;

static bool fixed_bag(const folding *f, const ev_node *n) { return n->op != NULL && strcmp(n->op->name, "bag") == 0 && !f->varies[n->in[1]]; }

static void mark(folding *f, ev_tensor output) {
  const ev_graph *g = f->from;
  f->needed[output] = true;
  for (size_t i = f->n; i-- > 0;)
    for (unsigned k = 0; k < g->nodes[i].n_in && f->needed[i]; k++) f->needed[g->nodes[i].in[k]] = true;
  for (size_t i = 0; i < f->n; i++) {
    const ev_node *n = &g->nodes[i];
    f->varies[i] = n->kind == EV_NODE_INPUT || n->kind == EV_NODE_IDS;
    for (unsigned k = 0; k < n->n_in; k++) f->varies[i] |= f->varies[n->in[k]];
  }
}

/* A parameter of `to` that holds tensor t of `from`: a parameter's own, or the value of what is computed. */
static ev_status keep(folding *f, ev_tensor t, ev_tensor *as) {
  const ev_node *n = &f->from->nodes[t];
  ev_shape shape = n->shape;
  char name[16];
  snprintf(name, sizeof name, "fixed.%u", (unsigned)t);
  EV_TRY(ev_graph_parameter(f->to, as, n->kind == EV_NODE_PARAMETER ? n->name : name, &shape, EV_INIT_ZEROS, 0, 1));
  size_t size = ev_shape_size(&shape);
  float *to = ev_graph_values(f->to, *as, NULL);
  if (n->kind == EV_NODE_PARAMETER) {
    memcpy(to, n->values, size * sizeof *to);
    return EV_OK;
  }
  ev_plan *p;
  EV_TRY(ev_plan_new(&p, f->from, &t, 1, EV_NONE));
  ev_status status = ev_plan_run(p, false, 0, NULL);
  if (status == EV_OK) memcpy(to, ev_plan_value(p, t, NULL), size * sizeof *to);
  ev_plan_free(p);
  return status;
}

/* s x, as it was recorded, else recorded now. */
static ev_status product(ev_graph *g, ev_tensor s, ev_tensor x, ev_tensor *out) {
  for (size_t i = 0; i < g->n; i++) {
    const ev_node *n = &g->nodes[i];
    if (n->op == NULL || strcmp(n->op->name, "spmm") != 0 || n->in[0] != s || n->in[1] != x || n->attr[0] != 0) continue;
    *out = (ev_tensor)i;
    return EV_OK;
  }
  return ev_graph_op(g, out, "spmm", (ev_tensor[]){s, x}, 2, NULL, 0);
}

/* The whole products that bags look into; they stand in `from`, so that a training's next model finds them there. */
static ev_status whole_products(folding *f) {
  for (size_t i = 0; i < f->n; i++) {
    f->table[i] = EV_NONE;
    if (!f->needed[i] || !f->varies[i] || !fixed_bag(f, &f->from->nodes[i])) continue;
    EV_TRY(product(f->from, f->from->nodes[i].in[0], f->from->nodes[i].in[1], &f->table[i]));
  }
  return EV_OK;
}

static ev_status copy_op(folding *f, size_t i) {
  const ev_node *n = &f->from->nodes[i];
  ev_tensor in[EV_OP_INPUTS];
  if (f->table[i] != EV_NONE) {
    EV_TRY(keep(f, f->table[i], &in[0]));
    in[1] = f->as[n->in[2]];
    return ev_graph_op(f->to, &f->as[i], "gather", in, 2, NULL, 0);
  }
  for (unsigned k = 0; k < n->n_in; k++) {
    ev_tensor t = n->in[k];
    const ev_node *x = &f->from->nodes[t];
    if (x->kind == EV_NODE_SPARSE) return ev_fail(EV_EINVAL, "%sthe sparse matrix '%s' is asked about what a request brings: it cannot be kept", x->where, x->name);
    if (f->as[t] == EV_NONE && x->kind == EV_NODE_CONSTANT) EV_TRY(ev_graph_constant(f->to, &f->as[t], x->values[0]));
    if (f->as[t] == EV_NONE) EV_TRY(keep(f, t, &f->as[t]));
    in[k] = f->as[t];
  }
  return ev_graph_op(f->to, &f->as[i], n->op->name, in, n->n_in, n->attr, n->n_attr);
}

static ev_status copy_graph(folding *f, ev_tensor output) {
  ev_graph *g = f->from;
  for (size_t i = 1; i < g->n_axes; i++) {
    unsigned axis;
    EV_TRY(ev_graph_axis(f->to, &axis, g->axes[i]));
  }
  EV_TRY(whole_products(f));
  for (size_t i = 0; i < f->n; i++) {
    const ev_node *n = &g->nodes[i];
    f->as[i] = EV_NONE;
    if (!f->needed[i] || !f->varies[i]) continue;
    if (n->kind == EV_NODE_INPUT) EV_TRY(ev_graph_input(f->to, &f->as[i], n->name, &n->shape));
    else if (n->kind == EV_NODE_IDS) EV_TRY(ev_graph_input_ids(f->to, &f->as[i], n->name, &n->shape));
    else EV_TRY(copy_op(f, i));
  }
  return f->varies[output] ? EV_OK : keep(f, output, &f->as[output]);
}

ev_status ev_graph_fold(ev_graph **out, ev_graph *g, ev_tensor output, ev_tensor *folded) {
  *out = NULL;
  folding f = {.from = g, .n = g->n};
  f.needed = ev_zalloc(f.n, sizeof *f.needed);
  f.varies = ev_zalloc(f.n, sizeof *f.varies);
  f.table = ev_alloc(f.n, sizeof *f.table);
  f.as = ev_alloc(f.n, sizeof *f.as);
  ev_status status = f.needed == NULL || f.varies == NULL || f.table == NULL || f.as == NULL ? EV_ENOMEM : ev_graph_new(&f.to, g->seed, g->max_bytes);
  if (status == EV_OK) {
    mark(&f, output);
    status = copy_graph(&f, output);
    *folded = f.as[output];
  }
  if (status == EV_OK) *out = f.to;
  else ev_graph_free(f.to);
  ev_free(f.needed);
  ev_free(f.varies);
  ev_free(f.table);
  ev_free(f.as);
  return status;
}
