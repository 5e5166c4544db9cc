/* scan.c - the k best rows for each query: product, filter and selection in one pass over the rows.
 *
 * Rows are taken in tiles of TILE. Many queries at once: a tile (decoded to f32 where it is f16 or bf16) is multiplied
 * with a group of queries by BLAS, or by the form's own product for i8, and its scores are masked and offered to the heaps
 * while they are in cache; the obvious way, the whole product and then a scan, writes and reads m · n floats of memory. Few
 * queries: each one's products with a tile go to a buffer and are offered from there; the first query brings the tile into
 * cache for the others. A single query runs at the speed of memory.
 *
 * Same bits for any thread count: which rows share a tile depends only on `allowed` (chunks of CHUNK rows begin anew), which
 * queries share a group only on m, and the order of ids and scores is total, so it does not matter how heaps are merged.
 * One query's scores differ between a batch and alone by rounding only, as BLAS adds in another order. */
#include <cblas.h>
#include <math.h>
#include <stdatomic.h>

#include "kernels.h"

#define TILE 512    /* rows scored at once */
#define CHUNK 8192  /* rows whose allowed ones are gathered into tiles together */
#define GROUP 512   /* queries that share a tile: less, and BLAS spends its time packing (64: 1.5 times the bare product, 512: 1.05) */
#define MANY 24     /* queries that make a product worth its packing */

typedef struct scan {
  const ev_scan *s;
  const ev_form_kernels *form;
  const float *q;       /* (m, d) */
  const int8_t *codes;  /* (m, code_stride) queries of i8 rows, zero padded, or NULL */
  size_t code_stride;
  const float *weights; /* (m) their scales, or NULL */
  size_t m, k, groups, group, ranges, range; /* queries a group, rows a range */
  bool many;            /* products of a group of queries with a tile */
  uint32_t *ids;  /* (m, k): heaps of the first range, and the results */
  float *scores;
  uint32_t *more_ids; /* (ranges − 1, m, k): of the others */
  float *more_scores;
  size_t *used;       /* (ranges, m) */
  uint64_t *next;     /* (ranges, m) the first seen row not yet passed, or NULL */
  atomic_int failed;  /* ev_status */
} scan;

/* What one worker needs for a part: a group of queries against a range of rows. */
typedef struct part {
  scan *c;
  size_t begin, end, range; /* queries; which range */
  uint32_t *list;           /* (CHUNK) allowed rows of a chunk */
  float *tile;              /* (group, TILE) or (1, TILE) scores */
  float *rows;              /* (TILE, d) gathered, decoded or packed, where a product needs it */
  float *scales, *bias;     /* (TILE) gathered */
} part;

static size_t list_allowed(uint32_t *list, const uint64_t *allowed, size_t begin, size_t end) {
  size_t n = 0;
  for (size_t w = begin / 64; w * 64 < end; w++)
    for (uint64_t bits = allowed[w]; bits != 0; bits &= bits - 1) {
      size_t row = w * 64 + (size_t)__builtin_ctzll(bits);
      if (row < end) list[n++] = (uint32_t)row;
    }
  return n;
}

/* The scores of seen rows become −inf. */
static void mask_seen(scan *c, size_t query, uint64_t *next, float *scores, size_t n, const uint32_t *list, uint32_t first) {
  const uint32_t *seen = c->s->seen;
  uint64_t i = *next, end = c->s->seen_ptr[query + 1];
  uint32_t last = list != NULL ? list[n - 1] : first + (uint32_t)(n - 1);
  for (size_t at = 0; i < end && seen[i] <= last; i++) {
    if (list == NULL) {
      if (seen[i] >= first) scores[seen[i] - first] = -INFINITY;
      continue;
    }
    for (size_t high = n; at < high;) { /* at: the first of the list not below seen[i] */
      size_t middle = (at + high) / 2;
      if (list[middle] < seen[i]) at = middle + 1;
      else high = middle;
    }
    if (list[at] == seen[i]) scores[at] = -INFINITY;
  }
  *next = i;
}

static void select_from(part *p, size_t query, float *scores, size_t n, const uint32_t *list, uint32_t first, const float *scales, const float *bias) {
  scan *c = p->c;
  float weight = c->weights != NULL ? c->weights[query] : 1;
  size_t place = p->range * c->m + query;
  if (scales != NULL || bias != NULL || weight != 1) ev_kernels_now()->affine(scores, weight, scales, bias, n);
  if (c->next != NULL) mask_seen(c, query, &c->next[place], scores, n, list, first);
  uint32_t *ids = p->range == 0 ? c->ids + query * c->k : c->more_ids + (place - c->m) * c->k;
  float *best = p->range == 0 ? c->scores + query * c->k : c->more_scores + (place - c->m) * c->k;
  ev_topk_offer_at(ids, best, &c->used[place], c->k, scores, n, list, first);
}

