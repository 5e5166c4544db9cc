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

#endif
