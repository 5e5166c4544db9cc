/* plan.c - what to compute for some outputs and a loss, and where in one arena it lies.
 *
 * Forward runs in the order of recording, backward in reverse. With N operators, operator i is computed at time i and
 * differentiated at time 2N − i; every buffer (a value, a gradient, what an operator keeps for its backward pass, its
 * scratch) lives from its first to its last use on that line. Buffers are placed largest first, each at the lowest offset
 * that is free all its life: within a few per cent of the least possible on our graphs, and simple.
 *
 * A parameter that is only gathered from has no gradient of its own: the gradients of the gathers are kept, and the
 * optimiser adds up the rows (optimiser.c). */
#include "plan.h"

#include <math.h>
#include <string.h>

#define NOWHERE SIZE_MAX
#define ALIGN 16 /* floats: one cache line */

typedef struct buffer {
  size_t *offset;   /* where its place is to be noted */
  size_t size;      /* floats */
  size_t from, to;  /* times, both included */
  size_t at;
} buffer;

typedef struct layout {
  buffer *buffers;
  size_t n, cap;
} layout;

static ev_status want(layout *l, size_t *offset, size_t size, size_t from, size_t to) {
  if (l->n == l->cap) {
    size_t cap = l->cap > 0 ? l->cap * 2 : 64;
    buffer *p = ev_resize(l->buffers, cap, sizeof *p);
    if (p == NULL) return EV_ENOMEM;
    l->buffers = p;
    l->cap = cap;
  }
  l->buffers[l->n++] = (buffer){offset, (size + ALIGN - 1) / ALIGN * ALIGN, from, to, 0};
  return EV_OK;
}

/* Places every buffer; → floats in the arena. Hundreds of buffers: quadratic is nothing. */
static size_t place(layout *l) {
  size_t top = 0;
  for (size_t i = 1; i < l->n; i++) /* by size, largest first, equal ones in their order */
    for (size_t j = i; j > 0 && l->buffers[j - 1].size < l->buffers[j].size; j--) {
      buffer t = l->buffers[j];
      l->buffers[j] = l->buffers[j - 1];
      l->buffers[j - 1] = t;
    }
  for (size_t i = 0; i < l->n; i++) {
    buffer *b = &l->buffers[i];
    for (bool moved = true; moved;) { /* up past whatever is in the way, until nothing is */
      moved = false;
      for (size_t j = 0; j < i; j++) {
        const buffer *o = &l->buffers[j];
        bool together = o->from <= b->to && b->from <= o->to, apart = o->at + o->size <= b->at || b->at + b->size <= o->at;
        if (together && !apart) {
          b->at = o->at + o->size;
          moved = true;
        }
      }
    }
    *b->offset = b->at;
    if (b->at + b->size > top) top = b->at + b->size;
  }
  return top;
}

/* ---- Making --------------------------------------------------------------------------------------------*/
static bool is_view(const ev_node *n) { return n->op != NULL && (n->op->flags & EV_VIEW); }

static bool is_lazy_gather(const ev_plan *p, const ev_node *n) {
  return n->op != NULL && strcmp(n->op->name, "gather") == 0 && p->g->nodes[n->in[0]].kind == EV_NODE_PARAMETER && p->at[n->in[0]].lazy;
}

