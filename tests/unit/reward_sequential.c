/* reward_sequential.c - what may be looked at after every event: intervals and tests against the papers' formulas worked out anew
 * from the whole history, and how often they are wrong when somebody looks at every event. */
#include <math.h>

#include "reward/reward.h"
#include "support.h"

#define ALPHA 0.05

static double most(int n, double p) { return n * p + 3.1 * sqrt(n * p * (1 - p)); } /* of n with probability p each: more in one of a thousand runs */

static double beta_like(ev_rng *r, double mean) { /* in [0, 1], of this mean, neither 0 nor 1 alone */
  return ev_rng_f64(r) < mean ? 1 - 0.5 * ev_rng_f64(r) * (1 - mean) : 0.5 * ev_rng_f64(r) * mean * mean / (1 - mean) * (1 - mean) / mean;
}

/* ---- Against the formulas ---------------------------------------------------------------------------------*/
/* Theorem 3 with its capital worked out for each of 4001 candidates; the cut is 0.75 for all of them. */
static void exact_betting(double *low, double *high, const double *x, int n) {
  enum { CANDIDATES = 4001 };
  static double up[CANDIDATES], down[CANDIDATES];
  double sum = 0, squares = 0;
  *low = 0;
  *high = 1;
  for (int i = 0; i < CANDIDATES; i++) up[i] = down[i] = 0;
  for (int t = 1; t <= n; t++) {
    double lambda = fmin(sqrt(2 * log(2 / ALPHA) / ((0.25 + squares) / t * t * log(t + 1.0))), 0.75);
    for (int i = 0; i < CANDIDATES; i++) {
      double m = i / (CANDIDATES - 1.0);
      up[i] += log(1 + lambda * (x[t - 1] - m));
      down[i] += log(1 - lambda * (x[t - 1] - m));
      if (up[i] >= log(2 / ALPHA)) *low = fmax(*low, m);
      if (down[i] >= log(2 / ALPHA)) *high = fmin(*high, m);
    }
    sum += x[t - 1];
    double mean = (0.5 + sum) / (t + 1);
    squares += (x[t - 1] - mean) * (x[t - 1] - mean);
  }
}

static void the_grid_that_follows_loses_next_to_nothing(void **state) {
  (void)state;
  enum { N = 1000 };
  static double x[N];
  const double means[] = {0.02, 0.1, 0.5, 0.9};
  for (int k = 0; k < 4; k++) {
    ev_rng r;
    ev_rng_seed(&r, 3, (uint64_t)k);
    for (int i = 0; i < N; i++) x[i] = k == 2 ? beta_like(&r, 0.4) : ev_rng_f64(&r) < means[k];
    ev_sequence s;
    ev_difference d;
    double low, high, step = 1.0 / 4000;
    assert_int_equal(ev_sequence_init(&s, EV_BETTING, 1 - ALPHA, 0, 1), EV_OK);
    assert_int_equal(ev_sequence_add(&s, x, N), EV_OK);
    ev_sequence_interval(&s, &d);
    exact_betting(&low, &high, x, N);
    if (!(d.low <= low + step && d.high >= high - step)) fail_msg("[%g, %g] is narrower than what is exact, [%g, %g]", d.low, d.high, low, high);
    if (!(d.high - d.low <= 1.005 * (high - low) + 2 * step)) fail_msg("[%g, %g] where [%g, %g] is exact", d.low, d.high, low, high);
  }
}

