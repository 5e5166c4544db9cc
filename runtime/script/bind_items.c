/* bind_items.c - a live table of items: what `require "evection.items"` hands out.
 *
 * What goes in or comes out passes through a batch that belongs to the one call (a userdata of its own, so that an error frees
 * it): arguments are copied into it before the table is looked at, and while a reader is open Lua is not called at all, so no
 * finalizer can close the table under it. Features: a text is a token, a number a float, a list of texts a token list, true and
 * false the texts "true" and "false", as where data are imported. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"

#define K_MAX (1 << 20)
#define EV_BATCH "ev.item_batch"

typedef struct litems {
  ev_items *table; /* owned; NULL: closed */
} litems;

static ev_items *check(lua_State *L) {
  litems *x = luaL_checkudata(L, 1, EV_ITEMS);
  if (x->table == NULL) luaL_error(L, "the table is closed");
  return x->table;
}

static size_t n_dims(lua_State *L) {
  const ev_index_options *o = ev_items_index(check(L));
  return o != NULL ? o->n_dims : 0;
}

/* ---- The batch of a call -------------------------------------------------------------------------------*/
typedef struct lbatch {
  ev_item_batch *batch; /* owned */
} lbatch;

static lbatch *push_batch(lua_State *L) {
  lbatch *b = lua_newuserdata(L, sizeof *b);
  b->batch = NULL;
  luaL_getmetatable(L, EV_BATCH);
  lua_setmetatable(L, -2);
  b->batch = ev_item_batch_new();
  if (b->batch == NULL) ev_lua_fail(L, EV_ENOMEM);
  return b;
}

static void drop_batch(lbatch *b) { /* at once: Lua does not know how large it is */
  ev_item_batch_free(b->batch);
  b->batch = NULL;
}

static int batch_close(lua_State *L) {
  drop_batch(luaL_checkudata(L, 1, EV_BATCH));
  return 0;
}

static int batch_fail(lua_State *L, lbatch *b, ev_status status) {
  drop_batch(b);
  return ev_lua_fail(L, status);
}

static void try_batch(lua_State *L, ev_status status) {
  if (status != EV_OK) ev_lua_fail(L, status);
}

/* A text, or a whole number as text, at the top of the stack; the value itself is left as it is. NULL: neither. */
static const char *text_of(lua_State *L, char number[32], size_t *len) {
  if (lua_type(L, -1) == LUA_TSTRING) return lua_tolstring(L, -1, len);
  if (lua_type(L, -1) != LUA_TNUMBER) return NULL;
  double x = lua_tonumber(L, -1);
  if (x != floor(x) || fabs(x) > 9007199254740992.0) return NULL;
  *len = (size_t)snprintf(number, 32, "%.0f", x == 0 ? 0.0 : x);
  return number;
}

static void take_field(lua_State *L, ev_item_batch *b, const char *id, const char *key, size_t key_len) { /* its value lies on top */
  char number[32];
  size_t len;
  int top = lua_gettop(L);
  switch (lua_type(L, top)) {
    case LUA_TNUMBER:
      if (!(fabs(lua_tonumber(L, top)) <= FLT_MAX)) luaL_error(L, "item '%s': %s is %f", id, key, lua_tonumber(L, top));
      try_batch(L, ev_item_batch_field(b, key, key_len, EV_FLOAT, lua_tonumber(L, top)));
      return;
    case LUA_TSTRING:
    case LUA_TBOOLEAN: {
      const char *s = lua_type(L, top) == LUA_TSTRING ? lua_tolstring(L, top, &len) : lua_toboolean(L, top) ? "true" : "false";
      if (lua_type(L, top) == LUA_TBOOLEAN) len = strlen(s);
      try_batch(L, ev_item_batch_field(b, key, key_len, EV_TOKEN, 0));
      try_batch(L, ev_item_batch_token(b, s, len));
      return;
    }
    case LUA_TTABLE: {
      size_t n = lua_objlen(L, top);
      try_batch(L, ev_item_batch_field(b, key, key_len, EV_TOKEN_LIST, 0));
      for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, top, (int)i + 1);
        const char *s = text_of(L, number, &len);
        if (s == NULL) {
          luaL_error(L, "item '%s': %s: text %d of the list is a %s", id, key, (int)i + 1, luaL_typename(L, -1));
          return;
        }
        try_batch(L, ev_item_batch_token(b, s, len));
        lua_pop(L, 1);
      }
      return;
    }
    default: luaL_error(L, "item '%s': %s is a %s; numbers, texts and lists of texts are features", id, key, luaL_typename(L, top));
  }
}

