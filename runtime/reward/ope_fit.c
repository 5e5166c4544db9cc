/* ope_fit.c - the reward model of DM, DR and MRDR: penalised ridge or logistic regression, cross-fitted, in double precision.
 *
 * A row's columns are nearly all zeros (one arm of many, one position of many), so normal equations are summed from the few
 * that are not. They are solved exactly: what comes out does not depend on a learning rate, and another program that writes
 * down the same objective gets the same numbers. */
#include <math.h>
#include <string.h>

#include "../math/math.h"
#include "ope.h"

void ev_ope_model_defaults(ev_ope_model *m) { *m = (ev_ope_model){.penalty = 1, .folds = 5, .seed = 1}; }

struct ev_ope_fit {
  ev_ope_log own_log; /* copies of what was pointed at, whose arrays are borrowed */
  ev_ope_features own_x;
  ev_ope_model own_m;
  const ev_ope_log *log;
  const ev_ope_features *x;
  const ev_ope_model *m;
  const double *target;                    /* (n) */
  double *scale;                           /* means, then 1 / deviations, of context, arm features and the pair column */
  size_t n_scaled;
  size_t arm, position, context, features, pair, crossed, n_parameters; /* where each block begins */
  size_t n_entries;                        /* of a row, at most */
  double *q;
  unsigned *fold;                          /* (n) */
  ev_status *status;                       /* (folds) */
  char (*message)[256];                    /* (folds) */
  double *theta, *factor;                  /* (folds, n_parameters), (folds, n_parameters, n_parameters) of the Hessian; NULL: not kept */
};
typedef ev_ope_fit design;

static void lay_out(design *d) {
  size_t at = 1;
  d->arm = at, at += d->log->n_arms;
  d->position = at, at += d->log->n_positions > 1 ? d->log->n_positions : 0;
  d->context = at, at += d->x->n_context;
  d->features = at, at += d->x->n_arm_features;
  d->pair = at, at += d->x->pair != NULL;
  d->crossed = at, at += d->m->crossed ? d->log->n_arms * d->x->n_context : 0;
  d->n_parameters = at;
  d->n_scaled = d->x->n_context + d->x->n_arm_features + 1;
  d->n_entries = 4 + 2 * d->x->n_context + d->x->n_arm_features;
}

static void standardise(double *mean, double *inverse, const double *x, size_t n, size_t n_columns) { /* a column that is constant becomes 0 */
  for (size_t c = 0; c < n_columns; c++) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += x[i * n_columns + c];
    mean[c] = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (x[i * n_columns + c] - mean[c]) * (x[i * n_columns + c] - mean[c]);
    double deviation = sqrt(squares / (double)n);
    inverse[c] = deviation > 1e-12 * (1 + fabs(mean[c])) ? 1 / deviation : 0;
  }
}

static double scaled(const design *d, size_t column, double x) { return (x - d->scale[column]) * d->scale[d->n_scaled + column]; }

/* The columns of (row, arm) that are not 0, ascending. */
static size_t entries(const design *d, size_t *column, double *value, size_t row, size_t arm) {
  const ev_ope_features *x = d->x;
  size_t n = 0;
  column[n] = 0, value[n++] = 1;
  column[n] = d->arm + arm, value[n++] = 1;
  if (d->log->n_positions > 1) column[n] = d->position + (d->log->position != NULL ? d->log->position[row] : 0), value[n++] = 1;
  for (size_t c = 0; c < x->n_context; c++) column[n] = d->context + c, value[n++] = scaled(d, c, x->context[row * x->n_context + c]);
  for (size_t c = 0; c < x->n_arm_features; c++)
    column[n] = d->features + c, value[n++] = scaled(d, x->n_context + c, x->arm_features[arm * x->n_arm_features + c]);
  if (x->pair != NULL) column[n] = d->pair, value[n++] = scaled(d, d->n_scaled - 1, x->pair[row * d->log->n_arms + arm]);
  if (d->m->crossed)
    for (size_t c = 0; c < x->n_context; c++)
      column[n] = d->crossed + arm * x->n_context + c, value[n++] = scaled(d, c, x->context[row * x->n_context + c]);
  return n;
}

