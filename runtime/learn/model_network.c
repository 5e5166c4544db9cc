/* model_network.c - a ranker whose logit a graph computes from what fields.c makes of a row.
 *
 * Arrays: those of fields.c, those of graph_file.c with the output "logit", name u8 (what the inputs' names begin with), options f64
 * (n_items, axis of the rows). A graph holds what it computes, so it serves one call at a time; its operators use all threads. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "batches.h"
#include "kinds.h"

#define GRAPH_BYTES (UINT64_C(1) << 30)

/* ---- Writing -------------------------------------------------------------------------------------------*/
static ev_status check_logit(const ev_batches *b, ev_tensor logit) {
  const ev_graph *g = b->g;
  char text[64];
  if (ev_batches_fields(b) == NULL) return ev_fail(EV_EINVAL, "a ranker reads rows, and these batches have none");
  if (logit >= g->n) return ev_fail(EV_EINVAL, "the logit is no tensor of this graph");
  const ev_node *q = &g->nodes[logit];
  ev_shape_text(text, &q->shape);
  if (q->shape.axis != b->rows || !(q->shape.rank == 1 || (q->shape.rank == 2 && q->shape.dim[1] == 1)))
    return ev_fail(EV_EINVAL, "%sthe logit is %s: one number for each row", q->where, text);
  bool *used = ev_zalloc(g->n, sizeof *used);
  if (used == NULL) return EV_ENOMEM;
  ev_status status = EV_OK;
  used[logit] = true;
  for (ev_tensor i = logit + 1; i-- > 0 && status == EV_OK;) {
    const ev_node *n = &g->nodes[i];
    for (unsigned k = 0; k < n->n_in && used[i]; k++) used[n->in[k]] = true;
    if (used[i] && (n->kind == EV_NODE_INPUT || n->kind == EV_NODE_IDS) && i != b->input[EV_W_CODES] && i != b->input[EV_W_WEIGHTS] && i != b->input[EV_W_DENSE])
      status = ev_fail(EV_EINVAL, "%sthe logit depends on '%s', which no slate brings", q->where, ev_graph_name(g, i));
  }
  ev_free(used);
  return status;
}

