/* ledger.c - `evection ledger stats | import | export | prune | range`. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../reward/reward.h"
#include "cli.h"

static ev_status open_here(const json_t *opts, bool writes, ev_ledger **out) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/ledger.db", ev_opt_home(opts)) >= 4000) return ev_fail(EV_EINVAL, "the path of --home is too long");
  if (writes) {
    EV_TRY(ev_mkdirs(ev_opt_home(opts)));
    return ev_ledger_open(out, path);
  }
  ev_status status = ev_ledger_open_reader(out, path);
  return status == EV_ENOTFOUND ? ev_fail(status, "no ledger in %s; serving, evolving and `evection ledger import` make one", ev_opt_home(opts)) : status;
}

/* ---- Rows for people and for machines --------------------------------------------------------------------*/
/* Every row of a query as an object; takes nothing that is not whole. */
static ev_status rows_of(ev_ledger *l, const char *sql, json_t **out) {
  sqlite3_stmt *s = NULL;
  sqlite3 *db = ev_ledger_db(l);
  int code = sqlite3_prepare_v2(db, sql, -1, &s, NULL);
  *out = json_array();
  while (code == SQLITE_OK || code == SQLITE_ROW) {
    code = sqlite3_step(s);
    if (code != SQLITE_ROW) break;
    json_t *row = json_object();
    for (int c = 0; c < sqlite3_column_count(s); c++) {
      json_t *v;
      switch (sqlite3_column_type(s, c)) {
        case SQLITE_NULL: v = json_null(); break;
        case SQLITE_INTEGER: v = json_integer(sqlite3_column_int64(s, c)); break;
        case SQLITE_FLOAT: v = isfinite(sqlite3_column_double(s, c)) ? json_real(sqlite3_column_double(s, c)) : json_null(); break;
        default: v = json_stringn((const char *)sqlite3_column_text(s, c), (size_t)sqlite3_column_bytes(s, c)); break;
      }
      json_object_set_new(row, sqlite3_column_name(s, c), v);
    }
    json_array_append_new(*out, row);
  }
  ev_status status = code == SQLITE_DONE ? EV_OK : ev_fail(EV_EIO, "ledger: %s", sqlite3_errmsg(db));
  sqlite3_finalize(s);
  return status;
}

static json_int_t whole(const json_t *row, const char *key) { return json_integer_value(json_object_get(row, key)); }
static double number(const json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }

static const char *word(const json_t *row, const char *key, const char *none) {
  const char *s = json_string_value(json_object_get(row, key));
  return s != NULL ? s : none;
}

/* ---- stats -----------------------------------------------------------------------------------------------*/
/* From totals, counters and indexes alone: the time does not grow with the rows. */
static const char totals_sql[] =
    "SELECT (SELECT coalesce(sum(impressions), 0) FROM impressions_by_hour) AS impressions, (SELECT coalesce(sum(events), 0) FROM events_by_hour) AS events,"
    " (SELECT count(*) FROM events WHERE waits_for IS NOT NULL) AS waiting,"
    " strftime('%Y-%m-%d %H:%M:%S', (SELECT min(time_ms) FROM events) / 1000, 'unixepoch') AS first_event,"
    " strftime('%Y-%m-%d %H:%M:%S', (SELECT max(time_ms) FROM events) / 1000, 'unixepoch') AS last_event,"
    " strftime('%Y-%m-%d %H:%M:%S', (SELECT min(time_ms) FROM impressions) / 1000, 'unixepoch') AS first_impression,"
    " strftime('%Y-%m-%d %H:%M:%S', (SELECT max(time_ms) FROM impressions) / 1000, 'unixepoch') AS last_impression,"
    " strftime('%Y-%m-%d %H:%M:%S', (SELECT value FROM settings WHERE name = 'pruned_before_ms') / 1000, 'unixepoch') AS pruned_before,"
    " (SELECT count(*) FROM versions) AS versions, (SELECT count(*) FROM evaluations) AS evaluations, (SELECT count(*) FROM looks) AS looks,"
    " (SELECT count(*) FROM promotions) AS promotions, (SELECT count(*) FROM rewards) AS rewards";

