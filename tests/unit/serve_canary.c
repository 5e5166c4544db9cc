/* serve_canary.c - a canary measures what its header says, decides no more wrongly than it says, stops at once where all fails, and
 * goes on from a file as if nothing had been. */
#include <math.h>
#include <pthread.h>

#include "../../runtime/serve/inside.h"
#include "support.h"

static canary_options plain(void) {
  canary_options o;
  canary_defaults(&o);
  o.share = 0.3;
  o.salt = 7;
  strcpy(o.champion, "champion-1");
  strcpy(o.challenger, "challenger-2");
  return o;
}

static canary *make(const canary_options *o) {
  canary *c;
  assert_int_equal(canary_new(&c, o), EV_OK);
  return c;
}

static canary_verdict tick(canary *c, int64_t now_ms) { /* until there is nothing left to do by then */
  canary_verdict v = CANARY_WAITS;
  for (int i = 0; i < 30; i++) v = canary_tick(c, now_ms, NULL);
  return v;
}

static double number(const json_t *o, const char *path) { /* of "a.b.c"; NaN: there is none */
  char part[64];
  while (o != NULL) {
    size_t n = strcspn(path, ".");
    snprintf(part, sizeof part, "%.*s", (int)n, path);
    o = json_object_get(o, part);
    if (path[n] == 0) return json_is_number(o) ? json_number_value(o) : NAN;
    path += n + 1;
  }
  return NAN;
}

static double told(const canary *c, const char *path) {
  json_t *status = canary_status(c);
  assert_non_null(status);
  double x = number(status, path);
  json_decref(status);
  return x;
}

static bool said(const canary *c, const char *key, const char *part) {
  json_t *status = canary_status(c);
  const char *s = json_string_value(json_object_get(status, key));
  bool same = s != NULL && strstr(s, part) != NULL;
  if (!same) print_message("%s: %s\n", key, s != NULL ? s : "nothing");
  json_decref(status);
  return same;
}

static int most(int n, double p) { /* hits of n, more than which come in one of a thousand */
  double term = pow(1 - p, n), sum = term;
  int k = 0;
  for (; sum < 0.999 && k < n; k++) sum += term *= (n - k) / (k + 1.0) * p / (1 - p);
  return k;
}

/* ---- Who is in it -------------------------------------------------------------------------------------------*/
static void users_are_picked_evenly_and_stay(void **state) {
  (void)state;
  enum { N = 20000 };
  int in[3] = {0}, both = 0;
  for (int i = 0; i < N; i++) {
    char user[32];
    snprintf(user, sizeof user, "%d", i);
    bool small = canary_picks(1, 0.1, user), large = canary_picks(1, 0.3, user), other = canary_picks(2, 0.1, user);
    assert_true(!small || large);
    assert_true(small == canary_picks(1, 0.1, user));
    assert_true(canary_picks(1, 1, user) && !canary_picks(1, 0, user));
    in[0] += small;
    in[1] += large;
    in[2] += other;
    both += small && other;
  }
  const double p[] = {0.1, 0.3, 0.1};
  for (int k = 0; k < 3; k++) assert_true(fabs(in[k] - N * p[k]) < 4 * sqrt(N * p[k] * (1 - p[k])));
  assert_true(fabs(both - N * 0.01) < 4 * sqrt(N * 0.01)); /* another salt picks others */
  assert_false(canary_picks(1, 1, "") || canary_picks(1, 1, NULL));
}

/* ---- What is measured ---------------------------------------------------------------------------------------*/
typedef struct act { /* a slate or a click */
  int user;
  bool slate;
  double value;
  int agent;
  int64_t ms;
} act;

