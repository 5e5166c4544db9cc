/* reward_arms_choose.c - decisions: what is drawn, and that the propensities told are those it was drawn with.
 *
 * Where a propensity p is told with each choice, 1{a chosen} / p has the mean 1 for every a that can be chosen, whatever changes
 * from one decision to the next; likewise for the first two places together. That is what every off-policy estimate rests on. */
#include "arms_world.h"

enum { N = 5, D = 3 };

static double normal_below(double z) { return 0.5 * erfc(-z / sqrt(2)); }

static void the_best_of_two_normals_is_known_in_closed_form(void **state) {
  (void)state;
  static const double cases[][4] = {{0, 1, 0, 1}, {0.3, 0.2, 0.1, 0.5}, {5, 0.01, 4.98, 0.02}, {0, 1e-4, 1, 2}, {-3, 0.5, 3, 0.5}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const double *c = cases[i], a[] = {c[0], c[2]}, b[] = {c[1], c[3]};
    double p[2], want = normal_below((c[0] - c[2]) / hypot(c[1], c[3]));
    OK(ev_best_probability(p, a, b, true, 2, SIZE_MAX));
    NEAR(p[0], want, 1e-7);
    NEAR(p[1], 1 - want, 1e-7);
  }
}

/* P(Beta(a, b) > Beta(c, d)) for whole a, by the finite sum of Evan Miller's note (2010): no quadrature. */
static double beta_beats(int a, int b, int c, int d) { /* P(the second is larger) */
  double total = 0;
  for (int i = 0; i < c; i++)
    total += exp(lgamma(a + i) + lgamma(b + d) - lgamma(a + b + i + d) + lgamma(a + b) - lgamma(a) - lgamma(b) - log(d + i) - (lgamma(1 + i) + lgamma(d) - lgamma(1 + i + d)));
  return total;
}

static void the_best_of_two_betas_is_known_as_a_finite_sum(void **state) {
  (void)state;
  static const int cases[][4] = {{1, 1, 1, 1}, {2, 3, 4, 2}, {1, 100, 1, 100}, {3, 200, 9, 400}, {500, 500, 520, 480}, {1, 1, 300, 700}, {1, 5000, 3, 9000}, {40, 2, 2, 40}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const int *c = cases[i];
    const double a[] = {c[0], c[2]}, b[] = {c[1], c[3]};
    double p[2], second, want = beta_beats(c[0], c[1], c[2], c[3]);
    OK(ev_best_probability(p, a, b, false, 2, SIZE_MAX));
    NEAR(p[1], want, 1e-6);
    NEAR(p[0] + p[1], 1, 1e-6);
    OK(ev_best_probability(&second, a, b, false, 2, 1));
    assert_true(second == p[1]);
  }
}

static void the_best_of_many_sums_to_one_and_knows_no_order(void **state) {
  (void)state;
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  for (int round = 0; round < 40; round++) {
    bool gaussian = round % 2;
    double a[12], b[12], p[12], q[12], sum = 0;
    for (int i = 0; i < 12; i++) {
      a[i] = gaussian ? ev_rng_normal(&r) : 0.5 + 60 * ev_rng_f64(&r);
      b[i] = gaussian ? pow(10, -3 * ev_rng_f64(&r)) : 0.5 + 900 * ev_rng_f64(&r);
    }
    OK(ev_best_probability(p, a, b, gaussian, 12, SIZE_MAX));
    for (int i = 0; i < 12; i++) sum += p[i];
    NEAR(sum, 1, 1e-6);
    for (int i = 0; i < 6; i++) {
      double x = a[i], y = b[i];
      a[i] = a[11 - i], b[i] = b[11 - i];
      a[11 - i] = x, b[11 - i] = y;
    }
    OK(ev_best_probability(q, a, b, gaussian, 12, SIZE_MAX));
    for (int i = 0; i < 12; i++) NEAR(p[i], q[11 - i], 1e-12);
  }
  const double zero[] = {0, 1}, one[] = {1, 1};
  double p[2];
  assert_int_equal(ev_best_probability(p, zero, one, false, 2, SIZE_MAX), EV_EINVAL);
  assert_int_equal(ev_best_probability(p, one, zero, true, 2, SIZE_MAX), EV_EINVAL);
}

