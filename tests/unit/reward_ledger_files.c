/* reward_ledger_files.c - lines into batches and tables out again: what is wrong is named, nothing leaks or is half taken when memory or
 * the receiver gives out, and an interruption ends an export. */
#include "ledger_world.h"

static const char impression_line[] = "{\"kind\":\"impression\",\"id\":\"s\",\"user\":1,\"version\":\"v\",\"propensity\":0.5,\"time\":10,"
                                      "\"items\":[{\"item\":\"a\",\"propensity\":1},{\"item\":2,\"propensity\":0.1,\"agent\":\"x\",\"position\":5}]}";
static const char event_line[] = "{\"kind\":\"event\",\"user\":1,\"item\":2,\"time\":11,\"impression\":\"s\",\"value\":0.1}";

static void lines_become_a_batch(void **state) {
  (void)state;
  ev_ledger_lines *b = ev_ledger_lines_new();
  ev_ledger_batch batch;
  assert_int_equal(ev_ledger_lines_add(b, NULL, "f", 1, event_line, strlen(event_line)), EV_OK);
  assert_int_equal(ev_ledger_lines_add(b, NULL, "f", 2, "  \r", 3), EV_OK);
  assert_int_equal(ev_ledger_lines_add(b, NULL, "f", 3, "{\"kind\":\"event\"}", 16), EV_EINVAL);
  assert_string_equal(ev_error(), "f:3: no time");
  assert_int_equal(ev_ledger_lines_add(b, NULL, "f", 4, impression_line, strlen(impression_line)), EV_OK);
  assert_int_equal(ev_ledger_lines_rows(b), 4);
  ev_ledger_lines_batch(b, &batch);
  assert_int_equal(batch.n_events, 1);
  assert_int_equal(batch.n_impressions, 1);
  assert_string_equal(batch.events[0].user, "1");
  assert_string_equal(batch.events[0].item, "2");
  assert_string_equal(batch.events[0].type, "click");
  assert_string_equal(batch.events[0].impression, "s");
  assert_null(batch.events[0].id);
  assert_true(batch.events[0].value == 0.1 && batch.events[0].time_ms == 11);
  assert_int_equal(batch.impressions[0].n_items, 2);
  assert_string_equal(batch.impressions[0].items[1].item, "2");
  assert_string_equal(batch.impressions[0].items[1].agent, "x");
  assert_int_equal(batch.impressions[0].items[1].position, 5);
  ev_ledger_lines_clear(b);
  assert_int_equal(ev_ledger_lines_rows(b), 0);
  ev_ledger_lines_free(b);
  ev_ledger_lines_free(NULL);
}

typedef struct sink {
  ev_buf text;
  int pieces, refuse_from; /* 0: never */
} sink;

static ev_status into(void *ctx, const char *data, size_t len) {
  sink *s = ctx;
  if (++s->pieces == s->refuse_from) return ev_fail(EV_EIO, "the receiver is full");
  return ev_buf_append(&s->text, data, len);
}

static ev_status through(const char *path) {
  ev_ledger *l;
  ev_ledger_batch batch;
  ev_ledger_receipt r;
  sink s = {0};
  size_t n;
  EV_TRY(ev_ledger_open(&l, path));
  ev_ledger_lines *b = ev_ledger_lines_new();
  ev_status status = b != NULL ? ev_ledger_lines_add(b, l, "f", 1, impression_line, strlen(impression_line)) : EV_ENOMEM;
  if (status == EV_OK) status = ev_ledger_lines_add(b, l, "f", 2, event_line, strlen(event_line));
  if (status == EV_OK) {
    ev_ledger_lines_batch(b, &batch);
    status = ev_ledger_put(l, &batch, &r);
  }
  if (status == EV_OK) status = ev_ledger_export(l, "log", EV_EXPORT_JSONL, into, &s, &n);
  if (status == EV_OK) status = ev_ledger_export(l, "bandit_log", EV_EXPORT_CSV, into, &s, &n);
  ev_buf_free(&s.text);
  ev_ledger_lines_free(b);
  ev_ledger_close(l);
  return status;
}

