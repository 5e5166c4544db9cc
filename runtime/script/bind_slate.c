/* bind_slate.c - slates: candidates in flight. slate.NAME is a column (slate.score always), slate:method() acts. */
#include <stdio.h>
#include <string.h>

#include "bind.h"

#define UNION_MAX 32

ev_slate *ev_lua_slate(lua_State *L, int arg) { return ((ev_lslate *)luaL_checkudata(L, arg, EV_SLATE))->slate; }

static int slate_new(lua_State *L) {
  ev_lslate *s = lua_newuserdata(L, sizeof *s);
  s->slate = NULL;
  luaL_getmetatable(L, EV_SLATE);
  lua_setmetatable(L, -2);
  s->slate = ev_slate_new();
  if (s->slate == NULL) return ev_lua_fail(L, EV_ENOMEM);
  lua_newtable(L); /* handles of columns, as long as somebody holds them or no collection came by */
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_setmetatable(L, -2);
  lua_setfenv(L, -2);
  return 1;
}

static int slate_close(lua_State *L) {
  ev_lslate *s = luaL_checkudata(L, 1, EV_SLATE);
  ev_slate_free(s->slate);
  s->slate = NULL;
  return 0;
}

static int slate_size(lua_State *L) {
  lua_pushnumber(L, (double)ev_slate_n(ev_lua_slate(L, 1)));
  return 1;
}

static size_t place(lua_State *L, ev_slate *s, int arg) { return (size_t)ev_lua_integer(L, arg, 1, (int64_t)ev_slate_n(s)) - 1; }

static int slate_item(lua_State *L) {
  ev_slate *s = ev_lua_slate(L, 1);
  lua_pushnumber(L, ev_slate_items(s)[place(L, s, 2)]);
  return 1;
}

static int slate_score_at(lua_State *L) {
  ev_slate *s = ev_lua_slate(L, 1);
  lua_pushnumber(L, ev_slate_scores(s)[place(L, s, 2)]);
  return 1;
}

static int slate_source_at(lua_State *L) {
  ev_slate *s = ev_lua_slate(L, 1);
  lua_pushnumber(L, ev_slate_sources(s)[place(L, s, 2)]);
  return 1;
}

static int slate_items(lua_State *L) {
  ev_slate *s = ev_lua_slate(L, 1);
  size_t n = ev_slate_n(s);
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, ev_slate_items(s)[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int slate_push(lua_State *L) { /* slate:push(item, score) */
  ev_slate *s = ev_lua_slate(L, 1);
  uint32_t item = (uint32_t)ev_lua_integer(L, 2, 0, EV_NONE - 1);
  float score = (float)luaL_checknumber(L, 3);
  EV_CHECK(L, ev_slate_append(s, &item, &score, 1, 0));
  return 0;
}

static int slate_clear(lua_State *L) {
  ev_slate_clear(ev_lua_slate(L, 1));
  return 0;
}

static int slate_sort(lua_State *L) {
  EV_CHECK(L, ev_slate_sort(ev_lua_slate(L, 1)));
  return 0;
}

static int slate_truncate(lua_State *L) {
  ev_slate_truncate(ev_lua_slate(L, 1), (size_t)ev_lua_integer(L, 2, 0, EV_SLATE_MAX_ITEMS));
  return 0;
}

static int slate_copy(lua_State *L) { /* slate:copy(from) */
  EV_CHECK(L, ev_slate_copy(ev_lua_slate(L, 1), ev_lua_slate(L, 2)));
  return 0;
}

static int slate_set_source(lua_State *L) { /* slate:set_source(bits): of every candidate */
  ev_slate *s = ev_lua_slate(L, 1);
  uint32_t bits = (uint32_t)ev_lua_integer(L, 2, 0, UINT32_MAX), *sources = ev_slate_sources(s);
  for (size_t i = 0; i < ev_slate_n(s); i++) sources[i] = bits;
  return 0;
}

static int slate_lookup(lua_State *L) { /* slate:lookup(v) → v's element of each candidate's item (v[1] is item 0) */
  ev_slate *s = ev_lua_slate(L, 1);
  size_t n = ev_slate_n(s), m;
  lua_settop(L, 2); /* out must not stand where the vector is missing */
  float *out = ev_lua_new_vector(L, n);
  const float *v = ev_lua_vector(L, 2, &m);
  const uint32_t *items = ev_slate_items(s);
  for (size_t i = 0; i < n; i++) out[i] = items[i] < m ? v[items[i]] : 0;
  return 1;
}

static int slate_places(lua_State *L) { /* slate:places() → 1, 2, … as the candidates stand */
  size_t n = ev_slate_n(ev_lua_slate(L, 1));
  float *out = ev_lua_new_vector(L, n);
  for (size_t i = 0; i < n; i++) out[i] = (float)(i + 1);
  return 1;
}

static int slate_union(lua_State *L) { /* slate:union({slates}, {names}) */
  ev_slate *in[UNION_MAX], *out = ev_lua_slate(L, 1);
  const char *names[UNION_MAX];
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TTABLE);
  size_t n = lua_objlen(L, 2);
  if (n > UNION_MAX || lua_objlen(L, 3) != n) return luaL_error(L, "a union of 1 to %d slates, each with its name", UNION_MAX);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    in[i] = ev_lua_slate(L, -1);
    lua_rawgeti(L, 3, (int)i + 1);
    luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, 3, "names must be text"); /* a number's text would have no owner */
    names[i] = lua_tostring(L, -1);
    lua_pop(L, 2); /* the tables still hold both */
  }
  EV_CHECK(L, ev_slate_union(out, in, names, n));
  return 0;
}

