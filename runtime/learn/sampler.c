/* sampler.c - which items a step of training is told are not wanted.
 *
 *   q(i) = uniform / n + popularity · nᵢ^power / Σⱼ nⱼ^power,   nᵢ the interactions of i in the view
 * with the two shares made to sum to 1. power 0.75 as in Mikolov et al. 2013 (word2vec). */
#include <math.h>

#include "sampler.h"

#define TRIES 32 /* a user who has half of all items is avoided but once in 2^32 */

/* weights (n) of the mixture, summing to about 1. */
static ev_status mix(float *weights, const ev_csr *by_item, const ev_sampler_options *o) {
  size_t n = by_item->n_rows, n_known = 0;
  double sum = 0, both = o->uniform + o->popularity;
  if (!(o->uniform >= 0 && o->popularity >= 0 && both > 0 && both < INFINITY))
    return ev_fail(EV_EINVAL, "a sampler's shares %g and %g: none below 0, one above", o->uniform, o->popularity);
  if (!(o->power >= 0 && o->power <= 8)) return ev_fail(EV_EINVAL, "a sampler's power %g is not between 0 and 8", o->power);
  for (size_t i = 0; i < n; i++) {
    double count = (double)(by_item->ptr[i + 1] - by_item->ptr[i]);
    n_known += count > 0;
    if (count > 0) sum += pow(count, o->power);
  }
  size_t n_uniform = o->known_only ? n_known : n;
  if (n_uniform == 0 || (o->popularity > 0 && n_known == 0)) return ev_fail(EV_EINVAL, "no items to draw from");
  for (size_t i = 0; i < n; i++) {
    double count = (double)(by_item->ptr[i + 1] - by_item->ptr[i]), w = 0;
    if (count > 0 || !o->known_only) w += o->uniform / both / (double)n_uniform;
    if (count > 0 && o->popularity > 0) w += o->popularity / both * pow(count, o->power) / sum;
    weights[i] = (float)w;
  }
  return EV_OK;
}

ev_status ev_sampler_open(ev_sampler *s, const ev_view *v, const ev_sampler_options *o) {
  size_t n = v->by_item.n_rows;
  *s = (ev_sampler){.n = (uint32_t)n};
  if (n == 0 || n >= EV_NONE) return ev_fail(EV_EINVAL, "%zu items to draw from", n);
  s->threshold = -s->n % s->n;
  float *weights = ev_alloc(n, sizeof *weights);
  ev_alias alias = {0};
  s->log_q = ev_alloc(n, sizeof *s->log_q);
  ev_status status = weights == NULL || s->log_q == NULL ? EV_ENOMEM : mix(weights, &v->by_item, o);
  if (status == EV_OK && (o->popularity > 0 || o->known_only)) {
    s->cells = ev_alloc(n, sizeof *s->cells);
    status = s->cells == NULL ? EV_ENOMEM : ev_alias_new(&alias, weights, n);
    for (size_t i = 0; i < n && status == EV_OK; i++) s->cells[i] = (ev_sampler_cell){alias.share[i], alias.other[i]};
    ev_alias_free(&alias);
  }
  if (status == EV_OK) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += weights[i];
    for (size_t i = 0; i < n; i++) s->log_q[i] = (float)log(weights[i] / sum);
  }
  ev_free(weights);
  if (status != EV_OK) ev_sampler_close(s);
  return status;
}

void ev_sampler_close(ev_sampler *s) {
  ev_free(s->cells);
  ev_free(s->log_q);
  *s = (ev_sampler){0};
}

/* As ev_sorted_has, without a branch that a drawn item decides: those cost more than the whole draw. */
static inline bool among(const uint32_t *sorted, size_t n, uint32_t x) {
  if (n == 0) return false;
  for (size_t half; n > 1; n -= half) {
    half = n / 2;
    sorted = sorted[half] <= x ? sorted + half : sorted;
  }
  return *sorted == x;
}

uint32_t ev_sampler_draw_unseen(const ev_sampler *s, ev_rng *r, const uint32_t *seen, size_t n_seen) {
  uint32_t item = 0;
  for (int tries = 0; tries < TRIES; tries++) {
    item = ev_sampler_draw(s, r);
    if (!among(seen, n_seen, item)) return item;
  }
  for (uint32_t k = 0, i = item; k < s->n; k++, i = i + 1 < s->n ? i + 1 : 0)
    if (s->log_q[i] > -INFINITY && !among(seen, n_seen, i)) return i;
  return item;
}
