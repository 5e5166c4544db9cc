/* evolve.c - `evection evolve`: the work is done by lua/evection/verbs/evolve.lua. */
#include "cli.h"

static ev_status run(json_t *opts) { return ev_cli_lua(opts, "evection.verbs.evolve", "main"); }

static const ev_option options[] = {
    {EV_OPT_STRING, "data", "NAME", "the data set (default: what the plan names)"},
    {EV_OPT_INT, "evaluations", "N", "the budget (default: what the plan says)"},
    {EV_OPT_INT, "workers", "N", "evaluations at once (default: all cores); the result does not depend on it"},
    {EV_OPT_INT, "seed", "N", "seed (default: what the plan says)"},
    {EV_OPT_FLAG, "resume", NULL, "go on with a run that was interrupted"},
    {EV_OPT_FLAG, "fresh", NULL, "forget what the ledger has of this run and start over"},
    {EV_OPT_FLAG, "no-report", NULL, "leave the sealed test fold closed"},
    {EV_OPT_STRING, "out", "FILE", "where the champion is written (default HOME/champions/PLAN.yaml)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_evolve = {
    .name = "evolve",
    .summary = "Evolves the knobs of a composition on the validation fold and compares the champion on the sealed test fold.",
    .arguments = "PLAN",
    .example = "evection evolve policies/plans/movielens.yaml --data movielens\nevection evolve policies/plans/movielens.yaml --data movielens --resume",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
