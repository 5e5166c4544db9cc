/* catalog_json.c - an entry of the catalog as JSON, and as the fields of a live table.
 *
 * A live table has one type a column, and the snapshot's columns have theirs; JSON has neither. So a value takes the type that its
 * column has already, where it can without losing anything ("1995" for a number, "Drama" for a list), and is refused where it cannot:
 * a condition then means the same for all items. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "catalog.h"

#define TIME_MAX 1e11 /* seconds: beyond the year 5000, so whoever says more means milliseconds */

/* ---- Times ---------------------------------------------------------------------------------------------*/
static bool digits(const char **at, const char *end, unsigned n, int *out) {
  *out = 0;
  for (; n > 0; n--, ++*at) {
    if (*at == end || **at < '0' || **at > '9') return false;
    *out = 10 * *out + (**at - '0');
  }
  return true;
}

static bool sign(const char **at, const char *end, char c) {
  if (*at == end || **at != c) return false;
  ++*at;
  return true;
}

ev_status catalog_time(const char *s, size_t len, double *seconds) {
  const char *at = s, *end = s + len;
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, zone_hour = 0, zone_minute = 0;
  double rest = 0;
  bool fine = digits(&at, end, 4, &year) && sign(&at, end, '-') && digits(&at, end, 2, &month) && sign(&at, end, '-') && digits(&at, end, 2, &day), west = false;
  if (fine && at < end) {
    fine = *at == 'T' || *at == 't' || *at == ' ';
    at++;
    fine = fine && digits(&at, end, 2, &hour) && sign(&at, end, ':') && digits(&at, end, 2, &minute);
    if (fine && sign(&at, end, ':')) {
      fine = digits(&at, end, 2, &second);
      if (fine && sign(&at, end, '.')) {
        fine = at < end && *at >= '0' && *at <= '9';
        for (double place = 0.1; at < end && *at >= '0' && *at <= '9'; at++, place *= 0.1) rest += place * (*at - '0');
      }
    }
    if (fine && at < end && !sign(&at, end, 'Z') && !sign(&at, end, 'z')) {
      west = *at == '-';
      fine = (west || *at == '+') && (at++, digits(&at, end, 2, &zone_hour));
      if (fine && at < end) fine = (sign(&at, end, ':'), digits(&at, end, 2, &zone_minute));
    }
  }
  struct tm t = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute, .tm_sec = second};
  fine = fine && at == end && month >= 1 && day >= 1 && hour <= 23 && minute <= 59 && second <= 60 && zone_hour <= 23 && zone_minute <= 59;
  if (fine) {
    time_t whole = timegm(&t); /* which makes a day that its month has not one of the next */
    fine = t.tm_mon == month - 1;
    *seconds = (double)whole + rest - (west ? -1 : 1) * (3600 * zone_hour + 60 * zone_minute);
  }
  return fine ? EV_OK : ev_fail(EV_EINVAL, "'%.*s' is no time; 2026-01-31, or 2026-01-31T12:00:00Z", (int)(len < 40 ? len : 40), s);
}

/* ---- JSON → fields -------------------------------------------------------------------------------------*/
static const struct well_known { const char *name; ev_column_type type; } well_known[] = {
    {"time", EV_FLOAT}, {"title", EV_TOKEN}, {"comment", EV_TOKEN}, {"categories", EV_TOKEN_LIST}, {"labels", EV_TOKEN_LIST}};

const char *catalog_field(size_t i, ev_column_type *type) {
  if (i >= sizeof well_known / sizeof *well_known) return NULL;
  *type = well_known[i].type;
  return well_known[i].name;
}

ev_status entry_id(const live_side *s, const json_t *entry, size_t at, char out[USER_MAX]) {
  if (!json_is_object(entry)) return ev_fail(EV_EINVAL, "%s %zu: not an object", s->noun, at);
  const json_t *id = json_object_get(entry, "id");
  if (id == NULL) return ev_fail(EV_EINVAL, "%s %zu: it has no id", s->noun, at);
  if (json_is_integer(id)) {
    snprintf(out, USER_MAX, "%lld", (long long)json_integer_value(id));
    return EV_OK;
  }
  size_t len = json_is_string(id) ? json_string_length(id) : 0;
  if (len == 0 || len >= USER_MAX || memchr(json_string_value(id), '\0', len) != NULL)
    return ev_fail(EV_EINVAL, "%s %zu: id must be a text of 1 to %d bytes without NUL, or a whole number", s->noun, at, USER_MAX - 1);
  memcpy(out, json_string_value(id), len + 1);
  return EV_OK;
}

/* The type that a field has already; false: it is new. */
static bool type_of(const live_side *s, const ev_items_reader *r, const char *name, ev_column_type *type) {
  const ev_column *c = ev_snapshot_column(s->snapshot, s->of, name);
  for (size_t i = 0; r != NULL && c == NULL && i < ev_items_n_columns(r); i++)
    if (strcmp(ev_items_column_at(r, i)->name, name) == 0) c = ev_items_column_at(r, i);
  if (c != NULL) *type = c->type;
  for (size_t i = 0; c == NULL && i < sizeof well_known / sizeof *well_known; i++) {
    if (strcmp(well_known[i].name, name) != 0) continue;
    *type = well_known[i].type;
    return true;
  }
  return c != NULL;
}

