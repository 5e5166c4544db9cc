/* reward_ledger_rows.c - impressions and events find one another in any order, are counted once, and their totals agree with a scan
 * and with a model that knows nothing of SQL. */
#include <sys/syscall.h>
#include <time.h>

#include "reward/ledger.h"

#include "ledger_world.h"

static int64_t wall_ms; /* 0: the machine's own */

int clock_gettime(clockid_t clock, struct timespec *t) { /* before the C library's, for a clock that goes back */
  int code = (int)syscall(SYS_clock_gettime, clock, t);
  if (clock == CLOCK_REALTIME && wall_ms != 0) *t = (struct timespec){wall_ms / 1000, wall_ms % 1000 * 1000000};
  return code;
}

static void an_event_joins_its_impression_whichever_comes_first(void **state) {
  (void)state;
  ev_ledger *l = ledger("joins");
  ev_event before[] = {about("early b", "b", "s1"), about("stray", "z", "s1"), about("never", "a", "nowhere")}, after = about("late a", "a", "s1");
  ev_impression s1 = slate("s1");
  ev_ledger_receipt r = put(l, NULL, 0, before, 3);
  assert_int_equal(r.new_events, 3);
  assert_int_equal(r.waiting, 3);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE impression IS NULL AND waits_for = 's1'"), 2);
  r = put(l, &s1, 1, &after, 1); /* impressions of a batch come first */
  assert_int_equal(r.new_impressions, 1);
  assert_int_equal(r.joined_late, 2);
  assert_int_equal(r.waiting, 0);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE impression = 's1' AND waits_for IS NULL AND version = 'v1'"), 3);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE id = 'early b' AND position = 2 AND agent IS NULL"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE id = 'late a' AND position = 1 AND agent = 'ease'"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE id = 'stray' AND position IS NULL"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE waits_for = 'nowhere' AND version IS NULL"), 1);
  assert_int_equal(counter(l, "not_in_slate"), 1);
  assert_int_equal(counter(l, "joined_late"), 2);
  assert_int_equal(number(l, "SELECT count(*) FROM bandit_log WHERE item = 'a' AND position = 1 AND propensity = 0.5 AND slate_propensity = 0.125 AND events = 1 AND reward = 1"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM impression_log WHERE id = 's1' AND items = 2 AND events = 3 AND time = '2023-11-14 22:13:20.000'"), 1);
  ev_impression unclicked = slate("unclicked");
  unclicked.version = "v2";
  put(l, &unclicked, 1, NULL, 0);
  assert_int_equal(number(l, "SELECT count(*) FROM version_totals WHERE version = 'v1' AND type = 'click' AND impressions = 1 AND events = 3 AND per_impression = 3"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM version_totals WHERE version = 'v2' AND type IS NULL AND impressions = 1 AND events = 0"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM version_totals WHERE version IS NULL AND impressions = 0 AND events = 1"), 1);
  ev_event from_the_table = about("after opening", "b", "s1"); /* what a new connection has not in memory */
  ev_ledger_close(l);
  l = ledger("joins");
  put(l, NULL, 0, &from_the_table, 1);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE id = 'after opening' AND position = 2 AND impression = 's1'"), 1);
  assert_int_equal(wrong_totals(l), 0);
  ev_ledger_close(l);
}

static void the_impression_knows_the_version_better(void **state) {
  (void)state;
  ev_ledger *l = ledger("better");
  ev_event e[] = {about("a", "a", "s1"), about("b", "a", "s1"), about("c", "a", "gone")};
  ev_impression s1 = slate("s1");
  e[0].version = e[2].version = "stale";
  put(l, NULL, 0, e, 1);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE version = 'stale'"), 1);
  put(l, &s1, 1, e + 1, 2);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE version = 'v1'"), 2);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE version = 'stale' AND id = 'c'"), 1);
  ev_ledger_close(l);
}

static void duplicates_count_once_and_are_counted(void **state) {
  (void)state;
  ev_ledger *l = ledger("twice");
  ev_impression s[] = {slate("s1"), slate("s1"), slate("s1")};
  ev_event e[] = {event("e", "a", 1), event("e", "a", 1), event("e", "a", 2)};
  s[2].user = "another";
  e[1].time_ms += 5; /* sent again, with the time of sending */
  ev_ledger_receipt r = put(l, s, 3, e, 3);
  assert_int_equal(r.new_impressions + r.new_events, 2);
  assert_int_equal(r.known, 4);
  assert_int_equal(r.conflicts, 2);
  assert_int_equal(counter(l, "duplicate_events"), 2);
  assert_int_equal(counter(l, "duplicate_impressions"), 2);
  assert_int_equal(counter(l, "conflicting_duplicates"), 2);
  assert_int_equal(number(l, "SELECT count(*) FROM shown"), 2);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE value = 1 AND time_ms = 1700000000123"), 1);
  ev_ledger_close(l);
}