static void bernstein_is_what_the_formula_says(void **state) {
  (void)state;
  enum { N = 400 };
  double x[N], low = 0, high = 1;
  ev_rng r;
  ev_rng_seed(&r, 4, 0);
  ev_sequence s;
  ev_difference d;
  assert_int_equal(ev_sequence_init(&s, EV_BERNSTEIN, 1 - ALPHA, -2, 3), EV_OK);
  for (int n = 1; n <= N; n++) {
    x[n - 1] = beta_like(&r, 0.3);
    double reward = -2 + 5 * x[n - 1], bets = 0, won = 0, paid = 0, sum = 0, squares = 0;
    for (int t = 1; t <= n; t++) { /* theorem 2, from the beginning; there v = 4 (x − mean)², ψ a quarter of this one */
      double before = (0.5 + sum) / t, after, y = x[t - 1];
      double lambda = fmin(sqrt(2 * log(2 / ALPHA) / ((0.25 + squares) / t * t * log(t + 1.0))), 0.5 / before);
      bets += lambda;
      won += lambda * y;
      paid += (-log(1 - before * lambda) - before * lambda) / (before * before) * (y - before) * (y - before); /* y − before >= −before */
      sum += y;
      after = (0.5 + sum) / (t + 1);
      squares += (y - after) * (y - after);
    }
    low = fmax(low, (won - log(2 / ALPHA) - paid) / bets);
    double sum1 = 0, squares1 = 0;
    bets = won = paid = 0;
    for (int t = 1; t <= n; t++) {
      double before = (0.5 + sum1) / t, y = 1 - x[t - 1], lambda = fmin(sqrt(2 * log(2 / ALPHA) / ((0.25 + squares1) / t * t * log(t + 1.0))), 0.5 / before);
      bets += lambda;
      won += lambda * y;
      paid += (-log(1 - before * lambda) - before * lambda) / (before * before) * (y - before) * (y - before);
      sum1 += y;
      squares1 += pow(y - (0.5 + sum1) / (t + 1), 2);
    }
    high = fmin(high, 1 - (won - log(2 / ALPHA) - paid) / bets);
    assert_int_equal(ev_sequence_add(&s, &reward, 1), EV_OK);
    ev_sequence_interval(&s, &d);
    assert_true(fabs(d.low - (-2 + 5 * low)) < 1e-9 && fabs(d.high - (-2 + 5 * high)) < 1e-9 && fabs(d.value - (-2 + 5 * sum / n)) < 1e-9);
  }
  assert_true(low > 0.1 && high < 0.6);
}

/* The mixture has reached 2/α exactly where the interval ends. */
static void the_mixture_ends_where_it_reaches_its_level(void **state) {
  (void)state;
  enum { N = 1000 };
  ev_rng r;
  ev_rng_seed(&r, 5, 0);
  ev_sequence s;
  ev_difference d;
  assert_int_equal(ev_sequence_init(&s, EV_DRIFTING, 1 - ALPHA, 0, 1), EV_OK);
  double sum = 0, variance = 0;
  for (int n = 1; n <= N; n++) {
    double x = beta_like(&r, 0.2 + 0.2 * n / N), before = (0.5 + sum) / n;
    assert_int_equal(ev_sequence_add(&s, &x, 1), EV_OK);
    sum += x;
    variance += (x - before) * (x - before);
  }
  ev_sequence_interval(&s, &d);
  for (int side = 0; side < 2; side++) {
    double u = side == 0 ? sum - N * d.low : N * d.high - sum, mixture = 0, weights = 0;
    for (int k = 0; k < 48; k++) {
      double weight = 1 / ((k + 2) * log(k + 2.0) * log(k + 2.0)), lambda = 0.8 * pow(1.3, -k);
      weights += weight;
      mixture += weight * exp(lambda * u - (-log(1 - lambda) - lambda) * variance);
    }
    assert_true(fabs(mixture / weights / (2 / ALPHA) - 1) < 1e-6);
  }
}

