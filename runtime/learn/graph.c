/* graph.c - recording: leaves, axes and operators, each checked when it is recorded.
 *
 * A node refers only to nodes before it, so the order of recording is an order of computing. What a leaf holds is
 * allocated here; what operators compute lies in a plan's arena (plan.c). */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph.h"

#define NODES_MAX 16384
#define AXES_MAX 64
#define NAME_MAX_BYTES 40

static const ev_op *const tables[] = {ev_ops_pointwise, ev_ops_reduce, ev_ops_normal,   ev_ops_matmul, ev_ops_layout,
                                      ev_ops_gather,    ev_ops_bag,    ev_ops_sequence, ev_ops_gru,    ev_ops_sparse};

/* ---- Shapes --------------------------------------------------------------------------------------------*/
size_t ev_shape_size(const ev_shape *s) {
  size_t n = 1;
  for (unsigned i = 0; i < s->rank; i++) n *= s->dim[i];
  return n;
}

size_t ev_shape_cols(const ev_shape *s) { return s->rank > 0 ? s->dim[s->rank - 1] : 1; }

size_t ev_shape_rows(const ev_shape *s) {
  size_t n = 1;
  for (unsigned i = 0; i + 1 < s->rank; i++) n *= s->dim[i];
  return ev_shape_cols(s) > 0 ? n : 0;
}

