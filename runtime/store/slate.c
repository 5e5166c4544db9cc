/* slate.c - candidates in flight: items, scores, sources and named columns of equal length. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

typedef struct named {
  char name[48];
  float *data; /* (cap), owned */
} named;

struct ev_slate {
  size_t n, cap;
  uint32_t *items, *sources; /* (cap) */
  float *scores;             /* (cap) */
  named columns[EV_SLATE_MAX_COLUMNS];
  size_t n_columns, n_blocks; /* columns in use; those behind them keep their memory for the next slate */
  uint32_t *order;            /* (cap) scratch of sorting and moving */
  void *moved;                /* (cap) 32-bit scratch */
  uint64_t *keys;             /* (2 cap) of sorting */
};

ev_slate *ev_slate_new(void) { return ev_zalloc(1, sizeof(ev_slate)); }

void ev_slate_free(ev_slate *s) {
  if (s == NULL) return;
  for (size_t i = 0; i < s->n_blocks; i++) ev_free(s->columns[i].data);
  ev_free(s->items);
  ev_free(s->sources);
  ev_free(s->scores);
  ev_free(s->order);
  ev_free(s->moved);
  ev_free(s->keys);
  ev_free(s);
}

void ev_slate_clear(ev_slate *s) { s->n = s->n_columns = 0; }

/* Room for n candidates in every array. A failure in the middle leaves larger arrays and the old capacity. */
static ev_status reserve(ev_slate *s, size_t n) {
  if (n <= s->cap) return EV_OK;
  if (n > EV_SLATE_MAX_ITEMS) return ev_fail(EV_ELIMIT, "a slate holds at most %d candidates", EV_SLATE_MAX_ITEMS);
  size_t cap = s->cap == 0 ? 64 : s->cap;
  while (cap < n) cap *= 2;
  void **arrays[] = {(void **)&s->items, (void **)&s->sources, (void **)&s->scores, (void **)&s->order, &s->moved};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
    void *p = ev_resize(*arrays[i], cap, 4);
    if (p == NULL) return EV_ENOMEM;
    *arrays[i] = p;
  }
  uint64_t *keys = ev_resize(s->keys, cap, 2 * sizeof *keys);
  if (keys == NULL) return EV_ENOMEM;
  s->keys = keys;
  for (size_t i = 0; i < s->n_blocks; i++) {
    float *p = ev_resize(s->columns[i].data, cap, sizeof *p);
    if (p == NULL) return EV_ENOMEM;
    s->columns[i].data = p;
  }
  s->cap = cap;
  return EV_OK;
}

size_t ev_slate_n(const ev_slate *s) { return s->n; }
uint32_t *ev_slate_items(ev_slate *s) { return s->items; }
float *ev_slate_scores(ev_slate *s) { return s->scores; }
uint32_t *ev_slate_sources(ev_slate *s) { return s->sources; }
float *ev_slate_column_at(ev_slate *s, size_t i) { return s->columns[i].data; }
size_t ev_slate_n_columns(const ev_slate *s) { return s->n_columns; }
const char *ev_slate_column_name(const ev_slate *s, size_t i) { return s->columns[i].name; }

ev_status ev_slate_append(ev_slate *s, const uint32_t *items, const float *scores, size_t n, uint32_t source) {
  size_t used = 0;
  while (used < n && items[used] != EV_NONE) used++;
  EV_TRY(reserve(s, s->n + used));
  if (used == 0) return EV_OK;
  memcpy(s->items + s->n, items, used * sizeof *items);
  memcpy(s->scores + s->n, scores, used * sizeof *scores);
  for (size_t i = 0; i < used; i++) s->sources[s->n + i] = source;
  for (size_t c = 0; c < s->n_columns; c++) memset(s->columns[c].data + s->n, 0, used * sizeof(float));
  s->n += used;
  return EV_OK;
}

float *ev_slate_find(ev_slate *s, const char *name) {
  for (size_t i = 0; i < s->n_columns; i++)
    if (strcmp(s->columns[i].name, name) == 0) return s->columns[i].data;
  return NULL;
}

