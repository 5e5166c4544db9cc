/* arms_window.c - impressions that wait for their rewards: a ring of places, slate after slate.
 *
 * A click comes seconds after its slate, no click never comes. Were clicks learnt at once and their absence later, every arm would
 * look better than it is for as long; so a slate is learnt as a whole, when it leaves the window. Places are written beyond `shown`,
 * which then moves in one store, and `settled` moves before a slate is learnt: a process killed in between loses at most the one
 * slate that it was learning. */
#include "arms.h"

static arms_entry *entry_of(const ev_arms *a, uint64_t number) {
  return (arms_entry *)(void *)(a->base + a->layout.window_at + number % a->layout.window * a->layout.entry_bytes);
}

/* The oldest slate; the window's lock is held. */
static ev_status settle_one(ev_arms *a) {
  uint64_t first = atomic_load(&a->head->settled), shown = atomic_load(&a->head->shown);
  if (first >= shown) return EV_OK;
  uint32_t n = entry_of(a, first)->places;
  if (n == 0 || n > shown - first) n = (uint32_t)(shown - first); /* a damaged window empties itself */
  atomic_store(&a->head->settled, first + n);
  for (uint32_t k = 0; k < n; k++) {
    const arms_entry *e = entry_of(a, first + k);
    double seen = a->o.examination > 0 ? pow(e->place + 1.0, -a->o.examination) : 1, reward = e->reward;
    if (a->o.kind == EV_ARMS_LOGISTIC || a->o.kind == EV_ARMS_WEIGHTS) reward = reward < 0 ? 0 : reward > 1 ? 1 : reward;
    if (e->arm < a->o.n) EV_TRY(ev_arms_update(a, e->arm, a->o.n_dims > 0 ? e->x : NULL, reward, (double)e->propensity, seen));
    if (a->o.cascade && reward > 0) break;
  }
  return EV_OK;
}

ev_status ev_arms_show(ev_arms *a, const uint64_t *keys, const uint32_t *arms, const float *x, const float *propensities, size_t n) {
  size_t d = a->o.n_dims;
  if (n == 0) return EV_OK;
  if (n > a->layout.window) return ev_fail(EV_EINVAL, "a slate of %zu places does not fit in a window of %u", n, a->layout.window);
  if (d > 0 && x == NULL) return ev_fail(EV_EINVAL, "features are missing");
  for (size_t i = 0; i < n; i++) {
    if (arms != NULL && arms[i] >= a->o.n) return ev_fail(EV_EINVAL, "there is no arm %u of %u", arms[i], a->o.n);
    if (a->o.kind == EV_ARMS_WEIGHTS && !(propensities[i] > 0 && propensities[i] <= 1)) return ev_fail(EV_EINVAL, "place %zu: a propensity of %g", i + 1, (double)propensities[i]);
  }
  for (size_t i = 0; i < n * d; i++)
    if (!isfinite(x[i])) return ev_fail(EV_EINVAL, "a feature is not finite");
  EV_TRY(arms_lock(a, 0));
  uint64_t shown = atomic_load(&a->head->shown);
  ev_status status = EV_OK;
  while (status == EV_OK && shown + n - atomic_load(&a->head->settled) > a->layout.window) status = settle_one(a);
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    arms_entry *e = entry_of(a, shown + i);
    e->key = keys[i];
    e->arm = arms != NULL ? arms[i] : 0;
    e->place = (uint32_t)i;
    e->places = (uint32_t)n;
    e->propensity = propensities != NULL ? propensities[i] : 1;
    e->reward = 0;
    if (d > 0) memcpy(e->x, x + i * d, d * sizeof *x);
  }
  if (status == EV_OK) atomic_store(&a->head->shown, shown + n);
  arms_unlock(a, 0);
  return status;
}

ev_status ev_arms_reward(ev_arms *a, uint64_t key, double reward, bool *known) {
  *known = false;
  if (!isfinite(reward) || fabs(reward) > 1e9) return ev_fail(EV_EINVAL, "a reward of %g", reward);
  EV_TRY(arms_lock(a, 0));
  for (uint64_t k = atomic_load(&a->head->shown), first = atomic_load(&a->head->settled); k > first && !*known; k--) {
    arms_entry *e = entry_of(a, k - 1);
    if (e->key != key) continue;
    e->reward += reward;
    *known = true;
  }
  atomic_fetch_add(*known ? &a->head->rewarded : &a->head->late, 1);
  arms_unlock(a, 0);
  return EV_OK;
}

ev_status ev_arms_settle(ev_arms *a) {
  EV_TRY(arms_lock(a, 0));
  ev_status status = EV_OK;
  while (status == EV_OK && atomic_load(&a->head->settled) < atomic_load(&a->head->shown)) status = settle_one(a);
  arms_unlock(a, 0);
  return status;
}
