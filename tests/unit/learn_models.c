/* learn_models.c - model files: the same bytes for any threads, none after a failure, none damaged opened; what may be asked. */
#include <dirent.h>
#include <math.h>

#include "learn/learn.h"
#include "support.h"

typedef struct world {
  ev_snapshot *s;
  ev_view *v;
} world;

static void open_world(world *w, size_t n_users, size_t n_items) {
  ev_generate_options o;
  ev_generate_defaults(&o);
  o.n_users = n_users;
  o.n_items = n_items;
  assert_int_equal(ev_generate(&o, in_folder("world")), EV_OK);
  assert_int_equal(ev_snapshot_open(&w->s, in_folder("world")), EV_OK);
  assert_int_equal(ev_view_new(&w->v, w->s, EV_TRAIN), EV_OK);
}

static void close_world(world *w) {
  ev_view_free(w->v);
  ev_snapshot_close(w->s);
}

enum { SCORES, KNN, CONTENT, EASE, MARKOV, SLIM, IALS, INDEXED, GRAPH, RANKER, GBDT, N_FITS }; /* from IALS on they have a seed */

/* A factorisation machine or trees of every column, on four slates of forty. */
static ev_status fit_ranker(const world *w, const char *path, uint64_t seed, bool trees) {
  static const char *const dense[] = {"score"};
  const char *columns[16];
  size_t n = ev_snapshot_n_columns(w->s, EV_ITEM);
  for (size_t i = 0; i < n; i++) columns[i] = ev_snapshot_column_at(w->s, EV_ITEM, i)->name;
  uint32_t items[40], clicked[] = {2, 5, 30};
  float scores[40];
  for (uint32_t i = 0; i < 40; i++) items[i] = i, scores[i] = (float)(i * 17 % 23);
  ev_rank_rows *rows;
  EV_TRY(ev_rank_rows_new(&rows, dense, 1));
  ev_slate *slate = ev_slate_new();
  ev_status status = slate == NULL ? EV_ENOMEM : ev_slate_append(slate, items, scores, 40, 0);
  for (uint32_t u = 0; u < 4 && status == EV_OK; u++) status = ev_rank_rows_add(rows, slate, u, clicked, 3);
  ev_ranker_options o = {.n_dims = 2, .epochs = 2, .learning_rate = 0.05f, .negatives_per_positive = 2, .item_columns = columns, .n_item_columns = n, .seed = seed};
  ev_gbdt_options g = {.n_trees = 5, .n_leaves = 6, .max_depth = 4, .n_bins = 32, .one_hot = 8, .learning_rate = 0.3f, .l2 = 1, .min_child_weight = 0.1f, .subsample = 0.7f,
                       .column_share = 0.8f, .smoothing = 5, .item_columns = columns, .n_item_columns = n, .ids = true, .seed = seed};
  if (status == EV_OK) status = trees ? ev_fit_gbdt(path, w->s, rows, &g, NULL) : ev_fit_ranker(path, w->s, rows, &o, NULL);
  ev_slate_free(slate);
  ev_rank_rows_free(rows);
  return status;
}


