/* neighbours.c - item neighbours by shared users and by shared tokens. learn.h gives the formulas.
 *
 * Both accumulate one item's row over an inverted index (item → users → items, item → tokens → items) into a dense
 * array and keep a list of what was touched, so the cost is that of the co-occurrences. */
#include <math.h>
#include <string.h>

#include "item_graph.h"
#include "kinds.h"

/* ---- Shared users --------------------------------------------------------------------------------------*/
typedef struct knn {
  const ev_view *view;
  const ev_item_knn_options *o;
  float *user_weight; /* (n_users) n^-user_power */
  float *norm;        /* (n_items) |i|^alpha */
} knn;

static void knn_row(void *ctx, uint32_t item, float *acc, uint32_t *touched, size_t *n_touched) {
  const knn *k = ctx;
  const ev_csr *users = &k->view->by_item, *items = &k->view->by_user;
  size_t n = 0;
  for (uint64_t a = users->ptr[item]; a < users->ptr[item + 1]; a++) {
    uint32_t u = users->idx[a];
    float w = k->user_weight[u];
    if (w == 0) continue; /* underflow; it would be touched again and again */
    for (uint64_t b = items->ptr[u]; b < items->ptr[u + 1]; b++) {
      uint32_t other = items->idx[b];
      if (acc[other] == 0) touched[n++] = other;
      acc[other] += w;
    }
  }
  size_t kept = 0;
  for (size_t t = 0; t < n; t++) {
    uint32_t other = touched[t];
    if (other == item) {
      acc[other] = 0;
      continue;
    }
    acc[other] /= k->norm[item] * k->norm[other] + k->o->shrink;
    touched[kept++] = other;
  }
  *n_touched = kept;
}

ev_status ev_fit_item_knn(const char *path, const ev_view *v, const ev_item_knn_options *o, const ev_progress *p) {
  size_t n_users = v->by_user.n_rows, n_items = v->by_item.n_rows;
  knn k = {v, o, ev_alloc(n_users, sizeof(float)), ev_alloc(n_items, sizeof(float))};
  ev_status status = k.user_weight == NULL || k.norm == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    for (size_t u = 0; u < n_users; u++) {
      size_t n = v->by_user.ptr[u + 1] - v->by_user.ptr[u];
      k.user_weight[u] = n > 0 ? powf((float)n, -o->user_power) : 0;
    }
    for (size_t i = 0; i < n_items; i++) k.norm[i] = powf((float)(v->by_item.ptr[i + 1] - v->by_item.ptr[i]), o->alpha);
    status = ev_item_graph_fit(path, n_items, o->neighbours, 0, knn_row, &k, p);
  }
  ev_free(k.user_weight);
  ev_free(k.norm);
  return status;
}

/* ---- Shared tokens -------------------------------------------------------------------------------------*/
typedef struct content {
  size_t n_items, n_tokens;  /* tokens of all columns, one behind the other */
  uint64_t *item_ptr;        /* (n_items + 1) */
  uint32_t *token;           /* of each item */
  float *weight;             /* times it stands there, then TF-IDF, each item's of length 1 */
  uint64_t *token_ptr;       /* (n_tokens + 1): the index the other way round */
  uint32_t *item;
  float *item_weight;
} content;

static void content_free(content *c) {
  ev_free(c->item_ptr);
  ev_free(c->token);
  ev_free(c->weight);
  ev_free(c->token_ptr);
  ev_free(c->item);
  ev_free(c->item_weight);
}

