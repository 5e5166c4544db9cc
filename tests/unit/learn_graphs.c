/* learn_graphs.c - graph filters, transitions and sparse linear models against their formulas in doubles. */
#include "learn_world.h"

/* ---- graph_filter --------------------------------------------------------------------------------------------------*/
/* P of the formula, its largest eigenvalue 1. */
static double *filter_matrix(const world *w, const ev_graph_filter_options *o) {
  size_t n = w->n_items;
  double *p = square(n), *x = ev_alloc(n, sizeof *x), *y = ev_alloc(n, sizeof *y), largest = 0;
  const ev_csr *m = &w->v->by_user;
  for (size_t u = 0; u < w->n_users; u++)
    for (uint64_t a = m->ptr[u]; a < m->ptr[u + 1]; a++)
      for (uint64_t b = m->ptr[u]; b < m->ptr[u + 1]; b++)
        p[m->idx[a] * n + m->idx[b]] += pow(degree(m, u), -2 * (double)o->user_power) * pow(degree(&w->v->by_item, m->idx[a]) * degree(&w->v->by_item, m->idx[b]), -(double)o->item_power);
  for (size_t i = 0; i < n; i++) x[i] = 1;
  for (int round = 0; round < 300; round++) { /* power iteration */
    double length = 0;
    for (size_t i = 0; i < n; i++) {
      y[i] = 0;
      for (size_t j = 0; j < n; j++) y[i] += p[i * n + j] * x[j];
      length += y[i] * y[i];
    }
    largest = sqrt(length);
    for (size_t i = 0; i < n; i++) x[i] = y[i] / largest;
  }
  for (size_t i = 0; i < n * n; i++) p[i] /= largest;
  ev_free(x);
  ev_free(y);
  return p;
}

static void multiply(double *out, const double *y, const double *p, size_t n_users, size_t n) { /* y P, P symmetric */
  for (size_t u = 0; u < n_users; u++)
    for (size_t i = 0; i < n; i++) {
      double sum = 0;
      for (size_t j = 0; j < n; j++) sum += p[i * n + j] * y[u * n + j];
      out[u * n + i] = sum;
    }
}

/* Eigenvalues of p above `bound`, by the signs of the pivots of p − bound I. */
static size_t above(const double *p, size_t n, double bound) {
  double *a = square(n);
  size_t positive = 0;
  memcpy(a, p, n * n * sizeof *a);
  for (size_t i = 0; i < n; i++) a[i * n + i] -= bound;
  for (size_t k = 0; k < n; k++) {
    positive += a[k * n + k] > 0;
    for (size_t i = k + 1; i < n; i++) {
      double factor = a[i * n + k] / a[k * n + k];
      for (size_t j = k + 1; j < n && factor != 0; j++) a[i * n + j] -= factor * a[k * n + j];
    }
  }
  ev_free(a);
  return positive;
}

/* The vectors in the file are the k leading eigenvectors of P. σ of each is returned. */
static double *check_vectors(const char *path, const double *p, size_t n, size_t k, double **v) {
  ev_pack *pack;
  ev_array a;
  assert_int_equal(ev_pack_open(&pack, path), EV_OK);
  assert_true(ev_pack_find(pack, "v", &a) && a.rows == n && a.cols == k);
  double *sigma = ev_alloc(k, sizeof *sigma);
  *v = ev_alloc(n, k * sizeof **v);
  for (size_t i = 0; i < n * k; i++) (*v)[i] = ((const float *)a.data)[i];
  ev_pack_close(pack);
  for (size_t c = 0; c < k; c++) {
    double value = 0, off = 0;
    for (int pass = 0; pass < 2; pass++) /* first vᵀPv, then |Pv − vᵀPv v| */
      for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++) sum += p[i * n + j] * (*v)[j * k + c];
        if (pass == 0) value += sum * (*v)[i * k + c];
        else off += pow(sum - value * (*v)[i * k + c], 2);
      }
    if (!(sqrt(off) < 2e-4)) fail_msg("vector %zu: off by %g", c, sqrt(off));
    sigma[c] = sqrt(value);
    for (size_t b = 0; b <= c; b++) {
      double dot = 0;
      for (size_t i = 0; i < n; i++) dot += (*v)[i * k + b] * (*v)[i * k + c];
      assert_true(fabs(dot - (b == c)) < 1e-5);
    }
  }
  assert_true(above(p, n, sigma[k - 1] * sigma[k - 1] - 1e-4) >= k && above(p, n, sigma[k - 1] * sigma[k - 1] + 1e-4) < k);
  return sigma;
}