/* ---- How often they are wrong --------------------------------------------------------------------------------*/
static void intervals_hold_at_every_event_at_once(void **state) {
  (void)state;
  enum { RUNS = 500, N = 400 };
  int naive_missed = 0, missed[EV_SEQUENCE_KINDS] = {0};
  for (int run = 0; run < RUNS; run++) {
    ev_rng r;
    ev_rng_seed(&r, 6, (uint64_t)run);
    ev_sequence s[EV_SEQUENCE_KINDS];
    bool out[EV_SEQUENCE_KINDS] = {false}, naive = false;
    double sum = 0, truth = 0.15;
    for (unsigned k = 0; k < EV_SEQUENCE_KINDS; k++) assert_int_equal(ev_sequence_init(&s[k], (ev_sequence_kind)k, 1 - ALPHA, 0, 1), EV_OK);
    for (int n = 1; n <= N; n++) {
      double x = ev_rng_f64(&r) < truth;
      sum += x;
      for (unsigned k = 0; k < EV_SEQUENCE_KINDS; k++) {
        ev_difference d;
        assert_int_equal(ev_sequence_add(&s[k], &x, 1), EV_OK);
        if (k == EV_DRIFTING && n % 4 != 0) continue; /* it takes its time to read */
        ev_sequence_interval(&s[k], &d);
        out[k] |= !(d.low <= truth && truth <= d.high);
      }
      double mean = sum / n;
      if (n > 30) naive |= fabs(mean - truth) > 1.96 * sqrt(mean * (1 - mean) / n);
    }
    for (unsigned k = 0; k < EV_SEQUENCE_KINDS; k++) missed[k] += out[k];
    naive_missed += naive;
  }
  for (unsigned k = 0; k < EV_SEQUENCE_KINDS; k++)
    if (missed[k] > most(RUNS, ALPHA)) fail_msg("kind %u missed the mean in %d of %d runs", k, missed[k], RUNS);
  assert_true(naive_missed > RUNS / 6); /* what looking does to an interval of one fixed time */
  assert_true(missed[EV_BETTING] > 0);
}

static void a_drifting_mean_is_covered_by_the_kind_made_for_it(void **state) {
  (void)state;
  enum { RUNS = 400, N = 600 };
  int missed = 0, noticed = 0;
  for (int run = 0; run < RUNS; run++) {
    ev_rng r;
    ev_rng_seed(&r, 7, (uint64_t)run);
    ev_sequence s, constant;
    double means = 0;
    bool out = false;
    assert_int_equal(ev_sequence_init(&s, EV_DRIFTING, 1 - ALPHA, 0, 1), EV_OK);
    assert_int_equal(ev_sequence_init(&constant, EV_BETTING, 1 - ALPHA, 0, 1), EV_OK);
    for (int n = 1; n <= N; n++) {
      double mean = n <= N / 2 ? 0.1 : 0.6, x = ev_rng_f64(&r) < mean;
      ev_difference d;
      means += mean;
      assert_int_equal(ev_sequence_add(&s, &x, 1), EV_OK);
      assert_int_equal(ev_sequence_add(&constant, &x, 1), EV_OK);
      if (n % 4 != 0) continue;
      ev_sequence_interval(&s, &d);
      out |= !(d.low <= means / n && means / n <= d.high);
    }
    missed += out;
    noticed += constant.drifted;
    assert_int_equal(ev_sequence_check(&constant), EV_OK);
  }
  assert_true(missed <= most(RUNS, ALPHA));
  assert_true(noticed > RUNS * 9 / 10);
}

static void weighted_rewards_need_no_bound_on_the_weights(void **state) {
  (void)state;
  enum { RUNS = 400, N = 500, ACTIONS = 10 };
  int missed[EV_SEQUENCE_KINDS] = {0};
  double width[EV_SEQUENCE_KINDS] = {0};
  for (int run = 0; run < RUNS; run++) {
    ev_rng r;
    ev_rng_seed(&r, 8, (uint64_t)run);
    ev_sequence s[EV_SEQUENCE_KINDS];
    bool out[EV_SEQUENCE_KINDS] = {false};
    double truth = 0;
    for (unsigned k = 0; k < EV_SEQUENCE_KINDS; k++) assert_int_equal(ev_sequence_init(&s[k], (ev_sequence_kind)k, 1 - ALPHA, 0, 2), EV_OK);
    for (int a = 0; a < ACTIONS; a++) truth += 2 * 0.08 * a * 2.0 * (a + 1) / (ACTIONS * (ACTIONS + 1)); /* the target policy takes a with probability ∝ a + 1 */
    for (int n = 1; n <= N; n++) {
      double u = ev_rng_f64(&r), logged = 0, w, x; /* the log takes a with probability ∝ 1 / (a + 1): weights up to 10.6 and over */
      int a = -1;
      for (double rest = u; rest >= 0 && a < ACTIONS - 1;) logged = 1 / ((++a + 1) * 2.9289682539682538), rest -= logged;
      w = 2.0 * (a + 1) / (ACTIONS * (ACTIONS + 1)) / logged;
      x = 2 * (ev_rng_f64(&r) < 0.08 * a);
      for (unsigned k = 0; k < EV_SEQUENCE_KINDS; k++) {
        ev_difference d;
        assert_int_equal(ev_sequence_add_weighted(&s[k], &w, &x, 1), EV_OK);
        if (k == EV_DRIFTING && n % 4 != 0) continue;
        ev_sequence_interval(&s[k], &d);
        out[k] |= !(d.low <= truth && truth <= d.high);
        if (n == N) width[k] += (d.high - d.low) / RUNS;
      }
    }
    for (unsigned k = 0; k < EV_SEQUENCE_KINDS; k++) missed[k] += out[k];
  }
  for (unsigned k = 0; k < EV_SEQUENCE_KINDS; k++)
    if (missed[k] > most(RUNS, ALPHA) || !(width[k] < 1.8)) fail_msg("kind %u: missed %d of %d, width %g", k, missed[k], RUNS, width[k]);
  assert_true(width[EV_BETTING] < width[EV_BERNSTEIN]);
}

