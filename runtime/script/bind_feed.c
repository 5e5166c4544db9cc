/* bind_feed.c - the simulated feed for scripts: batches of sessions in columns.
 *
 * A batch is memory in the Lua heap: users, slates, clicks and what was expected of n sessions. It is filled by policies, in C or
 * row by row, then stepped. What it borrows from, its feed, is anchored. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "bind.h"

#define EV_FEED "ev.feed"
#define EV_FEED_BATCH "ev.feed_batch"
#define BATCH_MAX (1 << 22)

typedef struct lfeed {
  ev_feed *feed; /* owned */
} lfeed;

typedef struct lbatch {
  lfeed *of;
  size_t n, places;
  uint64_t session;  /* number of the first, before it is stepped */
  uint32_t *users, *slates;             /* (n), (n, places) */
  float *expected, *propensity, *worth; /* (n, places), (n, places), (n) */
  uint8_t *clicks;                      /* (n, places) */
} lbatch;

static ev_feed *check(lua_State *L, int arg) { return ((lfeed *)luaL_checkudata(L, arg, EV_FEED))->feed; }
static size_t n_users(const ev_feed *f) { return (size_t)ev_feed_opts(f)->users; }
static size_t n_items(const ev_feed *f) { return (size_t)ev_feed_opts(f)->items; }

/* ---- Making one --------------------------------------------------------------------------------------------*/
static void read_fields(lua_State *L, int table, void *options, const ev_parameter *(*field)(size_t)) {
  for (size_t i = 0; field(i) != NULL; i++) {
    double *at = ev_parameter_of(options, field(i));
    lua_getfield(L, table, field(i)->name);
    if (!lua_isnil(L, -1)) {
      if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "%s must be a number, not a %s", field(i)->name, luaL_typename(L, -1));
      *at = lua_tonumber(L, -1);
    }
    lua_pop(L, 1);
  }
}

static lfeed *push_feed(lua_State *L) {
  lfeed *x = lua_newuserdata(L, sizeof *x);
  x->feed = NULL;
  luaL_getmetatable(L, EV_FEED);
  lua_setmetatable(L, -2);
  return x;
}

static int feed_new(lua_State *L) { /* feed{ users =, … , segments = { { name =, share =, … } } } */
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  ev_feed_options o;
  ev_feed_defaults(&o);
  read_fields(L, 1, &o, ev_feed_parameter);
  lua_getfield(L, 1, "segments");
  if (!lua_isnil(L, -1)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    ev_feed_segment plain = o.segments[0];
    o.n_segments = lua_objlen(L, 2);
    if (o.n_segments < 1 || o.n_segments > EV_FEED_SEGMENTS) return luaL_error(L, "segments: %d; there are 1 to %d", (int)o.n_segments, EV_FEED_SEGMENTS);
    for (size_t s = 0; s < o.n_segments; s++) {
      lua_rawgeti(L, 2, (int)s + 1);
      luaL_checktype(L, 3, LUA_TTABLE);
      o.segments[s] = plain;
      read_fields(L, 3, &o.segments[s], ev_feed_segment_parameter);
      lua_getfield(L, 3, "name");
      const char *name = lua_tostring(L, 4);
      strncpy(o.segments[s].name, name != NULL ? name : "", sizeof plain.name - 1);
      lua_settop(L, 2);
    }
  }
  lfeed *x = push_feed(L);
  EV_CHECK(L, ev_feed_new(&x->feed, &o));
  return 1;
}

static int feed_copy(lua_State *L) {
  const ev_feed *from = check(L, 1);
  lfeed *x = push_feed(L);
  EV_CHECK(L, ev_feed_copy(&x->feed, from));
  return 1;
}

static int feed_close(lua_State *L) {
  lfeed *x = luaL_checkudata(L, 1, EV_FEED);
  ev_feed_free(x->feed);
  x->feed = NULL;
  return 0;
}

static void push_parameters(lua_State *L, const ev_parameter *(*field)(size_t)) {
  lua_newtable(L);
  for (size_t i = 0; field(i) != NULL; i++) {
    const ev_parameter *p = field(i);
    lua_createtable(L, 0, 6);
    const struct {
      const char *key;
      double x;
    } numbers[] = {{"default", p->fallback}, {"low", p->low}, {"high", p->high}};
    for (int k = 0; k < 3; k++) {
      lua_pushnumber(L, numbers[k].x);
      lua_setfield(L, -2, numbers[k].key);
    }
    lua_pushstring(L, p->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, p->about);
    lua_setfield(L, -2, "about");
    lua_pushboolean(L, p->whole);
    lua_setfield(L, -2, "whole");
    lua_rawseti(L, -2, (int)i + 1);
  }
}

