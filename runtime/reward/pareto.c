/* pareto.c - which points of several objectives are worth keeping, and how much of the space they take together.
 *
 * Ranks by efficient non-dominated sorting (Zhang, Tian, Cheng, Jin 2015): points come in falling lexicographic order, so that
 * none is dominated by a later one, and each looks for its front by halving, since who is dominated in a front is dominated
 * in every front before it. Hypervolume exactly, by the WFG recursion (While, Bradstreet, Barone 2012): the volume is the sum of
 * what each point adds to those behind it, which is its own box less the volume of the others cut down to that box. Points that
 * ascend in their last objective make the cut set flat there, so each level has one objective less, down to a sweep of two. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "reward.h"

static bool dominates(const double *a, const double *b, size_t n_dims) {
  bool more = false;
  for (size_t d = 0; d < n_dims; d++) {
    if (a[d] < b[d]) return false;
    more = more || a[d] > b[d];
  }
  return more;
}

static ev_status check_points(const double *points, size_t n, size_t n_dims) {
  if (n_dims == 0 || n_dims > EV_PARETO_DIMS) return ev_fail(EV_EINVAL, "%zu objectives: 1 to %d", n_dims, EV_PARETO_DIMS);
  if (n >= EV_NONE) return ev_fail(EV_EINVAL, "%zu points", n);
  for (size_t i = 0; i < n * n_dims; i++)
    if (!isfinite(points[i])) return ev_fail(EV_EINVAL, "objective %zu of point %zu is no finite number", i % n_dims + 1, i / n_dims + 1);
  return EV_OK;
}

/* Orders of the points; qsort_r has no place for a thread's own number of objectives otherwise. */
typedef struct order {
  const double *points;
  size_t n_dims;
} order;

static int falling(const void *a, const void *b, void *ctx) {
  const order *o = ctx;
  uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
  const double *x = o->points + (size_t)i * o->n_dims, *y = o->points + (size_t)j * o->n_dims;
  for (size_t d = 0; d < o->n_dims; d++)
    if (x[d] != y[d]) return x[d] > y[d] ? -1 : 1;
  return (i > j) - (i < j);
}

/* @param head (n) the point that came last into a front, EV_NONE ends it; @param next (n) the one before it */
static bool dominated_in(const double *points, size_t n_dims, uint32_t i, uint32_t last, const uint32_t *next) {
  for (uint32_t j = last; j != EV_NONE; j = next[j])
    if (dominates(points + (size_t)j * n_dims, points + (size_t)i * n_dims, n_dims)) return true;
  return false;
}

ev_status ev_pareto_ranks(uint32_t *rank, const double *points, size_t n, size_t n_dims) {
  EV_TRY(check_points(points, n, n_dims));
  uint32_t *by = ev_alloc(n, sizeof *by), *head = ev_alloc(n, sizeof *head), *next = ev_alloc(n, sizeof *next);
  ev_status status = by == NULL || head == NULL || next == NULL ? EV_ENOMEM : EV_OK;
  size_t n_fronts = 0;
  if (status == EV_OK) {
    for (size_t i = 0; i < n; i++) by[i] = (uint32_t)i;
    qsort_r(by, n, sizeof *by, falling, &(order){points, n_dims});
  }
  for (size_t at = 0; at < n && status == EV_OK; at++) {
    uint32_t i = by[at];
    size_t low = 0, high = n_fronts; /* the first front that does not dominate it */
    while (low < high) {
      size_t middle = (low + high) / 2;
      if (dominated_in(points, n_dims, i, head[middle], next)) low = middle + 1;
      else high = middle;
    }
    if (low == n_fronts) head[n_fronts++] = EV_NONE;
    next[i] = head[low];
    head[low] = i;
    rank[i] = (uint32_t)low;
    if (at % 1024 == 0 && ev_interrupted()) status = ev_fail(EV_EINTR, "interrupted");
  }
  ev_free(by);
  ev_free(head);
  ev_free(next);
  return status;
}

/* ---- Hypervolume -----------------------------------------------------------------------------------------*/
static int ascending_last(const void *a, const void *b, void *ctx) {
  size_t d = *(const size_t *)ctx;
  double x = ((const double *)a)[d], y = ((const double *)b)[d];
  return (x > y) - (x < y);
}

