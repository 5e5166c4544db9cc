/* ledger.h - what the files of the ledger share; private to this room.
 *
 *   ledger_schema.c  the tables and views, and how older files become the newest
 *   ledger.c         opening, errors, transactions, and what is remembered between them
 *   ledger_check.c   what may be written: texts, propensities, ranges
 *   ledger_put.c     impressions and events into the tables: once each, joined, counted
 *   ledger_recent.c  the impressions that came last, in memory
 *   ledger_totals.c  the totals, and the rows that are not in them yet
 *   ledger_tally.c   those rows added up in memory
 *   ledger_writer.c  one thread that writes for many: queue and group commit
 *   ledger_prune.c   retention
 *   ledger_export.c  tables and views as JSON Lines or CSV
 *   ledger_lines.c   JSON Lines → a batch */
#ifndef EV_REWARD_LEDGER_H
#define EV_REWARD_LEDGER_H

#include "reward.h"

#define HOUR_MS 3600000
#define TEXT_MAX_BYTES 1024
#define SHOWN_MANY 10 /* rows of SQL_SHOWN_MANY: a statement for each row costs as much again as the rows */

enum ledger_statement {
  SQL_BEGIN, SQL_COMMIT, SQL_ROLLBACK, SQL_DATA_VERSION,
  SQL_IMPRESSION, SQL_IMPRESSION_FIND, SQL_IMPRESSION_SAME, SQL_SHOWN, SQL_SHOWN_MANY,
  SQL_EVENT, SQL_EVENT_SAME, SQL_WAITING, SQL_JOIN,
  SQL_VERSION_FIND, SQL_VERSION_ADD, SQL_AGENT_FIND, SQL_AGENT_ADD,
  SQL_COUNT, N_SQL
};

/* Names as in the table `counters`; each adds up, but for clock_back_ms, which is the largest. */
enum ledger_count {
  COUNT_DUPLICATE_EVENTS, COUNT_DUPLICATE_IMPRESSIONS, COUNT_CONFLICTS, COUNT_JOINED_LATE, COUNT_BEFORE_IMPRESSION, COUNT_NOT_IN_SLATE,
  COUNT_EXPIRED, COUNT_CLOCK_STEPS, COUNT_CLOCK_BACK_MS, COUNT_PRUNED_EVENTS, COUNT_PRUNED_IMPRESSIONS, N_COUNTS
};
extern const char *const ledger_count_names[N_COUNTS];

typedef struct ledger_name { /* a version or an agent that has a number */
  char *name; /* owned */
  int64_t number;
} ledger_name;
typedef struct ledger_names {
  ledger_name at[64]; /* those seen lately */
  size_t n, last;     /* last: the one found last */
} ledger_names;

typedef struct ledger_range {
  char *type; /* owned; "*": every type without a range of its own */
  double low, high;
} ledger_range;

typedef struct ledger_recent ledger_recent;
typedef struct ledger_tally ledger_tally;

struct ev_ledger {
  sqlite3 *db;
  char *path;
  sqlite3_stmt *sql[N_SQL];
  bool read_only;
  /* What is remembered of the file; read again when another connection has written. */
  int64_t data_version;                         /* SQLite's; −1: nothing is remembered */
  int64_t folded_impressions, folded_events;    /* rows up to these numbers are in the totals */
  int64_t tail_rows;                            /* rows that are not, about */
  int64_t pruned_before_ms, last_received_ms;
  ledger_range *ranges;
  size_t n_ranges;
  ledger_names versions, agents;
  ledger_recent **recent;                       /* a table by hash; NULL: nothing was kept yet */
  size_t n_recent;                              /* 0: it is empty */
  ledger_tally *tally;                          /* NULL: none, for want of memory */
  int64_t counts[N_COUNTS];                     /* of the transaction at hand */
};

/* ---- ledger_schema.c -----------------------------------------------------------------------------------*/
ev_status ledger_make_schema(ev_ledger *l); /* makes or migrates, in one transaction */

