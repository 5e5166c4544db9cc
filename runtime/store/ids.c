/* ids.c - a string → number table that is read while it grows.
 *
 * Open addressing with linear probing. A slot is one word, the upper half of the string's hash over its number + 1, so that a
 * probe seldom looks at a wrong string, and a slot is filled by one store: a reader sees it empty or whole. Strings lie one
 * behind the other, their ends in `ptr`; both are written before the slot. A table that is two thirds full is copied into one of
 * twice the size; the old one is freed when the readers that may be in it have left their epoch. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ids.h"

#define SLOTS_LEAST 64

struct ev_ids_slots {
  size_t n;            /* a power of two */
  ev_region words;     /* (n) _Atomic uint64_t; 0: empty */
  ev_ids_slots *older; /* retired, waiting for its readers */
  uint64_t mark;       /* when it was */
};

static uint64_t word_of(uint64_t hash, uint32_t number) { return (hash & 0xFFFFFFFF00000000u) | (number + 1); }
static _Atomic uint64_t *words_of(const ev_ids_slots *s) { return (_Atomic uint64_t *)(void *)s->words.base; }
static const uint64_t *ptr_of(const ev_ids *t) { return (const uint64_t *)(const void *)t->ptr.base; }

static void slots_free(ev_ids_slots *s) {
  while (s != NULL) {
    ev_ids_slots *older = s->older;
    ev_region_close(&s->words);
    ev_free(s);
    s = older;
  }
}

static ev_status slots_new(ev_ids_slots **out, size_t n) {
  ev_ids_slots *s = ev_zalloc(1, sizeof *s);
  *out = s;
  if (s == NULL) return EV_ENOMEM;
  s->n = n;
  ev_status status = ev_region_open(&s->words, n * sizeof(uint64_t));
  if (status == EV_OK) status = ev_region_grow(&s->words, n * sizeof(uint64_t));
  if (status == EV_OK) return EV_OK;
  slots_free(s);
  *out = NULL;
  return status;
}

static void slots_add(ev_ids_slots *s, uint64_t hash, uint32_t number) {
  _Atomic uint64_t *words = words_of(s);
  size_t i = hash & (s->n - 1), left = s->n;
  while (left > 0 && atomic_load_explicit(&words[i], memory_order_relaxed) != 0) left--, i = (i + 1) & (s->n - 1);
  if (left > 0) atomic_store_explicit(&words[i], word_of(hash, number), memory_order_release); /* only a damaged table is full */
}

ev_status ev_ids_open(ev_ids *t, size_t max, size_t max_bytes) {
  ev_ids_slots *s;
  memset(t, 0, sizeof *t);
  EV_TRY(slots_new(&s, SLOTS_LEAST));
  atomic_store(&t->slots, s);
  EV_TRY(ev_region_open(&t->ptr, (max + 1) * sizeof(uint64_t)));
  EV_TRY(ev_region_open(&t->bytes, max_bytes));
  EV_TRY(ev_region_grow(&t->bytes, 1)); /* there is a byte to point to */
  return ev_region_grow(&t->ptr, sizeof(uint64_t));
}

void ev_ids_close(ev_ids *t) {
  slots_free(atomic_load(&t->slots));
  ev_region_close(&t->ptr);
  ev_region_close(&t->bytes);
  memset(t, 0, sizeof *t);
}

size_t ev_ids_bytes(const ev_ids *t) {
  size_t bytes = t->ptr.size + t->bytes.size;
  for (const ev_ids_slots *s = atomic_load(&t->slots); s != NULL; s = s->older) bytes += s->words.size;
  return bytes;
}

const char *ev_ids_get(const ev_ids *t, uint32_t number, size_t *len) {
  uint32_t n = atomic_load_explicit(&t->n, memory_order_acquire);
  const uint64_t *ptr = ptr_of(t);
  *len = 0;
  if (number >= n || ptr[number] > ptr[number + 1] || ptr[number + 1] > ptr[n]) return t->bytes.base; /* mapped bytes may be wrong */
  *len = ptr[number + 1] - ptr[number];
  return t->bytes.base + ptr[number];
}

