/* learn_nets.c - models that nets became: vectors, encoders and networks answer as plain loops over their numbers do, the same from
 * one file opened twice and however requests are batched; and none that is damaged is opened. */
#include <dirent.h>
#include <math.h>
#include <pthread.h>

#include "learn/learn.h"
#include "support.h"

enum { USERS = 60, ITEMS = 50, D = 5 };

#define MUST(call)                                                                                  \
  do {                                                                                              \
    ev_status must_ = (call);                                                                       \
    if (must_ != EV_OK) fail_msg("%s: %s: %s", #call, ev_status_name(must_), ev_error());           \
  } while (0)

typedef struct world {
  ev_snapshot *s;
  ev_view *v, *all;
} world;

static void open_world(world *w) {
  ev_generate_options o;
  ev_generate_defaults(&o);
  o.n_users = USERS;
  o.n_items = ITEMS;
  MUST(ev_generate(&o, in_folder("world")));
  MUST(ev_snapshot_open(&w->s, in_folder("world")));
  MUST(ev_view_new(&w->v, w->s, EV_TRAIN));
  MUST(ev_view_new(&w->all, w->s, EV_TRAIN | EV_VALID | EV_TEST));
  assert_true(w->v->by_item.n_rows == ITEMS && w->v->by_user.n_rows == USERS);
}

static void close_world(world *w) {
  ev_view_free(w->v);
  ev_view_free(w->all);
  ev_snapshot_close(w->s);
}

static ev_model *open_model(const char *name, const char *kind) {
  ev_model *m;
  MUST(ev_model_open(&m, in_folder(name)));
  assert_string_equal(ev_model_kind(m), kind);
  assert_int_equal(ev_model_n_items(m), ITEMS);
  return m;
}

static void draw(float *x, size_t n, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 7);
  for (size_t i = 0; i < n; i++) x[i] = (float)ev_rng_normal(&r);
}

static void near(double got, double want) {
  if (!(fabs(got - want) <= 2e-5 * (1 + fabs(want)))) fail_msg("%.9g, not %.9g", got, want);
}

/* The model's lists and scores are those of query (n, D) · item + bias, nothing where has is false. */
static void assert_answers(const ev_model *m, const ev_requests *r, const double *query, const bool *has, const float *item, const float *bias) {
  enum { K = 7 };
  uint32_t *ids = ev_alloc(r->n, K * sizeof *ids), every[ITEMS];
  float *scores = ev_alloc(r->n, K * sizeof *scores), given[ITEMS];
  for (uint32_t i = 0; i < ITEMS; i++) every[i] = i;
  MUST(ev_model_recall(m, r, K, ids, scores));
  for (size_t q = 0; q < r->n; q++) {
    double want[ITEMS];
    ev_requests one = {1, r->user + q, r->history_ptr + q, r->history, r->seen_ptr + q, r->seen};
    for (size_t i = 0; i < ITEMS; i++) {
      want[i] = bias != NULL ? bias[i] : 0;
      for (size_t d = 0; d < D; d++) want[i] += query[q * D + d] * item[i * D + d];
    }
    MUST(ev_model_score(m, &one, every, ITEMS, given));
    for (size_t i = 0; i < ITEMS; i++) near(given[i], want[i]);
    size_t n_left = ITEMS - (r->seen_ptr[q + 1] - r->seen_ptr[q]);
    for (size_t k = 0; k < K; k++) {
      if (!has[q] || k >= n_left) {
        assert_true(ids[q * K + k] == EV_NONE && scores[q * K + k] == -INFINITY);
        continue;
      }
      uint32_t id = ids[q * K + k];
      if (id >= ITEMS) fail_msg("request %zu place %zu of %zu", q, k, n_left);
      near(scores[q * K + k], want[id]);
      assert_false(ev_sorted_has(r->seen + r->seen_ptr[q], r->seen_ptr[q + 1] - r->seen_ptr[q], id));
      size_t better = 0; /* that many are before it, give or take a tie by rounding */
      for (uint32_t i = 0; i < ITEMS; i++) better += want[i] > want[id] + 1e-4 && !ev_sorted_has(r->seen + r->seen_ptr[q], r->seen_ptr[q + 1] - r->seen_ptr[q], i);
      assert_true(better <= k);
    }
  }
  ev_free(ids);
  ev_free(scores);
}

/* Every user with what he has, and at the end a stranger with items, one without, and somebody of another world. */
typedef struct askers {
  ev_requests r;
  uint32_t *user, *history, *seen;
  uint64_t *ptr;
} askers;

static askers ask_all(const ev_view *v) {
  const ev_csr *m = &v->by_user;
  size_t n = USERS + 3, total = m->ptr[USERS];
  askers a = {.user = ev_alloc(n, 4), .history = ev_alloc(total + 6, 4), .seen = ev_alloc(total + 6, 4), .ptr = ev_alloc(n + 1, 8)};
  memcpy(a.history, m->idx, total * 4);
  memcpy(a.seen, v->seen, total * 4);
  memcpy(a.ptr, m->ptr, (USERS + 1) * 8);
  for (uint32_t u = 0; u < USERS; u++) a.user[u] = u;
  a.user[USERS] = a.user[USERS + 1] = EV_NONE;
  a.user[USERS + 2] = USERS + 9;
  for (uint32_t k = 0; k < 3; k++) a.history[total + k] = a.seen[total + k] = 3 + k * 7, a.history[total + 3 + k] = a.seen[total + 3 + k] = 2 + k;
  a.ptr[USERS + 1] = a.ptr[USERS + 2] = total + 3;
  a.ptr[USERS + 3] = total + 6;
  a.r = (ev_requests){n, a.user, a.ptr, a.history, a.ptr, a.seen};
  return a;
}

