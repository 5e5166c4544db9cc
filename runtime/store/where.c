/* where.c - a compiled condition, and rows.
 *
 * One row walks down the list of tests: no stack, no allocation, nothing written. Sixty-four go down together, each test taking
 * those that have come to it: numbers and codes are compared eight and more at a time, which is what a scan of the whole table
 * wants (a branch a row costs more than the comparison: 9 ns against less than 1). */
#include <math.h>
#include <string.h>

#include "where.h"

#define TOGETHER_MAX 128 /* tests; a longer list is walked a row at a time */

/* ---- A row ----------------------------------------------------------------------------------------------*/
static bool number_holds(const ev_where *w, const where_test *t, float v) {
  const float *x = w->numbers + t->first;
  if (isnan(v)) return t->op == OP_MISSING;
  switch (t->op) {
    case OP_LT: return v < *x;
    case OP_LE: return v <= *x;
    case OP_GT: return v > *x;
    case OP_GE: return v >= *x;
    case OP_EQ: return v == *x;
    case OP_NE: return v != *x;
    case OP_MISSING: return false;
    case OP_PRESENT: return true;
    default: break;
  }
  size_t low = 0, high = t->n;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (x[middle] < v) low = middle + 1;
    else high = middle;
  }
  return (low < t->n && x[low] == v) == (t->op == OP_IN);
}

static bool tokens_hold(const ev_where *w, const where_test *t, const uint32_t *codes, size_t n) {
  if (n == 0 || t->op == OP_MISSING || t->op == OP_PRESENT) return (n == 0) == (t->op == OP_MISSING);
  bool found = false; /* no way out in between: lists are short, and where the token stands cannot be foretold */
  if (t->bits != NULL) {
    for (size_t i = 0; i < n; i++) found |= codes[i] < t->n_bits && (t->bits[codes[i] / 64] >> (codes[i] % 64) & 1) != 0;
  } else {
    for (uint32_t k = 0; k < t->n; k++)
      for (size_t i = 0; i < n; i++) found |= codes[i] == w->codes[t->first + k];
  }
  return found == (t->op == OP_EQ || t->op == OP_IN);
}

static bool test_holds(const ev_where *w, const where_test *t, const ev_column *c, size_t row) {
  const uint32_t *codes = NULL;
  if (c->type == EV_FLOAT) return number_holds(w, t, row < c->n_rows ? c->values[row] : NAN);
  size_t n = ev_column_tokens(c, row, &codes);
  return tokens_hold(w, t, codes, n);
}

bool ev_where_holds(const ev_where *w, size_t row) {
  uint32_t at = 0;
  while (at < w->n_tests) {
    const where_test *t = &w->tests[at];
    const ev_column *c = &w->columns[t->column];
    at = test_holds(w, t, c, row) ? t->yes : t->no;
  }
  return at == WHERE_HOLDS;
}

/* ---- Sixty-four rows -------------------------------------------------------------------------------------*/
/* Bytes of 0 and 1 → bits, eight at a time: the product gathers them in the highest byte. */
static uint64_t pack(const uint8_t *ones) {
  uint64_t bits = 0;
  for (unsigned i = 0; i < 8; i++) {
    uint64_t eight;
    memcpy(&eight, ones + 8 * i, 8);
    bits |= (eight * UINT64_C(0x0102040810204080) >> 56) << (8 * i);
  }
  return bits;
}

#define EACH(condition)                                              \
  do {                                                               \
    for (unsigned i = 0; i < 64; i++) ones[i] = (uint8_t)(condition); \
  } while (0)

static uint64_t numbers_hold(const where_test *t, const float *v, float x) {
  uint8_t ones[64];
  switch (t->op) {
    case OP_LT: EACH(v[i] < x); break;
    case OP_LE: EACH(v[i] <= x); break;
    case OP_GT: EACH(v[i] > x); break;
    case OP_GE: EACH(v[i] >= x); break;
    case OP_EQ: EACH(v[i] == x); break;
    case OP_NE: EACH((v[i] < x) | (v[i] > x)); break;
    case OP_MISSING: EACH(v[i] != v[i]); break;
    default: EACH(v[i] == v[i]); break; /* present */
  }
  return pack(ones);
}

static uint64_t codes_hold(const ev_where *w, const where_test *t, const uint32_t *v) {
  const uint32_t *codes = w->codes + t->first;
  uint8_t ones[64] = {0};
  bool among = t->op == OP_EQ || t->op == OP_IN;
  if (t->op == OP_MISSING) EACH(v[i] == EV_NONE);
  else if (t->op == OP_PRESENT) EACH(v[i] != EV_NONE);
  else {
    for (uint32_t k = 0; k < t->n; k++) EACH(ones[i] | (v[i] == codes[k]));
    if (!among) EACH(!ones[i] & (v[i] != EV_NONE));
  }
  return pack(ones);
}

/* Of the rows from `row` on, those of `of` that pass the test. */
static uint64_t test_word(const ev_where *w, const where_test *t, size_t row, uint64_t of) {
  const ev_column *c = &w->columns[t->column];
  bool whole = row + 64 <= c->n_rows;
  if (whole && c->type == EV_FLOAT && t->op != OP_IN && t->op != OP_NOT_IN) {
    bool compares = t->op != OP_MISSING && t->op != OP_PRESENT; /* those two have no number */
    return numbers_hold(t, c->values + row, compares ? w->numbers[t->first] : 0) & of;
  }
  if (whole && c->type == EV_TOKEN && t->bits == NULL) return codes_hold(w, t, c->codes + row) & of;
  uint64_t holds = 0;
  for (; of != 0; of &= of - 1) {
    unsigned i = (unsigned)__builtin_ctzll(of);
    holds |= (uint64_t)test_holds(w, t, c, row + i) << i;
  }
  return holds;
}

uint64_t ev_where_word(const ev_where *w, size_t row, uint64_t of) {
  uint64_t at[TOGETHER_MAX], held = 0; /* who has come to each test; who is through */
  if (w->n_tests > TOGETHER_MAX) {
    for (uint64_t left = of; left != 0; left &= left - 1) held |= (uint64_t)ev_where_holds(w, row + (unsigned)__builtin_ctzll(left)) << __builtin_ctzll(left);
    return held;
  }
  memset(at, 0, w->n_tests * sizeof *at);
  at[0] = of;
  for (uint32_t i = 0; i < w->n_tests; i++) {
    if (at[i] == 0) continue;
    const where_test *t = &w->tests[i];
    uint64_t holds = test_word(w, t, row, at[i]), fails = at[i] & ~holds;
    if (t->yes < w->n_tests) at[t->yes] |= holds;
    else if (t->yes == WHERE_HOLDS) held |= holds;
    if (t->no < w->n_tests) at[t->no] |= fails;
    else if (t->no == WHERE_HOLDS) held |= fails;
  }
  return held;
}
