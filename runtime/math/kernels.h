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

/* Of tensors; math.h says what they give (elements_body.h, rows_body.h). */
typedef struct ev_element_kernels {
  void (*map[EV_MAP_KINDS])(float *out, const float *x, float a, float b, size_t n);
  void (*slope[EV_MAP_KINDS])(float *out, const float *g, const float *u, float a, float b, bool add, size_t n);
  void (*zip[EV_ZIP_KINDS])(float *out, size_t out_row, const ev_plane *x, const ev_plane *y, bool add, size_t rows, size_t cols);
  void (*unzip[2][EV_ZIP_KINDS])(float *out, size_t out_row, size_t out_step, const float *g, size_t g_row, const ev_plane *x, const ev_plane *y, bool add, size_t rows, size_t cols);
  void (*softmax)(float *out, const float *x, size_t rows, size_t cols);
  void (*log_softmax)(float *out, const float *x, size_t rows, size_t cols);
  void (*logsumexp)(float *out, const float *x, size_t rows, size_t cols);
  void (*max)(float *out, const float *x, size_t rows, size_t cols);
  void (*softmax_back)(float *out, const float *g, const float *y, bool add, size_t rows, size_t cols);
  void (*log_softmax_back)(float *out, const float *g, const float *y, bool add, size_t rows, size_t cols);
  void (*logsumexp_back)(float *out, const float *g, const float *x, const float *y, bool add, size_t rows, size_t cols);
  void (*max_back)(float *out, const float *g, const float *x, const float *y, bool add, size_t rows, size_t cols);
  void (*normalise)(float *out, float *inverse, const float *x, float epsilon, size_t rows, size_t cols);
  void (*normalise_back)(float *out, const float *g, const float *y, const float *inverse, bool add, size_t rows, size_t cols);
  void (*layer_norm)(float *out, float *stats, const float *x, const float *gain, const float *bias, float epsilon, size_t rows, size_t cols);
  void (*layer_norm_back)(float *out, float *d_gain, float *d_bias, const float *g, const float *x, const float *stats, const float *gain, bool add, size_t rows, size_t cols);
  void (*sparse_rows)(float *out, const uint64_t *ptr, const uint32_t *idx, const float *values, const float *x, size_t n_rows, size_t begin, size_t stop, size_t d, bool add);
  void (*gru_cell)(float *out, float *keep, const float *product, const float *bias, const float *h, size_t d);
  void (*gru_cell_back)(float *dh, float *product, float *keep, const float *h, size_t d);
  void (*dropout)(float *out, const float *x, uint64_t seed, uint64_t place, float p, bool add, size_t n);
} ev_element_kernels;

/* Small products and attention; math.h says what they give. */
#define EV_FAR 512 /* floats from one row to the next that are far */
typedef struct ev_tile_kernels {
  void (*product)(float *out, size_t ld_out, const float *a, size_t a_row, size_t a_col, const float *b, size_t ld_b, bool add, size_t m, size_t n, size_t k);
  void (*product_far)(float *out, size_t ld_out, const float *a, size_t a_row, size_t a_col, const float *b, size_t b_row, size_t b_col, bool add, size_t m, size_t n, size_t k);
  void (*attend)(float *out, float *keep, const float *q, const float *k, const float *v, const ev_head *h);
  void (*attend_back)(float *dq, float *dk, float *dv, const bool *add, const float *q, const float *k, const float *v, const float *out, const float *keep, const float *grad, const ev_head *h);
  void (*scaled)(float *out, const float *x, float alpha, size_t n);
} ev_tile_kernels;

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
  const ev_element_kernels *elements;
  const ev_tile_kernels *tiles;
} ev_kernels;

extern const ev_form_kernels ev_forms_scalar[4];
extern const ev_element_kernels ev_elements_plain; /* of four floats on every machine */
extern const ev_tile_kernels ev_tiles_plain;
#if defined __x86_64__
extern const ev_form_kernels ev_forms_avx2[4], ev_forms_avx512[4], ev_form_i8_vnni;
extern const ev_element_kernels ev_elements_avx2, ev_elements_avx512;
extern const ev_tile_kernels ev_tiles_avx2, ev_tiles_avx512;
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
