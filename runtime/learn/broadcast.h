/* broadcast.h - functions of two tensors of different shapes, and sums over some dimensions; private to this room.
 *
 * Shapes are aligned at their last dimension, and a dimension of 1 (or one that is not there) repeats, as NumPy has it. All
 * shapes are live ones. Threaded; tensors below EV_SLICE elements stay on the calling thread. */
#ifndef EV_LEARN_BROADCAST_H
#define EV_LEARN_BROADCAST_H

#include "../math/math.h"
#include "graph.h"

#define EV_SLICE 16384 /* floats a thread takes at a time */

/* Rows of `cols` floats that make a slice. */
static inline size_t ev_slice_rows(size_t cols) { return cols == 0 ? EV_SLICE : cols > EV_SLICE ? 1 : EV_SLICE / cols; }

/* The shape of f(in[0], in[1]) into n->shape; EV_EINVAL says which dimensions do not go together. */
ev_status ev_broadcast_infer(const ev_graph *g, ev_node *n);

/* out, of shape full, [+]= f(x, y). */
void ev_broadcast(float *out, const ev_shape *full, const float *x, const ev_shape *xs, const float *y, const ev_shape *ys, ev_zip_kind f, bool add);

/* The gradient of x (side 0) or y (side 1) from g, of shape full: summed over what was repeated. With f EV_ZIP_ADD and side 0,
 * x and y may be NULL and the target any shape that repeats to full: the sum of g. Sums are taken over blocks whose number
 * depends on the shapes alone, in their order. scratch: as large as ev_broadcast_scratch says for the same or larger shapes. */
void ev_broadcast_back(float *out, const ev_shape *target, bool add, const float *g, const ev_shape *full, const float *x, const ev_shape *xs, const float *y, const ev_shape *ys,
                       ev_zip_kind f, unsigned side, float *scratch);
size_t ev_broadcast_scratch(const ev_shape *target, const ev_shape *full);

#endif
