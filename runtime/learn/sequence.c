/* sequence.c - attention and convolution over sequences of different lengths.
 *
 * The rows of x are sequences one after the other; `lengths` says where each ends, and the lengths must add up to the live
 * rows. There is no padding, so none is computed: a batch whose mean length is a fifth of its longest costs a fifth for
 * everything linear, and a twenty-fifth for attention.
 *
 * Attention runs over (sequence, head) pairs (ev_attend: nothing quadratic is kept). Convolution is a product with each
 * tap's matrix over shifted rows of the same sequence; rows are cut in blocks whatever the sequences, each of which finds
 * the pieces of sequences in it. Blocks and parts depend on shapes only. */
#include <string.h>

#include "graph.h"

#define ALONE 1000000     /* multiply-adds that the calling thread does by itself */
#define BLOCK_ROWS 128    /* of a convolution */
#define PARTS 16          /* of the gradient of a convolution's weights, at most */
#define PART_ROWS 512     /* at least */
#define PARTS_FLOATS (1 << 20) /* of all parts, unless one alone is more */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }

/* Where each sequence begins, and the end (n + 1); in floats of scratch: */
static size_t begins_size(const ev_shape *lengths) { return 2 * (lengths->dim[0] + 1); }

static ev_status find_begins(const ev_call *c, unsigned input, uint64_t *begins) {
  const uint32_t *lengths = c->ids[input];
  size_t n = c->in_shape[input].dim[0], rows = c->in_shape[0].dim[0];
  begins[0] = 0;
  for (size_t i = 0; i < n; i++) begins[i + 1] = begins[i] + lengths[i];
  if (begins[n] == rows) return EV_OK;
  return ev_fail(EV_EINVAL, "%s: the %zu lengths in '%s' add up to %llu, but there are %zu rows", c->node->op->name, n,
                 c->in_name[input] != NULL ? c->in_name[input] : "lengths", (unsigned long long)begins[n], rows);
}

/* ---- attention -----------------------------------------------------------------------------------------------*/
typedef struct attention {
  const ev_call *c;
  const uint64_t *begins;
  size_t heads, d, width; /* width = heads d */
  bool causal;
} attention;

static ev_head head_of(const attention *a, size_t sequence) {
  return (ev_head){a->begins[sequence + 1] - a->begins[sequence], a->d, a->width, 2 * a->heads, a->causal};
}

static void attend_pairs(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const attention *a = ctx;
  const ev_call *c = a->c;
  for (size_t u = begin; u < end; u++) {
    size_t sequence = u / a->heads, head = u % a->heads, at = a->begins[sequence] * a->width + head * a->d;
    ev_head h = head_of(a, sequence);
    ev_attend(c->out + at, c->keep + 2 * (a->begins[sequence] * a->heads + head), c->in[0] + at, c->in[1] + at, c->in[2] + at, &h);
  }
}

static void attend_pairs_back(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const attention *a = ctx;
  const ev_call *c = a->c;
  for (size_t u = begin; u < end; u++) {
    size_t sequence = u / a->heads, head = u % a->heads, at = a->begins[sequence] * a->width + head * a->d;
    ev_head h = head_of(a, sequence);
    float *grad[3];
    for (int k = 0; k < 3; k++) grad[k] = c->grad_in[k] != NULL ? c->grad_in[k] + at : NULL;
    ev_attend_back(grad[0], grad[1], grad[2], c->add, c->in[0] + at, c->in[1] + at, c->in[2] + at, c->out + at,
        c->keep + 2 * (a->begins[sequence] * a->heads + head), c->grad + at, &h);
  }
}

static ev_status attention_infer(const ev_graph *g, ev_node *n) {
  for (unsigned i = 0; i < 3; i++) EV_TRY(ev_op_kind(g, n, i, EV_NODE_OP));
  EV_TRY(ev_op_kind(g, n, 3, EV_NODE_IDS));
  const ev_shape *q = &ev_op_in(g, n, 0)->shape;
  int64_t heads, flag;
  if (q->rank != 2) return ev_op_wrong(g, n, "queries are the rows of a matrix");
  for (unsigned i = 1; i < 3; i++)
    if (!ev_shape_same(q, &ev_op_in(g, n, i)->shape)) return ev_op_wrong(g, n, "queries, keys and values must have one shape and axis");
  if (ev_op_in(g, n, 3)->shape.rank != 1) return ev_op_wrong(g, n, "there is one length for each sequence");
  EV_TRY(ev_op_integer(g, n, 0, "heads", 1, (int64_t)q->dim[1], &heads));
  EV_TRY(ev_op_integer(g, n, 1, "causal", 0, 1, &flag));
  if (q->dim[1] % (size_t)heads != 0) return ev_op_wrong(g, n, "%zu numbers a row cannot be shared by %d heads", q->dim[1], (int)heads);
  if (q->dim[1] / (size_t)heads > EV_HEAD_MAX) return ev_op_wrong(g, n, "heads of %zu numbers; %d are the most", q->dim[1] / (size_t)heads, EV_HEAD_MAX);
  n->shape = *q;
  return EV_OK;
}

