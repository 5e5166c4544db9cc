/* store_index.c - the index, every kind through one suite: what is found, what is put, what is refused. */
#include "index_world.h"

/* ---- Finding ------------------------------------------------------------------------------------------------*/
static double form_error(const char *form) { return strcmp(form, "f32") == 0 ? 1e-6 : strcmp(form, "f16") == 0 ? 1e-3 : 1e-2; }

static void the_best_are_found_by_every_kind_metric_and_form(void **s) {
  (void)s;
  enum { MOST = 5000, QUERIES = 12, K = 10 };
  float *vectors = vectors_of(MOST, 1), *q = vectors_of(QUERIES, 2);
  bool *there = malloc(MOST);
  scored *best = malloc(MOST * sizeof *best);
  memset(there, 1, MOST);
  for (size_t kind = 0; kind < N_OF(kinds); kind++)
    for (size_t metric = 0; metric < N_OF(metrics); metric++)
      for (size_t form = 0; form < 2 * N_OF(forms); form++) {
        if (slow() && (kind + 2 * metric + 3 * form) % 11 != 0) continue;
        bool rescore = form % 2 == 0, exactly = rescore || form / 2 == 0;
        ev_index *x = new_index(kinds[kind], metrics[metric], forms[form / 2], rescore);
        uint32_t n_rows = rows_for(kind, MOST);
        put_range(x, vectors, 0, 1);
        put_range(x, vectors, 1, 500);
        put_range(x, vectors, 500, n_rows);
        uint32_t rows[QUERIES * K];
        float scores[QUERIES * K];
        size_t looked_at;
        ev_search search = {.k = K, .effort = 40, .n_looked_at = &looked_at}; /* a walk, which more effort makes dearer than a scan */
        double recall = 0;
        char what[64];
        snprintf(what, sizeof what, "%s %s %s%s", kinds[kind], metrics[metric], forms[form / 2], rescore ? "" : " alone");
        if (ev_index_search(x, q, QUERIES, &search, rows, scores) != EV_OK) fail_msg("%s: %s", what, ev_error());
        assert_true(looked_at > 0);
        assert_true(kind == 0 || slow() ? looked_at <= n_rows * QUERIES : looked_at < n_rows * QUERIES);
        if (kind == 0) assert_int_equal(looked_at, n_rows * QUERIES);
        for (size_t i = 0; i < QUERIES; i++) {
          size_t n = exact(best, metrics[metric], q + i * DIMS, vectors, there, n_rows, NULL, NULL);
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
  size_t n_queries = slow() ? 10 : QUERIES;
  static const unsigned efforts[] = {1, 4, 16, 64, 400};
  float *vectors = vectors_of(ROWS, 3), *q = vectors_of(QUERIES, 4);
  bool *there = malloc(ROWS);
  scored *best = malloc(ROWS * sizeof *best);
  memset(there, 1, ROWS);
  for (size_t kind = 1; kind < N_OF(kinds); kind++) {
    ev_index *x = new_index(kinds[kind], "l2", "f32", false);
    uint32_t n_rows = rows_for(kind, slow() ? 4200 : ROWS);
    put_range(x, vectors, 0, n_rows);
    double before = 0;
    for (size_t e = 0; e < N_OF(efforts); e++) {
      uint32_t rows[QUERIES * K];
      float scores[QUERIES * K];
      double recall = 0;
      ev_search search = {.k = K, .effort = efforts[e]};
      assert_int_equal(ev_index_search(x, q, n_queries, &search, rows, scores), EV_OK);
      for (size_t i = 0; i < n_queries; i++) {
        size_t n = exact(best, "l2", q + i * DIMS, vectors, there, n_rows, NULL, NULL);
        recall += check_answer(kinds[kind], best, n, rows + i * K, scores + i * K, K, 1e-6) / (double)n_queries;
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
      uint32_t n_rows = rows_for(kind, ROWS);
      put_range(x, vectors, 0, n_rows);
      memset(there, 0, ROWS);
      memset(there, 1, n_rows);
      for (uint32_t i = 0; i < n_rows; i += 7) {
        assert_int_equal(ev_index_delete(x, &i, 1), EV_OK);
        there[i] = false;
      }
      for (size_t share = 0; share < N_OF(shares); share++)
        for (size_t e = 0; e < N_OF(every); e++)
          for (int with_seen = 0; with_seen < 2; with_seen++) {
            if (slow() && (kind + metric + share + e + (size_t)with_seen) % 11 != 0) continue;
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
  for (size_t kind = 1; kind < N_OF(kinds); kind++) {
    const char *metric = metrics[kind];
    ev_index *x = new_index(kinds[kind], metric, "i8", true);
    uint32_t n_rows = rows_for(kind, ROWS);
    put_range(x, vectors, 0, n_rows);
    memset(there, 0, ROWS);
    memset(there, 1, n_rows);
    for (uint32_t i = 0; i < n_rows; i += 5) assert_int_equal(ev_index_delete(x, &i, 1), EV_OK), there[i] = false;
    for (size_t share = 0; share < N_OF(shares); share++)
      for (int turn = 0; turn < 4; turn++) {
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
            assert_true(fabs(code - is) < 0.02 * (fabs(best[0].score) + fabs(best[n_best - 1].score) + 3));
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
      }
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_best_are_found_by_every_kind_metric_and_form),
      cmocka_unit_test(more_effort_finds_more),
      cmocka_unit_test(filters_act_during_the_search_and_k_come_back_when_k_exist),
      cmocka_unit_test(a_kinds_own_search_leaves_out_what_may_not_be_found),
      cmocka_unit_test(rows_come_go_and_come_again),
      cmocka_unit_test(what_is_kept_small_comes_back_as_it_is_kept),
      cmocka_unit_test(zero_and_tiny_and_long_vectors_have_their_scores),
      cmocka_unit_test(wrong_options_are_named),
      cmocka_unit_test(a_wrong_put_or_delete_changes_nothing_and_says_what_is_wrong),
      cmocka_unit_test(an_empty_index_finds_nothing),
  };
  return RUN(tests);
}
