/* bind_base.c - handles' common code; numbers, files, clocks, hashes and the terminal for the trusted library. */
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bind.h"

#define EV_RNG "ev.rng"

int ev_lua_fail(lua_State *L, ev_status status) {
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, status);
  lua_setfield(L, -2, "status");
  lua_pushstring(L, ev_error());
  lua_setfield(L, -2, "message");
  luaL_getmetatable(L, "ev.error");
  lua_setmetatable(L, -2);
  return lua_error(L);
}

void ev_lua_class(lua_State *L, const char *name, const luaL_Reg *methods) {
  luaL_newmetatable(L, name);
  luaL_register(L, NULL, methods);
  lua_getfield(L, -1, "__index");
  bool plain = lua_isnil(L, -1);
  lua_pop(L, 1);
  if (plain) { /* a table of the methods alone: the metatable, with __gc and __index in it, is not for scripts */
    lua_newtable(L);
    for (const luaL_Reg *m = methods; m->name != NULL; m++) {
      if (strncmp(m->name, "__", 2) == 0) continue;
      lua_pushcfunction(L, m->func);
      lua_setfield(L, -2, m->name);
    }
    lua_setfield(L, -2, "__index");
  }
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
}

void ev_lua_extend(lua_State *L, const char *name, const luaL_Reg *methods) {
  luaL_getmetatable(L, name);
  lua_getfield(L, -1, "__index");
  luaL_register(L, NULL, methods);
  lua_pop(L, 2);
}

void ev_lua_anchor(lua_State *L, int handle, int owner) {
  lua_pushvalue(L, handle);
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, owner < 0 ? owner - 2 : owner);
  lua_rawseti(L, -2, 1);
  lua_setfenv(L, -2);
  lua_pop(L, 1);
}

int64_t ev_lua_integer(lua_State *L, int arg, int64_t low, int64_t high) {
  double x = luaL_checknumber(L, arg);
  if (!(x >= (double)low && x <= (double)high) || x != floor(x)) {
    const char *text = lua_pushfstring(L, "%f is not a whole number from %f to %f", x, (double)low, (double)high);
    luaL_argerror(L, arg, text);
  }
  return (int64_t)x;
}

bool ev_lua_field_bool(lua_State *L, int arg, const char *key, bool fallback) {
  if (lua_isnoneornil(L, arg)) return fallback;
  luaL_checktype(L, arg, LUA_TTABLE);
  lua_getfield(L, arg, key);
  bool value = lua_isnil(L, -1) ? fallback : lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

double ev_lua_field_number(lua_State *L, int arg, const char *key, double fallback, double low, double high) {
  if (lua_isnoneornil(L, arg)) return fallback;
  luaL_checktype(L, arg, LUA_TTABLE);
  lua_getfield(L, arg, key);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return fallback;
  }
  if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "%s: expected a number, got %s", key, luaL_typename(L, -1));
  double x = lua_tonumber(L, -1);
  lua_pop(L, 1);
  if (!(x >= low && x <= high)) luaL_error(L, "%s: %f is not between %f and %f", key, x, low, high);
  return x;
}

const char *ev_lua_field_string(lua_State *L, int arg, const char *key, const char *fallback) {
  if (lua_isnoneornil(L, arg)) return fallback;
  luaL_checktype(L, arg, LUA_TTABLE);
  lua_getfield(L, arg, key);
  const char *s = lua_isnil(L, -1) ? fallback : lua_tostring(L, -1);
  if (s == NULL) luaL_error(L, "%s: expected text, got %s", key, luaL_typename(L, -1));
  lua_pop(L, 1); /* the table still holds it */
  return s;
}

void ev_lua_only(lua_State *L, int arg, const char *words) {
  if (lua_isnoneornil(L, arg)) return;
  luaL_checktype(L, arg, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    bool known = false;
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    for (const char *word = words; key != NULL && *word != '\0' && !known; word += strspn(word, " ")) {
      size_t len = strcspn(word, " ");
      known = strlen(key) == len && strncmp(key, word, len) == 0;
      word += len;
    }
    if (!known) luaL_error(L, "no option '%s'; there are %s", key != NULL ? key : luaL_typename(L, -2), words);
  }
}

