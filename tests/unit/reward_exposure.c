/* reward_exposure.c - shares, coverage and Gini as counting gives them, and each user's value as leaving him out gives it. */
#include <math.h>

#include "reward/reward.h"
#include "support.h"

enum { N = 40, STRIDE = 6, ITEMS = 30, TOKENS = 7 };

static const uint64_t token_ptr[TOKENS + 1] = {0, 1, 2, 3, 4, 5, 6, 7};
static uint64_t ptr[ITEMS + 1];
static uint32_t codes[ITEMS * 3];

static ev_column token_lists(ev_rng *r) { /* up to three tokens an item, some none, some one twice */
  uint64_t at = 0;
  for (size_t i = 0; i < ITEMS; i++) {
    ptr[i] = at;
    for (uint32_t k = ev_rng_below(r, 4); k > 0; k--) codes[at++] = ev_rng_below(r, TOKENS);
  }
  ptr[ITEMS] = at;
  return (ev_column){.name = "brand", .type = EV_TOKEN_LIST, .n_rows = ITEMS, .codes = codes, .ptr = ptr, .n_tokens = TOKENS, .token_ptr = token_ptr, .token_bytes = "abcdefg"};
}

static void draw_lists(uint32_t *items, ev_rng *r) { /* few items are shown often; some places are empty; some items twice */
  for (size_t i = 0; i < N * STRIDE; i++) {
    double x = ev_rng_f64(r);
    items[i] = ev_rng_f64(r) < 0.1 ? EV_NONE : (uint32_t)(x * x * (ITEMS - 5)); /* the last five never */
  }
}

static bool has(const ev_column *c, uint32_t item, uint32_t token) {
  const uint32_t *own;
  size_t n = ev_column_tokens(c, item, &own);
  for (size_t i = 0; i < n; i++)
    if (own[i] == token) return true;
  return false;
}

/* The figure by its definition, without user `out` (N: with all). token: of MAX, which was found with all. */
static double figure(const ev_exposure *x, uint32_t token, const uint32_t *items, size_t out) {
  double count[ITEMS] = {0}, places = 0, with = 0, above = 0, all = 0, shown = 0;
  for (size_t u = 0; u < N; u++)
    for (size_t r = 0; r < x->k && u != out; r++) {
      uint32_t i = items[u * STRIDE + r];
      if (i == EV_NONE) continue;
      count[i]++;
      places++;
      with += x->column != NULL && token != EV_NONE && has(x->column, i, token);
    }
  if (x->kind == EV_SHARE_MAX || x->kind == EV_SHARE_TOKEN) return places > 0 ? with / places : 0;
  for (size_t i = 0; i < ITEMS; i++) {
    shown += count[i] > 0;
    all += count[i];
    for (size_t j = 0; j < ITEMS; j++) above += fabs(count[i] - count[j]);
  }
  if (x->kind == EV_SHARE_COVERAGE) return shown / ITEMS;
  return all > 0 ? above / (2 * ITEMS * all) : 0; /* mean absolute difference over twice the mean */
}

static void each_users_value_is_what_leaving_him_out_changes(void **s) {
  (void)s;
  uint32_t items[N * STRIDE], token;
  float user[N];
  double value;
  ev_rng r;
  for (uint64_t seed = 0; seed < 20; seed++) {
    ev_rng_seed(&r, seed, 0);
    ev_column c = token_lists(&r);
    draw_lists(items, &r);
    const ev_exposure all[] = {{EV_SHARE_MAX, 5, &c, EV_NONE}, {EV_SHARE_TOKEN, 6, &c, 3}, {EV_SHARE_COVERAGE, 4, NULL, EV_NONE}, {EV_SHARE_GINI, 6, NULL, EV_NONE}};
    for (size_t m = 0; m < 4; m++) {
      assert_int_equal(ev_exposure_measure(&value, user, &token, items, STRIDE, N, ITEMS, &all[m]), EV_OK);
      double expected = figure(&all[m], token, items, N);
      if (fabs(value - expected) > 1e-12) fail_msg("seed %d, figure %d: %g, not %g", (int)seed, (int)m, value, expected);
      if (all[m].kind == EV_SHARE_MAX)
        for (uint32_t t = 0; t < TOKENS; t++)
          if (figure(&all[m], t, items, N) > value + 1e-12) fail_msg("seed %d: token %u has %g, the largest %g", (int)seed, t, figure(&all[m], t, items, N), value);
      for (size_t u = 0; u < N; u++) {
        double left_out = N * expected - (N - 1) * figure(&all[m], token, items, u);
        if (fabs((double)user[u] - left_out) > 1e-5) fail_msg("seed %d, figure %d, user %d: %g, not %g", (int)seed, (int)m, (int)u, (double)user[u], left_out);
      }
    }
  }
}

