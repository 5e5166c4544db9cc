/* Nodes that fail, hang, write nonsense or take all memory cost their own part of the slate and nothing else. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "asks_world.h"

#define MS 1000000ull

/* A composition with a wild node of a role, over two recalls; and the same without that node. */
static const char *with(const char *role) {
  wild(role);
  if (strcmp(role, "recall") == 0)
    return "nodes:\n  a: { agent: item_knn, n: 40 }\n  w: { agent: wild_recall.lua, n: 40 }\n  m: { agent: rank_fusion, from: [a, w] }\noutput: m\n";
  static char text[512];
  snprintf(text, sizeof text,
           "nodes:\n  a: { agent: item_knn, n: 40 }\n  b: { agent: popular, n: 40 }\n  m: { agent: %s, from: [a, b] }\n%s%s%soutput: %s\n",
           strcmp(role, "merge") == 0 ? "wild_merge.lua" : "rank_fusion", strcmp(role, "merge") == 0 ? "" : "  w: { agent: wild_", strcmp(role, "merge") == 0 ? "" : role,
           strcmp(role, "merge") == 0 ? "" : ".lua, from: m }\n", strcmp(role, "merge") == 0 ? "m" : "w");
  return text;
}

static void a_node_that_fails_is_left_out(void **state) {
  (void)state;
  static const char *const roles[] = {"recall", "merge", "rank", "rerank", "explore"};
  uint32_t history[1100], seen[ITEMS];
  for (size_t r = 0; r < 5; r++) {
    ev_host *h = serve(with(roles[r])), *without = serve(r == 0 ? "nodes:\n  a: { agent: item_knn, n: 40 }\n  m: { agent: rank_fusion, from: a }\noutput: m\n"
                                                                : with("explore"));
    const char *name = r == 1 ? "m" : "w";
    ev_ask ask = order(0, history, seen), failing;
    ev_answer whole = asked(h, &ask);
    assert_int_equal(whole.degraded, 0);
    assert_true(whole.cut[0] == '\0' && whole.why[0] == '\0');
    for (int k = 1; k <= 21; k += k == 1 ? 14 : 6) { /* 1, 15, 21: a message, none, one that is no text */
      failing = order(k, history, seen);
      ev_answer answer = asked(h, &failing);
      assert_int_equal(answer.degraded, 1);
      assert_string_equal(answer.cut, name);
      if (k == 1) assert_non_null(strstr(answer.why, "planted"));
      assert_int_equal(ev_utf8_invalid(answer.why, strlen(answer.why)), strlen(answer.why));
      if (k == 21) assert_non_null(strstr(answer.why, "????"));
      assert_true(answer.why[0] != '\0');
      if (r == 1) { /* by the best rank of either: the two first places are those of the inputs */
        assert_int_equal(answer.n, 10);
        assert_true(answer.picks[0].score == 1 && answer.picks[9].score < 1);
      } else {
        ev_ask same = failing;
        ev_answer plain;
        same.n_history = r == 0 ? failing.n_history : 1000; /* the wild node of `without` does nothing then */
        plain = asked(without, &same);
        if (r == 0) assert_same_items(&plain, &answer);
        else assert_int_equal(plain.degraded, 0);
        if (r > 1) {
          assert_int_equal(answer.n, 10); /* not the one that was left when it failed */
          assert_same_items(&whole, &answer); /* and in its order: the wild node does nothing of its own */
        }
      }
    }
    ev_answer again = asked(h, &ask);
    assert_same_items(&whole, &again); /* nothing of it stays */
    assert_int_equal(again.degraded, 0);
    ev_host_free(without);
    ev_host_free(h);
  }
}

static void without_any_slate_it_is_an_error(void **state) {
  (void)state;
  wild("recall");
  ev_host *h = serve("nodes:\n  w: { agent: wild_recall.lua, n: 40 }\n  m: { agent: rank_fusion, from: w }\noutput: m\n");
  uint32_t history[1100], seen[ITEMS];
  ev_ask ask = order(1, history, seen);
  ev_answer answer;
  assert_int_equal(ev_host_recommend(h, &ask, &answer, NULL, NULL, NULL), EV_ESCRIPT);
  assert_non_null(strstr(ev_error(), "node w: "));
  assert_non_null(strstr(ev_error(), "planted"));
  ask = order(20, history, seen); /* an empty slate by choice is one */
  answer = asked(h, &ask);
  assert_true(answer.n == 0 && answer.degraded == 0);
  ev_host_free(h);
}

