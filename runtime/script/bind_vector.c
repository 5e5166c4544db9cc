/* bind_vector.c - vectors: columns of floats with bulk operations.
 *
 * A vector owns its numbers (they lie in the Lua heap, under its cap) or stands for a slate's column, which is
 * looked up at each call: a column of a slate that was cleared or shrunk is never read past its end.
 * Operators make new vectors; named methods change the one they are called on and return it. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../math/math.h"
#include "bind.h"

#define VECTOR_MAX (1u << 26)
#define LARGE 4096 /* numbers */

typedef struct lvector {
  size_t n;       /* own numbers: how many */
  bool column;    /* a slate's column, the slate anchored */
  bool score;     /* of it: the score */
  uint32_t at;    /* where the column stood the last time */
  ev_lslate *of;
  char name[48];  /* of the column; "score" is the score */
  float data[];   /* own numbers */
} lvector;

static float *resolve(lua_State *L, lvector *v, size_t *n) {
  if (!v->column) {
    *n = v->n;
    return v->data;
  }
  ev_slate *s = v->of->slate;
  *n = ev_slate_n(s);
  if (v->score) return *n > 0 ? ev_slate_scores(s) : v->data; /* a slate that never held anything has none */
  if (v->at < ev_slate_n_columns(s) && strcmp(ev_slate_column_name(s, v->at), v->name) == 0) return ev_slate_column_at(s, v->at);
  float *data = NULL;
  for (size_t i = 0; i < ev_slate_n_columns(s) && data == NULL; i++)
    if (strcmp(ev_slate_column_name(s, i), v->name) == 0) data = ev_slate_column_at(s, i), v->at = (uint32_t)i;
  if (data == NULL) luaL_error(L, "the slate no longer has a column '%s'", v->name);
  return data;
}

float *ev_lua_vector(lua_State *L, int arg, size_t *n) { return resolve(L, luaL_checkudata(L, arg, EV_VECTOR), n); }

float *ev_lua_new_vector(lua_State *L, size_t n) {
  if (n > VECTOR_MAX) luaL_error(L, "a vector of %f numbers is larger than %f", (double)n, (double)VECTOR_MAX);
  if (n > LARGE) ev_lua_make_room(L, sizeof(lvector) + n * sizeof(float));
  lvector *v = lua_newuserdata(L, sizeof *v + n * sizeof(float));
  v->n = n;
  v->column = false;
  luaL_getmetatable(L, EV_VECTOR);
  lua_setmetatable(L, -2);
  return v->data;
}

/* slate_column(slate, name) → vector; pushed by the slate's bindings too. */
static int column_of(lua_State *L) {
  ev_lslate *s = luaL_checkudata(L, 1, EV_SLATE);
  lvector *v = lua_newuserdata(L, sizeof *v);
  *v = (lvector){.column = true, .of = s};
  snprintf(v->name, sizeof v->name, "%s", luaL_checkstring(L, 2));
  v->score = strcmp(v->name, "score") == 0;
  luaL_getmetatable(L, EV_VECTOR);
  lua_setmetatable(L, -2);
  ev_lua_anchor(L, lua_gettop(L), 1);
  return 1;
}

static bool is_vector(lua_State *L, int arg) {
  if (!lua_isuserdata(L, arg) || !lua_getmetatable(L, arg)) return false;
  luaL_getmetatable(L, EV_VECTOR);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

int64_t ev_lua_n_numbers(lua_State *L, int index) {
  size_t n;
  if (lua_istable(L, index)) return (int64_t)lua_objlen(L, index);
  if (!is_vector(L, index)) return -1;
  ev_lua_vector(L, index, &n);
  return (int64_t)n;
}

void ev_lua_numbers(lua_State *L, int index, const char *what, float *out, size_t n) {
  size_t m = 0;
  const float *v = is_vector(L, index) ? ev_lua_vector(L, index, &m) : NULL;
  if (v != NULL && m != n) luaL_error(L, "%s has changed meanwhile", what);
  for (size_t i = 0; i < n; i++) {
    double x = v != NULL ? v[i] : 0;
    if (v == NULL) {
      lua_rawgeti(L, index, (int)i + 1);
      if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "%s: number %d is a %s", what, (int)i + 1, luaL_typename(L, -1));
      x = lua_tonumber(L, -1);
      lua_pop(L, 1);
    }
    if (!(fabs(x) <= FLT_MAX)) luaL_error(L, "%s: number %d is %f", what, (int)i + 1, x);
    out[i] = (float)x;
  }
}

