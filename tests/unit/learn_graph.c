/* Graphs and plans: what is refused, how memory is shared, and files. Operators have tests of their own. */
#include "gradients.h"

/* ---- Recording -----------------------------------------------------------------------------------------*/
static ev_graph *new_graph(uint64_t max_bytes) {
  ev_graph *g;
  MUST(ev_graph_new(&g, 1, max_bytes));
  return g;
}

static void says(ev_status status, ev_status want, const char *words) {
  if (status != want) fail_msg("%s instead of %s: %s", ev_status_name(status), ev_status_name(want), ev_error());
  if (strstr(ev_error(), words) == NULL) fail_msg("the message \"%s\" does not say \"%s\"", ev_error(), words);
}

static void leaves_are_checked_and_named(void **state) {
  (void)state;
  ev_graph *g = new_graph(1 << 20);
  ev_tensor t, u;
  unsigned axis;
  ev_graph_at(g, "scheme.lua:7");
  ev_shape two = DIMS(2, 3), large = DIMS(1000, 1000), huge = DIMS(1ull << 40, 1ull << 20), bad = {.rank = 2, .dim = {4, 3}, .axis = 1};
  says(ev_graph_input(g, &t, "", &two), EV_EINVAL, "scheme.lua:7: ''");
  says(ev_graph_input(g, &t, "a name that is longer than forty bytes, as long", &two), EV_EINVAL, "1 to 40 bytes");
  MUST(ev_graph_input(g, &t, "x", &two));
  says(ev_graph_parameter(g, &u, "x", &two, EV_INIT_ZEROS, 0, 1), EV_EEXIST, "'x'");
  says(ev_graph_parameter(g, &u, "w", &large, EV_INIT_ZEROS, 0, 1), EV_ELIMIT, "scheme.lua:7: w (1000, 1000): 4.0 MB more than");
  says(ev_graph_parameter(g, &u, "w", &huge, EV_INIT_ZEROS, 0, 1), EV_ELIMIT, "too large");
  says(ev_graph_input(g, &u, "b", &bad), EV_EINVAL, "axis");
  says(ev_graph_constant(g, &u, INFINITY), EV_EINVAL, "inf");
  says(ev_graph_axis(g, &axis, 0), EV_EINVAL, "0 rows");
  MUST(ev_graph_axis(g, &axis, 4));
  MUST(ev_graph_input(g, &u, "b", &bad));
  says(ev_graph_set_live(g, axis, 5), EV_EINVAL, "5 rows on an axis of 4");
  says(ev_graph_op(g, &t, "mull", (ev_tensor[]){u, u}, 2, NULL, 0), EV_EINVAL, "no operator 'mull'");
  says(ev_graph_op(g, &t, "mul", (ev_tensor[]){u}, 1, NULL, 0), EV_EINVAL, "mul takes 2");
  says(ev_graph_op(g, &t, "mul", (ev_tensor[]){u, 99}, 2, NULL, 0), EV_EINVAL, "input 2 is no tensor");
  ev_graph_free(g);
}

static void parameters_start_as_they_should(void **state) {
  (void)state;
  ev_graph *g = new_graph(0);
  ev_shape s = DIMS(300, 200);
  ev_tensor t[5];
  const char *names[] = {"zeros", "ones", "normal", "uniform", "xavier"};
  const double std[] = {0, 0, 0.5, 0.5 / sqrt(3), 0.5 * sqrt(6.0 / 500) / sqrt(3)}, mean[] = {0, 1, 0, 0, 0};
  for (int i = 0; i < 5; i++) {
    size_t n;
    double sum = 0, squares = 0;
    MUST(ev_graph_parameter(g, &t[i], names[i], &s, (ev_init)i, 0.5f, 1));
    const float *x = ev_graph_values(g, t[i], &n);
    assert_int_equal(n, 60000);
    for (size_t k = 0; k < n; k++) sum += x[k], squares += ((double)x[k] - mean[i]) * (x[k] - mean[i]);
    assert_true(fabs(sum / 60000 - mean[i]) <= 5 * std[i] / sqrt(60000));
    assert_true(fabs(sqrt(squares / 60000) - std[i]) <= 0.015 * std[i]);
  }
  ev_graph_free(g);
}

