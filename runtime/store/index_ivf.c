/* index_ivf.c - lists around k-means centres: the inverted file (Sivic and Zisserman 2003; Jégou, Douze, Schmid 2011).
 *
 * A row stands in the list of its nearest centre; a search looks through the lists of the centres that promise most. For l2
 * and dot the clusters are those of l2 on the vectors as they are, for cosine those of the unit vectors (spherical k-means).
 * What a list promises is the metric of its centre. For dot that ranks by q · mean, so that lists of long vectors come first
 * as they should; clusters by direction alone would mix long with short ones.
 *
 * Until LEAST rows are there, there are no lists and a search scans. Then they are made, and made anew when the index has
 * grown GROWTH-fold: their number goes with the root of the rows, and centres of the first few rows fit a later many badly.
 *
 * Threads. Lists and what holds them are published by one atomic pointer each and only appended to. A list without room is
 * replaced by a copy; what was replaced is freed when its epoch has passed. A deleted row's place becomes EV_NONE before its
 * mark is taken, and a row is put again only when that mark has passed: so no reader meets a row in two lists, but for bytes
 * mapped from a file nobody has verified, which is why every number of theirs is checked. */
#include <math.h>
#include <string.h>

#include "ivf.h"
#include "kmeans.h"

#define LEAST 4096     /* rows from which lists are made */
#define GROWTH 8
#define PER_CENTRE 100  /* vectors sampled for each centre */
#define ROUNDS 8

/* ---- Memory ----------------------------------------------------------------------------------------------*/
ivf_list *ivf_list_new(size_t cap) {
  ivf_list *l = ev_alloc(1, sizeof *l + cap * sizeof *l->ids);
  if (l == NULL) return NULL;
  l->cap = (uint32_t)cap;
  l->n_gone = 0;
  atomic_init(&l->n, 0);
  l->ids = (_Atomic uint32_t *)(void *)(l + 1);
  return l;
}

void ivf_lists_free(ivf_lists *g) {
  if (g == NULL) return;
  for (size_t i = 0; g->at != NULL && i < g->n; i++) ev_free(atomic_load_explicit(&g->at[i], memory_order_relaxed));
  ev_free(g->at);
  ev_free(g->centres);
  ev_free(g->bias);
  ev_free(g);
}

ivf_lists *ivf_lists_new(size_t n, size_t d) {
  ivf_lists *g = ev_zalloc(1, sizeof *g);
  if (g == NULL) return NULL;
  g->n = n;
  g->centres = ev_alloc(n, d * sizeof *g->centres);
  g->bias = ev_alloc(n, sizeof *g->bias);
  g->at = ev_zalloc(n, sizeof *g->at);
  if (g->centres != NULL && g->bias != NULL && g->at != NULL) return g;
  ivf_lists_free(g);
  return NULL;
}

static void free_one(const ivf_retired *r) {
  if (r->all) ivf_lists_free(r->block);
  else ev_free(r->block);
}

/* Room to retire n more blocks, so that retiring cannot fail. What has had its time is freed first. */
static ev_status retire_room(ev_index *x, size_t n) {
  ivf *v = ivf_of(x);
  size_t kept = 0;
  for (size_t i = 0; i < v->n_old; i++) {
    if (ev_epoch_passed(x->epochs, v->old[i].mark)) free_one(&v->old[i]);
    else v->old[kept++] = v->old[i];
  }
  v->n_old = kept;
  if (kept + n <= v->cap_old) return EV_OK;
  size_t cap = 2 * (kept + n);
  ivf_retired *old = ev_resize(v->old, cap, sizeof *old);
  if (old == NULL) return EV_ENOMEM;
  v->old = old;
  v->cap_old = cap;
  return EV_OK;
}

static void retire(ivf *v, void *block, bool all, uint64_t mark) { v->old[v->n_old++] = (ivf_retired){block, all, mark}; }

ev_status ivf_open(ev_index *x) {
  ivf *v = ev_zalloc(1, sizeof *v);
  if (v == NULL) return EV_ENOMEM;
  x->state = v;
  return ev_region_open(&v->places, x->o.max_rows * sizeof(ivf_place));
}

static void ivf_close(ev_index *x) {
  ivf *v = ivf_of(x);
  for (size_t i = 0; i < v->n_old; i++) free_one(&v->old[i]);
  ivf_lists_free(atomic_load(&v->now));
  ev_free(v->old);
  ev_region_close(&v->places);
  ev_region_close(&v->mapped);
  ev_free(v);
}

