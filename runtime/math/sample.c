/* sample.c - sampling by weight, with and without replacement.
 *
 * Alias tables: Walker, "An efficient method for generating discrete random variables with general distributions" (1977);
 * built in linear time as in Vose (1991). Gumbel top-k: Kool, van Hoof, Welling, "Stochastic beams and where to find them"
 * (2019): the k largest of logits + Gumbel noise are k draws without replacement. */
#include <math.h>

#include "kernels.h"

#define BLOCK 512

ev_status ev_alias_new(ev_alias *out, const float *weights, size_t n) {
  *out = (ev_alias){0};
  if (n >= EV_NONE) return ev_fail(EV_EINVAL, "%zu weights are too many", n);
  double sum = 0;
  size_t most = 0; /* the place of the greatest */
  for (size_t i = 0; i < n; i++) {
    if (!(weights[i] >= 0 && weights[i] < INFINITY)) return ev_fail(EV_EINVAL, "weight %zu is %g", i, weights[i]);
    if (weights[i] > weights[most]) most = i;
    sum += weights[i];
  }
  if (!(sum > 0)) return ev_fail(EV_EINVAL, n == 0 ? "no weights" : "all weights are 0");
  double *rest = ev_alloc(n, sizeof *rest);
  uint32_t *stack = ev_alloc(n, sizeof *stack); /* those below 1 from the left, the others from the right */
  ev_alias a = {.n = n, .share = ev_alloc(n, sizeof *a.share), .other = ev_alloc(n, sizeof *a.other)};
  ev_status status = EV_ENOMEM;
  if (rest == NULL || stack == NULL || a.share == NULL || a.other == NULL) goto done;
  size_t small = 0, large = n;
  for (size_t i = 0; i < n; i++) {
    rest[i] = weights[i] / sum * (double)n;
    if (rest[i] < 1) stack[small++] = (uint32_t)i;
    else stack[--large] = (uint32_t)i;
  }
  while (small > 0 && large < n) { /* a small one's cell is filled up by a large one */
    uint32_t i = stack[--small], j = stack[large];
    a.share[i] = (float)rest[i];
    a.other[i] = j;
    rest[j] -= 1 - rest[i];
    if (rest[j] < 1) large++, stack[small++] = j;
  }
  while (large < n) a.share[stack[large]] = 1, a.other[stack[large]] = stack[large], large++;
  while (small > 0) { /* by rounding alone: 1 within it, or a weight of 0 that must not be drawn */
    uint32_t i = stack[--small];
    a.share[i] = weights[i] > 0;
    a.other[i] = (uint32_t)most;
  }
  *out = a;
  status = EV_OK;
done:
  ev_free(rest);
  ev_free(stack);
  if (status == EV_OK) return status;
  ev_alias_free(&a);
  return ev_fail(status, "out of memory: an alias table of %zu", n);
}

void ev_alias_free(ev_alias *a) {
  ev_free(a->share);
  ev_free(a->other);
  *a = (ev_alias){0};
}

uint32_t ev_alias_draw(const ev_alias *a, ev_rng *r) {
  uint32_t i = ev_rng_below(r, (uint32_t)a->n);
  return ev_rng_f64(r) < a->share[i] ? i : a->other[i];
}

/* The noise is −log e with e exponential, e = −log(1 − u). Once k are held, the worst of them is a bound: a place beats it
 * only if e < e^(logit − bound), and e >= u, so all but few are sorted out by a comparison with u. */
ev_status ev_gumbel_topk(uint32_t *out, size_t *n_out, const float *logits, size_t n, size_t k, ev_rng *r) {
  const ev_kernels *kernels = ev_kernels_now();
  *n_out = 0;
  for (size_t i = 0; i < n; i++)
    if (!(logits[i] < INFINITY)) return ev_fail(EV_EINVAL, "logit %zu is %g", i, logits[i]);
  size_t places = k < n ? k : n;
  float *best = ev_alloc(places, sizeof *best);
  if (best == NULL) return ev_fail(EV_ENOMEM, "out of memory: a sample of %zu", places);
  float keys[BLOCK], reach[BLOCK];
  for (size_t i = 0; i < n && places > 0; i += BLOCK) {
    size_t some = n - i < BLOCK ? n - i : BLOCK;
    bool full = *n_out == places;
    if (full) kernels->exp_sum(reach, logits + i, best[0], 1, some);
    for (size_t j = 0; j < some; j++) {
      double u = ev_rng_f64(r);
      keys[j] = full && u >= reach[j] * 1.0001f ? -INFINITY : (float)(logits[i + j] - log(u > 0 ? -log1p(-u) : 0x1p-54)); /* u is a multiple of 2^-53 */
    }
    ev_topk_offer(out, best, n_out, places, keys, some, (uint32_t)i);
  }
  ev_topk_finish(out, best, *n_out, places);
  for (size_t i = places; i < k; i++) out[i] = EV_NONE;
  ev_free(best);
  return EV_OK;
}
