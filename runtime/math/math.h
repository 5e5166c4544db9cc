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
const char *ev_simd_name(void);          /* "avx512vnni", "avx512", "avx2", "neon" or "scalar" */
ev_status ev_simd_force(const char *name); /* tests and benches: EV_EINVAL when this processor lacks it */

/* ---- Kernels over float32 ----------------------------------------------------------------------------*/
float ev_dot(const float *a, const float *b, size_t n);                /* Σ a[i] b[i] */
void ev_axpy(float *out, const float *x, float alpha, size_t n);       /* out[i] += alpha x[i] */
void ev_scale(float *out, float alpha, size_t n);                      /* out[i] *= alpha */
void ev_scaled(float *out, const float *x, float alpha, size_t n);     /* out[i] = alpha x[i] */
float ev_sum(const float *x, size_t n);
void ev_minmax(float *lo, float *hi, const float *x, size_t n);        /* NaN skipped; n = 0 gives +inf, -inf */

void ev_softmax(float *out, const float *x, float temperature, size_t n); /* out[i] = e^((x[i] − max) / temperature) / Σ; in place allowed. temperature > 0. −inf gives 0; NaN or +inf anywhere, or −inf everywhere, gives NaN everywhere */
float ev_logsumexp(const float *x, size_t n);                          /* max + log Σ e^(x[i] − max); n = 0 gives −inf, +inf gives +inf, NaN gives NaN */
void ev_weighted_sum(float *out, const float *const *columns, const float *weights, size_t n_columns, size_t n); /* out[i] = Σ_c weights[c] columns[c][i]; out may be one of them */

/* ---- Elements of tensors -----------------------------------------------------------------------------------
 * What an element becomes depends on it alone: the same bits wherever it stands in an array. Arrays do not overlap, but for
 * those said to be changed in place. NaN stays NaN, infinities give what the limit is. A gradient is written to out, or
 * added to what is there (`add`). */
typedef enum ev_map_kind {
  EV_MAP_NEG, EV_MAP_EXP, EV_MAP_LOG, EV_MAP_SQRT, EV_MAP_SQUARE, EV_MAP_RECIPROCAL, EV_MAP_ABS, EV_MAP_RELU,
  EV_MAP_GELU,     /* x Φ(x) (Hendrycks and Gimpel 2016) */
  EV_MAP_SILU,     /* x σ(x) */
  EV_MAP_SIGMOID, EV_MAP_TANH, EV_MAP_SOFTPLUS,
  EV_MAP_CLIP,     /* to [a, b] */
  EV_MAP_AFFINE,   /* a x + b */
  EV_MAP_POWER,    /* x^a, by the C library: slow */
  EV_MAP_KINDS
} ev_map_kind;
void ev_map_apply(float *out, const float *x, ev_map_kind f, float a, float b, size_t n);
/* out [+]= g f'(x), u being x, or f(x) for exp, sqrt, relu, sigmoid and tanh; neg and affine need none: anything readable.
 * At a kink: 0 for abs and relu, 1 for clip. */
void ev_map_back(float *out, const float *g, const float *u, ev_map_kind f, float a, float b, bool add, size_t n);

typedef enum ev_zip_kind { EV_ZIP_ADD, EV_ZIP_SUB, EV_ZIP_MUL, EV_ZIP_DIV, EV_ZIP_MAX, EV_ZIP_MIN, EV_ZIP_KINDS } ev_zip_kind;
/* Element (i, j) stands at at[i · row + j · step]; step 0: one number for the whole row, row 0: one row for all. */
typedef struct ev_plane {
  const float *at;
  size_t row, step; /* step 0 or 1 */
} ev_plane;
void ev_zip(float *out, size_t out_row, const ev_plane *x, const ev_plane *y, ev_zip_kind f, bool add, size_t rows, size_t cols); /* out(i, j) [+]= f(x, y) */
/* The gradient of x (side 0) or y (side 1): g(i, j) ∂f summed into out[i · out_row + j · out_step], out_step 0 or 1. */
void ev_zip_back(float *out, size_t out_row, size_t out_step, const float *g, size_t g_row, const ev_plane *x, const ev_plane *y, ev_zip_kind f, unsigned side, bool add,
                 size_t rows, size_t cols);

