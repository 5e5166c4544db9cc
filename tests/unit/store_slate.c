/* store_slate.c - slates against naive versions on random slates. */
#include "slates.h"

static bool same(float x, float y) { return x == y || (isnan(x) && isnan(y)); }

static void assert_is(ev_slate *s, const row *rows, size_t n) {
  assert_int_equal(ev_slate_n(s), n);
  assert_int_equal(ev_slate_n_columns(s), EXTRA);
  for (int c = 0; c < EXTRA; c++) {
    assert_string_equal(ev_slate_column_name(s, (size_t)c), extras[c]);
    for (size_t i = 0; i < n; i++) assert_true(ev_slate_find(s, extras[c])[i] == rows[i].extra[c]);
  }
  for (size_t i = 0; i < n; i++)
    assert_true(ev_slate_items(s)[i] == rows[i].item && ev_slate_sources(s)[i] == rows[i].source && same(ev_slate_scores(s)[i], rows[i].score));
}

static bool goes_before(row a, row b) {
  if (isnan(a.score) || isnan(b.score)) return isnan(a.score) && isnan(b.score) ? a.item < b.item : isnan(b.score);
  return a.score != b.score ? a.score > b.score : a.item < b.item;
}

static void sorting_cutting_and_moving_take_every_column_along(void **s) {
  (void)s;
  ev_rng r;
  row rows[MOST], moved[MOST];
  ev_slate *x = ev_slate_new(), *copy = ev_slate_new();
  for (uint64_t seed = 0; seed < 300; seed++) {
    ev_rng_seed(&r, seed, 0);
    size_t n = random_slate(x, rows, &r, ev_rng_below(&r, MOST), MOST, true);
    assert_is(x, rows, n);
    assert_int_equal(ev_slate_copy(copy, x), EV_OK);
    assert_int_equal(ev_slate_sort(x), EV_OK);
    assert_is(copy, rows, n); /* a copy is its own */
    for (size_t i = 1; i < n; i++) /* insertion sort */
      for (size_t j = i; j > 0 && goes_before(rows[j], rows[j - 1]); j--) {
        row swap = rows[j];
        rows[j] = rows[j - 1];
        rows[j - 1] = swap;
      }
    assert_is(x, rows, n);
    size_t best = ev_rng_below(&r, MOST + 2); /* some of them, none, or more than there are */
    assert_int_equal(ev_slate_best(copy, best), EV_OK);
    assert_is(copy, rows, best < n ? best : n);
    assert_int_equal(ev_slate_best(copy, best / 2), EV_OK); /* of what is in order */
    assert_is(copy, rows, best / 2 < n ? best / 2 : n);
    uint32_t order[MOST];
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
      size_t j = ev_rng_below(&r, (uint32_t)i);
      uint32_t swap = order[i - 1];
      order[i - 1] = order[j];
      order[j] = swap;
    }
    size_t kept = n > 0 ? ev_rng_below(&r, (uint32_t)n + 1) : 0;
    for (size_t i = 0; i < kept; i++) moved[i] = rows[order[i]];
    assert_int_equal(ev_slate_permute(x, order, kept), EV_OK);
    assert_is(x, moved, kept);
    ev_slate_truncate(x, kept + 1);
    assert_is(x, moved, kept);
    ev_slate_truncate(x, kept / 2);
    assert_is(x, moved, kept / 2);
    assert_int_equal(ev_slate_copy(x, x), EV_OK);
    assert_is(x, moved, kept / 2);
  }
  ev_slate_free(x);
  ev_slate_free(copy);
  ev_slate_free(NULL);
}