/* ---- Plans ---------------------------------------------------------------------------------------------*/
/* A chain of `depth` layers x ← tanh(x W): its loss. */
static ev_tensor chain(ev_graph *g, size_t rows, size_t depth) {
  ev_tensor x = input(g, "x", DIMS(rows, 8), -1, 1);
  for (size_t i = 0; i < depth; i++) {
    char name[24];
    snprintf(name, sizeof name, "w%zu", i);
    x = apply(g, "tanh", IN(apply(g, "matmul", IN(x, parameter(g, name, DIMS(8, 8), -0.5, 0.6)), ATTRS(0, 0))), NO_ATTRS);
  }
  return apply(g, "mean", IN(x), ATTRS(-1));
}

static void memory_is_shared_between_what_is_never_alive_together(void **state) {
  (void)state;
  ev_graph *g = new_graph(0);
  ev_tensor loss = chain(g, 1000, 40);
  ev_plan *forward, *training;
  MUST(ev_plan_new(&forward, g, &loss, 1, EV_NONE));
  MUST(ev_plan_new(&training, g, NULL, 0, loss));
  size_t one = 1000 * 8 * sizeof(float);
  assert_true(ev_plan_bytes(forward) < 4 * one);                  /* of 80 values */
  assert_true(ev_plan_bytes(training) < (2 * 40 + 6) * one);      /* values are kept for the way back; gradients come and go */
  double a, b;
  MUST(ev_plan_run(training, true, 0, &a));
  MUST(ev_plan_run(forward, false, 0, NULL));
  b = *ev_plan_value(forward, loss, NULL);
  assert_true(a == b);
  ev_plan_free(forward);
  ev_plan_free(training);
  ev_graph_free(g);
}

static void a_run_allocates_nothing(void **state) {
  (void)state;
  ev_graph *g = new_graph(0);
  ev_tensor loss = chain(g, 200, 3);
  ev_plan *p;
  ev_optimiser *o;
  ev_optimiser_options options;
  ev_optimiser_defaults(&options, EV_ADAM);
  MUST(ev_plan_new(&p, g, NULL, 0, loss));
  MUST(ev_optimiser_new(&o, p, &options));
  for (uint64_t step = 0; step < 3; step++) {
    ev_mem_fail_at(0);
    ev_status status = ev_plan_run(p, true, step, NULL);
    if (status == EV_OK) status = ev_optimiser_step(o, 0.01f);
    ev_mem_fail_at(-1);
    if (status != EV_OK) fail_msg("step %d: %s", (int)step, ev_error());
  }
  ev_optimiser_free(o);
  ev_plan_free(p);
  ev_graph_free(g);
}

static ev_tensor thrice(ev_graph *g) { /* one tensor in every place, also through a view */
  ev_tensor x = parameter(g, "x", DIMS(3, 4), -1, 1), y = apply(g, "tanh", IN(x), NO_ATTRS), z = apply(g, "reshape", IN(y), ATTRS(4, 3));
  ev_tensor both = apply(g, "mul", IN(y, y), NO_ATTRS), joined = apply(g, "concat", IN(both, y, y), ATTRS(1));
  return apply(g, "matmul", IN(joined, apply(g, "concat", IN(z, z, z), ATTRS(0))), ATTRS(0, 0));
}

static void a_tensor_that_is_used_twice_gets_both_gradients(void **state) {
  (void)state;
  check_gradients("thrice", thrice, 0, 0);
}

static void a_limit_is_kept_and_names_what_broke_it(void **state) {
  (void)state;
  ev_graph *g = new_graph(100000);
  ev_tensor loss = chain(g, 1000, 2);
  ev_plan *p;
  says(ev_plan_new(&p, g, NULL, 0, loss), EV_ELIMIT, "matmul (1000, 8)");
  assert_null(p);
  ev_graph_free(g);
}

static void a_loss_must_be_a_number_that_depends_on_something(void **state) {
  (void)state;
  ev_graph *g = new_graph(0);
  ev_tensor x = input(g, "x", DIMS(4), -1, 1), w = parameter(g, "w", DIMS(4), -1, 1), sum = apply(g, "sum", IN(x), ATTRS(-1));
  ev_plan *p;
  says(ev_plan_new(&p, g, NULL, 0, w), EV_EINVAL, "one number");
  says(ev_plan_new(&p, g, NULL, 0, sum), EV_EINVAL, "any parameter");
  says(ev_plan_new(&p, g, NULL, 0, 77), EV_EINVAL, "no tensor");
  ev_graph_free(g);
}

