/* hnsw.c - a hierarchical navigable small world graph: room and search. hnsw_build.c changes it, hnsw_file.c keeps it.
 *
 * Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using hierarchical navigable small world
 * graphs (2018). A search climbs down the levels to the ground and there follows the links of the best rows it knows, until
 * the `effort` best have no better neighbour.
 *
 * What makes it quick is what it does not read. Codes (128 bytes for 128 dimensions in i8) and lists (128 bytes) lie on huge
 * pages, a list has no length to be read, the rows of a list are compared together after all their codes were asked for, and
 * the list of a row is asked for when it enters the pool. The pool is a sorted array: it is result and queue in one.
 * On a million clustered vectors of 128 dimensions, l2, one thread, queries a second at recall@10 of 0.93, 0.95 and 0.99:
 * 73, 64 and 32 thousand; hnswlib 0.6.2 with the same links, in the same minutes: 33, 30 and 15 thousand. The graph over i8
 * codes is as good as one over f32 (recall 0.990 and 0.991 at effort 14 on 100,000).
 *
 * With a filter, rows that may not be found lead on but take no place; the search ends when the pool is full of rows that
 * may. It gives up where a plain scan would have been the better way. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "hnsw.h"

/* ---- Life -----------------------------------------------------------------------------------------------*/
static ev_status hnsw_check(const ev_index_options *o) {
  if (o->n_links < 2 || o->n_links > 512) return ev_fail(EV_EINVAL, "index: n_links %u is not in 2 … 512", o->n_links);
  if (o->effort_build < 1 || o->effort_build > 65536) return ev_fail(EV_EINVAL, "index: effort_build %u is not in 1 … 65536", o->effort_build);
  if (o->max_rows > EV_HNSW_EXPANDED) return ev_fail(EV_EINVAL, "index: max_rows %zu is beyond 2^31, the most of a graph", o->max_rows);
  return EV_OK;
}

static void scratch_free(ev_hnsw_scratch *t) {
  if (t == NULL) return;
  ev_free(t->visited);
  ev_free(t->touched);
  ev_free(t->pool);
  ev_free(t->heap);
  ev_free(t->equal);
  ev_free(t->ids);
  ev_free(t->ahead);
  ev_free(t->scores);
  ev_free(t->query);
  ev_free(t);
}

static void hnsw_close(ev_index *x) {
  ev_hnsw *g = x->state;
  x->state = NULL;
  if (g == NULL) return;
  ev_region_close(&g->ground);
  ev_region_close(&g->upper);
  ev_region_close(&g->upper_at);
  ev_region_close(&g->level);
  ev_region_close(&g->linked);
  ev_region_close(&g->inverse);
  for (size_t i = 0; i < EV_HNSW_SLOTS; i++) scratch_free(atomic_load(&g->idle[i]));
  ev_free(g->keys);
  ev_free(g->groups);
  ev_free(g);
}

ev_status ev_hnsw_open(ev_index *x) {
  ev_hnsw *g = ev_zalloc(1, sizeof *g);
  if (g == NULL) return EV_ENOMEM;
  size_t rows = x->o.max_rows;
  x->state = g;
  g->m = x->o.n_links;
  g->m0 = 2 * g->m;
  g->ef_build = x->o.effort_build;
  g->room = g->m0 + EV_HNSW_BATCH > g->ef_build ? g->m0 + EV_HNSW_BATCH : g->ef_build;
  atomic_init(&g->entry, EV_NONE);
  ev_status status = ev_region_open(&g->ground, rows * g->m0 * sizeof(ev_link));
  if (status == EV_OK) status = ev_region_open(&g->upper, rows * g->m * sizeof(ev_link));
  if (status == EV_OK) status = ev_region_open(&g->upper_at, rows * sizeof(uint32_t));
  if (status == EV_OK) status = ev_region_open(&g->level, rows);
  if (status == EV_OK) status = ev_region_open(&g->linked, (rows + 63) / 64 * sizeof(uint64_t));
  if (status == EV_OK && x->metric == EV_DOT) status = ev_region_open(&g->inverse, rows * sizeof(float));
  if (status != EV_OK) hnsw_close(x);
  return status;
}

/* ---- Scratch --------------------------------------------------------------------------------------------*/


