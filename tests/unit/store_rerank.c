/* store_rerank.c - greedy re-ranking against each formula worked out anew at every place, on random slates. */
#include "slates.h"

static size_t place_of(const row *rows, size_t n, uint32_t item) {
  size_t i = 0;
  while (i < n && rows[i].item != item) i++;
  return i;
}

/* What mmr says of a candidate when the first `places` of the result are chosen: from the formula, in doubles. */
static double mmr_value(const catalogue *c, const row *rows, size_t n, size_t i, const uint32_t *result, size_t places, double lambda) {
  double lo = INFINITY, hi = -INFINITY, likeness = 0;
  for (size_t k = 0; k < n; k++)
    if (isfinite(rows[k].score)) lo = fmin(lo, rows[k].score), hi = fmax(hi, rows[k].score);
  double score = isfinite(rows[i].score) ? (hi > lo ? (rows[i].score - lo) / (hi - lo) : 0) : rows[i].score > 0;
  unsigned mine = set_of(c, rows[i].item);
  for (size_t p = 0; p < places; p++) {
    unsigned other = set_of(c, result[p]);
    if ((mine | other) != 0) likeness = fmax(likeness, (double)__builtin_popcount(mine & other) / __builtin_popcount(mine | other));
  }
  return lambda * score - (1 - lambda) * likeness;
}

static void mmr_takes_the_best_of_the_formula_at_every_place(void **s) {
  (void)s;
  static catalogue c;
  ev_slate *x = ev_slate_new();
  row rows[MOST];
  for (uint64_t seed = 0; seed < 300; seed++) {
    ev_rng r;
    ev_rng_seed(&r, seed, 2);
    random_catalogue(&c, &r, seed % 2 == 0 ? EV_TOKEN : EV_TOKEN_LIST);
    size_t n = random_slate(x, rows, &r, ev_rng_below(&r, 50), ITEMS + 5, true), places = ev_rng_below(&r, 60);
    float lambda = (float)ev_rng_below(&r, 5) / 4;
    assert_int_equal(ev_slate_mmr(x, &c.column, lambda, places), EV_OK);
    assert_int_equal(ev_slate_n(x), n);
    if (places > n) places = n;
    const uint32_t *result = ev_slate_items(x);
    bool taken[MOST] = {false};
    for (size_t p = 0; p < n; p++) {
      size_t chosen = place_of(rows, n, result[p]), first = 0;
      assert_true(chosen < n && !taken[chosen] && ev_slate_find(x, "b")[p] == rows[chosen].extra[1]);
      taken[chosen] = true;
      if (p >= places) { /* the rest keeps its order */
        while (first < chosen && taken[first]) first++;
        assert_int_equal(first, chosen);
        continue;
      }
      double value = mmr_value(&c, rows, n, chosen, result, p, lambda);
      for (size_t i = 0; i < n; i++)
        if (!taken[i]) assert_true(mmr_value(&c, rows, n, i, result, p, lambda) <= value + 1e-6);
    }
  }
  ev_slate_free(x);
}

static void a_quota_holds_and_gives_way_only_when_it_must(void **s) {
  (void)s;
  static catalogue c;
  ev_slate *x = ev_slate_new();
  row rows[MOST];
  for (uint64_t seed = 0; seed < 300; seed++) {
    ev_rng r;
    ev_rng_seed(&r, seed, 3);
    random_catalogue(&c, &r, seed % 2 == 0 ? EV_TOKEN : EV_TOKEN_LIST);
    size_t n = random_slate(x, rows, &r, ev_rng_below(&r, 50), ITEMS + 5, true), places = ev_rng_below(&r, 60), cap = ev_rng_below(&r, 4), m = 0;
    uint32_t expected[MOST];
    bool taken[MOST] = {false};
    for (size_t i = 0; i < n && m < places; i++) { /* taken when no token of it is at its cap among those before */
      bool room = true;
      for (unsigned t = 0; t < TOKENS; t++) {
        size_t share = 0;
        for (size_t k = 0; k < m; k++) share += set_of(&c, expected[k]) >> t & 1;
        if ((set_of(&c, rows[i].item) >> t & 1) && share >= cap) room = false;
      }
      if (room) taken[i] = true, expected[m++] = rows[i].item;
    }
    for (size_t i = 0; i < n; i++)
      if (!taken[i]) expected[m++] = rows[i].item;
    assert_int_equal(ev_slate_quota(x, &c.column, cap, places), EV_OK);
    assert_int_equal(ev_slate_n(x), n);
    assert_memory_equal(ev_slate_items(x), expected, n * sizeof *expected);
    for (size_t i = 0; i < n; i++) assert_true(ev_slate_find(x, "a")[i] == rows[place_of(rows, n, expected[i])].extra[0]);
  }
  ev_slate_clear(x);
  ev_slate *fresh = ev_slate_new();
  const ev_column numbers = {.name = "numbers", .type = EV_FLOAT};
  assert_int_equal(ev_slate_quota(fresh, &c.column, 1, 10), EV_OK); /* nothing to do, and no memory yet */
  assert_int_equal(ev_slate_mmr(fresh, &c.column, 0.5f, 10), EV_OK);
  assert_int_equal(ev_slate_quota(x, &numbers, 1, 10), EV_EINVAL);
  assert_int_equal(ev_slate_mmr(x, &numbers, 0.5f, 10), EV_EINVAL);
  ev_slate_free(fresh);
  ev_slate_free(x);
}

