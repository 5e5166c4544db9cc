/* masks.c - who is left out of a slate: mask 0 of the board, and one for each condition in use.
 *
 * A condition is compiled twice: against the snapshot's columns, where 64 items are judged at a time, and against those of the live
 * table, whose rows then correct the word they are in. Both see the same names; a column that one side has not is one without values
 * there.
 *
 * A mask is found by its text as long as nothing was changed since it was filled. One that is in use is never touched: what was begun
 * with it ends with it. The rest are used again, the one asked for longest ago first. */
#include <stdio.h>
#include <string.h>

#include "catalog.h"

static uint64_t *words_of(const catalog *c, uint32_t mask) { return board_mask(c->board, mask); }
static uint64_t word_at(const catalog *c, uint32_t mask, size_t i) { return __atomic_load_n(words_of(c, mask) + i, __ATOMIC_RELAXED); }

ev_status masks_open(catalog *c) {
  pthread_mutex_init(&c->masks_lock, NULL);
  pthread_cond_init(&c->filled, NULL);
  memset(words_of(c, 0), 0, c->board->n_mask_words * sizeof(uint64_t)); /* of a front that was here before: nobody has a slot yet */
  return EV_OK;
}

void masks_close(catalog *c) {
  for (int i = 0; i < MASKS_MAX; i++) ev_free(c->masks[i].where);
  pthread_cond_destroy(&c->filled);
  pthread_mutex_destroy(&c->masks_lock);
}

/* ---- Hidden --------------------------------------------------------------------------------------------*/
void mask_hide(catalog *c, uint32_t item, bool hidden) {
  uint64_t *w = words_of(c, 0) + item / 64, bit = (uint64_t)1 << (item % 64);
  uint64_t before = hidden ? __atomic_fetch_or(w, bit, __ATOMIC_RELEASE) : __atomic_fetch_and(w, ~bit, __ATOMIC_RELEASE);
  if (((before & bit) != 0) == hidden) return;
  if (hidden) atomic_fetch_add_explicit(&c->n_hidden, 1, memory_order_relaxed);
  else atomic_fetch_sub_explicit(&c->n_hidden, 1, memory_order_relaxed);
}

bool catalog_barred(const catalog *c, uint32_t mask, uint32_t item) {
  if (mask == EV_NONE) return false;
  if (mask >= MASKS_MAX || item >= catalog_n_items(c)) return true;
  return (word_at(c, mask, item / 64) >> (item % 64) & 1) != 0;
}

bool catalog_hidden(const catalog *c, uint32_t item) { return catalog_barred(c, 0, item); }

/* ---- Columns -------------------------------------------------------------------------------------------*/
typedef struct columns { /* the same names twice */
  ev_buf snapshot, live; /* of ev_column */
} columns;

typedef struct column_list {
  const ev_column *first;
  size_t n;
} column_list;

static const ev_column *column_at(void *ctx, size_t i) {
  const column_list *l = ctx;
  return i < l->n ? &l->first[i] : NULL;
}

static column_list list_of(const ev_buf *b) { return (column_list){(const ev_column *)(const void *)b->data, b->len / sizeof(ev_column)}; }

static ev_status add(columns *x, const ev_column *snapshot, const ev_column *live, const char *name, ev_column_type type) {
  static const uint64_t no_tokens[1];
  ev_column none = {.name = name, .type = type, .token_ptr = no_tokens, .token_bytes = ""};
  EV_TRY(ev_buf_append(&x->snapshot, snapshot != NULL ? snapshot : &none, sizeof none));
  return ev_buf_append(&x->live, live != NULL ? live : &none, sizeof none);
}

static const ev_column *live_column(const ev_items_reader *r, const char *name) {
  for (size_t i = 0; r != NULL && i < ev_items_n_columns(r); i++)
    if (strcmp(ev_items_column_at(r, i)->name, name) == 0) return ev_items_column_at(r, i);
  return NULL;
}

static ev_status gather(columns *x, const ev_snapshot *s, const ev_items_reader *r) {
  ev_column_type type = EV_TOKEN;
  const char *name;
  for (size_t i = 0; i < ev_snapshot_n_columns(s, EV_ITEM); i++) {
    const ev_column *c = ev_snapshot_column_at(s, EV_ITEM, i);
    EV_TRY(add(x, c, live_column(r, c->name), c->name, c->type));
  }
  for (size_t i = 0; r != NULL && i < ev_items_n_columns(r); i++) {
    const ev_column *c = ev_items_column_at(r, i);
    if (c->name[0] != '_' && ev_snapshot_column(s, EV_ITEM, c->name) == NULL) EV_TRY(add(x, NULL, c, c->name, c->type));
  }
  for (size_t i = 0; (name = catalog_field(i, &type)) != NULL; i++)
    if (ev_snapshot_column(s, EV_ITEM, name) == NULL && live_column(r, name) == NULL) EV_TRY(add(x, NULL, NULL, name, type));
  return EV_OK;
}