static void a_loss_that_is_no_number_is_traced_to_where_it_began(void **state) {
  (void)state;
  ev_graph *g = new_graph(0);
  ev_tensor w = parameter(g, "w", DIMS(2, 3), 1, 2);
  ev_graph_at(g, "scheme.lua:31");
  ev_tensor bad = apply(g, "log", IN(w), NO_ATTRS);
  ev_graph_at(g, "scheme.lua:32");
  ev_tensor loss = apply(g, "sum", IN(bad), ATTRS(-1));
  ev_plan *p;
  MUST(ev_plan_new(&p, g, NULL, 0, loss));
  double value;
  MUST(ev_plan_run(p, true, 0, &value));
  ev_graph_values(g, w, NULL)[4] = -1;
  says(ev_plan_run(p, true, 5, &value), EV_EINVAL, "scheme.lua:31: the loss is no number at step 5: log (2, 3) gave the first");
  ev_graph_values(g, w, NULL)[4] = NAN;
  says(ev_plan_run(p, true, 6, &value), EV_EINVAL, "'w' holds");
  ev_plan_free(p);
  ev_graph_free(g);
}

static void making_survives_every_failed_allocation(void **state) {
  (void)state;
  ev_graph *g = new_graph(0);
  ev_tensor loss = chain(g, 20, 3);
  ev_plan *p;
  ev_optimiser *o;
  ev_optimiser_options options;
  ev_optimiser_defaults(&options, EV_ADAM);
  ASSERT_SURVIVES_FAULTS(ev_plan_new(&p, g, NULL, 0, loss), (void)0);
  ASSERT_SURVIVES_FAULTS(ev_optimiser_new(&o, p, &options), ev_optimiser_free(o));
  ev_plan_free(p);
  ev_graph_free(g);
}

/* ---- Files ---------------------------------------------------------------------------------------------*/
static ev_tensor small_net(ev_graph *g) {
  unsigned axis = new_axis(g, 5, 4);
  static const uint32_t ids[] = {0, 2, 6, 2, 1};
  ev_tensor rows = apply(g, "gather", IN(parameter(g, "table", DIMS(7, 3), -1, 1), input_ids(g, "ids", DIMS_LIVE(axis, 5), ids)), NO_ATTRS);
  ev_tensor half;
  MUST(ev_graph_constant(g, &half, 0.5));
  return apply(g, "relu", IN(apply(g, "matmul", IN(apply(g, "mul", IN(rows, half), NO_ATTRS), parameter(g, "w", DIMS(3, 2), -1, 1)), ATTRS(0, 0))), NO_ATTRS);
}

static void save(const char *path, const ev_graph *g, ev_tensor y) {
  ev_pack_writer *w;
  MUST(ev_pack_writer_open(&w, path, "network"));
  MUST(ev_graph_write(g, w, &y, (const char *const[]){"y"}, 1));
  MUST(ev_pack_writer_commit(w));
}

static void a_graph_comes_back_from_its_file(void **state) {
  (void)state;
  ev_graph *g = new_graph(0), *h;
  ev_tensor y = small_net(g), unused = apply(g, "sum", IN(y), ATTRS(-1));
  (void)unused; /* not below the output: left out */
  save(in_folder("net"), g, y);
  ev_pack *pack;
  MUST(ev_pack_open(&pack, in_folder("net")));
  MUST(ev_graph_read(&h, pack, 1 << 20));
  ev_pack_close(pack);
  assert_int_equal(ev_graph_size(h), ev_graph_size(g) - 1);
  ev_tensor z = ev_graph_output(h, "y");
  assert_int_equal(ev_graph_output(h, "z"), EV_NONE);
  size_t n;
  memcpy(ev_graph_ids(h, ev_graph_find(h, "ids"), &n), ev_graph_ids(g, ev_graph_find(g, "ids"), NULL), 5 * sizeof(uint32_t));
  MUST(ev_graph_set_live(h, 1, 4));
  ev_plan *p, *q;
  ev_shape a, b;
  MUST(ev_plan_new(&p, g, &y, 1, EV_NONE));
  MUST(ev_plan_new(&q, h, &z, 1, EV_NONE));
  MUST(ev_plan_run(p, false, 0, NULL));
  MUST(ev_plan_run(q, false, 0, NULL));
  const float *u = ev_plan_value(p, y, &a), *v = ev_plan_value(q, z, &b);
  assert_int_equal(elements(&a), 8);
  assert_int_equal(elements(&b), 8);
  assert_memory_equal(u, v, 8 * sizeof *u);
  ev_plan_free(p);
  ev_plan_free(q);
  ev_graph_free(g);
  ev_graph_free(h);
}

