/* pointwise.c - operators of one and of two tensors, element by element. graph.h lists them, math.h has the functions. */
#include "broadcast.h"

/* ---- One tensor --------------------------------------------------------------------------------------------*/
static const ev_map_kind maps[] = {EV_MAP_NEG,  EV_MAP_EXP,  EV_MAP_LOG,     EV_MAP_SQRT, EV_MAP_SQUARE,   EV_MAP_ABS,  EV_MAP_RELU, EV_MAP_GELU,
                                   EV_MAP_SILU, EV_MAP_SIGMOID, EV_MAP_TANH, EV_MAP_SOFTPLUS, EV_MAP_CLIP, EV_MAP_POWER, EV_MAP_AFFINE};
static const ev_zip_kind zips[] = {EV_ZIP_ADD, EV_ZIP_SUB, EV_ZIP_MUL, EV_ZIP_DIV, EV_ZIP_MAX, EV_ZIP_MIN};
#define N_MAPS (sizeof maps / sizeof *maps)

static size_t place_of(const ev_node *n) { return (size_t)(n->op - ev_ops_pointwise); }

typedef struct map_job {
  ev_map_kind f;
  float a, b;
  float *out;
  const float *x, *g; /* x: or u, backward */
  bool add;
} map_job;

static void find_map(map_job *j, const ev_node *n) {
  j->f = maps[place_of(n)];
  j->a = (float)n->attr[0];
  j->b = (float)n->attr[1];
  if (j->f != EV_MAP_POWER) return;
  if (j->a == 2) j->f = EV_MAP_SQUARE; /* the powers that have a function of their own */
  if (j->a == -1) j->f = EV_MAP_RECIPROCAL;
  if (j->a == 1) j->f = EV_MAP_AFFINE;
}

static void map_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const map_job *j = ctx;
  if (j->g == NULL) ev_map_apply(j->out + begin, j->x + begin, j->f, j->a, j->b, end - begin);
  else ev_map_back(j->out + begin, j->g + begin, j->x + begin, j->f, j->a, j->b, j->add, end - begin);
}

static ev_status map_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  n->shape = ev_op_in(g, n, 0)->shape;
  if (maps[place_of(n)] == EV_MAP_CLIP && !(n->attr[0] <= n->attr[1])) return ev_op_wrong(g, n, "nothing lies between %g and %g", n->attr[0], n->attr[1]);
  return EV_OK;
}

static ev_status map_forward(ev_call *c) {
  map_job j = {.out = c->out, .x = c->in[0]};
  find_map(&j, c->node);
  ev_parallel_for(ev_shape_size(&c->shape), EV_SLICE, map_part, &j);
  return EV_OK;
}

static ev_status map_backward(ev_call *c) {
  unsigned looks = c->node->op->flags;
  map_job j = {.out = c->grad_in[0], .g = c->grad, .add = c->add[0], .x = looks & EV_BACK_OUT ? c->out : looks & EV_BACK_IN ? c->in[0] : c->grad};
  if (j.out == NULL) return EV_OK;
  find_map(&j, c->node);
  ev_parallel_for(ev_shape_size(&c->shape), EV_SLICE, map_part, &j);
  return EV_OK;
}

/* ---- Two tensors -------------------------------------------------------------------------------------------*/
static ev_status zip_forward(ev_call *c) {
  ev_broadcast(c->out, &c->shape, c->in[0], &c->in_shape[0], c->in[1], &c->in_shape[1], zips[place_of(c->node) - N_MAPS], false);
  return EV_OK;
}

static ev_status zip_backward(ev_call *c) {
  bool looks = c->node->op->flags & EV_BACK_IN;
  for (unsigned side = 0; side < 2; side++)
    if (c->grad_in[side] != NULL)
      ev_broadcast_back(c->grad_in[side], &c->in_shape[side], c->add[side], c->grad, &c->shape, looks ? c->in[0] : NULL, &c->in_shape[0], looks ? c->in[1] : NULL, &c->in_shape[1],
                        zips[place_of(c->node) - N_MAPS], side, c->scratch);
  return EV_OK;
}

static size_t zip_scratch(const ev_graph *g, const ev_node *n) {
  size_t most = 0;
  for (unsigned side = 0; side < 2; side++) {
    size_t need = ev_op_in(g, n, side)->differentiable ? ev_broadcast_scratch(&ev_op_in(g, n, side)->shape, &n->shape) : 0;
    most = need > most ? need : most;
  }
  return most;
}

#define MAP_OP(name, n_attr, flags) {name, 1, 1, n_attr, n_attr, flags, map_infer, map_forward, map_backward, NULL, NULL}
#define ZIP_OP(name, flags) {name, 2, 2, 0, 0, flags, ev_broadcast_infer, zip_forward, zip_backward, NULL, zip_scratch}

/* In the order of maps[], then of zips[]. */
const ev_op ev_ops_pointwise[] = {
    MAP_OP("neg", 0, 0),
    MAP_OP("exp", 0, EV_BACK_OUT),
    MAP_OP("log", 0, EV_BACK_IN),
    MAP_OP("sqrt", 0, EV_BACK_OUT),
    MAP_OP("square", 0, EV_BACK_IN),
    MAP_OP("abs", 0, EV_BACK_IN),
    MAP_OP("relu", 0, EV_BACK_OUT),
    MAP_OP("gelu", 0, EV_BACK_IN),
    MAP_OP("silu", 0, EV_BACK_IN),
    MAP_OP("sigmoid", 0, EV_BACK_OUT),
    MAP_OP("tanh", 0, EV_BACK_OUT),
    MAP_OP("softplus", 0, EV_BACK_IN),
    MAP_OP("clip", 2, EV_BACK_IN),
    MAP_OP("pow", 1, EV_BACK_IN),
    {"scale", 1, 1, 1, 2, 0, map_infer, map_forward, map_backward, NULL, NULL},
    ZIP_OP("add", 0),
    ZIP_OP("sub", 0),
    ZIP_OP("mul", EV_BACK_IN),
    ZIP_OP("div", EV_BACK_IN),
    ZIP_OP("max", EV_BACK_IN),
    ZIP_OP("min", EV_BACK_IN),
    {.name = NULL},
};
