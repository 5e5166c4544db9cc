/* reward_ope.c - off-policy estimators on logs that hold every outcome as often as it is likely, so that what is unbiased must be
 * exact; limits in which one estimator becomes another; the same bits however they are asked for. NumPy checks figures in e2e. */
#include <math.h>

#include "reward/reward.h"
#include "support.h"

enum { CONTEXTS = 3, ARMS = 4, MOST = 4000 };

/* In eighths: what the logging policy shows, and what is evaluated. */
static const int logging[CONTEXTS][ARMS] = {{1, 2, 4, 1}, {2, 2, 2, 2}, {5, 1, 1, 1}}, evaluated[CONTEXTS][ARMS] = {{3, 0, 2, 3}, {0, 8, 0, 0}, {1, 3, 3, 1}};
static const double pays[CONTEXTS][ARMS] = {{0.5, 1, -0.25, 2}, {1, 0.125, 0, 3}, {-1, 0.75, 0.5, 0.25}};

typedef struct world {
  size_t n;
  uint32_t arm[MOST], position[MOST], context[MOST];
  double reward[MOST], propensity[MOST], policy[MOST * ARMS], q[MOST * ARMS], q2[MOST * ARMS], features[MOST * 2];
  ev_ope_log log;
  double truth;
} world;

static void make(world *w, int copies, bool noisy) {
  ev_rng r;
  ev_rng_seed(&r, 5, 1);
  *w = (world){0};
  for (int c = 0; c < copies; c++)
    for (int x = 0; x < CONTEXTS; x++)
      for (uint32_t a = 0; a < ARMS; a++)
        for (int k = 0; k < logging[x][a]; k++, w->n++) {
          size_t i = w->n;
          w->arm[i] = a;
          w->context[i] = w->position[i] = (uint32_t)x;
          w->propensity[i] = logging[x][a] / 8.0;
          w->reward[i] = pays[x][a] + (noisy ? ev_rng_normal(&r) : 0);
          w->features[2 * i] = x == 1, w->features[2 * i + 1] = x == 2;
          for (size_t b = 0; b < ARMS; b++) {
            w->policy[i * ARMS + b] = evaluated[x][b] / 8.0;
            w->q[i * ARMS + b] = sin(7.0 * x + (double)b); /* as wrong as may be */
            w->q2[i * ARMS + b] = cos(3.0 * x + (double)b);
          }
        }
  for (int x = 0; x < CONTEXTS; x++)
    for (int a = 0; a < ARMS; a++) w->truth += evaluated[x][a] / 8.0 * pays[x][a] / CONTEXTS;
  w->log = (ev_ope_log){.n = w->n, .n_arms = ARMS, .n_positions = CONTEXTS, .arm = w->arm, .position = w->position, .reward = w->reward, .propensity = w->propensity};
}

static world *the(void) {
  static world w;
  return &w;
}

static void what_is_unbiased_is_exact_where_the_log_holds_every_outcome(void **state) {
  (void)state;
  world *w = the();
  make(w, 3, false);
  ev_ope_matrix policy = {.at = w->policy}, q = {.at = w->q}, q2 = {.at = w->q2};
  ev_ope_options o;
  ev_ope_result r;
  ev_ope_defaults(&o);
  o.n_bootstrap = 10;
  assert_int_equal(ev_ope_evaluate(&r, &w->log, &policy, &q, &q2, &o), EV_OK);
  static const ev_ope_kind unbiased[] = {EV_OPE_IPS, EV_OPE_SNIPS, EV_OPE_DR, EV_OPE_SNDR, EV_OPE_MRDR};
  for (size_t k = 0; k < 5; k++)
    if (fabs(r.at[unbiased[k]].value - w->truth) > 1e-12) fail_msg("%s: %g, the truth is %g", ev_ope_name(unbiased[k]), r.at[unbiased[k]].value, w->truth);
  assert_true(fabs(r.at[EV_OPE_DM].value - w->truth) > 0.01); /* the model is wrong, and DM believes it */
  assert_true(fabs(r.weights.mean - 1) < 1e-12);
  for (size_t i = 0; i < w->n; i++)
    for (size_t a = 0; a < ARMS; a++) w->q[i * ARMS + a] = pays[w->context[i]][a];
  assert_int_equal(ev_ope_evaluate(&r, &w->log, &policy, &q, NULL, &o), EV_OK);
  assert_true(fabs(r.at[EV_OPE_DM].value - w->truth) < 1e-12);
  assert_true(r.at[EV_OPE_DR].standard_error < r.at[EV_OPE_IPS].standard_error / 2); /* what the model explains no longer varies */
  assert_true(isnan(r.at[EV_OPE_MRDR].value));
}