/* What is reachable from the outputs, and through what gradients flow. */
static void mark(ev_plan *p) {
  const ev_node *nodes = p->g->nodes;
  for (size_t i = 0; i < p->n_nodes; i++) p->at[i] = (ev_place){NOWHERE, NOWHERE, NOWHERE, NOWHERE, NOWHERE, NOWHERE, (ev_tensor)i, false, false, false};
  for (size_t i = 0; i < p->n_outputs; i++) p->at[p->outputs[i]].used = true;
  if (p->loss != EV_NONE) {
    p->at[p->loss].used = true;
    p->at[p->loss].flows = nodes[p->loss].differentiable;
  }
  for (size_t i = p->n_nodes; i-- > 0;) {
    if (!p->at[i].used) continue;
    for (unsigned k = 0; k < nodes[i].n_in; k++) {
      p->at[nodes[i].in[k]].used = true;
      if (p->at[i].flows && nodes[nodes[i].in[k]].differentiable) p->at[nodes[i].in[k]].flows = true;
    }
  }
  for (size_t i = 0; i < p->n_nodes; i++)
    if (is_view(&nodes[i])) p->at[i].root = p->at[nodes[i].in[0]].root;
  for (size_t i = 0; i < p->n_nodes; i++) p->at[i].lazy = nodes[i].kind == EV_NODE_PARAMETER && p->at[i].flows;
  for (size_t i = 0; i < p->n_nodes; i++)
    if (p->at[i].flows)
      for (unsigned k = 0; k < nodes[i].n_in; k++)
        if (k > 0 || strcmp(nodes[i].op->name, "gather") != 0) p->at[nodes[i].in[k]].lazy = false;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The life of every buffer. first/last (n_nodes): of a root's value and gradient. */
static ev_status lives(ev_plan *p, layout *l, size_t *value_to, size_t *grad_from) {
  const ev_graph *g = p->g;
  size_t n = p->n_ops, never = 2 * n + 1;
  for (size_t i = 0; i < p->n_nodes; i++) value_to[i] = 0, grad_from[i] = NOWHERE;
  for (size_t i = 0; i < p->n_outputs; i++) value_to[p->at[p->outputs[i]].root] = never;
  if (p->loss != EV_NONE) {
    value_to[p->at[p->loss].root] = never;
    if (p->at[p->loss].flows) grad_from[p->at[p->loss].root] = n;
  }
  for (size_t i = 0; i < n; i++) {
    const ev_node *node = &g->nodes[p->order[i]];
    bool back = p->at[p->order[i]].flows && !is_view(node) && !is_lazy_gather(p, node);
    size_t *own = &value_to[p->at[p->order[i]].root];
    *own = larger(*own, i);
    if (back && (node->op->flags & EV_BACK_OUT)) *own = larger(*own, 2 * n - i);
    for (unsigned k = 0; k < node->n_in; k++) {
      ev_tensor root = p->at[node->in[k]].root;
      value_to[root] = larger(value_to[root], back && (node->op->flags & EV_BACK_IN) ? 2 * n - i : i);
      if (back && p->at[node->in[k]].flows && 2 * n - i < grad_from[root]) grad_from[root] = 2 * n - i;
    }
  }
  for (size_t i = 0; i < n; i++) {
    ev_tensor t = p->order[i];
    const ev_node *node = &g->nodes[t];
    ev_place *at = &p->at[t];
    if (is_view(node)) continue;
    EV_TRY(want(l, &at->value, ev_shape_size(&node->shape), i, value_to[t]));
    bool lazy = is_lazy_gather(p, node), back = at->flows && !lazy;
    if (at->flows) EV_TRY(want(l, &at->grad, ev_shape_size(&node->shape), grad_from[t], lazy ? never : 2 * n - i));
    if (node->op->keep != NULL) EV_TRY(want(l, &at->keep, node->op->keep(g, node), i, back ? 2 * n - i : i));
    size_t scratch = node->op->scratch != NULL ? node->op->scratch(g, node) : 0;
    if (scratch > 0) EV_TRY(want(l, &at->scratch, scratch, i, i));
    if (scratch > 0 && back) EV_TRY(want(l, &at->back_scratch, scratch, 2 * n - i, 2 * n - i));
    size_t twice = 0; /* inputs that are one tensor: the later ones' gradients are made aside, then added */
    for (unsigned k = 1; k < node->n_in && back; k++)
      for (unsigned j = 0; j < k; j++)
        if (p->at[node->in[k]].flows && p->at[node->in[j]].root == p->at[node->in[k]].root) {
          twice += (ev_shape_size(&g->nodes[node->in[k]].shape) + ALIGN - 1) / ALIGN * ALIGN;
          break;
        }
    if (twice > 0) EV_TRY(want(l, &at->twice, twice, 2 * n - i, 2 * n - i));
  }
  for (size_t i = 0; i < p->n_nodes; i++)
    if (g->nodes[i].kind == EV_NODE_PARAMETER && grad_from[i] != NOWHERE && !p->at[i].lazy)
      EV_TRY(want(l, &p->at[i].grad, ev_shape_size(&g->nodes[i].shape), grad_from[i], never));
  return EV_OK;
}

static ev_status lay_out(ev_plan *p) {
  layout l = {0};
  size_t *value_to = ev_alloc(p->n_nodes, sizeof *value_to), *grad_from = ev_alloc(p->n_nodes, sizeof *grad_from);
  ev_status status = value_to == NULL || grad_from == NULL ? EV_ENOMEM : lives(p, &l, value_to, grad_from);
  if (status == EV_OK) {
    p->n_floats = place(&l);
    const buffer *largest = l.n > 0 ? &l.buffers[0] : NULL;
    const ev_node *of = NULL;
    for (size_t i = 0; i < p->n_ops && largest != NULL; i++) /* named, should the arena be too large */
      if (largest->offset >= &p->at[p->order[i]].value && largest->offset <= &p->at[p->order[i]].twice) of = &p->g->nodes[p->order[i]];
    if (of != NULL) memcpy(p->g->where, of->where, sizeof of->where);
    status = ev_graph_reserve(p->g, p->n_floats * sizeof(float), of != NULL ? of->op->name : "a plan", of != NULL ? &of->shape : NULL);
  }
  if (status == EV_OK) {
    p->reserved = p->n_floats * sizeof(float);
    p->arena = ev_zalloc(p->n_floats, sizeof *p->arena);
    if (p->arena == NULL) status = EV_ENOMEM;
  }
  ev_free(l.buffers);
  ev_free(value_to);
  ev_free(grad_from);
  return status;
}

ev_status ev_plan_new(ev_plan **out, ev_graph *g, const ev_tensor *outputs, size_t n_outputs, ev_tensor loss) {
  *out = NULL;
  for (size_t i = 0; i < n_outputs + (loss != EV_NONE); i++) {
    ev_tensor t = i < n_outputs ? outputs[i] : loss;
    if (t >= g->n) return ev_fail(EV_EINVAL, "output %zu is no tensor of this graph", i + 1);
    if (g->nodes[t].kind == EV_NODE_IDS || g->nodes[t].kind == EV_NODE_SPARSE) return ev_fail(EV_EINVAL, "'%s' cannot be computed: it is given", ev_graph_name(g, t));
  }
  if (loss != EV_NONE && ev_shape_size(&g->nodes[loss].shape) != 1) {
    char text[64];
    ev_shape_text(text, &g->nodes[loss].shape);
    return ev_fail(EV_EINVAL, "%sthe loss is %s %s: it must be one number", g->nodes[loss].where, ev_graph_name(g, loss), text);
  }
  if (loss != EV_NONE && !g->nodes[loss].differentiable) return ev_fail(EV_EINVAL, "%sthe loss does not depend on any parameter", g->nodes[loss].where);
  ev_plan *p = ev_zalloc(1, sizeof *p);
  if (p == NULL) return EV_ENOMEM;
  *p = (ev_plan){.g = g, .n_nodes = g->n, .n_outputs = n_outputs, .loss = loss};
  p->outputs = ev_alloc(n_outputs, sizeof *p->outputs);
  p->at = ev_alloc(g->n, sizeof *p->at);
  p->order = ev_alloc(g->n, sizeof *p->order);
  p->filled = ev_zalloc(g->n, sizeof *p->filled);
  ev_status status = p->outputs == NULL || p->at == NULL || p->order == NULL || p->filled == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    if (n_outputs > 0) memcpy(p->outputs, outputs, n_outputs * sizeof *outputs);
    mark(p);
    for (size_t i = 0; i < g->n; i++)
      if (p->at[i].used && g->nodes[i].kind == EV_NODE_OP) p->order[p->n_ops++] = (ev_tensor)i;
    status = lay_out(p);
  }
  if (status == EV_OK) *out = p;
  else ev_plan_free(p);
  return status;
}

