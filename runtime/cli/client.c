/* client.c - one HTTP request to a running service, over its socket or its address. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"

#define ANSWER_MAX (16u << 20)
#define SOCKET_PATH_MAX 107 /* of a Unix socket */
#define CONNECT_S 5

typedef struct watch {
  const char *what;
  uint64_t started_ns, said_ns;
  bool tty, drawn;
} watch;

static size_t take(char *data, size_t size, size_t n, void *ctx) {
  ev_buf *b = ctx;
  (void)size; /* 1 */
  return b->len + n > ANSWER_MAX || ev_buf_append(b, data, n) != EV_OK ? 0 : n;
}

/* Called by libcurl about once a second: how long it has been, and whether to go on. */
static int look(void *ctx, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow) {
  watch *w = ctx;
  (void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
  if (ev_interrupted()) return 1;
  uint64_t now = ev_now_ns(), wait_ns = w->tty ? 1000000000u : 10000000000u;
  if (w->what == NULL || now - (w->drawn ? w->said_ns : w->started_ns) < wait_ns) return 0;
  double seconds = (double)(now - w->started_ns) * 1e-9;
  if (w->tty) fprintf(stderr, "\r%s: %.0f s \033[K", w->what, seconds);
  else fprintf(stderr, "%s: %.0f s\n", w->what, seconds);
  w->drawn = true;
  w->said_ns = now;
  return 0;
}

static bool is_header_text(const char *s) {
  for (; *s != '\0'; s++)
    if ((unsigned char)*s < 0x20 || *s == 0x7f) return false;
  return true;
}

static ev_status set_up(CURL *h, struct curl_slist **headers, const json_t *opts, const char *path, char where[4352]) {
  char url[4608], line[1200];
  const char *base = ev_opt_string(opts, "url", NULL), *token = ev_opt_string(opts, "token", getenv("EVECTION_TOKEN"));
  if (base != NULL) {
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/') len--;
    if (strncmp(base, "http://", 7) != 0 && strncmp(base, "https://", 8) != 0) return ev_fail(EV_EINVAL, "--url: '%.200s' does not begin with http:// or https://", base);
    if (len > 4000) return ev_fail(EV_EINVAL, "--url: longer than 4000 bytes");
    snprintf(where, 4352, "%.*s", (int)len, base);
    snprintf(url, sizeof url, "%s%s", where, path);
  } else {
    snprintf(where, 4352, "%s/control.sock", ev_opt_home(opts));
    if (strlen(where) > SOCKET_PATH_MAX) return ev_fail(EV_EINVAL, "%s: longer than a socket's path may be (%d bytes); use --url", where, SOCKET_PATH_MAX);
    struct stat st;
    if (stat(where, &st) != 0 || !S_ISSOCK(st.st_mode))
      return ev_fail(EV_EIO, "no service: there is no %s; start `evection serve` with this home, or say --url", where);
    curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, where);
    snprintf(url, sizeof url, "http://localhost%s", path);
  }
  curl_easy_setopt(h, CURLOPT_URL, url);
  *headers = curl_slist_append(*headers, "Content-Type: application/json");
  *headers = curl_slist_append(*headers, "Expect:");
  if (token != NULL && *token != '\0') {
    if (strlen(token) > 1000 || !is_header_text(token)) return ev_fail(EV_EINVAL, "--token: at most 1000 bytes in one line");
    snprintf(line, sizeof line, "Authorization: Bearer %s", token);
    *headers = curl_slist_append(*headers, line);
    snprintf(line, sizeof line, "X-API-Key: %s", token);
    *headers = curl_slist_append(*headers, line);
  }
  curl_easy_setopt(h, CURLOPT_HTTPHEADER, *headers);
  return EV_OK;
}

static ev_status read_answer(const char *where, long code, const ev_buf *answer, json_t **out) {
  json_t *said = json_loadb(answer->data != NULL ? answer->data : "", answer->len, 0, NULL);
  const char *error = json_string_value(json_object_get(said, "error"));
  ev_status status = EV_OK;
  if (code >= 400) {
    status = code == 400 || code == 422 ? EV_EINVAL : code == 404 ? EV_ENOTFOUND : EV_EIO;
    if (error != NULL) status = ev_fail(status, "%s", error);
    else if (code == 401 || code == 403) status = ev_fail(EV_EIO, "%s: not allowed (%ld): which --token?", where, code);
    else status = ev_fail(status, "%s: answered %ld", where, code);
  } else if (said == NULL) {
    status = ev_fail(EV_EIO, "%s: answered %ld with what is no JSON", where, code);
  }
  if (status == EV_OK) *out = said;
  else json_decref(said);
  return status;
}

ev_status ev_client_ask(const json_t *opts, const char *method, const char *path, json_t *body, const char *what, json_t **out) {
  char where[4352];
  *out = NULL;
  char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
  json_decref(body);
  struct curl_slist *headers = NULL;
  ev_buf answer = {0};
  watch w = {.what = ev_opt_flag(opts, "quiet") ? NULL : what, .started_ns = ev_now_ns(), .tty = isatty(STDERR_FILENO)};
  curl_global_init(CURL_GLOBAL_DEFAULT);
  CURL *h = curl_easy_init();
  ev_status status = h == NULL ? ev_fail(EV_ENOMEM, "out of memory") : set_up(h, &headers, opts, path, where);
  if (status == EV_OK) {
    curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, method);
    if (strcmp(method, "GET") != 0) curl_easy_setopt(h, CURLOPT_POSTFIELDS, text != NULL ? text : "");
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, &answer);
    curl_easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, look);
    curl_easy_setopt(h, CURLOPT_XFERINFODATA, &w);
    CURLcode failed = curl_easy_perform(h);
    if (w.drawn && w.tty) fprintf(stderr, "\r\033[K");
    long code = 0;
    curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &code);
    if (ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
    else if (failed == CURLE_COULDNT_CONNECT || failed == CURLE_COULDNT_RESOLVE_HOST) status = ev_fail(EV_EIO, "no service answers at %s", where);
    else if (failed != CURLE_OK) status = ev_fail(EV_EIO, "%s: %s", where, curl_easy_strerror(failed));
    else status = read_answer(where, code, &answer, out);
  }
  curl_easy_cleanup(h);
  curl_slist_free_all(headers);
  curl_global_cleanup();
  ev_buf_free(&answer);
  free(text);
  return status;
}

json_t *ev_client_canary_options(const json_t *opts) {
  static const char *const names[] = {"margin", "harm", "low", "high", "confidence", "caution", "slates_per_user", "settle_s", "window_s", "errors_max", "late_ms"};
  json_t *options = json_object();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    json_t *value = json_object_get(opts, names[i]);
    if (value != NULL) json_object_set(options, names[i], value);
  }
  if (ev_opt_flag(opts, "manual")) json_object_set_new(options, "automatic", json_false());
  if (json_object_size(options) > 0) return options;
  json_decref(options);
  return NULL;
}

const char *ev_client_short(char out[16], const json_t *version) {
  const char *text = json_string_value(version);
  snprintf(out, 16, "%.12s", text != NULL && *text != '\0' ? text : "-");
  return out;
}
