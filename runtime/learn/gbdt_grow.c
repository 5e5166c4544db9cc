/* gbdt_grow.c - one tree over binned rows, the best leaf split first.
 *
 *   gain of a split = G_L² / (H_L + λ) + G_R² / (H_R + λ) − G² / (H + λ), value of a leaf = −η G / (H + λ)
 * with G, H the sums of first and second derivatives of its rows (Chen and Guestrin 2016, equations 5 to 7, without their
 * factor ½). Sums are taken over histograms of bins, a tile of columns a thread; the smaller child is summed and the larger
 * one is the difference to the parent. Rows of a leaf stay in ascending order and every sum has one order, so the bits do
 * not depend on the threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gbdt.h"

#define BLOCK 16384 /* rows that a thread takes at once */

typedef double pair __attribute__((vector_size(16)));   /* G, H */
typedef float short_pair __attribute__((vector_size(8), may_alias));

typedef struct split {
  double gain; /* −INFINITY: none */
  size_t column;
  unsigned bin;
  bool missing_left;
} split;

typedef struct leaf {
  size_t begin, end; /* of the grower's rows */
  uint32_t node;
  unsigned depth;
  pair sum;
  pair *histogram;   /* (n_all), or NULL where it is not split further */
  split best;
} leaf;

struct ev_grower {
  const ev_bins *b;
  ev_grow_options o;
  size_t n;
  uint32_t *rows, *moved;   /* (n_rows) */
  uint8_t *goes_left;       /* (n_rows) by place */
  uint8_t *in_tree;         /* (n_rows) by row: some rows are left out */
  short_pair *near;         /* (n_rows) gradients in the order of the rows of a leaf */
  const short_pair *gradients;
  const uint8_t *columns;
  leaf *leaves;             /* (n_leaves) */
  size_t n_leaves;
  pair **histograms;        /* (n_leaves) made when first wanted */
  size_t n_histograms;
  split *found;             /* (n_columns) */
  size_t *n_left;           /* (blocks + 1) */
};

void ev_grower_free(ev_grower *g) {
  if (g == NULL) return;
  for (size_t i = 0; g->histograms != NULL && i < g->o.n_leaves; i++) ev_free(g->histograms[i]);
  void *blocks[] = {g->rows, g->moved, g->goes_left, g->in_tree, g->near, g->leaves, g->histograms, g->found, g->n_left};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  ev_free(g);
}

ev_status ev_grower_new(ev_grower **out, const ev_bins *b, const ev_grow_options *o) {
  *out = NULL;
  ev_grower *g = ev_zalloc(1, sizeof *g);
  if (g == NULL) return EV_ENOMEM;
  size_t n = b->n_rows;
  g->b = b;
  g->o = *o;
  g->rows = ev_alloc(n, sizeof *g->rows);
  g->moved = ev_alloc(n, sizeof *g->moved);
  g->goes_left = ev_alloc(n, 1);
  g->in_tree = ev_alloc(n, 1);
  g->near = ev_alloc(n, sizeof *g->near);
  g->leaves = ev_alloc(o->n_leaves, sizeof *g->leaves);
  g->histograms = ev_zalloc(o->n_leaves, sizeof *g->histograms);
  g->found = ev_alloc(b->n_columns, sizeof *g->found);
  g->n_left = ev_alloc(n / BLOCK + 2, sizeof *g->n_left);
  if (g->rows == NULL || g->moved == NULL || g->goes_left == NULL || g->in_tree == NULL || g->near == NULL || g->leaves == NULL || g->histograms == NULL ||
      g->found == NULL || g->n_left == NULL) {
    ev_grower_free(g);
    return EV_ENOMEM;
  }
  *out = g;
  return EV_OK;
}

/* ---- Histograms ----------------------------------------------------------------------------------------*/
typedef struct summing {
  const ev_grower *g;
  const leaf *l;
} summing;

static void gather(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const summing *s = ctx;
  const uint32_t *rows = s->g->rows + s->l->begin;
  for (size_t i = begin; i < end; i++) s->g->near[i] = s->g->gradients[rows[i]];
}

