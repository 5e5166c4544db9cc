/* bind_pareto.c - fronts of several objectives, and blocks of users, for the library that weighs rewards. */
#include <math.h>
#include <string.h>

#include "bind.h"

/* Points at `arg`, a list of lists of numbers of one length: memory on the stack, (n, n_dims) */
static double *points_of(lua_State *L, int arg, size_t *n, size_t *n_dims) {
  luaL_checktype(L, arg, LUA_TTABLE);
  *n = lua_objlen(L, arg);
  *n_dims = 1;
  for (size_t i = 0; i < *n; i++) {
    lua_rawgeti(L, arg, (int)i + 1);
    if (!lua_istable(L, -1)) luaL_argerror(L, arg, "a list of points, each a list of numbers");
    size_t d = lua_objlen(L, -1);
    if (i == 0) *n_dims = d;
    if (d != *n_dims || d == 0 || d > EV_PARETO_DIMS) luaL_error(L, "point %d has %d objectives: all have as many, 1 to %d", (int)i + 1, (int)d, EV_PARETO_DIMS);
    lua_pop(L, 1);
  }
  double *p = ev_lua_scratch(L, *n * *n_dims + 1, sizeof *p);
  for (size_t i = 0; i < *n; i++) {
    lua_rawgeti(L, arg, (int)i + 1);
    for (size_t d = 0; d < *n_dims; d++) {
      lua_rawgeti(L, -1, (int)d + 1);
      if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "point %d: objective %d is no number", (int)i + 1, (int)d + 1);
      p[i * *n_dims + d] = lua_tonumber(L, -1);
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  return p;
}

static int pareto_ranks(lua_State *L) { /* pareto_ranks({points}) → ranks, from 0; all objectives maximised */
  size_t n, n_dims;
  double *p = points_of(L, 1, &n, &n_dims);
  uint32_t *rank = ev_lua_scratch(L, n + 1, sizeof *rank);
  EV_CHECK(L, ev_pareto_ranks(rank, p, n, n_dims));
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, rank[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int hypervolume(lua_State *L) { /* hypervolume({points}, {reference}) → number */
  size_t n, n_dims, m, one;
  double value, *p = points_of(L, 1, &n, &n_dims);
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 1);
  double *reference = points_of(L, lua_gettop(L), &one, &m);
  if (n > 0 && m != n_dims) return luaL_error(L, "the reference has %d objectives, the points %d", (int)m, (int)n_dims);
  EV_CHECK(L, ev_hypervolume(&value, p, n, n > 0 ? n_dims : m, reference));
  lua_pushnumber(L, value);
  return 1;
}

static int data_block(lua_State *L) { /* data_block(data, block, n): what users block − 1, block − 1 + n, … have; the others have nothing */
  ev_ldata *d = ev_lua_data(L, 1);
  size_t n = (size_t)ev_lua_integer(L, 3, 1, 1 << 20), block = (size_t)ev_lua_integer(L, 2, 1, (int64_t)n) - 1;
  ev_ldata *part = ev_lua_new_data(L, 1);
  EV_CHECK(L, ev_view_block(&part->view, d->view, block, n));
  return 1;
}

void ev_bind_pareto(lua_State *L) {
  static const luaL_Reg functions[] = {{"pareto_ranks", pareto_ranks}, {"hypervolume", hypervolume}, {"data_block", data_block}, {NULL, NULL}};
  luaL_register(L, NULL, functions);
}
