/* items.h - what the files of the live table share; private to this room.
 *
 *   items.c        opening, closing, the public writing calls, group commit
 *   items_log.c    the log: file format, appending, replay, torn tails
 *   items_call.c   a call as bytes: written and checked on the way in, read with every bound checked on the way back
 *   items_table.c  rows in memory; applying a call, taking it back, using rows again
 *   items_columns.c  their features
 *   items_read.c   readers and search
 *   items_save.c   snapshots: written beside everything, mapped at opening; compaction
 *
 * A row is never changed while a reader could look at it. Row r was made by the call number begin(r) and replaced or deleted by
 * number gone(r); a reader at state s sees exactly the rows with begin <= s < gone. So a call is applied first, under numbers
 * that no reader has reached, then written and synced, and shown by one store to `state`; a call that cannot be written is taken
 * back and was never seen. Zeroed memory is a row of the snapshot: begin 0, not gone, item number = row number. So opening
 * touches no row.
 *
 * The way of a row that is gone: `ended` until every reader that could see it has left; then it leaves the index; `unlinked`
 * until every search that could hold its number has left; then it is free.
 *
 * Locks: `lock` guards the queue of waiting calls and the flags beside it. Who holds `leading` is the writer and alone changes
 * the table; it never waits for readers. */
#ifndef EV_STORE_ITEMS_H
#define EV_STORE_ITEMS_H

#include <pthread.h>
#include <stdatomic.h>

#include "ids.h"

#define ITEMS_COLUMNS_MAX 512
#define ITEMS_CLASSES 32 /* of list sizes: powers of two */
#define ITEMS_NEVER UINT64_MAX

/* ---- Rows and columns ----------------------------------------------------------------------------------*/
typedef struct items_row {
  _Atomic uint64_t begin; /* ITEMS_NEVER: free, or on its way there */
  _Atomic uint64_t gone;  /* 0: not */
  uint32_t item;          /* its number ^ the row's own */
  _Atomic uint32_t older; /* 1 + the row this one took the place of; 0: none, or none that a reader could want */
  uint32_t newer;         /* 1 + the row that took its place; writer only */
  uint32_t next;          /* 1 + the next row in its queue; writer only */
} items_row;
_Static_assert(sizeof(items_row) == 32, "two rows a cache line");

/* What 64 rows look like in the newest state, so that whoever looks at all rows need not read each. A reader that finds `changed`
 * above its own state asks row by row; `hidden` is read first and written last. Zero: all rows of the snapshot. */
typedef struct items_word {
  _Atomic uint64_t hidden;  /* bit i: row 64 w + i is not to be seen */
  _Atomic uint64_t changed; /* number of the last call that changed one */
} items_word;

typedef struct items_queue { /* of rows, by their `next` */
  uint32_t first, last; /* 1 + row; 0: empty */
  size_t n;
} items_queue;

typedef struct items_column {
  char name[48];
  ev_column_type type;
  ev_region values;  /* (capacity) float, codes, or for lists uint64_t offsets into pool */
  ev_region lengths; /* lists: (capacity) uint32_t */
  ev_region pool;    /* lists: codes; a list takes a power of two of them, at least two */
  size_t pool_used, pool_mapped; /* codes; those of the snapshot lie without gaps */
  uint64_t free[ITEMS_CLASSES];  /* 1 + offset of the first free piece of 2^class codes, which holds the next */
  ev_ids tokens;
} items_column;

/* What readers are given of the columns; replaced as a whole when there are more columns, tokens or rows. */
typedef struct items_view items_view;
struct items_view {
  items_view *next; /* retired ones */
  uint64_t mark;
  size_t n_columns;
  ev_column columns[];
};

/* One item of a call that is being applied: what to do to take it back. */
typedef struct items_change {
  uint32_t row; /* made, or EV_NONE */
  uint32_t old; /* ended, or EV_NONE */
} items_change;

typedef struct items_table {
  ev_index *index;       /* NULL: no vectors */
  ev_epochs *epochs;     /* the index's, or own */
  size_t n_dims, max_rows;
  ev_ids ids;
  ev_region heads;       /* (ids.n) _Atomic uint32_t: the item's newest row ^ its number, EV_NONE likewise */
  ev_region rows;        /* (capacity) items_row */
  ev_region words;       /* (capacity / 64) items_word */
  ev_region marks;       /* (capacity) uint64_t: of the queue that the row is in */
  _Atomic uint32_t n_rows; /* ever used */
  size_t capacity;       /* rows that every region has room for */
  items_column *columns[ITEMS_COLUMNS_MAX];
  size_t n_columns;
  _Atomic(items_view *) view;
  items_view *next_view, *retired; /* settled, not shown; shown before */
  bool view_changed;     /* columns, tokens or room since the last view */
  _Atomic uint64_t state;  /* the number of the last call that readers see */
  items_queue free_rows, ended, unlinked;
  /* Calls applied and not yet shown. */
  items_change *changes; /* (n_changes) owned */
  size_t n_changes, changes_cap;
  uint32_t *pending_rows; /* (n_pending) rows that are to enter the index, */
  float *pending;         /* and their vectors */
  size_t n_pending, pending_cap;
  ptrdiff_t more_items;  /* than are shown */
  size_t n_lingering;    /* rows of the index that are ended */
  size_t shown_columns;  /* of n_columns, in the view */
  _Atomic size_t n_items, n_vectors; /* shown */
} items_table;

