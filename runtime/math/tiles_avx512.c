/* tiles_avx512.c - small products and attention for AVX-512. */
#if defined __x86_64__
#include <immintrin.h>
#include <math.h>

#include "kernels.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64)))
#define TABLE ev_tiles_avx512

typedef __m512 V;
typedef int32_t VI __attribute__((vector_size(64)));
enum { W = 16 };

INLINE __mmask16 first_of(size_t n) { return (__mmask16)((1u << n) - 1); }
INLINE V load(const float *p) { return _mm512_loadu_ps(p); }
INLINE V load_part(const float *p, size_t n) { return _mm512_maskz_loadu_ps(first_of(n), p); }
INLINE void store(float *p, V v) { _mm512_storeu_ps(p, v); }
INLINE void store_part(float *p, V v, size_t n) { _mm512_mask_storeu_ps(p, first_of(n), v); }
INLINE V splat(float x) { return _mm512_set1_ps(x); }
INLINE V mul_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
INLINE V larger(V a, V b) { return _mm512_max_ps(a, b); }
INLINE float total(V v) { return _mm512_reduce_add_ps(v); }

#include "tiles_body.h"
#endif
