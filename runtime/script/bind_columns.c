/* bind_columns.c - columns over items and over candidates: data:item_columns, model:fill and clusters, slate:weigh. */
#include <stdlib.h>
#include <string.h>

#include "bind.h"

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static int fit_item_columns(lua_State *L) { /* data:item_columns{ name = vector over items, … } */
  const char *names[EV_SLATE_MAX_COLUMNS] = {NULL};
  const float *columns[EV_SLATE_MAX_COLUMNS];
  ev_lfit f;
  size_t n = 0, n_items;
  luaL_checktype(L, 2, LUA_TTABLE);
  ev_lua_fit_begin(L, &f);
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
    if (n == EV_SLATE_MAX_COLUMNS) return luaL_error(L, "item_columns: at most %d", EV_SLATE_MAX_COLUMNS);
    if (lua_type(L, -2) != LUA_TSTRING) return luaL_error(L, "item_columns: columns go by name, not by a %s", luaL_typename(L, -2));
    names[n++] = lua_tostring(L, -2); /* the table still holds it */
  }
  qsort(names, n, sizeof *names, by_name); /* a table has no order, a file has one */
  for (size_t c = 0; c < n; c++) {
    lua_pushstring(L, names[c]);
    lua_rawget(L, 2);
    columns[c] = ev_lua_vector(L, lua_gettop(L), &n_items);
    if (n_items != f.data->view->by_item.n_rows) return luaL_error(L, "item_columns: '%s' has %f numbers for %f items", names[c], (double)n_items, (double)f.data->view->by_item.n_rows);
    lua_pop(L, 1); /* the table still holds it, too */
  }
  return ev_lua_fit_end(L, &f, ev_fit_item_columns(f.path, names, columns, n, f.data->view->by_item.n_rows));
}

static int model_fill(lua_State *L) { /* model:fill(slate): the model's columns become the slate's */
  EV_CHECK(L, ev_model_fill(ev_lua_model(L, 1)->model, ev_lua_slate(L, 2)));
  return 0;
}

static int model_share(lua_State *L) { /* model:share(request, slate, column) → of the user's history, how much has the candidate's number there */
  ev_lmodel *h = ev_lua_model(L, 1);
  ev_requests one = ev_lua_one(ev_lua_request(L, 2));
  ev_slate *s = ev_lua_slate(L, 3);
  const char *column = luaL_checkstring(L, 4);
  float *out = ev_lua_new_vector(L, ev_slate_n(s));
  EV_CHECK(L, ev_model_share(h->model, &one, s, column, out));
  return 1;
}

/* slate:weigh{ column = weight, … }: score = Σ weight · column, over the slate's columns that have a weight; "score" is one of them.
 * What else the table holds is passed over: an agent's knobs will do. */
int ev_lua_slate_weigh(lua_State *L) {
  ev_slate *s = ev_lua_slate(L, 1);
  const float *columns[EV_SLATE_MAX_COLUMNS + 1];
  float weights[EV_SLATE_MAX_COLUMNS + 1];
  size_t n = 0;
  luaL_checktype(L, 2, LUA_TTABLE);
  for (size_t c = 0; c <= ev_slate_n_columns(s); c++) {
    const char *name = c < ev_slate_n_columns(s) ? ev_slate_column_name(s, c) : "score";
    lua_pushstring(L, name);
    lua_rawget(L, 2); /* no metamethod: nothing may change the slate meanwhile */
    if (lua_type(L, -1) == LUA_TNUMBER) {
      weights[n] = (float)lua_tonumber(L, -1);
      columns[n++] = c < ev_slate_n_columns(s) ? ev_slate_column_at(s, c) : ev_slate_scores(s);
    }
    lua_pop(L, 1);
  }
  ev_weighted_sum(ev_slate_scores(s), columns, weights, n, ev_slate_n(s));
  return 0;
}

static int model_clusters(lua_State *L) { /* model:clusters(n[, seed]) → a vector over items: the number of each one's cluster, from 0 */
  ev_lmodel *h = ev_lua_model(L, 1);
  size_t n = ev_model_n_items(h->model), k = (size_t)ev_lua_integer(L, 2, 1, 65536);
  uint64_t seed = lua_isnoneornil(L, 3) ? 1 : (uint64_t)ev_lua_integer(L, 3, 0, (int64_t)1 << 53);
  uint32_t *numbers = ev_lua_scratch(L, n, sizeof *numbers);
  EV_CHECK(L, ev_model_clusters(h->model, numbers, k, seed));
  float *out = ev_lua_new_vector(L, n);
  for (size_t i = 0; i < n; i++) out[i] = (float)numbers[i];
  return 1;
}

void ev_bind_columns(lua_State *L) {
  static const luaL_Reg of_data[] = {{"item_columns", fit_item_columns}, {NULL, NULL}};
  static const luaL_Reg of_models[] = {{"fill", model_fill}, {"share", model_share}, {"clusters", model_clusters}, {NULL, NULL}};
  ev_lua_extend(L, EV_DATA, of_data);
  ev_lua_extend(L, EV_MODEL, of_models);
}
