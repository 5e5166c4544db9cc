/* commands.c - what the front asks of the supervisor: versions listed, staged, tried, promoted, rolled back. A command that finds no
 * place for a team waits until one is free. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inside.h"

#define LISTED_MAX 100
#define PENDING_MAX 64

static int newest_first(const void *a, const void *b) {
  json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "made_ms")), y = json_integer_value(json_object_get(*(json_t *const *)b, "made_ms"));
  return (x < y) - (x > y);
}

static json_t *list(supervisor *s) {
  char path[4096];
  json_t *found[1024], *out = json_array();
  size_t n = 0;
  snprintf(path, sizeof path, "%s/versions", s->o->home);
  DIR *d = opendir(path);
  for (const struct dirent *e; d != NULL && n < 1024 && (e = readdir(d)) != NULL;) {
    if (strlen(e->d_name) != 64) continue;
    version_path(s, path, e->d_name, "/version.json");
    json_t *o = json_load_file(path, 0, NULL);
    if (!json_is_object(o)) {
      json_decref(o);
      continue;
    }
    const member *m = member_of(s, e->d_name);
    json_object_set_new(o, "state", json_string(m != NULL ? member_state_names[m->state] : version_quarantined(s, e->d_name) ? "quarantined" : "kept"));
    if (m != NULL) json_object_set_new(o, "since_ms", json_integer(m->since_ms));
    found[n++] = o;
  }
  if (d != NULL) closedir(d);
  qsort(found, n, sizeof *found, newest_first);
  for (size_t i = 0; i < n; i++) {
    if (i < LISTED_MAX) json_array_append_new(out, found[i]);
    else json_decref(found[i]);
  }
  return json_pack("{s:o}", "versions", out);
}

static void stage(supervisor *s, const char *source, const char *then, json_t *command, json_int_t ticket, const char *reason) {
  ev_status status = versions_stage(s, source, then, command, ticket, reason);
  if (status == EV_OK) return;
  if (s->pending == NULL) s->pending = json_array();
  if (status == EV_ELIMIT && json_array_size(s->pending) < PENDING_MAX && json_array_append(s->pending, command) == 0) return;
  control_refuse(s, ticket, 503, ev_error());
}

void versions_pending(supervisor *s) {
  json_t *list = s->pending;
  s->pending = NULL;
  for (size_t i = 0; i < json_array_size(list); i++) versions_command(s, json_incref(json_array_get(list, i)));
  json_decref(list);
}

/* The version is loaded, or it is staged and `then` follows. */
static void stage_or(supervisor *s, const char *version, const char *then, json_t *command, json_int_t ticket, const char *reason) {
  member *m = member_of(s, version);
  if (m != NULL && m->state != MEMBER_CHAMPION && !version_quarantined(s, m->version)) {
    member_owe(s, m, ticket);
    member_intend(m, then, reason);
    if (json_object_get(command, "options") != NULL) {
      json_decref(m->options);
      m->options = json_incref(json_object_get(command, "options"));
    }
    member_go_on(s, m);
    return;
  }
  if (m != NULL && m->state == MEMBER_CHAMPION) {
    if (strcmp(then, "canary") == 0) control_refuse(s, ticket, 409, "this version is the champion");
    else control_reply(s, ticket, 200, member_describe(m));
    return;
  }
  stage(s, version, then, command, ticket, reason);
}

static json_t *live(const supervisor *s, const member *champion) {
  char error[1024];
  size_t n_workers, n_confined = board_confined(s->b, &n_workers);
  board_error(s->b, error);
  return json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:s}", "version", champion != NULL ? champion->version : "", "composition", champion != NULL ? champion->source : s->source,
                   "data", s->o->data, "since_ms", (json_int_t)(champion != NULL ? champion->since_ms : 0), "generation",
                   (json_int_t)atomic_load(&s->b->reloads) + (champion != NULL), "confined", n_workers > 0 && n_confined == n_workers, "error", error);
}