static void what_is_wrong_is_named_and_keeps_out_the_whole_batch(void **state) {
  (void)state;
  ev_ledger *l = ledger("wrong");
  static const double bad[] = {0, -0.5, 1.0000001, 2, INFINITY, NAN};
  static const char *const words[] = {"is 0", "is -0.5", "is 1", "is 2", "is inf", "missing"};
  ev_ledger_receipt r;
  for (size_t i = 0; i < 2 * sizeof bad / sizeof *bad; i++) {
    ev_shown items[] = {{"a", 0.5, NULL, 0}, {"wrong one", bad[i / 2], NULL, 0}};
    ev_impression s[] = {slate("fine"), slate("x")};
    if (i % 2) s[1].propensity = bad[i / 2];
    else s[1].items = items;
    assert_int_equal(ev_ledger_put(l, &(ev_ledger_batch){.impressions = s, .n_impressions = 2}, &r), EV_EINVAL);
    assert_non_null(strstr(ev_error(), "impression 1: the propensity of "));
    assert_non_null(strstr(ev_error(), i % 2 ? "the slate" : "item wrong one"));
    assert_non_null(strstr(ev_error(), words[i / 2]));
  }
  char longest[1026];
  memset(longest, 'x', 1025);
  longest[1025] = '\0';
  const struct { ev_event e; const char *says; } events[] = {
      {{"e", NULL, "i", "t", 0, 0, NULL, NULL}, "no user"},          {{"e", "", "i", "t", 0, 0, NULL, NULL}, "user is empty"},
      {{"e", "u", "i", NULL, 0, 0, NULL, NULL}, "no type"},          {{"", "u", "i", "t", 0, 0, NULL, NULL}, "id is empty"},
      {{"e", "u", "\xff", "t", 0, 0, NULL, NULL}, "not UTF-8"},      {{"e", longest, "i", "t", 0, 0, NULL, NULL}, "longer than 1024"},
      {{"e", "u", "i", "t", INFINITY, 0, NULL, NULL}, "value inf"},  {{"e", "u", "i", "t", 0, -1, NULL, NULL}, "time -1"},
      {{"e", "u", "i", "t", 0, INT64_MAX, NULL, NULL}, "time 9223"}, {{"e", "u", "i", "t", 0, 0, NULL, ""}, "impression is empty"},
  };
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    ev_event batch[] = {event("fine", "i", 1), events[i].e};
    assert_int_equal(ev_ledger_put(l, &(ev_ledger_batch){.events = batch, .n_events = 2}, &r), EV_EINVAL);
    if (strstr(ev_error(), "event 1: ") == NULL || strstr(ev_error(), events[i].says) == NULL) fail_msg("%zu: %s", i, ev_error());
    assert_int_equal(ev_utf8_invalid(ev_error(), strlen(ev_error())), strlen(ev_error()));
  }
  ev_shown crossed[] = {{"a", 0.5, NULL, 2}, {"b", 0.5, NULL, 2}};
  ev_impression s = slate("x"), none = slate("x");
  s.items = crossed;
  none.n_items = 0;
  assert_int_equal(ev_ledger_put(l, &(ev_ledger_batch){.impressions = &s, .n_impressions = 1}, &r), EV_EINVAL);
  assert_int_equal(ev_ledger_put(l, &(ev_ledger_batch){.impressions = &none, .n_impressions = 1}, &r), EV_EINVAL);
  assert_int_equal(number(l, "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM impressions) + (SELECT count(*) FROM shown)"), 0);
  ev_ledger_close(l);
}

