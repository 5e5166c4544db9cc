/* where.h - a compiled condition; private to this room.
 *
 *   where.c        a row, or 64 of them, judged
 *   where_parse.c  text → this
 *
 * Kleene's three truth values make two here: De Morgan's laws hold for them, so `not` is pushed down into the comparisons
 * (== becomes ~=, < becomes >=), which a missing value then fails like any other. What is left has no `not`, and a
 * conjunction or disjunction holds exactly when it does with "unknown" read as "false".
 *
 * A test says where to go on when it holds and when it does not, always further down the list. Texts are codes by then; a set of
 * more than a few of them is a bitmap over the vocabulary. */
#ifndef EV_STORE_WHERE_H
#define EV_STORE_WHERE_H

#include "store.h"

#define WHERE_HOLDS UINT32_MAX
#define WHERE_FAILS (UINT32_MAX - 1)

typedef enum where_op { OP_EQ, OP_NE, OP_LT, OP_GE, OP_LE, OP_GT, OP_IN, OP_NOT_IN, OP_MISSING, OP_PRESENT } where_op; /* an op ^ 1 is its opposite */

typedef struct where_test {
  where_op op;
  uint32_t column;     /* in ev_where's own list */
  uint32_t yes, no;    /* the test to go on with, WHERE_HOLDS or WHERE_FAILS */
  uint32_t first, n;   /* its numbers, ascending, or codes */
  uint64_t *bits;      /* codes as a bitmap, or NULL; owned */
  size_t n_bits;
} where_test;

struct ev_where {
  where_test *tests; /* (n_tests) */
  size_t n_tests;
  ev_column *columns; /* (n_columns) copies; what they point to is borrowed */
  size_t n_columns;
  float *numbers;
  uint32_t *codes;
};

#endif