/* The same from the whole log, a user at a time. */
static void units_are_the_mean_rewards_of_first_slates_in_the_order_of_arrival(void **state) {
  (void)state;
  enum { USERS = 300, ACTS = 6000 };
  static act log[ACTS];
  static const char *const agents[] = {"ease", "popular"};
  canary_options o = plain();
  o.slates_per_user = 3;
  o.settle_ms = 400;
  o.window_ms = 3000;
  o.test.high = 0.8;
  ev_rng r;
  ev_rng_seed(&r, 11, 0);
  canary *c = make(&o);
  for (int i = 0; i < ACTS; i++) {
    double u = ev_rng_f64(&r);
    log[i] = (act){.user = (int)(USERS * u * u), .slate = ev_rng_below(&r, 2) == 0, .value = ev_rng_f64(&r)};
    log[i].agent = (int)ev_rng_below(&r, 3);
    log[i].ms = 1000 + 3 * i;
    char user[32];
    snprintf(user, sizeof user, "u%d", log[i].user);
    if (log[i].slate) canary_slate(c, user, canary_picks(o.salt, o.share, user), false, 1, log[i].ms);
    else canary_event(c, user, log[i].value, agents, (size_t)log[i].agent, log[i].ms); /* none, the first, both */
    if (i % 10 == 0) canary_tick(c, log[i].ms, NULL);
  }
  assert_int_equal(tick(c, 1 << 30), CANARY_WAITS);
  ev_canary_options test = o.test;
  test.caution = 0.96; /* the guardrails have the rest */
  ev_canary outer;
  assert_int_equal(ev_canary_init(&outer, &test), EV_OK);
  double inner[2][2] = {{0}}, n[2] = {0};
  for (int i = 0; i < ACTS; i++) {
    bool first = log[i].slate;
    for (int k = 0; k < i && first; k++) first = !(log[k].slate && log[k].user == log[i].user);
    if (!first) continue;
    int64_t end = log[i].ms + o.window_ms;
    int slates = 0;
    double earned = 0, by[2] = {0};
    for (int k = i; k < ACTS && slates < 3; k++) {
      if (log[k].user != log[i].user || !log[k].slate || log[k].ms >= end) continue;
      if (++slates == 3 && log[k].ms + o.settle_ms < end) end = log[k].ms + o.settle_ms;
    }
    slates = 0;
    for (int k = i; k < ACTS; k++) {
      if (log[k].user != log[i].user || log[k].ms >= end) continue;
      slates += log[k].slate;
      if (log[k].slate) continue;
      earned += log[k].value;
      for (int a = 0; a < log[k].agent; a++) by[a] += log[k].value;
    }
    char user[32];
    snprintf(user, sizeof user, "u%d", log[i].user);
    bool challenger = canary_picks(o.salt, o.share, user);
    assert_int_equal(ev_canary_add(&outer, challenger, fmin(0.8, earned / slates), o.share), EV_OK);
    n[challenger]++;
    for (int a = 0; a < 2; a++) inner[a][challenger] += fmin(0.8, by[a] / slates);
  }
  ev_canary_result want;
  ev_canary_read(&outer, &want);
  json_t *status = canary_status(c);
  assert_true(n[0] > 100 && n[1] > 50);
  assert_true(number(status, "units.champion") == n[0] && number(status, "units.challenger") == n[1] && number(status, "in_flight") == 0);
  assert_true(fabs(number(status, "outer.champion") - want.champion) < 1e-12 && fabs(number(status, "outer.challenger") - want.challenger) < 1e-12);
  assert_true(fabs(number(status, "outer.difference") - want.difference.value) < 1e-12 && fabs(number(status, "outer.low") - want.difference.low) < 1e-12);
  assert_true(fabs(number(status, "outer.e_better") - want.better) < 1e-9 * want.better && fabs(number(status, "outer.e_worse") - want.worse) < 1e-9 * want.worse);
  const json_t *list = json_object_get(status, "inner");
  assert_int_equal(json_array_size(list), 2);
  for (size_t a = 0; a < 2; a++) {
    const json_t *one = json_array_get(list, a);
    int which = strcmp(json_string_value(json_object_get(one, "agent")), agents[0]) == 0 ? 0 : 1;
    for (int arm = 0; arm < 2; arm++) { /* users who came before the agent was first seen do not count: those are few */
      double counted = number(one, arm ? "challenger.users" : "champion.users"), value = number(one, arm ? "challenger.value" : "champion.value");
      assert_true(counted <= n[arm] && counted > n[arm] - 30 && fabs(value - inner[which][arm] / n[arm]) < 0.06);
      assert_true(number(one, arm ? "challenger.low" : "champion.low") < value);
    }
  }
  json_decref(status);
  canary_free(c);
}

