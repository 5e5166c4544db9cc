/* learn_ops_pointwise.c - operators of one and of two tensors: values against the C library in double, gradients against
 * differences, shapes of every kind side by side, sums over large tensors, the same bits for any number of threads. */
#include "learn_ops.h"

/* ---- One tensor ---------------------------------------------------------------------------------------------------*/
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double d_neg(double x) { return -x; }
static double d_square(double x) { return x * x; }
static double d_relu(double x) { return x > 0 ? x : 0; }
static double d_gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2)); }
static double d_silu(double x) { return x * sigmoid(x); }
static double d_softplus(double x) { return log1p(exp(x)); }
static double d_clip(double x) { return x < -0.8 ? -0.8 : x > 0.9 ? 0.9 : x; }
static double d_cube(double x) { return x * x * x; }
static double d_inverse(double x) { return 1 / x; }
static double d_same(double x) { return x; }
static double d_power(double x) { return pow(x, 1.3); }
static double d_scale(double x) { return 2.5 * x - 0.75; }
static double d_times(double x) { return -3 * x; }

static const struct map_case {
  const char *op;
  double (*value)(double);
  double low, high;
  size_t n_attr;
  double attr[2];
} maps[] = {
    {"neg", d_neg, -2, 2, 0, {0, 0}},        {"exp", exp, -2, 2, 0, {0, 0}},          {"log", log, 0.3, 4, 0, {0, 0}},          {"sqrt", sqrt, 0.3, 4, 0, {0, 0}},
    {"square", d_square, -2, 2, 0, {0, 0}},  {"abs", fabs, -2, 2, 0, {0, 0}},         {"relu", d_relu, -2, 2, 0, {0, 0}},       {"gelu", d_gelu, -3, 3, 0, {0, 0}},
    {"silu", d_silu, -3, 3, 0, {0, 0}},      {"sigmoid", sigmoid, -3, 3, 0, {0, 0}},  {"tanh", tanh, -3, 3, 0, {0, 0}},         {"softplus", d_softplus, -3, 3, 0, {0, 0}},
    {"clip", d_clip, -2, 2, 2, {-0.8, 0.9}}, {"pow", d_cube, -2, 2, 1, {3, 0}},       {"pow", d_square, -2, 2, 1, {2, 0}},      {"pow", d_inverse, 0.5, 2, 1, {-1, 0}},
    {"pow", d_same, -2, 2, 1, {1, 0}},       {"pow", d_power, 0.5, 3, 1, {1.3, 0}},   {"scale", d_scale, -2, 2, 2, {2.5, -0.75}}, {"scale", d_times, -2, 2, 1, {-3, 0}},
};
static const struct map_case *now;

static ev_tensor map_scene(ev_graph *g) { return apply(g, now->op, IN(parameter(g, "x", DIMS(3, 5), now->low, now->high)), now->n_attr, now->attr); }

/* Rows along an axis, of which some are not there. */
static ev_tensor live_map_scene(ev_graph *g) {
  unsigned axis = new_axis(g, 6, 4);
  uint32_t ids[6] = {3, 0, 4, 1, 5, 2};
  ev_tensor table = parameter(g, "x", DIMS(6, 3), now->low, now->high);
  return apply(g, now->op, IN(apply(g, "gather", IN(table, input_ids(g, "ids", DIMS_LIVE(axis, 6), ids)), NO_ATTRS)), now->n_attr, now->attr);
}

static ev_tensor large_map_scene(ev_graph *g) { return apply(g, now->op, IN(parameter(g, "x", DIMS(7, 11, 701), now->low, now->high)), now->n_attr, now->attr); }

static void maps_are_what_they_say(void **s) {
  (void)s;
  for (size_t k = 0; k < sizeof maps / sizeof *maps; k++) {
    now = &maps[k];
    ev_graph *g;
    MUST(ev_graph_new(&g, 1, 0));
    ev_shape live;
    ev_tensor x = input(g, "x", DIMS(5, 37), now->low, now->high);
    float *y = value_of(g, apply(g, now->op, IN(x), now->n_attr, now->attr), &live);
    const float *from = ev_graph_values(g, x, NULL);
    assert_true(live.rank == 2 && live.dim[0] == 5 && live.dim[1] == 37);
    for (size_t i = 0; i < 5 * 37; i++) near(now->op, i, y[i], now->value(from[i]), fabs(now->value(from[i])) + 0.1);
    free(y);
    ev_graph_free(g);
  }
}

