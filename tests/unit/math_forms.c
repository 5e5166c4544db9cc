/* math_forms.c - stored forms against definitions on bits, their inner products on every instruction set against doubles. */
#include <math.h>

#include "math/math.h"
#include "support.h"

static const char *const sets[] = {"scalar", "avx2", "avx512", "avx512vnni", "neon"};
#define N_SETS (sizeof sets / sizeof *sets)
#define MOST 300

static float of_bits(uint32_t b) {
  float x;
  memcpy(&x, &b, sizeof x);
  return x;
}

static uint32_t bits_of(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  return b;
}

static void fill(float *x, size_t n, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  for (size_t i = 0; i < n; i++) x[i] = (float)ev_rng_normal(&r);
}

/* The value of a short float with `fraction` bits, from the definition. */
static double value_of(uint16_t h, int fraction, int bias) {
  int exponent = (h & 0x7fff) >> fraction, rest = h & ((1 << fraction) - 1), top = 0x7fff >> fraction;
  double sign = h & 0x8000 ? -1 : 1;
  if (exponent == top) return rest != 0 ? NAN : sign * INFINITY;
  return sign * (exponent == 0 ? ldexp(rest, 1 - bias - fraction) : ldexp((1 << fraction) + rest, exponent - bias - fraction));
}

static double f16_value(uint16_t h) { return value_of(h, 10, 15); }
static double bf16_value(uint16_t h) { return value_of(h, 7, 127); }

static void names_are_found_again(void **s) {
  (void)s;
  for (ev_form f = EV_FORM_F32; f <= EV_FORM_I8; f++) {
    ev_form g = EV_FORM_F32;
    assert_true(ev_form_find(&g, ev_form_name(f)) && g == f);
  }
  for (ev_similarity m = EV_DOT; m <= EV_L2; m++) {
    ev_similarity g = EV_DOT;
    assert_true(ev_similarity_find(&g, ev_similarity_name(m)) && g == m);
  }
  ev_form f;
  ev_similarity m;
  assert_false(ev_form_find(&f, "f64") || ev_form_find(&f, "") || ev_similarity_find(&m, "l1"));
  assert_int_equal(ev_form_bytes(EV_FORM_F32), 4);
  assert_int_equal(ev_form_bytes(EV_FORM_F16), 2);
  assert_int_equal(ev_form_bytes(EV_FORM_BF16), 2);
  assert_int_equal(ev_form_bytes(EV_FORM_I8), 1);
}

static void every_short_float_has_its_value(void **s) {
  (void)s;
  static uint16_t all[65536], back[65536];
  static float out[65536];
  float scale;
  for (size_t i = 0; i < 65536; i++) all[i] = (uint16_t)i;
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (int bf = 0; bf < 2; bf++) {
      ev_form f = bf ? EV_FORM_BF16 : EV_FORM_F16;
      ev_form_decode(out, all, 1, f, 65536);
      for (size_t i = 0; i < 65536; i++) {
        double value = bf ? bf16_value(all[i]) : f16_value(all[i]);
        if (isnan(value) ? !isnan(out[i]) : bits_of(out[i]) != bits_of((float)value)) fail_msg("%s %s %04zx: %a", sets[set], ev_form_name(f), i, out[i]);
      }
      ev_form_encode(back, &scale, out, f, 65536); /* and back, signs of zeros and NaNs too */
      assert_true(scale == 1);
      for (size_t i = 0; i < 65536; i++) {
        bool nan = isnan(out[i]);
        if (nan ? !isnan(f16_value(back[i])) && !bf : back[i] != all[i]) fail_msg("%s %s %04zx back: %04x", sets[set], ev_form_name(f), i, back[i]);
        if (nan && bf && !isnan(bf16_value(back[i]))) fail_msg("NaN lost");
      }
    }
  }
}

/* x rounded by definition: of the neighbours lo <= x <= hi (both finite or one infinite) the nearer, or the even one. */
static uint16_t nearest(float x, double (*value)(uint16_t), uint16_t infinity, double limit) {
  uint16_t sign = signbit(x) ? 0x8000 : 0;
  double a = fabs((double)x);
  if (a >= limit) return sign | infinity;
  uint16_t low = 0, high = infinity;
  while (high - low > 1) {
    uint16_t middle = (uint16_t)((low + high) / 2);
    if (value(middle) <= a) low = middle;
    else high = middle;
  }
  double down = a - value(low), up = (high == infinity ? 2 * limit - value(low) : value(high)) - a;
  return sign | (down < up || (down == up && low % 2 == 0) ? low : high);
}

