/* learn.h - models: how they are fitted from a view, and what they answer.
 *
 * A fit is a pure function (view, options, seed) → a pack file; a model is that file, mapped. The kinds:
 *
 *   item_scores   one score an item, the same for everybody           (popular, fresh_popular)
 *   item_graph    sparse item-item weights; a user is the sum of his items' rows (item_knn, similar_content, markov, slim)
 *   item_linear   dense symmetric item-item matrix, half stored, with weights in and out (ease)
 *   factors       user and item vectors; unknown or changed users are folded in   (ials)
 *   indexed       the same beside an index of the item vectors   (ann)
 *   item_columns  columns of numbers over items, for a slate to look up   (linear_policy)
 *   vectors       user and item vectors, learnt any way; who has none is the mean of what he has   (mf, light_gcn, two_tower)
 *   encoder       a graph that makes a history a vector, and item vectors   (sasrec, gru4rec)
 *   graph_filter  the graph of users and items, and its leading singular vectors   (graph_filter)
 *   ranker        a function of a row's features: a sum, and of pairs   (logistic, fm)
 *   gbdt          a sum of trees over a row's fields                    (gbdt)
 *   network       a graph that makes a row's features a logit: another ranker   (deep_fm, dcn_v2)
 *
 * Fits are threaded, give the same bits for any thread count, look at ev_interrupted() and leave no file
 * behind when they fail. Models are read-only and may be shared by threads.
 */
#ifndef EV_LEARN_H
#define EV_LEARN_H

#include "../math/math.h"
#include "../store/store.h"

/* ---- Progress ------------------------------------------------------------------------------------------*/
typedef struct ev_progress {
  void (*report)(void *ctx, const char *what, double done, double all, double loss); /* loss NaN: none */
  void *ctx;
} ev_progress; /* NULL everywhere means silent */

/* ---- Requests ------------------------------------------------------------------------------------------
 * What a model may know of who is asking: known interactions, oldest first, and the items to leave out. */
typedef struct ev_requests {
  size_t n;
  const uint32_t *user;         /* (n) index in the snapshot, EV_NONE for a stranger */
  const uint64_t *history_ptr;  /* (n + 1) */
  const uint32_t *history;      /* items, oldest first */
  const uint64_t *seen_ptr;     /* (n + 1) or NULL: nothing is left out */
  const uint32_t *seen;         /* items, ascending */
} ev_requests;

/* ---- Models --------------------------------------------------------------------------------------------*/
typedef struct ev_model ev_model;
ev_status ev_model_open(ev_model **out, const char *path); /* validates shapes and indices of the kind */
void ev_model_close(ev_model *m);
const char *ev_model_kind(const ev_model *m);
size_t ev_model_n_items(const ev_model *m);
const ev_pack *ev_model_pack(const ev_model *m);
/* The k best items of each request, in ev_topk's order and padding. @param[out] ids, scores (n, k).
 * All recall kinds. Threaded over requests. */
ev_status ev_model_recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores);
/* Scores of given items for one request (r->n == 1). @param[out] out (n). All recall kinds. */
ev_status ev_model_score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out);

/* ---- Recall fits: path is where the pack is written ------------------------------------------------------*/
ev_status ev_fit_item_scores(const char *path, const float *scores, size_t n_items);

/* Item neighbours: w(i,j) = cᵢⱼ / ((|i| |j|)^alpha + shrink) with cᵢⱼ the users in common (alpha = 0.5: cosine;
 * Sarwar et al. 2001; shrinkage as Bell and Koren 2007); the `neighbours` largest of each item kept. */
typedef struct ev_item_knn_options {
  unsigned neighbours; /* default 200 */
  float shrink;        /* default 10 users */
  float alpha;         /* default 0.5 */
  float user_power;    /* a user of n items counts n^-user_power in cᵢⱼ; default 0 */
} ev_item_knn_options;
ev_status ev_fit_item_knn(const char *path, const ev_view *v, const ev_item_knn_options *o, const ev_progress *p);

/* Content neighbours: cosine of TF-IDF weighted tokens over the given columns of items; serves items nobody has
 * touched. half_life: a history item k steps back counts 2^(-k / half_life); 0 = all alike. */
typedef struct ev_content_options {
  const char *const *columns; /* TOKEN and TOKEN_LIST item columns; n_columns = 0: all there are */
  size_t n_columns;
  unsigned neighbours;        /* default 200 */
  float idf_power;            /* default 1 */
  float half_life;            /* in history steps; default 0 */
} ev_content_options;
ev_status ev_fit_content(const char *path, const ev_view *v, const ev_content_options *o, const ev_progress *p);

