/* ivf.h - the inverted file's structures; private to this room. See index_ivf.c. */
#ifndef EV_STORE_IVF_H
#define EV_STORE_IVF_H

#include "index.h"

typedef struct ivf_list {
  _Atomic uint32_t n;    /* entries written; readers look at those below it */
  uint32_t cap, n_gone;  /* of EV_NONE; the writer's */
  _Atomic uint32_t *ids; /* (cap) rows, EV_NONE where one was deleted */
} ivf_list;

typedef struct ivf_lists { /* one set of centres and all that hangs on it */
  size_t n, n_rows;      /* n_rows: live ones when it was made */
  float *centres, *bias; /* (n, d) and (n), owned */
  _Atomic(ivf_list *) *at;   /* (n) each owned, its ids in the same block unless mapped */
} ivf_lists;

typedef struct ivf_place {
  uint32_t list, at; /* EV_NONE: in none */
} ivf_place;

typedef struct ivf_retired {
  void *block; /* owned */
  bool all;    /* a struct ivf_lists with everything in it, else a list */
  uint64_t mark;
} ivf_retired;

typedef struct ivf {
  _Atomic(ivf_lists *) now; /* NULL: too few rows yet */
  ev_region places;     /* (n_rows) ivf_place; the writer's */
  ev_region mapped;     /* ids of a file's lists */
  ivf_retired *old;         /* (n_old) owned; the writer's */
  size_t n_old, cap_old;
} ivf;

static inline ivf *ivf_of(const ev_index *x) { return x->state; }
static inline ivf_place *ivf_places(const ivf *v) { return (ivf_place *)(void *)v->places.base; }

/* ---- index_ivf.c */
ev_status ivf_open(ev_index *x);
ivf_list *ivf_list_new(size_t cap); /* without entries */
ivf_lists *ivf_lists_new(size_t n, size_t d); /* without rows: each list is NULL yet */
void ivf_lists_free(ivf_lists *g);
ev_status ivf_find_lists(const ev_index *x, const ivf_lists *g, const uint32_t *rows, size_t n, uint32_t *out); /* the list of each row's nearest centre; threaded */

/* ---- ivf_search.c */
ev_status ivf_search(const ev_index *x, const ev_prepared *q, const ev_search *s, size_t query, size_t want, unsigned effort, ev_found *out, size_t *n_out, size_t *n_looked_at);
double ivf_cost(const ev_index *x, size_t want, unsigned effort, double share);

/* ---- ivf_file.c */
ev_status ivf_write(const ev_index *x, ev_pack_writer *w, const ev_kept *kept);
ev_status ivf_map(ev_index *x, const ev_pack *p);

#endif
