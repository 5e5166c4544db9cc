/* check.c - `evection check`: the work is done by lua/evection/verbs/check.lua. */
#include "cli.h"

static ev_status run(json_t *opts) { return ev_cli_lua(opts, "evection.verbs.check", "main"); }

static const ev_option options[] = {
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_check = {
    .name = "check",
    .summary = "Validates agents, compositions, rewards and plans: all errors at once, each with its line.",
    .arguments = "FILE…",
    .example = "evection check agents/recall/ease.lua policies/compositions/hand_written.yaml",
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
