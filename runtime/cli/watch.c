/* watch.c - Ctrl-C and --timeout, also where nothing listens to them.
 *
 * An interruption and a deadline first set a flag that long loops look at, so that work ends by itself and leaves what it
 * has reached. LuaJIT's compiled code looks at nothing: what has not ended some seconds later is ended from the signal's
 * handler. Nothing half-made is lost by that: files appear whole or not at all. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "cli.h"

#define GRACE_S 5 /* a checkpoint of a few hundred megabytes is written in less */

static volatile sig_atomic_t watching, late, ending;

static void alarm_in(double seconds) {
  struct itimerval t = {.it_value = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)}};
  if (t.it_value.tv_sec == 0 && t.it_value.tv_usec == 0) t.it_value.tv_usec = 1;
  setitimer(ITIMER_REAL, &t, NULL);
}

static void on_interrupt(int sig) {
  static volatile sig_atomic_t times;
  ev_interrupt();
  if (++times >= 3) { /* somebody means it */
    signal(sig, SIG_DFL);
    raise(sig);
  }
  if (watching && !ending) alarm_in(GRACE_S);
  ending = 1;
}

static void say(const char *text) { /* over the line of progress that a terminal may show */
  ssize_t n = isatty(STDERR_FILENO) ? write(STDERR_FILENO, "\r\033[K", 4) : 0;
  n = write(STDERR_FILENO, text, strlen(text));
  (void)n;
}

static void on_alarm(int sig) {
  (void)sig;
  if (!ending) { /* the deadline */
    late = ending = 1;
    ev_interrupt();
    alarm_in(GRACE_S);
    return;
  }
  say(late ? "evection: ran out of time (--timeout); what did not stop by itself was ended\n" : "evection: interrupted; what did not stop by itself was ended\n");
  _exit(late ? 3 : 130);
}

void ev_watch_interrupts(void) {
  struct sigaction action = {.sa_handler = on_interrupt};
  sigaction(SIGINT, &action, NULL);
}

ev_status ev_watch_scripts(const json_t *opts) {
  double timeout_s = ev_opt_real(opts, "timeout", 0);
  if (json_object_get(opts, "timeout") != NULL && !(timeout_s > 0 && timeout_s <= 1e8)) return ev_fail(EV_EINVAL, "--timeout: %g is not between 0 and 1e8 seconds", timeout_s);
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  watching = 1;
  if (timeout_s > 0) alarm_in(timeout_s);
  return EV_OK;
}

bool ev_watch_late(void) { return late; }