static void files_survive_faults(void **state) {
  (void)state;
  ASSERT_SURVIVES_FAULTS(through(in_folder("faults")), );
  ev_ledger *l = ledger("faults");
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE position = 5"), 1);
  assert_int_equal(wrong_totals(l), 0);
  ev_ledger_close(l);
}

static void an_export_is_of_one_moment_and_ends_when_told(void **state) {
  (void)state;
  ev_ledger *l = ledger("export"), *other = ledger("export");
  sink s = {.refuse_from = 2};
  size_t n;
  for (int i = 0; i < 20; i++) {
    ev_event e[100];
    char ids[100][32];
    for (int k = 0; k < 100; k++) {
      snprintf(ids[k], sizeof ids[k], "%d.%d", i, k);
      e[k] = event(ids[k], "\"i\",\n\x01", i);
    }
    put(other, NULL, 0, e, 100);
  }
  assert_int_equal(ev_ledger_export(l, "log", EV_EXPORT_JSONL, into, &s, &n), EV_EIO);
  assert_string_equal(ev_error(), "the receiver is full");
  ev_event more = event("more", "i", 1);
  put(l, NULL, 0, &more, 1); /* no transaction was left open */
  ev_buf_clear(&s.text);
  s = (sink){.text = s.text};
  assert_int_equal(ev_ledger_export(l, "event_log", EV_EXPORT_JSONL, into, &s, &n), EV_OK);
  assert_int_equal(n, 2001);
  assert_true(s.pieces > 2);
  assert_non_null(strstr(s.text.data, "\"item\":\"\\\"i\\\",\\n\\u0001\""));
  assert_int_equal(ev_ledger_export(l, "nothing", EV_EXPORT_CSV, into, &s, &n), EV_ENOTFOUND);
  assert_non_null(strstr(ev_error(), "bandit_log"));
  assert_int_equal(ev_ledger_export(l, "log", EV_EXPORT_CSV, into, &s, &n), EV_EINVAL);
  ev_interrupt();
  assert_int_equal(ev_ledger_export(l, "event_log", EV_EXPORT_CSV, into, &s, &n), EV_EINTR);
  ev_interrupt_clear();
  ev_buf_free(&s.text);
  ev_ledger_close(l);
  ev_ledger_close(other);
  ev_ledger *reader; /* whoever only reads changes nothing, not even by accident */
  assert_int_equal(ev_ledger_open_reader(&reader, in_folder("export")), EV_OK);
  assert_int_equal(ev_ledger_exec(reader, "DELETE FROM events"), EV_EIO);
  assert_int_equal(number(reader, "SELECT count(*) FROM events"), 2001);
  ev_ledger_close(reader);
  assert_int_equal(ev_ledger_open_reader(&reader, in_folder("absent")), EV_ENOTFOUND);
}

static ev_status posted(const char *path) {
  ev_ledger_writer *w;
  ev_impression i = slate("s");
  ev_event e = about("e", "a", "s");
  ev_ledger_receipt r;
  EV_TRY(ev_ledger_writer_open(&w, path, NULL));
  ev_status status = ev_ledger_post(w, &(ev_ledger_batch){&i, 1, &e, 1}, NULL, NULL);
  if (status == EV_OK) status = ev_ledger_flush(w);
  if (status == EV_OK) status = ev_ledger_submit(w, &(ev_ledger_batch){&i, 1, &e, 1}, &r);
  ev_status closed = ev_ledger_writer_close(w);
  return status != EV_OK ? status : closed;
}

static void a_writer_survives_faults(void **state) {
  (void)state;
  ASSERT_SURVIVES_FAULTS(posted(in_folder("posted")), );
  ev_ledger *l = ledger("posted");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 1);
  ev_ledger_close(l);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(lines_become_a_batch), cmocka_unit_test(files_survive_faults), cmocka_unit_test(an_export_is_of_one_moment_and_ends_when_told),
                                     cmocka_unit_test(a_writer_survives_faults)};
  return RUN(tests);
}
