/* tiles.c - small products and attention for every machine, and the choice between these products and BLAS's: that goes
 * by the sizes, and by whether there is a kernel with wide vectors. */
#include <cblas.h>
#include <math.h>

#include "kernels.h"

#define TABLE ev_tiles_plain
#include "vector_plain.h"
#include "vector_functions.h"
#include "tiles_body.h"

#define FOR_BLAS 262144 /* multiply-adds from which it is faster than four floats at a time */
#define FEW 4           /* rows for which turning the right side round is not worth it */
#define MANY 48         /* rows for which copying the right side is */
#define TERMS 512       /* summed at a time, so that the rows of the left side stay in the second-level cache */

void ev_gemm(float *out, size_t ld_out, const float *a, size_t ld_a, bool turn_a, const float *b, size_t ld_b, bool turn_b, bool add, size_t m,
    size_t n, size_t k) {
  if (m == 0 || n == 0) return;
  const ev_tile_kernels *t = ev_kernels_now()->tiles;
  size_t a_row = turn_a ? 1 : ld_a, a_col = turn_a ? ld_a : 1;
  if (k == 0) {
    t->product(out, ld_out, a, a_row, a_col, b, ld_b, add, m, n, k);
  } else if (turn_b && !turn_a && m <= FEW) {
    float row[256];
    for (size_t i = 0; i < m; i++)
      for (size_t j = 0; j < n; j += 256) {
        size_t some = n - j < 256 ? n - j : 256;
        ev_dots(row, a + i * ld_a, b + j * ld_b, EV_FORM_F32, ld_b * sizeof *b, some, k);
        for (size_t c = 0; c < some; c++) out[i * ld_out + j + c] = add ? out[i * ld_out + j + c] + row[c] : row[c];
      }
  } else if (t == &ev_tiles_plain && (double)m * (double)n * (double)k >= FOR_BLAS) {
    cblas_sgemm(CblasRowMajor, turn_a ? CblasTrans : CblasNoTrans, turn_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, 1, a, (int)ld_a, b,
        (int)ld_b, add, out, (int)ld_out);
  } else if (turn_b || (ld_b >= EV_FAR && m >= MANY) || (turn_a && ld_a >= EV_FAR && m > TILE_ROWS)) {
    t->product_far(out, ld_out, a, a_row, a_col, b, turn_b ? 1 : ld_b, turn_b ? ld_b : 1, add, m, n, k);
  } else {
    for (size_t p = 0; p < k; p += TERMS)
      t->product(out, ld_out, a + p * a_col, a_row, a_col, b + p * ld_b, ld_b, add || p > 0, m, n, k - p < TERMS ? k - p : TERMS);
  }
}

void ev_scaled(float *out, const float *x, float alpha, size_t n) { ev_kernels_now()->tiles->scaled(out, x, alpha, n); }

void ev_attend(float *out, float *keep, const float *q, const float *k, const float *v, const ev_head *h) {
  ev_kernels_now()->tiles->attend(out, keep, q, k, v, h);
}

void ev_attend_back(float *dq, float *dk, float *dv, const bool *add, const float *q, const float *k, const float *v, const float *out,
    const float *keep, const float *grad, const ev_head *h) {
  ev_kernels_now()->tiles->attend_back(dq, dk, dv, add, q, k, v, out, keep, grad, h);
}
