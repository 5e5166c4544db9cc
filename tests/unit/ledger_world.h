/* ledger_world.h - what the tests of the ledger share: opening, asking, rows to write. */
#ifndef TESTS_LEDGER_WORLD_H
#define TESTS_LEDGER_WORLD_H

#include <math.h>

#include "support.h"

#include "reward/reward.h"

__attribute__((unused)) static int64_t number(ev_ledger *l, const char *sql) {
  sqlite3_stmt *s = NULL;
  if (sqlite3_prepare_v2(ev_ledger_db(l), sql, -1, &s, NULL) != SQLITE_OK) fail_msg("%s: %s", sql, sqlite3_errmsg(ev_ledger_db(l)));
  assert_int_equal(sqlite3_step(s), SQLITE_ROW);
  int64_t x = sqlite3_column_int64(s, 0);
  sqlite3_finalize(s);
  return x;
}

__attribute__((unused)) static int64_t counter(ev_ledger *l, const char *name) {
  char sql[128];
  snprintf(sql, sizeof sql, "SELECT total(count) FROM counters WHERE name = '%s'", name);
  return number(l, sql);
}

__attribute__((unused)) static void sound(ev_ledger *l) {
  sqlite3_stmt *s = NULL;
  assert_int_equal(sqlite3_prepare_v2(ev_ledger_db(l), "PRAGMA integrity_check", -1, &s, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(s), SQLITE_ROW);
  assert_string_equal((const char *)sqlite3_column_text(s, 0), "ok");
  sqlite3_finalize(s);
}

__attribute__((unused)) static ev_ledger *ledger(const char *name) {
  ev_ledger *l;
  if (ev_ledger_open(&l, in_folder(name)) != EV_OK) fail_msg("%s", ev_error());
  return l;
}

__attribute__((unused)) static ev_event event(const char *id, const char *item, double value) {
  return (ev_event){.id = id, .user = "u", .item = item, .type = "click", .value = value, .time_ms = 1700000000123};
}

__attribute__((unused)) static ev_event about(const char *id, const char *item, const char *impression) {
  return (ev_event){.id = id, .user = "u", .item = item, .type = "click", .value = 1, .time_ms = 1700000000123, .impression = impression};
}

static const ev_shown two_items[] = {{"a", 0.5, "ease", 0}, {"b", 0.25, NULL, 0}};

__attribute__((unused)) static ev_impression slate(const char *id) {
  return (ev_impression){.id = id, .user = "u", .version = "v1", .propensity = 0.125, .time_ms = 1700000000000, .items = two_items, .n_items = 2};
}

__attribute__((unused)) static ev_ledger_receipt put(ev_ledger *l, const ev_impression *i, size_t n_i, const ev_event *e, size_t n_e) {
  ev_ledger_receipt r;
  ev_ledger_batch b = {i, n_i, e, n_e};
  if (ev_ledger_put(l, &b, &r) != EV_OK) fail_msg("%s", ev_error());
  return r;
}

/* Totals against a scan of all rows by SQL that shares nothing with the views: the number of totals that are wrong. Sums are held
 * against each other to a part in 10⁹. Only of a ledger of which nothing was pruned. */
__attribute__((unused)) static int64_t wrong_totals(ev_ledger *l) {
  static const char *const sql[] = {
      "WITH t AS (SELECT v.number AS version, hour_number AS hour, type, events, value_sum, value_squares FROM events_by_hour h LEFT JOIN versions v ON v.version = h.version),"
      " s AS (SELECT version, time_ms / 3600000 AS hour, type, count(*) AS events, total(value) AS value_sum, total(value * value) AS value_squares FROM events GROUP BY 1, 2, 3)"
      " SELECT (SELECT count(*) FROM t LEFT JOIN s ON s.version = coalesce(t.version, 0) AND s.hour = t.hour AND s.type = t.type"
      "  WHERE s.events IS NOT t.events OR abs(s.value_sum - t.value_sum) > 1e-9 * (1 + abs(s.value_sum)) OR abs(s.value_squares - t.value_squares) > 1e-9 * (1 + s.value_squares))"
      " + abs((SELECT count(*) FROM s) - (SELECT count(*) FROM t))",
      "WITH t AS (SELECT v.number AS version, a.number AS agent, item, type, events, value_sum, value_squares FROM events_by_item h LEFT JOIN versions v ON v.version = h.version"
      "  LEFT JOIN agents a ON a.agent = h.agent),"
      " s AS (SELECT version, agent, item, type, count(*) AS events, total(value) AS value_sum, total(value * value) AS value_squares FROM events GROUP BY 1, 2, 3, 4)"
      " SELECT (SELECT count(*) FROM t LEFT JOIN s ON s.version = coalesce(t.version, 0) AND s.agent = coalesce(t.agent, 0) AND s.item = t.item AND s.type = t.type"
      "  WHERE s.events IS NOT t.events OR abs(s.value_sum - t.value_sum) > 1e-9 * (1 + abs(s.value_sum)) OR abs(s.value_squares - t.value_squares) > 1e-9 * (1 + s.value_squares))"
      " + abs((SELECT count(*) FROM s) - (SELECT count(*) FROM t))",
      "WITH t AS (SELECT v.number AS version, hour_number AS hour, impressions FROM impressions_by_hour h LEFT JOIN versions v ON v.version = h.version),"
      " s AS (SELECT version, time_ms / 3600000 AS hour, count(*) AS impressions FROM impressions GROUP BY 1, 2)"
      " SELECT (SELECT count(*) FROM t LEFT JOIN s USING (version, hour) WHERE s.impressions IS NOT t.impressions) + abs((SELECT count(*) FROM s) - (SELECT count(*) FROM t))",
      "WITH t AS (SELECT v.number AS version, a.number AS agent, item, impressions FROM impressions_by_item h LEFT JOIN versions v ON v.version = h.version"
      "  LEFT JOIN agents a ON a.agent = h.agent),"
      " s AS (SELECT i.version, s.agent, s.item, count(*) AS impressions FROM shown s JOIN impressions i ON i.number = s.impression GROUP BY 1, 2, 3)"
      " SELECT (SELECT count(*) FROM t LEFT JOIN s ON s.version = t.version AND s.agent = coalesce(t.agent, 0) AND s.item = t.item WHERE s.impressions IS NOT t.impressions)"
      " + abs((SELECT count(*) FROM s) - (SELECT count(*) FROM t))"};
  int64_t wrong = 0;
  for (size_t i = 0; i < sizeof sql / sizeof *sql; i++) wrong += number(l, sql[i]);
  return wrong;
}

#endif
