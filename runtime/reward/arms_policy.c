/* arms_policy.c - softmax policies over candidates: REINFORCE with a baseline, and learning from what another policy logged.
 *
 * REINFORCE (Williams 1992): θ += rate (r − baseline) ∇ log π(a), the baseline being the mean reward so far, or with forgetting a
 * moving one. From logs the whole objective J of reward.h is climbed by Adam (Kingma and Ba 2015): rows in blocks, each block's sum
 * kept, the sums added in order, so that threads change no bit. */
#include "arms.h"

ev_status arms_policy_update(ev_arms *a, const float *x, double reward, double seen) {
  const double *from;
  double *to;
  EV_TRY(arms_begin(a, 0, &from, &to));
  memcpy(to, from, ARMS_SLOT_HEAD * sizeof *to);
  double r = reward / seen, step = a->o.rate * (r - from[1]);
  for (size_t k = 0; k < a->o.n_dims; k++) to[ARMS_SLOT_HEAD + k] = from[ARMS_SLOT_HEAD + k] + step * (double)x[k];
  to[0] += 1;
  double share = 1 / to[0];
  if (share < 1 - a->o.decay) share = 1 - a->o.decay;
  to[1] += (r - from[1]) * share;
  arms_end(a, 0, true);
  return EV_OK;
}

#define BLOCK 256

typedef struct objective {
  const ev_logged *log;
  const double *theta;
  double clip;
  double *sums;  /* (blocks, d + 1): gradient, value */
  double *local; /* (threads, most + d): π, and the mean of x under it */
  size_t most;
  bool gradient;
} objective;

static void block(void *ctx, size_t begin, size_t end, int worker) {
  objective *o = ctx;
  const ev_logged *log = o->log;
  size_t d = log->d;
  double *p = o->local + (size_t)worker * (o->most + d), *mean = p + o->most;
  for (size_t b = begin; b < end; b++) {
    double *sum = o->sums + b * (d + 1);
    memset(sum, 0, (d + 1) * sizeof *sum);
    for (size_t i = b * BLOCK; i < (b + 1) * BLOCK && i < log->n; i++) {
      size_t first = log->ptr[i], m = log->ptr[i + 1] - first, c = log->chosen[i];
      const float *x = log->x + first * d, *q = log->q != NULL ? log->q + first : NULL;
      double top = -INFINITY, total = 0, expected = 0;
      for (size_t k = 0; k < m; k++) {
        p[k] = 0;
        for (size_t j = 0; j < d; j++) p[k] += o->theta[j] * (double)x[k * d + j];
        top = p[k] > top ? p[k] : top;
      }
      for (size_t k = 0; k < m; k++) total += p[k] = exp(p[k] - top);
      for (size_t k = 0; k < m; k++) {
        p[k] /= total;
        if (q != NULL) expected += p[k] * (double)q[k];
      }
      double weight = p[c] / (double)log->propensity[i], rest = (double)log->reward[i] - (q != NULL ? (double)q[c] : 0);
      bool cut = weight > o->clip;
      sum[d] += expected + (cut ? o->clip : weight) * rest;
      if (!o->gradient) continue;
      memset(mean, 0, d * sizeof *mean);
      for (size_t k = 0; k < m; k++)
        for (size_t j = 0; j < d; j++) mean[j] += p[k] * (double)x[k * d + j];
      for (size_t k = 0; k < m; k++) {
        double g = (q != NULL ? p[k] * (double)q[k] : 0) + (k == c && !cut ? weight * rest : 0);
        if (g == 0) continue;
        for (size_t j = 0; j < d; j++) sum[j] += g * ((double)x[k * d + j] - mean[j]);
      }
    }
  }
}

static ev_status check(const ev_logged *log, double clip, double l2, size_t *most) {
  *most = 1;
  if (log->n == 0 || log->d == 0) return ev_fail(EV_EINVAL, "a log of %zu decisions with %zu features", log->n, log->d);
  if (!(clip > 0) || !(l2 >= 0)) return ev_fail(EV_EINVAL, "clip %g, l2 %g", clip, l2);
  for (size_t i = 0; i < log->n; i++) {
    size_t m = log->ptr[i + 1] - log->ptr[i];
    if (log->ptr[i + 1] <= log->ptr[i]) return ev_fail(EV_EINVAL, "decision %zu has no candidates", i + 1);
    if (log->chosen[i] >= m) return ev_fail(EV_EINVAL, "decision %zu: candidate %u of %zu", i + 1, log->chosen[i], m);
    if (!(log->propensity[i] > 0 && log->propensity[i] <= 1)) return ev_fail(EV_EINVAL, "decision %zu: a propensity of %g is not in (0, 1]", i + 1, (double)log->propensity[i]);
    if (!isfinite(log->reward[i])) return ev_fail(EV_EINVAL, "decision %zu: a reward of %g", i + 1, (double)log->reward[i]);
    *most = m > *most ? m : *most;
  }
  for (size_t k = log->ptr[0] * log->d; k < log->ptr[log->n] * log->d; k++)
    if (!isfinite(log->x[k])) return ev_fail(EV_EINVAL, "a feature is not finite");
  for (size_t k = log->ptr[0]; log->q != NULL && k < log->ptr[log->n]; k++)
    if (!isfinite(log->q[k])) return ev_fail(EV_EINVAL, "a predicted reward is not finite");
  return EV_OK;
}

