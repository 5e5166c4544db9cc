/* vector_plain.h - a vector of four floats in the compiler's own terms, for every machine; private to this room. Whoever
 * includes this or one of its two siblings writes a kernel once for all of them.
 *
 *   V, VI, VU, VM   W floats, as many int32 and uint32 (cast to and from V: the bits), and a mask
 *   load store      of W floats anywhere; _part: of the first n < W of them, the rest of the vector 0
 *   first           the first n < W of a vector, the rest 0
 *   splat           one number in all places
 *   mul_add         a b + c, rounded once where the machine can
 *   larger smaller  b where one of the two is no number
 *   below equal     false where one is no number; below_u: of unsigned whole numbers
 *   pick            a where the mask holds, else b
 *   two_to          p 2^k for whole k from −160 to 160, right also where the result is denormal, 0 or infinite
 *   total largest   of the W numbers; the order of summation is fixed */
#include <math.h>
#include <string.h>

#define TARGET
#define INLINE static inline __attribute__((always_inline))

typedef float V __attribute__((vector_size(16)));
typedef int32_t VI __attribute__((vector_size(16)));
typedef uint32_t VU __attribute__((vector_size(16)));
typedef VI VM;
enum { W = 4 };

INLINE V load(const float *p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE V load_part(const float *p, size_t n) {
  V v = {0};
  for (size_t i = 0; i < n && i < W; i++) v[i] = p[i];
  return v;
}

INLINE void store(float *p, V v) { memcpy(p, &v, sizeof v); }

INLINE void store_part(float *p, V v, size_t n) {
  for (size_t i = 0; i < n && i < W; i++) p[i] = v[i];
}

INLINE V first(V v, size_t n) {
  for (size_t i = n; i < W; i++) v[i] = 0;
  return v;
}

INLINE V splat(float x) { return (V){x, x, x, x}; }
#if defined __aarch64__
#include <arm_neon.h>
INLINE V mul_add(V a, V b, V c) { return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
INLINE V root(V v) { return (V)vsqrtq_f32((float32x4_t)v); }
#else
INLINE V mul_add(V a, V b, V c) { return a * b + c; }
INLINE V root(V v) { return (V){sqrtf(v[0]), sqrtf(v[1]), sqrtf(v[2]), sqrtf(v[3])}; }
#endif
INLINE VM below(V a, V b) { return (VM)(a < b); }
INLINE VM equal(V a, V b) { return (VM)(a == b); }
INLINE VM below_u(VU a, VU b) { return (VM)(a < b); }
INLINE V pick(VM m, V a, V b) { return (V)((m & (VI)a) | (~m & (VI)b)); }
INLINE V larger(V a, V b) { return pick((VM)(a > b), a, b); }
INLINE V smaller(V a, V b) { return pick((VM)(a < b), a, b); }

INLINE V two_to(V p, V k) {
  VI e = __builtin_convertvector(k, VI), half = e >> 1;
  return p * (V)((VU)(half + 127) << 23) * (V)((VU)(e - half + 127) << 23);
}

INLINE float total(V v) { return (v[0] + v[2]) + (v[1] + v[3]); }

INLINE float largest(V v) {
  float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
  return a > b ? a : b;
}
