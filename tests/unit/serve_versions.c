/* serve_versions.c - the routes of versions: what is asked of the supervisor, and which bodies are told to be wrong. The front's part of
 * a call stands in here. */
#include "../../runtime/serve/inside.h"
#include "support.h"

static json_t *asked;      /* of the supervisor */
static unsigned code;      /* of an error */
static char said[256];

void call_error(call *c, unsigned status, const char *format, ...) {
  va_list args;
  assert_false(c->answered); /* answered once */
  c->answered = true;
  code = status;
  va_start(args, format);
  vsnprintf(said, sizeof said, format, args);
  va_end(args);
}

json_t *call_body(call *c) {
  json_t *body = json_loadb(c->body.data, c->body.len, JSON_REJECT_DUPLICATES, NULL);
  if (body == NULL) call_error(c, 400, "not JSON");
  return body;
}

static bool gone; /* the supervisor */

void call_fail(call *c, ev_status status) { call_error(c, status == EV_EIO ? 503 : 500, "%s", ev_error()); }

ev_status control_ask(call *c, json_t *command) {
  assert_false(c->answered);
  if (gone) {
    json_decref(command);
    return ev_fail(EV_EIO, "nobody there");
  }
  c->answered = true;
  code = 0;
  asked = command;
  return EV_OK;
}

static const route *find(const char *method, const char *path, const char **rest) {
  for (const route *r = version_routes; r->method != NULL; r++) {
    size_t n = strlen(r->prefix);
    bool prefix = r->prefix[n - 1] == '/';
    if (strcmp(method, r->method) != 0 || (prefix ? strncmp(path, r->prefix, n) : strcmp(path, r->prefix)) != 0) continue;
    *rest = path + n;
    return r;
  }
  fail_msg("no route %s %s", method, path);
  return NULL;
}

static role request(const char *method, const char *path, const char *body) {
  const char *rest = "";
  const route *r = find(method, path, &rest);
  call c = {.method = method, .path = path};
  snprintf(c.rest, sizeof c.rest, "%s", rest);
  if (body != NULL) {
    c.body.data = (char *)(uintptr_t)body;
    c.body.len = strlen(body);
  }
  json_decref(asked);
  asked = NULL;
  code = 999;
  r->fn(&c);
  assert_true(c.answered);
  return r->needs;
}

static void is_asked(const char *method, const char *path, const char *body, role needs, const char *expected) {
  assert_int_equal(request(method, path, body), needs);
  json_t *want = json_loads(expected, 0, NULL);
  assert_non_null(want);
  if (code != 0) fail_msg("%s %s: %u %s", method, path, code, said);
  char *got = json_dumps(asked, JSON_SORT_KEYS);
  if (!json_equal(want, asked)) fail_msg("%s %s asks %s, not %s", method, path, got, expected);
  free(got);
  json_decref(want);
}

static void is_refused(const char *path, const char *body, unsigned status, const char *word) {
  request("POST", path, body);
  if (code != status || strstr(said, word) == NULL) fail_msg("%s %s: %u %s; %u and '%s' expected", path, body, code, said, status, word);
  assert_null(asked);
  assert_null(strchr(said, '\n'));
}

static void what_is_asked_reaches_the_supervisor(void **state) {
  (void)state;
  is_asked("GET", "/version", NULL, ROLE_READ, "{\"op\": \"version\"}");
  is_asked("GET", "/versions", NULL, ROLE_READ, "{\"op\": \"versions\"}");
  is_asked("GET", "/canary", NULL, ROLE_READ, "{\"op\": \"canary_status\"}");
  is_asked("POST", "/canary/stop", NULL, ROLE_ADMIN, "{\"op\": \"canary_stop\"}");
  is_asked("POST", "/reload", "{}", ROLE_ADMIN, "{\"op\": \"reload\"}");
  is_asked("POST", "/rollback", NULL, ROLE_ADMIN, "{\"op\": \"rollback\"}");
  is_asked("POST", "/rollback", "{\"version\": \"0123abcd\"}", ROLE_ADMIN, "{\"op\": \"rollback\", \"version\": \"0123abcd\"}");
  is_asked("POST", "/versions/0123abcd/promote", NULL, ROLE_ADMIN, "{\"op\": \"promote\", \"version\": \"0123abcd\"}");
  is_asked("POST", "/versions/0123abcd/canary", "{\"share\": 0.2, \"options\": {\"harm\": 0.01, \"low\": 0, \"high\": 2, \"slates_per_user\": 3, \"automatic\": false}}", ROLE_ADMIN,
           "{\"op\": \"canary\", \"version\": \"0123abcd\", \"share\": 0.2, \"options\": {\"harm\": 0.01, \"low\": 0, \"high\": 2, \"slates_per_user\": 3, \"automatic\": false}}");
  is_asked("POST", "/versions", "{\"source\": \"agent:ease\"}", ROLE_ADMIN, "{\"op\": \"stage\", \"source\": \"agent:ease\"}");
  is_asked("POST", "/versions", "{\"source\": \"c.yaml\", \"then\": \"canary\", \"share\": 0.1, \"options\": {\"settle_s\": 1}, \"gate\": {\"probes\": 8, \"metric\": \"ndcg@20\"}, \"drop_state\": true}",
           ROLE_ADMIN,
           "{\"op\": \"stage\", \"source\": \"c.yaml\", \"then\": \"canary\", \"share\": 0.1, \"options\": {\"settle_s\": 1}, \"gate\": {\"probes\": 8, \"metric\": \"ndcg@20\"}, \"drop_state\": true}");
  is_asked("POST", "/versions", "{\"source\": \"c.yaml\", \"then\": \"publish\", \"gate\": false}", ROLE_ADMIN, "{\"op\": \"stage\", \"source\": \"c.yaml\", \"then\": \"publish\", \"gate\": false}");
}

