/* agents.c - `evection agents`: the work is done by lua/evection/verbs/agents.lua. */
#include "cli.h"

static ev_status run(json_t *opts) { return ev_cli_lua(opts, "evection.verbs.agents", "main"); }

static const ev_option options[] = {
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_agents = {
    .name = "agents",
    .summary = "Lists the agents there are, or shows one with its knobs.",
    .arguments = "[NAME]",
    .example = "evection agents\nevection agents ease",
    .options = options,
    .min_args = 0,
    .max_args = 1,
    .run = run,
};
