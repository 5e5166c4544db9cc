/* store_folds.c - what an import keeps, against brute force, and which fold it is in; the generated world. */
#include <math.h>

#include "store/store.h"
#include "support.h"

static const char *put(const char *name, const char *text) { /* writes it into the folder */
  const char *path = in_folder(name);
  write_text(path, text, strlen(text));
  return path;
}

static ev_import_options options_of(const char *const *file) {
  ev_import_options o;
  ev_import_defaults(&o);
  o.files = file;
  o.n_files = 1;
  return o;
}

static ev_snapshot *imported(const ev_import_options *o) {
  char out[96];
  ev_snapshot *s;
  snprintf(out, sizeof out, "%s/out", folder);
  if (ev_import(o, out) != EV_OK || ev_snapshot_open(&s, out) != EV_OK) fail_msg("%s", ev_error());
  return s;
}

/* ---- What is kept --------------------------------------------------------------------------------------*/
enum { USERS = 40, ITEMS = 25 };
typedef struct world { /* random ratings and times of a small world, as a matrix */
  bool has[USERS][ITEMS];
  int rating[USERS][ITEMS], time[USERS][ITEMS];
  size_t n;
} world;

static const char *random_world(world *w, uint64_t seed, double density) {
  ev_buf b = {0};
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  *w = (world){0};
  ev_buf_printf(&b, "user,item,rating,time\n");
  for (int u = 0; u < USERS; u++)
    for (int i = 0; i < ITEMS; i++) {
      if (ev_rng_f64(&r) >= density * (1.5 - (double)u / USERS)) continue;
      w->has[u][i] = true;
      w->rating[u][i] = 1 + (int)ev_rng_below(&r, 5);
      w->time[u][i] = (int)ev_rng_below(&r, 60); /* few values: many ties */
      w->n++;
      ev_buf_printf(&b, "u%d,i%d,%d,%d\n", u, i, w->rating[u][i], w->time[u][i]);
    }
  const char *path = put("world.csv", b.data);
  ev_buf_free(&b);
  return path;
}

static int number_of(const char *id, size_t len) { /* "u12", "i12" or "12" */
  char text[16] = {0};
  memcpy(text, id, len);
  return atoi(text[0] >= '0' && text[0] <= '9' ? text : text + 1);
}

static uint8_t folds[USERS][ITEMS]; /* of the snapshot read last; 0: not there */

static size_t read_folds(const ev_snapshot *s) {
  size_t len, n = 0;
  memset(folds, 0, sizeof folds);
  for (uint32_t u = 0; u < ev_snapshot_n_users(s); u++)
    for (uint64_t i = ev_snapshot_user_ptr(s)[u]; i < ev_snapshot_user_ptr(s)[u + 1]; i++, n++) {
      const char *user = ev_snapshot_user_id(s, u, &len);
      int row = number_of(user, len);
      const char *item = ev_snapshot_item_id(s, ev_snapshot_items(s)[i], &len);
      folds[row][number_of(item, len)] = ev_snapshot_folds(s)[i];
    }
  return n;
}

