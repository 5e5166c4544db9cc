/* store_index_file.c - the index in a pack: written, mapped, changed, damaged. */
#include "index_world.h"

static void a_mapped_index_answers_as_the_one_that_was_written(void **s) {
  (void)s;
  enum { QUERIES = 10, K = 10 };
  float *vectors = vectors_of(ROWS, 12), *q = vectors_of(QUERIES, 13), *more = vectors_of(200, 14), a[QUERIES * K], b[QUERIES * K];
  uint32_t rows_a[QUERIES * K], rows_b[QUERIES * K], *keep = malloc(ROWS * sizeof *keep), again[200];
  for (size_t kind = 0; kind < N_OF(kinds); kind++)
    for (size_t metric = 0; metric < N_OF(metrics); metric++)
      for (size_t form = 0; form < N_OF(forms); form++) {
        if (slow() && (kind + metric + form) % 4 != 0) continue;
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
  enum { MOST = 4200, K = 20, MANY = 60 };
  float *vectors = vectors_of(MOST, 15), *q = vectors_of(4, 16), *got = malloc(DIMS * sizeof *got), scores[4 * K];
  uint32_t rows[4 * K];
  size_t opened = 0, rounds = slow() ? 12 : MANY;
  ev_rng r;
  ev_rng_seed(&r, 17, 0);
  for (size_t kind = 0; kind < N_OF(kinds); kind++) {
    char path[160];
    ev_index *x = new_index(kinds[kind], metrics[kind % 3], kind == 0 ? "f32" : "i8", true);
    const uint32_t n = rows_for(kind, MOST);
    put_range(x, vectors, 0, n);
    snprintf(path, sizeof path, "%s", in_folder("damaged"));
    assert_int_equal(write_index(x, path, NULL, 0), EV_OK);
    ev_index_free(x);
    ev_buf b = {0};
    assert_int_equal(ev_file_read(&b, path, 1 << 26), EV_OK);
    uint64_t table, n_arrays;
    memcpy(&n_arrays, b.data + 8, 8);
    memcpy(&table, b.data + 16, 8);
    for (size_t round = 0; round < rounds; round++) {
      char *data = malloc(b.len);
      memcpy(data, b.data, b.len);
      uint64_t e = round % n_arrays, at, n_rows, cols, size; /* one array after another is hit, hard or lightly */
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
        for (uint32_t i = 0; i < n; i += 3) {
          if (ev_index_has(y, i)) assert_int_equal(ev_index_delete(y, &i, 1), EV_OK);
          else assert_int_equal(ev_index_get(y, i, got), EV_ENOTFOUND);
        }
        for (uint32_t i = 0; i < n; i += 2)
          if (!ev_index_has(y, i)) assert_int_equal(ev_index_put(y, &i, vectors + i * DIMS, 1), EV_OK);
        ev_pack_writer *w;
        assert_int_equal(ev_pack_writer_open(&w, in_folder("second"), "index"), EV_OK);
        assert_int_equal(ev_index_write(y, w, NULL, 0), EV_OK);
        ev_pack_writer_abort(w);
      }
      ev_index_free(y);
      ev_pack_close(p);
    }
    ev_buf_free(&b);
  }
  assert_true(opened > rounds / 2);
  free(vectors);
  free(q);
  free(got);
}

static void a_file_replaced_under_its_reader_is_not_mixed_with_the_new_one(void **s) {
  (void)s;
  char path[160];
  float *v = vectors_of(300, 1);
  ev_index *x = new_index("flat", "dot", "f32", false), *y;
  ev_pack *p;
  snprintf(path, sizeof path, "%s", in_folder("replaced"));
  put_range(x, v, 0, 200);
  assert_int_equal(write_index(x, path, NULL, 0), EV_OK);
  assert_int_equal(ev_pack_map(&p, path), EV_OK);
  assert_true(ev_pack_current(p));
  put_range(x, v, 200, 300);
  assert_int_equal(write_index(x, path, NULL, 0), EV_OK);
  assert_false(ev_pack_current(p));
  assert_int_equal(ev_index_map(&y, p, 0), EV_EIO);
  assert_null(y);
  assert_int_equal(unlink(path), 0);
  assert_false(ev_pack_current(p));
  assert_int_equal(ev_index_map(&y, p, 0), EV_ENOTFOUND);
  ev_pack_close(p);
  ev_index_free(x);
  free(v);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_mapped_index_answers_as_the_one_that_was_written),
      cmocka_unit_test(an_index_without_rows_is_written_and_mapped),
      cmocka_unit_test(damaged_bytes_give_wrong_answers_at_worst),
      cmocka_unit_test(a_file_replaced_under_its_reader_is_not_mixed_with_the_new_one),
  };
  return RUN(tests);
}
