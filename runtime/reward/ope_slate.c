/* ope_slate.c - off-policy estimators of slates (reward.h names them and their papers).
 *
 * They differ in what the reward at a place is thought to depend on: the whole slate, that place alone, or that place and
 * those above it. The more is assumed, the fewer ratios are multiplied, and the smaller is the variance. */
#include <math.h>
#include <string.h>

#include "bootstrap.h"
#include "ope.h"

static const char *const names[EV_OPE_SLATE_KINDS] = {"sips", "iips", "rips", "snsips", "sniips", "snrips", "cascade_dr"};
const char *ev_ope_slate_name(ev_ope_slate_kind k) { return (unsigned)k < EV_OPE_SLATE_KINDS ? names[k] : "?"; }

typedef struct work {
  const ev_ope_slates *s;
  ev_ope_options o;
  double *prefix, *place;        /* (n, length) ρ_1:l and m_l; 0 where a slate has ended */
  double *whole;                 /* (n) */
  double *column;                /* (n) */
  double *rows;                  /* (n, n_terms): sips, iips, rips, cascade_dr, whole; then for each place: prefix, prefix reward, place, place reward, whether it is reached */
  double *resampled, *one;
  size_t n_terms;
} work;
enum { SIPS, IIPS, RIPS, CASCADE, WHOLE, N_FIXED };
enum { PREFIX, PREFIX_REWARD, PLACE, PLACE_REWARD, REACH, N_PLACE };

static double alpha_of(const ev_ope_slates *s, size_t l) { return s->alpha != NULL ? s->alpha[l] : 1; }
static bool ended(const ev_ope_slates *s, size_t i, size_t l) { return s->arm[i * s->length + l] == EV_NONE; }

static ev_status check_probability(double p, double least, const char *whose, size_t row, size_t place) {
  if (p >= least && p <= 1 && p >= 0 && (p > 0 || least == 0)) return EV_OK;
  return ev_fail(EV_EINVAL, "slate %zu, place %zu: the %s is %g", row, place, whose, p);
}

static ev_status check(const ev_ope_slates *s) {
  if (s->n < 2 || s->n >= UINT32_MAX || s->length == 0 || s->length > 1000) return ev_fail(EV_EINVAL, "%zu slates of %zu places", s->n, s->length);
  if ((s->q == NULL) != (s->v == NULL)) return ev_fail(EV_EINVAL, "q and v are given together or not at all");
  if (s->marginal == NULL && s->policy_marginal != NULL) return ev_fail(EV_EINVAL, "marginals of the policy without those of the log");
  for (size_t i = 0; i < s->n; i++) {
    for (size_t l = 0; l < s->length; l++) {
      size_t at = i * s->length + l;
      if (ended(s, i, l)) {
        for (size_t k = l; k < s->length; k++)
          if (!ended(s, i, k)) return ev_fail(EV_EINVAL, "slate %zu: an arm at place %zu, none at %zu", i, k, l);
        break;
      }
      if (s->arm[at] >= s->n_arms) return ev_fail(EV_EINVAL, "slate %zu, place %zu: arm %u of %zu", i, l, s->arm[at], s->n_arms);
      if (!isfinite(s->reward[at])) return ev_fail(EV_EINVAL, "slate %zu, place %zu: the reward is %g", i, l, s->reward[at]);
      EV_TRY(check_probability(s->propensity[at], 1e-300, "propensity", i, l));
      EV_TRY(check_probability(s->policy[at], 0, "policy's probability", i, l));
      if (s->marginal != NULL) EV_TRY(check_probability(s->marginal[at], 1e-300, "marginal propensity", i, l));
      if (s->policy_marginal != NULL) EV_TRY(check_probability(s->policy_marginal[at], 0, "policy's marginal probability", i, l));
      if (s->q != NULL && !(isfinite(s->q[at]) && isfinite(s->v[at])))
        return ev_fail(EV_EINVAL, "slate %zu, place %zu: the reward model predicts %g and %g", i, l, s->q[at], s->v[at]);
    }
  }
  return EV_OK;
}

