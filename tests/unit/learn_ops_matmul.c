/* matmul and dot: values against sums in double, gradients against differences and, where there are too many, formulas. */
#include "learn_ops.h"

typedef enum kind { MATRICES, BATCHES, SHARED } kind; /* (N, K)(K, M); (B, N, K)(B, K, M); (B, N, K)(K, M) */
static struct {
  kind kind;
  size_t b, m, k, n;
  bool turn_a, turn_b;
} at;

static ev_shape shape_a(void) {
  size_t r = at.turn_a ? at.k : at.m, c = at.turn_a ? at.m : at.k;
  return at.kind == MATRICES ? DIMS(r, c) : DIMS(at.b, r, c);
}

static ev_shape shape_b(void) {
  size_t r = at.turn_b ? at.n : at.k, c = at.turn_b ? at.k : at.n;
  return at.kind == BATCHES ? DIMS(at.b, r, c) : DIMS(r, c);
}

static ev_tensor two_parameters(ev_graph *g) {
  ev_tensor a = parameter(g, "a", shape_a(), -1, 1), b = parameter(g, "b", shape_b(), -1, 1);
  return apply(g, "matmul", IN(a, b), ATTRS(at.turn_a, at.turn_b));
}

/* Element (i, p) of op(x) where x stands as (rows, cols), turned or not. */
static double element(const float *x, size_t rows, size_t cols, bool turn, size_t i, size_t p) { return turn ? x[p * rows + i] : x[i * cols + p]; }

/* Values, and the gradients of Σ w y, of whatever `at` says; also: of that and of the inputs, so that there is something to add to. */
static void check_against_sums(bool also) {
  char what[96];
  snprintf(what, sizeof what, "kind %d batch %zu (%zu, %zu)(%zu, %zu) turned %d %d", (int)at.kind, at.b, at.m, at.k, at.k, at.n, at.turn_a, at.turn_b);
  stage s = stage_open(two_parameters, also);
  disturb(&s);
  stage_run(&s);
  const ev_node *node = &s.g->nodes[s.watched[0]];
  size_t na, nb, batch = at.kind == MATRICES ? 1 : at.b, step_a = at.m * at.k, step_b = at.kind == SHARED ? 0 : at.k * at.n;
  const float *a = ev_graph_values(s.g, node->in[0], &na), *b = ev_graph_values(s.g, node->in[1], &nb);
  const float *y = ev_plan_value(s.p, s.watched[0], NULL), *w = ev_plan_value(s.p, s.weights[0], NULL);
  double *da = calloc(na, 2 * sizeof *da), *db = calloc(nb, 2 * sizeof *db); /* value, size */
  float *got = malloc((na + nb) * sizeof *got);
  assert_true(da != NULL && db != NULL && got != NULL);
  for (size_t z = 0; z < batch; z++)
    for (size_t i = 0; i < at.m; i++)
      for (size_t j = 0; j < at.n; j++) {
        double sum = 0, size = 0;
        size_t to = (z * at.m + i) * at.n + j;
        for (size_t p = 0; p < at.k; p++) {
          double x = element(a + z * step_a, at.m, at.k, at.turn_a, i, p), v = element(b + z * step_b, at.k, at.n, at.turn_b, p, j);
          size_t ia = z * step_a + (at.turn_a ? p * at.m + i : i * at.k + p), ib = z * step_b + (at.turn_b ? j * at.k + p : p * at.n + j);
          sum += x * v, size += fabs(x * v);
          da[2 * ia] += w[to] * v, da[2 * ia + 1] += fabs(w[to] * v);
          db[2 * ib] += w[to] * x, db[2 * ib + 1] += fabs(w[to] * x);
        }
        near(what, to, y[to], sum, size);
      }
  for (size_t i = 0; i < na && also; i++) da[2 * i] += ev_plan_value(s.p, s.weights[1], NULL)[i], da[2 * i + 1] += 2;
  for (size_t i = 0; i < nb && also; i++) db[2 * i] += ev_plan_value(s.p, s.weights[2], NULL)[i], db[2 * i + 1] += 2;
  MUST(ev_plan_gradient(s.p, node->in[0], got));
  for (size_t i = 0; i < na; i++) near(what, i, got[i], da[2 * i], da[2 * i + 1]);
  MUST(ev_plan_gradient(s.p, node->in[1], got));
  for (size_t i = 0; i < nb; i++) near(what, i, got[i], db[2 * i], db[2 * i + 1]);
  free(da), free(db), free(got);
  stage_close(&s);
}

