/* item_columns.c - columns of numbers over items, for slates to look up; and clusters of items, which make good ones.
 *
 * Arrays: names u8 (bytes), one name after the other, each ended by a newline; values f32 (n_items, n_columns): an item's numbers lie
 * together, so that a candidate costs one or two lines of cache however many columns there are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kinds.h"

#define NAME_MAX 47 /* of a slate's column */

ev_status ev_fit_item_columns(const char *path, const char *const *names, const float *const *columns, size_t n_columns, size_t n_items) {
  if (n_columns == 0 || n_columns > EV_SLATE_MAX_COLUMNS || n_items == 0) return ev_fail(EV_EINVAL, "%zu columns over %zu items: 1 to %d", n_columns, n_items, EV_SLATE_MAX_COLUMNS);
  for (size_t c = 0; c < n_columns; c++) {
    size_t len = strlen(names[c]);
    if (len == 0 || len > NAME_MAX || strpbrk(names[c], "\n") != NULL || strcmp(names[c], "score") == 0) return ev_fail(EV_EINVAL, "'%.60s' is no name for a column", names[c]);
    for (size_t other = 0; other < c; other++)
      if (strcmp(names[other], names[c]) == 0) return ev_fail(EV_EINVAL, "two columns called '%s'", names[c]);
    for (size_t i = 0; i < n_items; i++)
      if (!isfinite(columns[c][i])) return ev_fail(EV_EINVAL, "column '%s': the number of item %zu is %g", names[c], i, (double)columns[c][i]);
  }
  ev_buf text = {0};
  float *rows = ev_alloc(n_items, n_columns * sizeof *rows);
  ev_pack_writer *w = NULL;
  ev_status status = rows == NULL ? EV_ENOMEM : EV_OK;
  for (size_t c = 0; c < n_columns && status == EV_OK; c++) {
    status = ev_buf_printf(&text, "%s\n", names[c]);
    for (size_t i = 0; i < n_items; i++) rows[i * n_columns + c] = columns[c][i];
  }
  if (status == EV_OK) status = ev_pack_writer_open(&w, path, "item_columns");
  if (status == EV_OK) {
    status = ev_pack_write(w, "names", EV_U8, text.data, text.len, 1);
    if (status == EV_OK) status = ev_pack_write(w, "values", EV_F32, rows, n_items, n_columns);
    if (status == EV_OK) status = ev_pack_writer_commit(w);
    else ev_pack_writer_abort(w);
  }
  ev_buf_free(&text);
  ev_free(rows);
  return status;
}

typedef struct item_columns {
  const float *values; /* (n_items, n) */
  size_t n;
  char names[EV_SLATE_MAX_COLUMNS][NAME_MAX + 1];
} item_columns;

static ev_status open_kind(ev_model *m) {
  ev_array names, values;
  EV_TRY(ev_pack_get(m->pack, "names", EV_U8, &names));
  EV_TRY(ev_pack_get(m->pack, "values", EV_F32, &values));
  if (values.rows == 0 || values.rows >= EV_NONE || values.cols == 0 || values.cols > EV_SLATE_MAX_COLUMNS || names.cols != 1)
    return ev_fail(EV_ECORRUPT, "%s: columns of the wrong shape", ev_pack_path(m->pack));
  m->n_items = values.rows;
  item_columns *x = m->state = ev_zalloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  x->values = values.data;
  const char *at = names.data, *end = at + names.rows;
  for (x->n = 0; x->n < values.cols; x->n++) {
    const char *stop = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
    if (stop == NULL || stop == at || stop - at > NAME_MAX || memchr(at, '\0', (size_t)(stop - at)) != NULL)
      return ev_fail(EV_ECORRUPT, "%s: column %zu has no name", ev_pack_path(m->pack), x->n);
    memcpy(x->names[x->n], at, (size_t)(stop - at));
    for (size_t c = 0; c < x->n; c++)
      if (strcmp(x->names[c], x->names[x->n]) == 0) return ev_fail(EV_ECORRUPT, "%s: two columns called '%s'", ev_pack_path(m->pack), x->names[c]);
    at = stop + 1;
  }
  return at == end ? EV_OK : ev_fail(EV_ECORRUPT, "%s: more names than columns", ev_pack_path(m->pack));
}

static void close_kind(ev_model *m) { ev_free(m->state); }

static ev_status has_columns(const ev_model *m) {
  return m->kind == &ev_kind_item_columns ? EV_OK : ev_fail(EV_EINVAL, "a model of kind %s has no columns", m->kind->name);
}

static const float *row_of(const ev_model *m, uint32_t item) { /* NULL: it came after the data */
  const item_columns *x = m->state;
  return item < m->n_items ? x->values + item * x->n : NULL;
}

