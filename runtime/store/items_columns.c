/* items_columns.c - feature columns of the live table, by row, and the view of them that readers are given.
 *
 * A column is made by its first value; rows before it are missing. Values lie in regions, so a reader's pointers hold while the
 * column grows. Lists lie in a pool, in pieces whose lengths are powers of two; a piece that nobody reads any more is used again.
 * The vocabulary only grows; a snapshot leaves out what no row uses. */
#include <math.h>
#include <string.h>

#include "items.h"

/* ---- Columns --------------------------------------------------------------------------------------------*/
void items_column_free(items_column *c) {
  ev_region_close(&c->values);
  ev_region_close(&c->lengths);
  ev_region_close(&c->pool);
  ev_ids_close(&c->tokens);
  ev_free(c);
}

static size_t value_bytes(ev_column_type type) { return type == EV_TOKEN_LIST ? sizeof(uint64_t) : sizeof(uint32_t); }

ev_status items_column_room(items_table *t, items_column *c, size_t from) {
  EV_TRY(ev_region_grow(&c->values, t->capacity * value_bytes(c->type)));
  if (c->type == EV_TOKEN_LIST) return ev_region_grow(&c->lengths, t->capacity * sizeof(uint32_t)); /* zeros: nothing */
  for (size_t i = from; i < t->capacity; i++) {
    if (c->type == EV_FLOAT) ((float *)(void *)c->values.base)[i] = NAN;
    else ((uint32_t *)(void *)c->values.base)[i] = EV_NONE;
  }
  return EV_OK;
}

ev_status items_column_new(items_table *t, const char *name, size_t len, ev_column_type type, items_column **out) {
  if (t->n_columns == ITEMS_COLUMNS_MAX) return ev_fail(EV_ELIMIT, "field '%.*s': a table has at most %d columns", (int)len, name, ITEMS_COLUMNS_MAX);
  items_column *c = ev_zalloc(1, sizeof *c);
  if (c == NULL) return EV_ENOMEM;
  memcpy(c->name, name, len);
  c->type = type;
  *out = t->columns[t->n_columns++] = c;
  t->view_changed = true;
  return EV_OK;
}

ev_status items_column_open(items_table *t, items_column *c) {
  EV_TRY(ev_region_open(&c->values, t->max_rows * value_bytes(c->type)));
  if (c->type == EV_TOKEN_LIST) {
    EV_TRY(ev_region_open(&c->lengths, t->max_rows * sizeof(uint32_t)));
    EV_TRY(ev_region_open(&c->pool, items_most_bytes(t)));
    EV_TRY(ev_region_grow(&c->pool, 1)); /* there is something to point to */
  }
  if (c->type != EV_FLOAT) EV_TRY(ev_ids_open(&c->tokens, items_most_tokens(t), items_most_bytes(t)));
  return items_column_room(t, c, 0);
}

static ev_status find_column(items_table *t, const items_value *v, size_t guess, items_column **out) {
  for (size_t i = 0; i < t->n_columns; i++) { /* items name their fields in the same order: the guess is nearly always right */
    items_column *c = t->columns[(guess + i) % t->n_columns];
    if (strncmp(c->name, v->name, v->name_len) != 0 || c->name[v->name_len] != '\0') continue;
    static const char *const names[] = {"a token", "a list of tokens", "a number"};
    if (c->type != v->type) return ev_fail(EV_EINVAL, "field '%s' is %s, not %s", c->name, names[c->type], names[v->type]);
    *out = c;
    return EV_OK;
  }
  EV_TRY(items_column_new(t, v->name, v->name_len, v->type, out));
  return items_column_open(t, *out);
}

static ev_status code_of(items_table *t, items_column *c, const char *token, size_t len, uint32_t *code) {
  *code = ev_ids_find(&c->tokens, token, len);
  if (*code != EV_NONE) return EV_OK;
  t->view_changed = true;
  ev_status status = ev_ids_add(&c->tokens, token, len, t->epochs, code);
  return status == EV_ELIMIT ? ev_fail(status, "field '%s': %s", c->name, ev_error()) : status;
}

static unsigned class_of(size_t n) { /* the smallest power of two, from two on, that holds n codes */
  unsigned class = 1;
  while (((size_t)1 << class) < n) class++;
  return class;
}

static ev_status pool_take(items_table *t, items_column *c, size_t n, uint64_t *offset) {
  unsigned class = class_of(n);
  if (class < ITEMS_CLASSES && c->free[class] != 0) {
    *offset = c->free[class] - 1;
    memcpy(&c->free[class], c->pool.base + *offset * sizeof(uint32_t), sizeof(uint64_t));
    return EV_OK;
  }
  size_t size = (size_t)1 << class, before = c->pool.size;
  EV_TRY(ev_region_grow(&c->pool, (c->pool_used + size) * sizeof(uint32_t)));
  if (c->pool.size != before) t->view_changed = true;
  *offset = c->pool_used;
  c->pool_used += size;
  return EV_OK;
}

