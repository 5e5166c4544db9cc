/* learn_fields.c - rows as features and as columns: against the data themselves, unknown and missing values, packs, other data. */
#include <math.h>

#include "import_world.h"
#include "learn/learn.h"

enum { USERS = 30, ITEMS = 40, SLATE = 12, COLOURS = 5, TAGS = 24 };

/* What the files say: the reference that everything is held against. */
static double age_of(unsigned u) { return u % 7 == 3 ? NAN : 20 + 1.5 * u; }
static int job_of(unsigned u) { return u % 5 == 4 ? -1 : (int)(u % 3); }
static int colour_of(unsigned i) { return i % 6 == 5 ? -1 : (int)(i % COLOURS); }
static double price_of(unsigned i) { return i % 9 == 8 ? NAN : 100 - 2.25 * i; }
static unsigned n_tags(unsigned i) { return i == 11 ? 20 : i % 4; } /* one list is longer than a field has slots */
static unsigned tag_of(unsigned i, unsigned k) { return (i * 5 + k) % TAGS; }

static void add_number(ev_buf *b, double x) {
  if (isnan(x)) ev_buf_printf(b, "\t");
  else ev_buf_printf(b, "\t%g", x);
}

static void open_world(ev_snapshot **s, unsigned n_users) {
  ev_buf inter = {0}, users = {0}, items = {0};
  ev_buf_printf(&inter, "user,item\n");
  ev_buf_printf(&users, "user_id:token\tage:float\tjob:token\n");
  ev_buf_printf(&items, "item_id:token\tcolour:token\tprice:float\ttags:token_seq\tempty:token\n");
  for (unsigned u = 0; u < n_users; u++) {
    for (unsigned i = 0; i < ITEMS; i++)
      if (u == 0 || (u + i) % 11 == 0) ev_buf_printf(&inter, "u%u,i%u\n", u, i); /* the first user has all: items are numbered as here */
    ev_buf_printf(&users, "u%u", u);
    add_number(&users, age_of(u));
    if (job_of(u) < 0) ev_buf_printf(&users, "\t\n");
    else ev_buf_printf(&users, "\tj%d\n", job_of(u));
  }
  for (unsigned i = 0; i < ITEMS; i++) {
    ev_buf_printf(&items, "i%u\t", i);
    if (colour_of(i) >= 0) ev_buf_printf(&items, "c%d", colour_of(i));
    add_number(&items, price_of(i));
    ev_buf_printf(&items, "\t");
    for (unsigned k = 0; k < n_tags(i); k++) ev_buf_printf(&items, "%st%u", k > 0 ? " " : "", tag_of(i, k));
    ev_buf_printf(&items, "\t\n");
  }
  import_world(s, EV_SPLIT_AUTO, &inter, &users, &items);
  assert_int_equal(ev_snapshot_n_users(*s), n_users);
  assert_int_equal(ev_snapshot_n_items(*s), ITEMS);
}

static const char *const dense_names[] = {"score", "rank.knn"}, *const user_columns[] = {"age", "job"},
                  *const item_columns[] = {"colour", "price", "tags", "empty"};
static const ev_fields_options with_ids = {user_columns, item_columns, 2, 4, true}, without = {user_columns, item_columns, 2, 4, false};

static void fill(ev_slate *slate, unsigned u) { /* candidates of the first 30 items */
  float *rank;
  ev_slate_clear(slate);
  for (uint32_t k = 0; k < SLATE; k++) {
    uint32_t item = (u * 7 + k * 5) % 30;
    float score = (float)(u % 4) + 0.25f * (float)k;
    assert_int_equal(ev_slate_append(slate, &item, &score, 1, 0), EV_OK);
  }
  assert_int_equal(ev_slate_column(slate, "rank.knn", &rank), EV_OK);
  for (unsigned k = 0; k < SLATE; k++) rank[k] = (float)((u + k) % 6);
}

static ev_rank_rows *rows_of(unsigned n_users, ev_slate *slate) { /* users 0 … n_users − 1, a slate each */
  ev_rank_rows *rows;
  assert_int_equal(ev_rank_rows_new(&rows, dense_names, 2), EV_OK);
  for (unsigned u = 0; u < n_users; u++) {
    fill(slate, u);
    uint32_t clicked[] = {u % 30};
    assert_int_equal(ev_rank_rows_add(rows, slate, u, clicked, 1), EV_OK);
  }
  return rows;
}

typedef struct moments {
  double n, sum, squares;
} moments;

static void take(moments *m, double x) {
  if (!isnan(x)) m->n++, m->sum += x, m->squares += x * x;
}

