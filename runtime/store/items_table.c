/* items_table.c - rows of the live table: made, ended, shown, taken back and used again.
 *
 * A call is applied as a list of changes, each a row made, a row ended or both; so it can be taken back from the end. What can
 * run out (memory, room, index) runs out here, before anything is written to the log: showing a call is a few stores. Rows wait
 * for their readers in queues that are strung through the rows themselves, so a row's end needs no memory either. */
#include <string.h>

#include "items.h"

static uint64_t *marks(const items_table *t) { return (uint64_t *)(void *)t->marks.base; }

/* ---- Life -----------------------------------------------------------------------------------------------*/
ev_status items_table_frame(items_table *t) {
  EV_TRY(ev_region_open(&t->heads, (4 * t->max_rows + 1) * sizeof(uint32_t)));
  EV_TRY(ev_region_open(&t->rows, t->max_rows * sizeof(items_row)));
  EV_TRY(ev_region_open(&t->words, (t->max_rows / 64 + 1) * sizeof(items_word)));
  return ev_region_open(&t->marks, t->max_rows * sizeof(uint64_t));
}

ev_status items_table_open(items_table *t, const ev_index_options *o) {
  memset(t, 0, sizeof *t);
  t->n_dims = o->n_dims;
  t->max_rows = o->max_rows;
  if (o->max_rows < 1 || o->max_rows >= EV_NONE) return ev_fail(EV_EINVAL, "max_rows %zu is not in 1 … 2^32 − 2", o->max_rows);
  if (o->n_dims > 0) EV_TRY(ev_index_new(&t->index, o));
  t->epochs = t->index != NULL ? ev_index_epochs(t->index) : ev_epochs_new();
  if (t->epochs == NULL) return EV_ENOMEM;
  EV_TRY(ev_ids_open(&t->ids, 4 * t->max_rows, items_most_bytes(t)));
  EV_TRY(items_table_frame(t));
  t->view_changed = true;
  EV_TRY(items_settle(t));
  items_show(t, 0);
  return EV_OK;
}

void items_table_close(items_table *t) {
  for (size_t i = 0; i < t->n_columns; i++) items_column_free(t->columns[i]);
  for (items_view *v = t->retired, *next; v != NULL; v = next) next = v->next, ev_free(v);
  ev_free(atomic_load(&t->view));
  ev_free(t->next_view);
  ev_ids_close(&t->ids);
  ev_region_close(&t->heads);
  ev_region_close(&t->rows);
  ev_region_close(&t->words);
  ev_region_close(&t->marks);
  ev_free(t->changes);
  ev_free(t->pending_rows);
  ev_free(t->pending);
  if (t->index == NULL) ev_epochs_free(t->epochs);
  ev_index_free(t->index);
  memset(t, 0, sizeof *t);
}

size_t items_table_bytes(const items_table *t) {
  size_t bytes = ev_ids_bytes(&t->ids) + t->heads.size + t->rows.size + t->words.size + (t->index != NULL ? ev_index_bytes(t->index) : 0);
  bytes += t->changes_cap * sizeof *t->changes + t->pending_cap * (sizeof(uint32_t) + t->n_dims * sizeof(float));
  for (size_t i = 0; i < t->n_columns; i++) {
    const items_column *c = t->columns[i];
    bytes += c->values.size + c->lengths.size + c->pool.size + (c->type != EV_FLOAT ? ev_ids_bytes(&c->tokens) : 0);
  }
  return bytes;
}

/* ---- Room -----------------------------------------------------------------------------------------------*/
ev_status items_table_room(items_table *t, size_t n_rows) {
  if (n_rows <= t->capacity) return EV_OK;
  if (n_rows > t->max_rows) return ev_fail(EV_ELIMIT, "the table holds at most %zu rows", t->max_rows);
  size_t before = t->capacity;
  EV_TRY(ev_region_grow(&t->rows, n_rows * sizeof(items_row)));
  t->capacity = t->rows.size / sizeof(items_row);
  if (t->capacity > t->max_rows) t->capacity = t->max_rows;
  ev_status status = ev_region_grow(&t->marks, t->capacity * sizeof(uint64_t));
  if (status == EV_OK) status = ev_region_grow(&t->words, (t->capacity / 64 + 1) * sizeof(items_word));
  for (size_t i = 0; i < t->n_columns && status == EV_OK; i++) status = items_column_room(t, t->columns[i], before);
  if (status != EV_OK) t->capacity = before; /* regions that have grown stay so; their new rows are filled again next time */
  else t->view_changed = true;
  return status;
}

/* ---- Queues ---------------------------------------------------------------------------------------------*/
static void push(items_table *t, items_queue *q, uint32_t row, uint64_t mark) {
  items_row_at(t, row)->next = 0;
  marks(t)[row] = mark;
  if (q->last != 0) items_row_at(t, q->last - 1)->next = row + 1;
  else q->first = row + 1;
  q->last = row + 1;
  q->n++;
}