static void what_makes_no_sense_is_refused_and_changes_nothing(void **s) {
  (void)s;
  ev_slate *x = ev_slate_new();
  float *column, scores[4] = {1, 2, 3, 4};
  uint32_t none[1] = {0}, items[4] = {5, 6, EV_NONE, 7};
  assert_int_equal(ev_slate_permute(x, none, 0), EV_OK); /* an empty slate can be moved, sorted, copied */
  assert_int_equal(ev_slate_permute(x, none, 1), EV_EINVAL);
  assert_int_equal(ev_slate_sort(x), EV_OK);
  assert_int_equal(ev_slate_append(x, items, scores, 0, 1), EV_OK);
  assert_int_equal(ev_slate_append(x, items, scores, 4, 1), EV_OK); /* stops at the padding */
  assert_int_equal(ev_slate_n(x), 2);
  static const uint32_t orders[][2] = {{0, 0}, {1, 2}, {EV_NONE, 0}};
  for (size_t i = 0; i < 3; i++) assert_int_equal(ev_slate_permute(x, orders[i], 2), EV_EINVAL);
  assert_true(ev_slate_n(x) == 2 && ev_slate_items(x)[0] == 5 && ev_slate_items(x)[1] == 6);
  assert_int_equal(ev_slate_column(x, "a name of forty-eight bytes, that is one too many", &column), EV_EINVAL);
  assert_int_equal(ev_slate_column(x, "", &column), EV_EINVAL);
  for (int i = 0; i < EV_SLATE_MAX_COLUMNS; i++) {
    char name[16];
    snprintf(name, sizeof name, "%d", i);
    assert_int_equal(ev_slate_column(x, name, &column), EV_OK);
    column[0] = column[1] = 7;
  }
  assert_int_equal(ev_slate_column(x, "one more", &column), EV_ELIMIT);
  assert_int_equal(ev_slate_column(x, "63", &column), EV_OK);
  assert_null(ev_slate_find(x, "one more"));
  assert_int_equal(ev_slate_append(x, items, scores, 2, 2), EV_OK);
  assert_true(ev_slate_find(x, "63")[1] == 7 && ev_slate_find(x, "63")[2] == 0 && ev_slate_find(x, "0")[3] == 0);
  uint32_t *many = ev_zalloc(EV_SLATE_MAX_ITEMS, sizeof *many);
  float *zeros = ev_zalloc(EV_SLATE_MAX_ITEMS, sizeof *zeros);
  assert_int_equal(ev_slate_append(x, many, zeros, EV_SLATE_MAX_ITEMS - 3, 1), EV_ELIMIT);
  assert_int_equal(ev_slate_n(x), 4);
  assert_int_equal(ev_slate_append(x, many, zeros, EV_SLATE_MAX_ITEMS - 4, 1), EV_OK);
  assert_int_equal(ev_slate_n(x), EV_SLATE_MAX_ITEMS);
  ev_slate_clear(x);
  assert_true(ev_slate_n(x) == 0 && ev_slate_n_columns(x) == 0);
  assert_int_equal(ev_slate_append(x, items, scores, 2, 2), EV_OK);
  assert_int_equal(ev_slate_column(x, "new", &column), EV_OK); /* in memory another column had */
  assert_true(column[0] == 0 && column[1] == 0);
  ev_free(many);
  ev_free(zeros);
  ev_slate_free(x);
}

