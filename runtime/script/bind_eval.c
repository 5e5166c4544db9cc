/* bind_eval.c - metrics of a run's lists and of a ranker's clicks, and paired comparisons. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"

#define EV_LISTS "ev.lists"
#define EV_CLICKS "ev.clicks"
#define CUTOFFS_MAX 16

/* Lists under construction: one row of k items for each user, in the order they were put. */
typedef struct llists {
  size_t k, n, cap;
  uint32_t *users, *items; /* (cap), (cap, k); owned */
} llists;

static int lists_new(lua_State *L) { /* lists(k, n) */
  size_t k = (size_t)ev_lua_integer(L, 1, 1, EV_SLATE_MAX_ITEMS), n = (size_t)ev_lua_integer(L, 2, 0, UINT32_MAX);
  llists *l = lua_newuserdata(L, sizeof *l);
  *l = (llists){.k = k, .cap = n};
  luaL_getmetatable(L, EV_LISTS);
  lua_setmetatable(L, -2);
  l->users = ev_alloc(n, sizeof *l->users);
  l->items = ev_alloc(n, k * sizeof *l->items);
  if (l->users == NULL || l->items == NULL) return ev_lua_fail(L, EV_ENOMEM);
  return 1;
}

static int lists_put(lua_State *L) { /* lists:put(user, slate): its first k items */
  llists *l = luaL_checkudata(L, 1, EV_LISTS);
  uint32_t user = (uint32_t)ev_lua_integer(L, 2, 0, EV_NONE - 1);
  ev_slate *s = ev_lua_slate(L, 3);
  if (l->n == l->cap) return luaL_error(L, "more lists than announced");
  uint32_t *row = l->items + l->n * l->k, *items = ev_slate_items(s);
  size_t n = ev_slate_n(s);
  for (size_t i = 0; i < l->k; i++) row[i] = i < n ? items[i] : EV_NONE;
  l->users[l->n++] = user;
  return 0;
}

static int lists_close(lua_State *L) {
  llists *l = luaL_checkudata(L, 1, EV_LISTS);
  ev_free(l->users);
  ev_free(l->items);
  *l = (llists){0};
  return 0;
}