static uint32_t pop(items_table *t, items_queue *q) {
  uint32_t row = q->first - 1;
  q->first = items_row_at(t, row)->next;
  if (q->first == 0) q->last = 0;
  q->n--;
  return row;
}

/* No reader can want the row: newer rows forget it, and so does its item. */
static void unlink_row(items_table *t, uint32_t row) {
  items_row *r = items_row_at(t, row);
  uint32_t item = r->item ^ row;
  _Atomic uint32_t *head = items_head_at(t, item);
  if ((atomic_load_explicit(head, memory_order_relaxed) ^ item) == row) atomic_store_explicit(head, EV_NONE ^ item, memory_order_release);
  if (r->newer != 0) atomic_store_explicit(&items_row_at(t, r->newer - 1)->older, 0, memory_order_release);
  uint32_t older = atomic_load_explicit(&r->older, memory_order_relaxed);
  if (older != 0) items_row_at(t, older - 1)->newer = 0;
  r->newer = 0;
  atomic_store_explicit(&r->older, 0, memory_order_relaxed);
  atomic_store_explicit(&r->begin, ITEMS_NEVER, memory_order_release);
}

void items_work_off(items_table *t, size_t most) {
  uint32_t rows[256], indexed[256];
  uint64_t passed = 0;
  while (most > 0 && t->ended.n > 0) {
    size_t n = 0, n_indexed = 0;
    while (n < 256 && n < most && t->ended.n > 0) {
      uint64_t when = marks(t)[t->ended.first - 1];
      if (when != passed && !ev_epoch_passed(t->epochs, when)) break;
      passed = when;
      rows[n++] = pop(t, &t->ended);
      if (t->index != NULL && ev_index_has(t->index, rows[n - 1])) indexed[n_indexed++] = rows[n - 1];
    }
    if (n == 0) break;
    most -= n;
    bool left = n_indexed == 0 || ev_index_delete(t->index, indexed, n_indexed) == EV_OK;
    if (left) t->n_lingering -= n_indexed;
    uint64_t mark = ev_epoch_mark(t->epochs);
    for (size_t i = 0; i < n; i++) {
      if (left) unlink_row(t, rows[i]);
      push(t, left ? &t->unlinked : &t->ended, rows[i], mark); /* else memory was short: once more, later */
    }
    if (!left) break;
  }
  for (size_t n = 0; n < 4096 && t->unlinked.n > 0 && ev_epoch_passed(t->epochs, marks(t)[t->unlinked.first - 1]); n++) {
    uint32_t row = pop(t, &t->unlinked);
    items_clear_values(t, row);
    push(t, &t->free_rows, row, 0);
  }
  for (items_view **at = &t->retired; *at != NULL;) {
    items_view *v = *at;
    if (!ev_epoch_passed(t->epochs, v->mark)) {
      at = &v->next;
      continue;
    }
    *at = v->next;
    ev_free(v);
  }
}

/* ---- Applying -------------------------------------------------------------------------------------------*/
static ev_status reserve_changes(items_table *t, size_t n) {
  size_t need = t->n_changes + n;
  if (need <= t->changes_cap) return EV_OK;
  size_t cap = need + need / 2 + 16;
  items_change *p = ev_resize(t->changes, cap, sizeof *p);
  if (p == NULL) return EV_ENOMEM;
  t->changes = p;
  t->changes_cap = cap;
  return EV_OK;
}

static ev_status reserve_pending(items_table *t, size_t n) {
  size_t need = t->n_pending + n;
  if (need <= t->pending_cap) return EV_OK;
  size_t cap = need + need / 2;
  uint32_t *rows = ev_resize(t->pending_rows, cap, sizeof *rows);
  if (rows == NULL) return EV_ENOMEM;
  t->pending_rows = rows;
  float *vectors = ev_resize(t->pending, cap, t->n_dims * sizeof *vectors);
  if (vectors == NULL) return EV_ENOMEM;
  t->pending = vectors;
  t->pending_cap = cap;
  return EV_OK;
}

/* The item's live row, with what is applied and not shown yet. Bytes that were not verified may give any number. */
static uint32_t newest(const items_table *t, uint32_t item) {
  if (item == EV_NONE) return EV_NONE;
  uint32_t row = atomic_load_explicit(items_head_at(t, item), memory_order_relaxed) ^ item;
  if (row == EV_NONE || row >= atomic_load_explicit(&t->n_rows, memory_order_relaxed)) return EV_NONE;
  const items_row *r = items_row_at(t, row);
  if (atomic_load_explicit(&r->begin, memory_order_relaxed) == ITEMS_NEVER) return EV_NONE;
  return atomic_load_explicit(&r->gone, memory_order_relaxed) == 0 ? row : EV_NONE;
}