static void a_user_counts_once_and_slates_of_the_other_arm_not_at_all(void **state) {
  (void)state;
  canary_options o = plain();
  o.slates_per_user = 1;
  o.settle_ms = 10;
  canary *c = make(&o);
  for (int i = 0; i < 50; i++) {
    canary_slate(c, "ann", false, false, 1, 1000 * (i + 1));
    canary_event(c, "ann", 1, NULL, 0, 1000 * (i + 1));
    canary_slate(c, "ann", true, false, 1, 1000 * (i + 1) + 1);
    canary_slate(c, "", false, false, 1, 1000 * (i + 1));  /* a session without a user */
    canary_slate(c, NULL, true, false, 1, 1000 * (i + 1));
    canary_event(c, "bob", 1, NULL, 0, 1000 * (i + 1)); /* was shown nothing */
    canary_event(c, "ann", NAN, NULL, 0, 1000 * (i + 1));
    tick(c, 1000 * (i + 1) + 500);
  }
  assert_true(told(c, "units.champion") == 1 && told(c, "units.challenger") == 0 && told(c, "users") == 1 && told(c, "outer.champion") == 1 && told(c, "mixed_slates") == 1);
  assert_true(told(c, "slates.champion") == 50 && told(c, "events.champion") == 1 && told(c, "events.challenger") == 0);
  canary_slate(NULL, "ann", true, true, 1, 1);
  canary_event(NULL, "ann", 1, NULL, 0, 1);
  assert_int_equal(canary_tick(NULL, 1, NULL), CANARY_WAITS);
  assert_null(canary_status(NULL));
  canary_free(c);
  canary_free(NULL);
}

static void more_agents_than_there_is_room_for_are_said(void **state) {
  (void)state;
  canary_options o = plain();
  canary *c = make(&o);
  canary_slate(c, "ann", false, false, 1, 1);
  for (int i = 0; i < 40; i++) {
    char name[64];
    const char *names[] = {name};
    snprintf(name, sizeof name, "agent-%d", i);
    canary_event(c, "ann", 1, names, 1, 2);
  }
  json_t *status = canary_status(c);
  assert_int_equal(json_array_size(json_object_get(status, "inner")), 32);
  assert_true(number(status, "lost_observations") == 8);
  json_decref(status);
  canary_free(c);
}

static void wrong_options_are_refused(void **state) {
  (void)state;
  canary *c;
  for (int i = 0; i < 10; i++) {
    canary_options o = plain();
    if (i == 0) o.share = 0;
    if (i == 1) o.share = 1;
    if (i == 2) o.share = NAN;
    if (i == 3) o.slates_per_user = 0;
    if (i == 4) o.settle_ms = o.window_ms + 1;
    if (i == 5) o.window_ms = 0;
    if (i == 6) o.errors_max = -0.1;
    if (i == 7) o.late_ms = INFINITY;
    if (i == 8) o.test.high = o.test.low;
    if (i == 9) o.test.confidence = 1;
    assert_int_equal(canary_new(&c, &o), EV_EINVAL);
    assert_null(c);
  }
}

/* ---- Guardrails ---------------------------------------------------------------------------------------------*/
/* Users one after the other, each with a slate; the verdict is looked at after each. → how many it took, or 0 */
static int stops_after(canary *c, const canary_options *o, int from, int n, double bad[2], double slow[2], int64_t ms, ev_rng *r) {
  for (int i = 0; i < n; i++) {
    char user[32];
    snprintf(user, sizeof user, "user%d", from + i);
    bool challenger = canary_picks(o->salt, o->share, user);
    canary_slate(c, user, challenger, ev_rng_f64(r) < bad[challenger], ev_rng_f64(r) < slow[challenger] ? 1000 : 5, ms + i);
    if (canary_tick(c, ms + i, NULL) != CANARY_WAITS) return i + 1;
  }
  return 0;
}

