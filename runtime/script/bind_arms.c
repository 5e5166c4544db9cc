/* bind_arms.c - learning state for agents: decisions over a slate or over numbered arms, and what came of them.
 *
 * A handle is opened by the trusted library alone (native.arms): an agent gets its own in ctx.state and can neither name a file nor
 * reach another's. Arms and models count from 0, as items do. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"

#define EV_ARMS "ev.arms"
#define CHOICE_WORDS "rule k epsilon alpha gaussian prior_a prior_b noise exact draws columns model request user remember arms"
#define COLUMNS_MAX 256

typedef struct ev_larms {
  ev_arms *arms; /* owned */
} ev_larms;

static ev_arms *arms_at(lua_State *L, int arg) {
  ev_larms *h = luaL_checkudata(L, arg, EV_ARMS);
  if (h->arms == NULL) luaL_error(L, "the learning state was closed");
  return h->arms;
}

/* arms(path | nil, { kind =, n =, n_dims =, … }) */
static int arms_open(lua_State *L) {
  const char *path = luaL_optstring(L, 1, NULL);
  ev_arms_kind kind;
  ev_arms_options o;
  luaL_checktype(L, 2, LUA_TTABLE);
  ev_lua_only(L, 2, "kind n n_dims diagonal window decay ridge rate share examination cascade seed");
  const char *name = ev_lua_field_string(L, 2, "kind", "");
  if (!ev_arms_kind_find(&kind, name)) return luaL_error(L, "kind: '%s' is none of counts, linear, logistic, weights, policy, cma", name);
  ev_arms_defaults(&o, kind);
  o.n = (uint32_t)ev_lua_field_number(L, 2, "n", o.n, 1, 1u << 26);
  o.n_dims = (uint32_t)ev_lua_field_number(L, 2, "n_dims", 0, 0, 1024);
  o.diagonal = ev_lua_field_bool(L, 2, "diagonal", false);
  o.window = (uint32_t)ev_lua_field_number(L, 2, "window", o.window, 0, 1u << 22);
  o.decay = ev_lua_field_number(L, 2, "decay", o.decay, 0, 1);
  o.ridge = ev_lua_field_number(L, 2, "ridge", o.ridge, 0, 1e12);
  o.rate = ev_lua_field_number(L, 2, "rate", o.rate, 0, 1e6);
  o.share = ev_lua_field_number(L, 2, "share", 0, 0, 1);
  o.examination = ev_lua_field_number(L, 2, "examination", 0, 0, 10);
  o.cascade = ev_lua_field_bool(L, 2, "cascade", false);
  o.seed = (uint64_t)ev_lua_field_number(L, 2, "seed", 1, 0, 9007199254740992.0);
  ev_larms *h = lua_newuserdata(L, sizeof *h);
  h->arms = NULL;
  luaL_getmetatable(L, EV_ARMS);
  lua_setmetatable(L, -2);
  EV_CHECK(L, ev_arms_open(&h->arms, path, &o));
  return 1;
}

static int arms_close(lua_State *L) {
  ev_larms *h = luaL_checkudata(L, 1, EV_ARMS);
  ev_arms_close(h->arms);
  h->arms = NULL;
  return 0;
}

static int arms_text(lua_State *L) {
  const ev_arms_options *o = ev_arms_options_of(arms_at(L, 1));
  lua_pushfstring(L, "arms(%s, n %d, n_dims %d)", ev_arms_kind_name(o->kind), (int)o->n, (int)o->n_dims);
  return 1;
}

static int arms_snapshot(lua_State *L) { /* arms_snapshot(state, path) */
  EV_CHECK(L, ev_arms_snapshot(arms_at(L, 1), luaL_checkstring(L, 2)));
  return 0;
}

static int arms_restore(lua_State *L) {
  EV_CHECK(L, ev_arms_restore(arms_at(L, 1), luaL_checkstring(L, 2)));
  return 0;
}

static int arms_due(lua_State *L) { /* arms_snapshot_due(state, seconds): true to one process in so many seconds */
  lua_pushboolean(L, ev_arms_snapshot_due(arms_at(L, 1), luaL_checknumber(L, 2)));
  return 1;
}