static ev_status fit(int which, const world *w, const char *path, uint64_t seed) {
  switch (which) {
    case SCORES: {
      float scores[1000];
      size_t n = ev_snapshot_n_items(w->s);
      for (size_t i = 0; i < n; i++) scores[i] = (float)(i * 7 % 11);
      return ev_fit_item_scores(path, scores, n);
    }
    case KNN: return ev_fit_item_knn(path, w->v, &(ev_item_knn_options){20, 10, 0.5f, 0.3f}, NULL);
    case CONTENT: return ev_fit_content(path, w->v, &(ev_content_options){NULL, 0, 20, 1, 5}, NULL);
    case EASE: return ev_fit_ease(path, w->v, &(ev_ease_options){20, 0.2f, 0.2f, 0.3f}, NULL);
    case MARKOV: return ev_fit_markov(path, w->v, &(ev_markov_options){.neighbours = 20, .window = 4, .decay = 0.8f, .backward = 0.3f, .from_power = 0.5f,
                                                                       .to_power = 0.3f, .shrink = 1, .user_power = 0.2f, .half_life = 3}, NULL);
    case SLIM: return ev_fit_slim(path, w->v, &(ev_slim_options){.l1 = 0.5f, .l2 = 3, .candidates = 40, .user_power = 0.1f, .tolerance = 1e-3f}, NULL);
    case GRAPH: return ev_fit_graph_filter(path, w->v, &(ev_graph_filter_options){.n_dims = 8, .user_power = 0.5f, .item_power = 0.5f, .low_pass = 0.3f,
                                           .low_pass_power = 0.5f, .blur_time = 1, .blur_steps = 1, .sharpen_time = 2, .sharpen_steps = 1, .sharpen_order = 2,
                                           .tolerance = 1e-3f, .seed = seed}, NULL);
    case RANKER: return fit_ranker(w, path, seed, false);
    case GBDT: return fit_ranker(w, path, seed, true);
    case INDEXED: {
      ev_index_options o;
      ev_index_defaults(&o);
      return ev_fit_indexed(path, w->v, &(ev_ials_options){16, 3, 0.1f, 0.01f, 1, 0.1f, seed}, &o, NULL);
    }
    default: return ev_fit_ials(path, w->v, &(ev_ials_options){16, 3, 0.1f, 0.01f, 1, 0.1f, seed}, NULL);
  }
}

static void threads_change_no_byte_and_the_seed_does(void **s) {
  (void)s;
  world w;
  open_world(&w, 300, 600);
  for (int f = 0; f < N_FITS; f++) {
    ev_threads_set(1);
    assert_int_equal(fit(f, &w, in_folder("one"), 1), EV_OK);
    ev_threads_set(4);
    assert_int_equal(fit(f, &w, in_folder("four"), 1), EV_OK);
    assert_true(same_bytes(in_folder("one"), in_folder("four")));
  }
  ev_threads_set(0);
  for (int f = IALS; f < N_FITS; f++) {
    assert_int_equal(fit(f, &w, in_folder("one"), 1), EV_OK);
    assert_int_equal(fit(f, &w, in_folder("other"), 2), EV_OK);
    assert_false(same_bytes(in_folder("one"), in_folder("other")));
  }
  close_world(&w);
}

