/* bind_batches.c - batches for nets, the models that nets become, and what early stopping measures.
 *
 * Batches stand on a net, which they share, and on the view of a data handle, which they anchor. Their inputs are fields:
 * b.item is the tensor, recorded when it is first asked for. What a fit makes of tensors is computed here and written at once;
 * memory that C took is freed before an error is raised. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bind_graph.h"

#define EV_BATCHES "ev.batches"
#define STEP_MAX INT64_C(9007199254740992)
#define MEASURED_AT_ONCE 4096 /* users */

typedef struct lbatches {
  ev_batches *batches; /* owned; NULL: finalised, or never made */
  ev_lnet *net;        /* shared */
} lbatches;

static lbatches *check_batches(lua_State *L, int arg) {
  lbatches *h = luaL_checkudata(L, arg, EV_BATCHES);
  if (h->batches == NULL) luaL_error(L, "the batches are gone");
  return h;
}

static ev_ldata *check_data(lua_State *L, int arg) {
  ev_ldata *d = ev_lua_data(L, arg);
  if (d->view == NULL) luaL_error(L, "the data are gone");
  return d;
}

/* ---- Making --------------------------------------------------------------------------------------------*/
static double share_field(lua_State *L, const char *key) { return ev_lua_field_number(L, lua_gettop(L), key, 0, 0, 1e6); }

/* Field "mix" of the options at 3: { uniform =, popularity = }. */
static void take_mix(lua_State *L, ev_sampler_options *o) {
  lua_getfield(L, 3, "mix");
  if (lua_isnil(L, -1)) luaL_error(L, "a mixed sampler wants mix = { uniform = …, popularity = … }");
  ev_lua_only(L, lua_gettop(L), "uniform popularity");
  o->uniform = share_field(L, "uniform");
  o->popularity = share_field(L, "popularity");
  lua_pop(L, 1);
}

static void take_sampler(lua_State *L, ev_batch_options *o) {
  ev_sampler_options *s = &o->sampler;
  lua_getfield(L, 3, "mix");
  bool mix = !lua_isnil(L, -1);
  lua_pop(L, 1);
  const char *word = ev_lua_field_string(L, 3, "sampler", mix ? "mixed" : "uniform"), *seen = ev_lua_field_string(L, 3, "seen", "avoid");
  if (strcmp(word, "mixed") == 0) take_mix(L, s);
  else if (strcmp(word, "popularity") == 0) s->uniform = 0, s->popularity = 1;
  else if (strcmp(word, "uniform") != 0) luaL_error(L, "sampler: '%s' is none of uniform, popularity, mixed", word);
  else if (mix) luaL_error(L, "mix is of a mixed sampler");
  if (strcmp(seen, "avoid") != 0 && strcmp(seen, "allow") != 0) luaL_error(L, "seen: '%s' is none of avoid, allow", seen);
  o->avoid_seen = strcmp(seen, "avoid") == 0;
  s->power = ev_lua_field_number(L, 3, "power", s->power, 0, 8);
  s->known_only = ev_lua_field_bool(L, 3, "known_only", false);
  o->n_negatives = (size_t)ev_lua_field_number(L, 3, "negatives", 1, 0, 65536);
  o->shared = ev_lua_field_bool(L, 3, "shared", false);
  o->id_dropout = ev_lua_field_number(L, 3, "id_dropout", 0, 0, 0.999);
}

/* Pushes a handle without batches yet; name: what they are called, at least 24 bytes. */
static lbatches *new_batches(lua_State *L, ev_lnet *net, int data, char *name, ev_batch_options *o) {
  ev_batch_defaults(o);
  snprintf(name, 24, net->n_batches == 0 ? "batch" : "batch%u", net->n_batches + 1);
  o->name = name;
  o->seed = (uint64_t)ev_lua_field_number(L, 3, "seed", (double)net->seed, 0, 9007199254740992.0);
  o->size = (size_t)ev_lua_field_number(L, 3, "size", 0, 0, 1 << 24);
  lbatches *h = lua_newuserdata(L, sizeof *h);
  *h = (lbatches){NULL, NULL};
  luaL_getmetatable(L, EV_BATCHES);
  lua_setmetatable(L, -2);
  ev_lua_anchor(L, lua_gettop(L), data);
  ev_lua_place(L, net->graph);
  return h;
}

