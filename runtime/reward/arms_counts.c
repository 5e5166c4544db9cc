/* arms_counts.c - what is known of arms by counting, and the probability that one of them is the best.
 *
 * Thompson sampling chooses an arm with the probability that a draw from its posterior is the largest. That is a one-dimensional
 * integral, ∫ f_j(x) Π_{i≠j} F_i(x) dx, smooth between the places where some posterior rises or falls. Those places cut the line
 * into panels, and each panel is left to eight Gauss-Legendre nodes. */
#include <stdlib.h>

#include "arms.h"

void arms_counts_now(const ev_arms *a, double *slot, uint64_t tick) {
  double age = (double)tick - slot[3];
  if (a->o.decay == 1 || !(age > 0)) return;
  double keep = pow(a->o.decay, age);
  for (int k = 0; k < 3; k++) slot[k] *= keep;
  slot[3] = (double)tick;
}

ev_status arms_counts_update(ev_arms *a, uint32_t i, double reward, double seen) {
  const double *from;
  double *to;
  EV_TRY(arms_begin(a, i, &from, &to));
  uint64_t tick = atomic_load_explicit(&a->head->ticks, memory_order_relaxed) + 1;
  memcpy(to, from, ARMS_SLOT_HEAD * sizeof *to);
  arms_counts_now(a, to, tick);
  to[0] += seen;
  to[1] += reward;
  to[2] += reward * reward;
  to[3] = (double)tick;
  arms_end(a, i, true);
  return EV_OK;
}

/* ---- Beta and normal distributions -----------------------------------------------------------------------*/
/* Gamma(shape, 1) by Marsaglia and Tsang (2000); below shape 1 by their U^(1/shape). */
static double draw_gamma(double shape, ev_rng *r) {
  double boost = 1;
  if (shape < 1) {
    boost = pow(1 - ev_rng_f64(r), 1 / shape);
    shape += 1;
  }
  double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
  for (;;) {
    double x = ev_rng_normal(r), v = 1 + c * x;
    if (v <= 0) continue;
    v = v * v * v;
    if (log(1 - ev_rng_f64(r)) < 0.5 * x * x + d - d * v + d * log(v)) return boost * d * v;
  }
}

double arms_draw_beta(double a, double b, ev_rng *r) {
  double x = draw_gamma(a, r), y = draw_gamma(b, r);
  return x + y > 0 ? x / (x + y) : a / (a + b); /* both underflow only for tiny a and b */
}

typedef struct belief {
  double a, b, mean, deviation, norm; /* norm: log of the density's constant */
} belief;

/* I_x(a, b) by its continued fraction (Abramowitz and Stegun 26.5.8, in Lentz's order), on the side where that converges fast. */
static double beta_fraction(double a, double b, double x) {
  const double tiny = 1e-300;
  double c = 1, d = 1 - (a + b) * x / (a + 1);
  d = 1 / (fabs(d) < tiny ? tiny : d);
  double h = d;
  for (int m = 1; m < 2000; m++) {
    double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    for (int half = 0; half < 2; half++) {
      double t = half == 0 ? even : odd;
      d = 1 + t * d;
      c = 1 + t / c;
      d = 1 / (fabs(d) < tiny ? tiny : d);
      c = fabs(c) < tiny ? tiny : c;
      h *= d * c;
    }
    if (fabs(d * c - 1) < 1e-12) break;
  }
  return h;
}

static double log_density(const belief *k, double x, bool gaussian) {
  if (gaussian) {
    double z = (x - k->mean) / k->deviation;
    return k->norm - 0.5 * z * z;
  }
  return k->norm + (k->a - 1) * log(x) + (k->b - 1) * log1p(-x);
}

