/* serve_catalog_api.c - the handlers of items, users and Gorse's aliases, with a front that only notes what it is told. */
#include <math.h>

#include "catalog_world.h"

/* ---- A front that notes --------------------------------------------------------------------------------*/
static front the_front;
static unsigned code;
static json_t *said;                          /* owned */
static const char *args[8][2];
static wanted asked_for;                      /* the last slate asked for */
static bool was_asked;
static parsed_events taken;
static size_t n_taken;
static events_form_fn *taken_form;
static ev_answer answer;

static void say(unsigned status, json_t *document) {
  json_decref(said);
  code = status;
  said = document;
}

front *call_front(const call *c) { (void)c; return &the_front; }
void call_json(call *c, unsigned status, json_t *document) {
  assert_non_null(document);
  assert_false(c->answered);
  c->answered = true;
  say(status, document);
}
void call_error(call *c, unsigned status, const char *format, ...) {
  char text[512];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  call_json(c, status, json_pack("{s:s}", "error", text));
}
void call_fail(call *c, ev_status status) { call_error(c, status == EV_EINVAL ? 400 : status == EV_ENOTFOUND ? 404 : 500, "%s", ev_error()); }
const char *call_arg(const call *c, const char *name) {
  (void)c;
  for (int i = 0; i < 8 && args[i][0] != NULL; i++)
    if (strcmp(args[i][0], name) == 0) return args[i][1];
  return NULL;
}
json_t *call_body(call *c) {
  json_t *o = json_loadb(c->body.data != NULL ? c->body.data : "", c->body.len, JSON_REJECT_DUPLICATES, NULL);
  if (o == NULL) call_error(c, 400, "the body is not JSON");
  return o;
}
void recommend(call *c, wanted *w) {
  asked_for = *w; /* where and excluded are the test's now */
  was_asked = true;
  w->form(c, w, &(served){.version = "v", .answer = &answer, .impression = ""});
}
void events_free(parsed_events *e) {
  ev_free(e->events);
  ev_free(e->items);
  json_decref(e->document);
  *e = (parsed_events){0};
}
void events_take(call *c, parsed_events *e, bool queued, events_form_fn *form) {
  assert_false(queued);
  events_free(&taken);
  taken = *e;
  n_taken = e->n;
  taken_form = form;
  form(c, e->n, e->n, 0);
}

/* ---- Calls ---------------------------------------------------------------------------------------------*/
/* The route that takes this, as the front chooses: the same path, or the longest prefix that ends in '/'. */
static const route *route_of(const char *method, const char *path, const char **rest) {
  const route *tables[] = {catalog_routes, gorse_routes}, *best = NULL;
  for (int t = 0; t < 2; t++)
    for (const route *r = tables[t]; r->method != NULL; r++) {
      size_t n = strlen(r->prefix);
      bool opens = r->prefix[n - 1] == '/';
      if (strcmp(r->method, method) != 0 || strncmp(path, r->prefix, n) != 0 || (!opens && path[n] != '\0') || (opens && path[n] == '\0')) continue;
      if (opens && !r->deep && strchr(path + n, '/') != NULL) continue;
      if (best == NULL || n > strlen(best->prefix)) best = r, *rest = path + n;
    }
  return best;
}

static void run(const char *method, const char *path, const char *body) { /* path?name=value&… */
  call c = {.method = method};
  char copy[512], *query, *save = NULL;
  const char *rest = "";
  snprintf(copy, sizeof copy, "%s", path);
  memset(args, 0, sizeof args);
  if ((query = strchr(copy, '?')) != NULL) {
    *query++ = '\0';
    int n = 0;
    for (char *part = strtok_r(query, "&", &save); part != NULL && n < 8; part = strtok_r(NULL, "&", &save)) {
      char *value = strchr(part, '=');
      *value++ = '\0';
      args[n][0] = part;
      args[n++][1] = value;
    }
  }
  c.path = copy;
  const route *r = route_of(method, copy, &rest);
  if (r == NULL) fail_msg("no route: %s %s", method, path);
  snprintf(c.rest, sizeof c.rest, "%s", rest);
  c.role = r->needs;
  if (body != NULL) {
    ev_buf_append(&c.body, body, strlen(body));
    for (size_t i = 0; i < c.body.len; i++)
      if (c.body.data[i] == '\'') c.body.data[i] = '"';
  }
  was_asked = false;
  ev_free(asked_for.where);
  ev_free(asked_for.excluded);
  asked_for = (wanted){0};
  r->fn(&c);
  if (!c.answered) fail_msg("not answered: %s %s", method, path);
  ev_buf_free(&c.body);
}

