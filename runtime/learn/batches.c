/* batches.c - what a step of training looks at: the part that all kinds share, and pairs; learn.h says what is promised.
 *
 * An epoch of pairs is an array of (user, place of the interaction), put in order anew from (seed, epoch) when a step of
 * another epoch is asked for: a shuffle of 810 128 pairs costs some 7 ms, once an epoch, and a batch then reads them one
 * after the other. Rows are filled by all threads; each draws from a stream of its own, made from (seed, step, row). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "batches.h"

#define GRAIN 256 /* rows a thread takes at once */
#define AHEAD 8   /* rows: what one has seen is fetched so early */

void ev_batch_defaults(ev_batch_options *o) {
  *o = (ev_batch_options){.name = "batch", .n_negatives = 1, .avoid_seen = true, .sampler = {.uniform = 1, .power = 0.75},
                          .max_length = 50, .from_start = true, .seed = 1};
}

uint64_t ev_batches_key(const ev_batches *b, ev_purpose purpose, uint64_t step) {
  ev_rng r;
  ev_rng_seed(&r, b->o.seed, step * EV_PURPOSES + purpose);
  return ev_rng_u64(&r);
}

void ev_batches_shuffle(uint32_t *x, size_t n, ev_rng *r) {
  for (size_t i = n; i > 1; i--) {
    size_t j = ev_rng_below(r, (uint32_t)i);
    uint32_t swap = x[i - 1];
    x[i - 1] = x[j];
    x[j] = swap;
  }
}

/* ---- Life ----------------------------------------------------------------------------------------------*/
static ev_status check(const ev_batch_options *o) {
  if (o->name == NULL || o->name[0] == '\0' || strlen(o->name) > 20) return ev_fail(EV_EINVAL, "the name of batches has 1 to 20 bytes");
  if (o->size >= EV_NONE) return ev_fail(EV_EINVAL, "batches of %zu", o->size);
  if (o->n_negatives > 65536) return ev_fail(EV_EINVAL, "%zu negatives: at most 65536", o->n_negatives);
  if (!(o->id_dropout >= 0 && o->id_dropout < 1)) return ev_fail(EV_EINVAL, "id_dropout %g is not between 0 and 1", o->id_dropout);
  return EV_OK;
}

ev_status ev_batches_new(ev_batches **out, const ev_batch_kind *kind, ev_graph *g, const ev_view *v, const ev_batch_options *o) {
  *out = NULL;
  EV_TRY(check(o));
  if (v->by_user.ptr[v->by_user.n_rows] >= EV_NONE) return ev_fail(EV_ELIMIT, "batches are of fewer than 2^32 interactions");
  ev_batches *b = *out = ev_zalloc(1, sizeof *b);
  if (b == NULL) return EV_ENOMEM;
  b->kind = kind;
  b->g = g;
  b->v = v;
  b->o = *o;
  snprintf(b->name, sizeof b->name, "%s", o->name);
  b->o.name = b->name;
  b->epoch = UINT64_MAX;
  for (int w = 0; w < EV_WORDS; w++) b->input[w] = EV_NONE;
  return o->n_negatives > 0 ? ev_sampler_open(&b->sampler, v, &o->sampler) : EV_OK;
}

void ev_batches_free(ev_batches *b) {
  if (b == NULL) return;
  b->kind->close(b);
  ev_sampler_close(&b->sampler);
  ev_free(b);
}

uint64_t ev_batches_per_epoch(const ev_batches *b) { return b->per_epoch; }
size_t ev_batches_rows(const ev_batches *b) { return b->epoch_rows; }
size_t ev_batches_held(const ev_batches *b) { return b->n_held; }

/* ---- Inputs --------------------------------------------------------------------------------------------*/
static bool has(const ev_batches *b, const ev_word_of *w) { /* this kind may have it, these batches have it */
  if (w->along == EV_ALONG_NEGATIVES) return b->sampler.n > 0;
  if (w->along == EV_ALONG_SLOTS) return b->n_slots > 0;
  if (w->along == EV_ALONG_DENSE) return b->n_dense > 0;
  return w->word != EV_W_RATING || b->v->by_user.rating != NULL;
}

