/* bind_process.c - what a long piece of work in a process of its own needs: a word in the log, and an end when it never comes back. */
#include <math.h>
#include <sys/time.h>

#include "bind.h"

static int write_log(lua_State *L) { /* log("debug" | "info" | "warning" | "error", text) */
  static const char *const names[] = {"debug", "info", "warning", "error", NULL};
  static const ev_log_level levels[] = {EV_LOG_DEBUG, EV_LOG_INFO, EV_LOG_WARN, EV_LOG_ERROR};
  ev_log(levels[luaL_checkoption(L, 1, NULL, names)], "%s", luaL_checkstring(L, 2));
  return 0;
}

/* alarm(ms): SIGALRM in so many milliseconds, which ends a process that has no handler for it; 0: not any more. No loop of a script can
 * keep it away. */
static int set_alarm(lua_State *L) {
  double ms = luaL_checknumber(L, 1);
  if (!(ms >= 0 && ms <= 1e9)) return luaL_argerror(L, 1, "milliseconds, at most 1e9");
  double whole = floor(ms / 1000);
  struct itimerval t = {.it_value = {.tv_sec = (time_t)whole, .tv_usec = (suseconds_t)((ms - whole * 1000) * 1000)}};
  if (ms > 0 && t.it_value.tv_sec == 0 && t.it_value.tv_usec == 0) t.it_value.tv_usec = 1;
  if (setitimer(ITIMER_REAL, &t, NULL) != 0) return ev_lua_fail(L, ev_fail_errno("cannot set an alarm"));
  return 0;
}

void ev_bind_process(lua_State *L) {
  static const luaL_Reg functions[] = {{"log", write_log}, {"alarm", set_alarm}, {NULL, NULL}};
  luaL_register(L, NULL, functions);
}
