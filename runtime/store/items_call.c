/* items_call.c - a put or a delete as the bytes of a log record, and back.
 *
 * Encoding checks what a caller gave and names what is wrong; nothing of a bad call gets as far as the queue. Decoding trusts
 * nothing: the bytes may come from a file that was made to do harm. Layout: items.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "index.h"
#include "items.h"

#define FIELDS_MAX 65535

/* ---- Encoding ------------------------------------------------------------------------------------------*/
static ev_status append_u16(ev_buf *b, uint16_t x) { return ev_buf_append(b, &x, sizeof x); }
static ev_status append_u32(ev_buf *b, uint32_t x) { return ev_buf_append(b, &x, sizeof x); }
static ev_status append_u8(ev_buf *b, uint8_t x) { return ev_buf_append(b, &x, sizeof x); }

static ev_status check_id(const char *id, size_t *len) {
  if (id == NULL) return ev_fail(EV_EINVAL, "an item without an id");
  *len = strnlen(id, 256);
  if (*len == 0) return ev_fail(EV_EINVAL, "an item's id is empty");
  if (*len == 256) return ev_fail(EV_EINVAL, "an item's id is longer than 255 bytes: '%.40s…'", id);
  if (ev_utf8_invalid(id, *len) != *len) return ev_fail(EV_EINVAL, "an item's id is not UTF-8");
  return EV_OK;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* names (n): sorted here. Ids of a call and fields of an item are told apart alike. */
static const char *twice(const char **names, size_t n) {
  qsort(names, n, sizeof *names, by_text);
  for (size_t i = 1; i < n; i++)
    if (strcmp(names[i - 1], names[i]) == 0) return names[i];
  return NULL;
}

static ev_status append_token(ev_buf *b, const ev_item *item, const ev_field *f, const char *token) {
  size_t len = token == NULL ? 0 : strnlen(token, 65536);
  if (token == NULL) return ev_fail(EV_EINVAL, "item '%s': field '%s' has no token", item->id, f->name);
  if (len > 65535) return ev_fail(EV_EINVAL, "item '%s': a token of field '%s' is longer than 65535 bytes", item->id, f->name);
  if (ev_utf8_invalid(token, len) != len) return ev_fail(EV_EINVAL, "item '%s': field '%s' is not UTF-8", item->id, f->name);
  EV_TRY(append_u16(b, (uint16_t)len));
  return ev_buf_append(b, token, len);
}

static ev_status append_field(ev_buf *b, const ev_item *item, const ev_field *f) {
  size_t len = f->name == NULL ? 0 : strnlen(f->name, 48);
  if (len == 0 || len == 48) return ev_fail(EV_EINVAL, "item '%s': a field's name has 1 to 47 bytes: '%.60s'", item->id, f->name == NULL ? "" : f->name);
  if (ev_utf8_invalid(f->name, len) != len) return ev_fail(EV_EINVAL, "item '%s': a field's name is not UTF-8", item->id);
  EV_TRY(append_u8(b, (uint8_t)len));
  EV_TRY(append_u8(b, (uint8_t)f->type));
  EV_TRY(ev_buf_append(b, f->name, len));
  if (f->type == EV_FLOAT) {
    float x = (float)f->number;
    if (!isfinite(x)) return ev_fail(EV_EINVAL, "item '%s': field '%s' is %g: not a finite float32", item->id, f->name, f->number);
    return ev_buf_append(b, &x, sizeof x);
  }
  if (f->type == EV_TOKEN) {
    if (f->tokens == NULL) return ev_fail(EV_EINVAL, "item '%s': field '%s' has no token", item->id, f->name);
    return append_token(b, item, f, f->tokens[0]);
  }
  if (f->type != EV_TOKEN_LIST) return ev_fail(EV_EINVAL, "item '%s': field '%s' is of no type", item->id, f->name);
  if (f->n_tokens > ITEMS_CALL_MAX / 2) return ev_fail(EV_ELIMIT, "item '%s': field '%s' has too many tokens", item->id, f->name);
  EV_TRY(append_u32(b, (uint32_t)f->n_tokens));
  for (size_t i = 0; i < f->n_tokens; i++) EV_TRY(append_token(b, item, f, f->tokens[i]));
  return EV_OK;
}

static ev_status check_fields(const ev_item *item, const char **names) {
  if (item->n_fields < 2) return EV_OK;
  for (size_t k = 0; k < item->n_fields; k++) {
    if (item->fields[k].name == NULL) return ev_fail(EV_EINVAL, "item '%s': a field without a name", item->id);
    names[k] = item->fields[k].name;
  }
  const char *same = twice(names, item->n_fields);
  return same == NULL ? EV_OK : ev_fail(EV_EINVAL, "item '%s': field '%s' is given twice", item->id, same);
}

static ev_status append_vectors(ev_buf *b, const ev_item *items, size_t n, const ev_index *x) {
  size_t n_dims = x == NULL ? 0 : x->d;
  for (size_t i = 0; i < n; i++) {
    if (items[i].vector == NULL) continue;
    if (n_dims == 0) return ev_fail(EV_EINVAL, "item '%s' has a vector, and the table has none", items[i].id);
    ev_status status = ev_index_check_vectors(x, "vector", NULL, items[i].vector, 1, true);
    if (status != EV_OK) return ev_fail(status, "item '%s': %s", items[i].id, ev_error() + strlen("vector 0: "));
    if (b->len > ITEMS_CALL_MAX) return ev_fail(EV_ELIMIT, "one call holds at most %zu bytes", ITEMS_CALL_MAX);
    EV_TRY(ev_buf_append(b, items[i].vector, n_dims * sizeof(float)));
  }
  return EV_OK;
}

static ev_status finish(ev_buf *b, size_t start) {
  static const char zeros[8];
  EV_TRY(ev_buf_append(b, zeros, -(b->len - start) % 8));
  return b->len - start > ITEMS_CALL_MAX ? ev_fail(EV_ELIMIT, "one call holds at most %zu bytes", ITEMS_CALL_MAX) : EV_OK;
}

ev_status items_encode_put(ev_buf *b, const ev_item *items, size_t n, const ev_index *x) {
  size_t start = b->len, most = n, len;
  if (n > ITEMS_CALL_MAX / 8) return ev_fail(EV_ELIMIT, "one call holds at most %zu bytes", ITEMS_CALL_MAX);
  uint32_t head[4] = {ITEMS_PUT, (uint32_t)n, 0, 0};
  for (size_t i = 0; i < n; i++) {
    EV_TRY(check_id(items[i].id, &len));
    if (items[i].n_fields > FIELDS_MAX) return ev_fail(EV_EINVAL, "item '%s' has %zu fields", items[i].id, items[i].n_fields);
    if (items[i].n_fields > most) most = items[i].n_fields;
    head[2] += items[i].vector != NULL;
  }
  const char **names = ev_alloc(most, sizeof *names);
  if (names == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < n; i++) names[i] = items[i].id;
  const char *same = n > 1 ? twice(names, n) : NULL;
  ev_status status = same != NULL ? ev_fail(EV_EINVAL, "item '%s' is given twice in one call", same) : ev_buf_append(b, head, sizeof head);
  if (status == EV_OK) status = append_vectors(b, items, n, x);
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    const ev_item *item = &items[i];
    len = strlen(item->id);
    status = check_fields(item, names);
    if (status == EV_OK) status = append_u8(b, (uint8_t)len);
    if (status == EV_OK) status = append_u8(b, item->vector != NULL);
    if (status == EV_OK) status = append_u16(b, (uint16_t)item->n_fields);
    if (status == EV_OK) status = ev_buf_append(b, item->id, len);
    for (size_t k = 0; k < item->n_fields && status == EV_OK; k++) status = append_field(b, item, &item->fields[k]);
    if (status == EV_OK && b->len - start > ITEMS_CALL_MAX) status = ev_fail(EV_ELIMIT, "one call holds at most %zu bytes", ITEMS_CALL_MAX);
  }
  ev_free(names);
  return status == EV_OK ? finish(b, start) : status;
}