static double standard(const moments *m, double x) {
  double mean = m->sum / m->n;
  return (x - mean) / sqrt(m->squares / m->n - mean * mean);
}

static double discount(double rank) { return rank > 0 ? 1 / log2(1 + rank) : 0; }

/* Where a token stands in its column's vocabulary. */
static size_t code_of(const ev_snapshot *s, ev_side side, const char *column, char letter, unsigned number) {
  const ev_column *c = ev_snapshot_column(s, side, column);
  char word[16];
  snprintf(word, sizeof word, "%c%u", letter, number);
  for (uint32_t code = 0; code < c->n_tokens; code++) {
    size_t len;
    const char *token = ev_column_token(c, code, &len);
    if (len == strlen(word) && memcmp(token, word, len) == 0) return code;
  }
  fail_msg("no token %s", word);
  return 0;
}

static const ev_rank_field *field(const ev_fields *f, ev_row_source from, const char *name, bool id) {
  for (size_t i = 0; i < ev_fields_n(f); i++) {
    const ev_rank_field *x = ev_fields_at(f, i);
    if (x->from == from && x->id == id && strcmp(x->name, name) == 0) return x;
  }
  return NULL;
}

typedef struct expectation { /* a row, from what the files say */
  double of[512];            /* value of each feature */
  size_t n_features;
} expectation;

static void expect_row(expectation *e, const ev_fields *f, const ev_snapshot *s, const moments m[4], unsigned known_users, uint32_t user, uint32_t item,
                       double score, double rank) {
  memset(e, 0, sizeof *e);
  e->n_features = ev_fields_n_features(f);
  assert_true(e->n_features <= 512);
  const ev_rank_field *x;
  e->of[field(f, EV_FROM_SLATE, "score", false)->offset] = standard(&m[0], score);
  e->of[field(f, EV_FROM_SLATE, "rank.knn", false)->offset] = standard(&m[1], discount(rank));
  if ((x = field(f, EV_FROM_USER, "", true)) != NULL && user < known_users) e->of[x->offset + user] = 1;
  if ((x = field(f, EV_FROM_ITEM, "", true)) != NULL && item < 30) e->of[x->offset + item] = 1;
  if (user != EV_NONE) {
    if (!isnan(age_of(user))) e->of[field(f, EV_FROM_USER, "age", false)->offset] = standard(&m[2], age_of(user));
    if (job_of(user) >= 0) e->of[field(f, EV_FROM_USER, "job", false)->offset + code_of(s, EV_USER, "job", 'j', (unsigned)job_of(user))] = 1;
  }
  if (colour_of(item) >= 0) e->of[field(f, EV_FROM_ITEM, "colour", false)->offset + code_of(s, EV_ITEM, "colour", 'c', (unsigned)colour_of(item))] = 1;
  if (!isnan(price_of(item))) e->of[field(f, EV_FROM_ITEM, "price", false)->offset] = standard(&m[3], price_of(item));
  for (unsigned k = 0; k < n_tags(item); k++)
    e->of[field(f, EV_FROM_ITEM, "tags", false)->offset + code_of(s, EV_ITEM, "tags", 't', tag_of(item, k))] += 1.0 / n_tags(item);
}

/* Both forms of a row against the expectation; of one whose list is longer than the slots, the columns have a test of their own. */
static void check_row(const expectation *e, const ev_fields *f, const ev_row_reader *r, size_t row, uint32_t item) {
  uint32_t index[EV_ROW_FEATURES_MAX], codes[64];
  float value[EV_ROW_FEATURES_MAX], weights[64], values[16];
  double got[512] = {0};
  size_t n = ev_row_features(index, value, r, row);
  for (size_t i = 0; i < n; i++) {
    assert_true(index[i] < e->n_features && value[i] != 0);
    got[index[i]] += (double)value[i];
  }
  for (size_t i = 0; i < e->n_features; i++)
    if (!(fabs(got[i] - e->of[i]) < 1e-5)) fail_msg("row %zu, feature %zu: %g, %g expected", row, i, got[i], e->of[i]);
  assert_true(ev_fields_n_slots(f) <= 64 && ev_fields_n_dense(f) <= 16);
  ev_row_columns(codes, weights, values, r, NULL, row, 1, -77);
  memset(got, 0, sizeof got);
  for (size_t k = 0; k < ev_fields_n(f); k++) {
    const ev_rank_field *x = ev_fields_at(f, k);
    if (x->type == EV_FLOAT) {
      bool missing = values[x->dense] == -77;
      assert_true(missing == (strcmp(x->name, "age") == 0 || strcmp(x->name, "price") == 0 ? e->of[x->offset] == 0 : false));
      got[x->offset] = missing ? 0 : (double)values[x->dense];
    }
    for (size_t j = 0; j < x->n_slots; j++) {
      assert_true(codes[x->slot + j] >= x->offset && codes[x->slot + j] < x->offset + x->size);
      got[codes[x->slot + j]] += (double)weights[x->slot + j];
    }
  }
  for (size_t i = 0; i < e->n_features && n_tags(item) <= EV_SLOTS_MAX; i++)
    if (!(fabs(got[i] - e->of[i]) < 1e-5)) fail_msg("columns of row %zu, feature %zu: %g, %g expected", row, i, got[i], e->of[i]);
}

