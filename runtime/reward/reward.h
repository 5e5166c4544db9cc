/* reward.h - what came of it: ranking metrics with intervals, the ledger that remembers, and what policies learn from it.
 *
 * Everything here is a pure function of its input and seed, except the ledger, which is a SQLite file, and learning state, which is
 * memory that processes share.
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
 * One SQLite file in WAL mode; what a call that returned EV_OK wrote is on disk. The tables and views are in ledger_schema.c
 * and docs/reference/ledger.md. A locked file is waited for (5 s), then EV_EIO; so is a full disk, and nothing of the
 * call is kept. Totals by version, item, agent, type and hour are kept beside the rows and are right at every moment.
 *
 * An ev_ledger belongs to one thread at a time; several may be open on one file. Many threads write through a writer. */
typedef struct ev_ledger ev_ledger;
ev_status ev_ledger_open(ev_ledger **out, const char *path); /* makes and upgrades the schema */
ev_status ev_ledger_open_reader(ev_ledger **out, const char *path); /* changes nothing; EV_ENOTFOUND; an older schema is EV_EINVAL */
void ev_ledger_close(ev_ledger *l);
sqlite3 *ev_ledger_db(ev_ledger *l); /* for bindings: prepared statements over the documented schema; borrowed */
ev_status ev_ledger_exec(ev_ledger *l, const char *sql); /* one or more statements without rows */

typedef struct ev_event {
  const char *id;    /* idempotency key; NULL: made from the other fields */
  const char *user, *item, *type;
  double value;
  int64_t time_ms;
  const char *version;    /* which version served it; may be NULL, and an impression knows better */
  const char *impression; /* id of the slate that it is about, be that stored already or later; may be NULL */
} ev_event;

typedef struct ev_shown {
  const char *item;
  double propensity;  /* with which the item came to its position: 0 < p ≤ 1 */
  const char *agent;  /* that proposed it; may be NULL */
  uint32_t position;  /* 1 = the top; 0: its place in the list */
} ev_shown;

typedef struct ev_impression { /* a served slate */
  const char *id, *user, *version;
  double propensity;  /* of the whole slate: 0 < p ≤ 1 */
  int64_t time_ms;
  const ev_shown *items;
  size_t n_items;     /* at least 1 */
} ev_impression;

typedef struct ev_ledger_batch { /* borrowed */
  const ev_impression *impressions;
  size_t n_impressions;
  const ev_event *events;
  size_t n_events;
} ev_ledger_batch;

typedef struct ev_ledger_receipt {
  size_t new_impressions, new_events;
  size_t known;       /* impressions and events that were there before, and count once */
  size_t conflicts;   /* of those: with other content than before; what was there first stands */
  size_t waiting;     /* new events whose impression is not stored yet */
  size_t joined_late; /* events of before that found their impression in this batch */
  size_t expired;     /* earlier than what retention keeps: not stored, since nobody could tell whether they are known */
} ev_ledger_receipt;

/* All or none, in one transaction; impressions before events. EV_EINVAL names the event or impression (counted from 0) and
 * the value: a text that is empty, too long or no UTF-8; a value that is no number or outside its type's range; a
 * propensity that is missing (NaN), 0 or less, or more than 1; a time before 1970. */
ev_status ev_ledger_put(ev_ledger *l, const ev_ledger_batch *b, ev_ledger_receipt *out);
ev_status ev_ledger_events(ev_ledger *l, const ev_event *events, size_t n, size_t *n_new); /* a batch of events alone */
/* Several batches in one transaction, for who queues them himself. begin takes the file's lock. add is put without the transaction:
 * after EV_EINVAL nothing of its batch is written and the others stand; after anything else that is no EV_OK, roll back. The batch
 * is borrowed until add returns. commit: what was added is on disk, or nothing of it is (rolled back). rollback keeps the last error. */
ev_status ev_ledger_begin(ev_ledger *l);
ev_status ev_ledger_add(ev_ledger *l, const ev_ledger_batch *b, ev_ledger_receipt *out);
ev_status ev_ledger_commit(ev_ledger *l);
void ev_ledger_rollback(ev_ledger *l);
/* For an idle moment, outside a transaction: rows go into the totals, where enough of them wait (they count either way). */
ev_status ev_ledger_settle(ev_ledger *l);
bool ev_ledger_unsettled(const ev_ledger *l); /* settle would have something to do */
ev_status ev_ledger_check_event(const ev_ledger *l, const ev_event *e); /* what put would say, without "event 3:" before it */
ev_status ev_ledger_check_impression(const ev_impression *i);
/* Values of an event type must lie in [low, high] from now on, whoever writes; type "*": of every type without a range of
 * its own. low > high: the range is removed. */
ev_status ev_ledger_set_range(ev_ledger *l, const char *type, double low, double high);

/* Deletes impressions and events from before a time; totals keep counting them. An impression with a later event stays, and
 * so do all of its events. EV_EINVAL when a canary that runs since before that time needs them. Some thousand rows a
 * commit: EV_EINTR leaves what is done. dry: counts only. */
