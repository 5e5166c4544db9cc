/* learn_gbdt.c - boosted trees: every split against an exhaustive search, planted shapes, what tokens tell, options. */
#include <math.h>

#include "import_world.h"
#include "learn/learn.h"

enum { USERS = 60, ITEMS = 120, SLATE = 30, DENSE = 3, COLOURS = 6, TAGS = 5 };

/* ---- A small world ---------------------------------------------------------------------------------------*/
static int colour_of(unsigned i) { return i % 13 == 12 ? -1 : (int)(i * 7 % COLOURS); }
static double price_of(unsigned i) { return i % 11 == 10 ? NAN : (i * 37 % 101) / 3.0; }
static unsigned tags_of(unsigned i) { return i * 11 % 32; } /* as bits */
static int year_of(unsigned i) { return 1950 + (int)(i * 29 % 17); } /* tokens that are numbers */
static int town_of(unsigned u) { return (int)(u % 4); }

static void open_world(ev_snapshot **s) {
  ev_buf inter = {0}, users = {0}, items = {0};
  ev_buf_printf(&inter, "user,item\n");
  ev_buf_printf(&users, "user_id:token\ttown:token\n");
  ev_buf_printf(&items, "item_id:token\tcolour:token\tprice:float\tyear:token\ttags:token_seq\n");
  for (unsigned u = 0; u < USERS; u++) {
    for (unsigned i = 0; i < ITEMS; i++)
      if (u == 0 || (u + i) % 17 == 0) ev_buf_printf(&inter, "u%u,i%u\n", u, i);
    ev_buf_printf(&users, "u%u\ttown%d\n", u, town_of(u));
  }
  for (unsigned i = 0; i < ITEMS; i++) {
    ev_buf_printf(&items, "i%u\t", i);
    if (colour_of(i) >= 0) ev_buf_printf(&items, "c%d", colour_of(i));
    ev_buf_printf(&items, "\t");
    if (!isnan(price_of(i))) ev_buf_printf(&items, "%.9g", price_of(i));
    ev_buf_printf(&items, "\t%d\t", year_of(i));
    for (unsigned t = 0, n = 0; t < TAGS; t++)
      if (tags_of(i) >> t & 1) ev_buf_printf(&items, "%st%u", n++ > 0 ? " " : "", t);
    ev_buf_printf(&items, "\n");
  }
  import_world(s, EV_SPLIT_AUTO, &inter, &users, &items);
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static const char *const dense_names[DENSE] = {"a", "b", "c"}, *const user_columns[] = {"town"}, *const item_columns[] = {"colour", "price", "year", "tags"};

/* Slates of random items with three columns: a continuous, b of few values, c missing in a third of the rows. */
typedef double chance(uint32_t user, uint32_t item, const float *x);

static ev_rank_rows *clicks(chance *p, size_t n_slates, size_t n_dense, uint64_t seed) {
  ev_rank_rows *rows;
  ev_slate *slate = ev_slate_new();
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  assert_int_equal(ev_rank_rows_new(&rows, dense_names, n_dense), EV_OK);
  for (size_t g = 0; g < n_slates; g++) {
    uint32_t user = (uint32_t)(g % USERS), clicked[ITEMS], n = 0;
    bool hit[ITEMS] = {false}, in[ITEMS] = {false};
    float x[DENSE * SLATE];
    ev_slate_clear(slate);
    for (size_t k = 0; k < SLATE; k++) {
      uint32_t item = ev_rng_below(&r, ITEMS);
      while (in[item]) item = (item + 1) % ITEMS;
      in[item] = true;
      assert_int_equal(ev_slate_append(slate, &item, &(float){0}, 1, 0), EV_OK);
      x[k] = (float)ev_rng_normal(&r), x[SLATE + k] = (float)ev_rng_below(&r, 5), x[2 * SLATE + k] = ev_rng_below(&r, 3) == 0 ? NAN : (float)ev_rng_normal(&r);
      float own[DENSE] = {x[k], x[SLATE + k], x[2 * SLATE + k]};
      hit[item] = ev_rng_f64(&r) < p(user, item, own);
    }
    for (size_t c = 0; c < DENSE; c++) {
      float *column;
      assert_int_equal(ev_slate_column(slate, dense_names[c], &column), EV_OK);
      memcpy(column, x + c * SLATE, SLATE * sizeof *column);
    }
    for (uint32_t i = 0; i < ITEMS; i++)
      if (hit[i]) clicked[n++] = i;
    assert_int_equal(ev_rank_rows_add(rows, slate, user, clicked, n), EV_OK);
  }
  ev_slate_free(slate);
  return rows;
}

static double planted(uint32_t user, uint32_t item, const float *x) {
  double y = -0.4 + 1.2 * (x[0] > 0.3F) + 0.8 * x[0] * (x[1] == 2) + (isnan(x[2]) ? 0.9 : 0.5 * (x[2] < -0.5F)) + 0.7 * (colour_of(item) == 3);
  if (!isnan(price_of(item))) y += price_of(item) > 20 ? -0.8 : 0.2;
  return sigmoid(y + (tags_of(item) >> 2 & 1) - 0.6 * (year_of(item) > 1960) + 0.4 * (town_of(user) == 1));
}

/* ---- Exhaustive search ------------------------------------------------------------------------------------
 * The same trees from the formulas alone: every value of every column tried at every leaf, all sums over rows. */
enum { MOST = 4096, COLUMNS = 16 };
typedef struct table {
  size_t n, n_columns;
  bool category[COLUMNS]; /* a value against the rest; missing is a value like no other */
  double x[COLUMNS][MOST], label[MOST];
} table;

typedef struct choice {
  double gain, at;
  size_t column;
  bool missing_left;
} choice;

static bool goes_left(const table *t, const choice *c, size_t row) {
  double x = t->x[c->column][row];
  return t->category[c->column] ? x == c->at : isnan(x) ? c->missing_left : x <= c->at;
}

typedef struct naive_options {
  size_t n_leaves, max_depth;
  double l2, min_child, rate;
} naive_options;

static choice best_choice(const table *t, const size_t *leaf_of, size_t leaf, const double *g, const double *h, const naive_options *o) {
  choice best = {.gain = -INFINITY};
  double all_g = 0, all_h = 0;
  for (size_t i = 0; i < t->n; i++)
    if (leaf_of[i] == leaf) all_g += g[i], all_h += h[i];
  for (size_t j = 0; j < t->n_columns; j++) {
    bool some = false;
    for (size_t i = 0; i < t->n; i++) some |= leaf_of[i] == leaf && isnan(t->x[j][i]);
    for (size_t k = 0; k < t->n; k++) { /* the values of this leaf's rows are the thresholds that differ */
      if (leaf_of[k] != leaf || isnan(t->x[j][k])) continue;
      bool before = false; /* each value once */
      for (size_t i = 0; i < k && !before; i++) before = leaf_of[i] == leaf && t->x[j][i] == t->x[j][k];
      if (before) continue;
      for (int left = 0; left < (t->category[j] || !some ? 1 : 2); left++) {
        choice c = {.at = t->x[j][k], .column = j, .missing_left = left};
        double left_g = 0, left_h = 0;
        for (size_t i = 0; i < t->n; i++)
          if (leaf_of[i] == leaf && goes_left(t, &c, i)) left_g += g[i], left_h += h[i];
        double right_g = all_g - left_g, right_h = all_h - left_h;
        if (left_h < o->min_child || right_h < o->min_child) continue;
        c.gain = left_g * left_g / (left_h + o->l2) + right_g * right_g / (right_h + o->l2) - all_g * all_g / (all_h + o->l2);
        if (c.gain > best.gain * (1 + 1e-12)) best = c;
      }
    }
  }
  return best;
}

static void naive_boost(double *score, const table *t, size_t n_trees, double bias, const naive_options *o) {
  static double g[MOST], h[MOST];
  static size_t leaf_of[MOST];
  for (size_t i = 0; i < t->n; i++) score[i] = bias;
  for (size_t tree = 0; tree < n_trees; tree++) {
    choice best[64];
    size_t depth[64] = {0}, n_leaves = 1;
    for (size_t i = 0; i < t->n; i++) {
      double p = sigmoid(score[i]);
      g[i] = p - t->label[i], h[i] = p * (1 - p), leaf_of[i] = 0;
    }
    best[0] = best_choice(t, leaf_of, 0, g, h, o);
    while (n_leaves < o->n_leaves) {
      size_t at = 0;
      for (size_t l = 1; l < n_leaves; l++)
        if (best[l].gain > best[at].gain) at = l;
      if (!(best[at].gain > 0)) break;
      choice c = best[at];
      for (size_t i = 0; i < t->n; i++)
        if (leaf_of[i] == at && !goes_left(t, &c, i)) leaf_of[i] = n_leaves;
      depth[at] = depth[n_leaves] = depth[at] + 1;
      n_leaves++;
      bool deep = depth[at] == o->max_depth;
      best[at] = deep ? (choice){.gain = -INFINITY} : best_choice(t, leaf_of, at, g, h, o);
      best[n_leaves - 1] = deep ? (choice){.gain = -INFINITY} : best_choice(t, leaf_of, n_leaves - 1, g, h, o);
    }
    for (size_t l = 0; l < n_leaves; l++) {
      double sum_g = 0, sum_h = 0;
      for (size_t i = 0; i < t->n; i++)
        if (leaf_of[i] == l) sum_g += g[i], sum_h += h[i];
      for (size_t i = 0; i < t->n; i++)
        if (leaf_of[i] == l) score[i] -= o->rate * sum_g / (sum_h + o->l2);
    }
  }
}

/* The rows as the files and slates say them: a, b, c, town, colour, price, year as a number and as a token, a column a tag. */
static void fill_table(table *t, const ev_rank_rows *rows, bool features) {
  assert_true(rows->n_rows <= MOST);
  t->n = rows->n_rows;
  t->n_columns = DENSE;
  memset(t->category, 0, sizeof t->category);
  for (size_t i = 0; i < t->n; i++) {
    unsigned item = rows->item[i];
    t->label[i] = (double)rows->label[i];
    for (size_t c = 0; c < DENSE; c++) t->x[c][i] = (double)rows->dense[DENSE * i + c];
    if (!features) continue;
    t->x[3][i] = town_of(rows->user[i]);
    t->x[4][i] = colour_of(item) < 0 ? NAN : colour_of(item);
    t->x[5][i] = price_of(item);
    t->x[6][i] = year_of(item);
    t->x[7][i] = year_of(item);
    for (unsigned k = 0; k < TAGS; k++) t->x[8 + k][i] = tags_of(item) >> k & 1;
  }
  if (!features) return;
  t->n_columns = 8 + TAGS;
  t->category[3] = t->category[4] = t->category[7] = true;
}

static const ev_gbdt_options plain = {.n_trees = 1, .n_leaves = 31, .n_bins = 256, .one_hot = 64, .learning_rate = 0.1f, .l2 = 1, .min_child_weight = 1,
                                      .subsample = 1, .column_share = 1, .smoothing = 10, .seed = 1};

static const void *array_of(const ev_model *m, const char *name, size_t *rows) {
  ev_array a;
  assert_true(ev_pack_find(ev_model_pack(m), name, &a));
  *rows = a.rows;
  return a.data;
}

static void the_first_split_is_the_best_of_all(void **state) {
  (void)state;
  static table t;
  static double expected[MOST];
  float got[MOST];
  ev_snapshot *s;
  open_world(&s);
  for (uint64_t seed = 0; seed < 12; seed++) {
    ev_rank_rows *rows = clicks(planted, 7, DENSE, seed); /* 210 rows: each value of a column has a bin of its own */
    ev_gbdt_options o = plain;
    o.n_leaves = 2, o.learning_rate = 1, o.l2 = seed % 2 == 0 ? 1 : 0, o.min_child_weight = seed % 3 == 0 ? 5 : 0.5f;
    ev_model *m;
    assert_int_equal(ev_fit_gbdt(in_folder("m"), s, rows, &o, NULL), EV_OK);
    assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
    assert_int_equal(ev_ranker_score_rows(m, s, rows, got), EV_OK);
    fill_table(&t, rows, false);
    double positives = 0;
    for (size_t i = 0; i < t.n; i++) positives += t.label[i];
    double bias = log((positives + 0.5) / ((double)t.n - positives + 0.5));
    naive_boost(expected, &t, 1, bias, &(naive_options){2, 0, (double)o.l2, (double)o.min_child_weight, 1});
    size_t n_nodes, n_trees;
    const uint32_t *nodes = array_of(m, "nodes", &n_nodes);
    array_of(m, "roots", &n_trees);
    assert_true(n_nodes == 3 && n_trees == 1 && nodes[0] < DENSE && nodes[4] == EV_NONE && nodes[8] == EV_NONE);
    for (size_t i = 0; i < t.n; i++)
      if (!(fabs((double)got[i] - expected[i]) < 1e-5)) fail_msg("seed %d, row %zu: %g, %g expected", (int)seed, i, (double)got[i], expected[i]);
    ev_model_close(m);
    ev_rank_rows_free(rows);
  }
  ev_snapshot_close(s);
}

static void whole_trees_are_those_of_an_exhaustive_search(void **state) {
  (void)state;
  static table t;
  static double expected[MOST];
  float got[MOST];
  ev_snapshot *s;
  open_world(&s);
  for (uint64_t seed = 0; seed < 8; seed++) {
    ev_rank_rows *rows = clicks(planted, 8, DENSE, 50 + seed);
    ev_gbdt_options o = plain;
    o.n_trees = 4, o.n_leaves = seed % 2 == 0 ? 7 : 12, o.max_depth = seed % 2 == 0 ? 0 : 3, o.learning_rate = 0.5f, o.min_child_weight = 1 + (float)(seed % 3);
    o.user_columns = user_columns, o.n_user_columns = 1, o.item_columns = item_columns, o.n_item_columns = 4;
    ev_model *m;
    assert_int_equal(ev_fit_gbdt(in_folder("m"), s, rows, &o, NULL), EV_OK);
    assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
    assert_int_equal(ev_ranker_score_rows(m, s, rows, got), EV_OK);
    fill_table(&t, rows, true);
    double positives = 0;
    for (size_t i = 0; i < t.n; i++) positives += t.label[i];
    double bias = log((positives + 0.5) / ((double)t.n - positives + 0.5));
    naive_boost(expected, &t, 4, bias, &(naive_options){o.n_leaves, o.max_depth, 1, (double)o.min_child_weight, 0.5});
    for (size_t i = 0; i < t.n; i++)
      if (!(fabs((double)got[i] - expected[i]) < 1e-4)) fail_msg("seed %d, row %zu: %g, %g expected", (int)seed, i, (double)got[i], expected[i]);
    ev_model_close(m);
    ev_rank_rows_free(rows);
  }
  ev_snapshot_close(s);
}

/* ---- Learning --------------------------------------------------------------------------------------------*/
typedef struct losses {
  double at[256];
  size_t n;
} losses;

static void note(void *ctx, const char *what, double done, double all, double loss) {
  losses *l = ctx;
  (void)done;
  (void)all;
  assert_string_equal(what, "tree");
  l->at[l->n++] = loss;
}

static double log_loss(const float *logit, const ev_rank_rows *rows) {
  double sum = 0;
  for (size_t i = 0; i < rows->n_rows; i++) sum += log1p(exp(rows->label[i] > 0 ? -(double)logit[i] : (double)logit[i]));
  return sum / (double)rows->n_rows;
}

static double bayes_loss(chance *p, const ev_rank_rows *rows) {
  double sum = 0;
  for (size_t i = 0; i < rows->n_rows; i++) {
    double q = p(rows->user[i], rows->item[i], rows->dense + DENSE * i);
    sum -= log(rows->label[i] > 0 ? q : 1 - q);
  }
  return sum / (double)rows->n_rows;
}

static double loss_on(const char *path, const ev_snapshot *s, const ev_rank_rows *rows) {
  ev_model *m;
  float *logit = malloc(rows->n_rows * sizeof *logit);
  assert_int_equal(ev_model_open(&m, path), EV_OK);
  assert_int_equal(ev_ranker_score_rows(m, s, rows, logit), EV_OK);
  double loss = log_loss(logit, rows);
  ev_model_close(m);
  free(logit);
  return loss;
}

static void training_loss_falls_with_every_tree_and_is_what_scores_say(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s);
  ev_rank_rows *rows = clicks(planted, 300, DENSE, 7);
  ev_gbdt_options o = plain;
  o.n_trees = 100;
  o.user_columns = user_columns, o.n_user_columns = 1, o.item_columns = item_columns, o.n_item_columns = 4;
  losses l = {.n = 0};
  ev_progress p = {note, &l};
  assert_int_equal(ev_fit_gbdt(in_folder("m"), s, rows, &o, &p), EV_OK);
  assert_int_equal(l.n, 100);
  for (size_t i = 1; i < l.n; i++) assert_true(l.at[i] < l.at[i - 1]);
  assert_true(fabs(loss_on(in_folder("m"), s, rows) - l.at[99]) < 1e-5); /* without ids, a row is scored as it was learnt */
  ev_rank_rows_free(rows);
  ev_snapshot_close(s);
}

