/* learn_batches.c - what a step looks at: every pair once an epoch, whole histories, negatives of the distribution asked for,
 * and the same bytes for a step whatever came before it and however many threads fill it. */
#include <math.h>

#include "learn/learn.h"
#include "support.h"

typedef struct world {
  ev_snapshot *s;
  ev_view *v;
} world;

/* Users u have items of a skewed choice, rated and in order of time; item numbers from n_items on have no interaction. */
static void open_world(world *w, unsigned n_users, unsigned n_items, unsigned n_cold) {
  ev_buf b = {0}, items = {0};
  ev_rng r;
  ev_rng_seed(&r, 5, n_users);
  ev_buf_printf(&b, "user,item,rating,time\n");
  ev_buf_printf(&items, "item_id:token\tgenre:token_seq\tyear:float\n");
  for (unsigned u = 0; u < n_users; u++) {
    unsigned time = 0, most = u == 0 ? 1 : u == 1 ? n_items - 1 : 2 + ev_rng_below(&r, 2 * (u % 9) + 3), had = 0;
    for (unsigned i = u == 2 ? n_items - 2 : 0; i < n_items && had < most; i++) { /* the earlier an item, the likelier; user 2 has the last ones */
      if (most < n_items - 1 && u != 2 && ev_rng_below(&r, 1 + i / 2) > 0) continue;
      ev_buf_printf(&b, "u%u,i%u,%u,%u\n", u, i, 1 + ev_rng_below(&r, 5), time++);
      had++;
    }
  }
  for (unsigned i = 0; i < n_items + n_cold; i++) ev_buf_printf(&items, "i%u\t%s\t%s\n", i, i % 3 == 0 ? "a b" : i % 3 == 1 ? "b c d" : "", i % 4 == 0 ? "" : i % 2 == 0 ? "1990" : "2000");
  write_text(in_folder("w.csv"), b.data, b.len);
  write_text(in_folder("w.item"), items.data, items.len);
  ev_buf_free(&b);
  ev_buf_free(&items);
  char csv[96], item[96];
  snprintf(csv, sizeof csv, "%s/w.csv", folder);
  snprintf(item, sizeof item, "%s/w.item", folder);
  const char *files[] = {csv, item};
  ev_import_options o;
  ev_import_defaults(&o);
  o.files = files;
  o.n_files = 2;
  o.split = EV_SPLIT_LEAVE_ONE_OUT;
  if (ev_import(&o, in_folder("world")) != EV_OK || ev_snapshot_open(&w->s, in_folder("world")) != EV_OK) fail_msg("%s", ev_error());
  assert_int_equal(ev_view_new(&w->v, w->s, EV_TRAIN | EV_VALID | EV_TEST), EV_OK);
}

static void close_world(world *w) {
  ev_view_free(w->v);
  ev_snapshot_close(w->s);
}

typedef struct feed { /* batches on a graph of their own */
  ev_graph *g;
  ev_batches *b;
} feed;

typedef ev_status make_fn(ev_batches **out, ev_graph *g, const ev_view *v, const ev_batch_options *o);

static feed open_feed(make_fn *make, const world *w, const ev_batch_options *o) {
  feed f;
  assert_int_equal(ev_graph_new(&f.g, 1, 0), EV_OK);
  if (make(&f.b, f.g, w->v, o) != EV_OK) fail_msg("%s", ev_error());
  return f;
}

static void close_feed(feed *f) {
  ev_batches_free(f->b);
  ev_graph_free(f->g);
}

static ev_tensor input(feed *f, const char *word) {
  ev_tensor t;
  if (ev_batches_input(f->b, word, &t) != EV_OK) fail_msg("%s", ev_error());
  return t;
}
static const uint32_t *ids(feed *f, const char *word) { return ev_graph_ids(f->g, input(f, word), NULL); }
static const float *floats(feed *f, const char *word) { return ev_graph_values(f->g, input(f, word), NULL); }

