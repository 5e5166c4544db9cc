/* core_base.c - errors, memory, buffers, files, text, random numbers, hashes, threads. */
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "support.h"

static void an_error_keeps_its_message_and_status(void **s) {
  (void)s;
  assert_int_equal(ev_fail(EV_ELIMIT, "%s %d", "seven", 7), EV_ELIMIT);
  assert_string_equal(ev_error(), "seven 7");
  ev_fail(EV_EINVAL, "again: %s", ev_error()); /* the old message may be a part of the new */
  assert_string_equal(ev_error(), "again: seven 7");
}

static void sizes_that_overflow_are_refused(void **s) {
  (void)s;
  assert_null(ev_alloc(SIZE_MAX / 2, 4));
  assert_null(ev_resize(NULL, SIZE_MAX / 2, 4));
  void *p = ev_zalloc(3, 5);
  assert_int_equal((uintptr_t)p % 64, 0);
  for (int i = 0; i < 15; i++) assert_int_equal(((char *)p)[i], 0);
  ev_free(p);
}

static ev_status fill_buffer(void) {
  ev_buf b = {0};
  ev_status status = EV_OK;
  for (int i = 0; i < 300 && status == EV_OK; i++) status = ev_buf_printf(&b, "%d,", i);
  ev_buf_free(&b);
  return status;
}

static void buffers_grow_and_survive_faults(void **s) {
  (void)s;
  ev_buf b = {0};
  assert_int_equal(ev_buf_append(&b, "abc", 3), EV_OK);
  assert_int_equal(ev_buf_printf(&b, "%05d", 42), EV_OK);
  assert_string_equal(b.data, "abc00042");
  ev_buf_free(&b);
  ASSERT_SURVIVES_FAULTS(fill_buffer(), );
}

static void a_file_appears_whole_or_not_at_all(void **s) {
  (void)s;
  const char *path = in_folder("whole");
  ev_writer *w;
  char chunk[70000], small[] = "end";
  memset(chunk, 'x', sizeof chunk);
  assert_int_equal(ev_writer_open(&w, path), EV_OK);
  assert_int_equal(ev_writer_write(w, "1234", 4), EV_OK);
  assert_int_equal(ev_writer_write(w, chunk, sizeof chunk), EV_OK);
  assert_int_equal(ev_writer_write(w, small, 3), EV_OK);
  assert_false(ev_file_exists(path));
  assert_int_equal(ev_writer_pwrite(w, "ab", 2, 1), EV_OK);
  assert_int_equal(ev_writer_commit(w), EV_OK);
  ev_buf b = {0};
  assert_int_equal(ev_file_read(&b, path, 1 << 20), EV_OK);
  assert_int_equal(b.len, 4 + sizeof chunk + 3);
  assert_memory_equal(b.data, "1ab4x", 5);
  assert_string_equal(b.data + b.len - 4, "xend");
  ev_buf_clear(&b);
  assert_int_equal(ev_file_read(&b, path, 10), EV_ELIMIT);
  ev_buf_free(&b);
  assert_int_equal(ev_writer_open(&w, path), EV_OK); /* an aborted rewrite leaves the old file */
  assert_int_equal(ev_writer_write(w, "new", 3), EV_OK);
  ev_writer_abort(w);
  ev_map m;
  assert_int_equal(ev_map_open(&m, path), EV_OK);
  assert_int_equal(m.size, 4 + sizeof chunk + 3);
  ev_map_close(&m);
  assert_int_equal(ev_map_open(&m, in_folder("absent")), EV_ENOTFOUND);
  assert_int_equal(ev_map_open(&m, folder), EV_EINVAL);
}

