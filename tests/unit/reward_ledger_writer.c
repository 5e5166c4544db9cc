/* reward_ledger_writer.c - one thread writes for many: whoever is told that his rows are kept finds them, one sync serves many, and
 * a full disk, a locked file or wrong rows cost nobody else anything. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "ledger_world.h"

/* ---- A disk, before the C library's ----------------------------------------------------------------------*/
static atomic_int n_syncs, disk_full;
static unsigned sync_us;

int fdatasync(int fd) {
  (void)fd;
  n_syncs++;
  if (sync_us > 0) usleep(sync_us);
  return 0;
}

int fsync(int fd) { return fdatasync(fd); }

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) {
  if (disk_full) {
    errno = ENOSPC;
    return -1;
  }
  return syscall(SYS_pwrite64, fd, data, n, offset);
}

static ev_ledger_writer *writer(const char *name, const ev_ledger_writer_options *o) {
  ev_ledger_writer *w;
  if (ev_ledger_writer_open(&w, in_folder(name), o) != EV_OK) fail_msg("%s", ev_error());
  return w;
}

/* ---- Many callers ----------------------------------------------------------------------------------------*/
enum { CALLERS = 8, BATCHES = 60, ROWS = 5 };
typedef struct caller {
  ev_ledger_writer *w;
  const char *path;
  int number;
  bool failed;
} caller;

static ev_ledger_batch make_batch(int who, int batch, char ids[ROWS + 1][24], ev_event events[ROWS], ev_impression *s) {
  snprintf(ids[ROWS], sizeof ids[0], "s%d.%d", who, batch);
  *s = slate(ids[ROWS]);
  for (int i = 0; i < ROWS; i++) {
    snprintf(ids[i], sizeof ids[i], "%d.%d.%d", who, batch, i);
    events[i] = about(ids[i], i % 2 ? "a" : "b", ids[ROWS]);
    events[i].value = who;
  }
  return (ev_ledger_batch){s, 1, events, ROWS};
}

static void *call(void *arg) {
  caller *c = arg;
  char ids[ROWS + 1][24];
  ev_event events[ROWS];
  ev_impression s;
  for (int batch = 0; batch < BATCHES; batch++) {
    ev_ledger_batch b = make_batch(c->number, batch, ids, events, &s);
    ev_ledger_receipt r;
    if (ev_ledger_submit(c->w, &b, &r) != EV_OK || r.new_events != ROWS || r.new_impressions != 1 || r.known != 0) c->failed = true;
    if (batch % 20 == 0 && (ev_ledger_submit(c->w, &b, &r) != EV_OK || r.new_events != 0 || r.known != ROWS + 1)) c->failed = true;
    char sql[96]; /* seen by everybody, and at once */
    snprintf(sql, sizeof sql, "SELECT count(*) FROM events WHERE id LIKE '%d.%d.%%'", c->number, batch);
    if (batch % 20) continue;
    ev_ledger *l;
    if (ev_ledger_open_reader(&l, c->path) != EV_OK || number(l, sql) != ROWS) c->failed = true;
    ev_ledger_close(l);
  }
  return NULL;
}

static void one_sync_serves_many_who_wait(void **state) {
  (void)state;
  caller c[CALLERS];
  pthread_t threads[CALLERS];
  ev_ledger_writer_stats st;
  ev_ledger_writer *w = writer("many", NULL);
  char path[160];
  snprintf(path, sizeof path, "%s", in_folder("many"));
  n_syncs = 0;
  sync_us = 2000; /* a disk on which gathering pays */
  for (int i = 0; i < CALLERS; i++) {
    c[i] = (caller){w, path, i, false};
    assert_int_equal(pthread_create(&threads[i], NULL, call, &c[i]), 0);
  }
  for (int i = 0; i < CALLERS; i++) {
    pthread_join(threads[i], NULL);
    assert_false(c[i].failed);
  }
  sync_us = 0;
  ev_ledger_writer_stat(w, &st);
  assert_int_equal(st.batches, CALLERS * (BATCHES + BATCHES / 20));
  assert_int_equal(st.failures, 0);
  assert_int_equal(st.waiting, 0);
  assert_true(st.commits < st.batches / 2 && (uint64_t)n_syncs < st.batches); /* not one a batch */
  assert_int_equal(ev_ledger_writer_close(w), EV_OK);
  ev_ledger *l = ledger("many");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), CALLERS * BATCHES * ROWS);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE impression IS NULL OR position IS NULL"), 0);
  assert_int_equal(counter(l, "duplicate_events"), CALLERS * BATCHES / 20 * ROWS);
  assert_int_equal(wrong_totals(l), 0);
  sound(l);
  ev_ledger_close(l);
}

