/* reward.h - what came of it: ranking metrics with intervals, and the ledger that remembers.
 *
 * Everything here is a pure function of its input and seed, except the ledger, which is a SQLite file.
 */
#ifndef EV_REWARD_H
#define EV_REWARD_H

#include <sqlite3.h>

#include "../store/store.h"

/* ---- Metrics ---------------------------------------------------------------------------------------------
 * Given each user's ranked list and the items held out for him. Users without a held-out item are not
 * averaged. With R the held-out items, Lₖ the first k of the list, hits = |R ∩ Lₖ|:
 *   recall@k     hits / |R|                                      precision@k  hits / k
 *   hit@k        hits > 0                                        mrr@k        1 / rank of the first hit, else 0
 *   ndcg@k       Σ_{hit at rank r} 1/log2(r+1) / Σ_{r ≤ min(k,|R|)} 1/log2(r+1)   (binary; LightGCN's)
 *   map@k        Σ_{hit at rank r} precision@r / min(k, |R|)
 *   novelty@k    mean over Lₖ of −log2(pop(i) / n_users_seen), pop counted in training, at least 1
 *   diversity@k  mean over pairs in Lₖ of 1 − Jaccard(tokens); only with a column
 *   coverage@k   distinct items in all Lₖ / n_items              gini@k       Gini index of how often items are shown
 * Intervals: percentile bootstrap over users. coverage and gini are of the whole, not means: resampling users shows
 * fewer items, so their percentiles are moved by the resamples' mean distance from the value. They use at most
 * EV_LIST_RESAMPLES resamples. */
#define EV_LIST_RESAMPLES 100
typedef struct ev_eval_options {
  const size_t *cutoffs; /* ascending */
  size_t n_cutoffs;
  unsigned n_bootstrap;  /* resamples; default 1000; 0: no intervals (low = high = value) */
  double confidence;     /* default 0.95 */
  uint64_t seed;
  const ev_column *diversity; /* TOKEN or TOKEN_LIST item column, or NULL */
} ev_eval_options;
void ev_eval_defaults(ev_eval_options *o); /* cut-offs 5, 10, 20 */

typedef struct ev_metric {
  char name[32]; /* "recall@20" */
  double value, low, high;
} ev_metric;

typedef struct ev_eval ev_eval;
/* @param lists (n_users, k) item ids in rank order, EV_NONE padded; k >= the largest cut-off
 * @param users (n_users) the user of each list; @param held the fold that is predicted, @param train what popularity is counted in */
ev_status ev_eval_new(ev_eval **out, const uint32_t *lists, size_t k, const uint32_t *users, size_t n_users,
                      const ev_view *held, const ev_view *train, const ev_eval_options *o);
void ev_eval_free(ev_eval *e);
size_t ev_eval_n(const ev_eval *e);
const ev_metric *ev_eval_at(const ev_eval *e, size_t i);
size_t ev_eval_n_users(const ev_eval *e);                              /* users averaged */
const float *ev_eval_user_values(const ev_eval *e, const char *metric); /* (ev_eval_n_users) in the order of the lists, until the next call; NULL: no such or not a mean over users */

typedef struct ev_difference {
  double value, low, high; /* mean of b − a with its bootstrap interval */
  double p;                /* two-sided, from the same resamples: 2 min(P(d ≤ 0), P(d ≥ 0)), at least 1/(n_bootstrap + 1) */
} ev_difference;
ev_status ev_paired_bootstrap(ev_difference *out, const float *a, const float *b, size_t n, unsigned n_bootstrap, double confidence, uint64_t seed);

/* ---- Clicks ------------------------------------------------------------------------------------------------
 * Of rows (user, label 0 or 1, logit), p = 1 / (1 + e^−logit):
 *   auc       share of the pairs of a 1 and a 0 in which the 1 has the higher logit; equals count one half
 *   gauc      mean over users of their own auc, each weighted by his rows; users with one label only are left out (Zhu et al. 2017)
 *   log_loss  mean of −log p of the label
 * Intervals: percentile bootstrap over users, since the rows of one are alike. A resample without both labels has no areas. */
