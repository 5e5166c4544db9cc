/* metrics.c - ranking metrics of lists against what was held out; reward.h gives the formulas.
 *
 * Every metric of every user is one column of a (users, columns) table, so that one pass of a resample serves all. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bootstrap.h"
#include "reward.h"

enum { RECALL, NDCG, HIT, PRECISION, MRR, MAP, NOVELTY, DIVERSITY, N_MEANS };
static const char *const mean_names[N_MEANS] = {"recall", "ndcg", "hit", "precision", "mrr", "map", "novelty", "diversity"};
#define CUTOFFS_MAX 64

struct ev_eval {
  size_t n_users, n_means, n_metrics; /* users averaged; columns of values; metrics with coverage and gini */
  float *values;                      /* (n_users, n_means) */
  float *column;                      /* (n_users) what ev_eval_user_values gave last */
  ev_metric *metrics;                 /* (n_metrics) */
};

void ev_eval_defaults(ev_eval_options *o) {
  static const size_t cutoffs[] = {5, 10, 20};
  *o = (ev_eval_options){.cutoffs = cutoffs, .n_cutoffs = 3, .n_bootstrap = 1000, .confidence = 0.95, .seed = 1};
}

typedef struct table {
  ev_eval *e;
  const ev_eval_options *o;
  const uint32_t *lists, *users, *rows; /* rows (n_users): which lists are averaged */
  size_t k, per_cut;                    /* means a cut-off */
  const ev_view *held;
  const float *novelty;                 /* (n_items) −log2 of the popularity */
} table;

static void measure_user(const table *t, size_t row) {
  size_t list = t->rows[row];
  const uint32_t *items = t->lists + list * t->k;
  uint32_t user = t->users[list];
  const ev_csr *m = &t->held->by_user;
  const uint32_t *relevant = t->held->seen + m->ptr[user];
  size_t n_relevant = m->ptr[user + 1] - m->ptr[user], rank = 0;
  double hits = 0, dcg = 0, first = 0, precisions = 0, novelty = 0, apart = 0, ideal = 0, pairs = 0, shown = 0;
  float *out = t->e->values + row * t->e->n_means;
  for (size_t c = 0; c < t->o->n_cutoffs; c++, out += t->per_cut) {
    size_t k = t->o->cutoffs[c];
    for (; rank < k; rank++) {
      double gain = 1 / log2((double)rank + 2);
      if (rank < n_relevant) ideal += gain;
      if (items[rank] == EV_NONE) continue;
      if (ev_sorted_has(relevant, n_relevant, items[rank])) {
        hits++;
        dcg += gain;
        precisions += hits / (double)(rank + 1);
        if (first == 0) first = 1 / (double)(rank + 1);
      }
      novelty += t->novelty[items[rank]];
      if (t->o->diversity != NULL)
        for (size_t before = 0; before < rank; before++)
          if (items[before] != EV_NONE) apart += 1 - ev_column_alike(t->o->diversity, items[before], items[rank]), pairs++;
      shown++;
    }
    double least = (double)(n_relevant < k ? n_relevant : k);
    out[RECALL] = (float)(hits / (double)n_relevant);
    out[NDCG] = (float)(dcg / ideal);
    out[HIT] = hits > 0;
    out[PRECISION] = (float)(hits / (double)k);
    out[MRR] = (float)first;
    out[MAP] = (float)(precisions / least);
    out[NOVELTY] = (float)(shown > 0 ? novelty / shown : 0);
    if (t->o->diversity != NULL) out[DIVERSITY] = (float)(pairs > 0 ? apart / pairs : 0);
  }
}

static void measure_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  for (size_t row = begin; row < end; row++) measure_user(ctx, row);
}