/* ---- Every rule ---------------------------------------------------------------------------------------------*/
typedef struct rule_case {
  ev_arms_kind kind;
  uint32_t n, d;
  ev_rule rule;
  double epsilon, alpha;
  bool gaussian, distinct; /* distinct: each candidate a model of its own */
  unsigned exact, draws;
} rule_case;

static const rule_case cases[] = {
    {EV_ARMS_COUNTS, N, 0, EV_RULE_GREEDY, 0.4, 1, false, true, 8, 0},     {EV_ARMS_COUNTS, N, 0, EV_RULE_THOMPSON, 0, 1, false, true, 8, 0},
    {EV_ARMS_COUNTS, N, 0, EV_RULE_THOMPSON, 0.2, 1, true, true, 8, 0},    {EV_ARMS_COUNTS, N, 0, EV_RULE_THOMPSON, 0, 1, false, true, 0, 1000},
    {EV_ARMS_COUNTS, N, 0, EV_RULE_SQUARECB, 0, 0.2, false, true, 8, 0},   {EV_ARMS_LINEAR, N, D, EV_RULE_THOMPSON, 0, 1, false, true, 8, 0},
    {EV_ARMS_LINEAR, 1, D, EV_RULE_THOMPSON, 0.3, 1, false, false, 8, 1000}, {EV_ARMS_LINEAR, 1, D, EV_RULE_SQUARECB, 0, 0.2, false, false, 8, 0},
    {EV_ARMS_LOGISTIC, 1, D, EV_RULE_THOMPSON, 0.3, 1, false, false, 8, 1000}, {EV_ARMS_WEIGHTS, N, 0, EV_RULE_WEIGHTS, 0, 1, false, true, 8, 0},
    {EV_ARMS_WEIGHTS, D, D, EV_RULE_WEIGHTS, 0, 1, false, false, 8, 0},    {EV_ARMS_POLICY, 1, D, EV_RULE_SOFTMAX, 0.1, 1, false, false, 8, 0},
};
enum { CASES = sizeof cases / sizeof *cases };

/* A state that has seen a little, so that no two candidates are alike; and the candidates. */
static ev_arms *world(const rule_case *c, uint64_t seed, float x[N * D], uint32_t arms[N]) {
  ev_arms_options o;
  ev_arms *a;
  ev_arms_defaults(&o, c->kind);
  o.n = c->n;
  o.n_dims = c->d;
  o.seed = seed;
  OK(ev_arms_open(&a, NULL, &o));
  ev_rng r;
  ev_rng_seed(&r, 9, 0);
  for (uint32_t i = 0; i < N; i++) {
    arms[i] = c->distinct ? N - 1 - i : 0;
    for (uint32_t k = 0; k < D; k++) x[i * D + k] = c->kind == EV_ARMS_WEIGHTS ? (float)((i + 2 * k) % N) / 10 : (float)ev_rng_normal(&r);
  }
  for (int t = 0; t < 12; t++) {
    uint32_t i = (uint32_t)t % N, arm = c->distinct || c->n == N ? i : 0;
    if (c->kind == EV_ARMS_COUNTS && t > 8) continue;
    float advice[D] = {0.1f * (float)(t % 3), 0.05f, 0.1f};
    const float *features = c->d == 0 ? NULL : c->kind == EV_ARMS_WEIGHTS ? advice : x + i * D;
    OK(ev_arms_update(a, arm, features, t % 3 == 0 ? 0.8 : 0.1, 0.5, 1));
  }
  return a;
}

static ev_choice_options options_of(const rule_case *c) {
  ev_choice_options o;
  ev_choice_defaults(&o, c->rule);
  o.k = 2;
  o.epsilon = c->epsilon;
  o.alpha = c->alpha;
  o.gaussian = c->gaussian;
  if (c->gaussian) o.prior_a = 0;
  o.exact = c->exact;
  o.draws = c->draws;
  return o;
}

