/* learn_bag.c - embedding bags against plain loops, and feature matrices against the columns they are made of. */
#include "learn_ops.h"

static const uint64_t ptr[] = {0, 3, 3, 4, 8, 10, 11};
static const uint32_t idx[] = {0, 2, 4, 1, 0, 1, 3, 4, 2, 2, 0}; /* row 4 has a column twice */
static const float weights[] = {0.5f, -1, 2, 1, 0.25f, -0.75f, 3, 1, 0.5f, 0.25f, -2};

static ev_tensor sparse(ev_graph *g, bool weighted) {
  ev_tensor t = EV_NONE;
  MUST(ev_graph_sparse(g, &t, "s", 6, 5, ptr, idx, weighted ? weights : NULL));
  return t;
}

static const uint32_t rows[8] = {3, 0, EV_NONE, 3, 4, 1, 0, 5};

static void rows_are_sums_of_what_the_matrix_names(void **state) {
  (void)state;
  for (int weighted = 0; weighted < 2; weighted++)
    for (int shaped = 0; shaped < 2; shaped++) {
      ev_graph *g;
      MUST(ev_graph_new(&g, 1, 0));
      ev_tensor x = input(g, "x", DIMS(5, 3), -1, 1), ids = input_ids(g, "ids", shaped ? DIMS(2, 4) : DIMS(8), rows);
      ev_tensor y = apply(g, "bag", IN(sparse(g, weighted), x, ids), NO_ATTRS);
      const float *table = ev_graph_values(g, x, NULL);
      ev_shape live;
      float *got = value_of(g, y, &live);
      assert_int_equal(live.rank, shaped ? 3 : 2);
      assert_int_equal(elements(&live), 24);
      for (size_t i = 0; i < 8; i++)
        for (size_t d = 0; d < 3; d++) {
          double sum = 0, size = 0;
          for (uint64_t e = rows[i] == EV_NONE ? 0 : ptr[rows[i]]; rows[i] != EV_NONE && e < ptr[rows[i] + 1]; e++) {
            double term = (weighted ? weights[e] : 1) * (double)table[idx[e] * 3 + d];
            sum += term, size += fabs(term);
          }
          near("bag", i * 3 + d, got[i * 3 + d], sum, size);
        }
      free(got);
      ev_graph_free(g);
    }
}

static ev_tensor plain(ev_graph *g) { return apply(g, "bag", IN(sparse(g, true), parameter(g, "x", DIMS(5, 3), -1, 1), input_ids(g, "ids", DIMS(8), rows)), NO_ATTRS); }
static ev_tensor ones(ev_graph *g) { return apply(g, "bag", IN(sparse(g, false), parameter(g, "x", DIMS(5, 2), -1, 1), input_ids(g, "ids", DIMS(2, 4), rows)), NO_ATTRS); }
static ev_tensor computed(ev_graph *g) {
  ev_tensor x = apply(g, "scale", IN(parameter(g, "x", DIMS(5, 3), -1, 1)), ATTRS(2, 0.5));
  return apply(g, "bag", IN(sparse(g, true), x, input_ids(g, "ids", DIMS(8), rows)), NO_ATTRS);
}
static ev_tensor live(ev_graph *g) {
  return apply(g, "bag", IN(sparse(g, true), parameter(g, "x", DIMS(5, 3), -1, 1), input_ids(g, "ids", DIMS_LIVE(new_axis(g, 8, 5), 8), rows)), NO_ATTRS);
}
static ev_tensor nobody(ev_graph *g) {
  static const uint32_t none[4] = {EV_NONE, EV_NONE, 1, EV_NONE};
  return apply(g, "bag", IN(sparse(g, true), parameter(g, "x", DIMS(5, 3), -1, 1), input_ids(g, "ids", DIMS(4), none)), NO_ATTRS);
}

static void gradients_go_to_the_columns_of_the_rows(void **state) {
  (void)state;
  check_gradients("bag", plain, 0, 0);
  check_gradients("bag of ones", ones, 0, 0);
  check_gradients("bag of a computed table", computed, 0, 0);
  check_gradients("bag of live rows", live, 0, 0);
  check_gradients("bag of nobody", nobody, 0, 0);
}

static ev_tensor large(ev_graph *g) {
  enum { R = 3000, C = 700, N = 9000 };
  static uint64_t p[R + 1];
  static uint32_t at[R * 6], ids[N];
  static float w[R * 6];
  ev_tensor s = EV_NONE;
  ev_rng r;
  ev_rng_seed(&r, 3, 0);
  for (size_t i = 0, n = 0; i < R; i++) {
    for (uint32_t k = ev_rng_below(&r, 7); k > 0; k--, n++) at[n] = ev_rng_below(&r, 1 + ev_rng_below(&r, C)), w[n] = (float)ev_rng_normal(&r);
    p[i + 1] = n;
  }
  for (size_t i = 0; i < N; i++) ids[i] = i % 50 == 0 ? EV_NONE : ev_rng_below(&r, 1 + ev_rng_below(&r, R));
  MUST(ev_graph_sparse(g, &s, "s", R, C, p, at, w));
  return apply(g, "bag", IN(s, parameter(g, "x", DIMS(C, 24), -1, 1), input_ids(g, "ids", DIMS(N), ids)), NO_ATTRS);
}

static void bags_have_the_same_bits_for_any_threads(void **state) {
  (void)state;
  check_threads("bag", large);
}