/* ---- Union ---------------------------------------------------------------------------------------------*/
static void a_union_has_each_item_once_and_knows_who_proposed_it(void **s) {
  (void)s;
  static const char *const names[3] = {"x", "y", "z"};
  static row rows[3][MOST];
  ev_slate *in[3] = {ev_slate_new(), ev_slate_new(), ev_slate_new()}, *out = ev_slate_new();
  for (uint64_t seed = 0; seed < 200; seed++) {
    ev_rng r;
    size_t n[3], m = 0, n_in = 1 + seed % 3;
    uint32_t items[3 * MOST];
    ev_rng_seed(&r, seed, 1);
    for (size_t k = 0; k < n_in; k++) n[k] = random_slate(in[k], rows[k], &r, ev_rng_below(&r, 60), 80, true);
    for (size_t k = 0; k < n_in; k++)
      for (size_t i = 0; i < n[k]; i++) {
        size_t at = 0;
        while (at < m && items[at] != rows[k][i].item) at++;
        if (at == m) items[m++] = rows[k][i].item;
      }
    assert_int_equal(ev_slate_union(out, in, names, n_in), EV_OK);
    assert_int_equal(ev_slate_n(out), m);
    assert_memory_equal(ev_slate_items(out), items, m * sizeof *items);
    assert_int_equal(ev_slate_n_columns(out), EXTRA + 2 * n_in);
    for (size_t at = 0; at < m; at++) {
      uint32_t sources = 0;
      float extra[EXTRA] = {0};
      bool held = false;
      for (size_t k = 0; k < n_in; k++) {
        char score[16], rank[16];
        size_t i = 0;
        snprintf(score, sizeof score, "score.%s", names[k]);
        snprintf(rank, sizeof rank, "rank.%s", names[k]);
        while (i < n[k] && rows[k][i].item != items[at]) i++;
        bool has = i < n[k];
        assert_true(ev_slate_find(out, rank)[at] == (has ? (float)i + 1 : 0));
        assert_true(same(ev_slate_find(out, score)[at], has ? rows[k][i].score : 0));
        if (has && !held) memcpy(extra, rows[k][i].extra, sizeof extra);
        if (has) sources |= rows[k][i].source, held = true;
      }
      assert_true(ev_slate_sources(out)[at] == sources && ev_slate_scores(out)[at] == 0);
      for (int c = 0; c < EXTRA; c++) assert_true(ev_slate_find(out, extras[c])[at] == extra[c]);
    }
  }
  assert_int_equal(ev_slate_union(in[0], in, names, 3), EV_EINVAL);
  uint32_t twice[3] = {4, 9, 4};
  float scores[3] = {5, 6, 7};
  ev_slate_clear(in[0]);
  assert_int_equal(ev_slate_append(in[0], twice, scores, 3, 1), EV_OK); /* an item twice counts at its best place */
  assert_int_equal(ev_slate_union(out, in, names, 1), EV_OK);
  assert_true(ev_slate_n(out) == 2 && ev_slate_find(out, "rank.x")[0] == 1 && ev_slate_find(out, "score.x")[0] == 5);
  for (int k = 0; k < 3; k++) ev_slate_free(in[k]);
  ev_slate_free(out);
}

static ev_status work(const ev_column *c) {
  static const char *const names[2] = {"x", "y"};
  const uint32_t items[5] = {1, 2, 3, 4, 5};
  const float scores[5] = {5, 4, 3, 2, 1};
  float *column;
  ev_slate *x = ev_slate_new(), *y = ev_slate_new(), *out = ev_slate_new();
  ev_slate *in[2] = {x, y};
  ev_status status = x == NULL || y == NULL || out == NULL ? EV_ENOMEM : EV_OK;
  for (int i = 0; i < 20 && status == EV_OK; i++) status = ev_slate_append(x, items, scores, 5, 1); /* grows twice */
  if (status == EV_OK) status = ev_slate_column(x, "c", &column);
  if (status == EV_OK) status = ev_slate_copy(y, x);
  if (status == EV_OK) status = ev_slate_union(out, in, names, 2);
  if (status == EV_OK) status = ev_slate_sort(out);
  if (status == EV_OK) status = ev_slate_mmr(out, c, 0.5f, 3);
  if (status == EV_OK) status = ev_slate_quota(out, c, 1, 3);
  ev_slate_free(x);
  ev_slate_free(y);
  ev_slate_free(out);
  return status;
}

static void slates_survive_faults(void **s) {
  (void)s;
  static catalogue c;
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  random_catalogue(&c, &r, EV_TOKEN_LIST);
  ASSERT_SURVIVES_FAULTS(work(&c.column), );
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sorting_cutting_and_moving_take_every_column_along), cmocka_unit_test(what_makes_no_sense_is_refused_and_changes_nothing),
      cmocka_unit_test(a_union_has_each_item_once_and_knows_who_proposed_it),
      cmocka_unit_test(slates_survive_faults),
  };
  return RUN(tests);
}
