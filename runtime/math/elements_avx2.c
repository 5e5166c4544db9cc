/* elements_avx2.c - kernels of tensors for AVX2. */
#if defined __x86_64__
#include <math.h>

#include "kernels.h"

#define TABLE ev_elements_avx2
#include "vector_avx2.h"
#include "vector_functions.h"
#include "elements_body.h"
#include "rows_body.h"
#include "elements_table.h"
#endif
