/* forms_body.h - every kernel of stored forms of one instruction set; the including file gives what dots_body.h asks for,
 * for the forms f32, f16, bf16, i8 and the families floats and wholes, and the conversions
 *   round_f16(out, v), round_bf16(out, v), round_i8(out, v, scale): store step_floats elements
 *   most(v, most), greatest(most): the largest |x| so far and at the end, NaN passed over
 * The last few elements of a vector go through the reference's conversions, which give the same bits. */
#define NAME f32
#define Q_FORM f32
#define R_FORM f32
#define OP product
#define FAMILY floats
#include "dots_body.h"

#define NAME f16
#define Q_FORM f32
#define R_FORM f16
#define OP product
#define FAMILY floats
#include "dots_body.h"

#define NAME bf16
#define Q_FORM f32
#define R_FORM bf16
#define OP product
#define FAMILY floats
#include "dots_body.h"

#define NAME i8
#define Q_FORM i8
#define R_FORM i8
#define OP wholes
#define FAMILY wholes
#include "dots_body.h"

#define NAME f16_pair
#define Q_FORM f16
#define R_FORM f16
#define OP product
#define FAMILY floats
#include "dots_body.h"

#define NAME bf16_pair
#define Q_FORM bf16
#define R_FORM bf16
#define OP product
#define FAMILY floats
#include "dots_body.h"

#define NAME f32_distance
#define Q_FORM f32
#define R_FORM f32
#define OP square
#define FAMILY floats
#include "dots_body.h"

#define NAME f16_distance
#define Q_FORM f32
#define R_FORM f16
#define OP square
#define FAMILY floats
#include "dots_body.h"

#define NAME bf16_distance
#define Q_FORM f32
#define R_FORM bf16
#define OP square
#define FAMILY floats
#include "dots_body.h"

TARGET static void encode_f16(void *out, float *scale, const float *x, size_t d) {
  uint16_t *o = out;
  size_t i = 0;
  for (; i + step_floats <= d; i += step_floats) round_f16(o + i, load_f32(x + i));
  for (; i < d; i++) o[i] = ev_to_f16(x[i]);
  *scale = 1;
}

TARGET static void encode_bf16(void *out, float *scale, const float *x, size_t d) {
  uint16_t *o = out;
  size_t i = 0;
  for (; i + step_floats <= d; i += step_floats) round_bf16(o + i, load_f32(x + i));
  for (; i < d; i++) o[i] = ev_to_bf16(x[i]);
  *scale = 1;
}

TARGET static void encode_i8(void *out, float *scale, const float *x, size_t d) {
  int8_t *o = out;
  size_t i = 0;
  acc_floats m = {0};
  for (; i + step_floats <= d; i += step_floats) m = most(load_f32(x + i), m);
  float all = greatest(m);
  for (; i < d; i++)
    if (fabsf(x[i]) > all) all = fabsf(x[i]);
  *scale = all / 127;
  for (i = 0; i + step_floats <= d; i += step_floats) round_i8(o + i, load_f32(x + i), *scale);
  for (; i < d; i++) o[i] = ev_to_i8(x[i], *scale);
}

TARGET static void decode_f16(float *out, const void *x, float scale, size_t d) {
  const uint16_t *h = x;
  size_t i = 0;
  (void)scale;
  for (; i + step_floats <= d; i += step_floats) store_f32(out + i, load_f16(h + i));
  for (; i < d; i++) out[i] = ev_of_f16(h[i]);
}

TARGET static void decode_bf16(float *out, const void *x, float scale, size_t d) {
  const uint16_t *h = x;
  size_t i = 0;
  (void)scale;
  for (; i + step_floats <= d; i += step_floats) store_f32(out + i, load_bf16(h + i));
  for (; i < d; i++) out[i] = ev_of_bf16(h[i]);
}

TARGET static void decode_i8(float *out, const void *x, float scale, size_t d) {
  const int8_t *q = x;
  size_t i = 0;
  for (; i + step_floats <= d; i += step_floats) store_f32(out + i, scaled_i8(q + i, scale));
  for (; i < d; i++) out[i] = scale * (float)q[i];
}

TARGET static void encode_f32(void *out, float *scale, const float *x, size_t d) {
  if (d > 0) memmove(out, x, d * sizeof *x);
  *scale = 1;
}

TARGET static void decode_f32(float *out, const void *x, float scale, size_t d) {
  (void)scale;
  if (d > 0) memmove(out, x, d * sizeof *out);
}

#define FORMS_TABLE                                                                                                      \
  {                                                                                                                      \
    {dot_f32, dot_f32, dots_f32, dots_at_f32, dots_f32_distance, encode_f32, decode_f32, NULL, NULL},                                \
        {dot_f16, dot_f16_pair, dots_f16, dots_at_f16, dots_f16_distance, encode_f16, decode_f16, NULL, NULL},                       \
        {dot_bf16, dot_bf16_pair, dots_bf16, dots_at_bf16, dots_bf16_distance, encode_bf16, decode_bf16, NULL, NULL},                \
        {dot_i8, dot_i8, dots_i8, dots_at_i8, NULL, encode_i8, decode_i8, NULL, NULL},                                               \
  }
