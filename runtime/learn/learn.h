/* learn.h - models: how they are fitted from a view, and what they answer.
 *
 * A fit is a pure function (view, options, seed) → a pack file; a model is that file, mapped. The kinds:
 *
 *   item_scores   one score an item, the same for everybody           (popular, fresh_popular)
 *   item_graph    sparse item-item weights; a user is the sum of his items' rows (item_knn, similar_content, markov, slim)
 *   item_linear   dense symmetric item-item matrix, half stored, with weights in and out (ease)
 *   factors       user and item vectors; unknown or changed users are folded in   (ials)
 *   graph_filter  the graph of users and items, and its leading singular vectors   (graph_filter)
 *   ranker        a function of a candidate's features                (logistic, fm)
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

/* ---- Rankers ---------------------------------------------------------------------------------------------
 * A row is one candidate of one slate. Its fields: every named slate column (float, standardised), and the
 * named feature columns of its user and item (tokens one-hot or many-hot, floats standardised). */
typedef struct ev_rank_rows { /* a training set under construction; owns copies */
  size_t n_rows, n_dense, cap;
  char **dense_names;  /* (n_dense) slate columns */
  float *dense;        /* (n_rows, n_dense) */
  uint32_t *user, *item; /* (n_rows) */
  float *label;        /* (n_rows) 0 or 1 */
  uint32_t *group;     /* (n_rows) slate number, ascending */
} ev_rank_rows;

ev_status ev_rank_rows_new(ev_rank_rows **out, const char *const *dense_names, size_t n_dense);
/* Adds a slate's candidates; label 1 when the item is in positives (ascending). Missing columns count 0. */
ev_status ev_rank_rows_add(ev_rank_rows *rows, ev_slate *s, uint32_t user, const uint32_t *positives, size_t n_positives);
void ev_rank_rows_free(ev_rank_rows *rows);

typedef struct ev_ranker_options {
  unsigned n_dims;         /* 0: logistic regression; > 0: factorisation machine (Rendle 2010) of that rank */
  unsigned epochs;         /* default 5 */
  float learning_rate;     /* Adagrad, default 0.02 */
  float regularization;    /* L2, default 1e-5 */
  float negatives_per_positive; /* sampled from the slate's own zeros; 0 = all; default 0 */
  const char *const *user_columns, *const *item_columns; /* feature columns to use */
  size_t n_user_columns, n_item_columns;
  uint64_t seed;
} ev_ranker_options;
ev_status ev_fit_ranker(const char *path, const ev_snapshot *s, const ev_rank_rows *rows, const ev_ranker_options *o, const ev_progress *p);
/* Writes the ranker's logit of every candidate to out (n). The model must have been fitted on this snapshot's
 * columns: EV_EINVAL when their vocabularies differ in size. */
ev_status ev_ranker_score(const ev_model *m, const ev_snapshot *s, ev_slate *slate, uint32_t user, float *out);

#endif