static ev_shape shape_of(const ev_batches *b, ev_along along) {
  ev_shape s = {.rank = 1, .dim = {b->n_rows}, .axis = b->rows};
  if (along == EV_ALONG_SEQUENCES) s.dim[0] = b->n_sequences, s.axis = b->sequences;
  if (along == EV_ALONG_NEGATIVES && b->o.shared) return (ev_shape){.rank = 1, .dim = {b->o.n_negatives}};
  if (along == EV_ALONG_NEGATIVES) s.dim[s.rank++] = b->o.n_negatives;
  if (along == EV_ALONG_SLOTS) s.dim[s.rank++] = b->n_slots;
  if (along == EV_ALONG_DENSE) s.dim[s.rank++] = b->n_dense;
  return s;
}

ev_status ev_batches_input(ev_batches *b, const char *word, ev_tensor *out) {
  char there[512] = "", name[64];
  size_t len = 0;
  for (const ev_word_of *w = b->kind->words; w->name != NULL; w++) {
    if (!has(b, w)) continue;
    if (strcmp(w->name, word) == 0) {
      ev_word k = w->word;
      ev_shape shape = shape_of(b, w->along);
      if (b->input[k] == EV_NONE) {
        snprintf(name, sizeof name, "%s.%s", b->name, word);
        EV_TRY(w->ids ? ev_graph_input_ids(b->g, out, name, &shape) : ev_graph_input(b->g, out, name, &shape));
        b->input[k] = *out;
        b->ids[k] = w->ids ? ev_graph_ids(b->g, *out, NULL) : NULL;
        b->values[k] = w->ids ? NULL : ev_graph_values(b->g, *out, NULL);
      }
      *out = b->input[k];
      return EV_OK;
    }
    len += (size_t)snprintf(there + len, sizeof there - len, "%s%s", len > 0 ? ", " : "", w->name);
  }
  return ev_fail(EV_EINVAL, "%sthese batches have no '%.40s'; there are %s", b->g->where, word, there);
}

ev_status ev_batches_fill(ev_batches *b, uint64_t step, size_t *n_rows) {
  size_t n = 0;
  EV_TRY(b->kind->fill(b, step, &n));
  if (n_rows != NULL) *n_rows = n;
  return EV_OK;
}

ev_status ev_batches_fill_held(ev_batches *b, size_t first, size_t *n_rows) {
  size_t n = 0;
  if (first >= b->n_held) return ev_fail(EV_EINVAL, "row %zu of %zu that are held", first + 1, b->n_held);
  EV_TRY(b->kind->fill_held(b, first, &n));
  if (n_rows != NULL) *n_rows = n;
  return EV_OK;
}

/* ---- Rows ----------------------------------------------------------------------------------------------*/
static bool known(const ev_csr *m, uint32_t id) { return id < m->n_rows && m->ptr[id + 1] > m->ptr[id]; }

static uint32_t own_id(const ev_batches *b, const ev_csr *m, uint32_t id, ev_rng *r) { /* r NULL: nothing is dropped */
  bool dropped = r != NULL && ev_rng_f64(r) < b->o.id_dropout;
  return dropped || !known(m, id) ? EV_NONE : id;
}

static void negatives(ev_batches *b, uint64_t key, ev_rng *dropout, size_t row, uint32_t user) {
  size_t n = b->o.n_negatives;
  uint32_t *out = b->ids[EV_W_NEGATIVE] != NULL ? b->ids[EV_W_NEGATIVE] + row * n : NULL;
  uint32_t *own = b->ids[EV_W_NEGATIVE_KNOWN] != NULL ? b->ids[EV_W_NEGATIVE_KNOWN] + row * n : NULL;
  float *log_q = b->values[EV_W_NEGATIVE_LOG_Q] != NULL ? b->values[EV_W_NEGATIVE_LOG_Q] + row * n : NULL;
  if (b->sampler.n == 0 || (out == NULL && own == NULL && log_q == NULL)) return;
  const ev_csr *m = &b->v->by_user;
  bool avoid = b->o.avoid_seen && user != EV_NONE;
  const uint32_t *seen = avoid ? b->v->seen + m->ptr[user] : NULL;
  size_t n_seen = avoid ? m->ptr[user + 1] - m->ptr[user] : 0;
  ev_rng r;
  ev_rng_seed(&r, key, row);
  for (size_t j = 0; j < n; j++) {
    uint32_t item = avoid ? ev_sampler_draw_unseen(&b->sampler, &r, seen, n_seen) : ev_sampler_draw(&b->sampler, &r);
    if (out != NULL) out[j] = item;
    if (log_q != NULL) log_q[j] = b->sampler.log_q[item];
    if (own != NULL) own[j] = own_id(b, &b->v->by_item, item, dropout);
  }
}

