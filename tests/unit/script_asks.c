/* What is asked in C is what an evaluation would give, never what was seen or barred; explained; learnt from. */
#include "asks_world.h"

static const char *const whole =
    "nodes:\n"
    "  linear:   { agent: ease, n: 40 }\n"
    "  alike:    { agent: item_knn, n: 40 }\n"
    "  trending: { agent: fresh_popular, n: 30 }\n"
    "  fused:    { agent: rank_fusion, from: [linear, alike, trending], n: 60 }\n"
    "  ranked:   { agent: logistic, from: fused }\n"
    "  slate:    { agent: mmr, from: ranked, knobs: { lambda: 0.6 } }\n"
    "output: slate\n";

static void add_list(ev_buf *b, const char *key, const uint32_t *items, size_t n) {
  assert_int_equal(ev_buf_printf(b, ", \"%s\": [", key), EV_OK);
  for (size_t i = 0; i < n; i++) assert_int_equal(ev_buf_printf(b, "%s%u", i > 0 ? ", " : "", items[i]), EV_OK);
  assert_int_equal(ev_buf_append(b, "]", 1), EV_OK);
}

/* The same question to an evaluation's runner (asks_oracle.lua); and its answer item by item. */
static void assert_as_evaluated(ev_host *h, const ev_ask *ask, const ev_answer *answer, const json_t *recalls) {
  ev_buf message = {0}, said = {0};
  ev_buf_printf(&message, "{\"op\": \"recommend\", \"n\": %zu", ask->n);
  if (ask->user != EV_NONE) ev_buf_printf(&message, ", \"user\": %u", ask->user);
  add_list(&message, "history", ask->history, ask->n_history);
  add_list(&message, "seen", ask->seen, ask->n_seen);
  ev_buf_append(&message, "}", 1);
  assert_int_equal(ev_host_call(h, "oracle", "answer", message.data, &said), EV_OK);
  json_t *document = json_loadb(said.data, said.len, 0, NULL), *items = json_object_get(document, "items");
  assert_int_equal(json_array_size(items), answer->n);
  for (size_t i = 0; i < answer->n; i++) {
    size_t len;
    const json_t *item = json_array_get(items, i);
    const char *id = ev_snapshot_item_id(snapshot, answer->picks[i].item, &len), *theirs = json_string_value(json_object_get(item, "id"));
    if (strlen(theirs) != len || memcmp(theirs, id, len) != 0) fail_msg("user %u, place %zu: %.*s, not %s", ask->user, i, (int)len, id, theirs);
    assert_true((float)json_number_value(json_object_get(item, "score")) == answer->picks[i].score);
    const json_t *sources = json_object_get(item, "sources");
    size_t at = 0;
    for (size_t b = 0; b < 32; b++) {
      if ((answer->picks[i].sources >> b & 1) == 0) continue;
      assert_string_equal(json_string_value(json_array_get(recalls, b)), json_string_value(json_array_get(sources, at)));
      at++;
    }
    assert_int_equal(at, json_array_size(sources));
    assert_true(at > 0);
  }
  json_decref(document);
  ev_buf_free(&message);
  ev_buf_free(&said);
}

static ev_host *oracle_of(const char *composition) {
  char home[128], path[512];
  text_file("composition.yaml", composition);
  snprintf(path, sizeof path, "%s", in_folder("composition.yaml"));
  char *argv[] = {path, "world"};
  ev_host *h;
  snprintf(home, sizeof home, "%s/home", folder);
  ev_host_options o = {.root = ".", .home = home};
  assert_int_equal(ev_host_new(&h, &o), EV_OK);
  if (ev_host_run(h, "tests/unit/asks_oracle.lua", 2, argv) != EV_OK) fail_msg("%s", ev_error());
  return h;
}

