/* serve_board.c - requests over the board: whatever dies, leaves or stops in between, each is answered once, with its own answer, and
 * afterwards every slot and every seat is there again.
 *
 * Dispatch, board, team and worker are the service's own; the version behind them and the calls before them are this file's. Teams are
 * real processes, killed at random with their workers: EVECTION_BOARD_MS (default 3000) milliseconds, from EVECTION_BOARD_SEED. */
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../../runtime/jobs/jobs.h"
#include "../../runtime/serve/inside.h"
#include "support.h"

/* ---- The version -------------------------------------------------------------------------------------------*/
enum { WORKS, IS_SLOW, DIES, HANGS, HANGS_WITH_SOME, FAILS, IS_CORRUPT }; /* the user whom a request is for says which */

struct ev_host {
  int nothing;
};

ev_status ev_host_new(ev_host **out, const ev_host_options *o) {
  static ev_host h;
  (void)o;
  *out = &h;
  return EV_OK;
}

ev_status ev_host_call(ev_host *h, const char *module, const char *fn, const char *json_args, ev_buf *out) {
  static const char said[] = "{\"version\":\"of-this-test\",\"composition\":\"none\",\"files\":[]}";
  (void)h, (void)module, (void)fn, (void)json_args;
  return ev_buf_append(out, said, sizeof said - 1);
}

const char *ev_host_home(const ev_host *h) {
  (void)h;
  return folder;
}

ev_status ev_confine(ev_confine_kind kind, const char *writable, unsigned *held) { /* nothing here is to be kept from anything */
  (void)kind, (void)writable, (void)held;
  return EV_OK;
}

void ev_confine_descriptors(const int *keep, size_t n_keep) { (void)keep, (void)n_keep; }

size_t arrivals_get(const board *b, arrival out[ARRIVALS_MAX]) {
  (void)b, (void)out;
  return 0;
}

ev_status ev_host_serve(ev_host *h, const char *json_args, ev_buf *out) {
  (void)h, (void)json_args;
  return ev_buf_append(out, "{\"recalls\":[\"one\"]}", 19);
}

static void hang(void) {
  for (volatile int forever = 1; forever;) continue;
}

ev_status ev_host_recommend(ev_host *h, const ev_ask *ask, ev_answer *out, ev_buf *text, ev_interim_fn *interim, void *ctx) {
  uint32_t number = ask->history[0], what = ask->user;
  char word[16];
  (void)h;
  *out = (ev_answer){.n = (uint32_t)ask->n, .propensity = number};
  for (size_t i = 0; i < ask->n; i++) out->picks[i] = (ev_pick){number, (float)i, 1, 1};
  if (what == IS_SLOW) usleep(3000);
  if (what == DIES) raise(SIGKILL);
  if (what == HANGS_WITH_SOME && !interim(ctx, out)) return ev_fail(EV_ESCRIPT, "nobody waits");
  if (what == HANGS || what == HANGS_WITH_SOME) hang();
  if (what == FAILS) return ev_fail(EV_ESCRIPT, "a script's error");
  if (what == IS_CORRUPT) return ev_fail(EV_ECORRUPT, "a slate that is none");
  snprintf(word, sizeof word, "%u", number);
  return ev_buf_append(text, word, strlen(word));
}

ev_status ev_host_learn(ev_host *h, const ev_lesson *lessons, size_t n) {
  (void)h;
  return n == 1 && lessons[0].item == 7 ? EV_OK : ev_fail(EV_ESCRIPT, "another lesson");
}

/* ---- The calls ---------------------------------------------------------------------------------------------*/
enum { CALLS_MAX = 1000000, DEADLINE_MS = 60 };

static struct {
  uint8_t done[CALLS_MAX]; /* how often */
  uint32_t n, n_done, n_slates, n_fallbacks, n_degraded, n_learned, n_wrong;
  uint64_t latest_ns; /* after its deadline */
} calls;

void job_done(http_thread *t, job *j, slot *s, const ev_answer *answer, bool degraded) {
  (void)t;
  if (j->call == NULL) {
    calls.n_learned++;
    free(j);
    return;
  }
  uint32_t number = (uint32_t)(uintptr_t)j->call;
  uint64_t now = ev_now_ns();
  if (now > j->end_ns && now - j->end_ns > calls.latest_ns) calls.latest_ns = now - j->end_ns;
  calls.done[number]++;
  calls.n_done++;
  calls.n_slates += answer != NULL;
  calls.n_fallbacks += answer == NULL;
  calls.n_degraded += degraded;
  if (answer != NULL) {
    char word[16];
    bool wrong = answer->n != 1 + number % SLATE_MAX || (uint32_t)answer->propensity != number;
    for (uint32_t i = 0; i < answer->n && !wrong; i++) wrong = answer->picks[i].item != number || (uint32_t)answer->picks[i].score != i;
    snprintf(word, sizeof word, "%u", number);
    calls.n_wrong += wrong || (!degraded && strcmp(s->text, word) != 0);
  }
  free(j);
}

