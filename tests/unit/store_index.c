/* store_index.c - the index, every kind through one suite, against an exact search in double precision. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "store/index.h"
#include "support.h"

static const char *const kinds[] = {"flat", "hnsw", "ivf"};
static const char *const metrics[] = {"dot", "cosine", "l2"};
static const char *const forms[] = {"f32", "f16", "bf16", "i8"};
#define N_OF(array) (sizeof(array) / sizeof *(array))

/* ---- A world of vectors, and what is true of it -------------------------------------------------------------*/
enum { DIMS = 24, ROWS = 6000, CLUSTERS = 60 };

static void make_vectors(float *out, size_t n, uint64_t seed) { /* clustered, of different lengths */
  ev_rng centre, r;
  ev_rng_seed(&r, seed, 1);
  for (size_t i = 0; i < n; i++) {
    ev_rng_seed(&centre, 77, ev_rng_below(&r, CLUSTERS));
    double length = 0.5 + ev_rng_f64(&r);
    for (size_t k = 0; k < DIMS; k++) out[i * DIMS + k] = (float)(length * (ev_rng_normal(&centre) + 0.5 * ev_rng_normal(&r)));
  }
}

static float *vectors_of(size_t n, uint64_t seed) {
  float *v = malloc(n * DIMS * sizeof *v);
  make_vectors(v, n, seed);
  return v;
}

static double truth(const char *metric, const float *q, const float *v) {
  double dot = 0, qq = 0, vv = 0, between = 0;
  for (size_t i = 0; i < DIMS; i++) {
    dot += (double)q[i] * v[i];
    qq += (double)q[i] * q[i];
    vv += (double)v[i] * v[i];
    between += ((double)q[i] - v[i]) * ((double)q[i] - v[i]);
  }
  if (strcmp(metric, "dot") == 0) return dot;
  if (strcmp(metric, "l2") == 0) return -between;
  return qq > 0 && vv > 0 ? dot / sqrt(qq * vv) : 0;
}

typedef bool may_fn(const void *ctx, uint32_t row);

typedef struct scored {
  double score;
  uint32_t row;
} scored;

static int by_score(const void *a, const void *b) {
  const scored *x = a, *y = b;
  return x->score > y->score ? -1 : x->score < y->score ? 1 : x->row < y->row ? -1 : x->row > y->row;
}

/* All rows that may be found, best first; how many. */
static size_t exact(scored *out, const char *metric, const float *q, const float *vectors, const bool *there, size_t n, may_fn *may, const void *ctx) {
  size_t used = 0;
  for (uint32_t i = 0; i < n; i++)
    if (there[i] && (may == NULL || may(ctx, i))) out[used++] = (scored){truth(metric, q, vectors + i * DIMS), i};
  qsort(out, used, sizeof *out, by_score);
  return used;
}

static ev_index *new_index(const char *kind, const char *metric, const char *form, bool rescore) {
  ev_index_options o;
  ev_index *x;
  ev_index_defaults(&o);
  o.kind = kind;
  o.metric = metric;
  o.form = form;
  o.rescore = rescore;
  o.n_dims = DIMS;
  o.max_rows = 1 << 16;
  o.seed = 5;
  if (ev_index_new(&x, &o) != EV_OK) fail_msg("%s %s %s: %s", kind, metric, form, ev_error());
  return x;
}

static void put_range(ev_index *x, const float *vectors, uint32_t from, uint32_t to) {
  uint32_t *rows = malloc((to - from + 1) * sizeof *rows);
  for (uint32_t i = from; i < to; i++) rows[i - from] = i;
  if (ev_index_put(x, rows, vectors + (size_t)from * DIMS, to - from) != EV_OK) fail_msg("put: %s", ev_error());
  free(rows);
}

/* Checks an answer in every respect but how good it is; gives the share of the true best that it has. Rows whose true score
 * ties with the k-th within rounding count as right. */
static double check_answer(const char *what, const scored *best, size_t n_best, const uint32_t *rows, const float *scores, size_t k, double tolerance) {
  size_t expected = n_best < k ? n_best : k, hits = 0;
  double span = fabs(best[0].score) + fabs(best[n_best > 0 ? n_best - 1 : 0].score) + 1e-6;
  for (size_t i = 0; i < k; i++) {
    if (i >= expected) {
      if (rows[i] != EV_NONE || scores[i] != -INFINITY) fail_msg("%s: place %zu of %zu is not empty", what, i, expected);
      continue;
    }
    if (rows[i] == EV_NONE) fail_msg("%s: only %zu of %zu", what, i, expected);
    if (i > 0 && (scores[i] > scores[i - 1] || (scores[i] == scores[i - 1] && rows[i] <= rows[i - 1]))) fail_msg("%s: out of order at %zu", what, i);
    size_t at = 0;
    while (at < n_best && best[at].row != rows[i]) at++;
    if (at == n_best) fail_msg("%s: row %u may not be found", what, rows[i]);
    if (fabs(best[at].score - (double)scores[i]) > tolerance * span) fail_msg("%s: row %u scores %g, not %g", what, rows[i], (double)scores[i], best[at].score);
    for (size_t j = 0; j < i; j++)
      if (rows[j] == rows[i]) fail_msg("%s: row %u twice", what, rows[i]);
    hits += best[at].score >= best[expected - 1].score - 1e-6 * span;
  }
  return expected == 0 ? 1 : (double)hits / (double)expected;
}

/* ---- Finding ------------------------------------------------------------------------------------------------*/
static double form_error(const char *form) { return strcmp(form, "f32") == 0 ? 1e-6 : strcmp(form, "f16") == 0 ? 1e-3 : 1e-2; }

static void the_best_are_found_by_every_kind_metric_and_form(void **s) {
  (void)s;
  enum { N = 5000, QUERIES = 12, K = 10 };
  float *vectors = vectors_of(N, 1), *q = vectors_of(QUERIES, 2);
  bool *there = malloc(N);
  scored *best = malloc(N * sizeof *best);
  memset(there, 1, N);
  for (size_t kind = 0; kind < N_OF(kinds); kind++)
    for (size_t metric = 0; metric < N_OF(metrics); metric++)
      for (size_t form = 0; form < 2 * N_OF(forms); form++) {
        bool rescore = form % 2 == 0, exactly = rescore || form / 2 == 0;
        ev_index *x = new_index(kinds[kind], metrics[metric], forms[form / 2], rescore);
        put_range(x, vectors, 0, 1);
        put_range(x, vectors, 1, 700);
        put_range(x, vectors, 700, N);
        uint32_t rows[QUERIES * K];
        float scores[QUERIES * K];
        size_t looked_at;
        ev_search search = {.k = K, .effort = 40, .n_looked_at = &looked_at}; /* a walk, which more effort makes dearer than a scan */
        double recall = 0;
        char what[64];
        snprintf(what, sizeof what, "%s %s %s%s", kinds[kind], metrics[metric], forms[form / 2], rescore ? "" : " alone");
        if (ev_index_search(x, q, QUERIES, &search, rows, scores) != EV_OK) fail_msg("%s: %s", what, ev_error());
        assert_true(looked_at > 0);
        assert_true(kind > 0 ? looked_at < N * QUERIES : looked_at == N * QUERIES);
        for (size_t i = 0; i < QUERIES; i++) {
          size_t n = exact(best, metrics[metric], q + i * DIMS, vectors, there, N, NULL, NULL);
          recall += check_answer(what, best, n, rows + i * K, scores + i * K, K, exactly ? 1e-6 : form_error(forms[form / 2])) / QUERIES;
        }
        double least = kind > 0 ? exactly ? 0.9 : 0.8 : exactly ? 0.9999 : form / 2 == 1 ? 0.95 : 0.85;
        if (recall < least) fail_msg("%s: recall %.3f", what, recall);
        ev_index_free(x);
      }
  free(vectors);
  free(q);
  free(there);
  free(best);
}

