/* canary.c - canaries in a world where the truth is known: `canary MODE FROM TO [USERS [DAYS]]` prints a JSON object for each run,
 * `canary cost` what a slate, an event, a unit and keeping cost.
 *
 * The world is a simulated feed (docs/reference/feed.md). Its users are sticky (each is in one arm for good), some like to click and
 * some do not, and their activity has heavy tails. The champion ranks by tastes that it knows with some noise. Modes:
 *   same              both arms are the champion; two canaries watch the same sessions, with shares 0.1 and 0.5
 *   worse10, worse50  the challenger, with a share of 0.1 or 0.5, shows a random slate so often that the mean user's clicks a slate are 5 % fewer
 *   truth             as worse50, but nobody stops: what the planted difference is
 * Beside each canary a naive one is fed slate by slate: the same test, taking slates for independent. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "../../runtime/serve/inside.h"

#define BATCH 512
#define PLACES 5
#define HIGH 3.0 /* clicks a slate of a user; his mean is held below */
#define DAY_MS 86400000.0

static void must(ev_status status, const char *what) {
  if (status == EV_OK) return;
  fprintf(stderr, "%s: %s\n", what, ev_error());
  exit(1);
}

/* ---- The world ----------------------------------------------------------------------------------------------*/
typedef struct world {
  ev_feed *feed;
  ev_feed_scores scores;
  float *users, *items, *appeal;
} world;

static void look(world *w) { /* what the policies know of it by now */
  ev_feed_features(w->feed, 0.4, w->users, w->items, w->appeal);
}

static void world_new(world *w, size_t n_users, uint64_t seed) {
  ev_feed_options o;
  ev_feed_defaults(&o);
  o.users = (double)n_users;
  o.items = 60;
  o.dims = 6;
  o.places = PLACES;
  o.seed = (double)seed;
  o.visits = 3;
  o.activity = 1.2;
  o.click = -1.2;
  o.n_segments = 2;
  o.segments[0] = (ev_feed_segment){.name = "seldom", .share = 0.6, .activity = 1, .click = -0.4, .patience = 1, .drift = 1};
  o.segments[1] = (ev_feed_segment){.name = "often", .share = 0.4, .activity = 1, .click = 0.4, .patience = 1, .drift = 1};
  must(ev_feed_new(&w->feed, &o), "feed");
  w->users = ev_alloc(n_users * 6, sizeof *w->users);
  w->items = ev_alloc(60 * 6, sizeof *w->items);
  w->appeal = ev_alloc(60, sizeof *w->appeal);
  w->scores = (ev_feed_scores){.users = w->users, .items = w->items, .bias = w->appeal, .dims = 6};
  look(w);
}

static void world_free(world *w) {
  ev_feed_free(w->feed);
  ev_free(w->users);
  ev_free(w->items);
  ev_free(w->appeal);
}

/* How often a random slate must come in place of a ranked one for the mean user to expect 5 % fewer clicks of a slate. That one
 * who clicks less is less sated, and clicks more the next time, takes some of it away: hence more than 5. */
#define PLANTED 0.0583
static double planted(world *w, size_t n_users) {
  enum { MOST = 8000 };
  static uint32_t who[MOST], slates[MOST * PLACES];
  static float clicks[MOST * PLACES];
  size_t n = n_users < MOST ? n_users : MOST;
  double mean[2] = {0, 0};
  for (size_t i = 0; i < n; i++) who[i] = (uint32_t)i;
  for (int k = 0; k < 2; k++) {
    must(k == 0 ? ev_feed_show_ranked(w->feed, slates, who, n, &w->scores, NULL) : ev_feed_show_random(w->feed, slates, NULL, n, 77, NULL), "show");
    must(ev_feed_expect(w->feed, who, slates, n, clicks, NULL), "expect");
    for (size_t i = 0; i < n * PLACES; i++) mean[k] += clicks[i] / (double)n;
  }
  return PLANTED * mean[0] / (mean[0] - mean[1]);
}

/* ---- A run --------------------------------------------------------------------------------------------------*/
typedef struct watch { /* a canary and the naive one */
  canary *c;
  ev_canary naive;
  double share;
  canary_verdict verdict;
  bool on;                         /* goes on after its verdict */
  uint64_t sessions, users, units; /* at the verdict */
  double day, predicted;           /* users in all that it was said to need, when that was first said */
  char why[256];
} watch;

