/* store_items_log.c - damaged folders of a live table: what was acknowledged is there, or opening says which file is wrong and
 * changes nothing; a tail that no write finished is cut. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "items_model.h"

/* These stand before the C library's: no disk sets the pace, unless a slow one is wanted so that calls gather. */
static atomic_int slow_ms;
int fdatasync(int fd) {
  (void)fd;
  if (atomic_load(&slow_ms) > 0) usleep((useconds_t)atomic_load(&slow_ms) * 1000);
  return 0;
}

int fsync(int fd) { return fdatasync(fd); }

enum { HEAD = 256, RECORD = 40 }; /* items_log.c: bytes before the first record, and before a payload */

typedef struct bytes {
  uint8_t *data;
  size_t size;
} bytes;

static bytes read_bytes(const char *dir, const char *name) {
  char path[300];
  ev_buf b = {0};
  snprintf(path, sizeof path, "%s/%s", dir, name);
  if (ev_file_read(&b, path, 1 << 26) != EV_OK) fail_msg("%s", ev_error());
  return (bytes){(uint8_t *)b.data, b.len};
}

static void write_bytes(const char *dir, const char *name, const uint8_t *data, size_t size) { /* in place: truncating to nothing makes file systems flush */
  char path[300];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  int fd = open(path, O_WRONLY | O_CREAT, 0644);
  assert_true(fd >= 0 && pwrite(fd, data, size, 0) == (ssize_t)size && ftruncate(fd, (off_t)size) == 0);
  close(fd);
}

static void assert_unchanged(const char *dir, const char *name, const uint8_t *data, size_t size) {
  bytes b = read_bytes(dir, name);
  if (b.size != size || memcmp(b.data, data, size) != 0) fail_msg("%s was changed", name);
  ev_free(b.data);
}

static bool is_there(const char *dir, const char *name) {
  char path[300];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return ev_file_exists(path);
}

static const char *fresh(const char *name) { /* an empty folder, to be freed */
  const char *path = strdup(in_folder(name));
  assert_int_equal(mkdir(path, 0755), 0);
  return path;
}

/* A folder with one log of `n` calls. @param[out] states (n + 1), ends (n + 1): the model and the log's size after each */
static void make_log(const char *dir, int n, model *states, size_t *ends) {
  ev_items_options o = options("flat", MODEL_DIMS);
  ev_items *t = open_items(dir, &o);
  ev_items_stats st;
  ev_rng r;
  ev_rng_seed(&r, 3, 0);
  memset(&states[0], 0, sizeof states[0]);
  ends[0] = HEAD;
  for (int i = 0; i < n; i++) {
    states[i + 1] = states[i];
    do {
      if (i % 3 == 2) assert_int_equal(delete_random(t, &states[i + 1], &r), EV_OK);
      else assert_int_equal(put_random(t, &states[i + 1], &r, 2, true), EV_OK);
      ev_items_stat(t, &st);
    } while (st.log_bytes == ends[i]); /* nobody to delete was found */
    ends[i + 1] = st.log_bytes;
  }
  ev_items_close(t);
}

enum { CALLS = 9 };