static void sum_tile(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const summing *s = ctx;
  const ev_bins *b = s->g->b;
  const uint32_t *rows = s->g->rows + s->l->begin;
  size_t n = s->l->end - s->l->begin;
  for (size_t tile = begin; tile < end; tile++) {
    const uint8_t *bins = b->bin + tile * b->n_rows * EV_TILE;
    size_t first = tile * EV_TILE, n_columns = b->n_columns - first < EV_TILE ? b->n_columns - first : EV_TILE;
    pair *h[EV_TILE];
    for (size_t k = 0; k < n_columns; k++) h[k] = s->l->histogram + b->columns[first + k].offset;
    memset(h[0], 0, (size_t)(h[n_columns - 1] + b->columns[first + n_columns - 1].n_bins + 1 - h[0]) * sizeof *h[0]);
    if (n_columns == EV_TILE) {
      for (size_t i = 0; i < n; i++) {
        const uint8_t *row = bins + (size_t)rows[i] * EV_TILE;
        pair x = __builtin_convertvector(s->g->near[i], pair);
        h[0][row[0]] += x, h[1][row[1]] += x, h[2][row[2]] += x, h[3][row[3]] += x;
        h[4][row[4]] += x, h[5][row[5]] += x, h[6][row[6]] += x, h[7][row[7]] += x;
      }
    } else {
      for (size_t i = 0; i < n; i++) {
        const uint8_t *row = bins + (size_t)rows[i] * EV_TILE;
        pair x = __builtin_convertvector(s->g->near[i], pair);
        for (size_t k = 0; k < n_columns; k++) h[k][row[k]] += x;
      }
    }
  }
}

static ev_status take_histogram(ev_grower *g, leaf *l) {
  if (g->n_histograms == g->o.n_leaves) return ev_fail(EV_ELIMIT, "more histograms than leaves"); /* each leaf has one at most */
  pair **h = &g->histograms[g->n_histograms];
  if (*h == NULL) *h = ev_alloc(g->b->n_all, sizeof **h);
  if (*h == NULL) return EV_ENOMEM;
  l->histogram = *h;
  g->n_histograms++;
  return EV_OK;
}

static void fill_histogram(const ev_grower *g, const leaf *l) {
  summing s = {g, l};
  ev_parallel_for(l->end - l->begin, BLOCK, gather, &s);
  ev_parallel_for(g->b->n_tiles, 1, sum_tile, &s);
}

/* ---- Splits --------------------------------------------------------------------------------------------*/
typedef struct finding {
  const ev_grower *g;
  const leaf *l;
} finding;

static double quality(pair x, double l2) { return x[0] * x[0] / (x[1] + l2); }

/* Offers left against the rest of the leaf. */
static void offer(split *s, const ev_grower *g, const leaf *l, pair left, size_t column, unsigned bin, bool missing_left) {
  pair right = l->sum - left;
  if (left[1] < g->o.min_child_weight || right[1] < g->o.min_child_weight) return;
  double gain = quality(left, g->o.l2) + quality(right, g->o.l2) - quality(l->sum, g->o.l2);
  if (gain > s->gain) *s = (split){gain, column, bin, missing_left};
}

static void search_columns(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const finding *f = ctx;
  const ev_grower *g = f->g;
  for (size_t j = begin; j < end; j++) {
    const ev_bin_column *c = &g->b->columns[j];
    const pair *h = f->l->histogram + c->offset, missing = h[c->n_bins];
    split *s = &g->found[j];
    *s = (split){.gain = -INFINITY};
    if (g->columns != NULL && !g->columns[j]) continue;
    if (c->category) {
      for (unsigned bin = 0; bin < c->n_bins; bin++) offer(s, g, f->l, h[bin], j, bin, false);
      continue;
    }
    bool some = missing[1] > 1e-9 * f->l->sum[1]; /* a difference of histograms leaves a rest where there is nothing */
    pair left = {0, 0};
    for (unsigned bin = 0; bin < c->n_bins; bin++) {
      left += h[bin];
      if (some) { /* the last: all that have a value against all that have none */
        offer(s, g, f->l, left, j, bin, false);
        if (bin + 1 < c->n_bins) offer(s, g, f->l, left + missing, j, bin, true);
      } else if (bin + 1 < c->n_bins) { /* none in training: whatever may come goes with the many */
        offer(s, g, f->l, left, j, bin, left[1] > 0.5 * f->l->sum[1]);
      }
    }
  }
}

static void find_split(ev_grower *g, leaf *l) {
  finding f = {g, l};
  ev_parallel_for(g->b->n_columns, g->b->n_all > 4096 ? 8 : g->b->n_columns, search_columns, &f);
  l->best = (split){.gain = -INFINITY};
  for (size_t j = 0; j < g->b->n_columns; j++)
    if (g->found[j].gain > l->best.gain) l->best = g->found[j];
}

