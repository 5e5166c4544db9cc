/* rank_rows.c - a ranker's training set: candidates of many slates, as columns. */
#include <string.h>

#include "learn.h"

ev_status ev_rank_rows_new(ev_rank_rows **out, const char *const *dense_names, size_t n_dense) {
  *out = NULL;
  ev_rank_rows *r = ev_zalloc(1, sizeof *r);
  if (r == NULL) return EV_ENOMEM;
  r->dense_names = ev_zalloc(n_dense, sizeof *r->dense_names);
  bool whole = r->dense_names != NULL;
  r->n_dense = whole ? n_dense : 0;
  for (size_t i = 0; whole && i < n_dense; i++) {
    r->dense_names[i] = ev_strndup(dense_names[i], strlen(dense_names[i]));
    whole = r->dense_names[i] != NULL;
  }
  if (!whole) {
    ev_rank_rows_free(r);
    return EV_ENOMEM;
  }
  *out = r;
  return EV_OK;
}

static ev_status reserve(ev_rank_rows *r, size_t n) {
  if (n <= r->cap) return EV_OK;
  size_t cap = r->cap == 0 ? 4096 : r->cap;
  while (cap < n) cap *= 2;
  struct {
    void **array;
    size_t size;
  } all[] = {{(void **)&r->user, 4}, {(void **)&r->item, 4}, {(void **)&r->label, 4}, {(void **)&r->group, 4},
             {(void **)&r->dense, 4 * (r->n_dense > 0 ? r->n_dense : 1)}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    void *p = ev_resize(*all[i].array, cap, all[i].size);
    if (p == NULL) return EV_ENOMEM;
    *all[i].array = p;
  }
  r->cap = cap;
  return EV_OK;
}

ev_status ev_rank_rows_add(ev_rank_rows *r, ev_slate *s, uint32_t user, const uint32_t *positives, size_t n_positives) {
  size_t n = ev_slate_n(s), d = r->n_dense;
  if (r->n_rows + n >= EV_NONE) return ev_fail(EV_ELIMIT, "a ranker learns from fewer than 2^32 candidates");
  EV_TRY(reserve(r, r->n_rows + n));
  uint32_t group = r->n_rows == 0 ? 0 : r->group[r->n_rows - 1] + 1;
  const uint32_t *items = ev_slate_items(s);
  for (size_t c = 0; c < d; c++) {
    const float *column = strcmp(r->dense_names[c], "score") == 0 ? ev_slate_scores(s) : ev_slate_find(s, r->dense_names[c]);
    for (size_t i = 0; i < n; i++) r->dense[(r->n_rows + i) * d + c] = column != NULL ? column[i] : 0;
  }
  for (size_t i = 0; i < n; i++) {
    size_t at = r->n_rows + i;
    r->user[at] = user;
    r->item[at] = items[i];
    r->group[at] = group;
    r->label[at] = ev_sorted_has(positives, n_positives, items[i]) ? 1 : 0;
  }
  r->n_rows += n;
  return EV_OK;
}

size_t ev_rank_rows_choose(uint32_t *out, const ev_rank_rows *rows, float per_positive, ev_rng *rng) {
  size_t n = 0;
  for (size_t begin = 0, end; begin < rows->n_rows; begin = end) {
    size_t positives = 0;
    for (end = begin; end < rows->n_rows && rows->group[end] == rows->group[begin]; end++) positives += rows->label[end] > 0;
    size_t negatives = end - begin - positives;
    double share = per_positive > 0 && negatives > 0 && !rows->impressions ? per_positive * (double)(positives > 0 ? positives : 1) / (double)negatives : 1;
    for (size_t i = begin; i < end; i++)
      if (rows->label[i] > 0 || share >= 1 || ev_rng_f64(rng) < share) out[n++] = (uint32_t)i;
  }
  for (size_t i = n; i > 1; i--) {
    size_t j = ev_rng_below(rng, (uint32_t)i);
    uint32_t swap = out[i - 1];
    out[i - 1] = out[j];
    out[j] = swap;
  }
  return n;
}

ev_status ev_rank_rows_add_view(ev_rank_rows *r, const ev_view *v, double least_rating) {
  const ev_csr *m = &v->by_user;
  size_t n = m->ptr[m->n_rows];
  if (m->rating == NULL) return ev_fail(EV_EINVAL, "the data have no ratings to tell clicks by");
  if (r->n_rows + n >= EV_NONE) return ev_fail(EV_ELIMIT, "a ranker learns from fewer than 2^32 rows");
  EV_TRY(reserve(r, r->n_rows + n));
  r->impressions = true;
  for (size_t u = 0; u < m->n_rows; u++) {
    uint32_t group = r->n_rows == 0 ? 0 : r->group[r->n_rows - 1] + 1;
    for (uint64_t i = m->ptr[u]; i < m->ptr[u + 1]; i++) {
      size_t at = r->n_rows++;
      for (size_t c = 0; c < r->n_dense; c++) r->dense[at * r->n_dense + c] = 0;
      r->user[at] = (uint32_t)u;
      r->item[at] = m->idx[i];
      r->group[at] = group;
      r->label[at] = (double)m->rating[i] >= least_rating ? 1 : 0; /* one without a rating is no click */
    }
  }
  return EV_OK;
}

void ev_rank_rows_free(ev_rank_rows *r) {
  if (r == NULL) return;
  for (size_t i = 0; i < r->n_dense; i++) ev_free(r->dense_names[i]);
  ev_free(r->dense_names);
  ev_free(r->dense);
  ev_free(r->user);
  ev_free(r->item);
  ev_free(r->label);
  ev_free(r->group);
  ev_free(r);
}