static void a_core_and_a_least_rating_are_those_of_brute_force(void **s) {
  (void)s;
  static world w;
  size_t kept_some = 0, kept_none = 0;
  for (uint64_t seed = 0; seed < 24; seed++) {
      const char *file = random_world(&w, seed, 0.1 + 0.02 * (double)(seed % 7));
    ev_import_options o = options_of(&file);
    o.k_core = 2 + (unsigned)seed % 4;
    o.min_rating = seed % 2 == 0 ? -INFINITY : 2;
    o.split = EV_SPLIT_RATIO;
    for (int u = 0; u < USERS; u++)
      for (int i = 0; i < ITEMS; i++) w.has[u][i] = w.has[u][i] && w.rating[u][i] >= o.min_rating;
    for (bool changed = true; changed;) { /* one user or item at a time, until nothing changes */
      changed = false;
      for (int x = 0; x < USERS + ITEMS; x++) {
        unsigned n = 0;
        for (int y = 0; y < (x < USERS ? ITEMS : USERS); y++) n += x < USERS ? w.has[x][y] : w.has[y][x - USERS];
        if (n == 0 || n >= o.k_core) continue;
        for (int y = 0; y < (x < USERS ? ITEMS : USERS); y++) *(x < USERS ? &w.has[x][y] : &w.has[y][x - USERS]) = false;
        changed = true;
      }
    }
    size_t left = 0, users = 0, items = 0;
    for (int u = 0; u < USERS; u++) {
      bool any = false;
      for (int i = 0; i < ITEMS; i++) left += w.has[u][i], any = any || w.has[u][i];
      users += any;
    }
    for (int i = 0; i < ITEMS; i++) {
      bool any = false;
      for (int u = 0; u < USERS; u++) any = any || w.has[u][i];
      items += any;
    }
    if (left == 0) {
      assert_int_equal(ev_import(&o, in_folder("out")), EV_EINVAL);
      assert_non_null(strstr(ev_error(), "no interaction is left"));
      kept_none++;
      continue;
    }
    ev_snapshot *x = imported(&o);
    assert_int_equal(read_folds(x), left);
    assert_true(ev_snapshot_n_users(x) == users && ev_snapshot_n_items(x) == items);
    for (int u = 0; u < USERS; u++)
      for (int i = 0; i < ITEMS; i++) assert_int_equal(folds[u][i] != 0, w.has[u][i]);
    ev_snapshot_close(x);
    kept_some++;
  }
  assert_true(kept_some > 5 && kept_none > 0);
}

static void a_core_has_no_users_without_items(void **s) {
  (void)s;
  const char *file = put("a.txt", "1 5 6\n2 5 6\n3\n");
  ev_import_options o = options_of(&file);
  o.k_core = 2;
  ev_snapshot *x = imported(&o);
  assert_int_equal(ev_snapshot_n_users(x), 2);
  ev_snapshot_close(x);
}

/* ---- Folds ---------------------------------------------------------------------------------------------*/
static void a_time_cut_never_trains_on_what_came_later(void **s) {
  (void)s;
  static world w;
  for (uint64_t seed = 0; seed < 20; seed++) {
      const char *file = random_world(&w, seed, 0.3);
    ev_import_options o = options_of(&file); /* files with times are cut by time */
    if (seed % 3 == 1) o.valid_share = 0.25, o.test_share = 0.4;
    if (seed % 3 == 2) o.valid_share = 0;
    ev_snapshot *x = imported(&o);
    size_t n = read_folds(x), count[3] = {0}, behind[3] = {0};
    int least[3] = {1 << 30, 1 << 30, 1 << 30}, most[3] = {-1, -1, -1};
    int64_t cut[3] = {0, ev_snapshot_cut_time(x, EV_VALID), ev_snapshot_cut_time(x, EV_TEST)};
    assert_int_equal(n, w.n);
    for (int u = 0; u < USERS; u++)
      for (int i = 0; i < ITEMS; i++) {
        if (folds[u][i] == 0) continue;
        int f = folds[u][i] / 2;
        count[f]++;
        if (w.time[u][i] < least[f]) least[f] = w.time[u][i];
        if (w.time[u][i] > most[f]) most[f] = w.time[u][i];
        for (int k = 1; k < 3; k++) behind[k] += w.time[u][i] > cut[k];
      }
    assert_true(count[0] > 0 && count[2] > 0 && most[0] < least[2] && most[1] < least[2] && most[0] < least[1]);
    assert_int_equal(least[2], cut[2]);
    if (count[1] > 0) assert_int_equal(least[1], cut[1]);
    /* each fold is at least its share, and would not be without the ties at its cut */
    assert_true((double)count[2] >= o.test_share * (double)n - 1e-9 && (double)behind[2] < o.test_share * (double)n + 1e-9);
    assert_true((double)(count[1] + count[2]) >= (o.valid_share + o.test_share) * (double)n - 1e-9);
    assert_true((double)behind[1] < (o.valid_share + o.test_share) * (double)n + 1e-9);
    assert_true(ev_snapshot_sequential(x));
    ev_snapshot_close(x);
  }
}

