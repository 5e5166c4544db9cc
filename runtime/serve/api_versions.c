/* api_versions.c - versions over HTTP: what is live, what is kept, staging, canaries, promotion, rolling back.
 *
 * A body is checked here, so that a mistake in it is told at once; what is asked goes to the supervisor (control_ask), which knows
 * everything and does everything. Routes and bodies: docs/reference/versions.md. */
#include <math.h>
#include <string.h>

#include "inside.h"

#define SOURCE_MAX 4096
#define VERSION_LEAST 4 /* digits of its name */

typedef enum kind { TEXT, NUMBER, WHOLE, FLAG, OBJECT, FLAG_OR_OBJECT, FIELD_END } kind;
typedef struct field {
  const char *name;
  kind kind;
  double low, high; /* of numbers, both included */
} field;

static const field gate_fields[] = {{"probes", WHOLE, 0, 10000}, {"metric", TEXT, 0, 0}, {"margin", NUMBER, 0, 1}, {"users", NUMBER, 1e-9, 1}, {NULL, FIELD_END, 0, 0}};
/* canary_options; settle_s and window_s in seconds */
static const field canary_fields[] = {
    {"share", NUMBER, 1e-6, 1}, {"margin", NUMBER, 0, 1e9}, {"harm", NUMBER, 0, 1e9}, {"low", NUMBER, -1e9, 1e9}, {"high", NUMBER, -1e9, 1e9},
    {"confidence", NUMBER, 0.5, 0.999999}, {"caution", NUMBER, 0.5, 0.999999}, {"slates_per_user", WHOLE, 1, 10000}, {"settle_s", NUMBER, 0, 86400 * 30.0},
    {"window_s", NUMBER, 1e-3, 86400 * 365.0}, {"errors_max", NUMBER, 0, 1}, {"late_ms", NUMBER, 1e-3, 1e6}, {"automatic", FLAG, 0, 0}, {NULL, FIELD_END, 0, 0}};
static const field stage_fields[] = {{"source", TEXT, 0, 0}, {"then", TEXT, 0, 0}, {"share", NUMBER, 1e-6, 1}, {"options", OBJECT, 0, 0},
                                     {"gate", FLAG_OR_OBJECT, 0, 0}, {"drop_state", FLAG, 0, 0}, {NULL, FIELD_END, 0, 0}};
static const field start_fields[] = {{"share", NUMBER, 1e-6, 1}, {"options", OBJECT, 0, 0}, {NULL, FIELD_END, 0, 0}};
static const field rollback_fields[] = {{"version", TEXT, 0, 0}, {NULL, FIELD_END, 0, 0}};
static const field no_fields[] = {{NULL, FIELD_END, 0, 0}};

/* ---- Bodies -----------------------------------------------------------------------------------------------*/
static bool is_in(const json_t *v, const field *f) {
  double x = json_number_value(v);
  return json_is_number(v) && x >= f->low && x <= f->high && (f->kind != WHOLE || x == floor(x));
}

static bool fits(call *c, const char *what, const json_t *v, const field *f) {
  static const char *const words[] = {"text", "a number", "a whole number", "true or false", "an object", "false or an object"};
  bool right = false, number = f->kind == NUMBER || f->kind == WHOLE;
  if (number) right = is_in(v, f);
  else if (f->kind == TEXT) right = json_is_string(v) && json_string_length(v) > 0 && strlen(json_string_value(v)) == json_string_length(v);
  else if (f->kind == FLAG) right = json_is_boolean(v);
  else right = json_is_object(v) || (f->kind == FLAG_OR_OBJECT && json_is_false(v));
  if (right) return true;
  if (number) call_error(c, 400, "%s%s must be %s from %g to %g", what, f->name, words[f->kind], f->low, f->high);
  else call_error(c, 400, "%s%s must be %s", what, f->name, words[f->kind]);
  return false;
}

/* Only what is known, each of its kind; what: "gate." or "". Answers the call when something is wrong. */
static bool check(call *c, const char *what, json_t *o, const field *fields) {
  const char *key;
  json_t *v;
  json_object_foreach(o, key, v) {
    const field *f = fields;
    while (f->name != NULL && strcmp(f->name, key) != 0) f++;
    if (f->name == NULL) {
      call_error(c, 400, "%s%.60s is not known here", what, key);
      return false;
    }
    if (!fits(c, what, v, f)) return false;
  }
  return true;
}

static bool check_options(call *c, json_t *options) {
  if (options == NULL) return true;
  if (!check(c, "options.", options, canary_fields)) return false;
  const json_t *low = json_object_get(options, "low"), *high = json_object_get(options, "high");
  if (low != NULL && high != NULL && json_number_value(low) >= json_number_value(high)) {
    call_error(c, 400, "options.low must be below options.high");
    return false;
  }
  return true;
}