void ev_batches_shared(ev_batches *b, const ev_row_keys *keys) {
  if (!b->o.shared) return;
  ev_rng dropout;
  ev_rng_seed(&dropout, keys->dropout, EV_NONE);
  negatives(b, keys->negatives, b->o.id_dropout > 0 ? &dropout : NULL, 0, EV_NONE);
}

void ev_batches_describe(ev_batches *b, const ev_row_keys *keys, size_t row, uint32_t user, uint32_t item, uint32_t predicted) {
  const ev_csr *by_item = &b->v->by_item;
  bool own = b->ids[EV_W_USER_KNOWN] != NULL || b->ids[EV_W_ITEM_KNOWN] != NULL || b->ids[EV_W_TARGET_KNOWN] != NULL || b->ids[EV_W_NEGATIVE_KNOWN] != NULL;
  ev_rng stream, *dropout = NULL;
  if (own && b->o.id_dropout > 0) {
    dropout = &stream;
    ev_rng_seed(&stream, keys->dropout, row);
  }
  if (b->values[EV_W_LOG_SHARE] != NULL || (b->values[EV_W_LOG_Q] != NULL && b->sampler.n == 0)) {
    float share = logf((float)(by_item->ptr[predicted + 1] - by_item->ptr[predicted]) / (float)by_item->ptr[by_item->n_rows]);
    if (b->values[EV_W_LOG_SHARE] != NULL) b->values[EV_W_LOG_SHARE][row] = share;
    if (b->values[EV_W_LOG_Q] != NULL && b->sampler.n == 0) b->values[EV_W_LOG_Q][row] = share;
  }
  if (b->values[EV_W_LOG_Q] != NULL && b->sampler.n > 0) b->values[EV_W_LOG_Q][row] = b->sampler.log_q[predicted];
  if (own) { /* user, item, predicted, then the negatives: always in this order, whoever asks */
    uint32_t own_user = own_id(b, &b->v->by_user, user, dropout), own_item = own_id(b, by_item, item, dropout);
    uint32_t own_predicted = own_id(b, by_item, predicted, dropout);
    if (b->ids[EV_W_USER_KNOWN] != NULL && b->sequences == 0) b->ids[EV_W_USER_KNOWN][row] = own_user;
    if (b->ids[EV_W_TARGET_KNOWN] != NULL) b->ids[EV_W_TARGET_KNOWN][row] = own_predicted;
    if (b->ids[EV_W_ITEM_KNOWN] != NULL) b->ids[EV_W_ITEM_KNOWN][row] = item != EV_NONE ? own_item : own_predicted;
  }
  if (!b->o.shared) negatives(b, keys->negatives, dropout, row, user);
}

/* ---- Pairs ---------------------------------------------------------------------------------------------*/
static const ev_word_of pair_words[] = {
    {"user", EV_W_USER, true, EV_ALONG_ROWS}, {"item", EV_W_ITEM, true, EV_ALONG_ROWS}, {"negative", EV_W_NEGATIVE, true, EV_ALONG_NEGATIVES},
    {"item_log_q", EV_W_LOG_Q, false, EV_ALONG_ROWS}, {"negative_log_q", EV_W_NEGATIVE_LOG_Q, false, EV_ALONG_NEGATIVES},
    {"item_log_share", EV_W_LOG_SHARE, false, EV_ALONG_ROWS}, {"user_known", EV_W_USER_KNOWN, true, EV_ALONG_ROWS},
    {"item_known", EV_W_ITEM_KNOWN, true, EV_ALONG_ROWS}, {"negative_known", EV_W_NEGATIVE_KNOWN, true, EV_ALONG_NEGATIVES},
    {"rating", EV_W_RATING, false, EV_ALONG_ROWS}, {NULL, EV_WORDS, false, EV_ALONG_ROWS}};

typedef struct pair {
  uint32_t user, at; /* place of the interaction in the view */
} pair;

