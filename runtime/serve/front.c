/* front.c - the event loop and HTTP. Routes:
 *
 *   GET  /recommend/{user}?n=   a slate          GET /healthz  alive        GET /version  what is served, and why not
 *   POST /events                what happened    GET /readyz   a version is live          GET /metrics  Prometheus text
 *
 * libmicrohttpd runs on our own epoll: a connection that waits for a worker or for the ledger is suspended, and resumed with
 * its answer. The ledger's writer is a thread of its own, which hands back what is on disk over an eventfd: events that
 * come at the same time share a sync. A slate is logged as an impression without waiting for it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "inside.h"

#define BODY_MAX (1u << 20)
#define USER_MAX 256
#define DRAIN_MS 5000
#define TEACH_EVENTS 256 /* in one message to a worker */
#define LEDGER_BUSY_MS 2000 /* a client waits for a locked ledger twice that at most */
#define N_BUCKETS 10

static const double buckets_ms[N_BUCKETS] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000};

struct request {
  struct MHD_Connection *connection;
  ev_buf body;         /* of a POST */
  char user[USER_MAX + 1];
  size_t n;
  uint64_t started_ns;
  bool refused, waiting, answered; /* body too large; suspended; response is set */
  unsigned code;
  char *response;      /* JSON, owned */
  parsed_events events; /* that are on their way to the disk */
  struct front *front; /* of them; and what the ledger said: */
  ev_status kept;
  ev_ledger_receipt receipt;
  char why[256];
  struct request *next; /* of those that the ledger has done with */
};

typedef struct front {
  const ev_serve_options *o;
  struct MHD_Daemon *daemon;
  ev_snapshot *snapshot;
  ev_ledger_writer *ledger;
  pthread_mutex_t done_lock;
  request *done, **done_end; /* under the lock: the ledger has done with them */
  size_t n_posted;           /* requests that wait for the ledger */
  users *users;
  fleet *fleet;
  int epoll_fd, signal_fd, listen_fd, done_fd;
  uint16_t port;
  bool stopping;
  uint64_t stop_ns;
  int64_t since_ms;    /* the live version */
  uint64_t requests, errors, degraded, events, impressions, impressions_lost, latency[N_BUCKETS + 1];
  double latency_sum_ms;
  uint64_t first_id;   /* ids of impressions: drawn at the start, and counted on */
} front;