static ev_status attention_run(ev_call *c, ev_range_fn *fn) {
  uint64_t *begins = (void *)c->scratch;
  EV_TRY(find_begins(c, 3, begins));
  size_t n = c->in_shape[3].dim[0], heads = (size_t)c->node->attr[0], width = c->shape.dim[1];
  attention a = {c, begins, heads, width / heads, width, c->node->attr[1] != 0};
  double work = 0;
  for (size_t i = 0; i < n; i++) work += (double)c->ids[3][i] * c->ids[3][i];
  work *= 2.0 * (double)width;
  ev_parallel_for(n * heads, work <= ALONE ? n * heads : most(1, (size_t)(ALONE / work * (double)(n * heads))), fn, &a);
  return EV_OK;
}

static ev_status attention_forward(ev_call *c) { return attention_run(c, attend_pairs); }
static ev_status attention_backward(ev_call *c) { return attention_run(c, attend_pairs_back); }
static size_t attention_keep(const ev_graph *g, const ev_node *n) { return (void)g, 2 * n->shape.dim[0] * (size_t)n->attr[0]; }
static size_t attention_scratch(const ev_graph *g, const ev_node *n) { return begins_size(&ev_op_in(g, n, 3)->shape); }

/* ---- conv1d --------------------------------------------------------------------------------------------------*/
typedef struct conv {
  const ev_call *c;
  const uint64_t *begins;
  size_t n, rows, taps, in, out; /* sequences, T, W, C, D */
  float *turned;                 /* (taps, out, in): the weights, each tap's matrix transposed */
  float *dw, *db;                /* (n_parts, taps, in, out), (n_parts, out) */
  size_t n_parts;
} conv;

/* The sequence that row t belongs to: the last that begins at t or before. */
static size_t sequence_at(const conv *v, size_t t) {
  size_t low = 0, high = v->n; /* begins[low] <= t < begins[high] */
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (v->begins[middle] <= t) low = middle;
    else high = middle;
  }
  return low;
}

static void conv_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const conv *v = ctx;
  const ev_call *c = v->c;
  for (size_t t = begin; t < end; t++) memcpy(c->out + t * v->out, c->in[2], v->out * sizeof(float));
  for (size_t s = sequence_at(v, begin); s < v->n && v->begins[s] < end; s++)
    for (size_t tap = 0; tap < v->taps; tap++) {
      size_t back = v->taps - 1 - tap, from = most(begin, v->begins[s] + back), to = least(end, v->begins[s + 1]);
      if (from < to) ev_gemm(c->out + from * v->out, v->out, c->in[0] + (from - back) * v->in, v->in, false, c->in[1] + tap * v->in * v->out, v->out,
          false, true, to - from, v->out, v->in);
    }
}

/* x̄[t] = Σ ȳ[t + back] w[tap]ᵀ, as far as the sequence goes; the last tap, which looks back by nothing, comes first. */
static void conv_rows_back(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const conv *v = ctx;
  const ev_call *c = v->c;
  for (size_t s = sequence_at(v, begin); s < v->n && v->begins[s] < end; s++)
    for (size_t back = 0; back < v->taps; back++) {
      size_t from = most(begin, v->begins[s]), sequence_end = v->begins[s + 1], to = sequence_end > back ? least(end, sequence_end - back) : 0;
      const float *w = v->turned + (v->taps - 1 - back) * v->in * v->out;
      if (from < to) ev_gemm(c->grad_in[0] + from * v->in, v->in, c->grad + (from + back) * v->out, v->out, false, w, v->in, false,
          c->add[0] || back > 0, to - from, v->in, v->out);
    }
}

/* One tap's share of one part. */
static void conv_parts(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const conv *v = ctx;
  const ev_call *c = v->c;
  size_t size = v->in * v->out;
  for (size_t u = begin; u < end; u++) {
    size_t part = u / v->taps, tap = u % v->taps, back = v->taps - 1 - tap, first = v->rows * part / v->n_parts, last = v->rows * (part + 1) / v->n_parts;
    float *dw = v->dw + u * size, *db = v->db + part * v->out;
    memset(dw, 0, size * sizeof *dw);
    for (size_t s = sequence_at(v, first); s < v->n && v->begins[s] < last; s++) {
      size_t from = most(first, v->begins[s] + back), to = least(last, v->begins[s + 1]);
      if (from < to) ev_gemm(dw, v->out, c->in[0] + (from - back) * v->in, v->in, true, c->grad + from * v->out, v->out, false, true, v->in, v->out,
          to - from);
    }
    if (tap > 0) continue;
    memset(db, 0, v->out * sizeof *db);
    for (size_t t = first; t < last; t++) ev_axpy(db, c->grad + t * v->out, 1, v->out);
  }
}

static void add_up(float *out, bool add, const float *part, size_t n_parts, size_t n) {
  if (!add) memset(out, 0, n * sizeof *out);
  for (size_t p = 0; p < n_parts; p++) ev_axpy(out, part + p * n, 1, n);
}

