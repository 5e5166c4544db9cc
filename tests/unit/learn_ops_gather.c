/* gather, pick, and the sums of rows by id that gradients of tables are. */
#include "learn_ops.h"

/* ---- Sorting and summing --------------------------------------------------------------------------------------*/
/* n ids below `most`, some of them often, one in `none` missing (0: all there). */
static uint32_t *some_ids(size_t n, uint32_t most, uint32_t none, uint64_t seed) {
  uint32_t *ids = malloc((n + 1) * sizeof *ids);
  ev_rng r;
  assert_non_null(ids);
  ev_rng_seed(&r, seed, 0);
  for (size_t i = 0; i < n; i++) {
    double x = ev_rng_f64(&r);
    ids[i] = none > 0 && ev_rng_below(&r, none) == 0 ? EV_NONE : (uint32_t)(x * x * most);
  }
  return ids;
}

static void check_sort(size_t n, const uint32_t *ids) {
  uint32_t *order = malloc((n + 1) * sizeof *order), *starts = malloc((n + 1) * sizeof *starts), *scratch = malloc((2 * n + 1) * sizeof *scratch);
  bool *seen = calloc(n + 1, 1);
  assert_true(order != NULL && starts != NULL && scratch != NULL && seen != NULL);
  size_t there = 0, unique = ev_rows_sort(order, starts, scratch, ids, n);
  for (size_t i = 0; i < n; i++) there += ids[i] != EV_NONE;
  assert_int_equal(starts[0], 0);
  assert_int_equal(starts[unique], there);
  for (size_t u = 0; u < unique; u++) {
    assert_true(starts[u] < starts[u + 1]);
    if (u > 0) assert_true(ids[order[starts[u - 1]]] < ids[order[starts[u]]]);
    for (size_t i = starts[u]; i < starts[u + 1]; i++) {
      assert_true(order[i] < n && !seen[order[i]]);
      seen[order[i]] = true;
      assert_int_equal(ids[order[i]], ids[order[starts[u]]]);
      if (i > starts[u]) assert_true(order[i - 1] < order[i]);
    }
  }
  free(order), free(starts), free(scratch), free(seen);
}