static void propensities_are_those_that_choices_were_drawn_with(void **state) {
  (void)state;
  for (size_t k = 0; k < CASES; k++) {
    const rule_case *c = &cases[k];
    float x[N * D], p[2], error[2];
    uint32_t arms[N], order[2];
    ev_arms *a = world(c, 3, x, arms);
    ev_choice_options o = options_of(c);
    size_t rounds = c->draws > 0 ? 1200 : 6000;
    double first[N] = {0}, both[N][N] = {{0}}, spread[N] = {0}, spreads[N][N] = {{0}};
    for (size_t t = 0; t < rounds; t++) {
      OK(ev_arms_choose(a, order, p, error, NULL, arms, c->d > 0 ? x : NULL, N, &o));
      assert_true(order[0] < N && order[1] < N && order[0] != order[1] && p[0] > 0 && p[0] <= 1 && p[1] > 0 && p[1] <= 1);
      assert_true(c->draws > 0 ? error[0] > 0 && error[0] < 0.03f : error[0] == 0);
      double w = 1 / (double)p[0], v = w / (double)p[1];
      first[order[0]] += w, spread[order[0]] += w * w;
      both[order[0]][order[1]] += v, spreads[order[0]][order[1]] += v * v;
    }
    double n = (double)rounds, chi = 0, chi2 = 0;
    unsigned free1 = 0, free2 = 0;
    for (int i = 0; i < N; i++) {
      if (spread[i] / n > 1 && spread[i] / n < n / 30) { /* often enough to be measured */
        double z = (first[i] / n - 1) / sqrt((spread[i] / n - 1) / n);
        chi += z * z, free1++;
      }
      for (int j = 0; j < N; j++)
        if (spreads[i][j] / n > 1 && spreads[i][j] / n < n / 30) {
          double z = (both[i][j] / n - 1) / sqrt((spreads[i][j] / n - 1) / n);
          chi2 += z * z, free2++;
        }
    }
    assert_true(free1 >= 2 && free2 >= 3);
    /* χ² beyond its mean by five of its deviations, √(2 f), happens to a right one in 10^5 */
    if (chi > free1 + 5 * sqrt(2.0 * free1) || chi2 > free2 + 5 * sqrt(2.0 * free2)) fail_msg("case %zu: χ² %.1f of %u, %.1f of %u", k, chi, free1, chi2, free2);
    ev_arms_close(a);
  }
}

static void the_same_seed_gives_the_same_bits_and_another_another(void **state) {
  (void)state;
  for (size_t k = 0; k < CASES; k++) {
    const rule_case *c = &cases[k];
    float x[N * D], p[3][40], keep[2][2 * D];
    uint32_t arms[N], order[3][40];
    for (int run = 0; run < 3; run++) {
      ev_arms *a = world(c, run == 2 ? 8 : 7, x, arms);
      ev_choice_options o = options_of(c);
      o.draws = run == 1 && c->draws > 0 ? 50 : o.draws; /* how a propensity is found does not change what is chosen */
      for (int t = 0; t < 20; t++) OK(ev_arms_choose(a, order[run] + 2 * t, p[run] + 2 * t, NULL, c->d > 0 ? keep[run % 2] : NULL, arms, c->d > 0 ? x : NULL, N, &o));
      ev_arms_close(a);
    }
    assert_memory_equal(order[0], order[1], sizeof order[0]);
    if (c->draws == 0) assert_memory_equal(p[0], p[1], sizeof p[0]);
    assert_memory_not_equal(order[0], order[2], sizeof order[0]);
  }
}

