/* heap.h - the memory of a Lua state; private to this room.
 *
 * A cap that LuaJIT's own allocator has not, and large blocks that are used again: a request over a large catalog makes a few vectors of
 * hundreds of kilobytes, which malloc and LuaJIT's allocator alike take from the system and give back each time; then half of a request
 * went into page faults. */
#ifndef EV_SCRIPT_HEAP_H
#define EV_SCRIPT_HEAP_H

#include "../core/core.h"

#define EV_HEAP_SPARE 32            /* large blocks that are kept */
#define EV_HEAP_SPARE_BYTES (24u << 20) /* of them all, at most */

typedef struct ev_heap {            /* zero-initialised: no cap */
  size_t used, max;                 /* bytes; max 0: none */
  struct {
    void *block;
    size_t size;                    /* that it has room for */
  } spare[EV_HEAP_SPARE];           /* the one that was freed last at the end */
  size_t n_spare, spare_bytes;
} ev_heap;

void *ev_heap_alloc(void *heap, void *p, size_t old_size, size_t new_size); /* a lua_Alloc */
void ev_heap_empty(ev_heap *h);     /* gives the spare blocks back */

#endif
