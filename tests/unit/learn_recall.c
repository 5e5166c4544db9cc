/* learn_recall.c - every recall model against its formula in doubles, in lists, alone and for given items. */
#include <math.h>

#include "learn_world.h"

/* ---- The models --------------------------------------------------------------------------------------------------*/
static double *knn_weights(const world *w, const ev_item_knn_options *o) {
  size_t n = w->n_items;
  double *c = square(n);
  const ev_csr *m = &w->v->by_user;
  for (size_t u = 0; u < w->n_users; u++)
    for (uint64_t a = m->ptr[u]; a < m->ptr[u + 1]; a++)
      for (uint64_t b = m->ptr[u]; b < m->ptr[u + 1]; b++)
        if (a != b) c[m->idx[a] * n + m->idx[b]] += pow(degree(m, u), -(double)o->user_power);
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++)
      if (c[i * n + j] != 0) c[i * n + j] /= pow(degree(&w->v->by_item, i) * degree(&w->v->by_item, j), (double)o->alpha) + o->shrink;
  return c;
}

static void item_knn_is_shrunk_cosine(void **s) {
  (void)s;
  static const ev_item_knn_options options[] = {{5000, 10, 0.5f, 0}, {5000, 1, 0.3f, 0.5f}};
  world w;
  open_world(&w, 240, many());
  for (int t = 0; t < 2; t++) {
    double *weights = knn_weights(&w, &options[t]), *scores = spread(&w, weights, 0);
    assert_int_equal(ev_fit_item_knn(in_folder("m"), w.v, &options[t], NULL), EV_OK);
    check_model(&w, in_folder("m"), scores, true);
    ev_free(weights);
    ev_free(scores);
  }
  close_world(&w);
}

static void only_the_largest_weights_are_kept(void **s) {
  (void)s;
  enum { KEEP = 9 };
  ev_item_knn_options o = {KEEP, 3, 0.5f, 0.2f};
  world w;
  open_world(&w, 240, 300);
  double *weights = knn_weights(&w, &o);
  assert_int_equal(ev_fit_item_knn(in_folder("m"), w.v, &o, NULL), EV_OK);
  ev_pack *p;
  ev_array ptr, idx, weight;
  assert_int_equal(ev_pack_open(&p, in_folder("m")), EV_OK);
  assert_true(ev_pack_find(p, "ptr", &ptr) && ev_pack_find(p, "idx", &idx) && ev_pack_find(p, "weight", &weight));
  for (size_t i = 0; i < w.n_items; i++) {
    double *row = weights + i * w.n_items, least = INFINITY;
    size_t positive = 0;
    for (size_t j = 0; j < w.n_items; j++) positive += row[j] > 0;
    uint64_t begin = ((const uint64_t *)ptr.data)[i], end = ((const uint64_t *)ptr.data)[i + 1];
    assert_int_equal(end - begin, positive < KEEP ? positive : KEEP);
    for (uint64_t e = begin; e < end; e++) {
      double *expected = &row[((const uint32_t *)idx.data)[e]];
      assert_true(*expected > 0 && fabs(((const float *)weight.data)[e] - *expected) < 1e-6);
      least = fmin(least, *expected);
      *expected = 0; /* none twice */
    }
    for (size_t j = 0; j < w.n_items; j++) assert_true(row[j] == 0 || row[j] <= least + 1e-6);
  }
  ev_pack_close(p);
  ev_free(weights);
  close_world(&w);
}

/* Cosine of the items' vectors of tokens: times it stands there × ln((1 + n) / (1 + items that have it))^idf_power. */
static double *content_weights(const world *w, bool brands_too, double idf_power) {
  enum { G = 0, H = 5, B = 12, ALL = 25, TOKENS = 26 };
  size_t n = w->n_items;
  double *f = ev_zalloc(n, TOKENS * sizeof *f), *c = square(n);
  for (size_t i = 0; i < n; i++) {
    size_t x = w->number[i];
    f[i * TOKENS + G + x % 5] = 2;
    f[i * TOKENS + H + x % 7] = 1;
    f[i * TOKENS + ALL] = 1;
    if (brands_too && x % 9 != 0) f[i * TOKENS + B + x % 13] = 1;
  }
  for (size_t t = 0; t < TOKENS; t++) {
    double having = 0;
    for (size_t i = 0; i < n; i++) having += f[i * TOKENS + t] > 0;
    for (size_t i = 0; i < n; i++) f[i * TOKENS + t] *= pow(log((1 + (double)n) / (1 + having)), idf_power);
  }
  for (size_t i = 0; i < n; i++) {
    double length = 0;
    for (size_t t = 0; t < TOKENS; t++) length += f[i * TOKENS + t] * f[i * TOKENS + t];
    for (size_t t = 0; t < TOKENS; t++) f[i * TOKENS + t] /= sqrt(length);
  }
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++)
      for (size_t t = 0; t < TOKENS && i != j; t++) c[i * n + j] += f[i * TOKENS + t] * f[j * TOKENS + t];
  ev_free(f);
  return c;
}

