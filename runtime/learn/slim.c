/* slim.c - sparse linear models of each item from the others, by coordinate descent on the Gram matrix; learn.h gives the
 * objective.
 *
 * The Gram matrix G = XᵀX is made once, as sparse rows (8 bytes for each pair of items that share a user). An item's problem
 * then needs nothing but G: it is solved over a working set, whose part of G is dense and in cache, to convergence; the
 * gradient over all candidates, which costs the rows of the support alone, says who else wants in; the worst violators join,
 * as many as have a weight already, until nobody violates. A sweep over all candidates, the obvious way, reads thousands of
 * rows to change dozens of weights. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "item_graph.h"
#include "kinds.h"

typedef struct row { /* one block: idx (n), then value (n) */
  uint32_t *idx;
  float *value;
  size_t n;
} row;

typedef struct slim {
  const ev_view *view;
  const ev_slim_options *o;
  size_t n_items;
  float *user_weight; /* (n_users) n^-2·user_power */
  row *gram;          /* (n_items) rows of G, without the diagonal, in the order of first meeting */
  float *diagonal;    /* (n_items) */
  row *made;          /* (n_items) the weights of each item's model: of which items */
  atomic_size_t done;
  atomic_int failed;
  const ev_progress *progress;
} slim;

static bool row_open(row *r, size_t n) {
  r->idx = ev_alloc(n, sizeof *r->idx + sizeof *r->value);
  r->value = (float *)(void *)(r->idx + n);
  r->n = n;
  return r->idx != NULL;
}

static void rows_free(row *rows, size_t n) {
  for (size_t i = 0; i < n && rows != NULL; i++) ev_free(rows[i].idx);
  ev_free(rows);
}

static bool goes_on(slim *s) {
  if (ev_interrupted()) atomic_store(&s->failed, EV_EINTR);
  return atomic_load(&s->failed) == EV_OK;
}

/* ---- Gram matrix ---------------------------------------------------------------------------------------*/
static void gram_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  slim *s = ctx;
  const ev_csr *users = &s->view->by_item, *items = &s->view->by_user;
  if (!goes_on(s)) return;
  float *acc = ev_zalloc(s->n_items, sizeof *acc);
  uint32_t *touched = ev_alloc(s->n_items, sizeof *touched);
  bool room = acc != NULL && touched != NULL;
  for (size_t i = begin; i < end && room; i++) {
    size_t n = 0;
    for (uint64_t a = users->ptr[i]; a < users->ptr[i + 1]; a++) {
      uint32_t u = users->idx[a];
      float w = s->user_weight[u];
      if (w == 0) continue; /* underflow; it would be touched again and again */
      for (uint64_t b = items->ptr[u]; b < items->ptr[u + 1]; b++) {
        uint32_t other = items->idx[b];
        if (acc[other] == 0) touched[n++] = other;
        acc[other] += w;
      }
    }
    s->diagonal[i] = acc[i];
    size_t others = n - (acc[i] != 0);
    room = row_open(&s->gram[i], others);
    for (size_t t = 0, at = 0; t < n; t++) {
      if (room && touched[t] != i) s->gram[i].idx[at] = touched[t], s->gram[i].value[at++] = acc[touched[t]];
      acc[touched[t]] = 0;
    }
  }
  if (!room) atomic_store(&s->failed, EV_ENOMEM);
  ev_free(acc);
  ev_free(touched);
}

/* ---- One item ------------------------------------------------------------------------------------------*/
typedef struct solver { /* a thread's memory */
  float *target;   /* (n_items) G(·, j), 0 elsewhere */
  float *fitted;   /* (n_items) G w */
  float *excess;   /* (n_items) how much a candidate violates; −∞: not at all */
  uint32_t *candidates, *picked; /* (n_items) */
  float *best;     /* (n_items) */
  uint32_t *place; /* (n_items) in the working set, EV_NONE outside */
  uint32_t *set;   /* (cap) the working set */
  float *g;        /* (cap, cap) its part of G */
  float *w, *rest; /* (cap) weights; target − G w within the set */
  size_t n, cap;
} solver;

static void solver_close(solver *v) {
  void *blocks[] = {v->target, v->fitted, v->excess, v->candidates, v->picked, v->best, v->place, v->set, v->g, v->w, v->rest};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
}

static bool solver_open(solver *v, size_t n_items) {
  *v = (solver){.target = ev_zalloc(n_items, sizeof *v->target), .fitted = ev_alloc(n_items, sizeof *v->fitted), .excess = ev_alloc(n_items, sizeof *v->excess),
                .candidates = ev_alloc(n_items, sizeof *v->candidates), .picked = ev_alloc(n_items, sizeof *v->picked), .best = ev_alloc(n_items, sizeof *v->best),
                .place = ev_alloc(n_items, sizeof *v->place)};
  if (v->target == NULL || v->fitted == NULL || v->excess == NULL || v->candidates == NULL || v->picked == NULL || v->best == NULL || v->place == NULL) return false;
  memset(v->place, 0xff, n_items * sizeof *v->place);
  return true;
}