static void gradients_of_maps(void **s) {
  (void)s;
  for (size_t k = 0; k < sizeof maps / sizeof *maps; k++) {
    now = &maps[k];
    check_gradients(now->op, map_scene, 0, 0);
    check_gradients(now->op, live_map_scene, 0, 0);
  }
}

static void maps_give_the_same_bits_for_any_threads(void **s) {
  (void)s;
  for (size_t k = 0; k < sizeof maps / sizeof *maps; k++) {
    now = &maps[k];
    check_threads(now->op, large_map_scene);
  }
}

/* ---- Two tensors ---------------------------------------------------------------------------------------------------*/
static const char *const zips[] = {"add", "sub", "mul", "div", "max", "min"};
#define N_ZIPS 6

static double zip_value(const char *op, double x, double y) {
  return op[0] == 'a' ? x + y : op[0] == 's' ? x - y : op[0] == 'd' ? x / y : op[1] == 'u' ? x * y : op[1] == 'a' ? (x > y ? x : y) : (x < y ? x : y);
}

static const struct pair_case {
  ev_shape x, y, out;
} pairs[] = {
    {{2, {3, 5}, 0}, {2, {3, 5}, 0}, {2, {3, 5}, 0}},                   /* the same shape */
    {{2, {3, 5}, 0}, {0, {0}, 0}, {2, {3, 5}, 0}},                      /* one number */
    {{1, {1}, 0}, {2, {3, 5}, 0}, {2, {3, 5}, 0}},                      /* one number, first */
    {{2, {4, 5}, 0}, {1, {5}, 0}, {2, {4, 5}, 0}},                      /* a row */
    {{2, {1, 5}, 0}, {2, {4, 5}, 0}, {2, {4, 5}, 0}},                   /* a row, first */
    {{2, {4, 5}, 0}, {2, {4, 1}, 0}, {2, {4, 5}, 0}},                   /* a column */
    {{2, {4, 1}, 0}, {1, {5}, 0}, {2, {4, 5}, 0}},                      /* a column by a row */
    {{3, {2, 3, 4}, 0}, {2, {3, 4}, 0}, {3, {2, 3, 4}, 0}},             /* rows of rows */
    {{3, {2, 1, 4}, 0}, {3, {2, 3, 4}, 0}, {3, {2, 3, 4}, 0}},          /* the middle repeats */
    {{3, {2, 3, 4}, 0}, {2, {3, 1}, 0}, {3, {2, 3, 4}, 0}},             /* a row of columns: first and last repeat */
    {{3, {2, 3, 1}, 0}, {3, {1, 1, 4}, 0}, {3, {2, 3, 4}, 0}},
    {{3, {2, 1, 4}, 0}, {3, {1, 3, 1}, 0}, {3, {2, 3, 4}, 0}},
    {{4, {2, 1, 3, 1}, 0}, {4, {1, 2, 1, 3}, 0}, {4, {2, 2, 3, 3}, 0}}, /* every other one */
    {{4, {2, 2, 3, 2}, 0}, {3, {2, 1, 2}, 0}, {4, {2, 2, 3, 2}, 0}},
    {{4, {1, 2, 1, 3}, 0}, {4, {2, 1, 2, 1}, 0}, {4, {2, 2, 2, 3}, 0}},
    {{0, {0}, 0}, {0, {0}, 0}, {0, {0}, 0}},
    {{1, {1}, 0}, {3, {1, 1, 1}, 0}, {3, {1, 1, 1}, 0}},
};
static const struct pair_case *pair_now;
static const char *zip_now;

