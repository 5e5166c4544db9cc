/* graph_filter.c - low-pass filtering of a user's history over the graph of users and items; learn.h gives the formula.
 *
 * Arrays, with n_users, n_items, k dimensions:
 *   user_ptr u64 (n_users + 1), user_idx u32    items of each user       } the interactions both ways, which P = R̃ᵀR̃
 *   item_ptr u64 (n_items + 1), item_idx u32    users of each item       } is applied by
 *   user_weight f32 (n_users), item_weight f32 (n_items)  R̃(u, i) = user_weight[u] item_weight[i]
 *   v f32 (n_items, k)                          leading right singular vectors of R̃
 *   low f32 (k, 1)                              α times the weight of each
 *   in, out, last f32 (n_items)                 what stands before and behind V, and behind everything
 *   options f64 (blur_time, blur_steps, sharpen_time, sharpen_steps, sharpen_order, late)
 *
 * A request is a column: WIDTH of them side by side are a block (n_items, WIDTH), and P is two gathers of rows a block wide.
 * P itself (Gowalla: 40 million entries) is never made, and nothing is kept of a user but his history. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "kinds.h"

#define WIDTH 64
#define TILE 256
#define ORDER_MAX 4

/* ---- Fit -----------------------------------------------------------------------------------------------*/
static void degree_powers(float *out, const ev_csr *m, float power) {
  for (size_t i = 0; i < m->n_rows; i++) {
    size_t n = m->ptr[i + 1] - m->ptr[i];
    out[i] = n > 0 ? powf((float)n, power) : 0;
  }
}

static void report_svd(void *ctx, double done, double residual) {
  const ev_progress *p = ctx;
  p->report(p->ctx, "singular vectors", done, 1, residual);
}

static ev_status write_filter(const char *path, const ev_sparse *a, const float *v, const float *low, const float *in, const float *out, const float *last,
                              size_t k, const ev_graph_filter_options *o) {
  double options[6] = {o->blur_time, o->blur_steps, o->sharpen_time, o->sharpen_steps, o->sharpen_order, o->late};
  size_t n = a->row_ptr[a->n_rows];
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "graph_filter"));
  const struct {
    const char *name;
    ev_dtype type;
    const void *data;
    size_t rows, cols;
  } arrays[] = {
      {"user_ptr", EV_U64, a->row_ptr, a->n_rows + 1, 1}, {"user_idx", EV_U32, a->row_idx, n, 1}, {"item_ptr", EV_U64, a->col_ptr, a->n_cols + 1, 1},
      {"item_idx", EV_U32, a->col_idx, n, 1}, {"user_weight", EV_F32, a->row_weight, a->n_rows, 1}, {"item_weight", EV_F32, a->col_weight, a->n_cols, 1},
      {"v", EV_F32, v, a->n_cols, k}, {"low", EV_F32, low, k, 1}, {"in", EV_F32, in, a->n_cols, 1}, {"out", EV_F32, out, a->n_cols, 1},
      {"last", EV_F32, last, a->n_cols, 1}, {"options", EV_F64, options, 6, 1},
  };
  ev_status status = EV_OK;
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays && status == EV_OK; i++)
    status = ev_pack_write(w, arrays[i].name, arrays[i].type, arrays[i].data, arrays[i].rows, arrays[i].cols);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