/* ---- Canaries --------------------------------------------------------------------------------------------*/
typedef struct trial {
  int promoted, rolled_back, missed;
} trial;

static trial try_canary(int runs, int n, double champion, double challenger, double share, double margin, double harm, uint64_t seed) {
  trial t = {0};
  for (int run = 0; run < runs; run++) {
    ev_rng r;
    ev_rng_seed(&r, seed, (uint64_t)run);
    ev_canary c;
    ev_canary_options o;
    ev_canary_defaults(&o);
    o.margin = margin;
    o.harm = harm;
    assert_int_equal(ev_canary_init(&c, &o), EV_OK);
    bool out = false;
    ev_canary_result result = {0};
    for (int i = 0; i < n; i++) {
      double now = share > 0 ? share : 0.05 + 0.45 * i / n; /* 0: a ramp */
      bool which = ev_rng_f64(&r) < now;
      assert_int_equal(ev_canary_add(&c, which, ev_rng_f64(&r) < (which ? challenger : champion), now), EV_OK);
      ev_canary_read(&c, &result);
      out |= !(result.difference.low <= challenger - champion && challenger - champion <= result.difference.high);
    }
    t.missed += out;
    t.promoted += result.decision == EV_PROMOTE;
    t.rolled_back += result.decision == EV_ROLL_BACK;
    assert_int_equal(ev_canary_check(&c), EV_OK);
  }
  return t;
}

static void what_is_no_better_is_seldom_promoted_though_peeked_at(void **state) {
  (void)state;
  enum { RUNS = 300, N = 1500 };
  const double shares[] = {0.5, 0.1, 0};
  for (int k = 0; k < 3; k++) {
    trial t = try_canary(RUNS, N, 0.12, 0.12, shares[k], 0, 0, 20 + (uint64_t)k);
    if (t.promoted > most(RUNS, ALPHA) || t.rolled_back > most(RUNS, ALPHA) || t.missed > most(RUNS, ALPHA))
      fail_msg("share %g: %d promoted, %d rolled back, %d missed of %d", shares[k], t.promoted, t.rolled_back, t.missed, RUNS);
  }
  trial edge = try_canary(RUNS, N, 0.1, 0.13, 0.5, 0.03, 0, 30); /* better by the margin and no more */
  assert_true(edge.promoted <= most(RUNS, ALPHA) && edge.missed <= most(RUNS, ALPHA));
  edge = try_canary(RUNS, N, 0.13, 0.1, 0.5, 0, 0.03, 31);
  assert_true(edge.rolled_back <= most(RUNS, ALPHA));
}

static void what_is_better_or_worse_is_found_out(void **state) {
  (void)state;
  trial better = try_canary(60, 4000, 0.1, 0.16, 0.5, 0, 0, 40), worse = try_canary(60, 4000, 0.16, 0.1, 0.5, 0, 0, 41), few = try_canary(60, 6000, 0.1, 0.2, 0.1, 0, 0, 42);
  assert_true(better.promoted > 54 && better.rolled_back <= 6);
  assert_true(worse.rolled_back > 54 && worse.promoted <= 6);
  assert_true(few.promoted > 54);
}