static void more_effort_finds_more(void **s) {
  (void)s;
  enum { QUERIES = 50, K = 10 };
  static const unsigned efforts[] = {1, 4, 16, 64, 400};
  float *vectors = vectors_of(ROWS, 3), *q = vectors_of(QUERIES, 4);
  bool *there = malloc(ROWS);
  scored *best = malloc(ROWS * sizeof *best);
  memset(there, 1, ROWS);
  for (size_t kind = 1; kind < N_OF(kinds); kind++) {
    ev_index *x = new_index(kinds[kind], "l2", "f32", false);
    put_range(x, vectors, 0, ROWS);
    double before = 0;
    for (size_t e = 0; e < N_OF(efforts); e++) {
      uint32_t rows[QUERIES * K];
      float scores[QUERIES * K];
      double recall = 0;
      ev_search search = {.k = K, .effort = efforts[e]};
      assert_int_equal(ev_index_search(x, q, QUERIES, &search, rows, scores), EV_OK);
      for (size_t i = 0; i < QUERIES; i++) {
        size_t n = exact(best, "l2", q + i * DIMS, vectors, there, ROWS, NULL, NULL);
        recall += check_answer(kinds[kind], best, n, rows + i * K, scores + i * K, K, 1e-6) / QUERIES;
      }
      if (recall < before - 0.01) fail_msg("%s: effort %u finds %.3f, less effort %.3f", kinds[kind], efforts[e], recall, before);
      before = recall;
    }
    assert_true(before > 0.999); /* and all of it nearly all */
    ev_index_free(x);
  }
  free(vectors);
  free(q);
  free(there);
  free(best);
}

/* ---- Filters ------------------------------------------------------------------------------------------------*/
typedef struct filter {
  const uint64_t *allowed;
  size_t n_allowed;
  uint32_t every; /* `pass`: rows divisible by it; 0 = no condition */
  const uint32_t *seen;
  size_t n_seen;
  const ev_index *index;
} filter;

static bool filter_pass(void *ctx, uint32_t row) {
  const filter *f = ctx;
  if (f->index != NULL && !ev_index_has(f->index, row)) fail_msg("row %u is asked for, and is not live", row);
  return row % f->every == 0;
}

static uint64_t filter_word(void *ctx, uint32_t row, uint64_t of) {
  uint64_t out = 0;
  assert_true(row % 64 == 0 && of != 0);
  for (uint32_t i = 0; i < 64; i++)
    if ((of >> i & 1) != 0 && filter_pass(ctx, row + i)) out |= (uint64_t)1 << i;
  return out;
}

static bool filter_may(const void *ctx, uint32_t row) {
  const filter *f = ctx;
  if (f->allowed != NULL && (row >= f->n_allowed || (f->allowed[row / 64] >> row % 64 & 1) == 0)) return false;
  if (f->every > 0 && row % f->every != 0) return false;
  for (size_t i = 0; i < f->n_seen; i++)
    if (f->seen[i] == row) return false;
  return true;
}

static void filters_act_during_the_search_and_k_come_back_when_k_exist(void **s) {
  (void)s;
  enum { QUERIES = 8, K = 10 };
  static const double shares[] = {1, 0.5, 0.1, 0.01, 0.002, 0};
  static const uint32_t every[] = {0, 1, 3, 50, 3000};
  float *vectors = vectors_of(ROWS, 5), *q = vectors_of(QUERIES, 6);
  bool *there = malloc(ROWS);
  scored *best = malloc(ROWS * sizeof *best);
  uint64_t allowed[ROWS / 64 + 1];
  ev_rng r;
  ev_rng_seed(&r, 9, 9);
  for (size_t kind = 0; kind < N_OF(kinds); kind++)
    for (size_t metric = 0; metric < N_OF(metrics); metric++) {
      ev_index *x = new_index(kinds[kind], metrics[metric], metric == 1 ? "f32" : "i8", true);
      put_range(x, vectors, 0, ROWS);
      memset(there, 1, ROWS);
      for (uint32_t i = 0; i < ROWS; i += 7) {
        assert_int_equal(ev_index_delete(x, &i, 1), EV_OK);
        there[i] = false;
      }
      for (size_t share = 0; share < N_OF(shares); share++)
        for (size_t e = 0; e < N_OF(every); e++)
          for (int with_seen = 0; with_seen < 2; with_seen++) {
            size_t n_allowed = share == 0 ? 0 : share % 2 == 0 ? ROWS : ROWS - 1001, n_seen = 0;
            uint32_t seen[QUERIES * 40];
            uint64_t seen_ptr[QUERIES + 1] = {0};
            memset(allowed, 0, sizeof allowed);
            for (size_t i = 0; i < n_allowed; i++)
              if (ev_rng_f64(&r) < shares[share]) allowed[i / 64] |= (uint64_t)1 << i % 64;
            if (share != 0) allowed[ROWS / 64] |= ~(uint64_t)0 << 60; /* beyond n_allowed: not looked at */
            for (size_t i = 0; i < QUERIES; i++) { /* the best 30 and a few at random, ascending */
              size_t n = exact(best, metrics[metric], q + i * DIMS, vectors, there, ROWS, NULL, NULL);
              bool *is = calloc(ROWS, 1);
              for (size_t j = 0; j < 30 && j < n; j++) is[best[j].row] = true;
              for (size_t j = 0; j < 10; j++) is[ev_rng_below(&r, ROWS)] = true;
              for (uint32_t row = 0; row < ROWS; row++)
                if (is[row]) seen[n_seen++] = row;
              seen_ptr[i + 1] = n_seen;
              free(is);
            }
            filter f = {.allowed = share == 0 ? NULL : allowed, .n_allowed = n_allowed, .every = every[e], .index = x};
            ev_search search = {.k = K, .allowed = f.allowed, .n_allowed = n_allowed, .pass = every[e] > 0 ? filter_pass : NULL, .pass_ctx = &f,
                                .pass_share = e % 2 == 0 || every[e] == 0 ? 0 : 1.0 / every[e]};
            if (every[e] > 0 && share % 2 == 1) search.pass_word = filter_word;
            if (with_seen) search.seen_ptr = seen_ptr, search.seen = seen;
            for (size_t m = 1; m <= QUERIES; m += QUERIES - 1) {
              uint32_t rows[QUERIES * K];
              float scores[QUERIES * K];
              double recall = 0;
              char what[120];
              snprintf(what, sizeof what, "%s %s, share %g, every %u, seen %d, %zu queries", kinds[kind], metrics[metric], shares[share], every[e], with_seen, m);
              if (ev_index_search(x, q, m, &search, rows, scores) != EV_OK) fail_msg("%s: %s", what, ev_error());
              for (size_t i = 0; i < m; i++) {
                f.seen = with_seen ? seen + seen_ptr[i] : NULL;
                f.n_seen = with_seen ? seen_ptr[i + 1] - seen_ptr[i] : 0;
                size_t n = exact(best, metrics[metric], q + i * DIMS, vectors, there, ROWS, filter_may, &f);
                recall += check_answer(what, best, n, rows + i * K, scores + i * K, K, 1e-6) / (double)m;
              }
              f.n_seen = 0;
              if (recall < (kind == 0 ? 0.9999 : m == 1 ? 0.6 : 0.85)) fail_msg("%s: recall %.3f", what, recall);
            }
          }
      ev_index_free(x);
    }
  free(vectors);
  free(q);
  free(there);
  free(best);
}