static size_t fill(feed *f, uint64_t step) {
  size_t n;
  if (ev_batches_fill(f->b, step, &n) != EV_OK) fail_msg("%s", ev_error());
  return n;
}

/* ---- Pairs ---------------------------------------------------------------------------------------------*/
static void an_epoch_has_every_pair_once_and_each_epoch_its_own_order(void **s) {
  (void)s;
  world w;
  open_world(&w, 60, 40, 3);
  const ev_csr *m = &w.v->by_user;
  size_t n_pairs = m->ptr[m->n_rows];
  ev_batch_options o;
  ev_batch_defaults(&o);
  o.n_negatives = 0;
  o.size = 64;
  feed f = open_feed(ev_pairs_new, &w, &o);
  const uint32_t *user = ids(&f, "user"), *item = ids(&f, "item");
  const float *rating = floats(&f, "rating"), *share = floats(&f, "item_log_share"), *log_q = floats(&f, "item_log_q");
  assert_int_equal(ev_batches_rows(f.b), n_pairs);
  assert_int_equal(ev_batches_per_epoch(f.b), (n_pairs + 63) / 64);
  uint32_t *first = ev_alloc(n_pairs, sizeof *first);
  unsigned *count = ev_zalloc(n_pairs, sizeof *count);
  for (uint64_t epoch = 0; epoch < 4; epoch++) {
    size_t at = 0, same = 0, in_place = 0;
    for (uint64_t k = 0; k < ev_batches_per_epoch(f.b); k++) {
      size_t n = fill(&f, epoch * ev_batches_per_epoch(f.b) + k);
      assert_int_equal(n, n_pairs - at < 64 ? n_pairs - at : 64);
      assert_int_equal(ev_graph_live(f.g, ev_graph_shape(f.g, input(&f, "user"))->axis), n);
      for (size_t i = 0; i < n; i++, at++) {
        uint64_t e = m->ptr[user[i]];
        while (e < m->ptr[user[i] + 1] && m->idx[e] != item[i]) e++;
        assert_true(e < m->ptr[user[i] + 1]);
        count[e]++;
        assert_true(rating[i] == m->rating[e]);
        const uint64_t *p = w.v->by_item.ptr + item[i];
        assert_true(fabs(share[i] - log((double)(p[1] - p[0]) / (double)n_pairs)) < 1e-5 && log_q[i] == share[i]);
        if (epoch == 0) first[at] = (uint32_t)e;
        else same += first[at] == e;
        in_place += e == at;
      }
    }
    for (size_t e = 0; e < n_pairs; e++) assert_int_equal(count[e], epoch + 1);
    assert_true(in_place < n_pairs / 8 && same < n_pairs / 8);
  }
  ev_free(first);
  ev_free(count);
  close_feed(&f);
  close_world(&w);
}

/* Every place of the order gets every pair alike: 3000 epochs of the pairs of a small world, by chi-square. */
static void orders_are_even(void **s) {
  (void)s;
  enum { EPOCHS = 3000 };
  world w;
  open_world(&w, 8, 12, 0);
  const ev_csr *m = &w.v->by_user;
  size_t n = m->ptr[m->n_rows];
  ev_batch_options o;
  ev_batch_defaults(&o);
  o.n_negatives = 0;
  o.size = n;
  feed f = open_feed(ev_pairs_new, &w, &o);
  const uint32_t *user = ids(&f, "user"), *item = ids(&f, "item");
  unsigned *count = ev_zalloc(n * n, sizeof *count);
  for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) {
    fill(&f, epoch);
    for (size_t i = 0; i < n; i++) {
      uint64_t e = m->ptr[user[i]];
      while (m->idx[e] != item[i]) e++;
      count[i * n + e]++;
    }
  }
  double x2 = 0, expected = (double)EPOCHS / (double)n, freedom = (double)((n - 1) * (n - 1));
  for (size_t i = 0; i < n * n; i++) x2 += (count[i] - expected) * (count[i] - expected) / expected;
  assert_true(fabs(x2 - freedom) < 6 * sqrt(2 * freedom));
  ev_free(count);
  close_feed(&f);
  close_world(&w);
}

