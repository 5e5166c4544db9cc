/* item_graph.c - sparse item-item weights: score(u, j) = Σ_{i in history} decay(i) w(i, j).
 *
 * Arrays: ptr u64 (n_items + 1), idx u32, weight f32, options f64 (half_life in history steps; 0 = none). */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "item_graph.h"
#include "kinds.h"

/* ---- Fit -----------------------------------------------------------------------------------------------*/
typedef struct build {
  size_t n_items, keep;
  ev_row_fn *row;
  void *ctx;
  uint32_t *idx;  /* (n_items, keep), EV_NONE padded */
  float *weight;  /* likewise */
  atomic_size_t done;
  atomic_int failed;
  const ev_progress *progress;
} build;

static void build_rows(void *ctx, size_t begin, size_t end, int worker) {
  build *b = ctx;
  if (ev_interrupted()) atomic_store(&b->failed, EV_EINTR);
  if (atomic_load(&b->failed) != EV_OK) return;
  float *acc = ev_zalloc(b->n_items, sizeof *acc), *values = ev_alloc(b->n_items, sizeof *values);
  uint32_t *touched = ev_alloc(b->n_items, sizeof *touched), *picked = ev_alloc(b->keep, sizeof *picked);
  if (acc == NULL || values == NULL || touched == NULL || picked == NULL) {
    atomic_store(&b->failed, EV_ENOMEM);
  } else {
    for (size_t i = begin; i < end; i++) {
      size_t n = 0;
      b->row(b->ctx, (uint32_t)i, acc, touched, &n);
      for (size_t t = 0; t < n; t++) {
        float w = acc[touched[t]];
        acc[touched[t]] = 0;
        values[t] = w > 0 ? w : -INFINITY;
      }
      /* Ties by the order of touching would depend on nothing random either, but ids are what the reference says. */
      float *out = b->weight + i * b->keep;
      size_t kept = ev_topk(picked, out, values, n, b->keep);
      for (size_t k = 0; k < b->keep; k++) b->idx[i * b->keep + k] = k < kept ? touched[picked[k]] : EV_NONE;
    }
  }
  ev_free(acc);
  ev_free(values);
  ev_free(touched);
  ev_free(picked);
  size_t done = atomic_fetch_add(&b->done, end - begin) + (end - begin);
  if (worker == 0 && b->progress != NULL) b->progress->report(b->progress->ctx, "neighbours", (double)done, (double)b->n_items, NAN);
}

ev_status ev_item_graph_write(const char *path, size_t n_items, const uint64_t *ptr, const uint32_t *idx, const float *weight, float half_life) {
  double options[1] = {half_life};
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "item_graph"));
  ev_status status = ev_pack_write(w, "ptr", EV_U64, ptr, n_items + 1, 1);
  if (status == EV_OK) status = ev_pack_write(w, "idx", EV_U32, idx, ptr[n_items], 1);
  if (status == EV_OK) status = ev_pack_write(w, "weight", EV_F32, weight, ptr[n_items], 1);
  if (status == EV_OK) status = ev_pack_write(w, "options", EV_F64, options, 1, 1);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

static ev_status write_graph(const char *path, build *b, float half_life) {
  uint64_t *ptr = ev_alloc(b->n_items + 1, sizeof *ptr);
  if (ptr == NULL) return EV_ENOMEM;
  size_t at = 0;
  ptr[0] = 0;
  for (size_t i = 0; i < b->n_items; i++) { /* padding squeezed out in place */
    for (size_t k = 0; k < b->keep && b->idx[i * b->keep + k] != EV_NONE; k++, at++) {
      b->idx[at] = b->idx[i * b->keep + k];
      b->weight[at] = b->weight[i * b->keep + k];
    }
    ptr[i + 1] = at;
  }
  ev_status status = ev_item_graph_write(path, b->n_items, ptr, b->idx, b->weight, half_life);
  ev_free(ptr);
  return status;
}

ev_status ev_item_graph_fit(const char *path, size_t n_items, size_t keep, float half_life, ev_row_fn *row, void *ctx, const ev_progress *p) {
  if (keep > n_items) keep = n_items > 0 ? n_items : 1;
  build b = {.n_items = n_items, .keep = keep, .row = row, .ctx = ctx, .progress = p};
  b.idx = ev_alloc(n_items, keep * sizeof *b.idx);
  b.weight = ev_alloc(n_items, keep * sizeof *b.weight);
  ev_status status = b.idx == NULL || b.weight == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    ev_parallel_for(n_items, 256, build_rows, &b);
    status = (ev_status)atomic_load(&b.failed);
    if (status == EV_ENOMEM) ev_fail(status, "out of memory: neighbours of %zu items", n_items);
    if (status == EV_EINTR) ev_fail(status, "interrupted");
  }
  if (status == EV_OK) status = write_graph(path, &b, half_life);
  ev_free(b.idx);
  ev_free(b.weight);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