static void leave_one_out_takes_the_last_two_of_each_user(void **s) {
  (void)s;
  static world w;
  for (uint64_t seed = 0; seed < 10; seed++) {
      const char *file = random_world(&w, seed, 0.15);
    ev_import_options o = options_of(&file);
    o.split = EV_SPLIT_LEAVE_ONE_OUT;
    ev_snapshot *x = imported(&o);
    read_folds(x);
    assert_true(ev_snapshot_sequential(x) && ev_snapshot_cut_time(x, EV_TEST) == INT64_MIN);
    for (int u = 0; u < USERS; u++) {
      int n = 0, last[2] = {-1, -1}; /* of equal times the one that stands later in the file is the later */
      for (int i = 0; i < ITEMS; i++) n += w.has[u][i];
      for (int i = 0; i < ITEMS; i++)
        if (w.has[u][i] && (last[0] < 0 || w.time[u][i] >= w.time[u][last[0]])) last[0] = i;
      for (int i = 0; i < ITEMS; i++)
        if (w.has[u][i] && i != last[0] && (last[1] < 0 || w.time[u][i] >= w.time[u][last[1]])) last[1] = i;
      for (int i = 0; i < ITEMS; i++) assert_int_equal(folds[u][i], !w.has[u][i] ? 0 : n < 3 || (i != last[0] && i != last[1]) ? EV_TRAIN : i == last[0] ? EV_TEST : EV_VALID);
    }
    ev_snapshot_close(x);
  }
}

static void a_cut_of_the_last_keeps_shares_and_each_users_order(void **s) {
  (void)s;
  static world w;
  for (uint64_t seed = 0; seed < 10; seed++) {
    const char *file = random_world(&w, seed, 0.3);
    ev_import_options o = options_of(&file);
    o.split = EV_SPLIT_LAST;
    ev_snapshot *x = imported(&o);
    read_folds(x);
    assert_true(ev_snapshot_sequential(x) && ev_snapshot_cut_time(x, EV_TEST) == INT64_MIN);
    for (int u = 0; u < USERS; u++) {
      size_t count[3] = {0}, n = 0;
      int64_t least[3] = {INT64_MAX, INT64_MAX, INT64_MAX}, most[3] = {INT64_MIN, INT64_MIN, INT64_MIN};
      for (int i = 0; i < ITEMS; i++) {
        if (!w.has[u][i]) continue;
        int f = folds[u][i] / 2;
        count[f]++, n++;
        if (w.time[u][i] < least[f]) least[f] = w.time[u][i];
        if (w.time[u][i] > most[f]) most[f] = w.time[u][i];
      }
      if (n == 0) continue;
      assert_true(count[0] >= 1 && most[0] <= least[1] && most[0] <= least[2] && most[1] <= least[2]);
      if (n >= 3) assert_true(fabs((double)count[2] - 0.2 * (double)n) <= 0.5 && fabs((double)count[1] - 0.1 * (double)n) <= 0.5);
    }
    ev_snapshot_close(x);
  }
}

static void a_ratio_cut_keeps_shares_and_is_the_same_for_the_same_seed(void **s) {
  (void)s;
  static world w;
  static uint8_t first[USERS][ITEMS];
  ev_hash h[4];
  const char *file = random_world(&w, 77, 0.3);
  for (int round = 0; round < 4; round++) {
    ev_import_options o = options_of(&file);
    o.split = EV_SPLIT_RATIO;
    o.seed = round < 2 ? 5 : 5 + (uint64_t)round;
    ev_snapshot *x = imported(&o);
    read_folds(x);
    ev_snapshot_hash(x, &h[round]);
    assert_false(ev_snapshot_sequential(x));
    for (int u = 0; u < USERS; u++) {
      size_t count[3] = {0}, n = 0;
      for (int i = 0; i < ITEMS; i++)
        if (folds[u][i] != 0) count[folds[u][i] / 2]++, n++;
      if (n == 0) continue;
      assert_true(count[0] >= 1);
      if (n >= 3) assert_true(fabs((double)count[2] - 0.2 * (double)n) <= 0.5 && fabs((double)count[1] - 0.1 * (double)n) <= 0.5);
    }
    if (round == 0) memcpy(first, folds, sizeof folds);
    if (round > 1) assert_memory_not_equal(first, folds, sizeof folds);
    ev_snapshot_close(x);
  }
  assert_memory_equal(&h[0], &h[1], sizeof h[0]);
  assert_memory_not_equal(&h[0], &h[2], sizeof h[0]);
  /* a choice: over the users the tested ones are not those of one end of the file */
  double place = 0, n = 0;
  for (int u = 0; u < USERS; u++)
    for (int i = 0; i < ITEMS; i++)
      if (first[u][i] == EV_TEST) place += i, n++;
  assert_true(n > 40 && fabs(place / n - 12) < 3.5); /* uniform: 12 ± 7.2 / √n, four standard errors */
}

