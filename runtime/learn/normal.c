/* normal.c - operators that take a row (the last dimension) as a whole: softmax, normalisations, the largest of it; and the
 * masks: dropout, and columns that stand for the same thing as their row. */
#include <math.h>
#include <string.h>

#include "broadcast.h"

/* ---- Softmax, its logarithm, division by the length -------------------------------------------------------------*/
typedef struct job {
  const ev_call *c;
  float *out;
  size_t cols;
  bool add;
  float *d_gain, *d_bias, *partial; /* layer_norm */
  size_t block, rows;
} job;

static job job_of(const ev_call *c, float *out, bool add) {
  return (job){.c = c, .out = out, .add = add, .cols = ev_shape_cols(&c->in_shape[0]), .rows = ev_shape_rows(&c->in_shape[0])};
}

static void run(job *j, ev_range_fn *fn) { ev_parallel_for(j->rows, ev_slice_rows(j->cols), fn, j); }

static ev_status row_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  const ev_shape *x = &ev_op_in(g, n, 0)->shape;
  if (x->rank == 0 || (x->rank == 1 && x->axis != 0)) return ev_op_wrong(g, n, "it works on rows of a fixed length, the last dimension");
  n->shape = *x;
  return EV_OK;
}

static void softmax_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  ev_softmax_rows(j->out + begin * j->cols, j->c->in[0] + begin * j->cols, end - begin, j->cols);
}

static void softmax_back_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  size_t at = begin * j->cols;
  ev_softmax_back(j->out + at, j->c->grad + at, j->c->out + at, j->add, end - begin, j->cols);
}

static void log_softmax_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  ev_log_softmax_rows(j->out + begin * j->cols, j->c->in[0] + begin * j->cols, end - begin, j->cols);
}

static void log_softmax_back_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  size_t at = begin * j->cols;
  ev_log_softmax_back(j->out + at, j->c->grad + at, j->c->out + at, j->add, end - begin, j->cols);
}

static bool is_log(const ev_node *n) { return n->op->name[0] == 'l'; }

static ev_status softmax_forward(ev_call *c) {
  job j = job_of(c, c->out, false);
  run(&j, is_log(c->node) ? log_softmax_part : softmax_part);
  return EV_OK;
}

static ev_status softmax_backward(ev_call *c) {
  job j = job_of(c, c->grad_in[0], c->add[0]);
  if (j.out != NULL) run(&j, is_log(c->node) ? log_softmax_back_part : softmax_back_part);
  return EV_OK;
}

static ev_status epsilon_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(row_infer(g, n));
  if (!((float)n->attr[0] > 0)) return ev_op_wrong(g, n, "epsilon %g is not above 0", n->attr[0]);
  return EV_OK;
}

static void normalise_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  ev_normalise(j->out + begin * j->cols, j->c->keep + begin, j->c->in[0] + begin * j->cols, (float)j->c->node->attr[0], end - begin, j->cols);
}

static void normalise_back_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  size_t at = begin * j->cols;
  ev_normalise_back(j->out + at, j->c->grad + at, j->c->out + at, j->c->keep + begin, j->add, end - begin, j->cols);
}

static ev_status normalise_forward(ev_call *c) {
  job j = job_of(c, c->out, false);
  run(&j, normalise_part);
  return EV_OK;
}

static ev_status normalise_backward(ev_call *c) {
  job j = job_of(c, c->grad_in[0], c->add[0]);
  if (j.out != NULL) run(&j, normalise_back_part);
  return EV_OK;
}

static size_t normalise_keep(const ev_graph *g, const ev_node *n) { return (void)g, ev_shape_rows(&n->shape); }

/* ---- Layer normalisation ------------------------------------------------------------------------------------------
 * The gradients of gain and bias are summed over blocks of rows side by side, then over the blocks in order. */
#define BLOCKS_MAX 64

static ev_status layer_norm_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(epsilon_infer(g, n));
  for (unsigned i = 1; i < 3; i++) {
    const ev_shape *s = &ev_op_in(g, n, i)->shape;
    if (s->rank != 1 || s->axis != 0 || s->dim[0] != ev_shape_cols(&n->shape)) return ev_op_wrong(g, n, "%s must have the shape (%zu), a number for each column", i == 1 ? "the gain" : "the bias", ev_shape_cols(&n->shape));
  }
  if (ev_shape_cols(&n->shape) == 0) return ev_op_wrong(g, n, "rows without elements have no mean");
  return EV_OK;
}

static size_t layer_norm_blocks(size_t rows, size_t cols) {
  size_t blocks = rows * cols / EV_SLICE + 1;
  return blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX;
}