static void products_and_gradients_are_their_sums(void **state) {
  (void)state;
  const size_t sizes[][3] = {{1, 1, 1}, {5, 7, 3}, {17, 33, 65}, {2, 40, 100}, {37, 1, 19}, {64, 64, 64}, {3, 130, 129}, {31, 200, 16}};
  for (int k = 0; k < 3; k++)
    for (int turned = 0; turned < 4; turned++)
      for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        at.kind = (kind)k, at.turn_a = turned & 1, at.turn_b = turned & 2;
        at.b = 1 + i % 4, at.m = sizes[i][0], at.k = sizes[i][1], at.n = sizes[i][2];
        check_against_sums(false);
      }
}

/* Large enough to be cut: in rows, in columns, in parts of the inner sum, in parts of the batch. */
static const struct { kind kind; size_t b, m, k, n; int turned; } large[] = {
    {MATRICES, 1, 700, 67, 41, 0}, {MATRICES, 1, 130, 65, 2500, 0}, {MATRICES, 1, 130, 65, 2500, 2}, {MATRICES, 1, 23, 1500, 31, 1},
    {BATCHES, 70, 33, 17, 29, 0},  {SHARED, 70, 40, 23, 19, 0},     {SHARED, 70, 40, 23, 19, 1},     {SHARED, 70, 40, 23, 19, 3}, {SHARED, 3, 20, 301, 303, 1},
};

static void set_large(size_t i) {
  at.kind = large[i].kind, at.b = large[i].b, at.m = large[i].m, at.k = large[i].k, at.n = large[i].n;
  at.turn_a = large[i].turned & 1, at.turn_b = large[i].turned & 2;
}

static void large_products_are_their_sums_too(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
    set_large(i);
    check_against_sums(false);
    check_against_sums(true);
  }
}

static void products_have_the_same_bits_for_any_threads(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
    set_large(i);
    check_threads("matmul", two_parameters);
  }
}

static void products_have_the_gradients_of_differences(void **state) {
  (void)state;
  for (int k = 0; k < 3; k++)
    for (int turned = 0; turned < 4; turned++) {
      at.kind = (kind)k, at.turn_a = turned & 1, at.turn_b = turned & 2;
      at.b = 2, at.m = 3, at.k = 4, at.n = 5;
      check_gradients("matmul", two_parameters, 0, 0);
    }
}

static ev_tensor live_times_weights(ev_graph *g) {
  return apply(g, "matmul", IN(live_rows(g, new_axis(g, 9, 6), "x", 4), parameter(g, "w", DIMS(4, 3), -1, 1)), ATTRS(0, 0));
}

static ev_tensor live_times_turned_weights(ev_graph *g) {
  return apply(g, "matmul", IN(live_rows(g, new_axis(g, 9, 6), "x", 4), parameter(g, "w", DIMS(3, 4), -1, 1)), ATTRS(0, 1));
}

static ev_tensor live_inner(ev_graph *g) { /* the rows are what is summed over */
  unsigned axis = new_axis(g, 9, 6);
  return apply(g, "matmul", IN(live_rows(g, axis, "x", 4), live_rows(g, axis, "y", 3)), ATTRS(1, 0));
}

static ev_tensor live_batch(ev_graph *g) {
  unsigned axis = new_axis(g, 5, 3);
  ev_tensor a = apply(g, "reshape", IN(live_rows(g, axis, "x", 12)), ATTRS(-1, 3, 4)), b = apply(g, "reshape", IN(live_rows(g, axis, "y", 8)), ATTRS(-1, 4, 2));
  return apply(g, "matmul", IN(a, b), ATTRS(0, 0));
}

