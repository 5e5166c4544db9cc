/* script.h - LuaJIT states: the standard library, the bindings, the sandbox, the versions of scripts.
 *
 * A host is one Lua state with Evection's native module and its Lua library; it belongs to one thread. Its
 * own library is trusted. Agents are not: they are loaded as text only, each in a fresh environment of
 * whitelisted functions (lua/evection/sandbox.lua), and reach C through checked userdata alone.
 */
#ifndef EV_SCRIPT_H
#define EV_SCRIPT_H

#include <lua.h>

#include "../core/core.h"

typedef struct ev_host ev_host;

typedef struct ev_host_options {
  const char *root;      /* folder that holds lua/, agents/, policies/; NULL: found from the executable */
  const char *home;      /* $EVECTION_HOME: snapshots, artifacts, ledger; NULL: ./var */
  size_t max_heap_bytes; /* cap of the Lua heap; 0 = none */
} ev_host_options;

ev_status ev_host_new(ev_host **out, const ev_host_options *o);
void ev_host_free(ev_host *h); /* NULL does nothing */
lua_State *ev_host_lua(ev_host *h);
const char *ev_host_root(const ev_host *h);
const char *ev_host_home(const ev_host *h);

/* require(module)[fn](decoded args) → encoded result, both JSON; the result is appended to out (which may be
 * NULL). A Lua error is EV_ESCRIPT, or the status it was raised with, its message in ev_error(). */
ev_status ev_host_call(ev_host *h, const char *module, const char *fn, const char *json_args, ev_buf *out);

/* Runs a trusted Lua file with arg = {…}: what `evection run` does. */
ev_status ev_host_run(ev_host *h, const char *path, int argc, char **argv);

/* ---- Serving ---------------------------------------------------------------------------------------------
 * What a script worker does (lua/evection/serve.lua): a version is loaded and warmed once, then asked. After a fork the child may go
 * on asking. What is asked and what comes back are plain memory, which processes may share. */
#define EV_ASK_MAX 500
#define EV_ARRIVALS_MAX 256
typedef struct ev_arrival {       /* an item that the snapshot has not, and that may come */
  uint32_t item;                  /* its number, behind the snapshot's items */
  double age_s;                   /* since it was put; not negative */
} ev_arrival;

typedef struct ev_ask {           /* borrowed */
  uint32_t user;                  /* index in the snapshot; EV_NONE: a stranger */
  const uint32_t *history;        /* (n_history) items, oldest first; those that the snapshot has not are left out */
  size_t n_history;
  const uint32_t *seen;           /* (n_seen) ascending: not in the slate */
  size_t n_seen;
  const uint64_t *barred;         /* a bit for each of the snapshot's items that a filter leaves out; NULL: none */
  const ev_arrival *arrivals;     /* (n_arrivals) distinct, the youngest first, at most EV_ARRIVALS_MAX: of items that the snapshot has not, these alone
                                   * are taken from a node, unless they are seen; none of them is barred */
  size_t n_arrivals;
  size_t n;                       /* 1 … EV_ASK_MAX */
  uint64_t deadline_ns;           /* by ev_now_ns; 0: none */
  bool explain;
} ev_ask;

typedef struct ev_pick {
  uint32_t item;
  float score;
  uint32_t sources;               /* bit b: recall b of the composition proposed it */
  float propensity;               /* 1: nobody drew it by chance; NaN: who drew it could not tell */
} ev_pick;

typedef struct ev_answer {
  uint32_t n;
  uint32_t degraded;              /* 1: a node failed or was cut; the slate was made without it */
  uint32_t explored;              /* 1: chosen by chance: propensities are told */
  char cut[48];                   /* the first such node; "" */
  char why[256];                  /* its error; "" */
  double propensity;              /* of the slate: the product; 1, or NaN */
  ev_pick picks[EV_ASK_MAX];      /* best first, distinct, unseen, with finite scores: checked */
} ev_answer;

typedef struct ev_lesson {        /* an event, as agents learn of it */
  uint32_t user, item;            /* EV_NONE: a stranger */
  double value, time_s;
  char type[32];
} ev_lesson;

/* What is to be loaded comes as JSON, {"composition": PATH, "data": NAME, "seed": n}; what it said is appended to out: {"version", "files",
 * "recalls": names by source bit, "nodes": how many}. Loaded, fitted or mapped, and warmed; a composition that fails while it is warmed is an
 * error. A host may be loaded again: what was served before stays when that fails before it is fitted. */
ev_status ev_host_serve(ev_host *h, const char *json_args, ev_buf *out);
/* The slate. A node that fails, or that is not back when its share of the time is over, is left out (a recall gives nothing, the
 * others pass on what came in) and the answer is degraded; only what leaves no slate at all is an error. EV_ECORRUPT: the
 * composition's output is no slate (an item twice, one that is not there or was seen, a score that is no number).
 * interim (may be NULL) is called with the best answer so far before each further node, so that a caller in another process
 * has something when this one never comes back; it returns false when nobody waits any more, which ends the asking (EV_EINTR).
 * explain's JSON (docs/reference/serving.md) is appended to text when it is asked for.
 * With a deadline or a budget the process's SIGVTALRM is taken, and one timer that tells the thread which asks: one at a time. */
typedef bool ev_interim_fn(void *ctx, const ev_answer *so_far);
ev_status ev_host_recommend(ev_host *h, const ev_ask *ask, ev_answer *out, ev_buf *text, ev_interim_fn *interim, void *ctx);
/* Every agent that learns gets them; events about items that the snapshot has not, or without a finite value and time, are left out. When
 * one raises the others learn all the same, and its error is returned at the end. */
ev_status ev_host_learn(ev_host *h, const ev_lesson *lessons, size_t n);

#endif
