/* index.h - what the kinds of index share; private to this room.
 *
 *   index.c         rows (codes, vectors, flags): put, delete, get
 *   index_search.c  the choice between a kind's search and a plain scan, exact scores
 *   index_flat.c    the plain scan
 *   ivf.h, index_ivf.c, ivf_search.c, ivf_file.c  lists around k-means centres, which kmeans.c finds
 *   index_file.c    write and map
 *   hnsw.c        graph: storage, search, file;  hnsw_build.c  insertion and removal
 *
 * A row: its code (what search reads), its f32 vector where that is kept beside a smaller form, and two numbers, so that
 * every metric is one inner product: score = weight[row] · query.weight · dot(query.code, code) + bias[row]
 *   dot     weight = the form's scale            bias absent
 *   cosine  weight = scale / |x|                 bias absent
 *   l2      weight = scale, query.weight twice its own   bias = −|x|² of the decoded code; |q|² is taken off at the end
 * |x| is that of the decoded code. What is found is ordered at last by exact scores: see ev_index_exact.
 *
 * Threads. The writer holds `writer`. It fills a row's arrays, links it (kind->put), then sets its live bit; readers load
 * what they follow with acquire order and stay inside an epoch. A deleted row keeps its arrays until it is put again,
 * which waits for its epoch to pass. */
#ifndef EV_STORE_INDEX_H
#define EV_STORE_INDEX_H

#include <pthread.h>
#include <stdatomic.h>

#include "store.h"

typedef struct ev_index_kind ev_index_kind;

struct ev_index {
  ev_index_options o;        /* its strings are static */
  const ev_index_kind *kind;
  ev_similarity metric;
  ev_form form;
  size_t d, stride;          /* elements; bytes between codes, a multiple of 64 */
  ev_dot_fn *dot, *dot_pair; /* query · code; code · code */
  ev_region codes;           /* (n_rows, stride), zero padded */
  ev_region vectors;         /* (n_rows, d) f32; closed unless rescore */
  ev_region weight;          /* (n_rows) f32; closed: all 1 */
  ev_region scale;           /* (n_rows) f32, the form's; closed where weight tells it */
  ev_region bias;            /* (n_rows) f32; closed: none */
  ev_region live;            /* atomic uint64_t words: bit r of word r / 64 */
  ev_region marks;           /* (n_rows) uint64_t epoch mark of the row's last deletion; 0 = never. Writer only */
  _Atomic size_t n_rows;     /* readers look at rows below it */
  _Atomic size_t n_live;
  pthread_mutex_t writer;
  ev_epochs *epochs;
  void *state;               /* the kind's */
};

/* A query in the form that codes are compared with. */
typedef struct ev_prepared {
  const float *vector;  /* (d) borrowed */
  const void *code;     /* 64-byte aligned, zero padded to stride */
  float weight;         /* of the query's own code */
  float offset;         /* added to final scores: −|q|² for l2 */
} ev_prepared;

typedef struct ev_found { /* row and score: in the order of ev_topk, best first, once a search has ended */
  float score;
  uint32_t row;
} ev_found;

typedef struct ev_kept {    /* what is written: rows, and their numbers in the file */
  const uint32_t *rows;     /* (n) live, in the order of their new numbers */
  size_t n, n_rows;         /* n_rows: rows of the file, one more than the highest new number */
  const uint32_t *renumber; /* (n_before) the new number, or EV_NONE; rows from n_before on came since */
  size_t n_before;
} ev_kept;

