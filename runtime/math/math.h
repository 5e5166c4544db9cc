/* math.h - vector kernels, top-k selection, dense linear algebra.
 *
 * Kernels take their output first and their sizes last, allocate nothing and keep no state. The widest
 * instruction set the processor has is chosen at first use; every path gives results within rounding of
 * the scalar one, and the same path gives the same bits whatever the number of threads.
 */
#ifndef EV_MATH_H
#define EV_MATH_H

#include "../core/core.h"

/* ---- Instruction sets --------------------------------------------------------------------------------*/
const char *ev_simd_name(void);          /* "avx512", "avx2", "neon" or "scalar" */
ev_status ev_simd_force(const char *name); /* tests and benches: EV_EINVAL when this processor lacks it */

/* ---- Kernels over float32 ----------------------------------------------------------------------------*/
float ev_dot(const float *a, const float *b, size_t n);                /* Σ a[i] b[i] */
void ev_axpy(float *out, const float *x, float alpha, size_t n);       /* out[i] += alpha x[i] */
void ev_scale(float *out, float alpha, size_t n);                      /* out[i] *= alpha */
float ev_sum(const float *x, size_t n);
void ev_minmax(float *lo, float *hi, const float *x, size_t n);        /* NaN skipped; n = 0 gives +inf, -inf */

/* ---- Top-k -------------------------------------------------------------------------------------------
 * Order everywhere: higher score first, then lower id. NaN and -inf are never chosen. Unused places at the
 * end are EV_NONE with score -inf. The returned number of places used is at most k. */
size_t ev_topk(uint32_t *out_ids, float *out_scores, const float *scores, size_t n, size_t k);

/* The same in pieces: ids first, first + 1, … are offered to a heap of *used places out of k (0 at the start), ids of a
 * later offer being higher; finish puts the heap in order. */
void ev_topk_offer(uint32_t *ids, float *best, size_t *used, size_t k, const float *scores, size_t n, uint32_t first);
void ev_topk_finish(uint32_t *ids, float *best, size_t used, size_t k);

/* The k best columns of Q Xᵀ for each row, seen columns left out, without writing the score matrix.
 * @param[out] ids    (m, k)
 * @param[out] scores (m, k)
 * @param q (m, d)  @param x (n, d), both row-major
 * @param seen_ptr (m + 1) or NULL; seen[seen_ptr[i] .. seen_ptr[i+1]) are the columns row i leaves out, ascending
 * Threaded over rows. EV_ENOMEM, EV_EINTR. */
ev_status ev_score_topk(uint32_t *ids, float *scores, const float *q, const float *x,
                        const uint64_t *seen_ptr, const uint32_t *seen,
                        size_t m, size_t n, size_t d, size_t k);

/* ---- Dense linear algebra (OpenBLAS, one thread a call; parallel loops are ours) -----------------------*/
void ev_gemm_nt(float *out, const float *a, const float *b, float beta, size_t m, size_t n, size_t k); /* out(m,n) = a(m,k) b(n,k)ᵀ + beta out */
void ev_gemm_nn(float *out, const float *a, const float *b, float beta, size_t m, size_t n, size_t k); /* out(m,n) = a(m,k) b(k,n) + beta out */
void ev_syrk_tn(float *out, const float *a, float beta, size_t n, size_t k); /* out(n,n) = a(k,n)ᵀ a + beta out, both triangles written */
ev_status ev_spd_solve(float *a, float *b, size_t n, size_t n_rhs); /* a(n,n) x = b(n_rhs,n) rows, Cholesky in place; EV_EINVAL when a is not positive definite */

/* ---- Symmetric matrices, half stored -------------------------------------------------------------------
 * A lower triangle cut into square tiles of EV_SYM_TILE, tile (I, J), I >= J, at index I(I+1)/2 + J, each
 * tile row-major and whole (the last row and column of tiles are padded). About half of the dense size. */
#define EV_SYM_TILE 512
size_t ev_sym_size(size_t n);                      /* floats in the storage of an n × n matrix */
size_t ev_sym_at(size_t i, size_t j);              /* where element (i, j) stands, either order */
ev_status ev_sym_inverse(float *a, size_t n);      /* in place inverse of a positive definite matrix through Cholesky; threaded, same bits for any thread count; EV_EINVAL when not positive definite; EV_EINTR */
void ev_sym_add_row(float *out, const float *a, float alpha, size_t i, size_t begin, size_t end); /* out[j - begin] += alpha a(i, j) for j in [begin, end) */

#endif
