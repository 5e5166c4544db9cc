/* topk.c - the k best, exactly, in one order everywhere: higher score first, then lower id.
 *
 * Selection keeps a heap of k with the worst on top. A vector scan passes over everything that is not above the
 * worst, so the heap is touched O(k log n) times for scores in random order; ties at the bound cost nothing because
 * ids come ascending and a later one loses them. */
#include <cblas.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "kernels.h"

static bool worse(float a_score, uint32_t a_id, float b_score, uint32_t b_id) {
  return a_score < b_score || (a_score == b_score && a_id > b_id);
}

static void sift_down(uint32_t *ids, float *scores, size_t n, size_t i) {
  uint32_t id = ids[i];
  float score = scores[i];
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= n) break;
    if (child + 1 < n && worse(scores[child + 1], ids[child + 1], scores[child], ids[child])) child++;
    if (!worse(scores[child], ids[child], score, id)) break;
    ids[i] = ids[child];
    scores[i] = scores[child];
    i = child;
  }
  ids[i] = id;
  scores[i] = score;
}

/* Offers scores[0..n) of ids first, first+1, … to a heap of *used out of k. Ids offered later must be higher. */
static void offer(uint32_t *ids, float *best, size_t *used, size_t k, const float *scores, size_t n, uint32_t first) {
  const ev_kernels *kernels = ev_kernels_now();
  size_t i = 0;
  for (; i < n && *used < k; i++) {
    if (!(scores[i] > -INFINITY)) continue;
    ids[*used] = first + (uint32_t)i;
    best[*used] = scores[i];
    if (++*used == k)
      for (size_t h = k / 2; h-- > 0;) sift_down(ids, best, k, h);
  }
  if (*used < k) return;
  while ((i = kernels->above(scores, i, n, best[0])) < n) {
    ids[0] = first + (uint32_t)i;
    best[0] = scores[i++];
    sift_down(ids, best, k, 0);
  }
}

/* Heap (or the unordered few) → best first, the rest filled up. */
static void finish(uint32_t *ids, float *best, size_t used, size_t k) {
  if (used < k)
    for (size_t h = used / 2; h-- > 0;) sift_down(ids, best, used, h);
  for (size_t n = used; n > 1; n--) {
    uint32_t id = ids[0];
    float score = best[0];
    ids[0] = ids[n - 1];
    best[0] = best[n - 1];
    sift_down(ids, best, n - 1, 0);
    ids[n - 1] = id;
    best[n - 1] = score;
  }
  for (size_t i = used; i < k; i++) ids[i] = EV_NONE, best[i] = -INFINITY;
}

size_t ev_topk(uint32_t *out_ids, float *out_scores, const float *scores, size_t n, size_t k) {
  size_t used = 0;
  if (k > 0) offer(out_ids, out_scores, &used, k, scores, n, 0);
  finish(out_ids, out_scores, used, k);
  return used;
}

void ev_topk_offer(uint32_t *ids, float *best, size_t *used, size_t k, const float *scores, size_t n, uint32_t first) {
  if (k > 0) offer(ids, best, used, k, scores, n, first);
}

void ev_topk_finish(uint32_t *ids, float *best, size_t used, size_t k) { finish(ids, best, used, k); }

/* ---- Fused product, filter and selection --------------------------------------------------------------------
 * A tile of ROWS × COLUMNS scores fits the second-level cache: it is multiplied by BLAS, masked and scanned while it
 * is there. The obvious way, the whole product and then a scan, writes and reads m·n floats from memory. */
#define ROWS 64
#define COLUMNS 1024

typedef struct fused {
  uint32_t *ids;
  float *scores;
  const float *q, *x;
  const uint64_t *seen_ptr;
  const uint32_t *seen;
  size_t m, n, d, k;
  atomic_int failed; /* ev_status */
} fused;

static void fused_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  fused *f = ctx;
  size_t rows = end - begin;
  if (ev_interrupted()) atomic_store(&f->failed, EV_EINTR);
  if (atomic_load(&f->failed) != EV_OK) return;
  float *tile = ev_alloc(ROWS * COLUMNS, sizeof *tile);
  if (tile == NULL) {
    atomic_store(&f->failed, EV_ENOMEM);
    return;
  }
  size_t used[ROWS] = {0};
  uint64_t next[ROWS]; /* the first seen column not yet passed */
  for (size_t r = 0; r < rows; r++) next[r] = f->seen_ptr != NULL ? f->seen_ptr[begin + r] : 0;
  for (size_t first = 0; first < f->n; first += COLUMNS) {
    size_t columns = f->n - first < COLUMNS ? f->n - first : COLUMNS;
    ev_gemm_nt(tile, f->q + begin * f->d, f->x + first * f->d, 0, rows, columns, f->d);
    for (size_t r = 0; r < rows; r++) {
      float *row = tile + r * columns;
      if (f->seen_ptr != NULL)
        for (; next[r] < f->seen_ptr[begin + r + 1] && f->seen[next[r]] < first + columns; next[r]++) row[f->seen[next[r]] - first] = -INFINITY;
      offer(f->ids + (begin + r) * f->k, f->scores + (begin + r) * f->k, &used[r], f->k, row, columns, (uint32_t)first);
    }
  }
  for (size_t r = 0; r < rows; r++) finish(f->ids + (begin + r) * f->k, f->scores + (begin + r) * f->k, used[r], f->k);
  ev_free(tile);
}

ev_status ev_score_topk(uint32_t *ids, float *scores, const float *q, const float *x, const uint64_t *seen_ptr, const uint32_t *seen,
                        size_t m, size_t n, size_t d, size_t k) {
  if (m == 0 || k == 0) return EV_OK;
  fused f = {.ids = ids, .scores = scores, .q = q, .x = x, .seen_ptr = seen_ptr, .seen = seen, .m = m, .n = n, .d = d, .k = k};
  atomic_init(&f.failed, EV_OK);
  ev_parallel_for(m, ROWS, fused_rows, &f);
  ev_status status = (ev_status)atomic_load(&f.failed);
  if (status == EV_ENOMEM) return ev_fail(status, "out of memory: a tile of scores");
  if (status == EV_EINTR) return ev_fail(status, "interrupted");
  return status;
}