static size_t n_files(void) {
  DIR *d = opendir(folder);
  size_t n = 0;
  for (struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
  closedir(d);
  return n;
}

static ev_status whole_or_nothing(int which, const world *w, size_t before) {
  ev_status status = fit(which, w, in_folder("faulty"), 1);
  if (status != EV_OK) assert_int_equal(n_files(), before);
  return status;
}

static ev_status ask(const world *w, const char *path) {
  ev_model *m;
  uint32_t ids[10], items[] = {0, 1, 2};
  float scores[10];
  EV_TRY(ev_model_open(&m, path));
  if (strcmp(ev_model_kind(m), "ranker") == 0 || strcmp(ev_model_kind(m), "gbdt") == 0) {
    ev_slate *slate = ev_slate_new();
    ev_status ranked = slate == NULL ? EV_ENOMEM : ev_slate_append(slate, items, (float[]){0, 0, 0}, 3, 0);
    if (ranked == EV_OK) ranked = ev_ranker_score(m, w->s, slate, 0, scores);
    ev_slate_free(slate);
    ev_model_close(m);
    return ranked;
  }
  uint64_t ptr[] = {0, w->v->by_user.ptr[1]};
  ev_requests r = {1, NULL, ptr, w->v->by_user.idx, ptr, w->v->seen};
  ev_status status = ev_model_recall(m, &r, 10, ids, scores);
  if (status == EV_OK) status = ev_model_score(m, &r, items, 3, scores);
  ev_requests many = {ev_snapshot_n_users(w->s), NULL, w->v->by_user.ptr, w->v->by_user.idx, NULL, NULL};
  uint32_t *all = malloc(many.n * 10 * sizeof *all);
  float *best = malloc(many.n * 10 * sizeof *best);
  if (status == EV_OK) status = ev_model_recall(m, &many, 10, all, best);
  free(all);
  free(best);
  ev_model_close(m);
  return status;
}

static void fits_and_questions_survive_faults(void **s) {
  (void)s;
  world w;
  ev_threads_set(1); /* faults are planted in the calling thread */
  open_world(&w, 70, 60);
  for (int f = 0; f < N_FITS; f++) {
    unlink(in_folder("faulty"));
    size_t before = n_files();
    ASSERT_SURVIVES_FAULTS(whole_or_nothing(f, &w, before), );
    ASSERT_SURVIVES_FAULTS(ask(&w, in_folder("faulty")), );
  }
  unlink(in_folder("faulty"));
  close_world(&w);
  ev_threads_set(0);
}

static void what_ends_a_fit_leaves_no_file(void **s) {
  (void)s;
  world w;
  open_world(&w, 70, 60);
  size_t before = n_files();
  for (int f = KNN; f < N_FITS; f++) {
    ev_interrupt();
    assert_int_equal(fit(f, &w, in_folder("none"), 1), EV_EINTR);
    ev_interrupt_clear();
    assert_true(fit(f, &w, "/nowhere/at/all", 1) == EV_ENOTFOUND);
  }
  assert_int_equal(ev_fit_ials(in_folder("none"), w.v, &(ev_ials_options){64, 2, 0, 0, 1, 0.1f, 1}, NULL), EV_EINVAL); /* more unknowns than equations */
  assert_int_equal(ev_fit_ials(in_folder("none"), w.v, &(ev_ials_options){8, 2, 0.1f, NAN, 1, 0.1f, 1}, NULL), EV_EINVAL);
  assert_int_equal(ev_fit_ease(in_folder("none"), w.v, &(ev_ease_options){-1e6f, 0, 0, 0}, NULL), EV_EINVAL);
  assert_int_equal(ev_fit_ease(in_folder("none"), w.v, &(ev_ease_options){NAN, 0, 0, 0}, NULL), EV_EINVAL);
  assert_int_equal(n_files(), before);
  close_world(&w);
}

/* ---- Damage --------------------------------------------------------------------------------------------*/
typedef enum how { DROPPED, SHORTER, RETYPED, SET } how;

/* Copies a pack with one array damaged. Every checksum is right: only the model's own checks can tell. */
static void damage(const char *to, const char *from, const char *kind, const char *array, how h, size_t at, double value) {
  ev_pack *p;
  ev_pack_writer *w;
  assert_int_equal(ev_pack_open(&p, from), EV_OK);
  assert_int_equal(ev_pack_writer_open(&w, to, kind != NULL ? kind : ev_pack_kind(p)), EV_OK);
  for (size_t i = 0; i < ev_pack_size(p); i++) {
    ev_array a;
    const char *name = ev_pack_name(p, i, &a);
    size_t bytes = a.rows * a.cols * ev_dtype_size(a.dtype);
    void *copy = ev_alloc(bytes, 1);
    memcpy(copy, a.data, bytes);
    if (array != NULL && strcmp(name, array) == 0) {
      if (h == SHORTER) a.rows--;
      if (h == RETYPED) {
        a.dtype = a.dtype == EV_F32 ? EV_U32 : a.dtype == EV_U32 ? EV_F32 : a.dtype == EV_U64 ? EV_I64 : EV_U64;
        a.rows = bytes / ev_dtype_size(a.dtype) / a.cols;
      }
      if (h == SET) {
        if (a.dtype == EV_U8) ((uint8_t *)copy)[at] = (uint8_t)value;
        if (a.dtype == EV_U32) ((uint32_t *)copy)[at] = (uint32_t)value;
        if (a.dtype == EV_U64) ((uint64_t *)copy)[at] = (uint64_t)value;
        if (a.dtype == EV_F32) ((float *)copy)[at] = (float)value;
        if (a.dtype == EV_F64) ((double *)copy)[at] = value;
      }
    }
    if (array == NULL || h != DROPPED || strcmp(name, array) != 0) assert_int_equal(ev_pack_write(w, name, a.dtype, copy, a.rows, a.cols), EV_OK);
    ev_free(copy);
  }
  assert_int_equal(ev_pack_writer_commit(w), EV_OK);
  ev_pack_close(p);
}

static void refused(const char *path, const char *why, const char *array) {
  ev_model *m;
  ev_status status = ev_model_open(&m, path);
  if (status != EV_ECORRUPT || m != NULL) fail_msg("array '%s' %s: %s", array, why, ev_status_name(status));
}

static void damaged_models_are_refused(void **s) {
  (void)s;
  world w;
  open_world(&w, 70, 60);
  double n = (double)ev_snapshot_n_items(w.s);
  const struct {
    int fit;
    const char *array;
    how how;
    size_t at;
    double value;
  } cases[] = {
      {KNN, "idx", SHORTER, 0, 0}, {KNN, "weight", SHORTER, 0, 0}, {KNN, "ptr", SET, 0, 1}, {KNN, "ptr", SET, 30, 1e15}, {KNN, "ptr", SET, (size_t)n, 0},
      {KNN, "idx", SET, 3, n}, {KNN, "idx", SET, 0, 4294967295.0}, {KNN, "weight", SET, 5, NAN}, {KNN, "options", SET, 0, -1}, {KNN, "options", SET, 0, NAN},
      {EASE, "sym", SHORTER, 0, 0}, {EASE, "out", SHORTER, 0, 0}, {EASE, "in", SHORTER, 0, 0},
      {RANKER, "fields", SHORTER, 0, 0}, {RANKER, "mean", SHORTER, 0, 0}, {RANKER, "std", SHORTER, 0, 0}, {RANKER, "w", SHORTER, 0, 0}, {RANKER, "v", SHORTER, 0, 0},
      {RANKER, "options", SHORTER, 0, 0}, {RANKER, "options", SET, 1, -1}, {RANKER, "options", SET, 1, NAN},
      {RANKER, "options", SET, 3, 3}, {RANKER, "options", SET, 3, 1e9},
      {RANKER, "fields", SET, 0, '9'}, {RANKER, "fields", SET, 2, 'x'}, {IALS, "gram", SHORTER, 0, 0}, {IALS, "options", SHORTER, 0, 0},
      {INDEXED, "trained", SHORTER, 0, 0}, {INDEXED, "spectrum", SHORTER, 0, 0}, {INDEXED, "counts", SHORTER, 0, 0}, {INDEXED, "options", SHORTER, 0, 0},
      {INDEXED, "index.codes", SHORTER, 0, 0}, {INDEXED, "index.vectors", SHORTER, 0, 0}, {INDEXED, "index.links", SHORTER, 0, 0}, {INDEXED, "index.live", SET, 0, 1},
      {INDEXED, "index.options", SET, 1, 1}, {INDEXED, "index.options", SET, 4, 15}, {INDEXED, "index.options", SET, 10, 3},
      {GRAPH, "user_ptr", SHORTER, 0, 0}, {GRAPH, "item_ptr", SHORTER, 0, 0}, {GRAPH, "user_idx", SHORTER, 0, 0}, {GRAPH, "item_idx", SHORTER, 0, 0},
      {GRAPH, "user_weight", SHORTER, 0, 0}, {GRAPH, "item_weight", SHORTER, 0, 0}, {GRAPH, "v", SHORTER, 0, 0}, {GRAPH, "low", SHORTER, 0, 0},
      {GRAPH, "in", SHORTER, 0, 0}, {GRAPH, "out", SHORTER, 0, 0}, {GRAPH, "last", SHORTER, 0, 0}, {GRAPH, "options", SHORTER, 0, 0},
      {GRAPH, "user_ptr", SET, 0, 1}, {GRAPH, "user_ptr", SET, 30, 1e15}, {GRAPH, "item_ptr", SET, (size_t)n, 0}, {GRAPH, "item_ptr", SET, 5, 1e15},
      {GRAPH, "user_idx", SET, 3, n}, {GRAPH, "item_idx", SET, 3, 70}, {GRAPH, "options", SET, 1, 0}, {GRAPH, "options", SET, 3, 1e5}, {GRAPH, "options", SET, 4, 5},
      {GRAPH, "options", SET, 2, NAN}, {GRAPH, "options", SET, 0, -1},
      {CONTENT, "options", SHORTER, 0, 0}, {RANKER, "known", SHORTER, 0, 0}, {RANKER, "slots", SHORTER, 0, 0}, {RANKER, "slots", SET, 0, 1},
      {GBDT, "fields", SHORTER, 0, 0}, {GBDT, "known", SHORTER, 0, 0}, {GBDT, "facts", SHORTER, 0, 0}, {GBDT, "numbers", SHORTER, 0, 0},
      {GBDT, "nodes", SHORTER, 0, 0}, {GBDT, "options", SHORTER, 0, 0}, {GBDT, "options", SET, 1, NAN}, {GBDT, "columns", SET, 0, 6},
      {GBDT, "columns", SET, 0, 1}, {GBDT, "columns", SET, 1, 999}, {GBDT, "nodes", SET, 0, 4094}, {GBDT, "nodes", SET, 1, 0},
      {GBDT, "nodes", SET, 2, 0}, {GBDT, "nodes", SET, 2, 4294967295.0}, {GBDT, "roots", SET, 1, 1e6}, {GBDT, "roots", SET, 0, 4294967295.0},
  };
  for (int f = 0; f < N_FITS; f++) {
    ev_pack *p;
    ev_array a;
    ev_model *m;
    assert_int_equal(fit(f, &w, in_folder("whole"), 1), EV_OK);
    damage(in_folder("bad"), in_folder("whole"), NULL, NULL, DROPPED, 0, 0); /* a copy opens */
    assert_int_equal(ev_model_open(&m, in_folder("bad")), EV_OK);
    ev_model_close(m);
    damage(in_folder("bad"), in_folder("whole"), "nothing", NULL, DROPPED, 0, 0);
    refused(in_folder("bad"), "of no kind", "");
    assert_int_equal(ev_pack_open(&p, in_folder("whole")), EV_OK);
    for (size_t i = 0; i < ev_pack_size(p); i++) {
      const char *name = ev_pack_name(p, i, &a);
      damage(in_folder("bad"), in_folder("whole"), NULL, name, DROPPED, 0, 0);
      refused(in_folder("bad"), "dropped", name);
      damage(in_folder("bad"), in_folder("whole"), NULL, name, RETYPED, 0, 0);
      refused(in_folder("bad"), "of another type", name);
    }
    ev_pack_close(p);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
      if (cases[c].fit != f) continue;
      damage(in_folder("bad"), in_folder("whole"), NULL, cases[c].array, cases[c].how, cases[c].at, cases[c].value);
      refused(in_folder("bad"), cases[c].how == SHORTER ? "shorter" : "set wrong", cases[c].array);
    }
    ev_buf b = {0};
    assert_int_equal(ev_file_read(&b, in_folder("whole"), 1 << 30), EV_OK);
    for (size_t at = 0; at < b.len; at += 1 + b.len / 60) { /* any byte turned, any end cut */
      b.data[at] ^= 0x10;
      write_text(in_folder("bad"), b.data, b.len);
      refused(in_folder("bad"), "with a turned bit", "");
      b.data[at] ^= 0x10;
      write_text(in_folder("bad"), b.data, at);
      refused(in_folder("bad"), "cut short", "");
    }
    ev_buf_free(&b);
  }
  ev_model *m;
  assert_int_equal(ev_model_open(&m, in_folder("absent")), EV_ENOTFOUND);
  refused(in_folder("world"), "of a snapshot", "");
  close_world(&w);
}

