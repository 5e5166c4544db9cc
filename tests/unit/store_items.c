/* store_items.c - the live table against a naive model: over reopening and compaction, under readers, on failing disks. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "items_model.h"

/* ---- A disk that fails when told to: these stand before the C library's ---------------------------------*/
static atomic_int sync_fails, write_fails, cut_fails;

int fdatasync(int fd) {
  if (atomic_load(&sync_fails) > 0 && atomic_fetch_sub(&sync_fails, 1) == 1) {
    errno = EIO;
    return -1;
  }
  return fd >= 0 ? 0 : -1;
}

int fsync(int fd) { return fd >= 0 ? 0 : -1; } /* nothing here depends on a real disk's pace */

int ftruncate(int fd, off_t size) {
  if (atomic_load(&cut_fails)) {
    errno = EIO;
    return -1;
  }
  return (int)syscall(SYS_ftruncate, fd, size);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t offset) { /* half of it goes, the next says that the disk is full */
  if (atomic_load(&write_fails) == 1) {
    errno = ENOSPC;
    return -1;
  }
  if (atomic_load(&write_fails) == 2) {
    atomic_store(&write_fails, 1);
    return pwrite(fd, v->iov_base, v->iov_len / 2, offset);
  }
  return (ssize_t)syscall(SYS_pwritev, fd, v, n, offset & 0xFFFFFFFF, offset >> 32);
}

/* ---- Help -----------------------------------------------------------------------------------------------*/
static bool model_holds(const model_item *m, int where) {
  switch (where) {
    case 1: return m->year && m->year_value >= 1995;
    case 2: return m->genre && (m->genre_value == 1 || m->genre_value == 4);
    case 3:
      for (int k = 0; k < m->n_tags; k++)
        if (m->tags[k] == 3) return true;
      return false;
    default: return true;
  }
}

/* A flat index in f32 with whole numbers is exact, so the k best are known: by score, then whichever of equals. */
static void check_search(const ev_items *t, const ev_items_reader *reader, const model *m, ev_rng *r) {
  static const char *const wheres[] = {NULL, "year >= 1995", "genre in {\"g1\", \"gärten\"}", "tags == \"t3\""};
  enum { K = 7 };
  float q[MODEL_DIMS], best[MODEL_IDS], scores[K];
  uint32_t rows[K];
  ev_search s = {.k = K};
  int where = (int)ev_rng_below(r, 4);
  size_t n = 0, len;
  (void)t;
  for (size_t i = 0; i < (size_t)where; i++)
    if (ev_items_n_columns(reader) < 3) return; /* a condition on a column that is not there yet is an error */
  for (int k = 0; k < MODEL_DIMS; k++) q[k] = (float)((int)ev_rng_below(r, 9) - 4);
  for (unsigned i = 0; i < MODEL_IDS; i++) {
    const model_item *x = &m->items[i];
    if (!x->there || !x->vector || !model_holds(x, where)) continue;
    float score = 0;
    for (int k = 0; k < MODEL_DIMS; k++) score += q[k] * x->x[k];
    size_t at = n++;
    for (; at > 0 && best[at - 1] < score; at--) best[at] = best[at - 1];
    best[at] = score;
  }
  ev_status status = ev_items_search(reader, q, 1, &s, wheres[where], rows, scores);
  if (status != EV_OK) fail_msg("search: %s", ev_error());
  for (size_t i = 0; i < K; i++) {
    if (i >= n) {
      assert_int_equal(rows[i], EV_NONE);
      continue;
    }
    if (scores[i] != best[i]) fail_msg("place %zu: %g, not %g", i, (double)scores[i], (double)best[i]);
    const char *id = ev_items_id(reader, rows[i], &len);
    unsigned who = (unsigned)atoi(id + 5);
    float score = 0;
    for (int k = 0; k < MODEL_DIMS; k++) score += q[k] * m->items[who].x[k];
    assert_true(m->items[who].there && m->items[who].vector && model_holds(&m->items[who], where) && score == scores[i]);
    for (size_t j = 0; j < i; j++) assert_int_not_equal(rows[i], rows[j]);
  }
}