/* One more column, of zeros, whose name is in use nowhere else. */
static ev_status add_column(ev_slate *s, const char *name, size_t len) {
  EV_TRY(reserve(s, 1));
  named *c = &s->columns[s->n_columns];
  if (s->n_columns == s->n_blocks) {
    c->data = ev_alloc(s->cap, sizeof *c->data);
    if (c->data == NULL) return EV_ENOMEM;
    s->n_blocks++;
  }
  memcpy(c->name, name, len);
  c->name[len] = '\0';
  memset(c->data, 0, s->n * sizeof *c->data);
  s->n_columns++;
  return EV_OK;
}

ev_status ev_slate_column(ev_slate *s, const char *name, float **out) {
  *out = ev_slate_find(s, name);
  if (*out != NULL) return EV_OK;
  size_t len = strlen(name);
  if (len >= sizeof s->columns->name || len == 0) return ev_fail(EV_EINVAL, "'%.60s' is no name for a column", name);
  if (s->n_columns == EV_SLATE_MAX_COLUMNS) return ev_fail(EV_ELIMIT, "a slate holds at most %d columns", EV_SLATE_MAX_COLUMNS);
  EV_TRY(add_column(s, name, len));
  *out = s->columns[s->n_columns - 1].data;
  return EV_OK;
}

/* Rows order[0..n) of every array, in that order. */
static void move(ev_slate *s, size_t n) {
  void *arrays[3] = {s->items, s->sources, s->scores};
  for (size_t a = 0; a < 3 + s->n_columns; a++) {
    uint32_t *from = a < 3 ? arrays[a] : (uint32_t *)(void *)s->columns[a - 3].data, *to = s->moved;
    for (size_t i = 0; i < n; i++) to[i] = from[s->order[i]];
    memcpy(from, to, n * sizeof *from);
  }
  s->n = n;
}

/* Score descending, NaN last, then item ascending: a total order, so any sort gives the same slate. */
static int better(const void *a, const void *b, void *slate) {
  const ev_slate *s = slate;
  uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
  float x = s->scores[i], y = s->scores[j];
  bool x_nan = isnan(x), y_nan = isnan(y);
  if (x_nan != y_nan) return x_nan ? 1 : -1;
  if (!x_nan && x != y) return x > y ? -1 : 1;
  if (s->items[i] != s->items[j]) return s->items[i] < s->items[j] ? -1 : 1;
  return i < j ? -1 : i > j;
}

ev_status ev_slate_sort(ev_slate *s) { return ev_slate_best(s, s->n); }

ev_status ev_slate_best(ev_slate *s, size_t n) {
  bool sorted = true;
  if (n > s->n) n = s->n;
  for (size_t i = 0; i < s->n; i++) s->keys[i] = (uint64_t)ev_score_key(s->scores[i]) << 32 | i;
  for (size_t i = 1; i < s->n && sorted; i++)
    sorted = s->keys[i - 1] >> 32 < s->keys[i] >> 32 || (s->keys[i - 1] >> 32 == s->keys[i] >> 32 && s->items[i - 1] <= s->items[i]);
  if (sorted) {
    ev_slate_truncate(s, n);
    return EV_OK;
  }
  ev_sort_keys(s->keys, s->keys + s->cap, s->n); /* by score; a comparison of scores and items takes five times as long */
  for (size_t i = 0; i < s->n; i++) s->order[i] = (uint32_t)s->keys[i];
  for (size_t i = 0, end; i < n; i = end) { /* equals by item */
    for (end = i + 1; end < s->n && s->keys[end] >> 32 == s->keys[i] >> 32; end++) continue;
    if (end - i > 1) qsort_r(s->order + i, end - i, sizeof *s->order, better, s);
  }
  move(s, n); /* the others are not moved first and dropped then */
  return EV_OK;
}

void ev_slate_truncate(ev_slate *s, size_t n) {
  if (n < s->n) s->n = n;
}

