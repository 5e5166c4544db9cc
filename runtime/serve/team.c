/* team.c - the process of one version: stages, loads and warms it, then forks its workers and replaces those that end.
 *
 * Staging is done by a process beside, which ends with it. After it has said "ready" the team runs no Lua any more: it is the warm spare itself, and a worker costs a fork. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../jobs/jobs.h"
#include "inside.h"

#define STARVED 2 /* condemned, but not by its own fault */
#define SNAPSHOT_S 60
#define LEAVE_MS 10000 /* a worker that has not answered by then is killed */

typedef struct team {
  board *b;
  const bells *bell;
  ev_host *host;
  const char *home;
  uint32_t index;
  int report, signals;
  int wanted;            /* workers */
  pid_t pids[TEAM_SEATS]; /* of the seats; 0: none of ours */
  pid_t keeper;          /* writes a snapshot of the learning state; 0: nobody does */
  uint64_t keep_ns, keep_every_ns; /* when the next one may be due */
  bool kept_last;        /* the one of its end was begun */
  uint64_t leave_ns;     /* 0: it is not leaving */
} team;

static bool say(int report, json_t *document) {
  char *text = document != NULL ? json_dumps(document, JSON_COMPACT) : NULL;
  json_decref(document);
  if (text == NULL) return false;
  ssize_t n;
  while ((n = send(report, text, strlen(text), MSG_NOSIGNAL)) < 0 && errno == EINTR) continue;
  free(text);
  return n >= 0;
}

static void in_child(team *t, uint32_t seat_index, pid_t parent, uint64_t asked_ns) {
  close(t->report);
  close(t->signals);
  process_begin("ev-worker", parent, true);
  worker_run(t->host, t->b, t->bell, t->index * TEAM_SEATS + seat_index, asked_ns);
}

static void hire(team *t, uint64_t asked_ns) {
  int n = 0;
  for (uint32_t i = 0; i < TEAM_SEATS; i++) n += t->pids[i] != 0;
  for (uint32_t i = 0; i < TEAM_SEATS && n < t->wanted; i++) {
    seat *s = &t->b->seats[t->index * TEAM_SEATS + i];
    if (t->pids[i] != 0 || atomic_load(&s->state) != SEAT_FREE) continue; /* DEAD: the front has still to empty its box */
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) in_child(t, i, parent, asked_ns);
    if (pid < 0) {
      ev_log(EV_LOG_ERROR, "cannot start a worker: %s", strerror(errno));
      return;
    }
    t->pids[i] = pid;
    n++;
  }
}

/* Takes those that ended off the books. */
static void reap(team *t) {
  struct signalfd_siginfo info;
  while (read(t->signals, &info, sizeof info) > 0) continue;
  int how;
  pid_t pid;
  uint64_t now = ev_now_ns();
  bool died = false;
  while ((pid = waitpid(-1, &how, WNOHANG)) > 0) {
    if (pid == t->keeper) {
      t->keeper = 0;
      if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) atomic_store(&t->b->teams[t->index].learnt, 1); /* it is tried again */
    }
    for (uint32_t i = 0; i < TEAM_SEATS; i++) {
      if (t->pids[i] != pid) continue;
      seat *s = &t->b->seats[t->index * TEAM_SEATS + i];
      uint32_t condemned = atomic_load(&s->condemned);
      bool left = WIFEXITED(how) && WEXITSTATUS(how) == 0;
      t->pids[i] = 0;
      if (!left) {
        atomic_fetch_add(&t->b->deaths, 1);
        died = true;
        /* A bare SIGKILL is somebody's at the machine: no fault of the script's. */
        if (condemned == 1 || !WIFSIGNALED(how) || WTERMSIG(how) != SIGKILL) atomic_fetch_add(&t->b->teams[t->index].strikes, 1);
        ev_log(EV_LOG_WARN, "version %.12s: worker %d %s", t->b->teams[t->index].version, (int)pid,
               condemned == STARVED ? "had no processor and was killed at its deadline" : condemned != 0 ? "passed its deadline and was killed" : WIFSIGNALED(how) ? strsignal(WTERMSIG(how)) : "ended");
      }
      atomic_store(&s->state, SEAT_DEAD);
    }
  }
  if (t->leave_ns == 0) hire(t, died ? now : 0);
  bell_ring(t->bell->thread[0]);
  if (died) bell_ring(t->bell->supervisor);
}

