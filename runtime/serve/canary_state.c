/* canary_state.c - a canary as a file, and as what people and programs are shown.
 *
 * The file, native byte order and layout (another build's is refused):
 *   head: "EVCANARY", checksum of all that follows, sizes of the parts and of the structs
 *   canary_counts · canary_book · canary_inner (CANARY_AGENTS) · observations, padded to 8 · units in flight, oldest first
 *   · credits { user's number, agent, earned } · users { key, round } by number
 * Nothing in it is believed: loading builds the table, the units and the lists anew, and checks every number that counts, sizes or
 * bounds something. */
#include <math.h>
#include <string.h>

#include "canary.h"

typedef struct head {
  char magic[8];
  uint64_t sum;
  uint64_t size, layout, n_seen, n_units, n_credits, n_users;
} head;

typedef struct kept_credit {
  uint32_t number, agent;
  double earned;
} kept_credit;

typedef struct kept_user {
  uint64_t key;
  uint32_t round, reserved;
} kept_user;

static uint64_t layout(void) {
  const uint64_t sizes[] = {1, sizeof(canary_counts), sizeof(canary_book), sizeof(canary_inner), sizeof(canary_unit), sizeof(kept_credit),
                            sizeof(kept_user), CANARY_AGENTS, CANARY_HISTORY, CANARY_BUCKETS};
  return ev_checksum(sizes, sizeof sizes);
}

static size_t up8(size_t n) { return (n + 7) / 8 * 8; }
static size_t size_of(const head *h) {
  return sizeof *h + sizeof(canary_counts) + sizeof(canary_book) + CANARY_AGENTS * sizeof(canary_inner) + up8(h->n_seen) +
         h->n_units * sizeof(canary_unit) + h->n_credits * sizeof(kept_credit) + h->n_users * sizeof(kept_user);
}

/* ---- Saving -------------------------------------------------------------------------------------------------*/
static void count(const canary *c, head *h) { /* under `hot` */
  memcpy(h->magic, "EVCANARY", sizeof h->magic);
  h->layout = layout();
  h->n_seen = c->seen_to - c->seen_from;
  h->n_units = c->n.tail - c->n.head;
  h->n_users = c->n.tail;
  h->n_credits = c->n_credits;
  for (uint32_t i = c->free_credits; i != EV_NONE; i = c->credits[i].next) h->n_credits--;
}

static char *put(char *to, const void *what, size_t n) {
  memcpy(to, what, n);
  return to + n;
}

static char *copy(const canary *c, const head *h, char *to) { /* all but users, under both locks */
  to = put(to + sizeof *h, &c->n, sizeof c->n);
  to = put(to, &c->book, sizeof c->book);
  to = put(to, c->inner, sizeof c->inner);
  for (uint32_t i = 0; i < h->n_seen; i++) to[i] = (char)c->seen[(c->seen_from + i) % CANARY_SEEN];
  to += up8(h->n_seen);
  char *credit = to + h->n_units * sizeof(canary_unit);
  for (uint32_t number = c->n.head; number < c->n.tail; number++) {
    const canary_unit *u = canary_unit_of(c, number);
    to = put(to, u, sizeof *u);
    for (uint32_t i = u->credits; i != EV_NONE; i = c->credits[i].next) {
      kept_credit k = {.number = number, .agent = c->credits[i].agent, .earned = c->credits[i].earned};
      credit = put(credit, &k, sizeof k);
    }
  }
  return credit;
}

/* `hot` is held while units and credits are copied, and then for one shard of the users at a time: those who came meanwhile are not
 * in the file. Memory is taken, and written to the disk, while nobody waits. */