uint32_t ev_ids_find(const ev_ids *t, const char *s, size_t len) {
  uint64_t hash = ev_checksum(s, len);
  const ev_ids_slots *slots = atomic_load_explicit(&t->slots, memory_order_acquire);
  const _Atomic uint64_t *words = words_of(slots);
  for (size_t i = hash & (slots->n - 1), left = slots->n; left > 0; left--, i = (i + 1) & (slots->n - 1)) {
    uint64_t word = atomic_load_explicit(&words[i], memory_order_acquire);
    if (word == 0) break;
    if ((word ^ hash) >> 32 != 0) continue;
    size_t there;
    const char *text = ev_ids_get(t, (uint32_t)word - 1, &there);
    if (there == len && memcmp(text, s, len) == 0 && (uint32_t)word - 1 < atomic_load_explicit(&t->n, memory_order_relaxed)) return (uint32_t)word - 1;
  }
  return EV_NONE;
}

static ev_status slots_double(ev_ids *t, ev_epochs *epochs) {
  ev_ids_slots *old = atomic_load_explicit(&t->slots, memory_order_relaxed), *s;
  EV_TRY(slots_new(&s, 2 * old->n));
  const _Atomic uint64_t *words = words_of(old);
  uint32_t n = atomic_load_explicit(&t->n, memory_order_relaxed), moved = 0;
  for (size_t i = 0; i < old->n; i++) {
    uint64_t word = atomic_load_explicit(&words[i], memory_order_relaxed);
    uint32_t number = (uint32_t)word - 1;
    size_t len;
    if (word == 0 || number >= n || moved == n) continue; /* the last two: damage */
    const char *text = ev_ids_get(t, number, &len);
    slots_add(s, ev_checksum(text, len), number);
    moved++;
  }
  for (ev_ids_slots **at = &old->older; *at != NULL;) { /* those that nobody is in any more */
    if (!ev_epoch_passed(epochs, (*at)->mark)) {
      at = &(*at)->older;
      continue;
    }
    slots_free(*at); /* and all behind it, which are older still */
    *at = NULL;
  }
  s->older = old;
  atomic_store_explicit(&t->slots, s, memory_order_release);
  old->mark = ev_epoch_mark(epochs);
  return EV_OK;
}

ev_status ev_ids_add(ev_ids *t, const char *s, size_t len, ev_epochs *epochs, uint32_t *out) {
  uint32_t n = atomic_load_explicit(&t->n, memory_order_relaxed);
  uint64_t *ptr = (uint64_t *)(void *)t->ptr.base;
  if (n + 1 >= t->ptr.limit / sizeof *ptr || n == EV_NONE - 1) return ev_fail(EV_ELIMIT, "%u different names: no room for more", n);
  EV_TRY(ev_region_grow(&t->ptr, (n + 2) * sizeof *ptr));
  EV_TRY(ev_region_grow(&t->bytes, ptr[n] + len));
  if (3 * ((size_t)n + 1) > 2 * atomic_load_explicit(&t->slots, memory_order_relaxed)->n) EV_TRY(slots_double(t, epochs));
  memcpy(t->bytes.base + ptr[n], s, len);
  ptr[n + 1] = ptr[n] + len;
  atomic_store_explicit(&t->n, n + 1, memory_order_release);
  slots_add(atomic_load_explicit(&t->slots, memory_order_relaxed), ev_checksum(s, len), n);
  *out = n;
  return EV_OK;
}

/* ---- In a pack -----------------------------------------------------------------------------------------*/
ev_status ev_region_take(ev_region *r, size_t limit, const ev_pack *p, const ev_array *a) {
  size_t size = a->rows * a->cols * ev_dtype_size(a->dtype);
  if (size > limit) return ev_fail(EV_ECORRUPT, "%s: an array is larger than it can be", ev_pack_path(p));
  EV_TRY(ev_region_open(r, limit));
  uint64_t offset = ev_pack_offset(p, a);
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  ev_status status;
  if (size >= page && offset % page == 0) {
    status = ev_region_map(r, ev_pack_path(p), offset, size);
  } else {
    status = ev_region_grow(r, size == 0 ? 1 : size);
    if (status == EV_OK && size > 0) memcpy(r->base, a->data, size);
  }
  if (status != EV_OK) ev_region_close(r);
  return status;
}