/* ---- Growth --------------------------------------------------------------------------------------------*/
static ev_status add_node(ev_forest *f, uint32_t *out) {
  if (f->n_nodes == f->cap_nodes) {
    size_t cap = f->cap_nodes == 0 ? 1024 : 2 * f->cap_nodes;
    ev_tree_node *p = ev_resize(f->nodes, cap, sizeof *p);
    if (p == NULL) return EV_ENOMEM;
    f->nodes = p;
    f->cap_nodes = cap;
  }
  if (f->n_nodes + 1 >= EV_NONE) return ev_fail(EV_ELIMIT, "more than 2^32 nodes");
  *out = (uint32_t)f->n_nodes;
  f->nodes[f->n_nodes++] = (ev_tree_node){.column = EV_NONE};
  return EV_OK;
}

void ev_forest_free(ev_forest *f) {
  ev_free(f->nodes);
  ev_free(f->roots);
  *f = (ev_forest){0};
}

static bool left_of(const ev_bins *b, const ev_tree_node *n, size_t row) {
  unsigned bin = ev_bins_at(b, n->column, row);
  if (n->flags & EV_NODE_EQUAL) return bin == n->bin;
  return bin == b->columns[n->column].n_bins ? (n->flags & EV_NODE_MISSING_LEFT) != 0 : bin <= n->bin;
}

typedef struct parting {
  ev_grower *g;
  const leaf *l;
  const ev_tree_node *node;
} parting;

static void mark(void *ctx, size_t begin, size_t end, int worker) { /* begin is a multiple of BLOCK */
  (void)worker;
  const parting *p = ctx;
  const uint32_t *rows = p->g->rows + p->l->begin;
  size_t n = 0;
  for (size_t i = begin; i < end; i++) n += p->g->goes_left[i] = left_of(p->g->b, p->node, rows[i]);
  p->g->n_left[begin / BLOCK + 1] = n;
}

static void move(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const parting *p = ctx;
  const uint32_t *rows = p->g->rows + p->l->begin;
  size_t block = begin / BLOCK, left = p->g->n_left[block], right = p->g->n_left[(p->l->end - p->l->begin - 1) / BLOCK + 1] + begin - left;
  for (size_t i = begin; i < end; i++) p->g->moved[p->g->goes_left[i] ? left++ : right++] = rows[i];
}

static void copy_back(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const parting *p = ctx;
  memcpy(p->g->rows + p->l->begin + begin, p->g->moved + begin, (end - begin) * sizeof *p->g->moved);
}

/* The leaf's rows, those that go left first, each side in order. Returns how many go left. */
static size_t part(ev_grower *g, const leaf *l, const ev_tree_node *node) {
  parting p = {g, l, node};
  size_t n = l->end - l->begin, blocks = (n - 1) / BLOCK + 1;
  ev_parallel_for(n, BLOCK, mark, &p);
  g->n_left[0] = 0;
  for (size_t i = 0; i < blocks; i++) g->n_left[i + 1] += g->n_left[i];
  ev_parallel_for(n, BLOCK, move, &p);
  ev_parallel_for(n, BLOCK, copy_back, &p);
  return g->n_left[blocks];
}

static ev_status split_leaf(ev_grower *g, ev_forest *f, size_t at) {
  leaf *l = &g->leaves[at];
  const split s = l->best;
  const ev_bin_column *c = &g->b->columns[s.column];
  const pair *h = l->histogram + c->offset;
  pair left_sum = {0, 0};
  if (c->category) left_sum = h[s.bin];
  for (unsigned bin = 0; bin <= s.bin && !c->category; bin++) left_sum += h[bin];
  if (!c->category && s.missing_left) left_sum += h[c->n_bins];
  uint32_t left = 0, right = 0;
  EV_TRY(add_node(f, &left));
  EV_TRY(add_node(f, &right));
  ev_tree_node *node = &f->nodes[l->node];
  *node = (ev_tree_node){.column = (uint32_t)s.column, .left = left, .right = right, .bin = s.bin,
                         .flags = c->category ? EV_NODE_EQUAL : s.missing_left ? EV_NODE_MISSING_LEFT : 0,
                         .threshold = c->category ? (float)s.bin : s.bin + 1 < c->n_bins ? c->cuts[s.bin] : INFINITY};
  size_t middle = l->begin + part(g, l, node);
  leaf *a = l, *b = &g->leaves[g->n_leaves++];
  *b = (leaf){.begin = middle, .end = l->end, .node = right, .depth = l->depth + 1, .sum = l->sum - left_sum, .best.gain = -INFINITY};
  *a = (leaf){.begin = l->begin, .end = middle, .node = left, .depth = l->depth + 1, .sum = left_sum, .histogram = l->histogram, .best.gain = -INFINITY};
  if (g->n_leaves == g->o.n_leaves || a->depth == g->o.max_depth) return EV_OK; /* nothing more comes of them */
  leaf *less = a, *more = b;
  if (a->end - a->begin > b->end - b->begin) less = b, more = a;
  pair *whole = a->histogram;
  a->histogram = b->histogram = NULL;
  EV_TRY(take_histogram(g, less));
  fill_histogram(g, less);
  more->histogram = whole;
  for (size_t i = 0; i < g->b->n_all; i++) whole[i] -= less->histogram[i];
  find_split(g, a);
  find_split(g, b);
  return EV_OK;
}