/* ---- Negatives -----------------------------------------------------------------------------------------*/
static void what_a_user_has_is_never_his_negative(void **s) {
  (void)s;
  world w;
  open_world(&w, 40, 25, 2);
  const ev_csr *m = &w.v->by_user;
  for (int which = 0; which < 6; which++) {
    ev_batch_options o;
    ev_batch_defaults(&o);
    o.n_negatives = 7;
    o.size = 50;
    o.seed = (uint64_t)which;
    if (which % 3 == 1) o.sampler = (ev_sampler_options){0, 1, 1, false};
    if (which % 3 == 2) o.sampler = (ev_sampler_options){1, 2, 0.5, true};
    feed f = open_feed(which < 3 ? ev_pairs_new : ev_sequences_new, &w, &o);
    const uint32_t *user = ids(&f, "user"), *negative = ids(&f, "negative"), *sequence = which < 3 ? NULL : ids(&f, "sequence");
    size_t of_full = 0;
    for (uint64_t step = 0; step < 6 * ev_batches_per_epoch(f.b); step++) {
      size_t n = fill(&f, step);
      for (size_t i = 0; i < n; i++) {
        uint32_t u = sequence == NULL ? user[i] : user[sequence[i]];
        for (size_t j = 0; j < 7; j++) {
          assert_true(negative[i * 7 + j] < m->n_cols);
          assert_false(ev_sorted_has(w.v->seen + m->ptr[u], m->ptr[u + 1] - m->ptr[u], negative[i * 7 + j]));
          if (which % 3 != 0) assert_true(negative[i * 7 + j] < 25); /* the others were never chosen by anybody */
        }
        of_full += m->ptr[u + 1] - m->ptr[u] == 24;
      }
    }
    assert_true(of_full > 0); /* one has all but one that anybody has: it is found nevertheless */
    close_feed(&f);
  }
  close_world(&w);
}

static double share_of(const ev_csr *m, uint32_t i, const ev_sampler_options *o) { /* the formula, straight */
  double all = 0, known = 0, sum = o->uniform + o->popularity, n = (double)(m->ptr[i + 1] - m->ptr[i]);
  for (size_t k = 0; k < m->n_rows; k++) {
    double c = (double)(m->ptr[k + 1] - m->ptr[k]);
    if (c > 0) all += pow(c, o->power), known++;
  }
  double q = n > 0 ? o->popularity / sum * pow(n, o->power) / all : 0;
  if (!o->known_only) q += o->uniform / sum / (double)m->n_rows;
  else if (n > 0) q += o->uniform / sum / known;
  return q;
}

static void negatives_are_drawn_as_the_formula_says(void **s) {
  (void)s;
  static const ev_sampler_options samplers[] = {{1, 0, 0.75, false}, {0, 1, 0.75, false}, {0, 1, 0, false}, {0, 3, 1, false}, {1, 1, 0.5, false}, {1, 0, 0, true}, {2, 1, 0.75, true}};
  world w;
  open_world(&w, 60, 40, 5);
  const ev_csr *m = &w.v->by_item;
  size_t n_items = m->n_rows;
  unsigned *count = ev_alloc(n_items, sizeof *count);
  for (size_t which = 0; which < sizeof samplers / sizeof *samplers; which++)
    for (int shared = 0; shared < 2; shared++) {
      ev_batch_options o;
      ev_batch_defaults(&o);
      o.sampler = samplers[which];
      o.n_negatives = shared ? 900 : 20;
      o.shared = shared;
      o.avoid_seen = false;
      o.size = 50;
      feed f = open_feed(ev_pairs_new, &w, &o);
      const uint32_t *negative = ids(&f, "negative"), *item = ids(&f, "item");
      const float *log_q = floats(&f, "negative_log_q"), *item_log_q = floats(&f, "item_log_q");
      double draws = 0, x2 = 0, freedom = -1;
      memset(count, 0, n_items * sizeof *count);
      for (uint64_t step = 0; step < 100; step++) {
        size_t rows = fill(&f, step), n = shared ? 900 : rows * 20;
        for (size_t i = 0; i < n; i++) {
          count[negative[i]]++;
          assert_true(fabs(log_q[i] - log(share_of(m, negative[i], &o.sampler))) < 1e-4);
        }
        for (size_t i = 0; i < rows; i++) assert_true(fabs(item_log_q[i] - log(share_of(m, item[i], &o.sampler))) < 1e-4);
        draws += (double)n;
      }
      for (uint32_t i = 0; i < n_items; i++) {
        double expected = draws * share_of(m, i, &o.sampler);
        if (expected == 0) assert_int_equal(count[i], 0);
        else x2 += (count[i] - expected) * (count[i] - expected) / expected, freedom++;
      }
      if (!(fabs(x2 - freedom) < 5 * sqrt(2 * freedom))) fail_msg("sampler %zu, shared %d: chi-square %g with %g degrees of freedom", which, shared, x2, freedom);
      close_feed(&f);
    }
  ev_free(count);
  close_world(&w);
}