static ev_hnsw_scratch *scratch_new(const ev_index *x, const ev_hnsw *g) {
  ev_hnsw_scratch *t = ev_zalloc(1, sizeof *t);
  if (t == NULL) return NULL;
  t->touched = ev_alloc(EV_HNSW_TOUCHED, sizeof *t->touched);
  t->equal = ev_alloc(g->m0, sizeof *t->equal);
  t->ids = ev_alloc(g->room, sizeof *t->ids);
  t->ahead = ev_alloc(g->room, sizeof *t->ahead);
  t->scores = ev_alloc(g->room, sizeof *t->scores);
  t->query = ev_zalloc(x->d + 64, sizeof *t->query);
  if (t->touched != NULL && t->equal != NULL && t->ids != NULL && t->ahead != NULL && t->scores != NULL && t->query != NULL) return t;
  scratch_free(t);
  return NULL;
}

ev_hnsw_scratch *ev_hnsw_scratch_take(const ev_index *x, ev_hnsw *g, size_t n_rows, size_t pool_room) {
  ev_hnsw_scratch *t = NULL;
  size_t n_words = (n_rows + 63) / 64;
  for (size_t i = 0; i < EV_HNSW_SLOTS && t == NULL; i++)
    if (atomic_load_explicit(&g->idle[i], memory_order_relaxed) != NULL) t = atomic_exchange_explicit(&g->idle[i], NULL, memory_order_acq_rel);
  if (t == NULL && (t = scratch_new(x, g)) == NULL) return NULL;
  if (t->n_words < n_words) {
    uint64_t *visited = ev_zalloc(n_words + n_words / 4, sizeof *visited);
    if (visited == NULL) goto fail;
    ev_free(t->visited);
    t->visited = visited;
    t->n_words = n_words + n_words / 4;
  }
  if (t->pool_room < pool_room) {
    ev_found *pool = ev_alloc(pool_room, sizeof *pool);
    if (pool == NULL) goto fail;
    ev_free(t->pool);
    t->pool = pool;
    t->pool_room = pool_room;
  }
  return t;
fail:
  ev_hnsw_scratch_give(g, t);
  return NULL;
}

void ev_hnsw_scratch_give(ev_hnsw *g, ev_hnsw_scratch *t) {
  if (t == NULL) return;
  ev_hnsw_forget(t);
  for (size_t i = 0; i < EV_HNSW_SLOTS; i++) {
    ev_hnsw_scratch *none = NULL;
    if (atomic_compare_exchange_strong_explicit(&g->idle[i], &none, t, memory_order_acq_rel, memory_order_relaxed)) return;
  }
  scratch_free(t);
}

void ev_hnsw_forget(ev_hnsw_scratch *t) {
  if (t->n_touched >= EV_HNSW_TOUCHED) memset(t->visited, 0, t->n_words * sizeof *t->visited);
  else
    for (size_t i = 0; i < t->n_touched; i++) t->visited[t->touched[i] / 64] = 0;
  t->n_touched = 0;
}

/* ---- Comparing ------------------------------------------------------------------------------------------*/
static inline void prefetch_row(const ev_index *x, uint32_t row) {
  const char *code = x->codes.base + row * x->stride;
  for (size_t i = 0; i < x->stride && i < 512; i += 64) __builtin_prefetch(code + i); /* the processor itself goes on from there */
  if (x->weight.base != NULL) __builtin_prefetch(ev_floats(&x->weight) + row);
  if (x->bias.base != NULL) __builtin_prefetch(ev_floats(&x->bias) + row);
}

void ev_hnsw_scores(float *out, const ev_index *x, const ev_hnsw_side *q, const uint32_t *rows, size_t n) {
  const float *weight = ev_floats(&x->weight), *bias = ev_floats(&x->bias);
  ev_dots_at(out, q->code, x->codes.base, rows, x->form, x->stride, n, x->d);
  if (weight != NULL)
    for (size_t i = 0; i < n; i++) out[i] *= q->weight * weight[rows[i]];
  else
    for (size_t i = 0; i < n; i++) out[i] *= q->weight;
  if (bias != NULL)
    for (size_t i = 0; i < n; i++) out[i] += bias[rows[i]] + q->plus;
  if (q->by != NULL)
    for (size_t i = 0; i < n; i++) out[i] *= q->by[rows[i]];
}

/* A pool full of equals, copies of one vector mostly, would see nothing else and stop: so it has few of them, drawn by lot,
 * and among many the same few are not always drawn. They stand before `end`. */
