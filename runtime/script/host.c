/* host.c - one Lua state with the native module, the library's search path and a capped heap. */
#include <limits.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "asks.h"
#include "bind.h"
#include "host.h"

#define COLLECTOR_BYTES (1u << 20) /* what a collection may need for itself */

/* LuaJIT's own allocator does the work (malloc maps and unmaps the vectors of a large catalog at every request); only the count is ours. */
static void *capped_alloc(void *ud, void *p, size_t old_size, size_t new_size) {
  ev_host *h = ud;
  if (p == NULL) old_size = 0;
  if (new_size > old_size && h->heap_used + (new_size - old_size) > h->heap_max) return NULL;
  void *q = h->alloc(h->alloc_ctx, p, old_size, new_size);
  if (q != NULL || new_size == 0) h->heap_used += new_size - old_size;
  return q;
}

static int collect(lua_State *L) {
  lua_gc(L, LUA_GCCOLLECT, 0);
  return 0;
}

void ev_host_collect(ev_host *h) {
  if (h->heap_max > 0) h->heap_max += COLLECTOR_BYTES;
  if (lua_cpcall(h->L, collect, NULL) != 0) lua_pop(h->L, 1); /* it did what it could */
  if (h->heap_max > 0) h->heap_max -= COLLECTOR_BYTES;
}

void ev_lua_make_room(lua_State *L, size_t bytes) {
  void *ctx;
  if (lua_getallocf(L, &ctx) != capped_alloc) return;
  ev_host *h = ctx;
  if (h->heap_used + bytes > h->heap_max) ev_host_collect(h);
}

ev_host *ev_lua_host(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, "ev.host");
  ev_host *h = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return h;
}

/* The folder that holds lua/evection: beside the build folder in a checkout, PREFIX/share/evection installed. */
static ev_status find_root(char out[PATH_MAX]) {
  static const char *const places[] = {"..", "../share/evection", ".", "../.."};
  char exe[PATH_MAX], try[PATH_MAX + 64];
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (n < 0) return ev_fail_errno("/proc/self/exe");
  exe[n] = '\0';
  char *slash = strrchr(exe, '/');
  *slash = '\0';
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    snprintf(try, sizeof try, "%s/%s/lua/evection/agent.lua", exe, places[i]);
    if (!ev_file_exists(try)) continue;
    snprintf(try, sizeof try, "%s/%s", exe, places[i]);
    return realpath(try, out) != NULL ? EV_OK : ev_fail_errno("%s", try);
  }
  return ev_fail(EV_ENOTFOUND, "%s: no lua/evection folder beside the executable", exe);
}

static int open_native(lua_State *L) {
  lua_newtable(L);
  ev_bind_base(L);
  ev_bind_process(L);
  ev_bind_json(L);
  ev_bind_yaml(L);
  ev_bind_vector(L);
  ev_bind_slate(L);
  ev_bind_data(L);
  ev_bind_fits(L);
  ev_bind_model(L);
  ev_bind_eval(L);
  ev_bind_ledger(L);
  ev_bind_ope(L);
  ev_bind_index(L);
  ev_bind_items(L);
  ev_bind_sequential(L);
  ev_bind_feed(L);
  ev_bind_arms(L);
  ev_bind_graph(L);
  ev_bind_tensor(L);
  ev_bind_train(L);
  ev_bind_batches(L);
  ev_bind_pareto(L);
  ev_bind_step(L);
  ev_bind_asks(L);
  ev_bind_columns(L);
  ev_host *h = ev_lua_host(L);
  lua_pushstring(L, h->root);
  lua_setfield(L, -2, "root");
  lua_pushstring(L, h->home);
  lua_setfield(L, -2, "home");
  return 1;
}

static int open_libraries(lua_State *L) {
  ev_host *h = lua_touserdata(L, 1);
  luaL_openlibs(L);
  lua_pushlightuserdata(L, h);
  lua_setfield(L, LUA_REGISTRYINDEX, "ev.host");
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_pushfstring(L, "%s/lua/?.lua;%s/lua/?/init.lua;%s", h->root, h->root, lua_tostring(L, -1));
  lua_setfield(L, -3, "path");
  lua_pop(L, 1);
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, open_native);
  lua_setfield(L, -2, "evection.native");
  return 0;
}

