/* math_scan.c - the k best rows against all scores sorted: every form, filters, ties, few and many queries, any thread count. */
#include <math.h>

#include "math/math.h"
#include "support.h"

static const char *const sets[] = {"scalar", "avx2", "avx512", "avx512vnni", "neon"};
#define N_SETS (sizeof sets / sizeof *sets)

typedef struct world {
  size_t m, n, d, k, stride;
  ev_form form;
  float *q, *x, *scales, *bias; /* x: what the rows stand for, scales left out */
  float *query;                 /* what the queries stand for */
  char *rows;
  uint64_t *allowed, *seen_ptr;
  uint32_t *seen;
} world;

static world make(size_t m, size_t n, size_t d, size_t k, ev_form form, uint64_t seed, bool whole) {
  world w = {.m = m, .n = n, .d = d, .k = k, .form = form, .stride = d * ev_form_bytes(form) + (seed % 3) * 4};
  ev_rng r;
  ev_rng_seed(&r, seed, 1);
  w.q = ev_alloc(m * d + 1, sizeof *w.q), w.query = ev_alloc(m * d + 1, sizeof *w.q), w.x = ev_alloc(n * d + 1, sizeof *w.x);
  w.scales = ev_alloc(n, sizeof *w.scales), w.bias = ev_alloc(n, sizeof *w.bias), w.rows = ev_zalloc(n * w.stride + 1, 1);
  w.allowed = ev_zalloc((n + 63) / 64, 8), w.seen_ptr = ev_alloc(m + 1, 8), w.seen = ev_alloc(m * 40, 4);
  for (size_t i = 0; i < m * d; i++) w.q[i] = whole ? (float)ev_rng_below(&r, 5) - 2 : (float)ev_rng_normal(&r); /* whole: many ties, no rounding */
  for (size_t i = 0; i < n * d; i++) w.x[i] = whole ? (float)ev_rng_below(&r, 3) - 1 : (float)ev_rng_normal(&r);
  float scale, *code = ev_alloc(d + 1, sizeof *code);
  for (size_t i = 0; i < m; i++) {
    ev_form_encode(code, &scale, w.q + i * d, form == EV_FORM_I8 ? form : EV_FORM_F32, d);
    ev_form_decode(w.query + i * d, code, scale, form == EV_FORM_I8 ? form : EV_FORM_F32, d);
  }
  for (size_t i = 0; i < n; i++) {
    ev_form_encode(w.rows + i * w.stride, &w.scales[i], w.x + i * d, form, d);
    ev_form_decode(w.x + i * d, w.rows + i * w.stride, 1, form, d);
    w.bias[i] = whole ? (float)ev_rng_below(&r, 3) : (float)ev_rng_normal(&r);
    if (!whole) w.scales[i] *= 0.5f + (float)ev_rng_f64(&r);
  }
  ev_free(code);
  uint64_t at = 0;
  for (size_t i = 0; i < m; i++) {
    w.seen_ptr[i] = at;
    uint64_t row = ev_rng_below(&r, 9);
    for (int j = 0; j < 40 && row < n; j++) w.seen[at++] = (uint32_t)row, row += 1 + ev_rng_below(&r, (uint32_t)(n / 20 + 2));
  }
  w.seen_ptr[m] = at;
  return w;
}

static void destroy(world *w) {
  void *blocks[] = {w->q, w->query, w->x, w->scales, w->bias, w->rows, w->allowed, w->seen_ptr, w->seen};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
}

/* As many rows as a share of `per_mille` allowed; some whole words empty or full. */
static void allow(world *w, uint32_t per_mille) {
  ev_rng r;
  ev_rng_seed(&r, per_mille, 2);
  memset(w->allowed, 0, (w->n + 63) / 64 * 8);
  for (size_t i = 0; i < (w->n + 63) / 64 * 64; i++) { /* bits behind the last row mean nothing */
    uint32_t share = i / 64 % 7 == 0 ? 0 : i / 64 % 7 == 1 ? 1000 : per_mille;
    if (ev_rng_below(&r, 1000) < share || i >= w->n) w->allowed[i / 64] |= 1ull << (i % 64);
  }
}

typedef struct scored {
  double score;
  uint32_t id;
} scored;

static int best_first(const void *a, const void *b) {
  const scored *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return x->id < y->id ? -1 : 1;
}

static const char *describe(const world *w, const ev_scan *s, size_t query) {
  static char text[200];
  snprintf(text, sizeof text, "%s %s: m %zu n %zu d %zu k %zu, %s%s%s%squery %zu", ev_simd_name(), ev_form_name(w->form), w->m, w->n, w->d, w->k,
           s->allowed ? "allowed " : "", s->seen_ptr ? "seen " : "", s->bias ? "bias " : "", s->scales ? "scales " : "", query);
  return text;
}

