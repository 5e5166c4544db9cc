/* asks.c - one request: from plain memory through the nodes of a composition to plain memory.
 *
 * No table and no text is made on the way: one request object is filled again for every ask, each node's act is called by a reference,
 * and the answer is read from the columns of the output's slate. What a node does to its slate is nobody's word but its own, so the
 * answer is checked as if it came from outside.
 *
 * What was asked may lie in memory that another process changes meanwhile: each element is read once, and no length is taken twice. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "asks.h"

#define RESERVE 0.1      /* of the time is kept for what comes after the nodes */
#define FULL 0.5         /* of the Lua heap's cap: LuaJIT does not collect when memory runs out, so it is done before */
#define LESSONS_MAX 256  /* that a script gets at a time */
#define DEFAULT_RECALL 100 /* candidates, where the composition does not say; as in runner.lua */
#define ONCE(x) (*(const volatile __typeof__(x) *)&(x)) /* read, and not again */

/* ---- Life ----------------------------------------------------------------------------------------------*/
void ev_asks_release(ev_asks *a) {
  if (a == NULL) return;
  lua_State *L = a->host->L;
  for (size_t i = 0; i < a->n_nodes; i++) {
    luaL_unref(L, LUA_REGISTRYINDEX, a->nodes[i].act);
    luaL_unref(L, LUA_REGISTRYINDEX, a->nodes[i].model);
    luaL_unref(L, LUA_REGISTRYINDEX, a->nodes[i].ctx);
    luaL_unref(L, LUA_REGISTRYINDEX, a->nodes[i].slate);
  }
  luaL_unref(L, LUA_REGISTRYINDEX, a->learn);
  luaL_unref(L, LUA_REGISTRYINDEX, a->keep);
  luaL_unref(L, LUA_REGISTRYINDEX, a->request_ref);
  luaL_unref(L, LUA_REGISTRYINDEX, a->self);
}

/* ---- The request ---------------------------------------------------------------------------------------*/
static ev_status room(uint32_t **array, size_t *cap, size_t n) {
  if (*array != NULL && n <= *cap) return EV_OK;
  size_t size = n < 256 ? 256 : n + n / 2;
  uint32_t *more = ev_alloc(size, sizeof *more);
  if (more == NULL) return EV_ENOMEM;
  ev_free(*array); /* what was in it is of the request before */
  *array = more;
  *cap = size;
  return EV_OK;
}

/* seen and barred, ascending, of the snapshot's items only: what recalls leave out. */
static ev_status fill_seen(ev_asks *a, const ev_ask *ask) {
  ev_lbatch *b = &a->request->batch;
  EV_TRY(room(&b->seen, &a->seen_cap, ask->barred != NULL ? a->n_items : ask->n_seen));
  size_t n = 0, at = 0, n_words = ask->barred != NULL ? (a->n_items + 63) / 64 : 0;
  uint32_t next = 0; /* the lowest item that may come */
  for (size_t w = 0; w <= n_words; w++) {
    uint64_t bits = w < n_words ? ONCE(ask->barred[w]) : 0;
    if (w + 1 == n_words && a->n_items % 64 != 0) bits &= (UINT64_C(1) << a->n_items % 64) - 1;
    for (;;) { /* up to each bit, and once more for what lies behind them; an item that is both comes once */
      uint32_t bit = bits != 0 ? (uint32_t)(64 * w) + (uint32_t)__builtin_ctzll(bits) : EV_NONE;
      bool last = bit == EV_NONE;
      if (last && w < n_words) break;
      for (; at < ask->n_seen; at++) {
        uint32_t item = ONCE(ask->seen[at]);
        if (item >= bit || item >= a->n_items) break;
        if (item + 1 == next) continue; /* barred, too */
        if (item < next) return ev_fail(EV_EINVAL, "seen: item %u at place %zu is not in ascending order", item, at);
        b->seen[n++] = item;
        next = item + 1;
      }
      if (last) break;
      b->seen[n++] = bit;
      next = bit + 1;
      bits &= bits - 1;
    }
  }
  b->seen_ptr[1] = n;
  return EV_OK;
}