static void nobody_says_what_is_done_but_the_route(void **state) {
  (void)state;
  is_refused("/versions", "{\"source\": \"c.yaml\", \"op\": \"reload\"}", 400, "op is not known");
  is_refused("/versions/0123abcd/promote", "{\"version\": \"ffff\"}", 400, "version is not known");
  is_refused("/reload", "{\"op\": \"stage\"}", 400, "op is not known");
}

static void a_wrong_body_is_told_so_in_a_line(void **state) {
  (void)state;
  is_refused("/versions", NULL, 400, "source is missing");
  is_refused("/versions", "{", 400, "not JSON");
  is_refused("/versions", "[]", 400, "an object");
  is_refused("/versions", "{\"source\": \"\"}", 400, "source must be text");
  is_refused("/versions", "{\"source\": 3}", 400, "source must be text");
  is_refused("/versions", "{\"source\": \"a\", \"then\": \"fly\"}", 400, "then must be");
  is_refused("/versions", "{\"source\": \"a\", \"share\": 0.1}", 400, "belong to then");
  is_refused("/versions", "{\"source\": \"a\", \"then\": \"publish\", \"options\": {}}", 400, "belong to then");
  is_refused("/versions", "{\"source\": \"a\", \"then\": \"canary\", \"share\": 2}", 400, "share must be a number from 1e-06 to 1");
  is_refused("/versions", "{\"source\": \"a\", \"drop_state\": 1}", 400, "drop_state must be true or false");
  is_refused("/versions", "{\"source\": \"a\", \"gate\": true}", 400, "gate must be false or an object");
  is_refused("/versions", "{\"source\": \"a\", \"gate\": {\"probes\": 1.5}}", 400, "gate.probes must be a whole number");
  is_refused("/versions", "{\"source\": \"a\", \"gate\": {\"metrics\": \"ndcg@20\"}}", 400, "gate.metrics is not known");
  is_refused("/versions/0123abcd/canary", "{\"options\": {\"low\": 1, \"high\": 1}}", 400, "below options.high");
  is_refused("/versions/0123abcd/canary", "{\"options\": {\"confidence\": 1}}", 400, "options.confidence");
  is_refused("/versions/0123abcd/canary", "{\"options\": {\"automatic\": \"yes\"}}", 400, "options.automatic must be true or false");
  is_refused("/versions/0123abcd/canary", "{\"options\": 3}", 400, "options must be an object");
  is_refused("/rollback", "{\"version\": \"../../etc\"}", 400, "digits");
}

static void a_path_names_a_version_and_what_to_do(void **state) {
  (void)state;
  is_refused("/versions/0123abcd", NULL, 404, "no such path");
  is_refused("/versions/0123abcd/", NULL, 404, "no such path");
  is_refused("/versions/0123abcd/canary/stop", NULL, 404, "no such path");
  is_refused("/versions//promote", NULL, 400, "digits");
  is_refused("/versions/012/promote", NULL, 400, "digits");
  is_refused("/versions/0123ABCD/promote", NULL, 400, "digits");
  is_refused("/versions/0123abcd0123abcd0123abcd0123abcd0123abcd0123abcd0123abcd0123abcd0/promote", NULL, 400, "digits");
}

static void a_supervisor_that_is_gone_is_told_of(void **state) {
  (void)state;
  gone = true;
  is_refused("/versions", "{\"source\": \"agent:ease\"}", 503, "nobody there");
  is_refused("/reload", NULL, 503, "nobody there");
  gone = false;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_asked_reaches_the_supervisor), cmocka_unit_test(nobody_says_what_is_done_but_the_route),
      cmocka_unit_test(a_wrong_body_is_told_so_in_a_line), cmocka_unit_test(a_path_names_a_version_and_what_to_do),
      cmocka_unit_test(a_supervisor_that_is_gone_is_told_of),
  };
  int failed = cmocka_run_group_tests(tests, make_folder, remove_folder);
  json_decref(asked);
  return failed;
}
