/* serve_scribe.c - a process writes the ledger for others: what they posted is there, in order, they are told what came of it, and
 * neither a full ring, wrong rows, a locked file or a full disk, nor the death of either side costs anybody else anything. */
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "scribe_world.h"

/* ---- A disk, before the C library's, that the test and the writer share -----------------------------------*/
typedef struct disk {
  atomic_int full, dies_at_sync; /* dies: the process that syncs, once so many have been made */
  atomic_int n_syncs;
} disk;
static disk *the_disk;

int fdatasync(int fd) {
  (void)fd;
  if (the_disk == NULL) return 0;
  the_disk->n_syncs++;
  if (the_disk->dies_at_sync > 0 && --the_disk->dies_at_sync == 0) raise(SIGKILL);
  return 0;
}

int fsync(int fd) { return fdatasync(fd); }

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) {
  if (the_disk != NULL && the_disk->full) {
    errno = ENOSPC;
    return -1;
  }
  return syscall(SYS_pwrite64, fd, data, n, offset);
}

/* ---- What came back ----------------------------------------------------------------------------------------*/
typedef struct heard {
  size_t n, n_ok, n_refused, n_new, n_slates, n_known;
  uintptr_t last;
  bool in_order;
  ev_status status; /* of the last refused */
  char error[256];
} heard;

static void hear(void *ctx, void *ticket, ev_status status, const char *error, const ev_ledger_receipt *r) {
  heard *h = ctx;
  uintptr_t number = (uintptr_t)ticket;
  if (h->n++ > 0 && number <= h->last) h->in_order = false;
  h->last = number;
  if (status == EV_OK) h->n_ok++;
  else {
    h->n_refused++;
    h->status = status;
    snprintf(h->error, sizeof h->error, "%s", error);
  }
  h->n_new += r->new_events;
  h->n_slates += r->new_impressions;
  h->n_known += r->known;
}

static void *ticket(size_t n) { return (void *)(uintptr_t)(n + 1); }

static void hear_all(scribe *s, size_t ring, int bell, heard *h) { /* until nobody waits */
  uint64_t until = ev_now_ns() + 30 * UINT64_C(1000000000);
  for (h->in_order = true; scribe_waiting(s, ring) > 0;) {
    rings(bell, 50);
    scribe_collect(s, ring, hear, h);
    if (ev_now_ns() > until) fail_msg("%zu tickets do not come back", scribe_waiting(s, ring));
  }
}

static scribe *a_scribe(size_t n_rings, size_t bytes, int *fds) {
  scribe *s;
  for (size_t i = 0; i < n_rings; i++) fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (scribe_new(&s, n_rings, bytes, fds) != EV_OK) fail_msg("%s", ev_error());
  return s;
}

static void ends(scribe *s, pid_t pid, size_t n_rings, const int *fds) {
  scribe_stop(s);
  assert_int_equal(ended(pid), EV_OK);
  scribe_free(s);
  for (size_t i = 0; i < n_rings; i++) close(fds[i]);
}

static ev_status post_event(scribe *s, size_t ring, const char *id, double value, void *t) {
  ev_event e = event(id, "i", value);
  return scribe_post(s, ring, &(ev_ledger_batch){.events = &e, .n_events = 1}, t);
}

/* ---- Many producers ----------------------------------------------------------------------------------------*/
enum { PRODUCERS = 4, BATCHES = 400 };
typedef struct producer {
  scribe *s;
  size_t ring;
  int bell;
  heard h;
  size_t n_full;
  bool failed;
} producer;

static void *produce(void *arg) {
  producer *p = arg;
  sent x;
  p->h.in_order = true;
  for (uint32_t n = 0; n < BATCHES; n++) {
    ev_ledger_batch b = batch_of(&x, (uint32_t)p->ring, n);
    ev_status status;
    while ((status = scribe_post(p->s, p->ring, &b, n % 3 == 0 ? ticket(n) : NULL)) == EV_ELIMIT) {
      p->n_full++;
      rings(p->bell, 1000);
      scribe_collect(p->s, p->ring, hear, &p->h);
    }
    if (status != EV_OK) p->failed = true;
    memset(&x, 0xEE, sizeof x); /* the caller's memory is his again */
  }
  while (scribe_waiting(p->s, p->ring) > 0 && !p->failed) {
    if (!rings(p->bell, 20000)) p->failed = true;
    scribe_collect(p->s, p->ring, hear, &p->h);
  }
  return NULL;
}

