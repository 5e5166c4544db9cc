/* bind_data.c - snapshots, and the data handle an agent's fit gets: a view it may learn from, with the fits.
 *
 * A data handle knows one set of folds and nothing else: what is not in the view cannot be reached. A fit
 * writes ARTIFACT.N and returns the mapped model; a handle without an artifact path cannot fit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"

#define COLUMNS_MAX EV_NAMES_MAX

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

/* ---- Fits ----------------------------------------------------------------------------------------------*/
static void report(void *ctx, const char *what, double done, double all, double loss) {
  lua_State *L = ctx; /* a progress function in the registry, called on the thread that fits */
  lua_getfield(L, LUA_REGISTRYINDEX, "ev.progress");
  if (!lua_isfunction(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushstring(L, what);
  lua_pushnumber(L, done);
  lua_pushnumber(L, all);
  lua_pushnumber(L, loss);
  if (lua_pcall(L, 4, 0, 0) != 0) lua_pop(L, 1); /* a display that fails must not end a fit */
}

static int on_progress(lua_State *L) { /* trusted: on_progress(function(what, done, all, loss) end | nil) */
  lua_settop(L, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, "ev.progress");
  return 0;
}

typedef ev_lfit fit;

static void begin(lua_State *L, fit *f) {
  f->data = ev_lua_data(L, 1);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  if (f->data->artifact == NULL) luaL_error(L, "this data handle cannot fit");
  if (f->data->n_fits - f->data->n_discarded >= EV_DATA_MODELS) luaL_error(L, "one fit has at most %d models", EV_DATA_MODELS);
  snprintf(f->path, sizeof f->path, "%s.%u", f->data->artifact, ++f->data->n_fits);
  f->progress = (ev_progress){report, L};
}

static int end(lua_State *L, fit *f, ev_status status) {
  ev_model *m = NULL;
  if (status == EV_OK) status = ev_model_open(&m, f->path);
  EV_CHECK(L, status);
  ev_lua_push_model(L, m);
  return 1;
}

static int fit_item_scores(lua_State *L) { /* data:item_scores(vector) */
  size_t n;
  ev_ldata *d = ev_lua_data(L, 1);
  const float *scores = ev_lua_vector(L, 2, &n);
  if (n != d->view->by_item.n_rows) return luaL_error(L, "item_scores: %f scores for %f items", (double)n, (double)d->view->by_item.n_rows);
  lua_pushvalue(L, 2);
  lua_pushnil(L);
  lua_replace(L, 2); /* begin() looks for options there */
  fit f;
  begin(L, &f);
  return end(L, &f, ev_fit_item_scores(f.path, scores, n));
}

static int fit_item_knn(lua_State *L) {
  fit f;
  begin(L, &f);
  ev_item_knn_options o = {
      .neighbours = (unsigned)ev_lua_field_number(L, 2, "neighbours", 200, 1, 100000),
      .shrink = (float)ev_lua_field_number(L, 2, "shrink", 10, 0, 1e6),
      .alpha = (float)ev_lua_field_number(L, 2, "alpha", 0.5, 0, 2),
      .user_power = (float)ev_lua_field_number(L, 2, "user_power", 0, 0, 2),
  };
  return end(L, &f, ev_fit_item_knn(f.path, f.data->view, &o, &f.progress));
}

/* Field `key` of the options: an array of at most COLUMNS_MAX names, borrowed from the table. */
static size_t names_field(lua_State *L, const char *key, const char *out[COLUMNS_MAX]) {
  if (lua_isnoneornil(L, 2)) return 0;
  lua_getfield(L, 2, key);
  size_t n = 0;
  if (!lua_isnil(L, -1)) {
    luaL_checktype(L, -1, LUA_TTABLE);
    n = lua_objlen(L, -1);
    if (n > COLUMNS_MAX) luaL_error(L, "%s: at most %d names", key, COLUMNS_MAX);
    for (size_t i = 0; i < n; i++) {
      lua_rawgeti(L, -1, (int)i + 1);
      if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "%s: name %d is a %s", key, (int)i + 1, luaL_typename(L, -1));
      out[i] = lua_tostring(L, -1); /* the table still holds it */
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
  return n;
}

static int fit_content(lua_State *L) {
  fit f;
  begin(L, &f);
  const char *columns[COLUMNS_MAX];
  ev_content_options o = {
      .columns = columns,
      .n_columns = names_field(L, "columns", columns),
      .neighbours = (unsigned)ev_lua_field_number(L, 2, "neighbours", 200, 1, 100000),
      .idf_power = (float)ev_lua_field_number(L, 2, "idf_power", 1, 0, 4),
      .half_life = (float)ev_lua_field_number(L, 2, "half_life", 0, 0, 1e6),
  };
  return end(L, &f, ev_fit_content(f.path, f.data->view, &o, &f.progress));
}

static int fit_ease(lua_State *L) {
  fit f;
  begin(L, &f);
  ev_ease_options o = {
      .lambda = (float)ev_lua_field_number(L, 2, "lambda", 200, 1e-6, 1e9),
      .user_power = (float)ev_lua_field_number(L, 2, "user_power", 0, 0, 2),
      .item_power_in = (float)ev_lua_field_number(L, 2, "item_power_in", 0, -2, 2),
      .item_power_out = (float)ev_lua_field_number(L, 2, "item_power_out", 0, -2, 2),
  };
  return end(L, &f, ev_fit_ease(f.path, f.data->view, &o, &f.progress));
}

static int fit_ials(lua_State *L) {
  fit f;
  begin(L, &f);
  ev_ials_options o = {
      .n_dims = (unsigned)ev_lua_field_number(L, 2, "n_dims", 64, 1, 4096),
      .epochs = (unsigned)ev_lua_field_number(L, 2, "epochs", 12, 1, 1000),
      .unobserved_weight = (float)ev_lua_field_number(L, 2, "unobserved_weight", 0.05, 0, 1e6),
      .regularization = (float)ev_lua_field_number(L, 2, "regularization", 0.003, 0, 1e6),
      .frequency_power = (float)ev_lua_field_number(L, 2, "frequency_power", 1, 0, 4),
      .init_std = (float)ev_lua_field_number(L, 2, "init_std", 0.1, 1e-9, 100),
      .seed = (uint64_t)ev_lua_field_number(L, 2, "seed", (double)f.data->seed, 0, 9007199254740992.0),
  };
  return end(L, &f, ev_fit_ials(f.path, f.data->view, &o, &f.progress));
}

static int fit_markov(lua_State *L) {
  fit f;
  begin(L, &f);
  ev_markov_options o = {
      .neighbours = (unsigned)ev_lua_field_number(L, 2, "neighbours", 200, 1, 100000),
      .window = (unsigned)ev_lua_field_number(L, 2, "window", 10, 0, 1e9),
      .decay = (float)ev_lua_field_number(L, 2, "decay", 0.8, 0, 1),
      .backward = (float)ev_lua_field_number(L, 2, "backward", 0.3, 0, 1),
      .from_power = (float)ev_lua_field_number(L, 2, "from_power", 0.5, 0, 2),
      .to_power = (float)ev_lua_field_number(L, 2, "to_power", 0.3, 0, 2),
      .shrink = (float)ev_lua_field_number(L, 2, "shrink", 1, 0, 1e6),
      .user_power = (float)ev_lua_field_number(L, 2, "user_power", 0, 0, 2),
      .half_life = (float)ev_lua_field_number(L, 2, "half_life", 2, 0, 1e6),
  };
  return end(L, &f, ev_fit_markov(f.path, f.data->view, &o, &f.progress));
}

static int fit_slim(lua_State *L) {
  fit f;
  begin(L, &f);
  ev_slim_options o = {
      .l1 = (float)ev_lua_field_number(L, 2, "l1", 2, 0, 1e9),
      .l2 = (float)ev_lua_field_number(L, 2, "l2", 20, 1e-6, 1e9),
      .nonnegative = ev_lua_field_bool(L, 2, "nonnegative", true),
      .candidates = (unsigned)ev_lua_field_number(L, 2, "candidates", 1000, 0, 1e9),
      .user_power = (float)ev_lua_field_number(L, 2, "user_power", 0, 0, 2),
      .tolerance = (float)ev_lua_field_number(L, 2, "tolerance", 1e-3, 1e-6, 1),
  };
  return end(L, &f, ev_fit_slim(f.path, f.data->view, &o, &f.progress));
}

static int fit_graph_filter(lua_State *L) {
  fit f;
  begin(L, &f);
  ev_graph_filter_options o = {
      .n_dims = (unsigned)ev_lua_field_number(L, 2, "n_dims", 256, 0, 4096),
      .user_power = (float)ev_lua_field_number(L, 2, "user_power", 0.5, 0, 2),
      .item_power = (float)ev_lua_field_number(L, 2, "item_power", 0.5, 0, 2),
      .low_pass = (float)ev_lua_field_number(L, 2, "low_pass", 0.3, 0, 1e6),
      .low_pass_power = (float)ev_lua_field_number(L, 2, "low_pass_power", 0.5, -2, 2),
      .singular_power = (float)ev_lua_field_number(L, 2, "singular_power", 0, 0, 16),
      .blur_time = (float)ev_lua_field_number(L, 2, "blur_time", 1, 0, 1000),
      .blur_steps = (unsigned)ev_lua_field_number(L, 2, "blur_steps", 1, 1, 1000),
      .sharpen_time = (float)ev_lua_field_number(L, 2, "sharpen_time", 2.5, 0, 1000),
      .sharpen_steps = (unsigned)ev_lua_field_number(L, 2, "sharpen_steps", 0, 0, 1000),
      .sharpen_order = (unsigned)ev_lua_field_number(L, 2, "sharpen_order", 4, 1, 4),
      .late = ev_lua_field_bool(L, 2, "late", false),
      .item_power_out = (float)ev_lua_field_number(L, 2, "item_power_out", 0, -2, 2),
      .tolerance = (float)ev_lua_field_number(L, 2, "tolerance", 1e-4, 0, 1),
      .seed = (uint64_t)ev_lua_field_number(L, 2, "seed", (double)f.data->seed, 0, 9007199254740992.0),
  };
  return end(L, &f, ev_fit_graph_filter(f.path, f.data->view, &o, &f.progress));
}

/* The feature columns a ranker uses when it names none: numbers, and tokens that as a rule at least four rows share (a
 * column with a value for every row says who somebody is, not what he is like). */
static size_t describing_columns(const ev_snapshot *s, ev_side side, const char *out[COLUMNS_MAX]) {
  size_t n = 0;
  for (size_t i = 0; i < ev_snapshot_n_columns(s, side) && n < COLUMNS_MAX; i++) {
    const ev_column *c = ev_snapshot_column_at(s, side, i);
    if (c->type == EV_FLOAT || c->n_tokens * 4 <= c->n_rows) out[n++] = c->name;
  }
  return n;
}

bool ev_lua_use_ids(lua_State *L, int arg, const ev_rank_rows *rows) {
  const char *ids = ev_lua_field_string(L, arg, "use_ids", "clicks");
  if (strcmp(ids, "clicks") != 0 && strcmp(ids, "always") != 0 && strcmp(ids, "never") != 0)
    luaL_error(L, "use_ids must be clicks, always or never, not '%s'", ids);
  return *ids == 'a' || (*ids == 'c' && rows->impressions);
}

/* What every ranker's options say of its columns: use_features = false: slate columns alone; user_columns, item_columns: these;
 * use_ids: see ev_lua_use_ids. */
typedef struct ranked {
  const char *user[COLUMNS_MAX], *item[COLUMNS_MAX];
  size_t n_user, n_item;
  bool ids;
} ranked;

static void begin_ranker(lua_State *L, fit *f, ranked *r) {
  begin(L, f);
  if (f->data->rows == NULL) luaL_error(L, "only an agent of role rank has rows to learn from");
  r->n_user = names_field(L, "user_columns", r->user);
  r->n_item = names_field(L, "item_columns", r->item);
  const ev_snapshot *s = f->data->view->snapshot;
  if (r->n_user + r->n_item == 0 && ev_lua_field_bool(L, 2, "use_features", true)) {
    r->n_user = describing_columns(s, EV_USER, r->user);
    r->n_item = describing_columns(s, EV_ITEM, r->item);
  }
  r->ids = ev_lua_use_ids(L, 2, f->data->rows);
}

static int fit_ranker(lua_State *L) { /* data:ranker(knobs) */
  fit f;
  ranked r;
  begin_ranker(L, &f, &r);
  ev_ranker_options o = {
      .n_dims = (unsigned)ev_lua_field_number(L, 2, "n_dims", 0, 0, 1024),
      .epochs = (unsigned)ev_lua_field_number(L, 2, "epochs", 5, 1, 1000),
      .learning_rate = (float)ev_lua_field_number(L, 2, "learning_rate", 0.02, 1e-9, 100),
      .regularization = (float)ev_lua_field_number(L, 2, "regularization", 1e-5, 0, 100),
      .frequency_power = (float)ev_lua_field_number(L, 2, "frequency_power", 1, 0, 2),
      .negatives_per_positive = (float)ev_lua_field_number(L, 2, "negatives_per_positive", 0, 0, 1e6),
      .user_columns = r.user,
      .item_columns = r.item,
      .n_user_columns = r.n_user,
      .n_item_columns = r.n_item,
      .ids = r.ids,
      .seed = (uint64_t)ev_lua_field_number(L, 2, "seed", (double)f.data->seed, 0, 9007199254740992.0),
  };
  return end(L, &f, ev_fit_ranker(f.path, f.data->view->snapshot, f.data->rows, &o, &f.progress));
}

static int fit_gbdt(lua_State *L) { /* data:gbdt(knobs) */
  fit f;
  ranked r;
  begin_ranker(L, &f, &r);
  ev_gbdt_options o = {
      .n_trees = (unsigned)ev_lua_field_number(L, 2, "n_trees", 100, 1, 100000),
      .n_leaves = (unsigned)ev_lua_field_number(L, 2, "n_leaves", 31, 2, 4096),
      .max_depth = (unsigned)ev_lua_field_number(L, 2, "max_depth", 6, 0, 4096),
      .n_bins = (unsigned)ev_lua_field_number(L, 2, "n_bins", 256, 3, 256),
      .one_hot = (unsigned)ev_lua_field_number(L, 2, "one_hot", 64, 0, 254),
      .learning_rate = (float)ev_lua_field_number(L, 2, "learning_rate", 0.1, 1e-6, 10),
      .l2 = (float)ev_lua_field_number(L, 2, "l2", 1, 0, 1e9),
      .min_child_weight = (float)ev_lua_field_number(L, 2, "min_child_weight", 1, 0, 1e9),
      .min_gain = (float)ev_lua_field_number(L, 2, "min_gain", 0, 0, 1e9),
      .subsample = (float)ev_lua_field_number(L, 2, "subsample", 1, 1e-6, 1),
      .column_share = (float)ev_lua_field_number(L, 2, "column_share", 1, 1e-6, 1),
      .smoothing = (float)ev_lua_field_number(L, 2, "smoothing", 10, 1e-6, 1e9),
      .negatives_per_positive = (float)ev_lua_field_number(L, 2, "negatives_per_positive", 0, 0, 1e6),
      .user_columns = r.user,
      .item_columns = r.item,
      .n_user_columns = r.n_user,
      .n_item_columns = r.n_item,
      .ids = r.ids,
      .seed = (uint64_t)ev_lua_field_number(L, 2, "seed", (double)f.data->seed, 0, 9007199254740992.0),
  };
  return end(L, &f, ev_fit_gbdt(f.path, f.data->view->snapshot, f.data->rows, &o, &f.progress));
}

/* ---- For the other bindings ------------------------------------------------------------------------------*/
ev_ldata *ev_lua_new_data(lua_State *L, int of) { return new_data(L, of); }
void ev_lua_fit_begin(lua_State *L, ev_lfit *f) { begin(L, f); }
int ev_lua_fit_end(lua_State *L, ev_lfit *f, ev_status status) { return end(L, f, status); }
size_t ev_lua_describing_columns(const ev_snapshot *s, ev_side side, const char *out[EV_NAMES_MAX]) { return describing_columns(s, side, out); }

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
      {"item_counts", data_item_counts}, {"n_rows", data_n_rows}, {"item_scores", fit_item_scores},
      {"item_knn", fit_item_knn}, {"content", fit_content}, {"ease", fit_ease}, {"ials", fit_ials},
      {"graph_filter", fit_graph_filter}, {"markov", fit_markov}, {"slim", fit_slim}, {"ranker", fit_ranker}, {"gbdt", fit_gbdt}, {"__gc", data_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"snapshot", snapshot_open}, {"data_split", data_split}, {"data_artifact", data_artifact},
      {"data_set_rows", data_rows}, {"data_add_rows", data_add_rows}, {"data_click_rows", data_click_rows}, {"on_progress", on_progress}, {NULL, NULL}};
  ev_lua_class(L, EV_SNAPSHOT, snapshot_methods);
  ev_lua_class(L, EV_DATA, data_methods);
  lua_pop(L, 2);
  luaL_register(L, NULL, functions);
}
