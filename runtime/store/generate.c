/* generate.c - a world of its own, so that everything can be tried without a file.
 *
 * Users and items live in a space of TASTES latent dimensions; items lean to a genre, users like a few genres, and a
 * user's taste drifts by a small random walk from session to session. In a session the logging policy shows a slate of
 * SLATE items, half by popularity so far and half by noisy liking, among items born by then; the user looks at place p
 * with probability 1 / (1 + 0.35 p) and clicks what he looks at with a probability that grows with his liking, never
 * the same item twice. Clicks are the interactions, with their time; folds are cut by time. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build.h"

#define TASTES 12
#define GENRES 16
#define SLATE 12
#define FIRST_DAY 1577836800 /* 2020-01-01, seconds */
#define DAYS 360

static const char *const genres[GENRES] = {"action", "adventure", "animation", "comedy", "crime", "documentary", "drama", "family",
                                           "fantasy", "history", "horror", "music", "mystery", "romance", "thriller", "western"};
static const char *const adjectives[] = {"silent", "crimson", "distant", "broken", "golden", "hidden", "last", "paper", "winter", "electric",
                                         "hollow", "burning", "patient", "wild", "frozen", "second", "gentle", "iron", "lost", "bright"};
static const char *const nouns[] = {"harbour", "garden", "letter", "river", "engine", "orchard", "shadow", "lantern", "station", "mountain",
                                    "promise", "island", "mirror", "season", "voyage", "theatre", "window", "tide", "archive", "meadow"};

void ev_generate_defaults(ev_generate_options *o) { *o = (ev_generate_options){.n_users = 943, .n_items = 1682, .n_sessions_per_user = 40, .seed = 1}; }

typedef struct world {
  const ev_generate_options *o;
  float *item, *user;      /* (n_items, TASTES), (n_users, TASTES) */
  float *appeal;           /* (n_items) liked by everybody */
  uint32_t *birth;         /* (n_items) day */
  uint8_t *genre;          /* (n_items, 2) second may equal the first */
  uint32_t *urn;           /* (cap) an entry a click: a uniform draw is a draw by popularity */
  size_t n, cap;
  uint32_t *who, *what;    /* (cap) */
  int64_t *when;
  uint8_t *clicked;        /* (n_users, n_items) bits */
} world;

static float liking(const world *w, const float *taste, uint32_t item) {
  float sum = w->appeal[item];
  for (int k = 0; k < TASTES; k++) sum += taste[k] * w->item[(size_t)item * TASTES + k];
  return sum;
}

static void make_items(world *w, ev_rng *r) {
  float centre[GENRES][TASTES];
  for (int g = 0; g < GENRES; g++)
    for (int k = 0; k < TASTES; k++) centre[g][k] = (float)ev_rng_normal(r);
  for (size_t i = 0; i < w->o->n_items; i++) {
    uint8_t a = (uint8_t)ev_rng_below(r, GENRES), b = ev_rng_f64(r) < 0.5 ? (uint8_t)ev_rng_below(r, GENRES) : a;
    w->genre[2 * i] = a;
    w->genre[2 * i + 1] = b;
    for (int k = 0; k < TASTES; k++) w->item[i * TASTES + k] = 0.5f * (centre[a][k] + centre[b][k]) * 0.8f + 0.6f * (float)ev_rng_normal(r);
    w->appeal[i] = 1.2f * (float)ev_rng_normal(r);
    w->birth[i] = ev_rng_f64(r) < 0.7 ? 0 : ev_rng_below(r, DAYS);
  }
}

static ev_status click(world *w, uint32_t user, uint32_t item, int64_t when) {
  if (w->n == w->cap) {
    size_t cap = w->cap == 0 ? 4096 : 2 * w->cap;
    struct {
      void **array;
      size_t size;
    } all[] = {{(void **)&w->who, 4}, {(void **)&w->what, 4}, {(void **)&w->urn, 4}, {(void **)&w->when, 8}};
    for (size_t i = 0; i < 4; i++) {
      void *p = ev_resize(*all[i].array, cap, all[i].size);
      if (p == NULL) return EV_ENOMEM;
      *all[i].array = p;
    }
    w->cap = cap;
  }
  size_t bit = (size_t)user * w->o->n_items + item;
  w->clicked[bit / 8] |= (uint8_t)(1u << (bit % 8));
  w->who[w->n] = user;
  w->what[w->n] = w->urn[w->n] = item;
  w->when[w->n++] = when;
  return EV_OK;
}