static void positions_are_sorted_by_id_and_then_by_position(void **state) {
  (void)state;
  const size_t sizes[] = {0, 1, 2, 100, 1999, 2000, 5000, 65535, 65536, 300000};
  const uint32_t mosts[] = {1, 2, 255, 256, 257, 70000, 5000000, UINT32_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (size_t m = 0; m < sizeof mosts / sizeof *mosts; m++)
      for (int threads = 1; threads <= 5; threads += 4) {
        if (threads > 1 && sizes[i] < 60000) continue;
        ev_threads_set(threads);
        uint32_t *ids = some_ids(sizes[i], mosts[m], (uint32_t[]){0, 3}[m % 2], i * 10 + m);
        check_sort(sizes[i], ids);
        free(ids);
      }
  ev_threads_set(0);
  const uint32_t none[3] = {EV_NONE, EV_NONE, EV_NONE}, edge[3] = {UINT32_MAX - 1, 0, UINT32_MAX - 1};
  check_sort(3, none);
  check_sort(3, edge);
}

static void rows_of_one_id_are_summed_over_all_parts(void **state) {
  (void)state;
  const size_t sizes[3] = {700, 0, 1300}, n = 2000, rows = 150;
  for (size_t d = 1; d <= 70; d += 23) {
    uint32_t *ids = some_ids(n, rows, 9, d), *order = malloc(n * sizeof *order), *starts = malloc((n + 1) * sizeof *starts), *scratch = malloc(2 * n * sizeof *scratch);
    float *x = malloc(n * d * sizeof *x), *dense = malloc(rows * d * sizeof *dense), *compact = malloc(n * d * sizeof *compact);
    double *want = calloc(rows * d, sizeof *want), *size = calloc(rows * d, sizeof *size);
    assert_true(order != NULL && starts != NULL && scratch != NULL && x != NULL && dense != NULL && compact != NULL && want != NULL && size != NULL);
    spread(x, n * d, -1, 1, 5);
    for (size_t i = 0; i < rows * d; i++) dense[i] = (float)i;
    for (size_t i = 0; i < n; i++)
      for (size_t c = 0; c < d && ids[i] != EV_NONE; c++) want[ids[i] * d + c] += x[i * d + c], size[ids[i] * d + c] += fabs(x[i * d + c]);
    ev_rows_part parts[3] = {{x, sizes[0]}, {NULL, 0}, {x + sizes[0] * d, sizes[2]}};
    size_t unique = ev_rows_sort(order, starts, scratch, ids, n);
    ev_rows_sum(compact, NULL, parts, 3, order, starts, unique, d);
    ev_rows_sum(dense, ids, parts, 3, order, starts, unique, d);
    for (size_t u = 0; u < unique; u++)
      for (size_t c = 0; c < d; c++) {
        size_t e = ids[order[starts[u]]] * d + c;
        near("the sum of an id", u * d + c, compact[u * d + c], want[e], size[e]);
      }
    for (size_t e = 0; e < rows * d; e++) near("the table", e, dense[e], want[e] + (double)e, size[e] + (double)e);
    uint64_t sums[2] = {0};
    for (int threads = 1; threads <= 5; threads += 4) {
      ev_threads_set(threads);
      ev_rows_sum(compact, NULL, parts, 3, order, starts, unique, d);
      sums[threads / 4] = ev_checksum(compact, unique * d * sizeof *compact);
    }
    ev_threads_set(0);
    assert_true(sums[0] == sums[1]);
    free(ids), free(order), free(starts), free(scratch), free(x), free(dense), free(compact), free(want), free(size);
  }
}

/* ---- gather ------------------------------------------------------------------------------------------------*/
static void rows_are_those_of_their_ids_and_zeros_for_none(void **state) {
  (void)state;
  const uint32_t ids[6] = {4, EV_NONE, 0, 4, 2, EV_NONE};
  for (size_t d = 0; d <= 70; d += 7) { /* 0: a table of numbers, not rows */
    ev_graph *g;
    MUST(ev_graph_new(&g, 1, 0));
    size_t width = d == 0 ? 1 : d;
    ev_tensor table = input(g, "table", d == 0 ? DIMS(5) : DIMS(5, d), -1, 1), at = input_ids(g, "at", DIMS(2, 3), ids), rows = apply(g, "gather", IN(table, at), NO_ATTRS);
    const float *x = ev_graph_values(g, table, NULL);
    ev_shape s;
    float *out = value_of(g, rows, &s);
    assert_true(s.rank == (d == 0 ? 2 : 3) && s.dim[0] == 2 && s.dim[1] == 3);
    if (d > 0) assert_int_equal(s.dim[2], d);
    for (size_t i = 0; i < 6; i++)
      for (size_t c = 0; c < width; c++) assert_true(out[i * width + c] == (ids[i] == EV_NONE ? 0 : x[ids[i] * width + c]));
    free(out);
    ev_graph_free(g);
  }
}

static void only_live_rows_are_gathered_from(void **state) {
  (void)state;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned axis = new_axis(g, 9, 4);
  const uint32_t ids[3] = {3, 0, 1};
  ev_tensor table = input(g, "table", DIMS_LIVE(axis, 9, 2), -1, 1), at = input_ids(g, "at", DIMS(3), ids), rows = apply(g, "gather", IN(table, at), NO_ATTRS);
  ev_shape s;
  free(value_of(g, rows, &s));
  ev_graph_ids(g, at, NULL)[1] = 4;
  run_says(g, rows, "gather: id 4, but 'table' has 4 rows");
  ev_graph_free(g);
}

static void an_id_out_of_range_is_named(void **state) {
  (void)state;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  ev_shape s = DIMS(40000);
  ev_tensor table = input(g, "item", DIMS(300, 8), -1, 1), bias = input(g, "bias", DIMS(300), -1, 1), at = EV_NONE;
  MUST(ev_graph_input_ids(g, &at, "at", &s));
  uint32_t *ids = ev_graph_ids(g, at, NULL);
  for (size_t i = 0; i < 40000; i++) ids[i] = i % 300;
  ids[3] = EV_NONE;
  ev_graph_at(g, "scheme.lua:5");
  ev_tensor rows = apply(g, "gather", IN(table, at), NO_ATTRS), numbers = apply(g, "gather", IN(bias, at), NO_ATTRS), matrix = apply(g, "reshape", IN(input(g, "x", DIMS(40000, 2), -1, 1)), ATTRS(-1, 2));
  ev_tensor picked = apply(g, "pick", IN(matrix, at), NO_ATTRS);
  run_says(g, picked, "scheme.lua:5: pick: id 2, but 'reshape' has 2 columns");
  ids[39000] = 300, ids[39500] = 777;
  run_says(g, rows, "scheme.lua:5: gather: id 300, but 'item' has 300 rows");
  run_says(g, numbers, "scheme.lua:5: gather: id 300, but 'bias' has 300 rows");
  ev_graph_free(g);
}

static const uint32_t repeated[8] = {2, 0, 2, EV_NONE, 2, 3, 0, 1};
static ev_tensor lazy_rows(ev_graph *g) { return apply(g, "gather", IN(parameter(g, "table", DIMS(5, 3), -1, 1), input_ids(g, "ids", DIMS(8), repeated)), NO_ATTRS); }
static ev_tensor dense_rows(ev_graph *g) { /* a table that was computed */
  ev_tensor table = apply(g, "scale", IN(parameter(g, "table", DIMS(5, 3), -1, 1)), ATTRS(2, 0));
  return apply(g, "gather", IN(table, input_ids(g, "ids", DIMS(2, 4), repeated)), NO_ATTRS);
}
static ev_tensor dense_numbers(ev_graph *g) {
  ev_tensor table = apply(g, "scale", IN(parameter(g, "table", DIMS(5), -1, 1)), ATTRS(2, 0));
  return apply(g, "gather", IN(table, input_ids(g, "ids", DIMS(8), repeated)), NO_ATTRS);
}
static ev_tensor live_ids(ev_graph *g) {
  ev_tensor table = apply(g, "scale", IN(parameter(g, "table", DIMS(5, 3), -1, 1)), ATTRS(2, 0));
  return apply(g, "gather", IN(table, input_ids(g, "ids", DIMS_LIVE(new_axis(g, 8, 5), 8), repeated)), NO_ATTRS);
}
static ev_tensor live_table(ev_graph *g) {
  const uint32_t at[4] = {0, 2, 2, 1};
  return apply(g, "gather", IN(live_rows(g, new_axis(g, 6, 3), "x", 2), input_ids(g, "ids", DIMS(4), at)), NO_ATTRS);
}
static ev_tensor twice_gathered(ev_graph *g) {
  const uint32_t at[3] = {4, 2, 0};
  ev_tensor table = parameter(g, "table", DIMS(5, 3), -1, 1), a = apply(g, "gather", IN(table, input_ids(g, "ids", DIMS(8), repeated)), NO_ATTRS);
  return apply(g, "concat", IN(a, apply(g, "gather", IN(table, input_ids(g, "others", DIMS(3), at)), NO_ATTRS)), ATTRS(0));
}
static ev_tensor picked(ev_graph *g) {
  const uint32_t at[4] = {2, EV_NONE, 0, 2};
  return apply(g, "pick", IN(parameter(g, "x", DIMS(4, 3), -1, 1), input_ids(g, "ids", DIMS(4), at)), NO_ATTRS);
}
static ev_tensor picked_live(ev_graph *g) {
  unsigned axis = new_axis(g, 6, 4);
  const uint32_t at[6] = {2, EV_NONE, 0, 2, 99, 99};
  return apply(g, "pick", IN(live_rows(g, axis, "x", 3), input_ids(g, "ids", DIMS_LIVE(axis, 6), at)), NO_ATTRS);
}

static void gradients_are_added_to_the_rows_they_came_from(void **state) {
  (void)state;
  check_gradients("gather from a parameter", lazy_rows, 0, 0);
  check_gradients("gather from a computed table", dense_rows, 0, 0);
  check_gradients("gather of numbers", dense_numbers, 0, 0);
  check_gradients("gather by live ids", live_ids, 0, 0);
  check_gradients("gather from live rows", live_table, 0, 0);
  check_gradients("two gathers from one parameter", twice_gathered, 0, 0);
  check_gradients("pick", picked, 0, 0);
  check_gradients("pick from live rows", picked_live, 0, 0);
}

static void picked_elements_are_those_of_their_ids(void **state) {
  (void)state;
  stage s = stage_open(picked, false);
  stage_run(&s);
  float y[4];
  const float *x = ev_graph_values(s.g, ev_graph_find(s.g, "x"), NULL);
  assert_int_equal(stage_value(&s, y, 4), 4);
  assert_true(y[0] == x[2] && y[1] == 0 && y[2] == x[6] && y[3] == x[11]);
  stage_close(&s);
}

static ev_tensor large_gather(ev_graph *g) {
  ev_tensor table = apply(g, "scale", IN(parameter(g, "table", DIMS(5000, 20), -1, 1)), ATTRS(2, 0));
  uint32_t *ids = some_ids(70000, 5000, 50, 3);
  ev_tensor at = input_ids(g, "ids", DIMS(70000), ids);
  free(ids);
  return apply(g, "gather", IN(table, at), NO_ATTRS);
}

static void gathers_have_the_same_bits_for_any_threads(void **state) {
  (void)state;
  check_threads("gather", large_gather);
}

static void what_cannot_be_gathered_is_refused(void **state) {
  (void)state;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned axis = new_axis(g, 6, 6);
  const uint32_t some[16] = {0};
  ev_tensor x = input(g, "x", DIMS(6, 4), -1, 1), cube = input(g, "cube", DIMS(6, 4, 2), -1, 1), v = input(g, "v", DIMS(6), -1, 1), scalar = EV_NONE;
  ev_tensor ids = input_ids(g, "ids", DIMS(6), some), four = input_ids(g, "four", DIMS(2, 2, 2, 2), some), live = input_ids(g, "live", DIMS_LIVE(axis, 6), some), five = input_ids(g, "five", DIMS(5), some);
  MUST(ev_graph_constant(g, &scalar, 2));
  ev_graph_at(g, "scheme.lua:2");
  refused(g, "gather", IN(x, v), NO_ATTRS, SAYS("scheme.lua:2: gather (6, 4) x (6)", "input 2 must be ids, not numbers"));
  refused(g, "gather", IN(ids, ids), NO_ATTRS, SAYS("input 1 must be numbers, not ids"));
  refused(g, "gather", IN(cube, ids), NO_ATTRS, SAYS("one or two dimensions, not 3"));
  refused(g, "gather", IN(scalar, ids), NO_ATTRS, SAYS("one or two dimensions, not 0"));
  refused(g, "gather", IN(x, four), NO_ATTRS, SAYS("would have 5"));
  refused(g, "pick", IN(x, v), NO_ATTRS, SAYS("input 2 must be ids"));
  refused(g, "pick", IN(cube, ids), NO_ATTRS, SAYS("x has two dimensions"));
  refused(g, "pick", IN(x, four), NO_ATTRS, SAYS("one id for each"));
  refused(g, "pick", IN(x, five), NO_ATTRS, SAYS("6 rows, but 5 ids"));
  refused(g, "pick", IN(x, live), NO_ATTRS, SAYS("6 rows, but 6 ids along another axis"));
  ev_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(positions_are_sorted_by_id_and_then_by_position),
      cmocka_unit_test(rows_of_one_id_are_summed_over_all_parts),
      cmocka_unit_test(rows_are_those_of_their_ids_and_zeros_for_none),
      cmocka_unit_test(only_live_rows_are_gathered_from),
      cmocka_unit_test(an_id_out_of_range_is_named),
      cmocka_unit_test(gradients_are_added_to_the_rows_they_came_from),
      cmocka_unit_test(picked_elements_are_those_of_their_ids),
      cmocka_unit_test(gathers_have_the_same_bits_for_any_threads),
      cmocka_unit_test(what_cannot_be_gathered_is_refused),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
