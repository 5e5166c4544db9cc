/* heap.c - a lua_Alloc with a cap, and spare large blocks. */
#include <stdlib.h>
#include <string.h>

#include "heap.h"

#define LARGE 65536

/* A large block's room: sizes that differ little share it, so that what one vector left fits the next. */
static size_t room_of(size_t size) {
  size_t step = LARGE / 8;
  while (16 * step < size) step *= 2;
  return (size + step - 1) / step * step;
}

static void *take(ev_heap *h, size_t size) {
  size_t room = room_of(size);
  for (size_t i = h->n_spare; i-- > 0;) {
    if (h->spare[i].size != room) continue;
    void *block = h->spare[i].block;
    h->n_spare--;
    h->spare_bytes -= room;
    memmove(h->spare + i, h->spare + i + 1, (h->n_spare - i) * sizeof *h->spare);
    return block;
  }
  return malloc(room);
}

static void give(ev_heap *h, void *block, size_t size) {
  size_t room = room_of(size);
  if (room > EV_HEAP_SPARE_BYTES / 2) {
    free(block);
    return;
  }
  size_t gone = 0; /* the oldest make way */
  for (; h->n_spare - gone == EV_HEAP_SPARE || h->spare_bytes + room > EV_HEAP_SPARE_BYTES; gone++) {
    h->spare_bytes -= h->spare[gone].size;
    free(h->spare[gone].block);
  }
  h->n_spare -= gone;
  memmove(h->spare, h->spare + gone, h->n_spare * sizeof *h->spare);
  h->spare[h->n_spare].block = block;
  h->spare[h->n_spare++].size = room;
  h->spare_bytes += room;
}

void *ev_heap_alloc(void *heap, void *p, size_t old_size, size_t new_size) {
  ev_heap *h = heap;
  if (p == NULL) old_size = 0;
  if (h->max > 0 && new_size > old_size && (new_size > h->max || h->used - old_size > h->max - new_size)) return NULL;
  void *q;
  if (old_size < LARGE && new_size < LARGE) { /* nearly always */
    if (new_size == 0) {
      free(p);
      q = NULL;
    } else if ((q = realloc(p, new_size)) == NULL) {
      return NULL;
    }
  } else if (old_size >= LARGE && new_size >= LARGE && room_of(old_size) == room_of(new_size)) {
    q = p;
  } else {
    q = new_size == 0 ? NULL : new_size >= LARGE ? take(h, new_size) : malloc(new_size);
    if (q == NULL && new_size > 0) return NULL;
    if (p != NULL && q != NULL) memcpy(q, p, old_size < new_size ? old_size : new_size);
    if (p != NULL && old_size >= LARGE) give(h, p, old_size);
    else free(p);
  }
  h->used += new_size - old_size;
  return q;
}

void ev_heap_empty(ev_heap *h) {
  while (h->n_spare > 0) free(h->spare[--h->n_spare].block);
  h->spare_bytes = 0;
}
