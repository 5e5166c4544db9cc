/* index_search.c - searching: the way to it, and exact scores for what was found.
 *
 * Two ways lead to the k best rows that may be found: a kind's own search, which passes over what may not be, and a plain scan
 * of what may be. Where few may, the first walks far to find them and the second has little to do; so a guess of their share
 * decides, and a search that comes back with fewer than k is done again by scanning. A wrong guess costs time, not results.
 *
 * Both compare codes. They find somewhat more than k rows, which are then ordered by the metric itself, from the vectors as
 * they were put where those are kept. So a row's score does not depend on the way it was found. */
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "index.h"

/* In rows read as they lie (4 ns: i8, 128 dimensions, 400 000 rows): */
#define SPARSE_COST 2.5 /* a row picked out of a set (7 to 16 ns) */
#define RANDOM_COST 6.0 /* a row that a walk comes upon (20 to 30 ns) */
#define PASS_COST 4.0   /* a condition asked of one row */
#define WORD_COST 0.5   /* of one of 64 together */
#define SAMPLE 256      /* rows whose condition is asked for a guess */
#define WORDS_EXACT 2048 /* words of `allowed` that are counted for one */
#define BATCH 1024      /* queries whose candidates are kept at once */

bool ev_index_may(const ev_index *x, const ev_search *s, size_t query, uint32_t row) {
  if (!ev_index_live(x, row)) return false;
  if (s->allowed != NULL && (row >= s->n_allowed || (s->allowed[row / 64] >> row % 64 & 1) == 0)) return false;
  if (s->seen_ptr != NULL && ev_sorted_has(s->seen + s->seen_ptr[query], s->seen_ptr[query + 1] - s->seen_ptr[query], row)) return false;
  return s->pass == NULL || s->pass(s->pass_ctx, row);
}

/* ---- Queries ----------------------------------------------------------------------------------------------*/
ev_status ev_index_prepare(const ev_index *x, ev_prepared *out, const float *q) {
  bool narrow = x->form == EV_FORM_I8;
  size_t used = x->d * (narrow ? 1 : sizeof(float)), size = (used + 63) / 64 * 64;
  if (size < x->stride) size = x->stride;
  *out = (ev_prepared){.vector = q, .weight = 1};
  char *code = ev_alloc(size, 1);
  if (code == NULL) return EV_ENOMEM;
  if (narrow) ev_form_encode(code, &out->weight, q, EV_FORM_I8, x->d);
  else memcpy(code, q, used);
  memset(code + used, 0, size - used);
  out->code = code;
  if (x->metric == EV_COSINE) out->weight *= ev_inverse_norm(q, x->d);
  if (x->metric == EV_L2) out->weight *= 2, out->offset = -ev_dot(q, q, x->d);
  return EV_OK;
}

void ev_index_prepared_free(ev_prepared *q) {
  ev_free((void *)(uintptr_t)q->code);
  *q = (ev_prepared){0};
}

/* ---- Exact order ------------------------------------------------------------------------------------------*/
/* Ascending keys are descending scores, then ascending rows. */
static uint64_t key_of(float score, uint32_t row) { return (uint64_t)ev_score_key(score) << 32 | row; }

static float score_of(uint64_t key) {
  uint32_t bits = ~(uint32_t)(key >> 32);
  float score;
  bits = bits >> 31 != 0 ? bits & 0x7FFFFFFF : ~bits;
  memcpy(&score, &bits, sizeof score);
  return score;
}

static void prefetch(const ev_index *x, uint32_t row) {
  const char *v = x->vectors.base != NULL ? x->vectors.base + row * x->d * sizeof(float) : x->codes.base + row * x->stride;
  size_t bytes = x->vectors.base != NULL ? x->d * sizeof(float) : x->stride;
  for (size_t i = 0; i < bytes && i < 1024; i += 64) __builtin_prefetch(v + i); /* the processor itself goes on from there */
}

