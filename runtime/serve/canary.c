/* canary.c - what a challenger is worth, and whether it does harm: the unit is a user, the decision may be looked at at any time.
 *
 * What a slate and an event cost is a look into a hash table under a lock; the sequences are fed by canary_tick. A test by slates
 * would take the hundred slates of one busy user for a hundred witnesses: in tests/bench/canary.c it is wrong several times as often as it
 * says. The guardrails do not wait for a unit to close: each user's first slate is looked at as it comes, and again his
 * first one of each round, since what fails may begin to fail late. Tests of one round know nothing of the others (their users
 * are the same ones), so round r of all has 1 / (r (r + 1)) of the probability of being wrong: all together have one. */
#include <math.h>
#include <string.h>

#include "canary.h"

#define BATCH 64              /* units that one hold of `hot` takes out */
#define TICK_MOST 8192        /* units and observations of one tick: some tens of milliseconds at most */
#define CAPITAL_MAX 1e300
enum { SEEN_CHALLENGER = 1, SEEN_DEGRADED = 2, SEEN_LATE = 4, SEEN_FIRST = 8, SEEN_ROUND = 16 };

void canary_defaults(canary_options *o) {
  *o = (canary_options){.share = 0.1, .slates_per_user = 5, .settle_ms = 30000, .window_ms = 1800000, .errors_max = 0.02, .late_ms = 100, .automatic = true};
  ev_canary_defaults(&o->test);
}

static uint64_t key_of(const char *user) {
  uint64_t key = ev_checksum(user, strlen(user));
  return key != 0 ? key : 1;
}

/* The salt is hashed together with the hash of the id, so that ids of any length cost no copy. */
bool canary_picks(uint64_t salt, double share, const char *user) {
  if (user == NULL || user[0] == 0) return false;
  uint64_t both[2] = {salt, key_of(user)};
  return (double)(ev_checksum(both, sizeof both) >> 11) * 0x1p-53 < share;
}

const canary_options *canary_opts(const canary *c) { return &c->book.o; }

bool canary_is(const canary *c, const canary_options *o) {
  return strcmp(c->book.o.challenger, o->challenger) == 0 && strcmp(c->book.o.champion, o->champion) == 0 && c->book.o.salt == o->salt;
}

ev_status canary_check_options(const canary_options *o) {
  if (!(o->share > 0 && o->share < 1)) return ev_fail(EV_EINVAL, "a canary's share lies between 0 and 1, not %g", o->share);
  if (o->slates_per_user < 1 || o->slates_per_user > 10000) return ev_fail(EV_EINVAL, "slates_per_user is from 1 to 10000, not %u", o->slates_per_user);
  if (o->window_ms < 1 || o->window_ms > INT64_C(31536000000)) return ev_fail(EV_EINVAL, "window_ms is from 1 to a year, not %lld", (long long)o->window_ms);
  if (o->settle_ms < 0 || o->settle_ms > o->window_ms) return ev_fail(EV_EINVAL, "settle_ms is from 0 to window_ms, not %lld", (long long)o->settle_ms);
  if (!(o->errors_max >= 0 && o->errors_max <= 0.5)) return ev_fail(EV_EINVAL, "errors_max is a share of slates from 0 to 0.5, not %g", o->errors_max);
  if (!(o->late_ms > 0) || !isfinite(o->late_ms)) return ev_fail(EV_EINVAL, "late_ms is above 0, not %g", o->late_ms);
  ev_canary test;
  return ev_canary_init(&test, &o->test);
}

/* ---- Guardrails ---------------------------------------------------------------------------------------------*/
static ev_status guard_init(canary_guard *g, const canary_options *o) {
  memset(g, 0, sizeof *g);
  ev_canary_options test;
  ev_canary_defaults(&test);
  test.harm = o->errors_max;
  EV_TRY(ev_canary_init(&g->errors, &test));
  test.harm = 0;
  EV_TRY(ev_canary_init(&g->slow, &test));
  for (int k = 0; k < CANARY_BETS; k++) g->broken[k] = g->tardy[k] = 1;
  g->most_broken = g->most_tardy = 1;
  return EV_OK;
}

double canary_need(const canary_book *b, const canary_guard *g) {
  double alpha = (1 - CANARY_OUTER_PART) * (1 - b->o.test.caution) / CANARY_TESTS, r = g == &b->now ? (double)(b->rounds > 0 ? b->rounds : 1) : 0;
  return r > 0 ? r * (r + 1) / alpha : 1 / alpha;
}

