/* serve.c - `evection serve`: a composition behind HTTP, until it is told to stop. */
#include <stdio.h>

#include "../serve/serve.h"
#include "cli.h"

static ev_status run(json_t *opts) {
  char path[4096];
  const char *home = ev_opt_home(opts), *data = ev_opt_string(opts, "data", NULL);
  int64_t port = ev_opt_int(opts, "port", 8080), workers = ev_opt_int(opts, "workers", 2), deadline = ev_opt_int(opts, "deadline_ms", 200);
  if (data == NULL) return ev_fail(EV_EINVAL, "--data NAME is missing: whose users and items are served");
  int64_t seed = ev_opt_int(opts, "seed", 1);
  if (seed < 0) return ev_fail(EV_EINVAL, "--seed: %lld is negative", (long long)seed);
  if (port < 0 || port > 65535) return ev_fail(EV_EINVAL, "--port: %lld is not between 0 and 65535", (long long)port);
  if (workers < 1 || workers > 64) return ev_fail(EV_EINVAL, "--workers: %lld is not between 1 and 64", (long long)workers);
  if (deadline < 1 || deadline > 60000) return ev_fail(EV_EINVAL, "--deadline-ms: %lld is not between 1 and 60000", (long long)deadline);
  snprintf(path, sizeof path, "%s/data/%s.evs", home, data);
  if (!ev_file_exists(path)) return ev_fail(EV_ENOTFOUND, "no data set '%s' in %s/data; see `evection data list`", data, home);
  ev_serve_options o = {
      .home = home, .composition = ev_opt_arg(opts, 0), .data = data, .snapshot_path = path, .host = ev_opt_string(opts, "host", "127.0.0.1"),
      .port = (uint16_t)port, .workers = (int)workers, .deadline_ms = (int)deadline, .seed = (uint64_t)seed,
      .no_impressions = ev_opt_flag(opts, "no_impressions"), .json = ev_opt_flag(opts, "json"),
  };
  if (ev_opt_flag(opts, "quiet")) ev_log_set(EV_LOG_WARN);
  return ev_serve(&o);
}

static const ev_option options[] = {
    {EV_OPT_STRING, "data", "NAME", "the data set whose users and items are served"},
    {EV_OPT_STRING, "host", "ADDRESS", "IPv4 address to listen on (default 127.0.0.1)"},
    {EV_OPT_INT, "port", "N", "port to listen on (default 8080; 0: any that is free)"},
    {EV_OPT_INT, "workers", "N", "script workers (default 2)"},
    {EV_OPT_INT, "deadline-ms", "N", "time for a slate before the fallback is sent (default 200)"},
    {EV_OPT_INT, "seed", "N", "seed of everything random (default 1)"},
    {EV_OPT_FLAG, "no-impressions", NULL, "do not log the slates that are served"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_serve = {
    .name = "serve",
    .summary = "Answers GET /recommend/{user} and takes POST /events; edited files go live without a restart.",
    .arguments = "COMPOSITION",
    .example = "evection serve policies/compositions/hand_written.yaml --data movielens --port 8080\n"
               "curl 'http://127.0.0.1:8080/recommend/196?n=5'\n"
               "curl -d '{\"user\":\"196\",\"item\":\"242\"}' http://127.0.0.1:8080/events",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
