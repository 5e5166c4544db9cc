/* data.c - `evection data import | generate | show | list`. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../store/store.h"
#include "cli.h"

ev_status ev_data_path(const json_t *opts, const char *name, char out[4096], bool make) {
  size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
  if (n == 0 || name[n] != '\0' || n > 100 || name[0] == '.') return ev_fail(EV_EINVAL, "'%.60s' is no name for a data set: letters, digits, . _ -", name);
  char folder[4000];
  if (snprintf(folder, sizeof folder, "%s/data", ev_opt_home(opts)) >= (int)sizeof folder - 128) return ev_fail(EV_EINVAL, "the path of --home is too long");
  if (make) EV_TRY(ev_mkdirs(folder));
  snprintf(out, 4096, "%s/%s.evs", folder, name);
  return EV_OK;
}

ev_status ev_data_open(const json_t *opts, const char *name, ev_snapshot **s) {
  char path[4096];
  EV_TRY(ev_data_path(opts, name, path, false));
  if (!ev_file_exists(path)) return ev_fail(EV_ENOTFOUND, "no data set '%s' in %s/data; see `evection data list`", name, ev_opt_home(opts));
  return ev_snapshot_open(s, path);
}

/* ---- show ----------------------------------------------------------------------------------------------*/
#define BUCKETS 12

/* How many rows have 0, 1, 2-3, 4-7, … entries. */
static size_t histogram(const uint64_t *ptr, size_t n, size_t counts[BUCKETS + 1]) {
  size_t last = 0;
  memset(counts, 0, (BUCKETS + 1) * sizeof *counts);
  for (size_t i = 0; i < n; i++) {
    size_t b = 0;
    for (uint64_t c = ptr[i + 1] - ptr[i]; c > 0 && b < BUCKETS; c >>= 1) b++;
    counts[b]++;
    if (b > last) last = b;
  }
  return last + 1;
}

static void bucket_name(size_t b, char out[48]) {
  unsigned long low = b == 0 ? 0 : 1ul << (b - 1), high = (1ul << b) - 1;
  if (b == BUCKETS) snprintf(out, 48, "%lu…", low);
  else if (b <= 1) snprintf(out, 48, "%lu", low);
  else snprintf(out, 48, "%lu–%lu", low, high);
}

static void print_bar(size_t count, size_t most) {
  static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  size_t length = most > 0 ? (count * 320 + most - 1) / most : 0;
  for (size_t i = 0; i < length / 8; i++) fputs("█", stdout);
  fputs(eighths[length % 8], stdout);
}

static json_t *show_histogram(const char *title, const uint64_t *ptr, size_t n, bool quiet) {
  size_t counts[BUCKETS + 1], used = histogram(ptr, n, counts), most = 0;
  json_t *list = json_array();
  for (size_t b = 0; b < used; b++)
    if (counts[b] > most) most = counts[b];
  if (!quiet) printf("\n%s\n", title);
  for (size_t b = 0; b < used; b++) {
    char name[48];
    bucket_name(b, name);
    json_array_append_new(list, json_pack("{s:i, s:I}", "at_least", b == 0 ? 0 : 1 << (b - 1), "count", (json_int_t)counts[b]));
    if (quiet) continue;
    int pad = 12 - (int)strlen(name) + (strstr(name, "–") != NULL || strstr(name, "…") != NULL ? 2 : 0);
    printf("  %*s%s %8zu ", pad, "", name, counts[b]);
    print_bar(counts[b], most);
    putchar('\n');
  }
  return list;
}

static json_t *show_columns(const ev_snapshot *s, bool quiet) {
  static const char *const sides[] = {"user", "item", "interaction"};
  static const char *const types[] = {"token", "token list", "float"};
  json_t *list = json_array();
  for (int side = EV_USER; side <= EV_INTERACTION; side++) {
    for (size_t i = 0; i < ev_snapshot_n_columns(s, (ev_side)side); i++) {
      const ev_column *c = ev_snapshot_column_at(s, (ev_side)side, i);
      json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I}", "of", sides[side], "name", c->name, "type", types[c->type], "tokens", (json_int_t)c->n_tokens));
      if (quiet) continue;
      if (json_array_size(list) == 1) printf("\nfeature columns\n");
      printf("  %-12s %-24s %s", sides[side], c->name, types[c->type]);
      if (c->type != EV_FLOAT) printf(", %zu values", c->n_tokens);
      putchar('\n');
    }
  }
  return list;
}

