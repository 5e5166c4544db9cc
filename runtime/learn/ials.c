/* ials.c - implicit-feedback factors by alternating least squares; learn.h gives the objective.
 *
 * One side's step, for a user u with items Sᵤ: (Σ_{i in Sᵤ} hᵢ hᵢᵀ + α₀ HᵀH + λ (|Sᵤ| + α₀ n_items)^ν I) wᵤ = Σ hᵢ,
 * solved by Cholesky; HᵀH is shared. Rows are gathered into a block so that the sum is one syrk.
 *
 * Arrays: user f32 (n_users, d), item f32 (n_items, d), gram f32 (d, d) = ItemᵀItem, options f64 (α₀, λ, ν). A request
 * is folded in from the history it brings: the same solve, so a known user with his training history gets his own
 * vector, a changed one a fresh vector, and nobody a stale one. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "kinds.h"

typedef struct solver { /* one thread's memory: block (BLOCK, d), matrix (d, d) */
  float *block, *matrix;
} solver;

#define BLOCK 256

static bool solver_open(solver *s, size_t d) {
  s->block = ev_alloc(BLOCK, d * sizeof *s->block);
  s->matrix = ev_alloc(d, d * sizeof *s->matrix);
  return s->block != NULL && s->matrix != NULL;
}

static void solver_close(solver *s) {
  ev_free(s->block);
  ev_free(s->matrix);
}

typedef struct problem {
  const float *other;  /* (n_other, d) the fixed side */
  const float *gram;   /* (d, d) α₀ otherᵀother */
  size_t n_other, d;
  double alpha0, lambda, nu;
} problem;

/* out (d): the best vector for these entries of the fixed side. Zero when there are none. */
static ev_status solve(const problem *p, solver *s, const uint32_t *entries, size_t n, float *out) {
  size_t d = p->d;
  memset(out, 0, d * sizeof *out);
  if (n == 0) return EV_OK;
  memcpy(s->matrix, p->gram, d * d * sizeof *s->matrix);
  for (size_t begin = 0; begin < n; begin += BLOCK) {
    size_t rows = n - begin < BLOCK ? n - begin : BLOCK;
    for (size_t i = 0; i < rows; i++) {
      const float *h = p->other + (size_t)entries[begin + i] * d;
      memcpy(s->block + i * d, h, d * sizeof *h);
      ev_axpy(out, h, 1, d);
    }
    ev_syrk_tn(s->matrix, s->block, 1, d, rows);
  }
  float ridge = (float)(p->lambda * pow((double)n + p->alpha0 * (double)p->n_other, p->nu));
  for (size_t i = 0; i < d; i++) s->matrix[i * d + i] += ridge;
  return ev_spd_solve(s->matrix, out, d, 1);
}

/* gram (d, d) = scale XᵀX, by blocks in a fixed order whatever the threads. */
#define GRAM_BLOCKS 32
typedef struct gram_job {
  const float *x;
  float *parts; /* (GRAM_BLOCKS, d, d) */
  size_t n, d;
} gram_job;

static void gram_blocks(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  gram_job *g = ctx;
  for (size_t b = begin; b < end; b++) {
    size_t from = g->n * b / GRAM_BLOCKS, to = g->n * (b + 1) / GRAM_BLOCKS;
    float *part = g->parts + b * g->d * g->d;
    memset(part, 0, g->d * g->d * sizeof *part);
    if (to > from) ev_syrk_tn(part, g->x + from * g->d, 0, g->d, to - from);
  }
}

static ev_status make_gram(float *out, const float *x, double scale, size_t n, size_t d) {
  gram_job g = {x, ev_alloc(GRAM_BLOCKS, d * d * sizeof(float)), n, d};
  if (g.parts == NULL) return EV_ENOMEM;
  ev_parallel_for(GRAM_BLOCKS, 1, gram_blocks, &g);
  memset(out, 0, d * d * sizeof *out);
  for (size_t b = 0; b < GRAM_BLOCKS; b++) ev_axpy(out, g.parts + b * d * d, 1, d * d);
  ev_scale(out, (float)scale, d * d);
  ev_free(g.parts);
  return EV_OK;
}

/* ---- Fit -----------------------------------------------------------------------------------------------*/
typedef struct half_step {
  problem p;
  const ev_csr *rows;
  float *out; /* (n_rows, d) */
  atomic_int failed;
} half_step;

