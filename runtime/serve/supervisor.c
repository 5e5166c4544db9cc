/* supervisor.c - the process that was started: it opens the sockets, makes the shared memory, starts the others and starts those
 * again that die. It never runs Lua, takes no request and has one thread. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inside.h"

#define DEBOUNCE_MS 100
#define DRAIN_MS 8000        /* for the requests under way, and for what the ledger still has to write */
#define RING_BYTES ((size_t)16 << 20)
#define SCRIBE_NICE 5
#define QUICK_S 2            /* a child that dies sooner after its start, */
#define QUICK_MOST 10        /* so often in a row, will not be better the next time */


static void leave_to_others(supervisor *s) { /* in a child: what is the supervisor's own */
  close(s->epoll);
  close(s->signals);
  close(watch_fd(s->watch));
  for (size_t i = 0; i < TEAMS_MAX; i++)
    if (s->members[i].report >= 0) close(s->members[i].report);
}

static ev_status start_writer(supervisor *s) {
  char path[4096];
  snprintf(path, sizeof path, "%s/ledger.db", s->o->home);
  fflush(NULL);
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) return ev_fail_errno("cannot start the ledger's writer");
  if (pid == 0) {
    leave_to_others(s);
    if (s->control >= 0) close(s->control);
    for (size_t i = 0; i < s->sockets.n_http; i++) close(s->sockets.http[i]);
    if (s->sockets.admin >= 0) close(s->sockets.admin);
    process_begin("ev-scribe", parent, true);
    if (nice(SCRIBE_NICE) < 0) ev_log(EV_LOG_DEBUG, "nice: %s", strerror(errno)); /* where processors are short, a slate goes before its row in the ledger */
    ev_status status = scribe_run(s->scribe, path);
    if (status != EV_OK) ev_log(EV_LOG_ERROR, "%s", ev_error());
    _exit(status == EV_OK ? 0 : 1);
  }
  s->writer = pid;
  return EV_OK;
}

static ev_status start_front(supervisor *s) {
  int pair[2], size = 4 << 20;
  if (s->control >= 0) close(s->control);
  s->control = -1;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return ev_fail_errno("cannot make a socket pair");
  for (int i = 0; i < 2; i++) setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  fflush(NULL);
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) {
    ev_status status = ev_fail_errno("cannot start the front");
    close(pair[0]);
    close(pair[1]);
    return status;
  }
  if (pid == 0) {
    leave_to_others(s);
    close(pair[0]);
    process_begin("ev-front", parent, true);
    front f = {.o = s->o, .b = s->b, .bells = &s->bells, .scribe = s->scribe, .snapshot = s->snapshot, .control = pair[1]};
    ev_status status = front_run(&f, &s->sockets);
    if (status != EV_OK) ev_log(EV_LOG_ERROR, "%s", ev_error());
    _exit(status == EV_OK ? 0 : 1);
  }
  close(pair[1]);
  s->control = pair[0];
  s->front = pid;
  struct epoll_event e = {.events = EPOLLIN, .data.fd = pair[0]};
  return epoll_ctl(s->epoll, EPOLL_CTL_ADD, pair[0], &e) == 0 ? EV_OK : ev_fail_errno("epoll");
}

static ev_status start_again(supervisor *s, const char *what, ev_status (*start)(supervisor *)) {
  uint64_t now = ev_now_ns();
  s->quick_deaths = now - s->started_ns < (uint64_t)QUICK_S * 1000000000 ? s->quick_deaths + 1 : 1;
  s->started_ns = now;
  if (s->quick_deaths > QUICK_MOST) return ev_fail(EV_EIO, "the %s died %d times in a row", what, QUICK_MOST);
  ev_log(EV_LOG_ERROR, "the %s died; it is started again", what);
  return start(s);
}

static ev_status reap(supervisor *s) {
  pid_t pid;
  int how;
  while ((pid = waitpid(-1, &how, WNOHANG)) > 0) {
    if (seats_bury(s->b, pid)) bell_ring(s->bells.thread[0]); /* its team was killed: nobody else empties its box */
    if (pid == s->front) {
      s->front = 0;
      if (!s->stopping) EV_TRY(start_again(s, "front", start_front));
      else scribe_stop(s->scribe); /* nobody posts any more */
    } else if (pid == s->writer) {
      s->writer = 0;
      scribe_stats left;
      scribe_stat(s->scribe, &left); /* killed over the last of it: another writes the rest */
      if (!s->stopping || s->front != 0 || (WIFSIGNALED(how) && left.waiting_bytes > 0)) EV_TRY(start_again(s, "ledger's writer", start_writer));
    }
    for (size_t i = 0; i < TEAMS_MAX; i++)
      if (s->members[i].pid == pid) versions_ended(s, &s->members[i], how);
  }
  for (uint32_t i = 0; i < TEAMS_MAX; i++)
    if (s->members[i].pid == 0 && seats_bury_lost(s->b, i)) bell_ring(s->bells.thread[0]);
  return EV_OK;
}