void ev_plan_free(ev_plan *p) {
  if (p == NULL) return;
  p->g->used_bytes -= p->reserved;
  ev_free(p->outputs);
  ev_free(p->at);
  ev_free(p->order);
  ev_free(p->filled);
  ev_free(p->arena);
  ev_free(p);
}

size_t ev_plan_bytes(const ev_plan *p) { return p->n_floats * sizeof(float); }

/* ---- Running -------------------------------------------------------------------------------------------*/
void ev_plan_live(const ev_plan *p, ev_tensor t, ev_shape *out) {
  *out = p->g->nodes[t].shape;
  if (out->axis != 0) out->dim[0] = p->g->live[out->axis];
}

static float *slot(const ev_plan *p, size_t offset) { return offset != NOWHERE ? p->arena + offset : NULL; }

float *ev_plan_at(const ev_plan *p, ev_tensor t) {
  ev_tensor root = p->at[t].root;
  return p->g->nodes[root].op != NULL ? slot(p, p->at[root].value) : p->g->nodes[root].values;
}

static void make_call(const ev_plan *p, ev_tensor t, bool training, uint64_t step, ev_call *c) {
  const ev_node *n = &p->g->nodes[t];
  *c = (ev_call){.node = n, .out = ev_plan_at(p, t), .keep = slot(p, p->at[t].keep), .scratch = slot(p, p->at[t].scratch), .training = training};
  c->seed = (p->g->seed * UINT64_C(0x9E3779B97F4A7C15)) ^ (step * UINT64_C(0xBF58476D1CE4E5B9) + (t + 1) * UINT64_C(0x94D049BB133111EB));
  ev_plan_live(p, t, &c->shape);
  for (unsigned k = 0; k < n->n_in; k++) {
    const ev_node *in = &p->g->nodes[n->in[k]];
    ev_plan_live(p, n->in[k], &c->in_shape[k]);
    c->in_name[k] = ev_graph_name(p->g, n->in[k]);
    c->ids[k] = in->ids;
    c->sparse[k] = in->sparse;
    if (in->ids == NULL && in->sparse == NULL) c->in[k] = ev_plan_at(p, n->in[k]);
  }
}

