/* item_graph.h - writing a sparse item-item model; private to this room. */
#ifndef EV_LEARN_ITEM_GRAPH_H
#define EV_LEARN_ITEM_GRAPH_H

#include "learn.h"

/* Fills one item's row: weights to other items in acc (n_items, zero outside touched), the touched items listed. */
typedef void ev_row_fn(void *ctx, uint32_t item, float *acc, uint32_t *touched, size_t *n_touched);

/* Computes every row in parallel, keeps the `keep` largest positive weights of each (ties: lower id) and writes the
 * model. half_life as in ev_content_options; 0: all history alike. */
ev_status ev_item_graph_fit(const char *path, size_t n_items, size_t keep, float half_life, ev_row_fn *row, void *ctx, const ev_progress *p);

/* Writes a model from rows that are there already: ptr (n_items + 1), idx and weight (ptr[n_items]). */
ev_status ev_item_graph_write(const char *path, size_t n_items, const uint64_t *ptr, const uint32_t *idx, const float *weight, float half_life);

#endif