/* The feature column of an item that re-ranking goes by; options {column=, n=, …} stand at argument 3. */
static const ev_column *feature(lua_State *L) {
  ev_ldata *d = ev_lua_data(L, 2);
  const char *name = ev_lua_field_string(L, 3, "column", "");
  const ev_column *c = ev_snapshot_column(d->view->snapshot, EV_ITEM, name);
  if (c == NULL) luaL_error(L, "the data have no item column '%s'", name);
  if (c->type == EV_FLOAT) luaL_error(L, "item column '%s' holds numbers; tokens are needed", name);
  return c;
}

static int slate_mmr(lua_State *L) { /* slate:mmr(data, {column=, lambda=, n=}) */
  ev_slate *s = ev_lua_slate(L, 1);
  const ev_column *c = feature(L);
  float lambda = (float)ev_lua_field_number(L, 3, "lambda", 0.7, 0, 1);
  size_t n = (size_t)ev_lua_field_number(L, 3, "n", 20, 0, EV_SLATE_MAX_ITEMS);
  EV_CHECK(L, ev_slate_mmr(s, c, lambda, n));
  return 0;
}

static int slate_quota(lua_State *L) { /* slate:quota(data, {column=, cap=, n=}) */
  ev_slate *s = ev_lua_slate(L, 1);
  const ev_column *c = feature(L);
  size_t cap = (size_t)ev_lua_field_number(L, 3, "cap", 3, 1, EV_SLATE_MAX_ITEMS);
  size_t n = (size_t)ev_lua_field_number(L, 3, "n", 20, 0, EV_SLATE_MAX_ITEMS);
  EV_CHECK(L, ev_slate_quota(s, c, cap, n));
  return 0;
}

static int slate_cap(lua_State *L) { /* slate:cap{column=, cap=, n=}: a column of the slate */
  ev_slate *s = ev_lua_slate(L, 1);
  ev_lua_only(L, 2, "column cap n");
  const char *name = ev_lua_field_string(L, 2, "column", "");
  size_t cap = (size_t)ev_lua_field_number(L, 2, "cap", 3, 1, EV_SLATE_MAX_ITEMS);
  size_t n = (size_t)ev_lua_field_number(L, 2, "n", 20, 0, EV_SLATE_MAX_ITEMS);
  EV_CHECK(L, ev_slate_cap(s, name, cap, n));
  return 0;
}

