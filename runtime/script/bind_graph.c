/* bind_graph.c - nets for scripts: what they may take, their axes and their leaves. Tensors and operators are in bind_tensor.c.
 *
 * What stands on a net (its tensors, axes and plans) shares it by counting references, so that it goes last in whatever
 * order a collector takes them. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bind_graph.h"

#define EV_AXIS "ev.axis"
#define NETS_MAX 64

typedef struct lnet {
  ev_lnet *net; /* shared; NULL: finalised */
} lnet;

typedef struct laxis {
  ev_lnet *net; /* shared */
  unsigned axis;
  size_t capacity;
} laxis;

static unsigned n_nets; /* alive in this process: a script in a loop must not gather them */

/* ---- Sharing -------------------------------------------------------------------------------------------*/
void ev_lnet_release(ev_lnet *n) {
  if (n == NULL || --n->refs > 0) return;
  ev_graph_free(n->graph);
  ev_free(n);
  n_nets--;
}

ev_lnet *ev_lua_net(lua_State *L, int arg) {
  lnet *h = luaL_checkudata(L, arg, EV_GRAPH);
  if (h->net == NULL) luaL_error(L, "the net is gone");
  return h->net;
}

ev_graph *ev_lua_graph(lua_State *L, int arg) { return ev_lua_net(L, arg)->graph; }

/* ---- Handles -------------------------------------------------------------------------------------------*/
int ev_lua_push_net(lua_State *L, ev_lnet *net) {
  lnet *h = lua_newuserdata(L, sizeof *h);
  h->net = NULL;
  luaL_getmetatable(L, EV_GRAPH);
  lua_setmetatable(L, -2);
  h->net = net;
  net->refs++;
  return 1;
}

/* What a net may take: half of the machine's memory (or of the group's that the process is in), and what is left of a
 * limit on the process's data after a quarter for everything else. */
static uint64_t sane_bytes(void) {
  double bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 2;
  FILE *f = fopen("/sys/fs/cgroup/memory.max", "r");
  if (f != NULL) {
    double group;
    if (fscanf(f, "%lf", &group) == 1 && group / 2 < bytes) bytes = group / 2; /* "max": no number */
    fclose(f);
  }
  static const int limits[] = {RLIMIT_DATA, RLIMIT_AS};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    struct rlimit l;
    if (getrlimit(limits[i], &l) == 0 && l.rlim_cur != RLIM_INFINITY && 0.75 * (double)l.rlim_cur < bytes) bytes = 0.75 * (double)l.rlim_cur;
  }
  return bytes > 1 ? (uint64_t)bytes : 1;
}

static int net_new(lua_State *L) { /* net{ seed =, data = (whose seed it takes), max_mb = } */
  lua_settop(L, 1);
  ev_lua_only(L, 1, "seed data max_mb");
  uint64_t seed = 1;
  if (lua_istable(L, 1)) {
    lua_getfield(L, 1, "data");
    if (!lua_isnil(L, -1)) seed = ev_lua_data(L, lua_gettop(L))->seed;
    lua_settop(L, 1);
  }
  seed = (uint64_t)ev_lua_field_number(L, 1, "seed", (double)seed, 0, 9007199254740992.0);
  double most = (double)sane_bytes();
  double bytes = ev_lua_field_number(L, 1, "max_mb", most / 1e6, 1e-3, 1e9) * 1e6;
  lua_gc(L, LUA_GCCOLLECT, 0); /* what lies in C is nothing to the collector: it would let dead nets pile up */
  if (n_nets >= NETS_MAX) return luaL_error(L, "more than %d nets at once", NETS_MAX);
  lnet *h = lua_newuserdata(L, sizeof *h);
  h->net = NULL;
  luaL_getmetatable(L, EV_GRAPH);
  lua_setmetatable(L, -2);
  ev_lnet *net = ev_zalloc(1, sizeof *net);
  if (net == NULL) return ev_lua_fail(L, EV_ENOMEM);
  *net = (ev_lnet){.refs = 1, .seed = seed};
  n_nets++;
  h->net = net;
  EV_CHECK(L, ev_graph_new(&net->graph, seed, (uint64_t)(bytes < most ? bytes : most)));
  return 1;
}

static int net_close(lua_State *L) {
  lnet *h = luaL_checkudata(L, 1, EV_GRAPH);
  ev_lnet_release(h->net);
  h->net = NULL;
  return 0;
}

static int axis_close(lua_State *L) {
  laxis *h = luaL_checkudata(L, 1, EV_AXIS);
  ev_lnet_release(h->net);
  h->net = NULL;
  return 0;
}

/* ---- Axes ----------------------------------------------------------------------------------------------*/
static laxis *check_axis(lua_State *L, int arg) {
  laxis *h = luaL_checkudata(L, arg, EV_AXIS);
  if (h->net == NULL) luaL_error(L, "the net of this axis is gone");
  return h;
}