/* The item in the table at `at` → the batch. d: numbers that a vector has. */
static void take_item(lua_State *L, ev_item_batch *b, int at, size_t d) {
  char number[32], id[64];
  size_t len;
  lua_pushliteral(L, "id");
  lua_rawget(L, at);
  const char *s = text_of(L, number, &len);
  if (s == NULL) {
    luaL_error(L, "an item without an id (a text, or a whole number)");
    return;
  }
  snprintf(id, sizeof id, "%.*s", (int)(len < 63 ? len : 63), s);
  try_batch(L, ev_item_batch_add(b, s, len));
  lua_pop(L, 1);
  for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "item '%s': a %s is no name for a feature", id, luaL_typename(L, -2));
    const char *key = lua_tolstring(L, -2, &len);
    if (strcmp(key, "id") == 0) continue;
    if (strcmp(key, "vector") != 0) {
      take_field(L, b, id, key, len);
      continue;
    }
    int64_t n = ev_lua_n_numbers(L, lua_gettop(L));
    float *out;
    if (n < 0) luaL_error(L, "item '%s': the vector is a %s", id, luaL_typename(L, -1));
    if (d == 0) luaL_error(L, "item '%s' has a vector; this table was made without", id);
    if ((size_t)n != d) luaL_error(L, "item '%s': a vector of %d numbers; those of this table have %d", id, (int)n, (int)d);
    try_batch(L, ev_item_batch_vector(b, d, &out));
    ev_lua_numbers(L, lua_gettop(L), id, out, d);
  }
}

/* Ids at `arg`: one, or a list of them. */
static void take_ids(lua_State *L, ev_item_batch *b, int arg) {
  char number[32];
  size_t len, n = lua_istable(L, arg) ? lua_objlen(L, arg) : 1;
  for (size_t i = 0; i < n; i++) {
    if (lua_istable(L, arg)) lua_rawgeti(L, arg, (int)i + 1);
    else lua_pushvalue(L, arg);
    const char *s = text_of(L, number, &len);
    if (s == NULL) {
      luaL_error(L, "id %d is a %s; a text or a whole number is expected", (int)i + 1, luaL_typename(L, -1));
      return;
    }
    try_batch(L, ev_item_batch_add(b, s, len));
    lua_pop(L, 1);
  }
}

/* ---- Opening and closing -------------------------------------------------------------------------------*/
static int items_open(lua_State *L) { /* items(folder, { create =, read_only =, compact_mb =, and of an index kind = … }) */
  const char *folder = luaL_checkstring(L, 1);
  ev_items_options o;
  ev_lua_only(L, 2, "create read_only compact_mb " EV_INDEX_WORDS);
  ev_items_defaults(&o);
  if (!lua_isnoneornil(L, 2)) ev_lua_index_options(L, 2, &o.index);
  o.create = ev_lua_field_bool(L, 2, "create", false);
  o.read_only = ev_lua_field_bool(L, 2, "read_only", false);
  o.compact_bytes = (size_t)(ev_lua_field_number(L, 2, "compact_mb", 0, 0, 1e9) * 1024 * 1024);
  litems *x = lua_newuserdata(L, sizeof *x);
  x->table = NULL;
  luaL_getmetatable(L, EV_ITEMS);
  lua_setmetatable(L, -2);
  EV_CHECK(L, ev_items_open(&x->table, folder, &o));
  return 1;
}

