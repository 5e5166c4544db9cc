/* indexed.c - factors with an index over the items' vectors; learn.h says what a request gets.
 *
 * Arrays: user f32 (n_users, d), trained u64 (n_users, 2), spectrum f32 (d), counts f32 (n_items), options f64 (α₀, λ, ν), and the
 * index with the items' vectors, which is mapped beside the pack: processes share its pages.
 *
 * The least squares of ials.c have the matrix α₀ ItemᵀItem + λ(…)I + Σ hᵢhᵢᵀ over the history. With vectors turned into the basis of
 * ItemᵀItem's eigenvectors the first two terms are diagonal, and conjugate gradients (Hestenes and Stiefel 1952) preconditioned by
 * them end after at most n + 1 steps for a history of n, each of 2 n d products; a factorisation takes d³ / 3 whatever n is. With
 * 128 dimensions and Gowalla's histories: 6 µs against 110.
 *
 * A history is compared with the trained one by its length and a sum of its items' hashes: order does not matter to the solution. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "kinds.h"

#define DIMS_MAX 4096
#define TOLERANCE 1e-5 /* relative, of the residual in the preconditioner's norm */
#define WALK 8         /* a walk is taken where it keeps fewer than one in so many items: beyond, the index decides */
#define SIEVE 4096     /* bits; a multiple of 64 */
#define BLOCK 256      /* rows gathered at once, where the steps did not end */

/* ---- Fit -----------------------------------------------------------------------------------------------*/
static uint64_t hash_of(const uint32_t *items, size_t n) {
  uint64_t sum = 0;
  for (size_t i = 0; i < n; i++) {
    uint64_t h = (items[i] + 1ull) * 0x9E3779B97F4A7C15;
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9;
    sum += h ^ h >> 27;
  }
  return sum;
}

typedef struct turning {
  const float *from, *basis; /* (n, d), (d, d) */
  float *to;
  size_t d;
} turning;

static void turn_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  turning *t = ctx;
  ev_gemm_nt(t->to + begin * t->d, t->from + begin * t->d, t->basis, 0, end - begin, t->d, t->d);
}

/* x (n, d) in the basis, by blocks that do not depend on the threads. */
static ev_status turn(float **x, const float *basis, size_t n, size_t d) {
  turning t = {*x, basis, ev_alloc(n, d * sizeof(float)), d};
  if (t.to == NULL) return EV_ENOMEM;
  ev_parallel_for(n, 1024, turn_rows, &t);
  ev_free(*x);
  *x = t.to;
  return EV_OK;
}

static ev_status build(ev_index **out, const ev_index_options *o, const float *item, size_t n, size_t d) {
  ev_index_options own = *o;
  own.metric = "dot";
  own.rescore = true;
  own.n_dims = d;
  own.max_rows = n;
  *out = NULL;
  uint32_t *rows = ev_alloc(n, sizeof *rows);
  if (rows == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < n; i++) rows[i] = (uint32_t)i;
  ev_status status = ev_index_new(out, &own);
  if (status == EV_OK) status = ev_index_put(*out, rows, item, n);
  ev_free(rows);
  return status;
}

