/* ivf_file.c - the lists in a pack.
 *
 *   index.centres     F32 (n_lists, n_dims)   index.centre_bias  F32 (n_lists)
 *   index.list_rows   U64 (1) rows when they were made
 *   index.list_begin  U64 (n_lists + 1)       index.list_ids  U32: list i has those in [begin[i], begin[i + 1])
 *   index.places      U32 (n_rows, 2)         of each row: its list and its place in it
 * Without lists only an empty index.centres.
 *
 * What is written is copied first, so that the epoch it is read in is short: rows are not used again before its end. Mapped
 * lists lie in the file's pages until they grow; every number out of them is checked where it is followed. */
#include <string.h>

#include "ivf.h"

/* The centres as they are, without rows, and the list of each kept row. NULL in *out: there are no lists. */
static ev_status copy_lists(const ev_index *x, const ev_kept *kept, ivf_lists **out, uint32_t *list_of) {
  unsigned inside = ev_epoch_enter(x->epochs);
  const ivf_lists *g = atomic_load_explicit(&ivf_of(x)->now, memory_order_acquire);
  *out = g != NULL ? ivf_lists_new(g->n, x->d) : NULL;
  ev_status status = g != NULL && *out == NULL ? EV_ENOMEM : EV_OK;
  if (*out != NULL) {
    memcpy((*out)->centres, g->centres, g->n * x->d * sizeof *g->centres);
    memcpy((*out)->bias, g->bias, g->n * sizeof *g->bias);
    (*out)->n_rows = g->n_rows;
    for (size_t c = 0; c < g->n; c++) {
      const ivf_list *l = atomic_load_explicit(&g->at[c], memory_order_acquire);
      uint32_t n = atomic_load_explicit(&l->n, memory_order_acquire);
      for (uint32_t i = 0; i < n; i++) {
        uint32_t row = atomic_load_explicit(&l->ids[i], memory_order_relaxed);
        if (row < kept->n_before && kept->renumber[row] != EV_NONE) list_of[kept->renumber[row]] = (uint32_t)c;
      }
    }
  }
  ev_epoch_leave(x->epochs, inside);
  return status;
}

/* Lists in the order of the new numbers: begin (n_lists + 1), ids (n), places (n_rows). */
static void lay_out(const ev_kept *kept, const uint32_t *list_of, size_t n_lists, uint64_t *begin, uint32_t *ids, uint32_t *places) {
  memset(begin, 0, (n_lists + 1) * sizeof *begin);
  memset(places, 0xFF, 2 * kept->n_rows * sizeof *places);
  for (size_t i = 0; i < kept->n; i++) begin[list_of[kept->renumber[kept->rows[i]]] + 1]++;
  for (size_t c = 0; c < n_lists; c++) begin[c + 1] += begin[c];
  for (size_t i = 0; i < kept->n; i++) { /* begin[c] runs to the end of list c, where list c + 1 begins */
    uint32_t row = kept->renumber[kept->rows[i]], list = list_of[row];
    places[2 * row] = list;
    places[2 * row + 1] = (uint32_t)begin[list];
    ids[begin[list]++] = row;
  }
  for (size_t c = n_lists; c > 0; c--) begin[c] = begin[c - 1];
  begin[0] = 0;
  for (size_t i = 0; i < kept->n; i++) places[2 * ids[i] + 1] -= (uint32_t)begin[places[2 * ids[i]]];
}

