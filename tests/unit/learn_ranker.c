/* learn_ranker.c - rankers on planted clicks: weights, ordering, interactions, sampling; scores against the formula. */
#include <math.h>

#include "import_world.h"
#include "learn/learn.h"

/* Users and items have a side, a or b; items a quality. Slates hold random items with planted columns. */
enum { USERS = 120, ITEMS = 200, SLATE = 40 };

static void open_world(ev_snapshot **s, bool other_sides) {
  ev_buf inter = {0}, users = {0}, items = {0};
  ev_buf_printf(&inter, "user,item\n");
  ev_buf_printf(&users, "user_id:token\tside:token\n");
  ev_buf_printf(&items, "item_id:token\tside:token\tquality:float\ttags:token_seq\n");
  for (int u = 0; u < USERS; u++) {
    ev_buf_printf(&inter, "u%d,i%d\nu%d,i%d\n", u, u, u, u + 5);
    ev_buf_printf(&users, "u%d\t%s\n", u, other_sides && u == 7 ? "c" : u % 2 == 0 ? "a" : "b");
  }
  for (int i = 0; i < ITEMS; i++) ev_buf_printf(&items, "i%d\t%s\t%d\tt%d t%d\n", i, i / 2 % 2 == 0 ? "a" : "b", i * 37 % 100, i % 3, 3 + i % 2);
  import_world(s, EV_SPLIT_AUTO, &inter, &users, &items);
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static bool on_side(const ev_snapshot *s, ev_side which, uint32_t row) { /* side a */
  const ev_column *c = ev_snapshot_column(s, which, "side");
  size_t len;
  return ev_column_token(c, c->codes[row], &len)[0] == 'a';
}

/* The planted chance of a click. */
typedef double chance(const ev_snapshot *s, uint32_t user, uint32_t item, const float *x, size_t at);

static double linear(const ev_snapshot *s, uint32_t user, uint32_t item, const float *x, size_t at) {
  (void)user;
  double quality = ev_snapshot_column(s, EV_ITEM, "quality")->values[item];
  return sigmoid(-1.5 + 1.6 * x[at] - 0.8 * x[SLATE + at] / 10 + 0.4 * (quality - 50) / 29);
}

static double alike(const ev_snapshot *s, uint32_t user, uint32_t item, const float *x, size_t at) {
  (void)x;
  (void)at;
  return on_side(s, EV_USER, user) == on_side(s, EV_ITEM, item) ? 0.7 : 0.1;
}

/* One slate: columns strong (unit variance), weak (variance 100), idle (no matter); what is clicked, ascending. */
static void draw(const ev_snapshot *s, ev_slate *slate, uint32_t user, chance *p, ev_rng *r, uint32_t *clicked, size_t *n_clicked, double *truth) {
  uint32_t order[ITEMS];
  float x[3 * SLATE], zero[SLATE] = {0};
  bool click[ITEMS] = {false};
  static const char *const names[] = {"strong", "weak", "idle"};
  for (uint32_t i = 0; i < ITEMS; i++) {
    uint32_t j = ev_rng_below(r, i + 1);
    order[i] = order[j];
    order[j] = i;
  }
  for (size_t i = 0; i < 3 * SLATE; i++) x[i] = (float)ev_rng_normal(r) * (i / SLATE == 1 ? 10 : 1);
  ev_slate_clear(slate);
  assert_int_equal(ev_slate_append(slate, order, zero, SLATE, 0), EV_OK);
  for (int c = 0; c < 3; c++) {
    float *column;
    assert_int_equal(ev_slate_column(slate, names[c], &column), EV_OK);
    memcpy(column, x + c * SLATE, SLATE * sizeof *column);
  }
  for (size_t i = 0; i < SLATE; i++) {
    double chance_of = p(s, user, order[i], x, i);
    click[order[i]] = ev_rng_f64(r) < chance_of;
    if (truth != NULL) truth[i] = chance_of;
  }
  *n_clicked = 0;
  for (uint32_t i = 0; i < ITEMS; i++)
    if (click[i]) clicked[(*n_clicked)++] = i;
}

static ev_rank_rows *clicks(const ev_snapshot *s, chance *p, size_t n_slates, const char *const *names, size_t n_names) {
  ev_rank_rows *rows;
  ev_slate *slate = ev_slate_new();
  ev_rng r;
  ev_rng_seed(&r, 11, 0);
  assert_int_equal(ev_rank_rows_new(&rows, names, n_names), EV_OK);
  for (size_t i = 0; i < n_slates; i++) {
    uint32_t clicked[ITEMS], user = (uint32_t)(i % USERS);
    size_t n;
    draw(s, slate, user, p, &r, clicked, &n, NULL);
    assert_int_equal(ev_rank_rows_add(rows, slate, user, clicked, n), EV_OK);
  }
  ev_slate_free(slate);
  return rows;
}

static double auc(const double *score, const bool *label, size_t n) {
  double right = 0, pairs = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n && label[i]; j++)
      if (!label[j]) pairs++, right += score[i] > score[j] ? 1 : score[i] == score[j] ? 0.5 : 0;
  return right / pairs;
}