static json_t *show_folds(const ev_snapshot *s, bool quiet) {
  static const char *const names[] = {"train", "valid", "test"};
  json_t *folds = json_object();
  size_t n = ev_snapshot_n_interactions(s), n_users = ev_snapshot_n_users(s);
  const uint64_t *ptr = ev_snapshot_user_ptr(s);
  for (int f = 0; f < 3; f++) {
    size_t count = 0, users = 0;
    for (size_t u = 0; u < n_users; u++) {
      size_t before = count;
      for (uint64_t i = ptr[u]; i < ptr[u + 1]; i++) count += ev_snapshot_folds(s)[i] == 1u << f;
      users += count > before;
    }
    json_object_set_new(folds, names[f], json_pack("{s:I, s:I}", "interactions", (json_int_t)count, "users", (json_int_t)users));
    if (!quiet) printf("  %-6s %10zu interactions (%4.1f %%) of %zu users\n", names[f], count, n > 0 ? 100.0 * (double)count / (double)n : 0, users);
  }
  return folds;
}

static ev_status run_show(json_t *opts) {
  ev_snapshot *s;
  const char *name = ev_opt_arg(opts, 0);
  EV_TRY(ev_data_open(opts, name, &s));
  bool quiet = ev_opt_flag(opts, "json");
  size_t users = ev_snapshot_n_users(s), items = ev_snapshot_n_items(s), n = ev_snapshot_n_interactions(s);
  double density = users > 0 && items > 0 ? (double)n / ((double)users * (double)items) : 0;
  char hex[65];
  ev_hash hash;
  ev_snapshot_hash(s, &hash);
  ev_hash_hex(hex, &hash);
  if (!quiet) {
    printf("%s: %zu users, %zu items, %zu interactions, density %.4f %%%s%s\n", name, users, items, n, density * 100,
           ev_snapshot_times(s) != NULL ? ", timed" : "", ev_snapshot_ratings(s) != NULL ? ", rated" : "");
    printf("content %.16s\n\nfolds\n", hex);
  }
  json_t *folds = show_folds(s, quiet), *columns = show_columns(s, quiet);
  json_t *popularity = show_histogram("items by number of interactions", ev_snapshot_item_ptr(s), items, quiet);
  json_t *history = show_histogram("users by number of interactions", ev_snapshot_user_ptr(s), users, quiet);
  json_t *document = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:b, s:b, s:o, s:o, s:o, s:o}", "data", name, "hash", hex, "users", (json_int_t)users, "items",
                               (json_int_t)items, "interactions", (json_int_t)n, "density", density, "timed", ev_snapshot_times(s) != NULL, "rated",
                               ev_snapshot_ratings(s) != NULL, "folds", folds, "columns", columns, "popularity", popularity, "history", history);
  ev_snapshot_close(s);
  if (document == NULL) return ev_fail(EV_ENOMEM, "out of memory");
  if (quiet) return ev_print_json(document);
  json_decref(document);
  return EV_OK;
}

/* What import and generate say when they are done. */
static ev_status say_made(json_t *opts, const char *name, const char *path, uint64_t started_ns) {
  ev_snapshot *s;
  EV_TRY(ev_snapshot_open(&s, path));
  double seconds = (double)(ev_now_ns() - started_ns) * 1e-9;
  json_t *document = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f}", "data", name, "file", path, "users", (json_int_t)ev_snapshot_n_users(s), "items",
                               (json_int_t)ev_snapshot_n_items(s), "interactions", (json_int_t)ev_snapshot_n_interactions(s), "seconds", seconds, "max_rss_mb",
                               (double)ev_peak_rss_bytes() / (1024 * 1024));
  ev_status status = EV_OK;
  if (document == NULL) status = ev_fail(EV_ENOMEM, "out of memory");
  else if (ev_opt_flag(opts, "json")) status = ev_print_json(document);
  else {
    printf("%s: %zu users, %zu items, %zu interactions in %.1f s → %s\n", name, ev_snapshot_n_users(s), ev_snapshot_n_items(s),
           ev_snapshot_n_interactions(s), seconds, path);
    json_decref(document);
  }
  ev_snapshot_close(s);
  return status;
}

/* ---- import --------------------------------------------------------------------------------------------*/
static void show_progress(void *ctx, uint64_t done, uint64_t all) { ev_bar_update(ctx, (double)done * 1e-6, (double)all * 1e-6); }

static ev_status choose(const json_t *opts, const char *key, const char *const *names, int n, int *out) {
  const char *given = ev_opt_string(opts, key, NULL);
  ev_buf list = {0};
  if (given == NULL) return EV_OK;
  for (int i = 0; i < n; i++) {
    if (strcmp(given, names[i]) == 0) {
      *out = i;
      ev_buf_free(&list);
      return EV_OK;
    }
    ev_buf_printf(&list, "%s%s", i > 0 ? ", " : "", names[i]);
  }
  ev_status status = ev_fail(EV_EINVAL, "--%s: '%.40s' is not one of %s", key, given, list.data);
  ev_buf_free(&list);
  return status;
}

