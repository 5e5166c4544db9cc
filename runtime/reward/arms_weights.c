/* arms_weights.c - EXP3.S and EXP4 (Auer, Cesa-Bianchi, Freund, Schapire 2002).
 *
 * Weights are kept as logarithms, the largest 0: a product of 10^6 factors would overflow. EXP3 of K arms: of the arm drawn
 * log w += γ r / (p K). EXP4 of N experts: ŷ_i = ξ_i(a) r / p, log w_i += γ ŷ_i / K. Then, with a share α, every w gains
 * (e α / n) Σ w, so that an arm that was bad for long is soon found again. Forgetting multiplies log w before a step. */
#include "arms.h"

ev_status arms_weights_update(ev_arms *a, uint32_t i, const float *x, double reward, double propensity, double seen) {
  size_t n = a->o.n;
  if (!(reward >= 0 && reward <= 1)) return ev_fail(EV_EINVAL, "weights: a reward of %g is not in [0, 1]", reward);
  if (!(propensity > 0 && propensity <= 1)) return ev_fail(EV_EINVAL, "weights: a propensity of %g is not in (0, 1]", propensity);
  for (size_t k = 0; k < a->o.n_dims; k++)
    if (!(x[k] >= 0 && x[k] <= 1)) return ev_fail(EV_EINVAL, "weights: expert %zu advises with probability %g", k + 1, (double)x[k]);
  const double *from;
  double *to;
  EV_TRY(arms_begin(a, 0, &from, &to));
  const double *w = from + ARMS_SLOT_HEAD;
  double *out = to + ARMS_SLOT_HEAD, gain = a->o.rate * reward / (propensity * seen), most = -INFINITY, sum = 0;
  memcpy(to, from, ARMS_SLOT_HEAD * sizeof *to);
  to[0] += 1;
  for (size_t k = 0; k < n; k++) sum += exp(a->o.decay * w[k]);
  double floor = log(M_E * a->o.share * sum / (double)n); /* −∞ without a share */
  for (size_t k = 0; k < n; k++) {
    double step = a->o.n_dims > 0 ? gain * (double)x[k] : k == i ? gain / (double)n : 0;
    double v = a->o.decay * w[k] + step;
    if (a->o.share > 0) v = v > floor ? v + log1p(exp(floor - v)) : floor + log1p(exp(v - floor));
    out[k] = v;
    most = v > most ? v : most;
  }
  for (size_t k = 0; k < n; k++) {
    out[k] -= most;
    if (out[k] < -700) out[k] = -700; /* e^−700: nothing, and a number */
  }
  arms_end(a, 0, true);
  return EV_OK;
}

void arms_weights_shares(const ev_arms *a, const double *slot, double *out) {
  double sum = 0;
  for (size_t k = 0; k < a->o.n; k++) sum += out[k] = exp(slot[ARMS_SLOT_HEAD + k]);
  for (size_t k = 0; k < a->o.n; k++) out[k] /= sum;
}
