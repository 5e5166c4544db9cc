/* bind_tensor.c - tensors for scripts: a script records operators by name, C checks and runs them.
 *
 * Each node is told where the script stood that recorded it: the innermost frame that is not the library's. Dimensions and
 * places count from 1 here and from 0 in C. Nets, their axes and leaves are in bind_graph.c. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bind_graph.h"

#define PLACE_MAX 72
#define INPUTS_MAX 16
#define ATTRS_MAX 16

typedef struct ltensor {
  ev_lnet *net; /* shared */
  ev_tensor t;
  char where[PLACE_MAX];
} ltensor;

static ltensor *check_tensor(lua_State *L, int arg) {
  ltensor *h = luaL_checkudata(L, arg, EV_TENSOR);
  if (h->net == NULL) luaL_error(L, "the net of this tensor is gone");
  return h;
}

bool ev_lua_is(lua_State *L, int arg, const char *class) {
  if (!lua_isuserdata(L, arg) || !lua_getmetatable(L, arg)) return false;
  luaL_getmetatable(L, class);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

ev_lnet *ev_lua_net_of(lua_State *L, int arg) { return check_tensor(L, arg)->net; }

ev_tensor ev_lua_tensor(lua_State *L, int arg, ev_graph *of) {
  ltensor *h = check_tensor(L, arg);
  if (h->net->graph != of) luaL_error(L, "the tensor (%s) belongs to another net", ev_graph_name(h->net->graph, h->t));
  return h->t;
}

/* ---- Places --------------------------------------------------------------------------------------------*/
/* "FILE:LINE" of the innermost frame that is not the library's; "" when there is none. A long path loses its beginning. */
static void find_place(lua_State *L, char out[PLACE_MAX]) {
  lua_Debug ar;
  out[0] = '\0';
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0 || (ar.source[0] == '@' && strstr(ar.source, "/lua/evection/") != NULL)) continue;
    const char *name = ar.source[0] == '@' || ar.source[0] == '=' ? ar.source + 1 : "script";
    size_t len = strcspn(name, "\n"), room = PLACE_MAX - 16;
    const char *cut = len > room ? memchr(name + len - room, '/', room) : NULL;
    if (cut != NULL) len -= (size_t)(cut - name), name = cut;
    snprintf(out, PLACE_MAX, "%s%.*s:%d", cut != NULL ? "..." : "", (int)(len < room ? len : room), name, ar.currentline);
    return;
  }
}

void ev_lua_place(lua_State *L, ev_graph *g) {
  char where[PLACE_MAX];
  find_place(L, where);
  ev_graph_at(g, where);
}

/* ---- Handles -------------------------------------------------------------------------------------------*/
void ev_lua_push_tensor_of(lua_State *L, ev_lnet *net, ev_tensor t) {
  ltensor *h = lua_newuserdata(L, sizeof *h); /* net is held by who calls: nothing is collected under it */
  *h = (ltensor){.t = t};
  find_place(L, h->where);
  luaL_getmetatable(L, EV_TENSOR);
  lua_setmetatable(L, -2);
  h->net = net;
  net->refs++;
}

void ev_lua_push_tensor(lua_State *L, int net, ev_tensor t) { ev_lua_push_tensor_of(L, ev_lua_net(L, net), t); }

static int tensor_close(lua_State *L) {
  ltensor *h = luaL_checkudata(L, 1, EV_TENSOR);
  ev_lnet_release(h->net);
  h->net = NULL;
  return 0;
}

/* ---- Looking at tensors ----------------------------------------------------------------------------------*/
static ev_shape live_shape(const ev_graph *g, ev_tensor t) {
  ev_shape s = *ev_graph_shape(g, t);
  if (s.axis != 0) s.dim[0] = ev_graph_live(g, s.axis);
  return s;
}

