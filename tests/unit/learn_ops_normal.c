/* learn_ops_normal.c - operators on whole rows (softmax, normalisations, the largest k) and masks: values against their
 * definitions in double, gradients against differences, the same bits for any number of threads. */
#include "learn_ops.h"

#define ROWS 5

static double length_of(const float *x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
  return sqrt(sum);
}

/* What `op` makes of a row. */
static void expected(double *y, const char *op, const float *x, size_t n) {
  double sum = 0, length = length_of(x, n);
  for (size_t i = 0; i < n; i++) sum += exp(x[i]);
  for (size_t i = 0; i < n; i++) y[i] = op[0] == 's' ? exp(x[i]) / sum : op[0] == 'l' ? x[i] - log(sum) : x[i] / (length > 0.5 ? length : 0.5);
}

static struct {
  const char *op;
  size_t n_attr;
  double attr[1];
} now;
static const char *const ops[] = {"softmax", "log_softmax", "normalise"};

static void choose(size_t k) {
  now.op = ops[k];
  now.n_attr = k == 2;
  now.attr[0] = 0.5;
}

static ev_tensor rank_one(ev_graph *g) { return apply(g, now.op, IN(parameter(g, "x", DIMS(7), -2, 2)), now.n_attr, now.attr); }
static ev_tensor rank_three(ev_graph *g) { return apply(g, now.op, IN(parameter(g, "x", DIMS(2, 3, 5), -2, 2)), now.n_attr, now.attr); }
static ev_tensor short_rows(ev_graph *g) { return apply(g, now.op, IN(parameter(g, "x", DIMS(3, 3), -0.2, 0.2)), now.n_attr, now.attr); } /* below epsilon */
static ev_tensor one_column(ev_graph *g) { return apply(g, now.op, IN(parameter(g, "x", DIMS(4, 1), 0.6, 2)), now.n_attr, now.attr); }
static ev_tensor live(ev_graph *g) { return apply(g, now.op, IN(live_rows(g, new_axis(g, 6, 4), "x", 3)), now.n_attr, now.attr); }
static ev_tensor large(ev_graph *g) { return apply(g, now.op, IN(parameter(g, "x", DIMS(1201, 53), -2, 2)), now.n_attr, now.attr); }

static void rows_are_what_they_say(void **s) {
  (void)s;
  const size_t widths[] = {1, 3, 16, 37, 1500};
  double want[1500];
  for (size_t k = 0; k < 3; k++)
    for (size_t w = 0; w < 5; w++) {
      choose(k);
      size_t n = widths[w];
      ev_graph *g;
      MUST(ev_graph_new(&g, 1, 0));
      ev_tensor x = input(g, "x", DIMS(ROWS, n), -4, 3);
      float *from = ev_graph_values(g, x, NULL);
      for (size_t i = 0; i < n; i++) from[i] *= 1e-4f; /* one row is short */
      ev_shape shape;
      float *y = value_of(g, apply(g, now.op, IN(x), now.n_attr, now.attr), &shape);
      for (size_t r = 0; r < ROWS; r++) {
        expected(want, now.op, from + r * n, n);
        for (size_t i = 0; i < n; i++) near(now.op, r * n + i, y[r * n + i], want[i], fabs(want[i]) + (k == 1 ? 1 : 0));
      }
      free(y);
      ev_graph_free(g);
    }
}

static void gradients_of_rows(void **s) {
  (void)s;
  for (size_t k = 0; k < 3; k++) {
    choose(k);
    check_gradients(now.op, rank_one, 0, 0);
    check_gradients(now.op, rank_three, 0, 0);
    check_gradients(now.op, short_rows, 0, 0);
    check_gradients(now.op, one_column, 0, 0);
    check_gradients(now.op, live, 0, 0);
    check_threads(now.op, large);
  }
}

static void large_scores_do_not_overflow(void **s) {
  (void)s;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  ev_tensor x = input(g, "x", DIMS(2, 3), 0, 1);
  memcpy(ev_graph_values(g, x, NULL), (float[]){1e30f, 1e30f, -1e30f, -1000, -1001, -1e30f}, 24);
  ev_shape shape;
  float *y = value_of(g, apply(g, "softmax", IN(x), NO_ATTRS), &shape), *l = value_of(g, apply(g, "log_softmax", IN(x), NO_ATTRS), &shape);
  assert_true(y[0] == 0.5f && y[1] == 0.5f && y[2] == 0 && fabsf(y[3] - 0.7310586f) < 1e-6f && y[5] == 0);
  assert_true(fabsf(l[0] + 0.6931472f) < 1e-6f && l[2] == -2e30f && fabsf(l[4] + 1.3132616f) < 1e-6f);
  free(y);
  free(l);
  ev_graph_free(g);
}

