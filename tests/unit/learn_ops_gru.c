/* learn_ops_gru.c - a GRU over ragged sequences against its equations in double, one step after another; gradients against
 * differences; lengths of every kind; any number of threads. */
#include "learn_ops.h"

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* out (t, d) of sequences of these lengths, straight from the equations. */
static void expected(double *out, const float *x, const float *w, const float *u, const float *bias, const uint32_t *lengths, size_t n, size_t c, size_t d) {
  double *a = malloc(6 * d * sizeof *a), *b = a + 3 * d;
  for (size_t s = 0, row = 0; s < n; s++)
    for (size_t step = 0; step < lengths[s]; step++, row++) {
      const double *h = step > 0 ? out + (row - 1) * d : NULL;
      for (size_t k = 0; k < 3 * d; k++) {
        a[k] = bias[k], b[k] = 0;
        for (size_t i = 0; i < c; i++) a[k] += (double)x[row * c + i] * w[i * 3 * d + k];
        for (size_t i = 0; i < d && h != NULL; i++) b[k] += h[i] * u[i * 3 * d + k];
      }
      for (size_t k = 0; k < d; k++) {
        double r = sigmoid(a[k] + b[k]), z = sigmoid(a[d + k] + b[d + k]), next = tanh(a[2 * d + k] + r * b[2 * d + k]);
        out[row * d + k] = (1 - z) * next + z * (h != NULL ? h[k] : 0);
      }
    }
  free(a);
}

static struct {
  size_t capacity, rows, n_capacity, n, c, d; /* rows and sequences: room for, and there */
  const uint32_t *lengths;
  bool leaf; /* x is a parameter itself */
} now;

static ev_tensor scene_now(ev_graph *g) {
  unsigned rows = now.capacity > now.rows ? new_axis(g, now.capacity, now.rows) : 0, sequences = now.n_capacity > now.n ? new_axis(g, now.n_capacity, now.n) : 0;
  ev_tensor x = now.leaf ? parameter(g, "x", DIMS(now.capacity, now.c), -1, 1) : live_rows(g, rows, "x", now.c);
  ev_tensor w = parameter(g, "w", DIMS(now.c, 3 * now.d), -0.8, 0.8), u = parameter(g, "u", DIMS(now.d, 3 * now.d), -1.5 / sqrt((double)now.d), 1.5 / sqrt((double)now.d)), bias = parameter(g, "bias", DIMS(3 * now.d), -0.5, 0.5);
  uint32_t *lengths = calloc(now.n_capacity + 1, sizeof *lengths);
  assert_non_null(lengths);
  memcpy(lengths, now.lengths, now.n * sizeof *lengths);
  for (size_t i = now.n; i < now.n_capacity; i++) lengths[i] = 12345; /* not there: not looked at */
  ev_tensor at = input_ids(g, "lengths", DIMS_LIVE(sequences, now.n_capacity), lengths);
  free(lengths);
  return apply(g, "gru", IN(x, w, u, bias, at), NO_ATTRS);
}

static const uint32_t ragged[] = {2, 4, 0, 1, 3, 4};

static void check_value(void) {
  stage st = stage_open(scene_now, false);
  stage_run(&st);
  ev_shape shape;
  const float *y = ev_plan_value(st.p, st.watched[0], &shape);
  assert_true(shape.rank == 2 && shape.dim[0] == now.rows && shape.dim[1] == now.d);
  double *want = malloc((now.rows * now.d + 1) * sizeof *want);
  ev_tensor in[4];
  for (size_t i = 0; i < 4; i++) in[i] = ev_graph_find(st.g, (const char *const[]){"x", "w", "u", "bias"}[i]);
  float *x = malloc((now.rows * now.c + 1) * sizeof *x);
  const float *table = ev_graph_values(st.g, in[0], NULL);
  for (size_t i = 0; i < now.rows; i++) memcpy(x + i * now.c, table + (now.leaf ? i : (i * 7 + 3) % now.capacity) * now.c, now.c * sizeof *x);
  expected(want, x, ev_graph_values(st.g, in[1], NULL), ev_graph_values(st.g, in[2], NULL), ev_graph_values(st.g, in[3], NULL), now.lengths, now.n, now.c, now.d);
  for (size_t i = 0; i < now.rows * now.d; i++) near("gru", i, y[i], want[i], 4);
  free(want);
  free(x);
  stage_close(&st);
}

static void ragged_sequences(void **s) {
  (void)s;
  now.capacity = now.rows = 14, now.n_capacity = now.n = 6, now.c = 3, now.d = 4, now.lengths = ragged, now.leaf = true;
  check_value();
  check_gradients("gru", scene_now, 0, 0);
  now.leaf = false, now.capacity = 20, now.n_capacity = 9; /* more room than rows */
  check_value();
  check_gradients("gru", scene_now, 0, 0);
}

