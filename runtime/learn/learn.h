/* learn.h - models: how they are fitted from a view, and what they answer.
 *
 * A fit is a pure function (view, options, seed) → a pack file; a model is that file, mapped. The kinds:
 *
 *   item_scores   one score an item, the same for everybody           (popular, fresh_popular)
 *   item_graph    sparse item-item weights; a user is the sum of his items' rows (item_knn, similar_content)
 *   item_linear   dense symmetric item-item matrix, half stored, with weights in and out (ease)
 *   factors       user and item vectors; unknown or changed users are folded in   (ials)
 *   ranker        a function of a row's features: a sum, and of pairs   (logistic, fm)
 *   gbdt          a sum of trees over a row's fields                    (gbdt)
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

#endif
