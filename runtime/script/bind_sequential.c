/* bind_sequential.c - confidence sequences, canaries and many challengers for scripts. States are saved as text with a checksum. */
#include <math.h>
#include <string.h>

#include "bind.h"

#define EV_SEQUENCE "ev.sequence"
#define EV_CANARY "ev.canary"
#define EV_ONLINE "ev.online"

/* Numbers at `arg`: one, a list, or a vector. Pushed. */
static double *take(lua_State *L, int arg, size_t *n) {
  if (lua_type(L, arg) == LUA_TNUMBER) {
    double *one = ev_lua_scratch(L, 1, sizeof *one);
    *one = lua_tonumber(L, arg);
    *n = 1;
    return one;
  }
  int64_t m = ev_lua_n_numbers(L, arg);
  if (m < 0) luaL_argerror(L, arg, "a number, a list of numbers or a vector is expected");
  double *out = ev_lua_scratch(L, (size_t)m, sizeof *out);
  size_t now = (size_t)m;
  const float *v = lua_istable(L, arg) ? NULL : ev_lua_vector(L, arg, &now);
  if (now != (size_t)m) luaL_error(L, "the vector has changed meanwhile");
  for (size_t i = 0; i < now; i++) {
    if (v != NULL) {
      out[i] = (double)v[i];
      continue;
    }
    lua_rawgeti(L, arg, (int)i + 1);
    if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "number %d of the list is a %s", (int)i + 1, luaL_typename(L, -1));
    out[i] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  *n = now;
  return out;
}

static size_t choice(lua_State *L, const char *key, const char *const *names) {
  const char *text = ev_lua_field_string(L, 1, key, names[0]);
  for (size_t i = 0; names[i] != NULL; i++)
    if (strcmp(text, names[i]) == 0) return i;
  return (size_t)luaL_error(L, "%s: '%s' is none of those there are", key, text);
}

static void *push(lua_State *L, size_t size, const char *class) {
  void *state = lua_newuserdata(L, size);
  luaL_getmetatable(L, class);
  lua_setmetatable(L, -2);
  return state;
}

/* ---- Saving --------------------------------------------------------------------------------------------------*/
typedef struct saved { /* before the state's bytes */
  char kind[16];
  uint64_t checksum;
} saved;

static int save(lua_State *L, const char *class, size_t size) {
  const void *state = luaL_checkudata(L, 1, class);
  saved head;
  memset(&head, 0, sizeof head);
  strcpy(head.kind, class);
  head.checksum = ev_checksum(state, size);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addlstring(&b, (const char *)&head, sizeof head);
  luaL_addlstring(&b, state, size);
  luaL_pushresult(&b);
  return 1;
}

static int save_sequence(lua_State *L) { return save(L, EV_SEQUENCE, sizeof(ev_sequence)); }
static int save_canary(lua_State *L) { return save(L, EV_CANARY, sizeof(ev_canary)); }
static int save_online(lua_State *L) { return save(L, EV_ONLINE, sizeof(ev_online)); }

static int load_state(lua_State *L) { /* sequential_load(text) → the state that was saved */
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  const struct {
    const char *class;
    size_t size;
  } kinds[] = {{EV_SEQUENCE, sizeof(ev_sequence)}, {EV_CANARY, sizeof(ev_canary)}, {EV_ONLINE, sizeof(ev_online)}};
  saved head;
  for (int k = 0; k < 3; k++) {
    if (len != sizeof head + kinds[k].size) continue;
    memcpy(&head, text, sizeof head);
    if (memcmp(head.kind, kinds[k].class, strlen(kinds[k].class) + 1) != 0 || head.checksum != ev_checksum(text + sizeof head, kinds[k].size)) continue;
    void *state = push(L, kinds[k].size, kinds[k].class);
    memcpy(state, text + sizeof head, kinds[k].size);
    EV_CHECK(L, k == 0 ? ev_sequence_check(state) : k == 1 ? ev_canary_check(state) : ev_online_check(state));
    return 1;
  }
  return ev_lua_fail(L, ev_fail(EV_ECORRUPT, "this is no saved sequential test"));
}

/* ---- Means ---------------------------------------------------------------------------------------------------*/
static const char *const kind_names[] = {"betting", "bernstein", "drifting", NULL};