static ev_status forward(const ev_plan *p, bool training, uint64_t step, bool check) {
  for (size_t i = 0; i < p->n_ops; i++) {
    ev_tensor t = p->order[i];
    const ev_node *n = &p->g->nodes[t];
    ev_call c;
    if (is_view(n)) continue;
    make_call(p, t, training, step, &c);
    ev_status status = n->op->forward(&c);
    if (status != EV_OK) return status == EV_EINVAL && n->where[0] != '\0' ? ev_fail(status, "%s%s", n->where, ev_error()) : status;
    if (!check) continue;
    char text[64];
    ev_shape_text(text, &c.shape);
    for (size_t e = 0, size = ev_shape_size(&c.shape); e < size; e++)
      if (!isfinite(c.out[e]))
        return ev_fail(EV_EINVAL, "%sthe loss is no number at step %llu: %s %s gave the first %g, at place %zu", n->where, (unsigned long long)step,
                       n->op->name, text, (double)c.out[e], e);
  }
  return EV_OK;
}

/* Which number was the first to go wrong: what is given, else the operator that made it. */
static ev_status diagnose(const ev_plan *p, bool training, uint64_t step) {
  for (size_t i = 0; i < p->n_nodes; i++) {
    const ev_node *n = &p->g->nodes[i];
    ev_shape live;
    if (!p->at[i].used || n->values == NULL) continue;
    ev_plan_live(p, (ev_tensor)i, &live);
    for (size_t e = 0, size = ev_shape_size(&live); e < size; e++)
      if (!isfinite(n->values[e]))
        return ev_fail(EV_EINVAL, "%sthe loss is no number at step %llu: '%s' holds %g", n->where, (unsigned long long)step, ev_graph_name(p->g, (ev_tensor)i), (double)n->values[e]);
  }
  EV_TRY(forward(p, training, step, true));
  return ev_fail(EV_EINVAL, "the loss is no number at step %llu", (unsigned long long)step);
}

