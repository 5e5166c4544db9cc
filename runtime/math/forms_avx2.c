/* forms_avx2.c - kernels of stored forms for AVX2 with FMA and F16C. */
#if defined __x86_64__
#include <immintrin.h>
#include <math.h>

#include "kernels.h"

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define AHEAD 12

typedef float type_f32;
typedef uint16_t type_f16, type_bf16;
typedef int8_t type_i8;
typedef __m256 acc_floats, vec_floats;
typedef __m256i acc_wholes, vec_wholes;
enum { step_floats = 8, step_wholes = 16 };

INLINE __m256 load_f32(const float *p) { return _mm256_loadu_ps(p); }
INLINE __m256 end_f32(const float *p, size_t n) {
  return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}
INLINE __m128i end_short(const void *p, size_t bytes) { /* at most 16 */
  char room[16] = {0};
  memcpy(room, p, bytes);
  return _mm_loadu_si128((const void *)room);
}
INLINE __m256 load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
INLINE __m256 end_f16(const uint16_t *p, size_t n) { return _mm256_cvtph_ps(end_short(p, 2 * n)); }
INLINE __m256 widen_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
INLINE __m256 load_bf16(const uint16_t *p) { return widen_bf16(_mm_loadu_si128((const void *)p)); }
INLINE __m256 end_bf16(const uint16_t *p, size_t n) { return widen_bf16(end_short(p, 2 * n)); }
INLINE __m256i load_i8(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)p)); }
INLINE __m256i end_i8(const int8_t *p, size_t n) { return _mm256_cvtepi8_epi16(end_short(p, n)); }

INLINE __m256 add_product(__m256 acc, __m256 q, __m256 r) { return _mm256_fmadd_ps(q, r, acc); }
INLINE __m256 add_square(__m256 acc, __m256 q, __m256 r) { return _mm256_fmadd_ps(_mm256_sub_ps(q, r), _mm256_sub_ps(q, r), acc); }
INLINE __m256i add_wholes(__m256i acc, __m256i q, __m256i r) { return _mm256_add_epi32(acc, _mm256_madd_epi16(q, r)); }
INLINE __m256 plus_floats(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
INLINE __m256i plus_wholes(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
INLINE int32_t shift_floats(const void *q, size_t d) { return (void)q, (void)d, 0; }
INLINE int32_t shift_wholes(const void *q, size_t d) { return (void)q, (void)d, 0; }

/* Neighbours first, twice, then the halves. */
INLINE void sum4_floats(float *out, __m256 a, __m256 b, __m256 c, __m256 d, int32_t shift) {
  (void)shift;
  __m256 v = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
}

INLINE float sum1_floats(__m256 a, int32_t shift) {
  (void)shift;
  __m256 v = _mm256_hadd_ps(a, a);
  v = _mm256_hadd_ps(v, v);
  return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
}

INLINE void sum4_wholes(float *out, __m256i a, __m256i b, __m256i c, __m256i d, int32_t shift) {
  (void)shift;
  __m256i v = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  _mm_storeu_ps(out, _mm_cvtepi32_ps(_mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1))));
}

INLINE float sum1_wholes(__m256i a, int32_t shift) {
  (void)shift;
  __m256i v = _mm256_hadd_epi32(a, a);
  v = _mm256_hadd_epi32(v, v);
  return (float)_mm_cvtsi128_si32(_mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

INLINE void store_f32(float *out, __m256 v) { _mm256_storeu_ps(out, v); }
INLINE void round_f16(uint16_t *out, __m256 v) { _mm_storeu_si128((void *)out, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }

INLINE __m128i narrow(__m256i v) { /* eight numbers below 2^16 */
  v = _mm256_packus_epi32(v, v);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(v, 0x08));
}

INLINE void round_bf16(uint16_t *out, __m256 v) {
  __m256i b = _mm256_castps_si256(v), last = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
  __m256i r = _mm256_add_epi32(b, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)));
  r = _mm256_blendv_epi8(r, _mm256_or_si256(b, _mm256_set1_epi32(0x400000)), _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
  _mm_storeu_si128((void *)out, narrow(_mm256_srli_epi32(r, 16)));
}

INLINE void round_i8(int8_t *out, __m256 v, float scale) {
  v = _mm256_div_ps(v, _mm256_set1_ps(scale));
  v = _mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q));
  __m256i w = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(v, _mm256_set1_ps(127)), _mm256_set1_ps(-127)));
  w = _mm256_permute4x64_epi64(_mm256_packs_epi32(w, w), 0x08);
  _mm_storel_epi64((void *)out, _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_castsi256_si128(w)));
}

INLINE __m256 scaled_i8(const int8_t *q, float scale) {
  return _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)q))));
}

INLINE __m256 most(__m256 v, __m256 m) { return _mm256_max_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), v), m); } /* the second where the first is NaN */
INLINE float greatest(__m256 m) {
  __m128 v = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
  v = _mm_max_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)));
}

#include "forms_body.h"

const ev_form_kernels ev_forms_avx2[4] = FORMS_TABLE;
#endif
