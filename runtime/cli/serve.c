#include "cli.h"
static ev_status run(json_t *opts) { return ev_cli_lua(opts, "evection.verbs.serve", "main"); }
static const ev_option options[] = {{EV_OPT_END, NULL, NULL, NULL}};
const ev_verb ev_verb_serve = {.name = "serve", .summary = "-", .arguments = "", .example = "", .options = options, .min_args = 0, .max_args = 1, .run = run};
