/* math_elements.c - kernels of tensors on every instruction set: how exact each function is, what becomes of the strange
 * numbers, that an element does not depend on where it stands, and sums and rows against doubles. */
#include <math.h>

#include "math/math.h"
#include "support.h"

static const char *const sets[] = {"scalar", "avx2", "avx512", "neon"};
#define N_SETS 4
#define FOR_SETS for (int set = 0; set < N_SETS; set++) if (ev_simd_force(sets[set]) == EV_OK)

static void fill(float *x, size_t n, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  for (size_t i = 0; i < n; i++) x[i] = (float)ev_rng_normal(&r);
}

/* ---- Functions of one number -----------------------------------------------------------------------------------*/
static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double normal_below(double x) { return 0.5 * erfc(-x / sqrt(2)); }

static double value(ev_map_kind f, double x, double a, double b) {
  switch (f) {
    case EV_MAP_NEG: return -x;
    case EV_MAP_EXP: return exp(x);
    case EV_MAP_LOG: return log(x);
    case EV_MAP_SQRT: return sqrt(x);
    case EV_MAP_SQUARE: return x * x;
    case EV_MAP_RECIPROCAL: return 1 / x;
    case EV_MAP_ABS: return fabs(x);
    case EV_MAP_RELU: return x > 0 ? x : 0;
    case EV_MAP_GELU: return x * normal_below(x);
    case EV_MAP_SILU: return x * sigmoid(x);
    case EV_MAP_SIGMOID: return sigmoid(x);
    case EV_MAP_TANH: return tanh(x);
    case EV_MAP_SOFTPLUS: return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
    case EV_MAP_CLIP: return x < a ? a : x > b ? b : x;
    case EV_MAP_AFFINE: return a * x + b;
    default: return pow(x, a);
  }
}

static double slope(ev_map_kind f, double x, double a, double b) {
  switch (f) {
    case EV_MAP_NEG: return -1;
    case EV_MAP_EXP: return exp(x);
    case EV_MAP_LOG: return 1 / x;
    case EV_MAP_SQRT: return 0.5 / sqrt(x);
    case EV_MAP_SQUARE: return 2 * x;
    case EV_MAP_RECIPROCAL: return -1 / (x * x);
    case EV_MAP_ABS: return x > 0 ? 1 : x < 0 ? -1 : 0;
    case EV_MAP_RELU: return x > 0 ? 1 : 0;
    case EV_MAP_GELU: return normal_below(x) + x * exp(-x * x / 2) / sqrt(2 * 3.14159265358979323846);
    case EV_MAP_SILU: return sigmoid(x) * (1 + x * sigmoid(-x));
    case EV_MAP_SIGMOID: return sigmoid(x) * sigmoid(-x);
    case EV_MAP_TANH: return 1 / (cosh(x) * cosh(x));
    case EV_MAP_SOFTPLUS: return sigmoid(x);
    case EV_MAP_CLIP: return x < a || x > b ? 0 : 1;
    case EV_MAP_AFFINE: return a;
    default: return a == 0 ? 0 : a * pow(x, a - 1);
  }
}

typedef struct exactness {
  const char *name;
  double low, high;         /* where it is tried */
  double ulps, absolute;    /* an error within either will do */
  double slope_relative, slope_absolute;
  bool of_value;            /* the slope looks at f(x) */
} exactness;

