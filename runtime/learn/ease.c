/* ease.c - EASE^R in closed form, half stored: learn.h gives the formula.
 *
 * Arrays: sym f32 (the half-stored inverse P, in math.h's tiles), in f32 (n_items), out f32 (n_items).
 * score(u, j) = out[j] Σ_{i in history, i ≠ j} in[i] · (−P(i, j) / P(j, j)); out carries 1 / P(j, j), so that P itself
 * is the only large array, and the diagonal is left out when a row is added. Gowalla: 41k items, 3.4 GB. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "kinds.h"

/* ---- Fit -----------------------------------------------------------------------------------------------*/
typedef struct gram {
  const ev_view *v;
  float *a;            /* half-stored G */
  const float *value;  /* (n_users) n_u^-2·user_power */
  const float *in;     /* (n_items) */
} gram;

/* G's rows [I·T, (I+1)·T): each row of tiles belongs to one slice, so nothing is written twice. */
static void gram_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  gram *g = ctx;
  const ev_csr *users = &g->v->by_item, *items = &g->v->by_user;
  for (size_t x = begin; x < end; x++) {
    size_t i = users->n_rows - 1 - x; /* the long rows first */
    size_t I = i / EV_SYM_TILE;
    float *row = g->a + I * (I + 1) / 2 * EV_SYM_TILE * EV_SYM_TILE + i % EV_SYM_TILE * EV_SYM_TILE;
    for (uint64_t e = users->ptr[i]; e < users->ptr[i + 1]; e++) {
      uint32_t u = users->idx[e];
      float w = g->value[u] * g->in[i];
      const uint32_t *mine = g->v->seen + items->ptr[u];
      for (; *mine <= i; mine++) { /* ascending, and i itself is among them */
        size_t j = *mine;
        row[j / EV_SYM_TILE * EV_SYM_TILE * EV_SYM_TILE + j % EV_SYM_TILE] += w * g->in[j];
        if (j == i) break;
      }
    }
  }
}

static void degree_powers(float *out, const ev_csr *m, float power) {
  for (size_t i = 0; i < m->n_rows; i++) {
    size_t n = m->ptr[i + 1] - m->ptr[i];
    out[i] = n > 0 ? powf((float)n, power) : 0;
  }
}

static void report(const ev_progress *p, const char *what) {
  if (p != NULL) p->report(p->ctx, what, 0, 0, NAN);
}

ev_status ev_fit_ease(const char *path, const ev_view *v, const ev_ease_options *o, const ev_progress *p) {
  size_t n = v->by_item.n_rows, n_users = v->by_user.n_rows;
  float *a = ev_zalloc(ev_sym_size(n), sizeof *a), *in = ev_alloc(n, sizeof *in), *out = ev_alloc(n, sizeof *out);
  float *value = ev_alloc(n_users, sizeof *value);
  ev_pack_writer *w = NULL;
  ev_status status = EV_ENOMEM;
  if (a == NULL || in == NULL || out == NULL || value == NULL) goto done;
  degree_powers(in, &v->by_item, -o->item_power_in);
  degree_powers(out, &v->by_item, o->item_power_out);
  degree_powers(value, &v->by_user, -2 * o->user_power);
  report(p, "co-occurrences");
  gram g = {.v = v, .a = a, .value = value, .in = in};
  ev_parallel_for(n, 16, gram_rows, &g);
  for (size_t i = 0; i < n; i++) a[ev_sym_at(i, i)] += o->lambda;
  report(p, "inverse");
  status = ev_sym_inverse(a, n);
  if (status != EV_OK) goto done;
  for (size_t j = 0; j < n; j++) out[j] /= a[ev_sym_at(j, j)];
  report(p, "writing");
  status = ev_pack_writer_open(&w, path, "item_linear");
  if (status == EV_OK) status = ev_pack_write(w, "sym", EV_F32, a, ev_sym_size(n), 1);
  if (status == EV_OK) status = ev_pack_write(w, "in", EV_F32, in, n, 1);
  if (status == EV_OK) status = ev_pack_write(w, "out", EV_F32, out, n, 1);
  if (status == EV_OK) {
    status = ev_pack_writer_commit(w);
    w = NULL;
  }
done:
  ev_pack_writer_abort(w);
  ev_free(a);
  ev_free(in);
  ev_free(out);
  ev_free(value);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
typedef struct linear {
  const float *a, *in, *out;
} linear;

static ev_status open_kind(ev_model *m) {
  ev_array in;
  const void *sym, *out;
  EV_TRY(ev_pack_get(m->pack, "in", EV_F32, &in));
  if (in.rows >= EV_NONE || in.cols != 1) return ev_fail(EV_ECORRUPT, "%s: a matrix of the wrong shape", ev_pack_path(m->pack));
  m->n_items = in.rows;
  EV_TRY(ev_model_array(m, "sym", EV_F32, ev_sym_size(in.rows), 1, &sym));
  EV_TRY(ev_model_array(m, "out", EV_F32, in.rows, 1, &out));
  linear *x = m->state = ev_alloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  *x = (linear){sym, in.data, out};
  return EV_OK;
}

static void close_kind(ev_model *m) { ev_free(m->state); }

/* A tile column of the matrix is shared by all requests of a slice before the next is touched: the matrix streams
 * through the cache once a slice instead of once a request. */
#define SLICE 64
#define COLUMNS EV_SYM_TILE

typedef struct job {
  const ev_model *m;
  const ev_requests *r;
  size_t k;
  uint32_t *ids;
  float *scores;
  size_t *used;   /* (n) places of each heap in use */
  size_t first;   /* the columns of this pass */
  float *wide;    /* (n_items, columns): the pass's columns of the matrix, row by row */
  size_t columns;
} job;

static void gather(void *ctx, size_t begin, size_t end, int worker) { /* unpacks rows of the pass's columns */
  (void)worker;
  job *j = ctx;
  const linear *x = j->m->state;
  for (size_t i = begin; i < end; i++) {
    float *row = j->wide + i * j->columns;
    memset(row, 0, j->columns * sizeof *row);
    ev_sym_add_row(row, x->a, -x->in[i], i, j->first, j->first + j->columns);
    if (i >= j->first && i < j->first + j->columns) row[i - j->first] = 0; /* the diagonal of B */
  }
}

static void score_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  job *j = ctx;
  const linear *x = j->m->state;
  const ev_requests *r = j->r;
  float sum[COLUMNS];
  for (size_t i = begin; i < end; i++) {
    memset(sum, 0, sizeof sum);
    if (r->history_ptr[i + 1] == r->history_ptr[i]) continue; /* nothing is known of a stranger */
    for (uint64_t h = r->history_ptr[i]; h < r->history_ptr[i + 1]; h++) ev_axpy(sum, j->wide + r->history[h] * j->columns, 1, j->columns);
    for (size_t c = 0; c < j->columns; c++) sum[c] *= x->out[j->first + c];
    if (r->seen_ptr != NULL) {
      const uint32_t *seen = r->seen + r->seen_ptr[i];
      size_t n = r->seen_ptr[i + 1] - r->seen_ptr[i], at = 0;
      for (size_t left = n; left > 0;) { /* the first seen item of this pass */
        size_t half = left / 2;
        if (seen[at + half] < j->first) at += half + 1, left -= half + 1;
        else left = half;
      }
      for (; at < n && seen[at] < j->first + j->columns; at++) sum[seen[at] - j->first] = -INFINITY;
    }
    ev_topk_offer(j->ids + i * j->k, j->scores + i * j->k, &j->used[i], j->k, sum, j->columns, (uint32_t)j->first);
  }
}

