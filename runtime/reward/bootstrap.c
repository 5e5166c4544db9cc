/* bootstrap.c - resampling of users (Efron 1979): means of many columns at once, and paired differences. */
#include "bootstrap.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "reward.h"

void ev_bootstrap_draw(uint32_t *drawn, size_t n, unsigned b, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, (uint64_t)b + 1);
  for (size_t i = 0; i < n; i++) drawn[i] = ev_rng_below(&r, (uint32_t)n);
}

typedef struct resampling {
  double *means;
  const float *rows;
  size_t n, n_columns;
  uint64_t seed;
} resampling;

static void resample(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const resampling *s = ctx;
  for (size_t b = begin; b < end; b++) {
    ev_rng r;
    double *sum = s->means + b * s->n_columns;
    ev_rng_seed(&r, s->seed, b + 1);
    memset(sum, 0, s->n_columns * sizeof *sum);
    for (size_t i = 0; i < s->n; i++) {
      const float *row = s->rows + (size_t)ev_rng_below(&r, (uint32_t)s->n) * s->n_columns;
      for (size_t c = 0; c < s->n_columns; c++) sum[c] += row[c];
    }
    for (size_t c = 0; c < s->n_columns; c++) sum[c] /= (double)s->n;
  }
}

ev_status ev_bootstrap_means(double *means, const float *rows, size_t n, size_t n_columns, unsigned n_resamples, uint64_t seed) {
  if (n == 0 || n > UINT32_MAX) return ev_fail(EV_EINVAL, "a bootstrap of %zu rows", n);
  resampling s = {means, rows, n, n_columns, seed};
  ev_parallel_for(n_resamples, 4, resample, &s);
  return EV_OK;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double ev_quantile(double *x, size_t n, double q) {
  qsort(x, n, sizeof *x, by_value);
  double at = q * (double)(n - 1);
  size_t low = (size_t)at;
  if (low + 1 >= n) return x[n - 1];
  return x[low] + (at - (double)low) * (x[low + 1] - x[low]);
}

void ev_bootstrap_difference(ev_difference *out, double *x, size_t n, double confidence) {
  size_t below = 0, above = 0;
  for (size_t i = 0; i < n; i++) below += x[i] <= 0, above += x[i] >= 0;
  double least = 1 / ((double)n + 1), p = 2 * (double)(below < above ? below : above) / (double)n;
  out->p = p > 1 ? 1 : p < least ? least : p;
  out->low = ev_quantile(x, n, (1 - confidence) / 2);
  out->high = ev_quantile(x, n, (1 + confidence) / 2);
}

ev_status ev_paired_bootstrap(ev_difference *out, const float *a, const float *b, size_t n, unsigned n_bootstrap, double confidence, uint64_t seed) {
  *out = (ev_difference){0};
  if (n == 0) return ev_fail(EV_EINVAL, "a comparison of no users");
  if (n_bootstrap == 0 || !(confidence > 0 && confidence < 1)) return ev_fail(EV_EINVAL, "%u resamples at confidence %g", n_bootstrap, confidence);
  float *d = ev_alloc(n, sizeof *d);
  double *means = ev_alloc(n_bootstrap, sizeof *means);
  ev_status status = d == NULL || means == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) d[i] = b[i] - a[i], sum += d[i];
    out->value = sum / (double)n;
    status = ev_bootstrap_means(means, d, n, 1, n_bootstrap, seed);
  }
  if (status == EV_OK) ev_bootstrap_difference(out, means, n_bootstrap, confidence);
  ev_free(d);
  ev_free(means);
  return status;
}
