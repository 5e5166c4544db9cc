/* ranker.c - logistic regression and factorisation machines over a row's features (fields.c).
 *
 *   logit(x) = b + Σ wₖ xₖ + ½ Σ_f ((Σ vₖf xₖ)² − Σ vₖf² xₖ²)      (Rendle 2010, equation 5; no pairs when n_dims = 0)
 * Trained by Adagrad on the logistic loss, one row at a time in a seeded order; its sums of squares start at 1, so that a
 * rare token takes small steps.
 *
 * Arrays: those of fields.c, w f32 (n_features), v f32 (n_features, n_dims), options f64 (bias, n_items, n_users, n_dims). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kinds.h"

#define DIMS_MAX 1024

typedef struct active { /* a row's features */
  uint32_t index[EV_ROW_FEATURES_MAX];
  float value[EV_ROW_FEATURES_MAX];
  size_t n;
} active;

typedef struct machine {
  size_t n_dims;
  float bias;
  const float *w, *v; /* (n_features), (n_features, n_dims) */
} machine;

static float logit(const machine *m, const active *a, float *sums) { /* sums: (n_dims) Σ vₖ xₖ, kept for the gradient */
  float y = m->bias, squares = 0;
  size_t d = m->n_dims;
  memset(sums, 0, d * sizeof *sums);
  for (size_t i = 0; i < a->n; i++) {
    float x = a->value[i];
    const float *v = m->v + a->index[i] * d;
    y += m->w[a->index[i]] * x;
    for (size_t f = 0; f < d; f++) {
      float vx = v[f] * x;
      sums[f] += vx;
      squares += vx * vx;
    }
  }
  float pairs = 0;
  for (size_t f = 0; f < d; f++) pairs += sums[f] * sums[f];
  return y + 0.5f * (pairs - squares);
}

/* ---- Fit -----------------------------------------------------------------------------------------------*/
typedef struct trainer {
  machine m;
  float *w, *v;             /* the machine's */
  float bias_g, *w_g, *v_g; /* Adagrad: sums of squared gradients */
  float rate, *l2;          /* (n_features) a row's share of a feature's penalty */
} trainer;

static float adagrad(const trainer *t, float *sum, float gradient) {
  *sum += gradient * gradient;
  return t->rate * gradient / (sqrtf(*sum) + 1e-8f);
}

/* One step on one row; returns its loss before the step. */
static double step(trainer *t, const active *a, float label) {
  float sums[DIMS_MAX];
  size_t d = t->m.n_dims;
  float y = logit(&t->m, a, sums), p = 1 / (1 + expf(-y)), g = p - label;
  double loss = label > 0 ? log1p(exp(-(double)y)) : log1p(exp((double)y));
  t->m.bias -= adagrad(t, &t->bias_g, g);
  for (size_t i = 0; i < a->n; i++) {
    size_t k = a->index[i];
    float x = a->value[i], l2 = t->l2[k];
    t->w[k] -= adagrad(t, &t->w_g[k], g * x + l2 * t->w[k]);
    float *v = t->v + k * d, *v_g = t->v_g + k * d;
    for (size_t f = 0; f < d; f++) v[f] -= adagrad(t, &v_g[f], g * x * (sums[f] - v[f] * x) + l2 * v[f]);
  }
  return loss;
}

/* What each row of a feature adds to its penalty: regularization · n^(frequency_power − 1). */
static void share_penalty(trainer *t, const ev_row_reader *reader, size_t n_features, const ev_ranker_options *o) {
  active a;
  for (size_t k = 0; k < n_features; k++) t->l2[k] = 0;
  for (size_t i = 0; i < ev_row_reader_n(reader) && o->frequency_power != 1; i++) {
    a.n = ev_row_features(a.index, a.value, reader, i);
    for (size_t j = 0; j < a.n; j++) t->l2[a.index[j]]++;
  }
  for (size_t k = 0; k < n_features; k++)
    t->l2[k] = o->frequency_power == 1 || t->l2[k] == 0 ? o->regularization : (float)(o->regularization * pow((double)t->l2[k], (double)o->frequency_power - 1));
}

static ev_status train(trainer *t, const ev_rank_rows *rows, const ev_row_reader *reader, const ev_ranker_options *o, const ev_progress *p) {
  uint32_t *order = ev_alloc(rows->n_rows, sizeof *order);
  active *a = ev_alloc(1, sizeof *a);
  ev_status status = order == NULL || a == NULL ? EV_ENOMEM : EV_OK;
  ev_rng rng;
  ev_rng_seed(&rng, o->seed, 2);
  for (unsigned epoch = 0; epoch < o->epochs && status == EV_OK; epoch++) {
    size_t n = ev_rank_rows_choose(order, rows, o->negatives_per_positive, &rng);
    double loss = 0, positives = 0;
    if (epoch == 0) { /* start from the base rate: the first steps then learn differences, not the rarity of clicks */
      for (size_t i = 0; i < n; i++) positives += rows->label[order[i]];
      t->m.bias = (float)log((positives + 0.5) / ((double)n - positives + 0.5));
    }
    for (size_t i = 0; i < n; i++) {
      if ((i & 0xFFFF) == 0 && ev_interrupted()) {
        status = ev_fail(EV_EINTR, "interrupted");
        break;
      }
      a->n = ev_row_features(a->index, a->value, reader, order[i]);
      loss += step(t, a, rows->label[order[i]]);
    }
    if (status == EV_OK && !isfinite(loss)) status = ev_fail(EV_EINVAL, "the ranker's loss is no number after epoch %u: lower learning_rate (%g)", epoch + 1, o->learning_rate);
    if (status == EV_OK && p != NULL) p->report(p->ctx, "epoch", epoch + 1, o->epochs, n > 0 ? loss / (double)n : 0);
  }
  ev_free(order);
  ev_free(a);
  return status;
}