/* ---- Responses -----------------------------------------------------------------------------------------*/
static void set_response(request *r, unsigned code, json_t *document) { /* takes the document */
  free(r->response);
  r->response = document != NULL ? json_dumps(document, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(document);
  r->code = r->response != NULL ? code : 500;
  r->answered = true;
}

static void set_error(request *r, unsigned code, const char *message) { set_response(r, code, json_pack("{s:s}", "error", message)); }

static enum MHD_Result send_response(front *f, request *r, const char *type) {
  const char *text = r->response != NULL ? r->response : "{\"error\":\"out of memory\"}";
  struct MHD_Response *m = MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
  if (m == NULL) return MHD_NO;
  MHD_add_response_header(m, "Content-Type", type);
  if (r->code == 405) MHD_add_response_header(m, "Allow", "GET, POST");
  enum MHD_Result result = MHD_queue_response(r->connection, r->code, m);
  MHD_destroy_response(m);
  f->requests++;
  if (r->code >= 400) f->errors++;
  return result;
}

/* ---- Impressions ---------------------------------------------------------------------------------------*/
static double propensity_of(const json_t *o) { /* a slate that nobody drew by chance has propensity 1; NaN: who drew it could not tell */
  const json_t *p = json_object_get(o, "propensity");
  return p == NULL ? 1 : json_is_number(p) ? json_number_value(p) : NAN;
}

/* Recalls that proposed the item, joined by '+'; NULL: nobody says. */
static const char *agent_of(char out[256], const json_t *item) {
  size_t i, used = 0;
  json_t *source;
  json_array_foreach(json_object_get(item, "sources"), i, source) {
    const char *name = json_string_value(source);
    if (name != NULL && used < 255) used += (size_t)snprintf(out + used, 256 - used, "%s%s", used > 0 ? "+" : "", name);
  }
  return used > 0 ? out : NULL;
}

/* The slate goes to the ledger; *id is its name there, or "" when it could not be taken. */
static void log_impression(front *f, const request *r, const char *version, double propensity, const json_t *list, char id[40]) {
  static char agents[SLATE_MAX][256];
  static ev_shown shown[SLATE_MAX];
  size_t k, n = 0;
  json_t *item;
  id[0] = '\0';
  if (f->o->no_impressions || f->ledger == NULL || isnan(propensity)) return;
  json_array_foreach(list, k, item) {
    const char *name = json_string_value(json_object_get(item, "id"));
    if (name == NULL || n >= SLATE_MAX) continue;
    shown[n] = (ev_shown){name, propensity_of(item), agent_of(agents[n], item), (uint32_t)(k + 1)};
    n++;
  }
  if (n == 0) return;
  snprintf(id, 40, "%016llx-%llx", (unsigned long long)f->first_id, (unsigned long long)++f->impressions);
  ev_impression i = {id, r->user, version[0] != '\0' ? version : "fallback", propensity, ev_wall_ms(), shown, n};
  if (ev_ledger_post(f->ledger, &(ev_ledger_batch){.impressions = &i, .n_impressions = 1}, NULL, NULL) == EV_OK) return;
  if (f->impressions_lost++ == 0) ev_log(EV_LOG_ERROR, "a slate was not logged: %s", ev_error());
  id[0] = '\0';
}

/* A worker's words (NULL: none came) → the response, and the connection goes on. */
static void answer(void *ctx, request *r, const char *json, size_t len, const char *version) {
  front *f = ctx;
  json_t *said = json != NULL ? json_loadb(json, len, 0, NULL) : NULL, *items = json_object_get(said, "items");
  const char *why = json_string_value(json_object_get(said, "error"));
  bool degraded = !json_is_array(items);
  if (why != NULL) ev_log(EV_LOG_ERROR, "version %.12s: %s", version, why);
  json_t *list = degraded ? users_fallback(f->users, r->user, r->n) : json_incref(items);
  char id[40];
  double propensity = degraded ? 1 : propensity_of(said);
  log_impression(f, r, degraded ? "fallback" : version, propensity, list, id);
  json_t *document = json_pack("{s:s, s:s, s:b, s:o}", "user", r->user, "version", version, "degraded", degraded, "items", list);
  if (!degraded && json_object_get(said, "propensity") != NULL && document != NULL)
    json_object_set_new(document, "propensity", isnan(propensity) ? json_null() : json_real(propensity));
  if (id[0] != '\0' && document != NULL) json_object_set_new(document, "impression", json_string(id));
  set_response(r, 200, document);
  if (degraded) f->degraded++;
  double ms = (double)(ev_now_ns() - r->started_ns) * 1e-6;
  size_t b = 0;
  while (b < N_BUCKETS && ms > buckets_ms[b]) b++;
  f->latency[b]++;
  f->latency_sum_ms += ms;
  json_decref(said);
  if (r->waiting) {
    r->waiting = false;
    MHD_resume_connection(r->connection);
  }
}

/* ---- Routes --------------------------------------------------------------------------------------------*/
static void recommend(front *f, request *r, const char *user) {
  const char *text = MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, "n");
  int64_t n = 10;
  size_t len = strlen(user);
  if (text != NULL && (!ev_parse_i64(text, strlen(text), &n) || n < 1 || n > SLATE_MAX)) {
    set_error(r, 400, "n must be a whole number from 1 to 500");
    return;
  }
  if (len == 0 || len > USER_MAX || ev_utf8_invalid(user, len) != len) {
    set_error(r, 400, "the user must be 1 to 256 bytes of UTF-8");
    return;
  }
  memcpy(r->user, user, len + 1);
  r->n = (size_t)n;
  json_t *message = users_request(f->users, user, r->n);
  char *dump = message != NULL ? json_dumps(message, JSON_COMPACT) : NULL;
  json_decref(message);
  r->waiting = true;
  MHD_suspend_connection(r->connection);
  if (fleet_version(f->fleet)[0] == '\0' || f->stopping) {
    free(dump);
    answer(f, r, NULL, 0, "");
  } else if (fleet_submit(f->fleet, r, dump) != EV_OK) {
    answer(f, r, NULL, 0, fleet_version(f->fleet));
  }
}