static void free_askers(askers *a) {
  ev_free(a->user);
  ev_free(a->history);
  ev_free(a->seen);
  ev_free(a->ptr);
}

static void to_unit(double *x) {
  double squares = 0;
  for (size_t d = 0; d < D; d++) squares += x[d] * x[d];
  for (size_t d = 0; d < D && squares > 0; d++) x[d] /= sqrt(squares);
}

/* ---- Vectors -------------------------------------------------------------------------------------------*/
static void vectors_answer_with_the_user_or_with_what_he_has(void **s) {
  (void)s;
  world w;
  open_world(&w);
  static float user[USERS * D], item[ITEMS * D], context[ITEMS * D], bias[ITEMS];
  static double query[(USERS + 3) * D];
  bool has[USERS + 3];
  askers a = ask_all(w.all);
  for (int c = 0; c < 32; c++) {
    bool with_user = c & 1, with_context = c & 2, with_bias = c & 4, cosine = c & 8, cold = c & 16;
    draw(user, USERS * D, 1);
    draw(item, ITEMS * D, 2);
    draw(context, ITEMS * D, 3);
    draw(bias, ITEMS, 4);
    memset(user + 5 * D, 0, D * sizeof *user); /* has none */
    ev_vectors x = {.user = with_user ? user : NULL, .item = item, .context = with_context ? context : NULL, .bias = with_bias ? bias : NULL, .n_users = USERS, .n_items = ITEMS,
                    .n_dims = D, .cosine = cosine, .history_power = c % 3 == 0 ? 1 : 0.5f, .view = cold ? NULL : w.v};
    MUST(ev_fit_vectors(in_folder("m"), &x));
    for (size_t i = 0; i < ITEMS; i++) { /* what the file is to hold */
      double rows[2][D];
      float *of[2] = {item + i * D, context + i * D};
      bool nothing = !cold && w.v->by_item.ptr[i + 1] == w.v->by_item.ptr[i];
      for (int k = 0; k < 2; k++) {
        for (size_t d = 0; d < D; d++) rows[k][d] = nothing ? 0 : of[k][d];
        if (cosine) to_unit(rows[k]);
        for (size_t d = 0; d < D; d++) of[k][d] = (float)rows[k][d];
      }
    }
    const float *from = with_context ? context : item;
    for (size_t q = 0; q < a.r.n; q++) {
      double *y = query + q * D;
      size_t n = a.ptr[q + 1] - a.ptr[q];
      bool own = with_user && q < USERS && q != 5 && (cold || w.v->by_user.ptr[q + 1] > w.v->by_user.ptr[q]);
      for (size_t d = 0; d < D; d++) {
        y[d] = own ? user[q * D + d] : 0;
        for (uint64_t h = a.ptr[q]; h < a.ptr[q + 1] && !own; h++) y[d] += from[a.history[h] * D + d] / pow((double)n, x.history_power);
      }
      has[q] = own;
      for (size_t d = 0; d < D; d++) has[q] = has[q] || y[d] != 0; /* of what he has, nothing may be known either */
      if (cosine) to_unit(y);
    }
    ev_model *m = open_model("m", "vectors");
    assert_answers(m, &a.r, query, has, item, with_bias ? bias : NULL);
    ev_model_close(m);
  }
  free_askers(&a);
  close_world(&w);
}

static void vectors_that_are_none_are_refused(void **s) {
  (void)s;
  static float item[ITEMS * D], bias[ITEMS];
  ev_vectors good = {.item = item, .n_items = ITEMS, .n_dims = D, .history_power = 1}, x = good;
  unlink(in_folder("none"));
  item[7 * D + 2] = NAN;
  assert_int_equal(ev_fit_vectors(in_folder("none"), &x), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "item: row 7 holds nan"));
  item[7 * D + 2] = 0;
  bias[3] = INFINITY;
  x.bias = bias;
  assert_int_equal(ev_fit_vectors(in_folder("none"), &x), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "bias: row 3 holds inf"));
  x = good, x.n_dims = 0;
  assert_int_equal(ev_fit_vectors(in_folder("none"), &x), EV_EINVAL);
  x = good, x.n_items = 0;
  assert_int_equal(ev_fit_vectors(in_folder("none"), &x), EV_EINVAL);
  x = good, x.history_power = -1;
  assert_int_equal(ev_fit_vectors(in_folder("none"), &x), EV_EINVAL);
  assert_false(ev_file_exists(in_folder("none")));
}

/* ---- Encoders ------------------------------------------------------------------------------------------*/
typedef struct net {
  ev_graph *g;
  ev_batches *b;
  ev_tensor item, own, place, user, query;
} net;

static ev_tensor op(ev_graph *g, const char *name, size_t n_in, const ev_tensor *in, size_t n_attr, const double *attr) {
  ev_tensor t = EV_NONE;
  MUST(ev_graph_op(g, &t, name, in, n_in, attr, n_attr));
  return t;
}
#define OP(g, name, ...) op(g, name, sizeof((ev_tensor[]){__VA_ARGS__}) / sizeof(ev_tensor), (ev_tensor[]){__VA_ARGS__}, 0, NULL)

static ev_tensor input(net *n, const char *word) {
  ev_tensor t = EV_NONE;
  MUST(ev_batches_input(n->b, word, &t));
  return t;
}

static ev_tensor parameter(ev_graph *g, const char *name, size_t rows) {
  ev_tensor t = EV_NONE;
  MUST(ev_graph_parameter(g, &t, name, &(ev_shape){.rank = 2, .dim = {rows, D}}, EV_INIT_NORMAL, 1, 1));
  return t;
}