/* `exact`: sums without rounding, so ids must be those of the sort, ties too; else each must be as good as its place. */
static void check(const world *w, const ev_scan *s, bool exact) {
  uint32_t *ids = ev_alloc(w->m * w->k, 4), *again = ev_alloc(w->m * w->k, 4);
  float *scores = ev_alloc(w->m * w->k, 4), *more = ev_alloc(w->m * w->k, 4);
  scored *all = ev_alloc(w->n, sizeof *all);
  ev_threads_set(1);
  assert_int_equal(ev_scan_topk(ids, scores, w->q, w->m, w->k, s), EV_OK);
  for (int threads = 2; threads <= 5; threads += 3) {
    ev_threads_set(threads);
    assert_int_equal(ev_scan_topk(again, more, w->q, w->m, w->k, s), EV_OK);
    assert_memory_equal(ids, again, w->m * w->k * 4);
    assert_memory_equal(scores, more, w->m * w->k * 4);
  }
  for (size_t i = 0; i < w->m; i++) {
    size_t n = 0;
    for (size_t j = 0; j < w->n; j++) {
      bool seen = false;
      for (uint64_t e = w->seen_ptr[i]; s->seen_ptr != NULL && e < w->seen_ptr[i + 1]; e++) seen |= w->seen[e] == j;
      if (seen || (s->allowed != NULL && (w->allowed[j / 64] >> (j % 64) & 1) == 0)) continue;
      double sum = 0;
      for (size_t c = 0; c < w->d; c++) sum += (double)w->query[i * w->d + c] * w->x[j * w->d + c];
      all[n++] = (scored){sum * (s->scales != NULL ? s->scales[j] : 1) + (s->bias != NULL ? s->bias[j] : 0), (uint32_t)j};
    }
    qsort(all, n, sizeof *all, best_first);
    for (size_t c = 0; c < w->k; c++) {
      uint32_t id = ids[i * w->k + c];
      float score = scores[i * w->k + c];
      if (c >= n) {
        if (id != EV_NONE || score != -INFINITY) fail_msg("%s: place %zu of %zu is used", describe(w, s, i), c, n);
      } else if (exact) {
        if (id != all[c].id || fabs(score - all[c].score) > 1e-5) fail_msg("%s: place %zu: %u (%g), not %u (%g)", describe(w, s, i), c, id, score, all[c].id, all[c].score);
      } else {
        double slack = 1e-4 * (1 + fabs(all[c].score));
        size_t at = 0;
        while (at < n && all[at].id != id) at++;
        if (at == n || fabs(all[at].score - all[c].score) > slack || fabs(score - all[at].score) > slack)
          fail_msg("%s: place %zu: %u (%g), not %u (%g)", describe(w, s, i), c, id, score, all[c].id, all[c].score);
        for (size_t e = 0; e < c; e++) assert_true(ids[i * w->k + e] != id);
        assert_true(c == 0 || scores[i * w->k + c - 1] >= score);
      }
    }
  }
  ev_threads_set(0);
  void *blocks[] = {ids, again, scores, more, all};
  for (int i = 0; i < 5; i++) ev_free(blocks[i]);
}

static void check_all_filters(world *w, bool exact) {
  static const uint32_t shares[] = {1000, 500, 30, 0};
  for (unsigned kind = 0; kind < 8; kind++) {
    ev_scan s = {.rows = w->rows, .form = w->form, .stride = w->stride, .n = w->n, .d = w->d, .scales = kind & 1 || w->form == EV_FORM_I8 ? w->scales : NULL,
                 .bias = kind & 2 ? w->bias : NULL, .seen_ptr = kind & 4 ? w->seen_ptr : NULL, .seen = w->seen};
    check(w, &s, exact);
    s.allowed = w->allowed;
    allow(w, shares[kind % 4]);
    check(w, &s, exact);
  }
}

static void the_best_rows_are_those_of_a_sort(void **state) {
  (void)state;
  static const size_t shapes[][4] = {{1, 2000, 33, 10}, {3, 1300, 7, 200}, {9, 900, 48, 30}, {27, 900, 31, 30}, {70, 600, 20, 5}, {1, 40, 300, 60}, {11, 17, 1, 20}, {2, 0, 8, 3}, {24, 0, 8, 3}, {1, 1, 0, 2}, {24, 5, 0, 2}};
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
      for (ev_form f = EV_FORM_F32; f <= EV_FORM_I8; f++) {
        world w = make(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], f, 10 * i + f, false);
        check_all_filters(&w, false);
        destroy(&w);
      }
    }
  }
}

static void ties_go_to_the_lower_row(void **state) {
  (void)state;
  static const size_t shapes[][4] = {{1, 3000, 4, 50}, {25, 1100, 3, 100}};
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t i = 0; i < 2; i++) {
      for (ev_form f = EV_FORM_F32; f <= EV_FORM_BF16; f++) { /* whole numbers: no rounding, in any order */
        world w = make(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], f, 10 * i + f, true);
        check_all_filters(&w, true);
        destroy(&w);
      }
    }
  }
}

