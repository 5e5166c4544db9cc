/* bind_model.c - requests and models.
 *
 * A request object holds one asker or a whole batch of them. model:recall answers the batch in one go the first
 * time it sees it and gives the later rows from memory, so an agent's act, written for one request, runs at the
 * speed of the batched kernels in an evaluation and unchanged when it serves. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"

#define RECALL_MAX 65536

ev_lrequest *ev_lua_request(lua_State *L, int arg) { return luaL_checkudata(L, arg, EV_REQUEST); }
ev_lmodel *ev_lua_model(lua_State *L, int arg) {
  ev_lmodel *h = luaL_checkudata(L, arg, EV_MODEL);
  if (h->model == NULL) luaL_error(L, "the model was discarded");
  return h;
}

ev_requests ev_lua_one(const ev_lrequest *q) {
  ev_requests r = q->batch.r;
  r.n = 1;
  r.user += q->row;
  r.history_ptr += q->row;
  if (r.seen_ptr != NULL) r.seen_ptr += q->row;
  return r;
}

/* ---- Requests ------------------------------------------------------------------------------------------*/
static void batch_free(ev_lbatch *b) {
  ev_free(b->user);
  ev_free(b->history);
  ev_free(b->seen);
  ev_free(b->history_ptr);
  ev_free(b->seen_ptr);
  *b = (ev_lbatch){0};
}

uint64_t ev_lua_batch_serial(void) {
  static uint64_t serials;
  return ++serials;
}

static ev_status batch_alloc(ev_lbatch *b, size_t n, size_t n_history, size_t n_seen) {
  b->user = ev_alloc(n, sizeof *b->user);
  b->history_ptr = ev_zalloc(n + 1, sizeof *b->history_ptr);
  b->seen_ptr = ev_zalloc(n + 1, sizeof *b->seen_ptr);
  b->history = ev_alloc(n_history, sizeof *b->history);
  b->seen = ev_alloc(n_seen, sizeof *b->seen);
  if (b->user == NULL || b->history_ptr == NULL || b->seen_ptr == NULL || b->history == NULL || b->seen == NULL) return EV_ENOMEM;
  b->serial = ev_lua_batch_serial();
  b->r = (ev_requests){n, b->user, b->history_ptr, b->history, b->seen_ptr, b->seen};
  return EV_OK;
}

ev_lrequest *ev_lua_new_request(lua_State *L) {
  ev_lrequest *q = lua_newuserdata(L, sizeof *q);
  *q = (ev_lrequest){.n = 100};
  luaL_getmetatable(L, EV_REQUEST);
  lua_setmetatable(L, -2);
  return q;
}

/* requests(data, {users}) → the askers with their histories in the view; what they saw there is left out. */
static int requests_of(lua_State *L) {
  ev_ldata *d = ev_lua_data(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  const ev_csr *m = &d->view->by_user;
  size_t n = lua_objlen(L, 2), total = 0;
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    size_t u = (size_t)ev_lua_integer(L, lua_gettop(L), 0, (int64_t)m->n_rows - 1);
    total += m->ptr[u + 1] - m->ptr[u];
    lua_pop(L, 1);
  }
  ev_lrequest *q = ev_lua_new_request(L);
  ev_lbatch *b = &q->batch;
  b->n_users = m->n_rows;
  b->n_items = m->n_cols;
  EV_CHECK(L, batch_alloc(b, n, total, total));
  size_t at = 0;
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    size_t u = (size_t)lua_tonumber(L, -1), len = m->ptr[u + 1] - m->ptr[u];
    lua_pop(L, 1);
    b->user[i] = (uint32_t)u;
    memcpy(b->history + at, m->idx + m->ptr[u], len * sizeof *b->history);
    memcpy(b->seen + at, d->view->seen + m->ptr[u], len * sizeof *b->seen);
    at += len;
    b->history_ptr[i + 1] = b->seen_ptr[i + 1] = at;
  }
  return 1;
}

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static size_t copy_items(lua_State *L, int table, uint32_t *out, size_t n, size_t n_items) {
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, table, (int)i + 1);
    out[i] = (uint32_t)ev_lua_integer(L, lua_gettop(L), 0, (int64_t)n_items - 1);
    lua_pop(L, 1);
  }
  return n;
}