static void slates_are_those_of_an_evaluation(void **state) {
  (void)state;
  ev_buf said = {0};
  ev_host *h = serve_capped(whole, 0, &said);
  json_t *loaded = json_loadb(said.data, said.len, 0, NULL), *recalls = json_object_get(loaded, "recalls");
  assert_int_equal(json_integer_value(json_object_get(loaded, "nodes")), 6);
  assert_int_equal(json_array_size(recalls), 3);
  assert_int_equal(json_array_size(json_object_get(loaded, "files")), 7);
  assert_int_equal(strlen(json_string_value(json_object_get(loaded, "version"))), 64);
  static const size_t lengths[] = {1, 10, 33, 100};
  ev_host *oracle = oracle_of(whole);
  for (uint32_t user = 0; user < USERS; user++) {
    uint32_t seen[ITEMS];
    ev_ask ask = ask_of(user, lengths[user % 4], seen);
    ev_answer answer = asked(h, &ask);
    assert_int_equal(answer.degraded, 0);
    assert_int_equal(answer.explored, 0);
    assert_true(answer.propensity == 1);
    assert_true(answer.n > 0);
    assert_as_evaluated(oracle, &ask, &answer, recalls);
  }
  ev_ask stranger = {.user = EV_NONE, .n = 20};
  ev_answer answer = asked(h, &stranger);
  assert_as_evaluated(oracle, &stranger, &answer, recalls);
  json_decref(loaded);
  ev_buf_free(&said);
  ev_host_free(oracle);
  ev_host_free(h);
}

static void what_was_seen_or_is_barred_never_comes(void **state) {
  (void)state;
  ev_host *h = serve("nodes:\n  a: { agent: ease, n: 120 }\n  b: { agent: popular, n: 120 }\n  c: { agent: item_knn, n: 120 }\n"
                     "  m: { agent: weighted, from: [a, b, c] }\noutput: m\n");
  ev_rng rng;
  ev_rng_seed(&rng, 3, 0);
  for (int round = 0; round < 200; round++) {
    uint32_t seen[ITEMS];
    uint64_t barred[(ITEMS + 63) / 64] = {0};
    bool out[ITEMS] = {false};
    ev_ask ask = ask_of(ev_rng_below(&rng, USERS), 1 + ev_rng_below(&rng, ITEMS), seen);
    uint32_t share = ev_rng_below(&rng, 101);
    for (uint32_t i = 0; i < ITEMS; i++)
      if (ev_rng_below(&rng, 100) < share) barred[i / 64] |= UINT64_C(1) << i % 64;
    barred[ITEMS / 64] |= ~UINT64_C(0) << ITEMS % 64; /* bits of no item */
    if (round % 3 > 0) ask.barred = barred;
    size_t left = 0;
    for (uint32_t i = 0; i < ITEMS; i++) out[i] = ask.barred != NULL && (barred[i / 64] >> i % 64 & 1);
    for (size_t i = 0; i < ask.n_seen; i++) out[seen[i]] = true;
    for (uint32_t i = 0; i < ITEMS; i++) left += !out[i];
    ev_answer answer = asked(h, &ask);
    assert_int_equal(answer.degraded, 0);
    assert_int_equal(answer.n, left < ask.n ? left : ask.n); /* and all the others may */
    for (size_t i = 0; i < answer.n; i++) {
      if (out[answer.picks[i].item]) fail_msg("round %d: item %u was to be left out", round, answer.picks[i].item);
      out[answer.picks[i].item] = true; /* nor twice */
    }
  }
  ev_host_free(h);
}

static void a_question_out_of_range_is_met(void **state) {
  (void)state;
  ev_host *h = serve("agent:item_knn");
  uint32_t seen[ITEMS + 4], history[1000], more[1002];
  ev_ask ask = ask_of(5, 10, seen);
  memcpy(history, ask.history, ask.n_history * sizeof *history);
  memcpy(more, ask.history, ask.n_history * sizeof *more);
  ev_answer plain = asked(h, &ask);
  more[ask.n_history] = ITEMS; /* an item that came after the snapshot, and no item at all */
  more[ask.n_history + 1] = EV_NONE;
  seen[ask.n_seen] = ITEMS;
  seen[ask.n_seen + 1] = EV_NONE - 1;
  ask.history = more;
  ask.n_history += 2;
  ask.n_seen += 2;
  ev_answer answer = asked(h, &ask);
  assert_same_items(&plain, &answer);
  ask.user = USERS + 7; /* who came after the snapshot: he has a history all the same */
  answer = asked(h, &ask);
  assert_same_items(&plain, &answer);
  ask.seen = (uint32_t[]){4, 9, 8};
  ask.n_seen = 3;
  ev_answer ignored;
  assert_int_equal(ev_host_recommend(h, &ask, &ignored, NULL, NULL, NULL), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "ascending"));
  ask.n_seen = 2;
  for (int i = 0; i < 2; i++) {
    ask.n = i == 0 ? 0 : EV_ASK_MAX + 1;
    assert_int_equal(ev_host_recommend(h, &ask, &ignored, NULL, NULL, NULL), EV_EINVAL);
  }
  ask.n = EV_ASK_MAX;
  answer = asked(h, &ask);
  assert_true(answer.n > 10);
  ev_host_free(h);
  ev_host_options o = {.root = ".", .home = folder};
  assert_int_equal(ev_host_new(&h, &o), EV_OK);
  assert_int_equal(ev_host_recommend(h, &ask, &ignored, NULL, NULL, NULL), EV_EINVAL); /* nothing was loaded */
  assert_int_equal(ev_host_learn(h, NULL, 0), EV_EINVAL);
  ev_host_free(h);
}