static const exactness exact[EV_MAP_KINDS] = {
    [EV_MAP_NEG] = {"neg", -1e4, 1e4, 0, 0, 0, 0, false},
    [EV_MAP_EXP] = {"exp", -104, 88.7, 1.5, 0, 3e-7, 1e-44, true},
    [EV_MAP_LOG] = {"log", 1e-44, 1e30, 1.5, 0, 1e-7, 0, false},
    [EV_MAP_SQRT] = {"sqrt", 1e-20, 1e4, 0.51, 0, 3e-7, 0, true},
    [EV_MAP_SQUARE] = {"square", -1e4, 1e4, 0.51, 0, 1e-7, 0, false},
    [EV_MAP_RECIPROCAL] = {"reciprocal", 1e-8, 1e4, 0.51, 0, 3e-7, 0, false},
    [EV_MAP_ABS] = {"abs", -1e4, 1e4, 0, 0, 0, 0, false},
    [EV_MAP_RELU] = {"relu", -1e4, 1e4, 0, 0, 0, 0, true},
    [EV_MAP_GELU] = {"gelu", -20, 20, 3, 1e-6, 0, 1e-6, false}, /* its left tail ends in the rounding of 1 − Φ, as elsewhere */
    [EV_MAP_SILU] = {"silu", -80, 80, 4, 0, 1e-6, 1e-7, false},
    [EV_MAP_SIGMOID] = {"sigmoid", -86, 80, 3, 0, 1e-6, 1e-7, true},
    [EV_MAP_TANH] = {"tanh", -20, 20, 6, 0, 1e-6, 7e-7, true},
    [EV_MAP_SOFTPLUS] = {"softplus", -86, 1e4, 3, 0, 1e-6, 0, false},
    [EV_MAP_CLIP] = {"clip", -3, 3, 0, 0, 0, 0, false},
    [EV_MAP_AFFINE] = {"affine", -1e4, 1e4, 0, 1e-3, 0, 0, false}, /* where a x and b cancel, relative to them */
    [EV_MAP_POWER] = {"power", 1e-3, 1e3, 2, 0, 1e-6, 0, false},
};

static void functions_are_exact_to_a_few_units_in_the_last_place(void **s) {
  (void)s;
  enum { N = 60001 };
  static float x[N], y[N], g[N], d[N];
  FOR_SETS {
    for (ev_map_kind f = 0; f < EV_MAP_KINDS; f++) {
      const exactness *e = &exact[f];
      const double a = f == EV_MAP_POWER ? 1.7 : f == EV_MAP_CLIP ? -0.75 : 2.5, b = 1.25;
      for (size_t i = 0; i < N; i++) { /* half evenly, half by magnitude */
        double share = (double)(i / 2) / (N / 2), most = e->high > -e->low ? e->high : -e->low;
        double size = exp(log(1e-44 > e->low && e->low > 0 ? 1e-44 : e->low > 0 ? e->low : 1e-12) * (1 - share) + log(most) * share);
        double v = i % 2 ? e->low + (e->high - e->low) * share : i % 4 || e->low >= 0 ? size : -size;
        x[i] = (float)(v < e->low ? e->low : v > e->high ? e->high : v);
        g[i] = 1;
      }
      ev_map_apply(y, x, f, (float)a, (float)b, N);
      ev_map_back(d, g, e->of_value ? y : x, f, (float)a, (float)b, false, N);
      double worst = 0, worst_slope = 0;
      float at = 0, slope_at = 0;
      for (size_t i = 0; i < N; i++) {
        double want = value(f, x[i], (float)a, b), unit = nextafterf(fabsf((float)want), INFINITY) - fabsf((float)want), off = fabs(y[i] - want);
        if (off > e->absolute && off / unit > worst) worst = off / unit, at = x[i];
        double want_slope = slope(f, x[i], (float)a, b);
        off = fabs(d[i] - want_slope) - e->slope_absolute - e->slope_relative * fabs(want_slope);
        if (off > worst_slope && fabs(want_slope) < 3e38) worst_slope = off, slope_at = x[i];
      }
      if (getenv("EVECTION_SHOW")) printf("%-8s %-10s %.3f ulp at %.9g\n", sets[set], e->name, worst, (double)at);
      if (!(worst <= e->ulps)) fail_msg("%s on %s: off by %.2f units in the last place at %.9g", e->name, sets[set], worst, (double)at);
      if (worst_slope > 0) fail_msg("%s on %s: the slope at %.9g is off", e->name, sets[set], (double)slope_at);
    }
  }
}

static float one(ev_map_kind f, float x) {
  float y;
  ev_map_apply(&y, &x, f, 0, 1, 1);
  return y;
}

