/* arms_choose.c - decisions: places are filled one after another, each with the probability it had.
 *
 * A slate has far too many orders for a propensity of the whole. Choosing place by place, each with fresh randomness, makes it a
 * product of few numbers that are known: exact where the rule is a distribution, and for Thompson sampling the probability that a draw
 * is the largest of what remains. */
#include "arms.h"

void ev_choice_defaults(ev_choice_options *o, ev_rule rule) {
  *o = (ev_choice_options){.rule = rule, .k = 1, .alpha = rule == EV_RULE_UCB ? 2 : 1, .prior_a = 1, .prior_b = 1, .noise = 1, .exact = 8, .draws = 128};
}

static const char *const rule_names[EV_RULES] = {"greedy", "ucb", "kl_ucb", "thompson", "squarecb", "weights", "softmax"};

bool ev_rule_find(ev_rule *out, const char *name) {
  for (int k = 0; k < EV_RULES; k++)
    if (strcmp(name, rule_names[k]) == 0) {
      *out = (ev_rule)k;
      return true;
    }
  return false;
}

#define MOST 1e15 /* of looks and priors: far beyond it a gamma variate is no number */

typedef struct decision {
  ev_arms *a;
  const ev_choice_options *o;
  const uint32_t *arms;
  const float *x;
  size_t n, d;
  double *mean, *deviation; /* (n) of each candidate; score of rules that sort in mean */
  double *beta_a, *beta_b;  /* (n) parameters of the posterior; gaussian: mean, deviation */
  bool gaussian, shared;    /* shared: candidates have models in common, a draw is one of θ */
  bool flat;                /* some deviation is 0: no density to be integrated */
  double *p;                /* (n) of the candidates left, in the order of left */
  double *draws;            /* (draws, n) of the posterior, or NULL */
  uint32_t *left;           /* (n) candidates not yet chosen, in their order */
  size_t m;                 /* of them */
  uint32_t *models;         /* (n_models) in use; those of candidates in which[] */
  uint32_t *which;          /* (n) */
  size_t n_models;
  double *theta, *roots;    /* (n_models, d), Cholesky factors (n_models, d, d) or roots of diagonals (n_models, d) */
  double *sample;           /* (n_models, d) */
  double *slot, *work;      /* a slot; (2 d + n_experts) */
} decision;

static uint32_t arm_of(const decision *c, size_t i) { return c->arms != NULL ? c->arms[i] : 0; }

static double plays(ev_arms *a) { /* how many updates count */
  double t = (double)atomic_load(&a->head->ticks);
  return a->o.decay < 1 ? (1 - pow(a->o.decay, t)) / (1 - a->o.decay) : t;
}

/* The largest q in [mean, 1] with n kl(mean, q) <= bound. */
static double kl_upper(double mean, double n, double bound) {
  double low = mean < 0 ? 0 : mean > 1 ? 1 : mean, high = 1, p = low;
  for (int i = 0; i < 40 && high - low > 1e-9; i++) {
    double q = 0.5 * (low + high), kl = (p > 0 ? p * log(p / q) : 0) + (p < 1 ? (1 - p) * log((1 - p) / (1 - q)) : 0);
    if (n * kl <= bound) low = q;
    else high = q;
  }
  return low;
}

