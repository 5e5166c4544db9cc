/* math_similar.c - similarities by their definitions, over every form and instruction set. */
#include <math.h>

#include "math/math.h"
#include "support.h"

static const char *const sets[] = {"scalar", "avx2", "avx512", "avx512vnni", "neon"};
#define N_SETS (sizeof sets / sizeof *sets)

static double define(const float *x, const float *y, ev_similarity s, size_t d) {
  double dot = 0, xx = 0, yy = 0, far = 0;
  for (size_t i = 0; i < d; i++) dot += (double)x[i] * y[i], xx += (double)x[i] * x[i], yy += (double)y[i] * y[i], far += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
  if (s == EV_COSINE) return xx == 0 || yy == 0 ? 0 : dot / sqrt(xx) / sqrt(yy);
  return s == EV_DOT ? dot : -far;
}

/* m queries (the last one zero) and n rows (the second zero, the third near the first query), of numbers about `size`. */
static void check(size_t m, size_t n, size_t d, ev_form f, float size) {
  size_t bytes = ev_form_bytes(f);
  float *q = ev_zalloc(m * d + 1, 4), *x = ev_zalloc(n * d + 1, 4), *plain = ev_alloc(m * d + 1, 4), *scales = ev_alloc(n, 4), *out = ev_alloc(m * n + 1, 4), *code = ev_alloc(d + 1, 4), scale;
  char *rows = ev_alloc(n * d + 1, bytes);
  ev_rng r;
  ev_rng_seed(&r, m * 1000 + n * 10 + d, 4);
  for (size_t i = 0; i + (m > 1) < m; i++)
    for (size_t c = 0; c < d; c++) q[i * d + c] = size * (float)ev_rng_normal(&r);
  for (size_t j = 0; j < n; j++)
    for (size_t c = 0; c < d && j != 1; c++) x[j * d + c] = j == 2 && m > 0 ? q[c] * 1.001f : size * (float)ev_rng_normal(&r);
  for (size_t i = 0; i < m; i++) { /* what is compared are codes */
    memcpy(plain + i * d, q + i * d, d * 4);
    if (f == EV_FORM_I8) ev_form_encode(code, &scale, q + i * d, f, d), ev_form_decode(plain + i * d, code, scale, f, d);
  }
  for (size_t j = 0; j < n; j++) {
    ev_form_encode(rows + j * d * bytes, &scales[j], x + j * d, f, d);
    ev_form_decode(x + j * d, rows + j * d * bytes, scales[j], f, d);
  }
  for (ev_similarity s = EV_DOT; s <= EV_L2; s++) {
    for (int many = 0; many < 2; many++) {
      out[m * n] = 77;
      if (many) assert_int_equal(ev_similar_many(out, q, rows, f == EV_FORM_I8 ? scales : NULL, f, s, m, n, d), EV_OK);
      for (size_t i = 0; i < m && !many; i++) assert_int_equal(ev_similar(out + i * n, q + i * d, rows, f == EV_FORM_I8 ? scales : NULL, f, s, n, d), EV_OK);
      assert_true(out[m * n] == 77);
      for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
          const float *a = plain + i * d, *b = x + j * d;
          double expected = define(a, b, s, d), slack = s == EV_COSINE ? 2e-6 : 1e-37;
          for (size_t c = 0; c < d && s != EV_COSINE; c++) slack += 2e-6 * (s == EV_DOT ? fabs((double)a[c] * b[c]) : f == EV_FORM_I8 ? (double)a[c] * a[c] + (double)b[c] * b[c] : ((double)a[c] - b[c]) * ((double)a[c] - b[c]));
          if (fabs(expected) > 3e38) continue;
          if (!(fabs(out[i * n + j] - expected) <= slack))
            fail_msg("%s %s %s m %zu n %zu d %zu size %g (%zu, %zu): %g, not %g", ev_simd_name(), ev_form_name(f), ev_similarity_name(s), m, n, d, size, i, j, out[i * n + j], expected);
        }
      }
    }
  }
  void *blocks[] = {q, x, plain, scales, out, code, rows};
  for (int i = 0; i < 7; i++) ev_free(blocks[i]);
}

static void similarities_are_as_defined(void **s) {
  (void)s;
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (ev_form f = EV_FORM_F32; f <= EV_FORM_I8; f++) {
      for (size_t d = 0; d <= 300; d += d < 70 ? 1 : 23) check(1 + d % 3, 1 + d % 11, d, f, 1);
      check(20, 1100, 33, f, 1);
      check(300, 530, 17, f, 1);
      check(1, 0, 5, f, 1);
      check(0, 5, 5, f, 1);
      check(3, 9, 130, f, 1e-3f);
    }
  }
}