ev_status canary_save(const canary *kept, const char *path) {
  canary *c = (canary *)(uintptr_t)kept; /* for its locks */
  char *bytes = NULL, *people = NULL;
  head h = {0};
  pthread_mutex_lock(&c->slow);
  for (size_t room = 0;;) {
    pthread_mutex_lock(&c->hot);
    count(c, &h);
    h.size = size_of(&h);
    if (bytes != NULL && h.size <= room) break;
    pthread_mutex_unlock(&c->hot);
    ev_free(bytes);
    room = h.size + h.size / 8 + (1 << 16);
    bytes = ev_zalloc(room, 1); /* written to, so that no page is missing later */
    if (bytes == NULL) {
      pthread_mutex_unlock(&c->slow);
      return EV_ENOMEM;
    }
  }
  people = copy(c, &h, bytes);
  pthread_mutex_unlock(&c->hot);
  for (size_t s = 0; s < CANARY_SHARDS; s++) {
    pthread_mutex_lock(&c->hot);
    const canary_shard *shard = &c->shards[s];
    for (uint32_t i = 0; i < shard->size; i++) {
      const canary_user *u = &shard->users[i];
      if (u->key == 0 || u->number >= h.n_users) continue;
      kept_user k = {.key = u->key, .round = u->round};
      memcpy(people + u->number * sizeof k, &k, sizeof k);
    }
    pthread_mutex_unlock(&c->hot);
  }
  pthread_mutex_unlock(&c->slow);
  memcpy(bytes, &h, sizeof h);
  h.sum = ev_checksum(bytes + offsetof(head, size), h.size - offsetof(head, size));
  memcpy(bytes, &h, sizeof h);
  ev_writer *w;
  ev_status status = ev_writer_open(&w, path);
  if (status == EV_OK) {
    status = ev_writer_write(w, bytes, h.size);
    if (status == EV_OK) status = ev_writer_commit(w);
    else ev_writer_abort(w);
  }
  ev_free(bytes);
  return status;
}

/* ---- Loading ------------------------------------------------------------------------------------------------*/
static bool is_text(const char *s, size_t size, bool empty) {
  size_t len = strnlen(s, size);
  return len < size && (empty || len > 0) && ev_utf8_invalid(s, len) == len;
}

/* The room's own checks see to what would be read out of bounds. What was added to a sequence lay within `most` of 0, which bounds its
 * sums; with others it would go on to what is no number. */
static bool good_sums(const ev_sequence *s, double most) {
  bool good = s->n <= UINT64_C(1) << 40 && s->patience <= 1e12;
  for (int k = 0; k < 2; k++) good = good && fabs(s->side[k].sum) <= most * (double)s->n && s->side[k].squares <= 4 * most * most * (double)s->n;
  return good;
}

static bool good_sequence(const ev_sequence *s, double low, double high) {
  return s->kind == EV_BETTING && s->low == low && s->high == high && ev_sequence_check(s) == EV_OK && good_sums(s, 1.000001) && s->patience == 0;
}

static bool good_canary(const ev_canary *c, double share) {
  double most = 2 / fmin(share, 1 - share);
  return ev_canary_check(c) == EV_OK && good_sums(&c->difference, most) && c->n[0] <= UINT64_C(1) << 40 && c->n[1] <= UINT64_C(1) << 40 &&
         fabs(c->z) <= most * (double)c->difference.n && c->n[0] + c->n[1] == c->difference.n;
}

static bool good_guard(const canary_guard *g, double share) {
  const ev_canary_options *e = &g->errors.o, *s = &g->slow.o;
  bool good = good_canary(&g->errors, share) && good_canary(&g->slow, share) && e->low == 0 && e->high == 1 && s->low == 0 && s->high == 1;
  good = good && g->most_broken >= 1 && g->most_tardy >= 1 && isfinite(g->most_broken) && isfinite(g->most_tardy);
  for (int k = 0; k < CANARY_BETS; k++)
    good = good && g->broken[k] >= 0 && g->broken[k] <= 1e300 && g->tardy[k] >= 0 && g->tardy[k] <= 1e300;
  for (int k = 0; k < 2; k++) good = good && g->degraded[k] <= g->users[k] && g->late[k] <= g->users[k];
  return good;
}

