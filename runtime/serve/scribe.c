/* scribe.c - the rings that lead to the ledger's writer: shared memory, and what producers do with it.
 *
 * Each ring has one producer and one writer, so a position is stored by one of them only and nothing is ever locked: either may be
 * killed anywhere and its successor finds every position at a record's edge. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "scribe.h"

#define NAME_MAX_BYTES 1024 /* of a version: what the ledger takes */

/* ---- Memory --------------------------------------------------------------------------------------------*/
static size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static size_t head_bytes(size_t n_rings) { return up(sizeof(scribe) + n_rings * sizeof(scribe_ring), 4096); }

char *scribe_ring_bytes(const scribe *s, size_t i) { return (char *)(uintptr_t)s + head_bytes(s->n_rings) + i * s->ring_bytes; }

ev_status scribe_new(scribe **out, size_t n_rings, size_t ring_bytes, const int *done) {
  *out = NULL;
  if (n_rings == 0 || n_rings > 1024 || ring_bytes == 0 || ring_bytes > UINT32_MAX / 2) return ev_fail(EV_EINVAL, "%zu rings of %zu bytes for the ledger", n_rings, ring_bytes);
  ring_bytes = up(ring_bytes, 4096);
  size_t bytes = head_bytes(n_rings) + n_rings * ring_bytes;
  scribe *s = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (s == MAP_FAILED) return ev_fail_errno("%zu bytes of shared memory for the ledger", bytes);
  s->mapped = bytes;
  s->n_rings = n_rings;
  s->ring_bytes = ring_bytes;
  for (size_t i = 0; i < n_rings; i++) s->rings[i].bell = done != NULL ? done[i] : -1;
  if (getrandom(&s->nonce, sizeof s->nonce, 0) != sizeof s->nonce) {
    munmap(s, bytes);
    return ev_fail_errno("no random numbers");
  }
  *out = s;
  return EV_OK;
}

void scribe_free(scribe *s) {
  if (s != NULL) munmap(s, s->mapped);
}

ev_status record_check(const scribe *s, size_t ring, uint64_t at, uint64_t left) {
  const record *r = record_at(s, ring, at);
  uint64_t size = r->size, to_end = s->ring_bytes - at % s->ring_bytes;
  bool fine = size >= RECORD_ALIGN && size % RECORD_ALIGN == 0 && size <= left && size <= to_end;
  if (fine && r->kind != RECORD_FILLER) {
    size_t head = sizeof(record) + (r->told ? sizeof(outcome) : 0);
    fine = (r->kind == RECORD_BATCH || r->kind == RECORD_PROMOTION) && head <= size && r->bytes <= size - head;
  }
  return fine ? EV_OK : ev_fail(EV_ECORRUPT, "ring %zu of the ledger's writer is damaged at %llu", ring, (unsigned long long)at);
}

/* ---- Sleeping and waking -------------------------------------------------------------------------------*/
void scribe_futex_wait(_Atomic uint32_t *at, uint32_t while_it_is, int64_t ms) {
  struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
  syscall(SYS_futex, at, FUTEX_WAIT, while_it_is, ms >= 0 ? &t : NULL, NULL, 0);
}

