/* front.c - the process that speaks HTTP: threads, connections, and which handler gets a call.
 *
 * Each thread has an epoll, a libmicrohttpd daemon on a socket of its own (SO_REUSEPORT) and a share of the board's slots; the first
 * one also has the admin socket and the supervisor's. A call that waits for a worker, the ledger or the supervisor is suspended. No
 * Lua runs here. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "inside.h"

#define BODY_MAX (1u << 20)
#define DRAIN_MS 5000
#define IDLE_S 30u           /* without a byte */
#define SLOW_MS 20000        /* from one request's end to the next one's whole head and body, once there is a byte */
#define SWEEP_MS 1000
#define CONNECTIONS_MAX 4096u
#define PER_CLIENT_MAX 4000u
#define ATTACH_MS 5000
#define CONNECTION_BYTES 36864 /* for a request's head; above 32 KiB the library maps it, and gives all of it back */

typedef struct connection { /* of a thread's list: those that drip are closed */
  struct MHD_Connection *c;
  int fd;
  uint64_t since_ns; /* of its last whole request, or of its opening */
  bool busy;         /* a call of it is being answered */
  struct connection *next, *before;
} connection;

/* ---- Calls ---------------------------------------------------------------------------------------------*/
front *call_front(const call *c) { return c->at->f; }

void call_text(call *c, unsigned code, const char *type, const char *text, size_t len) {
  if (text != NULL) {
    ev_buf_clear(&c->response);
    if (ev_buf_append(&c->response, text, len) != EV_OK) code = 500;
  }
  c->code = code;
  c->type = type;
  c->answered = true;
}

void call_json(call *c, unsigned code, json_t *document) {
  char *text = document != NULL ? json_dumps(document, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY) : NULL;
  json_decref(document);
  if (text != NULL) call_text(c, code, "application/json", text, strlen(text));
  else call_text(c, 500, "application/json", "{\"error\":\"out of memory\"}", 25);
  free(text);
}

void call_error(call *c, unsigned code, const char *format, ...) {
  char why[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(why, sizeof why, format, args);
  va_end(args);
  call_json(c, code, json_pack("{s:s}", "error", ev_text_mend(why)));
}

void call_fail(call *c, ev_status status) {
  unsigned code = status == EV_EINVAL ? 400 : status == EV_ENOTFOUND ? 404 : status == EV_EEXIST ? 409 : status == EV_ELIMIT ? 413 : status == EV_EIO ? 503 : 500;
  call_error(c, code, "%s", ev_error());
}

const char *call_arg(const call *c, const char *name) { return MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, name); }

const char *call_header(const call *c, const char *name) { return MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, name); }

json_t *call_body(call *c) {
  json_error_t error;
  json_t *o = json_loadb(c->body.data != NULL ? c->body.data : "", c->body.len, JSON_REJECT_DUPLICATES, &error);
  if (o == NULL) call_error(c, 400, "the body is not JSON: %s (line %d)", error.text, error.line);
  return o;
}

void call_hold(call *c) {
  if (c->held) return;
  c->held = true;
  c->at->n_held++;
  MHD_suspend_connection(c->connection);
}

void call_go_on(call *c) {
  if (!c->held) return;
  c->held = false;
  c->at->n_held--;
  MHD_resume_connection(c->connection);
}

static void call_free(call *c) {
  if (c->work_free != NULL) c->work_free(c->work);
  ev_buf_free(&c->body);
  ev_buf_free(&c->response);
  free(c);
}

/* ---- Routes --------------------------------------------------------------------------------------------*/
static const route *const tables[] = {recommend_routes, event_routes, status_routes, version_routes, catalog_routes, gorse_routes};

static bool matches(const route *r, const char *path, const char **rest) {
  size_t n = strlen(r->prefix);
  if (strncmp(path, r->prefix, n) != 0) return false;
  *rest = path + n;
  if (r->prefix[n - 1] != '/') return **rest == '\0';
  return r->deep || strchr(*rest, '/') == NULL || strncmp(r->prefix, "/recommend/", 11) == 0;
}

static const char *token_of(const call *c) {
  const char *text = call_header(c, "X-API-Key"), *bearer = call_header(c, "Authorization");
  if (text == NULL && bearer != NULL && strncmp(bearer, "Bearer ", 7) == 0) text = bearer + 7;
  return text;
}

