/* graph_file.c - a graph in a pack, and back.
 *
 * Arrays: graph.nodes u64 (n, 18) = kind, rank, axis, dims (4), n_in, in (8), n_attr, init; graph.attrs f64 (n, 10) =
 * attributes (8; a constant's value first), scale, decay; graph.names u8: n texts, each ended by a NUL; graph.axes u64:
 * capacities; graph.outputs u64; graph.output_names u8; and each parameter as "p.NAME" f32. Only what the outputs need is
 * written. Reading records every node through the functions a script records with, so whatever they refuse is refused. */
#include <string.h>

#include "plan.h"

#define NODE_COLS 18
#define ATTR_COLS 10

/* ---- Writing -------------------------------------------------------------------------------------------*/
typedef struct copy {
  ev_tensor *as;  /* (n) number in the file; EV_NONE: left out */
  uint64_t *nodes, *outputs;
  double *attrs;
  ev_buf names, output_names;
  size_t n;
} copy;

static ev_status describe(const ev_graph *g, copy *c) {
  for (size_t i = 0; i < g->n; i++) {
    if (c->as[i] == EV_NONE) continue;
    const ev_node *n = &g->nodes[i];
    uint64_t *row = c->nodes + c->n * NODE_COLS;
    double *attr = c->attrs + c->n * ATTR_COLS;
    if (n->kind == EV_NODE_SPARSE) return ev_fail(EV_EINVAL, "a model cannot be saved with the sparse matrix '%s': save what is computed from it", n->name);
    c->as[i] = (ev_tensor)c->n++;
    row[0] = n->kind;
    row[1] = n->shape.rank;
    row[2] = n->shape.axis;
    for (unsigned k = 0; k < EV_TENSOR_RANK; k++) row[3 + k] = k < n->shape.rank ? n->shape.dim[k] : 0;
    row[7] = n->n_in;
    for (unsigned k = 0; k < n->n_in; k++) row[8 + k] = c->as[n->in[k]];
    row[16] = n->n_attr;
    row[17] = n->init;
    memcpy(attr, n->attr, sizeof n->attr);
    if (n->kind == EV_NODE_CONSTANT) attr[0] = n->values[0];
    attr[8] = n->scale;
    attr[9] = n->decay;
    const char *name = n->op != NULL ? n->op->name : n->name != NULL ? n->name : "";
    EV_TRY(ev_buf_append(&c->names, name, strlen(name) + 1));
  }
  return EV_OK;
}

static ev_status write_arrays(const ev_graph *g, ev_pack_writer *w, const copy *c, size_t n_outputs) {
  EV_TRY(ev_pack_write(w, "graph.nodes", EV_U64, c->nodes, c->n, NODE_COLS));
  EV_TRY(ev_pack_write(w, "graph.attrs", EV_F64, c->attrs, c->n, ATTR_COLS));
  EV_TRY(ev_pack_write(w, "graph.names", EV_U8, c->names.data, c->names.len, 1));
  EV_TRY(ev_pack_write(w, "graph.axes", EV_U64, g->axes, g->n_axes, 1));
  EV_TRY(ev_pack_write(w, "graph.outputs", EV_U64, c->outputs, n_outputs, 1));
  EV_TRY(ev_pack_write(w, "graph.output_names", EV_U8, c->output_names.data, c->output_names.len, 1));
  for (size_t i = 0; i < g->n; i++) {
    const ev_node *n = &g->nodes[i];
    char name[48] = "p.";
    if (c->as[i] == EV_NONE || n->kind != EV_NODE_PARAMETER) continue;
    memcpy(name + 2, n->name, strlen(n->name) + 1);
    EV_TRY(ev_pack_write(w, name, EV_F32, n->values, ev_shape_rows(&n->shape), ev_shape_cols(&n->shape)));
  }
  return EV_OK;
}

ev_status ev_graph_write(const ev_graph *g, ev_pack_writer *w, const ev_tensor *outputs, const char *const *names, size_t n_outputs) {
  copy c = {.as = ev_alloc(g->n, sizeof *c.as), .nodes = ev_zalloc(g->n, NODE_COLS * sizeof *c.nodes), .attrs = ev_zalloc(g->n, ATTR_COLS * sizeof *c.attrs),
            .outputs = ev_alloc(n_outputs, sizeof *c.outputs)};
  ev_status status = c.as == NULL || c.nodes == NULL || c.attrs == NULL || c.outputs == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    for (size_t i = 0; i < g->n; i++) c.as[i] = EV_NONE;
    for (size_t i = 0; i < n_outputs; i++) c.as[outputs[i]] = 0;
    for (size_t i = g->n; i-- > 0;)
      for (unsigned k = 0; k < g->nodes[i].n_in && c.as[i] != EV_NONE; k++) c.as[g->nodes[i].in[k]] = 0;
    status = describe(g, &c);
  }
  for (size_t i = 0; i < n_outputs && status == EV_OK; i++) {
    c.outputs[i] = c.as[outputs[i]];
    status = ev_buf_append(&c.output_names, names[i], strlen(names[i]) + 1);
  }
  if (status == EV_OK) status = write_arrays(g, w, &c, n_outputs);
  ev_free(c.as);
  ev_free(c.nodes);
  ev_free(c.attrs);
  ev_free(c.outputs);
  ev_buf_free(&c.names);
  ev_buf_free(&c.output_names);
  return status;
}

/* ---- Reading -------------------------------------------------------------------------------------------*/
/* The next of n texts in bytes; NULL when there is none. */
static const char *next_text(const ev_array *bytes, size_t *at) {
  const char *text = (const char *)bytes->data + *at, *end = memchr(text, '\0', bytes->rows * bytes->cols - *at);
  if (end == NULL) return NULL;
  *at += (size_t)(end - text) + 1;
  return text;
}