static bool has_clicked(const world *w, uint32_t user, uint32_t item) {
  size_t bit = (size_t)user * w->o->n_items + item;
  return w->clicked[bit / 8] >> (bit % 8) & 1;
}

/* One candidate of the logging policy, or EV_NONE when the draw is of no use. */
static uint32_t draw(const world *w, uint32_t user, uint32_t day, ev_rng *r) {
  uint32_t best = EV_NONE;
  if (ev_rng_f64(r) < 0.5 && w->n > 0) {
    best = w->urn[ev_rng_below(r, (uint32_t)w->n)];
  } else { /* the best liked of a few */
    float most = -INFINITY;
    for (int k = 0; k < 6; k++) {
      uint32_t item = ev_rng_below(r, (uint32_t)w->o->n_items);
      float x = liking(w, w->user + (size_t)user * TASTES, item) + 1.5f * (float)ev_rng_normal(r);
      if (x > most) most = x, best = item;
    }
  }
  return best == EV_NONE || w->birth[best] > day || has_clicked(w, user, best) ? EV_NONE : best;
}

static ev_status session(world *w, uint32_t user, int64_t when, ev_rng *r) {
  uint32_t day = (uint32_t)((when - FIRST_DAY) / 86400);
  float *taste = w->user + (size_t)user * TASTES;
  for (int k = 0; k < TASTES; k++) taste[k] += 0.04f * (float)ev_rng_normal(r);
  for (int place = 0; place < SLATE; place++) {
    uint32_t item = draw(w, user, day, r);
    if (item == EV_NONE || ev_rng_f64(r) > 1 / (1 + 0.35 * place)) continue;
    double p = 1 / (1 + exp(-(1.3 * (double)liking(w, taste, item) - 1.0)));
    if (ev_rng_f64(r) < p) EV_TRY(click(w, user, item, when + place));
  }
  return EV_OK;
}

static ev_status live(world *w, ev_rng *r) {
  size_t n_users = w->o->n_users, steps = w->o->n_sessions_per_user;
  for (size_t i = 0; i < n_users * TASTES; i++) w->user[i] = 0.55f * (float)ev_rng_normal(r);
  for (size_t s = 0; s < steps; s++) { /* a round of sessions in each of `steps` stretches of the year */
    for (size_t u = 0; u < n_users; u++) {
      if (ev_rng_f64(r) < 0.25) continue;
      double at = ((double)s + ev_rng_f64(r)) / (double)steps;
      EV_TRY(session(w, (uint32_t)u, FIRST_DAY + (int64_t)(at * DAYS * 86400), r));
    }
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
  }
  return EV_OK;
}

/* ---- Writing -------------------------------------------------------------------------------------------*/
static ev_status numbered(ev_buf *bytes, uint64_t *ptr, size_t n, char letter) {
  for (size_t i = 0; i < n; i++) {
    ptr[i] = bytes->len;
    EV_TRY(ev_buf_printf(bytes, "%c%zu", letter, i + 1));
  }
  ptr[n] = bytes->len;
  return EV_OK;
}

static ev_status vocabulary(ev_column *c, ev_buf *bytes, uint64_t *ptr, const char *const *words, size_t n) {
  for (size_t i = 0; i < n; i++) {
    ptr[i] = bytes->len;
    EV_TRY(ev_buf_append(bytes, words[i], strlen(words[i])));
  }
  ptr[n] = bytes->len;
  c->n_tokens = n;
  c->token_ptr = ptr;
  c->token_bytes = bytes->data;
  return EV_OK;
}