static void verdict(supervisor *s, const json_t *command) { /* of the canary's own tests */
  member *m = member_in(s, MEMBER_CHALLENGER);
  const char *action = json_string_value(json_object_get(command, "action")), *why = json_string_value(json_object_get(command, "why"));
  const char *version = json_string_value(json_object_get(command, "version"));
  if (m == NULL || action == NULL || version == NULL || strcmp(version, m->version) != 0) return;
  if (strcmp(action, "promote") == 0) {
    if (!m->ordered) return;
    member_publish(s, m, "promote", why != NULL ? why : "the canary", json_object_get(command, "evidence"));
  } else {
    member_end_canary(s, m, why != NULL ? why : "the canary", json_object_get(command, "evidence"));
  }
}

void versions_command(supervisor *s, json_t *command) {
  const char *op = json_string_value(json_object_get(command, "op")), *version = json_string_value(json_object_get(command, "version"));
  const char *then = json_string_value(json_object_get(command, "then")), *source = json_string_value(json_object_get(command, "source"));
  json_t *t = json_object_get(command, "ticket");
  json_int_t ticket = json_is_integer(t) ? json_integer_value(t) : -1;
  member *challenger = member_in(s, MEMBER_CHALLENGER), *reserve = member_in(s, MEMBER_RESERVE), *champion = member_in(s, MEMBER_CHAMPION);
  const json_t *share = json_object_get(command, "share");
  if (json_is_number(share)) { /* it is an option like the others, and has a place of its own */
    if (!json_is_object(json_object_get(command, "options"))) json_object_set_new(command, "options", json_object());
    json_object_set(json_object_get(command, "options"), "share", (json_t *)(uintptr_t)share);
  }
  if (op == NULL) control_refuse(s, ticket, 400, "a command has an op");
  else if (strcmp(op, "verdict") == 0) verdict(s, command);
  else if (strcmp(op, "version") == 0) control_reply(s, ticket, 200, live(s, champion));
  else if (strcmp(op, "versions") == 0) control_reply(s, ticket, 200, list(s));
  else if (s->stopping) control_refuse(s, ticket, 503, "the service is stopping");
  else if (champion == NULL) control_refuse(s, ticket, 503, "no version is live");
  else if (strcmp(op, "stage") == 0) {
    if (source == NULL) control_refuse(s, ticket, 400, "source is missing");
    else stage(s, source, then != NULL ? then : "nothing", command, ticket, "staged by hand");
  } else if (strcmp(op, "reload") == 0) {
    stage(s, s->source, "publish", command, ticket, "loaded again by hand");
  } else if (strcmp(op, "canary") == 0) {
    if (version == NULL) control_refuse(s, ticket, 400, "version is missing");
    else stage_or(s, version, "canary", command, ticket, "tried by hand");
  } else if (strcmp(op, "promote") == 0) {
    if (version == NULL && challenger == NULL) control_refuse(s, ticket, 409, "no canary is running: say which version");
    else stage_or(s, version != NULL ? version : challenger->version, "publish", command, ticket, "promoted by hand");
  } else if (strcmp(op, "canary_stop") == 0) {
    if (challenger == NULL) {
      control_refuse(s, ticket, 409, "no canary is running");
    } else {
      json_t *body = member_describe(challenger);
      member_end_canary(s, challenger, "stopped by hand", NULL);
      control_reply(s, ticket, 200, body);
    }
  } else if (strcmp(op, "rollback") == 0) {
    if (version != NULL) { /* it served before: there is no time for a gate, and its own learning state is still there */
      json_object_set_new(command, "gate", json_false());
      json_object_set_new(command, "drop_state", json_true());
      stage_or(s, version, "publish", command, ticket, ROLLED_BACK);
    } else if (challenger != NULL) { /* what is on trial goes first */
      member_end_canary(s, challenger, "rolled back by hand", NULL);
      control_reply(s, ticket, 200, member_describe(champion));
    } else if (reserve != NULL) {
      stage_or(s, reserve->version, "publish", command, ticket, ROLLED_BACK);
    } else {
      control_refuse(s, ticket, 409, "there is no version to go back to; say which one (see `evection versions`)");
    }
  } else {
    control_refuse(s, ticket, 400, "no such op");
  }
  json_decref(command);
}
