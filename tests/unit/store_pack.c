/* store_pack.c - packs: what was written is read back, damage is refused, forgeries read nothing out of bounds. */
#include <dirent.h>

#include "pack_bytes.h"

static size_t n_files(void) { /* in the test's folder */
  DIR *d = opendir(folder);
  size_t n = 0;
  while (readdir(d) != NULL) n++;
  closedir(d);
  return n - 2;
}

static void what_was_written_is_read_back(void **s) {
  (void)s;
  static const size_t widths[] = {1, 4, 8, 8, 4, 8};
  enum { N = 40 };
  char name[N][48];
  uint8_t *data[N];
  size_t rows[N], cols[N];
  ev_rng r;
  ev_pack_writer *w;
  ev_pack *p;
  ev_array a;
  ev_rng_seed(&r, 3, 0);
  assert_int_equal(ev_pack_writer_open(&w, in_folder("read-back"), "a kind of 31 bytes: it just fits"), EV_EINVAL);
  assert_int_equal(ev_pack_writer_open(&w, in_folder("read-back"), "a kind of 31 bytes: just enough"), EV_OK);
  for (int i = 0; i < N; i++) {
    rows[i] = ev_rng_below(&r, 9) == 0 ? 0 : ev_rng_below(&r, i == 20 ? 90000 : 50);
    cols[i] = i % 4 == 0 ? 1 + ev_rng_below(&r, 7) : 1;
    size_t size = rows[i] * cols[i] * widths[i % 6];
    data[i] = malloc(size + 1);
    for (size_t k = 0; k < size; k++) data[i][k] = (uint8_t)ev_rng_u64(&r);
    snprintf(name[i], sizeof name[i], i == 5 ? "a name of forty-seven bytes, which is the limit" : "array %d", i);
    assert_int_equal(ev_pack_write(w, name[i], (ev_dtype)(i % 6), data[i], rows[i], cols[i]), EV_OK);
  }
  assert_int_equal(ev_pack_write(w, "array 7", EV_U8, "", 1, 1), EV_EEXIST);
  assert_int_equal(ev_pack_write(w, "a name of forty-eight bytes, that is one too many", EV_U8, "", 1, 1), EV_EINVAL);
  assert_int_equal(ev_pack_write(w, "too large", EV_F64, "", SIZE_MAX / 4, 1), EV_ENOMEM);
  assert_int_equal(ev_pack_writer_commit(w), EV_OK);
  assert_int_equal(ev_pack_open(&p, in_folder("read-back")), EV_OK);
  assert_string_equal(ev_pack_kind(p), "a kind of 31 bytes: just enough");
  assert_int_equal(ev_pack_size(p), N);
  for (int i = 0; i < N; i++) {
    ev_array found;
    assert_string_equal(ev_pack_name(p, (size_t)i, &a), name[i]);
    assert_true(a.dtype == (ev_dtype)(i % 6) && a.rows == rows[i] && a.cols == cols[i]);
    assert_int_equal((uintptr_t)a.data % 64, 0);
    assert_int_equal(ev_dtype_size(a.dtype), widths[i % 6]);
    assert_memory_equal(a.data, data[i], rows[i] * cols[i] * widths[i % 6]);
    assert_true(ev_pack_find(p, name[i], &found) && found.data == a.data);
    assert_int_equal(ev_pack_get(p, name[i], (ev_dtype)(i % 6), &a), EV_OK);
    assert_int_equal(ev_pack_get(p, name[i], (ev_dtype)((i + 1) % 6), &a), EV_ECORRUPT);
    free(data[i]);
  }
  assert_false(ev_pack_find(p, "array", &a));
  assert_int_equal(ev_pack_get(p, "array", EV_U8, &a), EV_ECORRUPT);
  assert_non_null(strstr(ev_error(), "'array'"));
  ev_pack_close(p);
  ev_pack_close(NULL);
  assert_int_equal(ev_pack_open(&p, in_folder("absent")), EV_ENOTFOUND);
}

