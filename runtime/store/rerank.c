/* rerank.c - greedy re-ranking of a slate's head by a feature column. store.h gives the formulas. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

static ev_status check(const ev_column *c) {
  return c->type == EV_FLOAT ? ev_fail(EV_EINVAL, "column '%s' holds numbers; re-ranking goes by tokens", c->name) : EV_OK;
}

/* Scores brought to [0, 1] over the slate: infinite ones to its ends, NaN to 0. */
typedef struct range {
  float lo, scale;
} range;

static range range_of(const float *scores, size_t n) {
  float lo = INFINITY, hi = -INFINITY;
  for (size_t i = 0; i < n; i++) {
    if (!isfinite(scores[i])) continue;
    if (scores[i] < lo) lo = scores[i];
    if (scores[i] > hi) hi = scores[i];
  }
  return (range){lo, hi > lo ? 1 / (hi - lo) : 0};
}

static float scaled(const range *r, float score) { return isfinite(score) ? (score - r->lo) * r->scale : score > 0 ? 1 : 0; }

/* order[0..n) are the chosen; the others follow as they stood. */
static ev_status put(ev_slate *s, uint32_t *order, const uint8_t *taken, size_t n) {
  size_t all = ev_slate_n(s);
  for (size_t i = 0; i < all; i++)
    if (!taken[i]) order[n++] = (uint32_t)i;
  return ev_slate_permute(s, order, all);
}

ev_status ev_slate_mmr(ev_slate *s, const ev_column *c, float lambda, size_t n) {
  EV_TRY(check(c));
  size_t all = ev_slate_n(s);
  if (n > all) n = all;
  if (n == 0) return EV_OK;
  const uint32_t *items = ev_slate_items(s);
  const float *scores = ev_slate_scores(s);
  const range r = range_of(scores, all);
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
      float value = lambda * scaled(&r, scores[i]) - (1 - lambda) * likeness[i];
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
  status = put(s, order, taken, n);
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
  status = put(s, order, taken, chosen);
done:
  ev_free(order);
  ev_free(count);
  ev_free(last);
  ev_free(taken);
  return status;
}

ev_status ev_slate_cap(ev_slate *s, const char *column, size_t cap, size_t n) {
  size_t all = ev_slate_n(s), chosen = 0;
  const float *kind = strcmp(column, "score") == 0 ? ev_slate_scores(s) : ev_slate_find(s, column);
  if (n > all) n = all;
  if (n == 0) return EV_OK;
  if (kind == NULL) return ev_fail(EV_EINVAL, "the slate has no column '%.60s'", column);
  uint32_t *order = ev_alloc(all, sizeof *order);
  uint8_t *taken = ev_zalloc(all, 1);
  ev_status status = order == NULL || taken == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    for (size_t i = 0; i < all && chosen < n; i++) {
      size_t alike = 0;
      for (size_t j = 0; j < chosen; j++) alike += kind[order[j]] == kind[i];
      if (alike >= cap) continue;
      taken[i] = 1;
      order[chosen++] = (uint32_t)i;
    }
    status = put(s, order, taken, chosen);
  }
  ev_free(order);
  ev_free(taken);
  return status;
}

#define DPP_MAX (1 << 24) /* elements of the factor: 128 MB */

/* Row i of the Cholesky factor of the chosen items' kernel grows by one element a step, and what is left of the diagonal is
 * the factor by which taking i would multiply the determinant: O(all · n²), and n · all similarities. In doubles, since
 * the qualities reach from 1 to e^(θ / (1 − θ)). */