static void cosines_hold_at_the_ends_of_the_range(void **s) {
  (void)s;
  static const float sizes[] = {1e-44f, 1e-38f, 1e-25f, 1e-18f, 1e18f, 1e25f, 1e38f};
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t t = 0; t < 7; t++)
      for (size_t m = 1; m <= 9; m += 8)
        for (ev_form f = EV_FORM_F32; f <= EV_FORM_BF16; f += 2) { /* f16 has no such numbers */
          float q[9 * 3], x[4 * 3], out[9 * 4], scale;
          uint16_t code[4 * 3];
          for (size_t i = 0; i < m * 3; i++) q[i] = sizes[t] * (float)(i % 3 + 1);
          for (size_t i = 0; i < 12; i++) x[i] = i < 3 ? q[i] : i < 6 ? -q[i - 3] : i < 9 ? -0.0f : i == 10 ? 2 * sizes[t] : 0;
          ev_form_encode(code, &scale, x, EV_FORM_BF16, 12);
          assert_int_equal(ev_similar_many(out, q, f == EV_FORM_BF16 ? (const void *)code : x, NULL, f, EV_COSINE, m, 4, 3), EV_OK);
          if (f == EV_FORM_BF16 && (sizes[t] < 1e-36f || sizes[t] > 1e37f)) continue; /* rounded away */
          for (size_t i = 0; i < m; i++) {
            float slack = f == EV_FORM_BF16 || sizes[t] < 1e-43f ? 0.01f : 1e-6f;
            assert_true(fabsf(out[i * 4] - 1) <= slack && fabsf(out[i * 4 + 1] + 1) <= slack && out[i * 4 + 2] == 0);
            if (isfinite(q[2])) assert_true(fabsf(out[i * 4 + 3] - 2 / sqrtf(14)) <= 2 * slack);
          }
        }
  }
}

static void what_is_no_number_stays_one(void **s) {
  (void)s;
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (ev_similarity m = EV_DOT; m <= EV_L2; m++) {
      float q[5] = {1, 2, 3, 4, 5}, x[10] = {1, 2, NAN, 4, 5, 1, 2, 3, 4, 5}, out[2];
      assert_int_equal(ev_similar(out, q, x, NULL, EV_FORM_F32, m, 2, 5), EV_OK);
      assert_true(isnan(out[0]) && !isnan(out[1]) && (m != EV_L2 || out[1] == 0));
    }
  }
}

static void the_same_bits_for_any_number_of_threads(void **s) {
  (void)s;
  enum { M = 300, N = 1500, D = 24 };
  float *q = ev_alloc(M * D, 4), *x = ev_alloc(N * D, 4), *out = ev_alloc(M * N, 4), *again = ev_alloc(M * N, 4);
  ev_rng r;
  ev_rng_seed(&r, 5, 5);
  for (size_t i = 0; i < M * D; i++) q[i] = (float)ev_rng_normal(&r);
  for (size_t i = 0; i < N * D; i++) x[i] = (float)ev_rng_normal(&r);
  for (ev_similarity m = EV_DOT; m <= EV_L2; m++) {
    ev_threads_set(1);
    assert_int_equal(ev_similar_many(out, q, x, NULL, EV_FORM_F32, m, M, N, D), EV_OK);
    ev_threads_set(3);
    assert_int_equal(ev_similar_many(again, q, x, NULL, EV_FORM_F32, m, M, N, D), EV_OK);
    assert_memory_equal(out, again, M * N * 4);
  }
  ev_threads_set(0);
  void *blocks[] = {q, x, out, again};
  for (int i = 0; i < 4; i++) ev_free(blocks[i]);
}

static void survives_faults_and_interruption(void **s) {
  (void)s;
  float q[20 * 4], x[30 * 4], scales[30], out[20 * 30], scale;
  char rows[30 * 4 * 4];
  for (size_t i = 0; i < 80; i++) q[i] = (float)i;
  for (size_t i = 0; i < 120; i++) x[i] = (float)i;
  ev_threads_set(1);
  for (ev_form f = EV_FORM_F32; f <= EV_FORM_I8; f++) {
    for (size_t j = 0; j < 30; j++) ev_form_encode(rows + j * 4 * ev_form_bytes(f), &scale, x + j * 4, f, 4), scales[j] = scale;
    for (ev_similarity m = EV_DOT; m <= EV_L2; m++) {
      ASSERT_SURVIVES_FAULTS(ev_similar_many(out, q, rows, scales, f, m, 20, 30, 4), (void)0);
      ASSERT_SURVIVES_FAULTS(ev_similar(out, q, rows, scales, f, m, 30, 4), (void)0);
      ev_interrupt();
      assert_int_equal(ev_similar_many(out, q, rows, scales, f, m, 20, 30, 4), EV_EINTR);
      ev_interrupt_clear();
    }
  }
  ev_threads_set(0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(similarities_are_as_defined), cmocka_unit_test(cosines_hold_at_the_ends_of_the_range), cmocka_unit_test(what_is_no_number_stays_one),
      cmocka_unit_test(the_same_bits_for_any_number_of_threads), cmocka_unit_test(survives_faults_and_interruption),
  };
  return RUN(tests);
}
