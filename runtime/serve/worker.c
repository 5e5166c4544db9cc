/* worker.c - a script worker: takes a request from its box, asks the version, and writes the answer into the request's slot.
 *
 * It is forked from its team with everything loaded and compiled, and may be killed at any instruction: what it writes becomes
 * visible only by a change of the slot's state. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../jobs/jobs.h"
#include "inside.h"

#define SPARE_BYTES ((rlim_t)256 << 20) /* beside the Lua heap: slates, vectors, scratch */

typedef struct asked { /* what interim goes by */
  slot *s;
  uint32_t use;
} asked;

void process_begin(const char *name, pid_t parent, bool ignore_interrupts) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  prctl(PR_SET_NAME, name);
  signal(SIGINT, ignore_interrupts ? SIG_IGN : SIG_DFL); /* who started it decides when it ends */
  signal(SIGTERM, ignore_interrupts ? SIG_IGN : SIG_DFL);
  signal(SIGHUP, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGALRM, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A script that allocates without end gets errors. */
static void bound(void) {
  unsigned long pages[6] = {0};
  FILE *f = fopen("/proc/self/statm", "r");
  if (f != NULL) {
    if (fscanf(f, "%lu %lu %lu %lu %lu %lu", pages, pages + 1, pages + 2, pages + 3, pages + 4, pages + 5) == 6) {
      rlim_t most = (rlim_t)pages[5] * (rlim_t)sysconf(_SC_PAGESIZE) + SPARE_BYTES + ((rlim_t)1 << 30);
      setrlimit(RLIMIT_DATA, &(struct rlimit){most, most});
    }
    fclose(f);
  }
}

/* From here on it has the bells of the front and its log, and can get at nothing else. */
static void confine(board *b, const bells *bell, seat *me) {
  ev_confine_descriptors(bell->thread, THREADS_MAX);
  ev_status status = ev_confine(EV_CONFINE_SERVE, NULL, NULL);
  atomic_store(&me->confined, status == EV_OK);
  if (status != EV_OK && atomic_exchange(&b->told_unconfined, 1) == 0) ev_log(EV_LOG_WARN, "script workers are not confined: %s", ev_error());
}

static uint64_t cpu_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void copy_answer(ev_answer *out, const ev_answer *a) {
  memcpy(out, a, offsetof(ev_answer, picks));
  memcpy(out->picks, a->picks, a->n * sizeof *a->picks);
}

static bool interim(void *ctx, const ev_answer *so_far) {
  asked *a = ctx;
  if (!slot_move(a->s, a->use, SLOT_RUNNING, SLOT_WRITING)) return false;
  copy_answer(&a->s->answer, so_far);
  return slot_move(a->s, a->use, SLOT_WRITING, SLOT_RUNNING);
}

static void tell(slot *s, const char *text, size_t len) {
  s->text_len = (uint32_t)(len < TEXT_BYTES - 1 ? len : TEXT_BYTES - 1);
  memcpy(s->text, text, s->text_len);
  s->text[s->text_len] = '\0';
}

/* The latest new items, but those that the mask leaves out: its bits go beyond the snapshot's. */
static size_t arrivals_of(board *b, uint32_t mask, ev_arrival out[EV_ARRIVALS_MAX]) {
  static arrival list[ARRIVALS_MAX];
  const uint64_t *barred = mask < MASKS_MAX ? board_mask(b, mask) : NULL;
  size_t n = arrivals_get(b, list), used = 0;
  int64_t now = n > 0 ? ev_wall_ms() : 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t item = list[i].item, word = item / 64;
    if (barred != NULL && (word >= b->n_mask_words || (__atomic_load_n(barred + word, __ATOMIC_RELAXED) >> (item % 64) & 1) != 0)) continue;
    double age_s = (double)(now - list[i].time_ms) / 1000;
    out[used++] = (ev_arrival){item, age_s > 0 ? age_s : 0};
  }
  return used;
}