static ev_tensor live_batch_shared(ev_graph *g) {
  unsigned axis = new_axis(g, 5, 3);
  ev_tensor a = apply(g, "reshape", IN(live_rows(g, axis, "x", 12)), ATTRS(-1, 4, 3));
  return apply(g, "matmul", IN(a, parameter(g, "w", DIMS(4, 2), -1, 1)), ATTRS(1, 0));
}

static void live_rows_are_multiplied_and_no_others(void **state) {
  (void)state;
  check_gradients("rows and weights", live_times_weights, 0, 0);
  check_gradients("rows and turned weights", live_times_turned_weights, 0, 0);
  check_gradients("inner rows", live_inner, 0, 0);
  check_gradients("a live batch", live_batch, 0, 0);
  check_gradients("a live batch and one matrix", live_batch_shared, 0, 0);
}

/* Capacities that plan for parts or for none, and live lengths for which it is the other way round. */
static size_t capacity, live, width;
static ev_tensor many_live(ev_graph *g) {
  ev_tensor x = live_rows(g, new_axis(g, capacity, live), "x", 600), w = parameter(g, "w", DIMS(600, width), -1, 1);
  return apply(g, "matmul", IN(x, w), ATTRS(0, 0));
}

static void any_live_length_fits_in_what_was_planned(void **state) {
  (void)state;
  const size_t capacities[] = {4000, 4000, 4000, 400, 300, 20}, lives[] = {4000, 1500, 100, 300, 0, 1}, widths[] = {33, 33, 33, 200, 33, 33};
  for (int i = 0; i < 6; i++) {
    capacity = capacities[i], live = lives[i], width = widths[i];
    stage s = stage_open(many_live, false);
    disturb(&s);
    stage_run(&s);
    const float *w = ev_graph_values(s.g, ev_graph_find(s.g, "w"), NULL), *x = ev_graph_values(s.g, ev_graph_find(s.g, "x"), NULL);
    const uint32_t *rows = ev_graph_ids(s.g, ev_graph_find(s.g, "x_rows"), NULL);
    const float *y = ev_plan_value(s.p, s.watched[0], NULL), *by = ev_plan_value(s.p, s.weights[0], NULL);
    float *dw = malloc(600 * width * sizeof *dw);
    assert_non_null(dw);
    MUST(ev_plan_gradient(s.p, ev_graph_find(s.g, "w"), dw));
    for (size_t r = 0; r < live; r += 1 + r % 37) /* some of them */
      for (size_t j = 0; j < width; j++) {
        double sum = 0, size = 0;
        for (size_t p = 0; p < 600; p++) sum += (double)x[rows[r] * 600 + p] * w[p * width + j], size += fabs((double)x[rows[r] * 600 + p] * w[p * width + j]);
        near("y", r * width + j, y[r * width + j], sum, size);
      }
    for (size_t p = 0; p < 600; p += 17)
      for (size_t j = 0; j < width; j++) {
        double sum = 0, size = 0;
        for (size_t r = 0; r < live; r++) sum += (double)x[rows[r] * 600 + p] * by[r * width + j], size += fabs((double)x[rows[r] * 600 + p] * by[r * width + j]);
        near("the weights' gradient", p * width + j, dw[p * width + j], sum, size);
      }
    free(dw);
    stage_close(&s);
  }
}

