/* jobs.c - the pool of forked children.
 *
 * A result is one frame: magic, status, length, checksum, bytes. Only the child knows its end of the pipe, but the
 * code in it is not trusted, so the frame is checked like any received structure. */
#include "jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC 0x4A6F4265u
#define RESULT_MAX (64u << 20)

typedef struct frame {
  uint32_t magic, status;
  uint64_t len, checksum;
} frame;

typedef struct child {
  pid_t pid; /* 0: free */
  int fd;
  size_t job;
  uint64_t started_ns, deadline_ns; /* deadline 0: none */
  bool late;
  ev_buf got;
} child;

/* ---- In the child --------------------------------------------------------------------------------------*/
static void write_all(int fd, const void *data, size_t len) {
  const char *p = data;
  while (len > 0) {
    ssize_t n = write(fd, p, len);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(1);
    p += n;
    len -= (size_t)n;
  }
}

static void limit(int what, uint64_t value) {
  struct rlimit l = {value, value};
  setrlimit(what, &l);
}

static void run_child(int fd, pid_t parent, const ev_job_limits *limits, ev_job_fn *run, void *ctx, size_t job) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1); /* it died in between */
  setpgid(0, 0); /* Ctrl-C goes to the parent, which ends its children itself */
  signal(SIGINT, SIG_DFL);
  int null = open("/dev/null", O_RDWR);
  if (null >= 0) {
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
  }
  limit(RLIMIT_CORE, 0);
#ifndef __SANITIZE_ADDRESS__ /* its shadow counts as data, terabytes of it */
  if (limits->max_memory_bytes > 0) limit(RLIMIT_DATA, limits->max_memory_bytes);
#endif
  if (limits->timeout_s > 0) { /* a second guard, should the parent be stopped */
    int threads = limits->threads > 0 ? limits->threads : 1;
    limit(RLIMIT_CPU, (uint64_t)ceil(limits->timeout_s * threads) + 1);
  }
  ev_threads_set(limits->threads > 0 ? limits->threads : 1);
  if (limits->confine_to != NULL) ev_confine(EV_CONFINE_EVALUATE, limits->confine_to, NULL); /* where it cannot be, the limits have to do */
  ev_buf out = {0};
  ev_status status = run(ctx, job, &out);
  const char *bytes = status == EV_OK ? out.data : ev_error(); /* sent as it is: there may be no memory left for a copy */
  size_t len = status == EV_OK ? out.len : strlen(bytes);
  frame f = {MAGIC, (uint32_t)status, len, ev_checksum(bytes != NULL ? bytes : "", len)};
  write_all(fd, &f, sizeof f);
  write_all(fd, bytes, len);
  _exit(0);
}

/* ---- In the parent -------------------------------------------------------------------------------------*/
static ev_status start(child *c, size_t job, const ev_job_limits *limits, ev_job_fn *run, void *ctx) {
  int pipes[2];
  if (pipe2(pipes, O_CLOEXEC) != 0) return ev_fail_errno("cannot make a pipe");
  fflush(NULL);
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) {
    ev_status status = ev_fail_errno("cannot start a process");
    close(pipes[0]);
    close(pipes[1]);
    return status;
  }
  if (pid == 0) {
    close(pipes[0]);
    run_child(pipes[1], parent, limits, run, ctx, job);
  }
  close(pipes[1]);
  fcntl(pipes[0], F_SETFL, O_NONBLOCK);
  uint64_t now = ev_now_ns();
  *c = (child){.pid = pid, .fd = pipes[0], .job = job, .started_ns = now, .got = c->got,
               .deadline_ns = limits->timeout_s > 0 ? now + (uint64_t)(limits->timeout_s * 1e9) : 0};
  ev_buf_clear(&c->got);
  return EV_OK;
}

/* Takes what has arrived; true when nothing more will. */
static bool drain(child *c, size_t max) {
  for (;;) {
    if (c->got.len > max + sizeof(frame) || ev_buf_reserve(&c->got, 65536) != EV_OK) { /* more than anybody may say */
      kill(c->pid, SIGKILL);
      return true;
    }
    ssize_t n = read(c->fd, c->got.data + c->got.len, 65536);
    if (n > 0) c->got.len += (size_t)n;
    else if (n == 0) return true;
    else if (errno != EINTR) return errno != EAGAIN;
  }
}

