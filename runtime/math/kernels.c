/* kernels.c - vector kernels over float32, one table of them for each instruction set, chosen at first use.
 *
 * Each body is written once over a vector type of the compiler's (GCC and Clang vector extensions) and compiled for
 * several targets: what differs between AVX2, AVX-512 and NEON is the width. Several accumulators hide the latency of
 * the multiply-add; their order of summation is fixed, so one path gives the same bits every time. What stored forms need
 * (forms_*.c) is written in intrinsics. */
#include "kernels.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* ---- The reference, which is also the path of machines without any of the others ----------------------------*/
static void axpy_scalar(float *out, const float *x, float alpha, size_t n) {
  for (size_t i = 0; i < n; i++) out[i] += alpha * x[i];
}

static void scale_scalar(float *out, float alpha, size_t n) {
  for (size_t i = 0; i < n; i++) out[i] *= alpha;
}

static void affine_scalar(float *out, float alpha, const float *scales, const float *bias, size_t n) {
  for (size_t i = 0; i < n; i++) {
    float v = out[i] * alpha;
    if (scales != NULL) v *= scales[i];
    out[i] = bias != NULL ? v + bias[i] : v;
  }
}

static float sum_scalar(const float *x, size_t n) {
  float sum = 0;
  for (size_t i = 0; i < n; i++) sum += x[i];
  return sum;
}

static float most_scalar(const float *x, size_t n) {
  float most = -INFINITY;
  for (size_t i = 0; i < n; i++)
    if (x[i] > most) most = x[i];
  return most;
}

static float exp_sum_scalar(float *out, const float *x, float shift, float temperature, size_t n) {
  float sum = 0;
  for (size_t i = 0; i < n; i++) sum += out[i] = expf((x[i] - shift) / temperature);
  return sum;
}

static void gather_scalar(float *out, const float *x, size_t stride, const uint32_t *idx, const float *weights, size_t n, float alpha, float beta, size_t width) {
  for (size_t w = 0; w < width; w++) {
    float sum = 0;
    for (size_t e = 0; e < n; e++) sum += weights[idx[e]] * x[idx[e] * stride + w];
    out[w] = beta == 0 ? alpha * sum : alpha * sum + beta * out[w];
  }
}

static size_t above_scalar(const float *x, size_t i, size_t n, float bound) {
  for (; i < n; i++)
    if (x[i] > bound) return i;
  return n;
}

#define PICK(suffix, mask, a, b) ((vec_##suffix)(((mask) & (mask_##suffix)(a)) | (~(mask) & (mask_##suffix)(b))))

