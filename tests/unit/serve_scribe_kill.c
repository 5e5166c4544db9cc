/* serve_scribe_kill.c - the ledger's writer is killed at a random moment, again and again, while producers go on: each of their tickets
 * comes back once, in order and with what is true of it, and every row is in the ledger once.
 *
 * EVECTION_KILL_ROUNDS (default 200) kills, from EVECTION_KILL_SEED (default 1). Syncs only take their time: a killed process loses
 * nothing of what it gave to the system. */
#include "scribe_world.h"
#include "slow_disk.h"

enum { PRODUCERS = 3, OUTSTANDING = 24 };

typedef struct world { /* seen by all */
  atomic_bool stopping;
  atomic_uint posted[PRODUCERS], told[PRODUCERS], promoted[PRODUCERS], full[PRODUCERS]; /* batches, tickets, promotions, times that the ring was full */
} world;
static world *w;

typedef struct producer {
  uint32_t who;
  uintptr_t last; /* ticket: number of its batch + 1 */
} producer;

static void hear(void *ctx, void *ticket, ev_status status, const char *error, const ev_ledger_receipt *r) {
  producer *p = ctx;
  bool whole = status == EV_OK && r->new_impressions == 1 && r->new_events == ROWS && r->known == 0;
  if (!whole || (uintptr_t)ticket <= p->last) {
    fprintf(stderr, "producer %u, ticket %u after %u: %s; %zu new, %zu known\n", p->who, (unsigned)(uintptr_t)ticket, (unsigned)p->last, error, r->new_events, r->known);
    _exit(3);
  }
  p->last = (uintptr_t)ticket;
  w->told[p->who]++;
}

/* Two of three batches have a ticket; now and then there is a promotion. */
static void produce(scribe *s, uint32_t who, int bell) {
  producer p = {who, 0};
  uint32_t n = 0, tickets = 0;
  uint64_t until = 0;
  while (!w->stopping || scribe_waiting(s, who) > 0) {
    if (w->stopping && until == 0) until = ev_now_ns() + 30 * UINT64_C(1000000000);
    if (until != 0 && ev_now_ns() > until) _exit(4);
    sent x;
    while (!w->stopping && scribe_waiting(s, who) < OUTSTANDING) {
      ev_ledger_batch b = batch_of(&x, who, n);
      ev_status status = scribe_post(s, who, &b, n % 3 != 0 ? (void *)(uintptr_t)(n + 1) : NULL);
      if (status == EV_ELIMIT) {
        w->full[who]++;
        break;
      }
      if (status != EV_OK) _exit(5);
      if (n % 3 != 0) tickets++;
      w->posted[who] = ++n;
      const promotion made = {.version = x.id, .against = "champion", .action = "promote", .reason = "better", .share = NAN};
      if (n % 50 == 0 && scribe_promote(s, who, &made) == EV_OK) w->promoted[who]++;
    }
    rings(bell, 2);
    scribe_collect(s, who, hear, &p);
  }
  _exit(w->told[who] == tickets ? 0 : 6);
}

static void kills_lose_nothing_double_nothing_and_tell_the_truth(void **state) {
  (void)state;
  const char *rounds = getenv("EVECTION_KILL_ROUNDS"), *given = getenv("EVECTION_KILL_SEED");
  uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 1;
  uint32_t n = rounds != NULL ? (uint32_t)strtoul(rounds, NULL, 10) : 200;
  int fds[PRODUCERS], status;
  pid_t pids[PRODUCERS];
  scribe *s;
  ev_rng r;
  ev_rng_seed(&r, seed, 98);
  w = shared(sizeof *w);
  for (uint32_t i = 0; i < PRODUCERS; i++) fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  assert_int_equal(scribe_new(&s, PRODUCERS, 65536, fds), EV_OK);
  for (uint32_t i = 0; i < PRODUCERS; i++) {
    pids[i] = fork();
    assert_true(pids[i] >= 0);
    if (pids[i] > 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    produce(s, i, fds[i]);
  }
  slow = true;
  for (uint32_t round = 0; round < n; round++) {
    scribe_stats before, now;
    scribe_stat(s, &before);
    bool at_once = ev_rng_below(&r, 3) == 0; /* maybe while it opens the file */
    uint32_t wait_us = ev_rng_below(&r, at_once ? 4000 : 8000);
    uint64_t until = ev_now_ns() + 10 * UINT64_C(1000000000);
    pid_t pid = writer(s, "killed");
    do scribe_stat(s, &now);
    while (!at_once && now.records == before.records && ev_now_ns() < until && usleep(200) == 0); /* it is under way */
    usleep(wait_us);
    killed(pid);
    for (uint32_t i = 0; i < PRODUCERS; i++)
      if (waitpid(pids[i], &status, WNOHANG) != 0) fail_msg("round %u of seed %d: producer %u ended", round, (int)seed, i);
    if (round % 20 != 19) continue;
    ev_ledger *l = ledger("killed"); /* what was told is there */
    for (uint32_t i = 0; i < PRODUCERS; i++) {
      char sql[128];
      uint32_t told = w->told[i];
      snprintf(sql, sizeof sql, "SELECT count(*) FROM impressions WHERE id LIKE '%u.%%'", i);
      int64_t there = number(l, sql), posted = w->posted[i];
      if (there < told || there > posted + 1) fail_msg("round %u of seed %d: producer %u was told of %u, %d are there", round, (int)seed, i, told, (int)there);
    }
    ev_ledger_close(l);
  }
  w->stopping = true;
  pid_t pid = writer(s, "killed");
  for (uint32_t i = 0; i < PRODUCERS; i++) assert_int_equal(ended(pids[i]), 0);
  scribe_stop(s);
  assert_int_equal(ended(pid), EV_OK);
  scribe_stats st;
  scribe_stat(s, &st);
  assert_int_equal(st.waiting_bytes, 0);
  assert_int_equal(st.dropped, 0);
  assert_string_equal(st.error, "");
  int64_t batches = 0, promotions = 0, told = 0;
  ev_ledger *l = ledger("killed");
  for (uint32_t i = 0; i < PRODUCERS; i++) {
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM impressions WHERE id LIKE '%u.%%'", i);
    assert_int_equal(number(l, sql), w->posted[i]);
    snprintf(sql, sizeof sql, "SELECT count(DISTINCT id) FROM events WHERE id LIKE '%u.%%'", i);
    assert_int_equal(number(l, sql), ROWS * w->posted[i]);
    batches += w->posted[i];
    promotions += w->promoted[i];
    told += w->told[i];
  }
  assert_int_equal(number(l, "SELECT count(*) FROM impressions"), batches);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), ROWS * batches);
  assert_int_equal(number(l, "SELECT count(*) FROM promotions"), promotions);
  assert_int_equal(counter(l, "duplicate_events") + counter(l, "duplicate_impressions"), 0); /* not even written twice and known */
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE impression IS NULL"), PRODUCERS);
  assert_int_equal(wrong_totals(l), 0);
  sound(l);
  ev_ledger_close(l);
  printf("%u kills, %lld batches, %lld tickets told, %lld promotions, %llu commits told, rings full %u times\n", n, (long long)batches, (long long)told, (long long)promotions,
         (unsigned long long)st.commits, w->full[0] + w->full[1] + w->full[2]);
  assert_true(told >= n / 2);
  scribe_free(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(kills_lose_nothing_double_nothing_and_tell_the_truth)};
  return RUN(tests);
}