/* Also where ev_index_search would rather scan: few rows, few of which may be found. */
static void a_kinds_own_search_leaves_out_what_may_not_be_found(void **s) {
  (void)s;
  enum { QUERIES = 10, WANT = 20 };
  static const double shares[] = {1, 0.5, 0.1, 0.01, 0};
  float *vectors = vectors_of(ROWS, 5), *q = vectors_of(QUERIES, 6), scores[WANT];
  bool *there = malloc(ROWS);
  scored *best = malloc(ROWS * sizeof *best);
  uint64_t allowed[ROWS / 64 + 1];
  uint32_t rows[WANT], seen[60];
  ev_rng r;
  ev_rng_seed(&r, 19, 9);
  for (size_t kind = 1; kind < N_OF(kinds); kind++)
    for (size_t share = 0; share < N_OF(shares); share++)
      for (int turn = 0; turn < 4; turn++) {
        const char *metric = metrics[(kind + share) % 3];
        ev_index *x = new_index(kinds[kind], metric, "i8", true);
        put_range(x, vectors, 0, ROWS);
        memset(there, 1, ROWS);
        for (uint32_t i = 0; i < ROWS; i += 5) assert_int_equal(ev_index_delete(x, &i, 1), EV_OK), there[i] = false;
        memset(allowed, 0, sizeof allowed);
        for (size_t i = 0; i < ROWS; i++)
          if (ev_rng_f64(&r) < shares[share]) allowed[i / 64] |= (uint64_t)1 << i % 64;
        for (uint32_t i = 0; i < 60; i++) seen[i] = 100 * i + 1;
        filter f = {.allowed = turn < 2 ? allowed : NULL, .n_allowed = ROWS, .every = turn % 2 == 0 ? 0 : 2, .seen = seen, .n_seen = 60, .index = x};
        uint64_t seen_ptr[QUERIES + 1] = {0};
        for (size_t i = 1; i <= QUERIES; i++) seen_ptr[i] = 60;
        double recall = 0;
        size_t complete = 0;
        for (size_t i = 0; i < QUERIES; i++) {
          ev_search search = {.k = WANT, .allowed = f.allowed, .n_allowed = ROWS, .pass = f.every > 0 ? filter_pass : NULL, .pass_ctx = &f, .seen_ptr = seen_ptr, .seen = seen};
          ev_prepared ready;
          ev_found found[WANT];
          size_t n = WANT + 1, looked_at = 0;
          f.n_seen = i == 0 ? 60 : 0; /* the others have seen nothing */
          assert_int_equal(ev_index_prepare(x, &ready, q + i * DIMS), EV_OK);
          unsigned place = ev_epoch_enter(ev_index_epochs(x));
          assert_int_equal(x->kind->search(x, &ready, &search, i, WANT, 64, found, &n, &looked_at), EV_OK);
          assert_true(n <= WANT);
          size_t n_best = exact(best, metric, q + i * DIMS, vectors, there, ROWS, filter_may, &f);
          float scratch[DIMS], inverse = ev_inverse_norm(q + i * DIMS, DIMS);
          scored sorted[WANT];
          for (size_t k = 0; k < n; k++) {
            double code = (double)found[k].score + (double)ready.offset, is = (double)ev_index_exact(x, q + i * DIMS, inverse, found[k].row, scratch);
            assert_true(fabs(code - is) < 0.02 * (fabs(best[0].score) + fabs(best[n_best - 1].score)));
            sorted[k] = (scored){is, found[k].row};
          }
          qsort(sorted, n, sizeof *sorted, by_score);
          for (size_t k = 0; k < n; k++) rows[k] = sorted[k].row, scores[k] = (float)sorted[k].score;
          if (n > 0) recall += check_answer(kinds[kind], best, n_best, rows, scores, n, 1e-5) / QUERIES;
          else recall += n_best == 0 ? 1.0 / QUERIES : 0;
          complete += n == (n_best < WANT ? n_best : WANT);
          ev_epoch_leave(ev_index_epochs(x), place);
          ev_index_prepared_free(&ready);
        }
        if (share < 2 && (recall < 0.8 || complete < QUERIES)) fail_msg("%s, share %g: recall %.3f, %zu complete", kinds[kind], shares[share], recall, complete);
        ev_index_free(x);
      }
  free(vectors);
  free(q);
  free(there);
  free(best);
}

/* ---- Rows ---------------------------------------------------------------------------------------------------*/
static void rows_come_go_and_come_again(void **s) {
  (void)s;
  enum { MOST = 5600, STEPS = 90, K = 10 };
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    ev_index *x = new_index(kinds[kind], metrics[kind % 3], "i8", true);
    float *vectors = malloc(MOST * DIMS * sizeof *vectors), *fresh = malloc(MOST * DIMS * sizeof *fresh), got[DIMS];
    bool *there = calloc(MOST, 1);
    uint32_t *rows = malloc(MOST * sizeof *rows);
    scored *best = malloc(MOST * sizeof *best);
    size_t live = 0, high = 0;
    ev_rng r;
    ev_rng_seed(&r, 11, kind);
    double recall = 0;
    for (int step = 0; step < STEPS; step++) {
      bool putting = step == 0 || ev_rng_below(&r, 100) < (live < 4600 ? 75 : 35);
      size_t n = 0, want = step == 0 ? 1 : step < 8 ? 700 : 1 + ev_rng_below(&r, 300);
      for (size_t tries = 0; n < want && tries < 4 * MOST; tries++) { /* any order */
        uint32_t row = ev_rng_below(&r, MOST);
        if (there[row] == putting) continue;
        there[row] = putting;
        rows[n++] = row;
      }
      if (putting) {
        make_vectors(fresh, n, 1000 + (uint64_t)step);
        for (size_t i = 0; i < n; i++) {
          memcpy(vectors + rows[i] * DIMS, fresh + i * DIMS, DIMS * sizeof *fresh);
          if (rows[i] >= high) high = rows[i] + 1;
        }
        assert_int_equal(ev_index_put(x, rows, fresh, n), EV_OK);
        live += n;
      } else {
        assert_int_equal(ev_index_delete(x, rows, n), EV_OK);
        live -= n;
      }
      assert_int_equal(ev_index_n(x), live);
      assert_int_equal(ev_index_n_rows(x), high);
      assert_true(ev_index_bytes(x) > live * DIMS * 5);
      for (uint32_t i = 0; i < MOST; i++) assert_int_equal(ev_index_has(x, i), there[i]);
      for (int i = 0; i < 20; i++) {
        uint32_t row = ev_rng_below(&r, MOST);
        assert_int_equal(ev_index_get(x, row, got), there[row] ? EV_OK : EV_ENOTFOUND);
        if (there[row]) assert_memory_equal(got, vectors + row * DIMS, sizeof got);
      }
      uint32_t found[K];
      float q[DIMS], scores[K];
      ev_search search = {.k = K};
      make_vectors(q, 1, 5000 + (uint64_t)step);
      assert_int_equal(ev_index_search(x, q, 1, &search, found, scores), EV_OK);
      size_t n_best = exact(best, metrics[kind % 3], q, vectors, there, MOST, NULL, NULL);
      recall += check_answer(kinds[kind], best, n_best, found, scores, K, 1e-6) / STEPS;
    }
    assert_true(live > 4096 || kind == 0); /* the lists were made */
    if (recall < (kind == 0 ? 0.9999 : 0.9)) fail_msg("%s: recall %.3f", kinds[kind], recall);
    ev_index_free(x);
    free(vectors);
    free(fresh);
    free(there);
    free(rows);
    free(best);
  }
}