typedef struct graph {
  const uint64_t *ptr;
  const uint32_t *idx;
  const float *weight;
  float half_life;
} graph;

static ev_status open_kind(ev_model *m) {
  ev_array a, b, c;
  const void *options;
  EV_TRY(ev_model_array(m, "options", EV_F64, 1, 1, &options));
  EV_TRY(ev_pack_get(m->pack, "ptr", EV_U64, &a));
  EV_TRY(ev_pack_get(m->pack, "idx", EV_U32, &b));
  EV_TRY(ev_pack_get(m->pack, "weight", EV_F32, &c));
  if (a.rows == 0 || a.rows > EV_NONE || a.cols != 1 || b.cols != 1 || c.cols != 1 || b.rows != c.rows)
    return ev_fail(EV_ECORRUPT, "%s: a graph of the wrong shape", ev_pack_path(m->pack));
  m->n_items = a.rows - 1;
  graph *g = m->state = ev_alloc(1, sizeof *g);
  if (g == NULL) return EV_ENOMEM;
  *g = (graph){a.data, b.data, c.data, (float)ev_model_option(m, 0)};
  bool sound = g->ptr[0] == 0 && g->ptr[m->n_items] == b.rows && g->half_life >= 0;
  for (size_t i = 0; i < m->n_items && sound; i++) sound = g->ptr[i] <= g->ptr[i + 1];
  for (size_t i = 0; i < b.rows && sound; i++) sound = g->idx[i] < m->n_items && !isnan(g->weight[i]);
  return sound ? EV_OK : ev_fail(EV_ECORRUPT, "%s: the graph names items that are not there", ev_pack_path(m->pack));
}

static void close_kind(ev_model *m) { ev_free(m->state); }

/* Scores of all items reached from a history, into acc; 0 elsewhere. */
static void spread(const graph *g, const uint32_t *history, size_t n, float *acc) {
  for (size_t h = 0; h < n; h++) {
    float decay = g->half_life > 0 ? exp2f(-(float)(n - 1 - h) / g->half_life) : 1;
    for (uint64_t e = g->ptr[history[h]]; e < g->ptr[history[h] + 1]; e++) acc[g->idx[e]] += decay * g->weight[e];
  }
}

typedef struct job {
  const ev_model *m;
  const ev_requests *r;
  size_t k;
  uint32_t *ids;
  float *scores;
  atomic_int failed;
} job;

static void recall_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  job *j = ctx;
  const ev_requests *r = j->r;
  size_t n_items = j->m->n_items;
  if (ev_interrupted()) atomic_store(&j->failed, EV_EINTR);
  if (atomic_load(&j->failed) != EV_OK) return;
  float *acc = ev_alloc(n_items, sizeof *acc);
  if (acc == NULL) {
    atomic_store(&j->failed, EV_ENOMEM);
    return;
  }
  for (size_t i = begin; i < end; i++) {
    memset(acc, 0, n_items * sizeof *acc);
    spread(j->m->state, r->history + r->history_ptr[i], r->history_ptr[i + 1] - r->history_ptr[i], acc);
    for (size_t x = 0; x < n_items; x++)
      if (acc[x] == 0) acc[x] = -INFINITY; /* not reached: nothing is known of it */
    if (r->seen_ptr != NULL)
      for (uint64_t s = r->seen_ptr[i]; s < r->seen_ptr[i + 1]; s++) acc[r->seen[s]] = -INFINITY;
    ev_topk(j->ids + i * j->k, j->scores + i * j->k, acc, n_items, j->k);
  }
  ev_free(acc);
}

static ev_status recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) {
  job j = {.m = m, .r = r, .k = k, .ids = ids, .scores = scores};
  ev_parallel_for(r->n, 64, recall_rows, &j);
  ev_status status = (ev_status)atomic_load(&j.failed);
  if (status == EV_ENOMEM) return ev_fail(status, "out of memory: scores of %zu items", m->n_items);
  return status == EV_EINTR ? ev_fail(status, "interrupted") : status;
}

static ev_status score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  float *acc = ev_zalloc(m->n_items, sizeof *acc);
  if (acc == NULL) return EV_ENOMEM;
  spread(m->state, r->history + r->history_ptr[0], r->history_ptr[1] - r->history_ptr[0], acc);
  for (size_t i = 0; i < n; i++) out[i] = acc[items[i]];
  ev_free(acc);
  return EV_OK;
}

const ev_kind ev_kind_item_graph = {"item_graph", open_kind, close_kind, recall, score, NULL};