static int by_time(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static ev_status write_world(const world *w, ev_rng *r, const char *path) {
  enum { WORDS = 40 };
  size_t n_items = w->o->n_items, n_users = w->o->n_users;
  uint64_t *ids[2] = {ev_alloc(n_users + 1, 8), ev_alloc(n_items + 1, 8)}, *lists[2] = {ev_alloc(n_items + 1, 8), ev_alloc(n_items + 1, 8)};
  uint64_t genre_ptr[GENRES + 1], word_ptr[WORDS + 1];
  uint32_t *codes[2] = {ev_alloc(2 * n_items, 4), ev_alloc(2 * n_items, 4)};
  float *year = ev_alloc(n_items, sizeof *year);
  int64_t *sorted = ev_alloc(w->n, sizeof *sorted);
  uint8_t *fold = ev_alloc(w->n, 1);
  ev_buf texts[4] = {{0}};
  const char *words[WORDS];
  ev_status status = ids[0] == NULL || ids[1] == NULL || lists[0] == NULL || lists[1] == NULL || codes[0] == NULL || codes[1] == NULL || year == NULL ||
                             sorted == NULL || fold == NULL
                         ? EV_ENOMEM
                         : EV_OK;
  if (status == EV_OK) status = numbered(&texts[0], ids[0], n_users, 'u');
  if (status == EV_OK) status = numbered(&texts[1], ids[1], n_items, 'i');
  if (status != EV_OK) goto done;
  for (size_t i = 0; i < WORDS; i++) words[i] = i < 20 ? adjectives[i] : nouns[i - 20];
  size_t at = 0;
  for (size_t i = 0; i < n_items; i++) {
    lists[0][i] = at;
    codes[0][at++] = w->genre[2 * i];
    if (w->genre[2 * i + 1] != w->genre[2 * i]) codes[0][at++] = w->genre[2 * i + 1];
    lists[1][i] = 2 * i;
    codes[1][2 * i] = ev_rng_below(r, 20);
    codes[1][2 * i + 1] = 20 + ev_rng_below(r, 20);
    year[i] = (float)(2020 - (w->birth[i] == 0 ? (int)ev_rng_below(r, 40) : 0));
  }
  lists[0][n_items] = at;
  lists[1][n_items] = 2 * n_items;
  ev_column columns[3] = {{.name = "title", .type = EV_TOKEN_LIST, .n_rows = n_items, .ptr = lists[1], .codes = codes[1]},
                          {.name = "genre", .type = EV_TOKEN_LIST, .n_rows = n_items, .ptr = lists[0], .codes = codes[0]},
                          {.name = "year", .type = EV_FLOAT, .n_rows = n_items, .values = year}};
  status = vocabulary(&columns[0], &texts[2], word_ptr, words, WORDS);
  if (status == EV_OK) status = vocabulary(&columns[1], &texts[3], genre_ptr, genres, GENRES);
  if (status != EV_OK) goto done;
  memcpy(sorted, w->when, w->n * sizeof *sorted);
  qsort(sorted, w->n, sizeof *sorted, by_time);
  int64_t valid_cut = sorted[w->n * 7 / 10], test_cut = sorted[w->n * 8 / 10];
  for (size_t i = 0; i < w->n; i++) fold[i] = w->when[i] >= test_cut ? EV_TEST : w->when[i] >= valid_cut ? EV_VALID : EV_TRAIN;
  ev_snapshot_parts parts = {
      .n_users = n_users, .n_items = n_items, .n = w->n, .user_ids = {texts[0].data, ids[0], n_users}, .item_ids = {texts[1].data, ids[1], n_items},
      .user = w->who, .item = w->what, .fold = fold, .time = w->when, .valid_cut = valid_cut, .test_cut = test_cut, .sequential = true, .item_columns = columns, .n_item_columns = 3,
  };
  status = ev_snapshot_write(&parts, path);
done:
  for (int i = 0; i < 2; i++) ev_free(ids[i]), ev_free(lists[i]), ev_free(codes[i]);
  for (int i = 0; i < 4; i++) ev_buf_free(&texts[i]);
  ev_free(year);
  ev_free(sorted);
  ev_free(fold);
  return status;
}

ev_status ev_generate(const ev_generate_options *o, const char *path) {
  world w = {.o = o};
  ev_rng r;
  ev_rng_seed(&r, o->seed, 0);
  w.item = ev_alloc(o->n_items, TASTES * sizeof *w.item);
  w.user = ev_alloc(o->n_users, TASTES * sizeof *w.user);
  w.appeal = ev_alloc(o->n_items, sizeof *w.appeal);
  w.birth = ev_alloc(o->n_items, sizeof *w.birth);
  w.genre = ev_alloc(o->n_items, 2);
  w.clicked = ev_zalloc(o->n_users * o->n_items / 8 + 1, 1);
  ev_status status = w.item == NULL || w.user == NULL || w.appeal == NULL || w.birth == NULL || w.genre == NULL || w.clicked == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    make_items(&w, &r);
    status = live(&w, &r);
  }
  if (status == EV_OK && w.n < 10) status = ev_fail(EV_EINVAL, "a world of %zu clicks is too small to cut into folds", w.n);
  if (status == EV_OK) status = write_world(&w, &r, path);
  void *arrays[] = {w.item, w.user, w.appeal, w.birth, w.genre, w.urn, w.who, w.what, w.when, w.clicked};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) ev_free(arrays[i]);
  return status;
}
