/* bind_ope.c - bandit logs, policies over their rows, and off-policy estimates, for lua/evection/ope.lua.
 *
 * Arms, rows, positions and places count from 0 here; lists count from 1. A matrix has a number for every arm at every place of
 * a log's rows: a policy's probabilities, or a reward model's predictions. */
#include <math.h>
#include <string.h>

#include "bind.h"

#define EV_OPE_LOG "ev.ope_log"
#define EV_OPE_MATRIX "ev.ope_matrix"
#define DENSE_MAX ((size_t)1 << 28) /* numbers in one matrix: 2 GiB */

static ev_bandit_log **log_handle(lua_State *L, int arg) { return luaL_checkudata(L, arg, EV_OPE_LOG); }

static const ev_bandit_log *log_of(lua_State *L, int arg) {
  const ev_bandit_log *log = *log_handle(L, arg);
  if (log == NULL) luaL_error(L, "the log is closed");
  return log;
}

static ev_bandit_log **push_log(lua_State *L) {
  ev_bandit_log **log = lua_newuserdata(L, sizeof *log);
  *log = NULL;
  luaL_getmetatable(L, EV_OPE_LOG);
  lua_setmetatable(L, -2);
  return log;
}

static void show_progress(void *ctx, uint64_t done, uint64_t all) {
  lua_State *L = ctx;
  lua_getfield(L, LUA_REGISTRYINDEX, "ev.progress");
  if (!lua_isfunction(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushliteral(L, "reading");
  lua_pushnumber(L, (double)done);
  lua_pushnumber(L, (double)all);
  if (lua_pcall(L, 3, 0, 0) != 0) lua_pop(L, 1); /* a display that fails must not end the reading */
}

static int log_read(lua_State *L) { /* ope_read(path, items | nil, low | nil, high | nil) */
  const char *path = luaL_checkstring(L, 1), *items = luaL_optstring(L, 2, NULL);
  ev_bandit_options o = {.reward_low = luaL_optnumber(L, 3, 0), .reward_high = luaL_optnumber(L, 4, 0), .progress = show_progress, .progress_ctx = L};
  EV_CHECK(L, ev_bandit_log_read(push_log(L), path, items, &o));
  return 1;
}

static int log_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  EV_CHECK(L, ev_bandit_log_open(push_log(L), path));
  return 1;
}

static int log_close(lua_State *L) { /* by the collector alone: matrices look into their log */
  ev_bandit_log **log = log_handle(L, 1);
  ev_bandit_log_close(*log);
  *log = NULL;
  return 0;
}

static int log_write(lua_State *L) {
  EV_CHECK(L, ev_bandit_log_write(log_of(L, 1), luaL_checkstring(L, 2)));
  return 0;
}

/* ---- Logs from lists -------------------------------------------------------------------------------------*/
/* Field `key` of table 1: n rows of `width` numbers each (width 1: plain numbers; a vector will do), on the stack as scratch
 * memory; NULL when absent. */
static double *numbers(lua_State *L, const char *key, size_t n, size_t width, bool needed) {
  lua_getfield(L, 1, key);
  if (lua_isnil(L, -1)) {
    if (needed) luaL_error(L, "no list '%s'", key);
    return NULL;
  }
  int list = lua_gettop(L);
  size_t have = 0;
  const float *vector = lua_isuserdata(L, list) && width == 1 ? ev_lua_vector(L, list, &have) : NULL;
  if (vector == NULL) {
    luaL_checktype(L, list, LUA_TTABLE);
    have = lua_objlen(L, list);
  }
  if (have != n) luaL_error(L, "'%s' has %f rows, there are %f", key, (double)have, (double)n);
  double *out = ev_lua_scratch(L, n * width, sizeof *out);
  for (size_t i = 0; i < n; i++) {
    if (vector != NULL) {
      out[i] = vector[i];
      continue;
    }
    lua_rawgeti(L, list, (int)i + 1);
    if (width > 1 || lua_istable(L, -1)) {
      if (!lua_istable(L, -1) || lua_objlen(L, -1) != width) luaL_error(L, "row %d of '%s' is no list of %d", (int)i + 1, key, (int)width);
      for (size_t c = 0; c < width; c++) {
        lua_rawgeti(L, -1, (int)c + 1);
        if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "row %d of '%s' has a %s", (int)i + 1, key, luaL_typename(L, -1));
        out[i * width + c] = lua_tonumber(L, -1);
        lua_pop(L, 1);
      }
    } else {
      if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "row %d of '%s' is a %s", (int)i + 1, key, luaL_typename(L, -1));
      out[i] = lua_tonumber(L, -1);
    }
    lua_pop(L, 1);
  }
  return out;
}

