/* graph.h - what operators are to a graph and its plans; private to this room.
 *
 * Operators, by name. N live rows, last dimension innermost; x̄ is the gradient that comes back to x.
 *
 *   pointwise.c   neg exp log sqrt square abs relu gelu silu sigmoid tanh softplus        (x)
 *                 clip (x; low, high)   pow (x; p)   scale (x; a, b) = a x + b
 *                 add sub mul div max min (x, y), broadcast as NumPy does
 *   reduce.c      sum mean max logsumexp (x; dim, keep)   dim −1: over everything → scalar; keep 1: the dimension stays, as 1
 *   normal.c      softmax log_softmax (x) normalise (x; epsilon) = x / max(|x|, epsilon)   over the last dimension
 *                 layer_norm (x, gain, bias; epsilon)   topk (x; k): the k largest of the last dimension, descending
 *                 dropout (x; p)   mask_equal (x (N, M), a (N) ids, b (M) ids; value): value where a[i] = b[j], i ≠ j
 *   matmul.c      matmul (a, b; transpose_a, transpose_b): (N, K)(K, M), batched (B, N, K)(B, K, M) or (B, N, K)(K, M)
 *                 dot (a (N, D), b (N, D)) → (N);  (a (N, D), b (N, M, D)) → (N, M)
 *   layout.c      reshape (x; dims…, −1 once)   transpose (x; i, j)   concat (x, y, …; dim)   slice (x; dim, from, to)
 *   gather.c      gather (table (R, D) or (R), ids) → ids' shape (, D); EV_NONE gives zeros.   pick (x (N, M), ids (N)) → (N)
 *   sequence.c    attention (q (T, D), k, v, lengths (B) ids; heads, causal)   the T rows are B sequences, one after the other
 *                 conv1d (x (T, C), w (W, C, D), bias (D), lengths): causal; y[t] = Σ_w x[t − W + 1 + w] w[w] within a sequence
 *   gru.c         gru (x (T, C), w (C, 3D), u (D, 3D), bias (3D), lengths) → (T, D), gates r, z, n (Cho et al. 2014)
 *   sparse.c      spmm (s sparse (R, C), x (C, D); transposed) → (R, D)
 *   bag.c         bag (s sparse (R, C), x (C, D), ids (N…)) → (N…, D): rows ids of s x; EV_NONE gives zeros
 */
#ifndef EV_LEARN_GRAPH_H
#define EV_LEARN_GRAPH_H

#include "learn.h"

#define EV_OP_INPUTS 8
#define EV_OP_ATTRS 8
#define EV_WHERE_MAX 80

typedef struct ev_op ev_op;
typedef enum ev_node_kind { EV_NODE_INPUT, EV_NODE_IDS, EV_NODE_PARAMETER, EV_NODE_CONSTANT, EV_NODE_SPARSE, EV_NODE_OP } ev_node_kind;

typedef struct ev_edges { /* a sparse matrix by rows and by columns; owned */
  size_t n_rows, n_cols;
  uint64_t *ptr, *t_ptr;
  uint32_t *idx, *t_idx;
  float *values, *t_values; /* NULL: all 1 */
} ev_edges;

typedef struct ev_node {
  ev_node_kind kind;
  const ev_op *op;           /* EV_NODE_OP */
  ev_shape shape;
  ev_tensor in[EV_OP_INPUTS];
  unsigned n_in;
  double attr[EV_OP_ATTRS];  /* those not given are 0 */
  unsigned n_attr;           /* given */
  char *name;                /* leaves: owned */
  char where[EV_WHERE_MAX];  /* "FILE:LINE: ", or "" when unknown */
  bool differentiable;       /* a parameter lies below */
  float *values;             /* float leaves: owned */
  uint32_t *ids;             /* ids leaves: owned */
  ev_edges *sparse;         /* owned */
  ev_init init;
  float scale, decay, rate;  /* parameters */
} ev_node;

struct ev_graph {
  ev_node *nodes;
  size_t n, cap;
  size_t *axes, *live; /* (n_axes); axis 0 is "none" */
  size_t n_axes;
  uint64_t seed, max_bytes, used_bytes;
  char where[EV_WHERE_MAX];
  ev_tensor *outputs;  /* named ones, of a graph that was read */
  char **output_names;
  size_t n_outputs;
};

/* One run of an operator. Shapes have live lengths in dim[0]. Pointers of inputs that are ids or sparse stand in ids[] and
 * sparse[]; the value pointers of inputs and output are NULL where the operator said it does not look at them backwards. */
typedef struct ev_call {
  const ev_node *node;
  ev_shape shape, in_shape[EV_OP_INPUTS];
  float *out;                         /* forward: to be written; backward: what forward wrote (EV_BACK_OUT) */
  const float *in[EV_OP_INPUTS];      /* backward: with EV_BACK_IN */
  const uint32_t *ids[EV_OP_INPUTS];
  const ev_edges *sparse[EV_OP_INPUTS];
  const char *in_name[EV_OP_INPUTS];  /* for messages */
  const float *grad;                  /* backward: of the output, live rows */
  float *grad_in[EV_OP_INPUTS];       /* backward: where the input's gradient goes; NULL: nobody asks */
  bool add[EV_OP_INPUTS];             /* it holds something already: add to it. Otherwise every live element must be set */
  float *keep;                        /* as large as the operator asked for; lives from forward to backward */
  float *scratch;                     /* of this call alone */
  bool training;
  uint64_t seed;                      /* of this node in this step: dropout */
} ev_call;

