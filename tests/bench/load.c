/* load.c - requests at a service, and what became of each.
 *
 *   load --url HOST:PORT|unix:PATH [options] → one JSON document
 *
 * One thread, epoll, kept connections, one request at a time on each; nothing is allocated after the start, since generator and
 * service share the machine. With --rate the arrivals are a schedule that waits for nobody, and latency counts from the scheduled
 * time: a service that stalls is charged for everyone who would have come meanwhile (Tene: How not to measure latency, 2013). Without,
 * every connection asks again as soon as it was answered.
 *
 * Each slate is read as far as it must be to be believed: status 200, JSON that ends where it should, as many items as are
 * expected, the user that was asked for, a version. An event is acknowledged by status 200 and
 * "accepted": 1 or more; its number then goes to the file of --acked.
 *
 * Latencies go into buckets of 1/128 of a power of two: 0.8 % wide. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { IN_BYTES = 1 << 18, OUT_BYTES = 1 << 14, VERSIONS = 1 << 15, SUB = 7, BUCKETS = 40 << SUB, SLICES = 512, SAMPLE_BYTES = 1 << 16 };
enum { PAUSE_NS = 2000000, SWEEP_NS = 50000000 }; /* until a lost connection is tried again; between looks for requests that are over time */
typedef enum failure { NONE, CONNECT, CLOSED, TIMEOUT, STATUS, MALFORMED, INCOMPLETE, CROSSED, N_FAILURES } failure;
static const char *const failure_names[N_FAILURES] = {"", "connect", "closed", "timeout", "status", "malformed", "incomplete", "crossed"};

typedef struct text {
  const char *at;
  uint32_t len;
} text;
typedef struct lines { /* of a file */
  char *data;
  text *line;
  size_t n;
} lines;

typedef enum phase { DOWN, CONNECTING, IDLE, ASKING } phase;
typedef struct connection {
  int fd;
  phase phase;
  bool writing, is_event, slotted, asleep; /* slotted: has a request; asleep: until wake_ns */
  uint32_t user;
  uint64_t event;                /* its number */
  uint64_t due_ns, sent_ns, wake_ns; /* due: from where latency counts */
  uint32_t n_out, out_at, n_in, head, n_body; /* head: 0 until the headers are in */
  unsigned status;
  bool closes;
  char out[OUT_BYTES];
  char in[IN_BYTES];
} connection;

typedef struct histogram {
  uint64_t n, max, count[BUCKETS];
} histogram;
typedef struct slice {
  uint64_t requests, failures, degraded;
  histogram h;
} slice;
typedef struct version {
  char name[72];
  uint64_t n, first_ns, last_ns;
} version;

static struct {
  const char *url, *users, *items, *post, *path, *prefix, *acked, *sample, *post_path, *header;
  unsigned connections, expect, slices, sample_every;
  double seconds, rate, post_share;
  uint64_t timeout_ns, seed;
  bool poisson, retry, any_body;
} o = {.path = "/recommend/%s?n=20", .prefix = "load", .post_path = "/events", .connections = 16, .seconds = 5, .timeout_ns = 10000000000u, .seed = 1,
       .slices = 1, .sample_every = 100, .header = ""};

static struct sockaddr_storage address;
static socklen_t address_len;
static lines users, encoded, items, bodies;
static connection *all;
static int epoll_fd;
static uint32_t *ring; /* (connections) those that are free, the longest idle first */
static size_t ring_at, ring_n, n_slotted, n_asleep;
static uint64_t start_ns, end_ns, due_ns, random_state, n_events, slice_ns, late_max;
static uint64_t failures[N_FAILURES], statuses[600], n_asked, n_slates, n_acked, n_degraded, n_fallback, n_retried, n_connects, bytes_in, bytes_out;
static version versions[VERSIONS];
static size_t n_versions;
static slice *slices;
static histogram all_slates, all_events;
static FILE *acked_file, *sample_file;
static volatile sig_atomic_t stopped;
static char first_failure[512];