/* Transitions: w(i,j) = cᵢⱼ / (|i|^from_power |j|^to_power + shrink), where every user with j d steps after i, 1 <= d <= window,
 * adds decay^(d−1) to cᵢⱼ and `backward` times as much to cⱼᵢ (first-order Markov chains with skips: Shani et al. 2005; window 1,
 * backward 0, from_power 1, to_power 0: the chain itself, but for the last items of histories). The `neighbours` largest of
 * each item kept. Needs histories in order. */
typedef struct ev_markov_options {
  unsigned neighbours;         /* default 200 */
  unsigned window;             /* default 10; 0: the whole history */
  float decay, backward;       /* defaults 0.8, 0.3 */
  float from_power, to_power;  /* defaults 0.5, 0.3 */
  float shrink;                /* default 1 */
  float user_power;            /* a user of n items counts n^-user_power; default 0 */
  float half_life;             /* as in ev_content_options; default 2 */
} ev_markov_options;
ev_status ev_fit_markov(const char *path, const ev_view *v, const ev_markov_options *o, const ev_progress *p);

/* SLIM (Ning and Karypis 2011): for each item j the weights w, w_j = 0, that minimise ½‖W(x_j − Xw)‖² + ½ l2 ‖w‖² + l1 ‖w‖₁ with
 * W = Dᵤ^-user_power, by coordinate descent on XᵀW²X (Friedman et al. 2010); w >= 0 where nonnegative. l2 must be above 0. */
typedef struct ev_slim_options {
  float l1, l2;         /* defaults 2, 20 on raw counts */
  bool nonnegative;     /* default true */
  unsigned candidates;  /* items with the largest cosine to j that w may use (fsSLIM); default 1000; 0: all, the exact solution. Where it
                         * limits nothing but n_items, those that share a user with j */
  float user_power;     /* default 0 */
  float tolerance;      /* of the gradient, relative to the largest XᵀW²x_j; default 1e-3 */
} ev_slim_options;
ev_status ev_fit_slim(const char *path, const ev_view *v, const ev_slim_options *o, const ev_progress *p);

/* EASE^R (Steck 2019), degree weighted: G = Wᵀ W with W = Dᵤ^-user_power X Dᵢ^-item_power_in, P = (G + λI)^-1,
 * B = I − P diag(P)^-1, score(u, ·) = x_u Dᵢ^-item_power_in B Dᵢ^item_power_out. All powers 0: the published
 * model. The diagonal of B is 0. */
typedef struct ev_ease_options {
  float lambda;         /* default 200 on raw counts */
  float user_power, item_power_in, item_power_out;
} ev_ease_options;
ev_status ev_fit_ease(const char *path, const ev_view *v, const ev_ease_options *o, const ev_progress *p);

/* iALS (Hu, Koren, Volinsky 2008) with the unobserved weight and the frequency-scaled regulariser of Rendle et al.
 * 2022: Σ_S (x − wᵀh)² + α₀ Σ_{all} (wᵀh)² + λ Σᵤ (|Sᵤ| + α₀ n_items)^ν ‖wᵤ‖² + the same for items. */
typedef struct ev_ials_options {
  unsigned n_dims, epochs;       /* defaults 64, 12 */
  float unobserved_weight;       /* α₀ */
  float regularization;          /* λ */
  float frequency_power;         /* ν, default 1 */
  float init_std;                /* default 0.1, divided by √n_dims */
  uint64_t seed;
} ev_ials_options;
ev_status ev_fit_ials(const char *path, const ev_view *v, const ev_ials_options *o, const ev_progress *p);

/* The same vectors with an index over the items' in one file, so that candidates are found without looking at every item. Both sides
 * are turned into the basis where ItemᵀItem is diagonal: no product changes, and folding a user in takes microseconds.
 *   a user who is known, with the history that he was trained on   his trained vector
 *   another history                                               folded in: the least squares above, to a relative residual of 1e-5
 *   no history                                                    the items that most users have; their number is the score
 * index: kind, form, n_links, effort_build, n_lists, effort, seed; the metric is dot, and items keep their f32 vectors, so that
 * scores are exact. A flat index gives what ev_fit_ials gives. Same bits for any number of threads. */
ev_status ev_fit_indexed(const char *path, const ev_view *v, const ev_ials_options *o, const ev_index_options *index, const ev_progress *p);
/* As ev_model_recall with so much effort in the index (ev_search), 0: as it was made. EV_EINVAL: effort, and the model has no index. */
ev_status ev_model_search(const ev_model *m, const ev_requests *r, size_t k, unsigned effort, uint32_t *ids, float *scores);

/* Columns of numbers over items, looked up by slates: not a recall and not a ranker, but what one is made of. */
ev_status ev_fit_item_columns(const char *path, const char *const *names, const float *const *columns, size_t n_columns, size_t n_items); /* columns[c] (n_items), finite. At most EV_SLATE_MAX_COLUMNS; EV_EINVAL */
/* Makes the model's columns those of the slate, each candidate having its item's number; 0 where the model does not know it. EV_EINVAL: a model of another kind. */
ev_status ev_model_fill(const ev_model *m, ev_slate *s);