ev_status ev_fit_network(const char *path, const ev_batches *b, ev_tensor logit) {
  static const char *const output = "logit";
  EV_TRY(check_logit(b, logit));
  double options[2] = {(double)b->v->by_item.n_rows, b->rows};
  ev_pack_writer *w;
  ev_graph *g;
  ev_tensor folded;
  EV_TRY(ev_graph_fold(&g, b->g, logit, &folded));
  ev_status status = ev_pack_writer_open(&w, path, "network");
  if (status != EV_OK) {
    ev_graph_free(g);
    return status;
  }
  status = ev_fields_write(ev_batches_fields(b), w);
  if (status == EV_OK) status = ev_graph_write(g, w, &folded, &output, 1);
  ev_graph_free(g);
  if (status == EV_OK) status = ev_pack_write(w, "name", EV_U8, b->name, strlen(b->name), 1);
  if (status == EV_OK) status = ev_pack_write(w, "options", EV_F64, options, 2, 1);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
typedef struct network {
  pthread_mutex_t lock; /* of all that follows */
  ev_graph *g;
  ev_plan *plan;
  ev_tensor logit;
  unsigned axis;
  size_t n_rows;        /* that go through at once */
  uint32_t *codes;      /* inputs; codes and weights lie aside where the graph does not ask for them */
  float *weights, *dense;
  uint32_t *own_codes;  /* (n_rows, n_slots) owned */
  float *own_weights;
} network;

static ev_status wrong(const ev_model *m, const char *what) { return ev_fail(EV_ECORRUPT, "%s: %s", ev_pack_path(m->pack), what); }

/* The leaf "NAME.word" of rows of so many columns; *found counts it. */
static ev_status find_input(const ev_model *m, const network *x, const char *name, const char *word, ev_node_kind kind, size_t cols,
                            const ev_node **out, size_t *found) {
  char full[64];
  snprintf(full, sizeof full, "%s.%s", name, word);
  ev_tensor t = ev_graph_find(x->g, full);
  *out = NULL;
  if (t == EV_NONE) return EV_OK;
  const ev_node *n = &x->g->nodes[t];
  if (n->kind != kind || n->shape.rank != 2 || n->shape.axis != x->axis || n->shape.dim[1] != cols || cols == 0) return wrong(m, "an input of the wrong shape");
  *out = n;
  ++*found;
  return EV_OK;
}

static ev_status open_inputs(const ev_model *m, network *x, const char *name) {
  const ev_node *codes, *weights, *dense;
  size_t n_slots = ev_fields_n_slots(m->fields), n_dense = ev_fields_n_dense(m->fields), found = 0, given = 0;
  EV_TRY(find_input(m, x, name, "codes", EV_NODE_IDS, n_slots, &codes, &found));
  EV_TRY(find_input(m, x, name, "weights", EV_NODE_INPUT, n_slots, &weights, &found));
  EV_TRY(find_input(m, x, name, "dense", EV_NODE_INPUT, n_dense, &dense, &found));
  for (size_t i = 0; i < x->g->n; i++) given += x->g->nodes[i].kind == EV_NODE_INPUT || x->g->nodes[i].kind == EV_NODE_IDS;
  if (given != found) return wrong(m, "an input that no slate brings");
  x->dense = dense != NULL ? dense->values : NULL;
  if (codes == NULL && weights == NULL) return EV_OK;
  if (codes == NULL && (x->own_codes = ev_alloc(x->n_rows, n_slots * sizeof *x->own_codes)) == NULL) return EV_ENOMEM;
  if (weights == NULL && (x->own_weights = ev_alloc(x->n_rows, n_slots * sizeof *x->own_weights)) == NULL) return EV_ENOMEM;
  x->codes = codes != NULL ? codes->ids : x->own_codes;
  x->weights = weights != NULL ? weights->values : x->own_weights;
  return EV_OK;
}

static ev_status open_kind(ev_model *m) {
  const void *options;
  ev_array name;
  char text[24] = "";
  EV_TRY(ev_model_array(m, "options", EV_F64, 2, 1, &options));
  EV_TRY(ev_pack_get(m->pack, "name", EV_U8, &name));
  double items = ev_model_option(m, 0), axis = ev_model_option(m, 1);
  if (name.rows * name.cols == 0 || name.rows * name.cols >= sizeof text) return wrong(m, "the inputs have no name");
  memcpy(text, name.data, name.rows * name.cols);
  network *x = m->state = ev_zalloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  pthread_mutex_init(&x->lock, NULL);
  EV_TRY(ev_fields_read(&m->fields, m->pack));
  EV_TRY(ev_graph_read(&x->g, m->pack, GRAPH_BYTES));
  if (!(items >= 0 && items < EV_NONE && axis >= 1 && axis < (double)x->g->n_axes)) return wrong(m, "the options make no sense");
  m->n_items = (size_t)items;
  x->axis = (unsigned)axis;
  x->n_rows = x->g->axes[x->axis];
  EV_TRY(open_inputs(m, x, text));
  x->logit = ev_graph_output(x->g, "logit");
  const ev_shape *s = x->logit != EV_NONE ? ev_graph_shape(x->g, x->logit) : NULL;
  if (s == NULL || s->axis != x->axis || !(s->rank == 1 || (s->rank == 2 && s->dim[1] == 1))) return wrong(m, "a logit of the wrong shape");
  ev_status status = ev_plan_new(&x->plan, x->g, &x->logit, 1, EV_NONE);
  return status == EV_EINVAL ? wrong(m, ev_error()) : status;
}

static void close_kind(ev_model *m) {
  network *x = m->state;
  if (x == NULL) return;
  ev_plan_free(x->plan);
  ev_graph_free(x->g);
  pthread_mutex_destroy(&x->lock);
  ev_free(x->own_codes);
  ev_free(x->own_weights);
  ev_free(x);
}

typedef struct fill_job {
  const network *x;
  const ev_row_reader *r;
  size_t first, n_slots, n_dense;
} fill_job;

static void fill_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  const fill_job *j = ctx;
  const network *x = j->x;
  ev_row_columns(x->codes != NULL ? x->codes + begin * j->n_slots : NULL, x->weights != NULL ? x->weights + begin * j->n_slots : NULL,
                 x->dense != NULL ? x->dense + begin * j->n_dense : NULL, j->r, NULL, j->first + begin, end - begin, 0);
}

static ev_status rank(const ev_model *m, const ev_row_reader *r, size_t begin, size_t end, float *out) {
  network *x = m->state;
  ev_status status = EV_OK;
  pthread_mutex_lock(&x->lock);
  for (size_t first = begin; first < end && status == EV_OK; first += x->n_rows) {
    size_t n = end - first < x->n_rows ? end - first : x->n_rows;
    fill_job j = {x, r, first, ev_fields_n_slots(m->fields), ev_fields_n_dense(m->fields)};
    ev_parallel_for(n, 256, fill_rows, &j);
    status = ev_graph_set_live(x->g, x->axis, n);
    if (status == EV_OK) status = ev_plan_run(x->plan, false, 0, NULL);
    if (status == EV_OK) memcpy(out + (first - begin), ev_plan_value(x->plan, x->logit, NULL), n * sizeof *out);
  }
  pthread_mutex_unlock(&x->lock);
  return status;
}

const ev_kind ev_kind_network = {.name = "network", .open = open_kind, .close = close_kind, .rank = rank};
