/* feed.c - the simulated feed: who comes, what he looks at and clicks, and what that makes of him. reward.h has the model.
 *
 * Whatever can be is a function of (seed, time): a taste is an ellipse around its base and not a random walk, and an item follows
 * from its number and generation. So the truth of any user at any time is had without living through the time before, and an
 * item is made anew only when somebody looks at it. What is left as state is what the policy causes: satiation, moods and
 * conversions under way.
 *
 * Vectors are padded with zeros to a multiple of 4 floats; sums run in four lanes, in plain C: the same bits on any processor. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "../math/math.h"
#include "reward.h"

#define LANES 4
#define FOREVER 1e300 /* days */
#define LONG_AGO -1e15
#define MOOD 0.2f /* weight of the last session in how often a user found something */
enum { STREAM_USERS = 1, STREAM_SEGMENTS, STREAM_SLOTS, STREAM_ARRIVALS, STREAM_SESSIONS, STREAM_ITEMS, STREAM_NOISE };

struct ev_feed {
  ev_feed_options o;
  size_t n_users, n_items, n_dims, width, places; /* width: n_dims padded */
  uint64_t session;
  float *user;     /* (n_users, 4, width): base, two axes of the drift, satiation */
  float *mood;     /* (n_users) */
  double *turn;    /* (n_users) radians a day */
  double *tired;   /* (n_users) when the satiation was what it is */
  uint8_t *segment; /* (n_users) */
  float *item;     /* (n_items, width) */
  float *appeal, *convert; /* (n_items) */
  double *life, *phase, *born; /* (n_items) days */
  uint32_t *generation;    /* (n_items) */
  float *activity; /* (n_users) */
  ev_alias by_activity;
  float look[EV_FEED_SEGMENTS][EV_FEED_PLACES];
  ev_conversion *pending; /* (n_pending of cap) a heap, the earliest first */
  size_t n_pending, cap;
};

/* ---- Options --------------------------------------------------------------------------------------------*/
#define FIELD(name, fallback, low, high, whole, about) {#name, about, offsetof(ev_feed_options, name), fallback, low, high, whole}
static const ev_parameter fields[] = {
    FIELD(users, 1000, 1, 1e7, true, "users"),
    FIELD(items, 500, 2, 1 << 24, true, "items alive at a time"),
    FIELD(dims, 8, 1, 64, true, "dimensions of tastes"),
    FIELD(places, 10, 1, EV_FEED_PLACES, true, "places of a slate"),
    FIELD(seed, 1, 0, 9007199254740992.0, true, "of everything that is drawn"),
    FIELD(visits, 1, 1e-6, 1e6, false, "sessions a day of the mean user"),
    FIELD(activity, 1, 0, 5, false, "deviation of the log of a user's activity"),
    FIELD(loyalty, 0.3, 0, 0.95, false, "share of his visits that one who never finds anything leaves out"),
    FIELD(taste, 1, 0, 10, false, "deviation of a liking, in logits"),
    FIELD(alike, 0.4, 0, 1, false, "share of a base taste's variance that is its segment's"),
    FIELD(drift, 0.5, 0, 10, false, "size of the drift, in tastes"),
    FIELD(drift_days, 60, 1e-3, 1e6, false, "typical period of the drift"),
    FIELD(satiation, 0.5, 0, 10, false, "logits that a click costs its like"),
    FIELD(satiation_days, 2, 1e-3, 1e6, false, "half-life of satiation"),
    FIELD(repetition, 0.3, 0, 10, false, "logits that likeness to what stands above costs"),
    FIELD(click, -2, -20, 20, false, "logit of a click on what is neither liked nor disliked"),
    FIELD(appeal, 0.7, 0, 10, false, "deviation of what everybody likes an item more, in logits"),
    FIELD(position, 0.7, 0, 10, false, "he looks at place p with probability p^-position"),
    FIELD(leave, 0.1, 0, 1, false, "probability of leaving after a click"),
    FIELD(item_days, 90, 0, 1e6, false, "life of an item; 0: no item dies"),
    FIELD(freshness, 0.5, -10, 10, false, "logits that a new item has more"),
    FIELD(fresh_days, 7, 1e-3, 1e6, false, "half-life of freshness"),
    FIELD(convert, 0.1, 0, 1, false, "probability that a click on an item of middling quality converts"),
    FIELD(quality, 1, 0, 10, false, "deviation of quality, in logits of converting"),
    FIELD(bait, 0.3, -1, 1, false, "how far appeal speaks against quality"),
    FIELD(convert_days, 1, 0, 1e6, false, "mean delay until a conversion is known"),
    FIELD(convert_value, 5, 0, 1e6, false, "what a conversion is worth, in clicks"),
};
#define SEGMENT(name, fallback, low, high, about) {#name, about, offsetof(ev_feed_segment, name), fallback, low, high, false}
static const ev_parameter segment_fields[] = {
    SEGMENT(share, 1, 1e-9, 1e9, "share of the users, in proportion to the others'"),
    SEGMENT(activity, 1, 1e-3, 1e3, "times the activity"),
    SEGMENT(click, 0, -20, 20, "logits more"),
    SEGMENT(patience, 1, 0, 10, "times the exponent of position: 0 looks at everything"),
    SEGMENT(drift, 1, 0, 10, "times the drift"),
};
const ev_parameter *ev_feed_parameter(size_t i) { return i < sizeof fields / sizeof *fields ? &fields[i] : NULL; }
const ev_parameter *ev_feed_segment_parameter(size_t i) { return i < sizeof segment_fields / sizeof *segment_fields ? &segment_fields[i] : NULL; }