static bool good_book(const char *bytes, const canary_book *b) {
  unsigned char automatic; /* anything but 0 and 1 may not even be looked at as a bool */
  memcpy(&automatic, bytes + offsetof(canary_book, o) + offsetof(canary_options, automatic), 1);
  const canary_options *o = &b->o;
  const ev_canary_options *t = &o->test, *outer = &b->outer.o;
  if (automatic > 1 || !is_text(o->challenger, sizeof o->challenger, true) || !is_text(o->champion, sizeof o->champion, true)) return false;
  bool good = canary_check_options(o) == EV_OK && good_canary(&b->outer, o->share) && outer->low == t->low && outer->high == t->high &&
              outer->margin == t->margin && outer->harm == t->harm && outer->confidence == t->confidence;
  for (int k = 0; k < 4; k++) good = good && good_sequence(&b->share[k / 2][k % 2], 0, 1);
  good = good && good_guard(&b->ever, o->share) && good_guard(&b->now, o->share) && b->verdict <= CANARY_ROLLS_BACK && b->stop < CANARY_STOPS;
  good = good && b->n_history <= CANARY_HISTORY && b->stride > 0 && b->stride <= 1u << 20 && (b->stride & (b->stride - 1)) == 0;
  good = good && is_text(b->why, sizeof b->why, true);
  good = good && b->started_ms >= 0 && b->started_ms <= CANARY_TIME_MAX && b->decided_ms >= 0 && b->decided_ms <= CANARY_TIME_MAX;
  for (uint32_t i = 0; good && i < b->n_history; i++) {
    const canary_point *p = &b->history[i];
    good = isfinite(p->units) && isfinite(p->difference) && isfinite(p->low) && isfinite(p->high);
  }
  return good;
}

static bool good_inner(const canary_inner *a, const canary_counts *n, const ev_canary_options *t) {
  for (uint32_t i = 0; i < n->n_agents; i++) {
    if (!is_text(a[i].name, sizeof a[i].name, false) || a[i].since > n->tail) return false;
    for (uint32_t k = 0; k < i; k++)
      if (strcmp(a[k].name, a[i].name) == 0) return false;
    bool begun = a[i].arm[0].confidence != 0;
    for (int k = 0; k < 2; k++)
      if (begun ? !good_sequence(&a[i].arm[k], t->low, t->high) : a[i].arm[k].confidence != 0) return false;
  }
  return true;
}

static bool good_counts(const canary_counts *n, const head *h) {
  return n->tail == h->n_users && n->head <= n->tail && n->tail - n->head == h->n_units && n->n_agents <= CANARY_AGENTS && n->now_ms >= 0 &&
         n->now_ms <= CANARY_TIME_MAX && n->started_ms >= 0 && n->started_ms <= n->now_ms && n->opened[0] <= n->tail && n->opened[1] == n->tail - n->opened[0];
}