typedef struct adding {
  const ev_grower *g;
  const ev_forest *f;
  float *scores;
  uint32_t root;
} adding;

static void add_leaves(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const adding *a = ctx;
  for (size_t k = begin; k < end; k++) {
    const leaf *l = &a->g->leaves[k];
    float value = a->f->nodes[l->node].value;
    for (size_t i = l->begin; i < l->end; i++) a->scores[a->g->rows[i]] += value;
  }
}

static void add_others(void *ctx, size_t begin, size_t end, int worker) { /* rows that the tree was not grown on */
  (void)worker;
  const adding *a = ctx;
  for (size_t row = begin; row < end; row++) {
    if (a->g->in_tree[row]) continue;
    const ev_tree_node *n = &a->f->nodes[a->root];
    while (n->column != EV_NONE) n = &a->f->nodes[left_of(a->g->b, n, row) ? n->left : n->right];
    a->scores[row] += n->value;
  }
}

typedef struct totalling { /* G and H of all rows: by blocks, so that the order is one */
  const ev_grower *g;
  pair *sums;
} totalling;

static void total(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const totalling *t = ctx;
  pair sum = {0, 0};
  for (size_t i = begin; i < end; i++) sum += __builtin_convertvector(t->g->gradients[t->g->rows[i]], pair);
  t->sums[begin / BLOCK] = sum;
}

ev_status ev_grow(ev_grower *g, ev_forest *f, float *scores, const float *gradients, const uint32_t *rows, size_t n, const uint8_t *columns) {
  size_t n_rows = g->b->n_rows;
  if (rows == NULL) n = n_rows;
  if (n == 0) return EV_OK;
  if (rows != NULL) memcpy(g->rows, rows, n * sizeof *rows), memset(g->in_tree, 0, n_rows);
  for (size_t i = 0; i < n; i++) {
    if (rows == NULL) g->rows[i] = (uint32_t)i;
    else g->in_tree[rows[i]] = 1;
  }
  g->gradients = (const short_pair *)(const void *)gradients;
  g->columns = columns;
  g->n_histograms = 0;
  g->n_leaves = 1;
  leaf *root = &g->leaves[0];
  *root = (leaf){.end = n, .best.gain = -INFINITY};
  totalling t = {g, ev_alloc(n / BLOCK + 1, sizeof *t.sums)};
  if (t.sums == NULL) return EV_ENOMEM;
  ev_parallel_for(n, BLOCK, total, &t);
  root->sum = (pair){0, 0};
  for (size_t i = 0; i <= (n - 1) / BLOCK; i++) root->sum += t.sums[i];
  ev_free(t.sums);
  EV_TRY(add_node(f, &root->node));
  if (f->n_trees == f->cap_trees) {
    size_t cap = f->cap_trees == 0 ? 64 : 2 * f->cap_trees;
    uint32_t *p = ev_resize(f->roots, cap, sizeof *p);
    if (p == NULL) return EV_ENOMEM;
    f->roots = p;
    f->cap_trees = cap;
  }
  f->roots[f->n_trees++] = root->node;
  uint32_t root_node = root->node;
  if (g->o.n_leaves > 1) {
    EV_TRY(take_histogram(g, root));
    fill_histogram(g, root);
    find_split(g, root);
  }
  while (g->n_leaves < g->o.n_leaves) {
    size_t best = 0;
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    for (size_t i = 1; i < g->n_leaves; i++)
      if (g->leaves[i].best.gain > g->leaves[best].best.gain) best = i;
    if (!(g->leaves[best].best.gain > g->o.min_gain)) break;
    EV_TRY(split_leaf(g, f, best));
  }
  for (size_t i = 0; i < g->n_leaves; i++)
    f->nodes[g->leaves[i].node].value = (float)(-g->o.learning_rate * g->leaves[i].sum[0] / (g->leaves[i].sum[1] + g->o.l2));
  adding a = {g, f, scores, root_node};
  ev_parallel_for(g->n_leaves, 1, add_leaves, &a);
  if (rows != NULL) ev_parallel_for(n_rows, BLOCK, add_others, &a);
  return EV_OK;
}