static void the_share_within_a_list_is_averaged_over_lists(void **s) {
  (void)s;
  uint32_t items[N * STRIDE], token;
  float user[N];
  double value, sum = 0;
  ev_rng r;
  ev_rng_seed(&r, 9, 0);
  ev_column c = token_lists(&r);
  draw_lists(items, &r);
  ev_exposure x = {EV_SHARE_SLATE, 6, &c, EV_NONE};
  assert_int_equal(ev_exposure_measure(&value, user, &token, items, STRIDE, N, ITEMS, &x), EV_OK);
  assert_int_equal(token, EV_NONE);
  for (size_t u = 0; u < N; u++) {
    double places = 0, most = 0;
    for (size_t k = 0; k < 6; k++) places += items[u * STRIDE + k] != EV_NONE;
    for (uint32_t t = 0; t < TOKENS; t++) {
      double with = 0;
      for (size_t k = 0; k < 6; k++) with += items[u * STRIDE + k] != EV_NONE && has(&c, items[u * STRIDE + k], t);
      most = fmax(most, with);
    }
    double own = places > 0 ? most / places : 0;
    assert_true(fabs((double)user[u] - own) < 1e-6);
    sum += own / N;
  }
  assert_true(fabs(value - sum) < 1e-9);
}

static void edges_and_errors(void **s) {
  (void)s;
  uint32_t items[4] = {EV_NONE, EV_NONE, EV_NONE, EV_NONE}, token;
  float user[2], numbers[ITEMS] = {0};
  double value;
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  ev_column c = token_lists(&r), none = {.name = "x", .type = EV_TOKEN_LIST, .n_rows = 0, .ptr = ptr}, floats = {.name = "y", .type = EV_FLOAT, .n_rows = ITEMS, .values = numbers};
  for (int kind = EV_SHARE_MAX; kind <= EV_SHARE_GINI; kind++) { /* nobody is shown anything */
    ev_exposure x = {(ev_exposure_kind)kind, 2, &c, 1}, empty = {(ev_exposure_kind)kind, 2, &none, 1}, beyond = {(ev_exposure_kind)kind, 3, &c, 1};
    assert_int_equal(ev_exposure_measure(&value, user, &token, items, 2, 2, ITEMS, &x), EV_OK);
    assert_true(value == 0 && user[0] == 0 && user[1] == 0);
    assert_int_equal(ev_exposure_measure(&value, user, &token, items, 2, 2, ITEMS, &empty), EV_OK);
    assert_true(value == 0);
    assert_int_equal(ev_exposure_measure(&value, user, &token, items, 2, 2, ITEMS, &beyond), EV_EINVAL);
    assert_int_equal(ev_exposure_measure(&value, user, &token, items, 2, 0, ITEMS, &x), EV_EINVAL);
    items[3] = ITEMS;
    assert_int_equal(ev_exposure_measure(&value, user, &token, items, 2, 2, ITEMS, &x), EV_EINVAL);
    items[3] = 3;
    ASSERT_SURVIVES_FAULTS(ev_exposure_measure(&value, user, &token, items, 2, 2, ITEMS, &x), );
    items[3] = EV_NONE;
  }
  ev_exposure x = {EV_SHARE_MAX, 2, &floats, EV_NONE};
  assert_int_equal(ev_exposure_measure(&value, user, &token, items, 2, 2, ITEMS, &x), EV_EINVAL);
  x.column = NULL;
  assert_int_equal(ev_exposure_measure(&value, user, &token, items, 2, 2, ITEMS, &x), EV_EINVAL);
  x = (ev_exposure){EV_SHARE_TOKEN, 2, &c, EV_NONE}; /* a token that nobody has */
  items[0] = 2;
  assert_int_equal(ev_exposure_measure(&value, user, &token, items, 2, 2, ITEMS, &x), EV_OK);
  assert_true(value == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_users_value_is_what_leaving_him_out_changes), cmocka_unit_test(the_share_within_a_list_is_averaged_over_lists),
      cmocka_unit_test(edges_and_errors),
  };
  return RUN(tests);
}
