/* items_search.c - `evection items search`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "items.h"

#define SHOWN_MAX 16 /* columns in a table of hits */

typedef struct searching {
  json_t *opts;
  const char *name;
  const ev_items *t;
  ev_items_reader r;
  size_t k, d;
  float *query, *scores; /* (d), (k) */
  uint32_t *rows, *seen; /* (k), (n_seen) ascending */
  size_t n_seen, looked_at;
  const ev_column *shown[SHOWN_MAX];
  size_t n_shown;
} searching;

static int by_row(const void *a, const void *b) { return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b); }

static ev_status read_query(searching *s) {
  const char *text = ev_opt_string(s->opts, "vector", NULL), *like = ev_opt_string(s->opts, "like", NULL);
  const json_t *exclude = json_object_get(s->opts, "exclude");
  uint32_t row;
  if ((text == NULL) == (like == NULL)) return ev_fail(EV_EINVAL, "one of --vector and --like says what is searched for");
  if (s->d == 0) return ev_fail(EV_EINVAL, "table '%s' was made without vectors", s->name);
  for (size_t i = 0; i < json_array_size(exclude); i++) { /* an id that is not there cannot be found anyway */
    const char *id = json_string_value(json_array_get(exclude, i));
    row = ev_items_find(&s->r, id, strlen(id));
    if (row != EV_NONE) s->seen[s->n_seen++] = row;
  }
  if (like != NULL) {
    EV_TRY(cli_items_find_row(&s->r, s->name, like, &row));
    if (ev_items_vector(&s->r, row, s->query) != EV_OK) return ev_fail(EV_EINVAL, "--like: item '%.80s' has no vector", like);
    s->seen[s->n_seen++] = row;
  } else {
    json_error_t error;
    json_t *v = json_loads(text, 0, &error);
    ev_status status = EV_OK;
    if (!json_is_array(v)) status = ev_fail(EV_EINVAL, "--vector: '%.60s' is not a JSON list of numbers", text);
    else if (json_array_size(v) != s->d) status = ev_fail(EV_EINVAL, "--vector: %zu numbers; the vectors of table '%s' have %zu", json_array_size(v), s->name, s->d);
    else if (cli_items_read_vector(v, s->query) != EV_OK) status = ev_fail(EV_EINVAL, "--vector: %s", ev_error());
    json_decref(v);
    EV_TRY(status);
  }
  qsort(s->seen, s->n_seen, sizeof *s->seen, by_row);
  size_t n = 0;
  for (size_t i = 0; i < s->n_seen; i++)
    if (i == 0 || s->seen[i] != s->seen[i - 1]) s->seen[n++] = s->seen[i];
  s->n_seen = n;
  return EV_OK;
}

/* The columns named by --show; without, the one that looks like a title, if there is one. */
static ev_status choose_columns(searching *s) {
  const json_t *names = json_object_get(s->opts, "show");
  size_t n = ev_items_n_columns(&s->r);
  if (json_array_size(names) > SHOWN_MAX) return ev_fail(EV_EINVAL, "--show: at most %d columns", SHOWN_MAX);
  for (size_t i = 0; i < json_array_size(names); i++) {
    const char *name = json_string_value(json_array_get(names, i));
    const ev_column *c = NULL;
    for (size_t k = 0; k < n && c == NULL; k++)
      if (strcmp(ev_items_column_at(&s->r, k)->name, name) == 0) c = ev_items_column_at(&s->r, k);
    if (c == NULL) return ev_fail(EV_EINVAL, "--show: table '%s' has no column '%.60s'", s->name, name);
    s->shown[s->n_shown++] = c;
  }
  for (size_t k = 0; k < n && names == NULL && s->n_shown == 0; k++) {
    const ev_column *c = ev_items_column_at(&s->r, k);
    if (c->type != EV_FLOAT && (strstr(c->name, "title") != NULL || strcmp(c->name, "name") == 0)) s->shown[s->n_shown++] = c;
  }
  return EV_OK;
}

/* A value as a cell of a table: at most 60 bytes, whole characters, no line's end. → how wide it is */
static size_t write_cell(ev_buf *text, const ev_column *c, uint32_t row) {
  json_t *value = cli_items_value_json(c, row), *x;
  size_t i, width = 0;
  ev_buf_clear(text);
  if (json_is_integer(value)) ev_buf_printf(text, "%lld", (long long)json_integer_value(value));
  else if (json_is_real(value)) ev_buf_printf(text, "%.9g", json_real_value(value));
  else if (json_is_string(value)) ev_buf_append(text, json_string_value(value), json_string_length(value));
  json_array_foreach(value, i, x) {
    ev_buf_printf(text, "%s%s", i > 0 ? " " : "", json_string_value(x));
  }
  json_decref(value);
  if (text->len > 60) {
    text->len = ev_utf8_invalid(text->data, 57);
    ev_buf_append(text, "…", strlen("…"));
  }
  for (i = 0; i < text->len; i++) {
    if ((unsigned char)text->data[i] < 0x20) text->data[i] = ' ';
    width += ((unsigned char)text->data[i] & 0xC0) != 0x80;
  }
  return width;
}

