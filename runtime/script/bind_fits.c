/* bind_fits.c - data:NAME { options } → model: each fit of the learn room, its options checked, its defaults those of learn.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bind.h"

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

void ev_lua_fit_begin(lua_State *L, ev_lfit *f) {
  f->data = ev_lua_data(L, 1);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  if (f->data->artifact == NULL) luaL_error(L, "this data handle cannot fit");
  if (f->data->n_fits - f->data->n_discarded >= EV_DATA_MODELS) luaL_error(L, "one fit has at most %d models", EV_DATA_MODELS);
  snprintf(f->path, sizeof f->path, "%s.%u", f->data->artifact, ++f->data->n_fits);
  f->progress = (ev_progress){report, L};
}

int ev_lua_fit_end(lua_State *L, ev_lfit *f, ev_status status) {
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
  ev_lfit f;
  ev_lua_fit_begin(L, &f);
  return ev_lua_fit_end(L, &f, ev_fit_item_scores(f.path, scores, n));
}

static int fit_item_knn(lua_State *L) {
  ev_lfit f;
  ev_lua_fit_begin(L, &f);
  ev_item_knn_options o = {
      .neighbours = (unsigned)ev_lua_field_number(L, 2, "neighbours", 200, 1, 100000),
      .shrink = (float)ev_lua_field_number(L, 2, "shrink", 10, 0, 1e6),
      .alpha = (float)ev_lua_field_number(L, 2, "alpha", 0.5, 0, 2),
      .user_power = (float)ev_lua_field_number(L, 2, "user_power", 0, 0, 2),
  };
  return ev_lua_fit_end(L, &f, ev_fit_item_knn(f.path, f.data->view, &o, &f.progress));
}

size_t ev_lua_names(lua_State *L, int arg, const char *what, const char *out[EV_NAMES_MAX]) {
  luaL_checktype(L, arg, LUA_TTABLE);
  size_t n = lua_objlen(L, arg);
  if (n > EV_NAMES_MAX) luaL_error(L, "%s: at most %d names", what, EV_NAMES_MAX);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, arg, (int)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "%s: name %d is a %s", what, (int)i + 1, luaL_typename(L, -1));
    out[i] = lua_tostring(L, -1); /* the table still holds it */
    lua_pop(L, 1);
  }
  return n;
}

size_t ev_lua_names_field(lua_State *L, int arg, const char *key, const char *out[EV_NAMES_MAX]) {
  if (lua_isnoneornil(L, arg)) return 0;
  lua_getfield(L, arg, key);
  size_t n = lua_isnil(L, -1) ? 0 : ev_lua_names(L, lua_gettop(L), key, out);
  lua_pop(L, 1);
  return n;
}

static int fit_content(lua_State *L) {
  ev_lfit f;
  ev_lua_fit_begin(L, &f);
  const char *columns[EV_NAMES_MAX];
  ev_content_options o = {
      .columns = columns,
      .n_columns = ev_lua_names_field(L, 2, "columns", columns),
      .neighbours = (unsigned)ev_lua_field_number(L, 2, "neighbours", 200, 1, 100000),
      .idf_power = (float)ev_lua_field_number(L, 2, "idf_power", 1, 0, 4),
      .half_life = (float)ev_lua_field_number(L, 2, "half_life", 0, 0, 1e6),
  };
  return ev_lua_fit_end(L, &f, ev_fit_content(f.path, f.data->view, &o, &f.progress));
}

static int fit_ease(lua_State *L) {
  ev_lfit f;
  ev_lua_fit_begin(L, &f);
  ev_ease_options o = {
      .lambda = (float)ev_lua_field_number(L, 2, "lambda", 200, 1e-6, 1e9),
      .user_power = (float)ev_lua_field_number(L, 2, "user_power", 0, 0, 2),
      .item_power_in = (float)ev_lua_field_number(L, 2, "item_power_in", 0, -2, 2),
      .item_power_out = (float)ev_lua_field_number(L, 2, "item_power_out", 0, -2, 2),
  };
  return ev_lua_fit_end(L, &f, ev_fit_ease(f.path, f.data->view, &o, &f.progress));
}

