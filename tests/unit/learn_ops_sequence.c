/* attention and conv1d over sequences one after the other: values by their definitions in double, gradients against
 * differences. The kernel of attention has tests of its own (math_tiles.c). */
#include "learn_ops.h"

static struct {
  size_t n, rows, spare; /* sequences, rows that are live, rows beyond them */
  const uint32_t *lengths;
  size_t width, heads, taps, out;
  bool causal;
} at;

static void set_lengths(const uint32_t *lengths, size_t n, size_t spare) {
  at.lengths = lengths, at.n = n, at.spare = spare, at.rows = 0;
  for (size_t i = 0; i < n; i++) at.rows += lengths[i];
}

/* Two axes, with room for more rows and sequences than live; → the lengths. */
static ev_tensor axes(ev_graph *g, unsigned *rows) {
  uint32_t lengths[1024];
  *rows = new_axis(g, at.rows + at.spare, at.rows);
  unsigned sequences = new_axis(g, at.n + at.spare, at.n);
  for (size_t i = 0; i < at.n + at.spare; i++) lengths[i] = i < at.n ? at.lengths[i] : 77;
  return input_ids(g, "lengths", DIMS_LIVE(sequences, at.n + at.spare), lengths);
}

static ev_tensor attention_of_rows(ev_graph *g) {
  unsigned rows;
  ev_tensor lengths = axes(g, &rows), q = live_rows(g, rows, "q", at.width), k = live_rows(g, rows, "k", at.width), v = live_rows(g, rows, "v", at.width);
  return apply(g, "attention", IN(q, k, v, lengths), ATTRS((double)at.heads, at.causal));
}

static ev_tensor attention_to_itself(ev_graph *g) { /* one tensor in three places */
  unsigned rows;
  ev_tensor lengths = axes(g, &rows), x = live_rows(g, rows, "x", at.width);
  return apply(g, "attention", IN(x, x, x, lengths), ATTRS((double)at.heads, at.causal));
}

static ev_tensor attention_of_keys_that_are_given(ev_graph *g) {
  unsigned rows;
  ev_tensor lengths = axes(g, &rows), k = input(g, "k", DIMS_LIVE(rows, at.rows + at.spare, at.width), -1, 1);
  return apply(g, "attention", IN(k, k, live_rows(g, rows, "v", at.width), lengths), ATTRS((double)at.heads, at.causal));
}

static ev_tensor attention_of_inputs(ev_graph *g) {
  unsigned rows;
  ev_tensor lengths = axes(g, &rows), x[3];
  for (int i = 0; i < 3; i++) x[i] = input(g, (const char *[]){"q", "k", "v"}[i], DIMS_LIVE(rows, at.rows + at.spare, at.width), -2, 2);
  return apply(g, "attention", IN(x[0], x[1], x[2], lengths), ATTRS((double)at.heads, at.causal));
}

static const uint32_t few[] = {3, 1, 0, 4, 2}, ragged[] = {70, 1, 0, 33, 130, 5, 5, 0, 64, 9};

static void attention_looks_at_its_own_sequence_and_head(void **state) {
  (void)state;
  for (int k = 0; k < 4; k++) {
    set_lengths(k < 2 ? ragged : few, k < 2 ? 10 : 5, k < 2 ? 9 : 0);
    at.causal = k % 2, at.width = k < 2 ? 24 : 7, at.heads = k < 2 ? 3 : 1;
    ev_graph *g;
    MUST(ev_graph_new(&g, 1, 0));
    ev_tensor y = attention_of_inputs(g);
    ev_shape s;
    float *out = value_of(g, y, &s);
    assert_true(s.rank == 2 && s.dim[0] == at.rows && s.dim[1] == at.width);
    const float *x[3];
    for (unsigned i = 0; i < 3; i++) x[i] = ev_graph_values(g, g->nodes[y].in[i], NULL);
    size_t begin = 0, d = at.width / at.heads;
    for (size_t q = 0; q < at.n; begin += at.lengths[q++])
      for (size_t t = 0; t < at.lengths[q]; t++)
        for (size_t h = 0; h < at.heads; h++) {
          double p[130], sum = 0;
          size_t to = at.causal ? t + 1 : at.lengths[q];
          for (size_t j = 0; j < to; j++) {
            double score = 0;
            for (size_t c = h * d; c < (h + 1) * d; c++) score += (double)x[0][(begin + t) * at.width + c] * x[1][(begin + j) * at.width + c];
            sum += p[j] = exp(score / sqrt((double)d));
          }
          for (size_t c = h * d; c < (h + 1) * d; c++) {
            double want = 0;
            for (size_t j = 0; j < to; j++) want += p[j] / sum * x[2][(begin + j) * at.width + c];
            near("attention", (begin + t) * at.width + c, out[(begin + t) * at.width + c], want, 8);
          }
        }
    free(out);
    ev_graph_free(g);
  }
}