static void layer_norm_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  const ev_call *c = j->c;
  ev_layer_norm(j->out + begin * j->cols, c->keep + 2 * begin, c->in[0] + begin * j->cols, c->in[1], c->in[2], (float)c->node->attr[0], end - begin, j->cols);
}

static void layer_norm_back_blocks(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  const ev_call *c = j->c;
  for (size_t b = begin; b < end; b++) {
    size_t from = b * j->block, to = from + j->block < j->rows ? from + j->block : j->rows, at = from * j->cols;
    float *partial = j->partial != NULL ? j->partial + b * 2 * j->cols : NULL;
    if (partial != NULL) memset(partial, 0, 2 * j->cols * sizeof *partial);
    ev_layer_norm_back(j->out != NULL ? j->out + at : NULL, partial, partial != NULL ? partial + j->cols : NULL, c->grad + at, c->in[0] + at, c->keep + 2 * from, c->in[1], j->add, to - from,
                       j->cols);
  }
}

static ev_status layer_norm_forward(ev_call *c) {
  job j = job_of(c, c->out, false);
  run(&j, layer_norm_part);
  return EV_OK;
}

static ev_status layer_norm_backward(ev_call *c) {
  job j = job_of(c, c->grad_in[0], c->add[0]);
  size_t blocks = layer_norm_blocks(j.rows, j.cols);
  j.block = j.rows / blocks + 1;
  blocks = (j.rows + j.block - 1) / j.block;
  if (c->grad_in[1] != NULL || c->grad_in[2] != NULL) j.partial = c->scratch;
  ev_parallel_for(blocks, 1, layer_norm_back_blocks, &j);
  ev_plane none = {c->scratch, 0, 0};
  for (unsigned i = 1; i < 3; i++) {
    if (c->grad_in[i] == NULL) continue;
    if (blocks == 0 && !c->add[i]) memset(c->grad_in[i], 0, j.cols * sizeof *c->grad_in[i]);
    ev_zip_back(c->grad_in[i], 0, 1, c->scratch + (i - 1) * j.cols, 2 * j.cols, &none, &none, EV_ZIP_ADD, 0, c->add[i], blocks, j.cols);
  }
  return EV_OK;
}

static size_t layer_norm_keep(const ev_graph *g, const ev_node *n) { return (void)g, 2 * ev_shape_rows(&n->shape); }

static size_t layer_norm_scratch(const ev_graph *g, const ev_node *n) {
  (void)g;
  size_t cols = ev_shape_cols(&n->shape);
  return layer_norm_blocks(ev_shape_rows(&n->shape), cols) * 2 * cols;
}

/* ---- The largest of a row ------------------------------------------------------------------------------------------
 * What is kept is where they stood. A row with NaN gives NaN. */
static ev_status topk_infer(const ev_graph *g, ev_node *n) {
  int64_t k;
  EV_TRY(row_infer(g, n));
  EV_TRY(ev_op_integer(g, n, 0, "k", 1, (int64_t)ev_shape_cols(&n->shape), &k));
  n->shape.dim[n->shape.rank - 1] = (size_t)k;
  return EV_OK;
}

static void topk_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  size_t k = ev_shape_cols(&j->c->shape);
  uint32_t *where = (uint32_t *)(void *)j->c->keep;
  for (size_t r = begin; r < end; r++) {
    const float *x = j->c->in[0] + r * j->cols;
    float *y = j->out + r * k;
    unsigned strange = 0;
    for (size_t i = 0; i < j->cols; i++) strange |= x[i] != x[i];
    ev_topk(where + r * k, y, x, j->cols, k);
    for (size_t i = 0; strange && i < k; i++) y[i] = NAN, where[r * k + i] = EV_NONE;
  }
}

static void topk_back_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  size_t k = ev_shape_cols(&j->c->shape);
  const uint32_t *where = (const uint32_t *)(const void *)j->c->keep;
  if (!j->add) memset(j->out + begin * j->cols, 0, (end - begin) * j->cols * sizeof *j->out);
  for (size_t r = begin; r < end; r++)
    for (size_t i = r * k; i < (r + 1) * k; i++)
      if (where[i] != EV_NONE) j->out[r * j->cols + where[i]] += j->c->grad[i];
}

static ev_status topk_forward(ev_call *c) {
  job j = job_of(c, c->out, false);
  run(&j, topk_part);
  return EV_OK;
}

static ev_status topk_backward(ev_call *c) {
  job j = job_of(c, c->grad_in[0], c->add[0]);
  if (j.out != NULL) run(&j, topk_back_part);
  return EV_OK;
}

static size_t topk_keep(const ev_graph *g, const ev_node *n) { return (void)g, ev_shape_size(&n->shape); }

