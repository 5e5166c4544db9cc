/* cli.h - the shell's frame: a verb is a table of options and a function.
 *
 * main() finds the verb, reads its options into a JSON object, sets threads and home, and calls run, which
 * returns EV_OK or a status whose message main prints as one line. Standard output carries the result (one
 * JSON document and nothing else with --json); progress and errors go to standard error. */
#ifndef EV_CLI_H
#define EV_CLI_H

#include <jansson.h>

#include "../core/core.h"
#include "../script/script.h"
#include "../store/store.h"

typedef enum ev_option_type { EV_OPT_END, EV_OPT_FLAG, EV_OPT_STRING, EV_OPT_INT, EV_OPT_REAL, EV_OPT_LIST } ev_option_type;

typedef struct ev_option {
  ev_option_type type;  /* LIST may be given several times */
  const char *name;     /* "k-core"; in the JSON object "k_core" */
  const char *metavar;  /* "N"; NULL for a flag */
  const char *help;     /* one line; a default is said in it */
} ev_option;

typedef struct ev_verb {
  const char *name;        /* "eval", or two words: "data import" */
  const char *summary;     /* one line */
  const char *arguments;   /* "COMPOSITION"; "" for none */
  const char *example;     /* one or more whole command lines */
  const ev_option *options; /* ended by EV_OPT_END */
  int min_args, max_args;  /* positional ones; max_args -1: any number */
  /* opts: given options by name (flags as true, lists as arrays; absent ones are absent) and "args": [text].
   * Every verb also has json, quiet, home, threads. */
  ev_status (*run)(json_t *opts);
} ev_verb;

extern const ev_verb ev_verb_credit;
extern const ev_verb ev_verb_data_import, ev_verb_data_generate, ev_verb_data_show, ev_verb_data_list;
extern const ev_verb ev_verb_items_put, ev_verb_items_get, ev_verb_items_delete, ev_verb_items_search, ev_verb_items_stats, ev_verb_items_list,
    ev_verb_items_compact, ev_verb_items_verify;
extern const ev_verb ev_verb_ledger_stats, ev_verb_ledger_import, ev_verb_ledger_export, ev_verb_ledger_prune, ev_verb_ledger_range;
extern const ev_verb ev_verb_check, ev_verb_fit, ev_verb_eval, ev_verb_agents, ev_verb_evolve, ev_verb_lineage, ev_verb_serve,
    ev_verb_run, ev_verb_ope, ev_verb_ope_import;
extern const ev_verb ev_verb_versions, ev_verb_stage, ev_verb_promote, ev_verb_rollback, ev_verb_canary_start, ev_verb_canary_status, ev_verb_canary_stop;

/* ---- Reading options -----------------------------------------------------------------------------------*/
const char *ev_opt_string(const json_t *opts, const char *key, const char *fallback); /* borrowed */
int64_t ev_opt_int(const json_t *opts, const char *key, int64_t fallback);
double ev_opt_real(const json_t *opts, const char *key, double fallback);
bool ev_opt_flag(const json_t *opts, const char *key);
size_t ev_opt_n_args(const json_t *opts);
const char *ev_opt_arg(const json_t *opts, size_t i);
const char *ev_opt_home(const json_t *opts); /* --home, else $EVECTION_HOME, else "./var" */

/* ---- Lua verbs -----------------------------------------------------------------------------------------
 * Opens a host and calls module.fn(opts). With --json the returned value is printed as one document; without,
 * the function prints for people itself. */
ev_status ev_cli_lua(json_t *opts, const char *module, const char *fn);
ev_status ev_cli_lua_value(json_t *opts, const char *module, const char *fn, json_t **out); /* the same, but what it returned is not printed. out NULL: nor kept */

/* ---- Interruption and deadlines ------------------------------------------------------------------------*/
void ev_watch_interrupts(void);                   /* Ctrl-C sets the flag of core.h; the third one kills */
ev_status ev_watch_scripts(const json_t *opts);   /* from now on Ctrl-C, and the --timeout among opts, end also what does not look at the flag */
bool ev_watch_late(void);                         /* --timeout has passed */

/* ---- Data sets -----------------------------------------------------------------------------------------*/
ev_status ev_data_path(const json_t *opts, const char *name, char out[4096], bool make); /* $EVECTION_HOME/data/NAME.evs; the name is checked, the folder made */
ev_status ev_data_open(const json_t *opts, const char *name, ev_snapshot **out);

/* ---- Output --------------------------------------------------------------------------------------------*/
ev_status ev_print_json(json_t *document); /* sorted keys, a newline at the end; takes the reference */

/* One line that is rewritten on a terminal (bar, rate, time left) once the work has lasted a second; in a pipe
 * a plain line every ten seconds; silent when quiet. */
typedef struct ev_bar {
  const char *what; /* "importing" */
  const char *unit; /* "MB" */
  uint64_t started_ns, shown_ns;
  bool quiet, drawn;
} ev_bar;
void ev_bar_start(ev_bar *b, const char *what, const char *unit, bool quiet);
void ev_bar_update(ev_bar *b, double done, double all);
void ev_bar_end(ev_bar *b);

/* Every line of the files that arguments first, first + 1, … name ('-', or none: standard input), without its newline; fn may change
 * it. Ends with fn's first failure, or when a file is missing, before any line is taken; EV_EINTR. The bar counts megabytes. */
typedef ev_status ev_line_fn(void *ctx, const char *file, size_t number, char *line, size_t len);
ev_status ev_read_lines(const json_t *opts, size_t first, ev_bar *bar, ev_line_fn *fn, void *ctx);

#endif