/* ---- Many ---------------------------------------------------------------------------------------------------*/
static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void adjusted_values_take_what_the_procedures_take(void **state) {
  (void)state;
  enum { N = 40 };
  ev_rng r;
  ev_rng_seed(&r, 50, 0);
  for (int turn = 0; turn < 200; turn++) {
    double p[N], e[N], sorted[N], out[N], harmonic = 0, level = 0.02 + 0.3 * ev_rng_f64(&r);
    for (int i = 0; i < N; i++) {
      p[i] = pow(ev_rng_f64(&r), i % 3 == 0 ? 6 : 1);
      if (i % 7 == 1) p[i] = p[i - 1]; /* equal ones */
      e[i] = 1 / fmax(p[i], 1e-9);
      sorted[i] = p[i];
      harmonic += 1.0 / (i + 1);
    }
    qsort(sorted, N, sizeof *sorted, by_size);
    int holm = 0, bh = 0, by = 0;
    while (holm < N && sorted[holm] <= level / (N - holm)) holm++;
    for (int k = 1; k <= N; k++) {
      if (sorted[k - 1] <= level * k / N) bh = k;
      if (sorted[k - 1] <= level * k / N / harmonic) by = k;
    }
    const int take[] = {holm, bh, by, bh};
    for (unsigned how = 0; how < EV_ADJUSTMENTS; how++) {
      int n = 0;
      assert_int_equal(ev_adjust(out, how == EV_EBH ? e : p, N, (ev_adjustment)how), EV_OK);
      for (int i = 0; i < N; i++) {
        n += out[i] <= level;
        assert_true(out[i] <= level ? take[how] > 0 && p[i] <= sorted[take[how] - 1] : take[how] == N || p[i] >= sorted[take[how]]);
      }
      assert_int_equal(n, take[how]);
    }
  }
  double bad[] = {0.5, NAN, -1, 1.5}, out[1];
  for (int i = 1; i < 4; i++) assert_int_equal(ev_adjust(out, &bad[i], 1, EV_HOLM), EV_EINVAL);
  assert_int_equal(ev_adjust(out, &bad[3], 1, EV_EBH), EV_OK);
  assert_int_equal(ev_adjust(out, &bad[1], 1, EV_EBH), EV_EINVAL);
  assert_int_equal(ev_adjust(out, bad, 0, EV_BH), EV_OK);
  ASSERT_SURVIVES_FAULTS(ev_adjust(out, bad, 1, EV_BH), );
}

/* Levels by the definitions, from the whole history; and the false discoveries among all, challengers one after the other. */
static void online_tests_keep_false_discoveries_rare(void **state) {
  (void)state;
  enum { RUNS = 60, N = 200 };
  double zeta = 0, shares[EV_ONLINE_KINDS] = {0}, found[EV_ONLINE_KINDS] = {0};
  for (int t = 1; t < 1000000; t++) zeta += pow(t, -1.6);
  zeta += pow(1e6, -0.6) / 0.6; /* the rest, but for half a term */
  for (int run = 0; run < RUNS; run++)
    for (unsigned kind = 0; kind < EV_ONLINE_KINDS; kind++) {
      ev_online o;
      ev_rng r;
      int when[N + 1], n_found = 0, wrong = 0;
      ev_rng_seed(&r, 60, (uint64_t)run);
      assert_int_equal(ev_online_init(&o, (ev_online_kind)kind, 0.1), EV_OK);
      for (int t = 1; t <= N; t++) {
        bool null = ev_rng_f64(&r) < 0.6, discovery;
        double z = ev_rng_normal(&r) + (null ? 0 : 4), p = 0.5 * erfc(z / sqrt(2)), e = exp(4 * z - 8), level;
        if (kind == EV_LORD) {
          level = 0.05 * pow(t, -1.6) / zeta;
          for (int j = 0; j < n_found; j++) level += (j == 0 ? 0.05 : 0.1) * pow(t - when[j], -1.6) / zeta;
        } else {
          level = 0.1 * pow(t, -1.6) / zeta * (n_found + 1);
        }
        assert_true(fabs(ev_online_level(&o) / level - 1) < 1e-6);
        assert_int_equal(ev_online_test(&o, kind == EV_LORD ? p : e, &discovery), EV_OK);
        assert_true(discovery == (kind == EV_LORD ? p <= level : e >= 1 / level) || fabs((kind == EV_LORD ? p / level : 1 / (e * level)) - 1) < 1e-5);
        if (discovery) when[n_found++] = t, wrong += null;
        assert_int_equal(ev_online_check(&o), EV_OK);
      }
      shares[kind] += n_found > 0 ? (double)wrong / n_found / RUNS : 0;
      found[kind] += (double)n_found / RUNS;
    }
  for (unsigned kind = 0; kind < EV_ONLINE_KINDS; kind++)
    if (!(shares[kind] < 0.1 && found[kind] > 10)) fail_msg("kind %u: %g of %g false", kind, shares[kind], found[kind]);
  ev_online o; /* more discoveries than are remembered: never laxer than with all of them */
  bool discovery;
  assert_int_equal(ev_online_init(&o, EV_LORD, 0.1), EV_OK);
  for (int t = 0; t < 2 * EV_ONLINE_KEPT; t++) {
    assert_int_equal(ev_online_test(&o, 0, &discovery), EV_OK);
    assert_true(discovery && ev_online_level(&o) <= 0.1);
  }
  assert_int_equal(ev_online_check(&o), EV_OK);
  assert_int_equal(ev_online_test(&o, 1.5, &discovery), EV_EINVAL);
  assert_int_equal(ev_online_init(&o, EV_ELOND, 0), EV_EINVAL);
}