/* An operand: a vector of n numbers, or a number that stands for n of them (data NULL). */
typedef struct operand {
  const float *data;
  float number;
} operand;

static operand take(lua_State *L, int arg, size_t n) {
  operand o = {NULL, 0};
  if (is_vector(L, arg)) {
    size_t m;
    o.data = ev_lua_vector(L, arg, &m);
    if (m != n) luaL_error(L, "vectors of %f and %f numbers", (double)n, (double)m);
  } else {
    o.number = (float)luaL_checknumber(L, arg);
  }
  return o;
}

static float pick(operand o, size_t i) { return o.data != NULL ? o.data[i] : o.number; }

#define BINARY(fname, expression)                                \
  static int fname(lua_State *L) {                               \
    size_t n;                                                    \
    lua_settop(L, 2); /* out must not stand where an operand is missing */ \
    ev_lua_vector(L, is_vector(L, 1) ? 1 : 2, &n);               \
    float *out = ev_lua_new_vector(L, n);                        \
    operand a = take(L, 1, n), b = take(L, 2, n);                \
    for (size_t i = 0; i < n; i++) {                             \
      float x = pick(a, i), y = pick(b, i);                      \
      out[i] = (expression);                                     \
    }                                                            \
    return 1;                                                    \
  }
BINARY(vector_plus, x + y)
BINARY(vector_minus, x - y)
BINARY(vector_times, x *y)
BINARY(vector_over, x / y)
BINARY(vector_power, powf(x, y))
BINARY(vector_greater, x > y ? 1.0f : 0.0f) /* v:gt(w): 1 where v > w, else 0 */
BINARY(vector_larger, x > y ? x : y)        /* v:max_with(w) */
BINARY(vector_smaller, x < y ? x : y)       /* v:min_with(w) */

#define UNARY(fname, expression)                                 \
  static int fname(lua_State *L) {                               \
    size_t n;                                                    \
    ev_lua_vector(L, 1, &n);                                     \
    float *out = ev_lua_new_vector(L, n);                        \
    const float *a = ev_lua_vector(L, 1, &n);                    \
    for (size_t i = 0; i < n; i++) {                             \
      float x = a[i];                                            \
      out[i] = (expression);                                     \
    }                                                            \
    return 1;                                                    \
  }
UNARY(vector_negative, -x)
UNARY(vector_log, logf(x))
UNARY(vector_exp, expf(x))
UNARY(vector_sqrt, sqrtf(x))
UNARY(vector_abs, fabsf(x))
UNARY(vector_copy, x)

static int vector_new(lua_State *L) { /* vector(n) of zeros, or vector{1, 2, 3} */
  if (lua_istable(L, 1)) {
    size_t n = lua_objlen(L, 1);
    float *out = ev_lua_new_vector(L, n);
    for (size_t i = 0; i < n; i++) {
      lua_rawgeti(L, 1, (int)i + 1);
      if (lua_type(L, -1) != LUA_TNUMBER) return luaL_error(L, "element %f is a %s", (double)i + 1, luaL_typename(L, -1));
      out[i] = (float)lua_tonumber(L, -1);
      lua_pop(L, 1);
    }
    return 1;
  }
  size_t n = (size_t)ev_lua_integer(L, 1, 0, VECTOR_MAX);
  memset(ev_lua_new_vector(L, n), 0, n * sizeof(float));
  return 1;
}

static int vector_size(lua_State *L) {
  size_t n;
  ev_lua_vector(L, 1, &n);
  lua_pushnumber(L, (double)n);
  return 1;
}

