/* gradients.h - what the tests of operators share: small graphs, their values, and their gradients against differences.
 *
 * A scene records a small graph from parameters and inputs and returns its last tensor y. check_gradients gives it the
 * loss Σ w y with fixed numbers w and compares the gradient of every element of every parameter with
 *   (8 (L(p + h) − L(p − h)) − (L(p + 2h) − L(p − 2h))) / 12h,
 * whose error is of the order of h⁴, so that h can be large enough for float32; L is summed in double, outside the graph.
 * It does so twice: once the operator that gave y is the only one to give gradients to its inputs, and once it is not the
 * first: the inputs stand in the loss as well, and it must add to what is there. Before the run that is judged, another
 * with other numbers leaves its own in all memory. */
#ifndef TESTS_GRADIENTS_H
#define TESTS_GRADIENTS_H

#include <math.h>

#include "learn/graph.h"
#include "learn/learn.h"
#include "support.h"

#define DIMS(...) ((ev_shape){.rank = sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t), .dim = {__VA_ARGS__}})
#define DIMS_LIVE(a, ...) ((ev_shape){.rank = sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t), .dim = {__VA_ARGS__}, .axis = (a)})
#define IN(...) sizeof((ev_tensor[]){__VA_ARGS__}) / sizeof(ev_tensor), (ev_tensor[]){__VA_ARGS__}
#define ATTRS(...) sizeof((double[]){__VA_ARGS__}) / sizeof(double), (double[]){__VA_ARGS__}
#define NO_ATTRS 0, NULL
#define MUST(call)                                                                                              \
  do {                                                                                                          \
    ev_status must_ = (call);                                                                                   \
    if (must_ != EV_OK) fail_msg("%s: %s: %s", #call, ev_status_name(must_), ev_error());                       \
  } while (0)

typedef ev_tensor scene(ev_graph *g);

/* n numbers evenly apart in [low, high), shuffled: none twice, and none at the middle of the range, where many functions bend. */
__attribute__((unused)) static void spread(float *x, size_t n, double low, double high, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  for (size_t i = 0; i < n; i++) x[i] = (float)(low + (high - low) * ((double)i + 0.25) / (double)n);
  for (size_t i = n; i > 1; i--) {
    size_t j = ev_rng_below(&r, (uint32_t)i);
    float t = x[j];
    x[j] = x[i - 1], x[i - 1] = t;
  }
}

__attribute__((unused)) static ev_tensor parameter(ev_graph *g, const char *name, ev_shape shape, double low, double high) {
  ev_tensor t = EV_NONE;
  size_t n;
  MUST(ev_graph_parameter(g, &t, name, &shape, EV_INIT_ZEROS, 0, 1));
  float *x = ev_graph_values(g, t, &n);
  spread(x, n, low, high, 100 + t);
  return t;
}

__attribute__((unused)) static ev_tensor input(ev_graph *g, const char *name, ev_shape shape, double low, double high) {
  ev_tensor t = EV_NONE;
  size_t n;
  MUST(ev_graph_input(g, &t, name, &shape));
  float *x = ev_graph_values(g, t, &n);
  spread(x, n, low, high, 200 + t);
  return t;
}

__attribute__((unused)) static ev_tensor input_ids(ev_graph *g, const char *name, ev_shape shape, const uint32_t *ids) {
  ev_tensor t = EV_NONE;
  size_t n;
  MUST(ev_graph_input_ids(g, &t, name, &shape));
  uint32_t *to = ev_graph_ids(g, t, &n);
  memcpy(to, ids, n * sizeof *ids);
  return t;
}

__attribute__((unused)) static unsigned new_axis(ev_graph *g, size_t capacity, size_t live) {
  unsigned axis = 0;
  MUST(ev_graph_axis(g, &axis, capacity));
  MUST(ev_graph_set_live(g, axis, live));
  return axis;
}

/* apply(g, "clip", IN(x), ATTRS(-1, 1)) */
__attribute__((unused)) static ev_tensor apply(ev_graph *g, const char *op, size_t n_in, const ev_tensor *in, size_t n_attr, const double *attr) {
  ev_tensor t = EV_NONE;
  MUST(ev_graph_op(g, &t, op, in, n_in, attr, n_attr));
  return t;
}

/* That the operator is refused, with a message that has all of these words in it. */
__attribute__((unused)) static void refused(ev_graph *g, const char *op, size_t n_in, const ev_tensor *in, size_t n_attr, const double *attr, const char *const *words, size_t n_words) {
  ev_tensor t = EV_NONE;
  size_t before = ev_graph_size(g);
  ev_status status = ev_graph_op(g, &t, op, in, n_in, attr, n_attr);
  if (status != EV_EINVAL) fail_msg("%s was not refused (%s)", op, ev_status_name(status));
  for (size_t i = 0; i < n_words; i++)
    if (strstr(ev_error(), words[i]) == NULL) fail_msg("%s: the message \"%s\" does not say \"%s\"", op, ev_error(), words[i]);
  assert_int_equal(ev_graph_size(g), before);
}
#define SAYS(...) (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

/* ---- A scene on its stage: y, a weighted sum of y and of what else is watched ----------------------------------*/
#define MOST_WATCHED (1 + EV_OP_INPUTS)
typedef struct stage {
  ev_graph *g;
  ev_plan *p;
  ev_tensor watched[MOST_WATCHED], weights[MOST_WATCHED], loss; /* y first */
  size_t n;
} stage;

static void watch(stage *s, ev_tensor t) {
  char name[16];
  snprintf(name, sizeof name, "w%u", (unsigned)t);
  s->watched[s->n] = t;
  s->weights[s->n] = input(s->g, name, *ev_graph_shape(s->g, t), -1.3, 1.7);
  ev_tensor product = apply(s->g, "mul", IN(t, s->weights[s->n]), NO_ATTRS), sum = apply(s->g, "sum", IN(product), ATTRS(-1));
  s->loss = s->n == 0 ? sum : apply(s->g, "add", IN(s->loss, sum), NO_ATTRS);
  s->n++;
}

/* also: the inputs of the operator that gave y are part of the loss. */
__attribute__((unused)) static stage stage_open(scene *build, bool also) {
  stage s = {.loss = EV_NONE};
  MUST(ev_graph_new(&s.g, 7, 1u << 30));
  ev_tensor y = build(s.g);
  watch(&s, y);
  ev_node node = s.g->nodes[y];
  for (unsigned i = 0; also && i < node.n_in; i++) {
    bool again = !s.g->nodes[node.in[i]].differentiable;
    for (unsigned j = 0; j < i; j++) again = again || node.in[j] == node.in[i];
    if (!again) watch(&s, node.in[i]);
  }
  MUST(ev_plan_new(&s.p, s.g, s.watched, s.n, s.loss));
  return s;
}

__attribute__((unused)) static void stage_close(stage *s) {
  ev_plan_free(s->p);
  ev_graph_free(s->g);
}

/* Elements of a shape that ev_plan_value gave. */
__attribute__((unused)) static size_t elements(const ev_shape *s) {
  size_t n = 1;
  for (unsigned i = 0; i < s->rank; i++) n *= s->dim[i];
  return n;
}

/* Runs it: the loss, in double. */
__attribute__((unused)) static double stage_run(stage *s) {
  double loss = 0, in_graph = 0, size = 0;
  MUST(ev_plan_run(s->p, true, 3, &in_graph));
  for (size_t k = 0; k < s->n; k++) {
    ev_shape live, same;
    const float *y = ev_plan_value(s->p, s->watched[k], &live), *w = ev_plan_value(s->p, s->weights[k], &same);
    assert_int_equal(elements(&live), elements(&same));
    for (size_t i = 0; i < elements(&live); i++) loss += (double)y[i] * w[i], size += fabs((double)y[i] * w[i]);
  }
  if (!(fabs(loss - in_graph) <= 1e-5 * size + 1e-6)) fail_msg("the graph's loss is %g, in double %g", in_graph, loss);
  return loss;
}

/* The value of y, copied to out; its number of elements. */
__attribute__((unused)) static size_t stage_value(stage *s, float *out, size_t room) {
  ev_shape live;
  const float *y = ev_plan_value(s->p, s->watched[0], &live);
  assert_true(elements(&live) <= room);
  if (elements(&live) > 0) memcpy(out, y, elements(&live) * sizeof *out);
  return elements(&live);
}

static void disturb(stage *s) {
  for (int there = 1; there >= 0; there--) {
    for (ev_tensor t = 0; t < ev_graph_size(s->g); t++) {
      size_t n;
      float *x = s->g->nodes[t].kind == EV_NODE_INPUT || s->g->nodes[t].kind == EV_NODE_PARAMETER ? ev_graph_values(s->g, t, &n) : NULL;
      for (size_t i = 0; x != NULL && i < n; i++) {
        union { float x; uint32_t bits; } v = {x[i]};
        v.bits ^= 0x00345678; /* twice gives back what was */
        x[i] = v.x;
      }
    }
    if (there) (void)ev_plan_run(s->p, true, 2, NULL); /* it may well be no number */
  }
}

/* step 0: 0.01. tolerance 0: 3e-4, of the largest element of a parameter's gradient (and never below a tenth). */
__attribute__((unused)) static void check_gradients(const char *what, scene *build, double step, double tolerance) {
  double h = step > 0 ? step : 0.01, share = tolerance > 0 ? tolerance : 3e-4;
  for (int also = 0; also < 2; also++) {
    stage s = stage_open(build, also);
    disturb(&s);
    size_t n_parameters = 0;
    for (ev_tensor t = 0; t < ev_graph_size(s.g); t++) {
      if (s.g->nodes[t].kind != EV_NODE_PARAMETER) continue;
      n_parameters++;
      size_t n;
      float *p = ev_graph_values(s.g, t, &n), *gradient = malloc((n + 1) * sizeof *gradient);
      double *expected = malloc((n + 1) * sizeof *expected), most = 0.1;
      assert_true(gradient != NULL && expected != NULL);
      stage_run(&s);
      MUST(ev_plan_gradient(s.p, t, gradient));
      for (size_t i = 0; i < n; i++) {
        float was = p[i];
        double l[4];
        for (int k = 0; k < 4; k++) p[i] = (float)(was + (const double[]){-2, -1, 1, 2}[k] * h), l[k] = stage_run(&s);
        p[i] = was;
        expected[i] = (8 * (l[2] - l[1]) - (l[3] - l[0])) / (12 * h);
        if (fabs(expected[i]) > most) most = fabs(expected[i]);
      }
      for (size_t i = 0; i < n; i++)
        if (!(fabs(gradient[i] - expected[i]) <= share * most))
          fail_msg("%s: the gradient of %s[%zu] is %.7g, by differences %.7g (largest %.3g)%s", what, ev_graph_name(s.g, t), i, (double)gradient[i], expected[i], most,
                   also ? ", added to what was there" : "");
      free(gradient);
      free(expected);
    }
    assert_true(n_parameters > 0);
    stage_close(&s);
  }
}

/* The same bits of y and of every gradient with one, two and five threads. The scene should be large enough to be cut up. */
__attribute__((unused)) static void check_threads(const char *what, scene *build) {
  uint64_t first = 0;
  for (int run = 0; run < 3; run++) {
    ev_threads_set((const int[]){1, 2, 5}[run]);
    stage s = stage_open(build, false);
    disturb(&s);
    stage_run(&s);
    ev_shape live;
    const float *y = ev_plan_value(s.p, s.watched[0], &live);
    uint64_t sum = ev_checksum(y, elements(&live) * sizeof *y);
    for (ev_tensor t = 0; t < ev_graph_size(s.g); t++) {
      if (s.g->nodes[t].kind != EV_NODE_PARAMETER) continue;
      size_t n;
      ev_graph_values(s.g, t, &n);
      float *gradient = malloc((n + 1) * sizeof *gradient);
      assert_non_null(gradient);
      MUST(ev_plan_gradient(s.p, t, gradient));
      sum = sum * 31 + ev_checksum(gradient, n * sizeof *gradient);
      free(gradient);
    }
    if (run == 0) first = sum;
    else if (sum != first) fail_msg("%s: other bits with %d threads than with one", what, ev_threads());
    stage_close(&s);
  }
  ev_threads_set(0);
}

#endif
