/* items.c - `evection items get | delete | stats | list | compact | verify`. */
#include <dirent.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "items.h"

/* ---- Tables --------------------------------------------------------------------------------------------*/
ev_status cli_items_folder(const json_t *opts, const char *name, char out[4096]) {
  size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
  if (n == 0 || name[n] != '\0' || n > 100 || name[0] == '.') return ev_fail(EV_EINVAL, "'%.60s' is no name for a table of items: letters, digits, . _ -", name);
  if (snprintf(out, 4096, "%s/items/%s", ev_opt_home(opts), name) >= 4000) return ev_fail(EV_EINVAL, "the path of --home is too long");
  return EV_OK;
}

static int is_part(const struct dirent *e) { /* snapshot.G or log.G; what is being written has more to its name */
  size_t n = strncmp(e->d_name, "snapshot.", 9) == 0 ? 9 : strncmp(e->d_name, "log.", 4) == 0 ? 4 : 0;
  return n > 0 && e->d_name[n] != '\0' && e->d_name[n + strspn(e->d_name + n, "0123456789")] == '\0';
}

static bool holds_table(const char *folder) {
  struct dirent **parts = NULL;
  int n = scandir(folder, &parts, is_part, NULL);
  for (int i = 0; i < n; i++) free(parts[i]);
  free(parts);
  return n > 0;
}

bool cli_items_there(const json_t *opts, const char *name) {
  char folder[4096];
  return cli_items_folder(opts, name, folder) == EV_OK && holds_table(folder);
}

ev_status cli_items_open_named(const json_t *opts, const char *name, items_mode mode, const ev_items_options *given, ev_items **out) {
  char folder[4096];
  ev_items_options o;
  *out = NULL;
  EV_TRY(cli_items_folder(opts, name, folder));
  if (mode != ITEMS_CREATE && !holds_table(folder)) return ev_fail(EV_ENOTFOUND, "no table '%s' in %s/items; see `evection items list`", name, ev_opt_home(opts));
  if (given != NULL) o = *given;
  else ev_items_defaults(&o);
  o.read_only = mode == ITEMS_READ;
  o.create = mode == ITEMS_CREATE;
  return ev_items_open(out, folder, &o);
}

/* ---- Ids on the command line ---------------------------------------------------------------------------*/
static ev_status add_id(json_t *ids, const char *id) {
  json_t *text = json_string(id);
  if (text == NULL) return ev_fail(EV_EINVAL, "an id is not UTF-8");
  return json_array_append_new(ids, text) == 0 ? EV_OK : ev_fail(EV_ENOMEM, "out of memory");
}