static int made(lua_State *L, lbatches *h, ev_lnet *net, ev_status status) {
  EV_CHECK(L, status);
  h->net = net;
  net->refs++;
  net->n_batches++;
  return 1;
}

/* net:pairs(data, { size = 2048, negatives = 1, sampler = "uniform" | "popularity" | "mixed", power = 0.75, mix = { uniform =, popularity = },
 * shared = false, seen = "avoid" | "allow", known_only = false, id_dropout = 0, whole = false, seed = }) → batches of pairs; learn.h says what they hold */
static int net_pairs(lua_State *L) {
  lua_settop(L, 3);
  ev_lnet *net = ev_lua_net(L, 1);
  const ev_ldata *d = check_data(L, 2);
  ev_batch_options o;
  char name[24];
  ev_lua_only(L, 3, "size negatives sampler power mix shared seen known_only id_dropout whole seed");
  lbatches *h = new_batches(L, net, 2, name, &o);
  if (lua_istable(L, 3)) take_sampler(L, &o);
  o.whole = ev_lua_field_bool(L, 3, "whole", false);
  return made(L, h, net, ev_pairs_new(&h->batches, net->graph, d->view, &o));
}

/* net:sequences(data, { size = 128, max_length = 50, position = "start" | "end", window = false, and negatives (0 here) … as for pairs }) */
static int net_sequences(lua_State *L) {
  lua_settop(L, 3);
  ev_lnet *net = ev_lua_net(L, 1);
  const ev_ldata *d = check_data(L, 2);
  ev_batch_options o;
  char name[24];
  ev_lua_only(L, 3, "size max_length position window negatives sampler power mix shared seen known_only id_dropout seed");
  lbatches *h = new_batches(L, net, 2, name, &o);
  if (lua_istable(L, 3)) take_sampler(L, &o);
  o.n_negatives = (size_t)ev_lua_field_number(L, 3, "negatives", 0, 0, 65536);
  o.max_length = (size_t)ev_lua_field_number(L, 3, "max_length", 50, 1, 65536);
  o.window = ev_lua_field_bool(L, 3, "window", false);
  const char *position = ev_lua_field_string(L, 3, "position", "start");
  if (strcmp(position, "start") != 0 && strcmp(position, "end") != 0) return luaL_error(L, "position: '%s' is none of start, end", position);
  o.from_start = strcmp(position, "start") == 0;
  return made(L, h, net, ev_sequences_new(&h->batches, net->graph, d->view, &o));
}

/* net:rows(data, { size = 2048, negatives_per_positive = 0 (all), use_features = true, user_columns =, item_columns =,
 * use_ids = "clicks" | "always" | "never", held = 0, held_by = "rows" | "slates", seed = }) → batches of the candidates that an
 * agent of role rank learns from */
static int net_rows(lua_State *L) {
  lua_settop(L, 3);
  ev_lnet *net = ev_lua_net(L, 1);
  const ev_ldata *d = check_data(L, 2);
  const char *user[EV_NAMES_MAX], *item[EV_NAMES_MAX];
  char name[24];
  ev_batch_options o;
  ev_fields *fields;
  ev_lua_only(L, 3, "size negatives_per_positive use_features user_columns item_columns use_ids held held_by seed");
  if (d->rows == NULL) return luaL_error(L, "only an agent of role rank has rows to learn from");
  const ev_snapshot *s = d->view->snapshot;
  ev_fields_options f = {user, item, ev_lua_names_field(L, 3, "user_columns", user), ev_lua_names_field(L, 3, "item_columns", item), ev_lua_use_ids(L, 3, d->rows)};
  if (f.n_user_columns + f.n_item_columns == 0 && ev_lua_field_bool(L, 3, "use_features", true)) {
    f.n_user_columns = ev_lua_describing_columns(s, EV_USER, user);
    f.n_item_columns = ev_lua_describing_columns(s, EV_ITEM, item);
  }
  lbatches *h = new_batches(L, net, 2, name, &o);
  o.negatives_per_positive = ev_lua_field_number(L, 3, "negatives_per_positive", 0, 0, 1e6);
  o.held = ev_lua_field_number(L, 3, "held", 0, 0, 0.9);
  const char *by = ev_lua_field_string(L, 3, "held_by", "rows");
  if (strcmp(by, "rows") != 0 && strcmp(by, "slates") != 0) return luaL_error(L, "held_by: '%s' is none of rows, slates", by);
  o.held_groups = strcmp(by, "slates") == 0;
  EV_CHECK(L, ev_fields_fit(&fields, s, d->rows, &f));
  return made(L, h, net, ev_rows_new(&h->batches, net->graph, d->view, d->rows, fields, &o));
}