static ev_status read_import_options(json_t *opts, ev_import_options *o, const char **files) {
  static const char *const formats[] = {"auto", "lists", "atomic", "csv", "tsv", "jsonl"};
  static const char *const splits[] = {"auto", "given", "leave-one-out", "time", "ratio", "last"};
  static const char *const duplicates[] = {"error", "first", "last"};
  ev_import_defaults(o);
  int format = EV_FORMAT_AUTO, split = EV_SPLIT_AUTO, duplicate = EV_DUP_ERROR;
  EV_TRY(choose(opts, "format", formats, 6, &format));
  EV_TRY(choose(opts, "split", splits, 6, &split));
  EV_TRY(choose(opts, "duplicates", duplicates, 3, &duplicate));
  o->format = (ev_format)format;
  o->split = (ev_split)split;
  o->duplicates = (ev_duplicates)duplicate;
  for (size_t i = 0; i < ev_opt_n_args(opts); i++) files[i] = ev_opt_arg(opts, i);
  o->files = files;
  o->n_files = ev_opt_n_args(opts);
  o->train = ev_opt_string(opts, "train", NULL);
  o->valid = ev_opt_string(opts, "valid", NULL);
  o->test = ev_opt_string(opts, "test", NULL);
  o->user = ev_opt_string(opts, "user", NULL);
  o->item = ev_opt_string(opts, "item", NULL);
  o->rating = ev_opt_string(opts, "rating", NULL);
  o->time = ev_opt_string(opts, "time", NULL);
  o->ordered = ev_opt_flag(opts, "ordered");
  int64_t core = ev_opt_int(opts, "k_core", 0), seed = ev_opt_int(opts, "seed", 1);
  if (core < 0 || core > 1000000) return ev_fail(EV_EINVAL, "--k-core: %lld is not between 0 and 1000000", (long long)core);
  if (seed < 0) return ev_fail(EV_EINVAL, "--seed: %lld is negative", (long long)seed);
  o->k_core = (unsigned)core;
  o->seed = (uint64_t)seed;
  o->min_rating = ev_opt_real(opts, "min_rating", o->min_rating);
  o->valid_share = ev_opt_real(opts, "valid_share", o->valid_share);
  o->test_share = ev_opt_real(opts, "test_share", o->test_share);
  return EV_OK;
}

static ev_status run_import(json_t *opts) {
  const char *name = ev_opt_string(opts, "as", NULL);
  char path[4096];
  if (name == NULL) return ev_fail(EV_EINVAL, "--as NAME is missing: what the data set will be called");
  EV_TRY(ev_data_path(opts, name, path, true));
  const char **files = ev_alloc(ev_opt_n_args(opts), sizeof *files);
  if (files == NULL) return EV_ENOMEM;
  ev_import_options o;
  ev_bar bar;
  uint64_t started = ev_now_ns();
  ev_bar_start(&bar, "importing", "MB", ev_opt_flag(opts, "quiet"));
  ev_status status = read_import_options(opts, &o, files);
  o.progress = show_progress;
  o.progress_ctx = &bar;
  if (status == EV_OK && o.n_files == 0 && o.train == NULL) status = ev_fail(EV_EINVAL, "no files: name them, or give --train and --test");
  if (status == EV_OK) status = ev_import(&o, path);
  ev_bar_end(&bar);
  ev_free(files);
  EV_TRY(status);
  return say_made(opts, name, path, started);
}

static ev_status run_generate(json_t *opts) {
  const char *name = ev_opt_string(opts, "as", "world");
  char path[4096];
  EV_TRY(ev_data_path(opts, name, path, true));
  ev_generate_options o;
  ev_generate_defaults(&o);
  int64_t users = ev_opt_int(opts, "users", (int64_t)o.n_users), items = ev_opt_int(opts, "items", (int64_t)o.n_items);
  int64_t sessions = ev_opt_int(opts, "sessions", (int64_t)o.n_sessions_per_user), seed = ev_opt_int(opts, "seed", (int64_t)o.seed);
  if (users < 10 || users > 10000000 || items < 50 || items > 10000000 || sessions < 1 || sessions > 10000 || seed < 0)
    return ev_fail(EV_EINVAL, "a world has 10 to 10000000 users, 50 to 10000000 items, 1 to 10000 sessions a user, and a seed that is not negative");
  o = (ev_generate_options){(size_t)users, (size_t)items, (size_t)sessions, (uint64_t)seed};
  uint64_t started = ev_now_ns();
  EV_TRY(ev_generate(&o, path));
  return say_made(opts, name, path, started);
}