/* Most of the time that it had it did not have a processor: the machine's fault, not the script's. */
static bool starved(const seat *s, pid_t pid) {
  clockid_t clock;
  struct timespec used;
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0) return false;
  uint64_t cpu = (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec - atomic_load(&s->begun_cpu_ns);
  return 2 * cpu < ev_now_ns() - atomic_load(&s->begun_ns);
}

static void kill_condemned(team *t) {
  for (uint32_t i = 0; i < TEAM_SEATS; i++) {
    seat *s = &t->b->seats[t->index * TEAM_SEATS + i];
    if (t->pids[i] == 0 || atomic_load(&s->condemned) != 1) continue;
    uint64_t due = atomic_load(&s->due_ns);
    if (due == 0 || ev_now_ns() < due) { /* it came back meanwhile, and may be at the next one */
      atomic_compare_exchange_strong(&s->condemned, &(uint32_t){1}, 0);
      continue;
    }
    if (starved(s, t->pids[i])) atomic_store(&s->condemned, STARVED);
    kill(t->pids[i], SIGKILL);
  }
}

static void take_order(team *t) {
  char text[256];
  ssize_t n = recv(t->report, text, sizeof text - 1, MSG_DONTWAIT);
  if (n == 0) _exit(0); /* the supervisor has no use for it */
  if (n < 0) return;
  json_t *order = json_loadb(text, (size_t)n, 0, NULL);
  json_int_t n_workers = json_integer_value(json_object_get(order, "workers"));
  json_decref(order);
  if (n_workers < 0 || n_workers > TEAM_SEATS / 2) return;
  t->wanted = (int)n_workers;
  hire(t, 0);
  say(t->report, json_pack("{s:i}", "working", t->wanted));
}

/* Workers cannot write files: what agents learnt is put on disk by a process that is asked nothing. It ends with 0 when all of it was. */
static _Noreturn void keep(team *t) {
  ev_buf out = {0};
  close(t->report);
  close(t->signals);
  ev_confine(EV_CONFINE_EVALUATE, t->home, NULL);
  if (ev_host_call(t->host, "evection.serve", "keep", t->leave_ns != 0 ? "true" : "false", &out) != EV_OK) {
    ev_log(EV_LOG_WARN, "version %.12s: learning state: %s", t->b->teams[t->index].version, ev_error());
    _exit(1);
  }
  _exit(out.data != NULL && strcmp(out.data, "true") == 0 ? 0 : 2);
}

static void keep_state(team *t) {
  if (ev_now_ns() < t->keep_ns) return;
  t->keep_ns = ev_now_ns() + t->keep_every_ns;
  if (t->keeper != 0 || atomic_exchange(&t->b->teams[t->index].learnt, 0) == 0) return;
  pid_t parent = getpid(), pid = fork();
  if (pid == 0) {
    process_begin("ev-keeper", parent, true);
    keep(t);
  }
  if (pid > 0) t->keeper = pid;
  else atomic_store(&t->b->teams[t->index].learnt, 1);
}

static int patience_ms(const team *t) { /* until the next snapshot may be due */
  uint64_t now = ev_now_ns();
  return now >= t->keep_ns ? 0 : (int)((t->keep_ns - now) / 1000000) + 1;
}

/* Leaves when the workers have: each answers what it has. */
static void leave(team *t) {
  size_t n = 0;
  if (t->leave_ns == 0) t->leave_ns = ev_now_ns() + (uint64_t)LEAVE_MS * 1000000;
  for (uint32_t i = 0; i < TEAM_SEATS; i++) {
    if (t->pids[i] == 0) continue;
    n++;
    if (ev_now_ns() >= t->leave_ns) kill(t->pids[i], SIGKILL);
    else box_wake(t->b, t->index * TEAM_SEATS + i);
  }
  if (n > 0) return;
  if (t->keeper == 0 && !t->kept_last) { /* what they learnt until the end */
    t->kept_last = true;
    t->keep_ns = 0;
    keep_state(t);
  }
  if (t->keeper == 0 || ev_now_ns() >= t->leave_ns) _exit(0);
}