enum { LENGTH = 6 };

/* Of every item its features' vectors, bent: what depends on no request, in a graph whose sparse matrix no file can hold. */
static ev_tensor from_features(net *n, const world *w, ev_tensor x) {
  const char *columns[16];
  size_t n_columns = ev_snapshot_n_columns(w->s, EV_ITEM);
  ev_tensor f = EV_NONE, table = EV_NONE;
  for (size_t i = 0; i < n_columns; i++) columns[i] = ev_snapshot_column_at(w->s, EV_ITEM, i)->name;
  MUST(ev_graph_features(n->g, &f, "features", w->s, EV_ITEM, columns, n_columns));
  MUST(ev_graph_parameter(n->g, &table, "of_features", &(ev_shape){.rank = 2, .dim = {ev_graph_shape(n->g, f)->dim[1], D}}, EV_INIT_NORMAL, 0.2f, 1));
  ev_tensor all = op(n->g, "spmm", 2, (ev_tensor[]){f, table}, 1, (double[]){0}), square = EV_NONE;
  MUST(ev_graph_parameter(n->g, &square, "square", &(ev_shape){.rank = 2, .dim = {D, D}}, EV_INIT_NORMAL, 0.5f, 1));
  ev_tensor bent = OP(n->g, "tanh", OP(n->g, "matmul", all, square));
  x = OP(n->g, "add", x, OP(n->g, "gather", bent, input(n, "item")));
  ev_tensor twice = op(n->g, "scale", 1, &table, 2, (double[]){2, 0.1});
  x = OP(n->g, "add", x, op(n->g, "bag", 3, (ev_tensor[]){f, twice, input(n, "item_known")}, 0, NULL));
  return OP(n->g, "add", x, op(n->g, "bag", 3, (ev_tensor[]){f, table, input(n, "item")}, 0, NULL));
}

/* Words of every kind: an item's vector and, where it is known, its own; its place's; and its user's. attention: that, and features. */
static net open_net(const world *w, bool from_start, bool by_row, bool attention, uint64_t seed) {
  net n;
  ev_batch_options o;
  ev_batch_defaults(&o);
  o.n_negatives = 0;
  o.max_length = LENGTH;
  o.size = 16;
  o.from_start = from_start;
  MUST(ev_graph_new(&n.g, seed, 0));
  MUST(ev_sequences_new(&n.b, n.g, w->v, &o));
  n.item = parameter(n.g, "item", ITEMS), n.own = parameter(n.g, "own", ITEMS), n.place = parameter(n.g, "place", LENGTH), n.user = parameter(n.g, "user", USERS + 10);
  ev_tensor x = OP(n.g, "add", OP(n.g, "gather", n.item, input(&n, "item")), OP(n.g, "gather", n.own, input(&n, "item_known")));
  x = OP(n.g, "add", x, OP(n.g, "gather", n.place, input(&n, "position")));
  ev_tensor users = OP(n.g, "add", OP(n.g, "gather", n.user, input(&n, "user")), OP(n.g, "gather", n.user, input(&n, "user_known")));
  x = OP(n.g, "add", x, OP(n.g, "gather", users, input(&n, "sequence")));
  if (attention) x = from_features(&n, w, x);
  if (attention) x = op(n.g, "attention", 4, (ev_tensor[]){x, x, x, input(&n, "length")}, 2, (double[]){1, 1});
  n.query = by_row ? x : OP(n.g, "gather", x, input(&n, "last"));
  return n;
}

static void close_net(net *n) {
  ev_batches_free(n->b);
  ev_graph_free(n->g);
}

static ev_status fit_encoder(const char *path, net *n, const float *bias, bool cosine) {
  float *table = NULL;
  size_t d = 0;
  ev_status status = ev_batches_table(n->b, n->g, n->item, EV_ITEM, ITEMS, &table, &d);
  ev_encoder x = {n->b, n->query, table, bias, ITEMS, d, cosine};
  if (status == EV_OK) status = ev_fit_encoder(path, &x);
  ev_free(table);
  return status;
}

static bool known(const ev_csr *m, uint32_t i) { return i < m->n_rows && m->ptr[i + 1] > m->ptr[i]; }

static void encoders_read_the_last_of_a_history(void **s) {
  (void)s;
  world w;
  open_world(&w);
  askers a = ask_all(w.all);
  static double query[(USERS + 3) * D];
  static float item[ITEMS * D], bias[ITEMS];
  bool has[USERS + 3];
  a.user[USERS + 2] = EV_NONE; /* the graph has no row for him */
  draw(bias, ITEMS, 4);
  for (int c = 0; c < 16; c++) {
    bool from_start = c & 1, by_row = c & 2, cosine = c & 4, with_bias = c & 8;
    net n = open_net(&w, from_start, by_row, false, (uint64_t)c);
    MUST(fit_encoder(in_folder("m"), &n, with_bias ? bias : NULL, cosine));
    const float *items = ev_graph_values(n.g, n.item, NULL), *own = ev_graph_values(n.g, n.own, NULL), *place = ev_graph_values(n.g, n.place, NULL), *user = ev_graph_values(n.g, n.user, NULL);
    for (size_t q = 0; q < a.r.n; q++) {
      double *y = query + q * D;
      size_t all = a.ptr[q + 1] - a.ptr[q], length = all < LENGTH ? all : LENGTH;
      memset(y, 0, D * sizeof *y);
      has[q] = all > 0;
      if (all == 0) continue;
      uint32_t last = a.history[a.ptr[q + 1] - 1], u = a.user[q];
      for (size_t d = 0; d < D; d++) {
        y[d] = items[last * D + d] + place[(from_start ? length - 1 : 0) * D + d];
        if (known(&w.v->by_item, last)) y[d] += own[last * D + d];
        if (u != EV_NONE) y[d] += user[u * D + d];
        if (known(&w.v->by_user, u)) y[d] += user[u * D + d];
      }
      if (cosine) to_unit(y);
    }
    for (size_t i = 0; i < ITEMS; i++) {
      double row[D];
      for (size_t d = 0; d < D; d++) row[d] = items[i * D + d];
      if (cosine) to_unit(row);
      for (size_t d = 0; d < D; d++) item[i * D + d] = (float)row[d];
    }
    ev_model *m = open_model("m", "encoder");
    assert_answers(m, &a.r, query, has, item, with_bias ? bias : NULL);
    ev_model_close(m);
    close_net(&n);
  }
  free_askers(&a);
  close_world(&w);
}