static void ids_are_dropped_in_their_share_and_the_unknown_have_none(void **s) {
  (void)s;
  world w;
  open_world(&w, 60, 40, 5);
  for (int sequences = 0; sequences < 2; sequences++) {
    ev_batch_options o;
    ev_batch_defaults(&o);
    o.n_negatives = 3;
    o.size = 50;
    o.id_dropout = 0.25;
    feed f = open_feed(sequences ? ev_sequences_new : ev_pairs_new, &w, &o);
    const char *words[] = {"user", "item", "negative", "target"}, *known[] = {"user_known", "item_known", "negative_known", "target_known"};
    double dropped[4] = {0}, all[4] = {0}, cold = 0;
    for (uint64_t step = 0; step < 200; step++) {
      size_t rows = fill(&f, step);
      for (int k = 0; k < 3 + sequences; k++) {
        const uint32_t *of = ids(&f, words[k]), *is = ids(&f, known[k]);
        if (step == 0) fill(&f, 0); /* just recorded */
        size_t n = k == 2 ? rows * 3 : rows;
        if (sequences && k == 0) n = ev_graph_live(f.g, ev_graph_shape(f.g, input(&f, "user"))->axis);
        for (size_t i = 0; i < n; i++) {
          assert_true(is[i] == of[i] || is[i] == EV_NONE);
          if (k == 2 && of[i] >= 40) {
            assert_true(is[i] == EV_NONE);
            cold++;
            continue;
          }
          dropped[k] += is[i] == EV_NONE;
          all[k]++;
        }
      }
    }
    assert_true(cold > 0);
    for (int k = 0; k < 3 + sequences; k++) assert_true(fabs(dropped[k] / all[k] - 0.25) < 5 * sqrt(0.25 * 0.75 / all[k]));
    close_feed(&f);
  }
  close_world(&w);
}