double canary_mixed(const double capital[CANARY_BETS]) {
  double sum = 0;
  for (int k = 0; k < CANARY_BETS; k++) sum += capital[k] / CANARY_BETS;
  return sum;
}

/* Bets that something happens more often than with probability p: each factor has mean 1 at most if it does not. */
static void bet_above(double capital[CANARY_BETS], double *most, bool happened, double p) {
  double lambda = 0.75 / p;
  for (int k = 0; k < CANARY_BETS; k++, lambda /= 2.5) capital[k] = fmin(CAPITAL_MAX, capital[k] * (1 + lambda * ((happened ? 1 : 0) - p)));
  *most = fmax(*most, canary_mixed(capital));
}

static double gross(const canary_options *o) { return fmax(CANARY_GROSS, o->errors_max); }

static void guard_see(canary_guard *g, const canary_options *o, unsigned seen) {
  bool challenger = seen & SEEN_CHALLENGER, degraded = seen & SEEN_DEGRADED, late = seen & SEEN_LATE;
  g->users[challenger]++;
  g->degraded[challenger] += degraded;
  g->late[challenger] += late;
  ev_canary_add(&g->errors, challenger, degraded ? 0 : 1, o->share); /* cannot fail: the share was checked */
  ev_canary_add(&g->slow, challenger, late ? 0 : 1, o->share);
  if (!challenger) return;
  bet_above(g->broken, &g->most_broken, degraded, gross(o));
  bet_above(g->tardy, &g->most_tardy, late, CANARY_LATE_SHARE);
}

static double part(uint64_t some, uint64_t of) { return of > 0 ? (double)some / (double)of : 0; }

static canary_stop guard_says(const canary_book *b, const canary_guard *g) {
  double need = canary_need(b, g), ours = part(g->degraded[1], g->users[1]);
  /* Where the champion fails as well, it is not the challenger. This only makes the test stricter. */
  if (g->most_broken >= need && part(g->degraded[0], g->users[0]) < 0.5 * ours) return STOP_BROKEN;
  if (g->errors.most[1] >= need) return STOP_ERRORS;
  return g->slow.most[1] >= need && g->most_tardy >= need ? STOP_LATE : STOP_NONE;
}

static void decide(canary_book *b, canary_verdict verdict, canary_stop stop, int64_t now_ms) {
  b->verdict = (uint32_t)verdict;
  b->stop = (uint32_t)stop;
  b->decided_ms = now_ms;
}

static void tell_stop(canary_book *b, const canary_guard *g, canary_stop stop) {
  const uint64_t *what = stop == STOP_LATE ? g->late : g->degraded;
  char than[64];
  if (stop == STOP_LATE) snprintf(than, sizeof than, "more than %g %%, and more than the champion's", 100 * CANARY_LATE_SHARE);
  else if (stop == STOP_BROKEN) snprintf(than, sizeof than, "more than %g %%", 100 * gross(&b->o));
  else snprintf(than, sizeof than, "more than %g points beyond the champion's", 100 * b->o.errors_max);
  char limit[48] = "degraded slates";
  if (stop == STOP_LATE) snprintf(limit, sizeof limit, "slates slower than %g ms", b->o.late_ms);
  snprintf(b->why, sizeof b->why, "%s: of %llu of the challenger's %llu users, of %llu of the champion's %llu; beyond doubt %s", limit,
           (unsigned long long)what[1], (unsigned long long)g->users[1], (unsigned long long)what[0], (unsigned long long)g->users[0], than);
}

static void see(canary_book *b, unsigned seen, int64_t now_ms) {
  if (seen & SEEN_ROUND) {
    b->rounds++;
    guard_init(&b->now, &b->o); /* cannot fail: it did not before */
  }
  guard_see(&b->now, &b->o, seen);
  if (seen & SEEN_FIRST) {
    guard_see(&b->ever, &b->o, seen);
    double x[2] = {seen & SEEN_DEGRADED ? 1 : 0, seen & SEEN_LATE ? 1 : 0};
    for (int k = 0; k < 2; k++) ev_sequence_add(&b->share[k][seen & SEEN_CHALLENGER ? 1 : 0], &x[k], 1);
  }
  if (b->verdict != CANARY_WAITS) return;
  const canary_guard *guards[] = {&b->ever, &b->now};
  for (int k = 0; k < 2; k++) {
    canary_stop stop = guard_says(b, guards[k]);
    if (stop == STOP_NONE) continue;
    decide(b, CANARY_ROLLS_BACK, stop, now_ms);
    tell_stop(b, guards[k], stop);
    return;
  }
}