/* @param data whole, its checksum and sizes right */
static ev_status rebuild(canary *c, const char *data, const head *h) {
  const char *at = data + sizeof *h;
  canary_counts n;
  memcpy(&n, at, sizeof n);
  at += sizeof n;
  const char *book = at;
  memcpy(&c->book, book, sizeof c->book);
  at += sizeof c->book;
  memcpy(c->inner, at, sizeof c->inner);
  at += sizeof c->inner;
  if (!good_counts(&n, h) || !good_book(book, &c->book) || !good_inner(c->inner, &n, &c->book.o.test)) return EV_ECORRUPT;
  memcpy(c->seen, at, h->n_seen);
  c->seen_to = (uint32_t)h->n_seen;
  for (size_t i = 0; i < h->n_seen; i++)
    if (c->seen[i] > 31) return EV_ECORRUPT;
  const char *units = at + up8(h->n_seen), *credits = units + h->n_units * sizeof(canary_unit), *people = credits + h->n_credits * sizeof(kept_credit);
  for (uint32_t number = 0; number < n.tail; number++) {
    kept_user k;
    canary_unit u;
    memcpy(&k, people + number * sizeof k, sizeof k);
    if (k.key == 0 || canary_find(c, k.key) != NULL) return EV_ECORRUPT;
    if (number >= n.head) {
      memcpy(&u, units + (number - n.head) * sizeof u, sizeof u);
      if (u.arm > 1 || u.slates == 0 || !isfinite(u.earned) || u.until_ms < 0 || u.until_ms > 2 * CANARY_TIME_MAX) return EV_ECORRUPT;
      u.credits = EV_NONE;
    }
    if (!canary_insert(c, k.key, k.round, number >= n.head ? &u : NULL)) return EV_ENOMEM;
  }
  for (size_t i = 0; i < h->n_credits; i++) {
    kept_credit k;
    memcpy(&k, credits + i * sizeof k, sizeof k);
    if (k.number < n.head || k.number >= n.tail || k.agent >= n.n_agents || !isfinite(k.earned)) return EV_ECORRUPT;
    if (!canary_credited(c, canary_unit_of(c, k.number), k.agent, k.earned)) return EV_ENOMEM;
  }
  c->n = n;
  return EV_OK;
}

ev_status canary_load(canary **out, const char *path) {
  *out = NULL;
  ev_map m;
  EV_TRY(ev_map_open(&m, path));
  const char *data = m.data;
  head h = {0};
  if (m.size >= sizeof h) memcpy(&h, data, sizeof h);
  bool whole = m.size >= sizeof h && memcmp(h.magic, "EVCANARY", sizeof h.magic) == 0 && h.size == m.size && h.layout == layout();
  whole = whole && h.n_seen <= CANARY_SEEN && h.n_users <= CANARY_USERS_MAX && h.n_units <= h.n_users && h.n_credits <= CANARY_CREDITS_MAX;
  whole = whole && size_of(&h) == m.size && ev_checksum(data + offsetof(head, size), m.size - offsetof(head, size)) == h.sum;
  ev_status status = EV_ECORRUPT;
  if (whole) {
    status = canary_start(out);
    if (status == EV_OK) status = rebuild(*out, data, &h);
  }
  ev_map_close(&m);
  if (status == EV_OK) return EV_OK;
  canary_free(*out);
  *out = NULL;
  return status == EV_ECORRUPT ? ev_fail(EV_ECORRUPT, "%s: this is no canary that was kept, or it was damaged", path) : status;
}

/* ---- Telling ------------------------------------------------------------------------------------------------*/
static void set(json_t *o, const char *key, double x) { /* what is not known is left out */
  if (isfinite(x)) json_object_set_new(o, key, json_real(x));
}
static void set_int(json_t *o, const char *key, uint64_t x) { json_object_set_new(o, key, json_integer((json_int_t)x)); }
static void set_text(json_t *o, const char *key, const char *s) {
  json_t *text = json_string(s);
  if (text != NULL) json_object_set_new(o, key, text);
}
static const char *const arm_names[2] = {"champion", "challenger"};

static json_t *interval(const ev_sequence *s, const char *counted) {
  json_t *o = json_object();
  ev_difference d = {.value = NAN, .low = NAN, .high = NAN};
  if (s->n > 0) ev_sequence_interval(s, &d);
  set(o, "value", d.value);
  set(o, "low", d.low);
  set(o, "high", d.high);
  set_int(o, counted, s->n);
  return o;
}

static double quantile(const uint64_t buckets[CANARY_BUCKETS], double p) {
  uint64_t all = 0, sum = 0;
  for (size_t i = 0; i < CANARY_BUCKETS; i++) all += buckets[i];
  if (all == 0) return NAN;
  for (size_t i = 0; i < CANARY_BUCKETS; i++)
    if ((double)(sum += buckets[i]) >= p * (double)all) return canary_bucket_ms(i);
  return canary_bucket_ms(CANARY_BUCKETS - 1);
}