/* ---- States --------------------------------------------------------------------------------------------------*/
static void a_copied_state_goes_on_as_the_first_and_a_broken_one_is_refused(void **state) {
  (void)state;
  ev_rng r;
  ev_rng_seed(&r, 70, 0);
  for (unsigned k = 0; k < EV_SEQUENCE_KINDS; k++) {
    ev_sequence a, b;
    double w[] = {0, 1, 3, 1e100}, x[] = {0.5, 0.25, 1, 0};
    assert_int_equal(ev_sequence_init(&a, (ev_sequence_kind)k, 0.9, 0, 1), EV_OK);
    for (int i = 0; i < 300; i++) {
      double y = ev_rng_f64(&r);
      assert_int_equal(ev_sequence_add(&a, &y, 1), EV_OK);
      if (i == 150) b = a;
      if (i > 150) assert_int_equal(ev_sequence_add(&b, &y, 1), EV_OK);
    }
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(ev_sequence_add_weighted(&a, w, x, 4), EV_OK); /* a weight that nobody should have does no harm */
    assert_int_equal(ev_sequence_check(&a), EV_OK);
    const double wrong[] = {NAN, -0.1, 1.1, INFINITY};
    for (int i = 0; i < 4; i++) assert_int_equal(ev_sequence_add(&b, &wrong[i], 1), EV_EINVAL);
    for (int i = 0; i < 2; i++) assert_int_equal(ev_sequence_add_weighted(&b, &wrong[i], x, 1), EV_EINVAL);
    assert_int_equal(ev_sequence_add_weighted(&b, &wrong[3], x, 1), EV_EINVAL);
    ev_difference d;
    ev_sequence_interval(&b, &d);
    assert_true(d.low <= d.value && d.value <= d.high && b.n == 300);
    b.side[1].capital[7] = NAN;
    assert_int_equal(ev_sequence_check(&b), EV_ECORRUPT);
    a.kind = 9;
    assert_int_equal(ev_sequence_check(&a), EV_ECORRUPT);
  }
  ev_sequence s;
  assert_int_equal(ev_sequence_init(&s, EV_BETTING, 1, 0, 1), EV_EINVAL);
  assert_int_equal(ev_sequence_init(&s, EV_BETTING, 0.9, 1, 1), EV_EINVAL);
  assert_int_equal(ev_sequence_init(&s, EV_BETTING, 0.9, 0, INFINITY), EV_EINVAL);
  ev_canary c, before;
  ev_canary_options o;
  ev_canary_defaults(&o);
  assert_int_equal(ev_canary_init(&c, &o), EV_OK);
  before = c;
  assert_int_equal(ev_canary_add(&c, true, 2, 0.5), EV_EINVAL);
  assert_int_equal(ev_canary_add(&c, true, NAN, 0.5), EV_EINVAL);
  assert_int_equal(ev_canary_add(&c, true, 1, 0), EV_EINVAL);
  assert_int_equal(ev_canary_add(&c, true, 1, 1), EV_EINVAL);
  assert_memory_equal(&c, &before, sizeof c);
  c.most[0] = 0;
  assert_int_equal(ev_canary_check(&c), EV_ECORRUPT);
  o.margin = 1;
  assert_int_equal(ev_canary_init(&c, &o), EV_EINVAL);
}