typedef struct ev_pruned {
  size_t impressions, events; /* deleted */
  size_t kept;                /* impressions from before the time that a later event refers to */
} ev_pruned;
ev_status ev_ledger_prune(ev_ledger *l, int64_t before_ms, bool dry, ev_pruned *out);

/* ---- Ledger: writer --------------------------------------------------------------------------------------
 * A thread with a connection of its own that commits what many threads submit: while one commit waits for the disk the next
 * batches gather, and one sync serves them all. Where a commit fails its batches are tried one by one, so that none fails for
 * another's sake. The process may fork, as long as the child leaves the writer alone. */
typedef struct ev_ledger_writer ev_ledger_writer;
typedef struct ev_ledger_writer_options {
  size_t queue_rows;  /* that may wait (default 65536): beyond it submit waits and post says EV_ELIMIT */
  size_t commit_rows; /* of one commit (default 8192), unless one batch alone has more */
  unsigned linger_ms; /* how long rows that nobody waits for may gather (default 20) */
  unsigned busy_ms;   /* how long a locked file is waited for (default 5000) */
} ev_ledger_writer_options;
typedef struct ev_ledger_writer_stats {
  uint64_t commits, batches, rows; /* on disk */
  uint64_t failures;  /* commits that failed */
  uint64_t refused;   /* posted batches that nobody waited for and that were wrong */
  size_t waiting;     /* rows in the queue */
  char error[512];    /* the last failure; "": none */
} ev_ledger_writer_stats;
/* Called from the writer's thread; must not call the writer. error is borrowed until it returns. */
typedef void ev_ledger_done_fn(void *ctx, ev_status status, const char *error, const ev_ledger_receipt *receipt);

void ev_ledger_writer_defaults(ev_ledger_writer_options *o);
ev_status ev_ledger_writer_open(ev_ledger_writer **out, const char *path, const ev_ledger_writer_options *o); /* o may be NULL */
ev_status ev_ledger_submit(ev_ledger_writer *w, const ev_ledger_batch *b, ev_ledger_receipt *out); /* as ev_ledger_put, from any thread */
/* Copies the batch and returns. done (may be NULL) is called once, when the batch is on disk or refused; it is not called when
 * post fails. A batch without one is tried again until it gets through or the writer is closed. */
ev_status ev_ledger_post(ev_ledger_writer *w, const ev_ledger_batch *b, ev_ledger_done_fn *done, void *ctx);
ev_status ev_ledger_flush(ev_ledger_writer *w);        /* until all that was posted before is on disk or has failed; the last failure of a batch without done */
void ev_ledger_writer_stat(ev_ledger_writer *w, ev_ledger_writer_stats *out);
ev_status ev_ledger_writer_close(ev_ledger_writer *w); /* writes what waits, then frees w in every case; EV_EIO: how many rows were lost and why */

/* ---- Ledger: files -----------------------------------------------------------------------------------------
 * JSON Lines of impressions and events → batches, and tables or views → JSON Lines or CSV. What "log" exports is what lines read. */
typedef struct ev_ledger_lines ev_ledger_lines;
ev_ledger_lines *ev_ledger_lines_new(void); /* NULL: out of memory */
void ev_ledger_lines_free(ev_ledger_lines *b);
/* One line of file without its newline, empty ones do nothing; EV_EINVAL says file:line: and the value, and adds nothing.
 * l may be NULL, else values are held against its ranges. */
ev_status ev_ledger_lines_add(ev_ledger_lines *b, const ev_ledger *l, const char *file, size_t line, const char *text, size_t len);
size_t ev_ledger_lines_rows(const ev_ledger_lines *b);
void ev_ledger_lines_batch(ev_ledger_lines *b, ev_ledger_batch *out); /* borrowed until the next add or clear */
void ev_ledger_lines_clear(ev_ledger_lines *b);

typedef enum ev_export_format { EV_EXPORT_JSONL, EV_EXPORT_CSV } ev_export_format;
typedef ev_status ev_export_fn(void *ctx, const char *data, size_t len); /* a piece of the output */
/* what: "log" (impressions and events as JSON Lines) or the name of a table or view of the documented schema. One moment of the
 * ledger, though others write. EV_ENOTFOUND lists the names there are. */
ev_status ev_ledger_export(ev_ledger *l, const char *what, ev_export_format format, ev_export_fn *write, void *ctx, size_t *n_rows);

