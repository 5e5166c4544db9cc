/* gbdt.c - gradient-boosted trees on the logistic loss, over a row's fields (fields.c, gbdt_columns.c).
 *
 * Second-order boosting (Friedman 2001; Chen and Guestrin 2016) on histograms of at most 256 bins, grown best leaf first
 * (gbdt_grow.c). What a token's rows clicked is told to a training row by the other folds of the rows only, so that no label
 * reaches its own row (as stacking does; Micci-Barreca 2001 for the shrunk mean); a row that is scored is told by all.
 *
 * Arrays: those of fields.c; columns u32 (n_columns, 3: kind, field, code); facts f32 (n_features, 3: the number a token says,
 * mean label, log(1 + rows)); roots u32 (n_trees); nodes u32 (n_nodes, 4: column or 2^32 − 1 for a leaf, left, right, flags);
 * numbers f32 (n_nodes, 2: threshold, value); options f64 (bias, n_items, n_users, prior). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gbdt.h"

#define FOLDS 5
#define BLOCK 4096       /* rows that a thread takes at once */
#define SCORE_BLOCK 64   /* rows that go through the trees together */
#define SAMPLE (1 << 17) /* rows that cuts are made of */
#define LEAVES_MAX 4096

/* Memory of one thread for looking at rows. */
typedef struct desk {
  uint32_t *codes;                /* (n_slots) */
  float *weights, *values, *row;  /* (n_slots), (n_dense), (n_columns) */
} desk;

typedef struct trainer {
  const ev_rank_rows *rows;
  const ev_row_reader *reader;
  const ev_gbdt_options *o;
  ev_fields *fields;
  ev_tree_column *columns;
  size_t n_columns, n_features, n; /* n: rows that are learnt from */
  uint32_t *chosen;       /* (n) ascending */
  uint8_t *fold;          /* (n) */
  float *facts;           /* (FOLDS + 1, n_features, EV_TOKEN_FACTS): what a row of each fold is told; the last: all */
  float prior, bias;
  ev_bins bins;
  float *scores, *gradients; /* (n), (n, 2) */
  double *losses;         /* (blocks) */
  desk *desks;            /* (threads) */
  int n_desks;
  float *sample;          /* (n_sample, n_columns), while cuts are made */
  size_t n_sample;
  ev_forest forest;
} trainer;

static void free_trainer(trainer *t) {
  for (int i = 0; t->desks != NULL && i < t->n_desks; i++) {
    ev_free(t->desks[i].codes);
    ev_free(t->desks[i].weights);
    ev_free(t->desks[i].values);
    ev_free(t->desks[i].row);
  }
  void *blocks[] = {t->columns, t->chosen, t->fold, t->facts, t->scores, t->gradients, t->losses, t->desks, t->sample};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  ev_bins_free(&t->bins);
  ev_forest_free(&t->forest);
  ev_row_reader_free((ev_row_reader *)(uintptr_t)t->reader);
  ev_fields_free(t->fields);
}

static bool new_desk(desk *d, const ev_fields *f, size_t n_columns) {
  d->codes = ev_alloc(ev_fields_n_slots(f), sizeof *d->codes);
  d->weights = ev_alloc(ev_fields_n_slots(f), sizeof *d->weights);
  d->values = ev_alloc(ev_fields_n_dense(f), sizeof *d->values);
  d->row = ev_alloc(n_columns, sizeof *d->row);
  return d->codes != NULL && d->weights != NULL && d->values != NULL && d->row != NULL;
}

/* The i-th chosen row as its own fold may see it. */
static void training_row(const trainer *t, size_t i, desk *d, float *out) {
  ev_row_columns(d->codes, d->weights, d->values, t->reader, &t->chosen[i], 0, 1, NAN);
  ev_tree_row(out, t->columns, t->n_columns, t->fields, t->facts + t->fold[i] * t->n_features * EV_TOKEN_FACTS, t->prior, d->codes, d->weights, d->values);
}