static void arrange_pairs(ev_batches *b, uint64_t epoch) {
  pair *p = b->state;
  const ev_csr *m = &b->v->by_user;
  ev_rng r;
  for (size_t u = 0; u < m->n_rows; u++)
    for (uint64_t i = m->ptr[u]; i < m->ptr[u + 1]; i++) p[i] = (pair){(uint32_t)u, (uint32_t)i};
  ev_rng_seed(&r, ev_batches_key(b, EV_FOR_ORDER, epoch), 0);
  for (size_t i = b->epoch_rows; i > 1; i--) {
    size_t j = ev_rng_below(&r, (uint32_t)i);
    pair swap = p[i - 1];
    p[i - 1] = p[j];
    p[j] = swap;
  }
  b->epoch = epoch;
}

typedef struct pair_job {
  ev_batches *b;
  const pair *pairs; /* of the epoch */
  size_t first;      /* of this batch */
  ev_row_keys keys;
} pair_job;

static void fill_pair_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  pair_job *j = ctx;
  ev_batches *b = j->b;
  const ev_csr *m = &b->v->by_user;
  for (size_t i = begin; i < end; i++) {
    size_t at = j->first + i, ahead = at + AHEAD;
    pair p = j->pairs[at < b->epoch_rows ? at : at - b->epoch_rows];
    if (i + AHEAD < end && ahead < b->epoch_rows) {
      __builtin_prefetch(b->v->seen + m->ptr[j->pairs[ahead].user]);
      __builtin_prefetch(m->idx + j->pairs[ahead].at);
    }
    uint32_t item = m->idx[p.at];
    if (b->ids[EV_W_USER] != NULL) b->ids[EV_W_USER][i] = p.user;
    if (b->ids[EV_W_ITEM] != NULL) b->ids[EV_W_ITEM][i] = item;
    if (b->values[EV_W_RATING] != NULL) b->values[EV_W_RATING][i] = m->rating[p.at];
    ev_batches_describe(b, &j->keys, i, p.user, EV_NONE, item);
  }
}

static ev_status fill_pairs(ev_batches *b, uint64_t step, size_t *n_rows) {
  uint64_t epoch = step / b->per_epoch, first = step % b->per_epoch * b->n_rows;
  size_t n = b->epoch_rows - first < b->n_rows && !b->o.whole ? b->epoch_rows - first : b->n_rows;
  if (epoch != b->epoch) arrange_pairs(b, epoch);
  if (b->rows != 0) EV_TRY(ev_graph_set_live(b->g, b->rows, n));
  pair_job j = {b, b->state, first, ev_batches_keys(b, step)};
  ev_batches_shared(b, &j.keys);
  ev_parallel_for(n, GRAIN, fill_pair_rows, &j);
  *n_rows = n;
  return EV_OK;
}

static void close_pairs(ev_batches *b) { ev_free(b->state); }

static const ev_batch_kind pair_kind = {pair_words, fill_pairs, close_pairs, NULL};

ev_status ev_pairs_new(ev_batches **out, ev_graph *g, const ev_view *v, const ev_batch_options *o) {
  ev_status status = ev_batches_new(out, &pair_kind, g, v, o);
  ev_batches *b = *out;
  if (status != EV_OK) goto fail;
  b->epoch_rows = v->by_user.ptr[v->by_user.n_rows];
  if (b->epoch_rows == 0) {
    status = ev_fail(EV_EINVAL, "no interactions to learn from");
    goto fail;
  }
  b->n_rows = o->size > 0 ? o->size : 2048;
  if (o->whole && b->n_rows > b->epoch_rows) b->n_rows = b->epoch_rows;
  b->per_epoch = (b->epoch_rows - 1) / b->n_rows + 1;
  b->state = ev_alloc(b->epoch_rows, sizeof(pair));
  status = b->state == NULL ? EV_ENOMEM : o->whole ? EV_OK : ev_graph_axis(g, &b->rows, b->n_rows);
  if (status == EV_OK) return EV_OK;
fail:
  ev_batches_free(b);
  *out = NULL;
  return status;
}

/* ---- Tables --------------------------------------------------------------------------------------------*/
enum { FREE = 0, FROM_SIDE = 1, FROM_ELSEWHERE = 2 }; /* what lies below a tensor */