/* ---- Off-policy evaluation -------------------------------------------------------------------------------------
 * What a policy π would have earned, from what another one, π₀, showed and logged. A row is one decision: arm a of n_arms was
 * shown in context x (at a position, where there are several) with propensity p = π₀(a | x), and earned reward r. All in double
 * precision, and pure functions: nothing is printed, nothing is kept.
 *
 * With w = π(a | x) / p, q = q̂(x, a), v = Σ_b π(b | x) q̂(x, b), each mean over the rows:
 *   dm           v                                               direct method
 *   ips          w r                                             Horvitz and Thompson 1952
 *   snips        Σ w r / Σ w                                     Swaminathan and Joachims 2015
 *   clipped_ips  min(w, c) r                                     Ionides 2008
 *   dr           v + w (r − q)                                   Dudík, Langford, Li 2011
 *   sndr         v + Σ w (r − q) / Σ w                           Thomas and Brunskill 2016
 *   switch_dr    v + w (r − q) where w <= τ, v elsewhere         Wang, Agarwal, Dudík 2017
 *   dros         v + λ w / (w² + λ) (r − q)                      Su, Dimakopoulou, Krishnamurthy, Dudík 2020: optimistic shrinkage
 *   mrdr         dr with the q̂ that makes its variance small     Farajtabar, Chow, Ghavamzadeh 2018
 * c, τ and λ that are not given are chosen by SLOPE (Su, Srinath, Krishnamurthy 2020), a candidate's width its standard error. In order of use: regress (q̂), reduce
 * (matrices → columns), measure (columns → estimates); evaluate does them all. */
typedef struct ev_ope_log { /* borrowed; see ev_ope_check */
  size_t n, n_arms;
  size_t n_positions;       /* 1 where there are none */
  const uint32_t *arm;      /* (n) < n_arms */
  const uint32_t *position; /* (n) < n_positions, or NULL: all at the first */
  const double *reward;     /* (n) finite */
  const double *propensity; /* (n) in (0, 1] */
} ev_ope_log;
ev_status ev_ope_check(const ev_ope_log *log); /* EV_EINVAL names the row and the value */

/* A number for every arm in every row: in memory, or made row by row when it is wanted. fn is called on the caller's thread, rows
 * ascending, and writes n_arms numbers; it may be asked for a row again by a later call. */
typedef struct ev_ope_matrix {
  const double *at; /* (n, n_arms) row-major, or NULL: fn */
  void (*fn)(void *ctx, double *out, size_t row);
  void *ctx;
} ev_ope_matrix;

/* The reward model q̂: ridge regression, or logistic regression of rewards 0 and 1, over [1, arm, position, context, arm features,
 * pair, arm × context when `crossed`], context and features standardised, all but the 1 penalised by penalty/2 |θ|² beside the sum
 * of the rows' halved squares or log losses. Cross-fitted: rows are dealt into folds by the seed, q̂ of a row comes from the other
 * folds. Row i is in fold ev_rng_below(folds) of the generator seeded (seed, i + 1). */
typedef struct ev_ope_features { /* borrowed; zeroed: none */
  size_t n_context;
  const double *context;      /* (n, n_context) */
  size_t n_arm_features;
  const double *arm_features; /* (n_arms, n_arm_features) */
  const double *pair;         /* (n, n_arms) what is known of the row and the arm together, or NULL */
} ev_ope_features;
typedef struct ev_ope_model {
  bool logistic;    /* rewards must lie in [0, 1] */
  bool crossed;     /* an effect of every context column for every arm: EV_EINVAL beyond EV_OPE_PARAMETERS */
  double penalty;   /* > 0; default 1 */
  unsigned folds;   /* default 5; 1: no cross-fitting */
  uint64_t seed;
  const double *weight; /* (n) of the rows, not negative, or NULL: all 1 */
  const double *target; /* (n) what is regressed instead of the log's reward, or NULL */
} ev_ope_model;
#define EV_OPE_PARAMETERS 2048
void ev_ope_model_defaults(ev_ope_model *m);
ev_status ev_ope_regress(double *q, const ev_ope_log *log, const ev_ope_features *x, const ev_ope_model *m); /* q (n, n_arms). Threaded over folds; EV_EINTR */
/* The same regression, kept: it can say how each row moved it. log, x and m's arrays are borrowed until it is freed. */
typedef struct ev_ope_fit ev_ope_fit;
ev_status ev_ope_fit_new(ev_ope_fit **out, const ev_ope_log *log, const ev_ope_features *x, const ev_ope_model *m);
void ev_ope_fit_free(ev_ope_fit *f); /* NULL does nothing */
const double *ev_ope_fit_q(const ev_ope_fit *f); /* (n, n_arms) */
/* To first order, how much each row moved Σ_i Σ_b π(b | x_i) q̂(x_i, b), less Σ_i weight[i] q̂(x_i, a_i), through the regression: its
 * influence, centred. Without it dm would seem surer than its model is. policy or weight may be NULL: 0. @param[out] moved (n) */
ev_status ev_ope_fit_moved(double *moved, const ev_ope_fit *f, const ev_ope_matrix *policy, const double *weight);
/* The weights under which regression makes DR's variance small: π² (1 − p) / p² of the arm shown. For a policy that picks one arm
 * that is the paper's criterion; for others its part that does not pair arms. */
ev_status ev_ope_mrdr_weights(double *weight, const ev_ope_log *log, const ev_ope_matrix *policy);

