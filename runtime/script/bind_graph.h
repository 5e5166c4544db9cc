/* bind_graph.h - what the bindings of nets and of their plans share. */
#ifndef EV_SCRIPT_BIND_GRAPH_H
#define EV_SCRIPT_BIND_GRAPH_H

#include "bind.h"

/* A net, shared by its handle, its tensors, axes and plans; the last one to go frees it. Of one thread. */
typedef struct ev_lnet {
  ev_graph *graph;
  size_t refs;
  uint64_t seed, n_changes; /* of inputs and axes: an optimiser's step must see what its run saw */
  unsigned n_parameters, n_batches;
  double n_numbers;         /* in them */
} ev_lnet;

ev_lnet *ev_lua_net(lua_State *L, int arg);
ev_lnet *ev_lua_net_of(lua_State *L, int arg); /* of a tensor */
void ev_lua_push_tensor_of(lua_State *L, ev_lnet *net, ev_tensor t); /* net: held by who calls */
int ev_lua_push_net(lua_State *L, ev_lnet *net); /* shares it; → 1 */
bool ev_lua_is(lua_State *L, int arg, const char *class);
void ev_lnet_release(ev_lnet *n); /* NULL does nothing */
int ev_lua_net_plan(lua_State *L); /* net:plan{ loss =, outputs = } (bind_train.c) */
int ev_lua_net_op(lua_State *L);   /* net:op(name, tensors…, numbers…) (bind_tensor.c) */

#endif
