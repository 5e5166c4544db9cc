/* forms_neon.c - kernels of stored forms for NEON, which every aarch64 has. */
#if defined __aarch64__
#include <arm_neon.h>
#include <math.h>

#include "kernels.h"

#define TARGET
#define INLINE static inline __attribute__((always_inline))
#define AHEAD 12

typedef float type_f32;
typedef uint16_t type_f16, type_bf16;
typedef int8_t type_i8;
typedef float32x4_t acc_floats, vec_floats;
typedef int32x4_t acc_wholes;
typedef int8x16_t vec_wholes;
enum { step_floats = 4, step_wholes = 16 };

INLINE float32x4_t load_f32(const float *p) { return vld1q_f32(p); }
INLINE float32x4_t end_f32(const float *p, size_t n) {
  float room[4] = {0};
  memcpy(room, p, 4 * n);
  return vld1q_f32(room);
}
INLINE uint16x4_t load_short(const uint16_t *p) {
  uint16x4_t v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE uint16x4_t end_short(const uint16_t *p, size_t n) {
  uint16_t room[4] = {0};
  memcpy(room, p, 2 * n);
  return vld1_u16(room);
}
INLINE float32x4_t widen_f16(uint16x4_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }
INLINE float32x4_t load_f16(const uint16_t *p) { return widen_f16(load_short(p)); }
INLINE float32x4_t end_f16(const uint16_t *p, size_t n) { return widen_f16(end_short(p, n)); }
INLINE float32x4_t load_bf16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(load_short(p), 16)); }
INLINE float32x4_t end_bf16(const uint16_t *p, size_t n) { return vreinterpretq_f32_u32(vshll_n_u16(end_short(p, n), 16)); }
INLINE int8x16_t load_i8(const int8_t *p) { return vld1q_s8(p); }
INLINE int8x16_t end_i8(const int8_t *p, size_t n) {
  int8_t room[16] = {0};
  memcpy(room, p, n);
  return vld1q_s8(room);
}

INLINE float32x4_t add_product(float32x4_t acc, float32x4_t q, float32x4_t r) { return vfmaq_f32(acc, q, r); }
INLINE float32x4_t add_square(float32x4_t acc, float32x4_t q, float32x4_t r) { return vfmaq_f32(acc, vsubq_f32(q, r), vsubq_f32(q, r)); }
INLINE int32x4_t add_wholes(int32x4_t acc, int8x16_t q, int8x16_t r) {
  acc = vpadalq_s16(acc, vmull_s8(vget_low_s8(q), vget_low_s8(r)));
  return vpadalq_s16(acc, vmull_high_s8(q, r));
}
INLINE float32x4_t plus_floats(float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }
INLINE int32x4_t plus_wholes(int32x4_t a, int32x4_t b) { return vaddq_s32(a, b); }
INLINE int32_t shift_floats(const void *q, size_t d) { return (void)q, (void)d, 0; }
INLINE int32_t shift_wholes(const void *q, size_t d) { return (void)q, (void)d, 0; }

/* Neighbours first. */
INLINE void sum4_floats(float *out, float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d, int32_t shift) {
  (void)shift;
  vst1q_f32(out, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}
INLINE float sum1_floats(float32x4_t a, int32_t shift) {
  (void)shift;
  a = vpaddq_f32(a, a);
  return vgetq_lane_f32(vpaddq_f32(a, a), 0);
}
INLINE void sum4_wholes(float *out, int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d, int32_t shift) {
  (void)shift;
  vst1q_f32(out, vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))));
}
INLINE float sum1_wholes(int32x4_t a, int32_t shift) {
  (void)shift;
  return (float)vaddvq_s32(a);
}

INLINE void store_f32(float *out, float32x4_t v) { vst1q_f32(out, v); }
INLINE void store_short(uint16_t *out, uint16x4_t v) { memcpy(out, &v, sizeof v); }
INLINE void round_f16(uint16_t *out, float32x4_t v) { store_short(out, vreinterpret_u16_f16(vcvt_f16_f32(v))); }

INLINE void round_bf16(uint16_t *out, float32x4_t v) {
  uint32x4_t b = vreinterpretq_u32_f32(v), last = vandq_u32(vshrq_n_u32(b, 16), vdupq_n_u32(1));
  uint32x4_t r = vaddq_u32(b, vaddq_u32(last, vdupq_n_u32(0x7fff)));
  r = vbslq_u32(vceqq_f32(v, v), r, vorrq_u32(b, vdupq_n_u32(0x400000)));
  store_short(out, vshrn_n_u32(r, 16));
}

INLINE void round_i8(int8_t *out, float32x4_t v, float scale) {
  v = vdivq_f32(v, vdupq_n_f32(scale));
  v = vmaxq_f32(vminq_f32(v, vdupq_n_f32(127)), vdupq_n_f32(-127));
  int32x4_t w = vcvtnq_s32_f32(v); /* NaN gives 0 */
  int8x8_t bytes = vmovn_s16(vcombine_s16(vmovn_s32(w), vdup_n_s16(0)));
  memcpy(out, &bytes, 4);
}

INLINE float32x4_t scaled_i8(const int8_t *q, float scale) {
  int8x8_t bytes = vdup_n_s8(0);
  memcpy(&bytes, q, 4);
  return vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))), scale);
}

INLINE float32x4_t most(float32x4_t v, float32x4_t m) { return vmaxnmq_f32(vabsq_f32(v), m); } /* the number where one is NaN */
INLINE float greatest(float32x4_t m) { return vmaxvq_f32(m); }

#include "forms_body.h"

const ev_form_kernels ev_forms_neon[4] = FORMS_TABLE;
#endif