static void strange_numbers_give_what_the_limit_is(void **s) {
  (void)s;
  FOR_SETS {
    for (ev_map_kind f = 0; f < EV_MAP_POWER; f++) /* 0 x + 1 is no test, but NaN it stays */
      if (!isnan(one(f, NAN))) fail_msg("%s of NaN on %s is %g", exact[f].name, sets[set], (double)one(f, NAN));
    assert_true(one(EV_MAP_EXP, -INFINITY) == 0 && one(EV_MAP_EXP, INFINITY) == INFINITY && one(EV_MAP_EXP, 1e30f) == INFINITY && one(EV_MAP_EXP, -1e30f) == 0);
    assert_true(one(EV_MAP_EXP, 0) == 1 && one(EV_MAP_EXP, 88.8f) == INFINITY && one(EV_MAP_EXP, -104.5f) == 0);
    assert_true(one(EV_MAP_LOG, 0) == -INFINITY && one(EV_MAP_LOG, -0.0f) == -INFINITY && isnan(one(EV_MAP_LOG, -1)) && isnan(one(EV_MAP_LOG, -INFINITY)));
    assert_true(one(EV_MAP_LOG, INFINITY) == INFINITY && one(EV_MAP_LOG, 1) == 0);
    assert_true(one(EV_MAP_SQRT, INFINITY) == INFINITY && one(EV_MAP_SQRT, 0) == 0 && isnan(one(EV_MAP_SQRT, -1)));
    assert_true(one(EV_MAP_TANH, INFINITY) == 1 && one(EV_MAP_TANH, -INFINITY) == -1 && one(EV_MAP_TANH, 1e-30f) == 1e-30f);
    assert_true(one(EV_MAP_SIGMOID, INFINITY) == 1 && one(EV_MAP_SIGMOID, -INFINITY) == 0 && one(EV_MAP_SIGMOID, -1e30f) == 0 && one(EV_MAP_SIGMOID, 0) == 0.5f);
    assert_true(one(EV_MAP_SOFTPLUS, INFINITY) == INFINITY && one(EV_MAP_SOFTPLUS, -INFINITY) == 0 && one(EV_MAP_SOFTPLUS, 1e30f) == 1e30f);
    assert_true(one(EV_MAP_GELU, INFINITY) == INFINITY && one(EV_MAP_SILU, INFINITY) == INFINITY && fabsf(one(EV_MAP_GELU, -1e30f)) == 0 && fabsf(one(EV_MAP_SILU, -1e30f)) == 0);
    float most[3] = {NAN, 1, NAN}, with[3] = {1, NAN, NAN}, out[3];
    ev_plane x = {most, 0, 1}, y = {with, 0, 1};
    ev_zip(out, 0, &x, &y, EV_ZIP_MAX, false, 1, 3);
    assert_true(isnan(out[0]) && isnan(out[1]) && isnan(out[2]));
    ev_zip(out, 0, &x, &y, EV_ZIP_MIN, false, 1, 3);
    assert_true(isnan(out[0]) && isnan(out[1]) && isnan(out[2]));
  }
}

static void an_element_does_not_depend_on_where_it_stands(void **s) {
  (void)s;
  enum { N = 70 };
  float x[N + 3], g[N + 3], out[N + 4], d[N + 4], alone;
  fill(x, N + 3, 1);
  fill(g, N + 3, 2);
  for (size_t i = 0; i < N + 3; i++) x[i] = fabsf(x[i]) + 0.01f;
  FOR_SETS for (ev_map_kind f = 0; f < EV_MAP_KINDS; f++)
    for (size_t n = 0; n <= N; n++)
      for (size_t shift = 0; shift < 3; shift++) {
        out[n + shift] = d[n + shift] = 77;
        for (size_t i = 0; i < n; i++) d[shift + i] = g[i];
        ev_map_apply(out + shift, x + shift, f, 0.6f, 1.4f, n);
        ev_map_back(d + shift, g + shift, x + shift, f, 0.6f, 1.4f, true, n);
        for (size_t i = 0; i < n; i++) {
          ev_map_apply(&alone, x + shift + i, f, 0.6f, 1.4f, 1);
          if (memcmp(&alone, out + shift + i, 4) != 0) fail_msg("%s on %s: element %zu of %zu has other bits alone", exact[f].name, sets[set], i, n);
          alone = g[i];
          ev_map_back(&alone, g + shift + i, x + shift + i, f, 0.6f, 1.4f, true, 1);
          if (memcmp(&alone, d + shift + i, 4) != 0) fail_msg("%s on %s: the gradient of element %zu of %zu has other bits alone", exact[f].name, sets[set], i, n);
        }
        assert_true(out[n + shift] == 77 && d[n + shift] == 77); /* nothing behind the end is touched */
      }
}