static ev_status content_index(content *c, const ev_column *const *columns, size_t n_columns, float idf_power) {
  size_t total = 0;
  for (size_t k = 0; k < n_columns; k++) {
    c->n_tokens += columns[k]->n_tokens;
    const uint32_t *codes = NULL;
    for (size_t i = 0; i < c->n_items; i++) total += ev_column_tokens(columns[k], i, &codes);
  }
  c->item_ptr = ev_zalloc(c->n_items + 1, sizeof *c->item_ptr);
  c->token_ptr = ev_zalloc(c->n_tokens + 1, sizeof *c->token_ptr);
  c->token = ev_alloc(total, sizeof *c->token);
  c->weight = ev_alloc(total, sizeof *c->weight);
  c->item = ev_alloc(total, sizeof *c->item);
  c->item_weight = ev_alloc(total, sizeof *c->item_weight);
  if (c->item_ptr == NULL || c->token_ptr == NULL || c->token == NULL || c->weight == NULL || c->item == NULL || c->item_weight == NULL)
    return EV_ENOMEM;
  size_t at = 0;
  for (size_t i = 0; i < c->n_items; i++) {
    size_t base = 0;
    for (size_t k = 0; k < n_columns; base += columns[k++]->n_tokens) {
      const uint32_t *codes = NULL;
      size_t n = ev_column_tokens(columns[k], i, &codes);
      for (size_t t = 0; t < n; t++) {
        uint64_t e = c->item_ptr[i];
        while (e < at && c->token[e] != base + codes[t]) e++;
        if (e < at) { /* again: it counts twice */
          c->weight[e]++;
          continue;
        }
        c->token[at] = (uint32_t)(base + codes[t]);
        c->weight[at++] = 1;
        c->token_ptr[base + codes[t] + 1]++;
      }
    }
    c->item_ptr[i + 1] = at;
  }
  for (size_t i = 0; i < c->n_items; i++) { /* idf = ln((1 + n) / (1 + df)), to a power; the row to length 1 */
    double length = 0;
    for (uint64_t e = c->item_ptr[i]; e < c->item_ptr[i + 1]; e++) {
      double df = (double)c->token_ptr[c->token[e] + 1], idf = log((1 + (double)c->n_items) / (1 + df));
      c->weight[e] *= (float)(idf > 0 ? pow(idf, idf_power) : 0);
      length += (double)c->weight[e] * c->weight[e];
    }
    float scale = length > 0 ? (float)(1 / sqrt(length)) : 0;
    for (uint64_t e = c->item_ptr[i]; e < c->item_ptr[i + 1]; e++) c->weight[e] *= scale;
  }
  for (size_t t = 0; t < c->n_tokens; t++) c->token_ptr[t + 1] += c->token_ptr[t];
  for (size_t i = 0; i < c->n_items; i++) {
    for (uint64_t e = c->item_ptr[i]; e < c->item_ptr[i + 1]; e++) {
      uint64_t to = c->token_ptr[c->token[e]]++;
      c->item[to] = (uint32_t)i;
      c->item_weight[to] = c->weight[e];
    }
  }
  for (size_t t = c->n_tokens; t > 0; t--) c->token_ptr[t] = c->token_ptr[t - 1];
  c->token_ptr[0] = 0;
  return EV_OK;
}

static void content_row(void *ctx, uint32_t item, float *acc, uint32_t *touched, size_t *n_touched) {
  const content *c = ctx;
  size_t n = 0;
  for (uint64_t a = c->item_ptr[item]; a < c->item_ptr[item + 1]; a++) {
    float w = c->weight[a];
    if (w == 0) continue;
    for (uint64_t b = c->token_ptr[c->token[a]]; b < c->token_ptr[c->token[a] + 1]; b++) {
      uint32_t other = c->item[b];
      float both = w * c->item_weight[b];
      if (other == item || both == 0) continue; /* underflow; it would be touched again and again */
      if (acc[other] == 0) touched[n++] = other;
      acc[other] += both;
    }
  }
  *n_touched = n;
}

ev_status ev_fit_content(const char *path, const ev_view *v, const ev_content_options *o, const ev_progress *p) {
  const ev_snapshot *s = v->snapshot;
  size_t all = ev_snapshot_n_columns(s, EV_ITEM), n = 0;
  const ev_column **columns = ev_alloc(all + o->n_columns, sizeof *columns);
  if (columns == NULL) return EV_ENOMEM;
  content c = {.n_items = v->by_item.n_rows};
  ev_status status = EV_OK;
  for (size_t i = 0; i < o->n_columns && status == EV_OK; i++) {
    columns[n] = ev_snapshot_column(s, EV_ITEM, o->columns[i]);
    if (columns[n] == NULL || columns[n]->type == EV_FLOAT) status = ev_fail(EV_EINVAL, "the items have no token column '%s'", o->columns[i]);
    n++;
  }
  if (o->n_columns == 0)
    for (size_t i = 0; i < all; i++)
      if (ev_snapshot_column_at(s, EV_ITEM, i)->type != EV_FLOAT) columns[n++] = ev_snapshot_column_at(s, EV_ITEM, i);
  if (status == EV_OK && n == 0) status = ev_fail(EV_EINVAL, "the items have no token columns to be alike in");
  if (status == EV_OK) status = content_index(&c, columns, n, o->idf_power);
  if (status == EV_OK) status = ev_item_graph_fit(path, c.n_items, o->neighbours, o->half_life, content_row, &c, p);
  content_free(&c);
  ev_free(columns);
  return status;
}