/* ---- Tests ----------------------------------------------------------------------------------------------*/
static bool slow(void) { return getenv("EVECTION_SLOW") != NULL; } /* under valgrind: less of the same */

static void random_calls(const char *kind, size_t n_dims, uint64_t seed) {
  char name[64];
  snprintf(name, sizeof name, "random-%s-%zu-%d", kind, n_dims, (int)seed);
  const char *path = strdup(in_folder(name));
  ev_items_options o = options(kind, n_dims);
  if (strcmp(kind, "flat") == 0) o.index.form = "f32";
  if (strcmp(kind, "ivf") == 0) o.index.effort = 1000, o.index.form = "f32";
  bool exact = strcmp(kind, "hnsw") != 0;
  ev_items *t = open_items(path, &o);
  model *m = calloc(1, sizeof *m), *held = calloc(1, sizeof *held);
  ev_items_reader old = {0};
  int age = 0;
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  for (int step = 0; step < (slow() ? 200 : 700); step++) {
    uint32_t what = ev_rng_below(&r, 40);
    if (what < 22) {
      if (put_random(t, m, &r, ev_rng_below(&r, 10) == 0 ? 40 : 4, n_dims > 0) != EV_OK) fail_msg("seed %d, step %d: put: %s", (int)seed, step, ev_error());
    } else if (what < 32) {
      if (delete_random(t, m, &r) != EV_OK) fail_msg("seed %d, step %d: delete: %s", (int)seed, step, ev_error());
    } else if (what == 32) {
      if (ev_items_compact(t) != EV_OK) fail_msg("seed %d, step %d: compact: %s", (int)seed, step, ev_error());
    } else if (what == 33 && age == 0) {
      ev_items_close(t);
      o.create = ev_rng_below(&r, 2) == 0;
      t = open_items(path, &o);
    } else if (what < 36 && age == 0) {
      ev_items_begin(&old, t);
      *held = *m;
      age = 1;
    }
    if (age > 0 && age++ > 12) {
      ev_items_end(&old);
      age = 0;
    }
    if (step % 5 == 0 || age > 0) {
      ev_items_reader now;
      unsigned who;
      ev_items_begin(&now, t);
      const char *wrong = model_wrong(&now, m, &who);
      if (wrong != NULL) fail_msg("seed %d, step %d: item %u: %s", (int)seed, step, who, wrong);
      if (n_dims > 0 && exact) check_search(t, &now, m, &r);
      ev_items_end(&now);
    }
    if (age > 0) {
      unsigned who;
      const char *wrong = model_wrong(&old, held, &who);
      if (wrong != NULL) fail_msg("seed %d, step %d: an older reader: item %u: %s", (int)seed, step, who, wrong);
      if (n_dims > 0 && exact) check_search(t, &old, held, &r);
    }
  }
  if (age > 0) ev_items_end(&old);
  ev_items_stats st;
  ev_items_stat(t, &st);
  size_t there = 0, vectors = 0;
  for (unsigned i = 0; i < MODEL_IDS; i++) there += m->items[i].there, vectors += m->items[i].there && m->items[i].vector;
  assert_int_equal(st.n_items, there);
  assert_int_equal(st.n_vectors, vectors);
  assert_true(st.n_rows < 6 * MODEL_IDS); /* rows are used again */
  assert_int_equal(ev_items_verify(t), EV_OK);
  ev_items_close(t);
  free(m);
  free(held);
  free((void *)(uintptr_t)path);
}

static void random_calls_agree_with_a_model(void **s) {
  (void)s;
  for (uint64_t seed = 1; seed <= (slow() ? 1 : 4); seed++) random_calls("flat", MODEL_DIMS, seed);
  random_calls("ivf", MODEL_DIMS, 11);
  random_calls("hnsw", MODEL_DIMS, 12);
  random_calls("hnsw", MODEL_DIMS, 13);
}

static void a_table_without_vectors_agrees_with_a_model(void **s) {
  (void)s;
  random_calls("flat", 0, 5);
  random_calls("flat", 0, 6);
}