double *ev_parameter_of(void *options, const ev_parameter *p) { return (void *)((char *)options + p->offset); }

void ev_feed_defaults(ev_feed_options *o) {
  memset(o, 0, sizeof *o);
  for (size_t i = 0; ev_feed_parameter(i) != NULL; i++) *ev_parameter_of(o, ev_feed_parameter(i)) = ev_feed_parameter(i)->fallback;
  o->n_segments = 1;
  strcpy(o->segments[0].name, "all");
  for (size_t i = 0; ev_feed_segment_parameter(i) != NULL; i++) *ev_parameter_of(&o->segments[0], ev_feed_segment_parameter(i)) = ev_feed_segment_parameter(i)->fallback;
}

static ev_status check_field(const ev_parameter *f, double x, const char *of) {
  if (!(x >= f->low && x <= f->high)) return ev_fail(EV_EINVAL, "%s%s: %g is not between %g and %g", of, f->name, x, f->low, f->high);
  if (f->whole && x != floor(x)) return ev_fail(EV_EINVAL, "%s%s: %g is not a whole number", of, f->name, x);
  return EV_OK;
}

static ev_status check(ev_feed_options *o) {
  for (size_t i = 0; ev_feed_parameter(i) != NULL; i++) EV_TRY(check_field(ev_feed_parameter(i), *ev_parameter_of(o, ev_feed_parameter(i)), ""));
  if (o->n_segments < 1 || o->n_segments > EV_FEED_SEGMENTS) return ev_fail(EV_EINVAL, "segments: %zu; there are 1 to %d", o->n_segments, EV_FEED_SEGMENTS);
  for (size_t s = 0; s < o->n_segments; s++)
    for (size_t i = 0; ev_feed_segment_parameter(i) != NULL; i++) EV_TRY(check_field(ev_feed_segment_parameter(i), *ev_parameter_of(&o->segments[s], ev_feed_segment_parameter(i)), "segments: "));
  if (o->places > o->items) return ev_fail(EV_EINVAL, "places: %g places for %g items", o->places, o->items);
  return EV_OK;
}

/* ---- Users and items ------------------------------------------------------------------------------------*/
typedef struct array {
  void **at;
  size_t n, size;
} array;

#define ARRAYS 13
static void arrays(ev_feed *f, array out[ARRAYS]) { /* all that a feed owns but what is pending and the alias table */
  const array all[ARRAYS] = {{(void **)&f->user, f->n_users, 4 * f->width * sizeof(float)}, {(void **)&f->mood, f->n_users, sizeof(float)},
                 {(void **)&f->turn, f->n_users, sizeof(double)}, {(void **)&f->tired, f->n_users, sizeof(double)}, {(void **)&f->segment, f->n_users, 1},
                 {(void **)&f->activity, f->n_users, sizeof(float)}, {(void **)&f->item, f->n_items, f->width * sizeof(float)},
                 {(void **)&f->appeal, f->n_items, sizeof(float)}, {(void **)&f->convert, f->n_items, sizeof(float)}, {(void **)&f->life, f->n_items, sizeof(double)},
                 {(void **)&f->phase, f->n_items, sizeof(double)}, {(void **)&f->born, f->n_items, sizeof(double)}, {(void **)&f->generation, f->n_items, sizeof(uint32_t)}};
  memcpy(out, all, sizeof all);
}