/* @param[out] wrong: an input below it that is not about the side. */
static ev_status below(const ev_batches *b, const ev_graph *g, ev_tensor t, ev_side side, unsigned *found, ev_tensor *wrong) {
  ev_tensor mine[4] = {EV_NONE, EV_NONE, EV_NONE, EV_NONE};
  if (b != NULL && side == EV_USER) mine[0] = b->input[EV_W_USER], mine[1] = b->input[EV_W_USER_KNOWN];
  if (b != NULL && side == EV_ITEM) mine[0] = b->input[EV_W_ITEM], mine[1] = b->input[EV_W_ITEM_KNOWN];
  bool *used = ev_zalloc(t + 1, sizeof *used);
  if (used == NULL) return EV_ENOMEM;
  *found = FREE;
  used[t] = true;
  for (ev_tensor i = t + 1; i-- > 0;) {
    const ev_node *n = &g->nodes[i];
    if (!used[i]) continue;
    for (unsigned k = 0; k < n->n_in; k++) used[n->in[k]] = true;
    if (n->kind != EV_NODE_INPUT && n->kind != EV_NODE_IDS) continue;
    bool ours = i == mine[0] || i == mine[1];
    *found |= ours ? FROM_SIDE : FROM_ELSEWHERE;
    if (!ours) *wrong = i;
  }
  ev_free(used);
  return EV_OK;
}

/* Ids first … first + n − 1 of a side into the inputs about it. */
static ev_status fill_range(ev_batches *b, ev_side side, size_t first, size_t n) {
  const ev_csr *m = side == EV_USER ? &b->v->by_user : &b->v->by_item;
  uint32_t *ids = b->ids[side == EV_USER ? EV_W_USER : EV_W_ITEM], *own = b->ids[side == EV_USER ? EV_W_USER_KNOWN : EV_W_ITEM_KNOWN];
  for (size_t i = 0; i < n; i++) {
    uint32_t id = (uint32_t)(first + i);
    if (ids != NULL) ids[i] = id;
    if (own != NULL) own[i] = own_id(b, m, id, NULL);
  }
  return b->rows == 0 ? EV_OK : ev_graph_set_live(b->g, b->rows, n); /* whole batches: what stands behind the n rows is computed too, and left */
}

static ev_status compute(ev_batches *b, ev_graph *g, ev_tensor t, ev_side side, bool ranges, size_t n, size_t d, float *table) {
  ev_plan *p;
  ev_status status = ev_plan_new(&p, g, &t, 1, EV_NONE);
  if (status != EV_OK) return status;
  size_t step = ranges ? b->n_rows : n;
  for (size_t first = 0; first < n && status == EV_OK; first += step) {
    size_t some = n - first < step ? n - first : step;
    if (ranges) status = fill_range(b, side, first, some);
    if (status == EV_OK) status = ev_plan_run(p, false, 0, NULL);
    if (status == EV_OK) memcpy(table + first * d, ev_plan_value(p, t, NULL), some * d * sizeof *table);
  }
  ev_plan_free(p);
  return status;
}

ev_status ev_batches_table(ev_batches *b, ev_graph *g, ev_tensor t, ev_side side, size_t n, float **table, size_t *d) {
  *table = NULL;
  if (t >= g->n || (side != EV_USER && side != EV_ITEM) || (b != NULL && b->g != g)) return ev_fail(EV_EINVAL, "no tensor of this graph");
  const char *whose = side == EV_USER ? "users" : "items", *what = ev_graph_name(g, t);
  const ev_node *node = &g->nodes[t];
  ev_tensor wrong = EV_NONE;
  unsigned found;
  char text[64];
  ev_shape_text(text, &node->shape);
  if (node->kind == EV_NODE_IDS || node->kind == EV_NODE_SPARSE || (node->shape.rank != 1 && node->shape.rank != 2))
    return ev_fail(EV_EINVAL, "%s%s %s is no table of %s", node->where, what, text, whose);
  EV_TRY(below(b, g, t, side, &found, &wrong));
  if (found & FROM_ELSEWHERE) return ev_fail(EV_EINVAL, "%s%s %s is no table of %s: it depends on '%s'", node->where, what, text, whose, ev_graph_name(g, wrong));
  bool ranges = found == FROM_SIDE;
  if (ranges ? node->shape.axis != b->rows || node->shape.dim[0] != b->n_rows : node->shape.dim[0] != n || node->shape.axis != 0)
    return ev_fail(EV_EINVAL, "%s%s %s is no table of %zu %s", node->where, what, text, n, whose);
  *d = node->shape.rank == 2 ? node->shape.dim[1] : 1;
  float *out = ev_alloc(n, *d * sizeof *out);
  if (out == NULL) return EV_ENOMEM;
  ev_status status = compute(b, g, t, side, ranges, n, *d, out);
  if (status == EV_OK) *table = out;
  else ev_free(out);
  return status;
}