/* ---- Functions of two ---------------------------------------------------------------------------------------------*/
static double pair(ev_zip_kind f, double x, double y) {
  switch (f) {
    case EV_ZIP_ADD: return x + y;
    case EV_ZIP_SUB: return x - y;
    case EV_ZIP_MUL: return x * y;
    case EV_ZIP_DIV: return x / y;
    case EV_ZIP_MAX: return x > y ? x : y;
    default: return x < y ? x : y;
  }
}

static double pair_slope(ev_zip_kind f, unsigned side, double x, double y) {
  double tie = x == y ? 0.5 : 0, larger = x > y ? 1 : tie;
  switch (f) {
    case EV_ZIP_ADD: return 1;
    case EV_ZIP_SUB: return side ? -1 : 1;
    case EV_ZIP_MUL: return side ? x : y;
    case EV_ZIP_DIV: return side ? -x / (y * y) : 1 / y;
    case EV_ZIP_MAX: return side ? 1 - larger : larger;
    default: return side ? larger : 1 - larger;
  }
}

static void planes_agree_with_doubles(void **s) {
  (void)s;
  enum { ROWS = 5, MOST = 83 };
  static float x[ROWS * MOST], y[ROWS * MOST], g[ROWS * MOST], out[ROWS * MOST + 1];
  static double sum[ROWS * MOST], size[ROWS * MOST];
  fill(x, ROWS * MOST, 3);
  fill(y, ROWS * MOST, 4);
  fill(g, ROWS * MOST, 5);
  for (size_t i = 0; i < ROWS * MOST; i += 3) y[i] = x[i]; /* some are equal */
  const size_t widths[] = {1, 2, 3, 7, 16, 31, 64, 83};
  FOR_SETS for (ev_zip_kind f = 0; f < EV_ZIP_KINDS; f++)
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
      for (unsigned way = 0; way < 64; way++) {
        size_t cols = widths[w];
        bool add = way & 1;
        ev_plane px = {x, way & 2 ? cols : 0, way & 4 ? 1 : 0}, py = {y, way & 8 ? cols : 0, way & 16 ? 1 : 0};
        for (size_t i = 0; i <= ROWS * cols; i++) out[i] = 0.5f;
        ev_zip(out, cols, &px, &py, f, add, ROWS, cols);
        assert_true(out[ROWS * cols] == 0.5f);
        for (size_t r = 0; r < ROWS; r++)
          for (size_t c = 0; c < cols; c++) {
            double want = pair(f, x[r * px.row + c * px.step], y[r * py.row + c * py.step]) + (add ? 0.5 : 0), got = out[r * cols + c];
            if (!(fabs(got - want) <= 2e-7 * (fabs(want) + add))) fail_msg("%s: function %d of (%zu, %zu) gives %.9g, not %.9g", sets[set], (int)f, r, c, got, want);
          }
        unsigned side = way >> 5;
        for (unsigned target = 0; target < 4; target++) { /* a target with and without rows and columns of its own */
          size_t row = target & 1 ? (target & 2 ? cols : 1) : 0, step = target & 2 ? 1 : 0, n = (target & 1 ? ROWS : 1) * (target & 2 ? cols : 1);
          for (size_t i = 0; i <= n; i++) out[i] = 0.5f, sum[i < n ? i : 0] = add ? 0.5 : 0, size[i < n ? i : 0] = add;
          ev_zip_back(out, row, step, g, cols, &px, &py, f, side, add, ROWS, cols);
          assert_true(out[n] == 0.5f);
          for (size_t r = 0; r < ROWS; r++)
            for (size_t c = 0; c < cols; c++) {
              double d = g[r * cols + c] * pair_slope(f, side, x[r * px.row + c * px.step], y[r * py.row + c * py.step]);
              sum[r * row + c * step] += d, size[r * row + c * step] += fabs(d);
            }
          for (size_t i = 0; i < n; i++)
            if (!(fabs(out[i] - sum[i]) <= 1e-6 * size[i])) fail_msg("%s: gradient %u of function %d, target %u, width %zu: %.9g, not %.9g", sets[set], side, (int)f, target, cols, (double)out[i], sum[i]);
        }
      }
}

