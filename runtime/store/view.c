/* view.c - the interactions of some folds, both ways: all that training may see. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

typedef struct owned { /* the arrays behind a view, in one block with it */
  ev_view view;
  uint64_t *user_ptr, *item_ptr;
  uint32_t *items, *users, *seen;
  float *rating, *item_rating;
  int64_t *time, *item_time;
} owned;

void ev_view_free(ev_view *v) {
  owned *o = (owned *)(void *)v;
  if (o == NULL) return;
  void *blocks[] = {o->user_ptr, o->item_ptr, o->items, o->users, o->seen, o->rating, o->item_rating, o->time, o->item_time};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  ev_free(o);
}

bool ev_sorted_has(const uint32_t *sorted, size_t n, uint32_t x) {
  size_t low = 0;
  while (low < n) {
    size_t middle = low + (n - low) / 2;
    if (sorted[middle] == x) return true;
    if (sorted[middle] < x) low = middle + 1;
    else n = middle;
  }
  return false;
}

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* A view of the interactions whose position is marked in keep; the snapshot's order is kept. */
static ev_status build(ev_view **out, const ev_snapshot *s, unsigned folds, const uint8_t *keep) {
  *out = NULL;
  size_t n_users = ev_snapshot_n_users(s), n_items = ev_snapshot_n_items(s), all = ev_snapshot_n_interactions(s), n = 0;
  const uint64_t *ptr = ev_snapshot_user_ptr(s);
  const uint32_t *items = ev_snapshot_items(s);
  const int64_t *times = ev_snapshot_times(s);
  const float *ratings = ev_snapshot_ratings(s);
  for (size_t i = 0; i < all; i++) n += keep[i];
  owned *o = ev_zalloc(1, sizeof *o);
  if (o == NULL) return EV_ENOMEM;
  o->user_ptr = ev_zalloc(n_users + 1, sizeof *o->user_ptr);
  o->item_ptr = ev_zalloc(n_items + 1, sizeof *o->item_ptr);
  o->items = ev_alloc(n, sizeof *o->items);
  o->users = ev_alloc(n, sizeof *o->users);
  o->seen = ev_alloc(n, sizeof *o->seen);
  bool whole = o->user_ptr != NULL && o->item_ptr != NULL && o->items != NULL && o->users != NULL && o->seen != NULL;
  if (ratings != NULL) {
    o->rating = ev_alloc(n, sizeof *o->rating);
    o->item_rating = ev_alloc(n, sizeof *o->item_rating);
    whole = whole && o->rating != NULL && o->item_rating != NULL;
  }
  if (times != NULL) {
    o->time = ev_alloc(n, sizeof *o->time);
    o->item_time = ev_alloc(n, sizeof *o->item_time);
    whole = whole && o->time != NULL && o->item_time != NULL;
  }
  if (!whole) {
    ev_view_free(&o->view);
    return EV_ENOMEM;
  }
  size_t at = 0;
  for (size_t u = 0; u < n_users; u++) {
    for (uint64_t i = ptr[u]; i < ptr[u + 1]; i++) {
      if (!keep[i]) continue;
      o->items[at] = items[i];
      if (ratings != NULL) o->rating[at] = ratings[i];
      if (times != NULL) o->time[at] = times[i];
      o->item_ptr[items[i] + 1]++;
      at++;
    }
    o->user_ptr[u + 1] = at;
  }
  memcpy(o->seen, o->items, n * sizeof *o->seen);
  for (size_t u = 0; u < n_users; u++) qsort(o->seen + o->user_ptr[u], o->user_ptr[u + 1] - o->user_ptr[u], sizeof *o->seen, by_number);
  for (size_t i = 0; i < n_items; i++) o->item_ptr[i + 1] += o->item_ptr[i];
  for (size_t u = 0; u < n_users; u++) { /* users ascend, so each item's do */
    for (uint64_t i = o->user_ptr[u]; i < o->user_ptr[u + 1]; i++) {
      uint64_t to = o->item_ptr[o->items[i]]++;
      o->users[to] = (uint32_t)u;
      if (ratings != NULL) o->item_rating[to] = o->rating[i];
      if (times != NULL) o->item_time[to] = o->time[i];
    }
  }
  for (size_t i = n_items; i > 0; i--) o->item_ptr[i] = o->item_ptr[i - 1];
  o->item_ptr[0] = 0;
  o->view = (ev_view){
      .snapshot = s,
      .folds = folds,
      .by_user = {n_users, n_items, o->user_ptr, o->items, o->rating, o->time},
      .by_item = {n_items, n_users, o->item_ptr, o->users, o->item_rating, o->item_time},
      .seen = o->seen,
  };
  *out = &o->view;
  return EV_OK;
}

