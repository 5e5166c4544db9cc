/* api_gorse.c - the names under which clients of Gorse ask: /api/recommend, /api/session, /api/feedback, /api/item(s), /api/user(s).
 *
 * Everything is turned into what the service has anyway: feedback into events, whose id is Gorse's key (type, user, item), so that the
 * ledger counts it once; items and users into entries of the catalog. What differs is told in docs/reference/gorse.md; the shapes are
 * those of Gorse's documentation of its REST API. Fields that Gorse does not know it ignores, and so is done here. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "inside.h"

#define N_DEFAULT 10
#define PAGE_MAX 1000
#define FEEDBACK_MAX 10000
#define DEPTH_MAX 8                          /* objects within each other, of labels */
#define NO_TIME "0001-01-01T00:00:00Z"       /* Gorse's words for none, and what its Go client sends */
#define NO_TIME_SECONDS (-62135596800.0)

/* ---- What calls have in common --------------------------------------------------------------------------*/
static void refused(call *c, ev_status status) {
  if (status == EV_ELIMIT) call_error(c, 507, "%s", ev_error());
  else call_fail(c, status);
}

static bool number_arg(call *c, const char *name, int64_t fallback, int64_t least, int64_t most, size_t *out) {
  const char *text = call_arg(c, name);
  int64_t n = fallback;
  if (text != NULL && *text != '\0' && (!ev_parse_i64(text, strlen(text), &n) || n < least || n > most)) {
    call_error(c, 400, "%s must be a whole number from %lld to %lld", name, (long long)least, (long long)most);
    return false;
  }
  *out = (size_t)n;
  return true;
}

static void affected(call *c, size_t n) { call_json(c, 200, json_pack("{s:I}", "RowAffected", (json_int_t)n)); }

static const char *text_of(const json_t *o, const char *key) { /* "" when it is none, or has a NUL */
  const json_t *v = json_object_get(o, key);
  const char *s = json_string_value(v);
  return s != NULL && strlen(s) == json_string_length(v) ? s : "";
}

/* A time as Gorse takes it. *given false: none is. */
static ev_status time_of(const json_t *v, const char *what, bool *given, double *seconds) {
  const char *s = json_string_value(v);
  size_t len = s != NULL ? json_string_length(v) : 0, n_digits = s != NULL ? strspn(s, "0123456789") : 0;
  *given = v != NULL && !json_is_null(v) && !(s != NULL && len == 0);
  if (!*given) return EV_OK;
  if (json_is_number(v)) *seconds = json_number_value(v);
  else if (s == NULL) return ev_fail(EV_EINVAL, "%s: Timestamp is a text", what);
  else if (n_digits == len && len >= 9 && ev_parse_f64(s, len, seconds)) *seconds /= len >= 13 ? 1000 : 1; /* of 13 digits and more: milliseconds */
  else if (catalog_time(s, len, seconds) != EV_OK) {
    char why[160];
    snprintf(why, sizeof why, "%s", ev_error());
    return ev_fail(EV_EINVAL, "%s: Timestamp: %s", what, why);
  }
  *given = *seconds != NO_TIME_SECONDS;
  return EV_OK;
}

/* Splits "a/b/c" in place into n parts; those that are not there are NULL. False: there are more. */
static bool parts_of(char *rest, char **parts, size_t n) {
  for (size_t i = 0; i < n; i++) {
    parts[i] = rest;
    rest = rest != NULL ? strchr(rest, '/') : NULL;
    if (rest != NULL) *rest++ = '\0';
  }
  return rest == NULL;
}

static void no_such_path(call *c) { call_error(c, 404, "no such path of Gorse's API here; docs/reference/gorse.md lists those that there are"); }