static int items_close(lua_State *L) {
  litems *x = luaL_checkudata(L, 1, EV_ITEMS);
  ev_items_close(x->table);
  x->table = NULL;
  return 0;
}

/* ---- Writing -------------------------------------------------------------------------------------------*/
static int items_put(lua_State *L) { /* items:put{ { id =, vector =, … }, … }, or one item: on disk when it returns */
  size_t d = n_dims(L);
  const ev_item *items;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lbatch *b = push_batch(L);
  lua_pushliteral(L, "id");
  lua_rawget(L, 2);
  bool one = !lua_isnil(L, -1);
  lua_pop(L, 1);
  if (one) take_item(L, b->batch, 2, d);
  for (size_t i = 0, n = one ? 0 : lua_objlen(L, 2); i < n; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    if (!lua_istable(L, -1)) return luaL_error(L, "item %d is a %s", (int)i + 1, luaL_typename(L, -1));
    take_item(L, b->batch, lua_gettop(L), d);
    lua_pop(L, 1);
  }
  ev_items *t = check(L);
  ev_status status = ev_item_batch_get(b->batch, d, &items);
  if (status == EV_OK && ev_item_batch_n(b->batch) > 0) status = ev_items_put(t, items, ev_item_batch_n(b->batch));
  if (status != EV_OK) return batch_fail(L, b, status);
  drop_batch(b);
  return 0;
}

static int items_delete(lua_State *L) { /* items:delete(id) or items:delete{ id, … }: all or none */
  check(L);
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  lbatch *b = push_batch(L);
  const ev_item *items;
  take_ids(L, b->batch, 2);
  size_t n = ev_item_batch_n(b->batch);
  const char **ids = ev_lua_scratch(L, n, sizeof *ids);
  ev_items *t = check(L);
  ev_status status = ev_item_batch_get(b->batch, 0, &items);
  for (size_t i = 0; i < n && status == EV_OK; i++) ids[i] = items[i].id;
  if (status == EV_OK && n > 0) status = ev_items_delete(t, ids, n);
  if (status != EV_OK) return batch_fail(L, b, status);
  drop_batch(b);
  return 0;
}

/* ---- Reading -------------------------------------------------------------------------------------------*/
/* A row's id, vector and features → the batch. Lua is not called. */
static ev_status read_row(ev_item_batch *b, const ev_items_reader *r, uint32_t row, size_t d) {
  size_t len;
  const char *id = ev_items_id(r, row, &len);
  float *vector;
  EV_TRY(ev_item_batch_add(b, id, len));
  if (d > 0) {
    EV_TRY(ev_item_batch_vector(b, d, &vector));
    ev_status status = ev_items_vector(r, row, vector);
    if (status == EV_ENOTFOUND) { /* begun anew, without one */
      ev_item_batch_drop(b);
      status = ev_item_batch_add(b, id, len);
    }
    EV_TRY(status);
  }
  for (size_t i = 0; i < ev_items_n_columns(r); i++) {
    const ev_column *c = ev_items_column_at(r, i);
    const uint32_t *codes = NULL;
    if (c->type == EV_FLOAT && row < c->n_rows && !isnan(c->values[row]))
      EV_TRY(ev_item_batch_field(b, c->name, strlen(c->name), EV_FLOAT, ev_float_decimal(c->values[row])));
    size_t n = c->type != EV_FLOAT ? ev_column_tokens(c, row, &codes) : 0;
    if (n > 0) EV_TRY(ev_item_batch_field(b, c->name, strlen(c->name), c->type, 0));
    for (size_t k = 0; k < n; k++) {
      const char *s = ev_column_token(c, codes[k], &len);
      EV_TRY(ev_item_batch_token(b, s, len));
    }
  }
  return EV_OK;
}