/* Where element i of a tensor of shape full comes from in one of shape s. */
static size_t source(const ev_shape *s, const ev_shape *full, size_t i) {
  size_t at = 0, size = 1;
  for (unsigned d = full->rank; d-- > 0; i /= full->dim[d]) {
    if (d + s->rank < full->rank) continue;
    size_t dim = s->dim[d + s->rank - full->rank];
    if (dim > 1) at += i % full->dim[d] * size;
    size *= dim;
  }
  return at;
}

static ev_tensor zip_scene(ev_graph *g) { return apply(g, zip_now, IN(parameter(g, "x", pair_now->x, 0.45, 2.5), parameter(g, "y", pair_now->y, 0.5, 2.45)), NO_ATTRS); }

static void pairs_of_all_shapes(void **s) {
  (void)s;
  for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++)
    for (size_t z = 0; z < N_ZIPS; z++) {
      pair_now = &pairs[k];
      zip_now = zips[z];
      ev_graph *g;
      MUST(ev_graph_new(&g, 1, 0));
      ev_shape live;
      ev_tensor x = input(g, "x", pair_now->x, 0.45, 2.5), y = input(g, "y", pair_now->y, 0.5, 2.45);
      float *out = value_of(g, apply(g, zip_now, IN(x, y), NO_ATTRS), &live);
      assert_true(ev_shape_same(&live, &pair_now->out));
      for (size_t i = 0; i < elements(&live); i++) {
        double a = ev_graph_values(g, x, NULL)[source(&pair_now->x, &live, i)], b = ev_graph_values(g, y, NULL)[source(&pair_now->y, &live, i)];
        near(zip_now, i, out[i], zip_value(zip_now, a, b), fabs(a) + fabs(b));
      }
      free(out);
      ev_graph_free(g);
      char what[64];
      snprintf(what, sizeof what, "%s, shapes %zu", zip_now, k);
      if (z < 4) check_gradients(what, zip_scene, 0.004, 0);
      else check_gradients(what, zip_scene, 0.0005, 1e-3); /* a smaller step: none passes another */
    }
}

static ev_tensor twice_scene(ev_graph *g) {
  ev_tensor x = parameter(g, "x", DIMS(3, 4), 0.5, 2);
  return apply(g, zip_now, IN(x, x), NO_ATTRS);
}

static ev_tensor rows_and_vector(ev_graph *g) { return apply(g, zip_now, IN(live_rows(g, new_axis(g, 6, 4), "x", 3), parameter(g, "y", DIMS(3), 1.5, 2.5)), NO_ATTRS); }
static ev_tensor column_and_rows(ev_graph *g) {
  unsigned axis = new_axis(g, 6, 4);
  return apply(g, zip_now, IN(live_rows(g, axis, "x", 1), apply(g, "scale", IN(live_rows(g, axis, "y", 3)), ATTRS(0.4, 1.9))), NO_ATTRS);
}
static ev_tensor one_row_and_rows(ev_graph *g) { return apply(g, zip_now, IN(parameter(g, "y", DIMS(1, 3), 1.5, 2.5), apply(g, "scale", IN(live_rows(g, new_axis(g, 6, 4), "x", 3)), ATTRS(0.4, -1.9))), NO_ATTRS); }
static ev_tensor no_rows(ev_graph *g) { return apply(g, zip_now, IN(live_rows(g, new_axis(g, 6, 0), "x", 3), parameter(g, "y", DIMS(3), 1.5, 2.5)), NO_ATTRS); }

static void pairs_along_an_axis(void **s) {
  (void)s;
  for (size_t z = 0; z < N_ZIPS; z++) {
    zip_now = zips[z];
    check_gradients(zip_now, twice_scene, 0.004, 0);
    check_gradients(zip_now, rows_and_vector, 0, 0);
    check_gradients(zip_now, column_and_rows, 0.004, 0);
    check_gradients(zip_now, one_row_and_rows, 0, 0);
    check_gradients(zip_now, no_rows, 0, 0);
  }
}

