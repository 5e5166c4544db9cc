/* step.h - a node's place in a composition: what its act finds in the slate, and what becomes of it. Private to this room.
 *
 * Evaluations (lua/evection/runner.lua) and the service (asks.c) go through the same three calls, so that what was measured is what is
 * served. */
#ifndef EV_SCRIPT_STEP_H
#define EV_SCRIPT_STEP_H

#include "bind.h"

#define EV_STEP_INPUTS 32

typedef enum ev_role { EV_ROLE_RECALL, EV_ROLE_MERGE, EV_ROLE_RANK, EV_ROLE_RERANK, EV_ROLE_EXPLORE } ev_role;
extern const char *const ev_role_names[]; /* in that order; NULL at the end */

typedef struct ev_lstep {
  ev_role role;
  ev_lslate *slate, *in[EV_STEP_INPUTS]; /* anchored */
  char names[EV_STEP_INPUTS][48];        /* of the inputs */
  size_t n_in;
  uint32_t bit;                          /* of a recall: its source; 0: none */
} ev_lstep;
ev_lstep *ev_lua_step(lua_State *L, int arg);

/* Before act: a recall's slate is empty, a merge's holds what any input has, the others' what came in. EV_ELIMIT, EV_ENOMEM */
ev_status ev_step_open(ev_lstep *s);
/* In act's stead, when the node was taken away or failed: a recall gives nothing; rank, rerank and explore pass on what came in; a merge
 * scores by the best rank that any input gives an item, which is no decision of anybody's. After ev_step_open. */
void ev_step_pass(ev_lstep *s);
/* After either: sources set, sorted where the scores are the order, the first n kept; n 0: all. */
ev_status ev_step_close(ev_lstep *s, size_t n);

#endif
