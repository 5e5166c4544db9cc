/* store_view.c - views against the snapshot they are of: their folds, both ways round, and what a cut holds out. */
#include <math.h>

#include "store/store.h"
#include "support.h"

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

static void only_so_many_users_are_cut_and_a_part_is_cut_within_itself(void **s) {
  (void)s;
  static bool kept[1000], out[1000];
  for (size_t round = 0; round < 20; round++) {
    ev_snapshot *x = random_snapshot(round, true, round % 2 == 0 ? EV_SPLIT_LEAVE_ONE_OUT : EV_SPLIT_RATIO);
    ev_view *v, *part, *before, *rest, *held;
    size_t wanted = round % 7, cut = 0, able = 0;
    assert_int_equal(ev_view_new(&v, x, EV_TRAIN | EV_VALID), EV_OK);
    assert_int_equal(ev_view_split(&part, &before, v, 0.3, 5), EV_OK); /* what `before` holds must not come back */
    assert_int_equal(ev_view_hold(&rest, &held, part, 0.4, wanted, round), EV_OK);
    for (size_t u = 0; u < part->by_user.n_rows; u++) {
      const uint64_t *p = part->by_user.ptr + u, *h = held->by_user.ptr + u;
      size_t m = p[1] - p[0], taken = h[1] - h[0];
      able += m >= 2;
      cut += taken > 0;
      assert_true(taken == 0 || taken == (size_t)ceil(0.4 * (double)m));
      for (uint64_t i = ev_snapshot_user_ptr(x)[u]; i < ev_snapshot_user_ptr(x)[u + 1]; i++) {
        uint32_t item = ev_snapshot_items(x)[i];
        bool mine = ev_sorted_has(part->seen + p[0], m, item);
        out[i] = ev_sorted_has(held->seen + h[0], taken, item);
        kept[i] = mine && !out[i];
        assert_true(mine || !out[i]);
      }
    }
    assert_int_equal(cut, wanted < able ? wanted : able);
    assert_views(rest, x, kept);
    assert_views(held, x, out);
    ev_view *all[] = {v, part, before, rest, held};
    for (int i = 0; i < 5; i++) ev_view_free(all[i]);
    ev_snapshot_close(x);
  }
}

static void blocks_of_users_are_a_partition_of_a_view(void **s) {
  (void)s;
  for (uint64_t seed = 1; seed <= 4; seed++) {
    ev_snapshot *x = random_snapshot(seed, true, seed % 2 == 0 ? EV_SPLIT_TIME : EV_SPLIT_LEAVE_ONE_OUT);
    ev_view *v, *part, *rest, *held;
    assert_int_equal(ev_view_new(&v, x, EV_TRAIN | EV_VALID), EV_OK);
    assert_int_equal(ev_view_split(&rest, &held, v, 0.4, seed), EV_OK); /* a part of its folds itself */
    ev_view *of[] = {v, rest};
    for (int k = 0; k < 2; k++) {
      enum { BLOCKS = 7 };
      size_t total = 0;
      for (size_t b = 0; b < BLOCKS; b++) {
        assert_int_equal(ev_view_block(&part, of[k], b, BLOCKS), EV_OK);
        for (size_t u = 0; u < part->by_user.n_rows; u++) {
          size_t n = part->by_user.ptr[u + 1] - part->by_user.ptr[u], all = of[k]->by_user.ptr[u + 1] - of[k]->by_user.ptr[u];
          assert_int_equal(n, u % BLOCKS == b ? all : 0);
          for (size_t i = 0; i < n; i++) assert_int_equal(part->by_user.idx[part->by_user.ptr[u] + i], of[k]->by_user.idx[of[k]->by_user.ptr[u] + i]);
          total += n;
        }
        ev_view_free(part);
      }
      assert_int_equal(total, of[k]->by_user.ptr[of[k]->by_user.n_rows]);
    }
    assert_int_equal(ev_view_block(&part, v, 3, 3), EV_EINVAL);
    ASSERT_SURVIVES_FAULTS(ev_view_block(&part, v, 1, 3), );
    ev_view *all[] = {v, part, rest, held};
    for (int i = 0; i < 4; i++) ev_view_free(all[i]);
    ev_snapshot_close(x);
  }
}

static void views_survive_faults(void **s) {
  (void)s;
  ev_snapshot *x = random_snapshot(1, true, EV_SPLIT_TIME);
  ev_view *v, *rest, *held;
  ASSERT_SURVIVES_FAULTS(ev_view_new(&v, x, EV_TRAIN), );
  ASSERT_SURVIVES_FAULTS(ev_view_hold(&rest, &held, v, 0.3, 5, 1), );
  ev_view_free(v);
  ev_view_free(rest);
  ev_view_free(held);
  ev_snapshot_close(x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_view_holds_its_folds_and_nothing_else), cmocka_unit_test(a_cut_view_holds_out_a_share_of_each_user),
      cmocka_unit_test(only_so_many_users_are_cut_and_a_part_is_cut_within_itself),
      cmocka_unit_test(blocks_of_users_are_a_partition_of_a_view), cmocka_unit_test(views_survive_faults),
  };
  return RUN(tests);
}
