/* exposure.c - who is shown: shares of exposure by an item column, coverage and Gini index, with what each user adds to them.
 *
 * These figures are of all lists together, so a comparison of two systems has no per-user values to draw again. The jackknife
 * makes some (Quenouille 1956, Tukey 1958): n T − (n − 1) T₋ᵤ, the pseudo-value of user u, whose mean is about T and whose
 * spread gives T's error. T₋ᵤ is exact here, and costs one pass over the user's list. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reward.h"

typedef struct lists {
  const uint32_t *item; /* (n, stride) */
  size_t stride, k, n;
} lists;

static double pseudo(double whole, double without, size_t n) { return n > 1 ? (double)n * whole - (double)(n - 1) * without : whole; }

/* ---- Coverage and Gini ------------------------------------------------------------------------------------*/
static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static void count_items(const lists *l, uint32_t *count) {
  for (size_t u = 0; u < l->n; u++)
    for (size_t r = 0; r < l->k; r++)
      if (l->item[u * l->stride + r] != EV_NONE) count[l->item[u * l->stride + r]]++;
}

static void coverage(double *value, float *user, const lists *l, const uint32_t *count, size_t n_items) {
  size_t shown = 0;
  for (size_t i = 0; i < n_items; i++) shown += count[i] > 0;
  *value = (double)shown / (double)n_items;
  for (size_t u = 0; u < l->n; u++) {
    size_t alone = 0; /* items that nobody else is shown */
    const uint32_t *mine = l->item + u * l->stride;
    for (size_t r = 0; r < l->k; r++) {
      size_t before = 0, own = 0; /* a list may have an item twice */
      if (mine[r] == EV_NONE || count[mine[r]] > l->k) continue;
      for (size_t q = 0; q < l->k; q++) own += mine[q] == mine[r], before += q < r && mine[q] == mine[r];
      alone += before == 0 && count[mine[r]] == own;
    }
    user[u] = (float)pseudo(*value, (double)(shown - alone) / (double)n_items, l->n);
  }
}

/* Of counts ascending, G = Σ (2i − n − 1) cᵢ / (n Σ c). A count that falls by one stays in order when it is the first of its
 * equals, so a user's items are taken from the front of their equals, one place each. An item that stands in a list twice falls
 * twice, from two groups. */
static ev_status gini(double *value, float *user, const lists *l, const uint32_t *count, size_t n_items) {
  uint32_t *sorted = ev_alloc(n_items, sizeof *sorted), *mine = ev_alloc(l->k, sizeof *mine);
  size_t *first = NULL, *taken = NULL;
  ev_status status = EV_ENOMEM;
  if (sorted == NULL || mine == NULL) goto done;
  memcpy(sorted, count, n_items * sizeof *sorted);
  qsort(sorted, n_items, sizeof *sorted, by_number);
  size_t most = sorted[n_items - 1];
  double n = (double)n_items, sum = 0, weighted = 0;
  first = ev_zalloc(most + 1, sizeof *first); /* place, from 1, of the first item with this count */
  taken = ev_zalloc(most + 1, sizeof *taken);
  if (first == NULL || taken == NULL) goto done;
  for (size_t i = n_items; i-- > 0;) {
    first[sorted[i]] = i + 1;
    sum += sorted[i];
    weighted += (2.0 * (double)(i + 1) - n - 1) * sorted[i];
  }
  for (size_t c = most; c-- > 0;)
    if (first[c] == 0) first[c] = first[c + 1]; /* nobody has this count: who falls to it stands there */
  *value = sum > 0 ? weighted / (n * sum) : 0;
  for (size_t u = 0; u < l->n; u++) {
    size_t m = 0;
    double less = 0, change = 0;
    for (size_t r = 0; r < l->k; r++)
      if (l->item[u * l->stride + r] != EV_NONE) mine[m++] = l->item[u * l->stride + r];
    qsort(mine, m, sizeof *mine, by_number);
    for (size_t r = 0, again = 0; r < m; r++) {
      again = r > 0 && mine[r] == mine[r - 1] ? again + 1 : 0;
      size_t c = count[mine[r]] - again;
      change += 2.0 * (double)(first[c] + taken[c]++) - n - 1;
      less++;
    }
    for (size_t r = 0, again = 0; r < m; r++) {
      again = r > 0 && mine[r] == mine[r - 1] ? again + 1 : 0;
      taken[count[mine[r]] - again] = 0;
    }
    user[u] = (float)pseudo(*value, sum - less > 0 ? (weighted - change) / (n * (sum - less)) : 0, l->n);
  }
  status = EV_OK;
done:
  ev_free(sorted);
  ev_free(mine);
  ev_free(first);
  ev_free(taken);
  return status;
}