static void trees_come_near_what_can_be_known(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s);
  ev_rank_rows *rows = clicks(planted, 1500, DENSE, 8), *fresh = clicks(planted, 400, DENSE, 9);
  double best = bayes_loss(planted, fresh);
  for (int kind = 0; kind < 3; kind++) { /* plain; stochastic; few bins */
    ev_gbdt_options o = plain;
    o.n_trees = 80, o.n_leaves = 8, o.user_columns = user_columns, o.n_user_columns = 1, o.item_columns = item_columns, o.n_item_columns = 4;
    if (kind == 1) o.subsample = 0.5f, o.column_share = 0.6f;
    if (kind == 2) o.n_bins = 16;
    assert_int_equal(ev_fit_gbdt(in_folder("m"), s, rows, &o, NULL), EV_OK);
    double mine = loss_on(in_folder("m"), s, fresh);
    if (!(mine < best + 0.012)) fail_msg("kind %d: loss %g, %g at best", kind, mine, best);
  }
  ev_rank_rows_free(rows);
  ev_rank_rows_free(fresh);
  ev_snapshot_close(s);
}

/* ---- What tokens tell ------------------------------------------------------------------------------------*/
static double tastes(uint32_t user, uint32_t item, const float *x) { /* users and items have a leaning that only their ids know */
  (void)x;
  return sigmoid(1.5 * sin(user * 12.9898) + 1.5 * sin(item * 78.233));
}

