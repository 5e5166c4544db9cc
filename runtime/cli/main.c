/* main.c - finds the verb, reads its options, runs it, turns its status into an exit code.
 *
 * Exit codes: 0 done; 1 the work failed; 2 the command line or a file is wrong; 3 a limit or budget ended it;
 * 130 interrupted. */
#include <cblas.h>
#if defined __x86_64__
#include <cpuid.h>
#endif
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli.h"

static const ev_verb *const verbs[] = {
    &ev_verb_data_import, &ev_verb_data_generate, &ev_verb_data_show, &ev_verb_data_list,
    &ev_verb_items_put,   &ev_verb_items_get,     &ev_verb_items_delete, &ev_verb_items_search,
    &ev_verb_items_stats, &ev_verb_items_list,    &ev_verb_items_compact, &ev_verb_items_verify,
    &ev_verb_ledger_stats, &ev_verb_ledger_import, &ev_verb_ledger_export, &ev_verb_ledger_prune, &ev_verb_ledger_range,
    &ev_verb_agents,      &ev_verb_check,         &ev_verb_fit,       &ev_verb_eval,      &ev_verb_credit,
    &ev_verb_ope_import,  &ev_verb_ope,
    &ev_verb_evolve,      &ev_verb_lineage,       &ev_verb_serve,     &ev_verb_run,
    &ev_verb_versions,    &ev_verb_stage,         &ev_verb_promote,   &ev_verb_rollback,
    &ev_verb_canary_start, &ev_verb_canary_status, &ev_verb_canary_stop,
};
#define N_VERBS (sizeof verbs / sizeof *verbs)