size_t ev_hnsw_offer_equal(ev_found *pool, size_t *n, size_t room, float score, uint32_t row, size_t end, const ev_hnsw_side *q) {
  size_t first = end;
  while (first > 0 && pool[first - 1].score == score) first--;
  float lot = ev_hnsw_lot(q->lot, row);
  size_t at = end;
  while (at > first && ev_hnsw_lot(q->lot, pool[at - 1].row & ~EV_HNSW_EXPANDED) > lot) at--;
  if (end - first >= q->n_equal) {
    if (at == end) return room;
    memmove(pool + at + 1, pool + at, (end - 1 - at) * sizeof *pool);
  } else {
    if (*n < room) ++*n;
    memmove(pool + at + 1, pool + at, (*n - at - 1) * sizeof *pool);
  }
  pool[at] = (ev_found){score, row};
  return at;
}

/* A list's rows that are in the graph and were not visited before, into ids: they are now, and on their way into the cache. About one
 * in four is, in no order that could be guessed: so there is no branch for it. */
static inline size_t fresh(const ev_index *x, const ev_hnsw *g, ev_hnsw_scratch *t, const ev_link *list, size_t most, size_t n_rows, uint32_t *ids) {
  size_t n = 0;
  for (size_t i = 0; i < most; i++) {
    uint32_t row = ev_hnsw_link(list, i) - 1;
    if (row >= n_rows) break; /* the list's end, or damage */
    uint64_t *word = &t->visited[row / 64], is_new = (~*word >> row % 64 & 1) & (uint64_t)ev_hnsw_linked(g, row);
    *word |= is_new << row % 64;
    ids[n] = row;
    n += is_new;
  }
  for (size_t i = 0; i < n; i++) {
    prefetch_row(x, ids[i]);
    if (t->n_touched < EV_HNSW_TOUCHED) t->touched[t->n_touched++] = ids[i];
  }
  return n;
}

static inline void prefetch_list(const ev_hnsw *g, uint32_t row) {
  const char *list = g->ground.base + row * g->m0 * sizeof(ev_link);
  for (size_t i = 0; i < g->m0 * sizeof(ev_link) && i < 128; i += 64) __builtin_prefetch(list + i);
}

ev_found ev_hnsw_descend(const ev_index *x, const ev_hnsw *g, ev_hnsw_scratch *t, const ev_hnsw_side *q, ev_found at, unsigned from, unsigned to,
                         size_t n_rows) {
  for (unsigned level = from; level > to; level--)
    for (bool better = true; better;) {
      size_t most, n = 0;
      const ev_link *list = ev_hnsw_list(g, at.row, level, &most);
      better = false;
      if (list == NULL) break;
      for (size_t i = 0; i < most; i++) {
        uint32_t row = ev_hnsw_link(list, i) - 1;
        if (row >= n_rows) break;
        if (!ev_hnsw_linked(g, row)) continue;
        prefetch_row(x, row);
        t->ids[n++] = row;
      }
      ev_hnsw_scores(t->scores, x, q, t->ids, n);
      for (size_t i = 0; i < n; i++)
        if (t->scores[i] > at.score) at = (ev_found){t->scores[i], t->ids[i]}, better = true;
    }
  return at;
}

/* Into the second level: what is read when the walk has ended is on its way while it walks. */
static inline void prefetch_vector(const ev_index *x, uint32_t row) {
  const char *v = x->vectors.base + row * x->d * sizeof(float);
  for (size_t i = 0; i < x->d * sizeof(float) && i < 1024; i += 64) __builtin_prefetch(v + i, 0, 2);
}

static inline size_t unexpanded(const ev_found *pool, size_t at, size_t n) {
  while (at < n && (pool[at].row & EV_HNSW_EXPANDED) != 0) at++;
  return at;
}

/* Nineteen times in twenty the row to be expanded next is the second best now: so its list is gone through before the codes of the
 * best one's are compared, and its own are there when their turn comes. Where something better is found, that is taken back: what is
 * expanded, and in which order, is what it would be without. */
typedef struct guess {
  uint32_t row; /* EV_NONE: none */
  uint32_t *ids;
  size_t n, n_touched;
} guess;

static inline size_t follow(const ev_index *x, const ev_hnsw *g, ev_hnsw_scratch *t, uint32_t row, unsigned level, size_t n_rows, uint32_t *ids) {
  size_t most;
  const ev_link *list = ev_hnsw_list(g, row, level, &most);
  return list != NULL ? fresh(x, g, t, list, most, n_rows, ids) : 0;
}