static double sigmoid(double z) { return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z)); }
static double softplus(double z) { return z > 0 ? z + log1p(exp(-z)) : log1p(exp(z)); }

typedef struct fit {
  const design *d;
  unsigned fold;    /* left out; EV_NONE: none */
  double *theta, *step, *gradient, *hessian, *value;
  size_t *column;
} fit;

static double weight_of(const fit *f, size_t row) {
  if (f->d->fold[row] == f->fold) return 0;
  return f->d->m->weight != NULL ? f->d->m->weight[row] : 1;
}

/* Objective at theta; with `derive` its gradient and the lower triangle of its Hessian. */
static double objective(fit *f, bool derive) {
  const design *d = f->d;
  size_t p = d->n_parameters;
  double sum = 0;
  for (size_t j = 1; j < p; j++) sum += d->m->penalty / 2 * f->theta[j] * f->theta[j];
  if (derive) {
    memset(f->hessian, 0, p * p * sizeof *f->hessian);
    f->gradient[0] = 0;
    for (size_t j = 1; j < p; j++) f->gradient[j] = d->m->penalty * f->theta[j], f->hessian[j * p + j] = d->m->penalty;
  }
  for (size_t i = 0; i < d->log->n; i++) {
    double w = weight_of(f, i), y = d->target[i], residual, curve = 1;
    if (w == 0) continue;
    if (i % 1024 == 0 && ev_interrupted()) return NAN;
    size_t n = entries(d, f->column, f->value, i, d->log->arm[i]);
    double z = 0;
    for (size_t e = 0; e < n; e++) z += f->value[e] * f->theta[f->column[e]];
    if (d->m->logistic) {
      double s = sigmoid(z);
      sum += w * (softplus(z) - y * z);
      residual = s - y, curve = s * (1 - s);
    } else {
      sum += w / 2 * (z - y) * (z - y);
      residual = z - y;
    }
    if (!derive) continue;
    for (size_t e = 0; e < n; e++) {
      double *row = f->hessian + f->column[e] * p, by = w * curve * f->value[e];
      f->gradient[f->column[e]] += w * residual * f->value[e];
      for (size_t g = 0; g <= e; g++) row[f->column[g]] += by * f->value[g];
    }
  }
  return sum;
}

#define NEWTON_STEPS 100
/* Newton's method; of a quadratic its first step is the last one. Logistic losses may overshoot: then the step is halved. */
static ev_status solve(fit *f) {
  const design *d = f->d;
  size_t p = d->n_parameters;
  memset(f->theta, 0, p * sizeof *f->theta);
  for (int k = 0; k < NEWTON_STEPS; k++) {
    double before = objective(f, true), decrement = 0;
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    if (f->hessian[0] < 1e-12) f->hessian[0] += 1e-12; /* no row, or all of them certain: the intercept stays where it is */
    for (size_t i = 0; i < p; i++) /* the solver reads the other triangle */
      for (size_t j = 0; j < i; j++) f->hessian[j * p + i] = f->hessian[i * p + j];
    memcpy(f->step, f->gradient, p * sizeof *f->step);
    EV_TRY(ev_spd_solve_f64(f->hessian, f->step, p, 1));
    for (size_t j = 0; j < p; j++) decrement += f->step[j] * f->gradient[j];
    for (size_t j = 0; j < p; j++) f->theta[j] -= f->step[j];
    if (!(decrement > 1e-22 * (1 + fabs(before)))) return EV_OK; /* the error squares at each step: what is left is rounding */
    if (!d->m->logistic && k > 0) return EV_OK;                  /* one step, and one against its rounding */
    if (!d->m->logistic) continue;
    double share = 1;
    while (share > 1e-10 && !(objective(f, false) <= before + 1e-12 * fabs(before))) {
      if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
      for (size_t j = 0; j < p; j++) f->theta[j] += share / 2 * f->step[j];
      share /= 2;
    }
  }
  return ev_fail(EV_EINVAL, "the reward model's regression does not converge");
}

