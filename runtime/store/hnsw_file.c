/* hnsw_file.c - the graph in a pack, and out of it by mapping.
 *
 *   index.graph     U64  entry (level << 32 | row), blocks
 *   index.links     U32  (rows, 2 n_links)  lists of the ground: row + 1 each, 0 ends a list
 *   index.level     U8   (rows)             level + 1; 0: no node
 *   index.upper_at  U32  (rows)             a node's first block,
 *   index.upper     U32  (blocks, n_links)  its lists on levels 1, 2, …
 *   index.inverse   F32  (rows)             dot: 1 / |x|
 *
 * Which rows are in the graph the index's live bits tell. Nothing is read at mapping: a link, a level or a block that is
 * wrong is noticed where it is followed. A list that is written has no links to rows that stay behind, but others in their
 * place. */
#include <string.h>

#include "hnsw.h"

#define CHUNK 4096 /* rows */

typedef struct writing {
  const ev_index *x;
  const ev_hnsw *g;
  ev_pack_writer *w;
  const ev_kept *kept;
  ev_hnsw_scratch *t;
} writing;

static void write_list(const writing *c, uint32_t row, unsigned level, uint32_t *to) {
  uint32_t rows[EV_HNSW_LINKS];
  bool whole;
  size_t n = ev_hnsw_mend(c->x, c->g, c->t, row, level, c->kept, rows, &whole);
  for (size_t i = 0; i < n; i++) to[i] = c->kept->renumber[rows[i]] + 1;
}

/* One array of a row's own numbers, by `fill`; rows between those kept are 0. */
typedef void fill_fn(const writing *c, uint32_t row, void *to);

static void fill_links(const writing *c, uint32_t row, void *to) { write_list(c, row, 0, to); }
static void fill_level(const writing *c, uint32_t row, void *to) { *(uint8_t *)to = (uint8_t)(ev_hnsw_level(c->g, row) + 1); }
static void fill_inverse(const writing *c, uint32_t row, void *to) { memcpy(to, c->g->inverse.base + row * sizeof(float), sizeof(float)); }

static ev_status write_rows(const writing *c, const char *name, ev_dtype dtype, size_t cols, fill_fn *fill) {
  const ev_kept *kept = c->kept;
  size_t row_bytes = cols * ev_dtype_size(dtype), at = 0;
  char *chunk = ev_alloc(CHUNK, row_bytes);
  if (chunk == NULL) return EV_ENOMEM;
  ev_status status = ev_pack_begin(c->w, name, dtype, cols);
  for (size_t first = 0; first < kept->n_rows && status == EV_OK; first += CHUNK) {
    size_t n = kept->n_rows - first < CHUNK ? kept->n_rows - first : CHUNK;
    memset(chunk, 0, n * row_bytes);
    for (; at < kept->n && kept->renumber[kept->rows[at]] < first + n; at++) fill(c, kept->rows[at], chunk + (kept->renumber[kept->rows[at]] - first) * row_bytes);
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
  for (size_t i = 0; i < c->kept->n && status == EV_OK; i++) {
    unsigned level = ev_hnsw_level(c->g, c->kept->rows[i]);
    memset(lists, 0, level * c->g->m * sizeof *lists);
    for (unsigned l = 1; l <= level; l++) write_list(c, c->kept->rows[i], l, lists + (l - 1) * c->g->m);
    if (level > 0) status = ev_pack_append(c->w, lists, level);
  }
  ev_free(lists);
  return status == EV_OK ? ev_pack_end(c->w) : status;
}

static ev_status write_all(const writing *c) {
  uint32_t *upper_at = ev_zalloc(c->kept->n_rows, sizeof *upper_at);
  uint64_t entry = EV_NONE, now = atomic_load_explicit(&c->g->entry, memory_order_acquire), n_blocks = 0;
  if (upper_at == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < c->kept->n; i++) {
    uint32_t row = c->kept->rows[i];
    unsigned level = ev_hnsw_level(c->g, row);
    upper_at[c->kept->renumber[row]] = (uint32_t)n_blocks;
    n_blocks += level;
    if ((uint32_t)entry == EV_NONE || level > entry >> 32 || (level == entry >> 32 && row == (uint32_t)now)) entry = (uint64_t)level << 32 | c->kept->renumber[row];
  }
  const uint64_t graph[2] = {entry, n_blocks};
  ev_status status = ev_pack_write(c->w, "index.graph", EV_U64, graph, 2, 1);
  if (status == EV_OK) status = ev_pack_write(c->w, "index.upper_at", EV_U32, upper_at, c->kept->n_rows, 1);
  if (status == EV_OK) status = write_rows(c, "index.links", EV_U32, c->g->m0, fill_links);
  if (status == EV_OK) status = write_rows(c, "index.level", EV_U8, 1, fill_level);
  if (status == EV_OK) status = write_upper(c);
  if (status == EV_OK && c->g->inverse.base != NULL) status = write_rows(c, "index.inverse", EV_F32, 1, fill_inverse);
  ev_free(upper_at);
  return status;
}

ev_status ev_hnsw_write(const ev_index *x, ev_pack_writer *w, const ev_kept *kept) {
  ev_hnsw *g = x->state;
  writing c = {.x = x, .g = g, .w = w, .kept = kept, .t = ev_hnsw_scratch_take(x, g, kept->n_before, g->room)};
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
  if (a.rows != 2 || a.cols != 1) return ev_fail(EV_ECORRUPT, "%s: array 'index.graph' is %zu x %zu, not 2 x 1", ev_pack_path(p), a.rows, a.cols);
  bool fits = v[1] <= EV_HNSW_LEVELS * n_rows && (v[0] == EV_NONE || ((uint32_t)v[0] < n_rows && v[0] >> 32 < EV_HNSW_LEVELS));
  if (!fits) return ev_fail(EV_ECORRUPT, "%s: the graph's entry or sizes make no sense", ev_pack_path(p));
  EV_TRY(ev_hnsw_open(x));
  ev_hnsw *g = x->state;
  EV_TRY(ev_index_map_array(&g->ground, p, "index.links", EV_U32, n_rows, g->m0));
  EV_TRY(ev_index_map_array(&g->level, p, "index.level", EV_U8, n_rows, 1));
  EV_TRY(ev_index_map_array(&g->upper_at, p, "index.upper_at", EV_U32, n_rows, 1));
  EV_TRY(ev_index_map_array(&g->upper, p, "index.upper", EV_U32, v[1], g->m));
  EV_TRY(ev_index_map_array(&g->linked, p, "index.live", EV_U64, (n_rows + 63) / 64, 1));
  if (g->inverse.base != NULL) EV_TRY(ev_index_map_array(&g->inverse, p, "index.inverse", EV_F32, n_rows, 1));
  EV_TRY(ev_hnsw_grow(g, n_rows));
  atomic_store(&g->n_blocks, v[1]);
  atomic_store(&g->n_linked, atomic_load(&x->n_live));
  atomic_store(&g->entry, v[0]);
  return EV_OK;
}