static ev_status write_all(const char *path, const ev_view *v, const ev_ials_options *o, const float *user, const float *spectrum, const ev_index *index) {
  size_t n_users = v->by_user.n_rows, n_items = v->by_item.n_rows;
  double options[3] = {o->unobserved_weight, o->regularization, o->frequency_power};
  uint64_t *trained = ev_alloc(n_users, 2 * sizeof *trained);
  float *counts = ev_alloc(n_items, sizeof *counts);
  ev_pack_writer *w = NULL;
  ev_status status = trained == NULL || counts == NULL ? EV_ENOMEM : ev_pack_writer_open(&w, path, "indexed");
  if (status == EV_OK) {
    for (size_t u = 0; u < n_users; u++) {
      trained[2 * u] = v->by_user.ptr[u + 1] - v->by_user.ptr[u];
      trained[2 * u + 1] = hash_of(v->by_user.idx + v->by_user.ptr[u], trained[2 * u]);
    }
    for (size_t i = 0; i < n_items; i++) counts[i] = (float)(v->by_item.ptr[i + 1] - v->by_item.ptr[i]);
    status = ev_pack_write(w, "user", EV_F32, user, n_users, o->n_dims);
  }
  if (status == EV_OK) status = ev_pack_write(w, "trained", EV_U64, trained, n_users, 2);
  if (status == EV_OK) status = ev_pack_write(w, "spectrum", EV_F32, spectrum, o->n_dims, 1);
  if (status == EV_OK) status = ev_pack_write(w, "counts", EV_F32, counts, n_items, 1);
  if (status == EV_OK) status = ev_pack_write(w, "options", EV_F64, options, 3, 1);
  if (status == EV_OK) status = ev_index_write(index, w, NULL, 0);
  ev_free(trained);
  ev_free(counts);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

ev_status ev_fit_indexed(const char *path, const ev_view *v, const ev_ials_options *o, const ev_index_options *index, const ev_progress *p) {
  size_t d = o->n_dims, n_items = v->by_item.n_rows;
  float *user, *item, *basis = NULL, *spectrum = NULL;
  ev_index *x = NULL;
  EV_TRY(ev_ials_train(&user, &item, v, o, p));
  basis = ev_alloc(d, d * sizeof *basis);
  spectrum = ev_alloc(d, sizeof *spectrum);
  ev_status status = basis == NULL || spectrum == NULL ? EV_ENOMEM : ev_ials_gram(basis, item, n_items, d);
  if (status == EV_OK) status = ev_symmetric_eigen(basis, spectrum, d);
  for (size_t i = 0; i < d && status == EV_OK; i++) spectrum[i] = spectrum[i] > 0 ? o->unobserved_weight * spectrum[i] : 0;
  if (status == EV_OK) status = turn(&user, basis, v->by_user.n_rows, d);
  if (status == EV_OK) status = turn(&item, basis, n_items, d);
  if (status == EV_OK && p != NULL) p->report(p->ctx, "index", 0, 1, NAN);
  if (status == EV_OK) status = build(&x, index, item, n_items, d);
  if (status == EV_OK) status = write_all(path, v, o, user, spectrum, x);
  ev_index_free(x);
  void *blocks[] = {user, item, basis, spectrum};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  return status;
}

/* ---- Model ---------------------------------------------------------------------------------------------*/
typedef struct indexed {
  ev_index *index;         /* owned */
  bool flat;
  const float *user;       /* (n_users, d) */
  const uint64_t *trained; /* (n_users, 2): items, hash */
  const float *spectrum;   /* (d) */
  const char *item;        /* (n_items, d) f32, rows `stride` bytes apart */
  size_t n_users, n_items, d, stride;
  double alpha0, lambda, nu;
  const float *counts;     /* (n_items) */
  uint32_t *popular;       /* (n_items) owned; those with the largest counts first */
  size_t n_popular;
} indexed;

static ev_status open_kind(ev_model *m) {
  ev_array user, counts, item;
  const void *trained, *spectrum, *options;
  const char *path = ev_pack_path(m->pack);
  EV_TRY(ev_pack_get(m->pack, "user", EV_F32, &user));
  EV_TRY(ev_pack_get(m->pack, "counts", EV_F32, &counts));
  size_t n = counts.rows, d = user.cols;
  if (n == 0 || n >= EV_NONE || counts.cols != 1 || d == 0 || d > DIMS_MAX) return ev_fail(EV_ECORRUPT, "%s: factors of the wrong shape", path);
  EV_TRY(ev_model_array(m, "trained", EV_U64, user.rows, 2, &trained));
  EV_TRY(ev_model_array(m, "spectrum", EV_F32, d, 1, &spectrum));
  EV_TRY(ev_model_array(m, "options", EV_F64, 3, 1, &options));
  m->n_items = n;
  indexed *x = m->state = ev_zalloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  ev_status mapped = ev_index_map(&x->index, m->pack, n);
  if (mapped == EV_ELIMIT) return ev_fail(EV_ECORRUPT, "%s: the index has more rows than there are items", path);
  EV_TRY(mapped);
  if (!ev_pack_current(m->pack)) return ev_fail(EV_ECORRUPT, "%s: the file was replaced while it was opened", path);
  const ev_index_options *o = ev_index_opts(x->index);
  if (strcmp(o->metric, "dot") != 0 || o->n_dims != d || ev_index_n(x->index) != n || ev_index_n_rows(x->index) != n)
    return ev_fail(EV_ECORRUPT, "%s: the index is not of the items' vectors", path);
  bool plain = strcmp(o->form, "f32") == 0; /* then codes are vectors */
  EV_TRY(ev_pack_get(m->pack, plain ? "index.codes" : "index.vectors", plain ? EV_U8 : EV_F32, &item));
  x->stride = plain ? item.cols : item.cols * sizeof(float);
  if (item.rows != n || x->stride < d * sizeof(float)) return ev_fail(EV_ECORRUPT, "%s: the index does not keep the items' vectors", path);
  x->flat = strcmp(o->kind, "flat") == 0;
  x->user = user.data, x->trained = trained, x->spectrum = spectrum, x->item = item.data, x->counts = counts.data;
  x->n_users = user.rows, x->n_items = n, x->d = d;
  x->alpha0 = ev_model_option(m, 0), x->lambda = ev_model_option(m, 1), x->nu = ev_model_option(m, 2);
  x->popular = ev_alloc(n, sizeof *x->popular);
  float *sorted = ev_alloc(n, sizeof *sorted);
  ev_status status = x->popular == NULL || sorted == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) x->n_popular = ev_topk(x->popular, sorted, x->counts, n, n);
  ev_free(sorted);
  return status;
}