static void what_is_kept_small_comes_back_as_it_is_kept(void **s) {
  (void)s;
  float *v = vectors_of(50, 8), got[DIMS];
  for (size_t form = 0; form < N_OF(forms); form++)
    for (size_t metric = 0; metric < N_OF(metrics); metric++) {
      ev_index *x = new_index("flat", metrics[metric], forms[form], false);
      put_range(x, v, 0, 50);
      for (uint32_t i = 0; i < 50; i++) {
        float most = 0;
        assert_int_equal(ev_index_get(x, i, got), EV_OK);
        for (size_t k = 0; k < DIMS; k++) most = fmaxf(most, fabsf(v[i * DIMS + k]));
        for (size_t k = 0; k < DIMS; k++) assert_true(fabsf(got[k] - v[i * DIMS + k]) <= most * (form == 0 ? 0 : form == 1 ? 1.0f / 2048 : 1.0f / 253));
      }
      ev_index_free(x);
    }
  free(v);
}

static void zero_and_tiny_and_long_vectors_have_their_scores(void **s) {
  (void)s;
  float v[6 * DIMS] = {0}, q[DIMS] = {0}, scores[6];
  uint32_t rows[6];
  for (size_t i = 0; i < DIMS; i++) {
    v[1 * DIMS + i] = 1e-25f * (float)(1 + i);
    v[2 * DIMS + i] = 1e-42f; /* no float has its inverse */
    v[3 * DIMS + i] = 1e17f * (float)(1 + i);
    v[4 * DIMS + i] = -3;
    v[5 * DIMS + i] = i == 0;
    q[i] = (float)(1 + i);
  }
  for (size_t kind = 0; kind < N_OF(kinds); kind++)
    for (size_t metric = 0; metric < N_OF(metrics); metric++) {
      ev_index *x = new_index(kinds[kind], metrics[metric], "f32", true);
      put_range(x, v, 0, 6);
      ev_search search = {.k = 6};
      assert_int_equal(ev_index_search(x, q, 1, &search, rows, scores), EV_OK);
      for (size_t i = 0; i < 6; i++) {
        double is = rows[i] == 2 && metric == 1 ? 0 : truth(metrics[metric], q, v + rows[i] * DIMS);
        assert_true(fabs((double)scores[i] - is) <= 1e-5 * fabs(is) + 1e-30);
        if (i > 0) assert_true(scores[i] <= scores[i - 1]);
      }
      memset(q, 0, sizeof q); /* and to the zero vector cosine gives 0 for all, in the order of the rows */
      assert_int_equal(ev_index_search(x, q, 1, &search, rows, scores), EV_OK);
      for (uint32_t i = 0; metric == 1 && i < 6; i++) assert_true(rows[i] == i && scores[i] == 0);
      for (size_t i = 0; i < DIMS; i++) q[i] = (float)(1 + i);
      ev_index_free(x);
    }
}

/* ---- What is refused ------------------------------------------------------------------------------------------*/
static void refuse(const char *says, void (*change)(ev_index_options *)) {
  ev_index_options o;
  ev_index *x = (ev_index *)&o;
  ev_index_defaults(&o);
  o.kind = "ivf";
  o.n_dims = 8;
  change(&o);
  assert_int_equal(ev_index_new(&x, &o), EV_EINVAL);
  assert_null(x);
  if (strstr(ev_error(), says) == NULL) fail_msg("'%s' does not say '%s'", ev_error(), says);
}
static void bad_kind(ev_index_options *o) { o->kind = "tree"; }
static void no_kind(ev_index_options *o) { o->kind = NULL; }
static void bad_metric(ev_index_options *o) { o->metric = "l1"; }
static void bad_form(ev_index_options *o) { o->form = "i4"; }
static void no_dims(ev_index_options *o) { o->n_dims = 0; }
static void many_dims(ev_index_options *o) { o->n_dims = 65537; }
static void no_rows(ev_index_options *o) { o->max_rows = 0; }
static void many_rows(ev_index_options *o) { o->max_rows = UINT32_MAX; }
static void many_lists(ev_index_options *o) { o->n_lists = 3000000; }

static void wrong_options_are_named(void **s) {
  (void)s;
  refuse("kind 'tree'", bad_kind);
  refuse("kind ''", no_kind);
  refuse("metric 'l1'", bad_metric);
  refuse("form 'i4'", bad_form);
  refuse("n_dims 0", no_dims);
  refuse("n_dims 65537", many_dims);
  refuse("max_rows 0", no_rows);
  refuse("max_rows 4294967295", many_rows);
  refuse("n_lists 3000000", many_lists);
}

static void a_wrong_put_or_delete_changes_nothing_and_says_what_is_wrong(void **s) {
  (void)s;
  float *v = vectors_of(20, 1), *bad = vectors_of(20, 1), scores[20], got[DIMS];
  uint32_t rows[20], found[20];
  for (size_t kind = 0; kind < N_OF(kinds); kind++)
    for (size_t form = 0; form < N_OF(forms); form++) {
      ev_index *x = new_index(kinds[kind], "l2", forms[form], true);
      put_range(x, v, 0, 10);
      static const struct {
        uint32_t row;
        float value;
        ev_status status;
        const char *says;
      } cases[] = {{17, NAN, EV_EINVAL, "row 17: element 3 is nan"}, {18, INFINITY, EV_EINVAL, "row 18: element 3 is inf"},
                   {19, -INFINITY, EV_EINVAL, "row 19: element 3 is -inf"}, {17, 3e19f, EV_EINVAL, "row 17:"},
                   {5, 0, EV_EEXIST, "row 5 is in the index already"}, {12, 0, EV_EINVAL, "row 12 is named twice"}, {1 << 16, 0, EV_ELIMIT, "row 65536"}};
      for (size_t c = 0; c < N_OF(cases) + 1; c++) { /* the last is right */
        for (uint32_t i = 0; i < 10; i++) rows[i] = 10 + i;
        memcpy(bad, v + 10 * DIMS, 10 * DIMS * sizeof *v);
        if (c < N_OF(cases)) {
          rows[7] = cases[c].row;
          if (cases[c].value != 0) rows[7] = 17, rows[cases[c].row - 10] = cases[c].row, bad[(cases[c].row - 10) * DIMS + 3] = cases[c].value;
          assert_int_equal(ev_index_put(x, rows, bad, 10), cases[c].status);
          if (strstr(ev_error(), cases[c].says) == NULL) fail_msg("'%s' does not say '%s'", ev_error(), cases[c].says);
        }
        assert_int_equal(ev_index_n(x), 10);
        assert_int_equal(ev_index_n_rows(x), 10);
      }
      assert_int_equal(ev_index_put(x, rows, bad, 0), EV_OK);
      const uint32_t gone[3] = {1, 2, 11}, twice[3] = {4, 3, 4};
      assert_int_equal(ev_index_delete(x, gone, 3), EV_ENOTFOUND);
      assert_non_null(strstr(ev_error(), "row 11"));
      assert_int_equal(ev_index_delete(x, twice, 3), EV_EINVAL);
      assert_non_null(strstr(ev_error(), "row 4"));
      assert_int_equal(ev_index_n(x), 10);
      assert_int_equal(ev_index_get(x, 10, got), EV_ENOTFOUND);
      assert_int_equal(ev_index_get(x, UINT32_MAX, got), EV_ENOTFOUND);
      assert_false(ev_index_has(x, UINT32_MAX));
      ev_search search = {.k = 20};
      assert_int_equal(ev_index_search(x, v, 1, &search, found, scores), EV_OK);
      for (size_t i = 0; i < 20; i++) assert_int_equal(found[i] != EV_NONE, i < 10);
      bad[DIMS + 2] = NAN;
      assert_int_equal(ev_index_search(x, bad, 2, &search, found, scores), EV_EINVAL);
      assert_non_null(strstr(ev_error(), "query 1: element 2 is nan"));
      const uint64_t ptr[2] = {0, 2}, back[2] = {2, 0};
      const uint32_t seen[2] = {5, 4};
      search.seen = seen;
      search.seen_ptr = ptr;
      assert_int_equal(ev_index_search(x, v, 1, &search, found, scores), EV_EINVAL);
      search.seen_ptr = back;
      assert_int_equal(ev_index_search(x, v, 1, &search, found, scores), EV_EINVAL);
      search = (ev_search){.k = 20, .pass_share = 1.5};
      assert_int_equal(ev_index_search(x, v, 1, &search, found, scores), EV_EINVAL);
      search = (ev_search){.k = 20, .pass_word = filter_word};
      assert_int_equal(ev_index_search(x, v, 1, &search, found, scores), EV_EINVAL);
      search = (ev_search){.k = 0};
      assert_int_equal(ev_index_search(x, v, 1, &search, NULL, NULL), EV_OK);
      if (form == 1) { /* f16 holds no more than 65504 */
        rows[0] = 10;
        for (size_t i = 0; i < DIMS; i++) bad[i] = i == 4 ? -70000 : 1;
        assert_int_equal(ev_index_put(x, rows, bad, 1), EV_EINVAL);
        assert_non_null(strstr(ev_error(), "row 10: element 4 is -70000"));
        bad[4] = 65504;
        assert_int_equal(ev_index_put(x, rows, bad, 1), EV_OK);
      }
      ev_index_free(x);
    }
  ev_index_free(NULL);
  free(v);
  free(bad);
}

