/* model_vectors.c - user and item vectors that some training left; learn.h gives the score.
 *
 * Arrays: item f32 (n_items, d), user f32 (n_users, d), context f32 (n_items, d) and bias f32 (n_items), these three where
 * there are any, options f64 (cosine, history_power, which there are: 1 user + 2 context + 4 bias). */
#include <math.h>
#include <string.h>

#include "kinds.h"

#define DIMS_MAX 16384
#define BLOCK 4096 /* rows written at once */
enum { HAS_USER = 1, HAS_CONTEXT = 2, HAS_BIAS = 4 };

/* ---- Writing -------------------------------------------------------------------------------------------*/
void ev_vectors_unit(float *x, size_t d) {
  double squares = 0;
  for (size_t i = 0; i < d; i++) squares += (double)x[i] * x[i];
  float length = (float)sqrt(squares);
  for (size_t i = 0; i < d && length > 0; i++) x[i] /= length;
}

ev_status ev_vectors_write(ev_pack_writer *w, const char *name, const float *rows, size_t n, size_t d, bool unit, const uint64_t *ptr) {
  for (size_t i = 0; i < n * d; i++)
    if (!isfinite(rows[i])) return ev_fail(EV_EINVAL, "%s: row %zu holds %g", name, i / d, (double)rows[i]);
  if (!unit && ptr == NULL) return ev_pack_write(w, name, EV_F32, rows, n, d);
  float *block = ev_alloc(BLOCK, d * sizeof *block);
  if (block == NULL) return EV_ENOMEM;
  ev_status status = ev_pack_begin(w, name, EV_F32, d);
  for (size_t first = 0; first < n && status == EV_OK; first += BLOCK) {
    size_t some = n - first < BLOCK ? n - first : BLOCK;
    memcpy(block, rows + first * d, some * d * sizeof *block);
    for (size_t i = 0; i < some; i++) {
      if (ptr != NULL && ptr[first + i + 1] == ptr[first + i]) memset(block + i * d, 0, d * sizeof *block);
      else if (unit) ev_vectors_unit(block + i * d, d);
    }
    status = ev_pack_append(w, block, some);
  }
  ev_free(block);
  return status == EV_OK ? ev_pack_end(w) : status;
}

ev_status ev_fit_vectors(const char *path, const ev_vectors *x) {
  const ev_view *v = x->view;
  double options[3] = {x->cosine, x->history_power, (x->user != NULL ? HAS_USER : 0) + (x->context != NULL ? HAS_CONTEXT : 0) + (x->bias != NULL ? HAS_BIAS : 0)};
  if (x->n_dims == 0 || x->n_dims > DIMS_MAX || x->n_items == 0) return ev_fail(EV_EINVAL, "%zu items of %zu dimensions: 1 to %d", x->n_items, x->n_dims, DIMS_MAX);
  if (!(x->history_power >= 0 && x->history_power <= 4)) return ev_fail(EV_EINVAL, "history_power %g is not between 0 and 4", (double)x->history_power);
  if (v != NULL && (v->by_item.n_rows != x->n_items || (x->user != NULL && v->by_user.n_rows != x->n_users)))
    return ev_fail(EV_EINVAL, "vectors of %zu items and %zu users: of other data", x->n_items, x->n_users);
  const uint64_t *users = v != NULL ? v->by_user.ptr : NULL, *items = v != NULL ? v->by_item.ptr : NULL;
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "vectors"));
  ev_status status = ev_vectors_write(w, "item", x->item, x->n_items, x->n_dims, x->cosine, items);
  if (status == EV_OK && x->user != NULL) status = ev_vectors_write(w, "user", x->user, x->n_users, x->n_dims, x->cosine, users);
  if (status == EV_OK && x->context != NULL) status = ev_vectors_write(w, "context", x->context, x->n_items, x->n_dims, x->cosine, items);
  if (status == EV_OK && x->bias != NULL) status = ev_vectors_write(w, "bias", x->bias, x->n_items, 1, false, NULL);
  if (status == EV_OK) status = ev_pack_write(w, "options", EV_F64, options, 3, 1);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
typedef struct vectors {
  const float *user, *item, *context, *bias;
  size_t n_users, d;
  bool cosine;
  float power;
} vectors;

