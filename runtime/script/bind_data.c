/* bind_data.c - snapshots, and the data handle an agent's fit gets: a view it may learn from, with the fits.
 *
 * A data handle knows one set of folds and nothing else: what is not in the view cannot be reached. A fit
 * writes ARTIFACT.N and returns the mapped model; a handle without an artifact path cannot fit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"


ev_snapshot *ev_lua_snapshot(lua_State *L, int arg) { return ((ev_lsnapshot *)luaL_checkudata(L, arg, EV_SNAPSHOT))->snapshot; }
ev_ldata *ev_lua_data(lua_State *L, int arg) { return luaL_checkudata(L, arg, EV_DATA); }

/* ---- Snapshot ------------------------------------------------------------------------------------------*/
static int snapshot_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  ev_lsnapshot *s = lua_newuserdata(L, sizeof *s);
  s->snapshot = NULL;
  luaL_getmetatable(L, EV_SNAPSHOT);
  lua_setmetatable(L, -2);
  EV_CHECK(L, ev_snapshot_open(&s->snapshot, path));
  return 1;
}

static int snapshot_close(lua_State *L) {
  ev_lsnapshot *s = luaL_checkudata(L, 1, EV_SNAPSHOT);
  ev_snapshot_close(s->snapshot);
  s->snapshot = NULL;
  return 0;
}

static int snapshot_hash(lua_State *L) {
  ev_hash h;
  char hex[65];
  ev_snapshot_hash(ev_lua_snapshot(L, 1), &h);
  ev_hash_hex(hex, &h);
  lua_pushstring(L, hex);
  return 1;
}

static int snapshot_n_users(lua_State *L) {
  lua_pushnumber(L, (double)ev_snapshot_n_users(ev_lua_snapshot(L, 1)));
  return 1;
}

static int snapshot_n_items(lua_State *L) {
  lua_pushnumber(L, (double)ev_snapshot_n_items(ev_lua_snapshot(L, 1)));
  return 1;
}

static int snapshot_user_id(lua_State *L) {
  ev_snapshot *s = ev_lua_snapshot(L, 1);
  size_t len;
  const char *id = ev_snapshot_user_id(s, (uint32_t)ev_lua_integer(L, 2, 0, (int64_t)ev_snapshot_n_users(s) - 1), &len);
  lua_pushlstring(L, id, len);
  return 1;
}

static int snapshot_item_id(lua_State *L) {
  ev_snapshot *s = ev_lua_snapshot(L, 1);
  size_t len;
  const char *id = ev_snapshot_item_id(s, (uint32_t)ev_lua_integer(L, 2, 0, (int64_t)ev_snapshot_n_items(s) - 1), &len);
  lua_pushlstring(L, id, len);
  return 1;
}

static int push_index(lua_State *L, uint32_t index) {
  if (index == EV_NONE) lua_pushnil(L);
  else lua_pushnumber(L, index);
  return 1;
}

static int snapshot_find_user(lua_State *L) {
  size_t len;
  const char *id = luaL_checklstring(L, 2, &len);
  return push_index(L, ev_snapshot_find_user(ev_lua_snapshot(L, 1), id, len));
}

static int snapshot_find_item(lua_State *L) {
  size_t len;
  const char *id = luaL_checklstring(L, 2, &len);
  return push_index(L, ev_snapshot_find_item(ev_lua_snapshot(L, 1), id, len));
}

static ev_side side_of(lua_State *L, int arg) {
  static const char *const names[] = {"user", "item", "interaction", NULL};
  static const ev_side sides[] = {EV_USER, EV_ITEM, EV_INTERACTION};
  return sides[luaL_checkoption(L, arg, "item", names)];
}

