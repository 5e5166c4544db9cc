/* kmeans.h - centres of many vectors; private to this room. */
#ifndef EV_STORE_KMEANS_H
#define EV_STORE_KMEANS_H

#include "store.h"

/* out[i] = the c with the greatest x(i) · centre(c) + bias[c], the lower where they tie. For the nearest centre bias is
 * −|centre|² / 2. x (n, d), centres (k, d). One thread; tile (min(n, EV_NEAREST_ROWS) · EV_NEAREST_CENTRES) is overwritten. */
#define EV_NEAREST_ROWS 256
#define EV_NEAREST_CENTRES 512
void ev_nearest(uint32_t *out, const float *x, const float *centres, const float *bias, float *tile, size_t n, size_t k, size_t d);

/* Lloyd's k-means of x (n, d), n >= k >= 1. spherical: x are unit vectors (or zero), and so the centres become; bias is 0.
 * x are in random order: some rounds take the first of them.
 * @param[out] centres (k, d)  @param[out] bias (k)
 * Threaded; same seed, same bits for any thread count. EV_ENOMEM, EV_EINTR. */
ev_status ev_kmeans(float *centres, float *bias, const float *x, size_t n, size_t k, size_t d, bool spherical, unsigned n_rounds, uint64_t seed);

#endif
