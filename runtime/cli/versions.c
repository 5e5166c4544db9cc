/* versions.c - `evection versions`, `stage`, `promote`, `rollback`: what a running service serves, and how that changes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"

static const char *text_of(const json_t *o, const char *key, const char *fallback) {
  const char *text = json_string_value(json_object_get(o, key));
  return text != NULL && *text != '\0' ? text : fallback;
}

#define ROW "%-12s  %-11s  %-19s  %-12s  %8s  %8s  %8s  %s\n"

/* ---- versions -------------------------------------------------------------------------------------------*/
static void print_version(const json_t *v) {
  char name[16], parent[16], since[32] = "-", reward[32] = "-", counts[2][24] = {"-", "-"};
  const json_t *ms = json_object_get(v, "since_ms"), *r = json_object_get(v, "reward");
  if (!json_is_number(ms)) ms = json_object_get(v, "made_ms");
  for (int i = 0; i < 2; i++) {
    const json_t *n = json_object_get(r, i == 0 ? "impressions" : "events");
    if (json_is_integer(n)) snprintf(counts[i], sizeof counts[i], "%lld", (long long)json_integer_value(n));
  }
  if (json_is_object(r)) r = json_object_get(r, "value");
  time_t t = (time_t)(json_number_value(ms) / 1000);
  struct tm at;
  if (json_is_number(ms) && localtime_r(&t, &at) != NULL) strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S", &at);
  if (json_is_number(r)) snprintf(reward, sizeof reward, "%.4g", json_number_value(r));
  printf(ROW, ev_client_short(name, json_object_get(v, "version")), text_of(v, "state", "kept"), since, ev_client_short(parent, json_object_get(v, "parent")), counts[0],
         counts[1], reward, text_of(v, "source", "-"));
}

static ev_status run_versions(json_t *opts) {
  json_t *said;
  EV_TRY(ev_client_ask(opts, "GET", "/versions", NULL, NULL, &said));
  if (ev_opt_flag(opts, "json")) return ev_print_json(said);
  const json_t *list = json_is_array(said) ? said : json_object_get(said, "versions"), *v;
  size_t i;
  if (json_array_size(list) == 0) printf("no versions\n");
  else printf(ROW, "version", "state", "since", "parent", "slates", "events", "reward", "source");
  json_array_foreach(list, i, v) {
    print_version(v);
  }
  json_decref(said);
  return EV_OK;
}

static const ev_option client_options[] = {EV_CLIENT_OPTIONS, {EV_OPT_END, NULL, NULL, NULL}};

const ev_verb ev_verb_versions = {
    .name = "versions",
    .summary = "Lists the versions that a running service keeps: which is live, on trial or in reserve, since when, made of what, and what its slates earned.",
    .arguments = "",
    .example = "evection versions\nevection versions --url http://127.0.0.1:8080 --token $EVECTION_TOKEN --json",
    .options = client_options,
    .min_args = 0,
    .max_args = 0,
    .run = run_versions,
};

/* ---- stage ----------------------------------------------------------------------------------------------*/
static json_t *gate_of(const json_t *opts) { /* NULL: as the service has it */
  static const char *const names[][2] = {{"gate_metric", "metric"}, {"gate_margin", "margin"}, {"gate_users", "users"}, {"gate_probes", "probes"}};
  if (ev_opt_flag(opts, "no_gate")) return json_false();
  json_t *gate = json_object();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    json_t *value = json_object_get(opts, names[i][0]);
    if (value != NULL) json_object_set(gate, names[i][1], value);
  }
  if (json_object_size(gate) > 0) return gate;
  json_decref(gate);
  return NULL;
}