static int vector_get(lua_State *L) {
  size_t n;
  float *x = ev_lua_vector(L, 1, &n);
  lua_pushnumber(L, x[ev_lua_integer(L, 2, 1, (int64_t)n) - 1]);
  return 1;
}

static int vector_set(lua_State *L) { /* v:set(i, x), or v:set(other) copies all */
  size_t n;
  float *x = ev_lua_vector(L, 1, &n);
  if (lua_isnone(L, 3)) {
    operand o = take(L, 2, n);
    for (size_t i = 0; i < n; i++) x[i] = pick(o, i);
  } else {
    x[ev_lua_integer(L, 2, 1, (int64_t)n) - 1] = (float)luaL_checknumber(L, 3);
  }
  lua_settop(L, 1);
  return 1;
}

static int vector_add(lua_State *L) { /* v:add(w, weight): v += weight * w */
  size_t n;
  float *x = ev_lua_vector(L, 1, &n), weight = (float)luaL_optnumber(L, 3, 1);
  operand o = take(L, 2, n);
  if (o.data != NULL && o.data != x) ev_axpy(x, o.data, weight, n);
  else
    for (size_t i = 0; i < n; i++) x[i] += weight * pick(o, i);
  lua_settop(L, 1);
  return 1;
}

static int vector_mul(lua_State *L) {
  size_t n;
  float *x = ev_lua_vector(L, 1, &n);
  operand o = take(L, 2, n);
  for (size_t i = 0; i < n; i++) x[i] *= pick(o, i);
  lua_settop(L, 1);
  return 1;
}

static int vector_map(lua_State *L) { /* v:map(fn): v[i] = fn(v[i], i) */
  size_t n;
  ev_lua_vector(L, 1, &n);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  for (size_t i = 0; i < n; i++) {
    size_t now;
    lua_pushvalue(L, 2);
    lua_pushnumber(L, ev_lua_vector(L, 1, &now)[i]);
    lua_pushnumber(L, (double)i + 1);
    lua_call(L, 2, 1);
    float y = (float)luaL_checknumber(L, -1);
    float *x = ev_lua_vector(L, 1, &now); /* fn may have changed the slate */
    if (now != n) return luaL_error(L, "the vector changed its length while it was mapped");
    x[i] = y;
    lua_pop(L, 1);
  }
  lua_settop(L, 1);
  return 1;
}

static int vector_sum(lua_State *L) {
  size_t n;
  float *x = ev_lua_vector(L, 1, &n);
  lua_pushnumber(L, ev_sum(x, n));
  return 1;
}

static int vector_range(lua_State *L) { /* least, greatest */
  size_t n;
  float *x = ev_lua_vector(L, 1, &n), lo, hi;
  ev_minmax(&lo, &hi, x, n);
  lua_pushnumber(L, lo);
  lua_pushnumber(L, hi);
  return 2;
}

/* v:normalise(mask): to [0, 1] over the entries where mask is not 0 (all without one); the others become 0. */
static int vector_normalise(lua_State *L) {
  size_t n;
  float *x = ev_lua_vector(L, 1, &n), lo = INFINITY, hi = -INFINITY;
  operand mask = {NULL, 1};
  if (!lua_isnoneornil(L, 2)) mask = take(L, 2, n);
  for (size_t i = 0; i < n; i++) {
    if (pick(mask, i) == 0 || isnan(x[i])) continue;
    if (x[i] < lo) lo = x[i];
    if (x[i] > hi) hi = x[i];
  }
  float scale = hi > lo ? 1 / (hi - lo) : 0;
  for (size_t i = 0; i < n; i++) x[i] = pick(mask, i) == 0 || isnan(x[i]) ? 0 : scale > 0 ? (x[i] - lo) * scale : 1;
  lua_settop(L, 1);
  return 1;
}

