/* events.c - the body of POST /events, checked whole before anything is kept. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "inside.h"

#define EVENTS_MAX 10000
#define TEXT_MAX 256

const char *item_title(const ev_snapshot *s, uint32_t item, ev_buf *scratch) {
  for (size_t i = 0; i < ev_snapshot_n_columns(s, EV_ITEM); i++) {
    const ev_column *c = ev_snapshot_column_at(s, EV_ITEM, i);
    size_t n = strlen(c->name), len;
    bool named = (n >= 4 && strcasecmp(c->name + n - 4, "name") == 0) || strstr(c->name, "title") != NULL || strstr(c->name, "Title") != NULL;
    if (!named || c->type == EV_FLOAT || item >= c->n_rows) continue;
    uint64_t begin = c->type == EV_TOKEN_LIST ? c->ptr[item] : item, end = c->type == EV_TOKEN_LIST ? c->ptr[item + 1] : item + 1;
    ev_buf_clear(scratch);
    for (uint64_t k = begin; k < end; k++) {
      if (c->codes[k] == EV_NONE) continue;
      const char *token = ev_column_token(c, c->codes[k], &len);
      if ((scratch->len > 0 && ev_buf_append(scratch, " ", 1) != EV_OK) || ev_buf_append(scratch, token, len) != EV_OK) return NULL;
    }
    return scratch->len > 0 ? scratch->data : NULL;
  }
  return NULL;
}

static ev_status text_field(const json_t *o, size_t i, const char *key, const char *fallback, const char **out) {
  const json_t *v = json_object_get(o, key);
  *out = fallback;
  if (v == NULL && fallback != NULL) return EV_OK;
  if (!json_is_string(v)) return ev_fail(EV_EINVAL, "event %zu: %s must be text", i, key);
  *out = json_string_value(v);
  size_t n = json_string_length(v);
  if (n == 0 || n > TEXT_MAX || strlen(*out) != n) return ev_fail(EV_EINVAL, "event %zu: %s must have 1 to %d bytes and no NUL", i, key, TEXT_MAX);
  return EV_OK;
}

static ev_status number_field(const json_t *o, size_t i, const char *key, double fallback, double *out) {
  const json_t *v = json_object_get(o, key);
  *out = v == NULL ? fallback : json_number_value(v);
  if ((v != NULL && !json_is_number(v)) || !isfinite(*out) || fabs(*out) > 9e15) return ev_fail(EV_EINVAL, "event %zu: %s must be a number", i, key);
  return EV_OK;
}

static ev_status parse_one(parsed_events *out, size_t i, const json_t *o, const ev_snapshot *s) {
  static const char *const known[] = {"id", "user", "item", "type", "value", "time", "version", "impression"};
  ev_event *e = &out->events[i];
  double time;
  const char *key;
  json_t *v;
  if (!json_is_object(o)) return ev_fail(EV_EINVAL, "event %zu: not an object", i);
  json_object_foreach((json_t *)(uintptr_t)o, key, v) {
    bool fine = false;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) fine = fine || strcmp(key, known[k]) == 0;
    if (!fine) return ev_fail(EV_EINVAL, "event %zu: no field '%.40s'; id, user, item, type, value, time, version and impression are known", i, key);
  }
  EV_TRY(text_field(o, i, "user", NULL, &e->user));
  EV_TRY(text_field(o, i, "item", NULL, &e->item));
  EV_TRY(text_field(o, i, "type", "click", &e->type));
  if (json_object_get(o, "id") != NULL) EV_TRY(text_field(o, i, "id", "", &e->id));
  if (json_object_get(o, "version") != NULL) EV_TRY(text_field(o, i, "version", "", &e->version));
  if (json_object_get(o, "impression") != NULL) EV_TRY(text_field(o, i, "impression", "", &e->impression));
  EV_TRY(number_field(o, i, "value", 1, &e->value));
  EV_TRY(number_field(o, i, "time", (double)ev_wall_ms(), &time));
  e->time_ms = (int64_t)time;
  out->items[i] = ev_snapshot_find_item(s, e->item, strlen(e->item));
  if (out->items[i] == EV_NONE) return ev_fail(EV_ENOTFOUND, "event %zu: unknown item '%.60s'", i, e->item);
  return EV_OK;
}

ev_status events_parse(parsed_events *out, const char *body, size_t len, const ev_snapshot *s) {
  json_error_t error;
  *out = (parsed_events){0};
  out->document = json_loadb(body != NULL ? body : "", len, JSON_REJECT_DUPLICATES, &error);
  if (out->document == NULL) return ev_fail(EV_EINVAL, "the body is not JSON: %s (line %d)", error.text, error.line);
  bool many = json_is_array(out->document);
  out->n = many ? json_array_size(out->document) : 1;
  ev_status status = out->n > EVENTS_MAX ? ev_fail(EV_ELIMIT, "%zu events: at most %d at once", out->n, EVENTS_MAX) : EV_OK;
  if (status == EV_OK) {
    out->events = ev_zalloc(out->n, sizeof *out->events);
    out->items = ev_alloc(out->n, sizeof *out->items);
    if (out->events == NULL || out->items == NULL) status = EV_ENOMEM;
  }
  for (size_t i = 0; i < out->n && status == EV_OK; i++) status = parse_one(out, i, many ? json_array_get(out->document, i) : out->document, s);
  if (status != EV_OK) events_free(out);
  return status;
}

void events_free(parsed_events *e) {
  ev_free(e->events);
  ev_free(e->items);
  json_decref(e->document);
  *e = (parsed_events){0};
}
