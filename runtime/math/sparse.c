/* sparse.c - a sparse matrix times a block of dense columns.
 *
 * The entries are products of a weight of the row and one of the column, so only the pattern is read beside the block:
 * four bytes an entry. Rows of the block are gathered, one after another, into a panel of registers (kernels.h's gather),
 * which costs what reading them from cache costs; a row of the result belongs to one thread and is added up in the order of
 * its entries, so nothing depends on the number of threads. */
#include "kernels.h"

#define GRAIN 64

typedef struct product {
  const ev_sparse *a;
  float *out;
  const float *x;
  size_t out_stride, x_stride, width;
  float alpha, beta;
} product;

ev_sparse ev_sparse_transposed(const ev_sparse *a) {
  return (ev_sparse){.n_rows = a->n_cols, .n_cols = a->n_rows, .row_ptr = a->col_ptr, .col_ptr = a->row_ptr, .row_idx = a->col_idx,
                     .col_idx = a->row_idx, .row_weight = a->col_weight, .col_weight = a->row_weight};
}

static void product_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const product *p = ctx;
  const ev_sparse *a = p->a;
  const ev_kernels *kernels = ev_kernels_now();
  for (size_t i = begin; i < end; i++)
    kernels->gather(p->out + i * p->out_stride, p->x, p->x_stride, a->row_idx + a->row_ptr[i], a->col_weight, a->row_ptr[i + 1] - a->row_ptr[i],
                    p->alpha * a->row_weight[i], p->beta, p->width);
}

void ev_sparse_mul(float *out, size_t out_stride, const ev_sparse *a, const float *x, size_t x_stride, size_t width, float alpha, float beta) {
  product p = {.a = a, .out = out, .x = x, .out_stride = out_stride, .x_stride = x_stride, .width = width, .alpha = alpha, .beta = beta};
  ev_parallel_for(a->n_rows, GRAIN, product_rows, &p);
}
