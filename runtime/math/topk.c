/* topk.c - the k best, exactly, in one order everywhere: higher score first, then lower id.
 *
 * Selection keeps a heap of k with the worst on top. A vector scan passes over everything that is not above the
 * worst, so the heap is touched O(k log n) times for scores in random order; ties at the bound cost nothing because
 * ids come ascending and a later one loses them. */
#include <math.h>

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

void ev_topk_offer_at(uint32_t *ids, float *best, size_t *used, size_t k, const float *scores, size_t n, const uint32_t *list, uint32_t first) {
  const ev_kernels *kernels = ev_kernels_now();
  size_t i = 0;
  for (; i < n && *used < k; i++) {
    if (!(scores[i] > -INFINITY)) continue;
    ids[*used] = list != NULL ? list[i] : first + (uint32_t)i;
    best[*used] = scores[i];
    if (++*used == k)
      for (size_t h = k / 2; h-- > 0;) sift_down(ids, best, k, h);
  }
  if (*used < k || k == 0) return;
  while ((i = kernels->above(scores, i, n, best[0])) < n) {
    ids[0] = list != NULL ? list[i] : first + (uint32_t)i;
    best[0] = scores[i++];
    sift_down(ids, best, k, 0);
  }
}

void ev_topk_offer(uint32_t *ids, float *best, size_t *used, size_t k, const float *scores, size_t n, uint32_t first) {
  ev_topk_offer_at(ids, best, used, k, scores, n, NULL, first);
}

void ev_topk_merge(uint32_t *ids, float *best, size_t *used, size_t k, const uint32_t *from_ids, const float *from, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (*used < k) {
      ids[*used] = from_ids[i];
      best[*used] = from[i];
      if (++*used == k)
        for (size_t h = k / 2; h-- > 0;) sift_down(ids, best, k, h);
    } else if (worse(best[0], ids[0], from[i], from_ids[i])) {
      ids[0] = from_ids[i];
      best[0] = from[i];
      sift_down(ids, best, k, 0);
    }
  }
}

/* Heap (or the unordered few) → best first, the rest filled up. */
void ev_topk_finish(uint32_t *ids, float *best, size_t used, size_t k) {
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
  ev_topk_offer(out_ids, out_scores, &used, k, scores, n, 0);
  ev_topk_finish(out_ids, out_scores, used, k);
  return used;
}
