/* reward_clicks.c - areas and log loss against their definitions, pair by pair; intervals against users resampled naively. */
#include <math.h>

#include "reward/reward.h"
#include "support.h"

enum { MOST = 600, USERS = 25 };

typedef struct world {
  uint32_t user[MOST];
  float label[MOST], logit[MOST], other[MOST];
  ev_clicks a, b;
} world;

static void make(world *w, uint64_t seed, size_t n, size_t n_users) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  for (size_t i = 0; i < n; i++) {
    w->user[i] = 1000 + 7 * ev_rng_below(&r, (uint32_t)n_users); /* any numbers, in any order */
    double taste = (double)(w->user[i] % 5) / 3 - 0.7, x = ev_rng_normal(&r);
    w->label[i] = ev_rng_f64(&r) < 1 / (1 + exp(-taste - x));
    w->logit[i] = (float)(round(4 * (x + 0.5 * ev_rng_normal(&r))) / 4); /* many equals */
    w->other[i] = (float)(taste + x + 0.3 * ev_rng_normal(&r));
  }
  w->a = (ev_clicks){n, w->user, w->label, w->logit};
  w->b = (ev_clicks){n, w->user, w->label, w->other};
}

/* Area of the rows whose user is `only` (or all), each counted times[row] times; NaN without both labels. */
static double pairs(const ev_clicks *c, int64_t only, const unsigned *times) {
  double right = 0, all = 0;
  for (size_t i = 0; i < c->n; i++)
    for (size_t j = 0; j < c->n; j++) {
      if (!(c->label[i] > 0) || c->label[j] > 0 || (only >= 0 && (c->user[i] != only || c->user[j] != only))) continue;
      double weight = times != NULL ? (double)times[i] * times[j] : 1;
      all += weight;
      right += weight * (c->logit[i] > c->logit[j] ? 1 : c->logit[i] == c->logit[j] ? 0.5 : 0);
    }
  return all > 0 ? right / all : NAN;
}

static size_t distinct(const ev_clicks *c, uint32_t *users) { /* ascending */
  size_t n = 0;
  for (size_t i = 0; i < c->n; i++) {
    size_t at = 0;
    while (at < n && users[at] != c->user[i]) at++;
    if (at == n) users[n++] = c->user[i];
  }
  for (size_t i = 1; i < n; i++)
    for (size_t j = i; j > 0 && users[j - 1] > users[j]; j--) {
      uint32_t swap = users[j];
      users[j] = users[j - 1];
      users[j - 1] = swap;
    }
  return n;
}

/* The definitions, with the users as often as they were drawn (NULL: once). */
static void define(double out[EV_CLICK_METRICS], const ev_clicks *c, const uint32_t *users, size_t n_users, const unsigned *drawn) {
  unsigned times[MOST];
  double loss = 0, rows = 0, areas = 0, of_areas = 0;
  for (size_t i = 0; i < c->n; i++) {
    size_t u = 0;
    while (users[u] != c->user[i]) u++;
    times[i] = drawn != NULL ? drawn[u] : 1;
    double p = 1 / (1 + exp(-(double)c->logit[i]));
    loss -= times[i] * log(c->label[i] > 0 ? p : 1 - p);
    rows += times[i];
  }
  for (size_t u = 0; u < n_users; u++) {
    double own = pairs(c, users[u], NULL), n = 0, weight = drawn != NULL ? drawn[u] : 1;
    for (size_t i = 0; i < c->n; i++) n += c->user[i] == users[u];
    if (isnan(own)) continue;
    areas += weight * n * own;
    of_areas += weight * n;
  }
  out[EV_CLICK_AUC] = pairs(c, -1, times);
  out[EV_CLICK_GAUC] = of_areas > 0 ? areas / of_areas : NAN;
  out[EV_CLICK_LOG_LOSS] = loss / rows;
}