/* Live events reach the agents through one worker; what they learn is in memory that all workers share. */
static void teach(front *f, const parsed_events *e, size_t first, size_t n) {
  json_t *list = json_array();
  for (size_t i = first; i < first + n; i++) {
    uint32_t user = ev_snapshot_find_user(f->snapshot, e->events[i].user, strlen(e->events[i].user));
    json_t *o = json_pack("{s:I, s:s, s:f, s:f}", "item", (json_int_t)e->items[i], "type", e->events[i].type, "value", e->events[i].value, "time",
                          (double)e->events[i].time_ms / 1000);
    if (user != EV_NONE) json_object_set_new(o, "user", json_integer(user));
    json_array_append_new(list, o);
  }
  json_t *message = json_pack("{s:s, s:o}", "op", "learn", "events", list);
  char *dump = json_dumps(message, JSON_COMPACT);
  json_decref(message);
  if (fleet_version(f->fleet)[0] == '\0') free(dump);
  else if (fleet_submit(f->fleet, NULL, dump) != EV_OK) ev_log(EV_LOG_WARN, "agents did not learn of %zu events: %s", n, ev_error());
}

/* In the ledger's thread. */
static void events_kept(void *ctx, ev_status status, const char *error, const ev_ledger_receipt *receipt) {
  request *r = ctx;
  front *f = r->front;
  r->kept = status;
  r->receipt = *receipt;
  r->next = NULL;
  snprintf(r->why, sizeof r->why, "%s", error);
  pthread_mutex_lock(&f->done_lock);
  *f->done_end = r;
  f->done_end = &r->next;
  pthread_mutex_unlock(&f->done_lock);
  uint64_t one = 1;
  ssize_t n = write(f->done_fd, &one, sizeof one); /* the counter never overflows */
  (void)n;
}

static void answer_events(front *f, request *r) {
  const parsed_events *e = &r->events;
  size_t n_new = r->receipt.new_events;
  if (r->kept != EV_OK) {
    set_error(r, r->kept == EV_EINVAL ? 400 : 503, r->why); /* nothing was kept; after a 503 the client may send it again */
    return;
  }
  /* A batch with old events in it is rare; learning twice from those costs less than asking for each. */
  for (size_t i = 0; i < e->n && n_new > 0; i++)
    if (users_add(f->users, e->events[i].user, e->items[i]) != EV_OK) ev_log(EV_LOG_ERROR, "%s", ev_error());
  for (size_t i = 0; i < e->n && n_new > 0; i += TEACH_EVENTS) teach(f, e, i, e->n - i < TEACH_EVENTS ? e->n - i : TEACH_EVENTS);
  f->events += n_new;
  json_t *document = json_pack("{s:I, s:I}", "accepted", (json_int_t)(e->n - r->receipt.expired), "new", (json_int_t)n_new);
  if (document != NULL && r->receipt.expired > 0) json_object_set_new(document, "expired", json_integer((json_int_t)r->receipt.expired));
  set_response(r, 200, document);
}