static void a_log_cut_anywhere_holds_all_whole_records(void **s) {
  (void)s;
  model *states = calloc(CALLS + 1, sizeof *states);
  size_t ends[CALLS + 1];
  const char *made = fresh("cut-made"), *dir = fresh("cut");
  make_log(made, CALLS, states, ends);
  bytes log = read_bytes(made, "log.0");
  ev_items_options o = options("flat", MODEL_DIMS), reading = o;
  reading.read_only = true;
  assert_int_equal(log.size, ends[CALLS]);
  for (size_t size = 0; size < log.size; size += getenv("EVECTION_SLOW") != NULL ? 13 : 1) {
    ev_items *t;
    ev_items_stats st;
    write_bytes(dir, "log.0", log.data, size);
    if (size < HEAD) {
      assert_int_equal(ev_items_open(&t, dir, &o), EV_ECORRUPT);
      assert_non_null(strstr(ev_error(), "log.0"));
      assert_unchanged(dir, "log.0", log.data, size);
      continue;
    }
    int whole = 0;
    while (whole < CALLS && ends[whole + 1] <= size) whole++;
    t = open_items(dir, &reading); /* a reader cuts nothing */
    check(t, &states[whole], "read only");
    ev_items_stat(t, &st);
    assert_int_equal(st.cut_bytes, size - ends[whole]);
    ev_items_close(t);
    assert_unchanged(dir, "log.0", log.data, size);
    t = open_items(dir, &o);
    check(t, &states[whole], "cut");
    ev_items_stat(t, &st);
    assert_int_equal(st.cut_bytes, size - ends[whole]);
    assert_int_equal(st.log_bytes, ends[whole]);
    ev_items_close(t);
    assert_unchanged(dir, "log.0", log.data, ends[whole]);
    if (size % 50 != 0) continue;
    model more = states[whole]; /* and it goes on from there */
    ev_rng r;
    ev_rng_seed(&r, size, 0);
    t = open_items(dir, &o);
    assert_int_equal(put_random(t, &more, &r, 5, true), EV_OK);
    ev_items_close(t);
    t = open_items(dir, &o);
    check(t, &more, "going on");
    ev_items_close(t);
  }
  ev_free(log.data);
  free(states);
  free((void *)(uintptr_t)made);
  free((void *)(uintptr_t)dir);
}

static void every_flipped_byte_of_a_log_is_an_error_and_changes_nothing(void **s) {
  (void)s;
  model *states = calloc(CALLS + 1, sizeof *states);
  size_t ends[CALLS + 1];
  const char *made = fresh("flip-made"), *dir = fresh("flip");
  make_log(made, CALLS, states, ends);
  bytes log = read_bytes(made, "log.0");
  ev_items_options o = options("flat", MODEL_DIMS);
  for (size_t i = 0; i < log.size; i += getenv("EVECTION_SLOW") != NULL ? 13 : 1) {
    ev_items *t;
    uint8_t before = log.data[i];
    log.data[i] ^= i % 3 == 0 ? 0xFF : (uint8_t)(1 << i % 8);
    write_bytes(dir, "log.0", log.data, log.size);
    ev_status status = ev_items_open(&t, dir, &o);
    if (status != EV_ECORRUPT) fail_msg("byte %zu: %s", i, ev_status_name(status));
    if (strstr(ev_error(), "/log.0") == NULL || (i >= HEAD && strstr(ev_error(), "offset") == NULL)) fail_msg("byte %zu: %s", i, ev_error());
    assert_unchanged(dir, "log.0", log.data, log.size);
    log.data[i] = before;
  }
  write_bytes(dir, "log.0", log.data, log.size);
  ev_items *t = open_items(dir, &o);
  check(t, &states[CALLS], "as it was");
  ev_items_close(t);
  ev_free(log.data);
  free(states);
  free((void *)(uintptr_t)made);
  free((void *)(uintptr_t)dir);
}

/* A record whose text fills some sectors, so that one of them can be missing. */
static ev_status put_long(ev_items *t, const char *id) {
  char text[3001];
  const char *token = text;
  for (int i = 0; i < 3000; i++) text[i] = (char)('a' + (i * 7 + i / 26) % 26);
  text[3000] = '\0';
  ev_field f = {.name = "text", .type = EV_TOKEN, .tokens = &token, .n_tokens = 1};
  return ev_items_put(t, &(ev_item){id, NULL, &f, 1}, 1);
}

typedef struct putting {
  ev_items *t;
  char id[32];
} putting;

static void *put_one(void *arg) {
  putting *p = arg;
  return put_long(p->t, p->id) == EV_OK ? NULL : p;
}

static uint64_t word(bytes b, size_t at) {
  uint64_t x;
  memcpy(&x, b.data + at, sizeof x);
  return x;
}