static float logistic(float x) { return 1 / (1 + expf(-x)); }

static uint64_t seed_of(const ev_feed *f, int stream) { return (uint64_t)f->o.seed * 16 + (uint64_t)stream; }

static void make_item(ev_feed *f, uint32_t i, uint32_t generation) {
  ev_rng r;
  ev_rng_seed(&r, seed_of(f, STREAM_ITEMS), (uint64_t)generation << 32 | (i + 1));
  float *v = f->item + (size_t)i * f->width, scale = 1 / sqrtf((float)f->n_dims);
  for (size_t k = 0; k < f->n_dims; k++) v[k] = scale * (float)ev_rng_normal(&r);
  double appeal = ev_rng_normal(&r), quality = -f->o.bait * appeal + sqrt(1 - f->o.bait * f->o.bait) * ev_rng_normal(&r), c = f->o.convert;
  f->appeal[i] = (float)(f->o.appeal * appeal);
  f->convert[i] = c <= 0 ? 0 : c >= 1 ? 1 : logistic((float)(log(c / (1 - c)) + f->o.quality * quality));
  f->generation[i] = generation;
  f->born[i] = generation * f->life[i] - f->phase[i];
}

static void renew(ev_feed *f, uint32_t i, double t) { /* the item of this number at time t */
  if (t - f->born[i] >= f->life[i]) make_item(f, i, (uint32_t)fmin(floor((t + f->phase[i]) / f->life[i]), 4e9));
}

static void make_users(ev_feed *f) {
  const ev_feed_options *o = &f->o;
  ev_rng r;
  ev_rng_seed(&r, seed_of(f, STREAM_SEGMENTS), 0);
  float centre[EV_FEED_SEGMENTS][64];
  double shares = 0;
  for (size_t s = 0; s < o->n_segments; s++) {
    shares += o->segments[s].share;
    for (size_t k = 0; k < 64; k++) centre[s][k] = (float)ev_rng_normal(&r);
    for (size_t p = 0; p < f->places; p++) f->look[s][p] = (float)pow((double)p + 1, -o->position * o->segments[s].patience);
  }
  for (size_t u = 0; u < f->n_users; u++) {
    ev_rng_seed(&r, seed_of(f, STREAM_USERS), u);
    double at_share = ev_rng_f64(&r) * shares;
    size_t s = 0;
    while (s + 1 < o->n_segments && at_share >= o->segments[s].share) at_share -= o->segments[s++].share;
    float *base = f->user + u * 4 * f->width, own = (float)sqrt(1 - o->alike), shared = (float)sqrt(o->alike), drift = (float)(o->taste * o->drift * o->segments[s].drift);
    for (size_t k = 0; k < f->n_dims; k++) {
      base[k] = (float)o->taste * (shared * centre[s][k] + own * (float)ev_rng_normal(&r));
      base[f->width + k] = drift * (float)ev_rng_normal(&r);
      base[2 * f->width + k] = drift * (float)ev_rng_normal(&r);
    }
    f->segment[u] = (uint8_t)s;
    f->turn[u] = 2 * M_PI / (o->drift_days * exp(0.3 * ev_rng_normal(&r)));
    f->activity[u] = (float)(o->segments[s].activity * exp(o->activity * ev_rng_normal(&r)));
    f->mood[u] = 0.5f;
  }
}

ev_status ev_feed_new(ev_feed **out, const ev_feed_options *o) {
  *out = NULL;
  ev_feed *f = ev_zalloc(1, sizeof *f);
  if (f == NULL) return EV_ENOMEM;
  f->o = *o;
  ev_status status = check(&f->o);
  if (status != EV_OK) goto fail;
  f->n_users = (size_t)o->users;
  f->n_items = (size_t)o->items;
  f->n_dims = (size_t)o->dims;
  f->width = (f->n_dims + LANES - 1) / LANES * LANES;
  f->places = (size_t)o->places;
  array all[ARRAYS];
  arrays(f, all);
  status = EV_ENOMEM;
  for (size_t i = 0; i < ARRAYS; i++)
    if ((*all[i].at = ev_zalloc(all[i].n, all[i].size)) == NULL) goto fail;
  make_users(f);
  ev_rng r;
  ev_rng_seed(&r, seed_of(f, STREAM_SLOTS), 0);
  for (uint32_t i = 0; i < f->n_items; i++) {
    double life = 0.5 + ev_rng_f64(&r), phase = ev_rng_f64(&r);
    f->life[i] = o->item_days > 0 ? o->item_days * life : FOREVER;
    f->phase[i] = o->item_days > 0 ? f->life[i] * phase : 0;
    make_item(f, i, 0);
    if (o->item_days <= 0) f->born[i] = LONG_AGO; /* nothing is new where nothing dies */
  }
  status = ev_alias_new(&f->by_activity, f->activity, f->n_users);
  if (status != EV_OK) goto fail;
  *out = f;
  return EV_OK;
fail:
  ev_feed_free(f);
  return status;
}

