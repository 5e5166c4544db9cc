/* build.h - what a snapshot is written from; private to this room. */
#ifndef EV_STORE_BUILD_H
#define EV_STORE_BUILD_H

#include "store.h"

typedef struct ev_strings { /* ids, UTF-8; string i is bytes[ptr[i] .. ptr[i+1]) */
  const char *bytes;
  const uint64_t *ptr; /* (n + 1) */
  size_t n;
} ev_strings;

typedef struct ev_snapshot_parts { /* everything borrowed; interactions in the order of the files */
  size_t n_users, n_items, n;
  ev_strings user_ids, item_ids;
  const uint32_t *user, *item; /* (n) */
  const uint8_t *fold;         /* (n) of ev_fold */
  const int64_t *time;         /* (n) seconds, or NULL */
  const float *rating;         /* (n) or NULL */
  int64_t valid_cut, test_cut; /* INT64_MIN: no time cut */
  bool sequential;             /* a user's later folds hold what came later */
  const ev_column *user_columns, *item_columns; /* rows in index order */
  const ev_column *interaction_columns;         /* rows in the order of the files */
  size_t n_user_columns, n_item_columns, n_interaction_columns;
} ev_snapshot_parts;

/* Sorts to user-major (by time, then given order; untimed: given order) and writes the snapshot, whole or not at
 * all. Linear time but for users' own sorts. */
ev_status ev_snapshot_write(const ev_snapshot_parts *parts, const char *path);

/* The place of an id in a table of a power of two slots, twice the ids or more. */
size_t ev_id_slots(size_t n);

#endif