struct ev_index_kind {
  const char *name;
  unsigned effort;                                         /* where neither a search nor the options name one */
  ev_status (*open)(ev_index *x);                          /* makes x->state of an empty index; the options are checked. NULL: has none */
  void (*close)(ev_index *x);
  ev_status (*check)(const ev_index_options *o);           /* the kind's own options; may be NULL */
  /* Rows whose arrays are filled and whose live bits are not set yet; n_rows counts them already. Fails without a trace. */
  ev_status (*put)(ev_index *x, const uint32_t *rows, size_t n);
  void (*unlink)(ev_index *x, const uint32_t *rows, size_t n); /* their live bits are cleared already. Cannot fail */
  /* Up to `want` rows that may be found, by code scores (the query's offset left out), any order; *n_out of them.
   * ev_index_may says which may. n_looked_at is added to. Called inside an epoch, from several threads. NULL: only scans. */
  ev_status (*search)(const ev_index *x, const ev_prepared *q, const ev_search *s, size_t query, size_t want, unsigned effort, ev_found *out, size_t *n_out, size_t *n_looked_at);
  /* About how many rows a search looks at when a share in (0, 1] of them may be found: decides between it and a plain scan. */
  double (*cost)(const ev_index *x, size_t want, unsigned effort, double share);
  ev_status (*write)(const ev_index *x, ev_pack_writer *w, const ev_kept *kept);
  ev_status (*map)(ev_index *x, const ev_pack *p);         /* instead of open; x's rows are mapped already */
  size_t (*bytes)(const ev_index *x);
};

extern const ev_index_kind ev_index_flat, ev_index_hnsw, ev_index_ivf;

/* ---- index.c */
ev_status ev_index_blank(ev_index **out, const ev_index_options *o); /* no rows and no state yet: ev_index_new and ev_index_map begin so */
ev_status ev_index_grow(ev_index *x, size_t rows);                   /* room for so many in every region */
size_t ev_index_row_bytes(const ev_index *x);
/* Refuses vectors that are not finite, too long, or (stored) more than the form holds; the message calls vector i `what` and rows[i], or i. */
ev_status ev_index_check_vectors(const ev_index *x, const char *what, const uint32_t *rows, const float *v, size_t n, bool stored);
const float *ev_index_vector(const ev_index *x, uint32_t row, float *scratch); /* f32: as it was put, or decoded into scratch (d) where only a smaller form is kept */
float ev_inverse_norm(const float *v, size_t d);                               /* 1 / |v|; 0 for the zero vector */
/* The metric itself of a query and a row's vector: the same bits wherever the row was found. scratch (d). */
float ev_index_exact(const ev_index *x, const float *q, float q_inverse_norm, uint32_t row, float *scratch);

/* ---- index_search.c */
ev_status ev_index_prepare(const ev_index *x, ev_prepared *out, const float *q); /* q must outlive it */
void ev_index_prepared_free(ev_prepared *q);

/* ---- index_flat.c: rows that may be found, as a set, and the plain scan over it */
typedef struct ev_may {
  uint64_t *words; /* owned */
  size_t n_rows, n;
} ev_may;
ev_status ev_index_may_all(const ev_index *x, const ev_search *s, ev_may *out); /* live, allowed and passed; seen is for each query's scan */
void ev_index_may_free(ev_may *may);
/* The best `want` rows by code score of the queries [first, first + m) of s, in ev_topk's order and padding. q (m, d)  @param[out] rows, scores (m, want) */
ev_status ev_index_scan(const ev_index *x, const ev_search *s, const ev_may *may, const float *q, size_t first, size_t m, size_t want, uint32_t *rows, float *scores);

/* ---- index_file.c */
/* An array of a pack of just this shape as the first bytes of an empty region: mapped where it lies on a page boundary. EV_ECORRUPT. */
ev_status ev_index_map_array(ev_region *r, const ev_pack *p, const char *name, ev_dtype dtype, size_t rows, size_t cols);

static inline bool ev_index_live(const ev_index *x, uint32_t row) {
  const _Atomic uint64_t *words = (const _Atomic uint64_t *)(const void *)x->live.base;
  return (atomic_load_explicit(&words[row / 64], memory_order_acquire) >> (row % 64) & 1) != 0;
}

/* Whether a row below n_rows may be found by the search's query: live, allowed, passed and not seen. */
bool ev_index_may(const ev_index *x, const ev_search *s, size_t query, uint32_t row);

static inline const void *ev_index_code(const ev_index *x, uint32_t row) { return x->codes.base + row * x->stride; }

static inline float ev_index_score(const ev_index *x, const ev_prepared *q, uint32_t row) {
  float s = q->weight * x->dot(q->code, ev_index_code(x, row), x->d);
  if (x->weight.base != NULL) s *= ((const float *)(const void *)x->weight.base)[row];
  if (x->bias.base != NULL) s += ((const float *)(const void *)x->bias.base)[row];
  return s;
}

#endif