static void print_stats(const json_t *d) {
  const json_t *t = json_object_get(d, "totals"), *types = json_object_get(d, "types"), *versions = json_object_get(d, "versions"),
               *ranges = json_object_get(d, "ranges"), *counters = json_object_get(d, "counters"), *row;
  size_t i;
  printf("impressions  %lld counted, from %s to %s\n", (long long)whole(t, "impressions"), word(t, "first_impression", "-"), word(t, "last_impression", "-"));
  printf("events       %lld counted, from %s to %s; %lld wait for their impression\n", (long long)whole(t, "events"), word(t, "first_event", "-"), word(t, "last_event", "-"),
         (long long)whole(t, "waiting"));
  json_array_foreach(types, i, row) {
    printf("  %-10s %lld, mean %.6g, sum %.6g\n", word(row, "type", ""), (long long)whole(row, "events"), number(row, "mean"), number(row, "value_sum"));
  }
  printf("kept         %lld versions, %lld evaluations, %lld rewards, %lld promotions, %lld looks at test folds\n", (long long)whole(t, "versions"),
         (long long)whole(t, "evaluations"), (long long)whole(t, "rewards"), (long long)whole(t, "promotions"), (long long)whole(t, "looks"));
  json_array_foreach(versions, i, row) {
    printf("  %-12.12s %lld impressions", word(row, "version", "(not known)"), (long long)whole(row, "impressions"));
    if (whole(row, "events") > 0) printf(", %lld events of type %s worth %.6g", (long long)whole(row, "events"), word(row, "type", ""), number(row, "value_sum"));
    if (json_is_number(json_object_get(row, "per_impression"))) printf(", %.6g an impression", number(row, "per_impression"));
    putchar('\n');
  }
  json_array_foreach(ranges, i, row) {
    printf("range        %s from %g to %g\n", word(row, "type", ""), number(row, "low"), number(row, "high"));
  }
  json_array_foreach(counters, i, row) {
    printf("counted      %lld %s\n", (long long)whole(row, "count"), word(row, "name", ""));
  }
  if (json_is_string(json_object_get(t, "pruned_before"))) printf("pruned       what is from before %s; later arrivals from then are refused\n", word(t, "pruned_before", ""));
  printf("file         %.1f MB, and %.1f MB of log\n", number(d, "file_mb"), number(d, "log_mb"));
}

static double size_mb(const char *path, const char *more) {
  char name[4200];
  struct stat st;
  snprintf(name, sizeof name, "%s%s", path, more);
  return stat(name, &st) == 0 ? (double)st.st_size * 1e-6 : 0;
}

static ev_status run_stats(json_t *opts) {
  static const char *const parts[][2] = {
      {"types", "SELECT type, sum(events) AS events, sum(value_sum) AS value_sum, sum(value_squares) AS value_squares, sum(value_sum) / sum(events) AS mean FROM events_by_hour GROUP BY type"},
      {"versions", "SELECT * FROM version_totals ORDER BY impressions DESC, events DESC LIMIT 20"},
      {"ranges", "SELECT * FROM ranges"},
      {"counters", "SELECT name, count FROM counters"}};
  ev_ledger *l;
  EV_TRY(open_here(opts, false, &l));
  json_t *d = json_object(), *rows = NULL;
  const char *path = sqlite3_db_filename(ev_ledger_db(l), "main");
  ev_status status = ev_ledger_exec(l, "BEGIN");
  if (status == EV_OK) status = rows_of(l, totals_sql, &rows);
  if (status == EV_OK) json_object_set(d, "totals", json_array_get(rows, 0));
  json_decref(rows);
  for (size_t i = 0; i < sizeof parts / sizeof *parts && status == EV_OK; i++) {
    status = rows_of(l, parts[i][1], &rows);
    json_object_set_new(d, parts[i][0], rows);
  }
  json_object_set_new(d, "file_mb", json_real(size_mb(path, "")));
  json_object_set_new(d, "log_mb", json_real(size_mb(path, "-wal")));
  ev_ledger_close(l);
  if (status == EV_OK && ev_opt_flag(opts, "json")) return ev_print_json(d);
  if (status == EV_OK) print_stats(d);
  json_decref(d);
  return status;
}

/* ---- import ----------------------------------------------------------------------------------------------*/
typedef struct importing {
  ev_ledger *ledger;
  ev_ledger_lines *lines;
  size_t batch_rows, n_lines; /* lines: those that are in the ledger */
  ev_ledger_receipt sum;
  size_t pending;
} importing;