/* ---- Dropout (Srivastava et al. 2014), scaled so that nothing changes outside training -------------------------------*/
static ev_status dropout_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  n->shape = ev_op_in(g, n, 0)->shape;
  if (!(n->attr[0] >= 0 && (float)n->attr[0] < 1)) return ev_op_wrong(g, n, "a share of %g cannot be dropped: at least 0, below 1", n->attr[0]);
  return EV_OK;
}

static void dropout_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  const ev_call *c = j->c;
  ev_dropout(j->out + begin, (c->grad != NULL ? c->grad : c->in[0]) + begin, c->seed, begin, c->training ? (float)c->node->attr[0] : 0, j->add, end - begin);
}

static ev_status dropout_forward(ev_call *c) {
  job j = job_of(c, c->out, false);
  ev_parallel_for(ev_shape_size(&c->shape), EV_SLICE, dropout_part, &j);
  return EV_OK;
}

static ev_status dropout_backward(ev_call *c) {
  job j = job_of(c, c->grad_in[0], c->add[0]);
  if (j.out != NULL) ev_parallel_for(ev_shape_size(&c->shape), EV_SLICE, dropout_part, &j);
  return EV_OK;
}

/* ---- A value where a row and a column stand for the same thing ------------------------------------------------------*/
static ev_status mask_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_kind(g, n, 0, EV_NODE_OP));
  EV_TRY(ev_op_kind(g, n, 1, EV_NODE_IDS));
  EV_TRY(ev_op_kind(g, n, 2, EV_NODE_IDS));
  const ev_shape *x = &ev_op_in(g, n, 0)->shape, *a = &ev_op_in(g, n, 1)->shape, *b = &ev_op_in(g, n, 2)->shape;
  if (x->rank != 2 || a->rank != 1 || b->rank != 1) return ev_op_wrong(g, n, "it takes a matrix, and ids for its rows and for its columns");
  if (a->dim[0] != x->dim[0] || a->axis != x->axis) return ev_op_wrong(g, n, "%zu ids for %zu rows%s", a->dim[0], x->dim[0], a->dim[0] == x->dim[0] ? ", whose number changes on its own" : "");
  if (b->dim[0] != x->dim[1] || b->axis != 0) return ev_op_wrong(g, n, "%zu ids for %zu columns%s", b->dim[0], x->dim[1], b->axis != 0 ? ": their number must not change" : "");
  n->shape = *x;
  return EV_OK;
}

static void mask_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  const ev_call *c = j->c;
  const float *from = c->grad != NULL ? c->grad : c->in[0];
  const uint32_t *ids = c->ids[2];
  float value = c->grad != NULL ? 0 : (float)c->node->attr[0];
  for (size_t r = begin; r < end; r++) {
    const float *x = from + r * j->cols;
    float *restrict y = j->out + r * j->cols, own = r >= j->cols ? 0 : x[r] + (j->add ? y[r] : 0);
    uint32_t id = c->ids[1][r];
    if (j->add)
      for (size_t i = 0; i < j->cols; i++) y[i] += ids[i] == id ? value : x[i];
    else
      for (size_t i = 0; i < j->cols; i++) y[i] = ids[i] == id ? value : x[i];
    if (r < j->cols) y[r] = own;
  }
}

static ev_status mask_forward(ev_call *c) {
  job j = job_of(c, c->out, false);
  run(&j, mask_part);
  return EV_OK;
}

static ev_status mask_backward(ev_call *c) {
  job j = job_of(c, c->grad_in[0], c->add[0]);
  if (j.out != NULL) run(&j, mask_part);
  return EV_OK;
}

const ev_op ev_ops_normal[] = {
    {"softmax", 1, 1, 0, 0, EV_BACK_OUT, row_infer, softmax_forward, softmax_backward, NULL, NULL},
    {"log_softmax", 1, 1, 0, 0, EV_BACK_OUT, row_infer, softmax_forward, softmax_backward, NULL, NULL},
    {"normalise", 1, 1, 1, 1, EV_BACK_OUT, epsilon_infer, normalise_forward, normalise_backward, normalise_keep, NULL},
    {"layer_norm", 3, 3, 1, 1, EV_BACK_IN, layer_norm_infer, layer_norm_forward, layer_norm_backward, layer_norm_keep, layer_norm_scratch},
    {"topk", 1, 1, 1, 1, 0, topk_infer, topk_forward, topk_backward, topk_keep, NULL},
    {"dropout", 1, 1, 1, 1, 0, dropout_infer, dropout_forward, dropout_backward, NULL, NULL},
    {"mask_equal", 3, 3, 1, 1, 0, mask_infer, mask_forward, mask_backward, NULL, NULL},
    {.name = NULL},
};