static void close_kind(ev_model *m) {
  indexed *x = m->state;
  if (x == NULL) return;
  ev_index_free(x->index);
  ev_free(x->popular);
  ev_free(x);
}

/* ---- Folding in ----------------------------------------------------------------------------------------*/
static const float *item_of(const indexed *x, uint32_t item) { return (const float *)(const void *)(x->item + item * x->stride); }

/* out (d) = D v + Σ h (h·v), D = spectrum + ridge. */
static void multiply(float *out, const indexed *x, const uint32_t *items, size_t n, float ridge, const float *v) {
  for (size_t i = 0; i < x->d; i++) out[i] = (x->spectrum[i] + ridge) * v[i];
  for (size_t i = 0; i < n; i++) {
    const float *h = item_of(x, items[i]);
    ev_axpy(out, h, ev_dot(h, v, x->d), x->d);
  }
}

/* The same equations by Cholesky, for where steps do not end in time: hardly any weight on the unobserved, and no ridge. */
static ev_status solve_whole(float *q, const indexed *x, const uint32_t *items, size_t n, float ridge) {
  size_t d = x->d;
  float *matrix = ev_zalloc(d, d * sizeof *matrix), *block = ev_alloc(BLOCK, d * sizeof *block);
  ev_status status = matrix == NULL || block == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    memset(q, 0, d * sizeof *q);
    for (size_t begin = 0; begin < n; begin += BLOCK) {
      size_t rows = n - begin < BLOCK ? n - begin : BLOCK;
      for (size_t i = 0; i < rows; i++) {
        memcpy(block + i * d, item_of(x, items[begin + i]), d * sizeof *block);
        ev_axpy(q, block + i * d, 1, d);
      }
      ev_syrk_tn(matrix, block, 1, d, rows);
    }
    for (size_t i = 0; i < d; i++) matrix[i * d + i] += x->spectrum[i] + ridge;
    status = ev_spd_solve(matrix, q, d, 1);
  }
  ev_free(matrix);
  ev_free(block);
  return status;
}

