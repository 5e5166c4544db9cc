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

/* ---- Exposure --------------------------------------------------------------------------------------------
 * Of the first k places of all lists together; an item with several tokens of the column is a place of each of them:
 *   MAX    the largest share of the places that one token has     TOKEN   the share of a given token
 *   SLATE  mean over lists of the largest share within the list    COVERAGE, GINI  as in Metrics */
typedef enum ev_exposure_kind { EV_SHARE_MAX, EV_SHARE_TOKEN, EV_SHARE_SLATE, EV_SHARE_COVERAGE, EV_SHARE_GINI } ev_exposure_kind;
typedef struct ev_exposure {
  ev_exposure_kind kind;
  size_t k;
  const ev_column *column; /* shares: TOKEN or TOKEN_LIST of items, borrowed */
  uint32_t token;          /* TOKEN: which; one that the column has not has no share */
} ev_exposure;
/* @param items (n, stride) item ids in rank order, EV_NONE padded
 * @param[out] user (n) what each list adds: SLATE its own share; else its jackknife pseudo-value n T − (n − 1) T₋ᵤ, so that a
 * figure of the whole can be compared user by user (Efron and Stein 1981)
 * @param[out] token the token of MAX or TOKEN, else EV_NONE. EV_EINVAL: no lists, k beyond their places, a column of numbers */
ev_status ev_exposure_measure(double *value, float *user, uint32_t *token, const uint32_t *items, size_t stride, size_t n, size_t n_items, const ev_exposure *x);

/* ---- Pareto fronts -----------------------------------------------------------------------------------------
 * Points of n_dims finite objectives, all to be maximised. One dominates another when it is nowhere less and somewhere more: equal
 * points do not dominate each other. Same bits for any number of threads. EV_EINTR after ev_interrupt. */
#define EV_PARETO_DIMS 16
/* @param points (n, n_dims) @param[out] rank (n) 0: not dominated; r: dominated by none once ranks below r are taken away.
 * O(n² n_dims) at worst. */
ev_status ev_pareto_ranks(uint32_t *rank, const double *points, size_t n, size_t n_dims);
/* The volume of what is dominated by some point and dominates the reference, exactly. Exponential in n_dims; a front of 100 points
 * of 5 objectives takes milliseconds. @param reference (n_dims); points not above it everywhere add nothing */
ev_status ev_hypervolume(double *out, const double *points, size_t n, size_t n_dims, const double *reference);

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

#endif
