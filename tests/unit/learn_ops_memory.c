/* Operators called by themselves, with memory exactly as large as they asked for when they were recorded at full capacity,
 * and any live lengths: under a sanitizer nothing may reach beyond, and everything that is live must be set. */
#include "learn_ops.h"

static ev_rng dice;
static size_t up_to(size_t n) { return 1 + ev_rng_below(&dice, (uint32_t)n); }
static size_t often_small(size_t n) { return ev_rng_below(&dice, 3) == 0 ? up_to(n) : up_to(n < 9 ? n : 9); }

static float *room(size_t n) { /* of NaN */
  float *x = malloc(n * sizeof *x);
  assert_non_null(x);
  memset(x, 0xff, n * sizeof *x);
  return x;
}

static void all_are_numbers(const char *op, const char *what, const float *x, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!isfinite(x[i])) fail_msg("%s: element %zu of %zu of %s was not set", op, i, n, what);
}

/* y's inputs are leaves. Those that are floats all get a gradient. */
static void call(ev_graph *g, ev_tensor y) {
  const ev_node *n = &g->nodes[y];
  ev_call c = {.node = n, .shape = n->shape, .training = true, .seed = 5};
  float *grad_in[EV_OP_INPUTS] = {NULL};
  if (c.shape.axis != 0) c.shape.dim[0] = g->live[c.shape.axis];
  for (unsigned k = 0; k < n->n_in; k++) {
    const ev_node *in = ev_op_in(g, n, k);
    c.in_shape[k] = in->shape;
    if (in->shape.axis != 0) c.in_shape[k].dim[0] = g->live[in->shape.axis];
    c.in[k] = in->values, c.ids[k] = in->ids, c.sparse[k] = in->sparse, c.in_name[k] = in->name;
    if (in->values != NULL) c.grad_in[k] = grad_in[k] = room(elements(&c.in_shape[k]));
  }
  size_t size = elements(&c.shape);
  float *out = room(size), *grad = room(size), *keep = n->op->keep != NULL ? room(n->op->keep(g, n)) : NULL;
  float *scratch = n->op->scratch != NULL ? room(n->op->scratch(g, n)) : NULL;
  for (size_t i = 0; i < size; i++) grad[i] = (float)ev_rng_f64(&dice) - 0.5f;
  c.out = out, c.grad = grad, c.keep = keep, c.scratch = scratch;
  MUST(n->op->forward(&c));
  all_are_numbers(n->op->name, "the value", out, size);
  MUST(n->op->backward(&c));
  for (unsigned k = 0; k < n->n_in; k++)
    if (grad_in[k] != NULL) all_are_numbers(n->op->name, "a gradient", grad_in[k], elements(&c.in_shape[k]));
  for (unsigned k = 0; k < n->n_in; k++) free(grad_in[k]);
  free(out), free(grad), free(keep), free(scratch);
}

static ev_graph *new_graph(void) {
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, 0));
  return g;
}

static unsigned some_axis(ev_graph *g, size_t capacity) { return ev_rng_below(&dice, 3) > 0 ? new_axis(g, capacity, ev_rng_below(&dice, (uint32_t)capacity + 1)) : 0; }

static void products(void **state) {
  (void)state;
  for (int round = 0; round < 300; round++) {
    ev_graph *g = new_graph();
    unsigned kind = ev_rng_below(&dice, 3), turned = ev_rng_below(&dice, 4);
    size_t b = often_small(20), m = often_small(1500), k = often_small(1500), n = often_small(300);
    bool turn_a = turned & 1, turn_b = turned & 2;
    while (b * m * k > 400000) m = m / 2 + 1, k = k / 2 + 1;
    size_t ra = turn_a ? k : m, ca = turn_a ? m : k, rb = turn_b ? n : k, cb = turn_b ? k : n;
    unsigned axis = some_axis(g, kind == 0 ? ra : b);
    ev_tensor x = input(g, "a", kind == 0 ? DIMS_LIVE(axis, ra, ca) : DIMS_LIVE(axis, b, ra, ca), -1, 1);
    ev_tensor y = input(g, "b", kind == 1 ? DIMS_LIVE(axis, b, rb, cb) : kind == 0 && turn_a && !turn_b ? DIMS_LIVE(axis, rb, cb) : DIMS(rb, cb), -1, 1), out = EV_NONE;
    if (ev_graph_op(g, &out, "matmul", (ev_tensor[]){x, y}, 2, (double[]){turn_a, turn_b}, 2) == EV_OK) call(g, out); /* some axes do not go together */
    ev_graph_free(g);
  }
  for (int round = 0; round < 50; round++) {
    ev_graph *g = new_graph();
    size_t n = often_small(300), m = often_small(50), d = often_small(100);
    unsigned axis = some_axis(g, n);
    ev_tensor a = input(g, "a", DIMS_LIVE(axis, n, d), -1, 1), b = input(g, "b", round % 2 ? DIMS_LIVE(axis, n, d) : DIMS_LIVE(axis, n, m, d), -1, 1);
    call(g, apply(g, "dot", IN(a, b), NO_ATTRS));
    ev_graph_free(g);
  }
}