static int push_columns(lua_State *L, const ev_snapshot *s, ev_side side) {
  static const char *const types[] = {"token", "token_list", "float"};
  size_t n = ev_snapshot_n_columns(s, side);
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    const ev_column *c = ev_snapshot_column_at(s, side, i);
    lua_createtable(L, 0, 3);
    lua_pushstring(L, c->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, types[c->type]);
    lua_setfield(L, -2, "type");
    lua_pushnumber(L, (double)c->n_tokens);
    lua_setfield(L, -2, "n_tokens");
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int snapshot_columns(lua_State *L) { return push_columns(L, ev_lua_snapshot(L, 1), side_of(L, 2)); }

/* value(side, column, row) → text, array of texts, number, or nil when missing */
static int snapshot_value(lua_State *L) {
  ev_snapshot *s = ev_lua_snapshot(L, 1);
  const ev_column *c = ev_snapshot_column(s, side_of(L, 2), luaL_checkstring(L, 3));
  if (c == NULL) return luaL_argerror(L, 3, "no such column");
  size_t row = (size_t)ev_lua_integer(L, 4, 0, (int64_t)c->n_rows - 1), len;
  const char *text;
  switch (c->type) {
    case EV_FLOAT:
      if (isnan(c->values[row])) lua_pushnil(L);
      else lua_pushnumber(L, c->values[row]);
      return 1;
    case EV_TOKEN:
      if (c->codes[row] == EV_NONE) {
        lua_pushnil(L);
        return 1;
      }
      text = ev_column_token(c, c->codes[row], &len);
      lua_pushlstring(L, text, len);
      return 1;
    default:
      lua_newtable(L);
      for (uint64_t i = c->ptr[row]; i < c->ptr[row + 1]; i++) {
        text = ev_column_token(c, c->codes[i], &len);
        lua_pushlstring(L, text, len);
        lua_rawseti(L, -2, (int)(i - c->ptr[row]) + 1);
      }
      return 1;
  }
}

/* ---- Data ----------------------------------------------------------------------------------------------*/
static ev_ldata *new_data(lua_State *L, int snapshot) {
  ev_ldata *d = lua_newuserdata(L, sizeof *d);
  *d = (ev_ldata){0};
  luaL_getmetatable(L, EV_DATA);
  lua_setmetatable(L, -2);
  ev_lua_anchor(L, lua_gettop(L), snapshot);
  return d;
}

static int snapshot_view(lua_State *L) { /* snapshot:view(folds) → data */
  ev_snapshot *s = ev_lua_snapshot(L, 1);
  unsigned folds = (unsigned)ev_lua_integer(L, 2, 1, 7);
  ev_ldata *d = new_data(L, 1);
  EV_CHECK(L, ev_view_new(&d->view, s, folds));
  return 1;
}

static int data_split(lua_State *L) { /* data:split(share, seed) → rest, held */
  ev_ldata *d = ev_lua_data(L, 1);
  double share = luaL_checknumber(L, 2);
  uint64_t seed = (uint64_t)ev_lua_integer(L, 3, 0, INT64_C(1) << 53);
  if (!(share > 0 && share < 1)) return luaL_argerror(L, 2, "a share between 0 and 1");
  ev_ldata *rest = new_data(L, 1), *held = new_data(L, 1);
  EV_CHECK(L, ev_view_split(&rest->view, &held->view, d->view, share, seed));
  return 2;
}

static int data_close(lua_State *L) {
  ev_ldata *d = ev_lua_data(L, 1);
  ev_view_free(d->view);
  ev_rank_rows_free(d->rows);
  ev_free(d->artifact);
  ev_free(d->checkpoint);
  *d = (ev_ldata){0};
  return 0;
}

/* trusted: (data, path, seed, checkpoint, seconds) where the next fits write, and their seed; nil: nowhere. checkpoint: where what
 * a training has reached outlives its process, kept every so many seconds, or nil. */
static int data_artifact(lua_State *L) {
  ev_ldata *d = ev_lua_data(L, 1);
  size_t len = 0, checkpoint_len = 0;
  const char *path = luaL_optlstring(L, 2, NULL, &len), *checkpoint = luaL_optlstring(L, 4, NULL, &checkpoint_len);
  double seed = luaL_optnumber(L, 3, 1), checkpoint_s = luaL_optnumber(L, 5, 60);
  char *copy = path != NULL ? ev_strndup(path, len) : NULL, *stable = checkpoint != NULL ? ev_strndup(checkpoint, checkpoint_len) : NULL;
  if ((path != NULL && copy == NULL) || (checkpoint != NULL && stable == NULL)) {
    ev_free(copy);
    ev_free(stable);
    return ev_lua_fail(L, EV_ENOMEM);
  }
  ev_free(d->artifact);
  ev_free(d->checkpoint);
  d->artifact = copy;
  d->checkpoint = stable;
  d->checkpoint_s = checkpoint_s;
  d->seed = (uint64_t)seed;
  d->n_fits = d->n_discarded = d->n_trainings = 0;
  return 0;
}

static int data_rows(lua_State *L) { /* trusted: data:set_rows{names} starts what a ranker learns from */
  ev_ldata *d = ev_lua_data(L, 1);
  const char *names[EV_SLATE_MAX_COLUMNS];
  luaL_checktype(L, 2, LUA_TTABLE);
  size_t n = lua_objlen(L, 2);
  if (n > EV_SLATE_MAX_COLUMNS) return luaL_argerror(L, 2, "too many columns");
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    names[i] = luaL_checkstring(L, -1);
    lua_pop(L, 1);
  }
  ev_rank_rows_free(d->rows);
  d->rows = NULL;
  EV_CHECK(L, ev_rank_rows_new(&d->rows, names, n));
  return 0;
}

static int data_add_rows(lua_State *L) { /* trusted: data:add_rows(slate, user, held) */
  ev_ldata *d = ev_lua_data(L, 1), *held = ev_lua_data(L, 4);
  ev_slate *s = ev_lua_slate(L, 2);
  if (d->rows == NULL) return luaL_error(L, "set_rows comes first");
  const ev_csr *m = &held->view->by_user;
  uint32_t user = (uint32_t)ev_lua_integer(L, 3, 0, (int64_t)m->n_rows - 1);
  EV_CHECK(L, ev_rank_rows_add(d->rows, s, user, held->view->seen + m->ptr[user], m->ptr[user + 1] - m->ptr[user]));
  return 0;
}