static void one_long_sequence_and_many_of_one(void **s) {
  (void)s;
  const uint32_t one[] = {9}, ones[] = {1, 1, 1, 1, 1};
  now.capacity = now.rows = 9, now.n_capacity = now.n = 1, now.c = 2, now.d = 3, now.lengths = one, now.leaf = true;
  check_value();
  check_gradients("gru", scene_now, 0, 0);
  now.capacity = now.rows = 5, now.n_capacity = now.n = 5, now.lengths = ones, now.d = 1;
  check_value();
  check_gradients("gru", scene_now, 0, 0);
}

static void nothing_at_all(void **s) {
  (void)s;
  const uint32_t none[] = {0, 0};
  now.capacity = 6, now.rows = 0, now.n_capacity = now.n = 2, now.c = 2, now.d = 3, now.lengths = none, now.leaf = false;
  check_gradients("gru", scene_now, 0, 0);
  now.n_capacity = 4, now.n = 0;
  check_gradients("gru", scene_now, 0, 0);
}

static ev_tensor last_rows(ev_graph *g) { return apply(g, "slice", IN(scene_now(g)), ATTRS(0, now.rows - 3, now.rows)); }

/* Several blocks of sequences, several of rows, gates cut in two. */
static void many_sequences(void **s) {
  (void)s;
  uint32_t lengths[150];
  now.rows = 0;
  for (uint32_t i = 0; i < 150; i++) lengths[i] = i * 7 % 11, now.rows += lengths[i];
  now.capacity = now.rows, now.n_capacity = now.n = 150, now.c = 5, now.d = 140, now.lengths = lengths, now.leaf = true;
  check_value();
  check_threads("gru", scene_now);
  now.c = 33, now.d = 20;
  check_value();
  check_threads("gru", scene_now);
  /* The gradient of a loss that looks at the last three rows does not reach the sequences before theirs. */
  stage st = stage_open(last_rows, false);
  stage_run(&st);
  size_t n = now.rows * now.c, from = now.rows, left = 3;
  float *gradient = malloc(n * sizeof *gradient);
  MUST(ev_plan_gradient(st.p, ev_graph_find(st.g, "x"), gradient));
  for (size_t i = 150; left > 0; left -= lengths[i] < left ? lengths[i] : left) from -= lengths[--i];
  for (size_t i = 0; i < n; i++)
    if ((gradient[i] != 0) != (i >= from * now.c)) fail_msg("the gradient of row %zu is %g; the last sequences begin at row %zu", i / now.c, (double)gradient[i], from);
  free(gradient);
  stage_close(&st);
}

static void lengths_must_add_up(void **s) {
  (void)s;
  const uint32_t wrong[][3] = {{2, 2, 2}, {2, 2, 4}, {4294967295u, 4, 4}};
  for (size_t k = 0; k < 3; k++) {
    now.capacity = now.rows = 7, now.n_capacity = now.n = 3, now.c = 2, now.d = 3, now.lengths = wrong[k], now.leaf = true;
    ev_graph *g;
    MUST(ev_graph_new(&g, 1, 0));
    ev_graph_at(g, "scheme.lua:9");
    ev_tensor y = scene_now(g);
    run_says(g, y, "scheme.lua:9: gru: the lengths in 'lengths' add up to ");
    ev_graph_free(g);
  }
}

static void what_does_not_fit_is_refused(void **s) {
  (void)s;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  uint32_t ids[4] = {0};
  ev_tensor x = input(g, "x", DIMS(9, 2), 0, 1), w = input(g, "w", DIMS(2, 12), 0, 1), u = input(g, "u", DIMS(4, 12), 0, 1), b = input(g, "b", DIMS(12), 0, 1), n = input_ids(g, "n", DIMS(4), ids);
  ev_tensor wrong = input(g, "wrong", DIMS(3, 12), 0, 1), narrow = input(g, "narrow", DIMS(2, 9), 0, 1);
  refused(g, "gru", IN(x, wrong, u, b, n), NO_ATTRS, SAYS("gru (9, 2) x (3, 12) x (4, 12) x (12) x (4)", "inner sizes 2 and 3 differ"));
  refused(g, "gru", IN(x, narrow, u, b, n), NO_ATTRS, SAYS("3 · 4 columns"));
  refused(g, "gru", IN(x, w, wrong, b, n), NO_ATTRS, SAYS("3 · 3 columns"));
  refused(g, "gru", IN(x, w, u, u, n), NO_ATTRS, SAYS("it takes x (T, C)"));
  refused(g, "gru", IN(x, w, u, b, b), NO_ATTRS, SAYS("input 5 must be ids"));
  refused(g, "gru", IN(n, w, u, b, n), NO_ATTRS, SAYS("input 1 must be numbers"));
  ev_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(ragged_sequences),
      cmocka_unit_test(one_long_sequence_and_many_of_one),
      cmocka_unit_test(nothing_at_all),
      cmocka_unit_test(many_sequences),
      cmocka_unit_test(lengths_must_add_up),
      cmocka_unit_test(what_does_not_fit_is_refused),
  };
  return RUN(tests);
}