static ev_side take_side(lua_State *L, int arg) {
  static const char *const names[] = {"user", "item", NULL};
  static const ev_side sides[] = {EV_USER, EV_ITEM};
  return sides[luaL_checkoption(L, arg, NULL, names)];
}

/* net:features(data, "user" | "item"[, { columns }]) → a sparse tensor (users or items, features); without a list the columns
 * that describe. nil: there are none. */
static int net_features(lua_State *L) {
  lua_settop(L, 4);
  ev_lnet *net = ev_lua_net(L, 1);
  const ev_ldata *d = check_data(L, 2);
  ev_side side = take_side(L, 3);
  const ev_snapshot *s = d->view->snapshot;
  const char *columns[EV_NAMES_MAX];
  char name[40];
  size_t n = 0;
  if (lua_isnil(L, 4)) n = ev_lua_describing_columns(s, side, columns);
  else n = ev_lua_names(L, 4, "features", columns);
  if (n == 0) return 0;
  snprintf(name, sizeof name, "%s_features", side == EV_USER ? "user" : "item");
  for (unsigned k = 2; ev_graph_find(net->graph, name) != EV_NONE; k++) snprintf(name, sizeof name, "%s_features.%u", side == EV_USER ? "user" : "item", k);
  ev_tensor t;
  ev_lua_place(L, net->graph);
  EV_CHECK(L, ev_graph_features(net->graph, &t, name, s, side, columns, n));
  ev_lua_push_tensor(L, 1, t);
  return 1;
}

/* ---- Using ---------------------------------------------------------------------------------------------*/
static int batches_fill(lua_State *L) { /* b:fill(step) → rows */
  lbatches *h = check_batches(L, 1);
  size_t n;
  h->net->n_changes++;
  EV_CHECK(L, ev_batches_fill(h->batches, (uint64_t)ev_lua_integer(L, 2, 0, STEP_MAX), &n));
  lua_pushnumber(L, (double)n);
  return 1;
}

static int batches_fill_held(lua_State *L) { /* b:fill_held(first) → rows: of those that no epoch has, from number `first` (from 0) on */
  lbatches *h = check_batches(L, 1);
  size_t n;
  h->net->n_changes++;
  EV_CHECK(L, ev_batches_fill_held(h->batches, (size_t)ev_lua_integer(L, 2, 0, STEP_MAX), &n));
  lua_pushnumber(L, (double)n);
  return 1;
}

static int batches_held(lua_State *L) { /* b:held() → rows that no epoch has */
  lua_pushnumber(L, (double)ev_batches_held(check_batches(L, 1)->batches));
  return 1;
}

static int batches_per_epoch(lua_State *L) { /* b:per_epoch() → steps */
  lua_pushnumber(L, (double)ev_batches_per_epoch(check_batches(L, 1)->batches));
  return 1;
}

static int batches_rows(lua_State *L) { /* b:rows() → rows of an epoch */
  lua_pushnumber(L, (double)ev_batches_rows(check_batches(L, 1)->batches));
  return 1;
}

static const ev_fields *check_fields(lua_State *L) {
  const ev_fields *f = ev_batches_fields(check_batches(L, 1)->batches);
  if (f == NULL) luaL_error(L, "these batches are not of rows: they have no fields");
  return f;
}

static int batches_n_features(lua_State *L) { /* b:n_features() → rows of a table of embeddings that any code leads into */
  lua_pushnumber(L, (double)ev_fields_n_features(check_fields(L)));
  return 1;
}

