/* reward_ledger.c - the ledger: schema, events counted once and all or none, locks, what is no ledger, a kill in mid-writing. */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "ledger_world.h"

static void the_schema_is_made_once_and_found_again(void **state) {
  (void)state;
  ev_ledger *l = ledger("schema");
  assert_int_equal(number(l, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('genomes', 'runs', 'evaluations', 'looks', 'events')"), 5);
  assert_int_equal(number(l, "PRAGMA user_version"), 2);
  assert_int_equal(number(l, "PRAGMA synchronous"), 2); /* FULL */
  assert_int_equal(number(l, "PRAGMA busy_timeout"), 5000);
  assert_int_equal(number(l, "SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal'"), 1);
  assert_int_equal(ev_ledger_exec(l, "INSERT INTO genomes VALUES ('h', '{}'); INSERT INTO genomes VALUES ('i', '{}')"), EV_OK);
  assert_true(ev_ledger_exec(l, "INSERT INTO genomes VALUES ('h', '{}')") != EV_OK); /* it is there */
  assert_non_null(strstr(ev_error(), "schema"));                                     /* the message names the file */
  ev_ledger_close(l);
  l = ledger("schema");
  assert_int_equal(number(l, "SELECT count(*) FROM genomes"), 2);
  assert_int_equal(ev_ledger_exec(l, "PRAGMA user_version = 3"), EV_OK);
  ev_ledger_close(l);
  assert_int_equal(ev_ledger_open(&l, in_folder("schema")), EV_EINVAL); /* of a newer version */
  assert_null(l);
  ev_ledger_close(NULL);
}

static void an_event_counts_once(void **state) {
  (void)state;
  ev_ledger *l = ledger("once");
  ev_event first[] = {event("a", "i", 1), event("b", "i", 1), event("a", "j", 2)};
  size_t n;
  first[1].version = "v7";
  assert_int_equal(ev_ledger_events(l, first, 3, &n), EV_OK);
  assert_int_equal(n, 2);
  assert_int_equal(ev_ledger_events(l, first, 3, &n), EV_OK);
  assert_int_equal(n, 0);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 2);
  assert_int_equal(number(l, "SELECT count(*) FROM events WHERE id = 'a' AND user = 'u' AND item = 'i' AND type = 'click' AND value = 1 "
                             "AND time_ms = 1700000000123 AND version = 0"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE id = 'a' AND version IS NULL AND time = '2023-11-14 22:13:20.123'"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE id = 'b' AND version = 'v7'"), 1);
  /* Without an id, an event is what it says: another field makes another event. The version does not: it is who served it. */
  ev_event e = event(NULL, "i", 1), named[] = {e, e, event(NULL, "j", 1), event(NULL, "i", 2), e, e, e};
  named[4].user = "v";
  named[5].type = "view";
  named[6].time_ms++;
  assert_int_equal(ev_ledger_events(l, named, 7, &n), EV_OK);
  assert_int_equal(n, 6);
  ev_event shifted[] = {{.user = "ab", .item = "c", .type = "t"}, {.user = "a", .item = "bc", .type = "t"}}; /* the same letters, cut elsewhere */
  assert_int_equal(ev_ledger_events(l, shifted, 2, &n), EV_OK);
  assert_int_equal(n, 2);
  assert_int_equal(ev_ledger_events(l, NULL, 0, &n), EV_OK);
  assert_int_equal(n, 0);
  ev_ledger_close(l);
  l = ledger("once");
  assert_int_equal(ev_ledger_events(l, named, 7, &n), EV_OK);
  assert_int_equal(n, 0); /* known from before */
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 10);
  sound(l);
  ev_ledger_close(l);
}