static ev_status add_item(items_table *t, const char *id, size_t len, uint32_t *item) {
  uint32_t n = atomic_load_explicit(&t->ids.n, memory_order_relaxed);
  EV_TRY(ev_region_grow(&t->heads, (n + 1) * sizeof(uint32_t)));
  atomic_store_explicit(items_head_at(t, n), EV_NONE ^ n, memory_order_relaxed); /* before readers can find the number */
  ev_status status = ev_ids_add(&t->ids, id, len, t->epochs, item);
  return status == EV_ELIMIT ? ev_fail(status, "too many ids: those of deleted items go when the table is compacted and opened again") : status;
}

/* seq 0: what readers see stays as it is: a row that is taken back, or one that was never used */
static void set_hidden(items_table *t, uint32_t row, bool hidden, uint64_t seq) {
  items_word *w = items_word_at(t, row);
  uint64_t bit = (uint64_t)1 << row % 64, bits = atomic_load_explicit(&w->hidden, memory_order_relaxed);
  if (seq != 0) atomic_store_explicit(&w->changed, seq, memory_order_relaxed);
  atomic_store_explicit(&w->hidden, hidden ? bits | bit : bits & ~bit, memory_order_release);
}

static ev_status take_row(items_table *t, uint32_t *row) {
  if (t->free_rows.n > 0) {
    *row = pop(t, &t->free_rows);
    return EV_OK;
  }
  uint32_t n = atomic_load_explicit(&t->n_rows, memory_order_relaxed);
  EV_TRY(items_table_room(t, (size_t)n + 1));
  *row = n;
  atomic_store_explicit(&items_row_at(t, n)->begin, ITEMS_NEVER, memory_order_relaxed);
  set_hidden(t, n, true, 0);
  atomic_store_explicit(&t->n_rows, n + 1, memory_order_release);
  return EV_OK;
}

static void end_row(items_table *t, uint32_t row, uint64_t seq) {
  atomic_store_explicit(&items_row_at(t, row)->gone, seq, memory_order_release);
  set_hidden(t, row, true, seq);
  t->more_items--;
}

static ev_status put_one(items_table *t, items_call *call, const float **vector, const float *end, uint64_t seq) {
  items_record item;
  uint32_t number, row;
  EV_TRY(items_next_record(call, &item));
  number = ev_ids_find(&t->ids, item.id, item.id_len);
  if (number == EV_NONE) EV_TRY(add_item(t, item.id, item.id_len, &number));
  EV_TRY(take_row(t, &row));
  items_row *r = items_row_at(t, row);
  uint32_t head = atomic_load_explicit(items_head_at(t, number), memory_order_relaxed) ^ number, old = newest(t, number);
  if (head != EV_NONE && head >= atomic_load_explicit(&t->n_rows, memory_order_relaxed)) head = EV_NONE;
  r->item = number ^ row;
  r->newer = 0;
  atomic_store_explicit(&r->gone, 0, memory_order_relaxed);
  atomic_store_explicit(&r->older, head == EV_NONE ? 0 : head + 1, memory_order_relaxed);
  atomic_store_explicit(&r->begin, seq, memory_order_release);
  set_hidden(t, row, false, seq);
  if (head != EV_NONE) items_row_at(t, head)->newer = row + 1;
  atomic_store_explicit(items_head_at(t, number), row ^ number, memory_order_release);
  t->changes[t->n_changes++] = (items_change){row, old}; /* from here on it is taken back whatever happens */
  t->more_items++;
  if (old != EV_NONE) end_row(t, old, seq);
  for (size_t i = 0; i < item.n_fields; i++) EV_TRY(items_set_value(t, call, row, i));
  if (!item.has_vector) return EV_OK;
  if (*vector == end) return ev_fail(EV_ECORRUPT, "a call has fewer vectors than it says");
  t->pending_rows[t->n_pending] = row;
  memcpy(t->pending + t->n_pending++ * t->n_dims, *vector, t->n_dims * sizeof(float));
  *vector += t->n_dims;
  return EV_OK;
}

static ev_status delete_one(items_table *t, items_call *call, uint64_t seq) {
  items_record item;
  EV_TRY(items_next_record(call, &item));
  uint32_t old = newest(t, ev_ids_find(&t->ids, item.id, item.id_len));
  if (old == EV_NONE) return ev_fail(EV_ENOTFOUND, "item '%.*s' is not there", (int)item.id_len, item.id);
  end_row(t, old, seq);
  t->changes[t->n_changes++] = (items_change){EV_NONE, old};
  return EV_OK;
}