/* ---- Posted ----------------------------------------------------------------------------------------------*/
typedef struct heard {
  pthread_mutex_t lock;
  int n;
  ev_status status;
  char error[256];
  ev_ledger_receipt receipt;
} heard;

static void hear(void *ctx, ev_status status, const char *error, const ev_ledger_receipt *r) {
  heard *h = ctx;
  pthread_mutex_lock(&h->lock);
  h->n++;
  h->status = status;
  h->receipt = *r;
  snprintf(h->error, sizeof h->error, "%s", error);
  pthread_mutex_unlock(&h->lock);
}

static void posted_rows_are_copied_and_answered(void **state) {
  (void)state;
  ev_ledger_writer *w = writer("posted", NULL);
  heard h = {.lock = PTHREAD_MUTEX_INITIALIZER};
  for (int batch = 0; batch < 50; batch++) {
    char ids[ROWS + 1][24];
    ev_event events[ROWS];
    ev_impression s;
    ev_ledger_batch b = make_batch(1, batch, ids, events, &s);
    assert_int_equal(ev_ledger_post(w, &b, batch % 2 ? hear : NULL, &h), EV_OK);
    memset(ids, 'x', sizeof ids); /* the caller's memory is his again */
    memset(events, 0xFF, sizeof events);
  }
  assert_int_equal(ev_ledger_flush(w), EV_OK);
  assert_int_equal(h.n, 25);
  assert_int_equal(h.status, EV_OK);
  assert_int_equal(h.receipt.new_events, ROWS);
  ev_event wrong = event("w", "i", NAN), strange = event("s", "i", 9);
  assert_int_equal(ev_ledger_post(w, &(ev_ledger_batch){.events = &wrong, .n_events = 1}, hear, &h), EV_EINVAL); /* said at once */
  ev_ledger *l = ledger("posted");
  assert_int_equal(ev_ledger_set_range(l, "click", 0, 5), EV_OK);
  assert_int_equal(ev_ledger_post(w, &(ev_ledger_batch){.events = &strange, .n_events = 1}, hear, &h), EV_OK); /* said when it is known */
  assert_int_equal(ev_ledger_flush(w), EV_OK);
  assert_int_equal(h.n, 26);
  assert_int_equal(h.status, EV_EINVAL);
  assert_string_equal(h.error, "event 0: the value 9 of 'click' is not between 0 and 5");
  assert_int_equal(ev_ledger_post(w, &(ev_ledger_batch){.events = &strange, .n_events = 1}, NULL, NULL), EV_OK);
  assert_int_equal(ev_ledger_flush(w), EV_EINVAL); /* nobody else could be told */
  assert_int_equal(ev_ledger_flush(w), EV_OK);
  for (int i = 0; i < 5; i++) { /* closing writes what waits */
    char id[24];
    snprintf(id, sizeof id, "last %d", i);
    ev_event e = event(id, "i", 1);
    assert_int_equal(ev_ledger_post(w, &(ev_ledger_batch){.events = &e, .n_events = 1}, NULL, NULL), EV_OK);
  }
  assert_int_equal(ev_ledger_writer_close(w), EV_OK);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 50 * ROWS + 5);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE position IS NULL AND impression IS NOT NULL"), 0);
  assert_int_equal(wrong_totals(l), 0);
  ev_ledger_close(l);
}