/* What the net computes while it trains, it computes when it is asked: batches of an epoch, and requests of the same histories. */
static void encoders_compute_what_the_net_computed(void **s) {
  (void)s;
  world w;
  open_world(&w);
  const ev_csr *m = &w.v->by_user;
  for (int c = 0; c < 2; c++) {
    net n = open_net(&w, c == 0, true, true, 3);
    MUST(fit_encoder(in_folder("m"), &n, NULL, false));
    ev_model *model = open_model("m", "encoder");
    ev_plan *p;
    MUST(ev_plan_new(&p, n.g, &n.query, 1, EV_NONE));
    const uint32_t *user = ev_graph_ids(n.g, input(&n, "user"), NULL), *length = ev_graph_ids(n.g, input(&n, "length"), NULL), *last = ev_graph_ids(n.g, input(&n, "last"), NULL);
    const float *items = ev_graph_values(n.g, n.item, NULL);
    size_t compared = 0;
    for (uint64_t step = 0; step < ev_batches_per_epoch(n.b); step++) {
      MUST(ev_batches_fill(n.b, step, NULL));
      MUST(ev_plan_run(p, false, 0, NULL));
      const float *q = ev_plan_value(p, n.query, NULL);
      for (size_t i = 0; i < ev_graph_live(n.g, ev_graph_shape(n.g, input(&n, "length"))->axis); i++) {
        uint64_t ptr[] = {m->ptr[user[i]], m->ptr[user[i] + 1] - 1}; /* all but what is predicted */
        uint32_t some[] = {0, 7, ITEMS - 1};
        float given[3];
        assert_int_equal(length[i], ptr[1] - ptr[0] < LENGTH ? ptr[1] - ptr[0] : LENGTH);
        MUST(ev_model_score(model, &(ev_requests){1, &user[i], ptr, m->idx, NULL, NULL}, some, 3, given));
        for (int k = 0; k < 3; k++) {
          double sum = 0;
          for (size_t d = 0; d < D; d++) sum += (double)q[last[i] * D + d] * items[some[k] * D + d];
          near(given[k], sum);
        }
        compared++;
      }
    }
    assert_true(compared > USERS / 2);
    ev_plan_free(p);
    ev_model_close(model);
    close_net(&n);
  }
  close_world(&w);
}

static void an_encoder_needs_what_requests_bring(void **s) {
  (void)s;
  world w;
  open_world(&w);
  net n = open_net(&w, true, true, false, 1);
  static float item[ITEMS * D];
  ev_tensor wide = EV_NONE;
  MUST(ev_graph_parameter(n.g, &wide, "wide", &(ev_shape){.rank = 2, .dim = {D, D + 1}}, EV_INIT_NORMAL, 1, 1));
  ev_tensor peeks = OP(n.g, "add", n.query, OP(n.g, "gather", n.item, input(&n, "target"))), wider = OP(n.g, "matmul", n.query, wide);
  const struct {
    ev_tensor query;
    const char *why;
  } wrong[] = {{peeks, "depends on 'batch.target', which no request brings"}, {wider, "one vector of 5 numbers"}, {n.item, "one vector of 5 numbers"}, {5000, "no tensor"}};
  unlink(in_folder("none"));
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    ev_encoder x = {n.b, wrong[i].query, item, NULL, ITEMS, D, false};
    assert_int_equal(ev_fit_encoder(in_folder("none"), &x), EV_EINVAL);
    if (strstr(ev_error(), wrong[i].why) == NULL) fail_msg("case %zu: %s", i, ev_error());
  }
  ev_batches *pairs;
  ev_batch_options o;
  ev_batch_defaults(&o);
  o.name = "pairs";
  MUST(ev_pairs_new(&pairs, n.g, w.v, &o));
  assert_int_equal(ev_fit_encoder(in_folder("none"), &(ev_encoder){pairs, n.query, item, NULL, ITEMS, D, false}), EV_EINVAL);
  assert_int_equal(ev_fit_encoder(in_folder("none"), &(ev_encoder){n.b, n.query, item, NULL, ITEMS - 1, D, false}), EV_EINVAL);
  item[9] = NAN;
  assert_int_equal(ev_fit_encoder(in_folder("none"), &(ev_encoder){n.b, n.query, item, NULL, ITEMS, D, false}), EV_EINVAL);
  item[9] = 0;
  assert_false(ev_file_exists(in_folder("none")));
  ev_batches_free(pairs);
  close_net(&n);
  close_world(&w);
}

/* ---- Networks ------------------------------------------------------------------------------------------*/
static const char *const dense_names[] = {"score", "rank.x"};

static void fill_slate(ev_slate *s, uint32_t u) {
  float *column;
  ev_slate_clear(s);
  for (uint32_t i = 0; i < 20; i++) {
    uint32_t item = (i * 7 + u) % ITEMS;
    float score = (float)((i * 13 + u) % 17) / 5;
    MUST(ev_slate_append(s, &item, &score, 1, 0));
  }
  MUST(ev_slate_column(s, "rank.x", &column));
  for (uint32_t i = 0; i < 20; i++) column[i] = (float)(i % 6);
}

