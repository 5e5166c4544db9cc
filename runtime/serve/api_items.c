/* api_items.c - items and users over HTTP: /items, /items/{id}, /users, /users/{id}.
 *
 * What is written is on disk when the answer says so; the thread waits for it, readers on other threads do not. */
#include <string.h>

#include "inside.h"

#define PAGE 100
#define PAGE_MAX 1000
#define ENTRIES_MAX 10000 /* of one POST */

static const char *const nouns[] = {"item", "user"};

static void refused(call *c, ev_status status) {
  if (status == EV_ELIMIT) call_error(c, 507, "%s", ev_error());
  else call_fail(c, status);
}

static void get_one(call *c, catalog_side side) {
  json_t *o = catalog_get(call_front(c)->catalog, side, c->rest);
  if (o == NULL) call_error(c, 404, "no such %s: '%s'", nouns[side], c->rest);
  else call_json(c, 200, o);
}

static void list(call *c, catalog_side side) {
  const char *text = call_arg(c, "n"), *after = call_arg(c, "after");
  int64_t n = PAGE;
  size_t len;
  if (text != NULL && (!ev_parse_i64(text, strlen(text), &n) || n < 1 || n > PAGE_MAX)) {
    call_error(c, 400, "n must be a whole number from 1 to %d", PAGE_MAX);
    return;
  }
  json_t *page = catalog_list(call_front(c)->catalog, side, after, (size_t)n);
  if (page == NULL) {
    call_error(c, 400, "after: no such %s: '%.100s'", nouns[side], after);
    return;
  }
  len = json_array_size(page);
  json_t *last = len == (size_t)n ? json_incref(json_object_get(json_array_get(page, len - 1), "id")) : json_null();
  call_json(c, 200, json_pack("{s:o, s:o}", side == CATALOG_ITEM ? "items" : "users", page, "next", last));
}

/* PUT and PATCH: the path names who it is. */
static void write_one(call *c, catalog_side side, bool merge) {
  json_t *body = call_body(c);
  if (body == NULL) return;
  const json_t *id = json_object_get(body, "id");
  if (!json_is_object(body)) {
    call_error(c, 400, "the body must be an object");
  } else if (id != NULL && (!json_is_string(id) || strcmp(json_string_value(id), c->rest) != 0)) {
    call_error(c, 400, "id is another than that of the path; leave it out");
  } else {
    json_object_set_new(body, "id", json_string(c->rest));
    const json_t *entry = body;
    ev_status status = catalog_put(call_front(c)->catalog, side, &entry, 1, merge);
    if (status != EV_OK) refused(c, status);
    else call_json(c, 200, json_pack("{s:i}", "accepted", 1));
  }
  json_decref(body);
}

static void write_many(call *c, catalog_side side) {
  json_t *body = call_body(c);
  if (body == NULL) return;
  bool many = json_is_array(body);
  size_t n = many ? json_array_size(body) : 1;
  const json_t **entries = n > ENTRIES_MAX ? NULL : ev_alloc(n, sizeof *entries);
  for (size_t i = 0; entries != NULL && i < n; i++) entries[i] = many ? json_array_get(body, i) : body;
  ev_status status = entries == NULL ? EV_ENOMEM : catalog_put(call_front(c)->catalog, side, entries, n, false);
  if (n > ENTRIES_MAX) call_error(c, 413, "%zu %ss: at most %d at once", n, nouns[side], ENTRIES_MAX);
  else if (status != EV_OK) refused(c, status);
  else call_json(c, 200, json_pack("{s:I}", "accepted", (json_int_t)n));
  ev_free(entries);
  json_decref(body);
}

static void delete_one(call *c, catalog_side side) {
  ev_status status = catalog_delete(call_front(c)->catalog, side, c->rest);
  if (status != EV_OK) refused(c, status);
  else call_json(c, 200, json_pack("{s:i}", "deleted", 1));
}

static void get_item(call *c) { get_one(c, CATALOG_ITEM); }
static void get_user(call *c) { get_one(c, CATALOG_USER); }
static void list_items(call *c) { list(c, CATALOG_ITEM); }
static void list_users(call *c) { list(c, CATALOG_USER); }
static void put_item(call *c) { write_one(c, CATALOG_ITEM, false); }
static void put_user(call *c) { write_one(c, CATALOG_USER, false); }
static void patch_item(call *c) { write_one(c, CATALOG_ITEM, true); }
static void patch_user(call *c) { write_one(c, CATALOG_USER, true); }
static void post_items(call *c) { write_many(c, CATALOG_ITEM); }
static void post_users(call *c) { write_many(c, CATALOG_USER); }
static void delete_item(call *c) { delete_one(c, CATALOG_ITEM); }
static void delete_user(call *c) { delete_one(c, CATALOG_USER); }

const route catalog_routes[] = {
    {"GET", "/items", ROLE_READ, list_items, false},      {"GET", "/items/", ROLE_READ, get_item, false},
    {"POST", "/items", ROLE_ADMIN, post_items, false},    {"PUT", "/items/", ROLE_ADMIN, put_item, false},
    {"PATCH", "/items/", ROLE_ADMIN, patch_item, false},  {"DELETE", "/items/", ROLE_ADMIN, delete_item, false},
    {"GET", "/users", ROLE_READ, list_users, false},      {"GET", "/users/", ROLE_READ, get_user, false},
    {"POST", "/users", ROLE_ADMIN, post_users, false},    {"PUT", "/users/", ROLE_ADMIN, put_user, false},
    {"PATCH", "/users/", ROLE_ADMIN, patch_user, false},  {"DELETE", "/users/", ROLE_ADMIN, delete_user, false},
    {NULL, NULL, ROLE_NONE, NULL, false}};