/* ---- Rows ----------------------------------------------------------------------------------------------*/
static ev_status choose(trainer *t) {
  size_t all = t->rows->n_rows;
  uint8_t *taken = ev_zalloc(all, 1);
  ev_rng rng;
  ev_rng_seed(&rng, t->o->seed, 1);
  t->chosen = ev_alloc(all, sizeof *t->chosen);
  t->fold = ev_alloc(all, 1);
  if (taken == NULL || t->chosen == NULL || t->fold == NULL) {
    ev_free(taken);
    return EV_ENOMEM;
  }
  size_t n = ev_rank_rows_choose(t->chosen, t->rows, t->o->negatives_per_positive, &rng);
  for (size_t i = 0; i < n; i++) taken[t->chosen[i]] = 1;
  t->n = 0;
  double positives = 0;
  for (uint32_t i = 0; i < all; i++) {
    if (!taken[i]) continue;
    positives += t->rows->label[i] > 0;
    t->fold[t->n] = (uint8_t)ev_rng_below(&rng, FOLDS);
    t->chosen[t->n++] = i;
  }
  ev_free(taken);
  t->prior = (float)((positives + 0.5) / ((double)t->n + 1));
  t->bias = (float)log((double)t->prior / (1 - (double)t->prior));
  return EV_OK;
}

/* What the rows of each token clicked, as every fold may know it. */
static ev_status gather_facts(trainer *t, const float *numbers) {
  size_t n_features = t->n_features;
  double *sums = ev_zalloc((FOLDS + 1) * n_features, 2 * sizeof *sums); /* (FOLDS + 1, n_features, 2: clicks, rows); the last is all */
  t->facts = ev_alloc((FOLDS + 1) * n_features, EV_TOKEN_FACTS * sizeof *t->facts);
  if (sums == NULL || t->facts == NULL) {
    ev_free(sums);
    return EV_ENOMEM;
  }
  desk *d = t->desks;
  for (size_t i = 0; i < t->n; i++) {
    float label = t->rows->label[t->chosen[i]];
    ev_row_columns(d->codes, d->weights, NULL, t->reader, &t->chosen[i], 0, 1, 0);
    for (size_t k = 0; k < ev_fields_n_slots(t->fields); k++) {
      if (!(d->weights[k] > 0)) continue;
      double *own = sums + 2 * (t->fold[i] * n_features + d->codes[k]), *all = sums + 2 * (FOLDS * n_features + d->codes[k]);
      own[0] += label, own[1]++;
      all[0] += label, all[1]++;
    }
  }
  for (size_t f = 0; f <= FOLDS; f++)
    for (size_t k = 0; k < n_features; k++) {
      const double *all = sums + 2 * (FOLDS * n_features + k), *own = sums + 2 * (f * n_features + k);
      double clicks = all[0] - (f < FOLDS ? own[0] : 0), rows = all[1] - (f < FOLDS ? own[1] : 0), s = t->o->smoothing;
      float *fact = t->facts + (f * n_features + k) * EV_TOKEN_FACTS;
      fact[EV_TOKEN_NUMBER] = numbers[k];
      fact[EV_TOKEN_MEAN] = (float)((clicks + s * t->prior) / (rows + s));
      fact[EV_TOKEN_COUNT] = (float)log1p(f < FOLDS ? rows * FOLDS / (FOLDS - 1) : rows); /* as many as all of them would be */
    }
  ev_free(sums);
  return EV_OK;
}

static void sample_rows(void *ctx, size_t begin, size_t end, int worker) {
  trainer *t = ctx;
  for (size_t i = begin; i < end; i++) training_row(t, i * t->n / t->n_sample, &t->desks[worker], t->sample + i * t->n_columns);
}

static void bin_rows(void *ctx, size_t begin, size_t end, int worker) {
  trainer *t = ctx;
  for (size_t i = begin; i < end; i++) {
    training_row(t, i, &t->desks[worker], t->desks[worker].row);
    ev_bins_put(&t->bins, i, t->desks[worker].row);
  }
}