static void begin_stop(supervisor *s) {
  if (s->stopping) { /* asked twice: now */
    s->stop_ns = 0;
    return;
  }
  s->stopping = true;
  s->stop_ns = ev_now_ns() + (uint64_t)DRAIN_MS * 1000000;
  notify_system("STOPPING=1");
  versions_stop(s);
  atomic_store(&s->b->stopping, 1);
  for (int i = 0; i < s->o->http_threads; i++) bell_ring(s->bells.thread[i]);
}

static void take_signals(supervisor *s, bool *reload) {
  struct signalfd_siginfo info;
  while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
    if (info.ssi_signo == SIGHUP) *reload = true;
    else if (info.ssi_signo != SIGCHLD) begin_stop(s);
  }
}

static int wait_ms(const supervisor *s) {
  uint64_t now = ev_now_ns(), next = UINT64_MAX;
  if (s->edited_ns != 0) next = s->edited_ns + (uint64_t)DEBOUNCE_MS * 1000000;
  if (s->stopping && s->stop_ns < next) next = s->stop_ns;
  if (s->pending != NULL && now + 20000000 < next) next = now + 20000000;
  if (next == UINT64_MAX) return -1;
  return next <= now ? 0 : (int)((next - now) / 1000000) + 1;
}

static ev_status loop(supervisor *s) {
  for (;;) {
    struct epoll_event events[32];
    int n = epoll_wait(s->epoll, events, 32, wait_ms(s));
    bool reload = false;
    if (n < 0 && errno != EINTR) return ev_fail_errno("epoll");
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == s->signals) {
        take_signals(s, &reload);
      } else if (fd == s->bells.supervisor) {
        bell_hush(fd);
      } else if (fd == watch_fd(s->watch)) {
        char why[1024];
        board_error(s->b, why); /* what a version that could not be loaded is made of is not known: any source beside may be its cure */
        if (watch_read(s->watch, why[0] != '\0')) s->edited_ns = ev_now_ns();
      } else if (fd == s->control) {
        static char text[1 << 20];
        ssize_t len = recv(fd, text, sizeof text, MSG_DONTWAIT);
        if (len == 0) epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL); /* it died: SIGCHLD tells */
        json_t *command = len > 0 ? json_loadb(text, (size_t)len, 0, NULL) : NULL;
        if (command != NULL) versions_command(s, command);
      } else {
        for (size_t k = 0; k < TEAMS_MAX; k++)
          if (s->members[k].report == fd) versions_heard(s, &s->members[k]);
      }
    }
    EV_TRY(reap(s));
    if (s->pending != NULL && !s->stopping) versions_pending(s);
    versions_strikes(s);
    if (reload && !s->stopping) {
      notify_system("RELOADING=1");
      versions_edited(s);
      notify_system("READY=1");
    }
    if (s->edited_ns != 0 && ev_now_ns() >= s->edited_ns + (uint64_t)DEBOUNCE_MS * 1000000) {
      s->edited_ns = 0;
      if (!s->stopping) versions_edited(s);
    }
    if (s->failed) { /* the first version never came up */
      char why[1024];
      board_error(s->b, why);
      return ev_fail(EV_EINVAL, "%s", why);
    }
    if (s->stopping && ((s->front == 0 && s->writer == 0) || ev_now_ns() >= s->stop_ns)) return EV_OK;
  }
}