static double largest(const canary_book *b, double ever, double now) { /* as a part of what it needs */
  return fmax(ever / canary_need(b, &b->ever), now / canary_need(b, &b->now));
}

/* ln e grows, once it grows, by as much each unit; that it was mixed over EV_BETS bets costs at most ln EV_BETS before. So with a cost of
 * 2: (ln need − ln e) n / (ln e + 2) more. Nothing is said before the evidence is at least 5 : 1, which mere chance gives seldom, nor
 * of more than ten times what there was. */
static void set_outlook(json_t *status, const canary_book *b, const ev_canary_result *r) {
  const ev_canary_options *t = &b->outer.o;
  double n = (double)(b->outer.n[0] + b->outer.n[1]), e = fmax(r->better, r->worse), need = r->better > r->worse ? 1 / (1 - t->confidence) : 1 / (1 - t->caution);
  if (b->verdict != CANARY_WAITS || !(e >= 5) || e >= need) return;
  double more = (log(need) - log(e)) * n / (log(e) + 2);
  if (more > 10 * n) return;
  json_t *o = json_object();
  set_text(o, "toward", r->better > r->worse ? "promote" : "roll back");
  set_int(o, "more_users", (uint64_t)ceil(more));
  json_object_set_new(status, "outlook", o);
}

static json_t *told_options(const canary_options *o) {
  json_t *t = json_object();
  set_int(t, "slates_per_user", o->slates_per_user);
  set_int(t, "settle_ms", (uint64_t)o->settle_ms);
  set_int(t, "window_ms", (uint64_t)o->window_ms);
  set(t, "margin", o->test.margin);
  set(t, "harm", o->test.harm);
  set(t, "low", o->test.low);
  set(t, "high", o->test.high);
  set(t, "confidence", o->test.confidence);
  set(t, "caution", o->test.caution);
  set(t, "errors_max", o->errors_max);
  set(t, "late_ms", o->late_ms);
  json_object_set_new(t, "automatic", json_boolean(o->automatic));
  return t;
}

static json_t *told_guards(const canary_book *b, const canary_counts *n) {
  json_t *guards = json_object(), *errors = json_object(), *latency = json_object();
  const canary_guard *g[] = {&b->ever, &b->now};
  double broken = largest(b, g[0]->most_broken, g[1]->most_broken), more = largest(b, g[0]->errors.most[1], g[1]->errors.most[1]), slow = 0;
  for (int k = 0; k < 2; k++) slow = fmax(slow, fmin(g[k]->slow.most[1], g[k]->most_tardy) / canary_need(b, g[k]));
  for (int arm = 0; arm < 2; arm++) {
    json_t *e = interval(&b->share[0][arm], "users"), *l = interval(&b->share[1][arm], "users");
    set_int(e, "degraded_slates", n->degraded[arm]);
    set_int(e, "slates", n->slates[arm]);
    set(l, "p50_ms", quantile(n->latency[arm], 0.5));
    set(l, "p99_ms", quantile(n->latency[arm], 0.99));
    json_object_set_new(errors, arm_names[arm], e);
    json_object_set_new(latency, arm_names[arm], l);
  }
  set(errors, "most_beyond_champion", b->o.errors_max);
  set(errors, "evidence", fmax(broken, more));
  json_object_set_new(errors, "holds", json_boolean(b->stop != STOP_ERRORS && b->stop != STOP_BROKEN));
  set(latency, "late_ms", b->o.late_ms);
  set(latency, "most", CANARY_LATE_SHARE);
  set(latency, "evidence", slow);
  json_object_set_new(latency, "holds", json_boolean(b->stop != STOP_LATE));
  json_object_set_new(guards, "errors", errors);
  json_object_set_new(guards, "latency", latency);
  return guards;
}