static void recommend_slot(ev_host *h, board *b, slot *s, uint32_t use) {
  static ev_answer answer;
  static ev_buf text;
  static ev_arrival arrivals[EV_ARRIVALS_MAX];
  asked a = {s, use};
  uint32_t n_history = s->n_history, n_seen = s->n_seen, mask = s->mask;
  ev_ask ask = {
      .user = s->user, .history = s->history, .n_history = n_history < HISTORY_MAX ? n_history : HISTORY_MAX, .seen = s->seen,
      .n_seen = n_seen < SEEN_MAX ? n_seen : SEEN_MAX, .barred = mask < MASKS_MAX ? board_mask(b, mask) : NULL, .n = s->n,
      .deadline_ns = s->deadline_ns, .explain = s->explain != 0, .arrivals = arrivals, .n_arrivals = arrivals_of(b, mask, arrivals),
  };
  ev_buf_clear(&text);
  answer.n = 0;
  ev_status status = ev_host_recommend(h, &ask, &answer, &text, interim, &a);
  if (!slot_move(s, use, SLOT_RUNNING, SLOT_WRITING)) return; /* nobody waits any more */
  if (status == EV_OK) {
    s->failed = FAILED_NOT;
    copy_answer(&s->answer, &answer);
    tell(s, text.len > 0 ? text.data : "", text.len < TEXT_BYTES ? text.len : 0);
  } else {
    s->failed = status == EV_ECORRUPT ? FAILED_CORRUPT : FAILED_SCRIPT;
    tell(s, ev_error(), strlen(ev_error()));
  }
  slot_move(s, use, SLOT_WRITING, SLOT_DONE);
}

static void learn_slot(ev_host *h, team_board *t, slot *s, uint32_t use) {
  uint32_t n = s->n_lessons;
  atomic_store(&t->learnt, 1);
  ev_status status = ev_host_learn(h, s->lessons, n < SLOT_LESSONS ? n : SLOT_LESSONS);
  if (!slot_move(s, use, SLOT_RUNNING, SLOT_WRITING)) return;
  s->failed = status == EV_OK ? FAILED_NOT : FAILED_SCRIPT;
  if (status != EV_OK) tell(s, ev_error(), strlen(ev_error()));
  slot_move(s, use, SLOT_WRITING, SLOT_DONE);
}

_Noreturn void worker_run(ev_host *h, board *b, const bells *bell, uint32_t at, uint64_t asked_ns) {
  seat *me = &b->seats[at];
  ev_threads_set(1); /* requests are many: each gets one core */
  bound();
  confine(b, bell, me);
  atomic_store(&me->pid, (int32_t)getpid());
  atomic_store(&me->state, SEAT_READY);
  if (asked_ns != 0) {
    uint64_t took = ev_now_ns() - asked_ns, most = atomic_load(&b->takeover_ns_max);
    atomic_fetch_add(&b->takeovers, 1);
    while (took > most && !atomic_compare_exchange_weak(&b->takeover_ns_max, &most, took)) continue;
  }
  bell_ring(bell->thread[0]); /* what waits for a worker */
  uint32_t i, use;
  while (box_take(b, at, &i, &use)) {
    slot *s = board_slot(b, i);
    if (slot_move(s, use, SLOT_READY, SLOT_RUNNING)) {
      uint32_t asker = s->thread < THREADS_MAX ? s->thread : 0;
      uint64_t now = ev_now_ns(), least = now + s->least_ns, due = s->kill_ns;
      s->taken_ns = now; /* of a later use, if this one was closed just now: then nobody looks at it */
      atomic_store(&me->begun_cpu_ns, cpu_ns());
      atomic_store(&me->begun_ns, now);
      atomic_store(&me->due_ns, due > least ? due : least); /* what lay in a queue is no fault of the version's */
      if (s->kind == ASK_SLATE) recommend_slot(h, b, s, use);
      else learn_slot(h, &b->teams[at / TEAM_SEATS], s, use);
      atomic_store(&me->due_ns, 0);
      box_done(b, at); /* first: who reads the answer may push the next */
      if (atomic_load(&b->asleep[asker]) != 0) bell_ring(bell->thread[asker]);
    } else {
      box_done(b, at);
    }
  }
  _exit(0);
}