/* ---- list ----------------------------------------------------------------------------------------------*/
static ev_status run_list(json_t *opts) {
  char folder[4096];
  snprintf(folder, sizeof folder, "%s/data", ev_opt_home(opts));
  struct dirent **entries = NULL;
  int n = scandir(folder, &entries, NULL, alphasort);
  json_t *list = json_array();
  for (int i = 0; i < n; i++) {
    char *dot = strrchr(entries[i]->d_name, '.');
    if (dot != NULL && dot != entries[i]->d_name && strcmp(dot, ".evs") == 0) json_array_append_new(list, json_stringn(entries[i]->d_name, (size_t)(dot - entries[i]->d_name)));
    free(entries[i]);
  }
  free(entries);
  if (ev_opt_flag(opts, "json")) return ev_print_json(list);
  for (size_t i = 0; i < json_array_size(list); i++) puts(json_string_value(json_array_get(list, i)));
  if (json_array_size(list) == 0) fprintf(stderr, "no data sets in %s; make one with `evection data import` or `evection data generate`\n", folder);
  json_decref(list);
  return EV_OK;
}

/* ---- Verbs ---------------------------------------------------------------------------------------------*/
static const ev_option import_options[] = {
    {EV_OPT_STRING, "as", "NAME", "what the data set will be called"},
    {EV_OPT_STRING, "format", "FORMAT", "lists, atomic, csv, tsv or jsonl (default: found out)"},
    {EV_OPT_STRING, "train", "FILE", "interactions of the training fold"},
    {EV_OPT_STRING, "valid", "FILE", "interactions of the validation fold"},
    {EV_OPT_STRING, "test", "FILE", "interactions of the test fold"},
    {EV_OPT_STRING, "user", "COLUMN", "name of the user column"},
    {EV_OPT_STRING, "item", "COLUMN", "name of the item column"},
    {EV_OPT_STRING, "rating", "COLUMN", "name of the rating column"},
    {EV_OPT_STRING, "time", "COLUMN", "name of the time column (seconds)"},
    {EV_OPT_FLAG, "ordered", NULL, "lists given with --train are in time order"},
    {EV_OPT_INT, "k-core", "K", "keep users and items with at least K interactions"},
    {EV_OPT_REAL, "min-rating", "X", "leave out interactions rated below X"},
    {EV_OPT_STRING, "duplicates", "WHICH", "of a pair given twice: error, first or last (default error)"},
    {EV_OPT_STRING, "split", "HOW", "given, leave-one-out, time, last or ratio (default: what the data allow)"},
    {EV_OPT_REAL, "valid-share", "X", "share of the validation fold (default 0.1)"},
    {EV_OPT_REAL, "test-share", "X", "share of the test fold (default 0.2)"},
    {EV_OPT_INT, "seed", "N", "seed of a ratio split (default 1)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_data_import = {
    .name = "data import",
    .summary = "Reads interaction and feature files into one mapped snapshot with train, validation and test folds.",
    .arguments = "[FILE…]",
    .example = "evection data import ml-100k.inter ml-100k.item ml-100k.user --as movielens --split ratio\n"
               "evection data import --train train.txt --test test.txt --as gowalla\n"
               "evection data import clicks.csv --user uid --item sku --time ts --k-core 5 --as shop",
    .options = import_options,
    .min_args = 0,
    .max_args = -1,
    .run = run_import,
};

static const ev_option generate_options[] = {
    {EV_OPT_STRING, "as", "NAME", "what the data set will be called (default world)"},
    {EV_OPT_INT, "users", "N", "users (default 943)"},
    {EV_OPT_INT, "items", "N", "items (default 1682)"},
    {EV_OPT_INT, "sessions", "N", "sessions a user (default 40)"},
    {EV_OPT_INT, "seed", "N", "seed: the same seed makes the same bytes (default 1)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_data_generate = {
    .name = "data generate",
    .summary = "Makes a data set of its own: users whose tastes drift, items with features, clicks that favour the top.",
    .arguments = "",
    .example = "evection data generate --as world --seed 7",
    .options = generate_options,
    .min_args = 0,
    .max_args = 0,
    .run = run_generate,
};

static const ev_option no_options[] = {{EV_OPT_END, NULL, NULL, NULL}};

const ev_verb ev_verb_data_show = {
    .name = "data show",
    .summary = "Prints a data set's counts, folds, feature columns and histograms.",
    .arguments = "NAME",
    .example = "evection data show movielens",
    .options = no_options,
    .min_args = 1,
    .max_args = 1,
    .run = run_show,
};

const ev_verb ev_verb_data_list = {
    .name = "data list",
    .summary = "Lists the data sets there are.",
    .arguments = "",
    .example = "evection data list --json",
    .options = no_options,
    .min_args = 0,
    .max_args = 0,
    .run = run_list,
};