/* The k best of n candidates by the metric itself, in order and padded. keys (2 n) and scratch (d) are overwritten. */
static void finish(const ev_index *x, const float *q, const ev_found *found, size_t n, size_t k, uint64_t *keys, float *scratch, uint32_t *rows, float *scores) {
  float inverse = x->metric == EV_COSINE ? ev_inverse_norm(q, x->d) : 0;
  size_t used = 0, out = 0;
  for (size_t i = 0; i < n && i < 4; i++) prefetch(x, found[i].row);
  for (size_t i = 0; i < n; i++) {
    if (i + 4 < n) prefetch(x, found[i + 4].row);
    float score = ev_index_exact(x, q, inverse, found[i].row, scratch);
    if (score > -INFINITY) keys[used++] = key_of(score, found[i].row); /* unverified bytes may give anything */
  }
  ev_sort_keys(keys, keys + used, used);
  for (size_t i = 0; i < used && out < k; i++) {
    if (i > 0 && keys[i] == keys[i - 1]) continue; /* found twice */
    rows[out] = (uint32_t)keys[i];
    scores[out++] = score_of(keys[i]);
  }
  for (; out < k; out++) rows[out] = EV_NONE, scores[out] = -INFINITY;
}

/* ---- Which way --------------------------------------------------------------------------------------------*/
typedef struct shares {
  double asked, may; /* of the live rows: those a condition would be asked of, and those that may be found */
} shares;

static uint64_t asked_word(const ev_index *x, const ev_search *s, size_t w) {
  uint64_t bits = atomic_load_explicit(&((const _Atomic uint64_t *)(const void *)x->live.base)[w], memory_order_acquire);
  if (s->allowed == NULL) return bits;
  if (64 * w >= s->n_allowed) return 0;
  bits &= s->allowed[w];
  return s->n_allowed - 64 * w < 64 ? bits & (((uint64_t)1 << (s->n_allowed - 64 * w)) - 1) : bits;
}

/* Words are looked at in strides, so that a small index is counted and a large one sampled. */
static shares guess(const ev_index *x, const ev_search *s, size_t n_rows, size_t n_live) {
  shares out = {1, 1};
  size_t n_words = n_rows / 64, step = n_words / WORDS_EXACT + 1, looked = 0, n = 0; /* whole words: the last few rows do not matter */
  if (s->allowed != NULL && n_words > 0) {
    for (size_t w = 0; w < n_words; w += step, looked++) n += (size_t)__builtin_popcountll(asked_word(x, s, w));
    out.asked = (double)n / (double)looked * (double)n_words / (double)n_live;
    if (out.asked > 1) out.asked = 1;
  }
  out.may = out.asked;
  if (s->pass == NULL || n_words == 0) return out;
  if (s->pass_share > 0) {
    out.may *= s->pass_share;
    return out;
  }
  size_t passed = 0, asked = 0;
  uint64_t at = 0x9E3779B97F4A7C15; /* a fixed sequence: the same search goes the same way */
  for (size_t tries = 0; tries < 4 * SAMPLE && asked < SAMPLE; tries++) {
    at = at * 6364136223846793005 + 1442695040888963407;
    uint64_t bits = asked_word(x, s, (size_t)((at >> 32) * n_words >> 32));
    if (bits == 0) continue;
    uint32_t first = (uint32_t)((size_t)((at >> 32) * n_words >> 32) * 64), skip = (uint32_t)(at >> 20 & 63) % (uint32_t)__builtin_popcountll(bits);
    while (skip-- > 0) bits &= bits - 1;
    asked++;
    passed += s->pass(s->pass_ctx, first + (uint32_t)__builtin_ctzll(bits));
  }
  if (asked > 0) out.may *= ((double)passed + 0.5) / ((double)asked + 1);
  return out;
}

/* Candidates that are ordered exactly: what errors of the codes may push out of the first k. */
static size_t n_candidates(const ev_index *x, size_t k) {
  if (x->form == EV_FORM_F32) return k + 8; /* roundings differ with the order of summation */
  return x->form == EV_FORM_I8 ? 2 * k + 16 : k + k / 4 + 16;
}

