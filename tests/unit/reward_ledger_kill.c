/* reward_ledger_kill.c - a process that takes impressions and events from several threads is killed at a random moment, again and
 * again: what it had acknowledged is there, once, and what it was in the middle of is there whole or not at all.
 *
 * EVECTION_KILL_ROUNDS (default 15) kills, from EVECTION_KILL_SEED (default 1). A batch follows from its caller and its number, so
 * that a number in a pipe is all that the child says. After a kill every caller sends his last batch again, as clients do. A killed
 * process loses nothing of what it gave to the system, so syncs only take their time, and writes are made in two parts. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "ledger_world.h"
#include "slow_disk.h"

enum { CALLERS = 4, ROWS = 6 };

/* ---- Writes in two parts ----------------------------------------------------------------------------------*/
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) {
  if (slow && n > 1 && ev_now_ns() % 8 == 0) { /* SQLite writes the rest in another call */
    n = 1 + (size_t)ev_now_ns() % (n - 1);
    dawdle(100);
  }
  return syscall(SYS_pwrite64, fd, data, n, offset);
}

/* ---- Batches ---------------------------------------------------------------------------------------------*/
typedef struct sent {
  char id[20], ids[ROWS][28];
  ev_impression slate;
  ev_event events[ROWS];
} sent;

/* Two of the events of batch n are about the slate of batch n + 1, which comes later. */
static ev_ledger_batch batch_of(sent *s, uint32_t who, uint32_t n, char next[20]) {
  snprintf(s->id, sizeof s->id, "%u.%u", who, n);
  snprintf(next, 20, "%u.%u", who, n + 1);
  s->slate = slate(s->id);
  s->slate.version = n % 2 ? "v1" : "v2";
  for (uint32_t i = 0; i < ROWS; i++) {
    snprintf(s->ids[i], sizeof s->ids[i], "%u.%u.%u", who, n, i);
    s->events[i] = about(s->ids[i], i % 2 ? "a" : "b", i < 2 ? next : s->id);
    s->events[i].value = n;
    s->events[i].time_ms += (int64_t)n * 60000; /* some hours */
  }
  return (ev_ledger_batch){&s->slate, 1, s->events, ROWS};
}

/* ---- The child -------------------------------------------------------------------------------------------*/
typedef struct done { /* one write to the pipe, which is whole or absent */
  uint32_t who, number;
} done;

typedef struct caller {
  ev_ledger_writer *w;
  uint32_t who, number;
  int pipe;
  bool posts; /* now and then a batch that nobody waits for, too */
} caller;

static void *call(void *arg) {
  caller *c = arg;
  for (bool first = true;; c->number++, first = false) {
    sent s;
    char next[20];
    ev_ledger_receipt r;
    ev_ledger_batch b = batch_of(&s, c->who, c->number, next);
    ev_status status = ev_ledger_submit(c->w, &b, &r);
    bool whole = r.new_events == ROWS && r.new_impressions == 1, known = r.known == ROWS + 1;
    const done d = {c->who, c->number};
    if (status != EV_OK || !(whole || (first && known)) || write(c->pipe, &d, sizeof d) != sizeof d) {
      fprintf(stderr, "caller %u, batch %u: %s; %zu new, %zu known\n", c->who, c->number, status == EV_OK ? "not whole" : ev_error(), r.new_events, r.known);
      _exit(3);
    }
    if (!c->posts || c->number % 4 != 0) continue;
    ev_event e = event(NULL, "posted", c->number);
    e.user = s.id;
    if (ev_ledger_post(c->w, &(ev_ledger_batch){.events = &e, .n_events = 1}, NULL, NULL) != EV_OK) _exit(3);
  }
}

static void child(const char *path, const uint32_t *next, int to, bool posts) {
  ev_ledger_writer *w;
  pthread_t thread;
  static caller c[CALLERS];
  slow = true;
  if (ev_ledger_writer_open(&w, path, NULL) != EV_OK) {
    fprintf(stderr, "open: %s\n", ev_error());
    _exit(3);
  }
  for (uint32_t i = 0; i < CALLERS; i++) {
    c[i] = (caller){w, i, next[i], to, posts};
    if (pthread_create(&thread, NULL, call, &c[i]) != 0) _exit(3);
  }
  for (;;) pause();
}

