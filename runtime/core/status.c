/* status.c - the thread's last error, the log, and the interruption flag. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core.h"

#define MESSAGE_MAX 2048

static _Thread_local char message[MESSAGE_MAX];

static void keep(const char *fmt, va_list args, const char *suffix) {
  char next[MESSAGE_MAX]; /* the arguments may point into the old message */
  vsnprintf(next, sizeof next, fmt, args);
  if (suffix != NULL) {
    size_t n = strlen(next);
    snprintf(next + n, sizeof next - n, ": %s", suffix);
  }
  memcpy(message, next, sizeof message);
}

ev_status ev_fail(ev_status status, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  keep(fmt, args, NULL);
  va_end(args);
  return status;
}

ev_status ev_fail_errno(const char *fmt, ...) {
  int number = errno;
  char text[128];
  va_list args;
  va_start(args, fmt);
  keep(fmt, args, strerror_r(number, text, sizeof text));
  va_end(args);
  switch (number) {
    case ENOENT: return EV_ENOTFOUND;
    case ENOMEM: return EV_ENOMEM;
    case EEXIST: return EV_EEXIST;
    default: return EV_EIO;
  }
}

const char *ev_error(void) { return message; }

const char *ev_status_name(ev_status status) {
  static const char *const names[] = {"ok",        "invalid", "io error",   "out of memory", "corrupt",
                                      "not found", "exists",  "over limit", "interrupted",   "script error"};
  return (size_t)status < sizeof names / sizeof *names ? names[status] : "unknown";
}

static _Atomic int log_least = EV_LOG_INFO;

void ev_log_set(ev_log_level least) { log_least = (int)least; }

void ev_log(ev_log_level level, const char *fmt, ...) {
  static const char *const names[] = {"debug", "info", "warning", "error"};
  if ((int)level < log_least) return;
  char line[MESSAGE_MAX];
  va_list args;
  va_start(args, fmt);
  vsnprintf(line, sizeof line, fmt, args);
  va_end(args);
  fprintf(stderr, "evection: %s: %s\n", names[level], line); /* one call, so that lines of processes do not mix */
}

static volatile sig_atomic_t interrupted;

void ev_interrupt(void) { interrupted = 1; }
bool ev_interrupted(void) { return interrupted != 0; }
void ev_interrupt_clear(void) { interrupted = 0; }