static void gross_failures_stop_at_once(void **state) {
  (void)state;
  canary_options o = plain();
  char why[256];
  canary *c = make(&o);
  int n = 0;
  for (; n < 10; n++) { /* the challenger's ten first slates, and nothing of the champion */
    char user[32];
    snprintf(user, sizeof user, "user%d", n);
    canary_slate(c, user, true, true, 1, 1000);
    if (canary_tick(c, 1000, why) == CANARY_ROLLS_BACK) break;
  }
  assert_in_range(n, 3, 9);
  assert_non_null(strstr(why, "degraded"));
  assert_true(said(c, "by", "broken"));
  canary_free(c);
  ev_rng r;
  ev_rng_seed(&r, 3, 0);
  for (int k = 0; k < 20; k++) { /* beside a champion's that are sound: within thirty of its users */
    o.salt = (uint64_t)k;
    o.share = 0.1;
    c = make(&o);
    n = stops_after(c, &o, 0, 1000, (double[]){0, 1}, (double[]){0, 0}, 1000, &r);
    assert_true(n > 0 && told(c, "guardrails.errors.challenger.users") <= 12);
    canary_free(c);
    c = make(&o);
    n = stops_after(c, &o, 0, 1000, (double[]){0, 0}, (double[]){0, 1}, 1000, &r);
    assert_true(n > 0 && told(c, "guardrails.latency.challenger.users") <= 12);
    assert_true(said(c, "by", "latency") && said(c, "reason", "slower than 100 ms"));
    canary_free(c);
  }
}

static void a_failure_that_comes_late_is_seen_among_users_who_are_known(void **state) {
  (void)state;
  canary_options o = plain();
  ev_rng r;
  ev_rng_seed(&r, 4, 0);
  canary *c = make(&o);
  for (int hour = 0; hour < 8; hour++) assert_int_equal(stops_after(c, &o, 0, 300, (double[]){0.01, 0.01}, (double[]){0, 0}, 1000 + hour * 3600000, &r), 0);
  int n = stops_after(c, &o, 0, 300, (double[]){0.01, 0.7}, (double[]){0, 0}, 1000 + 8 * 3600000, &r);
  assert_true(n > 0 && n < 150);
  canary_free(c);
}

static void where_both_fail_alike_it_is_not_the_challenger(void **state) {
  (void)state;
  canary_options o = plain();
  ev_rng r;
  ev_rng_seed(&r, 5, 0);
  canary *c = make(&o);
  assert_int_equal(stops_after(c, &o, 0, 3000, (double[]){0.9, 0.9}, (double[]){0.5, 0.5}, 1000, &r), 0);
  canary_free(c);
  c = make(&o); /* slow, but within what is allowed */
  assert_int_equal(stops_after(c, &o, 0, 3000, (double[]){0, 0.005}, (double[]){0, 0.005}, 1000, &r), 0);
  canary_free(c);
  c = make(&o); /* eight points more degraded ones are more than two */
  assert_true(stops_after(c, &o, 0, 6000, (double[]){0.01, 0.09}, (double[]){0, 0}, 1000, &r) > 0);
  assert_true(said(c, "by", "errors"));
  canary_free(c);
}

/* A tenth of the users always gets degraded and slow slates, in either arm, and comes again and again. */
static void guardrails_stop_what_does_no_harm_as_seldom_as_they_say(void **state) {
  (void)state;
  enum { RUNS = 150 };
  int stopped = 0;
  for (int run = 0; run < RUNS; run++) {
    canary_options o = plain();
    o.salt = 1000 + (uint64_t)run;
    o.errors_max = 0;
    canary *c = make(&o);
    for (int round = 0; round < 6; round++)
      for (int i = 0; i < 300; i++) {
        char user[32];
        snprintf(user, sizeof user, "u%d", i);
        canary_slate(c, user, canary_picks(o.salt, o.share, user), i % 10 == 0, i % 10 == 1 ? 500 : 2, 1000 + round * 1800000 + i);
        if (i % 8 == 7) canary_tick(c, 1000 + round * 1800000 + i, NULL);
      }
    stopped += canary_tick(c, 1000 + 6 * 1800000, NULL) == CANARY_ROLLS_BACK; /* nobody earned anything: only guardrails stop */
    canary_free(c);
  }
  if (stopped > most(RUNS, 0.01)) fail_msg("%d of %d", stopped, RUNS);
}