static void take_done(front *f) {
  uint64_t n;
  ssize_t got = read(f->done_fd, &n, sizeof n);
  (void)got;
  pthread_mutex_lock(&f->done_lock);
  request *list = f->done;
  f->done = NULL;
  f->done_end = &f->done;
  pthread_mutex_unlock(&f->done_lock);
  for (request *r = list, *next; r != NULL; r = next) {
    next = r->next;
    f->n_posted--;
    answer_events(f, r);
    events_free(&r->events);
    r->waiting = false;
    MHD_resume_connection(r->connection);
  }
}

static void take_events(front *f, request *r) {
  if (f->ledger == NULL) {
    set_error(r, 503, "the service is stopping");
    return;
  }
  ev_status status = events_parse(&r->events, r->body.data, r->body.len, f->snapshot);
  if (status != EV_OK) {
    set_error(r, status == EV_ENOTFOUND ? 404 : status == EV_ELIMIT ? 413 : 400, ev_error());
    return;
  }
  r->front = f;
  r->waiting = true;
  MHD_suspend_connection(r->connection);
  f->n_posted++;
  status = ev_ledger_post(f->ledger, &(ev_ledger_batch){.events = r->events.events, .n_events = r->events.n}, events_kept, r);
  if (status == EV_OK) return;
  f->n_posted--;
  r->waiting = false;
  events_free(&r->events);
  set_error(r, status == EV_EINVAL ? 400 : 503, ev_error());
  MHD_resume_connection(r->connection);
}

static void show_version(front *f, request *r) {
  set_response(r, 200, json_pack("{s:s, s:i, s:s, s:s, s:I, s:s}", "version", fleet_version(f->fleet), "generation", fleet_generation(f->fleet), "composition",
                                 f->o->composition, "data", f->o->data, "since_ms", (json_int_t)f->since_ms, "error", fleet_error(f->fleet)));
}

static void show_metrics(front *f, request *r) {
  const fleet_counts *c = fleet_count(f->fleet);
  ev_buf b = {0};
  const struct {
    const char *name, *help;
    uint64_t value;
  } counters[] = {{"requests", "HTTP requests answered", f->requests}, {"errors", "responses with status 400 or above", f->errors},
                  {"degraded", "slates from the fallback", f->degraded}, {"events", "events kept", f->events},
                  {"impressions", "slates handed to the ledger", f->impressions}, {"impressions_lost", "slates that its queue had no room for", f->impressions_lost},
                  {"worker_deaths", "script workers that died", c->deaths}, {"late", "requests that passed their deadline", c->late},
                  {"reloads", "versions taken live", c->reloads}, {"failed_reloads", "edits that were not taken", c->failed_reloads}};
  for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
    ev_buf_printf(&b, "# HELP evection_%s_total %s\n# TYPE evection_%s_total counter\nevection_%s_total %llu\n", counters[i].name, counters[i].help,
                  counters[i].name, counters[i].name, (unsigned long long)counters[i].value);
  ev_buf_printf(&b, "# HELP evection_recommend_ms time to a slate\n# TYPE evection_recommend_ms histogram\n");
  uint64_t sum = 0;
  for (size_t i = 0; i < N_BUCKETS; i++) {
    sum += f->latency[i];
    ev_buf_printf(&b, "evection_recommend_ms_bucket{le=\"%g\"} %llu\n", buckets_ms[i], (unsigned long long)sum);
  }
  sum += f->latency[N_BUCKETS];
  ev_buf_printf(&b, "evection_recommend_ms_bucket{le=\"+Inf\"} %llu\nevection_recommend_ms_sum %g\nevection_recommend_ms_count %llu\n", (unsigned long long)sum,
                f->latency_sum_ms, (unsigned long long)sum);
  free(r->response);
  r->response = b.data != NULL ? strdup(b.data) : NULL;
  r->code = r->response != NULL ? 200 : 500;
  r->answered = true;
  ev_buf_free(&b);
}

