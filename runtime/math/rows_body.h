/* rows_body.h - what works on whole rows: softmax, normalisations, sparse products, the cell of a GRU, dropout;
 * elements*.c include it once each. math.h says what each gives. */
#define BLOCK 1024 /* summed in float, blocks of it in double */

INLINE float row_most(const float *x, size_t n) {
  float most = -INFINITY;
  if (n < W) {
    for (size_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
  }
  V m0 = splat(-INFINITY), m1 = m0;
  size_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) m0 = larger(load(x + i), m0), m1 = larger(load(x + i + W), m1);
  if (i + W <= n) m0 = larger(load(x + i), m0);
  m1 = larger(load(x + n - W), m1); /* some of them twice */
  return largest(larger(m0, m1));
}

/* Σ e^(x − most); out, unless NULL, gets the terms. */
INLINE double row_exp(float *out, const float *x, float most, size_t n) {
  double sum = 0;
  V shift = splat(most);
  for (size_t begin = 0; begin < n; begin += BLOCK) {
    size_t i = begin, end = n - begin < BLOCK ? n : begin + BLOCK;
    V s0 = splat(0), s1 = s0;
    for (; i + 2 * W <= end; i += 2 * W) {
      V a = v_exp(load(x + i) - shift), b = v_exp(load(x + i + W) - shift);
      s0 += a, s1 += b;
      if (out != NULL) store(out + i, a), store(out + i + W, b);
    }
    for (; i < end; i += W) {
      size_t left = end - i;
      if (left >= W) {
        V a = v_exp(load(x + i) - shift);
        s0 += a;
        if (out != NULL) store(out + i, a);
      } else {
        V a = first(v_exp(load_part(x + i, left) - shift), left);
        s1 += a;
        if (out != NULL) store_part(out + i, a, left);
      }
    }
    sum += (double)total(s0 + s1);
  }
  return sum;
}

/* Σ a b; b NULL: Σ a. */
INLINE float row_dot(const float *a, const float *b, size_t n) {
  V s0 = splat(0), s1 = s0;
  size_t i = 0;
  if (b == NULL) {
    for (; i + 2 * W <= n; i += 2 * W) s0 += load(a + i), s1 += load(a + i + W);
    if (i + W <= n) s0 += load(a + i), i += W;
    if (i < n) s1 += load_part(a + i, n - i);
  } else {
    for (; i + 2 * W <= n; i += 2 * W) s0 = mul_add(load(a + i), load(b + i), s0), s1 = mul_add(load(a + i + W), load(b + i + W), s1);
    if (i + W <= n) s0 = mul_add(load(a + i), load(b + i), s0), i += W;
    if (i < n) s1 = mul_add(load_part(a + i, n - i), load_part(b + i, n - i), s1);
  }
  return total(s0 + s1);
}

/* Runs `body` for each vector of n floats, the last of which may be a part: GET loads from an array, PUT stores to one there. */
#define GET(p) (left >= W ? load((p) + i) : load_part((p) + i, left))
#define PUT(p, v) (left >= W ? store((p) + i, v) : store_part((p) + i, v, left))
#define EACH(n, ...)                                        \
  do {                                                      \
    size_t i = 0;                                           \
    for (; i + W <= (n); i += W) {                          \
      const size_t left = W;                                \
      __VA_ARGS__;                                          \
    }                                                       \
    if (i < (n)) {                                          \
      const size_t left = (n) - i;                          \
      __VA_ARGS__;                                          \
    }                                                       \
  } while (0)
/* out = value, or added to it. */
#define FILL(out, add, n, value)                            \
  do {                                                      \
    if (add) EACH(n, PUT(out, GET(out) + (value)));         \
    else EACH(n, PUT(out, value));                          \
  } while (0)

/* ---- Softmax --------------------------------------------------------------------------------------------------*/
TARGET static void softmax(float *out, const float *x, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, x += cols, out += cols) {
    V scale = splat((float)(1 / row_exp(out, x, row_most(x, cols), cols)));
    FILL(out, false, cols, GET(out) * scale);
  }
}

TARGET static void log_softmax(float *out, const float *x, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, x += cols, out += cols) {
    float most = row_most(x, cols);
    V shift = splat(most), log_sum = splat((float)log(row_exp(NULL, x, most, cols)));
    FILL(out, false, cols, (GET(x) - shift) - log_sum);
  }
}

INLINE bool row_numbers(const float *x, size_t n) { /* none of them is NaN */
  size_t strange = 0;
  for (size_t i = 0; i < n; i++) strange += x[i] != x[i];
  return strange == 0;
}

TARGET static void logsumexp(float *out, const float *x, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, x += cols) {
    float most = row_most(x, cols);
    if (isinf(most)) out[r] = row_numbers(x, cols) ? most : NAN;
    else out[r] = (float)(most + log(row_exp(NULL, x, most, cols)));
  }
}

TARGET static void max_of(float *out, const float *x, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, x += cols) out[r] = row_numbers(x, cols) ? row_most(x, cols) : NAN;
}

