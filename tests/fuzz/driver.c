/* driver.c - runs a fuzz target on damaged copies of its seeds for FUZZ_SECONDS (default 5) with FUZZ_SEED (default 1).
 *
 * Input n depends on the seed and n alone. Before it runs it stands in PROGRAM.input, so that whatever ends the process can be
 * played again: `PROGRAM FILE…` runs the files given. Besides what the sanitizers find, an input fails that takes longer than 20
 * seconds or leaves memory behind. No coverage is asked for: the seeds hold every structure, the damage does the rest. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sanitizer/asan_interface.h>

#include "driver.h"

size_t __sanitizer_get_current_allocated_bytes(void); /* gcc has it, and no header for it */

#define SEEDS_MAX 64
#define PATHS_MAX 32

typedef struct block {
  uint8_t *data;
  size_t len;
} block;

static block seeds[SEEDS_MAX];
static size_t n_seeds;
static char folder[128], *paths[PATHS_MAX];
static size_t n_paths;
static uint64_t seed, number;
static const char *program, *replayed;

/* ---- For targets ---------------------------------------------------------------------------------------*/
void fuzz_seed(const void *data, size_t len) {
  FUZZ_REQUIRE(n_seeds < SEEDS_MAX);
  seeds[n_seeds].data = malloc(len + 1);
  memcpy(seeds[n_seeds].data, data, len);
  seeds[n_seeds++].len = len;
}

const char *fuzz_path(const char *name) {
  FUZZ_REQUIRE(n_paths < PATHS_MAX);
  if (asprintf(&paths[n_paths], "%s/%s", folder, name) < 0) abort();
  return paths[n_paths++];
}

void fuzz_write(const char *path, const void *data, size_t len) { /* in place: truncating to nothing makes file systems flush */
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0 || pwrite(fd, data, len, 0) != (ssize_t)len || ftruncate(fd, (off_t)len) != 0) fuzz_wrong(path, 0, "cannot be written");
  close(fd);
}

/* pack.c: header of 128 bytes with arrays, table offset and file size at 8, 16, 24, checksums at 64 and 120; entries of 96 bytes
 * with type, rows, cols, offset, checksum from 48 on. */
void fuzz_repair_pack(uint8_t *data, size_t len) {
  if (len < 128) return;
  uint64_t *head = (uint64_t *)(void *)data, n = head[1], at = 128;
  if (n <= 4096 && head[3] != len && len >= 128 + 96 * n && (len - 96 * n) % 64 == 0) head[2] = len - 96 * n; /* the table moved */
  head[3] = len;
  uint64_t table = head[2];
  if (table <= len && table % 8 == 0) {
    for (uint64_t i = 0; i < n && i < (len - table) / 96; i++) {
      uint64_t *e = (uint64_t *)(void *)(data + table + 96 * i + 48), bytes;
      if (e[0] > EV_F64 || __builtin_mul_overflow(e[1], e[2], &bytes) || __builtin_mul_overflow(bytes, ev_dtype_size((ev_dtype)e[0]), &bytes)) continue;
      if (e[3] > table || bytes > table - e[3] || e[3] < at) continue;
      memset(data + at, 0, e[3] - at < 4096 ? e[3] - at : 0);
      at = e[3] + bytes;
      e[4] = ev_checksum(data + e[3], bytes);
    }
    if (table >= at && table - at < 64) memset(data + at, 0, table - at);
    head[8] = ev_checksum(data + table, len - table);
  }
  head[15] = ev_checksum(data, 120);
}

void fuzz_fence(const ev_pack *p, bool up) {
  for (size_t i = 0; i < ev_pack_size(p); i++) {
    ev_array a;
    ev_pack_name(p, i, &a);
    const char *end = (const char *)a.data + a.rows * a.cols * ev_dtype_size(a.dtype);
    size_t gap = -(uintptr_t)end % 64;
    if (up) ASAN_POISON_MEMORY_REGION(end, gap);
    else ASAN_UNPOISON_MEMORY_REGION(end, gap);
  }
}

/* ---- Failing -------------------------------------------------------------------------------------------*/
static void tell(void) { /* called when the process is about to die, whatever killed it */
  char line[512];
  int n = replayed != NULL ? snprintf(line, sizeof line, "%s fails on %s\n0 passed, 1 failed\n", program, replayed)
                           : snprintf(line, sizeof line, "input %llu of seed %llu fails; play it again: %s %s.input\n0 passed, 1 failed\n",
                                      (unsigned long long)number, (unsigned long long)seed, program, program);
  for (size_t i = 0; i < n_paths; i++) unlink(paths[i]);
  rmdir(folder);
  if (n > 0 && write(STDOUT_FILENO, line, (size_t)n) < 0) return;
}