/* ---- Making one ---------------------------------------------------------------------------------------------*/
ev_status canary_start(canary **out) {
  *out = NULL;
  canary *c = ev_zalloc(1, sizeof *c);
  if (c == NULL) return EV_ENOMEM;
  pthread_mutexattr_t spins; /* it is held for less than it takes to be woken */
  pthread_mutexattr_init(&spins);
  pthread_mutexattr_settype(&spins, PTHREAD_MUTEX_ADAPTIVE_NP);
  pthread_mutex_init(&c->hot, &spins); /* neither can fail */
  pthread_mutex_init(&c->slow, NULL);
  pthread_mutexattr_destroy(&spins);
  c->free_credits = EV_NONE;
  *out = c;
  return EV_OK;
}

ev_status canary_new(canary **out, const canary_options *o) {
  *out = NULL;
  EV_TRY(canary_check_options(o));
  canary *c;
  EV_TRY(canary_start(&c));
  canary_book *b = &c->book;
  b->o = *o;
  b->stride = 1;
  ev_canary_options test = o->test;
  test.caution = 1 - CANARY_OUTER_PART * (1 - o->test.caution);
  ev_status status = ev_canary_init(&b->outer, &test);
  if (status == EV_OK) status = guard_init(&b->ever, o);
  if (status == EV_OK) status = guard_init(&b->now, o);
  for (int k = 0; k < 4 && status == EV_OK; k++) status = ev_sequence_init(&b->share[k / 2][k % 2], EV_BETTING, o->test.confidence, 0, 1);
  if (status != EV_OK) {
    canary_free(c);
    return status;
  }
  *out = c;
  return EV_OK;
}

void canary_free(canary *c) {
  if (c == NULL) return;
  for (size_t i = 0; i < CANARY_SHARDS; i++) ev_free(c->shards[i].users);
  for (size_t i = 0; i < CANARY_USERS_MAX / CANARY_CHUNK; i++) ev_free(c->chunks[i]);
  ev_free(c->credits);
  pthread_mutex_destroy(&c->hot);
  pthread_mutex_destroy(&c->slow);
  ev_free(c);
}

/* ---- Users and units, under `hot` ---------------------------------------------------------------------------*/
static canary_user *place_of(const canary_shard *s, uint64_t key) { /* where it is, or would be */
  uint32_t at = (uint32_t)(key >> 32) & (s->size - 1);
  while (s->users[at].key != 0 && s->users[at].key != key) at = (at + 1) & (s->size - 1);
  return &s->users[at];
}

canary_user *canary_find(const canary *c, uint64_t key) {
  const canary_shard *s = &c->shards[key % CANARY_SHARDS];
  if (s->size == 0) return NULL;
  canary_user *u = place_of(s, key);
  return u->key != 0 ? u : NULL;
}

static bool shard_grow(canary_shard *s) {
  canary_shard next = {.size = s->size > 0 ? 2 * s->size : 64, .n = s->n};
  next.users = ev_zalloc(next.size, sizeof *next.users);
  if (next.users == NULL) return false;
  for (uint32_t i = 0; i < s->size; i++)
    if (s->users[i].key != 0) *place_of(&next, s->users[i].key) = s->users[i];
  ev_free(s->users);
  *s = next;
  return true;
}

canary_unit *canary_unit_of(const canary *c, uint32_t number) { return &c->chunks[number / CANARY_CHUNK][number % CANARY_CHUNK]; }

bool canary_insert(canary *c, uint64_t key, uint32_t round, const canary_unit *u) {
  canary_shard *s = &c->shards[key % CANARY_SHARDS];
  uint32_t number = c->n.tail;
  if (number >= CANARY_USERS_MAX || (4 * (s->n + 1) > 3 * s->size && !shard_grow(s))) return false;
  canary_unit **chunk = &c->chunks[number / CANARY_CHUNK];
  if (u != NULL && *chunk == NULL && (*chunk = ev_alloc(CANARY_CHUNK, sizeof **chunk)) == NULL) return false;
  *place_of(s, key) = (canary_user){.key = key, .number = number, .round = round};
  s->n++;
  if (u != NULL) (*chunk)[number % CANARY_CHUNK] = *u;
  c->n.tail++;
  return true;
}