/* ---- Sequences -----------------------------------------------------------------------------------------*/
static void an_epoch_has_every_history_once(void **s) {
  (void)s;
  world w;
  open_world(&w, 90, 60, 0);
  const ev_csr *m = &w.v->by_user;
  for (int which = 0; which < 8; which++) {
    ev_batch_options o;
    ev_batch_defaults(&o);
    o.n_negatives = 0;
    o.size = which % 2 == 0 ? 16 : 7;
    o.max_length = which < 4 ? 5 : 200;
    o.from_start = which % 4 < 2;
    o.window = which % 3 == 0;
    feed f = open_feed(ev_sequences_new, &w, &o);
    const uint32_t *item = ids(&f, "item"), *target = ids(&f, "target"), *position = ids(&f, "position"), *sequence = ids(&f, "sequence");
    const uint32_t *length = ids(&f, "length"), *last = ids(&f, "last"), *user = ids(&f, "user");
    unsigned rows_axis = ev_graph_shape(f.g, input(&f, "item"))->axis, axis = ev_graph_shape(f.g, input(&f, "length"))->axis;
    size_t capacity = ev_graph_shape(f.g, input(&f, "item"))->dim[0], total = 0, moved = 0, steps = ev_batches_per_epoch(f.b);
    size_t longest = 0;
    for (size_t u = 0; u < m->n_rows; u++) longest = m->ptr[u + 1] - m->ptr[u] > longest ? m->ptr[u + 1] - m->ptr[u] : longest;
    if (longest > o.max_length) longest = o.max_length;
    assert_true(capacity >= o.max_length && ev_graph_shape(f.g, input(&f, "length"))->dim[0] <= o.size);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
      unsigned *seen = ev_zalloc(m->n_rows, sizeof *seen);
      size_t most = 0, least = SIZE_MAX, in_epoch = 0;
      for (uint64_t k = 0; k < steps; k++) {
        size_t rows = fill(&f, epoch * steps + k), n = ev_graph_live(f.g, axis), at = 0;
        assert_true(rows <= capacity && rows == ev_graph_live(f.g, rows_axis));
        for (size_t q = 0; q < n; q++) {
          const uint32_t *own = m->idx + m->ptr[user[q]];
          size_t all = m->ptr[user[q] + 1] - m->ptr[user[q]], from = 0;
          seen[user[q]]++;
          assert_int_equal(length[q], all - 1 < o.max_length ? all - 1 : o.max_length);
          if (q > 0) assert_true(length[q] <= length[q - 1]);
          while (from + length[q] + 1 < all && own[from] != item[at]) from++;
          moved += from + length[q] + 1 != all;
          if (!o.window) assert_int_equal(from + length[q] + 1, all); /* the last of them */
          for (size_t i = 0; i < length[q]; i++) {
            assert_int_equal(item[at + i], own[from + i]);
            assert_int_equal(target[at + i], own[from + i + 1]);
            assert_int_equal(position[at + i], o.from_start ? i : length[q] - 1 - i);
            assert_int_equal(sequence[at + i], q);
          }
          at += length[q];
          assert_int_equal(last[q], at - 1);
        }
        assert_int_equal(at, rows);
        in_epoch += rows;
        most = rows > most ? rows : most;
        least = rows < least ? rows : least;
      }
      for (size_t u = 0; u < m->n_rows; u++) assert_int_equal(seen[u], m->ptr[u + 1] - m->ptr[u] >= 2);
      assert_int_equal(in_epoch, ev_batches_rows(f.b));
      assert_true(most - least <= 2 * longest); /* dealt out evenly */
      total += in_epoch;
      ev_free(seen);
    }
    assert_int_equal(moved > 0, o.window && o.max_length == 5);
    assert_true(total > 0);
    close_feed(&f);
  }
  close_world(&w);
}

/* ---- Repetition ----------------------------------------------------------------------------------------*/
static const char *const pair_words[] = {"user", "item", "negative", "user_known", "item_known", "negative_known", "item_log_q", "negative_log_q", "item_log_share", "rating"};
static const char *const sequence_words[] = {"item", "target", "position", "negative", "target_log_q", "negative_log_q", "target_log_share", "item_known", "target_known",
                                             "negative_known", "sequence", "length", "last", "user", "user_known"};

static uint64_t sum_of(feed *f, const char *word) { /* of its live bytes */
  ev_tensor t = input(f, word);
  const ev_shape *shape = ev_graph_shape(f->g, t);
  size_t n = shape->axis != 0 ? ev_graph_live(f->g, shape->axis) : shape->dim[0];
  for (unsigned k = 1; k < shape->rank; k++) n *= shape->dim[k];
  const void *data = ev_graph_ids(f->g, t, NULL);
  if (data == NULL) data = ev_graph_values(f->g, t, NULL);
  return ev_checksum(data, n * 4);
}

