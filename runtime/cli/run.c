/* run.c - `evection run FILE`: a trusted Lua file with the library at hand. */
#include "../jobs/jobs.h"
#include "cli.h"

static ev_status run(json_t *opts) {
  size_t n = ev_opt_n_args(opts);
  char **argv = ev_alloc(n + 1, sizeof *argv);
  if (argv == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < n; i++) argv[i] = (char *)(uintptr_t)ev_opt_arg(opts, i);
  argv[n] = NULL;
  ev_host_options ho = {.home = ev_opt_home(opts)};
  ev_host *host = NULL;
  ev_status status = ev_host_new(&host, &ho);
  if (status == EV_OK) status = ev_jobs_bind(host);
  if (status == EV_OK) status = ev_host_run(host, argv[0], (int)n - 1, argv + 1);
  ev_host_free(host);
  ev_free(argv);
  return status;
}

static const ev_option options[] = {{EV_OPT_END, NULL, NULL, NULL}};

const ev_verb ev_verb_run = {
    .name = "run",
    .summary = "Runs a Lua file with the library at hand (trusted: it may do what you may).",
    .arguments = "FILE [ARG…]",
    .example = "evection run script.lua --data ml-100k",
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