static int fit_ials(lua_State *L) {
  ev_lfit f;
  ev_lua_fit_begin(L, &f);
  ev_ials_options o = {
      .n_dims = (unsigned)ev_lua_field_number(L, 2, "n_dims", 64, 1, 4096),
      .epochs = (unsigned)ev_lua_field_number(L, 2, "epochs", 12, 1, 1000),
      .unobserved_weight = (float)ev_lua_field_number(L, 2, "unobserved_weight", 0.05, 0, 1e6),
      .regularization = (float)ev_lua_field_number(L, 2, "regularization", 0.003, 0, 1e6),
      .frequency_power = (float)ev_lua_field_number(L, 2, "frequency_power", 1, 0, 4),
      .init_std = (float)ev_lua_field_number(L, 2, "init_std", 0.1, 1e-9, 100),
      .seed = (uint64_t)ev_lua_field_number(L, 2, "seed", (double)f.data->seed, 0, 9007199254740992.0),
  };
  if (lua_isnoneornil(L, 2)) return ev_lua_fit_end(L, &f, ev_fit_ials(f.path, f.data->view, &o, &f.progress));
  lua_getfield(L, 2, "index"); /* index = { kind, form, … }: of the items' vectors, in the same file */
  if (lua_isnil(L, -1)) return ev_lua_fit_end(L, &f, ev_fit_ials(f.path, f.data->view, &o, &f.progress));
  ev_index_options x;
  int at = lua_gettop(L);
  if (!lua_istable(L, at)) return luaL_error(L, "index: a table is wanted, not a %s", luaL_typename(L, at));
  ev_lua_only(L, at, "kind form n_links effort_build n_lists effort seed");
  ev_index_defaults(&x);
  x.seed = o.seed;
  ev_lua_index_options(L, at, &x);
  return ev_lua_fit_end(L, &f, ev_fit_indexed(f.path, f.data->view, &o, &x, &f.progress));
}

static int fit_markov(lua_State *L) {
  ev_lfit f;
  ev_lua_fit_begin(L, &f);
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
  return ev_lua_fit_end(L, &f, ev_fit_markov(f.path, f.data->view, &o, &f.progress));
}

static int fit_slim(lua_State *L) {
  ev_lfit f;
  ev_lua_fit_begin(L, &f);
  ev_slim_options o = {
      .l1 = (float)ev_lua_field_number(L, 2, "l1", 2, 0, 1e9),
      .l2 = (float)ev_lua_field_number(L, 2, "l2", 20, 1e-6, 1e9),
      .nonnegative = ev_lua_field_bool(L, 2, "nonnegative", true),
      .candidates = (unsigned)ev_lua_field_number(L, 2, "candidates", 1000, 0, 1e9),
      .user_power = (float)ev_lua_field_number(L, 2, "user_power", 0, 0, 2),
      .tolerance = (float)ev_lua_field_number(L, 2, "tolerance", 1e-3, 1e-6, 1),
  };
  return ev_lua_fit_end(L, &f, ev_fit_slim(f.path, f.data->view, &o, &f.progress));
}

static int fit_graph_filter(lua_State *L) {
  ev_lfit f;
  ev_lua_fit_begin(L, &f);
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
  return ev_lua_fit_end(L, &f, ev_fit_graph_filter(f.path, f.data->view, &o, &f.progress));
}

/* The feature columns a ranker uses when it names none: numbers, and tokens that as a rule at least four rows share (a
 * column with a value for every row says who somebody is, not what he is like). */
size_t ev_lua_describing_columns(const ev_snapshot *s, ev_side side, const char *out[EV_NAMES_MAX]) {
  size_t n = 0;
  for (size_t i = 0; i < ev_snapshot_n_columns(s, side) && n < EV_NAMES_MAX; i++) {
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
  const char *user[EV_NAMES_MAX], *item[EV_NAMES_MAX];
  size_t n_user, n_item;
  bool ids;
} ranked;

static void begin_ranker(lua_State *L, ev_lfit *f, ranked *r) {
  ev_lua_fit_begin(L, f);
  if (f->data->rows == NULL) luaL_error(L, "only an agent of role rank has rows to learn from");
  r->n_user = ev_lua_names_field(L, 2, "user_columns", r->user);
  r->n_item = ev_lua_names_field(L, 2, "item_columns", r->item);
  const ev_snapshot *s = f->data->view->snapshot;
  if (r->n_user + r->n_item == 0 && ev_lua_field_bool(L, 2, "use_features", true)) {
    r->n_user = ev_lua_describing_columns(s, EV_USER, r->user);
    r->n_item = ev_lua_describing_columns(s, EV_ITEM, r->item);
  }
  r->ids = ev_lua_use_ids(L, 2, f->data->rows);
}

static int fit_ranker(lua_State *L) { /* data:ranker(knobs) */
  ev_lfit f;
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
  return ev_lua_fit_end(L, &f, ev_fit_ranker(f.path, f.data->view->snapshot, f.data->rows, &o, &f.progress));
}

static int fit_gbdt(lua_State *L) { /* data:gbdt(knobs) */
  ev_lfit f;
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
  return ev_lua_fit_end(L, &f, ev_fit_gbdt(f.path, f.data->view->snapshot, f.data->rows, &o, &f.progress));
}

void ev_bind_fits(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"item_scores", fit_item_scores}, {"item_knn", fit_item_knn}, {"content", fit_content}, {"ease", fit_ease}, {"ials", fit_ials},
      {"graph_filter", fit_graph_filter}, {"markov", fit_markov}, {"slim", fit_slim}, {"ranker", fit_ranker}, {"gbdt", fit_gbdt}, {NULL, NULL}};
  ev_lua_extend(L, EV_DATA, methods);
  lua_pushcfunction(L, on_progress);
  lua_setfield(L, -2, "on_progress");
}