static void layouts(void **state) {
  (void)state;
  for (int round = 0; round < 100; round++) {
    ev_graph *g = new_graph();
    size_t d[4] = {often_small(60), often_small(40), often_small(20), often_small(20)};
    unsigned axis = some_axis(g, d[0]), i = 1 + ev_rng_below(&dice, 3), j = 1 + ev_rng_below(&dice, 3);
    ev_shape s = DIMS_LIVE(axis, d[0], d[1], d[2], d[3]), other = s;
    other.dim[i] = often_small(30);
    ev_tensor x = input(g, "x", s, -1, 1), y = input(g, "y", other, -1, 1), low = (ev_tensor)ev_rng_below(&dice, (uint32_t)d[i]);
    call(g, apply(g, "transpose", IN(x), ATTRS(i, j)));
    call(g, apply(g, "concat", IN(x, y, x), ATTRS(i)));
    call(g, apply(g, "slice", IN(x), ATTRS(i, low, low + up_to(d[i] - low))));
    ev_graph_free(g);
  }
}

static void gathers(void **state) {
  (void)state;
  for (int round = 0; round < 100; round++) {
    ev_graph *g = new_graph();
    size_t rows = often_small(3000), d = often_small(70), n = often_small(3000);
    unsigned by = some_axis(g, n);
    ev_shape s = DIMS_LIVE(by, n), whole = DIMS(rows, d);
    ev_tensor table = input(g, "table", whole, -1, 1), matrix = input(g, "matrix", DIMS_LIVE(by, n, rows < 50 ? rows : 50), -1, 1), ids = EV_NONE, columns = EV_NONE;
    MUST(ev_graph_input_ids(g, &ids, "ids", &s));
    MUST(ev_graph_input_ids(g, &columns, "columns", &s));
    for (size_t i = 0; i < n; i++) {
      ev_graph_ids(g, ids, NULL)[i] = ev_rng_below(&dice, 10) == 0 ? EV_NONE : ev_rng_below(&dice, (uint32_t)rows);
      ev_graph_ids(g, columns, NULL)[i] = ev_rng_below(&dice, 10) == 0 ? EV_NONE : ev_rng_below(&dice, (uint32_t)(rows < 50 ? rows : 50));
    }
    call(g, apply(g, "gather", IN(table, ids), NO_ATTRS));
    call(g, apply(g, "pick", IN(matrix, columns), NO_ATTRS));
    ev_graph_free(g);
  }
}

static void sequences(void **state) {
  (void)state;
  for (int round = 0; round < 100; round++) {
    ev_graph *g = new_graph();
    size_t n = often_small(30), rows = 0, spare = ev_rng_below(&dice, 3) * 40, heads = up_to(3), width = heads * often_small(40), taps = up_to(5), out = often_small(70);
    uint32_t lengths[31];
    for (size_t i = 0; i < n; i++) rows += lengths[i] = ev_rng_below(&dice, 4) == 0 ? 0 : (uint32_t)often_small(150);
    lengths[n] = 9;
    if (rows + spare == 0) spare = 1;
    unsigned t = new_axis(g, rows + spare, rows), b = new_axis(g, n + 1, n);
    ev_shape s = DIMS_LIVE(b, n + 1);
    ev_tensor x = input(g, "x", DIMS_LIVE(t, rows + spare, width), -1, 1), k = input(g, "k", DIMS_LIVE(t, rows + spare, width), -1, 1), at = EV_NONE;
    ev_tensor w = input(g, "w", DIMS(taps, width, out), -1, 1), bias = input(g, "bias", DIMS(out), -1, 1);
    ev_tensor in = input(g, "in", DIMS(width, 3 * out), -0.3, 0.3), u = input(g, "u", DIMS(out, 3 * out), -0.3, 0.3), gates = input(g, "gates", DIMS(3 * out), -1, 1);
    MUST(ev_graph_input_ids(g, &at, "lengths", &s));
    memcpy(ev_graph_ids(g, at, NULL), lengths, (n + 1) * sizeof *lengths);
    call(g, apply(g, "attention", IN(x, k, x, at), ATTRS((double)heads, round % 2)));
    call(g, apply(g, "conv1d", IN(x, w, bias, at), NO_ATTRS));
    call(g, apply(g, "gru", IN(x, in, u, gates, at), NO_ATTRS));
    ev_graph_free(g);
  }
}

static int seed(void **state) {
  ev_rng_seed(&dice, 20, 0);
  return make_folder(state);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(layouts), cmocka_unit_test(gathers), cmocka_unit_test(sequences)};
  return cmocka_run_group_tests(tests, seed, remove_folder);
}
