/* control.c - the front's questions to the supervisor, and the canary that runs in the front.
 *
 * The first thread reads what the supervisor says; an answer goes to the thread that has its call. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "inside.h"

#define MESSAGE_MAX (1u << 20)
#define SAVE_MS 5000

typedef struct asked { /* a call that waits for the supervisor */
  call *c;
  json_int_t ticket;
  unsigned code;
  bool rewarded;       /* a list of versions, to which the ledger has to say something */
  json_t *body;
  struct asked *next;
} asked;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static asked *waiting;
static json_int_t tickets;

static ev_status say(const front *f, json_t *message) { /* takes it */
  char *text = message != NULL ? json_dumps(message, JSON_COMPACT) : NULL;
  json_decref(message);
  if (text == NULL) return ev_fail(EV_ENOMEM, "out of memory");
  if (strlen(text) >= MESSAGE_MAX) { /* it would come in part, and be answered by nobody */
    free(text);
    return ev_fail(EV_ELIMIT, "the command is too long");
  }
  ssize_t n = send(f->control, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
  free(text);
  return n >= 0 ? EV_OK : ev_fail_errno("the supervisor does not listen");
}

static void show_canary(call *c) {
  front *f = call_front(c);
  pthread_rwlock_rdlock(&f->canary_lock);
  json_t *status = f->canary != NULL ? canary_status(f->canary) : NULL;
  pthread_rwlock_unlock(&f->canary_lock);
  call_json(c, 200, status != NULL ? status : json_pack("{s:b}", "running", 0));
}

ev_status control_ask(call *c, json_t *command) {
  const char *op = json_string_value(json_object_get(command, "op"));
  if (op != NULL && strcmp(op, "canary_status") == 0) {
    json_decref(command);
    show_canary(c);
    return EV_OK;
  }
  asked *a = calloc(1, sizeof *a);
  if (a == NULL) {
    json_decref(command);
    call_error(c, 500, "out of memory");
    return EV_ENOMEM;
  }
  pthread_mutex_lock(&lock);
  if (tickets == 0) tickets = (json_int_t)ev_wall_ms() << 16; /* never again one that a front before had: its answer may still come */
  *a = (asked){.c = c, .ticket = ++tickets, .rewarded = op != NULL && strcmp(op, "versions") == 0, .next = waiting};
  waiting = a;
  json_object_set_new(command, "ticket", json_integer(a->ticket));
  ev_status status = say(call_front(c), command);
  if (status != EV_OK) waiting = a->next;
  pthread_mutex_unlock(&lock);
  if (status == EV_OK) {
    call_hold(c);
  } else {
    free(a);
    call_error(c, 503, "%s", ev_error());
  }
  return status;
}

static void answered(const front *f, json_t *said) {
  json_int_t ticket = json_integer_value(json_object_get(said, "ticket"));
  pthread_mutex_lock(&lock);
  asked **at = &waiting;
  while (*at != NULL && (*at)->ticket != ticket) at = &(*at)->next;
  asked *a = *at;
  if (a != NULL) {
    http_thread *t = a->c->at;
    *at = a->next;
    a->code = (unsigned)json_integer_value(json_object_get(said, "code"));
    a->body = json_incref(json_object_get(said, "body"));
    json_object_del(said, "body"); /* from now on it is that thread's alone */
    a->next = t->told;
    t->told = a;
    bell_ring(f->bells->thread[t->index]);
  }
  pthread_mutex_unlock(&lock);
}

void control_heard(front *f) {
  static char text[MESSAGE_MAX + 1];
  for (;;) {
    ssize_t n = recv(f->control, text, MESSAGE_MAX, MSG_DONTWAIT);
    if (n <= 0) return;
    json_t *said = json_loadb(text, (size_t)n, 0, NULL);
    const char *notice = json_string_value(json_object_get(said, "notice"));
    if (notice == NULL) answered(f, said);
    else if (strcmp(notice, "canary") == 0) canary_begin(f, json_object_get(said, "options"));
    else if (strcmp(notice, "canary over") == 0) canary_end(f);
    json_decref(said);
  }
}

void control_collect(http_thread *t) {
  pthread_mutex_lock(&lock);
  asked *list = t->told;
  t->told = NULL;
  pthread_mutex_unlock(&lock);
  while (list != NULL) {
    asked *a = list;
    list = a->next;
    if (a->rewarded && a->code == 200) versions_rewarded(t->f, a->body);
    call_json(a->c, a->code, a->body);
    call_go_on(a->c);
    free(a);
  }
}

/* ---- The canary -------------------------------------------------------------------------------------------*/
static void state_path(const front *f, char out[4096]) { snprintf(out, 4096, "%s/canary.state", f->o->home); }

double json_number_or(const json_t *o, const char *key, double fallback) {
  const json_t *v = json_object_get(o, key);
  return json_is_number(v) ? json_number_value(v) : fallback;
}

static void read_options(canary_options *out, const json_t *o) {
  const char *challenger = json_string_value(json_object_get(o, "challenger")), *champion = json_string_value(json_object_get(o, "champion"));
  const json_t *automatic = json_object_get(o, "automatic");
  canary_defaults(out);
  snprintf(out->challenger, sizeof out->challenger, "%s", challenger != NULL ? challenger : "");
  snprintf(out->champion, sizeof out->champion, "%s", champion != NULL ? champion : "");
  out->share = json_number_or(o, "share", out->share);
  out->salt = (uint64_t)json_integer_value(json_object_get(o, "salt"));
  out->test.margin = json_number_or(o, "margin", out->test.margin);
  out->test.harm = json_number_or(o, "harm", out->test.harm);
  out->test.low = json_number_or(o, "low", out->test.low);
  out->test.high = json_number_or(o, "high", out->test.high);
  out->test.confidence = json_number_or(o, "confidence", out->test.confidence);
  out->test.caution = json_number_or(o, "caution", out->test.caution);
  out->slates_per_user = (unsigned)json_number_or(o, "slates_per_user", out->slates_per_user);
  out->settle_ms = (int64_t)(1000 * json_number_or(o, "settle_s", (double)out->settle_ms / 1000));
  out->window_ms = (int64_t)(1000 * json_number_or(o, "window_s", (double)out->window_ms / 1000));
  out->errors_max = json_number_or(o, "errors_max", out->errors_max);
  out->late_ms = json_number_or(o, "late_ms", out->late_ms);
  if (automatic != NULL) out->automatic = json_is_true(automatic);
}

/* Instead of what runs. */
static void put_canary(front *f, canary *c, lately *slates) {
  pthread_rwlock_wrlock(&f->canary_lock);
  canary *before = f->canary;
  lately *slates_before = f->lately;
  f->canary = c;
  f->lately = slates;
  pthread_rwlock_unlock(&f->canary_lock);
  canary_free(before);
  lately_free(slates_before);
}

void canary_begin(front *f, const json_t *options) {
  canary_options o;
  char path[4096];
  canary *c = NULL, *kept = NULL;
  read_options(&o, options);
  state_path(f, path);
  if (ev_file_exists(path) && canary_load(&kept, path) == EV_OK && canary_is(kept, &o)) { /* it goes on where a front before stood */
    c = kept;
  } else {
    canary_free(kept);
    if (canary_new(&c, &o) != EV_OK) ev_log(EV_LOG_ERROR, "canary: %s", ev_error());
  }
  lately *slates = c != NULL ? lately_new() : NULL;
  if (c != NULL && slates == NULL) ev_log(EV_LOG_WARN, "canary: no memory for who proposed what: rewards are not told by agent");
  put_canary(f, c, slates);
}

void canary_end(front *f) { put_canary(f, NULL, NULL); }

void canary_work(front *f) {
  static int64_t saved_ms;
  int64_t now = ev_wall_ms();
  char why[256] = "", path[4096];
  json_t *message = NULL;
  pthread_rwlock_rdlock(&f->canary_lock);
  if (f->canary != NULL) {
    canary_verdict v = canary_tick(f->canary, now, why);
    if (v != CANARY_WAITS && canary_opts(f->canary)->automatic) {
      message = json_pack("{s:s, s:s, s:s, s:s, s:o}", "op", "verdict", "version", canary_opts(f->canary)->challenger, "action",
                          v == CANARY_PROMOTES ? "promote" : "roll back", "why", why, "evidence", canary_status(f->canary));
    }
    if (now >= saved_ms + SAVE_MS) {
      saved_ms = now;
      state_path(f, path);
      if (canary_save(f->canary, path) != EV_OK) ev_log(EV_LOG_WARN, "canary: %s", ev_error());
    }
  }
  pthread_rwlock_unlock(&f->canary_lock);
  if (message == NULL) return;
  if (say(f, message) != EV_OK) ev_log(EV_LOG_ERROR, "%s", ev_error());
  else canary_end(f); /* the supervisor acts on it once */
}
