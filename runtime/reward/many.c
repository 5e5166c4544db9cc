/* many.c - many challengers at once, or one after the other: which of those that look better are to be believed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reward.h"

#define ZETA 2.2857656656801293 /* ζ(1.6), so that the levels' shares sum to 1 */

typedef struct ranked {
  double p;
  size_t at;
} ranked;

static int ascending(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  return x->p != y->p ? (x->p < y->p ? -1 : 1) : x->at < y->at ? -1 : 1;
}

/* Step-up procedures take the smallest over all larger ones of n p / rank, Holm the largest over all smaller ones. e-BH is BH
 * of 1 / e; that needs no independence is a property of e-values. */
ev_status ev_adjust(double *out, const double *values, size_t n, ev_adjustment how) {
  if ((unsigned)how >= EV_ADJUSTMENTS) return ev_fail(EV_EINVAL, "no such adjustment");
  ranked *r = ev_alloc(n, sizeof *r);
  if (r == NULL) return EV_ENOMEM;
  double harmonic = 0;
  for (size_t i = 0; i < n; i++) {
    double v = values[i];
    if (how == EV_EBH ? !(v >= 0) : !(v >= 0 && v <= 1)) {
      ev_free(r);
      return ev_fail(EV_EINVAL, how == EV_EBH ? "e-value %zu is %g; e-values are 0 or more" : "p-value %zu is %g; p-values lie between 0 and 1", i + 1, v);
    }
    r[i] = (ranked){how == EV_EBH ? 1 / v : v, i};
    harmonic += 1 / ((double)i + 1);
  }
  qsort(r, n, sizeof *r, ascending);
  double best = how == EV_HOLM ? 0 : 1, all = (double)n * (how == EV_BY ? harmonic : 1);
  for (size_t i = 0; i < n; i++) {
    size_t k = how == EV_HOLM ? i : n - 1 - i;
    if (how == EV_HOLM) best = fmin(1, fmax(best, (double)(n - k) * r[k].p));
    else best = fmin(best, all * r[k].p / ((double)k + 1));
    out[r[k].at] = best;
  }
  ev_free(r);
  return EV_OK;
}

/* ---- One after the other --------------------------------------------------------------------------------*/
static double share(uint64_t t) { return t == 0 ? 0 : pow((double)t, -1.6) / ZETA; }

ev_status ev_online_init(ev_online *o, ev_online_kind kind, double level) {
  memset(o, 0, sizeof *o);
  if ((unsigned)kind >= EV_ONLINE_KINDS) return ev_fail(EV_EINVAL, "no such online test");
  if (!(level > 0 && level < 1)) return ev_fail(EV_EINVAL, "a level of %g; it lies between 0 and 1", level);
  o->kind = kind;
  o->level = level;
  return EV_OK;
}

/* LORD++ starts with a wealth of α/2: α_t = α/2 γ_t + α/2 γ_{t − τ1} + α Σ_{j > 1} γ_{t − τj}. e-LOND: α_t = α γ_t (found + 1). */
double ev_online_level(const ev_online *o) {
  uint64_t t = o->n + 1;
  if (o->kind == EV_ELOND) return o->level * share(t) * ((double)o->n_found + 1);
  double level = 0.5 * o->level * share(t);
  if (o->n_found == 0) return level;
  level += 0.5 * o->level * share(t - o->first);
  uint64_t kept = o->n_found < EV_ONLINE_KEPT ? o->n_found : EV_ONLINE_KEPT;
  for (uint64_t j = o->n_found - kept; j < o->n_found; j++)
    if (j > 0) level += o->level * share(t - o->found[j % EV_ONLINE_KEPT]);
  return level;
}

ev_status ev_online_test(ev_online *o, double value, bool *discovery) {
  *discovery = false;
  bool p = o->kind == EV_LORD;
  if (p ? !(value >= 0 && value <= 1) : !(value >= 0)) return ev_fail(EV_EINVAL, p ? "a p-value of %g" : "an e-value of %g", value);
  double level = ev_online_level(o);
  *discovery = p ? value <= level : value * level >= 1;
  o->n++;
  if (*discovery) {
    if (o->n_found == 0) o->first = o->n;
    o->found[o->n_found++ % EV_ONLINE_KEPT] = o->n;
  }
  return EV_OK;
}

ev_status ev_online_check(const ev_online *o) {
  bool good = o->kind < EV_ONLINE_KINDS && o->level > 0 && o->level < 1 && o->n_found <= o->n && o->first <= o->n && (o->first > 0) == (o->n_found > 0);
  for (uint64_t j = 0; j < EV_ONLINE_KEPT && good; j++) good = j < o->n_found ? o->found[j] >= 1 && o->found[j] <= o->n : o->found[j] == 0;
  return good ? EV_OK : ev_fail(EV_ECORRUPT, "this is no online test");
}