/* Room for `more` in the set; what it holds stays where there is none. */
static bool reserve(solver *v, size_t more) {
  if (v->n + more <= v->cap) return true;
  size_t cap = 2 * v->cap > v->n + more ? 2 * v->cap : v->n + more + 64;
  uint32_t *set = ev_alloc(cap, sizeof *set);
  float *g = ev_alloc(cap, cap * sizeof *g), *w = ev_alloc(cap, sizeof *w), *rest = ev_alloc(cap, sizeof *rest);
  bool room = set != NULL && g != NULL && w != NULL && rest != NULL;
  for (size_t i = 0; i < v->n && room; i++) {
    set[i] = v->set[i], w[i] = v->w[i], rest[i] = v->rest[i];
    memcpy(g + i * cap, v->g + i * v->cap, v->n * sizeof *g);
  }
  void *unused[] = {room ? v->set : set, room ? v->g : g, room ? v->w : w, room ? v->rest : rest};
  for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) ev_free(unused[i]);
  if (room) v->set = set, v->g = g, v->w = w, v->rest = rest, v->cap = cap;
  return room;
}

static void join(const slim *s, solver *v, uint32_t item) {
  size_t at = v->n++;
  v->set[at] = item;
  v->w[at] = 0;
  v->rest[at] = v->target[item] - v->fitted[item];
  v->place[item] = (uint32_t)at;
  for (size_t i = 0; i < at; i++) v->g[at * v->cap + i] = v->g[i * v->cap + at] = 0;
  v->g[at * v->cap + at] = s->diagonal[item];
  const row *r = &s->gram[item];
  for (size_t e = 0; e < r->n; e++) {
    uint32_t other = v->place[r->idx[e]];
    if (other != EV_NONE) v->g[at * v->cap + other] = v->g[other * v->cap + at] = r->value[e];
  }
}

/* Sweeps over the working set until no step changes the fit by more than `bound`. */
static void descend(const slim *s, solver *v, float bound) {
  float l1 = s->o->l1, l2 = s->o->l2;
  for (unsigned sweep = 0; sweep < 1000; sweep++) {
    float most = 0;
    for (size_t i = 0; i < v->n; i++) {
      const float *g = v->g + i * v->cap;
      float pull = v->rest[i] + g[i] * v->w[i];
      float shrunk = pull > l1 ? pull - l1 : !s->o->nonnegative && pull < -l1 ? pull + l1 : 0;
      float step = (shrunk != 0 ? shrunk / (g[i] + l2) : 0) - v->w[i];
      if (step == 0) continue;
      v->w[i] += step;
      ev_axpy(v->rest, g, -step, v->n);
      most = fmaxf(most, fabsf(step) * g[i]);
    }
    if (!(most > bound)) return;
  }
}

/* Whom item j's model may use: everybody, those who share a user with it, or the nearest of these by cosine. */
static size_t choose_candidates(const slim *s, solver *v, uint32_t j) {
  const row *r = &s->gram[j];
  bool all = s->o->candidates == 0 || s->o->candidates + 1u >= s->n_items;
  size_t n = 0;
  if (!all && s->o->candidates < r->n) {
    for (size_t e = 0; e < r->n; e++) v->excess[e] = r->value[e] / sqrtf(s->diagonal[r->idx[e]]);
    n = ev_topk(v->picked, v->best, v->excess, r->n, s->o->candidates);
    for (size_t e = 0; e < n; e++) v->candidates[e] = r->idx[v->picked[e]];
    return n;
  }
  if (all && !s->o->nonnegative) { /* a weight below 0 may go to one that shares nobody */
    for (uint32_t i = 0; i < s->n_items; i++)
      if (i != j && s->diagonal[i] > 0) v->candidates[n++] = i;
    return n;
  }
  memcpy(v->candidates, r->idx, r->n * sizeof *v->candidates);
  return r->n;
}

static bool solve(slim *s, solver *v, uint32_t j) {
  const row *target = &s->gram[j];
  float largest = 0;
  size_t n_candidates = choose_candidates(s, v, j);
  for (size_t e = 0; e < target->n; e++) {
    v->target[target->idx[e]] = target->value[e];
    largest = fmaxf(largest, target->value[e]);
  }
  float bound = s->o->tolerance * largest;
  bool room = true;
  v->n = 0;
  for (unsigned round = 0; round < 200; round++) {
    size_t support = 0;
    memset(v->fitted, 0, s->n_items * sizeof *v->fitted);
    for (size_t i = 0; i < v->n; i++) {
      if (v->w[i] == 0) continue;
      const row *r = &s->gram[v->set[i]];
      for (size_t e = 0; e < r->n; e++) v->fitted[r->idx[e]] += v->w[i] * r->value[e];
      v->fitted[v->set[i]] += v->w[i] * s->diagonal[v->set[i]];
      support++;
    }
    for (size_t i = 0; i < v->n; i++) v->rest[i] = v->target[v->set[i]] - v->fitted[v->set[i]]; /* what steps have rounded away */
    for (size_t c = 0; c < n_candidates; c++) {
      uint32_t i = v->candidates[c];
      float pull = v->target[i] - v->fitted[i], over = (s->o->nonnegative ? pull : fabsf(pull)) - s->o->l1;
      v->excess[c] = over > bound && v->place[i] == EV_NONE ? over : -INFINITY;
    }
    size_t wanted = support < 32 ? 32 : support, n = ev_topk(v->picked, v->best, v->excess, n_candidates, wanted < n_candidates ? wanted : n_candidates);
    if (n == 0) break;
    room = reserve(v, n);
    for (size_t i = 0; i < n && room; i++) join(s, v, v->candidates[v->picked[i]]);
    if (!room) break;
    descend(s, v, bound);
  }
  size_t kept = 0;
  for (size_t i = 0; i < v->n && room; i++) kept += v->w[i] != 0;
  room = room && row_open(&s->made[j], kept);
  for (size_t i = 0, at = 0; i < v->n; i++) {
    if (room && v->w[i] != 0) s->made[j].idx[at] = v->set[i], s->made[j].value[at++] = v->w[i];
    v->place[v->set[i]] = EV_NONE;
  }
  for (size_t e = 0; e < target->n; e++) v->target[target->idx[e]] = 0;
  return room;
}

