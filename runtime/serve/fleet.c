/* fleet.c - generations of script workers.
 *
 * A worker is a forked child with a Lua host and a SOCK_SEQPACKET socket: it loads the composition, says "ready" with
 * its version and files, then answers one message at a time. A generation starts with one worker; when that is ready
 * the generation is published, the others are forked (they find every artifact made), and the one before is drained. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inside.h"

#define MESSAGE_MAX (1u << 20)
#define DEBOUNCE_MS 100
#define RESPAWN_MS 500 /* before a worker that died while loading is tried again */
#define WARM_DEADLINES 20 /* the first slate of a version may take this many deadlines, and at least two seconds */

typedef struct job {
  request *r; /* NULL: nobody waits */
  char *message;
  uint64_t deadline_ns;
  struct job *next;
} job;

typedef struct worker {
  pid_t pid; /* 0: free */
  int fd, generation;
  bool ready;
  job *current;
} worker;

#define WORKERS_MAX 256

struct fleet {
  const ev_serve_options *o;
  fleet_hooks hooks;
  int epoll_fd, watch_fd;
  worker workers[WORKERS_MAX];
  int live, loading; /* generations; 0: none */
  int last;          /* number of the newest generation */
  char version[65], error[2048];
  char **files;      /* of the live and the loading version, owned */
  size_t n_files;
  job *first, **end; /* waiting for a worker */
  size_t waiting;
  uint64_t edited_ns, respawn_ns; /* 0: not */
  fleet_counts counts;
};

/* ---- In the worker -------------------------------------------------------------------------------------*/
static bool reply(int fd, const char *data, size_t len) {
  while (send(fd, data, len, MSG_NOSIGNAL) < 0)
    if (errno != EINTR) return false;
  return true;
}

/* Ends the process if the next step, a version's first slate, takes too long; 0: it is done. */
static void set_alarm(int ms) {
  struct itimerval t = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};
  setitimer(ITIMER_REAL, &t, NULL);
}

static int warm_ms(const fleet *f) {
  int ms = WARM_DEADLINES * f->o->deadline_ms;
  return ms < 2000 ? 2000 : ms;
}