static _Noreturn void die(const char *what) {
  fprintf(stderr, "load: %s\n", what);
  exit(2);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t draw(void) { /* splitmix64 */
  uint64_t x = random_state += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}
static uint32_t draw_below(size_t n) { return (uint32_t)((draw() >> 32) * n >> 32); }
static double draw_unit(void) { return (double)(draw() >> 11) * 0x1p-53; }

/* ---- Histograms ---------------------------------------------------------------------------------------------*/
static size_t bucket_of(uint64_t v) {
  if (v < 1u << SUB) return v;
  unsigned shift = 63 - (unsigned)__builtin_clzll(v) - SUB;
  size_t b = ((size_t)(shift + 1) << SUB) + (v >> shift & ((1u << SUB) - 1));
  return b < BUCKETS ? b : BUCKETS - 1;
}

static double middle_of(size_t b) {
  if (b < 1u << SUB) return (double)b;
  unsigned shift = (unsigned)(b >> SUB) - 1;
  return ldexp((double)((1u << SUB) + (b & ((1u << SUB) - 1))) + 0.5, (int)shift);
}

static void histogram_add(histogram *h, uint64_t v) {
  h->n++;
  if (v > h->max) h->max = v;
  h->count[bucket_of(v)]++;
}

static double quantile_ms(const histogram *h, double q) {
  uint64_t want = (uint64_t)ceil(q * (double)h->n), seen = 0;
  if (h->n == 0) return 0;
  for (size_t b = 0; b < BUCKETS; b++) {
    seen += h->count[b];
    if (seen >= want && seen > 0) return fmin(middle_of(b), (double)h->max) / 1e6;
  }
  return (double)h->max / 1e6;
}

static void print_histogram(const histogram *h) {
  printf("{\"n\": %llu, \"p50\": %.4f, \"p90\": %.4f, \"p99\": %.4f, \"p999\": %.4f, \"max\": %.4f}", (unsigned long long)h->n, quantile_ms(h, .5),
         quantile_ms(h, .9), quantile_ms(h, .99), quantile_ms(h, .999), (double)h->max / 1e6);
}

/* ---- What to send -------------------------------------------------------------------------------------------*/
static lines lines_of(const char *path) {
  lines l = {0};
  FILE *f = fopen(path, "rb");
  if (f == NULL) die(path);
  struct stat st;
  if (fstat(fileno(f), &st) != 0 || (l.data = malloc((size_t)st.st_size + 1)) == NULL) die(path);
  size_t len = fread(l.data, 1, (size_t)st.st_size, f), n = 1;
  fclose(f);
  for (size_t i = 0; i < len; i++) n += l.data[i] == '\n';
  l.line = malloc(n * sizeof *l.line);
  if (l.line == NULL) die("out of memory");
  for (char *p = l.data, *end = l.data + len; p < end;) {
    char *stop = memchr(p, '\n', (size_t)(end - p));
    if (stop == NULL) stop = end;
    if (stop > p) l.line[l.n++] = (text){p, (uint32_t)(stop - p)};
    p = stop + 1;
  }
  if (l.n == 0) die("a file of lines has none");
  return l;
}

static lines encoded_of(const lines *l) { /* for a path */
  lines e = {.n = l->n, .line = malloc(l->n * sizeof *e.line)};
  size_t total = 0;
  for (size_t i = 0; i < l->n; i++) total += 3 * (size_t)l->line[i].len;
  char *p = e.data = malloc(total + 1);
  if (e.line == NULL || p == NULL) die("out of memory");
  for (size_t i = 0; i < l->n; i++) {
    char *from = p;
    for (uint32_t k = 0; k < l->line[i].len; k++) {
      unsigned char c = (unsigned char)l->line[i].at[k];
      if (isalnum(c) || strchr("-._~", c) != NULL) *p++ = (char)c;
      else p += sprintf(p, "%%%02X", c);
    }
    e.line[i] = (text){from, (uint32_t)(p - from)};
  }
  return e;
}

static bool put(connection *c, const char *s, size_t len) {
  if (c->n_out + len > OUT_BYTES) return false;
  memcpy(c->out + c->n_out, s, len);
  c->n_out += (uint32_t)len;
  return true;
}
static bool put_text(connection *c, const char *s) { return put(c, s, strlen(s)); }

static void compose(connection *c) {
  char head[256];
  bool fits = true;
  c->n_out = c->out_at = c->n_in = c->head = c->n_body = 0;
  if (!c->is_event) {
    const char *hole = strstr(o.path, "%s");
    fits = put_text(c, "GET ") && put(c, o.path, hole != NULL ? (size_t)(hole - o.path) : strlen(o.path));
    if (hole != NULL) fits = fits && put(c, encoded.line[c->user].at, encoded.line[c->user].len) && put_text(c, hole + 2);
    fits = fits && put_text(c, " HTTP/1.1\r\nHost: load\r\n") && put_text(c, o.header) && put_text(c, "\r\n");
  } else {
    char made[1024];
    text body;
    if (bodies.n > 0) {
      body = bodies.line[c->event % bodies.n];
    } else {
      text user = users.line[c->user], item = items.line[(c->event * 2654435761u) % items.n];
      int n = snprintf(made, sizeof made, "{\"id\":\"%s-%llu\",\"user\":\"%.*s\",\"item\":\"%.*s\"}", o.prefix, (unsigned long long)c->event, (int)user.len,
                       user.at, (int)item.len, item.at);
      if (n < 0 || n >= (int)sizeof made) die("an id is too long");
      body = (text){made, (uint32_t)n};
    }
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: load\r\nContent-Type: application/json\r\nContent-Length: %u\r\n", o.post_path, body.len);
    fits = put_text(c, head) && put_text(c, o.header) && put_text(c, "\r\n") && put(c, body.at, body.len);
  }
  if (!fits) die("a request is longer than 16 KiB");
}

/* ---- Reading a slate ----------------------------------------------------------------------------------------
 * A scanner over one JSON object: strings are skipped, depth is counted, and only a few keys of the outermost object are looked at. */
typedef struct seen {
  bool whole, degraded, fallback;
  uint32_t n_items, accepted;
  text version, user;
} seen;

static const char *string_end(const char *p, const char *end) { /* p behind the opening quote → at the closing one */
  for (;;) {
    p = memchr(p, '"', (size_t)(end - p));
    if (p == NULL) return NULL;
    size_t back = 0;
    while (p[-1 - (ptrdiff_t)back] == '\\') back++;
    if (back % 2 == 0) return p;
    if (++p >= end) return NULL;
  }
}

static bool is(text t, const char *s) { return t.len == strlen(s) && memcmp(t.at, s, t.len) == 0; }

static seen read_body(const char *p, size_t len) {
  seen s = {0};
  const char *end = p + len;
  text key = {"", 0};
  int depth = 0;
  bool in_items = false, value = false;
  for (; p < end; p++) {
    switch (*p) {
      case '"': {
        const char *stop = string_end(p + 1, end);
        if (stop == NULL) return s;
        text t = {p + 1, (uint32_t)(stop - p - 1)};
        if (depth == 1 && !value) key = t;
        else if (depth == 1 && is(key, "version")) s.version = t;
        else if (depth == 1 && is(key, "user")) s.user = t;
        p = stop;
        break;
      }
      case ':':
        if (depth == 1) {
          value = true;
          const char *v = p + 1;
          while (v < end && *v == ' ') v++;
          if (is(key, "degraded")) s.degraded = v < end && *v == 't';
          else if (is(key, "fallback")) s.fallback = v < end && *v == 't';
          else if (is(key, "accepted")) while (v < end && *v >= '0' && *v <= '9') s.accepted = s.accepted * 10 + (uint32_t)(*v++ - '0');
        }
        break;
      case ',':
        if (depth == 1) value = false;
        break;
      case '{':
      case '[':
        if (depth == 1 && *p == '[' && is(key, "items")) in_items = true;
        if (depth == 2 && in_items && *p == '{') s.n_items++;
        depth++;
        break;
      case '}':
      case ']':
        if (--depth == 1) in_items = false;
        if (depth == 0) {
          while (++p < end) if (*p != ' ' && *p != '\n' && *p != '\r') return s;
          s.whole = true;
          return s;
        }
        break;
      default: break;
    }
  }
  return s;
}

static void count_version(text v, uint64_t at_ns) {
  uint64_t h = 1469598103934665603u;
  for (uint32_t i = 0; i < v.len; i++) h = (h ^ (unsigned char)v.at[i]) * 1099511628211u;
  if (v.len >= sizeof versions[0].name) v.len = sizeof versions[0].name - 1;
  for (size_t i = h % VERSIONS;; i = (i + 1) % VERSIONS) {
    version *e = &versions[i];
    if (e->n == 0) {
      if (n_versions + 1 >= VERSIONS) die("more versions than there is room for");
      memcpy(e->name, v.at, v.len);
      e->name[v.len] = '\0';
      e->first_ns = at_ns;
      n_versions++;
    } else if (strlen(e->name) != v.len || memcmp(e->name, v.at, v.len) != 0) continue;
    e->n++;
    e->last_ns = at_ns;
    return;
  }
}

/* ---- Connections --------------------------------------------------------------------------------------------*/
static void watch(connection *c, uint32_t events, int op) {
  struct epoll_event e = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll_fd, op, c->fd, &e) != 0) die("epoll_ctl failed");
}