static bool scan_is_cheaper(const ev_index *x, const ev_search *s, size_t m, size_t n_rows, size_t n_live, size_t want, unsigned effort) {
  if (x->kind->search == NULL || n_live <= want) return true;
  if (s->walk) return false;
  shares share = s->allowed == NULL && s->pass == NULL ? (shares){1, 1} : guess(x, s, n_rows, n_live);
  if (share.may * (double)n_live < 1) return true;
  double dense = (double)n_rows, sparse = share.may * (double)n_live * SPARSE_COST, scan = dense < sparse ? dense : sparse;
  if (s->pass != NULL) scan += share.asked * (double)n_live * (s->pass_word != NULL ? WORD_COST : PASS_COST) / (double)m;
  return scan <= x->kind->cost(x, want, effort, share.may) * (RANDOM_COST + (s->pass != NULL ? PASS_COST / 2 : 0));
}

/* ---- The search -------------------------------------------------------------------------------------------*/
typedef struct searching {
  const ev_index *x;
  const ev_search *s;
  const float *q;
  size_t k, want;
  unsigned effort;
  uint32_t *rows;   /* (m, k) */
  float *scores;
  uint8_t *few;     /* (m) found fewer than k */
  const uint32_t *scanned; /* (n, want) from query `first` on */
  const float *scanned_scores;
  size_t first;
  atomic_size_t looked_at;
  atomic_int failed;
} searching;

typedef struct room { /* of one thread */
  ev_found *found;
  uint64_t *keys;
  float *scratch;
} room;

static void room_free(room *r) {
  ev_free(r->found);
  ev_free(r->keys);
  ev_free(r->scratch);
}

static bool room_new(room *r, const searching *g) {
  *r = (room){ev_alloc(g->want, sizeof *r->found), ev_alloc(g->want, 2 * sizeof *r->keys), ev_alloc(g->x->d, sizeof *r->scratch)};
  return r->found != NULL && r->keys != NULL && r->scratch != NULL;
}

static ev_status walk_one(searching *g, size_t i, room *r) {
  ev_prepared q;
  size_t n = 0, looked_at = 0;
  const float *vector = g->q + i * g->x->d;
  EV_TRY(ev_index_prepare(g->x, &q, vector));
  ev_status status = g->x->kind->search(g->x, &q, g->s, i, g->want, g->effort, r->found, &n, &looked_at);
  ev_index_prepared_free(&q);
  if (status != EV_OK) return status;
  finish(g->x, vector, r->found, n, g->k, r->keys, r->scratch, g->rows + i * g->k, g->scores + i * g->k);
  g->few[i] = g->rows[i * g->k + g->k - 1] == EV_NONE;
  atomic_fetch_add_explicit(&g->looked_at, looked_at, memory_order_relaxed);
  return EV_OK;
}

static void walk_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  searching *g = ctx;
  room r;
  ev_status status = room_new(&r, g) ? EV_OK : EV_ENOMEM;
  for (size_t i = begin; i < end && status == EV_OK; i++) status = ev_interrupted() ? EV_EINTR : walk_one(g, i, &r);
  if (status != EV_OK) atomic_store(&g->failed, (int)status);
  room_free(&r);
}

static void finish_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  searching *g = ctx;
  room r;
  if (!room_new(&r, g)) atomic_store(&g->failed, EV_ENOMEM);
  else
    for (size_t i = begin; i < end; i++) {
      size_t n = 0, query = g->first + i;
      for (; n < g->want && g->scanned[i * g->want + n] != EV_NONE; n++) r.found[n] = (ev_found){g->scanned_scores[i * g->want + n], g->scanned[i * g->want + n]};
      finish(g->x, g->q + query * g->x->d, r.found, n, g->k, r.keys, r.scratch, g->rows + query * g->k, g->scores + query * g->k);
    }
  room_free(&r);
}

/* The queries [first, first + m). */
static ev_status scan_some(searching *g, const ev_may *may, size_t first, size_t m) {
  uint32_t *rows = ev_alloc(m * g->want, sizeof *rows);
  float *scores = ev_alloc(m * g->want, sizeof *scores);
  ev_status status = rows == NULL || scores == NULL ? EV_ENOMEM : ev_index_scan(g->x, g->s, may, g->q + first * g->x->d, first, m, g->want, rows, scores);
  if (status == EV_OK) {
    g->scanned = rows;
    g->scanned_scores = scores;
    g->first = first;
    ev_parallel_for(m, 16, finish_some, g);
    atomic_fetch_add(&g->looked_at, m * may->n);
  }
  ev_free(rows);
  ev_free(scores);
  return status;
}