/* ---- ledger.c ------------------------------------------------------------------------------------------*/
ev_status ledger_fail(const ev_ledger *l);                        /* SQLite's last error as ours: with the file's name and the system's reason */
ev_status ledger_prepare(ev_ledger *l, const char *sql, sqlite3_stmt **out);
ev_status ledger_step(ev_ledger *l, sqlite3_stmt *s, bool *row);  /* row: there is one; else the statement is reset */
ev_status ledger_run(ev_ledger *l, sqlite3_stmt *s);              /* a statement without rows, then reset */
ev_status ledger_number(ev_ledger *l, const char *sql, int64_t *out); /* the first column of the first row; NULL or no row: 0 */
ev_status ledger_begin(ev_ledger *l);                             /* takes the lock, then looks whether others have written */
ev_status ledger_commit(ev_ledger *l);                            /* writes the counts; rolls back where it fails */
void ledger_rollback(ev_ledger *l);                               /* keeps the thread's last error */
int64_t ledger_now_ms(ev_ledger *l);                              /* the wall clock, never earlier than what the file has; steps back are counted */

/* ---- ledger_check.c ------------------------------------------------------------------------------------*/
ev_status ledger_check_batch(const ev_ledger_batch *b);                        /* all but ranges; "event 3: …" */
ev_status ledger_check_ranges(const ev_ledger *l, const ev_ledger_batch *b);

/* ---- ledger_put.c --------------------------------------------------------------------------------------
 * Inside a transaction. EV_EINVAL: nothing was written; anything else that is no EV_OK: the transaction must be rolled back. */
ev_status ledger_apply(ev_ledger *l, const ev_ledger_batch *b, ev_ledger_receipt *out);

/* ---- ledger_recent.c -----------------------------------------------------------------------------------*/
typedef struct ledger_found { /* what an event's impression says of it */
  int64_t impression, version, agent, position; /* impression 0: not there; position 0: the item was not in it */
  bool early;                                   /* the event says that it happened before */
} ledger_found;
ev_status ledger_recent_keep(ev_ledger *l, const ev_impression *i, int64_t number, int64_t version, const int64_t *agents); /* agents (n_items) */
bool ledger_recent_find(const ev_ledger *l, const ev_event *e, ledger_found *out); /* false: ask SQLite */
void ledger_recent_clear(ev_ledger *l);
void ledger_recent_free(ev_ledger *l);

/* ---- ledger_totals.c -----------------------------------------------------------------------------------
 * Inside a transaction. */
typedef struct ledger_moved { /* an event that has found its impression */
  int64_t number, hour, version_before, version, agent;
  const char *item, *type;
  double value;
} ledger_moved;
ev_status ledger_move(ev_ledger *l, const ledger_moved *m); /* in the totals, or in the tally where it is not there yet */
ev_status ledger_fold(ev_ledger *l);                        /* every row that is not in the totals goes in */
#define LEDGER_FOLD_IDLE 4096      /* rows outside the totals that make an idle writer fold */
#define LEDGER_FOLD_AT_ONCE 262144 /* … and any */

/* ---- ledger_tally.c ------------------------------------------------------------------------------------
 * Nothing here fails: where memory is short the tally becomes worthless, and the totals come from the rows. */
void ledger_tally_reset(ev_ledger *l, bool valid); /* valid: every row is in the totals now */
void ledger_tally_free(ev_ledger *l);
bool ledger_tally_valid(const ev_ledger *l);
void ledger_tally_impression(ev_ledger *l, const ev_impression *i, int64_t version);
void ledger_tally_shown(ev_ledger *l, const char *item, int64_t version, int64_t agent);
void ledger_tally_event(ev_ledger *l, const ledger_moved *m, int64_t version, int64_t agent, int sign); /* sign −1: it is no longer that version's and agent's */
ev_status ledger_tally_write(ev_ledger *l);        /* into the totals */

#endif