static ev_status of_counts(decision *c) {
  const ev_choice_options *o = c->o;
  uint64_t tick = atomic_load(&c->a->head->ticks);
  double bound = log(fmax(plays(c->a), 1));
  for (size_t i = 0; i < c->n; i++) {
    double s[ARMS_SLOT_HEAD];
    EV_TRY(arms_copy(c->a, arm_of(c, i), s, ARMS_SLOT_HEAD));
    arms_counts_now(c->a, s, tick);
    double n = s[0], raw = n > 0 ? s[1] / n : 0;
    if (!(n >= 0 && n < MOST) || !(fabs(s[1]) < MOST)) return ev_fail(EV_ECORRUPT, "counts: arm %u has %g looks that earned %g", arm_of(c, i), n, s[1]);
    if (o->rule == EV_RULE_UCB || o->rule == EV_RULE_KL_UCB) {
      if (!(n > 1e-9)) c->mean[i] = INFINITY; /* never tried */
      else c->mean[i] = o->rule == EV_RULE_UCB ? raw + sqrt(o->alpha * bound / n) : kl_upper(raw, n, bound);
      c->deviation[i] = 0;
    } else if (o->gaussian) {
      c->beta_a[i] = c->mean[i] = (o->prior_a * o->prior_b + s[1]) / (o->prior_b + n);
      c->beta_b[i] = c->deviation[i] = o->alpha * o->noise / sqrt(o->prior_b + n);
    } else { /* what is examined in part may have earned more than it counts: n − Σ r stays positive */
      double a = c->beta_a[i] = o->prior_a + fmax(s[1], 0), b = c->beta_b[i] = o->prior_b + fmax(n - s[1], 0);
      c->mean[i] = a / (a + b);
      c->deviation[i] = sqrt(a * b / (a + b + 1)) / (a + b);
    }
  }
  c->gaussian = o->gaussian;
  return EV_OK;
}

static ev_status of_models(decision *c) {
  const ev_choice_options *o = c->o;
  size_t d = c->d, size = c->a->layout.slot_size;
  bool draws = o->rule == EV_RULE_THOMPSON;
  uint32_t last = EV_NONE;
  c->gaussian = true;
  for (size_t i = 0; draws && i < c->n; i++) { /* candidates with a model of their own are drawn by themselves */
    size_t k = 0;
    while (k < c->n_models && c->models[k] != arm_of(c, i)) k++;
    if (k < c->n_models) c->shared = true;
    else c->models[c->n_models++] = arm_of(c, i);
    c->which[i] = (uint32_t)k;
  }
  if (c->shared) {
    c->theta = ev_alloc(c->n_models * d * (c->a->o.diagonal ? 3 : 2 + d), sizeof *c->theta);
    if (c->theta == NULL) return EV_ENOMEM;
    c->sample = c->theta + c->n_models * d;
    c->roots = c->sample + c->n_models * d;
    for (size_t k = 0; k < c->n_models; k++) {
      EV_TRY(arms_copy(c->a, c->models[k], c->slot, size));
      const double *inverse = c->slot + ARMS_SLOT_HEAD + 2 * d;
      memcpy(c->theta + k * d, c->slot + ARMS_SLOT_HEAD, d * sizeof(double));
      if (c->a->o.diagonal)
        for (size_t j = 0; j < d; j++) c->roots[k * d + j] = sqrt(inverse[j]);
      else if (!arms_cholesky(c->roots + k * d * d, inverse, d)) return ev_fail(EV_ECORRUPT, "model %u: its covariance is not positive definite", c->models[k]);
    }
    return EV_OK;
  }
  for (size_t i = 0; i < c->n; i++) {
    double mean, variance;
    if (arm_of(c, i) != last) EV_TRY(arms_copy(c->a, arm_of(c, i), c->slot, size));
    last = arm_of(c, i);
    bool wide = o->rule == EV_RULE_UCB || draws;
    arms_linear_moments(c->a, c->slot, c->x + i * d, &mean, wide ? &variance : NULL, c->work);
    c->deviation[i] = wide ? o->alpha * sqrt(variance) : 0;
    c->mean[i] = o->rule == EV_RULE_UCB ? mean + c->deviation[i] : mean;
    c->beta_a[i] = mean;
    c->beta_b[i] = c->deviation[i];
    if (c->a->o.kind == EV_ARMS_LOGISTIC && !wide) c->mean[i] = arms_sigmoid(mean);
  }
  return EV_OK;
}