static int vector_softmax(lua_State *L) { /* v:softmax(temperature): v = e^(v / temperature) / Σ */
  size_t n;
  float *x = ev_lua_vector(L, 1, &n), temperature = (float)luaL_optnumber(L, 2, 1);
  luaL_argcheck(L, temperature > 0 && temperature < INFINITY, 2, "a temperature is above 0");
  ev_softmax(x, x, temperature, n);
  lua_settop(L, 1);
  return 1;
}

static int vector_logsumexp(lua_State *L) {
  size_t n;
  float *x = ev_lua_vector(L, 1, &n);
  lua_pushnumber(L, ev_logsumexp(x, n));
  return 1;
}

/* v:sample(k[, seed[, "weights"]]) → the places of k distinct elements in the order drawn; v holds logits, or weights. */
static int vector_sample(lua_State *L) {
  static const char *const kinds[] = {"logits", "weights", NULL};
  size_t n, n_drawn;
  float *x = ev_lua_vector(L, 1, &n);
  size_t k = (size_t)ev_lua_integer(L, 2, 0, VECTOR_MAX);
  uint64_t seed = lua_isnoneornil(L, 3) ? 1 : (uint64_t)ev_lua_integer(L, 3, 0, (int64_t)1 << 53);
  bool weights = luaL_checkoption(L, 4, "logits", kinds) == 1;
  float *logits = ev_lua_new_vector(L, n);
  for (size_t i = 0; i < n; i++) {
    if (!(x[i] < INFINITY) || (weights && x[i] < 0)) return luaL_error(L, "%s %f is %f", weights ? "weight" : "logit", (double)i + 1, (double)x[i]);
    logits[i] = weights ? logf(x[i]) : x[i];
  }
  if (k > n) k = n;
  uint32_t *places = lua_newuserdata(L, (k + 1) * sizeof *places);
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  EV_CHECK(L, ev_gumbel_topk(places, &n_drawn, logits, n, k, &r));
  lua_createtable(L, (int)n_drawn, 0);
  for (size_t i = 0; i < n_drawn; i++) {
    lua_pushnumber(L, (double)places[i] + 1);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int vector_text(lua_State *L) {
  size_t n;
  float *x = ev_lua_vector(L, 1, &n), lo, hi;
  ev_minmax(&lo, &hi, x, n);
  char text[128];
  snprintf(text, sizeof text, n == 0 ? "vector(0)" : "vector(%zu: %g … %g)", n, lo, hi);
  lua_pushstring(L, text);
  return 1;
}

static int vector_index(lua_State *L) { /* v[3], or a method */
  if (lua_type(L, 2) == LUA_TNUMBER) return vector_get(L);
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  return 1;
}

static int vector_assign(lua_State *L) {
  luaL_checknumber(L, 3);
  return vector_set(L);
}

void ev_bind_vector(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"get", vector_get}, {"set", vector_set}, {"add", vector_add}, {"mul", vector_mul}, {"map", vector_map},
      {"sum", vector_sum}, {"range", vector_range}, {"normalise", vector_normalise}, {"gt", vector_greater},
      {"max_with", vector_larger}, {"min_with", vector_smaller}, {"log", vector_log}, {"exp", vector_exp},
      {"sqrt", vector_sqrt}, {"abs", vector_abs}, {"copy", vector_copy}, {"softmax", vector_softmax},
      {"logsumexp", vector_logsumexp}, {"sample", vector_sample}, {NULL, NULL}};
  static const luaL_Reg meta[] = {
      {"__add", vector_plus}, {"__sub", vector_minus}, {"__mul", vector_times}, {"__div", vector_over},
      {"__pow", vector_power}, {"__unm", vector_negative}, {"__len", vector_size}, {"__tostring", vector_text},
      {"__newindex", vector_assign}, {NULL, NULL}};
  lua_newtable(L);
  luaL_register(L, NULL, methods);
  lua_pushcclosure(L, vector_index, 1);
  ev_lua_class(L, EV_VECTOR, meta);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
  lua_pushcfunction(L, vector_new);
  lua_setfield(L, -2, "vector");
  lua_pushcfunction(L, column_of);
  lua_setfield(L, -2, "slate_column");
}
