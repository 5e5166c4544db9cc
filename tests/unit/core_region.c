/* core_region.c - regions: growth in place, files under them, limits, faults. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "support.h"

static uint8_t byte_at(size_t i) { return (uint8_t)(i * 131 + i / 257); }

static void what_was_written_stays_where_it_is_while_a_region_grows(void **s) {
  (void)s;
  ev_region r;
  assert_int_equal(ev_region_open(&r, 64 << 20), EV_OK);
  assert_int_equal(r.size, 0);
  assert_int_equal((uintptr_t)r.base % (2 << 20), 0);
  char *base = r.base;
  size_t filled = 0;
  for (size_t want = 1; want <= r.limit; want = want * 3 + 5) {
    assert_int_equal(ev_region_grow(&r, want), EV_OK);
    assert_true(r.base == base && r.size >= want && r.size <= r.limit);
    for (; filled < r.size; filled++) {
      if (base[filled] != 0) fail_msg("byte %zu is not zero", filled);
      base[filled] = (char)byte_at(filled);
    }
  }
  for (size_t i = 0; i < filled; i++)
    if ((uint8_t)base[i] != byte_at(i)) fail_msg("byte %zu has changed", i);
  size_t before = r.size;
  assert_int_equal(ev_region_grow(&r, 10), EV_OK); /* it never shrinks */
  assert_int_equal(r.size, before);
  ev_region_close(&r);
  assert_null(r.base);
  ev_region_close(&r);
}

static void many_small_steps_are_few_calls_of_the_system(void **s) {
  (void)s;
  ev_region r;
  size_t changes = 0, last = 0;
  assert_int_equal(ev_region_open(&r, 256 << 20), EV_OK);
  for (size_t want = 100; want < r.limit; want += 100) {
    assert_int_equal(ev_region_grow(&r, want), EV_OK);
    changes += r.size != last;
    last = r.size;
  }
  assert_true(changes < 100);
  assert_int_equal(ev_region_grow(&r, r.limit), EV_OK);
  assert_int_equal(r.size, r.limit);
  ev_region_close(&r);
}

static void a_region_ends_at_its_limit(void **s) {
  (void)s;
  ev_region r;
  assert_int_equal(ev_region_open(&r, 100), EV_OK);
  assert_int_equal(ev_region_grow(&r, r.limit + 1), EV_ELIMIT);
  assert_int_equal(r.size, 0);
  assert_int_equal(ev_region_grow(&r, r.limit), EV_OK);
  memset(r.base, 1, r.limit);
  assert_int_equal(ev_region_grow(&r, SIZE_MAX), EV_ELIMIT);
  ev_region_close(&r);
  assert_int_equal(ev_region_open(&r, SIZE_MAX), EV_ENOMEM);
  assert_null(r.base);
  assert_int_equal(ev_region_open(&r, SIZE_MAX / 8), EV_ENOMEM); /* more than there are addresses */
  assert_null(r.base);
  assert_int_equal(ev_region_open(&r, 0), EV_OK);
  assert_int_equal(ev_region_grow(&r, 0), EV_OK);
  ev_region_close(&r);
}

static void thirty_two_gibibytes_may_be_reserved(void **s) {
  (void)s;
  ev_region r;
  assert_int_equal(ev_region_open(&r, (size_t)1 << 35), EV_OK);
  assert_int_equal(ev_region_grow(&r, 1000), EV_OK);
  r.base[999] = 1;
  ev_region_close(&r);
}

static void make_file(const char *path, size_t size) {
  char *data = malloc(size + 1);
  for (size_t i = 0; i < size; i++) data[i] = (char)byte_at(i);
  write_text(path, data, size);
  free(data);
}

/* Sizes around pages, offsets on them; then growth, and writing into what was mapped. */
static void a_mapped_region_has_the_files_bytes_and_grows_beyond_them(void **s) {
  (void)s;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  const size_t sizes[] = {1, page - 1, page, page + 1, 5 * page, 5 * page + 77, (2 << 20) + 3 * page + 5, 4 << 20};
  const char *path = in_folder("mapped");
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (size_t offset = 0; offset <= 2 * page; offset += 2 * page) {
      ev_region r;
      size_t n = sizes[i];
      make_file(path, offset + n + 100); /* what comes after it in the file is not part of it */
      assert_int_equal(ev_region_open(&r, 16 << 20), EV_OK);
      assert_int_equal(ev_region_map(&r, path, offset, n), EV_OK);
      assert_true(r.size >= n);
      for (size_t k = 0; k < n; k++)
        if ((uint8_t)r.base[k] != byte_at(offset + k)) fail_msg("size %zu, offset %zu: byte %zu", n, offset, k);
      assert_int_equal(ev_region_grow(&r, n + 5000000), EV_OK);
      for (size_t k = 0; k < n; k++) assert_true((uint8_t)r.base[k] == byte_at(offset + k));
      for (size_t k = n; k < r.size; k++)
        if (r.base[k] != 0) fail_msg("size %zu: byte %zu behind it is not zero", n, k);
      memset(r.base, 7, r.size);
      ev_buf b = {0};
      assert_int_equal(ev_file_read(&b, path, 1 << 24), EV_OK);
      for (size_t k = 0; k < b.len; k++) assert_true((uint8_t)b.data[k] == byte_at(k)); /* the file is as it was */
      ev_buf_free(&b);
      ev_region_close(&r);
    }
}

