/* ranker.c - logistic regression and factorisation machines over a candidate's features.
 *
 *   logit(x) = b + Σ wₖ xₖ + ½ Σ_f ((Σ vₖf xₖ)² − Σ vₖf² xₖ²)      (Rendle 2010, equation 5; no pairs when n_dims = 0)
 * Features of a candidate: each slate column, standardised (a rank r enters as its discount 1 / log2(1 + r), 0 where
 * the input had none); then for each feature column of its user and item, its
 * tokens (a list of m tokens counts 1/m each), or the standardised number. Unknown tokens and missing numbers
 * contribute nothing. Trained by Adagrad on the logistic loss, one candidate at a time in a seeded order; its sums of
 * squares start at 1, so that a rare token takes small steps.
 *
 * Arrays: fields u8 (text, a line "side type n name" each), mean f32, std f32 (a row a field; tokens 0, 1),
 * w f32 (n_features), v f32 (n_features, n_dims), options f64 (bias, n_items, n_users, n_dims). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kinds.h"

#define FIELDS_MAX 192
#define ACTIVE_MAX 1024 /* features of one candidate: further tokens of a list are left out */

typedef enum source { FROM_USER, FROM_ITEM, FROM_SLATE } source;

typedef struct field {
  source from;
  ev_column_type type; /* FLOAT for slate columns */
  char name[208];
  size_t size, offset; /* features it has, and the first of them */
  const ev_column *column; /* bound to a snapshot, or NULL */
} field;

typedef struct layout {
  field fields[FIELDS_MAX];
  size_t n, n_features;
} layout;

typedef struct active { /* a candidate's features */
  uint32_t index[ACTIVE_MAX];
  float value[ACTIVE_MAX];
  size_t n;
} active;

static ev_status add_field(layout *l, source from, ev_column_type type, const char *name, size_t size, const ev_column *c) {
  if (l->n == FIELDS_MAX) return ev_fail(EV_ELIMIT, "a ranker takes at most %d fields", FIELDS_MAX);
  if (strlen(name) >= sizeof l->fields->name) return ev_fail(EV_EINVAL, "'%.60s…' is too long for a field", name);
  field *f = &l->fields[l->n++];
  *f = (field){.from = from, .type = type, .size = size, .offset = l->n_features, .column = c};
  snprintf(f->name, sizeof f->name, "%s", name);
  l->n_features += size;
  if (l->n_features >= EV_NONE) return ev_fail(EV_ELIMIT, "more than 2^32 features");
  return EV_OK;
}

static ev_status add_columns(layout *l, const ev_snapshot *s, ev_side side, const char *const *names, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const ev_column *c = ev_snapshot_column(s, side, names[i]);
    if (c == NULL) return ev_fail(EV_EINVAL, "no %s column '%.60s'", side == EV_USER ? "user" : "item", names[i]);
    EV_TRY(add_field(l, side == EV_USER ? FROM_USER : FROM_ITEM, c->type, c->name, c->type == EV_FLOAT ? 1 : c->n_tokens, c));
  }
  return EV_OK;
}

static void push(active *a, size_t index, float value) {
  if (a->n < ACTIVE_MAX && value != 0) a->index[a->n] = (uint32_t)index, a->value[a->n++] = value;
}

static bool is_rank(const char *slate_column) { return strncmp(slate_column, "rank.", 5) == 0; }

static float slate_value(float x, bool rank) { return !rank ? x : x > 0 ? 1 / log2f(1 + x) : 0; }

/* The features that come from a feature column's row. */
static void push_column(active *a, const field *f, size_t row, float mean, float std) {
  const ev_column *c = f->column;
  if (row >= c->n_rows) return;
  if (c->type == EV_FLOAT) {
    if (!isnan(c->values[row])) push(a, f->offset, (c->values[row] - mean) / std);
  } else if (c->type == EV_TOKEN) {
    if (c->codes[row] != EV_NONE) push(a, f->offset + c->codes[row], 1);
  } else {
    uint64_t n = c->ptr[row + 1] - c->ptr[row];
    for (uint64_t i = c->ptr[row]; i < c->ptr[row + 1]; i++) push(a, f->offset + c->codes[i], 1 / (float)n);
  }
}

