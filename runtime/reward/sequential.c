/* sequential.c - confidence sequences: intervals of a mean that hold at all times at once.
 *
 * Both ends are found by one piece of code. A side sees numbers y >= least whose mean is m: y = x and m the mean for the lower
 * end, y = 1 − x and m one minus the mean for the upper one; importance-weighted, y = w r and y = w (1 − r).
 *
 * Betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2023): the capital
 * Π (1 + λ_t (y_t − m)) of one who bets that the mean is above m is a martingale if it is m, so it reaches 2/α with
 * probability α/2 at most. There λ is cut at c/m; here at c whatever m is, which makes the capital's logarithm concave in m.
 * Hence a line between two candidates lies below it, and the grid of candidates may follow the interval as it narrows, new
 * candidates taking what the line says: never more than their true capital. A fixed grid fine enough for click rates
 * after millions of events would be a thousand times as large. */
#include <math.h>
#include <string.h>

#include "sequential.h"

#define G EV_SEQUENCE_GRID
#define CAP_BETTING 0.75
#define CAP_BERNSTEIN 0.5
#define CAPITAL_MAX 1e300
#define N_MIXED 48 /* bets of the mixture: 0.8 / 1.3^k, down to 4e-6 */

static double alpha(const ev_sequence *s) { return 1 - s->confidence; }

ev_status ev_sequence_init(ev_sequence *s, ev_sequence_kind kind, double confidence, double low, double high) {
  memset(s, 0, sizeof *s); /* also what lies between the fields: the bytes are saved */
  if ((unsigned)kind >= EV_SEQUENCE_KINDS) return ev_fail(EV_EINVAL, "no such confidence sequence");
  if (!(confidence > 0 && confidence < 1)) return ev_fail(EV_EINVAL, "a confidence of %g; it lies between 0 and 1", confidence);
  if (!(low < high) || !isfinite(low) || !isfinite(high)) return ev_fail(EV_EINVAL, "rewards from %g to %g", low, high);
  s->kind = kind;
  s->confidence = confidence;
  s->low = low;
  s->high = high;
  s->to = s->grid_to = 1;
  for (int i = 0; i < G; i++) s->side[0].capital[i] = s->side[1].capital[i] = 1;
  return EV_OK;
}

/* ---- Betting ---------------------------------------------------------------------------------------------*/
static double candidate(const ev_sequence *s, double i) { return s->grid_from + (s->grid_to - s->grid_from) * i / (G - 1); }

/* log of the capital at candidate `at` (in steps of the grid): on the line between its neighbours, or −inf. */
static double log_between(const ev_sequence_side *side, double at) {
  int i = (int)at;
  if (i >= G - 1) i = G - 2;
  double t = at - i, a = side->capital[i], b = side->capital[i + 1];
  if (t <= 0) return log(a);
  if (t >= 1) return log(b);
  return a > 0 && b > 0 ? (1 - t) * log(a) + t * log(b) : -INFINITY;
}

/* How many steps of the grid from its end at `side` are beaten: those where capital reached 2/α. The side's capital falls
 * from its own end on, since every factor does. */
static double beaten(const ev_sequence *s, int which) {
  const ev_sequence_side *side = &s->side[which];
  double need = 2 / alpha(s);
  int i = 0;
  while (i < G && side->capital[which == 0 ? i : G - 1 - i] >= need) i++;
  if (i == 0) return -1;
  if (i == G) return G; /* all of them: beyond the other end */
  double a = side->capital[which == 0 ? i - 1 : G - i], b = side->capital[which == 0 ? i : G - 1 - i];
  return b > 0 ? i - 1 + (log(a) - log(need)) / (log(a) - log(b)) : i - 1;
}

static void follow(ev_sequence *s) { /* the grid spans the interval, no more */
  double span = s->grid_to - s->grid_from, start = (s->from - s->grid_from) / span * (G - 1), end = (s->to - s->grid_from) / span * (G - 1);
  for (int k = 0; k < 2; k++) {
    double next[G];
    for (int i = 0; i < G; i++) next[i] = exp(log_between(&s->side[k], fmin(fmax(start + (end - start) * i / (G - 1), 0), G - 1)));
    memcpy(s->side[k].capital, next, sizeof next);
  }
  s->grid_from = s->from;
  s->grid_to = s->to;
}

