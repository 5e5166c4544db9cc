/* broadcast.c - functions of two tensors of different shapes. broadcast.h says what they give.
 *
 * Four dimensions are first merged as far as all tensors step through them alike: two of the same shape become one row,
 * a matrix and a vector two dimensions. What is left is cut along one dimension for the threads, and each piece is a few
 * planes (the last two dimensions) for a kernel of math.h. */
#include "broadcast.h"

#include <string.h>

enum { X, Y, FULL, TARGET, N_TENSORS };

#define BLOCKS_MAX 128  /* that a sum over the first dimension is cut into */
#define WIDE 4096       /* elements of a target that are shared out, rather than summed in blocks side by side */

typedef struct loop {
  unsigned rank;                            /* 1 to 4 */
  size_t dim[EV_TENSOR_RANK];
  size_t step[N_TENSORS][EV_TENSOR_RANK];   /* in elements; 0: repeated */
} loop;

/* Floats from one index to the next in each dimension of full; s NULL: one number. */
static void steps_of(size_t step[EV_TENSOR_RANK], const ev_shape *s, const ev_shape *full) {
  size_t size = 1;
  for (unsigned i = full->rank; i-- > 0;) {
    unsigned missing = full->rank - (s != NULL ? s->rank : 0);
    size_t dim = i < missing ? 1 : s->dim[i - missing];
    step[i] = dim == 1 ? 0 : size;
    size *= dim;
  }
}

/* False: full has no elements. */
static bool make_loop(loop *l, const ev_shape *full, const ev_shape *xs, const ev_shape *ys, const ev_shape *target) {
  size_t step[N_TENSORS][EV_TENSOR_RANK];
  steps_of(step[X], xs, full);
  steps_of(step[Y], ys, full);
  steps_of(step[FULL], full, full);
  steps_of(step[TARGET], target, full);
  l->rank = 0;
  for (unsigned i = 0; i < full->rank; i++) {
    if (full->dim[i] == 0) return false;
    if (full->dim[i] == 1) continue;
    bool together = l->rank > 0;
    for (unsigned t = 0; t < N_TENSORS && together; t++) together = l->step[t][l->rank - 1] == step[t][i] * full->dim[i];
    if (!together) l->rank++, l->dim[l->rank - 1] = 1;
    l->dim[l->rank - 1] *= full->dim[i];
    for (unsigned t = 0; t < N_TENSORS; t++) l->step[t][l->rank - 1] = step[t][i];
  }
  if (l->rank == 0) { /* one number */
    l->rank = 1, l->dim[0] = 1;
    for (unsigned t = 0; t < N_TENSORS; t++) l->step[t][0] = 0;
  }
  return true;
}

static size_t total_of(const loop *l) {
  size_t n = 1;
  for (unsigned i = 0; i < l->rank; i++) n *= l->dim[i];
  return n;
}

/* The first dimension, unless it is short and the second longer. */
static unsigned longer_of_two(const loop *l) { return l->rank > 1 && l->dim[0] < 8 && l->dim[1] > l->dim[0] ? 1 : 0; }

typedef struct job {
  loop l;
  ev_zip_kind f;
  unsigned side, split; /* the dimension that is cut up */
  bool back, add;
  const float *at[N_TENSORS]; /* FULL: the gradient, backward */
  float *out;
  size_t block, target_size; /* of a sum in blocks; block 0: none */
} job;

/* Planes of the part [begin, end) of the dimension that is cut up. */
static void run(const job *j, float *out, bool add, size_t begin, size_t end) {
  const loop *l = &j->l;
  unsigned out_tensor = j->back ? TARGET : FULL, last = l->rank - 1;
  size_t dim[EV_TENSOR_RANK] = {1, 1, 1, 1}, at[N_TENSORS];
  memcpy(dim, l->dim, l->rank * sizeof *dim);
  dim[j->split] = end - begin;
  for (unsigned t = 0; t < N_TENSORS; t++) at[t] = begin * l->step[t][j->split];
  bool plane = l->rank > 1;
  size_t rows = plane ? dim[last - 1] : 1, row[N_TENSORS], outer = l->rank > 2 ? dim[0] : 1, inner = l->rank > 3 ? dim[1] : 1;
  for (unsigned t = 0; t < N_TENSORS; t++) row[t] = plane ? l->step[t][last - 1] : 0;
  for (size_t a = 0; a < outer; a++)
    for (size_t b = 0; b < inner; b++) {
      size_t o[N_TENSORS];
      for (unsigned t = 0; t < N_TENSORS; t++) o[t] = at[t] + (l->rank > 2 ? a * l->step[t][0] : 0) + (l->rank > 3 ? b * l->step[t][1] : 0);
      ev_plane x = {j->at[X] + o[X], row[X], l->step[X][last]}, y = {j->at[Y] + o[Y], row[Y], l->step[Y][last]};
      if (j->back) ev_zip_back(out + o[TARGET], row[TARGET], l->step[TARGET][last], j->at[FULL] + o[FULL], row[FULL], &x, &y, j->f, j->side, add, rows, dim[last]);
      else ev_zip(out + o[out_tensor], row[out_tensor], &x, &y, j->f, add, rows, dim[last]);
    }
}

static void run_part(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  run(j, j->out, j->add, begin, end);
}