static ev_status read_node(ev_graph *g, const ev_pack *p, const uint64_t *row, const double *attr, const char *name) {
  ev_tensor t, in[EV_OP_INPUTS];
  ev_shape shape = {.rank = (unsigned)row[1], .axis = (unsigned)row[2]};
  if (row[1] > EV_TENSOR_RANK || row[2] >= g->n_axes || row[7] > EV_OP_INPUTS || row[16] > EV_OP_ATTRS || row[17] > EV_INIT_XAVIER) return ev_fail(EV_ECORRUPT, "node '%s' is damaged", name);
  for (unsigned k = 0; k < shape.rank; k++) shape.dim[k] = row[3 + k];
  switch (row[0]) {
    case EV_NODE_INPUT: return ev_graph_input(g, &t, name, &shape);
    case EV_NODE_IDS: return ev_graph_input_ids(g, &t, name, &shape);
    case EV_NODE_CONSTANT: return ev_graph_constant(g, &t, attr[0]);
    case EV_NODE_OP:
      for (size_t k = 0; k < row[7]; k++) {
        if (row[8 + k] >= g->n) return ev_fail(EV_ECORRUPT, "node '%s' refers to one behind it", name);
        in[k] = (ev_tensor)row[8 + k];
      }
      EV_TRY(ev_graph_op(g, &t, name, in, row[7], attr, row[16]));
      return ev_shape_same(&g->nodes[t].shape, &shape) ? EV_OK : ev_fail(EV_ECORRUPT, "node '%s' has another shape than it should", name);
    case EV_NODE_PARAMETER: {
      char array[48] = "p.";
      ev_array a;
      EV_TRY(ev_graph_parameter(g, &t, name, &shape, EV_INIT_ZEROS, (float)attr[8], (float)attr[9]));
      memcpy(array + 2, name, strlen(name) + 1);
      EV_TRY(ev_pack_get(p, array, EV_F32, &a));
      if (a.rows != ev_shape_rows(&shape) || a.cols != ev_shape_cols(&shape)) return ev_fail(EV_ECORRUPT, "'%s' has another shape than its parameter", array);
      memcpy(g->nodes[t].values, a.data, a.rows * a.cols * sizeof(float));
      g->nodes[t].init = (ev_init)row[17];
      return EV_OK;
    }
    default: return ev_fail(EV_ECORRUPT, "node '%s' is of no kind", name);
  }
}

static ev_status read_outputs(ev_graph *g, const ev_array *outputs, const ev_array *names) {
  size_t n = outputs->rows * outputs->cols, at = 0;
  if (n > EV_OP_INPUTS * 8) return ev_fail(EV_ECORRUPT, "%zu outputs", n);
  g->outputs = ev_alloc(n, sizeof *g->outputs);
  g->output_names = ev_zalloc(n, sizeof *g->output_names);
  if (g->outputs == NULL || g->output_names == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < n; i++) {
    uint64_t t = ((const uint64_t *)outputs->data)[i];
    const char *name = next_text(names, &at);
    if (t >= g->n || name == NULL) return ev_fail(EV_ECORRUPT, "output %zu is damaged", i + 1);
    g->outputs[i] = (ev_tensor)t;
    if ((g->output_names[g->n_outputs++] = ev_strndup(name, strlen(name))) == NULL) return EV_ENOMEM;
  }
  return EV_OK;
}

static ev_status read_graph(ev_graph *g, const ev_pack *p) {
  ev_array nodes, attrs, names, axes, outputs, output_names;
  EV_TRY(ev_pack_get(p, "graph.nodes", EV_U64, &nodes));
  EV_TRY(ev_pack_get(p, "graph.attrs", EV_F64, &attrs));
  EV_TRY(ev_pack_get(p, "graph.names", EV_U8, &names));
  EV_TRY(ev_pack_get(p, "graph.axes", EV_U64, &axes));
  EV_TRY(ev_pack_get(p, "graph.outputs", EV_U64, &outputs));
  EV_TRY(ev_pack_get(p, "graph.output_names", EV_U8, &output_names));
  if (nodes.cols != NODE_COLS || attrs.cols != ATTR_COLS || attrs.rows != nodes.rows) return ev_fail(EV_ECORRUPT, "tables of the wrong shape");
  for (size_t i = 1; i < axes.rows * axes.cols; i++) {
    unsigned axis;
    EV_TRY(ev_graph_axis(g, &axis, ((const uint64_t *)axes.data)[i]));
  }
  size_t at = 0;
  for (size_t i = 0; i < nodes.rows; i++) {
    const char *name = next_text(&names, &at);
    if (name == NULL) return ev_fail(EV_ECORRUPT, "node %zu has no name", i);
    EV_TRY(read_node(g, p, (const uint64_t *)nodes.data + i * NODE_COLS, (const double *)attrs.data + i * ATTR_COLS, name));
  }
  return read_outputs(g, &outputs, &output_names);
}

ev_status ev_graph_read(ev_graph **out, const ev_pack *p, uint64_t max_bytes) {
  EV_TRY(ev_graph_new(out, 0, max_bytes));
  ev_status status = read_graph(*out, p);
  if (status == EV_OK) return EV_OK;
  ev_graph_free(*out);
  *out = NULL;
  return status == EV_ENOMEM || status == EV_ELIMIT ? status : ev_fail(EV_ECORRUPT, "%s: %s", ev_pack_path(p), ev_error());
}

ev_tensor ev_graph_output(const ev_graph *g, const char *name) {
  for (size_t i = 0; i < g->n_outputs; i++)
    if (strcmp(g->output_names[i], name) == 0) return g->outputs[i];
  return EV_NONE;
}