static void expect(const char *method, const char *path, const char *body, unsigned status, const char *text) { /* text NULL: whatever */
  run(method, path, body);
  json_t *should = text != NULL ? json_of(text) : NULL;
  if (code != status || (should != NULL && !json_equal(said, should)))
    fail_msg("%s %s: %u %s\nwanted %u %s", method, path, code, json_dumps(said, JSON_SORT_KEYS), status, text != NULL ? text : "");
  json_decref(should);
}

static ev_snapshot *world;

static int make(void **state) {
  if (make_folder(state) != 0) return 1;
  world = make_world();
  the_front.snapshot = world;
  return 0;
}

static int unmake(void **state) {
  ev_snapshot_close(world);
  free(the_masks);
  json_decref(said);
  ev_free(asked_for.where);
  ev_free(asked_for.excluded);
  events_free(&taken);
  return remove_folder(state);
}

static void begin(const char *name) { the_front.catalog = open_catalog(world, name); }
static void end(void) { catalog_close(the_front.catalog); }
static uint32_t index_of(const char *id) { return catalog_known(the_front.catalog, id, strlen(id)); }

/* ---- Our own -------------------------------------------------------------------------------------------*/
static void items_and_users_are_put_patched_shown_listed_and_deleted(void **s) {
  (void)s;
  begin("own");
  expect("GET", "/items/i7", NULL, 200, "{'id': 'i7', 'hidden': false, 'genre': ['g2'], 'year': 1957, 'title': ['The', 'Film', '7']}");
  expect("PATCH", "/items/i7", "{'year': 5}", 200, "{'accepted': 1}");
  expect("PUT", "/items/n1", "{'id': 'n1', 'title': 'New'}", 200, "{'accepted': 1}");
  expect("GET", "/items/n1", NULL, 200, "{'id': 'n1', 'hidden': false, 'title': ['New']}");
  expect("POST", "/items", "[{'id': 'n2'}, {'id': 'n3'}]", 200, "{'accepted': 2}");
  expect("POST", "/items", "{'id': 'n4'}", 200, "{'accepted': 1}");
  expect("POST", "/items", "[]", 200, "{'accepted': 0}");
  expect("GET", "/items?n=2&after=n2", NULL, 200, "{'items': [{'id': 'n3', 'hidden': false}, {'id': 'n4', 'hidden': false}], 'next': 'n4'}");
  expect("GET", "/items?n=2&after=n4", NULL, 200, "{'items': [], 'next': null}");
  expect("DELETE", "/items/n3", NULL, 200, "{'deleted': 1}");
  expect("DELETE", "/items/n3", NULL, 404, "{'error': 'no such item: \\u0027n3\\u0027'}");
  expect("GET", "/items/n3", NULL, 404, NULL);
  expect("PATCH", "/items/n3", "{'year': 1}", 404, NULL);
  expect("PUT", "/users/new", "{'age': 3}", 200, "{'accepted': 1}");
  expect("GET", "/users/new", NULL, 200, "{'id': 'new', 'age': 3}");
  expect("GET", "/users?n=1&after=u19", NULL, 200, NULL);
  expect("DELETE", "/users/u1", NULL, 200, NULL);
  expect("PUT", "/items/n1", "{'id': 'n2'}", 400, "{'error': 'id is another than that of the path; leave it out'}");
  expect("PUT", "/items/n1", "[1]", 400, "{'error': 'the body must be an object'}");
  expect("PUT", "/items/n1", "{", 400, NULL);
  expect("PUT", "/items/n1", "{'year': 'old'}", 400, NULL);
  expect("POST", "/items", "[{'id': 'ok'}, 3]", 400, "{'error': 'item 1: not an object'}");
  expect("GET", "/items/ok", NULL, 404, NULL);
  expect("GET", "/items?n=0", NULL, 400, "{'error': 'n must be a whole number from 1 to 1000'}");
  expect("GET", "/items?n=1001", NULL, 400, NULL);
  expect("GET", "/items?after=nobody", NULL, 400, NULL);
  end();
}