/* b:fields() → { { name, from = "user" | "item" | "slate", id, first, last (columns of codes) | column (of numbers) }, … }, counted from 1 */
static int batches_fields(lua_State *L) {
  static const char *const from[] = {"user", "item", "slate"};
  const ev_fields *f = check_fields(L);
  lua_createtable(L, (int)ev_fields_n(f), 0);
  for (size_t i = 0; i < ev_fields_n(f); i++) {
    const ev_rank_field *x = ev_fields_at(f, i);
    lua_createtable(L, 0, 5);
    lua_pushstring(L, x->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, from[x->from]);
    lua_setfield(L, -2, "from");
    lua_pushboolean(L, x->id);
    lua_setfield(L, -2, "id");
    lua_pushnumber(L, (double)(x->type == EV_FLOAT ? x->dense : x->slot) + 1);
    lua_setfield(L, -2, x->type == EV_FLOAT ? "column" : "first");
    if (x->type != EV_FLOAT) {
      lua_pushnumber(L, (double)(x->slot + x->n_slots));
      lua_setfield(L, -2, "last");
    }
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int batches_index(lua_State *L) { /* b.WORD → the input; b:fill … */
  static const luaL_Reg methods[] = {{"fill", batches_fill}, {"per_epoch", batches_per_epoch}, {"rows", batches_rows}, {"held", batches_held}, {"fill_held", batches_fill_held},
                                    {"fields", batches_fields}, {"n_features", batches_n_features}, {NULL, NULL}};
  lbatches *h = check_batches(L, 1);
  const char *word = luaL_checkstring(L, 2);
  for (const luaL_Reg *m = methods; m->name != NULL; m++)
    if (strcmp(m->name, word) == 0) {
      lua_pushcfunction(L, m->func);
      return 1;
    }
  ev_tensor t;
  ev_lua_place(L, h->net->graph);
  EV_CHECK(L, ev_batches_input(h->batches, word, &t));
  ev_lua_push_tensor_of(L, h->net, t);
  return 1;
}

static int batches_text(lua_State *L) {
  lbatches *h = check_batches(L, 1);
  lua_pushfstring(L, "batches (%d steps an epoch, %d rows)", (int)ev_batches_per_epoch(h->batches), (int)ev_batches_rows(h->batches));
  return 1;
}

static int batches_close(lua_State *L) {
  lbatches *h = luaL_checkudata(L, 1, EV_BATCHES);
  ev_batches_free(h->batches);
  ev_lnet_release(h->net);
  *h = (lbatches){NULL, NULL};
  return 0;
}

/* ---- Models --------------------------------------------------------------------------------------------*/
/* Tables that a model is made of: computed one by one, freed together. */
typedef struct tables {
  ev_lnet *net;     /* of the first tensor; the others are of it too */
  lbatches *of;     /* field "batches", or NULL */
  float *table[4];
  size_t d[4];
} tables;

static void free_tables(tables *t) {
  for (int i = 0; i < 4; i++) ev_free(t->table[i]);
}

/* The tensor in field `key` of the options at 2; EV_NONE: none there. */
static ev_tensor tensor_field(lua_State *L, tables *t, const char *key) {
  ev_tensor found = EV_NONE;
  lua_getfield(L, 2, key);
  if (!lua_isnil(L, -1)) {
    int at = lua_gettop(L);
    if (t->net == NULL) t->net = ev_lua_net_of(L, at);
    found = ev_lua_tensor(L, at, t->net->graph);
  }
  lua_pop(L, 1);
  return found;
}

static void batches_field(lua_State *L, tables *t) {
  lua_getfield(L, 2, "batches");
  t->of = lua_isnil(L, -1) ? NULL : check_batches(L, lua_gettop(L));
  if (t->of != NULL && t->net != NULL && t->of->net != t->net) luaL_error(L, "the batches are of another net than the tensors");
  lua_pop(L, 1);
}

static ev_status compute(tables *t, int i, ev_tensor tensor, ev_side side, size_t n) {
  if (tensor == EV_NONE) return EV_OK;
  t->net->n_changes++;
  return ev_batches_table(t->of != NULL ? t->of->batches : NULL, t->net->graph, tensor, side, n, &t->table[i], &t->d[i]);
}

static ev_status same_dims(const tables *t, int i, const char *what, size_t d) {
  return t->table[i] == NULL || t->d[i] == d ? EV_OK : ev_fail(EV_EINVAL, "%s has %zu numbers a row, %zu expected", what, t->d[i], d);
}

/* data:vectors { user =, item =, context =, bias =, cosine = false, history_power = 1, cold = false, batches = } → model. Tables, or tensors
 * that the batches' ids lead to. cold: vectors of users and items without interactions mean something. */
static int fit_vectors(lua_State *L) {
  enum { USER, ITEM, CONTEXT, BIAS };
  lua_settop(L, 2);
  ev_lfit f;
  tables t = {0};
  luaL_checktype(L, 2, LUA_TTABLE);
  ev_lua_only(L, 2, "user item context bias cosine history_power cold batches");
  const ev_view *v = check_data(L, 1)->view;
  ev_tensor item = tensor_field(L, &t, "item"), user = tensor_field(L, &t, "user"), context = tensor_field(L, &t, "context"), bias = tensor_field(L, &t, "bias");
  batches_field(L, &t);
  if (item == EV_NONE) return luaL_error(L, "vectors want item = a tensor");
  ev_vectors x = {.n_users = v->by_user.n_rows, .n_items = v->by_item.n_rows, .cosine = ev_lua_field_bool(L, 2, "cosine", false),
                  .history_power = (float)ev_lua_field_number(L, 2, "history_power", 1, 0, 4), .view = ev_lua_field_bool(L, 2, "cold", false) ? NULL : v};
  ev_lua_fit_begin(L, &f);
  ev_status status = compute(&t, ITEM, item, EV_ITEM, x.n_items);
  if (status == EV_OK) status = compute(&t, USER, user, EV_USER, x.n_users);
  if (status == EV_OK) status = compute(&t, CONTEXT, context, EV_ITEM, x.n_items);
  if (status == EV_OK) status = compute(&t, BIAS, bias, EV_ITEM, x.n_items);
  if (status == EV_OK) status = same_dims(&t, USER, "user", t.d[ITEM]);
  if (status == EV_OK) status = same_dims(&t, CONTEXT, "context", t.d[ITEM]);
  if (status == EV_OK) status = same_dims(&t, BIAS, "bias", 1);
  x.user = t.table[USER], x.item = t.table[ITEM], x.context = t.table[CONTEXT], x.bias = t.table[BIAS], x.n_dims = t.d[ITEM];
  if (status == EV_OK) status = ev_fit_vectors(f.path, &x);
  free_tables(&t);
  return ev_lua_fit_end(L, &f, status);
}

/* data:encoder { query =, item =, bias =, cosine = false, batches = sequences } → model */
static int fit_encoder(lua_State *L) {
  enum { ITEM, BIAS };
  lua_settop(L, 2);
  ev_lfit f;
  tables t = {0};
  luaL_checktype(L, 2, LUA_TTABLE);
  ev_lua_only(L, 2, "query item bias cosine batches");
  const ev_view *v = check_data(L, 1)->view;
  ev_encoder x = {.query = tensor_field(L, &t, "query"), .n_items = v->by_item.n_rows, .cosine = ev_lua_field_bool(L, 2, "cosine", false)};
  ev_tensor item = tensor_field(L, &t, "item"), bias = tensor_field(L, &t, "bias");
  batches_field(L, &t);
  if (x.query == EV_NONE || item == EV_NONE || t.of == NULL)
    return luaL_error(L, "an encoder wants query = a tensor, item = a tensor and batches = those it learnt from");
  x.batches = t.of->batches;
  ev_lua_fit_begin(L, &f);
  ev_status status = compute(&t, ITEM, item, EV_ITEM, x.n_items);
  if (status == EV_OK) status = compute(&t, BIAS, bias, EV_ITEM, x.n_items);
  if (status == EV_OK) status = same_dims(&t, BIAS, "bias", 1);
  x.item = t.table[ITEM], x.bias = t.table[BIAS], x.n_dims = t.d[ITEM];
  if (status == EV_OK) status = ev_fit_encoder(f.path, &x);
  free_tables(&t);
  return ev_lua_fit_end(L, &f, status);
}

/* data:network { logit =, batches = rows } → a ranker */
static int fit_network(lua_State *L) {
  lua_settop(L, 2);
  ev_lfit f;
  tables t = {0};
  luaL_checktype(L, 2, LUA_TTABLE);
  ev_lua_only(L, 2, "logit batches");
  ev_tensor logit = tensor_field(L, &t, "logit");
  batches_field(L, &t);
  if (logit == EV_NONE || t.of == NULL) return luaL_error(L, "a network wants logit = a tensor and batches = those it learnt from");
  ev_lua_fit_begin(L, &f);
  return ev_lua_fit_end(L, &f, ev_fit_network(f.path, t.of->batches, logit));
}

/* trusted: (data, model): a model of this fit that lost; its file is gone, its handle says so */
static int model_discard(lua_State *L) {
  ev_ldata *d = ev_lua_data(L, 1);
  ev_lmodel *h = ev_lua_model(L, 2);
  const char *path = ev_pack_path(ev_model_pack(h->model));
  if (d->artifact == NULL || strncmp(path, d->artifact, strlen(d->artifact)) != 0) return luaL_error(L, "this fit did not make the model");
  unlink(path);
  ev_model_close(h->model);
  ev_free(h->ids);
  ev_free(h->scores);
  *h = (ev_lmodel){0};
  d->n_discarded++;
  return 0;
}

/* ---- Early stopping ------------------------------------------------------------------------------------*/
/* data:split(share[, seed[, users]]) → rest, held: of so many users (default: all) the last ⌈share · n⌉ interactions, or where the
 * data's folds are no cut in time a seeded choice. Neither can fit. */
static int data_split(lua_State *L) {
  lua_settop(L, 4);
  const ev_ldata *d = check_data(L, 1);
  double share = luaL_checknumber(L, 2);
  uint64_t seed = lua_isnil(L, 3) ? d->seed : (uint64_t)ev_lua_integer(L, 3, 0, STEP_MAX);
  size_t users = lua_isnil(L, 4) ? SIZE_MAX : (size_t)ev_lua_integer(L, 4, 1, EV_NONE);
  if (!(share > 0 && share < 1)) return luaL_argerror(L, 2, "a share between 0 and 1");
  ev_ldata *rest = ev_lua_new_data(L, 1), *held = ev_lua_new_data(L, 1);
  rest->seed = held->seed = d->seed;
  EV_CHECK(L, ev_view_hold(&rest->view, &held->view, d->view, share, users, seed));
  return 2;
}

/* Lists of the users in `held`, who know `known`. users (n), lists (n, k). */
static ev_status list_users(const ev_model *m, const ev_view *known, const uint32_t *users, size_t n, size_t k, uint32_t *lists) {
  const ev_csr *c = &known->by_user;
  size_t total = 0, at = 0;
  for (size_t i = 0; i < n; i++) total += c->ptr[users[i] + 1] - c->ptr[users[i]];
  uint32_t *history = ev_alloc(total, sizeof *history), *seen = ev_alloc(total, sizeof *seen);
  uint64_t *ptr = ev_zalloc(n + 1, sizeof *ptr);
  float *scores = ev_alloc(n, k * sizeof *scores);
  ev_status status = history == NULL || seen == NULL || ptr == NULL || scores == NULL ? EV_ENOMEM : EV_OK;
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    size_t from = c->ptr[users[i]], len = c->ptr[users[i] + 1] - from;
    memcpy(history + at, c->idx + from, len * sizeof *history);
    memcpy(seen + at, known->seen + from, len * sizeof *seen);
    ptr[i + 1] = at += len;
  }
  ev_requests r = {n, users, ptr, history, ptr, seen};
  if (status == EV_OK) status = ev_model_recall(m, &r, k, lists, scores);
  ev_free(history);
  ev_free(seen);
  ev_free(ptr);
  ev_free(scores);
  return status;
}

static ev_status measure(const ev_model *m, const ev_view *known, const ev_view *held, size_t k, double *recall, double *ndcg, size_t *n_users) {
  const ev_csr *c = &held->by_user;
  size_t n = 0, cutoffs[1] = {k};
  uint32_t *users = ev_alloc(c->n_rows, sizeof *users), *lists = NULL;
  for (size_t u = 0; u < c->n_rows && users != NULL; u++)
    if (c->ptr[u + 1] > c->ptr[u]) users[n++] = (uint32_t)u;
  if (users != NULL) lists = ev_alloc(n, k * sizeof *lists);
  ev_status status = lists == NULL ? EV_ENOMEM : n == 0 ? ev_fail(EV_EINVAL, "nothing is held out: there is nothing to measure on") : EV_OK;
  for (size_t first = 0; first < n && status == EV_OK; first += MEASURED_AT_ONCE)
    status = list_users(m, known, users + first, n - first < MEASURED_AT_ONCE ? n - first : MEASURED_AT_ONCE, k, lists + first * k);
  ev_eval_options o;
  ev_eval_defaults(&o);
  o.cutoffs = cutoffs;
  o.n_cutoffs = 1;
  o.n_bootstrap = 0;
  ev_eval *e = NULL;
  if (status == EV_OK) status = ev_eval_new(&e, lists, k, users, n, held, known, &o);
  for (size_t i = 0; status == EV_OK && i < ev_eval_n(e); i++) {
    const ev_metric *x = ev_eval_at(e, i);
    if (strncmp(x->name, "recall@", 7) == 0) *recall = x->value;
    if (strncmp(x->name, "ndcg@", 5) == 0) *ndcg = x->value;
  }
  *n_users = n;
  if (e != NULL) ev_eval_free(e);
  ev_free(users);
  ev_free(lists);
  return status;
}

/* held:measure(model, known[, k = 20]) → { recall =, ndcg =, k =, n_users = } over the users that have something held out; what a user has
 * in `known` is his history, and left out of his list. */
static int data_measure(lua_State *L) {
  lua_settop(L, 4);
  const ev_ldata *held = check_data(L, 1), *known = check_data(L, 3);
  ev_lmodel *h = ev_lua_model(L, 2);
  size_t k = lua_isnil(L, 4) ? 20 : (size_t)ev_lua_integer(L, 4, 1, 1000), n_users = 0;
  double recall = 0, ndcg = 0;
  if (held->view->snapshot != known->view->snapshot) return luaL_error(L, "measure: what is held and what is known are of different data");
  size_t n_model = ev_model_n_items(h->model), n_items = held->view->by_item.n_rows;
  if (n_model != n_items) return luaL_error(L, "measure: the model knows %d items, the data %d", (int)n_model, (int)n_items);
  EV_CHECK(L, measure(h->model, known->view, held->view, k, &recall, &ndcg, &n_users));
  lua_createtable(L, 0, 4);
  lua_pushnumber(L, recall);
  lua_setfield(L, -2, "recall");
  lua_pushnumber(L, ndcg);
  lua_setfield(L, -2, "ndcg");
  lua_pushnumber(L, (double)k);
  lua_setfield(L, -2, "k");
  lua_pushnumber(L, (double)n_users);
  lua_setfield(L, -2, "n_users");
  return 1;
}

void ev_bind_batches(lua_State *L) {
  static const luaL_Reg net_methods[] = {{"pairs", net_pairs}, {"sequences", net_sequences}, {"rows", net_rows}, {"features", net_features}, {NULL, NULL}};
  static const luaL_Reg data_methods[] = {{"vectors", fit_vectors}, {"encoder", fit_encoder}, {"network", fit_network},
                                         {"split", data_split}, {"measure", data_measure}, {NULL, NULL}};
  static const luaL_Reg batch_methods[] = {{"__index", batches_index}, {"__tostring", batches_text}, {"__gc", batches_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"model_discard", model_discard}, {NULL, NULL}};
  ev_lua_class(L, EV_BATCHES, batch_methods);
  lua_pop(L, 1);
  ev_lua_extend(L, EV_GRAPH, net_methods);
  ev_lua_extend(L, EV_DATA, data_methods);
  luaL_register(L, NULL, functions);
}