typedef struct ev_ope_columns { /* what the estimators need of each row. Owned when ev_ope_reduce made them, else borrowed */
  size_t n;
  double *weight, *reward; /* (n) w, r */
  double *q, *v;           /* (n), or both NULL: only ips, snips and clipped_ips are estimated */
  double *mrdr_q, *mrdr_v; /* (n), or both NULL: no mrdr */
  double q_low, q_high;    /* what q̂ and v lie between (both models) */
  const ev_ope_fit *fit;   /* borrowed: what q came from, or NULL: q is taken as given */
  double *moved;           /* (n) with a fit: ev_ope_fit_moved of the policy */
  double unsupported;      /* policy's mass on arms that the log never showed at that position, mean over the rows */
  uint32_t worst_arm, worst_position; /* where most of that lies; EV_NONE: nowhere */
} ev_ope_columns;
/* q, mrdr_q may be NULL. EV_EINVAL when a row of the policy is no distribution (sums to 1 within 1e-6), naming it. */
ev_status ev_ope_reduce(ev_ope_columns *out, const ev_ope_log *log, const ev_ope_matrix *policy, const ev_ope_matrix *q, const ev_ope_matrix *mrdr_q);
ev_status ev_ope_reduce_fit(ev_ope_columns *out, const ev_ope_log *log, const ev_ope_matrix *policy, const ev_ope_fit *fit, const ev_ope_matrix *mrdr_q); /* q is the fit's */
void ev_ope_columns_free(ev_ope_columns *c);

typedef enum ev_ope_kind {
  EV_OPE_DM, EV_OPE_IPS, EV_OPE_SNIPS, EV_OPE_CLIPPED_IPS, EV_OPE_DR, EV_OPE_SNDR, EV_OPE_SWITCH_DR, EV_OPE_DROS, EV_OPE_MRDR, EV_OPE_KINDS
} ev_ope_kind;
const char *ev_ope_name(ev_ope_kind k);

typedef struct ev_ope_options {
  double clip, switch_at, shrink; /* c, τ, λ; NaN (default): by SLOPE */
  double reward_low, reward_high; /* what rewards can be; NaN (default): what is seen. Outside is EV_EINVAL. Bernstein's intervals stand on it */
  double max_weight;              /* what w can be at most; NaN (default): the largest seen. Likewise */
  double confidence;              /* default 0.95 */
  unsigned n_bootstrap;           /* default 1000; 0: no such intervals */
  double max_unsupported;         /* EV_EINVAL when more of the policy's mass is unsupported; default 0.01 */
  uint64_t seed;
  const uint32_t *cluster;        /* (n) < n_clusters, each with a row: rows that are alike, as a user's are; resampled and counted together. NULL (default): each alone */
  size_t n_clusters;              /* 2 at least */
} ev_ope_options;
void ev_ope_defaults(ev_ope_options *o);

typedef struct ev_ope_estimate {
  double value;                         /* NaN, and all others: not estimated, for want of q̂ */
  double standard_error;                /* of the mean; delta method for snips and sndr; with a fit, dm, switch_dr and dros count what a row did to q̂ */
  double low, high;                     /* percentile bootstrap over rows or clusters, likewise, the parameter as it is; with one, at least as far as ips's or dr's, for its bias. n_bootstrap 0: value */
  double bernstein_low, bernstein_high; /* empirical Bernstein (Maurer and Pontil 2009), which takes rows as independent, of what the estimator estimates with this q̂, whose bias is not in it; a parameter's is, as above. NaN with a fit where nothing but the model is left (dm; τ or λ 0) */
  double parameter;                     /* c, τ or λ that was used; NaN: it has none. Infinite: none is needed */
  double changed;                       /* share of the rows whose weight it changed */
} ev_ope_estimate;

typedef struct ev_ope_weights {
  double mean, standard_error;     /* E w = 1 where the log supports the policy */
  double max, ess;                 /* (Σ w)² / Σ w² */
  double quantile[5];              /* 0.5, 0.9, 0.95, 0.99, 0.999 */
  double zero;                     /* share of the rows that the policy would never have chosen */
  double unsupported;
} ev_ope_weights;

typedef struct ev_ope_result {
  ev_ope_estimate at[EV_OPE_KINDS];
  ev_ope_weights weights;
} ev_ope_result;
/* Threaded over resamples, the same bits for any number of threads. EV_EINVAL: no support, no rows, a reward out of range. */
ev_status ev_ope_measure(ev_ope_result *out, const ev_ope_columns *c, const ev_ope_options *o);
ev_status ev_ope_evaluate(ev_ope_result *out, const ev_ope_log *log, const ev_ope_matrix *policy, const ev_ope_matrix *q, const ev_ope_matrix *mrdr_q,
                          const ev_ope_options *o); /* reduce and measure, q as given */
ev_status ev_ope_evaluate_fit(ev_ope_result *out, const ev_ope_log *log, const ev_ope_matrix *policy, const ev_ope_fit *fit, const ev_ope_matrix *mrdr_q, const ev_ope_options *o);

/* SLOPE over estimates in order of growing bias and, as a rule, shrinking width: the last whose interval value ± 2 width meets all
 * those before it. n > 0. */
size_t ev_ope_slope(const double *value, const double *width, size_t n);
/* Interval of a mean of n numbers in a known range, variance their unbiased one: two-sided, at this confidence. n > 1. */
double ev_ope_bernstein(double variance, double range, size_t n, double confidence); /* half its width */

