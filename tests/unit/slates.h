/* slates.h - random slates and a random column of tokens, beside naive copies of them, for the tests of both. */
#ifndef TESTS_SLATES_H
#define TESTS_SLATES_H

#include <math.h>

#include "store/store.h"
#include "support.h"

enum { MOST = 200, EXTRA = 3 };

typedef struct row { /* a candidate of the naive slate */
  uint32_t item, source;
  float score, extra[EXTRA];
} row;

__attribute__((unused)) static const char *const extras[EXTRA] = {"a", "b", "a name of forty-seven bytes, which is the limit"};

__attribute__((unused)) static float random_score(ev_rng *r) { /* few values, so that there are ties, and what no recall should send but one may */
  uint32_t kind = ev_rng_below(r, 30);
  return kind == 0 ? NAN : kind == 1 ? INFINITY : kind == 2 ? -INFINITY : (float)ev_rng_below(r, 12) / 4 - 1;
}

__attribute__((unused)) static size_t random_slate(ev_slate *s, row *rows, ev_rng *r, size_t n, uint32_t n_items, bool distinct) {
  ev_slate_clear(s);
  float *column[EXTRA];
  uint32_t pool[MOST];
  for (uint32_t i = 0; i < n_items && i < MOST; i++) pool[i] = i;
  if (distinct && n > n_items) n = n_items;
  for (size_t i = 0; i < n; i++) {
    uint32_t swap, j = (uint32_t)i + ev_rng_below(r, n_items - (uint32_t)(distinct ? i : 0)), item = distinct ? pool[j] : ev_rng_below(r, n_items);
    if (distinct) swap = pool[i], pool[i] = pool[j], pool[j] = swap;
    rows[i] = (row){item, 1u << ev_rng_below(r, 32), random_score(r), {0}};
    assert_int_equal(ev_slate_append(s, &rows[i].item, &rows[i].score, 1, rows[i].source), EV_OK);
  }
  for (int c = 0; c < EXTRA; c++) {
    assert_int_equal(ev_slate_column(s, extras[c], &column[c]), EV_OK);
    for (size_t i = 0; i < n; i++) {
      assert_true(column[c][i] == 0);
      column[c][i] = rows[i].extra[c] = (float)ev_rng_normal(r);
    }
  }
  return n;
}

enum { ITEMS = 60, TOKENS = 8, LONGEST = 4 };
typedef struct catalogue { /* a random column of tokens; lists may repeat one */
  uint64_t ptr[ITEMS + 1];
  uint32_t codes[ITEMS * LONGEST];
  ev_column column;
} catalogue;

__attribute__((unused)) static void random_catalogue(catalogue *c, ev_rng *r, ev_column_type type) {
  c->ptr[0] = 0;
  for (size_t i = 0; i < ITEMS; i++) {
    if (type == EV_TOKEN) {
      c->codes[i] = ev_rng_below(r, 6) == 0 ? EV_NONE : ev_rng_below(r, TOKENS);
      continue;
    }
    c->ptr[i + 1] = c->ptr[i] + ev_rng_below(r, LONGEST + 1);
    for (uint64_t k = c->ptr[i]; k < c->ptr[i + 1]; k++) c->codes[k] = ev_rng_below(r, TOKENS);
  }
  c->column = (ev_column){.name = "tokens", .type = type, .n_rows = ITEMS, .codes = c->codes, .ptr = type == EV_TOKEN ? NULL : c->ptr, .n_tokens = TOKENS};
}

__attribute__((unused)) static unsigned set_of(const catalogue *c, uint32_t item) { /* an item's tokens as bits */
  unsigned set = 0;
  if (item >= ITEMS) return 0;
  if (c->column.type == EV_TOKEN) return c->codes[item] == EV_NONE ? 0 : 1u << c->codes[item];
  for (uint64_t k = c->ptr[item]; k < c->ptr[item + 1]; k++) set |= 1u << c->codes[k];
  return set;
}

#endif
