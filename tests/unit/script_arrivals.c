/* Items that the snapshot has not: a recall proposes those of the request, whatever nodes come behind, and no others come. */
#include "asks_world.h"

static const ev_arrival young[] = {{ITEMS + 7, 0}, {ITEMS + 3, 3600}, {ITEMS + 900, 7200}, {EV_NONE - 1, 86400}};
#define N_YOUNG (sizeof young / sizeof *young)

static size_t n_new(const ev_answer *a) {
  size_t n = 0;
  for (size_t i = 0; i < a->n; i++) n += a->picks[i].item >= ITEMS;
  return n;
}

static void they_come_youngest_first_with_a_score_that_halves(void **state) {
  (void)state;
  ev_host *h = serve("nodes:\n  new: { agent: arrivals, knobs: { half_life_hours: 1 } }\noutput: new\n");
  ev_ask ask = {.user = 3, .n = 10, .arrivals = young, .n_arrivals = N_YOUNG};
  ev_answer a = asked(h, &ask);
  assert_int_equal(a.n, N_YOUNG);
  for (size_t i = 0; i < N_YOUNG; i++) {
    assert_int_equal(a.picks[i].item, young[i].item);
    assert_true(fabs((double)a.picks[i].score - pow(0.5, young[i].age_s / 3600)) < 1e-6);
    assert_int_equal(a.picks[i].sources, 1);
  }
  ask.n = 2;
  assert_int_equal(asked(h, &ask).n, 2);
  const ev_arrival at_once[] = {{ITEMS + 9, 0.002}, {ITEMS + 8, 0.002}, {ITEMS + 7, 0.0021}, {ITEMS + 6, 1e9}, {ITEMS + 5, 1e9}};
  ask = (ev_ask){.user = 3, .n = 10, .arrivals = at_once, .n_arrivals = 5};
  a = asked(h, &ask);
  for (size_t i = 0; i < 3; i++) assert_int_equal(a.picks[i].item, at_once[i].item);
  assert_true(a.picks[1].score < a.picks[0].score && a.picks[2].score < a.picks[1].score && a.picks[4].score == 0);
  ask.n_arrivals = 0; /* those of the request before are nobody's */
  assert_int_equal(asked(h, &ask).n, 0);
  ask.arrivals = NULL;
  assert_int_equal(asked(h, &ask).n, 0);
  ev_host_free(h);
}

static void what_was_seen_or_is_no_arrival_does_not_come(void **state) {
  (void)state;
  ev_host *h = serve("nodes:\n  new: { agent: arrivals }\noutput: new\n");
  uint32_t seen[] = {1, 5, ITEMS + 3, ITEMS + 8, EV_NONE - 1};
  const ev_arrival some[] = {{ITEMS + 7, 0}, {ITEMS + 3, 1}, {5, 1}, {0, 1}, {EV_NONE, 1}, {ITEMS + 8, 1}, {ITEMS + 9, -1}, {ITEMS + 10, NAN}, {EV_NONE - 1, 2}, {ITEMS, 3}};
  ev_ask ask = {.user = EV_NONE, .n = 20, .seen = seen, .n_seen = 5, .arrivals = some, .n_arrivals = 10};
  ev_answer a = asked(h, &ask);
  assert_int_equal(a.n, 2);
  assert_int_equal(a.picks[0].item, ITEMS + 7);
  assert_int_equal(a.picks[1].item, ITEMS);
  ev_arrival *many = calloc(EV_ARRIVALS_MAX + 1, sizeof *many);
  for (uint32_t i = 0; i <= EV_ARRIVALS_MAX; i++) many[i] = (ev_arrival){ITEMS + i, i};
  ask = (ev_ask){.user = EV_NONE, .n = EV_ASK_MAX, .arrivals = many, .n_arrivals = EV_ARRIVALS_MAX};
  assert_int_equal(asked(h, &ask).n, EV_ARRIVALS_MAX);
  ask.n_arrivals++;
  assert_int_equal(ev_host_recommend(h, &ask, &a, NULL, NULL, NULL), EV_EINVAL);
  free(many);
  ev_host_free(h);
}

static void an_item_of_nowhere_makes_the_slate_corrupt_also_beside_arrivals(void **state) {
  (void)state;
  text_file("nowhere.lua", "return require 'evection.agent' { name = 'nowhere', role = 'recall', about = 'x',\n"
                           "act = function(_, request, slate) request:arrivals(slate, 60); if request.n == 13 then slate:push(125, 1) end end }\n");
  ev_host *h = serve("nodes:\n  a: { agent: nowhere.lua }\noutput: a\n");
  ev_ask ask = {.user = 3, .n = 10, .arrivals = young, .n_arrivals = N_YOUNG};
  ev_answer a = asked(h, &ask);
  assert_int_equal(a.n, N_YOUNG);
  ask.n = 13;
  assert_int_equal(ev_host_recommend(h, &ask, &a, NULL, NULL, NULL), EV_ECORRUPT);
  ev_host_free(h);
}

