/* tiles_body.h - small products and attention for one instruction set; tiles_*.c include it once each.
 *
 * Everything here is one product over and over: a few numbers of the left side, each spread over a vector, times rows of the
 * right side, summed in registers: 12 multiply-adds of vectors for 8 loads. The left side may stand in memory either way
 * round, and nothing is packed: what the second-level cache delivers is enough. On Zen 4, at 56 to 58 of 59 possible billions
 * of multiply-adds a second from 8 rows and 64 columns up, where OpenBLAS's packed panels come to 45 to 52.
 *
 * Attention (Vaswani et al. 2017) goes over tiles of KEYS keys by QUERIES queries, kept transposed: a softmax over keys
 * then runs down the columns, 16 queries in one vector, and keys, values and gradients are read where they stand. Only
 * the queries of a tile are turned round. A running maximum and sum make one pass of it, and backwards the probabilities are
 * computed again rather than kept (Dao et al. 2022, the same for a cache as for a graphics card's).
 *
 * The including file gives a vector (vector_*.h), its functions and TABLE, the name of the table of kernels. */
#define TILE_ROWS 6
#define QUERIES 32
#define KEYS 64
#define ALIGNED __attribute__((aligned(64)))

/* out (rows, vecs) [+]= Σ_p a(·, p) b(p, ·); part: floats in the last vector, 0 when it is whole. */
INLINE void tile(float *out, size_t ld_out, const float *a, size_t a_row, size_t a_col, const float *b, size_t ld_b, size_t k, bool add,
    const int rows, const int vecs, size_t part) {
  V sum[TILE_ROWS][2];
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++) {
    const float *o = out + (size_t)r * ld_out;
    sum[r][0] = !add ? splat(0) : vecs == 1 && part > 0 ? load_part(o, part) : load(o);
    sum[r][1] = !add || vecs == 1 ? splat(0) : part > 0 ? load_part(o + W, part) : load(o + W);
  }
  for (size_t p = 0; p < k; p++, a += a_col, b += ld_b) {
    V b0 = vecs == 1 && part > 0 ? load_part(b, part) : load(b), b1 = vecs == 1 ? b0 : part > 0 ? load_part(b + W, part) : load(b + W);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      V x = splat(a[(size_t)r * a_row]);
      sum[r][0] = mul_add(x, b0, sum[r][0]);
      if (vecs == 2) sum[r][1] = mul_add(x, b1, sum[r][1]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++) {
    float *o = out + (size_t)r * ld_out;
    if (vecs == 1 && part > 0) store_part(o, sum[r][0], part);
    else store(o, sum[r][0]);
    if (vecs == 2 && part > 0) store_part(o + W, sum[r][1], part);
    else if (vecs == 2) store(o + W, sum[r][1]);
  }
}

/* All rows of one or two vectors of columns, in tiles of about equal height. */
INLINE void strip(float *out, size_t ld_out, const float *a, size_t a_row, size_t a_col, const float *b, size_t ld_b, bool add, size_t m, size_t k,
    const int vecs, size_t part) {
  for (uint32_t left = (uint32_t)m; left > 0;) {
    uint32_t tiles = (left + TILE_ROWS - 1) / TILE_ROWS, rows = (left + tiles - 1) / tiles;
    switch (rows) {
      case 6: tile(out, ld_out, a, a_row, a_col, b, ld_b, k, add, 6, vecs, part); break;
      case 5: tile(out, ld_out, a, a_row, a_col, b, ld_b, k, add, 5, vecs, part); break;
      case 4: tile(out, ld_out, a, a_row, a_col, b, ld_b, k, add, 4, vecs, part); break;
      case 3: tile(out, ld_out, a, a_row, a_col, b, ld_b, k, add, 3, vecs, part); break;
      case 2: tile(out, ld_out, a, a_row, a_col, b, ld_b, k, add, 2, vecs, part); break;
      default: tile(out, ld_out, a, a_row, a_col, b, ld_b, k, add, 1, vecs, part); break;
    }
    left -= rows;
    out += rows * ld_out;
    a += rows * a_row;
  }
}