/* ---- Rows ---------------------------------------------------------------------------------------------------------*/
#define NEAR(got, want, size)                                                                                             \
  do {                                                                                                                    \
    if (!(fabs((got) - (want)) <= 2e-6 * (size) + 1e-7)) fail_msg("%s, %zu columns: %.9g, not %.9g (line %d)", sets[set], n, (double)(got), (double)(want), __LINE__); \
  } while (0)

static void rows_agree_with_doubles(void **s) {
  (void)s;
  enum { R = 3, MOST = 2500 };
  static float x[R * MOST], g[R * MOST], y[R * MOST], d[R * MOST], gain[MOST], bias[MOST], d_gain[MOST], d_bias[MOST], per_row[2 * R];
  const size_t widths[] = {1, 2, 3, 8, 15, 16, 17, 31, 33, 64, 100, 1023, 1024, 1040, 2500};
  fill(g, R * MOST, 7);
  fill(gain, MOST, 8);
  fill(bias, MOST, 9);
  FOR_SETS for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
    for (int add = 0; add < 2; add++) {
      size_t n = widths[w];
      fill(x, R * MOST, 6 + w);
      double before = add ? 0.25 : 0;
#define AGAIN for (size_t i = 0; i < R * n; i++) d[i] = 0.25f
      ev_softmax_rows(y, x, R, n);
      AGAIN;
      ev_softmax_back(d, g, y, add, R, n);
      for (size_t r = 0; r < R; r++) {
        double sum = 0, along = 0;
        for (size_t i = 0; i < n; i++) sum += exp(x[r * n + i]);
        for (size_t i = 0; i < n; i++) along += exp(x[r * n + i]) / sum * g[r * n + i];
        for (size_t i = 0; i < n; i++) {
          double p = exp(x[r * n + i]) / sum;
          NEAR(y[r * n + i], p, p);
          NEAR(d[r * n + i], p * (g[r * n + i] - along) + before, 1);
        }
      }
      ev_log_softmax_rows(y, x, R, n);
      AGAIN;
      ev_log_softmax_back(d, g, y, add, R, n);
      ev_logsumexp_rows(per_row, x, R, n);
      for (size_t r = 0; r < R; r++) {
        double sum = 0, g_sum = 0, g_size = 0;
        for (size_t i = 0; i < n; i++) sum += exp(x[r * n + i]), g_sum += g[r * n + i], g_size += fabs(g[r * n + i]);
        NEAR(per_row[r], log(sum), fabs(log(sum)) + 1);
        for (size_t i = 0; i < n; i++) {
          NEAR(y[r * n + i], x[r * n + i] - log(sum), 1 + fabs(log(sum)));
          NEAR(d[r * n + i], g[r * n + i] - exp(x[r * n + i]) / sum * g_sum + before, 1 + g_size * exp(x[r * n + i]) / sum);
        }
      }
      AGAIN;
      ev_logsumexp_back(d, g, x, per_row, add, R, n);
      for (size_t i = 0; i < R * n; i++) NEAR(d[i], g[i / n] * exp(x[i] - per_row[i / n]) + before, 1);
      ev_max_rows(per_row, x, R, n);
      for (size_t r = 0; r < R; r++) {
        float most = -INFINITY;
        for (size_t i = 0; i < n; i++) most = x[r * n + i] > most ? x[r * n + i] : most;
        assert_true(per_row[r] == most);
      }
      x[n - 1] = per_row[0]; /* twice in the first row */
      AGAIN;
      ev_max_back(d, g, x, per_row, add, R, n);
      for (size_t r = 0; r < R; r++) {
        bool found = false;
        for (size_t i = 0; i < n; i++) {
          bool first = !found && x[r * n + i] == per_row[r];
          found = found || first;
          assert_true(d[r * n + i] == (float)(before + (first ? (double)g[r] : 0)));
        }
      }
      for (size_t i = 0; i < n; i++) x[n * (R - 1) + i] *= 1e-4f; /* the last row is shorter than epsilon, if it is not too long */
      const double epsilon = 0.01;
      ev_normalise(y, per_row, x, (float)epsilon, R, n);
      AGAIN;
      ev_normalise_back(d, g, y, per_row, add, R, n);
      for (size_t r = 0; r < R; r++) {
        double square = 0, along = 0;
        for (size_t i = 0; i < n; i++) square += (double)x[r * n + i] * x[r * n + i], along += (double)x[r * n + i] * g[r * n + i];
        double norm = sqrt(square), by = norm > (float)epsilon ? norm : (float)epsilon;
        for (size_t i = 0; i < n; i++) {
          NEAR(y[r * n + i], x[r * n + i] / by, 1);
          NEAR(d[r * n + i], (g[r * n + i] - (norm > (float)epsilon ? x[r * n + i] * along / square : 0)) / by + before, 1 + fabs(g[r * n + i]) / by);
        }
      }
      fill(x, R * MOST, 6 + w);
      ev_layer_norm(y, per_row, x, gain, bias, 0.1f, R, n);
      AGAIN;
      for (size_t i = 0; i < n; i++) d_gain[i] = d_bias[i] = 0.5f;
      ev_layer_norm_back(d, d_gain, d_bias, g, x, per_row, gain, add, R, n);
      static double to_gain[MOST], to_bias[MOST];
      for (size_t i = 0; i < n; i++) to_gain[i] = to_bias[i] = 0.5;
      for (size_t r = 0; r < R; r++) {
        double mean = 0, square = 0, sum = 0, along = 0;
        for (size_t i = 0; i < n; i++) mean += x[r * n + i] / (double)n;
        for (size_t i = 0; i < n; i++) square += (x[r * n + i] - mean) * (x[r * n + i] - mean) / (double)n;
        double by = 1 / sqrt(square + (double)0.1f);
        for (size_t i = 0; i < n; i++) sum += (double)g[r * n + i] * gain[i] / (double)n, along += (double)g[r * n + i] * gain[i] * (x[r * n + i] - mean) * by / (double)n;
        for (size_t i = 0; i < n; i++) {
          double unit = (x[r * n + i] - mean) * by;
          NEAR(y[r * n + i], unit * gain[i] + bias[i], 5);
          NEAR(d[r * n + i], by * (g[r * n + i] * (double)gain[i] - sum - unit * along) + before, 20);
          to_gain[i] += g[r * n + i] * unit, to_bias[i] += g[r * n + i];
        }
      }
      for (size_t i = 0; i < n; i++) {
        NEAR(d_gain[i], to_gain[i], 10);
        NEAR(d_bias[i], to_bias[i], 10);
      }
    }
}