static uint64_t whole(const json_t *o, const char *key) { return (uint64_t)json_integer_value(json_object_get(o, key)); }

static uint64_t units_of(const json_t *status) {
  const json_t *units = json_object_get(status, "units");
  return whole(units, "champion") + whole(units, "challenger");
}

static void watch_new(watch *w, double share, uint64_t salt) {
  canary_options o;
  *w = (watch){.share = share, .predicted = NAN};
  canary_defaults(&o);
  o.share = share;
  o.salt = salt;
  o.test.high = HIGH;
  o.settle_ms = 600000;
  o.window_ms = (int64_t)DAY_MS;
  must(canary_new(&w->c, &o), "canary");
  ev_canary_options naive;
  ev_canary_defaults(&naive);
  naive.high = PLACES;
  must(ev_canary_init(&w->naive, &naive), "naive");
}

static void watch_tick(watch *w, int64_t now_ms, uint64_t sessions, double day, bool peek) {
  if (w->verdict != CANARY_WAITS) {
    if (w->on) canary_tick(w->c, now_ms, NULL);
    return;
  }
  w->verdict = canary_tick(w->c, now_ms, w->why);
  if (w->verdict == CANARY_WAITS && !(peek && isnan(w->predicted))) return;
  json_t *status = canary_status(w->c), *outlook = json_object_get(status, "outlook");
  if (w->verdict != CANARY_WAITS) {
    w->sessions = sessions;
    w->users = whole(status, "users");
    w->units = units_of(status);
    w->day = day;
  } else if (outlook != NULL) {
    w->predicted = (double)(units_of(status) + whole(outlook, "more_users"));
  }
  json_decref(status);
}

static void report(watch *w, const char *mode, uint64_t run, double mean, double deviation) {
  json_t *status = canary_status(w->c), *outer = json_object_get(status, "outer");
  ev_canary_result naive;
  ev_canary_read(&w->naive, &naive);
  const char *by = json_string_value(json_object_get(status, "by"));
  json_t *line = json_pack("{s:s, s:f, s:I, s:i, s:I, s:I, s:I, s:f, s:i, s:s, s:O, s:s, s:f, s:f}", "mode", mode, "share", w->share, "run",
                           (json_int_t)run, "verdict", (int)w->verdict, "sessions", (json_int_t)w->sessions, "users", (json_int_t)w->users, "units",
                           (json_int_t)w->units, "days", w->day, "naive", (int)naive.decision, "why", w->why, "outer", outer, "by", by, "mean", mean,
                           "deviation", deviation);
  if (!isnan(w->predicted)) json_object_set_new(line, "predicted", json_real(w->predicted));
  char *text = json_dumps(line, JSON_COMPACT);
  puts(text);
  fflush(stdout);
  free(text);
  json_decref(line);
  json_decref(status);
  canary_free(w->c);
}

static void show(world *w, uint32_t *slates, const uint32_t *who, const float *chance, uint64_t seed) {
  float rest[BATCH];
  for (size_t i = 0; i < BATCH; i++) rest[i] = 1 - chance[i];
  must(ev_feed_show_ranked(w->feed, slates, who, BATCH, &w->scores, rest), "show");
  must(ev_feed_show_random(w->feed, slates, NULL, BATCH, seed, chance), "show");
}

static void tell(watch *w, const char *user, bool challenger, const uint8_t *clicks, bool by_chance, int64_t now_ms) {
  static const char *const agents[2] = {"tastes", "chance"};
  double n = 0;
  for (int p = 0; p < PLACES; p++) n += clicks[p];
  if (w->verdict == CANARY_WAITS || w->on) {
    canary_slate(w->c, user, challenger, false, 2, now_ms);
    for (int p = 0; p < PLACES; p++)
      if (clicks[p]) canary_event(w->c, user, 1, &agents[by_chance], 1, now_ms);
  }
  if (w->naive.decision == EV_GO_ON) must(ev_canary_add(&w->naive, challenger, n, w->share), "naive");
}

