/* rerank.c - greedy re-ranking of a slate's head by a feature column. store.h gives the formulas. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

static ev_status check(const ev_column *c) {
  return c->type == EV_FLOAT ? ev_fail(EV_EINVAL, "column '%s' holds numbers; re-ranking goes by tokens", c->name) : EV_OK;
}

ev_status ev_slate_mmr(ev_slate *s, const ev_column *c, float lambda, size_t n) {
  EV_TRY(check(c));
  size_t all = ev_slate_n(s);
  if (n > all) n = all;
  if (n == 0) return EV_OK;
  const uint32_t *items = ev_slate_items(s);
  const float *scores = ev_slate_scores(s);
  float lo = INFINITY, hi = -INFINITY;
  for (size_t i = 0; i < all; i++) {
    if (!isfinite(scores[i])) continue;
    if (scores[i] < lo) lo = scores[i];
    if (scores[i] > hi) hi = scores[i];
  }
  float scale = hi > lo ? 1 / (hi - lo) : 0;
  uint32_t *order = ev_alloc(all, sizeof *order);
  float *likeness = ev_zalloc(all, sizeof *likeness); /* to the most alike chosen so far */
  uint8_t *taken = ev_zalloc(all, 1);
  ev_status status = EV_ENOMEM;
  if (order == NULL || likeness == NULL || taken == NULL) goto done;
  for (size_t place = 0; place < n; place++) {
    size_t best = all;
    float best_value = -INFINITY;
    for (size_t i = 0; i < all; i++) {
      if (taken[i]) continue;
      float score = isfinite(scores[i]) ? (scores[i] - lo) * scale : scores[i] > 0 ? 1 : 0;
      float value = lambda * score - (1 - lambda) * likeness[i];
      if (best == all || value > best_value) best = i, best_value = value;
    }
    taken[best] = 1;
    order[place] = (uint32_t)best;
    for (size_t i = 0; i < all; i++) {
      if (taken[i]) continue;
      float alike = (float)ev_column_alike(c, items[best], items[i]);
      if (alike > likeness[i]) likeness[i] = alike;
    }
  }
  for (size_t i = 0, at = n; i < all; i++)
    if (!taken[i]) order[at++] = (uint32_t)i;
  status = ev_slate_permute(s, order, all);
done:
  ev_free(order);
  ev_free(likeness);
  ev_free(taken);
  return status;
}

ev_status ev_slate_quota(ev_slate *s, const ev_column *c, size_t cap, size_t n) {
  EV_TRY(check(c));
  size_t all = ev_slate_n(s), chosen = 0;
  if (n > all) n = all;
  const uint32_t *items = ev_slate_items(s);
  uint32_t *order = ev_alloc(all, sizeof *order), *count = ev_zalloc(c->n_tokens, sizeof *count), *last = ev_zalloc(c->n_tokens, sizeof *last);
  uint8_t *taken = ev_zalloc(all, 1);
  ev_status status = EV_ENOMEM;
  if (order == NULL || count == NULL || last == NULL || taken == NULL) goto done;
  for (size_t i = 0; i < all && chosen < n; i++) {
    const uint32_t *codes = NULL;
    size_t n_codes = ev_column_tokens(c, items[i], &codes);
    bool room = true;
    for (size_t k = 0; k < n_codes && room; k++) room = count[codes[k]] < cap;
    if (!room) continue;
    for (size_t k = 0; k < n_codes; k++)
      if (last[codes[k]] != i + 1) count[codes[k]]++, last[codes[k]] = (uint32_t)i + 1; /* a list may repeat itself */
    taken[i] = 1;
    order[chosen++] = (uint32_t)i;
  }
  for (size_t i = 0; i < all; i++)
    if (!taken[i]) order[chosen++] = (uint32_t)i;
  status = ev_slate_permute(s, order, all);
done:
  ev_free(order);
  ev_free(count);
  ev_free(last);
  ev_free(taken);
  return status;
}
