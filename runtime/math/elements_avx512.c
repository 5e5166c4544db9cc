/* elements_avx512.c - kernels of tensors for AVX-512. */
#if defined __x86_64__
#include <math.h>

#include "kernels.h"

#define TABLE ev_elements_avx512
#include "vector_avx512.h"
#include "vector_functions.h"
#include "elements_body.h"
#include "rows_body.h"
#include "elements_table.h"
#endif