static void encoding_rounds_to_nearest_even(void **s) {
  (void)s;
  enum { N = 40000 };
  float *x = ev_alloc(N, sizeof *x);
  uint16_t *f16 = ev_alloc(N, 2), *bf16 = ev_alloc(N, 2), *out = ev_alloc(N, 2);
  ev_rng r;
  ev_rng_seed(&r, 3, 0);
  size_t n = 0;
  static const float edges[] = {0, -0.0f, 65504, 65519.996f, 65520, 65535, 65536, 1e38f, INFINITY, -INFINITY, 0x1p-14f, 0x1p-24f, 0x1p-25f, 0x1.000002p-25f,
                                0x1p-26f, 0x1.8p-24f, 0x1.ffcp-15f, 0x1.ffep-15f, 1e-45f, 0x1p-126f, 0x1.fffffep127f, 0x1.fep127f, 0x1.ffp127f, 0x1.fefffep127f};
  for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) x[n++] = edges[i], x[n++] = -edges[i];
  while (n < N / 4) x[n++] = of_bits((uint32_t)ev_rng_u64(&r));                              /* anywhere */
  while (n < N / 2) x[n++] = of_bits(((uint32_t)ev_rng_u64(&r) & 0x8fffe000) + 0x30001000u); /* f16 ties */
  while (n < 3 * N / 4) x[n++] = of_bits(((uint32_t)ev_rng_u64(&r) & 0xffff0000u) | 0x8000); /* bf16 ties */
  while (n < N) x[n++] = (float)ev_rng_normal(&r) * 0x1p-15f;                                /* f16 denormals */
  for (size_t i = 0; i < N; i++) {
    if (isnan(x[i])) continue;
    f16[i] = nearest(x[i], f16_value, 0x7c00, 65520);
    bf16[i] = nearest(x[i], bf16_value, 0x7f80, ldexp(511, 119));
  }
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (int bf = 0; bf < 2; bf++) {
      float scale;
      ev_form_encode(out, &scale, x, bf ? EV_FORM_BF16 : EV_FORM_F16, N);
      for (size_t i = 0; i < N; i++) {
        if (isnan(x[i])) assert_true(isnan(bf ? bf16_value(out[i]) : f16_value(out[i])));
        else if (out[i] != (bf ? bf16 : f16)[i]) fail_msg("%s bf %d: %a gives %04x, not %04x", sets[set], bf, x[i], out[i], (bf ? bf16 : f16)[i]);
      }
    }
  }
  void *blocks[] = {x, f16, bf16, out};
  for (int i = 0; i < 4; i++) ev_free(blocks[i]);
}

static void eight_bits_keep_half_a_step(void **s) {
  (void)s;
  float x[MOST], back[MOST], scale, expected;
  int8_t q[MOST + 1], first[MOST];
  for (size_t n = 0; n <= MOST; n++) {
    fill(x, n, n + 1);
    if (n > 4) x[n / 2] = -17;
    for (size_t set = 0; set < N_SETS; set++) {
      if (ev_simd_force(sets[set]) != EV_OK) continue;
      float most = 0;
      for (size_t i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i]));
      expected = most / 127;
      q[n] = 99;
      ev_form_encode(q, &scale, x, EV_FORM_I8, n);
      assert_true(scale == expected && q[n] == 99);
      ev_form_decode(back, q, scale, EV_FORM_I8, n);
      for (size_t i = 0; i < n; i++) {
        assert_true(q[i] == (int8_t)lrintf(x[i] / scale) && q[i] >= -127 && fabsf(back[i] - x[i]) <= 0.5001f * scale && back[i] == scale * (float)q[i]);
      }
      if (set == 0) memcpy(first, q, n);
      assert_memory_equal(first, q, n);
    }
  }
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t n = 1; n < 40; n++) {
      for (size_t i = 0; i < n; i++) x[i] = 0;
      ev_form_encode(q, &scale, x, EV_FORM_I8, n);
      assert_true(scale == 0);
      for (size_t i = 0; i < n; i++) assert_int_equal(q[i], 0);
      for (size_t i = 0; i < n; i++) x[i] = i % 2 ? 1e-45f : -4e-43f; /* the scale itself is denormal */
      ev_form_encode(q, &scale, x, EV_FORM_I8, n);
      for (size_t i = 0; i < n; i++) assert_true(q[i] >= -127);
      x[n - 1] = NAN; /* not allowed, but nothing breaks */
      x[0] = INFINITY;
      ev_form_encode(q, &scale, x, EV_FORM_I8, n);
    }
  }
}

/* A row of every form at `shift` bytes past an aligned place, and what it stands for. */
typedef struct row {
  char code[4][4 * MOST + 64];
  float plain[4][MOST];
} row;

static void make_row(row *r, const float *x, size_t n, size_t shift) {
  for (ev_form f = EV_FORM_F32; f <= EV_FORM_I8; f++) {
    float scale, codes[MOST];
    ev_form_encode(codes, &scale, x, f, n);
    memcpy(r->code[f] + shift, codes, n * ev_form_bytes(f));
    ev_form_decode(r->plain[f], codes, 1, f, n);
  }
}

