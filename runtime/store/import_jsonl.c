/* import_jsonl.c - JSON Lines (one interaction an object) and the JSON object of items' attributes. */
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "import.h"

static const char *text_of(const json_t *v, char number[32], size_t *len) { /* a string, or a whole number as text */
  if (json_is_string(v)) {
    *len = json_string_length(v);
    return json_string_value(v);
  }
  if (!json_is_integer(v)) return NULL;
  *len = (size_t)snprintf(number, 32, "%lld", (long long)json_integer_value(v));
  return number;
}

static bool named(const char *key, const char *given, const char *const *usual) {
  if (given != NULL) return strcmp(key, given) == 0;
  for (; *usual != NULL; usual++)
    if (strcmp(key, *usual) == 0) return true;
  return false;
}

static ev_status feature(raw *r, const char *path, size_t line, const char *key, const json_t *v) {
  columns *all = &r->columns[EV_INTERACTION];
  ev_column_type type = json_is_number(v) ? EV_FLOAT : json_is_array(v) ? EV_TOKEN_LIST : EV_TOKEN;
  column *c = NULL;
  char shown[48];
  size_t key_len = strlen(key);
  if (json_is_null(v)) return EV_OK;
  quoted(shown, key, key_len);
  if (!json_is_number(v) && !json_is_string(v) && !json_is_array(v) && !json_is_boolean(v))
    return ev_fail(EV_EINVAL, "%s:%zu: %s is an object; numbers, strings and lists of strings are read", path, line, shown);
  for (size_t i = 0; i < all->n && c == NULL; i++)
    if (strcmp(all->at[i].name, key) == 0) c = &all->at[i];
  if (c == NULL && (key_len == 0 || key_len > 200 || strchr(key, '\n') != NULL)) return ev_fail(EV_EINVAL, "%s:%zu: no name for a column: %s", path, line, shown);
  if (c == NULL) EV_TRY(columns_add(all, key, key_len, type, &c));
  if (c->type != type) return ev_fail(EV_EINVAL, "%s:%zu: %s is of another type than before", path, line, shown);
  EV_TRY(column_pad(c, r->n));
  if (type == EV_FLOAT && fabs(json_number_value(v)) > FLT_MAX) return ev_fail(EV_EINVAL, "%s:%zu: %s is too large a number", path, line, shown);
  if (type == EV_FLOAT) return column_float(c, (float)json_number_value(v));
  if (type == EV_TOKEN) {
    if (json_is_boolean(v)) return column_token(c, json_is_true(v) ? "true" : "false", json_is_true(v) ? 4 : 5);
    return column_token(c, json_string_value(v), json_string_length(v));
  }
  size_t i;
  json_t *token;
  EV_TRY(column_list(c));
  json_array_foreach(v, i, token) {
    char number[32];
    size_t len;
    const char *s = text_of(token, number, &len);
    if (s == NULL) return ev_fail(EV_EINVAL, "%s:%zu: %s holds something else than strings", path, line, shown);
    EV_TRY(column_list_token(c, s, len));
  }
  return EV_OK;
}

static ev_status row(raw *r, const char *path, size_t line, json_t *object, uint8_t fold, uint8_t file) {
  static const char *const users[] = {"user", "user_id", "userId", "UserId", "uid", NULL};
  static const char *const items[] = {"item", "item_id", "itemId", "ItemId", "iid", NULL};
  static const char *const ratings[] = {"rating", "score", NULL};
  static const char *const times[] = {"time", "timestamp", "ts", NULL};
  const ev_import_options *o = r->o;
  interaction x = {.rating = NAN};
  char user_number[32], item_number[32];
  const char *key;
  json_t *v;
  if (!json_is_object(object)) return ev_fail(EV_EINVAL, "%s:%zu: not an object", path, line);
  json_object_foreach(object, key, v) {
    if (named(key, o->user, users)) x.user = text_of(v, user_number, &x.user_len);
    else if (named(key, o->item, items)) x.item = text_of(v, item_number, &x.item_len);
    else if (named(key, o->rating, ratings)) {
      if (!json_is_number(v) || fabs(json_number_value(v)) > FLT_MAX) return ev_fail(EV_EINVAL, "%s:%zu: the rating is not a number", path, line);
      x.rating = json_number_value(v);
    } else if (named(key, o->time, times)) {
      if (!json_is_number(v) || fabs(json_number_value(v)) > 9e15) return ev_fail(EV_EINVAL, "%s:%zu: the time is not a number of seconds", path, line);
      x.time = (int64_t)floor(json_number_value(v));
      x.timed = true;
    } else {
      EV_TRY(feature(r, path, line, key, v));
    }
  }
  if (x.user == NULL || x.user_len == 0) return ev_fail(EV_EINVAL, "%s:%zu: no user (a string or a whole number)", path, line);
  if (x.item == NULL || x.item_len == 0) return ev_fail(EV_EINVAL, "%s:%zu: no item (a string or a whole number)", path, line);
  return raw_add(r, &x, fold, file, line);
}