/* out (n of the slate): the share of the request's history whose items have the candidate's number in that column; 0 without a history, and for an
 * item that the model does not know. r->n == 1. EV_EINVAL as above, and: no such column. */
ev_status ev_model_share(const ev_model *m, const ev_requests *r, ev_slate *s, const char *column, float *out);

/* Clusters of the items by the directions of their vectors (ev_clusters). Kinds with item vectors: factors, indexed, vectors.
 * @param[out] out (n_items) */
ev_status ev_model_clusters(const ev_model *m, uint32_t *out, size_t k, uint64_t seed);

/* Graph filtering in closed form (GF-CF: Shen et al. 2021) with blurring and sharpening (BSPM: Choi et al. 2023). With
 * R̃ = Dᵤ^-user_power X Dᵢ^-item_power, scaled to a largest singular value of 1, P = R̃ᵀR̃, and V the n_dims leading right
 * singular vectors of R̃, σ their values (σ₁ = 1):
 *   blurred    dy/dt = yP − y from x_u, blur_steps Euler steps of blur_time in all; one of time 1: x_u P
 *   low pass   low_pass · x_u Dᵢ^-p V diag(σ^singular_power) Vᵀ Dᵢ^p, p = low_pass_power, is added
 *   sharpened  dy/dt = −yP, sharpen_steps steps of sharpen_time in all, each the Taylor polynomial of sharpen_order
 *              (1: Euler, 4: Runge-Kutta); `late` adds the low pass after it instead of before
 *   score      y Dᵢ^item_power_out
 * Powers of ½ and no sharpening: GF-CF as published. A user is what he brings: nothing is kept of him. */
typedef struct ev_graph_filter_options {
  unsigned n_dims;              /* default 256; 0: no low pass */
  float user_power, item_power; /* default ½ */
  float low_pass, low_pass_power, singular_power; /* defaults 0.3, ½, 0 (ideal: all alike) */
  float blur_time, sharpen_time;                  /* defaults 1, 2.5 */
  unsigned blur_steps, sharpen_steps, sharpen_order; /* at least 1, default 1; default 0; 1 … 4, default 4 */
  bool late;
  float item_power_out;         /* default 0 */
  float tolerance;              /* of the singular vectors, as in ev_svd_options; default 1e-4 */
  uint64_t seed;
} ev_graph_filter_options;
ev_status ev_fit_graph_filter(const char *path, const ev_view *v, const ev_graph_filter_options *o, const ev_progress *p);

/* ---- Rankers: rows ---------------------------------------------------------------------------------------
 * A row is one candidate of one slate, or one impression. A ranker of any kind learns from rows, sees them through fields,
 * and scores rows or a slate. */
typedef struct ev_rank_rows { /* a training set under construction; owns copies */
  size_t n_rows, n_dense, cap;
  char **dense_names;  /* (n_dense) slate columns */
  float *dense;        /* (n_rows, n_dense) */
  uint32_t *user, *item; /* (n_rows) */
  float *label;        /* (n_rows) 0 or 1 */
  uint32_t *group;     /* (n_rows) slate number, ascending */
  bool impressions;    /* rows have labels of their own: negatives are never sampled */
} ev_rank_rows;

ev_status ev_rank_rows_new(ev_rank_rows **out, const char *const *dense_names, size_t n_dense);
/* Adds a slate's candidates; label 1 when the item is in positives (ascending). Missing columns count 0. */
ev_status ev_rank_rows_add(ev_rank_rows *rows, ev_slate *s, uint32_t user, const uint32_t *positives, size_t n_positives);
/* Adds the interactions of a view as impressions, user by user; label 1 when rated least_rating or more. EV_EINVAL: unrated. */
ev_status ev_rank_rows_add_view(ev_rank_rows *rows, const ev_view *v, double least_rating);
void ev_rank_rows_free(ev_rank_rows *rows);
/* The rows an epoch goes through, in a seeded order: all positives, and of each slate's own negatives a sample of
 * per_positive for each positive (0, and of impressions: all). @param[out] out (n_rows). Returns how many. */
size_t ev_rank_rows_choose(uint32_t *out, const ev_rank_rows *rows, float per_positive, ev_rng *rng);

