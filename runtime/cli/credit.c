/* credit.c - `evection credit`: the work is done by lua/evection/verbs/credit.lua. */
#include "cli.h"

static ev_status run(json_t *opts) {
  EV_TRY(ev_watch_scripts(opts));
  return ev_cli_lua(opts, "evection.verbs.credit", "main");
}

static const ev_option options[] = {
    {EV_OPT_STRING, "data", "NAME", "the data set (default: what the composition names)"},
    {EV_OPT_STRING, "method", "difference|shapley", "what is told of each agent (default: both)"},
    {EV_OPT_INT, "samples", "N", "orders of the agents that Shapley values are sampled over (default: exact up to 8 agents, else 64)"},
    {EV_OPT_STRING, "reward", "FILE|METRIC", "the outer reward (default ndcg@20)"},
    {EV_OPT_LIST, "baseline", "NODE=AGENT", "who stands in for a node that is taken away (default: nobody); may be given several times"},
    {EV_OPT_LIST, "set", "NODE.KNOB=VALUE", "sets a knob; may be given several times"},
    {EV_OPT_INT, "seed", "N", "seed of everything random (default 1)"},
    {EV_OPT_REAL, "users", "SHARE", "a seeded sample of the users (default 1: all)"},
    {EV_OPT_REAL, "confidence", "X", "of the intervals (default 0.95)"},
    {EV_OPT_REAL, "timeout", "SECONDS", "end after so long, with exit code 3 (default: never)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_credit = {
    .name = "credit",
    .summary = "Tells what each agent of a composition earns from the whole, on the validation fold: its difference and Shapley value, with intervals.",
    .arguments = "COMPOSITION",
    .example = "evection credit policies/compositions/hand_written.yaml --data movielens\n"
               "evection credit policies/compositions/hand_written.yaml --data movielens --method shapley --samples 64 --baseline linear=popular",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
