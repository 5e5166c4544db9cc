/* ledger_check.c - what may be written. Checked before a transaction begins, but for ranges, which another process may change. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ledger.h"

#define TIME_MAX_MS INT64_C(9000000000000000)

/* s as it may stand in a message: shortened, nothing unprintable. */
static const char *shown_text(char out[64], const char *s) {
  snprintf(out, 64, "%.60s", s);
  return ev_text_mend(out);
}

static ev_status check_text(const char *what, const char *s, bool needed) {
  if (s == NULL) return needed ? ev_fail(EV_EINVAL, "no %s", what) : EV_OK;
  char shown[64];
  size_t n = strnlen(s, TEXT_MAX_BYTES + 1);
  if (n == 0) return ev_fail(EV_EINVAL, "the %s is empty", what);
  if (n > TEXT_MAX_BYTES) return ev_fail(EV_EINVAL, "the %s '%s…' is longer than %d bytes", what, shown_text(shown, s), TEXT_MAX_BYTES);
  if (ev_utf8_invalid(s, n) != n) return ev_fail(EV_EINVAL, "the %s '%s' is not UTF-8", what, shown_text(shown, s));
  return EV_OK;
}

static ev_status check_time(int64_t ms) {
  return ms >= 0 && ms <= TIME_MAX_MS ? EV_OK : ev_fail(EV_EINVAL, "the time %lld is no milliseconds since 1970", (long long)ms);
}

static ev_status check_propensity(const char *of, const char *item, double p) {
  char shown[64];
  if (p > 0 && p <= 1) return EV_OK;
  if (isnan(p)) return ev_fail(EV_EINVAL, "the propensity of %s%s is missing or no number", of, shown_text(shown, item));
  return ev_fail(EV_EINVAL, "the propensity of %s%s is %g; it is above 0 and at most 1", of, shown_text(shown, item), p);
}

static ev_status check_event(const ev_event *e) {
  EV_TRY(check_text("user", e->user, true));
  EV_TRY(check_text("item", e->item, true));
  EV_TRY(check_text("type", e->type, true));
  EV_TRY(check_text("id", e->id, false));
  EV_TRY(check_text("version", e->version, false));
  EV_TRY(check_text("impression", e->impression, false));
  if (!isfinite(e->value)) return ev_fail(EV_EINVAL, "the value %g is no finite number", e->value);
  return check_time(e->time_ms);
}

static ev_status check_range(const ev_ledger *l, const ev_event *e) {
  const ledger_range *r = NULL;
  for (size_t i = 0; i < l->n_ranges; i++) {
    if (strcmp(l->ranges[i].type, e->type) == 0) {
      r = &l->ranges[i];
      break;
    }
    if (strcmp(l->ranges[i].type, "*") == 0) r = &l->ranges[i];
  }
  char shown[64];
  if (r == NULL || (e->value >= r->low && e->value <= r->high)) return EV_OK;
  return ev_fail(EV_EINVAL, "the value %.17g of '%s' is not between %g and %g", e->value, shown_text(shown, e->type), r->low, r->high);
}

ev_status ev_ledger_check_event(const ev_ledger *l, const ev_event *e) {
  EV_TRY(check_event(e));
  return l != NULL ? check_range(l, e) : EV_OK;
}

ev_status ev_ledger_check_impression(const ev_impression *i) {
  EV_TRY(check_text("id", i->id, true));
  EV_TRY(check_text("user", i->user, true));
  EV_TRY(check_text("version", i->version, true));
  EV_TRY(check_propensity("the slate", "", i->propensity));
  EV_TRY(check_time(i->time_ms));
  if (i->n_items == 0) return ev_fail(EV_EINVAL, "no items");
  uint32_t before = 0;
  for (size_t k = 0; k < i->n_items; k++) {
    const ev_shown *s = &i->items[k];
    uint32_t position = s->position != 0 ? s->position : (uint32_t)(k + 1);
    EV_TRY(check_text("item", s->item, true));
    EV_TRY(check_text("agent", s->agent, false));
    EV_TRY(check_propensity("item ", s->item, s->propensity));
    if (position <= before) return ev_fail(EV_EINVAL, "position %u comes behind position %u", position, before);
    before = position;
  }
  return EV_OK;
}

ev_status ledger_check_batch(const ev_ledger_batch *b) {
  for (size_t i = 0; i < b->n_impressions; i++)
    if (ev_ledger_check_impression(&b->impressions[i]) != EV_OK) return ev_fail(EV_EINVAL, "impression %zu: %s", i, ev_error());
  for (size_t i = 0; i < b->n_events; i++)
    if (check_event(&b->events[i]) != EV_OK) return ev_fail(EV_EINVAL, "event %zu: %s", i, ev_error());
  return EV_OK;
}

ev_status ledger_check_ranges(const ev_ledger *l, const ev_ledger_batch *b) {
  for (size_t i = 0; i < b->n_events && l->n_ranges > 0; i++)
    if (check_range(l, &b->events[i]) != EV_OK) return ev_fail(EV_EINVAL, "event %zu: %s", i, ev_error());
  return EV_OK;
}

ev_status ev_ledger_set_range(ev_ledger *l, const char *type, double low, double high) {
  sqlite3_stmt *s = NULL;
  bool removes = low > high;
  EV_TRY(check_text("type", type, true));
  if (!isfinite(low) || !isfinite(high)) return ev_fail(EV_EINVAL, "a range is two numbers, not %g and %g", low, high);
  EV_TRY(ledger_begin(l));
  ev_status status = ledger_prepare(l, removes ? "DELETE FROM ranges WHERE type = ?"
                                               : "INSERT INTO ranges VALUES (?, ?, ?) ON CONFLICT (type) DO UPDATE SET low = excluded.low, high = excluded.high", &s);
  if (status == EV_OK) {
    sqlite3_bind_text(s, 1, type, -1, SQLITE_STATIC);
    if (!removes) {
      sqlite3_bind_double(s, 2, low);
      sqlite3_bind_double(s, 3, high);
    }
    status = ledger_run(l, s);
  }
  bool there = sqlite3_changes(l->db) > 0;
  sqlite3_finalize(s);
  l->data_version = -1; /* the ranges in memory are of before */
  if (status != EV_OK) {
    ledger_rollback(l);
    return status;
  }
  EV_TRY(ledger_commit(l));
  return there || !removes ? EV_OK : ev_fail(EV_ENOTFOUND, "'%.60s' has no range", type);
}
