/* hnsw_file.c - the graph in a pack, and out of it by mapping.
 *
 *   index.graph     U64  entry (level << 32 | row), rows, blocks
 *   index.links     U32  (rows, 2 n_links)  lists of the ground: row + 1 each, 0 ends a list
 *   index.level     U8   (rows)             level + 1; 0: no node
 *   index.upper_at  U32  (rows)             a node's first block,
 *   index.upper     U32  (blocks, n_links)  its lists on levels 1, 2, …
 *   index.lengths   F32  (rows)             dot: |x|²
 *
 * The rows are those up to the last that is kept; which are in the graph the index's live bits tell. Nothing is read at
 * mapping: a link, a level or a block that is wrong is noticed where it is followed. A list that is written has no links to
 * rows that stay behind, but others in their place. */
#include <string.h>

#include "hnsw.h"

#define CHUNK 4096 /* rows */

typedef struct writing {
  const ev_index *x;
  const ev_hnsw *g;
  ev_pack_writer *w;
  const uint32_t *keep, *renumber;
  size_t n_keep, n_rows, n_known; /* rows written; old rows below n_known have a place in renumber */
  ev_hnsw_scratch *t;
} writing;

static void write_list(const writing *c, uint32_t row, unsigned level, uint32_t *to) {
  uint32_t rows[EV_HNSW_LINKS];
  bool whole;
  size_t n = ev_hnsw_mend(c->x, c->g, c->t, row, level, c->renumber, c->n_known, rows, &whole);
  for (size_t i = 0; i < n; i++) to[i] = c->renumber[rows[i]] + 1;
}

/* One array of a row's own numbers, by `fill`; rows between those kept are 0. */
typedef void fill_fn(const writing *c, uint32_t row, void *to);

static void fill_links(const writing *c, uint32_t row, void *to) { write_list(c, row, 0, to); }
static void fill_level(const writing *c, uint32_t row, void *to) { *(uint8_t *)to = (uint8_t)(ev_hnsw_level(c->g, row) + 1); }
static void fill_length(const writing *c, uint32_t row, void *to) { memcpy(to, c->g->tail.base + row * sizeof(float), sizeof(float)); }