static void weigh(work *k) {
  const ev_ope_slates *s = k->s;
  const double *marginal = s->marginal != NULL ? s->marginal : s->propensity, *policy = s->policy_marginal != NULL ? s->policy_marginal : s->policy;
  for (size_t i = 0; i < s->n; i++) {
    double product = 1;
    size_t l = 0;
    for (; l < s->length && !ended(s, i, l); l++) {
      size_t at = i * s->length + l;
      product *= s->policy[at] / s->propensity[at];
      k->prefix[at] = product;
      k->place[at] = policy[at] / marginal[at];
    }
    for (; l < s->length; l++) k->prefix[i * s->length + l] = k->place[i * s->length + l] = 0;
    k->whole[i] = product;
  }
}

static void fill(work *k) {
  const ev_ope_slates *s = k->s;
  memset(k->rows, 0, s->n * k->n_terms * sizeof *k->rows);
  for (size_t i = 0; i < s->n; i++) {
    double *row = k->rows + i * k->n_terms, total = 0, above = 1;
    for (size_t l = 0; l < s->length && !ended(s, i, l); l++) {
      size_t at = i * s->length + l;
      double reward = alpha_of(s, l) * s->reward[at], prefix = k->prefix[at], place = k->place[at], *of = row + N_FIXED + l * N_PLACE;
      total += reward;
      row[IIPS] += place * reward;
      row[RIPS] += prefix * reward;
      if (s->q != NULL) row[CASCADE] += prefix * (reward - s->q[at]) + above * s->v[at];
      of[PREFIX] = prefix, of[PREFIX_REWARD] = prefix * reward, of[PLACE] = place, of[PLACE_REWARD] = place * reward, of[REACH] = 1;
      above = prefix;
    }
    row[WHOLE] = k->whole[i];
    row[SIPS] = k->whole[i] * total;
  }
}

static double combine(const work *k, const double *m, ev_ope_slate_kind kind) { /* means of the terms → estimate */
  static const int term[EV_OPE_SLATE_KINDS] = {SIPS, IIPS, RIPS, 0, 0, 0, CASCADE};
  if (kind == EV_OPE_SNSIPS) return m[SIPS] / m[WHOLE];
  if (kind != EV_OPE_SNIIPS && kind != EV_OPE_SNRIPS) return m[term[kind]];
  /* Each place has its own weights: their sum, over the slates that reach it, stands for how many reach it. A place where no
   * weight is left earns nothing that could be told. */
  double sum = 0;
  for (size_t l = 0; l < k->s->length; l++) {
    const double *of = m + N_FIXED + l * N_PLACE;
    double w = of[kind == EV_OPE_SNIIPS ? PLACE : PREFIX], r = of[kind == EV_OPE_SNIIPS ? PLACE_REWARD : PREFIX_REWARD];
    if (w > 0) sum += of[REACH] * r / w;
  }
  return sum;
}

/* Ranges of a row's term, from the ranges of rewards and of weights. */
static double range_of(const work *k, ev_ope_slate_kind kind) {
  const ev_ope_slates *s = k->s;
  double low = 0, high = 0, w = k->o.max_weight;
  for (size_t l = 0; l < s->length; l++) {
    double a = alpha_of(s, l), x = a * k->o.reward_low, y = a * k->o.reward_high;
    low += fmin(0, fmin(x, y)), high += fmax(0, fmax(x, y));
  }
  if (kind != EV_OPE_CASCADE_DR) return w * (high - low); /* sips: one weight for all; iips, rips: one for each place, each at most w */
  double total_low = 0, total_high = 0;
  for (size_t l = 0; l < s->length; l++) {
    double a = alpha_of(s, l), x = a * k->o.reward_low, y = a * k->o.reward_high, ql = 0, qh = 0, vl = 0, vh = 0;
    for (size_t i = 0; i < s->n; i++) {
      if (ended(s, i, l)) continue;
      size_t at = i * s->length + l;
      ql = fmin(ql, s->q[at]), qh = fmax(qh, s->q[at]), vl = fmin(vl, s->v[at]), vh = fmax(vh, s->v[at]);
    }
    double before = l == 0 ? 1 : w;
    total_low += w * fmin(0, fmin(x, y) - qh) + before * vl;
    total_high += w * fmax(0, fmax(x, y) - ql) + before * vh;
  }
  return total_high - total_low;
}