/* ---- Options of a choice ------------------------------------------------------------------------------------*/
static ev_choice_options choice_at(lua_State *L, int arg, ev_arms_kind kind, size_t n) {
  ev_choice_options o;
  ev_rule rule;
  luaL_checktype(L, arg, LUA_TTABLE);
  ev_lua_only(L, arg, CHOICE_WORDS);
  const char *name = ev_lua_field_string(L, arg, "rule", kind == EV_ARMS_WEIGHTS ? "weights" : kind == EV_ARMS_POLICY ? "softmax" : "thompson");
  if (!ev_rule_find(&rule, name)) luaL_error(L, "rule: '%s' is none of greedy, ucb, kl_ucb, thompson, squarecb, weights, softmax", name);
  ev_choice_defaults(&o, rule);
  size_t k = (size_t)ev_lua_field_number(L, arg, "k", 1, 0, 1 << 20);
  o.k = k < n ? k : n;
  o.epsilon = ev_lua_field_number(L, arg, "epsilon", 0, 0, 1);
  o.alpha = ev_lua_field_number(L, arg, "alpha", o.alpha, 0, 1e9);
  o.gaussian = ev_lua_field_bool(L, arg, "gaussian", false);
  o.prior_a = ev_lua_field_number(L, arg, "prior_a", o.gaussian ? 0 : 1, -1e9, 1e9);
  o.prior_b = ev_lua_field_number(L, arg, "prior_b", 1, 0, 1e9);
  o.noise = ev_lua_field_number(L, arg, "noise", 1, 0, 1e9);
  o.exact = (unsigned)ev_lua_field_number(L, arg, "exact", o.exact, 0, 64);
  o.draws = (unsigned)ev_lua_field_number(L, arg, "draws", o.draws, 0, 100000);
  return o;
}

/* ---- Features of a slate's candidates -----------------------------------------------------------------------*/
static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The columns that the options at arg name, or all the slate has, by name; of experts those that tell ranks. */
static size_t columns_of(lua_State *L, int arg, ev_slate *s, bool experts, const char *names[COLUMNS_MAX], bool *named) {
  size_t n = 0;
  lua_getfield(L, arg, "columns");
  *named = !lua_isnil(L, -1);
  if (*named) {
    luaL_checktype(L, -1, LUA_TTABLE);
    size_t all = lua_objlen(L, -1);
    if (all > COLUMNS_MAX) luaL_error(L, "columns: at most %d", COLUMNS_MAX);
    for (; n < all; n++) {
      lua_rawgeti(L, -1, (int)n + 1);
      if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "columns: names must be text");
      names[n] = lua_tostring(L, -1);
      if (strcmp(names[n], "score") != 0 && ev_slate_find(s, names[n]) == NULL) luaL_error(L, "the slate has no column '%s'", names[n]);
      lua_pop(L, 1);
    }
    lua_pop(L, 1); /* the options still hold it */
    return n;
  }
  lua_pop(L, 1);
  if (!experts) names[n++] = "score";
  for (size_t i = 0; i < ev_slate_n_columns(s) && n < COLUMNS_MAX; i++) {
    const char *name = ev_slate_column_name(s, i);
    bool rank = strncmp(name, "rank.", 5) == 0;
    if ((experts && !rank) || strncmp(name, "propensity", 10) == 0) continue;
    names[n++] = name;
  }
  qsort(names, n, sizeof *names, by_text);
  return n;
}

/* One over the root mean square of a model's numbers, of some 256 of its rows: with it they are about 1. */
static float scale_of(const float *rows, size_t n, size_t width) {
  double square = 0, count = 0;
  size_t step = n / 256 + 1;
  for (size_t i = 0; i < n; i += step, count += (double)width)
    for (size_t j = 0; j < width; j++) square += (double)rows[i * width + j] * (double)rows[i * width + j];
  return square > 0 ? (float)sqrt(count / square) : 0;
}

/* What a model knows of each candidate, from x[1] on: the item's vector, then its product with the user's, element by element; his is his
 * own, or the mean of his history's. → how many numbers */
static size_t vectors_of(lua_State *L, int arg, ev_slate *s, float *x, size_t d) {
  lua_getfield(L, arg, "model");
  lua_getfield(L, arg, "request");
  size_t width = 0;
  if (!lua_isnil(L, -2)) {
    ev_lmodel *m = ev_lua_model(L, lua_gettop(L) - 1);
    ev_requests r = ev_lua_one(ev_lua_request(L, lua_gettop(L)));
    const ev_pack *p = ev_model_pack(m->model);
    const char *kind = ev_model_kind(m->model);
    ev_array item, user = {0};
    if ((strcmp(kind, "vectors") != 0 && strcmp(kind, "factors") != 0) || !ev_pack_find(p, "item", &item) || item.dtype != EV_F32)
      luaL_error(L, "a model of kind '%s' has no vectors of items; mf, two_tower, light_gcn and ials have", kind);
    width = item.cols;
    if (2 * width + 1 > d) luaL_error(L, "vectors of %d numbers make %d features; the learning state has n_dims %d", (int)width, (int)(2 * width + 1), (int)d);
    float *asker = ev_lua_scratch(L, width, sizeof *asker);
    const float *rows = item.data;
    if (ev_pack_find(p, "user", &user) && user.dtype == EV_F32 && user.cols == width && r.user[0] < user.rows) {
      memcpy(asker, (const float *)user.data + r.user[0] * width, width * sizeof *asker);
    } else {
      size_t n = 0;
      memset(asker, 0, width * sizeof *asker);
      for (uint64_t k = r.history_ptr[0]; k < r.history_ptr[1]; k++)
        if (r.history[k] < item.rows && ++n > 0)
          for (size_t j = 0; j < width; j++) asker[j] += rows[r.history[k] * width + j];
      for (size_t j = 0; j < width && n > 0; j++) asker[j] /= (float)n;
    }
    float scale = scale_of(rows, item.rows, width), his = scale_of(asker, 1, width) * scale;
    for (size_t i = 0; i < ev_slate_n(s); i++) {
      uint32_t it = ev_slate_items(s)[i];
      float *out = x + i * d + 1;
      for (size_t j = 0; j < width && it < item.rows; j++) {
        out[j] = rows[it * width + j] * scale;
        out[width + j] = rows[it * width + j] * asker[j] * his;
      }
    }
    lua_pop(L, 1); /* scratch */
  }
  lua_pop(L, 2);
  return 2 * width;
}