static void what_cannot_be_multiplied_is_refused(void **state) {
  (void)state;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned rows = new_axis(g, 6, 6), others = new_axis(g, 6, 6);
  const uint32_t some[6] = {0};
  ev_tensor a = input(g, "a", DIMS(3, 4), -1, 1), b = input(g, "b", DIMS(5, 4), -1, 1), v = input(g, "v", DIMS(4), -1, 1), ids = input_ids(g, "ids", DIMS(6), some);
  ev_tensor x = input(g, "x", DIMS_LIVE(rows, 6, 4), -1, 1), y = input(g, "y", DIMS_LIVE(others, 6, 4), -1, 1), z = input(g, "z", DIMS(6, 4), -1, 1);
  ev_tensor c = input(g, "c", DIMS(2, 3, 4), -1, 1), d = input(g, "d", DIMS(3, 4, 3), -1, 1), q = input(g, "q", DIMS_LIVE(rows, 6, 4, 4), -1, 1), r = input(g, "r", DIMS_LIVE(others, 6, 4, 4), -1, 1);
  ev_tensor four = input(g, "four", DIMS(6, 6), -1, 1);
  ev_graph_at(g, "scheme.lua:3");
  refused(g, "matmul", IN(a, b), ATTRS(0, 0), SAYS("scheme.lua:3: matmul (3, 4) x (5, 4)", "inner sizes 4 and 5 differ"));
  refused(g, "matmul", IN(a, b), ATTRS(1, 1), SAYS("inner sizes 3 and 4 differ", "transposed"));
  refused(g, "matmul", IN(a, v), ATTRS(0, 0), SAYS("(3, 4) x (4)", "takes matrices"));
  refused(g, "matmul", IN(a, c), ATTRS(0, 0), SAYS("takes matrices"));
  refused(g, "matmul", IN(a, ids), ATTRS(0, 0), SAYS("input 2 must be numbers, not ids"));
  refused(g, "matmul", IN(c, d), ATTRS(0, 0), SAYS("batches of 2 and 3"));
  refused(g, "matmul", IN(q, r), ATTRS(0, 0), SAYS("batches of 6 and 6 along different axes"));
  refused(g, "matmul", IN(x, y), ATTRS(0, 1), SAYS("columns cannot be along an axis"));
  refused(g, "matmul", IN(x, y), ATTRS(1, 0), SAYS("different axes"));
  refused(g, "matmul", IN(x, z), ATTRS(1, 0), SAYS("different axes"));
  refused(g, "matmul", IN(four, x), ATTRS(0, 0), SAYS("different axes"));
  refused(g, "matmul", IN(c, x), ATTRS(0, 1), SAYS("a batch shares"));
  refused(g, "matmul", IN(a, b), ATTRS(0, 0.5), SAYS("transpose_b 0.5"));
  refused(g, "matmul", IN(a, b), ATTRS(2, 0), SAYS("transpose_a 2"));
  refused(g, "dot", IN(a, b), NO_ATTRS, SAYS("dot (3, 4) x (5, 4)", "3 rows and 5"));
  refused(g, "dot", IN(x, y), NO_ATTRS, SAYS("6 rows and 6 along different axes"));
  refused(g, "dot", IN(x, z), NO_ATTRS, SAYS("along different axes"));
  refused(g, "dot", IN(z, four), NO_ATTRS, SAYS("rows of 4 and 6 numbers"));
  refused(g, "dot", IN(v, v), NO_ATTRS, SAYS("takes (N, D)"));
  refused(g, "dot", IN(c, a), NO_ATTRS, SAYS("takes (N, D)"));
  refused(g, "dot", IN(z, ids), NO_ATTRS, SAYS("input 2 must be numbers, not ids"));
  ev_graph_free(g);
}

/* ---- dot ---------------------------------------------------------------------------------------------------*/
static size_t n_rows, n_many, n_dims; /* n_many 0: one b for each a */

static ev_tensor dots(ev_graph *g) {
  ev_tensor a = parameter(g, "a", DIMS(n_rows, n_dims), -1, 1), b = parameter(g, "b", n_many == 0 ? DIMS(n_rows, n_dims) : DIMS(n_rows, n_many, n_dims), -1, 1);
  return apply(g, "dot", IN(a, b), NO_ATTRS);
}

static ev_tensor live_dots(ev_graph *g) {
  unsigned axis = new_axis(g, 8, 5);
  return apply(g, "dot", IN(live_rows(g, axis, "a", 3), live_rows(g, axis, "b", 3)), NO_ATTRS);
}