/* ---- Rankers: fields --------------------------------------------------------------------------------------
 * What a ranker sees of a row: the named slate columns (a rank r enters as its discount 1 / log2(1 + r), 0 where the input
 * had none), then of its user and then of its item the id, where ids are wanted, and the named feature columns. The tokens of
 * all fields, and each number as one more, are the features of one vocabulary: field f has offset … offset + size − 1.
 * Numbers are standardised over the training rows. A missing value, and a token that no training row has, is nothing.
 * Fields are kept in the model's pack, as arrays "fields", "slots", "mean", "std" and "known".
 *
 * A reader is fields bound to rows; it gives them in either of two forms:
 *   sparse    the features of a row that are not 0, each with its value: a list of m tokens counts 1/m each
 *   columns   codes u32 and weights f32 (n, n_slots), of the tokens; values f32 (n, n_dense), of the numbers. A field of
 *             tokens has slot … slot + n_slots − 1 (1, or as many as its lists are long, at most EV_SLOTS_MAX); where there is
 *             nothing, the weight is 0 and the code still one of the field's. Any code, and the offset of any number, is a row
 *             of an embedding table of ev_fields_n_features rows. */
#define EV_FIELDS_MAX 192
#define EV_SLOTS_MAX 16            /* of one field: further tokens of a list are left out */
#define EV_ROW_FEATURES_MAX 1024   /* of one row, in the sparse form: likewise */
typedef enum ev_row_source { EV_FROM_USER, EV_FROM_ITEM, EV_FROM_SLATE } ev_row_source;
typedef struct ev_rank_field {
  char name[208];        /* of the column; "" of an id */
  ev_row_source from;
  ev_column_type type;   /* FLOAT for slate columns, TOKEN for ids */
  bool id;               /* the user or the item itself */
  size_t size, offset;   /* features it has, and the first of them */
  size_t slot, n_slots;  /* TOKEN and TOKEN_LIST: its columns of codes */
  size_t dense;          /* FLOAT: its column of values */
  float mean, std;       /* FLOAT: of the training rows; else 0, 1 */
} ev_rank_field;

typedef struct ev_fields ev_fields;
typedef struct ev_fields_options {
  const char *const *user_columns, *const *item_columns; /* feature columns to use */
  size_t n_user_columns, n_item_columns;
  bool ids;              /* user and item themselves are fields too */
} ev_fields_options;
/* Chooses and measures the fields over all the rows. EV_EINVAL names a column that is not there; EV_ELIMIT. */
ev_status ev_fields_fit(ev_fields **out, const ev_snapshot *s, const ev_rank_rows *rows, const ev_fields_options *o);
ev_status ev_fields_write(const ev_fields *f, ev_pack_writer *w);
ev_status ev_fields_read(ev_fields **out, const ev_pack *p); /* copies; EV_ECORRUPT */
void ev_fields_free(ev_fields *f);
size_t ev_fields_n(const ev_fields *f);
const ev_rank_field *ev_fields_at(const ev_fields *f, size_t i);
size_t ev_fields_n_features(const ev_fields *f); /* size of the vocabulary */
size_t ev_fields_n_slots(const ev_fields *f);
size_t ev_fields_n_dense(const ev_fields *f);

typedef struct ev_row_reader ev_row_reader; /* borrows fields, snapshot and rows or slate: nothing of them may change meanwhile. Read by any number of threads */
/* EV_EINVAL when the snapshot's columns are not those of the fit. A slate column that slate or rows have not is 0. */
ev_status ev_row_reader_of_rows(ev_row_reader **out, const ev_fields *f, const ev_snapshot *s, const ev_rank_rows *rows);
ev_status ev_row_reader_of_slate(ev_row_reader **out, const ev_fields *f, const ev_snapshot *s, ev_slate *slate, uint32_t user);
void ev_row_reader_free(ev_row_reader *r);
size_t ev_row_reader_n(const ev_row_reader *r);
/* Sparse form of one row. @param[out] index, value (EV_ROW_FEATURES_MAX). Returns how many. */
size_t ev_row_features(uint32_t *index, float *value, const ev_row_reader *r, size_t row);
/* Columns of rows[0..n), or where rows is NULL of first … first + n − 1. missing is what a missing number becomes (0: the
 * mean). Any of codes with weights, and values, may be NULL. */
void ev_row_columns(uint32_t *codes, float *weights, float *values, const ev_row_reader *r, const uint32_t *rows, size_t first, size_t n, float missing);

/* ---- Rankers: fits and scores ------------------------------------------------------------------------------*/
typedef struct ev_ranker_options {
  unsigned n_dims;         /* 0: logistic regression; > 0: factorisation machine (Rendle 2010) of that rank */
  unsigned epochs;         /* default 5 */
  float learning_rate;     /* Adagrad, default 0.02 */
  float regularization;    /* L2, default 1e-5: a feature's weights cost regularization · n^frequency_power / 2 · their squares, */
  float frequency_power;   /* n being its rows. 1, the default: each of its rows adds its share; 0: ridge, the rarer the more shrunk */
  float negatives_per_positive; /* sampled from the slate's own zeros; 0 = all; default 0 */
  const char *const *user_columns, *const *item_columns; /* feature columns to use */
  size_t n_user_columns, n_item_columns;
  bool ids;                /* see ev_fields_options; default false */
  uint64_t seed;
} ev_ranker_options;
ev_status ev_fit_ranker(const char *path, const ev_snapshot *s, const ev_rank_rows *rows, const ev_ranker_options *o, const ev_progress *p);