/* Area under the curve over fresh slates: of the model, and of the planted chances, which none can beat but by luck. */
static double fresh_auc(const ev_snapshot *s, const char *path, chance *p, double *bayes) {
  enum { SLATES = 60 };
  static double score[SLATES * SLATE], truth[SLATES * SLATE];
  static bool label[SLATES * SLATE];
  ev_slate *slate = ev_slate_new();
  ev_model *m;
  ev_rng r;
  ev_rng_seed(&r, 99, 0);
  assert_int_equal(ev_model_open(&m, path), EV_OK);
  for (size_t i = 0; i < SLATES; i++) {
    uint32_t clicked[ITEMS], user = (uint32_t)(i % USERS);
    size_t n;
    float logit[SLATE];
    draw(s, slate, user, p, &r, clicked, &n, truth + i * SLATE);
    assert_int_equal(ev_ranker_score(m, s, slate, user, logit), EV_OK);
    for (size_t k = 0; k < SLATE; k++) {
      score[i * SLATE + k] = (double)logit[k];
      label[i * SLATE + k] = false;
      for (size_t c = 0; c < n; c++) label[i * SLATE + k] |= ev_slate_items(slate)[k] == clicked[c];
    }
  }
  ev_slate_free(slate);
  ev_model_close(m);
  *bayes = auc(truth, label, SLATES * SLATE);
  return auc(score, label, SLATES * SLATE);
}

static const char *const planted_names[] = {"strong", "weak", "idle"}, *const sides[] = {"side"}, *const quality[] = {"quality"},
                  *const all_columns[] = {"side", "quality", "tags"};

static const float *array_of(const ev_model *m, const char *name, size_t rows, size_t cols) {
  ev_array a;
  assert_true(ev_pack_find(ev_model_pack(m), name, &a) && a.rows == rows && a.cols == cols);
  return a.data;
}

static void logistic_regression_finds_the_planted_weights(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s, false);
  ev_rank_rows *rows = clicks(s, linear, 800, planted_names, 3);
  ev_ranker_options o = {.epochs = 8, .learning_rate = 0.05f, .regularization = 1e-5f, .item_columns = quality, .n_item_columns = 1, .seed = 1};
  assert_int_equal(ev_fit_ranker(in_folder("m"), s, rows, &o, NULL), EV_OK);
  ev_model *m;
  assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
  const float *w = array_of(m, "w", 4, 1), *mean = array_of(m, "mean", 4, 1), *std = array_of(m, "std", 4, 1);
  for (int f = 0; f < 3; f++) assert_true(fabsf(mean[f]) < 0.03f * (f == 1 ? 10 : 1) && fabsf(std[f] / (f == 1 ? 10 : 1) - 1) < 0.03f);
  assert_true(fabsf(mean[3] - 49.5f) < 1 && fabsf(std[3] - 28.9f) < 0.5f); /* 0 … 99, evenly */
  if (!(fabsf(w[0] - 1.6f) < 0.12f && fabsf(w[1] + 0.8f) < 0.12f && fabsf(w[2]) < 0.12f && fabsf(w[3] - 0.4f) < 0.12f))
    fail_msg("weights %g %g %g %g", (double)w[0], (double)w[1], (double)w[2], (double)w[3]);
  ev_model_close(m);
  double bayes, mine = fresh_auc(s, in_folder("m"), linear, &bayes);
  if (!(bayes > 0.8 && mine > bayes - 0.01)) fail_msg("area %g, %g at best", mine, bayes);
  ev_rank_rows_free(rows);
  ev_snapshot_close(s);
}

