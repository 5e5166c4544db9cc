/* asks_world.h - what the unit tests of asks share: a generated world, hosts that serve a composition of it, agents that misbehave when
 * they are told to. Run in the checkout's folder: agents/ and lua/ are read from there. */
#ifndef TESTS_ASKS_WORLD_H
#define TESTS_ASKS_WORLD_H

#include <jansson.h>
#include <math.h>

#include "support.h"

#include "script/script.h"
#include "store/store.h"

enum { USERS = 80, ITEMS = 120 };
static ev_snapshot *snapshot;

static int make_world(void **state) {
  if (make_folder(state) != 0) return -1;
  ev_generate_options o;
  ev_generate_defaults(&o);
  o.n_users = USERS;
  o.n_items = ITEMS;
  o.n_sessions_per_user = 12;
  o.seed = 5;
  char path[192];
  snprintf(path, sizeof path, "%s/home/data", folder);
  assert_int_equal(ev_mkdirs(path), EV_OK);
  snprintf(path, sizeof path, "%s/home/data/world.evs", folder);
  assert_int_equal(ev_generate(&o, path), EV_OK);
  assert_int_equal(ev_snapshot_open(&snapshot, path), EV_OK);
  return 0;
}

static int remove_world(void **state) {
  ev_snapshot_close(snapshot);
  return remove_folder(state);
}

#define RUN_IN_WORLD(tests) cmocka_run_group_tests(tests, make_world, remove_world)

static void text_file(const char *name, const char *text) { write_text(in_folder(name), text, strlen(text)); }

/* A host that is asked for a composition: "agent:NAME", or the text of its YAML. */
static ev_host *serve_capped(const char *composition, size_t max_heap_bytes, ev_buf *said) {
  ev_host *h;
  char home[128], args[512];
  snprintf(home, sizeof home, "%s/home", folder);
  ev_host_options o = {.root = ".", .home = home, .max_heap_bytes = max_heap_bytes};
  if (ev_host_new(&h, &o) != EV_OK) fail_msg("%s", ev_error());
  if (strncmp(composition, "agent:", 6) == 0) {
    snprintf(args, sizeof args, "{\"composition\": \"%s\", \"data\": \"world\", \"seed\": 1}", composition);
  } else {
    text_file("composition.yaml", composition);
    snprintf(args, sizeof args, "{\"composition\": \"%s\", \"data\": \"world\", \"seed\": 1}", in_folder("composition.yaml"));
  }
  if (ev_host_serve(h, args, said) != EV_OK) fail_msg("%s", ev_error());
  return h;
}

static ev_host *serve(const char *composition) { return serve_capped(composition, 0, NULL); }