static void parameters_lead_from_one_estimator_to_another(void **state) {
  (void)state;
  world *w = the();
  make(w, 5, true);
  ev_ope_matrix policy = {.at = w->policy}, q = {.at = w->q};
  ev_ope_options o;
  ev_ope_result open, shut;
  ev_ope_defaults(&o);
  o.n_bootstrap = 20;
  o.clip = o.switch_at = o.shrink = INFINITY;
  assert_int_equal(ev_ope_evaluate(&open, &w->log, &policy, &q, NULL, &o), EV_OK);
  assert_true(open.at[EV_OPE_CLIPPED_IPS].value == open.at[EV_OPE_IPS].value && open.at[EV_OPE_CLIPPED_IPS].low == open.at[EV_OPE_IPS].low);
  assert_true(open.at[EV_OPE_SWITCH_DR].value == open.at[EV_OPE_DR].value && open.at[EV_OPE_DROS].bernstein_high == open.at[EV_OPE_DR].bernstein_high);
  o.clip = 2, o.switch_at = o.shrink = 0;
  assert_int_equal(ev_ope_evaluate(&shut, &w->log, &policy, &q, NULL, &o), EV_OK);
  assert_true(shut.at[EV_OPE_SWITCH_DR].value == open.at[EV_OPE_DM].value && shut.at[EV_OPE_DROS].high == fmax(open.at[EV_OPE_DM].high, open.at[EV_OPE_DR].high));
  assert_true(shut.at[EV_OPE_CLIPPED_IPS].high >= open.at[EV_OPE_IPS].high && shut.at[EV_OPE_CLIPPED_IPS].low <= open.at[EV_OPE_IPS].low); /* bias and all */
  double sum = 0, cut = 0;
  for (size_t i = 0; i < w->n; i++) {
    double weight = w->policy[i * ARMS + w->arm[i]] / w->propensity[i];
    sum += (weight > 2 ? 2 : weight) * w->reward[i];
    cut += weight > 2;
  }
  assert_true(fabs(shut.at[EV_OPE_CLIPPED_IPS].value - sum / (double)w->n) < 1e-12 && fabs(shut.at[EV_OPE_CLIPPED_IPS].changed - cut / (double)w->n) < 1e-12);
  o.shrink = 1e12; /* λ w / (w² + λ) → w */
  assert_int_equal(ev_ope_evaluate(&shut, &w->log, &policy, &q, NULL, &o), EV_OK);
  assert_true(fabs(shut.at[EV_OPE_DROS].value - open.at[EV_OPE_DR].value) < 1e-9);
}

static void copy_row(void *ctx, double *out, size_t row) { memcpy(out, (const double *)ctx + row * ARMS, ARMS * sizeof *out); }