static void half_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  half_step *h = ctx;
  if (ev_interrupted()) atomic_store(&h->failed, EV_EINTR);
  if (atomic_load(&h->failed) != EV_OK) return;
  solver s = {0};
  ev_status status = solver_open(&s, h->p.d) ? EV_OK : EV_ENOMEM;
  for (size_t i = begin; i < end && status == EV_OK; i++)
    status = solve(&h->p, &s, h->rows->idx + h->rows->ptr[i], h->rows->ptr[i + 1] - h->rows->ptr[i], h->out + i * h->p.d);
  if (status != EV_OK) atomic_store(&h->failed, status);
  solver_close(&s);
}

static ev_status improve(float *out, const float *other, const ev_csr *rows, float *gram, const ev_ials_options *o) {
  half_step h = {
      .p = {other, gram, rows->n_cols, o->n_dims, o->unobserved_weight, o->regularization, o->frequency_power}, .rows = rows, .out = out};
  EV_TRY(make_gram(gram, other, o->unobserved_weight, rows->n_cols, o->n_dims));
  ev_parallel_for(rows->n_rows, 64, half_rows, &h);
  switch ((ev_status)atomic_load(&h.failed)) {
    case EV_OK: return EV_OK;
    case EV_EINTR: return ev_fail(EV_EINTR, "interrupted");
    case EV_ENOMEM: return ev_fail(EV_ENOMEM, "out of memory: vectors of %u dimensions", o->n_dims);
    default: return ev_fail(EV_EINVAL, "the least squares have no solution: raise regularization (%g)", o->regularization);
  }
}

/* Σ_S (x − wᵀh)², the part of the objective that tells whether the fit follows the data, per interaction. */
static double observed_loss(const ev_view *v, const float *user, const float *item, size_t d) {
  double sum = 0;
  const ev_csr *m = &v->by_user;
  for (size_t u = 0; u < m->n_rows; u++)
    for (uint64_t e = m->ptr[u]; e < m->ptr[u + 1]; e++) {
      double miss = 1 - ev_dot(user + u * d, item + (size_t)m->idx[e] * d, d);
      sum += miss * miss;
    }
  return m->ptr[m->n_rows] > 0 ? sum / (double)m->ptr[m->n_rows] : 0;
}

static ev_status write_factors(const char *path, const float *user, const float *item, const float *gram, size_t n_users, size_t n_items,
                               const ev_ials_options *o) {
  double options[3] = {o->unobserved_weight, o->regularization, o->frequency_power};
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "factors"));
  ev_status status = ev_pack_write(w, "user", EV_F32, user, n_users, o->n_dims);
  if (status == EV_OK) status = ev_pack_write(w, "item", EV_F32, item, n_items, o->n_dims);
  if (status == EV_OK) status = ev_pack_write(w, "gram", EV_F32, gram, o->n_dims, o->n_dims);
  if (status == EV_OK) status = ev_pack_write(w, "options", EV_F64, options, 3, 1);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

ev_status ev_ials_train(float **user, float **item, const ev_view *v, const ev_ials_options *o, const ev_progress *p) {
  size_t d = o->n_dims, n_users = v->by_user.n_rows, n_items = v->by_item.n_rows;
  float *gram = ev_alloc(d, d * sizeof *gram);
  *user = ev_alloc(n_users, d * sizeof **user);
  *item = ev_alloc(n_items, d * sizeof **item);
  ev_status status = *user == NULL || *item == NULL || gram == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    ev_rng r;
    ev_rng_seed(&r, o->seed, 1);
    double std = o->init_std / sqrt((double)d);
    for (size_t i = 0; i < n_items * d; i++) (*item)[i] = (float)(std * ev_rng_normal(&r));
  }
  for (unsigned epoch = 0; epoch < o->epochs && status == EV_OK; epoch++) {
    status = improve(*user, *item, &v->by_user, gram, o);
    if (status == EV_OK) status = improve(*item, *user, &v->by_item, gram, o);
    if (status == EV_OK && p != NULL) p->report(p->ctx, "epoch", epoch + 1, o->epochs, observed_loss(v, *user, *item, d));
  }
  if (status == EV_OK) status = improve(*user, *item, &v->by_user, gram, o);
  ev_free(gram);
  if (status == EV_OK) return EV_OK;
  ev_free(*user);
  ev_free(*item);
  *user = *item = NULL;
  return status;
}

ev_status ev_ials_gram(float *out, const float *item, size_t n_items, size_t d) { return make_gram(out, item, 1, n_items, d); }

