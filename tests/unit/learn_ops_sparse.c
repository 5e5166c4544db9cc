/* learn_ops_sparse.c - sparse products both ways: values in double, gradients against differences, any number of threads. */
#include "learn_ops.h"

enum { R = 5, C = 7, N = 11 };
static const uint64_t ptr[R + 1] = {0, 3, 3, 7, 8, N};
static const uint32_t idx[N] = {0, 2, 6, 1, 2, 3, 6, 0, 5, 5, 1}; /* one twice, and not in order: rows are lists */
static const float weights[N] = {1, -2, 0.5f, 3, 0.25f, -1, 2, 1.5f, 1, 2, -0.5f};
static bool weighted, transposed;

static ev_tensor matrix(ev_graph *g) {
  ev_tensor s = EV_NONE;
  MUST(ev_graph_sparse(g, &s, "s", R, C, ptr, idx, weighted ? weights : NULL));
  return s;
}

static ev_tensor scene_now(ev_graph *g) { return apply(g, "spmm", IN(matrix(g), parameter(g, "x", DIMS(transposed ? R : C, 3), -2, 2)), ATTRS(transposed)); }

static void both_ways(void **s) {
  (void)s;
  for (int way = 0; way < 4; way++) {
    weighted = way & 1, transposed = way & 2;
    check_gradients("spmm", scene_now, 0, 0);
    ev_graph *g;
    MUST(ev_graph_new(&g, 1, 0));
    size_t rows = transposed ? C : R, d = 21;
    ev_tensor x = input(g, "x", DIMS(transposed ? R : C, d), -2, 2);
    ev_shape shape;
    float *y = value_of(g, transposed ? apply(g, "spmm", IN(matrix(g), x), ATTRS(1)) : apply(g, "spmm", IN(matrix(g), x), NO_ATTRS), &shape), *from = ev_graph_values(g, x, NULL);
    assert_true(shape.rank == 2 && shape.dim[0] == rows && shape.dim[1] == d);
    double want[C * 21] = {0};
    for (size_t r = 0; r < R; r++)
      for (uint64_t e = ptr[r]; e < ptr[r + 1]; e++)
        for (size_t i = 0; i < d; i++) want[(transposed ? idx[e] : r) * d + i] += (weighted ? weights[e] : 1) * (double)from[(transposed ? r : idx[e]) * d + i];
    for (size_t i = 0; i < rows * d; i++) near("spmm", i, y[i], want[i], 12);
    free(y);
    ev_graph_free(g);
  }
}

/* A graph with a few rows that have most of the entries. */
static ev_tensor large(ev_graph *g) {
  enum { NODES = 700, EDGES = 20000 };
  static uint64_t from[NODES + 1];
  static uint32_t to[EDGES];
  static float values[EDGES];
  ev_rng r;
  ev_rng_seed(&r, 5, 0);
  for (size_t i = 0; i <= NODES; i++) from[i] = (uint64_t)(EDGES * pow((double)i / NODES, 3));
  for (size_t e = 0; e < EDGES; e++) to[e] = ev_rng_below(&r, NODES), values[e] = (float)ev_rng_f64(&r);
  ev_tensor s = EV_NONE;
  MUST(ev_graph_sparse(g, &s, "s", NODES, NODES, from, to, values));
  ev_tensor x = parameter(g, "x", DIMS(NODES, 72), -1, 1);
  for (int layer = 0; layer < 2; layer++) x = apply(g, "spmm", IN(s, x), ATTRS(layer));
  return x;
}

static void the_same_bits_for_any_threads(void **s) {
  (void)s;
  check_threads("spmm", large);
}

static void what_does_not_fit_is_refused(void **s) {
  (void)s;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned axis = new_axis(g, C, C);
  ev_tensor m = matrix(g), x = input(g, "x", DIMS(R, 2), 0, 1), y = input(g, "y", DIMS(C, 2), 0, 1), live = input(g, "live", DIMS_LIVE(axis, C, 2), 0, 1), v = input(g, "v", DIMS(C), 0, 1);
  refused(g, "spmm", IN(m, x), NO_ATTRS, SAYS("spmm (5, 7) x (5, 2)", "inner sizes 7 and 5 differ"));
  refused(g, "spmm", IN(m, y), ATTRS(1), SAYS("inner sizes 5 and 7 differ (the first is transposed)"));
  refused(g, "spmm", IN(m, live), NO_ATTRS, SAYS("fixed number of rows"));
  refused(g, "spmm", IN(m, v), NO_ATTRS, SAYS("fixed number of rows"));
  refused(g, "spmm", IN(y, y), NO_ATTRS, SAYS("input 1 must be a sparse matrix"));
  refused(g, "spmm", IN(m, m), NO_ATTRS, SAYS("input 2 must be numbers"));
  refused(g, "spmm", IN(m, y), ATTRS(2), SAYS("transposed 2"));
  refused(g, "add", IN(m, y), NO_ATTRS, SAYS("must be numbers, not a sparse matrix"));
  ev_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(both_ways),
      cmocka_unit_test(the_same_bits_for_any_threads),
      cmocka_unit_test(what_does_not_fit_is_refused),
  };
  return RUN(tests);
}