static void values_stay_in_their_range_whoever_sets_it(void **state) {
  (void)state;
  ev_ledger *l = ledger("ranges"), *other = ledger("ranges");
  ev_event high[] = {event("fine", "i", 1), event("high", "i", 1.5)}, view = event("view", "i", 7);
  ev_ledger_receipt r;
  view.type = "view";
  assert_int_equal(ev_ledger_set_range(other, "click", 0, 1), EV_OK);
  assert_int_equal(ev_ledger_put(l, &(ev_ledger_batch){.events = high, .n_events = 2}, &r), EV_EINVAL);
  assert_string_equal(ev_error(), "event 1: the value 1.5 of 'click' is not between 0 and 1");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 0);
  put(l, NULL, 0, &view, 1); /* of another type */
  assert_int_equal(ev_ledger_set_range(other, "*", -5, 5), EV_OK);
  view.id = "view 2";
  assert_int_equal(ev_ledger_put(l, &(ev_ledger_batch){.events = &view, .n_events = 1}, &r), EV_EINVAL);
  assert_int_equal(ev_ledger_set_range(other, "view", 0, 10), EV_OK); /* its own goes before that of all */
  put(l, NULL, 0, &view, 1);
  assert_int_equal(ev_ledger_set_range(other, "click", 1, 0), EV_OK); /* removed: the one of all holds */
  put(l, NULL, 0, high, 2);
  high[0].value = -5.5;
  assert_int_equal(ev_ledger_put(l, &(ev_ledger_batch){.events = high, .n_events = 1}, &r), EV_EINVAL);
  assert_int_equal(ev_ledger_set_range(other, "click", 1, 0), EV_ENOTFOUND);
  assert_int_equal(ev_ledger_set_range(other, "click", NAN, 0), EV_EINVAL);
  assert_int_equal(ev_ledger_set_range(other, "", 0, 1), EV_EINVAL);
  ev_ledger_close(l);
  ev_ledger_close(other);
}