/* ---- Pieces, pages, mapping ----------------------------------------------------------------------------------*/
static void an_array_in_pieces_is_the_same_as_at_once(void **s) {
  (void)s;
  enum { ROWS = 30000, COLS = 3 };
  float *data = malloc(ROWS * COLS * sizeof *data);
  ev_hash hash[2];
  ev_rng r;
  ev_rng_seed(&r, 8, 0);
  for (size_t i = 0; i < ROWS * COLS; i++) data[i] = (float)ev_rng_f64(&r);
  for (int pieces = 0; pieces < 2; pieces++) {
    ev_pack_writer *w;
    ev_pack *p;
    ev_array a;
    assert_int_equal(ev_pack_writer_open(&w, in_folder("pieces"), "pieces"), EV_OK);
    assert_int_equal(ev_pack_write(w, "before", EV_U8, "x", 1, 1), EV_OK);
    if (pieces) {
      assert_int_equal(ev_pack_begin(w, "empty", EV_U32, 5), EV_OK);
      assert_int_equal(ev_pack_end(w), EV_OK);
      assert_int_equal(ev_pack_begin(w, "data", EV_F32, COLS), EV_OK);
      for (size_t at = 0, n; at < ROWS; at += n) {
        n = 1 + ev_rng_below(&r, 900);
        if (n > ROWS - at) n = ROWS - at;
        assert_int_equal(ev_pack_append(w, data + at * COLS, n), EV_OK);
        assert_int_equal(ev_pack_append(w, NULL, 0), EV_OK);
      }
      assert_int_equal(ev_pack_end(w), EV_OK);
    } else {
      assert_int_equal(ev_pack_write(w, "empty", EV_U32, NULL, 0, 5), EV_OK);
      assert_int_equal(ev_pack_write(w, "data", EV_F32, data, ROWS, COLS), EV_OK);
    }
    assert_int_equal(ev_pack_write(w, "after", EV_U8, "y", 1, 1), EV_OK);
    assert_int_equal(ev_pack_writer_commit(w), EV_OK);
    assert_int_equal(ev_pack_open(&p, in_folder("pieces")), EV_OK);
    assert_int_equal(ev_pack_get(p, "data", EV_F32, &a), EV_OK);
    assert_true(a.rows == ROWS && a.cols == COLS);
    assert_memory_equal(a.data, data, ROWS * COLS * sizeof *data);
    ev_pack_hash(p, &hash[pieces]);
    ev_pack_close(p);
  }
  assert_memory_equal(&hash[0], &hash[1], sizeof hash[0]);
  free(data);
}

static void pieces_out_of_turn_are_refused(void **s) {
  (void)s;
  ev_pack_writer *w;
  size_t before = n_files();
  assert_int_equal(ev_pack_writer_open(&w, in_folder("turns"), "turns"), EV_OK);
  assert_int_equal(ev_pack_append(w, "x", 1), EV_EINVAL);
  assert_int_equal(ev_pack_end(w), EV_EINVAL);
  assert_int_equal(ev_pack_begin(w, "one", EV_U8, 1), EV_OK);
  assert_int_equal(ev_pack_begin(w, "two", EV_U8, 1), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "'one'"));
  assert_int_equal(ev_pack_write(w, "two", EV_U8, "x", 1, 1), EV_EINVAL);
  assert_int_equal(ev_pack_append(w, "xyz", 3), EV_OK);
  assert_int_equal(ev_pack_append(w, "x", SIZE_MAX), EV_ENOMEM); /* more than there are numbers for */
  assert_int_equal(ev_pack_end(w), EV_OK);
  assert_int_equal(ev_pack_begin(w, "one", EV_U8, 1), EV_EEXIST);
  assert_int_equal(ev_pack_begin(w, "open", EV_U8, 1), EV_OK);
  assert_int_equal(ev_pack_writer_commit(w), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "'open'"));
  assert_int_equal(n_files(), before);
  assert_int_equal(ev_pack_writer_open(&w, in_folder("turns"), "turns"), EV_OK);
  assert_int_equal(ev_pack_begin(w, "open", EV_U8, 1), EV_OK);
  ev_pack_writer_abort(w);
  assert_int_equal(n_files(), before);
}