static void the_same_bits_from_memory_from_functions_and_for_any_number_of_threads(void **state) {
  (void)state;
  world *w = the();
  make(w, 20, true);
  static double q[MOST * ARMS], again[MOST * ARMS], weight[MOST];
  ev_ope_features x = {.n_context = 2, .context = w->features};
  ev_ope_model m;
  ev_ope_options o;
  ev_ope_result a, b;
  ev_ope_model_defaults(&m);
  ev_ope_defaults(&o);
  m.crossed = true;
  o.n_bootstrap = 100;
  ev_ope_matrix policy = {.at = w->policy}, called = {.fn = copy_row, .ctx = w->policy}, of_q = {.at = q}, called_q = {.fn = copy_row, .ctx = again};
  ev_threads_set(1);
  assert_int_equal(ev_ope_regress(q, &w->log, &x, &m), EV_OK);
  assert_int_equal(ev_ope_evaluate(&a, &w->log, &policy, &of_q, &of_q, &o), EV_OK);
  ev_threads_set(3);
  assert_int_equal(ev_ope_regress(again, &w->log, &x, &m), EV_OK);
  assert_int_equal(ev_ope_evaluate(&b, &w->log, &called, &called_q, &called_q, &o), EV_OK);
  ev_threads_set(0);
  assert_memory_equal(q, again, w->n * ARMS * sizeof *q);
  assert_memory_equal(&a, &b, sizeof a);
  assert_true(a.at[EV_OPE_DR].value == a.at[EV_OPE_MRDR].value); /* given the same model */
  ev_ope_fit *f;
  ev_ope_result given = a;
  for (int threads = 1; threads <= 3; threads += 2) {
    ev_threads_set(threads);
    assert_int_equal(ev_ope_fit_new(&f, &w->log, &x, &m), EV_OK);
    assert_memory_equal(ev_ope_fit_q(f), q, w->n * ARMS * sizeof *q);
    assert_int_equal(ev_ope_evaluate_fit(threads == 1 ? &a : &b, &w->log, &policy, f, NULL, &o), EV_OK);
    ev_ope_fit_free(f);
  }
  ev_threads_set(0);
  assert_memory_equal(&a, &b, sizeof a);
  assert_true(fabs(a.at[EV_OPE_DM].value - given.at[EV_OPE_DM].value) < 1e-12 && a.at[EV_OPE_DM].standard_error > given.at[EV_OPE_DM].standard_error);
  assert_true(a.at[EV_OPE_DR].low == given.at[EV_OPE_DR].low && a.at[EV_OPE_SNDR].high == given.at[EV_OPE_SNDR].high);
  assert_int_equal(ev_ope_mrdr_weights(weight, &w->log, &called), EV_OK);
  double mean = 0;
  for (size_t i = 0; i < w->n; i++) mean += weight[i] / (double)w->n;
  assert_true(fabs(mean - 1) < 1e-12);
}

/* Crossed, with next to no penalty, a regression is a table of means: of the other folds' rewards at that context and arm. */
static void a_crossed_regression_finds_the_means_and_keeps_a_fold_out(void **state) {
  (void)state;
  world *w = the();
  make(w, 20, true);
  static double q[MOST * ARMS];
  ev_ope_features x = {.n_context = 2, .context = w->features};
  ev_ope_model m;
  ev_ope_model_defaults(&m);
  m.crossed = true;
  m.penalty = 1e-9;
  m.folds = 4;
  m.seed = 77;
  assert_int_equal(ev_ope_regress(q, &w->log, &x, &m), EV_OK);
  for (size_t i = 0; i < w->n; i += 17)
    for (uint32_t a = 0; a < ARMS; a++) {
      double sum = 0, n = 0;
      ev_rng r;
      ev_rng_seed(&r, m.seed, i + 1);
      uint32_t mine = ev_rng_below(&r, m.folds);
      for (size_t j = 0; j < w->n; j++) {
        ev_rng_seed(&r, m.seed, j + 1);
        if (ev_rng_below(&r, m.folds) == mine || w->arm[j] != a || w->context[j] != w->context[i]) continue;
        sum += w->reward[j], n++;
      }
      if (fabs(q[i * ARMS + a] - sum / n) > 1e-5) fail_msg("row %zu, arm %u: %g, the mean is %g", i, a, q[i * ARMS + a], sum / n);
    }
}

