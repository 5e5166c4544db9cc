/* index_ours.c - what index.py measures of our index: build, batch and single searches, filters, post-filtering.
 *
 * Verbs: threads build search single post drop factors bandwidth. Vectors come from mapped files of float32, row by row; ids go
 * to files of uint32. */
#include <pthread.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "index_protocol.h"
#include "store/store.h"

enum { N_NAMES = 16 };
static struct {
  char name[32];
  ev_index *index;
} table[N_NAMES];

static void check(ev_status status) {
  if (status != EV_OK) die("%s: %s", ev_status_name(status), ev_error());
}

static ev_index **place(const char *name) {
  for (int i = 0; i < N_NAMES; i++)
    if (table[i].index != NULL && strcmp(table[i].name, name) == 0) return &table[i].index;
  for (int i = 0; i < N_NAMES; i++)
    if (table[i].index == NULL) {
      snprintf(table[i].name, sizeof table[i].name, "%s", name);
      return &table[i].index;
    }
  die("too many indexes");
}

static ev_index *named(void) {
  ev_index *x = *place(text("name"));
  if (x == NULL) die("no index %s", text("name"));
  return x;
}

static void build(void) {
  ev_index **x = place(text("name"));
  const size_t n = number("n"), d = number("d"), batch = number_or("batch", n);
  const float *base = map_file(text("base"), n * d * sizeof(float));
  ev_index_options o;
  ev_index_defaults(&o);
  o.kind = text("kind");
  o.metric = text("metric");
  o.form = text_or("form", "i8");
  o.rescore = number_or("rescore", 1) != 0;
  o.n_dims = d;
  o.n_links = 16;
  o.effort_build = 200;
  o.seed = 1;
  uint32_t *rows = fresh(n * sizeof *rows);
  for (size_t i = 0; i < n; i++) rows[i] = (uint32_t)i;
  const double before = memory_bytes(), start = now();
  check(ev_index_new(x, &o));
  for (size_t first = 0; first < n; first += batch) check(ev_index_put(*x, rows + first, base + first * d, first + batch < n ? batch : n - first));
  const double seconds = now() - start;
  answer("{\"seconds\": %.6f, \"bytes\": %.0f, \"counted\": %zu}", seconds, memory_bytes() - before, ev_index_bytes(*x));
  free(rows);
  munmap((void *)(uintptr_t)base, n * d * sizeof(float));
}

static ev_search asked(const ev_index *x) { /* k, ef and the filter of the command */
  ev_search s = {.k = number("k"), .effort = (unsigned)number_or("ef", 0)};
  if (text_or("allowed", NULL) != NULL) {
    s.n_allowed = ev_index_n_rows(x);
    s.allowed = map_file(text("allowed"), (s.n_allowed + 63) / 64 * 8);
  }
  return s;
}

static void done(const ev_search *s) {
  if (s->allowed != NULL) munmap((void *)(uintptr_t)s->allowed, (s->n_allowed + 63) / 64 * 8);
}