static void measure(moments m[4], const ev_rank_rows *rows) {
  memset(m, 0, 4 * sizeof *m);
  for (size_t i = 0; i < rows->n_rows; i++) {
    take(&m[0], (double)rows->dense[2 * i]);
    take(&m[1], discount((double)rows->dense[2 * i + 1]));
    take(&m[2], age_of(rows->user[i]));
    take(&m[3], price_of(rows->item[i]));
  }
}

static void both_forms_of_a_row_say_what_the_data_say(void **state) {
  (void)state;
  enum { KNOWN = 18 };
  ev_snapshot *s;
  open_world(&s, USERS);
  ev_slate *slate = ev_slate_new();
  ev_rank_rows *rows = rows_of(KNOWN, slate);
  static expectation e;
  moments m[4];
  measure(m, rows);
  for (int ids = 0; ids < 2; ids++) {
    ev_fields *f;
    ev_row_reader *r;
    assert_int_equal(ev_fields_fit(&f, s, rows, ids ? &with_ids : &without), EV_OK);
    assert_null(field(f, EV_FROM_ITEM, "empty", false)); /* a column without any value */
    assert_int_equal(ev_fields_n(f), 2 + 2 + 3 + 2 * ids);
    assert_int_equal(ev_fields_n_dense(f), 4);
    assert_int_equal(ev_fields_n_slots(f), 2 + EV_SLOTS_MAX + 2 * ids);
    assert_int_equal(ev_row_reader_of_rows(&r, f, s, rows), EV_OK);
    assert_int_equal(ev_row_reader_n(r), rows->n_rows);
    for (size_t i = 0; i < rows->n_rows; i++) {
      expect_row(&e, f, s, m, KNOWN, rows->user[i], rows->item[i], (double)rows->dense[2 * i], (double)rows->dense[2 * i + 1]);
      check_row(&e, f, r, i, rows->item[i]);
    }
    ev_row_reader_free(r);
    static const uint32_t askers[] = {3, 17, 25, EV_NONE}; /* known, known, new, a stranger */
    for (size_t a = 0; a < 4; a++) {
      fill(slate, a == 3 ? 1 : askers[a]);
      for (uint32_t i = 0; i < 4; i++) ev_slate_items(slate)[i] = 30 + i * 2; /* items that no row had */
      assert_int_equal(ev_row_reader_of_slate(&r, f, s, slate, askers[a]), EV_OK);
      for (size_t i = 0; i < SLATE; i++) {
        uint32_t item = ev_slate_items(slate)[i];
        expect_row(&e, f, s, m, KNOWN, askers[a], item, (double)ev_slate_scores(slate)[i], (double)ev_slate_find(slate, "rank.knn")[i]);
        check_row(&e, f, r, i, item);
      }
      ev_row_reader_free(r);
    }
    ev_fields_free(f);
  }
  ev_rank_rows_free(rows);
  ev_slate_free(slate);
  ev_snapshot_close(s);
}

static void a_long_list_gives_its_first_tokens_to_the_slots(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s, USERS);
  ev_slate *slate = ev_slate_new();
  ev_rank_rows *rows = rows_of(USERS, slate);
  ev_fields *f;
  ev_row_reader *r;
  assert_int_equal(ev_fields_fit(&f, s, rows, &without), EV_OK);
  assert_int_equal(ev_row_reader_of_rows(&r, f, s, rows), EV_OK);
  const ev_rank_field *tags = field(f, EV_FROM_ITEM, "tags", false);
  uint32_t row = 0, codes[64];
  float weights[64], values[16];
  while (rows->item[row] != 11) row++;
  ev_row_columns(codes, weights, values, r, &row, 0, 1, 0);
  for (unsigned k = 0; k < EV_SLOTS_MAX; k++) {
    assert_int_equal(codes[tags->slot + k], tags->offset + code_of(s, EV_ITEM, "tags", 't', tag_of(11, k)));
    assert_true(weights[tags->slot + k] == 1.0f / EV_SLOTS_MAX);
  }
  ev_row_reader_free(r);
  ev_fields_free(f);
  ev_rank_rows_free(rows);
  ev_slate_free(slate);
  ev_snapshot_close(s);
}

