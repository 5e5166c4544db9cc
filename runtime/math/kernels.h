/* kernels.h - the table of an instruction set's kernels; private to this room. */
#ifndef EV_MATH_KERNELS_H
#define EV_MATH_KERNELS_H

#include <string.h>

#include "math.h"

/* Of one stored form. */
typedef struct ev_form_kernels {
  ev_dot_fn *dot, *pair; /* query · code; code · code */
  void (*dots)(float *out, const void *q, const void *rows, size_t stride, size_t n, size_t d);
  void (*dots_at)(float *out, const void *q, const void *rows, const uint32_t *ids, size_t stride, size_t n, size_t d);
  void (*distances)(float *out, const void *q, const void *rows, size_t stride, size_t n, size_t d); /* Σ (q − r)², q f32; i8: NULL */
  void (*encode)(void *out, float *scale, const float *x, size_t d);
  void (*decode)(float *out, const void *x, float scale, size_t d);
  /* Many queries with many rows, where that is faster than one after another; else NULL. pack takes n rows (those of the
   * list, or in order) into (n rounded up to 64, d rounded up to 4) bytes; products gives (m, n) of m queries, zero padded. */
  void (*pack)(void *out, const void *rows, const uint32_t *list, size_t stride, size_t n, size_t d);
  void (*products)(float *out, const void *q, size_t q_stride, size_t m, const void *packed, size_t n, size_t d);
} ev_form_kernels;

typedef struct ev_kernels {
  const char *name;
  void (*axpy)(float *out, const float *x, float alpha, size_t n);
  void (*scale)(float *out, float alpha, size_t n);
  float (*sum)(const float *x, size_t n);
  float (*most)(const float *x, size_t n);                          /* NaN skipped; n = 0 gives −inf */
  float (*exp_sum)(float *out, const float *x, float shift, float temperature, size_t n); /* out = e^((x − shift) / temperature); its sum */
  size_t (*above)(const float *x, size_t i, size_t n, float bound); /* next i with x[i] > bound, or n */
  void (*affine)(float *out, float alpha, const float *scales, const float *bias, size_t n); /* out = out · alpha · scales + bias; either may be NULL */
  /* out[w] = alpha Σ_e weights[idx[e]] x[idx[e] · stride + w] + beta out[w], in the order of e; beta 0: out is not read */
  void (*gather)(float *out, const float *x, size_t stride, const uint32_t *idx, const float *weights, size_t n, float alpha, float beta, size_t width);
  const ev_form_kernels *forms[4];                                  /* by ev_form */
} ev_kernels;

extern const ev_form_kernels ev_forms_scalar[4];
#if defined __x86_64__
extern const ev_form_kernels ev_forms_avx2[4], ev_forms_avx512[4], ev_form_i8_vnni;
#elif defined __aarch64__
extern const ev_form_kernels ev_forms_neon[4];
#endif

const ev_kernels *ev_kernels_now(void);

/* ev_topk_offer, of ids in a list, ascending (NULL: first, first + 1, …); and all of one heap offered to another. */
void ev_topk_offer_at(uint32_t *ids, float *best, size_t *used, size_t k, const float *scores, size_t n, const uint32_t *list, uint32_t first);
void ev_topk_merge(uint32_t *ids, float *best, size_t *used, size_t k, const uint32_t *from_ids, const float *from, size_t n);

/* ---- Bits of the short forms: the reference, and the ends that vectors leave over ----------------------------*/
static inline float ev_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline uint32_t ev_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float ev_of_bf16(uint16_t h) { return ev_of_bits((uint32_t)h << 16); }

/* To the nearest, ties to even; NaN stays one and becomes quiet. */
static inline uint16_t ev_to_bf16(float x) {
  uint32_t b = ev_bits(x);
  if ((b & 0x7fffffff) > 0x7f800000) return (uint16_t)(b >> 16 | 0x40);
  return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

static inline float ev_of_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
  if (rest >= 0x7c00) return ev_of_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13 | (rest > 0x7c00 ? 0x400000 : 0)); /* infinity, NaN */
  if (rest < 0x400) return ev_of_bits(sign | ev_bits((float)rest * 0x1p-24f));                               /* denormal: exact */
  return ev_of_bits(sign | ((rest << 13) + (112u << 23)));
}

static inline uint16_t ev_to_f16(float x) {
  uint32_t b = ev_bits(x), sign = b >> 16 & 0x8000, rest = b & 0x7fffffff;
  if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
  if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more round to infinity */
  if (rest < 0x38800000)                                    /* below 2^-14: adding 0.5 puts the last bit kept at the end of the fraction */
    return (uint16_t)(sign | (ev_bits(ev_of_bits(rest) + 0.5f) - 0x3f000000));
  return (uint16_t)(sign | ((rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13));
}

/* x / scale to the nearest whole number in [−127, 127]; 0 where there is none. */
static inline int8_t ev_to_i8(float x, float scale) {
  float v = x / scale;
  v = v > 127 ? 127 : v < -127 ? -127 : v == v ? v : 0;
  return (int8_t)((v + 0x1.8p23f) - 0x1.8p23f); /* the sum rounds to nearest even */
}

#endif