static void a_host_may_be_loaded_again(void **state) {
  (void)state;
  ev_host *h = serve("agent:item_knn"), *other = serve("agent:popular");
  uint32_t seen[ITEMS];
  ev_ask ask = ask_of(11, 20, seen);
  ev_answer knn = asked(h, &ask), popular = asked(other, &ask);
  assert_true(knn.picks[0].item != popular.picks[0].item || knn.picks[1].item != popular.picks[1].item || knn.picks[2].item != popular.picks[2].item);
  assert_int_equal(ev_host_serve(h, "{\"composition\": \"agent:popular\", \"data\": \"world\", \"seed\": 1}", NULL), EV_OK);
  ev_answer now = asked(h, &ask);
  assert_same_items(&popular, &now);
  assert_int_equal(ev_host_serve(h, "{\"composition\": \"agent:popula\", \"data\": \"world\", \"seed\": 1}", NULL), EV_EINVAL);
  now = asked(h, &ask); /* what was there stays */
  assert_same_items(&popular, &now);
  ev_host_free(h);
  ev_host_free(other);
}

/* ---- Explain -------------------------------------------------------------------------------------------*/
static void explain_says_where_items_came_from(void **state) {
  (void)state;
  ev_host *h = serve(whole);
  ev_host *plain = serve("nodes:\n  linear: { agent: ease, n: 40 }\n  alike: { agent: item_knn, n: 40 }\n  trending: { agent: fresh_popular, n: 30 }\n"
                         "  fused: { agent: rank_fusion, from: [linear, alike, trending], n: 60 }\n  ranked: { agent: logistic, from: fused, n: 60 }\noutput: ranked\n");
  ev_host *recalls[] = {serve("agent:ease"), serve("agent:item_knn"), serve("agent:fresh_popular")};
  static const char *const names[] = {"linear", "alike", "trending"};
  static const size_t lengths[] = {40, 40, 30};
  bool moved = false;
  for (uint32_t user = 0; user < 10; user++) {
    uint32_t seen[ITEMS];
    ev_ask ask = ask_of(user, 10, seen);
    ev_answer answer, each[3];
    ev_buf text = {0};
    ask.n = 60;
    ev_answer before = asked(plain, &ask);
    for (size_t b = 0; b < 3; b++) {
      ask.n = lengths[b];
      each[b] = asked(recalls[b], &ask);
    }
    ask.n = 10;
    ask.explain = true;
    ev_buf_append(&text, "x", 1); /* it is appended */
    assert_int_equal(ev_host_recommend(h, &ask, &answer, &text, NULL, NULL), EV_OK);
    json_error_t e;
    json_t *document = json_loadb(text.data + 1, text.len - 1, 0, &e);
    if (document == NULL) fail_msg("%s", e.text);
    json_t *nodes = json_object_get(document, "nodes"), *items = json_object_get(document, "items");
    assert_int_equal(json_array_size(nodes), 6);
    assert_int_equal(json_array_size(items), answer.n);
    for (size_t i = 0; i < 6; i++) {
      const json_t *node = json_array_get(nodes, i);
      const char *name = json_string_value(json_object_get(node, "node"));
      if (strcmp(name, "slate") == 0) {
        assert_string_equal(json_string_value(json_object_get(node, "agent")), "mmr");
        assert_string_equal(json_string_value(json_object_get(node, "role")), "rerank");
        assert_int_equal(json_integer_value(json_object_get(node, "candidates")), 10);
      }
      assert_int_equal(strlen(json_string_value(json_object_get(node, "agent_hash"))), 64);
      assert_true(json_number_value(json_object_get(node, "ms")) >= 0);
      assert_null(json_object_get(node, "cut"));
    }
    for (size_t i = 0; i < answer.n; i++) {
      const json_t *item = json_array_get(items, i), *from = json_object_get(item, "from");
      assert_int_equal(json_integer_value(json_object_get(item, "item")), answer.picks[i].item);
      assert_int_equal(json_integer_value(json_object_get(item, "position")), i + 1);
      assert_true((float)json_number_value(json_object_get(item, "score")) == answer.picks[i].score);
      size_t found = 0;
      for (size_t b = 0; b < 3; b++) {
        size_t rank = 0;
        for (size_t k = 0; k < each[b].n; k++)
          if (each[b].picks[k].item == answer.picks[i].item) rank = k + 1;
        for (size_t k = 0; k < json_array_size(from); k++) {
          const json_t *one = json_array_get(from, k);
          if (strcmp(json_string_value(json_object_get(one, "node")), names[b]) != 0) continue;
          assert_int_equal(json_integer_value(json_object_get(one, "rank")), rank);
          assert_true((float)json_number_value(json_object_get(one, "score")) == each[b].picks[rank - 1].score);
          found++;
          rank = 0;
        }
        assert_int_equal(rank, 0); /* each recall that has it is named */
      }
      assert_int_equal(found, json_array_size(from));
      size_t place = 0;
      for (size_t k = 0; k < before.n; k++)
        if (before.picks[k].item == answer.picks[i].item) place = k + 1;
      assert_true(place > 0);
      assert_int_equal(json_integer_value(json_object_get(item, "moved")), (long long)place - (long long)(i + 1));
      moved |= place != i + 1;
    }
    json_decref(document);
    ev_buf_free(&text);
  }
  assert_true(moved);
  for (size_t b = 0; b < 3; b++) ev_host_free(recalls[b]);
  ev_host_free(plain);
  ev_host_free(h);
}

