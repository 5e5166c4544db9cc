/* scribe.h - what the files of the ledger's writer share; private to it.
 *
 *   scribe.c        the rings: made, posted to, collected from
 *   scribe_write.c  the writer's process: gathers, commits, tells, goes on where another was killed
 *   wire.c          batches and promotions as the flat bytes of a record
 *
 * Positions are bytes since the start and never wrap; the place of one is its remainder. A ring lies in memory like this, ages from
 * left to right:
 *
 *   … free | done and collected | not yet both … head | free …
 *            ^ min(done, collected)
 *
 * head and collected are the producer's, done is the writer's: before it every record is done with. A record is whole before head
 * passes it; it never wraps: a filler leads to the ring's start. Its memory is used again when done and collected have passed. */
#ifndef EV_SERVE_SCRIBE_H
#define EV_SERVE_SCRIBE_H

#include "inside.h"

#define RECORD_ALIGN 16 /* of sizes and positions: a filler always has room for its size and kind */
#define SCRIBE_ERROR_BYTES 256

typedef enum record_kind { RECORD_FILLER = 1, RECORD_BATCH, RECORD_PROMOTION } record_kind;
/* WRITTEN: a writer died between the commit and the word: it is in the file, but maybe not on disk yet. */
typedef enum record_state { RECORD_WAITS, RECORD_WRITTEN, RECORD_DONE } record_state;

typedef struct outcome { /* by the writer, before the commit: it is true once the commit is */
  ev_ledger_receipt receipt;
  uint64_t status;
  char error[SCRIBE_ERROR_BYTES];
} outcome;

typedef struct record {
  uint32_t size;           /* with all of it, a multiple of RECORD_ALIGN */
  uint32_t kind;           /* of a filler nothing but these two is there */
  _Atomic uint32_t state;
  uint32_t rows;           /* about: what a commit is measured by */
  _Atomic uint64_t ticket; /* 0: nobody waits */
  uint32_t told;           /* 1: an outcome follows, then the bytes of wire.c; it came with a ticket */
  uint32_t bytes;          /* of wire.c */
  uint64_t serial;         /* of the commit that it was last in */
} record;

typedef struct scribe_ring {
  _Alignas(64) _Atomic uint64_t head; /* by the producer, as all of this line */
  _Atomic uint64_t collected;         /* tickets before are collected */
  _Atomic uint64_t posted, taken;     /* tickets */
  _Alignas(64) _Atomic uint64_t done; /* by the writer */
  _Atomic uint32_t starved;           /* by the producer: it found no room. By the writer: it was told that there is some */
  _Alignas(64) int bell;
} scribe_ring;

/* What a sleeping writer wakes for, a stop besides: anything; a ticket or a ring half full; a ticket. */
enum { AWAKE, SLEEPS, LINGERS, IN_TROUBLE };

struct scribe {
  size_t mapped, n_rings, ring_bytes;
  uint64_t nonce;                  /* tells this scribe's commits from those of others in the same ledger */
  _Alignas(64) _Atomic uint32_t mode; /* of the writer: futex */
  _Atomic uint32_t stopping;
  _Atomic uint64_t serial;         /* of commits */
  _Atomic uint64_t records, commits, failures, dropped;
  _Atomic uint64_t error_turn;     /* odd: being written */
  _Atomic uint64_t error[SCRIBE_ERROR_BYTES / 8];
  scribe_ring rings[];
};

char *scribe_ring_bytes(const scribe *s, size_t ring);
static inline record *record_at(const scribe *s, size_t ring, uint64_t at) { return (record *)(void *)(scribe_ring_bytes(s, ring) + at % s->ring_bytes); }
static inline outcome *record_outcome(record *r) { return r->told ? (outcome *)(void *)(r + 1) : NULL; }
/* A record that lies where it should: EV_ECORRUPT where sizes contradict each other. left: bytes from it to the head. */
ev_status record_check(const scribe *s, size_t ring, uint64_t at, uint64_t left);
static inline char *record_payload(record *r) { return (char *)(r + 1) + (r->told ? sizeof(outcome) : 0); }
void scribe_futex_wait(_Atomic uint32_t *at, uint32_t while_it_is, int64_t ms); /* ms < 0: for ever; may return early */
void scribe_futex_wake(_Atomic uint32_t *at);

/* ---- wire.c ----------------------------------------------------------------------------------------------
 * Numbers as the machine has them, texts as length, bytes and NUL. write: → the bytes that it takes; more than room: nothing of it
 * is of use. read: EV_ECORRUPT where lengths and counts do not add up, whatever the bytes; texts point into them and hold as long
 * as they do, arrays belong to the wire until its next read. */
typedef struct wire {
  ev_impression *impressions;
  ev_event *events;
  ev_shown *items;
  size_t impressions_cap, events_cap, items_cap;
} wire;
size_t wire_write_batch(char *to, size_t room, const void *batch);         /* an ev_ledger_batch */
size_t wire_write_promotion(char *to, size_t room, const void *promotion); /* a wire_promotion */
typedef struct wire_promotion {
  promotion p;
  int64_t at_ms; /* when it was posted: written again it is the same */
} wire_promotion;
ev_status wire_read_batch(wire *w, const char *from, size_t len, ev_ledger_batch *out);
ev_status wire_read_promotion(const char *from, size_t len, wire_promotion *out);
void wire_free(wire *w);

#endif
