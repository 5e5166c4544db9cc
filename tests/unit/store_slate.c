/* store_slate.c - slates and their re-ranking against naive versions on random slates; views against the snapshot they are of. */
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

/* ---- Views ---------------------------------------------------------------------------------------------*/
static ev_snapshot *random_snapshot(uint64_t seed, bool timed, ev_split split) {
  ev_buf b = {0};
  ev_rng r;
  ev_rng_seed(&r, seed, 4);
  ev_buf_printf(&b, timed ? "user,item,rating,time\n" : "user,item,rating\n");
  for (unsigned u = 0; u < 30; u++)
    for (unsigned i = 0; i < 20; i++) {
      if (ev_rng_below(&r, 4) != 0) continue;
      ev_buf_printf(&b, timed ? "u%u,i%u,%u,%u\n" : "u%u,i%u,%u\n", u, i * 7 % 20, ev_rng_below(&r, 5), ev_rng_below(&r, 1000));
    }
  char csv[96], out[96];
  snprintf(csv, sizeof csv, "%s/view.csv", folder);
  snprintf(out, sizeof out, "%s/view", folder);
  write_text(csv, b.data, b.len);
  ev_buf_free(&b);
  const char *file = csv;
  ev_import_options o;
  ev_snapshot *s;
  ev_import_defaults(&o);
  o.files = &file;
  o.n_files = 1;
  o.split = split;
  if (ev_import(&o, out) != EV_OK || ev_snapshot_open(&s, out) != EV_OK) fail_msg("%s", ev_error());
  return s;
}

/* The view holds the marked interactions in the snapshot's order, and both ways round say the same. */
static void assert_views(const ev_view *v, const ev_snapshot *s, const bool *marked) {
  const ev_csr *a = &v->by_user, *b = &v->by_item;
  const uint64_t *ptr = ev_snapshot_user_ptr(s);
  uint64_t at = 0;
  assert_true(a->n_rows == ev_snapshot_n_users(s) && a->n_cols == ev_snapshot_n_items(s) && b->n_rows == a->n_cols && b->n_cols == a->n_rows);
  assert_true((a->time != NULL) == (ev_snapshot_times(s) != NULL) && (b->time != NULL) == (a->time != NULL) && a->rating != NULL && b->rating != NULL);
  assert_ptr_equal(v->snapshot, s);
  for (size_t u = 0; u < a->n_rows; u++) {
    assert_int_equal(a->ptr[u], at);
    for (uint64_t i = ptr[u]; i < ptr[u + 1]; i++) {
      if (!marked[i]) continue;
      assert_true(at < a->ptr[u + 1]);
      assert_int_equal(a->idx[at], ev_snapshot_items(s)[i]);
      assert_true(a->rating[at] == ev_snapshot_ratings(s)[i]);
      if (a->time != NULL) assert_int_equal(a->time[at], ev_snapshot_times(s)[i]);
      size_t found = 0; /* and so it stands in its item's row, once */
      for (uint64_t k = b->ptr[a->idx[at]]; k < b->ptr[a->idx[at] + 1]; k++)
        found += b->idx[k] == u && b->rating[k] == a->rating[at] && (a->time == NULL || b->time[k] == a->time[at]);
      assert_int_equal(found, 1);
      size_t seen = 0;
      for (uint64_t k = a->ptr[u]; k < a->ptr[u + 1]; k++) seen += v->seen[k] == a->idx[at];
      assert_int_equal(seen, 1);
      at++;
    }
    for (uint64_t k = a->ptr[u] + 1; k < a->ptr[u + 1]; k++) assert_true(v->seen[k - 1] < v->seen[k]);
  }
  assert_int_equal(a->ptr[a->n_rows], at);
  assert_true(b->ptr[0] == 0 && b->ptr[b->n_rows] == at);
  for (size_t i = 0; i < b->n_rows; i++)
    for (uint64_t k = b->ptr[i] + 1; k < b->ptr[i + 1]; k++) assert_true(b->idx[k - 1] < b->idx[k]);
}