/* The body, or {} when there is none. NULL: the call is answered. */
static json_t *body_of(call *c, const field *fields) {
  json_t *body = c->body.len > 0 ? call_body(c) : json_object();
  if (body == NULL) {
    if (c->body.len == 0) call_error(c, 500, "out of memory");
    return NULL;
  }
  if (!json_is_object(body)) call_error(c, 400, "the body must be an object");
  else if (check(c, "", body, fields)) return body;
  json_decref(body);
  return NULL;
}

static bool is_version(const char *text, size_t len) {
  return len >= VERSION_LEAST && len <= 64 && strspn(text, "0123456789abcdef") >= len;
}

/* "{v}/ACTION" → the version. NULL: the call is answered. */
static json_t *version_of(call *c, size_t len) {
  if (is_version(c->rest, len)) return json_stringn(c->rest, len);
  call_error(c, 400, "a version is %d to 64 digits of its name, 0 to 9 and a to f", VERSION_LEAST);
  return NULL;
}

/* Takes the version and the body. */
static void ask(call *c, const char *op, json_t *version, json_t *body) {
  json_t *command = body != NULL ? body : json_object();
  if (version != NULL) json_object_set_new(command, "version", version);
  if (command == NULL || json_object_set_new(command, "op", json_string(op)) != 0) {
    json_decref(command);
    call_error(c, 500, "out of memory");
    return;
  }
  ev_status status = control_ask(c, command);
  if (status != EV_OK && !c->answered) call_fail(c, status);
}

/* ---- Routes -----------------------------------------------------------------------------------------------*/
static void get_version(call *c) { ask(c, "version", NULL, NULL); }
static void get_versions(call *c) { ask(c, "versions", NULL, NULL); }
static void get_canary(call *c) { ask(c, "canary_status", NULL, NULL); }

static void post_versions(call *c) {
  json_t *body = body_of(c, stage_fields);
  if (body == NULL) return;
  json_t *source = json_object_get(body, "source"), *gate = json_object_get(body, "gate"), *options = json_object_get(body, "options");
  const char *then = json_string_value(json_object_get(body, "then"));
  bool tried = then != NULL && strcmp(then, "canary") == 0;
  if (source == NULL) call_error(c, 400, "source is missing: a composition's file, agent:NAME or a version");
  else if (json_string_length(source) > SOURCE_MAX) call_error(c, 400, "source is longer than %d bytes", SOURCE_MAX);
  else if (then != NULL && !tried && strcmp(then, "nothing") != 0 && strcmp(then, "publish") != 0)
    call_error(c, 400, "then must be \"nothing\", \"publish\" or \"canary\"");
  else if (!tried && (options != NULL || json_object_get(body, "share") != NULL)) call_error(c, 400, "share and options belong to then: \"canary\"");
  else if (check_options(c, options) && (!json_is_object(gate) || check(c, "gate.", gate, gate_fields))) {
    ask(c, "stage", NULL, body);
    return;
  }
  json_decref(body);
}

static void post_of_version(call *c) { /* /versions/{v}/canary, /versions/{v}/promote */
  const char *slash = strchr(c->rest, '/');
  bool tried = slash != NULL && strcmp(slash, "/canary") == 0;
  if (!tried && (slash == NULL || strcmp(slash, "/promote") != 0)) {
    call_error(c, 404, "no such path; there are /versions/{version}/canary and /versions/{version}/promote");
    return;
  }
  json_t *version = version_of(c, (size_t)(slash - c->rest));
  json_t *body = version != NULL ? body_of(c, tried ? start_fields : no_fields) : NULL;
  if (body != NULL && check_options(c, json_object_get(body, "options"))) {
    ask(c, tried ? "canary" : "promote", version, body);
    return;
  }
  json_decref(body);
  json_decref(version);
}

static void post_rollback(call *c) {
  json_t *body = body_of(c, rollback_fields), *version = json_object_get(body, "version");
  if (body == NULL) return;
  if (version == NULL || is_version(json_string_value(version), json_string_length(version))) {
    ask(c, "rollback", NULL, body);
    return;
  }
  call_error(c, 400, "version must be %d to 64 digits of its name, 0 to 9 and a to f", VERSION_LEAST);
  json_decref(body);
}

static void post_plain(call *c, const char *op) {
  json_t *body = body_of(c, no_fields);
  if (body != NULL) ask(c, op, NULL, body);
}
static void post_canary_stop(call *c) { post_plain(c, "canary_stop"); }
static void post_reload(call *c) { post_plain(c, "reload"); }

const route version_routes[] = {
    {"GET", "/version", ROLE_READ, get_version, false},
    {"GET", "/versions", ROLE_READ, get_versions, false},
    {"POST", "/versions", ROLE_ADMIN, post_versions, false},
    {"POST", "/versions/", ROLE_ADMIN, post_of_version, true},
    {"POST", "/rollback", ROLE_ADMIN, post_rollback, false},
    {"GET", "/canary", ROLE_READ, get_canary, false},
    {"POST", "/canary/stop", ROLE_ADMIN, post_canary_stop, false},
    {"POST", "/reload", ROLE_ADMIN, post_reload, false},
    {NULL, NULL, ROLE_NONE, NULL, false},
};
