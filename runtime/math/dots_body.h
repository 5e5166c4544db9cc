/* dots_body.h - sums over pairs of elements of one query and many rows; included once for each form and instruction set.
 *
 * A row has two sums, added up at the end; four rows' horizontal sums are done as one transposition. Rows that lie one
 * after another are read one after another, as the processor's prefetchers want it: read four at a time in step, rows of
 * 512 bytes come at a third of the memory's bandwidth. Long ones are prefetched besides (without it: half, on Zen 4; short
 * ones lose by it). Rows from anywhere are prefetched and then read in step, which is faster within the cache, as a load of
 * the query serves four rows. A row's value has the same bits wherever it stands.
 *
 * The including file gives TARGET (attributes) and AHEAD (rows to prefetch), and for each inclusion
 *   NAME     suffix of what is made: dot, dots, dots_at
 *   Q_FORM   element type type_F, load_F(p) of a whole vector, end_F(p, n) of n elements and zeros behind them
 *   R_FORM   the same of the rows
 *   OP       add_OP(acc, q, r)
 *   FAMILY   acc_F the vector of sums, vec_F what loads give, step_F elements in it, plus_F(acc, acc), shift_F(q, d) a
 *            number to be taken off every sum, sum1_F(acc, shift), sum4_F(out, acc, acc, acc, acc, shift) */
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define AT(name) PASTE(name, NAME)
#define Q PASTE(type, Q_FORM)
#define R PASTE(type, R_FORM)
#define ACC PASTE(acc, FAMILY)
#define VEC PASTE(vec, FAMILY)
#define STEP PASTE(step, FAMILY)
#define ADD(acc, q, p) PASTE(add, OP)(acc, q, PASTE(load, R_FORM)(p))
#define ADD_END(acc, q, p, n) PASTE(add, OP)(acc, q, PASTE(end, R_FORM)(p, n))
#define LOAD_Q PASTE(load, Q_FORM)
#define END_Q PASTE(end, Q_FORM)
#define PLUS PASTE(plus, FAMILY)
#define SUM1 PASTE(sum1, FAMILY)
#define SUM4 PASTE(sum4, FAMILY)
#define SHIFT PASTE(shift, FAMILY)

TARGET static inline __attribute__((always_inline)) ACC AT(total)(const Q *q, const R *r, size_t d) {
  ACC s = {0}, t = {0};
  size_t k = 0;
  for (; k + 2 * STEP <= d; k += 2 * STEP) s = ADD(s, LOAD_Q(q + k), r + k), t = ADD(t, LOAD_Q(q + k + STEP), r + k + STEP);
  if (k + STEP <= d) s = ADD(s, LOAD_Q(q + k), r + k), k += STEP;
  if (k < d) t = ADD_END(t, END_Q(q + k, d - k), r + k, d - k);
  return PLUS(s, t);
}

TARGET static inline __attribute__((always_inline)) void AT(in_step)(float *out, const Q *q, const R *r0, const R *r1, const R *r2, const R *r3, size_t d, int32_t shift) {
  ACC s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, t0 = {0}, t1 = {0}, t2 = {0}, t3 = {0};
  VEC x;
  size_t k = 0;
  for (; k + 2 * STEP <= d; k += 2 * STEP) {
    x = LOAD_Q(q + k);
    s0 = ADD(s0, x, r0 + k), s1 = ADD(s1, x, r1 + k), s2 = ADD(s2, x, r2 + k), s3 = ADD(s3, x, r3 + k);
    x = LOAD_Q(q + k + STEP);
    t0 = ADD(t0, x, r0 + k + STEP), t1 = ADD(t1, x, r1 + k + STEP), t2 = ADD(t2, x, r2 + k + STEP), t3 = ADD(t3, x, r3 + k + STEP);
  }
  if (k + STEP <= d) {
    x = LOAD_Q(q + k);
    s0 = ADD(s0, x, r0 + k), s1 = ADD(s1, x, r1 + k), s2 = ADD(s2, x, r2 + k), s3 = ADD(s3, x, r3 + k);
    k += STEP;
  }
  if (k < d) {
    size_t n = d - k;
    x = END_Q(q + k, n);
    t0 = ADD_END(t0, x, r0 + k, n), t1 = ADD_END(t1, x, r1 + k, n), t2 = ADD_END(t2, x, r2 + k, n), t3 = ADD_END(t3, x, r3 + k, n);
  }
  SUM4(out, PLUS(s0, t0), PLUS(s1, t1), PLUS(s2, t2), PLUS(s3, t3), shift);
}

TARGET static __attribute__((unused)) float AT(dot)(const void *q, const void *r, size_t d) { return SUM1(AT(total)(q, r, d), SHIFT(q, d)); }

TARGET static __attribute__((unused)) void AT(dots)(float *out, const void *q, const void *rows, size_t stride, size_t n, size_t d) {
  int32_t shift = SHIFT(q, d);
  const char *p = rows;
  size_t i = 0, ahead = d * sizeof(R) > 256 ? 4 * stride : 0;
  for (; i + 4 <= n; i += 4, p += 4 * stride) {
    for (size_t line = 0; line < ahead; line += 64) __builtin_prefetch(p + 2048 + line);
    ACC a = AT(total)(q, (const void *)p, d), b = AT(total)(q, (const void *)(p + stride), d), c = AT(total)(q, (const void *)(p + 2 * stride), d);
    SUM4(out + i, a, b, c, AT(total)(q, (const void *)(p + 3 * stride), d), shift);
  }
  for (; i < n; i++, p += stride) out[i] = SUM1(AT(total)(q, (const void *)p, d), shift);
}

/* Rows lie anywhere: their lines are asked for AHEAD rows before they are read. */
TARGET static __attribute__((unused)) void AT(dots_at)(float *out, const void *q, const void *rows, const uint32_t *ids, size_t stride, size_t n, size_t d) {
  int32_t shift = SHIFT(q, d);
  const char *p = rows;
  size_t bytes = d * sizeof(R);
  for (size_t j = 4; j < n && j < AHEAD; j++)
    for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch(p + ids[j] * stride + line);
#define ROW(i) ((const void *)(p + ids[i] * stride))
  if (n < 4) {
    float few[4];
    if (n == 0) return;
    AT(in_step)(few, q, ROW(0), ROW(n / 2), ROW(n - 1), ROW(n - 1), d, shift);
    out[n - 1] = few[2], out[n / 2] = few[1], out[0] = few[0];
    return;
  }
  for (size_t i = 0;; i = i + 8 <= n ? i + 4 : n - 4) { /* the last four may have had their turn: a rest of one to three would be guessed wrong */
    for (size_t j = i + AHEAD; j < n && j < i + AHEAD + 4; j++)
      for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch(p + ids[j] * stride + line);
    AT(in_step)(out + i, q, ROW(i), ROW(i + 1), ROW(i + 2), ROW(i + 3), d, shift);
    if (i + 4 >= n) break;
  }
#undef ROW
}

#undef PASTE_
#undef PASTE
#undef AT
#undef Q
#undef R
#undef ACC
#undef VEC
#undef STEP
#undef ADD
#undef ADD_END
#undef LOAD_Q
#undef END_Q
#undef PLUS
#undef SUM1
#undef SUM4
#undef SHIFT
#undef NAME
#undef Q_FORM
#undef R_FORM
#undef OP
#undef FAMILY