/* ---- Questions -----------------------------------------------------------------------------------------*/
static void wrong_questions_are_refused_and_odd_ones_answered(void **s) {
  (void)s;
  world w;
  open_world(&w, 70, 60);
  uint32_t n = (uint32_t)ev_snapshot_n_items(w.s), ids[200], beyond[] = {3, n}, history[] = {3, 4}, none[1] = {0};
  uint32_t *every = ev_alloc(n, sizeof *every);
  for (uint32_t i = 0; i < n; i++) every[i] = i;
  uint64_t two[] = {0, 2}, both[] = {0, 1, 2}, whole[] = {0, n}, nothing[] = {0, 0};
  float scores[200];
  for (int f = 0; f < RANKER; f++) {
    ev_model *m;
    assert_int_equal(fit(f, &w, in_folder("m"), 1), EV_OK);
    assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
    assert_int_equal(ev_model_recall(m, &(ev_requests){1, NULL, two, beyond, NULL, NULL}, 5, ids, scores), EV_EINVAL);
    assert_int_equal(ev_model_recall(m, &(ev_requests){1, NULL, two, history, two, beyond}, 5, ids, scores), EV_EINVAL);
    assert_int_equal(ev_model_score(m, &(ev_requests){1, NULL, two, beyond, NULL, NULL}, history, 2, scores), EV_EINVAL);
    assert_int_equal(ev_model_score(m, &(ev_requests){1, NULL, two, history, NULL, NULL}, beyond, 2, scores), EV_EINVAL);
    assert_int_equal(ev_model_score(m, &(ev_requests){2, NULL, both, history, NULL, NULL}, history, 2, scores), EV_EINVAL);
    assert_int_equal(ev_model_recall(m, &(ev_requests){0, NULL, nothing, none, NULL, NULL}, 5, ids, scores), EV_OK);
    ids[0] = 77;
    assert_int_equal(ev_model_recall(m, &(ev_requests){1, NULL, two, history, NULL, NULL}, 0, ids, scores), EV_OK);
    assert_int_equal(ids[0], 77);
    assert_int_equal(ev_model_recall(m, &(ev_requests){1, NULL, two, history, whole, every}, 5, ids, scores), EV_OK); /* all is seen */
    for (int i = 0; i < 5; i++) assert_true(ids[i] == EV_NONE && scores[i] == -INFINITY);
    assert_int_equal(ev_model_recall(m, &(ev_requests){1, NULL, two, history, NULL, NULL}, 200, ids, scores), EV_OK); /* more than there are */
    for (uint32_t i = 0; i < 200; i++) assert_true((ids[i] < n && i < n) || (ids[i] == EV_NONE && scores[i] == -INFINITY));
    assert_int_equal(ev_model_recall(m, &(ev_requests){1, NULL, nothing, none, NULL, NULL}, 5, ids, scores), EV_OK); /* a stranger */
    for (int i = 0; i < 5; i++) assert_true((ids[i] == EV_NONE) == (f != SCORES && f != INDEXED));
    ev_model_close(m);
  }
  ev_free(every);
  close_world(&w);
  ev_model_close(NULL);
}

