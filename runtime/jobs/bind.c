/* bind.c - native.jobs_run for the Lua library. */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "jobs.h"

typedef struct batch {
  lua_State *L;
  ev_host_options host; /* of the children */
  const char *module, *fn;
  const char **args; /* JSON, borrowed from the Lua stack's table of texts */
} batch;

static ev_status run_job(void *ctx, size_t job, ev_buf *out) {
  batch *b = ctx;
  ev_host *h;
  EV_TRY(ev_host_new(&h, &b->host));
  return ev_host_call(h, b->module, b->fn, b->args[job], out); /* the process ends here: the host is not freed */
}

/* Stack of jobs_run: 1 options, 2 texts, 3 on_done, 4 json_decode */
static ev_status job_done(void *ctx, const ev_job_result *r) {
  batch *b = ctx;
  lua_State *L = b->L;
  bool ok = r->status == EV_OK;
  lua_pushvalue(L, 3);
  lua_pushnumber(L, (double)r->job + 1);
  lua_pushboolean(L, ok);
  if (ok) lua_pushvalue(L, 4);
  lua_pushlstring(L, r->data, r->len);
  if (ok && lua_pcall(L, 1, 1, 0) != 0) { /* not decoded: this job's error, not the batch's */
    lua_pop(L, 2);
    lua_pushboolean(L, 0);
    lua_pushliteral(L, "sent a result that is not JSON");
  }
  lua_pushnumber(L, r->seconds);
  lua_pushnumber(L, (double)r->peak_rss_bytes / (1024 * 1024));
  if (lua_pcall(L, 5, 0, 0) == 0) return EV_OK;
  ev_status status = EV_ESCRIPT;
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "message");
    ev_fail(status, "%s", lua_tostring(L, -1));
    lua_pop(L, 1);
  } else {
    ev_fail(status, "%s", lua_tostring(L, -1));
  }
  lua_pop(L, 1);
  return status;
}

/* Field `key` of the options, brought into [0, max]; NaN is 0. */
static double number(lua_State *L, const char *key, double fallback, double max) {
  lua_getfield(L, 1, key);
  double x = lua_isnil(L, -1) ? fallback : luaL_checknumber(L, -1);
  lua_pop(L, 1);
  return x >= max ? max : x > 0 ? x : 0;
}

static int jobs_run(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  ev_host *h = lua_touserdata(L, lua_upvalueindex(1));
  batch b = {.L = L, .host = {.root = ev_host_root(h), .home = ev_host_home(h)}};
  lua_getfield(L, 1, "args");
  luaL_checktype(L, -1, LUA_TTABLE);
  size_t n = lua_objlen(L, -1);
  lua_createtable(L, (int)n, 0);
  lua_insert(L, 2); /* 2 texts, 3 args */
  lua_getglobal(L, "require");
  lua_pushliteral(L, "evection.native");
  lua_call(L, 1, 1);
  for (size_t i = 1; i <= n; i++) {
    lua_getfield(L, 4, "json_encode");
    lua_rawgeti(L, 3, (int)i);
    lua_call(L, 1, 1);
    lua_rawseti(L, 2, (int)i);
  }
  lua_getfield(L, 1, "on_done");
  luaL_checktype(L, -1, LUA_TFUNCTION);
  lua_replace(L, 3);
  lua_getfield(L, 4, "json_decode");
  lua_replace(L, 4);
  lua_getfield(L, 1, "module");
  b.module = luaL_checkstring(L, -1);
  lua_getfield(L, 1, "fn");
  b.fn = luaL_checkstring(L, -1);
  b.args = lua_newuserdata(L, (n + 1) * sizeof *b.args);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    b.args[i] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  ev_job_limits limits = {.timeout_s = number(L, "timeout_s", 0, 1e9), .max_memory_bytes = (uint64_t)(number(L, "max_memory_mb", 0, 1e12) * 1024 * 1024)};
  lua_getfield(L, 1, "confined");
  if (lua_toboolean(L, -1)) limits.confine_to = b.host.home;
  lua_pop(L, 1);
#ifdef __SANITIZE_ADDRESS__ /* the limit on private memory cannot be set: the Lua heap's stands in */
  b.host.max_heap_bytes = limits.max_memory_bytes;
#endif
  ev_status status = ev_jobs_run(n, (int)number(L, "workers", 1, 1024), &limits, run_job, job_done, &b);
  if (status == EV_OK) return 0;
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, status);
  lua_setfield(L, -2, "status");
  lua_pushstring(L, ev_error());
  lua_setfield(L, -2, "message");
  luaL_getmetatable(L, "ev.error");
  lua_setmetatable(L, -2);
  return lua_error(L);
}

static int bind(lua_State *L) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "evection.native");
  lua_call(L, 1, 1);
  lua_pushlightuserdata(L, lua_touserdata(L, 1));
  lua_pushcclosure(L, jobs_run, 1);
  lua_setfield(L, -2, "jobs_run");
  return 0;
}

ev_status ev_jobs_bind(ev_host *h) {
  lua_State *L = ev_host_lua(h);
  if (lua_cpcall(L, bind, h) == 0) return EV_OK;
  ev_fail(EV_ESCRIPT, "jobs: %s", lua_tostring(L, -1));
  lua_pop(L, 1);
  return EV_ESCRIPT;
}