static void content_is_cosine_of_tfidf_and_knows_untouched_items(void **s) {
  (void)s;
  static const char *const genre[] = {"genre"}, *const absent[] = {"genre", "colour"};
  static const ev_content_options options[] = {{NULL, 0, 5000, 1, 0}, {genre, 1, 5000, 0.5f, 3}};
  world w;
  open_world(&w, 60, 200);
  for (int t = 0; t < 2; t++) {
    double *weights = content_weights(&w, t == 0, (double)options[t].idf_power), *scores = spread(&w, weights, (double)options[t].half_life);
    assert_int_equal(ev_fit_content(in_folder("m"), w.v, &options[t], NULL), EV_OK);
    check_model(&w, in_folder("m"), scores, true);
    ev_free(weights);
    ev_free(scores);
  }
  ev_content_options wrong = {absent, 2, 10, 1, 0};
  assert_int_equal(ev_fit_content(in_folder("none"), w.v, &wrong, NULL), EV_EINVAL);
  assert_false(ev_file_exists(in_folder("none")));
  close_world(&w);
}

/* EASE is the only B of zero diagonal for which (G + λI)(I − B) is diagonal: P diag(P)⁻¹ without taking an inverse. */
static void ease_solves_its_equations(void **s) {
  (void)s;
  static const ev_ease_options options[] = {{20, 0, 0, 0}, {2, 0.3f, 0.25f, 0.4f}};
  world w;
  open_world(&w, 240, many());
  size_t n = w.n_items;
  const ev_csr *m = &w.v->by_user;
  double *b = square(n), *g = square(n), *in = ev_alloc(n, sizeof *in), *out = ev_alloc(n, sizeof *out);
  float *row = ev_alloc(n, sizeof *row);
  uint32_t *every = ev_alloc(n, sizeof *every);
  for (size_t i = 0; i < n; i++) every[i] = (uint32_t)i;
  for (int t = 0; t < 2; t++) {
    const ev_ease_options *o = &options[t];
    ev_model *model;
    assert_int_equal(ev_fit_ease(in_folder("m"), w.v, o, NULL), EV_OK);
    assert_int_equal(ev_model_open(&model, in_folder("m")), EV_OK);
    for (size_t i = 0; i < n; i++) {
      double touched = degree(&w.v->by_item, i);
      in[i] = touched > 0 ? pow(touched, -(double)o->item_power_in) : 0;
      out[i] = touched > 0 ? pow(touched, (double)o->item_power_out) : 0;
    }
    memset(g, 0, n * n * sizeof *g);
    for (size_t u = 0; u < w.n_users; u++)
      for (uint64_t x = m->ptr[u]; x < m->ptr[u + 1]; x++)
        for (uint64_t y = m->ptr[u]; y < m->ptr[u + 1]; y++)
          g[m->idx[x] * n + m->idx[y]] += pow(degree(m, u), -2 * (double)o->user_power) * in[m->idx[x]] * in[m->idx[y]];
    for (size_t i = 0; i < n; i++) g[i * n + i] += (double)o->lambda;
    for (size_t i = 0; i < n; i++) { /* row i of what is scored with: in(i) B(i, ·) out(·) */
      uint32_t history[] = {(uint32_t)i};
      uint64_t ptr[] = {0, 1};
      assert_int_equal(ev_model_score(model, &(ev_requests){1, NULL, ptr, history, NULL, NULL}, every, n, row), EV_OK);
      for (size_t j = 0; j < n; j++) b[i * n + j] = row[j];
      assert_true(fabs(b[i * n + i]) < 1e-6);
    }
    ev_model_close(model);
    double *scores = spread(&w, b, 0);
    check_model(&w, in_folder("m"), scores, false);
    ev_free(scores);
    double worst = 0;
    for (size_t i = 0; i < n; i += 13) { /* (I − B)(j, k) for touched items; the others stand alone */
      for (size_t k = 0; k < n; k++) row[k] = 0;
      for (size_t k = 0; k < n; k++) {
        if (k == i || out[k] == 0) continue;
        double sum = g[i * n + k];
        for (size_t j = 0; j < n; j++)
          if (g[i * n + j] != 0 && in[j] > 0) sum -= g[i * n + j] * b[j * n + k] / (in[j] * out[k]);
        worst = fmax(worst, fabs(sum));
      }
    }
    if (!(worst < 1e-3 * (double)o->lambda)) fail_msg("settings %d: off the diagonal stands %g", t, worst);
  }
  close_world(&w);
  void *blocks[] = {b, g, in, out, row, every};
  for (int i = 0; i < 6; i++) ev_free(blocks[i]);
}

