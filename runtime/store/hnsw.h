/* hnsw.h - the graph that hnsw.c searches and hnsw_build.c changes; private to the two.
 *
 * Levels. Every row has a level, drawn from the seed and its number alone and kept with it; a node has a list of links on its
 * level and on each below. A list is full or ends at 0; a link is the neighbour's row + 1. On the ground, level 0, a list has
 * its row's place; the others lie in blocks, a row's one after the other, found by upper_at.
 *
 * Threads. Lists are read while they are written: each link is loaded by itself, so what a reader sees are links of the old
 * list and of the new one. A row is followed only while its bit in `linked` is set, which is set after its code and lists
 * are there and cleared before the row may be filled again. */
#ifndef EV_STORE_HNSW_H
#define EV_STORE_HNSW_H

#include <math.h>
#include <string.h>

#include "index.h"

#define EV_HNSW_LEVELS 16   /* at most, the ground included */
#define EV_HNSW_BATCH 1024  /* rows that are put at once, at most */
#define EV_HNSW_TOUCHED 16384 /* rows of a search beyond which the whole of visited is cleared */
#define EV_HNSW_SLOTS 64    /* scratches that are kept */
#define EV_HNSW_LINKS 1024  /* of a list, at most */
#define EV_HNSW_EXPANDED 0x80000000u /* in a pool's row: its links were followed. So rows are below 2^31 */

typedef _Atomic uint32_t ev_link;

/* What a search works in; one thread at a time. */
typedef struct ev_hnsw_scratch {
  uint64_t *visited; /* (n_words) bits, all 0 between searches */
  size_t n_words;
  uint32_t *touched; /* rows whose bits are set, as long as they have room */
  size_t n_touched;
  ev_found *pool;    /* (pool_room) best first */
  size_t pool_room;
  ev_found *heap;    /* (heap_room) best on top; of a search with a filter */
  size_t heap_room;
  ev_found *equal;   /* (m0) candidates for a list's last places */
  uint32_t *ahead;   /* (room) rows that will probably be compared after those */
  uint32_t *ids;     /* (room) rows to be compared, */
  float *scores;     /* and their scores */
  float *query;      /* (d) a stored row as a query, for the forms that want it decoded */
} ev_hnsw_scratch;

typedef struct ev_hnsw {
  size_t m, m0;         /* links of a list above the ground, and on it */
  size_t ef_build;
  size_t room;          /* of a scratch's ids and, while building, of its pool */
  ev_region ground;     /* (n_rows, m0) links */
  ev_region upper;      /* (n_blocks, m) links: a row's levels 1, 2, … one after the other */
  ev_region upper_at;   /* (n_rows) uint32_t: the row's first block */
  ev_region level;      /* (n_rows) uint8_t: level + 1; 0: never drawn */
  ev_region linked;     /* atomic uint64_t words: a bit a row */
  ev_region inverse;    /* (n_rows) f32 1 / |x|, 0 for the zero vector; dot only, closed otherwise */
  _Atomic size_t n_rows;   /* with room in the regions: rows below it may be looked at */
  _Atomic size_t n_blocks; /* in use */
  _Atomic size_t n_linked;
  _Atomic uint64_t entry; /* level << 32 | row; EV_NONE: the graph is empty */
  _Atomic(ev_hnsw_scratch *) idle[EV_HNSW_SLOTS];
  uint64_t *keys;       /* (2 · keys_room) the writer's: what is to be linked to what, and room for sorting */
  size_t *groups;       /* (keys_room + 1) where the keys of one list begin */
  size_t keys_room;     /* 0: not there yet */
} ev_hnsw;

/* One side of comparisons, a query or a stored row: score = (weight · dot · weight[row] + bias[row] + plus) · by[row]. */
typedef struct ev_hnsw_side {
  const void *code;
  float weight, plus;
  const float *by;  /* NULL: all 1 */
  uint32_t lot;     /* what lots are drawn for */
  uint32_t n_equal; /* rows of one score that a pool keeps */
  bool exact_soon;  /* what is found will be compared by vectors, all of it */
} ev_hnsw_side;

static inline float *ev_floats(const ev_region *r) { return (float *)(void *)r->base; }

static inline bool ev_hnsw_linked(const ev_hnsw *g, uint32_t row) {
  const _Atomic uint64_t *words = (const _Atomic uint64_t *)(const void *)g->linked.base;
  return (atomic_load_explicit(&words[row / 64], memory_order_acquire) >> (row % 64) & 1) != 0;
}

/* A row's level. It, and where its blocks are, may come from a damaged file: then there is nothing above the ground. */
static inline unsigned ev_hnsw_level(const ev_hnsw *g, uint32_t row) {
  unsigned level = ((const uint8_t *)g->level.base)[row];
  if (level <= 1) return 0;
  size_t end = (size_t)((const uint32_t *)(const void *)g->upper_at.base)[row] + level - 1;
  return level <= EV_HNSW_LEVELS && end <= atomic_load_explicit(&g->n_blocks, memory_order_acquire) ? level - 1 : 0;
}