static const ev_option common[] = {
    {EV_OPT_FLAG, "json", NULL, "print one JSON document on standard output"},
    {EV_OPT_FLAG, "quiet", NULL, "no progress on standard error"},
    {EV_OPT_STRING, "home", "DIR", "where data, artifacts and the ledger live (default $EVECTION_HOME, else ./var)"},
    {EV_OPT_INT, "threads", "N", "threads to use (default: all cores)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

static int exit_code(ev_status status) {
  switch (status) {
    case EV_OK: return 0;
    case EV_EINVAL:
    case EV_ENOTFOUND:
    case EV_EEXIST:
    case EV_ECORRUPT: return 2;
    case EV_ELIMIT: return 3;
    case EV_EINTR: return 130;
    default: return 1;
  }
}

static void print_options(const ev_option *options) {
  for (const ev_option *o = options; o->type != EV_OPT_END; o++) {
    char left[64];
    snprintf(left, sizeof left, "--%s%s%s", o->name, o->metavar != NULL ? " " : "", o->metavar != NULL ? o->metavar : "");
    printf("  %-24s %s\n", left, o->help);
  }
}

static void print_verb_help(const ev_verb *v) {
  printf("usage: evection %s %s%s[options]\n\n%s\n\noptions:\n", v->name, v->arguments, *v->arguments ? " " : "", v->summary);
  print_options(v->options);
  print_options(common);
  printf("\nexample:\n");
  const char *line = v->example;
  while (*line != '\0') {
    size_t n = strcspn(line, "\n");
    printf("  %.*s\n", (int)n, line);
    line += n + (line[n] == '\n');
  }
}

static void print_help(void) {
  printf("evection %s - recommendation pipelines that improve themselves while they serve\n\n"
         "usage: evection VERB [arguments] [options]\n\n", EV_VERSION);
  for (size_t i = 0; i < N_VERBS; i++) printf("  %-14s %s\n", verbs[i]->name, verbs[i]->summary);
  printf("\n`evection VERB --help` shows a verb's options with an example.\n");
}

/* The verb named by the first one or two words; *used says how many. */
static const ev_verb *find_verb(int argc, char **argv, int *used) {
  for (size_t i = 0; i < N_VERBS; i++) {
    const char *space = strchr(verbs[i]->name, ' ');
    size_t first = space == NULL ? strlen(verbs[i]->name) : (size_t)(space - verbs[i]->name);
    if (strlen(argv[1]) != first || strncmp(argv[1], verbs[i]->name, first) != 0) continue;
    *used = space == NULL ? 1 : 2;
    if (space == NULL || (argc > 2 && strcmp(argv[2], space + 1) == 0)) return verbs[i];
  }
  return NULL;
}

static ev_status unknown_verb(int argc, char **argv) {
  char word[128];
  const char *best = NULL;
  size_t least = strlen(argv[1]) / 2 + 1; /* more edits than that make another word */
  if (least > 4) least = 4;
  bool family = false;
  for (size_t i = 0; i < N_VERBS; i++) {
    const char *space = strchr(verbs[i]->name, ' ');
    bool two = space != NULL && argc > 2 && argv[2][0] != '-';
    snprintf(word, sizeof word, "%s%s%s", argv[1], two ? " " : "", two ? argv[2] : "");
    size_t d = ev_edit_distance(word, verbs[i]->name);
    if (d < least) least = d, best = verbs[i]->name;
    if (space != NULL && strncmp(argv[1], verbs[i]->name, (size_t)(space - verbs[i]->name) + 1) == 0) family = true;
    if (space != NULL && strlen(argv[1]) == (size_t)(space - verbs[i]->name) &&
        strncmp(argv[1], verbs[i]->name, strlen(argv[1])) == 0)
      family = true;
  }
  if (best != NULL) return ev_fail(EV_EINVAL, "no verb '%s'; did you mean '%s'?", argv[1], best);
  if (family) return ev_fail(EV_EINVAL, "'%s' wants a second word; see `evection --help`", argv[1]);
  return ev_fail(EV_EINVAL, "no verb '%.60s'; see `evection --help`", argv[1]);
}

static const ev_option *find_option(const ev_verb *v, const char *name, size_t len) {
  const ev_option *tables[2] = {v->options, common};
  for (int t = 0; t < 2; t++)
    for (const ev_option *o = tables[t]; o->type != EV_OPT_END; o++)
      if (strlen(o->name) == len && strncmp(o->name, name, len) == 0) return o;
  return NULL;
}

static ev_status store_option(json_t *opts, const ev_option *o, const char *text) {
  char key[64];
  snprintf(key, sizeof key, "%s", o->name);
  for (char *c = key; *c != '\0'; c++)
    if (*c == '-') *c = '_';
  json_t *value = NULL;
  int64_t integer;
  double real;
  switch (o->type) {
    case EV_OPT_FLAG: value = json_true(); break;
    case EV_OPT_INT:
      if (!ev_parse_i64(text, strlen(text), &integer)) return ev_fail(EV_EINVAL, "--%s: '%.60s' is not a whole number", o->name, text);
      value = json_integer(integer);
      break;
    case EV_OPT_REAL:
      if (!ev_parse_f64(text, strlen(text), &real)) return ev_fail(EV_EINVAL, "--%s: '%.60s' is not a number", o->name, text);
      value = json_real(real);
      break;
    default:
      value = json_string(text);
      if (value == NULL) return ev_fail(EV_EINVAL, "--%s: the value is not UTF-8", o->name);
      break;
  }
  if (o->type == EV_OPT_LIST) {
    json_t *list = json_object_get(opts, key);
    if (list == NULL) {
      list = json_array();
      json_object_set_new(opts, key, list);
    }
    json_array_append_new(list, value);
    return EV_OK;
  }
  if (json_object_get(opts, key) != NULL && o->type != EV_OPT_FLAG) {
    json_decref(value);
    return ev_fail(EV_EINVAL, "--%s is given twice", o->name);
  }
  json_object_set_new(opts, key, value);
  return EV_OK;
}

/* `run` hands everything behind its file to the script. */
static ev_status read_options(const ev_verb *v, int argc, char **argv, json_t *opts, bool *help) {
  json_t *args = json_array();
  json_object_set_new(opts, "args", args);
  bool rest = false;
  for (int i = 0; i < argc; i++) {
    const char *a = argv[i];
    if (rest || a[0] != '-' || a[1] == '\0') {
      json_t *text = json_string(a);
      if (text == NULL) return ev_fail(EV_EINVAL, "argument %d is not UTF-8", i + 1);
      json_array_append_new(args, text);
      if (v == &ev_verb_run) rest = true;
      continue;
    }
    if (strcmp(a, "--") == 0) {
      rest = true;
      continue;
    }
    if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
      *help = true;
      return EV_OK;
    }
    const char *equals = strchr(a, '=');
    size_t len = equals != NULL ? (size_t)(equals - a) : strlen(a);
    const ev_option *o = len > 2 && a[1] == '-' ? find_option(v, a + 2, len - 2) : NULL;
    if (o == NULL) return ev_fail(EV_EINVAL, "no option '%.60s'; see `evection %s --help`", a, v->name);
    const char *value = equals != NULL ? equals + 1 : NULL;
    if (o->type == EV_OPT_FLAG && value != NULL) return ev_fail(EV_EINVAL, "--%s takes no value", o->name);
    if (o->type != EV_OPT_FLAG && value == NULL) {
      if (i + 1 >= argc) return ev_fail(EV_EINVAL, "--%s wants a value (%s)", o->name, o->metavar);
      value = argv[++i];
    }
    EV_TRY(store_option(opts, o, value));
  }
  int n = (int)json_array_size(args);
  if (n < v->min_args) return ev_fail(EV_EINVAL, "%s is missing; see `evection %s --help`", v->arguments, v->name);
  if (v->max_args >= 0 && n > v->max_args)
    return ev_fail(EV_EINVAL, "'%.60s' is one argument too many; see `evection %s --help`", ev_opt_arg(opts, (size_t)v->max_args), v->name);
  return EV_OK;
}

/* The kernels OpenBLAS should use where it chooses badly. Version 0.3.21 calls every Intel model it has not heard of a
 * Prescott, which costs five times the speed; and it gives Zen 4, which does 512-bit operations in two halves, the
 * AVX-512 kernels, where those for AVX2 measured 5 to 10 % faster. NULL: it knows better. */
static const char *better_core(void) {
#if defined __x86_64__
  unsigned eax = 0, ebx, ecx, edx;
  if (__builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) &&
      (eax >> 8 & 15) + (eax >> 20 & 255) == 25) /* the family of Zen 3 and 4 */
    return "Haswell";
  static const char *const old[] = {"Prescott", "Core2", "Penryn", "Nehalem", "Generic", "Unknown"};
  const char *name = openblas_get_corename();
  for (size_t i = 0; i < sizeof old / sizeof *old; i++) {
    if (strcasecmp(name, old[i]) != 0) continue;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
      return "SkylakeX";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "Haswell";
  }
#endif
  return NULL;
}

