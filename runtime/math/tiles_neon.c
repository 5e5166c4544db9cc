/* tiles_neon.c - small products and attention for NEON. */
#if defined __aarch64__
#include <arm_neon.h>
#include <math.h>

#include "kernels.h"

#define TARGET
#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(16)))
#define TABLE ev_tiles_neon

typedef float32x4_t V;
typedef int32_t VI __attribute__((vector_size(16)));
enum { W = 4 };

INLINE V load(const float *p) { return vld1q_f32(p); }
INLINE V load_part(const float *p, size_t n) {
  float room[4] = {0};
  memcpy(room, p, 4 * n);
  return vld1q_f32(room);
}
INLINE void store(float *p, V v) { vst1q_f32(p, v); }
INLINE void store_part(float *p, V v, size_t n) { memcpy(p, &v, 4 * n); }
INLINE V splat(float x) { return vdupq_n_f32(x); }
INLINE V mul_add(V a, V b, V c) { return vfmaq_f32(c, a, b); }
INLINE V larger(V a, V b) { return vmaxq_f32(a, b); }
INLINE float total(V v) { return vaddvq_f32(v); }

#include "tiles_body.h"
#endif