static ev_status ivf_check(const ev_index_options *o) {
  if (o->n_lists > 1u << 20) return ev_fail(EV_EINVAL, "index: n_lists %u is more than 2^20", o->n_lists);
  return EV_OK;
}

static size_t ivf_bytes(const ev_index *x) {
  const ivf *v = ivf_of(x);
  const ivf_lists *g = atomic_load_explicit(&v->now, memory_order_acquire);
  size_t bytes = sizeof *v + ev_index_n_rows(x) * sizeof(ivf_place);
  if (g == NULL) return bytes;
  bytes += g->n * (x->d + 1) * sizeof(float);
  for (size_t i = 0; i < g->n; i++) {
    const ivf_list *l = atomic_load_explicit(&g->at[i], memory_order_acquire);
    bytes += sizeof(void *) + sizeof *l + l->cap * sizeof *l->ids;
  }
  return bytes;
}

/* ---- Which list -------------------------------------------------------------------------------------------*/
/* A row's vector as the centres are of: unit length for cosine. */
static void centred(const ev_index *x, uint32_t row, float *out) {
  const float *v = ev_index_vector(x, row, out);
  if (v != out) memcpy(out, v, x->d * sizeof *out);
  if (x->metric == EV_COSINE) ev_scale(out, ev_inverse_norm(out, x->d), x->d);
}

typedef struct placing {
  const ev_index *x;
  const ivf_lists *g;
  const uint32_t *rows;
  uint32_t *list;  /* out (n) */
  float *sample;   /* or out (n, d): their vectors */
  atomic_bool failed;
} placing;

static void sample_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  placing *p = ctx;
  for (size_t i = begin; i < end; i++) centred(p->x, p->rows[i], p->sample + i * p->x->d);
}

static void place_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  placing *p = ctx;
  size_t n = end - begin;
  float *tile = ev_alloc(n * EV_NEAREST_CENTRES, sizeof *tile), *block = ev_alloc(n, p->x->d * sizeof *block);
  if (tile == NULL || block == NULL || ev_interrupted()) {
    atomic_store(&p->failed, true);
  } else {
    for (size_t i = begin; i < end; i++) centred(p->x, p->rows[i], block + (i - begin) * p->x->d);
    ev_nearest(p->list + begin, block, p->g->centres, p->g->bias, tile, n, p->g->n, p->x->d);
  }
  ev_free(tile);
  ev_free(block);
}

ev_status ivf_find_lists(const ev_index *x, const ivf_lists *g, const uint32_t *rows, size_t n, uint32_t *out) {
  placing p = {.x = x, .g = g, .rows = rows, .list = out};
  ev_parallel_for(n, EV_NEAREST_ROWS, place_some, &p);
  if (!atomic_load(&p.failed)) return EV_OK;
  return ev_interrupted() ? ev_fail(EV_EINTR, "interrupted") : ev_fail(EV_ENOMEM, "out of memory: putting %zu rows into lists", n);
}

/* ---- Making the lists --------------------------------------------------------------------------------------*/
static size_t n_lists_for(const ev_index *x, size_t n) {
  size_t k = x->o.n_lists > 0 ? x->o.n_lists : (size_t)(4 * sqrt((double)n));
  return k < n ? k : n;
}

static bool lists_are_due(const ev_index *x, const ivf_lists *g, size_t n) {
  if (g != NULL) return n >= GROWTH * g->n_rows;
  return n >= LEAST && n >= 8 * (size_t)x->o.n_lists;
}

static ev_status train(const ev_index *x, ivf_lists *g, const uint32_t *rows, size_t n) {
  size_t n_sample = g->n * PER_CENTRE < n ? g->n * PER_CENTRE : n;
  float *sample = ev_alloc(n_sample, x->d * sizeof *sample);
  uint32_t *chosen = ev_alloc(n_sample, sizeof *chosen);
  ev_status status = sample == NULL || chosen == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    ev_rng r;
    ev_rng_seed(&r, x->o.seed, n);
    for (size_t i = 0; i < n_sample; i++) { /* one of each of n_sample stretches */
      size_t from = i * n / n_sample, to = (i + 1) * n / n_sample;
      chosen[i] = rows[from + ev_rng_below(&r, (uint32_t)(to - from))];
    }
    for (size_t i = n_sample; i > 1; i--) { /* in random order */
      size_t other = ev_rng_below(&r, (uint32_t)i);
      uint32_t row = chosen[other];
      chosen[other] = chosen[i - 1];
      chosen[i - 1] = row;
    }
    placing p = {.x = x, .rows = chosen, .sample = sample};
    ev_parallel_for(n_sample, EV_NEAREST_ROWS, sample_some, &p);
    status = ev_kmeans(g->centres, g->bias, sample, n_sample, g->n, x->d, x->metric == EV_COSINE, ROUNDS, x->o.seed);
  }
  ev_free(sample);
  ev_free(chosen);
  return status;
}