typedef struct machine {
  layout l;
  size_t n_dims;
  float bias, *w, *v;  /* (n_features), (n_features, n_dims) */
  float mean[FIELDS_MAX], std[FIELDS_MAX];
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
  float bias_g, *w_g, *v_g; /* Adagrad: sums of squared gradients */
  float rate, l2;
} trainer;

static float adagrad(const trainer *t, float *sum, float gradient) {
  *sum += gradient * gradient;
  return t->rate * gradient / (sqrtf(*sum) + 1e-8f);
}

/* One step on one candidate; returns its loss before the step. */
static double step(trainer *t, const active *a, float label) {
  float sums[1024];
  machine *m = &t->m;
  size_t d = m->n_dims;
  float y = logit(m, a, sums), p = 1 / (1 + expf(-y)), g = p - label;
  double loss = label > 0 ? log1p(exp(-(double)y)) : log1p(exp((double)y));
  m->bias -= adagrad(t, &t->bias_g, g);
  for (size_t i = 0; i < a->n; i++) {
    size_t k = a->index[i];
    float x = a->value[i];
    m->w[k] -= adagrad(t, &t->w_g[k], g * x + t->l2 * m->w[k]);
    float *v = m->v + k * d, *v_g = t->v_g + k * d;
    for (size_t f = 0; f < d; f++) v[f] -= adagrad(t, &v_g[f], g * x * (sums[f] - v[f] * x) + t->l2 * v[f]);
  }
  return loss;
}

static void standardise(machine *m, const ev_snapshot *s, const ev_rank_rows *rows) {
  (void)s;
  for (size_t f = 0; f < m->l.n; f++) {
    const field *x = &m->l.fields[f];
    double sum = 0, squares = 0, n = 0, origin = 0; /* differences from the first value: a time stamp's spread is small beside its size */
    bool rank = is_rank(x->name);
    m->mean[f] = 0;
    m->std[f] = 1;
    if (x->type != EV_FLOAT) continue;
    for (size_t i = 0; i < rows->n_rows; i++) {
      size_t row = x->from == FROM_USER ? rows->user[i] : rows->item[i];
      double value = x->from == FROM_SLATE ? slate_value(rows->dense[i * rows->n_dense + x->offset], rank) : row < x->column->n_rows ? x->column->values[row] : NAN;
      if (!isfinite(value)) continue;
      if (n == 0) origin = value;
      value -= origin;
      sum += value;
      squares += value * value;
      n++;
    }
    if (n == 0) continue;
    double mean = sum / n, variance = squares / n - mean * mean;
    m->mean[f] = (float)(origin + mean);
    m->std[f] = variance > 1e-12 ? (float)sqrt(variance) : 1;
  }
}

static void row_features(const machine *m, const ev_rank_rows *rows, size_t i, active *a) {
  a->n = 0;
  for (size_t f = 0; f < m->l.n; f++) {
    const field *x = &m->l.fields[f];
    if (x->from == FROM_SLATE) {
      float value = slate_value(rows->dense[i * rows->n_dense + x->offset], is_rank(x->name)); /* slate fields come first: offset is the column */
      if (isfinite(value)) push(a, x->offset, (value - m->mean[f]) / m->std[f]);
    } else {
      push_column(a, x, x->from == FROM_USER ? rows->user[i] : rows->item[i], m->mean[f], m->std[f]);
    }
  }
}