/* Address space that is reserved: bytes of all ids, of a column's lists, or of its vocabulary; and tokens of that. */
static inline size_t items_most_bytes(const items_table *t) { return ((size_t)1 << 26) + (t->max_rows < (size_t)1 << 24 ? t->max_rows << 10 : (size_t)1 << 34); }
static inline size_t items_most_tokens(const items_table *t) { return ((size_t)1 << 20) + 4 * t->max_rows; }

static inline items_row *items_row_at(const items_table *t, uint32_t row) { return (items_row *)(void *)t->rows.base + row; }
static inline items_word *items_word_at(const items_table *t, uint32_t row) { return (items_word *)(void *)t->words.base + row / 64; }
static inline _Atomic uint32_t *items_head_at(const items_table *t, uint32_t item) { return (_Atomic uint32_t *)(void *)t->heads.base + item; }
static inline uint32_t items_item_of(const items_table *t, uint32_t row) { return items_row_at(t, row)->item ^ row; }
static inline bool items_visible(const items_table *t, uint32_t row, uint64_t state) {
  const items_row *r = items_row_at(t, row);
  if (atomic_load_explicit(&r->begin, memory_order_acquire) > state) return false;
  uint64_t gone = atomic_load_explicit(&r->gone, memory_order_acquire);
  return gone == 0 || state < gone;
}

/* All of what follows is the writer's. */
ev_status items_table_open(items_table *t, const ev_index_options *o); /* empty; zeroes t first */
ev_status items_table_frame(items_table *t); /* the same but for the index, epochs, ids and columns, which are there already */
void items_table_close(items_table *t);
ev_status items_column_new(items_table *t, const char *name, size_t len, ev_column_type type, items_column **out); /* without its regions */
void items_column_free(items_column *c);
ev_status items_column_open(items_table *t, items_column *c);  /* all of it missing */
ev_status items_column_room(items_table *t, items_column *c, size_t from); /* rows [from, capacity) are there, and missing */
ev_status items_table_room(items_table *t, size_t n_rows);     /* in every region */
void items_clear_values(items_table *t, uint32_t row);
ev_status items_make_view(items_table *t); /* the next one, when something has changed */
/* Applies a call as number seq, unseen; all of it or nothing. */
ev_status items_apply(items_table *t, const void *payload, size_t len, uint64_t seq);
ev_status items_settle(items_table *t); /* puts what is pending into the index and makes the next view; nothing is seen yet */
void items_show(items_table *t, uint64_t state); /* what was applied and settled; cannot fail */
void items_take_back(items_table *t);            /* all that was applied and not shown; cannot fail */
void items_work_off(items_table *t, size_t most); /* rows that nobody needs any more: at most so many of each queue */
size_t items_table_bytes(const items_table *t);

typedef struct items_call items_call;
ev_status items_set_value(items_table *t, items_call *call, uint32_t row, size_t guess); /* the call's next field; guess: its column */

/* ---- Calls as bytes ------------------------------------------------------------------------------------
 *   u32 kind, u32 n, u32 n_vectors, u32 0, f32 vectors (n_vectors, n_dims), then n times
 *   put:     u8 length of the id, u8 1 when it has the next of the vectors, u16 n_fields, id, fields:
 *            u8 length of the name, u8 type, name, and f32 | u16 length, bytes | u32 n, n times (u16 length, bytes)
 *   delete:  u8 length of the id, id
 * and zeros up to a multiple of 8. */
enum { ITEMS_PUT = 1, ITEMS_DELETE = 2 };
#define ITEMS_CALL_MAX ((size_t)1 << 30)

typedef struct items_cursor { /* over bytes that may be anything */
  const uint8_t *at, *end;
  bool short_of; /* something was asked for that is not there */
} items_cursor;
struct items_call {
  uint32_t kind, n, n_vectors;
  const float *vectors; /* (n_vectors, n_dims) in the payload */
  items_cursor rest;
};
typedef struct items_record { /* one item of a call */
  const char *id;
  size_t id_len, n_fields;
  bool has_vector;
} items_record;
typedef struct items_value { /* one field */
  const char *name;
  size_t name_len;
  ev_column_type type;
  float number;
  size_t n_tokens; /* which follow: items_next_token */
} items_value;