bool ev_shape_same(const ev_shape *a, const ev_shape *b) {
  if (a->rank != b->rank || a->axis != b->axis) return false;
  for (unsigned i = 0; i < a->rank; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}

void ev_shape_text(char out[64], const ev_shape *s) {
  size_t len = (size_t)snprintf(out, 64, "(");
  for (unsigned i = 0; i < s->rank && len < 48; i++) len += (size_t)snprintf(out + len, 64 - len, i == 0 ? "%zu" : ", %zu", s->dim[i]);
  snprintf(out + len, 64 - len, ")");
}

/* Every dimension within 2^40 and the elements within 2^46, so that no size in bytes overflows. */
static ev_status check_shape(const ev_graph *g, const char *name, const ev_shape *s) {
  char text[64];
  double n = 1;
  if (s->rank > EV_TENSOR_RANK) return ev_fail(EV_EINVAL, "%s'%s': %u dimensions; %d are the most", g->where, name, s->rank, EV_TENSOR_RANK);
  ev_shape_text(text, s);
  for (unsigned i = 0; i < s->rank; i++) n *= s->dim[i] > 1 ? (double)s->dim[i] : 1;
  if (n > 0x1p46) return ev_fail(EV_ELIMIT, "%s'%s' %s: too large", g->where, name, text);
  if (s->axis >= g->n_axes || (s->axis > 0 && (s->rank == 0 || s->dim[0] != g->axes[s->axis])))
    return ev_fail(EV_EINVAL, "%s'%s' %s: its first dimension is not that of its axis", g->where, name, text);
  return EV_OK;
}

/* ---- Life ----------------------------------------------------------------------------------------------*/
ev_status ev_graph_new(ev_graph **out, uint64_t seed, uint64_t max_bytes) {
  ev_graph *g = *out = ev_zalloc(1, sizeof *g);
  if (g == NULL) return EV_ENOMEM;
  g->seed = seed;
  g->max_bytes = max_bytes;
  g->axes = ev_zalloc(AXES_MAX, sizeof *g->axes);
  g->live = ev_zalloc(AXES_MAX, sizeof *g->live);
  g->n_axes = 1;
  if (g->axes != NULL && g->live != NULL) return EV_OK;
  ev_graph_free(g);
  *out = NULL;
  return EV_ENOMEM;
}

static void sparse_free(ev_edges *s) {
  if (s == NULL) return;
  ev_free(s->ptr);
  ev_free(s->t_ptr);
  ev_free(s->idx);
  ev_free(s->t_idx);
  ev_free(s->values);
  ev_free(s->t_values);
  ev_free(s);
}

static void node_free(ev_node *n) {
  ev_free(n->name);
  ev_free(n->values);
  ev_free(n->ids);
  sparse_free(n->sparse);
}

void ev_graph_free(ev_graph *g) {
  if (g == NULL) return;
  for (size_t i = 0; i < g->n; i++) node_free(&g->nodes[i]);
  for (size_t i = 0; i < g->n_outputs; i++) ev_free(g->output_names[i]);
  ev_free(g->outputs);
  ev_free(g->output_names);
  ev_free(g->nodes);
  ev_free(g->axes);
  ev_free(g->live);
  ev_free(g);
}

void ev_graph_at(ev_graph *g, const char *where) {
  g->where[0] = '\0';
  if (where != NULL && where[0] != '\0') snprintf(g->where, sizeof g->where, "%.*s: ", EV_WHERE_MAX - 4, where);
}

/* ---- Axes ----------------------------------------------------------------------------------------------*/
ev_status ev_graph_axis(ev_graph *g, unsigned *axis, size_t capacity) {
  if (g->n_axes == AXES_MAX) return ev_fail(EV_ELIMIT, "%sa graph has at most %d axes", g->where, AXES_MAX - 1);
  if (capacity == 0 || capacity >= EV_NONE) return ev_fail(EV_EINVAL, "%san axis of %zu rows", g->where, capacity);
  *axis = (unsigned)g->n_axes++;
  g->axes[*axis] = g->live[*axis] = capacity;
  return EV_OK;
}

ev_status ev_graph_set_live(ev_graph *g, unsigned axis, size_t n) {
  if (axis == 0 || axis >= g->n_axes) return ev_fail(EV_EINVAL, "the graph has no axis %u", axis);
  if (n > g->axes[axis]) return ev_fail(EV_EINVAL, "%zu rows on an axis of %zu", n, g->axes[axis]);
  g->live[axis] = n;
  return EV_OK;
}

size_t ev_graph_live(const ev_graph *g, unsigned axis) { return axis < g->n_axes ? g->live[axis] : 0; }

/* ---- Leaves --------------------------------------------------------------------------------------------*/
ev_status ev_graph_reserve(ev_graph *g, uint64_t bytes, const char *what, const ev_shape *s) {
  if (g->max_bytes == 0 || bytes <= g->max_bytes - g->used_bytes) {
    g->used_bytes += bytes;
    return EV_OK;
  }
  char text[64] = "";
  if (s != NULL) ev_shape_text(text, s);
  return ev_fail(EV_ELIMIT, "%s%s %s: %.1f MB more than the %.1f MB that are left of %.1f", g->where, what, text, (double)bytes / 1e6,
                 (double)(g->max_bytes - g->used_bytes) / 1e6, (double)g->max_bytes / 1e6);
}

static ev_status new_node(ev_graph *g, ev_tensor *out, ev_node_kind kind, const ev_shape *shape) {
  if (g->n == NODES_MAX) return ev_fail(EV_ELIMIT, "%sa graph has at most %d nodes", g->where, NODES_MAX);
  if (g->n == g->cap) {
    size_t cap = g->cap > 0 ? g->cap * 2 : 64;
    ev_node *p = ev_resize(g->nodes, cap, sizeof *p);
    if (p == NULL) return EV_ENOMEM;
    g->nodes = p;
    g->cap = cap;
  }
  ev_node *n = &g->nodes[g->n];
  *n = (ev_node){.kind = kind};
  if (shape != NULL) n->shape = *shape;
  memcpy(n->where, g->where, sizeof n->where);
  *out = (ev_tensor)g->n;
  return EV_OK;
}

/* A leaf with a name and memory of its own; not counted as recorded until the caller says so. */
static ev_status new_leaf(ev_graph *g, ev_tensor *out, ev_node_kind kind, const char *name, const ev_shape *shape) {
  size_t len = strlen(name);
  if (len == 0 || len > NAME_MAX_BYTES || strpbrk(name, "\n") != NULL) return ev_fail(EV_EINVAL, "%s'%s' is no name for a tensor: 1 to %d bytes", g->where, name, NAME_MAX_BYTES);
  if (ev_graph_find(g, name) != EV_NONE) return ev_fail(EV_EEXIST, "%sthere is a tensor '%s' already", g->where, name);
  EV_TRY(check_shape(g, name, shape));
  size_t size = ev_shape_size(shape);
  EV_TRY(ev_graph_reserve(g, size * sizeof(float), name, shape));
  EV_TRY(new_node(g, out, kind, shape));
  ev_node *n = &g->nodes[*out];
  n->name = ev_strndup(name, len);
  if (kind == EV_NODE_IDS) n->ids = ev_zalloc(size, sizeof *n->ids);
  else n->values = ev_zalloc(size, sizeof *n->values);
  if (n->name != NULL && (n->ids != NULL || n->values != NULL)) return EV_OK;
  node_free(n);
  return EV_ENOMEM;
}

ev_status ev_graph_input(ev_graph *g, ev_tensor *out, const char *name, const ev_shape *shape) {
  EV_TRY(new_leaf(g, out, EV_NODE_INPUT, name, shape));
  g->n++;
  return EV_OK;
}

ev_status ev_graph_input_ids(ev_graph *g, ev_tensor *out, const char *name, const ev_shape *shape) {
  EV_TRY(new_leaf(g, out, EV_NODE_IDS, name, shape));
  g->n++;
  return EV_OK;
}

ev_status ev_graph_constant(ev_graph *g, ev_tensor *out, double value) {
  static const ev_shape scalar;
  if (!isfinite((float)value)) return ev_fail(EV_EINVAL, "%sa constant of %g", g->where, value);
  EV_TRY(new_node(g, out, EV_NODE_CONSTANT, &scalar));
  ev_node *n = &g->nodes[*out];
  n->values = ev_alloc(1, sizeof *n->values);
  if (n->values == NULL) return EV_ENOMEM;
  n->values[0] = (float)value;
  g->n++;
  return EV_OK;
}

ev_status ev_graph_parameter(ev_graph *g, ev_tensor *out, const char *name, const ev_shape *shape, ev_init init, float scale, float decay) {
  if (shape->axis != 0) return ev_fail(EV_EINVAL, "%sparameter '%s' has an axis", g->where, name);
  if (!(scale >= 0 && scale <= 1e6f) || !(decay >= 0 && decay <= 1e6f) || init > EV_INIT_XAVIER) return ev_fail(EV_EINVAL, "%sparameter '%s': scale %g, decay %g", g->where, name, (double)scale, (double)decay);
  EV_TRY(new_leaf(g, out, EV_NODE_PARAMETER, name, shape));
  ev_node *n = &g->nodes[*out];
  n->init = init;
  n->scale = scale;
  n->decay = decay;
  n->rate = 1;
  n->differentiable = true;
  size_t size = ev_shape_size(shape);
  double bound = init == EV_INIT_XAVIER ? scale * sqrt(6.0 / ((double)ev_shape_rows(shape) + (double)ev_shape_cols(shape) + 1e-30)) : scale;
  ev_rng r;
  ev_rng_seed(&r, g->seed, 1000003 + *out);
  if (init == EV_INIT_ONES) for (size_t i = 0; i < size; i++) n->values[i] = 1;
  if (init == EV_INIT_NORMAL) for (size_t i = 0; i < size; i++) n->values[i] = (float)(scale * ev_rng_normal(&r));
  if (init == EV_INIT_UNIFORM || init == EV_INIT_XAVIER) for (size_t i = 0; i < size; i++) n->values[i] = (float)(bound * (2 * ev_rng_f64(&r) - 1));
  g->n++;
  return EV_OK;
}

ev_status ev_graph_parameter_rate(ev_graph *g, ev_tensor t, float rate) {
  if (t >= g->n || g->nodes[t].kind != EV_NODE_PARAMETER) return ev_fail(EV_EINVAL, "%sonly a parameter has a rate", g->where);
  if (!(rate >= 0 && rate <= 1e6f)) return ev_fail(EV_EINVAL, "%sparameter '%s': rate %g", g->where, g->nodes[t].name, (double)rate);
  g->nodes[t].rate = rate;
  return EV_OK;
}

/* ---- Sparse matrices -----------------------------------------------------------------------------------*/
static ev_status check_sparse(const ev_graph *g, const char *name, size_t n_rows, size_t n_cols, const uint64_t *ptr, const uint32_t *idx, const float *values) {
  if (n_rows == 0 || n_cols == 0 || n_rows >= EV_NONE || n_cols >= EV_NONE || ptr[0] != 0) return ev_fail(EV_EINVAL, "%ssparse '%s' (%zu, %zu): no such matrix", g->where, name, n_rows, n_cols);
  for (size_t r = 0; r < n_rows; r++)
    if (ptr[r + 1] < ptr[r]) return ev_fail(EV_EINVAL, "%ssparse '%s': row %zu ends before it begins", g->where, name, r);
  for (uint64_t e = 0; e < ptr[n_rows]; e++) {
    if (idx[e] >= n_cols) return ev_fail(EV_EINVAL, "%ssparse '%s': column %u of %zu", g->where, name, idx[e], n_cols);
    if (values != NULL && !isfinite(values[e])) return ev_fail(EV_EINVAL, "%ssparse '%s': a value of %g", g->where, name, (double)values[e]);
  }
  return EV_OK;
}

static ev_status sparse_new(ev_edges **out, size_t n_rows, size_t n_cols, const uint64_t *ptr, const uint32_t *idx, const float *values) {
  size_t n = ptr[n_rows];
  ev_edges *s = *out = ev_zalloc(1, sizeof *s);
  if (s == NULL) return EV_ENOMEM;
  s->n_rows = n_rows;
  s->n_cols = n_cols;
  s->ptr = ev_alloc(n_rows + 1, sizeof *s->ptr);
  s->t_ptr = ev_zalloc(n_cols + 2, sizeof *s->t_ptr);
  s->idx = ev_alloc(n, sizeof *s->idx);
  s->t_idx = ev_alloc(n, sizeof *s->t_idx);
  if (values != NULL) {
    s->values = ev_alloc(n, sizeof *s->values);
    s->t_values = ev_alloc(n, sizeof *s->t_values);
  }
  if (s->ptr == NULL || s->t_ptr == NULL || s->idx == NULL || s->t_idx == NULL || (values != NULL && (s->values == NULL || s->t_values == NULL))) {
    sparse_free(s);
    *out = NULL;
    return EV_ENOMEM;
  }
  memcpy(s->ptr, ptr, (n_rows + 1) * sizeof *ptr);
  memcpy(s->idx, idx, n * sizeof *idx);
  if (values != NULL) memcpy(s->values, values, n * sizeof *values);
  for (size_t e = 0; e < n; e++) s->t_ptr[idx[e] + 2]++; /* counts, then where each column's next entry goes: one place further on */
  for (size_t c = 1; c <= n_cols; c++) s->t_ptr[c + 1] += s->t_ptr[c];
  for (size_t r = 0; r < n_rows; r++)
    for (uint64_t e = ptr[r]; e < ptr[r + 1]; e++) {
      uint64_t at = s->t_ptr[idx[e] + 1]++;
      s->t_idx[at] = (uint32_t)r;
      if (values != NULL) s->t_values[at] = values[e];
    }
  return EV_OK;
}

ev_status ev_graph_sparse(ev_graph *g, ev_tensor *out, const char *name, size_t n_rows, size_t n_cols, const uint64_t *ptr, const uint32_t *idx, const float *values) {
  EV_TRY(check_sparse(g, name, n_rows, n_cols, ptr, idx, values));
  size_t len = strlen(name);
  if (len == 0 || len > NAME_MAX_BYTES) return ev_fail(EV_EINVAL, "%s'%s' is no name for a matrix: 1 to %d bytes", g->where, name, NAME_MAX_BYTES);
  if (ev_graph_find(g, name) != EV_NONE) return ev_fail(EV_EEXIST, "%sthere is a tensor '%s' already", g->where, name);
  ev_shape shape = {.rank = 2, .dim = {n_rows, n_cols}};
  EV_TRY(ev_graph_reserve(g, ptr[n_rows] * (values != NULL ? 16 : 8) + (n_rows + n_cols) * 8, name, &shape));
  EV_TRY(new_node(g, out, EV_NODE_SPARSE, &shape));
  ev_node *n = &g->nodes[*out];
  n->name = ev_strndup(name, len);
  ev_status status = n->name == NULL ? EV_ENOMEM : sparse_new(&n->sparse, n_rows, n_cols, ptr, idx, values);
  if (status == EV_OK) g->n++;
  else node_free(n);
  return status;
}

/* ---- Operators -----------------------------------------------------------------------------------------*/
/* One word may name two that take different numbers of tensors: max (x, y) and max (x). */
static const ev_op *find_op(const char *name, size_t n_in) {
  const ev_op *found = NULL;
  for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
    for (const ev_op *op = tables[t]; op->name != NULL; op++)
      if (strcmp(op->name, name) == 0 && (found == NULL || (n_in >= op->min_in && n_in <= op->max_in))) found = op;
  return found;
}

ev_status ev_graph_op(ev_graph *g, ev_tensor *out, const char *name, const ev_tensor *in, size_t n_in, const double *attr, size_t n_attr) {
  const ev_op *op = find_op(name, n_in);
  if (op == NULL) return ev_fail(EV_EINVAL, "%sthere is no operator '%s'", g->where, name);
  if (n_in < op->min_in || n_in > op->max_in) return ev_fail(EV_EINVAL, "%s%s takes %u to %u tensors, not %zu", g->where, name, op->min_in, op->max_in, n_in);
  if (n_attr < op->min_attr || n_attr > op->max_attr) return ev_fail(EV_EINVAL, "%s%s takes %u to %u numbers, not %zu", g->where, name, op->min_attr, op->max_attr, n_attr);
  for (size_t i = 0; i < n_in; i++)
    if (in[i] >= g->n) return ev_fail(EV_EINVAL, "%s%s: input %zu is no tensor of this graph", g->where, name, i + 1);
  for (size_t i = 0; i < n_attr; i++)
    if (!isfinite(attr[i])) return ev_fail(EV_EINVAL, "%s%s: number %zu is %g", g->where, name, i + 1, attr[i]);
  EV_TRY(new_node(g, out, EV_NODE_OP, NULL));
  ev_node *n = &g->nodes[*out];
  n->op = op;
  n->n_in = (unsigned)n_in;
  n->n_attr = (unsigned)n_attr;
  memcpy(n->in, in, n_in * sizeof *in);
  if (n_attr > 0) memcpy(n->attr, attr, n_attr * sizeof *attr);
  for (size_t i = 0; i < n_in; i++) n->differentiable |= g->nodes[in[i]].differentiable && op->backward != NULL;
  if (op->flags & EV_VIEW) n->differentiable = g->nodes[in[0]].differentiable;
  EV_TRY(op->infer(g, n));
  EV_TRY(check_shape(g, name, &n->shape));
  g->n++;
  return EV_OK;
}

const ev_node *ev_op_in(const ev_graph *g, const ev_node *n, unsigned i) { return &g->nodes[n->in[i]]; }

ev_status ev_op_wrong(const ev_graph *g, const ev_node *n, const char *fmt, ...) {
  char shapes[EV_OP_INPUTS * 68] = "", text[64], why[256];
  size_t len = 0;
  for (unsigned i = 0; i < n->n_in; i++) {
    ev_shape_text(text, &g->nodes[n->in[i]].shape);
    len += (size_t)snprintf(shapes + len, sizeof shapes - len, "%s%s", i > 0 ? " x " : "", text);
  }
  va_list args;
  va_start(args, fmt);
  vsnprintf(why, sizeof why, fmt, args);
  va_end(args);
  return ev_fail(EV_EINVAL, "%s%s %s: %s", n->where, n->op->name, shapes, why);
}

ev_status ev_op_kind(const ev_graph *g, const ev_node *n, unsigned i, ev_node_kind kind) {
  ev_node_kind is = g->nodes[n->in[i]].kind;
  bool special = is == EV_NODE_IDS || is == EV_NODE_SPARSE;
  if (kind == EV_NODE_OP ? !special : is == kind) return EV_OK;
  const char *want = kind == EV_NODE_IDS ? "ids" : kind == EV_NODE_SPARSE ? "a sparse matrix" : "numbers";
  return ev_op_wrong(g, n, "input %u must be %s, not %s", i + 1, want, is == EV_NODE_IDS ? "ids" : is == EV_NODE_SPARSE ? "a sparse matrix" : "numbers");
}

ev_status ev_op_floats(const ev_graph *g, const ev_node *n) {
  for (unsigned i = 0; i < n->n_in; i++) EV_TRY(ev_op_kind(g, n, i, EV_NODE_OP));
  return EV_OK;
}

ev_status ev_op_integer(const ev_graph *g, const ev_node *n, unsigned attr, const char *what, int64_t low, int64_t high, int64_t *out) {
  double x = n->attr[attr];
  if (!(x >= (double)low && x <= (double)high) || x != floor(x)) return ev_op_wrong(g, n, "%s %g is no whole number from %lld to %lld", what, x, (long long)low, (long long)high);
  *out = (int64_t)x;
  return EV_OK;
}

/* ---- Looking -------------------------------------------------------------------------------------------*/
size_t ev_graph_size(const ev_graph *g) { return g->n; }
const ev_shape *ev_graph_shape(const ev_graph *g, ev_tensor t) { return &g->nodes[t].shape; }
const char *ev_graph_name(const ev_graph *g, ev_tensor t) { return g->nodes[t].op != NULL ? g->nodes[t].op->name : g->nodes[t].name != NULL ? g->nodes[t].name : "constant"; }

ev_tensor ev_graph_find(const ev_graph *g, const char *name) {
  for (size_t i = 0; i < g->n; i++)
    if (g->nodes[i].name != NULL && strcmp(g->nodes[i].name, name) == 0) return (ev_tensor)i;
  return EV_NONE;
}

float *ev_graph_values(ev_graph *g, ev_tensor t, size_t *n) {
  if (n != NULL) *n = g->nodes[t].values != NULL ? ev_shape_size(&g->nodes[t].shape) : 0;
  return g->nodes[t].values;
}

uint32_t *ev_graph_ids(ev_graph *g, ev_tensor t, size_t *n) {
  if (n != NULL) *n = g->nodes[t].ids != NULL ? ev_shape_size(&g->nodes[t].shape) : 0;
  return g->nodes[t].ids;
}