static void a_bad_event_keeps_out_the_whole_batch(void **state) {
  (void)state;
  ev_ledger *l = ledger("batch");
  ev_event batch[] = {event("a", "i", 1), event("b", "i", NAN), event("c", "i", 1)}, nobody = event("d", "i", 1);
  size_t n = 99;
  assert_true(ev_ledger_events(l, batch, 3, &n) != EV_OK); /* no number */
  assert_int_equal(n, 0);
  nobody.user = NULL;
  batch[1] = nobody;
  assert_true(ev_ledger_events(l, batch, 3, &n) != EV_OK);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 0);
  batch[1] = event("b", "i", 1);
  assert_int_equal(ev_ledger_events(l, batch, 3, &n), EV_OK); /* and the next is none the worse */
  assert_int_equal(n, 3);
  assert_int_equal(ev_ledger_exec(l, "BEGIN"), EV_OK);
  assert_int_equal(ev_ledger_events(l, batch, 3, &n), EV_EIO); /* inside another transaction */
  ev_ledger_close(l);
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void a_lock_is_waited_for_and_then_an_error(void **state) {
  (void)state;
  ev_ledger *l = ledger("lock"), *other = ledger("lock");
  ev_event e = event("a", "i", 1);
  size_t n;
  assert_int_equal(ev_ledger_exec(other, "BEGIN IMMEDIATE"), EV_OK);
  sqlite3_busy_timeout(ev_ledger_db(l), 200); /* 5 s in earnest, which the first test reads */
  double start = seconds();
  assert_int_equal(ev_ledger_events(l, &e, 1, &n), EV_EIO);
  assert_non_null(strstr(ev_error(), "locked"));
  assert_true(seconds() - start >= 0.15);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 0); /* readers are not kept waiting */
  assert_int_equal(ev_ledger_exec(other, "ROLLBACK"), EV_OK);
  assert_int_equal(ev_ledger_events(l, &e, 1, &n), EV_OK);
  assert_int_equal(n, 1);
  ev_ledger_close(l);
  ev_ledger_close(other);
}

static void *let_go(void *other) {
  usleep(150000);
  return ev_ledger_exec(other, "COMMIT") == EV_OK ? other : NULL;
}

static void a_lock_let_go_in_time_is_no_error(void **state) {
  (void)state;
  ev_ledger *l = ledger("wait"), *other = ledger("wait");
  ev_event e = event("a", "i", 1);
  size_t n;
  pthread_t thread;
  void *fine;
  assert_int_equal(ev_ledger_exec(other, "BEGIN IMMEDIATE"), EV_OK);
  assert_int_equal(pthread_create(&thread, NULL, let_go, other), 0);
  assert_int_equal(ev_ledger_events(l, &e, 1, &n), EV_OK);
  pthread_join(thread, &fine);
  assert_non_null(fine);
  ev_ledger_close(l);
  ev_ledger_close(other);
}

static void processes_that_open_a_new_ledger_at_once_all_get_it(void **state) {
  (void)state;
  enum { ROUNDS = 10, PROCESSES = 6 };
  for (int round = 0; round < ROUNDS; round++) {
    char name[16];
    int gate[2];
    pid_t pids[PROCESSES];
    snprintf(name, sizeof name, "new%d", round);
    assert_int_equal(pipe(gate), 0);
    for (int p = 0; p < PROCESSES; p++) {
      pids[p] = fork();
      if (pids[p] != 0) continue;
      char id[16], byte;
      snprintf(id, sizeof id, "p%d", p);
      close(gate[1]);
      ev_ledger *l;
      ev_event e = event(id, "i", 1);
      size_t n = 0;
      if (read(gate[0], &byte, 1) != 0) _exit(3); /* all start when the parent closes it */
      if (ev_ledger_open(&l, in_folder(name)) != EV_OK) {
        fprintf(stderr, "%s\n", ev_error());
        _exit(1);
      }
      ev_status status = ev_ledger_events(l, &e, 1, &n);
      ev_ledger_close(l);
      _exit(status == EV_OK && n == 1 ? 0 : 2);
    }
    close(gate[0]);
    close(gate[1]);
    for (int p = 0; p < PROCESSES; p++) {
      int status;
      assert_int_equal(waitpid(pids[p], &status, 0), pids[p]);
      assert_int_equal(status, 0);
    }
    ev_ledger *l = ledger(name);
    assert_int_equal(number(l, "SELECT count(*) FROM events"), PROCESSES);
    ev_ledger_close(l);
  }
}