/* n rows from `first` on, or those of the list, against all queries of the part. */
static void score_tile(part *p, const uint32_t *list, size_t first, size_t n) {
  scan *c = p->c;
  const ev_scan *s = c->s;
  const char *rows = (const char *)s->rows + first * s->stride;
  const float *scales = s->scales != NULL ? s->scales + first : NULL, *bias = s->bias != NULL ? s->bias + first : NULL;
  if (list != NULL) {
    for (size_t i = 0; i < n && s->scales != NULL; i++) p->scales[i] = s->scales[list[i]];
    for (size_t i = 0; i < n && s->bias != NULL; i++) p->bias[i] = s->bias[list[i]];
    if (s->scales != NULL) scales = p->scales;
    if (s->bias != NULL) bias = p->bias;
  }
  if (c->many) {
    size_t m = p->end - p->begin;
    if (s->form == EV_FORM_I8) {
      c->form->pack(p->rows, rows, list, s->stride, n, s->d);
      c->form->products(p->tile, c->codes + p->begin * c->code_stride, c->code_stride, m, p->rows, n, s->d);
    } else {
      const float *x = (const float *)(const void *)rows;
      size_t step = s->stride / sizeof *x;
      if (list != NULL || s->form != EV_FORM_F32) {
        for (size_t i = 0; i < n; i++) c->form->decode(p->rows + i * s->d, rows + (list != NULL ? list[i] : i) * s->stride, 1, s->d);
        x = p->rows, step = s->d;
      }
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)s->d, 1, c->q + p->begin * s->d, s->d > 0 ? (int)s->d : 1, x,
                  step > 0 ? (int)step : 1, 0, p->tile, (int)n);
    }
    for (size_t i = 0; i < m; i++) select_from(p, p->begin + i, p->tile + i * n, n, list, (uint32_t)first, scales, bias);
    return;
  }
  for (size_t i = p->begin; i < p->end; i++) {
    const void *q = c->codes != NULL ? (const void *)(c->codes + i * c->code_stride) : c->q + i * s->d;
    if (list != NULL) c->form->dots_at(p->tile, q, s->rows, list, s->stride, n, s->d);
    else c->form->dots(p->tile, q, rows, s->stride, n, s->d);
    select_from(p, i, p->tile, n, list, (uint32_t)first, scales, bias);
  }
}

static void scan_parts(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  scan *c = ctx;
  const ev_scan *s = c->s;
  bool gather = c->many && (s->form != EV_FORM_F32 || s->allowed != NULL);
  size_t tile = TILE * (c->many ? c->group : 1), listed = s->allowed != NULL ? CHUNK : 0, columns = s->allowed != NULL ? TILE : 0;
  float *room = ev_alloc(tile + listed + 2 * columns + (gather ? TILE * s->d : 0), sizeof *room);
  if (room == NULL) {
    atomic_store(&c->failed, EV_ENOMEM);
    return;
  }
  part p = {.c = c, .tile = room, .list = (uint32_t *)(void *)(room + tile), .scales = room + tile + listed};
  p.bias = p.scales + columns;
  if (gather) p.rows = p.bias + columns;
  for (size_t at = begin; at < end; at++) {
    p.range = at % c->ranges;
    p.begin = at / c->ranges * c->group;
    p.end = c->m - p.begin < c->group ? c->m : p.begin + c->group;
    size_t row = p.range * c->range, last = s->n - row < c->range ? s->n : row + c->range;
    for (; row < last; row += CHUNK) {
      if (ev_interrupted()) atomic_store(&c->failed, EV_EINTR);
      if (atomic_load(&c->failed) != EV_OK) break;
      size_t n = last - row < CHUNK ? last - row : CHUNK;
      size_t chosen = s->allowed != NULL ? list_allowed(p.list, s->allowed, row, row + n) : n;
      const uint32_t *list = chosen < n ? p.list : NULL;
      for (size_t i = 0; i < chosen; i += TILE) score_tile(&p, list != NULL ? list + i : NULL, list != NULL ? 0 : row + i, chosen - i < TILE ? chosen - i : TILE);
    }
  }
  ev_free(room);
}

