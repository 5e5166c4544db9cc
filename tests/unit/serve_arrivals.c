/* The latest new items: ordered, told to workers whole or not at all, the same after a restart; deleted and hidden ones are not among them. */
#include <pthread.h>

#include "catalog_world.h"

#define OK(x)                                                                                 \
  do {                                                                                        \
    ev_status is_ = (x);                                                                      \
    if (is_ != EV_OK) fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, ev_status_name(is_), ev_error()); \
  } while (0)

static ev_snapshot *world;
static arrival list[ARRIVALS_MAX + 1];

/* ---- The list against one that is sorted anew each time ---------------------------------------------------*/
static int youngest_first(const void *a, const void *b) {
  const arrival *x = a, *y = b;
  if (x->time_ms != y->time_ms) return x->time_ms > y->time_ms ? -1 : 1;
  return x->item > y->item ? -1 : x->item < y->item;
}

static void an_ordered_list_has_the_youngest(void **s) {
  (void)s;
  static arrival all[4096];
  size_t n = 0, n_all = 0;
  uint64_t rng = 7;
  for (int round = 0; round < 20000; round++) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    uint32_t item = (uint32_t)(rng >> 33) % 400;
    size_t at = 0;
    while (at < n_all && all[at].item != item) at++;
    if (at < n_all) all[at] = all[--n_all];
    if (round % 5 == 0) {
      bool had = false;
      for (size_t i = 0; i < n; i++) had = had || list[i].item == item;
      size_t less = arrivals_remove(list, n, item);
      assert_int_equal(less, n - had);
      n = less;
      n_all = n; /* what fell off the end does not come back */
      memcpy(all, list, n * sizeof *all);
      continue;
    }
    all[n_all++] = (arrival){item, (int64_t)(rng >> 20) % 1000};
    n = arrivals_insert(list, n, all[n_all - 1]);
    qsort(all, n_all, sizeof *all, youngest_first);
    if (n_all > ARRIVALS_MAX) n_all = ARRIVALS_MAX;
    assert_int_equal(n, n_all);
    for (size_t i = 0; i < n; i++) assert_true(list[i].item == all[i].item && list[i].time_ms == all[i].time_ms);
  }
  assert_int_equal(n > 200, 1);
}

/* ---- The board ---------------------------------------------------------------------------------------------*/
static board *b;
static _Atomic bool over;

/* Lists whose length and numbers follow from the first: torn ones show. */
static void *writes(void *arg) {
  static arrival own[ARRIVALS_MAX];
  (void)arg;
  for (uint32_t k = 1; k < 40000; k++) {
    size_t n = 1 + k % ARRIVALS_MAX;
    for (uint32_t i = 0; i < n; i++) own[i] = (arrival){k + i, (int64_t)k * 1000 - i};
    arrivals_put(b, own, n);
  }
  atomic_store(&over, true);
  return NULL;
}

static void a_reader_never_sees_half_a_list(void **s) {
  (void)s;
  pthread_t t;
  size_t whole = 0;
  b = calloc(1, sizeof *b);
  assert_int_equal(arrivals_get(b, list), 0);
  assert_int_equal(pthread_create(&t, NULL, writes, NULL), 0);
  while (!atomic_load(&over)) {
    size_t n = arrivals_get(b, list);
    if (n == 0) continue;
    uint32_t k = list[0].item;
    if (n != 1 + k % ARRIVALS_MAX) fail_msg("a list of %zu for round %u", n, k);
    for (uint32_t i = 0; i < n; i++)
      if (list[i].item != k + i || list[i].time_ms != (int64_t)k * 1000 - i) fail_msg("place %u of round %u", i, k);
    whole++;
  }
  pthread_join(t, NULL);
  assert_true(whole > 0);
  assert_int_equal(arrivals_get(b, list), 1 + 39999 % ARRIVALS_MAX);
  atomic_fetch_add(&b->arrivals.sequence, 1); /* as a writer that was killed leaves it */
  assert_int_equal(arrivals_get(b, list), 0);
  arrivals_put(b, list, 0);
  assert_int_equal(arrivals_get(b, list), 0);
  arrivals_put(b, (arrival[]){{5, 6}}, 1);
  assert_int_equal(arrivals_get(b, list), 1);
  assert_int_equal(list[0].item, 5);
  atomic_store(&b->arrivals.n, UINT32_MAX); /* whatever is in it, no more than there is room for */
  assert_int_equal(arrivals_get(b, list), ARRIVALS_MAX);
  free(b);
}