static void hang_up(connection *c) {
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
  c->phase = DOWN;
}

static slice *slice_at(uint64_t at_ns) {
  uint64_t k = at_ns > start_ns && slice_ns > 0 ? (at_ns - start_ns) / slice_ns : 0;
  return &slices[k < o.slices ? k : o.slices - 1];
}

static void sleep_until(connection *c, uint64_t ns) {
  c->asleep = true;
  c->wake_ns = ns;
  n_asleep++;
}

static void set_free(connection *c) {
  c->slotted = false;
  n_slotted--;
  ring[(ring_at + ring_n++) % o.connections] = (uint32_t)(c - all);
}

static void request_failed(connection *c, failure why, uint64_t at_ns) {
  bool lost = why == CONNECT || why == CLOSED || why == TIMEOUT;
  if (o.retry && (lost || (why == STATUS && c->status >= 500)) && !stopped) { /* the same again, and its time goes on */
    n_retried++;
    sleep_until(c, at_ns + PAUSE_NS);
    return;
  }
  failures[why]++;
  slice_at(c->due_ns)->failures++;
  if (first_failure[0] == '\0') {
    snprintf(first_failure, sizeof first_failure, "%s after %.1f ms, %.3f s from the start, status %u: %.*s", failure_names[why], (double)(at_ns - c->due_ns) / 1e6,
             (double)(at_ns - start_ns) / 1e9, c->status, (int)(c->n_in < 300 ? c->n_in : 300), c->in);
    for (char *p = first_failure; *p != '\0'; p++)
      if ((unsigned char)*p < 32 || *p == '"' || *p == '\\' || (unsigned char)*p > 126) *p = ' ';
  }
  if (why == CONNECT) { /* not at once again */
    c->slotted = false;
    n_slotted--;
    sleep_until(c, at_ns + PAUSE_NS);
  } else set_free(c);
}