static void the_call_checks_what_it_is_given(void **state) {
  (void)state;
  static const char *const calls[] = {"request:arrivals(slate, 0)", "request:arrivals(slate, -1)", "request:arrivals(slate, 0 / 0)", "request:arrivals(slate, 1 / 0)",
                                      "request:arrivals(slate)", "request:arrivals(slate, 60, 0)", "request:arrivals(slate, 60, 1e9)", "request:arrivals({}, 60)",
                                      "request.arrivals(slate, slate, 60)"};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    char text[512];
    snprintf(text, sizeof text,
             "return require 'evection.agent' { name = 'calls', role = 'recall', about = 'x', act = function(_, request, slate)\n"
             "local fine = pcall(function() %s end)\nif fine then error 'it was taken' end if request.n == 13 then slate:push(1, 1) end end }\n", calls[i]);
    text_file("calls.lua", text);
    ev_host *h = serve("nodes:\n  a: { agent: calls.lua }\noutput: a\n");
    ev_ask ask = {.user = EV_NONE, .n = 13, .arrivals = young, .n_arrivals = N_YOUNG};
    assert_int_equal(asked(h, &ask).n, 1);
    ev_host_free(h);
  }
}

/* Behind the fusion, whose first four are arrivals and which passes on some forty candidates. */
static ev_answer behind(const char *nodes, uint32_t user, size_t n) {
  char text[2048];
  snprintf(text, sizeof text,
           "nodes:\n  known: { agent: popular, n: 20 }\n  alike: { agent: item_knn, n: 20 }\n  new: { agent: arrivals, n: 4 }\n"
           "  in: { agent: rank_fusion, from: [new, known, alike], knobs: { w2: 0.1, w3: 0.1 } }\n%s\noutput: out\n", nodes);
  ev_host *h = serve(text);
  uint32_t seen[ITEMS];
  ev_ask ask = ask_of(user, n, seen);
  ask.arrivals = young;
  ask.n_arrivals = N_YOUNG;
  ev_answer a = asked(h, &ask);
  if (a.degraded != 0) fail_msg("%s: %s: %s", nodes, a.cut, a.why);
  ev_host_free(h);
  return a;
}

static void rankers_and_rerankers_pass_them_on(void **state) {
  (void)state;
  static const char *const nodes[] = {
      "  out: { agent: weighted, from: [in, known] }",
      "  out: { agent: logistic, from: in }",
      "  out: { agent: fm, from: in, knobs: { n_dims: 4, epochs: 1 } }",
      "  out: { agent: gbdt, from: in, knobs: { n_trees: 10 } }",
      "  out: { agent: deep_fm, from: in, knobs: { epochs: 1 } }",
      "  out: { agent: dcn_v2, from: in, knobs: { epochs: 1 } }",
      "  r: { agent: linear_policy, from: in }\n  out: { agent: capped, from: r, knobs: { cap: 50 } }",
      "  out: { agent: mmr, from: in }",
      "  out: { agent: quota, from: in }",
      "  out: { agent: dpp, from: in }",
      "  out: { agent: calibrated, from: in }",
  };
  for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
    for (uint32_t user = 0; user < 40; user += 39) {
      ev_answer a = behind(nodes[i], user, 100);
      if (n_new(&a) != N_YOUNG) fail_msg("%s: %zu of %u", nodes[i], n_new(&a), a.n);
      assert_true(a.n > 2 * N_YOUNG);
    }
}