static ev_status judge(const child *c, int wait_status, size_t max, const char **data, size_t *len) {
  frame f;
  static char message[256];
  *data = message;
  if (c->late) snprintf(message, sizeof message, "ran out of time and was killed");
  else if (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGXCPU) snprintf(message, sizeof message, "ran out of processor time and was killed");
  else if (WIFSIGNALED(wait_status)) snprintf(message, sizeof message, "was killed by signal %d (%s)", WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
  else if (c->got.len < sizeof f) snprintf(message, sizeof message, "ended with exit code %d and no result", WEXITSTATUS(wait_status));
  else {
    memcpy(&f, c->got.data, sizeof f);
    const char *bytes = c->got.data + sizeof f;
    if (f.magic == MAGIC && f.status <= EV_ESCRIPT && f.len <= max && f.len == c->got.len - sizeof f && ev_checksum(bytes, f.len) == f.checksum) {
      *data = bytes; /* the buffer keeps a NUL behind its bytes */
      *len = f.len;
      return (ev_status)f.status;
    }
    snprintf(message, sizeof message, "sent a result that is damaged");
  }
  *len = strlen(message);
  return c->late || (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGXCPU) ? EV_ELIMIT : EV_EIO;
}

static ev_status finish(child *c, size_t max, ev_job_done_fn *done, void *ctx) {
  int wait_status = 0;
  struct rusage usage = {0};
  close(c->fd);
  while (wait4(c->pid, &wait_status, 0, &usage) < 0 && errno == EINTR) continue;
  c->pid = 0;
  if (c->got.data != NULL) c->got.data[c->got.len] = '\0';
  ev_job_result r = {.job = c->job, .seconds = (double)(ev_now_ns() - c->started_ns) * 1e-9, .peak_rss_bytes = (uint64_t)usage.ru_maxrss * 1024};
  r.status = judge(c, wait_status, max, &r.data, &r.len);
  return done(ctx, &r);
}

static void kill_all(child *pool, int workers) {
  for (int i = 0; i < workers; i++) {
    if (pool[i].pid == 0) continue;
    kill(-pool[i].pid, SIGKILL); /* its group, */
    kill(pool[i].pid, SIGKILL);  /* or itself when it had no time to make one */
    close(pool[i].fd);
    while (waitpid(pool[i].pid, NULL, 0) < 0 && errno == EINTR) continue;
    pool[i].pid = 0;
  }
}

/* Milliseconds to the nearest deadline, at most a second. */
static int patience(const child *pool, int workers) {
  uint64_t now = ev_now_ns(), least = 1000000000u;
  for (int i = 0; i < workers; i++)
    if (pool[i].pid != 0 && pool[i].deadline_ns != 0 && !pool[i].late) {
      uint64_t left = pool[i].deadline_ns > now ? pool[i].deadline_ns - now : 0;
      if (left < least) least = left;
    }
  return (int)(least / 1000000u) + 1;
}

ev_status ev_jobs_run(size_t n, int workers, const ev_job_limits *limits, ev_job_fn *run, ev_job_done_fn *done, void *ctx) {
  size_t next = 0, max = limits->max_result_bytes > 0 ? limits->max_result_bytes : RESULT_MAX;
  if (workers < 1) workers = 1;
  if ((size_t)workers > n) workers = n > 0 ? (int)n : 1;
  child *pool = ev_zalloc((size_t)workers, sizeof *pool);
  struct pollfd *fds = ev_alloc((size_t)workers, sizeof *fds);
  ev_status status = pool == NULL || fds == NULL ? EV_ENOMEM : EV_OK;
  while (status == EV_OK) {
    int running = 0;
    for (int i = 0; i < workers && status == EV_OK; i++) {
      if (pool[i].pid == 0 && next < n) status = start(&pool[i], next++, limits, run, ctx);
      fds[i] = (struct pollfd){.fd = pool[i].pid != 0 ? pool[i].fd : -1, .events = POLLIN};
      running += pool[i].pid != 0;
    }
    if (status != EV_OK || running == 0) break;
    poll(fds, (nfds_t)workers, patience(pool, workers));
    if (ev_interrupted()) {
      status = ev_fail(EV_EINTR, "interrupted");
      break;
    }
    uint64_t now = ev_now_ns();
    for (int i = 0; i < workers && status == EV_OK; i++) {
      if (pool[i].pid == 0) continue;
      if (pool[i].deadline_ns != 0 && now >= pool[i].deadline_ns && !pool[i].late) {
        pool[i].late = true;
        kill(-pool[i].pid, SIGKILL);
        kill(pool[i].pid, SIGKILL);
      }
      /* A late child is dead; a grandchild that fled its group may hold the pipe open for ever. */
      if (drain(&pool[i], max) || pool[i].late) status = finish(&pool[i], max, done, ctx);
    }
  }
  if (pool != NULL) {
    kill_all(pool, workers);
    for (int i = 0; i < workers; i++) ev_buf_free(&pool[i].got);
  }
  ev_free(pool);
  ev_free(fds);
  return status;
}