/* A row's list on a level, of *most links; NULL where it has none. */
static inline ev_link *ev_hnsw_list(const ev_hnsw *g, uint32_t row, unsigned level, size_t *most) {
  *most = level == 0 ? g->m0 : g->m;
  if (level == 0) return (ev_link *)(void *)g->ground.base + row * g->m0;
  if (ev_hnsw_level(g, row) < level) return NULL;
  return (ev_link *)(void *)g->upper.base + (((const uint32_t *)(const void *)g->upper_at.base)[row] + (size_t)level - 1) * g->m;
}

static inline uint32_t ev_hnsw_link(const ev_link *list, size_t i) { return atomic_load_explicit(&list[i], memory_order_relaxed); }

/* false: it was before. */
static inline bool ev_hnsw_visit(ev_hnsw_scratch *t, uint32_t row) {
  uint64_t *word = &t->visited[row / 64], bit = (uint64_t)1 << row % 64;
  if ((*word & bit) != 0) return false;
  *word |= bit;
  if (t->n_touched < EV_HNSW_TOUCHED) t->touched[t->n_touched++] = row;
  return true;
}

/* A place among equals, without order in it. */
static inline float ev_hnsw_lot(uint32_t a, uint32_t b) {
  uint64_t h = ((uint64_t)a << 32 | b) * 0x9E3779B97F4A7C15;
  h = (h ^ h >> 32) * 0xD6E8FEB86659FD93;
  return (float)(h >> 40);
}

size_t ev_hnsw_offer_equal(ev_found *pool, size_t *n, size_t room, float score, uint32_t row, size_t end, const ev_hnsw_side *q);

/* Puts a row into a pool of at most `room`, best first; *n are in it. Its place, or `room`: no place. Of one score at most
 * q->n_equal are kept, drawn by lot. */
static inline size_t ev_hnsw_offer(ev_found *pool, size_t *n, size_t room, float score, uint32_t row, const ev_hnsw_side *q) {
  size_t at = 0, len = *n;
  if (!(score > (len == room ? pool[len - 1].score : -INFINITY))) return room; /* NaN neither */
  while (len >= 8) { /* the first that is worse. A branch would be guessed wrong half the time; seven at once wait for each other less than three halvings do */
    size_t step = len / 8, n_better = 0;
    for (size_t i = 1; i < 8; i++) n_better += pool[at + i * step - 1].score >= score;
    at += n_better * step;
    len -= 7 * step; /* of the last part; the others are no longer */
  }
  for (; len > 1; len -= len / 2) at += (size_t)(pool[at + len / 2 - 1].score >= score) * (len / 2);
  at += len > 0 && pool[at].score >= score;
  if (at > 0 && pool[at - 1].score == score) return ev_hnsw_offer_equal(pool, n, room, score, row, at, q);
  if (*n < room) ++*n;
  if (*n - at > 24) memmove(pool + at + 1, pool + at, (*n - at - 1) * sizeof *pool);
  else
    for (size_t i = *n - 1; i > at; i--) pool[i] = pool[i - 1]; /* a call costs more */
  pool[at] = (ev_found){score, row};
  return at;
}

/* ---- hnsw.c */
ev_status ev_hnsw_open(ev_index *x);
ev_hnsw_scratch *ev_hnsw_scratch_take(const ev_index *x, ev_hnsw *g, size_t n_rows, size_t pool_room); /* NULL: out of memory */
void ev_hnsw_scratch_give(ev_hnsw *g, ev_hnsw_scratch *t);
void ev_hnsw_forget(ev_hnsw_scratch *t);              /* all bits of visited become 0 */
void ev_hnsw_scores(float *out, const ev_index *x, const ev_hnsw_side *q, const uint32_t *rows, size_t n);
/* Climbs from a row on level `from` to the best found on the level above `to`. */
ev_found ev_hnsw_descend(const ev_index *x, const ev_hnsw *g, ev_hnsw_scratch *t, const ev_hnsw_side *q, ev_found at, unsigned from, unsigned to, size_t n_rows);
/* The pool, seeded with what is in it and visited, becomes the best `ef` that lead to no better one. Returns how many were compared. */
size_t ev_hnsw_beam(const ev_index *x, const ev_hnsw *g, ev_hnsw_scratch *t, const ev_hnsw_side *q, unsigned level, size_t ef, size_t *n, size_t n_rows);

/* ---- hnsw_build.c */
ev_status ev_hnsw_put(ev_index *x, const uint32_t *rows, size_t n);
void ev_hnsw_unlink(ev_index *x, const uint32_t *rows, size_t n);
ev_status ev_hnsw_grow(ev_hnsw *g, size_t n_rows);
/* A row's list on a level, with others in place of those that are not in the graph any more, or are not among the kept.
 * @param[out] out (most) rows. Returns how many; *whole: none was missing. */
size_t ev_hnsw_mend(const ev_index *x, const ev_hnsw *g, ev_hnsw_scratch *t, uint32_t row, unsigned level, const ev_kept *kept,
                    uint32_t *out, bool *whole);

/* ---- hnsw_file.c */
ev_status ev_hnsw_write(const ev_index *x, ev_pack_writer *w, const ev_kept *kept);
ev_status ev_hnsw_map(ev_index *x, const ev_pack *p);

#endif