ev_status items_encode_put(ev_buf *out, const ev_item *items, size_t n, const ev_index *x); /* appends; EV_EINVAL names what is wrong */
ev_status items_encode_delete(ev_buf *out, const char *const *ids, size_t n);
ev_status items_call_read(items_call *out, const void *payload, size_t len, size_t n_dims); /* EV_ECORRUPT, as all below */
ev_status items_next_record(items_call *c, items_record *out);
ev_status items_next_value(items_call *c, items_value *out);
ev_status items_next_token(items_call *c, const char **token, size_t *len);
ev_status items_call_end(const items_call *c); /* nothing but padding is left */

/* ---- Log -------------------------------------------------------------------------------------------------*/
typedef struct items_options { /* of a table, as files keep them */
  char kind[16], metric[16], form[16];
  uint64_t n_dims, max_rows, seed;
  uint32_t rescore, n_links, effort_build, n_lists, effort, zero;
} items_options;
void items_options_pack(items_options *out, const ev_index_options *o);
ev_status items_options_unpack(ev_index_options *out, const items_options *o, const char *path); /* borrows o's strings; EV_ECORRUPT */

typedef struct items_log {
  int fd;       /* -1: closed */
  char *path;   /* owned */
  uint64_t generation, salt, first; /* first: number of its first record */
  uint64_t end; /* bytes that are acknowledged */
  items_options options;
} items_log;

#define ITEMS_RECORD_HEAD 40 /* bytes before a payload in the log, made by items_log_append; a call's buffer begins with room for them */
ev_status items_log_create(items_log *out, const char *path, uint64_t generation, uint64_t first, const items_options *o); /* there, empty, synced. After a failure the file may be there */
ev_status items_log_open(items_log *out, const char *path, uint64_t generation, bool read_only);
void items_log_close(items_log *l);
typedef ev_status items_log_fn(void *ctx, const void *payload, size_t len, uint64_t seq);
/* Calls fn for each record, numbers from *seq + 1 on, and leaves the last in *seq. last: a torn tail may follow, whose bytes are
 * counted in *cut, and l->end is where it begins. EV_ECORRUPT names the offset; fn's own EV_ECORRUPT is given it too. */
ev_status items_log_replay(items_log *l, uint64_t *seq, bool last, items_log_fn *fn, void *ctx, uint64_t *cut);
ev_status items_log_cut(items_log *l); /* to l->end, synced */
/* Writes bufs (each with ITEMS_RECORD_HEAD bytes of room in front) as the records seq, seq + 1, … and syncs. After a failure
 * *usable says whether the log is as it was. */
ev_status items_log_append(items_log *l, ev_buf *const *bufs, size_t n, uint64_t seq, bool *usable);
ev_status items_sync_folder(const char *folder);

/* ---- The whole -----------------------------------------------------------------------------------------*/
typedef struct items_waiting { /* a call in the queue */
  ev_buf buf;
  ev_status status;
  bool done;
  ev_status (*alone)(ev_items *t, struct items_waiting *w); /* instead of a call: something that the writer does between calls */
  pthread_cond_t wake;
  struct items_waiting *next;
  char message[1024];
} items_waiting;

struct ev_items {
  char *folder; /* owned */
  int lock_fd;  /* -1: read-only */
  bool read_only;
  size_t compact_bytes;
  items_options options;
  items_table table;
  ev_pack *pack;          /* the snapshot that was mapped, or NULL */
  items_log log;          /* the one written to */
  uint64_t n_seq;         /* number of the last call written; writer only */
  char broken[1024];      /* why nothing can be written any more; "": it can */
  pthread_mutex_t lock;
  pthread_cond_t idle;    /* compacting has become false */
  items_waiting *first, *last;
  bool leading;
  bool compacting, has_background;
  pthread_t background;
  size_t compact_at;      /* log bytes that start the next compaction */
  char compact_error[256];
  _Atomic uint64_t log_bytes, older_log_bytes, snapshot_bytes, snapshot_generation, generation, n_commits, n_syncs;
  uint64_t cut_bytes;
  double open_ms;
};

ev_status items_submit(ev_items *t, items_waiting *w); /* waits until it is done */
void items_path(char out[4096], const char *folder, const char *kind, uint64_t generation);
ev_status items_snapshot_map(ev_items *t, uint64_t generation, uint64_t *seq); /* makes t->table, t->pack and t->options */
ev_status items_compact(ev_items *t); /* one at a time */

#endif
