/* Small products and attention, on every instruction set that this processor has, against sums in double. */
#include <math.h>

#include "math/math.h"
#include "support.h"

static const char *const paths[] = {"scalar", "avx2", "avx512", "avx512vnni", "neon"};

static void fill(float *x, size_t n, ev_rng *r) {
  for (size_t i = 0; i < n; i++) x[i] = (float)(2 * ev_rng_f64(r) - 1);
}

static float *numbers(size_t n, ev_rng *r) { /* exactly as long as it says, so that a sanitizer sees what reads beyond */
  float *x = malloc(n * sizeof *x);
  assert_non_null(x);
  fill(x, n, r);
  return x;
}

static void near(const char *path, const char *what, size_t at, double got, double want, double size) {
  if (!(fabs(got - want) <= 2e-6 * size + 1e-7)) fail_msg("%s: %s: element %zu is %.9g, not %.9g", path, what, at, got, want);
}

static void check_product(const char *path, size_t m, size_t n, size_t k, bool turn_a, bool turn_b, bool add, ev_rng *r) {
  size_t ld_a = (turn_a ? m : k) + 3, ld_b = (turn_b ? k : n) + 5, ld_out = n + 2, rows_a = turn_a ? k : m, rows_b = turn_b ? n : k;
  float *a = numbers(rows_a * ld_a, r), *b = numbers(rows_b * ld_b, r), *out = numbers(m * ld_out, r), *was = malloc(m * ld_out * sizeof *was);
  char what[64];
  assert_non_null(was);
  memcpy(was, out, m * ld_out * sizeof *was);
  snprintf(what, sizeof what, "(%zu, %zu)(%zu, %zu) turned %d %d, added %d", m, k, k, n, turn_a, turn_b, add);
  ev_gemm(out, ld_out, a, ld_a, turn_a, b, ld_b, turn_b, add, m, n, k);
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < ld_out; j++) {
      double sum = add ? was[i * ld_out + j] : 0, size = fabs(sum);
      if (j >= n) {
        assert_true(out[i * ld_out + j] == was[i * ld_out + j]);
        continue;
      }
      for (size_t p = 0; p < k; p++) {
        double x = (double)a[turn_a ? p * ld_a + i : i * ld_a + p] * b[turn_b ? j * ld_b + p : p * ld_b + j];
        sum += x, size += fabs(x);
      }
      near(path, what, i * n + j, out[i * ld_out + j], sum, size);
    }
  free(a), free(b), free(out), free(was);
}

static void products_are_their_sums_and_touch_nothing_else(void **state) {
  (void)state;
  const size_t sizes[][3] = {{1, 1, 1},  {1, 40, 70},  {2, 7, 0},   {4, 300, 5},  {5, 16, 9},   {6, 17, 31},   {7, 31, 64},  {8, 32, 8},    {13, 33, 50},  {64, 64, 64},
                             {9, 47, 3}, {12, 48, 20}, {31, 63, 2}, {33, 65, 17}, {20, 100, 200}, {150, 40, 130}, {3, 2, 1000}, {200, 150, 20}};
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
    if (ev_simd_force(paths[p]) != EV_OK) continue;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (int k = 0; k < 8; k++) check_product(paths[p], sizes[s][0], sizes[s][1], sizes[s][2], k & 1, k & 2, k & 4, &r);
  }
}

static void scaled_numbers_are_products(void **state) {
  (void)state;
  ev_rng r;
  ev_rng_seed(&r, 2, 0);
  for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
    if (ev_simd_force(paths[p]) != EV_OK) continue;
    for (size_t n = 0; n < 70; n++) {
      float *x = numbers(n + 1, &r), *out = numbers(n + 1, &r), behind = out[n];
      ev_scaled(out, x, -1.25f, n);
      for (size_t i = 0; i < n; i++) assert_true(out[i] == -1.25f * x[i]);
      assert_true(out[n] == behind);
      free(x), free(out);
    }
  }
}

/* ---- Attention: the definition, in double ----------------------------------------------------------------------*/
typedef struct world {
  ev_head h;
  size_t room;                                 /* floats from the first row's head to the end of the last one's */
  float *q, *k, *v, *out, *keep, *grad, *d[3]; /* of rows `stride` apart */
  double *p;                                   /* (n, n) probabilities */
} world;

static void open_world(world *w, size_t n, size_t d, size_t gap, bool causal, double spread, ev_rng *r) {
  w->h = (ev_head){n, d, d + gap, 5, causal};
  w->room = (n - 1) * w->h.stride + d;
  w->q = numbers(w->room, r), w->k = numbers(w->room, r), w->v = numbers(w->room, r), w->grad = numbers(w->room, r), w->out = numbers(w->room, r);
  w->keep = numbers((n - 1) * 5 + 2, r);
  for (int i = 0; i < 3; i++) w->d[i] = numbers(w->room, r);
  for (size_t i = 0; i < w->room; i++) w->q[i] *= (float)spread;
  w->p = calloc(n * n, sizeof *w->p);
  assert_non_null(w->p);
  for (size_t t = 0; t < n; t++) {
    double most = -INFINITY, sum = 0, *p = w->p + t * n;
    size_t to = causal ? t + 1 : n;
    for (size_t j = 0; j < to; j++) {
      for (size_t c = 0; c < d; c++) p[j] += (double)w->q[t * w->h.stride + c] * w->k[j * w->h.stride + c];
      p[j] /= sqrt((double)d);
      if (p[j] > most) most = p[j];
    }
    for (size_t j = 0; j < to; j++) sum += p[j] = exp(p[j] - most);
    for (size_t j = 0; j < to; j++) p[j] /= sum;
  }
}

