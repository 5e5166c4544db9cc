/* items_put.c - `evection items put`: JSON Lines into a table, some thousand rows a commit.
 *
 * A line is taken whole or not at all, and what came before a bad one is in the table and stays there: the message says how much
 * that is. Where a batch is refused as a whole (a value of another type than its column's), its items are put one by one, so
 * that the line at fault is found and those before it are kept. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "items.h"

#define LINE_MAX_BYTES (64u << 20)
#define LONG_LOG (256u << 10) /* bytes: replaying it takes longer than a compaction, with a graph far longer */
#define BATCH_MAX_BYTES (32u << 20) /* of lines: a batch ends before its rows are many where they are long */

/* ---- One line ------------------------------------------------------------------------------------------*/
ev_status cli_items_read_vector(const json_t *v, float *out) {
  size_t i;
  json_t *x;
  json_array_foreach(v, i, x) {
    if (!json_is_number(x)) return ev_fail(EV_EINVAL, "number %zu of the vector is none", i + 1);
    double y = json_number_value(x);
    if (!(fabs(y) <= FLT_MAX)) return ev_fail(EV_EINVAL, "number %zu of the vector, %g, is too large", i + 1, y);
    out[i] = (float)y;
  }
  return EV_OK;
}

static const char *text_of(const json_t *v, char number[32], size_t *len) { /* a string, or a whole number as text */
  if (json_is_string(v)) {
    *len = json_string_length(v);
    return json_string_value(v);
  }
  if (!json_is_integer(v)) return NULL;
  *len = (size_t)snprintf(number, 32, "%lld", (long long)json_integer_value(v));
  return number;
}

static ev_status add_list(ev_item_batch *b, const char *key, const json_t *list) {
  size_t i, len;
  json_t *x;
  char number[32];
  json_array_foreach(list, i, x) {
    const char *s = text_of(x, number, &len);
    if (s == NULL) return ev_fail(EV_EINVAL, "'%.60s' is a list of something else than texts", key);
    EV_TRY(ev_item_batch_token(b, s, len));
  }
  return EV_OK;
}

static ev_status add_field(ev_item_batch *b, const char *key, const json_t *v) {
  ev_column_type type = json_is_number(v) ? EV_FLOAT : json_is_array(v) ? EV_TOKEN_LIST : EV_TOKEN;
  double number = json_is_number(v) ? json_number_value(v) : 0;
  if (json_is_null(v)) return EV_OK;
  if (json_is_object(v)) return ev_fail(EV_EINVAL, "'%.60s' is an object; numbers, texts and lists of texts are features", key);
  if (*key == '\0' || strlen(key) > 47) return ev_fail(EV_EINVAL, "'%.60s' is no name for a feature: 1 to 47 bytes", key);
  if (!(fabs(number) <= FLT_MAX)) return ev_fail(EV_EINVAL, "'%.60s' is %g, too large a number", key, number);
  EV_TRY(ev_item_batch_field(b, key, strlen(key), type, number));
  if (json_is_string(v)) return ev_item_batch_token(b, json_string_value(v), json_string_length(v));
  if (json_is_boolean(v)) return ev_item_batch_token(b, json_is_true(v) ? "true" : "false", json_is_true(v) ? 4 : 5);
  return json_is_array(v) ? add_list(b, key, v) : EV_OK;
}

static ev_status add_features(ev_item_batch *b, json_t *object) {
  const char *key;
  json_t *v;
  json_object_foreach(object, key, v) {
    if (strcmp(key, "id") == 0) continue;
    if (strcmp(key, "vector") != 0) {
      EV_TRY(add_field(b, key, v));
      continue;
    }
    float *out;
    if (json_is_null(v)) continue;
    if (!json_is_array(v) || json_array_size(v) == 0) return ev_fail(EV_EINVAL, "the vector is not a list of numbers");
    EV_TRY(ev_item_batch_vector(b, json_array_size(v), &out));
    EV_TRY(cli_items_read_vector(v, out));
  }
  return EV_OK;
}

/* ---- The table -------------------------------------------------------------------------------------------*/
/* --KEY within its range → *out, which stays as it is where the option is not given. */
static ev_status given_number(const json_t *opts, const char *key, int64_t low, int64_t high, int64_t *out) {
  char name[32];
  if (json_object_get(opts, key) == NULL) return EV_OK;
  snprintf(name, sizeof name, "%s", key);
  for (char *c = name; *c != '\0'; c++)
    if (*c == '_') *c = '-';
  int64_t x = ev_opt_int(opts, key, *out);
  if (x < low || x > high) return ev_fail(EV_EINVAL, "--%s: %lld is not between %lld and %lld", name, (long long)x, (long long)low, (long long)high);
  *out = x;
  return EV_OK;
}