/* q (d): the best vector for these items, beginning at `start` or NULL: zeros. room (4 d). */
static ev_status fold_in(float *q, const indexed *x, const uint32_t *items, size_t n, const float *start, float *room) {
  size_t d = x->d, most = 2 * (n < d ? n : d) + 16;
  float *r = room, *z = r + d, *p = z + d, *a = p + d;
  float ridge = (float)(x->lambda * pow((double)n + x->alpha0 * (double)x->n_items, x->nu));
  double goal = 0, rz = 0;
  memset(r, 0, d * sizeof *r);
  for (size_t i = 0; i < n; i++) ev_axpy(r, item_of(x, items[i]), 1, d);
  for (size_t i = 0; i < d; i++) goal += (double)r[i] * r[i] / (x->spectrum[i] + ridge);
  goal *= TOLERANCE * TOLERANCE;
  if (start != NULL) {
    memcpy(q, start, d * sizeof *q);
    multiply(a, x, items, n, ridge, q);
    ev_axpy(r, a, -1, d);
  } else {
    memset(q, 0, d * sizeof *q);
  }
  for (size_t step = 0; step <= most; step++) {
    double before = rz;
    for (size_t i = 0; i < d; i++) z[i] = r[i] / (x->spectrum[i] + ridge);
    rz = ev_dot(r, z, d);
    if (rz <= goal) return EV_OK;
    if (step == 0) memcpy(p, z, d * sizeof *p);
    else
      for (size_t i = 0; i < d; i++) p[i] = z[i] + (float)(rz / before) * p[i];
    multiply(a, x, items, n, ridge, p);
    float length = (float)(rz / ev_dot(p, a, d));
    ev_axpy(q, p, length, d);
    ev_axpy(r, a, -length, d);
  }
  return solve_whole(q, x, items, n, ridge);
}

/* Request i's vector; *known is false where he brings nothing, and then q is zeros. */
static ev_status query_of(float *q, bool *known, const indexed *x, const ev_requests *r, size_t i, float *room) {
  const uint32_t *items = r->history + r->history_ptr[i];
  size_t n = r->history_ptr[i + 1] - r->history_ptr[i];
  uint32_t user = r->user != NULL ? r->user[i] : EV_NONE;
  *known = n > 0;
  if (n == 0) {
    memset(q, 0, x->d * sizeof *q);
    return EV_OK;
  }
  const float *own = user < x->n_users ? x->user + (size_t)user * x->d : NULL;
  if (own == NULL || x->trained[2 * (size_t)user] != n || x->trained[2 * (size_t)user + 1] != hash_of(items, n)) return fold_in(q, x, items, n, own, room);
  memcpy(q, own, x->d * sizeof *q);
  return EV_OK;
}

/* ---- Answers -------------------------------------------------------------------------------------------*/
static void most_popular(const indexed *x, const uint32_t *seen, size_t n_seen, size_t k, uint32_t *ids, float *scores) {
  size_t found = 0;
  for (size_t at = 0; at < x->n_popular && found < k; at++) {
    uint32_t item = x->popular[at];
    if (ev_sorted_has(seen, n_seen, item)) continue;
    ids[found] = item;
    scores[found++] = x->counts[item];
  }
  for (; found < k; found++) ids[found] = EV_NONE, scores[found] = -INFINITY;
}

typedef struct asking {
  const indexed *x;
  const ev_requests *r;
  size_t k;
  unsigned effort;
  uint32_t *ids; /* (n, k) */
  float *scores;
  float *queries; /* (n, d) of a flat index, which looks for all of them together */
  atomic_int failed;
} asking;

/* What was seen is asked for too and then left out: a walk that had to go around it would need a queue beside its pool. */
static ev_status search_one(const asking *a, size_t i, const float *q, const uint32_t *seen, size_t n_seen) {
  const indexed *x = a->x;
  size_t want = a->k + n_seen < x->n_items ? a->k + n_seen : x->n_items, used = 0;
  uint32_t *found = ev_alloc(want, sizeof *found), *ids = a->ids + i * a->k;
  float *found_scores = ev_alloc(want, sizeof *found_scores), *scores = a->scores + i * a->k;
  unsigned effort = a->effort > 0 ? a->effort : ev_index_opts(x->index)->effort;
  ev_search s = {.k = want, .effort = effort, .walk = WALK * (effort > want ? effort : want) < x->n_items};
  ev_status status = found == NULL || found_scores == NULL ? EV_ENOMEM : ev_index_search(x->index, q, 1, &s, found, found_scores);
  uint64_t maybe[SIEVE / 64] = {0}; /* a bit is set where an item with that remainder was seen: most found ones need no search */
  for (size_t h = 0; h < n_seen; h++) maybe[seen[h] % SIEVE / 64] |= (uint64_t)1 << seen[h] % 64;
  for (size_t f = 0; f < want && used < a->k && status == EV_OK && found[f] != EV_NONE; f++) {
    if ((maybe[found[f] % SIEVE / 64] >> found[f] % 64 & 1) != 0 && ev_sorted_has(seen, n_seen, found[f])) continue;
    ids[used] = found[f];
    scores[used++] = found_scores[f];
  }
  for (; used < a->k; used++) ids[used] = EV_NONE, scores[used] = -INFINITY;
  ev_free(found);
  ev_free(found_scores);
  return status;
}