/* What a row did to Σ π q̂ − Σ weight q̂ is what changes when it counts a little more: two regressions apart. */
static void rows_move_a_fit_as_refitting_says(void **state) {
  (void)state;
  world *w = the();
  make(w, 4, true);
  static double moved[MOST], weight[MOST], counts[MOST], q[2][MOST * ARMS];
  ev_ope_features x = {.n_context = 2, .context = w->features};
  ev_ope_matrix policy = {.at = w->policy};
  ev_ope_model m;
  ev_ope_fit *f;
  ev_ope_model_defaults(&m);
  m.folds = 3;
  m.penalty = 0.5;
  m.weight = counts;
  for (size_t i = 0; i < w->n; i++) weight[i] = (double)(i % 5) / 4, counts[i] = 1 + (double)(i % 2);
  for (int logistic = 0; logistic < 2; logistic++) {
    m.logistic = logistic;
    for (size_t i = 0; i < w->n && logistic; i++) w->reward[i] = w->reward[i] > 0.5;
    assert_int_equal(ev_ope_fit_new(&f, &w->log, &x, &m), EV_OK);
    assert_int_equal(ev_ope_fit_moved(moved, f, &policy, weight), EV_OK);
    double mean_slope = 0;
    static double all[MOST];
    for (size_t i = 0; i < w->n; i++) {
      double sum[2], at = counts[i], step = 1e-3;
      for (int side = 0; side < 2; side++) {
        counts[i] = at + (side == 0 ? step : -step);
        assert_int_equal(ev_ope_regress(q[side], &w->log, &x, &m), EV_OK);
        sum[side] = 0;
        for (size_t j = 0; j < w->n; j++) {
          for (size_t a = 0; a < ARMS; a++) sum[side] += w->policy[j * ARMS + a] * q[side][j * ARMS + a];
          sum[side] -= weight[j] * q[side][j * ARMS + w->arm[j]];
        }
      }
      counts[i] = at;
      all[i] = at * (sum[0] - sum[1]) / (2 * step); /* a row that counts twice moved it twice as far */
      mean_slope += all[i] / (double)w->n;
    }
    for (size_t i = 0; i < w->n; i++)
      if (fabs(moved[i] - (all[i] - mean_slope)) > 1e-4) fail_msg("row %zu moved it by %g, refitting says %g", i, moved[i], all[i] - mean_slope);
    ev_ope_fit_free(f);
  }
}

static void slope_takes_the_last_that_meets_all_before_it(void **state) {
  (void)state;
  const double value[] = {0, 1, 1.5, 3.5, 1}, width[] = {1, 0.8, 0.5, 0.4, 0.1};
  assert_int_equal(ev_ope_slope(value, width, 1), 0);
  assert_int_equal(ev_ope_slope(value, width, 3), 2);
  assert_int_equal(ev_ope_slope(value, width, 5), 2); /* 3.5 ± 0.8 misses 0 ± 2: it ends there, though the fifth would meet them */
}

static void bernstein_is_the_theorem_s(void **state) {
  (void)state;
  /* Maurer and Pontil 2009, theorem 4, with δ / 2 for either side: n = 101, V = 0.04, range 1, δ = 0.05 */
  double l = log(2 / 0.025);
  assert_true(fabs(ev_ope_bernstein(0.04, 1, 101, 0.95) - (sqrt(2 * 0.04 * l / 101) + 7 * l / 300)) < 1e-15);
}

