/* bind_step.c - a node's slate before and after its act; for the trusted library. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "step.h"

#define EV_STEP "ev.step"

const char *const ev_role_names[] = {"recall", "merge", "rank", "rerank", "explore", NULL};

ev_lstep *ev_lua_step(lua_State *L, int arg) { return luaL_checkudata(L, arg, EV_STEP); }

ev_status ev_step_open(ev_lstep *s) {
  ev_slate *slate = s->slate->slate;
  if (s->role == EV_ROLE_RECALL) {
    ev_slate_clear(slate);
    return EV_OK;
  }
  if (s->role != EV_ROLE_MERGE) return ev_slate_copy(slate, s->in[0]->slate);
  ev_slate *in[EV_STEP_INPUTS];
  const char *names[EV_STEP_INPUTS];
  for (size_t i = 0; i < s->n_in; i++) {
    in[i] = s->in[i]->slate;
    names[i] = s->names[i];
  }
  return ev_slate_union(slate, in, names, s->n_in);
}

void ev_step_pass(ev_lstep *s) {
  if (s->role != EV_ROLE_MERGE) return;
  ev_slate *slate = s->slate->slate;
  size_t n = ev_slate_n(slate);
  float *score = ev_slate_scores(slate);
  for (size_t i = 0; i < n; i++) score[i] = 0;
  for (size_t j = 0; j < s->n_in; j++) {
    char name[64];
    snprintf(name, sizeof name, "rank.%s", s->names[j]);
    const float *rank = ev_slate_find(slate, name);
    for (size_t i = 0; rank != NULL && i < n; i++)
      if (rank[i] > 0) score[i] = fmaxf(score[i], 1 / fmaxf(rank[i], 1));
  }
}

ev_status ev_step_close(ev_lstep *s, size_t n) {
  ev_slate *slate = s->slate->slate;
  if (s->bit != 0) {
    uint32_t *sources = ev_slate_sources(slate);
    for (size_t i = 0; i < ev_slate_n(slate); i++) sources[i] = s->bit;
  }
  if (n == 0) n = ev_slate_n(slate);
  if (s->role != EV_ROLE_RERANK && s->role != EV_ROLE_EXPLORE) return ev_slate_best(slate, n);
  ev_slate_truncate(slate, n);
  return EV_OK;
}

/* step(role, slate, {input slates}, {names}, bit | nil) → step */
static int step_new(lua_State *L) {
  int role = luaL_checkoption(L, 1, NULL, ev_role_names);
  luaL_checkudata(L, 2, EV_SLATE);
  luaL_checktype(L, 3, LUA_TTABLE);
  luaL_checktype(L, 4, LUA_TTABLE);
  size_t n = lua_objlen(L, 3);
  if (n > EV_STEP_INPUTS || lua_objlen(L, 4) != n) return luaL_error(L, "a node has at most %d inputs, each with its name", EV_STEP_INPUTS);
  if ((n == 0) != (role == EV_ROLE_RECALL)) return luaL_error(L, "a node of role %s with %d inputs", ev_role_names[role], (int)n);
  ev_lstep *s = lua_newuserdata(L, sizeof *s);
  *s = (ev_lstep){.role = (ev_role)role, .n_in = n};
  luaL_getmetatable(L, EV_STEP);
  lua_setmetatable(L, -2);
  int at = lua_gettop(L);
  lua_createtable(L, (int)n + 1, 0); /* what it borrows from */
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 1);
  s->slate = lua_touserdata(L, 2);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 3, (int)i + 1);
    s->in[i] = luaL_checkudata(L, -1, EV_SLATE);
    lua_rawseti(L, -2, (int)i + 2);
    lua_rawgeti(L, 4, (int)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING || lua_objlen(L, -1) >= sizeof s->names[i]) return luaL_error(L, "a name of an input is text of at most 47 bytes");
    snprintf(s->names[i], sizeof s->names[i], "%s", lua_tostring(L, -1));
    lua_pop(L, 1);
  }
  lua_setfenv(L, at);
  if (!lua_isnoneornil(L, 5)) s->bit = (uint32_t)ev_lua_integer(L, 5, 1, UINT32_MAX);
  return 1;
}

static int step_open(lua_State *L) {
  EV_CHECK(L, ev_step_open(ev_lua_step(L, 1)));
  return 0;
}

static int step_pass(lua_State *L) {
  ev_step_pass(ev_lua_step(L, 1));
  return 0;
}

static int step_close(lua_State *L) { /* step_close(step, n | nil) */
  EV_CHECK(L, ev_step_close(ev_lua_step(L, 1), lua_isnoneornil(L, 2) ? 0 : (size_t)ev_lua_integer(L, 2, 1, EV_SLATE_MAX_ITEMS)));
  return 0;
}

void ev_bind_step(lua_State *L) {
  static const luaL_Reg methods[] = {{NULL, NULL}};
  static const luaL_Reg functions[] = {{"step", step_new}, {"step_open", step_open}, {"step_pass", step_pass}, {"step_close", step_close}, {NULL, NULL}};
  ev_lua_class(L, EV_STEP, methods);
  lua_pop(L, 1);
  luaL_register(L, NULL, functions);
}
