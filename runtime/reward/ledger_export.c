/* ledger_export.c - tables and views as JSON Lines or CSV, a row at a time, from one moment of the ledger.
 *
 * "log" is impressions and events as ledger_lines.c reads them. Real numbers have 17 digits, so that they are the same when
 * they come back. CSV as in RFC 4180, with a line of names first; no value is an empty field, an empty text is "". */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ledger.h"

#define PIECE_BYTES (64u << 10)

static const char *const names[] = {
    "event_log", "impression_log", "bandit_log", "decisions", "impressions_by_hour", "events_by_hour", "impressions_by_item", "events_by_item", "version_totals",
    "version_lineage", "promotion_log", "reward_log", "evaluation_log", "look_log", "events", "impressions", "shown", "versions", "agents", "genomes", "runs", "evaluations", "looks", "rewards",
    "promotions", "ranges", "counters"};

typedef struct output {
  ev_export_fn *write;
  void *ctx;
  ev_buf buf;
  size_t n_rows;
} output;

static ev_status drain(output *o, size_t least) {
  if (o->buf.len < least || o->buf.len == 0) return EV_OK;
  EV_TRY(o->write(o->ctx, o->buf.data, o->buf.len));
  ev_buf_clear(&o->buf);
  return EV_OK;
}

static ev_status json_text(ev_buf *b, const char *s, size_t len) {
  EV_TRY(ev_buf_append(b, "\"", 1));
  size_t from = 0;
  for (size_t i = 0; i < len; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    EV_TRY(ev_buf_append(b, s + from, i - from));
    if (c == '"' || c == '\\') EV_TRY(ev_buf_printf(b, "\\%c", c));
    else if (c == '\n') EV_TRY(ev_buf_append(b, "\\n", 2));
    else EV_TRY(ev_buf_printf(b, "\\u%04x", c));
    from = i + 1;
  }
  EV_TRY(ev_buf_append(b, s + from, len - from));
  return ev_buf_append(b, "\"", 1);
}

static ev_status csv_text(ev_buf *b, const char *s, size_t len) {
  if (len > 0 && memchr(s, '"', len) == NULL && memchr(s, ',', len) == NULL && memchr(s, '\n', len) == NULL && memchr(s, '\r', len) == NULL) return ev_buf_append(b, s, len);
  EV_TRY(ev_buf_append(b, "\"", 1));
  for (size_t i = 0; i < len; i++) {
    if (s[i] == '"') EV_TRY(ev_buf_append(b, "\"", 1));
    EV_TRY(ev_buf_append(b, s + i, 1));
  }
  return ev_buf_append(b, "\"", 1);
}

static ev_status real(ev_buf *b, double x) {
  char text[32];
  for (int digits = 15; digits <= 17; digits++) { /* as few as say the same number */
    snprintf(text, sizeof text, "%.*g", digits, x);
    double back = 0;
    if (digits == 17 || (ev_parse_f64(text, strlen(text), &back) && back == x)) break;
  }
  return ev_buf_append(b, text, strlen(text));
}

static ev_status value(ev_buf *b, sqlite3_stmt *s, int c, bool json) {
  const char *text;
  switch (sqlite3_column_type(s, c)) {
    case SQLITE_NULL: return json ? ev_buf_append(b, "null", 4) : EV_OK;
    case SQLITE_INTEGER: return ev_buf_printf(b, "%lld", (long long)sqlite3_column_int64(s, c));
    case SQLITE_FLOAT:
      if (!isfinite(sqlite3_column_double(s, c))) return json ? ev_buf_append(b, "null", 4) : EV_OK; /* a sum that overflowed */
      return real(b, sqlite3_column_double(s, c));
    default:
      text = (const char *)sqlite3_column_blob(s, c);
      if (text == NULL) text = "";
      return (json ? json_text : csv_text)(b, text, (size_t)sqlite3_column_bytes(s, c));
  }
}

static ev_status row_out(output *o, sqlite3_stmt *s, ev_export_format format) {
  bool json = format == EV_EXPORT_JSONL;
  ev_buf *b = &o->buf;
  for (int c = 0; c < sqlite3_column_count(s); c++) {
    const char *name = sqlite3_column_name(s, c);
    if (c > 0) EV_TRY(ev_buf_append(b, ",", 1));
    if (json) {
      EV_TRY(ev_buf_append(b, "{", c == 0));
      EV_TRY(json_text(b, name, strlen(name)));
      EV_TRY(ev_buf_append(b, ":", 1));
    }
    EV_TRY(value(b, s, c, json));
  }
  EV_TRY(ev_buf_append(b, json ? "}\n" : "\n", json ? 2 : 1));
  o->n_rows++;
  return drain(o, PIECE_BYTES);
}