void *ev_lua_scratch(lua_State *L, size_t n, size_t size) {
  if (n > ((size_t)1 << 30) / size) luaL_error(L, "%f numbers are too many for one call", (double)n);
  if (n * size > 16384) ev_lua_make_room(L, n * size);
  return lua_newuserdata(L, n * size);
}

static int error_text(lua_State *L) {
  lua_getfield(L, 1, "message");
  return 1;
}

/* raise(status name | caught error, message): an error with an exit code of its own, or with the caught one's. */
static int raise_status(lua_State *L) {
  if (lua_istable(L, 1)) {
    lua_getfield(L, 1, "status");
    lua_Integer status = lua_tointeger(L, -1);
    if (status <= EV_OK || status > EV_ESCRIPT) status = EV_ESCRIPT;
    return ev_lua_fail(L, ev_fail((ev_status)status, "%s", luaL_checkstring(L, 2)));
  }
  static const char *const names[] = {"invalid", "not found", "limit", "failed", "conflict", NULL};
  static const ev_status codes[] = {EV_EINVAL, EV_ENOTFOUND, EV_ELIMIT, EV_EIO, EV_EEXIST};
  int which = luaL_checkoption(L, 1, NULL, names);
  return ev_lua_fail(L, ev_fail(codes[which], "%s", luaL_checkstring(L, 2)));
}

static int now(lua_State *L) {
  lua_pushnumber(L, (double)ev_now_ns() * 1e-9);
  return 1;
}

static int wall_ms(lua_State *L) {
  lua_pushnumber(L, (double)ev_wall_ms());
  return 1;
}

static int hash(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  ev_hash h;
  char hex[65];
  ev_hash_of(&h, text, len);
  ev_hash_hex(hex, &h);
  lua_pushstring(L, hex);
  return 1;
}

static int read_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  size_t limit = (size_t)luaL_optnumber(L, 2, 64.0 * 1024 * 1024);
  ev_buf b = {0};
  ev_status status = ev_file_read(&b, path, limit);
  if (status != EV_OK) {
    ev_buf_free(&b);
    return ev_lua_fail(L, status);
  }
  lua_pushlstring(L, b.data, b.len);
  ev_buf_free(&b);
  return 1;
}

static int write_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  size_t len;
  const char *text = luaL_checklstring(L, 2, &len);
  ev_writer *w;
  EV_CHECK(L, ev_writer_open(&w, path));
  ev_status status = ev_writer_write(w, text, len);
  if (status == EV_OK) status = ev_writer_commit(w);
  else ev_writer_abort(w);
  EV_CHECK(L, status);
  return 0;
}

static int rename_file(lua_State *L) {
  const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2);
  if (rename(from, to) != 0) return ev_lua_fail(L, ev_fail_errno("%s: cannot rename to %s", from, to));
  return 0;
}

static int mkdirs(lua_State *L) {
  EV_CHECK(L, ev_mkdirs(luaL_checkstring(L, 1)));
  return 0;
}

static int file_exists(lua_State *L) {
  lua_pushboolean(L, ev_file_exists(luaL_checkstring(L, 1)));
  return 1;
}

static int absolute_path(lua_State *L) { /* the same file, whatever the current folder; an error where there is none */
  const char *path = luaL_checkstring(L, 1);
  char *real = realpath(path, NULL);
  if (real == NULL) return ev_lua_fail(L, ev_fail_errno("%s", path));
  lua_pushstring(L, real);
  free(real);
  return 1;
}

static int remove_file(lua_State *L) {
  lua_pushboolean(L, remove(luaL_checkstring(L, 1)) == 0); /* or an empty folder */
  return 1;
}

static int age(lua_State *L) { /* of what is there under a path: seconds since it was written, or nil */
  struct stat st;
  if (stat(luaL_checkstring(L, 1), &st) != 0) return 0;
  lua_pushnumber(L, difftime(time(NULL), st.st_mtime));
  return 1;
}

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static int list_folder(lua_State *L) { /* names in a folder, sorted; empty when there is none */
  struct dirent **entries = NULL;
  int n = scandir(luaL_checkstring(L, 1), &entries, NULL, by_name), kept = 0;
  lua_newtable(L);
  for (int i = 0; i < n; i++) {
    if (entries[i]->d_name[0] != '.') {
      lua_pushstring(L, entries[i]->d_name);
      lua_rawseti(L, -2, ++kept);
    }
    free(entries[i]);
  }
  free(entries);
  return 1;
}