static void ask_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  asking *a = ctx;
  const ev_requests *r = a->r;
  size_t d = a->x->d;
  float *room = ev_alloc(5, d * sizeof *room);
  ev_status status = room == NULL ? EV_ENOMEM : EV_OK;
  for (size_t i = begin; i < end && status == EV_OK; i++) {
    float *q = a->queries != NULL ? a->queries + i * d : room + 4 * d;
    bool known;
    const uint32_t *seen = r->seen_ptr != NULL ? r->seen + r->seen_ptr[i] : NULL;
    size_t n_seen = r->seen_ptr != NULL ? r->seen_ptr[i + 1] - r->seen_ptr[i] : 0;
    status = ev_interrupted() ? EV_EINTR : query_of(q, &known, a->x, r, i, room);
    if (status != EV_OK || a->queries != NULL) continue;
    if (known) status = search_one(a, i, q, seen, n_seen);
    else most_popular(a->x, seen, n_seen, a->k, a->ids + i * a->k, a->scores + i * a->k);
  }
  if (status != EV_OK) atomic_store(&a->failed, (int)status);
  ev_free(room);
}

static ev_status search_flat(asking *a) {
  const ev_requests *r = a->r;
  ev_search s = {.k = a->k, .effort = a->effort, .seen_ptr = r->seen_ptr, .seen = r->seen};
  EV_TRY(ev_index_search(a->x->index, a->queries, r->n, &s, a->ids, a->scores));
  for (size_t i = 0; i < r->n; i++) {
    if (r->history_ptr[i + 1] != r->history_ptr[i]) continue;
    const uint32_t *seen = r->seen_ptr != NULL ? r->seen + r->seen_ptr[i] : NULL;
    most_popular(a->x, seen, r->seen_ptr != NULL ? r->seen_ptr[i + 1] - r->seen_ptr[i] : 0, a->k, a->ids + i * a->k, a->scores + i * a->k);
  }
  return EV_OK;
}

ev_status ev_indexed_recall(const ev_model *m, const ev_requests *r, size_t k, unsigned effort, uint32_t *ids, float *scores) {
  const indexed *x = m->state;
  asking a = {.x = x, .r = r, .k = k, .effort = effort, .ids = ids, .scores = scores};
  if (x->flat && (a.queries = ev_alloc(r->n, x->d * sizeof *a.queries)) == NULL) return EV_ENOMEM;
  ev_parallel_for(r->n, 4, ask_some, &a);
  ev_status status = (ev_status)atomic_load(&a.failed);
  if (status == EV_EINTR) ev_fail(status, "interrupted");
  else if (status != EV_OK) ev_fail(status, status == EV_ENOMEM ? "out of memory: %zu requests for %zu items" : "one of %zu users cannot be folded in, or be searched for", r->n, k);
  if (status == EV_OK && x->flat) status = search_flat(&a);
  ev_free(a.queries);
  return status;
}

static ev_status recall(const ev_model *m, const ev_requests *r, size_t k, uint32_t *ids, float *scores) { return ev_indexed_recall(m, r, k, 0, ids, scores); }

static ev_status score(const ev_model *m, const ev_requests *r, const uint32_t *items, size_t n, float *out) {
  const indexed *x = m->state;
  float *room = ev_alloc(5, x->d * sizeof *room);
  if (room == NULL) return EV_ENOMEM;
  float *q = room + 4 * x->d;
  bool known;
  ev_status status = query_of(q, &known, x, r, 0, room);
  if (status == EV_OK && known) ev_dots_at(out, q, x->item, items, EV_FORM_F32, x->stride, n, x->d);
  for (size_t i = 0; i < n && status == EV_OK && !known; i++) out[i] = x->counts[items[i]];
  ev_free(room);
  return status;
}

const ev_kind ev_kind_indexed = {.name = "indexed", .open = open_kind, .close = close_kind, .recall = recall, .score = score};