static void route(front *f, request *r, const char *method, const char *url) {
  bool get = strcmp(method, "GET") == 0, post = strcmp(method, "POST") == 0;
  static const char prefix[] = "/recommend/";
  bool to_recommend = strncmp(url, prefix, sizeof prefix - 1) == 0, to_events = strcmp(url, "/events") == 0;
  bool known = to_recommend || to_events || strcmp(url, "/healthz") == 0 || strcmp(url, "/readyz") == 0 || strcmp(url, "/version") == 0 || strcmp(url, "/metrics") == 0;
  if (!known) set_error(r, 404, "no such path; /recommend/{user}, /events, /version, /healthz, /readyz and /metrics are known");
  else if (to_events ? !post : !get) set_error(r, 405, to_events ? "POST events here" : "GET this");
  else if (r->refused) set_error(r, 413, "the body is larger than 1 MiB");
  else if (to_recommend) recommend(f, r, url + sizeof prefix - 1);
  else if (to_events) take_events(f, r);
  else if (strcmp(url, "/version") == 0) show_version(f, r);
  else if (strcmp(url, "/metrics") == 0) show_metrics(f, r);
  else if (strcmp(url, "/healthz") == 0) set_response(r, 200, json_pack("{s:b}", "alive", 1));
  else if (fleet_version(f->fleet)[0] == '\0' || f->stopping) set_error(r, 503, "no version is live");
  else set_response(r, 200, json_pack("{s:b}", "ready", 1));
}

/* ---- libmicrohttpd ---------------------------------------------------------------------------------------*/
static enum MHD_Result handle(void *ctx, struct MHD_Connection *connection, const char *url, const char *method, const char *version, const char *data,
                              size_t *data_len, void **state) {
  (void)version;
  front *f = ctx;
  request *r = *state;
  if (r == NULL) { /* the headers are in */
    r = calloc(1, sizeof *r);
    if (r == NULL) return MHD_NO;
    r->connection = connection;
    r->started_ns = ev_now_ns();
    *state = r;
    return MHD_YES;
  }
  if (*data_len > 0) {
    if (r->body.len + *data_len > BODY_MAX) r->refused = true;
    else if (ev_buf_append(&r->body, data, *data_len) != EV_OK) return MHD_NO;
    *data_len = 0;
    return MHD_YES;
  }
  if (r->waiting) return MHD_YES;
  if (!r->answered) route(f, r, method, url);
  if (!r->answered || r->waiting) return MHD_YES; /* suspended */
  return send_response(f, r, strcmp(url, "/metrics") == 0 && r->code == 200 ? "text/plain; version=0.0.4" : "application/json");
}

static void completed(void *ctx, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why) {
  (void)ctx;
  (void)connection;
  (void)why;
  request *r = *state;
  if (r == NULL) return;
  events_free(&r->events);
  ev_buf_free(&r->body);
  free(r->response);
  free(r);
  *state = NULL;
}

/* ---- The loop ------------------------------------------------------------------------------------------*/
static void in_child(void *ctx) {
  front *f = ctx;
  close(f->listen_fd);
  close(f->signal_fd);
  close(f->done_fd);
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(f->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  if (info != NULL) close(info->epoll_fd);
  close(f->epoll_fd);
  for (int fd = 3; fd < 1024; fd++) { /* connections: a worker must not keep them open */
    int flags = fcntl(fd, F_GETFD);
    if (flags < 0) continue;
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) == 0 && (a.ss_family == AF_INET || a.ss_family == AF_INET6)) close(fd);
  }
}

static void published(void *ctx, const char *version) {
  front *f = ctx;
  bool first = f->since_ms == 0;
  f->since_ms = ev_wall_ms();
  if (first && f->o->json) {
    json_t *document = json_pack("{s:s, s:s, s:s, s:i}", "composition", f->o->composition, "version", version, "host", f->o->host, "port", f->port);
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
    putchar('\n');
    json_decref(document);
  } else if (f->o->json) ev_log(EV_LOG_INFO, "version %.12s is live", version);
  else if (first) printf("serving %s version %.12s on http://%s:%u\n", f->o->composition, version, f->o->host, f->port);
  else printf("version %.12s is live\n", version);
  fflush(stdout);
}