static void a_token_that_no_row_has_is_nothing(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s, USERS);
  ev_slate *slate = ev_slate_new();
  ev_rank_rows *rows;
  uint32_t items[] = {0, 6, 12}; /* colours c0, c1, c2 */
  float zero[3] = {0};
  assert_int_equal(ev_rank_rows_new(&rows, NULL, 0), EV_OK);
  assert_int_equal(ev_slate_append(slate, items, zero, 3, 0), EV_OK);
  assert_int_equal(ev_rank_rows_add(rows, slate, 0, NULL, 0), EV_OK);
  static const char *const colour[] = {"colour"};
  ev_fields *f;
  ev_row_reader *r;
  assert_int_equal(ev_fields_fit(&f, s, rows, &(ev_fields_options){NULL, colour, 0, 1, true}), EV_OK);
  ev_slate_clear(slate);
  for (uint32_t i = 0; i < ITEMS; i++) assert_int_equal(ev_slate_append(slate, &i, zero, 1, 0), EV_OK);
  for (uint32_t user = 0; user < 2; user++) {
    assert_int_equal(ev_row_reader_of_slate(&r, f, s, slate, user), EV_OK);
    for (uint32_t i = 0; i < ITEMS; i++) {
      uint32_t index[EV_ROW_FEATURES_MAX], codes[3];
      float value[EV_ROW_FEATURES_MAX], weights[3];
      size_t known_user = user == 0, known_item = i % 6 == 0 && i < 13, known_colour = colour_of(i) >= 0 && colour_of(i) < 3;
      assert_int_equal(ev_row_features(index, value, r, i), known_user + known_item + known_colour);
      ev_row_columns(codes, weights, NULL, r, &i, 0, 1, 0);
      assert_true(weights[0] == (float)known_user && weights[1] == (float)known_item && weights[2] == (float)known_colour);
    }
    ev_row_reader_free(r);
  }
  ev_fields_free(f);
  ev_rank_rows_free(rows);
  ev_slate_free(slate);
  ev_snapshot_close(s);
}

static ev_status keep(const ev_fields *f, const char *path) {
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "fields"));
  ev_status status = ev_fields_write(f, w);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

static void fields_come_back_from_a_pack_as_they_went(void **state) {
  (void)state;
  ev_snapshot *s, *larger;
  open_world(&larger, USERS + 1);
  open_world(&s, USERS);
  ev_slate *slate = ev_slate_new();
  ev_rank_rows *rows = rows_of(USERS, slate);
  ev_fields *f, *again;
  ev_row_reader *one, *two;
  ev_pack *p;
  assert_int_equal(ev_fields_fit(&f, s, rows, &with_ids), EV_OK);
  assert_int_equal(keep(f, in_folder("fields")), EV_OK);
  assert_int_equal(ev_pack_open(&p, in_folder("fields")), EV_OK);
  assert_int_equal(ev_fields_read(&again, p), EV_OK);
  ev_pack_close(p); /* nothing is borrowed of it */
  assert_int_equal(ev_fields_n(again), ev_fields_n(f));
  for (size_t i = 0; i < ev_fields_n(f); i++) {
    const ev_rank_field *a = ev_fields_at(f, i), *b = ev_fields_at(again, i);
    assert_string_equal(a->name, b->name);
    assert_true(a->from == b->from && a->type == b->type && a->id == b->id && a->size == b->size && a->offset == b->offset && a->slot == b->slot &&
                a->n_slots == b->n_slots && a->dense == b->dense && a->mean == b->mean && a->std == b->std);
  }
  assert_int_equal(ev_row_reader_of_rows(&one, f, s, rows), EV_OK);
  assert_int_equal(ev_row_reader_of_rows(&two, again, s, rows), EV_OK);
  size_t n = rows->n_rows, n_slots = ev_fields_n_slots(f), n_dense = ev_fields_n_dense(f);
  uint32_t *codes[2] = {malloc(n * n_slots * 4), malloc(n * n_slots * 4)};
  float *weights[2] = {malloc(n * n_slots * 4), malloc(n * n_slots * 4)}, *values[2] = {malloc(n * n_dense * 4), malloc(n * n_dense * 4)};
  ev_row_columns(codes[0], weights[0], values[0], one, NULL, 0, n, 0);
  for (uint32_t i = 0; i < n; i++) /* one by one, by a list */
    ev_row_columns(codes[1] + i * n_slots, weights[1] + i * n_slots, values[1] + i * n_dense, two, &i, 0, 1, 0);
  assert_memory_equal(codes[0], codes[1], n * n_slots * 4);
  assert_memory_equal(weights[0], weights[1], n * n_slots * 4);
  assert_memory_equal(values[0], values[1], n * n_dense * 4);
  ev_row_reader_free(one);
  ev_row_reader_free(two);
  assert_int_equal(ev_row_reader_of_rows(&one, f, larger, rows), EV_EINVAL); /* a user more: another vocabulary of ids */
  for (int k = 0; k < 2; k++) free(codes[k]), free(weights[k]), free(values[k]);
  ev_fields_free(f);
  ev_fields_free(again);
  ev_rank_rows_free(rows);
  ev_slate_free(slate);
  ev_snapshot_close(s);
  ev_snapshot_close(larger);
}

