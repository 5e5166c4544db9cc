/* elements_body.h - functions of one and of two numbers, over arrays; elements*.c include it once each.
 *
 * A map's slope is given what ev_map_looks_at says: x, or f(x) where that is all it needs. Each function's value f_NAME and
 * its gradient d_NAME (g f'(x), of u = x or f(x)) stand side by side; the loops are the same for all. */

/* ---- Functions of one number ----------------------------------------------------------------------------------*/
INLINE V f_negative(V x, V a, V b) { return (void)a, (void)b, -x; }
INLINE V d_negative(V g, V u, V a, V b) { return (void)u, (void)a, (void)b, -g; }

INLINE V f_exp(V x, V a, V b) { return (void)a, (void)b, v_exp(x); }
INLINE V d_exp(V g, V u, V a, V b) { return (void)a, (void)b, g * u; }

INLINE V f_log(V x, V a, V b) { return (void)a, (void)b, v_log(x); }
INLINE V d_log(V g, V u, V a, V b) { return (void)a, (void)b, g / u; }

INLINE V f_sqrt(V x, V a, V b) { return (void)a, (void)b, root(x); }
INLINE V d_sqrt(V g, V u, V a, V b) { return (void)a, (void)b, splat(0.5f) * g / u; }

INLINE V f_square(V x, V a, V b) { return (void)a, (void)b, x * x; }
INLINE V d_square(V g, V u, V a, V b) { return (void)a, (void)b, (g + g) * u; }

INLINE V f_reciprocal(V x, V a, V b) { return (void)a, (void)b, splat(1) / x; }
INLINE V d_reciprocal(V g, V u, V a, V b) { return (void)a, (void)b, -g / (u * u); }

INLINE V f_abs(V x, V a, V b) { return (void)a, (void)b, v_abs(x); }
INLINE V d_abs(V g, V u, V a, V b) { return (void)a, (void)b, pick(below(splat(0), u), g, pick(below(u, splat(0)), -g, splat(0))); }

INLINE V f_relu(V x, V a, V b) { return (void)a, (void)b, pick(below(x, splat(0)), splat(0), x); }
INLINE V d_relu(V g, V u, V a, V b) { return (void)a, (void)b, pick(below(splat(0), u), g, splat(0)); }

INLINE V f_gelu(V x, V a, V b) { return (void)a, (void)b, x * v_normal_below(x); }
INLINE V d_gelu(V g, V u, V a, V b) {
  (void)a, (void)b;
  V density = splat(0.39894228f) * v_exp(splat(-0.5f) * u * u);
  return g * mul_add(u, density, v_normal_below(u));
}

INLINE V f_silu(V x, V a, V b) { return (void)a, (void)b, x * v_sigmoid(x); }
INLINE V d_silu(V g, V u, V a, V b) {
  (void)a, (void)b;
  V s = v_sigmoid(u);
  return g * mul_add(u * s, splat(1) - s, s);
}

INLINE V f_sigmoid(V x, V a, V b) { return (void)a, (void)b, v_sigmoid(x); }
INLINE V d_sigmoid(V g, V u, V a, V b) { return (void)a, (void)b, g * u * (splat(1) - u); }

INLINE V f_tanh(V x, V a, V b) { return (void)a, (void)b, v_tanh(x); }
INLINE V d_tanh(V g, V u, V a, V b) { return (void)a, (void)b, g * mul_add(-u, u, splat(1)); }

INLINE V f_softplus(V x, V a, V b) { return (void)a, (void)b, v_softplus(x); }
INLINE V d_softplus(V g, V u, V a, V b) { return (void)a, (void)b, g * v_sigmoid(u); }

INLINE V f_clip(V x, V a, V b) { return pick(below(x, a), a, pick(below(b, x), b, x)); }
INLINE V d_clip(V g, V u, V a, V b) { return pick(below(u, a), splat(0), pick(below(b, u), splat(0), g)); }

INLINE V f_affine(V x, V a, V b) { return mul_add(a, x, b); }
INLINE V d_affine(V g, V u, V a, V b) { return (void)u, (void)b, g * a; }

/* One number at a time, by the C library: the power is rarely worth a way of its own. */
INLINE V f_power(V x, V a, V b) {
  (void)b;
  float at[W], p[W];
  store(at, x), store(p, a);
  for (int i = 0; i < W; i++) at[i] = powf(at[i], p[0]);
  return load(at);
}
INLINE V d_power(V g, V u, V a, V b) {
  (void)b;
  float at[W], p[W];
  store(at, u), store(p, a);
  for (int i = 0; i < W; i++) at[i] = p[0] == 0 ? 0 : p[0] * powf(at[i], p[0] - 1);
  return g * load(at);
}

