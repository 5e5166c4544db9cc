/* optimiser.c - parameters after a step; learn.h names the rules and their papers.
 *
 * A dense parameter is updated whole. A lazily gathered one is updated in the rows that the step gathered: the gradients
 * of one row are added in the order of their places, the sums lie in a compact array (`sums`), and only those rows'
 * moments move, as PyTorch's SparseAdam has it. Work is cut into blocks that do not depend on the number of threads. */
#include <math.h>
#include <string.h>

#include "plan.h"

#define BLOCK 16384 /* floats a slice */

typedef struct tracked {
  ev_tensor t;
  float *value, *m, *v;     /* value borrowed; moments owned: NULL where the rule has none */
  size_t size, d;           /* floats; in a row */
  bool lazy;
  float decay, rate; /* shares of the optimiser's */
  /* lazy: */
  uint32_t *ids, *order, *starts, *scratch; /* (capacity), (capacity), (capacity + 1), (2 capacity) owned */
  float *sums;              /* (capacity, d) owned; the summed gradients of n_unique rows */
  size_t capacity, n_unique;
  ev_share shares[EV_SHARES_MAX];
  size_t n_shares;
} tracked;

struct ev_optimiser {
  ev_plan *p;
  ev_optimiser_options o;
  tracked *of;
  size_t n;
  double *squares;  /* (n_squares) partial sums of squares, in a fixed order */
  size_t n_squares;
  uint64_t steps, reserved;
  double norm;
};

void ev_optimiser_defaults(ev_optimiser_options *o, ev_optimiser_kind kind) {
  *o = (ev_optimiser_options){.kind = kind, .momentum = 0.9f, .beta1 = 0.9f, .beta2 = 0.999f, .epsilon = kind == EV_ADAGRAD ? 1e-10f : 1e-8f};
}

/* ---- Life ----------------------------------------------------------------------------------------------*/
static bool has_m(ev_optimiser_kind k) { return k == EV_MOMENTUM || k == EV_ADAM || k == EV_ADAMW; }
static bool has_v(ev_optimiser_kind k) { return k == EV_ADAGRAD || k == EV_ADAM || k == EV_ADAMW; }

static ev_status track(ev_optimiser *o, ev_tensor t) {
  ev_graph *g = o->p->g;
  const ev_node *n = &g->nodes[t];
  tracked *x = &o->of[o->n++];
  *x = (tracked){.t = t, .value = n->values, .size = ev_shape_size(&n->shape), .lazy = ev_plan_lazy(o->p, t), .decay = n->decay, .rate = n->rate};
  x->d = n->shape.rank > 1 && n->shape.dim[0] > 0 ? x->size / n->shape.dim[0] : 1;
  uint64_t bytes = (uint64_t)x->size * sizeof(float) * (has_m(o->o.kind) + has_v(o->o.kind));
  if (x->lazy) {
    x->n_shares = ev_plan_shares(o->p, t, x->shares);
    if (x->n_shares > EV_SHARES_MAX) return ev_fail(EV_ELIMIT, "%s'%s' is gathered from %zu times; %d are the most", n->where, n->name, x->n_shares, EV_SHARES_MAX);
    for (size_t i = 0; i < x->n_shares; i++) x->capacity += x->shares[i].capacity;
    bytes += (uint64_t)x->capacity * (5 + x->d) * sizeof(float);
  }
  ev_graph_at(g, NULL);
  EV_TRY(ev_graph_reserve(g, bytes, "an optimiser's memory of a parameter", &n->shape));
  o->reserved += bytes;
  if (has_m(o->o.kind) && (x->m = ev_zalloc(x->size, sizeof *x->m)) == NULL) return EV_ENOMEM;
  if (has_v(o->o.kind) && (x->v = ev_zalloc(x->size, sizeof *x->v)) == NULL) return EV_ENOMEM;
  if (!x->lazy) return EV_OK;
  x->ids = ev_alloc(x->capacity, sizeof *x->ids);
  x->order = ev_alloc(x->capacity, sizeof *x->order);
  x->starts = ev_alloc(x->capacity + 1, sizeof *x->starts);
  x->scratch = ev_alloc(x->capacity, 2 * sizeof *x->scratch);
  x->sums = ev_alloc(x->capacity, x->d * sizeof *x->sums);
  return x->ids != NULL && x->order != NULL && x->starts != NULL && x->scratch != NULL && x->sums != NULL ? EV_OK : EV_ENOMEM;
}

