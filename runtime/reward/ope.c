/* ope.c - off-policy estimators of one decision a row (reward.h names them and their papers).
 *
 * Every estimator is a mean of one column, or a ratio of two means, so one bootstrap over all columns at once serves all of
 * them, and differences between estimators are not blurred by different draws. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bootstrap.h"
#include "ope.h"
#include "reward.h"

static const char *const names[EV_OPE_KINDS] = {"dm", "ips", "snips", "clipped_ips", "dr", "sndr", "switch_dr", "dros", "mrdr"};
const char *ev_ope_name(ev_ope_kind k) { return (unsigned)k < EV_OPE_KINDS ? names[k] : "?"; }

void ev_ope_defaults(ev_ope_options *o) {
  *o = (ev_ope_options){.clip = NAN, .switch_at = NAN, .shrink = NAN, .reward_low = NAN, .reward_high = NAN, .max_weight = NAN,
                        .confidence = 0.95, .n_bootstrap = 1000, .max_unsupported = 0.01, .seed = 1};
}

ev_status ev_ope_check(const ev_ope_log *log) {
  if (log->n == 0) return ev_fail(EV_EINVAL, "a log of no rows");
  if (log->n >= UINT32_MAX || log->n_arms == 0 || log->n_positions == 0)
    return ev_fail(EV_EINVAL, "a log of %zu rows, %zu arms and %zu positions", log->n, log->n_arms, log->n_positions);
  for (size_t i = 0; i < log->n; i++) {
    if (log->arm[i] >= log->n_arms) return ev_fail(EV_EINVAL, "row %zu: arm %u of %zu", i, log->arm[i], log->n_arms);
    if (log->position != NULL && log->position[i] >= log->n_positions)
      return ev_fail(EV_EINVAL, "row %zu: position %u of %zu", i, log->position[i], log->n_positions);
    if (!isfinite(log->reward[i])) return ev_fail(EV_EINVAL, "row %zu: the reward is %g", i, log->reward[i]);
    if (!(log->propensity[i] > 0 && log->propensity[i] <= 1))
      return ev_fail(EV_EINVAL, "row %zu: the propensity is %g, not above 0 and at most 1", i, log->propensity[i]);
  }
  return EV_OK;
}

/* ---- Reduction -----------------------------------------------------------------------------------------*/
const double *ope_row(const ev_ope_matrix *m, double *buffer, size_t row, size_t n_arms) {
  if (m->at != NULL) return m->at + row * n_arms;
  m->fn(m->ctx, buffer, row);
  return buffer;
}

ev_status ope_check_distribution(const double *p, size_t n_arms, size_t row) {
  double sum = 0;
  for (size_t a = 0; a < n_arms; a++) {
    if (!(p[a] >= 0 && p[a] <= 1 + 1e-9)) return ev_fail(EV_EINVAL, "row %zu: the policy gives arm %zu the probability %g", row, a, p[a]);
    sum += p[a];
  }
  return fabs(sum - 1) <= 1e-6 ? EV_OK : ev_fail(EV_EINVAL, "row %zu: the policy's probabilities add up to %.9g, not to 1", row, sum);
}

static ev_status predicted(double *q, double *v, ev_ope_columns *c, const double *pi, const double *model, size_t n_arms, uint32_t arm, size_t row) {
  double sum = 0;
  for (size_t a = 0; a < n_arms; a++) {
    if (!isfinite(model[a])) return ev_fail(EV_EINVAL, "row %zu: the reward model predicts %g for arm %zu", row, model[a], a);
    if (model[a] < c->q_low) c->q_low = model[a];
    if (model[a] > c->q_high) c->q_high = model[a];
    sum += pi[a] * model[a];
  }
  q[row] = model[arm];
  v[row] = sum;
  return EV_OK;
}