static void what_many_post_is_there_in_their_order(void **state) {
  (void)state;
  int fds[PRODUCERS];
  producer p[PRODUCERS];
  pthread_t threads[PRODUCERS];
  scribe *s = a_scribe(PRODUCERS, 32768, fds); /* some forty batches: often full, often wrapped */
  pid_t pid = writer(s, "many");
  for (size_t i = 0; i < PRODUCERS; i++) {
    p[i] = (producer){s, i, fds[i], {0}, 0, false};
    assert_int_equal(pthread_create(&threads[i], NULL, produce, &p[i]), 0);
  }
  size_t n_full = 0, n_tickets = (BATCHES + 2) / 3;
  for (size_t i = 0; i < PRODUCERS; i++) {
    pthread_join(threads[i], NULL);
    assert_false(p[i].failed);
    assert_true(p[i].h.in_order);
    assert_int_equal(p[i].h.n_ok, n_tickets);
    assert_int_equal(p[i].h.n_new, n_tickets * ROWS);
    assert_int_equal(p[i].h.n_slates, n_tickets);
    assert_int_equal(p[i].h.n_known, 0);
    n_full += p[i].n_full;
  }
  assert_true(n_full > 0);
  scribe_stats st;
  scribe_stop(s);
  assert_int_equal(ended(pid), EV_OK);
  scribe_stat(s, &st);
  assert_int_equal(st.records, PRODUCERS * BATCHES);
  assert_int_equal(st.failures, 0);
  assert_int_equal(st.dropped, 0);
  assert_int_equal(st.waiting_bytes, 0);
  assert_string_equal(st.error, "");
  assert_true(st.commits < st.records / 4); /* not one a batch */
  scribe_free(s);
  for (size_t i = 0; i < PRODUCERS; i++) close(fds[i]);
  ev_ledger *l = ledger("many");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), PRODUCERS * BATCHES * ROWS);
  assert_int_equal(number(l, "SELECT count(*) FROM impressions"), PRODUCERS * BATCHES);
  /* Rows of a producer have numbers in the order of his batches, which is their value. */
  assert_int_equal(number(l, "SELECT count(*) FROM (SELECT value, lag(value) OVER (PARTITION BY substr(id, 1, 2) ORDER BY number) AS before FROM events) WHERE before > value"), 0);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE impression IS NULL"), PRODUCERS); /* the last wait for a slate that never came */
  assert_int_equal(wrong_totals(l), 0);
  sound(l);
  ev_ledger_close(l);
}

/* ---- Rings -------------------------------------------------------------------------------------------------*/
static void a_full_ring_says_so_and_its_bell_rings_when_there_is_room(void **state) {
  (void)state;
  int bell;
  char id[24];
  scribe *s = a_scribe(1, 5000, &bell); /* rounded up to 8192 */
  size_t n = 0;
  ev_status status;
  for (; n < 1000; n++) { /* nobody writes yet */
    snprintf(id, sizeof id, "e%zu", n);
    status = post_event(s, 0, id, (double)n, NULL);
    if (status != EV_OK) break;
  }
  assert_int_equal(status, EV_ELIMIT);
  assert_non_null(strstr(ev_error(), "does not keep up"));
  assert_true(n > 50 && n < 100);
  scribe_stats st;
  scribe_stat(s, &st);
  assert_true(st.waiting_bytes > 8000 && st.waiting_bytes <= 8192);
  ev_event many[100];
  for (int i = 0; i < 100; i++) many[i] = event(NULL, "i", i);
  assert_int_equal(scribe_post(s, 0, &(ev_ledger_batch){.events = many, .n_events = 100}, NULL), EV_EINVAL); /* never fits */
  assert_non_null(strstr(ev_error(), "100 rows are too much"));
  assert_false(rings(bell, 0));
  pid_t pid = writer(s, "ring");
  assert_true(rings(bell, 20000));
  for (int i = 0; i < 500; i++, n++) { /* around and around; waits where it is full */
    snprintf(id, sizeof id, "e%zu", n);
    while ((status = post_event(s, 0, id, (double)n, NULL)) == EV_ELIMIT) assert_true(rings(bell, 20000));
    assert_int_equal(status, EV_OK);
  }
  while (scribe_post(s, 0, &(ev_ledger_batch){.events = many, .n_events = 75}, NULL) == EV_ELIMIT) assert_true(rings(bell, 20000)); /* nearly half of it */
  ends(s, pid, 1, &bell);
  ev_ledger *l = ledger("ring");
  assert_int_equal(number(l, "SELECT count(*) FROM events WHERE id LIKE 'e%' AND length(id) < 9"), n);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), n + 75);
  ev_ledger_close(l);
}