ev_status items_encode_delete(ev_buf *b, const char *const *ids, size_t n) {
  size_t start = b->len, len;
  if (n > ITEMS_CALL_MAX / 8) return ev_fail(EV_ELIMIT, "one call holds at most %zu bytes", ITEMS_CALL_MAX);
  const uint32_t head[4] = {ITEMS_DELETE, (uint32_t)n, 0, 0};
  for (size_t i = 0; i < n; i++) EV_TRY(check_id(ids[i], &len));
  const char **names = ev_alloc(n, sizeof *names);
  if (names == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < n; i++) names[i] = ids[i];
  const char *same = twice(names, n);
  ev_status status = same != NULL ? ev_fail(EV_EINVAL, "item '%s' is given twice in one call", same) : ev_buf_append(b, head, sizeof head);
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    len = strlen(ids[i]);
    status = append_u8(b, (uint8_t)len);
    if (status == EV_OK) status = ev_buf_append(b, ids[i], len);
  }
  ev_free(names);
  return status == EV_OK ? finish(b, start) : status;
}

/* ---- Decoding ------------------------------------------------------------------------------------------*/
static const void *take(items_cursor *c, size_t n) { /* NULL: there are fewer */
  if (c->short_of || (size_t)(c->end - c->at) < n) {
    c->short_of = true;
    return NULL;
  }
  const void *p = c->at;
  c->at += n;
  return p;
}