/* ---- Off-policy evaluation of slates ----------------------------------------------------------------------------
 * A row is a slate of up to `length` arms, each with its reward; the value is E Σ_l α_l r_l. With ρ_l = π(a_l | x, a_1 … a_{l−1}) /
 * π₀(same), ρ_1:l their product, m_l the ratio of the marginals π(a_l | x) / π₀(a_l | x):
 *   sips        ρ_1:L Σ_l α_l r_l                                 the whole slate decides
 *   iips        Σ_l m_l α_l r_l                                   each place for itself (Li, Abbasi-Yadkori, Kveton et al. 2018)
 *   rips        Σ_l ρ_1:l α_l r_l                                 a place and those above it (McInerney et al. 2020)
 *   sn…         the same with Σ of the rows' weights for n, place by place
 *   cascade_dr  Σ_l ρ_1:l (α_l r_l − Q̂_l) + ρ_1:l−1 E_π Q̂_l       (Kiyohara et al. 2022); Q̂_l predicts Σ_{k ≥ l} α_k r_k */
typedef struct ev_ope_slates { /* borrowed */
  size_t n, length, n_arms;
  const uint32_t *arm;            /* (n, length); EV_NONE from where a slate ends */
  const double *reward;           /* (n, length) */
  const double *propensity;       /* (n, length) π₀(a_l | x, those above) in (0, 1] */
  const double *marginal;         /* (n, length) π₀(a_l | x), or NULL: places are filled independently, so the same */
  const double *policy;           /* (n, length) π(a_l | x, those above) of the arms logged */
  const double *policy_marginal;  /* (n, length), or NULL: the same */
  const double *q, *v;            /* (n, length) Q̂_l of what was logged, and E_π of it over the arm at l; or both NULL: no cascade_dr */
  const double *alpha;            /* (length), or NULL: all 1 */
  const double *unsupported;      /* (n) mass that the policy puts on arms which the log never shows at such places, or NULL: none */
} ev_ope_slates;
typedef enum ev_ope_slate_kind {
  EV_OPE_SIPS, EV_OPE_IIPS, EV_OPE_RIPS, EV_OPE_SNSIPS, EV_OPE_SNIIPS, EV_OPE_SNRIPS, EV_OPE_CASCADE_DR, EV_OPE_SLATE_KINDS
} ev_ope_slate_kind;
const char *ev_ope_slate_name(ev_ope_slate_kind k);
typedef struct ev_ope_slate_result {
  ev_ope_estimate at[EV_OPE_SLATE_KINDS];
  ev_ope_weights whole, place, prefix; /* of ρ_1:L; of all m_l; of all ρ_1:l */
} ev_ope_slate_result;
/* o: clip, switch_at and shrink are not looked at; reward_low and reward_high are of one place; max_weight bounds each ρ_1:l and m_l. */
ev_status ev_ope_slate_measure(ev_ope_slate_result *out, const ev_ope_slates *s, const ev_ope_options *o);
/* Q̂ by fitting backwards from the last place (the regression of ev_ope_regress on α_l r_l + E_π Q̂_{l+1}, ridge, of arm, the arm
 * above and context), cross-fitted. policy (n, length, n_arms): π(· | x, those above as logged). @param[out] q, v (n, length) */
ev_status ev_ope_slate_regress(double *q, double *v, const ev_ope_slates *s, const double *policy, const ev_ope_features *x, const ev_ope_model *m);

/* ---- Bandit logs -----------------------------------------------------------------------------------------------
 * Logged feedback with its propensities, read from a JSON Lines file or from files of the Open Bandit Dataset (docs/reference/
 * ope.md), kept in one mapped file. A row is a decision, or a slate of up to `length` of them. All pointers are the log's own. */
typedef struct ev_bandit_probabilities { /* of every place's arms, those that are 0 left out; ptr NULL: not logged */
  const uint64_t *ptr; /* (n × length + 1) */
  const uint32_t *arm;
  const double *p;
} ev_bandit_probabilities;
typedef struct ev_bandit_names {
  size_t n;
  const uint64_t *ptr; /* (n + 1) into bytes */
  const char *bytes;
} ev_bandit_names;
typedef struct ev_bandit_log {
  size_t n, length;
  bool slates;
  size_t n_arms, n_positions, n_users;
  const uint32_t *arm;                   /* (n, length); EV_NONE from where a slate ends */
  const uint32_t *position;              /* (n), or NULL */
  const double *reward, *propensity;     /* (n, length); 0 where a slate has ended */
  const double *marginal;                /* (n, length), or NULL */
  ev_bandit_probabilities logged, evaluated; /* π₀, and a policy that came with the log */
  ev_ope_features features;
  ev_bandit_names arms, context;         /* of the arms; of the context's columns */
  const int64_t *time_ms;                /* (n), or NULL */
  const uint32_t *user;                  /* (n) < n_users, or NULL */
  double reward_low, reward_high;        /* what rewards can be, as declared; NaN: not */
  struct ev_pack *pack;                  /* where the arrays lie, or NULL */
  struct ev_bandit_builder *built;       /* likewise */
} ev_bandit_log;
typedef struct ev_bandit_options { /* zero: defaults */
  double reward_low, reward_high; /* rewards outside are refused; both 0: what the file says, else anything finite */
  void (*progress)(void *ctx, uint64_t done_bytes, uint64_t all_bytes);
  void *progress_ctx;
} ev_bandit_options;
/* The kind of a file is told by its first line. items: the Open Bandit Dataset's item_context.csv, or NULL.
 * EV_EINVAL: "FILE:LINE: …" with the value; EV_ELIMIT; EV_EINTR. */