static void open_connection(connection *c, uint64_t at_ns) {
  c->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) die("no socket; see ulimit -n");
  int yes = 1;
  if (address.ss_family == AF_INET) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  c->phase = CONNECTING;
  c->sent_ns = at_ns;
  n_connects++;
  if (connect(c->fd, (struct sockaddr *)&address, address_len) != 0 && errno != EINPROGRESS) {
    hang_up(c);
    if (c->slotted) request_failed(c, CONNECT, at_ns);
    return;
  }
  watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void send_more(connection *c, uint64_t at_ns) {
  while (c->out_at < c->n_out) {
    ssize_t n = send(c->fd, c->out + c->out_at, c->n_out - c->out_at, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      if (!c->writing) watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
      c->writing = true;
      return;
    }
    if (n < 0) {
      hang_up(c);
      request_failed(c, CLOSED, at_ns);
      return;
    }
    c->out_at += (uint32_t)n;
    bytes_out += (uint64_t)n;
  }
  if (c->writing) watch(c, EPOLLIN, EPOLL_CTL_MOD);
  c->writing = false;
}

static void go(connection *c, uint64_t at_ns) { /* with what c is slotted for */
  if (c->phase == DOWN) {
    open_connection(c, at_ns);
    return;
  }
  compose(c);
  c->status = 0;
  c->phase = ASKING;
  c->sent_ns = at_ns;
  send_more(c, at_ns);
}

/* Takes the request that is due. */
static void begin(uint64_t at_ns) {
  connection *c = &all[ring[ring_at]];
  ring_at = (ring_at + 1) % o.connections;
  ring_n--;
  c->due_ns = o.rate > 0 ? due_ns : at_ns;
  if (at_ns - c->due_ns > late_max) late_max = at_ns - c->due_ns;
  if (o.rate > 0) due_ns += (uint64_t)(1e9 / o.rate * (o.poisson ? -log1p(-draw_unit()) : 1));
  c->slotted = true;
  n_slotted++;
  c->is_event = o.post_share > 0 && draw_unit() < o.post_share;
  if (users.n > 0) c->user = draw_below(users.n);
  if (c->is_event) c->event = n_events++;
  n_asked++;
  slice_at(c->due_ns)->requests++;
  go(c, at_ns);
}

