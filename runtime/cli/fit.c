/* fit.c - `evection fit`: the work is done by lua/evection/verbs/fit.lua. */
#include "cli.h"

static ev_status run(json_t *opts) {
  EV_TRY(ev_watch_scripts(opts));
  return ev_cli_lua(opts, "evection.verbs.fit", "main");
}

static const ev_option options[] = {
    {EV_OPT_STRING, "data", "NAME", "the data set (default: what the composition names)"},
    {EV_OPT_FLAG, "refit", NULL, "train on train and validation (for the test fold)"},
    {EV_OPT_LIST, "set", "NODE.KNOB=VALUE", "sets a knob; may be given several times"},
    {EV_OPT_INT, "seed", "N", "seed of everything random (default 1)"},
    {EV_OPT_REAL, "checkpoint", "SECONDS", "keep what a training has reached so often, and when interrupted (default 60)"},
    {EV_OPT_REAL, "timeout", "SECONDS", "end after so long, with exit code 3 (default: never)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_fit = {
    .name = "fit",
    .summary = "Trains every agent of a composition; artifacts are kept by content and never made twice. Interrupted, it goes on from a checkpoint.",
    .arguments = "COMPOSITION|agent:NAME",
    .example = "evection fit policies/compositions/hand_written.yaml --data movielens",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