static ev_status wrong(const live_side *s, const char *id, const char *name, const char *what) {
  return ev_fail(EV_EINVAL, "%s '%s': field '%.60s' %s", s->noun, id, name, what);
}

/* A value as text: *text and *len, in scratch where it is made. False: it is none. */
static bool as_text(const json_t *v, char scratch[40], const char **text, size_t *len) {
  *text = scratch;
  if (json_is_string(v)) {
    *text = json_string_value(v);
    *len = json_string_length(v);
    return true;
  }
  if (json_is_integer(v)) *len = (size_t)snprintf(scratch, 40, "%lld", (long long)json_integer_value(v));
  else if (json_is_boolean(v)) *len = (size_t)snprintf(scratch, 40, "%s", json_is_true(v) ? "true" : "false");
  else if (json_is_real(v)) *len = (size_t)snprintf(scratch, 40, "%.15g", json_real_value(v));
  else return false;
  return true;
}

static ev_status add_number(ev_item_batch *b, const live_side *s, const char *id, const char *name, const json_t *v) {
  double x = json_number_value(v);
  if (json_is_string(v) ? !ev_parse_f64(json_string_value(v), json_string_length(v), &x) : !json_is_number(v))
    return wrong(s, id, name, "is a number, here and for others");
  if (!isfinite((float)x)) return wrong(s, id, name, "is beyond what 32 bits hold");
  return ev_item_batch_field(b, name, strlen(name), EV_FLOAT, x);
}

static ev_status add_value(ev_item_batch *b, const live_side *s, const ev_items_reader *r, const char *id, const char *name, const json_t *v) {
  char scratch[40];
  const char *text;
  size_t len, i;
  json_t *part;
  ev_column_type type = json_is_number(v) ? EV_FLOAT : json_is_array(v) ? EV_TOKEN_LIST : EV_TOKEN;
  if (json_is_object(v)) return wrong(s, id, name, "is an object; a field is a number, a text or a list of texts");
  type_of(s, r, name, &type);
  if (type == EV_FLOAT) return add_number(b, s, id, name, v);
  if (type == EV_TOKEN && json_is_array(v)) {
    if (json_array_size(v) != 1) return wrong(s, id, name, "is one text, here and for others, not a list");
    v = json_array_get(v, 0);
  }
  EV_TRY(ev_item_batch_field(b, name, strlen(name), type, 0));
  if (!json_is_array(v)) {
    if (!as_text(v, scratch, &text, &len)) return wrong(s, id, name, "is neither a text nor a list of texts");
    return ev_item_batch_token(b, text, len);
  }
  json_array_foreach(v, i, part) {
    if (json_is_real(part) || !as_text(part, scratch, &text, &len)) return wrong(s, id, name, "is a list of something else than texts and whole numbers");
    EV_TRY(ev_item_batch_token(b, text, len));
  }
  return EV_OK;
}

static ev_status add_time(ev_item_batch *b, const live_side *s, const char *id, const json_t *v) {
  double t = json_number_value(v);
  if (json_is_string(v)) {
    if (catalog_time(json_string_value(v), json_string_length(v), &t) != EV_OK) {
      char what[160];
      snprintf(what, sizeof what, "%s", ev_error());
      return ev_fail(EV_EINVAL, "%s '%s': time: %s", s->noun, id, what);
    }
  } else if (!json_is_number(v)) {
    return wrong(s, id, "time", "is in seconds since 1970, or a text such as 2026-01-31T12:00:00Z");
  }
  if (!isfinite(t) || fabs(t) > TIME_MAX) return wrong(s, id, "time", "is in seconds since 1970: this is too far away");
  float near = (float)t;
  EV_TRY(ev_item_batch_field(b, "time", 4, EV_FLOAT, (double)near));
  return ev_item_batch_field(b, FIELD_REST, strlen(FIELD_REST), EV_FLOAT, t - (double)near);
}

ev_status entry_encode(ev_item_batch *b, const live_side *s, const ev_items_reader *r, const char *id, const json_t *entry) {
  const char *name;
  json_t *v;
  EV_TRY(ev_item_batch_add(b, id, strlen(id)));
  json_object_foreach((json_t *)(uintptr_t)entry, name, v) {
    size_t len = strlen(name);
    if (strcmp(name, "id") == 0 || json_is_null(v) || (json_is_array(v) && json_array_size(v) == 0)) continue;
    if (len == 0 || len > 47) return wrong(s, id, name, "has a name that has not 1 to 47 bytes");
    if (name[0] == '_') return wrong(s, id, name, "begins with '_'; such names are kept for the catalog itself");
    if (strcmp(name, "vector") == 0) return wrong(s, id, name, "cannot be kept: vectors belong to models");
    if (strcmp(name, "hidden") == 0) {
      if (s->of != EV_ITEM) return wrong(s, id, name, "is of items only");
      if (!json_is_boolean(v)) return wrong(s, id, name, "is true or false");
      if (json_is_true(v)) EV_TRY(ev_item_batch_field(b, FIELD_HIDDEN, strlen(FIELD_HIDDEN), EV_FLOAT, 1));
    } else if (strcmp(name, "time") == 0) {
      EV_TRY(add_time(b, s, id, v));
    } else {
      EV_TRY(add_value(b, s, r, id, name, v));
    }
  }
  return EV_OK;
}