static double *filtered(const world *w, const ev_graph_filter_options *o, const double *p, const double *v, const double *sigma) {
  size_t n = w->n_items, all = w->n_users * n, k = o->n_dims;
  double *y = ev_zalloc(all, sizeof *y), *z = ev_alloc(all, sizeof *z), *low = ev_zalloc(all, sizeof *low), *sum = ev_alloc(all, sizeof *sum);
  const ev_csr *m = &w->v->by_user;
  for (size_t u = 0; u < w->n_users; u++) {
    for (uint64_t e = m->ptr[u]; e < m->ptr[u + 1]; e++) y[u * n + m->idx[e]] = 1;
    for (size_t c = 0; c < k; c++) {
      double q = 0;
      for (uint64_t e = m->ptr[u]; e < m->ptr[u + 1]; e++) q += pow(degree(&w->v->by_item, m->idx[e]), -(double)o->low_pass_power) * v[m->idx[e] * k + c];
      q *= (double)o->low_pass * pow(sigma[c] / sigma[0], (double)o->singular_power);
      for (size_t i = 0; i < n; i++)
        if (degree(&w->v->by_item, i) > 0) low[u * n + i] += q * v[i * k + c] * pow(degree(&w->v->by_item, i), (double)o->low_pass_power);
    }
  }
  for (unsigned s = 0; s < o->blur_steps; s++) {
    double h = (double)o->blur_time / o->blur_steps;
    multiply(z, y, p, w->n_users, n);
    for (size_t i = 0; i < all; i++) y[i] += h * (z[i] - y[i]);
  }
  for (size_t i = 0; i < all && !o->late; i++) y[i] += low[i];
  for (unsigned s = 0; s < o->sharpen_steps; s++) { /* y Σ_j (−hP)^j / j! */
    double h = (double)o->sharpen_time / o->sharpen_steps;
    memcpy(sum, y, all * sizeof *y);
    for (unsigned j = 1; j <= o->sharpen_order; j++) {
      multiply(z, y, p, w->n_users, n);
      for (size_t i = 0; i < all; i++) y[i] = -h / j * z[i], sum[i] += y[i];
    }
    memcpy(y, sum, all * sizeof *y);
  }
  for (size_t i = 0; i < all; i++) {
    double touched = degree(&w->v->by_item, i % n);
    if (o->late) y[i] += low[i];
    y[i] *= touched > 0 ? pow(touched, (double)o->item_power_out) : 0;
  }
  ev_free(z);
  ev_free(low);
  ev_free(sum);
  return y;
}