static bool admitted(call *c, role needs) {
  front *f = call_front(c);
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  if (!c->admin_socket && info != NULL && !guard_allows(f->guard, info->client_addr, c->started_ns)) {
    atomic_fetch_add(&c->at->n.refused, 1);
    call_error(c, 429, "too many requests: slow down");
    return false;
  }
  if (needs == ROLE_NONE) return true;
  c->role = guard_role(f->guard, token_of(c), c->admin_socket);
  if (c->role >= needs) return true;
  call_error(c, c->role == ROLE_NONE ? 401 : 403, needs == ROLE_ADMIN ? "this is for administrators: a token, or the socket control.sock" : "a token is needed (X-API-Key, or Authorization: Bearer)");
  return false;
}

/* The route with the longest prefix that fits; *allowed: of one that fits but for the method. */
static const route *route_of(const call *c, const char **rest, const char **allowed) {
  const route *best = NULL;
  *allowed = NULL;
  *rest = "";
  for (size_t k = 0; k < sizeof tables / sizeof *tables; k++)
    for (const route *r = tables[k]; r->method != NULL; r++) {
      const char *behind;
      if (!matches(r, c->path, &behind)) continue;
      if (strcmp(r->method, c->method) != 0 && !(strcmp(c->method, "HEAD") == 0 && strcmp(r->method, "GET") == 0)) {
        *allowed = r->method;
      } else if (best == NULL || strlen(r->prefix) > strlen(best->prefix)) {
        best = r;
        *rest = behind;
      }
    }
  return best;
}

static void answer(call *c) {
  const char *rest = "", *allowed;
  const route *r = route_of(c, &rest, &allowed);
  if (c->too_large) call_error(c, 413, "the body is larger than 1 MiB");
  else if (r == NULL && allowed != NULL) call_error(c, 405, "not by %.10s; %s is taken here", c->method, allowed);
  else if (r == NULL) call_error(c, 404, "no such path; see docs/openapi.yaml");
  else if (!admitted(c, r->needs)) return;
  else if (strlen(rest) >= sizeof c->rest || ev_utf8_invalid(rest, strlen(rest)) != strlen(rest)) call_error(c, 400, "the path's last part must be at most %d bytes of UTF-8", USER_MAX);
  else {
    snprintf(c->rest, sizeof c->rest, "%s", rest);
    r->fn(c);
  }
}

static enum MHD_Result respond(call *c) {
  http_thread *t = c->at;
  if (c->response.data == NULL && ev_buf_append(&c->response, "", 0) != EV_OK) return MHD_NO;
  struct MHD_Response *m = MHD_create_response_from_buffer(c->response.len, c->response.data, MHD_RESPMEM_MUST_COPY);
  if (m == NULL) return MHD_NO;
  MHD_add_response_header(m, "Content-Type", c->type);
  if (c->code == 405) MHD_add_response_header(m, "Allow", "GET, POST, PUT, PATCH, DELETE");
  if (c->code == 429) MHD_add_response_header(m, "Retry-After", "1");
  if (c->code == 401) MHD_add_response_header(m, "WWW-Authenticate", "Bearer");
  enum MHD_Result result = MHD_queue_response(c->connection, c->code, m);
  MHD_destroy_response(m);
  c->told = true;
  atomic_fetch_add_explicit(&t->n.requests, 1, memory_order_relaxed);
  if (c->code >= 400) atomic_fetch_add_explicit(&t->n.errors, 1, memory_order_relaxed);
  return result;
}

/* ---- What cannot be meant ----------------------------------------------------------------------------------
 * A request whose length can be read in two ways would be one request to somebody before us and two to us. */
typedef struct framing {
  unsigned lengths, encodings, hosts;
  bool unknown;
} framing;

static enum MHD_Result look_at_header(void *ctx, enum MHD_ValueKind kind, const char *key, const char *value) {
  framing *h = ctx;
  (void)kind;
  h->lengths += strcasecmp(key, "Content-Length") == 0;
  h->hosts += strcasecmp(key, "Host") == 0;
  if (strcasecmp(key, "Transfer-Encoding") != 0) return MHD_YES;
  h->encodings++;
  h->unknown = h->unknown || value == NULL || strcasecmp(value, "chunked") != 0;
  return MHD_YES;
}