static uint32_t *whole(lua_State *L, const char *key, const double *x, size_t n, size_t below) {
  if (x == NULL) return NULL;
  uint32_t *out = ev_lua_scratch(L, n, sizeof *out);
  for (size_t i = 0; i < n; i++) {
    if (!(x[i] >= 0 && x[i] < (double)below && x[i] == floor(x[i])))
      luaL_error(L, "row %d of '%s' is %f, not a whole number from 0 to %f", (int)i + 1, key, x[i], (double)below - 1);
    out[i] = (uint32_t)x[i];
  }
  return out;
}

static size_t width_of(lua_State *L, const char *key) { /* of the first row of a list of lists */
  size_t width = 0;
  lua_getfield(L, 1, key);
  if (lua_istable(L, -1)) {
    lua_rawgeti(L, -1, 1);
    if (lua_istable(L, -1)) width = lua_objlen(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return width;
}

/* ope_log { n_arms =, arm =, reward =, propensity =[, n_positions =, position =, context =, arm_features =, pair =, marginal =, reward_range =] };
 * slates: arm, reward, propensity and marginal are lists of lists of one length */
static int log_new(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkstack(L, 40, "columns");
  size_t n_arms = (size_t)ev_lua_field_number(L, 1, "n_arms", 0, 0, 1e6), n_positions = (size_t)ev_lua_field_number(L, 1, "n_positions", 1, 1, 256);
  if (n_arms == 0) return luaL_error(L, "n_arms, the number of arms, is missing");
  lua_getfield(L, 1, "arm");
  size_t n = 0;
  if (lua_isuserdata(L, -1)) ev_lua_vector(L, lua_gettop(L), &n);
  else if (lua_istable(L, -1)) n = lua_objlen(L, -1);
  lua_pop(L, 1);
  size_t length = width_of(L, "arm");
  bool slates = length > 0;
  if (!slates) length = 1;
  if (n == 0 || length > 256) return luaL_error(L, "a log of %f rows, %f places each", (double)n, (double)length);
  ev_bandit_log c = {.n = n, .length = length, .slates = slates, .n_arms = n_arms, .n_positions = n_positions, .reward_low = NAN, .reward_high = NAN};
  c.arm = whole(L, "arm", numbers(L, "arm", n, length, true), n * length, n_arms);
  c.reward = numbers(L, "reward", n, length, true);
  c.propensity = numbers(L, "propensity", n, length, true);
  c.marginal = slates ? numbers(L, "marginal", n, length, false) : NULL;
  c.position = slates ? NULL : whole(L, "position", numbers(L, "position", n, 1, false), n, n_positions);
  if (c.position == NULL) c.n_positions = 1;
  c.features.n_context = width_of(L, "context");
  if (c.features.n_context > 0) c.features.context = numbers(L, "context", n, c.features.n_context, false);
  c.features.n_arm_features = width_of(L, "arm_features");
  if (c.features.n_arm_features > 0) c.features.arm_features = numbers(L, "arm_features", n_arms, c.features.n_arm_features, false);
  c.features.pair = numbers(L, "pair", n, n_arms, false);
  for (size_t i = 0; i < n * length; i++) {
    if (!isfinite(c.reward[i])) return luaL_error(L, "row %d: the reward is %f", (int)(i / length) + 1, c.reward[i]);
    if (!(c.propensity[i] > 0 && c.propensity[i] <= 1))
      return luaL_error(L, "row %d: the propensity is %f, not above 0 and at most 1", (int)(i / length) + 1, c.propensity[i]);
    if (c.marginal != NULL && !(c.marginal[i] > 0 && c.marginal[i] <= 1))
      return luaL_error(L, "row %d: the marginal propensity is %f", (int)(i / length) + 1, c.marginal[i]);
  }
  ev_bandit_log **log = push_log(L);
  EV_CHECK(L, ev_bandit_log_of(log, &c));
  return 1;
}

/* ---- What a log says ---------------------------------------------------------------------------------------*/
static void set(lua_State *L, const char *key, double x) { /* of the table on top */
  lua_pushnumber(L, x);
  lua_setfield(L, -2, key);
}

static void push_names(lua_State *L, const ev_bandit_names *d) {
  lua_createtable(L, (int)d->n, 0);
  for (size_t i = 0; i < d->n; i++) {
    lua_pushlstring(L, d->bytes + d->ptr[i], d->ptr[i + 1] - d->ptr[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
}

static int log_info(lua_State *L) {
  const ev_bandit_log *log = log_of(L, 1);
  double sum = 0, squares = 0;
  bool binary = true, repeats = false;
  for (size_t i = 0; i < log->n; i++) {
    double of = 0;
    for (size_t l = 0; l < log->length; l++) {
      size_t at = i * log->length + l;
      if (log->arm[at] == EV_NONE) break;
      of += log->reward[at];
      binary &= log->reward[at] == 0 || log->reward[at] == 1;
      for (size_t k = i * log->length; k < at; k++) repeats |= log->arm[k] == log->arm[at];
    }
    sum += of;
    squares += of * of;
  }
  double n = (double)log->n, mean = sum / n, variance = n > 1 ? fmax(0, squares - n * mean * mean) / (n - 1) : 0;
  lua_createtable(L, 0, 20);
  set(L, "n", n);
  set(L, "length", (double)log->length);
  set(L, "n_arms", (double)log->n_arms);
  set(L, "n_positions", (double)log->n_positions);
  set(L, "n_users", (double)log->n_users);
  set(L, "n_context", (double)log->features.n_context);
  set(L, "value", mean);
  set(L, "standard_error", sqrt(variance / n));
  if (!isnan(log->reward_low)) set(L, "reward_low", log->reward_low), set(L, "reward_high", log->reward_high);
  const struct { const char *key; bool is; } flags[] = {{"slates", log->slates}, {"binary", binary}, {"repeats", repeats},
      {"marginals", log->marginal != NULL}, {"logged", log->logged.ptr != NULL}, {"evaluated", log->evaluated.ptr != NULL},
      {"pair", log->features.pair != NULL}};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
    lua_pushboolean(L, flags[i].is);
    lua_setfield(L, -2, flags[i].key);
  }
  if (log->pack != NULL) {
    ev_hash hash;
    char hex[65];
    ev_bandit_log_hash(log, &hash);
    ev_hash_hex(hex, &hash);
    lua_pushstring(L, hex);
    lua_setfield(L, -2, "hash");
  }
  return 1;
}

static int log_names(lua_State *L) { /* → names of arms, names of context columns */
  const ev_bandit_log *log = log_of(L, 1);
  push_names(L, &log->arms);
  push_names(L, &log->context);
  return 2;
}

static int log_row(lua_State *L) { /* log:row(i) → context, position (from 1), slate (of arms), pair, time in seconds */
  const ev_bandit_log *log = log_of(L, 1);
  size_t i = (size_t)ev_lua_integer(L, 2, 0, (int64_t)log->n - 1), d = log->features.n_context, k = 0;
  lua_createtable(L, (int)d, 0);
  for (size_t c = 0; c < d; c++) {
    lua_pushnumber(L, log->features.context[i * d + c]);
    lua_rawseti(L, -2, (int)c + 1);
  }
  lua_pushnumber(L, log->position != NULL ? log->position[i] + 1 : 1);
  lua_createtable(L, (int)log->length, 0);
  for (size_t l = 0; l < log->length && log->arm[i * log->length + l] != EV_NONE; l++) {
    lua_pushnumber(L, log->arm[i * log->length + l]);
    lua_rawseti(L, -2, (int)++k);
  }
  if (log->features.pair == NULL) lua_pushnil(L);
  else {
    lua_createtable(L, (int)log->n_arms, 0);
    for (size_t a = 0; a < log->n_arms; a++) {
      lua_pushnumber(L, log->features.pair[i * log->n_arms + a]);
      lua_rawseti(L, -2, (int)a + 1);
    }
  }
  if (log->time_ms != NULL) lua_pushnumber(L, (double)log->time_ms[i] / 1000);
  else lua_pushnil(L);
  return 5;
}

/* ---- Matrices --------------------------------------------------------------------------------------------*/
typedef struct lmatrix {
  size_t rows, n_arms;                   /* rows: a log's rows times its length */
  double *at;                            /* (rows, n_arms) owned; or (n_positions, n_arms) with by_position; NULL: sparse */
  bool by_position;
  const ev_bandit_log *log;              /* anchored */
  const ev_bandit_probabilities *sparse; /* the log's */
  double *marginal;                      /* (rows) of the arms logged, owned, or NULL */
  ev_ope_fit *fit;                       /* owned; whose predictions these are, or NULL */
} lmatrix;

static lmatrix *push_matrix(lua_State *L, int log_arg, size_t own_rows, bool by_position) { /* own_rows 0: sparse */
  const ev_bandit_log *log = log_of(L, log_arg);
  if (own_rows > 0 && own_rows > DENSE_MAX / log->n_arms)
    ev_lua_fail(L, ev_fail(EV_ELIMIT, "%zu rows of %zu arms: more than %zu numbers in one matrix", own_rows, log->n_arms, DENSE_MAX));
  lmatrix *m = lua_newuserdata(L, sizeof *m);
  *m = (lmatrix){.rows = log->n * log->length, .n_arms = log->n_arms, .log = log, .by_position = by_position};
  luaL_getmetatable(L, EV_OPE_MATRIX);
  lua_setmetatable(L, -2);
  ev_lua_anchor(L, lua_gettop(L), log_arg);
  if (own_rows == 0) return m;
  m->at = ev_zalloc(own_rows, log->n_arms * sizeof *m->at);
  if (m->at == NULL) ev_lua_fail(L, EV_ENOMEM);
  return m;
}

static lmatrix *matrix_of(lua_State *L, int arg, const ev_bandit_log *log) { /* of this log */
  lmatrix *m = luaL_checkudata(L, arg, EV_OPE_MATRIX);
  if (m->log != log) luaL_argerror(L, arg, "a matrix of another log");
  return m;
}

static int matrix_close(lua_State *L) {
  lmatrix *m = luaL_checkudata(L, 1, EV_OPE_MATRIX);
  ev_free(m->at);
  ev_free(m->marginal);
  ev_ope_fit_free(m->fit);
  m->at = m->marginal = NULL;
  m->fit = NULL;
  m->log = NULL;
  m->rows = 0;
  return 0;
}

static void fill_row(void *ctx, double *out, size_t row) {
  const lmatrix *m = ctx;
  if (m->fit != NULL) {
    memcpy(out, ev_ope_fit_q(m->fit) + row * m->n_arms, m->n_arms * sizeof *out);
    return;
  }
  if (m->at != NULL) {
    size_t from = m->by_position ? (m->log->position != NULL ? m->log->position[row] : 0) : row;
    memcpy(out, m->at + from * m->n_arms, m->n_arms * sizeof *out);
    return;
  }
  memset(out, 0, m->n_arms * sizeof *out);
  for (uint64_t k = m->sparse->ptr[row]; k < m->sparse->ptr[row + 1]; k++) out[m->sparse->arm[k]] = m->sparse->p[k];
}

static ev_ope_matrix view(lmatrix *m) {
  bool dense = m->at != NULL && !m->by_position;
  if (m->fit != NULL) return (ev_ope_matrix){.at = ev_ope_fit_q(m->fit)};
  return (ev_ope_matrix){.at = dense ? m->at : NULL, .fn = fill_row, .ctx = m};
}

static int log_matrix(lua_State *L) { /* log:matrix() → zeros, to be set row by row */
  const ev_bandit_log *log = log_of(L, 1);
  push_matrix(L, 1, log->n * log->length, false);
  return 1;
}

static int matrix_set(lua_State *L) { /* matrix:set(row, place, { p, … }[, marginal of the arm logged]) */
  lmatrix *m = luaL_checkudata(L, 1, EV_OPE_MATRIX);
  if (m->at == NULL || m->by_position || m->fit != NULL) return luaL_error(L, "this matrix cannot be set");
  size_t row = (size_t)ev_lua_integer(L, 2, 0, (int64_t)m->log->n - 1), l = (size_t)ev_lua_integer(L, 3, 0, (int64_t)m->log->length - 1);
  luaL_checktype(L, 4, LUA_TTABLE);
  size_t n = lua_objlen(L, 4), at = row * m->log->length + l;
  if (n != m->n_arms) return luaL_error(L, "%d numbers for %d arms", (int)n, (int)m->n_arms);
  for (size_t a = 0; a < n; a++) {
    lua_rawgeti(L, 4, (int)a + 1);
    if (lua_type(L, -1) != LUA_TNUMBER || !isfinite(lua_tonumber(L, -1)))
      return luaL_error(L, "number %d is a %s", (int)a + 1, lua_isnumber(L, -1) ? "number that is not finite" : luaL_typename(L, -1));
    m->at[at * m->n_arms + a] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  if (lua_isnoneornil(L, 5)) return 0;
  double marginal = luaL_checknumber(L, 5);
  if (!(marginal >= 0 && marginal <= 1)) return luaL_error(L, "a marginal probability of %f", marginal);
  if (m->marginal == NULL) m->marginal = ev_zalloc(m->rows, sizeof *m->marginal);
  if (m->marginal == NULL) return ev_lua_fail(L, EV_ENOMEM);
  m->marginal[at] = marginal;
  return 0;
}

static int matrix_get(lua_State *L) { /* matrix:get(row[, place]) → { p, … } */
  lmatrix *m = luaL_checkudata(L, 1, EV_OPE_MATRIX);
  if (m->log == NULL) return luaL_error(L, "the matrix is closed");
  size_t row = (size_t)ev_lua_integer(L, 2, 0, (int64_t)m->log->n - 1);
  size_t l = lua_isnoneornil(L, 3) ? 0 : (size_t)ev_lua_integer(L, 3, 0, (int64_t)m->log->length - 1);
  double *buffer = ev_lua_scratch(L, m->n_arms, sizeof *buffer);
  fill_row(m, buffer, row * m->log->length + l);
  lua_createtable(L, (int)m->n_arms, 0);
  for (size_t a = 0; a < m->n_arms; a++) {
    lua_pushnumber(L, buffer[a]);
    lua_rawseti(L, -2, (int)a + 1);
  }
  return 1;
}

static int log_uniform(lua_State *L) { /* every arm alike; in slates without repeats, every arm that is not above */
  const ev_bandit_log *log = log_of(L, 1);
  bool repeats = lua_toboolean(L, 2);
  if (!log->slates) {
    lmatrix *m = push_matrix(L, 1, log->n_positions, true);
    for (size_t i = 0; i < log->n_positions * log->n_arms; i++) m->at[i] = 1 / (double)log->n_arms;
    return 1;
  }
  lmatrix *m = push_matrix(L, 1, log->n * log->length, false);
  m->marginal = ev_zalloc(m->rows, sizeof *m->marginal);
  if (m->marginal == NULL) return ev_lua_fail(L, EV_ENOMEM);
  for (size_t i = 0; i < log->n; i++) {
    const uint32_t *slate = log->arm + i * log->length;
    for (size_t l = 0; l < log->length && slate[l] != EV_NONE; l++) {
      double *row = m->at + (i * log->length + l) * log->n_arms;
      for (size_t a = 0; a < log->n_arms; a++) row[a] = 1 / (double)(log->n_arms - (repeats ? 0 : l));
      for (size_t k = 0; k < l && !repeats; k++) row[slate[k]] = 0;
      m->marginal[i * log->length + l] = 1 / (double)log->n_arms;
    }
  }
  return 1;
}

static int log_shares(lua_State *L) { /* log:shares(other, counted) → what the other log's policy shows, by position */
  const ev_bandit_log *log = log_of(L, 1), *other = log_of(L, 2);
  bool counted = lua_toboolean(L, 3);
  if (log->slates || other->slates) return ev_lua_fail(L, ev_fail(EV_EINVAL, "shares by position of a log of slates; give a policy file"));
  if (other->n_positions < log->n_positions)
    return ev_lua_fail(L, ev_fail(EV_EINVAL, "the policy's log has %zu positions, the log evaluated %zu", other->n_positions, log->n_positions));
  double *shares = ev_lua_scratch(L, other->n_positions * other->n_arms, sizeof *shares);
  EV_CHECK(L, ev_bandit_log_shares(shares, other, counted));
  lmatrix *m = push_matrix(L, 1, log->n_positions, true);
  for (size_t b = 0; b < other->n_arms; b++) {
    const char *name = other->arms.bytes + other->arms.ptr[b];
    size_t len = other->arms.ptr[b + 1] - other->arms.ptr[b];
    uint32_t a = ev_bandit_log_arm(log, name, len);
    for (size_t p = 0; p < log->n_positions; p++) {
      double share = shares[p * other->n_arms + b];
      if (a != EV_NONE) m->at[p * log->n_arms + a] = share;
      else if (share > 0)
        return ev_lua_fail(L, ev_fail(EV_EINVAL, "no support: the policy shows arm '%.*s', which the log evaluated does not know",
                                      (int)(len < 60 ? len : 60), name));
    }
  }
  return 1;
}

static int came_with(lua_State *L, bool evaluated) {
  const ev_bandit_log *log = log_of(L, 1);
  const ev_bandit_probabilities *p = evaluated ? &log->evaluated : &log->logged;
  if (p->ptr == NULL) return ev_lua_fail(L, ev_fail(EV_EINVAL, "the log's rows have no '%s'", evaluated ? "evaluated" : "probabilities"));
  push_matrix(L, 1, 0, false)->sparse = p;
  return 1;
}
static int log_evaluated(lua_State *L) { return came_with(L, true); }
static int log_logged(lua_State *L) { return came_with(L, false); }

/* ---- Reward models ---------------------------------------------------------------------------------------*/
static void model_options(lua_State *L, int arg, ev_ope_model *m) { /* { kind =, penalty =, folds =, crossed =, seed = } */
  ev_ope_model_defaults(m);
  const char *kind = ev_lua_field_string(L, arg, "kind", "ridge");
  if (strcmp(kind, "ridge") != 0 && strcmp(kind, "logistic") != 0) luaL_error(L, "kind is ridge or logistic, not '%s'", kind);
  m->logistic = *kind == 'l';
  m->penalty = ev_lua_field_number(L, arg, "penalty", m->penalty, 1e-12, 1e12);
  m->folds = (unsigned)ev_lua_field_number(L, arg, "folds", m->folds, 1, 1000);
  m->crossed = ev_lua_field_bool(L, arg, "crossed", false);
  m->seed = (uint64_t)ev_lua_field_number(L, arg, "seed", 1, 0, 9007199254740992.0);
}

static int log_regress(lua_State *L) { /* log:regress(options) → q̂ */
  const ev_bandit_log *log = log_of(L, 1);
  ev_ope_model o;
  model_options(L, 2, &o);
  if (log->slates) return luaL_error(L, "slates are regressed by measure_slates");
  if (log->n > DENSE_MAX / log->n_arms)
    return ev_lua_fail(L, ev_fail(EV_ELIMIT, "%zu rows of %zu arms: more than %zu predictions; --model none does without", log->n, log->n_arms,
                                  DENSE_MAX));
  ev_ope_log rows = ev_bandit_log_rows(log);
  lmatrix *m = push_matrix(L, 1, 0, false);
  EV_CHECK(L, ev_ope_fit_new(&m->fit, &rows, &log->features, &o));
  return 1;
}

static int log_mrdr(lua_State *L) { /* log:mrdr(policy, options) → q̂ */
  const ev_bandit_log *log = log_of(L, 1);
  lmatrix *policy = matrix_of(L, 2, log);
  ev_ope_model o;
  model_options(L, 3, &o);
  if (log->slates) return luaL_error(L, "no mrdr of slates");
  ev_ope_log rows = ev_bandit_log_rows(log);
  double *weight = ev_lua_scratch(L, log->n, sizeof *weight);
  ev_ope_matrix p = view(policy);
  EV_CHECK(L, ev_ope_mrdr_weights(weight, &rows, &p));
  o.weight = weight;
  o.logistic = false; /* the criterion is one of squares */
  lmatrix *m = push_matrix(L, 1, log->n, false);
  EV_CHECK(L, ev_ope_regress(m->at, &rows, &log->features, &o));
  return 1;
}

/* ---- Estimates -------------------------------------------------------------------------------------------*/
static double open_number(lua_State *L, int arg, const char *key, double low) { return ev_lua_field_number(L, arg, key, NAN, low, INFINITY); }

static void measure_options(lua_State *L, int arg, const ev_bandit_log *log, ev_ope_options *o) {
  ev_ope_defaults(o);
  o->clip = open_number(L, arg, "clip", 1e-300);
  o->switch_at = open_number(L, arg, "switch_at", 0);
  o->shrink = open_number(L, arg, "shrink", 0);
  o->max_weight = open_number(L, arg, "max_weight", 1e-300);
  o->reward_low = ev_lua_field_number(L, arg, "reward_low", log->reward_low, -1e300, 1e300);
  o->reward_high = ev_lua_field_number(L, arg, "reward_high", log->reward_high, -1e300, 1e300);
  o->confidence = ev_lua_field_number(L, arg, "confidence", o->confidence, 0.5, 0.999999);
  o->n_bootstrap = (unsigned)ev_lua_field_number(L, arg, "bootstrap", o->n_bootstrap, 0, 1000000);
  o->max_unsupported = ev_lua_field_number(L, arg, "max_unsupported", o->max_unsupported, 0, 1);
  o->seed = (uint64_t)ev_lua_field_number(L, arg, "seed", 1, 0, 9007199254740992.0);
  if (log->user != NULL && log->n_users > 1 && log->n_users < log->n) o->cluster = log->user, o->n_clusters = log->n_users;
}

static void push_estimates(lua_State *L, const ev_ope_estimate *at, size_t n, const char *(*name)(size_t)) {
  lua_createtable(L, 0, (int)n);
  for (size_t k = 0; k < n; k++) {
    const ev_ope_estimate *e = &at[k];
    if (isnan(e->value)) continue;
    lua_createtable(L, 0, 9);
    const struct { const char *key; double x; } fields[] = {{"value", e->value}, {"standard_error", e->standard_error}, {"low", e->low}, {"high", e->high},
        {"bernstein_low", e->bernstein_low}, {"bernstein_high", e->bernstein_high}, {"parameter", e->parameter}, {"changed", e->changed}};
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
      if (!isnan(fields[f].x)) set(L, fields[f].key, fields[f].x);
    lua_setfield(L, -2, name(k));
  }
}

static void push_weights(lua_State *L, const ev_ope_weights *w) {
  static const char *const keys[5] = {"p50", "p90", "p95", "p99", "p999"};
  lua_createtable(L, 0, 11);
  set(L, "mean", w->mean);
  set(L, "standard_error", w->standard_error);
  set(L, "max", w->max);
  set(L, "ess", w->ess);
  for (int i = 0; i < 5; i++) set(L, keys[i], w->quantile[i]);
  set(L, "zero", w->zero);
  set(L, "unsupported", w->unsupported);
}

static const char *single_name(size_t k) { return ev_ope_name((ev_ope_kind)k); }
static const char *slate_name(size_t k) { return ev_ope_slate_name((ev_ope_slate_kind)k); }

static int log_measure(lua_State *L) { /* log:measure(policy, q | nil, mrdr_q | nil, options) → estimates, weights */
  const ev_bandit_log *log = log_of(L, 1);
  lmatrix *policy = matrix_of(L, 2, log), *q = lua_isnil(L, 3) ? NULL : matrix_of(L, 3, log), *mrdr = lua_isnil(L, 4) ? NULL : matrix_of(L, 4, log);
  ev_ope_options o;
  measure_options(L, 5, log, &o);
  if (log->slates) return luaL_error(L, "slates are measured by measure_slates");
  ev_ope_log rows = ev_bandit_log_rows(log);
  ev_ope_matrix p = view(policy), of_q = {0}, of_mrdr = {0};
  if (q != NULL) of_q = view(q);
  if (mrdr != NULL) of_mrdr = view(mrdr);
  ev_ope_result r;
  if (q != NULL && q->fit != NULL) EV_CHECK(L, ev_ope_evaluate_fit(&r, &rows, &p, q->fit, mrdr != NULL ? &of_mrdr : NULL, &o));
  else EV_CHECK(L, ev_ope_evaluate(&r, &rows, &p, q != NULL ? &of_q : NULL, mrdr != NULL ? &of_mrdr : NULL, &o));
  push_estimates(L, r.at, EV_OPE_KINDS, single_name);
  push_weights(L, &r.weights);
  return 2;
}

/* Mass of the policy on arms that the log never shows at that place, mean over a row's places. @param[out] out (n) */
static void slate_support(lua_State *L, double *out, const ev_bandit_log *log, const double *policy) {
  uint8_t *shown = ev_lua_scratch(L, log->length * log->n_arms, 1);
  memset(shown, 0, log->length * log->n_arms);
  for (size_t at = 0; at < log->n * log->length; at++)
    if (log->arm[at] != EV_NONE) shown[at % log->length * log->n_arms + log->arm[at]] = 1;
  for (size_t i = 0; i < log->n; i++) {
    size_t l = 0;
    out[i] = 0;
    for (; l < log->length && log->arm[i * log->length + l] != EV_NONE; l++)
      for (size_t a = 0; a < log->n_arms; a++)
        if (!shown[l * log->n_arms + a]) out[i] += policy[(i * log->length + l) * log->n_arms + a];
    out[i] /= (double)l;
  }
}

static int log_measure_slates(lua_State *L) { /* log:measure_slates(policy, model options | nil, options) → estimates, weights of whole, place, prefix */
  const ev_bandit_log *log = log_of(L, 1);
  lmatrix *policy = matrix_of(L, 2, log);
  ev_ope_options o;
  measure_options(L, 4, log, &o);
  if (!log->slates) return luaL_error(L, "a log of single arms is measured by measure");
  luaL_checkstack(L, 20, "slates");
  size_t places = log->n * log->length;
  if (places > DENSE_MAX / log->n_arms)
    return ev_lua_fail(L, ev_fail(EV_ELIMIT, "%zu places of %zu arms: more than %zu numbers", places, log->n_arms, DENSE_MAX));
  const double *whole_policy = policy->at;
  if (whole_policy == NULL) { /* sparse */
    lmatrix *dense = push_matrix(L, 1, places, false);
    for (size_t i = 0; i < places; i++) fill_row(policy, dense->at + i * log->n_arms, i);
    whole_policy = dense->at;
  }
  double *chosen = ev_lua_scratch(L, places, sizeof *chosen), *unsupported = ev_lua_scratch(L, log->n, sizeof *unsupported);
  for (size_t i = 0; i < places; i++) chosen[i] = log->arm[i] != EV_NONE ? whole_policy[i * log->n_arms + log->arm[i]] : 0;
  slate_support(L, unsupported, log, whole_policy);
  ev_ope_slates s = {.n = log->n, .length = log->length, .n_arms = log->n_arms, .arm = log->arm, .reward = log->reward, .propensity = log->propensity,
      .policy = chosen, .unsupported = unsupported};
  if (log->marginal != NULL && policy->marginal != NULL)
    s.marginal = log->marginal, s.policy_marginal = policy->marginal; /* one without the other compares unlike things */
  if (lua_istable(L, 3)) {
    ev_ope_model m;
    model_options(L, 3, &m);
    double *q = ev_lua_scratch(L, places, sizeof *q), *v = ev_lua_scratch(L, places, sizeof *v);
    EV_CHECK(L, ev_ope_slate_regress(q, v, &s, whole_policy, &log->features, &m));
    s.q = q, s.v = v;
  }
  ev_ope_slate_result r;
  EV_CHECK(L, ev_ope_slate_measure(&r, &s, &o));
  push_estimates(L, r.at, EV_OPE_SLATE_KINDS, slate_name);
  push_weights(L, &r.whole);
  push_weights(L, &r.place);
  push_weights(L, &r.prefix);
  return 4;
}

void ev_bind_ope(lua_State *L) {
  static const luaL_Reg log_methods[] = {
      {"__gc", log_close}, {"write", log_write}, {"info", log_info}, {"names", log_names}, {"row", log_row}, {"matrix", log_matrix},
      {"uniform", log_uniform}, {"shares", log_shares}, {"evaluated", log_evaluated}, {"logged", log_logged}, {"regress", log_regress}, {"mrdr", log_mrdr},
      {"measure", log_measure}, {"measure_slates", log_measure_slates}, {NULL, NULL}};
  static const luaL_Reg matrix_methods[] = {{"set", matrix_set}, {"get", matrix_get}, {"__gc", matrix_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"ope_read", log_read}, {"ope_open", log_open}, {"ope_log", log_new}, {NULL, NULL}};
  ev_lua_class(L, EV_OPE_LOG, log_methods);
  lua_pop(L, 1);
  ev_lua_class(L, EV_OPE_MATRIX, matrix_methods);
  lua_pop(L, 1);
  luaL_register(L, NULL, functions);
}