static void what_is_wrong_is_refused_with_its_row(void **state) {
  (void)state;
  world *w = the();
  make(w, 2, false);
  ev_ope_matrix policy = {.at = w->policy};
  ev_ope_options o;
  ev_ope_result r;
  ev_ope_defaults(&o);
#define REFUSED(change, back, word)                                                       \
  do {                                                                                    \
    change;                                                                               \
    assert_int_equal(ev_ope_evaluate(&r, &w->log, &policy, NULL, NULL, &o), EV_EINVAL);   \
    if (strstr(ev_error(), word) == NULL) fail_msg("no '%s' in '%s'", word, ev_error());  \
    back;                                                                                 \
  } while (0)
  REFUSED(w->propensity[7] = 0, w->propensity[7] = 0.5, "row 7");
  REFUSED(w->propensity[7] = 1.0000001, w->propensity[7] = 0.5, "row 7");
  REFUSED(w->propensity[7] = NAN, w->propensity[7] = 0.5, "row 7");
  REFUSED(w->reward[3] = NAN, w->reward[3] = 0, "row 3");
  REFUSED(w->reward[3] = INFINITY, w->reward[3] = 0, "row 3");
  REFUSED(w->arm[2] = ARMS, w->arm[2] = 0, "row 2");
  REFUSED(w->position[2] = CONTEXTS, w->position[2] = 0, "row 2");
  REFUSED(w->policy[9] += 1e-3, w->policy[9] -= 1e-3, "row 2");
  REFUSED(w->policy[1] = NAN, w->policy[1] = 0, "row 0");
  REFUSED(o.reward_low = 0, o.reward_low = NAN, "not between");
  REFUSED(o.max_weight = 1, o.max_weight = NAN, "weight");
  REFUSED(o.confidence = 1, o.confidence = 0.95, "confidence");
  REFUSED(o.clip = -1, o.clip = NAN, "clip");
  for (size_t i = 0; i < w->n; i++)
    if (w->arm[i] == 3) w->arm[i] = 2, w->propensity[i] = 0.5; /* arm 3 is never shown, and the policy wants it in 3/8 of a third and 1/8 of another */
  REFUSED((void)0, (void)0, "arm 3 at position 0");
  o.max_unsupported = 0.2;
  assert_int_equal(ev_ope_evaluate(&r, &w->log, &policy, NULL, NULL, &o), EV_OK);
  assert_true(fabs(r.weights.unsupported - 0.5 / 3) < 1e-12);
}

/* ---- Slates: two places, three arms, no arm twice; every slate as often as it is likely -------------------------------- */
enum { PLACES = 2, THREE = 3 };
static const int first_shown[THREE] = {1, 2, 1}, first_wanted[THREE] = {2, 0, 2}; /* quarters; the second place: every other arm alike when logging, the next one (of three) when evaluated, 3 of 4 */

typedef struct slates {
  size_t n;
  uint32_t arm[64 * PLACES];
  double reward[64 * PLACES], propensity[64 * PLACES], marginal[64 * PLACES], policy[64 * PLACES], policy_marginal[64 * PLACES], q[64 * PLACES], v[64 * PLACES];
  double all[64 * PLACES * THREE];
} slates;

static double wanted_second(uint32_t above, uint32_t a) { return a == above ? 0 : a == (above + 1) % THREE ? 0.75 : 0.25; }

/* pays(place, arm, arm above): 0: what is paid at the second place also depends on the arm above; 1: on its own arm alone. */
static double slate_pays(int kind, size_t place, uint32_t a, uint32_t above) {
  return place == 0 ? 1 + (double)a : 0.5 * (double)(a * a) + (kind == 0 ? 2.0 * (double)above : 0);
}

static double make_slates(slates *s, int kind) {
  *s = (slates){0};
  double truth = 0, shown_second[THREE] = {0}, wanted[THREE] = {0};
  for (uint32_t a = 0; a < THREE; a++)
    for (uint32_t b = 0; b < THREE; b++) {
      if (a == b) continue;
      shown_second[b] += first_shown[a] / 4.0 * 0.5;
      wanted[b] += first_wanted[a] / 4.0 * wanted_second(a, b);
      truth += first_wanted[a] / 4.0 * wanted_second(a, b) * (slate_pays(kind, 0, a, 0) + slate_pays(kind, 1, b, a));
    }
  for (uint32_t a = 0; a < THREE; a++)
    for (uint32_t b = 0; b < THREE; b++)
      for (int k = 0; k < (a == b ? 0 : 2 * first_shown[a]); k++, s->n++) {
        size_t i = s->n * PLACES;
        s->arm[i] = a, s->arm[i + 1] = b;
        s->reward[i] = slate_pays(kind, 0, a, 0), s->reward[i + 1] = slate_pays(kind, 1, b, a);
        s->propensity[i] = s->marginal[i] = first_shown[a] / 4.0, s->propensity[i + 1] = 0.5, s->marginal[i + 1] = shown_second[b];
        s->policy[i] = s->policy_marginal[i] = first_wanted[a] / 4.0, s->policy[i + 1] = wanted_second(a, b), s->policy_marginal[i + 1] = wanted[b];
        for (uint32_t c = 0; c < THREE; c++) {
          double q0 = sin(c + 1.0), q1 = cos(c + 2.0 * a);
          s->all[i * THREE + c] = first_wanted[c] / 4.0, s->all[(i + 1) * THREE + c] = wanted_second(a, c);
          s->v[i] += first_wanted[c] / 4.0 * q0, s->v[i + 1] += wanted_second(a, c) * q1;
          if (c == a) s->q[i] = q0;
          if (c == b) s->q[i + 1] = q1;
        }
      }
  return truth;
}

