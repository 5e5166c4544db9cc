/* events.c - what happened: the body of POST /events, checked whole before anything is kept; then the ledger's scribe, and when it is
 * on disk, or in the ring if the client asked for no more, the users' histories, the agents and the canary. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inside.h"

#define EVENTS_MAX 10000
#define EVENT_TEXT_MAX 256

static ev_status text_field(const json_t *o, size_t i, const char *key, const char *fallback, const char **out) {
  const json_t *v = json_object_get(o, key);
  *out = fallback;
  if (v == NULL && fallback != NULL) return EV_OK;
  if (!json_is_string(v)) return ev_fail(EV_EINVAL, "event %zu: %s must be text", i, key);
  *out = json_string_value(v);
  size_t n = json_string_length(v);
  if (n == 0 || n > EVENT_TEXT_MAX || strlen(*out) != n) return ev_fail(EV_EINVAL, "event %zu: %s must have 1 to %d bytes and no NUL", i, key, EVENT_TEXT_MAX);
  return EV_OK;
}

static ev_status number_field(const json_t *o, size_t i, const char *key, double fallback, double *out) {
  const json_t *v = json_object_get(o, key);
  *out = v == NULL ? fallback : json_number_value(v);
  if ((v != NULL && !json_is_number(v)) || !isfinite(*out) || fabs(*out) > 9e15) return ev_fail(EV_EINVAL, "event %zu: %s must be a number", i, key);
  return EV_OK;
}

static ev_status parse_one(parsed_events *out, size_t i, const json_t *o, const catalog *c) {
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
  out->items[i] = catalog_known(c, e->item, strlen(e->item));
  if (out->items[i] == EV_NONE) return ev_fail(EV_ENOTFOUND, "event %zu: unknown item '%.60s'", i, e->item);
  return EV_OK;
}

ev_status events_parse(parsed_events *out, const char *body, size_t len, const catalog *c) {
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
  for (size_t i = 0; i < out->n && status == EV_OK; i++) status = parse_one(out, i, many ? json_array_get(out->document, i) : out->document, c);
  if (status != EV_OK) events_free(out);
  return status;
}

void events_free(parsed_events *e) {
  ev_free(e->events);
  ev_free(e->items);
  json_decref(e->document);
  *e = (parsed_events){0};
}

/* ---- To the ledger ---------------------------------------------------------------------------------------*/
typedef struct on_its_way {
  call *c;
  parsed_events e;
  events_form_fn *form;
} on_its_way;

static void free_way(void *work) {
  on_its_way *w = work;
  if (w == NULL) return;
  events_free(&w->e);
  free(w);
}

static void own_form(call *c, size_t n, size_t n_new, size_t n_expired) {
  json_t *document = json_pack("{s:I, s:I}", "accepted", (json_int_t)(n - n_expired), "new", (json_int_t)n_new);
  if (document != NULL && n_expired > 0) json_object_set_new(document, "expired", json_integer((json_int_t)n_expired));
  call_json(c, 200, document);
}

/* Who had what, who learns of it, whose arm it counts for: before the client hears of it, so that his next slate knows. */
static void take_effect(http_thread *t, const parsed_events *e) {
  front *f = t->f;
  for (size_t i = 0; i < e->n; i++)
    if (users_add(f->users, e->events[i].user, e->items[i]) != EV_OK) ev_log(EV_LOG_ERROR, "%s", ev_error());
  lessons_send(t, e);
  atomic_fetch_add(&t->n.events, e->n);
  if (atomic_load(&f->b->challenger) == 0) return;
  pthread_rwlock_rdlock(&f->canary_lock);
  for (size_t i = 0; i < e->n && f->canary != NULL; i++) {
    const char *agents[32];
    size_t n = f->lately != NULL ? lately_agents(f->lately, e->events[i].impression, e->items[i], agents) : 0;
    canary_event(f->canary, e->events[i].user, e->events[i].value, agents, n, ev_wall_ms());
  }
  pthread_rwlock_unlock(&f->canary_lock);
}

/* A ticket came back. */
void events_kept(void *ctx, void *ticket, ev_status status, const char *error, const ev_ledger_receipt *receipt) {
  http_thread *t = ctx;
  on_its_way *w = ticket;
  call *c = w->c;
  if (status != EV_OK) {
    call_error(c, status == EV_EINVAL ? 400 : 503, "%s", error);
  } else {
    if (receipt->new_events > 0) take_effect(t, &w->e);
    w->form(c, w->e.n, receipt->new_events, receipt->expired);
  }
  call_go_on(c);
}

void events_take(call *c, parsed_events *e, bool queued, events_form_fn *form) {
  http_thread *t = c->at;
  on_its_way *w = calloc(1, sizeof *w);
  if (w == NULL) {
    events_free(e);
    call_error(c, 500, "out of memory");
    return;
  }
  *w = (on_its_way){c, *e, form != NULL ? form : own_form};
  *e = (parsed_events){0};
  c->work = w;
  c->work_free = free_way;
  if (w->e.n == 0) {
    w->form(c, 0, 0, 0);
    return;
  }
  ev_status status = scribe_post(t->f->scribe, t->index, &(ev_ledger_batch){.events = w->e.events, .n_events = w->e.n}, queued ? NULL : w);
  if (status != EV_OK) {
    call_error(c, status == EV_EINVAL ? 413 : 503, "%s", ev_error());
  } else if (queued) {
    take_effect(t, &w->e);
    call_json(c, 202, json_pack("{s:I}", "queued", (json_int_t)w->e.n));
  } else {
    call_hold(c);
  }
}

static void post(call *c) {
  parsed_events e;
  const char *ack = call_arg(c, "ack");
  if (ack != NULL && strcmp(ack, "queued") != 0 && strcmp(ack, "durable") != 0) {
    call_error(c, 400, "ack must be durable or queued");
    return;
  }
  ev_status status = events_parse(&e, c->body.data, c->body.len, call_front(c)->catalog);
  if (status != EV_OK) call_fail(c, status);
  else events_take(c, &e, ack != NULL && strcmp(ack, "queued") == 0, NULL);
}

const route event_routes[] = {{"POST", "/events", ROLE_FEEDBACK, post, false}, {NULL, NULL, ROLE_NONE, NULL, false}};