static void a_clock_that_goes_back_is_counted_and_orders_nothing_anew(void **state) {
  (void)state;
  ev_ledger *l = ledger("clock");
  ev_event e[] = {event("a", "i", 1), event("b", "i", 1), event("c", "i", 1), event("d", "i", 1)}, early = about("early", "a", "s1");
  ev_impression s1 = slate("s1");
  wall_ms = 1800000000000;
  put(l, NULL, 0, e, 1);
  wall_ms -= 60000;
  put(l, NULL, 0, e + 1, 1);
  wall_ms = 1800000000000 - 5000;
  put(l, NULL, 0, e + 2, 1);
  wall_ms = 1800000000000 - 500; /* two machines may differ by that much */
  put(l, NULL, 0, e + 3, 1);
  assert_int_equal(counter(l, "clock_steps_back"), 2);
  assert_int_equal(counter(l, "clock_back_ms"), 60000);
  assert_int_equal(number(l, "SELECT count(*) FROM events WHERE received_ms_wall = 1800000000000"), 4);
  ev_ledger_close(l);
  wall_ms = 1800000000000 - 90000;
  l = ledger("clock"); /* found out after a restart too */
  early.time_ms = s1.time_ms - 1;
  put(l, &s1, 1, &early, 1); /* an event from before its impression: joined, and counted */
  assert_int_equal(counter(l, "clock_steps_back"), 3);
  assert_int_equal(counter(l, "clock_back_ms"), 90000);
  assert_int_equal(counter(l, "before_impression"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE id = 'early' AND impression = 's1' AND position = 1"), 1);
  wall_ms = 0;
  ev_ledger_close(l);
}

/* ---- Totals against a model ----------------------------------------------------------------------------*/
enum { SLATES = 300, EVENTS = 3000, ITEMS = 12, VERSIONS = 3, TYPES = 3, AGENTS = 3 /* and none */, HOURS = 4 };
static const char *const item_names[ITEMS] = {"i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9", "i10", "i11"};
static const char *const version_names[VERSIONS] = {"v0", "v1", "v2"}, *const type_names[TYPES] = {"click", "view", "buy"}, *const agent_names[AGENTS] = {"x", "y", NULL};

typedef struct sum {
  int64_t n;
  double values, squares;
} sum;

static struct world {
  struct { char id[16]; int version; int64_t time; ev_shown shown[4]; int items[4], agents[4]; } slates[SLATES];
  struct { char id[16]; int slate, item, type, stated; double value; int64_t time; } events[EVENTS]; /* slate −1: none; ≥ SLATES: one that never comes */
  sum by_item[VERSIONS + 1][ITEMS][AGENTS + 1][TYPES], by_hour[VERSIONS + 1][HOURS][TYPES];
  int64_t shown[VERSIONS][ITEMS][AGENTS], slate_hours[VERSIONS][HOURS];
} w;

static void make_world(uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  memset(&w, 0, sizeof w);
  for (int i = 0; i < SLATES; i++) {
    snprintf(w.slates[i].id, sizeof w.slates[i].id, "s%d", i);
    w.slates[i].version = (int)ev_rng_below(&r, VERSIONS);
    w.slates[i].time = ev_rng_below(&r, HOURS * 3600000);
    w.slate_hours[w.slates[i].version][w.slates[i].time / 3600000]++;
    int first = (int)ev_rng_below(&r, ITEMS);
    for (int k = 0; k < 4; k++) {
      w.slates[i].items[k] = (first + k) % ITEMS;
      w.slates[i].agents[k] = (int)ev_rng_below(&r, AGENTS);
      w.slates[i].shown[k] = (ev_shown){item_names[w.slates[i].items[k]], 0.5, agent_names[w.slates[i].agents[k]], 0};
      w.shown[w.slates[i].version][w.slates[i].items[k]][w.slates[i].agents[k]]++;
    }
  }
  for (int i = 0; i < EVENTS; i++) {
    snprintf(w.events[i].id, sizeof w.events[i].id, "e%d", i);
    uint32_t what = ev_rng_below(&r, 20);
    w.events[i].slate = what == 0 ? -1 : what == 1 ? SLATES : (int)ev_rng_below(&r, SLATES);
    w.events[i].item = (int)ev_rng_below(&r, ITEMS);
    w.events[i].type = (int)ev_rng_below(&r, TYPES);
    w.events[i].stated = (int)ev_rng_below(&r, VERSIONS + 1) - 1;
    w.events[i].value = ev_rng_normal(&r);
    w.events[i].time = ev_rng_below(&r, HOURS * 3600000);
    int version = w.events[i].stated < 0 ? VERSIONS : w.events[i].stated, agent = AGENTS;
    if (w.events[i].slate >= 0 && w.events[i].slate < SLATES) {
      version = w.slates[w.events[i].slate].version;
      for (int k = 0; k < 4; k++)
        if (w.slates[w.events[i].slate].items[k] == w.events[i].item) agent = w.slates[w.events[i].slate].agents[k];
    }
    if (agent == AGENTS - 1) agent = AGENTS; /* an item of a slate that no agent is known of is as one of no slate */
    sum *sums[] = {&w.by_item[version][w.events[i].item][agent][w.events[i].type], &w.by_hour[version][w.events[i].time / 3600000][w.events[i].type]};
    for (int k = 0; k < 2; k++) {
      sums[k]->n++;
      sums[k]->values += w.events[i].value;
      sums[k]->squares += w.events[i].value * w.events[i].value;
    }
  }
}

static int index_of(const char *const *names, int n, const unsigned char *name) {
  for (int i = 0; i < n; i++)
    if (name != NULL && names[i] != NULL && strcmp(names[i], (const char *)name) == 0) return i;
  return n;
}

static void same(const sum *s, sqlite3_stmt *q, int c) {
  assert_int_equal(sqlite3_column_int64(q, c), s->n);
  assert_true(fabs(sqlite3_column_double(q, c + 1) - s->values) < 1e-9 && fabs(sqlite3_column_double(q, c + 2) - s->squares) < 1e-9 * (1 + s->squares));
}

static void totals_are_the_models(ev_ledger *l) {
  sqlite3_stmt *q;
  int n = 0, expected = 0;
  assert_int_equal(sqlite3_prepare_v2(ev_ledger_db(l), "SELECT version, item, agent, type, events, value_sum, value_squares FROM events_by_item", -1, &q, NULL), SQLITE_OK);
  for (; sqlite3_step(q) == SQLITE_ROW; n++) {
    int agent = index_of(agent_names, AGENTS, sqlite3_column_text(q, 2));
    same(&w.by_item[index_of(version_names, VERSIONS, sqlite3_column_text(q, 0))][index_of(item_names, ITEMS, sqlite3_column_text(q, 1))][agent]
                   [index_of(type_names, TYPES, sqlite3_column_text(q, 3))], q, 4);
  }
  sqlite3_finalize(q);
  const sum *all = &w.by_item[0][0][0][0];
  for (size_t i = 0; i < sizeof w.by_item / sizeof(sum); i++) expected += all[i].n > 0;
  assert_int_equal(n, expected);
  assert_int_equal(sqlite3_prepare_v2(ev_ledger_db(l), "SELECT version, hour_number, type, events, value_sum, value_squares FROM events_by_hour", -1, &q, NULL), SQLITE_OK);
  for (n = 0; sqlite3_step(q) == SQLITE_ROW; n++)
    same(&w.by_hour[index_of(version_names, VERSIONS, sqlite3_column_text(q, 0))][sqlite3_column_int(q, 1)][index_of(type_names, TYPES, sqlite3_column_text(q, 2))], q, 3);
  sqlite3_finalize(q);
  all = &w.by_hour[0][0][0];
  expected = 0;
  for (size_t i = 0; i < sizeof w.by_hour / sizeof(sum); i++) expected += all[i].n > 0;
  assert_int_equal(n, expected);
  assert_int_equal(sqlite3_prepare_v2(ev_ledger_db(l), "SELECT version, item, agent, impressions FROM impressions_by_item", -1, &q, NULL), SQLITE_OK);
  while (sqlite3_step(q) == SQLITE_ROW) {
    int agent = index_of(agent_names, AGENTS, sqlite3_column_text(q, 2));
    int64_t *x = &w.shown[index_of(version_names, VERSIONS, sqlite3_column_text(q, 0))][index_of(item_names, ITEMS, sqlite3_column_text(q, 1))][agent == AGENTS ? AGENTS - 1 : agent];
    assert_int_equal(sqlite3_column_int64(q, 3), *x);
  }
  sqlite3_finalize(q);
  assert_int_equal(number(l, "SELECT sum(impressions) FROM impressions_by_item"), 4 * SLATES);
  assert_int_equal(number(l, "SELECT sum(impressions) FROM impressions_by_hour"), SLATES);
  assert_int_equal(sqlite3_prepare_v2(ev_ledger_db(l), "SELECT version, hour_number, impressions FROM impressions_by_hour", -1, &q, NULL), SQLITE_OK);
  while (sqlite3_step(q) == SQLITE_ROW)
    assert_int_equal(sqlite3_column_int64(q, 2), w.slate_hours[index_of(version_names, VERSIONS, sqlite3_column_text(q, 0))][sqlite3_column_int(q, 1)]);
  sqlite3_finalize(q);
}

static void totals_are_exact_in_any_order_with_duplicates(void **state) {
  (void)state;
  enum { ALL = 2 * (SLATES + EVENTS) };
  for (uint64_t seed = 1; seed <= 4; seed++) {
    static int order[ALL];
    char name[24];
    ev_rng r;
    make_world(seed);
    ev_rng_seed(&r, seed, 1);
    for (int i = 0; i < ALL; i++) order[i] = i % (SLATES + EVENTS); /* everything comes twice */
    for (int i = ALL - 1; i > 0; i--) {
      int k = (int)ev_rng_below(&r, (uint32_t)i + 1), x = order[i];
      order[i] = order[k];
      order[k] = x;
    }
    snprintf(name, sizeof name, "model%d", (int)seed);
    ev_ledger *l = ledger(name), *other = ledger(name);
    assert_int_equal(ev_ledger_exec(other, "PRAGMA synchronous = OFF"), EV_OK);
    assert_int_equal(ev_ledger_exec(l, "PRAGMA synchronous = OFF"), EV_OK); /* many small commits: the disk is not what is tested */
    for (int at = 0; at < ALL;) {
      ev_impression impressions[64];
      ev_event events[64];
      size_t n_impressions = 0, n_events = 0;
      for (int n = 1 + (int)ev_rng_below(&r, 60); n > 0 && at < ALL; n--, at++) {
        int i = order[at], e = i - SLATES;
        if (i < SLATES) {
          impressions[n_impressions++] = (ev_impression){w.slates[i].id, "u", version_names[w.slates[i].version], 0.1, w.slates[i].time, w.slates[i].shown, 4};
          continue;
        }
        const char *impression = w.events[e].slate < 0 ? NULL : w.events[e].slate < SLATES ? w.slates[w.events[e].slate].id : "never";
        events[n_events++] = (ev_event){w.events[e].id, "u", item_names[w.events[e].item], type_names[w.events[e].type], w.events[e].value, w.events[e].time,
                                        w.events[e].stated < 0 ? NULL : version_names[w.events[e].stated], impression};
      }
      /* Half of the worlds are written by two connections: what one has added up is then worth nothing. */
      put(seed % 2 && ev_rng_below(&r, 20) == 0 ? other : l, impressions, n_impressions, events, n_events);
      if (ev_rng_below(&r, 40) == 0) { /* and so is what was rolled back */
        ev_ledger_receipt receipt;
        ev_event lost = event("lost", "i1", 1);
        assert_int_equal(ledger_begin(l), EV_OK);
        assert_int_equal(ledger_apply(l, &(ev_ledger_batch){.events = &lost, .n_events = 1}, &receipt), EV_OK);
        ledger_rollback(l);
      }
      if (ev_rng_below(&r, 8) == 0) { /* some rows are in the totals when their impression comes, some are not */
        assert_int_equal(ledger_begin(l), EV_OK);
        assert_int_equal(ledger_fold(l), EV_OK);
        assert_int_equal(ledger_commit(l), EV_OK);
      }
      if (ev_rng_below(&r, 30) == 0) assert_int_equal(wrong_totals(l), 0);
    }
    totals_are_the_models(l);
    assert_int_equal(wrong_totals(l), 0);
    assert_int_equal(counter(l, "duplicate_events"), EVENTS);
    assert_int_equal(counter(l, "duplicate_impressions"), SLATES);
    assert_int_equal(counter(l, "conflicting_duplicates"), 0);
    assert_true(counter(l, "joined_late") > EVENTS / 4); /* the order does what it is for */
    /* Everything goes; the totals stay. */
    ev_pruned gone;
    assert_int_equal(ev_ledger_prune(l, HOURS * 3600000 + 1, false, &gone), EV_OK);
    assert_int_equal(gone.impressions, SLATES);
    assert_int_equal(gone.events, EVENTS);
    assert_int_equal(number(l, "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM impressions) + (SELECT count(*) FROM shown)"), 0);
    totals_are_the_models(l);
    sound(l);
    ev_ledger_close(other);
    ev_ledger_close(l);
  }
}

/* ---- Retention -----------------------------------------------------------------------------------------*/
static void retention_keeps_what_is_referred_to_and_refuses_what_may_be_known(void **state) {
  (void)state;
  ev_ledger *l = ledger("prune");
  ev_impression s[] = {slate("old"), slate("old with a late event"), slate("new")};
  ev_event e[] = {about("1", "a", "old"), about("2", "a", "old with a late event"), about("3", "b", "old with a late event"), about("4", "a", "new"), event("5", "a", 1), event("6", "a", 1)};
  s[0].time_ms = s[1].time_ms = 1000;
  s[2].time_ms = 9000;
  e[0].time_ms = e[1].time_ms = e[4].time_ms = 2000;
  e[2].time_ms = e[5].time_ms = 8000;
  e[3].time_ms = 500; /* a clock that is behind: it goes with its impression all the same */
  put(l, s, 3, e, 6);
  ev_pruned gone;
  assert_int_equal(ev_ledger_prune(l, 5000, true, &gone), EV_OK);
  assert_int_equal(gone.impressions, 1);
  assert_int_equal(gone.events, 2);
  assert_int_equal(gone.kept, 1);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 6); /* dry */
  assert_int_equal(ev_ledger_prune(l, 5000, false, &gone), EV_OK);
  assert_int_equal(gone.impressions, 1);
  assert_int_equal(gone.events, 2);
  assert_int_equal(gone.kept, 1);
  assert_int_equal(number(l, "SELECT count(*) FROM events WHERE id IN ('2', '3', '4', '6')"), 4);
  assert_int_equal(number(l, "SELECT count(*) FROM bandit_log WHERE impression = 'old with a late event'"), 2);
  assert_int_equal(number(l, "SELECT sum(events) FROM events_by_hour"), 6);
  assert_int_equal(number(l, "SELECT sum(impressions) FROM impressions_by_hour"), 3);
  /* Sent once more: nobody could tell that they are known, so they are not taken. */
  ev_ledger_receipt r = put(l, s, 3, e, 6);
  assert_int_equal(r.expired, 3); /* the slate that went, and events 1 and 5 */
  assert_int_equal(r.known, 6);
  assert_int_equal(r.new_events + r.new_impressions, 0);
  assert_int_equal(number(l, "SELECT sum(events) FROM events_by_hour"), 6);
  /* Numbers that are free again are not taken for counted ones. */
  assert_int_equal(ev_ledger_prune(l, 100000, false, &gone), EV_OK);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 0);
  ev_event later = event("later", "a", 1);
  put(l, NULL, 0, &later, 1);
  assert_int_equal(number(l, "SELECT sum(events) FROM events_by_hour"), 7);
  ev_ledger_close(l);
}

