/* math_sample.c - sampling by weight against exact probabilities (chi-square, fixed seeds) and against the plain way. */
#include <math.h>

#include "math/math.h"
#include "support.h"

/* Beyond this a chi-square of `cells` - 1 degrees comes once in ten thousand (Wilson and Hilferty 1931). */
static double unlikely(size_t cells) {
  double f = (double)cells - 1, c = 2 / (9 * f);
  return f * pow(1 - c + 3.719 * sqrt(c), 3);
}

static double chi_square(const uint64_t *counts, const double *p, size_t n, double draws) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    if (p[i] == 0) assert_int_equal(counts[i], 0);
    else sum += (counts[i] - draws * p[i]) * (counts[i] - draws * p[i]) / (draws * p[i]);
  }
  return sum;
}

static void alias_draws_have_their_probabilities(void **s) {
  (void)s;
  enum { DRAWS = 300000, MOST = 40 };
  ev_rng r;
  ev_rng_seed(&r, 20, 0);
  for (size_t n = 1; n <= MOST; n += n < 6 ? 1 : 7) {
    for (int kind = 0; kind < 3; kind++) {
      float w[MOST];
      double p[MOST], sum = 0;
      uint64_t counts[MOST] = {0};
      for (size_t i = 0; i < n; i++) w[i] = kind == 0 ? 3 : kind == 1 ? (float)(i * i) : i % 3 == 1 ? 0 : (float)ev_rng_f64(&r);
      w[n - 1] += 0.25f;
      size_t cells = 0;
      for (size_t i = 0; i < n; i++) sum += w[i], cells += w[i] > 0;
      for (size_t i = 0; i < n; i++) p[i] = w[i] / sum;
      ev_alias a;
      assert_int_equal(ev_alias_new(&a, w, n), EV_OK);
      for (int i = 0; i < DRAWS; i++) counts[ev_alias_draw(&a, &r)]++;
      ev_alias_free(&a);
      double x = chi_square(counts, p, n, DRAWS);
      if (cells > 1 && x > unlikely(cells)) fail_msg("n %zu kind %d: chi-square %g over %zu cells", n, kind, x, cells);
    }
  }
}

static void an_alias_table_holds_the_exact_probabilities(void **s) {
  (void)s;
  static const size_t sizes[] = {1, 2, 3, 10, 1000, 20000};
  ev_rng r;
  ev_rng_seed(&r, 21, 0);
  for (size_t t = 0; t < 6; t++) {
    for (int kind = 0; kind < 4; kind++) {
      size_t n = sizes[t];
      float *w = ev_alloc(n, sizeof *w);
      double *p = ev_zalloc(n, sizeof *p), sum = 0;
      for (size_t i = 0; i < n; i++) w[i] = kind == 0 ? 0.1f : kind == 1 ? (float)pow(ev_rng_f64(&r), 30) + 1e-20f : kind == 2 ? (i % 7 ? 0 : 1e30f) : 1e-42f * (float)(i % 5 + 1);
      for (size_t i = 0; i < n; i++) sum += w[i];
      ev_alias a;
      assert_int_equal(ev_alias_new(&a, w, n), EV_OK);
      assert_int_equal(a.n, n);
      for (size_t i = 0; i < n; i++) {
        assert_true(a.share[i] >= 0 && a.share[i] <= 1 && a.other[i] < n);
        p[i] += a.share[i] / (double)n, p[a.other[i]] += (1 - (double)a.share[i]) / (double)n;
      }
      for (size_t i = 0; i < n; i++) {
        assert_true(w[i] > 0 || p[i] == 0);
        assert_true(fabs(p[i] - w[i] / sum) <= 1e-6 * w[i] / sum + 1e-7 / (double)n * (w[i] > 0));
      }
      ev_alias_free(&a);
      ev_free(w);
      ev_free(p);
    }
  }
}

static void weights_that_are_none_are_refused(void **s) {
  (void)s;
  static const float bad[][3] = {{1, -1, 2}, {1, NAN, 2}, {INFINITY, 1, 1}, {0, 0, 0}, {-0.5f, 0, 0}};
  ev_alias a;
  for (size_t i = 0; i < 5; i++) assert_int_equal(ev_alias_new(&a, bad[i], 3), EV_EINVAL);
  assert_int_equal(ev_alias_new(&a, bad[0], 2), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "weight 1 is -1"));
  assert_int_equal(ev_alias_new(&a, NULL, 0), EV_EINVAL);
  ev_alias_free(&a); /* of one that was never made */
  static const float good[] = {1, 2, 3};
  ASSERT_SURVIVES_FAULTS(ev_alias_new(&a, good, 3), ev_alias_free(&a));
}

static void draws_without_replacement_have_their_probabilities(void **s) {
  (void)s;
  enum { N = 6, DRAWS = 200000 };
  static const float logits[N] = {0.3f, -1, 2, -INFINITY, 1.1f, -4};
  double p[N] = {0}, sum = 0, pairs[N * N] = {0};
  uint64_t counts[N * N] = {0};
  for (int i = 0; i < N; i++) sum += p[i] = exp(logits[i]);
  for (int i = 0; i < N; i++) p[i] /= sum;
  size_t cells = 0;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++)
      if (i != j && p[i] > 0 && p[j] > 0) pairs[i * N + j] = p[i] * p[j] / (1 - p[i]), cells++;
  ev_rng r;
  ev_rng_seed(&r, 22, 0);
  for (int i = 0; i < DRAWS; i++) {
    uint32_t out[2];
    size_t n;
    assert_int_equal(ev_gumbel_topk(out, &n, logits, N, 2, &r), EV_OK);
    assert_int_equal(n, 2);
    counts[out[0] * N + out[1]]++;
  }
  double x = chi_square(counts, pairs, N * N, DRAWS);
  if (x > unlikely(cells)) fail_msg("chi-square %g over %zu cells", x, cells);
}