/* Those that are not seen. */
static ev_status fill_arrivals(ev_asks *a, const ev_ask *ask) {
  if (ask->n_arrivals > EV_ARRIVALS_MAX) return ev_fail(EV_EINVAL, "%zu arrivals: at most %d", ask->n_arrivals, EV_ARRIVALS_MAX);
  size_t n = 0, first = ask->n_seen; /* of the seen ones that the snapshot has not: they come last */
  while (ask->n_arrivals > 0 && first > 0 && ONCE(ask->seen[first - 1]) >= a->n_items) first--;
  for (size_t i = 0; i < ask->n_arrivals; i++) {
    ev_arrival x = {ONCE(ask->arrivals[i].item), ONCE(ask->arrivals[i].age_s)};
    bool seen = x.item < a->n_items || x.item == EV_NONE || !(x.age_s >= 0);
    size_t low = first, high = ask->n_seen;
    while (low < high && !seen) {
      size_t middle = low + (high - low) / 2;
      uint32_t item = ONCE(ask->seen[middle]);
      seen = item == x.item;
      if (item < x.item) low = middle + 1;
      else high = middle;
    }
    if (!seen) a->arrivals[n++] = x;
  }
  a->request->arrivals = a->arrivals;
  a->request->n_arrivals = n;
  return EV_OK;
}

static ev_status fill(ev_asks *a, const ev_ask *ask) {
  ev_lbatch *b = &a->request->batch;
  EV_TRY(room(&b->history, &a->history_cap, ask->n_history));
  size_t n = 0;
  for (size_t i = 0; i < ask->n_history; i++) {
    uint32_t item = ONCE(ask->history[i]);
    if (item < a->n_items) b->history[n++] = item;
  }
  b->history_ptr[1] = n;
  EV_TRY(fill_seen(a, ask));
  EV_TRY(fill_arrivals(a, ask));
  b->user[0] = ask->user < a->n_users ? ask->user : EV_NONE;
  b->r = (ev_requests){1, b->user, b->history_ptr, b->history, b->seen_ptr, b->seen};
  b->serial = ev_lua_batch_serial();
  a->request->row = 0;
  return EV_OK;
}

/* ---- The answer ----------------------------------------------------------------------------------------*/
static bool is_seen(const ev_lbatch *b, uint32_t item) {
  const uint32_t *at = b->seen;
  size_t n = b->seen_ptr[1];
  if (n == 0) return false;
  for (; n > 1; n -= n / 2) at += at[n / 2 - 1] < item ? n / 2 : 0;
  return *at == item;
}

static bool is_taken(ev_asks *a, uint32_t item) { /* and takes it */
  size_t at = (item * 2654435761u) >> 21;
  while (a->taken[at].turn == a->turn) {
    if (a->taken[at].item == item) return true;
    at = (at + 1) % EV_ASKS_TAKEN;
  }
  a->taken[at].item = item;
  a->taken[at].turn = a->turn;
  return false;
}

static bool is_arrival(const ev_asks *a, uint32_t item) {
  for (size_t i = 0; i < a->request->n_arrivals; i++)
    if (a->arrivals[i].item == item) return true;
  return false;
}

/* What is wrong with a row, or NULL. */
static const char *fault(ev_asks *a, uint32_t item, float score) {
  if (item >= a->n_items && !is_arrival(a, item)) return "the data have no such item";
  if (!isfinite(score)) return "its score is no number";
  if (is_seen(&a->request->batch, item)) return "it was seen, or is barred";
  return is_taken(a, item) ? "it is there twice" : NULL;
}

/* The first n rows of a node's slate. strict: all of them must be right; else those that are. */
static ev_status take(ev_asks *a, const ev_asks_node *node, size_t n, bool strict, ev_answer *out) {
  ev_slate *slate = node->step->slate->slate;
  const uint32_t *items = ev_slate_items(slate), *sources = ev_slate_sources(slate);
  const float *scores = ev_slate_scores(slate), *chances = ev_slate_find(slate, "propensity");
  size_t n_rows = ev_slate_n(slate);
  if (++a->turn == 0) { /* the counter came round: old marks would hold again */
    memset(a->taken, 0, sizeof a->taken);
    a->turn = 1;
  }
  out->n = 0;
  out->explored = chances != NULL;
  out->propensity = 1;
  for (size_t i = 0; i < n_rows && out->n < n; i++) {
    const char *why = fault(a, items[i], scores[i]);
    if (why != NULL && strict) return ev_fail(EV_ECORRUPT, "node %s: item %u at place %zu of the slate: %s", node->name, items[i], i + 1, why);
    if (why != NULL) continue;
    float p = chances != NULL ? chances[i] : 1;
    if (!(p > 0 && p <= 1)) p = NAN;
    out->picks[out->n++] = (ev_pick){items[i], scores[i], sources[i], p};
    out->propensity *= (double)p;
  }
  if (out->propensity < DBL_MIN) out->propensity = DBL_MIN; /* above 0, however long the slate is */
  return EV_OK;
}

/* ---- The nodes -----------------------------------------------------------------------------------------*/
typedef struct run {
  ev_asks *a;
  ev_answer *out;
  uint64_t now, end; /* end: of the nodes' time */
  size_t n;          /* that are asked for */
  bool strict;
} run;