static ev_status flush(importing *p) {
  ev_ledger_batch b;
  ev_ledger_receipt r;
  ev_ledger_lines_batch(p->lines, &b);
  if (b.n_events + b.n_impressions == 0) return EV_OK;
  EV_TRY(ev_ledger_put(p->ledger, &b, &r));
  p->sum.new_impressions += r.new_impressions;
  p->sum.new_events += r.new_events;
  p->sum.known += r.known;
  p->sum.conflicts += r.conflicts;
  p->sum.waiting += r.waiting;
  p->sum.joined_late += r.joined_late;
  p->sum.expired += r.expired;
  p->n_lines += p->pending;
  p->pending = 0;
  ev_ledger_lines_clear(p->lines);
  return EV_OK;
}

static ev_status take(void *ctx, const char *file, size_t number, char *line, size_t len) {
  importing *p = ctx;
  EV_TRY(ev_ledger_lines_add(p->lines, p->ledger, file, number, line, len));
  p->pending++;
  return ev_ledger_lines_rows(p->lines) >= p->batch_rows ? flush(p) : EV_OK;
}

static ev_status say_imported(const importing *p, const json_t *opts, double seconds) {
  const ev_ledger_receipt *s = &p->sum;
  if (ev_opt_flag(opts, "json"))
    return ev_print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "lines", (json_int_t)p->n_lines, "impressions", (json_int_t)s->new_impressions, "events",
                                   (json_int_t)s->new_events, "known", (json_int_t)s->known, "conflicts", (json_int_t)s->conflicts, "waiting", (json_int_t)s->waiting,
                                   "joined_late", (json_int_t)s->joined_late, "expired", (json_int_t)s->expired, "seconds", seconds));
  printf("%zu impressions and %zu events are new; %zu were known\n", s->new_impressions, s->new_events, s->known);
  if (s->conflicts > 0) printf("  %zu known ones said something else before: the first stands\n", s->conflicts);
  if (s->joined_late > 0) printf("  %zu events of before found their impression\n", s->joined_late);
  if (s->waiting > 0) printf("  %zu events came before their impression\n", s->waiting);
  if (s->expired > 0) printf("  %zu are from before what retention keeps, and were not taken\n", s->expired);
  return EV_OK;
}

static ev_status run_import(json_t *opts) {
  importing p = {0};
  uint64_t started = ev_now_ns();
  int64_t rows = ev_opt_int(opts, "batch", 2000);
  if (rows < 1 || rows > 1000000) return ev_fail(EV_EINVAL, "--batch: %lld is not between 1 and 1000000", (long long)rows);
  EV_TRY(open_here(opts, true, &p.ledger));
  p.batch_rows = (size_t)rows;
  p.lines = ev_ledger_lines_new();
  ev_bar bar;
  ev_bar_start(&bar, "importing", "MB", ev_opt_flag(opts, "quiet"));
  ev_status status = p.lines != NULL ? ev_read_lines(opts, 0, &bar, take, &p) : EV_ENOMEM;
  if (status == EV_OK) {
    status = flush(&p);
  } else if (status == EV_EINVAL) { /* the good lines before a bad one */
    char said[1024];
    snprintf(said, sizeof said, "%s", ev_error());
    ev_status second = flush(&p);
    if (second == EV_OK) ev_fail(status, "%s (%zu lines before it are in the ledger)", said, p.n_lines);
    else status = second;
  }
  ev_bar_end(&bar);
  if (status == EV_OK) status = say_imported(&p, opts, (double)(ev_now_ns() - started) * 1e-9);
  else if (status == EV_EIO) ev_fail(status, "%s (%zu lines are in the ledger; the same import goes on from there)", ev_error(), p.n_lines);
  else if (status == EV_EINTR && !ev_opt_flag(opts, "quiet")) fprintf(stderr, "evection: %zu lines are in the ledger; the same import goes on from there\n", p.n_lines);
  ev_ledger_lines_free(p.lines);
  ev_ledger_close(p.ledger);
  return status;
}

/* ---- export ----------------------------------------------------------------------------------------------*/
static ev_status to_file(void *ctx, const char *data, size_t len) { return ev_writer_write(ctx, data, len); }

static ev_status to_stdout(void *ctx, const char *data, size_t len) {
  (void)ctx;
  return fwrite(data, 1, len, stdout) == len ? EV_OK : ev_fail_errno("standard output");
}