static int feed_parameters(lua_State *L) { /* feed_parameters() → those of a feed, those of a segment */
  push_parameters(L, ev_feed_parameter);
  push_parameters(L, ev_feed_segment_parameter);
  return 2;
}

static int feed_import(lua_State *L) { /* feed_import(interaction file, snapshot): folds cut by time within each user */
  const char *file = luaL_checkstring(L, 1);
  ev_import_options o;
  ev_import_defaults(&o);
  o.files = &file;
  o.n_files = 1;
  o.duplicates = EV_DUP_FIRST;
  o.split = EV_SPLIT_LAST;
  EV_CHECK(L, ev_import(&o, luaL_checkstring(L, 2)));
  return 0;
}

/* ---- Asking it ----------------------------------------------------------------------------------------------*/
static int feed_option(lua_State *L) { /* f:option(name) → number */
  ev_feed_options o = *ev_feed_opts(check(L, 1));
  const char *name = luaL_checkstring(L, 2);
  for (size_t i = 0; ev_feed_parameter(i) != NULL; i++)
    if (strcmp(ev_feed_parameter(i)->name, name) == 0) {
      lua_pushnumber(L, *ev_parameter_of(&o, ev_feed_parameter(i)));
      return 1;
    }
  return luaL_error(L, "a feed has no parameter '%s'", name);
}

static int feed_sessions(lua_State *L) {
  lua_pushnumber(L, (double)ev_feed_sessions(check(L, 1)));
  return 1;
}

static int feed_days(lua_State *L) {
  lua_pushnumber(L, ev_feed_days(check(L, 1)));
  return 1;
}

static int feed_weights(lua_State *L) { /* f:weights() → vector: the probability that the next to come is each user */
  const ev_feed *f = check(L, 1);
  size_t n = n_users(f);
  float *out = ev_lua_new_vector(L, n);
  double *weights = ev_lua_scratch(L, n, sizeof *weights);
  ev_feed_weights(f, weights);
  for (size_t u = 0; u < n; u++) out[u] = (float)weights[u];
  lua_pop(L, 1);
  return 1;
}

static int feed_segments(lua_State *L) { /* f:segments() → vector of each user's segment, their names */
  const ev_feed *f = check(L, 1);
  size_t n = n_users(f);
  float *out = ev_lua_new_vector(L, n);
  for (size_t u = 0; u < n; u++) out[u] = (float)ev_feed_segment_of(f, (uint32_t)u) + 1;
  lua_newtable(L);
  for (size_t s = 0; s < ev_feed_opts(f)->n_segments; s++) {
    lua_pushstring(L, ev_feed_opts(f)->segments[s].name);
    lua_rawseti(L, -2, (int)s + 1);
  }
  return 2;
}

static int feed_items(lua_State *L) { /* f:items() → vector of generations, vector of ages in days */
  ev_feed *f = check(L, 1);
  size_t n = n_items(f);
  double now = ev_feed_days(f);
  float *generations = ev_lua_new_vector(L, n), *ages = ev_lua_new_vector(L, n);
  for (size_t i = 0; i < n; i++) {
    uint32_t generation;
    double born;
    ev_feed_item(f, (uint32_t)i, &generation, &born);
    generations[i] = (float)generation;
    ages[i] = (float)(now - born);
  }
  return 2;
}

static int feed_features(lua_State *L) { /* f:features(noise) → users' vectors, items' vectors, appeal */
  ev_feed *f = check(L, 1);
  double noise = luaL_optnumber(L, 2, 0);
  luaL_argcheck(L, noise >= 0 && noise <= 1e6, 2, "noise is 0 or more");
  size_t dims = (size_t)ev_feed_opts(f)->dims;
  float *users = ev_lua_new_vector(L, n_users(f) * dims), *items = ev_lua_new_vector(L, n_items(f) * dims), *appeal = ev_lua_new_vector(L, n_items(f));
  ev_feed_features(f, noise, users, items, appeal);
  return 3;
}

static int feed_due(lua_State *L) { /* f:due() → list of { item, user, session, days }: conversions that became known */
  ev_feed *f = check(L, 1);
  ev_conversion some[256];
  lua_newtable(L);
  int at = 0;
  for (size_t n; (n = ev_feed_due(f, some, 256)) > 0;)
    for (size_t i = 0; i < n; i++) {
      lua_createtable(L, 0, 4);
      lua_pushnumber(L, some[i].item);
      lua_setfield(L, -2, "item");
      lua_pushnumber(L, some[i].user);
      lua_setfield(L, -2, "user");
      lua_pushnumber(L, (double)some[i].session);
      lua_setfield(L, -2, "session");
      lua_pushnumber(L, some[i].days);
      lua_setfield(L, -2, "days");
      lua_rawseti(L, -2, ++at);
    }
  return 1;
}