/* ---- Thompson sampling -------------------------------------------------------------------------------------*/
/* A draw of every candidate in ids (m), or of all with NULL, into out (m). */
static void draw(decision *c, double *out, const uint32_t *ids, size_t m, ev_rng *r) {
  size_t d = c->d;
  if (!c->shared) {
    for (size_t t = 0; t < m; t++) {
      size_t i = ids != NULL ? ids[t] : t;
      out[t] = c->gaussian ? c->beta_a[i] + c->beta_b[i] * ev_rng_normal(r) : arms_draw_beta(c->beta_a[i], c->beta_b[i], r);
    }
    return;
  }
  for (size_t k = 0; k < c->n_models; k++) {
    double *z = c->work, *theta = c->sample + k * d;
    for (size_t j = 0; j < d; j++) z[j] = c->o->alpha * ev_rng_normal(r);
    for (size_t i = 0; i < d; i++) {
      double sum = c->theta[k * d + i];
      if (c->a->o.diagonal) sum += c->roots[k * d + i] * z[i];
      else
        for (size_t j = 0; j <= i; j++) sum += c->roots[(k * d + i) * d + j] * z[j];
      theta[i] = sum;
    }
  }
  for (size_t t = 0; t < m; t++) {
    size_t i = ids != NULL ? ids[t] : t;
    const float *x = c->x + i * d;
    const double *theta = c->sample + c->which[i] * d;
    double sum = 0;
    for (size_t j = 0; j < d; j++) sum += (double)x[j] * theta[j];
    out[t] = sum;
  }
}

static size_t largest(const double *v, size_t n) { /* the first of equals */
  size_t best = 0;
  for (size_t i = 1; i < n; i++)
    if (v[i] > v[best]) best = i;
  return best;
}

/* The probability that left[at] has the largest draw, and its standard error. */
static ev_status thompson_probability(decision *c, size_t at, double *p, double *error) {
  size_t m = c->m, n = c->n, most = c->o->draws;
  *error = 0;
  *p = 1;
  if (m == 1) return EV_OK;
  if (!c->shared && !c->flat && m <= c->o->exact) {
    double *a = c->p, *b = c->work;
    for (size_t t = 0; t < m; t++) a[t] = c->beta_a[c->left[t]], b[t] = c->beta_b[c->left[t]];
    double q;
    EV_TRY(ev_best_probability(&q, a, b, c->gaussian, m, at));
    *p = fmax(q, 1e-12); /* it was drawn */
    return EV_OK;
  }
  if (most == 0) {
    *p = *error = NAN;
    return EV_OK;
  }
  size_t hits = 1;
  for (size_t s = 0; s < most; s++) {
    const double *v = c->draws + s * n;
    size_t t = 0;
    double mine = v[c->left[at]];
    while (t < m && (t == at || v[c->left[t]] < mine)) t++;
    hits += t == m;
  }
  *p = (double)hits / (double)(most + 1);
  *error = sqrt(*p * (1 - *p) / (double)(most + 1));
  if (hits == 1 || hits == most + 1) *error = sqrt((double)most) / (double)(most + 1) / sqrt((double)(most + 1)); /* as with one hit or one miss */
  return EV_OK;
}

/* ---- Distributions over what is left -------------------------------------------------------------------------*/
static void inverse_gaps(decision *c, double gamma) {
  size_t best = 0;
  double rest = 1;
  for (size_t t = 1; t < c->m; t++)
    if (c->mean[c->left[t]] > c->mean[c->left[best]]) best = t;
  for (size_t t = 0; t < c->m; t++) {
    if (t == best) continue;
    c->p[t] = 1 / ((double)c->m + gamma * (c->mean[c->left[best]] - c->mean[c->left[t]]));
    rest -= c->p[t];
  }
  c->p[best] = rest;
}

static void one_only(decision *c) {
  size_t best = 0;
  for (size_t t = 0; t < c->m; t++) {
    c->p[t] = 0;
    if (c->mean[c->left[t]] > c->mean[c->left[best]]) best = t;
  }
  c->p[best] = 1;
}