/* Gradient-boosted trees on the logistic loss (Friedman 2001; Chen and Guestrin 2016), over histograms. Numbers are split at
 * thresholds, missing ones going the better way; a field of at most one_hot tokens one token against the rest, and by its
 * number where every token is one; the tokens of a list each by itself; a field of more tokens, and ids, by the tokens' mean
 * label shrunk by `smoothing` rows of the overall mean, and by how many rows they have, a training row being told by other folds. */
typedef struct ev_gbdt_options {
  unsigned n_trees;        /* default 100 */
  unsigned n_leaves;       /* of a tree, 2 … 4096; default 31 */
  unsigned max_depth;      /* 0: as deep as leaves allow; default 6 */
  unsigned n_bins;         /* of a column, 3 … 256; default 256 */
  unsigned one_hot;        /* default 64, at most 254 */
  float learning_rate;     /* default 0.1 */
  float l2;                /* λ on the leaves' values; default 1 */
  float min_child_weight;  /* least sum of second derivatives in a leaf; default 1 */
  float min_gain;          /* a split must gain more; default 0 */
  float subsample;         /* share of the rows each tree is grown on; default 1 */
  float column_share;      /* share of the columns each tree may use; default 1 */
  float smoothing;         /* rows; default 10 */
  float negatives_per_positive; /* as above, drawn once */
  const char *const *user_columns, *const *item_columns;
  size_t n_user_columns, n_item_columns;
  bool ids;
  uint64_t seed;
} ev_gbdt_options;
ev_status ev_fit_gbdt(const char *path, const ev_snapshot *s, const ev_rank_rows *rows, const ev_gbdt_options *o, const ev_progress *p);

/* Writes the ranker's logit of every candidate, or of every row, to out (n). All kinds that rank. The model must have been
 * fitted on this snapshot's columns: EV_EINVAL when their vocabularies differ in size. Rows are scored by all threads. */
ev_status ev_ranker_score(const ev_model *m, const ev_snapshot *s, ev_slate *slate, uint32_t user, float *out);
ev_status ev_ranker_score_rows(const ev_model *m, const ev_snapshot *s, const ev_rank_rows *rows, float *out);

/* ---- Graphs of tensors ------------------------------------------------------------------------------------
 * A scheme records a graph once; a plan then runs it any number of times. Tensors are float32, row-major, of at most
 * four dimensions; ids are u32. The first dimension may count something whose number changes from run to run (the rows
 * of a batch, the items of its sequences): an axis, with a capacity that memory is planned for and a live length set
 * before a run. Operators look at the live rows only, so short sequences cost what they are long.
 *
 * Operators, with their equations, are listed in graph.h; ev_graph_op finds them by name. All give the same bits
 * whatever the number of threads. A graph and its plans belong to one thread. */
typedef struct ev_graph ev_graph;
typedef uint32_t ev_tensor; /* numbered in the order recorded */
#define EV_TENSOR_RANK 4

typedef struct ev_shape {
  unsigned rank;                /* 0: a scalar */
  size_t dim[EV_TENSOR_RANK];   /* dim[0] is the capacity where there is an axis */
  unsigned axis;                /* of the first dimension; 0: none, its length is fixed */
} ev_shape;

/* max_bytes: of parameters, inputs and plans together; what goes beyond is EV_ELIMIT, named with its shape. */
ev_status ev_graph_new(ev_graph **out, uint64_t seed, uint64_t max_bytes);
void ev_graph_free(ev_graph *g); /* after its plans; NULL does nothing */

ev_status ev_graph_axis(ev_graph *g, unsigned *axis, size_t capacity);
ev_status ev_graph_set_live(ev_graph *g, unsigned axis, size_t n); /* n <= capacity */
size_t ev_graph_live(const ev_graph *g, unsigned axis);
/* Says where the nodes recorded from now on stand in a script ("FILE:LINE"), for messages. Copied. */
void ev_graph_at(ev_graph *g, const char *where);

/* Leaves. Names are unique, at most 40 bytes. shape->rank 0 to 4. */
ev_status ev_graph_input(ev_graph *g, ev_tensor *out, const char *name, const ev_shape *shape);      /* float32, zeros until filled */
ev_status ev_graph_input_ids(ev_graph *g, ev_tensor *out, const char *name, const ev_shape *shape);  /* u32 */
ev_status ev_graph_constant(ev_graph *g, ev_tensor *out, double value);                              /* a scalar */
typedef enum ev_init { EV_INIT_ZEROS, EV_INIT_ONES, EV_INIT_NORMAL, EV_INIT_UNIFORM, EV_INIT_XAVIER } ev_init;
/* normal: std = scale; uniform: ±scale; xavier: uniform, ±scale √(6 / (rows + cols)) (Glorot and Bengio 2010). Drawn from
 * the graph's seed and the parameter's number. decay: share of the optimiser's weight decay that it feels (1, or 0). */
