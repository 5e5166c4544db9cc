/* learn_recall.c - every recall model against its formula in doubles, in lists, alone and for given items. */
#include <math.h>

#include "learn/learn.h"
#include "support.h"

/* ---- A small world: users like one of five groups; some items nobody touched, some users touched nothing --------*/
typedef struct world {
  ev_snapshot *s;
  ev_view *v; /* the training fold */
  size_t n_users, n_items;
  size_t *number; /* (n_items) of each item's id */
} world;

static size_t many(void) { return getenv("EVECTION_SLOW") != NULL ? 200 : 1100; } /* under valgrind: one tile of the matrix, not three */

enum { COLD_ITEMS = 12, STRANGERS = 2, LONG_HISTORY = 300 };

static void open_world(world *w, size_t n_users, size_t n_items) {
  ev_buf inter = {0}, items = {0}, users = {0};
  ev_rng r;
  ev_rng_seed(&r, 7, n_items);
  uint8_t *taken = ev_alloc(n_items, 1);
  ev_buf_printf(&inter, "user,item\n");
  for (size_t u = 0; u < n_users; u++) {
    size_t n = u == 0 && n_items > 2 * LONG_HISTORY ? 2 * LONG_HISTORY : 4 + ev_rng_below(&r, 20);
    memset(taken, 0, n_items);
    while (n > 0) {
      size_t i = ev_rng_below(&r, (uint32_t)n_items);
      if (taken[i] || (i % 5 != u % 5 && ev_rng_below(&r, 4) > 0)) continue;
      taken[i] = 1;
      ev_buf_printf(&inter, "u%zu,i%zu\n", u, i);
      n--;
    }
  }
  ev_buf_printf(&items, "item_id:token\tgenre:token_seq\tbrand:token\n");
  for (size_t i = 0; i < n_items + COLD_ITEMS; i++) { /* one genre stands twice, one is everywhere; every ninth has no brand */
    ev_buf_printf(&items, "i%zu\tg%zu h%zu g%zu all\t", i, i % 5, i % 7, i % 5);
    if (i % 9 != 0) ev_buf_printf(&items, "b%zu", i % 13);
    ev_buf_printf(&items, "\n");
  }
  ev_buf_printf(&users, "user_id:token\n");
  for (size_t u = 0; u < n_users + STRANGERS; u++) ev_buf_printf(&users, "u%zu\n", u);
  write_text(in_folder("w.csv"), inter.data, inter.len);
  write_text(in_folder("w.item"), items.data, items.len);
  write_text(in_folder("w.user"), users.data, users.len);
  const char *files[] = {in_folder("w.csv"), in_folder("w.item"), in_folder("w.user")};
  ev_import_options o;
  ev_import_defaults(&o);
  o.files = files;
  o.n_files = 3;
  o.split = EV_SPLIT_RATIO;
  assert_int_equal(ev_import(&o, in_folder("world")), EV_OK);
  assert_int_equal(ev_snapshot_open(&w->s, in_folder("world")), EV_OK);
  assert_int_equal(ev_view_new(&w->v, w->s, EV_TRAIN), EV_OK);
  w->n_users = ev_snapshot_n_users(w->s);
  w->n_items = ev_snapshot_n_items(w->s);
  assert_int_equal(w->n_users, n_users + STRANGERS);
  assert_true(w->n_items == n_items + COLD_ITEMS);
  w->number = ev_alloc(w->n_items, sizeof *w->number);
  for (size_t i = 0; i < w->n_items; i++) {
    size_t len;
    w->number[i] = strtoull(ev_snapshot_item_id(w->s, (uint32_t)i, &len) + 1, NULL, 10);
  }
  void *blocks[] = {taken, inter.data, items.data, users.data};
  for (int i = 0; i < 4; i++) ev_free(blocks[i]);
}

static void close_world(world *w) {
  ev_view_free(w->v);
  ev_snapshot_close(w->s);
  ev_free(w->number);
}

static double degree(const ev_csr *m, size_t row) { return (double)(m->ptr[row + 1] - m->ptr[row]); }
static double *square(size_t n) { return ev_zalloc(n, n * sizeof(double)); }
static ev_requests everybody(const world *w) {
  return (ev_requests){w->n_users, NULL, w->v->by_user.ptr, w->v->by_user.idx, w->v->by_user.ptr, w->v->seen};
}