/* out (m, n) [+]= a (m, k) b (k, n); a(i, p) at a[i a_row + p a_col]. */
TARGET static __attribute__((noinline)) void product(float *out, size_t ld_out, const float *a, size_t a_row, size_t a_col, const float *b,
    size_t ld_b, bool add, size_t m, size_t n, size_t k) {
  size_t j = 0;
  for (; j + 2 * W <= n; j += 2 * W) strip(out + j, ld_out, a, a_row, a_col, b + j, ld_b, add, m, k, 2, 0);
  if (n - j > W) strip(out + j, ld_out, a, a_row, a_col, b + j, ld_b, add, m, k, 2, n - j - W);
  else if (n - j == W) strip(out + j, ld_out, a, a_row, a_col, b + j, ld_b, add, m, k, 1, 0);
  else if (n > j) strip(out + j, ld_out, a, a_row, a_col, b + j, ld_b, add, m, k, 1, n - j);
}

typedef float quad __attribute__((vector_size(16)));

/* out (d, w) = scale xᵀ of rows `stride` apart; the columns from `rows` on are 0. w is a multiple of 4. */
TARGET static void turn(float *out, size_t w, const float *x, size_t stride, float scale, size_t rows, size_t d) {
  for (size_t i = 0; i < w; i += 4) {
    const float *in = x + i * stride;
    size_t there = i >= rows ? 0 : rows - i, c = 0;
    for (; c + 4 <= d; c += 4) {
      quad r0 = {0}, r1 = {0}, r2 = {0}, r3 = {0};
      if (there > 0) memcpy(&r0, in + c, 16);
      if (there > 1) memcpy(&r1, in + stride + c, 16);
      if (there > 2) memcpy(&r2, in + 2 * stride + c, 16);
      if (there > 3) memcpy(&r3, in + 3 * stride + c, 16);
      quad a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), b = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
      quad e = __builtin_shufflevector(r0, r1, 2, 6, 3, 7), f = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
      r0 = __builtin_shufflevector(a, b, 0, 1, 4, 5) * scale, r1 = __builtin_shufflevector(a, b, 2, 3, 6, 7) * scale;
      r2 = __builtin_shufflevector(e, f, 0, 1, 4, 5) * scale, r3 = __builtin_shufflevector(e, f, 2, 3, 6, 7) * scale;
      float *o = out + c * w + i;
      memcpy(o, &r0, 16), memcpy(o + w, &r1, 16), memcpy(o + 2 * w, &r2, 16), memcpy(o + 3 * w, &r3, 16);
    }
    for (; c < d; c++)
      for (size_t r = 0; r < 4; r++) out[c * w + i + r] = r < there ? in[r * stride + c] * scale : 0;
  }
}

/* The same for rows that stand far apart, which fall on few sets of a cache, and for a right side that stands turned round: b(p, j)
 * at b[p b_row + j b_col], one of the two steps 1, as of a's. DEPTH terms of two vectors of columns are laid side by side
 * before every row comes past them; the rows of a left side that is turned round, an odd number of cache lines apart. */
