/* learn_ops_reduce.c - sums, means, maxima and log-sums along every dimension of tensors of every rank, against double and
 * against differences; nothing at all, ties and infinities; the same bits for any number of threads. */
#include "learn_ops.h"

static const char *const ops[] = {"sum", "mean", "max", "logsumexp"};
#define N_OPS 4

static const ev_shape shapes[] = {{0, {0}, 0}, {1, {7}, 0}, {2, {3, 5}, 0}, {2, {1, 6}, 0}, {3, {2, 3, 4}, 0}, {4, {2, 3, 2, 2}, 0}};
static struct {
  const char *op;
  ev_shape shape;
  int dim, keep;
} now;

/* The value of operator `op` over x (outer, n, inner) at (o, i). */
static double expected(const char *op, const float *x, size_t n, size_t inner, size_t o, size_t i) {
  double sum = 0, most = -INFINITY;
  for (size_t k = 0; k < n; k++) {
    double v = x[(o * n + k) * inner + i];
    sum += op[0] == 'l' ? exp(v) : v;
    most = v > most ? v : most;
  }
  return op[0] == 'l' ? log(sum) : op[1] == 'a' ? most : op[0] == 's' || n == 0 ? sum : sum / (double)n;
}

static void split_at(const ev_shape *s, int dim, size_t *outer, size_t *n, size_t *inner) {
  *outer = *n = *inner = 1;
  for (int d = 0; d < (int)s->rank; d++) *(dim == -1 || d == dim ? n : d < dim ? outer : inner) *= s->dim[d];
}

static void check_value(ev_graph *g, ev_tensor x, ev_tensor y, const char *op, int dim, bool keep) {
  ev_shape live, from;
  float *out = value_of(g, y, &live);
  ev_plan *p;
  MUST(ev_plan_new(&p, g, &x, 1, EV_NONE));
  MUST(ev_plan_run(p, false, 0, NULL));
  const float *in = ev_plan_value(p, x, &from);
  size_t outer, n, inner;
  split_at(&from, dim, &outer, &n, &inner);
  assert_int_equal(elements(&live), outer * inner);
  assert_int_equal(live.rank, keep ? from.rank : dim == -1 ? 0 : from.rank - 1);
  assert_int_equal(live.axis, dim == 0 || dim == -1 ? 0 : from.axis);
  for (size_t o = 0; o < outer; o++)
    for (size_t i = 0; i < inner; i++) {
      double want = expected(op, in, n, inner, o, i), got = out[o * inner + i];
      if (isinf(want)) assert_true(got == want);
      else near(op, o * inner + i, got, want, (double)n + fabs(want));
    }
  ev_plan_free(p);
  free(out);
}

static ev_tensor scene_now(ev_graph *g) { return apply(g, now.op, IN(parameter(g, "x", now.shape, -2, 2)), ATTRS(now.dim, now.keep)); }

static void every_dimension_of_every_rank(void **s) {
  (void)s;
  for (size_t o = 0; o < N_OPS; o++)
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
      for (now.dim = -1; now.dim < (int)shapes[k].rank; now.dim++)
        for (now.keep = 0; now.keep < 2; now.keep++) {
          now.op = ops[o], now.shape = shapes[k];
          ev_graph *g;
          MUST(ev_graph_new(&g, 1, 0));
          ev_tensor x = input(g, "x", now.shape, -2, 2);
          check_value(g, x, apply(g, now.op, IN(x), ATTRS(now.dim, now.keep)), now.op, now.dim, now.keep);
          ev_graph_free(g);
          char what[64];
          snprintf(what, sizeof what, "%s, shape %zu, dimension %d", now.op, k, now.dim);
          check_gradients(what, scene_now, 0, 0);
        }
}

static ev_tensor live_scene(ev_graph *g) { return apply(g, now.op, IN(live_rows(g, new_axis(g, 9, (size_t)now.keep), "x", 3)), ATTRS(now.dim)); }

/* keep stands for the number of live rows here: all, some and none. */
static void only_live_rows_count(void **s) {
  (void)s;
  for (size_t o = 0; o < N_OPS; o++)
    for (int live = 0; live < 3; live++)
      for (now.dim = -1; now.dim < 2; now.dim++) {
        now.op = ops[o], now.keep = (const int[]){9, 5, 0}[live];
        ev_graph *g;
        MUST(ev_graph_new(&g, 1, 0));
        ev_tensor x = live_rows(g, new_axis(g, 9, (size_t)now.keep), "x", 3);
        check_value(g, x, apply(g, now.op, IN(x), ATTRS(now.dim)), now.op, now.dim, false);
        ev_graph_free(g);
        if (now.keep == 0 && o >= 2) continue; /* −∞ is no loss */
        check_gradients(now.op, live_scene, 0, 0);
      }
}

/* Blocks of rows, of elements; columns in chunks; a long row. */
static const struct large_case {
  ev_shape shape;
  int dim;
} large[] = {{{2, {5000, 40}, 0}, 0}, {{2, {5000, 40}, 0}, 1}, {{2, {5000, 40}, 0}, -1}, {{2, {40, 5000}, 0}, 0}, {{3, {40, 30, 70}, 0}, 1}, {{3, {90, 30, 70}, 0}, 0}, {{3, {3, 200, 1100}, 0}, 1}, {{1, {100003}, 0}, 0}};