static int by_count(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* Coverage and Gini index (of the counts sorted ascending: Σ (2i − n − 1) cᵢ / (n Σ cᵢ), i from 1). Sorts the counts. */
static void spread(uint32_t *counts, size_t n, double *coverage, double *gini) {
  double sum = 0, weighted = 0;
  size_t shown = 0;
  qsort(counts, n, sizeof *counts, by_count);
  for (size_t i = 0; i < n; i++) {
    shown += counts[i] > 0;
    sum += counts[i];
    weighted += (2.0 * (double)(i + 1) - (double)n - 1) * counts[i];
  }
  *coverage = n > 0 ? (double)shown / (double)n : 0;
  *gini = sum > 0 ? weighted / ((double)n * sum) : 0;
}

typedef struct listing {
  const table *t;
  size_t k, n_items;
  double *coverage, *gini; /* (resamples) */
  atomic_bool failed;
} listing;

static void count_lists(const table *t, size_t k, const uint32_t *rows, size_t n, uint32_t *counts) {
  for (size_t i = 0; i < n; i++) {
    const uint32_t *items = t->lists + (size_t)t->rows[rows != NULL ? rows[i] : i] * t->k;
    for (size_t r = 0; r < k; r++)
      if (items[r] != EV_NONE) counts[items[r]]++;
  }
}

static void resample_lists(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  listing *l = ctx;
  size_t n = l->t->e->n_users;
  uint32_t *drawn = ev_alloc(n, sizeof *drawn), *counts = ev_alloc(l->n_items, sizeof *counts);
  if (drawn == NULL || counts == NULL) atomic_store(&l->failed, true);
  for (size_t b = begin; b < end && !atomic_load(&l->failed); b++) {
    ev_bootstrap_draw(drawn, n, (unsigned)b, l->t->o->seed);
    memset(counts, 0, l->n_items * sizeof *counts);
    count_lists(l->t, l->k, drawn, n, counts);
    spread(counts, l->n_items, &l->coverage[b], &l->gini[b]);
  }
  ev_free(drawn);
  ev_free(counts);
}

/* The percentile interval moved so that the resamples' mean falls on the value. */
static void centre(ev_metric *m, double *x, size_t n, double confidence) {
  double mean = 0;
  m->low = m->high = m->value;
  if (n == 0) return;
  for (size_t i = 0; i < n; i++) mean += x[i] / (double)n;
  m->low = m->value + ev_quantile(x, n, (1 - confidence) / 2) - mean;
  m->high = m->value + ev_quantile(x, n, (1 + confidence) / 2) - mean;
}

static ev_status measure_whole(const table *t, size_t n_items, ev_metric *out) {
  unsigned resamples = t->o->n_bootstrap < EV_LIST_RESAMPLES ? t->o->n_bootstrap : EV_LIST_RESAMPLES;
  uint32_t *counts = ev_alloc(n_items, sizeof *counts);
  double *coverage = ev_alloc(resamples, sizeof *coverage), *gini = ev_alloc(resamples, sizeof *gini);
  ev_status status = counts == NULL || coverage == NULL || gini == NULL ? EV_ENOMEM : EV_OK;
  for (size_t c = 0; c < t->o->n_cutoffs && status == EV_OK; c++, out += 2) {
    size_t k = t->o->cutoffs[c];
    listing l = {.t = t, .k = k, .n_items = n_items, .coverage = coverage, .gini = gini};
    memset(counts, 0, n_items * sizeof *counts);
    count_lists(t, k, NULL, t->e->n_users, counts);
    snprintf(out[0].name, sizeof out[0].name, "coverage@%zu", k);
    snprintf(out[1].name, sizeof out[1].name, "gini@%zu", k);
    spread(counts, n_items, &out[0].value, &out[1].value);
    ev_parallel_for(resamples, 1, resample_lists, &l);
    if (atomic_load(&l.failed)) {
      status = ev_fail(EV_ENOMEM, "out of memory: counting lists");
      break;
    }
    centre(&out[0], coverage, resamples, t->o->confidence);
    centre(&out[1], gini, resamples, t->o->confidence);
  }
  ev_free(counts);
  ev_free(coverage);
  ev_free(gini);
  return status;
}

static ev_status measure_means(const table *t, ev_metric *out) {
  ev_eval *e = t->e;
  unsigned resamples = t->o->n_bootstrap;
  double *means = ev_alloc(resamples, e->n_means * sizeof *means), *one = ev_alloc(resamples, sizeof *one);
  ev_status status = means == NULL || one == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK && resamples > 0) status = ev_bootstrap_means(means, e->values, e->n_users, e->n_means, resamples, t->o->seed);
  for (size_t c = 0; c < e->n_means && status == EV_OK; c++) {
    double sum = 0;
    for (size_t u = 0; u < e->n_users; u++) sum += e->values[u * e->n_means + c];
    ev_metric *m = &out[c];
    snprintf(m->name, sizeof m->name, "%s@%zu", mean_names[c % t->per_cut], t->o->cutoffs[c / t->per_cut]);
    m->value = m->low = m->high = sum / (double)e->n_users;
    if (resamples == 0) continue;
    for (unsigned b = 0; b < resamples; b++) one[b] = means[b * e->n_means + c];
    m->low = ev_quantile(one, resamples, (1 - t->o->confidence) / 2);
    m->high = ev_quantile(one, resamples, (1 + t->o->confidence) / 2);
  }
  ev_free(means);
  ev_free(one);
  return status;
}

