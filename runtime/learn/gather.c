/* gather.c - rows by their ids, and gradients added back to them.
 *
 * Backwards, many positions may name one row. Positions are sorted by id once (a radix sort, least digit first, stable),
 * then each row sums its own segment in order of position: no two threads touch one row, and the order of summation
 * does not depend on how many there are. A dense table gets the sums added in place; the optimiser, which updates only the
 * rows that a step touched, has them written side by side. */
#include <stdatomic.h>
#include <string.h>

#include "graph.h"

#define ALONE 262144 /* floats that the calling thread moves by itself */
#define SLICE 32768  /* floats a thread takes at a time otherwise */
#define AHEAD 8      /* rows */

/* Rows of a slice, for n rows of d floats. */
static size_t grain_of(size_t n, size_t d) {
  if (d <= 1) d = 1;
  return n <= ALONE / d ? n : d >= SLICE ? 1 : SLICE / d;
}

static inline void prefetch_row(const float *row, size_t d) {
  for (size_t j = 0; j < d; j += 16) __builtin_prefetch(row + j);
}

/* ---- Sorting positions by id -----------------------------------------------------------------------------
 * Every pass counts its digit in each block of positions, adds the counts up over digits and then blocks, and puts each block's
 * positions where they go. The first pass reads the ids themselves, and leaves those out that are none. */
#define DIGIT 11
#define SORT_BLOCKS 16
#define SORT_TOGETHER 65536 /* positions from which threads share the work */

typedef struct sort_pass {
  const uint32_t *keys, *positions; /* positions NULL: the first pass */
  uint32_t *keys_out, *positions_out;
  uint32_t (*count)[1 << DIGIT]; /* (blocks): how many of each digit, then where its next one goes */
  size_t n, blocks;
  unsigned shift, bits;
} sort_pass;

static void count_blocks(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sort_pass *p = ctx;
  uint32_t mask = (1u << p->bits) - 1;
  for (size_t b = begin; b < end; b++) {
    uint32_t *count = p->count[b];
    memset(count, 0, sizeof *count << p->bits);
    if (p->positions != NULL) for (size_t i = p->n * b / p->blocks, to = p->n * (b + 1) / p->blocks; i < to; i++) count[p->keys[i] >> p->shift & mask]++;
    else for (size_t i = p->n * b / p->blocks, to = p->n * (b + 1) / p->blocks; i < to; i++) count[p->keys[i] & mask] += p->keys[i] != EV_NONE;
  }
}

static void place_blocks(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sort_pass *p = ctx;
  uint32_t mask = (1u << p->bits) - 1;
  for (size_t b = begin; b < end; b++) {
    uint32_t *next = p->count[b];
    for (size_t i = p->n * b / p->blocks, to = p->n * (b + 1) / p->blocks; i < to; i++) {
      if (p->positions == NULL && p->keys[i] == EV_NONE) continue;
      uint32_t at = next[p->keys[i] >> p->shift & mask]++;
      p->keys_out[at] = p->keys[i];
      p->positions_out[at] = p->positions != NULL ? p->positions[i] : (uint32_t)i;
    }
  }
}

size_t ev_rows_sort(uint32_t *order, uint32_t *starts, uint32_t *scratch, const uint32_t *ids, size_t n) {
  uint32_t count[SORT_BLOCKS][1 << DIGIT], most = 0;
  size_t m = 0, unique = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t id = ids[i] + 1; /* 0: none */
    m += id != 0;
    most = id > most ? id : most;
  }
  starts[0] = 0;
  if (m == 0) return 0;
  /* Digits of equal width, as wide as the table of counts is worth clearing for so few. */
  unsigned all = most <= 2 ? 1 : 32 - (unsigned)__builtin_clz(most - 1), widest = m < 2000 ? 8 : DIGIT;
  unsigned passes = (all + widest - 1) / widest, bits = (all + passes - 1) / passes;
  size_t blocks = n < SORT_TOGETHER ? 1 : (size_t)ev_threads() < SORT_BLOCKS ? (size_t)ev_threads() : SORT_BLOCKS; /* one result, however cut */
  bool odd = passes % 2 == 1;
  uint32_t *keys[2] = {scratch, scratch + n}, *positions[2] = {odd ? order : starts, odd ? starts : order}; /* the last pass writes to order */
  for (unsigned k = 0; k < passes; k++) {
    sort_pass p = {ids, NULL, keys[k % 2], positions[k % 2], count, n, blocks, k * bits, bits};
    if (k > 0) p.keys = keys[(k + 1) % 2], p.positions = positions[(k + 1) % 2], p.n = m;
    ev_parallel_for(blocks, 1, count_blocks, &p);
    uint32_t before = 0;
    for (size_t digit = 0; digit < (size_t)1 << bits; digit++)
      for (size_t b = 0; b < blocks; b++) {
        uint32_t here = count[b][digit];
        count[b][digit] = before;
        before += here;
      }
    ev_parallel_for(blocks, 1, place_blocks, &p);
  }
  const uint32_t *sorted = keys[(passes - 1) % 2];
  starts[0] = 0;
  for (size_t i = 0; i + 1 < m; i++) { /* no branch: where a segment ends is written at each of its positions */
    starts[unique + 1] = (uint32_t)i + 1;
    unique += sorted[i + 1] != sorted[i];
  }
  starts[unique + 1] = (uint32_t)m;
  return unique + 1;
}