static int tensor_shape(lua_State *L) { /* t:shape() → { 2048, 64 }: what there is room for */
  ltensor *h = check_tensor(L, 1);
  ev_shape s = *ev_graph_shape(h->net->graph, h->t);
  lua_createtable(L, (int)s.rank, 0);
  for (unsigned i = 0; i < s.rank; i++) {
    lua_pushnumber(L, (double)s.dim[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int tensor_net(lua_State *L) { return ev_lua_push_net(L, check_tensor(L, 1)->net); }

static int tensor_name(lua_State *L) { /* t:name(): a leaf's name, an operator's word */
  ltensor *h = check_tensor(L, 1);
  lua_pushstring(L, ev_graph_name(h->net->graph, h->t));
  return 1;
}

static int tensor_text(lua_State *L) { /* tensor (2048, 64) of matmul at mf.lua:12 */
  ltensor *h = check_tensor(L, 1);
  const ev_shape *s = ev_graph_shape(h->net->graph, h->t);
  char text[256];
  size_t len = (size_t)snprintf(text, sizeof text, "tensor (");
  for (unsigned i = 0; i < s->rank; i++) len += (size_t)snprintf(text + len, sizeof text - len, i > 0 ? ", %zu" : "%zu", s->dim[i]);
  snprintf(text + len, sizeof text - len, ") of %s%s%s", ev_graph_name(h->net->graph, h->t), h->where[0] != '\0' ? " at " : "", h->where);
  lua_pushstring(L, text);
  return 1;
}

static int tensor_values(lua_State *L) { /* t:values() → what a leaf holds: a vector, or a list of ids (-1: none); live rows */
  ltensor *h = check_tensor(L, 1);
  ev_graph *g = h->net->graph;
  ev_shape s = live_shape(g, h->t);
  size_t n = 1;
  for (unsigned i = 0; i < s.rank; i++) n *= s.dim[i];
  const uint32_t *ids = ev_graph_ids(g, h->t, NULL);
  if (ids != NULL) {
    lua_createtable(L, (int)(n < 1 << 24 ? n : 0), 0);
    for (size_t i = 0; i < n; i++) {
      lua_pushnumber(L, ids[i] == EV_NONE ? -1 : (double)ids[i]);
      lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
  }
  const float *values = ev_graph_values(g, h->t, NULL);
  if (values == NULL) return luaL_error(L, "%s holds no values of its own: let a plan compute it", ev_graph_name(g, h->t));
  memcpy(ev_lua_new_vector(L, n), values, n * sizeof *values);
  return 1;
}

static int tensor_fill(lua_State *L) { /* t:fill(numbers): of an input, ids (-1: none) or a parameter; as many as its live rows have */
  lua_settop(L, 2);
  ltensor *h = check_tensor(L, 1);
  ev_graph *g = h->net->graph;
  int64_t given = ev_lua_n_numbers(L, 2);
  if (given < 0) return luaL_argerror(L, 2, "a vector or a list of numbers");
  ev_shape s = live_shape(g, h->t);
  size_t n = 1;
  for (unsigned i = 0; i < s.rank; i++) n *= s.dim[i];
  float *values = ev_graph_values(g, h->t, NULL);
  uint32_t *ids = ev_graph_ids(g, h->t, NULL);
  if (values == NULL && ids == NULL) return luaL_error(L, "%s cannot be filled", ev_graph_name(g, h->t));
  if (strcmp(ev_graph_name(g, h->t), "constant") == 0 && s.rank == 0) return luaL_error(L, "a constant cannot be filled");
  if ((size_t)given != n) return luaL_error(L, "%s: %f numbers for %f places", ev_graph_name(g, h->t), (double)given, (double)n);
  h->net->n_changes++;
  if (values != NULL) {
    ev_lua_numbers(L, 2, ev_graph_name(g, h->t), values, n);
    return 0;
  }
  for (size_t i = 0; i < n; i++) {
    double x = -2;
    if (lua_istable(L, 2)) {
      lua_rawgeti(L, 2, (int)i + 1);
      if (lua_type(L, -1) == LUA_TNUMBER) x = lua_tonumber(L, -1);
      lua_pop(L, 1);
    } else {
      size_t m;
      x = ev_lua_vector(L, 2, &m)[i];
    }
    if (!(x >= -1 && x < EV_NONE) || x != floor(x)) return luaL_error(L, "%s: id %d is no whole number from 0 on (-1: none)", ev_graph_name(g, h->t), (int)i + 1);
    ids[i] = x < 0 ? EV_NONE : (uint32_t)x;
  }
  return 0;
}

/* ---- Operators -----------------------------------------------------------------------------------------*/
/* What a script may say of an operator beyond its tensors, in C's order. Kinds: n number, b flag, d dimension (from 1; from the
 * end when negative), e dimension or everything, f and t the first and last place of a range, as in string.sub. */
typedef struct word {
  const char *key;
  char kind;
  double fallback; /* NAN: none */
} word;
static const struct { const char *op; word words[4]; } grammar[] = {
    {"clip", {{"low", 'n', -FLT_MAX}, {"high", 'n', FLT_MAX}}},
    {"pow", {{"p", 'n', NAN}}},
    {"scale", {{"a", 'n', 1}, {"b", 'n', 0}}},
    {"sum", {{"dim", 'e', NAN}, {"keep", 'b', 0}}},
    {"mean", {{"dim", 'e', NAN}, {"keep", 'b', 0}}},
    {"max", {{"dim", 'e', NAN}, {"keep", 'b', 0}}},
    {"logsumexp", {{"dim", 'e', NAN}, {"keep", 'b', 0}}},
    {"normalise", {{"epsilon", 'n', 1e-12}}},
    {"layer_norm", {{"epsilon", 'n', 1e-5}}},
    {"topk", {{"k", 'n', NAN}}},
    {"dropout", {{"p", 'n', NAN}}},
    {"mask_equal", {{"value", 'n', -1e9}}},
    {"matmul", {{"transpose_a", 'b', 0}, {"transpose_b", 'b', 0}}},
    {"transpose", {{"i", 'd', -2}, {"j", 'd', -1}}},
    {"concat", {{"dim", 'd', -1}}},
    {"slice", {{"dim", 'd', NAN}, {"from", 'f', 1}, {"to", 't', -1}}},
    {"attention", {{"heads", 'n', 1}, {"causal", 'b', 1}}},
    {"spmm", {{"transposed", 'b', 0}}},
};

static const word *words_of(const char *op, size_t n_in) {
  if (strcmp(op, "max") == 0 && n_in > 1) return NULL; /* the larger of two tensors */
  for (size_t i = 0; i < sizeof grammar / sizeof *grammar; i++)
    if (strcmp(grammar[i].op, op) == 0) return grammar[i].words;
  return NULL;
}

static double whole(lua_State *L, const char *op, const char *key, double x) {
  if (x != floor(x) || fabs(x) > 1e15) luaL_error(L, "%s: %s %f is no whole number", op, key, x);
  return x;
}

/* A script's number → C's. shape: of the first dense tensor; dim: C's, for the places of a range. */
static double translate(lua_State *L, const char *op, const word *w, double x, const ev_shape *shape, double dim) {
  if (w->kind == 'd' || w->kind == 'e') {
    x = whole(L, op, w->key, x);
    if (x == 0 || fabs(x) > shape->rank) luaL_error(L, "%s: %s %f of a tensor with %d; they count from 1, or from -1 back", op, w->key, x, (int)shape->rank);
    return x > 0 ? x - 1 : shape->rank + x;
  }
  if (w->kind == 'f' || w->kind == 't') {
    double size = (double)shape->dim[(size_t)dim];
    x = whole(L, op, w->key, x);
    if (x < 0) x += size + 1;
    if (x < 1 || x > size) luaL_error(L, "%s: %s lies outside a dimension of %f", op, w->key, size);
    return w->kind == 'f' ? x - 1 : x;
  }
  return isinf(x) ? copysign(FLT_MAX, x) : x;
}

static double plain_number(lua_State *L, const char *op, const char *key, int arg) {
  if (lua_type(L, arg) == LUA_TBOOLEAN) return lua_toboolean(L, arg);
  if (lua_type(L, arg) != LUA_TNUMBER) luaL_error(L, "%s: %s is a %s", op, key, luaL_typename(L, arg));
  return lua_tonumber(L, arg);
}

/* Numbers of an operator from the arguments at `from` on: by place, or in a table by name. → how many */
static size_t take_attrs(lua_State *L, const char *op, size_t n_in, int from, int to, const ev_shape *shape, double attr[ATTRS_MAX]) {
  const word *words = words_of(op, n_in);
  size_t n = 0;
  if (words == NULL) { /* as they are */
    for (int arg = from; arg <= to && n < ATTRS_MAX; arg++) attr[n++] = plain_number(L, op, "an argument", arg);
    return n;
  }
  bool named = from == to && lua_istable(L, from);
  size_t n_words = 0;
  while (n_words < 4 && words[n_words].key != NULL) n_words++;
  if (!named && (size_t)(to - from + 1) > n_words) luaL_error(L, "%s takes at most %d numbers", op, (int)n_words);
  if (named)
    for (lua_pushnil(L); lua_next(L, from); lua_pop(L, 1)) {
      bool known = false;
      for (size_t i = 0; i < n_words; i++) known = known || (lua_type(L, -2) == LUA_TSTRING && strcmp(lua_tostring(L, -2), words[i].key) == 0);
      if (!known) luaL_error(L, "%s has no option '%s'", op, lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2));
    }
  for (size_t i = 0; i < n_words; i++) {
    const word *w = &words[i];
    if (named) lua_getfield(L, from, w->key);
    else if (from + (int)i <= to) lua_pushvalue(L, from + (int)i);
    else lua_pushnil(L);
    bool given = !lua_isnil(L, -1);
    double x = given ? plain_number(L, op, w->key, lua_gettop(L)) : w->fallback;
    lua_pop(L, 1);
    if (w->kind == 'e' && !given) attr[n++] = -1;
    else if (!given && isnan(w->fallback)) luaL_error(L, "%s wants %s", op, w->key);
    else attr[n++] = translate(L, op, w, x, shape, attr[0]);
  }
  return n;
}

/* Records `op` of the arguments from `first` on: tensors, then numbers. Pushes the result. */
static int record(lua_State *L, const char *op, int first) {
  int top = lua_gettop(L), arg = first;
  ev_tensor in[INPUTS_MAX], out;
  size_t n_in = 0;
  ev_lnet *net = check_tensor(L, first)->net;
  ev_shape shape = {0};
  bool dense = false;
  for (; arg <= top && ev_lua_is(L, arg, EV_TENSOR); arg++) {
    if (n_in == INPUTS_MAX) return luaL_error(L, "%s takes at most %d tensors", op, INPUTS_MAX);
    in[n_in] = ev_lua_tensor(L, arg, net->graph);
    if (!dense) shape = *ev_graph_shape(net->graph, in[n_in]), dense = true;
    n_in++;
  }
  double attr[ATTRS_MAX];
  size_t n_attr = take_attrs(L, op, n_in, arg, top, &shape, attr);
  ev_lua_place(L, net->graph);
  EV_CHECK(L, ev_graph_op(net->graph, &out, op, in, n_in, attr, n_attr));
  ev_lua_push_tensor_of(L, net, out);
  return 1;
}

static int method(lua_State *L) { return record(L, lua_tostring(L, lua_upvalueindex(1)), 1); } /* t:OP(tensors…, numbers…) */

static int tensor_op(lua_State *L) { /* t:op(name, tensors…, numbers…) */
  const char *op = luaL_checkstring(L, 2);
  lua_pushvalue(L, 2);
  lua_insert(L, 1); /* the text stays on the stack as long as it is looked at */
  lua_remove(L, 3);
  return record(L, op, 2);
}

int ev_lua_net_op(lua_State *L) { /* net:op(name, tensors…, numbers…) */
  ev_lnet *net = ev_lua_net(L, 1);
  const char *op = luaL_checkstring(L, 2);
  ev_lua_tensor(L, 3, net->graph);
  return record(L, op, 3);
}

/* a x + b of the tensor at `arg` */
static int affine(lua_State *L, int arg, double a, double b) {
  ev_lnet *net = check_tensor(L, arg)->net;
  ev_tensor in = check_tensor(L, arg)->t, out;
  double attr[2] = {a, b};
  ev_lua_place(L, net->graph);
  EV_CHECK(L, ev_graph_op(net->graph, &out, "scale", &in, 1, attr, 2));
  ev_lua_push_tensor_of(L, net, out);
  return 1;
}

/* A number beside a tensor; a text that looks like one is none. */
static bool number_at(lua_State *L, int arg, double *x) {
  if (lua_type(L, arg) != LUA_TNUMBER) return false;
  *x = lua_tonumber(L, arg);
  return true;
}

static int tensor_plus(lua_State *L) {
  double x;
  if (number_at(L, 2, &x)) return affine(L, 1, 1, x);
  if (number_at(L, 1, &x)) return affine(L, 2, 1, x);
  return record(L, "add", 1);
}

static int tensor_minus(lua_State *L) {
  double x;
  if (number_at(L, 2, &x)) return affine(L, 1, 1, -x);
  if (number_at(L, 1, &x)) return affine(L, 2, -1, x);
  return record(L, "sub", 1);
}

static int tensor_times(lua_State *L) {
  double x;
  if (number_at(L, 2, &x)) return affine(L, 1, x, 0);
  if (number_at(L, 1, &x)) return affine(L, 2, x, 0);
  return record(L, "mul", 1);
}

static int tensor_over(lua_State *L) {
  double x;
  if (number_at(L, 2, &x)) return affine(L, 1, 1 / x, 0);
  if (number_at(L, 1, &x)) { /* a constant over the tensor */
    ev_lnet *net = check_tensor(L, 2)->net;
    ev_tensor in[2] = {0, check_tensor(L, 2)->t}, out;
    ev_lua_place(L, net->graph);
    EV_CHECK(L, ev_graph_constant(net->graph, &in[0], x));
    EV_CHECK(L, ev_graph_op(net->graph, &out, "div", in, 2, NULL, 0));
    ev_lua_push_tensor_of(L, net, out);
    return 1;
  }
  return record(L, "div", 1);
}

static int tensor_negative(lua_State *L) {
  lua_settop(L, 1);
  return record(L, "neg", 1);
}

static int tensor_power(lua_State *L) {
  double x;
  if (!number_at(L, 2, &x)) return luaL_error(L, "a tensor is raised to a number, not to a %s", luaL_typename(L, 2));
  if (x == 2) {
    lua_settop(L, 1);
    return record(L, "square", 1);
  }
  return record(L, "pow", 1);
}

static int tensor_index(lua_State *L) { /* t[ids], t:OP(…), t:shape() … */
  check_tensor(L, 1);
  if (ev_lua_is(L, 2, EV_TENSOR)) return record(L, "gather", 1);
  if (lua_type(L, 2) != LUA_TSTRING) return luaL_error(L, "a tensor is indexed by a tensor of ids, not by a %s", luaL_typename(L, 2));
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  if (!lua_isnil(L, -1)) return 1;
  const char *key = lua_tostring(L, 2);
  if (key[strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_")] != '\0' || key[0] < 'a' || key[0] > 'z') return 1; /* no operator's name: nil */
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, method, 1);
  return 1;
}

void ev_bind_tensor(lua_State *L) {
  static const luaL_Reg tensor_methods[] = {
      {"op", tensor_op}, {"shape", tensor_shape}, {"net", tensor_net}, {"name", tensor_name}, {"values", tensor_values}, {"fill", tensor_fill}, {NULL, NULL}};
  static const luaL_Reg tensor_meta[] = {
      {"__add", tensor_plus}, {"__sub", tensor_minus}, {"__mul", tensor_times}, {"__div", tensor_over}, {"__pow", tensor_power},
      {"__unm", tensor_negative}, {"__gc", tensor_close}, {"__tostring", tensor_text}, {NULL, NULL}};
  lua_newtable(L);
  luaL_register(L, NULL, tensor_methods);
  lua_pushcclosure(L, tensor_index, 1);
  ev_lua_class(L, EV_TENSOR, tensor_meta);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
}
