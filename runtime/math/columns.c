/* columns.c - operations on whole columns of numbers: softmax, log-sum-exp, weighted sums.
 *
 * Sums are taken over blocks in float and over the blocks in double: a million small numbers add up to their sum. */
#include <math.h>

#include "kernels.h"

#define BLOCK 512

static bool has_nan(const float *x, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (x[i] != x[i]) return true;
  return false;
}

void ev_softmax(float *out, const float *x, float temperature, size_t n) {
  const ev_kernels *k = ev_kernels_now();
  float most = k->most(x, n);
  double sum = 0; /* NaN, or infinity less infinity, makes it NaN, and that all of them */
  for (size_t i = 0; i < n; i += BLOCK) sum += k->exp_sum(out + i, x + i, most, temperature, n - i < BLOCK ? n - i : BLOCK);
  k->scale(out, (float)(1 / sum), n);
}

float ev_logsumexp(const float *x, size_t n) {
  const ev_kernels *k = ev_kernels_now();
  float most = k->most(x, n), room[BLOCK];
  if (isinf(most)) return has_nan(x, n) ? NAN : most;
  double sum = 0;
  for (size_t i = 0; i < n; i += BLOCK) sum += k->exp_sum(room, x + i, most, 1, n - i < BLOCK ? n - i : BLOCK);
  return sum > 0 ? (float)(most + log(sum)) : NAN; /* a NaN made it one */
}

void ev_weighted_sum(float *out, const float *const *columns, const float *weights, size_t n_columns, size_t n) {
  const ev_kernels *k = ev_kernels_now();
  float room[2 * BLOCK]; /* out is written after all columns were read */
  for (size_t i = 0; i < n; i += 2 * BLOCK) {
    size_t some = n - i < 2 * BLOCK ? n - i : 2 * BLOCK;
    memset(room, 0, some * sizeof *room);
    for (size_t c = 0; c < n_columns; c++) k->axpy(room, columns[c] + i, weights[c], some);
    memcpy(out + i, room, some * sizeof *room);
  }
}