/* Fills empty lists with rows in their order. */
static ev_status fill(const ev_index *x, ivf_lists *g, const uint32_t *rows, const uint32_t *list_of, size_t n) {
  uint32_t *sizes = ev_zalloc(g->n, sizeof *sizes);
  if (sizes == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < n; i++) sizes[list_of[i]]++;
  ev_status status = EV_OK;
  for (size_t i = 0; i < g->n && status == EV_OK; i++) {
    ivf_list *l = ivf_list_new(sizes[i] + sizes[i] / 4 + 8);
    if (l == NULL) status = EV_ENOMEM;
    else atomic_store_explicit(&g->at[i], l, memory_order_relaxed);
  }
  ev_free(sizes);
  if (status != EV_OK) return status;
  ivf_place *p = ivf_places(ivf_of(x));
  for (size_t i = 0; i < n; i++) {
    ivf_list *l = atomic_load_explicit(&g->at[list_of[i]], memory_order_relaxed);
    uint32_t at = atomic_load_explicit(&l->n, memory_order_relaxed);
    atomic_store_explicit(&l->ids[at], rows[i], memory_order_relaxed);
    atomic_store_explicit(&l->n, at + 1, memory_order_relaxed);
    p[rows[i]] = (ivf_place){list_of[i], at};
  }
  return EV_OK;
}

/* New lists of all live rows and the n that come. Their places are noted at the very end, when nothing can fail. */
static ev_status make_lists(ev_index *x, const uint32_t *coming, size_t n_coming) {
  ivf *v = ivf_of(x);
  size_t n_rows = ev_index_n_rows(x), n = ev_index_n(x) + n_coming, at = 0;
  uint64_t *in = ev_alloc((n_rows + 63) / 64, sizeof *in);
  uint32_t *rows = ev_alloc(n, sizeof *rows), *list_of = ev_alloc(n, sizeof *list_of);
  ivf_lists *g = ivf_lists_new(n_lists_for(x, n), x->d);
  ev_status status = in == NULL || rows == NULL || list_of == NULL || g == NULL ? EV_ENOMEM : retire_room(x, 1);
  if (status == EV_OK) {
    const _Atomic uint64_t *live = (const _Atomic uint64_t *)(const void *)x->live.base;
    for (size_t w = 0; w < (n_rows + 63) / 64; w++) in[w] = live[w];
    for (size_t i = 0; i < n_coming; i++) in[coming[i] / 64] |= (uint64_t)1 << coming[i] % 64;
    for (size_t w = 0; w < (n_rows + 63) / 64; w++)
      for (uint64_t left = in[w]; left != 0; left &= left - 1) rows[at++] = (uint32_t)(64 * w + (size_t)__builtin_ctzll(left));
    g->n_rows = n;
    status = train(x, g, rows, n);
  }
  if (status == EV_OK) status = ivf_find_lists(x, g, rows, n, list_of);
  if (status == EV_OK) status = fill(x, g, rows, list_of, n);
  if (status == EV_OK) {
    ivf_lists *before = atomic_exchange(&v->now, g);
    if (before != NULL) retire(v, before, true, ev_epoch_mark(x->epochs));
    g = NULL;
  }
  ivf_lists_free(g);
  ev_free(in);
  ev_free(rows);
  ev_free(list_of);
  return status;
}

/* ---- Adding and removing -----------------------------------------------------------------------------------*/
/* A copy with room for `more`, without what is gone; the places of what it holds are noted when it is published. */
static ivf_list *copy_with_room(const ivf_list *l, size_t more) {
  uint32_t n = atomic_load_explicit(&l->n, memory_order_relaxed), kept = 0;
  size_t stays = n - l->n_gone + more;
  ivf_list *out = ivf_list_new(stays + stays / 2 + 8);
  if (out == NULL) return NULL;
  for (uint32_t i = 0; i < n && kept < out->cap - more; i++) {
    uint32_t row = atomic_load_explicit(&l->ids[i], memory_order_relaxed);
    if (row != EV_NONE) atomic_store_explicit(&out->ids[kept++], row, memory_order_relaxed);
  }
  atomic_store_explicit(&out->n, kept, memory_order_relaxed);
  return out;
}