/* ---- Layer normalisation -----------------------------------------------------------------------------------------*/
static ev_tensor norm(ev_graph *g, ev_tensor x, size_t d) { return apply(g, "layer_norm", IN(x, parameter(g, "gain", DIMS(d), 0.5, 1.5), parameter(g, "bias", DIMS(d), -1, 1)), ATTRS(0.01)); }
static ev_tensor norm_rows(ev_graph *g) { return norm(g, parameter(g, "x", DIMS(3, 7), -2, 2), 7); }
static ev_tensor norm_three(ev_graph *g) { return norm(g, parameter(g, "x", DIMS(2, 2, 5), -2, 2), 5); }
static ev_tensor norm_one(ev_graph *g) { return norm(g, parameter(g, "x", DIMS(6), -2, 2), 6); }
static ev_tensor norm_live(ev_graph *g) { return norm(g, live_rows(g, new_axis(g, 6, 4), "x", 5), 5); }
static ev_tensor norm_none(ev_graph *g) { return norm(g, live_rows(g, new_axis(g, 6, 0), "x", 5), 5); }
static ev_tensor norm_large(ev_graph *g) { return norm(g, parameter(g, "x", DIMS(2001, 37), -2, 2), 37); }
static ev_tensor norm_input(ev_graph *g) { return norm(g, input(g, "x", DIMS(2001, 37), -2, 2), 37); }

static void layer_norm_is_what_it_says(void **s) {
  (void)s;
  check_gradients("layer_norm", norm_rows, 0, 0);
  check_gradients("layer_norm", norm_three, 0, 0);
  check_gradients("layer_norm", norm_one, 0, 0);
  check_gradients("layer_norm", norm_live, 0, 0);
  check_gradients("layer_norm", norm_none, 0, 0);
  check_threads("layer_norm", norm_large);
  for (int also = 0; also < 2; also++) { /* many rows: values and the weights' gradients in double */
    stage st = stage_open(norm_input, also);
    stage_run(&st);
    const float *x = ev_graph_values(st.g, ev_graph_find(st.g, "x"), NULL), *gain = ev_graph_values(st.g, ev_graph_find(st.g, "gain"), NULL), *bias = ev_graph_values(st.g, ev_graph_find(st.g, "bias"), NULL);
    const float *y = ev_plan_value(st.p, st.watched[0], NULL), *w = ev_plan_value(st.p, st.weights[0], NULL);
    double to_gain[37] = {0}, to_bias[37] = {0};
    for (size_t r = 0; r < 2001; r++) {
      double mean = 0, square = 0;
      for (size_t i = 0; i < 37; i++) mean += x[r * 37 + i] / 37.0;
      for (size_t i = 0; i < 37; i++) square += (x[r * 37 + i] - mean) * (x[r * 37 + i] - mean) / 37;
      for (size_t i = 0; i < 37; i++) {
        double unit = (x[r * 37 + i] - mean) / sqrt(square + (double)0.01f);
        near("layer_norm", r * 37 + i, y[r * 37 + i], unit * gain[i] + bias[i], 3);
        to_gain[i] += unit * w[r * 37 + i], to_bias[i] += w[r * 37 + i];
      }
    }
    float gradient[37];
    for (unsigned k = 0; k < 2; k++) {
      MUST(ev_plan_gradient(st.p, ev_graph_find(st.g, k ? "bias" : "gain"), gradient));
      for (size_t i = 0; i < 37; i++) near("gradient of the weights", i, gradient[i], (k ? to_bias : to_gain)[i] + (also ? ev_plan_value(st.p, st.weights[1 + k], NULL)[i] : 0), 2000);
    }
    stage_close(&st);
  }
}

/* ---- The largest ---------------------------------------------------------------------------------------------------*/
static ev_tensor top_rows(ev_graph *g) { return apply(g, "topk", IN(parameter(g, "x", DIMS(3, 7), -2, 2)), ATTRS(3)); }
static ev_tensor top_all(ev_graph *g) { return apply(g, "topk", IN(parameter(g, "x", DIMS(2, 2, 4), -2, 2)), ATTRS(4)); }
static ev_tensor top_live(ev_graph *g) { return apply(g, "topk", IN(live_rows(g, new_axis(g, 6, 4), "x", 5)), ATTRS(2)); }
static ev_tensor top_large(ev_graph *g) { return apply(g, "topk", IN(parameter(g, "x", DIMS(501, 170), -2, 2)), ATTRS(9)); }

static int descending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}