/* Undoes the last changes down to a mark. Rows that were made go the way of all rows: a search may hold their numbers. */
static void take_back(items_table *t, size_t n_changes, size_t n_pending, size_t n_columns) {
  uint64_t mark = t->n_changes > n_changes ? ev_epoch_mark(t->epochs) : 0;
  while (t->n_changes > n_changes) {
    items_change c = t->changes[--t->n_changes];
    if (c.old != EV_NONE) {
      atomic_store_explicit(&items_row_at(t, c.old)->gone, 0, memory_order_release);
      set_hidden(t, c.old, false, 0);
      t->more_items++;
    }
    if (c.row == EV_NONE) continue;
    items_row *r = items_row_at(t, c.row);
    uint32_t item = r->item ^ c.row, older = atomic_load_explicit(&r->older, memory_order_relaxed);
    atomic_store_explicit(items_head_at(t, item), (older == 0 ? EV_NONE : older - 1) ^ item, memory_order_release);
    if (older != 0) items_row_at(t, older - 1)->newer = 0;
    atomic_store_explicit(&r->older, 0, memory_order_relaxed);
    atomic_store_explicit(&r->begin, ITEMS_NEVER, memory_order_release);
    set_hidden(t, c.row, true, 0);
    t->more_items--;
    if (t->index != NULL && ev_index_has(t->index, c.row)) t->n_lingering++;
    push(t, &t->ended, c.row, mark);
  }
  t->n_pending = n_pending;
  while (t->n_columns > n_columns) items_column_free(t->columns[--t->n_columns]); /* no view has them yet */
}

void items_take_back(items_table *t) {
  take_back(t, 0, 0, t->shown_columns);
  if (t->next_view == NULL) return;
  ev_free(t->next_view);
  t->next_view = NULL;
  t->view_changed = true;
}

ev_status items_apply(items_table *t, const void *payload, size_t len, uint64_t seq) {
  size_t n_changes = t->n_changes, n_pending = t->n_pending, n_columns = t->n_columns;
  items_call call;
  EV_TRY(items_call_read(&call, payload, len, t->n_dims));
  EV_TRY(reserve_changes(t, call.n));
  if (call.n_vectors > 0) EV_TRY(reserve_pending(t, call.n_vectors));
  const float *vector = call.vectors, *end = call.vectors + call.n_vectors * t->n_dims;
  ev_status status = EV_OK;
  for (uint32_t i = 0; i < call.n && status == EV_OK; i++)
    status = call.kind == ITEMS_DELETE ? delete_one(t, &call, seq) : put_one(t, &call, &vector, end, seq);
  if (status == EV_OK && vector != end) status = ev_fail(EV_ECORRUPT, "a call has more vectors than it says");
  if (status == EV_OK) status = items_call_end(&call);
  if (status != EV_OK) take_back(t, n_changes, n_pending, n_columns);
  return status;
}

ev_status items_settle(items_table *t) {
  EV_TRY(items_make_view(t));
  size_t n = 0;
  for (size_t i = 0; i < t->n_pending; i++) { /* a row that is gone before it was ever shown need not enter the index */
    if (atomic_load_explicit(&items_row_at(t, t->pending_rows[i])->gone, memory_order_relaxed) != 0) continue;
    if (n < i) memcpy(t->pending + n * t->n_dims, t->pending + i * t->n_dims, t->n_dims * sizeof(float));
    t->pending_rows[n++] = t->pending_rows[i];
  }
  t->n_pending = n;
  if (n > 0) EV_TRY(ev_index_put(t->index, t->pending_rows, t->pending, n));
  t->n_pending = 0;
  return EV_OK;
}

void items_show(items_table *t, uint64_t state) {
  items_view *old = NULL;
  if (t->next_view != NULL) {
    old = atomic_load_explicit(&t->view, memory_order_relaxed);
    atomic_store_explicit(&t->view, t->next_view, memory_order_release); /* before the state: no reader has a newer state than view */
    t->next_view = NULL;
    t->view_changed = false;
  }
  t->shown_columns = t->n_columns;
  atomic_store_explicit(&t->state, state, memory_order_release);
  atomic_store_explicit(&t->n_items, (size_t)((ptrdiff_t)atomic_load_explicit(&t->n_items, memory_order_relaxed) + t->more_items), memory_order_relaxed);
  t->more_items = 0;
  uint64_t mark = t->n_changes > 0 || old != NULL ? ev_epoch_mark(t->epochs) : 0;
  for (size_t i = 0; i < t->n_changes; i++) {
    uint32_t row = t->changes[i].old;
    if (row == EV_NONE) continue;
    if (t->index != NULL && ev_index_has(t->index, row)) t->n_lingering++;
    push(t, &t->ended, row, mark);
  }
  t->n_changes = 0;
  if (t->index != NULL) atomic_store_explicit(&t->n_vectors, ev_index_n(t->index) - t->n_lingering, memory_order_relaxed);
  if (old == NULL) return;
  old->next = t->retired;
  old->mark = mark;
  t->retired = old;
}