static bool self_normalised(ev_ope_slate_kind kind) { return kind == EV_OPE_SNSIPS || kind == EV_OPE_SNIIPS || kind == EV_OPE_SNRIPS; }

/* The influence of each row on a ratio, or on the sum over places of reach · ratio (delta method). */
static void influence(work *k, const double *m, ev_ope_slate_kind kind) {
  const ev_ope_slates *s = k->s;
  bool place = kind == EV_OPE_SNIIPS, whole = kind == EV_OPE_SNSIPS;
  memset(k->column, 0, s->n * sizeof *k->column);
  for (size_t l = 0; l < (whole ? 1 : s->length); l++) {
    size_t of = N_FIXED + l * N_PLACE, w = whole ? WHOLE : of + (place ? PLACE : PREFIX), wr = whole ? SIPS : of + (place ? PLACE_REWARD : PREFIX_REWARD);
    if (m[w] <= 0) continue;
    double ratio = m[wr] / m[w], reach = whole ? 1 : m[of + REACH];
    for (size_t i = 0; i < s->n; i++) {
      const double *row = k->rows + i * k->n_terms;
      k->column[i] += reach * (row[wr] - row[w] * ratio) / m[w] + (whole ? 0 : row[of + REACH] * ratio);
    }
  }
}

static ev_status estimate(work *k, ev_ope_estimate *e, const double *m, ev_ope_slate_kind kind) {
  const ev_ope_slates *s = k->s;
  static const int term[EV_OPE_SLATE_KINDS] = {SIPS, IIPS, RIPS, 0, 0, 0, CASCADE};
  *e = (ev_ope_estimate){.value = combine(k, m, kind), .parameter = NAN};
  if (self_normalised(kind)) influence(k, m, kind);
  else
    for (size_t i = 0; i < s->n; i++) k->column[i] = k->rows[i * k->n_terms + (size_t)term[kind]];
  double variance = ope_variance(k->column, s->n);
  EV_TRY(ope_standard_error(&e->standard_error, k->column, s->n, &k->o));
  e->bernstein_low = e->bernstein_high = NAN; /* places share rows: no such bound of a sum of ratios */
  if (!self_normalised(kind)) {
    double half = ev_ope_bernstein(variance, range_of(k, kind), s->n, k->o.confidence);
    e->bernstein_low = e->value - half, e->bernstein_high = e->value + half;
  } else if (kind == EV_OPE_SNSIPS) {
    double low = 0, high = 0;
    for (size_t l = 0; l < s->length; l++) {
      double a = alpha_of(s, l), x = a * k->o.reward_low, y = a * k->o.reward_high;
      low += fmin(0, fmin(x, y)), high += fmax(0, fmax(x, y));
    }
    for (size_t i = 0; i < s->n; i++) {
      k->column[i] = 0;
      for (size_t l = 0; l < s->length && !ended(s, i, l); l++) k->column[i] += alpha_of(s, l) * s->reward[i * s->length + l];
    }
    ope_ratio_bernstein(&e->bernstein_low, &e->bernstein_high, k->whole, k->column, s->n, k->o.max_weight, low, high, k->o.confidence);
  }
  e->low = e->high = e->value;
  if (k->o.n_bootstrap == 0) return EV_OK;
  for (unsigned b = 0; b < k->o.n_bootstrap; b++) k->one[b] = combine(k, k->resampled + b * k->n_terms, kind);
  ope_interval(e, k->one, k->o.n_bootstrap, k->o.confidence);
  return ev_interrupted() ? ev_fail(EV_EINTR, "interrupted") : EV_OK;
}

/* Weights of the places that are there; `out` (n, length) is put together at its front. */
static ev_status place_weights(ev_ope_weights *out, const ev_ope_slates *s, const double *w, double *compact) {
  size_t n = 0;
  for (size_t i = 0; i < s->n; i++)
    for (size_t l = 0; l < s->length && !ended(s, i, l); l++) compact[n++] = w[i * s->length + l];
  return n > 0 ? ope_weights(out, compact, n) : EV_OK;
}

