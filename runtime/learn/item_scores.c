/* item_scores.c - one score an item, the same for everybody. Array: scores f32 (n_items). */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "kinds.h"

ev_status ev_fit_item_scores(const char *path, const float *scores, size_t n_items) {
  for (size_t i = 0; i < n_items; i++)
    if (isnan(scores[i])) return ev_fail(EV_EINVAL, "the score of item %zu is not a number", i);
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "item_scores"));
  ev_status status = ev_pack_write(w, "scores", EV_F32, scores, n_items, 1);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

/* Items best first: a request walks down this list past what it has seen. */
typedef struct best {
  const float *scores;
  uint32_t *order; /* (n) owned */
  size_t n;        /* finite ones */
} best;

static ev_status open_kind(ev_model *m) {
  ev_array a;
  EV_TRY(ev_pack_get(m->pack, "scores", EV_F32, &a));
  if (a.cols != 1 || a.rows >= EV_NONE) return ev_fail(EV_ECORRUPT, "%s: scores of the wrong shape", ev_pack_path(m->pack));
  m->n_items = a.rows;
  best *b = m->state = ev_zalloc(1, sizeof *b);
  if (b == NULL) return EV_ENOMEM;
  b->scores = a.data;
  b->order = ev_alloc(a.rows, sizeof *b->order);
  float *sorted = ev_alloc(a.rows, sizeof *sorted);
  ev_status status = b->order == NULL || sorted == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) b->n = ev_topk(b->order, sorted, b->scores, a.rows, a.rows);
  ev_free(sorted);
  return status;
}

static void close_kind(ev_model *m) {
  best *b = m->state;
  if (b != NULL) ev_free(b->order);
  ev_free(b);
}

static bool contains(const uint32_t *sorted, size_t n, uint32_t x) {
  while (n > 0) {
    size_t half = n / 2;
    if (sorted[half] == x) return true;
    if (sorted[half] < x) sorted += half + 1, n -= half + 1;
    else n = half;
  }
  return false;
}

static ev_status recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) {
  const best *b = m->state;
  for (size_t i = 0; i < r->n; i++) {
    const uint32_t *seen = r->seen_ptr != NULL ? r->seen + r->seen_ptr[i] : NULL;
    size_t n_seen = r->seen_ptr != NULL ? r->seen_ptr[i + 1] - r->seen_ptr[i] : 0, found = 0;
    for (size_t at = 0; at < b->n && found < k; at++) {
      if (contains(seen, n_seen, b->order[at])) continue;
      ids[i * k + found] = b->order[at];
      scores[i * k + found++] = b->scores[b->order[at]];
    }
    for (; found < k; found++) ids[i * k + found] = EV_NONE, scores[i * k + found] = -INFINITY;
  }
  return EV_OK;
}

static ev_status score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  (void)r;
  const best *b = m->state;
  for (size_t i = 0; i < n; i++) out[i] = b->scores[items[i]];
  return EV_OK;
}

const ev_kind ev_kind_item_scores = {"item_scores", open_kind, close_kind, recall, score, NULL};