ev_status ev_fit_ials(const char *path, const ev_view *v, const ev_ials_options *o, const ev_progress *p) {
  size_t d = o->n_dims;
  float *user, *item, *gram = NULL;
  EV_TRY(ev_ials_train(&user, &item, v, o, p));
  ev_status status = (gram = ev_alloc(d, d * sizeof *gram)) == NULL ? EV_ENOMEM : make_gram(gram, item, 1, v->by_item.n_rows, d);
  if (status == EV_OK) status = write_factors(path, user, item, gram, v->by_user.n_rows, v->by_item.n_rows, o);
  ev_free(user);
  ev_free(item);
  ev_free(gram);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
typedef struct factors {
  problem p; /* of folding a user in */
  float *gram; /* owned: α₀ times the array */
} factors;

static ev_status open_kind(ev_model *m) {
  ev_array user, item;
  const void *gram, *options;
  EV_TRY(ev_pack_get(m->pack, "user", EV_F32, &user));
  EV_TRY(ev_pack_get(m->pack, "item", EV_F32, &item));
  if (item.rows >= EV_NONE || item.cols == 0 || item.cols > 4096 || user.cols != item.cols) return ev_fail(EV_ECORRUPT, "%s: factors of the wrong shape", ev_pack_path(m->pack));
  m->n_items = item.rows;
  EV_TRY(ev_model_array(m, "gram", EV_F32, item.cols, item.cols, &gram));
  EV_TRY(ev_model_array(m, "options", EV_F64, 3, 1, &options));
  factors *f = m->state = ev_zalloc(1, sizeof *f);
  if (f == NULL) return EV_ENOMEM;
  f->gram = ev_alloc(item.cols, item.cols * sizeof *f->gram);
  if (f->gram == NULL) return EV_ENOMEM;
  memcpy(f->gram, gram, item.cols * item.cols * sizeof *f->gram);
  f->p = (problem){item.data, f->gram, item.rows, item.cols, ev_model_option(m, 0), ev_model_option(m, 1), ev_model_option(m, 2)};
  ev_scale(f->gram, (float)f->p.alpha0, item.cols * item.cols);
  return EV_OK;
}

static void close_kind(ev_model *m) {
  factors *f = m->state;
  if (f != NULL) ev_free(f->gram);
  ev_free(f);
}

typedef struct fold_in {
  const factors *f;
  const ev_requests *r;
  float *out; /* (n, d) */
  atomic_int failed;
} fold_in;

static void fold_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  fold_in *j = ctx;
  solver s = {0};
  ev_status status = solver_open(&s, j->f->p.d) ? EV_OK : EV_ENOMEM;
  for (size_t i = begin; i < end && status == EV_OK; i++)
    status = solve(&j->f->p, &s, j->r->history + j->r->history_ptr[i], j->r->history_ptr[i + 1] - j->r->history_ptr[i], j->out + i * j->f->p.d);
  if (status != EV_OK) atomic_store(&j->failed, status);
  solver_close(&s);
}

static ev_status fold(const ev_model *m, const ev_requests *r, float *out) {
  fold_in j = {.f = m->state, .r = r, .out = out};
  ev_parallel_for(r->n, 64, fold_rows, &j);
  ev_status status = (ev_status)atomic_load(&j.failed);
  return status == EV_OK ? EV_OK : ev_fail(status, status == EV_ENOMEM ? "out of memory: folding users in" : "a user cannot be folded in");
}

static ev_status recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) {
  const factors *f = m->state;
  float *q = ev_alloc(r->n, f->p.d * sizeof *q);
  if (q == NULL) return EV_ENOMEM;
  ev_status status = fold(m, r, q);
  if (status == EV_OK) status = ev_score_topk(ids, scores, q, f->p.other, r->seen_ptr, r->seen, r->n, m->n_items, f->p.d, k);
  for (size_t i = 0; i < r->n && status == EV_OK; i++) { /* nothing is known of a stranger */
    if (r->history_ptr[i + 1] != r->history_ptr[i]) continue;
    for (size_t c = 0; c < k; c++) ids[i * k + c] = EV_NONE, scores[i * k + c] = -INFINITY;
  }
  ev_free(q);
  return status;
}

static ev_status score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  const factors *f = m->state;
  float *q = ev_alloc(1, f->p.d * sizeof *q);
  if (q == NULL) return EV_ENOMEM;
  ev_status status = fold(m, r, q);
  for (size_t i = 0; i < n && status == EV_OK; i++) out[i] = ev_dot(q, f->p.other + (size_t)items[i] * f->p.d, f->p.d);
  ev_free(q);
  return status;
}

const ev_kind ev_kind_factors = {"factors", open_kind, close_kind, recall, score, NULL};