static void the_roles_of_the_routes_are_as_told(void **s) {
  (void)s;
  const route *tables[] = {catalog_routes, gorse_routes};
  for (int t = 0; t < 2; t++)
    for (const route *r = tables[t]; r->method != NULL; r++) {
      bool reads = strcmp(r->method, "GET") == 0 || strstr(r->prefix, "session") != NULL, feedback = strstr(r->prefix, "feedback") != NULL;
      role should = reads || (feedback && strcmp(r->method, "DELETE") == 0) ? ROLE_READ : feedback ? ROLE_FEEDBACK : ROLE_ADMIN;
      if (r->needs != should) fail_msg("%s %s", r->method, r->prefix);
    }
}

/* ---- Gorse's -------------------------------------------------------------------------------------------*/
static void gorses_items_and_users_come_back_as_they_were_sent(void **s) {
  (void)s;
  begin("gorse");
  static const char item[] = "{'ItemId': 'g', 'IsHidden': true, 'Categories': ['a', 'b'], 'Timestamp': '2020-02-02T20:20:02Z',"
                             " 'Labels': {'tags': ['x', 'y'], 'price': 2.5, 'shop': {'name': 'S', 'open': 'true'}}, 'Comment': 'c'}";
  static const char bare[] = "{'ItemId': 'bare', 'IsHidden': false, 'Categories': [], 'Timestamp': '0001-01-01T00:00:00Z', 'Labels': null, 'Comment': ''}";
  expect("POST", "/api/item", item, 200, "{'RowAffected': 1}");
  expect("GET", "/api/item/g", NULL, 200, item);
  assert_true(catalog_hidden(the_front.catalog, index_of("g")));
  expect("POST", "/api/item", "{'ItemId': 'bare'}", 200, "{'RowAffected': 1}");
  expect("GET", "/api/item/bare", NULL, 200, bare);
  expect("POST", "/api/item", bare, 200, "{'RowAffected': 1}");
  expect("GET", "/api/item/bare", NULL, 200, bare);
  expect("PATCH", "/api/item/g", "{'IsHidden': false, 'Labels': ['one', 'two']}", 200, "{'RowAffected': 1}");
  expect("GET", "/api/item/g", NULL, 200, "{'ItemId': 'g', 'IsHidden': false, 'Categories': ['a', 'b'], 'Timestamp': '2020-02-02T20:20:02Z', 'Labels': ['one', 'two'], 'Comment': 'c'}");
  expect("PATCH", "/api/item/g", "{'Categories': [], 'Comment': '', 'Labels': {'e': [0.5, 0.25], 'k': 1}, 'IsHidden': null}", 200, NULL);
  expect("GET", "/api/item/g", NULL, 200, "{'ItemId': 'g', 'IsHidden': false, 'Categories': [], 'Timestamp': '2020-02-02T20:20:02Z', 'Labels': {'k': 1}, 'Comment': ''}");
  expect("PUT", "/api/item/g/category/new", NULL, 200, "{'RowAffected': 1}");
  expect("PUT", "/api/item/g/category/more", NULL, 200, NULL);
  expect("PUT", "/api/item/g/category/new", NULL, 200, NULL);
  expect("DELETE", "/api/item/g/category/more", NULL, 200, NULL);
  run("GET", "/api/item/g", NULL);
  assert_string_equal(json_string_value(json_array_get(json_object_get(said, "Categories"), 0)), "new");
  assert_int_equal(json_array_size(json_object_get(said, "Categories")), 1);
  expect("DELETE", "/api/item/g/category/new", NULL, 200, NULL);
  expect("PUT", "/api/item/none/category/new", NULL, 404, NULL);
  expect("PUT", "/api/item/g/categories/new", NULL, 404, NULL);
  expect("PUT", "/api/item/g", "{}", 404, NULL);
  expect("PATCH", "/api/item/none", "{'Comment': 'x'}", 404, NULL);
  expect("GET", "/api/item/i7", NULL, 200, "{'ItemId': 'i7', 'IsHidden': false, 'Categories': [], 'Timestamp': '0001-01-01T00:00:00Z', 'Labels': null, 'Comment': ''}");
  expect("POST", "/api/items", "[{'ItemId': 'h', 'Comment': '1'}, {'ItemId': 'j', 'Timestamp': '2020-02-02'}, {'ItemId': 'h', 'Comment': '2', 'Unknown': 3}]", 200, "{'RowAffected': 3}");
  run("GET", "/api/item/h", NULL);
  assert_string_equal(json_string_value(json_object_get(said, "Comment")), "2");
  expect("GET", "/api/items?n=1&cursor=h", NULL, 200,
         "{'Cursor': 'j', 'Items': [{'ItemId': 'j', 'IsHidden': false, 'Categories': [], 'Timestamp': '2020-02-02T00:00:00Z', 'Labels': null, 'Comment': ''}]}");
  expect("GET", "/api/items?n=5&cursor=j", NULL, 200, "{'Cursor': '', 'Items': []}");
  expect("GET", "/api/items?cursor=nobody", NULL, 400, NULL);
  run("GET", "/api/items", NULL);
  assert_int_equal(json_array_size(json_object_get(said, "Items")), 10);
  expect("DELETE", "/api/item/h", NULL, 200, "{'RowAffected': 1}");
  expect("DELETE", "/api/item/h", NULL, 200, "{'RowAffected': 0}");
  expect("GET", "/api/item/h", NULL, 404, NULL);
  static const char user[] = "{'UserId': 'bob', 'Labels': ['a', 'b'], 'Subscribe': ['news'], 'Comment': 'hi'}";
  expect("POST", "/api/user", user, 200, "{'RowAffected': 1}");
  expect("GET", "/api/user/bob", NULL, 200, user);
  expect("PATCH", "/api/user/bob", "{'Comment': 'ho', 'Subscribe': []}", 200, NULL);
  expect("GET", "/api/user/bob", NULL, 200, "{'UserId': 'bob', 'Labels': ['a', 'b'], 'Subscribe': [], 'Comment': 'ho'}");
  expect("POST", "/api/users", "[{'UserId': 'eve'}]", 200, "{'RowAffected': 1}");
  expect("GET", "/api/users?n=1&cursor=bob", NULL, 200, "{'Cursor': 'eve', 'Users': [{'UserId': 'eve', 'Labels': null, 'Subscribe': [], 'Comment': ''}]}");
  expect("DELETE", "/api/user/bob", NULL, 200, "{'RowAffected': 1}");
  expect("GET", "/api/user/bob", NULL, 404, NULL);
  expect("GET", "/api/user/eve/feedback/like", NULL, 404, NULL);
  end();
}