/* ---- Propensities --------------------------------------------------------------------------------------*/
static void propensities_are_told_where_chance_chose(void **state) {
  (void)state;
  ev_host *h = serve("nodes:\n  a: { agent: popular, n: 60 }\n  x: { agent: thompson, from: a }\noutput: x\n");
  uint32_t seen[ITEMS], history[1100];
  ev_ask ask = ask_of(1, 10, seen);
  ev_answer answer = asked(h, &ask);
  double product = 1;
  assert_int_equal(answer.explored, 1);
  for (size_t i = 0; i < answer.n; i++) {
    assert_true(answer.picks[i].propensity > 0 && answer.picks[i].propensity < 1);
    product *= (double)answer.picks[i].propensity;
  }
  assert_true(answer.propensity == product);
  assert_int_equal(answer.degraded, 0);
  ev_host_free(h);
  wild("explore");
  h = serve("nodes:\n  a: { agent: popular, n: 60 }\n  x: { agent: wild_explore.lua, from: a }\noutput: x\n");
  for (int k = 17; k <= 19; k++) {
    ask = order(k, history, seen);
    answer = asked(h, &ask);
    assert_int_equal(answer.explored, 1);
    if (k == 17) assert_true(answer.picks[3].propensity == 0.5f && answer.propensity == pow(0.5, 10));
    else assert_true(isnan(answer.picks[3].propensity) && isnan(answer.propensity)); /* no number, and no probability */
  }
  ask.n_history = 3;
  answer = asked(h, &ask);
  assert_true(answer.explored == 0 && answer.picks[3].propensity == 1 && answer.propensity == 1);
  ev_host_free(h);
}

/* ---- Learning ------------------------------------------------------------------------------------------*/
static ev_lesson lesson(uint32_t user, uint32_t item, double value) {
  return (ev_lesson){.user = user, .item = item, .value = value, .time_s = 1.7e9, .type = "click"};
}