/* The node is left out; the last error says why. strict: → status, as an error of the whole. */
static ev_status blame(run *r, ev_asks_node *node, ev_status status) {
  char why[sizeof r->out->why];
  snprintf(why, sizeof why, "%s", ev_error());
  ev_text_mend(why);
  node->failed = true;
  if (status == EV_EINTR) return status;
  if (r->strict) return ev_fail(status, "node %s: act: %s", node->name, why);
  if (r->out->degraded) return EV_OK;
  r->out->degraded = 1;
  snprintf(r->out->cut, sizeof r->out->cut, "%s", node->name);
  memcpy(r->out->why, why, sizeof why);
  return EV_OK;
}

static void make_room(ev_asks *a) {
  ev_host *h = a->host;
  if (h->heap.max == 0 || h->heap.used <= a->collect_at) return;
  ev_host_collect(h);
  size_t full = (size_t)(FULL * (double)h->heap.max), more = h->heap.used + h->heap.max / 8;
  a->collect_at = full > more ? full : more; /* what is in use may be as much: then not at every node */
}

static ev_status act(run *r, ev_asks_node *node, size_t n) {
  ev_asks *a = r->a;
  lua_State *L = a->host->L;
  size_t n_in = ev_slate_n(node->step->slate->slate);
  a->request->n = (uint32_t)(n > 0 ? n : n_in > 0 ? n_in : 1);
  uint64_t end = r->end;
  if (node->budget_ns > 0 && node->budget_ns < end - r->now) end = r->now + node->budget_ns;
  lua_rawgeti(L, LUA_REGISTRYINDEX, node->act);
  lua_rawgeti(L, LUA_REGISTRYINDEX, node->model);
  lua_rawgeti(L, LUA_REGISTRYINDEX, a->request_ref);
  lua_rawgeti(L, LUA_REGISTRYINDEX, node->slate);
  lua_rawgeti(L, LUA_REGISTRYINDEX, node->ctx);
  ev_watch_begin(L, end);
  int failed = lua_pcall(L, 4, 0, 0);
  bool cut = ev_watch_end();
  if (failed == 0) return EV_OK;
  ev_status status = ev_lua_take_error(L);
  if (failed == LUA_ERRMEM) ev_host_collect(a->host);
  if (status == EV_EINTR) return status;
  if (cut) return ev_fail(EV_ELIMIT, "cut: it was not back after %.3g ms", (double)(end - r->now) * 1e-6);
  return status;
}

static ev_status run_node(run *r, ev_asks_node *node) {
  ev_asks *a = r->a;
  bool is_output = node == a->nodes + a->output;
  size_t n = node->n > 0 ? node->n : is_output ? r->n : node->step->role == EV_ROLE_RECALL ? DEFAULT_RECALL : 0;
  node->failed = false;
  ev_status status = ev_step_open(node->step);
  if (status == EV_OK) {
    status = r->now < r->end ? act(r, node, n) : ev_fail(EV_ELIMIT, "no time was left for it");
    if (status != EV_OK) {
      EV_TRY(blame(r, node, status));
      status = ev_step_open(node->step); /* what it did to its slate is undone */
      if (status == EV_OK) ev_step_pass(node->step);
    }
  }
  if (status == EV_OK) status = ev_step_close(node->step, n);
  if (status != EV_OK) { /* more candidates than a slate holds, or no memory for them */
    ev_slate_clear(node->step->slate->slate);
    EV_TRY(blame(r, node, status));
  }
  node->candidates = ev_slate_n(node->step->slate->slate);
  uint64_t now = ev_now_ns();
  node->took_ns = now - r->now;
  r->now = now;
  return EV_OK;
}

/* Between two nodes: what there is already, so that who asked is not empty-handed when the next never comes back. A recall is shown only
 * while there is nothing better. */
static ev_status show(run *r, const ev_asks_node *node, bool *shown, ev_interim_fn *interim, void *ctx) {
  ev_answer *best = &r->a->interim;
  if (node->failed || node->candidates == 0 || (*shown && node->step->role == EV_ROLE_RECALL)) return EV_OK;
  EV_TRY(take(r->a, node, r->n, false, best));
  if (best->n == 0) return EV_OK;
  best->degraded = r->out->degraded;
  best->cut[0] = best->why[0] = '\0';
  if (best->degraded) {
    memcpy(best->cut, r->out->cut, sizeof best->cut);
    memcpy(best->why, r->out->why, sizeof best->why);
  }
  *shown = true;
  return interim(ctx, best) ? EV_OK : ev_fail(EV_EINTR, "nobody waits for the slate any more");
}

