/* wire.c - batches and promotions as the flat bytes of a record, and back without a copy of their texts.
 *
 *   batch       u32 impressions, events, items of all impressions; impressions; events
 *   impression  f64 propensity, i64 time_ms, u32 items; id, user, version; of each item: f64 propensity, u32 position; item, agent
 *   event       f64 value, i64 time_ms; id, user, item, type, version, impression
 *   promotion   f64 share, i64 at_ms, u32 ends_canary; version, against, action, reason, evidence
 *   text        u32 length (EV_NONE: there is none), bytes, NUL
 *
 * Nothing is aligned or swapped: what reads is another process of the same machine and program. */
#include <string.h>

#include "scribe.h"

/* ---- Writing -------------------------------------------------------------------------------------------*/
typedef struct out {
  char *to;
  size_t room, used; /* used > room: only counted from there on */
} out;

static inline void put(out *o, const void *data, size_t n) {
  if (o->used + n <= o->room) memcpy(o->to + o->used, data, n);
  o->used += n;
}

static inline void put_text(out *o, const char *s) {
  uint32_t len = EV_NONE;
  if (s != NULL) {
    size_t n = strlen(s);
    len = n < EV_NONE ? (uint32_t)n : EV_NONE - 1; /* then the room is too small for it anyway */
  }
  put(o, &len, sizeof len);
  if (s != NULL) put(o, s, (size_t)len + 1);
}

size_t wire_write_batch(char *to, size_t room, const void *batch) {
  const ev_ledger_batch *b = batch;
  out o = {to, room, 0};
  uint32_t counts[3] = {(uint32_t)b->n_impressions, (uint32_t)b->n_events, 0};
  for (size_t i = 0; i < b->n_impressions; i++) counts[2] += (uint32_t)b->impressions[i].n_items;
  put(&o, counts, sizeof counts);
  for (size_t i = 0; i < b->n_impressions; i++) {
    const ev_impression *s = &b->impressions[i];
    uint32_t n = (uint32_t)s->n_items;
    put(&o, &s->propensity, sizeof s->propensity);
    put(&o, &s->time_ms, sizeof s->time_ms);
    put(&o, &n, sizeof n);
    put_text(&o, s->id);
    put_text(&o, s->user);
    put_text(&o, s->version);
    for (size_t k = 0; k < s->n_items; k++) {
      const ev_shown *x = &s->items[k];
      put(&o, &x->propensity, sizeof x->propensity);
      put(&o, &x->position, sizeof x->position);
      put_text(&o, x->item);
      put_text(&o, x->agent);
    }
  }
  for (size_t i = 0; i < b->n_events; i++) {
    const ev_event *e = &b->events[i];
    put(&o, &e->value, sizeof e->value);
    put(&o, &e->time_ms, sizeof e->time_ms);
    put_text(&o, e->id);
    put_text(&o, e->user);
    put_text(&o, e->item);
    put_text(&o, e->type);
    put_text(&o, e->version);
    put_text(&o, e->impression);
  }
  return o.used;
}

size_t wire_write_promotion(char *to, size_t room, const void *p) {
  const wire_promotion *w = p;
  out o = {to, room, 0};
  uint32_t ends = w->p.ends_canary;
  put(&o, &w->p.share, sizeof w->p.share);
  put(&o, &w->at_ms, sizeof w->at_ms);
  put(&o, &ends, sizeof ends);
  put_text(&o, w->p.version);
  put_text(&o, w->p.against);
  put_text(&o, w->p.action);
  put_text(&o, w->p.reason);
  put_text(&o, w->p.evidence);
  return o.used;
}

/* ---- Reading -------------------------------------------------------------------------------------------*/
typedef struct in {
  const char *at;
  size_t left;
  bool wrong; /* something reached beyond the end: all that follows is zero */
} in;

static inline void get(in *i, void *to, size_t n) {
  if (n > i->left) {
    i->wrong = true;
    memset(to, 0, n);
    return;
  }
  memcpy(to, i->at, n);
  i->at += n;
  i->left -= n;
}