ev_status ev_ids_map(ev_ids *t, size_t max, size_t max_bytes, const ev_pack *p, const char *prefix) {
  ev_array ptr, bytes, slots;
  char name[48];
  memset(t, 0, sizeof *t);
  snprintf(name, sizeof name, "%s.ptr", prefix);
  EV_TRY(ev_pack_get(p, name, EV_U64, &ptr));
  snprintf(name, sizeof name, "%s.slots", prefix);
  EV_TRY(ev_pack_get(p, name, EV_U64, &slots));
  snprintf(name, sizeof name, "%s.bytes", prefix);
  EV_TRY(ev_pack_get(p, name, EV_U8, &bytes));
  const uint64_t *ends = ptr.data;
  size_t n = ptr.rows - 1;
  if (ptr.rows == 0 || ptr.cols != 1 || slots.cols != 1 || bytes.cols != 1 || n > max || n >= EV_NONE || ends[0] != 0 || ends[n] != bytes.rows ||
      slots.rows < SLOTS_LEAST || (slots.rows & (slots.rows - 1)) != 0 || 2 * slots.rows < 3 * n)
    return ev_fail(EV_ECORRUPT, "%s: '%s' makes no sense", ev_pack_path(p), prefix);
  ev_ids_slots *s = ev_zalloc(1, sizeof *s);
  if (s == NULL) return EV_ENOMEM;
  s->n = slots.rows;
  atomic_store(&t->slots, s);
  atomic_store(&t->n, (uint32_t)n);
  EV_TRY(ev_region_take(&s->words, slots.rows * sizeof(uint64_t), p, &slots));
  EV_TRY(ev_region_take(&t->ptr, (max + 1) * sizeof(uint64_t), p, &ptr));
  return ev_region_take(&t->bytes, max_bytes, p, &bytes);
}

#define PIECE 8192

static ev_status write_ptr(const ev_ids *t, ev_pack_writer *w, const char *name, const uint32_t *keep, size_t n) {
  uint64_t piece[PIECE], end = 0;
  size_t used = 1;
  piece[0] = 0;
  EV_TRY(ev_pack_begin(w, name, EV_U64, 1));
  for (size_t i = 0; i < n; i++) {
    size_t len;
    ev_ids_get(t, keep[i], &len);
    if (used == PIECE) {
      EV_TRY(ev_pack_append(w, piece, used));
      used = 0;
    }
    piece[used++] = end += len;
  }
  EV_TRY(ev_pack_append(w, piece, used));
  return ev_pack_end(w);
}

static ev_status write_bytes(const ev_ids *t, ev_pack_writer *w, const char *name, const uint32_t *keep, size_t n) {
  char piece[8 * PIECE];
  size_t used = 0;
  EV_TRY(ev_pack_begin(w, name, EV_U8, 1));
  for (size_t i = 0; i < n; i++) {
    size_t len;
    const char *text = ev_ids_get(t, keep[i], &len);
    if (len > sizeof piece - used) {
      EV_TRY(ev_pack_append(w, piece, used));
      used = 0;
    }
    if (len > sizeof piece) {
      EV_TRY(ev_pack_append(w, text, len));
      continue;
    }
    memcpy(piece + used, text, len);
    used += len;
  }
  EV_TRY(ev_pack_append(w, piece, used));
  return ev_pack_end(w);
}

ev_status ev_ids_write(const ev_ids *t, ev_pack_writer *w, const char *prefix, const uint32_t *keep, size_t n) {
  ev_ids_slots *s;
  char name[48];
  size_t n_slots = SLOTS_LEAST;
  while (2 * n_slots < 3 * (n + n / 16)) n_slots *= 2; /* room for some before the first doubling */
  snprintf(name, sizeof name, "%s.ptr", prefix);
  EV_TRY(write_ptr(t, w, name, keep, n));
  snprintf(name, sizeof name, "%s.bytes", prefix);
  EV_TRY(write_bytes(t, w, name, keep, n));
  EV_TRY(slots_new(&s, n_slots));
  for (size_t i = 0; i < n; i++) {
    size_t len;
    const char *text = ev_ids_get(t, keep[i], &len);
    slots_add(s, ev_checksum(text, len), (uint32_t)i);
  }
  snprintf(name, sizeof name, "%s.slots", prefix);
  ev_status status = ev_pack_write(w, name, EV_U64, s->words.base, n_slots, 1);
  slots_free(s);
  return status;
}