/* Lists without room for what comes get a larger copy in `copies` (n), which are only then published, all together. */
static ev_status add(ev_index *x, ivf_lists *g, const uint32_t *rows, const uint32_t *list_of, size_t n) {
  ivf *v = ivf_of(x);
  ivf_place *p = ivf_places(v);
  uint32_t *more = ev_zalloc(g->n, sizeof *more);
  ivf_list **copies = ev_zalloc(g->n, sizeof *copies);
  size_t n_copies = 0;
  ev_status status = more == NULL || copies == NULL ? EV_ENOMEM : EV_OK;
  for (size_t i = 0; i < n && status == EV_OK; i++) more[list_of[i]]++;
  for (size_t i = 0; i < g->n && status == EV_OK; i++) {
    const ivf_list *l = atomic_load_explicit(&g->at[i], memory_order_relaxed);
    if (more[i] <= l->cap - atomic_load_explicit(&l->n, memory_order_relaxed)) continue;
    copies[i] = copy_with_room(l, more[i]);
    if (copies[i] == NULL) status = EV_ENOMEM;
    n_copies++;
  }
  if (status == EV_OK && n_copies > 0) status = retire_room(x, n_copies);
  if (status != EV_OK) {
    for (size_t i = 0; copies != NULL && i < g->n; i++) ev_free(copies[i]);
    goto done;
  }
  size_t first_old = v->n_old;
  for (size_t i = 0; i < g->n; i++) {
    if (copies[i] == NULL) continue;
    for (uint32_t k = 0; k < copies[i]->n; k++) {
      uint32_t row = atomic_load_explicit(&copies[i]->ids[k], memory_order_relaxed);
      if (row < ev_index_n_rows(x)) p[row] = (ivf_place){(uint32_t)i, k};
    }
    retire(v, atomic_exchange(&g->at[i], copies[i]), false, 0);
  }
  if (n_copies > 0) {
    uint64_t mark = ev_epoch_mark(x->epochs);
    for (size_t i = first_old; i < v->n_old; i++) v->old[i].mark = mark;
  }
  for (size_t i = 0; i < n; i++) {
    ivf_list *l = atomic_load_explicit(&g->at[list_of[i]], memory_order_relaxed);
    uint32_t at = atomic_load_explicit(&l->n, memory_order_relaxed);
    atomic_store_explicit(&l->ids[at], rows[i], memory_order_relaxed);
    atomic_store_explicit(&l->n, at + 1, memory_order_release);
    p[rows[i]] = (ivf_place){list_of[i], at};
  }
done:
  ev_free(more);
  ev_free(copies);
  return status;
}

static ev_status ivf_put(ev_index *x, const uint32_t *rows, size_t n) {
  ivf *v = ivf_of(x);
  ivf_lists *g = atomic_load_explicit(&v->now, memory_order_relaxed);
  EV_TRY(ev_region_grow(&v->places, ev_index_n_rows(x) * sizeof(ivf_place)));
  if (lists_are_due(x, g, ev_index_n(x) + n)) return make_lists(x, rows, n);
  if (g == NULL) return EV_OK;
  uint32_t *list_of = ev_alloc(n, sizeof *list_of);
  ev_status status = list_of == NULL ? EV_ENOMEM : ivf_find_lists(x, g, rows, n, list_of);
  if (status == EV_OK) status = add(x, g, rows, list_of, n);
  ev_free(list_of);
  return status;
}

static void ivf_unlink(ev_index *x, const uint32_t *rows, size_t n) {
  const ivf *v = ivf_of(x);
  const ivf_lists *g = atomic_load_explicit(&v->now, memory_order_relaxed);
  for (size_t i = 0; g != NULL && i < n; i++) {
    ivf_place p = ivf_places(v)[rows[i]];
    if (p.list >= g->n) continue; /* mapped bytes may say anything */
    ivf_list *l = atomic_load_explicit(&g->at[p.list], memory_order_relaxed);
    if (p.at >= atomic_load_explicit(&l->n, memory_order_relaxed) || atomic_load_explicit(&l->ids[p.at], memory_order_relaxed) != rows[i]) continue;
    atomic_store_explicit(&l->ids[p.at], EV_NONE, memory_order_release);
    l->n_gone++;
  }
}

/* ---- The kind ---------------------------------------------------------------------------------------------*/
const ev_index_kind ev_index_ivf = {.name = "ivf", .effort = 32, .open = ivf_open, .close = ivf_close, .check = ivf_check, .put = ivf_put, .unlink = ivf_unlink,
                                    .search = ivf_search, .cost = ivf_cost, .write = ivf_write, .map = ivf_map, .bytes = ivf_bytes};
