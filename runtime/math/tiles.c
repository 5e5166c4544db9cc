/* tiles.c - small products and attention for every machine, and the choice between these products and BLAS's: that goes
 * by the sizes alone. */
#include <cblas.h>
#include <math.h>

#include "kernels.h"

#define TABLE ev_tiles_plain
#include "vector_plain.h"
#include "vector_functions.h"
#include "tiles_body.h"

#define TURNED 4096 /* floats of a right side that is turned round on the stack */

static bool is_small(size_t m, size_t n, size_t k) { return m <= TILE_ROWS || (double)m * (double)n * (double)k <= 65536 || (n <= 128 && k <= 128); }

void ev_gemm(float *out, size_t ld_out, const float *a, size_t ld_a, bool turn_a, const float *b, size_t ld_b, bool turn_b, bool add, size_t m, size_t n, size_t k) {
  if (m == 0 || n == 0) return;
  const ev_tile_kernels *t = ev_kernels_now()->tiles;
  size_t a_row = turn_a ? 1 : ld_a, a_col = turn_a ? ld_a : 1;
  if (turn_b && !turn_a && m <= 4 && k > 0) { /* few rows: inner products with the rows of b, as they stand */
    float row[256];
    for (size_t i = 0; i < m; i++)
      for (size_t j = 0; j < n; j += 256) {
        size_t some = n - j < 256 ? n - j : 256;
        ev_dots(row, a + i * ld_a, b + j * ld_b, EV_FORM_F32, ld_b * sizeof *b, some, k);
        for (size_t c = 0; c < some; c++) out[i * ld_out + j + c] = add ? out[i * ld_out + j + c] + row[c] : row[c];
      }
  } else if (k == 0 || (!turn_b && is_small(m, n, k))) {
    t->product(out, ld_out, a, a_row, a_col, b, ld_b, add, m, n, k);
  } else if (turn_b && n * k <= TURNED && is_small(m, n, k)) {
    float turned[TURNED];
    turn(turned, n, b, ld_b, 1, n, k);
    t->product(out, ld_out, a, a_row, a_col, turned, n, add, m, n, k);
  } else {
    cblas_sgemm(CblasRowMajor, turn_a ? CblasTrans : CblasNoTrans, turn_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, 1, a, (int)ld_a, b, (int)ld_b, add, out, (int)ld_out);
  }
}

void ev_scaled(float *out, const float *x, float alpha, size_t n) { ev_kernels_now()->tiles->scaled(out, x, alpha, n); }

void ev_attend(float *out, float *keep, const float *q, const float *k, const float *v, const ev_head *h) {
  ev_kernels_now()->tiles->attend(out, keep, q, k, v, h);
}

void ev_attend_back(float *dq, float *dk, float *dv, const float *q, const float *k, const float *v, const float *out, const float *keep, const float *grad, const ev_head *h) {
  ev_kernels_now()->tiles->attend_back(dq, dk, dv, q, k, v, out, keep, grad, h);
}