ev_status ev_bandit_log_read(ev_bandit_log **out, const char *path, const char *items, const ev_bandit_options *o);
ev_status ev_bandit_log_write(const ev_bandit_log *log, const char *path);
ev_status ev_bandit_log_open(ev_bandit_log **out, const char *path); /* EV_ECORRUPT: everything is looked at */
ev_status ev_bandit_log_of(ev_bandit_log **out, const ev_bandit_log *columns); /* copies of n, length, n_arms, n_positions, arm … marginal, features, range; arms are named 0, 1, …; who makes them checks them */
void ev_bandit_log_close(ev_bandit_log *log);                        /* NULL does nothing */
void ev_bandit_log_hash(const ev_bandit_log *log, ev_hash *out);     /* content address; of one that was opened */
ev_ope_log ev_bandit_log_rows(const ev_bandit_log *log);             /* as estimators take it; not of slates */
uint32_t ev_bandit_log_arm(const ev_bandit_log *log, const char *name, size_t len); /* EV_NONE: no such */
/* One distribution for each position, as this log's rows have it: an arm's share by the harmonic mean of its propensities (1 / E[1/p]
 * over the rows that showed it is E p, whatever the contexts), or, `counted`, by how often it was shown. @param[out] out (n_positions, n_arms) */
ev_status ev_bandit_log_shares(double *out, const ev_bandit_log *log, bool counted);

/* ---- Learning state -----------------------------------------------------------------------------------------
 * What a policy has learnt, in a mapping that processes share: they may open one file at the same time, each in its own
 * threads, and update it at once. A slot (an arm's counts, a model's matrix) has two copies; an update writes the one that is
 * not looked at, under a robust lock, and then turns: a process killed in the middle leaves the slot as it was before. Readers
 * take no lock. Randomness follows from the seed and the number of the decision alone: same seed, same order of calls, same bits.
 *
 *   kind      a slot holds                                      serves
 *   counts    n, Σ r, Σ r² of an arm (of n)                      ε-greedy, UCB1, KL-UCB, Thompson (Beta, Gaussian), cascades, slates
 *   linear    θ, b, A⁻¹ of a model (of n; 1: shared by all arms) LinUCB, linear Thompson, SquareCB
 *   logistic  mode, covariance of a model (Laplace)              logistic Thompson, SquareCB
 *   weights   log-weights of n arms or experts, one slot         EXP3, EXP4
 *   policy    θ of a softmax policy and its baseline, one slot   REINFORCE, learning from logged data
 *   cma       a search distribution over n_dims numbers          CMA-ES
 *
 * Formulas: A = λI + Σ x xᵀ, A⁻¹ by Sherman and Morrison (1950), θ = A⁻¹ b, b = Σ r x (Li et al. 2010). Logistic: the posterior
 * N(θ, S) after (x, y) has its mode at θ + α S x with α = y − σ(xᵀθ + α xᵀSx), and S⁻¹ += σ(1 − σ) x xᵀ there (Laplace; diagonal S:
 * Chapelle and Li 2011). EXP3.S and EXP4: Auer et al. 2002. With forgetting, all that was known of a slot counts `decay` times as
 * much at each update: of counts at each update of any arm (Garivier and Moulines 2011), of linear and logistic of that model. λ
 * fades likewise and is restored when it has reached λ/2, so that directions nobody looks in do not grow without bound. */
typedef enum ev_arms_kind { EV_ARMS_COUNTS, EV_ARMS_LINEAR, EV_ARMS_LOGISTIC, EV_ARMS_WEIGHTS, EV_ARMS_POLICY, EV_ARMS_CMA, EV_ARMS_KINDS } ev_arms_kind;
typedef struct ev_arms_options {
  /* Layout: a file keeps it, and is refused when it differs. */
  ev_arms_kind kind;
  uint32_t n;          /* arms, models or experts, 1 … 2^26; policy and cma: 1 */
  uint32_t n_dims;     /* linear, logistic, policy, cma: 1 … 1024; weights: n for EXP4 (advice is remembered), 0 for EXP3; counts 0 */
  bool diagonal;       /* linear, logistic: of A⁻¹ and S only the diagonal is kept after each step */
  uint32_t window;     /* impressions remembered until their rewards are in; default 1024; 0: none */
  /* What this handle does; a new version of a policy may differ. */
  double decay;        /* (0, 1], default 1 */
  double ridge;        /* λ > 0: precision of the prior N(0, I/λ); default 1. Of a slot nobody has updated, the file's first */
  double rate;         /* weights: EXP3's γ in (0, 1], default 0.1; policy: step size, default 0.05; cma: first σ, default 0.3 */
  double share;        /* weights: EXP3.S's α >= 0, default 0 */
  double examination;  /* η >= 0: place k of a slate is looked at with probability k^−η (Lagrée et al. 2016; Chuklin et al. 2015); default 0: always */
  bool cascade;        /* what stands below the first reward of a slate was not looked at (Kveton et al. 2015) */
  uint64_t seed;       /* default 1 */
} ev_arms_options;
typedef struct ev_arms ev_arms;

