/* evolve.c - `evection evolve`: the work is done by lua/evection/verbs/evolve.lua; here its champion is handed to a running service. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

static const char *text_of(const json_t *o, const char *key) {
  const char *text = json_string_value(json_object_get(o, key));
  return text != NULL ? text : "";
}

/* Before the run, which may take hours: somebody is there, serves these data, and will take a version from us. */
static ev_status look(const json_t *opts, const char *data) {
  json_t *said;
  EV_TRY(ev_client_ask(opts, "GET", "/version", NULL, NULL, &said));
  const char *served = text_of(said, "data");
  ev_status status = strcmp(served, data) == 0 ? EV_OK : ev_fail(EV_EINVAL, "the service serves the data set '%.60s', and the run is about '%.60s'", served, data);
  json_decref(said);
  EV_TRY(status);
  status = ev_client_ask(opts, "POST", "/versions", json_object(), NULL, &said); /* without a source: refused, but as something that we may ask */
  if (status == EV_OK) json_decref(said);
  return status == EV_EINVAL ? EV_OK : status;
}

/* What is not to be done with the champion, and why: then becomes what is. */
static void consider(const json_t *result, const char **then, json_t *service) {
  const json_t *champion = json_object_get(result, "champion"), *against = json_object_get(json_object_get(result, "report"), "against");
  if (json_integer_value(json_object_get(champion, "number")) == 1) {
    *then = NULL;
    json_object_set_new(service, "why", json_pack("[s]", "nothing found is better than the composition as given"));
  } else if (strcmp(*then, "publish") == 0 && json_array_size(against) > 0) {
    *then = "stage";
    json_object_set(service, "why", (json_t *)(uintptr_t)against);
  }
}

static void print_outcome(const json_t *service, const json_t *said, const char *asked, const char *then) {
  const json_t *why;
  size_t i;
  if (then == NULL) printf("not handed to the service: ");
  else if (strcmp(asked, then) != 0) printf("staged and not published: ");
  json_array_foreach(json_object_get(service, "why"), i, why) {
    printf("%s%s", i > 0 ? "; " : "", json_string_value(why));
  }
  if (json_array_size(json_object_get(service, "why")) > 0) printf("\n");
  if (said != NULL) ev_client_print_staged(said, strcmp(then, "stage") == 0 ? "nothing" : then);
}

/* Adds "service" to the result; the run's own is told whatever comes of it. */
static ev_status hand_over(json_t *opts, const json_t *to, json_t *result) {
  const char *asked = text_of(to, "then"), *then = asked, *file = text_of(json_object_get(result, "champion"), "file");
  json_t *service = json_object(), *said = NULL;
  ev_status status = EV_OK;
  json_object_set_new(service, "asked", json_string(asked));
  consider(result, &then, service);
  json_object_set_new(service, "then", then != NULL ? json_string(then) : json_null());
  if (then != NULL) {
    bool tried = strcmp(then, "canary") == 0;
    char *path = realpath(file, NULL);
    json_t *body = json_pack("{s:s, s:s}", "source", path != NULL ? path : file, "then", strcmp(then, "stage") == 0 ? "nothing" : then);
    free(path);
    if (tried) json_object_set(body, "share", json_object_get(to, "share"));
    status = ev_client_ask(opts, "POST", "/versions", body, "handing the champion over", &said);
  }
  if (status == EV_OK && said != NULL) json_object_set(service, "said", said);
  if (status != EV_OK) json_object_set_new(service, "error", json_string(ev_error()));
  json_object_set_new(result, "service", service);
  if (!ev_opt_flag(opts, "json") && status == EV_OK) print_outcome(service, said, asked, then);
  json_decref(said);
  if (status == EV_OK || status == EV_EINTR) return status;
  char why[1024];
  snprintf(why, sizeof why, "%s", ev_error());
  return ev_fail(status, "the champion was not handed over: %s (it is in %s)", why, file);
}

static ev_status run(json_t *opts) {
  json_t *to, *result;
  EV_TRY(ev_cli_lua_value(opts, "evection.verbs.evolve", "handing", &to));
  bool handing = json_is_string(json_object_get(to, "then"));
  ev_status status = handing ? look(opts, text_of(to, "data")) : EV_OK;
  if (status == EV_OK) status = ev_cli_lua_value(opts, "evection.verbs.evolve", "main", &result);
  if (status == EV_OK) {
    if (handing) status = hand_over(opts, to, result);
    ev_status printed = ev_opt_flag(opts, "json") ? ev_print_json(json_incref(result)) : EV_OK;
    json_decref(result);
    if (status == EV_OK) status = printed;
  }
  json_decref(to);
  return status;
}

static const ev_option options[] = {
    {EV_OPT_STRING, "data", "NAME", "the data set (default: what the plan names)"},
    {EV_OPT_INT, "evaluations", "N", "the budget (default: what the plan says)"},
    {EV_OPT_INT, "workers", "N", "evaluations at once (default: all cores); the result does not depend on it"},
    {EV_OPT_INT, "seed", "N", "seed (default: what the plan says)"},
    {EV_OPT_FLAG, "resume", NULL, "go on with a run that was interrupted"},
    {EV_OPT_FLAG, "fresh", NULL, "forget what the ledger has of this run and start over"},
    {EV_OPT_FLAG, "no-report", NULL, "leave the sealed test fold closed"},
    {EV_OPT_STRING, "out", "FILE", "where the champion is written (default HOME/champions/PLAN.yaml)"},
    {EV_OPT_STRING, "then", "WHAT", "stage, canary or publish: what the running service does with the champion (default: what the plan says, else nothing)"},
    {EV_OPT_REAL, "share", "X", "of a canary: share of the users that get the champion (default 0.1)"},
    EV_CLIENT_OPTIONS,
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_evolve = {
    .name = "evolve",
    .summary = "Evolves the knobs of a composition on the validation fold, compares the champion on the sealed test fold, and hands it to a running service.",
    .arguments = "PLAN",
    .example = "evection evolve policies/plans/movielens.yaml --data movielens\nevection evolve policies/plans/movielens.yaml --data movielens --resume\n"
               "evection evolve policies/plans/movielens.yaml --data movielens --then canary --share 0.2",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