/* (n, d): 1, a model's vectors, columns: ranks r as 1 / log2(1 + r), 0 where there is none; others less their mean, over their
 * deviation in the slate. Numbers beyond are 0. */
static void features_of(lua_State *L, int arg, ev_slate *s, float *x, size_t d) {
  size_t n = ev_slate_n(s);
  const char *names[COLUMNS_MAX];
  bool named;
  memset(x, 0, n * d * sizeof *x);
  for (size_t i = 0; i < n; i++) x[i * d] = 1;
  size_t at = 1 + vectors_of(L, arg, s, x, d), n_names = columns_of(L, arg, s, false, names, &named);
  if (at > 1 && !named) return; /* a model's vectors alone, unless columns are named too */
  if (named && at + n_names > d) luaL_error(L, "%d features; the learning state has n_dims %d", (int)(at + n_names), (int)d);
  for (size_t c = 0; c < n_names && at < d; c++, at++) {
    const float *v = strcmp(names[c], "score") == 0 ? ev_slate_scores(s) : ev_slate_find(s, names[c]);
    if (strncmp(names[c], "rank.", 5) == 0) {
      for (size_t i = 0; i < n; i++) x[i * d + at] = v[i] > 0 ? 1 / log2f(1 + v[i]) : 0;
      continue;
    }
    double mean = 0, square = 0;
    for (size_t i = 0; i < n; i++) mean += (double)v[i] / (double)n;
    for (size_t i = 0; i < n; i++) square += ((double)v[i] - mean) * ((double)v[i] - mean) / (double)n;
    for (size_t i = 0; i < n && square > 0 && isfinite(square); i++) x[i * d + at] = (float)(((double)v[i] - mean) / sqrt(square));
  }
}

/* (n, experts): each column of ranks as a distribution, a candidate counting 1 / rank. */
static void advice_of(lua_State *L, int arg, ev_slate *s, float *x, size_t experts) {
  size_t n = ev_slate_n(s);
  const char *names[COLUMNS_MAX];
  bool named;
  memset(x, 0, n * experts * sizeof *x);
  size_t n_names = columns_of(L, arg, s, true, names, &named);
  if (n_names > experts) luaL_error(L, "%d experts; the learning state has n %d", (int)n_names, (int)experts);
  for (size_t c = 0; c < n_names; c++) {
    const float *rank = strcmp(names[c], "score") == 0 ? ev_slate_scores(s) : ev_slate_find(s, names[c]);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += rank[i] >= 1 ? 1 / (double)rank[i] : 0;
    for (size_t i = 0; i < n && sum > 0; i++) x[i * experts + c] = rank[i] >= 1 ? (float)(1 / (double)rank[i] / sum) : 0;
  }
}

static uint64_t key_of(uint32_t user, uint32_t item) { return (uint64_t)user << 32 | item; }

static uint32_t user_field(lua_State *L, int arg) {
  double u = ev_lua_field_number(L, arg, "user", EV_NONE, 0, EV_NONE);
  return (uint32_t)u;
}

