/* forms.c - stored forms of a vector, the scalar reference of their kernels, and the public names of both.
 *
 * f16 is IEEE binary16, bf16 the upper half of a float; both round to nearest even, denormals kept. Every path gives the
 * bits of the reference here when it encodes or decodes. */
#include <math.h>

#include "kernels.h"

static const char *const form_names[] = {"f32", "f16", "bf16", "i8"};
static const char *const similarity_names[] = {"dot", "cosine", "l2"};

size_t ev_form_bytes(ev_form f) { return f == EV_FORM_F32 ? 4 : f == EV_FORM_I8 ? 1 : 2; }

const char *ev_form_name(ev_form f) { return form_names[f]; }

bool ev_form_find(ev_form *out, const char *name) {
  for (size_t i = 0; i < sizeof form_names / sizeof *form_names; i++)
    if (strcmp(form_names[i], name) == 0) return *out = (ev_form)i, true;
  return false;
}

const char *ev_similarity_name(ev_similarity s) { return similarity_names[s]; }

bool ev_similarity_find(ev_similarity *out, const char *name) {
  for (size_t i = 0; i < sizeof similarity_names / sizeof *similarity_names; i++)
    if (strcmp(similarity_names[i], name) == 0) return *out = (ev_similarity)i, true;
  return false;
}

/* ---- The reference -------------------------------------------------------------------------------------------*/
static void encode_f32(void *out, float *scale, const float *x, size_t d) {
  if (d > 0) memmove(out, x, d * sizeof *x);
  *scale = 1;
}

static void decode_f32(float *out, const void *x, float scale, size_t d) {
  (void)scale;
  if (d > 0) memmove(out, x, d * sizeof *out);
}

static void encode_f16(void *out, float *scale, const float *x, size_t d) {
  uint16_t *o = out;
  for (size_t i = 0; i < d; i++) o[i] = ev_to_f16(x[i]);
  *scale = 1;
}

static void encode_bf16(void *out, float *scale, const float *x, size_t d) {
  uint16_t *o = out;
  for (size_t i = 0; i < d; i++) o[i] = ev_to_bf16(x[i]);
  *scale = 1;
}

static void encode_i8(void *out, float *scale, const float *x, size_t d) {
  int8_t *o = out;
  float most = 0;
  for (size_t i = 0; i < d; i++)
    if (fabsf(x[i]) > most) most = fabsf(x[i]);
  *scale = most / 127;
  for (size_t i = 0; i < d; i++) o[i] = ev_to_i8(x[i], *scale); /* 0 / 0: all 0 */
}

static void decode_i8(float *out, const void *x, float scale, size_t d) {
  const int8_t *q = x;
  for (size_t i = 0; i < d; i++) out[i] = scale * (float)q[i];
}

#define SAME(x) (x)
/* For codes of type T read by READ; sums in S, of queries of type Q read by READ_Q. */
#define REFERENCE(form, Q, READ_Q, T, READ, S)                                                                              \
  static float dot_##form(const void *a, const void *b, size_t d) {                                                         \
    const Q *x = a;                                                                                                         \
    const T *y = b;                                                                                                         \
    S sum = 0;                                                                                                              \
    for (size_t i = 0; i < d; i++) sum += READ_Q(x[i]) * READ(y[i]);                                                        \
    return (float)sum;                                                                                                      \
  }                                                                                                                         \
  static void dots_##form(float *out, const void *q, const void *rows, size_t stride, size_t n, size_t d) {                 \
    for (size_t i = 0; i < n; i++) out[i] = dot_##form(q, (const char *)rows + i * stride, d);                              \
  }                                                                                                                         \
  static void dots_at_##form(float *out, const void *q, const void *rows, const uint32_t *ids, size_t stride, size_t n, size_t d) { \
    for (size_t i = 0; i < n; i++) out[i] = dot_##form(q, (const char *)rows + ids[i] * stride, d);                         \
  }
#define OF_SHORT(form, READ)                                                                                                \
  static void decode_##form(float *out, const void *x, float scale, size_t d) {                                             \
    const uint16_t *h = x;                                                                                                  \
    (void)scale;                                                                                                            \
    for (size_t i = 0; i < d; i++) out[i] = READ(h[i]);                                                                     \
  }                                                                                                                         \
  static float pair_##form(const void *a, const void *b, size_t d) {                                                        \
    const uint16_t *x = a, *y = b;                                                                                          \
    float sum = 0;                                                                                                          \
    for (size_t i = 0; i < d; i++) sum += READ(x[i]) * READ(y[i]);                                                          \
    return sum;                                                                                                             \
  }
#define DISTANCES(form, T, READ)                                                                                            \
  static void distances_##form(float *out, const void *q, const void *rows, size_t stride, size_t n, size_t d) {            \
    const float *x = q;                                                                                                     \
    for (size_t i = 0; i < n; i++) {                                                                                        \
      const T *y = (const T *)(const void *)((const char *)rows + i * stride);                                              \
      float sum = 0;                                                                                                        \
      for (size_t k = 0; k < d; k++) sum += (x[k] - READ(y[k])) * (x[k] - READ(y[k]));                                      \
      out[i] = sum;                                                                                                         \
    }                                                                                                                       \
  }
REFERENCE(f32, float, SAME, float, SAME, float)
REFERENCE(f16, float, SAME, uint16_t, ev_of_f16, float)
REFERENCE(bf16, float, SAME, uint16_t, ev_of_bf16, float)
REFERENCE(i8, int8_t, SAME, int8_t, SAME, int32_t)
OF_SHORT(f16, ev_of_f16)
OF_SHORT(bf16, ev_of_bf16)
DISTANCES(f32, float, SAME)
DISTANCES(f16, uint16_t, ev_of_f16)
DISTANCES(bf16, uint16_t, ev_of_bf16)

const ev_form_kernels ev_forms_scalar[4] = {
    {dot_f32, dot_f32, dots_f32, dots_at_f32, distances_f32, encode_f32, decode_f32, NULL, NULL},
    {dot_f16, pair_f16, dots_f16, dots_at_f16, distances_f16, encode_f16, decode_f16, NULL, NULL},
    {dot_bf16, pair_bf16, dots_bf16, dots_at_bf16, distances_bf16, encode_bf16, decode_bf16, NULL, NULL},
    {dot_i8, dot_i8, dots_i8, dots_at_i8, NULL, encode_i8, decode_i8, NULL, NULL},
};

/* ---- What is chosen --------------------------------------------------------------------------------------------*/
void ev_form_encode(void *out, float *scale, const float *x, ev_form f, size_t d) { ev_kernels_now()->forms[f]->encode(out, scale, x, d); }

void ev_form_decode(float *out, const void *x, float scale, ev_form f, size_t d) { ev_kernels_now()->forms[f]->decode(out, x, scale, d); }

void ev_dots(float *out, const void *q, const void *rows, ev_form f, size_t stride, size_t n, size_t d) {
  ev_kernels_now()->forms[f]->dots(out, q, rows, stride, n, d);
}

void ev_dots_at(float *out, const void *q, const void *rows, const uint32_t *ids, ev_form f, size_t stride, size_t n, size_t d) {
  ev_kernels_now()->forms[f]->dots_at(out, q, rows, ids, stride, n, d);
}

ev_dot_fn *ev_dot_of(ev_form f) { return ev_kernels_now()->forms[f]->dot; }

ev_dot_fn *ev_dot_pair_of(ev_form f) { return ev_kernels_now()->forms[f]->pair; }