static int data_click_rows(lua_State *L) { /* trusted: data:click_rows(least_rating): the view's interactions are what a ranker learns from */
  ev_ldata *d = ev_lua_data(L, 1);
  double least = luaL_checknumber(L, 2);
  ev_rank_rows_free(d->rows);
  d->rows = NULL;
  EV_CHECK(L, ev_rank_rows_new(&d->rows, NULL, 0));
  EV_CHECK(L, ev_rank_rows_add_view(d->rows, d->view, least));
  return 0;
}

static int data_n_rows(lua_State *L) {
  ev_ldata *d = ev_lua_data(L, 1);
  lua_pushnumber(L, d->rows != NULL ? (double)d->rows->n_rows : 0);
  return 1;
}

static int data_n_users(lua_State *L) {
  lua_pushnumber(L, (double)ev_lua_data(L, 1)->view->by_user.n_rows);
  return 1;
}

static int data_n_items(lua_State *L) {
  lua_pushnumber(L, (double)ev_lua_data(L, 1)->view->by_item.n_rows);
  return 1;
}

static int data_n_interactions(lua_State *L) {
  const ev_csr *m = &ev_lua_data(L, 1)->view->by_user;
  lua_pushnumber(L, (double)m->ptr[m->n_rows]);
  return 1;
}

static int data_n_of_user(lua_State *L) {
  const ev_csr *m = &ev_lua_data(L, 1)->view->by_user;
  size_t u = (size_t)ev_lua_integer(L, 2, 0, (int64_t)m->n_rows - 1);
  lua_pushnumber(L, (double)(m->ptr[u + 1] - m->ptr[u]));
  return 1;
}

static int push_items(lua_State *L, const uint32_t *items, size_t n) {
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, items[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int data_history(lua_State *L) { /* items, oldest first */
  const ev_csr *m = &ev_lua_data(L, 1)->view->by_user;
  size_t u = (size_t)ev_lua_integer(L, 2, 0, (int64_t)m->n_rows - 1);
  return push_items(L, m->idx + m->ptr[u], m->ptr[u + 1] - m->ptr[u]);
}

static int data_columns(lua_State *L) { return push_columns(L, ev_lua_data(L, 1)->view->snapshot, side_of(L, 2)); }

/* data:item_counts{half_life_days=, window_days=} → for each item the interactions in the last window_days
 * before the newest one (0: all), each counting 2^(-age / half_life_days) (0: whole). Untimed data count whole. */
static int data_item_counts(lua_State *L) {
  ev_ldata *d = ev_lua_data(L, 1);
  double half_life = ev_lua_field_number(L, 2, "half_life_days", 0, 0, 1e6) * 86400;
  double window = ev_lua_field_number(L, 2, "window_days", 0, 0, 1e6) * 86400;
  const ev_csr *m = &d->view->by_item;
  int64_t newest = INT64_MIN;
  if (m->time != NULL)
    for (uint64_t i = 0; i < m->ptr[m->n_rows]; i++)
      if (m->time[i] > newest) newest = m->time[i];
  float *out = ev_lua_new_vector(L, m->n_rows);
  for (size_t item = 0; item < m->n_rows; item++) {
    double sum = 0;
    for (uint64_t i = m->ptr[item]; i < m->ptr[item + 1]; i++) {
      double age = m->time != NULL ? (double)(newest - m->time[i]) : 0;
      if (window > 0 && age > window) continue;
      sum += half_life > 0 ? exp2(-age / half_life) : 1;
    }
    out[item] = (float)sum;
  }
  return 1;
}

ev_ldata *ev_lua_new_data(lua_State *L, int of) { return new_data(L, of); }

void ev_bind_data(lua_State *L) {
  static const luaL_Reg snapshot_methods[] = {
      {"hash", snapshot_hash}, {"n_users", snapshot_n_users}, {"n_items", snapshot_n_items},
      {"user_id", snapshot_user_id}, {"item_id", snapshot_item_id}, {"find_user", snapshot_find_user},
      {"find_item", snapshot_find_item}, {"columns", snapshot_columns}, {"value", snapshot_value},
      {"view", snapshot_view}, {"__gc", snapshot_close}, {NULL, NULL}};
  /* What an agent may call; what changes a handle is a function of the native module, out of its reach. */
  static const luaL_Reg data_methods[] = {
      {"n_users", data_n_users}, {"n_items", data_n_items}, {"n_interactions", data_n_interactions},
      {"n_of_user", data_n_of_user}, {"history", data_history}, {"columns", data_columns},
      {"item_counts", data_item_counts}, {"n_rows", data_n_rows}, {"__gc", data_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"snapshot", snapshot_open}, {"data_split", data_split}, {"data_artifact", data_artifact},
      {"data_set_rows", data_rows}, {"data_add_rows", data_add_rows}, {"data_click_rows", data_click_rows}, {NULL, NULL}};
  ev_lua_class(L, EV_SNAPSHOT, snapshot_methods);
  ev_lua_class(L, EV_DATA, data_methods);
  lua_pop(L, 2);
  luaL_register(L, NULL, functions);
}
