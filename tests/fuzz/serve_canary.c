/* serve_canary.c (fuzz) - damaged files of a canary: refused, or one that goes on serving, deciding, telling and being kept. */
#include <string.h>

#include "../../runtime/serve/inside.h"
#include "driver.h"

static const char *input, *output;
static const char *const agents[] = {"ease", "popular", "fresh"};

static void live(canary *c, size_t n, int64_t from) { /* slates, events and ticks of n users and more */
  char user[32];
  for (size_t i = 0; i < n; i++) {
    snprintf(user, sizeof user, "u%zu", i * 7 % (n + 3));
    bool challenger = canary_picks(9, 0.3, user);
    canary_slate(c, user, challenger, i % 11 == 0, 2 + (double)(i % 9), from + (int64_t)i * 40);
    if (i % 3 == 0) canary_event(c, user, (double)(i % 2), agents, 1 + i % 3, from + (int64_t)i * 40);
    if (i % 16 == 15) canary_tick(c, from + (int64_t)i * 40, NULL);
  }
}

static void add(double share, size_t n, int64_t window_ms) {
  canary_options o;
  canary *c;
  ev_buf b = {0};
  canary_defaults(&o);
  o.share = share;
  o.window_ms = window_ms;
  o.settle_ms = window_ms / 10;
  strcpy(o.champion, "one");
  strcpy(o.challenger, "two");
  FUZZ_REQUIRE(canary_new(&c, &o) == EV_OK);
  live(c, n, 1000);
  FUZZ_REQUIRE(canary_save(c, output) == EV_OK && ev_file_read(&b, output, 1 << 22) == EV_OK);
  fuzz_seed(b.data, b.len);
  canary_free(c);
  ev_buf_free(&b);
}

static void make_seeds(void) {
  input = fuzz_path("input");
  output = fuzz_path("output");
  add(0.3, 0, 1000);
  add(0.3, 60, 1000);
  add(0.5, 400, 4000);
}

static void one(const uint8_t *data, size_t len) {
  canary *c;
  fuzz_write(input, data, len);
  ev_status status = canary_load(&c, input);
  if (status != EV_OK) {
    FUZZ_REQUIRE(status == EV_ECORRUPT && c == NULL);
    return;
  }
  char why[256];
  live(c, 40, 2000);
  FUZZ_REQUIRE(canary_tick(c, INT64_MAX, why) <= CANARY_ROLLS_BACK && strlen(why) < sizeof why);
  json_t *told = canary_status(c);
  FUZZ_REQUIRE(told != NULL && json_string_value(json_object_get(told, "verdict")) != NULL);
  char *text = json_dumps(told, 0);
  FUZZ_REQUIRE(text != NULL);
  free(text);
  json_decref(told);
  FUZZ_REQUIRE(canary_save(c, output) == EV_OK);
  canary_free(c);
  status = canary_load(&c, output); /* numbers of a sequence that could not be, and were not seen to be, may have led to such as are */
  FUZZ_REQUIRE(status == EV_OK || status == EV_ECORRUPT);
  canary_free(c);
}

static void repair(uint8_t *data, size_t len) { /* head: the checksum of what follows at 8, the size at 16 */
  uint64_t size = len, sum;
  if (len < 24) return;
  memcpy(data + 16, &size, sizeof size);
  sum = ev_checksum(data + 16, len - 16);
  memcpy(data + 8, &sum, sizeof sum);
}

const fuzz_target fuzz = {make_seeds, one, repair, NULL};