static void work(fleet *f, int fd, pid_t front) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != front) _exit(1);
  signal(SIGINT, SIG_IGN); /* the front decides when a worker ends */
  signal(SIGTERM, SIG_DFL);
  signal(SIGALRM, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  ev_host_options ho = {.home = f->o->home};
  ev_host *h;
  ev_buf out = {0};
  json_t *args = json_pack("{s:s, s:s, s:I}", "composition", f->o->composition, "data", f->o->data, "seed", (json_int_t)f->o->seed);
  char *text = json_dumps(args, 0);
  ev_status status = ev_host_new(&h, &ho);
  if (status == EV_OK) status = ev_host_call(h, "evection.serve", "load", text, &out);
  if (status == EV_OK) {
    set_alarm(warm_ms(f));
    status = ev_host_call(h, "evection.serve", "warm", NULL, NULL);
    set_alarm(0);
  }
  if (status != EV_OK) {
    json_t *failed = json_pack("{s:s}", "error", ev_error());
    char *why = json_dumps(failed, 0);
    if (why != NULL) reply(fd, why, strlen(why));
    _exit(1);
  }
  if (!reply(fd, out.data, out.len)) _exit(1);
  ev_threads_set(1); /* requests are many: each gets one core */
  char *message = malloc(MESSAGE_MAX + 1);
  if (message == NULL) _exit(1);
  for (;;) {
    ssize_t n = recv(fd, message, MESSAGE_MAX, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(0); /* the front closed it: drained */
    message[n] = '\0';
    ev_buf_clear(&out);
    if (ev_host_call(h, "evection.serve", "answer", message, &out) != EV_OK) {
      json_t *failed = json_pack("{s:s}", "error", ev_error());
      char *why = failed != NULL ? json_dumps(failed, 0) : NULL;
      if (why == NULL || !reply(fd, why, strlen(why))) _exit(1);
      free(why);
      json_decref(failed);
    } else if (!reply(fd, out.data, out.len)) {
      _exit(1);
    }
  }
}

/* ---- In the front --------------------------------------------------------------------------------------*/
static ev_status spawn(fleet *f, int generation) {
  worker *w = NULL;
  for (size_t i = 0; i < WORKERS_MAX && w == NULL; i++)
    if (f->workers[i].pid == 0) w = &f->workers[i];
  if (w == NULL) return ev_fail(EV_ELIMIT, "more than %d workers", WORKERS_MAX);
  int pair[2], size = 2 * MESSAGE_MAX;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return ev_fail_errno("cannot make a socket pair");
  for (int i = 0; i < 2; i++) {
    setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(pair[i], SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  }
  fflush(NULL);
  pid_t front = getpid(), pid = fork();
  if (pid < 0) {
    ev_status status = ev_fail_errno("cannot start a worker");
    close(pair[0]);
    close(pair[1]);
    return status;
  }
  if (pid == 0) {
    close(pair[0]);
    for (size_t i = 0; i < WORKERS_MAX; i++)
      if (f->workers[i].pid != 0) close(f->workers[i].fd);
    close(f->watch_fd);
    f->hooks.in_child(f->hooks.ctx);
    work(f, pair[1], front);
  }
  close(pair[1]);
  fcntl(pair[0], F_SETFL, O_NONBLOCK);
  *w = (worker){.pid = pid, .fd = pair[0], .generation = generation};
  struct epoll_event e = {.events = EPOLLIN, .data.fd = pair[0]};
  if (epoll_ctl(f->epoll_fd, EPOLL_CTL_ADD, pair[0], &e) != 0) return ev_fail_errno("epoll");
  return EV_OK;
}

static void finish_job(fleet *f, job *j, const char *json, size_t len) {
  if (j == NULL) return;
  f->waiting--;
  if (j->r != NULL) f->hooks.answer(f->hooks.ctx, j->r, json, len, f->version);
  free(j->message);
  free(j);
}

/* The worker is gone from the books; its process is killed unless it has ended. → how it ended, as waitpid tells */
static int drop(fleet *f, worker *w, bool kill_it) {
  job *j = w->current;
  int how = 0;
  epoll_ctl(f->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
  close(w->fd);
  if (kill_it) kill(w->pid, SIGKILL);
  while (waitpid(w->pid, &how, 0) < 0 && errno == EINTR) continue;
  *w = (worker){0};
  finish_job(f, j, NULL, 0);
  return how;
}

/* The live generation gets the workers it lacks. */
static void refill(fleet *f) {
  int n = 0;
  for (size_t i = 0; i < WORKERS_MAX; i++) n += f->workers[i].pid != 0 && f->workers[i].generation == f->live;
  for (; f->live != 0 && n < f->o->workers; n++) {
    if (spawn(f, f->live) == EV_OK) continue;
    ev_log(EV_LOG_ERROR, "%s", ev_error());
    f->respawn_ns = ev_now_ns() + (uint64_t)RESPAWN_MS * 1000000;
    return;
  }
}

static void retire(fleet *f, int generation) { /* idle workers end now, busy ones with their answer */
  for (size_t i = 0; i < WORKERS_MAX; i++)
    if (f->workers[i].pid != 0 && f->workers[i].generation == generation && f->workers[i].current == NULL) drop(f, &f->workers[i], true);
}

static void keep_error(fleet *f, const char *why) {
  snprintf(f->error, sizeof f->error, "%s", why);
  f->counts.failed_reloads++;
  ev_log(EV_LOG_ERROR, "%s; %s", why, f->live != 0 ? "the version before stays" : "nothing is served yet");
}

static void forget_files(fleet *f) {
  for (size_t i = 0; i < f->n_files; i++) free(f->files[i]);
  free(f->files);
  f->files = NULL;
  f->n_files = 0;
}

/* Watches the folders of the version's files: editors replace files, so a watch on the file itself would be lost. */
static void watch(fleet *f, const json_t *files) {
  forget_files(f);
  f->files = calloc(json_array_size(files) + 1, sizeof *f->files);
  for (size_t i = 0; f->files != NULL && i < json_array_size(files); i++) {
    const char *path = json_string_value(json_array_get(files, i));
    if (path == NULL) continue;
    char folder[4096];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - path) : 1, slash != NULL ? path : ".");
    f->files[f->n_files++] = strdup(slash != NULL ? slash + 1 : path);
    int id = inotify_add_watch(f->watch_fd, folder, IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE);
    if (id < 0) ev_log(EV_LOG_WARN, "%s: edits will not be noticed: %s", folder, strerror(errno));
  }
}

static void publish(fleet *f, int generation, const json_t *said) {
  const char *version = json_string_value(json_object_get(said, "version"));
  int before = f->live;
  watch(f, json_object_get(said, "files"));
  f->error[0] = '\0';
  f->loading = 0;
  if (before != 0 && strcmp(version, f->version) == 0) { /* nothing that matters was edited */
    retire(f, generation);
    return;
  }
  snprintf(f->version, sizeof f->version, "%s", version);
  f->live = generation;
  if (before != 0) {
    f->counts.reloads++;
    retire(f, before);
  }
  refill(f);
  f->hooks.published(f->hooks.ctx, f->version);
}

static uint64_t deadline(const fleet *f) { return ev_now_ns() + (uint64_t)f->o->deadline_ms * 1000000; }

/* Hands waiting messages to idle workers of the live generation. */
static void pump(fleet *f) {
  for (size_t i = 0; i < WORKERS_MAX && f->first != NULL; i++) {
    worker *w = &f->workers[i];
    if (w->pid == 0 || !w->ready || w->current != NULL || w->generation != f->live) continue;
    job *j = f->first;
    f->first = j->next;
    if (f->first == NULL) f->end = &f->first;
    w->current = j;
    if (j->r == NULL) j->deadline_ns = deadline(f); /* nobody waits: its time begins with the work */
    if (send(w->fd, j->message, strlen(j->message), MSG_NOSIGNAL) >= 0) continue;
    if (errno == EMSGSIZE) { /* more than the kernel's buffers take: no worker's fault */
      w->current = NULL;
      finish_job(f, j, NULL, 0);
    } else {
      drop(f, w, true);
      refill(f);
    }
  }
}

static void first_word(fleet *f, worker *w, const char *text, size_t len) {
  json_error_t e;
  json_t *said = json_loadb(text, len, 0, &e);
  const char *why = json_string_value(json_object_get(said, "error"));
  int generation = w->generation;
  if (said == NULL || why != NULL || !json_is_string(json_object_get(said, "version"))) {
    if (generation == f->loading) {
      f->loading = 0;
      keep_error(f, why != NULL ? why : "a worker said nothing that makes sense while it loaded");
    }
    drop(f, w, true);
  } else {
    w->ready = true;
    if (generation == f->loading) publish(f, generation, said);
    pump(f);
  }
  json_decref(said);
}

static void died(fleet *f, worker *w) {
  int generation = w->generation;
  bool was_ready = w->ready;
  f->counts.deaths++;
  int how = drop(f, w, false);
  if (generation == f->loading && !was_ready) {
    char why[128] = "a worker died while it loaded the new version";
    if (WIFSIGNALED(how) && WTERMSIG(how) == SIGALRM) snprintf(why, sizeof why, "the new version made no slate in %d ms", warm_ms(f));
    f->loading = 0;
    keep_error(f, why);
  } else if (generation == f->live) {
    if (was_ready) refill(f); /* its request got the fallback; the next finds a fresh state */
    else f->respawn_ns = ev_now_ns() + (uint64_t)RESPAWN_MS * 1000000;
  }
}

bool fleet_event(fleet *f, int fd) {
  worker *w = NULL;
  for (size_t i = 0; i < WORKERS_MAX && w == NULL; i++)
    if (f->workers[i].pid != 0 && f->workers[i].fd == fd) w = &f->workers[i];
  if (w == NULL) return false;
  static char text[2 * MESSAGE_MAX + 1];
  ssize_t n = recv(fd, text, sizeof text - 1, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (n <= 0) {
    died(f, w);
    pump(f);
    return true;
  }
  text[n] = '\0';
  if (!w->ready) {
    first_word(f, w, text, (size_t)n);
    return true;
  }
  job *j = w->current;
  w->current = NULL;
  finish_job(f, j, text, (size_t)n);
  if (w->generation != f->live) drop(f, w, true); /* drained */
  pump(f);
  return true;
}

ev_status fleet_submit(fleet *f, request *r, char *message) {
  job *j = calloc(1, sizeof *j);
  if (message != NULL && strlen(message) > MESSAGE_MAX) {
    free(j);
    free(message);
    return ev_fail(EV_ELIMIT, "a message of more than %u bytes", MESSAGE_MAX);
  }
  if (j == NULL || message == NULL) {
    free(j);
    free(message);
    return ev_fail(EV_ENOMEM, "out of memory");
  }
  *j = (job){.r = r, .message = message, .deadline_ns = r != NULL ? deadline(f) : UINT64_MAX};
  *f->end = j;
  f->end = &j->next;
  f->waiting++;
  pump(f);
  return EV_OK;
}

ev_status fleet_load(fleet *f) {
  if (f->loading != 0) { /* an edit while the last one loads: start again */
    int old = f->loading;
    f->loading = 0;
    for (size_t i = 0; i < WORKERS_MAX; i++)
      if (f->workers[i].pid != 0 && f->workers[i].generation == old) drop(f, &f->workers[i], true);
  }
  f->loading = ++f->last;
  ev_status status = spawn(f, f->loading);
  if (status != EV_OK) f->loading = 0;
  return status;
}

bool fleet_watches(const fleet *f, int fd) { return fd == f->watch_fd; }

static bool is_source(const char *name) {
  const char *dot = strrchr(name, '.');
  return dot != NULL && (strcmp(dot, ".lua") == 0 || strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

void fleet_edited(fleet *f) {
  char buffer[16384] __attribute__((aligned(8)));
  for (;;) {
    ssize_t n = read(f->watch_fd, buffer, sizeof buffer);
    if (n <= 0) return;
    for (char *p = buffer; p < buffer + n;) {
      const struct inotify_event *e = (const struct inotify_event *)(const void *)p;
      for (size_t i = 0; i < f->n_files && e->len > 0; i++)
        if (f->files[i] != NULL && strcmp(f->files[i], e->name) == 0) f->edited_ns = ev_now_ns();
      /* What a version that could not be loaded is made of is not known: any source beside may be its cure. */
      if (f->error[0] != '\0' && e->len > 0 && is_source(e->name)) f->edited_ns = ev_now_ns();
      p += sizeof *e + e->len;
    }
  }
}

int fleet_tick(fleet *f) {
  uint64_t now = ev_now_ns(), next = UINT64_MAX;
  if (f->edited_ns != 0) {
    uint64_t due = f->edited_ns + (uint64_t)DEBOUNCE_MS * 1000000;
    if (now >= due) {
      f->edited_ns = 0;
      if (fleet_load(f) != EV_OK) keep_error(f, ev_error());
    } else if (due < next) {
      next = due;
    }
  }
  if (f->respawn_ns != 0 && now >= f->respawn_ns) {
    f->respawn_ns = 0;
    refill(f);
  } else if (f->respawn_ns != 0 && f->respawn_ns < next) {
    next = f->respawn_ns;
  }
  for (size_t i = 0; i < WORKERS_MAX; i++) {
    worker *w = &f->workers[i];
    if (w->pid == 0 || w->current == NULL) continue;
    if (now >= w->current->deadline_ns) {
      f->counts.late++;
      drop(f, w, true);
      refill(f);
    } else if (w->current->deadline_ns < next) {
      next = w->current->deadline_ns;
    }
  }
  for (job **at = &f->first; *at != NULL;) {
    job *j = *at;
    if (now >= j->deadline_ns) { /* nobody had time for it */
      *at = j->next;
      if (*at == NULL) f->end = at;
      f->counts.late++;
      finish_job(f, j, NULL, 0);
    } else {
      if (j->deadline_ns < next) next = j->deadline_ns;
      at = &j->next;
    }
  }
  return next == UINT64_MAX ? -1 : (int)((next - now) / 1000000) + 1;
}

ev_status fleet_open(fleet **out, const ev_serve_options *o, int epoll_fd, const fleet_hooks *hooks) {
  *out = NULL;
  fleet *f = ev_zalloc(1, sizeof *f);
  if (f == NULL) return EV_ENOMEM;
  f->o = o;
  f->hooks = *hooks;
  f->epoll_fd = epoll_fd;
  f->end = &f->first;
  f->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  struct epoll_event e = {.events = EPOLLIN, .data.fd = f->watch_fd};
  if (f->watch_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, f->watch_fd, &e) != 0) {
    ev_status status = ev_fail_errno("inotify");
    fleet_close(f);
    return status;
  }
  *out = f;
  return EV_OK;
}

void fleet_close(fleet *f) {
  if (f == NULL) return;
  while (f->first != NULL) {
    job *j = f->first;
    f->first = j->next;
    finish_job(f, j, NULL, 0);
  }
  for (size_t i = 0; i < WORKERS_MAX; i++)
    if (f->workers[i].pid != 0) drop(f, &f->workers[i], true);
  if (f->watch_fd >= 0) close(f->watch_fd);
  forget_files(f);
  ev_free(f);
}

const char *fleet_version(const fleet *f) { return f->version; }
const char *fleet_error(const fleet *f) { return f->error; }
size_t fleet_waiting(const fleet *f) { return f->waiting; }
int fleet_generation(const fleet *f) { return f->live; }
const fleet_counts *fleet_count(const fleet *f) { return &f->counts; }
