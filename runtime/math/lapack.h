/* lapack.h - the Fortran routines of LAPACK that are used, declared as OpenBLAS exports them; private to this room. */
#ifndef EV_MATH_LAPACK_H
#define EV_MATH_LAPACK_H

#include <stddef.h>

void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info, size_t uplo_len);
void spotrs_(const char *uplo, const int *n, const int *nrhs, const float *a, const int *lda, float *b, const int *ldb, int *info, size_t uplo_len);
void strtri_(const char *uplo, const char *diag, const int *n, float *a, const int *lda, int *info, size_t uplo_len, size_t diag_len);
void slauum_(const char *uplo, const int *n, float *a, const int *lda, int *info, size_t uplo_len);

#endif