static void a_batch_out_of_range_fails_alone(void **state) {
  (void)state;
  ev_ledger *l = ledger("alone");
  assert_int_equal(ev_ledger_set_range(l, "click", 0, 5), EV_OK);
  ev_ledger_writer *w = writer("alone", NULL);
  heard good = {.lock = PTHREAD_MUTEX_INITIALIZER}, bad = {.lock = PTHREAD_MUTEX_INITIALIZER};
  sync_us = 20000; /* the first is on its way to the disk while the others gather */
  for (int i = 0; i < 9; i++) {
    char id[24];
    snprintf(id, sizeof id, "e%d", i);
    ev_event e = event(id, "i", i % 3 == 1 ? 50 : 1);
    assert_int_equal(ev_ledger_post(w, &(ev_ledger_batch){.events = &e, .n_events = 1}, hear, i % 3 == 1 ? &bad : &good), EV_OK);
  }
  assert_int_equal(ev_ledger_flush(w), EV_OK);
  sync_us = 0;
  assert_int_equal(good.n, 6);
  assert_int_equal(good.status, EV_OK);
  assert_int_equal(bad.n, 3);
  assert_int_equal(bad.status, EV_EINVAL);
  assert_int_equal(ev_ledger_writer_close(w), EV_OK);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 6);
  ev_ledger_close(l);
}

static void a_full_queue_says_so_and_makes_callers_wait(void **state) {
  (void)state;
  ev_ledger_writer_options o;
  ev_ledger_writer_defaults(&o);
  o.queue_rows = 10;
  ev_ledger_writer *w = writer("queue", &o);
  ev_ledger *other = ledger("queue");
  assert_int_equal(ev_ledger_exec(other, "BEGIN IMMEDIATE"), EV_OK); /* the writer waits until the COMMIT below */
  int posted = 0;
  ev_status status = EV_OK;
  for (; posted < 100 && status == EV_OK; posted += status == EV_OK) {
    char id[24];
    snprintf(id, sizeof id, "e%d", posted);
    ev_event e = event(id, "i", 1);
    status = ev_ledger_post(w, &(ev_ledger_batch){.events = &e, .n_events = 1}, NULL, NULL);
  }
  assert_int_equal(status, EV_ELIMIT);
  assert_non_null(strstr(ev_error(), "queue is full"));
  assert_true(posted >= 10 && posted <= 21); /* some may be with the writer already */
  assert_int_equal(ev_ledger_exec(other, "COMMIT"), EV_OK);
  ev_event e[40];
  char ids[40][24];
  for (int i = 0; i < 40; i++) {
    snprintf(ids[i], sizeof ids[i], "big %d", i);
    e[i] = event(ids[i], "i", 1);
  }
  ev_ledger_receipt r;
  assert_int_equal(ev_ledger_submit(w, &(ev_ledger_batch){.events = e, .n_events = 40}, &r), EV_OK); /* larger than the queue: when that is empty */
  assert_int_equal(r.new_events, 40);
  assert_int_equal(ev_ledger_writer_close(w), EV_OK);
  assert_int_equal(number(other, "SELECT count(*) FROM events"), posted + 40);
  ev_ledger_close(other);
}

/* ---- Trouble ---------------------------------------------------------------------------------------------*/
static void a_full_disk_is_an_error_and_loses_nothing(void **state) {
  (void)state;
  ev_ledger_writer *w = writer("full", NULL);
  ev_event e[] = {event("before", "i", 1), event("refused", "i", 1), event("waits", "i", 1), event("after", "i", 1)};
  ev_ledger_receipt r;
  ev_ledger_writer_stats st;
  assert_int_equal(ev_ledger_submit(w, &(ev_ledger_batch){.events = &e[0], .n_events = 1}, &r), EV_OK);
  disk_full = 1;
  assert_int_equal(ev_ledger_submit(w, &(ev_ledger_batch){.events = &e[1], .n_events = 1}, &r), EV_EIO);
  assert_non_null(strstr(ev_error(), "full"));
  assert_int_equal(r.new_events, 0);
  assert_int_equal(ev_ledger_post(w, &(ev_ledger_batch){.events = &e[2], .n_events = 1}, NULL, NULL), EV_OK);
  assert_int_equal(ev_ledger_flush(w), EV_EIO); /* it waits, and will be tried again */
  ev_ledger_writer_stat(w, &st);
  assert_true(st.failures >= 2 && st.waiting == 1 && strstr(st.error, "full") != NULL);
  ev_ledger *l = ledger("full");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 1);
  disk_full = 0;
  assert_int_equal(ev_ledger_submit(w, &(ev_ledger_batch){.events = &e[3], .n_events = 1}, &r), EV_OK);
  assert_int_equal(ev_ledger_flush(w), EV_OK);
  assert_int_equal(number(l, "SELECT count(*) FROM events WHERE id IN ('before', 'waits', 'after')"), 3);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 3);
  sound(l);
  ev_ledger_close(l);
  disk_full = 1;
  e[0].id = "lost";
  assert_int_equal(ev_ledger_post(w, &(ev_ledger_batch){.events = &e[0], .n_events = 1}, NULL, NULL), EV_OK);
  assert_int_equal(ev_ledger_writer_close(w), EV_EIO); /* and is not silent about it */
  assert_non_null(strstr(ev_error(), "1 rows that waited for the ledger are lost"));
  disk_full = 0;
}