ev_status ev_host_new(ev_host **out, const ev_host_options *o) {
  *out = NULL;
  char root[PATH_MAX];
  if (o->root != NULL) snprintf(root, sizeof root, "%s", o->root);
  else EV_TRY(find_root(root));
  ev_host *h = ev_zalloc(1, sizeof *h);
  if (h == NULL) return EV_ENOMEM;
  const char *home = o->home != NULL ? o->home : "./var";
  h->root = ev_strndup(root, strlen(root));
  h->home = ev_strndup(home, strlen(home));
  h->heap_max = o->max_heap_bytes;
  ev_status status = EV_ENOMEM;
  if (h->root == NULL || h->home == NULL) goto fail;
  h->L = luaL_newstate();
  if (h->L == NULL) {
    status = ev_fail(EV_ENOMEM, "out of memory: no Lua state");
    goto fail;
  }
  if (h->heap_max > 0) {
    h->alloc = lua_getallocf(h->L, &h->alloc_ctx);
    h->heap_used = (size_t)lua_gc(h->L, LUA_GCCOUNT, 0) * 1024;
    lua_setallocf(h->L, capped_alloc, h);
  }
  if (lua_cpcall(h->L, open_libraries, h) != 0) {
    status = ev_fail(EV_ESCRIPT, "cannot start Lua: %s", lua_tostring(h->L, -1));
    goto fail;
  }
  *out = h;
  return EV_OK;
fail:
  ev_host_free(h);
  return status;
}

void ev_host_free(ev_host *h) {
  if (h == NULL) return;
  if (h->L != NULL && h->alloc != NULL) lua_setallocf(h->L, h->alloc, h->alloc_ctx); /* LuaJIT gives all of it back at once, if it is its own */
  if (h->L != NULL) lua_close(h->L);
  ev_free(h->root);
  ev_free(h->home);
  ev_free(h);
}

lua_State *ev_host_lua(ev_host *h) { return h->L; }
const char *ev_host_root(const ev_host *h) { return h->root; }
const char *ev_host_home(const ev_host *h) { return h->home; }

ev_status ev_lua_take_error(lua_State *L) {
  ev_status status = EV_ESCRIPT;
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "status");
    lua_getfield(L, -2, "message");
    if (lua_isnumber(L, -2)) status = (ev_status)lua_tointeger(L, -2);
    ev_fail(status, "%s", lua_isstring(L, -1) ? lua_tostring(L, -1) : "error without a message");
    lua_pop(L, 2);
  } else {
    const char *text = lua_tostring(L, -1);
    ev_fail(status, "%s", text != NULL ? text : "error without a message");
  }
  lua_pop(L, 1);
  return ev_interrupted() ? EV_EINTR : status;
}

/* With EVECTION_TRACEBACK in the environment a plain error message carries where it came from. */
static int traceback(lua_State *L) {
  if (lua_isstring(L, 1) && getenv("EVECTION_TRACEBACK") != NULL) {
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
  }
  lua_settop(L, 1);
  return 1;
}

static int protected_call(lua_State *L) { /* module, fn, json | nil → result */
  lua_getglobal(L, "require");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (!lua_istable(L, -1)) return luaL_error(L, "module %s is not a table", lua_tostring(L, 1));
  lua_pushvalue(L, 2);
  lua_gettable(L, -2);
  if (!lua_isfunction(L, -1)) return luaL_error(L, "module %s has no function %s", lua_tostring(L, 1), lua_tostring(L, 2));
  if (lua_isnil(L, 3)) {
    lua_call(L, 0, 1);
    return 1;
  }
  size_t len;
  const char *text = lua_tolstring(L, 3, &len);
  EV_CHECK(L, ev_lua_json_decode(L, text, len));
  lua_call(L, 1, 1);
  return 1;
}

ev_status ev_host_call(ev_host *h, const char *module, const char *fn, const char *json_args, ev_buf *out) {
  lua_State *L = h->L;
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 16)) return ev_fail(EV_ENOMEM, "Lua stack is full");
  lua_pushcfunction(L, traceback);
  lua_pushcfunction(L, protected_call);
  lua_pushstring(L, module);
  lua_pushstring(L, fn);
  if (json_args != NULL) lua_pushstring(L, json_args);
  else lua_pushnil(L);
  ev_status status = EV_OK;
  if (lua_pcall(L, 3, 1, top + 1) != 0) status = ev_lua_take_error(L);
  else if (out != NULL) status = ev_lua_json_encode(L, -1, out);
  lua_settop(L, top);
  return status;
}

ev_status ev_host_run(ev_host *h, const char *path, int argc, char **argv) {
  lua_State *L = h->L;
  int top = lua_gettop(L);
  lua_createtable(L, argc, 1);
  lua_pushstring(L, path);
  lua_rawseti(L, -2, 0);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setglobal(L, "arg");
  lua_pushcfunction(L, traceback);
  ev_status status = EV_OK;
  if (!ev_file_exists(path)) {
    status = ev_fail(EV_ENOTFOUND, "%s: no such file", path);
  } else if (luaL_loadfile(L, path) != 0) {
    status = ev_lua_take_error(L);
    if (status == EV_ESCRIPT) status = EV_EINVAL;
  } else {
    for (int i = 0; i < argc; i++) lua_pushstring(L, argv[i]);
    if (lua_pcall(L, argc, 0, top + 1) != 0) status = ev_lua_take_error(L);
  }
  lua_settop(L, top);
  return status;
}
