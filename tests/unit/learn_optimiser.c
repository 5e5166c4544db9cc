/* Optimisers against their papers' formulas in double, dense and lazy; clipping, checkpoints. */
#include "gradients.h"

#define ROWS 6
#define DIM 5
#define STEPS 7

typedef struct model {
  ev_graph *g;
  ev_plan *p;
  ev_optimiser *o;
  ev_tensor w;
  bool lazy;
} model;

/* Lazy: Σ (w[ids] · c)²; dense: the same of w as a whole. Each row's gradient is 2 (w · c) c, counted as often as it is named. */
static const uint32_t named[] = {4, 0, 4, 4, EV_NONE, 2};
static model open_model(const ev_optimiser_options *options, bool lazy) {
  model m = {.lazy = lazy};
  MUST(ev_graph_new(&m.g, 1, 0));
  m.w = parameter(m.g, "w", DIMS(ROWS, DIM), -1, 1);
  ev_tensor rows = lazy ? apply(m.g, "gather", IN(m.w, input_ids(m.g, "ids", DIMS(6), named)), NO_ATTRS) : apply(m.g, "scale", IN(m.w), ATTRS(1, 0));
  ev_tensor c = input(m.g, "c", DIMS(DIM, 1), -0.5, 1), y = apply(m.g, "matmul", IN(rows, c), ATTRS(0, 0));
  MUST(ev_plan_new(&m.p, m.g, NULL, 0, apply(m.g, "sum", IN(apply(m.g, "square", IN(y), NO_ATTRS)), ATTRS(-1))));
  MUST(ev_optimiser_new(&m.o, m.p, options));
  return m;
}

static void close_model(model *m) {
  ev_optimiser_free(m->o);
  ev_plan_free(m->p);
  ev_graph_free(m->g);
}

static void take_steps(model *m, int n) {
  for (int i = 0; i < n; i++) {
    MUST(ev_plan_run(m->p, true, (uint64_t)i, NULL));
    MUST(ev_optimiser_step(m->o, 0.05f / (float)(1 + i)));
  }
}

/* The formulas, an element at a time, in double. */
static void expect(double *w, const float *c, const ev_optimiser_options *o, bool lazy) {
  double m[ROWS * DIM] = {0}, v[ROWS * DIM] = {0};
  for (int step = 1; step <= STEPS; step++) {
    double rate = (double)(0.05f / (float)step), g[ROWS * DIM], norm = 0;
    int times[ROWS] = {0};
    for (int k = 0; k < 6; k++)
      if (named[k] != EV_NONE) times[named[k]]++;
    for (int r = 0; r < ROWS; r++) {
      double y = 0;
      if (!lazy) times[r] = 1;
      for (int k = 0; k < DIM; k++) y += w[r * DIM + k] * c[k];
      for (int k = 0; k < DIM; k++) g[r * DIM + k] = times[r] * 2 * y * c[k];
    }
    for (int i = 0; i < ROWS * DIM; i++) norm += g[i] * g[i];
    norm = sqrt(norm);
    for (int i = 0; i < ROWS * DIM; i++) {
      if (times[i / DIM] == 0) continue;
      double x = g[i] * (o->clip_norm > 0 && norm > o->clip_norm ? o->clip_norm / norm : 1);
      if (o->kind != EV_ADAMW) x += o->weight_decay * w[i];
      switch (o->kind) {
        case EV_SGD: w[i] -= rate * x; break;
        case EV_MOMENTUM: m[i] = o->momentum * m[i] + x, w[i] -= rate * m[i]; break;
        case EV_ADAGRAD: v[i] += x * x, w[i] -= rate * x / (sqrt(v[i]) + o->epsilon); break;
        case EV_ADAM:
        case EV_ADAMW:
          m[i] = o->beta1 * m[i] + (1 - o->beta1) * x;
          v[i] = o->beta2 * v[i] + (1 - o->beta2) * x * x;
          if (o->kind == EV_ADAMW) w[i] -= rate * o->weight_decay * w[i];
          w[i] -= rate * (m[i] / (1 - pow(o->beta1, step))) / (sqrt(v[i] / (1 - pow(o->beta2, step))) + o->epsilon);
      }
    }
  }
}

static void every_rule_follows_its_formula(void **state) {
  (void)state;
  static const char *const names[] = {"sgd", "momentum", "adagrad", "adam", "adamw"};
  for (int kind = 0; kind < 5; kind++)
    for (int lazy = 0; lazy < 2; lazy++)
      for (int extras = 0; extras < 2; extras++) {
        ev_optimiser_options o;
        ev_optimiser_defaults(&o, (ev_optimiser_kind)kind);
        if (extras) o.weight_decay = 0.3f, o.clip_norm = 0.4f;
        model m = open_model(&o, lazy);
        double w[ROWS * DIM];
        const float *value = ev_graph_values(m.g, m.w, NULL), *c = ev_graph_values(m.g, ev_graph_find(m.g, "c"), NULL);
        for (int i = 0; i < ROWS * DIM; i++) w[i] = value[i];
        expect(w, c, &o, lazy);
        take_steps(&m, STEPS);
        for (int i = 0; i < ROWS * DIM; i++)
          if (!(fabs(value[i] - w[i]) <= 3e-6)) fail_msg("%s, %s, extras %d: w[%d] is %.8g, not %.8g", names[kind], lazy ? "lazy" : "dense", extras, i, (double)value[i], w[i]);
        if (extras) assert_true(ev_optimiser_norm(m.o) > 0);
        close_model(&m);
      }
}