const char *__ubsan_default_options(void); /* its own runtime: it must come by way of SIGABRT */
const char *__ubsan_default_options(void) { return "abort_on_error=1:print_stacktrace=1"; }

static void on_signal(int which) {
  static const char slow[] = "more than 20 seconds\n";
  if (which == SIGALRM && write(STDOUT_FILENO, slow, sizeof slow - 1) < 0) _exit(3);
  tell();
  _exit(3);
}

void fuzz_wrong(const char *file, int line, const char *what) {
  fprintf(stderr, "%s:%d: %s (last error: %s)\n", file, line, what, ev_error());
  abort();
}

/* ---- Damage --------------------------------------------------------------------------------------------*/
static const uint64_t values[] = {0, 1, 2, 3, 4, 6, 8, 63, 64, 65, 127, 128, 255, 256, 4096, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF,
                                  0x100000000, 1ull << 60, 1ull << 61, 1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX - 63, UINT64_MAX - 1, UINT64_MAX,
                                  0x7FC00000 /* NaN */, 0x7F800000 /* infinity */, 0x7FF8000000000000, 0x7FF0000000000000, 0x3FF0000000000000};
#define N_VALUES (sizeof values / sizeof *values)

static size_t below(ev_rng *r, size_t n) { return n == 0 ? 0 : ev_rng_below(r, (uint32_t)n); }

static void insert(block *b, size_t cap, size_t at, const void *data, size_t n) { /* data lies elsewhere */
  if (b->len + n > cap) return;
  memmove(b->data + at + n, b->data + at, b->len - at);
  memcpy(b->data + at, data, n);
  b->len += n;
}

static void set_value(block *b, ev_rng *r, size_t width) { /* a telling value, or a step up or down, where a number of this width may lie */
  if (b->len < width) return;
  size_t at = below(r, b->len / width) * width;
  uint64_t old = 0, value = values[below(r, N_VALUES)];
  memcpy(&old, b->data + at, width);
  if (below(r, 3) == 0) value = old + 1 + below(r, 4);
  else if (below(r, 3) == 0) value = old - 1 - below(r, 4);
  memcpy(b->data + at, &value, width);
}

static void damage(block *b, size_t cap, ev_rng *r) {
  static const char marks[] = " \n\t\r,\"{}[]:-+.eE09\\\0\x7F\x80\xC3\xFF";
  bool shaped = fuzz.repair != NULL && below(r, 8) > 0; /* binary inputs mostly keep their places */
  const block *other = &seeds[below(r, n_seeds)];
  uint8_t chunk[256];
  size_t at = below(r, b->len), n = 1 + below(r, below(r, 4) > 0 ? 8 : sizeof chunk), to = below(r, b->len + 1);
  if (shaped && b->len >= 256 && below(r, 3) == 0) at = b->len - 1 - below(r, b->len < 2048 ? b->len : 2048); /* the table lies last */
  switch (below(r, shaped ? 7 : 14)) {
    case 0: if (b->len > 0) b->data[at] ^= (uint8_t)(1u << below(r, 8)); break;
    case 1: if (b->len > 0) b->data[at] = (uint8_t)ev_rng_u64(r); break;
    case 2: set_value(b, r, 1); break;
    case 3: set_value(b, r, 4); break;
    case 4: set_value(b, r, 8); break;
    case 5: /* a piece of another seed over this */
      if (at < other->len) memcpy(b->data + at, other->data + at, n < other->len - at && n < b->len - at ? n : other->len - at < b->len - at ? other->len - at : b->len - at);
      break;
    case 6: /* a piece of itself over another */
      if (to < b->len) memmove(b->data + to, b->data + at, n < b->len - (at > to ? at : to) ? n : b->len - (at > to ? at : to));
      break;
    case 7: b->len = to; break;
    case 8: /* a piece left out */
      if (n > b->len - at) n = b->len - at;
      memmove(b->data + at, b->data + at + n, b->len - at - n);
      b->len -= n;
      break;
    case 9: /* a piece twice */
      if (n > b->len - at) n = b->len - at;
      memcpy(chunk, b->data + at, n);
      insert(b, cap, to, chunk, n);
      break;
    case 10: if (b->len > 0) b->data[at] = (uint8_t)marks[below(r, sizeof marks - 1)]; break;
    case 11: insert(b, cap, to, &marks[below(r, sizeof marks - 1)], 1); break;
    case 12: { /* a word the parser knows */
      size_t count = 0;
      while (fuzz.words != NULL && fuzz.words[count] != NULL) count++;
      const char *word = count > 0 ? fuzz.words[below(r, count)] : "\0\0\0\0\0\0\0\0";
      insert(b, cap, to, word, count > 0 ? strlen(word) : 8);
      break;
    }
    default: { /* the head of this and the tail of another seed */
      size_t from = below(r, other->len + 1);
      if (to + other->len - from > cap) break;
      memcpy(b->data + to, other->data + from, other->len - from);
      b->len = to + other->len - from;
    }
  }
}