ev_status ev_view_new(ev_view **out, const ev_snapshot *s, unsigned folds) {
  size_t n = ev_snapshot_n_interactions(s);
  const uint8_t *fold = ev_snapshot_folds(s);
  uint8_t *keep = ev_alloc(n, 1);
  *out = NULL;
  if (keep == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < n; i++) keep[i] = (fold[i] & folds) != 0;
  ev_status status = build(out, s, folds, keep);
  ev_free(keep);
  return status;
}

/* Marks at most n users of two interactions or more, each choice of so many as likely as another (Knuth's algorithm S). */
static ev_status choose_users(uint8_t *chosen, const ev_csr *m, size_t n, uint64_t seed) {
  size_t left = 0;
  ev_rng r;
  for (size_t u = 0; u < m->n_rows; u++) left += m->ptr[u + 1] - m->ptr[u] >= 2;
  if (left >= EV_NONE) return ev_fail(EV_ELIMIT, "%zu users", left);
  ev_rng_seed(&r, seed, 0);
  for (size_t u = 0; u < m->n_rows; u++) {
    if (m->ptr[u + 1] - m->ptr[u] < 2) continue;
    chosen[u] = ev_rng_below(&r, (uint32_t)left--) < n;
    n -= chosen[u];
  }
  return EV_OK;
}

ev_status ev_view_split(ev_view **rest, ev_view **held, const ev_view *v, double share, uint64_t seed) {
  return ev_view_hold(rest, held, v, share, SIZE_MAX, seed);
}

ev_status ev_view_hold(ev_view **rest, ev_view **held, const ev_view *v, double share, size_t max_users, uint64_t seed) {
  *rest = *held = NULL;
  const ev_snapshot *s = v->snapshot;
  const uint64_t *all = ev_snapshot_user_ptr(s);
  const uint32_t *items = ev_snapshot_items(s);
  const uint8_t *fold = ev_snapshot_folds(s);
  size_t n = ev_snapshot_n_interactions(s), n_users = ev_snapshot_n_users(s);
  uint8_t *keep = ev_zalloc(n, 1), *hold = ev_zalloc(n, 1), *chosen = ev_zalloc(n_users, 1);
  uint32_t *mine = ev_alloc(n, sizeof *mine);
  ev_status status = EV_ENOMEM;
  if (keep == NULL || hold == NULL || chosen == NULL || mine == NULL || choose_users(chosen, &v->by_user, max_users, seed) != EV_OK) goto done;
  for (size_t u = 0; u < n_users; u++) {
    size_t m = 0;
    for (uint64_t i = all[u], k = v->by_user.ptr[u]; i < all[u + 1] && k < v->by_user.ptr[u + 1]; i++) { /* v may be a part of its folds itself */
      if (!(fold[i] & v->folds) || items[i] != v->by_user.idx[k]) continue;
      mine[m++] = (uint32_t)i;
      k++;
    }
    size_t take = chosen[u] ? (size_t)ceil(share * (double)m) : 0;
    if (m >= 2 && take >= m) take = m - 1;
    if (!ev_snapshot_sequential(s)) { /* a seeded choice: the last `take` after a shuffle of the user's own stream */
      ev_rng r;
      ev_rng_seed(&r, seed, u + 1);
      for (size_t i = m; i > 1; i--) {
        size_t j = ev_rng_below(&r, (uint32_t)i);
        uint32_t swap = mine[i - 1];
        mine[i - 1] = mine[j];
        mine[j] = swap;
      }
    }
    for (size_t i = 0; i < m; i++) (i < m - take ? keep : hold)[mine[i]] = 1;
  }
  status = build(rest, s, v->folds, keep);
  if (status == EV_OK) status = build(held, s, v->folds, hold);
  if (status != EV_OK) {
    ev_view_free(*rest);
    *rest = NULL;
  }
done:
  ev_free(keep);
  ev_free(hold);
  ev_free(chosen);
  ev_free(mine);
  return status;
}

ev_status ev_view_block(ev_view **out, const ev_view *v, size_t block, size_t n_blocks) {
  *out = NULL;
  if (block >= n_blocks) return ev_fail(EV_EINVAL, "block %zu of %zu", block, n_blocks);
  const ev_snapshot *s = v->snapshot;
  const uint64_t *all = ev_snapshot_user_ptr(s);
  const uint32_t *items = ev_snapshot_items(s);
  const uint8_t *fold = ev_snapshot_folds(s);
  uint8_t *keep = ev_zalloc(ev_snapshot_n_interactions(s), 1);
  if (keep == NULL) return EV_ENOMEM;
  for (size_t u = block; u < v->by_user.n_rows; u += n_blocks) {
    for (uint64_t i = all[u], k = v->by_user.ptr[u]; i < all[u + 1] && k < v->by_user.ptr[u + 1]; i++) {
      if (!(fold[i] & v->folds) || items[i] != v->by_user.idx[k]) continue;
      keep[i] = 1;
      k++;
    }
  }
  ev_status status = build(out, s, v->folds, keep);
  ev_free(keep);
  return status;
}