static ev_rank_rows *make_rows(const world *w) {
  ev_rank_rows *rows;
  ev_slate *s = ev_slate_new();
  MUST(ev_rank_rows_new(&rows, dense_names, 2));
  for (uint32_t u = 0; u < 30; u++) {
    fill_slate(s, u);
    MUST(ev_rank_rows_add(rows, s, u, w->all->seen + w->all->by_user.ptr[u], w->all->by_user.ptr[u + 1] - w->all->by_user.ptr[u]));
  }
  ev_slate_free(s);
  return rows;
}

static ev_status fit_fields(ev_fields **out, const world *w, const ev_rank_rows *rows) {
  const char *item[16], *user[16];
  size_t n_item = ev_snapshot_n_columns(w->s, EV_ITEM), n_user = ev_snapshot_n_columns(w->s, EV_USER);
  for (size_t i = 0; i < n_item; i++) item[i] = ev_snapshot_column_at(w->s, EV_ITEM, i)->name;
  for (size_t i = 0; i < n_user; i++) user[i] = ev_snapshot_column_at(w->s, EV_USER, i)->name;
  return ev_fields_fit(out, w->s, rows, &(ev_fields_options){user, item, n_user, n_item, true});
}

/* A factorisation machine's pairs beside linear terms: Σ wₖ table[code] summed over D, plus dense · v. */
static net open_network(const world *w, const ev_rank_rows *rows, double per_positive, size_t size, uint64_t seed) {
  net n = {0};
  ev_fields *f;
  ev_batch_options o;
  ev_batch_defaults(&o);
  o.size = size;
  o.negatives_per_positive = per_positive;
  MUST(ev_graph_new(&n.g, seed, 0));
  MUST(fit_fields(&f, w, rows));
  size_t n_features = ev_fields_n_features(f), n_dense = ev_fields_n_dense(f), n_slots = ev_fields_n_slots(f);
  MUST(ev_rows_new(&n.b, n.g, w->v, rows, f, &o));
  assert_ptr_equal(ev_batches_fields(n.b), f);
  n.item = parameter(n.g, "table", n_features);
  n.own = parameter(n.g, "v", n_dense);
  ev_tensor weights = op(n.g, "reshape", 1, (ev_tensor[]){input(&n, "weights")}, 3, (double[]){-1, (double)n_slots, 1});
  ev_tensor e = OP(n.g, "mul", OP(n.g, "gather", n.item, input(&n, "codes")), weights);
  ev_tensor all = OP(n.g, "add", op(n.g, "sum", 1, &e, 1, (double[]){1}), OP(n.g, "matmul", input(&n, "dense"), n.own));
  n.query = op(n.g, "sum", 1, &all, 1, (double[]){1});
  return n;
}

static double logit(const net *n, const ev_row_reader *r, size_t row) {
  const ev_fields *f = ev_batches_fields(n->b);
  uint32_t codes[256];
  float weights[256], dense[256];
  const float *table = ev_graph_values(n->g, n->item, NULL), *v = ev_graph_values(n->g, n->own, NULL);
  double sum = 0;
  ev_row_columns(codes, weights, dense, r, NULL, row, 1, 0);
  for (size_t d = 0; d < D; d++) {
    for (size_t k = 0; k < ev_fields_n_slots(f); k++) sum += (double)weights[k] * table[codes[k] * D + d];
    for (size_t k = 0; k < ev_fields_n_dense(f); k++) sum += (double)dense[k] * v[k * D + d];
  }
  return sum;
}

static void networks_rank_rows_and_slates(void **s) {
  (void)s;
  world w;
  open_world(&w);
  ev_rank_rows *rows = make_rows(&w);
  net n = open_network(&w, rows, 0, 64, 5);
  MUST(ev_fit_network(in_folder("m"), n.b, n.query));
  ev_model *m = open_model("m", "network");
  ev_row_reader *r;
  float *got = ev_alloc(rows->n_rows, sizeof *got);
  MUST(ev_row_reader_of_rows(&r, ev_batches_fields(n.b), w.s, rows));
  MUST(ev_ranker_score_rows(m, w.s, rows, got));
  for (size_t i = 0; i < rows->n_rows; i++) near(got[i], logit(&n, r, i));
  ev_row_reader_free(r);
  ev_slate *slate = ev_slate_new();
  static const uint32_t users[] = {0, 17, EV_NONE};
  for (size_t k = 0; k < 3; k++) {
    fill_slate(slate, 3);
    MUST(ev_ranker_score(m, w.s, slate, users[k], got));
    MUST(ev_row_reader_of_slate(&r, ev_batches_fields(n.b), w.s, slate, users[k]));
    for (size_t i = 0; i < 20; i++) near(got[i], logit(&n, r, i));
    ev_row_reader_free(r);
  }
  uint32_t ids[5];
  float scores[5];
  assert_int_equal(ev_model_recall(m, &(ev_requests){1, NULL, (uint64_t[]){0, 0}, ids, NULL, NULL}, 5, ids, scores), EV_EINVAL);
  unlink(in_folder("none"));
  ev_tensor peeks = OP(n.g, "add", n.query, input(&n, "label"));
  assert_int_equal(ev_fit_network(in_folder("none"), n.b, peeks), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "depends on 'batch.label', which no slate brings"));
  assert_int_equal(ev_fit_network(in_folder("none"), n.b, n.item), EV_EINVAL);
  assert_false(ev_file_exists(in_folder("none")));
  ev_slate_free(slate);
  ev_free(got);
  ev_model_close(m);
  close_net(&n);
  ev_rank_rows_free(rows);
  close_world(&w);
}

