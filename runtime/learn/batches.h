/* batches.h - what the kinds of batches share; private to this room. */
#ifndef EV_LEARN_BATCHES_H
#define EV_LEARN_BATCHES_H

#include "graph.h"
#include "sampler.h"

/* Every input there is. A kind's table says which of them it has, and what it calls them. */
typedef enum ev_word {
  EV_W_USER, EV_W_ITEM, EV_W_TARGET, EV_W_NEGATIVE, EV_W_LOG_Q, EV_W_NEGATIVE_LOG_Q, EV_W_LOG_SHARE, EV_W_USER_KNOWN, EV_W_ITEM_KNOWN, EV_W_TARGET_KNOWN,
  EV_W_NEGATIVE_KNOWN, EV_W_RATING, EV_W_POSITION, EV_W_SEQUENCE, EV_W_LENGTH, EV_W_LAST, EV_W_CODES, EV_W_WEIGHTS, EV_W_DENSE, EV_W_LABEL, EV_WORDS
} ev_word;

typedef enum ev_along { EV_ALONG_ROWS, EV_ALONG_NEGATIVES, EV_ALONG_SEQUENCES, EV_ALONG_SLOTS, EV_ALONG_DENSE } ev_along; /* shapes */

typedef struct ev_word_of {
  const char *name; /* NULL ends a table */
  ev_word word;
  bool ids;
  ev_along along;
} ev_word_of;

typedef struct ev_batch_kind {
  const ev_word_of *words;
  ev_status (*fill)(ev_batches *b, uint64_t step, size_t *n_rows);
  void (*close)(ev_batches *b); /* frees state */
  ev_status (*fill_held)(ev_batches *b, size_t first, size_t *n_rows); /* NULL: none can be held */
} ev_batch_kind;

struct ev_batches {
  const ev_batch_kind *kind;
  ev_graph *g;
  const ev_view *v;
  ev_batch_options o;
  char name[24];              /* what o.name points to */
  ev_sampler sampler;         /* n 0: no negatives */
  unsigned rows, sequences;   /* axes; 0: it has none */
  size_t n_rows, n_sequences; /* their capacities */
  size_t n_slots, n_dense;    /* columns of codes and of numbers */
  uint64_t per_epoch, epoch_rows;
  size_t n_held;
  uint64_t epoch;             /* the one that state is arranged for; UINT64_MAX: none yet */
  void *state;                /* the kind's own */
  uint32_t *ids[EV_WORDS];    /* what an input holds; NULL: nobody asked for it yet */
  float *values[EV_WORDS];
  ev_tensor input[EV_WORDS];
};

/* The common part; the kind then sets its axes and per_epoch. What a failure leaves in *out the caller frees. */
ev_status ev_batches_new(ev_batches **out, const ev_batch_kind *kind, ev_graph *g, const ev_view *v, const ev_batch_options *o);

/* A stream of numbers for each purpose and step, in which each row has one of its own: who fills a row does not matter. */
typedef enum ev_purpose { EV_FOR_NEGATIVES, EV_FOR_DROPOUT, EV_FOR_ORDER, EV_FOR_WINDOW, EV_PURPOSES } ev_purpose;
uint64_t ev_batches_key(const ev_batches *b, ev_purpose purpose, uint64_t step);
void ev_batches_shuffle(uint32_t *x, size_t n, ev_rng *r);

typedef struct ev_row_keys {
  uint64_t negatives, dropout;
} ev_row_keys;
static inline ev_row_keys ev_batches_keys(const ev_batches *b, uint64_t step) {
  return (ev_row_keys){ev_batches_key(b, EV_FOR_NEGATIVES, step), ev_batches_key(b, EV_FOR_DROPOUT, step)};
}

/* Of row `row`: the words that describe the item predicted there (LOG_Q, LOG_SHARE and, with their ids dropped in a share of
 * the rows, USER_KNOWN where that goes by rows, ITEM_KNOWN, TARGET_KNOWN) and, unless they are shared, its negatives. item is
 * EV_NONE where there is none beside the one predicted. */
void ev_batches_describe(ev_batches *b, const ev_row_keys *keys, size_t row, uint32_t user, uint32_t item, uint32_t predicted);
void ev_batches_shared(ev_batches *b, const ev_row_keys *keys); /* the batch's negatives, when they are shared; once a fill */

#endif
