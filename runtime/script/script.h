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

#endif