/* A quarter of the rate for the parameter is a quarter of the optimiser's, whatever the rule. */
static void a_parameter_has_a_rate_of_its_own(void **state) {
  (void)state;
  for (int kind = 0; kind < 5; kind++)
    for (int lazy = 0; lazy < 2; lazy++) {
      ev_optimiser_options o;
      ev_optimiser_defaults(&o, (ev_optimiser_kind)kind);
      o.weight_decay = 0.3f;
      model a = open_model(&o, lazy), b = open_model(&o, lazy);
      ev_optimiser_free(b.o);
      MUST(ev_graph_parameter_rate(b.g, b.w, 0.25f));
      MUST(ev_optimiser_new(&b.o, b.p, &o)); /* a rate is read when the optimiser is made */
      memcpy(ev_graph_values(b.g, ev_graph_find(b.g, "c"), NULL), ev_graph_values(a.g, ev_graph_find(a.g, "c"), NULL), DIM * sizeof(float));
      memcpy(ev_graph_values(b.g, b.w, NULL), ev_graph_values(a.g, a.w, NULL), ROWS * DIM * sizeof(float));
      for (int i = 0; i < STEPS; i++) {
        MUST(ev_plan_run(a.p, true, (uint64_t)i, NULL));
        MUST(ev_plan_run(b.p, true, (uint64_t)i, NULL));
        MUST(ev_optimiser_step(a.o, 0.05f / (float)(1 + i) * 0.25f));
        MUST(ev_optimiser_step(b.o, 0.05f / (float)(1 + i)));
      }
      const float *x = ev_graph_values(a.g, a.w, NULL), *y = ev_graph_values(b.g, b.w, NULL);
      for (int i = 0; i < ROWS * DIM; i++) assert_true(fabs(x[i] - y[i]) <= 1e-7);
      assert_int_equal(ev_graph_parameter_rate(b.g, b.w, -1), EV_EINVAL);
      assert_int_equal(ev_graph_parameter_rate(b.g, b.w, NAN), EV_EINVAL);
      assert_int_equal(ev_graph_parameter_rate(b.g, ev_graph_find(b.g, "c"), 1), EV_EINVAL);
      assert_int_equal(ev_graph_parameter_rate(b.g, 100000, 1), EV_EINVAL);
      close_model(&a);
      close_model(&b);
    }
}

static void lazy_and_dense_agree_where_every_row_is_touched_once(void **state) {
  (void)state;
  ev_optimiser_options o;
  ev_optimiser_defaults(&o, EV_ADAM);
  model a = open_model(&o, true), b = open_model(&o, false);
  uint32_t *ids = ev_graph_ids(a.g, ev_graph_find(a.g, "ids"), NULL);
  for (uint32_t i = 0; i < ROWS; i++) ids[i] = (i * 5 + 3) % ROWS;
  memcpy(ev_graph_values(b.g, ev_graph_find(b.g, "c"), NULL), ev_graph_values(a.g, ev_graph_find(a.g, "c"), NULL), DIM * sizeof(float));
  take_steps(&a, STEPS);
  take_steps(&b, STEPS);
  const float *x = ev_graph_values(a.g, a.w, NULL), *y = ev_graph_values(b.g, b.w, NULL);
  for (int i = 0; i < ROWS * DIM; i++) assert_true(fabs(x[i] - y[i]) <= 1e-6);
  close_model(&a);
  close_model(&b);
}

static void a_checkpoint_goes_on_bit_for_bit(void **state) {
  (void)state;
  for (int kind = 0; kind < 5; kind++) {
    ev_optimiser_options o;
    ev_optimiser_defaults(&o, (ev_optimiser_kind)kind);
    model m = open_model(&o, kind % 2 == 0), n = open_model(&o, kind % 2 == 0);
    take_steps(&m, 3);
    MUST(ev_optimiser_save(m.o, in_folder("checkpoint")));
    MUST(ev_optimiser_load(n.o, in_folder("checkpoint")));
    assert_int_equal(ev_optimiser_steps(n.o), 3);
    take_steps(&m, 4);
    take_steps(&n, 4);
    assert_memory_equal(ev_graph_values(m.g, m.w, NULL), ev_graph_values(n.g, n.w, NULL), ROWS * DIM * sizeof(float));
    close_model(&m);
    close_model(&n);
  }
}