static void what_is_wrong_with_gorses_bodies_is_said(void **s) {
  (void)s;
  begin("bodies");
  expect("POST", "/api/item", "[]", 400, "{'error': 'the body must be an object'}");
  expect("POST", "/api/items", "{}", 400, "{'error': 'the body must be an array'}");
  expect("POST", "/api/items", "[{'ItemId': 'a'}, {'itemid': 'b'}]", 400, "{'error': '1: ItemId must be a text that is not empty'}");
  expect("POST", "/api/items", "[3]", 400, NULL);
  expect("POST", "/api/item", "{'ItemId': 'a', 'Categories': 'x'}", 400, "{'error': 'a: Categories is a list of texts'}");
  expect("POST", "/api/item", "{'ItemId': 'a', 'IsHidden': 'x'}", 400, "{'error': 'a: IsHidden is true or false'}");
  expect("POST", "/api/item", "{'ItemId': 'a', 'Timestamp': 'never'}", 400, NULL);
  expect("POST", "/api/item", "{'ItemId': 'a', 'Timestamp': []}", 400, NULL);
  expect("POST", "/api/item", "{'ItemId': 'a', 'Labels': {'a': {'b': {'c': {'d': {'e': {'f': {'g': {'h': {'i': 1}}}}}}}}}}", 400, "{'error': 'Labels: more than 8 objects within each other'}");
  expect("POST", "/api/item", "{'ItemId': 'a', 'Labels': {'a label that is longer than forty bytes, which': 1}}", 400, NULL);
  expect("PATCH", "/api/item/i1", "7", 400, NULL);
  expect("PATCH", "/api/item/i1", "[]", 400, "{'error': 'the body must be an object'}");
  expect("GET", "/api/item/a", NULL, 404, NULL);
  expect("GET", "/api/item/a/b/c/d", NULL, 404, NULL);
  expect("GET", "/api/feedback", NULL, 404, NULL);
  expect("DELETE", "/api/feedback/a/b", NULL, 404, NULL);
  end();
}