static void equals_share_a_maximum(void **s) {
  (void)s;
  for (size_t z = 4; z < N_ZIPS; z++) {
    stage st = {.loss = EV_NONE};
    MUST(ev_graph_new(&st.g, 7, 0));
    ev_tensor x = parameter(st.g, "x", DIMS(3), 0, 1), y = parameter(st.g, "y", DIMS(3), 0, 1);
    memcpy(ev_graph_values(st.g, x, NULL), (float[]){1, 2, 3}, 12);
    memcpy(ev_graph_values(st.g, y, NULL), (float[]){1, 3, 2}, 12);
    ev_tensor sum = apply(st.g, "sum", IN(apply(st.g, zips[z], IN(x, y), NO_ATTRS)), ATTRS(-1));
    MUST(ev_plan_new(&st.p, st.g, NULL, 0, sum));
    MUST(ev_plan_run(st.p, true, 0, NULL));
    float gx[3], gy[3];
    MUST(ev_plan_gradient(st.p, x, gx));
    MUST(ev_plan_gradient(st.p, y, gy));
    assert_true(gx[0] == 0.5f && gy[0] == 0.5f && gx[1] == (z == 5) && gy[1] == (z == 4) && gx[2] == (z == 4) && gy[2] == (z == 5));
    stage_close(&st);
  }
}

/* ---- Large ones: sums in blocks, shared out, in planes ------------------------------------------------------------*/
static const struct pair_case large[] = {
    {{2, {3000, 40}, 0}, {1, {40}, 0}, {2, {3000, 40}, 0}},             /* a row: blocks of rows */
    {{2, {3000, 40}, 0}, {0, {0}, 0}, {2, {3000, 40}, 0}},              /* one number: blocks of elements */
    {{2, {3000, 40}, 0}, {2, {3000, 1}, 0}, {2, {3000, 40}, 0}},        /* a column */
    {{2, {20, 6000}, 0}, {1, {6000}, 0}, {2, {20, 6000}, 0}},           /* a wide row: shared out by column */
    {{3, {50, 40, 60}, 0}, {3, {50, 1, 60}, 0}, {3, {50, 40, 60}, 0}},  /* the middle */
    {{3, {50, 40, 60}, 0}, {2, {40, 1}, 0}, {3, {50, 40, 60}, 0}},      /* first and last: blocks of planes */
    {{3, {30, 100, 60}, 0}, {3, {1, 100, 60}, 0}, {3, {30, 100, 60}, 0}},
    {{4, {6, 50, 9, 40}, 0}, {4, {1, 50, 1, 40}, 0}, {4, {6, 50, 9, 40}, 0}},
    {{4, {90, 5, 9, 40}, 0}, {4, {1, 5, 1, 40}, 0}, {4, {90, 5, 9, 40}, 0}},
    {{2, {3, 50000}, 0}, {2, {3, 1}, 0}, {2, {3, 50000}, 0}},           /* few long rows */
    {{2, {5, 1}, 0}, {1, {60000}, 0}, {2, {5, 60000}, 0}},
};

static ev_tensor large_scene(ev_graph *g) { return apply(g, zip_now, IN(parameter(g, "x", pair_now->x, 0.5, 2.5), parameter(g, "y", pair_now->y, 0.5, 2.5)), NO_ATTRS); }