static void rows_have_all_positives_and_a_share_of_each_slates_negatives(void **s) {
  (void)s;
  world w;
  open_world(&w);
  ev_rank_rows *rows = make_rows(&w);
  ev_row_reader *r;
  for (int c = 0; c < 3; c++) {
    double share = (const double[]){0, 1.5, 100}[c];
    net n = open_network(&w, rows, share, 50, 5);
    const ev_fields *f = ev_batches_fields(n.b);
    size_t n_slots = ev_fields_n_slots(f), n_dense = ev_fields_n_dense(f), differ = 0;
    const uint32_t *codes = ev_graph_ids(n.g, input(&n, "codes"), NULL);
    const float *dense = ev_graph_values(n.g, input(&n, "dense"), NULL), *label = ev_graph_values(n.g, input(&n, "label"), NULL);
    unsigned *count = ev_zalloc(rows->n_rows, sizeof *count), *before = ev_zalloc(rows->n_rows, sizeof *before);
    MUST(ev_row_reader_of_rows(&r, f, w.s, rows));
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
      size_t in_epoch = 0;
      memset(count, 0, rows->n_rows * sizeof *count);
      for (uint64_t k = 0; k < ev_batches_per_epoch(n.b); k++) {
        size_t some;
        MUST(ev_batches_fill(n.b, epoch * ev_batches_per_epoch(n.b) + k, &some));
        in_epoch += some;
        for (size_t i = 0; i < some; i++) { /* which row it is: user, item and columns say so */
          size_t hit = rows->n_rows;
          for (size_t row = 0; row < rows->n_rows && hit == rows->n_rows; row++) {
            uint32_t mine[256];
            float weights[256], numbers[256];
            ev_row_columns(mine, weights, numbers, r, NULL, row, 1, 0);
            if (memcmp(mine, codes + i * n_slots, n_slots * 4) == 0 && memcmp(numbers, dense + i * n_dense, n_dense * 4) == 0) hit = row;
          }
          assert_true(hit < rows->n_rows && label[i] == rows->label[hit]);
          count[hit]++;
        }
      }
      assert_int_equal(in_epoch, ev_batches_rows(n.b));
      for (size_t begin = 0, end; begin < rows->n_rows; begin = end) {
        size_t positives = 0, negatives = 0, taken = 0;
        for (end = begin; end < rows->n_rows && rows->group[end] == rows->group[begin]; end++) {
          assert_true(count[end] <= 1);
          if (rows->label[end] > 0) assert_int_equal(count[end], 1), positives++;
          else negatives++, taken += count[end];
          differ += epoch > 0 && count[end] != before[end];
        }
        double wanted = round(share * (double)(positives > 0 ? positives : 1));
        assert_int_equal(taken, share == 0 || wanted > (double)negatives ? negatives : (size_t)wanted);
      }
      memcpy(before, count, rows->n_rows * sizeof *count);
    }
    assert_int_equal(differ > 0, c == 1); /* chosen anew */
    ev_row_reader_free(r);
    ev_free(count);
    ev_free(before);
    close_net(&n);
  }
  ev_rank_rows_free(rows);
  close_world(&w);
}

/* ---- Threads -------------------------------------------------------------------------------------------*/
typedef struct caller {
  const ev_model *m;
  const world *w;
  uint32_t first;
  float (*expected)[3];
  size_t wrong;
} caller;

static void ask_for(const ev_model *m, const ev_csr *c, uint32_t u, float out[3]) {
  static const uint32_t some[] = {0, 7, ITEMS - 1};
  uint64_t ptr[] = {c->ptr[u], c->ptr[u + 1]};
  MUST(ev_model_score(m, &(ev_requests){1, &u, ptr, c->idx, NULL, NULL}, some, 3, out));
}

static void *call(void *ctx) {
  caller *c = ctx;
  for (uint32_t k = 0; k < 300; k++) {
    uint32_t u = (c->first + k * 7) % USERS;
    float got[3];
    ask_for(c->m, &c->w->all->by_user, u, got);
    c->wrong += memcmp(got, c->expected[u], sizeof got) != 0;
  }
  return NULL;
}

static void one_encoder_serves_many_threads(void **s) {
  (void)s;
  enum { CALLERS = 4 };
  world w;
  open_world(&w);
  net n = open_net(&w, true, false, true, 3);
  MUST(fit_encoder(in_folder("m"), &n, NULL, false));
  ev_model *m = open_model("m", "encoder");
  static float expected[USERS][3];
  for (uint32_t u = 0; u < USERS; u++) ask_for(m, &w.all->by_user, u, expected[u]);
  pthread_t threads[CALLERS];
  caller callers[CALLERS];
  for (uint32_t k = 0; k < CALLERS; k++) {
    callers[k] = (caller){m, &w, k * 11, expected, 0};
    assert_int_equal(pthread_create(&threads[k], NULL, call, &callers[k]), 0);
  }
  for (int k = 0; k < CALLERS; k++) {
    pthread_join(threads[k], NULL);
    assert_int_equal(callers[k].wrong, 0);
  }
  ev_model_close(m);
  close_net(&n);
  close_world(&w);
}

/* ---- Files ---------------------------------------------------------------------------------------------*/
enum { VECTORS, ENCODER, NETWORK, N_KINDS };