/* ---- Sums of segments --------------------------------------------------------------------------------------*/
typedef struct sum_job {
  float *out;
  const uint32_t *ids, *order, *starts;
  const ev_rows_part *parts;
  size_t n_parts, n_unique, d;
} sum_job;

static inline const float *row_at(const sum_job *s, uint32_t position) {
  size_t p = position, k = 0;
  while (p >= s->parts[k].n) p -= s->parts[k++].n;
  return s->parts[k].rows + p * s->d;
}

/* The rows whose segments begin in [begin, end): slices of positions are of even work where slices of rows are not. */
static void sum_segments(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const sum_job *s = ctx;
  size_t u = 0, d = s->d, all = s->starts[s->n_unique];
  for (size_t size = s->n_unique; size > 0;) { /* the first segment that begins at `begin` or after it */
    size_t half = size / 2;
    if (s->starts[u + half] < begin) u += half + 1, size -= half + 1;
    else size = half;
  }
  for (; u < s->n_unique && s->starts[u] < end; u++) {
    size_t from = s->starts[u], to = s->starts[u + 1];
    float *out = s->out + (s->ids != NULL ? s->ids[s->order[from]] : u) * d;
    if (d == 1) {
      float sum = *row_at(s, s->order[from]);
      for (size_t i = from + 1; i < to; i++) sum += *row_at(s, s->order[i]);
      *out = s->ids != NULL ? *out + sum : sum;
      continue;
    }
    for (size_t i = from; i < to; i++) {
      if (i + AHEAD < all) prefetch_row(row_at(s, s->order[i + AHEAD]), d);
      if (i == from && s->ids == NULL) memcpy(out, row_at(s, s->order[i]), d * sizeof *out);
      else ev_axpy(out, row_at(s, s->order[i]), 1, d);
    }
  }
}

void ev_rows_sum(float *out, const uint32_t *ids, const ev_rows_part *parts, size_t n_parts, const uint32_t *order, const uint32_t *starts,
    size_t n_unique, size_t d) {
  if (n_unique == 0 || d == 0) return;
  sum_job s = {out, ids, order, starts, parts, n_parts, n_unique, d};
  ev_parallel_for(starts[n_unique], grain_of(starts[n_unique], d), sum_segments, &s);
}

/* ---- gather ------------------------------------------------------------------------------------------------*/
typedef struct gather_job {
  float *out;
  const float *table;
  const uint32_t *ids;
  size_t n, rows, d;
  atomic_bool wrong;
} gather_job;

static void gather_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  gather_job *g = ctx;
  size_t d = g->d;
  bool wrong = false;
  if (d == 1) {
    for (size_t i = begin; i < end; i++) {
      uint32_t id = g->ids[i];
      wrong |= id >= g->rows && id != EV_NONE;
      g->out[i] = id < g->rows ? g->table[id] : 0;
    }
  } else {
    for (size_t i = begin; i < end; i++) {
      if (i + AHEAD < end && g->ids[i + AHEAD] < g->rows) prefetch_row(g->table + g->ids[i + AHEAD] * d, d);
      uint32_t id = g->ids[i];
      wrong |= id >= g->rows && id != EV_NONE;
      if (id < g->rows) memcpy(g->out + i * d, g->table + id * d, d * sizeof *g->out);
      else memset(g->out + i * d, 0, d * sizeof *g->out);
    }
  }
  if (wrong) atomic_store(&g->wrong, true);
}

/* The first id that is none of `rows`. */
static ev_status wrong_id(const ev_call *c, const uint32_t *ids, size_t n, size_t rows, const char *of) {
  const char *name = c->in_name[0] != NULL && *c->in_name[0] != 0 ? c->in_name[0] : "its first input";
  size_t i = 0;
  while (i + 1 < n && (ids[i] < rows || ids[i] == EV_NONE)) i++;
  return ev_fail(EV_EINVAL, "%s: id %u, but '%s' has %zu %s", c->node->op->name, ids[i], name, rows, of);
}

