/* eval.c - `evection eval`: the work is done by lua/evection/verbs/eval.lua. */
#include "cli.h"

static ev_status run(json_t *opts) {
  EV_TRY(ev_watch_scripts(opts));
  return ev_cli_lua(opts, "evection.verbs.eval", "main");
}

static const ev_option options[] = {
    {EV_OPT_STRING, "data", "NAME", "the data set (default: what the composition names)"},
    {EV_OPT_STRING, "fold", "valid|test", "the fold that is predicted (default valid); looks at test are counted"},
    {EV_OPT_FLAG, "refit", NULL, "train on train and validation (for the test fold)"},
    {EV_OPT_LIST, "set", "NODE.KNOB=VALUE", "sets a knob; may be given several times"},
    {EV_OPT_INT, "seed", "N", "seed of everything random (default 1)"},
    {EV_OPT_REAL, "timeout", "SECONDS", "end after so long, with exit code 3 (default: never)"},
    {EV_OPT_REAL, "users", "SHARE", "a seeded sample of the users (default 1: all)"},
    {EV_OPT_STRING, "task", "slates|clicks", "what is measured (default slates: the best unseen items); clicks: how well a ranker tells a fold's clicks"},
    {EV_OPT_REAL, "positive-rating", "X", "clicks: an interaction rated X or more is one (default 4)"},
    {EV_OPT_STRING, "against", "COMPOSITION", "clicks: a second ranker, compared on the same rows"},
    {EV_OPT_STRING, "reward", "FILE|METRIC", "also the outer reward, with its formula and its constraints"},
    {EV_OPT_STRING, "cutoffs", "K,K…", "lengths of the lists that are measured (default 5,10,20)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_eval = {
    .name = "eval",
    .summary = "Measures a composition on a fold: every unseen item ranked, or a fold's clicks told, metrics with intervals.",
    .arguments = "COMPOSITION|agent:NAME",
    .example = "evection eval agent:ease --data movielens --set ease.lambda=100\nevection eval policies/compositions/hand_written.yaml --data movielens --fold test --refit --json\nevection eval agent:fm --data movielens --task clicks --against agent:logistic",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