static void rings_that_cannot_be_are_refused(void **state) {
  (void)state;
  scribe *s;
  assert_int_equal(scribe_new(&s, 0, 4096, NULL), EV_EINVAL);
  assert_int_equal(scribe_new(&s, 1, 0, NULL), EV_EINVAL);
  assert_int_equal(scribe_new(&s, 1, (size_t)1 << 40, NULL), EV_EINVAL);
  assert_null(s);
  scribe_free(NULL);
  assert_int_equal(scribe_new(&s, 1, 4096, NULL), EV_OK); /* without a bell */
  assert_int_equal(scribe_run(s, in_folder("no/such/folder")), EV_EIO);
  scribe_free(s);
}

/* ---- Wrong rows --------------------------------------------------------------------------------------------*/
static void wrong_rows_are_refused_with_their_reason_and_neighbours_pass(void **state) {
  (void)state;
  int bell;
  heard h = {0};
  ev_ledger *l = ledger("wrong");
  assert_int_equal(ev_ledger_set_range(l, "click", 0, 5), EV_OK);
  ev_ledger_close(l);
  scribe *s = a_scribe(1, 65536, &bell);
  for (size_t i = 0; i < 9; i++) { /* one commit, since nobody writes yet */
    char id[24];
    snprintf(id, sizeof id, "e%zu", i);
    assert_int_equal(post_event(s, 0, id, i % 3 == 1 ? 50 : 1, ticket(i)), EV_OK);
  }
  ev_impression unlikely = slate("s");
  unlikely.propensity = 0;
  assert_int_equal(scribe_post(s, 0, &(ev_ledger_batch){.impressions = &unlikely, .n_impressions = 1}, NULL), EV_OK); /* nobody to be told */
  assert_int_equal(post_event(s, 0, "e9", 1, NULL), EV_OK);
  assert_int_equal(scribe_waiting(s, 0), 9);
  pid_t pid = writer(s, "wrong");
  hear_all(s, 0, bell, &h);
  assert_int_equal(h.n_ok, 6);
  assert_int_equal(h.n_refused, 3);
  assert_int_equal(h.n_new, 6);
  assert_true(h.in_order);
  assert_string_equal(h.error, "event 0: the value 50 of 'click' is not between 0 and 5");
  scribe_stats st;
  scribe_stop(s);
  assert_int_equal(ended(pid), EV_OK);
  scribe_stat(s, &st);
  assert_int_equal(st.records, 7);
  assert_int_equal(st.commits, 1);
  assert_int_equal(st.dropped, 1);
  assert_string_equal(st.error, "impression 0: the propensity of the slate is 0; it is above 0 and at most 1");
  scribe_free(s);
  close(bell);
  l = ledger("wrong");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 7);
  assert_int_equal(number(l, "SELECT count(*) FROM impressions"), 0);
  ev_ledger_close(l);
}