static void popularity_is_the_same_for_everybody(void **s) {
  (void)s;
  static const float scores[] = {1, 5, -2, 5, -INFINITY, 0};
  uint64_t ptr[] = {0, 2, 2}, seen_ptr[] = {0, 0, 2};
  uint32_t history[] = {1, 3}, seen[] = {1, 5}, ids[12], items[] = {2, 4};
  static const uint32_t expected[12] = {1, 3, 0, 5, 2, EV_NONE, 3, 0, 2, EV_NONE, EV_NONE, EV_NONE}; /* ties: the lower number; −∞: never */
  float best[12], given[2];
  ev_model *m;
  assert_int_equal(ev_fit_item_scores(in_folder("m"), scores, 6), EV_OK);
  assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
  assert_int_equal(ev_model_recall(m, &(ev_requests){2, NULL, ptr, history, seen_ptr, seen}, 6, ids, best), EV_OK);
  for (int i = 0; i < 12; i++) assert_true(ids[i] == expected[i] && best[i] == (ids[i] == EV_NONE ? -INFINITY : scores[ids[i]]));
  assert_int_equal(ev_model_score(m, &(ev_requests){1, NULL, ptr, history, NULL, NULL}, items, 2, given), EV_OK);
  assert_true(given[0] == -2 && given[1] == -INFINITY);
  ev_model_close(m);
  assert_int_equal(ev_fit_item_scores(in_folder("none"), (float[]){0, NAN}, 2), EV_EINVAL);
  assert_false(ev_file_exists(in_folder("none")));
}

