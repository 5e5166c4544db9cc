/* ledger_lines.c - JSON Lines of impressions and events → a batch.
 *
 *   {"kind":"impression","id":"i1","user":"u","version":"v","propensity":0.02,"time":1700000000000,
 *    "items":[{"item":"a","propensity":0.1,"agent":"ease"}, …]}
 *   {"kind":"event","id":"e1","user":"u","item":"a","type":"click","value":1,"time":1700000000500,"impression":"i1"}
 *
 * Users, items and ids may be whole numbers, which are read as text. A field that is not known is an error: it would be lost. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ledger.h"

#define LINE_MAX_BYTES (4u << 20)

struct ev_ledger_lines {
  ev_buf documents;   /* of json_t *: the strings are theirs */
  ev_buf impressions; /* of ev_impression, whose items are an offset into shown until the batch is asked for */
  ev_buf shown;       /* of ev_shown */
  ev_buf events;      /* of ev_event */
  ev_buf numbers;     /* of char *: texts made of numbers */
  size_t n_rows;
};

ev_ledger_lines *ev_ledger_lines_new(void) { return ev_zalloc(1, sizeof(ev_ledger_lines)); }

/* Buffers grow by realloc, 16-byte aligned: they hold structs. */
#define AT(buf, type) ((type *)(void *)(buf).data)
#define COUNT(buf, type) ((buf).len / sizeof(type))

static void drop(ev_ledger_lines *b, size_t n_documents, size_t n_numbers) { /* the newest ones, down to so many */
  while (COUNT(b->documents, json_t *) > n_documents) {
    b->documents.len -= sizeof(json_t *);
    json_decref(AT(b->documents, json_t *)[COUNT(b->documents, json_t *)]);
  }
  while (COUNT(b->numbers, char *) > n_numbers) {
    b->numbers.len -= sizeof(char *);
    ev_free(AT(b->numbers, char *)[COUNT(b->numbers, char *)]);
  }
}

void ev_ledger_lines_clear(ev_ledger_lines *b) {
  drop(b, 0, 0);
  ev_buf_clear(&b->impressions);
  ev_buf_clear(&b->shown);
  ev_buf_clear(&b->events);
  b->n_rows = 0;
}

void ev_ledger_lines_free(ev_ledger_lines *b) {
  if (b == NULL) return;
  drop(b, 0, 0);
  ev_buf_free(&b->documents);
  ev_buf_free(&b->impressions);
  ev_buf_free(&b->shown);
  ev_buf_free(&b->events);
  ev_buf_free(&b->numbers);
  ev_free(b);
}

size_t ev_ledger_lines_rows(const ev_ledger_lines *b) { return b->n_rows; }

void ev_ledger_lines_batch(ev_ledger_lines *b, ev_ledger_batch *out) {
  size_t n = COUNT(b->impressions, ev_impression), at = 0;
  for (size_t i = 0; i < n; i++) {
    ev_impression *x = &AT(b->impressions, ev_impression)[i];
    x->items = AT(b->shown, ev_shown) + at;
    at += x->n_items;
  }
  *out = (ev_ledger_batch){AT(b->impressions, ev_impression), n, AT(b->events, ev_event), COUNT(b->events, ev_event)};
}

/* ---- Fields --------------------------------------------------------------------------------------------*/
static ev_status text(ev_ledger_lines *b, const char *key, const json_t *v, const char **out) {
  if (json_is_string(v)) {
    *out = json_string_value(v);
    return strlen(*out) == json_string_length(v) ? EV_OK : ev_fail(EV_EINVAL, "%s has a NUL character", key);
  }
  if (!json_is_integer(v)) return ev_fail(EV_EINVAL, "%s is no text", key);
  char number[32];
  int n = snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
  char *copy = ev_strndup(number, (size_t)n);
  if (copy == NULL) return EV_ENOMEM;
  ev_status status = ev_buf_append(&b->numbers, &copy, sizeof copy);
  if (status != EV_OK) ev_free(copy);
  *out = copy;
  return status;
}

static ev_status number(const char *key, const json_t *v, double *out) {
  if (!json_is_number(v)) return ev_fail(EV_EINVAL, "%s is no number", key);
  *out = json_number_value(v);
  return EV_OK;
}

static ev_status time_of(const json_t *v, int64_t *out) {
  double x = -1;
  EV_TRY(number("time", v, &x));
  if (!(x >= 0 && x <= 9e15)) return ev_fail(EV_EINVAL, "the time %g is no milliseconds since 1970", x);
  *out = (int64_t)x;
  return EV_OK;
}

static ev_status unknown(const char *of, const char *key, const char *known) {
  char shown[48];
  snprintf(shown, sizeof shown, "%.40s", key);
  return ev_fail(EV_EINVAL, "%s has no field '%s'; %s are known", of, ev_text_mend(shown), known);
}

/* ---- Lines ---------------------------------------------------------------------------------------------*/
static ev_status read_shown(ev_ledger_lines *b, json_t *o, size_t place, ev_shown *out) {
  const char *key;
  json_t *v;
  double x = 0;
  *out = (ev_shown){.propensity = NAN, .position = 0};
  if (!json_is_object(o)) return ev_fail(EV_EINVAL, "place %zu of items is no object", place);
  json_object_foreach(o, key, v) {
    if (json_is_null(v)) continue;
    if (strcmp(key, "item") == 0) EV_TRY(text(b, key, v, &out->item));
    else if (strcmp(key, "agent") == 0) EV_TRY(text(b, key, v, &out->agent));
    else if (strcmp(key, "propensity") == 0) EV_TRY(number(key, v, &out->propensity));
    else if (strcmp(key, "position") == 0) {
      EV_TRY(number(key, v, &x));
      if (!(x >= 1 && x <= 1e9 && x == floor(x))) return ev_fail(EV_EINVAL, "the position %g is no whole number from 1", x);
      out->position = (uint32_t)x;
    } else return unknown("an item", key, "item, propensity, agent and position");
  }
  return EV_OK;
}