static ev_status write_machine(const char *path, const machine *m, const ev_fields *fields, const ev_snapshot *s) {
  double options[4] = {m->bias, (double)ev_snapshot_n_items(s), (double)ev_snapshot_n_users(s), (double)m->n_dims};
  size_t n = ev_fields_n_features(fields);
  ev_pack_writer *w = NULL;
  ev_status status = ev_pack_writer_open(&w, path, "ranker");
  if (status == EV_OK) status = ev_fields_write(fields, w);
  if (status == EV_OK) status = ev_pack_write(w, "w", EV_F32, m->w, n, 1);
  if (status == EV_OK) status = ev_pack_write(w, "v", EV_F32, m->v, n, m->n_dims);
  if (status == EV_OK) status = ev_pack_write(w, "options", EV_F64, options, 4, 1);
  if (status == EV_OK) {
    status = ev_pack_writer_commit(w);
    w = NULL;
  }
  ev_pack_writer_abort(w);
  return status;
}

ev_status ev_fit_ranker(const char *path, const ev_snapshot *s, const ev_rank_rows *rows, const ev_ranker_options *o, const ev_progress *p) {
  if (rows->n_rows == 0) return ev_fail(EV_EINVAL, "a ranker with no candidates to learn from");
  if (o->n_dims > DIMS_MAX) return ev_fail(EV_EINVAL, "%u dimensions: at most %d", o->n_dims, DIMS_MAX);
  const ev_fields_options fo = {o->user_columns, o->item_columns, o->n_user_columns, o->n_item_columns, o->ids};
  ev_fields *fields = NULL;
  ev_row_reader *reader = NULL;
  trainer t = {.m.n_dims = o->n_dims, .rate = o->learning_rate, .bias_g = 1};
  ev_status status = ev_fields_fit(&fields, s, rows, &fo);
  if (status == EV_OK) status = ev_row_reader_of_rows(&reader, fields, s, rows);
  if (status == EV_OK) {
    size_t n = ev_fields_n_features(fields), d = o->n_dims;
    ev_rng rng;
    t.m.w = t.w = ev_zalloc(n, sizeof *t.w);
    t.m.v = t.v = ev_alloc(n, d * sizeof *t.v);
    t.w_g = ev_alloc(n, sizeof *t.w_g);
    t.v_g = ev_alloc(n, d * sizeof *t.v_g);
    t.l2 = ev_alloc(n, sizeof *t.l2);
    if (t.l2 == NULL || t.w == NULL || t.w_g == NULL || t.v == NULL || t.v_g == NULL) {
      status = EV_ENOMEM;
    } else {
      ev_rng_seed(&rng, o->seed, 1);
      for (size_t i = 0; i < n * d; i++) t.v[i] = (float)(0.01 * ev_rng_normal(&rng));
      for (size_t i = 0; i < n; i++) t.w_g[i] = 1;
      for (size_t i = 0; i < n * d; i++) t.v_g[i] = 1;
      share_penalty(&t, reader, n, o);
      status = train(&t, rows, reader, o, p);
    }
  }
  if (status == EV_OK) status = write_machine(path, &t.m, fields, s);
  ev_row_reader_free(reader);
  ev_fields_free(fields);
  ev_free(t.w);
  ev_free(t.v);
  ev_free(t.l2);
  ev_free(t.w_g);
  ev_free(t.v_g);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
static ev_status open_kind(ev_model *m) {
  machine *x = m->state = ev_zalloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  const void *w, *v, *options;
  EV_TRY(ev_model_array(m, "options", EV_F64, 4, 1, &options));
  double items = ev_model_option(m, 1), dims = ev_model_option(m, 3);
  if (!(items >= 0 && items < EV_NONE && dims >= 0 && dims <= DIMS_MAX)) return ev_fail(EV_ECORRUPT, "%s: the options make no sense", ev_pack_path(m->pack));
  m->n_items = (size_t)items;
  x->n_dims = (size_t)dims;
  x->bias = (float)ev_model_option(m, 0);
  EV_TRY(ev_fields_read(&m->fields, m->pack));
  EV_TRY(ev_model_array(m, "w", EV_F32, ev_fields_n_features(m->fields), 1, &w));
  EV_TRY(ev_model_array(m, "v", EV_F32, ev_fields_n_features(m->fields), x->n_dims, &v));
  x->w = w;
  x->v = v;
  return EV_OK;
}

static void close_kind(ev_model *m) { ev_free(m->state); }

static ev_status rank(const ev_model *m, const ev_row_reader *r, size_t begin, size_t end, float *out) {
  active a;
  float sums[DIMS_MAX];
  for (size_t i = begin; i < end; i++) {
    a.n = ev_row_features(a.index, a.value, r, i);
    out[i - begin] = logit(m->state, &a, sums);
  }
  return EV_OK;
}

const ev_kind ev_kind_ranker = {"ranker", open_kind, close_kind, NULL, NULL, rank};