static void a_factorisation_machine_learns_a_pair_that_no_sum_can(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s, false);
  ev_rank_rows *rows = clicks(s, alike, 600, planted_names, 3);
  ev_ranker_options o = {.epochs = 8, .learning_rate = 0.1f, .regularization = 1e-5f, .user_columns = sides, .n_user_columns = 1,
                         .item_columns = sides, .n_item_columns = 1, .seed = 1};
  double bayes, sum, pairs;
  assert_int_equal(ev_fit_ranker(in_folder("m"), s, rows, &o, NULL), EV_OK);
  sum = fresh_auc(s, in_folder("m"), alike, &bayes);
  o.n_dims = 4;
  assert_int_equal(ev_fit_ranker(in_folder("m"), s, rows, &o, NULL), EV_OK);
  pairs = fresh_auc(s, in_folder("m"), alike, &bayes);
  if (!(bayes > 0.8 && fabs(sum - 0.5) < 0.05 && pairs > bayes - 0.02)) fail_msg("areas: sum %g, pairs %g, %g at best", sum, pairs, bayes);
  ev_rank_rows_free(rows);
  ev_snapshot_close(s);
}

/* bias + Σ w x + Σ_{a<b} ⟨vₐ, v_b⟩ xₐ x_b over the features of a candidate, pair by pair. */
static double formula(const ev_model *m, const ev_snapshot *s, uint32_t user, uint32_t item, const float *dense, size_t n_dims) {
  const ev_column *user_side = ev_snapshot_column(s, EV_USER, "side"), *side = ev_snapshot_column(s, EV_ITEM, "side");
  const ev_column *q = ev_snapshot_column(s, EV_ITEM, "quality"), *tags = ev_snapshot_column(s, EV_ITEM, "tags");
  enum { DENSE = 3, FEATURES = DENSE + 2 + 2 + 1 + 5, FIELDS = DENSE + 4 };
  double x[FEATURES] = {0};
  const float *w = array_of(m, "w", FEATURES, 1), *v = array_of(m, "v", FEATURES, n_dims);
  const float *mean = array_of(m, "mean", FIELDS, 1), *std = array_of(m, "std", FIELDS, 1);
  ev_array options;
  for (int f = 0; f < DENSE; f++) x[f] = ((double)dense[f] - mean[f]) / std[f];
  if (user != EV_NONE) x[3 + user_side->codes[user]] = 1;
  x[5 + side->codes[item]] = 1;
  x[7] = ((double)q->values[item] - mean[5]) / std[5];
  for (uint64_t t = tags->ptr[item]; t < tags->ptr[item + 1]; t++) x[8 + tags->codes[t]] += 1.0 / (double)(tags->ptr[item + 1] - tags->ptr[item]);
  assert_true(ev_pack_find(ev_model_pack(m), "options", &options));
  double y = ((const double *)options.data)[0];
  for (int a = 0; a < FEATURES; a++) {
    y += (double)w[a] * x[a];
    for (int b = 0; b < a; b++)
      for (size_t f = 0; f < n_dims; f++) y += (double)v[(size_t)a * n_dims + f] * v[(size_t)b * n_dims + f] * x[a] * x[b];
  }
  return y;
}