static ev_status fit(int which, const world *w, const ev_rank_rows *rows, const char *path, uint64_t seed) {
  net n;
  if (which == NETWORK) {
    n = open_network(w, rows, 0, 64, seed);
    ev_status status = ev_fit_network(path, n.b, n.query);
    close_net(&n);
    return status;
  }
  static float bias[ITEMS];
  n = open_net(w, true, false, true, seed);
  ev_status status;
  if (which == VECTORS) {
    float *item = NULL, *user = NULL;
    size_t d;
    status = ev_batches_table(n.b, n.g, n.item, EV_ITEM, ITEMS, &item, &d);
    if (status == EV_OK) status = ev_batches_table(n.b, n.g, n.own, EV_ITEM, ITEMS, &user, &d);
    ev_vectors x = {.user = user, .item = item, .context = user, .bias = bias, .n_users = ITEMS, .n_items = ITEMS, .n_dims = D, .history_power = 1};
    if (status == EV_OK) status = ev_fit_vectors(path, &x);
    ev_free(item);
    ev_free(user);
  } else {
    status = fit_encoder(path, &n, bias, true);
  }
  close_net(&n);
  return status;
}

static void threads_change_no_byte_and_the_seed_does(void **s) {
  (void)s;
  world w;
  open_world(&w);
  ev_rank_rows *rows = make_rows(&w);
  for (int f = 0; f < N_KINDS; f++) {
    ev_threads_set(1);
    MUST(fit(f, &w, rows, in_folder("one"), 1));
    ev_threads_set(4);
    MUST(fit(f, &w, rows, in_folder("four"), 1));
    assert_true(same_bytes(in_folder("one"), in_folder("four")));
    MUST(fit(f, &w, rows, in_folder("other"), 2));
    assert_false(same_bytes(in_folder("one"), in_folder("other")));
  }
  ev_threads_set(0);
  ev_rank_rows_free(rows);
  close_world(&w);
}

/* Copies a pack with one array damaged: `how` 0 dropped, 1 a row shorter, 2 of another type, 3 element `at` set. Checksums are right. */
static void damage(const char *to, const char *from, const char *array, int how, size_t at, double value) {
  ev_pack *p;
  ev_pack_writer *out;
  MUST(ev_pack_open(&p, from));
  MUST(ev_pack_writer_open(&out, to, ev_pack_kind(p)));
  for (size_t i = 0; i < ev_pack_size(p); i++) {
    ev_array a;
    const char *name = ev_pack_name(p, i, &a);
    size_t bytes = a.rows * a.cols * ev_dtype_size(a.dtype);
    char *copy = ev_alloc(bytes, 1);
    memcpy(copy, a.data, bytes);
    if (strcmp(name, array) == 0) {
      if (how == 0) {
        ev_free(copy);
        continue;
      }
      if (how == 1) a.rows--;
      if (how == 2) {
        a.dtype = a.dtype == EV_F32 ? EV_U32 : a.dtype == EV_U64 ? EV_I64 : a.dtype == EV_F64 ? EV_U64 : a.dtype == EV_U8 ? EV_U8 : EV_F32;
        if (a.dtype == EV_U8) a.cols *= 2, a.rows /= 2; /* no other type fits bytes: another shape */
      }
      if (how == 3 && a.dtype == EV_F64) ((double *)(void *)copy)[at] = value;
      if (how == 3 && a.dtype == EV_U64) ((uint64_t *)(void *)copy)[at] = (uint64_t)value;
      if (how == 3 && a.dtype == EV_U8) copy[at] = (char)value;
    }
    MUST(ev_pack_write(out, name, a.dtype, copy, a.rows, a.cols));
    ev_free(copy);
  }
  MUST(ev_pack_writer_commit(out));
  ev_pack_close(p);
}

static void refused(const char *path, const char *why, const char *array) {
  ev_model *m;
  ev_status status = ev_model_open(&m, path);
  if ((status != EV_ECORRUPT && status != EV_ELIMIT) || m != NULL) fail_msg("array '%s' %s: %s", array, why, ev_status_name(status));
}

static void damaged_models_are_refused(void **s) {
  (void)s;
  world w;
  open_world(&w);
  ev_rank_rows *rows = make_rows(&w);
  const struct {
    int fit;
    const char *array;
    int how;
    size_t at;
    double value;
  } cases[] = {
      {VECTORS, "user", 2, 0, 0}, {VECTORS, "context", 1, 0, 0}, {VECTORS, "bias", 1, 0, 0}, {VECTORS, "item", 1, 0, 0}, {VECTORS, "options", 3, 1, -1}, {VECTORS, "options", 3, 1, NAN},
      {VECTORS, "options", 3, 2, 8}, {VECTORS, "options", 3, 2, NAN}, {VECTORS, "options", 1, 0, 0}, {ENCODER, "item", 1, 0, 0}, {ENCODER, "bias", 1, 0, 0},
      {ENCODER, "known_items", 1, 0, 0}, {ENCODER, "options", 1, 0, 0}, {ENCODER, "options", 3, 0, 0}, {ENCODER, "options", 3, 0, 1e9}, {ENCODER, "options", 3, 0, NAN}, {ENCODER, "options", 3, 3, 0},
      {ENCODER, "options", 3, 3, 60}, {ENCODER, "options", 3, 4, NAN}, {ENCODER, "options", 3, 4, 2}, {ENCODER, "name", 3, 1, 'x'}, {ENCODER, "graph.axes", 3, 1, 1e18}, {ENCODER, "graph.axes", 3, 2, 3},
      {ENCODER, "p.item", 1, 0, 0}, {ENCODER, "graph.outputs", 3, 0, 1}, {ENCODER, "graph.outputs", 3, 0, 1e6}, {ENCODER, "graph.output_names", 3, 0, 'x'}, {NETWORK, "options", 3, 0, -1},
      {NETWORK, "options", 3, 0, NAN}, {NETWORK, "options", 3, 1, 0}, {NETWORK, "options", 3, 1, 7}, {NETWORK, "options", 3, 1, NAN}, {NETWORK, "name", 3, 2, 'x'}, {NETWORK, "slots", 1, 0, 0},
      {NETWORK, "mean", 1, 0, 0}, {NETWORK, "graph.output_names", 3, 1, 'x'}, {NETWORK, "graph.axes", 3, 1, 1e18}, {NETWORK, "p.table", 1, 0, 0}};
  for (int f = 0; f < N_KINDS; f++) {
    ev_pack *p;
    ev_array a;
    MUST(fit(f, &w, rows, in_folder("whole"), 1));
    MUST(ev_pack_open(&p, in_folder("whole")));
    for (size_t i = 0; i < ev_pack_size(p); i++) {
      const char *name = ev_pack_name(p, i, &a);
      damage(in_folder("bad"), in_folder("whole"), name, 0, 0, 0);
      refused(in_folder("bad"), "dropped", name);
      if (a.dtype == EV_U8) continue;
      damage(in_folder("bad"), in_folder("whole"), name, 2, 0, 0);
      refused(in_folder("bad"), "of another type", name);
    }
    ev_pack_close(p);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
      if (cases[c].fit != f) continue;
      char which[64];
      snprintf(which, sizeof which, "%s, case %zu,", cases[c].array, c);
      damage(in_folder("bad"), in_folder("whole"), cases[c].array, cases[c].how, cases[c].at, cases[c].value);
      refused(in_folder("bad"), "damaged", which);
    }
  }
  ev_rank_rows_free(rows);
  close_world(&w);
}