static void attention_has_the_gradients_of_differences(void **state) {
  (void)state;
  for (int k = 0; k < 4; k++) {
    set_lengths(few, 5, k < 2 ? 3 : 0);
    at.causal = k % 2, at.width = k < 2 ? 6 : 5, at.heads = k < 2 ? 2 : 1;
    check_gradients("attention", attention_of_rows, 0, 0);
    check_gradients("attention of a tensor to itself", attention_to_itself, 0, 0);
    check_gradients("attention with keys that no gradient is asked for", attention_of_keys_that_are_given, 0, 0);
  }
}

static const uint32_t many[] = {50, 3, 120, 9, 33, 70, 64, 1, 12, 90, 40, 8, 77, 150, 2, 31};
static void attention_has_the_same_bits_for_any_threads(void **state) {
  (void)state;
  set_lengths(many, 16, 40);
  at.width = 20, at.heads = 2, at.causal = true;
  check_threads("attention", attention_of_rows);
}

static void no_sequences_are_no_work(void **state) {
  (void)state;
  set_lengths(few, 0, 4);
  at.width = 4, at.heads = 2, at.causal = true;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  ev_shape s;
  free(value_of(g, attention_of_inputs(g), &s));
  assert_int_equal(s.dim[0], 0);
  ev_graph_free(g);
}

/* ---- conv1d ------------------------------------------------------------------------------------------------*/
static ev_tensor convolution(ev_graph *g) {
  unsigned rows;
  ev_tensor lengths = axes(g, &rows), x = live_rows(g, rows, "x", at.width);
  ev_tensor w = parameter(g, "w", DIMS(at.taps, at.width, at.out), -1, 1), bias = parameter(g, "bias", DIMS(at.out), -1, 1);
  return apply(g, "conv1d", IN(x, w, bias, lengths), NO_ATTRS);
}

static ev_tensor convolution_of_an_input(ev_graph *g) {
  unsigned rows;
  ev_tensor lengths = axes(g, &rows), x = input(g, "x", DIMS_LIVE(rows, at.rows + at.spare, at.width), -1, 1);
  ev_tensor w = input(g, "w", DIMS(at.taps, at.width, at.out), -1, 1), bias = parameter(g, "bias", DIMS(at.out), -1, 1);
  return apply(g, "conv1d", IN(x, w, bias, lengths), NO_ATTRS);
}

/* Values and gradients of Σ v y by the definition. */
static void check_convolution(void) {
  stage s = stage_open(convolution, false);
  disturb(&s);
  stage_run(&s);
  const float *x = ev_graph_values(s.g, ev_graph_find(s.g, "x"), NULL), *w = ev_graph_values(s.g, ev_graph_find(s.g, "w"), NULL), *bias = ev_graph_values(s.g, ev_graph_find(s.g, "bias"), NULL);
  const uint32_t *rows = ev_graph_ids(s.g, ev_graph_find(s.g, "x_rows"), NULL);
  const float *y = ev_plan_value(s.p, s.watched[0], NULL), *v = ev_plan_value(s.p, s.weights[0], NULL);
  size_t nx = (at.rows + at.spare) * at.width, nw = at.taps * at.width * at.out, begin = 0;
  double *dx = calloc(2 * nx, sizeof *dx), *dw = calloc(2 * nw, sizeof *dw), *db = calloc(2 * at.out, sizeof *db); /* value, size */
  float *got = malloc((nx + nw) * sizeof *got);
  assert_true(dx != NULL && dw != NULL && db != NULL && got != NULL);
  for (size_t q = 0; q < at.n; begin += at.lengths[q++])
    for (size_t t = 0; t < at.lengths[q]; t++)
      for (size_t o = 0; o < at.out; o++) {
        double sum = bias[o], size = fabs(sum), by = v[(begin + t) * at.out + o];
        for (size_t tap = 0; tap < at.taps; tap++) {
          if (t + tap + 1 < at.taps) continue; /* before the sequence begins */
          size_t from = rows[begin + t + tap + 1 - at.taps] * at.width;
          for (size_t c = 0; c < at.width; c++) {
            size_t iw = (tap * at.width + c) * at.out + o;
            sum += (double)x[from + c] * w[iw], size += fabs((double)x[from + c] * w[iw]);
            dx[2 * (from + c)] += by * w[iw], dx[2 * (from + c) + 1] += fabs(by * w[iw]);
            dw[2 * iw] += by * x[from + c], dw[2 * iw + 1] += fabs(by * x[from + c]);
          }
        }
        db[2 * o] += by, db[2 * o + 1] += fabs(by);
        near("conv1d", (begin + t) * at.out + o, y[(begin + t) * at.out + o], sum, size);
      }
  MUST(ev_plan_gradient(s.p, ev_graph_find(s.g, "x"), got));
  for (size_t i = 0; i < nx; i++) near("x's gradient", i, got[i], dx[2 * i], dx[2 * i + 1]);
  MUST(ev_plan_gradient(s.p, ev_graph_find(s.g, "w"), got));
  for (size_t i = 0; i < nw; i++) near("w's gradient", i, got[i], dw[2 * i], dw[2 * i + 1]);
  MUST(ev_plan_gradient(s.p, ev_graph_find(s.g, "bias"), got));
  for (size_t i = 0; i < at.out; i++) near("the bias's gradient", i, got[i], db[2 * i], db[2 * i + 1]);
  free(dx), free(dw), free(db), free(got);
  stage_close(&s);
}