static int feed_tally_due(lua_State *L) { /* f:tally_due(vector of the items) adds 1 for each conversion that became known → how many */
  size_t n, all = 0;
  ev_feed *f = check(L, 1);
  float *out = ev_lua_vector(L, 2, &n);
  if (n != n_items(f)) return luaL_error(L, "a vector of %f numbers for %f items", (double)n, (double)n_items(f));
  ev_conversion some[256];
  for (size_t m; (m = ev_feed_due(f, some, 256)) > 0; all += m)
    for (size_t i = 0; i < m; i++) out[some[i].item]++;
  lua_pushnumber(L, (double)all);
  return 1;
}

/* ---- Batches ------------------------------------------------------------------------------------------------*/
static lbatch *batch(lua_State *L) { return luaL_checkudata(L, 1, EV_FEED_BATCH); }

static int feed_batch(lua_State *L) { /* f:batch(n) → n sessions, their slates empty */
  const ev_feed *f = check(L, 1);
  size_t n = (size_t)ev_lua_integer(L, 2, 1, BATCH_MAX), places = (size_t)ev_feed_opts(f)->places, rows = n * places;
  if (rows > (size_t)1 << 26) return luaL_error(L, "a batch of %f places is too large", (double)rows);
  lbatch *b = lua_newuserdata(L, sizeof *b + n * (sizeof *b->users + sizeof *b->worth) + rows * (sizeof *b->slates + 2 * sizeof *b->expected + 1));
  char *at = (char *)(b + 1);
  *b = (lbatch){.of = lua_touserdata(L, 1), .n = n, .places = places, .session = ev_feed_sessions(f)};
  struct {
    void *where;
    size_t size;
  } parts[] = {{&b->users, 4 * n}, {&b->slates, 4 * rows}, {&b->expected, 4 * rows}, {&b->propensity, 4 * rows}, {&b->worth, 4 * n}, {&b->clicks, rows}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; at += parts[i++].size) memcpy(parts[i].where, &at, sizeof at);
  memset(b->users, 0, 4 * n);
  memset(b->slates, 0xff, 4 * rows);
  memset(b->expected, 0, 4 * rows);
  memset(b->propensity, 0, 4 * rows);
  memset(b->clicks, 0, rows);
  luaL_getmetatable(L, EV_FEED_BATCH);
  lua_setmetatable(L, -2);
  ev_lua_anchor(L, lua_gettop(L), 1);
  ev_feed_arrive(f, b->users, n);
  return 1;
}

static int batch_arrive(lua_State *L) { /* b:arrive(): the users of the next n sessions */
  lbatch *b = batch(L);
  ev_feed_arrive(b->of->feed, b->users, b->n);
  b->session = ev_feed_sessions(b->of->feed);
  lua_settop(L, 1);
  return 1;
}

static int batch_everyone(lua_State *L) { /* b:everyone([first]): users first, first + 1, … */
  lbatch *b = batch(L);
  size_t first = lua_isnoneornil(L, 2) ? 0 : (size_t)ev_lua_integer(L, 2, 0, (int64_t)n_users(b->of->feed) - 1);
  for (size_t i = 0; i < b->n; i++) b->users[i] = (uint32_t)((first + i) % n_users(b->of->feed));
  lua_settop(L, 1);
  return 1;
}

static const float *mask_at(lua_State *L, int arg, const lbatch *b) {
  size_t n;
  if (lua_isnoneornil(L, arg)) return NULL;
  const float *mask = ev_lua_vector(L, arg, &n);
  if (n != b->n) luaL_error(L, "a mask of %f rows for %f", (double)n, (double)b->n);
  return mask;
}

static const float *vector_of(lua_State *L, int arg, size_t wanted) {
  size_t n;
  const float *x = ev_lua_vector(L, arg, &n);
  if (n != wanted) luaL_error(L, "argument %d has %f numbers; %f are expected", arg - 1, (double)n, (double)wanted);
  return x;
}

static uint64_t seed_at(lua_State *L, int arg) { return lua_isnoneornil(L, arg) ? 1 : (uint64_t)ev_lua_integer(L, arg, 0, INT64_C(1) << 53); }