static void an_empty_index_finds_nothing(void **s) {
  (void)s;
  float *v = vectors_of(3, 1), scores[6];
  uint32_t rows[6];
  const uint64_t none[1] = {0};
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    ev_index *x = new_index(kinds[kind], "dot", "i8", true);
    for (int turn = 0; turn < 3; turn++) {
      ev_search search = {.k = 2, .allowed = turn == 1 ? none : NULL};
      memset(rows, 0, sizeof rows);
      assert_int_equal(ev_index_search(x, v, 3, &search, rows, scores), EV_OK);
      for (int i = 0; i < 6; i++) assert_true(rows[i] == EV_NONE && scores[i] == -INFINITY);
      if (turn == 0) put_range(x, v, 0, 3);
      if (turn == 1) assert_int_equal(ev_index_delete(x, (const uint32_t[]){0, 1, 2}, 3), EV_OK);
    }
    ev_index_free(x);
  }
  free(v);
}

/* ---- Files ----------------------------------------------------------------------------------------------------*/
static ev_status write_index(const ev_index *x, const char *path, const uint32_t *keep, size_t n_keep) {
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "index"));
  ev_status status = ev_index_write(x, w, keep, n_keep);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

static ev_status map_index(ev_index **out, ev_pack **p, const char *path) {
  EV_TRY(ev_pack_map(p, path));
  ev_status status = ev_index_map(out, *p, 1 << 16);
  if (status != EV_OK) ev_pack_close(*p);
  return status;
}

static void a_mapped_index_answers_as_the_one_that_was_written(void **s) {
  (void)s;
  enum { QUERIES = 10, K = 10 };
  float *vectors = vectors_of(ROWS, 12), *q = vectors_of(QUERIES, 13), *more = vectors_of(200, 14), a[QUERIES * K], b[QUERIES * K];
  uint32_t rows_a[QUERIES * K], rows_b[QUERIES * K], *keep = malloc(ROWS * sizeof *keep), again[200];
  for (size_t kind = 0; kind < N_OF(kinds); kind++)
    for (size_t metric = 0; metric < N_OF(metrics); metric++)
      for (size_t form = 0; form < N_OF(forms); form++) {
        char path[160];
        ev_index *x = new_index(kinds[kind], metrics[metric], forms[form], form != 2), *y;
        ev_pack *p;
        ev_search search = {.k = K};
        snprintf(path, sizeof path, "%s", in_folder("index"));
        size_t n = form % 2 == 0 ? ROWS : 300, n_keep = 0; /* and few, for lists that are not made yet */
        put_range(x, vectors, 0, (uint32_t)n);
        for (uint32_t i = 3; i < n; i += 9) assert_int_equal(ev_index_delete(x, &i, 1), EV_OK);
        assert_int_equal(write_index(x, path, NULL, 0), EV_OK);
        if (map_index(&y, &p, path) != EV_OK) fail_msg("%s", ev_error());
        assert_int_equal(ev_pack_verify(p), EV_OK);
        assert_int_equal(ev_index_n(y), ev_index_n(x));
        assert_int_equal(ev_index_n_rows(y), n);
        assert_string_equal(ev_index_opts(y)->kind, kinds[kind]);
        assert_string_equal(ev_index_opts(y)->metric, metrics[metric]);
        assert_string_equal(ev_index_opts(y)->form, forms[form]);
        assert_int_equal(ev_index_opts(y)->rescore, ev_index_opts(x)->rescore);
        assert_int_equal(ev_index_opts(y)->seed, 5);
        assert_int_equal(ev_index_opts(y)->n_dims, DIMS);
        assert_int_equal(ev_index_search(x, q, QUERIES, &search, rows_a, a), EV_OK);
        assert_int_equal(ev_index_search(y, q, QUERIES, &search, rows_b, b), EV_OK);
        assert_memory_equal(rows_a, rows_b, sizeof rows_a);
        assert_memory_equal(a, b, sizeof a);
        /* the same changes to both, the mapped one's in memory: rows go, come again and are new */
        for (uint32_t i = 0; i < 200; i++) again[i] = i < 30 ? 3 + 9 * i : i < 60 ? 12 * (i - 30) : (uint32_t)n + 2 * i;
        for (uint32_t i = 30; i < 60; i++)
          if (again[i] % 9 == 3 || again[i] >= n) again[i] = (uint32_t)n + 1000 + i;
        for (uint32_t i = 30; i < 60; i++)
          if (again[i] < n) assert_true(ev_index_delete(x, &again[i], 1) == EV_OK && ev_index_delete(y, &again[i], 1) == EV_OK);
        assert_int_equal(ev_index_put(x, again, more, 200), EV_OK);
        assert_int_equal(ev_index_put(y, again, more, 200), EV_OK);
        assert_int_equal(ev_index_search(x, q, QUERIES, &search, rows_a, a), EV_OK);
        assert_int_equal(ev_index_search(y, q, QUERIES, &search, rows_b, b), EV_OK);
        assert_memory_equal(rows_a, rows_b, sizeof rows_a);
        assert_memory_equal(a, b, sizeof a);
        assert_int_equal(ev_pack_verify(p), EV_OK); /* the file is as it was */
        ev_index_free(y);
        ev_pack_close(p);
        /* some rows, in another order */
        for (uint32_t i = (uint32_t)n; i-- > 0;)
          if (i % 3 != 0 && ev_index_has(x, i)) keep[n_keep++] = i;
        assert_int_equal(write_index(x, path, keep, n_keep), EV_OK);
        assert_int_equal(map_index(&y, &p, path), EV_OK);
        assert_int_equal(ev_index_n(y), n_keep);
        assert_int_equal(ev_index_n_rows(y), n_keep);
        for (uint32_t i = 0; i < n_keep; i++) {
          float u[DIMS], v[DIMS];
          assert_int_equal(ev_index_get(x, keep[i], u), EV_OK);
          assert_int_equal(ev_index_get(y, i, v), EV_OK);
          assert_memory_equal(u, v, sizeof u);
        }
        search.effort = 1000; /* lists are looked through in another order: all of them */
        uint64_t allowed[ROWS / 64 + 20] = {0};
        for (size_t i = 0; i < n_keep; i++) allowed[keep[i] / 64] |= (uint64_t)1 << keep[i] % 64;
        assert_int_equal(ev_index_search(y, q, QUERIES, &search, rows_b, b), EV_OK);
        search.allowed = allowed;
        search.n_allowed = ROWS;
        assert_int_equal(ev_index_search(x, q, QUERIES, &search, rows_a, a), EV_OK);
        for (size_t i = 0; i < QUERIES * K; i++) assert_true(keep[rows_b[i]] == rows_a[i] && b[i] == a[i]);
        ev_index_free(y);
        ev_pack_close(p);
        const uint32_t wrong[2] = {keep[0], 3}, twice[2] = {keep[0], keep[0]};
        assert_int_equal(ev_index_delete(x, &(const uint32_t){3}, 1), EV_OK);
        assert_int_equal(write_index(x, path, wrong, 2), EV_ENOTFOUND);
        assert_int_equal(write_index(x, path, twice, 2), EV_EINVAL);
        ev_index_free(x);
      }
  free(vectors);
  free(q);
  free(more);
  free(keep);
}

