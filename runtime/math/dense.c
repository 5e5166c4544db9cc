/* dense.c - dense products and small solves through BLAS and LAPACK, one thread a call. */
#include <cblas.h>
#include <string.h>

#include "lapack.h"
#include "math.h"

void ev_gemm_nt(float *out, const float *a, const float *b, float beta, size_t m, size_t n, size_t k) {
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, 1, a, k > 0 ? (int)k : 1, b, k > 0 ? (int)k : 1, beta, out, (int)n);
}

void ev_gemm_nn(float *out, const float *a, const float *b, float beta, size_t m, size_t n, size_t k) {
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1, a, k > 0 ? (int)k : 1, b, (int)n, beta, out, (int)n);
}

void ev_syrk_tn(float *out, const float *a, float beta, size_t n, size_t k) {
  if (n == 0) return;
  cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, (int)n, (int)k, 1, a, (int)n, beta, out, (int)n);
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < i; j++) out[j * n + i] = out[i * n + j];
}

ev_status ev_spd_solve(float *a, float *b, size_t n, size_t n_rhs) {
  int size = (int)n, columns = (int)n_rhs, info;
  if (n == 0 || n_rhs == 0) return EV_OK;
  /* Symmetric: LAPACK's column-major is our row-major, and rows of b are its columns. */
  spotrf_("L", &size, a, &size, &info, 1);
  for (size_t i = 0; i < n && info == 0; i++)
    if (!(a[i * n + i] > 0)) info = (int)i + 1; /* OpenBLAS lets NaN pass */
  if (info != 0) return ev_fail(EV_EINVAL, "the matrix is not positive definite (at row %d)", info);
  spotrs_("L", &size, &columns, a, &size, b, &size, &info, 1);
  return info == 0 ? EV_OK : ev_fail(EV_EINVAL, "spotrs: %d", info);
}

ev_status ev_spd_solve_f64(double *a, double *b, size_t n, size_t n_rhs) {
  int size = (int)n, columns = (int)n_rhs, info;
  if (n == 0 || n_rhs == 0) return EV_OK;
  dpotrf_("L", &size, a, &size, &info, 1);
  for (size_t i = 0; i < n && info == 0; i++)
    if (!(a[i * n + i] > 0)) info = (int)i + 1;
  if (info != 0) return ev_fail(EV_EINVAL, "the matrix is not positive definite (at row %d)", info);
  dpotrs_("L", &size, &columns, a, &size, b, &size, &info, 1);
  return info == 0 ? EV_OK : ev_fail(EV_EINVAL, "dpotrs: %d", info);
}

void ev_spd_again_f64(const double *factor, double *b, size_t n, size_t n_rhs) {
  int size = (int)n, columns = (int)n_rhs, info;
  if (n > 0 && n_rhs > 0) dpotrs_("L", &size, &columns, factor, &size, b, &size, &info, 1);
}

ev_status ev_symmetric_eigen(float *a, float *values, size_t n) {
  int size = (int)n, info, n_work = -1, n_iwork = -1, least_iwork;
  float least_work;
  if (n == 0) return EV_OK;
  ssyevd_("V", "L", &size, a, &size, values, &least_work, &n_work, &least_iwork, &n_iwork, &info, 1, 1); /* how much room it wants */
  n_work = (int)least_work + 64; /* large sizes are rounded in a float */
  n_iwork = least_iwork;
  float *work = ev_alloc((size_t)n_work, sizeof *work);
  int *iwork = ev_alloc((size_t)n_iwork, sizeof *iwork);
  if (work != NULL && iwork != NULL) ssyevd_("V", "L", &size, a, &size, values, work, &n_work, iwork, &n_iwork, &info, 1, 1);
  ev_status status = work == NULL || iwork == NULL ? EV_ENOMEM : info == 0 ? EV_OK : ev_fail(EV_EINVAL, "no eigenvalues of a matrix of %zu rows: ssyevd %d", n, info);
  ev_free(work);
  ev_free(iwork);
  return status;
}