static void a_cap_counts_the_numbers_of_a_column(void **s) {
  (void)s;
  ev_slate *x = ev_slate_new();
  row rows[MOST];
  for (uint64_t seed = 0; seed < 300; seed++) {
    ev_rng r;
    ev_rng_seed(&r, seed, 5);
    size_t n = random_slate(x, rows, &r, ev_rng_below(&r, 50), ITEMS + 5, true), places = ev_rng_below(&r, 60), cap = 1 + ev_rng_below(&r, 3), m = 0;
    float *kind, of[MOST];
    uint32_t expected[MOST];
    bool taken[MOST] = {false};
    if (n == 0) continue;
    assert_int_equal(ev_slate_column(x, "kind", &kind), EV_OK);
    for (size_t i = 0; i < n; i++) of[i] = kind[i] = (float)ev_rng_below(&r, 6) - 2;
    size_t count[6] = {0};
    for (size_t i = 0; i < n && m < places; i++)
      if (count[(int)of[i] + 2]++ < cap) taken[i] = true, expected[m++] = rows[i].item;
    for (size_t i = 0; i < n; i++)
      if (!taken[i]) expected[m++] = rows[i].item;
    assert_int_equal(ev_slate_cap(x, "kind", cap, places), EV_OK);
    assert_memory_equal(ev_slate_items(x), expected, n * sizeof *expected);
    for (size_t i = 0; i < n; i++) assert_true(ev_slate_find(x, "kind")[i] == of[place_of(rows, n, expected[i])]);
    if (places > 0) assert_int_equal(ev_slate_cap(x, "none", cap, places), EV_EINVAL);
  }
  ev_slate_clear(x);
  assert_int_equal(ev_slate_cap(x, "kind", 1, 10), EV_OK); /* nothing to do */
  ev_slate_free(x);
}

/* ---- Determinantal point process ------------------------------------------------------------------------*/
static double scaled_score(const row *rows, size_t n, size_t i) {
  double lo = INFINITY, hi = -INFINITY;
  for (size_t k = 0; k < n; k++)
    if (isfinite(rows[k].score)) lo = fmin(lo, rows[k].score), hi = fmax(hi, rows[k].score);
  return isfinite(rows[i].score) ? (hi > lo ? (rows[i].score - lo) / (hi - lo) : 0) : rows[i].score > 0;
}

static double jaccard(unsigned a, unsigned b) { return (a | b) == 0 ? 0 : (double)__builtin_popcount(a & b) / __builtin_popcount(a | b); }