static void what_cannot_answer_is_not_loaded(void **state) {
  (void)state;
  text_file("never.lua", "local agent = require 'evection.agent'\nreturn agent { name = 'never', role = 'rerank', about = 'x', act = function() error 'planted' end }\n");
  text_file("c.yaml", "nodes:\n  a: { agent: popular }\n  never: { agent: never.lua, from: a }\noutput: never\n");
  char home[128], args[512];
  snprintf(home, sizeof home, "%s/home", folder);
  ev_host *h;
  ev_host_options o = {.root = ".", .home = home};
  assert_int_equal(ev_host_new(&h, &o), EV_OK);
  snprintf(args, sizeof args, "{\"composition\": \"%s\", \"data\": \"world\"}", in_folder("c.yaml"));
  assert_int_equal(ev_host_serve(h, args, NULL), EV_ESCRIPT);
  assert_non_null(strstr(ev_error(), "node never: act: "));
  ev_host_free(h);
}

/* ---- Nonsense ------------------------------------------------------------------------------------------*/
static void a_slate_that_is_none_is_found_out(void **state) {
  (void)state;
  static const struct {
    int k;
    const char *why;
  } wrong[] = {{5, "twice"}, {6, "no such item"}, {7, "seen"}, {8, "no number"}, {9, "no number"}};
  wild("recall");
  ev_host *h = serve("agent:popular");
  ev_host_free(h);
  h = serve("nodes:\n  w: { agent: wild_recall.lua, n: 40 }\noutput: w\n");
  uint32_t history[1100], seen[ITEMS];
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    ev_ask ask = order(wrong[i].k, history, seen);
    ev_answer answer;
    assert_int_equal(ev_host_recommend(h, &ask, &answer, NULL, NULL, NULL), EV_ECORRUPT);
    if (strstr(ev_error(), wrong[i].why) == NULL || strstr(ev_error(), "node w: ") == NULL) fail_msg("%s: not '%s'", ev_error(), wrong[i].why);
  }
  uint64_t barred[2] = {0};
  ev_ask ask = order(7, history, seen); /* barred instead of seen */
  ev_answer answer;
  barred[0] = UINT64_C(1) << 7;
  ask.barred = barred;
  ask.n_seen = 0;
  assert_int_equal(ev_host_recommend(h, &ask, &answer, NULL, NULL, NULL), EV_ECORRUPT);
  ask = order(0, history, seen);
  answer = asked(h, &ask);
  assert_int_equal(answer.n, 10);
  ev_host_free(h);
}