static size_t conv_parts_of(size_t rows, size_t taps, size_t in, size_t out) {
  size_t by_rows = rows / PART_ROWS + 1, by_size = PARTS_FLOATS / most(taps * in * out, 1);
  return most(1, least(PARTS, least(by_rows, by_size)));
}

static ev_status conv_infer(const ev_graph *g, ev_node *n) {
  for (unsigned i = 0; i < 3; i++) EV_TRY(ev_op_kind(g, n, i, EV_NODE_OP));
  EV_TRY(ev_op_kind(g, n, 3, EV_NODE_IDS));
  const ev_shape *x = &ev_op_in(g, n, 0)->shape, *w = &ev_op_in(g, n, 1)->shape, *bias = &ev_op_in(g, n, 2)->shape;
  if (x->rank != 2 || w->rank != 3 || bias->rank != 1) return ev_op_wrong(g, n, "takes x (T, C), weights (W, C, D) and a bias (D)");
  if (ev_op_in(g, n, 3)->shape.rank != 1) return ev_op_wrong(g, n, "there is one length for each sequence");
  if (w->axis != 0 || bias->axis != 0) return ev_op_wrong(g, n, "weights and bias cannot have an axis");
  if (w->dim[0] == 0) return ev_op_wrong(g, n, "there are no taps");
  if (w->dim[1] != x->dim[1]) return ev_op_wrong(g, n, "rows of %zu numbers, but weights for %zu", x->dim[1], w->dim[1]);
  if (bias->dim[0] != w->dim[2]) return ev_op_wrong(g, n, "weights to %zu numbers, but a bias for %zu", w->dim[2], bias->dim[0]);
  n->shape = (ev_shape){.rank = 2, .dim = {x->dim[0], w->dim[2]}, .axis = x->axis};
  return EV_OK;
}

static conv conv_of(const ev_call *c) {
  const ev_shape *w = &c->in_shape[1];
  return (conv){.c = c, .begins = (const void *)c->scratch, .n = c->in_shape[3].dim[0], .rows = c->in_shape[0].dim[0], .taps = w->dim[0],
      .in = w->dim[1], .out = w->dim[2]};
}

/* Cut alike whatever the threads; but rows that are few enough, and hence few, are one block. */
static size_t conv_grain(const conv *v) { return (double)v->rows * (double)(v->taps * v->in * v->out) <= ALONE ? most(v->rows, 1) : BLOCK_ROWS; }

static ev_status conv_forward(ev_call *c) {
  conv v = conv_of(c);
  EV_TRY(find_begins(c, 3, (void *)c->scratch));
  ev_parallel_for(v.rows, conv_grain(&v), conv_rows, &v);
  return EV_OK;
}

static ev_status conv_backward(ev_call *c) {
  conv v = conv_of(c);
  size_t size = v.taps * v.in * v.out;
  EV_TRY(find_begins(c, 3, (void *)c->scratch));
  if (c->grad_in[0] != NULL && v.rows > 0) {
    float *turned = v.turned = c->scratch + 2 * (v.n + 1);
    for (size_t tap = 0; tap < v.taps; tap++)
      for (size_t i = 0; i < v.in; i++)
        for (size_t j = 0; j < v.out; j++) turned[(tap * v.out + j) * v.in + i] = c->in[1][(tap * v.in + i) * v.out + j];
    ev_parallel_for(v.rows, conv_grain(&v), conv_rows_back, &v);
  }
  if (c->grad_in[1] == NULL && c->grad_in[2] == NULL) return EV_OK;
  v.n_parts = conv_parts_of(v.rows, v.taps, v.in, v.out);
  v.dw = c->scratch + 2 * (v.n + 1) + size;
  v.db = v.dw + v.n_parts * size;
  if (v.rows > 0) ev_parallel_for(v.n_parts * v.taps, (double)v.rows * (double)size <= ALONE ? v.n_parts * v.taps : 1, conv_parts, &v);
  else v.n_parts = 0;
  if (c->grad_in[1] != NULL) add_up(c->grad_in[1], c->add[1], v.dw, v.n_parts, size);
  if (c->grad_in[2] != NULL) add_up(c->grad_in[2], c->add[2], v.db, v.n_parts, v.out);
  return EV_OK;
}

static size_t conv_scratch(const ev_graph *g, const ev_node *n) {
  const ev_shape *w = &ev_op_in(g, n, 1)->shape;
  size_t size = ev_shape_size(w);
  return begins_size(&ev_op_in(g, n, 3)->shape) + size + conv_parts_of(n->shape.dim[0], w->dim[0], w->dim[1], w->dim[2]) * (size + w->dim[2]);
}

const ev_op ev_ops_sequence[] = {
    {.name = "attention", .min_in = 4, .max_in = 4, .min_attr = 1, .max_attr = 2, .flags = EV_BACK_IN | EV_BACK_OUT, .infer = attention_infer,
     .forward = attention_forward, .backward = attention_backward, .keep = attention_keep, .scratch = attention_scratch},
    {.name = "conv1d", .min_in = 4, .max_in = 4, .flags = EV_BACK_IN, .infer = conv_infer, .forward = conv_forward, .backward = conv_backward,
     .scratch = conv_scratch},
    {.name = NULL},
};