static void solve_items(void *ctx, size_t begin, size_t end, int worker) {
  slim *s = ctx;
  solver v = {0};
  if (!goes_on(s)) return;
  bool room = solver_open(&v, s->n_items);
  for (size_t j = begin; j < end && room && !ev_interrupted(); j++) room = solve(s, &v, (uint32_t)j);
  if (!room) atomic_store(&s->failed, EV_ENOMEM);
  if (ev_interrupted()) atomic_store(&s->failed, EV_EINTR);
  solver_close(&v);
  size_t done = atomic_fetch_add(&s->done, end - begin) + (end - begin);
  if (worker == 0 && s->progress != NULL) s->progress->report(s->progress->ctx, "items", (double)done, (double)s->n_items, NAN);
}

/* ---- Fit -----------------------------------------------------------------------------------------------*/
/* Models are columns; the graph has rows: whom an item speaks for. */
static ev_status write_turned(const char *path, const slim *s) {
  size_t n = 0;
  uint64_t *ptr = ev_zalloc(s->n_items + 2, sizeof *ptr);
  for (size_t j = 0; j < s->n_items; j++) n += s->made[j].n;
  uint32_t *idx = ev_alloc(n, sizeof *idx);
  float *weight = ev_alloc(n, sizeof *weight);
  ev_status status = ptr == NULL || idx == NULL || weight == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    for (size_t j = 0; j < s->n_items; j++)
      for (size_t e = 0; e < s->made[j].n; e++) ptr[s->made[j].idx[e] + 2]++;
    for (size_t i = 0; i < s->n_items; i++) ptr[i + 2] += ptr[i + 1];
    for (size_t j = 0; j < s->n_items; j++)
      for (size_t e = 0; e < s->made[j].n; e++) {
        uint64_t to = ptr[s->made[j].idx[e] + 1]++;
        idx[to] = (uint32_t)j;
        weight[to] = s->made[j].value[e];
      }
    status = ev_item_graph_write(path, s->n_items, ptr, idx, weight, 0);
  }
  ev_free(ptr);
  ev_free(idx);
  ev_free(weight);
  return status;
}

ev_status ev_fit_slim(const char *path, const ev_view *view, const ev_slim_options *o, const ev_progress *p) {
  size_t n_users = view->by_user.n_rows;
  slim s = {.view = view, .o = o, .n_items = view->by_item.n_rows, .progress = p};
  if (!(o->l1 >= 0) || !(o->l2 > 0)) return ev_fail(EV_EINVAL, "penalties l1 %g and l2 %g: at least 0, and l2 above it", (double)o->l1, (double)o->l2);
  s.user_weight = ev_alloc(n_users, sizeof *s.user_weight);
  s.gram = ev_zalloc(s.n_items, sizeof *s.gram);
  s.made = ev_zalloc(s.n_items, sizeof *s.made);
  s.diagonal = ev_zalloc(s.n_items, sizeof *s.diagonal);
  ev_status status = s.user_weight == NULL || s.gram == NULL || s.made == NULL || s.diagonal == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    for (size_t u = 0; u < n_users; u++) {
      size_t n = view->by_user.ptr[u + 1] - view->by_user.ptr[u];
      s.user_weight[u] = n > 0 ? powf((float)n, -2 * o->user_power) : 0;
    }
    if (p != NULL) p->report(p->ctx, "co-occurrences", 0, 0, NAN);
    ev_parallel_for(s.n_items, 64, gram_rows, &s);
    if (atomic_load(&s.failed) == EV_OK) ev_parallel_for(s.n_items, 32, solve_items, &s);
    status = (ev_status)atomic_load(&s.failed);
    if (status == EV_ENOMEM) ev_fail(status, "out of memory: co-occurrences of %zu items", s.n_items);
    if (status == EV_EINTR) ev_fail(status, "interrupted");
  }
  if (status == EV_OK) status = write_turned(path, &s);
  rows_free(s.gram, s.n_items);
  rows_free(s.made, s.n_items);
  ev_free(s.user_weight);
  ev_free(s.diagonal);
  return status;
}