static uint32_t take_number(items_cursor *c, size_t bytes) {
  uint32_t x = 0;
  const void *p = take(c, bytes);
  if (p != NULL) memcpy(&x, p, bytes);
  return x;
}

static ev_status cut_short(void) { return ev_fail(EV_ECORRUPT, "a call ends before it should"); }

ev_status items_call_read(items_call *out, const void *payload, size_t len, size_t n_dims) {
  *out = (items_call){.rest = {payload, (const uint8_t *)payload + len, false}};
  out->kind = take_number(&out->rest, 4);
  out->n = take_number(&out->rest, 4);
  out->n_vectors = take_number(&out->rest, 4);
  uint32_t zero = take_number(&out->rest, 4);
  if (out->rest.short_of || len % 8 != 0) return cut_short();
  if ((out->kind != ITEMS_PUT && out->kind != ITEMS_DELETE) || zero != 0 || out->n > len || out->n_vectors > out->n ||
      (out->n_vectors > 0 && (n_dims == 0 || out->kind != ITEMS_PUT)))
    return ev_fail(EV_ECORRUPT, "a call that makes no sense");
  out->vectors = take(&out->rest, out->n_vectors * n_dims * sizeof(float)); /* 2^32 vectors of 2^16 floats: no overflow */
  return out->rest.short_of ? cut_short() : EV_OK;
}

ev_status items_next_record(items_call *c, items_record *out) {
  *out = (items_record){.id_len = take_number(&c->rest, 1)};
  if (c->kind == ITEMS_PUT) {
    uint32_t flags = take_number(&c->rest, 1);
    if (flags > 1) return ev_fail(EV_ECORRUPT, "an item's flags make no sense");
    out->has_vector = flags != 0;
    out->n_fields = take_number(&c->rest, 2);
  }
  out->id = take(&c->rest, out->id_len);
  if (c->rest.short_of) return cut_short();
  if (out->id_len == 0 || memchr(out->id, '\0', out->id_len) != NULL || ev_utf8_invalid(out->id, out->id_len) != out->id_len)
    return ev_fail(EV_ECORRUPT, "an item's id is none");
  return EV_OK;
}

ev_status items_next_value(items_call *c, items_value *out) {
  *out = (items_value){.name_len = take_number(&c->rest, 1)};
  uint32_t type = take_number(&c->rest, 1);
  out->name = take(&c->rest, out->name_len);
  if (c->rest.short_of) return cut_short();
  if (type > EV_FLOAT || out->name_len == 0 || out->name_len > 47 || memchr(out->name, '\0', out->name_len) != NULL ||
      ev_utf8_invalid(out->name, out->name_len) != out->name_len)
    return ev_fail(EV_ECORRUPT, "a field that makes no sense");
  out->type = (ev_column_type)type;
  if (type == EV_FLOAT) {
    const void *p = take(&c->rest, sizeof out->number);
    if (p != NULL) memcpy(&out->number, p, sizeof out->number);
    if (p != NULL && !isfinite(out->number)) return ev_fail(EV_ECORRUPT, "a number that is not finite");
  } else {
    out->n_tokens = type == EV_TOKEN ? 1 : take_number(&c->rest, 4);
    if (out->n_tokens > (size_t)(c->rest.end - c->rest.at) / 2) return cut_short(); /* each has a length of two bytes */
  }
  return c->rest.short_of ? cut_short() : EV_OK;
}

ev_status items_next_token(items_call *c, const char **token, size_t *len) {
  *len = take_number(&c->rest, 2);
  *token = take(&c->rest, *len);
  if (c->rest.short_of) return cut_short();
  if (memchr(*token, '\0', *len) != NULL || ev_utf8_invalid(*token, *len) != *len) return ev_fail(EV_ECORRUPT, "a token that is none");
  return EV_OK;
}

ev_status items_call_end(const items_call *c) {
  if (c->rest.end - c->rest.at >= 8) return ev_fail(EV_ECORRUPT, "a call goes on behind its end");
  for (const uint8_t *p = c->rest.at; p < c->rest.end; p++)
    if (*p != 0) return ev_fail(EV_ECORRUPT, "a call goes on behind its end");
  return EV_OK;
}