void ev_client_print_staged(const json_t *said, const char *then) {
  char name[16];
  const json_t *gate = json_object_get(said, "gate"), *metric = json_object_get(gate, "metric"), *w;
  const char *done = strcmp(then, "publish") == 0 ? "live" : strcmp(then, "canary") == 0 ? "on trial" : "staged";
  size_t i;
  printf("%s is %s", ev_client_short(name, json_object_get(said, "version")), done);
  if (json_is_number(json_object_get(said, "seconds"))) printf(" (made in %.2f s)", json_number_value(json_object_get(said, "seconds")));
  printf("\n");
  if (json_is_number(json_object_get(gate, "worst_ms")))
    printf("gate: %.0f slates, median %.2f ms, worst %.2f ms\n", json_number_value(json_object_get(gate, "probes")),
           json_number_value(json_object_get(gate, "median_ms")), json_number_value(json_object_get(gate, "worst_ms")));
  if (json_is_object(metric)) {
    const json_t *d = json_object_get(metric, "difference");
    printf("gate: %s %.4f, the champion's %.4f: %+.4f [%+.4f, %+.4f]\n", text_of(metric, "metric", "?"), json_number_value(json_object_get(metric, "challenger")),
           json_number_value(json_object_get(metric, "champion")), json_number_value(json_object_get(d, "value")), json_number_value(json_object_get(d, "low")),
           json_number_value(json_object_get(d, "high")));
  }
  json_array_foreach(json_object_get(said, "migrated"), i, w) {
    printf("migrated: the learning state of %s\n", json_string_value(w));
  }
  json_array_foreach(json_object_get(said, "drops"), i, w) {
    printf("dropped: the learning state %s.%s\n", text_of(w, "agent", "?"), text_of(w, "state", "?"));
  }
  json_array_foreach(json_object_get(said, "warnings"), i, w) {
    printf("warning: %s\n", json_string_value(w));
  }
}

static ev_status run_stage(json_t *opts) {
  const char *source = ev_opt_arg(opts, 0), *then = ev_opt_string(opts, "then", "nothing");
  bool tried = strcmp(then, "canary") == 0;
  json_t *share = json_object_get(opts, "share"), *options = ev_client_canary_options(opts), *gate = gate_of(opts), *said = NULL;
  if (!tried && strcmp(then, "publish") != 0 && strcmp(then, "nothing") != 0) {
    json_decref(options);
    json_decref(gate);
    return ev_fail(EV_EINVAL, "--then: '%.60s' is none of nothing, publish, canary", then);
  }
  if (!tried && (share != NULL || options != NULL)) {
    json_decref(options);
    json_decref(gate);
    return ev_fail(EV_EINVAL, "--share and the other options of a canary want --then canary");
  }
  /* The service has a current folder of its own; with --url it may be on another machine. */
  char *path = ev_opt_string(opts, "url", NULL) == NULL && ev_file_exists(source) ? realpath(source, NULL) : NULL;
  json_t *body = json_pack("{s:s, s:s}", "source", path != NULL ? path : source, "then", then);
  free(path);
  if (tried) json_object_set_new(body, "share", share != NULL ? json_incref(share) : json_real(0.1));
  if (options != NULL) json_object_set_new(body, "options", options);
  if (gate != NULL) json_object_set_new(body, "gate", gate);
  if (ev_opt_flag(opts, "drop_state")) json_object_set_new(body, "drop_state", json_true());
  char what[128];
  snprintf(what, sizeof what, "staging %.100s", source);
  EV_TRY(ev_client_ask(opts, "POST", "/versions", body, what, &said));
  if (ev_opt_flag(opts, "json")) return ev_print_json(said);
  ev_client_print_staged(said, then);
  json_decref(said);
  return EV_OK;
}