ev_status ev_fit_graph_filter(const char *path, const ev_view *view, const ev_graph_filter_options *o, const ev_progress *p) {
  size_t n_users = view->by_user.n_rows, n_items = view->by_item.n_rows, most = n_users < n_items ? n_users : n_items, k = o->n_dims < most ? o->n_dims : most;
  if (k == 0) k = 1;
  float *user = ev_alloc(n_users, sizeof *user), *item = ev_alloc(n_items, sizeof *item), *in = ev_alloc(n_items, sizeof *in);
  float *out = ev_alloc(n_items, sizeof *out), *last = ev_alloc(n_items, sizeof *last), *v = ev_alloc(n_items, k * sizeof *v);
  float *sigma = ev_alloc(k, sizeof *sigma), *low = ev_alloc(k, sizeof *low);
  ev_status status = EV_ENOMEM;
  if (user == NULL || item == NULL || in == NULL || out == NULL || last == NULL || v == NULL || sigma == NULL || low == NULL) goto done;
  degree_powers(user, &view->by_user, -o->user_power);
  degree_powers(item, &view->by_item, -o->item_power);
  degree_powers(in, &view->by_item, -o->low_pass_power);
  degree_powers(out, &view->by_item, o->low_pass_power);
  degree_powers(last, &view->by_item, o->item_power_out);
  ev_sparse a = {.n_rows = n_users, .n_cols = n_items, .row_ptr = view->by_user.ptr, .col_ptr = view->by_item.ptr, .row_idx = view->seen,
                 .col_idx = view->by_item.idx, .row_weight = user, .col_weight = item};
  ev_svd_options svd = {.k = k, .tolerance = o->tolerance, .max_rounds = 30, .seed = o->seed, .report = p != NULL ? report_svd : NULL, .ctx = (void *)p};
  status = ev_sparse_svd(sigma, v, &a, &svd);
  if (status != EV_OK) goto done;
  /* Times mean the same whatever the powers: the largest singular value becomes 1, as it is when both are ½. */
  if (sigma[0] > 0) ev_scale(item, 1 / sigma[0], n_items);
  for (size_t i = 0; i < k; i++) /* below single precision's reach a vector is any vector */
    low[i] = sigma[i] > 2e-3f * sigma[0] && o->n_dims > 0 ? o->low_pass * powf(sigma[i] / sigma[0], o->singular_power) : 0;
  if (p != NULL) p->report(p->ctx, "writing", 0, 0, NAN);
  status = write_filter(path, &a, v, low, in, out, last, k, o);
done:;
  void *blocks[] = {user, item, in, out, last, v, sigma, low};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
typedef struct filter {
  ev_sparse a, at; /* R̃ and its transpose */
  const float *v, *low, *in, *out, *last;
  size_t k;
  float blur_time, sharpen_time;
  unsigned blur_steps, sharpen_steps, sharpen_order;
  bool late;
} filter;

static bool sound_rows(const uint64_t *ptr, const uint32_t *idx, size_t n_rows, size_t n_cols, size_t n) {
  bool sound = ptr[0] == 0 && ptr[n_rows] == n;
  for (size_t i = 0; i < n_rows && sound; i++) sound = ptr[i] <= ptr[i + 1];
  for (size_t i = 0; i < n && sound; i++) sound = idx[i] < n_cols;
  return sound;
}

static ev_status open_kind(ev_model *m) {
  ev_array user_ptr, item_ptr, user_idx, v;
  const void *item_idx, *user_weight, *item_weight, *low, *in, *out, *last, *options;
  EV_TRY(ev_pack_get(m->pack, "user_ptr", EV_U64, &user_ptr));
  EV_TRY(ev_pack_get(m->pack, "item_ptr", EV_U64, &item_ptr));
  EV_TRY(ev_pack_get(m->pack, "user_idx", EV_U32, &user_idx));
  EV_TRY(ev_pack_get(m->pack, "v", EV_F32, &v));
  if (user_ptr.rows == 0 || user_ptr.cols != 1 || user_ptr.rows > EV_NONE || item_ptr.rows == 0 || item_ptr.cols != 1 || item_ptr.rows > EV_NONE ||
      user_idx.cols != 1 || v.cols > 65536)
    return ev_fail(EV_ECORRUPT, "%s: a filter of the wrong shape", ev_pack_path(m->pack));
  size_t n_users = user_ptr.rows - 1, n_items = item_ptr.rows - 1;
  m->n_items = n_items;
  const void *again;
  EV_TRY(ev_model_array(m, "user_idx", EV_U32, user_idx.rows, 1, &again));
  EV_TRY(ev_model_array(m, "item_idx", EV_U32, user_idx.rows, 1, &item_idx));
  EV_TRY(ev_model_array(m, "user_weight", EV_F32, n_users, 1, &user_weight));
  EV_TRY(ev_model_array(m, "item_weight", EV_F32, n_items, 1, &item_weight));
  EV_TRY(ev_model_array(m, "v", EV_F32, n_items, v.cols, &again));
  EV_TRY(ev_model_array(m, "low", EV_F32, v.cols, 1, &low));
  EV_TRY(ev_model_array(m, "in", EV_F32, n_items, 1, &in));
  EV_TRY(ev_model_array(m, "out", EV_F32, n_items, 1, &out));
  EV_TRY(ev_model_array(m, "last", EV_F32, n_items, 1, &last));
  EV_TRY(ev_model_array(m, "options", EV_F64, 6, 1, &options));
  const double *o = options;
  for (int i = 0; i < 6; i++)
    if (!(o[i] >= 0 && o[i] <= 1e6)) return ev_fail(EV_ECORRUPT, "%s: option %d of the filter is %g", ev_pack_path(m->pack), i, o[i]);
  if (o[1] < 1 || o[1] > 1000 || o[3] > 1000 || o[4] < 1 || o[4] > ORDER_MAX) return ev_fail(EV_ECORRUPT, "%s: a filter of so many steps", ev_pack_path(m->pack));
  if (!sound_rows(user_ptr.data, user_idx.data, n_users, n_items, user_idx.rows) || !sound_rows(item_ptr.data, item_idx, n_items, n_users, user_idx.rows))
    return ev_fail(EV_ECORRUPT, "%s: the graph names users or items that are not there", ev_pack_path(m->pack));
  filter *f = m->state = ev_alloc(1, sizeof *f);
  if (f == NULL) return EV_ENOMEM;
  *f = (filter){.a = {n_users, n_items, user_ptr.data, item_ptr.data, user_idx.data, item_idx, user_weight, item_weight},
                .v = v.data, .low = low, .in = in, .out = out, .last = last, .k = v.cols, .blur_time = (float)o[0], .blur_steps = (unsigned)o[1],
                .sharpen_time = (float)o[2], .sharpen_steps = (unsigned)o[3], .sharpen_order = (unsigned)o[4], .late = o[5] != 0};
  f->at = ev_sparse_transposed(&f->a);
  return EV_OK;
}

static void close_kind(ev_model *m) { ev_free(m->state); }

/* ---- A block of requests -------------------------------------------------------------------------------*/
typedef struct block {
  const filter *f;
  const ev_requests *r;
  size_t first, n, width; /* requests, and columns: at least as many */
  float *y, *z;           /* (n_items, width); z where sharpening is of an order above 1 */
  float *u;               /* (n_users, width) */
  float *q;               /* (width, k) */
} block;

static void block_close(block *b) {
  void *blocks[] = {b->y, b->z, b->u, b->q};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
}

static ev_status block_open(block *b, const filter *f, const ev_requests *r, size_t width) {
  *b = (block){.f = f, .r = r, .width = width};
  b->y = ev_alloc(f->a.n_cols, width * sizeof *b->y);
  b->u = ev_alloc(f->a.n_rows, width * sizeof *b->u);
  b->q = ev_alloc(width, f->k * sizeof *b->q);
  bool twice = f->sharpen_steps > 0 && f->sharpen_order > 1;
  if (twice) b->z = ev_alloc(f->a.n_cols, width * sizeof *b->z);
  if (b->y != NULL && b->u != NULL && b->q != NULL && (!twice || b->z != NULL)) return EV_OK;
  block_close(b);
  return ev_fail(EV_ENOMEM, "out of memory: %zu requests over %zu users and %zu items", width, f->a.n_rows, f->a.n_cols);
}

/* out = alpha P x + beta out */
static void apply(block *b, float *out, const float *x, float alpha, float beta) {
  ev_sparse_mul(b->u, b->width, &b->f->a, x, b->width, b->width, 1, 0);
  ev_sparse_mul(out, b->width, &b->f->at, b->u, b->width, b->width, alpha, beta);
}

/* The first step of blurring starts from histories, which touch few users: (1 − t) x + t P x. */
static void start(block *b, float t) {
  const filter *f = b->f;
  const ev_sparse *a = &f->a;
  memset(b->u, 0, a->n_rows * b->width * sizeof *b->u);
  for (size_t w = 0; w < b->n; w++)
    for (uint64_t h = b->r->history_ptr[b->first + w]; h < b->r->history_ptr[b->first + w + 1]; h++) {
      uint32_t i = b->r->history[h];
      for (uint64_t e = a->col_ptr[i]; e < a->col_ptr[i + 1]; e++) {
        uint32_t user = a->col_idx[e];
        b->u[user * b->width + w] += a->row_weight[user] * a->col_weight[i];
      }
    }
  ev_sparse_mul(b->y, b->width, &f->at, b->u, b->width, b->width, t, 0);
  for (size_t w = 0; w < b->n && t != 1; w++)
    for (uint64_t h = b->r->history_ptr[b->first + w]; h < b->r->history_ptr[b->first + w + 1]; h++) b->y[b->r->history[h] * b->width + w] += 1 - t;
}

static void low_tiles(void *ctx, size_t begin, size_t end, int worker) { /* y += out (V q) */
  (void)worker;
  const block *b = ctx;
  const filter *f = b->f;
  float tile[TILE * WIDTH];
  for (size_t first = begin * TILE; first < end * TILE && first < f->a.n_cols; first += TILE) {
    size_t n = f->a.n_cols - first < TILE ? f->a.n_cols - first : TILE;
    if (b->width == 1) ev_dots(tile, b->q, f->v + first * f->k, EV_FORM_F32, f->k * sizeof(float), n, f->k);
    else ev_gemm_nt(tile, f->v + first * f->k, b->q, 0, n, b->width, f->k);
    for (size_t i = 0; i < n; i++) ev_axpy(b->y + (first + i) * b->width, tile + i * b->width, f->out[first + i], b->width);
  }
}

static void low_pass(block *b) {
  const filter *f = b->f;
  bool any = false;
  for (size_t d = 0; d < f->k; d++) any |= f->low[d] != 0;
  if (!any) return;
  memset(b->q, 0, b->width * f->k * sizeof *b->q);
  for (size_t w = 0; w < b->n; w++) {
    float *q = b->q + w * f->k;
    for (uint64_t h = b->r->history_ptr[b->first + w]; h < b->r->history_ptr[b->first + w + 1]; h++)
      ev_axpy(q, f->v + b->r->history[h] * f->k, f->in[b->r->history[h]], f->k);
    for (size_t d = 0; d < f->k; d++) q[d] *= f->low[d];
  }
  ev_parallel_for((f->a.n_cols + TILE - 1) / TILE, 4, low_tiles, b);
}

/* dy/dt = −P y over `time`, each step its Taylor polynomial of the given order, by Horner's rule: order 1 is Euler's, 4 is
 * what the classical Runge-Kutta method makes of a linear equation. */
static void sharpen(block *b) {
  const filter *f = b->f;
  size_t n = f->a.n_cols * b->width;
  for (unsigned s = 0; s < f->sharpen_steps; s++) {
    float h = f->sharpen_time / (float)f->sharpen_steps;
    const float *x = b->y;
    for (unsigned j = f->sharpen_order; j > 1; j--, x = b->z) {
      ev_sparse_mul(b->u, b->width, &f->a, x, b->width, b->width, 1, 0);
      memcpy(b->z, b->y, n * sizeof *b->z);
      ev_sparse_mul(b->z, b->width, &f->at, b->u, b->width, b->width, -h / (float)j, 1);
    }
    apply(b, b->y, x, -h, 1);
  }
}

/* y of requests first … first + n: the scores, but for the items' last weight. */
static void filter_block(block *b, size_t first, size_t n) {
  const filter *f = b->f;
  float t = f->blur_time / (float)f->blur_steps;
  b->first = first;
  b->n = n;
  start(b, t);
  for (unsigned s = 1; s < f->blur_steps; s++) apply(b, b->y, b->y, t, 1 - t);
  if (!f->late) low_pass(b);
  sharpen(b);
  if (f->late) low_pass(b);
}

/* The k best of each column, by tiles turned into rows. */
static void best_of_block(const block *b, size_t k, uint32_t *ids, float *scores) {
  const filter *f = b->f;
  const ev_requests *r = b->r;
  float tile[WIDTH * TILE];
  uint64_t next[WIDTH];
  size_t used[WIDTH] = {0};
  for (size_t w = 0; w < b->n; w++) next[w] = r->seen_ptr != NULL ? r->seen_ptr[b->first + w] : 0;
  for (size_t first = 0; first < f->a.n_cols; first += TILE) {
    size_t n = f->a.n_cols - first < TILE ? f->a.n_cols - first : TILE;
    for (size_t i = 0; i < n; i++)
      for (size_t w = 0; w < b->n; w++) tile[w * TILE + i] = b->y[(first + i) * b->width + w] * f->last[first + i];
    for (size_t w = 0; w < b->n; w++) {
      size_t request = b->first + w;
      if (r->history_ptr[request + 1] == r->history_ptr[request]) continue; /* nothing is known of a stranger */
      for (; r->seen_ptr != NULL && next[w] < r->seen_ptr[request + 1] && r->seen[next[w]] < first + n; next[w]++) tile[w * TILE + r->seen[next[w]] - first] = -INFINITY;
      ev_topk_offer(ids + request * k, scores + request * k, &used[w], k, tile + w * TILE, n, (uint32_t)first);
    }
  }
  for (size_t w = 0; w < b->n; w++) ev_topk_finish(ids + (b->first + w) * k, scores + (b->first + w) * k, used[w], k);
}

typedef struct job {
  const filter *f;
  const ev_requests *r;
  size_t k, width;
  uint32_t *ids;
  float *scores;
  atomic_int failed;
} job;

static void recall_blocks(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  job *j = ctx;
  block b;
  if (ev_interrupted()) atomic_store(&j->failed, EV_EINTR);
  if (atomic_load(&j->failed) != EV_OK) return;
  ev_status status = block_open(&b, j->f, j->r, j->width);
  if (status != EV_OK) {
    atomic_store(&j->failed, status);
    return;
  }
  for (size_t at = begin; at < end && !ev_interrupted(); at++) {
    size_t first = at * j->width, n = j->r->n - first < j->width ? j->r->n - first : j->width;
    filter_block(&b, first, n);
    best_of_block(&b, j->k, j->ids, j->scores);
  }
  if (ev_interrupted()) atomic_store(&j->failed, EV_EINTR);
  block_close(&b);
}

/* Columns side by side: as many as there are requests, up to WIDTH; fewer where users and items are so many that a block
 * would not stay near the processor. */
static size_t width_of(const filter *f, size_t n) {
  size_t rows = f->a.n_rows + f->a.n_cols, width = rows > 1000000 ? 16 : rows > 400000 ? 32 : WIDTH;
  if (n < width) width = n < 8 ? n : (n + 15) / 16 * 16;
  return width;
}

static ev_status recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) {
  const filter *f = m->state;
  job j = {.f = f, .r = r, .k = k, .width = width_of(f, r->n), .ids = ids, .scores = scores};
  size_t blocks = (r->n + j.width - 1) / j.width;
  if (blocks < (size_t)ev_threads()) recall_blocks(&j, 0, blocks, 0); /* the threads share each block's rows instead */
  else ev_parallel_for(blocks, 4, recall_blocks, &j);
  ev_status status = (ev_status)atomic_load(&j.failed);
  if (status == EV_ENOMEM) return ev_fail(status, "out of memory: blocks of %zu requests", j.width);
  return status == EV_EINTR ? ev_fail(status, "interrupted") : status;
}

static ev_status score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  const filter *f = m->state;
  block b;
  EV_TRY(block_open(&b, f, r, 1));
  filter_block(&b, 0, 1);
  for (size_t i = 0; i < n; i++) out[i] = b.y[items[i]] * f->last[items[i]];
  block_close(&b);
  return EV_OK;
}

const ev_kind ev_kind_graph_filter = {"graph_filter", open_kind, close_kind, recall, score, NULL};
