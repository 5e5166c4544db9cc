/* bind_index.c - an index in memory: vectors by row number, and the best of them for a query.
 *
 * Arguments are copied out of Lua first, then the handle is looked at, and results are pushed last: whatever a finalizer does
 * meanwhile, nothing that C holds is taken away under it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"

#define K_MAX (1 << 20)

typedef struct lindex {
  ev_index *index; /* owned; NULL: closed */
  ev_pack *pack;   /* owned; what it is mapped from, or NULL */
} lindex;

static ev_index *check(lua_State *L) {
  lindex *x = luaL_checkudata(L, 1, EV_INDEX);
  if (x->index == NULL) luaL_error(L, "the index is closed");
  return x->index;
}

static size_t n_dims(lua_State *L) { return ev_index_opts(check(L))->n_dims; }

/* ---- Options -------------------------------------------------------------------------------------------*/
/* The field's text as one of the names, which are static; whatever a metamethod made of it is gone by then. */
static const char *choice(lua_State *L, int arg, const char *key, const char *const *names, const char *fallback) {
  const char *found = NULL;
  lua_getfield(L, arg, key);
  if (lua_isnil(L, -1)) found = fallback;
  else if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "%s: expected text, got %s", key, luaL_typename(L, -1));
  for (size_t i = 0; names[i] != NULL && found == NULL; i++)
    if (strcmp(names[i], lua_tostring(L, -1)) == 0) found = names[i];
  if (found == NULL) luaL_error(L, "%s: '%s' is none of those there are", key, lua_tostring(L, -1));
  lua_pop(L, 1);
  return found;
}

static double whole(lua_State *L, int arg, const char *key, double fallback, double low, double high) {
  double x = ev_lua_field_number(L, arg, key, fallback, low, high);
  if (x != floor(x)) luaL_error(L, "%s: %f is not a whole number", key, x);
  return x;
}

void ev_lua_index_options(lua_State *L, int arg, ev_index_options *o) {
  static const char *const kinds[] = {"flat", "hnsw", "ivf", NULL}, *const metrics[] = {"dot", "cosine", "l2", NULL};
  static const char *const forms[] = {"f32", "f16", "bf16", "i8", NULL};
  o->kind = choice(L, arg, "kind", kinds, o->kind);
  o->metric = choice(L, arg, "metric", metrics, o->metric);
  o->form = choice(L, arg, "form", forms, o->form);
  o->rescore = ev_lua_field_bool(L, arg, "rescore", o->rescore);
  o->n_dims = (size_t)whole(L, arg, "n_dims", (double)o->n_dims, 0, 65536);
  o->max_rows = (size_t)whole(L, arg, "max_rows", (double)o->max_rows, 1, EV_NONE - 1);
  o->n_links = (unsigned)whole(L, arg, "n_links", o->n_links, 2, 1024);
  o->effort_build = (unsigned)whole(L, arg, "effort_build", o->effort_build, 1, 1e6);
  o->n_lists = (unsigned)whole(L, arg, "n_lists", o->n_lists, 0, 1 << 24);
  o->effort = (unsigned)whole(L, arg, "effort", o->effort, 0, 1e6);
  o->seed = (uint64_t)whole(L, arg, "seed", (double)o->seed, 0, 9007199254740992.0);
}

/* ---- Opening and closing -------------------------------------------------------------------------------*/
static lindex *push_handle(lua_State *L) {
  lindex *x = lua_newuserdata(L, sizeof *x);
  *x = (lindex){NULL, NULL};
  luaL_getmetatable(L, EV_INDEX);
  lua_setmetatable(L, -2);
  return x;
}

static int index_new(lua_State *L) { /* index{ n_dims =, kind =, metric =, … } */
  ev_index_options o;
  luaL_checktype(L, 1, LUA_TTABLE);
  ev_lua_only(L, 1, EV_INDEX_WORDS);
  ev_index_defaults(&o);
  ev_lua_index_options(L, 1, &o);
  lindex *x = push_handle(L);
  EV_CHECK(L, ev_index_new(&x->index, &o));
  return 1;
}