static void answered(connection *c, uint64_t at_ns) {
  const char *body = c->in + c->head;
  failure why = NONE;
  seen s = {0};
  if (c->status < 600) statuses[c->status]++;
  if (c->status != 200) why = STATUS;
  else if (!o.any_body) {
    s = read_body(body, c->n_body);
    if (!s.whole) why = MALFORMED;
    else if (c->is_event) why = s.accepted == 0 ? INCOMPLETE : NONE;
    else if (s.version.len == 0 && !s.fallback) why = MALFORMED;
    else if ((o.expect > 0 && s.n_items != o.expect) || s.n_items == 0) why = INCOMPLETE;
    else if (users.n > 0 && (s.user.len != users.line[c->user].len || memcmp(s.user.at, users.line[c->user].at, s.user.len) != 0)) why = CROSSED;
  }
  c->phase = IDLE;
  if (why != NONE) {
    if (c->closes) hang_up(c);
    request_failed(c, why, at_ns);
    return;
  }
  uint64_t took = at_ns > c->due_ns ? at_ns - c->due_ns : 0;
  if (c->is_event) {
    n_acked++;
    histogram_add(&all_events, took);
    if (acked_file != NULL) fprintf(acked_file, "%llu\n", (unsigned long long)c->event);
  } else {
    n_slates++;
    histogram_add(&all_slates, took);
    slice *k = slice_at(c->due_ns);
    histogram_add(&k->h, took);
    n_degraded += s.degraded;
    k->degraded += s.degraded;
    n_fallback += s.fallback;
    if (!o.any_body) count_version(s.version, at_ns);
    if (sample_file != NULL && n_slates % o.sample_every == 0 && c->n_body <= SAMPLE_BYTES) {
      fwrite(body, 1, c->n_body, sample_file);
      fputc('\n', sample_file);
    }
  }
  if (c->closes) hang_up(c);
  set_free(c);
}

/* Of the headers: the status, the length, whether the connection closes. → false: this is no answer */
static bool read_head(connection *c) {
  c->in[c->head - 1] = '\0';
  if (strncmp(c->in, "HTTP/1.1 ", 9) != 0) return false;
  c->status = (unsigned)strtoul(c->in + 9, NULL, 10);
  const char *length = strcasestr(c->in, "\r\ncontent-length:");
  c->closes = strcasestr(c->in, "\r\nconnection: close") != NULL;
  if (length == NULL) return false;
  c->n_body = (uint32_t)strtoul(length + 17, NULL, 10);
  return c->status >= 100 && c->status < 600 && c->head + (uint64_t)c->n_body <= IN_BYTES;
}

static void receive(connection *c, uint64_t at_ns) {
  for (;;) {
    ssize_t n = recv(c->fd, c->in + c->n_in, IN_BYTES - c->n_in, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      bool asked = c->phase == ASKING;
      hang_up(c);
      if (asked) request_failed(c, CLOSED, at_ns);
      return;
    }
    bytes_in += (uint64_t)n;
    if (c->phase != ASKING) { /* nobody asked */
      failures[CROSSED]++;
      hang_up(c);
      return;
    }
    uint32_t from = c->n_in > 3 ? c->n_in - 3 : 0;
    c->n_in += (uint32_t)n;
    if (c->head == 0) {
      const char *stop = memmem(c->in + from, c->n_in - from, "\r\n\r\n", 4);
      if (stop != NULL) {
        c->head = (uint32_t)(stop - c->in) + 4;
        if (!read_head(c)) {
          hang_up(c);
          request_failed(c, MALFORMED, at_ns);
          return;
        }
      }
    }
    if (c->head > 0 && c->n_in >= c->head + c->n_body) {
      bool more = c->n_in > c->head + c->n_body;
      answered(c, now_ns());
      if (more && c->phase == IDLE) { /* bytes that belong to nothing */
        failures[CROSSED]++;
        hang_up(c);
      }
      return;
    }
    if (c->n_in == IN_BYTES) {
      hang_up(c);
      request_failed(c, MALFORMED, at_ns);
      return;
    }
  }
}

