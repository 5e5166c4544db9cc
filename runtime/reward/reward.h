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