static void an_index_without_rows_is_written_and_mapped(void **s) {
  (void)s;
  float *v = vectors_of(5000, 1);
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    ev_index *x = new_index(kinds[kind], "cosine", "i8", true), *y;
    ev_pack *p;
    assert_int_equal(write_index(x, in_folder("empty"), NULL, 0), EV_OK);
    assert_int_equal(map_index(&y, &p, in_folder("empty")), EV_OK);
    assert_int_equal(ev_index_n_rows(y), 0);
    put_range(y, v, 0, 5000);
    assert_int_equal(ev_index_n(y), 5000);
    ev_index_free(x);
    assert_int_equal(ev_index_map(&x, p, 0), EV_OK); /* and it may be mapped twice */
    assert_int_equal(ev_index_n(x), 0);
    ev_index_free(x);
    ev_index_free(y);
    ev_pack_close(p);
  }
  free(v);
}

/* Damage behind the checksums of header and table, which mapping does check: the answers may be wrong, nothing else. */
static void damaged_bytes_give_wrong_answers_at_worst(void **s) {
  (void)s;
  enum { N = 4200, K = 20, ROUNDS = 60 };
  float *vectors = vectors_of(N, 15), *q = vectors_of(4, 16), *got = malloc(DIMS * sizeof *got), scores[4 * K];
  uint32_t rows[4 * K];
  size_t opened = 0;
  ev_rng r;
  ev_rng_seed(&r, 17, 0);
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    char path[160];
    ev_index *x = new_index(kinds[kind], metrics[kind % 3], kind == 0 ? "f32" : "i8", true);
    put_range(x, vectors, 0, N);
    snprintf(path, sizeof path, "%s", in_folder("damaged"));
    assert_int_equal(write_index(x, path, NULL, 0), EV_OK);
    ev_index_free(x);
    ev_buf b = {0};
    assert_int_equal(ev_file_read(&b, path, 1 << 26), EV_OK);
    uint64_t table, n_arrays;
    memcpy(&n_arrays, b.data + 8, 8);
    memcpy(&table, b.data + 16, 8);
    for (int round = 0; round < ROUNDS; round++) {
      char *data = malloc(b.len);
      memcpy(data, b.data, b.len);
      uint64_t e = (uint64_t)round % n_arrays, at, n_rows, cols, size; /* one array after another is hit, hard or lightly */
      memcpy(&n_rows, data + table + 96 * e + 56, 8);
      memcpy(&cols, data + table + 96 * e + 64, 8);
      memcpy(&at, data + table + 96 * e + 72, 8);
      size = n_rows * cols * ev_dtype_size((ev_dtype)data[table + 96 * e + 48]);
      size_t hits = size == 0 ? 0 : round % 3 == 0 ? 1 : round % 3 == 1 ? size / 50 + 1 : size;
      for (size_t i = 0; i < hits; i++) data[at + ev_rng_u64(&r) % size] = (char)ev_rng_u64(&r);
      write_text(path, data, b.len);
      free(data);
      ev_pack *p;
      ev_index *y;
      ev_status status = map_index(&y, &p, path);
      if (status != EV_OK) {
        if (status != EV_ECORRUPT && status != EV_ELIMIT) fail_msg("%s: %s", ev_status_name(status), ev_error());
        continue;
      }
      opened++;
      for (int turn = 0; turn < 2; turn++) {
        ev_search search = {.k = K, .effort = turn == 0 ? 0 : 100};
        assert_int_equal(ev_index_search(y, q, 4, &search, rows, scores), EV_OK);
        for (size_t i = 0; i < 4 * K; i++) assert_true(rows[i] == EV_NONE || (ev_index_has(y, rows[i]) && scores[i] > -INFINITY));
        for (uint32_t i = 0; i < N; i += 3) {
          if (ev_index_has(y, i)) assert_int_equal(ev_index_delete(y, &i, 1), EV_OK);
          else assert_int_equal(ev_index_get(y, i, got), EV_ENOTFOUND);
        }
        for (uint32_t i = 0; i < N; i += 2)
          if (!ev_index_has(y, i)) assert_int_equal(ev_index_put(y, &i, vectors + i * DIMS, 1), EV_OK);
        char second[160];
        snprintf(second, sizeof second, "%s", in_folder("second"));
        assert_int_equal(write_index(y, second, NULL, 0), EV_OK);
      }
      ev_index_free(y);
      ev_pack_close(p);
    }
    ev_buf_free(&b);
  }
  assert_true(opened > ROUNDS / 2);
  free(vectors);
  free(q);
  free(got);
}