static void a_step_is_the_same_bytes_in_any_order_by_any_threads_whoever_asks(void **s) {
  (void)s;
  world w;
  open_world(&w, 700, 90, 5);
  for (int which = 0; which < 8; which++) {
    bool sequences = which % 2 == 1;
    const char *const *words = sequences ? sequence_words : pair_words;
    size_t n_words = sequences ? sizeof sequence_words / sizeof *words : sizeof pair_words / sizeof *words, n_steps;
    ev_batch_options o;
    ev_batch_defaults(&o);
    o.n_negatives = 4;
    o.shared = which % 4 >= 2;
    o.id_dropout = which >= 4 ? 0.3 : 0;
    o.window = true;
    o.max_length = 6;
    o.size = sequences ? 200 : 1000;
    o.sampler.popularity = 1;
    ev_threads_set(1);
    feed all = open_feed(sequences ? ev_sequences_new : ev_pairs_new, &w, &o);
    n_steps = 3 * ev_batches_per_epoch(all.b);
    for (size_t k = 0; k < n_words; k++) input(&all, words[k]);
    uint64_t *sums = ev_alloc(n_steps * n_words, sizeof *sums);
    for (uint64_t step = 0; step < n_steps; step++) {
      fill(&all, step);
      for (size_t k = 0; k < n_words; k++) sums[step * n_words + k] = sum_of(&all, words[k]);
    }
    for (int threads = 1; threads <= 5; threads += 2) { /* a feed of its own for each word, steps backwards and about */
      ev_threads_set(threads);
      for (size_t k = 0; k < n_words; k++) {
        feed one = open_feed(sequences ? ev_sequences_new : ev_pairs_new, &w, &o);
        input(&one, words[k]);
        for (size_t i = 0; i < n_steps; i++) {
          size_t step = threads == 1 ? n_steps - 1 - i : i * 7 % n_steps;
          fill(&one, step);
          if (sum_of(&one, words[k]) != sums[step * n_words + k]) fail_msg("%s at step %zu by %d threads", words[k], step, threads);
        }
        close_feed(&one);
      }
    }
    o.seed++; /* and another seed gives others */
    feed other = open_feed(sequences ? ev_sequences_new : ev_pairs_new, &w, &o);
    for (size_t k = 0; k < n_words; k++) input(&other, words[k]);
    fill(&other, 0);
    size_t differ = 0;
    for (size_t k = 0; k < n_words; k++) differ += sum_of(&other, words[k]) != sums[k];
    assert_true(differ >= n_words - 4); /* lengths and what goes with them may be alike */
    close_feed(&other);
    close_feed(&all);
    ev_free(sums);
  }
  ev_threads_set(0);
  close_world(&w);
}

/* ---- Tables --------------------------------------------------------------------------------------------*/
static ev_tensor op(ev_graph *g, const char *name, ev_tensor a, ev_tensor b) {
  ev_tensor in[2] = {a, b}, out;
  if (ev_graph_op(g, &out, name, in, 2, NULL, 0) != EV_OK) fail_msg("%s", ev_error());
  return out;
}