static ev_status make_bins(trainer *t) {
  uint32_t *categories = ev_zalloc(t->n_columns, sizeof *categories);
  t->n_sample = t->n < SAMPLE ? t->n : SAMPLE;
  t->sample = ev_alloc(t->n_sample, t->n_columns * sizeof *t->sample);
  ev_status status = categories == NULL || t->sample == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    for (size_t j = 0; j < t->n_columns; j++)
      if (t->columns[j].kind == EV_TREE_CATEGORY) categories[j] = (uint32_t)ev_fields_at(t->fields, t->columns[j].field)->size;
    ev_parallel_for(t->n_sample, BLOCK, sample_rows, t);
    status = ev_bins_cut(&t->bins, t->sample, t->n_sample, categories, t->n_columns, t->n, t->o->n_bins);
  }
  if (status == EV_OK) ev_parallel_for(t->n, BLOCK, bin_rows, t);
  ev_free(categories);
  ev_free(t->sample);
  t->sample = NULL;
  return status;
}

/* ---- Boosting ------------------------------------------------------------------------------------------*/
static void derive(void *ctx, size_t begin, size_t end, int worker) { /* first and second derivative of the loss, and the loss */
  (void)worker;
  trainer *t = ctx;
  double loss = 0;
  for (size_t i = begin; i < end; i++) {
    float label = t->rows->label[t->chosen[i]], y = t->scores[i], e = expf(-fabsf(y)), p = y >= 0 ? 1 / (1 + e) : e / (1 + e);
    t->gradients[2 * i] = p - label;
    t->gradients[2 * i + 1] = p * (1 - p);
    loss += (double)(label > 0 ? (y < 0 ? -y : 0) : (y > 0 ? y : 0)) + log1p((double)e);
  }
  t->losses[begin / BLOCK] = loss;
}

static double derive_all(trainer *t) {
  double loss = 0;
  ev_parallel_for(t->n, BLOCK, derive, t);
  for (size_t i = 0; i <= (t->n - 1) / BLOCK; i++) loss += t->losses[i];
  return loss / (double)t->n;
}

