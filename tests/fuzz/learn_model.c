/* learn_model.c (fuzz) - damaged models of every kind: refused, or they answer within bounds. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "driver.h"
#include "learn/learn.h"

enum { USERS = 14, ITEMS = 11 };
static ev_snapshot *snapshot;
static ev_view *view;
static const char *input;

static void make_world(void) {
  const char *files[3] = {fuzz_path("a.csv"), fuzz_path("a.item"), fuzz_path("a.user")}, *out = fuzz_path("snapshot");
  ev_buf rows = {0}, items = {0}, users = {0};
  ev_import_options o;
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  ev_buf_printf(&rows, "user,item\n");
  ev_buf_printf(&items, "item_id:token\tgenre:token_seq\tyear:float\tmaker:token\n");
  ev_buf_printf(&users, "user_id:token\tage:float\tjob:token\n");
  for (unsigned u = 0; u < USERS; u++) {
    ev_buf_printf(&users, "u%u\t%u\t%s\n", u, 20 + u, u % 3 == 0 ? "" : u % 3 == 1 ? "x" : "y");
    for (unsigned i = 0; i < ITEMS; i++)
      if (i == u % ITEMS || ev_rng_below(&r, 3) == 0) ev_buf_printf(&rows, "u%u,i%u\n", u, i);
  }
  for (unsigned i = 0; i < ITEMS; i++) ev_buf_printf(&items, "i%u\t%s\t%u\tm%u\n", i, i % 3 == 0 ? "a b" : i % 3 == 1 ? "b c" : "", 1990 + i, i % 4);
  fuzz_write(files[0], rows.data, rows.len);
  fuzz_write(files[1], items.data, items.len);
  fuzz_write(files[2], users.data, users.len);
  ev_import_defaults(&o);
  o.files = files;
  o.n_files = 3;
  FUZZ_REQUIRE(ev_import(&o, out) == EV_OK && ev_snapshot_open(&snapshot, out) == EV_OK && ev_view_new(&view, snapshot, EV_TRAIN) == EV_OK);
  ev_buf_free(&rows);
  ev_buf_free(&items);
  ev_buf_free(&users);
}

static void fill(ev_slate *s) {
  static const char *const names[] = {"rank.x", "score.x"};
  float *column;
  ev_slate_clear(s);
  for (uint32_t i = 0; i < ITEMS + 3; i++) { /* and three that the snapshot does not have */
    float score = (float)(i * 5 % 7) / 3;
    FUZZ_REQUIRE(ev_slate_append(s, &i, &score, 1, 1) == EV_OK);
  }
  for (int c = 0; c < 2; c++) {
    FUZZ_REQUIRE(ev_slate_column(s, names[c], &column) == EV_OK);
    for (uint32_t i = 0; i < ITEMS + 3; i++) column[i] = (float)(i % 5);
  }
}

static ev_rank_rows *make_rows(void) {
  static const char *const dense[] = {"score", "rank.x", "score.x"};
  ev_rank_rows *rows;
  ev_slate *s = ev_slate_new();
  FUZZ_REQUIRE(s != NULL && ev_rank_rows_new(&rows, dense, 3) == EV_OK);
  for (uint32_t u = 0; u < USERS; u++) {
    fill(s);
    ev_slate_truncate(s, ITEMS);
    FUZZ_REQUIRE(ev_rank_rows_add(rows, s, u, view->seen + view->by_user.ptr[u], view->by_user.ptr[u + 1] - view->by_user.ptr[u]) == EV_OK);
  }
  ev_slate_free(s);
  return rows;
}

static void seed_ranker(const char *path, unsigned n_dims, bool ids, bool trees) {
  static const char *const user_columns[] = {"age", "job"}, *const item_columns[] = {"genre", "year", "maker"};
  ev_rank_rows *rows = make_rows();
  ev_ranker_options o = {.n_dims = n_dims, .epochs = 2, .learning_rate = 0.02f, .regularization = 1e-5f, .user_columns = user_columns,
                         .item_columns = item_columns, .n_user_columns = 2, .n_item_columns = 3, .ids = ids, .seed = 1};
  ev_gbdt_options g = {.n_trees = 3, .n_leaves = 5, .n_bins = 16, .one_hot = 3, .learning_rate = 0.3f, .l2 = 1, .min_child_weight = 0.1f, .subsample = 1, .column_share = 1,
                       .smoothing = 2, .user_columns = user_columns, .item_columns = item_columns, .n_user_columns = 2, .n_item_columns = 3, .ids = ids, .seed = 1};
  FUZZ_REQUIRE((trees ? ev_fit_gbdt(path, snapshot, rows, &g, NULL) : ev_fit_ranker(path, snapshot, rows, &o, NULL)) == EV_OK);
  ev_rank_rows_free(rows);
}