/* The arguments behind the table's name; "-" stands for the lines of standard input. */
static ev_status read_ids(const json_t *opts, json_t *ids) {
  char *line = NULL;
  size_t cap = 0;
  ev_status status = EV_OK;
  for (size_t i = 1; i < ev_opt_n_args(opts) && status == EV_OK; i++) {
    if (strcmp(ev_opt_arg(opts, i), "-") != 0) {
      status = add_id(ids, ev_opt_arg(opts, i));
      continue;
    }
    ssize_t len;
    while (status == EV_OK && !ev_interrupted() && (len = getline(&line, &cap, stdin)) >= 0) {
      while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r')) line[--len] = '\0';
      if (len > 0 && strlen(line) != (size_t)len) status = ev_fail(EV_EINVAL, "standard input: an id with a NUL character");
      else if (len > 0) status = add_id(ids, line);
    }
    if (status == EV_OK && ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
    else if (status == EV_OK && ferror(stdin)) status = ev_fail_errno("standard input");
  }
  free(line);
  return status;
}

/* ---- Items as JSON -------------------------------------------------------------------------------------*/
static json_t *number_json(float x) {
  double y = ev_float_decimal(x);
  return y == floor(y) && fabs(y) < 9e15 ? json_integer((json_int_t)y) : json_real(y);
}

static json_t *token_json(const ev_column *c, uint32_t code) {
  size_t len;
  const char *s = ev_column_token(c, code, &len);
  return json_stringn(s, len);
}

json_t *cli_items_value_json(const ev_column *c, uint32_t row) {
  const uint32_t *codes = NULL;
  if (c->type == EV_FLOAT) return row < c->n_rows && !isnan(c->values[row]) ? number_json(c->values[row]) : NULL;
  size_t n = ev_column_tokens(c, row, &codes);
  if (n == 0) return NULL;
  if (c->type == EV_TOKEN) return token_json(c, codes[0]);
  json_t *list = json_array();
  for (size_t i = 0; i < n; i++) json_array_append_new(list, token_json(c, codes[i]));
  return list;
}

static json_t *item_json(const ev_items_reader *r, uint32_t row, size_t n_dims, float *vector) {
  size_t len;
  const char *id = ev_items_id(r, row, &len);
  json_t *item = json_object();
  json_object_set_new(item, "id", json_stringn(id, len));
  if (vector != NULL && ev_items_vector(r, row, vector) == EV_OK) {
    json_t *list = json_array();
    for (size_t i = 0; i < n_dims; i++) json_array_append_new(list, number_json(vector[i]));
    json_object_set_new(item, "vector", list);
  }
  for (size_t i = 0; i < ev_items_n_columns(r); i++) {
    const ev_column *c = ev_items_column_at(r, i);
    json_t *value = cli_items_value_json(c, row);
    if (value != NULL) json_object_set_new(item, c->name, value);
  }
  return item;
}

ev_status cli_items_find_row(const ev_items_reader *r, const char *table, const char *id, uint32_t *row) {
  *row = ev_items_find(r, id, strlen(id));
  return *row != EV_NONE ? EV_OK : ev_fail(EV_ENOTFOUND, "no item '%.80s' in table '%s'", id, table);
}

size_t cli_items_dims(const ev_items *t) {
  const ev_index_options *o = ev_items_index(t);
  return o != NULL ? o->n_dims : 0;
}

/* ---- get, delete ---------------------------------------------------------------------------------------*/
static ev_status print_line(json_t *item) { /* takes the reference */
  int failed = json_dumpf(item, stdout, JSON_REAL_PRECISION(9));
  json_decref(item);
  return failed || putchar('\n') == EOF ? ev_fail(EV_EIO, "cannot write to standard output") : EV_OK;
}

/* Every item, in the order of rows: nothing is held but one line. */
static ev_status print_all(const json_t *opts, const ev_items *t) {
  ev_items_reader r;
  ev_status status = EV_OK;
  size_t d = cli_items_dims(t);
  float *vector = ev_opt_flag(opts, "no_vectors") ? NULL : ev_alloc(d, sizeof *vector);
  json_t *list = ev_opt_flag(opts, "json") ? json_array() : NULL;
  ev_items_begin(&r, t);
  for (uint32_t row = ev_items_next(&r, 0); row != EV_NONE && status == EV_OK; row = ev_items_next(&r, row + 1)) {
    if (ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
    else if (list != NULL) json_array_append_new(list, item_json(&r, row, d, vector));
    else status = print_line(item_json(&r, row, d, vector));
  }
  ev_items_end(&r);
  ev_free(vector);
  if (status == EV_OK && list != NULL) return ev_print_json(list);
  json_decref(list);
  return status;
}

static ev_status print_items(const json_t *opts, const ev_items *t, const json_t *ids) {
  ev_items_reader r;
  uint32_t row;
  ev_status status = EV_OK;
  size_t d = cli_items_dims(t);
  float *vector = ev_opt_flag(opts, "no_vectors") ? NULL : ev_alloc(d, sizeof *vector);
  bool whole = ev_opt_flag(opts, "json");
  json_t *list = json_array();
  ev_items_begin(&r, t);
  for (size_t i = 0; i < json_array_size(ids) && status == EV_OK; i++) { /* nothing is printed when one is missing */
    status = cli_items_find_row(&r, ev_opt_arg(opts, 0), json_string_value(json_array_get(ids, i)), &row);
    if (status == EV_OK) json_array_append_new(list, item_json(&r, row, d, vector));
  }
  ev_items_end(&r);
  for (size_t i = 0; i < json_array_size(list) && status == EV_OK && !whole; i++) status = print_line(json_incref(json_array_get(list, i)));
  ev_free(vector);
  if (status == EV_OK && whole) return ev_print_json(list);
  json_decref(list);
  return status;
}

static ev_status run_get(json_t *opts) {
  ev_items *t = NULL;
  json_t *ids = json_array();
  bool all = ev_opt_flag(opts, "all");
  ev_status status = EV_OK;
  if (all == (ev_opt_n_args(opts) > 1)) status = ev_fail(EV_EINVAL, all ? "--all: ids beside it make no sense" : "ID… is missing, or --all");
  if (status == EV_OK) status = read_ids(opts, ids);
  if (status == EV_OK) status = cli_items_open_named(opts, ev_opt_arg(opts, 0), ITEMS_READ, NULL, &t);
  if (status == EV_OK) status = all ? print_all(opts, t) : print_items(opts, t, ids);
  ev_items_close(t);
  json_decref(ids);
  return status;
}

static ev_status run_delete(json_t *opts) {
  ev_items *t = NULL;
  json_t *ids = json_array();
  ev_status status = read_ids(opts, ids);
  size_t n = json_array_size(ids);
  const char **names = ev_alloc(n, sizeof *names);
  if (status == EV_OK && names == NULL) status = EV_ENOMEM;
  for (size_t i = 0; i < n && names != NULL; i++) names[i] = json_string_value(json_array_get(ids, i));
  if (status == EV_OK) status = cli_items_open_named(opts, ev_opt_arg(opts, 0), ITEMS_WRITE, NULL, &t);
  if (status == EV_OK && n > 0) status = ev_items_delete(t, names, n);
  if (status == EV_OK) {
    ev_items_stats st;
    ev_items_stat(t, &st);
    if (ev_opt_flag(opts, "json"))
      status = ev_print_json(json_pack("{s:s, s:I, s:I}", "table", ev_opt_arg(opts, 0), "deleted", (json_int_t)n, "items", (json_int_t)st.n_items));
    else printf("%s: %zu items deleted; it holds %zu\n", ev_opt_arg(opts, 0), n, st.n_items);
  }
  ev_items_close(t);
  ev_free(names);
  json_decref(ids);
  return status;
}

/* ---- stats, compact, verify, list ----------------------------------------------------------------------*/
static json_t *stats_json(const char *name, const ev_items_stats *st, const ev_index_options *o, json_t *columns) {
  json_t *index = o == NULL ? json_null()
                            : json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I}", "kind", o->kind, "metric", o->metric, "form", o->form, "rescore",
                                        o->rescore, "dims", (json_int_t)o->n_dims, "links", (json_int_t)o->n_links, "effort_build", (json_int_t)o->effort_build, "lists",
                                        (json_int_t)o->n_lists, "effort", (json_int_t)o->effort);
  return json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:f}", "table", name, "items", (json_int_t)st->n_items, "vectors",
                   (json_int_t)st->n_vectors, "rows", (json_int_t)st->n_rows, "index", index, "columns", columns, "memory_bytes", (json_int_t)st->memory_bytes,
                   "log_bytes", (json_int_t)st->log_bytes, "snapshot_bytes", (json_int_t)st->snapshot_bytes, "generation", (json_int_t)st->generation, "cut_bytes",
                   (json_int_t)st->cut_bytes, "open_ms", st->open_ms);
}

