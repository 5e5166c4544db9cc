/* arms_linear.c - linear models by Sherman-Morrison, logistic ones by Laplace's approximation, full and diagonal.
 *
 * Both are one step: with u = A⁻¹x and a weight h of the observation,
 *   A⁻¹ ← (A⁻¹ − u uᵀ h / (1 + h xᵀu)) / decay,   θ ← θ + α u
 * where h = 1 and α = (r − xᵀθ) / (1 + xᵀu) for least squares, and for a logistic observation α solves α = y − σ(xᵀθ + α xᵀu), which
 * is the mode of the posterior (its gradient is zero along A⁻¹x and nowhere else), and h = σ (1 − σ) there. Numbers are doubles:
 * single precision is half the memory, but A⁻¹ loses its symmetry and then its positivity after some 10^5 updates. Products go by
 * rows of A⁻¹, which is symmetric, so that no sum is reordered: every instruction set gives the same bits. */
#include "arms.h"

#if defined __x86_64__ && !defined __SANITIZE_ADDRESS__
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

/* u = A x, A (d, d) symmetric. Eight rows at once: u is read and written an eighth as often as row by row. */
WIDE static void product(double *restrict u, const double *restrict m, const float *restrict x, size_t d) {
  for (size_t i = 0; i < d; i++) u[i] = 0;
  size_t j = 0;
  for (; j + 8 <= d; j += 8) {
    const double *r = m + j * d;
    double x0 = (double)x[j], x1 = (double)x[j + 1], x2 = (double)x[j + 2], x3 = (double)x[j + 3], x4 = (double)x[j + 4], x5 = (double)x[j + 5], x6 = (double)x[j + 6], x7 = (double)x[j + 7];
    for (size_t i = 0; i < d; i++)
      u[i] += ((x0 * r[i] + x1 * r[d + i]) + (x2 * r[2 * d + i] + x3 * r[3 * d + i])) + ((x4 * r[4 * d + i] + x5 * r[5 * d + i]) + (x6 * r[6 * d + i] + x7 * r[7 * d + i]));
  }
  for (; j < d; j++)
    for (size_t i = 0; i < d; i++) u[i] += (double)x[j] * m[j * d + i];
}

/* to = (from − s sᵀ) · gain: s carries the root of the factor, and so what stands across the diagonal gets the same bits. */
WIDE static void rank_one(double *restrict to, const double *restrict from, const double *restrict s, double gain, size_t d) {
  for (size_t i = 0; i < d; i++) {
    double si = s[i];
    for (size_t j = 0; j < d; j++) to[i * d + j] = (from[i * d + j] - si * s[j]) * gain;
  }
}

bool arms_cholesky(double *l, const double *a, size_t n) {
  memset(l, 0, n * n * sizeof *l);
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j <= i; j++) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; k++) sum -= l[i * n + k] * l[j * n + k];
      if (i == j && !(sum > 0)) return false;
      l[i * n + j] = i == j ? sqrt(sum) : sum / l[j * n + j];
    }
  return true;
}

bool arms_inverse(double *out, const double *a, double *l, double *work, size_t n) {
  if (!arms_cholesky(l, a, n)) return false;
  memset(work, 0, n * n * sizeof *work); /* L⁻¹ */
  for (size_t j = 0; j < n; j++)
    for (size_t i = j; i < n; i++) {
      double sum = i == j ? 1 : 0;
      for (size_t k = j; k < i; k++) sum -= l[i * n + k] * work[k * n + j];
      work[i * n + j] = sum / l[i * n + i];
    }
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j <= i; j++) {
      double sum = 0;
      for (size_t k = i; k < n; k++) sum += work[k * n + i] * work[k * n + j];
      out[i * n + j] = out[j * n + i] = sum;
    }
  return true;
}

void arms_linear_moments(const ev_arms *a, const double *slot, const float *x, double *mean, double *variance, double *scratch) {
  size_t d = arms_dim(a);
  const double *theta = slot + ARMS_SLOT_HEAD, *inverse = theta + 2 * d;
  double m = 0, v = 0;
  if (!a->o.diagonal && variance != NULL) product(scratch, inverse, x, d);
  for (size_t k = 0; k < d; k++) {
    m += (double)x[k] * theta[k];
    if (variance != NULL) v += (double)x[k] * (a->o.diagonal ? inverse[k] * (double)x[k] : scratch[k]);
  }
  *mean = m;
  if (variance != NULL) *variance = v > 0 ? v : 0;
}

/* α = y − σ(m + α v) for v >= 0: the right side falls as α grows, so the root is one; Newton from the middle, kept in its bracket. */
static double logistic_step(double y, double m, double v) {
  double low = y - 1, high = y, alpha = y - arms_sigmoid(m);
  alpha = alpha / (1 + 0.25 * v);
  for (int i = 0; i < 100; i++) {
    double s = arms_sigmoid(m + alpha * v), f = alpha - y + s, slope = 1 + v * s * (1 - s);
    if (f > 0) high = alpha;
    else low = alpha;
    double next = alpha - f / slope;
    if (!(next > low && next < high)) next = 0.5 * (low + high);
    if (fabs(next - alpha) <= 1e-15 * (1 + fabs(alpha))) return next;
    alpha = next;
  }
  return alpha;
}

/* λ has faded to λ/2: the other half is put back. A = inverse⁻¹ gains that on its diagonal; a linear model's b stays, its θ is A⁻¹b; a
 * mode of a logistic or diagonal one stays where it is. Forgetting alone never makes A singular, so a failure leaves the slot as it is. */
