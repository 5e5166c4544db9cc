/* store_index.c (fuzz) - mapped indexes of damaged bytes: refused, or every answer is a live row and nothing is read out of bounds. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "driver.h"

enum { DIMS = 3, MOST = 1 << 13, ROWS = 4200, KEPT = 90, K = 12 };

static const char *input, *second;

static void make_vectors(float *out, size_t n, uint64_t seed) {
  ev_rng r;
  ev_rng_seed(&r, seed, 0);
  for (size_t i = 0; i < n * DIMS; i++) out[i] = (float)ev_rng_normal(&r);
}

/* Few rows of an index that has seen many: small, and yet with everything that a large one has. */
static void seed_index(const char *kind, const char *metric, const char *form, bool rescore, size_t n_keep) {
  static float vectors[ROWS * DIMS];
  uint32_t rows[ROWS], keep[KEPT];
  ev_index_options o;
  ev_index *x;
  ev_pack_writer *w;
  ev_buf b = {0};
  ev_index_defaults(&o);
  o.kind = kind;
  o.metric = metric;
  o.form = form;
  o.rescore = rescore;
  o.n_dims = DIMS;
  o.max_rows = MOST;
  o.n_links = 4;
  o.effort_build = 16;
  o.n_lists = 12;
  make_vectors(vectors, ROWS, 3);
  for (uint32_t i = 0; i < ROWS; i++) rows[i] = i;
  for (uint32_t i = 0; i < KEPT; i++) keep[i] = (i * 37 + 11) % ROWS;
  FUZZ_REQUIRE(ev_index_new(&x, &o) == EV_OK && ev_index_put(x, rows, vectors, n_keep > 0 ? ROWS : 20) == EV_OK);
  if (n_keep == 0) FUZZ_REQUIRE(ev_index_delete(x, rows + 4, 3) == EV_OK);
  FUZZ_REQUIRE(ev_pack_writer_open(&w, input, "index") == EV_OK);
  FUZZ_REQUIRE(ev_index_write(x, w, n_keep > 0 ? keep : NULL, n_keep) == EV_OK && ev_pack_writer_commit(w) == EV_OK);
  FUZZ_REQUIRE(ev_file_read(&b, input, 1 << 24) == EV_OK);
  fuzz_seed(b.data, b.len);
  ev_buf_free(&b);
  ev_index_free(x);
}

static void make_seeds(void) {
  input = fuzz_path("input");
  second = fuzz_path("second");
  ev_threads_set(1);
  seed_index("flat", "dot", "i8", true, 0);
  seed_index("flat", "cosine", "bf16", false, KEPT);
  seed_index("ivf", "l2", "i8", true, KEPT);
  seed_index("ivf", "cosine", "f32", false, KEPT);
  seed_index("ivf", "dot", "f16", true, 0);
  seed_index("hnsw", "dot", "i8", true, KEPT);
  seed_index("hnsw", "l2", "f32", false, 0);
}

static bool odd(void *ctx, uint32_t row) {
  FUZZ_REQUIRE(ev_index_has(ctx, row));
  return row % 2 == 1;
}

static void search(ev_index *x, const float *q, ev_search s) {
  uint32_t rows[2 * K];
  float scores[2 * K];
  s.k = K;
  ev_status status = ev_index_search(x, q, 2, &s, rows, scores);
  FUZZ_REQUIRE(status == EV_OK);
  for (size_t i = 0; i < 2 * K; i++) FUZZ_REQUIRE(rows[i] == EV_NONE ? scores[i] == -INFINITY : ev_index_has(x, rows[i]) && scores[i] > -INFINITY);
}

static void use(ev_index *x) {
  size_t d = ev_index_opts(x)->n_dims, n = ev_index_n_rows(x);
  float *q = ev_alloc(3, d * sizeof *q); /* two queries, and a row */
  const uint64_t allowed[2] = {0xF0F0F0F0F0F0F0F0, 0xFF};
  for (size_t i = 0; i < 2 * d; i++) q[i] = (float)(i % 7) - 3;
  search(x, q, (ev_search){0});
  search(x, q, (ev_search){.effort = 40});
  search(x, q, (ev_search){.allowed = allowed, .n_allowed = 100});
  search(x, q, (ev_search){.pass = odd, .pass_ctx = x, .pass_share = 0.9});
  for (uint32_t i = 0; i < n && i < 200; i++) {
    if (ev_index_has(x, i)) FUZZ_REQUIRE(ev_index_get(x, i, q + 2 * d) == EV_OK);
    if (i % 3 == 0 && ev_index_has(x, i)) FUZZ_REQUIRE(ev_index_delete(x, &i, 1) == EV_OK);
    if (i % 2 == 0 && !ev_index_has(x, i)) FUZZ_REQUIRE(ev_index_put(x, &i, q, 1) == EV_OK);
  }
  search(x, q, (ev_search){.effort = 40});
  FUZZ_REQUIRE(ev_index_bytes(x) > 0);
  ev_pack_writer *w;
  FUZZ_REQUIRE(ev_pack_writer_open(&w, second, "index") == EV_OK);
  FUZZ_REQUIRE(ev_index_write(x, w, NULL, 0) == EV_OK);
  ev_pack_writer_abort(w);
  ev_free(q);
}

static void one(const uint8_t *data, size_t len) {
  ev_pack *p;
  ev_index *x;
  fuzz_write(input, data, len);
  ev_status status = ev_pack_map(&p, input);
  FUZZ_REQUIRE(status == EV_OK || status == EV_ECORRUPT);
  if (status != EV_OK) return;
  status = ev_index_map(&x, p, MOST);
  FUZZ_REQUIRE(status == EV_OK || status == EV_ECORRUPT || status == EV_ELIMIT);
  FUZZ_REQUIRE((status == EV_OK) == (x != NULL));
  if (status == EV_OK) use(x);
  ev_index_free(x);
  ev_pack_close(p);
}

const fuzz_target fuzz = {make_seeds, one, fuzz_repair_pack, NULL};