static void connected(connection *c, uint64_t at_ns) {
  int error = 0;
  socklen_t n = sizeof error;
  if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0 || error != 0) {
    hang_up(c);
    if (c->slotted) request_failed(c, CONNECT, at_ns);
    return;
  }
  watch(c, EPOLLIN, EPOLL_CTL_MOD);
  c->writing = false;
  c->phase = IDLE;
  if (c->slotted) go(c, at_ns);
}

/* ---- The loop -----------------------------------------------------------------------------------------------*/
static void sweep(uint64_t at_ns) { /* who slept long enough, who waited too long */
  for (size_t k = 0; k < o.connections; k++) {
    connection *c = &all[k];
    if (c->asleep && at_ns >= c->wake_ns) {
      c->asleep = false;
      n_asleep--;
      if (c->slotted) go(c, at_ns);
      else {
        c->slotted = true;
        n_slotted++;
        set_free(c);
      }
    } else if (c->slotted && !c->asleep && at_ns > c->sent_ns && at_ns - c->sent_ns > o.timeout_ns) {
      hang_up(c);
      request_failed(c, TIMEOUT, at_ns);
    }
  }
}

static void wait_for(uint64_t ns) {
  struct epoll_event events[128];
  struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  int n = epoll_pwait2(epoll_fd, events, 128, &t, NULL);
  uint64_t at_ns = now_ns();
  for (int i = 0; i < n; i++) {
    connection *c = events[i].data.ptr;
    if (c->fd < 0) continue;
    if (c->phase == CONNECTING) connected(c, at_ns);
    else {
      if (events[i].events & EPOLLOUT && c->phase == ASKING && c->out_at < c->n_out) send_more(c, at_ns);
      if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c, at_ns);
    }
  }
}

static void connect_all(void) { /* before the clock runs */
  uint64_t begun_ns = now_ns();
  size_t up = 0;
  for (size_t k = 0; k < o.connections; k++) {
    all[k].fd = -1;
    ring[k] = (uint32_t)k;
    start_ns = begun_ns;
    open_connection(&all[k], begun_ns);
    if (k % 256 == 255) wait_for(0);
  }
  while (up < o.connections && now_ns() - begun_ns < 5000000000u && !stopped) {
    wait_for(10000000);
    up = 0;
    for (size_t k = 0; k < o.connections; k++) up += all[k].phase == IDLE;
  }
  for (size_t k = 0; k < o.connections; k++) /* the others try when it is their turn */
    if (all[k].phase == CONNECTING) hang_up(&all[k]);
  ring_n = o.connections;
}

static void run(void) {
  connect_all();
  due_ns = start_ns = now_ns();
  end_ns = o.seconds > 0 ? start_ns + (uint64_t)(o.seconds * 1e9) : UINT64_MAX;
  slice_ns = o.seconds > 0 ? (uint64_t)(o.seconds * 1e9 / o.slices) + 1 : 0;
  uint64_t swept_ns = start_ns;
  for (;;) {
    uint64_t at_ns = now_ns(), wait_ns = SWEEP_NS;
    if (stopped && end_ns > at_ns) end_ns = at_ns;
    if (at_ns < end_ns) {
      while (ring_n > 0 && (o.rate > 0 ? due_ns <= at_ns && due_ns < end_ns : true)) begin(at_ns);
    } else if (n_slotted == 0 || at_ns > end_ns + o.timeout_ns || stopped > 1) {
      break;
    }
    if (at_ns - swept_ns >= (n_asleep > 0 ? PAUSE_NS / 2 : SWEEP_NS)) {
      sweep(at_ns);
      swept_ns = at_ns;
    }
    if (n_asleep > 0) wait_ns = PAUSE_NS / 2;
    if (o.rate > 0 && ring_n > 0 && due_ns < end_ns && !stopped) {
      at_ns = now_ns();
      uint64_t until = due_ns > at_ns ? due_ns - at_ns : 0;
      if (until < wait_ns) wait_ns = until;
    }
    wait_for(wait_ns);
  }
}