static void convolutions_and_gradients_are_their_sums(void **state) {
  (void)state;
  static uint32_t long_one[] = {1500, 2, 0, 700};
  const size_t shapes[][3] = {{1, 5, 7}, {2, 3, 4}, {3, 16, 33}, {5, 40, 2}};
  for (size_t k = 0; k < 4; k++) {
    at.taps = shapes[k][0], at.width = shapes[k][1], at.out = shapes[k][2];
    set_lengths(ragged, 10, 5);
    check_convolution();
    set_lengths(long_one, 4, k % 2 * 900);
    check_convolution();
  }
  set_lengths(few, 5, 2);
  at.taps = 9; /* more than any sequence has */
  check_convolution();
  at.taps = 3, at.width = 150, at.out = 170; /* large matrices */
  set_lengths(ragged, 10, 5);
  check_convolution();
}

static void convolutions_have_the_gradients_of_differences(void **state) {
  (void)state;
  set_lengths(few, 5, 2);
  at.taps = 3, at.width = 2, at.out = 3;
  check_gradients("conv1d", convolution, 0, 0);
  check_gradients("conv1d of an input", convolution_of_an_input, 0, 0);
  set_lengths(few, 0, 3);
  stage s = stage_open(convolution, false); /* no rows: the weights' gradient is zero, whatever was there before */
  disturb(&s);
  stage_run(&s);
  float dw[18];
  MUST(ev_plan_gradient(s.p, ev_graph_find(s.g, "w"), dw));
  for (size_t i = 0; i < 18; i++) assert_true(dw[i] == 0);
  stage_close(&s);
}

static void convolutions_have_the_same_bits_for_any_threads(void **state) {
  (void)state;
  static uint32_t some[] = {300, 1, 900, 50, 300};
  set_lengths(some, 5, 100);
  at.taps = 3, at.width = 30, at.out = 20;
  check_threads("conv1d", convolution);
}

/* ---- What is refused ---------------------------------------------------------------------------------------*/
static void lengths_must_add_up_to_the_rows(void **state) {
  (void)state;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  const uint32_t lengths[3] = {2, 1, 3};
  ev_tensor x = input(g, "x", DIMS(6, 4), -1, 1), w = input(g, "w", DIMS(2, 4, 3), -1, 1), bias = input(g, "bias", DIMS(3), -1, 1), at_ = input_ids(g, "lengths", DIMS(3), lengths);
  ev_tensor attended = apply(g, "attention", IN(x, x, x, at_), ATTRS(2)), convolved = apply(g, "conv1d", IN(x, w, bias, at_), NO_ATTRS);
  ev_shape s;
  free(value_of(g, attended, &s));
  uint32_t *ids = ev_graph_ids(g, at_, NULL);
  ids[1] = 2;
  run_says(g, attended, "attention: the 3 lengths in 'lengths' add up to 7, but there are 6 rows");
  run_says(g, convolved, "conv1d: the 3 lengths in 'lengths' add up to 7, but there are 6 rows");
  ids[1] = EV_NONE;
  run_says(g, attended, "add up to 4294967300,");
  ids[1] = 0;
  run_says(g, convolved, "add up to 5,");
  ev_graph_free(g);
}