static int pid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

static int interrupted(lua_State *L) {
  lua_pushboolean(L, ev_interrupted());
  return 1;
}

static int threads(lua_State *L) {
  lua_pushinteger(L, ev_threads());
  return 1;
}

static int tty(lua_State *L) {
  lua_pushboolean(L, isatty((int)(intptr_t)lua_touserdata(L, lua_upvalueindex(1))));
  return 1;
}

static int columns(lua_State *L) {
  struct winsize size;
  int n = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  lua_pushinteger(L, n);
  return 1;
}

static int peak_rss_mb(lua_State *L) {
  lua_pushnumber(L, (double)ev_peak_rss_bytes() / (1024 * 1024));
  return 1;
}

/* state(path, n): n float64 shared by every process that maps the file, made with zeros when it is not there; path nil: this process's.
 * They are read and written through get and add; a crash loses nothing, a swap of code leaves them be. */
#define EV_STATE "ev.state"
#define STATE_MAX (1 << 26)
typedef struct ev_lstate {
  double *values; /* shared: read and written by __atomic builtins only */
  size_t n;
} ev_lstate;

static int state_open(lua_State *L) {
  const char *path = luaL_optstring(L, 1, NULL);
  size_t n = (size_t)ev_lua_integer(L, 2, 1, STATE_MAX);
  ev_lstate *s = lua_newuserdata(L, sizeof *s);
  *s = (ev_lstate){NULL, n};
  luaL_getmetatable(L, EV_STATE);
  lua_setmetatable(L, -2);
  if (path == NULL) {
    void *own = mmap(NULL, n * sizeof(double), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (own == MAP_FAILED) return ev_lua_fail(L, ev_fail_errno("cannot map %d numbers", (int)n));
    s->values = own;
    return 1;
  }
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return ev_lua_fail(L, ev_fail_errno("%s", path));
  struct stat st;
  ev_status status = EV_OK;
  if (fstat(fd, &st) != 0) status = ev_fail_errno("%s", path);
  else if ((size_t)st.st_size != 0 && (size_t)st.st_size != n * sizeof(double))
    status = ev_fail(EV_ECORRUPT, "%s: holds %zu numbers, %zu expected", path, (size_t)st.st_size / sizeof(double), n);
  else if (st.st_size == 0 && ftruncate(fd, (off_t)(n * sizeof(double))) != 0) status = ev_fail_errno("%s", path);
  void *p = status == EV_OK ? mmap(NULL, n * sizeof(double), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (status == EV_OK && p == MAP_FAILED) status = ev_fail_errno("%s: cannot map", path);
  close(fd);
  EV_CHECK(L, status);
  s->values = p;
  return 1;
}

static int state_get(lua_State *L) {
  ev_lstate *s = luaL_checkudata(L, 1, EV_STATE);
  size_t i = (size_t)ev_lua_integer(L, 2, 0, (int64_t)s->n - 1);
  double value;
  __atomic_load(&s->values[i], &value, __ATOMIC_RELAXED);
  lua_pushnumber(L, value);
  return 1;
}

static int state_add(lua_State *L) { /* state:add(index, amount[, decay]): value = value * decay + amount */
  ev_lstate *s = luaL_checkudata(L, 1, EV_STATE);
  size_t i = (size_t)ev_lua_integer(L, 2, 0, (int64_t)s->n - 1);
  double amount = luaL_checknumber(L, 3), decay = luaL_optnumber(L, 4, 1), old, next;
  if (!isfinite(amount) || !(decay >= 0 && decay <= 1)) return luaL_error(L, "state:add: amount %f, decay %f", amount, decay);
  __atomic_load(&s->values[i], &old, __ATOMIC_RELAXED);
  do next = old * decay + amount;
  while (!__atomic_compare_exchange(&s->values[i], &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return 0;
}

static int state_vector(lua_State *L) {
  ev_lstate *s = luaL_checkudata(L, 1, EV_STATE);
  float *out = ev_lua_new_vector(L, s->n);
  for (size_t i = 0; i < s->n; i++) {
    double value;
    __atomic_load(&s->values[i], &value, __ATOMIC_RELAXED);
    out[i] = (float)value;
  }
  return 1;
}

static int state_lookup(lua_State *L) { /* state:lookup(slate) → the value of each candidate's item */
  ev_lstate *s = luaL_checkudata(L, 1, EV_STATE);
  ev_slate *slate = ev_lua_slate(L, 2);
  size_t n = ev_slate_n(slate);
  float *out = ev_lua_new_vector(L, n);
  const uint32_t *items = ev_slate_items(slate);
  for (size_t i = 0; i < n; i++) {
    double value = 0;
    if (items[i] < s->n) __atomic_load(&s->values[items[i]], &value, __ATOMIC_RELAXED);
    out[i] = (float)value;
  }
  return 1;
}

static int state_size(lua_State *L) {
  lua_pushnumber(L, (double)((ev_lstate *)luaL_checkudata(L, 1, EV_STATE))->n);
  return 1;
}

static int state_close(lua_State *L) {
  ev_lstate *s = luaL_checkudata(L, 1, EV_STATE);
  if (s->values != NULL) munmap(s->values, s->n * sizeof(double));
  s->values = NULL;
  return 0;
}

static int rng_new(lua_State *L) {
  uint64_t seed = (uint64_t)ev_lua_integer(L, 1, 0, INT64_C(1) << 53);
  uint64_t stream = lua_isnoneornil(L, 2) ? 0 : (uint64_t)ev_lua_integer(L, 2, 0, INT64_C(1) << 53);
  ev_rng *r = lua_newuserdata(L, sizeof *r);
  ev_rng_seed(r, seed, stream);
  luaL_getmetatable(L, EV_RNG);
  lua_setmetatable(L, -2);
  return 1;
}

static int rng_float(lua_State *L) {
  lua_pushnumber(L, ev_rng_f64(luaL_checkudata(L, 1, EV_RNG)));
  return 1;
}

static int rng_below(lua_State *L) {
  ev_rng *r = luaL_checkudata(L, 1, EV_RNG);
  lua_pushnumber(L, ev_rng_below(r, (uint32_t)ev_lua_integer(L, 2, 1, UINT32_MAX)));
  return 1;
}

static int rng_normal(lua_State *L) {
  lua_pushnumber(L, ev_rng_normal(luaL_checkudata(L, 1, EV_RNG)));
  return 1;
}

void ev_bind_base(lua_State *L) {
  static const luaL_Reg error_meta[] = {{"__tostring", error_text}, {NULL, NULL}};
  static const luaL_Reg rng_methods[] = {{"float", rng_float}, {"below", rng_below}, {"normal", rng_normal}, {NULL, NULL}};
  static const luaL_Reg state_methods[] = {{"get", state_get}, {"add", state_add}, {"vector", state_vector}, {"lookup", state_lookup},
                                           {"__len", state_size}, {"__gc", state_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"raise", raise_status}, {"now", now}, {"wall_ms", wall_ms}, {"hash", hash}, {"read_file", read_file},
      {"write_file", write_file}, {"rename", rename_file}, {"mkdirs", mkdirs}, {"exists", file_exists}, {"absolute", absolute_path},
      {"remove", remove_file}, {"age", age}, {"list", list_folder}, {"pid", pid}, {"interrupted", interrupted}, {"threads", threads}, {"columns", columns},
      {"peak_rss_mb", peak_rss_mb}, {"rng", rng_new}, {"state", state_open}, {NULL, NULL}};
  ev_lua_class(L, "ev.error", error_meta);
  ev_lua_class(L, EV_RNG, rng_methods);
  ev_lua_class(L, EV_STATE, state_methods);
  lua_pop(L, 3);
  luaL_register(L, NULL, functions);
  lua_pushlightuserdata(L, (void *)(intptr_t)STDOUT_FILENO);
  lua_pushcclosure(L, tty, 1);
  lua_setfield(L, -2, "stdout_tty");
  lua_pushlightuserdata(L, (void *)(intptr_t)STDERR_FILENO);
  lua_pushcclosure(L, tty, 1);
  lua_setfield(L, -2, "stderr_tty");
  lua_pushstring(L, EV_VERSION);
  lua_setfield(L, -2, "version");
  lua_pushinteger(L, EV_TRAIN);
  lua_setfield(L, -2, "TRAIN");
  lua_pushinteger(L, EV_VALID);
  lua_setfield(L, -2, "VALID");
  lua_pushinteger(L, EV_TEST);
  lua_setfield(L, -2, "TEST");
}
