/* ledger_prune.c - retention: impressions and events from before a time go, and what they add up to stays.
 *
 * An impression and its events go together, so that a reward never lacks half of its events: the impression stays while one
 * of its events is late enough to stay, and its other events with it. Everything is in the totals before it goes. Ids that
 * went are not remembered: rows from before the time are refused from then on (`settings`), since they may be known. */
#include <stdio.h>
#include <string.h>

#include "ledger.h"

#define CHUNK "4000" /* rows a commit: others wait for some milliseconds, not for all of it */

#define OLD_IMPRESSIONS "FROM impressions i WHERE i.time_ms < ?1 AND NOT EXISTS (SELECT 1 FROM events e WHERE e.impression = i.number AND e.time_ms >= ?1)"
#define OLD_EVENTS "FROM events WHERE time_ms < ?1 AND impression IS NULL" /* of no impression; the others go with theirs */

static ev_status number_before(ev_ledger *l, const char *sql, int64_t before_ms, int64_t *out) {
  sqlite3_stmt *s = NULL;
  bool row;
  *out = 0;
  EV_TRY(ledger_prepare(l, sql, &s));
  sqlite3_bind_int64(s, 1, before_ms);
  ev_status status = ledger_step(l, s, &row);
  if (status == EV_OK && row) *out = sqlite3_column_int64(s, 0);
  sqlite3_finalize(s);
  return status;
}

/* Runs a DELETE or INSERT with the time as its parameter. */
static ev_status change_before(ev_ledger *l, const char *sql, int64_t before_ms, int64_t *n) {
  sqlite3_stmt *s = NULL;
  EV_TRY(ledger_prepare(l, sql, &s));
  if (sqlite3_bind_parameter_count(s) > 0) sqlite3_bind_int64(s, 1, before_ms);
  ev_status status = ledger_run(l, s);
  *n = status == EV_OK ? sqlite3_changes64(l->db) : 0;
  sqlite3_finalize(s);
  return status;
}

static ev_status check_trials(ev_ledger *l, int64_t before_ms) {
  sqlite3_stmt *s = NULL;
  bool row;
  EV_TRY(ledger_prepare(l, "SELECT version, \"from\" FROM promotion_log WHERE number = (SELECT number FROM promotions WHERE action = 'canary' AND until_ms IS NULL"
                           " AND coalesce(from_ms, at_ms_wall) < ? ORDER BY from_ms LIMIT 1)", &s));
  sqlite3_bind_int64(s, 1, before_ms);
  ev_status status = ledger_step(l, s, &row);
  if (status == EV_OK && row)
    status = ev_fail(EV_EINVAL, "version %.12s is on trial since %.19s, and what happened since then decides about it: end the trial, or keep more days",
                     (const char *)sqlite3_column_text(s, 0), (const char *)sqlite3_column_text(s, 1));
  sqlite3_finalize(s);
  return status;
}

/* Totals first; numbers that are free again afterwards must count as not folded. */
static ev_status chunk(ev_ledger *l, int64_t before_ms, int64_t *impressions, int64_t *events, int64_t *others) {
  int64_t n;
  if (l->tail_rows > 0) EV_TRY(ledger_fold(l));
  EV_TRY(ev_ledger_exec(l, "CREATE TEMP TABLE IF NOT EXISTS going (number INTEGER PRIMARY KEY); DELETE FROM going"));
  EV_TRY(change_before(l, "INSERT INTO going SELECT i.number " OLD_IMPRESSIONS " LIMIT " CHUNK, before_ms, &n));
  *events = *others = 0;
  if (n > 0) EV_TRY(change_before(l, "DELETE FROM events WHERE impression IN (SELECT number FROM going)", 0, events));
  if (n > 0) EV_TRY(change_before(l, "DELETE FROM shown WHERE impression IN (SELECT number FROM going)", 0, &n));
  EV_TRY(change_before(l, "DELETE FROM impressions WHERE number IN (SELECT number FROM going)", 0, impressions));
  if (*impressions == 0) EV_TRY(change_before(l, "DELETE FROM events WHERE number IN (SELECT number " OLD_EVENTS " LIMIT " CHUNK ")", before_ms, others));
  EV_TRY(change_before(l, "INSERT INTO settings VALUES ('pruned_before_ms', ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)", before_ms, &n));
  l->counts[COUNT_PRUNED_IMPRESSIONS] += *impressions;
  l->counts[COUNT_PRUNED_EVENTS] += *events + *others;
  return ev_ledger_exec(l, "UPDATE folded SET impressions = (SELECT coalesce(max(number), 0) FROM impressions), events = (SELECT coalesce(max(number), 0) FROM events)");
}

ev_status ev_ledger_prune(ev_ledger *l, int64_t before_ms, bool dry, ev_pruned *out) {
  int64_t impressions, events, others, old;
  *out = (ev_pruned){0};
  EV_TRY(check_trials(l, before_ms));
  EV_TRY(number_before(l, "SELECT count(*) FROM impressions WHERE time_ms < ?1", before_ms, &old));
  EV_TRY(number_before(l, "SELECT count(*) " OLD_IMPRESSIONS, before_ms, &impressions));
  out->kept = (size_t)(old - impressions);
  if (dry) {
    EV_TRY(number_before(l, "SELECT count(*) FROM events WHERE impression IN (SELECT i.number " OLD_IMPRESSIONS ")", before_ms, &events));
    EV_TRY(number_before(l, "SELECT count(*) " OLD_EVENTS, before_ms, &others));
    out->impressions = (size_t)impressions;
    out->events = (size_t)(events + others);
    return EV_OK;
  }
  do {
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    EV_TRY(ledger_begin(l));
    ev_status status = check_trials(l, before_ms);
    if (status == EV_OK) status = chunk(l, before_ms, &impressions, &events, &others);
    l->data_version = -1; /* the settings, and how far the totals are, were changed under what is remembered */
    if (status != EV_OK) {
      ledger_rollback(l);
      return status;
    }
    EV_TRY(ledger_commit(l));
    out->impressions += (size_t)impressions;
    out->events += (size_t)(events + others);
  } while (impressions + others > 0);
  return EV_OK;
}