void scribe_futex_wake(_Atomic uint32_t *at) { syscall(SYS_futex, at, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

static void wake(scribe *s) {
  if (atomic_exchange(&s->mode, AWAKE) != AWAKE) scribe_futex_wake(&s->mode);
}

void scribe_stop(scribe *s) {
  atomic_store(&s->stopping, 1);
  wake(s);
}

/* ---- Posting -------------------------------------------------------------------------------------------*/
/* collected goes on over what has no ticket: nobody has to call collect for it. */
static void pass_by(scribe *s, size_t i) {
  scribe_ring *r = &s->rings[i];
  uint64_t at = atomic_load_explicit(&r->collected, memory_order_relaxed), head = atomic_load_explicit(&r->head, memory_order_relaxed), before = at;
  while (at < head) {
    record *x = record_at(s, i, at);
    if (x->kind != RECORD_FILLER && atomic_load_explicit(&x->ticket, memory_order_relaxed) != 0) break;
    at += x->size;
  }
  if (at != before) atomic_store_explicit(&r->collected, at, memory_order_relaxed);
}

static uint64_t free_bytes(const scribe *s, const scribe_ring *r, uint64_t head) {
  uint64_t done = atomic_load_explicit(&r->done, memory_order_acquire), collected = atomic_load_explicit(&r->collected, memory_order_relaxed);
  return s->ring_bytes - (head - (done < collected ? done : collected));
}

typedef size_t write_fn(char *to, size_t room, const void *what);

/* Writes the record at head + skip, where `room` bytes lie in a row. → its size, or 0; *needs: what it would take */
static size_t write_at(scribe *s, size_t i, uint64_t at, uint64_t room, write_fn *write, const void *what, bool told, size_t *needs) {
  record *x = record_at(s, i, at);
  size_t head = sizeof(record) + (told ? sizeof(outcome) : 0), n = write((char *)x + head, room > head ? room - head : 0, what);
  *needs = up(head + n, RECORD_ALIGN);
  if (*needs > room) return 0;
  x->size = (uint32_t)*needs;
  x->bytes = (uint32_t)n;
  return *needs;
}

static ev_status post(scribe *s, size_t i, record_kind kind, size_t rows, void *ticket, write_fn *write, const void *what) {
  scribe_ring *r = &s->rings[i];
  uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed), to_end = s->ring_bytes - head % s->ring_bytes, skip = 0;
  size_t needs = 0, size = 0;
  for (int turn = 0; turn < 2 && size == 0; turn++) {
    if (turn == 1) pass_by(s, i);
    uint64_t room = free_bytes(s, r, head);
    skip = 0;
    size = write_at(s, i, head, room < to_end ? room : to_end, write, what, ticket != NULL, &needs);
    if (size == 0 && room > to_end && needs <= room - to_end) {
      skip = to_end;
      size = write_at(s, i, head + skip, room - to_end, write, what, ticket != NULL, &needs);
    }
    if (needs > s->ring_bytes / 2) return ev_fail(EV_EINVAL, "%zu rows are too much at once for the ledger: %zu bytes of %zu", rows, needs, s->ring_bytes / 2);
  }
  if (size == 0) {
    uint64_t done = atomic_load(&r->done);
    atomic_store(&r->starved, 1);
    if (atomic_load(&r->done) != done) bell_ring(r->bell); /* room that came before the word of it */
    return ev_fail(EV_ELIMIT, "the ledger does not keep up: no room for %zu bytes", needs);
  }
  record *x = record_at(s, i, head + skip);
  x->kind = kind;
  x->rows = rows < UINT32_MAX ? (uint32_t)rows : UINT32_MAX;
  x->told = ticket != NULL;
  x->serial = 0;
  atomic_store_explicit(&x->state, RECORD_WAITS, memory_order_relaxed);
  atomic_store_explicit(&x->ticket, (uint64_t)(uintptr_t)ticket, memory_order_relaxed);
  if (skip > 0) {
    record *filler = record_at(s, i, head);
    filler->size = (uint32_t)skip;
    filler->kind = RECORD_FILLER;
  }
  if (ticket != NULL) atomic_store_explicit(&r->posted, atomic_load_explicit(&r->posted, memory_order_relaxed) + 1, memory_order_relaxed);
  head += skip + size;
  atomic_store(&r->head, head); /* before the mode is looked at: who falls asleep looks at the head after he said so */
  uint32_t mode = atomic_load(&s->mode);
  bool crowded = head - atomic_load_explicit(&r->done, memory_order_relaxed) > s->ring_bytes / 2;
  if (mode == SLEEPS || (mode == LINGERS && crowded) || (mode != AWAKE && ticket != NULL)) wake(s);
  return EV_OK;
}

ev_status scribe_post(scribe *s, size_t ring, const ev_ledger_batch *b, void *ticket) {
  size_t rows = b->n_events + b->n_impressions;
  for (size_t i = 0; i < b->n_impressions; i++) rows += b->impressions[i].n_items;
  return post(s, ring, RECORD_BATCH, rows, ticket, wire_write_batch, b);
}

static ev_status check_name(const char *what, const char *s, size_t most) {
  if (s == NULL || s[0] == '\0') return ev_fail(EV_EINVAL, "a promotion without %s", what);
  size_t n = strlen(s);
  if (n > most) return ev_fail(EV_EINVAL, "the %s of a promotion is longer than %zu bytes", what, most);
  return ev_utf8_invalid(s, n) == n ? EV_OK : ev_fail(EV_EINVAL, "the %s of a promotion is not UTF-8", what);
}

ev_status scribe_promote(scribe *s, size_t ring, const promotion *p) {
  static const char *const actions[] = {"stage", "canary", "promote", "rollback"};
  bool known = false;
  EV_TRY(check_name("version", p->version, NAME_MAX_BYTES));
  if (p->against != NULL) EV_TRY(check_name("version it is held against", p->against, NAME_MAX_BYTES));
  EV_TRY(check_name("reason", p->reason, s->ring_bytes));
  if (p->evidence != NULL) EV_TRY(check_name("evidence", p->evidence, s->ring_bytes));
  for (size_t i = 0; i < 4; i++) known = known || (p->action != NULL && strcmp(p->action, actions[i]) == 0);
  if (!known) return ev_fail(EV_EINVAL, "'%.20s' is done to no version", p->action != NULL ? p->action : "");
  const wire_promotion w = {*p, ev_wall_ms()};
  return post(s, ring, RECORD_PROMOTION, 3, NULL, wire_write_promotion, &w);
}

/* ---- Collecting ----------------------------------------------------------------------------------------*/
void scribe_collect(scribe *s, size_t i, scribe_done_fn *fn, void *ctx) {
  scribe_ring *r = &s->rings[i];
  uint64_t at = atomic_load_explicit(&r->collected, memory_order_relaxed);
  while (at < atomic_load_explicit(&r->head, memory_order_relaxed)) {
    record *x = record_at(s, i, at);
    uint64_t ticket = x->kind != RECORD_FILLER ? atomic_load_explicit(&x->ticket, memory_order_relaxed) : 0;
    if (ticket != 0) {
      if (atomic_load_explicit(&x->state, memory_order_acquire) != RECORD_DONE) break;
      const outcome *o = record_outcome(x);
      fn(ctx, (void *)(uintptr_t)ticket, (ev_status)o->status, o->error, &o->receipt);
      atomic_store_explicit(&r->taken, atomic_load_explicit(&r->taken, memory_order_relaxed) + 1, memory_order_relaxed);
    }
    at += x->size;
    atomic_store_explicit(&r->collected, at, memory_order_relaxed);
  }
}

size_t scribe_waiting(const scribe *s, size_t i) {
  const scribe_ring *r = &s->rings[i];
  uint64_t taken = atomic_load_explicit(&r->taken, memory_order_relaxed), posted = atomic_load_explicit(&r->posted, memory_order_relaxed);
  return (size_t)(posted - taken);
}

ev_status scribe_attach(scribe *s, size_t i, int ms) {
  scribe_ring *r = &s->rings[i];
  uint64_t head = atomic_load(&r->head), until = ev_now_ns() + (ms > 0 ? (uint64_t)ms : 0) * 1000000;
  for (uint64_t at = atomic_load(&r->collected); at < head;) {
    record *x = record_at(s, i, at);
    if (x->kind != RECORD_FILLER) atomic_store(&x->ticket, 0);
    at += x->size;
    atomic_store(&r->collected, at);
  }
  atomic_store(&r->taken, atomic_load(&r->posted));
  wake(s);
  while (atomic_load(&r->done) < head) {
    if (ev_now_ns() >= until) return ev_fail(EV_ELIMIT, "%llu bytes of before still wait for the ledger", (unsigned long long)(head - atomic_load(&r->done)));
    usleep(500);
  }
  return EV_OK;
}

/* ---- How it is -----------------------------------------------------------------------------------------*/
void scribe_stat(const scribe *s, scribe_stats *out) {
  *out = (scribe_stats){.records = s->records, .commits = s->commits, .failures = s->failures, .dropped = s->dropped};
  for (size_t i = 0; i < s->n_rings; i++) {
    uint64_t done = atomic_load(&s->rings[i].done), head = atomic_load(&s->rings[i].head); /* in this order: never below 0 */
    out->waiting_bytes += (size_t)(head - done);
  }
  for (int tries = 0; tries < 100; tries++) { /* a writer that was killed over it leaves a torn text: then that is shown */
    uint64_t turn = atomic_load(&s->error_turn);
    for (size_t i = 0; i < SCRIBE_ERROR_BYTES / 8; i++) {
      uint64_t word = atomic_load_explicit(&s->error[i], memory_order_relaxed);
      memcpy(out->error + 8 * i, &word, sizeof word);
    }
    atomic_thread_fence(memory_order_acquire);
    if (turn % 2 == 0 && atomic_load(&s->error_turn) == turn) break;
  }
  out->error[sizeof out->error - 1] = '\0';
  ev_text_mend(out->error);
}
