/* gbdt.h - the parts of gradient-boosted trees; private to this room.
 *
 *   columns   a row as trees see it: numbers, categories, whether a list has a token, what a token's rows clicked
 *   bins      the training rows, every column cut into at most 256 bins
 *   tree      one tree grown over bins, best leaf first
 */
#ifndef EV_LEARN_GBDT_H
#define EV_LEARN_GBDT_H

#include "kinds.h"

/* ---- Columns -------------------------------------------------------------------------------------------*/
typedef enum ev_tree_kind {
  EV_TREE_NUMBER,       /* of a FLOAT field; NaN: missing */
  EV_TREE_TOKEN_NUMBER, /* the number that a token says, of a field whose tokens all do; NaN: missing */
  EV_TREE_CATEGORY,     /* the token's code within its field; none: the field's size */
  EV_TREE_HAS,          /* 1 when the list has token `code`, else 0 */
  EV_TREE_MEAN,         /* mean label of the rows of the token, or mean of that over a list; none: the prior */
  EV_TREE_COUNT         /* log(1 + rows of the token); none: missing, so that what is new goes the way of the many and not of the rarest */
} ev_tree_kind;

typedef struct ev_tree_column {
  uint32_t kind, field, code;
} ev_tree_column;

/* What trees know of a token, (n_features, EV_TOKEN_FACTS): the number it says, the mean label of its rows, log(1 + rows). */
enum { EV_TOKEN_NUMBER, EV_TOKEN_MEAN, EV_TOKEN_COUNT, EV_TOKEN_FACTS };

#define EV_TREE_COLUMNS_MAX 4096
/* The columns of the fields. Tokens of at most one_hot are categories (one against the rest), the tokens of a list one
 * column each; more tokens, and ids, are known by what their rows clicked. numbers (n_features): what each token says, to be
 * filled. @param[out] columns (EV_TREE_COLUMNS_MAX), *n. EV_ELIMIT. */
ev_status ev_tree_columns(ev_tree_column *columns, size_t *n, float *numbers, const ev_fields *f, const ev_snapshot *s, size_t one_hot);
/* One row. facts: see above. @param[out] out (n) */
void ev_tree_row(float *out, const ev_tree_column *columns, size_t n, const ev_fields *f, const float *facts, float prior,
                 const uint32_t *codes, const float *weights, const float *values);

/* ---- Bins ----------------------------------------------------------------------------------------------*/
#define EV_BINS_MAX 256 /* of a column, the one of missing values counted */
#define EV_TILE 8       /* columns whose bins of a row lie together: one load, and the histograms of a tile fit the nearest cache */

typedef struct ev_bin_column {
  size_t offset;     /* of its first bin in a histogram; it has n_bins + 1: missing values come last */
  unsigned n_bins;
  bool category;     /* bin b is the value b */
  float *cuts;       /* (n_bins − 1) ascending: bin b holds cuts[b − 1] < x <= cuts[b]; NULL for a category */
} ev_bin_column;

typedef struct ev_bins {
  size_t n_rows, n_columns, n_tiles, n_all; /* n_all: bins of a histogram */
  ev_bin_column *columns;                   /* (n_columns) */
  float *cuts;
  uint8_t *bin;                             /* (n_tiles, n_rows, EV_TILE) */
} ev_bins;

/* Cuts each column so that every bin holds about as many of the sample's values; between each two where there are no more
 * than bins. @param sample (n, n_columns)  @param categories (n_columns) 0: a number; else how many categories it has */
ev_status ev_bins_cut(ev_bins *b, const float *sample, size_t n, const uint32_t *categories, size_t n_columns, size_t n_rows, unsigned n_bins);
void ev_bins_put(ev_bins *b, size_t row, const float *values); /* values (n_columns). Rows may be put by any thread */
void ev_bins_free(ev_bins *b);
static inline uint8_t ev_bins_at(const ev_bins *b, size_t column, size_t row) {
  return b->bin[(column / EV_TILE * b->n_rows + row) * EV_TILE + column % EV_TILE];
}

/* ---- Trees ---------------------------------------------------------------------------------------------*/
enum { EV_NODE_MISSING_LEFT = 1, EV_NODE_EQUAL = 2 }; /* flags: a missing value goes left; left is x == threshold, not x <= threshold */
typedef struct ev_tree_node {
  uint32_t column; /* EV_NONE: a leaf */
  uint32_t left, right, flags;
  uint32_t bin;    /* of the split, while training */
  float threshold, value;
} ev_tree_node;

typedef struct ev_forest {
  ev_tree_node *nodes;
  uint32_t *roots;
  size_t n_nodes, cap_nodes, n_trees, cap_trees;
} ev_forest;
void ev_forest_free(ev_forest *f);

typedef struct ev_grow_options {
  unsigned n_leaves, max_depth; /* max_depth 0: as deep as leaves allow */
  double l2, min_child_weight, min_gain, learning_rate;
} ev_grow_options;

typedef struct ev_grower ev_grower; /* memory for growing one tree after another */
ev_status ev_grower_new(ev_grower **out, const ev_bins *b, const ev_grow_options *o);
void ev_grower_free(ev_grower *g);
/* Grows a tree over rows (n, ascending; NULL: all) and columns (n_columns flags; NULL: all), adds it to the forest, and its
 * leaves' values to scores (n_rows), those of other rows too. gradients (n_rows, 2): first and second derivative of the loss.
 * EV_ENOMEM, EV_EINTR. */
ev_status ev_grow(ev_grower *g, ev_forest *f, float *scores, const float *gradients, const uint32_t *rows, size_t n, const uint8_t *columns);

#endif