static int mean_new(lua_State *L) { /* sequential_mean{ kind =, confidence =, low =, high = } */
  lua_settop(L, 1);
  ev_lua_only(L, 1, "kind confidence low high");
  double confidence = ev_lua_field_number(L, 1, "confidence", 0.95, 0, 1), low = ev_lua_field_number(L, 1, "low", 0, -1e100, 1e100), high = ev_lua_field_number(L, 1, "high", 1, -1e100, 1e100);
  ev_sequence_kind kind = lua_isnil(L, 1) ? EV_BETTING : (ev_sequence_kind)choice(L, "kind", kind_names);
  ev_sequence *s = push(L, sizeof *s, EV_SEQUENCE);
  memset(s, 0, sizeof *s);
  EV_CHECK(L, ev_sequence_init(s, kind, confidence, low, high));
  return 1;
}

static int mean_add(lua_State *L) { /* s:add(reward | rewards[, weight | weights]) */
  size_t n, n_weights = 0;
  lua_settop(L, 3);
  ev_sequence *s = luaL_checkudata(L, 1, EV_SEQUENCE);
  const double *rewards = take(L, 2, &n), *weights = lua_isnil(L, 3) ? NULL : take(L, 3, &n_weights);
  if (weights != NULL && n_weights != n) return luaL_error(L, "%d rewards with %d weights", (int)n, (int)n_weights);
  EV_CHECK(L, weights != NULL ? ev_sequence_add_weighted(s, weights, rewards, n) : ev_sequence_add(s, rewards, n));
  lua_settop(L, 1);
  return 1;
}

static int mean_interval(lua_State *L) { /* s:interval() → low, high, value */
  ev_difference d;
  ev_sequence_interval(luaL_checkudata(L, 1, EV_SEQUENCE), &d);
  lua_pushnumber(L, d.low);
  lua_pushnumber(L, d.high);
  lua_pushnumber(L, d.value);
  return 3;
}

static int mean_drifted(lua_State *L) {
  lua_pushboolean(L, ((ev_sequence *)luaL_checkudata(L, 1, EV_SEQUENCE))->drifted != 0);
  return 1;
}

static int mean_size(lua_State *L) {
  lua_pushnumber(L, (double)((ev_sequence *)luaL_checkudata(L, 1, EV_SEQUENCE))->n);
  return 1;
}

/* ---- Canaries -----------------------------------------------------------------------------------------------*/
static int canary_new(lua_State *L) { /* sequential_canary{ confidence =, caution =, margin =, harm =, low =, high = } */
  lua_settop(L, 1);
  ev_lua_only(L, 1, "confidence caution margin harm low high");
  ev_canary_options o;
  ev_canary_defaults(&o);
  struct {
    const char *key;
    double *at, low, high;
  } all[] = {{"confidence", &o.confidence, 0, 1}, {"caution", &o.caution, 0, 1}, {"margin", &o.margin, -1e100, 1e100},
             {"harm", &o.harm, -1e100, 1e100}, {"low", &o.low, -1e100, 1e100}, {"high", &o.high, -1e100, 1e100}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) *all[i].at = ev_lua_field_number(L, 1, all[i].key, *all[i].at, all[i].low, all[i].high);
  ev_canary *c = push(L, sizeof *c, EV_CANARY);
  memset(c, 0, sizeof *c);
  EV_CHECK(L, ev_canary_init(c, &o));
  return 1;
}

static const char *const decisions[] = {"go on", "promote", "roll back"};

/* c:add(challenger, reward, share): true or false, a reward, the challenger's share; or vectors or lists of the first two (0 and 1,
 * rewards) → the decision so far */
static int canary_add(lua_State *L) {
  size_t n, m;
  lua_settop(L, 4);
  ev_canary *c = luaL_checkudata(L, 1, EV_CANARY);
  double share = luaL_checknumber(L, 4);
  if (lua_isboolean(L, 2)) {
    lua_pushnumber(L, lua_toboolean(L, 2));
    lua_replace(L, 2);
  }
  const double *arms = take(L, 2, &m), *rewards = take(L, 3, &n);
  if (m != n) return luaL_error(L, "%d arms with %d rewards", (int)m, (int)n);
  for (size_t i = 0; i < n; i++) {
    if (arms[i] != 0 && arms[i] != 1) return luaL_error(L, "arm %d is %f: 0 is the champion, 1 the challenger", (int)i + 1, arms[i]);
    EV_CHECK(L, ev_canary_add(c, arms[i] != 0, rewards[i], share));
  }
  lua_pushstring(L, decisions[c->decision]);
  return 1;
}