#define MAP(name)                                                                                                      \
  TARGET static void map_##name(float *out, const float *x, float a, float b, size_t n) {                              \
    V va = splat(a), vb = splat(b);                                                                                    \
    size_t i = 0;                                                                                                      \
    for (; i + W <= n; i += W) store(out + i, f_##name(load(x + i), va, vb));                                          \
    if (i < n) store_part(out + i, f_##name(load_part(x + i, n - i), va, vb), n - i);                                  \
  }                                                                                                                    \
  TARGET static void slope_##name(float *out, const float *g, const float *u, float a, float b, bool add, size_t n) {  \
    V va = splat(a), vb = splat(b);                                                                                    \
    size_t i = 0;                                                                                                      \
    for (; add && i + W <= n; i += W) store(out + i, load(out + i) + d_##name(load(g + i), load(u + i), va, vb));      \
    for (; i + W <= n; i += W) store(out + i, d_##name(load(g + i), load(u + i), va, vb));                             \
    if (i == n) return;                                                                                                \
    V d = d_##name(load_part(g + i, n - i), load_part(u + i, n - i), va, vb);                                          \
    if (add) d = load_part(out + i, n - i) + d;                                                                        \
    store_part(out + i, d, n - i);                                                                                     \
  }

MAP(negative) MAP(exp) MAP(log) MAP(sqrt) MAP(square) MAP(reciprocal) MAP(abs) MAP(relu) MAP(gelu) MAP(silu) MAP(sigmoid) MAP(tanh) MAP(softplus) MAP(clip)
MAP(affine) MAP(power)

/* ---- Functions of two numbers, over planes ----------------------------------------------------------------------
 * Gradients: d0_ of the first, d1_ of the second. A maximum's goes to the larger, half to each where they are equal. */
INLINE V f_add(V x, V y) { return x + y; }
INLINE V d0_add(V g, V x, V y) { return (void)x, (void)y, g; }
INLINE V d1_add(V g, V x, V y) { return (void)x, (void)y, g; }

INLINE V f_sub(V x, V y) { return x - y; }
INLINE V d0_sub(V g, V x, V y) { return (void)x, (void)y, g; }
INLINE V d1_sub(V g, V x, V y) { return (void)x, (void)y, -g; }

INLINE V f_mul(V x, V y) { return x * y; }
INLINE V d0_mul(V g, V x, V y) { return (void)x, g * y; }
INLINE V d1_mul(V g, V x, V y) { return (void)y, g * x; }

INLINE V f_div(V x, V y) { return x / y; }
INLINE V d0_div(V g, V x, V y) { return (void)x, g / y; }
INLINE V d1_div(V g, V x, V y) { return -(g / y) * (x / y); }

INLINE V f_max(V x, V y) { return pick(below(y, x), x, pick(equal(x, x), y, x)); }
INLINE V d0_max(V g, V x, V y) { return pick(below(y, x), g, pick(equal(x, y), splat(0.5f) * g, splat(0))); }
INLINE V d1_max(V g, V x, V y) { return d0_max(g, y, x); }

INLINE V f_min(V x, V y) { return pick(below(x, y), x, pick(equal(x, x), y, x)); }
INLINE V d0_min(V g, V x, V y) { return pick(below(x, y), g, pick(equal(x, y), splat(0.5f) * g, splat(0))); }
INLINE V d1_min(V g, V x, V y) { return d0_min(g, y, x); }

/* Of a row that may be one number over and over. */
INLINE V take(const float *row, size_t step, V one, size_t j) { return step > 0 ? load(row + j) : one; }
INLINE V take_part(const float *row, size_t step, V one, size_t j, size_t n) { return step > 0 ? load_part(row + j, n) : one; }

#define ZIP(name)                                                                                                      \
  TARGET static void zip_##name(float *out, size_t out_row, const ev_plane *x, const ev_plane *y, bool add, size_t rows, size_t cols) { \
    for (size_t i = 0; i < rows; i++, out += out_row) {                                                                \
      const float *px = x->at + i * x->row, *py = y->at + i * y->row;                                                  \
      V x1 = splat(*px), y1 = splat(*py);                                                                              \
      size_t j = 0;                                                                                                    \
      if (add) {                                                                                                       \
        for (; j + W <= cols; j += W) store(out + j, load(out + j) + f_##name(take(px, x->step, x1, j), take(py, y->step, y1, j))); \
      } else if (x->step > 0 && y->step > 0) {                                                                         \
        for (; j + W <= cols; j += W) store(out + j, f_##name(load(px + j), load(py + j)));                            \
      } else {                                                                                                         \
        for (; j + W <= cols; j += W) store(out + j, f_##name(take(px, x->step, x1, j), take(py, y->step, y1, j)));    \
      }                                                                                                                \
      if (j == cols) continue;                                                                                         \
      V v = f_##name(take_part(px, x->step, x1, j, cols - j), take_part(py, y->step, y1, j, cols - j));                \
      if (add) v = load_part(out + j, cols - j) + v;                                                                   \
      store_part(out + j, v, cols - j);                                                                                \
    }                                                                                                                  \
  }

/* The gradient of one side. Where out has no rows of its own (out_row 0) the rows are summed in order; where it has no
 * columns of its own, each row is summed over four vectors side by side. */
#define UNZIP(side, name)                                                                                              \
  TARGET static void unzip##side##_##name(float *out, size_t out_row, size_t out_step, const float *g, size_t g_row, const ev_plane *x, const ev_plane *y, bool add, size_t rows, \
                                          size_t cols) {                                                               \
    for (size_t i = 0; i < rows; i++, out += out_row, g += g_row) {                                                    \
      const float *px = x->at + i * x->row, *py = y->at + i * y->row;                                                  \
      V x1 = splat(*px), y1 = splat(*py);                                                                              \
      bool more = add || (i > 0 && out_row == 0);                                                                      \
      size_t j = 0;                                                                                                    \
      if (out_step == 0) {                                                                                             \
        V s0 = splat(0), s1 = s0, s2 = s0, s3 = s0;                                                                    \
        for (; j + 4 * W <= cols; j += 4 * W) {                                                                        \
          s0 += d##side##_##name(load(g + j), take(px, x->step, x1, j), take(py, y->step, y1, j));                     \
          s1 += d##side##_##name(load(g + j + W), take(px, x->step, x1, j + W), take(py, y->step, y1, j + W));         \
          s2 += d##side##_##name(load(g + j + 2 * W), take(px, x->step, x1, j + 2 * W), take(py, y->step, y1, j + 2 * W)); \
          s3 += d##side##_##name(load(g + j + 3 * W), take(px, x->step, x1, j + 3 * W), take(py, y->step, y1, j + 3 * W)); \
        }                                                                                                              \
        for (; j + W <= cols; j += W) s0 += d##side##_##name(load(g + j), take(px, x->step, x1, j), take(py, y->step, y1, j)); \
        if (j < cols) /* g is 0 behind the end, but 0 / 0 is not */                                                    \
          s1 += first(d##side##_##name(load_part(g + j, cols - j), take_part(px, x->step, x1, j, cols - j), take_part(py, y->step, y1, j, cols - j)), cols - j); \
        float sum = total((s0 + s1) + (s2 + s3));                                                                      \
        *out = more ? *out + sum : sum;                                                                                \
        continue;                                                                                                      \
      }                                                                                                                \
      if (more) {                                                                                                      \
        for (; j + W <= cols; j += W) store(out + j, load(out + j) + d##side##_##name(load(g + j), take(px, x->step, x1, j), take(py, y->step, y1, j))); \
      } else {                                                                                                         \
        for (; j + W <= cols; j += W) store(out + j, d##side##_##name(load(g + j), take(px, x->step, x1, j), take(py, y->step, y1, j))); \
      }                                                                                                                \
      if (j == cols) continue;                                                                                         \
      V v = d##side##_##name(load_part(g + j, cols - j), take_part(px, x->step, x1, j, cols - j), take_part(py, y->step, y1, j, cols - j)); \
      if (more) v = load_part(out + j, cols - j) + v;                                                                  \
      store_part(out + j, v, cols - j);                                                                                \
    }                                                                                                                  \
  }

ZIP(add) ZIP(sub) ZIP(mul) ZIP(div) ZIP(max) ZIP(min)
UNZIP(0, add) UNZIP(0, sub) UNZIP(0, mul) UNZIP(0, div) UNZIP(0, max) UNZIP(0, min)
UNZIP(1, add) UNZIP(1, sub) UNZIP(1, mul) UNZIP(1, div) UNZIP(1, max) UNZIP(1, min)
