/* gbdt_bins.c - training rows as bins of a byte, eight columns together. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "gbdt.h"

typedef struct cutting {
  ev_bins *b;
  const float *sample; /* (n, n_columns) */
  size_t n;
  unsigned n_bins;     /* of values, at most */
  atomic_bool failed;
} cutting;

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* Between two neighbours: not below the lower, below the upper. */
static float between(float low, float high) {
  float x = (float)(0.5 * ((double)low + (double)high));
  return x >= low && x < high ? x : low;
}

/* Cuts of the n sorted values x, at most n_bins − 1. A value that fills a bin has one of its own; the others share the bins left
 * evenly. */
static unsigned cut(float *cuts, const float *x, size_t n, unsigned n_bins) {
  size_t distinct = n > 0, in_bin = 0, left = n;
  unsigned made = 0;
  for (size_t i = 1; i < n; i++) distinct += x[i] != x[i - 1];
  bool all = distinct <= n_bins;
  for (size_t i = 0, end; i < n && made + 1 < n_bins; i = end) {
    for (end = i + 1; end < n && x[end] == x[i];) end++;
    if (end == n) break;
    size_t here = end - i, next = end + 1;
    while (next < n && x[next] == x[end]) next++;
    in_bin += here;
    double share = (double)left / (n_bins - made);
    if (!all && (double)in_bin < share && (double)in_bin + 0.5 * (double)(next - end) < share) continue; /* nearer to its share with the next value than without */
    cuts[made++] = between(x[end - 1], x[end]);
    left -= in_bin;
    in_bin = 0;
  }
  return made;
}

static void cut_columns(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  cutting *c = ctx;
  float *x = ev_alloc(c->n, sizeof *x);
  if (x == NULL) atomic_store(&c->failed, true);
  for (size_t j = begin; j < end && !atomic_load(&c->failed); j++) {
    ev_bin_column *column = &c->b->columns[j];
    if (column->category) continue;
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
      float value = c->sample[i * c->b->n_columns + j];
      if (!isnan(value)) x[n++] = value;
    }
    qsort(x, n, sizeof *x, by_value);
    column->n_bins = cut(column->cuts, x, n, c->n_bins) + 1;
  }
  ev_free(x);
}

ev_status ev_bins_cut(ev_bins *b, const float *sample, size_t n, const uint32_t *categories, size_t n_columns, size_t n_rows, unsigned n_bins) {
  unsigned values = (n_bins < 2 ? 2 : n_bins > EV_BINS_MAX ? EV_BINS_MAX : n_bins) - 1;
  *b = (ev_bins){.n_rows = n_rows, .n_columns = n_columns, .n_tiles = (n_columns + EV_TILE - 1) / EV_TILE};
  b->columns = ev_zalloc(n_columns, sizeof *b->columns);
  b->cuts = ev_alloc(n_columns, values * sizeof *b->cuts);
  b->bin = ev_zalloc(b->n_tiles * EV_TILE, n_rows);
  if (b->columns == NULL || b->cuts == NULL || b->bin == NULL) return EV_ENOMEM;
  for (size_t j = 0; j < n_columns; j++)
    b->columns[j] = (ev_bin_column){.category = categories[j] > 0, .n_bins = categories[j], .cuts = categories[j] > 0 ? NULL : b->cuts + j * values};
  cutting c = {.b = b, .sample = sample, .n = n, .n_bins = values};
  ev_parallel_for(n_columns, 1, cut_columns, &c);
  if (atomic_load(&c.failed)) return ev_fail(EV_ENOMEM, "out of memory");
  for (size_t j = 0; j < n_columns; j++) {
    b->columns[j].offset = b->n_all;
    b->n_all += b->columns[j].n_bins + 1;
  }
  return EV_OK;
}

void ev_bins_put(ev_bins *b, size_t row, const float *values) {
  for (size_t j = 0; j < b->n_columns; j++) {
    const ev_bin_column *c = &b->columns[j];
    float x = values[j];
    unsigned low = 0, high = c->n_bins; /* of the bins, the first whose upper cut is not below x */
    if (isnan(x)) {
      low = c->n_bins;
    } else if (c->category) {
      low = x < (float)c->n_bins ? (unsigned)x : c->n_bins;
    } else {
      while (low + 1 < high) {
        unsigned middle = (low + high) / 2;
        if (c->cuts[middle - 1] < x) low = middle;
        else high = middle;
      }
    }
    b->bin[(j / EV_TILE * b->n_rows + row) * EV_TILE + j % EV_TILE] = (uint8_t)low;
  }
}

void ev_bins_free(ev_bins *b) {
  ev_free(b->columns);
  ev_free(b->cuts);
  ev_free(b->bin);
  *b = (ev_bins){0};
}
