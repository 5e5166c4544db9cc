/* items_read.c - readers of the live table.
 *
 * A reader enters an epoch and takes the number of the last call shown; from then on it sees the rows of that state, whatever is
 * written meanwhile, and every pointer it is given holds: rows that it could see are not used again before it leaves.
 *
 * A search must see each item once. The index holds every row that this reader sees (rows leave it only after the reader has),
 * and some that it does not: newer ones, and older ones on their way out. These are few. So a search without a condition asks the
 * index for a few rows more than k and drops what is not of its state; only where that leaves too few does it search again and
 * ask of every candidate. With a condition it asks anyway; where the whole table is going to be scanned, 64 rows together. */
#include <math.h>
#include <string.h>

#include "items.h"

#define SPARE 16         /* rows asked for beyond k */
#define SAMPLE 512       /* rows that a condition is tried on first */
#define SCAN_SHARE 0.02  /* a condition that fewer hold is tried on all rows, to scan what is left: a graph is lost among so few */

void ev_items_begin(ev_items_reader *r, const ev_items *t) {
  r->table = t;
  r->place = ev_epoch_enter(t->table.epochs);
  r->state = atomic_load_explicit(&t->table.state, memory_order_acquire);
  r->view = atomic_load_explicit(&t->table.view, memory_order_acquire);
}

void ev_items_end(ev_items_reader *r) {
  ev_epoch_leave(r->table->table.epochs, r->place);
  *r = (ev_items_reader){0};
}

static uint32_t n_rows(const ev_items_reader *r) { return atomic_load_explicit(&r->table->table.n_rows, memory_order_acquire); }

uint32_t ev_items_find(const ev_items_reader *r, const char *id, size_t len) {
  const items_table *t = &r->table->table;
  uint32_t item = ev_ids_find(&t->ids, id, len);
  if (item == EV_NONE) return EV_NONE;
  uint32_t row = atomic_load_explicit(items_head_at(t, item), memory_order_acquire) ^ item;
  while (row != EV_NONE) { /* from the newest on: rows that this reader is too old for, then the one of its time */
    const items_row *x = items_row_at(t, row);
    if (atomic_load_explicit(&x->begin, memory_order_acquire) <= r->state) return items_visible(t, row, r->state) ? row : EV_NONE;
    row = atomic_load_explicit(&x->older, memory_order_acquire) - 1; /* 0 → EV_NONE */
  }
  return EV_NONE;
}

uint32_t ev_items_next(const ev_items_reader *r, uint32_t row) {
  uint32_t n = n_rows(r);
  for (; row < n; row++)
    if (items_visible(&r->table->table, row, r->state)) return row;
  return EV_NONE;
}

const char *ev_items_id(const ev_items_reader *r, uint32_t row, size_t *len) {
  const items_table *t = &r->table->table;
  return ev_ids_get(&t->ids, row < n_rows(r) ? items_item_of(t, row) : EV_NONE, len);
}

ev_status ev_items_vector(const ev_items_reader *r, uint32_t row, float *out) {
  const items_table *t = &r->table->table;
  size_t len;
  if (t->index != NULL && row < n_rows(r) && ev_index_has(t->index, row)) return ev_index_get(t->index, row, out);
  const char *id = ev_items_id(r, row, &len);
  return ev_fail(EV_ENOTFOUND, "item '%.*s' has no vector", (int)len, id);
}

static const items_view *view_of(const ev_items_reader *r) { return r->view; }
size_t ev_items_n_columns(const ev_items_reader *r) { return view_of(r)->n_columns; }
const ev_column *ev_items_column_at(const ev_items_reader *r, size_t i) { return &view_of(r)->columns[i]; }

/* ---- Search ---------------------------------------------------------------------------------------------*/
typedef struct condition {
  const ev_items_reader *r;
  const ev_where *where; /* NULL: none */
} condition;

static const ev_column *column_at(void *ctx, size_t i) {
  const items_view *v = view_of(ctx);
  return i < v->n_columns ? &v->columns[i] : NULL;
}

static bool holds(void *ctx, uint32_t row) {
  const condition *c = ctx;
  return items_visible(&c->r->table->table, row, c->r->state) && (c->where == NULL || ev_where_holds(c->where, row));
}

static double share_of(condition *c, uint32_t n) { /* of the rows there are, by a sample */
  size_t step = n / SAMPLE + 1, looked = 0, held = 0;
  for (size_t row = 0; row < n; row += step, looked++) held += holds(c, (uint32_t)row);
  return looked == 0 ? 1 : ((double)held + 0.5) / ((double)looked + 1);
}

