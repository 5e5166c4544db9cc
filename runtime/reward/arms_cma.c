/* arms_cma.c - the covariance matrix adaptation evolution strategy, after Hansen: The CMA evolution strategy: a tutorial (2016),
 * whose numbers of equations stand in brackets.
 *
 * The slot: generation, σ, generations since the axes were computed; mean m, path p_c, path p_σ, lengths D; C, axes B (columns),
 * C = B D² Bᵀ. The eigenvectors come by Jacobi's rotations: slower than LAPACK's and the same bits on every machine. */
#include <stdlib.h>

#include "arms.h"

typedef struct view {
  double *mean, *pc, *ps, *lengths, *c, *axes;
} view;

static view view_of(double *slot, size_t n) {
  double *p = slot + ARMS_SLOT_HEAD;
  return (view){p, p + n, p + 2 * n, p + 3 * n, p + 4 * n, p + 4 * n + n * n};
}

static size_t population(size_t n) { return 4 + (size_t)floor(3 * log((double)n)); }
size_t ev_cma_population(const ev_arms *a) { return population(a->o.n_dims); }

static ev_status check(const ev_arms *a) { return a->o.kind == EV_ARMS_CMA ? EV_OK : ev_fail(EV_EINVAL, "a state of kind %s is no search distribution", ev_arms_kind_name(a->o.kind)); }

ev_status ev_cma_set(ev_arms *a, const double *mean, double sigma) {
  EV_TRY(check(a));
  size_t n = a->o.n_dims;
  if (!(sigma > 0) || !isfinite(sigma)) return ev_fail(EV_EINVAL, "a step size of %g", sigma);
  for (size_t i = 0; i < n; i++)
    if (!isfinite(mean[i])) return ev_fail(EV_EINVAL, "a mean that is not finite");
  const double *from;
  double *to;
  EV_TRY(arms_begin(a, 0, &from, &to));
  arms_first(a, to);
  to[1] = sigma;
  memcpy(view_of(to, n).mean, mean, n * sizeof *mean);
  arms_end(a, 0, true);
  return EV_OK;
}

ev_status ev_cma_state(ev_arms *a, double *mean, double *sigma, uint64_t *generation) {
  EV_TRY(check(a));
  size_t n = a->o.n_dims;
  double *slot = ev_alloc(a->layout.slot_size, sizeof *slot);
  if (slot == NULL) return EV_ENOMEM;
  ev_status status = arms_copy(a, 0, slot, a->layout.slot_size);
  if (status == EV_OK) {
    memcpy(mean, view_of(slot, n).mean, n * sizeof *mean);
    *sigma = slot[1];
    *generation = (uint64_t)slot[0];
  }
  ev_free(slot);
  return status;
}

ev_status ev_cma_ask(ev_arms *a, double *points, uint64_t *generation) { /* [38]–[40] x = m + σ B D z */
  EV_TRY(check(a));
  size_t n = a->o.n_dims, lambda = population(n);
  double *slot = ev_alloc(a->layout.slot_size, sizeof *slot);
  if (slot == NULL) return EV_ENOMEM;
  ev_status status = arms_copy(a, 0, slot, a->layout.slot_size);
  if (status != EV_OK) goto end;
  view v = view_of(slot, n);
  *generation = (uint64_t)slot[0];
  for (size_t k = 0; k < lambda; k++) {
    ev_rng r;
    ev_rng_seed(&r, a->o.seed, *generation * 4096 + k + 1);
    double *x = points + k * n;
    memcpy(x, v.mean, n * sizeof *x);
    for (size_t j = 0; j < n; j++) {
      double z = slot[1] * v.lengths[j] * ev_rng_normal(&r);
      for (size_t i = 0; i < n; i++) x[i] += z * v.axes[i * n + j];
    }
  }
end:
  ev_free(slot);
  return status;
}