static void slates_are_exact_where_what_they_assume_holds(void **state) {
  (void)state;
  static slates w;
  ev_ope_options o;
  ev_ope_slate_result r;
  ev_ope_defaults(&o);
  o.n_bootstrap = 10;
  for (int kind = 0; kind < 2; kind++) {
    double truth = make_slates(&w, kind);
    ev_ope_slates s = {.n = w.n, .length = PLACES, .n_arms = THREE, .arm = w.arm, .reward = w.reward, .propensity = w.propensity, .marginal = w.marginal, .policy = w.policy,
                       .policy_marginal = w.policy_marginal, .q = w.q, .v = w.v};
    assert_int_equal(ev_ope_slate_measure(&r, &s, &o), EV_OK);
    static const ev_ope_slate_kind kinds[] = {EV_OPE_SIPS, EV_OPE_RIPS, EV_OPE_CASCADE_DR, EV_OPE_SNSIPS, EV_OPE_SNRIPS, EV_OPE_IIPS, EV_OPE_SNIIPS};
    for (size_t k = 0; k < 7; k++) {
      bool exact = k < 5 || kind == 1; /* iips: places for themselves */
      double off = fabs(r.at[kinds[k]].value - truth);
      if (exact ? off > 1e-12 : off < 0.05) fail_msg("kind %d, %s: %g, the truth is %g", kind, ev_ope_slate_name(kinds[k]), r.at[kinds[k]].value, truth);
    }
    assert_true(fabs(r.whole.mean - 1) < 1e-12 && fabs(r.place.mean - 1) < 1e-12 && fabs(r.prefix.mean - 1) < 1e-12);
    assert_true(r.whole.max >= r.place.max);
  }
  /* α weighs places, and a slate that ends early earns nothing behind its end. */
  make_slates(&w, 0);
  const double alpha[PLACES] = {1, 0};
  ev_ope_slates s = {.n = w.n, .length = PLACES, .n_arms = THREE, .arm = w.arm, .reward = w.reward, .propensity = w.propensity, .policy = w.policy, .alpha = alpha};
  assert_int_equal(ev_ope_slate_measure(&r, &s, &o), EV_OK);
  assert_true(fabs(r.at[EV_OPE_RIPS].value - (first_wanted[0] * 1 + first_wanted[2] * 3) / 4.0) < 1e-12);
  for (size_t i = 0; i < w.n; i++) w.arm[i * PLACES + 1] = EV_NONE;
  s.alpha = NULL;
  assert_int_equal(ev_ope_slate_measure(&r, &s, &o), EV_OK);
  assert_true(fabs(r.at[EV_OPE_RIPS].value - (first_wanted[0] * 1 + first_wanted[2] * 3) / 4.0) < 1e-12);
  w.arm[0] = EV_NONE, w.arm[1] = 1;
  assert_int_equal(ev_ope_slate_measure(&r, &s, &o), EV_EINVAL);
}