bool canary_credited(canary *c, canary_unit *u, uint32_t agent, double earned) {
  for (uint32_t i = u->credits; i != EV_NONE; i = c->credits[i].next)
    if (c->credits[i].agent == agent) {
      c->credits[i].earned += earned;
      return true;
    }
  uint32_t at = c->free_credits;
  if (at != EV_NONE) {
    c->free_credits = c->credits[at].next;
  } else {
    if (c->n_credits == c->credits_size) {
      uint32_t size = c->credits_size > 0 ? 2 * c->credits_size : 1024;
      if (size > CANARY_CREDITS_MAX) return false;
      canary_credit *more = ev_resize(c->credits, size, sizeof *more);
      if (more == NULL) return false;
      c->credits = more;
      c->credits_size = size;
    }
    at = c->n_credits++;
  }
  c->credits[at] = (canary_credit){.earned = earned, .agent = agent, .next = u->credits};
  u->credits = at;
  return true;
}

static uint32_t agent_of(canary *c, const char *name) { /* EV_NONE: no room for another */
  for (uint32_t i = 0; i < c->n.n_agents; i++)
    if (strcmp(c->inner[i].name, name) == 0) return i;
  if (c->n.n_agents == CANARY_AGENTS || name[0] == 0 || strlen(name) >= CANARY_AGENT_NAME) return EV_NONE;
  canary_inner *a = &c->inner[c->n.n_agents];
  strcpy(a->name, name); /* it fits */
  a->since = c->n.tail;  /* of those before, nobody noted what it earned */
  return c->n.n_agents++;
}

static size_t bucket_of(double ms) {
  if (!(ms > 0x1p-5)) return 0;
  double at = 8 * (log2(ms) + 5);
  return at < CANARY_BUCKETS - 1 ? (size_t)at : CANARY_BUCKETS - 1;
}

double canary_bucket_ms(size_t bucket) { return exp2((double)(bucket + 1) / 8 - 5); }

static int64_t clock_of(canary *c, int64_t now_ms) { /* under `hot` */
  if (now_ms > c->n.now_ms) c->n.now_ms = now_ms < CANARY_TIME_MAX ? now_ms : CANARY_TIME_MAX;
  return c->n.now_ms;
}

void canary_slate(canary *c, const char *user, bool challenger, bool degraded, double ms, int64_t now_ms) {
  if (c == NULL || user == NULL || user[0] == 0) return;
  uint64_t key = key_of(user);
  size_t bucket = bucket_of(ms);
  const canary_options *o = &c->book.o; /* never changes */
  pthread_mutex_lock(&c->hot);
  canary_counts *n = &c->n;
  int64_t now = clock_of(c, now_ms);
  if (n->started_ms == 0) n->started_ms = now;
  uint32_t round = (uint32_t)((now - n->started_ms) / o->window_ms) + 1;
  canary_user *u = canary_find(c, key);
  bool first = u == NULL, again = !first && u->round == round;
  if (first) {
    canary_unit unit = {.until_ms = now + o->window_ms, .credits = EV_NONE, .arm = challenger};
    if (!canary_insert(c, key, round, &unit)) {
      n->ignored++;
      pthread_mutex_unlock(&c->hot);
      return;
    }
    n->opened[challenger]++;
  } else {
    u->round = round;
  }
  n->slates[challenger]++;
  n->degraded[challenger] += degraded;
  n->latency[challenger][bucket]++;
  uint32_t number = first ? n->tail - 1 : u->number;
  if (number >= n->head) {
    canary_unit *unit = canary_unit_of(c, number);
    if (unit->arm != (uint32_t)challenger) {
      n->mixed++;
    } else if (now < unit->until_ms && ++unit->slates == o->slates_per_user && now + o->settle_ms < unit->until_ms) {
      unit->until_ms = now + o->settle_ms;
    }
  }
  if (!again) {
    uint8_t seen = (uint8_t)((challenger ? SEEN_CHALLENGER : 0) | (degraded ? SEEN_DEGRADED : 0) | (ms > o->late_ms ? SEEN_LATE : 0) | (first ? SEEN_FIRST : 0));
    if (c->seen_to - c->seen_from == CANARY_SEEN) {
      n->unseen++;
    } else {
      if (n->round != round) seen |= SEEN_ROUND;
      n->round = round;
      c->seen[c->seen_to++ % CANARY_SEEN] = seen;
    }
  }
  pthread_mutex_unlock(&c->hot);
}