/* Eigenvalues of the symmetric c (n, n), which is destroyed, and eigenvectors in the columns of b. */
static void jacobi(double *c, double *values, double *b, size_t n) {
  memset(b, 0, n * n * sizeof *b);
  for (size_t i = 0; i < n; i++) b[i * n + i] = 1;
  for (int sweep = 0; sweep < 60; sweep++) {
    double off = 0, on = 0;
    for (size_t i = 0; i < n; i++) {
      on += c[i * n + i] * c[i * n + i];
      for (size_t j = 0; j < i; j++) off += c[i * n + j] * c[i * n + j];
    }
    if (off <= 1e-30 * on) break;
    for (size_t p = 0; p + 1 < n; p++)
      for (size_t q = p + 1; q < n; q++) {
        double apq = c[p * n + q];
        if (apq == 0) continue;
        double tau = (c[q * n + q] - c[p * n + p]) / (2 * apq), t = (tau >= 0 ? 1 : -1) / (fabs(tau) + sqrt(1 + tau * tau)), cs = 1 / sqrt(1 + t * t), sn = t * cs;
        for (size_t k = 0; k < n; k++) {
          double x = c[k * n + p], y = c[k * n + q];
          c[k * n + p] = cs * x - sn * y;
          c[k * n + q] = sn * x + cs * y;
        }
        for (size_t k = 0; k < n; k++) {
          double x = c[p * n + k], y = c[q * n + k];
          c[p * n + k] = cs * x - sn * y;
          c[q * n + k] = sn * x + cs * y;
          x = b[k * n + p], y = b[k * n + q];
          b[k * n + p] = cs * x - sn * y;
          b[k * n + q] = sn * x + cs * y;
        }
      }
  }
  for (size_t i = 0; i < n; i++) values[i] = c[i * n + i];
}

typedef struct constants { /* [49]–[58], table 1 */
  double weights[64], mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu, sum, chi;
  size_t lambda, mu;
} constants;

static constants constants_of(size_t dims) {
  constants k = {.lambda = population(dims)};
  double n = (double)dims, plus = 0, plus2 = 0, minus = 0, minus2 = 0;
  k.mu = k.lambda / 2;
  for (size_t i = 0; i < k.lambda; i++) {
    double w = k.weights[i] = log(((double)k.lambda + 1) / 2) - log((double)i + 1);
    if (i < k.mu) plus += w, plus2 += w * w;
    else minus += w, minus2 += w * w;
  }
  double mu_minus = minus * minus / minus2;
  k.mu_eff = plus * plus / plus2;
  k.c_sigma = (k.mu_eff + 2) / (n + k.mu_eff + 5);
  k.d_sigma = 1 + 2 * fmax(0, sqrt((k.mu_eff - 1) / (n + 1)) - 1) + k.c_sigma;
  k.c_c = (4 + k.mu_eff / n) / (n + 4 + 2 * k.mu_eff / n);
  k.c_1 = 2 / ((n + 1.3) * (n + 1.3) + k.mu_eff);
  k.c_mu = fmin(1 - k.c_1, 2 * (0.25 + k.mu_eff + 1 / k.mu_eff - 2) / ((n + 2) * (n + 2) + k.mu_eff));
  double least = fmin(1 + k.c_1 / k.c_mu, fmin(1 + 2 * mu_minus / (k.mu_eff + 2), (1 - k.c_1 - k.c_mu) / (n * k.c_mu)));
  for (size_t i = 0; i < k.lambda; i++) {
    k.weights[i] = k.weights[i] >= 0 ? k.weights[i] / plus : least * k.weights[i] / -minus;
    k.sum += k.weights[i];
  }
  k.chi = sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n));
  return k;
}

typedef struct scored {
  double value;
  size_t at;
} scored;

static int by_value(const void *a, const void *b) {
  const scored *x = a, *y = b;
  if (isnan(x->value) != isnan(y->value)) return isnan(x->value) ? 1 : -1;
  if (x->value < y->value) return -1;
  if (x->value > y->value) return 1;
  return (x->at > y->at) - (x->at < y->at);
}

/* |C^−½ y|² = |D⁻¹ Bᵀ y|²; white (n) gets B D⁻¹ Bᵀ y unless NULL. */
static double whiten(double *white, const double *y, const view *v, size_t n) {
  double square = 0;
  if (white != NULL) memset(white, 0, n * sizeof *white);
  for (size_t j = 0; j < n; j++) {
    double t = 0;
    for (size_t i = 0; i < n; i++) t += v->axes[i * n + j] * y[i];
    t /= v->lengths[j];
    square += t * t;
    for (size_t i = 0; i < n && white != NULL; i++) white[i] += v->axes[i * n + j] * t;
  }
  return square;
}