static void a_trial_that_runs_keeps_its_evidence(void **state) {
  (void)state;
  ev_ledger *l = ledger("trial");
  ev_event e = event("1", "a", 1);
  ev_pruned gone;
  e.version = "challenger";
  e.time_ms = 5000;
  put(l, NULL, 0, &e, 1);
  assert_int_equal(ev_ledger_exec(l, "INSERT INTO promotions (version, action, reason, from_ms, at_ms_wall) VALUES (1, 'canary', 'on trial', 4000, 4000)"), EV_OK);
  assert_int_equal(ev_ledger_prune(l, 4000, false, &gone), EV_OK);
  assert_int_equal(ev_ledger_prune(l, 6000, false, &gone), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "version challenger is on trial since 1970-01-01 00:00:04"));
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 1);
  assert_int_equal(ev_ledger_exec(l, "UPDATE promotions SET until_ms = 6000"), EV_OK);
  assert_int_equal(ev_ledger_prune(l, 6000, false, &gone), EV_OK);
  assert_int_equal(gone.events, 1);
  assert_int_equal(ev_ledger_exec(l, "INSERT INTO promotions (version, action, reason, at_ms_wall) VALUES (99, 'promote', '', 0)"), EV_EIO); /* no such version */
  ev_ledger_close(l);
}

