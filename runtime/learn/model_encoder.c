/* model_encoder.c - a graph that makes a history a query, and the item vectors it is compared with; learn.h gives the score.
 *
 * Arrays: those of graph_file.c with the output "query", item f32 (n_items, d), bias f32 (n_items) where there is one, name u8
 * (what the inputs' names begin with), known_items and known_users u8 where the graph asks who was known, options f64
 * (max_length, positions from the start, cosine, axis of the items, axis of the sequences, a bias is there).
 *
 * A graph holds what it computes, so it serves one call at a time; requests go through it in blocks, those of like length
 * together, and its operators use all threads. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batches.h"
#include "kinds.h"

#define DIMS_MAX 16384
#define GRAPH_BYTES (UINT64_C(1) << 30)

/* What a request brings, in the words of sequences.c. */
typedef struct word {
  const char *name;
  ev_word word;
  bool rows; /* on the axis of the items; else of the sequences */
} word;
static const word words[] = {{"item", EV_W_ITEM, true}, {"item_known", EV_W_ITEM_KNOWN, true}, {"position", EV_W_POSITION, true}, {"sequence", EV_W_SEQUENCE, true},
                             {"length", EV_W_LENGTH, false}, {"last", EV_W_LAST, false}, {"user", EV_W_USER, false}, {"user_known", EV_W_USER_KNOWN, false}};
#define N_WORDS (sizeof words / sizeof *words)

/* ---- Writing -------------------------------------------------------------------------------------------*/
static ev_status check_query(const ev_encoder *x) {
  const ev_batches *b = x->batches;
  const ev_graph *g = b->g;
  if (b->sequences == 0) return ev_fail(EV_EINVAL, "an encoder reads sequences, and these batches have none");
  if (x->query >= g->n) return ev_fail(EV_EINVAL, "the query is no tensor of this graph");
  const ev_node *q = &g->nodes[x->query];
  char text[64];
  ev_shape_text(text, &q->shape);
  if (q->shape.rank != 2 || q->shape.dim[1] != x->n_dims || (q->shape.axis != b->rows && q->shape.axis != b->sequences))
    return ev_fail(EV_EINVAL, "%sthe query is %s: one vector of %zu numbers for each sequence, or for each of its items", q->where, text, x->n_dims);
  bool *used = ev_zalloc(g->n, sizeof *used);
  if (used == NULL) return EV_ENOMEM;
  ev_status status = EV_OK;
  used[x->query] = true;
  for (ev_tensor i = x->query + 1; i-- > 0 && status == EV_OK;) {
    const ev_node *n = &g->nodes[i];
    bool brought = !used[i] || (n->kind != EV_NODE_INPUT && n->kind != EV_NODE_IDS);
    for (unsigned k = 0; k < n->n_in && used[i]; k++) used[n->in[k]] = true;
    for (size_t w = 0; w < N_WORDS && !brought; w++) brought = b->input[words[w].word] == i;
    if (!brought) status = ev_fail(EV_EINVAL, "%sthe query depends on '%s', which no request brings", q->where, ev_graph_name(g, i));
  }
  ev_free(used);
  return status;
}

static ev_status write_known(ev_pack_writer *w, const char *name, const ev_csr *m) {
  uint8_t *known = ev_alloc(m->n_rows, 1);
  if (known == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < m->n_rows; i++) known[i] = m->ptr[i + 1] > m->ptr[i];
  ev_status status = ev_pack_write(w, name, EV_U8, known, m->n_rows, 1);
  ev_free(known);
  return status;
}