ev_status ev_optimiser_new(ev_optimiser **out, ev_plan *p, const ev_optimiser_options *options) {
  *out = NULL;
  const ev_optimiser_options *c = options;
  if (p->loss == EV_NONE) return ev_fail(EV_EINVAL, "a plan without a loss has nothing to optimise");
  if (c->kind > EV_ADAMW || !(c->momentum >= 0 && c->momentum < 1) || !(c->beta1 >= 0 && c->beta1 < 1) || !(c->beta2 >= 0 && c->beta2 < 1) || !(c->epsilon > 0 && c->epsilon <= 1) ||
      !(c->weight_decay >= 0 && c->weight_decay <= 1e3f) || !(c->clip_norm >= 0))
    return ev_fail(EV_EINVAL, "optimiser: momentum and betas lie in [0, 1), epsilon in (0, 1], weight_decay in [0, 1000], clip_norm is not negative");
  ev_optimiser *o = ev_zalloc(1, sizeof *o);
  if (o == NULL) return EV_ENOMEM;
  o->p = p;
  o->o = *options;
  o->of = ev_zalloc(p->n_nodes, sizeof *o->of);
  ev_status status = o->of == NULL ? EV_ENOMEM : EV_OK;
  for (size_t i = 0; i < p->n_nodes && status == EV_OK; i++)
    if (p->g->nodes[i].kind == EV_NODE_PARAMETER && p->at[i].flows) status = track(o, (ev_tensor)i);
  for (size_t i = 0; i < o->n; i++) o->n_squares += (o->of[i].lazy ? o->of[i].capacity * o->of[i].d : o->of[i].size) / BLOCK + 1;
  if (status == EV_OK && (o->squares = ev_zalloc(o->n_squares, sizeof *o->squares)) == NULL) status = EV_ENOMEM;
  if (status == EV_OK) *out = o;
  else ev_optimiser_free(o);
  return status;
}

void ev_optimiser_free(ev_optimiser *o) {
  if (o == NULL) return;
  o->p->g->used_bytes -= o->reserved;
  for (size_t i = 0; i < o->n; i++) {
    tracked *x = &o->of[i];
    void *all[] = {x->m, x->v, x->ids, x->order, x->starts, x->scratch, x->sums};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) ev_free(all[k]);
  }
  ev_free(o->of);
  ev_free(o->squares);
  ev_free(o);
}

uint64_t ev_optimiser_steps(const ev_optimiser *o) { return o->steps; }
double ev_optimiser_norm(const ev_optimiser *o) { return o->norm; }

/* ---- Gradients of lazy parameters ------------------------------------------------------------------------*/
static void collect(ev_optimiser *o, tracked *x) {
  ev_rows_part parts[EV_SHARES_MAX];
  size_t n = 0;
  ev_plan_shares(o->p, x->t, x->shares);
  for (size_t i = 0; i < x->n_shares; i++) {
    memcpy(x->ids + n, x->shares[i].ids, x->shares[i].n * sizeof *x->ids);
    n += x->shares[i].n;
    parts[i] = (ev_rows_part){x->shares[i].grad, x->shares[i].n};
  }
  x->n_unique = ev_rows_sort(x->order, x->starts, x->scratch, x->ids, n);
  ev_rows_sum(x->sums, NULL, parts, x->n_shares, x->order, x->starts, x->n_unique, x->d);
}

/* ---- The norm ------------------------------------------------------------------------------------------*/
typedef struct norm_job {
  const float *grad;
  size_t n;
  double *squares;
} norm_job;

static void square_blocks(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  norm_job *j = ctx;
  for (size_t b = begin; b < end; b++) {
    size_t from = b * BLOCK, to = from + BLOCK < j->n ? from + BLOCK : j->n;
    double lanes[8] = {0};
    size_t i = from;
    for (; i + 8 <= to; i += 8)
      for (size_t k = 0; k < 8; k++) lanes[k] += (double)j->grad[i + k] * j->grad[i + k];
    for (; i < to; i++) lanes[0] += (double)j->grad[i] * j->grad[i];
    j->squares[b] = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  }
}