/* request(snapshot, user | nil, {history}, {seen}) → one asker */
static int request_of(lua_State *L) {
  ev_snapshot *s = ev_lua_snapshot(L, 1);
  luaL_checktype(L, 3, LUA_TTABLE);
  luaL_checktype(L, 4, LUA_TTABLE);
  size_t n_users = ev_snapshot_n_users(s), n_items = ev_snapshot_n_items(s);
  uint32_t user = lua_isnil(L, 2) ? EV_NONE : (uint32_t)ev_lua_integer(L, 2, 0, (int64_t)n_users - 1);
  size_t n_history = lua_objlen(L, 3), n_seen = lua_objlen(L, 4);
  ev_lrequest *q = ev_lua_new_request(L);
  ev_lbatch *b = &q->batch;
  b->n_users = n_users;
  b->n_items = n_items;
  EV_CHECK(L, batch_alloc(b, 1, n_history, n_seen));
  b->user[0] = user;
  b->history_ptr[1] = copy_items(L, 3, b->history, n_history, n_items);
  b->seen_ptr[1] = copy_items(L, 4, b->seen, n_seen, n_items);
  qsort(b->seen, n_seen, sizeof *b->seen, by_number);
  return 1;
}

static int request_close(lua_State *L) {
  batch_free(&ev_lua_request(L, 1)->batch);
  return 0;
}

static int request_select(lua_State *L) { /* trusted: which row of the batch is asked for */
  ev_lrequest *q = ev_lua_request(L, 1);
  q->row = (size_t)ev_lua_integer(L, 2, 1, (int64_t)q->batch.r.n) - 1;
  return 0;
}

static int request_set_n(lua_State *L) { /* trusted: how many candidates the node wants */
  ev_lua_request(L, 1)->n = (uint32_t)ev_lua_integer(L, 2, 1, RECALL_MAX);
  return 0;
}