#define DEPTH 128
#define HEIGHT 192
TARGET static void product_far(float *out, size_t ld_out, const float *a, size_t a_row, size_t a_col, const float *b, size_t b_row, size_t b_col,
    bool add, size_t m, size_t n, size_t k) {
  float panel[DEPTH * 2 * W] ALIGNED, left[DEPTH * (HEIGHT + 16)] ALIGNED;
  bool lay = a_row == 1 && a_col >= EV_FAR && m > TILE_ROWS;
  for (size_t i = 0, rows; i < m; i += rows) {
    rows = lay && m - i > HEIGHT ? HEIGHT : m - i;
    for (size_t p = 0; p < k; p += DEPTH) {
      size_t depth = k - p < DEPTH ? k - p : DEPTH, x_row = a_row, x_col = a_col;
      const float *x = a + i * a_row + p * a_col;
      if (lay) {
        for (size_t q = 0; q < depth; q++) memcpy(left + q * (HEIGHT + 16), x + q * a_col, rows * sizeof *left);
        x = left, x_row = 1, x_col = HEIGHT + 16;
      }
      for (size_t j = 0; j < n; j += 2 * W) {
        size_t cols = n - j < 2 * W ? n - j : 2 * W;
        const float *y = b + p * b_row + j * b_col;
        if (b_col != 1) turn(panel, 2 * W, y, b_col, 1, cols, depth);
        else if (cols == 2 * W) for (size_t q = 0; q < depth; q++) memcpy(panel + q * 2 * W, y + q * b_row, 2 * W * sizeof *panel);
        else for (size_t q = 0; q < depth; q++) memcpy(panel + q * 2 * W, y + q * b_row, cols * sizeof *panel);
        product(out + i * ld_out + j, ld_out, x, x_row, x_col, panel, 2 * W, add || p > 0, rows, cols, depth);
      }
    }
  }
}

/* Scores (n_keys, w) of the keys from `first` on for the queries from `query` on. */
INLINE void scores(float *s, const float *k, const float *qt, const ev_head *h, size_t query, size_t first, size_t n_keys, size_t w) {
  product(s, w, k + first * h->stride, h->stride, 1, qt, w, false, n_keys, w, h->d);
  if (!h->causal) return;
  for (size_t j = first > query ? 0 : query + 1 - first; j < n_keys; j++)
    for (size_t r = 0, to = first + j - query < w ? first + j - query : w; r < to; r++) s[j * w + r] = -INFINITY;
}

TARGET static void attend(float *out, float *keep, const float *q, const float *k, const float *v, const ev_head *h) {
  float qt[EV_HEAD_MAX * QUERIES] ALIGNED, s[KEYS * QUERIES] ALIGNED, most[QUERIES] ALIGNED, sum[QUERIES] ALIGNED, shrink[QUERIES] ALIGNED;
  float scale = 1 / sqrtf((float)h->d);
  for (size_t query = 0; query < h->n; query += QUERIES) {
    size_t rows = h->n - query < QUERIES ? h->n - query : QUERIES, w = (rows + W - 1) / W * W, n_keys = h->causal ? query + rows : h->n;
    float *o = out + query * h->stride;
    turn(qt, w, q + query * h->stride, h->stride, scale, rows, h->d);
    for (size_t r = 0; r < w; r++) most[r] = -INFINITY, sum[r] = 0;
    for (size_t first = 0; first < n_keys; first += KEYS) {
      size_t n = n_keys - first < KEYS ? n_keys - first : KEYS;
      scores(s, k, qt, h, query, first, n, w);
      for (size_t r = 0; r < w; r += W) {
        V before = load(most + r), now = before;
        for (size_t j = 0; j < n; j++) now = larger(now, load(s + j * w + r));
        V by = v_exp(before - now), t = load(sum + r) * by;
        for (size_t j = 0; j < n; j++) {
          V e = v_exp(load(s + j * w + r) - now);
          store(s + j * w + r, e);
          t += e;
        }
        store(most + r, now), store(sum + r, t), store(shrink + r, by);
      }
      for (size_t r = 0; r < rows && first > 0; r++)
        for (size_t c = 0; c < h->d; c++) o[r * h->stride + c] *= shrink[r];
      product(o, h->stride, s, 1, w, v + first * h->stride, h->stride, first > 0, rows, h->d, n);
    }
    for (size_t r = 0; r < rows; r++) {
      float by = 1 / sum[r];
      for (size_t c = 0; c < h->d; c++) o[r * h->stride + c] *= by;
      keep[(query + r) * h->keep_stride] = most[r];
      keep[(query + r) * h->keep_stride + 1] = by;
    }
  }
}

