/* reshape, transpose, concat, slice: every element in its place, and its gradient on the way back. */
#include "learn_ops.h"

/* ---- Values: an input's numbers are all different, so a place is known by its number --------------------------*/
static void transposed_elements_change_places(void **state) {
  (void)state;
  const ev_shape shapes[] = {DIMS(5), DIMS(3, 7), DIMS(33, 50), DIMS(4, 1, 6), DIMS(3, 17, 18), DIMS(2, 3, 4, 5), DIMS(19, 2, 3, 20), DIMS(70, 90, 8)};
  for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
    for (unsigned i = 0; i < shapes[k].rank; i++)
      for (unsigned j = 0; j < shapes[k].rank; j++) {
        ev_graph *g;
        MUST(ev_graph_new(&g, 1, 0));
        ev_shape s = shapes[k], to;
        ev_tensor x = input(g, "x", s, -1, 1), t = apply(g, "transpose", IN(x), ATTRS(i, j));
        const float *from = ev_graph_values(g, x, NULL);
        float *out = value_of(g, t, &to);
        for (unsigned d = 0; d < s.rank; d++) assert_int_equal(to.dim[d], s.dim[d == i ? j : d == j ? i : d]);
        for (size_t e = 0; e < elements(&s); e++) {
          size_t place[4] = {0}, rest = e, at = 0;
          for (unsigned d = s.rank; d-- > 0;) place[d] = rest % s.dim[d], rest /= s.dim[d];
          size_t swap = place[i];
          place[i] = place[j], place[j] = swap;
          for (unsigned d = 0; d < s.rank; d++) at = at * to.dim[d] + place[d];
          if (out[at] != from[e]) fail_msg("shape %zu, dimensions %u and %u: element %zu is not where it should be", k, i, j, e);
        }
        free(out);
        ev_graph_free(g);
      }
}

static void joined_and_cut_elements_stand_where_they_should(void **state) {
  (void)state;
  for (int dim = 0; dim < 3; dim++) {
    ev_graph *g;
    MUST(ev_graph_new(&g, 1, 0));
    ev_shape s[3], whole = DIMS(4, 5, 6), to;
    whole.dim[dim] = 0;
    for (int k = 0; k < 3; k++) s[k] = DIMS(4, 5, 6), s[k].dim[dim] = (size_t[]){3, 1, 70}[k], whole.dim[dim] += s[k].dim[dim];
    ev_tensor a = input(g, "a", s[0], -1, 1), b = input(g, "b", s[1], 2, 3), c = input(g, "c", s[2], 4, 5), joined = apply(g, "concat", IN(a, b, c), ATTRS(dim));
    const float *from[3] = {ev_graph_values(g, a, NULL), ev_graph_values(g, b, NULL), ev_graph_values(g, c, NULL)};
    float *out = value_of(g, joined, &to);
    for (unsigned d = 0; d < 3; d++) assert_int_equal(to.dim[d], whole.dim[d]);
    for (size_t e = 0; e < elements(&to); e++) {
      size_t place[3] = {e / to.dim[2] / to.dim[1], e / to.dim[2] % to.dim[1], e % to.dim[2]};
      int k = 0;
      while (place[dim] >= s[k].dim[dim]) place[dim] -= s[k++].dim[dim];
      assert_true(out[e] == from[k][(place[0] * s[k].dim[1] + place[1]) * s[k].dim[2] + place[2]]);
    }
    for (size_t low = 0; low < to.dim[dim]; low += 13)
      for (size_t high = low + 1; high <= to.dim[dim]; high += 17) {
        ev_shape part;
        float *cut = value_of(g, apply(g, "slice", IN(joined), ATTRS(dim, (double)low, (double)high)), &part);
        for (unsigned d = 0; d < 3; d++) assert_int_equal(part.dim[d], d == (unsigned)dim ? high - low : to.dim[d]);
        for (size_t e = 0; e < elements(&part); e++) {
          size_t place[3] = {e / part.dim[2] / part.dim[1], e / part.dim[2] % part.dim[1], e % part.dim[2]};
          place[dim] += low;
          assert_true(cut[e] == out[(place[0] * to.dim[1] + place[1]) * to.dim[2] + place[2]]);
        }
        free(cut);
      }
    free(out);
    ev_graph_free(g);
  }
}

