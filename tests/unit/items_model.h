/* items_model.h - a live table kept naively in memory, to compare with: who is there, with which vector and features. */
#ifndef TESTS_ITEMS_MODEL_H
#define TESTS_ITEMS_MODEL_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "store/store.h"
#include "support.h"

#define MODEL_IDS 96
#define MODEL_DIMS 6

typedef struct model_item {
  bool there, vector, year, genre;
  float x[MODEL_DIMS];
  float year_value;
  int genre_value;      /* "g0" … "g4" */
  int n_tags, tags[12]; /* "t0" … "t19"; −1 tags: none given */
} model_item;

typedef struct model {
  model_item items[MODEL_IDS];
  uint64_t tag; /* free for a test's use */
} model;

static const char *const model_genres[] = {"g0", "g1", "g2", "g3", "gärten"};
static const char *const model_tags[] = {"t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9", "t10", "t11", "t12", "t13", "t14", "t15", "t16", "t17", "", "long long long tag"};

static void model_id(char out[32], unsigned i) { snprintf(out, 32, "item-%u", i); }

static model_item model_random(ev_rng *r, bool vectors) {
  model_item m = {.there = true, .vector = vectors && ev_rng_below(r, 5) > 0, .year = ev_rng_below(r, 4) > 0, .genre = ev_rng_below(r, 3) > 0};
  for (int k = 0; k < MODEL_DIMS; k++) m.x[k] = m.vector ? (float)((int)ev_rng_below(r, 17) - 8) : 0; /* whole numbers: inner products are exact */
  m.year_value = m.year ? (float)(1980 + (int)ev_rng_below(r, 30)) : 0;
  m.genre_value = m.genre ? (int)ev_rng_below(r, 5) : 0;
  m.n_tags = (int)ev_rng_below(r, 13);
  for (int k = 0; k < m.n_tags; k++) m.tags[k] = (int)ev_rng_below(r, 20);
  return m;
}

typedef struct model_call { /* the memory of a put */
  char ids[64][32];
  model_item values[64];
  ev_item items[64];
  ev_field fields[64][3];
  const char *tags[64][12];
  size_t n;
} model_call;

static void model_add(model_call *c, unsigned id, const model_item *m) {
  size_t i = c->n++, n = 0;
  model_id(c->ids[i], id);
  c->values[i] = *m;
  if (m->year) c->fields[i][n++] = (ev_field){.name = "year", .type = EV_FLOAT, .number = (double)m->year_value};
  if (m->genre) c->fields[i][n++] = (ev_field){.name = "genre", .type = EV_TOKEN, .tokens = &model_genres[m->genre_value], .n_tokens = 1};
  for (int k = 0; k < m->n_tags; k++) c->tags[i][k] = model_tags[m->tags[k]];
  if (m->n_tags > 0) c->fields[i][n++] = (ev_field){.name = "tags", .type = EV_TOKEN_LIST, .tokens = c->tags[i], .n_tokens = (size_t)m->n_tags};
  c->items[i] = (ev_item){.id = c->ids[i], .vector = m->vector ? c->values[i].x : NULL, .fields = c->fields[i], .n_fields = n};
}

static const ev_column *model_column(const ev_items_reader *r, const char *name) {
  for (size_t i = 0; i < ev_items_n_columns(r); i++)
    if (strcmp(ev_items_column_at(r, i)->name, name) == 0) return ev_items_column_at(r, i);
  return NULL;
}