/* ---- Threads --------------------------------------------------------------------------------------------------*/
static void the_number_of_threads_does_not_change_a_bit(void **s) {
  (void)s;
  enum { QUERIES = 30, K = 10 };
  static const int threads[] = {1, 2, 5};
  float *vectors = vectors_of(ROWS, 21), *q = vectors_of(QUERIES, 22);
  uint64_t allowed[ROWS / 64 + 1];
  memset(allowed, 0x92, sizeof allowed);
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    ev_hash hash[N_OF(threads)];
    uint32_t rows[3][2 * QUERIES * K + K];
    float scores[3][2 * QUERIES * K + K];
    for (size_t t = 0; t < N_OF(threads); t++) {
      ev_threads_set(threads[t]);
      ev_index *x = new_index(kinds[kind], metrics[kind % 3], "i8", true);
      put_range(x, vectors, 0, 5000);
      for (uint32_t i = 0; i < 900; i += 3) assert_int_equal(ev_index_delete(x, &i, 1), EV_OK);
      put_range(x, vectors, 5000, ROWS);
      ev_search search = {.k = K};
      assert_int_equal(ev_index_search(x, q, QUERIES, &search, rows[t], scores[t]), EV_OK);
      assert_int_equal(ev_index_search(x, q, 1, &search, rows[t] + 2 * QUERIES * K, scores[t] + 2 * QUERIES * K), EV_OK);
      search.allowed = allowed;
      search.n_allowed = ROWS;
      assert_int_equal(ev_index_search(x, q, QUERIES, &search, rows[t] + QUERIES * K, scores[t] + QUERIES * K), EV_OK);
      char path[160];
      ev_pack *p;
      snprintf(path, sizeof path, "%s", in_folder("threads"));
      assert_int_equal(write_index(x, path, NULL, 0), EV_OK);
      assert_int_equal(ev_pack_open(&p, path), EV_OK);
      ev_pack_hash(p, &hash[t]);
      ev_pack_close(p);
      ev_index_free(x);
      assert_memory_equal(rows[t], rows[0], sizeof rows[t]);
      assert_memory_equal(scores[t], scores[0], sizeof scores[t]);
      assert_memory_equal(&hash[t], &hash[0], sizeof hash[t]);
      assert_memory_equal(rows[t] + 2 * QUERIES * K, rows[t], K * sizeof(uint32_t)); /* alone or among others */
      assert_memory_equal(scores[t] + 2 * QUERIES * K, scores[t], K * sizeof(float));
    }
  }
  ev_threads_set(0);
  free(vectors);
  free(q);
}

/* A writer deletes rows and puts them again; a row's vector tells its version: readers must see versions whole. Rows below
 * STAY are never touched and must always be found. */
enum { STAY = 4300, TURNING = 500 };
typedef struct shared {
  ev_index *x;
  const float *vectors;
  atomic_bool done;
  _Atomic size_t searches, wrong;
} shared;

static void version_of(float *v, uint32_t row, uint32_t version) { /* direction by row, length by version */
  make_vectors(v, 1, 100000 + row);
  for (size_t i = 0; i < DIMS; i++) v[i] *= (float)(1 + version % 4);
}

static void *search_along(void *arg) {
  shared *h = arg;
  ev_rng r;
  ev_rng_seed(&r, (uint64_t)(uintptr_t)&r, 0);
  float v[DIMS], base[DIMS], scores[10];
  uint32_t rows[10];
  while (!atomic_load_explicit(&h->done, memory_order_relaxed)) {
    uint32_t row = ev_rng_below(&r, STAY);
    const float *q = h->vectors + row * DIMS;
    ev_search search = {.k = 10, .effort = 30};
    if (ev_index_search(h->x, q, 1, &search, rows, scores) != EV_OK) atomic_fetch_add(&h->wrong, 1);
    if (rows[0] != row || scores[0] != 0) atomic_fetch_add(&h->wrong, 1); /* l2 to itself */
    for (int i = 1; i < 10; i++)
      if (rows[i] == EV_NONE || rows[i] >= STAY + TURNING || rows[i] == rows[i - 1] || !(scores[i] <= scores[i - 1])) atomic_fetch_add(&h->wrong, 1);
    uint32_t turning = STAY + ev_rng_below(&r, TURNING);
    version_of(base, turning, 0);
    if (ev_index_get(h->x, turning, v) == EV_OK) { /* one of the versions, whole */
      bool is = false;
      for (int version = 1; version <= 4 && !is; version++) {
        is = true;
        for (size_t i = 0; i < DIMS && is; i++) is = v[i] == base[i] * (float)version;
      }
      if (!is) atomic_fetch_add(&h->wrong, 1);
    }
    atomic_fetch_add(&h->searches, 1);
  }
  return NULL;
}

static void readers_see_whole_rows_and_all_that_stay_while_a_writer_works(void **s) {
  (void)s;
  float *vectors = vectors_of(STAY, 31), v[20 * DIMS];
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    shared h = {.x = new_index(kinds[kind], "l2", "i8", true), .vectors = vectors};
    pthread_t readers[2];
    bool there[TURNING] = {false};
    uint32_t versions[TURNING] = {0};
    ev_rng r;
    ev_rng_seed(&r, 33, kind);
    put_range(h.x, vectors, 0, STAY);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&readers[i], NULL, search_along, &h), 0);
    while (atomic_load(&h.searches) < 2) continue;
    for (int turn = 0; turn < 400; turn++) {
      uint32_t rows[20];
      size_t n = 0, want = 1 + ev_rng_below(&r, 20), first = ev_rng_below(&r, TURNING);
      bool putting = !there[first];
      for (size_t i = first; i < TURNING && n < want; i++) {
        if (there[i] == putting) continue;
        there[i] = putting;
        if (putting) version_of(v + n * DIMS, STAY + (uint32_t)i, versions[i]++);
        rows[n++] = STAY + (uint32_t)i;
      }
      assert_int_equal(putting ? ev_index_put(h.x, rows, v, n) : ev_index_delete(h.x, rows, n), EV_OK);
    }
    atomic_store(&h.done, true);
    for (int i = 0; i < 2; i++) pthread_join(readers[i], NULL);
    if (atomic_load(&h.wrong) != 0) fail_msg("%s: %zu wrong in %zu searches", kinds[kind], atomic_load(&h.wrong), atomic_load(&h.searches));
    ev_index_free(h.x);
  }
  free(vectors);
}

typedef struct renewal {
  ev_index *x;
  const float *vector;
  atomic_bool done;
} renewal;

static void *renew(void *arg) {
  renewal *w = arg;
  if (ev_index_put(w->x, &(const uint32_t){7}, w->vector, 1) == EV_OK) atomic_store(&w->done, true);
  return NULL;
}

static void a_row_is_used_again_only_when_its_readers_have_left(void **s) {
  (void)s;
  float *vectors = vectors_of(21, 35), got[DIMS];
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    renewal w = {.x = new_index(kinds[kind], "l2", "f32", false), .vector = vectors + 20 * DIMS};
    pthread_t writer;
    put_range(w.x, vectors, 0, 20);
    unsigned place = ev_epoch_enter(ev_index_epochs(w.x)); /* a reader comes in and finds row 7 */
    const float *seen = (const float *)ev_index_code(w.x, 7);
    assert_int_equal(ev_index_delete(w.x, &(const uint32_t){7}, 1), EV_OK);
    assert_int_equal(pthread_create(&writer, NULL, renew, &w), 0);
    usleep(30000);
    assert_false(atomic_load(&w.done));
    assert_memory_equal(seen, vectors + 7 * DIMS, sizeof got);
    ev_epoch_leave(ev_index_epochs(w.x), place);
    pthread_join(writer, NULL);
    assert_true(atomic_load(&w.done));
    assert_int_equal(ev_index_get(w.x, 7, got), EV_OK);
    assert_memory_equal(got, vectors + 20 * DIMS, sizeof got);
    ev_index_free(w.x);
  }
  free(vectors);
}