static ev_status measure(ev_ope_slate_result *out, work *k, double *compact) {
  const ev_ope_slates *s = k->s;
  size_t n_rewards = 0;
  weigh(k);
  EV_TRY(ope_weights(&out->whole, k->whole, s->n));
  EV_TRY(place_weights(&out->prefix, s, k->prefix, compact));
  EV_TRY(place_weights(&out->place, s, k->place, compact));
  if (s->unsupported != NULL) out->whole.unsupported = ope_mean(s->unsupported, s->n);
  out->prefix.unsupported = out->place.unsupported = out->whole.unsupported;
  if (out->whole.unsupported > k->o.max_unsupported)
    return ev_fail(EV_EINVAL, "no support: %.3g of the policy's choices are arms that the log never shows at that place; at most %g may be",
                   out->whole.unsupported, k->o.max_unsupported);
  if (out->place.max <= 0) return ev_fail(EV_EINVAL, "no support: the policy would have chosen nothing of what the log's %zu slates show", s->n);
  for (size_t i = 0; i < s->n; i++)
    for (size_t l = 0; l < s->length && !ended(s, i, l); l++) compact[n_rewards++] = s->reward[i * s->length + l];
  ev_ope_options o = k->o;
  EV_TRY(ope_options(&k->o, &o, compact, n_rewards, fmax(out->prefix.max, out->place.max)));
  fill(k);
  double *means = k->one + k->o.n_bootstrap; /* (n_terms) */
  for (size_t t = 0; t < k->n_terms; t++) {
    means[t] = 0;
    for (size_t i = 0; i < s->n; i++) means[t] += k->rows[i * k->n_terms + t];
    means[t] /= (double)s->n;
  }
  if (k->o.n_bootstrap > 0) EV_TRY(ope_bootstrap(k->resampled, k->rows, s->n, k->n_terms, &k->o));
  for (int e = 0; e < EV_OPE_SLATE_KINDS; e++) {
    if (e == EV_OPE_CASCADE_DR && s->q == NULL) out->at[e] = (ev_ope_estimate){NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    else EV_TRY(estimate(k, &out->at[e], means, e));
  }
  return EV_OK;
}

ev_status ev_ope_slate_measure(ev_ope_slate_result *out, const ev_ope_slates *s, const ev_ope_options *o) {
  *out = (ev_ope_slate_result){0};
  EV_TRY(check(s));
  EV_TRY(ope_check_clusters(o, s->n));
  work k = {.s = s, .o = *o, .n_terms = N_FIXED + s->length * N_PLACE};
  double *compact = ev_alloc(s->n, s->length * sizeof *compact);
  k.prefix = ev_alloc(s->n, s->length * sizeof *k.prefix);
  k.place = ev_alloc(s->n, s->length * sizeof *k.place);
  k.whole = ev_alloc(s->n, sizeof *k.whole);
  k.column = ev_alloc(s->n, sizeof *k.column);
  k.rows = ev_alloc(s->n, k.n_terms * sizeof *k.rows);
  k.resampled = ev_alloc(o->n_bootstrap, k.n_terms * sizeof *k.resampled);
  k.one = ev_alloc(o->n_bootstrap + k.n_terms, sizeof *k.one);
  bool short_of = compact == NULL || k.prefix == NULL || k.place == NULL || k.whole == NULL || k.column == NULL || k.rows == NULL ||
      k.resampled == NULL || k.one == NULL;
  ev_status status = short_of ? EV_ENOMEM : measure(out, &k, compact);
  ev_free(compact);
  ev_free(k.prefix);
  ev_free(k.place);
  ev_free(k.whole);
  ev_free(k.column);
  ev_free(k.rows);
  ev_free(k.resampled);
  ev_free(k.one);
  return status;
}

/* ---- The reward model of cascade_dr ------------------------------------------------------------------------
 * For each fold everything from the last place to the first is learnt without it: a target that already held a row's own
 * reward would let it into its own prediction. The arm above stands in the regression where positions do. */
typedef struct recursion {
  const ev_ope_slates *s;
  const double *policy;
  const ev_ope_features *x;
  ev_ope_model m;
  unsigned *fold;                   /* (n) */
  uint32_t *arm, *above;            /* (n) */
  double *target, *weight, *ones;   /* (n) */
  double *q;                        /* (n, n_arms) of one place */
  double *next;                     /* (n) E_π Q̂ of the place below */
} recursion;

static ev_status fit_place(recursion *r, unsigned fold, size_t l, double *q, double *v, bool *any) {
  const ev_ope_slates *s = r->s;
  *any = false;
  for (size_t i = 0; i < s->n; i++) {
    bool there = !ended(s, i, l);
    size_t at = i * s->length + l;
    r->arm[i] = there ? s->arm[at] : 0;
    r->above[i] = l > 0 && there ? s->arm[at - 1] : 0;
    r->target[i] = there ? alpha_of(s, l) * s->reward[at] + r->next[i] : 0;
    r->weight[i] = there && (r->m.folds == 1 || r->fold[i] != fold) ? 1 : 0;
    *any |= r->weight[i] > 0;
  }
  if (*any) {
    ev_ope_log log = {.n = s->n, .n_arms = s->n_arms, .n_positions = l > 0 ? s->n_arms : 1, .arm = r->arm, .position = l > 0 ? r->above : NULL,
        .reward = r->target, .propensity = r->ones};
    ev_ope_model m = r->m;
    m.folds = 1, m.weight = r->weight, m.target = NULL, m.logistic = false;
    EV_TRY(ev_ope_regress(r->q, &log, r->x, &m));
  } else {
    memset(r->q, 0, s->n * s->n_arms * sizeof *r->q);
  }
  for (size_t i = 0; i < s->n; i++) {
    r->next[i] = 0;
    if (ended(s, i, l)) continue;
    size_t at = i * s->length + l;
    const double *pi = r->policy + at * s->n_arms, *of = r->q + i * s->n_arms;
    for (size_t a = 0; a < s->n_arms; a++) r->next[i] += pi[a] * of[a];
    if (r->m.folds == 1 || r->fold[i] == fold) q[at] = of[s->arm[at]], v[at] = r->next[i];
  }
  return EV_OK;
}

ev_status ev_ope_slate_regress(double *q, double *v, const ev_ope_slates *s, const double *policy, const ev_ope_features *x, const ev_ope_model *m) {
  EV_TRY(check(s));
  if (m->folds < 1 || m->folds > s->n) return ev_fail(EV_EINVAL, "%u folds of %zu slates", m->folds, s->n);
  for (size_t i = 0; i < s->n; i++)
    for (size_t l = 0; l < s->length && !ended(s, i, l); l++) EV_TRY(ope_check_distribution(policy + (i * s->length + l) * s->n_arms, s->n_arms, i));
  recursion r = {.s = s, .policy = policy, .x = x, .m = *m};
  r.fold = ev_alloc(s->n, sizeof *r.fold);
  r.arm = ev_alloc(s->n, sizeof *r.arm);
  r.above = ev_alloc(s->n, sizeof *r.above);
  r.target = ev_alloc(s->n, sizeof *r.target);
  r.weight = ev_alloc(s->n, sizeof *r.weight);
  r.ones = ev_alloc(s->n, sizeof *r.ones);
  r.next = ev_alloc(s->n, sizeof *r.next);
  r.q = ev_alloc(s->n, s->n_arms * sizeof *r.q);
  bool short_of = r.fold == NULL || r.arm == NULL || r.above == NULL || r.target == NULL || r.weight == NULL || r.ones == NULL || r.next == NULL ||
      r.q == NULL;
  ev_status status = short_of ? EV_ENOMEM : EV_OK;
  for (size_t i = 0; i < s->n && status == EV_OK; i++) {
    ev_rng g;
    ev_rng_seed(&g, m->seed, i + 1);
    r.fold[i] = ev_rng_below(&g, m->folds);
    r.ones[i] = 1;
  }
  if (status == EV_OK) memset(q, 0, s->n * s->length * sizeof *q), memset(v, 0, s->n * s->length * sizeof *v);
  for (unsigned fold = 0; fold < m->folds && status == EV_OK; fold++) {
    memset(r.next, 0, s->n * sizeof *r.next);
    bool any;
    for (size_t l = s->length; l-- > 0 && status == EV_OK;) status = fit_place(&r, fold, l, q, v, &any);
  }
  ev_free(r.fold);
  ev_free(r.arm);
  ev_free(r.above);
  ev_free(r.target);
  ev_free(r.weight);
  ev_free(r.ones);
  ev_free(r.next);
  ev_free(r.q);
  return status;
}