static ev_serve_options options;
static bells all_bells;
static front f;
static http_thread t;

static bool ask(uint32_t what, int deadline_ms) {
  job *j = calloc(1, sizeof *j);
  uint32_t number = ++calls.n;
  assert_true(number < CALLS_MAX);
  *j = (job){.call = (call *)(uintptr_t)number, .mask = EV_NONE, .end_ns = ev_now_ns() + (uint64_t)deadline_ms * 1000000};
  slot *s = dispatch_begin(&t, j);
  if (s == NULL) {
    calls.n--;
    free(j);
    return false;
  }
  s->kind = ASK_SLATE;
  s->user = what;
  s->n = 1 + number % SLATE_MAX;
  s->history[0] = number;
  s->n_history = 1;
  s->n_seen = 0;
  s->mask = EV_NONE;
  s->explain = 0;
  dispatch_send(&t, j);
  return true;
}

static void teach(void) {
  job *j = calloc(1, sizeof *j);
  *j = (job){.mask = EV_NONE, .end_ns = UINT64_MAX};
  slot *s = dispatch_begin(&t, j);
  if (s == NULL) {
    free(j);
    return;
  }
  s->kind = ASK_LEARN;
  s->n_lessons = 1;
  s->lessons[0] = (ev_lesson){EV_NONE, 7, 1, 0, "click"};
  dispatch_send(&t, j);
}

static void open_front(void) {
  t = (http_thread){.f = &f};
  for (uint32_t i = SLOTS_MAX; i-- > 0;) t.free_slots[t.n_free++] = i;
  assert_int_equal(dispatch_open(&f.dispatch, &f), EV_OK);
}

static void abandon_front(void) { /* as if it had been killed: its requests are nobody's, its slots are in any state */
  for (size_t i = 0; i < t.n_jobs; i++) {
    job *j = t.jobs[i];
    if (j->call != NULL) calls.done[(uint32_t)(uintptr_t)j->call]++, calls.n_done++;
    free(j);
  }
  dispatch_close(f.dispatch);
  open_front();
}

/* ---- Teams -------------------------------------------------------------------------------------------------*/
static struct {
  pid_t pid;
  int report;
} teams[TEAMS_MAX];

static void hear(int report, const char *word) {
  char text[4096];
  ssize_t n = recv(report, text, sizeof text - 1, 0);
  assert_true(n > 0);
  text[n] = '\0';
  assert_non_null(strstr(text, word));
}

static void start_team(uint32_t i, int n_workers) {
  int pair[2];
  char order[32];
  assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  atomic_store(&f.b->teams[i].state, TEAM_LOADING);
  pid_t parent = getpid(), pid = fork();
  if (pid == 0) {
    close(pair[0]);
    process_begin("ev-team", parent, true);
    team_run(&options, f.b, &all_bells, i, "{}", pair[1]);
  }
  assert_true(pid > 0);
  close(pair[1]);
  teams[i].pid = pid;
  teams[i].report = pair[0];
  hear(pair[0], "ready");
  snprintf(order, sizeof order, "{\"workers\":%d}", n_workers);
  assert_true(send(pair[0], order, strlen(order), 0) > 0);
  hear(pair[0], "working");
}

/* What the supervisor does about the dead. */
static void reap(void) {
  pid_t pid;
  while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
    seats_bury(f.b, pid);
    for (uint32_t i = 0; i < TEAMS_MAX; i++)
      if (teams[i].pid == pid) {
        teams[i].pid = 0;
        close(teams[i].report);
        atomic_store(&f.b->teams[i].state, TEAM_FREE);
      }
  }
  for (uint32_t i = 0; i < TEAMS_MAX; i++)
    if (teams[i].pid == 0) seats_bury_lost(f.b, i);
}

static bool place_is_free(uint32_t i) {
  for (uint32_t k = 0; k < TEAM_SEATS; k++)
    if (atomic_load(&f.b->seats[i * TEAM_SEATS + k].state) != SEAT_FREE) return false;
  return atomic_load(&f.b->teams[i].state) == TEAM_FREE;
}