static void a_full_disk_is_an_error_and_leaves_nothing(void **s) {
  (void)s;
  const char *path = in_folder("full");
  pid_t pid = fork();
  if (pid == 0) { /* a size limit stands for the full disk: write() fails in the middle */
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit l = {100000, 100000};
    setrlimit(RLIMIT_FSIZE, &l);
    ev_writer *w;
    static char chunk[300000];
    if (ev_writer_open(&w, path) != EV_OK) _exit(1);
    ev_status status = ev_writer_write(w, chunk, sizeof chunk);
    if (status == EV_OK) status = ev_writer_commit(w);
    else ev_writer_abort(w);
    _exit(status == EV_EIO && strstr(ev_error(), "full") != NULL ? 0 : 2);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(WEXITSTATUS(status), 0);
  assert_false(ev_file_exists(path));
}

static void utf8_is_told_from_other_bytes(void **s) {
  (void)s;
  static const struct {
    const char *text;
    size_t bad;
  } cases[] = {{"plain", 5},          {"grüße, 世界 🙂", 20},  {"\xC0\xAF", 0},         {"a\xE2\x82", 1},   {"\xED\xA0\x80", 0}, {"\xF4\x90\x80\x80", 0},
               {"12345678\xFF", 8},   {"\xF0\x9F\x99\x82", 4}, {"ok\xE2\x82\xAC!", 6},  {"\x80", 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_int_equal(ev_utf8_invalid(cases[i].text, strlen(cases[i].text)), cases[i].bad);
}

static void numbers_are_read_as_strtod_reads_them(void **s) {
  (void)s;
  static const char *const good[] = {"0", "-0.5", "3.14159", "1e10", "123456789012345678", "0.1", "-7.25e-3", "+2", "5.", ".5", "1e-300", "99999999999999.9"};
  static const char *const bad[] = {"", "-", ".", "1x", " 1", "1 ", "nan", "inf", "0x10", "1e", "1e999", "--1"};
  double x;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_true(ev_parse_f64(good[i], strlen(good[i]), &x));
    assert_true(x == strtod(good[i], NULL));
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(ev_parse_f64(bad[i], strlen(bad[i]), &x));
  ev_rng r;
  ev_rng_seed(&r, 5, 0);
  for (int i = 0; i < 20000; i++) {
    char text[64];
    double y = (ev_rng_f64(&r) - 0.5) * pow(10, (int)ev_rng_below(&r, 30) - 12);
    snprintf(text, sizeof text, "%.*g", 1 + (int)ev_rng_below(&r, 17), y);
    assert_true(ev_parse_f64(text, strlen(text), &x));
    assert_true(x == strtod(text, NULL));
  }
  int64_t n;
  assert_true(ev_parse_i64("-9223372036854775808", 20, &n) && n == INT64_MIN);
  assert_true(ev_parse_i64("9223372036854775807", 19, &n) && n == INT64_MAX);
  assert_false(ev_parse_i64("9223372036854775808", 19, &n));
  assert_false(ev_parse_i64("1.5", 3, &n));
}

static void the_generator_gives_the_published_numbers(void **s) {
  (void)s;
  /* splitmix64 of seed 1234567: the reference implementation's first values; they seed the state. */
  ev_rng r;
  ev_rng_seed(&r, 1234567, 0);
  assert_true(r.s[0] == 6457827717110365317u && r.s[1] == 3203168211198807973u && r.s[2] == 9817491932198370423u && r.s[3] == 4593380528125082431u);
  ev_rng x = {{1, 2, 3, 4}}; /* xoshiro256**: from the state 1, 2, 3, 4, worked out from its definition */
  assert_true(ev_rng_u64(&x) == 11520 && ev_rng_u64(&x) == 0 && ev_rng_u64(&x) == 1509978240 && ev_rng_u64(&x) == 1215971899390074240);
}

static void bounded_draws_are_even(void **s) {
  (void)s;
  enum { N = 7, DRAWS = 700000 };
  size_t count[N] = {0};
  ev_rng r;
  ev_rng_seed(&r, 3, 9);
  for (int i = 0; i < DRAWS; i++) count[ev_rng_below(&r, N)]++;
  double chi = 0, expected = (double)DRAWS / N, sum = 0, squares = 0;
  for (int i = 0; i < N; i++) chi += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
  assert_true(chi < 22.46); /* 99.9 % point of chi square with 6 degrees of freedom */
  for (int i = 0; i < DRAWS; i++) {
    double z = ev_rng_normal(&r);
    sum += z;
    squares += z * z;
  }
  assert_true(fabs(sum / DRAWS) < 0.006 && fabs(squares / DRAWS - 1) < 0.01);
}

static void hashes_are_blake2b(void **s) {
  (void)s;
  ev_hash h, parts;
  char hex[65];
  ev_hash_of(&h, "abc", 3);
  ev_hash_hex(hex, &h);
  assert_string_equal(hex, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"); /* BLAKE2b-256("abc") */
  ev_hasher *hasher = ev_hasher_new();
  ev_hasher_add(hasher, "a", 1);
  ev_hasher_add(hasher, "bc", 2);
  ev_hasher_end(hasher, &parts);
  assert_memory_equal(&h, &parts, sizeof h);
}

static void mark(void *ctx, size_t begin, size_t end, int worker) {
  atomic_uchar *hits = ctx;
  assert_true(worker >= 0 && worker < ev_threads());
  for (size_t i = begin; i < end; i++) atomic_fetch_add(&hits[i], 1);
}

static void nested(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  atomic_uchar *hits = ctx;
  for (size_t i = begin; i < end; i++) ev_parallel_for(10, 1, mark, hits + 10 * i);
}

static void loop_once(size_t n, size_t grain) {
  atomic_uchar *hits = ev_zalloc(n + 1, sizeof *hits);
  ev_parallel_for(n, grain, mark, hits);
  for (size_t i = 0; i < n; i++)
    if (atomic_load(&hits[i]) != 1) fail_msg("index %zu was visited %d times", i, atomic_load(&hits[i]));
  ev_free(hits);
}

static void a_parallel_loop_visits_each_index_once(void **s) {
  (void)s;
  for (int threads = 1; threads <= 8; threads++) {
    ev_threads_set(threads);
    for (size_t n = 0; n < 70; n++) loop_once(n, 1 + n % 5);
    loop_once(100000, 7);
  }
  atomic_uchar *hits = ev_zalloc(1000, sizeof *hits);
  ev_parallel_for(100, 3, nested, hits);
  for (int i = 0; i < 1000; i++) assert_int_equal(atomic_load(&hits[i]), 1);
  ev_free(hits);
  pid_t pid = fork(); /* a child has none of the helpers: it must start its own */
  if (pid == 0) {
    loop_once(10000, 3);
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
  ev_threads_set(0);
}

static ev_status sum_in_pieces(const uint8_t *data, size_t n, size_t step, uint64_t *out) {
  ev_summer *sum = ev_summer_new();
  if (sum == NULL) return EV_ENOMEM;
  for (size_t at = 0; at < n; at += step) ev_summer_add(sum, data + at, n - at < step ? n - at : step);
  *out = ev_summer_end(sum);
  return EV_OK;
}

static void a_checksum_in_pieces_is_the_whole_one(void **s) {
  (void)s;
  static const size_t sizes[] = {0, 1, 16, 17, 240, 241, 255, 256, 1024, 1025, 5000};
  uint8_t data[5000];
  uint64_t sum;
  for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 37 + i / 251);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (size_t step = 1; step < 2000; step = step * 3 + 1) {
      assert_int_equal(sum_in_pieces(data, sizes[i], step, &sum), EV_OK);
      assert_true(sum == ev_checksum(data, sizes[i]));
    }
  ASSERT_SURVIVES_FAULTS(sum_in_pieces(data, 100, 10, &sum), );
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_error_keeps_its_message_and_status), cmocka_unit_test(sizes_that_overflow_are_refused),
      cmocka_unit_test(buffers_grow_and_survive_faults), cmocka_unit_test(a_file_appears_whole_or_not_at_all),
      cmocka_unit_test(a_full_disk_is_an_error_and_leaves_nothing), cmocka_unit_test(utf8_is_told_from_other_bytes),
      cmocka_unit_test(numbers_are_read_as_strtod_reads_them), cmocka_unit_test(the_generator_gives_the_published_numbers),
      cmocka_unit_test(bounded_draws_are_even), cmocka_unit_test(hashes_are_blake2b), cmocka_unit_test(a_parallel_loop_visits_each_index_once),
      cmocka_unit_test(a_checksum_in_pieces_is_the_whole_one),
  };
  return RUN(tests);
}
