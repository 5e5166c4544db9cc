/* asks_watch.c - ends Lua code that is not back in time.
 *
 * One timer a process, which is armed when no earlier alarm is under way, so that a request costs no system call as a rule: the
 * handler looks at what runs by then, and arms the timer again when that still has time. It sets a hook on every instruction, call
 * and return that raises an error, and goes on doing so until the node has been left: an agent's own pcall ends nothing.
 * The alarm is sent to the thread that runs Lua (timer_create with its thread's number; setitimer would send it to any), as a
 * signal that nothing else uses. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "asks.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define WATCH_SIGNAL SIGVTALRM

static struct {
  lua_State *L;
  _Atomic uint64_t end;   /* of what runs now; EV_NEVER: nothing does */
  _Atomic uint64_t alarm; /* when the timer goes off; EV_NEVER: not */
  _Atomic bool cut;
  timer_t timer;
  pthread_t owner;        /* that the timer tells */
  bool made;
} watch = {.end = EV_NEVER, .alarm = EV_NEVER};

#define get(x) atomic_load_explicit(&watch.x, memory_order_relaxed)
#define set(x, v) atomic_store_explicit(&watch.x, v, memory_order_relaxed)

static void over(lua_State *L, lua_Debug *where) {
  (void)where;
  lua_pushliteral(L, "its time was over");
  lua_error(L);
}

static void arm(uint64_t end) { /* also in the handler */
  const struct itimerspec t = {.it_value = {.tv_sec = (time_t)(end / 1000000000), .tv_nsec = (long)(end % 1000000000)}};
  set(alarm, end);
  timer_settime(watch.timer, TIMER_ABSTIME, &t, NULL);
}

static void on_alarm(int signal_number) {
  (void)signal_number;
  uint64_t end = get(end);
  set(alarm, EV_NEVER);
  if (end == EV_NEVER) return;
  if (ev_now_ns() < end) {
    arm(end);
  } else {
    set(cut, true);
    lua_sethook(watch.L, over, LUA_MASKCOUNT | LUA_MASKCALL | LUA_MASKRET, 1);
  }
}

static void in_child(void) { /* a timer is not inherited */
  watch.made = false;
  set(alarm, EV_NEVER);
  set(end, EV_NEVER);
}

/* The timer of this thread. false: there is none to be had, and nothing is cut. */
static bool ready(void) {
  static bool told;
  if (watch.made && pthread_equal(watch.owner, pthread_self())) return true;
  if (watch.made) timer_delete(watch.timer);
  watch.made = false;
  set(alarm, EV_NEVER);
  if (!told) pthread_atfork(NULL, NULL, in_child);
  told = true;
  struct sigaction act = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  sigset_t mine;
  sigemptyset(&act.sa_mask);
  sigemptyset(&mine);
  sigaddset(&mine, WATCH_SIGNAL);
  if (sigaction(WATCH_SIGNAL, &act, NULL) != 0 || pthread_sigmask(SIG_UNBLOCK, &mine, NULL) != 0) return false;
  struct sigevent event;
  memset(&event, 0, sizeof event);
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = WATCH_SIGNAL;
  event.sigev_notify_thread_id = gettid();
  if (timer_create(CLOCK_MONOTONIC, &event, &watch.timer) != 0) return false;
  watch.owner = pthread_self();
  watch.made = true;
  return true;
}

void ev_watch_begin(lua_State *L, uint64_t end_ns) {
  set(cut, false);
  if (end_ns == EV_NEVER || !ready()) return;
  watch.L = L;
  atomic_signal_fence(memory_order_seq_cst);
  set(end, end_ns);
  atomic_signal_fence(memory_order_seq_cst);
  if (get(alarm) > end_ns) arm(end_ns);
}

bool ev_watch_end(void) {
  set(end, EV_NEVER);
  atomic_signal_fence(memory_order_seq_cst);
  bool cut = get(cut);
  if (cut) lua_sethook(watch.L, NULL, 0, 0);
  return cut;
}