/* Says what is wrong with an item's row, or NULL. */
static const char *model_wrong_row(const ev_items_reader *r, uint32_t row, unsigned id, const model_item *m) {
  char name[32];
  size_t len;
  float x[MODEL_DIMS];
  model_id(name, id);
  const char *text = ev_items_id(r, row, &len);
  if (len != strlen(name) || memcmp(text, name, len) != 0) return "id";
  ev_status status = ev_items_vector(r, row, x);
  if (status != (m->vector ? EV_OK : EV_ENOTFOUND) || (m->vector && memcmp(x, m->x, sizeof x) != 0)) return "vector";
  const ev_column *year = model_column(r, "year"), *genre = model_column(r, "genre"), *tags = model_column(r, "tags");
  const uint32_t *codes = NULL;
  if ((year == NULL && m->year) || (genre == NULL && m->genre) || (tags == NULL && m->n_tags > 0)) return "column";
  if (year != NULL && (row >= year->n_rows || (m->year ? year->values[row] != m->year_value : !isnan(year->values[row])))) return "year";
  if (genre != NULL) {
    size_t n = ev_column_tokens(genre, row, &codes);
    if (n != m->genre) return "genre";
    text = n > 0 ? ev_column_token(genre, codes[0], &len) : "";
    if (n > 0 && (len != strlen(model_genres[m->genre_value]) || memcmp(text, model_genres[m->genre_value], len) != 0)) return "genre's text";
  }
  if (tags == NULL) return NULL;
  if (ev_column_tokens(tags, row, &codes) != (size_t)m->n_tags) return "number of tags";
  for (int k = 0; k < m->n_tags; k++) {
    text = ev_column_token(tags, codes[k], &len);
    if (len != strlen(model_tags[m->tags[k]]) || memcmp(text, model_tags[m->tags[k]], len) != 0) return "tag";
  }
  return NULL;
}

/* Says what is wrong with a reader, or NULL: every item as it should be, and no other. */
static const char *model_wrong(const ev_items_reader *r, const model *m, unsigned *who) {
  size_t n = 0, seen = 0;
  for (unsigned i = 0; i < MODEL_IDS; i++) {
    char name[32];
    *who = i;
    model_id(name, i);
    uint32_t row = ev_items_find(r, name, strlen(name));
    if ((row != EV_NONE) != m->items[i].there) return m->items[i].there ? "missing" : "there";
    if (row == EV_NONE) continue;
    const char *wrong = model_wrong_row(r, row, i, &m->items[i]);
    if (wrong != NULL) return wrong;
    n++;
  }
  for (uint32_t row = ev_items_next(r, 0); row != EV_NONE; row = ev_items_next(r, row + 1)) seen++;
  return seen == n ? NULL : "another number of rows";
}

/* ---- Calls --------------------------------------------------------------------------------------------*/
#define HELP __attribute__((unused))

HELP static ev_items_options options(const char *kind, size_t n_dims) {
  ev_items_options o;
  ev_items_defaults(&o);
  o.create = true;
  o.index.kind = kind;
  o.index.n_dims = n_dims;
  o.index.max_rows = 1 << 20;
  return o;
}

HELP static ev_items *open_items(const char *path, const ev_items_options *o) {
  ev_items *t;
  if (ev_items_open(&t, path, o) != EV_OK) fail_msg("open: %s", ev_error());
  return t;
}

HELP static void check(const ev_items *t, const model *m, const char *when) {
  ev_items_reader r;
  unsigned who;
  ev_items_begin(&r, t);
  const char *wrong = model_wrong(&r, m, &who);
  if (wrong != NULL) fail_msg("%s: item %u: %s", when, who, wrong);
  ev_items_end(&r);
}

HELP static ev_status put_random(ev_items *t, model *m, ev_rng *r, size_t most, bool vectors) { /* m changes when it succeeds */
  model_call *c = calloc(1, sizeof *c);
  model next = *m;
  size_t n = 1 + ev_rng_below(r, (uint32_t)most);
  unsigned first = ev_rng_below(r, MODEL_IDS);
  for (size_t i = 0; i < n; i++) {
    unsigned id = (first + 7 * (unsigned)i) % MODEL_IDS;
    next.items[id] = model_random(r, vectors);
    model_add(c, id, &next.items[id]);
  }
  ev_status status = ev_items_put(t, c->items, c->n);
  if (status == EV_OK) *m = next;
  free(c);
  return status;
}

HELP static ev_status delete_random(ev_items *t, model *m, ev_rng *r) {
  char names[3][32];
  const char *ids[3];
  model next = *m;
  size_t n = 1 + ev_rng_below(r, 3);
  unsigned first = ev_rng_below(r, MODEL_IDS);
  bool all = true;
  for (size_t i = 0; i < n; i++) {
    unsigned id = (first + (unsigned)i) % MODEL_IDS;
    model_id(names[i], id);
    ids[i] = names[i];
    all = all && m->items[id].there;
    next.items[id].there = false;
  }
  ev_status status = ev_items_delete(t, ids, n);
  if (status != (all ? EV_OK : EV_ENOTFOUND)) return status == EV_OK ? EV_EINVAL : status;
  if (all) *m = next;
  return EV_OK;
}

#endif