static void turn(int wait_ms) {
  bell_hush(all_bells.thread[0]);
  dispatch_collect(&t);
  reap();
  if (wait_ms == 0) return;
  atomic_store(&f.b->asleep[0], 1);
  if (!dispatch_ready(&t)) poll(&(struct pollfd){all_bells.thread[0], POLLIN, 0}, 1, t.n_jobs > 0 ? wait_ms : 0);
  atomic_store(&f.b->asleep[0], 0);
}

static bool comes_true(bool (*what)(void), int ms) {
  uint64_t until = ev_now_ns() + (uint64_t)ms * 1000000;
  while (!what() && ev_now_ns() < until) {
    turn(1);
    if (t.n_jobs == 0) usleep(200);
  }
  return what();
}

static bool nothing_is_under_way(void) { return t.n_jobs == 0 && t.n_lost == 0; }

static void settle(void) { /* everything is answered, once, and rightly; every slot is back */
  assert_true(comes_true(nothing_is_under_way, 5000));
  for (uint32_t i = 1; i <= calls.n; i++)
    if (calls.done[i] != 1) fail_msg("request %u was answered %u times", i, calls.done[i]);
  assert_int_equal(calls.n_wrong, 0);
  assert_int_equal(t.n_free, SLOTS_MAX);
  assert_int_equal(t.n_lessons, 0);
}

static bool are_gone(void) {
  for (uint32_t i = 0; i < TEAMS_MAX; i++)
    if (!place_is_free(i)) return false;
  return true;
}

