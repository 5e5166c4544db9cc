/* canary.c - a challenger against the champion, by betting on what the difference of their rewards is.
 *
 * Importance weighting by the share makes every event, whoever served it, say something of the difference: z of reward.h. Its
 * mean is the difference whatever q is, so q, the mean reward before, is chosen to make its variance that of the difference of
 * two means. Bets are cut where the worst event would cost CUT of the capital; the bounds of z are known before the event. */
#include <math.h>
#include <string.h>

#include "sequential.h"

#define CUT 0.75
/* Few of the first events are the challenger's, and each weighs 1 / share: bets as large as there are without patience would spend
 * the interval's errors, and its capital, on them. */
#define PATIENCE 10
#define CAPITAL_MAX 1e300

void ev_canary_defaults(ev_canary_options *o) { *o = (ev_canary_options){.confidence = 0.95, .caution = 0.95, .low = 0, .high = 1}; }

ev_status ev_canary_init(ev_canary *c, const ev_canary_options *o) {
  memset(c, 0, sizeof *c);
  if (!(o->caution > 0 && o->caution < 1)) return ev_fail(EV_EINVAL, "a caution of %g; it lies between 0 and 1", o->caution);
  double range = o->high - o->low;
  if (!(fabs(o->margin) < range) || !(fabs(o->harm) < range)) return ev_fail(EV_EINVAL, "margin %g and harm %g must be smaller than the range of rewards", o->margin, o->harm);
  EV_TRY(ev_sequence_init(&c->difference, EV_BETTING, o->confidence, -range, range));
  c->o = *o;
  for (int k = 0; k < EV_BETS; k++) c->capital[0][k] = c->capital[1][k] = 1;
  c->most[0] = c->most[1] = 1;
  return EV_OK;
}

static double mixed(const double *capital) {
  double sum = 0;
  for (int k = 0; k < EV_BETS; k++) sum += capital[k] / EV_BETS;
  return sum;
}

/* Bets that the mean of z is above m; z >= −lowest. */
static void bet(ev_canary *c, int which, double z, double m, double lowest) {
  double most = CUT / (lowest + fabs(m)), lambda = CUT;
  for (int k = 0; k < EV_BETS; k++, lambda /= 1.6) {
    double next = c->capital[which][k] * (1 + fmin(lambda, most) * (z - m));
    c->capital[which][k] = next < CAPITAL_MAX ? next : CAPITAL_MAX;
  }
  c->most[which] = fmax(c->most[which], mixed(c->capital[which]));
}

ev_status ev_canary_add(ev_canary *c, bool challenger, double reward, double share) {
  const ev_canary_options *o = &c->o;
  if (!(reward >= o->low && reward <= o->high)) return ev_fail(EV_EINVAL, "a reward of %g; rewards lie between %g and %g", reward, o->low, o->high);
  if (!(share > 0 && share < 1)) return ev_fail(EV_EINVAL, "a share of %g; it lies between 0 and 1", share);
  double range = o->high - o->low, r = (reward - o->low) / range, q = (0.5 + c->sum[0] + c->sum[1]) / ((double)c->n[0] + (double)c->n[1] + 1);
  double z = (r - q) * (challenger ? 1 / share : -1 / (1 - share));
  double lowest = fmax(q / share, (1 - q) / (1 - share)), highest = fmax((1 - q) / share, q / (1 - share));
  if (c->n[0] + c->n[1] == 0) c->difference.patience = PATIENCE / (share * (1 - share));
  bet(c, 0, z, o->margin / range, lowest);
  bet(c, 1, -z, o->harm / range, highest);
  ev_sequence_see(&c->difference, 0.5 * (z + 1), 0.5 * (1 - lowest), 0.5 * (1 - z), 0.5 * (1 - highest));
  c->z += z;
  c->n[challenger]++;
  c->sum[challenger] += r;
  if (c->decision == EV_GO_ON && c->most[1] >= 1 / (1 - o->caution)) c->decision = EV_ROLL_BACK;
  if (c->decision == EV_GO_ON && c->most[0] >= 1 / (1 - o->confidence)) c->decision = EV_PROMOTE;
  return EV_OK;
}

void ev_canary_read(const ev_canary *c, ev_canary_result *out) {
  double range = c->o.high - c->o.low, n = (double)(c->n[0] + c->n[1]);
  ev_sequence_interval(&c->difference, &out->difference);
  out->difference.value = n > 0 ? range * c->z / n : NAN;
  out->difference.p = 1 / c->most[0];
  out->better = mixed(c->capital[0]);
  out->worse = mixed(c->capital[1]);
  out->champion = c->n[0] > 0 ? c->o.low + range * c->sum[0] / (double)c->n[0] : NAN;
  out->challenger = c->n[1] > 0 ? c->o.low + range * c->sum[1] / (double)c->n[1] : NAN;
  out->decision = (ev_decision)c->decision;
}

ev_status ev_canary_check(const ev_canary *c) {
  EV_TRY(ev_sequence_check(&c->difference));
  const ev_canary_options *o = &c->o;
  double range = o->high - o->low;
  bool good = o->confidence > 0 && o->confidence < 1 && o->caution > 0 && o->caution < 1 && range > 0 && isfinite(range) && fabs(o->margin) < range && fabs(o->harm) < range &&
              c->decision <= EV_ROLL_BACK && c->sum[0] >= 0 && c->sum[1] >= 0 && c->sum[0] <= (double)c->n[0] && c->sum[1] <= (double)c->n[1] && isfinite(c->z) &&
              c->difference.kind == EV_BETTING;
  for (int w = 0; w < 2 && good; w++) {
    good = c->most[w] >= 1 && c->most[w] <= CAPITAL_MAX;
    for (int k = 0; k < EV_BETS && good; k++) good = c->capital[w][k] >= 0 && c->capital[w][k] <= CAPITAL_MAX;
  }
  return good ? EV_OK : ev_fail(EV_ECORRUPT, "this is no canary");
}