/* ---- Trouble -----------------------------------------------------------------------------------------------*/
static void a_locked_ledger_fails_who_waits_and_the_others_outlast_it(void **state) {
  (void)state;
  int bell;
  heard h = {0};
  scribe *s = a_scribe(1, 65536, &bell);
  pid_t pid = writer(s, "locked");
  assert_int_equal(post_event(s, 0, "first", 1, ticket(0)), EV_OK);
  hear_all(s, 0, bell, &h);
  assert_int_equal(h.n_ok, 1);
  ev_ledger *other = ledger("locked");
  assert_int_equal(ev_ledger_exec(other, "BEGIN IMMEDIATE"), EV_OK);
  assert_int_equal(post_event(s, 0, "waits", 1, NULL), EV_OK);
  assert_int_equal(post_event(s, 0, "told", 1, ticket(1)), EV_OK);
  uint64_t since = ev_now_ns();
  usleep(100000);
  assert_int_equal(post_event(s, 0, "told later", 1, ticket(2)), EV_OK); /* the writer is waiting already */
  hear_all(s, 0, bell, &h);
  double seconds = (double)(ev_now_ns() - since) * 1e-9;
  assert_int_equal(h.n_refused, 2);
  assert_int_equal(h.status, EV_EIO);
  assert_non_null(strstr(h.error, "locked by another process"));
  assert_true(seconds > 1.9 && seconds < 6);
  assert_int_equal(ev_ledger_exec(other, "ROLLBACK"), EV_OK);
  assert_int_equal(post_event(s, 0, "last", 1, ticket(3)), EV_OK);
  hear_all(s, 0, bell, &h);
  assert_int_equal(h.n_ok, 2);
  ends(s, pid, 1, &bell);
  assert_int_equal(number(other, "SELECT count(*) FROM events WHERE id IN ('first', 'waits', 'last')"), 3);
  assert_int_equal(number(other, "SELECT count(*) FROM events"), 3);
  ev_ledger_close(other);
}

static void a_full_disk_is_told_and_loses_nothing_of_what_waits(void **state) {
  (void)state;
  int bell;
  heard h = {0};
  char id[24];
  scribe *s = a_scribe(1, 1 << 20, &bell);
  pid_t pid = writer(s, "full");
  assert_int_equal(post_event(s, 0, "first", 1, ticket(0)), EV_OK);
  hear_all(s, 0, bell, &h);
  the_disk->full = 1;
  for (int i = 0; i < 100; i++) {
    snprintf(id, sizeof id, "waits %d", i);
    assert_int_equal(post_event(s, 0, id, 1, NULL), EV_OK);
    if (i % 10 != 0) continue;
    snprintf(id, sizeof id, "told %d", i);
    assert_int_equal(post_event(s, 0, id, 1, ticket(1 + (size_t)i)), EV_OK);
  }
  hear_all(s, 0, bell, &h);
  assert_int_equal(h.n_ok, 1);
  assert_int_equal(h.n_refused, 10);
  assert_non_null(strstr(h.error, "full"));
  usleep(300000); /* it is tried again meanwhile */
  scribe_stats st;
  scribe_stat(s, &st);
  assert_int_equal(st.records, 1);
  assert_true(st.failures >= 10 && strstr(st.error, "full") != NULL);
  the_disk->full = 0;
  assert_int_equal(post_event(s, 0, "last", 1, ticket(200)), EV_OK);
  hear_all(s, 0, bell, &h);
  assert_int_equal(h.n_ok, 2);
  ends(s, pid, 1, &bell);
  ev_ledger *l = ledger("full");
  assert_int_equal(number(l, "SELECT count(*) FROM events WHERE id LIKE 'waits %'"), 100);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 102);
  sound(l);
  ev_ledger_close(l);
}