ev_status ev_slate_dpp(ev_slate *s, const ev_column *c, float theta, float alike, size_t n) {
  EV_TRY(check(c));
  if (!(theta >= 0 && theta < 1 && alike >= 0 && alike <= 1)) return ev_fail(EV_EINVAL, "dpp: theta %g must be in [0, 1), alike %g in [0, 1]", (double)theta, (double)alike);
  size_t all = ev_slate_n(s), chosen = 0;
  if (n > all) n = all;
  if (n == 0) return EV_OK;
  if (all > DPP_MAX / n) return ev_fail(EV_ELIMIT, "dpp: %zu of %zu candidates; at most %d together", n, all, DPP_MAX);
  const uint32_t *items = ev_slate_items(s);
  const range r = range_of(ev_slate_scores(s), all);
  double power = 0.5 * (double)theta / (1 - (double)theta);
  uint32_t *order = ev_alloc(all, sizeof *order);
  uint8_t *taken = ev_zalloc(all, 1);
  double *left = ev_alloc(all, sizeof *left), *logq = ev_alloc(all, sizeof *logq), *factor = ev_alloc(all, n * sizeof *factor); /* factor (all, n): rows of the Cholesky factor of S alone */
  ev_status status = EV_ENOMEM;
  if (order == NULL || taken == NULL || left == NULL || logq == NULL || factor == NULL) goto done;
  for (size_t i = 0; i < all; i++) left[i] = 1, logq[i] = 2 * power * (double)scaled(&r, ev_slate_scores(s)[i]);
  while (chosen < n) {
    size_t best = all;
    double most = 0;
    for (size_t i = 0; i < all; i++) { /* det L = Π qᵢ² det S: the qualities factor out, so S alone is factored, and nothing overflows */
      if (taken[i] || left[i] < 1e-9) continue;
      double gain = logq[i] + log(left[i]);
      if (best == all || gain > most) best = i, most = gain;
    }
    if (best == all) break;
    double root = sqrt(left[best]);
    const double *row = factor + best * n;
    taken[best] = 1;
    order[chosen] = (uint32_t)best;
    for (size_t i = 0; i < all; i++) {
      if (taken[i]) continue;
      double *mine = factor + i * n, e = (double)alike * ev_column_alike(c, items[best], items[i]);
      for (size_t k = 0; k < chosen; k++) e -= row[k] * mine[k];
      mine[chosen] = e / root;
      left[i] -= mine[chosen] * mine[chosen];
    }
    chosen++;
  }
  status = put(s, order, taken, chosen);
done:
  ev_free(order);
  ev_free(taken);
  ev_free(left);
  ev_free(logq);
  ev_free(factor);
  return status;
}

/* Adds an item's tokens to shares (n_tokens); returns what it added: 1, or 0 where it has none. */
static double add_shares(double *shares, const ev_column *c, uint32_t item) {
  const uint32_t *codes = NULL;
  size_t m = ev_column_tokens(c, item, &codes);
  for (size_t k = 0; k < m; k++) shares[codes[k]] += 1 / (double)m;
  return m > 0 ? 1 : 0;
}

ev_status ev_slate_calibrate(ev_slate *s, const ev_column *c, const uint32_t *history, size_t n_history, float lambda, float alpha, size_t n) {
  EV_TRY(check(c));
  if (!(lambda >= 0 && lambda <= 1 && alpha > 0 && alpha < 1)) return ev_fail(EV_EINVAL, "calibrated: lambda %g must be in [0, 1], alpha %g in (0, 1)", (double)lambda, (double)alpha);
  size_t all = ev_slate_n(s), n_wanted = 0;
  if (n > all) n = all;
  const uint32_t *items = ev_slate_items(s);
  const float *scores = ev_slate_scores(s);
  const range r = range_of(scores, all);
  uint32_t *order = ev_alloc(all, sizeof *order), *wanted = ev_alloc(c->n_tokens, sizeof *wanted);
  uint8_t *taken = ev_zalloc(all, 1);
  double *p = ev_zalloc(c->n_tokens, sizeof *p), *q = ev_zalloc(c->n_tokens, sizeof *q), *with = ev_zalloc(c->n_tokens, sizeof *with);
  double of_history = 0, of_chosen = 0;
  ev_status status = EV_ENOMEM;
  if (order == NULL || wanted == NULL || taken == NULL || p == NULL || q == NULL || with == NULL) goto done;
  status = EV_OK;
  for (size_t i = 0; i < n_history; i++) of_history += add_shares(p, c, history[i]);
  if (of_history == 0 || n == 0) goto done;
  for (size_t t = 0; t < c->n_tokens; t++)
    if (p[t] > 0) p[t] /= of_history, wanted[n_wanted++] = (uint32_t)t; /* the others add nothing to the divergence */
  for (size_t place = 0; place < n; place++) {
    size_t best = all;
    double most = 0;
    for (size_t i = 0; i < all; i++) {
      if (taken[i]) continue;
      const uint32_t *codes = NULL;
      size_t m = ev_column_tokens(c, items[i], &codes);
      double sum = of_chosen + add_shares(with, c, items[i]), divergence = 0;
      for (size_t k = 0; k < n_wanted; k++) {
        uint32_t t = wanted[k];
        double share = sum > 0 ? (q[t] + with[t]) / sum : 0;
        divergence += p[t] * log(p[t] / ((1 - (double)alpha) * share + (double)alpha * p[t]));
      }
      for (size_t k = 0; k < m; k++) with[codes[k]] = 0;
      double value = (1 - (double)lambda) * (double)scaled(&r, scores[i]) - (double)lambda * divergence;
      if (best == all || value > most) best = i, most = value;
    }
    taken[best] = 1;
    order[place] = (uint32_t)best;
    of_chosen += add_shares(q, c, items[best]);
  }
  status = put(s, order, taken, n);
done:
  ev_free(order);
  ev_free(wanted);
  ev_free(taken);
  ev_free(p);
  ev_free(q);
  ev_free(with);
  return status;
}
