/* serve_wire.c (fuzz) - damaged records of the ledger's writer: refused, or batches that the ledger takes or refuses by name. What is
 * read is written again as the same rows. */
#include <math.h>
#include <string.h>

#include "driver.h"

#include "../../runtime/serve/scribe.h"

static ev_ledger *ledger;

static const char *const words[] = {"\xff\xff\xff\xff", "\x01\0\0", "\xc3\xa4", "click", "canary", NULL};

static void make_seeds(void) {
  static char bytes[4096];
  const ev_shown items[] = {{"a", 0.5, "ease", 0}, {"b", 1, NULL, 7}, {"W\xC3\xA4r", 0.25, "popular", 9}};
  const ev_impression slates[] = {{"s1", "u", "v1", 0.125, 1700000000000, items, 3}, {"s2", "u2", "v1", 1, 1700000000001, items + 1, 1}};
  const ev_event events[] = {{"e1", "u", "a", "click", 1, 1700000000123, NULL, "s1"}, {NULL, "u", "b", "buy", -2.5, 5, "v1", NULL}, {"e3", "u", "i", "view", 0, 0, "v2", "s9"}};
  const ev_ledger_batch batches[] = {{slates, 2, events, 3}, {NULL, 0, events, 3}, {slates, 1, NULL, 0}, {NULL, 0, NULL, 0}};
  for (size_t i = 0; i < 4; i++) fuzz_seed(bytes, wire_write_batch(bytes, sizeof bytes, &batches[i]));
  const wire_promotion p = {{.version = "v2", .against = "v1", .action = "canary", .reason = "asked for", .evidence = "{}", .share = 0.5, .ends_canary = true}, 1700000000000};
  fuzz_seed(bytes, wire_write_promotion(bytes, sizeof bytes, &p));
  FUZZ_REQUIRE(ev_ledger_open(&ledger, ":memory:") == EV_OK);
}

static bool same_text(const char *a, const char *b) { return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0; }
static bool same_number(double a, double b) { return memcmp(&a, &b, sizeof a) == 0; }

static void same_batch(const ev_ledger_batch *a, const ev_ledger_batch *b) {
  FUZZ_REQUIRE(a->n_impressions == b->n_impressions && a->n_events == b->n_events);
  for (size_t i = 0; i < a->n_impressions; i++) {
    const ev_impression *x = &a->impressions[i], *y = &b->impressions[i];
    FUZZ_REQUIRE(same_text(x->id, y->id) && same_text(x->user, y->user) && same_text(x->version, y->version));
    FUZZ_REQUIRE(same_number(x->propensity, y->propensity) && x->time_ms == y->time_ms && x->n_items == y->n_items);
    for (size_t k = 0; k < x->n_items; k++) {
      FUZZ_REQUIRE(same_text(x->items[k].item, y->items[k].item) && same_text(x->items[k].agent, y->items[k].agent));
      FUZZ_REQUIRE(same_number(x->items[k].propensity, y->items[k].propensity) && x->items[k].position == y->items[k].position);
    }
  }
  for (size_t i = 0; i < a->n_events; i++) {
    const ev_event *x = &a->events[i], *y = &b->events[i];
    FUZZ_REQUIRE(same_text(x->id, y->id) && same_text(x->user, y->user) && same_text(x->item, y->item) && same_text(x->type, y->type));
    FUZZ_REQUIRE(same_text(x->version, y->version) && same_text(x->impression, y->impression) && same_number(x->value, y->value) && x->time_ms == y->time_ms);
  }
}

static void one(const uint8_t *data, size_t len) {
  wire w = {0}, again = {0};
  wire_promotion p;
  ev_ledger_batch a, b;
  ev_status status = wire_read_batch(&w, (const char *)data, len, &a);
  FUZZ_REQUIRE(status == EV_OK || status == EV_ECORRUPT);
  if (status == EV_OK) {
    char *bytes = ev_alloc(len, 1); /* fenced; a text with a NUL inside ends there */
    size_t n = wire_write_batch(bytes, len, &a);
    FUZZ_REQUIRE(n <= len);
    FUZZ_REQUIRE(wire_write_batch(bytes, 0, &a) == n); /* counted, not written */
    FUZZ_REQUIRE(wire_read_batch(&again, bytes, n, &b) == EV_OK);
    same_batch(&a, &b);
    ev_free(bytes);
    ev_ledger_receipt r;
    FUZZ_REQUIRE(ev_ledger_begin(ledger) == EV_OK);
    status = ev_ledger_add(ledger, &a, &r);
    FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL);
    FUZZ_REQUIRE(status == EV_EINVAL || r.new_events + r.new_impressions + r.known == a.n_events + a.n_impressions);
    ev_ledger_rollback(ledger);
  }
  status = wire_read_promotion((const char *)data, len, &p);
  FUZZ_REQUIRE(status == EV_OK || status == EV_ECORRUPT);
  if (status == EV_OK) {
    char *bytes = ev_alloc(len, 1);
    wire_promotion q;
    size_t n = wire_write_promotion(bytes, len, &p);
    FUZZ_REQUIRE(n <= len && wire_read_promotion(bytes, n, &q) == EV_OK);
    FUZZ_REQUIRE(same_text(p.p.version, q.p.version) && same_text(p.p.against, q.p.against) && same_text(p.p.action, q.p.action) && same_text(p.p.reason, q.p.reason));
    FUZZ_REQUIRE(same_text(p.p.evidence, q.p.evidence) && same_number(p.p.share, q.p.share) && p.p.ends_canary == q.p.ends_canary && p.at_ms == q.at_ms);
    ev_free(bytes);
  }
  wire_free(&w);
  wire_free(&again);
}

const fuzz_target fuzz = {make_seeds, one, NULL, words};