/* ---- Logs in files ------------------------------------------------------------------------------------------------ */
static const char lines[] =
    "{\"arms\": [\"a\", \"b\", \"c\"], \"positions\": 2}\n"
    "{\"context\": [1, 2.5], \"arm\": \"b\", \"position\": 2, \"reward\": 1.5, \"propensity\": 0.25, \"probabilities\": [0.5, 0.25, 0.25], \"evaluated\": {\"c\": 1}, \"user\": 7, \"time\": \"1970-01-01T00:00:01.5Z\"}\n"
    "{\"context\": [0, -1], \"arm\": \"a\", \"position\": 1, \"reward\": -2, \"propensity\": 0.5, \"probabilities\": [0.5, 0.25, 0.25], \"evaluated\": {\"a\": 0.5, \"b\": 0.5}, \"user\": \"x\", \"time\": 2}\n"
    "{\"context\": [3, 4], \"arm\": \"a\", \"position\": 1, \"reward\": 0, \"propensity\": 0.125, \"probabilities\": [0.125, 0.25, 0.625], \"evaluated\": {\"a\": 1}, \"user\": 7, \"time\": 1.5}\n";

static void check_log(const ev_bandit_log *log) {
  static const uint32_t arm[] = {1, 0, 0}, position[] = {1, 0, 0}, user[] = {0, 1, 0};
  static const double reward[] = {1.5, -2, 0}, propensity[] = {0.25, 0.5, 0.125}, context[] = {1, 2.5, 0, -1, 3, 4};
  static const int64_t time_ms[] = {1500, 2000, 1500};
  assert_true(log->n == 3 && log->length == 1 && !log->slates && log->n_arms == 3 && log->n_positions == 2 && log->n_users == 2 && log->features.n_context == 2);
  assert_memory_equal(log->arm, arm, sizeof arm);
  assert_memory_equal(log->position, position, sizeof position);
  assert_memory_equal(log->user, user, sizeof user);
  assert_memory_equal(log->reward, reward, sizeof reward);
  assert_memory_equal(log->propensity, propensity, sizeof propensity);
  assert_memory_equal(log->features.context, context, sizeof context);
  assert_memory_equal(log->time_ms, time_ms, sizeof time_ms);
  assert_true(log->logged.ptr[3] == 9 && log->evaluated.ptr[3] == 4 && log->evaluated.arm[0] == 2 && log->evaluated.p[0] == 1);
  assert_true(ev_bandit_log_arm(log, "c", 1) == 2 && ev_bandit_log_arm(log, "d", 1) == EV_NONE);
  /* Shares: at the first position arm a was shown twice, with 1/2 and 1/8: 2 / (2 + 8); it is the only one. */
  double shares[6];
  assert_int_equal(ev_bandit_log_shares(shares, log, false), EV_OK);
  assert_true(shares[0] == 1 && shares[4] == 1 && shares[1] == 0);
}

static void a_log_is_the_same_read_and_mapped_and_no_fault_leaks(void **state) {
  (void)state;
  const char *text = in_folder("log.jsonl"), *file = in_folder("log.evb");
  write_text(text, lines, sizeof lines - 1);
  ev_bandit_log *log;
  ASSERT_SURVIVES_FAULTS(ev_bandit_log_read(&log, text, NULL, NULL), check_log(log));
  assert_int_equal(ev_bandit_log_write(log, file), EV_OK);
  ev_bandit_log_close(log);
  ASSERT_SURVIVES_FAULTS(ev_bandit_log_open(&log, file), check_log(log));
  ev_bandit_log_close(log);
}

static void the_harmonic_mean_of_propensities_is_a_policy_s_share(void **state) {
  (void)state;
  world *w = the();
  make(w, 4, false);
  w->log.position = NULL, w->log.n_positions = 1; /* contexts that the share must see through */
  ev_bandit_log columns = {.n = w->n, .length = 1, .n_arms = ARMS, .n_positions = 1, .arm = w->arm, .reward = w->reward, .propensity = w->propensity, .reward_low = NAN, .reward_high = NAN}, *log;
  ASSERT_SURVIVES_FAULTS(ev_bandit_log_of(&log, &columns), (void)0);
  double shares[2][ARMS];
  assert_int_equal(ev_bandit_log_shares(shares[0], log, false), EV_OK);
  assert_int_equal(ev_bandit_log_shares(shares[1], log, true), EV_OK);
  for (int a = 0; a < ARMS; a++) {
    double expected = (logging[0][a] + logging[1][a] + logging[2][a]) / 24.0;
    assert_true(fabs(shares[0][a] - expected) < 1e-12 && fabs(shares[1][a] - expected) < 1e-12);
  }
  ev_bandit_log_close(log);
}