/* ---- Deciding -----------------------------------------------------------------------------------------------*/
/* Sticky users of heavy-tailed activity, each with a taste for clicking of his own; the challenger's click `gain` times as often. */
static canary_verdict live(canary *c, ev_canary *naive, const canary_options *o, int n_users, double gain, double degraded, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 1);
  double *weight = ev_alloc((size_t)n_users, sizeof *weight), *click = ev_alloc((size_t)n_users, sizeof *click), sum = 0;
  for (int u = 0; u < n_users; u++) {
    sum += exp(1.2 * ev_rng_normal(&r));
    weight[u] = sum;
    click[u] = ev_rng_f64(&r) < 0.5 ? 0.15 : 0.65;
  }
  canary_verdict verdict = CANARY_WAITS;
  for (int64_t i = 0; i < 6 * n_users; i++) {
    double at = sum * ev_rng_f64(&r);
    int low = 0, high = n_users - 1;
    while (low < high) {
      int middle = (low + high) / 2;
      if (weight[middle] < at) low = middle + 1;
      else high = middle;
    }
    char user[32];
    snprintf(user, sizeof user, "u%d", low);
    bool challenger = canary_picks(o->salt, o->share, user), clicked = ev_rng_f64(&r) < click[low] * (challenger ? gain : 1);
    if (verdict == CANARY_WAITS) {
      canary_slate(c, user, challenger, challenger && ev_rng_f64(&r) < degraded, 2, 1000 + i * 100);
      if (clicked) canary_event(c, user, 1, NULL, 0, 1000 + i * 100);
      if (i % 32 == 0) verdict = canary_tick(c, 1000 + i * 100, NULL);
    }
    if (naive != NULL && naive->decision == EV_GO_ON) assert_int_equal(ev_canary_add(naive, challenger, clicked, o->share), EV_OK);
  }
  ev_free(weight);
  ev_free(click);
  return verdict == CANARY_WAITS ? tick(c, INT64_MAX) : verdict;
}

static void of_two_alike_neither_is_chosen_more_often_than_is_said(void **state) {
  (void)state;
  enum { RUNS = 60 };
  int back = 0, promoted = 0, naive_wrong = 0;
  for (int run = 0; run < RUNS; run++) {
    canary_options o = plain();
    o.salt = 50 + (uint64_t)run;
    o.share = run % 2 == 0 ? 0.5 : 0.2;
    o.window_ms = 200000;
    ev_canary naive;
    assert_int_equal(ev_canary_init(&naive, &o.test), EV_OK);
    canary *c = make(&o);
    canary_verdict v = live(c, &naive, &o, 1500, 1, 0, 900 + (uint64_t)run);
    back += v == CANARY_ROLLS_BACK;
    promoted += v == CANARY_PROMOTES;
    naive_wrong += naive.decision != EV_GO_ON;
    canary_free(c);
  }
  print_message("of %d: %d rolled back, %d promoted; slate by slate %d wrong\n", RUNS, back, promoted, naive_wrong);
  assert_true(back <= most(RUNS, 0.05) && promoted <= most(RUNS, 0.05));
  assert_true(naive_wrong > most(RUNS, 0.1)); /* it may be wrong in a tenth, both sides together */
}

static void what_is_worse_is_rolled_back_and_what_is_better_promoted(void **state) {
  (void)state;
  for (uint64_t run = 0; run < 6; run++) {
    canary_options o = plain();
    o.salt = run;
    o.share = 0.5;
    o.window_ms = 200000;
    canary *c = make(&o);
    assert_int_equal(live(c, NULL, &o, 3000, 0.6, 0, run), CANARY_ROLLS_BACK);
    assert_true(said(c, "verdict", "roll back") && said(c, "by", "outer") && said(c, "reason", "worse, beyond doubt") && told(c, "outer.difference") < 0);
    canary_free(c);
    c = make(&o);
    assert_int_equal(live(c, NULL, &o, 3000, 1.4, 0, run), CANARY_PROMOTES);
    assert_true(said(c, "verdict", "promote") && said(c, "reason", "better, beyond doubt") && told(c, "outer.low") > -0.05);
    canary_free(c);
    o.test.margin = -0.2; /* no worse than that is good enough */
    c = make(&o);
    assert_int_equal(live(c, NULL, &o, 3000, 1, 0, run), CANARY_PROMOTES);
    assert_true(said(c, "reason", "worse by less than 0.2"));
    canary_free(c);
    o.test.margin = 0.3; /* better, but not by so much */
    c = make(&o);
    assert_int_equal(live(c, NULL, &o, 3000, 1.4, 0, run), CANARY_WAITS);
    canary_free(c);
    o.test.margin = 0;
    o.errors_max = 0; /* better, but some more of its slates are degraded: too few to be sure, too many to promote */
    c = make(&o);
    assert_int_equal(live(c, NULL, &o, 3000, 1.4, 0.004, run), CANARY_WAITS);
    assert_true(said(c, "reason", "guardrails"));
    canary_free(c);
  }
}

