/* feed_policies.c - slates for the simulated feed: at random, the best for everybody, the best for each, and sampled by score. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "../math/math.h"
#include "reward.h"

typedef struct wanted {
  const ev_feed *f;
  uint32_t *slates;
  float *propensity;
  const uint32_t *users;
  const ev_feed_scores *s;
  const float *mask;
  size_t places, n_items;
  float temperature;
  uint64_t seed, first;
  float *room; /* (threads, n_items) */
  atomic_int wrong;
} wanted;

static wanted want(const ev_feed *f, uint32_t *slates, float *propensity, const float *mask, uint64_t seed) {
  const ev_feed_options *o = ev_feed_opts(f);
  return (wanted){.f = f, .slates = slates, .propensity = propensity, .mask = mask, .places = (size_t)o->places, .n_items = (size_t)o->items, .seed = seed, .first = ev_feed_sessions(f)};
}

ev_status ev_feed_show_random(const ev_feed *f, uint32_t *slates, float *propensity, size_t n, uint64_t seed, const float *mask) {
  wanted w = want(f, slates, propensity, mask, seed);
  for (size_t row = 0; row < n; row++) {
    if (mask != NULL && mask[row] == 0) continue;
    uint32_t *slate = slates + row * w.places;
    ev_rng r;
    ev_rng_seed(&r, seed, w.first + row + 1);
    for (size_t p = 0; p < w.places; p++) {
      bool twice;
      do {
        slate[p] = ev_rng_below(&r, (uint32_t)w.n_items);
        twice = false;
        for (size_t q = 0; q < p; q++) twice |= slate[q] == slate[p];
      } while (twice);
      if (propensity != NULL) propensity[row * w.places + p] = 1 / (float)(w.n_items - p);
    }
  }
  return EV_OK;
}

ev_status ev_feed_show_top(const ev_feed *f, uint32_t *slates, size_t n, const float *scores, const float *mask) {
  wanted w = want(f, slates, NULL, mask, 0);
  uint32_t best[EV_FEED_PLACES];
  float score[EV_FEED_PLACES];
  ev_topk(best, score, scores, w.n_items, w.places);
  for (size_t row = 0; row < n; row++)
    if (mask == NULL || mask[row] != 0) memcpy(slates + row * w.places, best, w.places * sizeof *best);
  return EV_OK;
}

static void score_items(const wanted *w, float *out, uint32_t user) {
  const float *u = w->s->users + (size_t)user * w->s->dims;
  ev_dots(out, u, w->s->items, EV_FORM_F32, w->s->dims * sizeof(float), w->n_items, w->s->dims);
  for (size_t i = 0; i < w->n_items && w->s->bias != NULL; i++) out[i] += w->s->bias[i];
}

static void rank_rows(void *ctx, size_t begin, size_t end, int worker) {
  wanted *w = ctx;
  float *scores = w->room + (size_t)worker * w->n_items, best[EV_FEED_PLACES];
  for (size_t row = begin; row < end; row++) {
    if (w->mask != NULL && w->mask[row] == 0) continue;
    score_items(w, scores, w->users[row]);
    ev_topk(w->slates + row * w->places, best, scores, w->n_items, w->places);
  }
}

/* Each place drawn by its share of what is left, the scores' exponentials summed once. A share that rounding took the rest of
 * falls to the last that is left. */
static void sample_rows(void *ctx, size_t begin, size_t end, int worker) {
  wanted *w = ctx;
  float *e = w->room + (size_t)worker * w->n_items;
  for (size_t row = begin; row < end; row++) {
    if (w->mask != NULL && w->mask[row] == 0) continue;
    uint32_t *slate = w->slates + row * w->places;
    score_items(w, e, w->users[row]);
    ev_softmax(e, e, w->temperature, w->n_items);
    if (isnan(e[0])) {
      atomic_store(&w->wrong, 1);
      continue;
    }
    ev_rng r;
    ev_rng_seed(&r, w->seed, w->first + row + 1);
    double left = 0;
    for (size_t i = 0; i < w->n_items; i++) left += (double)e[i];
    for (size_t p = 0; p < w->places; p++) {
      double at = ev_rng_f64(&r) * left;
      uint32_t chosen = EV_NONE;
      for (uint32_t i = 0; i < w->n_items; i++) {
        if (e[i] <= 0) continue;
        chosen = i;
        if ((at -= (double)e[i]) < 0) break;
      }
      slate[p] = chosen;
      if (w->propensity != NULL) w->propensity[row * w->places + p] = chosen == EV_NONE ? 1 : (float)((double)e[chosen] / left);
      if (chosen == EV_NONE) continue; /* all that have a probability above 0 stand above */
      e[chosen] = 0;
      left = 0; /* summed anew: what is subtracted from a sum leaves its rounding there */
      for (size_t i = 0; i < w->n_items; i++) left += (double)e[i];
    }
  }
}

static ev_status over_rows(wanted *w, size_t n, ev_range_fn *fn) {
  w->room = ev_alloc((size_t)ev_threads(), w->n_items * sizeof(float));
  if (w->room == NULL) return EV_ENOMEM;
  ev_parallel_for(n, 64, fn, w);
  ev_free(w->room);
  return atomic_load(&w->wrong) ? ev_fail(EV_EINVAL, "a score is no number") : EV_OK;
}

ev_status ev_feed_show_ranked(const ev_feed *f, uint32_t *slates, const uint32_t *users, size_t n, const ev_feed_scores *s, const float *mask) {
  wanted w = want(f, slates, NULL, mask, 0);
  w.users = users;
  w.s = s;
  return over_rows(&w, n, rank_rows);
}

ev_status ev_feed_show_sampled(const ev_feed *f, uint32_t *slates, float *propensity, const uint32_t *users, size_t n, const ev_feed_scores *s, float temperature, uint64_t seed,
                               const float *mask) {
  if (!(temperature > 0 && temperature < INFINITY)) return ev_fail(EV_EINVAL, "a temperature of %g; it is above 0", (double)temperature);
  wanted w = want(f, slates, propensity, mask, seed);
  w.users = users;
  w.s = s;
  w.temperature = temperature;
  return over_rows(&w, n, sample_rows);
}