static ev_status write_rows(const writing *c, const char *name, ev_dtype dtype, size_t cols, fill_fn *fill) {
  size_t row_bytes = cols * ev_dtype_size(dtype), at = 0;
  char *chunk = ev_alloc(CHUNK, row_bytes);
  if (chunk == NULL) return EV_ENOMEM;
  ev_status status = ev_pack_begin(c->w, name, dtype, cols);
  for (size_t first = 0; first < c->n_rows && status == EV_OK; first += CHUNK) {
    size_t n = c->n_rows - first < CHUNK ? c->n_rows - first : CHUNK;
    memset(chunk, 0, n * row_bytes);
    for (; at < c->n_keep && c->renumber[c->keep[at]] < first + n; at++) fill(c, c->keep[at], chunk + (c->renumber[c->keep[at]] - first) * row_bytes);
    status = ev_pack_append(c->w, chunk, n);
    if (status == EV_OK && ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
  }
  ev_free(chunk);
  return status == EV_OK ? ev_pack_end(c->w) : status;
}

static ev_status write_upper(const writing *c) {
  uint32_t *lists = ev_alloc(EV_HNSW_LEVELS * c->g->m, sizeof *lists);
  if (lists == NULL) return EV_ENOMEM;
  ev_status status = ev_pack_begin(c->w, "index.upper", EV_U32, c->g->m);
  for (size_t i = 0; i < c->n_keep && status == EV_OK; i++) {
    unsigned level = ev_hnsw_level(c->g, c->keep[i]);
    memset(lists, 0, level * c->g->m * sizeof *lists);
    for (unsigned l = 1; l <= level; l++) write_list(c, c->keep[i], l, lists + (l - 1) * c->g->m);
    if (level > 0) status = ev_pack_append(c->w, lists, level);
  }
  ev_free(lists);
  return status == EV_OK ? ev_pack_end(c->w) : status;
}

static ev_status write_all(const writing *c) {
  uint32_t *upper_at = ev_zalloc(c->n_rows, sizeof *upper_at);
  uint64_t entry = EV_NONE, now = atomic_load_explicit(&c->g->entry, memory_order_acquire), n_blocks = 0;
  if (upper_at == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < c->n_keep; i++) {
    uint32_t row = c->keep[i];
    unsigned level = ev_hnsw_level(c->g, row);
    upper_at[c->renumber[row]] = (uint32_t)n_blocks;
    n_blocks += level;
    if ((uint32_t)entry == EV_NONE || level > entry >> 32 || (level == entry >> 32 && row == (uint32_t)now)) entry = (uint64_t)level << 32 | c->renumber[row];
  }
  const uint64_t graph[3] = {entry, c->n_rows, n_blocks};
  ev_status status = ev_pack_write(c->w, "index.graph", EV_U64, graph, 3, 1);
  if (status == EV_OK) status = ev_pack_write(c->w, "index.upper_at", EV_U32, upper_at, c->n_rows, 1);
  if (status == EV_OK) status = write_rows(c, "index.links", EV_U32, c->g->m0, fill_links);
  if (status == EV_OK) status = write_rows(c, "index.level", EV_U8, 1, fill_level);
  if (status == EV_OK) status = write_upper(c);
  if (status == EV_OK && c->g->tail.base != NULL) status = write_rows(c, "index.lengths", EV_F32, 1, fill_length);
  ev_free(upper_at);
  return status;
}

ev_status ev_hnsw_write(const ev_index *x, ev_pack_writer *w, const uint32_t *keep, size_t n_keep, const uint32_t *renumber) {
  ev_hnsw *g = x->state;
  writing c = {.x = x, .g = g, .w = w, .keep = keep, .n_keep = n_keep, .renumber = renumber};
  if (n_keep > 0) c.n_rows = (size_t)renumber[keep[n_keep - 1]] + 1;
  for (size_t i = 0; i < n_keep; i++)
    if (keep[i] >= c.n_known) c.n_known = (size_t)keep[i] + 1;
  c.t = ev_hnsw_scratch_take(x, g, atomic_load_explicit(&g->n_rows, memory_order_acquire), EV_HNSW_BATCH);
  if (c.t == NULL) return EV_ENOMEM;
  ev_status status = write_all(&c);
  ev_hnsw_scratch_give(g, c.t);
  return status;
}

ev_status ev_hnsw_map(ev_index *x, const ev_pack *p) {
  ev_array a;
  size_t n_rows = atomic_load(&x->n_rows);
  EV_TRY(ev_pack_get(p, "index.graph", EV_U64, &a));
  const uint64_t *v = a.data;
  if (a.rows != 3 || a.cols != 1) return ev_fail(EV_ECORRUPT, "%s: array 'index.graph' is %zu x %zu, not 3 x 1", ev_pack_path(p), a.rows, a.cols);
  bool fits = v[1] <= n_rows && v[2] <= EV_HNSW_LEVELS * v[1] && ((v[1] == 0 && v[0] == EV_NONE) || ((uint32_t)v[0] < v[1] && v[0] >> 32 < EV_HNSW_LEVELS));
  if (!fits) return ev_fail(EV_ECORRUPT, "%s: the graph's entry or sizes make no sense", ev_pack_path(p));
  EV_TRY(ev_hnsw_open(x));
  ev_hnsw *g = x->state;
  EV_TRY(ev_index_map_array(&g->ground, p, "index.links", EV_U32, v[1], g->m0));
  EV_TRY(ev_index_map_array(&g->level, p, "index.level", EV_U8, v[1], 1));
  EV_TRY(ev_index_map_array(&g->upper_at, p, "index.upper_at", EV_U32, v[1], 1));
  EV_TRY(ev_index_map_array(&g->upper, p, "index.upper", EV_U32, v[2], g->m));
  EV_TRY(ev_index_map_array(&g->linked, p, "index.live", EV_U64, (n_rows + 63) / 64, 1));
  if (g->tail.base != NULL) EV_TRY(ev_index_map_array(&g->tail, p, "index.lengths", EV_F32, v[1], 1));
  EV_TRY(ev_hnsw_grow(g, n_rows));
  atomic_store(&g->n_blocks, v[2]);
  atomic_store(&g->n_linked, atomic_load(&x->n_live));
  atomic_store(&g->entry, v[0]);
  return EV_OK;
}