static void feedback_becomes_events_that_count_once(void **s) {
  (void)s;
  begin("feedback");
  expect("POST", "/api/feedback",
         "[{'FeedbackType': 'star', 'UserId': 'bob', 'ItemId': 'i3', 'Timestamp': '2022-02-24', 'Comment': 'x', 'Labels': {'a': 1}},"
         " {'FeedbackType': 'buy', 'UserId': 'bob', 'ItemId': 'brand-new', 'Value': 2.5, 'Timestamp': '2022-02-24T10:00:00.5Z', 'Updated': '2022-02-25'},"
         " {'FeedbackType': 'star', 'UserId': 'a/b', 'ItemId': 'i3', 'Value': null, 'Timestamp': '1645700000'}, {'FeedbackType': 'x', 'UserId': 'u', 'ItemId': 'brand-new'}]",
         200, "{'RowAffected': 4}");
  assert_int_equal(n_taken, 4);
  const ev_event *e = taken.events;
  assert_string_equal(e[0].id, "star/bob/i3");
  assert_string_equal(e[0].type, "star");
  assert_string_equal(e[0].user, "bob");
  assert_string_equal(e[0].item, "i3");
  assert_true(e[0].value == 1 && e[0].time_ms == INT64_C(1645660800000));
  assert_int_equal(taken.items[0], index_of("i3"));
  assert_true(e[1].value == 2.5 && e[1].time_ms == INT64_C(1645696800500));
  assert_int_equal(taken.items[1], WORLD_ITEMS); /* nobody had heard of it */
  assert_int_equal(taken.items[3], WORLD_ITEMS);
  shown_as(the_front.catalog, CATALOG_ITEM, "brand-new", "{'id': 'brand-new', 'hidden': false}");
  assert_true(strncmp(e[2].id, "gorse:", 6) == 0 && strlen(e[2].id) == 70);
  assert_true(e[2].value == 1 && e[2].time_ms == INT64_C(1645700000000));
  assert_true(llabs(e[3].time_ms - ev_wall_ms()) < 10000);
  char first[80];
  snprintf(first, sizeof first, "%s", e[2].id);
  expect("PUT", "/api/feedback", "[{'FeedbackType': 'star', 'UserId': 'a', 'ItemId': 'b/i3'}, {'FeedbackType': 'star', 'UserId': 'a/b', 'ItemId': 'i3', 'Value': 9}]", 200, NULL);
  assert_string_equal(taken.events[0].id, "star/a/b/i3");
  assert_string_equal(taken.events[1].id, first); /* the same key: the ledger knows it */
  n_taken = 0;
  expect("POST", "/api/feedback", "[]", 200, "{'RowAffected': 0}");
  expect("POST", "/api/feedback", "{}", 400, "{'error': 'the body must be an array of feedback'}");
  expect("POST", "/api/feedback", "[{'FeedbackType': 'star', 'UserId': 'bob', 'ItemId': 'other'}, {'FeedbackType': 'star', 'UserId': 'bob'}]", 400,
         "{'error': 'feedback 1: ItemId must be a text of 1 to 255 bytes'}");
  expect("POST", "/api/feedback", "[{'FeedbackType': 'star', 'UserId': 'bob', 'ItemId': 'other', 'Value': 'x'}]", 400, "{'error': 'feedback 0: Value is a number'}");
  expect("POST", "/api/feedback", "[{'FeedbackType': 'star', 'UserId': 'bob', 'ItemId': 'other', 'Timestamp': '1960-01-01'}]", 400, NULL);
  expect("POST", "/api/feedback", "[{'FeedbackType': 'star', 'UserId': 'bob', 'ItemId': 'other', 'Timestamp': '0001-01-01T00:00:00Z'}]", 200, "{'RowAffected': 1}");
  assert_int_equal(n_taken, 1);
  expect("POST", "/api/feedback", "7", 400, NULL);
  expect("DELETE", "/api/item/i3", NULL, 200, NULL);
  expect("POST", "/api/feedback", "[{'FeedbackType': 'star', 'UserId': 'bob', 'ItemId': 'i3'}]", 200, NULL);
  assert_true(catalog_hidden(the_front.catalog, taken.items[0])); /* and stays deleted */
  end();
}