static double noise(uint32_t user, uint32_t item, const float *x) {
  (void)user;
  (void)item;
  (void)x;
  return 0.5;
}

static void ids_are_known_by_what_their_rows_clicked(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s);
  ev_rank_rows *rows = clicks(tastes, 1200, DENSE, 3), *fresh = clicks(tastes, 300, DENSE, 4);
  ev_gbdt_options o = plain;
  o.ids = true, o.n_leaves = 8, o.n_trees = 100;
  assert_int_equal(ev_fit_gbdt(in_folder("m"), s, rows, &o, NULL), EV_OK);
  double best = bayes_loss(tastes, fresh), mine = loss_on(in_folder("m"), s, fresh);
  if (!(best < 0.56 && mine < best + 0.02)) fail_msg("loss %g, %g at best", mine, best);
  ev_model *m;
  size_t n;
  assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
  const float *facts = array_of(m, "facts", &n); /* what a scored row is told: shrunk means of all rows */
  double sum[USERS] = {0}, count[USERS] = {0}, positives = 0;
  for (size_t i = 0; i < rows->n_rows; i++) sum[rows->user[i]] += (double)rows->label[i], count[rows->user[i]]++, positives += (double)rows->label[i];
  double prior = (positives + 0.5) / ((double)rows->n_rows + 1);
  assert_int_equal(n, DENSE + USERS + ITEMS);
  for (int u = 0; u < USERS; u++) {
    assert_true(fabs((double)facts[3 * (DENSE + u) + 1] - (sum[u] + 10 * prior) / (count[u] + 10)) < 1e-6);
    assert_true(fabs((double)facts[3 * (DENSE + u) + 2] - log1p(count[u])) < 1e-5);
  }
  ev_model_close(m);
  ev_rank_rows_free(rows);
  ev_rank_rows_free(fresh);
  ev_snapshot_close(s);
}

