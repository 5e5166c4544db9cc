/* forms_avx512.c - kernels of stored forms for AVX-512, without and with its integer products (VNNI). */
#if defined __x86_64__
#include <immintrin.h>
#include <math.h>

#include "kernels.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define AHEAD 12

typedef float type_f32;
typedef uint16_t type_f16, type_bf16;
typedef int8_t type_i8, type_bytes;
typedef __m512 acc_floats, vec_floats;
typedef __m512i acc_wholes, vec_wholes, acc_bytes, vec_bytes;
enum { step_floats = 16, step_wholes = 32, step_bytes = 64 };

INLINE __m512 load_f32(const float *p) { return _mm512_loadu_ps(p); }
INLINE __m512 end_f32(const float *p, size_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE __m512 load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
INLINE __m512 end_f16(const uint16_t *p, size_t n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p)); }
INLINE __m512 widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
INLINE __m512 load_bf16(const uint16_t *p) { return widen_bf16(_mm256_loadu_si256((const void *)p)); }
INLINE __m512 end_bf16(const uint16_t *p, size_t n) { return widen_bf16(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p)); }
INLINE __m512i load_i8(const int8_t *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)p)); }
INLINE __m512i end_i8(const int8_t *p, size_t n) { return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8((__mmask32)((1u << n) - 1), p)); }
INLINE __m512i load_bytes(const int8_t *p) { return _mm512_loadu_si512(p); }
INLINE __m512i end_bytes(const int8_t *p, size_t n) { return _mm512_maskz_loadu_epi8((__mmask64)((1ull << n) - 1), p); }

INLINE __m512 add_product(__m512 acc, __m512 q, __m512 r) { return _mm512_fmadd_ps(q, r, acc); }
INLINE __m512 add_square(__m512 acc, __m512 q, __m512 r) { return _mm512_fmadd_ps(_mm512_sub_ps(q, r), _mm512_sub_ps(q, r), acc); }
INLINE __m512i add_wholes(__m512i acc, __m512i q, __m512i r) { return _mm512_add_epi32(acc, _mm512_madd_epi16(q, r)); }
INLINE __m512 plus_floats(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
INLINE __m512i plus_wholes(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
INLINE int32_t shift_floats(const void *q, size_t d) { return (void)q, (void)d, 0; }
INLINE int32_t shift_wholes(const void *q, size_t d) { return (void)q, (void)d, 0; }

/* Quarters first, (0 + 2) + (1 + 3), then within a quarter the same. */
INLINE float sum1_floats(__m512 a, int32_t shift) {
  (void)shift;
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  __m128 v = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  v = _mm_add_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}

INLINE void sum4_floats(float *out, __m512 a, __m512 b, __m512 c, __m512 d, int32_t shift) {
  (void)shift;
  __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)); /* a02 a13 b02 b13 */
  __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
  __m512 v = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd)); /* a b c d, four of each */
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xb1));
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, v)));
}

INLINE float sum1_wholes(__m512i a, int32_t shift) { return (float)(_mm512_reduce_add_epi32(a) - shift); }

INLINE void sum4_wholes(float *out, __m512i a, __m512i b, __m512i c, __m512i d, int32_t shift) {
  __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)); /* a b a b in each quarter */
  __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  __m512i v = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd)); /* a b c d */
  __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  _mm_storeu_ps(out, _mm_cvtepi32_ps(_mm_sub_epi32(s, _mm_set1_epi32(shift))));
}

INLINE void store_f32(float *out, __m512 v) { _mm512_storeu_ps(out, v); }
INLINE void round_f16(uint16_t *out, __m512 v) { _mm256_storeu_si256((void *)out, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }

INLINE void round_bf16(uint16_t *out, __m512 v) {
  __m512i b = _mm512_castps_si512(v), last = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_add_epi32(b, _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff)));
  r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), b, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256((void *)out, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}

INLINE void round_i8(int8_t *out, __m512 v, float scale) {
  v = _mm512_div_ps(v, _mm512_set1_ps(scale));
  __mmask16 number = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
  v = _mm512_max_ps(_mm512_min_ps(v, _mm512_set1_ps(127)), _mm512_set1_ps(-127));
  _mm_storeu_si128((void *)out, _mm512_cvtepi32_epi8(_mm512_maskz_cvtps_epi32(number, v)));
}

INLINE __m512 scaled_i8(const int8_t *q, float scale) {
  return _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)q))));
}