/* ---- Fields → JSON ---------------------------------------------------------------------------------------*/
static json_t *number(double x) { return x == floor(x) && fabs(x) < 1e15 ? json_integer((json_int_t)x) : json_real(x); }

/* A row's value; NULL: it has none. */
static json_t *value_of(const ev_column *c, size_t row) {
  const uint32_t *codes = NULL;
  size_t len;
  if (c->type == EV_FLOAT) return row < c->n_rows && !isnan(c->values[row]) ? number(ev_float_decimal(c->values[row])) : NULL;
  size_t n = ev_column_tokens(c, row, &codes);
  if (n == 0) return NULL;
  json_t *list = c->type == EV_TOKEN_LIST ? json_array() : NULL;
  for (size_t i = 0; i < n; i++) {
    const char *text = ev_column_token(c, codes[i], &len);
    json_t *token = json_stringn(text, len);
    if (list == NULL) return token;
    json_array_append_new(list, token);
  }
  return list;
}

static bool taken(const char *name) { return name[0] == '_' || strcmp(name, "id") == 0 || strcmp(name, "hidden") == 0 || strcmp(name, "vector") == 0; }

static json_t *begin(const live_side *s, const char *id, size_t len, bool hidden) {
  json_t *o = json_pack("{s:s%}", "id", id, len);
  if (s->of == EV_ITEM && o != NULL) json_object_set_new(o, "hidden", json_boolean(hidden));
  return o;
}

double entry_number(const ev_items_reader *r, uint32_t row, const char *field) {
  for (size_t i = 0; i < ev_items_n_columns(r); i++) {
    const ev_column *c = ev_items_column_at(r, i);
    if (strcmp(c->name, field) == 0) return c->type == EV_FLOAT && row < c->n_rows ? (double)c->values[row] : NAN;
  }
  return NAN;
}

ev_status entry_put_at(ev_item_batch *b, double s) {
  float near = (float)s;
  EV_TRY(ev_item_batch_field(b, FIELD_PUT, strlen(FIELD_PUT), EV_FLOAT, (double)near));
  return ev_item_batch_field(b, FIELD_PUT_REST, strlen(FIELD_PUT_REST), EV_FLOAT, s - (double)near);
}

double entry_put_time(const ev_items_reader *r, uint32_t row) { return entry_number(r, row, FIELD_PUT) + entry_number(r, row, FIELD_PUT_REST); }

bool entry_flag(const ev_items_reader *r, uint32_t row, const char *field) { return entry_number(r, row, field) > 0; }

json_t *entry_decode(const live_side *s, const ev_items_reader *r, uint32_t row) {
  size_t len;
  double time = NAN, rest = 0;
  if (entry_flag(r, row, FIELD_DELETED)) return NULL;
  const char *id = ev_items_id(r, row, &len);
  json_t *o = begin(s, id, len, entry_flag(r, row, FIELD_HIDDEN));
  for (size_t i = 0; i < ev_items_n_columns(r) && o != NULL; i++) {
    const ev_column *c = ev_items_column_at(r, i);
    float x = c->type == EV_FLOAT && row < c->n_rows ? c->values[row] : NAN;
    if (strcmp(c->name, "time") == 0) time = (double)x;
    else if (strcmp(c->name, FIELD_REST) == 0) rest = isnan(x) ? 0 : (double)x;
    if (taken(c->name) || strcmp(c->name, "time") == 0) continue;
    json_t *v = value_of(c, row);
    if (v != NULL) json_object_set_new(o, c->name, v);
  }
  double t = floor((time + rest) * 1e4 + 0.5) / 1e4;
  if (!isnan(t) && o != NULL) json_object_set_new(o, "time", number(t));
  return o;
}

json_t *entry_of_snapshot(const live_side *s, uint32_t index) {
  size_t len;
  const char *id = s->of == EV_ITEM ? ev_snapshot_item_id(s->snapshot, index, &len) : ev_snapshot_user_id(s->snapshot, index, &len);
  json_t *o = begin(s, id, len, false);
  for (size_t i = 0; i < ev_snapshot_n_columns(s->snapshot, s->of) && o != NULL; i++) {
    const ev_column *c = ev_snapshot_column_at(s->snapshot, s->of, i);
    bool other = strcmp(c->name, "time") == 0 && c->type != EV_FLOAT; /* something else that is called so */
    json_t *v = other || taken(c->name) ? NULL : value_of(c, index);
    if (v != NULL) json_object_set_new(o, c->name, v);
  }
  return o;
}