static const ev_option stage_options[] = {
    {EV_OPT_STRING, "then", "WHAT", "nothing, publish or canary (default nothing: promote it later)"},
    {EV_OPT_STRING, "gate-metric", "METRIC", "also compare with the champion on the validation fold, such as ndcg@20"},
    {EV_OPT_REAL, "gate-margin", "X", "how much worse, relative to the champion, is refused when beyond doubt (default 0.02)"},
    {EV_OPT_REAL, "gate-users", "X", "share of the users compared on (default 0.2)"},
    {EV_OPT_INT, "gate-probes", "N", "slates made before it may serve (default 32)"},
    {EV_OPT_FLAG, "no-gate", NULL, "no gate"},
    {EV_OPT_FLAG, "drop-state", NULL, "learning state that the new version cannot take over may be left behind"},
    EV_CANARY_OPTIONS,
    EV_CLIENT_OPTIONS,
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_stage = {
    .name = "stage",
    .summary = "Makes a version of a composition in a running service: checked, fitted, warmed and tried, then kept, published or put on trial.",
    .arguments = "SOURCE",
    .example = "evection stage policies/compositions/hand_written.yaml\n"
               "evection stage policies/compositions/hand_written.yaml --then canary --share 0.1 --gate-metric ndcg@20\n"
               "evection stage agent:ease --then publish --drop-state",
    .options = stage_options,
    .min_args = 1,
    .max_args = 1,
    .run = run_stage,
};

/* ---- promote, rollback ------------------------------------------------------------------------------------*/
/* What makes another version live: asked, and what is live now told with what was. Takes body. */
static ev_status go_live(const json_t *opts, const char *path, json_t *body, const char *what) {
  char name[16], was[16];
  json_t *before, *said;
  if (ev_client_ask(opts, "GET", "/version", NULL, NULL, &before) != EV_OK) { /* that is told by what follows */
    before = NULL;
    if (ev_interrupted()) {
      json_decref(body);
      return EV_EINTR;
    }
  }
  uint64_t started_ns = ev_now_ns();
  ev_status status = ev_client_ask(opts, "POST", path, body, what, &said);
  double seconds = (double)(ev_now_ns() - started_ns) * 1e-9;
  json_t *old = status == EV_OK ? json_incref(json_object_get(before, "version")) : NULL;
  json_decref(before);
  if (status != EV_OK) return status;
  if (old != NULL) json_object_set_new(said, "was", old);
  if (ev_opt_flag(opts, "json")) {
    json_object_set_new(said, "took_s", json_real(seconds));
    return ev_print_json(said);
  }
  ev_client_short(was, json_object_get(said, "was"));
  printf("%s is live", ev_client_short(name, json_object_get(said, "version")));
  if (*was != '-' && strcmp(was, name) != 0) printf(", %s was", was);
  printf(" (%.3f s)\n", seconds);
  json_decref(said);
  return EV_OK;
}

static ev_status version_arg(const char *version) {
  size_t len = strlen(version);
  if (len >= 4 && len <= 64 && strspn(version, "0123456789abcdef") == len) return EV_OK;
  return ev_fail(EV_EINVAL, "'%.70s' is no version: 4 to 64 digits of its name are wanted, see `evection versions`", version);
}

static ev_status run_promote(json_t *opts) {
  char path[128];
  const char *version = ev_opt_arg(opts, 0);
  EV_TRY(version_arg(version));
  snprintf(path, sizeof path, "/versions/%s/promote", version);
  return go_live(opts, path, NULL, "promoting");
}

const ev_verb ev_verb_promote = {
    .name = "promote",
    .summary = "Makes a version of a running service the live one.",
    .arguments = "VERSION",
    .example = "evection promote 3f2a9c81d04e",
    .options = client_options,
    .min_args = 1,
    .max_args = 1,
    .run = run_promote,
};

static ev_status run_rollback(json_t *opts) {
  const char *version = ev_opt_arg(opts, 0);
  if (version != NULL) EV_TRY(version_arg(version));
  return go_live(opts, "/rollback", version != NULL ? json_pack("{s:s}", "version", version) : NULL, "rolling back");
}

const ev_verb ev_verb_rollback = {
    .name = "rollback",
    .summary = "Goes back to the version that was live before, or to the one that is named; ends a canary.",
    .arguments = "[VERSION]",
    .example = "evection rollback\nevection rollback 3f2a9c81d04e",
    .options = client_options,
    .min_args = 0,
    .max_args = 1,
    .run = run_rollback,
};