static double gradient_norm(ev_optimiser *o) {
  double sum = 0;
  for (size_t i = 0; i < o->n; i++) {
    const tracked *x = &o->of[i];
    norm_job j = {x->lazy ? x->sums : ev_plan_dense_gradient(o->p, x->t), x->lazy ? x->n_unique * x->d : x->size, o->squares};
    size_t blocks = (j.n + BLOCK - 1) / BLOCK;
    ev_parallel_for(blocks, 1, square_blocks, &j);
    for (size_t b = 0; b < blocks; b++) sum += j.squares[b];
  }
  return sqrt(sum);
}

/* ---- Rules: w, m, v (n) from g (n), scaled by clip ---------------------------------------------------------*/
typedef struct rule {
  ev_optimiser_kind kind;
  float rate, clip, decay, shrink; /* decay is added to the gradient; shrink (AdamW) multiplies the weight */
  float momentum, beta1, beta2, epsilon, step, root; /* Adam: rate / (1 − β₁ᵗ), 1 / √(1 − β₂ᵗ) */
} rule;

static void apply(const rule *r, float *restrict w, float *restrict m, float *restrict v, const float *restrict g, size_t n) {
  switch (r->kind) {
    case EV_SGD:
      for (size_t i = 0; i < n; i++) w[i] -= r->rate * (g[i] * r->clip + r->decay * w[i]);
      return;
    case EV_MOMENTUM:
      for (size_t i = 0; i < n; i++) {
        m[i] = r->momentum * m[i] + (g[i] * r->clip + r->decay * w[i]);
        w[i] -= r->rate * m[i];
      }
      return;
    case EV_ADAGRAD:
      for (size_t i = 0; i < n; i++) {
        float x = g[i] * r->clip + r->decay * w[i];
        v[i] += x * x;
        w[i] -= r->rate * x / (sqrtf(v[i]) + r->epsilon);
      }
      return;
    case EV_ADAM:
    case EV_ADAMW:
      for (size_t i = 0; i < n; i++) {
        float x = g[i] * r->clip + r->decay * w[i];
        m[i] = r->beta1 * m[i] + (1 - r->beta1) * x;
        v[i] = r->beta2 * v[i] + (1 - r->beta2) * x * x;
        w[i] = w[i] * r->shrink - r->step * m[i] / (sqrtf(v[i]) * r->root + r->epsilon);
      }
      return;
  }
}

typedef struct update_job {
  const rule *r;
  const tracked *x;
  const float *grad;
} update_job;

static void update_dense(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  update_job *j = ctx;
  const tracked *x = j->x;
  apply(j->r, x->value + begin, x->m != NULL ? x->m + begin : NULL, x->v != NULL ? x->v + begin : NULL, j->grad + begin, end - begin);
}

static void update_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  update_job *j = ctx;
  const tracked *x = j->x;
  for (size_t u = begin; u < end; u++) {
    size_t at = (size_t)x->ids[x->order[x->starts[u]]] * x->d;
    apply(j->r, x->value + at, x->m != NULL ? x->m + at : NULL, x->v != NULL ? x->v + at : NULL, x->sums + u * x->d, x->d);
  }
}

ev_status ev_optimiser_step(ev_optimiser *o, float learning_rate) {
  if (!(learning_rate >= 0 && learning_rate <= 1e6f)) return ev_fail(EV_EINVAL, "a learning rate of %g", (double)learning_rate);
  for (size_t i = 0; i < o->n; i++)
    if (o->of[i].lazy) collect(o, &o->of[i]);
  rule r = {.kind = o->o.kind, .clip = 1, .momentum = o->o.momentum, .beta1 = o->o.beta1, .beta2 = o->o.beta2, .epsilon = o->o.epsilon};
  if (o->o.clip_norm > 0) {
    o->norm = gradient_norm(o);
    if (!isfinite(o->norm)) return ev_fail(EV_EINVAL, "a gradient is no number at step %llu", (unsigned long long)o->steps);
    if (o->norm > o->o.clip_norm) r.clip = (float)(o->o.clip_norm / o->norm);
  }
  o->steps++;
  double debias = 1 - pow(o->o.beta1, (double)o->steps);
  r.root = (float)(1 / sqrt(1 - pow(o->o.beta2, (double)o->steps)));
  for (size_t i = 0; i < o->n; i++) {
    const tracked *x = &o->of[i];
    float decay = o->o.weight_decay * x->decay;
    r.rate = learning_rate * x->rate;
    r.step = (float)(r.rate / debias);
    r.decay = o->o.kind == EV_ADAMW ? 0 : decay;
    r.shrink = o->o.kind == EV_ADAMW ? 1 - r.rate * decay : 1;
    update_job j = {&r, x, x->lazy ? NULL : ev_plan_dense_gradient(o->p, x->t)};
    if (x->lazy) ev_parallel_for(x->n_unique, BLOCK / (x->d + 1) + 1, update_rows, &j);
    else ev_parallel_for(x->size, BLOCK, update_dense, &j);
  }
  return EV_OK;
}

