/* reward_feed.c - the simulated feed: what it says is true happens that often; the same seed gives the same bits however sessions
 * are cut into calls; bad parameters and slates are named. */
#include <math.h>

#include "reward/reward.h"
#include "support.h"

static ev_feed_options small(void) {
  ev_feed_options o;
  ev_feed_defaults(&o);
  o.users = 60;
  o.items = 40;
  o.places = 5;
  return o;
}

static ev_feed *make(const ev_feed_options *o) {
  ev_feed *f;
  assert_int_equal(ev_feed_new(&f, o), EV_OK);
  return f;
}

/* Distinct items drawn with a generator of the test's own. */
static void random_slates(uint32_t *slates, size_t n, size_t places, uint32_t n_items, ev_rng *r) {
  for (size_t row = 0; row < n; row++)
    for (size_t p = 0; p < places; p++) {
      bool twice;
      do {
        slates[row * places + p] = ev_rng_below(r, n_items);
        twice = false;
        for (size_t q = 0; q < p; q++) twice |= slates[row * places + q] == slates[row * places + p];
      } while (twice);
    }
}

static double z_score(double seen, double expected, double variance) { return (seen - expected) / sqrt(variance); }

/* Over many sessions of a changing world, clicks at each place are as many as were expected; so are conversions. */
static void what_is_expected_happens_that_often(void **state) {
  (void)state;
  enum { BATCH = 50, ROUNDS = 800 };
  ev_feed_options o = small();
  o.leave = 0.5;
  o.click = 0;
  o.convert = 0.3;
  o.convert_days = 0;
  ev_feed *f = make(&o);
  ev_rng r;
  ev_rng_seed(&r, 1, 1);
  uint32_t users[BATCH], slates[BATCH * 5];
  uint8_t clicks[BATCH * 5];
  float expected[BATCH * 5];
  double seen[5] = {0}, wanted[5] = {0}, variance[5] = {0};
  for (int round = 0; round < ROUNDS; round++) {
    ev_feed_arrive(f, users, BATCH);
    random_slates(slates, BATCH, 5, 40, &r);
    assert_int_equal(ev_feed_step(f, users, slates, BATCH, clicks, expected), EV_OK);
    for (int i = 0; i < BATCH * 5; i++) seen[i % 5] += clicks[i], wanted[i % 5] += (double)expected[i], variance[i % 5] += (double)expected[i] * (1 - (double)expected[i]);
  }
  assert_true(ev_feed_sessions(f) == BATCH * ROUNDS && fabs(ev_feed_days(f) - BATCH * ROUNDS / 60.0) < 1e-9);
  for (int p = 0; p < 5; p++) assert_true(fabs(z_score(seen[p], wanted[p], variance[p])) < 4);
  assert_true(wanted[4] < 0.5 * wanted[0]);
  ev_feed_free(f);
}

/* A session asked about beforehand, then lived many times by copies of the feed that differ in nothing but the session's number. */
static void the_truth_of_a_slate_is_the_mean_of_what_happens(void **state) {
  (void)state;
  enum { TIMES = 40000 };
  ev_feed_options o = small();
  o.satiation = o.loyalty = o.item_days = 0; /* what happened does not change what will */
  o.visits = 1e6;
  o.click = -0.5;
  o.leave = 0.4;
  o.convert_days = 0;
  ev_feed *f = make(&o);
  uint32_t user = 7, slate[5] = {3, 9, EV_NONE, 20, 31};
  float p[5], worth, again[5];
  double clicks[5] = {0}, reward = 0, squares = 0;
  assert_int_equal(ev_feed_expect(f, &user, slate, 1, p, &worth), EV_OK);
  for (int i = 0; i < TIMES; i++) {
    uint8_t c[5];
    assert_int_equal(ev_feed_step(f, &user, slate, 1, c, again), EV_OK);
    double now = 0;
    ev_conversion due[8];
    for (int k = 0; k < 5; k++) clicks[k] += c[k], now += c[k];
    size_t n = ev_feed_due(f, due, 8);
    for (size_t k = 0; k < n; k++) assert_true(due[k].user == user && due[k].session == (uint64_t)i);
    now += o.convert_value * (double)n;
    reward += now;
    squares += now * now;
  }
  for (int k = 0; k < 5; k++) {
    if (slate[k] == EV_NONE) assert_true(p[k] == 0 && clicks[k] == 0);
    else assert_true(fabs(z_score(clicks[k], TIMES * (double)p[k], TIMES * (double)p[k] * (1 - (double)p[k]))) < 4);
    assert_true(fabsf(p[k] - again[k]) < 1e-3f); /* 0.7 days of drift later */
  }
  double mean = reward / TIMES;
  assert_true(fabs(mean - (double)worth) < 4 * sqrt((squares / TIMES - mean * mean) / TIMES));
  ev_feed_free(f);
}