static void rows_of_infinities_and_of_nothing(void **s) {
  (void)s;
  FOR_SETS for (size_t n = 1; n < 40; n++) {
    float x[40], y[40], out[1];
    for (size_t i = 0; i < n; i++) x[i] = -INFINITY;
    ev_logsumexp_rows(out, x, 1, n);
    assert_true(out[0] == -INFINITY);
    ev_logsumexp_back(y, (const float[]){2}, x, out, false, 1, n);
    for (size_t i = 0; i < n; i++) assert_true(y[i] == 0);
    ev_softmax_rows(y, x, 1, n);
    assert_true(isnan(y[0]) && isnan(y[n - 1]));
    x[n / 2] = 3;
    ev_softmax_rows(y, x, 1, n);
    for (size_t i = 0; i < n; i++) assert_true(y[i] == (i == n / 2 ? 1 : 0));
    ev_logsumexp_rows(out, x, 1, n);
    assert_true(out[0] == 3);
    ev_max_rows(out, x, 1, n);
    assert_true(out[0] == 3);
    x[n - 1] = NAN;
    ev_logsumexp_rows(out, x, 1, n);
    assert_true(isnan(out[0]));
    ev_max_rows(out, x, 1, n);
    assert_true(isnan(out[0]));
    ev_softmax_rows(y, x, 1, n);
    assert_true(isnan(y[0]) && isnan(y[n - 1]));
    x[n - 1] = INFINITY;
    ev_logsumexp_rows(out, x, 1, n);
    assert_true(out[0] == INFINITY);
  }
  float out[1] = {7};
  ev_logsumexp_rows(out, NULL, 1, 0);
  assert_true(out[0] == -INFINITY);
  ev_max_rows(out, NULL, 1, 0);
  assert_true(out[0] == -INFINITY);
}