/* Rows. All are (rows, cols), row-major; softmax as ev_softmax has it with temperature 1. */
void ev_softmax_rows(float *out, const float *x, size_t rows, size_t cols);
void ev_log_softmax_rows(float *out, const float *x, size_t rows, size_t cols);
void ev_logsumexp_rows(float *out, const float *x, size_t rows, size_t cols); /* (rows) */
void ev_max_rows(float *out, const float *x, size_t rows, size_t cols);       /* (rows); no column: −inf, a NaN: NaN */
void ev_softmax_back(float *out, const float *g, const float *y, bool add, size_t rows, size_t cols);      /* y: what softmax gave */
void ev_log_softmax_back(float *out, const float *g, const float *y, bool add, size_t rows, size_t cols);
void ev_logsumexp_back(float *out, const float *g, const float *x, const float *y, bool add, size_t rows, size_t cols); /* g, y (rows) */
void ev_max_back(float *out, const float *g, const float *x, const float *y, bool add, size_t rows, size_t cols);       /* to the first of equals */
void ev_normalise(float *out, float *inverse, const float *x, float epsilon, size_t rows, size_t cols); /* x / max(|x|, ε); inverse (rows), for what comes back */
void ev_normalise_back(float *out, const float *g, const float *y, const float *inverse, bool add, size_t rows, size_t cols);
/* (x − mean) / √(variance + ε) · gain + bias (Ba, Kiros, Hinton 2016). stats (rows, 2): mean, 1 / √(…), for what comes back. */
void ev_layer_norm(float *out, float *stats, const float *x, const float *gain, const float *bias, float epsilon, size_t rows, size_t cols);
void ev_layer_norm_back(float *out, float *d_gain, float *d_bias, const float *g, const float *x, const float *stats, const float *gain, bool add, size_t rows, size_t cols); /* d_gain and d_bias are always added to, and NULL together; out may be NULL */

/* Rows begin to stop of a sparse matrix with n_rows, times x (·, d): out(r) [+]= Σ_e values[e] x(idx[e]) in the order of e; values NULL: 1. */
void ev_sparse_rows(float *out, const uint64_t *ptr, const uint32_t *idx, const float *values, const float *x, size_t n_rows, size_t begin, size_t stop, size_t d, bool add);

/* One step of a GRU (Cho et al. 2014, the reset gate after the product): r = σ(x_r + h_r), z = σ(x_z + h_z),
 * n = tanh(x_n + r h_n), h' = (1 − z) n + z h. keep (4 d): the three parts of x w on the way in, r z n h_n on the way out;
 * product (3 d) = h u; bias (3 d) belongs to x. */
void ev_gru_cell(float *out, float *keep, const float *product, const float *bias, const float *h, size_t d);
/* dh: the gradient of h' → that of h but for the products' part; product (3 d): the gradient of h u; keep: on the way out the
 * gradients of the three parts of x w, then that of h_n. */
void ev_gru_cell_back(float *dh, float *product, float *keep, const float *h, size_t d);

/* out [+]= 0 with probability p, x / (1 − p) otherwise; which, depends on the seed and the place (`place`: of x[0]) alone. */
void ev_dropout(float *out, const float *x, uint64_t seed, uint64_t place, float p, bool add, size_t n);

/* ---- Stored forms of a vector --------------------------------------------------------------------------
 * i8: x ≈ scale · q with q = round(x / scale) in [−127, 127] and scale = max |x| / 127. The others have scale 1.
 * Values must be finite and, for f16, within ±65504 (larger ones become infinite). */
typedef enum ev_form { EV_FORM_F32, EV_FORM_F16, EV_FORM_BF16, EV_FORM_I8 } ev_form;
size_t ev_form_bytes(ev_form f);  /* of one element */
const char *ev_form_name(ev_form f); /* "f32", "f16", "bf16", "i8" */
bool ev_form_find(ev_form *out, const char *name);
void ev_form_encode(void *out, float *scale, const float *x, ev_form f, size_t d); /* rounds to nearest even */
void ev_form_decode(float *out, const void *x, float scale, ev_form f, size_t d);