ev_status ev_graph_parameter(ev_graph *g, ev_tensor *out, const char *name, const ev_shape *shape, ev_init init, float scale, float decay);
/* Its steps are so many times the optimiser's learning rate; 1 unless set. EV_EINVAL: t is no parameter. */
ev_status ev_graph_parameter_rate(ev_graph *g, ev_tensor t, float rate);
/* A sparse matrix (n_rows, n_cols); values NULL: all 1. Copied, with its transpose, which gradients need. */
ev_status ev_graph_sparse(ev_graph *g, ev_tensor *out, const char *name, size_t n_rows, size_t n_cols, const uint64_t *ptr, const uint32_t *idx, const float *values);

/* Records an operator: EV_EINVAL names it, the shapes that do not fit, and where it stands. */
ev_status ev_graph_op(ev_graph *g, ev_tensor *out, const char *op, const ev_tensor *in, size_t n_in, const double *attr, size_t n_attr);

size_t ev_graph_size(const ev_graph *g); /* number of nodes */
const ev_shape *ev_graph_shape(const ev_graph *g, ev_tensor t);
const char *ev_graph_name(const ev_graph *g, ev_tensor t);   /* a leaf's name, an operator's word */
ev_tensor ev_graph_find(const ev_graph *g, const char *name); /* the leaf called so; EV_NONE: no such */
float *ev_graph_values(ev_graph *g, ev_tensor t, size_t *n);  /* of a float leaf, to read or fill; NULL: it has none. Valid as long as g */
uint32_t *ev_graph_ids(ev_graph *g, ev_tensor t, size_t *n);  /* of an ids leaf */

/* A plan runs what `outputs` need; with a loss (a scalar of the graph, else EV_NONE) also the gradients of every parameter
 * below it. All memory is laid out here: a run allocates nothing. The graph must not grow under a plan's run, but may
 * grow between plans. */
typedef struct ev_plan ev_plan;
ev_status ev_plan_new(ev_plan **out, ev_graph *g, const ev_tensor *outputs, size_t n_outputs, ev_tensor loss);
void ev_plan_free(ev_plan *p); /* NULL does nothing */
size_t ev_plan_bytes(const ev_plan *p);
/* training: dropout is on, drawn from (seed, step), and gradients follow. @param[out] loss may be NULL.
 * EV_EINVAL: an id out of range, or a loss that is no number: the message names the operator where it began. */
ev_status ev_plan_run(ev_plan *p, bool training, uint64_t step, double *loss);
/* The value of an output (or of a leaf) after a run: live rows only, borrowed until the next run. */
const float *ev_plan_value(const ev_plan *p, ev_tensor t, ev_shape *live);
/* The gradient of a parameter after a training run, as a dense array (tests, tools). @param[out] out: all of its elements. */
ev_status ev_plan_gradient(const ev_plan *p, ev_tensor parameter, float *out);

/* Optimisers: SGD, momentum (Polyak 1964), Adagrad (Duchi et al. 2011), Adam (Kingma and Ba 2015), AdamW (Loshchilov and
 * Hutter 2019). A parameter that is only ever gathered from is updated lazily: the rows a step touched, moments and
 * decay included. Weight decay is added to the gradient, but for AdamW, which shrinks the weights by rate · decay. */
typedef enum ev_optimiser_kind { EV_SGD, EV_MOMENTUM, EV_ADAGRAD, EV_ADAM, EV_ADAMW } ev_optimiser_kind;
typedef struct ev_optimiser_options {
  ev_optimiser_kind kind;
  float momentum;       /* default 0.9 */
  float beta1, beta2;   /* 0.9, 0.999 */
  float epsilon;        /* 1e-8; Adagrad 1e-10 */
  float weight_decay;   /* 0 */
  float clip_norm;      /* of all gradients together; 0: off */
} ev_optimiser_options;
void ev_optimiser_defaults(ev_optimiser_options *o, ev_optimiser_kind kind);
typedef struct ev_optimiser ev_optimiser;
ev_status ev_optimiser_new(ev_optimiser **out, ev_plan *p, const ev_optimiser_options *o); /* of every parameter under p's loss; p must outlive it */
void ev_optimiser_free(ev_optimiser *o);
ev_status ev_optimiser_step(ev_optimiser *o, float learning_rate); /* after a training run; EV_EINVAL when a gradient is no number */
uint64_t ev_optimiser_steps(const ev_optimiser *o);
double ev_optimiser_norm(const ev_optimiser *o); /* of the last step's gradients, before clipping; 0 unless clip_norm is set */