static void close_world(world *w) {
  free(w->q), free(w->k), free(w->v), free(w->out), free(w->keep), free(w->grad), free(w->p);
  for (int i = 0; i < 3; i++) free(w->d[i]);
}

static void check_attention(const char *path, size_t n, size_t d, size_t gap, bool causal, double spread, ev_rng *r) {
  const bool add[3] = {n % 2 == 0, d % 2 == 0, causal};
  world w;
  open_world(&w, n, d, gap, causal, spread, r);
  size_t s = w.h.stride;
  char what[64];
  snprintf(what, sizeof what, "attention of %zu, size %zu, causal %d", n, d, causal);
  float *was[4] = {w.d[0], w.d[1], w.d[2], w.out};
  for (int i = 0; i < 4; i++) {
    float *copy = malloc(w.room * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, was[i], w.room * sizeof *copy);
    was[i] = copy;
  }
  double *want = calloc(3 * n * d, sizeof *want), most = 0;
  assert_non_null(want);
  ev_attend(w.out, w.keep, w.q, w.k, w.v, &w.h);
  ev_attend_back(w.d[0], w.d[1], w.d[2], add, w.q, w.k, w.v, w.out, w.keep, w.grad, &w.h);
  for (size_t t = 0; t < n; t++) {
    const double *p = w.p + t * n;
    double inner = 0;
    for (size_t c = 0; c < d; c++) {
      double o = 0;
      for (size_t j = 0; j < n; j++) o += p[j] * w.v[j * s + c];
      near(path, what, t * d + c, w.out[t * s + c], o, 4 * spread);
      inner += o * w.grad[t * s + c];
    }
    for (size_t j = 0; j < n; j++) {
      double dp = 0, ds;
      for (size_t c = 0; c < d; c++) dp += (double)w.grad[t * s + c] * w.v[j * s + c];
      ds = p[j] * (dp - inner) / sqrt((double)d);
      for (size_t c = 0; c < d; c++) {
        want[t * d + c] += ds * w.k[j * s + c];
        want[(n + j) * d + c] += ds * w.q[t * s + c];
        want[(2 * n + j) * d + c] += p[j] * w.grad[t * s + c];
      }
    }
  }
  for (int i = 0; i < 3; i++) {
    for (size_t e = most = 0; e < n * d; e++) most = fmax(most, fabs(want[(size_t)i * n * d + e]));
    for (size_t t = 0; t < n; t++)
      for (size_t c = 0; c < d; c++) {
        size_t e = t * s + c;
        near(path, what, e, w.d[i][e], (add[i] ? was[i][e] : 0) + want[((size_t)i * n + t) * d + c], 4 * spread * (most + 1));
      }
  }
  for (size_t e = 0; e < w.room; e++) /* what stands between the rows of this head is another's */
    for (int i = 0; i < 4 && e % s >= d; i++) assert_true((i < 3 ? w.d[i] : w.out)[e] == was[i][e]);
  for (int i = 0; i < 3; i++) { /* one gradient alone is the same as with the others */
    float *alone = malloc(w.room * sizeof *alone), *none[3] = {NULL, NULL, NULL};
    assert_non_null(alone);
    memcpy(alone, was[i], w.room * sizeof *alone);
    none[i] = alone;
    ev_attend_back(none[0], none[1], none[2], add, w.q, w.k, w.v, w.out, w.keep, w.grad, &w.h);
    assert_memory_equal(alone, w.d[i], w.room * sizeof *alone);
    free(alone);
  }
  for (int i = 0; i < 4; i++) free(was[i]);
  free(want);
  close_world(&w);
}

static void attention_is_what_its_definition_says(void **state) {
  (void)state;
  const size_t lengths[] = {1, 2, 5, 16, 31, 32, 33, 63, 64, 65, 97, 200}, sizes[] = {1, 5, 16, 32, 50, 64, 256};
  ev_rng r;
  ev_rng_seed(&r, 3, 0);
  for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
    if (ev_simd_force(paths[p]) != EV_OK) continue;
    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
      for (size_t d = 0; d < sizeof sizes / sizeof *sizes; d++)
        if (lengths[n] <= 65 || sizes[d] <= 32)
          for (int causal = 0; causal < 2; causal++) check_attention(paths[p], lengths[n], sizes[d], d % 3 * 4, causal, 1, &r);
  }
}

static void scores_far_apart_neither_overflow_nor_vanish(void **state) {
  (void)state;
  ev_rng r;
  ev_rng_seed(&r, 4, 0);
  for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
    if (ev_simd_force(paths[p]) != EV_OK) continue;
    for (int causal = 0; causal < 2; causal++) check_attention(paths[p], 150, 16, 0, causal, 300, &r);
  }
}

static void what_is_no_number_stays_none(void **state) {
  (void)state;
  ev_rng r;
  ev_rng_seed(&r, 5, 0);
  for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
    if (ev_simd_force(paths[p]) != EV_OK) continue;
    world w;
    open_world(&w, 40, 8, 0, true, 1, &r);
    w.k[20 * 8 + 3] = NAN;
    ev_attend(w.out, w.keep, w.q, w.k, w.v, &w.h);
    for (size_t t = 0; t < 40; t++)
      for (size_t c = 0; c < 8; c++) assert_true((t >= 20) == !isfinite(w.out[t * 8 + c]));
    close_world(&w);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(products_are_their_sums_and_touch_nothing_else),
      cmocka_unit_test(scaled_numbers_are_products),
      cmocka_unit_test(attention_is_what_its_definition_says),
      cmocka_unit_test(scores_far_apart_neither_overflow_nor_vanish),
      cmocka_unit_test(what_is_no_number_stays_none),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