static void topk_gives_the_largest_first(void **s) {
  (void)s;
  check_gradients("topk", top_rows, 0, 0);
  check_gradients("topk", top_all, 0, 0);
  check_gradients("topk", top_live, 0, 0);
  check_threads("topk", top_large);
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  ev_tensor x = input(g, "x", DIMS(4, 40), -1, 1);
  float *from = ev_graph_values(g, x, NULL), sorted[40];
  from[40] = from[47], from[2 * 40 + 3] = NAN;
  for (size_t i = 1; i < 40; i++) from[3 * 40 + i] = -INFINITY;
  ev_shape shape;
  float *y = value_of(g, apply(g, "topk", IN(x), ATTRS(6)), &shape);
  assert_true(shape.rank == 2 && shape.dim[0] == 4 && shape.dim[1] == 6);
  for (size_t r = 0; r < 2; r++) {
    memcpy(sorted, from + r * 40, sizeof sorted);
    qsort(sorted, 40, sizeof *sorted, descending);
    assert_memory_equal(sorted, y + r * 6, 24);
  }
  for (size_t i = 0; i < 6; i++) assert_true(isnan(y[12 + i]));
  assert_true(y[18] == from[120] && y[19] == -INFINITY && y[23] == -INFINITY);
  free(y);
  ev_graph_free(g);
}

/* ---- Dropout -------------------------------------------------------------------------------------------------------*/
static ev_tensor drop(ev_graph *g) { return apply(g, "dropout", IN(parameter(g, "x", DIMS(5, 9), -2, 2)), ATTRS(0.4)); }
static ev_tensor drop_live(ev_graph *g) { return apply(g, "dropout", IN(live_rows(g, new_axis(g, 6, 4), "x", 3)), ATTRS(0.4)); }
static ev_tensor drop_nothing(ev_graph *g) { return apply(g, "dropout", IN(parameter(g, "x", DIMS(3, 4), -2, 2)), ATTRS(0)); }
static ev_tensor drop_large(ev_graph *g) { return apply(g, "dropout", IN(parameter(g, "x", DIMS(90, 700), 1, 2)), ATTRS(0.25)); }

static void dropout_only_trains(void **s) {
  (void)s;
  check_gradients("dropout", drop, 0, 0);
  check_gradients("dropout", drop_live, 0, 0);
  check_gradients("dropout", drop_nothing, 0, 0);
  check_threads("dropout", drop_large);
  stage st = stage_open(drop_large, false);
  enum { N = 90 * 700 };
  static float first[N], other[N];
  const float *x = ev_graph_values(st.g, ev_graph_find(st.g, "x"), NULL);
  MUST(ev_plan_run(st.p, false, 1, NULL));
  stage_value(&st, first, N);
  assert_memory_equal(first, x, sizeof first);
  MUST(ev_plan_run(st.p, true, 1, NULL));
  stage_value(&st, first, N);
  size_t dropped = 0, agree = 0;
  for (size_t i = 0; i < N; i++) dropped += first[i] == 0;
  assert_true(fabs((double)dropped / N - 0.25) < 0.01);
  for (size_t i = 0; i < N; i++) assert_true(first[i] == 0 || fabsf(first[i] - x[i] / 0.75f) < 1e-5f);
  MUST(ev_plan_run(st.p, true, 2, NULL)); /* another step, another mask */
  stage_value(&st, other, N);
  for (size_t i = 0; i < N; i++) agree += (first[i] == 0) == (other[i] == 0);
  assert_true(fabs((double)agree / N - 0.625) < 0.01);
  MUST(ev_plan_run(st.p, true, 1, NULL)); /* the same step, the same mask */
  stage_value(&st, other, N);
  assert_memory_equal(first, other, sizeof first);
  stage_close(&st);
}

/* ---- Columns that stand for the same as their row --------------------------------------------------------------------*/
static const uint32_t row_ids[] = {7, 8, 7, 9, 8, 1}, col_ids[] = {7, 8, 9, 7, 7};
static ev_tensor mask(ev_graph *g) { return apply(g, "mask_equal", IN(parameter(g, "x", DIMS(4, 5), -2, 2), input_ids(g, "a", DIMS(4), row_ids), input_ids(g, "b", DIMS(5), col_ids)), ATTRS(-3)); }
static ev_tensor mask_live(ev_graph *g) {
  unsigned axis = new_axis(g, 6, 4);
  return apply(g, "mask_equal", IN(live_rows(g, axis, "x", 5), input_ids(g, "a", DIMS_LIVE(axis, 6), row_ids), input_ids(g, "b", DIMS(5), col_ids)), ATTRS(-3));
}
static ev_tensor mask_large(ev_graph *g) {
  uint32_t a[210], b[190];
  for (uint32_t i = 0; i < 210; i++) a[i] = i * i % 31;
  for (uint32_t i = 0; i < 190; i++) b[i] = i * 3 % 31;
  return apply(g, "mask_equal", IN(parameter(g, "x", DIMS(210, 190), -2, 2), input_ids(g, "a", DIMS(210), a), input_ids(g, "b", DIMS(190), b)), ATTRS(-3));
}