/* det of the kernel over the candidates in `of`, by elimination with the largest pivot. */
static double determinant(const catalogue *c, const row *rows, size_t n, const size_t *of, size_t m, double theta, double alike) {
  static double a[MOST][MOST];
  double det = 1;
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < m; j++) {
      double s = i == j ? 1 : alike * jaccard(set_of(c, rows[of[i]].item), set_of(c, rows[of[j]].item));
      a[i][j] = exp(0.5 * theta / (1 - theta) * (scaled_score(rows, n, of[i]) + scaled_score(rows, n, of[j]))) * s;
    }
  for (size_t k = 0; k < m; k++) {
    size_t pivot = k;
    for (size_t i = k; i < m; i++)
      if (fabs(a[i][k]) > fabs(a[pivot][k])) pivot = i;
    if (a[pivot][k] == 0) return 0;
    if (pivot != k) {
      det = -det;
      for (size_t j = 0; j < m; j++) {
        double swap = a[k][j];
        a[k][j] = a[pivot][j];
        a[pivot][j] = swap;
      }
    }
    det *= a[k][k];
    for (size_t i = k + 1; i < m; i++)
      for (size_t j = m; j-- > k;) a[i][j] -= a[i][k] / a[k][k] * a[k][j];
  }
  return det;
}

static void dpp_takes_what_makes_the_determinant_largest(void **s) {
  (void)s;
  static catalogue c;
  ev_slate *x = ev_slate_new();
  row rows[MOST];
  size_t stopped = 0, full = 0;
  for (uint64_t seed = 0; seed < 200; seed++) {
    ev_rng r;
    ev_rng_seed(&r, seed, 4);
    random_catalogue(&c, &r, seed % 2 == 0 ? EV_TOKEN : EV_TOKEN_LIST);
    size_t n = random_slate(x, rows, &r, ev_rng_below(&r, 30), ITEMS + 5, true), places = ev_rng_below(&r, 20), p = 0;
    float theta = (float)ev_rng_below(&r, 4) / 5, alike = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 0.9f : 0.3f;
    assert_int_equal(ev_slate_dpp(x, &c.column, theta, alike, places), EV_OK);
    assert_int_equal(ev_slate_n(x), n);
    if (places > n) places = n;
    const uint32_t *result = ev_slate_items(x);
    bool taken[MOST] = {false};
    size_t of[MOST];
    double before = 1, qualities = 1; /* det of what is chosen; Π qᵢ² */
    for (; p < places; p++) {
      size_t chosen = place_of(rows, n, result[p]);
      double most = 0, left = 0;
      assert_true(chosen < n && !taken[chosen]);
      for (size_t i = 0; i < n; i++) { /* the largest gain, and whether anything is left to gain */
        if (taken[i]) continue;
        of[p] = i;
        double det = determinant(&c, rows, n, of, p + 1, (double)theta, (double)alike), q = exp((double)theta / (1 - (double)theta) * scaled_score(rows, n, i));
        most = fmax(most, det);
        left = fmax(left, det / (before * q));
      }
      if (left < 1e-7) break; /* the kernel of what is chosen spans the rest */
      of[p] = chosen;
      double mine = determinant(&c, rows, n, of, p + 1, (double)theta, (double)alike);
      if (!(mine >= most * (1 - 1e-6))) fail_msg("seed %d, place %zu: determinant %g, %g can be had", (int)seed, p, mine, most);
      taken[chosen] = true;
      before = mine;
      qualities *= exp((double)theta / (1 - (double)theta) * scaled_score(rows, n, chosen));
      assert_true(mine <= qualities * (1 + 1e-9)); /* Hadamard */
    }
    p < places ? stopped++ : full++;
    for (size_t first = 0; p < n; p++) { /* the rest keeps its order */
      size_t chosen = place_of(rows, n, result[p]);
      while (taken[first]) first++;
      assert_int_equal(first, chosen);
      assert_true(ev_slate_find(x, "b")[p] == rows[chosen].extra[1]);
      taken[chosen] = true;
    }
  }
  assert_true(stopped > 10 && full > 10); /* both ends were seen */
  ev_slate_free(x);
}

/* ---- Calibration ---------------------------------------------------------------------------------------*/
static size_t shares(const catalogue *c, const uint32_t *items, size_t n, double share[TOKENS]) { /* mean over the items that have tokens */
  size_t with = 0;
  for (int t = 0; t < TOKENS; t++) share[t] = 0;
  for (size_t i = 0; i < n; i++) {
    if (set_of(c, items[i]) == 0) continue;
    with++;
    if (c->column.type == EV_TOKEN) share[c->codes[items[i]]]++;
    else /* a token twice in a list counts twice */
      for (uint64_t k = c->ptr[items[i]]; k < c->ptr[items[i] + 1]; k++) share[c->codes[k]] += 1.0 / (double)(c->ptr[items[i] + 1] - c->ptr[items[i]]);
  }
  for (int t = 0; t < TOKENS && with > 0; t++) share[t] /= (double)with;
  return with;
}