/* Coin flips: were a row's own label in what its ids tell it, trees would read it there, and be wrong of fresh rows. */
static void no_label_reaches_its_own_row(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s);
  ev_rank_rows *rows = clicks(noise, 120, 0, 5), *fresh = clicks(noise, 300, 0, 6); /* 60 rows a user, 30 an item */
  ev_gbdt_options o = plain;
  o.ids = true, o.n_leaves = 8, o.smoothing = 0.5f, o.n_trees = 60, o.min_child_weight = 20;
  losses l = {.n = 0};
  ev_progress p = {note, &l};
  assert_int_equal(ev_fit_gbdt(in_folder("m"), s, rows, &o, &p), EV_OK);
  double of_fresh = loss_on(in_folder("m"), s, fresh), as_scored = loss_on(in_folder("m"), s, rows);
  if (!(of_fresh < log(2) + 0.03)) fail_msg("loss of fresh rows %g, a coin's is %g", of_fresh, log(2));
  assert_true(as_scored > l.at[59] - 0.03); /* nor would knowing them help: the trees never learnt to trust it */
  ev_rank_rows_free(rows);
  ev_rank_rows_free(fresh);
  ev_snapshot_close(s);
}

/* ---- Options ---------------------------------------------------------------------------------------------*/
static void options_that_make_no_sense_are_refused(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s);
  ev_rank_rows *rows = clicks(planted, 4, DENSE, 1), *none, *bare = clicks(planted, 4, 0, 1);
  static const char *const missing[] = {"nothing"};
  const char *path = in_folder("none");