/* ---- The parent ------------------------------------------------------------------------------------------*/
static void kills_lose_nothing_acknowledged_and_double_nothing(void **state) {
  (void)state;
  const char *rounds = getenv("EVECTION_KILL_ROUNDS"), *given = getenv("EVECTION_KILL_SEED");
  uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 1, n_done = 0, n_whole = 0;
  uint32_t n = rounds != NULL ? (uint32_t)strtoul(rounds, NULL, 10) : 15, next[CALLERS] = {0};
  char path[160], sql[256];
  ev_rng r;
  ev_rng_seed(&r, seed, 99);
  snprintf(path, sizeof path, "%s", in_folder("killed"));
  for (uint32_t round = 0; round < n; round++) {
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    bool at_once = ev_rng_below(&r, 4) == 0; /* maybe while it opens the file */
    uint32_t wait_us = ev_rng_below(&r, at_once ? 4000 : 20000);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) child(path, next, ends[1], round % 2);
    close(ends[1]);
    if (!at_once) poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, 30000); /* it is under way */
    usleep(wait_us);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status)) fail_msg("round %u of seed %d: the child ended by itself", round, (int)seed);
    done d;
    while (read(ends[0], &d, sizeof d) == sizeof d) {
      if (d.who >= CALLERS || d.number != next[d.who]) fail_msg("round %u: caller %u says %u", round, d.who, d.number);
      next[d.who]++;
      n_done++;
    }
    close(ends[0]);
    ev_ledger *l = ledger("killed");
    for (uint32_t who = 0; who < CALLERS; who++) {
      snprintf(sql, sizeof sql, "SELECT count(*) FROM events WHERE id LIKE '%u.%%'", who);
      int64_t events = number(l, sql);
      snprintf(sql, sizeof sql, "SELECT count(*) FROM impressions WHERE id LIKE '%u.%%'", who);
      int64_t slates = number(l, sql);
      /* All that was acknowledged, and at most the batch it was in the middle of, whole. */
      if (events != ROWS * slates || slates < next[who] || slates > next[who] + 1)
        fail_msg("round %u of seed %d, caller %u: %u batches acknowledged, %d slates and %d events there", round, (int)seed, who, next[who], (int)slates, (int)events);
      if (slates > next[who]) n_whole++;
      snprintf(sql, sizeof sql, "SELECT count(DISTINCT id) FROM events WHERE id LIKE '%u.%%' AND value < %u", who, next[who]);
      assert_int_equal(number(l, sql), ROWS * next[who]);
      /* Everything about a slate that is there has joined it; only what is about the next one waits. */
      snprintf(sql, sizeof sql, "SELECT count(*) FROM event_log e WHERE id LIKE '%u.%%' AND waits_for IS NOT NULL AND EXISTS (SELECT 1 FROM impressions i WHERE i.id = e.waits_for)", who);
      assert_int_equal(number(l, sql), 0);
    }
    if (round % 10 == 0 || round + 1 == n) {
      assert_int_equal(wrong_totals(l), 0);
      sound(l);
    }
    if (round % 7 == 3) { /* some rounds begin with rows in the totals */
      ev_pruned gone;
      assert_int_equal(ev_ledger_prune(l, 0, false, &gone), EV_OK);
      assert_int_equal(gone.events, 0);
    }
    ev_ledger_close(l);
  }
  ev_ledger *l = ledger("killed");
  printf("%u kills, %llu batches acknowledged, %llu more found whole, %lld events, %lld duplicates sent again\n", n, (unsigned long long)n_done, (unsigned long long)n_whole,
         (long long)number(l, "SELECT count(*) FROM events"), (long long)counter(l, "duplicate_events"));
  ev_ledger_close(l);
  assert_true(n_done >= n / 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(kills_lose_nothing_acknowledged_and_double_nothing)};
  return RUN(tests);
}