ev_status ev_feed_copy(ev_feed **out, const ev_feed *from) {
  *out = NULL;
  ev_feed *f = ev_zalloc(1, sizeof *f), source = *from;
  if (f == NULL) return EV_ENOMEM;
  *f = source;
  array mine[ARRAYS], theirs[ARRAYS];
  arrays(f, mine);
  arrays(&source, theirs);
  for (size_t i = 0; i < ARRAYS; i++) *mine[i].at = NULL;
  f->by_activity = (ev_alias){0};
  f->pending = NULL;
  f->cap = f->n_pending;
  ev_status status = EV_ENOMEM;
  for (size_t i = 0; i < ARRAYS; i++) {
    if ((*mine[i].at = ev_alloc(mine[i].n, mine[i].size)) == NULL) goto fail;
    memcpy(*mine[i].at, *theirs[i].at, mine[i].n * mine[i].size);
  }
  if ((f->pending = ev_resize(NULL, f->cap + 1, sizeof *f->pending)) == NULL) goto fail;
  if (f->n_pending > 0) memcpy(f->pending, from->pending, f->n_pending * sizeof *f->pending);
  status = ev_alias_new(&f->by_activity, f->activity, f->n_users);
  if (status != EV_OK) goto fail;
  *out = f;
  return EV_OK;
fail:
  ev_feed_free(f);
  return status;
}

void ev_feed_free(ev_feed *f) {
  if (f == NULL) return;
  array all[ARRAYS];
  arrays(f, all);
  for (size_t i = 0; i < ARRAYS; i++) ev_free(*all[i].at);
  ev_alias_free(&f->by_activity);
  ev_free(f->pending);
  ev_free(f);
}

const ev_feed_options *ev_feed_opts(const ev_feed *f) { return &f->o; }
uint64_t ev_feed_sessions(const ev_feed *f) { return f->session; }
static double time_of(const ev_feed *f, uint64_t session) { return (double)session / (f->o.visits * f->o.users); }
double ev_feed_days(const ev_feed *f) { return time_of(f, f->session); }
uint32_t ev_feed_segment_of(const ev_feed *f, uint32_t user) { return f->segment[user]; }

void ev_feed_item(ev_feed *f, uint32_t item, uint32_t *generation, double *born_days) {
  renew(f, item, ev_feed_days(f));
  *generation = f->generation[item];
  *born_days = f->born[item];
}

/* ---- A session ------------------------------------------------------------------------------------------*/
static float accepts(const ev_feed *f, size_t u) { return 1 - (float)f->o.loyalty * (1 - f->mood[u]); }

void ev_feed_arrive(const ev_feed *f, uint32_t *users, size_t n) {
  for (size_t i = 0; i < n; i++) {
    ev_rng r;
    ev_rng_seed(&r, seed_of(f, STREAM_ARRIVALS), f->session + i + 1);
    do users[i] = ev_alias_draw(&f->by_activity, &r);
    while (ev_rng_f64(&r) >= accepts(f, users[i]));
  }
}

void ev_feed_weights(const ev_feed *f, double *out) {
  double sum = 0;
  for (size_t u = 0; u < f->n_users; u++) sum += out[u] = (double)f->activity[u] * accepts(f, u);
  for (size_t u = 0; u < f->n_users; u++) out[u] /= sum;
}

static void taste_at(const ev_feed *f, size_t u, double t, float *out) {
  const float *base = f->user + u * 4 * f->width, *one = base + f->width, *two = one + f->width;
  float a = (float)sin(f->turn[u] * t), b = (float)cos(f->turn[u] * t);
  for (size_t k = 0; k < f->width; k++) out[k] = base[k] + a * one[k] + b * two[k];
}