ev_status ev_slate_permute(ev_slate *s, const uint32_t *order, size_t n) {
  if (n > s->n) return ev_fail(EV_EINVAL, "%zu places of a slate of %zu", n, s->n);
  if (s->n == 0) return EV_OK; /* there may be no arrays yet */
  uint32_t *taken = s->moved;
  memset(taken, 0, s->n * sizeof *taken);
  for (size_t i = 0; i < n; i++) {
    if (order[i] >= s->n || taken[order[i]]) return ev_fail(EV_EINVAL, "place %zu of the new order is wrong", i);
    taken[order[i]] = 1;
  }
  if (n > 0) memcpy(s->order, order, n * sizeof *order);
  move(s, n);
  return EV_OK;
}

ev_status ev_slate_copy(ev_slate *out, const ev_slate *s) {
  if (out == s) return EV_OK;
  ev_slate_clear(out);
  EV_TRY(reserve(out, s->n));
  for (size_t c = 0; c < s->n_columns; c++) EV_TRY(add_column(out, s->columns[c].name, strlen(s->columns[c].name)));
  if (s->n == 0) return EV_OK;
  memcpy(out->items, s->items, s->n * sizeof *s->items);
  memcpy(out->sources, s->sources, s->n * sizeof *s->sources);
  memcpy(out->scores, s->scores, s->n * sizeof *s->scores);
  for (size_t c = 0; c < s->n_columns; c++) memcpy(out->columns[c].data, s->columns[c].data, s->n * sizeof(float));
  out->n = s->n;
  return EV_OK;
}

/* ---- Union ---------------------------------------------------------------------------------------------*/
typedef struct slots { /* item → row of the union; open addressing, EV_NONE = free */
  uint32_t *row;
  size_t mask;
} slots;

static size_t find(const slots *t, const ev_slate *s, uint32_t item) {
  size_t at = (item * 2654435761u) & t->mask;
  while (t->row[at] != EV_NONE && s->items[t->row[at]] != item) at = (at + 1) & t->mask;
  return at;
}

static ev_status join(ev_slate *out, const ev_slate *in, const char *name, slots *t) {
  char score_name[64], rank_name[64];
  float *score, *rank;
  snprintf(score_name, sizeof score_name, "score.%s", name);
  snprintf(rank_name, sizeof rank_name, "rank.%s", name);
  size_t before = out->n;
  for (size_t i = 0; i < in->n; i++) {
    size_t at = find(t, out, in->items[i]);
    if (t->row[at] == EV_NONE) {
      const float zero = 0;
      t->row[at] = (uint32_t)out->n;
      EV_TRY(ev_slate_append(out, &in->items[i], &zero, 1, 0));
    }
  }
  for (size_t c = 0; c < in->n_columns; c++) { /* inputs' own columns; the first holder of an item wins */
    float *to;
    EV_TRY(ev_slate_column(out, in->columns[c].name, &to));
    for (size_t i = 0; i < in->n; i++) {
      size_t row = t->row[find(t, out, in->items[i])];
      if (row >= before || to[row] == 0) to[row] = in->columns[c].data[i];
    }
  }
  EV_TRY(ev_slate_column(out, score_name, &score));
  EV_TRY(ev_slate_column(out, rank_name, &rank));
  for (size_t i = 0; i < in->n; i++) {
    size_t row = t->row[find(t, out, in->items[i])];
    if (rank[row] != 0) continue; /* an item twice in one input counts at its best place */
    score[row] = in->scores[i];
    rank[row] = (float)i + 1;
    out->sources[row] |= in->sources[i];
  }
  return EV_OK;
}

ev_status ev_slate_union(ev_slate *out, ev_slate *const *in, const char *const *names, size_t n_in) {
  size_t total = 0, size = 64;
  for (size_t i = 0; i < n_in; i++) {
    if (in[i] == out) return ev_fail(EV_EINVAL, "a slate cannot be a part of its own union");
    total += in[i]->n;
  }
  while (size < 2 * total) size *= 2;
  slots t = {ev_alloc(size, sizeof *t.row), size - 1};
  if (t.row == NULL) return EV_ENOMEM;
  memset(t.row, 0xFF, size * sizeof *t.row);
  ev_slate_clear(out);
  ev_status status = EV_OK;
  for (size_t i = 0; i < n_in && status == EV_OK; i++) status = join(out, in[i], names[i], &t);
  ev_free(t.row);
  return status;
}