/* ---- Extremes ------------------------------------------------------------------------------------------*/
static ev_array kept(const char *path, const char *array, ev_pack **p) {
  ev_array a;
  assert_int_equal(ev_pack_open(p, path), EV_OK);
  assert_true(ev_pack_find(*p, array, &a));
  return a;
}

/* Powers so steep that weights leave what a float can hold: they count nothing, and the rest of the row is as it was. */
static void weights_that_underflow_count_nothing(void **s) {
  (void)s;
  enum { N = 52 };
  ev_buf inter = {0}, items = {0};
  ev_buf_printf(&inter, "user,item\n");
  for (int u = 0; u < 40; u++)
    for (int i = 0; i < N; i++)
      if ((u * 7 + i) % 3 != 0) ev_buf_printf(&inter, "u%d,i%d\n", u, i);
  ev_buf_printf(&items, "item_id:token\twords:token_seq\n"); /* each a rare word shared by two, and seven that nearly all have */
  for (int i = 0; i < N; i++) ev_buf_printf(&items, "i%d\trare%d%s\n", i, i / 2, i < 3 ? "" : " a b c d e f g");
  write_text(in_folder("w.csv"), inter.data, inter.len);
  write_text(in_folder("w.item"), items.data, items.len);
  ev_buf_free(&inter);
  ev_buf_free(&items);
  const char *files[] = {in_folder("w.csv"), in_folder("w.item")};
  ev_import_options o;
  ev_import_defaults(&o);
  o.files = files;
  o.n_files = 2;
  world w;
  ev_pack *p;
  assert_int_equal(ev_import(&o, in_folder("world")), EV_OK);
  assert_int_equal(ev_snapshot_open(&w.s, in_folder("world")), EV_OK);
  assert_int_equal(ev_view_new(&w.v, w.s, EV_TRAIN), EV_OK);
  assert_int_equal(ev_fit_item_knn(in_folder("m"), w.v, &(ev_item_knn_options){200, 10, 0.5f, 80}, NULL), EV_OK);
  assert_int_equal(kept(in_folder("m"), "idx", &p).rows, 0);
  ev_pack_close(p);
  for (int power = 10; power <= 30; power++) { /* on the way the common words' weights underflow, and before them their products */
    assert_int_equal(ev_fit_content(in_folder("m"), w.v, &(ev_content_options){NULL, 0, 1, (float)power, 0}, NULL), EV_OK);
    ev_array weight = kept(in_folder("m"), "weight", &p);
    assert_int_equal(weight.rows, N);
    for (size_t i = 0; i < N; i++) assert_true(fabsf(((const float *)weight.data)[i] - 1) < 1e-5f); /* the other one of the rare word */
    ev_pack_close(p);
  }
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(threads_change_no_byte_and_the_seed_does), cmocka_unit_test(fits_and_questions_survive_faults),
      cmocka_unit_test(what_ends_a_fit_leaves_no_file), cmocka_unit_test(damaged_models_are_refused),
      cmocka_unit_test(wrong_questions_are_refused_and_odd_ones_answered), cmocka_unit_test(popularity_is_the_same_for_everybody),
      cmocka_unit_test(weights_that_underflow_count_nothing),
  };
  return RUN(tests);
}