static void search(void) { /* all queries in one call */
  const ev_index *x = named();
  const size_t m = number("m"), d = ev_index_opts(x)->n_dims;
  const float *q = map_file(text("q"), m * d * sizeof(float));
  ev_search s = asked(x);
  size_t looked_at = 0;
  s.n_looked_at = &looked_at;
  uint32_t *rows = fresh(m * s.k * sizeof *rows);
  float *scores = fresh(m * s.k * sizeof *scores);
  const double start = now();
  check(ev_index_search(x, q, m, &s, rows, scores));
  const double seconds = now() - start;
  if (text_or("out", NULL) != NULL) write_file(text("out"), rows, m * s.k * sizeof *rows);
  answer("{\"seconds\": %.6f, \"looked_at\": %.1f}", seconds, (double)looked_at / (double)m);
  free(rows);
  free(scores);
  done(&s);
  munmap((void *)(uintptr_t)q, m * d * sizeof(float));
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void single(void) { /* one query a call, as a server has them */
  const ev_index *x = named();
  const size_t m = number("m"), d = ev_index_opts(x)->n_dims;
  const float *q = map_file(text("q"), m * d * sizeof(float));
  ev_search s = asked(x);
  uint32_t *rows = fresh(s.k * sizeof *rows);
  float *scores = fresh(s.k * sizeof *scores);
  double *times = fresh(m * sizeof *times);
  for (size_t i = 0; i < m; i++) {
    const double start = now();
    check(ev_index_search(x, q + i * d, 1, &s, rows, scores));
    times[i] = now() - start;
  }
  qsort(times, m, sizeof *times, by_value);
  answer("{\"p50\": %.9f, \"p99\": %.9f}", times[m / 2], times[(m - 1) * 99 / 100]);
  free(rows);
  free(scores);
  free(times);
  done(&s);
  munmap((void *)(uintptr_t)q, m * d * sizeof(float));
}

static void post(void) { /* search without the filter for `fetch`, then keep the k first that it allows */
  const ev_index *x = named();
  const size_t m = number("m"), d = ev_index_opts(x)->n_dims, fetch = number("fetch");
  const float *q = map_file(text("q"), m * d * sizeof(float));
  ev_search s = asked(x);
  const uint64_t *allowed = s.allowed;
  const size_t k = s.k;
  s.k = fetch;
  s.allowed = NULL;
  uint32_t *rows = fresh(m * fetch * sizeof *rows), *out = fresh(m * k * sizeof *out);
  float *scores = fresh(m * fetch * sizeof *scores);
  const double start = now();
  check(ev_index_search(x, q, m, &s, rows, scores));
  for (size_t i = 0; i < m; i++) {
    size_t used = 0;
    for (size_t j = 0; j < fetch && used < k; j++) {
      const uint32_t row = rows[i * fetch + j];
      if (row != EV_NONE && (allowed[row / 64] >> (row % 64) & 1) != 0) out[i * k + used++] = row;
    }
    for (; used < k; used++) out[i * k + used] = EV_NONE;
  }
  const double seconds = now() - start;
  if (text_or("out", NULL) != NULL) write_file(text("out"), out, m * k * sizeof *out);
  answer("{\"seconds\": %.6f}", seconds);
  s.allowed = allowed;
  done(&s);
  free(rows);
  free(out);
  free(scores);
  munmap((void *)(uintptr_t)q, m * d * sizeof(float));
}

static void factors(void) { /* an array of float32 out of a model's pack into a plain file */
  ev_pack *p;
  ev_array a;
  check(ev_pack_open(&p, text("pack")));
  check(ev_pack_get(p, text("array"), EV_F32, &a));
  write_file(text("out"), a.data, a.rows * a.cols * sizeof(float));
  answer("{\"rows\": %zu, \"cols\": %zu}", a.rows, a.cols);
  ev_pack_close(p);
}

/* The machine's read bandwidth: every byte of a large array is added up once, by each thread a part of its own. */
typedef struct reading {
  const char *data;
  size_t bytes;
  float sum;
} reading;

static void *add_up(void *arg) {
  reading *r = arg;
  float total = 0;
#if defined(__AVX512F__)
  __m512 s[8];
  for (int j = 0; j < 8; j++) s[j] = _mm512_setzero_ps();
  for (size_t i = 0; i + 512 <= r->bytes; i += 512)
    for (int j = 0; j < 8; j++) s[j] = _mm512_add_ps(s[j], _mm512_load_ps(r->data + i + 64 * j));
  for (int j = 0; j < 8; j++) total += _mm512_reduce_add_ps(s[j]);
#else
  float s[64] = {0};
  for (size_t i = 0; i + 256 <= r->bytes; i += 256)
    for (int j = 0; j < 64; j++) s[j] += ((const float *)(const void *)(r->data + i))[j];
  for (int j = 0; j < 64; j++) total += s[j];
#endif
  r->sum = total;
  return NULL;
}

static void bandwidth(void) {
  static char *data;
  static size_t held;
  const size_t bytes = number("bytes") / 4096 * 4096, n_threads = number("threads");
  if (data == NULL) {
    data = aligned_alloc(1 << 21, (bytes + (1 << 21) - 1) >> 21 << 21);
    if (data == NULL) die("no memory for %zu bytes", bytes);
    madvise(data, bytes, MADV_HUGEPAGE);
    memset(data, 0, bytes);
    held = bytes;
  }
  if (bytes > held) die("bandwidth was measured over %zu bytes before", held);
  reading parts[256];
  pthread_t thread[256];
  const size_t share = bytes / n_threads / 4096 * 4096;
  const double start = now();
  for (size_t t = 0; t < n_threads; t++) {
    parts[t] = (reading){.data = data + t * share, .bytes = share};
    if (t > 0 && pthread_create(&thread[t], NULL, add_up, &parts[t]) != 0) die("no thread");
  }
  add_up(&parts[0]);
  for (size_t t = 1; t < n_threads; t++) pthread_join(thread[t], NULL);
  const double seconds = now() - start;
  float sum = 0;
  for (size_t t = 0; t < n_threads; t++) sum += parts[t].sum;
  answer("{\"seconds\": %.9f, \"bytes\": %zu, \"sum\": %g}", seconds, share * n_threads, (double)sum);
  if (number_or("free", 0) != 0) {
    free(data);
    data = NULL;
  }
}

int main(void) {
  for (const char *verb; (verb = command_read()) != NULL;) {
    if (strcmp(verb, "threads") == 0) {
      ev_threads_set((int)number("n"));
      answer("{\"simd\": \"%s\"}", ev_simd_name());
    } else if (strcmp(verb, "build") == 0) build();
    else if (strcmp(verb, "search") == 0) search();
    else if (strcmp(verb, "single") == 0) single();
    else if (strcmp(verb, "post") == 0) post();
    else if (strcmp(verb, "factors") == 0) factors();
    else if (strcmp(verb, "bandwidth") == 0) bandwidth();
    else if (strcmp(verb, "drop") == 0) {
      ev_index **x = place(text("name"));
      ev_index_free(*x);
      *x = NULL;
      answer("{}");
    } else die("no verb %s", verb);
  }
  return 0;
}