static void what_is_no_ledger_is_refused(void **state) {
  (void)state;
  ev_ledger *l;
  char text[4096];
  memset(text, 'x', sizeof text);
  write_text(in_folder("text"), text, sizeof text);
  assert_int_equal(ev_ledger_open(&l, in_folder("text")), EV_ECORRUPT);
  assert_null(l);
  assert_non_null(strstr(ev_error(), in_folder("text")));
  assert_int_equal(mkdir(in_folder("directory"), 0777), 0);
  assert_int_equal(ev_ledger_open(&l, in_folder("directory")), EV_EIO);
  assert_int_equal(ev_ledger_open(&l, in_folder("no/such/folder")), EV_EIO);
  write_text(in_folder("empty"), "", 0); /* an empty file is a database with nothing in it */
  assert_int_equal(ev_ledger_open(&l, in_folder("empty")), EV_OK);
  size_t n;
  ev_event e = event("a", "i", 1);
  assert_int_equal(ev_ledger_events(l, &e, 1, &n), EV_OK);
  ev_ledger_close(l);
  sqlite3 *db; /* somebody else's database is left as it is */
  assert_int_equal(sqlite3_open(in_folder("foreign"), &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "CREATE TABLE events (mine TEXT)", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  assert_true(ev_ledger_open(&l, in_folder("foreign")) != EV_OK);
  assert_int_equal(sqlite3_open(in_folder("foreign"), &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "INSERT INTO events (mine) VALUES ('x'); DELETE FROM events", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "SELECT * FROM genomes", NULL, NULL, NULL), SQLITE_ERROR); /* no half of a schema */
  sqlite3_close(db);
}

static ev_status through(const char *path) {
  ev_ledger *l;
  ev_event events[] = {event(NULL, "i", 1), event("b", "i", 1)};
  size_t n;
  EV_TRY(ev_ledger_open(&l, path));
  ev_status status = ev_ledger_events(l, events, 2, &n);
  ev_ledger_close(l);
  return status;
}

static void ledgers_survive_faults(void **state) {
  (void)state;
  ASSERT_SURVIVES_FAULTS(through(in_folder("faults")), );
  ev_ledger *l = ledger("faults");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 2);
  ev_ledger_close(l);
}

/* ---- Kill ----------------------------------------------------------------------------------------------*/
enum { BATCH = 3 };

/* Writes batches without end, and says each one's number when the ledger has said that it is there. */
static void write_until_killed(const char *path, int to) {
  ev_ledger *l;
  if (ev_ledger_open(&l, path) != EV_OK) _exit(1);
  uint32_t first = (uint32_t)number(l, "SELECT count(*) FROM events") / BATCH;
  for (uint32_t batch = first;; batch++) {
    char ids[BATCH][32];
    ev_event events[BATCH];
    size_t n;
    for (int i = 0; i < BATCH; i++) {
      snprintf(ids[i], sizeof ids[i], "%u.%d", batch, i);
      events[i] = event(ids[i], "i", batch);
    }
    if (ev_ledger_events(l, events, BATCH, &n) != EV_OK || n != BATCH) _exit(2);
    if (write(to, &batch, sizeof batch) != sizeof batch) _exit(3);
  }
}

static void what_was_acknowledged_outlives_a_kill(void **state) {
  (void)state;
  char path[160];
  snprintf(path, sizeof path, "%s", in_folder("killed"));
  ev_rng r;
  ev_rng_seed(&r, 6, 0);
  int64_t acknowledged = -1;
  for (int round = 0; round < 8; round++) {
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
      close(ends[0]);
      write_until_killed(path, ends[1]);
    }
    close(ends[1]);
    uint32_t batch;
    for (uint32_t left = 1 + ev_rng_below(&r, 20); left > 0; left--) {
      assert_int_equal(read(ends[0], &batch, sizeof batch), sizeof batch);
      assert_int_equal(batch, acknowledged + 1);
      acknowledged = batch;
    }
    usleep(ev_rng_below(&r, 3000)); /* at any point of the next batch */
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (read(ends[0], &batch, sizeof batch) == sizeof batch) acknowledged = batch; /* what it had said by then */
    close(ends[0]);
    ev_ledger *l = ledger("killed");
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM events WHERE value <= %lld", (long long)acknowledged);
    assert_int_equal(number(l, sql), BATCH * (acknowledged + 1));
    int64_t all = number(l, "SELECT count(*) FROM events"); /* at most one batch more, and that whole */
    assert_true(all == BATCH * (acknowledged + 1) || all == BATCH * (acknowledged + 2));
    assert_int_equal(number(l, "SELECT count(*) FROM (SELECT value FROM events GROUP BY value HAVING count(*) <> 3)"), 0);
    acknowledged = all / BATCH - 1;
    sound(l);
    ev_ledger_close(l);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_schema_is_made_once_and_found_again), cmocka_unit_test(an_event_counts_once), cmocka_unit_test(a_bad_event_keeps_out_the_whole_batch),
      cmocka_unit_test(a_lock_is_waited_for_and_then_an_error), cmocka_unit_test(a_lock_let_go_in_time_is_no_error),
      cmocka_unit_test(processes_that_open_a_new_ledger_at_once_all_get_it), cmocka_unit_test(what_is_no_ledger_is_refused), cmocka_unit_test(ledgers_survive_faults),
      cmocka_unit_test(what_was_acknowledged_outlives_a_kill),
  };
  return RUN(tests);
}