static void a_reshaped_tensor_keeps_its_order(void **state) {
  (void)state;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned axis = new_axis(g, 6, 4);
  ev_tensor x = input(g, "x", DIMS(6, 20), -1, 1), rows = input(g, "rows", DIMS_LIVE(axis, 6, 20), -1, 1), one = input(g, "one", DIMS(1), -1, 1);
  ev_shape s;
  float *out = value_of(g, apply(g, "reshape", IN(x), ATTRS(2, -1, 4, 5)), &s);
  assert_true(s.rank == 4 && s.dim[0] == 2 && s.dim[1] == 3 && s.dim[2] == 4 && s.dim[3] == 5 && s.axis == 0);
  assert_memory_equal(out, ev_graph_values(g, x, NULL), 120 * sizeof *out);
  free(out);
  for (int k = 0; k < 2; k++) { /* the axis stays, whether its capacity is said or left open */
    out = value_of(g, apply(g, "reshape", IN(rows), ATTRS(k == 0 ? -1 : 6, 4, 5)), &s);
    assert_true(s.rank == 3 && s.dim[0] == 4 && s.dim[1] == 4 && s.dim[2] == 5 && s.axis == axis);
    assert_memory_equal(out, ev_graph_values(g, rows, NULL), 80 * sizeof *out);
    free(out);
  }
  out = value_of(g, apply(g, "reshape", IN(apply(g, "reshape", IN(rows), ATTRS(6, 2, 10))), ATTRS(6, -1)), &s);
  assert_true(s.rank == 2 && s.dim[0] == 4 && s.dim[1] == 20 && s.axis == axis);
  free(out);
  out = value_of(g, apply(g, "reshape", IN(one), ATTRS(1, 1, 1, -1)), &s);
  assert_true(s.rank == 4 && elements(&s) == 1);
  free(out);
  ev_graph_free(g);
}

/* ---- Gradients ---------------------------------------------------------------------------------------------*/
static ev_tensor transpose_matrix(ev_graph *g) { return apply(g, "transpose", IN(parameter(g, "x", DIMS(3, 18), -1, 1)), ATTRS(0, 1)); }
static ev_tensor transpose_outer(ev_graph *g) { return apply(g, "transpose", IN(parameter(g, "x", DIMS(2, 3, 2, 4), -1, 1)), ATTRS(2, 0)); }
static ev_tensor transpose_inner(ev_graph *g) { return apply(g, "transpose", IN(parameter(g, "x", DIMS(2, 3, 2, 4), -1, 1)), ATTRS(1, 3)); }
static ev_tensor transpose_nothing(ev_graph *g) { return apply(g, "transpose", IN(live_rows(g, new_axis(g, 5, 3), "x", 4)), ATTRS(0, 0)); }
static ev_tensor transpose_live(ev_graph *g) {
  ev_tensor x = apply(g, "reshape", IN(live_rows(g, new_axis(g, 5, 3), "x", 6)), ATTRS(-1, 2, 3));
  return apply(g, "transpose", IN(x), ATTRS(1, 2));
}
static ev_tensor concat_rows(ev_graph *g) {
  return apply(g, "concat", IN(parameter(g, "a", DIMS(2, 3), -1, 1), input(g, "b", DIMS(1, 3), -1, 1), parameter(g, "c", DIMS(4, 3), -1, 1)), ATTRS(0));
}
static ev_tensor concat_live(ev_graph *g) {
  unsigned axis = new_axis(g, 5, 3);
  return apply(g, "concat", IN(live_rows(g, axis, "a", 3), live_rows(g, axis, "b", 1), input(g, "c", DIMS_LIVE(axis, 5, 2), -1, 1)), ATTRS(1));
}
static ev_tensor slice_rows(ev_graph *g) { return apply(g, "slice", IN(parameter(g, "x", DIMS(5, 3), -1, 1)), ATTRS(0, 1, 4)); }
static ev_tensor slice_live(ev_graph *g) { return apply(g, "slice", IN(live_rows(g, new_axis(g, 5, 3), "x", 6)), ATTRS(1, 2, 6)); }
static ev_tensor slice_middle(ev_graph *g) { return apply(g, "slice", IN(parameter(g, "x", DIMS(2, 4, 3), -1, 1)), ATTRS(1, 0, 1)); }
static ev_tensor reshape_live(ev_graph *g) { /* a view between two operators */
  ev_tensor x = apply(g, "reshape", IN(live_rows(g, new_axis(g, 5, 3), "x", 6)), ATTRS(5, 3, 2));
  return apply(g, "slice", IN(x), ATTRS(2, 1, 2));
}

static void gradients_go_back_to_where_elements_came_from(void **state) {
  (void)state;
  check_gradients("transpose", transpose_matrix, 0, 0);
  check_gradients("transpose of outer dimensions", transpose_outer, 0, 0);
  check_gradients("transpose of inner dimensions", transpose_inner, 0, 0);
  check_gradients("transpose of one dimension with itself", transpose_nothing, 0, 0);
  check_gradients("transpose of live rows", transpose_live, 0, 0);
  check_gradients("concat of rows", concat_rows, 0, 0);
  check_gradients("concat of live columns", concat_live, 0, 0);
  check_gradients("slice of rows", slice_rows, 0, 0);
  check_gradients("slice of live columns", slice_live, 0, 0);
  check_gradients("slice of a middle dimension", slice_middle, 0, 0);
  check_gradients("reshape of live rows", reshape_live, 0, 0);
}

static ev_tensor large(ev_graph *g) { /* each operator on enough to be cut up */
  ev_tensor x = parameter(g, "x", DIMS(700, 800), -1, 1), t = apply(g, "transpose", IN(x), ATTRS(0, 1));
  ev_tensor both = apply(g, "concat", IN(t, parameter(g, "y", DIMS(123, 700), -1, 1)), ATTRS(0)), part = apply(g, "slice", IN(both), ATTRS(0, 100, 880));
  return apply(g, "slice", IN(part), ATTRS(1, 7, 690));
}