static void arrays_of_a_page_or_more_start_on_one(void **s) {
  (void)s;
  static const size_t sizes[] = {1, 4095, 4096, 5, 4097, 64, 100000, 0, 3};
  static uint8_t data[100000];
  ev_pack_writer *w;
  ev_pack *p;
  char name[8];
  assert_int_equal(ev_pack_writer_open(&w, in_folder("pages"), "pages"), EV_OK);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    snprintf(name, sizeof name, "%zu", i);
    memset(data, (int)i, sizeof data);
    assert_int_equal(ev_pack_write(w, name, EV_U8, data, sizes[i], 1), EV_OK);
  }
  assert_int_equal(ev_pack_writer_commit(w), EV_OK);
  assert_int_equal(ev_pack_open(&p, in_folder("pages")), EV_OK);
  ev_buf b = {0};
  assert_int_equal(ev_file_read(&b, in_folder("pages"), 1 << 24), EV_OK);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    ev_array a;
    ev_pack_name(p, i, &a);
    uint64_t at = ev_pack_offset(p, &a);
    assert_int_equal(at % (sizes[i] < 4096 ? 64 : 4096), 0);
    for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(b.data[at + k], i);
  }
  ev_buf_free(&b);
  ev_pack_close(p);
}

static void a_mapped_pack_is_checked_but_for_its_arrays(void **s) {
  (void)s;
  const char *path = in_folder("mapped");
  ev_pack *p;
  ev_array a;
  assert_int_equal(write_small(path, "small", 1), EV_OK);
  assert_int_equal(ev_pack_map(&p, path), EV_OK);
  assert_int_equal(ev_pack_verify(p), EV_OK);
  assert_true(ev_pack_find(p, "letters", &a) && memcmp(a.data, "abcde", 5) == 0);
  uint64_t letters = ev_pack_offset(p, &a);
  ev_pack_close(p);
  bytes b = read_bytes(path);
  size_t passed = 0;
  for (size_t i = 0; i < b.size; i++) {
    b.data[i] ^= 0xFF;
    rewrite(path, b.data, b.size);
    ev_status status = ev_pack_map(&p, path);
    if (status == EV_OK) {
      assert_int_equal(ev_pack_verify(p), EV_ECORRUPT);
      assert_ptr_equal(strstr(ev_error(), path), ev_error());
      passed++;
    } else {
      assert_int_equal(status, EV_ECORRUPT);
      assert_null(p);
    }
    ev_pack_close(p);
    b.data[i] ^= 0xFF;
  }
  assert_int_equal(passed, 3 * 4 + 5 + 4 * 8); /* the arrays' bytes alone */
  for (size_t size = 0; size < b.size; size += 5) {
    rewrite(path, b.data, size);
    assert_int_equal(ev_pack_map(&p, path), EV_ECORRUPT);
  }
  assert_true(letters > 128 && letters < b.size);
  assert_int_equal(ev_pack_map(&p, in_folder("absent")), EV_ENOTFOUND);
  free(b.data);
}

static void a_pack_from_before_arrays_lay_on_pages_is_read(void **s) {
  (void)s;
  enum { N = 3000 };
  float data[N];
  char path[160];
  ev_pack_writer *w;
  ev_pack *p;
  ev_array a;
  snprintf(path, sizeof path, "%s", in_folder("older"));
  for (size_t i = 0; i < N; i++) data[i] = (float)i;
  assert_int_equal(ev_pack_writer_open(&w, path, "older"), EV_OK);
  assert_int_equal(ev_pack_write(w, "data", EV_F32, data, N, 1), EV_OK);
  assert_int_equal(ev_pack_writer_commit(w), EV_OK);
  bytes b = read_bytes(path);
  size_t gap = 4096 - 128, table = *(uint64_t *)(void *)(b.data + 16) - gap; /* the array and the table move up to where they were then */
  memmove(b.data + 128, b.data + 4096, b.size - 4096);
  b.size -= gap;
  *(uint64_t *)(void *)(b.data + 16) = table;
  *(uint64_t *)(void *)(b.data + 24) = b.size;
  *(uint64_t *)(void *)(b.data + table + 72) = 128;
  *(uint64_t *)(void *)(b.data + 64) = ev_checksum(b.data + table, b.size - table);
  *(uint64_t *)(void *)(b.data + 120) = ev_checksum(b.data, 120);
  rewrite(path, b.data, b.size);
  assert_int_equal(ev_pack_open(&p, path), EV_OK);
  assert_int_equal(ev_pack_get(p, "data", EV_F32, &a), EV_OK);
  assert_int_equal(ev_pack_offset(p, &a), 128);
  assert_memory_equal(a.data, data, sizeof data);
  ev_pack_close(p);
  free(b.data);
}