/* (1 − λ) Σ s − λ KL(p ‖ q~) of a whole list: Steck's equation, from nothing kept. */
static double calibrated_value(const catalogue *c, const row *rows, size_t n, const uint32_t *list, size_t m, const double *p, double lambda, double alpha) {
  double q[TOKENS], sum = 0, divergence = 0;
  shares(c, list, m, q);
  for (size_t i = 0; i < m; i++) sum += scaled_score(rows, n, place_of(rows, n, list[i]));
  for (int t = 0; t < TOKENS; t++)
    if (p[t] > 0) divergence += p[t] * log(p[t] / ((1 - alpha) * q[t] + alpha * p[t]));
  return (1 - lambda) * sum - lambda * divergence;
}

static void calibration_takes_the_best_of_the_formula_at_every_place(void **s) {
  (void)s;
  static catalogue c;
  ev_slate *x = ev_slate_new();
  row rows[MOST];
  for (uint64_t seed = 0; seed < 300; seed++) {
    ev_rng r;
    ev_rng_seed(&r, seed, 5);
    random_catalogue(&c, &r, seed % 2 == 0 ? EV_TOKEN : EV_TOKEN_LIST);
    size_t n = random_slate(x, rows, &r, ev_rng_below(&r, 50), ITEMS + 5, true), places = ev_rng_below(&r, 30), n_history = ev_rng_below(&r, 12);
    float lambda = (float)ev_rng_below(&r, 5) / 4, alpha = seed % 4 == 0 ? 0.2f : 0.01f;
    uint32_t history[12], list[MOST];
    double p[TOKENS];
    for (size_t i = 0; i < n_history; i++) history[i] = ev_rng_below(&r, ITEMS + 2);
    bool knows = shares(&c, history, n_history, p) > 0;
    assert_int_equal(ev_slate_calibrate(x, &c.column, history, n_history, lambda, alpha, places), EV_OK);
    assert_int_equal(ev_slate_n(x), n);
    if (places > n) places = n;
    const uint32_t *result = ev_slate_items(x);
    bool taken[MOST] = {false};
    for (size_t at = 0, first = 0; at < n; at++) {
      size_t chosen = place_of(rows, n, result[at]);
      assert_true(chosen < n && !taken[chosen] && ev_slate_find(x, "b")[at] == rows[chosen].extra[1]);
      if (!knows) assert_int_equal(chosen, at); /* nothing to calibrate to */
      if (at >= places) { /* the rest keeps its order */
        while (taken[first]) first++;
        assert_int_equal(first, chosen);
      } else if (knows) {
        list[at] = result[at];
        double value = calibrated_value(&c, rows, n, list, at + 1, p, (double)lambda, (double)alpha);
        for (size_t i = 0; i < n; i++) {
          if (taken[i]) continue;
          list[at] = rows[i].item;
          double other = calibrated_value(&c, rows, n, list, at + 1, p, (double)lambda, (double)alpha);
          if (!(other <= value + 1e-6)) fail_msg("seed %d, place %zu: %g, %g can be had", (int)seed, at, value, other);
        }
        list[at] = result[at];
      }
      taken[chosen] = true;
    }
  }
  ev_slate_free(x);
}

static void more_calibration_means_less_divergence(void **s) {
  (void)s;
  enum { WIDE = 60, PLACES = 10 };
  static catalogue c;
  ev_slate *x = ev_slate_new();
  row rows[MOST];
  double divergence[3] = {0};
  for (uint64_t seed = 0; seed < 100; seed++)
    for (int l = 0; l < 3; l++) {
      ev_rng r;
      ev_rng_seed(&r, seed, 6);
      random_catalogue(&c, &r, EV_TOKEN_LIST);
      random_slate(x, rows, &r, WIDE, ITEMS, true);
      uint32_t history[10];
      double p[TOKENS];
      for (int i = 0; i < 10; i++) history[i] = ev_rng_below(&r, ITEMS);
      if (shares(&c, history, 10, p) == 0) continue;
      assert_int_equal(ev_slate_calibrate(x, &c.column, history, 10, (float)l * 0.5f, 0.01f, PLACES), EV_OK);
      divergence[l] -= calibrated_value(&c, rows, ITEMS, ev_slate_items(x), PLACES, p, 1, 0.01);
    }
  if (!(divergence[1] < 0.7 * divergence[0] && divergence[2] < divergence[1])) fail_msg("divergences %g, %g, %g", divergence[0], divergence[1], divergence[2]);
  ev_slate_free(x);
}