static void an_interrupted_prune_is_whole_as_far_as_it_went(void **state) {
  (void)state;
  ev_ledger *l = ledger("interrupted");
  ev_pruned gone;
  ev_event e = event("1", "a", 1);
  put(l, NULL, 0, &e, 1);
  ev_interrupt();
  assert_int_equal(ev_ledger_prune(l, INT64_C(1800000000000), false, &gone), EV_EINTR);
  ev_interrupt_clear();
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 1);
  ev_ledger_close(l);
}

/* ---- Versions of the schema ----------------------------------------------------------------------------*/
static const char version_1[] = /* as that version made it */
    "PRAGMA journal_mode = WAL;"
    "CREATE TABLE genomes (hash TEXT PRIMARY KEY, composition TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE runs (run TEXT PRIMARY KEY, plan TEXT NOT NULL, data TEXT NOT NULL, data_hash TEXT NOT NULL, seed INTEGER NOT NULL, champion INTEGER, report TEXT,"
    "  started_ms_wall INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE evaluations (run TEXT NOT NULL, number INTEGER NOT NULL, genome TEXT NOT NULL, parent INTEGER, proposer TEXT NOT NULL, reason TEXT NOT NULL, sets TEXT NOT NULL,"
    "  rung INTEGER NOT NULL, users REAL NOT NULL, fold TEXT NOT NULL, seed INTEGER NOT NULL, reward REAL, metrics TEXT, error TEXT, cost_seconds REAL, peak_rss_mb REAL,"
    "  ended_ms_wall INTEGER, PRIMARY KEY (run, number)) WITHOUT ROWID;"
    "CREATE TABLE looks (number INTEGER PRIMARY KEY, data TEXT NOT NULL, data_hash TEXT NOT NULL, genome TEXT NOT NULL, why TEXT NOT NULL, at_ms_wall INTEGER NOT NULL);"
    "CREATE TABLE events (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL, item TEXT NOT NULL, type TEXT NOT NULL, value REAL NOT NULL,"
    "  time_ms INTEGER NOT NULL, version TEXT);"
    "CREATE INDEX events_by_time ON events (time_ms);"
    "PRAGMA user_version = 1;"
    "INSERT INTO genomes VALUES ('g', '{}');"
    "INSERT INTO runs VALUES ('r', '{}', 'd', 'h', 1, 2, NULL, 5);"
    "INSERT INTO evaluations VALUES ('r', 1, 'g', NULL, 'given', '', '{}', 0, 1, 'valid', 1, 0.5, NULL, NULL, 1, 1, 6);"
    "INSERT INTO looks VALUES (1, 'd', 'h', 'g', 'why', 7);"
    "INSERT INTO events VALUES (3, 'a', 'u', 'i', 'click', 1.5, 1700000000123, 'v9'), (7, 'b', 'u', 'j', 'view', 1, 1700000000124, NULL), (8, 'c', 'w', 'i', 'click', 2, 3, 'v2'),"
    "  (9, 'd', 'w', 'i', 'click', 2.5, 1700000000125, 'v9');";