static json_t *columns_json(const ev_items *t) {
  static const char *const types[] = {"token", "token list", "float"};
  ev_items_reader r;
  json_t *list = json_array();
  ev_items_begin(&r, t);
  for (size_t i = 0; i < ev_items_n_columns(&r); i++) {
    const ev_column *c = ev_items_column_at(&r, i);
    json_int_t tokens = (json_int_t)(c->type == EV_FLOAT ? 0 : c->n_tokens);
    json_array_append_new(list, json_pack("{s:s, s:s, s:I}", "name", c->name, "type", types[c->type], "tokens", tokens));
  }
  ev_items_end(&r);
  return list;
}

static void print_stats(const char *name, const ev_items_stats *st, const ev_index_options *o, const json_t *columns) {
  size_t i;
  json_t *c;
  printf("%s: %zu items, %zu with a vector\n", name, st->n_items, st->n_vectors);
  if (o != NULL) {
    const char *beside = o->rescore && strcmp(o->form, "f32") != 0 ? " with f32 beside it" : "";
    printf("  index      %s, %s, %s%s, %zu numbers a vector\n", o->kind, o->metric, o->form, beside, o->n_dims);
    if (strcmp(o->kind, "hnsw") == 0) printf("  knobs      %u links, effort %u, effort while building %u\n", o->n_links, o->effort, o->effort_build);
    if (strcmp(o->kind, "ivf") == 0) printf("  knobs      %u lists, effort %u\n", o->n_lists, o->effort);
  }
  printf("  memory     %.1f MB", (double)st->memory_bytes * 1e-6);
  if (st->n_items > 0) printf(", %.0f bytes an item", (double)st->memory_bytes / (double)st->n_items);
  printf("\n  files      snapshot %zu of %.1f MB, log of %.1f MB; opened in %.1f ms\n", (size_t)st->generation, (double)st->snapshot_bytes * 1e-6,
         (double)st->log_bytes * 1e-6, st->open_ms);
  if (st->cut_bytes > 0) printf("  torn       %llu bytes at the log's end are no whole record\n", (unsigned long long)st->cut_bytes);
  json_array_foreach(columns, i, c) {
    printf("  %-10s %-24s %s", i == 0 ? "features" : "", json_string_value(json_object_get(c, "name")), json_string_value(json_object_get(c, "type")));
    if (json_integer_value(json_object_get(c, "tokens")) > 0) printf(", %lld values", (long long)json_integer_value(json_object_get(c, "tokens")));
    putchar('\n');
  }
}