static void mapping_what_is_not_there_is_refused(void **s) {
  (void)s;
  ev_region r;
  const char *path = in_folder("short");
  make_file(path, 10000);
  assert_int_equal(ev_region_open(&r, 1 << 20), EV_OK);
  assert_int_equal(ev_region_map(&r, path, 0, 10001), EV_ECORRUPT);
  assert_int_equal(ev_region_map(&r, path, 8192, 1809), EV_ECORRUPT);
  assert_int_equal(ev_region_map(&r, path, (uint64_t)1 << 62, 1), EV_ECORRUPT);
  assert_int_equal(ev_region_map(&r, path, 5, 10), EV_EINVAL);
  assert_int_equal(ev_region_map(&r, path, 0, (size_t)3 << 20), EV_ELIMIT);
  assert_int_equal(ev_region_map(&r, in_folder("absent"), 0, 10), EV_ENOTFOUND);
  assert_int_equal(ev_region_map(&r, path, 0, 0), EV_OK);
  assert_int_equal(r.size, 0);
  assert_int_equal(ev_region_map(&r, path, 4096, 5904), EV_OK);
  assert_int_equal(ev_region_map(&r, path, 0, 10), EV_EINVAL); /* it is in use */
  ev_region_close(&r);
}

typedef struct growing { /* reader and writer of one region */
  ev_region r;
  _Atomic size_t ready;
  atomic_bool wrong;
} growing;

static void *read_along(void *arg) {
  growing *g = arg;
  for (size_t n = 0; n < 8 << 20;) {
    n = atomic_load_explicit(&g->ready, memory_order_acquire);
    for (size_t i = n > 1000 ? n - 1000 : 0; i < n; i++)
      if ((uint8_t)g->r.base[i] != byte_at(i)) atomic_store(&g->wrong, true);
  }
  return NULL;
}

static void a_reader_may_read_while_it_grows(void **s) {
  (void)s;
  growing g = {0};
  pthread_t reader;
  assert_int_equal(ev_region_open(&g.r, 8 << 20), EV_OK);
  assert_int_equal(pthread_create(&reader, NULL, read_along, &g), 0);
  for (size_t n = 0; n < 8 << 20; n += 4096) {
    assert_int_equal(ev_region_grow(&g.r, n + 4096), EV_OK);
    for (size_t i = n; i < n + 4096; i++) g.r.base[i] = (char)byte_at(i);
    atomic_store_explicit(&g.ready, n + 4096, memory_order_release);
  }
  pthread_join(reader, NULL);
  assert_false(atomic_load(&g.wrong));
  ev_region_close(&g.r);
}

static ev_status use(const char *path) {
  ev_region r;
  EV_TRY(ev_region_open(&r, 1 << 20));
  ev_status status = path != NULL ? ev_region_map(&r, path, 0, 9000) : EV_OK;
  if (status == EV_OK) status = ev_region_grow(&r, 20000);
  if (status == EV_OK) status = ev_region_grow(&r, 200000);
  ev_region_close(&r);
  return status;
}

static void regions_survive_faults(void **s) {
  (void)s;
  make_file(in_folder("faults"), 10000);
  ASSERT_SURVIVES_FAULTS(use(NULL), );
  ASSERT_SURVIVES_FAULTS(use(in_folder("faults")), );
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_was_written_stays_where_it_is_while_a_region_grows), cmocka_unit_test(many_small_steps_are_few_calls_of_the_system),
      cmocka_unit_test(a_region_ends_at_its_limit), cmocka_unit_test(thirty_two_gibibytes_may_be_reserved),
      cmocka_unit_test(a_mapped_region_has_the_files_bytes_and_grows_beyond_them), cmocka_unit_test(mapping_what_is_not_there_is_refused),
      cmocka_unit_test(a_reader_may_read_while_it_grows), cmocka_unit_test(regions_survive_faults),
  };
  return RUN(tests);
}
