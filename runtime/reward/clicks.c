/* clicks.c - how well logits tell clicks: areas under the curve and log loss, with users resampled; reward.h gives the formulas.
 *
 * An area is no mean over users, so each resample works it out anew: rows are sorted once, and one pass over them with the
 * number of times each row's user was drawn gives the area. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bootstrap.h"
#include "reward.h"

static const char *const names[EV_CLICK_METRICS] = {"auc", "gauc", "log_loss"};

typedef struct of_user {
  double loss, area; /* sum of losses; area, where there are both labels */
  uint32_t n, positives;
} of_user;

typedef struct system_rows { /* one ranker's rows */
  const ev_clicks *c;
  uint32_t *order; /* (n) rows by logit, ascending */
  of_user *users;  /* (n_users) */
} system_rows;

typedef struct people {
  uint32_t *of_row; /* (n) place of the row's user */
  size_t n;
} people;

static int by_logit(const void *a, const void *b, void *logits) {
  const float *logit = logits;
  uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
  return logit[i] != logit[j] ? (logit[i] < logit[j] ? -1 : 1) : i < j ? -1 : i > j;
}

static int by_user(const void *a, const void *b, void *users) {
  const uint32_t *user = users;
  uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
  return user[i] != user[j] ? (user[i] < user[j] ? -1 : 1) : i < j ? -1 : i > j;
}

/* Area under the curve of the rows in `order`, n of them ascending by logit, a row counting weights[its user] times; NULL: once.
 * NaN when there is one label only. */
static double area(const system_rows *s, const uint32_t *order, size_t n, const uint32_t *of_row, const uint32_t *weights) {
  const float *logit = s->c->logit, *label = s->c->label;
  double right = 0, positives = 0, negatives = 0;
  for (size_t i = 0, end; i < n; i = end) {
    double here[2] = {0, 0};
    for (end = i; end < n && logit[order[end]] == logit[order[i]]; end++) here[label[order[end]] > 0] += weights != NULL ? weights[of_row[order[end]]] : 1;
    right += here[1] * (negatives + 0.5 * here[0]);
    negatives += here[0];
    positives += here[1];
  }
  return positives > 0 && negatives > 0 ? right / (positives * negatives) : NAN;
}

/* The metrics of a sample of users, each as often as weights say; NULL: once. */
static void measure(double out[EV_CLICK_METRICS], const system_rows *s, const people *p, const uint32_t *weights) {
  double loss = 0, rows = 0, areas = 0, rows_of_areas = 0;
  for (size_t u = 0; u < p->n; u++) {
    const of_user *x = &s->users[u];
    double w = weights != NULL ? weights[u] : 1;
    loss += w * x->loss;
    rows += w * x->n;
    if (x->positives == 0 || x->positives == x->n) continue;
    areas += w * x->n * x->area;
    rows_of_areas += w * x->n;
  }
  out[EV_CLICK_AUC] = area(s, s->order, s->c->n, p->of_row, weights);
  out[EV_CLICK_GAUC] = rows_of_areas > 0 ? areas / rows_of_areas : NAN;
  out[EV_CLICK_LOG_LOSS] = loss / rows;
}

static ev_status check(const ev_clicks *c) {
  size_t positives = 0;
  if (c->n == 0 || c->n >= EV_NONE) return ev_fail(EV_EINVAL, "%zu rows of clicks", c->n);
  for (size_t i = 0; i < c->n; i++) {
    if (isnan(c->logit[i])) return ev_fail(EV_EINVAL, "row %zu of the clicks has a logit that is no number", i);
    positives += c->label[i] > 0;
  }
  if (positives == 0 || positives == c->n) return ev_fail(EV_EINVAL, "all %zu rows have the label %d: there is nothing to tell apart", c->n, positives > 0);
  return EV_OK;
}

