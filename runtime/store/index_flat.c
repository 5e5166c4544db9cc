/* index_flat.c - exact search: every row that may be found is compared.
 *
 * It is a kind of its own, and what every kind falls back on where few rows may be found. Which those are is first worked out
 * as a set of bits, so that a condition is asked once a row however many queries there are. Where the set is dense the rows
 * are read as they lie (ev_scan_topk); where it is sparse only its rows are, ahead of their use (ev_dots_at). */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "index.h"

#define WORD_GRAIN 256 /* words of rows whose condition is asked at once */
#define PART 16384     /* rows of a sparse scan that one thread takes */
#define CHUNK 1024     /* scores at a time */
#define SPARSE 6       /* a scan goes row by row where fewer than one in so many may be found */

/* ---- Which rows -------------------------------------------------------------------------------------------*/
typedef struct marking {
  const ev_index *x;
  const ev_search *s;
  ev_may *may;
  _Atomic size_t n;
} marking;

static void mark_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  marking *m = ctx;
  const _Atomic uint64_t *live = (const _Atomic uint64_t *)(const void *)m->x->live.base;
  const ev_search *s = m->s;
  size_t n = 0, whole = s->n_allowed / 64, rest = s->n_allowed % 64;
  for (size_t w = begin; w < end; w++) {
    uint64_t bits = atomic_load_explicit(&live[w], memory_order_acquire);
    if (s->allowed != NULL) bits &= w < whole ? s->allowed[w] : w == whole && rest > 0 ? s->allowed[w] & (((uint64_t)1 << rest) - 1) : 0;
    if (w == m->may->n_rows / 64 && m->may->n_rows % 64 > 0) bits &= ((uint64_t)1 << m->may->n_rows % 64) - 1; /* rows that came since */
    if (s->pass != NULL)
      for (uint64_t left = bits; left != 0; left &= left - 1)
        if (!s->pass(s->pass_ctx, (uint32_t)(64 * w + (size_t)__builtin_ctzll(left)))) bits &= ~(left & -left);
    m->may->words[w] = bits;
    n += (size_t)__builtin_popcountll(bits);
  }
  atomic_fetch_add(&m->n, n);
}

ev_status ev_index_may_all(const ev_index *x, const ev_search *s, ev_may *out) {
  size_t n_rows = ev_index_n_rows(x), n_words = (n_rows + 63) / 64;
  *out = (ev_may){.words = ev_alloc(n_words, sizeof(uint64_t)), .n_rows = n_rows};
  if (out->words == NULL) return EV_ENOMEM;
  marking m = {.x = x, .s = s, .may = out};
  ev_parallel_for(n_words, s->pass != NULL ? WORD_GRAIN : 64 * WORD_GRAIN, mark_some, &m);
  out->n = atomic_load(&m.n);
  return EV_OK;
}

void ev_index_may_free(ev_may *may) {
  ev_free(may->words);
  *may = (ev_may){0};
}

/* ---- Row by row -------------------------------------------------------------------------------------------
 * Queries times parts of the rows; a part keeps its own best, and what the parts have found is then joined. */
typedef struct sparse {
  const ev_index *x;
  const ev_search *s;
  const float *q;
  const uint32_t *ids; /* (n) ascending */
  size_t n, first, part, n_parts, want;
  uint32_t *rows;      /* (m, n_parts, want) */
  float *scores;
  atomic_int failed;
} sparse;

static void score_part(const sparse *p, const ev_prepared *q, size_t query, size_t begin, size_t end, float *chunk, uint32_t *rows, float *scores) {
  const ev_index *x = p->x;
  const float *weight = (const float *)(const void *)x->weight.base, *bias = (const float *)(const void *)x->bias.base;
  const uint32_t *seen = NULL, *seen_end = NULL;
  size_t used = 0;
  if (p->s->seen_ptr != NULL) {
    seen = p->s->seen + p->s->seen_ptr[query];
    seen_end = p->s->seen + p->s->seen_ptr[query + 1];
    size_t n = (size_t)(seen_end - seen);
    while (n > 0) { /* the first that is not before this part */
      size_t half = n / 2;
      if (seen[half] < p->ids[begin]) seen += half + 1, n -= half + 1;
      else n = half;
    }
  }
  for (size_t at = begin; at < end; at += CHUNK) {
    const uint32_t *ids = p->ids + at;
    size_t n = end - at < CHUNK ? end - at : CHUNK;
    ev_dots_at(chunk, q->code, x->codes.base, ids, x->form, x->stride, n, x->d);
    for (size_t i = 0; i < n; i++) {
      float score = q->weight * chunk[i];
      if (weight != NULL) score *= weight[ids[i]];
      if (bias != NULL) score += bias[ids[i]];
      chunk[i] = score;
    }
    for (size_t i = 0; i < n && seen != seen_end; i++) {
      while (seen != seen_end && *seen < ids[i]) seen++;
      if (seen != seen_end && *seen == ids[i]) chunk[i] = -INFINITY;
    }
    ev_topk_offer(rows, scores, &used, p->want, chunk, n, (uint32_t)at); /* places among the ids: as ordered as the ids are */
  }
  ev_topk_finish(rows, scores, used, p->want);
  for (size_t i = 0; i < used; i++) rows[i] = p->ids[rows[i]];
}