/* ---- A file -------------------------------------------------------------------------------------------------*/
static char *status_text(const canary *c) {
  json_t *status = canary_status(c);
  char *text = json_dumps(status, JSON_SORT_KEYS);
  json_decref(status);
  assert_non_null(text);
  return text;
}

static void feed(canary *c, const canary_options *o, int from, int to) {
  static const char *const agents[] = {"ease", "popular", "fresh"};
  for (int i = from; i < to; i++) {
    char user[32];
    snprintf(user, sizeof user, "u%d", i * 37 % 701 + i / 4);
    canary_slate(c, user, canary_picks(o->salt, o->share, user), i % 97 == 0, i % 13, 1000 + i * 50);
    if (i % 3 == 0) canary_event(c, user, 0.5, agents + i % 2, (size_t)(i % 3), 1000 + i * 50);
    if (i % 20 == 0) canary_tick(c, 1000 + i * 50, NULL);
  }
}

static canary *half_way(canary_options *o) {
  *o = plain();
  o->window_ms = 20000;
  o->settle_ms = 500;
  canary *c = make(o);
  feed(c, o, 0, 3010);
  return c;
}

static void it_goes_on_from_where_it_was_kept(void **state) {
  (void)state;
  canary_options o;
  canary *c = half_way(&o), *d;
  const char *path = in_folder("kept");
  assert_int_equal(canary_save(c, path), EV_OK);
  assert_int_equal(canary_load(&d, path), EV_OK);
  for (int turn = 0; turn < 2; turn++) {
    char *a = status_text(c), *b = status_text(d);
    assert_string_equal(a, b);
    assert_non_null(strstr(a, "\"history\": [["));
    free(a);
    free(b);
    feed(c, &o, 3010, 9000);
    feed(d, &o, 3010, 9000);
  }
  assert_true(told(d, "in_flight") > 0 && told(d, "units.champion") > 300);
  canary_free(d);
  assert_int_equal(canary_load(&d, in_folder("nothing")), EV_ENOTFOUND);
  assert_null(d);
  assert_int_equal(canary_save(c, in_folder("no/such/folder")), EV_ENOTFOUND);
  ASSERT_SURVIVES_FAULTS(canary_new(&d, &o), canary_free(d));
  ASSERT_SURVIVES_FAULTS(canary_save(c, path), (void)0);
  ASSERT_SURVIVES_FAULTS(canary_load(&d, path), canary_free(d));
  canary_free(c);
}

static void a_damaged_file_is_refused(void **state) {
  (void)state;
  canary_options o;
  canary *c = half_way(&o), *d;
  ev_buf whole = {0};
  assert_int_equal(canary_save(c, in_folder("whole")), EV_OK);
  assert_int_equal(ev_file_read(&whole, in_folder("whole"), 1 << 24), EV_OK);
  ev_rng r;
  ev_rng_seed(&r, 8, 0);
  for (int i = 0; i < 300; i++) {
    size_t at = i < 64 ? (size_t)i : ev_rng_below(&r, (uint32_t)whole.len), len = i % 3 == 2 ? at : whole.len;
    char was = whole.data[at];
    whole.data[at] = (char)(was ^ (1 << ev_rng_below(&r, 8)));
    write_text(in_folder("damaged"), whole.data, len);
    whole.data[at] = was;
    assert_int_equal(canary_load(&d, in_folder("damaged")), EV_ECORRUPT);
    assert_null(d);
  }
  ev_buf_free(&whole);
  canary_free(c);
}