static ev_status boost(trainer *t, const ev_progress *p) {
  const ev_gbdt_options *o = t->o;
  const ev_grow_options go = {.n_leaves = o->n_leaves, .max_depth = o->max_depth, .l2 = o->l2, .min_gain = o->min_gain, .learning_rate = o->learning_rate,
                              .min_child_weight = o->min_child_weight > 1e-5f ? o->min_child_weight : 1e-5}; /* no side is empty */
  bool some_rows = o->subsample < 1, some_columns = o->column_share < 1;
  uint32_t *rows = some_rows ? ev_alloc(t->n, sizeof *rows) : NULL;
  uint8_t *columns = some_columns ? ev_alloc(t->n_columns, 1) : NULL;
  ev_grower *g = NULL;
  ev_rng rng;
  ev_rng_seed(&rng, o->seed, 2);
  ev_status status = (some_rows && rows == NULL) || (some_columns && columns == NULL) ? EV_ENOMEM : ev_grower_new(&g, &t->bins, &go);
  double loss = status == EV_OK ? derive_all(t) : 0;
  for (unsigned tree = 0; tree < o->n_trees && status == EV_OK; tree++) {
    size_t n = 0, n_columns = 0;
    for (size_t i = 0; some_rows && i < t->n; i++)
      if (ev_rng_f64(&rng) < (double)o->subsample) rows[n++] = (uint32_t)i;
    for (size_t j = 0; some_columns && j < t->n_columns; j++) n_columns += columns[j] = ev_rng_f64(&rng) < (double)o->column_share;
    if (some_columns && n_columns == 0) columns[ev_rng_below(&rng, (uint32_t)t->n_columns)] = 1;
    if (ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
    else if (n > 0 || !some_rows) status = ev_grow(g, &t->forest, t->scores, t->gradients, rows, n, columns);
    if (status != EV_OK) break;
    loss = derive_all(t);
    if (!isfinite(loss)) status = ev_fail(EV_EINVAL, "the trees' loss is no number after tree %u: lower learning_rate (%g) or raise l2 (%g)", tree + 1, (double)o->learning_rate, (double)o->l2);
    if (status == EV_OK && p != NULL) p->report(p->ctx, "tree", tree + 1, o->n_trees, loss);
  }
  ev_grower_free(g);
  ev_free(rows);
  ev_free(columns);
  return status;
}

static ev_status write_forest(const char *path, const trainer *t, const ev_snapshot *s) {
  const ev_forest *f = &t->forest;
  double options[4] = {t->bias, (double)ev_snapshot_n_items(s), (double)ev_snapshot_n_users(s), t->prior};
  uint32_t *nodes = ev_alloc(f->n_nodes, 4 * sizeof *nodes);
  float *numbers = ev_alloc(f->n_nodes, 2 * sizeof *numbers);
  ev_pack_writer *w = NULL;
  ev_status status = nodes == NULL || numbers == NULL ? EV_ENOMEM : EV_OK;
  for (size_t i = 0; i < f->n_nodes && status == EV_OK; i++) {
    const ev_tree_node *n = &f->nodes[i];
    memcpy(nodes + 4 * i, (uint32_t[]){n->column, n->left, n->right, n->flags}, 4 * sizeof *nodes);
    numbers[2 * i] = n->threshold;
    numbers[2 * i + 1] = n->value;
  }
  if (status == EV_OK) status = ev_pack_writer_open(&w, path, "gbdt");
  if (status == EV_OK) status = ev_fields_write(t->fields, w);
  if (status == EV_OK) status = ev_pack_write(w, "columns", EV_U32, t->columns, t->n_columns, 3);
  if (status == EV_OK) status = ev_pack_write(w, "facts", EV_F32, t->facts + FOLDS * t->n_features * EV_TOKEN_FACTS, t->n_features, EV_TOKEN_FACTS);
  if (status == EV_OK) status = ev_pack_write(w, "roots", EV_U32, f->roots, f->n_trees, 1);
  if (status == EV_OK) status = ev_pack_write(w, "nodes", EV_U32, nodes, f->n_nodes, 4);
  if (status == EV_OK) status = ev_pack_write(w, "numbers", EV_F32, numbers, f->n_nodes, 2);
  if (status == EV_OK) status = ev_pack_write(w, "options", EV_F64, options, 4, 1);
  if (status == EV_OK) {
    status = ev_pack_writer_commit(w);
    w = NULL;
  }
  ev_pack_writer_abort(w);
  ev_free(nodes);
  ev_free(numbers);
  return status;
}

static ev_status check(const ev_rank_rows *rows, const ev_gbdt_options *o) {
  if (rows->n_rows == 0) return ev_fail(EV_EINVAL, "a ranker with no candidates to learn from");
  if (o->n_leaves < 2 || o->n_leaves > LEAVES_MAX) return ev_fail(EV_EINVAL, "%u leaves: 2 to %d", o->n_leaves, LEAVES_MAX);
  if (o->n_bins < 3 || o->n_bins > EV_BINS_MAX) return ev_fail(EV_EINVAL, "%u bins: 3 to %d", o->n_bins, EV_BINS_MAX);
  if (!(o->learning_rate > 0) || !(o->l2 >= 0) || !(o->min_child_weight >= 0) || !(o->min_gain >= 0) || !(o->smoothing > 0))
    return ev_fail(EV_EINVAL, "trees: learning_rate %g and smoothing %g must be above 0, l2 %g, min_child_weight %g and min_gain %g not below",
                   (double)o->learning_rate, (double)o->smoothing, (double)o->l2, (double)o->min_child_weight, (double)o->min_gain);
  if (!(o->subsample > 0 && o->subsample <= 1 && o->column_share > 0 && o->column_share <= 1))
    return ev_fail(EV_EINVAL, "trees: subsample %g and column_share %g must be in (0, 1]", (double)o->subsample, (double)o->column_share);
  return EV_OK;
}

static ev_status prepare(trainer *t, const ev_snapshot *s) {
  const ev_fields_options fo = {t->o->user_columns, t->o->item_columns, t->o->n_user_columns, t->o->n_item_columns, t->o->ids};
  ev_row_reader *reader = NULL;
  EV_TRY(ev_fields_fit(&t->fields, s, t->rows, &fo));
  EV_TRY(ev_row_reader_of_rows(&reader, t->fields, s, t->rows));
  t->reader = reader;
  t->n_features = ev_fields_n_features(t->fields);
  float *numbers = ev_alloc(t->n_features, sizeof *numbers);
  t->columns = ev_alloc(EV_TREE_COLUMNS_MAX, sizeof *t->columns);
  ev_status status = numbers == NULL || t->columns == NULL ? EV_ENOMEM : ev_tree_columns(t->columns, &t->n_columns, numbers, t->fields, s, t->o->one_hot);
  if (status == EV_OK && t->n_columns == 0) status = ev_fail(EV_EINVAL, "trees with no columns to go by");
  if (status == EV_OK) {
    t->desks = ev_zalloc((size_t)ev_threads(), sizeof *t->desks);
    t->n_desks = t->desks != NULL ? ev_threads() : 0;
    if (t->desks == NULL) status = EV_ENOMEM;
    for (int i = 0; i < t->n_desks && status == EV_OK; i++)
      if (!new_desk(&t->desks[i], t->fields, t->n_columns)) status = EV_ENOMEM;
  }
  if (status == EV_OK) status = choose(t);
  if (status == EV_OK) status = gather_facts(t, numbers);
  ev_free(numbers);
  if (status == EV_OK) status = make_bins(t);
  if (status != EV_OK) return status;
  t->scores = ev_alloc(t->n, sizeof *t->scores);
  t->gradients = ev_alloc(t->n, 2 * sizeof *t->gradients);
  t->losses = ev_alloc(t->n / BLOCK + 1, sizeof *t->losses);
  if (t->scores == NULL || t->gradients == NULL || t->losses == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < t->n; i++) t->scores[i] = t->bias;
  return EV_OK;
}

ev_status ev_fit_gbdt(const char *path, const ev_snapshot *s, const ev_rank_rows *rows, const ev_gbdt_options *o, const ev_progress *p) {
  EV_TRY(check(rows, o));
  trainer t = {.rows = rows, .o = o};
  ev_status status = prepare(&t, s);
  if (status == EV_OK) status = boost(&t, p);
  if (status == EV_OK) status = write_forest(path, &t, s);
  free_trainer(&t);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
typedef struct forest {
  const ev_tree_column *columns;
  const uint32_t *roots, *nodes; /* nodes (n_nodes, 4) */
  const float *facts, *numbers;
  size_t n_columns, n_trees;
  double bias;
  float prior;
} forest;

static ev_status open_columns(const ev_model *m, forest *x) {
  ev_array a;
  EV_TRY(ev_pack_get(m->pack, "columns", EV_U32, &a));
  if (a.cols != 3 || a.rows == 0 || a.rows > EV_TREE_COLUMNS_MAX) return ev_fail(EV_ECORRUPT, "%s: %zu x %zu columns", ev_pack_path(m->pack), a.rows, a.cols);
  x->columns = a.data;
  x->n_columns = a.rows;
  for (size_t j = 0; j < x->n_columns; j++) {
    const ev_tree_column *c = &x->columns[j];
    const ev_rank_field *f = c->field < ev_fields_n(m->fields) ? ev_fields_at(m->fields, c->field) : NULL;
    bool good = false;
    if (f != NULL) switch (c->kind) {
        case EV_TREE_NUMBER: good = f->type == EV_FLOAT; break;
        case EV_TREE_HAS: good = f->type == EV_TOKEN_LIST && c->code < f->size; break;
        case EV_TREE_MEAN: good = f->type != EV_FLOAT; break;
        case EV_TREE_TOKEN_NUMBER: case EV_TREE_CATEGORY: case EV_TREE_COUNT: good = f->type == EV_TOKEN; break;
        default: break;
      }
    if (!good) return ev_fail(EV_ECORRUPT, "%s: column %zu makes no sense", ev_pack_path(m->pack), j);
  }
  return EV_OK;
}

static ev_status open_nodes(const ev_model *m, forest *x) {
  ev_array roots, nodes;
  const void *numbers;
  EV_TRY(ev_pack_get(m->pack, "roots", EV_U32, &roots));
  EV_TRY(ev_pack_get(m->pack, "nodes", EV_U32, &nodes));
  if (nodes.cols != 4 || nodes.rows >= EV_NONE || roots.cols != 1) return ev_fail(EV_ECORRUPT, "%s: the trees make no sense", ev_pack_path(m->pack));
  EV_TRY(ev_model_array(m, "numbers", EV_F32, nodes.rows, 2, &numbers));
  x->roots = roots.data;
  x->n_trees = roots.rows;
  x->nodes = nodes.data;
  x->numbers = numbers;
  for (size_t i = 0; i < x->n_trees; i++)
    if (x->roots[i] >= nodes.rows) return ev_fail(EV_ECORRUPT, "%s: tree %zu has no root", ev_pack_path(m->pack), i);
  for (size_t i = 0; i < nodes.rows; i++) { /* children come after their parent: every way down ends */
    const uint32_t *n = x->nodes + 4 * i;
    if (n[0] != EV_NONE && (n[0] >= x->n_columns || n[1] <= i || n[1] >= nodes.rows || n[2] <= i || n[2] >= nodes.rows))
      return ev_fail(EV_ECORRUPT, "%s: node %zu makes no sense", ev_pack_path(m->pack), i);
  }
  return EV_OK;
}

static ev_status open_kind(ev_model *m) {
  forest *x = m->state = ev_zalloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  const void *facts, *options;
  EV_TRY(ev_model_array(m, "options", EV_F64, 4, 1, &options));
  double items = ev_model_option(m, 1);
  if (!(items >= 0 && items < EV_NONE)) return ev_fail(EV_ECORRUPT, "%s: the options make no sense", ev_pack_path(m->pack));
  m->n_items = (size_t)items;
  x->bias = ev_model_option(m, 0);
  x->prior = (float)ev_model_option(m, 3);
  EV_TRY(ev_fields_read(&m->fields, m->pack));
  EV_TRY(ev_model_array(m, "facts", EV_F32, ev_fields_n_features(m->fields), EV_TOKEN_FACTS, &facts));
  x->facts = facts;
  EV_TRY(open_columns(m, x));
  return open_nodes(m, x);
}

static void close_kind(ev_model *m) { ev_free(m->state); }

/* A value of the tree for one row. */
static double descend(const forest *x, uint32_t root, const float *row) {
  size_t at = root;
  for (;;) {
    const uint32_t *n = x->nodes + 4 * at;
    if (n[0] == EV_NONE) return x->numbers[2 * at + 1];
    float value = row[n[0]], threshold = x->numbers[2 * at];
    bool left = n[3] & EV_NODE_EQUAL ? value == threshold : isnan(value) ? (n[3] & EV_NODE_MISSING_LEFT) != 0 : value <= threshold;
    at = left ? n[1] : n[2];
  }
}

static ev_status rank(const ev_model *m, const ev_row_reader *r, size_t begin, size_t end, float *out) {
  const forest *x = m->state;
  size_t n_slots = ev_fields_n_slots(m->fields), n_dense = ev_fields_n_dense(m->fields), block = end - begin < SCORE_BLOCK ? end - begin : SCORE_BLOCK;
  uint32_t *codes = ev_alloc(block, n_slots * sizeof *codes);
  float *weights = ev_alloc(block, n_slots * sizeof *weights), *values = ev_alloc(block, n_dense * sizeof *values), *rows = ev_alloc(block, x->n_columns * sizeof *rows);
  ev_status status = codes == NULL || weights == NULL || values == NULL || rows == NULL ? EV_ENOMEM : EV_OK;
  for (size_t first = begin; first < end && status == EV_OK; first += block) {
    size_t n = end - first < block ? end - first : block;
    double sums[SCORE_BLOCK] = {0};
    ev_row_columns(codes, weights, values, r, NULL, first, n, NAN);
    for (size_t i = 0; i < n; i++)
      ev_tree_row(rows + i * x->n_columns, x->columns, x->n_columns, m->fields, x->facts, x->prior, codes + i * n_slots, weights + i * n_slots, values + i * n_dense);
    for (size_t t = 0; t < x->n_trees; t++) /* a tree stays in the nearest cache while all rows go through it */
      for (size_t i = 0; i < n; i++) sums[i] += descend(x, x->roots[t], rows + i * x->n_columns);
    for (size_t i = 0; i < n; i++) out[first - begin + i] = (float)(x->bias + sums[i]);
  }
  ev_free(codes);
  ev_free(weights);
  ev_free(values);
  ev_free(rows);
  return status;
}

const ev_kind ev_kind_gbdt = {"gbdt", open_kind, close_kind, NULL, NULL, rank};
