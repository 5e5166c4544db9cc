/* catalog.h - what the files of the catalog share; private to catalog.c, catalog_json.c and masks.c.
 *
 *   catalog.c       two live tables over a snapshot: indices, writing, reading
 *   catalog_json.c  an entry as JSON ↔ an entry as fields
 *   masks.c         who is left out: the hidden ones, and those that a condition does not let through
 *
 * What an index stands for never changes while the process lives, so reading what belongs to one takes no lock: it lies in memory that
 * grows in place, and `n` is raised when it is complete. The lock is about the table that finds a new id, and is held for that alone.
 * Writers are one at a time; a reader never waits for what they wait for, the disk. */
#ifndef EV_SERVE_CATALOG_H
#define EV_SERVE_CATALOG_H

#include <pthread.h>

#include "inside.h"

/* Fields of a live entry that nobody names: those of JSON never begin with '_'. */
#define FIELD_HIDDEN "_hidden"   /* FLOAT 1 */
#define FIELD_DELETED "_deleted" /* FLOAT 1: an entry of the snapshot that is not to come back */
#define FIELD_PUT "_put"         /* FLOAT: when an item that the snapshot has not was put, in seconds; and what 32 bits leave of it */
#define FIELD_PUT_REST "_put_rest"
#define FIELD_REST "_time"       /* FLOAT: what 32 bits leave of `time`; both together have it to some 10 microseconds */

#define FLAG_LIVE 1u             /* has an entry in the live table, which stands for all of it */
#define FLAG_GONE 2u             /* deleted */

typedef struct live_side {
  ev_side of;                    /* EV_ITEM or EV_USER */
  const char *noun;              /* "item" */
  char *folder;                  /* of the table; owned */
  const ev_snapshot *snapshot;
  _Atomic(ev_items *) table;     /* NULL: nothing was ever written */
  size_t n_snapshot, most;       /* indices that the snapshot has; that there may be */
  _Atomic size_t n;              /* indices that there are */
  ev_region flags;               /* (n) _Atomic uint8_t */
  ev_region ids;                 /* (n - n_snapshot) char *, owned */
  ev_region of_row;              /* items: (rows) _Atomic uint32_t: index + 1; 0: ask by id */
  pthread_rwlock_t lock;         /* of: */
  uint32_t *slots;               /* open addressing over ids; EV_NONE: free */
  size_t n_slots;
} live_side;

typedef struct kept_mask {            /* of the board; its number is its place */
  char *where;                   /* owned; NULL: free */
  size_t len;
  uint64_t generation, used;     /* of the catalog when it was filled; when it was last asked for */
  unsigned refs;
  bool filling, failed;
} kept_mask;

struct catalog {
  const ev_snapshot *snapshot;   /* borrowed, as is the board */
  board *board;
  live_side sides[2];            /* by catalog_side */
  pthread_mutex_t writer;
  _Atomic size_t n_hidden;       /* bits of mask 0 */
  _Atomic uint64_t generation;   /* changes of items */
  pthread_mutex_t masks_lock;
  pthread_cond_t filled;
  kept_mask masks[MASKS_MAX];    /* 0 is not used here */
  uint64_t clock;
  const ev_column *title;        /* of the snapshot; NULL: none */
  arrival arrivals[ARRIVALS_MAX]; /* what the board has, under `writer` */
  size_t n_arrivals;
};

/* ---- catalog.c -------------------------------------------------------------------------------------------*/
uint32_t side_find(const live_side *s, const char *id, size_t len); /* also a deleted one; EV_NONE: never heard of */
const char *side_id(const live_side *s, size_t i, size_t *len);     /* not NUL-terminated; NULL: no such index */
unsigned side_flags(const live_side *s, size_t i);
bool column_titles(const char *name);                               /* a column that is a title, by its name */

/* ---- catalog_json.c --------------------------------------------------------------------------------------*/
/* The id of an entry: a text, or a whole number, which is kept as text. EV_EINVAL names entry `at`. */
ev_status entry_id(const live_side *s, const json_t *entry, size_t at, char out[USER_MAX]);
ev_status entry_put_at(ev_item_batch *b, double s); /* of the last one added: when it was put; and of a row: NaN: nobody has put it */
double entry_put_time(const ev_items_reader *r, uint32_t row);
/* Adds an entry to a batch. A value takes the type that its column has; r: a reader of the live table, or NULL. */
ev_status entry_encode(ev_item_batch *b, const live_side *s, const ev_items_reader *r, const char *id, const json_t *entry);
json_t *entry_decode(const live_side *s, const ev_items_reader *r, uint32_t row); /* NULL: deleted, or no memory */
json_t *entry_of_snapshot(const live_side *s, uint32_t index);
bool entry_flag(const ev_items_reader *r, uint32_t row, const char *field);
double entry_number(const ev_items_reader *r, uint32_t row, const char *field); /* NaN: it has none */

/* ---- masks.c ---------------------------------------------------------------------------------------------*/
ev_status masks_open(catalog *c);
void masks_close(catalog *c);
void mask_hide(catalog *c, uint32_t item, bool hidden);             /* in mask 0 */

#endif