static void large_sums_agree_with_double(void **s) {
  (void)s;
  for (size_t k = 0; k < sizeof large / sizeof *large; k++) {
    pair_now = &large[k];
    for (int also = 0; also < 2; also++) {
      zip_now = also ? "div" : "sub";
      stage st = stage_open(large_scene, also);
      stage_run(&st);
      ev_tensor in[2] = {ev_graph_find(st.g, "x"), ev_graph_find(st.g, "y")};
      const ev_shape *full = &pair_now->out;
      for (unsigned side = 0; side < 2; side++) {
        const ev_shape *target = side ? &pair_now->y : &pair_now->x;
        size_t n = elements(target);
        float *gradient = malloc((n + 1) * sizeof *gradient);
        double *sum = calloc(n + 1, sizeof *sum), *size = calloc(n + 1, sizeof *size);
        assert_true(gradient != NULL && sum != NULL && size != NULL);
        MUST(ev_plan_gradient(st.p, in[side], gradient));
        const float *w = ev_plan_value(st.p, st.weights[0], NULL), *x = ev_graph_values(st.g, in[0], NULL), *y = ev_graph_values(st.g, in[1], NULL);
        for (size_t i = 0; i < elements(full); i++) {
          double a = x[source(&pair_now->x, full, i)], b = y[source(&pair_now->y, full, i)], d = !also ? (side ? -1 : 1) : side ? -a / (b * b) : 1 / b;
          size_t at = source(target, full, i);
          sum[at] += d * w[i], size[at] += fabs(d * w[i]);
        }
        if (also) /* the inputs stand in the loss themselves */
          for (size_t i = 0; i < n; i++) sum[i] += ev_plan_value(st.p, st.weights[1 + side], NULL)[i], size[i] += 1.7;
        for (size_t i = 0; i < n; i++)
          if (!(fabs(gradient[i] - sum[i]) <= 1e-6 * size[i])) fail_msg("shapes %zu, side %u: gradient %zu is %.9g, not %.9g", k, side, i, (double)gradient[i], sum[i]);
        free(gradient);
        free(sum);
        free(size);
      }
      stage_close(&st);
    }
  }
}

static void pairs_give_the_same_bits_for_any_threads(void **s) {
  (void)s;
  for (size_t k = 0; k < sizeof large / sizeof *large; k++)
    for (size_t z = 2; z < 4; z++) {
      pair_now = &large[k];
      zip_now = zips[z];
      check_threads(zip_now, large_scene);
    }
}

/* ---- What is refused ------------------------------------------------------------------------------------------------*/
static void what_does_not_fit_is_refused(void **s) {
  (void)s;
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  unsigned one = new_axis(g, 6, 6), two = new_axis(g, 6, 6);
  uint32_t ids[6] = {0};
  ev_tensor a = input(g, "a", DIMS(3, 4), 0, 1), b = input(g, "b", DIMS(3, 5), 0, 1), i = input_ids(g, "i", DIMS(6), ids);
  ev_tensor p = input(g, "p", DIMS_LIVE(one, 6, 4), 0, 1), q = input(g, "q", DIMS_LIVE(two, 6, 4), 0, 1), r = input(g, "r", DIMS(6, 4), 0, 1), v = input(g, "v", DIMS_LIVE(one, 6), 0, 1);
  ev_graph_at(g, "scheme.lua:12");
  refused(g, "add", IN(a, b), NO_ATTRS, SAYS("scheme.lua:12: ", "add (3, 4) x (3, 5)", "sizes 4 and 5 at dimension 1"));
  refused(g, "mul", IN(p, q), NO_ATTRS, SAYS("mul (6, 4) x (6, 4)", "count different things"));
  refused(g, "mul", IN(r, p), NO_ATTRS, SAYS("count different things"));
  refused(g, "sub", IN(r, v), NO_ATTRS, SAYS("must be the first dimension"));
  refused(g, "exp", IN(i), NO_ATTRS, SAYS("exp (6)", "must be numbers, not ids"));
  refused(g, "max", IN(a, i), NO_ATTRS, SAYS("input 2 must be numbers, not ids"));
  refused(g, "clip", IN(a), ATTRS(2, 1), SAYS("nothing lies between 2 and 1"));
  refused(g, "clip", IN(a), ATTRS(2), SAYS("clip"));
  refused(g, "add", IN(a), NO_ATTRS, SAYS("add"));
  ev_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(maps_are_what_they_say),
      cmocka_unit_test(gradients_of_maps),
      cmocka_unit_test(maps_give_the_same_bits_for_any_threads),
      cmocka_unit_test(pairs_of_all_shapes),
      cmocka_unit_test(pairs_along_an_axis),
      cmocka_unit_test(equals_share_a_maximum),
      cmocka_unit_test(large_sums_agree_with_double),
      cmocka_unit_test(pairs_give_the_same_bits_for_any_threads),
      cmocka_unit_test(what_does_not_fit_is_refused),
  };
  return RUN(tests);
}