static void a_disk_that_stays_full_does_not_hold_up_a_stop(void **state) {
  (void)state;
  int bell;
  scribe *s = a_scribe(1, 65536, &bell);
  heard h = {0};
  pid_t pid = writer(s, "stays");
  assert_int_equal(post_event(s, 0, "first", 1, ticket(0)), EV_OK);
  hear_all(s, 0, bell, &h);
  the_disk->full = 1;
  assert_int_equal(post_event(s, 0, "lost", 1, NULL), EV_OK);
  uint64_t since = ev_now_ns();
  scribe_stop(s);
  assert_int_equal(ended(pid), EV_EIO);
  the_disk->full = 0;
  double seconds = (double)(ev_now_ns() - since) * 1e-9;
  assert_true(seconds > 1e-3 * SCRIBE_LAST_MS && seconds < 1e-3 * SCRIBE_LAST_MS + 4);
  scribe_free(s);
  close(bell);
}

/* ---- The death of either side --------------------------------------------------------------------------------*/
/* The writer dies over its first commit, at one sync of it or another: → the commit is in the file, and nobody could be told. Then
 * two more die over going on. */
static bool told_rightly_after_death_at(int sync) {
  int bell, status;
  heard h = {0};
  sent x;
  char name[32];
  scribe *s = a_scribe(1, 65536, &bell);
  promotion p = {.version = "v9", .action = "stage", .reason = "made", .share = NAN};
  snprintf(name, sizeof name, "told at %d", sync);
  for (uint32_t n = 0; n < 4; n++) {
    ev_ledger_batch b = batch_of(&x, 1, n);
    assert_int_equal(scribe_post(s, 0, &b, n < 2 ? ticket(n) : NULL), EV_OK);
  }
  ev_event wrong = event("wrong", "i", NAN);
  assert_int_equal(scribe_post(s, 0, &(ev_ledger_batch){.events = &wrong, .n_events = 1}, ticket(4)), EV_OK);
  assert_int_equal(scribe_promote(s, 0, &p), EV_OK);
  ev_ledger_close(ledger(name));
  for (int deaths = 0; deaths < 3; deaths++) {
    the_disk->dies_at_sync = deaths == 0 ? sync : 1;
    pid_t pid = writer(s, name);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    scribe_collect(s, 0, hear, &h);
    assert_int_equal(h.n, 0);
  }
  ev_ledger *l = ledger(name);
  bool made = number(l, "SELECT count(*) FROM events") == 4 * ROWS;
  ev_ledger_close(l);
  pid_t pid = writer(s, name);
  hear_all(s, 0, bell, &h);
  assert_int_equal(h.n_ok, 2);
  assert_int_equal(h.n_new, 2 * ROWS);
  assert_int_equal(h.n_slates, 2);
  assert_int_equal(h.n_known, 0);
  assert_int_equal(h.n_refused, 1);
  assert_string_equal(h.error, "event 0: the value nan is no finite number");
  ends(s, pid, 1, &bell);
  l = ledger(name);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 4 * ROWS);
  assert_int_equal(number(l, "SELECT count(*) FROM promotions"), 1);
  assert_int_equal(counter(l, "duplicate_events"), 0);
  assert_int_equal(wrong_totals(l), 0);
  ev_ledger_close(l);
  return made;
}

static void who_was_not_told_is_told_rightly_by_the_next_writer(void **state) {
  (void)state;
  assert_false(told_rightly_after_death_at(1)); /* of the head of SQLite's log */
  told_rightly_after_death_at(2);               /* of the folder */
  assert_true(told_rightly_after_death_at(3));  /* of the commit */
}