static void explorers_with_an_arm_an_item_leave_them_where_they_stand(void **state) {
  (void)state;
  static const char *const agents[] = {"cascade_ucb", "epsilon_greedy", "exp3", "slate_thompson", "thompson"};
  for (size_t i = 0; i < sizeof agents / sizeof *agents; i++) {
    char nodes[128];
    snprintf(nodes, sizeof nodes, "  out: { agent: %s, from: in }", agents[i]);
    ev_answer a = behind(nodes, 5, 10), few = behind(nodes, 5, 3), all = behind(nodes, 5, 100);
    assert_int_equal(a.n, 10);
    for (size_t k = 0; k < a.n; k++) {
      if (k < N_YOUNG) assert_int_equal(a.picks[k].item, young[k].item);
      else assert_in_range(a.picks[k].item, 0, ITEMS - 1);
      assert_true(k >= N_YOUNG ? a.picks[k].propensity > 0 && a.picks[k].propensity <= 1 : a.picks[k].propensity == 1);
    }
    assert_int_equal(few.n, 3); /* nothing is left to choose */
    for (size_t k = 0; k < 3; k++) assert_int_equal(few.picks[k].item, young[k].item);
    assert_true(few.propensity == 1);
    assert_int_equal(n_new(&all), N_YOUNG);
  }
  ev_answer a = behind("  o: { agent: thompson, from: new }\n  out: { agent: rank_fusion, from: [o, in], knobs: { w2: 0.001 } }", 5, 4); /* none that it knows */
  for (size_t k = 0; k < 4; k++) assert_int_equal(a.picks[k].item, young[k].item);
}

static void explorers_that_share_a_model_choose_among_them(void **state) {
  (void)state;
  static const char *const agents[] = {"lin_thompson", "lin_ucb", "logistic_thompson", "square_cb", "reinforce", "exp4", "neural_linear"};
  for (size_t i = 0; i < sizeof agents / sizeof *agents; i++) {
    char nodes[128];
    snprintf(nodes, sizeof nodes, "  out: { agent: %s, from: in%s }", agents[i], strcmp(agents[i], "neural_linear") == 0 ? ", knobs: { epochs: 1 }" : "");
    ev_answer a = behind(nodes, 5, 100);
    if (n_new(&a) != N_YOUNG) fail_msg("%s: %zu of %u", agents[i], n_new(&a), a.n);
  }
}

static void events_about_them_reach_no_agent(void **state) {
  (void)state;
  text_file("counts.lua", "return require 'evection.agent' { name = 'counts', role = 'recall', about = 'x', state = { seen = 1 },\n"
                          "act = function(_, request, slate, ctx) if request.n ~= 13 then return end slate:push(1, ctx.state and ctx.state.seen:vector()[1] or 0) end,\n"
                          "learn = function(state, events) for _, e in ipairs(events) do state.seen:add(0, 1) end end }\n");
  ev_host *h = serve("nodes:\n  a: { agent: counts.lua }\noutput: a\n");
  const ev_lesson some[] = {{3, ITEMS + 7, 1, 1, "click"}, {3, 5, 1, 1, "click"}, {EV_NONE, EV_NONE - 1, 1, 1, "click"}};
  assert_int_equal(ev_host_learn(h, some, 3), EV_OK);
  ev_ask ask = {.user = EV_NONE, .n = 13};
  ev_answer a = asked(h, &ask);
  assert_true(a.picks[0].score == 1);
  ev_host_free(h);
}

static void an_evaluation_has_none(void **state) {
  (void)state;
  ev_buf said = {0};
  ev_host *h = serve("nodes:\n  known: { agent: popular, n: 20 }\n  new: { agent: arrivals }\n  out: { agent: rank_fusion, from: [new, known] }\noutput: out\n");
  assert_int_equal(ev_host_call(h, "evection.serve", "answer", "{\"op\": \"recommend\", \"n\": 5, \"user\": 3, \"history\": [], \"seen\": []}", &said), EV_OK);
  json_t *o = json_loadb(said.data, said.len, 0, NULL), *items = json_object_get(o, "items"), *item;
  size_t i;
  assert_int_equal(json_array_size(items), 5);
  json_array_foreach(items, i, item) {
    assert_int_equal(json_array_size(json_object_get(item, "sources")), 1);
    assert_string_equal(json_string_value(json_array_get(json_object_get(item, "sources"), 0)), "known");
  }
  json_decref(o);
  ev_buf_free(&said);
  ev_host_free(h);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(they_come_youngest_first_with_a_score_that_halves),
      cmocka_unit_test(what_was_seen_or_is_no_arrival_does_not_come),
      cmocka_unit_test(an_item_of_nowhere_makes_the_slate_corrupt_also_beside_arrivals),
      cmocka_unit_test(the_call_checks_what_it_is_given),
      cmocka_unit_test(rankers_and_rerankers_pass_them_on),
      cmocka_unit_test(explorers_with_an_arm_an_item_leave_them_where_they_stand),
      cmocka_unit_test(explorers_that_share_a_model_choose_among_them),
      cmocka_unit_test(events_about_them_reach_no_agent),
      cmocka_unit_test(an_evaluation_has_none),
  };
  return RUN_IN_WORLD(tests);
}