static void finish_queries(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  scan *c = ctx;
  for (size_t i = begin; i < end; i++) {
    for (size_t r = 1; r < c->ranges; r++) {
      size_t from = ((r - 1) * c->m + i) * c->k;
      ev_topk_merge(c->ids + i * c->k, c->scores + i * c->k, &c->used[i], c->k, c->more_ids + from, c->more_scores + from, c->used[r * c->m + i]);
    }
    ev_topk_finish(c->ids + i * c->k, c->scores + i * c->k, c->used[i], c->k);
  }
}

/* Groups by m alone; rows are cut only where there are fewer groups than threads: every range has heaps to fill. */
static void cut(scan *c) {
  size_t threads = (size_t)ev_threads();
  c->groups = (c->m + GROUP - 1) / GROUP;
  c->group = (c->m + c->groups - 1) / c->groups;
  c->groups = (c->m + c->group - 1) / c->group;
  size_t chunks = (c->s->n + CHUNK - 1) / CHUNK;
  c->ranges = c->groups >= threads ? 1 : (2 * threads + c->groups - 1) / c->groups;
  if (c->ranges > chunks) c->ranges = chunks > 0 ? chunks : 1;
  c->range = (chunks + c->ranges - 1) / c->ranges * CHUNK;
  if (c->range > 0) c->ranges = (chunks * CHUNK + c->range - 1) / c->range;
}

ev_status ev_scan_topk(uint32_t *ids, float *scores, const float *q, size_t m, size_t k, const ev_scan *s) {
  if (m == 0 || k == 0) return EV_OK;
  scan c = {.s = s, .form = ev_kernels_now()->forms[s->form], .q = q, .m = m, .k = k, .ids = ids, .scores = scores};
  atomic_init(&c.failed, EV_OK);
  cut(&c);
  c.many = m >= MANY && (s->form != EV_FORM_I8 || c.form->products != NULL);
  int8_t *codes = NULL;
  float *weights = NULL;
  ev_status status = EV_ENOMEM;
  if (s->form == EV_FORM_I8) {
    c.code_stride = (s->d + 63) / 64 * 64;
    if ((codes = ev_zalloc(m, c.code_stride)) == NULL || (weights = ev_alloc(m, sizeof *weights)) == NULL) goto done;
    for (size_t i = 0; i < m; i++) c.form->encode(codes + i * c.code_stride, &weights[i], q + i * s->d, s->d);
    c.codes = codes, c.weights = weights;
  }
  if ((c.used = ev_zalloc(c.ranges, m * sizeof *c.used)) == NULL) goto done;
  if (c.ranges > 1 && ((c.more_ids = ev_alloc((c.ranges - 1) * m, k * sizeof *ids)) == NULL || (c.more_scores = ev_alloc((c.ranges - 1) * m, k * sizeof *scores)) == NULL))
    goto done;
  if (s->seen_ptr != NULL) {
    if ((c.next = ev_alloc(c.ranges, m * sizeof *c.next)) == NULL) goto done;
    for (size_t r = 0; r < c.ranges; r++)
      for (size_t i = 0; i < m; i++) {
        uint64_t low = s->seen_ptr[i], high = s->seen_ptr[i + 1];
        while (low < high) { /* the first not below the range */
          uint64_t middle = (low + high) / 2;
          if (s->seen[middle] < r * c.range) low = middle + 1;
          else high = middle;
        }
        c.next[r * m + i] = low;
      }
  }
  ev_parallel_for(c.groups * c.ranges, 1, scan_parts, &c);
  status = (ev_status)atomic_load(&c.failed);
  if (status == EV_OK) ev_parallel_for(m, 16, finish_queries, &c);
done:;
  void *blocks[] = {codes, weights, c.used, c.more_ids, c.more_scores, c.next};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  if (status == EV_ENOMEM) return ev_fail(status, "out of memory: a scan of %zu rows for %zu queries", s->n, m);
  if (status == EV_EINTR) return ev_fail(status, "interrupted");
  return status;
}

ev_status ev_score_topk(uint32_t *ids, float *scores, const float *q, const float *x, const uint64_t *seen_ptr, const uint32_t *seen,
                        size_t m, size_t n, size_t d, size_t k) {
  ev_scan s = {.rows = x, .form = EV_FORM_F32, .stride = d * sizeof *x, .n = n, .d = d, .seen_ptr = seen_ptr, .seen = seen};
  return ev_scan_topk(ids, scores, q, m, k, &s);
}