static void print_hits(const searching *s, size_t n) {
  size_t widths[SHOWN_MAX] = {0}, width = 2, len;
  ev_buf text = {0};
  for (size_t i = 0; i < n; i++) {
    ev_items_id(&s->r, s->rows[i], &len);
    if (len > width) width = len;
  }
  printf("rank  %-*s  %12s", (int)width, "id", "score");
  for (size_t k = 0; k < s->n_shown; k++) {
    widths[k] = strlen(s->shown[k]->name);
    for (size_t i = 0; i < n; i++) {
      size_t wide = write_cell(&text, s->shown[k], s->rows[i]);
      if (wide > widths[k]) widths[k] = wide;
    }
    printf("  %-*s", k + 1 < s->n_shown ? (int)widths[k] : 0, s->shown[k]->name);
  }
  putchar('\n');
  for (size_t i = 0; i < n; i++) {
    const char *id = ev_items_id(&s->r, s->rows[i], &len);
    printf("%4zu  %.*s%*s  %12.6g", i + 1, (int)len, id, (int)(width - len), "", (double)s->scores[i]);
    for (size_t k = 0; k < s->n_shown; k++) {
      size_t wide = write_cell(&text, s->shown[k], s->rows[i]);
      printf("  %.*s%*s", (int)text.len, text.data != NULL ? text.data : "", k + 1 < s->n_shown ? (int)(widths[k] - wide) : 0, "");
    }
    putchar('\n');
  }
  ev_buf_free(&text);
}

static json_t *hits_json(const searching *s, size_t n) {
  json_t *hits = json_array();
  size_t len;
  for (size_t i = 0; i < n; i++) {
    const char *id = ev_items_id(&s->r, s->rows[i], &len);
    json_t *hit = json_pack("{s:I, s:o, s:f}", "rank", (json_int_t)i + 1, "id", json_stringn(id, len), "score", ev_float_decimal(s->scores[i]));
    for (size_t k = 0; k < s->n_shown; k++) {
      json_t *value = cli_items_value_json(s->shown[k], s->rows[i]);
      json_object_set_new(hit, s->shown[k]->name, value != NULL ? value : json_null());
    }
    json_array_append_new(hits, hit);
  }
  return hits;
}

/* Inside the reader: what is found is printed from it. */
static ev_status search(searching *s) {
  int64_t effort = ev_opt_int(s->opts, "effort", 0);
  if (effort < 0 || effort > 1000000) return ev_fail(EV_EINVAL, "--effort: %lld is not between 0 and 1000000", (long long)effort);
  EV_TRY(read_query(s));
  EV_TRY(choose_columns(s));
  uint64_t ptr[2] = {0, s->n_seen};
  ev_search ask = {.k = s->k, .effort = (unsigned)effort, .seen_ptr = ptr, .seen = s->seen, .n_looked_at = &s->looked_at};
  uint64_t started = ev_now_ns();
  EV_TRY(ev_items_search(&s->r, s->query, 1, &ask, ev_opt_string(s->opts, "where", NULL), s->rows, s->scores));
  double ms = (double)(ev_now_ns() - started) * 1e-6;
  size_t n = 0;
  while (n < s->k && s->rows[n] != EV_NONE) n++;
  if (!ev_opt_flag(s->opts, "json")) {
    print_hits(s, n);
    return EV_OK;
  }
  return ev_print_json(json_pack("{s:s, s:o, s:I, s:f}", "table", s->name, "hits", hits_json(s, n), "looked_at", (json_int_t)s->looked_at, "search_ms", ms));
}

static ev_status run_search(json_t *opts) {
  ev_items *t;
  int64_t k = ev_opt_int(opts, "k", 10);
  if (k < 1 || k > 1000000) return ev_fail(EV_EINVAL, "--k: %lld is not between 1 and 1000000", (long long)k);
  EV_TRY(cli_items_open_named(opts, ev_opt_arg(opts, 0), ITEMS_READ, NULL, &t));
  searching s = {.opts = opts, .name = ev_opt_arg(opts, 0), .t = t, .k = (size_t)k, .d = cli_items_dims(t)};
  s.query = ev_alloc(s.d, sizeof *s.query);
  s.scores = ev_alloc(s.k, sizeof *s.scores);
  s.rows = ev_alloc(s.k, sizeof *s.rows);
  s.seen = ev_alloc(json_array_size(json_object_get(opts, "exclude")) + 1, sizeof *s.seen);
  ev_status status = EV_ENOMEM;
  if (s.query != NULL && s.scores != NULL && s.rows != NULL && s.seen != NULL) {
    ev_items_begin(&s.r, t);
    status = search(&s);
    ev_items_end(&s.r);
  }
  ev_free(s.query);
  ev_free(s.scores);
  ev_free(s.rows);
  ev_free(s.seen);
  ev_items_close(t);
  return status;
}

static const ev_option search_options[] = {
    {EV_OPT_STRING, "vector", "JSON", "what is searched for: '[0.1, 0.2, …]'"},
    {EV_OPT_STRING, "like", "ID", "instead: the vector of this item, which is left out"},
    {EV_OPT_INT, "k", "N", "how many (default 10)"},
    {EV_OPT_STRING, "where", "CONDITION", "only items whose features fulfil it: 'genre in {\"Drama\"} and year >= 1990'"},
    {EV_OPT_LIST, "exclude", "ID", "an item to leave out; may be given several times"},
    {EV_OPT_LIST, "show", "COLUMN", "a feature to print; may be given several times (default: what looks like a title)"},
    {EV_OPT_INT, "effort", "N", "hnsw: candidates kept; ivf: lists looked at (default: the table's own)"},
    {EV_OPT_END, NULL, NULL, NULL},
};

const ev_verb ev_verb_items_search = {
    .name = "items search",
    .summary = "The items whose vectors are nearest to one, among those that fulfil a condition.",
    .arguments = "NAME",
    .example = "evection items search films --like 50 --k 5 --where 'release_year == \"1995\"'\n"
               "evection items search films --vector '[0.1, -0.3, 0.2]' --json",
    .options = search_options,
    .min_args = 1,
    .max_args = 1,
    .run = run_search,
};
