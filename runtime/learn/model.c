/* model.c - opens a model file as what its kind says it is, and passes questions on. */
#include <string.h>

#include "kinds.h"

static const ev_kind *const kinds[] = {&ev_kind_item_scores, &ev_kind_item_graph, &ev_kind_item_linear, &ev_kind_factors,
                                       &ev_kind_graph_filter, &ev_kind_ranker};

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

ev_status ev_model_score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  if (m->kind->score == NULL) return ev_fail(EV_EINVAL, "a model of kind %s scores through ev_ranker_score", m->kind->name);
  if (r->n != 1) return ev_fail(EV_EINVAL, "%zu requests: items are scored for one", r->n);
  EV_TRY(ev_requests_check(r, m->n_items));
  for (size_t i = 0; i < n; i++)
    if (items[i] >= m->n_items) return ev_fail(EV_EINVAL, "item %u: the model knows %zu", items[i], m->n_items);
  return m->kind->score(m, r, items, n, out);
}