enum { EV_CLICK_AUC, EV_CLICK_GAUC, EV_CLICK_LOG_LOSS, EV_CLICK_METRICS };
typedef struct ev_clicks { /* borrowed */
  size_t n;
  const uint32_t *user;  /* (n) any numbers */
  const float *label;    /* (n) */
  const float *logit;    /* (n) */
} ev_clicks;
/* n_bootstrap 0: low = high = value. EV_EINVAL when a logit is no number, or the rows have one label only. Where no user has
 * both, gauc is NaN. */
ev_status ev_click_measure(ev_metric out[EV_CLICK_METRICS], const ev_clicks *c, unsigned n_bootstrap, double confidence, uint64_t seed);
/* b − a of each metric, with the same users drawn for both. EV_EINVAL unless both have the same rows. */
ev_status ev_click_compare(ev_difference out[EV_CLICK_METRICS], const ev_clicks *a, const ev_clicks *b, unsigned n_bootstrap, double confidence, uint64_t seed);

/* ---- Sequential statistics -----------------------------------------------------------------------------------
 * What may be looked at after every event: with probability `confidence` a confidence sequence holds the mean at all times at
 * once, and an e-process reaches 1/α with probability at most α if its null is true (Ville 1939), whoever stops when.
 * Each state is a plain struct without pointers: it is saved and copied as it stands. Not thread-safe.
 *
 * A mean of rewards in [low, high], three ways:
 *   EV_BETTING    hedged capital with predictable plug-in bets (Waudby-Smith and Ramdas 2023, theorem 3): the narrowest
 *   EV_BERNSTEIN  predictable plug-in empirical Bernstein (theorem 2 there): closed form
 *   EV_DRIFTING   empirical Bernstein by a discrete mixture (Howard et al. 2021): covers the average of the means so far,
 *                 however they move; the other two take the mean for constant, and keep the intersection of their intervals
 * Importance-weighted rewards need no bound on the weights: w r bounds the mean from below, w (1 − r) from above
 * (Waudby-Smith, Wu, Ramdas, Karampatziakis, Mineiro 2022). The weights' own mean must be 1. */
#define EV_SEQUENCE_GRID 64
typedef enum ev_sequence_kind { EV_BETTING, EV_BERNSTEIN, EV_DRIFTING, EV_SEQUENCE_KINDS } ev_sequence_kind;
typedef struct ev_sequence_side { /* of what bounds the mean from below (0) or one minus the mean (1), in units of the range */
  double sum, squares;              /* Σ y, Σ (y − mean so far)² */
  double bets, won, paid, variance; /* Bernstein: Σ λ, Σ λ y, Σ ψ(λ) (y − mean before)²; drifting: Σ (y − mean before)² */
  double capital[EV_SEQUENCE_GRID]; /* betting: at each candidate of the mean */
} ev_sequence_side;
typedef struct ev_sequence {
  uint32_t kind;                        /* ev_sequence_kind */
  uint32_t drifted;                     /* 1: the intersection became empty: the mean was not constant; the last interval stands */
  double confidence, low, high;
  uint64_t n;
  double patience;                      /* events that bets are sized as if there had been before; 0 but in a canary */
  double from, to, grid_from, grid_to; /* the interval and what the candidates span, in units of the range */
  ev_sequence_side side[2];
} ev_sequence;
ev_status ev_sequence_init(ev_sequence *s, ev_sequence_kind kind, double confidence, double low, double high); /* EV_EINVAL */
ev_status ev_sequence_add(ev_sequence *s, const double *rewards, size_t n);  /* EV_EINVAL at the first that is no number in [low, high]: those before it are in */
ev_status ev_sequence_add_weighted(ev_sequence *s, const double *weights, const double *rewards, size_t n); /* weights >= 0 */
/* value: the mean; of weighted rewards that of w (r − middle) + middle. p is not given (NaN). */
void ev_sequence_interval(const ev_sequence *s, ev_difference *out);
ev_status ev_sequence_check(const ev_sequence *s); /* of one that was read from somewhere: EV_ECORRUPT */