static ev_status run_stats(json_t *opts) {
  ev_items *t;
  ev_items_stats st;
  const char *name = ev_opt_arg(opts, 0);
  EV_TRY(cli_items_open_named(opts, name, ITEMS_READ, NULL, &t));
  ev_items_stat(t, &st);
  json_t *columns = columns_json(t);
  ev_status status = EV_OK;
  if (ev_opt_flag(opts, "json")) {
    status = ev_print_json(stats_json(name, &st, ev_items_index(t), columns));
  } else {
    print_stats(name, &st, ev_items_index(t), columns);
    json_decref(columns);
  }
  ev_items_close(t);
  return status;
}

static ev_status run_compact(json_t *opts) {
  ev_items *t;
  ev_items_stats before, after;
  const char *name = ev_opt_arg(opts, 0);
  EV_TRY(cli_items_open_named(opts, name, ITEMS_WRITE, NULL, &t));
  uint64_t started = ev_now_ns();
  ev_items_stat(t, &before);
  ev_status status = ev_items_compact(t);
  ev_items_stat(t, &after);
  ev_items_close(t);
  EV_TRY(status);
  size_t from = before.log_bytes + before.snapshot_bytes, to = after.log_bytes + after.snapshot_bytes;
  double seconds = (double)(ev_now_ns() - started) * 1e-9;
  if (ev_opt_flag(opts, "json"))
    return ev_print_json(json_pack("{s:s, s:I, s:I, s:I, s:f}", "table", name, "generation", (json_int_t)after.generation, "bytes_before", (json_int_t)from, "bytes",
                                   (json_int_t)to, "seconds", seconds));
  printf("%s: snapshot %zu in %.1f s; %.1f MB were %.1f MB\n", name, (size_t)after.generation, seconds, (double)to * 1e-6, (double)from * 1e-6);
  return EV_OK;
}