static void a_score_is_the_formula_of_its_features(void **state) {
  (void)state;
  static const char *const names[] = {"score", "rank.knn", "absent"};
  ev_snapshot *s;
  open_world(&s, false);
  ev_rank_rows *rows;
  ev_slate *slate = ev_slate_new();
  ev_rng r;
  ev_rng_seed(&r, 3, 3);
  assert_int_equal(ev_rank_rows_new(&rows, names, 3), EV_OK);
  for (uint32_t u = 0; u < 50; u++) {
    uint32_t clicked[ITEMS];
    size_t n;
    float *rank;
    draw(s, slate, u, alike, &r, clicked, &n, NULL);
    assert_int_equal(ev_slate_column(slate, "rank.knn", &rank), EV_OK);
    for (size_t i = 0; i < SLATE; i++) rank[i] = (float)ev_rng_below(&r, 30), ev_slate_scores(slate)[i] = (float)ev_rng_normal(&r);
    assert_int_equal(ev_rank_rows_add(rows, slate, u, clicked, n), EV_OK);
    for (size_t i = rows->n_rows - SLATE; i < rows->n_rows; i++) {
      size_t at = i - (rows->n_rows - SLATE), hits = 0;
      for (size_t c = 0; c < n; c++) hits += clicked[c] == ev_slate_items(slate)[at];
      assert_true(rows->label[i] == (float)hits && rows->group[i] == u && rows->user[i] == u && rows->item[i] == ev_slate_items(slate)[at]);
      assert_true(rows->dense[3 * i] == ev_slate_scores(slate)[at] && rows->dense[3 * i + 1] == rank[at] && rows->dense[3 * i + 2] == 0);
    }
  }
  for (unsigned d = 0; d <= 5; d += 5) {
    ev_ranker_options o = {.n_dims = d, .epochs = 3, .learning_rate = 0.1f, .user_columns = sides, .n_user_columns = 1,
                           .item_columns = all_columns, .n_item_columns = 3, .seed = 2};
    ev_model *m;
    assert_int_equal(ev_fit_ranker(in_folder("m"), s, rows, &o, NULL), EV_OK);
    assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
    for (int stranger = 0; stranger < 2; stranger++) {
      uint32_t user = stranger ? EV_NONE : 4;
      double expected[SLATE];
      const float *rank = ev_slate_find(slate, "rank.knn");
      for (size_t i = 0; i < SLATE; i++) {
        float dense[] = {ev_slate_scores(slate)[i], rank[i] > 0 ? (float)(1 / log2(1 + (double)rank[i])) : 0, 0};
        expected[i] = formula(m, s, user, ev_slate_items(slate)[i], dense, d);
      }
      assert_int_equal(ev_ranker_score(m, s, slate, user, ev_slate_scores(slate)), EV_OK); /* over its own feature */
      for (size_t i = 0; i < SLATE; i++)
        if (!(fabs(ev_slate_scores(slate)[i] - expected[i]) < 1e-4))
          fail_msg("%u dimensions, place %zu: %g, %g expected", d, i, (double)ev_slate_scores(slate)[i], expected[i]);
    }
    ev_model_close(m);
  }
  ev_rank_rows_free(rows);
  ev_slate_free(slate);
  ev_snapshot_close(s);
}

/* Half of the slates have one click in ten candidates, half one in two hundred; a column tells them apart. */
static ev_rank_rows *uneven(void) {
  static const char *const names[] = {"short"};
  ev_rank_rows *rows;
  ev_slate *slate = ev_slate_new();
  assert_int_equal(ev_rank_rows_new(&rows, names, 1), EV_OK);
  for (uint32_t g = 0; g < 400; g++) {
    size_t n = g % 2 == 0 ? 10 : ITEMS;
    float *is_short;
    ev_slate_clear(slate);
    uint32_t items[ITEMS], clicked[] = {g % 10};
    float zero[ITEMS] = {0};
    for (uint32_t i = 0; i < n; i++) items[i] = i;
    assert_int_equal(ev_slate_append(slate, items, zero, n, 0), EV_OK);
    assert_int_equal(ev_slate_column(slate, "short", &is_short), EV_OK);
    for (size_t i = 0; i < n; i++) is_short[i] = g % 2 == 0;
    assert_int_equal(ev_rank_rows_add(rows, slate, g % USERS, clicked, 1), EV_OK);
  }
  ev_slate_free(slate);
  return rows;
}

static void negatives_are_sampled_from_each_slates_own(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s, false);
  ev_rank_rows *rows = uneven();
  static const float per_positive[] = {0, 1, 4, 1000};
  for (int t = 0; t < 4; t++) {
    ev_ranker_options o = {.epochs = 1, .learning_rate = 0, .negatives_per_positive = per_positive[t], .seed = 3};
    ev_model *m;
    ev_array options;
    assert_int_equal(ev_fit_ranker(in_folder("m"), s, rows, &o, NULL), EV_OK); /* learns nothing: the bias is the sample's base rate */
    assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
    assert_true(ev_pack_find(ev_model_pack(m), "options", &options));
    double r = (double)per_positive[t], negatives = 400 * exp(-((const double *)options.data)[0]);
    double expected = t == 0 || t == 3 ? 200 * (9 + ITEMS - 1) : 400 * r, room = t == 0 || t == 3 ? 0.01 * expected : 5 * sqrt(expected);
    if (!(fabs(negatives - expected) < room)) fail_msg("%g a positive: %g negatives, %g expected", r, negatives, expected);
    ev_model_close(m);
    if (t > 1) continue;
    o = (ev_ranker_options){.epochs = 30, .learning_rate = 0.1f, .negatives_per_positive = per_positive[t], .seed = 3};
    assert_int_equal(ev_fit_ranker(in_folder("m"), s, rows, &o, NULL), EV_OK);
    assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
    double step = (double)(array_of(m, "w", 1, 1)[0] / array_of(m, "std", 1, 1)[0]); /* short against long */
    if (t == 0) assert_true(fabs(step - log(199.0 / 9)) < 0.3); /* all: a click is that much rarer in the long ones */
    else assert_true(fabs(step) < 0.4);                          /* one for one in each slate: no rarer */
    ev_model_close(m);
  }
  ev_rank_rows_free(rows);
  ev_snapshot_close(s);
}