static int index_open(lua_State *L) { /* index_open(path): one that was saved */
  const char *path = luaL_checkstring(L, 1);
  lindex *x = push_handle(L);
  EV_CHECK(L, ev_pack_open(&x->pack, path));
  if (strcmp(ev_pack_kind(x->pack), "index") != 0) return luaL_error(L, "%s: a file of kind '%s', not an index", path, ev_pack_kind(x->pack));
  ev_index_options o;
  ev_index_defaults(&o);
  EV_CHECK(L, ev_index_map(&x->index, x->pack, o.max_rows));
  return 1;
}

static int index_close(lua_State *L) {
  lindex *x = luaL_checkudata(L, 1, EV_INDEX);
  ev_index_free(x->index);
  ev_pack_close(x->pack);
  *x = (lindex){NULL, NULL};
  return 0;
}

static int index_save(lua_State *L) { /* index:save(path): whole or not at all */
  ev_index *x = check(L);
  ev_pack_writer *w;
  EV_CHECK(L, ev_pack_writer_open(&w, luaL_checkstring(L, 2), "index"));
  ev_status status = ev_index_write(x, w, NULL, 0);
  if (status == EV_OK) status = ev_pack_writer_commit(w);
  else ev_pack_writer_abort(w);
  EV_CHECK(L, status);
  return 0;
}

/* ---- Rows and vectors ----------------------------------------------------------------------------------*/
/* Row numbers at `arg`: a number, or a list of them. Pushed. */
static uint32_t *take_rows(lua_State *L, int arg, size_t *n) {
  bool one = lua_type(L, arg) == LUA_TNUMBER;
  if (!one) luaL_checktype(L, arg, LUA_TTABLE);
  *n = one ? 1 : lua_objlen(L, arg);
  uint32_t *rows = ev_lua_scratch(L, *n, sizeof *rows);
  for (size_t i = 0; i < *n; i++) {
    if (one) lua_pushvalue(L, arg);
    else lua_rawgeti(L, arg, (int)i + 1);
    double x = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
    if (!(x >= 0 && x < EV_NONE) || x != floor(x)) luaL_error(L, "row %d of the list is not a whole number from 0 on", (int)i + 1);
    rows[i] = (uint32_t)x;
    lua_pop(L, 1);
  }
  return rows;
}

/* Vectors at `arg`: one, a list of them, or a vector that holds them one behind the other. Pushed, (n, d). */
static float *take_vectors(lua_State *L, int arg, size_t d, size_t *n) {
  int64_t m = ev_lua_n_numbers(L, arg);
  if (m < 0) luaL_argerror(L, arg, "a vector or a list of vectors is expected");
  if (lua_istable(L, arg) && m > 0) lua_rawgeti(L, arg, 1);
  else lua_pushnil(L);
  bool flat = lua_isnil(L, -1) || lua_type(L, -1) == LUA_TNUMBER;
  lua_pop(L, 1);
  if (flat && (m == 0 || (size_t)m % d != 0)) luaL_error(L, "%d numbers; the vectors of this index have %d", (int)m, (int)d);
  *n = flat ? (size_t)m / d : (size_t)m;
  float *out = ev_lua_scratch(L, *n, d * sizeof *out);
  if (flat) {
    ev_lua_numbers(L, arg, "the vector", out, (size_t)m);
    return out;
  }
  for (size_t i = 0; i < *n; i++) {
    char what[32];
    snprintf(what, sizeof what, "vector %zu", i + 1);
    lua_rawgeti(L, arg, (int)i + 1);
    int64_t k = ev_lua_n_numbers(L, lua_gettop(L));
    if (k < 0) luaL_error(L, "%s is a %s", what, luaL_typename(L, -1));
    if ((size_t)k != d) luaL_error(L, "%s has %d numbers; those of this index have %d", what, (int)k, (int)d);
    ev_lua_numbers(L, lua_gettop(L), what, out + i * d, d);
    lua_pop(L, 1);
  }
  return out;
}