static void what_is_no_bag_is_refused(void **state) {
  (void)state;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned axis = new_axis(g, 5, 5);
  static const uint32_t far[2] = {2, 6}, some[16] = {0};
  ev_tensor s = sparse(g, true), x = input(g, "x", DIMS(5, 3), -1, 1), other = input(g, "other", DIMS(6, 3), -1, 1), v = input(g, "v", DIMS(5), -1, 1);
  ev_tensor moving = input(g, "moving", DIMS_LIVE(axis, 5, 3), -1, 1), ids = input_ids(g, "ids", DIMS(2), far), four = input_ids(g, "four", DIMS(2, 2, 2, 2), some);
  refused(g, "bag", IN(x, x, ids), NO_ATTRS, SAYS("input 1"));
  refused(g, "bag", IN(s, ids, ids), NO_ATTRS, SAYS("input 2"));
  refused(g, "bag", IN(s, x, x), NO_ATTRS, SAYS("input 3"));
  refused(g, "bag", IN(s, other, ids), NO_ATTRS, SAYS("inner sizes 5 and 6 differ"));
  refused(g, "bag", IN(s, v, ids), NO_ATTRS, SAYS("two dimensions and no axis"));
  refused(g, "bag", IN(s, moving, ids), NO_ATTRS, SAYS("two dimensions and no axis"));
  refused(g, "bag", IN(s, x, four), NO_ATTRS, SAYS("would have 5"));
  run_says(g, apply(g, "bag", IN(s, x, ids), NO_ATTRS), "id 6, but 's' has 6 rows");
  ev_graph_free(g);
}

/* ---- Feature matrices ------------------------------------------------------------------------------------*/
static void a_feature_matrix_is_what_the_columns_say(void **state) {
  (void)state;
  static const char inter[] = "user,item\nu0,i0\nu0,i1\nu1,i1\nu1,i2\nu1,i3\n";
  static const char items[] = "item_id:token\tgenre:token_seq\tyear:float\tmaker:token\ni0\ta b\t1990\tx\ni1\tb\t\ty\ni2\t\t2000\tx\ni3\tc a b\t1992\t\ni4\tb\t1994\ty\n";
  write_text(in_folder("a.csv"), inter, sizeof inter - 1);
  write_text(in_folder("a.item"), items, sizeof items - 1);
  const char *files[] = {in_folder("a.csv"), in_folder("a.item")}, *columns[] = {"genre", "year", "maker"}, *wrong[] = {"colour"};
  ev_import_options o;
  ev_import_defaults(&o);
  o.files = files;
  o.n_files = 2;
  ev_snapshot *s;
  ev_graph *g;
  ev_tensor t = EV_NONE, one = EV_NONE;
  MUST(ev_import(&o, in_folder("data")));
  MUST(ev_snapshot_open(&s, in_folder("data")));
  MUST(ev_graph_new(&g, 1, 0));
  MUST(ev_graph_features(g, &t, "f", s, EV_ITEM, columns, 3));
  const ev_shape *shape = ev_graph_shape(g, t);
  assert_true(shape->rank == 2 && shape->dim[0] == 5 && shape->dim[1] == 6); /* a b c, year, x y */
  const double mean = (1990 + 2000 + 1992 + 1994) / 4.0, std = sqrt((16 + 36 + 4 + 0) / 4.0);
  const double expected[5][6] = {{0.5, 0.5, 0, (1990 - mean) / std, 1, 0},
                                 {0, 1, 0, 0, 0, 1},
                                 {0, 0, 0, (2000 - mean) / std, 1, 0},
                                 {1 / 3.0, 1 / 3.0, 1 / 3.0, (1992 - mean) / std, 0, 0},
                                 {0, 1, 0, (1994 - mean) / std, 0, 1}};
  static const uint32_t all[5] = {0, 1, 2, 3, 4};
  ev_tensor table = input(g, "table", DIMS(6, 6), -1, 1), ids = input_ids(g, "ids", DIMS(5), all);
  float *x = ev_graph_values(g, table, NULL);
  for (size_t i = 0; i < 36; i++) x[i] = i % 7 == 0; /* the identity: a bag of it is the matrix */
  ev_shape at;
  float *got = value_of(g, apply(g, "bag", IN(t, table, ids), NO_ATTRS), &at);
  for (uint32_t i = 0; i < 5; i++) {
    char id[8];
    size_t len;
    memcpy(id, ev_snapshot_item_id(s, i, &len), 2);
    for (size_t k = 0; k < 6; k++) near("feature", i * 6 + k, got[i * 6 + k], expected[id[1] - '0'][k], 2);
  }
  free(got);
  assert_int_equal(ev_graph_features(g, &one, "g", s, EV_ITEM, wrong, 1), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "no item column 'colour'"));
  assert_int_equal(ev_graph_features(g, &one, "g", s, EV_USER, columns, 0), EV_EINVAL);
  assert_int_equal(ev_graph_features(g, &one, "f", s, EV_ITEM, columns, 3), EV_EEXIST);
  ev_graph_free(g);
  ev_snapshot_close(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rows_are_sums_of_what_the_matrix_names), cmocka_unit_test(gradients_go_to_the_columns_of_the_rows),
      cmocka_unit_test(bags_have_the_same_bits_for_any_threads), cmocka_unit_test(what_is_no_bag_is_refused),
      cmocka_unit_test(a_feature_matrix_is_what_the_columns_say),
  };
  return RUN(tests);
}
