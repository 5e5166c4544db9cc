/* index_file.c - an index in a pack, and out of it by mapping.
 *
 *   index.kind     U8   the kind's name
 *   index.options  U64  version, metric, form, rescore, n_dims, n_links, effort_build, n_lists, effort, seed, n_rows
 *   index.codes    U8   (n_rows, stride)          index.vectors  F32 (n_rows, n_dims)
 *   index.weight, index.scale, index.bias  F32 (n_rows), each where the options call for it
 *   index.live     U64  one bit a row
 *   and what the kind adds
 *
 * Codes and vectors start on page boundaries and become the first pages of their regions: nothing of them is read at opening,
 * and a row that is written later is copied by the system then. Arrays of 2 to 32 MB are read for all that, which takes
 * milliseconds: a mapped file has small pages, and a walk that comes upon rows anywhere takes a twentieth longer with those
 * (Gowalla's 41,000 items). Processes forked after that share them, too. Else only the live bits are read, an eighth of a byte a
 * row, because the number of live rows must be right for the arithmetic on it. Codes, weights and biases are only ever numbers to
 * calculate with: wrong ones give wrong scores. */
#include <string.h>
#include <unistd.h>

#include "index.h"

#define VERSION 1
#define CHUNK_BYTES ((size_t)1 << 20)
#define READ_LEAST ((size_t)2 << 20) /* a huge page */
#define READ_MOST ((size_t)32 << 20)

enum { O_VERSION, O_METRIC, O_FORM, O_RESCORE, O_DIMS, O_LINKS, O_EFFORT_BUILD, O_LISTS, O_EFFORT, O_SEED, O_ROWS, O_COUNT };

/* ---- Writing ----------------------------------------------------------------------------------------------*/
/* Rows of a region one after another: those of keep in its order, or with NULL all below n, those that are not live as zeros. */
static ev_status write_rows(const ev_region *r, const char *name, ev_dtype dtype, size_t row_bytes, ev_pack_writer *w, const uint32_t *keep, const uint64_t *live, size_t n) {
  if (r->base == NULL) return EV_OK;
  size_t per = CHUNK_BYTES / row_bytes + 1;
  char *chunk = ev_alloc(per, row_bytes);
  if (chunk == NULL) return EV_ENOMEM;
  ev_status status = ev_pack_begin(w, name, dtype, row_bytes / ev_dtype_size(dtype));
  for (size_t first = 0; first < n && status == EV_OK; first += per) {
    size_t rows = n - first < per ? n - first : per;
    for (size_t i = first; i < first + rows; i++) {
      char *to = chunk + (i - first) * row_bytes;
      if (keep == NULL && (live[i / 64] >> i % 64 & 1) == 0) memset(to, 0, row_bytes);
      else memcpy(to, r->base + (keep != NULL ? keep[i] : i) * row_bytes, row_bytes);
    }
    status = ev_pack_append(w, chunk, rows);
    if (status == EV_OK && ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
  }
  ev_free(chunk);
  return status == EV_OK ? ev_pack_end(w) : status;
}

static ev_status write_all(const ev_index *x, ev_pack_writer *w, const uint32_t *keep, const uint64_t *live, const ev_kept *kept) {
  const ev_index_options *o = &x->o;
  const uint64_t options[O_COUNT] = {VERSION, x->metric, x->form, o->rescore, o->n_dims, o->n_links, o->effort_build, o->n_lists, o->effort, o->seed, kept->n_rows};
  size_t n = kept->n_rows, four = sizeof(float);
  EV_TRY(ev_pack_write(w, "index.kind", EV_U8, o->kind, strlen(o->kind), 1));
  EV_TRY(ev_pack_write(w, "index.options", EV_U64, options, O_COUNT, 1));
  EV_TRY(write_rows(&x->codes, "index.codes", EV_U8, x->stride, w, keep, live, n));
  EV_TRY(write_rows(&x->vectors, "index.vectors", EV_F32, x->d * four, w, keep, live, n));
  EV_TRY(write_rows(&x->weight, "index.weight", EV_F32, four, w, keep, live, n));
  EV_TRY(write_rows(&x->scale, "index.scale", EV_F32, four, w, keep, live, n));
  EV_TRY(write_rows(&x->bias, "index.bias", EV_F32, four, w, keep, live, n));
  EV_TRY(ev_pack_write(w, "index.live", EV_U64, live, (n + 63) / 64, 1));
  return x->kind->write != NULL ? x->kind->write(x, w, kept) : EV_OK;
}

ev_status ev_index_write(const ev_index *x, ev_pack_writer *w, const uint32_t *keep, size_t n_keep) {
  size_t n_rows = ev_index_n_rows(x), n = keep != NULL ? n_keep : n_rows, n_list = 0;
  uint64_t *live = ev_zalloc((n + 63) / 64, sizeof *live);
  uint32_t *renumber = ev_alloc(n_rows, sizeof *renumber), *list = ev_alloc(n, sizeof *list);
  ev_status status = live == NULL || renumber == NULL || list == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) memset(renumber, 0xFF, n_rows * sizeof *renumber); /* EV_NONE */
  for (size_t i = 0; status == EV_OK && i < n; i++) {
    uint32_t row = keep != NULL ? keep[i] : (uint32_t)i;
    bool is = row < n_rows && ev_index_live(x, row);
    if (!is && keep == NULL) continue;
    if (!is) status = ev_fail(EV_ENOTFOUND, "row %u is not in the index", row);
    else if (renumber[row] != EV_NONE) status = ev_fail(EV_EINVAL, "row %u is named twice", row);
    else renumber[row] = (uint32_t)i, live[i / 64] |= (uint64_t)1 << i % 64, list[n_list++] = row;
  }
  const ev_kept kept = {list, n_list, n, renumber, n_rows};
  if (status == EV_OK) status = write_all(x, w, keep, live, &kept);
  ev_free(live);
  ev_free(renumber);
  ev_free(list);
  return status;
}