void ev_arms_defaults(ev_arms_options *o, ev_arms_kind kind);
const char *ev_arms_kind_name(ev_arms_kind kind);
bool ev_arms_kind_find(ev_arms_kind *out, const char *name);
/* path NULL: memory shared with forked children. A file that is not there is made; one from before a restart of the machine, or
 * damaged, is taken back from `path`.snapshot where that is whole. EV_EINVAL: another layout or bad options; EV_ECORRUPT. */
ev_status ev_arms_open(ev_arms **out, const char *path, const ev_arms_options *o);
void ev_arms_close(ev_arms *a);
const ev_arms_options *ev_arms_options_of(const ev_arms *a);
/* Every slot as it stands at one moment, as a checksummed pack; and from there, whatever the state was. */
ev_status ev_arms_snapshot(ev_arms *a, const char *path);
ev_status ev_arms_restore(ev_arms *a, const char *path);
bool ev_arms_snapshot_due(ev_arms *a, double seconds); /* true to one process in so many seconds */
size_t ev_arms_slot_size(const ev_arms *a);            /* doubles */
/* (slot_size) of slot i: counts: n, Σ r, Σ r², tick; linear, logistic: updates, steps since λ was restored, 0, 0, θ (d), b (d), A⁻¹ (d, d) or (d);
 * weights: updates, log-weights; policy: updates, baseline, 0, 0, θ; cma: generation, σ, … (arms_cma.c). Counts are those of now. */
ev_status ev_arms_read(ev_arms *a, uint32_t i, double *out);
/* Slot i becomes these numbers, whatever it was: how a state is carried over to another shape. Of counts the tick is now. EV_EINVAL: no such
 * slot, or numbers that no slot can have. */
ev_status ev_arms_write(ev_arms *a, uint32_t i, const double *slot);
size_t ev_arms_slots(const ev_arms *a);                /* n; of weights 1 */
typedef struct ev_arms_stats {
  uint64_t updates, decisions, shown, rewarded, late; /* late: rewards of what is no longer remembered */
  uint64_t repaired;                                  /* locks taken over from the dead */
} ev_arms_stats;
void ev_arms_stats_of(ev_arms *a, ev_arms_stats *out);

/* One observation. counts: x NULL. linear, logistic: x (n_dims), reward of logistic in [0, 1]. weights: reward in [0, 1] of arm i
 * drawn with this propensity; EXP4: x (n) each expert's probability of what was drawn, over the number of candidates; i ignored. policy: x (n_dims) = ∇ log π of
 * what was drawn. seen, in (0, 1], is the probability that it was looked at: counts n += seen, Σ r += r, whose quotient is the
 * reward of what is looked at (Lagrée et al. 2016); linear: of seen · x; logistic: a reward of 0 counts seen; the others: r / seen.
 * EV_EINVAL: out of range or not finite. */
ev_status ev_arms_update(ev_arms *a, uint32_t i, const float *x, double reward, double propensity, double seen);
/* n of them in order, of linear and logistic kinds: models (n) or NULL (all 0), x (n, n_dims), rewards (n). */
ev_status ev_arms_update_many(ev_arms *a, const uint32_t *models, const float *x, const float *rewards, size_t n);

/* Rewards that come later. A slate that was shown is remembered, `width` floats a place (n_dims); what it earned until then is
 * learnt when it leaves the window (a place without a reward earned 0), all its places together. */
ev_status ev_arms_show(ev_arms *a, const uint64_t *keys, const uint32_t *arms, const float *x, const float *propensities, size_t n);
ev_status ev_arms_reward(ev_arms *a, uint64_t key, double reward, bool *known); /* added to the newest that has the key */
ev_status ev_arms_settle(ev_arms *a); /* learns all that is remembered, now */

/* Decisions. Place after place, one of what remains is chosen; a propensity is that of the choice given what stands above, so
 * that a slate's is their product. With m left, every rule draws uniformly with probability epsilon. */