/* ---- Similarities ---------------------------------------------------------------------------------------
 * dot x·y; cosine x·y / (|x| |y|), 0 when either is the zero vector; l2 −|x − y|²: more is nearer, everywhere.
 * A query has the form of the rows but for f16 and bf16 rows, whose query is f32. rows are `stride` bytes apart;
 * scales (n) are the rows' own and NULL where all are 1. */
typedef enum ev_similarity { EV_DOT, EV_COSINE, EV_L2 } ev_similarity;
const char *ev_similarity_name(ev_similarity s); /* "dot", "cosine", "l2" */
bool ev_similarity_find(ev_similarity *out, const char *name);

/* Inner products of codes, scales left out: out[i] = Σ q[k] rows[i][k]. i8 sums are exact (d <= 130000) and rounded once,
 * to a float. A row's product has the same bits by all of these, wherever it stands. f32 rows stand at multiples of 4. */
void ev_dots(float *out, const void *q, const void *rows, ev_form f, size_t stride, size_t n, size_t d);
/* The same of rows[ids[i]], prefetched ahead: rows anywhere in memory. */
void ev_dots_at(float *out, const void *q, const void *rows, const uint32_t *ids, ev_form f, size_t stride, size_t n, size_t d);
/* Inner product of two codes of one form, scales left out. What ev_dots calls, for loops that stay in cache. */
typedef float ev_dot_fn(const void *a, const void *b, size_t d);
ev_dot_fn *ev_dot_of(ev_form f);       /* a is a query: f32 for f16 and bf16 rows */
ev_dot_fn *ev_dot_pair_of(ev_form f);  /* a and b both of the form */

/* One to many and many to many, as the definitions above have them.
 * @param[out] out (n) or (m, n)   @param q (d) or (m, d) f32   @param rows (n) vectors of d elements, packed (stride d) */
ev_status ev_similar(float *out, const float *q, const void *rows, const float *scales, ev_form f, ev_similarity s, size_t n, size_t d);
ev_status ev_similar_many(float *out, const float *q, const void *rows, const float *scales, ev_form f, ev_similarity s, size_t m, size_t n, size_t d); /* threaded; EV_ENOMEM */

/* ---- Sampling by weight ------------------------------------------------------------------------------------
 * Weights are finite and not negative, one at least above 0: EV_EINVAL otherwise. */
typedef struct ev_alias { /* Walker 1977, in Vose's form (1991): n draws cost n */
  size_t n;
  float *share;    /* (n) owned */
  uint32_t *other; /* (n) owned */
} ev_alias;
ev_status ev_alias_new(ev_alias *out, const float *weights, size_t n);
void ev_alias_free(ev_alias *a);
uint32_t ev_alias_draw(const ev_alias *a, ev_rng *r);
/* k distinct places drawn without replacement with probability proportional to e^logits, in the order drawn: the k
 * largest of logits + Gumbel noise (Kool, van Hoof, Welling 2019). −inf is never drawn; NaN and +inf are EV_EINVAL.
 * @param[out] out (k), unused places EV_NONE  @param[out] n_out how many were drawn */
ev_status ev_gumbel_topk(uint32_t *out, size_t *n_out, const float *logits, size_t n, size_t k, ev_rng *r);

/* ---- Top-k -------------------------------------------------------------------------------------------
 * Order everywhere: higher score first, then lower id. NaN and -inf are never chosen. Unused places at the
 * end are EV_NONE with score -inf. The returned number of places used is at most k. */
size_t ev_topk(uint32_t *out_ids, float *out_scores, const float *scores, size_t n, size_t k);

/* The same in pieces: ids first, first + 1, … are offered to a heap of *used places out of k (0 at the start), ids of a
 * later offer being higher; finish puts the heap in order. */