/* ---- Much of it ---------------------------------------------------------------------------------------------*/
static void beyond_its_bound_it_takes_no_more_users_and_says_so(void **state) {
  (void)state;
  canary_options o = plain();
  o.slates_per_user = 1;
  o.settle_ms = 1;
  canary *c = make(&o);
  enum { MORE = 1000 };
  uint32_t all = (1u << 21) + MORE;
  for (uint32_t i = 0; i < all; i++) {
    char user[32];
    snprintf(user, sizeof user, "%u", i);
    canary_slate(c, user, i % 3 == 0, false, 1, 1000 + i / 1000);
    canary_event(c, user, 1, NULL, 0, 1000 + i / 1000);
    if (i % 65536 == 0) canary_tick(c, 1000 + i / 1000, NULL); /* most observations are lost: nobody hurries */
  }
  assert_true(told(c, "users") == told(c, "users_max") && told(c, "ignored_slates") == MORE);
  for (int i = 0; i < 300; i++) canary_tick(c, INT64_MAX, NULL);
  json_t *status = canary_status(c);
  assert_true(number(status, "units.champion") + number(status, "units.challenger") == (1u << 21) && number(status, "outer.champion") == 1);
  size_t points = json_array_size(json_object_get(status, "history"));
  assert_true(points >= 60 && points <= 121);
  double before = 0;
  for (size_t i = 0; i < points; i++) {
    double units = json_number_value(json_array_get(json_array_get(json_object_get(status, "history"), i), 0));
    assert_true(units > before);
    before = units;
  }
  json_decref(status);
  canary_free(c);
}

enum { THREADS = 4, EACH = 20000 };

static void *serve(void *ctx) {
  canary *c = ((void **)ctx)[0];
  int which = *(int *)((void **)ctx)[1];
  static const char *const agents[] = {"a", "b"};
  for (int i = 0; i < EACH; i++) {
    char user[32];
    snprintf(user, sizeof user, "%d", (i * THREADS + which) % 9000);
    canary_slate(c, user, canary_picks(7, 0.3, user), false, 1, 1000 + i);
    canary_event(c, user, 0.25, agents, (size_t)(i % 3), 1000 + i);
    if (i % 256 == 0) canary_tick(c, 1000 + i, NULL);
    if (i % 5000 == 0) json_decref(canary_status(c));
    if (which == 0 && i % 7000 == 0) assert_int_equal(canary_save(c, in_folder("threads")), EV_OK);
  }
  return NULL;
}

static void threads_lose_nothing(void **state) {
  (void)state;
  canary_options o = plain();
  o.window_ms = 5000;
  o.settle_ms = 100;
  canary *c = make(&o), *d;
  pthread_t threads[THREADS];
  int which[THREADS];
  void *args[THREADS][2];
  for (int i = 0; i < THREADS; i++) {
    which[i] = i;
    args[i][0] = c;
    args[i][1] = &which[i];
    assert_int_equal(pthread_create(&threads[i], NULL, serve, args[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  tick(c, INT64_MAX);
  json_t *status = canary_status(c);
  assert_true(number(status, "slates.champion") + number(status, "slates.challenger") == THREADS * EACH && number(status, "users") == 9000);
  assert_true(number(status, "units.champion") + number(status, "units.challenger") == 9000 && number(status, "in_flight") == 0);
  json_decref(status);
  assert_int_equal(canary_load(&d, in_folder("threads")), EV_OK);
  canary_free(d);
  canary_free(c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(users_are_picked_evenly_and_stay),
      cmocka_unit_test(units_are_the_mean_rewards_of_first_slates_in_the_order_of_arrival),
      cmocka_unit_test(a_user_counts_once_and_slates_of_the_other_arm_not_at_all),
      cmocka_unit_test(more_agents_than_there_is_room_for_are_said),
      cmocka_unit_test(wrong_options_are_refused),
      cmocka_unit_test(gross_failures_stop_at_once),
      cmocka_unit_test(a_failure_that_comes_late_is_seen_among_users_who_are_known),
      cmocka_unit_test(where_both_fail_alike_it_is_not_the_challenger),
      cmocka_unit_test(guardrails_stop_what_does_no_harm_as_seldom_as_they_say),
      cmocka_unit_test(of_two_alike_neither_is_chosen_more_often_than_is_said),
      cmocka_unit_test(what_is_worse_is_rolled_back_and_what_is_better_promoted),
      cmocka_unit_test(it_goes_on_from_where_it_was_kept),
      cmocka_unit_test(a_damaged_file_is_refused),
      cmocka_unit_test(beyond_its_bound_it_takes_no_more_users_and_says_so),
      cmocka_unit_test(threads_lose_nothing),
  };
  return RUN(tests);
}