/* ---- Running -------------------------------------------------------------------------------------------*/
static void run(const uint8_t *data, size_t len) { /* on a copy of exactly its size */
  void *copy;
  if (posix_memalign(&copy, 64, len > 0 ? len : 1) != 0) abort();
  memcpy(copy, data, len);
  for (int left = 0; left < 4; left++) { /* memory that stays behind once may be kept for the next time; thrice in a row it is lost */
    size_t before = __sanitizer_get_current_allocated_bytes();
    alarm(20);
    fuzz.one(copy, len);
    alarm(0);
    if (__sanitizer_get_current_allocated_bytes() <= before) break;
    if (left == 3) fuzz_wrong(program, 0, "the input leaves memory behind");
  }
  free(copy);
}

static int replay(int n, char **files) {
  for (int i = 0; i < n; i++) {
    ev_buf b = {0};
    replayed = files[i];
    if (ev_file_read(&b, files[i], 1u << 30) != EV_OK) fuzz_wrong(files[i], 0, "cannot be read");
    run((const uint8_t *)(b.data != NULL ? b.data : ""), b.len);
    ev_buf_free(&b);
  }
  printf("%d passed, 0 failed\n", n);
  return 0;
}

static void clean(void) {
  char command[160];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  if (system(command) != 0) fprintf(stderr, "%s is left\n", folder);
  for (size_t i = 0; i < n_seeds; i++) free(seeds[i].data);
  for (size_t i = 0; i < n_paths; i++) free(paths[i]);
}

int main(int argc, char **argv) {
  const char *seconds = getenv("FUZZ_SECONDS"), *wanted = getenv("FUZZ_SEED");
  seed = wanted != NULL ? strtoull(wanted, NULL, 10) : 1;
  program = argv[0];
  bool in_memory = access("/dev/shm", W_OK) == 0; /* what is written is synced: a disk would set the pace */
  snprintf(folder, sizeof folder, "%s/evection-fuzz-XXXXXX", in_memory ? "/dev/shm" : "/tmp");
  if (mkdtemp(folder) == NULL) fuzz_wrong(folder, 0, "cannot be made");
  __sanitizer_set_death_callback(tell);
  signal(SIGABRT, on_signal);
  signal(SIGALRM, on_signal);
  fuzz.seeds();
  FUZZ_REQUIRE(n_seeds > 0);
  if (argc > 1) {
    int status = replay(argc - 1, argv + 1);
    clean();
    return status;
  }
  char input[4096];
  snprintf(input, sizeof input, "%s.input", program);
  size_t largest = 0;
  for (size_t i = 0; i < n_seeds; i++) largest = seeds[i].len > largest ? seeds[i].len : largest;
  size_t cap = 2 * largest + 4096;
  block b = {malloc(cap + 64), 0}, aligned = {(uint8_t *)(((uintptr_t)b.data + 63) / 64 * 64), 0};
  uint64_t end = ev_now_ns() + (uint64_t)(1e9 * (seconds != NULL ? atof(seconds) : 5));
  for (; number < n_seeds || ev_now_ns() < end; number++) {
    ev_rng r;
    ev_rng_seed(&r, seed, number + 1);
    const block *from = &seeds[number < n_seeds ? number : below(&r, n_seeds)];
    memcpy(aligned.data, from->data, from->len);
    aligned.len = from->len;
    size_t times = number < n_seeds ? 0 : 1 + below(&r, below(&r, 3) > 0 ? 3 : 16); /* the first inputs are the seeds as they are */
    for (size_t i = 0; i < times; i++) damage(&aligned, cap, &r);
    if (times > 0 && fuzz.repair != NULL && below(&r, 8) > 0) fuzz.repair(aligned.data, aligned.len);
    fuzz_write(input, aligned.data, aligned.len);
    run(aligned.data, aligned.len);
  }
  free(b.data);
  unlink(input);
  clean();
  printf("%llu inputs from seed %llu\n1 passed, 0 failed\n", (unsigned long long)number, (unsigned long long)seed);
  return 0;
}