static void layouts_are_the_same_for_any_threads(void **state) {
  (void)state;
  check_threads("layouts", large);
}

static void shapes_that_do_not_fit_are_refused(void **state) {
  (void)state;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned axis = new_axis(g, 6, 6), other = new_axis(g, 6, 6);
  const uint32_t some[6] = {0};
  ev_tensor x = input(g, "x", DIMS(6, 4), -1, 1), live = input(g, "live", DIMS_LIVE(axis, 6, 4), -1, 1), odd = input(g, "odd", DIMS_LIVE(other, 6, 4), -1, 1);
  ev_tensor v = input(g, "v", DIMS(6), -1, 1), ids = input_ids(g, "ids", DIMS(6), some), wide = input(g, "wide", DIMS(7, 4), -1, 1), scalar = EV_NONE;
  MUST(ev_graph_constant(g, &scalar, 2));
  ev_graph_at(g, "scheme.lua:9");
  refused(g, "reshape", IN(x), ATTRS(5, 5), SAYS("scheme.lua:9: reshape (6, 4)", "24 elements do not fill (5, 5)"));
  refused(g, "reshape", IN(x), ATTRS(-1, -1), SAYS("only one dimension"));
  refused(g, "reshape", IN(x), ATTRS(-1, 5), SAYS("24 elements do not fill the other dimensions, which hold 5"));
  refused(g, "reshape", IN(x), ATTRS(-1, 0), SAYS("which hold 0"));
  refused(g, "reshape", IN(x), ATTRS(4294967296.0, 4294967296.0), SAYS("24 elements do not fill"));
  refused(g, "reshape", IN(x), ATTRS(2.5, -1), SAYS("dimension 2.5"));
  refused(g, "reshape", IN(x), ATTRS(-2, 12), SAYS("dimension -2"));
  refused(g, "reshape", IN(live), ATTRS(24), SAYS("(24) would break the rows of its axis", "must stay 6"));
  refused(g, "reshape", IN(live), ATTRS(12, 2), SAYS("must stay 6"));
  refused(g, "reshape", IN(ids), ATTRS(2, 3), SAYS("must be numbers, not ids"));
  refused(g, "transpose", IN(x), ATTRS(0, 2), SAYS("transpose (6, 4)", "dimension 2"));
  refused(g, "transpose", IN(x), ATTRS(-1, 0), SAYS("dimension -1"));
  refused(g, "transpose", IN(live), ATTRS(0, 1), SAYS("must stay the first"));
  refused(g, "transpose", IN(scalar), ATTRS(0, 0), SAYS("a scalar has no dimensions"));
  refused(g, "transpose", IN(ids), ATTRS(0, 0), SAYS("must be numbers, not ids"));
  refused(g, "concat", IN(x, wide), ATTRS(1), SAYS("concat (6, 4) x (7, 4)", "dimension 0 is 6 in input 1 and 7 in input 2"));
  refused(g, "concat", IN(x, v), ATTRS(0), SAYS("2 and 1 dimensions"));
  refused(g, "concat", IN(x, live), ATTRS(1), SAYS("different axes"));
  refused(g, "concat", IN(live, odd), ATTRS(1), SAYS("different axes"));
  refused(g, "concat", IN(x, live), ATTRS(0), SAYS("rows along an axis"));
  refused(g, "concat", IN(x, x), ATTRS(2), SAYS("dimension 2"));
  refused(g, "concat", IN(scalar, scalar), ATTRS(0), SAYS("scalars"));
  refused(g, "concat", IN(v, ids), ATTRS(0), SAYS("input 2 must be numbers, not ids"));
  refused(g, "slice", IN(x), ATTRS(2, 0, 1), SAYS("slice (6, 4)", "dimension 2"));
  refused(g, "slice", IN(x), ATTRS(0, 6, 7), SAYS("the first place 6"));
  refused(g, "slice", IN(x), ATTRS(0, 2, 2), SAYS("the end 2"));
  refused(g, "slice", IN(x), ATTRS(0, 2, 7), SAYS("the end 7"));
  refused(g, "slice", IN(live), ATTRS(0, 0, 2), SAYS("rows along an axis"));
  refused(g, "slice", IN(scalar), ATTRS(0, 0, 1), SAYS("a scalar has no dimensions"));
  refused(g, "slice", IN(ids), ATTRS(0, 0, 1), SAYS("must be numbers, not ids"));
  ev_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(transposed_elements_change_places),
      cmocka_unit_test(joined_and_cut_elements_stand_where_they_should),
      cmocka_unit_test(a_reshaped_tensor_keeps_its_order),
      cmocka_unit_test(gradients_go_back_to_where_elements_came_from),
      cmocka_unit_test(layouts_are_the_same_for_any_threads),
      cmocka_unit_test(shapes_that_do_not_fit_are_refused),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