void ev_topk_offer(uint32_t *ids, float *best, size_t *used, size_t k, const float *scores, size_t n, uint32_t first);
void ev_topk_finish(uint32_t *ids, float *best, size_t used, size_t k);

/* Ascending. room (n) is overwritten; n < 2^32. */
void ev_sort_keys(uint64_t *keys, uint64_t *room, size_t n);
/* A number that is the smaller, the larger the score is; NaN last, −0 as 0. */
static inline uint32_t ev_score_key(float score) {
  union { float f; uint32_t u; } x = {.f = score + 0.0f};
  if (score != score) return UINT32_MAX;
  return x.u >> 31 != 0 ? x.u : ~(x.u | 0x80000000);
}

/* The k best columns of Q Xᵀ for each row, seen columns left out, without writing the score matrix.
 * @param[out] ids    (m, k)
 * @param[out] scores (m, k)
 * @param q (m, d)  @param x (n, d), both row-major
 * @param seen_ptr (m + 1) or NULL; seen[seen_ptr[i] .. seen_ptr[i+1]) are the columns row i leaves out, ascending
 * Threaded over rows. EV_ENOMEM, EV_EINTR. */
ev_status ev_score_topk(uint32_t *ids, float *scores, const float *q, const float *x,
                        const uint64_t *seen_ptr, const uint32_t *seen,
                        size_t m, size_t n, size_t d, size_t k);

/* The k best rows for each query over rows of any form, by dot · scale_q · scale_row + bias, without writing the score
 * matrix. A row must be in `allowed` (bit i of word i / 64; NULL: all) and not among the query's seen.
 * @param q (m, d) f32; for i8 rows each is quantised as rows are
 * @param bias (n) or NULL. Threaded over queries, and over rows when queries are few: same bits for any thread count.
 * Alone and in a batch a query's scores differ by rounding only (another order of summation). */
typedef struct ev_scan {
  const void *rows;
  const float *scales, *bias;   /* (n) or NULL */
  ev_form form;
  size_t stride, n, d;          /* bytes between rows */
  const uint64_t *allowed;      /* ((n + 63) / 64) words or NULL */
  const uint64_t *seen_ptr;     /* (m + 1) or NULL */
  const uint32_t *seen;         /* ascending within a query */
} ev_scan;
ev_status ev_scan_topk(uint32_t *ids, float *scores, const float *q, size_t m, size_t k, const ev_scan *s); /* EV_ENOMEM, EV_EINTR */

/* ---- Dense linear algebra (one thread a call; parallel loops are ours) ---------------------------------*/
void ev_gemm_nt(float *out, const float *a, const float *b, float beta, size_t m, size_t n, size_t k); /* out(m,n) = a(m,k) b(n,k)ᵀ + beta out */
void ev_gemm_nn(float *out, const float *a, const float *b, float beta, size_t m, size_t n, size_t k); /* out(m,n) = a(m,k) b(k,n) + beta out */
/* out (m, n) [+]= op(a) op(b), op the transposition where turn_ says so; ld: floats from one row to the next, as they stand in
 * memory. By kernels of our own where there are wide vectors, the others are OpenBLAS's. out overlaps neither. */
void ev_gemm(float *out, size_t ld_out, const float *a, size_t ld_a, bool turn_a, const float *b, size_t ld_b, bool turn_b, bool add, size_t m, size_t n, size_t k);
void ev_syrk_tn(float *out, const float *a, float beta, size_t n, size_t k); /* out(n,n) = a(k,n)ᵀ a + beta out, both triangles written */
ev_status ev_spd_solve(float *a, float *b, size_t n, size_t n_rhs); /* a(n,n) x = b(n_rhs,n) rows, Cholesky in place; EV_EINVAL when a is not positive definite */
ev_status ev_spd_solve_f64(double *a, double *b, size_t n, size_t n_rhs); /* the same in double precision; a becomes its factor */
ev_status ev_symmetric_eigen(float *a, float *values, size_t n); /* a(n,n) symmetric: its rows become unit eigenvectors, values (n) ascending; EV_ENOMEM, EV_EINVAL */
void ev_spd_again_f64(const double *factor, double *b, size_t n, size_t n_rhs); /* the same with what that left in a */

