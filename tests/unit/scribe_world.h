/* scribe_world.h - what the tests of the ledger's writer share: a process that writes, memory that it and the test both see, rows. */
#ifndef TESTS_SCRIBE_WORLD_H
#define TESTS_SCRIBE_WORLD_H

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "ledger_world.h"

#include "../../runtime/serve/inside.h"

__attribute__((unused)) static void *shared(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(p != MAP_FAILED);
  return p;
}

/* A ledger must not be open when it is called: SQLite's locks do not live through a fork. */
__attribute__((unused)) static pid_t writer(scribe *s, const char *name) {
  const char *path = in_folder(name);
  fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  ev_status status = scribe_run(s, path);
  if (status != EV_OK && status != EV_EIO) fprintf(stderr, "writer: %s\n", ev_error());
  _exit((int)status);
}

__attribute__((unused)) static int ended(pid_t pid) { /* with which ev_status */
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  if (!WIFEXITED(status)) fail_msg("a process ended by signal %d", WTERMSIG(status));
  return WEXITSTATUS(status);
}

__attribute__((unused)) static void killed(pid_t pid) {
  int status;
  kill(pid, SIGKILL);
  assert_int_equal(waitpid(pid, &status, 0), pid);
  if (!WIFSIGNALED(status)) fail_msg("a process ended by itself, with %d", WEXITSTATUS(status));
}

__attribute__((unused)) static bool rings(int bell, int ms) {
  bool rung = poll(&(struct pollfd){.fd = bell, .events = POLLIN}, 1, ms) == 1;
  bell_hush(bell);
  return rung;
}

/* Batch n of a producer: a slate of two and ROWS events, the first about the slate of batch n + 1. */
enum { ROWS = 5 };
typedef struct sent {
  char id[24], next[24], ids[ROWS][32];
  ev_impression slate;
  ev_event events[ROWS];
} sent;

__attribute__((unused)) static ev_ledger_batch batch_of(sent *s, uint32_t who, uint32_t n) {
  snprintf(s->id, sizeof s->id, "%u.%u", who, n);
  snprintf(s->next, sizeof s->next, "%u.%u", who, n + 1);
  s->slate = slate(s->id);
  s->slate.version = n % 2 ? "v1" : "v2";
  for (uint32_t i = 0; i < ROWS; i++) {
    snprintf(s->ids[i], sizeof s->ids[i], "%u.%u.%u", who, n, i);
    s->events[i] = about(s->ids[i], i % 2 ? "a" : "b", i == 0 ? s->next : s->id);
    s->events[i].value = n;
    s->events[i].time_ms += (int64_t)n * 60000;
  }
  return (ev_ledger_batch){&s->slate, 1, s->events, ROWS};
}

#endif