/* Places of the table that finds items twice, all of them in use, and those that collide. */
static void any_item_twice_is_found_out(void **state) {
  (void)state;
  text_file("twice.lua", "local agent = require 'evection.agent'\n"
                         "return agent { name = 'twice', role = 'recall', about = 'x', act = function(_, request, slate)\n"
                         "  local h = request.user and {} or request:history()\n"
                         "  for i, item in ipairs(h) do slate:push(item, -i) end\n"
                         "end }\n");
  ev_host *h = serve("nodes:\n  t: { agent: twice.lua, n: 500 }\noutput: t\n");
  uint32_t history[ITEMS + 1];
  ev_rng rng;
  ev_rng_seed(&rng, 4, 0);
  for (int round = 0; round < 300; round++) {
    size_t n = 1 + ev_rng_below(&rng, ITEMS);
    for (uint32_t i = 0; i < ITEMS; i++) history[i] = i;
    for (uint32_t i = ITEMS - 1; i > 0; i--) {
      uint32_t j = ev_rng_below(&rng, i + 1), x = history[i];
      history[i] = history[j];
      history[j] = x;
    }
    ev_ask ask = {.user = EV_NONE, .history = history, .n_history = n, .n = 500};
    ev_answer answer = asked(h, &ask);
    assert_int_equal(answer.n, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(answer.picks[i].item, history[i]);
    history[n] = history[ev_rng_below(&rng, (uint32_t)n)];
    ask.n_history = n + 1;
    assert_int_equal(ev_host_recommend(h, &ask, &answer, NULL, NULL, NULL), EV_ECORRUPT);
  }
  ev_host_free(h);
}

/* ---- Time ----------------------------------------------------------------------------------------------*/
static double ms_of(ev_host *h, ev_ask *ask, double deadline_ms, ev_answer *answer) {
  uint64_t start = ev_now_ns();
  ask->deadline_ns = start + (uint64_t)(deadline_ms * 1e6);
  if (ev_host_recommend(h, ask, answer, NULL, NULL, NULL) != EV_OK) fail_msg("%s", ev_error());
  return (double)(ev_now_ns() - start) * 1e-6;
}

static void a_node_that_is_late_is_cut(void **state) {
  (void)state;
  ev_host *h = serve(with("rerank"));
  uint32_t history[1100], seen[ITEMS];
  ev_ask ask = order(0, history, seen);
  ev_answer whole = asked(h, &ask), answer;
  for (int round = 0; round < 6; round++) {
    ask = order(2 + round % 2, history, seen); /* a loop, and one that catches every error */
    double ms = ms_of(h, &ask, 60, &answer);
    assert_int_equal(answer.degraded, 1);
    assert_string_equal(answer.cut, "w");
    assert_non_null(strstr(answer.why, "not back after"));
    assert_same_items(&whole, &answer);
    assert_true(ms > 40); /* its share: what is left, but for a reserve */
    if (ms > 1000) fail_msg("cut after %g ms", ms); /* a busy machine is no excuse beyond that */
    ask = order(0, history, seen);
    ms_of(h, &ask, 10000, &answer); /* the next one has its own time */
    assert_int_equal(answer.degraded, 0);
    assert_same_items(&whole, &answer);
  }
  for (int i = 0; i < 300; i++) { /* compiled again, and past alarms of requests that are long answered */
    ms_of(h, &ask, 10000, &answer);
    assert_int_equal(answer.degraded, 0);
  }
  ev_host_free(h);
}

static void a_recall_that_is_late_costs_its_own_items(void **state) {
  (void)state;
  wild("recall");
  ev_host *h = serve("nodes:\n  a: { agent: wild_recall.lua, n: 40, budget: { latency_ms: 20 } }\n  b: { agent: item_knn, n: 40 }\n"
                     "  m: { agent: rank_fusion, from: [a, b] }\noutput: m\n");
  ev_host *without = serve("nodes:\n  b: { agent: item_knn, n: 40 }\n  m: { agent: rank_fusion, from: b }\noutput: m\n");
  uint32_t history[1100], seen[ITEMS];
  ev_ask ask = order(2, history, seen);
  ev_answer answer, plain = asked(without, &ask);
  double ms = ms_of(h, &ask, 20000, &answer);
  assert_int_equal(answer.degraded, 1);
  assert_string_equal(answer.cut, "a");
  assert_same_items(&plain, &answer);
  assert_true(ms > 15 && ms < 2000);
  ask.deadline_ns = 0; /* its own budget holds without any deadline */
  answer = asked(h, &ask);
  assert_string_equal(answer.cut, "a");
  ev_host_free(h);
  ev_host_free(without);
}

static void when_the_time_is_over_the_rest_passes_on(void **state) {
  (void)state;
  wild("rank");
  wild("recall");
  ev_host *h = serve("nodes:\n  a: { agent: item_knn, n: 40 }\n  w: { agent: wild_rank.lua, from: a }\n  x: { agent: mmr, from: w }\noutput: x\nbudget: { latency_ms: 30 }\n");
  ev_host *without = serve("nodes:\n  a: { agent: item_knn, n: 40 }\n  w: { agent: wild_rank.lua, from: a }\noutput: w\n");
  uint32_t history[1100], seen[ITEMS];
  ev_ask ask = order(2, history, seen), quiet = order(0, history, seen);
  ev_answer answer, plain = asked(without, &quiet);
  double ms = ms_of(h, &ask, 20000, &answer); /* the composition's own budget */
  assert_string_equal(answer.cut, "w");
  assert_same_items(&plain, &answer);
  assert_true(ms > 20 && ms < 2000);
  ask.explain = true;
  ev_buf text = {0};
  ask.deadline_ns = ev_now_ns() + 60 * MS;
  assert_int_equal(ev_host_recommend(h, &ask, &answer, &text, NULL, NULL), EV_OK);
  json_t *document = json_loadb(text.data, text.len, 0, NULL), *nodes = json_object_get(document, "nodes");
  assert_null(json_object_get(json_array_get(nodes, 0), "cut"));
  assert_non_null(strstr(json_string_value(json_object_get(json_array_get(nodes, 1), "cut")), "not back"));
  assert_non_null(json_object_get(json_array_get(nodes, 2), "cut")); /* it never began */
  json_decref(document);
  ev_buf_free(&text);
  ask = quiet;
  ask.deadline_ns = ev_now_ns() - MS;
  assert_int_equal(ev_host_recommend(h, &ask, &answer, NULL, NULL, NULL), EV_ELIMIT);
  ev_host_free(h);
  ev_host_free(without);
}

/* ---- What there is in between ------------------------------------------------------------------------*/
typedef struct seen_so_far {
  int calls, stop_at;
  ev_answer last;
} seen_so_far;

static bool note(void *ctx, const ev_answer *so_far) {
  seen_so_far *s = ctx;
  s->last = *so_far;
  return ++s->calls != s->stop_at;
}

static void the_best_so_far_is_shown_in_between(void **state) {
  (void)state;
  ev_host *h = serve(with("rerank"));
  ev_host *m = serve("nodes:\n  a: { agent: item_knn, n: 40 }\n  b: { agent: popular, n: 40 }\n  m: { agent: rank_fusion, from: [a, b] }\noutput: m\n");
  uint32_t history[1100], seen[ITEMS];
  ev_ask ask = order(0, history, seen);
  seen_so_far s = {0};
  ev_answer answer, fused = asked(m, &ask);
  assert_int_equal(ev_host_recommend(h, &ask, &answer, NULL, note, &s), EV_OK);
  assert_int_equal(s.calls, 2); /* after the first recall and after the merge; the second recall is no better than the first */
  assert_same_items(&fused, &s.last);
  assert_int_equal(s.last.degraded, 0);
  for (int stop = 1; stop <= 2; stop++) {
    s = (seen_so_far){.stop_at = stop};
    assert_int_equal(ev_host_recommend(h, &ask, &answer, NULL, note, &s), EV_EINTR);
    assert_int_equal(s.calls, stop);
  }
  ev_host_free(h);
  ev_host_free(m);
  h = serve("nodes:\n  r: { agent: popular, n: 40 }\n  w: { agent: wild_rerank.lua, from: r }\n  x: { agent: mmr, from: w }\noutput: x\n");
  for (int k = 5; k <= 9; k++) { /* what is wrong in between is left out of it */
    ask = order(k, history, seen);
    s = (seen_so_far){0};
    ev_status status = ev_host_recommend(h, &ask, &answer, NULL, note, &s);
    assert_true(status == EV_OK || status == EV_ECORRUPT);
    assert_int_equal(s.last.n, 10);
    bool there[ITEMS] = {false};
    for (size_t i = 0; i < 10; i++) {
      assert_true(s.last.picks[i].item < ITEMS && s.last.picks[i].item != 7 && !there[s.last.picks[i].item] && isfinite(s.last.picks[i].score));
      there[s.last.picks[i].item] = true;
    }
  }
  ask = order(1, history, seen);
  s = (seen_so_far){0};
  assert_int_equal(ev_host_recommend(h, &ask, &answer, NULL, note, &s), EV_OK);
  assert_int_equal(s.calls, 1); /* a slate that was passed on is the one that was shown */
  ev_host_free(h);
}

typedef struct shared {
  volatile uint32_t n, done;
  ev_pick picks[EV_ASK_MAX];
} shared;

static bool publish(void *ctx, const ev_answer *so_far) {
  shared *s = ctx;
  memcpy(s->picks, so_far->picks, so_far->n * sizeof *s->picks);
  s->n = so_far->n;
  return true;
}

static void a_compiled_endless_loop_leaves_what_there_was(void **state) {
  (void)state;
  wild("rerank");
  ev_host *h = serve("nodes:\n  r: { agent: item_knn, n: 40 }\n  w: { agent: wild_rerank.lua, from: r }\noutput: w\n");
  uint32_t history[1100], seen[ITEMS];
  ev_ask ask = order(0, history, seen);
  ev_answer answer = asked(h, &ask);
  shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(s != MAP_FAILED);
  for (int k = 4; k >= 0; k -= 4) { /* the loop; and the same process kept out of it comes back */
    memset(s, 0, sizeof *s);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
      ask = order(k, history, seen);
      ask.deadline_ns = ev_now_ns() + 20 * MS;
      ev_status status = ev_host_recommend(h, &ask, &answer, NULL, publish, s);
      s->done = status == EV_OK ? 1 : 2;
      _exit(0);
    }
    if (k == 4) {
      usleep(400000); /* the interpreter notices its time soon; compiled code never */
      assert_int_equal(s->done, 0);
      assert_int_equal(kill(pid, SIGKILL), 0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(s->done, k == 4 ? 0 : 1);
    assert_int_equal(s->n, 10);
    for (size_t i = 0; i < 10; i++) assert_int_equal(s->picks[i].item, answer.picks[i].item);
  }
  munmap(s, sizeof *s);
  ev_host_free(h);
}

/* The timer of a parent is not a child's: it must make its own. */
static void a_forked_child_has_its_own_time(void **state) {
  (void)state;
  ev_host *h = serve(with("rerank"));
  uint32_t history[1100], seen[ITEMS];
  ev_ask ask = order(0, history, seen);
  ev_answer answer;
  ms_of(h, &ask, 5000, &answer); /* the parent's timer is under way */
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    alarm(10);
    ask = order(2, history, seen);
    ask.deadline_ns = ev_now_ns() + 40 * MS;
    _exit(ev_host_recommend(h, &ask, &answer, NULL, NULL, NULL) == EV_OK && answer.degraded ? 7 : 8);
  }
  int how;
  assert_int_equal(waitpid(pid, &how, 0), pid);
  assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 7);
  ev_host_free(h);
}