ev_status ev_model_fill(const ev_model *m, ev_slate *s) {
  EV_TRY(has_columns(m));
  const item_columns *x = m->state;
  size_t n = ev_slate_n(s);
  float *out[EV_SLATE_MAX_COLUMNS];
  for (size_t c = 0; c < x->n; c++) EV_TRY(ev_slate_column(s, x->names[c], &out[c]));
  for (size_t c = 0; c < x->n; c++) out[c] = ev_slate_find(s, x->names[c]); /* making one may have moved the others */
  const uint32_t *items = ev_slate_items(s);
  for (size_t i = 0; i < n; i++) {
    const float *row = row_of(m, items[i]);
    if (i + 8 < n && items[i + 8] < m->n_items) {
      const float *soon = x->values + items[i + 8] * x->n;
      __builtin_prefetch(soon);
      __builtin_prefetch(soon + x->n - 1); /* most rows lie on two lines */
    }
    for (size_t c = 0; c < x->n; c++) out[c][i] = row != NULL ? row[c] : 0;
  }
  return EV_OK;
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

ev_status ev_model_share(const ev_model *m, const ev_requests *r, ev_slate *s, const char *column, float *out) {
  EV_TRY(has_columns(m));
  EV_TRY(ev_requests_check(r, m->n_items));
  const item_columns *x = m->state;
  size_t c = 0, n = r->history_ptr[1] - r->history_ptr[0], used = 0;
  while (c < x->n && strcmp(x->names[c], column) != 0) c++;
  if (c == x->n) return ev_fail(EV_EINVAL, "the model has no column '%.60s'", column);
  float *number = ev_alloc(n, sizeof *number), *share = ev_alloc(n, sizeof *share);
  ev_status status = number == NULL || share == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    for (size_t i = 0; i < n; i++) number[i] = x->values[r->history[r->history_ptr[0] + i] * x->n + c];
    qsort(number, n, sizeof *number, ascending);
    for (size_t i = 0; i < n; i++) { /* each number once, with its share */
      if (used == 0 || number[i] != number[used - 1]) number[used] = number[i], share[used++] = 0;
      share[used - 1] += 1 / (float)n;
    }
    const uint32_t *items = ev_slate_items(s);
    for (size_t i = 0, n_rows = ev_slate_n(s); i < n_rows; i++) {
      const float *row = row_of(m, items[i]);
      if (row == NULL) {
        out[i] = 0;
        continue;
      }
      float own = row[c];
      size_t at = 0;
      for (size_t len = used; len > 1; len -= len / 2) at += (size_t)(number[at + len / 2] <= own) * (len / 2);
      out[i] = used > 0 && number[at] == own ? share[at] : 0;
    }
  }
  ev_free(number);
  ev_free(share);
  return status;
}

const ev_kind ev_kind_item_columns = {.name = "item_columns", .open = open_kind, .close = close_kind};

/* ---- Clusters ------------------------------------------------------------------------------------------*/
#define ROUNDS 20

/* Item vectors as a pack has them: f32 rows, or codes of the f32 form, whose rows are padded. */
static bool vectors_of(const ev_model *m, ev_array *out, size_t *stride, size_t *d) {
  ev_array user;
  const char *kind = m->kind->name;
  bool indexed = strcmp(kind, "indexed") == 0;
  if (!indexed && strcmp(kind, "factors") != 0 && strcmp(kind, "vectors") != 0) return false;
  if (indexed && !ev_pack_find(m->pack, "index.vectors", out) && !ev_pack_find(m->pack, "index.codes", out)) return false;
  if (!indexed && !ev_pack_find(m->pack, "item", out)) return false;
  *stride = out->cols * ev_dtype_size(out->dtype);
  *d = indexed && ev_pack_find(m->pack, "user", &user) ? user.cols : out->cols; /* as opening has checked them */
  return true;
}

ev_status ev_model_clusters(const ev_model *m, uint32_t *out, size_t k, uint64_t seed) {
  ev_array rows;
  size_t stride, d;
  if (!vectors_of(m, &rows, &stride, &d)) return ev_fail(EV_EINVAL, "a model of kind %s has no vectors of items", m->kind->name);
  float *x = ev_alloc(m->n_items, d * sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < m->n_items; i++) {
    memcpy(x + i * d, (const char *)rows.data + i * stride, d * sizeof *x);
    ev_vectors_unit(x + i * d, d);
  }
  ev_status status = ev_clusters(out, x, m->n_items, d, k, ROUNDS, seed);
  ev_free(x);
  return status;
}