/* ---- Mapping ----------------------------------------------------------------------------------------------*/
ev_status ev_index_map_array(ev_region *r, const ev_pack *p, const char *name, ev_dtype dtype, size_t rows, size_t cols) {
  ev_array a;
  EV_TRY(ev_pack_get(p, name, dtype, &a));
  if (a.rows != rows || a.cols != cols) return ev_fail(EV_ECORRUPT, "%s: array '%s' is %zu x %zu, not %zu x %zu", ev_pack_path(p), name, a.rows, a.cols, rows, cols);
  size_t size = rows * cols * ev_dtype_size(dtype);
  uint64_t offset = ev_pack_offset(p, &a);
  bool mapped = size < READ_LEAST || size > READ_MOST;
  if (mapped && offset % (uint64_t)sysconf(_SC_PAGESIZE) == 0) return ev_region_map(r, ev_pack_path(p), offset, size);
  EV_TRY(ev_region_grow(r, size)); /* or shorter than a page, or written where pages are shorter */
  if (size > 0) memcpy(r->base, a.data, size);
  return EV_OK;
}

static ev_status map_rows(ev_index *x, const ev_pack *p, size_t n) {
  EV_TRY(ev_index_map_array(&x->codes, p, "index.codes", EV_U8, n, x->stride));
  if (x->vectors.base != NULL) EV_TRY(ev_index_map_array(&x->vectors, p, "index.vectors", EV_F32, n, x->d));
  if (x->weight.base != NULL) EV_TRY(ev_index_map_array(&x->weight, p, "index.weight", EV_F32, n, 1));
  if (x->scale.base != NULL) EV_TRY(ev_index_map_array(&x->scale, p, "index.scale", EV_F32, n, 1));
  if (x->bias.base != NULL) EV_TRY(ev_index_map_array(&x->bias, p, "index.bias", EV_F32, n, 1));
  EV_TRY(ev_index_map_array(&x->live, p, "index.live", EV_U64, (n + 63) / 64, 1));
  EV_TRY(ev_index_grow(x, n)); /* the marks */
  const _Atomic uint64_t *live = (const _Atomic uint64_t *)(const void *)x->live.base;
  size_t n_live = 0;
  for (size_t w = 0; w < (n + 63) / 64; w++) n_live += (size_t)__builtin_popcountll(live[w]);
  if (n % 64 > 0 && live[n / 64] >> n % 64 != 0) return ev_fail(EV_ECORRUPT, "%s: rows beyond the last are live", ev_pack_path(p));
  atomic_store(&x->n_live, n_live);
  atomic_store(&x->n_rows, n);
  return EV_OK;
}