static ev_status run_verify(json_t *opts) {
  ev_items *t;
  ev_items_stats st;
  const char *name = ev_opt_arg(opts, 0);
  EV_TRY(cli_items_open_named(opts, name, ITEMS_READ, NULL, &t));
  ev_status status = ev_items_verify(t);
  ev_items_stat(t, &st);
  ev_items_close(t);
  EV_TRY(status);
  if (ev_opt_flag(opts, "json"))
    return ev_print_json(json_pack("{s:s, s:b, s:I, s:I}", "table", name, "ok", 1, "items", (json_int_t)st.n_items, "cut_bytes", (json_int_t)st.cut_bytes));
  printf("%s: sound, %zu items\n", name, st.n_items);
  if (st.cut_bytes > 0) printf("  %llu bytes at the log's end are no whole record: a write that a crash cut short, or damage\n", (unsigned long long)st.cut_bytes);
  return EV_OK;
}

static ev_status run_list(json_t *opts) {
  char folder[4096];
  snprintf(folder, sizeof folder, "%s/items", ev_opt_home(opts));
  struct dirent **entries = NULL;
  int n = scandir(folder, &entries, NULL, alphasort);
  json_t *list = json_array();
  for (int i = 0; i < n; i++) {
    if (cli_items_there(opts, entries[i]->d_name)) json_array_append_new(list, json_string(entries[i]->d_name));
    free(entries[i]);
  }
  free(entries);
  if (ev_opt_flag(opts, "json")) return ev_print_json(list);
  for (size_t i = 0; i < json_array_size(list); i++) puts(json_string_value(json_array_get(list, i)));
  if (json_array_size(list) == 0) fprintf(stderr, "no tables in %s; make one with `evection items put`\n", folder);
  json_decref(list);
  return EV_OK;
}

/* ---- Verbs ---------------------------------------------------------------------------------------------*/
static const ev_option no_options[] = {{EV_OPT_END, NULL, NULL, NULL}};

static const ev_option get_options[] = {
    {EV_OPT_FLAG, "all", NULL, "every item there is, instead of those named: what `put` reads again"},
    {EV_OPT_FLAG, "no-vectors", NULL, "features alone"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_items_get = {
    .name = "items get",
    .summary = "Prints items of a table, one JSON object a line; '-' reads ids from standard input.",
    .arguments = "NAME [ID…]",
    .example = "evection items get films 50 181\n"
               "evection items get films --all > films.jsonl",
    .options = get_options,
    .min_args = 1,
    .max_args = -1,
    .run = run_get,
};

const ev_verb ev_verb_items_delete = {
    .name = "items delete",
    .summary = "Deletes items from a table, all or none; '-' reads ids from standard input.",
    .arguments = "NAME ID…",
    .example = "evection items delete films 50 181",
    .options = no_options,
    .min_args = 2,
    .max_args = -1,
    .run = run_delete,
};

const ev_verb ev_verb_items_stats = {
    .name = "items stats",
    .summary = "Prints a table's size, index, files and features.",
    .arguments = "NAME",
    .example = "evection items stats films",
    .options = no_options,
    .min_args = 1,
    .max_args = 1,
    .run = run_stats,
};

const ev_verb ev_verb_items_list = {
    .name = "items list",
    .summary = "Lists the tables of items there are.",
    .arguments = "",
    .example = "evection items list --json",
    .options = no_options,
    .min_args = 0,
    .max_args = 0,
    .run = run_list,
};

const ev_verb ev_verb_items_compact = {
    .name = "items compact",
    .summary = "Writes a table's snapshot anew, without what was replaced or deleted, and empties its log.",
    .arguments = "NAME",
    .example = "evection items compact films",
    .options = no_options,
    .min_args = 1,
    .max_args = 1,
    .run = run_compact,
};

const ev_verb ev_verb_items_verify = {
    .name = "items verify",
    .summary = "Reads every checksum of a table's files.",
    .arguments = "NAME",
    .example = "evection items verify films",
    .options = no_options,
    .min_args = 1,
    .max_args = 1,
    .run = run_verify,
};
