/* tiles_avx2.c - small products and attention for AVX2 with FMA. */
#if defined __x86_64__
#include <math.h>

#include "kernels.h"

#define TABLE ev_tiles_avx2
#include "vector_avx2.h"
#include "vector_functions.h"
#include "tiles_body.h"
#endif