/* ---- Labels --------------------------------------------------------------------------------------------*/
/* Labels become fields: a list "labels", an object "labels.KEY" for each key, and so on inwards. */
static ev_status flatten(json_t *entry, const char *name, json_t *v, int depth) {
  const char *key;
  json_t *inner;
  char longer[128];
  size_t i;
  if (json_is_object(v)) {
    if (depth == DEPTH_MAX) return ev_fail(EV_EINVAL, "Labels: more than %d objects within each other", DEPTH_MAX);
    json_object_foreach(v, key, inner) {
      int n = snprintf(longer, sizeof longer, "%s.%s", name, key);
      if (n > 47) return ev_fail(EV_EINVAL, "Labels: '%.60s': a label's name has at most 40 bytes, those around it included", longer);
      EV_TRY(flatten(entry, longer, inner, depth + 1));
    }
    return EV_OK;
  }
  json_array_foreach(v, i, inner) { /* vectors and lists of objects are not kept */
    if (json_is_real(inner) || json_is_object(inner) || json_is_array(inner) || json_is_null(inner)) return EV_OK;
  }
  return json_object_set(entry, name, v) == 0 ? EV_OK : EV_ENOMEM;
}

/* And back. NULL: there are none. */
static json_t *labels_of(const json_t *entry) {
  const char *key;
  json_t *v, *list = json_object_get(entry, "labels"), *all = NULL;
  json_object_foreach((json_t *)(uintptr_t)entry, key, v) {
    if (strncmp(key, "labels.", 7) != 0) continue;
    if (all == NULL) all = json_object();
    json_t *at = all;
    const char *part = key + 7, *dot;
    char name[48];
    for (; at != NULL && (dot = strchr(part, '.')) != NULL && dot > part && dot[1] != '\0'; part = dot + 1) {
      snprintf(name, sizeof name, "%.*s", (int)(dot - part), part);
      json_t *next = json_object_get(at, name);
      if (next != NULL && !json_is_object(next)) break; /* a label and an object of one name: the rest stays with its dots */
      if (next == NULL) json_object_set_new(at, name, next = json_object());
      at = next;
    }
    json_object_set(at, part, v);
  }
  if (all != NULL && list != NULL) json_object_set(all, "labels", list);
  return all != NULL ? all : json_incref(list);
}

/* ---- Items and users -----------------------------------------------------------------------------------*/
static const char *const id_keys[] = {"ItemId", "UserId"};

/* Gorse's shape → ours. before: the entry that a patch is for, or NULL. */
static ev_status to_entry(catalog_side side, const json_t *g, const char *id, const json_t *before, json_t **out) {
  size_t len = strlen(id);
  json_t *e = json_pack("{s:s}", "id", ev_utf8_invalid(id, len) == len ? id : ""), *labels = json_object_get(g, "Labels");
  const json_t *lists[] = {json_object_get(g, "Categories"), json_object_get(g, "Subscribe")}, *hidden = json_object_get(g, "IsHidden");
  static const char *const list_names[] = {"categories", "subscribe"};
  const char *key;
  json_t *v;
  double seconds = 0;
  bool given = false;
  *out = e;
  if (e == NULL) return EV_ENOMEM;
  if (lists[side] != NULL && !json_is_null(lists[side])) {
    if (!json_is_array(lists[side])) return ev_fail(EV_EINVAL, "%s: %s is a list of texts", id, side == CATALOG_ITEM ? "Categories" : "Subscribe");
    bool empty = json_array_size(lists[side]) == 0;
    json_object_set_new(e, list_names[side], empty ? json_null() : json_incref((json_t *)(uintptr_t)lists[side]));
  }
  if (json_is_string(json_object_get(g, "Comment"))) {
    bool empty = text_of(g, "Comment")[0] == '\0';
    json_object_set_new(e, "comment", empty ? json_null() : json_incref(json_object_get(g, "Comment")));
  }
  if (side == CATALOG_ITEM) {
    EV_TRY(time_of(json_object_get(g, "Timestamp"), id, &given, &seconds));
    if (given) json_object_set_new(e, "time", json_real(seconds));
    if (hidden != NULL && !json_is_null(hidden)) {
      if (!json_is_boolean(hidden)) return ev_fail(EV_EINVAL, "%s: IsHidden is true or false", id);
      json_object_set_new(e, "hidden", json_boolean(json_is_true(hidden)));
    }
  }
  if (labels == NULL || json_is_null(labels)) return EV_OK;
  json_object_foreach((json_t *)(uintptr_t)before, key, v) /* new labels replace all there were */
    if (strcmp(key, "labels") == 0 || strncmp(key, "labels.", 7) == 0) json_object_set_new(e, key, json_null());
  return flatten(e, "labels", labels, 0);
}

