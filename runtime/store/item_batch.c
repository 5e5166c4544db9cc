/* item_batch.c - items under construction.
 *
 * Everything is kept by offset while the buffers grow (and move); pointers are made once, when the batch is asked for. */
#include <stdio.h>
#include <string.h>

#include "store.h"

typedef struct item {
  size_t id;            /* offset into text */
  size_t vector, dims;  /* offset into vectors; dims 0: none */
  size_t field, n_fields;
  size_t token;         /* how many there were before */
} item;

typedef struct field {
  size_t name;          /* offset into text */
  ev_column_type type;
  double number;
  size_t token, n_tokens;
} field;

struct ev_item_batch {
  ev_buf text, vectors;          /* strings, each with its NUL; floats */
  ev_buf items, fields, tokens;  /* of item, field, size_t (offsets into text) */
  ev_buf out_items, out_fields, out_tokens; /* as a put wants them */
};

#define N(buf, type) ((buf).len / sizeof(type))
#define AT(buf, type, i) (&((type *)(void *)(buf).data)[i])
#define LAST(buf, type) AT(buf, type, N(buf, type) - 1)

ev_item_batch *ev_item_batch_new(void) { return ev_zalloc(1, sizeof(ev_item_batch)); }

void ev_item_batch_free(ev_item_batch *b) {
  if (b == NULL) return;
  ev_buf *all[] = {&b->text, &b->vectors, &b->items, &b->fields, &b->tokens, &b->out_items, &b->out_fields, &b->out_tokens};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ev_buf_free(all[i]);
  ev_free(b);
}

void ev_item_batch_clear(ev_item_batch *b) {
  ev_buf *all[] = {&b->text, &b->vectors, &b->items, &b->fields, &b->tokens};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ev_buf_clear(all[i]);
}

size_t ev_item_batch_n(const ev_item_batch *b) { return N(b->items, item); }

size_t ev_item_batch_dims(const ev_item_batch *b) {
  for (size_t i = 0; i < N(b->items, item); i++)
    if (AT(b->items, item, i)->dims > 0) return AT(b->items, item, i)->dims;
  return 0;
}

static ev_status keep(ev_item_batch *b, const char *what, const char *s, size_t len, size_t *at) {
  if (memchr(s, '\0', len) != NULL) return ev_fail(EV_EINVAL, "%s with a NUL character: '%.40s…'", what, s);
  *at = b->text.len;
  EV_TRY(ev_buf_append(&b->text, s, len));
  return ev_buf_append(&b->text, "", 1);
}

ev_status ev_item_batch_add(ev_item_batch *b, const char *id, size_t len) {
  item x = {.vector = N(b->vectors, float), .field = N(b->fields, field), .token = N(b->tokens, size_t)};
  EV_TRY(keep(b, "an id", id, len, &x.id));
  return ev_buf_append(&b->items, &x, sizeof x);
}

void ev_item_batch_drop(ev_item_batch *b) {
  const item *x = LAST(b->items, item);
  b->text.len = x->id;
  b->vectors.len = x->vector * sizeof(float);
  b->fields.len = x->field * sizeof(field);
  b->tokens.len = x->token * sizeof(size_t);
  b->items.len -= sizeof *x;
}

ev_status ev_item_batch_vector(ev_item_batch *b, size_t n, float **out) {
  item *x = LAST(b->items, item);
  EV_TRY(ev_buf_reserve(&b->vectors, n * sizeof(float)));
  x->vector = N(b->vectors, float);
  x->dims = n;
  *out = AT(b->vectors, float, x->vector);
  b->vectors.len += n * sizeof(float);
  return EV_OK;
}

ev_status ev_item_batch_field(ev_item_batch *b, const char *name, size_t len, ev_column_type type, double number) {
  field f = {.type = type, .number = number, .token = N(b->tokens, size_t)};
  EV_TRY(keep(b, "a field's name", name, len, &f.name));
  EV_TRY(ev_buf_append(&b->fields, &f, sizeof f));
  LAST(b->items, item)->n_fields++;
  return EV_OK;
}

ev_status ev_item_batch_token(ev_item_batch *b, const char *s, size_t len) {
  size_t at;
  EV_TRY(keep(b, "a text", s, len, &at));
  EV_TRY(ev_buf_append(&b->tokens, &at, sizeof at));
  LAST(b->fields, field)->n_tokens++;
  return EV_OK;
}

ev_status ev_item_batch_get(ev_item_batch *b, size_t n_dims, const ev_item **items) {
  size_t n = N(b->items, item), n_fields = N(b->fields, field), n_tokens = N(b->tokens, size_t);
  ev_buf_clear(&b->out_items);
  ev_buf_clear(&b->out_fields);
  ev_buf_clear(&b->out_tokens);
  EV_TRY(ev_buf_reserve(&b->out_items, n * sizeof(ev_item)));
  EV_TRY(ev_buf_reserve(&b->out_fields, n_fields * sizeof(ev_field)));
  EV_TRY(ev_buf_reserve(&b->out_tokens, n_tokens * sizeof(char *)));
  const char **tokens = AT(b->out_tokens, const char *, 0);
  ev_field *fields = AT(b->out_fields, ev_field, 0);
  ev_item *out = AT(b->out_items, ev_item, 0);
  for (size_t i = 0; i < n_tokens; i++) tokens[i] = b->text.data + *AT(b->tokens, size_t, i);
  for (size_t i = 0; i < n_fields; i++) {
    const field *f = AT(b->fields, field, i);
    fields[i] = (ev_field){b->text.data + f->name, f->type, f->number, tokens + f->token, f->n_tokens};
  }
  for (size_t i = 0; i < n; i++) {
    const item *x = AT(b->items, item, i);
    const char *id = b->text.data + x->id;
    if (x->dims > 0 && n_dims == 0) return ev_fail(EV_EINVAL, "item '%.80s' has a vector; this table was made without", id);
    if (x->dims > 0 && x->dims != n_dims) return ev_fail(EV_EINVAL, "item '%.80s': a vector of %zu numbers; those of this table have %zu", id, x->dims, n_dims);
    out[i] = (ev_item){id, x->dims > 0 ? AT(b->vectors, float, x->vector) : NULL, fields + x->field, x->n_fields};
  }
  *items = out;
  return EV_OK;
}
