/* What is kept of the latest slates while a canary runs: who proposed an item, within bounds. */
#include <pthread.h>

#include "support.h"

#include "../../runtime/serve/inside.h"

static const char champion[32][48] = {"ease", "popular"}, challenger[32][48] = {"popular", "arrivals", [31] = "last"};

static void id_of(char out[40], uint64_t origin, uint64_t n) { snprintf(out, 40, "%016llx-%llx", (unsigned long long)origin, (unsigned long long)n); }

static void add(lately *s, uint64_t origin, uint64_t number, const char (*recalls)[48], uint32_t first, uint32_t n, uint32_t sources) {
  static _Thread_local ev_answer a;
  char id[40];
  a.n = n;
  for (uint32_t i = 0; i < n; i++) a.picks[i] = (ev_pick){.item = first + i, .sources = sources};
  id_of(id, origin, number);
  lately_add(s, id, recalls, &a);
}

static size_t asked(lately *s, uint64_t origin, uint64_t number, uint32_t item, const char *out[32]) {
  char id[40];
  id_of(id, origin, number);
  return lately_agents(s, id, item, out);
}

static void an_item_is_credited_to_those_who_proposed_it_in_that_slate(void **state) {
  (void)state;
  const char *who[32];
  lately *s = lately_new();
  add(s, 7, 1, champion, 10, 5, 1);
  add(s, 7, 2, challenger, 10, 5, 3);
  add(s, 8, 1, challenger, 12, 1, 0x80000002u);
  add(s, 8, 2, NULL, 10, 3, 0);
  assert_int_equal(asked(s, 7, 1, 14, who), 1);
  assert_string_equal(who[0], "ease");
  assert_int_equal(asked(s, 7, 2, 14, who), 2);
  assert_string_equal(who[0], "popular");
  assert_string_equal(who[1], "arrivals");
  assert_int_equal(asked(s, 8, 1, 12, who), 2);
  assert_string_equal(who[0], "arrivals");
  assert_string_equal(who[1], "last");
  assert_int_equal(asked(s, 8, 2, 12, who), 1);
  assert_string_equal(who[0], "fallback");
  assert_int_equal(asked(s, 7, 1, 15, who), 0); /* not in the slate */
  assert_int_equal(asked(s, 7, 3, 10, who), 0); /* no such slate */
  assert_int_equal(asked(s, 9, 1, 10, who), 0);
  lately_free(s);
  lately_free(NULL);
}

static void what_is_no_id_of_ours_is_nobodys(void **state) {
  (void)state;
  static const char *const ids[] = {"", "-", "x", "0000000000000007", "0000000000000007-", "0000000000000007-g", "0000000000000007-1-", "000000000000000A-1", "-0000000000000007",
                                    "0000000000000007-00000000000000000", "00000000000000007-1", "0000000000000007 1"};
  const char *who[32];
  ev_answer *a = calloc(1, sizeof *a);
  lately *s = lately_new();
  add(s, 7, 1, champion, 0, 10, 1);
  a->n = 1;
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
    lately_add(s, ids[i], champion, a);
    assert_int_equal(lately_agents(s, ids[i], 0, who), 0);
  }
  assert_int_equal(lately_agents(s, NULL, 0, who), 0);
  assert_int_equal(asked(s, 7, 1, 0, who), 1);
  free(a);
  lately_free(s);
}

static void the_latest_slates_are_kept_and_the_oldest_go(void **state) {
  (void)state;
  const char *who[32];
  lately *s = lately_new();
  const uint64_t n = 3 * LATELY_SLATES / 2;
  for (uint64_t i = 1; i <= n; i++) add(s, i % 3, i, champion, (uint32_t)i, 2, 1 + i % 2);
  for (uint64_t i = 1; i <= n; i++) {
    size_t k = asked(s, i % 3, i, (uint32_t)i, who);
    assert_int_equal(k, i > n - LATELY_SLATES);
    if (k > 0) assert_string_equal(who[0], champion[i % 2]);
  }
  lately_free(s);
}

static void large_slates_take_no_more_memory_and_push_the_oldest_out(void **state) {
  (void)state;
  const char *who[32];
  lately *s = lately_new();
  const uint64_t n = 3 * LATELY_ITEMS / SLATE_MAX, kept = LATELY_ITEMS / SLATE_MAX;
  for (uint64_t i = 1; i <= n; i++) add(s, 1, i, champion, (uint32_t)(1000 * i), SLATE_MAX, 2);
  for (uint64_t i = 1; i <= n; i++) {
    assert_int_equal(asked(s, 1, i, (uint32_t)(1000 * i + SLATE_MAX - 1), who), i > n - kept);
    assert_int_equal(asked(s, 1, i, (uint32_t)(1000 * i), who), i > n - kept);
  }
  lately_free(s);
}

static void more_versions_than_there_is_room_for_are_left_out(void **state) {
  (void)state;
  const char *who[32];
  lately *s = lately_new();
  for (uint64_t i = 1; i <= 100; i++) {
    char recalls[32][48] = {{0}};
    snprintf(recalls[0], sizeof recalls[0], "agent%llu", (unsigned long long)i);
    add(s, 1, i, (const char (*)[48])recalls, 5, 1, 1);
  }
  for (uint64_t i = 1; i <= 100; i++) {
    char name[48];
    snprintf(name, sizeof name, "agent%llu", (unsigned long long)i);
    assert_int_equal(asked(s, 1, i, 5, who), i <= 64);
    if (i <= 64) assert_string_equal(who[0], name);
  }
  add(s, 2, 1, NULL, 5, 1, 0);
  assert_int_equal(asked(s, 2, 1, 5, who), 1);
  lately_free(s);
}

static lately *shared;
static void *work(void *arg) {
  const char *who[32];
  uint64_t origin = (uint64_t)(uintptr_t)arg;
  for (uint64_t i = 1; i <= 20000; i++) {
    add(shared, origin, i, origin % 2 == 0 ? champion : challenger, (uint32_t)i, 10, 2);
    size_t n = asked(shared, origin, i, (uint32_t)i + 9, who);
    if (n != 1 || strcmp(who[0], origin % 2 == 0 ? "popular" : "arrivals") != 0) return "wrong";
    asked(shared, origin + 1, i, (uint32_t)i, who);
  }
  return NULL;
}

static void threads_add_and_ask_at_once(void **state) {
  (void)state;
  pthread_t t[4];
  shared = lately_new();
  for (uintptr_t i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, work, (void *)(i + 1)), 0);
  for (int i = 0; i < 4; i++) {
    void *wrong;
    pthread_join(t[i], &wrong);
    assert_null(wrong);
  }
  lately_free(shared);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_item_is_credited_to_those_who_proposed_it_in_that_slate),
      cmocka_unit_test(what_is_no_id_of_ours_is_nobodys),
      cmocka_unit_test(the_latest_slates_are_kept_and_the_oldest_go),
      cmocka_unit_test(large_slates_take_no_more_memory_and_push_the_oldest_out),
      cmocka_unit_test(more_versions_than_there_is_room_for_are_left_out),
      cmocka_unit_test(threads_add_and_ask_at_once),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