/* ---- The catalog --------------------------------------------------------------------------------------------*/
static void listed(const char *should) { /* ids, separated by spaces */
  char is[4096] = "", id[USER_MAX + 1];
  extern catalog *open_one;
  size_t n = arrivals_get(&the_board, list);
  for (size_t i = 0; i < n; i++) {
    assert_true(catalog_id(open_one, list[i].item, id));
    snprintf(is + strlen(is), sizeof is - strlen(is), "%s%s", i > 0 ? " " : "", id);
    assert_true(i == 0 || list[i].time_ms <= list[i - 1].time_ms);
  }
  assert_string_equal(is, should);
}
catalog *open_one;

static void what_is_put_is_listed_until_it_is_hidden_or_deleted(void **s) {
  (void)s;
  catalog *c = open_one = open_catalog(world, "arrivals");
  static const char *const unheard[] = {"heard_of"};
  int64_t before = ev_wall_ms();
  listed("");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i7', 'year': 1}", false)); /* the snapshot's */
  OK(put_text(c, CATALOG_USER, "{'id': 'new_user'}", false));
  OK(catalog_ensure(c, unheard, 1)); /* by feedback alone: nobody has put it */
  listed("");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n1', 'year': 1999}", false));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n2'}", false));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n3', 'hidden': true}", false));
  listed("n2 n1");
  assert_true(list[0].time_ms >= before && list[0].time_ms <= ev_wall_ms());
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n1', 'year': 2000}", false)); /* again: it came when it came */
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n1', 'title': 'One'}", true));
  listed("n2 n1");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n2', 'hidden': true}", true));
  listed("n1");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n3', 'hidden': false}", true));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n2', 'hidden': false}", true));
  listed("n3 n2 n1"); /* n2 where it was */
  OK(put_text(c, CATALOG_ITEM, "{'id': 'heard_of', 'title': 'Now it is'}", true));
  OK(catalog_delete(c, CATALOG_ITEM, "n2"));
  OK(catalog_delete(c, CATALOG_ITEM, "i7"));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i7'}", false));
  size_t n = arrivals_get(&the_board, list);
  assert_int_equal(n, 3);
  json_t *shown = catalog_get(c, CATALOG_ITEM, "n1");
  assert_null(json_object_get(shown, "_put"));
  json_decref(shown);
  catalog_close(c);
  c = open_one = open_catalog(world, "arrivals");
  listed("heard_of n3 n1");
  for (size_t i = 0; i < 3; i++) assert_true(list[i].time_ms >= before && list[i].time_ms <= ev_wall_ms());
  OK(catalog_delete(c, CATALOG_ITEM, "heard_of"));
  assert_int_equal(arrivals_get(&the_board, list), 2);
  catalog_close(c);
  c = open_one = open_catalog(world, "arrivals");
  assert_int_equal(arrivals_get(&the_board, list), 2);
  catalog_close(c);
}

static void of_many_the_latest_are_listed(void **s) {
  (void)s;
  catalog *c = open_one = open_catalog(world, "many");
  char id[USER_MAX + 1];
  enum { N = 3 * ARRIVALS_MAX };
  static json_t *entries[N];
  for (int i = 0; i < N; i++) entries[i] = json_pack("{s:i}", "id", 10000 + i);
  OK(catalog_put(c, CATALOG_ITEM, (const json_t *const *)entries, N, false));
  assert_int_equal(arrivals_get(&the_board, list), ARRIVALS_MAX);
  for (size_t i = 0; i < ARRIVALS_MAX; i++) assert_true(list[i].item >= WORLD_ITEMS + N - ARRIVALS_MAX - 4); /* the clock may tick in between */
  assert_true(catalog_id(c, list[0].item, id));
  for (int i = 0; i < N; i++) json_decref(entries[i]);
  catalog_close(c);
}

static int begin(void **s) {
  if (make_folder(s) != 0) return -1;
  world = make_world();
  return 0;
}

static int end(void **s) {
  ev_snapshot_close(world);
  free(the_masks);
  return remove_folder(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_ordered_list_has_the_youngest),
      cmocka_unit_test(a_reader_never_sees_half_a_list),
      cmocka_unit_test(what_is_put_is_listed_until_it_is_hidden_or_deleted),
      cmocka_unit_test(of_many_the_latest_are_listed),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