static void large_ones_agree_with_double(void **s) {
  (void)s;
  for (size_t k = 0; k < sizeof large / sizeof *large; k++)
    for (size_t o = 0; o < N_OPS; o++) {
      ev_graph *g;
      MUST(ev_graph_new(&g, 1, 0));
      ev_tensor x = input(g, "x", large[k].shape, -2, 2.5), y = apply(g, ops[o], IN(x), ATTRS(large[k].dim));
      ev_shape live;
      float *out = value_of(g, y, &live);
      size_t outer, n, inner;
      split_at(&large[k].shape, large[k].dim, &outer, &n, &inner);
      for (size_t a = 0; a < outer; a++)
        for (size_t b = 0; b < inner; b++) {
          double want = expected(ops[o], ev_graph_values(g, x, NULL), n, inner, a, b), got = out[a * inner + b], size = o == 0 ? 1.2 * (double)n : 10;
          if (!(fabs(got - want) <= 5e-7 * size)) fail_msg("%s, shape %zu: element (%zu, %zu) is %.9g, not %.9g", ops[o], k, a, b, got, want);
        }
      free(out);
      ev_graph_free(g);
    }
}

static void the_same_bits_for_any_threads(void **s) {
  (void)s;
  for (size_t k = 0; k < sizeof large / sizeof *large; k++)
    for (size_t o = 0; o < N_OPS; o++) {
      now.op = ops[o], now.shape = large[k].shape, now.dim = large[k].dim, now.keep = 0;
      check_threads(now.op, scene_now);
    }
}

static void the_first_of_equals_takes_a_maximums_gradient(void **s) {
  (void)s;
  for (int dim = 0; dim < 2; dim++) {
    stage st = {.loss = EV_NONE};
    MUST(ev_graph_new(&st.g, 7, 0));
    ev_tensor x = parameter(st.g, "x", DIMS(2, 3), 0, 1);
    memcpy(ev_graph_values(st.g, x, NULL), (float[]){5, 5, 1, 5, 2, 1}, 24);
    MUST(ev_plan_new(&st.p, st.g, NULL, 0, apply(st.g, "sum", IN(apply(st.g, "max", IN(x), ATTRS(dim))), ATTRS(-1))));
    MUST(ev_plan_run(st.p, true, 0, NULL));
    float gradient[6];
    MUST(ev_plan_gradient(st.p, x, gradient));
    assert_memory_equal(gradient, dim == 0 ? ((float[]){1, 1, 1, 0, 0, 0}) : ((float[]){1, 0, 0, 1, 0, 0}), sizeof gradient);
    stage_close(&st);
  }
}

static void strange_numbers_are_not_hidden(void **s) {
  (void)s;
  for (int dim = 0; dim < 2; dim++) {
    ev_graph *g;
    MUST(ev_graph_new(&g, 1, 0));
    ev_tensor x = input(g, "x", DIMS(3, 3), -1, 1);
    /* Along either dimension: one line of −∞, one with NaN, one with +∞. */
    for (size_t i = 0; i < 9; i++) {
      size_t line = dim == 0 ? i % 3 : i / 3, at = dim == 0 ? i / 3 : i % 3;
      ev_graph_values(g, x, NULL)[i] = line == 0 ? -INFINITY : at == 1 ? (line == 1 ? NAN : INFINITY) : 1;
    }
    for (size_t o = 2; o < N_OPS; o++) {
      ev_shape live;
      float *y = value_of(g, apply(g, ops[o], IN(x), ATTRS(dim)), &live);
      assert_true(y[0] == -INFINITY && isnan(y[1]) && y[2] == INFINITY);
      free(y);
    }
    ev_graph_free(g);
  }
}

static void what_does_not_fit_is_refused(void **s) {
  (void)s;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  uint32_t ids[3] = {0};
  ev_tensor x = input(g, "x", DIMS(3, 4), 0, 1), i = input_ids(g, "i", DIMS(3), ids);
  refused(g, "sum", IN(x), ATTRS(2), SAYS("sum (3, 4)", "dimension 2 is no whole number from -1 to 1"));
  refused(g, "mean", IN(x), ATTRS(0.5), SAYS("dimension 0.5"));
  refused(g, "max", IN(x), ATTRS(0, 2), SAYS("keep 2"));
  refused(g, "logsumexp", IN(i), ATTRS(0), SAYS("must be numbers, not ids"));
  refused(g, "sum", IN(x), NO_ATTRS, SAYS("sum"));
  ev_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_dimension_of_every_rank),
      cmocka_unit_test(only_live_rows_count),
      cmocka_unit_test(large_ones_agree_with_double),
      cmocka_unit_test(the_same_bits_for_any_threads),
      cmocka_unit_test(the_first_of_equals_takes_a_maximums_gradient),
      cmocka_unit_test(strange_numbers_are_not_hidden),
      cmocka_unit_test(what_does_not_fit_is_refused),
  };
  return RUN(tests);
}