static void what_stands_for_the_same_is_masked(void **s) {
  (void)s;
  check_gradients("mask_equal", mask, 0, 0);
  check_gradients("mask_equal", mask_live, 0, 0);
  check_threads("mask_equal", mask_large);
  stage st = stage_open(mask_large, false);
  stage_run(&st);
  static float y[210 * 190];
  stage_value(&st, y, 210 * 190);
  const float *x = ev_graph_values(st.g, ev_graph_find(st.g, "x"), NULL);
  for (size_t i = 0; i < 210; i++)
    for (size_t j = 0; j < 190; j++) assert_true(y[i * 190 + j] == (i * i % 31 == j * 3 % 31 && i != j ? -3 : x[i * 190 + j]));
  stage_close(&st);
}

static void what_does_not_fit_is_refused(void **s) {
  (void)s;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned axis = new_axis(g, 6, 6);
  uint32_t ids[6] = {0};
  ev_tensor x = input(g, "x", DIMS(3, 4), 0, 1), v = input(g, "v", DIMS_LIVE(axis, 6), 0, 1), four = input(g, "four", DIMS(4), 0, 1), three = input(g, "three", DIMS(3), 0, 1);
  ev_tensor i3 = input_ids(g, "i3", DIMS(3), ids), i4 = input_ids(g, "i4", DIMS(4), ids), i6 = input_ids(g, "i6", DIMS_LIVE(axis, 6), ids), wide = input(g, "wide", DIMS(3, 6), 0, 1);
  ev_tensor live6 = input(g, "live6", DIMS_LIVE(axis, 6, 4), 0, 1), i6fixed = input_ids(g, "i6fixed", DIMS(6), ids), c = EV_NONE, empty = input(g, "empty", DIMS(3, 0), 0, 1);
  MUST(ev_graph_constant(g, &c, 1));
  refused(g, "softmax", IN(v), NO_ATTRS, SAYS("softmax (6)", "rows of a fixed length"));
  refused(g, "log_softmax", IN(c), NO_ATTRS, SAYS("rows of a fixed length"));
  refused(g, "softmax", IN(i3), NO_ATTRS, SAYS("must be numbers, not ids"));
  refused(g, "normalise", IN(x), ATTRS(0), SAYS("normalise (3, 4)", "epsilon 0"));
  refused(g, "layer_norm", IN(x, three, four), ATTRS(1e-5), SAYS("layer_norm (3, 4) x (3) x (4)", "the gain must have the shape (4)"));
  refused(g, "layer_norm", IN(x, four, x), ATTRS(1e-5), SAYS("the bias must have the shape (4)"));
  refused(g, "layer_norm", IN(x, four, four), ATTRS(-1), SAYS("epsilon -1"));
  refused(g, "layer_norm", IN(empty, input(g, "none", DIMS(0), 0, 1), input(g, "nothing", DIMS(0), 0, 1)), ATTRS(1), SAYS("have no mean"));
  refused(g, "topk", IN(x), ATTRS(5), SAYS("topk (3, 4)", "k 5 is no whole number from 1 to 4"));
  refused(g, "topk", IN(x), ATTRS(0), SAYS("k 0"));
  refused(g, "dropout", IN(x), ATTRS(1), SAYS("dropout (3, 4)", "a share of 1 cannot be dropped"));
  refused(g, "dropout", IN(x), ATTRS(-0.1), SAYS("-0.1"));
  refused(g, "mask_equal", IN(x, i4, i4), ATTRS(0), SAYS("mask_equal (3, 4) x (4) x (4)", "4 ids for 3 rows"));
  refused(g, "mask_equal", IN(x, i3, i3), ATTRS(0), SAYS("3 ids for 4 columns"));
  refused(g, "mask_equal", IN(x, four, i4), ATTRS(0), SAYS("input 2 must be ids"));
  refused(g, "mask_equal", IN(wide, i3, i6), ATTRS(0), SAYS("must not change"));
  refused(g, "mask_equal", IN(live6, i6fixed, i4), ATTRS(0), SAYS("changes on its own"));
  ev_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rows_are_what_they_say),
      cmocka_unit_test(gradients_of_rows),
      cmocka_unit_test(large_scores_do_not_overflow),
      cmocka_unit_test(layer_norm_is_what_it_says),
      cmocka_unit_test(topk_gives_the_largest_first),
      cmocka_unit_test(dropout_only_trains),
      cmocka_unit_test(what_stands_for_the_same_is_masked),
      cmocka_unit_test(what_does_not_fit_is_refused),
  };
  return RUN(tests);
}