/* Scans for all queries, or for those that found fewer than k. */
static ev_status scan(searching *g, size_t m) {
  ev_may may;
  size_t first = 0, n;
  EV_TRY(ev_index_may_all(g->x, g->s, &may));
  ev_status status = EV_OK;
  while (first < m && status == EV_OK) {
    if (g->few == NULL) {
      n = m - first < BATCH ? m - first : BATCH;
    } else {
      while (first < m && !g->few[first]) first++;
      for (n = 0; first + n < m && n < BATCH && g->few[first + n]; n++) continue;
      if (n == 0) break;
    }
    status = scan_some(g, &may, first, n);
    first += n;
  }
  ev_index_may_free(&may);
  return status;
}

static ev_status walk(searching *g, size_t m) {
  g->few = ev_zalloc(m, 1);
  if (g->few == NULL) return EV_ENOMEM;
  ev_parallel_for(m, m < 64 ? 1 : 8, walk_some, g);
  ev_status status = (ev_status)atomic_load(&g->failed);
  if (status == EV_OK && memchr(g->few, 1, m) != NULL) status = scan(g, m);
  ev_free(g->few);
  return status;
}

static ev_status check(const ev_index *x, const float *q, size_t m, const ev_search *s) {
  if (!(s->pass_share >= 0 && s->pass_share <= 1)) return ev_fail(EV_EINVAL, "search: pass_share %g is not in (0, 1]", s->pass_share);
  if (s->pass_word != NULL && s->pass == NULL) return ev_fail(EV_EINVAL, "search: pass_word without pass");
  if (s->k > EV_NONE) return ev_fail(EV_EINVAL, "search: k %zu is too large", s->k);
  for (size_t i = 0; s->seen_ptr != NULL && i < m; i++) {
    if (s->seen_ptr[i + 1] < s->seen_ptr[i]) return ev_fail(EV_EINVAL, "search: seen of query %zu ends before it begins", i);
    for (uint64_t at = s->seen_ptr[i] + 1; at < s->seen_ptr[i + 1]; at++)
      if (s->seen[at] < s->seen[at - 1]) return ev_fail(EV_EINVAL, "search: seen of query %zu is not ascending at %u", i, s->seen[at]);
  }
  return ev_index_check_vectors(x, "query", NULL, q, m, false);
}

ev_status ev_index_search(const ev_index *x, const float *q, size_t m, const ev_search *s, uint32_t *rows, float *scores) {
  if (s->n_looked_at != NULL) *s->n_looked_at = 0;
  if (m == 0 || s->k == 0) return EV_OK;
  EV_TRY(check(x, q, m, s));
  unsigned place = ev_epoch_enter(x->epochs);
  size_t n_rows = ev_index_n_rows(x), n_live = ev_index_n(x), room_for = n_live < n_rows ? n_rows : n_live;
  searching g = {.x = x, .s = s, .q = q, .k = s->k, .rows = rows, .scores = scores, .effort = s->effort > 0 ? s->effort : x->o.effort};
  g.want = n_candidates(x, s->k);
  if (g.want > room_for) g.want = room_for;
  ev_status status = EV_OK;
  if (g.want == 0) {
    for (size_t i = 0; i < m * s->k; i++) rows[i] = EV_NONE, scores[i] = -INFINITY;
  } else {
    status = scan_is_cheaper(x, s, m, n_rows, n_live, g.want, g.effort) ? scan(&g, m) : walk(&g, m);
    if (status == EV_OK) status = (ev_status)atomic_load(&g.failed);
    if (status == EV_ENOMEM) ev_fail(status, "out of memory: a search of %zu queries for %zu rows each", m, s->k);
    if (status == EV_EINTR) ev_fail(status, "interrupted");
  }
  ev_epoch_leave(x->epochs, place);
  if (s->n_looked_at != NULL) *s->n_looked_at = atomic_load(&g.looked_at);
  return status;
}