static void dots(float out[3], const float *v, const float *a, const float *b, const float *c, size_t width) {
  float x[LANES] = {0}, y[LANES] = {0}, z[LANES] = {0};
  for (size_t k = 0; k < width; k += LANES)
    for (size_t l = 0; l < LANES; l++) x[l] += v[k + l] * a[k + l], y[l] += v[k + l] * b[k + l], z[l] += v[k + l] * c[k + l];
  out[0] = x[0] + x[1] + (x[2] + x[3]);
  out[1] = y[0] + y[1] + (y[2] + y[3]);
  out[2] = z[0] + z[1] + (z[2] + z[3]);
}

/* The probability that he clicks each place, had he not left before. Items are of time t. */
static void attract(const ev_feed *f, size_t u, double t, const uint32_t *slate, float *out) {
  float taste[64], above[64] = {0};
  const ev_feed_options *o = &f->o;
  const float *tired = f->user + u * 4 * f->width + 3 * f->width, *look = f->look[f->segment[u]];
  float rested = (float)(o->satiation * exp2((f->tired[u] - t) / o->satiation_days)), middle = (float)(o->click + o->segments[f->segment[u]].click);
  size_t n_above = 0;
  taste_at(f, u, t, taste);
  for (size_t p = 0; p < f->places; p++) {
    uint32_t i = slate[p];
    out[p] = 0;
    if (i == EV_NONE) continue;
    const float *v = f->item + (size_t)i * f->width;
    float d[3], x = middle + f->appeal[i];
    dots(d, v, taste, tired, above, f->width);
    x += d[0];
    if (d[1] > 0) x -= rested * d[1];
    if (d[2] > 0) x -= (float)o->repetition * d[2] / (float)n_above;
    if (o->freshness != 0) x += (float)o->freshness * exp2f((float)((f->born[i] - t) / o->fresh_days));
    out[p] = look[p] * logistic(x);
    for (size_t k = 0; k < f->width; k++) above[k] += v[k];
    n_above++;
  }
}

static void become_due(ev_feed *f, ev_conversion c) { /* the heap has room */
  size_t i = f->n_pending++;
  for (; i > 0 && f->pending[(i - 1) / 2].days > c.days; i = (i - 1) / 2) f->pending[i] = f->pending[(i - 1) / 2];
  f->pending[i] = c;
}

static void happen(ev_feed *f, uint32_t u, const uint32_t *slate, uint8_t *clicks, float *expected) {
  double t = ev_feed_days(f);
  float p_click[EV_FEED_PLACES], stays = 1, leave = (float)f->o.leave;
  for (size_t p = 0; p < f->places; p++)
    if (slate[p] != EV_NONE) renew(f, slate[p], t);
  attract(f, u, t, slate, p_click);
  ev_rng r;
  ev_rng_seed(&r, seed_of(f, STREAM_SESSIONS), f->session + 1);
  float *tired = f->user + (size_t)u * 4 * f->width + 3 * f->width;
  bool there = true, found = false;
  for (size_t p = 0; p < f->places; p++) {
    bool click = there && ev_rng_f64(&r) < p_click[p];
    clicks[p] = click;
    if (expected != NULL) expected[p] = stays * p_click[p];
    stays *= 1 - leave * p_click[p];
    if (!click) continue;
    uint32_t i = slate[p];
    if (!found) { /* first: the satiation that was, as it is now */
      float faded = (float)exp2((f->tired[u] - t) / f->o.satiation_days);
      for (size_t k = 0; k < f->width; k++) tired[k] *= faded;
      f->tired[u] = t;
    }
    for (size_t k = 0; k < f->width; k++) tired[k] += f->item[(size_t)i * f->width + k];
    found = true;
    if (ev_rng_f64(&r) < f->convert[i]) become_due(f, (ev_conversion){t - f->o.convert_days * log1p(-ev_rng_f64(&r)), f->session, u, i});
    there = ev_rng_f64(&r) >= leave;
  }
  f->mood[u] += MOOD * ((found ? 1.0f : 0.0f) - f->mood[u]);
  f->session++;
}

static ev_status check_slates(const ev_feed *f, const uint32_t *users, const uint32_t *slates, size_t n) {
  for (size_t row = 0; row < n; row++) {
    const uint32_t *s = slates + row * f->places;
    if (users[row] >= f->n_users) return ev_fail(EV_EINVAL, "row %zu: user %u; there are %zu", row + 1, users[row], f->n_users);
    for (size_t p = 0; p < f->places; p++) {
      if (s[p] == EV_NONE) continue;
      if (s[p] >= f->n_items) return ev_fail(EV_EINVAL, "row %zu: item %u; there are %zu", row + 1, s[p], f->n_items);
      for (size_t q = 0; q < p; q++)
        if (s[q] == s[p]) return ev_fail(EV_EINVAL, "row %zu shows item %u twice", row + 1, s[p]);
    }
  }
  return EV_OK;
}