static void a_producer_that_was_killed_leaves_its_rows_and_no_tickets(void **state) {
  (void)state;
  int bell;
  heard h = {0};
  scribe *s = a_scribe(1, 65536, &bell);
  atomic_int *posted = shared(4096);
  pid_t child = fork();
  if (child == 0) {
    sent x;
    for (uint32_t n = 0; n < 20; n++) {
      ev_ledger_batch b = batch_of(&x, 1, n);
      if (scribe_post(s, 0, &b, n % 2 ? ticket(n) : NULL) != EV_OK) _exit(1);
      *posted = (int)n + 1;
    }
    for (;;) pause();
  }
  while (*posted < 20) usleep(1000);
  killed(child);
  assert_int_equal(scribe_waiting(s, 0), 10);
  assert_int_equal(scribe_attach(s, 0, 20), EV_ELIMIT); /* nobody writes */
  assert_int_equal(scribe_waiting(s, 0), 0);
  scribe_collect(s, 0, hear, &h);
  pid_t pid = writer(s, "attached");
  assert_int_equal(scribe_attach(s, 0, 20000), EV_OK);
  for (uint32_t n = 20; n < 200; n++) { /* the ring is whole: around it */
    sent x;
    ev_ledger_batch b = batch_of(&x, 1, n);
    ev_status status;
    while ((status = scribe_post(s, 0, &b, ticket(n))) == EV_ELIMIT) {
      rings(bell, 1000);
      scribe_collect(s, 0, hear, &h);
    }
    assert_int_equal(status, EV_OK);
  }
  hear_all(s, 0, bell, &h);
  assert_int_equal(h.n, 180);
  assert_int_equal(h.n_ok, 180);
  ends(s, pid, 1, &bell);
  ev_ledger *l = ledger("attached");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 200 * ROWS);
  assert_int_equal(counter(l, "duplicate_events"), 0);
  ev_ledger_close(l);
  munmap(posted, 4096);
}

/* ---- Stopping ------------------------------------------------------------------------------------------------*/
static scribe *stopped_by_signal;
static void on_signal(int which) {
  (void)which;
  scribe_stop(stopped_by_signal);
}

static void a_stop_writes_what_is_left(void **state) {
  (void)state;
  int fds[2];
  sent x;
  scribe *s = a_scribe(2, 1 << 20, fds);
  stopped_by_signal = s;
  for (uint32_t n = 0; n < 800; n++) {
    ev_ledger_batch b = batch_of(&x, n % 2, n / 2);
    assert_int_equal(scribe_post(s, n % 2, &b, n % 7 == 0 ? ticket(n) : NULL), EV_OK);
  }
  struct sigaction a = {.sa_handler = on_signal}, before;
  sigaction(SIGUSR1, &a, &before);
  pid_t pid = writer(s, "stopped");
  sigaction(SIGUSR1, &before, NULL);
  usleep(3000);
  kill(pid, SIGUSR1); /* in the writer itself, wherever it is */
  assert_int_equal(ended(pid), EV_OK);
  heard h = {0}, g = {0};
  hear_all(s, 0, fds[0], &h);
  hear_all(s, 1, fds[1], &g);
  assert_int_equal(h.n_ok + g.n_ok, 115);
  scribe_free(s);
  close(fds[0]);
  close(fds[1]);
  ev_ledger *l = ledger("stopped");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 800 * ROWS);
  assert_int_equal(wrong_totals(l), 0);
  ev_ledger_close(l);
}

/* ---- Rows that nobody waits for ------------------------------------------------------------------------------*/
static void what_nobody_waits_for_gathers_and_a_ticket_takes_it_along(void **state) {
  (void)state;
  int bell;
  heard h = {0};
  scribe_stats st;
  sent x;
  scribe *s = a_scribe(1, 1 << 20, &bell);
  pid_t pid = writer(s, "lingers");
  assert_int_equal(post_event(s, 0, "first", 1, ticket(0)), EV_OK); /* it is up */
  hear_all(s, 0, bell, &h);
  scribe_stat(s, &st);
  assert_int_equal(st.commits, 1);
  for (uint32_t n = 0; n < 50; n++) {
    ev_ledger_batch b = batch_of(&x, 1, n);
    assert_int_equal(scribe_post(s, 0, &b, NULL), EV_OK);
  }
  assert_int_equal(post_event(s, 0, "second", 1, ticket(1)), EV_OK);
  hear_all(s, 0, bell, &h);
  scribe_stat(s, &st);
  assert_int_equal(st.records, 52); /* rows of before the ticket are there with it */
  assert_true(st.commits <= 4);
  ev_ledger_batch b = batch_of(&x, 1, 50);
  assert_int_equal(scribe_post(s, 0, &b, NULL), EV_OK);
  uint64_t until = ev_now_ns() + 20 * UINT64_C(1000000000);
  do scribe_stat(s, &st);
  while (st.records < 53 && ev_now_ns() < until && usleep(1000) == 0);
  assert_int_equal(st.records, 53); /* nobody asked, and nobody had to */
  ends(s, pid, 1, &bell);
}