static size_t numbers_field(lua_State *L, int arg, const char *key, size_t *out, size_t max) {
  lua_getfield(L, arg, key);
  size_t n = 0;
  if (!lua_isnil(L, -1)) {
    luaL_checktype(L, -1, LUA_TTABLE);
    n = lua_objlen(L, -1);
    if (n > max) luaL_error(L, "%s: at most %d numbers", key, (int)max);
    for (size_t i = 0; i < n; i++) {
      lua_rawgeti(L, -1, (int)i + 1);
      out[i] = (size_t)ev_lua_integer(L, lua_gettop(L), 1, EV_SLATE_MAX_ITEMS);
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
  return n;
}

static void push_metrics(lua_State *L, const ev_eval *e) {
  lua_createtable(L, 0, (int)ev_eval_n(e));
  for (size_t i = 0; i < ev_eval_n(e); i++) {
    const ev_metric *m = ev_eval_at(e, i);
    lua_createtable(L, 0, 3);
    lua_pushnumber(L, m->value);
    lua_setfield(L, -2, "value");
    lua_pushnumber(L, m->low);
    lua_setfield(L, -2, "low");
    lua_pushnumber(L, m->high);
    lua_setfield(L, -2, "high");
    lua_setfield(L, -2, m->name);
  }
}

/* lists:measure(held, train, {cutoffs=, bootstrap=, confidence=, seed=, diversity=, per_user={names}})
 * → metrics, number of users averaged, { name → vector of each user's value } */
static int lists_measure(lua_State *L) {
  llists *l = luaL_checkudata(L, 1, EV_LISTS);
  const ev_view *held = ev_lua_data(L, 2)->view, *train = ev_lua_data(L, 3)->view;
  luaL_checktype(L, 4, LUA_TTABLE);
  ev_eval_options o;
  ev_eval_defaults(&o);
  size_t cutoffs[CUTOFFS_MAX], n = numbers_field(L, 4, "cutoffs", cutoffs, CUTOFFS_MAX);
  if (n > 0) o.cutoffs = cutoffs, o.n_cutoffs = n;
  o.n_bootstrap = (unsigned)ev_lua_field_number(L, 4, "bootstrap", o.n_bootstrap, 0, 100000);
  o.confidence = ev_lua_field_number(L, 4, "confidence", o.confidence, 0.5, 0.999999);
  o.seed = (uint64_t)ev_lua_field_number(L, 4, "seed", 1, 0, 9007199254740992.0);
  const char *column = ev_lua_field_string(L, 4, "diversity", "");
  if (*column != '\0') o.diversity = ev_snapshot_column(held->snapshot, EV_ITEM, column);
  ev_eval *e;
  EV_CHECK(L, ev_eval_new(&e, l->items, l->k, l->users, l->n, held, train, &o));
  /* From here e must be freed: plain pushes only, and a full Lua heap ends the process anyway. */
  push_metrics(L, e);
  size_t n_users = ev_eval_n_users(e);
  lua_pushnumber(L, (double)n_users);
  lua_newtable(L);
  lua_getfield(L, 4, "per_user");
  const char *missing = NULL;
  if (lua_istable(L, -1)) {
    for (int i = 1; missing == NULL && i <= (int)lua_objlen(L, -1); i++) {
      lua_rawgeti(L, -1, i);
      const char *name = lua_tostring(L, -1);
      const float *values = name != NULL ? ev_eval_user_values(e, name) : NULL;
      if (values == NULL) missing = name != NULL ? name : "?";
      else {
        memcpy(ev_lua_new_vector(L, n_users), values, n_users * sizeof *values);
        lua_setfield(L, -4, name);
      }
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
  ev_eval_free(e);
  if (missing != NULL) return luaL_error(L, "no metric '%s' with a value for each user", missing);
  return 3;
}

/* lists:exposure(data, kind, k[, column[, token]]) → value, vector of what each list adds, the token of max_share or share */
static int lists_exposure(lua_State *L) {
  static const char *const kinds[] = {"max_share", "share", "slate_share", "coverage", "gini", NULL};
  llists *l = luaL_checkudata(L, 1, EV_LISTS);
  const ev_snapshot *s = ev_lua_data(L, 2)->view->snapshot;
  ev_exposure x = {.kind = (ev_exposure_kind)luaL_checkoption(L, 3, NULL, kinds), .k = (size_t)ev_lua_integer(L, 4, 1, EV_SLATE_MAX_ITEMS), .token = EV_NONE};
  const char *name = luaL_optstring(L, 5, NULL), *text;
  size_t len, wanted_len;
  if (name != NULL && (x.column = ev_snapshot_column(s, EV_ITEM, name)) == NULL) return luaL_error(L, "the data have no item column '%s'", name);
  if (x.kind == EV_SHARE_TOKEN) {
    const char *wanted = luaL_checklstring(L, 6, &wanted_len);
    for (uint32_t i = 0; x.column != NULL && i < x.column->n_tokens && x.token == EV_NONE; i++) {
      text = ev_column_token(x.column, i, &len);
      if (len == wanted_len && memcmp(text, wanted, len) == 0) x.token = i;
    }
  }
  double value;
  uint32_t token;
  float *user = ev_lua_new_vector(L, l->n); /* stays at this place: value, vector, token */
  lua_pushnil(L);
  lua_insert(L, -2);
  EV_CHECK(L, ev_exposure_measure(&value, user, &token, l->items, l->k, l->n, ev_snapshot_n_items(s), &x));
  lua_pushnumber(L, value);
  lua_replace(L, -3);
  if (token == EV_NONE) return 2;
  text = ev_column_token(x.column, token, &len);
  lua_pushlstring(L, text, len);
  return 3;
}

/* ---- Clicks: the held interactions of users as candidates, and what a ranker said of them -----------------*/
typedef struct lclicks {
  size_t n, cap;
  uint32_t *user;         /* (cap) owned, as are the others */
  float *label, *logit;
  double least_rating;
} lclicks;

static int clicks_new(lua_State *L) { /* clicks(held, least_rating): held stays anchored */
  const ev_csr *m = &ev_lua_data(L, 1)->view->by_user;
  double least = luaL_checknumber(L, 2);
  if (m->rating == NULL) return luaL_error(L, "the data have no ratings to tell clicks by");
  lclicks *c = lua_newuserdata(L, sizeof *c);
  *c = (lclicks){.cap = m->ptr[m->n_rows], .least_rating = least};
  luaL_getmetatable(L, EV_CLICKS);
  lua_setmetatable(L, -2);
  c->user = ev_alloc(c->cap, sizeof *c->user);
  c->label = ev_alloc(c->cap, sizeof *c->label);
  c->logit = ev_alloc(c->cap, sizeof *c->logit);
  if (c->user == NULL || c->label == NULL || c->logit == NULL) return ev_lua_fail(L, EV_ENOMEM);
  return 1;
}

static int clicks_close(lua_State *L) {
  lclicks *c = luaL_checkudata(L, 1, EV_CLICKS);
  ev_free(c->user);
  ev_free(c->label);
  ev_free(c->logit);
  *c = (lclicks){0};
  return 0;
}

static int clicks_fill(lua_State *L) { /* clicks:fill(slate, held, user): the user's held items, each with score 0 */
  luaL_checkudata(L, 1, EV_CLICKS);
  ev_slate *s = ev_lua_slate(L, 2);
  const ev_csr *m = &ev_lua_data(L, 3)->view->by_user;
  size_t u = (size_t)ev_lua_integer(L, 4, 0, (int64_t)m->n_rows - 1);
  const float zero = 0;
  ev_slate_clear(s);
  for (uint64_t i = m->ptr[u]; i < m->ptr[u + 1]; i++) EV_CHECK(L, ev_slate_append(s, &m->idx[i], &zero, 1, 0));
  return 0;
}

static int clicks_put(lua_State *L) { /* clicks:put(slate, held, user): the scores are logits; the order does not matter */
  lclicks *c = luaL_checkudata(L, 1, EV_CLICKS);
  ev_slate *s = ev_lua_slate(L, 2);
  const ev_csr *m = &ev_lua_data(L, 3)->view->by_user;
  size_t u = (size_t)ev_lua_integer(L, 4, 0, (int64_t)m->n_rows - 1), n = ev_slate_n(s), at = 0;
  if (m->rating == NULL || c->n + (m->ptr[u + 1] - m->ptr[u]) > c->cap) return luaL_error(L, "more rows than announced");
  for (uint64_t i = m->ptr[u]; i < m->ptr[u + 1]; i++) {
    size_t k = 0; /* as a rule the slate is still in order */
    while (k < n && ev_slate_items(s)[(at + k) % n] != m->idx[i]) k++;
    if (k == n) return luaL_error(L, "the ranker took a candidate out of the slate: all of them are to be scored");
    at = (at + k) % n;
    c->user[c->n] = (uint32_t)u;
    c->label[c->n] = (double)m->rating[i] >= c->least_rating ? 1 : 0;
    c->logit[c->n++] = ev_slate_scores(s)[at];
  }
  return 0;
}

static ev_clicks clicks_of(lua_State *L, int arg) {
  const lclicks *c = luaL_checkudata(L, arg, EV_CLICKS);
  return (ev_clicks){c->n, c->user, c->label, c->logit};
}

static void push_interval(lua_State *L, double value, double low, double high, double p) { /* a table; p NaN: none */
  lua_createtable(L, 0, 4);
  lua_pushnumber(L, value);
  lua_setfield(L, -2, "value");
  lua_pushnumber(L, low);
  lua_setfield(L, -2, "low");
  lua_pushnumber(L, high);
  lua_setfield(L, -2, "high");
  if (isnan(p)) return;
  lua_pushnumber(L, p);
  lua_setfield(L, -2, "p");
}

/* clicks:measure{bootstrap=, confidence=, seed=} → metrics, rows, positives */
static int clicks_measure(lua_State *L) {
  ev_clicks c = clicks_of(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  unsigned resamples = (unsigned)ev_lua_field_number(L, 2, "bootstrap", 1000, 0, 100000);
  double confidence = ev_lua_field_number(L, 2, "confidence", 0.95, 0.5, 0.999999), positives = 0;
  uint64_t seed = (uint64_t)ev_lua_field_number(L, 2, "seed", 1, 0, 9007199254740992.0);
  ev_metric metrics[EV_CLICK_METRICS];
  EV_CHECK(L, ev_click_measure(metrics, &c, resamples, confidence, seed));
  lua_createtable(L, 0, EV_CLICK_METRICS);
  for (size_t m = 0; m < EV_CLICK_METRICS; m++) {
    if (isnan(metrics[m].value)) continue; /* no user has both labels */
    push_interval(L, metrics[m].value, metrics[m].low, metrics[m].high, NAN);
    lua_setfield(L, -2, metrics[m].name);
  }
  for (size_t i = 0; i < c.n; i++) positives += (double)c.label[i];
  lua_pushnumber(L, (double)c.n);
  lua_pushnumber(L, positives);
  return 3;
}

/* clicks:compare(other, {bootstrap=, confidence=, seed=}) → this − other of each metric, with its interval and p */
static int clicks_compare(lua_State *L) {
  static const char *const names[EV_CLICK_METRICS] = {[EV_CLICK_AUC] = "auc", [EV_CLICK_GAUC] = "gauc", [EV_CLICK_LOG_LOSS] = "log_loss"};
  ev_clicks mine = clicks_of(L, 1), other = clicks_of(L, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  unsigned resamples = (unsigned)ev_lua_field_number(L, 3, "bootstrap", 1000, 1, 100000);
  double confidence = ev_lua_field_number(L, 3, "confidence", 0.95, 0.5, 0.999999);
  uint64_t seed = (uint64_t)ev_lua_field_number(L, 3, "seed", 1, 0, 9007199254740992.0);
  ev_difference d[EV_CLICK_METRICS];
  EV_CHECK(L, ev_click_compare(d, &other, &mine, resamples, confidence, seed));
  lua_createtable(L, 0, EV_CLICK_METRICS);
  for (size_t m = 0; m < EV_CLICK_METRICS; m++) {
    if (isnan(d[m].value)) continue;
    push_interval(L, d[m].value, d[m].low, d[m].high, d[m].p);
    lua_setfield(L, -2, names[m]);
  }
  return 1;
}

static int paired_bootstrap(lua_State *L) { /* paired_bootstrap(a, b, seed[, resamples, confidence]) of b − a */
  size_t n, m;
  const float *a = ev_lua_vector(L, 1, &n), *b = ev_lua_vector(L, 2, &m);
  uint64_t seed = (uint64_t)ev_lua_integer(L, 3, 0, INT64_C(1) << 53);
  unsigned resamples = lua_isnoneornil(L, 4) ? 2000 : (unsigned)ev_lua_integer(L, 4, 1, 1000000);
  double confidence = luaL_optnumber(L, 5, 0.95);
  if (n != m) return luaL_error(L, "%f and %f values are no pairs", (double)n, (double)m);
  ev_difference d;
  EV_CHECK(L, ev_paired_bootstrap(&d, a, b, n, resamples, confidence, seed));
  push_interval(L, d.value, d.low, d.high, d.p);
  return 1;
}

void ev_bind_eval(lua_State *L) {
  static const luaL_Reg lists_methods[] = {{"put", lists_put}, {"measure", lists_measure}, {"exposure", lists_exposure}, {"__gc", lists_close}, {NULL, NULL}};
  static const luaL_Reg clicks_methods[] = {{"fill", clicks_fill}, {"put", clicks_put}, {"measure", clicks_measure},
                                            {"compare", clicks_compare}, {"__gc", clicks_close}, {NULL, NULL}};
  ev_lua_class(L, EV_LISTS, lists_methods);
  ev_lua_class(L, EV_CLICKS, clicks_methods);
  lua_pop(L, 2);
  lua_pushcfunction(L, clicks_new);
  lua_setfield(L, -2, "clicks");
  lua_pushcfunction(L, lists_new);
  lua_setfield(L, -2, "lists");
  lua_pushcfunction(L, paired_bootstrap);
  lua_setfield(L, -2, "paired_bootstrap");
}