static void graph_filter_is_its_formula(void **s) {
  (void)s;
  static const ev_graph_filter_options options[] = {
      {.n_dims = 24, .user_power = 0.5f, .item_power = 0.5f, .low_pass = 0.3f, .low_pass_power = 0.5f, .blur_time = 1, .blur_steps = 1, .sharpen_order = 4}, /* GF-CF */
      {.n_dims = 24, .user_power = 0.5f, .item_power = 0.5f, .low_pass = 0.2f, .low_pass_power = 0.5f, .blur_time = 1, .blur_steps = 1, .sharpen_time = 2.5f,
       .sharpen_steps = 1, .sharpen_order = 4}, /* BSPM, early merge */
      {.n_dims = 9, .user_power = 0.3f, .item_power = 0.6f, .low_pass = 0.5f, .low_pass_power = 0.2f, .singular_power = 1.5f, .blur_time = 0.7f, .blur_steps = 2,
       .sharpen_time = 1.2f, .sharpen_steps = 2, .sharpen_order = 1, .late = true, .item_power_out = -0.2f},
      {.n_dims = 0, .user_power = 0.4f, .item_power = 0.5f, .low_pass = 0.3f, .blur_time = 1, .blur_steps = 1, .sharpen_time = 1, .sharpen_steps = 1, .sharpen_order = 2},
  };
  static const size_t n_items[] = {600, 600, 300, 300}; /* above and below what is solved whole */
  for (size_t t = 0; t < sizeof options / sizeof *options; t++) {
    ev_graph_filter_options o = options[t];
    world w;
    double *v;
    o.tolerance = 1e-5f;
    o.seed = 1;
    open_world(&w, 200, n_items[t]);
    double *p = filter_matrix(&w, &o);
    assert_int_equal(ev_fit_graph_filter(in_folder("m"), w.v, &o, NULL), EV_OK);
    double *sigma = check_vectors(in_folder("m"), p, w.n_items, o.n_dims > 0 ? o.n_dims : 1, &v);
    double *scores = filtered(&w, &o, p, v, sigma);
    check_model(&w, in_folder("m"), scores, false);
    void *blocks[] = {p, v, sigma, scores};
    for (int i = 0; i < 4; i++) ev_free(blocks[i]);
    close_world(&w);
  }
}

/* As many requests as make several blocks, in an order of their own, and by few: whatever stands beside a request, it gets
 * the same answer. A history that no user of the fit had is a stranger with a history. */
static void a_request_gets_its_answer_whatever_is_asked_beside_it(void **s) {
  (void)s;
  enum { K = 10, MANY = 333 };
  ev_graph_filter_options o = {.n_dims = 16, .user_power = 0.5f, .item_power = 0.5f, .low_pass = 0.3f, .low_pass_power = 0.5f, .blur_time = 1, .blur_steps = 1,
                               .sharpen_time = 2, .sharpen_steps = 1, .sharpen_order = 4, .tolerance = 1e-4f, .seed = 1};
  world w;
  ev_model *m;
  open_world(&w, 240, 300);
  assert_int_equal(ev_fit_graph_filter(in_folder("m"), w.v, &o, NULL), EV_OK);
  assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
  uint32_t history[MANY * 4], user[MANY], ids[MANY * K], few[MANY * K];
  uint64_t ptr[MANY + 1] = {0};
  float scores[MANY * K], other[MANY * K];
  ev_rng r;
  ev_rng_seed(&r, 3, 0);
  for (size_t i = 0; i < MANY; i++) {
    user[i] = EV_NONE;
    ptr[i + 1] = ptr[i] + i % 4; /* every fourth brings nothing */
    for (uint64_t h = ptr[i]; h < ptr[i + 1]; h++) history[h] = ev_rng_below(&r, (uint32_t)w.n_items);
  }
  assert_int_equal(ev_model_recall(m, &(ev_requests){MANY, user, ptr, history, NULL, NULL}, K, ids, scores), EV_OK);
  for (size_t step = 1; step <= 40; step += 13)
    for (size_t i = 0; i < MANY; i += step) {
      size_t n = MANY - i < step ? MANY - i : step;
      assert_int_equal(ev_model_recall(m, &(ev_requests){n, user + i, ptr + i, history, NULL, NULL}, K, few + i * K, other + i * K), EV_OK);
      for (size_t c = i * K; c < (i + n) * K; c++) {
        if (ptr[c / K + 1] == ptr[c / K]) assert_true(ids[c] == EV_NONE && few[c] == EV_NONE);
        else assert_true(ids[c] != EV_NONE && fabsf(scores[c] - other[c]) <= 1e-5f * fabsf(scores[c / K * K]));
      }
    }
  ev_model_close(m);
  close_world(&w);
}