static void rows_and_slates_are_scored_alike_by_any_number_of_threads(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s, USERS);
  ev_slate *slate = ev_slate_new();
  ev_rank_rows *rows = rows_of(USERS, slate);
  for (int more = 0; more < 8; more++) /* enough for several threads */
    for (unsigned u = 0; u < USERS; u++) {
      fill(slate, u);
      assert_int_equal(ev_rank_rows_add(rows, slate, u, NULL, 0), EV_OK);
    }
  ev_ranker_options o = {.n_dims = 3, .epochs = 2, .learning_rate = 0.1f, .user_columns = user_columns, .item_columns = item_columns,
                         .n_user_columns = 2, .n_item_columns = 4, .ids = true, .seed = 5};
  ev_model *m;
  assert_int_equal(ev_fit_ranker(in_folder("m"), s, rows, &o, NULL), EV_OK);
  assert_int_equal(ev_model_open(&m, in_folder("m")), EV_OK);
  float *one = malloc(rows->n_rows * sizeof *one), *four = malloc(rows->n_rows * sizeof *four), of_slate[SLATE];
  ev_threads_set(1);
  assert_int_equal(ev_ranker_score_rows(m, s, rows, one), EV_OK);
  ev_threads_set(4);
  assert_int_equal(ev_ranker_score_rows(m, s, rows, four), EV_OK);
  ev_threads_set(0);
  assert_memory_equal(one, four, rows->n_rows * sizeof *one);
  for (unsigned u = 0; u < USERS; u++) {
    fill(slate, u);
    assert_int_equal(ev_ranker_score(m, s, slate, u, of_slate), EV_OK);
    for (size_t k = 0; k < SLATE; k++) assert_true(fabsf(of_slate[k] - one[u * SLATE + k]) < 1e-5f * (1 + fabsf(one[u * SLATE + k])));
  }
  ev_interrupt();
  assert_int_equal(ev_ranker_score_rows(m, s, rows, one), EV_EINTR);
  ev_interrupt_clear();
  ev_model_close(m);
  free(one);
  free(four);
  ev_rank_rows_free(rows);
  ev_slate_free(slate);
  ev_snapshot_close(s);
}

static ev_status work(const ev_snapshot *s, const ev_rank_rows *rows, ev_slate *slate) {
  ev_fields *f = NULL, *again = NULL;
  ev_row_reader *r = NULL;
  ev_pack *p = NULL;
  ev_status status = ev_fields_fit(&f, s, rows, &with_ids);
  if (status == EV_OK) status = keep(f, in_folder("faulty"));
  if (status == EV_OK) status = ev_pack_open(&p, in_folder("faulty"));
  if (status == EV_OK) status = ev_fields_read(&again, p);
  if (status == EV_OK) status = ev_row_reader_of_slate(&r, again, s, slate, 0);
  ev_row_reader_free(r);
  ev_pack_close(p);
  ev_fields_free(f);
  ev_fields_free(again);
  return status;
}

static void fields_survive_faults(void **state) {
  (void)state;
  ev_snapshot *s;
  open_world(&s, USERS);
  ev_slate *slate = ev_slate_new();
  ev_rank_rows *rows = rows_of(4, slate);
  ASSERT_SURVIVES_FAULTS(work(s, rows, slate), );
  ev_rank_rows_free(rows);
  ev_slate_free(slate);
  ev_snapshot_close(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(both_forms_of_a_row_say_what_the_data_say), cmocka_unit_test(a_long_list_gives_its_first_tokens_to_the_slots),
      cmocka_unit_test(a_token_that_no_row_has_is_nothing), cmocka_unit_test(fields_come_back_from_a_pack_as_they_went),
      cmocka_unit_test(rows_and_slates_are_scored_alike_by_any_number_of_threads), cmocka_unit_test(fields_survive_faults),
  };
  return RUN(tests);
}
