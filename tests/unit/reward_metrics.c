/* reward_metrics.c - every metric against its formula; intervals that hold the truth over many made-up worlds. */
#include <math.h>

#include "reward/reward.h"
#include "support.h"

/* ---- A world: each user has items held out and items trained on, drawn by the test; items have tokens -----------*/
typedef struct world {
  ev_snapshot *s;
  ev_view *held, *train;
  size_t n_users, n_items;
  size_t *number; /* (n_items) of each item's id */
} world;

static void open_snapshot(world *w, const ev_buf *train, const ev_buf *test, const ev_buf *items) {
  write_text(in_folder("train.csv"), train->data, train->len);
  write_text(in_folder("test.csv"), test->data, test->len);
  write_text(in_folder("w.item"), items->data, items->len);
  const char *files[] = {in_folder("w.item")};
  char train_path[160], test_path[160];
  snprintf(train_path, sizeof train_path, "%s", in_folder("train.csv"));
  snprintf(test_path, sizeof test_path, "%s", in_folder("test.csv"));
  ev_import_options o;
  ev_import_defaults(&o);
  o.files = files;
  o.n_files = 1;
  o.train = train_path;
  o.test = test_path;
  o.valid_share = 0;
  if (ev_import(&o, in_folder("world")) != EV_OK) fail_msg("%s", ev_error());
  assert_int_equal(ev_snapshot_open(&w->s, in_folder("world")), EV_OK);
  assert_int_equal(ev_view_new(&w->held, w->s, EV_TEST), EV_OK);
  assert_int_equal(ev_view_new(&w->train, w->s, EV_TRAIN), EV_OK);
  w->n_users = ev_snapshot_n_users(w->s);
  w->n_items = ev_snapshot_n_items(w->s);
  w->number = ev_alloc(w->n_items, sizeof *w->number);
  for (size_t i = 0; i < w->n_items; i++) {
    size_t len;
    w->number[i] = strtoull(ev_snapshot_item_id(w->s, (uint32_t)i, &len) + 1, NULL, 10);
  }
}

/* Every fifth user has nothing held out, every seventh nothing to train on; the last ten items nobody touched. */
static void open_world(world *w, size_t n_users, size_t n_items, uint64_t seed) {
  ev_buf text[3] = {{0}};
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  ev_buf_printf(&text[0], "user,item\n");
  ev_buf_printf(&text[1], "user,item\n");
  ev_buf_printf(&text[2], "item_id:token\tkind:token\tgenre:token_seq\n");
  for (size_t u = 0; u < n_users; u++)
    for (size_t i = 0; i + 10 < n_items; i++) {
      uint32_t x = ev_rng_below(&r, 100);
      if (x < 3 + 20 * (i % 4 == 0) && u % 7 != 0) ev_buf_printf(&text[0], "u%zu,i%zu\n", u, i);
      else if (x > 95 && u % 5 != 0) ev_buf_printf(&text[1], "u%zu,i%zu\n", u, i);
    }
  for (size_t i = 0; i < n_items; i++) { /* a kind, or none; a genre that stands twice in some */
    ev_buf_printf(&text[2], "i%zu\t", i);
    if (i % 11 != 0) ev_buf_printf(&text[2], "k%zu", i % 4);
    ev_buf_printf(&text[2], "\tg%zu h%zu%s\n", i % 3, i % 5, i % 6 == 0 ? " g0" : "");
  }
  open_snapshot(w, &text[0], &text[1], &text[2]);
  for (int i = 0; i < 3; i++) ev_buf_free(&text[i]);
}

static void close_world(world *w) {
  ev_view_free(w->held);
  ev_view_free(w->train);
  ev_snapshot_close(w->s);
  ev_free(w->number);
}