static void a_ledger_of_version_1_becomes_one_of_version_2(void **state) {
  (void)state;
  sqlite3 *db;
  ev_ledger *l;
  assert_int_equal(sqlite3_open(in_folder("one"), &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, version_1, NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(ev_ledger_open_reader(&l, in_folder("one")), EV_EINVAL); /* a reader leaves it as it is */
  assert_non_null(strstr(ev_error(), "older"));
  assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE; INSERT INTO looks VALUES (2, 'd', 'h', 'g', 'why', 8); COMMIT", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  l = ledger("one");
  assert_int_equal(number(l, "PRAGMA user_version"), 2);
  assert_int_equal(number(l, "SELECT (SELECT count(*) FROM genomes) + (SELECT count(*) FROM runs) + (SELECT count(*) FROM evaluations) + (SELECT count(*) FROM looks)"), 5);
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 4);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE number = 3 AND id = 'a' AND user = 'u' AND item = 'i' AND type = 'click' AND value = 1.5"
                             " AND time_ms = 1700000000123 AND version = 'v9' AND impression IS NULL AND waits_for IS NULL"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE version = 'v9'"), 2);
  assert_int_equal(number(l, "SELECT count(*) FROM event_log WHERE id = 'b' AND version IS NULL"), 1);
  assert_int_equal(number(l, "SELECT count(*) FROM versions"), 2);
  assert_int_equal(number(l, "SELECT sum(events) FROM events_by_item"), 4);
  assert_int_equal(wrong_totals(l), 0);
  ev_event again[] = {event("a", "i", 1.5), event("new", "i", 1)};
  assert_int_equal(put(l, NULL, 0, again, 2).new_events, 1); /* ids are known as before */
  sound(l);
  ev_ledger_close(l);
  l = ledger("one");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 5);
  assert_int_equal(wrong_totals(l), 0);
  ev_ledger_close(l);
}