typedef enum ev_op_flags {
  EV_BACK_IN = 1,   /* backward looks at the inputs' values */
  EV_BACK_OUT = 2,  /* backward looks at the output's value */
  EV_VIEW = 4       /* the output is the first input's memory under another shape: neither forward nor backward is called */
} ev_op_flags;

struct ev_op {
  const char *name;
  unsigned min_in, max_in, min_attr, max_attr;
  unsigned flags;
  /* Checks the inputs (kinds too: most want floats, see ev_op_floats) and attributes, sets n->shape. Errors by ev_op_wrong. */
  ev_status (*infer)(const ev_graph *g, ev_node *n);
  ev_status (*forward)(ev_call *c);
  ev_status (*backward)(ev_call *c);                       /* NULL: nothing flows back */
  size_t (*keep)(const ev_graph *g, const ev_node *n);     /* floats at full capacity; NULL: none */
  size_t (*scratch)(const ev_graph *g, const ev_node *n);  /* likewise; the larger of what forward and backward need */
};

/* Tables of operators, each ended by a NULL name; graph.c knows them all. */
extern const ev_op ev_ops_pointwise[], ev_ops_reduce[], ev_ops_normal[], ev_ops_matmul[], ev_ops_layout[], ev_ops_gather[], ev_ops_sequence[], ev_ops_gru[], ev_ops_sparse[], ev_ops_bag[];

/* A graph of its own that computes `output` of g, numbered *folded there, from the same inputs on the same axes: what depends on no input
 * is a parameter of it (fold.c). g may grow. EV_EINVAL: a sparse matrix is needed all the same. */
ev_status ev_graph_fold(ev_graph **out, ev_graph *g, ev_tensor output, ev_tensor *folded);

/* Counts bytes against the graph's limit: EV_ELIMIT names what they are for (its shape may be NULL). */
ev_status ev_graph_reserve(ev_graph *g, uint64_t bytes, const char *what, const ev_shape *s);

/* ---- For infer ---- */
const ev_node *ev_op_in(const ev_graph *g, const ev_node *n, unsigned i);
/* "matmul (2048, 64) x (32, 2048): inner sizes 64 and 32 differ", with the node's place in front: EV_EINVAL. */
ev_status ev_op_wrong(const ev_graph *g, const ev_node *n, const char *fmt, ...) EV_PRINTF(3, 4);
ev_status ev_op_floats(const ev_graph *g, const ev_node *n); /* every input is a float tensor, or EV_EINVAL */
ev_status ev_op_kind(const ev_graph *g, const ev_node *n, unsigned i, ev_node_kind kind); /* input i is this (EV_NODE_IDS, EV_NODE_SPARSE; EV_NODE_OP: any float tensor) */
/* A whole number in [low, high] from the attributes, or EV_EINVAL that calls it `what`. */
ev_status ev_op_integer(const ev_graph *g, const ev_node *n, unsigned attr, const char *what, int64_t low, int64_t high, int64_t *out);

/* ---- Shapes ---- */
size_t ev_shape_size(const ev_shape *s);                    /* elements; a scalar has 1 */
size_t ev_shape_cols(const ev_shape *s);                    /* the last dimension; 1 for a scalar */
size_t ev_shape_rows(const ev_shape *s);                    /* elements / cols; 0 when cols is 0 */
bool ev_shape_same(const ev_shape *a, const ev_shape *b);   /* axis included */
void ev_shape_text(char out[64], const ev_shape *s);        /* "(2048, 64)" */

/* ---- Gathering and adding rows back ---- (gather.c)
 * Positions are sorted by id once, then rows are summed as often as there are tables: the same bits for any thread count. */

/* order: the positions of ids that are not EV_NONE, by id, then by position. starts (returned + 1 of n + 1): where each
 * id's segment of it begins, and its end. scratch (2 n). Returns how many different ids there are. */
size_t ev_rows_sort(uint32_t *order, uint32_t *starts, uint32_t *scratch, const uint32_t *ids, size_t n);

typedef struct ev_rows_part { /* (n, d): the gradient of one gather */
  const float *rows;
  size_t n;
} ev_rows_part;
/* Sums the rows of each id in order of position. Positions count through the parts, one after the other, as ids do: several
 * gathers from one table are one sum over their ids put together.
 * @param[out] out  with ids: the dense table, row ids[order[starts[u]]] of which is added to; with NULL: (n_unique, d), set */
void ev_rows_sum(float *out, const uint32_t *ids, const ev_rows_part *parts, size_t n_parts, const uint32_t *order, const uint32_t *starts, size_t n_unique, size_t d);

#endif