/* Random lists without repeats, half of them short of k; a third of their places is what is held out. */
static uint32_t *draw_lists(const world *w, size_t k, ev_rng *r) {
  uint32_t *lists = ev_alloc(w->n_users, k * sizeof *lists);
  uint8_t *used = ev_alloc(w->n_items, 1);
  for (size_t u = 0; u < w->n_users; u++) {
    const ev_csr *m = &w->held->by_user;
    size_t n_held = m->ptr[u + 1] - m->ptr[u], length = ev_rng_below(r, 2) ? k : ev_rng_below(r, (uint32_t)k + 1);
    memset(used, 0, w->n_items);
    for (size_t c = 0; c < k; c++) lists[u * k + c] = EV_NONE;
    for (size_t c = 0; c < length;) {
      bool hit = n_held > 0 && ev_rng_below(r, 3) == 0;
      uint32_t i = hit ? m->idx[m->ptr[u] + ev_rng_below(r, (uint32_t)n_held)] : ev_rng_below(r, (uint32_t)w->n_items);
      if (used[i] && !hit) continue;
      if (used[i]) i = ev_rng_below(r, (uint32_t)w->n_items);
      if (used[i]) continue;
      used[i] = 1;
      lists[u * k + c++] = i;
    }
  }
  ev_free(used);
  return lists;
}

/* ---- The formulas, from reward.h, each on its own -------------------------------------------------------*/
static bool is_held(const world *w, size_t user, uint32_t item) {
  const ev_csr *m = &w->held->by_user;
  for (uint64_t e = m->ptr[user]; e < m->ptr[user + 1]; e++)
    if (m->idx[e] == item) return true;
  return false;
}

static double hits_to(const world *w, size_t user, const uint32_t *list, size_t k) {
  double hits = 0;
  for (size_t i = 0; i < k; i++) hits += list[i] != EV_NONE && is_held(w, user, list[i]);
  return hits;
}

static unsigned tokens_of(const world *w, uint32_t item, bool genres) { /* a set, as bits */
  size_t i = w->number[item];
  if (!genres) return i % 11 != 0 ? 1u << i % 4 : 0;
  return 1u << i % 3 | 8u << i % 5;
}

static double jaccard(unsigned a, unsigned b) { return a | b ? (double)__builtin_popcount(a & b) / __builtin_popcount(a | b) : 0; }

static double formula(const char *name, const world *w, size_t user, const uint32_t *list, size_t k, bool genres) {
  double n_held = (double)(w->held->by_user.ptr[user + 1] - w->held->by_user.ptr[user]), hits = hits_to(w, user, list, k);
  double sum = 0, count = 0, ideal = 0;
  if (strcmp(name, "recall") == 0) return hits / n_held;
  if (strcmp(name, "precision") == 0) return hits / (double)k;
  if (strcmp(name, "hit") == 0) return hits > 0;
  if (strcmp(name, "mrr") == 0) {
    for (size_t r = 1; r <= k; r++)
      if (hits_to(w, user, list, r) > 0) return 1 / (double)r;
    return 0;
  }
  if (strcmp(name, "ndcg") == 0) {
    for (size_t r = 1; r <= k; r++) {
      if (hits_to(w, user, list + r - 1, 1) > 0) sum += 1 / log2((double)r + 1);
      if ((double)r <= n_held) ideal += 1 / log2((double)r + 1);
    }
    return sum / ideal;
  }
  if (strcmp(name, "map") == 0) {
    for (size_t r = 1; r <= k; r++)
      if (hits_to(w, user, list + r - 1, 1) > 0) sum += hits_to(w, user, list, r) / (double)r;
    return sum / fmin((double)k, n_held);
  }
  if (strcmp(name, "novelty") == 0) {
    double seen = 0;
    for (size_t u = 0; u < w->n_users; u++) seen += w->train->by_user.ptr[u + 1] > w->train->by_user.ptr[u];
    for (size_t r = 0; r < k && list[r] != EV_NONE; r++) {
      double popularity = 0;
      for (uint64_t e = 0; e < w->train->by_user.ptr[w->n_users]; e++) popularity += w->train->by_user.idx[e] == list[r];
      sum -= log2(fmax(popularity, 1) / seen);
      count++;
    }
    return count > 0 ? sum / count : 0;
  }
  assert_string_equal(name, "diversity");
  for (size_t a = 0; a < k && list[a] != EV_NONE; a++)
    for (size_t b = 0; b < a; b++) sum += 1 - jaccard(tokens_of(w, list[a], genres), tokens_of(w, list[b], genres)), count++;
  return count > 0 ? sum / count : 0;
}