static void by_weights(decision *c) {
  double gamma = c->a->o.rate, sum = 0, m = (double)c->m;
  if (c->d == 0) { /* EXP3: mean holds the weights */
    for (size_t t = 0; t < c->m; t++) sum += c->p[t] = c->mean[c->left[t]];
  } else { /* EXP4: theta holds the experts' shares; one whose candidates have all been chosen is for any */
    for (size_t t = 0; t < c->m; t++) c->p[t] = 0;
    for (size_t e = 0; e < c->d; e++) {
      double mass = 0;
      for (size_t t = 0; t < c->m; t++) mass += (double)c->x[c->left[t] * c->d + e];
      c->work[e] = mass;
      for (size_t t = 0; t < c->m; t++) c->p[t] += c->theta[e] * (mass > 0 ? (double)c->x[c->left[t] * c->d + e] / mass : 1 / m);
    }
    sum = 1;
  }
  for (size_t t = 0; t < c->m; t++) c->p[t] = (1 - gamma) * (sum > 0 ? c->p[t] / sum : 1 / m) + gamma / m;
}

static void by_logits(decision *c) {
  double top = -INFINITY, sum = 0;
  for (size_t t = 0; t < c->m; t++) top = fmax(top, c->mean[c->left[t]]);
  for (size_t t = 0; t < c->m; t++) sum += c->p[t] = exp(c->mean[c->left[t]] - top);
  for (size_t t = 0; t < c->m; t++) c->p[t] /= sum;
}

/* What is remembered of the choice of left[at]. */
static void keep_row(const decision *c, float *row, size_t at, double share) {
  const float *x = c->x + c->left[at] * c->d;
  if (c->a->o.kind == EV_ARMS_POLICY) { /* ∇ log of (ε / m + (1 − ε) π): share of π in it */
    for (size_t j = 0; j < c->d; j++) {
      double mean = 0;
      for (size_t t = 0; t < c->m; t++) mean += c->p[t] * (double)c->x[c->left[t] * c->d + j];
      row[j] = (float)(share * ((double)x[j] - mean));
    }
  } else if (c->a->o.kind == EV_ARMS_WEIGHTS) {
    for (size_t e = 0; e < c->d; e++) row[e] = c->theta[e] == 0 ? 0 : (float)((c->work[e] > 0 ? (double)x[e] / c->work[e] : 1 / (double)c->m) / (double)c->m);
  } else {
    memcpy(row, x, c->d * sizeof *row);
  }
}

static ev_status prepare(decision *c) {
  ev_arms_kind kind = c->a->o.kind;
  if (kind == EV_ARMS_COUNTS) return of_counts(c);
  if (kind == EV_ARMS_LINEAR || kind == EV_ARMS_LOGISTIC) return of_models(c);
  EV_TRY(arms_copy(c->a, 0, c->slot, c->a->layout.slot_size));
  if (kind == EV_ARMS_POLICY) {
    for (size_t i = 0; i < c->n; i++) {
      double z = 0;
      for (size_t j = 0; j < c->d; j++) z += c->slot[ARMS_SLOT_HEAD + j] * (double)c->x[i * c->d + j];
      c->mean[i] = z;
    }
    return EV_OK;
  }
  c->theta = ev_alloc(c->a->o.n, sizeof *c->theta);
  if (c->theta == NULL) return EV_ENOMEM;
  arms_weights_shares(c->a, c->slot, c->theta);
  double awake = 0;
  for (size_t e = 0; e < c->d; e++) { /* an expert that advises nothing at all is asleep (Freund et al. 1997) */
    double mass = 0;
    for (size_t i = 0; i < c->n; i++) mass += (double)c->x[i * c->d + e];
    if (!(mass > 0)) c->theta[e] = 0;
    awake += c->theta[e];
  }
  for (size_t e = 0; e < c->d; e++) c->theta[e] = awake > 0 ? c->theta[e] / awake : 1 / (double)c->d;
  for (size_t i = 0; i < c->n && c->d == 0; i++) c->mean[i] = c->theta[arm_of(c, i)];
  return EV_OK;
}