/* ---- Memory --------------------------------------------------------------------------------------------*/
static void a_node_that_takes_all_memory_is_left_out(void **state) {
  (void)state;
  ev_host *h = serve_capped(with("rerank"), (size_t)48 << 20, NULL);
  uint32_t history[1100], seen[ITEMS];
  ev_ask ask = order(0, history, seen);
  ev_answer whole = asked(h, &ask);
  for (int k = 10; k <= 16; k++) {
    if (k == 15) continue;
    ask = order(k, history, seen);
    ask.deadline_ns = ev_now_ns() + 5000 * MS;
    if (k == 16) ask.deadline_ns = ev_now_ns() + 300 * MS; /* it catches the error, again and again */
    ev_answer answer = asked(h, &ask);
    if (answer.degraded != 1) fail_msg("order %d: it got through", k);
    assert_string_equal(answer.cut, "w");
    if (k <= 13 && strstr(answer.why, "memory") == NULL) fail_msg("order %d: %s", k, answer.why);
    assert_same_items(&whole, &answer);
    ask = order(0, history, seen);
    answer = asked(h, &ask);
    assert_int_equal(answer.degraded, 0); /* there is room again */
    assert_same_items(&whole, &answer);
  }
  assert_true(ev_peak_rss_bytes() < (size_t)700 << 20);
  ev_host_free(h);
}

