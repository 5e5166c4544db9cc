/* json.c - JSON text ↔ Lua values.
 *
 * Reading is jansson's, bounded in depth. Writing is done here because equal tables must give equal text (keys
 * sorted, shortest numbers that read back the same), which content addresses rest on. A table is an array when
 * it has elements 1…n and nothing else, or carries the array mark; an empty one is an object unless marked. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"

#define ARRAY_MARK "ev.array"
#define DEPTH_MAX 64

static void push(lua_State *L, const json_t *v) {
  luaL_checkstack(L, 4, "JSON is nested too deeply");
  switch (json_typeof(v)) {
    case JSON_OBJECT: {
      const char *key;
      json_t *item;
      lua_createtable(L, 0, (int)json_object_size(v));
      json_object_foreach((json_t *)(uintptr_t)v, key, item) {
        push(L, item);
        lua_setfield(L, -2, key);
      }
      break;
    }
    case JSON_ARRAY: {
      size_t n = json_array_size(v);
      lua_createtable(L, (int)n, 0);
      for (size_t i = 0; i < n; i++) {
        push(L, json_array_get(v, i));
        lua_rawseti(L, -2, (int)i + 1);
      }
      luaL_getmetatable(L, ARRAY_MARK);
      lua_setmetatable(L, -2);
      break;
    }
    case JSON_STRING: lua_pushlstring(L, json_string_value(v), json_string_length(v)); break;
    case JSON_INTEGER: lua_pushnumber(L, (double)json_integer_value(v)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(v)); break;
    case JSON_TRUE: lua_pushboolean(L, 1); break;
    case JSON_FALSE: lua_pushboolean(L, 0); break;
    default: lua_pushnil(L); break; /* a key with null is a key that is absent */
  }
}

static int protected_push(lua_State *L) {
  push(L, lua_touserdata(L, 1));
  return 1;
}

ev_status ev_lua_json_decode(lua_State *L, const char *text, size_t len) {
  json_error_t error;
  json_t *v = json_loadb(text, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
  if (v == NULL) return ev_fail(EV_EINVAL, "JSON, line %d: %s", error.line, error.text);
  lua_pushcfunction(L, protected_push); /* v must be released even when Lua runs out of memory */
  lua_pushlightuserdata(L, v);
  int failed = lua_pcall(L, 1, 1, 0);
  json_decref(v);
  if (failed) {
    ev_fail(EV_ENOMEM, "JSON: %s", lua_tostring(L, -1));
    lua_pop(L, 1);
    return EV_ENOMEM;
  }
  return EV_OK;
}

static ev_status encode(lua_State *L, int index, ev_buf *out, int depth);

ev_status ev_json_text(const char *s, size_t len, ev_buf *out) {
  if (ev_utf8_invalid(s, len) != len) return ev_fail(EV_EINVAL, "text that is not UTF-8 has no JSON form");
  return ev_buf_quoted(out, s, len);
}

ev_status ev_json_number(double x, ev_buf *out) {
  char text[32];
  if (!isfinite(x)) return ev_buf_append(out, "null", 4); /* JSON has no other word for it */
  if (x == floor(x) && fabs(x) < 9e15) return ev_buf_printf(out, "%.0f", x == 0 ? 0.0 : x);
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, x);
    if (strtod(text, NULL) == x) break;
  }
  return ev_buf_append(out, text, strlen(text));
}