static ev_status check(const decision *c) {
  static const unsigned allowed[EV_ARMS_KINDS] = {
      [EV_ARMS_COUNTS] = 1u << EV_RULE_GREEDY | 1u << EV_RULE_UCB | 1u << EV_RULE_KL_UCB | 1u << EV_RULE_THOMPSON | 1u << EV_RULE_SQUARECB,
      [EV_ARMS_LINEAR] = 1u << EV_RULE_GREEDY | 1u << EV_RULE_UCB | 1u << EV_RULE_THOMPSON | 1u << EV_RULE_SQUARECB,
      [EV_ARMS_LOGISTIC] = 1u << EV_RULE_GREEDY | 1u << EV_RULE_UCB | 1u << EV_RULE_THOMPSON | 1u << EV_RULE_SQUARECB,
      [EV_ARMS_WEIGHTS] = 1u << EV_RULE_WEIGHTS, [EV_ARMS_POLICY] = 1u << EV_RULE_SOFTMAX};
  const ev_choice_options *o = c->o;
  const char *kind = ev_arms_kind_name(c->a->o.kind);
  if ((unsigned)o->rule >= EV_RULES || (allowed[c->a->o.kind] & 1u << o->rule) == 0) return ev_fail(EV_EINVAL, "%s: no choice by %s", kind, (unsigned)o->rule < EV_RULES ? rule_names[o->rule] : "this rule");
  if (c->n == 0 || o->k > c->n) return ev_fail(EV_EINVAL, "%zu places for %zu candidates", o->k, c->n);
  if (!(o->epsilon >= 0 && o->epsilon <= 1)) return ev_fail(EV_EINVAL, "epsilon must be in [0, 1], not %g", o->epsilon);
  if (!(o->alpha >= 0) || !isfinite(o->alpha)) return ev_fail(EV_EINVAL, "alpha must not be negative, not %g", o->alpha);
  if (!isfinite(o->prior_a) || !(o->gaussian || o->prior_a > 0) || !(o->prior_b > 0) || !(o->prior_b < MOST && fabs(o->prior_a) < MOST)) return ev_fail(EV_EINVAL, "no prior: %g, %g", o->prior_a, o->prior_b);
  if (!(o->noise > 0) || !isfinite(o->noise)) return ev_fail(EV_EINVAL, "noise must be above 0, not %g", o->noise);
  if (o->draws > 100000) return ev_fail(EV_EINVAL, "%u draws for a propensity; at most 100000", o->draws);
  if (c->d > 0 && c->x == NULL) return ev_fail(EV_EINVAL, "%s: features are missing", kind);
  for (size_t i = 0; i < c->n && c->arms != NULL; i++)
    if (c->arms[i] >= c->a->o.n) return ev_fail(EV_EINVAL, "%s: there is no arm %u of %u", kind, c->arms[i], c->a->o.n);
  for (size_t i = 0; i < c->n * c->d; i++)
    if (!isfinite(c->x[i]) || (c->a->o.kind == EV_ARMS_WEIGHTS && c->x[i] < 0)) return ev_fail(EV_EINVAL, "%s: candidate %zu: a feature of %g", kind, i / c->d + 1, (double)c->x[i]);
  return EV_OK;
}

static ev_status set_up(decision *c, double **memory, uint32_t **ids) {
  EV_TRY(check(c));
  size_t n = c->n;
  *memory = ev_alloc(6 * n + c->a->layout.slot_size + 2 * c->d + 8, sizeof **memory);
  *ids = ev_alloc(3 * n, sizeof **ids);
  if (*memory == NULL || *ids == NULL) return EV_ENOMEM;
  c->mean = *memory;
  c->deviation = c->mean + n;
  c->beta_a = c->deviation + n;
  c->beta_b = c->beta_a + n;
  c->p = c->beta_b + n;
  c->slot = c->p + n;
  c->work = c->slot + c->a->layout.slot_size; /* (n + 2 d + 8) */
  c->left = *ids;
  c->models = c->left + n;
  c->which = c->models + n;
  return prepare(c);
}