static void run(const char *mode, uint64_t number, size_t n_users, double days) {
  world w;
  world_new(&w, n_users, 1000 + number);
  bool same = strcmp(mode, "same") == 0;
  bool stops = strncmp(mode, "worse", 5) == 0;
  double share = strcmp(mode, "worse10") == 0 ? 0.1 : 0.5, epsilon = same ? 0 : planted(&w, n_users);
  watch watches[2];
  size_t n_watches = same ? 2 : 1;
  ev_rng r;
  ev_rng_seed(&r, number, 5);
  bool *arms = ev_alloc(2 * n_users, sizeof *arms);
  char (*names)[32] = ev_alloc(n_users, sizeof *names);
  for (size_t k = 0; k < n_watches; k++) {
    uint64_t salt = ev_rng_u64(&r);
    if (same) share = k == 0 ? 0.1 : 0.5;
    watch_new(&watches[k], share, salt);
    watches[k].on = !same && !stops;
    for (size_t u = 0; u < n_users; u++) {
      snprintf(names[u], sizeof names[u], "user-%zu", u);
      arms[k * n_users + u] = canary_picks(salt, share, names[u]);
    }
  }
  uint32_t who[BATCH], slates[BATCH * PLACES];
  float chance[BATCH];
  uint8_t clicks[BATCH * PLACES];
  uint8_t (*firsts)[2] = ev_zalloc(n_users, sizeof *firsts); /* of each user, slates and clicks among his first five */
  double looked = 0;
  uint64_t sessions = 0;
  for (uint64_t batch = 0;; batch++) {
    double from = ev_feed_days(w.feed);
    if (from >= days || (stops && watches[0].verdict != CANARY_WAITS)) break; /* the naive one is asked where nothing is wrong */
    if (from > looked + 0.25) {
      look(&w);
      looked = from;
      if (!same) epsilon = planted(&w, n_users);
    }
    ev_feed_arrive(w.feed, who, BATCH);
    for (size_t i = 0; i < BATCH; i++) chance[i] = ev_rng_f64(&r) < epsilon && arms[who[i]];
    show(&w, slates, who, chance, number);
    must(ev_feed_step(w.feed, who, slates, BATCH, clicks, NULL), "step");
    double to = ev_feed_days(w.feed);
    for (size_t i = 0; i < BATCH; i++, sessions++) {
      double day = from + (to - from) * (double)i / BATCH;
      int64_t now_ms = 1 + (int64_t)(day * DAY_MS);
      uint8_t *first = firsts[who[i]];
      if (first[0] < 5) {
        first[0]++;
        for (int p = 0; p < PLACES; p++) first[1] = (uint8_t)(first[1] + clicks[i * PLACES + (size_t)p]);
      }
      for (size_t k = 0; k < n_watches; k++) {
        tell(&watches[k], names[who[i]], arms[k * n_users + who[i]], clicks + i * PLACES, chance[i] > 0, now_ms);
        if (sessions % 64 == 63) watch_tick(&watches[k], now_ms, sessions + 1, day, batch % 4 == 0);
      }
    }
  }
  double n = 0, sum = 0, squares = 0;
  for (size_t u = 0; u < n_users; u++) {
    if (firsts[u][0] == 0) continue;
    double x = fmin(HIGH, (double)firsts[u][1] / firsts[u][0]);
    n++;
    sum += x;
    squares += x * x;
  }
  ev_free(firsts);
  for (size_t k = 0; k < n_watches; k++) {
    for (int turn = 0; turn < 20; turn++) watch_tick(&watches[k], (int64_t)((days + 2) * DAY_MS), sessions, days, false); /* those still in flight */
    report(&watches[k], mode, number, sum / n, sqrt(squares / n - sum / n * (sum / n)));
  }
  ev_free(arms);
  ev_free(names);
  world_free(&w);
}

/* ---- What it costs ------------------------------------------------------------------------------------------*/
enum { COST_CALLS = 2000000 };

typedef struct caller {
  canary *c;
  char (*names)[32];
  uint64_t seed;
  size_t n, n_users;
  double slate_ns, event_ns;
} caller;

static void *calls(void *ctx) {
  caller *k = ctx;
  static const char *const agents[2] = {"ease", "popular"};
  ev_rng r;
  ev_rng_seed(&r, k->seed, 0);
  uint32_t *who = ev_alloc(k->n, sizeof *who);
  for (size_t i = 0; i < k->n; i++) who[i] = ev_rng_below(&r, (uint32_t)k->n_users);
  uint64_t start = ev_now_ns();
  for (size_t i = 0; i < k->n; i++) canary_slate(k->c, k->names[who[i]], who[i] % 10 == 0, false, 3, 1000 + (int64_t)i / 100); /* a slate each 10 µs */
  uint64_t middle = ev_now_ns();
  for (size_t i = 0; i < k->n; i++) canary_event(k->c, k->names[who[i]], 1, agents, 2, 1000 + (int64_t)k->n / 100);
  k->slate_ns = (double)(middle - start) / (double)k->n;
  k->event_ns = (double)(ev_now_ns() - middle) / (double)k->n;
  ev_free(who);
  return NULL;
}