static int begin(void **state) {
  (void)state;
  memset(&calls, 0, sizeof calls);
  options = (ev_serve_options){.home = folder, .data = "none", .deadline_ms = DEADLINE_MS, .workers = 3, .snapshot_s = 3600, .strikes = 1000000};
  for (size_t i = 0; i < THREADS_MAX; i++) all_bells.thread[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  for (size_t i = 0; i < TEAMS_MAX; i++) all_bells.team[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  all_bells.supervisor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  f = (front){.o = &options, .bells = &all_bells, .n_threads = 1, .threads = &t};
  if (board_new(&f.b, 1000) != EV_OK) return 1;
  atomic_store(&f.b->strikes_max, 1000000);
  open_front();
  return 0;
}

static int end(void **state) {
  (void)state;
  for (uint32_t i = 0; i < TEAMS_MAX; i++)
    if (teams[i].pid != 0) kill(teams[i].pid, SIGKILL);
  bool gone = comes_true(are_gone, 5000);
  dispatch_close(f.dispatch);
  board_free(f.b);
  for (size_t i = 0; i < THREADS_MAX; i++) close(all_bells.thread[i]);
  for (size_t i = 0; i < TEAMS_MAX; i++) close(all_bells.team[i]);
  close(all_bells.supervisor);
  return gone ? 0 : 1;
}

/* ---- What must hold ------------------------------------------------------------------------------------------*/
static void every_request_is_answered_once_whoever_is_killed(void **state) {
  (void)state;
  const char *ms = getenv("EVECTION_BOARD_MS"), *seed = getenv("EVECTION_BOARD_SEED");
  uint64_t until = ev_now_ns() + (uint64_t)(ms != NULL ? atoi(ms) : 3000) * 1000000;
  uint64_t next_kill = 0, next_team = ev_now_ns() + 300000000, next_front = ev_now_ns() + 200000000, back_ns[2] = {0};
  unsigned kills = 0, team_kills = 0, fronts = 0;
  srand(seed != NULL ? (unsigned)atoi(seed) : 1);
  start_team(0, 3);
  start_team(1, 2);
  atomic_store(&f.b->champion, 1);
  atomic_store(&f.b->reserve, 2);
  while (ev_now_ns() < until) {
    uint64_t now = ev_now_ns();
    while (t.n_jobs < 12) {
      int dice = rand() % 1000;
      if (dice < 30) teach();
      else ask(dice < 900 ? WORKS : dice < 980 ? IS_SLOW : dice < 985 ? DIES : dice < 988 ? HANGS : dice < 991 ? HANGS_WITH_SOME : dice < 996 ? FAILS : IS_CORRUPT, DEADLINE_MS);
    }
    turn(rand() % 2);
    if (now >= next_kill) {
      pid_t pid = atomic_load(&f.b->seats[rand() % (2 * TEAM_SEATS)].pid);
      if (pid > 0 && kill(pid, SIGKILL) == 0) kills++, next_kill = now + (uint64_t)(rand() % 6000) * 1000;
    }
    if (now >= next_team) {
      next_team = now + 400000000;
      uint32_t i = (uint32_t)(rand() % 2);
      if (teams[i].pid != 0 && kill(teams[i].pid, SIGKILL) == 0) team_kills++;
    }
    for (uint32_t i = 0; i < 2; i++) { /* its place is free again, and another comes */
      if (teams[i].pid != 0) back_ns[i] = now;
      else if (place_is_free(i)) start_team(i, i == 0 ? 3 : 2);
      else if (now > back_ns[i] + UINT64_C(2000000000)) fail_msg("the place of team %u did not become free", i);
    }
    if (now >= next_front) {
      next_front = now + 250000000;
      abandon_front();
      fronts++;
    }
  }
  settle();
  assert_true(kills > 20 && calls.n_slates > 500);
  print_message("%u requests: %u slates (%u degraded), %u fallbacks; %u workers, %u teams and %u fronts killed; the latest %.1f ms after its deadline\n", calls.n,
                calls.n_slates, calls.n_degraded, calls.n_fallbacks, kills, team_kills, fronts, (double)calls.latest_ns * 1e-6);
}

static void what_waits_for_a_team_that_leaves_is_anothers(void **state) {
  (void)state;
  start_team(0, 2);
  start_team(1, 2);
  atomic_store(&f.b->champion, 1);
  for (int i = 0; i < 60; i++) ask(IS_SLOW, 5000);
  turn(0);
  atomic_store(&f.b->champion, 2);
  atomic_store(&f.b->teams[0].state, TEAM_LEAVING);
  bell_ring(all_bells.team[0]);
  settle();
  assert_int_equal(calls.n_fallbacks, 0);
  assert_int_equal(calls.n_degraded, 0);
  uint64_t until = ev_now_ns() + UINT64_C(2000000000);
  while (!place_is_free(0) && ev_now_ns() < until) turn(1);
  assert_true(place_is_free(0));
}

static void with_no_team_left_the_fallback_comes_at_once(void **state) {
  (void)state;
  start_team(0, 1);
  atomic_store(&f.b->champion, 1);
  for (int i = 0; i < 40; i++) ask(HANGS, 10000);
  kill(teams[0].pid, SIGKILL);
  uint64_t before = ev_now_ns();
  settle();
  assert_int_equal(calls.n_fallbacks, 40);
  assert_true(ev_now_ns() - before < UINT64_C(5000000000));
}

static slot *of_job(const job *j) { return board_slot(f.b, j->slot); }

static void have_a_champion_without_workers(void) {
  atomic_store(&f.b->teams[0].state, TEAM_READY);
  atomic_store(&f.b->champion, 1);
}

static void a_slot_that_is_written_to_is_not_used_again(void **state) {
  (void)state;
  have_a_champion_without_workers();
  ask(WORKS, 5);
  const job *j = t.jobs[0];
  uint32_t use = j->use, index = j->slot;
  slot *s = of_job(j);
  assert_true(slot_move(s, use, SLOT_READY, SLOT_RUNNING) && slot_move(s, use, SLOT_RUNNING, SLOT_WRITING)); /* a worker, which then stops */
  usleep(10000);
  turn(0);
  assert_int_equal(calls.n_done, 0); /* it may be through in a moment */
  usleep(60000);
  turn(0);
  assert_int_equal(calls.n_fallbacks, 1);
  assert_int_equal(t.n_lost, 1);
  while (ask(WORKS, 1000)) continue; /* all others */
  assert_int_equal(t.n_jobs, SLOTS_MAX - 1);
  abandon_front();
  assert_int_equal(slot_state_of(s, NULL), SLOT_WRITING); /* another front does not use it, either */
  for (size_t i = 0; i < SLOTS_MAX && ask(WORKS, 1000); i++) assert_int_not_equal(t.jobs[t.n_jobs - 1]->slot, index);
  assert_int_equal(t.n_lost, 1);
  assert_true(slot_move(s, use, SLOT_WRITING, SLOT_DONE));
  turn(0);
  assert_int_equal(t.n_lost, 0);
  assert_true(ask(WORKS, 1000));
  assert_int_equal(t.jobs[t.n_jobs - 1]->slot, index);
  assert_false(slot_move(s, use, SLOT_READY, SLOT_RUNNING)); /* who is late by a use changes nothing */
  atomic_store(&f.b->champion, 0);
  atomic_store(&f.b->teams[0].state, TEAM_FREE);
  settle();
}

static void what_waited_in_vain_goes_to_the_reserve_and_waits_no_more(void **state) {
  (void)state;
  have_a_champion_without_workers();
  start_team(1, 2);
  atomic_store(&f.b->reserve, 2);
  for (int i = 0; i < 20; i++) ask(WORKS, 400);
  settle();
  assert_int_equal(calls.n_slates, 20);
  start_team(0, 1); /* nothing is left in its queue */
  for (int i = 0; i < 20; i++) ask(WORKS, 1000);
  settle();
  assert_int_equal(calls.n_slates, 40);
}

static void fail_after(int ms, uint32_t what) {
  ask(WORKS, DEADLINE_MS);
  slot *s = of_job(t.jobs[0]);
  uint32_t use = t.jobs[0]->use;
  usleep((useconds_t)ms * 1000);
  assert_true(slot_move(s, use, SLOT_READY, SLOT_RUNNING));
  s->taken_ns = ev_now_ns();
  assert_true(slot_move(s, use, SLOT_RUNNING, SLOT_WRITING));
  s->failed = what;
  snprintf(s->text, sizeof s->text, "made for the test");
  assert_true(slot_move(s, use, SLOT_WRITING, SLOT_DONE));
  turn(0);
}

static void what_lay_in_the_queue_for_its_time_is_no_strike(void **state) {
  (void)state;
  have_a_champion_without_workers();
  fail_after(DEADLINE_MS - 15, FAILED_SCRIPT);
  assert_int_equal(atomic_load(&f.b->teams[0].strikes), 0);
  fail_after(0, FAILED_SCRIPT);
  assert_int_equal(atomic_load(&f.b->teams[0].strikes), 1);
  atomic_store(&f.b->teams[0].state, TEAM_FREE);
  atomic_store(&f.b->champion, 0);
  settle();
}

static void entries_of_two_dead_boxes_are_one_request(void **state) {
  (void)state;
  have_a_champion_without_workers();
  atomic_store(&f.b->seats[0].state, SEAT_READY); /* there is nobody */
  ask(WORKS, 5000);
  ask(WORKS, 5000);
  assert_int_equal(box_waiting(f.b, 0), 2);
  atomic_store(&f.b->seats[1].state, SEAT_READY);
  atomic_store(&f.b->seats[2].state, SEAT_READY);
  usleep(5000);
  turn(0); /* they wait for so long that those who are idle get them, too */
  assert_true(box_waiting(f.b, 1) == 1 && box_waiting(f.b, 2) == 1);
  for (uint32_t i = 0; i < 3; i++) atomic_store(&f.b->seats[i].state, SEAT_DEAD);
  turn(0);
  assert_true(t.jobs[0]->queued && t.jobs[1]->queued);
  start_team(0, 1);
  settle();
  assert_int_equal(calls.n_slates, 2);
}

static void a_hand_over_is_measured(void **state) {
  (void)state;
  enum { N = 20000 };
  start_team(0, 1);
  atomic_store(&f.b->champion, 1);
  uint64_t took[2];
  for (int sleeps = 0; sleeps < 2; sleeps++) {
    uint64_t before = ev_now_ns();
    for (int i = 0; i < N / (1 + 3 * sleeps); i++) {
      assert_true(ask(WORKS, 10000));
      while (t.n_jobs > 0) turn(sleeps ? 100 : 0);
    }
    took[sleeps] = (ev_now_ns() - before) / (N / (1 + 3 * sleeps));
  }
  settle();
  assert_int_equal(calls.n_fallbacks, 0);
  print_message("there and back: %llu ns when the front looks all the time, %llu ns when it sleeps\n", (unsigned long long)took[0], (unsigned long long)took[1]);
}

int main(void) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  ev_log_set((ev_log_level)(EV_LOG_ERROR + 1)); /* deaths are many */
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(every_request_is_answered_once_whoever_is_killed, begin, end),
      cmocka_unit_test_setup_teardown(what_waits_for_a_team_that_leaves_is_anothers, begin, end),
      cmocka_unit_test_setup_teardown(with_no_team_left_the_fallback_comes_at_once, begin, end),
      cmocka_unit_test_setup_teardown(a_slot_that_is_written_to_is_not_used_again, begin, end),
      cmocka_unit_test_setup_teardown(what_waited_in_vain_goes_to_the_reserve_and_waits_no_more, begin, end),
      cmocka_unit_test_setup_teardown(what_lay_in_the_queue_for_its_time_is_no_strike, begin, end),
      cmocka_unit_test_setup_teardown(entries_of_two_dead_boxes_are_one_request, begin, end),
      cmocka_unit_test_setup_teardown(a_hand_over_is_measured, begin, end),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