TARGET static void softmax_back(float *out, const float *g, const float *y, bool add, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, g += cols, y += cols, out += cols) {
    V dot = splat(row_dot(g, y, cols));
    FILL(out, add, cols, GET(y) * (GET(g) - dot));
  }
}

TARGET static void log_softmax_back(float *out, const float *g, const float *y, bool add, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, g += cols, y += cols, out += cols) {
    V sum = splat(-row_dot(g, NULL, cols));
    FILL(out, add, cols, mul_add(sum, v_exp(GET(y)), GET(g)));
  }
}

TARGET static void logsumexp_back(float *out, const float *g, const float *x, const float *y, bool add, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, x += cols, out += cols) {
    V slope = splat(g[r]), shift = splat(y[r]);
    if (y[r] == -INFINITY) slope = shift = splat(0); /* all of them −inf, or none at all */
    FILL(out, add, cols, slope * v_exp(GET(x) - shift));
  }
}

/* To the first place that holds it. */
TARGET static void max_back(float *out, const float *g, const float *x, const float *y, bool add, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, x += cols, out += cols) {
    V most = splat(y[r]), yes = splat(1), no = splat(0);
    size_t i = 0;
    for (; i + 4 * W <= cols; i += 4 * W) {
      V hit = pick(equal(load(x + i), most), yes, no) + pick(equal(load(x + i + W), most), yes, no) + pick(equal(load(x + i + 2 * W), most), yes, no) + pick(equal(load(x + i + 3 * W), most), yes, no);
      if (largest(hit) > 0) break;
    }
    while (i < cols && x[i] != y[r]) i++;
    if (!add && cols > 0) memset(out, 0, cols * sizeof *out);
    if (i < cols) out[i] += g[r];
  }
}

/* ---- Normalisations ---------------------------------------------------------------------------------------------*/
TARGET static void normalise(float *out, float *inverse, const float *x, float epsilon, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, x += cols, out += cols) {
    float norm = sqrtf(row_dot(x, x, cols)), by = norm < epsilon ? 1 / epsilon : 1 / norm;
    inverse[r] = norm < epsilon ? -by : by; /* below 0: the divisor does not depend on x */
    V scale = splat(by);
    FILL(out, false, cols, GET(x) * scale);
  }
}

TARGET static void normalise_back(float *out, const float *g, const float *y, const float *inverse, bool add, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, g += cols, y += cols, out += cols) {
    V scale = splat(inverse[r] < 0 ? -inverse[r] : inverse[r]), along = splat(inverse[r] < 0 ? 0 : -row_dot(g, y, cols));
    FILL(out, add, cols, mul_add(along, GET(y), GET(g)) * scale);
  }
}

TARGET static void layer_norm(float *out, float *stats, const float *x, const float *gain, const float *bias, float epsilon, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, x += cols, out += cols) {
    float mean = row_dot(x, NULL, cols) / (float)cols;
    V less = splat(-mean), square = splat(0);
    EACH(cols, V v = GET(x) + less; if (left < W) v = first(v, left); square = mul_add(v, v, square));
    float inverse = 1 / sqrtf(total(square) / (float)cols + epsilon);
    stats[2 * r] = mean, stats[2 * r + 1] = inverse;
    V scale = splat(inverse);
    FILL(out, false, cols, mul_add((GET(x) + less) * scale, GET(gain), GET(bias)));
  }
}

TARGET static void layer_norm_back(float *out, float *d_gain, float *d_bias, const float *g, const float *x, const float *stats, const float *gain, bool add, size_t rows,
                                   size_t cols) {
  for (size_t r = 0; r < rows; r++, g += cols, x += cols) {
    V less = splat(-stats[2 * r]), scale = splat(stats[2 * r + 1]), sum = splat(0), along = sum;
    EACH(cols, V gv = GET(g); V unit = (GET(x) + less) * scale; V part = gv * GET(gain); /* g and the gain are 0 behind the end */
         sum += part; along = mul_add(part, unit, along);
         if (d_gain != NULL) PUT(d_gain, mul_add(gv, unit, GET(d_gain))), PUT(d_bias, GET(d_bias) + gv));
    if (out == NULL) continue;
    V mean = splat(-total(sum) / (float)cols), slope = splat(-total(along) / (float)cols);
    FILL(out, add, cols, mul_add(slope, (GET(x) + less) * scale, mul_add(GET(g), GET(gain), mean)) * scale);
    out += cols;
  }
}

/* ---- Sparse rows by a dense matrix ------------------------------------------------------------------------------
 * A strip of columns is summed in registers while the entries of a row go by, in their order; the rows of x that are next
 * are fetched meanwhile, across the end of a row too. */
#define AHEAD 12