static void seed_file(const char *path) {
  ev_buf b = {0};
  FUZZ_REQUIRE(ev_file_read(&b, path, 1 << 24) == EV_OK);
  fuzz_seed(b.data, b.len);
  ev_buf_free(&b);
}

/* What a fit never writes, with shapes that agree: features that the data has and the fields have not. slots: a digit a field. */
static void seed_forged_ranker(const char *path, const char *fields, const char *slots, size_t n_features) {
  const float numbers[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  const uint8_t known[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  const double options[4] = {0, ITEMS, USERS, 1};
  uint32_t n_slots[8];
  size_t n_fields = strlen(slots);
  ev_pack_writer *w;
  for (size_t i = 0; i < n_fields; i++) n_slots[i] = (uint32_t)(slots[i] - '0');
  FUZZ_REQUIRE(ev_pack_writer_open(&w, path, "ranker") == EV_OK && ev_pack_write(w, "fields", EV_U8, fields, strlen(fields), 1) == EV_OK);
  FUZZ_REQUIRE(ev_pack_write(w, "slots", EV_U32, n_slots, n_fields, 1) == EV_OK && ev_pack_write(w, "known", EV_U8, known, n_features, 1) == EV_OK);
  FUZZ_REQUIRE(ev_pack_write(w, "mean", EV_F32, numbers, n_fields, 1) == EV_OK && ev_pack_write(w, "std", EV_F32, numbers, n_fields, 1) == EV_OK);
  FUZZ_REQUIRE(ev_pack_write(w, "w", EV_F32, numbers, n_features, 1) == EV_OK && ev_pack_write(w, "v", EV_F32, numbers, n_features, 1) == EV_OK);
  FUZZ_REQUIRE(ev_pack_write(w, "options", EV_F64, options, 4, 1) == EV_OK && ev_pack_writer_commit(w) == EV_OK);
  seed_file(path);
}

/* ---- Nets ----------------------------------------------------------------------------------------------*/
static ev_tensor op(ev_graph *g, const char *name, size_t n_in, const ev_tensor *in, size_t n_attr, const double *attr) {
  ev_tensor t = EV_NONE;
  FUZZ_REQUIRE(ev_graph_op(g, &t, name, in, n_in, attr, n_attr) == EV_OK);
  return t;
}

static ev_tensor parameter(ev_graph *g, const char *name, size_t rows, size_t cols) {
  ev_tensor t = EV_NONE;
  FUZZ_REQUIRE(ev_graph_parameter(g, &t, name, &(ev_shape){.rank = 2, .dim = {rows, cols}}, EV_INIT_NORMAL, 1, 1) == EV_OK);
  return t;
}

static ev_tensor input_of(ev_batches *b, const char *word) {
  ev_tensor t = EV_NONE;
  FUZZ_REQUIRE(ev_batches_input(b, word, &t) == EV_OK);
  return t;
}

static void seed_vectors(const char *path) {
  float numbers[USERS * 3], bias[ITEMS];
  for (size_t i = 0; i < USERS * 3; i++) numbers[i] = (float)(i * 5 % 7) - 3;
  for (size_t i = 0; i < ITEMS; i++) bias[i] = (float)i;
  ev_vectors x = {.user = numbers, .item = numbers, .context = numbers, .bias = bias, .n_users = USERS, .n_items = ITEMS, .n_dims = 3, .history_power = 0.5f, .view = view};
  FUZZ_REQUIRE(ev_fit_vectors(path, &x) == EV_OK);
  seed_file(path);
  ev_vectors plain = {.item = numbers, .n_items = ITEMS, .n_dims = 3, .cosine = true, .history_power = 1};
  FUZZ_REQUIRE(ev_fit_vectors(path, &plain) == EV_OK);
  seed_file(path);
}

/* gru: by a recurrent layer and its last state; else attention, a query for each row, and users too. */
static void seed_encoder(const char *path, bool gru) {
  enum { D = 2 };
  ev_graph *g;
  ev_batches *b;
  ev_batch_options o;
  ev_batch_defaults(&o);
  o.n_negatives = 0;
  o.max_length = 3;
  o.size = 4;
  FUZZ_REQUIRE(ev_graph_new(&g, 1, 0) == EV_OK && ev_sequences_new(&b, g, view, &o) == EV_OK);
  ev_tensor item = parameter(g, "item", ITEMS, D), x = op(g, "gather", 2, (ev_tensor[]){item, input_of(b, gru ? "item_known" : "item")}, 0, NULL);
  if (gru) {
    ev_tensor bias = EV_NONE;
    FUZZ_REQUIRE(ev_graph_parameter(g, &bias, "bias", &(ev_shape){.rank = 1, .dim = {3 * D}}, EV_INIT_ZEROS, 0, 1) == EV_OK);
    x = op(g, "gru", 5, (ev_tensor[]){x, parameter(g, "w", D, 3 * D), parameter(g, "u", D, 3 * D), bias, input_of(b, "length")}, 0, NULL);
    x = op(g, "gather", 2, (ev_tensor[]){x, input_of(b, "last")}, 0, NULL);
  } else {
    x = op(g, "add", 2, (ev_tensor[]){x, op(g, "gather", 2, (ev_tensor[]){parameter(g, "place", 3, D), input_of(b, "position")}, 0, NULL)}, 0, NULL);
    ev_tensor user = op(g, "gather", 2, (ev_tensor[]){parameter(g, "user", USERS, D), input_of(b, "user_known")}, 0, NULL);
    x = op(g, "add", 2, (ev_tensor[]){x, op(g, "gather", 2, (ev_tensor[]){user, input_of(b, "sequence")}, 0, NULL)}, 0, NULL);
    x = op(g, "attention", 4, (ev_tensor[]){x, x, x, input_of(b, "length")}, 2, (double[]){1, 1});
  }
  float *table;
  size_t d;
  FUZZ_REQUIRE(ev_batches_table(b, g, item, EV_ITEM, ITEMS, &table, &d) == EV_OK);
  FUZZ_REQUIRE(ev_fit_encoder(path, &(ev_encoder){b, x, table, gru ? table : NULL, ITEMS, d, !gru}) == EV_OK);
  seed_file(path);
  ev_free(table);
  ev_batches_free(b);
  ev_graph_free(g);
}

static void seed_network(const char *path) {
  static const char *const user_columns[] = {"age", "job"}, *const item_columns[] = {"genre", "year", "maker"};
  ev_rank_rows *rows = make_rows();
  ev_fields *f;
  ev_graph *g;
  ev_batches *b;
  ev_batch_options o;
  ev_batch_defaults(&o);
  o.size = 8;
  FUZZ_REQUIRE(ev_fields_fit(&f, snapshot, rows, &(ev_fields_options){user_columns, item_columns, 2, 3, true}) == EV_OK);
  size_t n_features = ev_fields_n_features(f), n_dense = ev_fields_n_dense(f), n_slots = ev_fields_n_slots(f);
  FUZZ_REQUIRE(ev_graph_new(&g, 1, 0) == EV_OK && ev_rows_new(&b, g, view, rows, f, &o) == EV_OK);
  ev_tensor weights = op(g, "reshape", 1, (ev_tensor[]){input_of(b, "weights")}, 3, (double[]){-1, (double)n_slots, 1});
  ev_tensor e = op(g, "mul", 2, (ev_tensor[]){op(g, "gather", 2, (ev_tensor[]){parameter(g, "table", n_features, 2), input_of(b, "codes")}, 0, NULL), weights}, 0, NULL);
  e = op(g, "sum", 1, &e, 1, (double[]){1});
  e = op(g, "add", 2, (ev_tensor[]){e, op(g, "matmul", 2, (ev_tensor[]){input_of(b, "dense"), parameter(g, "v", n_dense, 2)}, 0, NULL)}, 0, NULL);
  FUZZ_REQUIRE(ev_fit_network(path, b, op(g, "sum", 1, &e, 1, (double[]){1})) == EV_OK);
  seed_file(path);
  ev_batches_free(b);
  ev_graph_free(g);
  ev_rank_rows_free(rows);
}

static void make_seeds(void) {
  const char *path = fuzz_path("model");
  float scores[ITEMS];
  ev_threads_set(2);
  make_world();
  input = fuzz_path("input");
  for (int i = 0; i < ITEMS; i++) scores[i] = i == 4 ? -INFINITY : (float)(i * 3 % 7);
  FUZZ_REQUIRE(ev_fit_item_scores(path, scores, ITEMS) == EV_OK);
  seed_file(path);
  ev_item_knn_options knn = {.neighbours = 4, .shrink = 1, .alpha = 0.5f};
  FUZZ_REQUIRE(ev_fit_item_knn(path, view, &knn, NULL) == EV_OK);
  seed_file(path);
  ev_content_options content = {.neighbours = 5, .idf_power = 1, .half_life = 2};
  FUZZ_REQUIRE(ev_fit_content(path, view, &content, NULL) == EV_OK);
  seed_file(path);
  ev_ials_options ials = {.n_dims = 4, .epochs = 2, .unobserved_weight = 0.1f, .regularization = 0.01f, .frequency_power = 1, .init_std = 0.1f, .seed = 1};
  FUZZ_REQUIRE(ev_fit_ials(path, view, &ials, NULL) == EV_OK);
  seed_file(path);
  static const char *const kinds[] = {"flat", "hnsw", "ivf"}, *const forms[] = {"f32", "i8", "f16"};
  for (int i = 0; i < 3; i++) {
    ev_index_options index;
    ev_index_defaults(&index);
    index.kind = kinds[i];
    index.form = forms[i];
    FUZZ_REQUIRE(ev_fit_indexed(path, view, &ials, &index, NULL) == EV_OK);
    seed_file(path);
  }
  float numbers[2][ITEMS];
  for (size_t i = 0; i < ITEMS; i++) numbers[0][i] = (float)(i % 3), numbers[1][i] = (float)i;
  FUZZ_REQUIRE(ev_fit_item_columns(path, (const char *const[]){"kind", "rank.x"}, (const float *const[]){numbers[0], numbers[1]}, 2, ITEMS) == EV_OK);
  seed_file(path);
  ev_markov_options markov = {.neighbours = 5, .window = 3, .decay = 0.8f, .backward = 0.5f, .from_power = 0.5f, .to_power = 0.5f, .shrink = 1, .half_life = 2};
  FUZZ_REQUIRE(ev_fit_markov(path, view, &markov, NULL) == EV_OK);
  seed_file(path);
  ev_slim_options slim = {.l1 = 0.1f, .l2 = 1, .tolerance = 1e-3f}; /* with weights below 0 */
  FUZZ_REQUIRE(ev_fit_slim(path, view, &slim, NULL) == EV_OK);
  seed_file(path);
  for (unsigned late = 0; late < 2; late++) {
    ev_graph_filter_options graph = {.n_dims = 3 * late, .user_power = 0.5f, .item_power = 0.5f, .low_pass = 0.3f, .low_pass_power = 0.5f, .blur_time = 1,
                                     .blur_steps = 1 + late, .sharpen_time = 2, .sharpen_steps = 1, .sharpen_order = 1 + 3 * late, .late = late, .tolerance = 1e-3f, .seed = 1};
    FUZZ_REQUIRE(ev_fit_graph_filter(path, view, &graph, NULL) == EV_OK);
    seed_file(path);
  }
  seed_ranker(path, 0, false, false);
  seed_file(path);
  seed_ranker(path, 3, true, false);
  seed_file(path);
  for (int ids = 0; ids < 2; ids++) {
    seed_ranker(path, 0, ids, true);
    seed_file(path);
  }
  seed_forged_ranker(path, "2 2 1 score\n2 0 0 rank.x\n", "01", 1);
  seed_forged_ranker(path, "0 0 1 job\n", "1", 1);
  seed_forged_ranker(path, "0 3 1 \n", "1", 1);
  seed_forged_ranker(path, "1 1 2 genre\n1 2 1 year\n1 0 3 maker\n", "101", 6);
  seed_vectors(path);
  seed_encoder(path, true);
  seed_encoder(path, false);
  seed_network(path);
  ev_ease_options ease = {.lambda = 5, .item_power_out = 0.1f}; /* megabytes, for it is made of whole tiles */
  FUZZ_REQUIRE(ev_fit_ease(path, view, &ease, NULL) == EV_OK);
  seed_file(path);
}

static void ask(const ev_model *m) {
  enum { N = 3, K = 5 };
  size_t n_items = ev_model_n_items(m);
  uint32_t history[N * 4], seen[N * 2], ids[N * K], user[N] = {0, 3, EV_NONE};
  uint64_t history_ptr[N + 1] = {0}, seen_ptr[N + 1] = {0};
  float scores[N * K];
  for (uint64_t i = 0, h = 0, s = 0; i < N; i++) { /* the last request knows nothing */
    for (uint64_t k = 0; k < 4 && k < n_items && i + 1 < N; k++) history[h++] = (uint32_t)(k == 3 ? n_items - 1 : (k * 3 + i) % n_items);
    for (uint64_t k = 0; k < 2 && k < n_items; k++) seen[s++] = (uint32_t)k;
    history_ptr[i + 1] = h;
    seen_ptr[i + 1] = s;
  }
  ev_requests r = {N, user, history_ptr, history, seen_ptr, seen};
  ev_status status = ev_model_recall(m, &r, K, ids, scores);
  FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL);
  for (size_t i = 0; i < N * K && status == EV_OK; i++) {
    FUZZ_REQUIRE(ids[i] == EV_NONE ? scores[i] == -INFINITY : ids[i] < n_items && ids[i] >= 2 && !isnan(scores[i]) && scores[i] > -INFINITY);
    if (i % K > 0) FUZZ_REQUIRE(scores[i] <= scores[i - 1]);
  }
  r.n = 1;
  status = ev_model_score(m, &r, history, history_ptr[1], scores);
  FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL);
  if (n_items < EV_NONE - 1) {
    uint32_t beyond = (uint32_t)n_items;
    FUZZ_REQUIRE(ev_model_score(m, &r, &beyond, 1, scores) == EV_EINVAL);
  }
}