static ev_status check(const uint32_t *lists, size_t k, const uint32_t *users, size_t n, const ev_view *held, const ev_view *train, const ev_eval_options *o) {
  if (o->n_cutoffs == 0 || o->n_cutoffs > CUTOFFS_MAX) return ev_fail(EV_EINVAL, "%zu cut-offs: 1 to %d", o->n_cutoffs, CUTOFFS_MAX);
  for (size_t c = 0; c < o->n_cutoffs; c++)
    if (o->cutoffs[c] == 0 || o->cutoffs[c] > k || (c > 0 && o->cutoffs[c] <= o->cutoffs[c - 1]))
      return ev_fail(EV_EINVAL, "cut-off %zu: they ascend, and lists have %zu places", o->cutoffs[c], k);
  if (o->n_bootstrap > 0 && !(o->confidence > 0 && o->confidence < 1)) return ev_fail(EV_EINVAL, "a confidence of %g", o->confidence);
  if (o->diversity != NULL && o->diversity->type == EV_FLOAT) return ev_fail(EV_EINVAL, "diversity goes by tokens, column '%s' holds numbers", o->diversity->name);
  if (train->by_item.n_rows != held->by_item.n_rows) return ev_fail(EV_EINVAL, "held-out and training data are of different snapshots");
  for (size_t i = 0; i < n; i++)
    if (users[i] >= held->by_user.n_rows) return ev_fail(EV_EINVAL, "list %zu is of user %u, there are %zu", i, users[i], held->by_user.n_rows);
  for (size_t i = 0; i < n * k; i++)
    if (lists[i] != EV_NONE && lists[i] >= held->by_item.n_rows) return ev_fail(EV_EINVAL, "list %zu has item %u, there are %zu", i / k, lists[i], held->by_item.n_rows);
  return EV_OK;
}

ev_status ev_eval_new(ev_eval **out, const uint32_t *lists, size_t k, const uint32_t *users, size_t n_users, const ev_view *held,
                      const ev_view *train, const ev_eval_options *o) {
  *out = NULL;
  EV_TRY(check(lists, k, users, n_users, held, train, o));
  size_t n_items = train->by_item.n_rows, n = 0, active = 0;
  uint32_t *rows = ev_alloc(n_users, sizeof *rows);
  float *novelty = ev_alloc(n_items, sizeof *novelty);
  ev_eval *e = ev_zalloc(1, sizeof *e);
  ev_status status = EV_ENOMEM;
  if (rows == NULL || novelty == NULL || e == NULL) goto done;
  for (size_t i = 0; i < n_users; i++)
    if (held->by_user.ptr[users[i] + 1] > held->by_user.ptr[users[i]]) rows[n++] = (uint32_t)i;
  if (n == 0) {
    status = ev_fail(EV_EINVAL, "no user has anything held out");
    goto done;
  }
  for (size_t u = 0; u < train->by_user.n_rows; u++) active += train->by_user.ptr[u + 1] > train->by_user.ptr[u];
  for (size_t i = 0; i < n_items; i++) {
    double popularity = (double)(train->by_item.ptr[i + 1] - train->by_item.ptr[i]);
    novelty[i] = (float)-log2((popularity > 1 ? popularity : 1) / (double)(active > 0 ? active : 1));
  }
  table t = {.e = e, .o = o, .lists = lists, .users = users, .rows = rows, .k = k, .held = held, .novelty = novelty};
  t.per_cut = o->diversity != NULL ? N_MEANS : N_MEANS - 1;
  e->n_users = n;
  e->n_means = t.per_cut * o->n_cutoffs;
  e->n_metrics = e->n_means + 2 * o->n_cutoffs;
  e->values = ev_alloc(n, e->n_means * sizeof *e->values);
  e->column = ev_alloc(n, sizeof *e->column);
  e->metrics = ev_zalloc(e->n_metrics, sizeof *e->metrics);
  if (e->values == NULL || e->column == NULL || e->metrics == NULL) goto done;
  ev_parallel_for(n, 256, measure_rows, &t);
  status = measure_means(&t, e->metrics);
  if (status == EV_OK) status = measure_whole(&t, n_items, e->metrics + e->n_means);
done:
  ev_free(rows);
  ev_free(novelty);
  if (status == EV_OK) *out = e;
  else ev_eval_free(e);
  return status;
}

void ev_eval_free(ev_eval *e) {
  if (e == NULL) return;
  ev_free(e->values);
  ev_free(e->column);
  ev_free(e->metrics);
  ev_free(e);
}

size_t ev_eval_n(const ev_eval *e) { return e->n_metrics; }
const ev_metric *ev_eval_at(const ev_eval *e, size_t i) { return &e->metrics[i]; }
size_t ev_eval_n_users(const ev_eval *e) { return e->n_users; }

const float *ev_eval_user_values(const ev_eval *e, const char *metric) {
  for (size_t c = 0; c < e->n_means; c++) {
    if (strcmp(e->metrics[c].name, metric) != 0) continue;
    for (size_t u = 0; u < e->n_users; u++) e->column[u] = e->values[u * e->n_means + c];
    return e->column;
  }
  return NULL;
}