static void sparse_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  sparse *p = ctx;
  if (ev_interrupted()) atomic_store(&p->failed, EV_EINTR);
  if (atomic_load(&p->failed) != EV_OK) return;
  float *chunk = ev_alloc(CHUNK, sizeof *chunk);
  if (chunk == NULL) {
    atomic_store(&p->failed, EV_ENOMEM);
    return;
  }
  ev_prepared q = {0};
  for (size_t i = begin; i < end; i++) {
    size_t query = i / p->n_parts, from = i % p->n_parts * p->part, to = p->n - from < p->part ? p->n : from + p->part;
    if (i == begin || i % p->n_parts == 0) {
      ev_index_prepared_free(&q);
      if (ev_index_prepare(p->x, &q, p->q + query * p->x->d) != EV_OK) {
        atomic_store(&p->failed, EV_ENOMEM);
        break;
      }
    }
    score_part(p, &q, p->first + query, from, to, chunk, p->rows + i * p->want, p->scores + i * p->want);
  }
  ev_index_prepared_free(&q);
  ev_free(chunk);
}

/* The parts' best, each in order, into the first part's place: ids of a later part are higher, so that ties stay in order. */
static void join(const sparse *p, size_t query, uint32_t *rows, float *scores, size_t *heads) {
  const uint32_t *from_rows = p->rows + query * p->n_parts * p->want;
  const float *from = p->scores + query * p->n_parts * p->want;
  memset(heads, 0, p->n_parts * sizeof *heads);
  for (size_t i = 0; i < p->want; i++) {
    size_t best = p->n_parts;
    for (size_t k = 0; k < p->n_parts; k++)
      if (heads[k] < p->want && from_rows[k * p->want + heads[k]] != EV_NONE && (best == p->n_parts || from[k * p->want + heads[k]] > from[best * p->want + heads[best]])) best = k;
    rows[i] = best == p->n_parts ? EV_NONE : from_rows[best * p->want + heads[best]];
    scores[i] = best == p->n_parts ? -INFINITY : from[best * p->want + heads[best]++];
  }
}

static ev_status scan_sparse(const ev_index *x, const ev_search *s, const ev_may *may, const float *q, size_t first, size_t m, size_t want, uint32_t *rows, float *scores) {
  sparse p = {.x = x, .s = s, .q = q, .n = may->n, .first = first, .part = m < 8 ? PART : may->n, .want = want};
  if (p.part < 4 * want) p.part = 4 * want; /* parts of their best alone would be nothing but work */
  p.n_parts = (p.n + p.part - 1) / p.part;
  uint32_t *ids = ev_alloc(may->n, sizeof *ids);
  size_t *heads = ev_alloc(p.n_parts, sizeof *heads);
  p.rows = p.n_parts > 1 ? ev_alloc(m * p.n_parts * want, sizeof *p.rows) : rows;
  p.scores = p.n_parts > 1 ? ev_alloc(m * p.n_parts * want, sizeof *p.scores) : scores;
  ev_status status = EV_ENOMEM;
  if (ids == NULL || heads == NULL || p.rows == NULL || p.scores == NULL) goto done;
  size_t n = 0;
  for (size_t w = 0; w < (may->n_rows + 63) / 64; w++)
    for (uint64_t left = may->words[w]; left != 0; left &= left - 1) ids[n++] = (uint32_t)(64 * w + (size_t)__builtin_ctzll(left));
  p.ids = ids;
  ev_parallel_for(m * p.n_parts, 1, sparse_some, &p);
  status = (ev_status)atomic_load(&p.failed);
  if (status == EV_ENOMEM) ev_fail(status, "out of memory: a scan of %zu rows", n);
  if (status == EV_EINTR) ev_fail(status, "interrupted");
  for (size_t i = 0; status == EV_OK && p.n_parts > 1 && i < m; i++) join(&p, i, rows + i * want, scores + i * want, heads);
done:
  ev_free(ids);
  ev_free(heads);
  if (p.rows != rows) ev_free(p.rows);
  if (p.scores != scores) ev_free(p.scores);
  return status;
}

/* ---- As they lie ------------------------------------------------------------------------------------------*/
static ev_status scan_dense(const ev_index *x, const ev_search *s, const ev_may *may, const float *q, size_t first, size_t m, size_t want, uint32_t *rows, float *scores) {
  ev_scan scan = {.rows = x->codes.base, .scales = (const float *)(const void *)x->weight.base, .bias = (const float *)(const void *)x->bias.base,
                  .form = x->form, .stride = x->stride, .n = may->n_rows, .d = x->d, .allowed = may->n < may->n_rows ? may->words : NULL,
                  .seen_ptr = s->seen_ptr != NULL ? s->seen_ptr + first : NULL, .seen = s->seen};
  if (x->metric != EV_L2) return ev_scan_topk(rows, scores, q, m, want, &scan);
  float *twice = ev_alloc(m * x->d, sizeof *twice); /* −|q − x|² = 2 q·x − |x|² − |q|² */
  if (twice == NULL) return EV_ENOMEM;
  memcpy(twice, q, m * x->d * sizeof *twice);
  ev_scale(twice, 2, m * x->d);
  ev_status status = ev_scan_topk(rows, scores, twice, m, want, &scan);
  ev_free(twice);
  return status;
}

ev_status ev_index_scan(const ev_index *x, const ev_search *s, const ev_may *may, const float *q, size_t first, size_t m, size_t want, uint32_t *rows, float *scores) {
  if (may->n == 0) {
    for (size_t i = 0; i < m * want; i++) rows[i] = EV_NONE, scores[i] = -INFINITY;
    return EV_OK;
  }
  return (may->n < may->n_rows / SPARSE ? scan_sparse : scan_dense)(x, s, may, q, first, m, want, rows, scores);
}

const ev_index_kind ev_index_flat = {.name = "flat"};