static bool is_ambiguous(struct MHD_Connection *mc) {
  framing h = {0};
  MHD_get_connection_values(mc, MHD_HEADER_KIND, look_at_header, &h);
  return h.lengths > 1 || h.encodings > 1 || h.hosts > 1 || (h.lengths > 0 && h.encodings > 0) || h.unknown;
}

/* %00 would end a text early: it becomes a byte that no UTF-8 has. */
static size_t decode(void *ctx, struct MHD_Connection *mc, char *s) {
  (void)ctx;
  (void)mc;
  for (char *p = s; (p = strstr(p, "%00")) != NULL; p += 3) memcpy(p, "%FF", 3);
  return MHD_http_unescape(s);
}

/* ---- libmicrohttpd ---------------------------------------------------------------------------------------*/
static connection *connection_of(struct MHD_Connection *c) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return info != NULL ? info->socket_context : NULL;
}

static enum MHD_Result handle(http_thread *t, bool admin, struct MHD_Connection *mc, const char *url, const char *method, const char *data, size_t *data_len, void **state) {
  call *c = *state;
  if (c == NULL) { /* the headers are in */
    c = calloc(1, sizeof *c);
    if (c == NULL) return MHD_NO;
    *c = (call){.connection = mc, .at = t, .admin_socket = admin, .started_ns = ev_now_ns(), .type = "application/json"};
    *state = c;
    connection *k = connection_of(mc);
    if (k != NULL) k->since_ns = c->started_ns;
    if (!is_ambiguous(mc)) return MHD_YES;
    call_error(c, 400, "how long this request is can be read in two ways");
    return respond(c); /* before the body: the connection is closed behind it */
  }
  if (*data_len > 0) {
    if (c->body.len + *data_len > BODY_MAX) c->too_large = true;
    else if (ev_buf_append(&c->body, data, *data_len) != EV_OK) return MHD_NO;
    *data_len = 0;
    return MHD_YES;
  }
  if (c->held || c->told) return MHD_YES;
  if (!c->answered) {
    connection *k = connection_of(mc);
    if (k != NULL) k->busy = true;
    c->method = method;
    c->path = url;
    c->started_ns = ev_now_ns(); /* its time begins when it is whole: a slow client's request would be late, and the version's fault */
    answer(c);
    if (!c->held && !c->answered) call_error(c, 500, "nobody answered");
  }
  return c->held ? MHD_YES : respond(c);
}

static enum MHD_Result handle_http(void *ctx, struct MHD_Connection *mc, const char *url, const char *method, const char *version, const char *data, size_t *data_len, void **state) {
  (void)version;
  return handle(ctx, false, mc, url, method, data, data_len, state);
}

static enum MHD_Result handle_admin(void *ctx, struct MHD_Connection *mc, const char *url, const char *method, const char *version, const char *data, size_t *data_len, void **state) {
  (void)version;
  return handle(ctx, true, mc, url, method, data, data_len, state);
}

static void completed(void *ctx, struct MHD_Connection *mc, void **state, enum MHD_RequestTerminationCode why) {
  (void)ctx;
  (void)why;
  connection *k = connection_of(mc);
  if (k != NULL) {
    k->since_ns = ev_now_ns();
    k->busy = false;
  }
  if (*state != NULL) call_free(*state);
  *state = NULL;
}

static void connected(void *ctx, struct MHD_Connection *mc, void **socket_context, enum MHD_ConnectionNotificationCode what) {
  http_thread *t = ctx;
  connection *k = *socket_context;
  if (what == MHD_CONNECTION_NOTIFY_STARTED) {
    k = calloc(1, sizeof *k);
    if (k == NULL) return;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD);
    *k = (connection){.c = mc, .fd = info != NULL ? info->connect_fd : -1, .since_ns = ev_now_ns(), .next = t->connections};
    if (k->next != NULL) k->next->before = k;
    t->connections = k;
    *socket_context = k;
  } else if (k != NULL) {
    if (k->next != NULL) k->next->before = k->before;
    if (k->before != NULL) k->before->next = k->next;
    else t->connections = k->next;
    free(k);
    *socket_context = NULL;
  }
}