json_t *canary_status(const canary *kept) {
  canary *c = (canary *)(uintptr_t)kept; /* for its locks */
  if (c == NULL) return NULL;
  static const char *const verdicts[] = {"wait", "promote", "roll back"}, *const stops[CANARY_STOPS] = {"", "outer", "errors", "broken", "latency", "outer"};
  pthread_mutex_lock(&c->slow);
  pthread_mutex_lock(&c->hot);
  canary_counts n = c->n;
  pthread_mutex_unlock(&c->hot);
  const canary_book *b = &c->book;
  ev_canary_result r;
  ev_canary_read(&b->outer, &r);
  json_t *status = json_object(), *units = json_object(), *slates = json_object(), *events = json_object(), *outer = json_object(), *inner = json_array(), *history = json_array();
  set_text(status, "champion", b->o.champion);
  set_text(status, "challenger", b->o.challenger);
  set(status, "share", b->o.share);
  if (n.started_ms > 0) set_int(status, "since_ms", (uint64_t)n.started_ms);
  set_int(status, "now_ms", (uint64_t)n.now_ms);
  json_object_set_new(status, "options", told_options(&b->o));
  uint64_t entered = b->outer.n[0] + b->outer.n[1];
  for (int arm = 0; arm < 2; arm++) {
    set_int(units, arm_names[arm], b->outer.n[arm]);
    set_int(slates, arm_names[arm], n.slates[arm]);
    set_int(events, arm_names[arm], n.events[arm]);
  }
  json_object_set_new(status, "units", units);
  json_object_set_new(status, "slates", slates);
  json_object_set_new(status, "events", events);
  set_int(status, "in_flight", n.tail - n.head);
  set_int(status, "users", n.tail);
  set_int(status, "users_max", CANARY_USERS_MAX);
  set_int(status, "ignored_slates", n.ignored);
  set_int(status, "mixed_slates", n.mixed);
  set_int(status, "lost_observations", n.unseen + n.uncredited);
  set(outer, "champion", r.champion);
  set(outer, "challenger", r.challenger);
  set(outer, "difference", r.difference.value);
  if (entered > 0) {
    set(outer, "low", r.difference.low);
    set(outer, "high", r.difference.high);
  }
  set(outer, "e_better", r.better);
  set(outer, "e_worse", r.worse);
  set(outer, "need_better", 1 / (1 - b->outer.o.confidence));
  set(outer, "need_worse", 1 / (1 - b->outer.o.caution));
  static const char *const decisions[] = {"go on", "promote", "roll back"};
  set_text(outer, "decision", decisions[r.decision]);
  json_object_set_new(status, "outer", outer);
  for (uint32_t i = 0; i < n.n_agents; i++) {
    json_t *a = json_object();
    set_text(a, "agent", c->inner[i].name);
    for (int arm = 0; arm < 2; arm++) json_object_set_new(a, arm_names[arm], interval(&c->inner[i].arm[arm], "users"));
    json_array_append_new(inner, a);
  }
  json_object_set_new(status, "inner", inner);
  json_object_set_new(status, "guardrails", told_guards(b, &n));
  set_text(status, "verdict", verdicts[b->verdict]);
  set_text(status, "by", stops[b->stop]);
  set_text(status, "reason", b->why);
  if (b->verdict != CANARY_WAITS) set_int(status, "decided_ms", (uint64_t)b->decided_ms);
  set_outlook(status, b, &r);
  for (uint32_t i = 0; i < b->n_history; i++) {
    const canary_point *p = &b->history[i];
    json_array_append_new(history, json_pack("[ffff]", p->units, p->difference, p->low, p->high));
  }
  if (entered > 0 && (b->n_history == 0 || b->history[b->n_history - 1].units != (double)entered)) /* and where it stands */
    json_array_append_new(history, json_pack("[ffff]", (double)entered, r.difference.value, r.difference.low, r.difference.high));
  json_object_set_new(status, "history", history);
  pthread_mutex_unlock(&c->slow);
  return status;
}