/* Over many places, where most are sorted out by the bound: first and second draws by classes of logits. */
static void long_columns_are_drawn_from_alike(void **s) {
  (void)s;
  enum { N = 5000, CLASSES = 10, DRAWS = 20000 };
  float *logits = ev_alloc(N, sizeof *logits);
  double sum = 0, first[CLASSES] = {0}, second[CLASSES] = {0};
  uint64_t counts[2][CLASSES] = {{0}};
  for (size_t i = 0; i < N; i++) logits[i] = 0.4f * (float)(i % CLASSES) - 1 + (i % 1250 == 9 ? 4 : 0);
  for (size_t i = 0; i < N; i++) sum += exp(logits[i]);
  for (size_t i = 0; i < N; i++) first[i % CLASSES] += exp(logits[i]) / sum;
  double all = 0; /* Σ_i p_i / (1 − p_i): second = Σ_{i ≠ j} p_i p_j / (1 − p_i) */
  for (size_t i = 0; i < N; i++) all += exp(logits[i]) / (sum - exp(logits[i]));
  for (size_t j = 0; j < N; j++) {
    double p = exp(logits[j]) / sum;
    second[j % CLASSES] += p * (all - p / (1 - p));
  }
  ev_rng r;
  ev_rng_seed(&r, 23, 0);
  for (int i = 0; i < DRAWS; i++) {
    uint32_t out[2];
    size_t n;
    assert_int_equal(ev_gumbel_topk(out, &n, logits, N, 2, &r), EV_OK);
    counts[0][out[0] % CLASSES]++, counts[1][out[1] % CLASSES]++;
  }
  assert_true(chi_square(counts[0], first, CLASSES, DRAWS) < unlikely(CLASSES));
  assert_true(chi_square(counts[1], second, CLASSES, DRAWS) < unlikely(CLASSES));
  ev_free(logits);
}

typedef struct keyed {
  float key;
  uint32_t id;
} keyed;

static int largest_first(const void *a, const void *b) {
  const keyed *x = a, *y = b;
  if (x->key != y->key) return x->key > y->key ? -1 : 1;
  return x->id < y->id ? -1 : 1;
}

static void what_is_sorted_out_would_not_have_been_drawn(void **s) {
  (void)s;
  static const char *const sets[] = {"scalar", "avx2", "avx512", "neon"};
  enum { N = 4000 };
  static float logits[N];
  static keyed all[N];
  static uint32_t out[N + 5];
  for (int set = 0; set < 4; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (uint64_t seed = 0; seed < 60; seed++) {
      ev_rng r, again;
      ev_rng_seed(&r, seed, 3);
      static const float spreads[] = {0, 1, 10, 300, 1e30f};
      for (size_t i = 0; i < N; i++) logits[i] = ev_rng_below(&r, 9) == 0 ? -INFINITY : spreads[seed % 5] * (float)ev_rng_normal(&r);
      again = r;
      size_t k = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 50 : N + 5, m = 0, n;
      for (size_t i = 0; i < N; i++) {
        float key = (float)(logits[i] - log(-log1p(-ev_rng_f64(&again))));
        if (key > -INFINITY) all[m++] = (keyed){key, (uint32_t)i};
      }
      qsort(all, m, sizeof *all, largest_first);
      assert_int_equal(ev_gumbel_topk(out, &n, logits, N, k, &r), EV_OK);
      assert_int_equal(n, m < k ? m : k);
      for (size_t i = 0; i < k; i++) assert_int_equal(out[i], i < n ? all[i].id : EV_NONE);
      assert_memory_equal(&r, &again, sizeof r); /* one number a place, whatever was sorted out */
    }
  }
}

static void odd_samples(void **s) {
  (void)s;
  ev_rng r;
  ev_rng_seed(&r, 1, 1);
  uint32_t out[3];
  size_t n = 9;
  static const float none[] = {-INFINITY, -INFINITY}, bad[] = {0, NAN}, worse[] = {INFINITY};
  assert_int_equal(ev_gumbel_topk(out, &n, NULL, 0, 3, &r), EV_OK);
  assert_true(n == 0 && out[2] == EV_NONE);
  assert_int_equal(ev_gumbel_topk(out, &n, none, 2, 3, &r), EV_OK);
  assert_true(n == 0 && out[0] == EV_NONE);
  assert_int_equal(ev_gumbel_topk(out, &n, none, 2, 0, &r), EV_OK);
  assert_int_equal(ev_gumbel_topk(out, &n, bad, 2, 1, &r), EV_EINVAL);
  assert_int_equal(ev_gumbel_topk(out, &n, worse, 1, 1, &r), EV_EINVAL);
  static const float fine[] = {1, 2};
  ASSERT_SURVIVES_FAULTS(ev_gumbel_topk(out, &n, fine, 2, 1, &r), (void)0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(alias_draws_have_their_probabilities), cmocka_unit_test(an_alias_table_holds_the_exact_probabilities), cmocka_unit_test(weights_that_are_none_are_refused),
      cmocka_unit_test(draws_without_replacement_have_their_probabilities), cmocka_unit_test(long_columns_are_drawn_from_alike),
      cmocka_unit_test(what_is_sorted_out_would_not_have_been_drawn), cmocka_unit_test(odd_samples),
  };
  return RUN(tests);
}