void canary_event(canary *c, const char *user, double value, const char *const *agents, size_t n_agents, int64_t now_ms) {
  if (c == NULL || user == NULL || user[0] == 0 || !(fabs(value) <= 1e100)) return; /* sums stay finite */
  uint64_t key = key_of(user);
  pthread_mutex_lock(&c->hot);
  int64_t now = clock_of(c, now_ms);
  const canary_user *u = canary_find(c, key);
  if (u != NULL && u->number >= c->n.head) {
    canary_unit *unit = canary_unit_of(c, u->number);
    if (now < unit->until_ms) {
      unit->earned += value;
      c->n.events[unit->arm]++;
      for (size_t i = 0; i < n_agents; i++) {
        uint32_t agent = agent_of(c, agents[i]);
        if (agent == EV_NONE || !canary_credited(c, unit, agent, value)) c->n.uncredited++;
      }
    }
  }
  pthread_mutex_unlock(&c->hot);
}

/* ---- Deciding -----------------------------------------------------------------------------------------------*/
typedef struct closed { /* a unit on its way into the sequences */
  double earned, inner[CANARY_AGENTS];
  uint32_t slates, arm, number;
} closed;

typedef struct taken {
  closed units[BATCH];
  uint8_t seen[1024];
  size_t n_units, n_seen;
  uint32_t n_agents;
  int64_t now_ms, started_ms;
} taken;

static void take(canary *c, taken *t, int64_t now_ms) {
  pthread_mutex_lock(&c->hot);
  canary_counts *n = &c->n;
  t->now_ms = clock_of(c, now_ms);
  t->started_ms = n->started_ms;
  t->n_units = t->n_seen = 0;
  while (t->n_seen < sizeof t->seen && c->seen_from != c->seen_to) t->seen[t->n_seen++] = c->seen[c->seen_from++ % CANARY_SEEN];
  while (t->n_units < BATCH && n->head < n->tail && canary_unit_of(c, n->head)->until_ms <= t->now_ms) {
    canary_unit *u = canary_unit_of(c, n->head);
    closed *to = &t->units[t->n_units++];
    *to = (closed){.earned = u->earned, .slates = u->slates, .arm = u->arm, .number = n->head};
    for (uint32_t i = u->credits, next; i != EV_NONE; i = next) {
      to->inner[c->credits[i].agent] = c->credits[i].earned;
      next = c->credits[i].next;
      c->credits[i].next = c->free_credits;
      c->free_credits = i;
    }
    n->head++;
    if (n->head % CANARY_CHUNK == 0) {
      ev_free(c->chunks[n->head / CANARY_CHUNK - 1]);
      c->chunks[n->head / CANARY_CHUNK - 1] = NULL;
    }
  }
  t->n_agents = n->n_agents;
  pthread_mutex_unlock(&c->hot);
}

static double held(double x, const ev_canary_options *o) { return fmin(fmax(x, o->low), o->high); }

static void draw(canary_book *b) { /* a point of the chart; when there is no room, every other goes */
  uint64_t units = b->outer.n[0] + b->outer.n[1];
  if (units % b->stride != 0) return;
  if (b->n_history == CANARY_HISTORY) {
    for (uint32_t i = 1; i < CANARY_HISTORY; i += 2) b->history[i / 2] = b->history[i];
    b->n_history /= 2;
    b->stride *= 2;
    if (units % b->stride != 0) return;
  }
  ev_canary_result r;
  ev_canary_read(&b->outer, &r);
  b->history[b->n_history++] = (canary_point){(double)units, r.difference.value, r.difference.low, r.difference.high};
}