/* OpenBLAS reads its environment when it is loaded, so the process starts itself again where that must change. It gets
 * one thread: parallel loops here are our own, which keeps results the same for any number of threads and forked
 * evaluations small. */
static void set_up_blas(char **argv) {
  const char *threads = getenv("OPENBLAS_NUM_THREADS"), *core = getenv("OPENBLAS_CORETYPE") == NULL ? better_core() : NULL;
  if (threads != NULL && strcmp(threads, "1") == 0 && core == NULL) return;
  setenv("OPENBLAS_NUM_THREADS", "1", 1);
  if (core != NULL) setenv("OPENBLAS_CORETYPE", core, 1);
  execv("/proc/self/exe", argv);
}

int main(int argc, char **argv) {
  set_up_blas(argv);
  if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
    print_help();
    return argc < 2 ? 2 : 0;
  }
  if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
    printf("evection %s\n", EV_VERSION);
    return 0;
  }
  json_t *opts = json_object();
  int used = 0;
  bool help = false;
  const ev_verb *v = find_verb(argc, argv, &used);
  ev_status status = v == NULL ? unknown_verb(argc, argv) : read_options(v, argc - 1 - used, argv + 1 + used, opts, &help);
  if (status == EV_OK && help) {
    print_verb_help(v);
  } else if (status == EV_OK) {
    ev_watch_interrupts();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk */
    int64_t threads = ev_opt_int(opts, "threads", 0);
    if (threads < 0 || threads > 256) status = ev_fail(EV_EINVAL, "--threads: %lld is not between 0 and 256", (long long)threads);
    else ev_threads_set((int)threads);
    if (status == EV_OK) status = v->run(opts);
    if (status == EV_OK && (fflush(stdout) != 0 || ferror(stdout))) status = ev_fail_errno("cannot write to standard output");
  }
  json_decref(opts);
  if (status == EV_EINTR && ev_watch_late()) status = ev_fail(EV_ELIMIT, "ran out of time (--timeout)");
  if (status == EV_EINTR) fprintf(stderr, "evection: interrupted\n");
  else if (status != EV_OK) fprintf(stderr, "evection: %s\n", ev_error());
  return exit_code(status);
}