/* Which of the rows row … row + n − 1, row a multiple of 64, the reader sees. */
static uint64_t seen_of(const ev_items_reader *r, uint32_t row, uint32_t n) {
  const items_table *t = &r->table->table;
  const items_word *w = items_word_at(t, row);
  uint64_t seen = ~atomic_load_explicit(&w->hidden, memory_order_acquire);
  if (n < 64) seen &= ((uint64_t)1 << n) - 1;
  if (atomic_load_explicit(&w->changed, memory_order_relaxed) <= r->state) return seen;
  seen = 0;
  for (uint32_t i = 0; i < n; i++) seen |= (uint64_t)items_visible(t, row + i, r->state) << i;
  return seen;
}

/* A bit for each row that holds. Rows of a word are judged together when all of them are seen: others may be in the making. */
static uint64_t *all_that_hold(condition *c, uint32_t n) {
  uint64_t *bits = ev_alloc((n + 63u) / 64u, sizeof *bits);
  for (uint32_t row = 0; bits != NULL && row < n; row += 64) {
    uint64_t seen = seen_of(c->r, row, n - row < 64 ? n - row : 64), held = 0;
    if (seen == UINT64_MAX) held = ev_where_word(c->where, row, seen);
    else
      for (uint64_t left = seen; left != 0; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        held |= (uint64_t)ev_where_holds(c->where, row + i) << i;
      }
    bits[row / 64] = held;
  }
  return bits;
}

/* Without a condition. *done false: too few were left for some query. */
static ev_status search_freely(const ev_items_reader *r, const float *q, size_t m, const ev_search *s, uint32_t *rows, float *scores, bool *done) {
  const items_table *t = &r->table->table;
  ev_search wider = *s;
  wider.k = s->k + SPARE;
  *done = false;
  uint32_t *more_rows = ev_alloc(m, wider.k * sizeof *more_rows);
  float *more_scores = ev_alloc(m, wider.k * sizeof *more_scores);
  ev_status status = more_rows == NULL || more_scores == NULL ? EV_ENOMEM : ev_index_search(t->index, q, m, &wider, more_rows, more_scores);
  for (size_t i = 0; i < m && status == EV_OK; i++) {
    const uint32_t *from = more_rows + i * wider.k;
    size_t used = 0, at = 0;
    for (; at < wider.k && from[at] != EV_NONE && used < s->k; at++) {
      if (!items_visible(t, from[at], r->state)) continue;
      rows[i * s->k + used] = from[at];
      scores[i * s->k + used++] = more_scores[i * wider.k + at];
    }
    if (used < s->k && at == wider.k) break; /* there may be more */
    for (; used < s->k; used++) rows[i * s->k + used] = EV_NONE, scores[i * s->k + used] = -INFINITY;
    *done = i + 1 == m;
  }
  ev_free(more_rows);
  ev_free(more_scores);
  return status;
}

ev_status ev_items_search(const ev_items_reader *r, const float *q, size_t m, const ev_search *s, const char *where, uint32_t *rows, float *scores) {
  const items_table *t = &r->table->table;
  if (t->index == NULL) return ev_fail(EV_EINVAL, "%s: the table has no vectors", r->table->folder);
  condition c = {r, NULL};
  ev_search own = {.k = s->k, .effort = s->effort, .seen_ptr = s->seen_ptr, .seen = s->seen, .n_looked_at = s->n_looked_at};
  if (m == 0 || s->k == 0) return EV_OK;
  if (where == NULL) {
    bool done;
    ev_status status = search_freely(r, q, m, &own, rows, scores, &done);
    if (status != EV_OK || done) return status;
  }
  ev_where *compiled = NULL;
  uint64_t *bits = NULL;
  if (where != NULL) EV_TRY(ev_where_compile(&compiled, where, column_at, (void *)(uintptr_t)r));
  c.where = compiled;
  uint32_t n = n_rows(r);
  own.pass = holds;
  own.pass_ctx = &c;
  own.pass_share = where != NULL ? share_of(&c, n) : 0;
  ev_status status = EV_OK;
  if (where != NULL && (strcmp(ev_index_opts(t->index)->kind, "flat") == 0 || own.pass_share < SCAN_SHARE || m >= 64)) {
    own.allowed = bits = all_that_hold(&c, n);
    own.n_allowed = n;
    own.pass = NULL;
    own.pass_share = 0;
    if (bits == NULL) status = EV_ENOMEM;
  }
  if (status == EV_OK) status = ev_index_search(t->index, q, m, &own, rows, scores);
  ev_free(bits);
  ev_where_free(compiled);
  return status;
}