static void validation_is_taken_from_train_where_only_a_test_is_given(void **s) {
  (void)s;
  ev_import_options o = options_of(NULL);
  o.n_files = 0;
  o.train = put("train.txt", "0 1 2 3 4 5 6 7 8 9 10\n1 1 2 3 4 5 6 7 8 9 10\n2 1\n");
  o.test = put("test.txt", "0 11 12\n1 11\n2 2\n");
  o.valid_share = 0.3;
  for (int ordered = 0; ordered < 2; ordered++) {
    o.ordered = ordered == 1;
    ev_snapshot *x = imported(&o);
    assert_int_equal(ev_snapshot_sequential(x), ordered);
    for (uint32_t u = 0; u < 3; u++) {
      size_t len, valid = 0;
      for (uint64_t i = ev_snapshot_user_ptr(x)[u]; i < ev_snapshot_user_ptr(x)[u + 1]; i++) {
        const char *id = ev_snapshot_item_id(x, ev_snapshot_items(x)[i], &len);
        int item = number_of(id, len), fold = ev_snapshot_folds(x)[i];
        valid += fold == EV_VALID;
        assert_int_equal(fold == EV_TEST, item > 10 || (u == 2 && item == 2));
        if (ordered == 1 && u < 2 && item <= 10) assert_int_equal(fold, item > 7 ? EV_VALID : EV_TRAIN);
      }
      assert_int_equal(valid, u < 2 ? 3 : 0); /* at least one stays */
    }
    ev_snapshot_close(x);
  }
}

static void a_generated_world_is_sound_and_the_same_for_the_same_seed(void **s) {
  (void)s;
  ev_hash h[3];
  for (int round = 0; round < 3; round++) {
    ev_generate_options o;
    ev_snapshot *x;
    ev_view *train, *test;
    ev_generate_defaults(&o);
    o.n_users = 50;
    o.n_items = 80;
    o.seed = round < 2 ? 4 : 5;
    assert_int_equal(ev_generate(&o, in_folder("out")), EV_OK);
    assert_int_equal(ev_snapshot_open(&x, in_folder("out")), EV_OK);
    ev_snapshot_hash(x, &h[round]);
    assert_true(ev_snapshot_n_users(x) <= 50 && ev_snapshot_n_items(x) <= 80 && ev_snapshot_n_interactions(x) > 0);
    assert_int_equal(ev_view_new(&train, x, EV_TRAIN | EV_VALID), EV_OK);
    assert_int_equal(ev_view_new(&test, x, EV_TEST), EV_OK);
    size_t n = train->by_user.ptr[train->by_user.n_rows], m = test->by_user.ptr[test->by_user.n_rows];
    assert_true(n > 0 && m > 0 && n + m == ev_snapshot_n_interactions(x));
    for (size_t i = 0; i < n; i++) assert_true(train->by_user.time[i] < ev_snapshot_cut_time(x, EV_TEST));
    for (size_t i = 0; i < m; i++) assert_true(test->by_user.time[i] >= ev_snapshot_cut_time(x, EV_TEST));
    ev_view_free(train);
    ev_view_free(test);
    ev_snapshot_close(x);
  }
  assert_memory_equal(&h[0], &h[1], sizeof h[0]);
  assert_memory_not_equal(&h[0], &h[2], sizeof h[0]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_core_and_a_least_rating_are_those_of_brute_force), cmocka_unit_test(a_core_has_no_users_without_items),
      cmocka_unit_test(a_time_cut_never_trains_on_what_came_later), cmocka_unit_test(leave_one_out_takes_the_last_two_of_each_user),
      cmocka_unit_test(a_cut_of_the_last_keeps_shares_and_each_users_order),
      cmocka_unit_test(a_ratio_cut_keeps_shares_and_is_the_same_for_the_same_seed),
      cmocka_unit_test(validation_is_taken_from_train_where_only_a_test_is_given),
      cmocka_unit_test(a_generated_world_is_sound_and_the_same_for_the_same_seed),
  };
  return RUN(tests);
}
