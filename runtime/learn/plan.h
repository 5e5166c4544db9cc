/* plan.h - a plan from inside: what the optimiser asks of it; private to this room. */
#ifndef EV_LEARN_PLAN_H
#define EV_LEARN_PLAN_H

#include "graph.h"

/* Where a node's buffers lie in the arena, in floats; SIZE_MAX: it has none. */
typedef struct ev_place {
  size_t value, grad, keep, scratch, back_scratch, twice;
  ev_tensor root; /* whose memory this is: another node's for a view */
  bool used;      /* an output needs it */
  bool flows;     /* the loss's gradient comes to it */
  bool lazy;      /* a parameter that is only gathered from */
} ev_place;

struct ev_plan {
  ev_graph *g;
  size_t n_nodes, n_ops, n_outputs;
  ev_tensor *order;   /* (n_ops) operators, in the order they are computed */
  ev_tensor *outputs; /* (n_outputs) */
  ev_tensor loss;
  ev_place *at;       /* (n_nodes) */
  bool *filled;       /* (n_nodes) backward: the gradient holds something already */
  float *arena;
  size_t n_floats;
  uint64_t reserved;  /* bytes counted against the graph's limit */
};

/* What one gather gives to the gradient of a lazy parameter: rows of grad belong to ids. */
#define EV_SHARES_MAX 32
typedef struct ev_share {
  const uint32_t *ids;
  const float *grad; /* (n, d) */
  size_t n, capacity;
} ev_share;
size_t ev_plan_shares(const ev_plan *p, ev_tensor parameter, ev_share out[EV_SHARES_MAX]); /* how many there are; at most EV_SHARES_MAX are written */
bool ev_plan_lazy(const ev_plan *p, ev_tensor parameter);
float *ev_plan_dense_gradient(const ev_plan *p, ev_tensor parameter); /* NULL: lazy, or not below the loss */

void ev_plan_live(const ev_plan *p, ev_tensor t, ev_shape *out); /* its shape with the live length */
float *ev_plan_at(const ev_plan *p, ev_tensor t);                /* its value */

#endif