static ev_status advance(double *to, const double *points, const double *values, size_t n) {
  constants k = constants_of(n);
  scored order[64];
  double *y = ev_alloc(k.lambda * n + 2 * n + n * n, sizeof *y), nd = (double)n;
  if (y == NULL) return EV_ENOMEM;
  double *step = y + k.lambda * n, *white = step + n, *work = white + n;
  view v = view_of(to, n);
  for (size_t i = 0; i < k.lambda; i++) order[i] = (scored){values[i], i};
  qsort(order, k.lambda, sizeof *order, by_value);
  for (size_t i = 0; i < k.lambda; i++)
    for (size_t j = 0; j < n; j++) y[i * n + j] = (points[order[i].at * n + j] - v.mean[j]) / to[1];
  memset(step, 0, n * sizeof *step);
  for (size_t i = 0; i < k.mu; i++)
    for (size_t j = 0; j < n; j++) step[j] += k.weights[i] * y[i * n + j];
  for (size_t j = 0; j < n; j++) v.mean[j] += to[1] * step[j];
  whiten(white, step, &v, n);
  double length = 0;
  for (size_t j = 0; j < n; j++) {
    v.ps[j] = (1 - k.c_sigma) * v.ps[j] + sqrt(k.c_sigma * (2 - k.c_sigma) * k.mu_eff) * white[j];
    length += v.ps[j] * v.ps[j];
  }
  length = sqrt(length);
  bool still = length / sqrt(1 - pow(1 - k.c_sigma, 2 * (to[0] + 1))) >= (1.4 + 2 / (nd + 1)) * k.chi; /* not h_σ */
  for (size_t j = 0; j < n; j++) v.pc[j] = (1 - k.c_c) * v.pc[j] + (still ? 0 : sqrt(k.c_c * (2 - k.c_c) * k.mu_eff)) * step[j];
  double keep = 1 + (still ? k.c_1 * k.c_c * (2 - k.c_c) : 0) - k.c_1 - k.c_mu * k.sum;
  for (size_t i = 0; i < n * n; i++) v.c[i] *= keep;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) v.c[i * n + j] += k.c_1 * v.pc[i] * v.pc[j];
  for (size_t p = 0; p < k.lambda; p++) {
    double w = k.weights[p];
    if (w < 0) w *= nd / fmax(whiten(NULL, y + p * n, &v, n), 1e-300);
    for (size_t i = 0; i < n; i++)
      for (size_t j = 0; j < n; j++) v.c[i * n + j] += k.c_mu * w * (y[p * n + i] * y[p * n + j]);
  }
  to[1] *= exp(fmin(1, k.c_sigma / k.d_sigma * (length / k.chi - 1)));
  to[0] += 1;
  to[2] += 1;
  if (to[2] >= 1 / (10 * nd * (k.c_1 + k.c_mu))) { /* the axes are let be for a while: they cost n³ */
    memcpy(work, v.c, n * n * sizeof *work);
    jacobi(work, v.lengths, v.axes, n);
    double most = 0;
    for (size_t j = 0; j < n; j++) most = fmax(most, v.lengths[j]);
    for (size_t j = 0; j < n; j++) v.lengths[j] = sqrt(fmax(v.lengths[j], most * 1e-14));
    to[2] = 0;
  }
  ev_free(y);
  for (size_t i = 0; i < ARMS_SLOT_HEAD + 4 * n + 2 * n * n; i++)
    if (!isfinite(to[i])) return ev_fail(EV_EINVAL, "the search distribution has left the numbers: σ %g", to[1]);
  return to[1] > 1e-300 ? EV_OK : ev_fail(EV_EINVAL, "the step size has become 0");
}

ev_status ev_cma_tell(ev_arms *a, const double *points, const double *values, uint64_t generation) {
  EV_TRY(check(a));
  size_t n = a->o.n_dims;
  for (size_t i = 0; i < population(n) * n; i++)
    if (!isfinite(points[i])) return ev_fail(EV_EINVAL, "a point that is not finite");
  const double *from;
  double *to;
  EV_TRY(arms_begin(a, 0, &from, &to));
  ev_status status = (uint64_t)from[0] == generation ? EV_OK : ev_fail(EV_EEXIST, "generation %llu was told already; it is %llu now", (unsigned long long)generation, (unsigned long long)from[0]);
  if (status == EV_OK) {
    memcpy(to, from, a->layout.slot_size * sizeof *to);
    status = advance(to, points, values, n);
  }
  arms_end(a, 0, status == EV_OK);
  return status;
}
