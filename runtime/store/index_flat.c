/* index_flat.c - exact search: every row that may be found is compared.
 *
 * It is a kind of its own, and what every kind falls back on where few rows may be found. Which those are is first worked out
 * as a set of bits, so that a condition is asked once a row however many queries there are; only rows of the set are read. */
#include <stdatomic.h>
#include <string.h>

#include "index.h"

#define WORD_GRAIN 256 /* words of rows whose condition is asked at once */

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
    if (s->pass_word != NULL && bits != 0) bits = s->pass_word(s->pass_ctx, (uint32_t)(64 * w), bits);
    else if (s->pass != NULL)
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

/* ---- The scan ---------------------------------------------------------------------------------------------*/
ev_status ev_index_scan(const ev_index *x, const ev_search *s, const ev_may *may, const float *q, size_t first, size_t m, size_t want, uint32_t *rows, float *scores) {
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

const ev_index_kind ev_index_flat = {.name = "flat"};
