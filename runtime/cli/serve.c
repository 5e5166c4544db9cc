/* serve.c - `evection serve`: a composition behind HTTP, until it is told to stop. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../serve/serve.h"
#include "cli.h"

static ev_status whole(const json_t *opts, const char *key, const char *name, int64_t fallback, int64_t low, int64_t high, int *out) {
  int64_t x = ev_opt_int(opts, key, fallback);
  *out = (int)x;
  return x >= low && x <= high ? EV_OK : ev_fail(EV_EINVAL, "--%s: %lld is not between %lld and %lld", name, (long long)x, (long long)low, (long long)high);
}

static ev_status run(json_t *opts) {
  char path[4096];
  const char *home = ev_opt_home(opts), *data = ev_opt_string(opts, "data", NULL);
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  int port, workers, http, deadline, strikes, heap, snapshot;
  if (data == NULL) return ev_fail(EV_EINVAL, "--data NAME is missing: whose users and items are served");
  int64_t seed = ev_opt_int(opts, "seed", 1);
  double rate = ev_opt_real(opts, "rate", 0);
  if (seed < 0) return ev_fail(EV_EINVAL, "--seed: %lld is negative", (long long)seed);
  if (!(rate >= 0 && rate <= 1e9)) return ev_fail(EV_EINVAL, "--rate: %g is not between 0 and 1e9", rate);
  EV_TRY(whole(opts, "port", "port", 8080, 0, 65535, &port));
  EV_TRY(whole(opts, "workers", "workers", 2, 1, 16, &workers));
  EV_TRY(whole(opts, "http_threads", "http-threads", cores > 3 ? (cores < 16 ? cores / 2 : 8) : 1, 1, 16, &http));
  EV_TRY(whole(opts, "deadline_ms", "deadline-ms", 200, 1, 60000, &deadline));
  EV_TRY(whole(opts, "strikes", "strikes", 5, 1, 1000000, &strikes));
  EV_TRY(whole(opts, "heap_mb", "heap-mb", 512, 0, 65536, &heap));
  EV_TRY(whole(opts, "snapshot_s", "snapshot-s", 60, 1, 86400, &snapshot));
  snprintf(path, sizeof path, "%s/data/%s.evs", home, data);
  if (!ev_file_exists(path)) return ev_fail(EV_ENOTFOUND, "no data set '%s' in %s/data; see `evection data list`", data, home);
  const char *metric = ev_opt_string(opts, "gate_metric", NULL);
  char gate[256] = "";
  if (metric != NULL) {
    if (strlen(metric) > 60 || strcspn(metric, "\"\\") != strlen(metric)) return ev_fail(EV_EINVAL, "--gate-metric: '%.60s' is no metric", metric);
    snprintf(gate, sizeof gate, "{\"metric\":\"%s\",\"margin\":%.17g}", metric, ev_opt_real(opts, "gate_margin", 0.02));
  }
  ev_serve_options o = {
      .home = home, .composition = ev_opt_arg(opts, 0), .data = data, .snapshot_path = path, .host = ev_opt_string(opts, "host", "127.0.0.1"),
      .port = (uint16_t)port, .workers = workers, .http_threads = http, .deadline_ms = deadline, .strikes = strikes, .heap_mb = heap, .snapshot_s = snapshot,
      .user = ev_opt_string(opts, "user", NULL), .tokens = ev_opt_string(opts, "tokens", NULL), .rate_per_s = rate, .burst = rate * 2 < 1 && rate > 0 ? 1 : rate * 2,
      .gate = gate[0] != '\0' ? gate : NULL, .seed = (uint64_t)seed, .no_impressions = ev_opt_flag(opts, "no_impressions"), .json = ev_opt_flag(opts, "json"),
  };
  if (ev_opt_flag(opts, "quiet")) ev_log_set(EV_LOG_WARN);
  return ev_serve(&o);
}

static const ev_option options[] = {
    {EV_OPT_STRING, "data", "NAME", "the data set whose users and items are served"},
    {EV_OPT_STRING, "host", "ADDRESS", "IPv4 address to listen on (default 127.0.0.1)"},
    {EV_OPT_INT, "port", "N", "port to listen on (default 8080; 0: any that is free)"},
    {EV_OPT_INT, "workers", "N", "script workers of a version (default 2)"},
    {EV_OPT_INT, "http-threads", "N", "threads that speak HTTP (default: half of the cores)"},
    {EV_OPT_INT, "deadline-ms", "N", "time for a slate before a fallback is sent (default 200)"},
    {EV_OPT_INT, "strikes", "N", "failures after which a version is taken out of service (default 5)"},
    {EV_OPT_INT, "heap-mb", "N", "memory that scripts of a worker may have (default 512; 0: no limit)"},
    {EV_OPT_INT, "snapshot-s", "N", "seconds between two snapshots of what agents learn (default 60)"},
    {EV_OPT_STRING, "tokens", "FILE", "who may read, send events, administer: lines of ROLE TOKEN"},
    {EV_OPT_REAL, "rate", "X", "requests a second of one client (default: no limit)"},
    {EV_OPT_STRING, "user", "NAME", "whom the service becomes once it listens (of root only)"},
    {EV_OPT_STRING, "gate-metric", "NAME", "measure that a new version must not be worse in, such as ndcg@20 (default: it must only answer)"},
    {EV_OPT_REAL, "gate-margin", "X", "how much worse is still taken, of the champion's value (default 0.02)"},
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