static inline const char *get_text(in *i) {
  uint32_t len;
  get(i, &len, sizeof len);
  if (i->wrong || len == EV_NONE) return NULL;
  if (len >= i->left || i->at[len] != '\0') {
    i->wrong = true;
    return NULL;
  }
  const char *s = i->at;
  i->at += (size_t)len + 1;
  i->left -= (size_t)len + 1;
  return s;
}

static bool roomy(void *array, size_t *cap, size_t n, size_t size) {
  if (n <= *cap) return true;
  size_t next = *cap == 0 ? 64 : *cap;
  while (next < n) next *= 2;
  void *p = ev_resize(*(void **)array, next, size);
  if (p == NULL) return false;
  *(void **)array = p;
  *cap = next;
  return true;
}

static ev_status damaged(const char *what) { return ev_fail(EV_ECORRUPT, "a record of the ledger's writer is damaged: %s", what); }

ev_status wire_read_batch(wire *w, const char *from, size_t len, ev_ledger_batch *batch) {
  in i = {from, len, false};
  uint32_t counts[3];
  get(&i, counts, sizeof counts);
  /* The fewest bytes of each: so a count asks for no more memory than some times the record's. */
  if (i.wrong || counts[0] > i.left / 32 || counts[1] > i.left / 40 || counts[2] > i.left / 20) return damaged("counts");
  if (!roomy(&w->impressions, &w->impressions_cap, counts[0], sizeof *w->impressions) || !roomy(&w->events, &w->events_cap, counts[1], sizeof *w->events) ||
      !roomy(&w->items, &w->items_cap, counts[2], sizeof *w->items))
    return EV_ENOMEM;
  size_t items = 0;
  for (size_t a = 0; a < counts[0]; a++) {
    ev_impression *s = &w->impressions[a];
    uint32_t n;
    get(&i, &s->propensity, sizeof s->propensity);
    get(&i, &s->time_ms, sizeof s->time_ms);
    get(&i, &n, sizeof n);
    s->id = get_text(&i);
    s->user = get_text(&i);
    s->version = get_text(&i);
    if (i.wrong || n > counts[2] - items) return damaged("an impression");
    s->items = w->items + items;
    s->n_items = n;
    for (ev_shown *x = w->items + items, *end = x + n; x < end; x++) {
      get(&i, &x->propensity, sizeof x->propensity);
      get(&i, &x->position, sizeof x->position);
      x->item = get_text(&i);
      x->agent = get_text(&i);
    }
    items += n;
  }
  for (size_t a = 0; a < counts[1]; a++) {
    ev_event *e = &w->events[a];
    get(&i, &e->value, sizeof e->value);
    get(&i, &e->time_ms, sizeof e->time_ms);
    e->id = get_text(&i);
    e->user = get_text(&i);
    e->item = get_text(&i);
    e->type = get_text(&i);
    e->version = get_text(&i);
    e->impression = get_text(&i);
  }
  if (i.wrong || i.left != 0 || items != counts[2]) return damaged("lengths");
  *batch = (ev_ledger_batch){w->impressions, counts[0], w->events, counts[1]};
  return EV_OK;
}

ev_status wire_read_promotion(const char *from, size_t len, wire_promotion *w) {
  in i = {from, len, false};
  uint32_t ends;
  get(&i, &w->p.share, sizeof w->p.share);
  get(&i, &w->at_ms, sizeof w->at_ms);
  get(&i, &ends, sizeof ends);
  w->p.ends_canary = ends == 1;
  w->p.version = get_text(&i);
  w->p.against = get_text(&i);
  w->p.action = get_text(&i);
  w->p.reason = get_text(&i);
  w->p.evidence = get_text(&i);
  if (i.wrong || i.left != 0 || ends > 1) return damaged("a promotion");
  return EV_OK;
}

void wire_free(wire *w) {
  ev_free(w->impressions);
  ev_free(w->events);
  ev_free(w->items);
  *w = (wire){0};
}