/* What the options say of the index, over what stands in o. */
static ev_status index_options(const json_t *opts, ev_index_options *o) {
  int64_t dims = (int64_t)o->n_dims, links = o->n_links, build = o->effort_build, lists = o->n_lists, effort = o->effort, seed = (int64_t)o->seed;
  EV_TRY(given_number(opts, "dims", 0, 65536, &dims));
  EV_TRY(given_number(opts, "links", 2, 1024, &links));
  EV_TRY(given_number(opts, "effort_build", 1, 1000000, &build));
  EV_TRY(given_number(opts, "lists", 0, 1 << 24, &lists));
  EV_TRY(given_number(opts, "effort", 0, 1000000, &effort));
  EV_TRY(given_number(opts, "seed", 0, INT64_MAX, &seed));
  o->kind = ev_opt_string(opts, "kind", o->kind);
  o->metric = ev_opt_string(opts, "metric", o->metric);
  o->form = ev_opt_string(opts, "form", o->form);
  if (ev_opt_flag(opts, "no_rescore")) o->rescore = false;
  o->n_dims = (size_t)dims;
  o->n_links = (unsigned)links;
  o->effort_build = (unsigned)build;
  o->n_lists = (unsigned)lists;
  o->effort = (unsigned)effort;
  o->seed = (uint64_t)seed;
  return EV_OK;
}

/* A table keeps the index it was made with: an option that says otherwise is a mistake. */
static ev_status check_index(const putting *p) {
  const ev_index_options *have = ev_items_index(p->table);
  ev_index_options want;
  ev_index_defaults(&want);
  if (have != NULL) want = *have;
  EV_TRY(index_options(p->opts, &want));
  if (have == NULL && want.n_dims > 0) return ev_fail(EV_EINVAL, "--dims: table '%s' was made without vectors", p->name);
  if (have == NULL) return EV_OK;
  const struct { const char *option; bool same; } each[] = {
      {"kind", strcmp(want.kind, have->kind) == 0}, {"metric", strcmp(want.metric, have->metric) == 0}, {"form", strcmp(want.form, have->form) == 0},
      {"no-rescore", want.rescore == have->rescore}, {"dims", want.n_dims == have->n_dims}, {"links", want.n_links == have->n_links},
      {"effort-build", want.effort_build == have->effort_build}, {"lists", want.n_lists == have->n_lists}, {"seed", want.seed == have->seed},
      {"effort", want.effort == have->effort}};
  for (size_t i = 0; i < sizeof each / sizeof *each; i++)
    if (!each[i].same)
      return ev_fail(EV_EINVAL, "--%s: table '%s' is there and was made otherwise (%s, %s, %s, %zu numbers a vector)", each[i].option, p->name, have->kind,
                     have->metric, have->form, have->n_dims);
  return EV_OK;
}

static ev_status open_table(putting *p) {
  ev_items_options o;
  bool there = cli_items_there(p->opts, p->name);
  ev_items_defaults(&o);
  if (!there) {
    EV_TRY(index_options(p->opts, &o.index));
    o.index.n_dims = p->dims != SIZE_MAX ? p->dims : 0;
  }
  EV_TRY(cli_items_open_named(p->opts, p->name, there ? ITEMS_WRITE : ITEMS_CREATE, &o, &p->table));
  const ev_index_options *have = ev_items_index(p->table);
  p->dims = have != NULL ? have->n_dims : 0;
  return there ? check_index(p) : EV_OK;
}

ev_status cli_items_flush(putting *p) {
  const ev_item *items;
  size_t n = ev_item_batch_n(p->batch), done = 0;
  if (n == 0) return EV_OK;
  if (p->table == NULL) EV_TRY(open_table(p));
  const place *at = (const place *)(void *)p->places.data;
  EV_TRY(ev_item_batch_get(p->batch, p->dims, &items));
  ev_status status = ev_items_put(p->table, items, n);
  if (status == EV_OK) done = n;
  if (status == EV_EINVAL) {
    for (status = EV_OK; done < n; done++) {
      status = ev_items_put(p->table, &items[done], 1);
      if (status != EV_OK) break;
    }
    if (status == EV_EINVAL) ev_fail(status, "%s:%zu: %s", at[done].file, at[done].line, ev_error());
  }
  p->n_put += done;
  ev_item_batch_clear(p->batch);
  ev_buf_clear(&p->places);
  json_object_clear(p->ids);
  p->batch_bytes = 0;
  return status;
}