static void users_come_as_often_as_their_weights_say(void **state) {
  (void)state;
  enum { N = 60000 };
  ev_feed_options o = small();
  o.loyalty = 0.9;
  ev_feed *f = make(&o);
  ev_rng r;
  ev_rng_seed(&r, 2, 1);
  uint32_t some[200], slates[200 * 5], *users = ev_alloc(N, 4);
  uint8_t clicks[200 * 5];
  ev_feed_arrive(f, some, 200);
  random_slates(slates, 200, 5, 40, &r);
  assert_int_equal(ev_feed_step(f, some, slates, 200, clicks, NULL), EV_OK); /* moods differ now */
  double weights[60], sum = 0, seen[60] = {0}, chi = 0;
  ev_feed_weights(f, weights);
  ev_feed_arrive(f, users, N);
  for (int i = 0; i < N; i++) seen[users[i]]++;
  for (int u = 0; u < 60; u++) sum += weights[u], chi += (seen[u] - N * weights[u]) * (seen[u] - N * weights[u]) / (N * weights[u]);
  assert_true(fabs(sum - 1) < 1e-9 && chi < 98.3); /* 0.1 % point of chi square with 59 degrees of freedom */
  ev_free(users);
  ev_feed_free(f);
}

/* Bytes of everything that came out of n sessions, `batch` at a time, slates chosen by what the user's number says. */
static uint64_t live(ev_feed *f, size_t n, size_t batch) {
  uint64_t sum = 14695981039346656037u;
  for (size_t done = 0; done < n; done += batch) {
    uint32_t users[64], slates[64 * 5];
    uint8_t clicks[64 * 5];
    float expected[64 * 5];
    ev_conversion due[64 * 5];
    for (size_t i = 0; i < batch; i++) {
      uint64_t session = ev_feed_sessions(f) + i;
      users[i] = (uint32_t)(session * 7 % 60);
      for (size_t p = 0; p < 5; p++) slates[i * 5 + p] = (uint32_t)((session * 3 + p * 8) % 40);
    }
    assert_int_equal(ev_feed_step(f, users, slates, batch, clicks, expected), EV_OK);
    for (size_t i = 0; i < batch * 5; i++) sum = (sum ^ clicks[i] ^ (uint64_t)(1e6f * expected[i]) << 1) * 1099511628211u;
    if ((done + batch) % 64 == 0) sum = (sum ^ ev_feed_due(f, due, 64 * 5)) * 1099511628211u;
  }
  return sum;
}

static void the_same_seed_gives_the_same_bits_however_it_is_cut(void **state) {
  (void)state;
  ev_feed_options o = small();
  o.item_days = 3;
  ev_feed *one = make(&o), *two = make(&o), *copy;
  uint64_t first = live(one, 1280, 64);
  assert_true(first == live(two, 1280, 1));
  assert_int_equal(ev_feed_copy(&copy, one), EV_OK);
  first = live(one, 640, 64);
  assert_true(first == live(copy, 640, 2));
  o.seed = 2;
  ev_feed *other = make(&o);
  assert_true(live(other, 1280, 64) != live(two, 1280, 64));
  uint32_t users[60], slates[60 * 5];
  float a[60 * 5], b[60 * 5], worth[60], again[60];
  ev_rng r;
  ev_rng_seed(&r, 3, 1);
  for (uint32_t u = 0; u < 60; u++) users[u] = u;
  random_slates(slates, 60, 5, 40, &r);
  ev_threads_set(1);
  assert_int_equal(ev_feed_expect(one, users, slates, 60, a, worth), EV_OK);
  ev_threads_set(0);
  assert_int_equal(ev_feed_expect(one, users, slates, 60, b, again), EV_OK);
  assert_memory_equal(a, b, sizeof a);
  assert_memory_equal(worth, again, sizeof worth);
  ev_feed *all[] = {one, two, copy, other};
  for (int i = 0; i < 4; i++) ev_feed_free(all[i]);
}

static float one_click(ev_feed *f, uint32_t user, uint32_t item) {
  uint32_t slate[5] = {item, EV_NONE, EV_NONE, EV_NONE, EV_NONE};
  float p[5];
  assert_int_equal(ev_feed_expect(f, &user, slate, 1, p, NULL), EV_OK);
  return p[0];
}