/* A graph in a pack: every node, every parameter (sparse matrices and what needs them are left out: EV_EINVAL when an
 * output needs one). Reading records the nodes again, so that a damaged file is refused by the same checks. */
ev_status ev_graph_write(const ev_graph *g, ev_pack_writer *w, const ev_tensor *outputs, const char *const *names, size_t n_outputs);
ev_status ev_graph_read(ev_graph **out, const ev_pack *p, uint64_t max_bytes);
ev_tensor ev_graph_output(const ev_graph *g, const char *name); /* of a graph that was read; EV_NONE: no such */
/* A checkpoint: parameters, moments and number of steps; training goes on from it bit for bit. */
ev_status ev_optimiser_save(const ev_optimiser *o, const char *path);
ev_status ev_optimiser_load(ev_optimiser *o, const char *path); /* EV_EINVAL: of another graph or optimiser; nothing is changed then */

/* ---- Batches -----------------------------------------------------------------------------------------------
 * What a step of training looks at: named inputs of a graph, filled anew for each step. What step t finds there is a pure
 * function of (view, options, seed, t), whatever was filled before and however many threads there are: a run goes on from
 * where it was broken off. An input is recorded as "NAME.word" when it is first asked for; what nobody asks for costs nothing.
 *
 *   pairs: rows are interactions, B = size of them on an axis; an epoch is a seeded shuffle of all. Its last batch may be short
 *     user item (B) ids           the interaction
 *     negative (B, n) ids         or (n) when shared: items drawn against it, or against the whole batch
 *     item_log_q negative_log_q   log of the probability that a draw is that item; without negatives the batch itself is what
 *                                 is drawn from, and item_log_q is item_log_share
 *     item_log_share (B)          log of the item's share of all interactions: what an in-batch negative is drawn with
 *     user_known item_known negative_known   ids for a table of vectors of their own: EV_NONE for who has no interaction in the
 *                                 view, and in a share id_dropout of the rows, so that features learn to stand alone
 *     rating (B)                  where the data are rated
 *   sequences: a user's last max_length + 1 interactions are one sequence; B sequences on one axis, their T items on another,
 *   one after the other, longest first. An epoch has every user of two or more once, in a seeded order; users of like length are
 *   dealt out evenly over its batches, so that all of them cost about the same and T is little more than the mean
 *     item (T) target (T) ids     an item, and the one that came after it
 *     position (T) ids            from the start, 0 first; or from the end, 0 last
 *     negative (T, n) or (n) ids  target_log_q negative_log_q target_log_share item_known target_known negative_known as above
 *     sequence (T) ids            which of the B the row is of
 *     length last user (B) ids    items of a sequence; the row of its last one; whose it is
 *     user_known (B) ids
 *   rows: what a ranker learns from, B of them on an axis; an epoch has all positives and of each slate's negatives as many as
 *   negatives_per_positive says, chosen anew, all in a seeded order
 *     codes (B, n_slots) ids, weights (B, n_slots)   the tokens, in the columns that fields.c makes; weight 0: nothing there
 *     dense (B, n_dense)          the numbers, standardised; a missing one is 0
 *     label (B)                   0 or 1 */
typedef struct ev_sampler_options {
  double uniform, popularity; /* shares of the draws, in any scale; defaults 1, 0 */
  double power;               /* popularity: an item is drawn as its number of interactions to this power; default 0.75 */
  bool known_only;            /* items without an interaction in the view are not drawn uniformly either; default false */
} ev_sampler_options;

typedef struct ev_batch_options { /* ev_batch_defaults, then set */
  const char *name;           /* of the inputs; default "batch"; at most 20 bytes */
  size_t size;                /* B: pairs 2048, sequences 128 */
  bool whole;                 /* pairs: B is no axis: an epoch's last batch is filled up with its first rows. What scores rows against each other wants it; default false */
  size_t n_negatives;         /* default 1 */
  bool shared;                /* one set of negatives for the whole batch; a user's own items may be among them */
  bool avoid_seen;            /* negatives are drawn again when the user has the item in the view; default true */
  ev_sampler_options sampler;
  double id_dropout;          /* default 0 */
  size_t max_length;          /* sequences: default 50 */
  bool from_start;            /* sequences: how positions are counted; default true */
  bool window;                /* sequences: of a longer history a seeded window, not always the last; default false */
  double negatives_per_positive; /* rows: 0: all; default 0 */
  double held;                /* rows: a seeded share that no epoch has, to validate on; [0, 0.9], default 0 */
  bool held_groups;           /* rows: whole slates (of impressions: users) are held, not rows of each; default false */
  uint64_t seed;
} ev_batch_options;
void ev_batch_defaults(ev_batch_options *o);