/* Bytes changed at random: what passes the check goes on without a bad access or an undefined conversion (under the sanitizers). */
static void a_damaged_state_is_refused_or_does_no_harm(void **state) {
  (void)state;
  ev_canary_options o;
  ev_canary_defaults(&o);
  int refused = 0, kept = 0;
  for (uint64_t turn = 0; turn < 6000; turn++) {
    ev_rng r;
    ev_rng_seed(&r, 80, turn);
    ev_sequence s;
    ev_canary c;
    ev_online l;
    bool found;
    assert_int_equal(ev_sequence_init(&s, (ev_sequence_kind)(turn % EV_SEQUENCE_KINDS), 0.9, 0, 1), EV_OK);
    assert_int_equal(ev_canary_init(&c, &o), EV_OK);
    assert_int_equal(ev_online_init(&l, (ev_online_kind)(turn % EV_ONLINE_KINDS), 0.05), EV_OK);
    for (int i = 0; i < 40; i++) {
      double x = ev_rng_f64(&r) < 0.2;
      assert_int_equal(ev_sequence_add(&s, &x, 1), EV_OK);
      assert_int_equal(ev_canary_add(&c, i % 2, x, 0.5), EV_OK);
      assert_int_equal(ev_online_test(&l, l.kind == EV_LORD ? 0.001 : 500, &found), EV_OK);
    }
    struct {
      void *at;
      size_t size;
    } all[] = {{&s, turn % 2 ? sizeof s : offsetof(ev_sequence, side)}, {&c, sizeof c}, {&l, sizeof l}};
    for (int k = 0; k < 3; k++)
      for (uint32_t i = 0; i < 1 + turn % 4; i++) ((uint8_t *)all[k].at)[ev_rng_below(&r, (uint32_t)all[k].size)] ^= (uint8_t)(1u << ev_rng_below(&r, 8));
    ev_difference d;
    ev_canary_result result;
    if (ev_sequence_check(&s) != EV_OK) refused++;
    else {
      kept++;
      for (int i = 0; i < 60; i++) {
        double x = s.low + (s.high - s.low) * ev_rng_f64(&r);
        ev_sequence_add(&s, &x, 1);
        ev_sequence_interval(&s, &d);
      }
    }
    if (ev_canary_check(&c) == EV_OK)
      for (int i = 0; i < 60; i++) {
        ev_canary_add(&c, i % 2, c.o.low + (c.o.high - c.o.low) * ev_rng_f64(&r), 0.5);
        ev_canary_read(&c, &result);
      }
    if (ev_online_check(&l) == EV_OK)
      for (int i = 0; i < 5; i++) ev_online_test(&l, ev_rng_f64(&r), &found);
  }
  assert_true(refused > 500 && kept > 500);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_grid_that_follows_loses_next_to_nothing), cmocka_unit_test(bernstein_is_what_the_formula_says),
      cmocka_unit_test(the_mixture_ends_where_it_reaches_its_level), cmocka_unit_test(intervals_hold_at_every_event_at_once),
      cmocka_unit_test(a_drifting_mean_is_covered_by_the_kind_made_for_it), cmocka_unit_test(weighted_rewards_need_no_bound_on_the_weights),
      cmocka_unit_test(what_is_no_better_is_seldom_promoted_though_peeked_at), cmocka_unit_test(what_is_better_or_worse_is_found_out),
      cmocka_unit_test(adjusted_values_take_what_the_procedures_take), cmocka_unit_test(online_tests_keep_false_discoveries_rare),
      cmocka_unit_test(a_copied_state_goes_on_as_the_first_and_a_broken_one_is_refused),
      cmocka_unit_test(a_damaged_state_is_refused_or_does_no_harm),
  };
  return RUN(tests);
}