static ev_status write_pieces(const char *path) {
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "pieces"));
  ev_status status = ev_pack_begin(w, "letters", EV_U8, 1);
  for (int i = 0; i < 3 && status == EV_OK; i++) status = ev_pack_append(w, "abc", 3);
  if (status == EV_OK) status = ev_pack_end(w);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

static void pieces_and_mapping_survive_faults(void **s) {
  (void)s;
  ev_pack *p;
  size_t before = n_files();
  ASSERT_SURVIVES_FAULTS(write_pieces(in_folder("faulty-pieces")), );
  assert_int_equal(n_files(), before + 1);
  ASSERT_SURVIVES_FAULTS(ev_pack_map(&p, in_folder("faulty-pieces")), ev_pack_close(p));
}

static void a_pack_holds_4096_arrays_and_no_more(void **s) {
  (void)s;
  ev_pack_writer *w;
  ev_pack *p;
  char name[48];
  assert_int_equal(ev_pack_writer_open(&w, in_folder("many"), "many"), EV_OK);
  for (int i = 0; i < 4096; i++) {
    snprintf(name, sizeof name, "%d", i);
    assert_int_equal(ev_pack_write(w, name, EV_U8, name, i % 3 != 0, 1), EV_OK);
  }
  assert_int_equal(ev_pack_write(w, "one more", EV_U8, name, 1, 1), EV_ELIMIT);
  assert_int_equal(ev_pack_writer_commit(w), EV_OK);
  assert_int_equal(ev_pack_open(&p, in_folder("many")), EV_OK);
  assert_int_equal(ev_pack_size(p), 4096);
  ev_pack_close(p);
  assert_int_equal(ev_pack_writer_open(&w, in_folder("many"), ""), EV_OK); /* and it may hold none */
  assert_int_equal(ev_pack_writer_commit(w), EV_OK);
  assert_int_equal(ev_pack_open(&p, in_folder("many")), EV_OK);
  assert_int_equal(ev_pack_size(p), 0);
  ev_pack_close(p);
}

static ev_hash hash_of(const char *kind, const char *name, ev_dtype dtype, const void *data, size_t rows, size_t cols, const char *path) {
  ev_pack_writer *w;
  ev_pack *p;
  ev_hash h;
  assert_int_equal(ev_pack_writer_open(&w, path, kind), EV_OK);
  assert_int_equal(ev_pack_write(w, "first", EV_U8, "x", 1, 1), EV_OK);
  assert_int_equal(ev_pack_write(w, name, dtype, data, rows, cols), EV_OK);
  assert_int_equal(ev_pack_writer_commit(w), EV_OK);
  assert_int_equal(ev_pack_open(&p, path), EV_OK);
  ev_pack_hash(p, &h);
  ev_pack_close(p);
  return h;
}

static void the_address_is_of_the_content_and_of_nothing_else(void **s) {
  (void)s;
  const uint32_t x[4] = {1, 2, 3, 4}, y[4] = {1, 2, 3, 5};
  const char *path = in_folder("address");
  ev_hash h = hash_of("k", "n", EV_U32, x, 4, 1, path), same = hash_of("k", "n", EV_U32, x, 4, 1, in_folder("elsewhere"));
  assert_memory_equal(&h, &same, sizeof h);
  ev_hash others[] = {hash_of("l", "n", EV_U32, x, 4, 1, path), hash_of("k", "m", EV_U32, x, 4, 1, path), hash_of("k", "n", EV_F32, x, 4, 1, path),
                      hash_of("k", "n", EV_U32, y, 4, 1, path), hash_of("k", "n", EV_U32, x, 2, 2, path), hash_of("k", "n", EV_U32, x, 3, 1, path)};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) assert_memory_not_equal(&h, &others[i], sizeof h);
}