static double log_below(const belief *k, double x, bool gaussian) { /* log F(x) */
  double f;
  if (gaussian) {
    f = 0.5 * erfc(-(x - k->mean) / k->deviation * M_SQRT1_2);
  } else {
    double front = exp(k->norm + k->a * log(x) + k->b * log1p(-x));
    f = x < (k->a + 1) / (k->a + k->b + 2) ? front * beta_fraction(k->a, k->b, x) / k->a : 1 - front * beta_fraction(k->b, k->a, 1 - x) / k->b;
  }
  return f > 1e-300 ? log(f > 1 ? 1 : f) : -690;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Deviations from the mean at which panels end. Beta's tail may be exponential: e^−40 is where it is nothing. */
static const double steps[] = {-40, -12, -6, -3, -1.5, 0, 1.5, 3, 6, 12, 40};
enum { STEPS = sizeof steps / sizeof *steps, NODES = 8 };
/* Abscissae and weights of eight-point Gauss-Legendre quadrature (Abramowitz and Stegun 25.4.30). */
static const double node_at[4] = {0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975363};
static const double node_weight[4] = {0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763};

static ev_status believe(belief *out, double a, double b, bool gaussian) {
  int sign;
  if (!isfinite(a) || !(b > 0) || !isfinite(b) || (!gaussian && !(a > 0))) return ev_fail(EV_EINVAL, "%s(%g, %g) is no distribution", gaussian ? "Normal" : "Beta", a, b);
  if (gaussian) *out = (belief){a, b, a, b, -log(b) - 0.918938533204672742};
  else *out = (belief){a, b, a / (a + b), sqrt(a * b / ((a + b + 1) * (a + b))) / sqrt(a + b), lgamma_r(a + b, &sign) - lgamma_r(a, &sign) - lgamma_r(b, &sign)};
  return EV_OK;
}

ev_status ev_best_probability(double *p, const double *a, const double *b, bool gaussian, size_t n, size_t only) {
  if (n == 0) return EV_OK;
  belief *k = ev_alloc(n, sizeof *k);
  double *cuts = ev_alloc(n * STEPS + 8, sizeof *cuts), *below = ev_alloc(n, sizeof *below);
  ev_status status = k == NULL || cuts == NULL || below == NULL ? EV_ENOMEM : EV_OK;
  for (size_t i = 0; i < n && status == EV_OK; i++) status = believe(&k[i], a[i], b[i], gaussian);
  if (status != EV_OK) goto end;
  double low = -INFINITY, high = -INFINITY, least = INFINITY;
  for (size_t i = 0; i < n; i++) { /* below `low` some arm is surely larger, above `high` none is */
    double reach = gaussian ? 9 : 40, from = k[i].mean - reach * k[i].deviation, to = k[i].mean + reach * k[i].deviation;
    if (!gaussian) from = from < 0 ? 0 : from, to = to > 1 ? 1 : to;
    low = from > low ? from : low;
    high = to > high ? to : high;
  }
  size_t n_cuts = 0;
  for (size_t i = 0; i < n; i++) {
    if (k[i].mean + 40 * k[i].deviation < low) continue;
    least = k[i].deviation < least ? k[i].deviation : least;
    for (size_t s = 0; s < STEPS; s++) {
      double at = k[i].mean + steps[s] * k[i].deviation;
      if (at > low && at < high) cuts[n_cuts++] = at;
    }
  }
  cuts[n_cuts++] = low;
  cuts[n_cuts++] = high;
  if (!gaussian) { /* powers of x or 1 − x are steep at the ends */
    static const double ends[] = {1e-4, 0.01, 0.1, 0.9, 0.99, 0.9999};
    for (size_t e = 0; e < 6; e++)
      if (ends[e] > low && ends[e] < high) cuts[n_cuts++] = ends[e];
  }
  qsort(cuts, n_cuts, sizeof *cuts, ascending);
  size_t m = only < n ? 1 : n;
  for (size_t j = 0; j < m; j++) p[j] = 0;
  double left = cuts[0];
  for (size_t c = 1; c < n_cuts; c++) {
    if (cuts[c] - left < 0.25 * least && c + 1 < n_cuts) continue; /* too near to be worth a panel */
    double half = 0.5 * (cuts[c] - left), middle = 0.5 * (cuts[c] + left);
    for (int q = 0; q < NODES && half > 0; q++) {
      double x = middle + (q < 4 ? half : -half) * node_at[q % 4], all = 0;
      for (size_t i = 0; i < n; i++) all += below[i] = log_below(&k[i], x, gaussian);
      for (size_t j = 0; j < m; j++) {
        size_t i = m == 1 && only < n ? only : j;
        p[j] += half * node_weight[q % 4] * exp(log_density(&k[i], x, gaussian) + all - below[i]);
      }
    }
    left = cuts[c];
  }
  for (size_t j = 0; j < m; j++) p[j] = p[j] > 1 ? 1 : p[j];
end:
  ev_free(k);
  ev_free(cuts);
  ev_free(below);
  return status;
}