static ev_status reduce(ev_ope_columns *c, const ev_ope_log *log, const ev_ope_matrix *policy, const ev_ope_matrix *q, const ev_ope_matrix *mrdr_q,
                        double *buffer, double *missing, uint32_t *shown) {
  size_t n_arms = log->n_arms;
  for (size_t i = 0; i < log->n; i++) shown[(log->position != NULL ? log->position[i] : 0) * n_arms + log->arm[i]]++;
  for (size_t i = 0; i < log->n; i++) {
    if (i % 4096 == 0 && ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    const double *pi = ope_row(policy, buffer, i, n_arms);
    size_t position = log->position != NULL ? log->position[i] : 0;
    EV_TRY(ope_check_distribution(pi, n_arms, i));
    c->weight[i] = pi[log->arm[i]] / log->propensity[i];
    c->reward[i] = log->reward[i];
    for (size_t a = 0; a < n_arms; a++)
      if (shown[position * n_arms + a] == 0) missing[position * n_arms + a] += pi[a];
    if (q != NULL) EV_TRY(predicted(c->q, c->v, c, pi, ope_row(q, buffer + n_arms, i, n_arms), n_arms, log->arm[i], i));
    if (mrdr_q != NULL) EV_TRY(predicted(c->mrdr_q, c->mrdr_v, c, pi, ope_row(mrdr_q, buffer + n_arms, i, n_arms), n_arms, log->arm[i], i));
  }
  double most = 0;
  for (size_t i = 0; i < log->n_positions * n_arms; i++) {
    c->unsupported += missing[i] / (double)log->n;
    if (missing[i] > most) most = missing[i], c->worst_position = (uint32_t)(i / n_arms), c->worst_arm = (uint32_t)(i % n_arms);
  }
  return EV_OK;
}

ev_status ev_ope_reduce(ev_ope_columns *out, const ev_ope_log *log, const ev_ope_matrix *policy, const ev_ope_matrix *q, const ev_ope_matrix *mrdr_q) {
  *out = (ev_ope_columns){.n = log->n, .q_low = INFINITY, .q_high = -INFINITY, .worst_arm = EV_NONE, .worst_position = EV_NONE};
  EV_TRY(ev_ope_check(log));
  double *buffer = ev_alloc(2 * log->n_arms, sizeof *buffer), *missing = ev_zalloc(log->n_positions, log->n_arms * sizeof *missing);
  uint32_t *shown = ev_zalloc(log->n_positions, log->n_arms * sizeof *shown);
  ev_status status = buffer == NULL || missing == NULL || shown == NULL ? EV_ENOMEM : EV_OK;
  double **wanted[] = {&out->weight, &out->reward, &out->q, &out->v, &out->mrdr_q, &out->mrdr_v};
  for (size_t i = 0; i < 6 && status == EV_OK; i++) {
    if ((i / 2 == 1 && q == NULL) || (i / 2 == 2 && mrdr_q == NULL)) continue;
    *wanted[i] = ev_alloc(log->n, sizeof **wanted[i]);
    if (*wanted[i] == NULL) status = EV_ENOMEM;
  }
  if (status == EV_OK) status = reduce(out, log, policy, q, mrdr_q, buffer, missing, shown);
  ev_free(buffer);
  ev_free(missing);
  ev_free(shown);
  if (status != EV_OK) ev_ope_columns_free(out);
  return status;
}

ev_status ev_ope_reduce_fit(ev_ope_columns *out, const ev_ope_log *log, const ev_ope_matrix *policy, const ev_ope_fit *fit, const ev_ope_matrix *mrdr_q) {
  ev_ope_matrix q = {.at = ev_ope_fit_q(fit)};
  EV_TRY(ev_ope_reduce(out, log, policy, &q, mrdr_q));
  out->fit = fit;
  out->moved = ev_alloc(log->n, sizeof *out->moved);
  ev_status status = out->moved == NULL ? EV_ENOMEM : ev_ope_fit_moved(out->moved, fit, policy, NULL);
  if (status != EV_OK) ev_ope_columns_free(out);
  return status;
}

void ev_ope_columns_free(ev_ope_columns *c) {
  ev_free(c->weight);
  ev_free(c->reward);
  ev_free(c->q);
  ev_free(c->v);
  ev_free(c->mrdr_q);
  ev_free(c->mrdr_v);
  ev_free(c->moved);
  *c = (ev_ope_columns){0};
}

ev_status ev_ope_mrdr_weights(double *weight, const ev_ope_log *log, const ev_ope_matrix *policy) {
  EV_TRY(ev_ope_check(log));
  double *buffer = ev_alloc(log->n_arms, sizeof *buffer), sum = 0;
  if (buffer == NULL) return EV_ENOMEM;
  ev_status status = EV_OK;
  for (size_t i = 0; i < log->n && status == EV_OK; i++) {
    const double *pi = ope_row(policy, buffer, i, log->n_arms);
    double p = log->propensity[i], chosen = pi[log->arm[i]];
    status = ope_check_distribution(pi, log->n_arms, i);
    weight[i] = chosen * chosen * (1 - p) / (p * p);
    sum += weight[i];
  }
  ev_free(buffer);
  /* A mean of 1 keeps the penalty's meaning. Propensities of 1 leave nothing to choose: then all rows count the same. */
  for (size_t i = 0; i < log->n && status == EV_OK; i++) weight[i] = sum > 0 ? weight[i] * ((double)log->n / sum) : 1;
  return status;
}

/* ---- Intervals -----------------------------------------------------------------------------------------*/
double ev_ope_bernstein(double variance, double range, size_t n, double confidence) {
  double l = log(4 / (1 - confidence)); /* each side errs with half of 1 − confidence */
  return sqrt(2 * variance * l / (double)n) + 7 * range * l / (3 * (double)(n - 1));
}

size_t ev_ope_slope(const double *value, const double *width, size_t n) {
  double low = -INFINITY, high = INFINITY;
  for (size_t i = 0; i < n; i++) {
    if (value[i] - 2 * width[i] > low) low = value[i] - 2 * width[i];
    if (value[i] + 2 * width[i] < high) high = value[i] + 2 * width[i];
    if (low > high) return i - 1; /* the first interval is never empty */
  }
  return n - 1;
}

double ope_mean(const double *x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += x[i];
  return sum / (double)n;
}

double ope_variance(const double *x, size_t n) { /* unbiased, in two passes */
  double mean = ope_mean(x, n), sum = 0;
  for (size_t i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
  return n > 1 ? sum / (double)(n - 1) : 0;
}

ev_status ope_check_clusters(const ev_ope_options *o, size_t n) {
  if (o->cluster == NULL) return EV_OK;
  if (o->n_clusters < 2 || o->n_clusters > n) return ev_fail(EV_EINVAL, "%zu clusters of %zu rows", o->n_clusters, n);
  uint8_t *there = ev_zalloc(o->n_clusters, 1);
  if (there == NULL) return EV_ENOMEM;
  ev_status status = EV_OK;
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    if (o->cluster[i] >= o->n_clusters) status = ev_fail(EV_EINVAL, "row %zu: cluster %u of %zu", i, o->cluster[i], o->n_clusters);
    else there[o->cluster[i]] = 1;
  }
  for (size_t g = 0; g < o->n_clusters && status == EV_OK; g++)
    if (!there[g]) status = ev_fail(EV_EINVAL, "cluster %zu has no rows", g);
  ev_free(there);
  return status;
}

ev_status ope_standard_error(double *out, const double *x, size_t n, const ev_ope_options *o) {
  *out = sqrt(ope_variance(x, n) / (double)n);
  if (o->cluster == NULL) return EV_OK;
  double mean = ope_mean(x, n), squares = 0, g = (double)o->n_clusters, *sum = ev_zalloc(o->n_clusters, sizeof *sum);
  if (sum == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < n; i++) sum[o->cluster[i]] += x[i] - mean;
  for (size_t c = 0; c < o->n_clusters; c++) squares += sum[c] * sum[c];
  *out = sqrt(squares * g / (g - 1)) / (double)n; /* Liang and Zeger 1986 */
  ev_free(sum);
  return EV_OK;
}

typedef struct resampling {
  double *means;       /* (n_resamples, n_columns) */
  const double *rows;  /* (n, n_columns) */
  const double *count; /* (n) rows that each stands for, or NULL: 1 */
  size_t n, n_columns;
  uint64_t seed;
} resampling;

static void resample(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const resampling *s = ctx;
  for (size_t b = begin; b < end; b++) {
    if (ev_interrupted()) return;
    ev_rng r;
    double *sum = s->means + b * s->n_columns, count = 0;
    ev_rng_seed(&r, s->seed, b + 1); /* the draws of bootstrap.c */
    memset(sum, 0, s->n_columns * sizeof *sum);
    for (size_t i = 0; i < s->n; i++) {
      size_t drawn = ev_rng_below(&r, (uint32_t)s->n);
      const double *row = s->rows + drawn * s->n_columns;
      count += s->count != NULL ? s->count[drawn] : 1;
      for (size_t c = 0; c < s->n_columns; c++) sum[c] += row[c];
    }
    for (size_t c = 0; c < s->n_columns; c++) sum[c] /= count;
  }
}

ev_status ope_bootstrap(double *means, const double *rows, size_t n, size_t n_columns, const ev_ope_options *o) {
  resampling s = {means, rows, NULL, n, n_columns, o->seed};
  double *sums = NULL, *count = NULL;
  if (o->cluster != NULL) {
    sums = ev_zalloc(o->n_clusters, n_columns * sizeof *sums);
    count = ev_zalloc(o->n_clusters, sizeof *count);
    for (size_t i = 0; i < n && sums != NULL && count != NULL; i++) {
      count[o->cluster[i]]++;
      for (size_t c = 0; c < n_columns; c++) sums[o->cluster[i] * n_columns + c] += rows[i * n_columns + c];
    }
    s.rows = sums, s.count = count, s.n = o->n_clusters;
  }
  ev_status status = o->cluster != NULL && (sums == NULL || count == NULL) ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) ev_parallel_for(o->n_bootstrap, 4, resample, &s);
  ev_free(sums);
  ev_free(count);
  if (status == EV_OK && ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
  return status;
}

void ope_interval(ev_ope_estimate *e, double *x, size_t n, double confidence) {
  size_t kept = 0;
  for (size_t i = 0; i < n; i++) /* a resample whose weights are all 0 has no ratio */
    if (isfinite(x[i])) x[kept++] = x[i];
  e->low = kept > 0 ? ev_quantile(x, kept, (1 - confidence) / 2) : NAN;
  e->high = kept > 0 ? ev_quantile(x, kept, (1 + confidence) / 2) : NAN;
}

/* What ratios ρ = E w x / E w are not refuted by: |mean w (x − ρ)| within Bernstein's half width, whose variance depends on ρ.
 * With t = ρ − ρ̂, that is (B |t| − c)² <= k² V(t) beyond |t| = c / B, V(t) = a − 2 b t + d t²: its larger root, if any. */
static double ratio_reach(double a, double b, double d, double mean_weight, double k, double c, double sign) {
  double A = mean_weight * mean_weight - k * k * d, B = -2 * (mean_weight * c - sign * k * k * b), C = c * c - k * k * a;
  if (A <= 0) return INFINITY; /* weights so uneven that no ratio is too far */
  double disc = B * B - 4 * A * C;
  double root = disc > 0 ? (-B + sqrt(disc)) / (2 * A) : -B / (2 * A);
  return root > c / mean_weight ? root : c / mean_weight;
}

void ope_ratio_bernstein(double *low, double *high, const double *w, const double *x, size_t n, double max_weight, double x_low, double x_high,
                         double confidence) {
  double sw = 0, swx = 0;
  for (size_t i = 0; i < n; i++) sw += w[i], swx += w[i] * x[i];
  double ratio = swx / sw, mean = sw / (double)n, a = 0, b = 0, d = 0;
  for (size_t i = 0; i < n; i++) {
    double u = w[i] * (x[i] - ratio), e = w[i] - mean; /* u has mean 0 by the choice of ratio; moved by t: u − t w */
    a += u * u, b += u * e, d += e * e;
  }
  a /= (double)(n - 1), b /= (double)(n - 1), d /= (double)(n - 1);
  double l = log(4 / (1 - confidence)), k = sqrt(2 * l / (double)n), c = 7 * max_weight * (x_high - x_low) * l / (3 * (double)(n - 1));
  *high = ratio + ratio_reach(a, b, d, mean, k, c, 1);
  *low = ratio - ratio_reach(a, b, d, mean, k, c, -1);
  if (*low < x_low) *low = x_low;
  if (*high > x_high) *high = x_high;
}

/* ---- Weights -------------------------------------------------------------------------------------------*/
ev_status ope_weights(ev_ope_weights *out, const double *w, size_t n) {
  static const double at[5] = {0.5, 0.9, 0.95, 0.99, 0.999};
  double *sorted = ev_alloc(n, sizeof *sorted), sum = 0, squares = 0, zero = 0;
  if (sorted == NULL) return EV_ENOMEM;
  memcpy(sorted, w, n * sizeof *w);
  for (size_t i = 0; i < n; i++) sum += w[i], squares += w[i] * w[i], zero += w[i] == 0;
  *out = (ev_ope_weights){.mean = sum / (double)n, .standard_error = sqrt(ope_variance(w, n) / (double)n), .ess = squares > 0 ? sum * sum / squares : 0, .zero = zero / (double)n};
  for (size_t i = 0; i < 5; i++) out->quantile[i] = ev_quantile(sorted, n, at[i]);
  out->max = sorted[n - 1];
  ev_free(sorted);
  return EV_OK;
}

ev_status ope_options(ev_ope_options *out, const ev_ope_options *given, const double *reward, size_t n, double max_weight) {
  ev_ope_options o = *given;
  if (!(o.confidence > 0 && o.confidence < 1)) return ev_fail(EV_EINVAL, "an interval at confidence %g", o.confidence);
  if (o.clip <= 0 || o.switch_at < 0 || o.shrink < 0) return ev_fail(EV_EINVAL, "clip is above 0, switch_at and shrink are not below");
  double low = INFINITY, high = -INFINITY;
  for (size_t i = 0; i < n; i++) {
    if (!isfinite(reward[i])) return ev_fail(EV_EINVAL, "row %zu: the reward is %g", i, reward[i]);
    if (reward[i] < o.reward_low || reward[i] > o.reward_high)
      return ev_fail(EV_EINVAL, "row %zu: the reward %g is not between %g and %g", i, reward[i], o.reward_low, o.reward_high);
    if (reward[i] < low) low = reward[i];
    if (reward[i] > high) high = reward[i];
  }
  if (isnan(o.reward_low)) o.reward_low = low;
  if (isnan(o.reward_high)) o.reward_high = high;
  if (isnan(o.max_weight)) o.max_weight = max_weight;
  if (max_weight > o.max_weight * (1 + 1e-9)) return ev_fail(EV_EINVAL, "a weight of %g, though none is said to exceed %g", max_weight, o.max_weight);
  *out = o;
  return EV_OK;
}

/* ---- Estimates -----------------------------------------------------------------------------------------*/
/* The columns whose means the estimators are made of. */
enum { V, WR, W, CLIPPED, DR, WRESIDUAL, SWITCHED, SHRUNK, MRDR, MODEL, N_TERMS }; /* V: of sndr; MODEL: v with what its row did to it */

typedef struct work {
  const ev_ope_columns *c;
  ev_ope_options o;
  double *rows;    /* (n, N_TERMS) */
  double *column;  /* (n) */
  double *resampled; /* (n_bootstrap, N_TERMS) */
  double *one;     /* (n_bootstrap) */
  double *weight, *moved; /* (n) with a fit */
} work;

/* The weight that takes w's place under parameter p: what clipping, switching and shrinking have in common. */
static double changed_weight(ev_ope_kind kind, double w, double p) {
  if (!isfinite(p)) return w;
  switch (kind) {
    case EV_OPE_CLIPPED_IPS: return w < p ? w : p;
    case EV_OPE_SWITCH_DR: return w <= p ? w : 0;
    case EV_OPE_DROS: return p == 0 ? 0 : p * w / (w * w + p);
    default: return w;
  }
}

static double largest_weight(ev_ope_kind kind, double max, double p) { /* of changed_weight over [0, max] */
  if (!isfinite(p)) return max; /* not a number: no parameter */
  if (kind == EV_OPE_DROS) return sqrt(p) < max ? sqrt(p) / 2 : changed_weight(kind, max, p); /* its peak is at √p */
  return max < p ? max : p;
}

static void fill(double *out, const ev_ope_columns *c, ev_ope_kind kind, double p) {
  const double *q = kind == EV_OPE_MRDR ? c->mrdr_q : c->q, *v = kind == EV_OPE_MRDR ? c->mrdr_v : c->v;
  bool plain = kind == EV_OPE_IPS || kind == EV_OPE_CLIPPED_IPS;
  for (size_t i = 0; i < c->n; i++) {
    double w = changed_weight(kind, c->weight[i], p);
    out[i] = kind == EV_OPE_DM ? v[i] : plain ? w * c->reward[i] : v[i] + w * (c->reward[i] - q[i]);
  }
}

/* The term with what its row did to the regression, which the mean does not feel and the spread does. Of dr, sndr and mrdr
 * that is of second order (Chernozhukov et al. 2018): an error of q̂ is taken back where arms were shown. */
static ev_status fill_moved(work *k, ev_ope_kind kind, double p) {
  const ev_ope_columns *c = k->c;
  fill(k->column, c, kind, p);
  if (c->fit == NULL || !(kind == EV_OPE_DM || ((kind == EV_OPE_SWITCH_DR || kind == EV_OPE_DROS) && isfinite(p)))) return EV_OK;
  for (size_t i = 0; i < c->n; i++) k->column[i] += c->moved[i];
  if (kind == EV_OPE_DM || p == 0) return EV_OK;
  for (size_t i = 0; i < c->n; i++) k->weight[i] = changed_weight(kind, c->weight[i], p);
  EV_TRY(ev_ope_fit_moved(k->moved, c->fit, NULL, k->weight));
  for (size_t i = 0; i < c->n; i++) k->column[i] += k->moved[i];
  return EV_OK;
}

#define GRID 25
/* Parameters from the least bias to the most: no change; then down a geometric ladder; switching and shrinking end in DM. */
static size_t grid(double out[GRID], ev_ope_kind kind, double max_weight) {
  size_t n = 0;
  out[n++] = INFINITY;
  double top = max_weight > 1 ? max_weight : 1;
  for (int k = 1; k < GRID - 1; k++) {
    double x = (double)k / (GRID - 2);
    /* A clip below 1 would cut also where both policies agree. λ runs from 100 times the largest squared weight to 10⁻⁴. */
    double p = kind == EV_OPE_DROS ? 100 * top * top * pow(1e-6 / (top * top), x) : pow(top, 1 - x);
    if (n > 1 && p >= out[n - 1]) continue;
    out[n++] = p;
  }
  if (kind != EV_OPE_CLIPPED_IPS) out[n++] = 0;
  return n;
}

static ev_status choose(double *out, work *k, ev_ope_kind kind) {
  double at[GRID], value[GRID], width[GRID];
  size_t n = grid(at, kind, k->o.max_weight);
  for (size_t i = 0; i < n; i++) {
    EV_TRY(fill_moved(k, kind, at[i]));
    value[i] = ope_mean(k->column, k->c->n);
    EV_TRY(ope_standard_error(&width[i], k->column, k->c->n, &k->o));
  }
  for (size_t i = n - 1; i-- > 0;) /* SLOPE wants widths that do not grow */
    if (width[i] < width[i + 1]) width[i] = width[i + 1];
  *out = at[ev_ope_slope(value, width, n)];
  return EV_OK;
}

static const int term_of[EV_OPE_KINDS] = {MODEL, WR, 0, CLIPPED, DR, 0, SWITCHED, SHRUNK, MRDR};

static double combine(const double *m, ev_ope_kind kind) { /* means of the terms → estimate */
  if (kind == EV_OPE_SNIPS) return m[WR] / m[W];
  if (kind == EV_OPE_SNDR) return m[V] + m[WRESIDUAL] / m[W];
  return m[term_of[kind]];
}

static double range_of(const work *k, ev_ope_kind kind, double p) { /* of the estimator's term, from what was known beforehand */
  const ev_ope_columns *c = k->c;
  double rl = k->o.reward_low, rh = k->o.reward_high, w = largest_weight(kind, k->o.max_weight, p);
  if (kind == EV_OPE_DM) return c->q_high - c->q_low;
  if (kind == EV_OPE_IPS || kind == EV_OPE_CLIPPED_IPS) return w * (fmax(rh, 0) - fmin(rl, 0));
  return c->q_high - c->q_low + w * (fmax(rh - c->q_low, 0) - fmin(rl - c->q_high, 0));
}

static ev_status ratio(work *k, ev_ope_estimate *e, ev_ope_kind kind, const double *means) {
  const ev_ope_columns *c = k->c;
  bool sndr = kind == EV_OPE_SNDR;
  double of = means[sndr ? WRESIDUAL : WR] / means[W], rl = k->o.reward_low, rh = k->o.reward_high, half = 0;
  for (size_t i = 0; i < c->n; i++) /* delta method */
    k->column[i] = (sndr ? c->v[i] : 0) + c->weight[i] * (c->reward[i] - (sndr ? c->q[i] : 0) - of) / means[W];
  EV_TRY(ope_standard_error(&e->standard_error, k->column, c->n, &k->o));
  /* The mean of v errs with half of what is allowed, the ratio with the other half. */
  double confidence = sndr ? (1 + k->o.confidence) / 2 : k->o.confidence;
  if (sndr) half = ev_ope_bernstein(ope_variance(c->v, c->n), c->q_high - c->q_low, c->n, confidence), rl -= c->q_high, rh -= c->q_low;
  for (size_t i = 0; i < c->n; i++) k->column[i] = c->reward[i] - (sndr ? c->q[i] : 0);
  ope_ratio_bernstein(&e->bernstein_low, &e->bernstein_high, c->weight, k->column, c->n, k->o.max_weight, rl, rh, confidence);
  if (!sndr) return EV_OK;
  e->bernstein_low += means[V] - half;
  e->bernstein_high += means[V] + half;
  return EV_OK;
}

static ev_status estimate(work *k, ev_ope_estimate *e, ev_ope_kind kind, const double *means) {
  const ev_ope_columns *c = k->c;
  double p = e->parameter;
  e->value = combine(means, kind);
  for (size_t i = 0; i < c->n; i++) e->changed += changed_weight(kind, c->weight[i], p) != c->weight[i];
  e->changed /= (double)c->n;
  if (kind == EV_OPE_SNIPS || kind == EV_OPE_SNDR) {
    EV_TRY(ratio(k, e, kind, means));
  } else {
    fill(k->column, c, kind, p);
    double variance = ope_variance(k->column, c->n), half = ev_ope_bernstein(variance, range_of(k, kind, p), c->n, k->o.confidence);
    for (size_t i = 0; i < c->n; i++) k->column[i] = k->rows[i * N_TERMS + (size_t)term_of[kind]];
    EV_TRY(ope_standard_error(&e->standard_error, k->column, c->n, &k->o));
    /* With a fit, what is nothing but its model has no such bound: given q̂, it would only say how contexts vary. */
    if (c->fit != NULL && (kind == EV_OPE_DM || p == 0)) half = NAN;
    e->bernstein_low = e->value - half;
    e->bernstein_high = e->value + half;
  }
  e->low = e->high = e->value;
  if (k->o.n_bootstrap == 0) return EV_OK;
  for (unsigned b = 0; b < k->o.n_bootstrap; b++) k->one[b] = combine(k->resampled + (size_t)b * N_TERMS, kind);
  ope_interval(e, k->one, k->o.n_bootstrap, k->o.confidence);
  return EV_OK;
}

static bool has(const ev_ope_columns *c, ev_ope_kind kind) {
  if (kind == EV_OPE_IPS || kind == EV_OPE_SNIPS || kind == EV_OPE_CLIPPED_IPS) return true;
  return kind == EV_OPE_MRDR ? c->mrdr_q != NULL : c->q != NULL;
}

static bool tuned(ev_ope_kind kind) { return kind == EV_OPE_CLIPPED_IPS || kind == EV_OPE_SWITCH_DR || kind == EV_OPE_DROS; }

static void reach(double *low, double *high, double as_low, double as_high) {
  *low = fmin(*low, as_low);
  *high = fmax(*high, as_high);
}

static ev_status measure(ev_ope_result *out, work *k) {
  static const ev_ope_kind term_kind[N_TERMS] = {EV_OPE_DM, EV_OPE_IPS, 0, EV_OPE_CLIPPED_IPS, EV_OPE_DR, 0, EV_OPE_SWITCH_DR, EV_OPE_DROS,
      EV_OPE_MRDR, EV_OPE_DM};
  const ev_ope_columns *c = k->c;
  double means[N_TERMS] = {0};
  const double given[EV_OPE_KINDS] = {[EV_OPE_CLIPPED_IPS] = k->o.clip, [EV_OPE_SWITCH_DR] = k->o.switch_at, [EV_OPE_DROS] = k->o.shrink};
  for (int e = 0; e < EV_OPE_KINDS; e++) {
    out->at[e].parameter = !tuned(e) || !has(c, e) ? NAN : given[e];
    if (tuned(e) && has(c, e) && isnan(given[e])) EV_TRY(choose(&out->at[e].parameter, k, e));
  }
  for (int t = 0; t < N_TERMS; t++) {
    ev_ope_kind kind = term_kind[t];
    if (t == W) memcpy(k->column, c->weight, c->n * sizeof *k->column);
    else if (t == WRESIDUAL)
      for (size_t i = 0; i < c->n; i++) k->column[i] = c->q != NULL ? c->weight[i] * (c->reward[i] - c->q[i]) : 0;
    else if (t == V && has(c, kind)) fill(k->column, c, kind, NAN);
    else if (has(c, kind)) EV_TRY(fill_moved(k, kind, out->at[kind].parameter));
    else memset(k->column, 0, c->n * sizeof *k->column);
    means[t] = ope_mean(k->column, c->n);
    for (size_t i = 0; i < c->n; i++) k->rows[i * N_TERMS + (size_t)t] = k->column[i];
  }
  if (k->o.n_bootstrap > 0) EV_TRY(ope_bootstrap(k->resampled, k->rows, c->n, N_TERMS, &k->o));
  for (int e = 0; e < EV_OPE_KINDS; e++) {
    if (has(c, e)) EV_TRY(estimate(k, &out->at[e], e, means));
    else out->at[e] = (ev_ope_estimate){NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
  }
  for (int e = 0; e < EV_OPE_KINDS; e++) { /* what a parameter saves in variance it may cost in bias: intervals reach as far as without it */
    const ev_ope_estimate *whole = &out->at[e == EV_OPE_CLIPPED_IPS ? EV_OPE_IPS : EV_OPE_DR];
    if (!tuned(e) || !has(c, e)) continue;
    if (k->o.n_bootstrap > 0) reach(&out->at[e].low, &out->at[e].high, whole->low, whole->high);
    if (!isnan(out->at[e].bernstein_low)) reach(&out->at[e].bernstein_low, &out->at[e].bernstein_high, whole->bernstein_low, whole->bernstein_high);
  }
  return EV_OK;
}

ev_status ev_ope_measure(ev_ope_result *out, const ev_ope_columns *c, const ev_ope_options *o) {
  *out = (ev_ope_result){0};
  if (c->n < 2) return ev_fail(EV_EINVAL, "%zu rows: an estimate takes two at least", c->n);
  for (size_t i = 0; i < c->n; i++)
    if (!(c->weight[i] >= 0 && isfinite(c->weight[i]))) return ev_fail(EV_EINVAL, "row %zu: the weight is %g", i, c->weight[i]);
  EV_TRY(ope_weights(&out->weights, c->weight, c->n));
  out->weights.unsupported = c->unsupported;
  if (c->unsupported > o->max_unsupported)
    return ev_fail(EV_EINVAL, "no support: %.3g of the policy's choices are arms that the log never shows at that position (arm %u at position %u most); at most %g may be",
                   c->unsupported, c->worst_arm, c->worst_position, o->max_unsupported);
  if (out->weights.max <= 0) return ev_fail(EV_EINVAL, "no support: the policy would have chosen none of the log's %zu arms shown", c->n);
  work k = {.c = c};
  EV_TRY(ope_options(&k.o, o, c->reward, c->n, out->weights.max));
  EV_TRY(ope_check_clusters(o, c->n));
  k.rows = ev_alloc(c->n, N_TERMS * sizeof *k.rows);
  k.column = ev_alloc(c->n, sizeof *k.column);
  k.resampled = ev_alloc(k.o.n_bootstrap, N_TERMS * sizeof *k.resampled);
  k.one = ev_alloc(k.o.n_bootstrap, sizeof *k.one);
  k.weight = ev_alloc(c->fit != NULL ? c->n : 0, sizeof *k.weight);
  k.moved = ev_alloc(c->fit != NULL ? c->n : 0, sizeof *k.moved);
  bool short_of = k.rows == NULL || k.column == NULL || k.resampled == NULL || k.one == NULL || k.weight == NULL || k.moved == NULL;
  ev_status status = short_of ? EV_ENOMEM : measure(out, &k);
  ev_free(k.rows);
  ev_free(k.column);
  ev_free(k.resampled);
  ev_free(k.one);
  ev_free(k.weight);
  ev_free(k.moved);
  return status;
}

ev_status ev_ope_evaluate(ev_ope_result *out, const ev_ope_log *log, const ev_ope_matrix *policy, const ev_ope_matrix *q, const ev_ope_matrix *mrdr_q,
                          const ev_ope_options *o) {
  ev_ope_columns c;
  EV_TRY(ev_ope_reduce(&c, log, policy, q, mrdr_q));
  ev_status status = ev_ope_measure(out, &c, o);
  ev_ope_columns_free(&c);
  return status;
}

ev_status ev_ope_evaluate_fit(ev_ope_result *out, const ev_ope_log *log, const ev_ope_matrix *policy, const ev_ope_fit *fit,
                              const ev_ope_matrix *mrdr_q, const ev_ope_options *o) {
  ev_ope_columns c;
  EV_TRY(ev_ope_reduce_fit(&c, log, policy, fit, mrdr_q));
  ev_status status = ev_ope_measure(out, &c, o);
  ev_ope_columns_free(&c);
  return status;
}