/* Several chunks, and queries in two groups. */
static void large_scans_are_cut_without_a_seam(void **state) {
  (void)state;
  assert_int_equal(ev_simd_force("scalar"), EV_OK);
  for (size_t set = 0; set < N_SETS; set++) ev_simd_force(sets[set]); /* the last one there is */
  for (ev_form f = EV_FORM_F32; f <= EV_FORM_I8; f++) {
    for (size_t m = 1; m <= 26; m += 25) {
      world w = make(m, 40000, 5, 40, f, 77 + f, false);
      ev_scan s = {.rows = w.rows, .form = f, .stride = w.stride, .n = w.n, .d = w.d, .scales = w.scales, .seen_ptr = w.seen_ptr, .seen = w.seen};
      check(&w, &s, false);
      allow(&w, 20);
      s.allowed = w.allowed;
      check(&w, &s, false);
      destroy(&w);
    }
  }
  world w = make(1100, 300, 4, 7, EV_FORM_F32, 5, true);
  ev_scan s = {.rows = w.rows, .form = w.form, .stride = w.stride, .n = w.n, .d = w.d, .seen_ptr = w.seen_ptr, .seen = w.seen};
  check(&w, &s, true);
  destroy(&w);
}

static void numbers_that_are_none_are_never_chosen(void **state) {
  (void)state;
  for (size_t set = 0; set < N_SETS; set++) {
    if (ev_simd_force(sets[set]) != EV_OK) continue;
    for (size_t m = 1; m <= 25; m += 24) {
      world w = make(m, 50, 6, 50, EV_FORM_F32, 0, false);
      ev_scan s = {.rows = w.rows, .form = w.form, .stride = w.stride, .n = w.n, .d = w.d, .bias = w.bias};
      ((float *)(void *)w.rows)[7 * w.d] = NAN;
      w.bias[8] = -INFINITY;
      w.bias[9] = NAN;
      w.bias[10] = INFINITY;
      uint32_t ids[25 * 50];
      float scores[25 * 50];
      assert_int_equal(ev_scan_topk(ids, scores, w.q, m, 50, &s), EV_OK);
      for (size_t i = 0; i < m; i++) {
        assert_int_equal(ids[i * 50], 10);
        assert_true(ids[i * 50 + 46] != EV_NONE && ids[i * 50 + 47] == EV_NONE);
        for (size_t c = 0; c < 47; c++) assert_true(ids[i * 50 + c] != 7 && ids[i * 50 + c] != 8 && ids[i * 50 + c] != 9);
      }
      destroy(&w);
    }
  }
}

static void a_query_scores_alike_alone_and_in_a_batch(void **state) {
  (void)state;
  for (ev_form f = EV_FORM_F32; f <= EV_FORM_I8; f++) {
    world w = make(40, 3000, 64, 20, f, f, false);
    ev_scan s = {.rows = w.rows, .form = f, .stride = w.stride, .n = w.n, .d = w.d, .scales = f == EV_FORM_I8 ? w.scales : NULL};
    uint32_t ids[40 * 20], one[20];
    float scores[40 * 20], best[20];
    assert_int_equal(ev_scan_topk(ids, scores, w.q, w.m, w.k, &s), EV_OK);
    for (size_t i = 0; i < w.m; i++) {
      assert_int_equal(ev_scan_topk(one, best, w.q + i * w.d, 1, w.k, &s), EV_OK);
      for (size_t c = 0; c < w.k; c++) assert_true(fabsf(best[c] - scores[i * w.k + c]) <= 1e-5f * (1 + fabsf(best[c])));
    }
    destroy(&w);
  }
}

static void survives_faults_and_interruption(void **state) {
  (void)state;
  ev_threads_set(1);
  for (size_t m = 1; m <= 25; m += 24) {
    for (ev_form f = EV_FORM_F32; f <= EV_FORM_I8; f++) {
      world w = make(m, 700, 9, 5, f, f, false);
      allow(&w, 300);
      ev_scan s = {.rows = w.rows, .form = f, .stride = w.stride, .n = w.n, .d = w.d, .scales = w.scales, .allowed = w.allowed, .seen_ptr = w.seen_ptr, .seen = w.seen};
      uint32_t ids[125];
      float scores[125];
      ASSERT_SURVIVES_FAULTS(ev_scan_topk(ids, scores, w.q, m, 5, &s), (void)0);
      ev_interrupt();
      assert_int_equal(ev_scan_topk(ids, scores, w.q, m, 5, &s), EV_EINTR);
      ev_interrupt_clear();
      assert_int_equal(ev_scan_topk(ids, scores, w.q, m, 0, &s), EV_OK);
      assert_int_equal(ev_scan_topk(ids, scores, w.q, 0, 5, &s), EV_OK);
      destroy(&w);
    }
  }
  ev_threads_set(0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_best_rows_are_those_of_a_sort), cmocka_unit_test(ties_go_to_the_lower_row), cmocka_unit_test(large_scans_are_cut_without_a_seam),
      cmocka_unit_test(numbers_that_are_none_are_never_chosen), cmocka_unit_test(a_query_scores_alike_alone_and_in_a_batch), cmocka_unit_test(survives_faults_and_interruption),
  };
  return RUN(tests);
}
