/* tiles_avx2.c - small products and attention for AVX2 with FMA. */
#if defined __x86_64__
#include <immintrin.h>
#include <math.h>

#include "kernels.h"

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(32)))
#define TABLE ev_tiles_avx2

typedef __m256 V;
typedef int32_t VI __attribute__((vector_size(32)));
enum { W = 8 };

INLINE __m256i first_of(size_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
INLINE V load(const float *p) { return _mm256_loadu_ps(p); }
INLINE V load_part(const float *p, size_t n) { return _mm256_maskload_ps(p, first_of(n)); }
INLINE void store(float *p, V v) { _mm256_storeu_ps(p, v); }
INLINE void store_part(float *p, V v, size_t n) { _mm256_maskstore_ps(p, first_of(n), v); }
INLINE V splat(float x) { return _mm256_set1_ps(x); }
INLINE V mul_add(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
INLINE V larger(V a, V b) { return _mm256_max_ps(a, b); }
INLINE float total(V v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#include "tiles_body.h"
#endif
