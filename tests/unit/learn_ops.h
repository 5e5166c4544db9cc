/* learn_ops.h - what the tests of operators share beside gradients.h: values without a loss, and rows along an axis that
 * depend on a parameter. */
#ifndef TESTS_LEARN_OPS_H
#define TESTS_LEARN_OPS_H

#include "gradients.h"

/* The value of y, its live elements copied to memory that the caller frees. */
__attribute__((unused)) static float *value_of(ev_graph *g, ev_tensor y, ev_shape *live) {
  ev_plan *p;
  MUST(ev_plan_new(&p, g, &y, 1, EV_NONE));
  MUST(ev_plan_run(p, false, 0, NULL));
  const float *x = ev_plan_value(p, y, live);
  float *out = malloc((elements(live) + 1) * sizeof *out);
  assert_non_null(out);
  memcpy(out, x, elements(live) * sizeof *out);
  ev_plan_free(p);
  return out;
}

/* What a run says when it must fail. */
__attribute__((unused)) static void run_says(ev_graph *g, ev_tensor y, const char *words) {
  ev_plan *p;
  MUST(ev_plan_new(&p, g, &y, 1, EV_NONE));
  ev_status status = ev_plan_run(p, false, 0, NULL);
  if (status != EV_EINVAL) fail_msg("%s instead of EV_EINVAL", ev_status_name(status));
  if (strstr(ev_error(), words) == NULL) fail_msg("the message \"%s\" does not say \"%s\"", ev_error(), words);
  ev_plan_free(p);
}

/* (capacity of the axis, d): rows of a parameter, in another order. */
__attribute__((unused)) static ev_tensor live_rows(ev_graph *g, unsigned axis, const char *name, size_t d) {
  size_t n = g->axes[axis];
  char ids_name[48];
  uint32_t *ids = malloc(n * sizeof *ids);
  assert_non_null(ids);
  for (size_t i = 0; i < n; i++) ids[i] = (uint32_t)((i * 7 + 3) % n);
  snprintf(ids_name, sizeof ids_name, "%s_rows", name);
  ev_tensor table = parameter(g, name, DIMS(n, d), -1, 1), at = input_ids(g, ids_name, DIMS_LIVE(axis, n), ids);
  free(ids);
  return apply(g, "gather", IN(table, at), NO_ATTRS);
}

/* size: the sum of the absolute values of what was added up. */
__attribute__((unused)) static void near(const char *what, size_t at, double got, double want, double size) {
  if (!(fabs(got - want) <= 1e-6 * size + 1e-7)) fail_msg("%s: element %zu is %.9g, not %.9g", what, at, got, want);
}

#endif