/* ---- Promotions ----------------------------------------------------------------------------------------------*/
static void promotions_are_rows_of_versions_and_promotions(void **state) {
  (void)state;
  int bell;
  scribe *s = a_scribe(1, 65536, &bell);
  const promotion list[] = {
      {.version = "new", .against = "old", .action = "stage", .reason = "asked for", .share = NAN},
      {.version = "new", .against = "old", .action = "canary", .reason = "asked for", .share = 0.25},
      {.version = "new", .against = "old", .action = "promote", .reason = "better", .evidence = "{\"lift\": 0.25, \"who\": \"W\xC3\xA4r\"}", .share = NAN, .ends_canary = true},
      {.version = "old", .action = "canary", .reason = "again", .share = 1},
  };
  for (size_t i = 0; i < 4; i++) assert_int_equal(scribe_promote(s, 0, &list[i]), EV_OK);
  promotion wrong = list[0];
  wrong.action = "praise";
  assert_int_equal(scribe_promote(s, 0, &wrong), EV_EINVAL);
  wrong = list[0];
  wrong.reason = NULL;
  assert_int_equal(scribe_promote(s, 0, &wrong), EV_EINVAL);
  wrong = list[0];
  wrong.version = "\xFF";
  assert_int_equal(scribe_promote(s, 0, &wrong), EV_EINVAL);
  sent x;
  ev_ledger_batch b = batch_of(&x, 1, 1); /* of version v1, in the same commit */
  assert_int_equal(scribe_post(s, 0, &b, NULL), EV_OK);
  pid_t pid = writer(s, "promoted");
  ends(s, pid, 1, &bell);
  ev_ledger *l = ledger("promoted");
  assert_int_equal(number(l, "SELECT count(*) FROM versions"), 3);
  assert_int_equal(number(l, "SELECT count(*) FROM promotions"), 4);
  assert_int_equal(number(l, "SELECT count(*) FROM promotion_log WHERE action = 'stage' AND version = 'new' AND against = 'old' AND share IS NULL AND evidence IS NULL AND reason = 'asked for'"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM promotions WHERE action = 'canary' AND share = 0.25 AND from_ms = at_ms_wall AND until_ms >= from_ms"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM promotion_log WHERE action = 'promote' AND json_extract(evidence, '$.lift') = 0.25 AND json_extract(evidence, '$.who') = 'W\xC3\xA4r'"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM promotion_log WHERE action = 'canary' AND version = 'old' AND against IS NULL AND until IS NULL"), 1); /* runs */
  ev_ledger_close(l);
}

int main(void) {
  the_disk = shared(sizeof *the_disk);
  ev_log_set((ev_log_level)(EV_LOG_ERROR + 1)); /* what the writer says of the trouble made here */
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_many_post_is_there_in_their_order),
      cmocka_unit_test(a_full_ring_says_so_and_its_bell_rings_when_there_is_room),
      cmocka_unit_test(rings_that_cannot_be_are_refused),
      cmocka_unit_test(wrong_rows_are_refused_with_their_reason_and_neighbours_pass),
      cmocka_unit_test(a_locked_ledger_fails_who_waits_and_the_others_outlast_it),
      cmocka_unit_test(a_full_disk_is_told_and_loses_nothing_of_what_waits),
      cmocka_unit_test(a_disk_that_stays_full_does_not_hold_up_a_stop),
      cmocka_unit_test(who_was_not_told_is_told_rightly_by_the_next_writer),
      cmocka_unit_test(a_producer_that_was_killed_leaves_its_rows_and_no_tickets),
      cmocka_unit_test(a_stop_writes_what_is_left),
      cmocka_unit_test(what_nobody_waits_for_gathers_and_a_ticket_takes_it_along),
      cmocka_unit_test(promotions_are_rows_of_versions_and_promotions),
  };
  return RUN(tests);
}