static void a_migration_that_fails_leaves_version_1(void **state) {
  (void)state;
  sqlite3 *db;
  ev_ledger *l;
  assert_int_equal(sqlite3_open(in_folder("half"), &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, version_1, NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "CREATE VIEW impression_log AS SELECT 1", NULL, NULL, NULL), SQLITE_OK); /* what the last steps stumble over */
  assert_int_equal(ev_ledger_open(&l, in_folder("half")), EV_EIO);
  assert_null(l);
  assert_int_equal(sqlite3_exec(db, "SELECT version FROM events WHERE version = 'v9'; INSERT INTO events VALUES (10, 'e', 'w', 'i', 'click', 2, 3, 'v2')", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "DROP VIEW impression_log", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  l = ledger("half");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 5);
  ev_ledger_close(l);
}

static void views_can_all_be_read(void **state) {
  (void)state;
  ev_ledger *l = ledger("views");
  sqlite3_stmt *s, *one;
  int n = 0;
  assert_int_equal(sqlite3_prepare_v2(ev_ledger_db(l), "SELECT 'SELECT count(*) FROM ' || name FROM sqlite_master WHERE type = 'view'", -1, &s, NULL), SQLITE_OK);
  for (; sqlite3_step(s) == SQLITE_ROW; n++) {
    if (sqlite3_prepare_v2(ev_ledger_db(l), (const char *)sqlite3_column_text(s, 0), -1, &one, NULL) != SQLITE_OK) fail_msg("%s", sqlite3_errmsg(ev_ledger_db(l)));
    assert_int_equal(sqlite3_step(one), SQLITE_ROW);
    sqlite3_finalize(one);
  }
  sqlite3_finalize(s);
  assert_int_equal(n, 14);
  assert_int_equal(ev_ledger_exec(l, "INSERT INTO versions VALUES (1, 'a', NULL, NULL, 'given', 0), (2, 'b', 'g', 1, 'mutated', 1000), (3, 'c', 'h', 2, 'again', 2000)"), EV_OK);
  assert_int_equal(number(l, "SELECT count(*) FROM version_lineage WHERE version = 'c'"), 3);
  assert_int_equal(number(l, "SELECT steps FROM version_lineage WHERE version = 'c' AND ancestor = 'a'"), 2);
  ev_ledger_close(l);
}

static ev_status all_of_it(const char *path) {
  ev_ledger *l;
  ev_impression s = slate("s");
  ev_event e[] = {about("1", "a", "s"), about("2", "a", "later"), event(NULL, "x", 1)};
  ev_ledger_receipt r;
  EV_TRY(ev_ledger_open(&l, path));
  ev_status status = ev_ledger_set_range(l, "click", 0, 1);
  if (status == EV_OK) status = ev_ledger_put(l, &(ev_ledger_batch){&s, 1, e, 3}, &r);
  ev_ledger_close(l);
  return status;
}

static void rows_survive_faults(void **state) {
  (void)state;
  ASSERT_SURVIVES_FAULTS(all_of_it(in_folder("faults")), );
  ev_ledger *l = ledger("faults");
  assert_int_equal(number(l, "SELECT count(*) FROM events"), 3);
  assert_int_equal(number(l, "SELECT count(*) FROM shown"), 2);
  assert_int_equal(wrong_totals(l), 0);
  ev_ledger_close(l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_event_joins_its_impression_whichever_comes_first), cmocka_unit_test(the_impression_knows_the_version_better),
      cmocka_unit_test(duplicates_count_once_and_are_counted), cmocka_unit_test(what_is_wrong_is_named_and_keeps_out_the_whole_batch),
      cmocka_unit_test(values_stay_in_their_range_whoever_sets_it), cmocka_unit_test(a_clock_that_goes_back_is_counted_and_orders_nothing_anew),
      cmocka_unit_test(totals_are_exact_in_any_order_with_duplicates), cmocka_unit_test(retention_keeps_what_is_referred_to_and_refuses_what_may_be_known),
      cmocka_unit_test(a_trial_that_runs_keeps_its_evidence), cmocka_unit_test(an_interrupted_prune_is_whole_as_far_as_it_went),
      cmocka_unit_test(a_ledger_of_version_1_becomes_one_of_version_2), cmocka_unit_test(a_migration_that_fails_leaves_version_1),
      cmocka_unit_test(views_can_all_be_read), cmocka_unit_test(rows_survive_faults),
  };
  return RUN(tests);
}