static void garbage_is_no_reason_to_fail(void **state) {
  (void)state;
  text_file("waster.lua", "local agent = require 'evection.agent'\n"
                          "return agent { name = 'waster', role = 'rerank', about = 'x', act = function(_, request, slate)\n"
                          "  if request.n_history > 1000 then for _ = 1, 10 do local v = vector(1000000):add(vector(1000000)) end end\n"
                          "end }\n");
  ev_host *h = serve_capped("nodes:\n  r: { agent: popular, n: 40 }\n  a: { agent: waster.lua, from: r }\n  b: { agent: waster.lua, from: a }\noutput: b\n",
                            (size_t)40 << 20, NULL);
  uint32_t history[1100], seen[ITEMS];
  for (int i = 0; i < 6; i++) { /* 160 MB of garbage each, 80 a node */
    ev_ask ask = order(1, history, seen);
    ev_answer answer = asked(h, &ask);
    if (answer.degraded) fail_msg("request %d: node %s: %s", i, answer.cut, answer.why);
  }
  ev_host_free(h);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_node_that_fails_is_left_out),
      cmocka_unit_test(without_any_slate_it_is_an_error),
      cmocka_unit_test(what_cannot_answer_is_not_loaded),
      cmocka_unit_test(a_slate_that_is_none_is_found_out),
      cmocka_unit_test(any_item_twice_is_found_out),
      cmocka_unit_test(a_node_that_is_late_is_cut),
      cmocka_unit_test(a_recall_that_is_late_costs_its_own_items),
      cmocka_unit_test(when_the_time_is_over_the_rest_passes_on),
      cmocka_unit_test(the_best_so_far_is_shown_in_between),
      cmocka_unit_test(a_compiled_endless_loop_leaves_what_there_was),
      cmocka_unit_test(a_forked_child_has_its_own_time),
      cmocka_unit_test(a_node_that_takes_all_memory_is_left_out),
      cmocka_unit_test(garbage_is_no_reason_to_fail),
  };
  return RUN_IN_WORLD(tests);
}