static int canary_result(lua_State *L) { /* c:result() → { difference, low, high, p, better, worse, champion, challenger, n, decision } */
  const ev_canary *c = luaL_checkudata(L, 1, EV_CANARY);
  ev_canary_result r;
  ev_canary_read(c, &r);
  const struct {
    const char *key;
    double x;
  } numbers[] = {{"difference", r.difference.value}, {"low", r.difference.low}, {"high", r.difference.high}, {"p", r.difference.p}, {"better", r.better}, {"worse", r.worse},
                 {"champion", r.champion}, {"challenger", r.challenger}, {"n_champion", (double)c->n[0]}, {"n_challenger", (double)c->n[1]}};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    if (isnan(numbers[i].x)) continue;
    lua_pushnumber(L, numbers[i].x);
    lua_setfield(L, -2, numbers[i].key);
  }
  lua_pushstring(L, decisions[r.decision]);
  lua_setfield(L, -2, "decision");
  return 1;
}

/* ---- Many ---------------------------------------------------------------------------------------------------*/
static int adjust(lua_State *L) { /* sequential_adjust(values, how) → list */
  static const char *const names[] = {"holm", "bh", "by", "e-bh", NULL};
  size_t n;
  lua_settop(L, 2);
  int how = luaL_checkoption(L, 2, "holm", names);
  const double *values = take(L, 1, &n);
  double *out = ev_lua_scratch(L, n, sizeof *out);
  EV_CHECK(L, ev_adjust(out, values, n, (ev_adjustment)how));
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, out[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int online_new(lua_State *L) { /* sequential_online{ method = "e-lond" | "lord++", level = 0.05 } */
  static const char *const names[] = {"e-lond", "lord++", NULL};
  lua_settop(L, 1);
  ev_lua_only(L, 1, "method level");
  double level = ev_lua_field_number(L, 1, "level", 0.05, 0, 1);
  bool lord = !lua_isnil(L, 1) && choice(L, "method", names) == 1;
  ev_online *o = push(L, sizeof *o, EV_ONLINE);
  memset(o, 0, sizeof *o);
  EV_CHECK(L, ev_online_init(o, lord ? EV_LORD : EV_ELOND, level));
  return 1;
}

static int online_test(lua_State *L) { /* o:test(p | e) → whether it is a discovery, the level it was tested at */
  ev_online *o = luaL_checkudata(L, 1, EV_ONLINE);
  double value = luaL_checknumber(L, 2), level = ev_online_level(o);
  bool discovery;
  EV_CHECK(L, ev_online_test(o, value, &discovery));
  lua_pushboolean(L, discovery);
  lua_pushnumber(L, level);
  return 2;
}

static int online_level(lua_State *L) {
  lua_pushnumber(L, ev_online_level(luaL_checkudata(L, 1, EV_ONLINE)));
  return 1;
}

void ev_bind_sequential(lua_State *L) {
  static const luaL_Reg sequence[] = {{"add", mean_add}, {"interval", mean_interval}, {"drifted", mean_drifted}, {"save", save_sequence}, {"__len", mean_size}, {NULL, NULL}};
  static const luaL_Reg canary[] = {{"add", canary_add}, {"result", canary_result}, {"save", save_canary}, {NULL, NULL}};
  static const luaL_Reg online[] = {{"test", online_test}, {"level", online_level}, {"save", save_online}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"sequential_mean", mean_new}, {"sequential_canary", canary_new}, {"sequential_adjust", adjust},
                                       {"sequential_online", online_new}, {"sequential_load", load_state}, {NULL, NULL}};
  ev_lua_class(L, EV_SEQUENCE, sequence);
  ev_lua_class(L, EV_CANARY, canary);
  ev_lua_class(L, EV_ONLINE, online);
  lua_pop(L, 3);
  luaL_register(L, NULL, functions);
}