static void enter(canary *c, const closed *u, uint32_t n_agents, int64_t now_ms) {
  canary_book *b = &c->book;
  const ev_canary_options *test = &b->o.test;
  if (u->slates == 0) return; /* cannot be: a unit opens with one */
  ev_canary_add(&b->outer, u->arm == CHALLENGER, held(u->earned / u->slates, test), b->o.share); /* cannot fail: all was checked */
  for (uint32_t i = 0; i < n_agents; i++) {
    canary_inner *a = &c->inner[i];
    if (a->arm[0].confidence == 0) /* it is new */
      for (int k = 0; k < 2; k++) ev_sequence_init(&a->arm[k], EV_BETTING, test->confidence, test->low, test->high);
    double x = held(u->inner[i] / u->slates, test);
    if (u->number >= a->since) ev_sequence_add(&a->arm[u->arm], &x, 1);
  }
  draw(b);
  if (b->verdict == CANARY_WAITS && b->outer.most[1] >= 1 / (1 - b->outer.o.caution)) decide(b, CANARY_ROLLS_BACK, STOP_OUTER, now_ms);
}

/* The sequences' own `decision` keeps the first that was reached; a promotion that the guardrails hold up must not hide what comes then. */
static bool promising(const canary_book *b) { return b->outer.most[0] >= 1 / (1 - b->outer.o.confidence); }

/* Whether anything speaks against promoting, be it within doubt. */
static bool guards_hold(const canary_book *b) {
  const canary_guard *g = &b->ever;
  double late = part(g->late[1], g->users[1]);
  bool sound = part(g->degraded[1], g->users[1]) <= part(g->degraded[0], g->users[0]) + b->o.errors_max;
  return sound && (late <= CANARY_LATE_SHARE || late <= part(g->late[0], g->users[0]));
}

static void tell(canary_book *b) {
  if (b->stop == STOP_ERRORS || b->stop == STOP_BROKEN || b->stop == STOP_LATE) return; /* said when it happened */
  ev_canary_result r;
  ev_canary_read(&b->outer, &r);
  const ev_canary_options *test = &b->o.test;
  uint64_t units = b->outer.n[0] + b->outer.n[1];
  if (units == 0) {
    snprintf(b->why, sizeof b->why, "no user has been measured yet");
    return;
  }
  char figures[160], what[64];
  snprintf(figures, sizeof figures, "%.4g a slate against %.4g, difference %+.3g [%+.3g, %+.3g] after %llu users", r.challenger, r.champion,
           r.difference.value, r.difference.low, r.difference.high, (unsigned long long)units);
  if (b->stop == STOP_OUTER && test->harm > 0) snprintf(what, sizeof what, "worse by more than %g, beyond doubt", test->harm);
  else if (b->stop == STOP_OUTER) snprintf(what, sizeof what, "worse, beyond doubt");
  else if (!promising(b)) snprintf(what, sizeof what, "not decided");
  else if (b->stop != STOP_BETTER) snprintf(what, sizeof what, "better, but the guardrails are in doubt");
  else if (test->margin < 0) snprintf(what, sizeof what, "worse by less than %g, beyond doubt", -test->margin);
  else snprintf(what, sizeof what, test->margin > 0 ? "better by more than %g, beyond doubt" : "better, beyond doubt", test->margin);
  snprintf(b->why, sizeof b->why, "%s: %s", what, figures);
}

canary_verdict canary_tick(canary *c, int64_t now_ms, char why[256]) {
  if (c == NULL) {
    if (why != NULL) why[0] = 0;
    return CANARY_WAITS;
  }
  pthread_mutex_lock(&c->slow);
  canary_book *b = &c->book;
  taken t;
  size_t done = 0;
  bool changed = b->why[0] == 0;
  do {
    take(c, &t, now_ms);
    b->started_ms = t.started_ms;
    bool waited = b->verdict == CANARY_WAITS;
    for (size_t i = 0; i < t.n_seen; i++) see(b, t.seen[i], t.now_ms);
    for (size_t i = 0; i < t.n_units; i++) enter(c, &t.units[i], t.n_agents, t.now_ms);
    if (b->verdict == CANARY_WAITS && promising(b) && guards_hold(b)) decide(b, CANARY_PROMOTES, STOP_BETTER, t.now_ms);
    if (waited && (t.n_units > 0 || t.n_seen > 0)) changed = true;
    done += t.n_units + t.n_seen;
    if (waited && b->verdict != CANARY_WAITS) tell(b); /* with the figures that decided it */
  } while ((t.n_units == BATCH || t.n_seen == sizeof t.seen) && done < TICK_MOST);
  if (changed && b->verdict == CANARY_WAITS) tell(b);
  canary_verdict verdict = (canary_verdict)b->verdict;
  if (why != NULL) memcpy(why, b->why, sizeof b->why);
  pthread_mutex_unlock(&c->slow);
  return verdict;
}