static void users_tire_rest_and_drift_and_items_die(void **state) {
  (void)state;
  ev_feed_options o = small();
  o.satiation = 2;
  o.satiation_days = 1;
  o.click = 3;
  o.drift = 0;
  o.item_days = 0;
  ev_feed *f = make(&o);
  uint32_t user = 3, slate[5] = {5, EV_NONE, EV_NONE, EV_NONE, EV_NONE};
  uint8_t clicks[5];
  float fresh = one_click(f, user, 5), before, least;
  for (int i = 0; i < 10; i++) assert_int_equal(ev_feed_step(f, &user, slate, 1, clicks, NULL), EV_OK);
  least = one_click(f, user, 5);
  assert_true(least < 0.5f * fresh);
  user = 4;
  slate[0] = EV_NONE;
  for (before = least; ev_feed_days(f) < 30; before = one_click(f, 3, 5)) assert_int_equal(ev_feed_step(f, &user, slate, 1, clicks, NULL), EV_OK);
  assert_true(before > 0.999f * fresh); /* thirty half-lives on; nothing else moves */
  uint32_t generation;
  double born;
  ev_feed_item(f, 5, &generation, &born);
  assert_true(generation == 0 && born < -1e9);
  ev_feed_free(f);
  o.item_days = 4;
  o.drift = 1;
  o.drift_days = 10;
  f = make(&o);
  unsigned moved = 0, died = 0;
  float then[60];
  for (uint32_t u = 0; u < 60; u++) then[u] = one_click(f, u, 1);
  while (ev_feed_days(f) < 8) assert_int_equal(ev_feed_step(f, &user, slate, 1, clicks, NULL), EV_OK);
  for (uint32_t u = 0; u < 60; u++) moved += fabsf(one_click(f, u, 1) - then[u]) > 0.01f;
  for (uint32_t i = 0; i < 40; i++) {
    ev_feed_item(f, i, &generation, &born);
    died += generation > 0;
    assert_true(born <= 8 && born > 8 - 6.001 && generation >= 1 && generation <= 4);
  }
  assert_true(moved > 40 && died == 40);
  ev_feed_free(f);
}

static void features_without_noise_are_what_is_liked(void **state) {
  (void)state;
  ev_feed_options o = small();
  o.satiation = o.freshness = 0;
  o.item_days = 0;
  ev_feed *f = make(&o);
  float users[60 * 8], items[40 * 8], appeal[40], noisy[60 * 8], again[60 * 8];
  ev_feed_features(f, 0, users, items, appeal);
  for (uint32_t u = 0; u < 60; u += 7)
    for (uint32_t i = 0; i < 40; i += 3) {
      double x = o.click + (double)appeal[i];
      for (int k = 0; k < 8; k++) x += (double)users[u * 8 + k] * (double)items[i * 8 + k];
      assert_true(fabs((double)one_click(f, u, i) - 1 / (1 + exp(-x))) < 1e-5);
    }
  ev_feed_features(f, 0.5, noisy, NULL, NULL);
  ev_feed_features(f, 0.5, again, NULL, NULL);
  assert_memory_equal(noisy, again, sizeof noisy);
  double squares = 0;
  for (int i = 0; i < 480; i++) squares += pow((double)noisy[i] - (double)users[i], 2) / 480;
  assert_true(squares > 0.2 && squares < 0.3);
  ev_feed_free(f);
}

static void conversions_come_once_in_their_order_and_late(void **state) {
  (void)state;
  ev_feed_options o = small();
  o.click = 5;
  o.convert = 1;
  o.convert_days = 2;
  o.leave = 0;
  ev_feed *f = make(&o);
  ev_rng r;
  ev_rng_seed(&r, 4, 1);
  uint32_t users[60], slates[60 * 5];
  uint8_t clicks[60 * 5];
  size_t n_clicks = 0, n_due = 0;
  double last = 0, delays = 0;
  for (int round = 0; round < 100; round++) {
    ev_conversion due[7];
    ev_feed_arrive(f, users, 60);
    random_slates(slates, 60, 5, 40, &r);
    assert_int_equal(ev_feed_step(f, users, slates, round < 40 ? 60 : 1, clicks, NULL), EV_OK);
    for (int i = 0; i < (round < 40 ? 300 : 5); i++) n_clicks += clicks[i];
    if (round == 99) while (ev_feed_days(f) < 120) {
      uint32_t nobody[5] = {EV_NONE, EV_NONE, EV_NONE, EV_NONE, EV_NONE};
      assert_int_equal(ev_feed_step(f, users, nobody, 1, clicks, NULL), EV_OK);
    }
    for (size_t n; (n = ev_feed_due(f, due, 7)) > 0; n_due += n)
      for (size_t i = 0; i < n; i++) {
        assert_true(due[i].days >= last && due[i].days <= ev_feed_days(f));
        last = due[i].days;
        delays += due[i].days - (double)due[i].session / 60;
      }
  }
  assert_int_equal(n_due, n_clicks);
  assert_true(n_clicks > 5000 && fabs(delays / (double)n_due - 2) < 4 * 2 / sqrt((double)n_due));
  ev_feed_free(f);
}