/* The list of arms in options at arg (one for each of n candidates), into out; false: not given. */
static bool arms_field(lua_State *L, int arg, uint32_t *out, size_t n, uint32_t limit) {
  lua_getfield(L, arg, "arms");
  bool given = !lua_isnil(L, -1);
  if (given) {
    luaL_checktype(L, -1, LUA_TTABLE);
    if (lua_objlen(L, -1) != n) luaL_error(L, "arms: %d for %d candidates", (int)lua_objlen(L, -1), (int)n);
    for (size_t i = 0; i < n; i++) {
      lua_rawgeti(L, -1, (int)i + 1);
      out[i] = (uint32_t)ev_lua_integer(L, lua_gettop(L), 0, (int64_t)limit - 1);
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
  return given;
}

/* Candidates order[0 … k) first, the others behind them as they were; every column goes along. */
static ev_status arrange(ev_slate *s, const uint32_t *order, size_t k, float *scores, float *moved) {
  size_t n = ev_slate_n(s), at = k;
  for (size_t i = 0; i < n; i++) scores[i] = moved[i] = ev_slate_scores(s)[i];
  float *place = ev_slate_scores(s), taken = -1;
  for (size_t i = 0; i < n; i++) place[i] = taken;
  for (size_t i = 0; i < k; i++) {
    place[order[i]] = (float)(n - i);
    moved[i] = scores[order[i]];
  }
  for (size_t i = 0; i < n; i++)
    if (place[i] == taken) {
      moved[at] = scores[i];
      place[i] = (float)(n - at++);
    }
  EV_TRY(ev_slate_sort(s)); /* places are distinct, and whole numbers below 2^24 */
  memcpy(ev_slate_scores(s), moved, n * sizeof *moved);
  return EV_OK;
}

/* Candidates whose item has an arm, in their order; their arms and features move together. → how many. An item that came after the data has
 * none: it can be neither chosen nor passed over, and keeps its place. */
static size_t with_arms(uint32_t *rows, uint32_t *ids, float *x, size_t n, size_t d, uint32_t n_arms) {
  size_t m = 0;
  for (size_t i = 0; i < n; i++) {
    if (ids[i] >= n_arms) continue;
    if (d > 0 && m < i) memmove(x + m * d, x + i * d, d * sizeof *x);
    ids[m] = ids[i];
    rows[m++] = (uint32_t)i;
  }
  return m;
}

/* The k places: of what was chosen (chosen, of rows[0 … m)), and of what stands among the first k and has no arm. order holds the choice. */
static void fill_places(uint32_t *order, float *p, float *error, size_t k, const uint32_t *rows, size_t m, size_t chosen) {
  uint32_t place = (uint32_t)k;
  size_t next = m;
  while (next > 0 && rows[next - 1] >= k) next--;
  while (place-- > 0) { /* from the last, so that nothing is overwritten that is still to move */
    bool has_arm = next > 0 && rows[next - 1] == place;
    if (has_arm) next--, chosen--;
    order[place] = has_arm ? rows[order[chosen]] : place;
    p[place] = has_arm ? p[chosen] : 1;
    error[place] = has_arm ? error[chosen] : 0;
  }
}

/* state:choose(slate, options): puts the chosen candidates first; slate.propensity says with which probability each stands where it does,
 * given those above, slate.propensity_error how far that may be off. Remembers them for state:reward unless remember = false. */
static int arms_choose(lua_State *L) {
  ev_arms *a = arms_at(L, 1);
  ev_slate *s = ev_lua_slate(L, 2);
  const ev_arms_options *of = ev_arms_options_of(a);
  size_t n = ev_slate_n(s), d = of->n_dims;
  if (n == 0) return 0;
  lua_settop(L, 3);
  ev_choice_options o = choice_at(L, 3, of->kind, n);
  size_t k = o.k;
  uint32_t *ids = ev_lua_scratch(L, 3 * n, sizeof *ids), *order = ids + n, *rows = order + n;
  float *numbers = ev_lua_scratch(L, 4 * n + n * d + k * d, sizeof *numbers), *p = numbers, *error = p + n, *scores = error + n, *moved = scores + n, *x = moved + n, *keep = x + n * d;
  uint64_t *keys = ev_lua_scratch(L, k, sizeof *keys);
  bool own = arms_field(L, 3, ids, n, of->n), per_item = of->kind == EV_ARMS_COUNTS || (of->kind == EV_ARMS_WEIGHTS && d == 0) || of->n > 1;
  if (of->kind == EV_ARMS_WEIGHTS && d > 0) per_item = false;
  if (of->kind == EV_ARMS_WEIGHTS && d > 0) advice_of(L, 3, s, x, d);
  else if (d > 0) features_of(L, 3, s, x, d);
  size_t m = n; /* that have arms */
  if (!own && per_item) {
    memcpy(ids, ev_slate_items(s), n * sizeof *ids);
    m = with_arms(rows, ids, x, n, d, of->n);
    for (size_t i = 0; m < n && i < k; i++) o.k -= ev_slate_items(s)[i] >= of->n;
  }
  const uint32_t *arms = own || per_item ? ids : NULL;
  if (m > 0) EV_CHECK(L, ev_arms_choose(a, order, p, error, d > 0 ? keep : NULL, arms, d > 0 ? x : NULL, m, &o));
  if (ev_lua_field_bool(L, 3, "remember", true) && of->window >= o.k && o.k > 0) {
    uint32_t user = user_field(L, 3);
    uint32_t *chosen = ev_lua_scratch(L, o.k, sizeof *chosen); /* arms of the chosen, in their order */
    for (size_t i = 0; i < o.k; i++) {
      keys[i] = key_of(user, ev_slate_items(s)[m < n ? rows[order[i]] : order[i]]);
      chosen[i] = arms != NULL ? ids[order[i]] : 0;
    }
    EV_CHECK(L, ev_arms_show(a, keys, chosen, d > 0 ? keep : NULL, p, o.k));
  }
  if (m < n) fill_places(order, p, error, k, rows, m, o.k);
  EV_CHECK(L, arrange(s, order, k, scores, moved));
  float *column;
  EV_CHECK(L, ev_slate_column(s, "propensity", &column));
  for (size_t i = 0; i < n; i++) column[i] = i < k ? p[i] : 1; /* what stands below stands there for sure */
  EV_CHECK(L, ev_slate_column(s, "propensity_error", &column));
  for (size_t i = 0; i < n; i++) column[i] = i < k ? error[i] : 0;
  return 0;
}

/* state:show(slate, { user =, arm =, propensity =, k = }): the first k candidates are remembered as one arm's, drawn with that propensity. */
static int arms_show(lua_State *L) {
  ev_arms *a = arms_at(L, 1);
  ev_slate *s = ev_lua_slate(L, 2);
  const ev_arms_options *of = ev_arms_options_of(a);
  luaL_checktype(L, 3, LUA_TTABLE);
  ev_lua_only(L, 3, "user arm propensity k");
  size_t n = ev_slate_n(s), k = (size_t)ev_lua_field_number(L, 3, "k", (double)n, 0, EV_SLATE_MAX_ITEMS);
  if (k > n) k = n;
  if (of->n_dims > 0) return luaL_error(L, "show is for states without features; choose remembers by itself");
  uint32_t user = user_field(L, 3), *arms = ev_lua_scratch(L, k, sizeof *arms), arm = (uint32_t)ev_lua_field_number(L, 3, "arm", 0, 0, of->n - 1);
  float *p = ev_lua_scratch(L, k, sizeof *p), propensity = (float)ev_lua_field_number(L, 3, "propensity", 1, 0, 1);
  uint64_t *keys = ev_lua_scratch(L, k, sizeof *keys);
  for (size_t i = 0; i < k; i++) {
    keys[i] = key_of(user, ev_slate_items(s)[i]);
    arms[i] = arm;
    p[i] = propensity;
  }
  EV_CHECK(L, ev_arms_show(a, keys, arms, NULL, p, k));
  return 0;
}

/* state:reward(user | nil, item, value) → true: it was remembered */
static int arms_reward(lua_State *L) {
  uint32_t user = lua_isnil(L, 2) ? EV_NONE : (uint32_t)ev_lua_integer(L, 2, 0, EV_NONE), item = (uint32_t)ev_lua_integer(L, 3, 0, EV_NONE);
  bool known;
  EV_CHECK(L, ev_arms_reward(arms_at(L, 1), key_of(user, item), luaL_optnumber(L, 4, 1), &known));
  lua_pushboolean(L, known);
  return 1;
}

static int arms_settle(lua_State *L) {
  EV_CHECK(L, ev_arms_settle(arms_at(L, 1)));
  return 0;
}

/* ---- Arms by number ------------------------------------------------------------------------------------------*/
/* Argument 2: how many candidates (arms 0, 1, …) or a list of arms; features (n · n_dims) at argument 4. */
static uint32_t *candidates(lua_State *L, const ev_arms_options *of, size_t *n, const float **x) {
  bool listed = lua_istable(L, 2), by_arm = of->kind == EV_ARMS_COUNTS || (of->kind == EV_ARMS_WEIGHTS && of->n_dims == 0) || listed || of->n > 1;
  *n = listed ? lua_objlen(L, 2) : (size_t)ev_lua_integer(L, 2, 1, 1 << 24);
  if (of->kind == EV_ARMS_WEIGHTS && of->n_dims > 0) by_arm = false;
  uint32_t *arms = by_arm ? ev_lua_scratch(L, *n, sizeof *arms) : NULL;
  for (size_t i = 0; i < *n && by_arm; i++) {
    if (listed) {
      lua_rawgeti(L, 2, (int)i + 1);
      arms[i] = (uint32_t)ev_lua_integer(L, lua_gettop(L), 0, (int64_t)of->n - 1);
      lua_pop(L, 1);
    } else {
      arms[i] = (uint32_t)i;
    }
  }
  size_t m = 0;
  *x = of->n_dims > 0 ? ev_lua_vector(L, 4, &m) : NULL;
  if (of->n_dims > 0 && m != *n * of->n_dims) luaL_error(L, "%d numbers for %d candidates of %d features", (int)m, (int)*n, (int)of->n_dims);
  return arms;
}

/* state:pick(n | arms, options[, features]) → candidate (from 1), propensity, error, and what state:update takes as x; with k in the options
 * three lists, of candidates, propensities and errors. */
static int arms_pick(lua_State *L) {
  ev_arms *a = arms_at(L, 1);
  const ev_arms_options *of = ev_arms_options_of(a);
  size_t n, d = of->n_dims;
  const float *x;
  lua_settop(L, 4);
  uint32_t *arms = candidates(L, of, &n, &x);
  ev_choice_options o = choice_at(L, 3, of->kind, n);
  lua_getfield(L, 3, "k");
  bool list = !lua_isnil(L, -1);
  uint32_t *order = ev_lua_scratch(L, o.k, sizeof *order);
  float *p = ev_lua_scratch(L, 2 * o.k, sizeof *p), *error = p + o.k, *keep = NULL;
  if (d > 0 && !list) keep = ev_lua_new_vector(L, d);
  else lua_pushnil(L);
  int kept = lua_gettop(L);
  EV_CHECK(L, ev_arms_choose(a, order, p, error, keep, arms, x, n, &o));
  if (!list) {
    lua_pushnumber(L, order[0] + 1.0);
    lua_pushnumber(L, (double)p[0]);
    lua_pushnumber(L, (double)error[0]);
    lua_pushvalue(L, kept);
    return 4;
  }
  for (int what = 0; what < 3; what++) {
    lua_createtable(L, (int)o.k, 0);
    for (size_t i = 0; i < o.k; i++) {
      lua_pushnumber(L, what == 0 ? order[i] + 1.0 : what == 1 ? (double)p[i] : (double)error[i]);
      lua_rawseti(L, -2, (int)i + 1);
    }
  }
  return 3;
}

static void push_doubles(lua_State *L, const double *v, size_t n) {
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, v[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
}

static void doubles_at(lua_State *L, int arg, double *out, size_t n, const char *what) { /* a list of n numbers */
  luaL_checktype(L, arg, LUA_TTABLE);
  if (lua_objlen(L, arg) != n) luaL_error(L, "%s: %d numbers, %d expected", what, (int)lua_objlen(L, arg), (int)n);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, arg, (int)i + 1);
    if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "%s: a %s is no number", what, luaL_typename(L, -1));
    out[i] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
}

static int arms_beliefs(lua_State *L) { /* state:beliefs(n | arms, options[, features]) → list of means, list of deviations */
  ev_arms *a = arms_at(L, 1);
  const ev_arms_options *of = ev_arms_options_of(a);
  size_t n;
  const float *x;
  lua_settop(L, 4);
  uint32_t *arms = candidates(L, of, &n, &x);
  ev_choice_options o = choice_at(L, 3, of->kind, n);
  double *mean = ev_lua_scratch(L, 2 * n, sizeof *mean);
  EV_CHECK(L, ev_arms_beliefs(a, mean, mean + n, arms, x, n, &o));
  push_doubles(L, mean, n);
  push_doubles(L, mean + n, n);
  return 2;
}

/* state:update(arm, reward[, x[, propensity[, seen]]]) */
static int arms_update(lua_State *L) {
  ev_arms *a = arms_at(L, 1);
  const ev_arms_options *of = ev_arms_options_of(a);
  uint32_t arm = (uint32_t)ev_lua_integer(L, 2, 0, (int64_t)of->n - 1);
  double reward = luaL_checknumber(L, 3);
  size_t m = 0;
  const float *x = of->n_dims > 0 ? ev_lua_vector(L, 4, &m) : NULL;
  if (m != of->n_dims) return luaL_error(L, "%d features; the learning state has n_dims %d", (int)m, (int)of->n_dims);
  EV_CHECK(L, ev_arms_update(a, arm, x, reward, luaL_optnumber(L, 5, 1), luaL_optnumber(L, 6, 1)));
  return 0;
}

/* state:update_many(x, rewards[, models]): vectors (n · n_dims) and (n), a list (n) */
static int arms_update_many(lua_State *L) {
  ev_arms *a = arms_at(L, 1);
  const ev_arms_options *of = ev_arms_options_of(a);
  size_t m, n;
  const float *x = ev_lua_vector(L, 2, &m), *rewards = ev_lua_vector(L, 3, &n);
  if (m != n * of->n_dims) return luaL_error(L, "%d numbers for %d rows of %d features", (int)m, (int)n, (int)of->n_dims);
  uint32_t *models = NULL;
  if (!lua_isnoneornil(L, 4)) {
    luaL_checktype(L, 4, LUA_TTABLE);
    if (lua_objlen(L, 4) != n) return luaL_error(L, "%d models for %d rows", (int)lua_objlen(L, 4), (int)n);
    models = ev_lua_scratch(L, n, sizeof *models);
    for (size_t i = 0; i < n; i++) {
      lua_rawgeti(L, 4, (int)i + 1);
      models[i] = (uint32_t)ev_lua_integer(L, lua_gettop(L), 0, (int64_t)of->n - 1);
      lua_pop(L, 1);
    }
  }
  EV_CHECK(L, ev_arms_update_many(a, models, x, rewards, n));
  return 0;
}

static int arms_read(lua_State *L) { /* state:read(arm) → the slot's numbers, as reward.h lays them out */
  ev_arms *a = arms_at(L, 1);
  const ev_arms_options *of = ev_arms_options_of(a);
  uint32_t arm = (uint32_t)ev_lua_integer(L, 2, 0, (int64_t)of->n - 1);
  size_t size = ev_arms_slot_size(a);
  double *slot = ev_lua_scratch(L, size, sizeof *slot);
  EV_CHECK(L, ev_arms_read(a, of->kind == EV_ARMS_WEIGHTS ? 0 : arm, slot));
  push_doubles(L, slot, size);
  return 1;
}

static int arms_write(lua_State *L) { /* state:write(arm, numbers): as read gives them */
  ev_arms *a = arms_at(L, 1);
  uint32_t slot = (uint32_t)ev_lua_integer(L, 2, 0, (int64_t)ev_arms_slots(a) - 1);
  double *numbers = ev_lua_scratch(L, ev_arms_slot_size(a), sizeof *numbers);
  doubles_at(L, 3, numbers, ev_arms_slot_size(a), "a slot");
  EV_CHECK(L, ev_arms_write(a, slot, numbers));
  return 0;
}

static int arms_length(lua_State *L) { /* #state: its slots */
  lua_pushnumber(L, (double)ev_arms_slots(arms_at(L, 1)));
  return 1;
}

static int arms_stats(lua_State *L) {
  ev_arms_stats s;
  ev_arms_stats_of(arms_at(L, 1), &s);
  const struct { const char *name; uint64_t value; } all[] = {{"updates", s.updates}, {"decisions", s.decisions}, {"shown", s.shown}, {"rewarded", s.rewarded}, {"late", s.late}, {"repaired", s.repaired}};
  lua_createtable(L, 0, 6);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    lua_pushnumber(L, (double)all[i].value);
    lua_setfield(L, -2, all[i].name);
  }
  return 1;
}