static void another_graphs_checkpoint_is_refused_and_changes_nothing(void **state) {
  (void)state;
  ev_optimiser_options adam, sgd;
  ev_optimiser_defaults(&adam, EV_ADAM);
  ev_optimiser_defaults(&sgd, EV_SGD);
  model m = open_model(&adam, true), n = open_model(&sgd, true);
  MUST(ev_optimiser_save(m.o, in_folder("adam")));
  float before[ROWS * DIM];
  memcpy(before, ev_graph_values(n.g, n.w, NULL), sizeof before);
  assert_int_equal(ev_optimiser_load(n.o, in_folder("adam")), EV_EINVAL);
  ev_graph *g;
  ev_plan *p;
  ev_optimiser *o;
  MUST(ev_graph_new(&g, 1, 0));
  ev_tensor first = parameter(g, "a", DIMS(2), -1, 1), w = parameter(g, "w", DIMS(ROWS, DIM + 1), -1, 1);
  ev_tensor loss = apply(g, "add", IN(apply(g, "sum", IN(w), ATTRS(-1)), apply(g, "sum", IN(first), ATTRS(-1))), NO_ATTRS);
  MUST(ev_plan_new(&p, g, NULL, 0, loss));
  MUST(ev_optimiser_new(&o, p, &adam));
  assert_int_equal(ev_optimiser_load(o, in_folder("adam")), EV_EINVAL);
  assert_int_equal(ev_optimiser_load(o, in_folder("nothing")), EV_ENOTFOUND);
  assert_memory_equal(before, ev_graph_values(n.g, n.w, NULL), sizeof before);
  ev_optimiser_free(o);
  ev_plan_free(p);
  ev_graph_free(g);
  close_model(&m);
  close_model(&n);
}

static void options_out_of_range_are_refused(void **state) {
  (void)state;
  ev_optimiser_options good, bad;
  ev_optimiser_defaults(&good, EV_ADAM);
  model m = open_model(&good, false);
  ev_optimiser *o;
  bad = good, bad.beta2 = 1;
  assert_int_equal(ev_optimiser_new(&o, m.p, &bad), EV_EINVAL);
  bad = good, bad.weight_decay = NAN;
  assert_int_equal(ev_optimiser_new(&o, m.p, &bad), EV_EINVAL);
  assert_null(o);
  assert_int_equal(ev_optimiser_step(m.o, NAN), EV_EINVAL);
  assert_int_equal(ev_optimiser_step(m.o, -1), EV_EINVAL);
  close_model(&m);
}

/* A large table and a large dense matrix: the same bits with any number of threads, clipping included. */
static uint64_t trained_with(int threads) {
  ev_threads_set(threads);
  ev_graph *g;
  ev_plan *p;
  ev_optimiser *o;
  ev_optimiser_options options;
  ev_optimiser_defaults(&options, EV_ADAMW);
  options.clip_norm = 0.5f;
  options.weight_decay = 0.1f;
  MUST(ev_graph_new(&g, 3, 0));
  ev_shape table = DIMS(5000, 32), square = DIMS(32, 2000);
  ev_tensor t, w, ids;
  MUST(ev_graph_parameter(g, &t, "table", &table, EV_INIT_NORMAL, 1, 1));
  MUST(ev_graph_parameter(g, &w, "w", &square, EV_INIT_XAVIER, 1, 1));
  ev_shape many = DIMS(3000);
  MUST(ev_graph_input_ids(g, &ids, "ids", &many));
  ev_rng r;
  ev_rng_seed(&r, 5, 0);
  for (size_t i = 0; i < 3000; i++) ev_graph_ids(g, ids, NULL)[i] = ev_rng_below(&r, 800);
  ev_tensor y = apply(g, "tanh", IN(apply(g, "matmul", IN(apply(g, "gather", IN(t, ids), NO_ATTRS), w), ATTRS(0, 0))), NO_ATTRS);
  MUST(ev_plan_new(&p, g, NULL, 0, apply(g, "mean", IN(apply(g, "square", IN(y), NO_ATTRS)), ATTRS(-1))));
  MUST(ev_optimiser_new(&o, p, &options));
  for (uint64_t step = 0; step < 3; step++) {
    MUST(ev_plan_run(p, true, step, NULL));
    MUST(ev_optimiser_step(o, 0.01f));
  }
  uint64_t sum = ev_checksum(ev_graph_values(g, t, NULL), 5000 * 32 * sizeof(float)) ^ ev_checksum(ev_graph_values(g, w, NULL), 32 * 2000 * sizeof(float));
  ev_optimiser_free(o);
  ev_plan_free(p);
  ev_graph_free(g);
  ev_threads_set(0);
  return sum;
}

static void the_number_of_threads_changes_no_bit(void **state) {
  (void)state;
  uint64_t one = trained_with(1);
  assert_true(trained_with(2) == one);
  assert_true(trained_with(5) == one);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_rule_follows_its_formula),
      cmocka_unit_test(a_parameter_has_a_rate_of_its_own),
      cmocka_unit_test(lazy_and_dense_agree_where_every_row_is_touched_once),
      cmocka_unit_test(a_checkpoint_goes_on_bit_for_bit),
      cmocka_unit_test(another_graphs_checkpoint_is_refused_and_changes_nothing),
      cmocka_unit_test(options_out_of_range_are_refused),
      cmocka_unit_test(the_number_of_threads_changes_no_bit),
  };
  return RUN(tests);
}
