/* reward_lines.c (fuzz) - damaged JSON Lines of impressions and events: refused by file and line, or rows that the ledger takes, once. */
#include <stdio.h>
#include <string.h>

#include "driver.h"
#include "reward/reward.h"

static ev_ledger *ledger;

static const char *const words[] = {"{\"kind\":\"impression\",", "{\"kind\":\"event\",", "\"id\":", "\"user\":", "\"item\":", "\"items\":[", "\"propensity\":", "\"position\":", "\"agent\":",
                                    "\"version\":", "\"impression\":", "\"time\":", "\"value\":", "\"type\":", "null", "1e-400", "1e308", "-0", "0", "1", "1.0000001", "true", "[]", "{}",
                                    "\\u0000", "\\ud800", "\xff", "9223372036854775808", "\n", NULL};

static void make_seeds(void) {
  static const char *const texts[] = {
      "{\"kind\":\"impression\",\"id\":\"s1\",\"user\":\"u\",\"version\":\"v\",\"propensity\":0.02,\"time\":1700000000000,\"items\":[{\"item\":\"a\",\"propensity\":0.1,\"agent\":\"ease\"},"
      "{\"item\":7,\"propensity\":1,\"position\":4}]}\n{\"kind\":\"event\",\"id\":\"e1\",\"user\":\"u\",\"item\":\"a\",\"type\":\"click\",\"value\":1,\"time\":1700000000500,\"impression\":\"s1\"}",
      "{\"kind\":\"event\",\"user\":7,\"item\":8,\"time\":5}\r\n\n{\"kind\":\"event\",\"user\":\"W\xC3\xA4r\",\"item\":\"\\u20ac\\n\",\"value\":-1.5e-3,\"time\":0.5,\"version\":\"v2\",\"type\":\"buy\"}\n",
      "{\"kind\":\"event\",\"id\":\"w\",\"user\":\"u\",\"item\":\"a\",\"time\":1,\"impression\":\"s2\",\"value\":null}\n"
      "{\"kind\":\"impression\",\"id\":\"s2\",\"user\":1,\"version\":2,\"propensity\":1,\"time\":0,\"items\":[{\"item\":\"a\",\"propensity\":1}]}\n"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) fuzz_seed(texts[i], strlen(texts[i]));
}

static int64_t count(const char *sql) {
  sqlite3_stmt *s = NULL;
  FUZZ_REQUIRE(sqlite3_prepare_v2(ev_ledger_db(ledger), sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW);
  int64_t x = sqlite3_column_int64(s, 0);
  sqlite3_finalize(s);
  return x;
}

static ev_status discard(void *ctx, const char *data, size_t len) {
  *(size_t *)ctx += len;
  return ev_utf8_invalid(data, len) < len ? ev_fail(EV_ECORRUPT, "not UTF-8") : EV_OK; /* pieces end with a row */
}

static void one(const uint8_t *data, size_t len) {
  ev_ledger_lines *b = ev_ledger_lines_new();
  size_t number = 0, taken = 0;
  FUZZ_REQUIRE(b != NULL && ev_ledger_open(&ledger, ":memory:") == EV_OK);
  FUZZ_REQUIRE(ev_ledger_set_range(ledger, "*", -10, 10) == EV_OK);
  for (size_t at = 0; at < len;) {
    const uint8_t *newline = memchr(data + at, '\n', len - at);
    size_t end = newline != NULL ? (size_t)(newline - data) : len, rows = ev_ledger_lines_rows(b);
    char *line = ev_alloc(end - at, 1); /* fenced */
    memcpy(line, data + at, end - at);
    ev_status status = ev_ledger_lines_add(b, ledger, "in.jsonl", ++number, line, end - at);
    ev_free(line);
    FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL);
    if (status == EV_EINVAL) {
      char place[32];
      int n = snprintf(place, sizeof place, "in.jsonl:%zu: ", number);
      FUZZ_REQUIRE(strncmp(ev_error(), place, (size_t)n) == 0 && ev_utf8_invalid(ev_error(), strlen(ev_error())) == strlen(ev_error()));
      FUZZ_REQUIRE(ev_ledger_lines_rows(b) == rows);
    }
    taken += ev_ledger_lines_rows(b) > rows;
    at = end + 1;
  }
  ev_ledger_batch batch;
  ev_ledger_receipt r;
  ev_ledger_lines_batch(b, &batch);
  FUZZ_REQUIRE(batch.n_events + batch.n_impressions == taken);
  FUZZ_REQUIRE(ev_ledger_put(ledger, &batch, &r) == EV_OK); /* what was read may be written */
  FUZZ_REQUIRE(r.new_events + r.new_impressions + r.known == taken);
  FUZZ_REQUIRE(ev_ledger_put(ledger, &batch, &r) == EV_OK && r.known == taken);
  FUZZ_REQUIRE(count("SELECT (SELECT coalesce(sum(events), 0) FROM events_by_hour) - (SELECT count(*) FROM events)") == 0);
  size_t bytes = 0, n;
  FUZZ_REQUIRE(ev_ledger_export(ledger, "log", EV_EXPORT_JSONL, discard, &bytes, &n) == EV_OK && n == (size_t)count("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM impressions)"));
  ev_ledger_lines_free(b);
  ev_ledger_close(ledger);
}

const fuzz_target fuzz = {make_seeds, one, NULL, words};
