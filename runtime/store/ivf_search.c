/* ivf_search.c - looking through the lists that promise most.
 *
 * Rows are gathered by the chunk, so that they are fetched ahead of their comparison. What may not be found is passed over
 * before it is read where that is a bit; a condition that costs a call is asked only of rows that would be kept. */
#include <math.h>
#include <string.h>

#include "ivf.h"

#define CHUNK 256      /* rows compared at once */
#define ASK_EVERY 16   /* one row in so many is asked the condition, to know how many pass */

typedef struct best { /* a heap of the best so far, the worst on top; lower rows win ties */
  ev_found *heap;
  size_t n, cap;
} best;

static bool worse(ev_found a, ev_found b) { return a.score < b.score || (a.score == b.score && a.row > b.row); }

static void sift_down(best *b, ev_found f) { /* from the top */
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= b->n) break;
    if (child + 1 < b->n && worse(b->heap[child + 1], b->heap[child])) child++;
    if (!worse(b->heap[child], f)) break;
    b->heap[i] = b->heap[child];
    i = child;
  }
  b->heap[i] = f;
}

static bool wanted(const best *b, ev_found f) { return f.score > -INFINITY && (b->n < b->cap || worse(b->heap[0], f)); }

static void add_best(best *b, ev_found f) {
  if (b->n == b->cap) {
    sift_down(b, f);
    return;
  }
  size_t i = b->n++;
  for (; i > 0 && worse(f, b->heap[(i - 1) / 2]); i = (i - 1) / 2) b->heap[i] = b->heap[(i - 1) / 2];
  b->heap[i] = f;
}

typedef struct probing {
  const ev_index *x;
  const ev_prepared *q;
  const ev_search *s;
  size_t query, n_rows;
  best found;
  size_t compared, asked, passed;
} probing;

static bool passes(const probing *p, uint32_t row) {
  const ev_search *s = p->s;
  if (s->seen_ptr != NULL && ev_sorted_has(s->seen + s->seen_ptr[p->query], s->seen_ptr[p->query + 1] - s->seen_ptr[p->query], row)) return false;
  return s->pass == NULL || s->pass(s->pass_ctx, row);
}

static void compare(probing *p, const uint32_t *ids, size_t n) {
  const ev_index *x = p->x;
  const float *weight = (const float *)(const void *)x->weight.base, *bias = (const float *)(const void *)x->bias.base;
  float dots[CHUNK];
  ev_dots_at(dots, p->q->code, x->codes.base, ids, x->form, x->stride, n, x->d);
  for (size_t i = 0; i < n; i++) {
    float score = p->q->weight * dots[i];
    if (weight != NULL) score *= weight[ids[i]];
    if (bias != NULL) score += bias[ids[i]];
    ev_found f = {score, ids[i]};
    if (wanted(&p->found, f) && passes(p, f.row)) add_best(&p->found, f); /* the condition is asked of the few that would be kept */
  }
  p->compared += n;
}

static void look_through(probing *p, const ivf_list *l) {
  const ev_search *s = p->s;
  uint32_t n = atomic_load_explicit(&l->n, memory_order_acquire), ids[CHUNK];
  size_t used = 0;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t row = atomic_load_explicit(&l->ids[i], memory_order_acquire);
    if (row >= p->n_rows || !ev_index_live(p->x, row)) continue; /* EV_NONE is one of those */
    p->asked++;
    if (s->allowed != NULL && (row >= s->n_allowed || (s->allowed[row / 64] >> row % 64 & 1) == 0)) continue;
    if (s->pass == NULL || (p->asked % ASK_EVERY == 0 && s->pass(s->pass_ctx, row))) p->passed += s->pass == NULL ? 1 : ASK_EVERY;
    ids[used++] = row;
    if (used < CHUNK) continue;
    compare(p, ids, used);
    used = 0;
  }
  compare(p, ids, used);
}

/* Effort is in lists of mean length: many clusters of few long vectors stand first for dot, few of many for l2. The best rows
 * that may be found lie the farther, the fewer of them there are: where a share p may, √(1/p) times as many rows are met, and in
 * any case as many as it takes to fill `want`. */
static bool enough(const probing *p, double effort) {
  if (p->found.n < p->found.cap) return false;
  double met = (double)p->asked, share = ((double)p->passed + 1) / (met + 1);
  return met * met * share >= effort * effort;
}

ev_status ivf_search(const ev_index *x, const ev_prepared *q, const ev_search *s, size_t query, size_t want, unsigned effort, ev_found *out, size_t *n_out, size_t *n_looked_at) {
  const ivf *v = ivf_of(x);
  const ivf_lists *g = atomic_load_explicit(&v->now, memory_order_acquire);
  *n_out = 0;
  if (g == NULL) return EV_OK;
  float *promise = ev_alloc(g->n, sizeof *promise), *sorted = ev_alloc(g->n, sizeof *sorted);
  uint32_t *order = ev_alloc(g->n, sizeof *order);
  ev_status status = promise == NULL || sorted == NULL || order == NULL ? EV_ENOMEM : EV_OK;
  probing p = {.x = x, .q = q, .s = s, .query = query, .n_rows = ev_index_n_rows(x), .found = {out, 0, want}};
  if (status == EV_OK) {
    ev_dots(promise, q->vector, g->centres, EV_FORM_F32, x->d * sizeof(float), g->n, x->d);
    if (x->metric == EV_L2) ev_axpy(promise, g->bias, 1, g->n);
    size_t done = 0, known = 0;
    double rows = (double)effort * (double)ev_index_n(x) / (double)g->n;
    while (done < g->n && !enough(&p, rows)) {
      if (done == known) { /* few are looked at as a rule: the order of more is found when it is needed */
        size_t last = known;
        known = known == 0 ? effort : known * 8;
        if (known > g->n) known = g->n;
        size_t ranked = ev_topk(order, sorted, promise, g->n, known);
        if (ranked == last) break; /* what is left promises nothing: NaN out of a file */
        known = ranked;
      }
      look_through(&p, atomic_load_explicit(&g->at[order[done++]], memory_order_acquire));
    }
    *n_out = p.found.n;
    *n_looked_at += p.compared + g->n;
  }
  ev_free(promise);
  ev_free(sorted);
  ev_free(order);
  return status;
}

double ivf_cost(const ev_index *x, size_t want, unsigned effort, double share) {
  const ivf *v = ivf_of(x);
  const ivf_lists *g = atomic_load_explicit(&v->now, memory_order_acquire);
  if (g == NULL) return INFINITY;
  double n = (double)ev_index_n(x), rows = n / (double)g->n * effort / sqrt(share);
  if (rows * share < (double)want) rows = (double)want / share;
  if (rows > n) rows = n;
  return (double)g->n + rows * (0.2 + 0.5 * share); /* in rows of a walk: 14 ns each against 24, as they are fetched ahead */
}