static ev_status gather_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_kind(g, n, 0, EV_NODE_OP));
  EV_TRY(ev_op_kind(g, n, 1, EV_NODE_IDS));
  const ev_shape *table = &ev_op_in(g, n, 0)->shape, *ids = &ev_op_in(g, n, 1)->shape;
  if (table->rank != 1 && table->rank != 2) return ev_op_wrong(g, n, "rows are taken from one or two dimensions, not %u", table->rank);
  if (ids->rank + table->rank - 1 > EV_TENSOR_RANK)
    return ev_op_wrong(g, n, "rows for ids of %u dimensions would have %u, but %d is the most", ids->rank, ids->rank + 1, EV_TENSOR_RANK);
  n->shape = *ids;
  if (table->rank == 2) n->shape.dim[n->shape.rank++] = table->dim[1];
  return EV_OK;
}

static ev_status gather_forward(ev_call *c) {
  gather_job g = {c->out, c->in[0], c->ids[1], ev_shape_size(&c->in_shape[1]), c->in_shape[0].dim[0],
      c->in_shape[0].rank == 2 ? c->in_shape[0].dim[1] : 1, false};
  ev_parallel_for(g.n, grain_of(g.n, g.d), gather_rows, &g);
  return atomic_load(&g.wrong) ? wrong_id(c, g.ids, g.n, g.rows, "rows") : EV_OK;
}

static void fill_zeros(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  memset((float *)ctx + begin, 0, (end - begin) * sizeof(float));
}

static void zero(float *out, size_t n) { ev_parallel_for(n, n <= 2 * ALONE ? n : 2 * SLICE, fill_zeros, out); }

static ev_status gather_backward(ev_call *c) {
  size_t n = ev_shape_size(&c->in_shape[1]), d = c->in_shape[0].rank == 2 ? c->in_shape[0].dim[1] : 1;
  if (c->grad_in[0] == NULL) return EV_OK;
  if (!c->add[0]) zero(c->grad_in[0], ev_shape_size(&c->in_shape[0]));
  if (n == 0) return EV_OK;
  uint32_t *order = (void *)c->scratch, *starts = order + n, *scratch = starts + n + 1;
  size_t unique = ev_rows_sort(order, starts, scratch, c->ids[1], n);
  ev_rows_sum(c->grad_in[0], c->ids[1], &(ev_rows_part){c->grad, n}, 1, order, starts, unique, d);
  return EV_OK;
}

static size_t gather_scratch(const ev_graph *g, const ev_node *n) { return 4 * ev_shape_size(&ev_op_in(g, n, 1)->shape) + 1; }

/* ---- pick: out[i] = x[i, ids[i]] -----------------------------------------------------------------------------*/
static ev_status pick_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_kind(g, n, 0, EV_NODE_OP));
  EV_TRY(ev_op_kind(g, n, 1, EV_NODE_IDS));
  const ev_shape *x = &ev_op_in(g, n, 0)->shape, *ids = &ev_op_in(g, n, 1)->shape;
  if (x->rank != 2 || ids->rank != 1) return ev_op_wrong(g, n, "x has two dimensions and there is one id for each of its rows");
  if (x->dim[0] != ids->dim[0] || x->axis != ids->axis)
    return ev_op_wrong(g, n, "%zu rows, but %zu ids%s", x->dim[0], ids->dim[0], x->dim[0] == ids->dim[0] ? " along another axis" : "");
  n->shape = *ids;
  return EV_OK;
}

static ev_status pick_forward(ev_call *c) {
  const uint32_t *ids = c->ids[1];
  size_t n = c->shape.dim[0], m = c->in_shape[0].dim[1];
  bool wrong = false;
  for (size_t i = 0; i < n; i++) {
    wrong |= ids[i] >= m && ids[i] != EV_NONE;
    c->out[i] = ids[i] < m ? c->in[0][i * m + ids[i]] : 0;
  }
  return wrong ? wrong_id(c, ids, n, m, "columns") : EV_OK;
}

static ev_status pick_backward(ev_call *c) {
  const uint32_t *ids = c->ids[1];
  size_t n = c->shape.dim[0], m = c->in_shape[0].dim[1];
  if (c->grad_in[0] == NULL) return EV_OK;
  if (!c->add[0]) zero(c->grad_in[0], n * m);
  for (size_t i = 0; i < n; i++)
    if (ids[i] != EV_NONE) c->grad_in[0][i * m + ids[i]] += c->grad[i];
  return EV_OK;
}

const ev_op ev_ops_gather[] = {
    {.name = "gather", .min_in = 2, .max_in = 2, .infer = gather_infer, .forward = gather_forward, .backward = gather_backward, .scratch = gather_scratch},
    {.name = "pick", .min_in = 2, .max_in = 2, .infer = pick_infer, .forward = pick_forward, .backward = pick_backward},
    {.name = NULL},
};