static void wrong_items_are_refused_and_named(void **s) {
  (void)s;
  ev_items_options o = options("flat", 2);
  const float x[2] = {1, 2}, nan_x[2] = {1, NAN}, inf_x[2] = {INFINITY, 0}, long_x[2] = {1e30f, 1e30f};
  const char *token = "t", *bad = "\xff", *two[] = {"a", NULL}, *ids[] = {"a", "nobody"}, *same[] = {"a", "a"};
  char *long_token = malloc(65537), long_id[300];
  memset(long_token, 'x', 65536), long_token[65536] = '\0';
  memset(long_id, 'i', 299), long_id[299] = '\0';
  const char *long_tokens[] = {long_token};
  ev_field number = {.name = "n", .type = EV_FLOAT, .number = 1}, nan_field = {.name = "n", .type = EV_FLOAT, .number = NAN},
           huge = {.name = "n", .type = EV_FLOAT, .number = 1e300}, text = {.name = "n", .type = EV_TOKEN, .tokens = &token, .n_tokens = 1},
           unnamed = {.name = "", .type = EV_FLOAT}, long_name = {.name = "a name of forty-eight bytes, that is one too many", .type = EV_FLOAT},
           not_utf8 = {.name = "t", .type = EV_TOKEN, .tokens = &bad, .n_tokens = 1}, null_token = {.name = "l", .type = EV_TOKEN_LIST, .tokens = two, .n_tokens = 2},
           too_long = {.name = "l", .type = EV_TOKEN_LIST, .tokens = long_tokens, .n_tokens = 1}, twice[2] = {number, number}, no_type = {.name = "n", .type = (ev_column_type)9};
  const ev_item items[] = {{"b", nan_x, NULL, 0}, {"b", inf_x, NULL, 0}, {"b", long_x, NULL, 0}, {"", x, NULL, 0}, {long_id, x, NULL, 0}, {"\xc3", x, NULL, 0}, {NULL, x, NULL, 0},
                           {"b", x, &nan_field, 1}, {"b", x, &huge, 1}, {"b", x, &text, 1}, {"b", x, &unnamed, 1}, {"b", x, &long_name, 1}, {"b", x, &not_utf8, 1},
                           {"b", x, &null_token, 1}, {"b", x, &too_long, 1}, {"b", x, twice, 2}, {"b", x, &no_type, 1}};
  static const char *const says[] = {"'b'", "'b'", "'b'", "empty", "255", "UTF-8", "without an id", "nan", "1e+300", "'n'", "1 to 47", "1 to 47", "UTF-8", "no token", "65535", "twice", "type"};
  ev_items *t = open_items(in_folder("wrong"), &o);
  ev_items_stats before, after;
  assert_int_equal(ev_items_put(t, &(ev_item){"a", x, &number, 1}, 1), EV_OK);
  ev_items_stat(t, &before);
  for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
    const ev_item both[2] = {{"good", x, NULL, 0}, items[i]};
    if (ev_items_put(t, both, 2) != EV_EINVAL) fail_msg("wrong item %zu: taken", i);
    if (strstr(ev_error(), says[i]) == NULL) fail_msg("wrong item %zu: %s", i, ev_error());
  }
  const ev_item two_of_one[2] = {{"c", x, NULL, 0}, {"c", NULL, NULL, 0}};
  assert_int_equal(ev_items_put(t, two_of_one, 2), EV_EINVAL);
  assert_non_null(strstr(ev_error(), "'c' is given twice"));
  assert_int_equal(ev_items_delete(t, ids, 2), EV_ENOTFOUND);
  assert_non_null(strstr(ev_error(), "'nobody'"));
  assert_int_equal(ev_items_delete(t, same, 2), EV_EINVAL);
  assert_int_equal(ev_items_put(t, NULL, 0), EV_OK);
  ev_items_stat(t, &after);
  assert_true(after.n_items == 1 && after.log_bytes == before.log_bytes && after.n_commits == 1 && after.n_columns == 1);
  ev_items_close(t);
  o.index.n_dims = 0;
  t = open_items(in_folder("wrong-bare"), &o);
  assert_int_equal(ev_items_put(t, &(ev_item){"a", x, NULL, 0}, 1), EV_EINVAL);
  assert_null(ev_items_index(t));
  ev_items_close(t);
  free(long_token);
}