ev_status ivf_write(const ev_index *x, ev_pack_writer *w, const ev_kept *kept) {
  ivf_lists *g = NULL;
  uint32_t *list_of = ev_alloc(kept->n_rows, sizeof *list_of), *ids = ev_alloc(kept->n, sizeof *ids), *places = ev_alloc(kept->n_rows, 2 * sizeof *places);
  uint64_t *begin = NULL;
  ev_status status = list_of == NULL || ids == NULL || places == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    memset(list_of, 0xFF, kept->n_rows * sizeof *list_of);
    status = copy_lists(x, kept, &g, list_of);
  }
  for (size_t i = 0; status == EV_OK && g != NULL && i < kept->n; i++) /* a row in no list: its file was damaged */
    if (list_of[kept->renumber[kept->rows[i]]] == EV_NONE) status = ivf_find_lists(x, g, &kept->rows[i], 1, &list_of[kept->renumber[kept->rows[i]]]);
  if (status == EV_OK) status = ev_pack_write(w, "index.centres", EV_F32, g != NULL ? g->centres : NULL, g != NULL ? g->n : 0, x->d);
  if (status == EV_OK && g != NULL) {
    const uint64_t made = g->n_rows;
    begin = ev_alloc(g->n + 1, sizeof *begin);
    status = begin != NULL ? EV_OK : EV_ENOMEM;
    if (status == EV_OK) lay_out(kept, list_of, g->n, begin, ids, places);
    if (status == EV_OK) status = ev_pack_write(w, "index.centre_bias", EV_F32, g->bias, g->n, 1);
    if (status == EV_OK) status = ev_pack_write(w, "index.list_rows", EV_U64, &made, 1, 1);
    if (status == EV_OK) status = ev_pack_write(w, "index.list_begin", EV_U64, begin, g->n + 1, 1);
    if (status == EV_OK) status = ev_pack_write(w, "index.list_ids", EV_U32, ids, kept->n, 1);
    if (status == EV_OK) status = ev_pack_write(w, "index.places", EV_U32, places, kept->n_rows, 2);
  }
  ivf_lists_free(g);
  ev_free(list_of);
  ev_free(ids);
  ev_free(places);
  ev_free(begin);
  return status;
}

static ev_status map_lists(ev_index *x, const ev_pack *p, size_t k, const ev_array *centres) {
  ivf *v = ivf_of(x);
  size_t n_rows = ev_index_n_rows(x);
  ev_array bias, made, begin, ids;
  EV_TRY(ev_pack_get(p, "index.centre_bias", EV_F32, &bias));
  EV_TRY(ev_pack_get(p, "index.list_rows", EV_U64, &made));
  EV_TRY(ev_pack_get(p, "index.list_begin", EV_U64, &begin));
  EV_TRY(ev_pack_get(p, "index.list_ids", EV_U32, &ids));
  const uint64_t *at = begin.data;
  bool fits = bias.rows == k && bias.cols == 1 && made.rows == 1 && made.cols == 1 && begin.rows == k + 1 && begin.cols == 1 && ids.cols == 1 &&
              ids.rows <= n_rows && at[0] == 0 && at[k] == ids.rows && *(const uint64_t *)made.data > 0;
  for (size_t i = 0; fits && i < k; i++) fits = at[i] <= at[i + 1];
  if (!fits) return ev_fail(EV_ECORRUPT, "%s: the index's lists make no sense", ev_pack_path(p));
  EV_TRY(ev_region_open(&v->mapped, ids.rows * sizeof(uint32_t)));
  EV_TRY(ev_index_map_array(&v->mapped, p, "index.list_ids", EV_U32, ids.rows, 1));
  EV_TRY(ev_index_map_array(&v->places, p, "index.places", EV_U32, n_rows, 2));
  ivf_lists *g = ivf_lists_new(k, x->d);
  if (g == NULL) return EV_ENOMEM;
  atomic_store(&v->now, g);
  memcpy(g->centres, centres->data, k * x->d * sizeof *g->centres);
  memcpy(g->bias, bias.data, k * sizeof *g->bias);
  g->n_rows = *(const uint64_t *)made.data;
  if (g->n_rows > n_rows) g->n_rows = n_rows;
  for (size_t i = 0; i < k; i++) {
    ivf_list *l = ivf_list_new(0);
    if (l == NULL) return EV_ENOMEM;
    l->ids = (_Atomic uint32_t *)(void *)v->mapped.base + at[i];
    l->cap = (uint32_t)(at[i + 1] - at[i]);
    atomic_store_explicit(&l->n, l->cap, memory_order_relaxed);
    atomic_store_explicit(&g->at[i], l, memory_order_relaxed);
  }
  return EV_OK;
}

ev_status ivf_map(ev_index *x, const ev_pack *p) {
  ev_array centres;
  EV_TRY(ev_pack_get(p, "index.centres", EV_F32, &centres));
  if (centres.cols != x->d || centres.rows > 1u << 20) return ev_fail(EV_ECORRUPT, "%s: the index's centres are %zu x %zu", ev_pack_path(p), centres.rows, centres.cols);
  EV_TRY(ivf_open(x));
  if (centres.rows > 0) return map_lists(x, p, centres.rows, &centres);
  return ev_region_grow(&ivf_of(x)->places, ev_index_n_rows(x) * sizeof(ivf_place));
}