/* score(u, j) = Σ_{i in history} decay(steps back) w(i, j) */
static double *spread(const world *w, const double *weights, double half_life) {
  double *out = ev_zalloc(w->n_users, w->n_items * sizeof *out);
  const ev_csr *m = &w->v->by_user;
  for (size_t u = 0; u < w->n_users; u++)
    for (uint64_t e = m->ptr[u]; e < m->ptr[u + 1]; e++) {
      double decay = half_life > 0 ? pow(2, -(double)(m->ptr[u + 1] - 1 - e) / half_life) : 1;
      for (size_t j = 0; j < w->n_items; j++) out[u * w->n_items + j] += decay * weights[m->idx[e] * w->n_items + j];
    }
  return out;
}

static int descending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

/* Every list holds the best of what the user has not seen, with the reference's scores; one request alone, and the scores of
 * given items, agree with it. sparse: an item of score 0 is not known to the model. */
static void check_model(const world *w, const char *path, const double *reference, bool sparse) {
  enum { K = 25 };
  size_t n = w->n_items;
  ev_model *m;
  assert_int_equal(ev_model_open(&m, path), EV_OK);
  assert_int_equal(ev_model_n_items(m), n);
  ev_requests all = everybody(w);
  uint32_t *ids = ev_alloc(w->n_users, K * sizeof *ids), *every = ev_alloc(n, sizeof *every), mine[K];
  float *scores = ev_alloc(w->n_users, K * sizeof *scores), *given = ev_alloc(n, sizeof *given), my_scores[K];
  double *best = ev_alloc(n, sizeof *best);
  for (size_t i = 0; i < n; i++) every[i] = (uint32_t)i;
  assert_int_equal(ev_model_recall(m, &all, K, ids, scores), EV_OK);
  for (size_t u = 0; u < w->n_users; u++) {
    const double *row = reference + u * n;
    double scale = 0;
    ev_requests one = {1, NULL, all.history_ptr + u, all.history, all.seen_ptr + u, all.seen};
    size_t open = 0;
    memcpy(best, row, n * sizeof *best);
    for (uint64_t e = all.seen_ptr[u]; e < all.seen_ptr[u + 1]; e++) best[all.seen[e]] = -INFINITY;
    if (degree(&w->v->by_user, u) == 0) /* nothing is known of a stranger */
      for (size_t i = 0; i < n; i++) best[i] = -INFINITY;
    for (size_t i = 0; i < n; i++) {
      if (sparse && best[i] <= 1e-12) best[i] = -INFINITY;
      open += best[i] > -INFINITY;
      scale = fmax(scale, fabs(row[i]));
    }
    double tolerance = 2e-5 * scale;
    assert_int_equal(ev_model_recall(m, &one, K, mine, my_scores), EV_OK);
    assert_int_equal(ev_model_score(m, &one, every, n, given), EV_OK);
    for (size_t i = 0; i < n; i++)
      if (!(fabs(given[i] - row[i]) <= tolerance)) fail_msg("user %zu: item %zu scores %g, %g expected", u, i, (double)given[i], row[i]);
    for (size_t k = 0; k < K && k < open; k++) { /* what is listed may be listed, and has its score */
      uint32_t i = ids[u * K + k], j = mine[k];
      if (i >= n || j >= n || !(best[i] > -INFINITY) || !(best[j] > -INFINITY)) fail_msg("user %zu: place %zu has %u, %u alone", u, k, i, j);
      assert_true(fabs(scores[u * K + k] - row[i]) <= tolerance && fabs(my_scores[k] - row[j]) <= tolerance);
      for (size_t other = 0; other < k; other++) assert_true(ids[u * K + other] != i && mine[other] != j);
    }
    qsort(best, n, sizeof *best, descending);
    for (size_t k = 0; k < K; k++) { /* and is as good as its place */
      uint32_t i = ids[u * K + k], j = mine[k];
      if (k < open) assert_true(fabs(row[i] - best[k]) <= 2 * tolerance && fabs(row[j] - best[k]) <= 2 * tolerance);
      else assert_true(i == EV_NONE && j == EV_NONE && scores[u * K + k] == -INFINITY && my_scores[k] == -INFINITY);
    }
  }
  ev_model_close(m);
  void *blocks[] = {ids, every, scores, given, best};
  for (int i = 0; i < 5; i++) ev_free(blocks[i]);
}

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