static json_t *list_or_empty(const json_t *e, const char *key) {
  json_t *v = json_object_get(e, key);
  if (json_is_array(v)) return json_incref(v);
  json_t *list = json_array();
  if (v != NULL) json_array_append(list, v);
  return list;
}

static json_t *from_entry(catalog_side side, const json_t *e) {
  json_t *labels = labels_of(e), *comment = json_object_get(e, "comment"), *time = json_object_get(e, "time");
  json_t *o = json_pack("{s:O, s:o, s:s}", id_keys[side], json_object_get(e, "id"), "Labels", labels != NULL ? labels : json_null(), "Comment",
                        json_is_string(comment) ? json_string_value(comment) : "");
  if (o == NULL) return NULL;
  json_object_set_new(o, side == CATALOG_ITEM ? "Categories" : "Subscribe", list_or_empty(e, side == CATALOG_ITEM ? "categories" : "subscribe"));
  if (side == CATALOG_USER) return o;
  char text[40] = NO_TIME;
  struct tm t;
  time_t seconds = (time_t)floor(json_number_value(time));
  if (json_is_number(time) && gmtime_r(&seconds, &t) != NULL) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &t);
  json_object_set_new(o, "Timestamp", json_string(text));
  json_object_set_new(o, "IsHidden", json_boolean(json_is_true(json_object_get(e, "hidden"))));
  return o;
}

/* One or many; of an id that comes twice the last one stands. */
static void insert(call *c, catalog_side side, bool many) {
  json_t *body = call_body(c);
  if (body == NULL) return;
  size_t n = many ? json_array_size(body) : 1, n_entries = 0;
  json_t *entries = json_object(), *v;
  const char *key;
  ev_status status = json_is_array(body) == many ? EV_OK : ev_fail(EV_EINVAL, "the body must be %s", many ? "an array" : "an object");
  if (n > FEEDBACK_MAX) status = ev_fail(EV_ELIMIT, "%zu of them: at most %d at once", n, FEEDBACK_MAX);
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    const json_t *g = many ? json_array_get(body, i) : body;
    const char *id = text_of(g, id_keys[side]);
    json_t *e = NULL;
    status = *id == '\0' ? ev_fail(EV_EINVAL, "%zu: %s must be a text that is not empty", i, id_keys[side]) : to_entry(side, g, id, NULL, &e);
    if (status == EV_OK) json_object_set(entries, id, e);
    json_decref(e);
  }
  const json_t **list = ev_alloc(json_object_size(entries), sizeof *list);
  json_object_foreach(entries, key, v)
    if (list != NULL) list[n_entries++] = v;
  if (status == EV_OK) status = list == NULL ? EV_ENOMEM : catalog_put(call_front(c)->catalog, side, list, n_entries, false);
  if (n > FEEDBACK_MAX) call_error(c, 413, "%s", ev_error());
  else if (status != EV_OK) refused(c, status);
  else affected(c, n);
  ev_free(list);
  json_decref(entries);
  json_decref(body);
}

static void show(call *c, catalog_side side, const char *id) {
  json_t *e = catalog_get(call_front(c)->catalog, side, id);
  if (e == NULL) call_error(c, 404, "no such %s: '%s'", side == CATALOG_ITEM ? "item" : "user", id);
  else call_json(c, 200, from_entry(side, e));
  json_decref(e);
}

static void page(call *c, catalog_side side) {
  size_t n, i;
  const char *cursor = call_arg(c, "cursor");
  json_t *e;
  if (!number_arg(c, "n", N_DEFAULT, 1, PAGE_MAX, &n)) return;
  json_t *entries = catalog_list(call_front(c)->catalog, side, cursor != NULL && *cursor != '\0' ? cursor : NULL, n), *list = json_array();
  if (entries == NULL) call_error(c, 400, "cursor: it is none of this service");
  json_array_foreach(entries, i, e) {
    json_array_append_new(list, from_entry(side, e));
  }
  if (entries != NULL) {
    const char *last = i == n ? json_string_value(json_object_get(json_array_get(entries, n - 1), "id")) : "";
    call_json(c, 200, json_pack("{s:s, s:O}", "Cursor", last, side == CATALOG_ITEM ? "Items" : "Users", list));
  }
  json_decref(list);
  json_decref(entries);
}