static void sparse_rows_sum_their_entries(void **s) {
  (void)s;
  enum { ROWS = 9, COLS = 40, D = 150, N = 90 };
  static float x[COLS * D], out[ROWS * D + 1], values[N];
  uint64_t ptr[ROWS + 1] = {0, 3, 3, 4, 30, 31, 60, 61, 61, N};
  uint32_t idx[N];
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  fill(x, COLS * D, 11);
  fill(values, N, 12);
  for (size_t e = 0; e < N; e++) idx[e] = ev_rng_below(&r, COLS);
  FOR_SETS for (size_t d = 1; d <= D; d = d < 20 ? d + 1 : d + 13)
    for (int way = 0; way < 4; way++) {
      const float *v = way & 1 ? values : NULL;
      size_t n = d;
      for (size_t i = 0; i <= ROWS * d; i++) out[i] = 0.5f;
      ev_sparse_rows(out, ptr, idx, v, x, ROWS, 1, ROWS, d, way & 2);
      for (size_t i = 0; i < ROWS * d; i++) {
        double sum = way & 2 ? 0.5 : 0, size = 1;
        for (uint64_t e = ptr[i / d]; e < ptr[i / d + 1]; e++) sum += (v ? v[e] : 1) * (double)x[idx[e] * d + i % d], size += fabs((v ? v[e] : 1) * x[idx[e] * d + i % d]);
        NEAR(out[i], i < d ? 0.5 : sum, size); /* row 0 was not asked for */
      }
      assert_true(out[ROWS * d] == 0.5f);
    }
}

static void dropout_keeps_its_share_and_does_not_depend_on_the_machine(void **s) {
  (void)s;
  enum { N = 200000 };
  static float x[N], y[N], first[N];
  for (size_t i = 0; i < N; i++) x[i] = 1 + (float)(i % 7);
  bool have = false;
  FOR_SETS {
    size_t kept = 0, together = 0;
    ev_dropout(y, x, 12345, 0, 0.3f, false, N);
    for (size_t i = 0; i < N; i++) {
      assert_true(y[i] == 0 || fabsf(y[i] - x[i] / 0.7f) < 1e-5f);
      kept += y[i] != 0;
      together += i > 0 && y[i] != 0 && y[i - 1] != 0;
    }
    assert_true(fabs((double)kept / N - 0.7) < 0.006 && fabs((double)together / N - 0.49) < 0.006); /* five standard errors and more */
    if (!have) memcpy(first, y, sizeof y);
    for (size_t i = 0; i < N; i++) assert_true((first[i] == 0) == (y[i] == 0));
    have = true;
    float part[50]; /* the same numbers from the middle */
    ev_dropout(part, x + 777, 12345, 777, 0.3f, false, 50);
    assert_memory_equal(part, y + 777, sizeof part);
    size_t agree = 0;
    ev_dropout(y, x, 12345 + (1ull << 40), 0, 0.3f, false, N); /* another seed, in its upper half */
    for (size_t i = 0; i < N; i++) agree += (first[i] == 0) == (y[i] == 0);
    assert_true(fabs((double)agree / N - 0.58) < 0.006);
    ev_dropout(y, x, 1, 0, 0, false, N);
    assert_memory_equal(y, x, sizeof y);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(functions_are_exact_to_a_few_units_in_the_last_place),
      cmocka_unit_test(strange_numbers_give_what_the_limit_is),
      cmocka_unit_test(an_element_does_not_depend_on_where_it_stands),
      cmocka_unit_test(planes_agree_with_doubles),
      cmocka_unit_test(rows_agree_with_doubles),
      cmocka_unit_test(rows_of_infinities_and_of_nothing),
      cmocka_unit_test(sparse_rows_sum_their_entries),
      cmocka_unit_test(dropout_keeps_its_share_and_does_not_depend_on_the_machine),
  };
  return RUN(tests);
}