/* Of all lists at once: the share of items shown; Σᵢⱼ |cᵢ − cⱼ| / (2 n Σ c), the Gini index by its first definition. */
static double formula_of_all(const char *name, const world *w, const uint32_t *lists, size_t cap, size_t k) {
  double *c = ev_zalloc(w->n_items, sizeof *c), shown = 0, sum = 0, apart = 0;
  for (size_t u = 0; u < w->n_users; u++)
    for (size_t r = 0; r < k && w->held->by_user.ptr[u + 1] > w->held->by_user.ptr[u]; r++)
      if (lists[u * cap + r] != EV_NONE) c[lists[u * cap + r]]++;
  for (size_t i = 0; i < w->n_items; i++) {
    shown += c[i] > 0;
    sum += c[i];
    for (size_t j = 0; j < w->n_items; j++) apart += fabs(c[i] - c[j]);
  }
  ev_free(c);
  return strcmp(name, "coverage") == 0 ? shown / (double)w->n_items : sum > 0 ? apart / (2 * (double)w->n_items * sum) : 0;
}

static void check_metric(const world *w, const ev_eval *e, const ev_metric *m, const uint32_t *lists, size_t cap, bool genres) {
  char name[32];
  size_t k;
  assert_int_equal(sscanf(m->name, "%15[a-z]@%zu", name, &k), 2);
  assert_true(m->low <= m->value + 1e-12 && m->value <= m->high + 1e-12);
  if (strcmp(name, "coverage") == 0 || strcmp(name, "gini") == 0) {
    double expected = formula_of_all(name, w, lists, cap, k);
    if (!(fabs(m->value - expected) < 1e-9)) fail_msg("%s: %g, %g expected", m->name, m->value, expected);
    assert_null(ev_eval_user_values(e, m->name));
    return;
  }
  const float *values = ev_eval_user_values(e, m->name);
  double sum = 0;
  size_t n = 0;
  assert_non_null(values);
  for (size_t u = 0; u < w->n_users; u++) {
    if (w->held->by_user.ptr[u + 1] == w->held->by_user.ptr[u]) continue;
    double expected = formula(name, w, u, lists + u * cap, k, genres);
    if (!(fabs(values[n] - expected) < 1e-5)) fail_msg("%s of user %zu: %g, %g expected", m->name, u, (double)values[n], expected);
    sum += expected;
    n++;
  }
  assert_int_equal(n, ev_eval_n_users(e));
  assert_true(fabs(m->value - sum / (double)n) < 1e-5);
}