static void no_allocation_that_fails_is_lost(void **state) {
  (void)state;
  world *w = the();
  make(w, 2, true);
  static double q[MOST * ARMS], v[64 * PLACES], q2[64 * PLACES];
  static slates t;
  make_slates(&t, 0);
  ev_ope_matrix policy = {.at = w->policy}, of_q = {.at = w->q};
  ev_ope_slates s = {.n = t.n, .length = PLACES, .n_arms = THREE, .arm = t.arm, .reward = t.reward, .propensity = t.propensity, .policy = t.policy};
  ev_ope_options o;
  ev_ope_result r;
  ev_ope_slate_result sr;
  ev_ope_model m;
  ev_ope_defaults(&o);
  ev_ope_model_defaults(&m);
  o.n_bootstrap = 5;
  ev_threads_set(1); /* faults are the thread's own */
  static uint32_t pairs[MOST];
  for (size_t i = 0; i < w->n; i++) pairs[i] = (uint32_t)(i / 2);
  o.cluster = pairs, o.n_clusters = w->n / 2;
  ASSERT_SURVIVES_FAULTS(ev_ope_evaluate(&r, &w->log, &policy, &of_q, &of_q, &o), (void)0);
  o.n_clusters++;
  assert_int_equal(ev_ope_evaluate(&r, &w->log, &policy, NULL, NULL, &o), EV_EINVAL); /* one has no rows */
  o.n_clusters -= 2;
  assert_int_equal(ev_ope_evaluate(&r, &w->log, &policy, NULL, NULL, &o), EV_EINVAL); /* a row has no cluster */
  o.cluster = NULL;
  ASSERT_SURVIVES_FAULTS(ev_ope_regress(q, &w->log, NULL, &m), (void)0);
  ev_ope_fit *f;
  ASSERT_SURVIVES_FAULTS(ev_ope_fit_new(&f, &w->log, NULL, &m), (void)0);
  ASSERT_SURVIVES_FAULTS(ev_ope_evaluate_fit(&r, &w->log, &policy, f, &of_q, &o), ev_ope_fit_free(f));
  ASSERT_SURVIVES_FAULTS(ev_ope_slate_measure(&sr, &s, &o), (void)0);
  ASSERT_SURVIVES_FAULTS(ev_ope_slate_regress(q2, v, &s, t.all, NULL, &m), (void)0);
  ev_threads_set(0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_unbiased_is_exact_where_the_log_holds_every_outcome),
      cmocka_unit_test(parameters_lead_from_one_estimator_to_another),
      cmocka_unit_test(the_same_bits_from_memory_from_functions_and_for_any_number_of_threads),
      cmocka_unit_test(a_crossed_regression_finds_the_means_and_keeps_a_fold_out),
      cmocka_unit_test(rows_move_a_fit_as_refitting_says),
      cmocka_unit_test(slope_takes_the_last_that_meets_all_before_it),
      cmocka_unit_test(bernstein_is_the_theorem_s),
      cmocka_unit_test(what_is_wrong_is_refused_with_its_row),
      cmocka_unit_test(slates_are_exact_where_what_they_assume_holds),
      cmocka_unit_test(a_log_is_the_same_read_and_mapped_and_no_fault_leaks),
      cmocka_unit_test(the_harmonic_mean_of_propensities_is_a_policy_s_share),
      cmocka_unit_test(no_allocation_that_fails_is_lost),
  };
  return RUN(tests);
}