static void slates_are_asked_for_and_told_as_gorse_does(void **s) {
  (void)s;
  begin("slates");
  expect("POST", "/api/items", "[{'ItemId': 'n1', 'Categories': ['a']}]", 200, NULL);
  answer = (ev_answer){.n = 2, .picks = {{.item = index_of("i5"), .score = 2.5f}, {.item = index_of("n1"), .score = -1}}};
  expect("GET", "/api/recommend/bob?n=3&offset=4&write-back-type=read&write-back-delay=10m", NULL, 200, "['i5', 'n1']");
  assert_string_equal(asked_for.user, "bob");
  assert_true(asked_for.n == 3 && asked_for.offset == 4 && asked_for.where == NULL && asked_for.n_recent == 0 && !asked_for.again);
  expect("GET", "/api/recommend/bob/tea \"and\" more", NULL, 200, NULL);
  assert_string_equal(asked_for.where, "categories == \"tea \\\"and\\\" more\"");
  assert_int_equal(asked_for.n, 10);
  uint32_t mask;
  assert_int_equal(catalog_where(the_front.catalog, asked_for.where, &mask), EV_OK);
  expect("GET", "/api/recommend/bob?category=a", NULL, 200, NULL);
  assert_int_equal(catalog_where(the_front.catalog, asked_for.where, &mask), EV_OK);
  assert_false(catalog_barred(the_front.catalog, mask, index_of("n1")));
  assert_true(catalog_barred(the_front.catalog, mask, index_of("i5")));
  expect("GET", "/api/recommend/bob?n=0", NULL, 400, "{'error': 'n must be a whole number from 1 to 500'}");
  expect("GET", "/api/recommend/bob?n=300&offset=201", NULL, 400, "{'error': 'offset must be a whole number from 0 to 200'}");
  expect("GET", "/api/recommend/bob/a/b", NULL, 404, NULL);
  expect("POST", "/api/session/recommend?n=7",
         "[{'FeedbackType': 'x', 'UserId': '', 'ItemId': 'i9', 'Timestamp': '2022-02-24'}, {'ItemId': 'nobody'}, {'ItemId': 'i8', 'Timestamp': '2021-01-01'}, {'ItemId': 'n1'}]", 200,
         "[{'Id': 'i5', 'Score': 2.5}, {'Id': 'n1', 'Score': -1.0}]");
  assert_string_equal(asked_for.user, "");
  assert_true(asked_for.n == 7 && asked_for.n_recent == 3 && asked_for.n_excluded == 3);
  const uint32_t order[] = {index_of("i8"), index_of("i9"), index_of("n1")};
  assert_memory_equal(asked_for.recent, order, sizeof order);
  assert_memory_equal(asked_for.excluded, order, sizeof order);
  expect("POST", "/api/session/recommend/a", "[]", 200, NULL);
  assert_string_equal(asked_for.where, "categories == \"a\"");
  expect("POST", "/api/session/recommend", "{}", 400, NULL);
  expect("POST", "/api/session/recommend", "[{'ItemId': 3}]", 400, NULL);
  expect("POST", "/api/session/recommend?n=x", "[{'ItemId': 'i1'}]", 400, NULL);
  assert_false(was_asked);
  expect("GET", "/api/item/i9/neighbors?n=5", NULL, 200, "[{'Id': 'i5', 'Score': 2.5}, {'Id': 'n1', 'Score': -1.0}]");
  assert_true(asked_for.n == 5 && asked_for.n_recent == 1 && asked_for.n_excluded == 1 && asked_for.recent[0] == order[1] && asked_for.excluded[0] == order[1]);
  expect("GET", "/api/item/i9/neighbors/a", NULL, 200, NULL);
  assert_non_null(asked_for.where);
  expect("GET", "/api/item/nobody/neighbors/a", NULL, 200, "[]");
  assert_false(was_asked);
  char body[20000] = "[";
  for (int i = 0; i < 1100; i++) snprintf(body + strlen(body), 32, "%s{'ItemId':'i%d'}", i > 0 ? "," : "", i % WORLD_ITEMS);
  strcat(body, "]");
  expect("POST", "/api/session/recommend", body, 200, NULL);
  assert_true(asked_for.n_recent == HISTORY_MAX && asked_for.n_excluded == 1100 && asked_for.recent[HISTORY_MAX - 1] == index_of("i99"));
  end();
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(items_and_users_are_put_patched_shown_listed_and_deleted), cmocka_unit_test(the_roles_of_the_routes_are_as_told),
                                     cmocka_unit_test(gorses_items_and_users_come_back_as_they_were_sent), cmocka_unit_test(what_is_wrong_with_gorses_bodies_is_said),
                                     cmocka_unit_test(feedback_becomes_events_that_count_once), cmocka_unit_test(slates_are_asked_for_and_told_as_gorse_does)};
  return cmocka_run_group_tests(tests, make, unmake);
}