static int net_axis(lua_State *L) { /* net:axis(capacity): a number of rows that changes from run to run */
  ev_lnet *net = ev_lua_net(L, 1);
  size_t capacity = (size_t)ev_lua_integer(L, 2, 1, EV_NONE - 1);
  ev_lua_place(L, net->graph);
  laxis *h = lua_newuserdata(L, sizeof *h);
  *h = (laxis){.capacity = capacity};
  luaL_getmetatable(L, EV_AXIS);
  lua_setmetatable(L, -2);
  h->net = net;
  net->refs++;
  EV_CHECK(L, ev_graph_axis(net->graph, &h->axis, capacity));
  return 1;
}

static int axis_set(lua_State *L) { /* axis:set(n): rows of the next run */
  laxis *h = check_axis(L, 1);
  EV_CHECK(L, ev_graph_set_live(h->net->graph, h->axis, (size_t)ev_lua_integer(L, 2, 0, (int64_t)h->capacity)));
  h->net->n_changes++;
  return 0;
}

static int axis_size(lua_State *L) {
  laxis *h = check_axis(L, 1);
  lua_pushnumber(L, (double)ev_graph_live(h->net->graph, h->axis));
  return 1;
}

static int axis_text(lua_State *L) {
  laxis *h = check_axis(L, 1);
  lua_pushfstring(L, "axis (%d of %d rows)", (int)ev_graph_live(h->net->graph, h->axis), (int)h->capacity);
  return 1;
}

/* ---- Leaves --------------------------------------------------------------------------------------------*/
/* A shape: a list of sizes, the first of which may be an axis; {} is a scalar's. */
static ev_shape take_shape(lua_State *L, int arg, ev_lnet *net) {
  ev_shape s = {0};
  luaL_checktype(L, arg, LUA_TTABLE);
  size_t rank = lua_objlen(L, arg);
  if (rank > EV_TENSOR_RANK) luaL_error(L, "a shape of %d dimensions; %d are the most", (int)rank, EV_TENSOR_RANK);
  s.rank = (unsigned)rank;
  for (unsigned i = 0; i < s.rank; i++) {
    lua_rawgeti(L, arg, (int)i + 1);
    if (i == 0 && ev_lua_is(L, -1, EV_AXIS)) {
      laxis *a = check_axis(L, lua_gettop(L));
      if (a->net != net) luaL_error(L, "the axis belongs to another net");
      s.axis = a->axis;
      s.dim[0] = a->capacity;
    } else {
      if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "dimension %d of a shape is a %s", (int)i + 1, luaL_typename(L, -1));
      double x = lua_tonumber(L, -1);
      if (!(x >= 1 && x <= 1e15) || x != floor(x)) luaL_error(L, "dimension %d of a shape is %f", (int)i + 1, x);
      s.dim[i] = (size_t)x;
    }
    lua_pop(L, 1);
  }
  return s;
}

static int net_parameter(lua_State *L) { /* net:parameter(name, shape, { init =, scale =, decay =, rate = }) */
  static const char *const names[] = {"zeros", "ones", "normal", "uniform", "xavier", NULL};
  static const ev_init inits[] = {EV_INIT_ZEROS, EV_INIT_ONES, EV_INIT_NORMAL, EV_INIT_UNIFORM, EV_INIT_XAVIER};
  lua_settop(L, 4);
  ev_lnet *net = ev_lua_net(L, 1);
  const char *name = luaL_checkstring(L, 2);
  ev_shape shape = take_shape(L, 3, net);
  ev_lua_only(L, 4, "init scale decay rate");
  const char *word = ev_lua_field_string(L, 4, "init", shape.rank < 2 ? "zeros" : "xavier");
  int which = 0;
  while (names[which] != NULL && strcmp(names[which], word) != 0) which++;
  if (names[which] == NULL) return luaL_error(L, "init: '%s' is none of zeros, ones, normal, uniform, xavier", word);
  float scale = (float)ev_lua_field_number(L, 4, "scale", inits[which] == EV_INIT_XAVIER ? 1 : 0.1, 0, 1e6);
  float decay = (float)ev_lua_field_number(L, 4, "decay", 1, 0, 1e6), rate = (float)ev_lua_field_number(L, 4, "rate", 1, 0, 1e6);
  ev_tensor t;
  ev_lua_place(L, net->graph);
  EV_CHECK(L, ev_graph_parameter(net->graph, &t, name, &shape, inits[which], scale, decay));
  EV_CHECK(L, ev_graph_parameter_rate(net->graph, t, rate));
  net->n_parameters++;
  double size = 1;
  for (unsigned i = 0; i < shape.rank; i++) size *= (double)shape.dim[i];
  net->n_numbers += size;
  ev_lua_push_tensor_of(L, net, t);
  return 1;
}

static int input(lua_State *L, ev_status (*make)(ev_graph *, ev_tensor *, const char *, const ev_shape *)) {
  lua_settop(L, 3);
  ev_lnet *net = ev_lua_net(L, 1);
  const char *name = luaL_checkstring(L, 2);
  ev_shape shape = take_shape(L, 3, net);
  ev_tensor t;
  ev_lua_place(L, net->graph);
  EV_CHECK(L, make(net->graph, &t, name, &shape));
  ev_lua_push_tensor_of(L, net, t);
  return 1;
}