ev_status ev_feed_step(ev_feed *f, const uint32_t *users, const uint32_t *slates, size_t n, uint8_t *clicks, float *expected) {
  EV_TRY(check_slates(f, users, slates, n));
  if (f->n_pending + n * f->places > f->cap) { /* room for a conversion of every place: nothing can fail half way */
    size_t cap = f->n_pending + n * f->places + f->cap / 2;
    ev_conversion *p = ev_resize(f->pending, cap, sizeof *p);
    if (p == NULL) return EV_ENOMEM;
    f->pending = p;
    f->cap = cap;
  }
  for (size_t row = 0; row < n; row++) happen(f, users[row], slates + row * f->places, clicks + row * f->places, expected != NULL ? expected + row * f->places : NULL);
  return EV_OK;
}

size_t ev_feed_due(ev_feed *f, ev_conversion *out, size_t max) {
  size_t n = 0;
  double now = ev_feed_days(f);
  for (; n < max && f->n_pending > 0 && f->pending[0].days <= now; n++) {
    out[n] = f->pending[0];
    ev_conversion last = f->pending[--f->n_pending];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < f->n_pending; i = child) {
      if (child + 1 < f->n_pending && f->pending[child + 1].days < f->pending[child].days) child++;
      if (f->pending[child].days >= last.days) break;
      f->pending[i] = f->pending[child];
    }
    f->pending[i] = last;
  }
  return n;
}

/* ---- The truth ------------------------------------------------------------------------------------------*/
typedef struct asked {
  const ev_feed *f;
  const uint32_t *users, *slates;
  float *clicks, *worth;
} asked;

static void expect_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const asked *a = ctx;
  const ev_feed *f = a->f;
  double t = ev_feed_days(f);
  for (size_t row = begin; row < end; row++) {
    const uint32_t *slate = a->slates + row * f->places;
    float p_click[EV_FEED_PLACES], stays = 1, worth = 0;
    attract(f, a->users[row], t, slate, p_click);
    for (size_t p = 0; p < f->places; p++) {
      float click = stays * p_click[p];
      if (slate[p] != EV_NONE) worth += click * (1 + (float)f->o.convert_value * f->convert[slate[p]]);
      stays *= 1 - (float)f->o.leave * p_click[p];
      if (a->clicks != NULL) a->clicks[row * f->places + p] = click;
    }
    if (a->worth != NULL) a->worth[row] = worth;
  }
}

ev_status ev_feed_expect(ev_feed *f, const uint32_t *users, const uint32_t *slates, size_t n, float *clicks, float *worth) {
  EV_TRY(check_slates(f, users, slates, n));
  double t = ev_feed_days(f);
  for (size_t i = 0; i < n * f->places; i++)
    if (slates[i] != EV_NONE) renew(f, slates[i], t);
  asked a = {f, users, slates, clicks, worth};
  ev_parallel_for(n, 256, expect_rows, &a);
  return EV_OK;
}

void ev_feed_features(ev_feed *f, double noise, float *users, float *items, float *appeal) {
  double t = ev_feed_days(f);
  float taste[64];
  for (size_t u = 0; u < f->n_users && users != NULL; u++) {
    ev_rng r;
    ev_rng_seed(&r, seed_of(f, STREAM_NOISE), 2 * u + 1);
    taste_at(f, u, t, taste);
    for (size_t k = 0; k < f->n_dims; k++) users[u * f->n_dims + k] = taste[k] + (float)(noise * ev_rng_normal(&r));
  }
  for (uint32_t i = 0; i < f->n_items; i++) {
    ev_rng r;
    renew(f, i, t);
    ev_rng_seed(&r, seed_of(f, STREAM_NOISE) + ((uint64_t)f->generation[i] << 32), 2 * (uint64_t)i + 2);
    for (size_t k = 0; k < f->n_dims && items != NULL; k++) items[i * f->n_dims + k] = f->item[(size_t)i * f->width + k] + (float)(noise * ev_rng_normal(&r));
    if (appeal != NULL) appeal[i] = f->appeal[i];
  }
}