static ev_status table_out(ev_ledger *l, output *o, const char *name, ev_export_format format) {
  char sql[128];
  sqlite3_stmt *s = NULL;
  bool row = true;
  snprintf(sql, sizeof sql, "SELECT * FROM %s", name);
  EV_TRY(ledger_prepare(l, sql, &s));
  ev_status status = EV_OK;
  for (int c = 0; c < sqlite3_column_count(s) && format == EV_EXPORT_CSV && status == EV_OK; c++) {
    if (c > 0) status = ev_buf_append(&o->buf, ",", 1);
    if (status == EV_OK) status = csv_text(&o->buf, sqlite3_column_name(s, c), strlen(sqlite3_column_name(s, c)));
  }
  if (format == EV_EXPORT_CSV && status == EV_OK) status = ev_buf_append(&o->buf, "\n", 1);
  while (status == EV_OK && row) {
    if (ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
    if (status == EV_OK) status = ledger_step(l, s, &row);
    if (status == EV_OK && row) status = row_out(o, s, format);
  }
  sqlite3_finalize(s);
  return status;
}

/* ---- The log -------------------------------------------------------------------------------------------*/
static ev_status field(ev_buf *b, sqlite3_stmt *s, int c, const char *name) {
  if (sqlite3_column_type(s, c) == SQLITE_NULL) return EV_OK;
  EV_TRY(ev_buf_printf(b, ",\"%s\":", name));
  return value(b, s, c, true);
}

static ev_status impressions_out(ev_ledger *l, output *o) {
  sqlite3_stmt *s = NULL;
  ev_buf *b = &o->buf;
  int64_t open = 0;
  bool row = true;
  EV_TRY(ledger_prepare(l, "SELECT i.number, i.id, i.user, v.version, i.propensity, i.time_ms, s.item, s.position, s.propensity, a.agent FROM impressions i"
                           " CROSS JOIN shown s ON s.impression = i.number LEFT JOIN versions v ON v.number = i.version LEFT JOIN agents a ON a.number = s.agent"
                           " ORDER BY i.number, s.position", &s));
  ev_status status = EV_OK;
  while (status == EV_OK) {
    status = ev_interrupted() ? ev_fail(EV_EINTR, "interrupted") : ledger_step(l, s, &row);
    if (status != EV_OK) break;
    if (open != 0 && (!row || sqlite3_column_int64(s, 0) != open)) status = ev_buf_append(b, "]}\n", 3);
    if (status == EV_OK) status = drain(o, PIECE_BYTES);
    if (status != EV_OK || !row) break;
    if (sqlite3_column_int64(s, 0) != open) {
      static const char *const fields[] = {"id", "user", "version", "propensity", "time"};
      open = sqlite3_column_int64(s, 0);
      status = ev_buf_printf(b, "{\"kind\":\"impression\"");
      for (int c = 0; c < 5 && status == EV_OK; c++) status = field(b, s, c + 1, fields[c]);
      if (status == EV_OK) status = ev_buf_printf(b, ",\"items\":[{\"item\":");
      o->n_rows++;
    } else {
      status = ev_buf_printf(b, ",{\"item\":");
    }
    if (status == EV_OK) status = value(b, s, 6, true);
    if (status == EV_OK) status = field(b, s, 7, "position");
    if (status == EV_OK) status = field(b, s, 8, "propensity");
    if (status == EV_OK) status = field(b, s, 9, "agent");
    if (status == EV_OK) status = ev_buf_append(b, "}", 1);
  }
  sqlite3_finalize(s);
  return status;
}

static ev_status events_out(ev_ledger *l, output *o) {
  static const char *const fields[] = {"id", "user", "item", "type", "value", "time", "version", "impression"};
  sqlite3_stmt *s = NULL;
  bool row = true;
  EV_TRY(ledger_prepare(l, "SELECT e.id, e.user, e.item, e.type, e.value, e.time_ms, v.version, coalesce(i.id, e.waits_for) FROM events e"
                           " LEFT JOIN versions v ON v.number = e.version LEFT JOIN impressions i ON i.number = e.impression ORDER BY e.number", &s));
  ev_status status = EV_OK;
  while (status == EV_OK) {
    status = ev_interrupted() ? ev_fail(EV_EINTR, "interrupted") : ledger_step(l, s, &row);
    if (status != EV_OK || !row) break;
    status = ev_buf_printf(&o->buf, "{\"kind\":\"event\"");
    for (int c = 0; c < 8 && status == EV_OK; c++) status = field(&o->buf, s, c, fields[c]);
    if (status == EV_OK) status = ev_buf_append(&o->buf, "}\n", 2);
    o->n_rows++;
    if (status == EV_OK) status = drain(o, PIECE_BYTES);
  }
  sqlite3_finalize(s);
  return status;
}

static ev_status unknown_name(const char *what) {
  ev_buf list = {0};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) (void)ev_buf_printf(&list, ", %s", names[i]);
  ev_status status = ev_fail(EV_ENOTFOUND, "nothing is called '%.60s'; there are log%s", what, list.data != NULL ? list.data : "");
  ev_buf_free(&list);
  return status;
}

ev_status ev_ledger_export(ev_ledger *l, const char *what, ev_export_format format, ev_export_fn *write, void *ctx, size_t *n_rows) {
  output o = {.write = write, .ctx = ctx};
  bool log = strcmp(what, "log") == 0, known = log;
  *n_rows = 0;
  for (size_t i = 0; i < sizeof names / sizeof *names && !known; i++) known = strcmp(names[i], what) == 0;
  if (!known) return unknown_name(what);
  if (log && format == EV_EXPORT_CSV) return ev_fail(EV_EINVAL, "the log has slates in it, which CSV cannot say: event_log, impression_log or bandit_log can");
  EV_TRY(ev_ledger_exec(l, "BEGIN")); /* one moment for all that is read */
  ev_status status = log ? impressions_out(l, &o) : table_out(l, &o, what, format);
  if (status == EV_OK && log) status = events_out(l, &o);
  if (status == EV_OK) status = drain(&o, 1);
  ledger_rollback(l);
  ev_buf_free(&o.buf);
  *n_rows = o.n_rows;
  return status;
}