/* ---- Lines ---------------------------------------------------------------------------------------------*/
static ev_status check_dims(putting *p, const json_t *vector) {
  size_t n = json_array_size(vector);
  if (n == 0) return EV_OK; /* none, or said elsewhere */
  if (p->dims == SIZE_MAX) p->dims = n;
  if (p->dims == 0) return ev_fail(EV_EINVAL, "a vector of %zu numbers; table '%s' was made without vectors", n, p->name);
  if (p->dims != n) return ev_fail(EV_EINVAL, "a vector of %zu numbers; those of table '%s' have %zu", n, p->name, p->dims);
  return EV_OK;
}

/* Reads an object into the batch. An id that is in it already ends it first: the later line replaces the earlier. */
static ev_status take(putting *p, const char *file, size_t line, json_t *object) {
  char number[32];
  size_t len;
  if (!json_is_object(object)) return ev_fail(EV_EINVAL, "%s:%zu: not an object", file, line);
  const char *id = text_of(json_object_get(object, "id"), number, &len);
  if (id == NULL || len == 0 || len > 255) return ev_fail(EV_EINVAL, "%s:%zu: no id (a text of 1 to 255 bytes, or a whole number)", file, line);
  ev_status status = check_dims(p, json_object_get(object, "vector"));
  if (status == EV_OK && json_object_get(p->ids, id) != NULL) {
    status = cli_items_flush(p);
    if (status != EV_OK) return status; /* says its own line */
  }
  if (status == EV_OK) status = ev_item_batch_add(p->batch, id, len);
  if (status == EV_OK) {
    status = add_features(p->batch, object);
    if (status != EV_OK) ev_item_batch_drop(p->batch);
  }
  if (status == EV_EINVAL) return ev_fail(status, "%s:%zu: %s", file, line, ev_error());
  if (status != EV_OK || json_object_set_new(p->ids, id, json_true()) != 0) return ev_fail(EV_ENOMEM, "out of memory");
  return ev_buf_append(&p->places, &(place){file, line}, sizeof(place));
}

static ev_status read_line(void *ctx, const char *file, size_t number, char *line, size_t len) {
  putting *p = ctx;
  json_error_t error;
  while (len > 0 && line[len - 1] == '\r') len--;
  if (len == 0) return EV_OK;
  if (len > LINE_MAX_BYTES) return ev_fail(EV_EINVAL, "%s:%zu: a line longer than %u bytes", file, number, LINE_MAX_BYTES);
  json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
  if (object == NULL) return ev_fail(EV_EINVAL, "%s:%zu: not JSON: %s", file, number, ev_text_mend(error.text));
  ev_status status = take(p, file, number, object);
  json_decref(object);
  p->batch_bytes += len;
  if (status == EV_OK && (ev_item_batch_n(p->batch) >= p->batch_rows || p->batch_bytes >= BATCH_MAX_BYTES)) status = cli_items_flush(p);
  return status;
}

/* ---- The verb ------------------------------------------------------------------------------------------*/
static ev_status begin(putting *p) {
  p->batch = ev_item_batch_new();
  p->ids = json_object();
  if (p->batch == NULL || p->ids == NULL) return ev_fail(EV_ENOMEM, "out of memory");
  int64_t rows = 1000;
  EV_TRY(given_number(p->opts, "batch", 1, 1000000, &rows));
  bool data = json_object_get(p->opts, "data") != NULL;
  if (json_object_get(p->opts, "factors") != NULL && !data) return ev_fail(EV_EINVAL, "--factors: --data NAME says whose items they are");
  if (data && ev_opt_n_args(p->opts) > 1) return ev_fail(EV_EINVAL, "--data: the items come from it, not from '%.60s'", ev_opt_arg(p->opts, 1));
  p->batch_rows = (size_t)rows;
  p->dims = SIZE_MAX;
  if (cli_items_there(p->opts, p->name)) return open_table(p);
  ev_index_options o;
  ev_index_defaults(&o);
  EV_TRY(index_options(p->opts, &o));
  if (json_object_get(p->opts, "dims") != NULL) p->dims = o.n_dims;
  return EV_OK;
}

/* The next command opens the table anew: what it would have to replay becomes a snapshot, which it maps. */
static ev_status settle(const putting *p) {
  ev_items_stats st;
  ev_items_stat(p->table, &st);
  return st.log_bytes > LONG_LOG && st.log_bytes > st.snapshot_bytes / 2 ? ev_items_compact(p->table) : EV_OK;
}