static int falling_first(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

/* Points in place, relative to a reference at 0 → the volume. stride: doubles from a point to the next; scratch holds, for every
 * further level, n points of that stride. Reorders the points. */
static double volume(double *p, size_t n, size_t n_dims, size_t stride, double *scratch);

/* What point k adds to those behind it in n_dims > 2 objectives, the points ascending in the last one. */
static double added(const double *p, size_t k, size_t n, size_t n_dims, size_t stride, double *scratch) {
  const double *mine = p + k * stride;
  size_t left = n_dims - 1, kept = 0;
  double box = 1;
  for (size_t d = 0; d < left; d++) box *= mine[d];
  for (size_t j = k + 1; j < n; j++) { /* the others, cut down to this one's box; the dominated are left out */
    double *cut = scratch + kept * stride;
    bool needed = true;
    for (size_t d = 0; d < left; d++) cut[d] = fmin(p[j * stride + d], mine[d]);
    for (size_t q = 0; q < kept && needed; q++) {
      bool covers = true;
      for (size_t d = 0; d < left && covers; d++) covers = scratch[q * stride + d] >= cut[d];
      needed = !covers;
    }
    if (!needed) continue;
    size_t to = 0;
    for (size_t q = 0; q < kept; q++) {
      bool covered = true;
      for (size_t d = 0; d < left && covered; d++) covered = cut[d] >= scratch[q * stride + d];
      if (covered) continue;
      if (to != q) memcpy(scratch + to * stride, scratch + q * stride, left * sizeof *scratch);
      to++;
    }
    if (to != kept) memcpy(scratch + to * stride, cut, left * sizeof *scratch);
    kept = to + 1;
  }
  return (box - volume(scratch, kept, left, stride, scratch + n * stride)) * mine[left];
}

static double volume(double *p, size_t n, size_t n_dims, size_t stride, double *scratch) {
  double sum = 0;
  if (n == 0) return 0;
  if (n_dims == 1) {
    for (size_t i = 0; i < n; i++) sum = fmax(sum, p[i * stride]);
    return sum;
  }
  if (n_dims == 2) { /* a staircase from the right */
    double height = 0;
    qsort(p, n, stride * sizeof *p, falling_first);
    for (size_t i = 0; i < n; i++) {
      double y = p[i * stride + 1];
      if (y > height) sum += p[i * stride] * (y - height), height = y;
    }
    return sum;
  }
  size_t last = n_dims - 1;
  qsort_r(p, n, stride * sizeof *p, ascending_last, &last);
  for (size_t k = 0; k < n; k++) sum += added(p, k, n, n_dims, stride, scratch);
  return sum;
}

typedef struct sums {
  const double *p; /* (n, n_dims) ascending in the last objective */
  double *part;    /* (n) what each adds: summed in order, so that the threads do not matter */
  double *scratch; /* (threads, level) */
  size_t n, n_dims, level;
  atomic_bool stopped;
} sums;

static void add_points(void *ctx, size_t begin, size_t end, int worker) {
  sums *s = ctx;
  for (size_t k = begin; k < end; k++) {
    if (ev_interrupted()) atomic_store(&s->stopped, true);
    if (atomic_load(&s->stopped)) return;
    s->part[k] = added(s->p, k, s->n, s->n_dims, s->n_dims, s->scratch + (size_t)worker * s->level);
  }
}

ev_status ev_hypervolume(double *out, const double *points, size_t n, size_t n_dims, const double *reference) {
  *out = 0;
  EV_TRY(check_points(points, n, n_dims));
  EV_TRY(check_points(reference, 1, n_dims));
  size_t kept = 0, threads = (size_t)ev_threads();
  sums s = {.n_dims = n_dims};
  ev_status status = EV_ENOMEM;
  double *p = ev_alloc(n * n_dims, sizeof *p), *front = ev_alloc(n * n_dims, sizeof *front);
  uint32_t *rank = ev_alloc(n, sizeof *rank);
  if (p == NULL || front == NULL || rank == NULL) goto done;
  for (size_t i = 0; i < n; i++) { /* a point that is not above the reference everywhere has no box */
    bool above = true;
    for (size_t d = 0; d < n_dims; d++) above = above && points[i * n_dims + d] > reference[d];
    if (!above) continue;
    for (size_t d = 0; d < n_dims; d++) p[kept * n_dims + d] = points[i * n_dims + d] - reference[d];
    kept++;
  }
  status = ev_pareto_ranks(rank, p, kept, n_dims);
  if (status != EV_OK) goto done;
  for (size_t i = 0; i < kept; i++)
    if (rank[i] == 0) memcpy(front + s.n++ * n_dims, p + i * n_dims, n_dims * sizeof *p);
  if (n_dims <= 2) {
    *out = volume(front, s.n, n_dims, n_dims, NULL);
    goto done;
  }
  status = EV_ENOMEM;
  size_t last = n_dims - 1;
  qsort_r(front, s.n, n_dims * sizeof *front, ascending_last, &last);
  s.level = n_dims * s.n * n_dims;
  s.p = front;
  s.part = ev_zalloc(s.n, sizeof *s.part);
  s.scratch = ev_alloc(threads * s.level, sizeof *s.scratch);
  if (s.part == NULL || s.scratch == NULL) goto done;
  ev_parallel_for(s.n, 1, add_points, &s);
  status = atomic_load(&s.stopped) ? ev_fail(EV_EINTR, "interrupted") : EV_OK;
  for (size_t k = 0; k < s.n && status == EV_OK; k++) *out += s.part[k];
done:
  ev_free(p);
  ev_free(front);
  ev_free(rank);
  ev_free(s.part);
  ev_free(s.scratch);
  return status;
}
