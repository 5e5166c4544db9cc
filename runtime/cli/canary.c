/* canary.c - `evection canary start`, `status`, `stop`: a challenger on a share of the users of a running service. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

static ev_status run_start(json_t *opts) {
  char path[128], name[16];
  const char *version = ev_opt_arg(opts, 0);
  size_t len = strlen(version);
  json_t *options, *share = json_object_get(opts, "share"), *said;
  if (len < 4 || len > 64 || strspn(version, "0123456789abcdef") != len)
    return ev_fail(EV_EINVAL, "'%.70s' is no version: 4 to 64 digits of its name are wanted, see `evection versions`", version);
  snprintf(path, sizeof path, "/versions/%s/canary", version);
  json_t *body = json_object();
  json_object_set_new(body, "share", share != NULL ? json_incref(share) : json_real(0.1));
  options = ev_client_canary_options(opts);
  if (options != NULL) json_object_set_new(body, "options", options);
  EV_TRY(ev_client_ask(opts, "POST", path, body, "loading the challenger", &said));
  if (ev_opt_flag(opts, "json")) return ev_print_json(said);
  const json_t *v = json_object_get(said, "version") != NULL ? json_object_get(said, "version") : json_object_get(said, "challenger");
  if (json_is_string(v)) ev_client_short(name, v);
  else snprintf(name, sizeof name, "%.12s", version);
  printf("%s is on trial on %g %% of the users; see `evection canary status`\n", name, 100 * ev_opt_real(opts, "share", 0.1));
  json_decref(said);
  return EV_OK;
}

static const ev_option start_options[] = {EV_CANARY_OPTIONS, EV_CLIENT_OPTIONS, {EV_OPT_END, NULL, NULL, NULL}};

const ev_verb ev_verb_canary_start = {
    .name = "canary start",
    .summary = "Puts a staged version on trial: a share of the users gets it until it is better beyond doubt, or does harm.",
    .arguments = "VERSION",
    .example = "evection canary start 3f2a9c81d04e --share 0.1\nevection canary start 3f2a9c81d04e --share 0.05 --harm 0.01 --late-ms 50 --manual",
    .options = start_options,
    .min_args = 1,
    .max_args = 1,
    .run = run_start,
};

/* The status in words, by the library's evection.canary where it has that; else as it came. Takes said. */
static ev_status print_words(const json_t *opts, json_t *said) {
  ev_host_options ho = {.home = ev_opt_home(opts)};
  ev_host *host;
  ev_buf out = {0}, path = {0};
  ev_status status = ev_host_new(&host, &ho);
  if (status == EV_OK) status = ev_buf_printf(&path, "%s/lua/evection/canary.lua", ev_host_root(host));
  json_t *words = NULL;
  if (status == EV_OK && ev_file_exists(path.data)) {
    char *text = json_dumps(said, JSON_SORT_KEYS);
    status = text == NULL ? ev_fail(EV_ENOMEM, "out of memory") : ev_host_call(host, "evection.canary", "text", text, &out);
    free(text);
    if (status == EV_OK) words = json_loadb(out.data, out.len, JSON_DECODE_ANY, NULL);
  }
  if (status == EV_OK && json_is_string(words)) {
    const char *text = json_string_value(words);
    printf("%s%s", text, *text != '\0' && text[strlen(text) - 1] == '\n' ? "" : "\n");
  } else if (status == EV_OK) {
    status = ev_print_json(json_incref(said));
  }
  json_decref(words);
  json_decref(said);
  ev_buf_free(&path);
  ev_buf_free(&out);
  ev_host_free(host);
  return status;
}

static ev_status run_status(json_t *opts) {
  json_t *said;
  EV_TRY(ev_client_ask(opts, "GET", "/canary", NULL, NULL, &said));
  return ev_opt_flag(opts, "json") ? ev_print_json(said) : print_words(opts, said);
}

static const ev_option client_options[] = {EV_CLIENT_OPTIONS, {EV_OPT_END, NULL, NULL, NULL}};

const ev_verb ev_verb_canary_status = {
    .name = "canary status",
    .summary = "Tells how the challenger does against the champion, what is certain by now, and what comes next.",
    .arguments = "",
    .example = "evection canary status\nevection canary status --json",
    .options = client_options,
    .min_args = 0,
    .max_args = 0,
    .run = run_status,
};

static ev_status run_stop(json_t *opts) {
  json_t *said;
  EV_TRY(ev_client_ask(opts, "POST", "/canary/stop", NULL, "stopping", &said));
  if (ev_opt_flag(opts, "json")) return ev_print_json(said);
  char name[16];
  const json_t *v = json_object_get(said, "version");
  if (json_is_string(v)) printf("the canary of %s is stopped; all users get the champion\n", ev_client_short(name, v));
  else printf("the canary is stopped; all users get the champion\n");
  json_decref(said);
  return EV_OK;
}

const ev_verb ev_verb_canary_stop = {
    .name = "canary stop",
    .summary = "Ends the trial: all users get the champion again.",
    .arguments = "",
    .example = "evection canary stop",
    .options = client_options,
    .min_args = 0,
    .max_args = 0,
    .run = run_stop,
};