static ev_status open_kind(ev_model *m) {
  ev_array item, user;
  const void *options, *context = NULL, *bias = NULL;
  EV_TRY(ev_pack_get(m->pack, "item", EV_F32, &item));
  EV_TRY(ev_model_array(m, "options", EV_F64, 3, 1, &options));
  size_t d = item.cols;
  double has = ev_model_option(m, 2);
  if (item.rows == 0 || item.rows >= EV_NONE || d == 0 || d > DIMS_MAX || !(has >= 0 && has < 8))
    return ev_fail(EV_ECORRUPT, "%s: vectors of the wrong shape", ev_pack_path(m->pack));
  m->n_items = item.rows;
  vectors *x = m->state = ev_zalloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  if ((int)has & HAS_USER) {
    EV_TRY(ev_pack_get(m->pack, "user", EV_F32, &user));
    EV_TRY(ev_model_array(m, "user", EV_F32, user.rows, d, &options));
    x->user = user.data;
    x->n_users = user.rows;
  }
  if ((int)has & HAS_CONTEXT) EV_TRY(ev_model_array(m, "context", EV_F32, item.rows, d, &context));
  if ((int)has & HAS_BIAS) EV_TRY(ev_model_array(m, "bias", EV_F32, item.rows, 1, &bias));
  x->item = item.data;
  x->context = context != NULL ? context : item.data;
  x->bias = bias;
  x->d = d;
  x->cosine = ev_model_option(m, 0) != 0;
  x->power = (float)ev_model_option(m, 1);
  if (!(x->power >= 0 && x->power <= 4)) return ev_fail(EV_ECORRUPT, "%s: the options make no sense", ev_pack_path(m->pack));
  return EV_OK;
}

static void close_kind(ev_model *m) { ev_free(m->state); }

typedef struct ask {
  const vectors *x;
  const ev_requests *r;
  float *queries; /* (n, d) */
  bool *has;      /* (n) */
} ask;

static bool is_zero(const float *x, size_t d) {
  for (size_t i = 0; i < d; i++)
    if (x[i] != 0) return false;
  return true;
}

static void make_queries(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  ask *a = ctx;
  const vectors *x = a->x;
  const ev_requests *r = a->r;
  for (size_t i = begin; i < end; i++) {
    float *q = a->queries + i * x->d;
    uint32_t user = r->user != NULL ? r->user[i] : EV_NONE;
    const float *own = user < x->n_users ? x->user + (size_t)user * x->d : NULL;
    size_t n = r->history_ptr[i + 1] - r->history_ptr[i];
    a->has[i] = true;
    if (own != NULL && !is_zero(own, x->d)) {
      memcpy(q, own, x->d * sizeof *q);
      continue;
    }
    memset(q, 0, x->d * sizeof *q);
    for (uint64_t h = r->history_ptr[i]; h < r->history_ptr[i + 1]; h++) ev_axpy(q, x->context + (size_t)r->history[h] * x->d, 1, x->d);
    a->has[i] = n > 0 && !is_zero(q, x->d);
    if (n > 0) ev_scale(q, powf((float)n, -x->power), x->d);
    if (x->cosine) ev_vectors_unit(q, x->d);
  }
}

ev_status ev_vectors_topk(const ev_requests *r, const float *queries, const bool *has, const float *item, const float *bias,
                          size_t n_items, size_t d, size_t k, uint32_t *ids, float *scores) {
  ev_scan s = {.rows = item, .bias = bias, .form = EV_FORM_F32, .stride = d * sizeof *item, .n = n_items, .d = d, .seen_ptr = r->seen_ptr, .seen = r->seen};
  EV_TRY(ev_scan_topk(ids, scores, queries, r->n, k, &s));
  for (size_t i = 0; i < r->n; i++)
    for (size_t c = 0; c < k && !has[i]; c++) ids[i * k + c] = EV_NONE, scores[i * k + c] = -INFINITY;
  return EV_OK;
}

void ev_vectors_score(float *out, const float *query, const float *item, const float *bias, size_t d, const uint32_t *items, size_t n) {
  ev_dots_at(out, query, item, items, EV_FORM_F32, d * sizeof *item, n, d);
  for (size_t i = 0; i < n && bias != NULL; i++) out[i] += bias[items[i]];
}

static ev_status recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) {
  const vectors *x = m->state;
  ask a = {x, r, ev_alloc(r->n, x->d * sizeof(float)), ev_alloc(r->n, sizeof(bool))};
  ev_status status = a.queries == NULL || a.has == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    ev_parallel_for(r->n, 64, make_queries, &a);
    status = ev_vectors_topk(r, a.queries, a.has, x->item, x->bias, m->n_items, x->d, k, ids, scores);
  }
  ev_free(a.queries);
  ev_free(a.has);
  return status;
}

static ev_status score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  const vectors *x = m->state;
  bool has;
  ask a = {x, r, ev_alloc(1, x->d * sizeof(float)), &has};
  if (a.queries == NULL) return EV_ENOMEM;
  make_queries(&a, 0, 1, 0);
  ev_vectors_score(out, a.queries, x->item, x->bias, x->d, items, n);
  ev_free(a.queries);
  return EV_OK;
}

const ev_kind ev_kind_vectors = {.name = "vectors", .open = open_kind, .close = close_kind, .recall = recall, .score = score};