static int index_put(lua_State *L) { /* index:put(rows | first row, vectors) */
  size_t n, n_rows;
  lua_settop(L, 3); /* what is pushed must not stand where an argument is missing */
  float *vectors = take_vectors(L, 3, n_dims(L), &n);
  uint32_t *rows = take_rows(L, 2, &n_rows);
  if (n_rows == 1 && n > 1) { /* the first of a run */
    uint32_t first = rows[0];
    if (first >= EV_NONE - n) return luaL_error(L, "rows from %f on are too many", (double)first);
    rows = ev_lua_scratch(L, n, sizeof *rows);
    for (size_t i = 0; i < n; i++) rows[i] = first + (uint32_t)i;
    n_rows = n;
  }
  if (n_rows != n) return luaL_error(L, "%d rows for %d vectors", (int)n_rows, (int)n);
  EV_CHECK(L, ev_index_put(check(L), rows, vectors, n));
  return 0;
}

static int index_delete(lua_State *L) { /* index:delete(rows | row) */
  check(L);
  size_t n;
  lua_settop(L, 2);
  uint32_t *rows = take_rows(L, 2, &n);
  EV_CHECK(L, ev_index_delete(check(L), rows, n));
  return 0;
}

static int index_has(lua_State *L) {
  check(L);
  uint32_t row = (uint32_t)ev_lua_integer(L, 2, 0, EV_NONE - 1);
  lua_pushboolean(L, ev_index_has(check(L), row));
  return 1;
}

static int index_get(lua_State *L) { /* index:get(row) → vector, or nil */
  check(L);
  uint32_t row = (uint32_t)ev_lua_integer(L, 2, 0, EV_NONE - 1);
  float *out = ev_lua_new_vector(L, n_dims(L));
  ev_status status = ev_index_get(check(L), row, out);
  if (status == EV_ENOTFOUND) lua_pushnil(L);
  else EV_CHECK(L, status);
  return 1;
}

static int by_row(const void *a, const void *b) { return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b); }

/* Rows of the list `key` of the options at 4, ascending and distinct; pushed. NULL: there is none. */
static uint32_t *row_list(lua_State *L, const char *key, size_t *n) {
  *n = 0;
  if (lua_isnoneornil(L, 4)) return NULL;
  lua_getfield(L, 4, key);
  if (lua_isnil(L, -1)) return NULL;
  uint32_t *rows = take_rows(L, lua_gettop(L), n);
  qsort(rows, *n, sizeof *rows, by_row);
  size_t kept = 0;
  for (size_t i = 0; i < *n; i++)
    if (i == 0 || rows[i] != rows[i - 1]) rows[kept++] = rows[i];
  *n = kept;
  return rows;
}

/* Searches for the m queries; rows and scores (m, k) are pushed. */
static void search(lua_State *L, const float *q, size_t m, size_t *k, uint32_t **rows, float **scores, size_t *looked_at) {
  ev_lua_only(L, 4, "allowed exclude effort");
  *k = (size_t)ev_lua_integer(L, 3, 1, K_MAX);
  size_t n_allowed, n_seen;
  ev_search s = {.k = *k, .effort = (unsigned)whole(L, 4, "effort", 0, 0, 1e6), .n_looked_at = looked_at};
  uint32_t *allowed = row_list(L, "allowed", &n_allowed), *seen = row_list(L, "exclude", &n_seen);
  if (allowed != NULL) {
    s.n_allowed = n_allowed > 0 ? (size_t)allowed[n_allowed - 1] + 1 : 0;
    size_t words = s.n_allowed / 64 + 1;
    uint64_t *bits = ev_lua_scratch(L, words, sizeof *bits);
    memset(bits, 0, words * sizeof *bits);
    for (size_t i = 0; i < n_allowed; i++) bits[allowed[i] / 64] |= UINT64_C(1) << (allowed[i] % 64);
    s.allowed = bits;
  }
  if (n_seen > 0) { /* the same for all of them */
    uint64_t *ptr = ev_lua_scratch(L, m + 1, sizeof *ptr);
    uint32_t *all = ev_lua_scratch(L, n_seen, m * sizeof *all);
    for (size_t i = 0; i <= m; i++) ptr[i] = i * n_seen;
    for (size_t i = 0; i < m; i++) memcpy(all + i * n_seen, seen, n_seen * sizeof *all);
    s.seen_ptr = ptr;
    s.seen = all;
  }
  *rows = ev_lua_scratch(L, m, *k * sizeof **rows);
  *scores = ev_lua_scratch(L, m, *k * sizeof **scores);
  *looked_at = 0;
  ev_status status = ev_index_search(check(L), q, m, &s, *rows, *scores);
  if (status != EV_OK) ev_lua_fail(L, status);
}