static void opening_asks_for_what_is_there(void **s) {
  (void)s;
  ev_items_options o = options("flat", 2), none = o, wrong = o, reading = o;
  ev_items *t, *other;
  const float x[2] = {1, 2};
  const char *path = strdup(in_folder("opening"));
  none.create = false;
  reading.read_only = true;
  wrong.index.kind = "tree";
  assert_int_equal(ev_items_open(&t, path, &none), EV_ENOTFOUND);
  assert_int_equal(ev_items_open(&t, path, &reading), EV_ENOTFOUND);
  assert_int_equal(ev_items_open(&t, path, &wrong), EV_EINVAL);
  t = open_items(path, &o);
  assert_int_equal(ev_items_open(&other, path, &o), EV_EEXIST);
  assert_int_equal(ev_items_put(t, &(ev_item){"a", x, NULL, 0}, 1), EV_OK);
  other = open_items(path, &reading);
  assert_int_equal(ev_items_put(t, &(ev_item){"b", x, NULL, 0}, 1), EV_OK);
  ev_items_stats st;
  ev_items_stat(other, &st);
  assert_int_equal(st.n_items, 1); /* as it was then */
  assert_int_equal(ev_items_put(other, &(ev_item){"c", x, NULL, 0}, 1), EV_EINVAL);
  assert_int_equal(ev_items_compact(other), EV_EINVAL);
  ev_items_close(other);
  ev_items_close(t);
  write_text(in_folder("a-file"), "x", 1);
  char below[200];
  snprintf(below, sizeof below, "%s/below", in_folder("a-file"));
  assert_int_equal(ev_items_open(&t, below, &o), EV_EIO);
  assert_non_null(strstr(ev_error(), "a-file"));
  if (geteuid() != 0) { /* root writes everywhere */
    chmod(path, 0555);
    unlink(in_folder("opening/lock"));
    assert_int_equal(ev_items_open(&t, path, &o), EV_EIO);
    other = open_items(path, &reading);
    ev_items_close(other);
    chmod(path, 0755);
  }
  ev_items_close(NULL);
  free((void *)(uintptr_t)path);
}

static void a_full_disk_loses_nothing(void **s) {
  (void)s;
  ev_items_options o = options("flat", MODEL_DIMS);
  const char *path = strdup(in_folder("full"));
  ev_items *t = open_items(path, &o);
  model *m = calloc(1, sizeof *m);
  ev_rng r;
  ev_rng_seed(&r, 21, 0);
  struct rlimit before, small;
  getrlimit(RLIMIT_FSIZE, &before);
  void (*old)(int) = signal(SIGXFSZ, SIG_IGN);
  for (int i = 0; i < 30; i++) assert_int_equal(put_random(t, m, &r, 9, true), EV_OK);
  for (int round = 0; round < 20; round++) {
    ev_items_stats st;
    ev_items_stat(t, &st);
    char log[200];
    struct stat file;
    snprintf(log, sizeof log, "%s/log.%d", path, (int)st.generation);
    assert_int_equal(stat(log, &file), 0);
    small = (struct rlimit){(rlim_t)file.st_size + ev_rng_below(&r, 600), before.rlim_max}; /* the write ends somewhere within a record */
    setrlimit(RLIMIT_FSIZE, &small);
    ev_status status = EV_OK;
    for (int i = 0; i < 20 && status == EV_OK; i++) status = put_random(t, m, &r, 5, true);
    assert_int_equal(status, EV_EIO);
    check(t, m, "on a full disk");
    if (round % 4 == 0) assert_int_equal(ev_items_compact(t), EV_EIO);
    setrlimit(RLIMIT_FSIZE, &before);
    check(t, m, "after a full disk");
    if (round % 3 == 0) {
      ev_items_close(t);
      t = open_items(path, &o);
      check(t, m, "opened again after a full disk");
    }
    if (round % 5 == 1) assert_int_equal(ev_items_compact(t), EV_OK);
    assert_int_equal(put_random(t, m, &r, 5, true), EV_OK);
    assert_int_equal(delete_random(t, m, &r), EV_OK);
    check(t, m, "with room again");
  }
  signal(SIGXFSZ, old);
  ev_items_close(t);
  t = open_items(path, &o);
  check(t, m, "at the end");
  ev_items_close(t);
  free(m);
  free((void *)(uintptr_t)path);
}