static void put_merged(call *c, catalog_side side, const json_t *e) {
  ev_status status = catalog_put(call_front(c)->catalog, side, &e, 1, true);
  if (status != EV_OK) refused(c, status);
  else affected(c, 1);
}

static void patch(call *c, catalog_side side) {
  json_t *body = call_body(c), *e = NULL;
  if (body == NULL) return;
  json_t *before = catalog_get(call_front(c)->catalog, side, c->rest);
  ev_status status = json_is_object(body) ? to_entry(side, body, c->rest, before, &e) : ev_fail(EV_EINVAL, "the body must be an object");
  if (status != EV_OK) refused(c, status);
  else put_merged(c, side, e);
  json_decref(e);
  json_decref(before);
  json_decref(body);
}

static void delete_entry(call *c, catalog_side side) {
  ev_status status = catalog_delete(call_front(c)->catalog, side, c->rest);
  if (status != EV_OK && status != EV_ENOTFOUND) refused(c, status);
  else affected(c, status == EV_OK);
}

/* PUT and DELETE of /api/item/{id}/category/{category}. */
static bool categorize(call *c, bool in) {
  char *parts[3], *slash = strchr(c->rest, '/');
  size_t i;
  json_t *old;
  if (slash == NULL) return false;
  if (!parts_of(c->rest, parts, 3) || parts[2] == NULL || *parts[2] == '\0' || strcmp(parts[1], "category") != 0) {
    no_such_path(c);
    return true;
  }
  json_t *e = catalog_get(call_front(c)->catalog, CATALOG_ITEM, parts[0]), *had = list_or_empty(e, "categories"), *list = json_array();
  json_array_foreach(had, i, old) {
    if (!json_is_string(old) || strcmp(json_string_value(old), parts[2]) != 0) json_array_append(list, old);
  }
  if (in) json_array_append_new(list, json_string(parts[2]));
  json_t *change = json_pack("{s:s, s:o}", "id", parts[0], "categories", json_array_size(list) > 0 ? json_incref(list) : json_null());
  put_merged(c, CATALOG_ITEM, change);
  json_decref(change);
  json_decref(list);
  json_decref(had);
  json_decref(e);
  return true;
}

