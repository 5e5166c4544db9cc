/* vector_avx512.h - a vector of 16 floats, and what can be done with it; private to this room. vector_plain.h says what. */
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))

typedef __m512 V;
typedef int32_t VI __attribute__((vector_size(64)));
typedef uint32_t VU __attribute__((vector_size(64)));
typedef __mmask16 VM;
enum { W = 16 };

INLINE VM first_of(size_t n) { return (VM)((1u << n) - 1); }
INLINE V load(const float *p) { return _mm512_loadu_ps(p); }
INLINE V load_part(const float *p, size_t n) { return _mm512_maskz_loadu_ps(first_of(n), p); }
INLINE void store(float *p, V v) { _mm512_storeu_ps(p, v); }
INLINE void store_part(float *p, V v, size_t n) { _mm512_mask_storeu_ps(p, first_of(n), v); }
INLINE V first(V v, size_t n) { return _mm512_maskz_mov_ps(first_of(n), v); }
INLINE V splat(float x) { return _mm512_set1_ps(x); }
INLINE V mul_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
INLINE V larger(V a, V b) { return _mm512_max_ps(a, b); }
INLINE V smaller(V a, V b) { return _mm512_min_ps(a, b); }
INLINE V root(V v) { return _mm512_maskz_sqrt_ps(0xffff, v); }
INLINE VM below(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE VM equal(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE VM below_u(VU a, VU b) { return _mm512_cmplt_epu32_mask((__m512i)a, (__m512i)b); }
INLINE V pick(VM m, V a, V b) { return _mm512_mask_blend_ps(m, b, a); }
INLINE V two_to(V p, V k) { return _mm512_maskz_scalef_ps(0xffff, p, k); }

/* Halves, then quarters, and so on. */
INLINE float total(V v) {
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

INLINE float largest(V v) {
  __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