static void value_of(objective *o, double *value, double *gradient, double l2) {
  size_t d = o->log->d, blocks = (o->log->n + BLOCK - 1) / BLOCK;
  double square = 0, n = (double)o->log->n;
  o->gradient = gradient != NULL;
  ev_parallel_for(blocks, 1, block, o);
  for (size_t b = 1; b < blocks; b++)
    for (size_t j = 0; j <= d; j++) o->sums[j] += o->sums[b * (d + 1) + j];
  for (size_t j = 0; j < d; j++) square += o->theta[j] * o->theta[j];
  *value = o->sums[d] / n - 0.5 * l2 * square;
  for (size_t j = 0; gradient != NULL && j < d; j++) gradient[j] = o->sums[j] / n - l2 * o->theta[j];
}

static ev_status prepare(objective *o, const ev_logged *log, double clip, double l2) {
  *o = (objective){.log = log, .clip = clip};
  EV_TRY(check(log, clip, l2, &o->most));
  o->sums = ev_alloc((log->n + BLOCK - 1) / BLOCK, (log->d + 1) * sizeof(double));
  o->local = ev_alloc((size_t)ev_threads(), (o->most + log->d) * sizeof(double));
  return o->sums == NULL || o->local == NULL ? EV_ENOMEM : EV_OK;
}

static void release(objective *o) {
  ev_free(o->sums);
  ev_free(o->local);
}

ev_status ev_policy_value(double *value, double *gradient, const double *theta, const ev_logged *log, double clip, double l2) {
  objective o;
  ev_status status = prepare(&o, log, clip, l2);
  o.theta = theta;
  if (status == EV_OK) value_of(&o, value, gradient, l2);
  release(&o);
  return status;
}

ev_status ev_policy_learn(ev_arms *a, const ev_logged *log, double clip, double l2, unsigned steps, double rate, double *value) {
  if (a->o.kind != EV_ARMS_POLICY || a->o.n_dims != log->d) return ev_fail(EV_EINVAL, "a policy of %u features cannot learn from %zu", a->o.n_dims, log->d);
  if (!(rate > 0 && rate <= 100)) return ev_fail(EV_EINVAL, "a rate of %g", rate);
  size_t d = log->d;
  objective o;
  ev_status status = prepare(&o, log, clip, l2);
  double *theta = ev_zalloc(4 * d + a->layout.slot_size, sizeof *theta);
  if (theta == NULL) status = EV_ENOMEM;
  if (status != EV_OK) goto end;
  double *gradient = theta + d, *m = gradient + d, *v = m + d, *slot = v + d;
  status = ev_arms_read(a, 0, slot);
  if (status != EV_OK) goto end;
  memcpy(theta, slot + ARMS_SLOT_HEAD, d * sizeof *theta);
  o.theta = theta;
  double fade1 = 1, fade2 = 1;
  for (unsigned s = 0; s < steps; s++) {
    if (ev_interrupted()) {
      status = ev_fail(EV_EINTR, "interrupted");
      goto end;
    }
    value_of(&o, value, gradient, l2);
    fade1 *= 0.9, fade2 *= 0.999;
    for (size_t j = 0; j < d; j++) {
      m[j] = 0.9 * m[j] + 0.1 * gradient[j];
      v[j] = 0.999 * v[j] + 0.001 * gradient[j] * gradient[j];
      theta[j] += rate * (m[j] / (1 - fade1)) / (sqrt(v[j] / (1 - fade2)) + 1e-8);
    }
  }
  value_of(&o, value, NULL, l2);
  const double *from;
  double *to;
  status = arms_begin(a, 0, &from, &to);
  if (status != EV_OK) goto end;
  memcpy(to, from, ARMS_SLOT_HEAD * sizeof *to);
  memcpy(to + ARMS_SLOT_HEAD, theta, d * sizeof *theta);
  arms_end(a, 0, true);
end:
  release(&o);
  ev_free(theta);
  return status;
}