#define REFUSED(change)                                                 \
  do {                                                                  \
    ev_gbdt_options o = plain;                                          \
    change;                                                             \
    assert_int_equal(ev_fit_gbdt(path, s, rows, &o, NULL), EV_EINVAL);  \
  } while (0)
  REFUSED(o.n_leaves = 1);
  REFUSED(o.n_leaves = 5000);
  REFUSED(o.n_bins = 2);
  REFUSED(o.n_bins = 257);
  REFUSED(o.learning_rate = 0);
  REFUSED(o.learning_rate = NAN);
  REFUSED(o.l2 = -1);
  REFUSED(o.min_child_weight = NAN);
  REFUSED(o.min_gain = -1);
  REFUSED(o.smoothing = 0);
  REFUSED(o.subsample = 0);
  REFUSED(o.subsample = 1.5f);
  REFUSED(o.column_share = NAN);
  REFUSED((o.item_columns = missing, o.n_item_columns = 1));
  REFUSED((o.learning_rate = 1e38f, o.n_trees = 5));
  assert_int_equal(ev_fit_gbdt(path, s, bare, &plain, NULL), EV_EINVAL); /* nothing to split on */
  assert_int_equal(ev_rank_rows_new(&none, NULL, 0), EV_OK);
  assert_int_equal(ev_fit_gbdt(path, s, none, &plain, NULL), EV_EINVAL);
  ev_gbdt_options o = plain;
  o.n_trees = 3, o.min_child_weight = 1e6f; /* no split is allowed: the base rate is all there is */
  assert_int_equal(ev_fit_gbdt(in_folder("m"), s, rows, &o, NULL), EV_OK);
  double positives = 0;
  for (size_t i = 0; i < rows->n_rows; i++) positives += (double)rows->label[i];
  double q = positives / (double)rows->n_rows;
  assert_true(fabs(loss_on(in_folder("m"), s, rows) + q * log(q) + (1 - q) * log(1 - q)) < 1e-3);
  assert_false(ev_file_exists(path));
  ev_rank_rows_free(none);
  ev_rank_rows_free(bare);
  ev_rank_rows_free(rows);
  ev_snapshot_close(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_first_split_is_the_best_of_all), cmocka_unit_test(whole_trees_are_those_of_an_exhaustive_search),
      cmocka_unit_test(training_loss_falls_with_every_tree_and_is_what_scores_say), cmocka_unit_test(trees_come_near_what_can_be_known),
      cmocka_unit_test(ids_are_known_by_what_their_rows_clicked), cmocka_unit_test(no_label_reaches_its_own_row),
      cmocka_unit_test(options_that_make_no_sense_are_refused),
  };
  return RUN(tests);
}