static ev_status recall_many(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) {
  job j = {.m = m, .r = r, .k = k, .ids = ids, .scores = scores};
  j.used = ev_zalloc(r->n, sizeof *j.used);
  j.wide = ev_alloc(m->n_items, COLUMNS * sizeof *j.wide);
  ev_status status = j.used == NULL || j.wide == NULL ? EV_ENOMEM : EV_OK;
  for (j.first = 0; status == EV_OK && j.first < m->n_items; j.first += COLUMNS) {
    if (ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
    j.columns = m->n_items - j.first < COLUMNS ? m->n_items - j.first : COLUMNS;
    ev_parallel_for(m->n_items, 256, gather, &j);
    ev_parallel_for(r->n, SLICE, score_rows, &j);
  }
  for (size_t i = 0; i < r->n && status == EV_OK; i++) ev_topk_finish(ids + i * k, scores + i * k, j.used[i], k);
  ev_free(j.used);
  ev_free(j.wide);
  return status;
}

/* All scores of one history, straight from the tiles. @param[out] out (n_items) */
static void score_all(const ev_model *m, const uint32_t *history, size_t n, float *out) {
  const linear *x = m->state;
  memset(out, 0, m->n_items * sizeof *out);
  for (size_t h = 0; h < n; h++) ev_sym_add_row(out, x->a, -x->in[history[h]], history[h], 0, m->n_items);
  for (size_t h = 0; h < n; h++) out[history[h]] += x->in[history[h]] * x->a[ev_sym_at(history[h], history[h])];
  for (size_t j = 0; j < m->n_items; j++) out[j] *= x->out[j];
}

/* A few requests go row by row; unpacking the whole matrix pays from some dozens on. */
#define FEW 32

static ev_status recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) {
  if (r->n > FEW) return recall_many(m, r, k, ids, scores);
  float *all = ev_alloc(m->n_items, sizeof *all);
  if (all == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < r->n; i++) {
    size_t n = r->history_ptr[i + 1] - r->history_ptr[i];
    score_all(m, r->history + r->history_ptr[i], n, all);
    if (r->seen_ptr != NULL)
      for (uint64_t s = r->seen_ptr[i]; s < r->seen_ptr[i + 1]; s++) all[r->seen[s]] = -INFINITY;
    ev_topk(ids + i * k, scores + i * k, all, n > 0 ? m->n_items : 0, k);
  }
  ev_free(all);
  return EV_OK;
}

static ev_status score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  float *all = ev_alloc(m->n_items, sizeof *all);
  if (all == NULL) return EV_ENOMEM;
  score_all(m, r->history + r->history_ptr[0], r->history_ptr[1] - r->history_ptr[0], all);
  for (size_t i = 0; i < n; i++) out[i] = all[items[i]];
  ev_free(all);
  return EV_OK;
}

const ev_kind ev_kind_item_linear = {"item_linear", open_kind, close_kind, recall, score, NULL};
