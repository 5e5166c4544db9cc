/* features.c - feature columns of users or items as one sparse matrix, for graphs. */
#include <math.h>
#include <string.h>

#include "learn.h"

typedef struct scale { /* of a column of numbers, over all rows that have one */
  float mean, std;
} scale;

static scale measure(const ev_column *c) {
  double sum = 0, squares = 0, n = 0, origin = 0; /* differences from the first value: a time stamp's spread is small beside its size */
  for (size_t row = 0; row < c->n_rows; row++) {
    double x = c->values[row];
    if (!isfinite(x)) continue;
    if (n == 0) origin = x;
    sum += x - origin;
    squares += (x - origin) * (x - origin);
    n++;
  }
  double mean = n > 0 ? sum / n : 0, variance = n > 0 ? squares / n - mean * mean : 0;
  return (scale){(float)(origin + mean), variance > 1e-12 ? (float)sqrt(variance) : 1};
}

/* The entries of a row, from column `offset` on; idx NULL: only how many there are. */
static size_t entries(const ev_column *c, size_t row, scale s, size_t offset, uint32_t *idx, float *values) {
  const uint32_t *codes;
  if (row >= c->n_rows) return 0;
  if (c->type == EV_FLOAT) {
    if (!isfinite(c->values[row])) return 0;
    if (idx != NULL) idx[0] = (uint32_t)offset, values[0] = (c->values[row] - s.mean) / s.std;
    return 1;
  }
  size_t n = ev_column_tokens(c, row, &codes);
  for (size_t i = 0; i < n && idx != NULL; i++) idx[i] = (uint32_t)(offset + codes[i]), values[i] = 1 / (float)n;
  return n;
}

ev_status ev_graph_features(ev_graph *g, ev_tensor *out, const char *name, const ev_snapshot *s, ev_side side, const char *const *columns, size_t n_columns) {
  size_t n_rows = side == EV_USER ? ev_snapshot_n_users(s) : ev_snapshot_n_items(s), width = 0, all = 0;
  const ev_column **c = ev_alloc(n_columns, sizeof *c);
  scale *scales = ev_zalloc(n_columns, sizeof *scales);
  uint64_t *ptr = ev_alloc(n_rows + 1, sizeof *ptr);
  uint32_t *idx = NULL;
  float *values = NULL;
  ev_status status = c == NULL || scales == NULL || ptr == NULL ? EV_ENOMEM : EV_OK;
  for (size_t k = 0; k < n_columns && status == EV_OK; k++) {
    c[k] = ev_snapshot_column(s, side, columns[k]);
    if (c[k] == NULL) status = ev_fail(EV_EINVAL, "no %s column '%.60s'", side == EV_USER ? "user" : "item", columns[k]);
    else if (c[k]->type == EV_FLOAT) scales[k] = measure(c[k]);
    if (status == EV_OK) width += c[k]->type == EV_FLOAT ? 1 : c[k]->n_tokens;
  }
  if (status == EV_OK && width == 0) status = ev_fail(EV_EINVAL, "no %s feature to make a matrix of", side == EV_USER ? "user" : "item");
  for (size_t row = 0; row < n_rows && status == EV_OK; row++) {
    ptr[row] = all;
    for (size_t k = 0; k < n_columns; k++) all += entries(c[k], row, scales[k], 0, NULL, NULL);
  }
  if (status == EV_OK) {
    ptr[n_rows] = all;
    idx = ev_alloc(all, sizeof *idx);
    values = ev_alloc(all, sizeof *values);
    status = idx == NULL || values == NULL ? EV_ENOMEM : EV_OK;
  }
  for (size_t row = 0; row < n_rows && status == EV_OK; row++) {
    size_t at = ptr[row], offset = 0;
    for (size_t k = 0; k < n_columns; k++) {
      at += entries(c[k], row, scales[k], offset, idx + at, values + at);
      offset += c[k]->type == EV_FLOAT ? 1 : c[k]->n_tokens;
    }
  }
  if (status == EV_OK) status = ev_graph_sparse(g, out, name, n_rows, width, ptr, idx, values);
  ev_free(c);
  ev_free(scales);
  ev_free(ptr);
  ev_free(idx);
  ev_free(values);
  return status;
}