/* The client is gone in the middle of a request: its end came in one piece with what it had said, and the library waits for more. */
static bool hung_up(const connection *k, uint64_t now) {
  char byte;
  return now > k->since_ns + (uint64_t)SWEEP_MS * 1000000 && recv(k->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void sweep(http_thread *t, uint64_t now) { /* a client that drips its request byte by byte is never idle */
  if (now < t->swept_ns + (uint64_t)SWEEP_MS * 1000000) return;
  t->swept_ns = now;
  for (connection *k = t->connections; k != NULL; k = k->next)
    if (!k->busy && k->fd >= 0 && (now > k->since_ns + (uint64_t)SLOW_MS * 1000000 || hung_up(k, now))) shutdown(k->fd, SHUT_RDWR);
}

/* ---- Threads -------------------------------------------------------------------------------------------*/
static ev_status watch_one(const http_thread *t, int fd) {
  struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
  return epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &e) == 0 ? EV_OK : ev_fail_errno("epoll");
}

static ev_status listen_on(http_thread *t, int fd, bool admin) {
  unsigned most = CONNECTIONS_MAX;
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < most * (t->f->n_threads + 1) + 256) most = (unsigned)((files.rlim_cur - 256) / (t->f->n_threads + 1));
  struct MHD_Daemon *d = MHD_start_daemon(
      MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, admin ? handle_admin : handle_http, t, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, completed, t,
      MHD_OPTION_NOTIFY_CONNECTION, connected, t, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, MHD_OPTION_CONNECTION_LIMIT, most, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
      admin ? 0u : PER_CLIENT_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_UNESCAPE_CALLBACK, decode, NULL, MHD_OPTION_END);
  if (d == NULL) return ev_fail(EV_EIO, "cannot start the HTTP server");
  t->daemons[t->n_daemons++] = d;
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(d, MHD_DAEMON_INFO_EPOLL_FD);
  return info != NULL ? watch_one(t, info->epoll_fd) : ev_fail(EV_EIO, "the HTTP server has no epoll");
}

static int run_daemons(http_thread *t, int wait) {
  for (size_t i = 0; i < t->n_daemons; i++) {
    MHD_UNSIGNED_LONG_LONG most;
    MHD_run(t->daemons[i]);
    if (MHD_get_timeout(t->daemons[i], &most) == MHD_YES && (wait < 0 || most < (MHD_UNSIGNED_LONG_LONG)wait)) wait = (int)most;
  }
  return wait;
}

static void collect(http_thread *t) {
  dispatch_collect(t);
  scribe_collect(t->f->scribe, t->index, events_kept, t);
  control_collect(t);
}

static void turn(http_thread *t, int most_ms) {
  front *f = t->f;
  bell_hush(f->bells->thread[t->index]);
  if (t->index == 0) control_heard(f);
  collect(t);
  sweep(t, ev_now_ns());
  int wait = run_daemons(t, most_ms);
  int own = dispatch_wait_ms(t);
  if (own >= 0 && (wait < 0 || own < wait)) wait = own;
  if (wait < 0 || wait > SWEEP_MS) wait = SWEEP_MS;
  atomic_store(&f->b->asleep[t->index], 1);
  struct epoll_event events[64];
  if (wait > 0 && dispatch_ready(t)) wait = 0; /* answered before it said that it sleeps */
  epoll_wait(t->epoll, events, 64, wait);
  atomic_store(&f->b->asleep[t->index], 0);
}

static void *run(void *ctx) {
  http_thread *t = ctx;
  front *f = t->f;
  uint64_t canary_ns = 0, stop_ns = 0;
  while (stop_ns == 0 || ((t->n_held > 0 || t->n_jobs > 0 || scribe_waiting(f->scribe, t->index) > 0) && ev_now_ns() < stop_ns)) {
    turn(t, stop_ns != 0 ? 20 : -1);
    if (t->index == 0 && ev_now_ns() >= canary_ns + 100000000) {
      canary_ns = ev_now_ns();
      canary_work(f);
    }
    if (stop_ns == 0 && atomic_load(&f->b->stopping) != 0) {
      stop_ns = ev_now_ns() + (uint64_t)DRAIN_MS * 1000000;
      for (size_t i = 0; i < t->n_daemons; i++) MHD_quiesce_daemon(t->daemons[i]);
    }
  }
  for (int i = 0; i < 3; i++) run_daemons(t, 0); /* the last answers leave */
  return NULL;
}