static _Noreturn void lead(team *t) {
  const team_board *mine = &t->b->teams[t->index];
  for (;;) {
    struct pollfd fds[3] = {{t->signals, POLLIN, 0}, {t->bell->team[t->index], POLLIN, 0}, {t->report, POLLIN, 0}};
    bool leaving = atomic_load(&mine->state) == TEAM_LEAVING, short_handed = false;
    int n = 0;
    for (uint32_t i = 0; i < TEAM_SEATS; i++) n += t->pids[i] != 0;
    short_handed = n < t->wanted && !leaving;
    if (poll(fds, 3, leaving ? 20 : short_handed ? 1 : patience_ms(t)) < 0 && errno != EINTR) _exit(1);
    if (fds[1].revents != 0) bell_hush(t->bell->team[t->index]);
    kill_condemned(t);
    reap(t);
    if (fds[2].revents != 0) take_order(t);
    if (atomic_load(&mine->state) == TEAM_LEAVING) leave(t);
    else if (short_handed) hire(t, 0);
    if (!leaving) keep_state(t);
  }
}

static void set_alarm(int ms) { /* ends the process, unless it is done by then; 0: it is */
  struct itimerval timer = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};
  signal(SIGALRM, SIG_DFL);
  setitimer(ITIMER_REAL, &timer, NULL);
}

/* Staging may fit for hours and is in no hurry: a process of its own does it, behind the ones that serve, and leaves its memory with
 * it. What it found, or {"error", "status"}, comes through a pipe. */
static _Noreturn void stage(const ev_serve_options *o, const char *args, int out) {
  ev_host_options ho = {.home = o->home, .max_heap_bytes = (size_t)o->heap_mb << 20};
  ev_host *h;
  ev_buf said = {0};
  if (nice(10) < 0) ev_log(EV_LOG_DEBUG, "nice: %s", strerror(errno));
  ev_confine(EV_CONFINE_EVALUATE, o->home, NULL);
  ev_status status = ev_host_new(&h, &ho);
  if (status == EV_OK) status = ev_host_call(h, "evection.stage", "run", args, &said);
  json_t *failed = status != EV_OK ? json_pack("{s:s, s:i}", "error", ev_error(), "status", (int)status) : NULL;
  char *text = failed != NULL ? json_dumps(failed, 0) : said.data;
  size_t len = text != NULL ? strlen(text) : 0;
  for (size_t at = 0; at < len;) {
    ssize_t n = write(out, text + at, len - at);
    if (n < 0 && errno != EINTR) _exit(1);
    if (n > 0) at += (size_t)n;
  }
  _exit(0);
}

static ev_status stage_apart(team *t, const ev_serve_options *o, const char *args, json_t **said) {
  int ends[2], how = 0;
  ev_buf text = {0};
  if (pipe(ends) != 0) return ev_fail_errno("pipe");
  pid_t parent = getpid(), pid = fork();
  if (pid == 0) {
    close(ends[0]);
    close(t->report);
    process_begin("ev-stage", parent, true);
    stage(o, args, ends[1]);
  }
  close(ends[1]);
  ev_status status = pid > 0 ? EV_OK : ev_fail_errno("cannot stage");
  while (status == EV_OK) {
    char some[4096];
    ssize_t n = read(ends[0], some, sizeof some);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    status = ev_buf_append(&text, some, (size_t)n);
  }
  close(ends[0]);
  while (pid > 0 && waitpid(pid, &how, 0) < 0 && errno == EINTR) continue;
  *said = status == EV_OK && text.len > 0 ? json_loadb(text.data, text.len, 0, NULL) : NULL;
  ev_buf_free(&text);
  if (status != EV_OK) return status;
  if (WIFSIGNALED(how) && WTERMSIG(how) == SIGALRM) return ev_fail(EV_ESCRIPT, "the new version made no slate in time");
  if (WIFSIGNALED(how)) return ev_fail(EV_ESCRIPT, "the new version's staging died: %s", strsignal(WTERMSIG(how)));
  const char *error = json_string_value(json_object_get(*said, "error"));
  if (error != NULL) return ev_fail((ev_status)json_integer_value(json_object_get(*said, "status")), "%s", error);
  return *said != NULL ? EV_OK : ev_fail(EV_EIO, "staging said nothing");
}

