/* kernels.h - the table of an instruction set's kernels; private to this room. */
#ifndef EV_MATH_KERNELS_H
#define EV_MATH_KERNELS_H

#include "math.h"

typedef struct ev_kernels {
  const char *name;
  float (*dot)(const float *a, const float *b, size_t n);
  void (*axpy)(float *out, const float *x, float alpha, size_t n);
  void (*scale)(float *out, float alpha, size_t n);
  float (*sum)(const float *x, size_t n);
  size_t (*above)(const float *x, size_t i, size_t n, float bound); /* next i with x[i] > bound, or n */
} ev_kernels;

const ev_kernels *ev_kernels_now(void);

#endif