/* ---- Filling -------------------------------------------------------------------------------------------*/
static void fill_snapshot(const catalog *c, const ev_where *w, uint64_t *out) {
  size_t n = c->sides[CATALOG_ITEM].n_snapshot;
  const uint64_t *hidden = words_of(c, 0);
  for (size_t i = 0; i < c->board->n_mask_words; i++) {
    uint64_t of = n >= 64 * i + 64 ? UINT64_MAX : n > 64 * i ? ((uint64_t)1 << (n - 64 * i)) - 1 : 0;
    uint64_t barred = of == 0 ? UINT64_MAX : ~ev_where_word(w, 64 * i, of);
    __atomic_store_n(out + i, barred | __atomic_load_n(hidden + i, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
  }
}

/* Rows of the live table: each stands for all of its item. */
static void fill_live(const catalog *c, const ev_where *w, const ev_items_reader *r, uint64_t *out) {
  const live_side *s = &c->sides[CATALOG_ITEM];
  const char *rows = s->of_row.base; /* there is room for every row that a reader sees: it was made before the row was */
  for (uint32_t row = ev_items_next(r, 0); row != EV_NONE; row = ev_items_next(r, row + 1)) {
    uint32_t i = atomic_load_explicit((_Atomic uint32_t *)(uintptr_t)rows + row, memory_order_acquire);
    if (i-- == 0) { /* it is being written just now, or was replaced since */
      size_t len;
      const char *id = ev_items_id(r, row, &len);
      i = side_find(s, id, len);
    }
    if (i == EV_NONE || i / 64 >= c->board->n_mask_words) continue;
    uint64_t bit = (uint64_t)1 << (i % 64), *word = out + i / 64;
    uint64_t rest = __atomic_load_n(word, __ATOMIC_RELAXED) & ~bit;
    bool barred = (word_at(c, 0, i / 64) & bit) != 0 || !ev_where_holds(w, row);
    __atomic_store_n(word, barred ? rest | bit : rest, __ATOMIC_RELAXED);
  }
}

static ev_status fill(const catalog *c, const char *text, uint32_t mask) {
  ev_items *t = atomic_load_explicit(&c->sides[CATALOG_ITEM].table, memory_order_acquire);
  ev_items_reader r;
  columns x = {{0}, {0}};
  ev_where *snapshot = NULL, *live = NULL;
  if (t != NULL) ev_items_begin(&r, t);
  ev_status status = gather(&x, c->snapshot, t != NULL ? &r : NULL);
  column_list a = list_of(&x.snapshot), b = list_of(&x.live);
  if (status == EV_OK) status = ev_where_compile(&snapshot, text, column_at, &a);
  if (status == EV_OK && t != NULL) status = ev_where_compile(&live, text, column_at, &b);
  if (status == EV_OK) fill_snapshot(c, snapshot, words_of(c, mask));
  if (status == EV_OK && t != NULL) fill_live(c, live, &r, words_of(c, mask));
  if (t != NULL) ev_items_end(&r);
  ev_where_free(snapshot);
  ev_where_free(live);
  ev_buf_free(&x.snapshot);
  ev_buf_free(&x.live);
  return status;
}

/* ---- Which mask ----------------------------------------------------------------------------------------*/
/* The mask of this text, current or in the making. With the lock held. */
static kept_mask *of_text(catalog *c, const char *where, size_t len) {
  uint64_t now = atomic_load_explicit(&c->generation, memory_order_acquire);
  for (int i = 1; i < MASKS_MAX; i++) {
    kept_mask *m = &c->masks[i];
    if (m->where != NULL && !m->failed && m->len == len && m->generation == now && memcmp(m->where, where, len) == 0) return m;
  }
  return NULL;
}

static kept_mask *longest_unused(catalog *c) {
  kept_mask *best = NULL;
  for (int i = 1; i < MASKS_MAX; i++) {
    kept_mask *m = &c->masks[i];
    if (m->refs == 0 && (best == NULL || m->used < best->used)) best = m;
  }
  return best;
}

ev_status catalog_where(catalog *c, const char *where, uint32_t *out) {
  *out = EV_NONE;
  if (where == NULL) {
    if (atomic_load_explicit(&c->n_hidden, memory_order_relaxed) > 0) *out = 0;
    return EV_OK;
  }
  size_t len = strlen(where);
  char *text = ev_strndup(where, len);
  if (text == NULL) return EV_ENOMEM;
  pthread_mutex_lock(&c->masks_lock);
  for (kept_mask *m; (m = of_text(c, where, len)) != NULL;) {
    m->refs++;
    m->used = ++c->clock;
    while (m->filling) pthread_cond_wait(&c->filled, &c->masks_lock);
    if (!m->failed) {
      pthread_mutex_unlock(&c->masks_lock);
      ev_free(text);
      *out = (uint32_t)(m - c->masks);
      return EV_OK;
    }
    m->refs--; /* and try it, so that the error is this thread's own */
  }
  kept_mask *m = longest_unused(c);
  if (m == NULL) {
    pthread_mutex_unlock(&c->masks_lock);
    ev_free(text);
    return ev_fail(EV_ELIMIT, "more than %d conditions at the same time", MASKS_MAX - 1);
  }
  ev_free(m->where);
  *m = (kept_mask){.where = text, .len = len, .generation = atomic_load_explicit(&c->generation, memory_order_acquire), .used = ++c->clock, .refs = 1, .filling = true};
  pthread_mutex_unlock(&c->masks_lock);
  ev_status status = fill(c, where, (uint32_t)(m - c->masks));
  pthread_mutex_lock(&c->masks_lock);
  m->filling = false;
  m->failed = status != EV_OK;
  if (m->failed) m->refs--, m->used = 0;
  pthread_cond_broadcast(&c->filled);
  pthread_mutex_unlock(&c->masks_lock);
  if (status == EV_OK) *out = (uint32_t)(m - c->masks);
  return status;
}

void catalog_release(catalog *c, uint32_t number) {
  if (number == EV_NONE || number == 0 || number >= MASKS_MAX) return;
  pthread_mutex_lock(&c->masks_lock);
  if (c->masks[number].refs > 0) c->masks[number].refs--;
  pthread_mutex_unlock(&c->masks_lock);
}