static ev_status find_people(people *p, const ev_clicks *c) {
  uint32_t *order = ev_alloc(c->n, sizeof *order);
  p->of_row = ev_alloc(c->n, sizeof *p->of_row);
  if (order == NULL || p->of_row == NULL) {
    ev_free(order);
    return EV_ENOMEM;
  }
  for (uint32_t i = 0; i < c->n; i++) order[i] = i;
  qsort_r(order, c->n, sizeof *order, by_user, (void *)(uintptr_t)c->user);
  p->n = 0;
  for (size_t i = 0; i < c->n; i++) {
    if (i > 0 && c->user[order[i]] != c->user[order[i - 1]]) p->n++;
    p->of_row[order[i]] = (uint32_t)p->n;
  }
  p->n++;
  ev_free(order);
  return EV_OK;
}

/* −log p of the label, whatever the logit's size. */
static double loss_of(float logit, float label) {
  double y = label > 0 ? logit : -(double)logit;
  return y > 0 ? log1p(exp(-y)) : log1p(exp(y)) - y;
}

static void free_system(system_rows *s) {
  ev_free(s->order);
  ev_free(s->users);
  *s = (system_rows){0};
}

static ev_status new_system(system_rows *s, const ev_clicks *c, const people *p) {
  uint64_t *ptr = ev_zalloc(p->n + 1, sizeof *ptr);
  uint32_t *own = ev_alloc(c->n, sizeof *own); /* rows user by user, each user's by logit */
  *s = (system_rows){.c = c, .order = ev_alloc(c->n, sizeof *s->order), .users = ev_zalloc(p->n, sizeof *s->users)};
  ev_status status = ptr == NULL || own == NULL || s->order == NULL || s->users == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    for (uint32_t i = 0; i < c->n; i++) s->order[i] = i, ptr[p->of_row[i] + 1]++;
    qsort_r(s->order, c->n, sizeof *s->order, by_logit, (void *)(uintptr_t)c->logit);
    for (size_t u = 0; u < p->n; u++) ptr[u + 1] += ptr[u];
    for (size_t i = 0; i < c->n; i++) {
      uint32_t row = s->order[i];
      of_user *x = &s->users[p->of_row[row]];
      own[ptr[p->of_row[row]] + x->n++] = row;
      x->positives += c->label[row] > 0;
      x->loss += loss_of(c->logit[row], c->label[row]);
    }
    for (size_t u = 0; u < p->n; u++) s->users[u].area = area(s, own + ptr[u], s->users[u].n, NULL, NULL);
  }
  ev_free(ptr);
  ev_free(own);
  if (status != EV_OK) free_system(s);
  return status;
}

typedef struct resampling {
  const system_rows *systems;
  size_t n_systems;
  const people *p;
  uint64_t seed;
  double *values; /* (resamples, n_systems, EV_CLICK_METRICS) */
  atomic_bool failed;
} resampling;

static void resample(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  resampling *r = ctx;
  size_t n = r->p->n;
  uint32_t *drawn = ev_alloc(n, sizeof *drawn), *weights = ev_alloc(n, sizeof *weights);
  if (drawn == NULL || weights == NULL) atomic_store(&r->failed, true);
  for (size_t b = begin; b < end && !atomic_load(&r->failed); b++) {
    ev_bootstrap_draw(drawn, n, (unsigned)b, r->seed);
    memset(weights, 0, n * sizeof *weights);
    for (size_t i = 0; i < n; i++) weights[drawn[i]]++;
    for (size_t s = 0; s < r->n_systems; s++) measure(r->values + (b * r->n_systems + s) * EV_CLICK_METRICS, &r->systems[s], r->p, weights);
  }
  ev_free(drawn);
  ev_free(weights);
}