static inline void take_back(ev_hnsw_scratch *t, const guess *ahead) {
  if (ahead->row == EV_NONE) return;
  for (size_t i = 0; i < ahead->n; i++) t->visited[ahead->ids[i] / 64] &= ~((uint64_t)1 << ahead->ids[i] % 64);
  t->n_touched = ahead->n_touched;
}

size_t ev_hnsw_beam(const ev_index *x, const ev_hnsw *g, ev_hnsw_scratch *t, const ev_hnsw_side *q, unsigned level, size_t ef, size_t *n_pool,
                    size_t n_rows) {
  ev_found *pool = t->pool;
  uint32_t *ids = t->ids;
  guess ahead = {EV_NONE, t->ahead, 0, 0};
  size_t n = *n_pool, looked_at = 0, lowest;
  for (size_t next = 0; (next = unexpanded(pool, next, n)) < n; next = lowest) {
    size_t n_fresh = ahead.n;
    if (pool[next].row == ahead.row) {
      uint32_t *free = ids;
      ids = ahead.ids, ahead.ids = free;
    } else {
      take_back(t, &ahead);
      n_fresh = follow(x, g, t, pool[next].row, level, n_rows, ids);
    }
    if (q->exact_soon) prefetch_vector(x, pool[next].row);
    pool[next].row |= EV_HNSW_EXPANDED;
    lowest = next + 1;
    size_t then = unexpanded(pool, lowest, n);
    ahead.row = then < n ? pool[then].row : EV_NONE;
    ahead.n_touched = t->n_touched;
    if (then < n) ahead.n = follow(x, g, t, ahead.row, level, n_rows, ahead.ids);
    ev_hnsw_scores(t->scores, x, q, ids, n_fresh);
    looked_at += n_fresh;
    for (size_t i = 0; i < n_fresh; i++) {
      size_t at = ev_hnsw_offer(pool, &n, ef, t->scores[i], ids[i], q);
      if (at < lowest) lowest = at;
      if (at < ef && level == 0) prefetch_list(g, ids[i]);
    }
  }
  take_back(t, &ahead);
  for (size_t i = 0; i < n; i++) pool[i].row &= ~EV_HNSW_EXPANDED;
  *n_pool = n;
  return looked_at;
}

/* ---- Search ---------------------------------------------------------------------------------------------*/
static bool heap_push(ev_hnsw_scratch *t, size_t *n, ev_found f) {
  if (*n == t->heap_room) {
    size_t room = t->heap_room == 0 ? 4096 : 2 * t->heap_room;
    ev_found *heap = ev_alloc(room, sizeof *heap);
    if (heap == NULL) return false;
    if (*n > 0) memcpy(heap, t->heap, *n * sizeof *heap);
    ev_free(t->heap);
    t->heap = heap;
    t->heap_room = room;
  }
  size_t i = (*n)++;
  for (; i > 0 && t->heap[(i - 1) / 2].score < f.score; i = (i - 1) / 2) t->heap[i] = t->heap[(i - 1) / 2];
  t->heap[i] = f;
  return true;
}

static ev_found heap_pop(ev_hnsw_scratch *t, size_t *n) {
  ev_found top = t->heap[0], last = t->heap[--*n];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= *n) break;
    if (child + 1 < *n && t->heap[child + 1].score > t->heap[child].score) child++;
    if (!(t->heap[child].score > last.score)) break;
    t->heap[i] = t->heap[child];
    i = child;
  }
  t->heap[i] = last;
  return top;
}