static void push_found(lua_State *L, const uint32_t *rows, const float *scores, size_t k) { /* list of rows, list of scores */
  size_t n = 0;
  while (n < k && rows[n] != EV_NONE) n++;
  lua_createtable(L, (int)n, 0);
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, rows[i]);
    lua_rawseti(L, -3, (int)i + 1);
    lua_pushnumber(L, scores[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
}

static int index_search(lua_State *L) { /* index:search(vector, k, { allowed =, exclude =, effort = }) → rows, scores, vectors looked at */
  size_t m, k, looked_at;
  uint32_t *rows;
  lua_settop(L, 4);
  float *scores, *q = take_vectors(L, 2, n_dims(L), &m);
  if (m != 1) return luaL_error(L, "one vector is searched for; search_many takes several");
  search(L, q, 1, &k, &rows, &scores, &looked_at);
  push_found(L, rows, scores, k);
  lua_pushnumber(L, (double)looked_at);
  return 3;
}

static int index_search_many(lua_State *L) { /* → a list of lists of rows, a list of lists of scores, vectors looked at; on all threads */
  size_t m, k, looked_at;
  uint32_t *rows;
  lua_settop(L, 4);
  float *scores, *q = take_vectors(L, 2, n_dims(L), &m);
  search(L, q, m, &k, &rows, &scores, &looked_at);
  lua_createtable(L, (int)m, 0);
  lua_createtable(L, (int)m, 0);
  for (size_t i = 0; i < m; i++) {
    push_found(L, rows + i * k, scores + i * k, k);
    lua_rawseti(L, -3, (int)i + 1);
    lua_rawseti(L, -3, (int)i + 1);
  }
  lua_pushnumber(L, (double)looked_at);
  return 3;
}

static int index_size(lua_State *L) {
  lua_pushnumber(L, (double)ev_index_n(check(L)));
  return 1;
}

static int index_stats(lua_State *L) {
  const ev_index *x = check(L);
  const ev_index_options *o = ev_index_opts(x);
  const struct { const char *name; double value; } numbers[] = {
      {"n_dims", (double)o->n_dims}, {"n", (double)ev_index_n(x)}, {"n_rows", (double)ev_index_n_rows(x)}, {"bytes", (double)ev_index_bytes(x)},
      {"n_links", o->n_links}, {"effort_build", o->effort_build}, {"n_lists", o->n_lists}, {"effort", o->effort}};
  const char *const texts[][2] = {{"kind", o->kind}, {"metric", o->metric}, {"form", o->form}};
  bool rescore = o->rescore;
  lua_createtable(L, 0, 12);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) { /* kinds, metrics and forms are static texts */
    lua_pushstring(L, texts[i][1]);
    lua_setfield(L, -2, texts[i][0]);
  }
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    lua_pushnumber(L, numbers[i].value);
    lua_setfield(L, -2, numbers[i].name);
  }
  lua_pushboolean(L, rescore);
  lua_setfield(L, -2, "rescore");
  return 1;
}

static int index_text(lua_State *L) {
  lindex *x = luaL_checkudata(L, 1, EV_INDEX);
  if (x->index == NULL) {
    lua_pushliteral(L, "index(closed)");
    return 1;
  }
  const ev_index_options *o = ev_index_opts(x->index);
  lua_pushfstring(L, "index(%s, %s, %s: %d vectors of %d)", o->kind, o->metric, o->form, (int)ev_index_n(x->index), (int)o->n_dims);
  return 1;
}

void ev_bind_index(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"put", index_put}, {"delete", index_delete}, {"has", index_has}, {"get", index_get}, {"search", index_search}, {"search_many", index_search_many},
      {"stats", index_stats}, {"save", index_save}, {"close", index_close}, {"__len", index_size}, {"__gc", index_close}, {"__tostring", index_text},
      {NULL, NULL}};
  ev_lua_class(L, EV_INDEX, methods);
  lua_pop(L, 1);
  lua_pushcfunction(L, index_new);
  lua_setfield(L, -2, "index");
  lua_pushcfunction(L, index_open);
  lua_setfield(L, -2, "index_open");
}
