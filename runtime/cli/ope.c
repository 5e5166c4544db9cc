/* ope.c - `evection ope` and `evection ope import`: the work is done by lua/evection/verbs/ope.lua. */
#include "cli.h"

static ev_status run(json_t *opts) {
  EV_TRY(ev_watch_scripts(opts));
  return ev_cli_lua(opts, "evection.verbs.ope", "main");
}

static ev_status run_import(json_t *opts) { return ev_cli_lua(opts, "evection.verbs.ope", "import"); }

static const ev_option options[] = {
    {EV_OPT_STRING, "policy", "P", "what is evaluated: uniform, logged, evaluated, another log, FILE.lua or FILE.yaml"},
    {EV_OPT_STRING, "items", "FILE", "item_context.csv of a log that is a table"},
    {EV_OPT_STRING, "policy-items", "FILE", "that of the policy's log"},
    {EV_OPT_FLAG, "counted", NULL, "a log as policy: by how often arms were shown, not by their propensities"},
    {EV_OPT_REAL, "on-policy", "V", "the policy's value, known otherwise (default: a policy's log's mean reward)"},
    {EV_OPT_STRING, "model", "KIND", "the reward model: auto, logistic, ridge or none (default auto: logistic for rewards 0 and 1)"},
    {EV_OPT_REAL, "penalty", "X", "of the reward model, on squared parameters (default 1)"},
    {EV_OPT_INT, "folds", "N", "of its cross-fitting (default 5)"},
    {EV_OPT_FLAG, "crossed", NULL, "the model has an effect of every context column for every arm"},
    {EV_OPT_REAL, "clip", "C", "clipped_ips: weights above are cut to it (default: chosen by SLOPE)"},
    {EV_OPT_REAL, "switch", "T", "switch_dr: weights above give way to the reward model (default: by SLOPE)"},
    {EV_OPT_REAL, "shrink", "L", "dros: w becomes L w / (w² + L) (default: by SLOPE)"},
    {EV_OPT_REAL, "max-weight", "W", "what a weight can be at most, for Bernstein's intervals (default: the largest seen)"},
    {EV_OPT_STRING, "reward-range", "LOW,HIGH", "what a reward can be; others are refused (default: what is seen)"},
    {EV_OPT_REAL, "confidence", "C", "of the intervals (default 0.95)"},
    {EV_OPT_INT, "bootstrap", "N", "resamples (default 1000; 0: none)"},
    {EV_OPT_REAL, "max-unsupported", "X", "refuse when more of the policy's choices were never logged (default 0.01)"},
    {EV_OPT_INT, "seed", "N", "of folds and resamples (default 1)"},
    {EV_OPT_REAL, "timeout", "SECONDS", "end after so long, with exit code 3 (default: never)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_ope = {
    .name = "ope",
    .summary = "Estimates what a policy would have earned, from a log of what another one showed.",
    .arguments = "LOG",
    .example = "evection ope random --policy bts\n"
               "evection ope log.jsonl --policy policy.lua --reward-range 0,1 --json\n"
               "evection ope random --policy uniform --model none --clip 10",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};

static const ev_option import_options[] = {
    {EV_OPT_STRING, "as", "NAME", "what the log will be called"},
    {EV_OPT_STRING, "reward-range", "LOW,HIGH", "what a reward can be; others are refused (default: a click 0 to 1, else anything)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_ope_import = {
    .name = "ope import",
    .summary = "Reads a bandit log, JSON Lines or a table of the Open Bandit Dataset, into one mapped file.",
    .arguments = "FILE [ITEM_CONTEXT]",
    .example = "evection ope import obd/random/men.csv obd/random/men_item_context.csv --as random\nevection ope import log.jsonl --as feed",
    .options = import_options,
    .min_args = 1,
    .max_args = 2,
    .run = run_import,
};