/* The kernels for vectors of W floats. Loads go through memcpy: alignment is never assumed. */
#define KERNELS(suffix, W, TARGET)                                                                                    \
  typedef float vec_##suffix __attribute__((vector_size(4 * (W))));                                                  \
  typedef int32_t mask_##suffix __attribute__((vector_size(4 * (W))));                                               \
  TARGET static void axpy_##suffix(float *out, const float *x, float alpha, size_t n) {                              \
    vec_##suffix o, v;                                                                                               \
    size_t i = 0;                                                                                                    \
    for (; i + (W) <= n; i += (W)) {                                                                                 \
      memcpy(&o, out + i, sizeof o), memcpy(&v, x + i, sizeof v);                                                    \
      o += v * alpha;                                                                                                \
      memcpy(out + i, &o, sizeof o);                                                                                 \
    }                                                                                                                \
    for (; i < n; i++) out[i] += alpha * x[i];                                                                       \
  }                                                                                                                  \
  TARGET static void scale_##suffix(float *out, float alpha, size_t n) {                                             \
    vec_##suffix o;                                                                                                  \
    size_t i = 0;                                                                                                    \
    for (; i + (W) <= n; i += (W)) memcpy(&o, out + i, sizeof o), o *= alpha, memcpy(out + i, &o, sizeof o);         \
    for (; i < n; i++) out[i] *= alpha;                                                                              \
  }                                                                                                                  \
  TARGET static void affine_##suffix(float *out, float alpha, const float *scales, const float *bias, size_t n) {    \
    vec_##suffix o, v;                                                                                               \
    size_t i = 0;                                                                                                    \
    for (; i + (W) <= n; i += (W)) {                                                                                 \
      memcpy(&o, out + i, sizeof o), o *= alpha;                                                                     \
      if (scales != NULL) memcpy(&v, scales + i, sizeof v), o *= v;                                                  \
      if (bias != NULL) memcpy(&v, bias + i, sizeof v), o += v;                                                      \
      memcpy(out + i, &o, sizeof o);                                                                                 \
    }                                                                                                                \
    affine_scalar(out + i, alpha, scales == NULL ? NULL : scales + i, bias == NULL ? NULL : bias + i, n - i);        \
  }                                                                                                                  \
  TARGET static float sum_##suffix(const float *x, size_t n) {                                                       \
    vec_##suffix s0 = {0}, s1 = {0}, v;                                                                              \
    size_t i = 0;                                                                                                    \
    for (; i + 2 * (W) <= n; i += 2 * (W)) {                                                                         \
      memcpy(&v, x + i, sizeof v), s0 += v;                                                                          \
      memcpy(&v, x + i + (W), sizeof v), s1 += v;                                                                    \
    }                                                                                                                \
    s0 += s1;                                                                                                        \
    float sum = 0;                                                                                                   \
    for (int k = 0; k < (W); k++) sum += s0[k];                                                                      \
    for (; i < n; i++) sum += x[i];                                                                                  \
    return sum;                                                                                                      \
  }                                                                                                                  \
  TARGET static float most_##suffix(const float *x, size_t n) {                                                      \
    vec_##suffix v, m = (vec_##suffix){0} - INFINITY;                                                                \
    size_t i = 0;                                                                                                    \
    for (; i + (W) <= n; i += (W)) memcpy(&v, x + i, sizeof v), m = PICK(suffix, v > m, v, m);                       \
    float most = most_scalar(x + i, n - i);                                                                          \
    for (int k = 0; k < (W); k++) most = m[k] > most ? m[k] : most;                                                  \
    return most;                                                                                                     \
  }                                                                                                                  \
  /* e^v = 2^k e^r, |r| <= log 2 / 2; Cephes' polynomial (Moshier 1992), within two units in the last place. 2^k goes in \
   * two factors: denormal results are right, and what lies beyond becomes 0 or infinity by itself. NaN stays NaN. */ \
  TARGET static float exp_sum_##suffix(float *out, const float *x, float shift, float temperature, size_t n) {       \
    vec_##suffix v, sum = {0};                                                                                       \
    const vec_##suffix low = (vec_##suffix){0} - 110, high = (vec_##suffix){0} + 90;                                 \
    size_t i = 0;                                                                                                    \
    for (; i + (W) <= n; i += (W)) {                                                                                 \
      memcpy(&v, x + i, sizeof v);                                                                                   \
      v = (v - shift) / temperature;                                                                                 \
      v = PICK(suffix, v < low, low, v);                                                                             \
      v = PICK(suffix, v > high, high, v);                                                                           \
      vec_##suffix shifted = v * 1.44269504f + 0x1.8p23f, k = shifted - 0x1.8p23f; /* rounds to a whole number, and has it in its last bits */ \
      vec_##suffix r = (v - k * 0.693359375f) + k * 2.12194440e-4f;                                                  \
      vec_##suffix p = ((((r * 1.9875691500e-4f + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r + 1.6666665459e-1f) * r + 5.0000001201e-1f; \
      p = p * r * r + r + 1;                                                                                         \
      mask_##suffix e = (mask_##suffix)shifted - 0x4b400000, half = e >> 1;                                                          \
      p = p * (vec_##suffix)((half + 127) << 23) * (vec_##suffix)((e - half + 127) << 23);                           \
      sum += p;                                                                                                      \
      memcpy(out + i, &p, sizeof p);                                                                                 \
    }                                                                                                                \
    float total = exp_sum_scalar(out + i, x + i, shift, temperature, n - i);                                         \
    for (int k = 0; k < (W); k++) total += sum[k];                                                                   \
    return total;                                                                                                    \
  }                                                                                                                  \
  /* A panel of four vectors stays in registers while the rows go by: what is gathered is read once, and nothing else. */ \
  TARGET static void gather_##suffix(float *out, const float *x, size_t stride, const uint32_t *idx, const float *weights, size_t n, float alpha, float beta, size_t width) { \
    size_t at = 0;                                                                                                   \
    for (; at + 4 * (W) <= width; at += 4 * (W)) {                                                                   \
      vec_##suffix s[4] = {{0}}, v, o;                                                                               \
      for (size_t e = 0; e < n; e++) {                                                                               \
        const float *row = x + idx[e] * stride + at;                                                                 \
        float w = weights[idx[e]];                                                                                   \
        if (e + 4 < n)                                                                                               \
          for (int l = 0; l < (W) / 4; l++) __builtin_prefetch(x + idx[e + 4] * stride + at + 16 * l);               \
        for (int k = 0; k < 4; k++) memcpy(&v, row + k * (W), sizeof v), s[k] += v * w;                              \
      }                                                                                                              \
      for (int k = 0; k < 4; k++) {                                                                                  \
        s[k] *= alpha;                                                                                               \
        if (beta != 0) memcpy(&o, out + at + k * (W), sizeof o), s[k] += o * beta;                                   \
        memcpy(out + at + k * (W), &s[k], sizeof s[k]);                                                              \
      }                                                                                                              \
    }                                                                                                                \
    for (; at + (W) <= width; at += (W)) {                                                                           \
      vec_##suffix s = {0}, v;                                                                                       \
      for (size_t e = 0; e < n; e++) memcpy(&v, x + idx[e] * stride + at, sizeof v), s += v * weights[idx[e]];       \
      s *= alpha;                                                                                                    \
      if (beta != 0) memcpy(&v, out + at, sizeof v), s += v * beta;                                                  \
      memcpy(out + at, &s, sizeof s);                                                                                \
    }                                                                                                                \
    gather_scalar(out + at, x + at, stride, idx, weights, n, alpha, beta, width - at);                               \
  }                                                                                                                  \
  /* The next i from `i` on with x[i] > bound, or n. NaN never is. */                                                \
  TARGET static size_t above_##suffix(const float *x, size_t i, size_t n, float bound) {                             \
    vec_##suffix v0, v1;                                                                                             \
    for (; i + 2 * (W) <= n; i += 2 * (W)) {                                                                         \
      memcpy(&v0, x + i, sizeof v0), memcpy(&v1, x + i + (W), sizeof v1);                                            \
      mask_##suffix hit = (v0 > bound) | (v1 > bound);                                                                      \
      uint64_t any[(W) / 2], all = 0;                                                                                \
      memcpy(any, &hit, sizeof any);                                                                                 \
      for (int k = 0; k < (W) / 2; k++) all |= any[k];                                                               \
      if (all != 0) break;                                                                                           \
    }                                                                                                                \
    for (; i < n; i++)                                                                                               \
      if (x[i] > bound) return i;                                                                                    \
    return n;                                                                                                        \
  }
