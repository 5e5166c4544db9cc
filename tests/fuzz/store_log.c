/* store_log.c (fuzz) - damaged logs and snapshots of a live table: refused, or cut, or a table that can be read, searched and
 * written without a step out of bounds. An input is a log or, where it begins as one, a snapshot with an empty log behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"

int fdatasync(int fd) { return fd >= 0 ? 0 : -1; } /* before the C library's: the disk's pace is not what is tested */
int fsync(int fd) { return fd >= 0 ? 0 : -1; }

enum { HEAD = 256, RECORD = 40, DIMS = 3 }; /* items_log.c */

static const char *log_folder, *snapshot_folder, *in_log, *in_snapshot[3];
static ev_buf empty_log[4];

static void seed_file(const char *path) {
  ev_buf b = {0};
  FUZZ_REQUIRE(ev_file_read(&b, path, 1 << 24) == EV_OK);
  fuzz_seed(b.data, b.len);
  ev_buf_free(&b);
}

static void fill(ev_items *t, int round, bool vectors) {
  static const char *const genres[] = {"war", "love", "gärten"};
  for (int i = 0; i < 6; i++) {
    char id[32];
    const float x[DIMS] = {(float)i, (float)round, -1};
    const ev_field fields[3] = {{.name = "year", .type = EV_FLOAT, .number = 1990 + i},
                                {.name = "genre", .type = EV_TOKEN, .tokens = &genres[(i + round) % 3], .n_tokens = 1},
                                {.name = "tags", .type = EV_TOKEN_LIST, .tokens = genres, .n_tokens = (size_t)i % 4}};
    snprintf(id, sizeof id, "item %d", i);
    const ev_item item = {id, vectors && i != 4 ? x : NULL, fields, (size_t)(i + round) % 4};
    FUZZ_REQUIRE(ev_items_put(t, &item, 1) == EV_OK);
  }
  const char *gone = "item 2";
  FUZZ_REQUIRE(ev_items_delete(t, &gone, 1) == EV_OK);
}

static void options(ev_items_options *o, const char *kind) {
  ev_items_defaults(o);
  o->create = true;
  o->index.kind = kind == NULL ? "flat" : kind;
  o->index.n_dims = kind == NULL ? 0 : DIMS;
  o->index.max_rows = 5000;
}

static void make_seeds(void) {
  static const char *const kinds[] = {"flat", "hnsw", NULL, "ivf"};
  log_folder = fuzz_path("log");
  in_log = fuzz_path("log/log.0");
  fuzz_path("log/lock"); /* removed with the rest */
  snapshot_folder = fuzz_path("snapshot");
  in_snapshot[0] = fuzz_path("snapshot/snapshot.1");
  in_snapshot[1] = fuzz_path("snapshot/log.1");
  FUZZ_REQUIRE(mkdir(log_folder, 0755) == 0 && mkdir(snapshot_folder, 0755) == 0);
  for (int k = 0; k < 4; k++) {
    ev_items_options o;
    ev_items *t;
    options(&o, kinds[k]);
    unlink(in_log);
    FUZZ_REQUIRE(ev_items_open(&t, log_folder, &o) == EV_OK);
    fill(t, 0, kinds[k] != NULL);
    fill(t, 1, kinds[k] != NULL);
    seed_file(in_log);
    FUZZ_REQUIRE(ev_items_compact(t) == EV_OK);
    ev_items_close(t);
    char path[4][300];
    snprintf(path[0], sizeof path[0], "%s/snapshot.1", log_folder);
    snprintf(path[1], sizeof path[1], "%s/log.1", log_folder);
    seed_file(path[0]);
    FUZZ_REQUIRE(ev_file_read(&empty_log[k], path[1], 1 << 20) == EV_OK);
    unlink(path[0]);
    unlink(path[1]);
  }
}

static void repair(uint8_t *data, size_t len) {
  uint64_t seq = 0, at = HEAD;
  if (len >= 6 && memcmp(data, "EVPACK", 6) == 0) {
    fuzz_repair_pack(data, len);
    return;
  }
  if (len < HEAD) return;
  uint64_t words[6], sum = ev_checksum(data, HEAD - 8);
  memcpy(data + HEAD - 8, &sum, 8);
  memcpy(&words[0], data + 24, 8); /* the salt */
  memcpy(&words[1], data + 8, 8);  /* the generation */
  memcpy(&seq, data + 16, 8);
  while (at + RECORD <= len) { /* check, seq, base, length, sum */
    uint64_t length;
    memcpy(&length, data + at + 24, 8);
    length &= ~(uint64_t)7;
    if (length > len - at - RECORD) length = (len - at - RECORD) & ~(size_t)7;
    words[2] = seq++;
    words[3] = at;
    words[4] = length;
    words[5] = ev_checksum(data + at + RECORD, length);
    uint64_t check = ev_checksum(words, sizeof words);
    memcpy(data + at, &check, 8);
    memcpy(data + at + 8, words + 2, 32);
    at += RECORD + length;
  }
}