static ev_status run_export(json_t *opts) {
  const char *what = ev_opt_n_args(opts) > 0 ? ev_opt_arg(opts, 0) : "log", *format = ev_opt_string(opts, "format", "jsonl"), *path = ev_opt_string(opts, "out", NULL);
  bool csv = strcmp(format, "csv") == 0;
  ev_ledger *l;
  ev_writer *w = NULL;
  size_t n = 0;
  if (!csv && strcmp(format, "jsonl") != 0) return ev_fail(EV_EINVAL, "--format: '%.60s' is neither jsonl nor csv", format);
  if (path == NULL && ev_opt_flag(opts, "json")) return ev_fail(EV_EINVAL, "--json: --out FILE says where the rows go");
  EV_TRY(open_here(opts, false, &l));
  ev_status status = path != NULL ? ev_writer_open(&w, path) : EV_OK;
  if (status == EV_OK) status = ev_ledger_export(l, what, csv ? EV_EXPORT_CSV : EV_EXPORT_JSONL, path != NULL ? to_file : to_stdout, w, &n);
  ev_ledger_close(l);
  if (path != NULL && status == EV_OK) status = ev_writer_commit(w);
  else ev_writer_abort(w);
  if (path == NULL && fflush(stdout) != 0 && status == EV_OK) status = ev_fail_errno("standard output");
  EV_TRY(status);
  if (ev_opt_flag(opts, "json")) return ev_print_json(json_pack("{s:s, s:s, s:s, s:I}", "what", what, "format", format, "file", path, "rows", (json_int_t)n));
  if (path != NULL) printf("%s: %zu rows of %s\n", path, n, what);
  return EV_OK;
}