static ev_status open_bells(bells *b) {
  int *all[] = {&b->supervisor};
  for (size_t i = 0; i < THREADS_MAX; i++) b->thread[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  for (size_t i = 0; i < TEAMS_MAX; i++) b->team[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  *all[0] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return b->supervisor >= 0 && b->thread[THREADS_MAX - 1] >= 0 && b->team[TEAMS_MAX - 1] >= 0 ? EV_OK : ev_fail_errno("eventfd");
}

static ev_status add_fd(const supervisor *s, int fd) {
  struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
  return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) == 0 ? EV_OK : ev_fail_errno("epoll");
}

static ev_status open_all(supervisor *s, const sigset_t *signals) {
  const ev_serve_options *o = s->o;
  int done[THREADS_MAX + 1];
  guard *g;
  EV_TRY(guard_open(&g, o->tokens, o->rate_per_s, o->burst)); /* what is wrong there is said before anything runs */
  guard_close(g);
  EV_TRY(sockets_open(&s->sockets, o));
  EV_TRY(privileges_drop(o));
  prctl(PR_SET_NAME, "evection"); /* whatever started it */
  prctl(PR_SET_CHILD_SUBREAPER, 1); /* workers of a team that was killed are waited for, too */
  EV_TRY(ev_snapshot_open(&s->snapshot, o->snapshot_path));
  EV_TRY(board_new(&s->b, ev_snapshot_n_items(s->snapshot)));
  atomic_store(&s->b->strikes_max, (uint32_t)o->strikes);
  EV_TRY(open_bells(&s->bells));
  for (int i = 0; i < o->http_threads; i++) done[i] = s->bells.thread[i];
  done[o->http_threads] = s->bells.supervisor; /* its own ring: promotions */
  EV_TRY(scribe_new(&s->scribe, (size_t)o->http_threads + 1, RING_BYTES, done));
  EV_TRY(watch_open(&s->watch));
  s->epoll = epoll_create1(EPOLL_CLOEXEC);
  s->signals = signalfd(-1, signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (s->epoll < 0 || s->signals < 0) return ev_fail_errno("epoll");
  EV_TRY(add_fd(s, s->signals));
  EV_TRY(add_fd(s, s->bells.supervisor));
  return add_fd(s, watch_fd(s->watch));
}

#define LEAVE_MS 500 /* for workers that are idle, as they are after a drain */

static void end_teams(supervisor *s) {
  bool any = true;
  for (size_t i = 0; i < TEAMS_MAX && s->b != NULL; i++) {
    if (s->members[i].pid == 0) continue;
    atomic_store(&s->b->teams[i].state, TEAM_LEAVING);
    bell_ring(s->bells.team[i]);
  }
  for (int ms = 0; any && ms < LEAVE_MS; ms += 5) {
    pid_t pid;
    any = false;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
      if (pid == s->writer) s->writer = 0;
      if (pid == s->front) s->front = 0;
      for (size_t i = 0; i < TEAMS_MAX; i++)
        if (s->members[i].pid == pid) s->members[i].pid = 0;
    }
    for (size_t i = 0; i < TEAMS_MAX; i++) any = any || (s->members[i].pid != 0 && s->members[i].state > MEMBER_STAGING);
    if (any) usleep(5000);
  }
  for (size_t i = 0; i < TEAMS_MAX; i++)
    if (s->members[i].pid != 0) kill(s->members[i].pid, SIGKILL); /* and with it its workers */
}

static void end_all(supervisor *s) {
  pid_t pid;
  end_teams(s);
  if (s->front != 0) kill(s->front, SIGKILL);
  if (s->writer != 0) { /* what it has is written: a drain may take as long as a locked file does */
    scribe_stop(s->scribe);
    for (int i = 0; i < DRAIN_MS / 10 && waitpid(s->writer, NULL, WNOHANG) == 0; i++) usleep(10000);
    kill(s->writer, SIGKILL);
  }
  for (int i = 0; i < 400 && (pid = waitpid(-1, NULL, WNOHANG)) >= 0; i++) /* a child that was there before us may stay */
    if (pid == 0) usleep(10000);
  sockets_close(&s->sockets, s->o);
  for (size_t i = 0; i < TEAMS_MAX; i++) {
    if (s->members[i].report >= 0) close(s->members[i].report);
    json_decref(s->members[i].options);
    json_decref(s->members[i].said);
  }
  json_decref(s->pending);
  if (s->control >= 0) close(s->control);
  if (s->epoll >= 0) close(s->epoll);
  if (s->signals >= 0) close(s->signals);
  watch_close(s->watch);
  scribe_free(s->scribe);
  board_free(s->b);
  ev_snapshot_close(s->snapshot);
}

ev_status ev_serve(const ev_serve_options *o) {
  static supervisor s;
  sigset_t signals, before;
  s = (supervisor){.o = o, .epoll = -1, .signals = -1, .control = -1, .sockets.admin = -1, .started_ns = ev_now_ns()};
  for (size_t i = 0; i < TEAMS_MAX; i++) s.members[i] = (member){.report = -1, .ticket = -1};
  snprintf(s.source, sizeof s.source, "%s", o->composition);
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGCHLD);
  sigprocmask(SIG_BLOCK, &signals, &before);
  ev_status status = open_all(&s, &signals);
  if (status == EV_OK) status = start_writer(&s);
  if (status == EV_OK) status = start_front(&s);
  if (status == EV_OK) status = versions_stage(&s, o->composition, "publish", NULL, -1, "given at the start");
  if (status == EV_OK) status = loop(&s);
  char why[1024];
  snprintf(why, sizeof why, "%s", status != EV_OK ? ev_error() : "");
  end_all(&s);
  sigprocmask(SIG_SETMASK, &before, NULL);
  return status == EV_OK ? EV_OK : ev_fail(status, "%s", why);
}