/* The rows an epoch goes through: all positives, and the negatives of each slate or a sample of them. */
static size_t choose_rows(uint32_t *out, const ev_rank_rows *rows, float per_positive, ev_rng *rng) {
  size_t n = 0;
  for (size_t begin = 0, end; begin < rows->n_rows; begin = end) {
    size_t positives = 0;
    for (end = begin; end < rows->n_rows && rows->group[end] == rows->group[begin]; end++) positives += rows->label[end] > 0;
    size_t negatives = end - begin - positives;
    double share = per_positive > 0 && negatives > 0 ? per_positive * (double)(positives > 0 ? positives : 1) / (double)negatives : 1;
    for (size_t i = begin; i < end; i++)
      if (rows->label[i] > 0 || share >= 1 || ev_rng_f64(rng) < share) out[n++] = (uint32_t)i;
  }
  for (size_t i = n; i > 1; i--) {
    size_t j = ev_rng_below(rng, (uint32_t)i);
    uint32_t swap = out[i - 1];
    out[i - 1] = out[j];
    out[j] = swap;
  }
  return n;
}

static ev_status train(trainer *t, const ev_rank_rows *rows, const ev_ranker_options *o, const ev_progress *p) {
  uint32_t *order = ev_alloc(rows->n_rows, sizeof *order);
  active *a = ev_alloc(1, sizeof *a);
  ev_status status = order == NULL || a == NULL ? EV_ENOMEM : EV_OK;
  ev_rng rng;
  ev_rng_seed(&rng, o->seed, 2);
  for (unsigned epoch = 0; epoch < o->epochs && status == EV_OK; epoch++) {
    size_t n = choose_rows(order, rows, o->negatives_per_positive, &rng);
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
      row_features(&t->m, rows, order[i], a);
      loss += step(t, a, rows->label[order[i]]);
    }
    if (status == EV_OK && !isfinite(loss)) status = ev_fail(EV_EINVAL, "the ranker's loss is no number after epoch %u: lower learning_rate (%g)", epoch + 1, o->learning_rate);
    if (status == EV_OK && p != NULL) p->report(p->ctx, "epoch", epoch + 1, o->epochs, n > 0 ? loss / (double)n : 0);
  }
  ev_free(order);
  ev_free(a);
  return status;
}

static ev_status write_machine(const char *path, const machine *m, const ev_snapshot *s) {
  double options[4] = {m->bias, (double)ev_snapshot_n_items(s), (double)ev_snapshot_n_users(s), (double)m->n_dims};
  ev_buf fields = {0};
  ev_status status = EV_OK;
  for (size_t f = 0; f < m->l.n && status == EV_OK; f++)
    status = ev_buf_printf(&fields, "%d %d %zu %s\n", (int)m->l.fields[f].from, (int)m->l.fields[f].type, m->l.fields[f].size, m->l.fields[f].name);
  ev_pack_writer *w = NULL;
  if (status == EV_OK) status = ev_pack_writer_open(&w, path, "ranker");
  if (status == EV_OK) status = ev_pack_write(w, "fields", EV_U8, fields.data, fields.len, 1);
  if (status == EV_OK) status = ev_pack_write(w, "mean", EV_F32, m->mean, m->l.n, 1);
  if (status == EV_OK) status = ev_pack_write(w, "std", EV_F32, m->std, m->l.n, 1);
  if (status == EV_OK) status = ev_pack_write(w, "w", EV_F32, m->w, m->l.n_features, 1);
  if (status == EV_OK) status = ev_pack_write(w, "v", EV_F32, m->v, m->l.n_features, m->n_dims);
  if (status == EV_OK) status = ev_pack_write(w, "options", EV_F64, options, 4, 1);
  if (status == EV_OK) {
    status = ev_pack_writer_commit(w);
    w = NULL;
  }
  ev_pack_writer_abort(w);
  ev_buf_free(&fields);
  return status;
}