/* Metrics of each system, and of resamples. @param[out] value (n, EV_CLICK_METRICS), *resamples (n_bootstrap, n, EV_CLICK_METRICS) */
static ev_status run(double *value, double **resamples, const ev_clicks *const *c, size_t n, unsigned n_bootstrap, double confidence, uint64_t seed) {
  *resamples = NULL;
  if (n_bootstrap > 0 && !(confidence > 0 && confidence < 1)) return ev_fail(EV_EINVAL, "a confidence of %g", confidence);
  people p = {0};
  system_rows systems[2] = {{0}, {0}};
  ev_status status = EV_OK;
  for (size_t s = 0; s < n && status == EV_OK; s++) status = check(c[s]);
  if (status == EV_OK) status = find_people(&p, c[0]);
  for (size_t s = 0; s < n && status == EV_OK; s++) status = new_system(&systems[s], c[s], &p);
  if (status == EV_OK) *resamples = ev_alloc(n_bootstrap, n * EV_CLICK_METRICS * sizeof **resamples);
  if (status == EV_OK && *resamples == NULL) status = EV_ENOMEM;
  if (status == EV_OK) {
    resampling r = {.systems = systems, .n_systems = n, .p = &p, .seed = seed, .values = *resamples};
    for (size_t s = 0; s < n; s++) measure(value + s * EV_CLICK_METRICS, &systems[s], &p, NULL);
    ev_parallel_for(n_bootstrap, 4, resample, &r);
    if (atomic_load(&r.failed)) status = ev_fail(EV_ENOMEM, "out of memory");
  }
  for (size_t s = 0; s < n; s++) free_system(&systems[s]);
  ev_free(p.of_row);
  if (status != EV_OK) {
    ev_free(*resamples);
    *resamples = NULL;
  }
  return status;
}

ev_status ev_click_measure(ev_metric out[EV_CLICK_METRICS], const ev_clicks *c, unsigned n_bootstrap, double confidence, uint64_t seed) {
  double value[EV_CLICK_METRICS], *resamples = NULL, *one = ev_alloc(n_bootstrap, sizeof *one);
  ev_status status = one == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) status = run(value, &resamples, &c, 1, n_bootstrap, confidence, seed);
  for (size_t m = 0; m < EV_CLICK_METRICS && status == EV_OK; m++) {
    size_t n = 0;
    for (unsigned b = 0; b < n_bootstrap; b++)
      if (!isnan(resamples[b * EV_CLICK_METRICS + m])) one[n++] = resamples[b * EV_CLICK_METRICS + m];
    out[m] = (ev_metric){.value = value[m], .low = value[m], .high = value[m]};
    snprintf(out[m].name, sizeof out[m].name, "%s", names[m]);
    if (n > 0) out[m].low = ev_quantile(one, n, (1 - confidence) / 2), out[m].high = ev_quantile(one, n, (1 + confidence) / 2);
  }
  ev_free(resamples);
  ev_free(one);
  return status;
}

ev_status ev_click_compare(ev_difference out[EV_CLICK_METRICS], const ev_clicks *a, const ev_clicks *b, unsigned n_bootstrap, double confidence, uint64_t seed) {
  if (a->n != b->n || memcmp(a->user, b->user, a->n * sizeof *a->user) != 0 || memcmp(a->label, b->label, a->n * sizeof *a->label) != 0)
    return ev_fail(EV_EINVAL, "two rankers are compared on the same rows only");
  if (n_bootstrap == 0) return ev_fail(EV_EINVAL, "a comparison without resamples");
  const ev_clicks *const both[2] = {a, b};
  double value[2][EV_CLICK_METRICS], *resamples = NULL, *one = ev_alloc(n_bootstrap, sizeof *one);
  ev_status status = one == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) status = run(value[0], &resamples, both, 2, n_bootstrap, confidence, seed);
  for (size_t m = 0; m < EV_CLICK_METRICS && status == EV_OK; m++) {
    size_t n = 0;
    for (unsigned k = 0; k < n_bootstrap; k++) {
      const double *x = resamples + (size_t)k * 2 * EV_CLICK_METRICS + m;
      if (!isnan(x[0]) && !isnan(x[EV_CLICK_METRICS])) one[n++] = x[EV_CLICK_METRICS] - x[0];
    }
    out[m] = (ev_difference){.value = value[1][m] - value[0][m], .low = NAN, .high = NAN, .p = 1};
    if (n > 0) ev_bootstrap_difference(&out[m], one, n, confidence);
  }
  ev_free(resamples);
  ev_free(one);
  return status;
}