/* ---- Checkpoints: p.NAME, m.NAME, v.NAME f32, steps u64 ------------------------------------------------------*/
static const char *array_name(char out[48], char what, const ev_optimiser *o, const tracked *x) {
  size_t len = strlen(o->p->g->nodes[x->t].name);
  out[0] = what;
  out[1] = '.';
  memcpy(out + 2, o->p->g->nodes[x->t].name, len + 1);
  return out;
}

ev_status ev_optimiser_save(const ev_optimiser *o, const char *path) {
  char name[48];
  ev_pack_writer *w;
  uint64_t head[2] = {o->steps, o->o.kind};
  EV_TRY(ev_pack_writer_open(&w, path, "checkpoint"));
  ev_status status = ev_pack_write(w, "steps", EV_U64, head, 2, 1);
  for (size_t i = 0; i < o->n && status == EV_OK; i++) {
    const tracked *x = &o->of[i];
    status = ev_pack_write(w, array_name(name, 'p', o, x), EV_F32, x->value, x->size / x->d, x->d);
    if (status == EV_OK && x->m != NULL) status = ev_pack_write(w, array_name(name, 'm', o, x), EV_F32, x->m, x->size / x->d, x->d);
    if (status == EV_OK && x->v != NULL) status = ev_pack_write(w, array_name(name, 'v', o, x), EV_F32, x->v, x->size / x->d, x->d);
  }
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

/* Copies an array of the checkpoint, or only looks whether it is there (into NULL). */
static ev_status take(const ev_pack *p, const char *name, const tracked *x, float *into, bool copy) {
  ev_array a;
  if (into == NULL) return EV_OK;
  EV_TRY(ev_pack_get(p, name, EV_F32, &a));
  if (a.rows != x->size / x->d || a.cols != x->d) return ev_fail(EV_EINVAL, "%s: '%s' is %zu x %zu, not %zu x %zu", ev_pack_path(p), name, a.rows, a.cols, x->size / x->d, x->d);
  if (copy) memcpy(into, a.data, x->size * sizeof *into);
  return EV_OK;
}

ev_status ev_optimiser_load(ev_optimiser *o, const char *path) {
  ev_pack *p;
  ev_array head;
  char name[48];
  EV_TRY(ev_pack_open(&p, path));
  ev_status status = strcmp(ev_pack_kind(p), "checkpoint") == 0 ? ev_pack_get(p, "steps", EV_U64, &head) : ev_fail(EV_EINVAL, "%s: a %s is no checkpoint", path, ev_pack_kind(p));
  if (status == EV_OK && (head.rows * head.cols != 2 || ((const uint64_t *)head.data)[1] != o->o.kind)) status = ev_fail(EV_EINVAL, "%s: of another optimiser", path);
  for (int copy = 0; copy < 2; copy++)
    for (size_t i = 0; i < o->n && status == EV_OK; i++) {
      tracked *x = &o->of[i];
      status = take(p, array_name(name, 'p', o, x), x, x->value, copy);
      if (status == EV_OK) status = take(p, array_name(name, 'm', o, x), x, x->m, copy);
      if (status == EV_OK) status = take(p, array_name(name, 'v', o, x), x, x->v, copy);
    }
  if (status == EV_OK) o->steps = ((const uint64_t *)head.data)[0];
  ev_pack_close(p);
  return status == EV_ECORRUPT ? ev_fail(EV_EINVAL, "%s", ev_error()) : status;
}