static void every_path_gives_the_products_of_its_form(void **s) {
  (void)s;
  static row q, rows[5];
  static char many[9 * (4 * MOST + 16)];
  static const uint32_t ids[] = {7, 0, 3, 3, 8, 1, 2, 6, 5};
  float x[MOST], out[10], at[10], one[9];
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t d = 0; d <= MOST; d++) {
      size_t shift = 4 * (d % 5);
      fill(x, d, 1000 + d);
      make_row(&q, x, d, shift);
      for (int i = 0; i < 5; i++) fill(x, d, d * 7 + (size_t)i), make_row(&rows[i], x, d, shift);
      for (ev_form f = EV_FORM_F32; f <= EV_FORM_I8; f++) {
        size_t bytes = d * ev_form_bytes(f), stride = bytes + 4;
        ev_form qf = f == EV_FORM_I8 ? f : EV_FORM_F32;
        for (size_t i = 0; i < 9; i++) memcpy(many + 4 + i * stride, rows[i % 5].code[f] + shift, bytes);
        for (size_t i = 0; i < 9; i++) {
          double dot = 0, pair = 0, size = 1e-6;
          for (size_t k = 0; k < d; k++) {
            double y = rows[i % 5].plain[f][k];
            dot += q.plain[qf][k] * y, pair += q.plain[f][k] * y, size += fabs(q.plain[qf][k] * y);
          }
          one[i] = ev_dot_of(f)(q.code[qf] + shift, many + 4 + i * stride, d);
          assert_true(f == EV_FORM_I8 ? one[i] == dot : fabs(one[i] - dot) <= 1e-6 * size);
          float two = ev_dot_pair_of(f)(q.code[f] + shift, many + 4 + i * stride, d);
          assert_true(f == EV_FORM_I8 ? two == pair : fabs(two - pair) <= 1e-6 * size);
        }
        for (size_t n = 0; n <= 9; n++) { /* many at once: the same bits as alone, and no more of them than asked for */
          out[n] = at[n] = 77;
          ev_dots(out, q.code[qf] + shift, many + 4, f, stride, n, d);
          ev_dots_at(at, q.code[qf] + shift, many + 4, ids, f, stride, n, d);
          assert_memory_equal(out, one, n * sizeof *out);
          for (size_t i = 0; i < n; i++) assert_true(at[i] == one[ids[i]]);
          assert_true(out[n] == 77 && at[n] == 77);
        }
      }
    }
  }
}

static void eight_bit_sums_are_whole_at_the_extremes(void **s) {
  (void)s;
  enum { D = 60000 };
  int8_t *a = ev_alloc(D, 1), *b = ev_alloc(D, 1);
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t d = 0; d <= D; d += d < 200 ? 1 : 9967) {
      for (int sign = -1; sign <= 1; sign += 2) {
        memset(a, -127, d);
        memset(b, sign * 127, d);
        assert_true(ev_dot_of(EV_FORM_I8)(a, b, d) == (float)(-127 * sign * 127 * (int64_t)d));
        memset(b, -128, d); /* not a code, but a file may hold it */
        assert_true(ev_dot_of(EV_FORM_I8)(a, b, d) == (float)(127 * 128 * (int64_t)d));
        assert_true(ev_dot_of(EV_FORM_I8)(b, a, d) == (float)(127 * 128 * (int64_t)d));
      }
    }
  }
  ev_free(a);
  ev_free(b);
}

static void hard_numbers_pass_through(void **s) {
  (void)s;
  static const float hard[] = {NAN, INFINITY};
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (ev_form f = EV_FORM_F32; f <= EV_FORM_BF16; f++) {
      for (size_t d = 1; d < 70; d++) {
        for (size_t h = 0; h < 3; h++) {
          float q[70] = {0}, x[70] = {0}, code[70], scale, out[5];
          q[d - 1] = 1;
          x[d - 1] = h < 2 ? hard[h] : f == EV_FORM_F32 ? 1e-45f : f == EV_FORM_F16 ? 0x1p-24f : 0x1p-133f; /* the smallest */
          ev_form_encode(code, &scale, x, f, d);
          float one = ev_dot_of(f)(q, code, d);
          ev_dots(out, q, code, f, 0, 5, d);
          if (h == 0) assert_true(isnan(one) && isnan(out[0]));
          if (h == 1) assert_true(one == INFINITY && out[0] == INFINITY);
          if (h == 2) assert_true(one == x[d - 1] && out[0] == one && out[4] == one); /* denormals are not flushed */
        }
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_are_found_again), cmocka_unit_test(every_short_float_has_its_value), cmocka_unit_test(encoding_rounds_to_nearest_even),
      cmocka_unit_test(eight_bits_keep_half_a_step), cmocka_unit_test(every_path_gives_the_products_of_its_form),
      cmocka_unit_test(eight_bit_sums_are_whole_at_the_extremes), cmocka_unit_test(hard_numbers_pass_through),
  };
  return RUN(tests);
}