static int request_history(lua_State *L) { /* request:history() → items, oldest first */
  ev_requests r = ev_lua_one(ev_lua_request(L, 1));
  size_t n = r.history_ptr[1] - r.history_ptr[0];
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, r.history[r.history_ptr[0] + i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int request_size(lua_State *L) {
  lua_pushnumber(L, (double)ev_lua_request(L, 1)->batch.r.n);
  return 1;
}

static int request_top(lua_State *L) { /* request:top(v, slate[, n]): the unseen items with the n largest v, appended */
  ev_lrequest *q = ev_lua_request(L, 1);
  size_t n_items;
  ev_lua_vector(L, 2, &n_items);
  ev_slate *s = ev_lua_slate(L, 3);
  size_t k = lua_isnoneornil(L, 4) ? q->n : (size_t)ev_lua_integer(L, 4, 1, RECALL_MAX);
  if (n_items != q->batch.n_items) return luaL_error(L, "top: %f scores for %f items", (double)n_items, (double)q->batch.n_items);
  if (k > n_items) k = n_items;
  if (k == 0) return 0;
  float *scores = ev_lua_new_vector(L, n_items + k), *best = scores + n_items; /* one block: the best scores behind */
  memcpy(scores, ev_lua_vector(L, 2, &n_items), n_items * sizeof *scores);
  ev_requests r = ev_lua_one(q);
  for (uint64_t i = r.seen_ptr[0]; i < r.seen_ptr[1]; i++) scores[r.seen[i]] = -INFINITY;
  uint32_t *ids = lua_newuserdata(L, k * sizeof *ids);
  size_t found = ev_topk(ids, best, scores, n_items, k);
  EV_CHECK(L, ev_slate_append(s, ids, best, found, 0));
  return 0;
}

static int request_index(lua_State *L) { /* request.user (nil for a stranger), request.n, request.n_history */
  ev_lrequest *q = ev_lua_request(L, 1);
  const char *key = luaL_checkstring(L, 2);
  ev_requests r = ev_lua_one(q);
  if (strcmp(key, "user") == 0) {
    if (r.user[0] == EV_NONE) lua_pushnil(L);
    else lua_pushnumber(L, r.user[0]);
  } else if (strcmp(key, "n") == 0) {
    lua_pushnumber(L, q->n);
  } else if (strcmp(key, "n_history") == 0) {
    lua_pushnumber(L, (double)(r.history_ptr[1] - r.history_ptr[0]));
  } else if (strcmp(key, "history") == 0) {
    lua_pushcfunction(L, request_history);
  } else if (strcmp(key, "top") == 0) {
    lua_pushcfunction(L, request_top);
  } else if (strcmp(key, "arrivals") == 0) {
    lua_pushcfunction(L, ev_lua_request_arrivals);
  } else {
    lua_pushnil(L);
  }
  return 1;
}

/* ---- Models --------------------------------------------------------------------------------------------*/
void ev_lua_push_model(lua_State *L, ev_model *m) {
  ev_lmodel *h = lua_newuserdata(L, sizeof *h); /* a full Lua heap would leak m; the process is then at its end */
  *h = (ev_lmodel){.model = m};
  luaL_getmetatable(L, EV_MODEL);
  lua_setmetatable(L, -2);
}

static int model_open(lua_State *L) {
  ev_model *m;
  EV_CHECK(L, ev_model_open(&m, luaL_checkstring(L, 1)));
  ev_lua_push_model(L, m);
  return 1;
}

static int model_close(lua_State *L) {
  ev_lmodel *h = luaL_checkudata(L, 1, EV_MODEL);
  ev_model_close(h->model);
  ev_free(h->ids);
  ev_free(h->scores);
  *h = (ev_lmodel){0};
  return 0;
}

static int model_kind(lua_State *L) {
  lua_pushstring(L, ev_model_kind(ev_lua_model(L, 1)->model));
  return 1;
}

static int model_path(lua_State *L) { /* trusted */
  lua_pushstring(L, ev_pack_path(ev_model_pack(ev_lua_model(L, 1)->model)));
  return 1;
}

static ev_status fits_snapshot(const ev_lmodel *h, const ev_lrequest *q) {
  if (ev_model_n_items(h->model) == q->batch.n_items) return EV_OK;
  return ev_fail(EV_EINVAL, "the model knows %zu items, the data %zu", ev_model_n_items(h->model), q->batch.n_items);
}

static int model_recall(lua_State *L) { /* model:recall(request, slate[, n[, effort]]): the n best, appended; effort of a model with an index */
  ev_lmodel *h = ev_lua_model(L, 1);
  ev_lrequest *q = ev_lua_request(L, 2);
  ev_slate *s = ev_lua_slate(L, 3);
  size_t k = lua_isnoneornil(L, 4) ? q->n : (size_t)ev_lua_integer(L, 4, 1, RECALL_MAX);
  unsigned effort = lua_isnoneornil(L, 5) ? 0 : (unsigned)ev_lua_integer(L, 5, 0, 1000000);
  EV_CHECK(L, fits_snapshot(h, q));
  if (k > q->batch.n_items) k = q->batch.n_items;
  if (h->serial != q->batch.serial || h->k < k || h->effort != effort) {
    size_t n = q->batch.r.n;
    h->serial = 0;
    if (h->rows * h->k < n * k || h->ids == NULL) {
      ev_free(h->ids);
      ev_free(h->scores);
      h->rows = h->k = 0; /* nothing is kept, should there be no room for the new answers */
      h->ids = ev_alloc(n * k, sizeof *h->ids);
      h->scores = ev_alloc(n * k, sizeof *h->scores);
      if (h->ids == NULL || h->scores == NULL) return ev_lua_fail(L, EV_ENOMEM);
    }
    h->rows = n;
    h->k = k;
    h->effort = effort;
    EV_CHECK(L, ev_model_search(h->model, &q->batch.r, k, effort, h->ids, h->scores));
    h->serial = q->batch.serial;
  }
  EV_CHECK(L, ev_slate_append(s, h->ids + q->row * h->k, h->scores + q->row * h->k, k, 0));
  return 0;
}

static int model_score(lua_State *L) { /* model:score(request, slate) → vector, one score a candidate; 0 where the model does not know the item */
  ev_lmodel *h = ev_lua_model(L, 1);
  ev_lrequest *q = ev_lua_request(L, 2);
  ev_slate *s = ev_lua_slate(L, 3);
  EV_CHECK(L, fits_snapshot(h, q));
  size_t n = ev_slate_n(s), known = 0, n_items = ev_model_n_items(h->model);
  const uint32_t *items = ev_slate_items(s);
  float *out = ev_lua_new_vector(L, n);
  ev_requests one = ev_lua_one(q);
  while (known < n && items[known] < n_items) known++;
  if (known == n) {
    EV_CHECK(L, ev_model_score(h->model, &one, items, n, out));
    return 1;
  }
  uint32_t *ids = ev_lua_scratch(L, n, sizeof *ids); /* there are arrivals among them */
  known = 0;
  for (size_t i = 0; i < n; i++)
    if (items[i] < n_items) ids[known++] = items[i];
  if (known > 0) EV_CHECK(L, ev_model_score(h->model, &one, ids, known, out));
  for (size_t i = n; i-- > 0;) out[i] = items[i] < n_items ? out[--known] : 0;
  lua_pop(L, 1);
  return 1;
}

static int model_item_scores(lua_State *L) { /* kind item_scores: its vector, one score an item */
  ev_lmodel *h = ev_lua_model(L, 1);
  ev_array a;
  if (strcmp(ev_model_kind(h->model), "item_scores") != 0) return luaL_error(L, "a model of kind %s has no scores of its own", ev_model_kind(h->model));
  EV_CHECK(L, ev_pack_get(ev_model_pack(h->model), "scores", EV_F32, &a));
  memcpy(ev_lua_new_vector(L, a.rows), a.data, a.rows * sizeof(float));
  return 1;
}

static int model_rank(lua_State *L) { /* ranker: model:rank(request, slate, data): slate.score = logit */
  ev_lmodel *h = ev_lua_model(L, 1);
  ev_lrequest *q = ev_lua_request(L, 2);
  ev_slate *s = ev_lua_slate(L, 3);
  ev_ldata *d = ev_lua_data(L, 4);
  EV_CHECK(L, ev_ranker_score(h->model, d->view->snapshot, s, ev_lua_one(q).user[0], ev_slate_scores(s)));
  return 0;
}

void ev_bind_model(lua_State *L) {
  static const luaL_Reg request_methods[] = {{"__index", request_index}, {"__len", request_size}, {"__gc", request_close}, {NULL, NULL}};
  static const luaL_Reg model_methods[] = {
      {"kind", model_kind}, {"recall", model_recall}, {"score", model_score}, {"rank", model_rank}, {"item_scores", model_item_scores}, {"__gc", model_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"requests", requests_of}, {"request", request_of}, {"request_select", request_select},
                                       {"request_set_n", request_set_n}, {"model", model_open}, {"model_path", model_path}, {NULL, NULL}};
  ev_lua_class(L, EV_REQUEST, request_methods);
  ev_lua_class(L, EV_MODEL, model_methods);
  lua_pop(L, 2);
  luaL_register(L, NULL, functions);
}
