/* kmeans.c - Lloyd's algorithm (1957) over blocks of matrix products.
 *
 * All rounds but the last go over a part of the vectors, where that leaves enough for each centre: the early ones only find
 * where the centres belong roughly, and on the way there a part says the same for a part of the price.
 *
 * The first centres are a sample without repetition. k-means++ would choose better ones, but reads all vectors once for each
 * centre, which at thousands of centres costs more than all the rounds; what it buys is mostly bought back by giving a centre
 * that nobody is near to the fullest one, split in two. Sums are taken centre by centre in the order of the vectors, so that
 * they do not depend on who took which. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "kmeans.h"

#define LAST 3 /* rounds over all vectors */
#define PART 4 /* the others: over one in so many, */
#define FEW 16 /* but no fewer than this for each centre */

void ev_nearest(uint32_t *out, const float *x, const float *centres, const float *bias, float *tile, size_t n, size_t k, size_t d) {
  for (size_t row = 0; row < n; row += EV_NEAREST_ROWS) {
    size_t rows = n - row < EV_NEAREST_ROWS ? n - row : EV_NEAREST_ROWS;
    float best[EV_NEAREST_ROWS];
    size_t used[EV_NEAREST_ROWS] = {0};
    memset(out + row, 0, rows * sizeof *out);
    for (size_t c = 0; c < k; c += EV_NEAREST_CENTRES) {
      size_t columns = k - c < EV_NEAREST_CENTRES ? k - c : EV_NEAREST_CENTRES;
      ev_gemm_nt(tile, x + row * d, centres + c * d, 0, rows, columns, d);
      for (size_t i = 0; i < rows; i++) {
        ev_axpy(tile + i * columns, bias + c, 1, columns);
        ev_topk_offer(&out[row + i], &best[i], &used[i], 1, tile + i * columns, columns, (uint32_t)c);
      }
    }
  }
}

typedef struct lloyd {
  const float *x;
  float *centres, *bias;
  uint32_t *nearest;  /* (n) */
  size_t *begin;      /* (k + 1) into members */
  uint32_t *members;  /* (n) by centre, ascending */
  size_t n, k, d;
  bool spherical;
  atomic_bool failed;
} lloyd;

static void assign_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  lloyd *l = ctx;
  float *tile = ev_alloc(EV_NEAREST_ROWS * EV_NEAREST_CENTRES, sizeof *tile);
  if (tile == NULL) atomic_store(&l->failed, true);
  else ev_nearest(l->nearest + begin, l->x + begin * l->d, l->centres, l->bias, tile, end - begin, l->k, l->d);
  ev_free(tile);
}

static void set_bias(lloyd *l, size_t c) {
  float *centre = l->centres + c * l->d, square = ev_dot(centre, centre, l->d);
  if (l->spherical && square > 0) ev_scale(centre, 1 / sqrtf(square), l->d);
  l->bias[c] = l->spherical ? 0 : -square / 2;
}

static void mean_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  lloyd *l = ctx;
  for (size_t c = begin; c < end; c++) {
    size_t first = l->begin[c], last = l->begin[c + 1];
    if (first == last) continue;
    float *centre = l->centres + c * l->d;
    memset(centre, 0, l->d * sizeof *centre);
    for (size_t i = first; i < last; i++) ev_axpy(centre, l->x + l->members[i] * l->d, 1, l->d);
    ev_scale(centre, 1 / (float)(last - first), l->d);
    set_bias(l, c);
  }
}

static void group(lloyd *l) { /* members by centre: a counting sort */
  memset(l->begin, 0, (l->k + 1) * sizeof *l->begin);
  for (size_t i = 0; i < l->n; i++) l->begin[l->nearest[i] + 1]++;
  for (size_t c = 0; c < l->k; c++) l->begin[c + 1] += l->begin[c];
  for (size_t i = 0; i < l->n; i++) l->members[l->begin[l->nearest[i]]++] = (uint32_t)i;
  for (size_t c = l->k; c > 0; c--) l->begin[c] = l->begin[c - 1];
  l->begin[0] = 0;
}

/* Centres without members move beside the fullest, which then counts as half as full. */
static void reseed(lloyd *l, size_t *sizes) {
  for (size_t c = 0; c < l->k; c++) sizes[c] = l->begin[c + 1] - l->begin[c];
  for (size_t c = 0; c < l->k; c++) {
    if (sizes[c] > 0) continue;
    size_t full = 0;
    for (size_t i = 1; i < l->k; i++)
      if (sizes[i] > sizes[full]) full = i;
    if (sizes[full] < 2) return;
    float *from = l->centres + full * l->d, *to = l->centres + c * l->d;
    for (size_t i = 0; i < l->d; i++) {
      float step = i % 2 == 0 ? 1.0f / 512 : -1.0f / 512;
      to[i] = from[i] * (1 + step);
      from[i] *= 1 - step;
    }
    sizes[c] = sizes[full] / 2;
    sizes[full] -= sizes[c];
    set_bias(l, c);
    set_bias(l, full);
  }
}

static void seed_centres(lloyd *l, uint64_t seed) { /* the first k of a shuffle: members serve as the deck */
  ev_rng r;
  ev_rng_seed(&r, seed, 0x6B6D);
  for (size_t i = 0; i < l->n; i++) l->members[i] = (uint32_t)i;
  for (size_t c = 0; c < l->k; c++) {
    size_t other = c + ev_rng_below(&r, (uint32_t)(l->n - c));
    uint32_t chosen = l->members[other];
    l->members[other] = l->members[c];
    l->members[c] = chosen;
    memcpy(l->centres + c * l->d, l->x + chosen * l->d, l->d * sizeof *l->x);
    set_bias(l, c);
  }
}

ev_status ev_kmeans(float *centres, float *bias, const float *x, size_t n, size_t k, size_t d, bool spherical, unsigned n_rounds, uint64_t seed) {
  lloyd l = {.x = x, .centres = centres, .bias = bias, .n = n, .k = k, .d = d, .spherical = spherical};
  size_t *sizes = ev_alloc(k, sizeof *sizes);
  l.nearest = ev_alloc(n, sizeof *l.nearest);
  l.begin = ev_alloc(k + 1, sizeof *l.begin);
  l.members = ev_alloc(n, sizeof *l.members);
  ev_status status = EV_ENOMEM;
  if (sizes == NULL || l.nearest == NULL || l.begin == NULL || l.members == NULL) goto done;
  status = EV_OK;
  seed_centres(&l, seed);
  for (unsigned round = 0; round < n_rounds && status == EV_OK; round++) {
    l.n = round + LAST < n_rounds && n / PART >= FEW * k ? n / PART : n;
    ev_parallel_for(l.n, EV_NEAREST_ROWS, assign_some, &l);
    if (atomic_load(&l.failed)) {
      status = ev_fail(EV_ENOMEM, "out of memory: k-means");
    } else if (ev_interrupted()) {
      status = ev_fail(EV_EINTR, "interrupted");
    } else {
      group(&l);
      ev_parallel_for(k, 16, mean_some, &l);
      if (round + 1 < n_rounds) reseed(&l, sizes);
    }
  }
done:
  ev_free(sizes);
  ev_free(l.nearest);
  ev_free(l.begin);
  ev_free(l.members);
  return status;
}