static void options_that_make_no_sense_are_refused(void **s) {
  (void)s;
  static catalogue c;
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  random_catalogue(&c, &r, EV_TOKEN_LIST);
  const ev_column numbers = {.name = "numbers", .type = EV_FLOAT};
  const uint32_t history[1] = {1};
  ev_slate *x = ev_slate_new();
  assert_int_equal(ev_slate_dpp(x, &c.column, 0.5f, 1, 10), EV_OK); /* nothing to do, and no memory yet */
  assert_int_equal(ev_slate_calibrate(x, &c.column, history, 1, 0.5f, 0.01f, 10), EV_OK);
  assert_int_equal(ev_slate_dpp(x, &numbers, 0.5f, 1, 10), EV_EINVAL);
  assert_int_equal(ev_slate_calibrate(x, &numbers, history, 1, 0.5f, 0.01f, 10), EV_EINVAL);
  static const float thetas[] = {-0.1f, 1, NAN}, lambdas[] = {-0.1f, 1.1f, NAN}, alphas[] = {0, 1, NAN};
  for (int i = 0; i < 3; i++) {
    assert_int_equal(ev_slate_dpp(x, &c.column, thetas[i], 1, 10), EV_EINVAL);
    assert_int_equal(ev_slate_dpp(x, &c.column, 0.5f, lambdas[i], 10), EV_EINVAL);
    assert_int_equal(ev_slate_calibrate(x, &c.column, history, 1, lambdas[i], 0.01f, 10), EV_EINVAL);
    assert_int_equal(ev_slate_calibrate(x, &c.column, history, 1, 0.5f, alphas[i], 10), EV_EINVAL);
  }
  for (uint32_t i = 0; i < 5000; i++) assert_int_equal(ev_slate_append(x, &i, &(float){0}, 1, 0), EV_OK);
  assert_int_equal(ev_slate_dpp(x, &c.column, 0.5f, 1, 5000), EV_ELIMIT); /* its matrix would take 200 MB */
  ev_slate_free(x);
}

static ev_status work(const ev_column *c) {
  const uint32_t items[5] = {1, 2, 3, 4, 5};
  const float scores[5] = {5, 4, 3, 2, 1};
  ev_slate *x = ev_slate_new();
  ev_status status = x == NULL ? EV_ENOMEM : ev_slate_append(x, items, scores, 5, 1);
  if (status == EV_OK) status = ev_slate_mmr(x, c, 0.5f, 3);
  if (status == EV_OK) status = ev_slate_quota(x, c, 1, 3);
  if (status == EV_OK) status = ev_slate_cap(x, "score", 1, 3);
  if (status == EV_OK) status = ev_slate_dpp(x, c, 0.5f, 0.9f, 3);
  if (status == EV_OK) status = ev_slate_calibrate(x, c, items, 5, 0.5f, 0.01f, 3);
  ev_slate_free(x);
  return status;
}

static void re_ranking_survives_faults(void **s) {
  (void)s;
  static catalogue c;
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  random_catalogue(&c, &r, EV_TOKEN_LIST);
  ASSERT_SURVIVES_FAULTS(work(&c.column), );
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(mmr_takes_the_best_of_the_formula_at_every_place), cmocka_unit_test(a_quota_holds_and_gives_way_only_when_it_must),
      cmocka_unit_test(a_cap_counts_the_numbers_of_a_column),
      cmocka_unit_test(dpp_takes_what_makes_the_determinant_largest), cmocka_unit_test(calibration_takes_the_best_of_the_formula_at_every_place),
      cmocka_unit_test(more_calibration_means_less_divergence), cmocka_unit_test(options_that_make_no_sense_are_refused),
      cmocka_unit_test(re_ranking_survives_faults),
  };
  return RUN(tests);
}