static ev_status listen_on(front *f) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(f->o->port)};
  socklen_t n = sizeof a;
  int yes = 1;
  if (inet_pton(AF_INET, f->o->host, &a.sin_addr) != 1) return ev_fail(EV_EINVAL, "--host: '%.60s' is no IPv4 address", f->o->host);
  f->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (f->listen_fd < 0) return ev_fail_errno("socket");
  setsockopt(f->listen_fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(f->listen_fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(f->listen_fd, 1024) != 0 || getsockname(f->listen_fd, (struct sockaddr *)&a, &n) != 0)
    return ev_fail_errno("cannot listen on %s:%u", f->o->host, f->o->port);
  f->port = ntohs(a.sin_port);
  f->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, handle, f, MHD_OPTION_LISTEN_SOCKET, f->listen_fd,
                               MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_CONNECTION_TIMEOUT, 30u, MHD_OPTION_CONNECTION_LIMIT, 900u,
                               MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)65536, MHD_OPTION_END);
  return f->daemon != NULL ? EV_OK : ev_fail(EV_EIO, "cannot start the HTTP server");
}

static ev_status watch_fd(front *f, int fd) {
  struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
  return epoll_ctl(f->epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0 ? EV_OK : ev_fail_errno("epoll");
}

/* Events of earlier runs are a part of what users have seen. */
static ev_status replay(front *f, ev_ledger *l) {
  sqlite3_stmt *s = NULL;
  sqlite3 *db = ev_ledger_db(l);
  if (sqlite3_prepare_v2(db, "SELECT user, item FROM events ORDER BY time_ms, number", -1, &s, NULL) != SQLITE_OK) return ev_fail(EV_EIO, "ledger: %s", sqlite3_errmsg(db));
  ev_status status = EV_OK;
  int code;
  while (status == EV_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
    const char *user = (const char *)sqlite3_column_text(s, 0), *item = (const char *)sqlite3_column_text(s, 1);
    uint32_t index = user != NULL && item != NULL ? ev_snapshot_find_item(f->snapshot, item, strlen(item)) : EV_NONE;
    if (index != EV_NONE) status = users_add(f->users, user, index);
  }
  if (status == EV_OK && code != SQLITE_DONE) status = ev_fail(EV_EIO, "ledger: %s", sqlite3_errmsg(db));
  sqlite3_finalize(s);
  return status;
}

static ev_status open_ledger(front *f, const char *path) {
  ev_ledger *l;
  EV_TRY(ev_ledger_open(&l, path));
  ev_status status = replay(f, l);
  ev_ledger_close(l);
  EV_TRY(status);
  if (getrandom(&f->first_id, sizeof f->first_id, 0) != sizeof f->first_id) return ev_fail_errno("no random numbers");
  ev_ledger_writer_options o;
  ev_ledger_writer_defaults(&o);
  o.busy_ms = LEDGER_BUSY_MS;
  return ev_ledger_writer_open(&f->ledger, path, &o);
}

/* What was taken is written and answered; nothing comes after this. */
static ev_status close_ledger(front *f, ev_status before) {
  char message[512];
  snprintf(message, sizeof message, "%s", ev_error());
  ev_status status = ev_ledger_writer_close(f->ledger);
  f->ledger = NULL;
  take_done(f);
  if (before == EV_OK) return status;
  return ev_fail(before, "%s", message);
}

static void take_signals(front *f) {
  struct signalfd_siginfo info;
  while (read(f->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
    if (info.ssi_signo == SIGHUP) {
      if (fleet_load(f->fleet) != EV_OK) ev_log(EV_LOG_ERROR, "%s", ev_error());
    } else if (!f->stopping) {
      f->stopping = true;
      f->stop_ns = ev_now_ns() + (uint64_t)DRAIN_MS * 1000000;
      MHD_quiesce_daemon(f->daemon);
    } else {
      f->stop_ns = 0; /* asked twice: now */
    }
  }
}

static ev_status loop(front *f) {
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(f->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  EV_TRY(watch_fd(f, info->epoll_fd));
  EV_TRY(watch_fd(f, f->signal_fd));
  EV_TRY(watch_fd(f, f->done_fd));
  EV_TRY(fleet_load(f->fleet));
  for (;;) {
    MHD_UNSIGNED_LONG_LONG mhd_wait;
    if (MHD_run(f->daemon) != MHD_YES) return ev_fail(EV_EIO, "the HTTP server failed");
    int wait = fleet_tick(f->fleet); /* after the requests that have just come: their deadlines bound the wait */
    if (MHD_get_timeout(f->daemon, &mhd_wait) == MHD_YES && (wait < 0 || mhd_wait < (MHD_UNSIGNED_LONG_LONG)wait)) wait = (int)mhd_wait;
    if (f->stopping) {
      if ((fleet_waiting(f->fleet) == 0 && f->n_posted == 0) || ev_now_ns() >= f->stop_ns) return EV_OK;
      wait = wait < 0 || wait > 50 ? 50 : wait;
    }
    if (f->since_ms == 0 && fleet_error(f->fleet)[0] != '\0') return ev_fail(EV_EINVAL, "%s", fleet_error(f->fleet)); /* the first version never came up */
    struct epoll_event events[64];
    int n = epoll_wait(f->epoll_fd, events, 64, wait);
    if (n < 0 && errno != EINTR) return ev_fail_errno("epoll");
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == f->signal_fd) take_signals(f);
      else if (fd == f->done_fd) take_done(f);
      else if (fleet_watches(f->fleet, fd)) fleet_edited(f->fleet);
      else fleet_event(f->fleet, fd);
    }
  }
}

ev_status ev_serve(const ev_serve_options *o) {
  front f = {.o = o, .epoll_fd = -1, .signal_fd = -1, .listen_fd = -1, .done_fd = -1, .done_lock = PTHREAD_MUTEX_INITIALIZER};
  fleet_hooks hooks = {&f, answer, in_child, published};
  char path[4096];
  sigset_t signals, before;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGHUP);
  sigprocmask(SIG_BLOCK, &signals, &before);
  snprintf(path, sizeof path, "%s/ledger.db", o->home);
  ev_status status = ev_snapshot_open(&f.snapshot, o->snapshot_path);
  f.done_end = &f.done;
  if (status == EV_OK) status = users_open(&f.users, f.snapshot);
  if (status == EV_OK) status = open_ledger(&f, path); /* its thread has the signals blocked, as this one */
  if (status == EV_OK) status = listen_on(&f);
  if (status == EV_OK) {
    f.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    f.signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    f.done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (f.epoll_fd < 0 || f.signal_fd < 0 || f.done_fd < 0) status = ev_fail_errno("epoll");
  }
  if (status == EV_OK) status = fleet_open(&f.fleet, o, f.epoll_fd, &hooks);
  if (status == EV_OK) status = loop(&f);
  fleet_close(f.fleet); /* whoever still waits gets the fallback */
  status = close_ledger(&f, status);
  if (f.daemon != NULL) {
    MHD_run(f.daemon);
    MHD_stop_daemon(f.daemon);
  }
  if (f.listen_fd >= 0 && (f.daemon == NULL || f.stopping)) close(f.listen_fd);
  if (f.epoll_fd >= 0) close(f.epoll_fd);
  if (f.signal_fd >= 0) close(f.signal_fd);
  if (f.done_fd >= 0) close(f.done_fd);
  users_close(f.users);
  ev_snapshot_close(f.snapshot);
  sigprocmask(SIG_SETMASK, &before, NULL);
  return status;
}
