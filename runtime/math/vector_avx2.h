/* vector_avx2.h - a vector of 8 floats, and what can be done with it; private to this room. vector_plain.h says what. */
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))

typedef __m256 V;
typedef int32_t VI __attribute__((vector_size(32)));
typedef uint32_t VU __attribute__((vector_size(32)));
typedef __m256 VM;
enum { W = 8 };

INLINE __m256i first_of(size_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
INLINE V load(const float *p) { return _mm256_loadu_ps(p); }
INLINE V load_part(const float *p, size_t n) { return _mm256_maskload_ps(p, first_of(n)); }
INLINE void store(float *p, V v) { _mm256_storeu_ps(p, v); }
INLINE void store_part(float *p, V v, size_t n) { _mm256_maskstore_ps(p, first_of(n), v); }
INLINE V first(V v, size_t n) { return _mm256_and_ps(v, _mm256_castsi256_ps(first_of(n))); }
INLINE V splat(float x) { return _mm256_set1_ps(x); }
INLINE V mul_add(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
INLINE V larger(V a, V b) { return _mm256_max_ps(a, b); }
INLINE V smaller(V a, V b) { return _mm256_min_ps(a, b); }
INLINE V root(V v) { return _mm256_sqrt_ps(v); }
INLINE VM below(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
INLINE VM equal(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
INLINE VM below_u(VU a, VU b) { return (VM)(a < b); }
INLINE V pick(VM m, V a, V b) { return _mm256_blendv_ps(b, a, m); }
INLINE V two_to(V p, V k) {
  VI e = (VI)_mm256_cvtps_epi32(k), half = e >> 1;
  return p * (V)((VU)(half + 127) << 23) * (V)((VU)(e - half + 127) << 23);
}

/* Halves, then quarters, and so on. */
INLINE float total(V v) {
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

INLINE float largest(V v) {
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