static void costs(size_t n_users) {
  canary_options o;
  canary_defaults(&o);
  canary *c;
  char (*names)[32] = ev_alloc(n_users, sizeof *names);
  for (size_t i = 0; i < n_users; i++) snprintf(names[i], sizeof names[i], "user-%zu", i);
  must(canary_new(&c, &o), "canary");
  canary_slate(c, "the first", false, false, 1, 1000);
  canary_event(c, "the first", 1, (const char *const[]){"ease", "popular"}, 2, 1000); /* agents are known when the others come */
  caller k = {.c = c, .names = names, .seed = 1, .n = COST_CALLS, .n_users = n_users};
  calls(&k);
  printf("{\"what\": \"%zu users\", \"slate_ns\": %.1f, \"event with two agents_ns\": %.1f}\n", n_users, k.slate_ns, k.event_ns);
  uint64_t start = ev_now_ns();
  const char *path = "/dev/shm/evection-bench-canary";
  must(canary_save(c, path), "save");
  uint64_t saved = ev_now_ns();
  canary *again;
  must(canary_load(&again, path), "load");
  uint64_t loaded = ev_now_ns();
  canary_free(again);
  ev_map m;
  must(ev_map_open(&m, path), "map");
  printf("{\"what\": \"%zu users, all in flight\", \"save_ms\": %.1f, \"load_ms\": %.1f, \"file_MB\": %.1f}\n", n_users, 1e-6 * (double)(saved - start),
         1e-6 * (double)(loaded - saved), 1e-6 * (double)m.size);
  ev_map_close(&m);
  remove(path);
  double longest = 0;
  start = ev_now_ns();
  for (;;) { /* all units are due */
    uint64_t before = ev_now_ns();
    canary_tick(c, 1000000000000, NULL);
    longest = fmax(longest, 1e-6 * (double)(ev_now_ns() - before));
    json_t *status = canary_status(c);
    bool done = whole(status, "in_flight") == 0;
    json_decref(status);
    if (done) break;
  }
  if (n_users < 60000) /* of more, guardrail observations would have been lost, with nobody ticking */
    printf("{\"what\": \"%zu users\", \"tick, for each user who came and was measured_us\": %.2f, \"longest tick_ms\": %.1f}\n", n_users,
           1e-3 * (double)(ev_now_ns() - start) / (double)n_users, longest);
  canary_free(c);
  must(canary_new(&c, &o), "canary");
  caller two[2];
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    two[i] = (caller){.c = c, .names = names, .seed = (uint64_t)i + 1, .n = COST_CALLS / 2, .n_users = n_users};
    pthread_create(&threads[i], NULL, calls, &two[i]);
  }
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  printf("{\"what\": \"%zu users, two threads that do nothing else\", \"slate_ns\": %.1f, \"event with two agents_ns\": %.1f}\n", n_users,
         0.5 * (two[0].slate_ns + two[1].slate_ns), 0.5 * (two[0].event_ns + two[1].event_ns));
  canary_free(c);
  ev_free(names);
}

int main(int argc, char **argv) {
  ev_threads_set(1);
  if (argc == 2 && strcmp(argv[1], "cost") == 0) {
    costs(50000);
    costs(1000000);
    return 0;
  }
  static const char *const modes[] = {"same", "worse10", "worse50", "truth"};
  bool known = false;
  for (int i = 0; i < 4 && argc >= 4; i++) known |= strcmp(argv[1], modes[i]) == 0;
  if (!known) {
    fprintf(stderr, "canary cost | same|worse10|worse50|truth FROM TO [USERS [DAYS]]\n");
    return 2;
  }
  size_t n_users = argc > 4 ? strtoul(argv[4], NULL, 10) : 16000;
  double days = argc > 5 ? atof(argv[5]) : 2.5;
  for (uint64_t i = strtoull(argv[2], NULL, 10); i <= strtoull(argv[3], NULL, 10); i++) run(argv[1], i, n_users, days);
  return 0;
}
