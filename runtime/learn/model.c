/* model.c - opens a model file as what its kind says it is, and passes questions on. */
#include <stdatomic.h>
#include <string.h>

#include "kinds.h"

static const ev_kind *const kinds[] = {&ev_kind_item_scores, &ev_kind_item_graph, &ev_kind_item_linear, &ev_kind_factors, &ev_kind_graph_filter,
                                      &ev_kind_vectors,     &ev_kind_encoder,    &ev_kind_ranker,      &ev_kind_gbdt,
                                      &ev_kind_network,     &ev_kind_indexed,    &ev_kind_item_columns};

ev_status ev_model_array(const ev_model *m, const char *name, ev_dtype dtype, size_t rows, size_t cols, const void **out) {
  ev_array a;
  *out = NULL;
  EV_TRY(ev_pack_get(m->pack, name, dtype, &a));
  if (a.rows != rows || a.cols != cols)
    return ev_fail(EV_ECORRUPT, "%s: array '%s' is %zu x %zu, %zu x %zu expected", ev_pack_path(m->pack), name, a.rows, a.cols, rows, cols);
  *out = a.data;
  return EV_OK;
}

double ev_model_option(const ev_model *m, size_t i) {
  ev_array a;
  return ev_pack_find(m->pack, "options", &a) && a.dtype == EV_F64 && i < a.rows * a.cols ? ((const double *)a.data)[i] : 0;
}

ev_status ev_requests_check(const ev_requests *r, size_t n_items) {
  for (uint64_t i = r->history_ptr[0]; i < r->history_ptr[r->n]; i++)
    if (r->history[i] >= n_items) return ev_fail(EV_EINVAL, "history item %u: the model knows %zu", r->history[i], n_items);
  if (r->seen_ptr != NULL)
    for (uint64_t i = r->seen_ptr[0]; i < r->seen_ptr[r->n]; i++)
      if (r->seen[i] >= n_items) return ev_fail(EV_EINVAL, "seen item %u: the model knows %zu", r->seen[i], n_items);
  return EV_OK;
}

ev_status ev_model_open(ev_model **out, const char *path) {
  *out = NULL;
  ev_model *m = ev_zalloc(1, sizeof *m);
  if (m == NULL) return EV_ENOMEM;
  ev_status status = ev_pack_open(&m->pack, path);
  if (status != EV_OK) goto fail;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(kinds[i]->name, ev_pack_kind(m->pack)) == 0) m->kind = kinds[i];
  if (m->kind == NULL) {
    status = ev_fail(EV_ECORRUPT, "%s: '%s' is no kind of model", path, ev_pack_kind(m->pack));
    goto fail;
  }
  status = m->kind->open(m);
  if (status != EV_OK) goto fail;
  *out = m;
  return EV_OK;
fail:
  ev_model_close(m);
  return status;
}

void ev_model_close(ev_model *m) {
  if (m == NULL) return;
  if (m->kind != NULL && m->kind->close != NULL) m->kind->close(m);
  ev_fields_free(m->fields);
  ev_pack_close(m->pack);
  ev_free(m);
}

const char *ev_model_kind(const ev_model *m) { return m->kind->name; }
size_t ev_model_n_items(const ev_model *m) { return m->n_items; }
const ev_pack *ev_model_pack(const ev_model *m) { return m->pack; }

ev_status ev_model_recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) {
  if (m->kind->recall == NULL) return ev_fail(EV_EINVAL, "a model of kind %s cannot recall", m->kind->name);
  EV_TRY(ev_requests_check(r, m->n_items));
  if (r->n == 0 || k == 0) return EV_OK;
  return m->kind->recall(m, r, k, ids, scores);
}

ev_status ev_model_search(const ev_model *m, const ev_requests *r, size_t k, unsigned effort, uint32_t *ids, float *scores) {
  if (m->kind != &ev_kind_indexed) return effort == 0 ? ev_model_recall(m, r, k, ids, scores) : ev_fail(EV_EINVAL, "a model of kind %s has no index to search", m->kind->name);
  EV_TRY(ev_requests_check(r, m->n_items));
  return r->n == 0 || k == 0 ? EV_OK : ev_indexed_recall(m, r, k, effort, ids, scores);
}

ev_status ev_model_score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  if (m->kind->score == NULL) return ev_fail(EV_EINVAL, m->kind->rank != NULL ? "a model of kind %s scores through ev_ranker_score" : "a model of kind %s cannot score", m->kind->name);
  if (r->n != 1) return ev_fail(EV_EINVAL, "%zu requests: items are scored for one", r->n);
  EV_TRY(ev_requests_check(r, m->n_items));
  for (size_t i = 0; i < n; i++)
    if (items[i] >= m->n_items) return ev_fail(EV_EINVAL, "item %u: the model knows %zu", items[i], m->n_items);
  return m->kind->score(m, r, items, n, out);
}

/* ---- Ranking -------------------------------------------------------------------------------------------*/
static ev_status ranks(const ev_model *m) {
  return m->kind->rank != NULL ? EV_OK : ev_fail(EV_EINVAL, "a model of kind %s does not rank", m->kind->name);
}

ev_status ev_ranker_score(const ev_model *m, const ev_snapshot *s, ev_slate *slate, uint32_t user, float *out) {
  EV_TRY(ranks(m));
  ev_row_reader *r = NULL;
  size_t n = ev_slate_n(slate);
  float *result = ev_alloc(n, sizeof *result);
  ev_status status = result == NULL ? EV_ENOMEM : ev_row_reader_of_slate(&r, m->fields, s, slate, user);
  if (status == EV_OK) status = m->kind->rank(m, r, 0, n, result);
  if (status == EV_OK) memcpy(out, result, n * sizeof *out); /* out may be the slate's own score, which is a feature too */
  ev_row_reader_free(r);
  ev_free(result);
  return status;
}

typedef struct ranking {
  const ev_model *m;
  const ev_row_reader *r;
  float *out;
  atomic_int failed; /* an ev_status */
} ranking;

static void rank_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  ranking *x = ctx;
  if (atomic_load(&x->failed) != EV_OK) return;
  ev_status status = ev_interrupted() ? EV_EINTR : x->m->kind->rank(x->m, x->r, begin, end, x->out + begin);
  if (status != EV_OK) atomic_store(&x->failed, (int)status);
}

ev_status ev_ranker_score_rows(const ev_model *m, const ev_snapshot *s, const ev_rank_rows *rows, float *out) {
  EV_TRY(ranks(m));
  ranking x = {.m = m, .out = out};
  ev_row_reader *r;
  EV_TRY(ev_row_reader_of_rows(&r, m->fields, s, rows));
  x.r = r;
  ev_parallel_for(rows->n_rows, 1024, rank_rows, &x);
  ev_row_reader_free(r);
  ev_status status = (ev_status)atomic_load(&x.failed);
  if (status == EV_EINTR) return ev_fail(status, "interrupted");
  return status == EV_OK ? EV_OK : ev_fail(status, "%zu rows could not be scored", rows->n_rows); /* the reason stayed with its thread */
}