static int show_random(lua_State *L) { /* b:show_random([seed[, mask]]) */
  lbatch *b = batch(L);
  EV_CHECK(L, ev_feed_show_random(b->of->feed, b->slates, b->propensity, b->n, seed_at(L, 2), mask_at(L, 3, b)));
  lua_settop(L, 1);
  return 1;
}

static int show_top(lua_State *L) { /* b:show_top(scores of the items[, mask]) */
  lbatch *b = batch(L);
  EV_CHECK(L, ev_feed_show_top(b->of->feed, b->slates, b->n, vector_of(L, 2, n_items(b->of->feed)), mask_at(L, 3, b)));
  lua_settop(L, 1);
  return 1;
}

static ev_feed_scores scores_at(lua_State *L, int arg, const lbatch *b) {
  size_t n, items = n_items(b->of->feed), dims;
  const float *x = ev_lua_vector(L, arg + 1, &n);
  dims = n / items;
  if (dims == 0 || dims * items != n) luaL_error(L, "%f numbers are no vectors of %f items", (double)n, (double)items);
  return (ev_feed_scores){vector_of(L, arg, n_users(b->of->feed) * dims), x, lua_isnoneornil(L, arg + 2) ? NULL : vector_of(L, arg + 2, items), dims};
}

static int show_ranked(lua_State *L) { /* b:show_ranked(users' vectors, items' vectors[, bias[, mask]]) */
  lbatch *b = batch(L);
  lua_settop(L, 5);
  ev_feed_scores s = scores_at(L, 2, b);
  EV_CHECK(L, ev_feed_show_ranked(b->of->feed, b->slates, b->users, b->n, &s, mask_at(L, 5, b)));
  lua_settop(L, 1);
  return 1;
}

static int show_sampled(lua_State *L) { /* b:show_sampled(users' vectors, items' vectors, bias | nil, temperature[, seed[, mask]]) */
  lbatch *b = batch(L);
  lua_settop(L, 7);
  ev_feed_scores s = scores_at(L, 2, b);
  EV_CHECK(L, ev_feed_show_sampled(b->of->feed, b->slates, b->propensity, b->users, b->n, &s, (float)luaL_checknumber(L, 5), seed_at(L, 6), mask_at(L, 7, b)));
  lua_settop(L, 1);
  return 1;
}

static int batch_show(lua_State *L) { /* b:show(row, { item, … }): the other places stay empty */
  lbatch *b = batch(L);
  size_t row = (size_t)ev_lua_integer(L, 2, 1, (int64_t)b->n) - 1;
  luaL_checktype(L, 3, LUA_TTABLE);
  size_t n = lua_objlen(L, 3);
  if (n > b->places) return luaL_error(L, "%d items for %d places", (int)n, (int)b->places);
  uint32_t slate[EV_FEED_PLACES];
  memset(slate, 0xff, sizeof slate); /* EV_NONE */
  for (size_t p = 0; p < n; p++) {
    lua_rawgeti(L, 3, (int)p + 1);
    slate[p] = (uint32_t)ev_lua_integer(L, -1, 0, (int64_t)n_items(b->of->feed) - 1);
    lua_pop(L, 1);
  }
  memcpy(b->slates + row * b->places, slate, b->places * sizeof *slate);
  lua_settop(L, 1);
  return 1;
}

static int batch_put(lua_State *L) { /* b:put(slates): n × places items behind one another, -1: an empty place */
  lbatch *b = batch(L);
  size_t all = b->n * b->places;
  const float *x = vector_of(L, 2, all);
  double most = (double)n_items(b->of->feed) - 1;
  for (size_t i = 0; i < all; i++)
    if (x[i] != -1 && (!(x[i] >= 0 && (double)x[i] <= most) || x[i] != floorf(x[i]))) return luaL_error(L, "number %d is %f: items are whole numbers from 0 to %f", (int)i + 1, (double)x[i], most);
  for (size_t i = 0; i < all; i++) b->slates[i] = x[i] < 0 ? EV_NONE : (uint32_t)x[i];
  lua_settop(L, 1);
  return 1;
}

static int batch_step(lua_State *L) { /* b:step(): the sessions happen; b:arrive() for the next */
  lbatch *b = batch(L);
  EV_CHECK(L, ev_feed_step(b->of->feed, b->users, b->slates, b->n, b->clicks, b->expected));
  lua_settop(L, 1);
  return 1;
}

static int batch_worth(lua_State *L) { /* b:worth() → vector: what each slate would be worth now, its clicks' probabilities in b:expected() */
  lbatch *b = batch(L);
  EV_CHECK(L, ev_feed_expect(b->of->feed, b->users, b->slates, b->n, b->expected, b->worth));
  float *out = ev_lua_new_vector(L, b->n);
  memcpy(out, b->worth, b->n * sizeof *out);
  return 1;
}