static void a_view_holds_its_folds_and_nothing_else(void **s) {
  (void)s;
  static bool marked[1000];
  for (uint64_t seed = 0; seed < 6; seed++) {
    ev_snapshot *x = random_snapshot(seed, seed % 2 == 0, seed % 4 == 0 ? EV_SPLIT_TIME : seed % 4 == 2 ? EV_SPLIT_LEAVE_ONE_OUT : EV_SPLIT_RATIO);
    size_t n = ev_snapshot_n_interactions(x), count[3] = {0};
    for (unsigned f = 0; f < 8; f++) {
      ev_view *v;
      assert_int_equal(ev_view_new(&v, x, f), EV_OK);
      assert_int_equal(v->folds, f);
      for (size_t i = 0; i < n; i++) {
        marked[i] = (f & ev_snapshot_folds(x)[i]) != 0;
        count[0] += f == EV_TRAIN && marked[i];
        count[1] += f == EV_VALID && marked[i];
        count[2] += f == EV_TEST && marked[i];
      }
      assert_views(v, x, marked);
      ev_view_free(v);
    }
    assert_true(count[0] > 0 && count[1] > 0 && count[2] > 0 && count[0] + count[1] + count[2] == n);
    ev_snapshot_close(x);
  }
  ev_view_free(NULL);
}

static void a_cut_view_holds_out_a_share_of_each_user(void **s) {
  (void)s;
  static bool kept[1000], out[1000];
  static const double values[] = {0, 0.2, 0.5, 1};
  for (size_t round = 0; round < 12; round++) {
    ev_snapshot *x = random_snapshot(round, true, round % 2 == 0 ? EV_SPLIT_LEAVE_ONE_OUT : EV_SPLIT_RATIO);
    ev_view *v, *rest, *held, *again[2];
    double share = values[round / 2 % 4];
    assert_int_equal(ev_snapshot_sequential(x), round % 2 == 0);
    assert_int_equal(ev_view_new(&v, x, EV_TRAIN), EV_OK);
    assert_int_equal(ev_view_split(&rest, &held, v, share, 9), EV_OK);
    for (size_t u = 0; u < v->by_user.n_rows; u++) {
      const uint64_t begin = ev_snapshot_user_ptr(x)[u], end = ev_snapshot_user_ptr(x)[u + 1];
      size_t m = v->by_user.ptr[u + 1] - v->by_user.ptr[u], place = 0, take = m < 2 ? 0 : (size_t)ceil(share * (double)m);
      if (take == m && m > 0) take--;
      assert_int_equal(held->by_user.ptr[u + 1] - held->by_user.ptr[u], take);
      for (uint64_t i = begin; i < end; i++) {
        kept[i] = out[i] = false;
        if (ev_snapshot_folds(x)[i] != EV_TRAIN) continue;
        for (uint64_t k = held->by_user.ptr[u]; k < held->by_user.ptr[u + 1]; k++) out[i] = out[i] || held->by_user.idx[k] == ev_snapshot_items(x)[i];
        kept[i] = !out[i];
        if (ev_snapshot_sequential(x)) assert_int_equal(out[i], place >= m - take); /* the last ones */
        place++;
      }
    }
    assert_views(rest, x, kept);
    assert_views(held, x, out);
    assert_int_equal(ev_view_split(&again[0], &again[1], v, share, round % 4 < 2 ? 9 : 10), EV_OK);
    size_t n = held->by_user.ptr[held->by_user.n_rows];
    bool equal = memcmp(held->by_user.idx, again[1]->by_user.idx, n * sizeof(uint32_t)) == 0;
    assert_int_equal(equal, ev_snapshot_sequential(x) || n == 0 || round % 4 < 2); /* where it is a choice, the seed makes it */
    ev_view *all[] = {v, rest, held, again[0], again[1]};
    for (int i = 0; i < 5; i++) ev_view_free(all[i]);
    ev_snapshot_close(x);
  }
}

static void views_survive_faults(void **s) {
  (void)s;
  ev_snapshot *x = random_snapshot(1, true, EV_SPLIT_TIME);
  ev_view *v, *rest, *held;
  ASSERT_SURVIVES_FAULTS(ev_view_new(&v, x, EV_TRAIN), );
  ASSERT_SURVIVES_FAULTS(ev_view_split(&rest, &held, v, 0.3, 1), );
  ev_view_free(v);
  ev_view_free(rest);
  ev_view_free(held);
  ev_snapshot_close(x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sorting_cutting_and_moving_take_every_column_along), cmocka_unit_test(what_makes_no_sense_is_refused_and_changes_nothing),
      cmocka_unit_test(a_union_has_each_item_once_and_knows_who_proposed_it), cmocka_unit_test(mmr_takes_the_best_of_the_formula_at_every_place),
      cmocka_unit_test(a_quota_holds_and_gives_way_only_when_it_must), cmocka_unit_test(slates_survive_faults),
      cmocka_unit_test(a_view_holds_its_folds_and_nothing_else), cmocka_unit_test(a_cut_view_holds_out_a_share_of_each_user),
      cmocka_unit_test(views_survive_faults),
  };
  return RUN(tests);
}