/* ---- Rules that are sure of what they choose -------------------------------------------------------------------*/
static void upper_bounds_are_their_formulas(void **state) {
  (void)state;
  ev_arms *a = new_arms(EV_ARMS_COUNTS, 3, 0);
  ev_choice_options o;
  const uint32_t arms[] = {0, 1, 2};
  uint32_t order[3];
  float p[3];
  double n[] = {10, 40, 3}, s[] = {4, 20, 1}, mean[3];
  ev_choice_defaults(&o, EV_RULE_UCB);
  o.k = 3;
  OK(ev_arms_choose(a, order, p, NULL, NULL, arms, NULL, 3, &o)); /* nothing known: in their order */
  assert_true(order[0] == 0 && order[1] == 1 && order[2] == 2 && p[0] == 1 && p[2] == 1);
  for (uint32_t i = 0; i < 3; i++)
    for (int t = 0; t < (int)n[i]; t++) OK(ev_arms_update(a, i, NULL, t < (int)s[i], 1, 1));
  OK(ev_arms_beliefs(a, mean, NULL, arms, NULL, 3, &o));
  for (int i = 0; i < 3; i++) NEAR(mean[i], s[i] / n[i] + sqrt(2 * log(53) / n[i]), 1e-12);
  o.rule = EV_RULE_KL_UCB;
  OK(ev_arms_beliefs(a, mean, NULL, arms, NULL, 3, &o));
  for (int i = 0; i < 3; i++) { /* on the edge of n kl(mean, q) = ln t */
    double m = s[i] / n[i], q = mean[i];
    NEAR(n[i] * (m * log(m / q) + (1 - m) * log((1 - m) / (1 - q))), log(53), 1e-5);
    assert_true(q > m);
  }
  OK(ev_arms_choose(a, order, p, NULL, NULL, arms, NULL, 3, &o));
  for (int i = 0; i < 2; i++) assert_true(mean[order[i]] >= mean[order[i + 1]] && p[i] == 1);
  ev_arms_close(a);
}

static void lin_ucb_adds_the_width_of_the_inverse(void **state) {
  (void)state;
  ev_arms *a = new_arms(EV_ARMS_LINEAR, 1, D);
  ev_choice_options o;
  ev_rng r;
  ev_rng_seed(&r, 2, 0);
  double gram[D * D] = {0}, b[D] = {0}, inverse[D * D], score[4];
  for (int i = 0; i < D; i++) gram[i * D + i] = 1;
  for (int t = 0; t < 30; t++) {
    float x[D];
    double reward = ev_rng_f64(&r);
    for (int i = 0; i < D; i++) x[i] = (float)ev_rng_normal(&r);
    OK(ev_arms_update(a, 0, x, reward, 1, 1));
    for (int i = 0; i < D; i++) {
      b[i] += reward * (double)x[i];
      for (int j = 0; j < D; j++) gram[i * D + j] += (double)x[i] * (double)x[j];
    }
  }
  invert(inverse, gram, D);
  float x[4 * D];
  for (int i = 0; i < 4 * D; i++) x[i] = (float)ev_rng_normal(&r);
  ev_choice_defaults(&o, EV_RULE_UCB);
  o.alpha = 1.7;
  OK(ev_arms_beliefs(a, score, NULL, NULL, x, 4, &o));
  for (int c = 0; c < 4; c++) {
    double mean = 0, width = 0;
    for (int i = 0; i < D; i++)
      for (int j = 0; j < D; j++) {
        mean += (double)x[c * D + i] * inverse[i * D + j] * b[j];
        width += (double)x[c * D + i] * inverse[i * D + j] * (double)x[c * D + j];
      }
    NEAR(score[c], mean + 1.7 * sqrt(width), 1e-10);
  }
  ev_arms_close(a);
}

/* What is remembered of a softmax choice is the gradient of the logarithm of its propensity. */
static void what_a_policy_remembers_is_the_gradient_of_its_propensity(void **state) {
  (void)state;
  const rule_case c = {EV_ARMS_POLICY, 1, D, EV_RULE_SOFTMAX, 0.2, 1, false, false, 8, 0};
  float x[N * D], p[2], keep[2 * D];
  uint32_t arms[N], order[2];
  ev_choice_options o = options_of(&c);
  double theta[4 + D];
  ev_arms *a = world(&c, 5, x, arms);
  OK(ev_arms_read(a, 0, theta));
  OK(ev_arms_choose(a, order, p, NULL, keep, NULL, x, N, &o));
  for (int place = 0; place < 2; place++)
    for (int j = 0; j < D; j++) {
      double value[2];
      for (int side = 0; side < 2; side++) { /* log of ε / m + (1 − ε) softmax, at θ ± h */
        double h = side == 0 ? 1e-5 : -1e-5, total = 0, mine = 0, m = N - place;
        for (int i = 0; i < N; i++) {
          if (place == 1 && i == (int)order[0]) continue;
          double z = 0;
          for (int d = 0; d < D; d++) z += (theta[4 + d] + (d == j ? h : 0)) * (double)x[i * D + d];
          total += exp(z);
          if (i == (int)order[place]) mine = exp(z);
        }
        value[side] = log(0.2 / m + 0.8 * mine / total);
        if (side == 0 && j == 0) NEAR(exp(value[0]), (double)p[place], 1e-4);
      }
      NEAR((double)keep[place * D + j], (value[0] - value[1]) / 2e-5, 1e-5);
    }
  ev_arms_close(a);
}