static void a_failed_write_is_taken_back(void **s) {
  (void)s;
  ev_items_options o = options("hnsw", MODEL_DIMS);
  const char *path = strdup(in_folder("failed-write"));
  ev_items *t = open_items(path, &o);
  model *m = calloc(1, sizeof *m);
  ev_rng r;
  ev_rng_seed(&r, 22, 0);
  for (int i = 0; i < 120; i++) {
    ev_items_reader reader;
    unsigned who;
    model before = *m;
    ev_items_begin(&reader, t);
    atomic_store(&write_fails, i % 4 == 0 ? 1 + i / 4 % 2 : 0);
    ev_status status = put_random(t, m, &r, 6, true);
    assert_int_equal(status, i % 4 == 0 ? EV_EIO : EV_OK);
    if (i % 4 == 0) assert_non_null(strstr(ev_error(), "No space left"));
    atomic_store(&write_fails, 0);
    check(t, m, "after a failed write");
    assert_null(model_wrong(&reader, &before, &who));
    ev_items_end(&reader);
    if (i % 3 == 0) assert_int_equal(delete_random(t, m, &r), EV_OK);
  }
  ev_items_close(t);
  t = open_items(path, &o);
  check(t, m, "opened again");
  ev_items_close(t);
  free(m);
  free((void *)(uintptr_t)path);
}

static void after_a_failed_sync_nothing_is_written_until_reopened(void **s) {
  (void)s;
  ev_items_options o = options("flat", MODEL_DIMS);
  for (int cut = 0; cut < 2; cut++) { /* whether cutting back works; where it does not, the call is there whole when reopened */
    const char *path = strdup(in_folder(cut == 0 ? "failed-sync" : "failed-cut"));
    ev_items *t = open_items(path, &o);
    model *m = calloc(1, sizeof *m), *tried = calloc(1, sizeof *tried);
    ev_items_stats st;
    ev_rng r;
    ev_rng_seed(&r, 23, 0);
    for (int i = 0; i < 10; i++) assert_int_equal(put_random(t, m, &r, 6, true), EV_OK);
    *tried = *m;
    atomic_store(&sync_fails, 1);
    atomic_store(&cut_fails, cut);
    ev_rng before = r;
    assert_int_equal(put_random(t, m, &r, 6, true), EV_EIO);
    atomic_store(&cut_fails, 0);
    check(t, m, "after a failed sync");
    assert_int_equal(put_random(t, m, &r, 6, true), EV_EIO);
    assert_non_null(strstr(ev_error(), "opened again"));
    assert_int_equal(ev_items_compact(t), EV_EIO);
    ev_items_stat(t, &st);
    assert_non_null(strstr(st.broken, "cannot sync"));
    check(t, m, "refusing");
    ev_items_close(t);
    t = open_items(path, &o);
    if (cut == 1) { /* replay the lost call on the model: it was written whole */
      ev_items *scratch = open_items(in_folder("scratch"), &o);
      assert_int_equal(put_random(scratch, m, &before, 6, true), EV_OK);
      ev_items_close(scratch);
    }
    check(t, m, "opened again");
    assert_int_equal(put_random(t, m, &r, 6, true), EV_OK);
    check(t, m, "writing again");
    ev_items_close(t);
    free(m);
    free(tried);
    free((void *)(uintptr_t)path);
  }
}

static void a_long_log_is_compacted_behind(void **s) {
  (void)s;
  ev_items_options o = options("flat", MODEL_DIMS);
  o.compact_bytes = 20000;
  const char *path = strdup(in_folder("behind"));
  ev_items *t = open_items(path, &o);
  model *m = calloc(1, sizeof *m);
  ev_items_stats st;
  ev_rng r;
  ev_rng_seed(&r, 41, 0);
  for (int i = 0; i < 600; i++) assert_int_equal(put_random(t, m, &r, 6, true), EV_OK);
  check(t, m, "at the end");
  ev_items_close(t); /* waits */
  t = open_items(path, &o);
  ev_items_stat(t, &st);
  assert_true(st.generation > 0 && st.snapshot_bytes > 0 && st.compact_error[0] == '\0');
  check(t, m, "opened again");
  ev_items_close(t);
  free(m);
  free((void *)(uintptr_t)path);
}