static int batch_coin(lua_State *L) { /* b:coin(share, seed) → vector of 0 and 1, 1 with this probability, by the session's number */
  lbatch *b = batch(L);
  double share = luaL_checknumber(L, 2);
  uint64_t seed = seed_at(L, 3);
  float *out = ev_lua_new_vector(L, b->n);
  for (size_t i = 0; i < b->n; i++) {
    ev_rng r;
    ev_rng_seed(&r, seed, b->session + i + 1);
    out[i] = ev_rng_f64(&r) < share ? 1.0f : 0.0f;
  }
  return 1;
}

/* b:tally(clicks, looks[, mask]): of each item, adds its clicks and the number of times it was shown */
static int batch_tally(lua_State *L) {
  lbatch *b = batch(L);
  size_t n, m;
  float *clicks = ev_lua_vector(L, 2, &n), *shown = ev_lua_vector(L, 3, &m);
  if (n != n_items(b->of->feed) || m != n) return luaL_error(L, "vectors of %f and %f numbers for %f items", (double)n, (double)m, (double)n_items(b->of->feed));
  const float *mask = mask_at(L, 4, b);
  for (size_t i = 0; i < b->n * b->places; i++) {
    if (b->slates[i] == EV_NONE || (mask != NULL && mask[i / b->places] == 0)) continue;
    clicks[b->slates[i]] += b->clicks[i];
    shown[b->slates[i]]++;
  }
  lua_settop(L, 1);
  return 1;
}

/* Columns: each a new vector. */
#define COLUMN(fname, count, value)                          \
  static int fname(lua_State *L) {                           \
    const lbatch *b = batch(L);                              \
    float *out = ev_lua_new_vector(L, count);                \
    for (size_t i = 0; i < (count); i++) out[i] = (value);   \
    return 1;                                                \
  }
COLUMN(batch_users, b->n, (float)b->users[i])
COLUMN(batch_slates, b->n *b->places, b->slates[i] == EV_NONE ? -1 : (float)b->slates[i])
COLUMN(batch_clicks, b->n *b->places, (float)b->clicks[i])
COLUMN(batch_expected, b->n *b->places, b->expected[i])
COLUMN(batch_propensities, b->n *b->places, b->propensity[i])

static int batch_rewards(lua_State *L) { /* b:rewards() → vector: the clicks of each session; b:rewards("any"): 1 where there was one */
  static const char *const kinds[] = {"clicks", "any", NULL};
  const lbatch *b = batch(L);
  bool any = luaL_checkoption(L, 2, "clicks", kinds) == 1;
  float *out = ev_lua_new_vector(L, b->n);
  for (size_t row = 0; row < b->n; row++) {
    unsigned sum = 0;
    for (size_t p = 0; p < b->places; p++) sum += b->clicks[row * b->places + p];
    out[row] = any ? (sum > 0 ? 1.0f : 0.0f) : (float)sum;
  }
  return 1;
}

static int batch_size(lua_State *L) {
  lua_pushnumber(L, (double)batch(L)->n);
  return 1;
}

void ev_bind_feed(lua_State *L) {
  static const luaL_Reg feed[] = {{"option", feed_option}, {"sessions", feed_sessions}, {"days", feed_days}, {"weights", feed_weights}, {"segments", feed_segments},
                                  {"items", feed_items}, {"features", feed_features}, {"due", feed_due}, {"tally_due", feed_tally_due}, {"batch", feed_batch},
                                  {"copy", feed_copy}, {"__gc", feed_close}, {NULL, NULL}};
  static const luaL_Reg batches[] = {{"arrive", batch_arrive}, {"everyone", batch_everyone}, {"show", batch_show}, {"put", batch_put}, {"show_random", show_random}, {"show_top", show_top},
                                     {"show_ranked", show_ranked}, {"show_sampled", show_sampled}, {"step", batch_step}, {"worth", batch_worth}, {"coin", batch_coin},
                                     {"tally", batch_tally}, {"users", batch_users}, {"slates", batch_slates}, {"clicks", batch_clicks}, {"expected", batch_expected},
                                     {"propensities", batch_propensities}, {"rewards", batch_rewards}, {"__len", batch_size}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"feed", feed_new}, {"feed_parameters", feed_parameters}, {"feed_import", feed_import}, {NULL, NULL}};
  ev_lua_class(L, EV_FEED, feed);
  ev_lua_class(L, EV_FEED_BATCH, batches);
  lua_pop(L, 2);
  luaL_register(L, NULL, functions);
}