/* A posterior without width has no density: its choice is sure, and the draws say so. */
static void thompson_without_width_is_greedy(void **state) {
  (void)state;
  ev_arms *a = new_arms(EV_ARMS_COUNTS, 3, 0);
  const uint32_t arms[] = {0, 1, 2};
  uint32_t order[3];
  float p[3], error[3];
  ev_choice_options o;
  for (uint32_t i = 0; i < 3; i++)
    for (int t = 0; t < 10; t++) OK(ev_arms_update(a, i, NULL, i == 1 ? 1 : 0.1 * i, 1, 1));
  ev_choice_defaults(&o, EV_RULE_THOMPSON);
  o.gaussian = true;
  o.alpha = 0;
  o.k = 3;
  OK(ev_arms_choose(a, order, p, error, NULL, arms, NULL, 3, &o));
  assert_true(order[0] == 1 && order[1] == 2 && order[2] == 0 && p[0] == 1 && p[1] == 1 && p[2] == 1);
  ev_arms_close(a);
}

static void nonsense_is_refused(void **state) {
  (void)state;
  ev_arms *counts = new_arms(EV_ARMS_COUNTS, 3, 0), *linear = new_arms(EV_ARMS_LINEAR, 1, D);
  ev_choice_options o;
  uint32_t order[4], arms[] = {0, 1, 2}, wrong[] = {0, 3, 1};
  float p[4], x[3 * D] = {0};
  ev_choice_defaults(&o, EV_RULE_GREEDY);
  o.k = 4;
  assert_int_equal(ev_arms_choose(counts, order, p, NULL, NULL, arms, NULL, 3, &o), EV_EINVAL);
  o.k = 1;
  assert_int_equal(ev_arms_choose(counts, order, p, NULL, NULL, arms, NULL, 0, &o), EV_EINVAL);
  assert_int_equal(ev_arms_choose(counts, order, p, NULL, NULL, wrong, NULL, 3, &o), EV_EINVAL);
  assert_int_equal(ev_arms_choose(linear, order, p, NULL, NULL, NULL, NULL, 3, &o), EV_EINVAL);
  x[4] = INFINITY;
  assert_int_equal(ev_arms_choose(linear, order, p, NULL, NULL, NULL, x, 3, &o), EV_EINVAL);
  o.epsilon = 1.5;
  assert_int_equal(ev_arms_choose(counts, order, p, NULL, NULL, arms, NULL, 3, &o), EV_EINVAL);
  o.epsilon = 0;
  o.rule = EV_RULE_SOFTMAX;
  assert_int_equal(ev_arms_choose(counts, order, p, NULL, NULL, arms, NULL, 3, &o), EV_EINVAL);
  ev_arms_close(counts);
  ev_arms_close(linear);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_best_of_two_normals_is_known_in_closed_form),
      cmocka_unit_test(the_best_of_two_betas_is_known_as_a_finite_sum),
      cmocka_unit_test(the_best_of_many_sums_to_one_and_knows_no_order),
      cmocka_unit_test(propensities_are_those_that_choices_were_drawn_with),
      cmocka_unit_test(the_same_seed_gives_the_same_bits_and_another_another),
      cmocka_unit_test(upper_bounds_are_their_formulas),
      cmocka_unit_test(lin_ucb_adds_the_width_of_the_inverse),
      cmocka_unit_test(what_a_policy_remembers_is_the_gradient_of_its_propensity),
      cmocka_unit_test(thompson_without_width_is_greedy),
      cmocka_unit_test(nonsense_is_refused),
  };
  return RUN(tests);
}