/* ---- Faults ---------------------------------------------------------------------------------------------*/
static ev_status search_once(const ev_items *t, const char *where) {
  ev_items_reader r;
  float q[MODEL_DIMS] = {1}, scores[5];
  uint32_t rows[5];
  ev_search s = {.k = 5};
  ev_items_begin(&r, t);
  ev_status status = ev_items_search(&r, q, 1, &s, where, rows, scores);
  ev_items_end(&r);
  return status;
}

static ev_status put_same(ev_items *t, const model *m, model *after, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  *after = *m;
  return put_random(t, after, &r, 12, true);
}

static void every_call_survives_faults(void **s) {
  (void)s;
  ev_items_options o = options("hnsw", MODEL_DIMS);
  const char *path = strdup(in_folder("faults")), *token = "x", *made = strdup(in_folder("faults-new"));
  ev_items *t = NULL;
  model *m = calloc(1, sizeof *m), *after = calloc(1, sizeof *after);
  ASSERT_SURVIVES_FAULTS(ev_items_open(&t, made, &o), ev_items_close(t));
  t = open_items(path, &o);
  for (uint64_t seed = 1; seed < 12; seed++) {
    for (int64_t fault = 0;; fault++) {
      ev_mem_fail_at(fault);
      ev_status status = put_same(t, m, after, seed);
      ev_mem_fail_at(-1);
      if (status == EV_OK) break;
      assert_int_equal(status, EV_ENOMEM);
      check(t, m, "after a fault");
    }
    *m = *after;
    check(t, m, "after faults");
  }
  for (int i = 0; i < 3; i++) { /* a new column each time, which a failed call must not leave */
    char name[16];
    snprintf(name, sizeof name, "new %d", i);
    ev_field f = {.name = name, .type = (ev_column_type)i, .number = 1, .tokens = &token, .n_tokens = 1};
    ev_item item = {"item-0", NULL, &f, 1};
    ASSERT_SURVIVES_FAULTS(ev_items_put(t, &item, 1), );
  }
  m->items[0] = (model_item){.there = true};
  check(t, m, "with more columns");
  ASSERT_SURVIVES_FAULTS(search_once(t, NULL), );
  ASSERT_SURVIVES_FAULTS(search_once(t, "year > 1990 and genre == \"g1\""), );
  ASSERT_SURVIVES_FAULTS(ev_items_compact(t), );
  check(t, m, "compacted");
  ASSERT_SURVIVES_FAULTS(ev_items_verify(t), );
  ev_items_close(t);
  ASSERT_SURVIVES_FAULTS(ev_items_open(&t, path, &o), );
  check(t, m, "opened from a snapshot");
  for (uint64_t seed = 20; seed < 24; seed++) assert_int_equal(put_same(t, m, after, seed), EV_OK), *m = *after;
  ev_items_close(t);
  ASSERT_SURVIVES_FAULTS(ev_items_open(&t, path, &o), );
  check(t, m, "opened from a snapshot and a log");
  ev_items_close(t);
  free(m);
  free(after);
  free((void *)(uintptr_t)path);
  free((void *)(uintptr_t)made);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_calls_agree_with_a_model),
      cmocka_unit_test(a_table_without_vectors_agrees_with_a_model),
      cmocka_unit_test(wrong_items_are_refused_and_named),
      cmocka_unit_test(opening_asks_for_what_is_there),
      cmocka_unit_test(a_full_disk_loses_nothing),
      cmocka_unit_test(a_failed_write_is_taken_back),
      cmocka_unit_test(after_a_failed_sync_nothing_is_written_until_reopened),
      cmocka_unit_test(a_long_log_is_compacted_behind),
      cmocka_unit_test(every_call_survives_faults),
  };
  return RUN(tests);
}