/* ---- Policies from logs ---------------------------------------------------------------------------------------*/
static const float *column_field(lua_State *L, int arg, const char *name, size_t n, bool needed) { /* a vector that the table keeps */
  lua_getfield(L, arg, name);
  if (lua_isnil(L, -1) && !needed) {
    lua_pop(L, 1);
    return NULL;
  }
  size_t m;
  if (lua_type(L, -1) != LUA_TUSERDATA) luaL_error(L, "%s: expected a vector, got %s", name, luaL_typename(L, -1));
  const float *v = ev_lua_vector(L, lua_gettop(L), &m);
  if (m != n) luaL_error(L, "%s: %d numbers, %d expected", name, (int)m, (int)n);
  lua_pop(L, 1);
  return v;
}

/* state:learn_logged({ n = { candidates of each decision }, x =, chosen = { from 1 }, reward =, propensity =[, q =] }, { clip, l2, steps, rate }) → J */
static int arms_learn_logged(lua_State *L) {
  ev_arms *a = arms_at(L, 1);
  const ev_arms_options *of = ev_arms_options_of(a);
  luaL_checktype(L, 2, LUA_TTABLE);
  ev_lua_only(L, 2, "n x chosen reward propensity q");
  ev_lua_only(L, 3, "clip l2 steps rate");
  lua_settop(L, 3);
  lua_getfield(L, 2, "n");
  lua_getfield(L, 2, "chosen");
  luaL_checktype(L, 4, LUA_TTABLE);
  luaL_checktype(L, 5, LUA_TTABLE);
  size_t n = lua_objlen(L, 4);
  if (lua_objlen(L, 5) != n) return luaL_error(L, "chosen: %d for %d decisions", (int)lua_objlen(L, 5), (int)n);
  uint64_t *ptr = ev_lua_scratch(L, n + 1, sizeof *ptr);
  uint32_t *chosen = ev_lua_scratch(L, n, sizeof *chosen);
  ptr[0] = 0;
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 4, (int)i + 1);
    lua_rawgeti(L, 5, (int)i + 1);
    ptr[i + 1] = ptr[i] + (uint64_t)ev_lua_integer(L, lua_gettop(L) - 1, 1, 1 << 20);
    chosen[i] = (uint32_t)ev_lua_integer(L, lua_gettop(L), 1, 1 << 20) - 1;
    lua_pop(L, 2);
  }
  ev_logged log = {.n = n, .d = of->n_dims, .ptr = ptr, .chosen = chosen};
  log.x = column_field(L, 2, "x", ptr[n] * log.d, true);
  log.reward = column_field(L, 2, "reward", n, true);
  log.propensity = column_field(L, 2, "propensity", n, true);
  log.q = column_field(L, 2, "q", ptr[n], false);
  double value = 0, clip = ev_lua_field_number(L, 3, "clip", 10, 1e-9, 1e12), l2 = ev_lua_field_number(L, 3, "l2", 1e-3, 0, 1e9), rate = ev_lua_field_number(L, 3, "rate", 0.05, 1e-9, 100);
  unsigned steps = (unsigned)ev_lua_field_number(L, 3, "steps", 200, 0, 1e6);
  EV_CHECK(L, ev_policy_learn(a, &log, clip, l2, steps, rate, &value));
  lua_pushnumber(L, value);
  return 1;
}