static void wrong_parameters_and_slates_are_named(void **state) {
  (void)state;
  ev_feed *f;
  for (size_t i = 0; ev_feed_parameter(i) != NULL; i++) {
    const ev_parameter *p = ev_feed_parameter(i);
    const double wrong[] = {NAN, p->low - 1, p->high * 2 + 1, p->low + 0.5};
    for (int k = 0; k < (p->whole ? 4 : 3); k++) {
      ev_feed_options o = small();
      *ev_parameter_of(&o, p) = wrong[k];
      assert_int_equal(ev_feed_new(&f, &o), EV_EINVAL);
      assert_non_null(strstr(ev_error(), p->name));
    }
  }
  ev_feed_options o = small();
  o.places = 41;
  assert_int_equal(ev_feed_new(&f, &o), EV_EINVAL);
  o = small();
  o.n_segments = 0;
  assert_int_equal(ev_feed_new(&f, &o), EV_EINVAL);
  o = small();
  o.segments[0].share = 0;
  assert_int_equal(ev_feed_new(&f, &o), EV_EINVAL);
  o = small();
  f = make(&o);
  uint32_t user = 60, slate[5] = {1, 2, 3, 4, 5};
  uint8_t clicks[5];
  float p[5];
  assert_int_equal(ev_feed_step(f, &user, slate, 1, clicks, NULL), EV_EINVAL);
  user = 0;
  slate[3] = 40;
  assert_int_equal(ev_feed_step(f, &user, slate, 1, clicks, NULL), EV_EINVAL);
  slate[3] = 2;
  assert_int_equal(ev_feed_expect(f, &user, slate, 1, p, NULL), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "item 2 twice"));
  assert_int_equal(ev_feed_sessions(f), 0);
  slate[3] = 4;
  ASSERT_SURVIVES_FAULTS(ev_feed_step(f, &user, slate, 1, clicks, NULL), );
  ev_feed *copy;
  ASSERT_SURVIVES_FAULTS(ev_feed_copy(&copy, f), ev_feed_free(copy));
  ev_feed_free(f);
  ASSERT_SURVIVES_FAULTS(ev_feed_new(&f, &o), ev_feed_free(f));
}