static void what_needs_a_sparse_matrix_is_not_saved(void **state) {
  (void)state;
  ev_graph *g = new_graph(0);
  ev_tensor s;
  MUST(ev_graph_sparse(g, &s, "s", 2, 2, (const uint64_t[]){0, 1, 2}, (const uint32_t[]){1, 0}, NULL));
  ev_tensor y = apply(g, "spmm", IN(s, parameter(g, "w", DIMS(2, 3), -1, 1)), ATTRS(0));
  ev_pack_writer *w;
  MUST(ev_pack_writer_open(&w, in_folder("sparse"), "network"));
  says(ev_graph_write(g, w, &y, (const char *const[]){"y"}, 1), EV_EINVAL, "sparse matrix 's'");
  ev_pack_writer_abort(w);
  ev_graph_free(g);
}

static void a_sparse_matrix_is_checked(void **state) {
  (void)state;
  ev_graph *g = new_graph(0);
  ev_tensor s;
  says(ev_graph_sparse(g, &s, "s", 2, 2, (const uint64_t[]){0, 2, 1}, (const uint32_t[]){0, 1}, NULL), EV_EINVAL, "row 1 ends before");
  says(ev_graph_sparse(g, &s, "s", 2, 2, (const uint64_t[]){0, 1, 2}, (const uint32_t[]){0, 2}, NULL), EV_EINVAL, "column 2 of 2");
  says(ev_graph_sparse(g, &s, "s", 2, 2, (const uint64_t[]){0, 1, 2}, (const uint32_t[]){0, 1}, (const float[]){1, NAN}), EV_EINVAL, "nan");
  assert_int_equal(ev_graph_size(g), 0);
  ev_graph_free(g);
}

/* Reads a pack whose node table has one number changed: refused, or a whole graph. */
static void a_damaged_graph_is_refused_or_whole(void **state) {
  (void)state;
  ev_graph *g = new_graph(0);
  save(in_folder("whole"), g, small_net(g));
  ev_pack *whole;
  MUST(ev_pack_open(&whole, in_folder("whole")));
  ev_array nodes;
  MUST(ev_pack_get(whole, "graph.nodes", EV_U64, &nodes));
  size_t refusals = 0, n = nodes.rows * nodes.cols;
  for (size_t i = 0; i < n * 3; i++) {
    ev_pack_writer *w;
    MUST(ev_pack_writer_open(&w, in_folder("damaged"), "network"));
    for (size_t k = 0; k < ev_pack_size(whole); k++) {
      ev_array a;
      const char *name = ev_pack_name(whole, k, &a);
      uint64_t changed[4096];
      if (strcmp(name, "graph.nodes") == 0) {
        assert_true(n <= 4096);
        memcpy(changed, a.data, n * sizeof *changed);
        changed[i / 3] = (const uint64_t[]){changed[i / 3] + 1, UINT64_MAX, 0}[i % 3];
        a.data = changed;
      }
      MUST(ev_pack_write(w, name, a.dtype, a.data, a.rows, a.cols));
    }
    MUST(ev_pack_writer_commit(w));
    ev_pack *p;
    ev_graph *h;
    MUST(ev_pack_open(&p, in_folder("damaged")));
    if (ev_graph_read(&h, p, 1 << 20) == EV_OK) {
      ev_tensor y = ev_graph_output(h, "y");
      ev_plan *plan;
      if (ev_plan_new(&plan, h, &y, 1, EV_NONE) == EV_OK) {
        (void)ev_plan_run(plan, false, 0, NULL);
        ev_plan_free(plan);
      }
      ev_graph_free(h);
    } else {
      refusals++;
    }
    ev_pack_close(p);
  }
  assert_true(refusals > n); /* most changes leave no graph */
  ev_pack_close(whole);
  ev_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(leaves_are_checked_and_named),
      cmocka_unit_test(parameters_start_as_they_should),
      cmocka_unit_test(memory_is_shared_between_what_is_never_alive_together),
      cmocka_unit_test(a_run_allocates_nothing),
      cmocka_unit_test(a_tensor_that_is_used_twice_gets_both_gradients),
      cmocka_unit_test(a_limit_is_kept_and_names_what_broke_it),
      cmocka_unit_test(a_loss_must_be_a_number_that_depends_on_something),
      cmocka_unit_test(a_loss_that_is_no_number_is_traced_to_where_it_began),
      cmocka_unit_test(making_survives_every_failed_allocation),
      cmocka_unit_test(a_graph_comes_back_from_its_file),
      cmocka_unit_test(what_needs_a_sparse_matrix_is_not_saved),
      cmocka_unit_test(a_sparse_matrix_is_checked),
      cmocka_unit_test(a_damaged_graph_is_refused_or_whole),
  };
  return RUN(tests);
}