/* Readers have left. A piece of the snapshot is as long as its list: it serves the class below. */
static void pool_give(items_column *c, uint64_t offset, size_t n) {
  bool mapped = offset < c->pool_mapped;
  if (n < 2 && mapped) return;
  if (mapped && n > c->pool_mapped - offset) return; /* damage that was not verified */
  unsigned class = class_of(n);
  if (mapped && ((size_t)1 << class) > n) class--;
  if (class >= ITEMS_CLASSES) return;
  memcpy(c->pool.base + offset * sizeof(uint32_t), &c->free[class], sizeof(uint64_t));
  c->free[class] = offset + 1;
}

ev_status items_set_value(items_table *t, items_call *call, uint32_t row, size_t guess) {
  items_value v;
  items_column *c;
  const char *token;
  size_t len;
  uint32_t code;
  EV_TRY(items_next_value(call, &v));
  EV_TRY(find_column(t, &v, guess, &c));
  if (v.type == EV_FLOAT) {
    ((float *)(void *)c->values.base)[row] = v.number;
    return EV_OK;
  }
  if (v.type == EV_TOKEN) {
    EV_TRY(items_next_token(call, &token, &len));
    EV_TRY(code_of(t, c, token, len, &code));
    ((uint32_t *)(void *)c->values.base)[row] = code;
    return EV_OK;
  }
  if (v.n_tokens == 0) return EV_OK;
  uint64_t *offset = (uint64_t *)(void *)c->values.base + row;
  uint32_t *length = (uint32_t *)(void *)c->lengths.base + row;
  if (*length != 0) return ev_fail(EV_ECORRUPT, "field '%s' is given twice", c->name);
  EV_TRY(pool_take(t, c, v.n_tokens, offset));
  *length = (uint32_t)v.n_tokens;
  for (size_t i = 0; i < v.n_tokens; i++) { /* a failure in between leaves codes of nobody's row */
    EV_TRY(items_next_token(call, &token, &len));
    EV_TRY(code_of(t, c, token, len, &code));
    ((uint32_t *)(void *)c->pool.base)[*offset + i] = code;
  }
  return EV_OK;
}

void items_clear_values(items_table *t, uint32_t row) {
  for (size_t i = 0; i < t->n_columns; i++) {
    items_column *c = t->columns[i];
    if (c->type == EV_FLOAT) {
      ((float *)(void *)c->values.base)[row] = NAN;
    } else if (c->type == EV_TOKEN) {
      ((uint32_t *)(void *)c->values.base)[row] = EV_NONE;
    } else {
      uint32_t *length = (uint32_t *)(void *)c->lengths.base + row;
      if (*length != 0) pool_give(c, ((uint64_t *)(void *)c->values.base)[row], *length);
      *length = 0;
    }
  }
}

/* ---- Views ----------------------------------------------------------------------------------------------*/
static void show_column(const items_table *t, const items_column *c, ev_column *out) {
  *out = (ev_column){.name = c->name, .type = c->type, .n_rows = t->capacity};
  if (c->type == EV_FLOAT) {
    out->values = (const float *)(const void *)c->values.base;
    return;
  }
  out->codes = (const uint32_t *)(const void *)(c->type == EV_TOKEN ? c->values.base : c->pool.base);
  if (c->type == EV_TOKEN_LIST) {
    out->ptr = (const uint64_t *)(const void *)c->values.base;
    out->lengths = (const uint32_t *)(const void *)c->lengths.base;
    out->n_codes = c->pool.size / sizeof(uint32_t);
  }
  out->n_tokens = atomic_load_explicit(&c->tokens.n, memory_order_relaxed);
  out->token_ptr = (const uint64_t *)(const void *)c->tokens.ptr.base;
  out->token_bytes = c->tokens.bytes.base;
  out->ids = &c->tokens;
}

ev_status items_make_view(items_table *t) {
  if (!t->view_changed) return EV_OK;
  items_view *v = ev_alloc(1, sizeof *v + t->n_columns * sizeof *v->columns);
  if (v == NULL) return EV_ENOMEM;
  v->next = NULL;
  v->mark = 0;
  v->n_columns = t->n_columns;
  for (size_t i = 0; i < t->n_columns; i++) show_column(t, t->columns[i], &v->columns[i]);
  ev_free(t->next_view);
  t->next_view = v;
  return EV_OK;
}