static bool is_array(lua_State *L, int index) {
  size_t n = lua_objlen(L, index), count = 0;
  if (lua_getmetatable(L, index)) {
    luaL_getmetatable(L, ARRAY_MARK);
    bool marked = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (marked) return true;
  }
  if (n == 0) return false;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TNUMBER) {
      lua_pop(L, 2);
      return false;
    }
    count++;
  }
  return count == n;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static ev_status encode_object(lua_State *L, int index, ev_buf *out, int depth) {
  size_t n = 0, i = 0;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) n++;
  const char **keys = ev_alloc(n, sizeof *keys);
  if (keys == NULL) return EV_ENOMEM;
  ev_status status = EV_OK;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) {
      status = ev_fail(EV_EINVAL, "a table with a %s key has no JSON form", luaL_typename(L, -2));
      lua_pop(L, 2);
      goto done;
    }
    keys[i] = lua_tostring(L, -2); /* the table holds it */
    if (strlen(keys[i++]) != lua_objlen(L, -2)) {
      status = ev_fail(EV_EINVAL, "a key with a NUL byte has no JSON form");
      lua_pop(L, 2);
      goto done;
    }
  }
  qsort(keys, n, sizeof *keys, by_text);
  status = ev_buf_append(out, "{", 1);
  for (i = 0; i < n && status == EV_OK; i++) {
    if (i > 0) status = ev_buf_append(out, ",", 1);
    if (status == EV_OK) status = ev_json_text(keys[i], strlen(keys[i]), out);
    if (status == EV_OK) status = ev_buf_append(out, ":", 1);
    lua_getfield(L, index, keys[i]);
    if (status == EV_OK) status = encode(L, lua_gettop(L), out, depth + 1);
    lua_pop(L, 1);
  }
  if (status == EV_OK) status = ev_buf_append(out, "}", 1);
done:
  ev_free(keys);
  return status;
}

static ev_status encode(lua_State *L, int index, ev_buf *out, int depth) {
  if (depth > DEPTH_MAX || !lua_checkstack(L, 8)) return ev_fail(EV_EINVAL, "a value nested deeper than %d has no JSON form", DEPTH_MAX);
  switch (lua_type(L, index)) {
    case LUA_TNIL: return ev_buf_append(out, "null", 4);
    case LUA_TBOOLEAN: return lua_toboolean(L, index) ? ev_buf_append(out, "true", 4) : ev_buf_append(out, "false", 5);
    case LUA_TNUMBER: return ev_json_number(lua_tonumber(L, index), out);
    case LUA_TSTRING: {
      size_t len;
      const char *s = lua_tolstring(L, index, &len);
      return ev_json_text(s, len, out);
    }
    case LUA_TTABLE: {
      if (!is_array(L, index)) return encode_object(L, index, out, depth);
      size_t n = lua_objlen(L, index);
      EV_TRY(ev_buf_append(out, "[", 1));
      for (size_t i = 1; i <= n; i++) {
        if (i > 1) EV_TRY(ev_buf_append(out, ",", 1));
        lua_rawgeti(L, index, (int)i);
        ev_status status = encode(L, lua_gettop(L), out, depth + 1);
        lua_pop(L, 1);
        EV_TRY(status);
      }
      return ev_buf_append(out, "]", 1);
    }
    default: return ev_fail(EV_EINVAL, "a %s has no JSON form", luaL_typename(L, index));
  }
}

ev_status ev_lua_json_encode(lua_State *L, int index, ev_buf *out) {
  int top = lua_gettop(L);
  ev_status status = encode(L, index < 0 ? top + 1 + index : index, out, 0);
  lua_settop(L, top);
  return status;
}

static int json_encode(lua_State *L) {
  ev_buf out = {0};
  luaL_checkany(L, 1);
  ev_status status = ev_lua_json_encode(L, 1, &out);
  if (status == EV_OK) lua_pushlstring(L, out.data, out.len);
  ev_buf_free(&out);
  EV_CHECK(L, status);
  return 1;
}

static int json_decode(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  EV_CHECK(L, ev_lua_json_decode(L, text, len));
  return 1;
}

static int array(lua_State *L) { /* marks a table as an array, so that an empty one is [] */
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  luaL_getmetatable(L, ARRAY_MARK);
  lua_setmetatable(L, 1);
  return 1;
}

void ev_bind_json(lua_State *L) {
  static const luaL_Reg functions[] = {{"json_encode", json_encode}, {"json_decode", json_decode}, {"array", array}, {NULL, NULL}};
  luaL_newmetatable(L, ARRAY_MARK);
  lua_pop(L, 1);
  luaL_register(L, NULL, functions);
}