ev_status ev_fit_encoder(const char *path, const ev_encoder *x) {
  const ev_batches *b = x->batches;
  static const char *const output = "query";
  if (x->n_dims == 0 || x->n_dims > DIMS_MAX || x->n_items == 0 || x->n_items != b->v->by_item.n_rows)
    return ev_fail(EV_EINVAL, "%zu items of %zu dimensions", x->n_items, x->n_dims);
  EV_TRY(check_query(x));
  double options[6] = {(double)b->o.max_length, b->o.from_start, x->cosine, b->rows, b->sequences, x->bias != NULL};
  ev_pack_writer *w;
  ev_graph *g;
  ev_tensor query;
  EV_TRY(ev_graph_fold(&g, b->g, x->query, &query));
  ev_status status = ev_pack_writer_open(&w, path, "encoder");
  if (status != EV_OK) {
    ev_graph_free(g);
    return status;
  }
  status = ev_graph_write(g, w, &query, &output, 1);
  ev_graph_free(g);
  if (status == EV_OK) status = ev_vectors_write(w, "item", x->item, x->n_items, x->n_dims, x->cosine, NULL);
  if (status == EV_OK && x->bias != NULL) status = ev_vectors_write(w, "bias", x->bias, x->n_items, 1, false, NULL);
  if (status == EV_OK) status = ev_pack_write(w, "name", EV_U8, b->name, strlen(b->name), 1);
  if (status == EV_OK && b->input[EV_W_ITEM_KNOWN] != EV_NONE) status = write_known(w, "known_items", &b->v->by_item);
  if (status == EV_OK && b->input[EV_W_USER_KNOWN] != EV_NONE) status = write_known(w, "known_users", &b->v->by_user);
  if (status == EV_OK) status = ev_pack_write(w, "options", EV_F64, options, 6, 1);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

/* ---- Opening -------------------------------------------------------------------------------------------*/
typedef struct encoder {
  pthread_mutex_t lock; /* of the graph and the plan */
  ev_graph *g;
  ev_plan *plan;
  ev_tensor query;
  uint32_t *ids[EV_WORDS]; /* inputs; NULL: the graph does not ask */
  unsigned rows, sequences;
  size_t n_rows, n_sequences, max_length, d;
  bool from_start, cosine, by_row;
  const float *item, *bias;
  const uint8_t *known_items, *known_users;
  size_t n_users;
} encoder;

static ev_status wrong(const ev_model *m, const char *what) { return ev_fail(EV_ECORRUPT, "%s: %s", ev_pack_path(m->pack), what); }

static ev_status open_inputs(const ev_model *m, encoder *x, const char *name) {
  const ev_graph *g = x->g;
  size_t found = 0, given = 0;
  for (size_t w = 0; w < N_WORDS; w++) {
    char full[64];
    snprintf(full, sizeof full, "%s.%s", name, words[w].name);
    ev_tensor t = ev_graph_find(g, full);
    if (t == EV_NONE) continue;
    const ev_node *n = &g->nodes[t];
    if (n->kind != EV_NODE_IDS || n->shape.rank != 1 || n->shape.axis != (words[w].rows ? x->rows : x->sequences)) return wrong(m, "an input of the wrong shape");
    x->ids[words[w].word] = n->ids;
    found++;
  }
  for (size_t i = 0; i < g->n; i++) given += g->nodes[i].kind == EV_NODE_INPUT || g->nodes[i].kind == EV_NODE_IDS;
  return given == found ? EV_OK : wrong(m, "an input that no request brings");
}

static ev_status open_graph(ev_model *m, encoder *x) {
  ev_array name;
  EV_TRY(ev_graph_read(&x->g, m->pack, GRAPH_BYTES));
  EV_TRY(ev_pack_get(m->pack, "name", EV_U8, &name));
  char text[24] = "";
  if (name.rows * name.cols == 0 || name.rows * name.cols >= sizeof text) return wrong(m, "the inputs have no name");
  memcpy(text, name.data, name.rows * name.cols);
  double length = ev_model_option(m, 0), rows = ev_model_option(m, 3), sequences = ev_model_option(m, 4), n_axes = (double)x->g->n_axes;
  if (!(length >= 1 && length <= 65536 && rows >= 1 && rows < n_axes && sequences >= 1 && sequences < n_axes && rows != sequences))
    return wrong(m, "the options make no sense");
  x->max_length = (size_t)length;
  x->rows = (unsigned)rows;
  x->sequences = (unsigned)sequences;
  x->n_rows = x->g->axes[x->rows];
  x->n_sequences = x->g->axes[x->sequences];
  x->from_start = ev_model_option(m, 1) != 0;
  x->cosine = ev_model_option(m, 2) != 0;
  if (x->n_rows < x->max_length) return wrong(m, "no room for a history");
  EV_TRY(open_inputs(m, x, text));
  x->query = ev_graph_output(x->g, "query");
  const ev_shape *q = x->query != EV_NONE ? ev_graph_shape(x->g, x->query) : NULL;
  if (q == NULL || q->rank != 2 || q->dim[1] != x->d || (q->axis != x->rows && q->axis != x->sequences)) return wrong(m, "a query of the wrong shape");
  x->by_row = q->axis == x->rows;
  ev_status status = ev_plan_new(&x->plan, x->g, &x->query, 1, EV_NONE);
  return status == EV_EINVAL ? wrong(m, ev_error()) : status;
}

static ev_status open_kind(ev_model *m) {
  ev_array item, any;
  const void *options, *bias = NULL, *known_items = NULL;
  EV_TRY(ev_pack_get(m->pack, "item", EV_F32, &item));
  EV_TRY(ev_model_array(m, "options", EV_F64, 6, 1, &options));
  if (item.rows == 0 || item.rows >= EV_NONE || item.cols == 0 || item.cols > DIMS_MAX) return wrong(m, "vectors of the wrong shape");
  m->n_items = item.rows;
  encoder *x = m->state = ev_zalloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  pthread_mutex_init(&x->lock, NULL);
  x->item = item.data;
  x->d = item.cols;
  if (ev_model_option(m, 5) != 0) EV_TRY(ev_model_array(m, "bias", EV_F32, item.rows, 1, &bias));
  x->bias = bias;
  EV_TRY(open_graph(m, x));
  if (x->ids[EV_W_ITEM_KNOWN] != NULL) EV_TRY(ev_model_array(m, "known_items", EV_U8, item.rows, 1, &known_items));
  x->known_items = known_items;
  if (x->ids[EV_W_USER_KNOWN] == NULL) return EV_OK;
  EV_TRY(ev_pack_get(m->pack, "known_users", EV_U8, &any));
  x->known_users = any.data;
  x->n_users = any.rows * any.cols;
  return EV_OK;
}

static void close_kind(ev_model *m) {
  encoder *x = m->state;
  if (x == NULL) return;
  ev_plan_free(x->plan);
  ev_graph_free(x->g);
  pthread_mutex_destroy(&x->lock);
  ev_free(x);
}

/* ---- Asking --------------------------------------------------------------------------------------------*/
typedef struct asker {
  uint32_t request, length; /* items that are read */
} asker;

static int longest_first(const void *a, const void *b) {
  const asker *x = a, *y = b;
  if (x->length != y->length) return x->length > y->length ? -1 : 1;
  return x->request < y->request ? -1 : 1;
}

static void put(uint32_t *ids, size_t at, uint32_t value) {
  if (ids != NULL) ids[at] = value;
}

/* The inputs of n requests, one after the other. */
static void fill(encoder *x, const ev_requests *r, const asker *askers, size_t n) {
  size_t row = 0;
  for (size_t s = 0; s < n; s++) {
    size_t length = askers[s].length, of = askers[s].request;
    const uint32_t *items = r->history + r->history_ptr[of + 1] - length;
    uint32_t user = r->user != NULL ? r->user[of] : EV_NONE;
    for (size_t i = 0; i < length; i++, row++) {
      put(x->ids[EV_W_ITEM], row, items[i]);
      put(x->ids[EV_W_ITEM_KNOWN], row, x->known_items != NULL && x->known_items[items[i]] ? items[i] : EV_NONE);
      put(x->ids[EV_W_POSITION], row, (uint32_t)(x->from_start ? i : length - 1 - i));
      put(x->ids[EV_W_SEQUENCE], row, (uint32_t)s);
    }
    put(x->ids[EV_W_LENGTH], s, (uint32_t)length);
    put(x->ids[EV_W_LAST], s, (uint32_t)(row - 1));
    put(x->ids[EV_W_USER], s, user);
    put(x->ids[EV_W_USER_KNOWN], s, user < x->n_users && x->known_users[user] ? user : EV_NONE);
  }
}

/* The queries of n requests whose items are `rows` together; the lock is held. */
static ev_status encode_block(encoder *x, const ev_requests *r, const asker *askers, size_t n, size_t rows, float *queries) {
  fill(x, r, askers, n);
  EV_TRY(ev_graph_set_live(x->g, x->rows, rows));
  EV_TRY(ev_graph_set_live(x->g, x->sequences, n));
  EV_TRY(ev_plan_run(x->plan, false, 0, NULL));
  const float *out = ev_plan_value(x->plan, x->query, NULL);
  for (size_t s = 0, row = 0; s < n; s++) {
    row += askers[s].length;
    float *q = queries + askers[s].request * x->d;
    memcpy(q, out + (x->by_row ? row - 1 : s) * x->d, x->d * sizeof *q);
    if (x->cosine) ev_vectors_unit(q, x->d);
  }
  return EV_OK;
}

/* queries (n, d), has (n): false where there is no history. */
static ev_status encode(encoder *x, const ev_requests *r, float *queries, bool *has) {
  asker *askers = ev_alloc(r->n, sizeof *askers);
  size_t n = 0;
  if (askers == NULL) return EV_ENOMEM;
  memset(queries, 0, r->n * x->d * sizeof *queries);
  for (size_t i = 0; i < r->n; i++) {
    size_t length = r->history_ptr[i + 1] - r->history_ptr[i];
    has[i] = length > 0;
    if (has[i]) askers[n++] = (asker){(uint32_t)i, (uint32_t)(length < x->max_length ? length : x->max_length)};
  }
  qsort(askers, n, sizeof *askers, longest_first);
  pthread_mutex_lock(&x->lock);
  ev_status status = EV_OK;
  for (size_t first = 0, some; first < n && status == EV_OK; first += some) {
    size_t rows = 0;
    for (some = 0; first + some < n && some < x->n_sequences && rows + askers[first + some].length <= x->n_rows; some++) rows += askers[first + some].length;
    status = encode_block(x, r, askers + first, some, rows, queries);
  }
  pthread_mutex_unlock(&x->lock);
  ev_free(askers);
  return status;
}

static ev_status recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) {
  encoder *x = m->state;
  float *queries = ev_alloc(r->n, x->d * sizeof *queries);
  bool *has = ev_alloc(r->n, sizeof *has);
  ev_status status = queries == NULL || has == NULL ? EV_ENOMEM : encode(x, r, queries, has);
  if (status == EV_OK) status = ev_vectors_topk(r, queries, has, x->item, x->bias, m->n_items, x->d, k, ids, scores);
  ev_free(queries);
  ev_free(has);
  return status;
}

static ev_status score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  encoder *x = m->state;
  bool has;
  float *query = ev_alloc(1, x->d * sizeof *query);
  ev_status status = query == NULL ? EV_ENOMEM : encode(x, r, query, &has);
  if (status == EV_OK) ev_vectors_score(out, query, x->item, x->bias, x->d, items, n);
  ev_free(query);
  return status;
}

const ev_kind ev_kind_encoder = {.name = "encoder", .open = open_kind, .close = close_kind, .recall = recall, .score = score};