/* ---- markov --------------------------------------------------------------------------------------------------------*/
static void markov_counts_what_followed_what(void **s) {
  (void)s;
  static const ev_markov_options options[] = {
      {.neighbours = 5000, .window = 1, .decay = 1, .backward = 0, .from_power = 1, .to_power = 0, .shrink = 0, .user_power = 0, .half_life = 0},
      {.neighbours = 5000, .window = 3, .decay = 0.6f, .backward = 0.4f, .from_power = 0.5f, .to_power = 0.3f, .shrink = 2, .user_power = 0.5f, .half_life = 1.5f},
      {.neighbours = 5000, .window = 0, .decay = 0.9f, .backward = 1, .from_power = 0.2f, .to_power = 0.7f, .shrink = 1, .user_power = 0, .half_life = 4},
  };
  world w;
  open_world(&w, 150, 120);
  size_t n = w.n_items;
  const ev_csr *m = &w.v->by_user;
  for (int t = 0; t < 3; t++) {
    const ev_markov_options *o = &options[t];
    double *c = square(n);
    for (size_t u = 0; u < w.n_users; u++)
      for (uint64_t a = m->ptr[u]; a < m->ptr[u + 1]; a++)
        for (uint64_t b = a + 1; b < m->ptr[u + 1]; b++) {
          if (o->window > 0 && b - a > o->window) continue;
          double weight = pow((double)o->decay, (double)(b - a) - 1) * pow(degree(m, u), -(double)o->user_power);
          c[m->idx[a] * n + m->idx[b]] += weight;
          c[m->idx[b] * n + m->idx[a]] += weight * (double)o->backward;
        }
    for (size_t i = 0; i < n; i++)
      for (size_t j = 0; j < n; j++)
        if (c[i * n + j] != 0) c[i * n + j] /= pow(degree(&w.v->by_item, i), (double)o->from_power) * pow(degree(&w.v->by_item, j), (double)o->to_power) + (double)o->shrink;
    double *scores = spread(&w, c, (double)o->half_life);
    assert_int_equal(ev_fit_markov(in_folder("m"), w.v, o, NULL), EV_OK);
    check_model(&w, in_folder("m"), scores, true);
    ev_free(c);
    ev_free(scores);
  }
  close_world(&w);
}

/* ---- slim ----------------------------------------------------------------------------------------------------------*/
/* The problem is strictly convex, so the weights are right when the gradient says so: of a weight above 0 it is −l1, below 0
 * +l1, and of a weight of 0 at most l1 to either side, or with weights that may not be negative at least −l1. */
