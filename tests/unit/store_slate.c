/* store_slate.c - slates and their re-ranking against naive versions on random slates. */
#include <math.h>

#include "store/store.h"
#include "support.h"

enum { MOST = 200, EXTRA = 3 };

typedef struct row { /* a candidate of the naive slate */
  uint32_t item, source;
  float score, extra[EXTRA];
} row;

static const char *const extras[EXTRA] = {"a", "b", "a name of forty-seven bytes, which is the limit"};

static float random_score(ev_rng *r) { /* few values, so that there are ties, and what no recall should send but one may */
  uint32_t kind = ev_rng_below(r, 30);
  return kind == 0 ? NAN : kind == 1 ? INFINITY : kind == 2 ? -INFINITY : (float)ev_rng_below(r, 12) / 4 - 1;
}

static size_t random_slate(ev_slate *s, row *rows, ev_rng *r, size_t n, uint32_t n_items, bool distinct) {
  ev_slate_clear(s);
  float *column[EXTRA];
  uint32_t pool[MOST];
  for (uint32_t i = 0; i < n_items && i < MOST; i++) pool[i] = i;
  if (distinct && n > n_items) n = n_items;
  for (size_t i = 0; i < n; i++) {
    uint32_t swap, j = (uint32_t)i + ev_rng_below(r, n_items - (uint32_t)(distinct ? i : 0)), item = distinct ? pool[j] : ev_rng_below(r, n_items);
    if (distinct) swap = pool[i], pool[i] = pool[j], pool[j] = swap;
    rows[i] = (row){item, 1u << ev_rng_below(r, 32), random_score(r), {0}};
    assert_int_equal(ev_slate_append(s, &rows[i].item, &rows[i].score, 1, rows[i].source), EV_OK);
  }
  for (int c = 0; c < EXTRA; c++) {
    assert_int_equal(ev_slate_column(s, extras[c], &column[c]), EV_OK);
    for (size_t i = 0; i < n; i++) {
      assert_true(column[c][i] == 0);
      column[c][i] = rows[i].extra[c] = (float)ev_rng_normal(r);
    }
  }
  return n;
}

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

/* ---- Re-ranking ----------------------------------------------------------------------------------------*/
enum { ITEMS = 60, TOKENS = 8, LONGEST = 4 };
typedef struct catalogue { /* a random column of tokens; lists may repeat one */
  uint64_t ptr[ITEMS + 1];
  uint32_t codes[ITEMS * LONGEST];
  ev_column column;
} catalogue;

static void random_catalogue(catalogue *c, ev_rng *r, ev_column_type type) {
  c->ptr[0] = 0;
  for (size_t i = 0; i < ITEMS; i++) {
    if (type == EV_TOKEN) {
      c->codes[i] = ev_rng_below(r, 6) == 0 ? EV_NONE : ev_rng_below(r, TOKENS);
      continue;
    }
    c->ptr[i + 1] = c->ptr[i] + ev_rng_below(r, LONGEST + 1);
    for (uint64_t k = c->ptr[i]; k < c->ptr[i + 1]; k++) c->codes[k] = ev_rng_below(r, TOKENS);
  }
  c->column = (ev_column){.name = "tokens", .type = type, .n_rows = ITEMS, .codes = c->codes, .ptr = type == EV_TOKEN ? NULL : c->ptr, .n_tokens = TOKENS};
}

static unsigned set_of(const catalogue *c, uint32_t item) { /* an item's tokens as bits */
  unsigned set = 0;
  if (item >= ITEMS) return 0;
  if (c->column.type == EV_TOKEN) return c->codes[item] == EV_NONE ? 0 : 1u << c->codes[item];
  for (uint64_t k = c->ptr[item]; k < c->ptr[item + 1]; k++) set |= 1u << c->codes[k];
  return set;
}

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
      cmocka_unit_test(a_union_has_each_item_once_and_knows_who_proposed_it), cmocka_unit_test(mmr_takes_the_best_of_the_formula_at_every_place),
      cmocka_unit_test(a_quota_holds_and_gives_way_only_when_it_must), cmocka_unit_test(slates_survive_faults),
  };
  return RUN(tests);
}