/* The rows as columns of a model that has fields: every code in range, whatever the file said. */
static void columns(const ev_model *m, ev_slate *s) {
  ev_fields *f;
  ev_row_reader *r;
  if (ev_fields_read(&f, ev_model_pack(m)) != EV_OK) return;
  fill(s);
  if (ev_row_reader_of_slate(&r, f, snapshot, s, 1) == EV_OK) {
    size_t n = ev_slate_n(s), n_slots = ev_fields_n_slots(f), n_dense = ev_fields_n_dense(f);
    uint32_t *codes = ev_alloc(n, n_slots * sizeof *codes);
    float *weights = ev_alloc(n, n_slots * sizeof *weights), *values = ev_alloc(n, n_dense * sizeof *values);
    FUZZ_REQUIRE(codes != NULL && weights != NULL && values != NULL);
    ev_row_columns(codes, weights, values, r, NULL, 0, n, 0);
    for (size_t i = 0; i < n * n_slots; i++) FUZZ_REQUIRE(codes[i] < ev_fields_n_features(f) && weights[i] >= 0 && weights[i] <= 1);
    ev_free(codes);
    ev_free(weights);
    ev_free(values);
    ev_row_reader_free(r);
  }
  ev_fields_free(f);
}

static void rank(const ev_model *m) {
  static const uint32_t users[] = {0, USERS - 1, USERS + 5, EV_NONE};
  ev_slate *s = ev_slate_new();
  FUZZ_REQUIRE(s != NULL);
  columns(m, s);
  for (size_t i = 0; i < sizeof users / sizeof *users; i++) {
    fill(s);
    ev_status status = ev_ranker_score(m, snapshot, s, users[i], ev_slate_scores(s));
    FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL);
  }
  uint32_t clusters[256];
  size_t n_items = ev_model_n_items(m);
  fill(s);
  ev_slate_truncate(s, n_items < ITEMS ? n_items : ITEMS);
  if (ev_model_fill(m, s) == EV_OK) {
    float share[ITEMS + 3];
    ev_requests r = {1, NULL, (uint64_t[]){0, 1}, (uint32_t[]){0}, NULL, NULL};
    ev_status status = ev_model_share(m, &r, s, "kind", share);
    FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL);
  }
  if (n_items <= 256 && ev_model_clusters(m, clusters, 3, 1) == EV_OK)
    for (size_t i = 0; i < n_items; i++) FUZZ_REQUIRE(clusters[i] < 3);
  ev_slate_free(s);
}

static void one(const uint8_t *data, size_t len) {
  ev_model *m;
  fuzz_write(input, data, len);
  ev_status status = ev_model_open(&m, input);
  FUZZ_REQUIRE(status == EV_OK || status == EV_ECORRUPT || status == EV_ELIMIT || status == EV_EINVAL);
  if (status != EV_OK) {
    FUZZ_REQUIRE(m == NULL);
    return;
  }
  fuzz_fence(ev_model_pack(m), true);
  ask(m);
  rank(m);
  fuzz_fence(ev_model_pack(m), false);
  ev_model_close(m);
}

const fuzz_target fuzz = {make_seeds, one, fuzz_repair_pack, NULL};
