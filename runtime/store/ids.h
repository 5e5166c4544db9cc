/* ids.h - strings ↔ numbers 0, 1, … in the order of their first appearance; private to this room.
 *
 * One writer adds; readers look up at the same time and never wait. Nothing is taken out: numbers hold for the table's
 * life. Item ids and the vocabularies of token columns are such tables. */
#ifndef EV_STORE_IDS_H
#define EV_STORE_IDS_H

#include <stdatomic.h>

#include "store.h"

typedef struct ev_ids_slots ev_ids_slots;
typedef struct ev_ids {
  ev_region ptr;   /* (n + 1) uint64_t offsets into bytes */
  ev_region bytes; /* without separators */
  _Atomic uint32_t n;
  _Atomic(ev_ids_slots *) slots; /* the open hash table in use; older ones hang on it until their readers have left */
} ev_ids;

ev_status ev_ids_open(ev_ids *t, size_t max, size_t max_bytes); /* zeroes t first, so that closing it is right in any case */
/* Instead: the arrays "PREFIX.ptr", "PREFIX.bytes" and "PREFIX.slots" of a pack. Nothing is read but the ends: what is wrong
 * inside gives wrong strings or none, never a step out of bounds. */
ev_status ev_ids_map(ev_ids *t, size_t max, size_t max_bytes, const ev_pack *p, const char *prefix);
void ev_ids_close(ev_ids *t);
uint32_t ev_ids_find(const ev_ids *t, const char *s, size_t len); /* EV_NONE: not there. Inside an epoch, or as the writer */
const char *ev_ids_get(const ev_ids *t, uint32_t number, size_t *len); /* not NUL-terminated; holds until the table is closed */
/* A string that is not there yet. EV_ENOMEM and EV_ELIMIT leave the table as it was. */
ev_status ev_ids_add(ev_ids *t, const char *s, size_t len, ev_epochs *epochs, uint32_t *out);
/* Strings keep[0..n) as the numbers 0 … n − 1, for ev_ids_map. */
ev_status ev_ids_write(const ev_ids *t, ev_pack_writer *w, const char *prefix, const uint32_t *keep, size_t n);
size_t ev_ids_bytes(const ev_ids *t); /* memory in use */

/* A region that begins as an array of a pack: mapped where it fills pages of its own, else copied. */
ev_status ev_region_take(ev_region *r, size_t limit, const ev_pack *p, const ev_array *a);

#endif