/* q̂ of the rows left out. What arms have in common is summed once a row. */
static ev_status predict(fit *f, bool all) {
  const design *d = f->d;
  const ev_ope_features *x = d->x;
  size_t n_arms = d->log->n_arms, shared = d->log->n_positions > 1 ? 3 : 2; /* entries 0 and 1: the intercept, the arm */
  for (size_t i = 0; i < d->log->n; i++) {
    if (!all && d->fold[i] != f->fold) continue;
    if (i % 1024 == 0 && ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    entries(d, f->column, f->value, i, 0);
    double base = f->theta[0];
    for (size_t e = 2; e < shared + x->n_context; e++) base += f->value[e] * f->theta[f->column[e]];
    for (size_t a = 0; a < n_arms; a++) {
      double z = base + f->theta[d->arm + a];
      for (size_t c = 0; c < x->n_arm_features; c++) z += f->theta[d->features + c] * scaled(d, x->n_context + c, x->arm_features[a * x->n_arm_features + c]);
      if (x->pair != NULL) z += f->theta[d->pair] * scaled(d, d->n_scaled - 1, x->pair[i * n_arms + a]);
      if (d->m->crossed)
        for (size_t c = 0; c < x->n_context; c++) z += f->theta[d->crossed + a * x->n_context + c] * f->value[shared + c];
      d->q[i * n_arms + a] = d->m->logistic ? sigmoid(z) : z;
    }
  }
  return EV_OK;
}

static ev_status fit_fold(const design *d, unsigned fold, bool all) {
  size_t p = d->n_parameters;
  fit f = {.d = d, .fold = all ? EV_NONE : fold};
  f.theta = ev_alloc(p, sizeof *f.theta);
  f.step = ev_alloc(p, sizeof *f.step);
  f.gradient = ev_alloc(p, sizeof *f.gradient);
  f.hessian = ev_alloc(p, p * sizeof *f.hessian);
  f.value = ev_alloc(d->n_entries, sizeof *f.value);
  f.column = ev_alloc(d->n_entries, sizeof *f.column);
  ev_status status = EV_ENOMEM;
  if (f.theta != NULL && f.step != NULL && f.gradient != NULL && f.hessian != NULL && f.value != NULL && f.column != NULL) status = solve(&f);
  if (status == EV_OK) status = predict(&f, all);
  if (status == EV_OK && d->theta != NULL)
    memcpy(d->theta + fold * p, f.theta, p * sizeof *f.theta), memcpy(d->factor + fold * p * p, f.hessian, p * p * sizeof *f.hessian);
  ev_free(f.theta);
  ev_free(f.step);
  ev_free(f.gradient);
  ev_free(f.hessian);
  ev_free(f.value);
  ev_free(f.column);
  return status;
}

static void fit_folds(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  design *d = ctx;
  for (size_t k = begin; k < end; k++) {
    d->status[k] = fit_fold(d, (unsigned)k, d->m->folds == 1);
    if (d->status[k] != EV_OK) strncpy(d->message[k], ev_error(), sizeof d->message[k] - 1); /* it is the worker's, not the caller's */
  }
}

static ev_status check(const ev_ope_log *log, const ev_ope_features *x, const ev_ope_model *m, const double *target) {
  EV_TRY(ev_ope_check(log));
  if (!(m->penalty > 0 && isfinite(m->penalty))) return ev_fail(EV_EINVAL, "the reward model's penalty is %g, not above 0", m->penalty);
  if (m->folds < 1 || m->folds > 1000 || m->folds > log->n) return ev_fail(EV_EINVAL, "%u folds of %zu rows", m->folds, log->n);
  for (size_t i = 0; i < log->n; i++) {
    if (!isfinite(target[i])) return ev_fail(EV_EINVAL, "row %zu: the target is %g", i, target[i]);
    if (m->logistic && !(target[i] >= 0 && target[i] <= 1)) return ev_fail(EV_EINVAL, "row %zu: logistic regression of the reward %g", i, target[i]);
    if (m->weight != NULL && !(m->weight[i] >= 0 && isfinite(m->weight[i]))) return ev_fail(EV_EINVAL, "row %zu: the weight is %g", i, m->weight[i]);
    for (size_t c = 0; c < x->n_context; c++)
      if (!isfinite(x->context[i * x->n_context + c])) return ev_fail(EV_EINVAL, "row %zu: context column %zu is %g", i, c, x->context[i * x->n_context + c]);
    for (size_t a = 0; x->pair != NULL && a < log->n_arms; a++)
      if (!isfinite(x->pair[i * log->n_arms + a]))
        return ev_fail(EV_EINVAL, "row %zu: the pair feature of arm %zu is %g", i, a, x->pair[i * log->n_arms + a]);
  }
  for (size_t a = 0; a < log->n_arms * x->n_arm_features; a++)
    if (!isfinite(x->arm_features[a]))
      return ev_fail(EV_EINVAL, "arm %zu: feature %zu is %g", a / x->n_arm_features, a % x->n_arm_features, x->arm_features[a]);
  return EV_OK;
}

static ev_status prepare(design *d, const ev_ope_log *log, const ev_ope_features *x, const ev_ope_model *m) {
  if (x != NULL) d->own_x = *x;
  d->own_log = *log, d->own_m = *m;
  d->log = &d->own_log, d->x = &d->own_x, d->m = &d->own_m;
  d->target = m->target != NULL ? m->target : log->reward;
  EV_TRY(check(d->log, d->x, d->m, d->target));
  lay_out(d);
  return d->n_parameters <= EV_OPE_PARAMETERS
             ? EV_OK
             : ev_fail(EV_EINVAL, "a reward model of %zu parameters, more than %d: fewer context columns, or not crossed", d->n_parameters,
                       EV_OPE_PARAMETERS);
}

static ev_status run(design *d) {
  const ev_ope_log *log = d->log;
  const ev_ope_features *x = d->x;
  unsigned folds = d->m->folds;
  d->scale = ev_zalloc(2 * d->n_scaled, sizeof *d->scale);
  d->fold = ev_alloc(log->n, sizeof *d->fold);
  d->status = ev_zalloc(folds, sizeof *d->status);
  d->message = ev_zalloc(folds, sizeof *d->message);
  if (d->scale == NULL || d->fold == NULL || d->status == NULL || d->message == NULL) return EV_ENOMEM;
  double *inverse = d->scale + d->n_scaled;
  standardise(d->scale, inverse, x->context, log->n, x->n_context);
  standardise(d->scale + x->n_context, inverse + x->n_context, x->arm_features, log->n_arms, x->n_arm_features);
  if (x->pair != NULL) standardise(d->scale + d->n_scaled - 1, inverse + d->n_scaled - 1, x->pair, log->n * log->n_arms, 1);
  for (size_t i = 0; i < log->n; i++) {
    ev_rng r;
    ev_rng_seed(&r, d->m->seed, i + 1);
    d->fold[i] = ev_rng_below(&r, folds);
  }
  ev_parallel_for(folds, 1, fit_folds, d);
  for (unsigned k = 0; k < folds; k++)
    if (d->status[k] != EV_OK) return ev_fail(d->status[k], "%s", d->message[k]);
  return EV_OK;
}

static void release(design *d) {
  ev_free(d->scale);
  ev_free(d->fold);
  ev_free(d->status);
  ev_free(d->message);
  ev_free(d->theta);
  ev_free(d->factor);
}

ev_status ev_ope_regress(double *q, const ev_ope_log *log, const ev_ope_features *x, const ev_ope_model *m) {
  design d = {.q = q};
  ev_status status = prepare(&d, log, x, m);
  if (status == EV_OK) status = run(&d);
  release(&d);
  return status;
}

/* ---- Kept fits -------------------------------------------------------------------------------------------*/
ev_status ev_ope_fit_new(ev_ope_fit **out, const ev_ope_log *log, const ev_ope_features *x, const ev_ope_model *m) {
  *out = NULL;
  design *d = ev_zalloc(1, sizeof *d);
  if (d == NULL) return EV_ENOMEM;
  ev_status status = prepare(d, log, x, m);
  if (status == EV_OK) {
    size_t p = d->n_parameters;
    d->q = ev_alloc(log->n, log->n_arms * sizeof *d->q);
    d->theta = ev_alloc(m->folds, p * sizeof *d->theta);
    d->factor = ev_alloc(m->folds, p * p * sizeof *d->factor);
    status = d->q == NULL || d->theta == NULL || d->factor == NULL ? EV_ENOMEM : run(d);
  }
  if (status != EV_OK) ev_ope_fit_free(d);
  else *out = d;
  return status;
}

void ev_ope_fit_free(ev_ope_fit *f) {
  if (f == NULL) return;
  ev_free(f->q);
  release(f);
  ev_free(f);
}

const double *ev_ope_fit_q(const ev_ope_fit *f) { return f->q; }

/* d Σ_{rows of fold k} (Σ_b π q̂ − weight q̂) / d θ_k → out (folds, p). */
static ev_status derivative(double *out, const design *d, const ev_ope_matrix *policy, const double *weight, double *buffer, size_t *column, double *value) {
  size_t p = d->n_parameters, n_arms = d->log->n_arms;
  memset(out, 0, d->m->folds * p * sizeof *out);
  for (size_t i = 0; i < d->log->n; i++) {
    if (i % 1024 == 0 && ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    double *to = out + d->fold[i] * p;
    const double *q = d->q + i * n_arms, *pi = policy != NULL ? ope_row(policy, buffer, i, n_arms) : NULL;
    uint32_t shown = d->log->arm[i];
    for (size_t a = pi != NULL ? 0 : shown; a < (pi != NULL ? n_arms : (size_t)shown + 1); a++) {
      double u = (pi != NULL ? pi[a] : 0) - (weight != NULL && a == shown ? weight[i] : 0);
      if (u == 0) continue;
      if (d->m->logistic) u *= q[a] * (1 - q[a]);
      size_t n = entries(d, column, value, i, a);
      for (size_t e = 0; e < n; e++) to[column[e]] += u * value[e];
    }
  }
  return EV_OK;
}

typedef struct moving {
  double *moved;
  const design *d;
  const double *direction; /* (folds, p) */
  double *value;           /* (threads, n_entries) */
  size_t *column;
} moving;

static void move(void *ctx, size_t begin, size_t end, int worker) {
  const moving *s = ctx;
  const design *d = s->d;
  size_t p = d->n_parameters, *column = s->column + (size_t)worker * d->n_entries;
  double *value = s->value + (size_t)worker * d->n_entries;
  for (size_t i = begin; i < end; i++) {
    size_t n = entries(d, column, value, i, d->log->arm[i]);
    s->moved[i] = 0;
    for (unsigned k = 0; k < d->m->folds; k++) {
      if (d->m->folds > 1 && d->fold[i] == k) continue;
      double z = 0, along = 0;
      for (size_t e = 0; e < n; e++) z += value[e] * d->theta[k * p + column[e]], along += value[e] * s->direction[k * p + column[e]];
      s->moved[i] += along * (d->target[i] - (d->m->logistic ? sigmoid(z) : z));
    }
    if (d->m->weight != NULL) s->moved[i] *= d->m->weight[i];
  }
}

ev_status ev_ope_fit_moved(double *moved, const ev_ope_fit *d, const ev_ope_matrix *policy, const double *weight) {
  size_t p = d->n_parameters, folds = d->m->folds, threads = (size_t)ev_threads();
  double *direction = ev_alloc(folds, p * sizeof *direction), *value = ev_alloc(threads, d->n_entries * sizeof *value),
      *buffer = ev_alloc(d->log->n_arms, sizeof *buffer);
  size_t *column = ev_alloc(threads, d->n_entries * sizeof *column);
  ev_status status = direction == NULL || value == NULL || buffer == NULL || column == NULL ? EV_ENOMEM
      : derivative(direction, d, policy, weight, buffer, column, value);
  if (status == EV_OK) {
    for (size_t k = 0; k < folds; k++) ev_spd_again_f64(d->factor + k * p * p, direction + k * p, p, 1);
    moving s = {moved, d, direction, value, column};
    ev_parallel_for(d->log->n, 1024, move, &s);
    double mean = ope_mean(moved, d->log->n); /* the penalty's pull */
    for (size_t i = 0; i < d->log->n; i++) moved[i] -= mean;
  }
  ev_free(direction);
  ev_free(value);
  ev_free(buffer);
  ev_free(column);
  return status;
}