/* ---- Shares of a column -----------------------------------------------------------------------------------*/
typedef struct tally {
  double *of; /* (n_tokens) places whose item has the token */
  double all; /* places */
} tally;

/* Adds a list, or with sign −1 takes it out again. → the largest number among the tokens of the list */
static double tally_list(tally *t, const lists *l, size_t u, const ev_column *c, double sign) {
  double n = 0, most = 0;
  for (size_t r = 0; r < l->k; r++) {
    uint32_t item = l->item[u * l->stride + r];
    const uint32_t *codes;
    if (item == EV_NONE) continue;
    size_t n_codes = ev_column_tokens(c, item, &codes);
    for (size_t i = 0; i < n_codes; i++) {
      bool twice = codes[i] >= c->n_tokens; /* a token that an item has twice is shown once */
      for (size_t j = 0; j < i && !twice; j++) twice = codes[j] == codes[i];
      if (twice) continue;
      t->of[codes[i]] += sign;
      most = fmax(most, t->of[codes[i]]);
    }
    n++;
  }
  t->all += sign * n;
  return most;
}

static uint32_t largest(const tally *t, size_t n_tokens) {
  uint32_t best = 0;
  for (uint32_t i = 1; i < n_tokens; i++)
    if (t->of[i] > t->of[best]) best = i;
  return best;
}

static double share_of(const tally *t, uint32_t token) { return t->all > 0 ? t->of[token] / t->all : 0; }

static ev_status shares(double *value, float *user, uint32_t *token, const lists *l, const ev_exposure *x) {
  const ev_column *c = x->column;
  tally t = {.of = ev_zalloc(c->n_tokens > 0 ? c->n_tokens : 1, sizeof *t.of)};
  if (t.of == NULL) return EV_ENOMEM;
  *token = x->token;
  if (x->kind == EV_SHARE_SLATE) {
    double sum = 0;
    for (size_t u = 0; u < l->n; u++) {
      double most = tally_list(&t, l, u, c, 1);
      if (t.all > 0) most /= t.all;
      tally_list(&t, l, u, c, -1);
      user[u] = (float)most;
      sum += most;
    }
    *value = sum / (double)l->n;
  } else {
    for (size_t u = 0; u < l->n; u++) tally_list(&t, l, u, c, 1);
    if (x->kind == EV_SHARE_MAX) *token = c->n_tokens > 0 ? largest(&t, c->n_tokens) : EV_NONE;
    *value = *token < c->n_tokens ? share_of(&t, *token) : 0;
    for (size_t u = 0; u < l->n; u++) {
      tally_list(&t, l, u, c, -1);
      user[u] = (float)pseudo(*value, *token < c->n_tokens ? share_of(&t, *token) : 0, l->n);
      tally_list(&t, l, u, c, 1);
    }
  }
  ev_free(t.of);
  return EV_OK;
}

ev_status ev_exposure_measure(double *value, float *user, uint32_t *token, const uint32_t *items, size_t stride, size_t n, size_t n_items, const ev_exposure *x) {
  *value = 0;
  *token = EV_NONE;
  if (n == 0 || n_items == 0) return ev_fail(EV_EINVAL, "exposure in %zu lists of %zu items", n, n_items);
  if (x->k == 0 || x->k > stride) return ev_fail(EV_EINVAL, "exposure at %zu: lists have %zu places", x->k, stride);
  for (size_t i = 0; i < n * stride; i++)
    if (items[i] != EV_NONE && items[i] >= n_items) return ev_fail(EV_EINVAL, "list %zu has item %u, there are %zu", i / stride, items[i], n_items);
  lists l = {items, stride, x->k, n};
  if (x->kind == EV_SHARE_COVERAGE || x->kind == EV_SHARE_GINI) {
    uint32_t *count = ev_zalloc(n_items, sizeof *count);
    if (count == NULL) return EV_ENOMEM;
    ev_status status = EV_OK;
    count_items(&l, count);
    if (x->kind == EV_SHARE_COVERAGE) coverage(value, user, &l, count, n_items);
    else status = gini(value, user, &l, count, n_items);
    ev_free(count);
    return status;
  }
  if (x->column == NULL || x->column->type == EV_FLOAT) return ev_fail(EV_EINVAL, "shares of exposure go by a column of tokens");
  return shares(value, user, token, &l, x);
}