static void every_flipped_byte_and_every_cut_is_refused(void **s) {
  (void)s;
  const char *path = in_folder("small");
  ev_pack *p;
  assert_int_equal(write_small(path, "small", 1), EV_OK);
  bytes b = read_bytes(path);
  assert_int_equal(ev_pack_validate(b.data, b.size, true), EV_OK);
  for (size_t i = 0; i < b.size; i++) {
    for (int bit = 0; bit < 8; bit++) {
      b.data[i] ^= (uint8_t)(1 << bit);
      if (ev_pack_validate(b.data, b.size, true) != EV_ECORRUPT) fail_msg("byte %zu, bit %d: accepted", i, bit);
      b.data[i] ^= (uint8_t)(1 << bit);
    }
    b.data[i] ^= 0xFF;
    rewrite(path, b.data, b.size);
    assert_int_equal(ev_pack_open(&p, path), EV_ECORRUPT);
    assert_null(p);
    assert_ptr_equal(strstr(ev_error(), path), ev_error()); /* the message names the file */
    b.data[i] ^= 0xFF;
  }
  for (size_t size = 0; size < b.size; size++) {
    bytes cut = {malloc(size + 64), size};
    uint8_t *aligned = (uint8_t *)(((uintptr_t)cut.data + 63) / 64 * 64);
    memcpy(aligned, b.data, size);
    assert_int_equal(ev_pack_validate(aligned, size, true), EV_ECORRUPT);
    free(cut.data);
    rewrite(path, b.data, size);
    assert_int_equal(ev_pack_open(&p, path), EV_ECORRUPT);
  }
  uint8_t *longer = calloc(1, b.size + 200);
  memcpy(longer, b.data, b.size);
  for (size_t more = 1; more < 200; more++) assert_int_equal(ev_pack_validate(longer, b.size + more, true), EV_ECORRUPT);
  free(longer);
  free(b.data);
}

static void a_forged_pack_is_refused_although_its_checksums_hold(void **s) {
  (void)s;
  enum { TABLE = 1, HEADER = 0, NAME = 0, DTYPE = 48, ROWS = 56, COLS = 64, OFFSET = 72, RESERVED = 88 };
  static const struct {
    int where;     /* the header, or an entry of the table: 1 is the first */
    size_t at;
    uint64_t value;
    const char *says;
  } forgeries[] = {
      {HEADER, 8, 5, "makes no sense"},           {HEADER, 8, 3, "makes no sense"},           {HEADER, 8, 0, "makes no sense"},
      {HEADER, 8, UINT64_MAX / 96 + 2, "makes no sense"}, {HEADER, 56, UINT64_MAX, NULL /* the kind is not ended: see below */},
      {TABLE, NAME, 0, "no name"},                {TABLE + 3, NAME, 0, "no name"},            {TABLE, DTYPE, 6, "unknown type"},
      {TABLE, DTYPE, UINT64_MAX, "unknown type"}, {TABLE, DTYPE, 1ull << 32, "unknown type"}, {TABLE, DTYPE, 5, "fails its checksum"},
      {TABLE, ROWS, 1000, "does not lie"},        {TABLE, ROWS, UINT64_MAX, "does not lie"},  {TABLE, ROWS, 1ull << 62, "does not lie"},
      {TABLE + 3, COLS, 1ull << 63, "does not lie"}, {TABLE + 3, COLS, 1ull << 60, "does not lie"}, {TABLE, OFFSET, 0, "does not lie"},
      {TABLE, OFFSET, 64, "does not lie"},        {TABLE + 1, OFFSET, 128, "does not lie"},   {TABLE + 1, OFFSET, 200, "does not lie"},
      {TABLE + 3, ROWS, 5, "does not lie"},        {TABLE + 3, OFFSET, 1ull << 63, "does not lie"}, {TABLE + 3, OFFSET, UINT64_MAX - 63, "does not lie"}, {TABLE + 2, RESERVED, 1, "does not lie"},
      {TABLE, ROWS, 1, "fails its checksum"},     {TABLE, ROWS, 0, "fails its checksum"},              {TABLE + 3, ROWS, 1, "fails its checksum"},
      {TABLE, OFFSET, 192, NULL},
  };
  const char *path = in_folder("forged");
  assert_int_equal(write_small(path, "small", 1), EV_OK);
  bytes b = read_bytes(path), whole = read_bytes(path);
  size_t table = *word(b, 16);
  for (size_t i = 0; i < sizeof forgeries / sizeof *forgeries; i++) {
    memcpy(b.data, whole.data, b.size);
    *word(b, forgeries[i].where == HEADER ? forgeries[i].at : table + 96 * (size_t)(forgeries[i].where - 1) + forgeries[i].at) = forgeries[i].value;
    if (forgeries[i].where == HEADER && forgeries[i].at == 56) memset(b.data + 32, 'k', 32);
    seal(b);
    if (ev_pack_validate(b.data, b.size, true) != EV_ECORRUPT) fail_msg("forgery %zu: accepted", i);
    if (forgeries[i].says != NULL && strstr(ev_error(), forgeries[i].says) == NULL) fail_msg("forgery %zu: %s", i, ev_error());
  }
  static const uint64_t offsets[] = {0, 64, 128, 129, 1ull << 40, UINT64_MAX, UINT64_MAX - 63};
  for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) { /* of the table itself: only the header can be sealed */
    memcpy(b.data, whole.data, b.size);
    *word(b, 16) = offsets[i];
    *word(b, 120) = ev_checksum(b.data, 120);
    assert_int_equal(ev_pack_validate(b.data, b.size, true), EV_ECORRUPT);
  }
  memcpy(b.data, whole.data, b.size);
  memset(b.data + table, 'n', 48); /* a name without an end */
  seal(b);
  assert_int_equal(ev_pack_validate(b.data, b.size, true), EV_ECORRUPT);
  memcpy(b.data, whole.data, b.size);
  b.data[128 + 12] = 1; /* in the gap behind three floats */
  seal(b);
  assert_int_equal(ev_pack_validate(b.data, b.size, true), EV_ECORRUPT);
  assert_non_null(strstr(ev_error(), "gap"));
  memcpy(b.data, whole.data, b.size);
  b.data[128] ^= 1;
  assert_int_equal(ev_pack_validate(b.data, b.size, false), EV_OK); /* a shallow look does not read the arrays */
  free(b.data);
  free(whole.data);
}

