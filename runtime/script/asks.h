/* asks.h - what is served: the nodes of a version, ready to be asked. Private to this room.
 *
 *   asks.c          one request: filled in, led through the nodes, checked, answered; lessons
 *   asks_watch.c    cuts a node that is not back in time
 *   asks_explain.c  what explain says
 *   bind_asks.c     made from a fitted composition (Runner:serve of lua/evection/runner.lua) */
#ifndef EV_SCRIPT_ASKS_H
#define EV_SCRIPT_ASKS_H

#include "host.h"
#include "step.h"

#define EV_ASKS_NODES 256
#define EV_ASKS_TAKEN 2048 /* places of the table that finds items twice: a power of two well above EV_ASK_MAX */
#define EV_NEVER UINT64_MAX

typedef struct ev_asks_node {
  char name[48], *agent, hash[65];
  ev_lstep *step;       /* anchored by `keep` */
  int act, model, slate, ctx; /* references in the registry */
  size_t n;             /* candidates it gives; 0: as it comes */
  uint64_t budget_ns;   /* 0: what is left */
  /* of the last request */
  uint64_t took_ns;
  size_t candidates;
  bool failed;
} ev_asks_node;

struct ev_asks {           /* a userdata */
  ev_host *host;
  size_t n_users, n_items; /* of the snapshot */
  ev_asks_node *nodes;     /* (n_nodes + 1) in running order; the last is nobody */
  size_t n_nodes, output;
  uint64_t budget_ns;      /* of the whole; 0: none */
  int self, keep, learn;   /* references: what the nodes borrow from; the function that lessons go to */
  ev_lrequest *request;    /* anchored by `keep`; filled again for every ask */
  int request_ref;
  size_t history_cap, seen_cap;
  ev_arrival arrivals[EV_ARRIVALS_MAX]; /* that may come in this slate; the request borrows them */
  size_t collect_at;       /* bytes of the Lua heap from which it is emptied between two nodes */
  ev_answer interim;
  uint32_t turn;           /* of `taken`: an entry of another turn is free */
  struct {
    uint32_t item, turn;
  } taken[EV_ASKS_TAKEN];
};

void ev_asks_release(ev_asks *a); /* gives its references back: it is served no more, and the collector may have it. NULL does nothing */
/* ev_host_recommend of script.h. strict: the first failure of a node is returned, as EV_ESCRIPT. */
ev_status ev_asks_recommend(ev_asks *a, const ev_ask *ask, ev_answer *out, ev_buf *text, ev_interim_fn *interim, void *ctx, bool strict);
ev_status ev_asks_explain(ev_asks *a, const ev_answer *answer, ev_buf *text);

/* From begin to end the running Lua code is stopped by an error soon after end_ns (by ev_now_ns; EV_NEVER: not). LuaJIT looks for that
 * between two steps of its interpreter only: a compiled loop that calls no C goes on. For one thread of a process at a time; it
 * takes SIGVTALRM and a timer when first needed. */
void ev_watch_begin(lua_State *L, uint64_t end_ns);
bool ev_watch_end(void); /* its time was over */

#endif