static void lessons_are_learnt_and_warming_is_not(void **state) {
  (void)state;
  text_file("counter.lua", "local agent = require 'evection.agent'\n"
                           "return agent { name = 'counter', role = 'recall', about = 'x', state = { n = 'items', sums = 8 },\n"
                           "  act = function(_, request, slate, ctx)\n"
                           "    ctx.state.n:add(0, 1)\n" /* what warming would leave */
                           "    request:top(ctx.state.n:vector() * -1, slate)\n"
                           "  end,\n"
                           "  learn = function(state, events)\n"
                           "    if #events > 256 then error 'too many' end\n"
                           "    state.sums:add(0, 1)\n"
                           "    for _, e in ipairs(events) do\n"
                           "      if e.type ~= 'click' or e.time ~= 1.7e9 then error 'what is it?' end\n"
                           "      state.sums:add(1, 1) state.sums:add(2, e.user or 1000) state.n:add(e.item, e.value)\n"
                           "    end\n"
                           "    events[1].item = 'spoilt'\n"
                           "  end }\n");
  text_file("pupil.lua", "local agent = require 'evection.agent'\n"
                         "return agent { name = 'pupil', role = 'rerank', about = 'x', state = { n = 8 }, act = function() end,\n"
                         "  learn = function(state, events) for _, e in ipairs(events) do if e.value == 77 then error 'no' end state.n:add(0, e.item) end end }\n");
  ev_host *h = serve("nodes:\n  a: { agent: counter.lua }\n  b: { agent: pupil.lua, from: a }\noutput: b\n");
  char file[512];
  ev_hash hash;
  char hex[65];
  ev_snapshot_hash(snapshot, &hash);
  ev_hash_hex(hex, &hash);
  static ev_lesson list[700];
  for (size_t i = 0; i < 700; i++) list[i] = lesson((uint32_t)(i % USERS), (uint32_t)(i % ITEMS), 1);
  list[0].user = EV_NONE;
  list[1].user = USERS;
  list[2].item = ITEMS;  /* left out, as are those whose value is no number */
  list[3].item = EV_NONE;
  list[4].value = NAN;
  assert_int_equal(ev_host_learn(h, list, 700), EV_OK);
  double expected_users = 0, items = 0;
  for (size_t i = 0; i < 700; i++) {
    if (i >= 2 && i <= 4) continue;
    expected_users += i < 2 ? 1000 : (double)(i % USERS);
    items += (double)(i % ITEMS);
  }
  const double *values;
  ev_map m;
  snprintf(file, sizeof file, "%s/home/state/%.16s/counter.sums.8.f64", folder, hex);
  assert_int_equal(ev_map_open(&m, file), EV_OK);
  values = m.data;
  assert_true(values[0] == 3); /* 256, 256 and 188 */
  assert_true(values[1] == 697);
  assert_true(values[2] == expected_users);
  ev_map_close(&m);
  snprintf(file, sizeof file, "%s/home/state/%.16s/counter.n.%d.f64", folder, hex, ITEMS);
  assert_int_equal(ev_map_open(&m, file), EV_OK);
  values = m.data;
  assert_true(values[0] == 6); /* places 0, 120, 240 … 600; no act of warming */
  ev_map_close(&m);
  snprintf(file, sizeof file, "%s/home/state/%.16s/pupil.n.8.f64", folder, hex);
  assert_int_equal(ev_map_open(&m, file), EV_OK);
  values = m.data;
  assert_true(values[0] == items); /* what another did to its copy is its own affair */
  ev_map_close(&m);
  ev_lesson failing[] = {lesson(1, 9, 77)};
  assert_int_equal(ev_host_learn(h, failing, 1), EV_ESCRIPT); /* the pupil's; the counter has learnt all the same */
  assert_non_null(strstr(ev_error(), "node b: learn: "));
  snprintf(file, sizeof file, "%s/home/state/%.16s/counter.sums.8.f64", folder, hex);
  assert_int_equal(ev_map_open(&m, file), EV_OK);
  assert_true(((const double *)m.data)[1] == 698);
  ev_map_close(&m);
  ev_ask ask = {.user = EV_NONE, .n = 5};
  ev_answer answer = asked(h, &ask);
  assert_int_equal(answer.n, 5);
  ev_host_free(h);
}

static void what_was_learnt_is_served_at_once(void **state) {
  (void)state;
  ev_host *h = serve("agent:popular");
  ev_ask ask = {.user = EV_NONE, .n = 10};
  ev_answer before = asked(h, &ask);
  ev_lesson lessons[] = {lesson(2, before.picks[9].item, 1e6)};
  assert_int_equal(ev_host_learn(h, lessons, 1), EV_OK);
  ev_answer after = asked(h, &ask);
  assert_int_equal(after.picks[0].item, before.picks[9].item);
  ev_host_free(h);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(slates_are_those_of_an_evaluation),
      cmocka_unit_test(what_was_seen_or_is_barred_never_comes),
      cmocka_unit_test(a_question_out_of_range_is_met),
      cmocka_unit_test(a_host_may_be_loaded_again),
      cmocka_unit_test(explain_says_where_items_came_from),
      cmocka_unit_test(propensities_are_told_where_chance_chose),
      cmocka_unit_test(lessons_are_learnt_and_warming_is_not),
      cmocka_unit_test(what_was_learnt_is_served_at_once),
  };
  return RUN_IN_WORLD(tests);
}
