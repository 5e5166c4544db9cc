/* bind_ledger.c - the ledger's SQLite file for the trusted library: one statement at a time, parameters bound. */
#include <math.h>
#include <string.h>

#include "bind.h"

#define EV_LEDGER "ev.ledger"

static const char null_mark; /* native.null: SQL NULL inside a list of parameters */

static ev_ledger **handle(lua_State *L) { return luaL_checkudata(L, 1, EV_LEDGER); }

static sqlite3 *database(lua_State *L) {
  ev_ledger *l = *handle(L);
  if (l == NULL) luaL_error(L, "the ledger is closed");
  return ev_ledger_db(l);
}

static int ledger_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  ev_ledger **l = lua_newuserdata(L, sizeof *l);
  *l = NULL;
  luaL_getmetatable(L, EV_LEDGER);
  lua_setmetatable(L, -2);
  EV_CHECK(L, ev_ledger_open(l, path));
  return 1;
}

static int ledger_close(lua_State *L) {
  ev_ledger **l = handle(L);
  ev_ledger_close(*l);
  *l = NULL;
  return 0;
}

static int sql_error(lua_State *L, sqlite3 *db, sqlite3_stmt *statement) {
  ev_status status = ev_fail(EV_EIO, "ledger: %s", sqlite3_errmsg(db));
  sqlite3_finalize(statement);
  return ev_lua_fail(L, status);
}

static int bind_value(lua_State *L, sqlite3_stmt *statement, int i) {
  double x;
  size_t len;
  const char *text;
  switch (lua_type(L, -1)) {
    case LUA_TNIL:
    case LUA_TLIGHTUSERDATA: return sqlite3_bind_null(statement, i);
    case LUA_TBOOLEAN: return sqlite3_bind_int(statement, i, lua_toboolean(L, -1));
    case LUA_TNUMBER:
      x = lua_tonumber(L, -1);
      return x == floor(x) && fabs(x) < 9e15 ? sqlite3_bind_int64(statement, i, (sqlite3_int64)x) : sqlite3_bind_double(statement, i, x);
    default:
      text = lua_tolstring(L, -1, &len);
      return text == NULL ? SQLITE_MISMATCH : sqlite3_bind_text(statement, i, text, (int)len, SQLITE_TRANSIENT);
  }
}

/* ledger:exec(sql[, {parameters}]) → array of rows keyed by column; NULL is nil */
static int ledger_exec(lua_State *L) {
  sqlite3 *db = database(L);
  const char *sql = luaL_checkstring(L, 2);
  sqlite3_stmt *statement = NULL;
  lua_settop(L, 3);
  if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK) return sql_error(L, db, statement);
  int n = sqlite3_bind_parameter_count(statement);
  if (n > 0 && !lua_istable(L, 3)) {
    sqlite3_finalize(statement);
    return luaL_argerror(L, 3, "the statement has parameters");
  }
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, 3, i);
    int code = bind_value(L, statement, i);
    lua_pop(L, 1);
    if (code != SQLITE_OK) return sql_error(L, db, statement);
  }
  lua_newtable(L);
  for (int row = 1;; row++) {
    int code = sqlite3_step(statement);
    if (code == SQLITE_DONE) break;
    if (code != SQLITE_ROW) return sql_error(L, db, statement);
    int columns = sqlite3_column_count(statement);
    lua_createtable(L, 0, columns);
    for (int c = 0; c < columns; c++) {
      switch (sqlite3_column_type(statement, c)) {
        case SQLITE_NULL: continue;
        case SQLITE_TEXT:
        case SQLITE_BLOB: lua_pushlstring(L, (const char *)sqlite3_column_blob(statement, c), (size_t)sqlite3_column_bytes(statement, c)); break;
        default: lua_pushnumber(L, sqlite3_column_double(statement, c)); break;
      }
      lua_setfield(L, -2, sqlite3_column_name(statement, c));
    }
    lua_rawseti(L, -2, row);
  }
  sqlite3_finalize(statement);
  return 1;
}

static int transaction(lua_State *L) { /* begin, commit, rollback: the SQL is the upvalue */
  database(L);
  EV_CHECK(L, ev_ledger_exec(*handle(L), lua_tostring(L, lua_upvalueindex(1))));
  return 0;
}

void ev_bind_ledger(lua_State *L) {
  static const luaL_Reg methods[] = {{"exec", ledger_exec}, {"close", ledger_close}, {"__gc", ledger_close}, {NULL, NULL}};
  static const char *const statements[][2] = {{"begin", "BEGIN IMMEDIATE"}, {"commit", "COMMIT"}, {"rollback", "ROLLBACK"}};
  ev_lua_class(L, EV_LEDGER, methods);
  lua_getfield(L, -1, "__index");
  for (size_t i = 0; i < 3; i++) {
    lua_pushstring(L, statements[i][1]);
    lua_pushcclosure(L, transaction, 1);
    lua_setfield(L, -2, statements[i][0]);
  }
  lua_pop(L, 2);
  lua_pushcfunction(L, ledger_open);
  lua_setfield(L, -2, "ledger");
  lua_pushlightuserdata(L, (void *)(uintptr_t)&null_mark);
  lua_setfield(L, -2, "null");
}
