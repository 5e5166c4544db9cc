/* host.h - what a host is made of; private to this room. */
#ifndef EV_SCRIPT_HOST_H
#define EV_SCRIPT_HOST_H

#include "script.h"

typedef struct ev_asks ev_asks;

struct ev_host {
  lua_State *L;
  char *root, *home;
  size_t heap_used, heap_max; /* bytes; max 0 = no cap */
  lua_Alloc alloc;            /* LuaJIT's own, under the cap */
  void *alloc_ctx;
  ev_asks *asks;              /* what is served, or NULL; the state has it */
};

ev_host *ev_lua_host(lua_State *L);           /* the host of a state */
ev_status ev_lua_take_error(lua_State *L);    /* the error on top of the stack → the last error; popped. A status rides along in { status, message } */
/* Everything that is not in use any more is freed. The collector itself may need memory: it may go over the cap a little. */
void ev_host_collect(ev_host *h);

#endif