static size_t n_files(void) {
  DIR *d = opendir(folder);
  size_t n = 0;
  for (struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
  closedir(d);
  return n;
}

typedef struct fault_case {
  const world *w;
  const ev_rank_rows *rows;
  net n;
  int which;
} fault_case;

static ev_status fit_only(fault_case *f, const char *path, size_t before) { /* the net is there: what is at fault is the fit alone */
  static float bias[ITEMS];
  ev_status status;
  if (f->which == NETWORK) status = ev_fit_network(path, f->n.b, f->n.query);
  else if (f->which == ENCODER) status = fit_encoder(path, &f->n, bias, true);
  else {
    float *item = NULL;
    size_t d = 0;
    status = ev_batches_table(f->n.b, f->n.g, f->n.item, EV_ITEM, ITEMS, &item, &d);
    ev_vectors x = {.item = item, .context = item, .bias = bias, .n_items = ITEMS, .n_dims = d, .cosine = true, .history_power = 1};
    if (status == EV_OK) status = ev_fit_vectors(path, &x);
    ev_free(item);
  }
  if (status != EV_OK) assert_int_equal(n_files(), before);
  return status;
}

static ev_status ask(const world *w, const char *path) {
  ev_model *m;
  uint32_t ids[10], items[] = {0, 1, 2};
  float scores[20];
  EV_TRY(ev_model_open(&m, path));
  ev_status status;
  if (strcmp(ev_model_kind(m), "network") == 0) {
    ev_slate *slate = ev_slate_new();
    status = slate == NULL ? EV_ENOMEM : ev_slate_append(slate, items, (float[]){0, 0, 0}, 3, 0);
    if (status == EV_OK) status = ev_ranker_score(m, w->s, slate, 0, scores);
    ev_slate_free(slate);
  } else {
    uint64_t ptr[] = {0, w->v->by_user.ptr[1]};
    ev_requests r = {1, NULL, ptr, w->v->by_user.idx, ptr, w->v->seen};
    status = ev_model_recall(m, &r, 10, ids, scores);
    if (status == EV_OK) status = ev_model_score(m, &r, items, 3, scores);
  }
  ev_model_close(m);
  return status;
}

static void fits_and_questions_survive_faults_and_interruptions(void **s) {
  (void)s;
  world w;
  ev_threads_set(1); /* faults are planted in the calling thread */
  open_world(&w);
  ev_rank_rows *rows = make_rows(&w);
  for (int which = 0; which < N_KINDS; which++) {
    fault_case f = {&w, rows, which == NETWORK ? open_network(&w, rows, 0, 64, 1) : open_net(&w, true, false, true, 1), which};
    unlink(in_folder("faulty"));
    size_t before = n_files();
    ASSERT_SURVIVES_FAULTS(fit_only(&f, in_folder("faulty"), before), );
    ASSERT_SURVIVES_FAULTS(ask(&w, in_folder("faulty")), );
    ev_interrupt();
    assert_int_equal(ask(&w, in_folder("faulty")), EV_EINTR);
    ev_interrupt_clear();
    assert_true(fit_only(&f, "/nowhere/at/all", n_files()) == EV_ENOTFOUND);
    close_net(&f.n);
  }
  ev_threads_set(0);
  ev_rank_rows_free(rows);
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(vectors_answer_with_the_user_or_with_what_he_has), cmocka_unit_test(vectors_that_are_none_are_refused),
      cmocka_unit_test(encoders_read_the_last_of_a_history), cmocka_unit_test(encoders_compute_what_the_net_computed),
      cmocka_unit_test(an_encoder_needs_what_requests_bring), cmocka_unit_test(networks_rank_rows_and_slates),
      cmocka_unit_test(rows_have_all_positives_and_a_share_of_each_slates_negatives), cmocka_unit_test(one_encoder_serves_many_threads), cmocka_unit_test(threads_change_no_byte_and_the_seed_does),
      cmocka_unit_test(damaged_models_are_refused), cmocka_unit_test(fits_and_questions_survive_faults_and_interruptions),
  };
  return RUN(tests);
}