/* With P the probabilities: v̄ += Pᵀ ḡ; S̄ = P ∘ (ḡ vᵀ − (ḡ·out)) / √d; q̄ += S̄ k; k̄ += S̄ᵀ q. */
TARGET static void clear(float *x, const ev_head *h) {
  for (size_t t = 0; t < h->n; t++, x += h->stride) {
    size_t c = 0;
    for (; c + W <= h->d; c += W) store(x + c, splat(0));
    if (c < h->d) store_part(x + c, splat(0), h->d - c);
  }
}

TARGET static void attend_back(float *dq, float *dk, float *dv, const bool *add, const float *q, const float *k, const float *v, const float *out,
    const float *keep, const float *grad, const ev_head *h) {
  float qt[EV_HEAD_MAX * QUERIES] ALIGNED, gt[EV_HEAD_MAX * QUERIES] ALIGNED, p[KEYS * QUERIES] ALIGNED, s[KEYS * QUERIES] ALIGNED;
  float most[QUERIES] ALIGNED, by[QUERIES] ALIGNED, inner[QUERIES] ALIGNED;
  float scale = 1 / sqrtf((float)h->d);
  size_t stride = h->stride;
  if (dk != NULL && !add[1]) clear(dk, h);
  if (dv != NULL && !add[2]) clear(dv, h);
  for (size_t query = 0; query < h->n; query += QUERIES) {
    size_t rows = h->n - query < QUERIES ? h->n - query : QUERIES, w = (rows + W - 1) / W * W, n_keys = h->causal ? query + rows : h->n;
    const float *g = grad + query * stride;
    turn(qt, w, q + query * stride, stride, scale, rows, h->d);
    turn(gt, w, g, stride, 1, rows, h->d);
    for (size_t r = 0; r < w; r++) {
      most[r] = by[r] = inner[r] = 0;
      if (r >= rows) continue;
      V t = {0};
      size_t c = 0;
      for (; c + W <= h->d; c += W) t = mul_add(load(g + r * stride + c), load(out + (query + r) * stride + c), t);
      if (c < h->d) t = mul_add(load_part(g + r * stride + c, h->d - c), load_part(out + (query + r) * stride + c, h->d - c), t);
      inner[r] = total(t);
      most[r] = keep[(query + r) * h->keep_stride];
      by[r] = keep[(query + r) * h->keep_stride + 1];
    }
    for (size_t first = 0; first < n_keys; first += KEYS) {
      size_t n = n_keys - first < KEYS ? n_keys - first : KEYS, at = first * stride;
      scores(p, k, qt, h, query, first, n, w);
      product(s, w, v + at, stride, 1, gt, w, false, n, w, h->d);
      for (size_t r = 0; r < w; r += W) {
        V m = load(most + r), b = load(by + r), i = load(inner + r);
        for (size_t j = 0; j < n; j++) {
          V e = v_exp(load(p + j * w + r) - m) * b;
          store(p + j * w + r, e);
          store(s + j * w + r, e * scale * (load(s + j * w + r) - i));
        }
      }
      if (dv != NULL) product(dv + at, stride, p, w, 1, g, stride, true, n, h->d, rows);
      if (dq != NULL) product(dq + query * stride, stride, s, 1, w, k + at, stride, add[0] || first > 0, rows, h->d, n);
      if (dk != NULL) product(dk + at, stride, s, w, 1, q + query * stride, stride, true, n, h->d, rows);
    }
  }
}

TARGET static void scaled(float *out, const float *x, float alpha, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) store(out + i, load(x + i) * alpha);
  for (; i < n; i++) out[i] = x[i] * alpha;
}

const ev_tile_kernels TABLE = {product, product_far, attend, attend_back, scaled};