/* ---- Attention of one head over one sequence ------------------------------------------------------------
 * out = softmax(q kᵀ / √d) v (Vaswani et al. 2017), causal: position t looks at those up to t. Rows of d floats stand
 * `stride` apart in q, k, v, out and their gradients, so a head's part of wider rows is read where it stands. */
#define EV_HEAD_MAX 256
typedef struct ev_head {
  size_t n, d, stride; /* positions; 1 <= d <= EV_HEAD_MAX; floats */
  size_t keep_stride;  /* floats from one position's two numbers to the next one's */
  bool causal;
} ev_head;
void ev_attend(float *out, float *keep, const float *q, const float *k, const float *v, const ev_head *h); /* keep: the largest score and 1 / Σ of each position, for backward */
/* Gradients that are NULL are not asked for; add (3): whether each is added to, or set. They do not overlap. */
void ev_attend_back(float *dq, float *dk, float *dv, const bool *add, const float *q, const float *k, const float *v, const float *out, const float *keep, const float *grad, const ev_head *h);

/* ---- Symmetric matrices, half stored -------------------------------------------------------------------
 * A lower triangle cut into square tiles of EV_SYM_TILE, tile (I, J), I >= J, at index I(I+1)/2 + J, each
 * tile row-major and whole (the last row and column of tiles are padded; nothing looks at the padding). About half of
 * the dense size. */
#define EV_SYM_TILE 768 /* a multiple of OpenBLAS's depth of 384: 4 % faster than 512 */
size_t ev_sym_size(size_t n);                      /* floats in the storage of an n × n matrix */
size_t ev_sym_at(size_t i, size_t j);              /* where element (i, j) stands, either order */
ev_status ev_sym_inverse(float *a, size_t n);      /* in place inverse of a positive definite matrix through Cholesky; threaded, same bits for any thread count; EV_EINVAL when not positive definite; EV_EINTR */
void ev_sym_add_row(float *out, const float *a, float alpha, size_t i, size_t begin, size_t end); /* out[j - begin] += alpha a(i, j) for j in [begin, end) */

/* ---- Sparse matrices -----------------------------------------------------------------------------------
 * A pattern of ones, kept by rows and by columns, between two diagonal matrices: A(i, j) = row_weight[i] col_weight[j]. */
typedef struct ev_sparse { /* everything borrowed */
  size_t n_rows, n_cols;
  const uint64_t *row_ptr, *col_ptr; /* (n_rows + 1), (n_cols + 1) */
  const uint32_t *row_idx, *col_idx; /* columns of each row, rows of each column: the same entries */
  const float *row_weight, *col_weight; /* (n_rows), (n_cols) */
} ev_sparse;

ev_sparse ev_sparse_transposed(const ev_sparse *a);
/* out = alpha A x + beta out, out (n_rows, width) and x (n_cols, width) with rows so many floats apart; beta 0: out is not
 * read. Every gathered row is a block of `width` floats. Threaded over rows, the same bits for any number of threads. */
void ev_sparse_mul(float *out, size_t out_stride, const ev_sparse *a, const float *x, size_t x_stride, size_t width, float alpha, float beta);

typedef struct ev_svd_options {
  size_t k;            /* triplets wanted, 1 … min(n_rows, n_cols) */
  float tolerance;     /* |AᵀA v − σ² v| <= tolerance σ₁² of each; single precision reaches about 1e-6 */
  unsigned max_rounds; /* restarts before what there is, is taken */
  uint64_t seed;
  void (*report)(void *ctx, double done, double residual); /* NULL: silent. done: share of k within the tolerance */
  void *ctx;
} ev_svd_options;
/* The k largest singular values and their right vectors, by block Lanczos with full orthogonalisation and thick restarts.
 * @param[out] sigma (k), descending  @param[out] v (n_cols, k), row-major. EV_EINVAL, EV_ENOMEM, EV_EINTR. */
ev_status ev_sparse_svd(float *sigma, float *v, const ev_sparse *a, const ev_svd_options *o);

#endif