static ev_status open_thread(front *f, const sockets *s, size_t i) {
  http_thread *t = &f->threads[i];
  *t = (http_thread){.f = f, .index = i, .epoll = epoll_create1(EPOLL_CLOEXEC)};
  if (t->epoll < 0) return ev_fail_errno("epoll");
  if (getrandom(&t->first_id, sizeof t->first_id, 0) != sizeof t->first_id) return ev_fail_errno("no random numbers");
  for (uint32_t k = 0; k < SLOTS_MAX; k++)
    if ((SLOTS_MAX - 1 - k) % f->n_threads == i) t->free_slots[t->n_free++] = SLOTS_MAX - 1 - k; /* low ones are taken first: less memory is touched */
  EV_TRY(watch_one(t, f->bells->thread[i]));
  EV_TRY(scribe_attach(f->scribe, i, ATTACH_MS));
  int fd = s->http[i % s->n_http];
  if (i >= s->n_http) fd = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* one socket for several: each daemon closes its own */
  if (fd < 0) return ev_fail_errno("dup");
  EV_TRY(listen_on(t, fd, false));
  if (i > 0) return EV_OK;
  EV_TRY(watch_one(t, f->control));
  return s->admin >= 0 ? listen_on(t, s->admin, true) : EV_OK;
}

/* Events of before are a part of what users have seen. */
static ev_status replay(front *f) {
  char path[4096];
  ev_ledger *l = NULL;
  sqlite3_stmt *s = NULL;
  snprintf(path, sizeof path, "%s/ledger.db", f->o->home);
  EV_TRY(ev_ledger_open(&l, path));
  ev_status status = EV_OK;
  int code = SQLITE_DONE;
  if (sqlite3_prepare_v2(ev_ledger_db(l), "SELECT user, item FROM events ORDER BY number", -1, &s, NULL) != SQLITE_OK) status = ev_fail(EV_EIO, "ledger: %s", sqlite3_errmsg(ev_ledger_db(l)));
  while (status == EV_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
    const char *user = (const char *)sqlite3_column_text(s, 0), *item = (const char *)sqlite3_column_text(s, 1);
    uint32_t index = user != NULL && item != NULL ? catalog_known(f->catalog, item, strlen(item)) : EV_NONE;
    if (index != EV_NONE) status = users_add(f->users, user, index);
  }
  if (status == EV_OK && code != SQLITE_DONE) status = ev_fail(EV_EIO, "ledger: %s", sqlite3_errmsg(ev_ledger_db(l)));
  sqlite3_finalize(s);
  ev_ledger_close(l);
  return status;
}

static ev_status open_front(front *f, const sockets *s) {
  char path[4096];
  f->n_threads = (size_t)f->o->http_threads;
  pthread_rwlock_init(&f->canary_lock, NULL);
  snprintf(path, sizeof path, "%s/live/%s", f->o->home, f->o->data);
  EV_TRY(guard_open(&f->guard, f->o->tokens, f->o->rate_per_s, f->o->burst));
  EV_TRY(users_open(&f->users, f->snapshot));
  EV_TRY(catalog_open(&f->catalog, path, f->snapshot, f->b));
  EV_TRY(dispatch_open(&f->dispatch, f));
  f->threads = ev_zalloc(f->n_threads, sizeof *f->threads);
  if (f->threads == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < f->n_threads; i++) EV_TRY(open_thread(f, s, i));
  EV_TRY(replay(f));
  snprintf(path, sizeof path, "%s/canary.json", f->o->home);
  if (atomic_load(&f->b->challenger) != 0 && ev_file_exists(path)) { /* a front before died in the middle of one */
    json_t *options = json_load_file(path, 0, NULL);
    if (options != NULL) canary_begin(f, options);
    json_decref(options);
  }
  return EV_OK;
}

ev_status front_run(front *f, sockets *s) {
  EV_TRY(open_front(f, s));
  for (size_t i = 1; i < f->n_threads; i++)
    if (pthread_create(&f->threads[i].id, NULL, run, &f->threads[i]) != 0) return ev_fail(EV_EIO, "cannot start a thread");
  run(&f->threads[0]);
  for (size_t i = 1; i < f->n_threads; i++) pthread_join(f->threads[i].id, NULL);
  for (size_t i = 0; i < f->n_threads; i++)
    for (size_t k = 0; k < f->threads[i].n_daemons; k++) {
      for (const connection *c = f->threads[i].connections; c != NULL; c = c->next) shutdown(c->fd, SHUT_RD);
      MHD_run(f->threads[i].daemons[k]);
    }
  return EV_OK; /* the process ends here, and with it all that is open */
}