static void metrics_are_their_definitions(void **state) {
  (void)state;
  static world w;
  static const char *const names[] = {"auc", "gauc", "log_loss"};
  for (uint64_t seed = 0; seed < 40; seed++) {
    make(&w, seed, 20 + 7 * seed, 1 + seed % USERS);
    uint32_t users[USERS];
    double expected[EV_CLICK_METRICS];
    ev_metric m[EV_CLICK_METRICS];
    define(expected, &w.a, users, distinct(&w.a, users), NULL);
    assert_int_equal(ev_click_measure(m, &w.a, 0, 0.95, 1), EV_OK);
    for (int k = 0; k < EV_CLICK_METRICS; k++) {
      assert_string_equal(m[k].name, names[k]);
      if (!(fabs(m[k].value - expected[k]) < 1e-9 || (isnan(m[k].value) && isnan(expected[k])))) fail_msg("seed %d, %s: %g, %g expected", (int)seed, names[k], m[k].value, expected[k]);
      assert_true(isnan(m[k].value) || (m[k].low == m[k].value && m[k].high == m[k].value));
    }
  }
  const uint32_t user[] = {1, 1, 2, 2}; /* by hand */
  const float label[] = {0, 1, 0, 1}, logit[] = {0, 2, 3, 3};
  ev_metric m[EV_CLICK_METRICS];
  assert_int_equal(ev_click_measure(m, &(ev_clicks){4, user, label, logit}, 0, 0.95, 1), EV_OK);
  assert_true(fabs(m[EV_CLICK_AUC].value - 2.5 / 4) < 1e-12 && fabs(m[EV_CLICK_GAUC].value - 0.75) < 1e-12);
  const float sure[] = {-1000, 1000, -1000, 1000}, wrong[] = {1000, -1000, -1000, 1000}; /* no logit is too large for its loss */
  assert_int_equal(ev_click_measure(m, &(ev_clicks){4, user, label, sure}, 0, 0.95, 1), EV_OK);
  assert_true(m[EV_CLICK_LOG_LOSS].value == 0 && m[EV_CLICK_AUC].value == 1);
  assert_int_equal(ev_click_measure(m, &(ev_clicks){4, user, label, wrong}, 0, 0.95, 1), EV_OK);
  assert_true(fabs(m[EV_CLICK_LOG_LOSS].value - 500) < 1e-9);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double quantile(double *x, size_t n, double q) { /* linear interpolation */
  qsort(x, n, sizeof *x, by_value);
  double at = q * (double)(n - 1);
  size_t low = (size_t)floor(at), high = low + 1 < n ? low + 1 : low;
  return x[low] + (at - (double)low) * (x[high] - x[low]);
}

static void intervals_are_those_of_users_drawn_again(void **state) {
  (void)state;
  enum { RESAMPLES = 60 };
  static world w;
  static double a[EV_CLICK_METRICS][RESAMPLES], d[EV_CLICK_METRICS][RESAMPLES];
  make(&w, 3, 220, USERS);
  uint32_t users[USERS];
  size_t n_users = distinct(&w.a, users);
  for (unsigned b = 0; b < RESAMPLES; b++) {
    ev_rng r;
    unsigned drawn[USERS] = {0};
    double of_a[EV_CLICK_METRICS], of_b[EV_CLICK_METRICS];
    ev_rng_seed(&r, 9, b + 1); /* resample b draws from stream b + 1 */
    for (size_t i = 0; i < n_users; i++) drawn[ev_rng_below(&r, (uint32_t)n_users)]++;
    define(of_a, &w.a, users, n_users, drawn);
    define(of_b, &w.b, users, n_users, drawn);
    for (int m = 0; m < EV_CLICK_METRICS; m++) a[m][b] = of_a[m], d[m][b] = of_b[m] - of_a[m];
  }
  ev_metric m[EV_CLICK_METRICS];
  ev_difference difference[EV_CLICK_METRICS];
  assert_int_equal(ev_click_measure(m, &w.a, RESAMPLES, 0.9, 9), EV_OK);
  assert_int_equal(ev_click_compare(difference, &w.a, &w.b, RESAMPLES, 0.9, 9), EV_OK);
  for (int k = 0; k < EV_CLICK_METRICS; k++) {
    size_t below = 0, above = 0;
    for (int b = 0; b < RESAMPLES; b++) below += d[k][b] <= 0, above += d[k][b] >= 0;
    double p = fmax(fmin(2.0 * (double)(below < above ? below : above) / RESAMPLES, 1), 1.0 / (RESAMPLES + 1));
    assert_true(fabs(m[k].low - quantile(a[k], RESAMPLES, 0.05)) < 1e-9 && fabs(m[k].high - quantile(a[k], RESAMPLES, 0.95)) < 1e-9);
    assert_true(fabs(difference[k].low - quantile(d[k], RESAMPLES, 0.05)) < 1e-9 && fabs(difference[k].high - quantile(d[k], RESAMPLES, 0.95)) < 1e-9);
    assert_true(fabs(difference[k].p - p) < 1e-12 && m[k].low < m[k].value && m[k].value < m[k].high);
  }
  assert_true(difference[EV_CLICK_AUC].value > 0 && difference[EV_CLICK_LOG_LOSS].value < 0); /* the second knows more */
  assert_int_equal(ev_click_compare(difference, &w.a, &w.a, RESAMPLES, 0.9, 9), EV_OK);
  for (int k = 0; k < EV_CLICK_METRICS; k++) assert_true(difference[k].value == 0 && difference[k].low == 0 && difference[k].high == 0 && difference[k].p == 1);
}

static void threads_change_nothing(void **state) {
  (void)state;
  static world w;
  ev_metric one[EV_CLICK_METRICS] = {0}, four[EV_CLICK_METRICS] = {0};
  make(&w, 5, MOST, USERS);
  ev_threads_set(1);
  assert_int_equal(ev_click_measure(one, &w.a, 300, 0.95, 2), EV_OK);
  ev_threads_set(4);
  assert_int_equal(ev_click_measure(four, &w.a, 300, 0.95, 2), EV_OK);
  ev_threads_set(0);
  for (int k = 0; k < EV_CLICK_METRICS; k++) assert_true(one[k].value == four[k].value && one[k].low == four[k].low && one[k].high == four[k].high);
}

static void rows_that_say_nothing_are_refused(void **state) {
  (void)state;
  static world w, v;
  ev_metric m[EV_CLICK_METRICS];
  ev_difference d[EV_CLICK_METRICS];
  make(&w, 1, 50, 5);
  w.a.n = 0;
  assert_int_equal(ev_click_measure(m, &w.a, 10, 0.95, 1), EV_EINVAL);
  w.a.n = 50;
  w.logit[7] = NAN;
  assert_int_equal(ev_click_measure(m, &w.a, 10, 0.95, 1), EV_EINVAL);
  w.logit[7] = INFINITY; /* sure of itself, but a number */
  assert_int_equal(ev_click_measure(m, &w.a, 10, 0.95, 1), EV_OK);
  assert_int_equal(ev_click_measure(m, &w.a, 10, 1, 1), EV_EINVAL);
  v = w;
  v.a = (ev_clicks){50, v.user, v.label, v.logit};
  v.label[3] = 1 - v.label[3];
  assert_int_equal(ev_click_compare(d, &w.a, &v.a, 10, 0.95, 1), EV_EINVAL);
  v.label[3] = w.label[3], v.user[0]++;
  assert_int_equal(ev_click_compare(d, &w.a, &v.a, 10, 0.95, 1), EV_EINVAL);
  v.user[0]--, v.a.n--;
  assert_int_equal(ev_click_compare(d, &w.a, &v.a, 10, 0.95, 1), EV_EINVAL);
  v.a.n++;
  assert_int_equal(ev_click_compare(d, &w.a, &v.a, 10, 0.95, 1), EV_OK);
  assert_int_equal(ev_click_compare(d, &w.a, &v.a, 0, 0.95, 1), EV_EINVAL);
  for (int one = 0; one < 2; one++) {
    for (int i = 0; i < 50; i++) w.label[i] = (float)one;
    assert_int_equal(ev_click_measure(m, &w.a, 10, 0.95, 1), EV_EINVAL);
  }
}

static void a_resample_with_one_label_has_no_area(void **state) {
  (void)state;
  const uint32_t user[] = {1, 1, 2, 2}; /* a quarter of the resamples have the first user only, who clicked all */
  const float label[] = {1, 1, 0, 0}, logit[] = {1, 2, 0, 3};
  ev_metric m[EV_CLICK_METRICS];
  assert_int_equal(ev_click_measure(m, &(ev_clicks){4, user, label, logit}, 200, 0.95, 1), EV_OK);
  assert_true(m[EV_CLICK_AUC].value == 0.5 && m[EV_CLICK_AUC].low == 0.5 && m[EV_CLICK_AUC].high == 0.5);
  assert_true(isnan(m[EV_CLICK_GAUC].value)); /* no user has both */
  assert_true(m[EV_CLICK_LOG_LOSS].low < m[EV_CLICK_LOG_LOSS].value);
}

static ev_status work(const world *w) {
  ev_metric m[EV_CLICK_METRICS];
  ev_difference d[EV_CLICK_METRICS];
  EV_TRY(ev_click_measure(m, &w->a, 20, 0.95, 1));
  return ev_click_compare(d, &w->a, &w->b, 20, 0.95, 1);
}

static void clicks_survive_faults(void **state) {
  (void)state;
  static world w;
  make(&w, 2, 60, 6);
  ev_threads_set(1); /* faults are planted in the calling thread */
  ASSERT_SURVIVES_FAULTS(work(&w), );
  ev_threads_set(0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(metrics_are_their_definitions), cmocka_unit_test(intervals_are_those_of_users_drawn_again),
      cmocka_unit_test(threads_change_nothing), cmocka_unit_test(rows_that_say_nothing_are_refused),
      cmocka_unit_test(a_resample_with_one_label_has_no_area), cmocka_unit_test(clicks_survive_faults),
  };
  return RUN(tests);
}