static int slate_dpp(lua_State *L) { /* slate:dpp(data, {column=, theta=, alike=, n=}) */
  ev_slate *s = ev_lua_slate(L, 1);
  const ev_column *c = feature(L);
  float theta = (float)ev_lua_field_number(L, 3, "theta", 0.7, 0, 0.999);
  float alike = (float)ev_lua_field_number(L, 3, "alike", 0.9, 0, 1);
  size_t n = (size_t)ev_lua_field_number(L, 3, "n", 20, 0, EV_SLATE_MAX_ITEMS);
  EV_CHECK(L, ev_slate_dpp(s, c, theta, alike, n));
  return 0;
}

static int slate_calibrate(lua_State *L) { /* slate:calibrate(data, {column=, lambda=, alpha=, n=}, request) */
  ev_slate *s = ev_lua_slate(L, 1);
  const ev_column *c = feature(L);
  float lambda = (float)ev_lua_field_number(L, 3, "lambda", 0.5, 0, 1);
  float alpha = (float)ev_lua_field_number(L, 3, "alpha", 0.01, 1e-6, 0.999);
  size_t n = (size_t)ev_lua_field_number(L, 3, "n", 20, 0, EV_SLATE_MAX_ITEMS);
  ev_requests r = ev_lua_one(ev_lua_request(L, 4));
  EV_CHECK(L, ev_slate_calibrate(s, c, r.history + r.history_ptr[0], r.history_ptr[1] - r.history_ptr[0], lambda, alpha, n));
  return 0;
}

/* The handle of the column whose name stands at 2: a handle looks its column up by name at each call, so an old one will do. */
static int push_column(lua_State *L) {
  lua_getfenv(L, 1);
  lua_pushvalue(L, 2);
  lua_rawget(L, -2);
  if (!lua_isnil(L, -1)) return 1;
  lua_pushvalue(L, lua_upvalueindex(2)); /* slate_column */
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_call(L, 2, 1);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, -5);
  return 1;
}

static int slate_column(lua_State *L) { /* slate:column(name): finds or makes */
  float *ignored;
  const char *name = luaL_checkstring(L, 2);
  if (strcmp(name, "score") != 0) EV_CHECK(L, ev_slate_column(ev_lua_slate(L, 1), name, &ignored));
  return push_column(L);
}

static int slate_columns(lua_State *L) { /* names of the extra columns */
  ev_slate *s = ev_lua_slate(L, 1);
  lua_newtable(L);
  for (size_t i = 0; i < ev_slate_n_columns(s); i++) {
    lua_pushstring(L, ev_slate_column_name(s, i));
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int slate_index(lua_State *L) {
  ev_slate *s = ev_lua_slate(L, 1);
  const char *name = luaL_checkstring(L, 2);
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  if (!lua_isnil(L, -1)) return 1;
  if (strcmp(name, "score") != 0 && ev_slate_find(s, name) == NULL) return 1;
  return push_column(L);
}

static int slate_text(lua_State *L) {
  lua_pushfstring(L, "slate(%d candidates)", (int)ev_slate_n(ev_lua_slate(L, 1)));
  return 1;
}

void ev_bind_slate(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"item", slate_item}, {"score_at", slate_score_at}, {"source_at", slate_source_at}, {"items", slate_items},
      {"push", slate_push}, {"clear", slate_clear}, {"sort", slate_sort}, {"truncate", slate_truncate},
      {"copy", slate_copy}, {"lookup", slate_lookup}, {"set_source", slate_set_source}, {"union", slate_union}, {"mmr", slate_mmr},
      {"quota", slate_quota}, {"dpp", slate_dpp}, {"calibrate", slate_calibrate}, {"columns", slate_columns}, {"cap", slate_cap}, {"places", slate_places},
      {"weigh", ev_lua_slate_weigh}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__len", slate_size}, {"__gc", slate_close}, {"__tostring", slate_text}, {NULL, NULL}};
  ev_lua_class(L, EV_SLATE, meta);
  lua_newtable(L); /* methods */
  luaL_register(L, NULL, methods);
  lua_getfield(L, -3, "slate_column"); /* both closures share it as their second upvalue */
  lua_pushvalue(L, -2);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, slate_column, 2);
  lua_setfield(L, -3, "column");
  lua_pushcclosure(L, slate_index, 2);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_pushcclosure(L, slate_new, 1);
  lua_setfield(L, -2, "slate");
}
