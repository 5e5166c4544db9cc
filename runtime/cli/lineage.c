/* lineage.c - `evection lineage`: the work is done by lua/evection/verbs/lineage.lua. */
#include "cli.h"

static ev_status run(json_t *opts) { return ev_cli_lua(opts, "evection.verbs.lineage", "main"); }

static const ev_option options[] = {
    {EV_OPT_FLAG, "all", NULL, "the whole tree, not the champion's ancestors alone"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_lineage = {
    .name = "lineage",
    .summary = "Prints where a run's champion came from: what changed at each step, and what it gained.",
    .arguments = "[RUN]",
    .example = "evection lineage\nevection lineage --all",
    .options = options,
    .min_args = 0,
    .max_args = 1,
    .run = run,
};