INLINE __m512 most(__m512 v, __m512 m) { return _mm512_max_ps(_mm512_abs_ps(v), m); } /* the second where the first is NaN */
INLINE float greatest(__m512 m) { return _mm512_reduce_max_ps(m); }

#include "forms_body.h"

/* ---- VNNI: unsigned by signed bytes, four products a lane. Rows are made unsigned by adding 128, which flips their first
 * bit; what that adds, 128 Σ q, is taken off at the end. Zeros behind the end of a row meet zeros of the query. --------*/
#undef TARGET
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")))

INLINE __m512i add_bytes(__m512i acc, __m512i q, __m512i r) { return _mm512_dpbusd_epi32(acc, _mm512_xor_si512(r, _mm512_set1_epi8(-128)), q); }
INLINE __m512i plus_bytes(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
INLINE float sum1_bytes(__m512i a, int32_t shift) { return sum1_wholes(a, shift); }
INLINE void sum4_bytes(float *out, __m512i a, __m512i b, __m512i c, __m512i d, int32_t shift) { sum4_wholes(out, a, b, c, d, shift); }

INLINE int32_t shift_bytes(const int8_t *q, size_t d) {
  __m512i sum = {0};
  size_t i = 0;
  for (; i + 64 <= d; i += 64) sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), load_bytes(q + i));
  if (i < d) sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), end_bytes(q + i, d - i));
  return _mm512_reduce_add_epi32(sum);
}

#define NAME i8_vnni
#define Q_FORM bytes
#define R_FORM bytes
#define OP bytes
#define FAMILY bytes
#include "dots_body.h"

/* Many queries: 64 rows are packed so that a vector holds four bytes of sixteen rows, and each lane sums up a row of its
 * own; four bytes of a query meet them all. No horizontal sums are left, and a load serves four products. */
static void pack_i8(void *out, const void *rows, const uint32_t *list, size_t stride, size_t n, size_t d) {
  size_t words = (d + 3) / 4, k;
  for (size_t i = 0; i < (n + 63) / 64 * 64; i++) {
    uint32_t *o = (uint32_t *)out + i / 16 * 16 * words + i % 16, word;
    if (i >= n) {
      for (k = 0; k < words; k++) o[16 * k] = 0;
      continue;
    }
    const char *row = (const char *)rows + (list != NULL ? list[i] : i) * stride;
    for (k = 0; k < d / 4; k++) memcpy(&word, row + 4 * k, 4), o[16 * k] = word ^ 0x80808080u;
    if (k < words) word = 0, memcpy(&word, row + 4 * k, d % 4), o[16 * k] = word ^ 0x80808080u;
  }
}

TARGET static void products_i8(float *out, const void *q, size_t q_stride, size_t m, const void *packed, size_t n, size_t d) {
  size_t words = (d + 3) / 4;
  for (size_t i = 0; i < m; i += 4) {
    const int8_t *p[4];
    __m512i shift[4];
    for (size_t j = 0; j < 4; j++) {
      p[j] = (const int8_t *)q + (i + j < m ? i + j : m - 1) * q_stride; /* the last again where there are not four */
      shift[j] = _mm512_set1_epi32(shift_bytes(p[j], d));
    }
    for (size_t b = 0; b < n; b += 64) {
      const uint32_t *x = (const uint32_t *)packed + b * words;
      __m512i sum[4][4] = {0};
      for (size_t k = 0; k < words; k++) {
        __m512i r[4];
        for (size_t g = 0; g < 4; g++) r[g] = _mm512_loadu_si512(x + 16 * (g * words + k));
        for (size_t j = 0; j < 4; j++) {
          int32_t word;
          memcpy(&word, p[j] + 4 * k, 4);
          __m512i s = _mm512_set1_epi32(word);
          for (size_t g = 0; g < 4; g++) sum[j][g] = _mm512_dpbusd_epi32(sum[j][g], r[g], s);
        }
      }
      for (size_t j = 0; j < 4 && i + j < m; j++)
        for (size_t g = 0; g < 4 && b + 16 * g < n; g++) {
          size_t some = n - b - 16 * g < 16 ? n - b - 16 * g : 16;
          _mm512_mask_storeu_ps(out + (i + j) * n + b + 16 * g, (__mmask16)((1u << some) - 1), _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[j][g], shift[j])));
        }
    }
  }
}

const ev_form_kernels ev_forms_avx512[4] = FORMS_TABLE;
const ev_form_kernels ev_form_i8_vnni = {dot_i8_vnni, dot_i8_vnni, dots_i8_vnni, dots_at_i8_vnni, NULL, encode_i8, decode_i8, pack_i8, products_i8};
#endif