static ev_status backward(ev_plan *p, uint64_t step) {
  memset(p->filled, 0, p->n_nodes * sizeof *p->filled);
  ev_tensor root = p->at[p->loss].root;
  if (p->at[root].grad == NOWHERE) return EV_OK; /* the loss is the gradient of one lazily gathered row: cannot be, it is scalar */
  *slot(p, p->at[root].grad) = 1;
  p->filled[root] = true;
  for (size_t i = p->n_ops; i-- > 0;) {
    ev_tensor t = p->order[i];
    const ev_node *n = &p->g->nodes[t];
    if (!p->at[t].flows || is_view(n) || is_lazy_gather(p, n)) continue;
    ev_call c;
    make_call(p, t, true, step, &c);
    c.scratch = slot(p, p->at[t].back_scratch);
    c.grad = slot(p, p->at[t].grad);
    float *aside = slot(p, p->at[t].twice), *first[EV_OP_INPUTS] = {NULL};
    for (unsigned k = 0; k < n->n_in; k++) {
      ev_tensor in = p->at[n->in[k]].root;
      if (!p->at[n->in[k]].flows) continue;
      c.grad_in[k] = slot(p, p->at[in].grad);
      c.add[k] = p->filled[in];
      for (unsigned j = 0; j < k; j++)
        if (p->at[n->in[j]].root == in && c.grad_in[j] != NULL) first[k] = c.grad_in[j];
      if (first[k] != NULL) {
        c.grad_in[k] = aside;
        c.add[k] = false;
        aside += (ev_shape_size(&p->g->nodes[n->in[k]].shape) + ALIGN - 1) / ALIGN * ALIGN;
      }
    }
    ev_status status = n->op->backward(&c);
    if (status != EV_OK) return status;
    for (unsigned k = 0; k < n->n_in; k++) {
      if (c.grad_in[k] != NULL) p->filled[p->at[n->in[k]].root] = true;
      if (first[k] != NULL) ev_axpy(p->arena + p->at[p->at[n->in[k]].root].grad, c.grad_in[k], 1, ev_shape_size(&c.in_shape[k]));
    }
  }
  return EV_OK;
}

ev_status ev_plan_run(ev_plan *p, bool training, uint64_t step, double *loss) {
  if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
  EV_TRY(forward(p, training, step, false));
  if (p->loss == EV_NONE) return EV_OK;
  double value = *ev_plan_at(p, p->loss);
  if (loss != NULL) *loss = value;
  if (!isfinite(value)) return diagnose(p, training, step);
  return training ? backward(p, step) : EV_OK;
}

/* ---- Results -------------------------------------------------------------------------------------------*/
const float *ev_plan_value(const ev_plan *p, ev_tensor t, ev_shape *live) {
  if (live != NULL) ev_plan_live(p, t, live);
  return ev_plan_at(p, t);
}

size_t ev_plan_shares(const ev_plan *p, ev_tensor parameter, ev_share out[EV_SHARES_MAX]) {
  size_t n = 0;
  for (size_t i = 0; i < p->n_ops; i++) {
    const ev_node *node = &p->g->nodes[p->order[i]];
    if (!p->at[p->order[i]].flows || !is_lazy_gather(p, node) || node->in[0] != parameter) continue;
    ev_shape ids;
    ev_plan_live(p, node->in[1], &ids);
    if (n < EV_SHARES_MAX) out[n] = (ev_share){p->g->nodes[node->in[1]].ids, slot(p, p->at[p->order[i]].grad), ev_shape_size(&ids), ev_shape_size(&p->g->nodes[node->in[1]].shape)};
    n++;
  }
  return n;
}

bool ev_plan_lazy(const ev_plan *p, ev_tensor parameter) { return p->at[parameter].lazy; }

float *ev_plan_dense_gradient(const ev_plan *p, ev_tensor parameter) {
  return p->at[parameter].flows && !p->at[parameter].lazy ? slot(p, p->at[parameter].grad) : NULL;
}

ev_status ev_plan_gradient(const ev_plan *p, ev_tensor t, float *out) {
  if (t >= p->n_nodes || p->g->nodes[t].kind != EV_NODE_PARAMETER) return ev_fail(EV_EINVAL, "tensor %u is no parameter", t);
  const ev_shape *s = &p->g->nodes[t].shape;
  size_t size = ev_shape_size(s), d = s->rank > 1 ? size / s->dim[0] : 1;
  const float *dense = ev_plan_dense_gradient(p, t);
  if (dense != NULL) {
    memcpy(out, dense, size * sizeof *out);
    return EV_OK;
  }
  memset(out, 0, size * sizeof *out);
  ev_share shares[EV_SHARES_MAX];
  size_t n = ev_plan_shares(p, t, shares);
  for (size_t i = 0; i < n; i++)
    for (size_t r = 0; r < shares[i].n; r++)
      if (shares[i].ids[r] != EV_NONE) ev_axpy(out + shares[i].ids[r] * d, shares[i].grad + r * d, 1, d);
  return EV_OK;
}