/* A challenger against the champion, events coming one by one, each given to the challenger with a known probability `share`
 * (which may change from event to event, but not with the event's reward). With q the mean reward before, in units of the
 * range, z = (r − q) (challenger / share − champion / (1 − share)) has the mean difference as its mean; bets on z are
 * e-processes (Waudby-Smith and Ramdas 2023), mixed over EV_BETS sizes:
 *   better  against "better by `margin` at most"      worse  against "worse by `harm` at most"
 * and an interval of the difference by EV_BETTING. margin and harm are in units of the reward. */
#define EV_BETS 20
typedef enum ev_decision { EV_GO_ON, EV_PROMOTE, EV_ROLL_BACK } ev_decision;
typedef struct ev_canary_options {
  double confidence; /* of the interval, and 1 − the probability of promoting what is no better; default 0.95 */
  double caution;    /* 1 − the probability of rolling back what does no harm; default 0.95 */
  double margin, harm, low, high; /* defaults 0, 0, 0, 1 */
} ev_canary_options;
typedef struct ev_canary {
  ev_canary_options o;
  uint64_t n[2];      /* events of champion, challenger */
  double sum[2], z;   /* Σ r of each, Σ z */
  double capital[2][EV_BETS], most[2]; /* better, worse; the largest e so far */
  uint32_t decision, reserved;
  ev_sequence difference;
} ev_canary;
typedef struct ev_canary_result {
  ev_difference difference; /* challenger − champion, in units of the reward; p = 1 / the largest `better` so far, at most 1 */
  double better, worse;     /* e-values now */
  double champion, challenger; /* mean rewards; NaN without events */
  ev_decision decision;     /* the first that was reached, and stays */
} ev_canary_result;
void ev_canary_defaults(ev_canary_options *o);
ev_status ev_canary_init(ev_canary *c, const ev_canary_options *o); /* EV_EINVAL */
ev_status ev_canary_add(ev_canary *c, bool challenger, double reward, double share); /* EV_EINVAL: nothing is changed */
void ev_canary_read(const ev_canary *c, ev_canary_result *out);
ev_status ev_canary_check(const ev_canary *c); /* EV_ECORRUPT */

/* Many challengers: what to take is where out <= the level wanted.
 *   EV_HOLM  family-wise error, any dependence (Holm 1979)   EV_BH  false discovery rate, independent or positively dependent
 *   (Benjamini and Hochberg 1995)   EV_BY  any dependence (Benjamini and Yekutieli 2001)   EV_EBH  the same of e-values, any
 *   dependence (Wang and Ramdas 2022): values are e-values. @param[out] out (n) adjusted p-values, at most 1. */
typedef enum ev_adjustment { EV_HOLM, EV_BH, EV_BY, EV_EBH, EV_ADJUSTMENTS } ev_adjustment;
ev_status ev_adjust(double *out, const double *values, size_t n, ev_adjustment how); /* EV_EINVAL, EV_ENOMEM */

/* Challengers that come one after the other, each decided on before the next is seen; γ_t = t^−1.6 / ζ(1.6).
 *   EV_LORD    p-values, independent (LORD++, Ramdas et al. 2017)   EV_ELOND  e-values, any dependence (Xu and Ramdas 2024) */
