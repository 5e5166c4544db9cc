/* ledger_recent.c - the impressions that came last, in memory: most events are about one of them.
 *
 * A table with one place for each of so many hashes of ids; the newer takes the place of the older. What is not here is asked
 * of SQLite, which costs as much as a third of storing the event. Emptied when a transaction is rolled back, or when another
 * connection has written: it may have deleted some. */
#include <string.h>

#include "ledger.h"

#define PLACES 16384 /* some megabytes, with slates of ten */

typedef struct recent_item {
  uint32_t position, text; /* text: offset in bytes behind the items */
  int64_t agent;
} recent_item;

struct ledger_recent {
  uint64_t hash;
  int64_t number, version, time_ms;
  size_t n;
  const char *id, *texts; /* behind the items */
  recent_item items[];
};

void ledger_recent_clear(ev_ledger *l) {
  for (size_t i = 0; i < PLACES && l->n_recent > 0; i++) {
    ev_free(l->recent[i]);
    l->recent[i] = NULL;
  }
  l->n_recent = 0;
}

void ledger_recent_free(ev_ledger *l) {
  if (l->recent != NULL) ledger_recent_clear(l);
  ev_free(l->recent);
}

ev_status ledger_recent_keep(ev_ledger *l, const ev_impression *i, int64_t number, int64_t version, const int64_t *agents) {
  size_t bytes = strlen(i->id) + 1, head = sizeof(ledger_recent) + i->n_items * sizeof(recent_item);
  if (l->recent == NULL) l->recent = ev_zalloc(PLACES, sizeof(ledger_recent *));
  for (size_t k = 0; k < i->n_items; k++) bytes += strlen(i->items[k].item) + 1;
  ledger_recent *r = l->recent != NULL ? ev_alloc(head + bytes, 1) : NULL;
  if (r == NULL) return EV_ENOMEM;
  char *texts = (char *)r + head, *at = texts;
  *r = (ledger_recent){.hash = ev_checksum(i->id, strlen(i->id)), .number = number, .version = version, .time_ms = i->time_ms, .n = i->n_items, .texts = texts};
  for (size_t k = 0; k < i->n_items; k++) {
    size_t len = strlen(i->items[k].item) + 1;
    r->items[k] = (recent_item){i->items[k].position != 0 ? i->items[k].position : (uint32_t)(k + 1), (uint32_t)(at - texts), agents[k]};
    memcpy(at, i->items[k].item, len);
    at += len;
  }
  memcpy(at, i->id, strlen(i->id) + 1);
  r->id = at;
  ledger_recent **place = &l->recent[r->hash % PLACES];
  ev_free(*place);
  *place = r;
  l->n_recent++;
  return EV_OK;
}

bool ledger_recent_find(const ev_ledger *l, const ev_event *e, ledger_found *out) {
  if (l->n_recent == 0) return false;
  uint64_t hash = ev_checksum(e->impression, strlen(e->impression));
  const ledger_recent *r = l->recent[hash % PLACES];
  if (r == NULL || r->hash != hash || strcmp(r->id, e->impression) != 0) return false;
  *out = (ledger_found){.impression = r->number, .version = r->version, .early = e->time_ms < r->time_ms};
  for (size_t k = 0; k < r->n; k++) {
    if (strcmp(r->texts + r->items[k].text, e->item) != 0) continue;
    out->position = r->items[k].position;
    out->agent = r->items[k].agent;
    break;
  }
  return true;
}