static void push_item(lua_State *L, const ev_item *item, size_t d) {
  lua_createtable(L, 0, (int)item->n_fields + 2);
  for (size_t i = 0; i < item->n_fields; i++) {
    const ev_field *f = &item->fields[i];
    if (f->type == EV_FLOAT) lua_pushnumber(L, f->number);
    else if (f->type == EV_TOKEN) lua_pushstring(L, f->tokens[0]);
    else {
      lua_createtable(L, (int)f->n_tokens, 0);
      for (size_t k = 0; k < f->n_tokens; k++) {
        lua_pushstring(L, f->tokens[k]);
        lua_rawseti(L, -2, (int)k + 1);
      }
    }
    lua_setfield(L, -2, f->name);
  }
  if (item->vector != NULL) {
    memcpy(ev_lua_new_vector(L, d), item->vector, d * sizeof(float));
    lua_setfield(L, -2, "vector");
  }
  lua_pushstring(L, item->id);
  lua_setfield(L, -2, "id");
}

static int items_get(lua_State *L) { /* items:get(id) → { id =, vector =, … }, or nil */
  size_t d = n_dims(L);
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  lbatch *asked = push_batch(L), *b = push_batch(L);
  const ev_item *items;
  ev_items_reader r;
  luaL_argcheck(L, !lua_istable(L, 2), 2, "an id is expected");
  take_ids(L, asked->batch, 2);
  ev_items *t = check(L);
  EV_CHECK(L, ev_item_batch_get(asked->batch, 0, &items));
  ev_items_begin(&r, t);
  uint32_t row = ev_items_find(&r, items[0].id, strlen(items[0].id));
  ev_status status = row != EV_NONE ? read_row(b->batch, &r, row, d) : EV_OK;
  ev_items_end(&r);
  if (status == EV_OK) status = ev_item_batch_get(b->batch, d, &items);
  if (status != EV_OK) return batch_fail(L, b, status);
  if (row == EV_NONE) lua_pushnil(L);
  else push_item(L, items, d);
  drop_batch(b);
  return 1;
}

static int items_has(lua_State *L) {
  luaL_checkany(L, 2);
  luaL_argcheck(L, !lua_istable(L, 2), 2, "an id is expected");
  lua_settop(L, 2);
  lbatch *b = push_batch(L);
  const ev_item *items;
  ev_items_reader r;
  take_ids(L, b->batch, 2);
  ev_items *t = check(L);
  EV_CHECK(L, ev_item_batch_get(b->batch, 0, &items));
  ev_items_begin(&r, t);
  bool there = ev_items_find(&r, items[0].id, strlen(items[0].id)) != EV_NONE;
  ev_items_end(&r);
  drop_batch(b);
  lua_pushboolean(L, there);
  return 1;
}

static int items_ids(lua_State *L) { /* items:ids() → every id there is, in the order of rows */
  check(L);
  lbatch *b = push_batch(L);
  const ev_item *items;
  ev_items_reader r;
  ev_status status = EV_OK;
  ev_items_begin(&r, check(L));
  for (uint32_t row = ev_items_next(&r, 0); row != EV_NONE && status == EV_OK; row = ev_items_next(&r, row + 1)) {
    size_t len;
    const char *id = ev_items_id(&r, row, &len);
    status = ev_item_batch_add(b->batch, id, len);
  }
  ev_items_end(&r);
  if (status == EV_OK) status = ev_item_batch_get(b->batch, 0, &items);
  if (status != EV_OK) return batch_fail(L, b, status);
  size_t n = ev_item_batch_n(b->batch);
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushstring(L, items[i].id);
    lua_rawseti(L, -2, (int)i + 1);
  }
  drop_batch(b);
  return 1;
}

static int by_row(const void *a, const void *b) { return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b); }

/* What a search is asked for, in memory that stands on the stack. */
typedef struct question {
  float *q;            /* (d) */
  const ev_item *ids;  /* those left out; like: the first of them is searched for */
  size_t n_ids, d;
  bool like;
  const char *where;
  ev_search s;
  uint32_t *rows, *seen;
  float *scores;
} question;