#define EV_ONLINE_KEPT 256 /* discoveries that LORD++ remembers; to forget older ones only makes it stricter */
typedef enum ev_online_kind { EV_LORD, EV_ELOND, EV_ONLINE_KINDS } ev_online_kind;
typedef struct ev_online {
  uint32_t kind, reserved;
  double level;          /* of the false discovery rate */
  uint64_t n, n_found;   /* tested, discovered */
  uint64_t first;        /* when the first was discovered; 0: not yet */
  uint64_t found[EV_ONLINE_KEPT]; /* when, a ring */
} ev_online;
ev_status ev_online_init(ev_online *o, ev_online_kind kind, double level);
double ev_online_level(const ev_online *o); /* what the next is tested at: a p-value at most, an e-value at least 1 / this */
ev_status ev_online_test(ev_online *o, double value, bool *discovery); /* EV_EINVAL: p not in [0, 1], e negative or no number */
ev_status ev_online_check(const ev_online *o); /* EV_ECORRUPT */

/* ---- Ledger ----------------------------------------------------------------------------------------------
 * One SQLite file in WAL mode; a statement that returned EV_OK is on disk. The schema is in ledger.c and in
 * docs/reference/ledger.md. A locked file is waited for (5 s), then EV_EIO. */
typedef struct ev_ledger ev_ledger;
ev_status ev_ledger_open(ev_ledger **out, const char *path); /* makes and upgrades the schema */
void ev_ledger_close(ev_ledger *l);
sqlite3 *ev_ledger_db(ev_ledger *l); /* for bindings: prepared statements over the documented schema; borrowed */
ev_status ev_ledger_exec(ev_ledger *l, const char *sql); /* one or more statements without rows */

typedef struct ev_event {
  const char *id;    /* idempotency key; NULL: made from the other fields */
  const char *user, *item, *type;
  double value;
  int64_t time_ms;
  const char *version; /* which version served it; may be NULL */
} ev_event;
/* All or none, in one transaction. *n_new counts those not known before. */
ev_status ev_ledger_events(ev_ledger *l, const ev_event *events, size_t n, size_t *n_new);

/* ---- Simulated feed ------------------------------------------------------------------------------------------
 * A closed loop in which the truth is known: users arrive, a policy gives each a slate, they look, click, tire, come back.
 * Of user u at time t (days), shown item i at place p = 1, 2, …:
 *   looks at p   p^(−position · patience of his segment), as long as he is there: after a click he leaves with probability `leave`
 *   clicks what he looks at   1 / (1 + e^−x),  x = click + click of his segment + taste_u(t) · v_i + appeal_i
 *                 + freshness 2^(−age of i / fresh_days) − satiation max(0, s_u · v_i) − repetition max(0, mean of v above · v_i)
 *   taste_u(t) = his segment's and his own base, and a drift: an ellipse around it, each user's with its own axes and period
 *   s_u: the vectors of what he clicked, halved every satiation_days
 *   converts a click with a probability of the item's quality, to be known a delay later (exponential, mean convert_days)
 *   arrives in proportion to his activity, times 1 − loyalty (1 − s) with s how often of late he found something to click
 * An item lives for item_days (half to one and a half of it); then another takes its number: generation + 1.
 * Tastes and items are functions of (seed, time), satiation and moods of what happened: the same seed and the same slates give the
 * same bits, however the sessions are cut into calls. All that happens is drawn by the session's number. Not thread-safe. */
#define EV_FEED_SEGMENTS 8
#define EV_FEED_PLACES 64
typedef struct ev_feed_segment {
  char name[24];
  double share, activity, click, patience, drift; /* share of users; the others multiply (click: is added to) what all have */
} ev_feed_segment;
typedef struct ev_feed_options { /* all of ev_feed_parameter(): ranges, defaults and what they say */
  double users, items, dims, places, seed;
  double visits, activity, loyalty;
  double taste, alike, drift, drift_days, satiation, satiation_days, repetition;
  double click, appeal, position, leave;
  double item_days, freshness, fresh_days;
  double convert, quality, bait, convert_days, convert_value;
  size_t n_segments;
  ev_feed_segment segments[EV_FEED_SEGMENTS];
} ev_feed_options;
typedef struct ev_parameter { /* a number of an options struct, described */
  const char *name, *about;
  size_t offset;
  double fallback, low, high;
  bool whole;
} ev_parameter;
const ev_parameter *ev_feed_parameter(size_t i);         /* NULL: no more */
const ev_parameter *ev_feed_segment_parameter(size_t i);
void ev_feed_defaults(ev_feed_options *o);