static size_t look_at(const void *data, size_t len) {
  const unsigned char *p = data;
  size_t sum = 0;
  for (size_t i = 0; i < len; i++) sum += p[i];
  return sum;
}

static size_t walk_row(const ev_items_reader *r, uint32_t row, float *vector) {
  size_t len, sum = 0;
  const char *id = ev_items_id(r, row, &len);
  uint32_t found = ev_items_find(r, id, len);
  sum += look_at(id, len) + found;
  if (ev_items_vector(r, row, vector) == EV_OK) sum += look_at(vector, sizeof *vector);
  for (size_t k = 0; k < ev_items_n_columns(r); k++) {
    const ev_column *c = ev_items_column_at(r, k);
    const uint32_t *codes = NULL;
    FUZZ_REQUIRE(row < c->n_rows);
    if (c->type == EV_FLOAT) {
      sum += look_at(&c->values[row], sizeof *c->values);
      continue;
    }
    size_t n = ev_column_tokens(c, row, &codes);
    for (size_t i = 0; i < n; i++) {
      const char *token = ev_column_token(c, codes[i], &len);
      sum += look_at(token, len);
    }
  }
  return sum;
}

static size_t walk(const ev_items *t) {
  ev_items_reader r;
  size_t sum = 0, dims = ev_items_index(t) != NULL ? ev_items_index(t)->n_dims : 0;
  float *q = calloc(dims + 1, sizeof *q), *vector = calloc(dims + 1, sizeof *vector), scores[5];
  uint32_t rows[5];
  ev_search s = {.k = 5};
  for (size_t i = 0; i < dims; i++) q[i] = (float)i - 1;
  ev_items_begin(&r, t);
  for (uint32_t row = ev_items_next(&r, 0); row != EV_NONE; row = ev_items_next(&r, row + 1)) sum += walk_row(&r, row, vector);
  static const char *const wheres[] = {NULL, "year >= 1992 or genre == \"war\"", "tags in {\"love\", \"x\"}"};
  for (int i = 0; i < 3; i++) {
    ev_status status = ev_items_search(&r, q, 1, &s, wheres[i], rows, scores);
    FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL); /* a column is of another type, or not there */
    for (int k = 0; k < 5 && status == EV_OK && rows[k] != EV_NONE; k++) sum += walk_row(&r, rows[k], vector);
  }
  ev_items_end(&r);
  free(q);
  free(vector);
  return sum;
}

static void write_on(ev_items *t) { /* over what is there */
  ev_status status = EV_OK;
  float *x = calloc(65536, sizeof *x);
  const char *token = "war", *gone = "item 1";
  for (int i = 0; i < 4 && status == EV_OK; i++) {
    char id[32];
    const ev_field f = {.name = i % 2 ? "genre" : "tags", .type = i % 2 ? EV_TOKEN : EV_TOKEN_LIST, .tokens = &token, .n_tokens = 1};
    snprintf(id, sizeof id, "item %d", i);
    const ev_item item = {id, ev_items_index(t) != NULL ? x : NULL, &f, 1};
    status = ev_items_put(t, &item, 1);
    FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL || status == EV_ELIMIT); /* the field is of another type; no room */
  }
  status = ev_items_delete(t, &gone, 1);
  FUZZ_REQUIRE(status == EV_OK || status == EV_ENOTFOUND);
  free(x);
}

static void one(const uint8_t *data, size_t len) {
  volatile size_t sum = 0;
  bool snapshot = len >= 6 && memcmp(data, "EVPACK", 6) == 0;
  const char *folder = snapshot ? snapshot_folder : log_folder;
  ev_items_options o;
  ev_items *t;
  options(&o, "flat");
  o.create = false;
  for (int turn = 0; turn < (snapshot ? 4 : 1); turn++) { /* which of the empty logs fits it */
    fuzz_write(snapshot ? in_snapshot[0] : in_log, data, len);
    if (snapshot) fuzz_write(in_snapshot[1], empty_log[turn].data, empty_log[turn].len);
    o.read_only = true;
    ev_status read_status = ev_items_open(&t, folder, &o);
    if (read_status == EV_OK) sum = sum + walk(t);
    if (read_status == EV_OK) ev_items_close(t);
    o.read_only = false;
    ev_status status = ev_items_open(&t, folder, &o);
    FUZZ_REQUIRE(status == read_status);
    FUZZ_REQUIRE(status == EV_OK || status == EV_ECORRUPT || status == EV_ENOMEM || status == EV_ELIMIT);
    if (status != EV_OK) continue;
    ev_items_stats st;
    ev_items_stat(t, &st);
    FUZZ_REQUIRE(st.n_vectors <= st.n_items && st.n_items <= st.n_rows);
    write_on(t);
    sum = sum + walk(t);
    ev_items_close(t);
    if (snapshot) break;
  }
}

const fuzz_target fuzz = {make_seeds, one, repair, NULL};
