/* kinds.h - what a kind of model is to model.c; private to this room. */
#ifndef EV_LEARN_KINDS_H
#define EV_LEARN_KINDS_H

#include "learn.h"

typedef struct ev_kind {
  const char *name;
  /* Checks shapes and indices of the pack, so that nothing afterwards reads out of bounds; sets n_items and state. */
  ev_status (*open)(ev_model *m);
  void (*close)(ev_model *m);
  ev_status (*recall)(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores); /* NULL: a ranker */
  ev_status (*score)(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out);
  /* Logits of rows begin … end − 1 to out[0 .. end − begin); NULL: not a ranker. open has set fields. Any thread. */
  ev_status (*rank)(const ev_model *m, const ev_row_reader *r, size_t begin, size_t end, float *out);
} ev_kind;

struct ev_model {
  ev_pack *pack;
  const ev_kind *kind;
  size_t n_items;
  ev_fields *fields; /* of a ranker; freed with the model */
  void *state; /* the kind's own */
};

extern const ev_kind ev_kind_item_scores, ev_kind_item_graph, ev_kind_item_linear, ev_kind_factors, ev_kind_graph_filter, ev_kind_vectors, ev_kind_encoder,
    ev_kind_ranker, ev_kind_gbdt, ev_kind_network, ev_kind_indexed, ev_kind_item_columns;

/* An array of the pack of exactly this shape; EV_ECORRUPT otherwise. */
ev_status ev_model_array(const ev_model *m, const char *name, ev_dtype dtype, size_t rows, size_t cols, const void **out);
/* Element i of the one-row array of numbers called "options". */
double ev_model_option(const ev_model *m, size_t i);
ev_status ev_requests_check(const ev_requests *r, size_t n_items); /* every item below n_items */

/* ---- Factors ---- (ials.c) */
/* The vectors of users (n_users, d) and items (n_items, d), owned by the caller; none when it fails. */
ev_status ev_ials_train(float **user, float **item, const ev_view *v, const ev_ials_options *o, const ev_progress *p);
ev_status ev_ials_gram(float *out, const float *item, size_t n_items, size_t d); /* out (d, d) = ItemᵀItem; the same bits for any number of threads */

/* ---- Indexed ---- (indexed.c) */
ev_status ev_indexed_recall(const ev_model *m, const ev_requests *r, size_t k, unsigned effort, uint32_t *ids, float *scores);

/* ---- Vectors ---- (model_vectors.c) */
/* Rows (n, d) as array `name`, divided by their lengths where unit is set, and zeros for those whose range in ptr (n + 1, or NULL)
 * is empty. EV_EINVAL: a number is not finite. */
ev_status ev_vectors_write(ev_pack_writer *w, const char *name, const float *rows, size_t n, size_t d, bool unit, const uint64_t *ptr);
void ev_vectors_unit(float *x, size_t d); /* x / |x|; zeros stay */
/* The k best of query · item + bias for each request, in ev_topk's order and padding; nothing where has[i] is false. */
ev_status ev_vectors_topk(const ev_requests *r, const float *queries, const bool *has, const float *item, const float *bias,
                          size_t n_items, size_t d, size_t k, uint32_t *ids, float *scores);
/* query · item + bias of given items. */
void ev_vectors_score(float *out, const float *query, const float *item, const float *bias, size_t d, const uint32_t *items, size_t n);

#endif