/* A file that may not grow: as a quota, or ulimit -f. */
static void a_file_that_may_not_grow_is_an_error(void **state) {
  (void)state;
  ev_ledger *l = ledger("limit");
  ev_event e[400];
  char ids[400][24];
  size_t n, kept = 0;
  ev_status status = EV_OK;
  for (int i = 0; i < 400; i++) {
    snprintf(ids[i], sizeof ids[i], "e%d", i);
    e[i] = event(ids[i], "i", 1);
  }
  struct rlimit before, small;
  getrlimit(RLIMIT_FSIZE, &before);
  small = before;
  small.rlim_cur = 300000;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  for (int i = 0; i < 400 && status == EV_OK; i += 20) {
    status = ev_ledger_events(l, &e[i], 20, &n);
    if (status == EV_OK) kept += n;
  }
  char said[256];
  snprintf(said, sizeof said, "%s", ev_error());
  setrlimit(RLIMIT_FSIZE, &before);
  assert_int_equal(status, EV_EIO);
  if (strstr(said, "cannot be written (a quota") == NULL) fail_msg("%s", said);
  assert_true(kept > 0 && kept < 400);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), kept);
  assert_int_equal(ev_ledger_events(l, e, 400, &n), EV_OK); /* the same again, with room */
  assert_int_equal(n, 400 - kept);
  sound(l);
  ev_ledger_close(l);
}

static void a_locked_ledger_is_waited_for_and_queued_rows_outlast_it(void **state) {
  (void)state;
  ev_ledger_writer_options o;
  ev_ledger_writer_defaults(&o);
  assert_int_equal(o.busy_ms, 5000);
  o.busy_ms = 200;
  ev_ledger_writer *w = writer("locked", &o);
  ev_ledger *other = ledger("locked");
  ev_event e[] = {event("a", "i", 1), event("b", "i", 1)};
  ev_ledger_receipt r;
  assert_int_equal(ev_ledger_exec(other, "BEGIN IMMEDIATE"), EV_OK);
  assert_int_equal(ev_ledger_post(w, &(ev_ledger_batch){.events = &e[0], .n_events = 1}, NULL, NULL), EV_OK);
  assert_int_equal(ev_ledger_submit(w, &(ev_ledger_batch){.events = &e[1], .n_events = 1}, &r), EV_EIO);
  assert_non_null(strstr(ev_error(), "locked by another process"));
  assert_int_equal(number(other, "SELECT count(*) FROM events"), 0);
  assert_int_equal(ev_ledger_exec(other, "ROLLBACK"), EV_OK);
  assert_int_equal(ev_ledger_submit(w, &(ev_ledger_batch){.events = &e[1], .n_events = 1}, &r), EV_OK);
  assert_int_equal(ev_ledger_flush(w), EV_OK);
  assert_int_equal(number(other, "SELECT count(*) FROM events"), 2);
  assert_int_equal(ev_ledger_writer_close(w), EV_OK);
  ev_ledger_close(other);
}

static void a_writer_without_a_file_is_refused(void **state) {
  (void)state;
  ev_ledger_writer *w;
  assert_int_equal(ev_ledger_writer_open(&w, in_folder("no/such/folder"), NULL), EV_EIO);
  assert_null(w);
  assert_int_equal(ev_ledger_writer_close(NULL), EV_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_sync_serves_many_who_wait), cmocka_unit_test(posted_rows_are_copied_and_answered), cmocka_unit_test(a_batch_out_of_range_fails_alone),
      cmocka_unit_test(a_full_queue_says_so_and_makes_callers_wait), cmocka_unit_test(a_full_disk_is_an_error_and_loses_nothing),
      cmocka_unit_test(a_file_that_may_not_grow_is_an_error), cmocka_unit_test(a_locked_ledger_is_waited_for_and_queued_rows_outlast_it),
      cmocka_unit_test(a_writer_without_a_file_is_refused),
  };
  return RUN(tests);
}