static void narrow(ev_sequence *s, double from, double to) {
  if (s->drifted) return;
  if (from > to) {
    s->drifted = 1;
    return;
  }
  s->from = from;
  s->to = to;
}

static void settle(ev_sequence *s) { /* what the capitals say of the interval by now */
  double need = 2 / alpha(s);
  if (s->side[0].capital[0] < need && s->side[1].capital[G - 1] < need) return;
  double low = beaten(s, 0), high = beaten(s, 1);
  narrow(s, low < 0 ? s->from : fmax(s->from, candidate(s, low)), high < 0 ? s->to : fmin(s->to, candidate(s, G - 1 - high)));
  if (!s->drifted && s->to > s->from && s->to - s->from < 0.5 * (s->grid_to - s->grid_from)) follow(s);
}

/* ---- One observation ----------------------------------------------------------------------------------------*/
/* Plug-in bet from what came before (equation 26 there), and the mean before. */
static double bet(const ev_sequence *s, const ev_sequence_side *side, double *mean) {
  double n = (double)s->n + 1, variance = (0.25 + side->squares) / n, t = n + s->patience;
  *mean = (0.5 + side->sum) / n;
  return sqrt(2 * log(2 / alpha(s)) / (variance * t * log1p(t)));
}

static double psi(double lambda, double b) { return (-log1p(-b * lambda) - b * lambda) / (b * b); } /* of y − mean >= −b */

static void see(ev_sequence *s, int which, double y, double least) {
  ev_sequence_side *side = &s->side[which];
  double mean, lambda = bet(s, side, &mean), centre = fmin(fmax(mean, 0), 1);
  if (s->kind == EV_BETTING) {
    lambda = fmin(lambda, CAP_BETTING / (1 - least));
    double first = which == 0 ? s->grid_from : 1 - s->grid_from, step = (s->grid_to - s->grid_from) / (G - 1) * (which == 0 ? 1 : -1);
    double base = 1 + lambda * (y - first), down = lambda * step;
    for (int i = 0; i < G; i++) {
      double c = side->capital[i] * (base - down * i);
      side->capital[i] = c < CAPITAL_MAX ? c : CAPITAL_MAX;
    }
  } else if (s->kind == EV_BERNSTEIN) {
    double b = centre - least;
    lambda = fmin(lambda, b > 0 ? CAP_BERNSTEIN / b : INFINITY);
    side->bets += lambda;
    side->won += lambda * y;
    side->paid += psi(lambda, b) * (y - centre) * (y - centre);
  } else {
    side->variance += (y - centre) * (y - centre);
  }
  side->sum += y;
  double after = (0.5 + side->sum) / ((double)s->n + 2);
  side->squares += (y - after) * (y - after);
}

void ev_sequence_see(ev_sequence *s, double up, double least_up, double down, double least_down) {
  see(s, 0, up, least_up);
  see(s, 1, down, least_down);
  s->n++;
  if (s->kind == EV_BETTING) {
    settle(s);
  } else if (s->kind == EV_BERNSTEIN) {
    double ends[2], need = log(2 / alpha(s));
    for (int k = 0; k < 2; k++) ends[k] = (s->side[k].won - need - s->side[k].paid) / s->side[k].bets;
    narrow(s, fmax(s->from, ends[0]), fmin(s->to, 1 - ends[1]));
  }
}

static ev_status scaled(const ev_sequence *s, double *r, double reward, size_t i) {
  if (!(reward >= s->low && reward <= s->high)) return ev_fail(EV_EINVAL, "reward %zu is %g; rewards lie between %g and %g", i + 1, reward, s->low, s->high);
  *r = (reward - s->low) / (s->high - s->low);
  return EV_OK;
}

ev_status ev_sequence_add(ev_sequence *s, const double *rewards, size_t n) {
  for (size_t i = 0; i < n; i++) {
    double r = 0;
    EV_TRY(scaled(s, &r, rewards[i], i));
    ev_sequence_see(s, r, 0, 1 - r, 0);
  }
  return EV_OK;
}