/* The vector of a user (or item) with n entries of the other side: the normal equations by elimination, in doubles. */
static void solve(double *x, const float *other, const double *gram, const uint32_t *entries, size_t n, size_t n_other, const ev_ials_options *o) {
  size_t d = o->n_dims;
  double a[16][17];
  double ridge = (double)o->regularization * pow((double)n + (double)o->unobserved_weight * (double)n_other, (double)o->frequency_power);
  for (size_t f = 0; f < d; f++) {
    for (size_t h = 0; h < d; h++) a[f][h] = gram[f * d + h] * (double)o->unobserved_weight + (f == h ? ridge : 0);
    a[f][d] = 0;
    for (size_t e = 0; e < n; e++) {
      const float *y = other + entries[e] * d;
      for (size_t h = 0; h < d; h++) a[f][h] += (double)y[f] * y[h];
      a[f][d] += y[f];
    }
  }
  for (size_t k = 0; k < d; k++)
    for (size_t f = 0; f < d; f++) {
      double factor = f == k ? 0 : a[f][k] / a[k][k];
      for (size_t h = k; h <= d && factor != 0; h++) a[f][h] -= factor * a[k][h];
    }
  for (size_t f = 0; f < d; f++) x[f] = n > 0 ? a[f][d] / a[f][f] : 0;
}

static double dot(const float *x, const float *y, size_t d) {
  double sum = 0;
  for (size_t f = 0; f < d; f++) sum += (double)x[f] * y[f];
  return sum;
}

/* The objective as learn.h writes it: every pair of user and item, and both sides' penalties. */
static double objective(const world *w, const float *user, const float *item, const ev_ials_options *o) {
  size_t d = o->n_dims;
  double sum = 0, a0 = (double)o->unobserved_weight, nu = (double)o->frequency_power;
  const ev_csr *m = &w->v->by_user;
  for (size_t u = 0; u < w->n_users; u++) {
    for (size_t i = 0; i < w->n_items; i++) sum += a0 * pow(dot(user + u * d, item + i * d, d), 2);
    for (uint64_t e = m->ptr[u]; e < m->ptr[u + 1]; e++) sum += pow(1 - dot(user + u * d, item + m->idx[e] * d, d), 2);
    sum += (double)o->regularization * pow(degree(m, u) + a0 * (double)w->n_items, nu) * dot(user + u * d, user + u * d, d);
  }
  for (size_t i = 0; i < w->n_items; i++)
    sum += (double)o->regularization * pow(degree(&w->v->by_item, i) + a0 * (double)w->n_users, nu) * dot(item + i * d, item + i * d, d);
  return sum;
}

static void ials_descends_to_its_half_steps_solution(void **s) {
  (void)s;
  enum { D = 8 };
  static const ev_ials_options settings[] = {{D, 0, 0.1f, 0.02f, 1, 0.1f, 5}, {D, 0, 0.5f, 0.5f, 0.4f, 0.3f, 6}};
  world w;
  open_world(&w, 240, many());
  double gram[D * D], *scores = ev_alloc(w.n_users, w.n_items * sizeof *scores);
  for (int t = 0; t < 2; t++) {
    ev_ials_options o = settings[t];
    double before = INFINITY;
    for (o.epochs = 1; o.epochs <= 6; o.epochs++) {
      ev_pack *p;
      ev_array user, item, made;
      assert_int_equal(ev_fit_ials(in_folder("m"), w.v, &o, NULL), EV_OK);
      assert_int_equal(ev_pack_open(&p, in_folder("m")), EV_OK);
      assert_true(ev_pack_find(p, "user", &user) && ev_pack_find(p, "item", &item) && ev_pack_find(p, "gram", &made));
      assert_true(user.rows == w.n_users && item.rows == w.n_items && user.cols == D && item.cols == D && made.rows == D && made.cols == D);
      double now = objective(&w, user.data, item.data, &o);
      if (!(now <= before * (1 + 1e-6))) fail_msg("epoch %u: the objective rises from %g to %g", o.epochs, before, now);
      before = now;
      const float *items = item.data, *users = user.data;
      const ev_csr *m = &w.v->by_user;
      memset(gram, 0, sizeof gram);
      for (size_t i = 0; i < w.n_items * D; i += D)
        for (size_t f = 0; f < D * D; f++) gram[f] += (double)items[i + f / D] * items[i + f % D];
      for (size_t f = 0; f < D * D; f++) assert_true(fabs(((const float *)made.data)[f] - gram[f]) < 1e-4 * (1 + fabs(gram[f])));
      for (size_t u = 0; u < w.n_users; u++) {
        double x[D];
        solve(x, items, gram, m->idx + m->ptr[u], m->ptr[u + 1] - m->ptr[u], w.n_items, &o);
        for (size_t f = 0; f < D; f++)
          if (!(fabs(x[f] - users[u * D + f]) < 1e-4)) fail_msg("epoch %u, user %zu: %g, %g expected", o.epochs, u, (double)users[u * D + f], x[f]);
        for (size_t i = 0; i < w.n_items; i++) {
          scores[u * w.n_items + i] = 0;
          for (size_t f = 0; f < D; f++) scores[u * w.n_items + i] += x[f] * items[i * D + f];
        }
      }
      ev_pack_close(p);
    }
    check_model(&w, in_folder("m"), scores, false);
  }
  ev_free(scores);
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(item_knn_is_shrunk_cosine), cmocka_unit_test(only_the_largest_weights_are_kept),
      cmocka_unit_test(content_is_cosine_of_tfidf_and_knows_untouched_items), cmocka_unit_test(ease_solves_its_equations),
      cmocka_unit_test(ials_descends_to_its_half_steps_solution),
  };
  return RUN(tests);
}
