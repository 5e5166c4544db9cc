/* clusters.c - vectors by the k-means centre they are nearest to: kinds of items where the data name none. */
#include <string.h>

#include "kmeans.h"

typedef struct sorting {
  uint32_t *out;
  const float *x, *centres, *bias;
  size_t k, d;
  _Atomic int failed;
} sorting;

static void sort_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sorting *s = ctx;
  float *tile = ev_alloc(EV_NEAREST_ROWS, EV_NEAREST_CENTRES * sizeof *tile);
  if (tile == NULL) s->failed = EV_ENOMEM;
  else ev_nearest(s->out + begin, s->x + begin * s->d, s->centres, s->bias, tile, end - begin, s->k, s->d);
  ev_free(tile);
}

ev_status ev_clusters(uint32_t *out, const float *x, size_t n, size_t d, size_t k, unsigned n_rounds, uint64_t seed) {
  if (k == 0 || d == 0) return ev_fail(EV_EINVAL, "%zu clusters of vectors of %zu dimensions", k, d);
  if (k > n) k = n;
  if (n == 0) return EV_OK;
  float *centres = ev_alloc(k, d * sizeof *centres), *bias = ev_alloc(k, sizeof *bias), *shuffled = ev_alloc(n, d * sizeof *shuffled);
  uint32_t *order = ev_alloc(n, sizeof *order);
  ev_status status = centres == NULL || bias == NULL || shuffled == NULL || order == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    ev_rng r;
    ev_rng_seed(&r, seed, 21);
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
      size_t j = ev_rng_below(&r, (uint32_t)i);
      uint32_t other = order[i - 1];
      order[i - 1] = order[j];
      order[j] = other;
    }
    for (size_t i = 0; i < n; i++) memcpy(shuffled + i * d, x + order[i] * d, d * sizeof *x);
    status = ev_kmeans(centres, bias, shuffled, n, k, d, true, n_rounds, seed);
  }
  if (status == EV_OK) {
    sorting s = {out, x, centres, bias, k, d, EV_OK};
    ev_parallel_for(n, EV_NEAREST_ROWS, sort_some, &s);
    status = (ev_status)s.failed;
  }
  void *blocks[] = {centres, bias, shuffled, order};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  return status;
}