ev_status parse_jsonl(raw *r, const char *path, ev_map map, uint8_t fold, uint8_t file) {
  lines l = {path, map.data, (const char *)map.data + map.size, 0};
  const char *text;
  size_t len, before = r->n;
  ev_status status;
  while (lines_next(&l, &text, &len, &status)) {
    json_error_t error;
    json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL) return ev_fail(EV_EINVAL, "%s:%zu: not JSON: %s", path, l.number, ev_text_mend(error.text));
    r->bytes_here = (uint64_t)(l.at - (const char *)map.data);
    status = row(r, path, l.number, object, fold, file);
    json_decref(object);
    EV_TRY(status);
  }
  if (status == EV_OK && r->n == before) status = ev_fail(EV_EINVAL, "%s:1: the file is empty", path);
  return status;
}

ev_status parse_attributes(raw *r, const char *path, ev_map map) {
  json_error_t error;
  json_t *all = json_loadb(map.data, map.size, JSON_REJECT_DUPLICATES, &error);
  if (all == NULL) return ev_fail(EV_EINVAL, "%s:%d: not JSON: %s", path, error.line, ev_text_mend(error.text));
  columns own = {0};
  column *c;
  uint32_t *index = NULL;
  size_t n = 0;
  const char *key;
  char shown[48];
  json_t *list;
  ev_status status = EV_OK;
  if (!json_is_object(all)) status = ev_fail(EV_EINVAL, "%s:1: an object is wanted: item → list of attributes", path);
  if (status == EV_OK) {
    index = ev_alloc(json_object_size(all), sizeof *index);
    status = index == NULL ? EV_ENOMEM : columns_add(&own, "attributes", 10, EV_TOKEN_LIST, &c);
  }
  if (status != EV_OK) goto done;
  json_object_foreach(all, key, list) {
    if (*key == '\0') {
      status = ev_fail(EV_EINVAL, "%s:1: the id is empty", path);
      goto done;
    }
    uint32_t item = dict_find(&r->items, key, strlen(key));
    if (item == EV_NONE && r->o->k_core > 0) continue;
    if (item == EV_NONE) status = dict_add(&r->items, key, strlen(key), &item);
    if (status == EV_OK && !json_is_array(list)) status = ev_fail(EV_EINVAL, "%s:1: the attributes of %s are not a list", path, quoted(shown, key, strlen(key)));
    if (status == EV_OK) status = column_list(c);
    size_t i;
    json_t *token;
    if (status != EV_OK) goto done;
    index[n++] = item;
    json_array_foreach(list, i, token) {
      char number[32];
      size_t len;
      const char *s = text_of(token, number, &len);
      status = s == NULL ? ev_fail(EV_EINVAL, "%s:1: an attribute of %s is no string or whole number", path, quoted(shown, key, strlen(key))) : column_list_token(c, s, len);
      if (status != EV_OK) goto done;
    }
  }
  status = columns_place(&r->columns[EV_ITEM], &own, index, n, r->items.n, path);
done:
  columns_free(&own);
  ev_free(index);
  json_decref(all);
  return status;
}