typedef enum ev_rule {
  EV_RULE_GREEDY,   /* the largest mean; with epsilon: ε-greedy */
  EV_RULE_UCB,      /* counts: mean + √(α ln t / n), α = 2: UCB1 (Auer et al. 2002); linear: xᵀθ + α √(xᵀA⁻¹x) (LinUCB) */
  EV_RULE_KL_UCB,   /* counts: the largest q with n kl(mean, q) <= ln t (Garivier and Cappé 2011) */
  EV_RULE_THOMPSON, /* the largest of a fresh draw from the posterior: Beta or Gaussian (Agrawal and Goyal 2013), N(θ, α² A⁻¹), N(θ, α² S) */
  EV_RULE_SQUARECB, /* 1 / (m + γ gap) for all but the best (Foster and Rakhlin 2020); γ = alpha · √decisions */
  EV_RULE_WEIGHTS,  /* EXP3, EXP4: (1 − γ) w / Σ w + γ / m */
  EV_RULE_SOFTMAX,  /* policy: e^(xᵀθ) / Σ */
  EV_RULES
} ev_rule;
typedef struct ev_choice_options {
  ev_rule rule;
  size_t k;             /* places to fill, at most n */
  double epsilon;       /* [0, 1], default 0 */
  double alpha;         /* default 1; UCB 2 */
  bool gaussian;        /* counts, Thompson: N(mean, noise² / n) with prior_b observations of prior_a; else Beta(prior_a + Σ r, prior_b + n − Σ r) */
  double prior_a, prior_b; /* defaults 1, 1; gaussian 0, 1 */
  double noise;         /* standard deviation of a reward; default 1 */
  unsigned exact;       /* Thompson on counts: with at most so many candidates left, propensities by integration; default 8 */
  unsigned draws;       /* else by so many draws of the posterior: (hits + 1) / (draws + 1); default 128; 0: not told, NaN */
} ev_choice_options;
void ev_choice_defaults(ev_choice_options *o, ev_rule rule);
bool ev_rule_find(ev_rule *out, const char *name); /* "greedy", "ucb", "kl_ucb", "thompson", "squarecb", "weights", "softmax" */
/* @param arms (n) counts, EXP3: the arm; linear, logistic: the model; NULL: all 0  @param x (n, n_dims): features, or of EXP4 each
 * expert's probability of the candidate  @param[out] order (k) candidates  @param[out] propensity (k)  @param[out] error (k) standard
 * error of a propensity, 0 where it is exact; may be NULL  @param[out] keep (k, n_dims) what ev_arms_show takes of each; may be NULL */
ev_status ev_arms_choose(ev_arms *a, uint32_t *order, float *propensity, float *error, float *keep, const uint32_t *arms, const float *x, size_t n, const ev_choice_options *o);
/* What the rule knows of each candidate: mean (n), and the deviation of its posterior or NULL. */
ev_status ev_arms_beliefs(ev_arms *a, double *mean, double *deviation, const uint32_t *arms, const float *x, size_t n, const ev_choice_options *o);

/* P(X_j is the largest) of independent X_i, each Beta(a, b) or, gaussian, Normal(mean a, deviation b), by Gauss-Legendre
 * quadrature of ∫ f_j Π F_i; absolute error below 1e-6 in our tests. p (n), or with only < n p[0] of that one; else only SIZE_MAX. EV_EINVAL, EV_ENOMEM. */
ev_status ev_best_probability(double *p, const double *a, const double *b, bool gaussian, size_t n, size_t only);

/* A softmax policy learnt from logged decisions (n): candidates ptr[i] … ptr[i+1] with features x (·, d), the one chosen (its
 * number within them), its reward and propensity; q (·): a model's rewards of all candidates, for DR; NULL: IPS.
 *   J(θ) = mean of [Σ_a π(a) q(a)] + min(π(chosen) / propensity, clip) (reward − q(chosen)) − ½ l2 |θ|²     (Dudík et al. 2011; Swaminathan and Joachims 2015) */
typedef struct ev_logged { /* borrowed */
  size_t n, d;
  const uint64_t *ptr;
  const float *x, *reward, *propensity, *q;
  const uint32_t *chosen;
} ev_logged;
/* J, and its gradient (d) unless NULL. Threaded, same bits for any thread count. EV_EINVAL: a propensity outside (0, 1], a place out of range. */
ev_status ev_policy_value(double *value, double *gradient, const double *theta, const ev_logged *log, double clip, double l2);
/* Ascent on J from the state's θ by Adam over all rows, `steps` of them, and back into the state. EV_EINTR leaves it as it was. */
ev_status ev_policy_learn(ev_arms *a, const ev_logged *log, double clip, double l2, unsigned steps, double rate, double *value);

/* CMA-ES (Hansen 2016, with its defaults and negative weights): minimises over n_dims numbers. Point k of a generation follows from
 * the seed, the generation and k; a generation may be asked for by one process and told by another. */
size_t ev_cma_population(const ev_arms *a);                     /* λ = 4 + ⌊3 ln n⌋ */
ev_status ev_cma_set(ev_arms *a, const double *mean, double sigma); /* where to begin; the generation becomes 0 */
ev_status ev_cma_ask(ev_arms *a, double *points, uint64_t *generation);  /* (λ, n_dims) */
ev_status ev_cma_tell(ev_arms *a, const double *points, const double *values, uint64_t generation); /* (λ, n_dims), (λ), NaN counts as worst; EV_EEXIST: that generation was told already */
ev_status ev_cma_state(ev_arms *a, double *mean, double *sigma, uint64_t *generation);

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
double *ev_parameter_of(void *options, const ev_parameter *p); /* where it stands in this struct */
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