/* ---- CMA-ES ----------------------------------------------------------------------------------------------------*/
static const ev_arms_options *cma_of(lua_State *L, ev_arms *a) {
  const ev_arms_options *of = ev_arms_options_of(a);
  if (of->kind != EV_ARMS_CMA) luaL_error(L, "a state of kind %s is no search distribution", ev_arms_kind_name(of->kind));
  return of;
}

static int arms_set(lua_State *L) { /* state:set(mean, sigma) */
  ev_arms *a = arms_at(L, 1);
  size_t n = cma_of(L, a)->n_dims;
  double *mean = ev_lua_scratch(L, n, sizeof *mean);
  doubles_at(L, 2, mean, n, "mean");
  EV_CHECK(L, ev_cma_set(a, mean, luaL_checknumber(L, 3)));
  return 0;
}

static int arms_ask(lua_State *L) { /* state:ask() → list of points, generation */
  ev_arms *a = arms_at(L, 1);
  size_t n = cma_of(L, a)->n_dims, lambda = ev_cma_population(a);
  double *points = ev_lua_scratch(L, n * lambda, sizeof *points);
  uint64_t generation;
  EV_CHECK(L, ev_cma_ask(a, points, &generation));
  lua_createtable(L, (int)lambda, 0);
  for (size_t k = 0; k < lambda; k++) {
    push_doubles(L, points + k * n, n);
    lua_rawseti(L, -2, (int)k + 1);
  }
  lua_pushnumber(L, (double)generation);
  return 2;
}