static void tables_are_computed_for_everybody_or_refused(void **s) {
  (void)s;
  world w;
  open_world(&w, 60, 40, 5);
  size_t n_items = w.v->by_item.n_rows, n_users = w.v->by_user.n_rows, d, n;
  ev_batch_options o;
  ev_batch_defaults(&o);
  o.size = 16;
  o.id_dropout = 0.5; /* not here */
  feed f = open_feed(ev_pairs_new, &w, &o);
  ev_tensor item, user, weight, bias;
  assert_int_equal(ev_graph_parameter(f.g, &item, "items", &(ev_shape){.rank = 2, .dim = {n_items, 6}}, EV_INIT_NORMAL, 1, 1), EV_OK);
  assert_int_equal(ev_graph_parameter(f.g, &user, "users", &(ev_shape){.rank = 2, .dim = {n_users, 6}}, EV_INIT_NORMAL, 1, 1), EV_OK);
  assert_int_equal(ev_graph_parameter(f.g, &weight, "weight", &(ev_shape){.rank = 2, .dim = {6, 3}}, EV_INIT_NORMAL, 1, 1), EV_OK);
  assert_int_equal(ev_graph_parameter(f.g, &bias, "bias", &(ev_shape){.rank = 1, .dim = {n_items}}, EV_INIT_NORMAL, 1, 1), EV_OK);
  const float *values = ev_graph_values(f.g, item, &n), *weights = ev_graph_values(f.g, weight, NULL);
  float *table;
  assert_int_equal(ev_batches_table(f.b, f.g, item, EV_ITEM, n_items, &table, &d), EV_OK); /* as it is */
  assert_true(d == 6 && memcmp(table, values, n * sizeof *table) == 0);
  ev_free(table);
  assert_int_equal(ev_batches_table(NULL, f.g, bias, EV_ITEM, n_items, &table, &d), EV_OK);
  assert_true(d == 1 && memcmp(table, ev_graph_values(f.g, bias, NULL), n_items * sizeof *table) == 0);
  ev_free(table);
  ev_tensor whole = op(f.g, "matmul", item, weight), own = op(f.g, "gather", item, input(&f, "item_known"));
  ev_tensor swept = op(f.g, "matmul", op(f.g, "gather", item, input(&f, "item")), weight), crossed = op(f.g, "mul", own, op(f.g, "gather", user, input(&f, "user")));
  for (int k = 0; k < 2; k++) { /* from parameters alone, and batch by batch */
    assert_int_equal(ev_batches_table(f.b, f.g, k == 0 ? whole : swept, EV_ITEM, n_items, &table, &d), EV_OK);
    assert_int_equal(d, 3);
    for (size_t i = 0; i < n_items; i++)
      for (size_t c = 0; c < 3; c++) {
        double sum = 0;
        for (size_t j = 0; j < 6; j++) sum += (double)values[i * 6 + j] * weights[j * 3 + c];
        assert_true(fabs(table[i * 3 + c] - sum) < 1e-4);
      }
    ev_free(table);
  }
  assert_int_equal(ev_batches_table(f.b, f.g, own, EV_ITEM, n_items, &table, &d), EV_OK); /* who is not known has no id */
  for (size_t i = 0; i < n_items; i++)
    for (size_t j = 0; j < 6; j++) assert_true(table[i * 6 + j] == (i < 40 ? values[i * 6 + j] : 0));
  ev_free(table);
  const struct {
    ev_batches *b;
    ev_tensor t;
    ev_side side;
    size_t n;
    const char *why;
  } wrong[] = {{f.b, item, EV_ITEM, n_items + 1, "is no table of"}, {f.b, user, EV_ITEM, n_items, "is no table of"}, {f.b, swept, EV_USER, n_users, "depends on 'batch.item'"},
               {f.b, crossed, EV_ITEM, n_items, "depends on 'batch.user'"}, {NULL, swept, EV_ITEM, n_items, "depends on 'batch.item'"},
               {f.b, input(&f, "item"), EV_ITEM, n_items, "is no table of"}, {f.b, weight, EV_ITEM, n_items, "is no table of"}, {f.b, 1000, EV_ITEM, n_items, "no tensor"},
               {f.b, item, EV_INTERACTION, n_items, "no tensor"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    assert_int_equal(ev_batches_table(wrong[i].b, f.g, wrong[i].t, wrong[i].side, wrong[i].n, &table, &d), EV_EINVAL);
    if (strstr(ev_error(), wrong[i].why) == NULL || table != NULL) fail_msg("case %zu: %s", i, ev_error());
  }
  close_feed(&f);
  close_world(&w);
}

/* ---- Refusals and faults ---------------------------------------------------------------------------------*/
static void senseless_batches_are_refused(void **s) {
  (void)s;
  world w;
  open_world(&w, 30, 20, 0);
  ev_graph *g;
  ev_view *empty;
  ev_batches *b;
  ev_tensor t;
  assert_int_equal(ev_graph_new(&g, 1, 0), EV_OK);
  assert_int_equal(ev_view_new(&empty, w.s, 0), EV_OK);
  ev_batch_options good, o;
  ev_batch_defaults(&good);
  make_fn *makes[] = {ev_pairs_new, ev_sequences_new};
  for (int k = 0; k < 2; k++) {
    o = good;
    o.n_negatives = 0;
    assert_int_equal(makes[k](&b, g, empty, &o), EV_EINVAL);
    assert_null(b);
    o = good, o.id_dropout = 1;
    assert_int_equal(makes[k](&b, g, w.v, &o), EV_EINVAL);
    o = good, o.id_dropout = NAN;
    assert_int_equal(makes[k](&b, g, w.v, &o), EV_EINVAL);
    o = good, o.sampler.uniform = 0;
    assert_int_equal(makes[k](&b, g, w.v, &o), EV_EINVAL);
    o = good, o.sampler.uniform = -1;
    assert_int_equal(makes[k](&b, g, w.v, &o), EV_EINVAL);
    o = good, o.sampler.power = NAN;
    assert_int_equal(makes[k](&b, g, w.v, &o), EV_EINVAL);
    o = good, o.name = "a name that is much too long";
    assert_int_equal(makes[k](&b, g, w.v, &o), EV_EINVAL);
    o = good, o.n_negatives = 1000000;
    assert_int_equal(makes[k](&b, g, w.v, &o), EV_EINVAL);
    o = good, o.max_length = 0;
    if (k == 1) assert_int_equal(makes[k](&b, g, w.v, &o), EV_EINVAL);
    assert_null(b);
    o = good, o.n_negatives = 0;
    assert_int_equal(makes[k](&b, g, w.v, &o), EV_OK);
    assert_int_equal(ev_batches_input(b, "negative", &t), EV_EINVAL); /* none are drawn */
    assert_int_equal(ev_batches_input(b, k == 0 ? "position" : "rating", &t), EV_EINVAL);
    assert_non_null(strstr(ev_error(), k == 0 ? "there are user, item, item_log_q" : "there are item, target, position"));
    ev_batches_free(b);
  }
  ev_batches_free(NULL);
  ev_view_free(empty);
  ev_graph_free(g);
  close_world(&w);
}

static ev_status make_and_fill(make_fn *make, const world *w) {
  static const char *const columns[] = {"genre", "year"};
  ev_graph *g;
  ev_batches *b;
  ev_tensor t, features;
  ev_batch_options o;
  ev_batch_defaults(&o);
  o.sampler.popularity = 1;
  EV_TRY(ev_graph_new(&g, 1, 0));
  ev_status status = make(&b, g, w->v, &o);
  if (status == EV_OK) status = ev_batches_input(b, "negative", &t);
  if (status == EV_OK) status = ev_batches_input(b, "item_known", &t);
  if (status == EV_OK) status = ev_batches_fill(b, 3, NULL);
  if (status == EV_OK) status = ev_graph_features(g, &features, "f", w->s, EV_ITEM, columns, 2);
  ev_batches_free(b);
  ev_graph_free(g);
  return status;
}

static void batches_survive_faults(void **s) {
  (void)s;
  world w;
  open_world(&w, 30, 20, 0);
  ev_threads_set(1);
  ASSERT_SURVIVES_FAULTS(make_and_fill(ev_pairs_new, &w), );
  ASSERT_SURVIVES_FAULTS(make_and_fill(ev_sequences_new, &w), );
  ev_threads_set(0);
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_epoch_has_every_pair_once_and_each_epoch_its_own_order), cmocka_unit_test(orders_are_even),
      cmocka_unit_test(what_a_user_has_is_never_his_negative), cmocka_unit_test(negatives_are_drawn_as_the_formula_says),
      cmocka_unit_test(ids_are_dropped_in_their_share_and_the_unknown_have_none), cmocka_unit_test(an_epoch_has_every_history_once),
      cmocka_unit_test(a_step_is_the_same_bytes_in_any_order_by_any_threads_whoever_asks), cmocka_unit_test(tables_are_computed_for_everybody_or_refused),
      cmocka_unit_test(senseless_batches_are_refused), cmocka_unit_test(batches_survive_faults),
  };
  return RUN(tests);
}