static uint32_t *numbers(size_t n) {
  uint32_t *x = ev_alloc(n, sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = (uint32_t)i;
  return x;
}

static void every_metric_is_its_formula(void **s) {
  (void)s;
  static const size_t cutoffs[] = {1, 2, 5, 13};
  enum { K = 15 };
  for (uint64_t round = 0; round < 4; round++) {
    world w;
    ev_rng r;
    ev_rng_seed(&r, 50 + round, 0);
    open_world(&w, 40, 60, round);
    uint32_t *lists = draw_lists(&w, K, &r), *users = numbers(w.n_users);
    ev_eval_options o = {.cutoffs = cutoffs, .n_cutoffs = 4, .n_bootstrap = 100, .confidence = 0.95, .seed = round};
    if (round > 0) o.diversity = ev_snapshot_column(w.s, EV_ITEM, round == 1 ? "kind" : "genre");
    ev_eval *e;
    assert_int_equal(ev_eval_new(&e, lists, K, users, w.n_users, w.held, w.train, &o), EV_OK);
    assert_int_equal(ev_eval_n(e), 4 * (round > 0 ? 10 : 9));
    for (size_t i = 0; i < ev_eval_n(e); i++) check_metric(&w, e, ev_eval_at(e, i), lists, K, round != 1);
    assert_null(ev_eval_user_values(e, "recall@3"));
    ev_eval_free(e);
    ev_free(lists);
    ev_free(users);
    close_world(&w);
  }
}

static double value_of(const ev_eval *e, const char *name) {
  for (size_t i = 0; i < ev_eval_n(e); i++)
    if (strcmp(ev_eval_at(e, i)->name, name) == 0) return ev_eval_at(e, i)->value;
  fail_msg("no %s", name);
  return NAN;
}

static void lists_may_be_empty_or_perfect(void **s) {
  (void)s;
  enum { K = 60 };
  static const size_t cutoffs[] = {1, K};
  static const char *const names[] = {"recall", "ndcg", "hit", "precision", "mrr", "map", "novelty", "diversity", "coverage", "gini"};
  world w;
  open_world(&w, 30, 50, 3);
  uint32_t *lists = ev_alloc(w.n_users, K * sizeof *lists), *users = numbers(w.n_users);
  ev_eval_options o = {.cutoffs = cutoffs, .n_cutoffs = 2, .confidence = 0.95, .diversity = ev_snapshot_column(w.s, EV_ITEM, "kind")};
  ev_eval *e;
  memset(lists, 0xFF, w.n_users * K * sizeof *lists);
  assert_int_equal(ev_eval_new(&e, lists, K, users, w.n_users, w.held, w.train, &o), EV_OK);
  for (size_t i = 0; i < ev_eval_n(e); i++) { /* nothing shown: nothing found, nothing divided by nothing */
    const ev_metric *m = ev_eval_at(e, i);
    assert_true(m->value == 0 && m->low == 0 && m->high == 0);
  }
  assert_int_equal(ev_eval_n(e), 20);
  for (int i = 0; i < 10; i++) {
    char name[32];
    snprintf(name, sizeof name, "%s@1", names[i]);
    assert_true(value_of(e, name) == 0);
  }
  ev_eval_free(e);
  for (size_t u = 0; u < w.n_users; u++) /* just what is held out, padded */
    for (uint64_t h = w.held->by_user.ptr[u]; h < w.held->by_user.ptr[u + 1]; h++) lists[u * K + (h - w.held->by_user.ptr[u])] = w.held->by_user.idx[h];
  assert_int_equal(ev_eval_new(&e, lists, K, users, w.n_users, w.held, w.train, &o), EV_OK);
  static const char *const perfect[] = {"recall@60", "ndcg@60", "hit@60", "mrr@60", "map@60", "ndcg@1", "precision@1", "map@1"};
  for (int i = 0; i < 8; i++) assert_true(fabs(value_of(e, perfect[i]) - 1) < 1e-6);
  const ev_metric *m = ev_eval_at(e, 0);
  assert_true(m->low == m->value && m->high == m->value); /* no resamples, no interval */
  ev_eval_free(e);
  ev_free(lists);
  ev_free(users);
  close_world(&w);
}

static void wrong_questions_are_refused(void **s) {
  (void)s;
  world w;
  open_world(&w, 30, 50, 3);
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  uint32_t *lists = draw_lists(&w, 10, &r), *users = numbers(w.n_users), keep;
  static const size_t beyond[] = {5, 11}, twice[] = {5, 5}, falling[] = {5, 3}, zero[] = {0, 3}, good[] = {5, 10};
  static const size_t *const cutoffs[] = {beyond, twice, falling, zero};
  ev_eval_options o = {.n_cutoffs = 2, .n_bootstrap = 10, .confidence = 0.95}, bad;
  ev_eval *e;
  for (int i = 0; i < 4; i++) {
    o.cutoffs = cutoffs[i];
    assert_int_equal(ev_eval_new(&e, lists, 10, users, w.n_users, w.held, w.train, &o), EV_EINVAL);
  }
  o.cutoffs = good;
  bad = o, bad.n_cutoffs = 0;
  assert_int_equal(ev_eval_new(&e, lists, 10, users, w.n_users, w.held, w.train, &bad), EV_EINVAL);
  static const double confidences[] = {0, 1, -0.5, 2, NAN};
  for (int i = 0; i < 5; i++) {
    ev_difference d;
    bad = o, bad.confidence = confidences[i];
    assert_int_equal(ev_eval_new(&e, lists, 10, users, w.n_users, w.held, w.train, &bad), EV_EINVAL);
    assert_int_equal(ev_paired_bootstrap(&d, (float[]){1, 2}, (float[]){2, 1}, 2, 10, confidences[i], 1), EV_EINVAL);
  }
  keep = lists[3], lists[3] = (uint32_t)w.n_items;
  assert_int_equal(ev_eval_new(&e, lists, 10, users, w.n_users, w.held, w.train, &o), EV_EINVAL);
  lists[3] = keep;
  keep = users[3], users[3] = (uint32_t)w.n_users;
  assert_int_equal(ev_eval_new(&e, lists, 10, users, w.n_users, w.held, w.train, &o), EV_EINVAL);
  users[3] = keep;
  for (size_t u = 0; u < w.n_users; u++) /* only users without anything held out */
    if (w.held->by_user.ptr[u + 1] == w.held->by_user.ptr[u]) assert_int_equal(ev_eval_new(&e, lists, 10, users + u, 1, w.held, w.train, &o), EV_EINVAL);
  assert_int_equal(ev_eval_new(&e, lists, 10, users, 0, w.held, w.train, &o), EV_EINVAL);
  ev_threads_set(1);
  ASSERT_SURVIVES_FAULTS(ev_eval_new(&e, lists, 10, users, w.n_users, w.held, w.train, &o), ev_eval_free(e));
  ev_threads_set(0);
  ev_eval_free(NULL);
  ev_free(lists);
  ev_free(users);
  close_world(&w);
}

/* ---- Intervals -----------------------------------------------------------------------------------------*/
/* One item held out for each user. In a list of five, it stands at each of ten places equally often: half the time not at all. */
static void open_even_world(world *w, size_t n_users) {
  ev_buf text[3] = {{0}};
  ev_buf_printf(&text[0], "user,item\n");
  ev_buf_printf(&text[1], "user,item\n");
  ev_buf_printf(&text[2], "item_id:token\tkind:token\n");
  for (size_t i = 0; i < 30; i++) ev_buf_printf(&text[2], "i%zu\tk\n", i);
  for (size_t u = 0; u < n_users; u++) {
    ev_buf_printf(&text[0], "u%zu,i%zu\n", u, u % 10);
    ev_buf_printf(&text[1], "u%zu,i%zu\n", u, 10 + u % 20);
  }
  open_snapshot(w, &text[0], &text[1], &text[2]);
  for (int i = 0; i < 3; i++) ev_buf_free(&text[i]);
}

static void even_lists(const world *w, uint32_t *lists, ev_rng *r) {
  for (size_t u = 0; u < w->n_users; u++) {
    size_t place = ev_rng_below(r, 10);
    for (size_t c = 0; c < 5; c++) lists[u * 5 + c] = w->train->by_user.idx[c]; /* u0 … u4: items that nobody has held out */
    if (place < 5) lists[u * 5 + place] = w->held->by_user.idx[w->held->by_user.ptr[u]];
  }
}

static void intervals_hold_the_truth_as_often_as_they_say(void **s) {
  (void)s;
  enum { USERS = 100, WORLDS = 400, K = 5 };
  static const size_t cutoffs[] = {K};
  double truth[] = {0.5, 0}; /* hit, ndcg */
  for (int r = 1; r <= K; r++) truth[1] += 0.1 / log2(r + 1);
  world w;
  open_even_world(&w, USERS);
  uint32_t *lists = ev_alloc(USERS, K * sizeof *lists), *users = numbers(USERS);
  static const double confidences[] = {0.95, 0.8};
  for (int t = 0; t < 2; t++) {
    size_t inside[2] = {0};
    ev_rng r;
    ev_rng_seed(&r, 4, 0);
    for (uint64_t world_number = 0; world_number < WORLDS; world_number++) {
      ev_eval_options o = {.cutoffs = cutoffs, .n_cutoffs = 1, .n_bootstrap = 200, .confidence = confidences[t], .seed = world_number};
      ev_eval *e;
      even_lists(&w, lists, &r);
      assert_int_equal(ev_eval_new(&e, lists, K, users, USERS, w.held, w.train, &o), EV_OK);
      for (size_t i = 0; i < ev_eval_n(e); i++) {
        const ev_metric *m = ev_eval_at(e, i);
        int which = strcmp(m->name, "hit@5") == 0 ? 0 : strcmp(m->name, "ndcg@5") == 0 ? 1 : 2;
        if (which < 2) inside[which] += m->low <= truth[which] && truth[which] <= m->high;
      }
      ev_eval_free(e);
    }
    for (int i = 0; i < 2; i++) { /* the band of four binomial deviations, and two hundredths for what percentiles of 100 users lack */
      double share = (double)inside[i] / WORLDS, room = 4 * sqrt(confidences[t] * (1 - confidences[t]) / WORLDS);
      if (!(share > confidences[t] - room - 0.02 && share < confidences[t] + room))
        fail_msg("%s: %g of the %g intervals hold the truth", i == 0 ? "hit" : "ndcg", share, confidences[t]);
    }
  }
  ev_free(lists);
  ev_free(users);
  close_world(&w);
}

static void the_same_seed_gives_the_same_intervals(void **s) {
  (void)s;
  static const size_t cutoffs[] = {3, 5};
  world w;
  open_even_world(&w, 200);
  ev_rng r;
  ev_rng_seed(&r, 9, 0);
  uint32_t *lists = ev_alloc(w.n_users, 5 * sizeof *lists), *users = numbers(w.n_users);
  even_lists(&w, lists, &r);
  ev_eval *first = NULL;
  for (int threads = 1; threads <= 4; threads++) {
    ev_eval_options o = {.cutoffs = cutoffs, .n_cutoffs = 2, .n_bootstrap = 150, .confidence = 0.9, .seed = 3};
    ev_eval *e, *other;
    ev_threads_set(threads);
    assert_int_equal(ev_eval_new(&e, lists, 5, users, w.n_users, w.held, w.train, &o), EV_OK);
    o.seed = 4;
    assert_int_equal(ev_eval_new(&other, lists, 5, users, w.n_users, w.held, w.train, &o), EV_OK);
    if (first == NULL) first = e;
    for (size_t i = 0; i < ev_eval_n(e); i++) {
      const ev_metric *a = ev_eval_at(first, i), *b = ev_eval_at(e, i), *c = ev_eval_at(other, i);
      assert_true(a->value == b->value && a->low == b->low && a->high == b->high && a->value == c->value);
      if (strncmp(a->name, "ndcg", 4) == 0) assert_true(a->low != c->low && a->high != c->high);
    }
    if (e != first) ev_eval_free(e);
    ev_eval_free(other);
  }
  ev_threads_set(0);
  ev_eval_free(first);
  ev_free(lists);
  ev_free(users);
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_metric_is_its_formula), cmocka_unit_test(lists_may_be_empty_or_perfect), cmocka_unit_test(wrong_questions_are_refused),
      cmocka_unit_test(intervals_hold_the_truth_as_often_as_they_say), cmocka_unit_test(the_same_seed_gives_the_same_intervals),
  };
  return RUN(tests);
}