static int net_input(lua_State *L) { return input(L, ev_graph_input); }   /* net:input(name, shape): numbers, filled before a run */
static int net_ids(lua_State *L) { return input(L, ev_graph_input_ids); } /* net:ids(name, shape): row numbers */

static int net_constant(lua_State *L) { /* net:constant(number) */
  ev_lnet *net = ev_lua_net(L, 1);
  ev_tensor t;
  ev_lua_place(L, net->graph);
  EV_CHECK(L, ev_graph_constant(net->graph, &t, luaL_checknumber(L, 2)));
  ev_lua_push_tensor_of(L, net, t);
  return 1;
}

/* net:interactions(data, { user_power =, item_power =, name = }): the sparse matrix (users, items) that holds
 * |u|^-user_power |i|^-item_power where user u has item i; both powers ½: LightGCN's normalised adjacency (He et al. 2020). */
static int net_interactions(lua_State *L) {
  lua_settop(L, 3);
  ev_lnet *net = ev_lua_net(L, 1);
  const ev_ldata *d = ev_lua_data(L, 2);
  ev_lua_only(L, 3, "user_power item_power name");
  double user_power = ev_lua_field_number(L, 3, "user_power", 0.5, 0, 4), item_power = ev_lua_field_number(L, 3, "item_power", 0.5, 0, 4);
  const char *name = ev_lua_field_string(L, 3, "name", "interactions");
  if (d->view == NULL) return luaL_error(L, "the data are gone");
  const ev_csr *m = &d->view->by_user, *back = &d->view->by_item;
  if (m->n_rows == 0 || m->n_cols == 0) return luaL_error(L, "interactions: the data hold no users or no items");
  ev_lua_place(L, net->graph);
  float *values = ev_alloc(m->ptr[m->n_rows], sizeof *values);
  if (values == NULL) return ev_lua_fail(L, EV_ENOMEM);
  for (size_t u = 0; u < m->n_rows; u++)
    for (uint64_t e = m->ptr[u]; e < m->ptr[u + 1]; e++) {
      double of_user = (double)(m->ptr[u + 1] - m->ptr[u]), of_item = (double)(back->ptr[m->idx[e] + 1] - back->ptr[m->idx[e]]);
      values[e] = (float)(pow(of_user, -user_power) * pow(of_item, -item_power));
    }
  ev_tensor t;
  ev_status status = ev_graph_sparse(net->graph, &t, name, m->n_rows, m->n_cols, m->ptr, m->idx, values);
  ev_free(values);
  EV_CHECK(L, status);
  ev_lua_push_tensor_of(L, net, t);
  return 1;
}

static int net_find(lua_State *L) { /* net:find(name) → the leaf called so, or nil */
  ev_lnet *net = ev_lua_net(L, 1);
  ev_tensor t = ev_graph_find(net->graph, luaL_checkstring(L, 2));
  if (t == EV_NONE) lua_pushnil(L);
  else ev_lua_push_tensor_of(L, net, t);
  return 1;
}

static int net_unique(lua_State *L) { /* net:unique(word) → the word, or the word with the least number that makes it a new name */
  ev_lnet *net = ev_lua_net(L, 1);
  char name[64];
  snprintf(name, sizeof name, "%.24s", luaL_checkstring(L, 2));
  for (unsigned k = 2; ev_graph_find(net->graph, name) != EV_NONE; k++) snprintf(name, sizeof name, "%.24s.%u", lua_tostring(L, 2), k);
  lua_pushstring(L, name);
  return 1;
}

static int net_seed(lua_State *L) {
  lua_pushnumber(L, (double)ev_lua_net(L, 1)->seed);
  return 1;
}

static int net_size(lua_State *L) {
  lua_pushnumber(L, (double)ev_graph_size(ev_lua_graph(L, 1)));
  return 1;
}

static int net_text(lua_State *L) {
  ev_lnet *net = ev_lua_net(L, 1);
  char text[128];
  snprintf(text, sizeof text, "net (%u parameters of %.0f numbers, %zu nodes)", net->n_parameters, net->n_numbers, ev_graph_size(net->graph));
  lua_pushstring(L, text);
  return 1;
}

void ev_bind_graph(lua_State *L) {
  static const luaL_Reg net_methods[] = {
      {"parameter", net_parameter}, {"input", net_input}, {"ids", net_ids}, {"axis", net_axis}, {"constant", net_constant},
      {"interactions", net_interactions}, {"op", ev_lua_net_op}, {"plan", ev_lua_net_plan}, {"find", net_find}, {"unique", net_unique},
      {"seed", net_seed}, {"__len", net_size}, {"__gc", net_close}, {"__tostring", net_text}, {NULL, NULL}};
  static const luaL_Reg axis_methods[] = {{"set", axis_set}, {"__len", axis_size}, {"__gc", axis_close}, {"__tostring", axis_text}, {NULL, NULL}};
  ev_lua_class(L, EV_GRAPH, net_methods);
  ev_lua_class(L, EV_AXIS, axis_methods);
  lua_pop(L, 2);
  lua_pushcfunction(L, net_new);
  lua_setfield(L, -2, "net");
}