/* Slates of the policies that come with it: distinct, of the rows asked for, drawn as often as their propensities say. */
static void slates_are_drawn_as_often_as_their_propensities_say(void **state) {
  (void)state;
  enum { N = 60000, ITEMS = 6, PLACES = 2 };
  ev_feed_options o = small();
  o.items = ITEMS;
  o.places = PLACES;
  o.users = 3;
  o.dims = 2;
  ev_feed *f = make(&o);
  const float user[] = {1, 0, 0, 1, -1, 0.5f}, item[] = {0, 0, 1, 0, 0, 1, 1, 1, -1, 0, 0.5f, 0}, bias[] = {0, 0.5f, 0, 0, 0, 0};
  ev_feed_scores scores = {user, item, bias, 2};
  uint32_t *users = ev_alloc(N, 4), *slates = ev_alloc(N * PLACES, 4), *again = ev_alloc(N * PLACES, 4);
  float *propensity = ev_alloc(N * PLACES, sizeof(float)), *mask = ev_zalloc(N, sizeof(float));
  for (int i = 0; i < N; i++) users[i] = (uint32_t)i % 3;
  assert_int_equal(ev_feed_show_sampled(f, slates, propensity, users, N, &scores, 0.7f, 5, NULL), EV_OK);
  double seen[3][ITEMS][ITEMS] = {{{0}}};
  for (int i = 0; i < N; i++) seen[i % 3][slates[2 * i]][slates[2 * i + 1]]++;
  for (int u = 0; u < 3; u++) {
    double e[ITEMS], all = 0;
    for (int i = 0; i < ITEMS; i++) all += e[i] = exp((double)(user[2 * u] * item[2 * i] + user[2 * u + 1] * item[2 * i + 1] + bias[i]) / (double)0.7f);
    for (int a = 0; a < ITEMS; a++)
      for (int b = 0; b < ITEMS; b++) {
        double p = a == b ? 0 : e[a] / all * e[b] / (all - e[a]);
        assert_true(a == b ? seen[u][a][b] == 0 : fabs(z_score(seen[u][a][b], N / 3 * p, N / 3 * p * (1 - p))) < 4.5);
      }
    for (int i = u; i < 300; i += 3) {
      assert_true(fabs((double)propensity[2 * i] - e[slates[2 * i]] / all) < 1e-5);
      assert_true(fabs((double)propensity[2 * i + 1] - e[slates[2 * i + 1]] / (all - e[slates[2 * i]])) < 1e-5);
    }
  }
  assert_int_equal(ev_feed_show_random(f, slates, propensity, N, 9, NULL), EV_OK);
  double drawn[ITEMS][ITEMS] = {{0}}, chi = 0;
  for (int i = 0; i < N; i++) drawn[slates[2 * i]][slates[2 * i + 1]]++;
  for (int a = 0; a < ITEMS; a++)
    for (int b = 0; b < ITEMS; b++) chi += a == b ? drawn[a][b] : pow(drawn[a][b] - N / 30.0, 2) / (N / 30.0);
  assert_true(chi < 58.3 && propensity[0] == 1.0f / 6 && propensity[1] == 1.0f / 5); /* 0.1 % point, 29 degrees of freedom */
  memcpy(again, slates, N * PLACES * 4);
  mask[4] = 1;
  assert_int_equal(ev_feed_show_ranked(f, slates, users, N, &scores, mask), EV_OK);
  assert_true(slates[8] == 2 && slates[9] == 3); /* user 1 likes 2 and 3 alike: the lower number is first */
  again[8] = slates[8];
  again[9] = slates[9];
  assert_memory_equal(again, slates, N * PLACES * 4);
  float best[] = {1, 7, 3, 2, 5, 4};
  assert_int_equal(ev_feed_show_top(f, slates, 2, best, NULL), EV_OK);
  assert_true(slates[0] == 1 && slates[1] == 4 && slates[2] == 1 && slates[3] == 4);
  void *arrays[] = {users, slates, again, propensity, mask};
  for (int i = 0; i < 5; i++) ev_free(arrays[i]);
  ev_feed_free(f);
}

static void segments_are_as_large_and_as_they_are_said_to_be(void **state) {
  (void)state;
  ev_feed_options o = small();
  o.users = 5000;
  o.leave = o.repetition = 0;
  o.n_segments = 2;
  o.segments[1] = o.segments[0];
  strcpy(o.segments[1].name, "keen");
  o.segments[1].share = 3;
  o.segments[1].click = 2;
  o.segments[1].patience = 0;
  o.segments[1].activity = 4;
  ev_feed *f = make(&o);
  double n[2] = {0}, first[2] = {0}, last[2] = {0}, weights[5000], visits[2] = {0};
  ev_feed_weights(f, weights);
  for (uint32_t u = 0; u < 5000; u++) {
    uint32_t s = ev_feed_segment_of(f, u), slate[5] = {EV_NONE, EV_NONE, EV_NONE, EV_NONE, 1};
    float p[5];
    assert_int_equal(ev_feed_expect(f, &u, slate, 1, p, NULL), EV_OK);
    n[s]++;
    first[s] += (double)one_click(f, u, 1);
    last[s] += (double)p[4];
    visits[s] += weights[u];
  }
  assert_true(fabs(n[1] - 3750) < 4 * sqrt(5000 * 0.75 * 0.25));
  assert_true(first[1] / n[1] > 1.5 * first[0] / n[0]);                       /* two logits more */
  assert_true(fabs(last[0] / first[0] - pow(5, -0.7)) < 1e-4 && fabs(last[1] / first[1] - 1) < 1e-4); /* and everything is looked at */
  assert_true(fabs(visits[1] / n[1] / (visits[0] / n[0]) / 4 - 1) < 0.25);
  ev_feed_free(f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_expected_happens_that_often), cmocka_unit_test(the_truth_of_a_slate_is_the_mean_of_what_happens),
      cmocka_unit_test(users_come_as_often_as_their_weights_say), cmocka_unit_test(the_same_seed_gives_the_same_bits_however_it_is_cut),
      cmocka_unit_test(users_tire_rest_and_drift_and_items_die), cmocka_unit_test(features_without_noise_are_what_is_liked),
      cmocka_unit_test(conversions_come_once_in_their_order_and_late), cmocka_unit_test(wrong_parameters_and_slates_are_named),
      cmocka_unit_test(slates_are_drawn_as_often_as_their_propensities_say), cmocka_unit_test(segments_are_as_large_and_as_they_are_said_to_be),
  };
  return RUN(tests);
}