static void other_data_and_wrong_options_are_refused(void **state) {
  (void)state;
  static const char *const missing[] = {"colour"};
  ev_snapshot *s, *other;
  open_world(&other, true);
  open_world(&s, false); /* the first snapshot stays mapped, though its file is replaced */
  ev_rank_rows *rows = clicks(s, linear, 10, planted_names, 3), *none;
  ev_slate *slate = ev_slate_new();
  ev_ranker_options o = {.epochs = 1, .learning_rate = 0.05f, .user_columns = sides, .n_user_columns = 1, .seed = 1}, bad;
  ev_model *m;
  float out[1], zero[1] = {0};
  uint32_t ids[1], items[1] = {3};
  uint64_t ptr[] = {0, 1};
  assert_int_equal(ev_fit_ranker(in_folder("m"), s, rows, &o, NULL), EV_OK);
  assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
  assert_string_equal(ev_model_kind(m), "ranker");
  assert_int_equal(ev_slate_append(slate, items, zero, 1, 0), EV_OK);
  assert_int_equal(ev_ranker_score(m, s, slate, 0, out), EV_OK);
  assert_int_equal(ev_ranker_score(m, other, slate, 0, out), EV_EINVAL);
  assert_int_equal(ev_model_recall(m, &(ev_requests){1, NULL, ptr, items, NULL, NULL}, 1, ids, out), EV_EINVAL);
  assert_int_equal(ev_model_score(m, &(ev_requests){1, NULL, ptr, items, NULL, NULL}, items, 1, out), EV_EINVAL);
  ev_model_close(m);
  assert_int_equal(ev_fit_item_scores(in_folder("m"), zero, 1), EV_OK);
  assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
  assert_int_equal(ev_ranker_score(m, s, slate, 0, out), EV_EINVAL);
  ev_model_close(m);
  bad = o, bad.user_columns = missing;
  assert_int_equal(ev_fit_ranker(in_folder("none"), s, rows, &bad, NULL), EV_EINVAL);
  bad = o, bad.n_dims = 1025;
  assert_int_equal(ev_fit_ranker(in_folder("none"), s, rows, &bad, NULL), EV_EINVAL);
  bad = o, bad.learning_rate = 1e38f, bad.n_dims = 2;
  assert_int_equal(ev_fit_ranker(in_folder("none"), s, rows, &bad, NULL), EV_EINVAL);
  ev_interrupt();
  assert_int_equal(ev_fit_ranker(in_folder("none"), s, rows, &o, NULL), EV_EINTR);
  ev_interrupt_clear();
  assert_int_equal(ev_rank_rows_new(&none, NULL, 0), EV_OK);
  assert_int_equal(ev_fit_ranker(in_folder("none"), s, none, &o, NULL), EV_EINVAL);
  assert_false(ev_file_exists(in_folder("none")));
  ev_rank_rows_free(none);
  ev_rank_rows_free(rows);
  ev_slate_free(slate);
  ev_snapshot_close(s);
  ev_snapshot_close(other);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(logistic_regression_finds_the_planted_weights), cmocka_unit_test(a_factorisation_machine_learns_a_pair_that_no_sum_can),
      cmocka_unit_test(a_score_is_the_formula_of_its_features),
      cmocka_unit_test(negatives_are_sampled_from_each_slates_own), cmocka_unit_test(other_data_and_wrong_options_are_refused),
  };
  return RUN(tests);
}