/* ---- Recommending --------------------------------------------------------------------------------------*/
/* `categories` is this one. Owned. */
static char *where_category(const char *category) {
  ev_buf b = {0};
  ev_status status = ev_buf_printf(&b, "categories == \"");
  for (const char *s = category; *s != '\0' && status == EV_OK; s++)
    status = *s == '\n' ? ev_buf_printf(&b, "\\n") : *s == '\t' ? ev_buf_printf(&b, "\\t") : ev_buf_printf(&b, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
  if (status == EV_OK) status = ev_buf_printf(&b, "\"");
  if (status != EV_OK) ev_buf_free(&b);
  return b.data;
}

/* n, offset and category of any of these. False: answered. */
static bool asked(call *c, wanted *w, const char *category) {
  *w = (wanted){.n = N_DEFAULT};
  if (category == NULL || *category == '\0') category = call_arg(c, "category");
  if (!number_arg(c, "n", N_DEFAULT, 1, SLATE_MAX, &w->n) || !number_arg(c, "offset", 0, 0, SLATE_MAX - (int64_t)w->n, &w->offset)) return false;
  if (category == NULL || *category == '\0') return true;
  w->where = where_category(category);
  if (w->where == NULL) call_fail(c, EV_ENOMEM);
  return w->where != NULL;
}

static void form_ids(call *c, const wanted *w, const served *s) {
  (void)w;
  char id[USER_MAX + 1];
  json_t *list = json_array();
  for (uint32_t i = 0; i < s->answer->n; i++)
    if (catalog_id(call_front(c)->catalog, s->answer->picks[i].item, id)) json_array_append_new(list, json_string(id));
  call_json(c, 200, list);
}

static void form_scores(call *c, const wanted *w, const served *s) {
  (void)w;
  char id[USER_MAX + 1];
  json_t *list = json_array();
  for (uint32_t i = 0; i < s->answer->n; i++) {
    const ev_pick *p = &s->answer->picks[i];
    if (catalog_id(call_front(c)->catalog, p->item, id)) json_array_append_new(list, json_pack("{s:s, s:f}", "Id", id, "Score", (double)p->score));
  }
  call_json(c, 200, list);
}

static void recommend_user(call *c) {
  char *parts[2];
  wanted w;
  if (!parts_of(c->rest, parts, 2) || *parts[0] == '\0') {
    no_such_path(c);
    return;
  }
  if (!asked(c, &w, parts[1])) return;
  snprintf(w.user, sizeof w.user, "%s", parts[0]);
  w.form = form_ids;
  recommend(c, &w);
}

typedef struct visit { /* of a session */
  double time;
  size_t at;
  uint32_t item;
} visit;

static int by_time(const void *a, const void *b) {
  const visit *x = a, *y = b;
  if (x->time != y->time) return x->time < y->time ? -1 : 1;
  return (x->at > y->at) - (x->at < y->at);
}

static ev_status read_session(const catalog *c, const json_t *body, visit *visits, size_t *n) {
  size_t i;
  json_t *g;
  *n = 0;
  json_array_foreach(body, i, g) {
    bool given;
    double seconds = 0;
    char what[32];
    const char *id = text_of(g, "ItemId");
    snprintf(what, sizeof what, "feedback %zu", i);
    if (*id == '\0') return ev_fail(EV_EINVAL, "%s: ItemId must be a text that is not empty", what);
    EV_TRY(time_of(json_object_get(g, "Timestamp"), what, &given, &seconds));
    uint32_t item = catalog_known(c, id, strlen(id));
    if (item != EV_NONE) visits[(*n)++] = (visit){given ? seconds : INFINITY, i, item}; /* of the rest nothing is known that would help */
  }
  qsort(visits, *n, sizeof *visits, by_time);
  return EV_OK;
}

static void recommend_session(call *c) {
  wanted w;
  json_t *body = call_body(c);
  if (body == NULL) return;
  size_t n = json_array_size(body), n_visits = 0;
  visit *visits = NULL;
  uint32_t *excluded = NULL;
  ev_status status = json_is_array(body) ? EV_OK : ev_fail(EV_EINVAL, "the body must be an array of feedback");
  if (n > FEEDBACK_MAX) status = ev_fail(EV_EINVAL, "%zu items in a session: at most %d", n, FEEDBACK_MAX);
  if (status == EV_OK && ((visits = ev_alloc(n, sizeof *visits)) == NULL || (excluded = ev_alloc(n, sizeof *excluded)) == NULL)) status = EV_ENOMEM;
  if (status == EV_OK) status = read_session(call_front(c)->catalog, body, visits, &n_visits);
  json_decref(body);
  if (status != EV_OK) {
    call_fail(c, status);
  } else if (asked(c, &w, c->rest)) {
    w.n_recent = n_visits < HISTORY_MAX ? n_visits : HISTORY_MAX;
    for (size_t i = 0; i < n_visits; i++) excluded[i] = visits[i].item;
    memcpy(w.recent, excluded + (n_visits - w.n_recent), w.n_recent * sizeof *excluded);
    w.excluded = excluded;
    w.n_excluded = n_visits;
    w.form = form_scores;
    excluded = NULL;
    recommend(c, &w);
  }
  ev_free(excluded);
  ev_free(visits);
}

static void neighbours(call *c, const char *id, const char *category) {
  wanted w;
  uint32_t item = catalog_find(call_front(c)->catalog, id, strlen(id));
  if (!asked(c, &w, category)) return;
  w.excluded = item != EV_NONE ? ev_alloc(1, sizeof *w.excluded) : NULL;
  if (w.excluded == NULL) {
    ev_free(w.where);
    if (item == EV_NONE) call_json(c, 200, json_array()); /* as Gorse does */
    else call_fail(c, EV_ENOMEM);
    return;
  }
  w.recent[0] = w.excluded[0] = item;
  w.n_recent = w.n_excluded = 1;
  w.form = form_scores;
  recommend(c, &w);
}

/* ---- Feedback ------------------------------------------------------------------------------------------*/
/* Gorse's key as one text: TYPE/USER/ITEM, or its hash where that is long or could be read in two ways. */
static json_t *key_of(const char *type, const char *user, const char *item) {
  char text[USER_MAX + 1], hex[65];
  ev_hash h;
  if (strchr(type, '/') == NULL && strchr(user, '/') == NULL && snprintf(text, sizeof text, "%s/%s/%s", type, user, item) < (int)sizeof text) return json_string(text);
  ev_hasher *hasher = ev_hasher_new();
  if (hasher == NULL) return NULL;
  const char *parts[] = {type, user, item};
  for (int i = 0; i < 3; i++) ev_hasher_add(hasher, parts[i], strlen(parts[i]) + 1); /* each with its NUL */
  ev_hasher_end(hasher, &h);
  ev_hash_hex(hex, &h);
  return json_sprintf("gorse:%s", hex);
}

static ev_status part_of(const json_t *g, size_t i, const char *key, const char **out) {
  *out = text_of(g, key);
  size_t n = strlen(*out);
  return n > 0 && n < USER_MAX ? EV_OK : ev_fail(EV_EINVAL, "feedback %zu: %s must be a text of 1 to %d bytes", i, key, USER_MAX - 1);
}

static ev_status read_feedback(parsed_events *out, json_t *keys, size_t i, const json_t *g) {
  ev_event *e = &out->events[i];
  const json_t *value = json_object_get(g, "Value");
  bool given;
  double seconds = 0;
  char what[32];
  EV_TRY(part_of(g, i, "FeedbackType", &e->type));
  EV_TRY(part_of(g, i, "UserId", &e->user));
  EV_TRY(part_of(g, i, "ItemId", &e->item));
  snprintf(what, sizeof what, "feedback %zu", i);
  EV_TRY(time_of(json_object_get(g, "Timestamp"), what, &given, &seconds));
  if (value != NULL && !json_is_null(value) && !json_is_number(value)) return ev_fail(EV_EINVAL, "%s: Value is a number", what);
  if (given && !(seconds >= 0 && seconds < 1e11)) return ev_fail(EV_EINVAL, "%s: Timestamp is before 1970, or far in the future", what);
  e->value = json_is_number(value) ? json_number_value(value) : 1;
  e->time_ms = given ? (int64_t)floor(seconds * 1000 + 0.5) : ev_wall_ms();
  json_t *key = key_of(e->type, e->user, e->item);
  if (key == NULL || json_array_append_new(keys, key) != 0) return EV_ENOMEM;
  e->id = json_string_value(key);
  return EV_OK;
}

static void form_affected(call *c, size_t n, size_t n_new, size_t n_expired) {
  (void)n_new;
  (void)n_expired;
  affected(c, n); /* Gorse counts what it was sent, also what it had */
}

static void take_feedback(call *c) {
  json_t *body = call_body(c), *keys = json_array();
  parsed_events e = {.n = json_array_size(body)};
  const char **ids = NULL;
  catalog *items = call_front(c)->catalog;
  if (body == NULL) {
    json_decref(keys);
    return;
  }
  e.document = json_pack("[o, o]", body, keys); /* the events' texts are theirs */
  ev_status status = json_is_array(body) ? EV_OK : ev_fail(EV_EINVAL, "the body must be an array of feedback");
  bool many = e.n > FEEDBACK_MAX;
  if (!many && status == EV_OK) {
    e.events = ev_zalloc(e.n, sizeof *e.events);
    e.items = ev_alloc(e.n, sizeof *e.items);
    ids = ev_alloc(e.n, sizeof *ids);
    if (e.document == NULL || e.events == NULL || e.items == NULL || ids == NULL) status = EV_ENOMEM;
  }
  for (size_t i = 0; i < e.n && status == EV_OK && !many; i++) {
    status = read_feedback(&e, keys, i, json_array_get(body, i));
    ids[i] = e.events[i].item;
  }
  if (status == EV_OK && !many) status = catalog_ensure(items, ids, e.n);
  ev_free(ids);
  if (many) call_error(c, 413, "%zu feedbacks: at most %d at once", e.n, FEEDBACK_MAX);
  else if (status != EV_OK) refused(c, status);
  else if (e.n == 0) affected(c, 0);
  else {
    for (size_t i = 0; i < e.n; i++) e.items[i] = catalog_known(items, e.events[i].item, strlen(e.events[i].item));
    events_take(c, &e, false, form_affected);
    return;
  }
  events_free(&e);
}

/* ---- Routes --------------------------------------------------------------------------------------------*/
static void no_feedback(call *c) { call_error(c, 404, "feedback is not read or deleted over this API: `evection ledger export` writes what there is"); }

static void get_item(call *c) { /* {id}, {id}/neighbors, {id}/neighbors/{category} */
  char *parts[3];
  if (!parts_of(c->rest, parts, 3) || *parts[0] == '\0') no_such_path(c);
  else if (parts[1] == NULL) show(c, CATALOG_ITEM, parts[0]);
  else if (strcmp(parts[1], "neighbors") == 0) neighbours(c, parts[0], parts[2]);
  else if (strcmp(parts[1], "feedback") == 0) no_feedback(c);
  else no_such_path(c);
}

static void get_user(call *c) {
  char *parts[3];
  if (!parts_of(c->rest, parts, 3) || *parts[0] == '\0') no_such_path(c);
  else if (parts[1] == NULL) show(c, CATALOG_USER, parts[0]);
  else if (strcmp(parts[1], "feedback") == 0) no_feedback(c);
  else no_such_path(c);
}

static void put_item(call *c) { if (!categorize(c, true)) no_such_path(c); }
static void delete_item(call *c) { if (!categorize(c, false)) delete_entry(c, CATALOG_ITEM); }
static void patch_item(call *c) { patch(c, CATALOG_ITEM); }
static void post_item(call *c) { insert(c, CATALOG_ITEM, false); }
static void post_items(call *c) { insert(c, CATALOG_ITEM, true); }
static void list_items(call *c) { page(c, CATALOG_ITEM); }
static void delete_user(call *c) { delete_entry(c, CATALOG_USER); }
static void patch_user(call *c) { patch(c, CATALOG_USER); }
static void post_user(call *c) { insert(c, CATALOG_USER, false); }
static void post_users(call *c) { insert(c, CATALOG_USER, true); }
static void list_users(call *c) { page(c, CATALOG_USER); }

const route gorse_routes[] = {
    {"GET", "/api/recommend/", ROLE_READ, recommend_user, true},
    {"POST", "/api/session/recommend", ROLE_READ, recommend_session, false},
    {"POST", "/api/session/recommend/", ROLE_READ, recommend_session, false},
    {"POST", "/api/feedback", ROLE_FEEDBACK, take_feedback, false},
    {"PUT", "/api/feedback", ROLE_FEEDBACK, take_feedback, false},
    {"GET", "/api/feedback", ROLE_READ, no_feedback, false},
    {"GET", "/api/feedback/", ROLE_READ, no_feedback, true},
    {"DELETE", "/api/feedback/", ROLE_READ, no_feedback, true},
    {"POST", "/api/item", ROLE_ADMIN, post_item, false},
    {"GET", "/api/item/", ROLE_READ, get_item, true},
    {"PATCH", "/api/item/", ROLE_ADMIN, patch_item, false},
    {"PUT", "/api/item/", ROLE_ADMIN, put_item, true},
    {"DELETE", "/api/item/", ROLE_ADMIN, delete_item, true},
    {"POST", "/api/items", ROLE_ADMIN, post_items, false},
    {"GET", "/api/items", ROLE_READ, list_items, false},
    {"POST", "/api/user", ROLE_ADMIN, post_user, false},
    {"GET", "/api/user/", ROLE_READ, get_user, true},
    {"PATCH", "/api/user/", ROLE_ADMIN, patch_user, false},
    {"DELETE", "/api/user/", ROLE_ADMIN, delete_user, false},
    {"POST", "/api/users", ROLE_ADMIN, post_users, false},
    {"GET", "/api/users", ROLE_READ, list_users, false},
    {NULL, NULL, ROLE_NONE, NULL, false}};