#define FORMS(table) {&(table)[0], &(table)[1], &(table)[2], &(table)[3]}
static const ev_kernels kernels_scalar = {"scalar", axpy_scalar, scale_scalar, sum_scalar, most_scalar, exp_sum_scalar, above_scalar, affine_scalar, gather_scalar, FORMS(ev_forms_scalar), &ev_elements_plain, &ev_tiles_plain};

#if defined __x86_64__
KERNELS(avx2, 8, __attribute__((target("avx2,fma"))))
KERNELS(avx512, 16, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma"))))
static const ev_kernels kernels_avx2 = {"avx2", axpy_avx2, scale_avx2, sum_avx2, most_avx2, exp_sum_avx2, above_avx2, affine_avx2, gather_avx2, FORMS(ev_forms_avx2), &ev_elements_avx2, &ev_tiles_avx2};
static const ev_kernels kernels_avx512 = {"avx512", axpy_avx512, scale_avx512, sum_avx512, most_avx512, exp_sum_avx512, above_avx512, affine_avx512, gather_avx512, FORMS(ev_forms_avx512), &ev_elements_avx512, &ev_tiles_avx512};
static const ev_kernels kernels_vnni = {"avx512vnni", axpy_avx512, scale_avx512, sum_avx512, most_avx512, exp_sum_avx512, above_avx512, affine_avx512, gather_avx512,
                                        {&ev_forms_avx512[0], &ev_forms_avx512[1], &ev_forms_avx512[2], &ev_form_i8_vnni}, &ev_elements_avx512, &ev_tiles_avx512};
static const ev_kernels *const known[] = {&kernels_vnni, &kernels_avx512, &kernels_avx2, &kernels_scalar};

static bool supported(const ev_kernels *k) {
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq");
  if (k == &kernels_vnni) return avx512 && __builtin_cpu_supports("avx512vnni");
  return k == &kernels_avx512 ? avx512 : k == &kernels_avx2 ? avx2 : true;
}
#else
#if defined __aarch64__
KERNELS(neon, 4, )
static const ev_kernels kernels_neon = {"neon", axpy_neon, scale_neon, sum_neon, most_neon, exp_sum_neon, above_neon, affine_neon, gather_neon, FORMS(ev_forms_neon), &ev_elements_plain, &ev_tiles_plain};
static const ev_kernels *const known[] = {&kernels_neon, &kernels_scalar};
#else
static const ev_kernels *const known[] = {&kernels_scalar};
#endif
static bool supported(const ev_kernels *k) { return (void)k, true; }
#endif

static _Atomic(const ev_kernels *) chosen;

const ev_kernels *ev_kernels_now(void) {
  const ev_kernels *k = atomic_load_explicit(&chosen, memory_order_relaxed);
  if (k != NULL) return k;
  size_t i = 0;
  while (!supported(known[i])) i++;
  atomic_store_explicit(&chosen, known[i], memory_order_relaxed);
  return known[i];
}

const char *ev_simd_name(void) { return ev_kernels_now()->name; }

ev_status ev_simd_force(const char *name) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i]->name, name) != 0) continue;
    if (!supported(known[i])) break;
    atomic_store(&chosen, known[i]);
    return EV_OK;
  }
  return ev_fail(EV_EINVAL, "this processor has no '%s'", name);
}

float ev_dot(const float *a, const float *b, size_t n) { return ev_kernels_now()->forms[EV_FORM_F32]->dot(a, b, n); }
void ev_axpy(float *out, const float *x, float alpha, size_t n) { ev_kernels_now()->axpy(out, x, alpha, n); }
void ev_scale(float *out, float alpha, size_t n) { ev_kernels_now()->scale(out, alpha, n); }
float ev_sum(const float *x, size_t n) { return ev_kernels_now()->sum(x, n); }

void ev_minmax(float *lo, float *hi, const float *x, size_t n) {
  *lo = INFINITY;
  *hi = -INFINITY;
  for (size_t i = 0; i < n; i++) { /* comparisons with NaN are false */
    if (x[i] < *lo) *lo = x[i];
    if (x[i] > *hi) *hi = x[i];
  }
}