/* Inside a reader: Lua is not called. Ids of what is found → the batch. */
static ev_status answer(const ev_items_reader *r, question *x, ev_item_batch *found) {
  size_t n_seen = 0, len;
  for (size_t i = 0; i < x->n_ids; i++) {
    uint32_t row = ev_items_find(r, x->ids[i].id, strlen(x->ids[i].id));
    if (i == 0 && x->like && row == EV_NONE) return ev_fail(EV_ENOTFOUND, "no item '%.80s'", x->ids[0].id);
    if (i == 0 && x->like && ev_items_vector(r, row, x->q) != EV_OK) return ev_fail(EV_EINVAL, "item '%.80s' has no vector", x->ids[0].id);
    if (row != EV_NONE) x->seen[n_seen++] = row;
  }
  qsort(x->seen, n_seen, sizeof *x->seen, by_row);
  uint64_t ptr[2] = {0, 0};
  for (size_t i = 0; i < n_seen; i++)
    if (i == 0 || x->seen[i] != x->seen[i - 1]) x->seen[ptr[1]++] = x->seen[i];
  x->s.seen_ptr = ptr;
  x->s.seen = x->seen;
  EV_TRY(ev_items_search(r, x->q, 1, &x->s, x->where, x->rows, x->scores));
  for (size_t i = 0; i < x->s.k && x->rows[i] != EV_NONE; i++) {
    const char *id = ev_items_id(r, x->rows[i], &len);
    EV_TRY(ev_item_batch_add(found, id, len));
  }
  return EV_OK;
}

static int items_search(lua_State *L) { /* items:search(vector | id, k, { where =, exclude = { id, … }, effort = }) → { { id =, score = }, … } */
  question x = {.d = n_dims(L)};
  ev_items_reader r;
  lua_settop(L, 4);
  if (x.d == 0) return luaL_error(L, "this table was made without vectors");
  ev_lua_only(L, 4, "where exclude effort");
  x.s.k = (size_t)ev_lua_integer(L, 3, 1, K_MAX);
  double effort = ev_lua_field_number(L, 4, "effort", 0, 0, 1e6);
  if (effort != floor(effort)) return luaL_error(L, "effort: %f is not a whole number", effort);
  x.s.effort = (unsigned)effort;
  lbatch *left_out = push_batch(L), *found = push_batch(L);
  x.q = ev_lua_scratch(L, x.d, sizeof *x.q);
  int64_t n = ev_lua_n_numbers(L, 2);
  x.like = n < 0;
  if (x.like) take_ids(L, left_out->batch, 2);
  else if ((size_t)n != x.d) return luaL_error(L, "a vector of %d numbers; those of this table have %d", (int)n, (int)x.d);
  else ev_lua_numbers(L, 2, "the vector", x.q, x.d);
  if (!lua_isnil(L, 4)) {
    lua_getfield(L, 4, "exclude");
    if (!lua_isnil(L, -1)) take_ids(L, left_out->batch, lua_gettop(L));
    lua_getfield(L, 4, "where"); /* both stay on the stack */
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING) return luaL_error(L, "where: expected text, got %s", luaL_typename(L, -1));
    if (!lua_isnil(L, -1) && strlen(lua_tostring(L, -1)) != lua_objlen(L, -1)) return luaL_error(L, "where: text with a NUL character");
    x.where = lua_tostring(L, -1);
  }
  x.n_ids = ev_item_batch_n(left_out->batch);
  x.rows = ev_lua_scratch(L, x.s.k, sizeof *x.rows);
  x.scores = ev_lua_scratch(L, x.s.k, sizeof *x.scores);
  x.seen = ev_lua_scratch(L, x.n_ids, sizeof *x.seen);
  ev_items *t = check(L);
  EV_CHECK(L, ev_item_batch_get(left_out->batch, 0, &x.ids));
  ev_items_begin(&r, t);
  ev_status status = answer(&r, &x, found->batch);
  ev_items_end(&r);
  drop_batch(left_out);
  const ev_item *items;
  if (status == EV_OK) status = ev_item_batch_get(found->batch, 0, &items);
  if (status != EV_OK) return batch_fail(L, found, status);
  size_t hits = ev_item_batch_n(found->batch);
  lua_createtable(L, (int)hits, 0);
  for (size_t i = 0; i < hits; i++) {
    lua_createtable(L, 0, 2);
    lua_pushstring(L, items[i].id);
    lua_setfield(L, -2, "id");
    lua_pushnumber(L, x.scores[i]);
    lua_setfield(L, -2, "score");
    lua_rawseti(L, -2, (int)i + 1);
  }
  drop_batch(found);
  return 1;
}