static void restore_ridge(const ev_arms *a, double *slot, double lost) {
  size_t d = arms_dim(a);
  double *theta = slot + ARMS_SLOT_HEAD, *b = theta + d, *inverse = b + d;
  if (a->o.diagonal) {
    for (size_t k = 0; k < d; k++) inverse[k] = 1 / (1 / inverse[k] + lost);
    return;
  }
  double *work = ev_alloc(3 * d * d, sizeof *work);
  if (work == NULL) return;
  double *m = work, *l = work + d * d, *w = l + d * d;
  if (arms_inverse(m, inverse, l, w, d)) {
    for (size_t k = 0; k < d; k++) m[k * d + k] += lost;
    double *fresh = w; /* the last of the three to be used */
    double *second = ev_alloc(d * d, sizeof *second);
    if (second != NULL && arms_inverse(second, m, l, fresh, d)) {
      memcpy(inverse, second, d * d * sizeof *inverse);
      if (a->o.kind == EV_ARMS_LINEAR)
        for (size_t i = 0; i < d; i++) {
          theta[i] = 0;
          for (size_t j = 0; j < d; j++) theta[i] += inverse[i * d + j] * b[j];
        }
    }
    ev_free(second);
  }
  ev_free(work);
}

/* One observation; the lock is held. */
static void step(const ev_arms *a, const double *from, double *to, const float *x, double reward, double seen, double *u) {
  size_t d = arms_dim(a);
  const double *theta = from + ARMS_SLOT_HEAD, *b = theta + d, *inverse = b + d;
  double *next_theta = to + ARMS_SLOT_HEAD, *next_b = next_theta + d, *next_inverse = next_b + d, keep = a->o.decay;
  bool linear = a->o.kind == EV_ARMS_LINEAR;
  double m = 0, v = 0, part = linear ? seen : 1; /* of x */
  if (a->o.diagonal)
    for (size_t k = 0; k < d; k++) u[k] = inverse[k] * (double)x[k];
  else product(u, inverse, x, d);
  for (size_t k = 0; k < d; k++) {
    m += (double)x[k] * theta[k];
    v += (double)x[k] * u[k];
  }
  m *= part;
  v *= part * part / keep; /* of the faded A */
  double alpha, h;
  if (linear) {
    alpha = (reward - m) / (1 + v);
    h = 1;
  } else {
    double weight = reward > 0 ? 1 : seen; /* with a weight, α = w (y − σ(m + α v)): the step of v w, times w */
    alpha = weight * logistic_step(reward, m, v * weight);
    double s = arms_sigmoid(m + alpha * v);
    h = weight * s * (1 - s);
  }
  double gain = alpha * part / keep;
  for (size_t k = 0; k < d; k++) {
    next_theta[k] = theta[k] + gain * u[k];
    next_b[k] = keep * b[k] + part * reward * (double)x[k];
  }
  if (a->o.diagonal) { /* the step above, of a posterior whose covariance is this diagonal; then its diagonal is kept again */
    for (size_t k = 0; k < d; k++) next_inverse[k] = 1 / (keep / inverse[k] + h * part * part * (double)x[k] * (double)x[k]);
  } else {
    double root = sqrt(h / (1 + h * v) / keep) * part;
    for (size_t k = 0; k < d; k++) u[k] *= root;
    rank_one(next_inverse, inverse, u, 1 / keep, d);
  }
  memcpy(to, from, ARMS_SLOT_HEAD * sizeof *to);
  to[0] = from[0] * keep + 1;
  to[1] = from[1] + 1;
  double left = keep < 1 ? pow(keep, to[1]) : 1;
  if (left <= 0.5) {
    restore_ridge(a, to, a->o.ridge * (1 - left));
    to[1] = 0;
  }
}

ev_status arms_linear_update(ev_arms *a, uint32_t i, const float *x, double reward, double seen) {
  if (a->o.kind == EV_ARMS_LOGISTIC && !(reward >= 0 && reward <= 1)) return ev_fail(EV_EINVAL, "logistic: a reward of %g is not in [0, 1]", reward);
  double u[1024];
  const double *from;
  double *to;
  EV_TRY(arms_begin(a, i, &from, &to));
  step(a, from, to, x, reward, seen, u);
  arms_end(a, i, true);
  return EV_OK;
}

ev_status ev_arms_update_many(ev_arms *a, const uint32_t *models, const float *x, const float *rewards, size_t n) {
  size_t d = arms_dim(a);
  bool logistic = a->o.kind == EV_ARMS_LOGISTIC;
  if (a->o.kind != EV_ARMS_LINEAR && !logistic) return ev_fail(EV_EINVAL, "%s: many updates at once are for linear and logistic models", ev_arms_kind_name(a->o.kind));
  for (size_t k = 0; k < n; k++) {
    if (models != NULL && models[k] >= a->o.n) return ev_fail(EV_EINVAL, "row %zu: there is no model %u of %u", k + 1, models[k], a->o.n);
    if (!(fabsf(rewards[k]) <= 1e9f) || (logistic && !(rewards[k] >= 0 && rewards[k] <= 1))) return ev_fail(EV_EINVAL, "row %zu: a reward of %g", k + 1, (double)rewards[k]);
  }
  for (size_t k = 0; k < n * d; k++)
    if (!isfinite(x[k])) return ev_fail(EV_EINVAL, "row %zu: a feature is not finite", k / d + 1);
  for (size_t k = 0; k < n; k++) {
    if (k % 4096 == 0 && ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    EV_TRY(arms_linear_update(a, models != NULL ? models[k] : 0, x + k * d, (double)rewards[k], 1));
  }
  return EV_OK;
}