static int arms_tell(lua_State *L) { /* state:tell(points, values, generation): the smaller a value the better */
  ev_arms *a = arms_at(L, 1);
  size_t n = cma_of(L, a)->n_dims, lambda = ev_cma_population(a);
  double *points = ev_lua_scratch(L, n * lambda, sizeof *points), *values = ev_lua_scratch(L, lambda, sizeof *values);
  luaL_checktype(L, 2, LUA_TTABLE);
  if (lua_objlen(L, 2) != lambda) return luaL_error(L, "points: %d, %d expected", (int)lua_objlen(L, 2), (int)lambda);
  for (size_t k = 0; k < lambda; k++) {
    lua_rawgeti(L, 2, (int)k + 1);
    doubles_at(L, lua_gettop(L), points + k * n, n, "points");
    lua_pop(L, 1);
  }
  doubles_at(L, 3, values, lambda, "values");
  EV_CHECK(L, ev_cma_tell(a, points, values, (uint64_t)ev_lua_integer(L, 4, 0, INT64_C(1) << 53)));
  return 0;
}

static int arms_distribution(lua_State *L) { /* state:distribution() → mean, sigma, generation */
  ev_arms *a = arms_at(L, 1);
  size_t n = cma_of(L, a)->n_dims;
  double *mean = ev_lua_scratch(L, n, sizeof *mean), sigma;
  uint64_t generation;
  EV_CHECK(L, ev_cma_state(a, mean, &sigma, &generation));
  push_doubles(L, mean, n);
  lua_pushnumber(L, sigma);
  lua_pushnumber(L, (double)generation);
  return 3;
}

void ev_bind_arms(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"choose", arms_choose}, {"show", arms_show}, {"reward", arms_reward}, {"settle", arms_settle}, {"pick", arms_pick}, {"beliefs", arms_beliefs},
      {"update", arms_update}, {"update_many", arms_update_many}, {"read", arms_read}, {"write", arms_write}, {"stats", arms_stats}, {"learn_logged", arms_learn_logged},
      {"set", arms_set}, {"ask", arms_ask}, {"tell", arms_tell}, {"distribution", arms_distribution},
      {"__len", arms_length}, {"__gc", arms_close}, {"__tostring", arms_text}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"arms", arms_open}, {"arms_snapshot", arms_snapshot}, {"arms_restore", arms_restore}, {"arms_snapshot_due", arms_due}, {NULL, NULL}};
  ev_lua_class(L, EV_ARMS, methods);
  lua_pop(L, 1);
  luaL_register(L, NULL, functions);
  lua_createtable(L, 0, EV_ARMS_KINDS);
  for (int k = 0; k < EV_ARMS_KINDS; k++) {
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, ev_arms_kind_name((ev_arms_kind)k));
  }
  lua_setfield(L, -2, "arms_kinds");
}