typedef struct ev_batches ev_batches;
/* The graph and the view must outlive the batches. EV_EINVAL when there is nothing to learn from. */
ev_status ev_pairs_new(ev_batches **out, ev_graph *g, const ev_view *v, const ev_batch_options *o);
ev_status ev_sequences_new(ev_batches **out, ev_graph *g, const ev_view *v, const ev_batch_options *o);
/* Takes the fields, also when it fails; the rows must outlive the batches. view: of the snapshot that both are of. */
ev_status ev_rows_new(ev_batches **out, ev_graph *g, const ev_view *v, const ev_rank_rows *rows, ev_fields *fields, const ev_batch_options *o);
const ev_fields *ev_batches_fields(const ev_batches *b); /* of rows; else NULL */
void ev_batches_free(ev_batches *b); /* its inputs stay in the graph; NULL does nothing */
/* The input called by this word; EV_EINVAL lists those there are. */
ev_status ev_batches_input(ev_batches *b, const char *word, ev_tensor *out);
ev_status ev_batches_fill(ev_batches *b, uint64_t step, size_t *n_rows); /* n_rows: pairs or items in it; may be NULL */
uint64_t ev_batches_per_epoch(const ev_batches *b); /* steps */
size_t ev_batches_rows(const ev_batches *b);        /* rows of an epoch, all batches together */
size_t ev_batches_held(const ev_batches *b);        /* rows that are held; 0 but of rows */
/* The held rows from `first` on, in their order, as many as a batch takes. EV_EINVAL: first is none of them. */
ev_status ev_batches_fill_held(ev_batches *b, size_t first, size_t *n_rows);
/* The table (n, d) that tensor t stands for, n the users or the items: t is computed from parameters alone and has n rows, or
 * from the batches' inputs about that side alone (user, user_known; item, item_known) and is then computed for all of them in
 * turn, nobody's id dropped. b may be NULL. @param[out] table, d: owned by the caller, ev_free; d = 1 for a tensor of one
 * dimension. EV_EINVAL says why it stands for none. */
ev_status ev_batches_table(ev_batches *b, ev_graph *g, ev_tensor t, ev_side side, size_t n, float **table, size_t *d);

/* Feature columns of a side as a sparse tensor (n_users or n_items, features): a token is a column of its own, with 1 in it, or
 * 1/m where it is one of a list of m; a number is one column, standardised over all rows that have it. */
ev_status ev_graph_features(ev_graph *g, ev_tensor *out, const char *name, const ev_snapshot *s, ev_side side, const char *const *columns, size_t n_columns);

/* ---- Models of graphs -----------------------------------------------------------------------------------------
 * vectors: score(u, i) = qᵤ · item_i + bias_i. qᵤ is the user's row of `user`, unless it is all zeros or he is a stranger; then
 * Σ context[j] / n^history_power over the n items j of his history. Who has neither gets nothing. */
typedef struct ev_vectors {
  const float *user;    /* (n_users, n_dims) or NULL */
  const float *item;    /* (n_items, n_dims) */
  const float *context; /* (n_items, n_dims); NULL: item */
  const float *bias;    /* (n_items) or NULL */
  size_t n_users, n_items, n_dims;
  bool cosine;          /* vectors are written with length 1, and qᵤ is given it */
  float history_power;  /* 1: the mean */
  const ev_view *view;  /* who has no interaction in it is written as zeros: nothing was learnt of him. NULL: nobody */
} ev_vectors;
ev_status ev_fit_vectors(const char *path, const ev_vectors *x); /* EV_EINVAL names a row with a number that is not finite */

/* encoder: score(u, i) = q · item_i + bias_i, q what the graph computes from the last max_length items of the history, in the
 * inputs of batches of sequences (item, item_known, position, sequence, length, last, user, user_known). What it computes from
 * parameters alone, sparse matrices included, is kept as its value. Who has no history gets nothing. Requests are put through the graph in blocks, one call at a time. */
typedef struct ev_encoder {
  ev_batches *batches; /* of sequences: names the inputs, says how long a history is and how positions are counted */
  ev_tensor query;     /* (B, d) on the axis of sequences, or (T, d) on that of their items: the last item's row */
  const float *item;   /* (n_items, d) */
  const float *bias;   /* (n_items) or NULL */
  size_t n_items, n_dims;
  bool cosine;         /* as above */
} ev_encoder;
ev_status ev_fit_encoder(const char *path, const ev_encoder *x); /* EV_EINVAL: the query depends on what no request brings */

/* network: a ranker whose logit (B) or (B, 1) a graph computes from the codes, weights and numbers of batches of rows. */
ev_status ev_fit_network(const char *path, const ev_batches *rows, ev_tensor logit); /* EV_EINVAL: the logit depends on something else */

#endif