static void report(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  uint64_t failed = 0;
  for (int k = 1; k < N_FAILURES; k++) failed += failures[k];
  double took = (double)((now_ns() < end_ns ? now_ns() : end_ns) - start_ns) / 1e9;
  printf("{\"asked\": %llu, \"slates\": %llu, \"acknowledged\": %llu, \"seconds\": %.4f, \"rate\": %.2f, \"failed\": %llu, \"unanswered\": %zu, \"retried\": %llu,\n \"failures\": {",
         (unsigned long long)n_asked, (unsigned long long)n_slates, (unsigned long long)n_acked, took, (double)(n_slates + n_acked) / took,
         (unsigned long long)failed, n_slotted, (unsigned long long)n_retried);
  for (int k = 1; k < N_FAILURES; k++) printf("%s\"%s\": %llu", k > 1 ? ", " : "", failure_names[k], (unsigned long long)failures[k]);
  printf("}, \"first_failure\": \"%s\", \"statuses\": {", first_failure);
  const char *comma = "";
  for (int k = 0; k < 600; k++) {
    if (statuses[k] == 0) continue;
    printf("%s\"%d\": %llu", comma, k, (unsigned long long)statuses[k]);
    comma = ", ";
  }
  printf("},\n \"degraded\": %llu, \"fallback\": %llu, \"connects\": %llu, \"bytes_in\": %llu, \"bytes_out\": %llu, \"latest_start_ms\": %.3f, \"cpu_s\": %.3f,\n \"ms\": ",
         (unsigned long long)n_degraded, (unsigned long long)n_fallback, (unsigned long long)n_connects, (unsigned long long)bytes_in, (unsigned long long)bytes_out,
         (double)late_max / 1e6, (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
  print_histogram(&all_slates);
  printf(", \"events_ms\": ");
  print_histogram(&all_events);
  printf(",\n \"slices\": [");
  for (unsigned k = 0; k < o.slices; k++) {
    printf("%s{\"asked\": %llu, \"failed\": %llu, \"degraded\": %llu, \"ms\": ", k > 0 ? ",\n  " : "", (unsigned long long)slices[k].requests,
           (unsigned long long)slices[k].failures, (unsigned long long)slices[k].degraded);
    print_histogram(&slices[k].h);
    printf("}");
  }
  printf("],\n \"versions\": {");
  comma = "";
  for (size_t i = 0; i < VERSIONS; i++) {
    if (versions[i].n == 0) continue;
    printf("%s\n  \"%s\": {\"n\": %llu, \"first_s\": %.4f, \"last_s\": %.4f}", comma, versions[i].name, (unsigned long long)versions[i].n,
           (double)(int64_t)(versions[i].first_ns - start_ns) / 1e9, (double)(int64_t)(versions[i].last_ns - start_ns) / 1e9);
    comma = ",";
  }
  printf("}}\n");
}

static void stop(int sig) {
  (void)sig;
  stopped++;
}

static const char *const usage =
    "load --url HOST:PORT|unix:PATH [options] → one JSON document; latencies in milliseconds\n"
    "  --connections C  (16)             --seconds S (5; 0: until SIGINT or SIGTERM)\n"
    "  --rate R         arrivals a second (0: each connection asks again when it was answered)   --arrivals even|poisson (even)\n"
    "  --users FILE     ids, one a line  --path TEMPLATE (/recommend/%s?n=20)  --expect N items in each slate (0: any but none)\n"
    "  --any-body       only the status of an answer is looked at\n"
    "  --post-share P   of the requests are events: of users and --items FILE, numbered, with ids PREFIX-NUMBER (--prefix), or the lines of\n"
    "                   --post FILE in turn          --post-path PATH (/events)   --acked FILE: numbers of those that were acknowledged\n"
    "  --retry          a request that lost its connection, or got 5xx, is sent again; its time goes on\n"
    "  --timeout-ms N   (10000)  --slices K: figures of K equal parts of the time  --sample FILE, --sample-every N (100): bodies, one a line\n"
    "  --header TEXT    one more header  --seed N\n";

static void resolve(const char *url) {
  if (url == NULL) die(usage);
  if (strncmp(url, "unix:", 5) == 0) {
    struct sockaddr_un *a = (struct sockaddr_un *)&address;
    if (strlen(url + 5) >= sizeof a->sun_path) die("the socket's path is too long");
    a->sun_family = AF_UNIX;
    strcpy(a->sun_path, url + 5);
    address_len = sizeof *a;
    return;
  }
  char host[64];
  const char *colon = strrchr(url, ':');
  struct sockaddr_in *a = (struct sockaddr_in *)&address;
  if (strncmp(url, "http://", 7) == 0) url += 7;
  if (colon == NULL || colon < url || colon - url >= (ptrdiff_t)sizeof host) die("--url wants HOST:PORT or unix:PATH");
  snprintf(host, sizeof host, "%.*s", (int)(colon - url), url);
  a->sin_family = AF_INET;
  a->sin_port = htons((uint16_t)atoi(colon + 1));
  if (inet_pton(AF_INET, host, &a->sin_addr) != 1) die("--url wants an IPv4 address");
  address_len = sizeof *a;
}

static void options(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const char *name = argv[i];
    if (strcmp(name, "--retry") == 0) { o.retry = true; continue; }
    if (strcmp(name, "--any-body") == 0) { o.any_body = true; continue; }
    if (i + 1 >= argc) die(usage);
    const char *v = argv[++i];
    if (strcmp(name, "--url") == 0) o.url = v;
    else if (strcmp(name, "--connections") == 0) o.connections = (unsigned)atoi(v);
    else if (strcmp(name, "--seconds") == 0) o.seconds = atof(v);
    else if (strcmp(name, "--rate") == 0) o.rate = atof(v);
    else if (strcmp(name, "--arrivals") == 0) o.poisson = strcmp(v, "poisson") == 0;
    else if (strcmp(name, "--users") == 0) o.users = v;
    else if (strcmp(name, "--items") == 0) o.items = v;
    else if (strcmp(name, "--path") == 0) o.path = v;
    else if (strcmp(name, "--expect") == 0) o.expect = (unsigned)atoi(v);
    else if (strcmp(name, "--post") == 0) o.post = v;
    else if (strcmp(name, "--post-share") == 0) o.post_share = atof(v);
    else if (strcmp(name, "--post-path") == 0) o.post_path = v;
    else if (strcmp(name, "--prefix") == 0) o.prefix = v;
    else if (strcmp(name, "--acked") == 0) o.acked = v;
    else if (strcmp(name, "--timeout-ms") == 0) o.timeout_ns = (uint64_t)atoi(v) * 1000000u;
    else if (strcmp(name, "--slices") == 0) o.slices = (unsigned)atoi(v);
    else if (strcmp(name, "--sample") == 0) o.sample = v;
    else if (strcmp(name, "--sample-every") == 0) o.sample_every = (unsigned)atoi(v);
    else if (strcmp(name, "--header") == 0) o.header = v;
    else if (strcmp(name, "--seed") == 0) o.seed = (uint64_t)atoll(v);
    else die(usage);
  }
  if (o.connections < 1 || o.connections > 20000 || o.slices < 1 || o.slices > SLICES || o.sample_every < 1 || o.timeout_ns < 1000000) die(usage);
  if (o.users == NULL && (strstr(o.path, "%s") != NULL || (o.post_share > 0 && o.post == NULL))) die("--users FILE is missing");
  if (o.post_share > 0 && o.post == NULL && o.items == NULL) die("--items FILE, or --post FILE, is missing");
}

int main(int argc, char **argv) {
  options(argc, argv);
  resolve(o.url);
  random_state = o.seed * 0x9E3779B97F4A7C15u;
  if (o.users != NULL) {
    users = lines_of(o.users);
    encoded = encoded_of(&users);
  }
  if (o.items != NULL) items = lines_of(o.items);
  if (o.post != NULL) bodies = lines_of(o.post);
  if (o.acked != NULL && (acked_file = fopen(o.acked, "w")) == NULL) die(o.acked);
  if (o.sample != NULL && (sample_file = fopen(o.sample, "w")) == NULL) die(o.sample);
  char header[1024];
  if (o.header[0] != '\0') {
    snprintf(header, sizeof header, "%s\r\n", o.header);
    o.header = header;
  }
  all = calloc(o.connections, sizeof *all);
  ring = calloc(o.connections, sizeof *ring);
  slices = calloc(o.slices, sizeof *slices);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (all == NULL || ring == NULL || slices == NULL || epoll_fd < 0) die("out of memory");
  struct sigaction act = {.sa_handler = stop};
  sigaction(SIGINT, &act, NULL);
  sigaction(SIGTERM, &act, NULL);
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves no load behind */
  prctl(PR_SET_TIMERSLACK, 1000);
  run();
  if (acked_file != NULL && fclose(acked_file) != 0) die("the file of acknowledged events cannot be written");
  if (sample_file != NULL && fclose(sample_file) != 0) die("the file of samples cannot be written");
  report();
  return 0;
}