ev_status ev_asks_recommend(ev_asks *a, const ev_ask *ask, ev_answer *out, ev_buf *text, ev_interim_fn *interim, void *ctx, bool strict) {
  out->n = out->degraded = out->explored = 0;
  out->cut[0] = out->why[0] = '\0';
  out->propensity = 1;
  if (ask->n < 1 || ask->n > EV_ASK_MAX) return ev_fail(EV_EINVAL, "n: %zu is not from 1 to %d", ask->n, EV_ASK_MAX);
  if (!lua_checkstack(a->host->L, 16)) return ev_fail(EV_ENOMEM, "Lua stack is full");
  EV_TRY(fill(a, ask));
  run r = {a, out, ev_now_ns(), EV_NEVER, ask->n, strict};
  uint64_t end = ask->deadline_ns > 0 ? ask->deadline_ns : EV_NEVER;
  if (end <= r.now) return ev_fail(EV_ELIMIT, "the time was over before it began");
  if (a->budget_ns > 0 && end - r.now > a->budget_ns) end = r.now + a->budget_ns;
  if (end != EV_NEVER) r.end = end - (uint64_t)(RESERVE * (double)(end - r.now));
  bool shown = false;
  for (size_t i = 0; i < a->n_nodes; i++) {
    make_room(a);
    EV_TRY(run_node(&r, &a->nodes[i]));
    if (interim != NULL && i + 1 < a->n_nodes) EV_TRY(show(&r, &a->nodes[i], &shown, interim, ctx));
  }
  EV_TRY(take(a, &a->nodes[a->output], ask->n, true, out));
  if (out->n == 0 && out->degraded) return ev_fail(EV_ESCRIPT, "no slate: node %s: %s", out->cut, out->why);
  return ask->explain && text != NULL ? ev_asks_explain(a, out, text) : EV_OK;
}

ev_status ev_host_recommend(ev_host *h, const ev_ask *ask, ev_answer *out, ev_buf *text, ev_interim_fn *interim, void *ctx) {
  if (h->asks == NULL) return ev_fail(EV_EINVAL, "nothing was loaded to be served");
  return ev_asks_recommend(h->asks, ask, out, text, interim, ctx, false);
}

/* ---- Lessons and loading -------------------------------------------------------------------------------*/
typedef struct lessons {
  const ev_asks *a;
  const ev_lesson *list;
  size_t n;
} lessons;

static int teach(lua_State *L) {
  const lessons *j = lua_touserdata(L, 1);
  int kept = 0;
  lua_rawgeti(L, LUA_REGISTRYINDEX, j->a->learn);
  lua_createtable(L, (int)j->n, 0);
  for (size_t i = 0; i < j->n; i++) {
    const ev_lesson *e = &j->list[i];
    uint32_t user = ONCE(e->user), item = ONCE(e->item);
    if (item >= j->a->n_items || !isfinite(e->value) || !isfinite(e->time_s)) continue;
    lua_createtable(L, 0, 5);
    if (user < j->a->n_users) {
      lua_pushnumber(L, user);
      lua_setfield(L, -2, "user");
    }
    lua_pushnumber(L, item);
    lua_setfield(L, -2, "item");
    lua_pushlstring(L, e->type, strnlen(e->type, sizeof e->type));
    lua_setfield(L, -2, "type");
    lua_pushnumber(L, e->value);
    lua_setfield(L, -2, "value");
    lua_pushnumber(L, e->time_s);
    lua_setfield(L, -2, "time");
    lua_rawseti(L, -2, ++kept);
  }
  if (kept > 0) lua_call(L, 1, 0);
  return 0;
}

ev_status ev_host_learn(ev_host *h, const ev_lesson *list, size_t n) {
  if (h->asks == NULL) return ev_fail(EV_EINVAL, "nothing was loaded to be served");
  ev_status first = EV_OK;
  char why[1024] = "";
  if (!lua_checkstack(h->L, 16)) return ev_fail(EV_ENOMEM, "Lua stack is full");
  for (size_t at = 0; at < n && first != EV_EINTR; at += LESSONS_MAX) {
    make_room(h->asks);
    lessons j = {h->asks, list + at, n - at < LESSONS_MAX ? n - at : LESSONS_MAX};
    if (lua_cpcall(h->L, teach, &j) == 0) continue;
    ev_status status = ev_lua_take_error(h->L);
    if (first == EV_OK || status == EV_EINTR) {
      first = status;
      snprintf(why, sizeof why, "%s", ev_error());
    }
  }
  return first == EV_OK ? EV_OK : ev_fail(first, "%s", ev_text_mend(why));
}

ev_status ev_host_serve(ev_host *h, const char *json_args, ev_buf *out) {
  EV_TRY(ev_host_call(h, "evection.serve", "load", json_args, out));
  return ev_host_call(h, "evection.serve", "warm", NULL, NULL);
}