static void an_aborted_write_leaves_the_old_file(void **s) {
  (void)s;
  const char *path = in_folder("kept");
  ev_pack *p, *old;
  ev_pack_writer *w;
  ev_array a;
  assert_int_equal(write_small(path, "old", 5), EV_OK);
  size_t before = n_files();
  assert_int_equal(ev_pack_writer_open(&w, path, "new"), EV_OK);
  assert_int_equal(ev_pack_write(w, "numbers", EV_F32, &(float){7}, 1, 1), EV_OK);
  assert_int_equal(n_files(), before + 1);
  ev_pack_writer_abort(w);
  ev_pack_writer_abort(NULL);
  assert_int_equal(n_files(), before);
  assert_int_equal(ev_pack_open(&old, path), EV_OK);
  assert_string_equal(ev_pack_kind(old), "old");
  assert_int_equal(write_small(path, "new", 7), EV_OK); /* a rewrite under a reader: he keeps what he has */
  assert_int_equal(n_files(), before);
  assert_int_equal(ev_pack_open(&p, path), EV_OK);
  assert_true(ev_pack_find(old, "numbers", &a) && ((const float *)a.data)[0] == 5);
  assert_true(ev_pack_find(p, "numbers", &a) && ((const float *)a.data)[0] == 7);
  assert_string_equal(ev_pack_path(p), path);
  ev_pack_close(old);
  ev_pack_close(p);
  assert_int_equal(write_small(in_folder("no/such/folder"), "k", 1), EV_ENOTFOUND);
}

static void reading_and_writing_survive_faults(void **s) {
  (void)s;
  const char *path = in_folder("faults");
  ev_pack *p;
  assert_int_equal(write_small(path, "old", 5), EV_OK);
  size_t before = n_files();
  ASSERT_SURVIVES_FAULTS(write_small(path, "new", 7), );
  assert_int_equal(n_files(), before);
  ASSERT_SURVIVES_FAULTS(ev_pack_open(&p, path), ev_pack_close(p));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_was_written_is_read_back), cmocka_unit_test(an_array_in_pieces_is_the_same_as_at_once),
      cmocka_unit_test(pieces_out_of_turn_are_refused), cmocka_unit_test(arrays_of_a_page_or_more_start_on_one),
      cmocka_unit_test(a_mapped_pack_is_checked_but_for_its_arrays), cmocka_unit_test(a_pack_from_before_arrays_lay_on_pages_is_read),
      cmocka_unit_test(pieces_and_mapping_survive_faults), cmocka_unit_test(a_pack_holds_4096_arrays_and_no_more),
      cmocka_unit_test(the_address_is_of_the_content_and_of_nothing_else), cmocka_unit_test(every_flipped_byte_and_every_cut_is_refused),
      cmocka_unit_test(a_forged_pack_is_refused_although_its_checksums_hold), cmocka_unit_test(an_aborted_write_leaves_the_old_file),
      cmocka_unit_test(reading_and_writing_survive_faults),
  };
  return RUN(tests);
}