ev_status ev_fit_ranker(const char *path, const ev_snapshot *s, const ev_rank_rows *rows, const ev_ranker_options *o, const ev_progress *p) {
  if (rows->n_rows == 0) return ev_fail(EV_EINVAL, "a ranker with no candidates to learn from");
  if (o->n_dims > 1024) return ev_fail(EV_EINVAL, "%u dimensions: at most 1024", o->n_dims);
  trainer *t = ev_zalloc(1, sizeof *t);
  if (t == NULL) return EV_ENOMEM;
  machine *m = &t->m;
  m->n_dims = o->n_dims;
  t->rate = o->learning_rate;
  t->l2 = o->regularization;
  ev_status status = EV_OK;
  for (size_t i = 0; i < rows->n_dense && status == EV_OK; i++) status = add_field(&m->l, FROM_SLATE, EV_FLOAT, rows->dense_names[i], 1, NULL);
  if (status == EV_OK) status = add_columns(&m->l, s, EV_USER, o->user_columns, o->n_user_columns);
  if (status == EV_OK) status = add_columns(&m->l, s, EV_ITEM, o->item_columns, o->n_item_columns);
  size_t n = m->l.n_features, d = o->n_dims;
  if (status == EV_OK) {
    m->w = ev_zalloc(n, sizeof *m->w);
    t->w_g = ev_alloc(n, sizeof *t->w_g);
    m->v = ev_alloc(n, d * sizeof *m->v);
    t->v_g = ev_alloc(n, d * sizeof *t->v_g);
    if (m->w == NULL || t->w_g == NULL || m->v == NULL || t->v_g == NULL) status = EV_ENOMEM;
  }
  if (status == EV_OK) {
    ev_rng rng;
    ev_rng_seed(&rng, o->seed, 1);
    for (size_t i = 0; i < n * d; i++) m->v[i] = (float)(0.01 * ev_rng_normal(&rng));
    t->bias_g = 1;
    for (size_t i = 0; i < n; i++) t->w_g[i] = 1;
    for (size_t i = 0; i < n * d; i++) t->v_g[i] = 1;
    standardise(m, s, rows);
    status = train(t, rows, o, p);
  }
  if (status == EV_OK) status = write_machine(path, m, s);
  ev_free(m->w);
  ev_free(m->v);
  ev_free(t->w_g);
  ev_free(t->v_g);
  ev_free(t);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
typedef struct ranker {
  layout l;
  size_t n_dims;
  float bias;
  const float *w, *v, *mean, *std;
} ranker;

static ev_status take_fields(const ev_model *m, layout *l) {
  ev_array a;
  EV_TRY(ev_pack_get(m->pack, "fields", EV_U8, &a));
  const char *text = a.data, *end = text + a.rows * a.cols;
  while (text < end) {
    const char *newline = memchr(text, '\n', (size_t)(end - text));
    char line[256], name[208];
    int from, type, at = 0;
    size_t size;
    if (newline == NULL || (size_t)(newline - text) >= sizeof line) return ev_fail(EV_ECORRUPT, "%s: the list of fields is wrong", ev_pack_path(m->pack));
    memcpy(line, text, (size_t)(newline - text));
    line[newline - text] = '\0';
    if (sscanf(line, "%d %d %zu %n", &from, &type, &size, &at) != 3 || at == 0 || from < FROM_USER || from > FROM_SLATE || type < EV_TOKEN ||
        type > EV_FLOAT || size >= EV_NONE || strlen(line + at) >= sizeof name || (type == EV_FLOAT && size != 1) ||
        (from == FROM_SLATE && type != EV_FLOAT))
      return ev_fail(EV_ECORRUPT, "%s: the list of fields is wrong", ev_pack_path(m->pack));
    snprintf(name, sizeof name, "%s", line + at);
    EV_TRY(add_field(l, (source)from, (ev_column_type)type, name, size, NULL));
    text = newline + 1;
  }
  return EV_OK;
}

static ev_status open_kind(ev_model *m) {
  ranker *x = m->state = ev_zalloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  const void *w, *v, *mean, *std, *options;
  EV_TRY(ev_model_array(m, "options", EV_F64, 4, 1, &options));
  double items = ev_model_option(m, 1), dims = ev_model_option(m, 3);
  if (!(items >= 0 && items < EV_NONE && dims >= 0 && dims <= 1024)) return ev_fail(EV_ECORRUPT, "%s: the options make no sense", ev_pack_path(m->pack));
  m->n_items = (size_t)items;
  x->n_dims = (size_t)dims;
  x->bias = (float)ev_model_option(m, 0);
  EV_TRY(take_fields(m, &x->l));
  EV_TRY(ev_model_array(m, "w", EV_F32, x->l.n_features, 1, &w));
  EV_TRY(ev_model_array(m, "v", EV_F32, x->l.n_features, x->n_dims, &v));
  EV_TRY(ev_model_array(m, "mean", EV_F32, x->l.n, 1, &mean));
  EV_TRY(ev_model_array(m, "std", EV_F32, x->l.n, 1, &std));
  x->w = w;
  x->v = v;
  x->mean = mean;
  x->std = std;
  return EV_OK;
}

static void close_kind(ev_model *m) { ev_free(m->state); }

/* The fields bound to a snapshot's columns. */
static ev_status bind(const ranker *x, const ev_snapshot *s, layout *l) {
  *l = x->l;
  for (size_t f = 0; f < l->n; f++) {
    field *y = &l->fields[f];
    if (y->from == FROM_SLATE) continue;
    y->column = ev_snapshot_column(s, y->from == FROM_USER ? EV_USER : EV_ITEM, y->name);
    if (y->column == NULL || y->column->type != y->type || (y->type != EV_FLOAT && y->column->n_tokens != y->size))
      return ev_fail(EV_EINVAL, "the ranker was fitted on other data: column '%s' differs", y->name);
  }
  return EV_OK;
}

ev_status ev_ranker_score(const ev_model *model, const ev_snapshot *s, ev_slate *slate, uint32_t user, float *out) {
  if (model->kind != &ev_kind_ranker) return ev_fail(EV_EINVAL, "a model of kind %s does not rank", model->kind->name);
  const ranker *x = model->state;
  size_t n = ev_slate_n(slate), n_user;
  layout *l = ev_alloc(1, sizeof *l);
  active *a = ev_alloc(1, sizeof *a);
  const float **dense = ev_alloc(x->l.n, sizeof *dense);
  float *result = ev_alloc(n, sizeof *result);
  ev_status status = l == NULL || a == NULL || dense == NULL || result == NULL ? EV_ENOMEM : bind(x, s, l);
  if (status != EV_OK) goto done;
  machine m = {.n_dims = x->n_dims, .bias = x->bias, .w = (float *)(uintptr_t)x->w, .v = (float *)(uintptr_t)x->v};
  float sums[1024];
  a->n = 0;
  for (size_t f = 0; f < l->n; f++) { /* the user's features are the same for every candidate */
    const field *y = &l->fields[f];
    dense[f] = y->from != FROM_SLATE ? NULL : strcmp(y->name, "score") == 0 ? ev_slate_scores(slate) : ev_slate_find(slate, y->name);
    if (y->from == FROM_USER && user != EV_NONE) push_column(a, y, user, x->mean[f], x->std[f]);
  }
  n_user = a->n;
  const uint32_t *items = ev_slate_items(slate);
  for (size_t i = 0; i < n; i++) {
    a->n = n_user;
    for (size_t f = 0; f < l->n; f++) {
      const field *y = &l->fields[f];
      if (y->from == FROM_ITEM) push_column(a, y, items[i], x->mean[f], x->std[f]);
      else if (y->from == FROM_SLATE) {
        float value = dense[f] != NULL ? slate_value(dense[f][i], is_rank(y->name)) : 0;
        if (isfinite(value)) push(a, y->offset, (value - x->mean[f]) / x->std[f]);
      }
    }
    result[i] = logit(&m, a, sums);
  }
  memcpy(out, result, n * sizeof *out); /* out may be the slate's own score, which is a feature too */
done:
  ev_free(l);
  ev_free(a);
  ev_free(dense);
  ev_free(result);
  return status;
}

const ev_kind ev_kind_ranker = {"ranker", open_kind, close_kind, NULL, NULL};
