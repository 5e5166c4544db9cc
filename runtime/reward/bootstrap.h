/* bootstrap.h - resampling shared by metrics and comparisons; private to this room. */
#ifndef EV_REWARD_BOOTSTRAP_H
#define EV_REWARD_BOOTSTRAP_H

#include "../core/core.h"

/* Means of n_columns columns over n_resamples bootstrap samples of the rows. Resample b draws from stream b + 1 of the
 * seed, so the result does not depend on the threads. @param rows (n, n_columns) @param[out] means (n_resamples, n_columns) */
ev_status ev_bootstrap_means(double *means, const float *rows, size_t n, size_t n_columns, unsigned n_resamples, uint64_t seed);

/* The row numbers of resample b. @param[out] drawn (n) */
void ev_bootstrap_draw(uint32_t *drawn, size_t n, unsigned b, uint64_t seed);

/* Sorts x and gives its quantile by linear interpolation (NumPy's default). n > 0. */
double ev_quantile(double *x, size_t n, double q);

struct ev_difference;
/* Interval and p of a difference whose value is known, from the differences of resamples. Sorts x. n > 0. */
void ev_bootstrap_difference(struct ev_difference *out, double *x, size_t n, double confidence);

#endif