static ev_status load(team *t, const ev_serve_options *o, const char *args, json_t **said) {
  ev_host_options ho = {.home = o->home, .max_heap_bytes = (size_t)o->heap_mb << 20};
  ev_buf out = {0};
  EV_TRY(stage_apart(t, o, args, said));
  const char *composition = json_string_value(json_object_get(*said, "composition"));
  json_t *serving = json_pack("{s:s, s:s, s:I, s:i}", "composition", composition != NULL ? composition : "", "data", o->data, "seed",
                              (json_int_t)o->seed, "snapshot_s", o->snapshot_s > 0 ? o->snapshot_s : SNAPSHOT_S);
  char *text = serving != NULL ? json_dumps(serving, 0) : NULL;
  json_decref(serving);
  if (text == NULL) return EV_ENOMEM;
  set_alarm(20 * o->deadline_ms < 5000 ? 5000 : 20 * o->deadline_ms); /* it is mapped and warmed: its first slates were made */
  ev_status status = ev_host_new(&t->host, &ho);
  if (status == EV_OK) status = ev_host_serve(t->host, text, &out);
  set_alarm(0);
  free(text);
  json_t *got = status == EV_OK ? json_loadb(out.data, out.len, 0, NULL) : NULL;
  json_object_set(*said, "recalls", json_object_get(got, "recalls"));
  json_decref(got);
  ev_buf_free(&out);
  return status;
}

static void put_on_board(team *t, const json_t *said) {
  team_board *mine = &t->b->teams[t->index];
  const char *version = json_string_value(json_object_get(said, "version"));
  snprintf(mine->version, sizeof mine->version, "%s", version != NULL ? version : "");
  memset(mine->recalls, 0, sizeof mine->recalls);
  for (size_t i = 0; i < 32 && i < json_array_size(json_object_get(said, "recalls")); i++) {
    const char *name = json_string_value(json_array_get(json_object_get(said, "recalls"), i));
    snprintf(mine->recalls[i], sizeof mine->recalls[i], "%s", name != NULL ? name : "");
  }
  atomic_store(&mine->strikes, 0);
  atomic_store(&mine->state, TEAM_READY);
}

/* If the kernel must end somebody, it ends what scripts fill: the worker that has grown, since it has all that its team has, and more. */
static void be_first_to_go(void) {
  FILE *f = fopen("/proc/self/oom_score_adj", "w");
  if (f == NULL) return;
  fputs("500", f);
  fclose(f);
}

_Noreturn void team_run(const ev_serve_options *o, board *b, const bells *bell, uint32_t index, const char *args, int report) {
  team t = {.b = b, .bell = bell, .home = o->home, .index = index, .report = report, .keep_every_ns = (uint64_t)(o->snapshot_s > 0 ? o->snapshot_s : SNAPSHOT_S) * 250000000};
  json_t *said = NULL;
  be_first_to_go();
  if (ev_confine(EV_CONFINE_LOAD, o->home, NULL) != EV_OK) ev_log(EV_LOG_DEBUG, "%s", ev_error()); /* its workers warn */
  ev_status status = load(&t, o, args, &said);
  if (status != EV_OK) {
    say(report, json_pack("{s:s, s:i}", "error", ev_error(), "status", (int)status));
    _exit(1);
  }
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, NULL);
  t.signals = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
  if (t.signals < 0) _exit(1);
  put_on_board(&t, said);
  if (!say(report, json_pack("{s:o}", "ready", said))) { /* the supervisor would wait for ever */
    say(report, json_pack("{s:s, s:i}", "error", "what staging found is too long to be told", "status", (int)EV_ELIMIT));
    _exit(1);
  }
  lead(&t);
}