void ev_broadcast(float *out, const ev_shape *full, const float *x, const ev_shape *xs, const float *y, const ev_shape *ys, ev_zip_kind f, bool add) {
  job j = {.f = f, .add = add, .at = {x, y}, .out = out};
  if (!make_loop(&j.l, full, xs, ys, full)) return;
  j.split = longer_of_two(&j.l);
  ev_parallel_for(j.l.dim[j.split], ev_slice_rows(total_of(&j.l) / j.l.dim[j.split]), run_part, &j);
}

/* ---- Sums ------------------------------------------------------------------------------------------------*/
static size_t blocks_of(size_t total, size_t first_dim) {
  size_t blocks = total / EV_SLICE + 1;
  blocks = blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX;
  return blocks < first_dim ? blocks : first_dim;
}

size_t ev_broadcast_scratch(const ev_shape *target, const ev_shape *full) {
  size_t blocks = blocks_of(ev_shape_size(full), SIZE_MAX);
  return blocks > 1 && ev_shape_size(target) < ev_shape_size(full) ? blocks * ev_shape_size(target) : 0;
}

static void run_blocks(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const job *j = ctx;
  for (size_t b = begin; b < end; b++) {
    float *part = j->out + b * j->target_size;
    if (j->add) memset(part, 0, j->target_size * sizeof *part);
    run(j, part, j->add, b * j->block, (b + 1) * j->block < j->l.dim[0] ? (b + 1) * j->block : j->l.dim[0]);
  }
}

void ev_broadcast_back(float *out, const ev_shape *target, bool add, const float *g, const ev_shape *full, const float *x, const ev_shape *xs, const float *y, const ev_shape *ys,
                       ev_zip_kind f, unsigned side, float *scratch) {
  size_t size = ev_shape_size(target);
  job j = {.f = f, .side = side, .back = true, .at = {x != NULL ? x : g, y != NULL ? y : g, g}, .target_size = size};
  if (!make_loop(&j.l, full, x != NULL ? xs : NULL, y != NULL ? ys : NULL, target)) {
    if (!add && size > 0) memset(out, 0, size * sizeof *out);
    return;
  }
  const loop *l = &j.l;
  const size_t *kept = l->step[TARGET]; /* 0: summed over */
  size_t total = total_of(l);
  bool over_planes = false; /* sums go across planes: they are added to zeros */
  for (unsigned i = 0; i + 2 < l->rank; i++) over_planes |= kept[i] == 0;
  bool wide = l->rank > 1 && kept[1] > 0 && size >= WIDE;
  if (kept[0] > 0) {
    j.split = l->rank > 1 && kept[1] > 0 ? longer_of_two(l) : 0;
  } else {
    j.split = wide ? 1 : 0;
  }
  if (kept[j.split] > 0) { /* every piece has elements of the target to itself */
    if (over_planes && !add) memset(out, 0, size * sizeof *out);
    j.out = out;
    j.add = add || over_planes;
    ev_parallel_for(l->dim[j.split], ev_slice_rows(total / l->dim[j.split]), run_part, &j);
    return;
  }
  size_t blocks = blocks_of(total, l->dim[0]);
  if (blocks == 1) {
    if (over_planes && !add) memset(out, 0, size * sizeof *out);
    run(&j, out, add || over_planes, 0, l->dim[0]);
    return;
  }
  j.block = (l->dim[0] + blocks - 1) / blocks;
  blocks = (l->dim[0] + j.block - 1) / j.block;
  j.add = over_planes;
  j.out = scratch;
  ev_parallel_for(blocks, 1, run_blocks, &j);
  ev_plane none = {scratch, 0, 0};
  ev_zip_back(out, 0, 1, scratch, size, &none, &none, EV_ZIP_ADD, 0, add, blocks, size);
}

/* ---- Shapes ----------------------------------------------------------------------------------------------*/
ev_status ev_broadcast_infer(const ev_graph *g, ev_node *n) {
  EV_TRY(ev_op_floats(g, n));
  const ev_shape *a = &ev_op_in(g, n, 0)->shape, *b = &ev_op_in(g, n, 1)->shape;
  if (a->rank < b->rank) {
    const ev_shape *t = a;
    a = b, b = t;
  }
  unsigned missing = a->rank - b->rank;
  ev_shape out = *a;
  if (missing > 0 && b->axis != 0) return ev_op_wrong(g, n, "the length of the %u-dimensional one changes from run to run, so it must be the first dimension of the result", b->rank);
  if (missing == 0 && a->axis != b->axis) {
    bool repeats = (a->axis == 0 && a->dim[0] == 1) || (b->axis == 0 && b->dim[0] == 1);
    if (!repeats) return ev_op_wrong(g, n, "the first dimensions count different things, whose numbers change on their own");
    out.axis = a->axis != 0 ? a->axis : b->axis;
  }
  for (unsigned i = 0; i < b->rank; i++) {
    size_t p = a->dim[missing + i], q = b->dim[i];
    if (p != q && p != 1 && q != 1) return ev_op_wrong(g, n, "sizes %zu and %zu at dimension %u do not go together: they must be equal, or one of them 1", p, q, missing + i);
    out.dim[missing + i] = p == 1 ? q : p;
  }
  n->shape = out;
  return EV_OK;
}