static ev_status read_options(const ev_pack *p, ev_index_options *o, char kind[16], size_t *n_rows) {
  ev_array name, a;
  EV_TRY(ev_pack_get(p, "index.kind", EV_U8, &name));
  EV_TRY(ev_pack_get(p, "index.options", EV_U64, &a));
  const uint64_t *v = a.data;
  if (a.cols != 1 || a.rows != O_COUNT || v[O_VERSION] != VERSION)
    return ev_fail(EV_ECORRUPT, "%s: an index of version %llu; this program reads %d", ev_pack_path(p), a.rows > 0 && a.cols > 0 ? (unsigned long long)v[O_VERSION] : 0ull, VERSION);
  size_t len = name.rows * name.cols;
  bool fits = name.cols == 1 && len < 16 && v[O_METRIC] <= EV_L2 && v[O_FORM] <= EV_FORM_I8 && v[O_RESCORE] <= 1 && v[O_ROWS] < EV_NONE;
  for (size_t i = O_LINKS; i <= O_EFFORT; i++) fits = fits && v[i] <= UINT32_MAX;
  if (!fits) return ev_fail(EV_ECORRUPT, "%s: the index's options make no sense", ev_pack_path(p));
  memcpy(kind, name.data, len);
  kind[len] = '\0';
  *o = (ev_index_options){.kind = kind, .metric = ev_similarity_name((ev_similarity)v[O_METRIC]), .form = ev_form_name((ev_form)v[O_FORM]), .rescore = v[O_RESCORE] != 0,
                          .n_dims = v[O_DIMS], .n_links = (unsigned)v[O_LINKS], .effort_build = (unsigned)v[O_EFFORT_BUILD], .n_lists = (unsigned)v[O_LISTS],
                          .effort = (unsigned)v[O_EFFORT], .seed = v[O_SEED]};
  *n_rows = v[O_ROWS];
  return EV_OK;
}

ev_status ev_index_map(ev_index **out, const ev_pack *p, size_t max_rows) {
  ev_index_options o;
  char kind[16];
  size_t n_rows = 0;
  *out = NULL;
  EV_TRY(read_options(p, &o, kind, &n_rows));
  ev_index_options defaults;
  ev_index_defaults(&defaults);
  o.max_rows = max_rows > 0 ? max_rows : defaults.max_rows;
  if (o.max_rows < n_rows) return ev_fail(EV_ELIMIT, "%s: an index of %zu rows; max_rows is %zu", ev_pack_path(p), n_rows, o.max_rows);
  ev_index *x;
  ev_status status = ev_index_blank(&x, &o);
  if (status == EV_EINVAL) return ev_fail(EV_ECORRUPT, "%s: %s", ev_pack_path(p), ev_error());
  if (status != EV_OK) return status;
  status = map_rows(x, p, n_rows);
  if (status == EV_OK) status = x->kind->map != NULL ? x->kind->map(x, p) : x->kind->open != NULL ? x->kind->open(x) : EV_OK;
  if (status == EV_OK && !ev_pack_current(p)) status = ev_fail(EV_EIO, "%s: replaced while it was being mapped", ev_pack_path(p));
  if (status == EV_OK) *out = x;
  else ev_index_free(x);
  return status;
}