static void an_empty_sector_is_a_torn_write_where_nothing_later_was_written(void **s) {
  (void)s;
  enum { THREADS = 5 };
  const char *made = fresh("sector-made"), *dir = fresh("sector");
  ev_items_options o = options("flat", 0);
  ev_items *t = open_items(made, &o);
  putting p[THREADS];
  pthread_t id[THREADS];
  assert_int_equal(put_long(t, "first"), EV_OK);
  atomic_store(&slow_ms, 60); /* the first of them waits for the disk, the others for each other */
  for (int i = 0; i < THREADS; i++) {
    p[i].t = t;
    snprintf(p[i].id, sizeof p[i].id, "thread-%d", i);
    assert_int_equal(pthread_create(&id[i], NULL, put_one, &p[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    void *bad;
    pthread_join(id[i], &bad);
    assert_null(bad);
  }
  atomic_store(&slow_ms, 0);
  ev_items_close(t);
  bytes log = read_bytes(made, "log.0"), damaged = {malloc(log.size), log.size};
  size_t last_base = 0, records = 0, in_last = 0, start[THREADS + 2];
  for (size_t at = HEAD; at < log.size; at += RECORD + word(log, at + 24)) { /* seq at 8, base at 16, length at 24 */
    start[records++] = at;
    in_last = word(log, at + 16) == last_base ? in_last + 1 : 1;
    last_base = word(log, at + 16);
  }
  assert_int_equal(records, THREADS + 1);
  assert_true(in_last > 1); /* a group */
  start[records] = log.size;
  for (size_t k = 0; k < records; k++)
    for (size_t sector = start[k] / 512 * 512; sector < start[k + 1]; sector += 512) { /* as a disk leaves it that wrote others first */
      size_t begin = sector < start[k] ? start[k] : sector, end = sector + 512 < start[k + 1] ? sector + 512 : start[k + 1];
      bool torn = k + in_last >= records && end - begin > RECORD;
      if (end - begin < 64 || (end < sector + 512 && k + 1 < records)) continue; /* the next record begins in it: two are damaged */
      memcpy(damaged.data, log.data, log.size);
      memset(damaged.data + begin, 0, end - begin);
      write_bytes(dir, "log.0", damaged.data, damaged.size);
      ev_status status = ev_items_open(&t, dir, &o);
      if (status != (torn ? EV_OK : EV_ECORRUPT)) fail_msg("record %zu of %zu, sector at %zu: %s %s", k, records, sector, ev_status_name(status), ev_error());
      if (status != EV_OK) {
        assert_unchanged(dir, "log.0", damaged.data, damaged.size);
        continue;
      }
      ev_items_stats st;
      ev_items_stat(t, &st);
      assert_int_equal(st.n_items, k);
      assert_int_equal(st.cut_bytes, log.size - start[k]);
      ev_items_close(t);
    }
  ev_free(log.data);
  free(damaged.data);
  free((void *)(uintptr_t)made);
  free((void *)(uintptr_t)dir);
}

/* A folder with a snapshot and a log after it. */
static void make_both(const char *dir, const char *kind, model *m) {
  ev_items_options o = options(kind, MODEL_DIMS);
  ev_items *t = open_items(dir, &o);
  ev_rng r;
  ev_rng_seed(&r, 5, 0);
  memset(m, 0, sizeof *m);
  for (int i = 0; i < 3; i++) assert_int_equal(put_random(t, m, &r, 3, true), EV_OK);
  assert_int_equal(ev_items_compact(t), EV_OK);
  for (int i = 0; i < 2; i++) assert_int_equal(put_random(t, m, &r, 2, true), EV_OK);
  ev_items_close(t);
}

static void every_flipped_byte_and_every_cut_of_a_snapshot_is_an_error(void **s) {
  (void)s;
  static const char *const kinds[] = {"flat", "hnsw"};
  for (int k = 0; k < 2; k++) {
    model *m = calloc(1, sizeof *m);
    const char *dir = fresh(k == 0 ? "snapshot-flat" : "snapshot-hnsw");
    make_both(dir, kinds[k], m);
    bytes snapshot = read_bytes(dir, "snapshot.1"), log = read_bytes(dir, "log.1");
    ev_items_options o = options(kinds[k], MODEL_DIMS);
    ev_items *t;
    bool slow = getenv("EVECTION_SLOW") != NULL; /* under valgrind */
    size_t zeros = 0; /* before this byte; between the arrays there are thousands, of which some will do */
    for (size_t i = 0; i < snapshot.size; i++) {
      zeros = snapshot.data[i] == 0 ? zeros + 1 : 0;
      if ((zeros > 64 || slow) && i % 97 != 0 && (slow || i + 1 == snapshot.size || snapshot.data[i + 1] == 0)) continue;
      snapshot.data[i] ^= (uint8_t)(1 << i % 8);
      write_bytes(dir, "snapshot.1", snapshot.data, snapshot.size);
      ev_status status = ev_items_open(&t, dir, &o);
      if (status != EV_ECORRUPT || strstr(ev_error(), "/snapshot.1") == NULL) fail_msg("byte %zu: %s: %s", i, ev_status_name(status), ev_error());
      if (i % 16 == 0) assert_unchanged(dir, "snapshot.1", snapshot.data, snapshot.size);
      snapshot.data[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t size = 0; size < snapshot.size; size += 1 + size / 40) {
      write_bytes(dir, "snapshot.1", snapshot.data, size);
      assert_int_equal(ev_items_open(&t, dir, &o), EV_ECORRUPT);
    }
    write_bytes(dir, "snapshot.1", snapshot.data, snapshot.size);
    assert_unchanged(dir, "log.1", log.data, log.size);
    t = open_items(dir, &o);
    check(t, m, "as it was");
    ev_items_close(t);
    ev_free(snapshot.data);
    ev_free(log.data);
    free(m);
    free((void *)(uintptr_t)dir);
  }
}

static void a_crash_anywhere_in_a_compaction_loses_nothing(void **s) {
  (void)s;
  ev_items_options o = options("hnsw", MODEL_DIMS);
  const char *dir = strdup(in_folder("crash-made"));
  model *m = calloc(1, sizeof *m);
  ev_items *t = open_items(dir, &o);
  bytes files[5]; /* of generation 1: snapshot, log; of 2: snapshot, log, and what came after */
  ev_rng r;
  ev_rng_seed(&r, 6, 0);
  for (int i = 0; i < 20; i++) assert_int_equal(put_random(t, m, &r, 5, true), EV_OK);
  assert_int_equal(ev_items_compact(t), EV_OK);
  for (int i = 0; i < 20; i++) assert_int_equal(put_random(t, m, &r, 5, true), EV_OK);
  files[0] = read_bytes(dir, "snapshot.1");
  files[1] = read_bytes(dir, "log.1");
  assert_int_equal(ev_items_compact(t), EV_OK);
  for (int i = 0; i < 5; i++) assert_int_equal(put_random(t, m, &r, 5, true), EV_OK);
  ev_items_close(t);
  files[2] = read_bytes(dir, "snapshot.2");
  files[3] = read_bytes(dir, "log.2");
  static const char *const names[] = {"snapshot.1", "log.1", "snapshot.2", "log.2", "snapshot.2.tmp.77"};
  static const struct {
    const char *about;
    unsigned files; /* bits of names */
    bool opens;
  } crashes[] = {{"the next log is there", 1 | 2 | 8, true},
                 {"the snapshot is being written", 1 | 2 | 8 | 16, true},
                 {"the snapshot is there", 1 | 2 | 4 | 8, true},
                 {"the old snapshot is gone", 2 | 4 | 8, true},
                 {"the old log is gone", 1 | 4 | 8, true},
                 {"all is done", 4 | 8, true},
                 {"the new log is missing", 1 | 2 | 4, false},
                 {"a log in between is missing", 1 | 8, false},
                 {"both logs are missing", 1, false},
                 {"both snapshots are missing", 2 | 8, false}};
  files[4] = (bytes){files[2].data, files[2].size / 2};
  for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) {
    char name[32];
    snprintf(name, sizeof name, "crash-%zu", i);
    const char *at = fresh(name);
    for (int f = 0; f < 5; f++)
      if ((crashes[i].files >> f & 1) != 0) write_bytes(at, names[f], files[f].data, files[f].size);
    ev_status status = ev_items_open(&t, at, &o);
    if (status != (crashes[i].opens ? EV_OK : EV_ECORRUPT)) fail_msg("%s: %s: %s", crashes[i].about, ev_status_name(status), ev_error());
    if (status == EV_OK) {
      check(t, m, crashes[i].about);
      assert_false(is_there(at, names[4])); /* swept */
      assert_true(is_there(at, names[0]) == ((crashes[i].files & 4) == 0));
      assert_int_equal(ev_items_compact(t), EV_OK);
      check(t, m, "compacted again");
      for (int f = 0; f < 5; f++) assert_false(is_there(at, names[f]));
      ev_items_close(t);
      t = open_items(at, &o);
      check(t, m, "opened again");
      ev_items_close(t);
    }
    free((void *)(uintptr_t)at);
  }
  /* A log that another follows ends whole. */
  const char *at = fresh("crash-torn");
  write_bytes(at, names[0], files[0].data, files[0].size);
  write_bytes(at, names[1], files[1].data, files[1].size - 8);
  write_bytes(at, names[3], files[3].data, files[3].size);
  assert_int_equal(ev_items_open(&t, at, &o), EV_ECORRUPT);
  assert_non_null(strstr(ev_error(), "/log.1"));
  assert_unchanged(at, names[1], files[1].data, files[1].size - 8);
  write_bytes(at, names[1], files[3].data, files[3].size); /* a log of another generation */
  assert_int_equal(ev_items_open(&t, at, &o), EV_ECORRUPT);
  assert_non_null(strstr(ev_error(), "generation 2"));
  for (int f = 0; f < 4; f++) ev_free(files[f].data);
  free((void *)(uintptr_t)at);
  free((void *)(uintptr_t)dir);
  free(m);
}

static void damage_is_not_carried_into_a_new_snapshot(void **s) {
  (void)s;
  const char *dir = fresh("launder");
  model *m = calloc(1, sizeof *m);
  make_both(dir, "flat", m);
  ev_items_options o = options("flat", MODEL_DIMS);
  ev_items *t = open_items(dir, &o);
  bytes snapshot = read_bytes(dir, "snapshot.1");
  char path[300];
  snprintf(path, sizeof path, "%s/snapshot.1", dir);
  int fd = open(path, O_WRONLY); /* under the open table: what is mapped and untouched changes with it */
  assert_true(fd >= 0 && pwrite(fd, "\x5A\x5A\x5A", 3, (off_t)snapshot.size / 2) == 3);
  close(fd);
  assert_int_equal(ev_items_verify(t), EV_ECORRUPT);
  assert_int_equal(ev_items_compact(t), EV_ECORRUPT);
  assert_non_null(strstr(ev_error(), "/snapshot.1"));
  assert_false(is_there(dir, "snapshot.2"));
  ev_items_stats st;
  ev_items_stat(t, &st);
  assert_non_null(strstr(st.compact_error, "snapshot.1"));
  ev_items_close(t);
  write_bytes(dir, "snapshot.1", snapshot.data, snapshot.size);
  t = open_items(dir, &o);
  check(t, m, "restored");
  ev_items_close(t);
  ev_free(snapshot.data);
  free(m);
  free((void *)(uintptr_t)dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_log_cut_anywhere_holds_all_whole_records),
      cmocka_unit_test(every_flipped_byte_of_a_log_is_an_error_and_changes_nothing),
      cmocka_unit_test(an_empty_sector_is_a_torn_write_where_nothing_later_was_written),
      cmocka_unit_test(every_flipped_byte_and_every_cut_of_a_snapshot_is_an_error),
      cmocka_unit_test(a_crash_anywhere_in_a_compaction_loses_nothing),
      cmocka_unit_test(damage_is_not_carried_into_a_new_snapshot),
  };
  return RUN(tests);
}