ev_status ev_sequence_add_weighted(ev_sequence *s, const double *weights, const double *rewards, size_t n) {
  for (size_t i = 0; i < n; i++) {
    double r = 0, w = weights[i];
    EV_TRY(scaled(s, &r, rewards[i], i));
    if (!(w >= 0 && w <= 1e100)) return ev_fail(EV_EINVAL, "weight %zu is %g; weights are numbers of 0 or more", i + 1, w);
    ev_sequence_see(s, w * r, 0, w * (1 - r), 0);
  }
  return EV_OK;
}

/* ---- Reading it -----------------------------------------------------------------------------------------*/
/* The sum of deviations that reaches 2/α at variance v: the root of log Σ_k weight_k e^(λ_k u − ψ(λ_k) v) = log 2/α, which
 * grows with u. The weights fall as 1 / (k log² k): a series that would converge, so that fine bets cost little. */
static double reach(double v, double need) {
  double lambda[N_MIXED], fixed[N_MIXED], total = 0;
  for (int k = 0; k < N_MIXED; k++) {
    double l = log(k + 2.0), weight = 1 / ((k + 2) * l * l);
    lambda[k] = 0.8 * pow(1.3, -k);
    fixed[k] = log(weight) - psi(lambda[k], 1) * v;
    total += weight;
  }
  need += log(total);
  double u = INFINITY;
  for (int k = 0; k < N_MIXED; k++) u = fmin(u, (need - fixed[k]) / lambda[k]); /* one bet alone reaches it there */
  for (int turn = 0; turn < 50; turn++) { /* Newton from above: the function is convex, so no step goes past the root */
    double top = -INFINITY, sum = 0, slope = 0;
    for (int k = 0; k < N_MIXED; k++) top = fmax(top, lambda[k] * u + fixed[k]);
    for (int k = 0; k < N_MIXED; k++) {
      double x = exp(lambda[k] * u + fixed[k] - top);
      sum += x;
      slope += lambda[k] * x;
    }
    double step = (top + log(sum) - need) * sum / slope;
    u -= step;
    if (!(step > 1e-12 * u)) break;
  }
  return u;
}

void ev_sequence_interval(const ev_sequence *s, ev_difference *out) {
  double from = s->from, to = s->to, n = (double)s->n, value = n > 0 ? 0.5 * (s->side[0].sum + n - s->side[1].sum) / n : NAN, range = s->high - s->low;
  if (s->kind == EV_DRIFTING && n > 0) {
    double need = log(2 / alpha(s));
    from = fmax(0, (s->side[0].sum - reach(s->side[0].variance, need)) / n);
    to = fmin(1, 1 - (s->side[1].sum - reach(s->side[1].variance, need)) / n);
  }
  *out = (ev_difference){.value = s->low + range * value, .low = s->low + range * from, .high = s->low + range * to, .p = NAN};
}

ev_status ev_sequence_check(const ev_sequence *s) {
  bool good = s->kind < EV_SEQUENCE_KINDS && s->drifted <= 1 && s->confidence > 0 && s->confidence < 1 && s->low < s->high && isfinite(s->high - s->low) &&
              s->grid_from >= -1e-9 && s->grid_to <= 1 + 1e-9 && s->grid_to - s->grid_from > 1e-300 && s->patience >= 0 && isfinite(s->patience) && s->from >= -1e-9 && s->to <= 1 + 1e-9 && s->from <= s->to;
  for (int k = 0; k < 2 && good; k++) {
    const ev_sequence_side *side = &s->side[k];
    good = isfinite(side->sum) && side->squares >= 0 && side->bets >= 0 && isfinite(side->won) && side->paid >= 0 && side->variance >= 0;
    for (int i = 0; i < G && good; i++) good = side->capital[i] >= 0 && side->capital[i] <= CAPITAL_MAX;
  }
  return good ? EV_OK : ev_fail(EV_ECORRUPT, "this is no confidence sequence");
}
