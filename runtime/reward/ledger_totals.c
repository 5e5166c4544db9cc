/* ledger_totals.c - totals by version, item, agent, type and hour, without a scan and without a write a row.
 *
 * All rows that came since the last time are added to the totals at once, from the tally of ledger_tally.c or by GROUP BY;
 * `folded`, written in the same transaction, says how far that is, so a crash leaves both or neither. An event that finds its impression after that is
 * moved from one total to the other at once. Numbers only grow while rows are not folded (ledger_prune.c sees to it when it
 * deletes the last ones), so each row is counted once. */
#include <string.h>

#include "ledger.h"

static const char fold[] =
    "INSERT INTO impression_hours SELECT time_ms / 3600000, version, count(*) FROM impressions WHERE number > (SELECT impressions FROM folded) GROUP BY 1, 2"
    "  ON CONFLICT (hour, version) DO UPDATE SET impressions = impressions + excluded.impressions;"
    "INSERT INTO impression_items SELECT i.version, s.item, s.agent, count(*) FROM impressions i CROSS JOIN shown s ON s.impression = i.number"
    "  WHERE i.number > (SELECT impressions FROM folded) GROUP BY 1, 2, 3"
    "  ON CONFLICT (version, item, agent) DO UPDATE SET impressions = impressions + excluded.impressions;"
    "INSERT INTO event_hours SELECT time_ms / 3600000, version, type, count(*), sum(value), sum(value * value) FROM events"
    "  WHERE number > (SELECT events FROM folded) GROUP BY 1, 2, 3 ON CONFLICT (hour, version, type) DO UPDATE SET events = events + excluded.events,"
    "  value_sum = value_sum + excluded.value_sum, value_squares = value_squares + excluded.value_squares;"
    "INSERT INTO event_items SELECT version, item, agent, type, count(*), sum(value), sum(value * value) FROM events"
    "  WHERE number > (SELECT events FROM folded) GROUP BY 1, 2, 3, 4 ON CONFLICT (version, item, agent, type) DO UPDATE SET events = events + excluded.events,"
    "  value_sum = value_sum + excluded.value_sum, value_squares = value_squares + excluded.value_squares;";

static const char folded[] =
    "UPDATE folded SET impressions = max(impressions, (SELECT coalesce(max(number), 0) FROM impressions)),"
    "  events = max(events, (SELECT coalesce(max(number), 0) FROM events));";

ev_status ledger_fold(ev_ledger *l) {
  if (ledger_tally_valid(l)) EV_TRY(ledger_tally_write(l));
  else EV_TRY(ev_ledger_exec(l, fold));
  EV_TRY(ev_ledger_exec(l, folded));
  EV_TRY(ledger_number(l, "SELECT impressions FROM folded", &l->folded_impressions));
  EV_TRY(ledger_number(l, "SELECT events FROM folded", &l->folded_events));
  l->tail_rows = 0;
  ledger_tally_reset(l, true);
  return EV_OK;
}

typedef struct bound { /* one parameter */
  const char *text; /* NULL: the number */
  double real;      /* where type is 'r' */
  int64_t number;
  char type;        /* t, i, r */
} bound;

static ev_status run_with(ev_ledger *l, const char *sql, const bound *b, int n) {
  sqlite3_stmt *s = NULL;
  EV_TRY(ledger_prepare(l, sql, &s));
  for (int i = 0; i < n; i++) {
    if (b[i].type == 't') sqlite3_bind_text(s, i + 1, b[i].text, -1, SQLITE_STATIC);
    else if (b[i].type == 'r') sqlite3_bind_double(s, i + 1, b[i].real);
    else sqlite3_bind_int64(s, i + 1, b[i].number);
  }
  ev_status status = ledger_run(l, s);
  sqlite3_finalize(s);
  return status;
}

/* Rare, so its statements are not kept. In the tables, a total that nothing is left of goes, and with it the rounding of its sums. */
ev_status ledger_move(ev_ledger *l, const ledger_moved *m) {
  const bound value = {.type = 'r', .real = m->value}, square = {.type = 'r', .real = m->value * m->value}, hour = {.type = 'i', .number = m->hour},
              before = {.type = 'i', .number = m->version_before}, version = {.type = 'i', .number = m->version}, agent = {.type = 'i', .number = m->agent},
              item = {.type = 't', .text = m->item}, type = {.type = 't', .text = m->type};
  if (m->number > l->folded_events) { /* only the tally knows of it */
    ledger_tally_event(l, m, m->version_before, 0, -1);
    ledger_tally_event(l, m, m->version, m->agent, 1);
    return EV_OK;
  }
  if (m->version != m->version_before) {
    EV_TRY(run_with(l, "UPDATE event_hours SET events = events - 1, value_sum = value_sum - ?, value_squares = value_squares - ? WHERE hour = ? AND version = ? AND type = ?",
                    (const bound[]){value, square, hour, before, type}, 5));
    EV_TRY(run_with(l, "DELETE FROM event_hours WHERE hour = ? AND version = ? AND type = ? AND events = 0", (const bound[]){hour, before, type}, 3));
    EV_TRY(run_with(l, "INSERT INTO event_hours VALUES (?, ?, ?, 1, ?, ?) ON CONFLICT (hour, version, type) DO UPDATE SET events = events + 1,"
                       " value_sum = value_sum + excluded.value_sum, value_squares = value_squares + excluded.value_squares",
                    (const bound[]){hour, version, type, value, square}, 5));
  }
  if (m->version == m->version_before && m->agent == 0) return EV_OK; /* an event that waits has no agent */
  EV_TRY(run_with(l, "UPDATE event_items SET events = events - 1, value_sum = value_sum - ?, value_squares = value_squares - ? WHERE version = ? AND item = ? AND agent = 0 AND type = ?",
                  (const bound[]){value, square, before, item, type}, 5));
  EV_TRY(run_with(l, "DELETE FROM event_items WHERE version = ? AND item = ? AND agent = 0 AND type = ? AND events = 0", (const bound[]){before, item, type}, 3));
  return run_with(l, "INSERT INTO event_items VALUES (?, ?, ?, ?, 1, ?, ?) ON CONFLICT (version, item, agent, type) DO UPDATE SET events = events + 1,"
                     " value_sum = value_sum + excluded.value_sum, value_squares = value_squares + excluded.value_squares",
                  (const bound[]){version, item, agent, type, value, square}, 6);
}
