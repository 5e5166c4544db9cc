/* elements.c - kernels of tensors for every machine, and the public names of all: functions of one and two numbers, rows,
 * sparse rows, the cell of a GRU. What is computed stands in elements_body.h and rows_body.h. */
#include "kernels.h"

#define TABLE ev_elements_plain
#include "vector_plain.h"
#include "vector_functions.h"
#include "elements_body.h"
#include "rows_body.h"
#include "elements_table.h"

void ev_map_apply(float *out, const float *x, ev_map_kind f, float a, float b, size_t n) { ev_kernels_now()->elements->map[f](out, x, a, b, n); }

void ev_map_back(float *out, const float *g, const float *u, ev_map_kind f, float a, float b, bool add, size_t n) {
  ev_kernels_now()->elements->slope[f](out, g, u, a, b, add, n);
}

void ev_zip(float *out, size_t out_row, const ev_plane *x, const ev_plane *y, ev_zip_kind f, bool add, size_t rows, size_t cols) {
  if (cols > 0) ev_kernels_now()->elements->zip[f](out, out_row, x, y, add, rows, cols);
}

void ev_zip_back(float *out, size_t out_row, size_t out_step, const float *g, size_t g_row, const ev_plane *x, const ev_plane *y, ev_zip_kind f, unsigned side, bool add,
                 size_t rows, size_t cols) {
  if (cols > 0) ev_kernels_now()->elements->unzip[side][f](out, out_row, out_step, g, g_row, x, y, add, rows, cols);
}

void ev_softmax_rows(float *out, const float *x, size_t rows, size_t cols) { ev_kernels_now()->elements->softmax(out, x, rows, cols); }
void ev_log_softmax_rows(float *out, const float *x, size_t rows, size_t cols) { ev_kernels_now()->elements->log_softmax(out, x, rows, cols); }
void ev_logsumexp_rows(float *out, const float *x, size_t rows, size_t cols) { ev_kernels_now()->elements->logsumexp(out, x, rows, cols); }
void ev_max_rows(float *out, const float *x, size_t rows, size_t cols) { ev_kernels_now()->elements->max(out, x, rows, cols); }

void ev_softmax_back(float *out, const float *g, const float *y, bool add, size_t rows, size_t cols) { ev_kernels_now()->elements->softmax_back(out, g, y, add, rows, cols); }

void ev_log_softmax_back(float *out, const float *g, const float *y, bool add, size_t rows, size_t cols) {
  ev_kernels_now()->elements->log_softmax_back(out, g, y, add, rows, cols);
}

void ev_logsumexp_back(float *out, const float *g, const float *x, const float *y, bool add, size_t rows, size_t cols) {
  ev_kernels_now()->elements->logsumexp_back(out, g, x, y, add, rows, cols);
}

void ev_max_back(float *out, const float *g, const float *x, const float *y, bool add, size_t rows, size_t cols) {
  ev_kernels_now()->elements->max_back(out, g, x, y, add, rows, cols);
}

void ev_normalise(float *out, float *inverse, const float *x, float epsilon, size_t rows, size_t cols) {
  ev_kernels_now()->elements->normalise(out, inverse, x, epsilon, rows, cols);
}

void ev_normalise_back(float *out, const float *g, const float *y, const float *inverse, bool add, size_t rows, size_t cols) {
  ev_kernels_now()->elements->normalise_back(out, g, y, inverse, add, rows, cols);
}

void ev_layer_norm(float *out, float *stats, const float *x, const float *gain, const float *bias, float epsilon, size_t rows, size_t cols) {
  ev_kernels_now()->elements->layer_norm(out, stats, x, gain, bias, epsilon, rows, cols);
}

void ev_layer_norm_back(float *out, float *d_gain, float *d_bias, const float *g, const float *x, const float *stats, const float *gain, bool add, size_t rows, size_t cols) {
  ev_kernels_now()->elements->layer_norm_back(out, d_gain, d_bias, g, x, stats, gain, add, rows, cols);
}

void ev_sparse_rows(float *out, const uint64_t *ptr, const uint32_t *idx, const float *values, const float *x, size_t n_rows, size_t begin, size_t stop, size_t d, bool add) {
  ev_kernels_now()->elements->sparse_rows(out, ptr, idx, values, x, n_rows, begin, stop, d, add);
}

void ev_gru_cell(float *out, float *keep, const float *product, const float *bias, const float *h, size_t d) {
  ev_kernels_now()->elements->gru_cell(out, keep, product, bias, h, d);
}

void ev_gru_cell_back(float *dh, float *product, float *keep, const float *h, size_t d) { ev_kernels_now()->elements->gru_cell_back(dh, product, keep, h, d); }

void ev_dropout(float *out, const float *x, uint64_t seed, uint64_t place, float p, bool add, size_t n) {
  ev_kernels_now()->elements->dropout(out, x, seed, place, p, add, n);
}