static void shapes_that_do_not_fit_are_refused(void **state) {
  (void)state;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned axis = new_axis(g, 6, 6);
  const uint32_t some[6] = {0};
  ev_tensor x = input(g, "x", DIMS(6, 4), -1, 1), y = input(g, "y", DIMS(6, 5), -1, 1), live = input(g, "live", DIMS_LIVE(axis, 6, 4), -1, 1), v = input(g, "v", DIMS(6), -1, 1);
  ev_tensor lengths = input_ids(g, "lengths", DIMS(3), some), square = input_ids(g, "square", DIMS(2, 3), some), wide = input(g, "wide", DIMS(6, 600), -1, 1);
  ev_tensor w = input(g, "w", DIMS(2, 4, 3), -1, 1), bias = input(g, "bias", DIMS(3), -1, 1), none = input(g, "none", DIMS(0, 4, 3), -1, 1), moving = input(g, "moving", DIMS_LIVE(axis, 6, 4, 3), -1, 1);
  ev_graph_at(g, "scheme.lua:4");
  refused(g, "attention", IN(x, y, x, lengths), ATTRS(2), SAYS("scheme.lua:4: attention (6, 4) x (6, 5)", "one shape and axis"));
  refused(g, "attention", IN(x, x, live, lengths), ATTRS(2), SAYS("one shape and axis"));
  refused(g, "attention", IN(v, v, v, lengths), ATTRS(1), SAYS("rows of a matrix"));
  refused(g, "attention", IN(x, x, x, v), ATTRS(2), SAYS("input 4 must be ids"));
  refused(g, "attention", IN(x, lengths, x, lengths), ATTRS(2), SAYS("input 2 must be numbers"));
  refused(g, "attention", IN(x, x, x, square), ATTRS(2), SAYS("one length for each sequence"));
  refused(g, "attention", IN(x, x, x, lengths), ATTRS(3), SAYS("4 numbers a row cannot be shared by 3 heads"));
  refused(g, "attention", IN(x, x, x, lengths), ATTRS(0), SAYS("heads 0"));
  refused(g, "attention", IN(x, x, x, lengths), ATTRS(5), SAYS("heads 5"));
  refused(g, "attention", IN(x, x, x, lengths), ATTRS(2, 3), SAYS("causal 3"));
  refused(g, "attention", IN(wide, wide, wide, lengths), ATTRS(2), SAYS("heads of 300 numbers; 256 are the most"));
  refused(g, "conv1d", IN(y, w, bias, lengths), NO_ATTRS, SAYS("scheme.lua:4: conv1d (6, 5) x (2, 4, 3)", "rows of 5 numbers, but weights for 4"));
  refused(g, "conv1d", IN(x, w, v, lengths), NO_ATTRS, SAYS("weights to 3 numbers, but a bias for 6"));
  refused(g, "conv1d", IN(x, x, bias, lengths), NO_ATTRS, SAYS("weights (W, C, D)"));
  refused(g, "conv1d", IN(x, none, bias, lengths), NO_ATTRS, SAYS("no taps"));
  refused(g, "conv1d", IN(x, moving, bias, lengths), NO_ATTRS, SAYS("cannot have an axis"));
  refused(g, "conv1d", IN(x, w, bias, square), NO_ATTRS, SAYS("one length for each sequence"));
  refused(g, "conv1d", IN(x, w, bias, v), NO_ATTRS, SAYS("input 4 must be ids"));
  refused(g, "conv1d", IN(lengths, w, bias, lengths), NO_ATTRS, SAYS("input 1 must be numbers"));
  ev_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(attention_looks_at_its_own_sequence_and_head),
      cmocka_unit_test(attention_has_the_gradients_of_differences),
      cmocka_unit_test(attention_has_the_same_bits_for_any_threads),
      cmocka_unit_test(no_sequences_are_no_work),
      cmocka_unit_test(convolutions_and_gradients_are_their_sums),
      cmocka_unit_test(convolutions_have_the_gradients_of_differences),
      cmocka_unit_test(convolutions_have_the_same_bits_for_any_threads),
      cmocka_unit_test(lengths_must_add_up_to_the_rows),
      cmocka_unit_test(shapes_that_do_not_fit_are_refused),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