INLINE void strip(float *out, const uint64_t *ptr, const uint32_t *idx, const float *values, const float *x, size_t row, uint64_t end, size_t d, bool add, const int vecs) {
  V sum[8];
#pragma GCC unroll 8
  for (int k = 0; k < vecs; k++) sum[k] = add ? load(out + k * W) : splat(0);
  for (uint64_t e = ptr[row]; e < ptr[row + 1]; e++) {
    const float *from = x + idx[e] * d;
    if (e + AHEAD < end) {
      const float *next = x + idx[e + AHEAD] * d;
#pragma GCC unroll 8
      for (int k = 0; k < vecs * W; k += 16) __builtin_prefetch(next + k);
    }
    V by = splat(values == NULL ? 1 : values[e]);
#pragma GCC unroll 8
    for (int k = 0; k < vecs; k++) sum[k] = mul_add(by, load(from + k * W), sum[k]);
  }
#pragma GCC unroll 8
  for (int k = 0; k < vecs; k++) store(out + k * W, sum[k]);
}

INLINE void strip_part(float *out, const uint64_t *ptr, const uint32_t *idx, const float *values, const float *x, size_t row, size_t d, bool add, size_t left) {
  V sum = add ? load_part(out, left) : splat(0);
  for (uint64_t e = ptr[row]; e < ptr[row + 1]; e++) sum = mul_add(splat(values == NULL ? 1 : values[e]), load_part(x + idx[e] * d, left), sum);
  store_part(out, sum, left);
}

TARGET static void sparse_rows(float *out, const uint64_t *ptr, const uint32_t *idx, const float *values, const float *x, size_t n_rows, size_t begin, size_t stop, size_t d, bool add) {
  uint64_t end = ptr[n_rows];
  for (size_t row = begin; row < stop; row++) {
    float *to = out + row * d;
    size_t j = 0;
    for (; j + 8 * W <= d; j += 8 * W) strip(to + j, ptr, idx, values, x + j, row, end, d, add, 8);
    if (j + 4 * W <= d) strip(to + j, ptr, idx, values, x + j, row, end, d, add, 4), j += 4 * W;
    if (j + 2 * W <= d) strip(to + j, ptr, idx, values, x + j, row, end, d, add, 2), j += 2 * W;
    if (j + W <= d) strip(to + j, ptr, idx, values, x + j, row, end, d, add, 1), j += W;
    if (j < d) strip_part(to + j, ptr, idx, values, x + j, row, d, add, d - j);
  }
}

/* ---- The cell of a GRU --------------------------------------------------------------------------------------------*/
TARGET static void gru_cell(float *out, float *keep, const float *product, const float *bias, const float *h, size_t d) {
  float *at_r = keep, *at_z = keep + d, *at_n = keep + 2 * d, *at_hn = keep + 3 * d;
  EACH(d, V hn = GET(product + 2 * d);
       V r = v_sigmoid(GET(at_r) + GET(bias) + GET(product)); V z = v_sigmoid(GET(at_z) + GET(bias + d) + GET(product + d));
       V n = v_tanh(mul_add(r, hn, GET(at_n) + GET(bias + 2 * d)));
       PUT(at_r, r); PUT(at_z, z); PUT(at_n, n); PUT(at_hn, hn); PUT(out, mul_add(z, GET(h) - n, n)));
}

TARGET static void gru_cell_back(float *dh, float *product, float *keep, const float *h, size_t d) {
  float *at_r = keep, *at_z = keep + d, *at_n = keep + 2 * d, *at_hn = keep + 3 * d;
  const V one = splat(1);
  EACH(d, V r = GET(at_r); V z = GET(at_z); V n = GET(at_n); V g = GET(dh);
       V to_n = g * (one - z) * mul_add(-n, n, one); V to_z = g * (GET(h) - n) * z * (one - z); V to_r = to_n * GET(at_hn) * r * (one - r);
       PUT(at_r, to_r); PUT(at_z, to_z); PUT(at_n, to_n); PUT(at_hn, to_n * r); PUT(dh, g * z);
       PUT(product, to_r); PUT(product + d, to_z); PUT(product + 2 * d, to_n * r));
}

/* ---- Dropout ------------------------------------------------------------------------------------------------------
 * A number of 32 bits for each place, from the seed and the place alone: two rounds of multiply and shift (the constants
 * are those of Wellons' search for the least biased, 2018), each with one half of the seed. */
INLINE VU mixed(VU x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

TARGET static void dropout(float *out, const float *x, uint64_t seed, uint64_t place, float p, bool add, size_t n) {
  static const uint32_t steps[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  VU step;
  memcpy(&step, steps, sizeof step);
  uint32_t low = (uint32_t)seed + (uint32_t)place, high = (uint32_t)(seed >> 32) ^ (uint32_t)(place >> 32) * 0x9e3779b1u;
  VU bound = (VU){0} + (uint32_t)((double)p * 0x1p32);
  V scale = splat(1 / (1 - p));
  FILL(out, add, n, pick(below_u(mixed(mixed(step + (low + (uint32_t)i)) ^ high), bound), splat(0), GET(x) * scale));
}