/* Looking through all lists must compare each live row once, however often rows went and came, and however the index grew. */
static void lists_hold_each_row_once(void **s) {
  (void)s;
  enum { FEW = 4200, MANY = 34000, LISTS = 30 };
  float *vectors = vectors_of(MANY, 36), scores[5];
  uint32_t rows[300], found[5];
  ev_index_options o;
  ev_index *x;
  ev_index_defaults(&o);
  o.kind = "ivf";
  o.n_dims = DIMS;
  o.n_lists = LISTS;
  assert_int_equal(ev_index_new(&x, &o), EV_OK);
  put_range(x, vectors, 0, FEW);
  size_t before = ev_index_bytes(x);
  ev_search search = {.k = 5, .effort = LISTS};
  for (int turn = 0; turn < 60; turn++) {
    for (uint32_t i = 0; i < 300; i++) rows[i] = (uint32_t)turn * 31 % 900 + 11 * i;
    assert_int_equal(ev_index_delete(x, rows, 300), EV_OK);
    assert_int_equal(ev_index_put(x, rows, vectors + turn * DIMS, 300), EV_OK);
  }
  assert_true(ev_index_bytes(x) < before * 5 / 4); /* 18 000 went and came: lists do not grow by them */
  for (int turn = 0; turn < 2; turn++) {
    if (turn == 1) put_range(x, vectors, FEW, MANY); /* more than eight times as many: lists are made anew */
    unsigned place = ev_epoch_enter(ev_index_epochs(x));
    const ev_index_kind *kind = x->kind;
    ev_prepared q;
    ev_found best[5];
    size_t n, looked_at = 0;
    assert_int_equal(ev_index_prepare(x, &q, vectors), EV_OK);
    assert_int_equal(kind->search(x, &q, &search, 0, 5, 10 * LISTS, best, &n, &looked_at), EV_OK);
    assert_int_equal(looked_at, LISTS + ev_index_n(x));
    ev_index_prepared_free(&q);
    ev_epoch_leave(ev_index_epochs(x), place);
    assert_int_equal(ev_index_search(x, vectors, 1, &search, found, scores), EV_OK);
  }
  ev_index_free(x);
  free(vectors);
}

/* ---- Faults ---------------------------------------------------------------------------------------------------*/
static ev_status make_and_free(const ev_index_options *o) {
  ev_index *x;
  EV_TRY(ev_index_new(&x, o));
  ev_index_free(x);
  return EV_OK;
}

static void every_call_survives_faults(void **s) {
  (void)s;
  enum { K = 5 };
  float *vectors = vectors_of(ROWS, 41), *q = vectors_of(3, 42), scores[3 * K], before[3 * K];
  uint32_t *rows = malloc(ROWS * sizeof *rows), found[3 * K], found_before[3 * K];
  for (uint32_t i = 0; i < ROWS; i++) rows[i] = i;
  ev_threads_set(1); /* faults are a thread's own */
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    char path[160];
    ev_index *x = new_index(kinds[kind], "cosine", "i8", true), *y;
    ev_pack *p;
    ev_search search = {.k = K};
    uint64_t allowed[ROWS / 64 + 1] = {[3] = 0xFFFF};
    ASSERT_SURVIVES_FAULTS(make_and_free(ev_index_opts(x)), );
    put_range(x, vectors, 0, 4000);
    assert_int_equal(ev_index_search(x, q, 3, &search, found_before, before), EV_OK);
    for (int64_t fault = 0;; fault++) { /* the put that makes the lists, and one after it; a failed one leaves no trace */
      ev_mem_fail_at(fault);
      ev_status status = ev_index_put(x, rows + 4000, vectors + 4000 * DIMS, 1000);
      ev_mem_fail_at(-1);
      if (status == EV_OK) break;
      assert_int_equal(status, EV_ENOMEM);
      assert_true(ev_index_n(x) == 4000 && ev_index_n_rows(x) == 4000 && !ev_index_has(x, 4000));
      assert_int_equal(ev_index_search(x, q, 3, &search, found, scores), EV_OK);
      assert_memory_equal(found, found_before, sizeof found);
      assert_memory_equal(scores, before, sizeof scores);
    }
    ASSERT_SURVIVES_FAULTS(ev_index_put(x, rows + 5000, vectors + 5000 * DIMS, ROWS - 5000), );
    assert_int_equal(ev_index_n(x), ROWS);
    const uint32_t some[3] = {7, 3, 5};
    ASSERT_SURVIVES_FAULTS(ev_index_delete(x, some, 3), );
    assert_int_equal(ev_index_n(x), ROWS - 3);
    ASSERT_SURVIVES_FAULTS(ev_index_put(x, some, vectors, 3), );
    ASSERT_SURVIVES_FAULTS(ev_index_search(x, q, 3, &search, found, scores), );
    search.allowed = allowed;
    search.n_allowed = ROWS;
    ASSERT_SURVIVES_FAULTS(ev_index_search(x, q, 3, &search, found, scores), );
    snprintf(path, sizeof path, "%s", in_folder("faults"));
    ASSERT_SURVIVES_FAULTS(write_index(x, path, NULL, 0), );
    ASSERT_SURVIVES_FAULTS(map_index(&y, &p, path), (ev_index_free(y), ev_pack_close(p)));
    ev_index_free(x);
  }
  ev_threads_set(0);
  free(vectors);
  free(q);
  free(rows);
}

static void an_interrupted_call_ends_and_leaves_no_trace(void **s) {
  (void)s;
  float *vectors = vectors_of(ROWS, 51), scores[4];
  uint32_t found[4], *rows = malloc(ROWS * sizeof *rows);
  for (uint32_t i = 0; i < ROWS; i++) rows[i] = i;
  for (size_t kind = 1; kind < N_OF(kinds); kind++) {
    ev_index *x = new_index(kinds[kind], "dot", "i8", true);
    ev_search search = {.k = 4};
    ev_interrupt();
    assert_int_equal(ev_index_put(x, rows, vectors, ROWS), EV_EINTR);
    ev_interrupt_clear();
    assert_int_equal(ev_index_n(x), 0);
    assert_int_equal(ev_index_n_rows(x), 0);
    assert_int_equal(ev_index_put(x, rows, vectors, ROWS), EV_OK);
    ev_interrupt();
    assert_int_equal(ev_index_search(x, vectors, 1, &search, found, scores), EV_EINTR);
    ev_interrupt_clear();
    assert_int_equal(ev_index_search(x, vectors, 1, &search, found, scores), EV_OK);
    ev_index_free(x);
  }
  free(vectors);
  free(rows);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_best_are_found_by_every_kind_metric_and_form), cmocka_unit_test(more_effort_finds_more),
      cmocka_unit_test(filters_act_during_the_search_and_k_come_back_when_k_exist), cmocka_unit_test(a_kinds_own_search_leaves_out_what_may_not_be_found), cmocka_unit_test(rows_come_go_and_come_again),
      cmocka_unit_test(what_is_kept_small_comes_back_as_it_is_kept), cmocka_unit_test(zero_and_tiny_and_long_vectors_have_their_scores),
      cmocka_unit_test(wrong_options_are_named), cmocka_unit_test(a_wrong_put_or_delete_changes_nothing_and_says_what_is_wrong),
      cmocka_unit_test(an_empty_index_finds_nothing), cmocka_unit_test(a_mapped_index_answers_as_the_one_that_was_written),
      cmocka_unit_test(an_index_without_rows_is_written_and_mapped), cmocka_unit_test(damaged_bytes_give_wrong_answers_at_worst),
      cmocka_unit_test(the_number_of_threads_does_not_change_a_bit), cmocka_unit_test(readers_see_whole_rows_and_all_that_stay_while_a_writer_works),
      cmocka_unit_test(a_row_is_used_again_only_when_its_readers_have_left), cmocka_unit_test(lists_hold_each_row_once),
      cmocka_unit_test(every_call_survives_faults), cmocka_unit_test(an_interrupted_call_ends_and_leaves_no_trace),
  };
  return RUN(tests);
}