static ev_tensor live_dots_many(ev_graph *g) {
  unsigned axis = new_axis(g, 6, 4);
  return apply(g, "dot", IN(live_rows(g, axis, "a", 3), apply(g, "reshape", IN(live_rows(g, axis, "b", 6)), ATTRS(-1, 2, 3))), NO_ATTRS);
}

static void dots_are_sums_and_have_their_gradients(void **state) {
  (void)state;
  const size_t sizes[][3] = {{1, 0, 1}, {5, 0, 7}, {70, 0, 64}, {9, 0, 129}, {4, 3, 5}, {6, 100, 65}, {3, 1, 16}};
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
    n_rows = sizes[k][0], n_many = sizes[k][1], n_dims = sizes[k][2];
    stage s = stage_open(dots, false);
    disturb(&s);
    stage_run(&s);
    const float *a = ev_graph_values(s.g, ev_graph_find(s.g, "a"), NULL), *b = ev_graph_values(s.g, ev_graph_find(s.g, "b"), NULL);
    const float *y = ev_plan_value(s.p, s.watched[0], NULL), *w = ev_plan_value(s.p, s.weights[0], NULL);
    size_t m = n_many == 0 ? 1 : n_many;
    float *da = malloc(n_rows * n_dims * sizeof *da), *db = malloc(n_rows * m * n_dims * sizeof *db);
    assert_true(da != NULL && db != NULL);
    MUST(ev_plan_gradient(s.p, ev_graph_find(s.g, "a"), da));
    MUST(ev_plan_gradient(s.p, ev_graph_find(s.g, "b"), db));
    for (size_t i = 0; i < n_rows; i++) {
      for (size_t j = 0; j < m; j++) {
        double sum = 0, size = 0;
        for (size_t c = 0; c < n_dims; c++) {
          double x = a[i * n_dims + c], v = b[(i * m + j) * n_dims + c];
          sum += x * v, size += fabs(x * v);
          near("b's gradient", (i * m + j) * n_dims + c, db[(i * m + j) * n_dims + c], w[i * m + j] * x, fabs(w[i * m + j] * x));
        }
        near("dot", i * m + j, y[i * m + j], sum, size);
      }
      for (size_t c = 0; c < n_dims; c++) {
        double sum = 0, size = 0;
        for (size_t j = 0; j < m; j++) sum += (double)w[i * m + j] * b[(i * m + j) * n_dims + c], size += fabs((double)w[i * m + j] * b[(i * m + j) * n_dims + c]);
        near("a's gradient", i * n_dims + c, da[i * n_dims + c], sum, size);
      }
    }
    free(da), free(db);
    stage_close(&s);
  }
  n_rows = 3, n_many = 0, n_dims = 5;
  check_gradients("dot", dots, 0, 0);
  n_many = 4;
  check_gradients("dot of many", dots, 0, 0);
  check_gradients("dot of live rows", live_dots, 0, 0);
  check_gradients("dot of many live rows", live_dots_many, 0, 0);
}

static void dots_have_the_same_bits_for_any_threads(void **state) {
  (void)state;
  n_rows = 8000, n_many = 0, n_dims = 50;
  check_threads("dot", dots);
  n_rows = 300, n_many = 30;
  check_threads("dot of many", dots);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(products_and_gradients_are_their_sums),
      cmocka_unit_test(large_products_are_their_sums_too),
      cmocka_unit_test(products_have_the_same_bits_for_any_threads),
      cmocka_unit_test(products_have_the_gradients_of_differences),
      cmocka_unit_test(live_rows_are_multiplied_and_no_others),
      cmocka_unit_test(any_live_length_fits_in_what_was_planned),
      cmocka_unit_test(what_cannot_be_multiplied_is_refused),
      cmocka_unit_test(dots_are_sums_and_have_their_gradients),
      cmocka_unit_test(dots_have_the_same_bits_for_any_threads),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