ev_status ev_arms_beliefs(ev_arms *a, double *mean, double *deviation, const uint32_t *arms, const float *x, size_t n, const ev_choice_options *o) {
  decision c = {.a = a, .o = o, .arms = arms, .x = x, .n = n, .d = a->o.n_dims};
  double *memory = NULL;
  uint32_t *ids = NULL;
  ev_choice_options plain = *o;
  plain.k = 0;
  c.o = &plain;
  ev_status status = set_up(&c, &memory, &ids);
  if (status == EV_OK && c.shared) status = ev_fail(EV_EINVAL, "candidates share a model: ask for their means by rule greedy, and deviations one by one");
  if (status == EV_OK) {
    memcpy(mean, c.mean, n * sizeof *mean);
    if (deviation != NULL) memcpy(deviation, c.deviation, n * sizeof *deviation);
  }
  ev_free(memory);
  ev_free(ids);
  ev_free(c.theta);
  return status;
}

ev_status ev_arms_choose(ev_arms *a, uint32_t *order, float *propensity, float *error, float *keep, const uint32_t *arms, const float *x, size_t n, const ev_choice_options *o) {
  decision c = {.a = a, .o = o, .arms = arms, .x = x, .n = n, .d = a->o.n_dims, .m = n};
  double *memory = NULL;
  uint32_t *ids = NULL;
  ev_rng r, other; /* what propensities cost in randomness does not change what is chosen */
  ev_status status = set_up(&c, &memory, &ids);
  if (status != EV_OK) goto end;
  uint64_t number = atomic_fetch_add(&a->head->decisions, 1) + 1;
  ev_rng_seed(&r, a->o.seed, 2 * number);
  ev_rng_seed(&other, a->o.seed, 2 * number + 1);
  for (size_t i = 0; i < n; i++) c.left[i] = (uint32_t)i;
  for (size_t i = 0; i < n && o->rule == EV_RULE_THOMPSON && !c.shared; i++) c.flat = c.flat || !(c.beta_b[i] > 0);
  if (o->rule == EV_RULE_THOMPSON && o->draws > 0 && (c.shared || c.flat || n > o->exact)) {
    c.draws = ev_alloc(o->draws * n, sizeof *c.draws);
    if (c.draws == NULL) status = EV_ENOMEM;
    for (size_t s = 0; s < o->draws && status == EV_OK; s++) draw(&c, c.draws + s * n, NULL, n, &other);
  }
  double gamma = o->alpha * sqrt((double)number);
  for (size_t t = 0; t < o->k && status == EV_OK; t++) {
    bool uniform = o->epsilon > 0 && ev_rng_f64(&r) < o->epsilon;
    size_t at = uniform ? ev_rng_below(&r, (uint32_t)c.m) : 0;
    double p, se = 0;
    if (o->rule == EV_RULE_THOMPSON) {
      if (!uniform) {
        draw(&c, c.p, c.left, c.m, &r);
        at = largest(c.p, c.m);
      }
      status = thompson_probability(&c, at, &p, &se);
    } else {
      if (o->rule == EV_RULE_SQUARECB) inverse_gaps(&c, gamma);
      else if (o->rule == EV_RULE_WEIGHTS) by_weights(&c);
      else if (o->rule == EV_RULE_SOFTMAX) by_logits(&c);
      else one_only(&c);
      if (!uniform) {
        double u = ev_rng_f64(&r);
        while (at + 1 < c.m && u >= c.p[at]) u -= c.p[at++];
        while (c.p[at] <= 0 && at > 0) at--; /* rounding has led beyond the last that can be drawn */
      }
      p = c.p[at];
    }
    double whole = o->epsilon / (double)c.m + (1 - o->epsilon) * p;
    if (keep != NULL && c.d > 0) keep_row(&c, keep + t * c.d, at, (1 - o->epsilon) * p / whole);
    order[t] = c.left[at];
    propensity[t] = (float)whole;
    if (error != NULL) error[t] = (float)((1 - o->epsilon) * se);
    c.m--;
    memmove(c.left + at, c.left + at + 1, (c.m - at) * sizeof *c.left);
  }
end:
  ev_free(memory);
  ev_free(ids);
  ev_free(c.theta);
  ev_free(c.draws);
  return status;
}