/* ---- prune -----------------------------------------------------------------------------------------------*/
static ev_status run_prune(json_t *opts) {
  double days = ev_opt_real(opts, "keep_days", -1);
  bool dry = ev_opt_flag(opts, "dry_run");
  ev_ledger *l;
  ev_pruned n = {0};
  if (json_object_get(opts, "keep_days") == NULL) return ev_fail(EV_EINVAL, "--keep-days N is missing: impressions and events older than that go");
  if (!(days >= 0 && days <= 36500)) return ev_fail(EV_EINVAL, "--keep-days: %g is not between 0 and 36500", days);
  EV_TRY(open_here(opts, false, &l)); /* there must be one */
  ev_ledger_close(l);
  EV_TRY(open_here(opts, true, &l));
  int64_t before_ms = ev_wall_ms() - (int64_t)(days * 86400e3);
  if (before_ms < 0) before_ms = 0;
  ev_status status = ev_ledger_prune(l, before_ms, dry, &n);
  if (status == EV_OK && !dry && ev_opt_flag(opts, "shrink")) status = ev_ledger_exec(l, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
  ev_ledger_close(l);
  if (status == EV_EINTR && !ev_opt_flag(opts, "quiet")) fprintf(stderr, "evection: %zu impressions and %zu events are gone; the rest is as it was\n", n.impressions, n.events);
  EV_TRY(status);
  if (ev_opt_flag(opts, "json"))
    return ev_print_json(json_pack("{s:I, s:I, s:I, s:I, s:b}", "impressions", (json_int_t)n.impressions, "events", (json_int_t)n.events, "kept_by_later_events",
                                   (json_int_t)n.kept, "before_ms", (json_int_t)before_ms, "dry_run", dry));
  printf("%zu impressions and %zu events %s; totals keep counting them\n", n.impressions, n.events, dry ? "would go" : "are gone");
  if (n.kept > 0) printf("  %zu impressions stay: an event that is kept belongs to them\n", n.kept);
  return EV_OK;
}

/* ---- range -----------------------------------------------------------------------------------------------*/
static ev_status run_range(json_t *opts) {
  ev_ledger *l;
  json_t *rows = NULL;
  bool sets = ev_opt_n_args(opts) > 0, removes = ev_opt_flag(opts, "remove"), low = json_object_get(opts, "low") != NULL, high = json_object_get(opts, "high") != NULL;
  if ((low || high || removes) && !sets) return ev_fail(EV_EINVAL, "TYPE is missing: whose values are meant; '*' is every type");
  if (sets && (removes ? low || high : !low || !high)) return ev_fail(EV_EINVAL, "%s", removes ? "--remove takes no --low and --high" : "--low and --high are both wanted, or --remove");
  double from = ev_opt_real(opts, "low", 0), to = ev_opt_real(opts, "high", 0);
  if (sets && !removes && from > to) return ev_fail(EV_EINVAL, "--low: %g is more than %g", from, to);
  EV_TRY(open_here(opts, sets, &l));
  ev_status status = EV_OK;
  if (sets) status = removes ? ev_ledger_set_range(l, ev_opt_arg(opts, 0), 1, 0) : ev_ledger_set_range(l, ev_opt_arg(opts, 0), from, to);
  if (status == EV_OK) status = rows_of(l, "SELECT type, low, high FROM ranges", &rows);
  ev_ledger_close(l);
  if (status == EV_OK && ev_opt_flag(opts, "json")) return ev_print_json(rows);
  size_t i;
  json_t *row;
  json_array_foreach(rows, i, row) {
    if (status == EV_OK) printf("%s from %g to %g\n", word(row, "type", ""), number(row, "low"), number(row, "high"));
  }
  if (status == EV_OK && json_array_size(rows) == 0) printf("no ranges: every finite value is taken\n");
  json_decref(rows);
  return status;
}

/* ---- Verbs -----------------------------------------------------------------------------------------------*/
static const ev_option no_options[] = {{EV_OPT_END, NULL, NULL, NULL}};

const ev_verb ev_verb_ledger_stats = {
    .name = "ledger stats",
    .summary = "Prints what the ledger has counted: impressions, events, versions, duplicates, late arrivals.",
    .arguments = "",
    .example = "evection ledger stats --json",
    .options = no_options,
    .min_args = 0,
    .max_args = 0,
    .run = run_stats,
};

static const ev_option import_options[] = {
    {EV_OPT_INT, "batch", "N", "rows a commit (default 2000)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_ledger_import = {
    .name = "ledger import",
    .summary = "Takes impressions and events (JSON Lines) into the ledger; what is known already counts once.",
    .arguments = "[FILE…]",
    .example = "evection ledger import log.jsonl\n"
               "echo '{\"kind\":\"event\",\"id\":\"e1\",\"user\":\"196\",\"item\":\"242\",\"time\":1700000000000}' | evection ledger import",
    .options = import_options,
    .min_args = 0,
    .max_args = -1,
    .run = run_import,
};

static const ev_option export_options[] = {
    {EV_OPT_STRING, "format", "FORMAT", "jsonl or csv (default jsonl)"},
    {EV_OPT_STRING, "out", "FILE", "where to, whole or not at all (default: standard output)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_ledger_export = {
    .name = "ledger export",
    .summary = "Writes the log (impressions and events, as import reads them), or any table or view of the ledger.",
    .arguments = "[WHAT]",
    .example = "evection ledger export > log.jsonl\n"
               "evection ledger export bandit_log --format csv --out bandit.csv",
    .options = export_options,
    .min_args = 0,
    .max_args = 1,
    .run = run_export,
};

static const ev_option prune_options[] = {
    {EV_OPT_REAL, "keep-days", "X", "days that stay, counted back from now"},
    {EV_OPT_FLAG, "dry-run", NULL, "say what would go, and keep it"},
    {EV_OPT_FLAG, "shrink", NULL, "give the freed space back to the disk; nobody can write meanwhile"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_ledger_prune = {
    .name = "ledger prune",
    .summary = "Deletes old impressions and events; totals keep counting them, and what a trial needs stays.",
    .arguments = "",
    .example = "evection ledger prune --keep-days 30 --dry-run",
    .options = prune_options,
    .min_args = 0,
    .max_args = 0,
    .run = run_prune,
};

static const ev_option range_options[] = {
    {EV_OPT_REAL, "low", "X", "the least value that is taken"},
    {EV_OPT_REAL, "high", "X", "the greatest"},
    {EV_OPT_FLAG, "remove", NULL, "every finite value is taken again"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_ledger_range = {
    .name = "ledger range",
    .summary = "Says which values events of a type may have, whoever sends them; without a type, lists the ranges.",
    .arguments = "[TYPE]",
    .example = "evection ledger range click --low 0 --high 1",
    .options = range_options,
    .min_args = 0,
    .max_args = 1,
    .run = run_range,
};