/* Rows that may not be found lead on but take no place in the pool; so how far it goes is for the pool to say. */
static ev_status filtered(const ev_index *x, const ev_hnsw *g, ev_hnsw_scratch *t, const ev_hnsw_side *q, const ev_search *s, size_t query, ev_found at,
                          size_t ef, size_t *n_pool, size_t n_rows, size_t *n_looked_at) {
  size_t n = 0, n_heap = 0, looked_at = 0, most, budget = n_rows / 8 + 64 * ef;
  ev_hnsw_visit(t, at.row);
  if (!heap_push(t, &n_heap, at)) return EV_ENOMEM;
  if (ev_index_may(x, s, query, at.row)) ev_hnsw_offer(t->pool, &n, ef, at.score, at.row, q);
  while (n_heap > 0) {
    ev_found best = heap_pop(t, &n_heap);
    if (n == ef && best.score < t->pool[n - 1].score) break;
    if (looked_at > budget) { /* a plain scan is the better way */
      n = 0;
      break;
    }
    const ev_link *list = ev_hnsw_list(g, best.row, 0, &most);
    size_t n_fresh = fresh(x, g, t, list, most, n_rows, t->ids);
    ev_hnsw_scores(t->scores, x, q, t->ids, n_fresh);
    looked_at += n_fresh;
    for (size_t i = 0; i < n_fresh; i++) {
      float score = t->scores[i];
      if (!(score > (n == ef ? t->pool[n - 1].score : -INFINITY))) continue;
      prefetch_list(g, t->ids[i]);
      if (!heap_push(t, &n_heap, (ev_found){score, t->ids[i]})) return EV_ENOMEM;
      if (ev_index_may(x, s, query, t->ids[i])) ev_hnsw_offer(t->pool, &n, ef, score, t->ids[i], q);
    }
  }
  *n_pool = n;
  *n_looked_at += looked_at;
  return EV_OK;
}

static ev_status hnsw_search(const ev_index *x, const ev_prepared *q, const ev_search *s, size_t query, size_t want, unsigned effort,
                             ev_found *out, size_t *n_out, size_t *n_looked_at) {
  ev_hnsw *g = x->state;
  uint64_t entry = atomic_load_explicit(&g->entry, memory_order_acquire);
  size_t n_rows = atomic_load_explicit(&g->n_rows, memory_order_acquire), n = 1;
  size_t ef = effort > s->k ? effort : s->k; /* what is wanted beyond k is taken from what is there */
  ev_found at = {.row = (uint32_t)entry};
  *n_out = 0;
  if (at.row >= n_rows || want == 0) return EV_OK;
  bool all = s->allowed == NULL && s->pass == NULL && s->seen_ptr == NULL && atomic_load(&g->n_linked) == atomic_load(&x->n_live);
  ev_hnsw_scratch *t = ev_hnsw_scratch_take(x, g, n_rows, ef);
  if (t == NULL) return EV_ENOMEM;
  ev_hnsw_side side = {.code = q->code, .weight = q->weight, .n_equal = (uint32_t)(want / 2 + s->k / 2 + 1), .exact_soon = x->vectors.base != NULL && want >= ef};
  ev_hnsw_scores(&at.score, x, &side, &at.row, 1);
  if (!(at.score > -INFINITY)) at.score = -FLT_MAX; /* an f16 beyond its range */
  at = ev_hnsw_descend(x, g, t, &side, at, (unsigned)(entry >> 32), 0, n_rows);
  ev_status status = EV_OK;
  if (all) {
    ev_hnsw_visit(t, at.row);
    t->pool[0] = at;
    *n_looked_at += ev_hnsw_beam(x, g, t, &side, 0, ef, &n, n_rows);
  } else {
    status = filtered(x, g, t, &side, s, query, at, ef, &n, n_rows, n_looked_at);
  }
  for (size_t i = 0; i < n && *n_out < want && status == EV_OK; i++)
    if (!all || ev_index_live(x, t->pool[i].row)) out[(*n_out)++] = t->pool[i];
  ev_hnsw_scratch_give(g, t);
  return status;
}

static double hnsw_cost(const ev_index *x, size_t want, unsigned effort, double share) {
  const ev_hnsw *g = x->state;
  double ef = effort > want ? effort : (double)want, n = (double)atomic_load(&x->n_rows);
  double cost = ef / share * (double)g->m / 2; /* as measured at shares of 1 to 0.1 */
  return cost < n ? cost : n;
}

static size_t hnsw_bytes(const ev_index *x) {
  const ev_hnsw *g = x->state;
  return sizeof *g + g->ground.size + g->upper.size + g->upper_at.size + g->level.size + g->linked.size + g->inverse.size +
         g->keys_room * (2 * sizeof *g->keys + sizeof *g->groups);
}

const ev_index_kind ev_index_hnsw = {.name = "hnsw", .effort = 64, .open = ev_hnsw_open, .close = hnsw_close, .check = hnsw_check, .put = ev_hnsw_put,
                                     .unlink = ev_hnsw_unlink, .search = hnsw_search, .cost = hnsw_cost, .write = ev_hnsw_write,
                                     .map = ev_hnsw_map, .bytes = hnsw_bytes};