static void slim_weights_are_optimal(void **s) {
  (void)s;
  static const ev_slim_options options[] = {
      {.l1 = 0.4f, .l2 = 2, .nonnegative = true, .candidates = 0, .user_power = 0, .tolerance = 1e-5f},
      {.l1 = 0.4f, .l2 = 2, .nonnegative = false, .candidates = 0, .user_power = 0, .tolerance = 1e-5f},
      {.l1 = 0.05f, .l2 = 0.5f, .nonnegative = true, .candidates = 12, .user_power = 0.3f, .tolerance = 1e-5f},
      {.l1 = 0, .l2 = 5, .nonnegative = false, .candidates = 0, .user_power = 0, .tolerance = 1e-5f}, /* ridge */
  };
  world w;
  open_world(&w, 240, 200);
  size_t n = w.n_items;
  const ev_csr *m = &w.v->by_user;
  uint32_t *every = ev_alloc(n, sizeof *every);
  float *row = ev_alloc(n, sizeof *row);
  for (size_t i = 0; i < n; i++) every[i] = (uint32_t)i;
  for (int t = 0; t < 4; t++) {
    const ev_slim_options *o = &options[t];
    double *g = square(n), *b = square(n), l1 = (double)o->l1, worst = 0;
    size_t negative = 0, positive = 0;
    ev_model *model;
    for (size_t u = 0; u < w.n_users; u++)
      for (uint64_t x = m->ptr[u]; x < m->ptr[u + 1]; x++)
        for (uint64_t y = m->ptr[u]; y < m->ptr[u + 1]; y++) g[m->idx[x] * n + m->idx[y]] += pow(degree(m, u), -2 * (double)o->user_power);
    assert_int_equal(ev_fit_slim(in_folder("m"), w.v, o, NULL), EV_OK);
    assert_int_equal(ev_model_open(&model, in_folder("m")), EV_OK);
    for (size_t i = 0; i < n; i++) { /* what a history of one item scores is its row of weights */
      uint32_t history[] = {(uint32_t)i};
      uint64_t ptr[] = {0, 1};
      assert_int_equal(ev_model_score(model, &(ev_requests){1, NULL, ptr, history, NULL, NULL}, every, n, row), EV_OK);
      for (size_t j = 0; j < n; j++) b[i * n + j] = row[j];
    }
    ev_model_close(model);
    for (size_t j = 0; j < n; j++) {
      double largest = 0;
      size_t nearer, support = 0;
      assert_true(b[j * n + j] == 0);
      for (size_t i = 0; i < n; i++) largest = i != j ? fmax(largest, g[i * n + j]) : largest;
      for (size_t i = 0; i < n; i++) {
        double weight = b[i * n + j], gradient = (double)o->l2 * weight - g[i * n + j];
        if (i == j || g[i * n + i] == 0) continue;
        support += weight != 0;
        for (size_t k = 0; k < n; k++) gradient += g[i * n + k] * b[k * n + j];
        negative += weight < 0, positive += weight > 0;
        if (o->candidates > 0 && weight == 0) { /* only the nearest may have one */
          nearer = 0;
          for (size_t k = 0; k < n; k++) nearer += k != j && g[k * n + k] > 0 && g[k * n + j] / sqrt(g[k * n + k]) > g[i * n + j] / sqrt(g[i * n + i]) - 1e-6;
          if (nearer > o->candidates) continue; /* itself counted too */
        }
        double off = weight > 0 ? fabs(gradient + l1) : weight < 0 ? fabs(gradient - l1) : o->nonnegative ? fmax(0, -l1 - gradient) : fmax(0, fabs(gradient) - l1);
        worst = fmax(worst, off / fmax(largest, 1e-3));
      }
      if (o->candidates > 0) assert_true(support <= o->candidates);
    }
    if (!(worst < 2e-4)) fail_msg("settings %d: the gradient is off by %g", t, worst);
    assert_true(positive > n && (negative > 0) == !o->nonnegative);
    double *scores = spread(&w, b, 0);
    if (o->nonnegative) check_model(&w, in_folder("m"), scores, true);
    ev_free(scores);
    ev_free(g);
    ev_free(b);
  }
  assert_int_equal(ev_fit_slim(in_folder("none"), w.v, &(ev_slim_options){.l1 = 1, .l2 = 0, .tolerance = 1e-3f}, NULL), EV_EINVAL);
  assert_int_equal(ev_fit_slim(in_folder("none"), w.v, &(ev_slim_options){.l1 = -1, .l2 = 1, .tolerance = 1e-3f}, NULL), EV_EINVAL);
  assert_false(ev_file_exists(in_folder("none")));
  ev_free(every);
  ev_free(row);
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(graph_filter_is_its_formula), cmocka_unit_test(a_request_gets_its_answer_whatever_is_asked_beside_it),
      cmocka_unit_test(markov_counts_what_followed_what), cmocka_unit_test(slim_weights_are_optimal),
  };
  return RUN(tests);
}
