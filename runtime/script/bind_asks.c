/* bind_asks.c - from a fitted composition to what is served; for the trusted library. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asks.h"

#define EV_ASKS "ev.asks"

static int ref_field(lua_State *L, int table, const char *key, int type) {
  lua_getfield(L, table, key);
  if (type != LUA_TNONE && lua_type(L, -1) != type) luaL_error(L, "%s: expected a %s", key, lua_typename(L, type));
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

static uint64_t budget_field(lua_State *L, int table) { return (uint64_t)(ev_lua_field_number(L, table, "budget_ms", 0, 0, 1e9) * 1e6); }

static void read_node(lua_State *L, int table, ev_asks_node *node) {
  snprintf(node->name, sizeof node->name, "%s", ev_lua_field_string(L, table, "name", ""));
  snprintf(node->hash, sizeof node->hash, "%s", ev_lua_field_string(L, table, "hash", ""));
  const char *agent = ev_lua_field_string(L, table, "agent", "");
  node->agent = ev_strndup(agent, strlen(agent));
  if (node->agent == NULL) ev_lua_fail(L, EV_ENOMEM);
  lua_getfield(L, table, "step");
  node->step = ev_lua_step(L, -1);
  lua_pop(L, 1);
  node->act = ref_field(L, table, "act", LUA_TFUNCTION);
  node->ctx = ref_field(L, table, "ctx", LUA_TTABLE);
  node->model = ref_field(L, table, "model", LUA_TNONE);
  node->slate = ref_field(L, table, "slate", LUA_TUSERDATA);
  node->n = (size_t)ev_lua_field_number(L, table, "n", 0, 0, EV_SLATE_MAX_ITEMS);
  node->budget_ns = budget_field(L, table);
}

/* serving { snapshot =, nodes = { { name =, agent =, hash =, step =, act =, model =, slate =, ctx =, n =, budget_ms = }, … in running order },
 * output = place of its node, budget_ms =, learn = function(events) }: what this state is asked for from now on. */
static int serving(lua_State *L) {
  ev_host *h = ev_lua_host(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_getfield(L, 1, "snapshot");
  ev_snapshot *s = ev_lua_snapshot(L, 2);
  lua_getfield(L, 1, "nodes");
  luaL_checktype(L, 3, LUA_TTABLE);
  size_t n = lua_objlen(L, 3);
  if (n < 1 || n > EV_ASKS_NODES) return luaL_error(L, "a composition that is served has 1 to %d nodes, not %d", EV_ASKS_NODES, (int)n);
  ev_asks *a = lua_newuserdata(L, sizeof *a); /* the collector's, should anything be raised from here; what is served so far stays */
  memset(a, 0, sizeof *a);
  luaL_getmetatable(L, EV_ASKS);
  lua_setmetatable(L, -2);
  a->host = h;
  a->keep = a->learn = a->request_ref = a->self = LUA_NOREF;
  a->n_users = ev_snapshot_n_users(s);
  a->n_items = ev_snapshot_n_items(s);
  a->nodes = ev_zalloc(n + 1, sizeof *a->nodes);
  if (a->nodes == NULL) return ev_lua_fail(L, EV_ENOMEM);
  for (size_t i = 0; i <= n; i++) a->nodes[i].act = a->nodes[i].model = a->nodes[i].slate = a->nodes[i].ctx = LUA_NOREF;
  for (a->n_nodes = 0; a->n_nodes < n; a->n_nodes++) {
    lua_rawgeti(L, 3, (int)a->n_nodes + 1);
    luaL_checktype(L, 5, LUA_TTABLE);
    read_node(L, 5, &a->nodes[a->n_nodes]);
    lua_pop(L, 1);
  }
  lua_getfield(L, 1, "output");
  a->output = (size_t)ev_lua_integer(L, 5, 1, (int64_t)n) - 1;
  lua_pop(L, 1);
  a->budget_ns = budget_field(L, 1);
  a->learn = ref_field(L, 1, "learn", LUA_TFUNCTION);
  a->request = ev_lua_new_request(L);
  a->request_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  ev_lbatch *b = &a->request->batch;
  b->n_users = a->n_users;
  b->n_items = a->n_items;
  b->user = ev_alloc(1, sizeof *b->user);
  b->history_ptr = ev_zalloc(2, sizeof *b->history_ptr);
  b->seen_ptr = ev_zalloc(2, sizeof *b->seen_ptr);
  if (b->user == NULL || b->history_ptr == NULL || b->seen_ptr == NULL) return ev_lua_fail(L, EV_ENOMEM);
  lua_pushvalue(L, 1);
  a->keep = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushvalue(L, 4);
  a->self = luaL_ref(L, LUA_REGISTRYINDEX);
  ev_asks_release(h->asks);
  h->asks = a;
  return 0;
}

static int asks_close(lua_State *L) {
  ev_asks *a = luaL_checkudata(L, 1, EV_ASKS);
  for (size_t i = 0; a->nodes != NULL && i <= a->n_nodes; i++) ev_free(a->nodes[i].agent); /* one that was being read when it went wrong, too */
  ev_free(a->nodes);
  a->nodes = NULL;
  return 0;
}

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* ask(user | nil, {history}, n) → how many items the slate has: a request as the service makes it, with all of the history seen. Raises
 * when a node fails. */
static int ask_once(lua_State *L) {
  ev_host *h = ev_lua_host(L);
  if (h->asks == NULL) return luaL_error(L, "nothing was loaded to be served");
  luaL_checktype(L, 2, LUA_TTABLE);
  size_t n = lua_objlen(L, 2), distinct = 0;
  ev_ask ask = {.user = lua_isnil(L, 1) ? EV_NONE : (uint32_t)ev_lua_integer(L, 1, 0, EV_NONE - 1), .n = (size_t)ev_lua_integer(L, 3, 1, EV_ASK_MAX)};
  uint32_t *history = ev_lua_scratch(L, 2 * n, sizeof *history), *seen = history + n;
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    history[i] = (uint32_t)ev_lua_integer(L, -1, 0, EV_NONE - 1);
    lua_pop(L, 1);
  }
  if (n > 0) memcpy(seen, history, n * sizeof *seen);
  qsort(seen, n, sizeof *seen, by_number);
  for (size_t i = 0; i < n; i++)
    if (i == 0 || seen[i] != seen[i - 1]) seen[distinct++] = seen[i];
  ask.history = history;
  ask.n_history = n;
  ask.seen = seen;
  ask.n_seen = distinct;
  ev_answer *answer = ev_lua_scratch(L, 1, sizeof *answer);
  EV_CHECK(L, ev_asks_recommend(h->asks, &ask, answer, NULL, NULL, NULL, true));
  lua_pushnumber(L, answer->n);
  return 1;
}

void ev_bind_asks(lua_State *L) {
  static const luaL_Reg methods[] = {{"__gc", asks_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"serving", serving}, {"ask", ask_once}, {NULL, NULL}};
  ev_lua_class(L, EV_ASKS, methods);
  lua_pop(L, 1);
  luaL_register(L, NULL, functions);
}