static ev_status say_put(const putting *p, uint64_t started_ns) {
  ev_items_stats st;
  ev_items_stat(p->table, &st);
  double seconds = (double)(ev_now_ns() - started_ns) * 1e-9;
  if (!ev_opt_flag(p->opts, "json")) {
    printf("%s: %zu items put in %.1f s; it holds %zu, %zu with a vector\n", p->name, p->n_put, seconds, st.n_items, st.n_vectors);
    return EV_OK;
  }
  json_t *document = json_pack("{s:s, s:I, s:I, s:I, s:f, s:f}", "table", p->name, "put", (json_int_t)p->n_put, "items", (json_int_t)st.n_items, "vectors",
                               (json_int_t)st.n_vectors, "seconds", seconds, "max_rss_mb", (double)ev_peak_rss_bytes() / (1024 * 1024));
  return document != NULL ? ev_print_json(document) : ev_fail(EV_ENOMEM, "out of memory");
}

static ev_status run_put(json_t *opts) {
  putting p = {.opts = opts, .name = ev_opt_arg(opts, 0)};
  uint64_t started = ev_now_ns();
  ev_bar_start(&p.bar, "putting", "MB", ev_opt_flag(opts, "quiet"));
  ev_status status = begin(&p);
  bool begun = status == EV_OK;
  if (begun) status = json_object_get(opts, "data") != NULL ? cli_items_put_data(&p) : ev_read_lines(opts, 1, &p.bar, read_line, &p);
  if (status == EV_OK) {
    status = cli_items_flush(&p);
  } else if (status != EV_EINTR && p.batch != NULL && ev_item_batch_n(p.batch) > 0) { /* the good lines before a bad one */
    char said[1024];
    snprintf(said, sizeof said, "%s", ev_error());
    ev_status second = cli_items_flush(&p);
    if (second == EV_OK) ev_fail(status, "%s", said);
    else status = second;
  }
  ev_bar_end(&p.bar);
  if (status == EV_OK && p.table == NULL) status = ev_fail(EV_EINVAL, "no items: table '%s' is not there, and its first item makes it", p.name);
  if (status == EV_OK) status = settle(&p);
  if (status == EV_OK) status = say_put(&p, started);
  else if (status != EV_EINTR && begun && p.table != NULL) ev_fail(status, "%s (%zu items were put before it)", ev_error(), p.n_put);
  else if (status == EV_EINTR && p.table != NULL && !ev_opt_flag(opts, "quiet")) fprintf(stderr, "evection: %zu items are in table '%s'\n", p.n_put, p.name);
  ev_items_close(p.table);
  ev_item_batch_free(p.batch);
  ev_buf_free(&p.places);
  json_decref(p.ids);
  return status;
}

static const ev_option options[] = {
    {EV_OPT_STRING, "kind", "KIND", "a new table's index: flat, hnsw or ivf (default hnsw)"},
    {EV_OPT_STRING, "metric", "METRIC", "its likeness: dot, cosine or l2 (default dot)"},
    {EV_OPT_STRING, "form", "FORM", "how it keeps vectors: f32, f16, bf16 or i8 (default i8)"},
    {EV_OPT_FLAG, "no-rescore", NULL, "do not keep f32 vectors beside a smaller form"},
    {EV_OPT_INT, "dims", "N", "numbers a vector has; 0: no vectors (default: as the first has)"},
    {EV_OPT_INT, "links", "N", "hnsw: links of a node (default 16)"},
    {EV_OPT_INT, "effort-build", "N", "hnsw: candidates kept while inserting (default 200)"},
    {EV_OPT_INT, "lists", "N", "ivf: lists (default: found out)"},
    {EV_OPT_INT, "effort", "N", "of a search that names none (default: the kind's own)"},
    {EV_OPT_INT, "seed", "N", "seed of everything random (default 0)"},
    {EV_OPT_INT, "batch", "N", "items a commit (default 1000)"},
    {EV_OPT_STRING, "data", "NAME", "instead of files: the items of a data set, with their features"},
    {EV_OPT_STRING, "factors", "MODEL", "with --data: their vectors, of agent:ials, of another composition that fits factors, or of an artifact"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_items_put = {
    .name = "items put",
    .summary = "Puts items (JSON Lines with id, vector and features) into a live table; what it says is put is on disk.",
    .arguments = "NAME [FILE…]",
    .example = "evection items put films films.jsonl\n"
               "evection items put films --kind flat --metric cosine < films.jsonl\n"
               "evection items put films --data movielens --factors agent:ials",
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .run = run_put,
};