typedef struct ev_feed ev_feed;
ev_status ev_feed_new(ev_feed **out, const ev_feed_options *o); /* EV_EINVAL names the field; EV_ENOMEM */
ev_status ev_feed_copy(ev_feed **out, const ev_feed *f);        /* the same future, to be given other slates */
void ev_feed_free(ev_feed *f);
const ev_feed_options *ev_feed_opts(const ev_feed *f);
uint64_t ev_feed_sessions(const ev_feed *f); /* so far */
double ev_feed_days(const ev_feed *f);       /* when the next one begins */

/* The users of the next n sessions. Nothing changes. */
void ev_feed_arrive(const ev_feed *f, uint32_t *users, size_t n);
/* n sessions, one after the other. @param slates (n, places) items, EV_NONE: an empty place; no item twice in a row
 * @param[out] clicks (n, places) 0 or 1  @param[out] expected (n, places) the probability it had, or NULL. EV_EINVAL: nothing happens. */
ev_status ev_feed_step(ev_feed *f, const uint32_t *users, const uint32_t *slates, size_t n, uint8_t *clicks, float *expected);
/* The truth, would these users come now: probability of each click, and what the slate is worth: Σ clicks (1 + convert_value ·
 * conversion). Threaded. @param[out] clicks (n, places) or NULL  @param[out] worth (n) or NULL */
ev_status ev_feed_expect(ev_feed *f, const uint32_t *users, const uint32_t *slates, size_t n, float *clicks, float *worth);
void ev_feed_weights(const ev_feed *f, double *out); /* (users) the probability that the next to come is he; Σ = 1 */

typedef struct ev_conversion {
  double days;      /* when it became known */
  uint64_t session; /* of the click, counted from 0 */
  uint32_t user, item;
} ev_conversion;
size_t ev_feed_due(ev_feed *f, ev_conversion *out, size_t max); /* what became known by now, in order of time; each once */

uint32_t ev_feed_segment_of(const ev_feed *f, uint32_t user);
void ev_feed_item(ev_feed *f, uint32_t item, uint32_t *generation, double *born_days);
/* What a policy may know: vectors as they are now with noise of this deviation in each number, the same noise at each call; a
 * user's times an item's plus the appeal is the liking. @param[out] users (users, dims), items (items, dims), appeal (items); NULL: not wanted */
void ev_feed_features(ev_feed *f, double noise, float *users, float *items, float *appeal);

/* Policies that come with it. Rows whose mask is 0 stay as they are (NULL: all are filled); a place without an item is EV_NONE. What
 * is drawn depends on the seed and the number of the session that a row will be. propensity (n, places): the probability of the
 * item given those above it, or NULL. Items are scored by user · item + bias. EV_ENOMEM; EV_EINVAL: a score is no number. */
typedef struct ev_feed_scores {
  const float *users, *items, *bias; /* (users, dims), (items, dims), (items) or NULL */
  size_t dims;
} ev_feed_scores;
ev_status ev_feed_show_random(const ev_feed *f, uint32_t *slates, float *propensity, size_t n, uint64_t seed, const float *mask);
ev_status ev_feed_show_top(const ev_feed *f, uint32_t *slates, size_t n, const float *scores, const float *mask); /* scores (items): the best for everybody */
ev_status ev_feed_show_ranked(const ev_feed *f, uint32_t *slates, const uint32_t *users, size_t n, const ev_feed_scores *s, const float *mask); /* threaded */
/* Without replacement, e^(score / temperature) (Plackett 1975, Luce 1959). Threaded. */
ev_status ev_feed_show_sampled(const ev_feed *f, uint32_t *slates, float *propensity, const uint32_t *users, size_t n, const ev_feed_scores *s, float temperature, uint64_t seed,
                               const float *mask);

#endif