static ev_status read_impression(ev_ledger_lines *b, json_t *o) {
  ev_impression i = {.propensity = NAN, .time_ms = -1};
  const char *key;
  json_t *v, *items = NULL, *item;
  size_t first = b->shown.len, k;
  json_object_foreach(o, key, v) {
    if (strcmp(key, "kind") == 0 || json_is_null(v)) continue;
    if (strcmp(key, "id") == 0) EV_TRY(text(b, key, v, &i.id));
    else if (strcmp(key, "user") == 0) EV_TRY(text(b, key, v, &i.user));
    else if (strcmp(key, "version") == 0) EV_TRY(text(b, key, v, &i.version));
    else if (strcmp(key, "propensity") == 0) EV_TRY(number(key, v, &i.propensity));
    else if (strcmp(key, "time") == 0) EV_TRY(time_of(v, &i.time_ms));
    else if (strcmp(key, "items") == 0) items = v;
    else return unknown("an impression", key, "id, user, version, propensity, time and items");
  }
  if (i.time_ms < 0) return ev_fail(EV_EINVAL, "no time");
  if (!json_is_array(items)) return ev_fail(EV_EINVAL, "items is no list");
  json_array_foreach(items, k, item) {
    ev_shown s;
    EV_TRY(read_shown(b, item, k + 1, &s));
    EV_TRY(ev_buf_append(&b->shown, &s, sizeof s));
  }
  i.n_items = (b->shown.len - first) / sizeof(ev_shown);
  i.items = i.n_items > 0 ? (const ev_shown *)(const void *)(b->shown.data + first) : NULL;
  EV_TRY(ev_ledger_check_impression(&i));
  return ev_buf_append(&b->impressions, &i, sizeof i);
}

static ev_status read_event(ev_ledger_lines *b, const ev_ledger *l, json_t *o) {
  ev_event e = {.type = "click", .value = 1, .time_ms = -1};
  const char *key;
  json_t *v;
  json_object_foreach(o, key, v) {
    if (strcmp(key, "kind") == 0 || json_is_null(v)) continue;
    if (strcmp(key, "id") == 0) EV_TRY(text(b, key, v, &e.id));
    else if (strcmp(key, "user") == 0) EV_TRY(text(b, key, v, &e.user));
    else if (strcmp(key, "item") == 0) EV_TRY(text(b, key, v, &e.item));
    else if (strcmp(key, "type") == 0) EV_TRY(text(b, key, v, &e.type));
    else if (strcmp(key, "version") == 0) EV_TRY(text(b, key, v, &e.version));
    else if (strcmp(key, "impression") == 0) EV_TRY(text(b, key, v, &e.impression));
    else if (strcmp(key, "value") == 0) EV_TRY(number(key, v, &e.value));
    else if (strcmp(key, "time") == 0) EV_TRY(time_of(v, &e.time_ms));
    else return unknown("an event", key, "id, user, item, type, value, time, version and impression");
  }
  if (e.time_ms < 0) return ev_fail(EV_EINVAL, "no time");
  EV_TRY(ev_ledger_check_event(l, &e));
  return ev_buf_append(&b->events, &e, sizeof e);
}

static ev_status read_object(ev_ledger_lines *b, const ev_ledger *l, json_t *o) {
  const char *kind = json_string_value(json_object_get(o, "kind"));
  if (!json_is_object(o)) return ev_fail(EV_EINVAL, "not an object");
  if (kind != NULL && strcmp(kind, "impression") == 0) return read_impression(b, o);
  if (kind != NULL && strcmp(kind, "event") == 0) return read_event(b, l, o);
  return ev_fail(EV_EINVAL, "no kind: \"impression\" or \"event\"");
}

ev_status ev_ledger_lines_add(ev_ledger_lines *b, const ev_ledger *l, const char *file, size_t line, const char *data, size_t len) {
  json_error_t error;
  while (len > 0 && (data[len - 1] == '\r' || data[len - 1] == ' ' || data[len - 1] == '\t')) len--;
  if (len == 0) return EV_OK;
  if (len > LINE_MAX_BYTES) return ev_fail(EV_EINVAL, "%s:%zu: a line longer than %u bytes", file, line, LINE_MAX_BYTES);
  json_t *o = json_loadb(data, len, JSON_REJECT_DUPLICATES, &error);
  if (o == NULL) return ev_fail(EV_EINVAL, "%s:%zu: not JSON: %s", file, line, ev_text_mend(error.text));
  size_t n_documents = COUNT(b->documents, json_t *), n_numbers = COUNT(b->numbers, char *), n_shown = b->shown.len;
  ev_status status = ev_buf_append(&b->documents, &o, sizeof o);
  if (status != EV_OK) {
    json_decref(o);
    return status;
  }
  status = read_object(b, l, o);
  if (status == EV_OK) {
    b->n_rows += 1 + (b->shown.len - n_shown) / sizeof(ev_shown);
    return EV_OK;
  }
  b->shown.len = n_shown;
  if (status == EV_EINVAL) ev_fail(status, "%s:%zu: %s", file, line, ev_error());
  drop(b, n_documents, n_numbers);
  return status;
}
