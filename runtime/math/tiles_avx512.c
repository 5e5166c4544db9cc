/* tiles_avx512.c - small products and attention for AVX-512. */
#if defined __x86_64__
#include <math.h>

#include "kernels.h"

#define TABLE ev_tiles_avx512
#include "vector_avx512.h"
#include "vector_functions.h"
#include "tiles_body.h"
#endif