/* An evaluation of the composition, which answers require "oracle".answer. */
__attribute__((unused)) static ev_host *oracle_of(const char *composition) {
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

/* What the service would ask for a user: all that he had, all of it seen. seen has room for ITEMS. */
__attribute__((unused)) static ev_ask ask_of(uint32_t user, size_t n, uint32_t *seen) {
  if (user == EV_NONE) return (ev_ask){.user = user, .n = n};
  const uint64_t *ptr = ev_snapshot_user_ptr(snapshot);
  size_t n_history = ptr[user + 1] - ptr[user], n_seen = 0;
  const uint32_t *history = ev_snapshot_items(snapshot) + ptr[user];
  bool has[ITEMS] = {false};
  for (size_t i = 0; i < n_history; i++) has[history[i]] = true;
  for (uint32_t i = 0; i < ITEMS; i++)
    if (has[i]) seen[n_seen++] = i;
  return (ev_ask){.user = user, .history = history, .n_history = n_history, .seen = seen, .n_seen = n_seen, .n = n};
}

/* An agent that does as it is told: by a history of 1000 + k items, which no user of the world has. NAME and ROLE are put in. */
static const char *const wild_agent =
    "local agent = require 'evection.agent'\n"
    "local kept = {}\n"
    "return agent { name = '%s', role = '%s', about = 'Does what it is told.', state = { n = 4 },\n"
    "%s"
    "act = function(model, request, slate, ctx)\n"
    "  if model then model:recall(request, slate) end\n"
    "  local k = request.n_history - 1000\n"
    "  if k <= 0 then return\n"
    "  elseif k == 1 then slate:truncate(1); error 'planted'\n"
    "  elseif k == 2 then local v = vector(4); while true do v:sum() end\n"
    "  elseif k == 3 then while true do pcall(function() local v = vector(4); while true do v:sum() end end) end\n"
    "  elseif k == 4 then while true do end\n"
    "  elseif k == 5 then slate:push(slate:item(1), 1e9)\n"
    "  elseif k == 6 then slate:push(%d, 1e9)\n"
    "  elseif k == 7 then slate:push(request:history()[1], 1e9)\n"
    "  elseif k == 8 then slate.score:set(0 / 0)\n"
    "  elseif k == 9 then slate.score:set(1 / 0)\n"
    "  elseif k == 10 then local t = {}; while true do t[#t + 1] = { #t } end\n"
    "  elseif k == 11 then local s = 'x'; while true do s = s .. s end\n"
    "  elseif k == 12 then local t = {}; while true do t[#t + 1] = ('x'):rep(1000000) .. #t end\n"
    "  elseif k == 13 then local t = {}; while true do t[#t + 1] = vector(100000) end\n"
    "  elseif k == 14 then for i = 1, 1e9 do slate:column('c' .. i):set(1); for j = 1, 2000 do slate:push(j %% 100, 0) end end\n"
    "  elseif k == 15 then error {}\n"
    "  elseif k == 16 then local t = {}; while true do pcall(function() while true do t[#t + 1] = vector(100000) end end) end\n"
    "  elseif k == 17 then slate:column('propensity'):set(0.5)\n"
    "  elseif k == 18 then slate:column('propensity'):set(0 / 0)\n"
    "  elseif k == 19 then slate:column('propensity'):set(2)\n"
    "  elseif k == 20 then slate:truncate(0)\n"
    "  elseif k == 22 then while true do kept[#kept + 1] = ('x'):rep(1000) .. #kept end\n"
    "  elseif k == 23 then error(12345.25, 0)\n"
    "  elseif k == 24 then error { status = 0, message = 'fine' }\n"
    "  elseif k == 25 then error { status = 8, message = 'interrupted' }\n"
    "  elseif k == 21 then error(('\\255'):rep(1000))\n"
    "  end\n"
    "end }\n";

__attribute__((unused)) static void wild(const char *role) { /* wild_ROLE.lua in the folder */
  char text[8192], name[64], file[80];
  snprintf(name, sizeof name, "wild_%s", role);
  snprintf(file, sizeof file, "%s.lua", name);
  snprintf(text, sizeof text, wild_agent, name, role,
           strcmp(role, "recall") == 0 ? "fit = function(_, data) return data:item_scores(data:item_counts()) end,\n" : "", ITEMS);
  text_file(file, text);
}

/* The ask that tells wild agents to do k. */
__attribute__((unused)) static ev_ask order(int k, uint32_t history[1100], uint32_t *seen) {
  for (int i = 0; i < 1100; i++) history[i] = 7;
  seen[0] = 7;
  return (ev_ask){.user = 3, .history = history, .n_history = (size_t)(1000 + k), .seen = seen, .n_seen = 1, .n = 10};
}

__attribute__((unused)) static void assert_same_items(const ev_answer *a, const ev_answer *b) {
  assert_int_equal(a->n, b->n);
  for (size_t i = 0; i < a->n; i++) assert_int_equal(a->picks[i].item, b->picks[i].item);
}

static ev_answer asked(ev_host *h, const ev_ask *ask) {
  ev_answer a;
  if (ev_host_recommend(h, ask, &a, NULL, NULL, NULL) != EV_OK) fail_msg("%s", ev_error());
  return a;
}

#endif