/* ---- The table itself ----------------------------------------------------------------------------------*/
static int items_compact(lua_State *L) {
  EV_CHECK(L, ev_items_compact(check(L)));
  return 0;
}

static int items_verify(lua_State *L) {
  EV_CHECK(L, ev_items_verify(check(L)));
  return 0;
}

static int items_size(lua_State *L) {
  ev_items_stats st;
  ev_items_stat(check(L), &st);
  lua_pushnumber(L, (double)st.n_items);
  return 1;
}

static int items_stats(lua_State *L) {
  ev_items *t = check(L);
  ev_items_stats st;
  ev_items_stat(t, &st);
  const ev_index_options *have = ev_items_index(t);
  static const char *const names[] = {"kind", "metric", "form"};
  char texts[3][16] = {"", "", ""}; /* copies: from here on a finalizer may close the table */
  if (have != NULL) {
    snprintf(texts[0], sizeof texts[0], "%s", have->kind);
    snprintf(texts[1], sizeof texts[1], "%s", have->metric);
    snprintf(texts[2], sizeof texts[2], "%s", have->form);
  }
  const struct { const char *name; double value; } numbers[] = {
      {"n_items", (double)st.n_items}, {"n_vectors", (double)st.n_vectors}, {"n_dims", (double)st.n_dims}, {"n_rows", (double)st.n_rows},
      {"n_columns", (double)st.n_columns}, {"memory_bytes", (double)st.memory_bytes}, {"log_bytes", (double)st.log_bytes},
      {"snapshot_bytes", (double)st.snapshot_bytes}, {"generation", (double)st.generation}, {"n_commits", (double)st.n_commits},
      {"n_syncs", (double)st.n_syncs}, {"cut_bytes", (double)st.cut_bytes}, {"open_ms", st.open_ms}};
  lua_createtable(L, 0, 18);
  for (size_t i = 0; i < 3; i++) {
    if (*texts[i] == '\0') continue;
    lua_pushstring(L, texts[i]);
    lua_setfield(L, -2, names[i]);
  }
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    lua_pushnumber(L, numbers[i].value);
    lua_setfield(L, -2, numbers[i].name);
  }
  lua_pushboolean(L, st.compacting);
  lua_setfield(L, -2, "compacting");
  return 1;
}

static int items_text(lua_State *L) {
  litems *x = luaL_checkudata(L, 1, EV_ITEMS);
  if (x->table == NULL) {
    lua_pushliteral(L, "items(closed)");
    return 1;
  }
  ev_items_stats st;
  ev_items_stat(x->table, &st);
  lua_pushfstring(L, "items(%d, %d with a vector)", (int)st.n_items, (int)st.n_vectors);
  return 1;
}

void ev_bind_items(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"put", items_put}, {"get", items_get}, {"has", items_has}, {"ids", items_ids}, {"delete", items_delete}, {"search", items_search}, {"stats", items_stats},
      {"compact", items_compact}, {"verify", items_verify}, {"close", items_close}, {"__len", items_size}, {"__gc", items_close},
      {"__tostring", items_text}, {NULL, NULL}};
  static const luaL_Reg batch_meta[] = {{"__gc", batch_close}, {NULL, NULL}};
  ev_lua_class(L, EV_ITEMS, methods);
  ev_lua_class(L, EV_BATCH, batch_meta);
  lua_pop(L, 2);
  lua_pushcfunction(L, items_open);
  lua_setfield(L, -2, "items");
}
