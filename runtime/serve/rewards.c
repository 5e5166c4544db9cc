/* rewards.c - what versions have earned, as the ledger has it, beside what the supervisor says of them.
 *
 * A reader of its own for each call: the supervisor forks and must not have SQLite's state, the scribe has the writer's, and who asks for
 * the list of versions is a person or a dashboard. What it reads is added up already, but for the latest some ten thousand rows. */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "inside.h"

static const char totals[] = "SELECT version, max(impressions), sum(events), total(value_sum) FROM version_totals WHERE version IS NOT NULL GROUP BY version";

static json_t *reward_of(sqlite3_stmt *row) { /* NULL: of a version without anything */
  sqlite3_int64 impressions = row != NULL ? sqlite3_column_int64(row, 1) : 0, events = row != NULL ? sqlite3_column_int64(row, 2) : 0;
  json_t *o = json_pack("{s:I, s:I}", "impressions", (json_int_t)impressions, "events", (json_int_t)events);
  if (o != NULL && impressions > 0) json_object_set_new(o, "value", json_real(sqlite3_column_double(row, 3) / (double)impressions));
  return o;
}

static json_t *version_in(const json_t *list, const char *name) {
  size_t i;
  json_t *v;
  json_array_foreach(list, i, v) {
    const char *version = json_string_value(json_object_get(v, "version"));
    if (version != NULL && strcmp(version, name) == 0) return v;
  }
  return NULL;
}

void versions_rewarded(const front *f, json_t *said) {
  char path[4096];
  ev_ledger *l;
  sqlite3_stmt *s = NULL;
  json_t *list = json_object_get(said, "versions"), *v;
  size_t i;
  if (!json_is_array(list)) return;
  snprintf(path, sizeof path, "%s/ledger.db", f->o->home);
  ev_status status = ev_ledger_open_reader(&l, path);
  if (status == EV_OK) {
    sqlite3 *db = ev_ledger_db(l);
    int code = sqlite3_prepare_v2(db, totals, -1, &s, NULL) == SQLITE_OK ? SQLITE_ROW : SQLITE_ERROR;
    while (code == SQLITE_ROW && (code = sqlite3_step(s)) == SQLITE_ROW) {
      v = version_in(list, (const char *)sqlite3_column_text(s, 0));
      if (v != NULL) json_object_set_new(v, "reward", reward_of(s));
    }
    if (code != SQLITE_DONE) status = ev_fail(EV_EIO, "ledger: %s", sqlite3_errmsg(db));
    sqlite3_finalize(s);
    ev_ledger_close(l);
  }
  if (status != EV_OK) { /* the list is good without */
    ev_log(EV_LOG_WARN, "rewards of versions: %s", ev_error());
    return;
  }
  json_array_foreach(list, i, v) {
    if (json_object_get(v, "reward") == NULL) json_object_set_new(v, "reward", reward_of(NULL));
  }
}
