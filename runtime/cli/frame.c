/* frame.c - what verbs share: options, Lua verbs, JSON output, the progress line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../jobs/jobs.h"
#include "cli.h"

const char *ev_opt_string(const json_t *opts, const char *key, const char *fallback) {
  const json_t *v = json_object_get(opts, key);
  return json_is_string(v) ? json_string_value(v) : fallback;
}

int64_t ev_opt_int(const json_t *opts, const char *key, int64_t fallback) {
  const json_t *v = json_object_get(opts, key);
  return json_is_integer(v) ? json_integer_value(v) : fallback;
}

double ev_opt_real(const json_t *opts, const char *key, double fallback) {
  const json_t *v = json_object_get(opts, key);
  return json_is_number(v) ? json_number_value(v) : fallback;
}

bool ev_opt_flag(const json_t *opts, const char *key) { return json_is_true(json_object_get(opts, key)); }

size_t ev_opt_n_args(const json_t *opts) { return json_array_size(json_object_get(opts, "args")); }

const char *ev_opt_arg(const json_t *opts, size_t i) {
  return json_string_value(json_array_get(json_object_get(opts, "args"), i));
}

const char *ev_opt_home(const json_t *opts) {
  const char *home = ev_opt_string(opts, "home", NULL);
  if (home == NULL) home = getenv("EVECTION_HOME");
  return home != NULL && *home != '\0' ? home : "./var";
}

ev_status ev_print_json(json_t *document) {
  int failed = json_dumpf(document, stdout, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(12) | JSON_ENCODE_ANY);
  json_decref(document);
  if (failed || putchar('\n') == EOF) return ev_fail(EV_EIO, "cannot write to standard output");
  return EV_OK;
}

ev_status ev_cli_lua_value(json_t *opts, const char *module, const char *fn, json_t **out) {
  ev_host_options ho = {.home = ev_opt_home(opts)};
  ev_host *host;
  EV_TRY(ev_host_new(&host, &ho));
  char *args = json_dumps(opts, JSON_SORT_KEYS);
  ev_buf text = {0};
  if (out != NULL) *out = NULL;
  ev_status status = args == NULL ? ev_fail(EV_ENOMEM, "out of memory") : ev_jobs_bind(host);
  if (status == EV_OK) status = ev_host_call(host, module, fn, args, &text);
  free(args);
  if (status == EV_OK && out != NULL) {
    json_error_t error;
    *out = json_loadb(text.data, text.len, JSON_DECODE_ANY, &error);
    if (*out == NULL) status = ev_fail(EV_ESCRIPT, "%s.%s: %s", module, fn, error.text);
  }
  ev_buf_free(&text);
  ev_host_free(host);
  return status;
}

ev_status ev_cli_lua(json_t *opts, const char *module, const char *fn) {
  json_t *document;
  if (!ev_opt_flag(opts, "json")) return ev_cli_lua_value(opts, module, fn, NULL);
  EV_TRY(ev_cli_lua_value(opts, module, fn, &document));
  return ev_print_json(document);
}

void ev_bar_start(ev_bar *b, const char *what, const char *unit, bool quiet) {
  *b = (ev_bar){.what = what, .unit = unit, .started_ns = ev_now_ns(), .quiet = quiet};
}

void ev_bar_update(ev_bar *b, double done, double all) {
  if (b->quiet) return;
  uint64_t now = ev_now_ns();
  bool tty = isatty(STDERR_FILENO);
  uint64_t wait_ns = !tty ? 10000000000u : b->drawn ? 100000000u : 1000000000u;
  uint64_t since = b->drawn ? b->shown_ns : b->started_ns;
  if (now - since < wait_ns) return;
  double seconds = (double)(now - b->started_ns) * 1e-9, share = all > 0 ? done / all : 0;
  double rate = seconds > 0 ? done / seconds : 0, left = rate > 0 ? (all - done) / rate : 0;
  if (tty) {
    char bar[31];
    for (int i = 0; i < 30; i++) bar[i] = i < (int)(share * 30) ? '#' : '.';
    bar[30] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f %%  %.0f %s/s  %.0f s left \033[K", b->what, bar, share * 100, rate, b->unit, left);
  } else {
    fprintf(stderr, "%s: %.0f %%, %.0f %s/s, %.0f s left\n", b->what, share * 100, rate, b->unit, left);
  }
  b->drawn = true;
  b->shown_ns = now;
}

void ev_bar_end(ev_bar *b) {
  if (b->drawn && isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
  b->drawn = false;
}
