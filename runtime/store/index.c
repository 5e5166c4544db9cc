/* index.c - vectors by row number: options, the rows themselves, putting and deleting them.
 *
 * A row is filled, linked by its kind, and then its live bit is set; deleting goes the other way round. Everything lies in
 * regions, so a reader's pointers hold while the writer makes room. Until the live bit nobody looks at what is being filled,
 * and a row that was deleted is filled again only when the last reader who could still be looking at it has left: see
 * ../core/epoch.c. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "index.h"

#define DIMS_MAX 65536
#define LONGEST (FLT_MAX / 4) /* of |x|²: no score of two such vectors overflows */
#define GRAIN 256

static const ev_index_kind *const kinds[] = {&ev_index_flat, &ev_index_hnsw, &ev_index_ivf};
#define N_KINDS (sizeof kinds / sizeof *kinds)

/* ---- Options --------------------------------------------------------------------------------------------*/
void ev_index_defaults(ev_index_options *o) {
  *o = (ev_index_options){.kind = "hnsw", .metric = "dot", .form = "i8", .rescore = true, .max_rows = (size_t)1 << 26,
                          .n_links = 16, .effort_build = 200};
}

static ev_status check(ev_index *x, const ev_index_options *o) {
  x->o = *o;
  for (size_t i = 0; i < N_KINDS && o->kind != NULL; i++)
    if (strcmp(o->kind, kinds[i]->name) == 0) x->kind = kinds[i];
  if (x->kind == NULL) return ev_fail(EV_EINVAL, "index: kind '%s' is none of flat, hnsw, ivf", o->kind != NULL ? o->kind : "");
  if (o->metric == NULL || !ev_similarity_find(&x->metric, o->metric))
    return ev_fail(EV_EINVAL, "index: metric '%s' is none of dot, cosine, l2", o->metric != NULL ? o->metric : "");
  if (o->form == NULL || !ev_form_find(&x->form, o->form))
    return ev_fail(EV_EINVAL, "index: form '%s' is none of f32, f16, bf16, i8", o->form != NULL ? o->form : "");
  if (o->n_dims < 1 || o->n_dims > DIMS_MAX) return ev_fail(EV_EINVAL, "index: n_dims %zu is not in 1 … %d", o->n_dims, DIMS_MAX);
  if (o->max_rows < 1 || o->max_rows >= EV_NONE) return ev_fail(EV_EINVAL, "index: max_rows %zu is not in 1 … 2^32 − 2", o->max_rows);
  if (x->kind->check != NULL) EV_TRY(x->kind->check(o));
  x->o.kind = x->kind->name;
  x->o.metric = ev_similarity_name(x->metric);
  x->o.form = ev_form_name(x->form);
  if (o->effort == 0) x->o.effort = x->kind->effort;
  x->o.rescore = o->rescore && x->form != EV_FORM_F32;
  return EV_OK;
}

/* ---- Life -----------------------------------------------------------------------------------------------*/
ev_status ev_index_blank(ev_index **out, const ev_index_options *o) {
  *out = NULL;
  ev_index *x = ev_zalloc(1, sizeof *x);
  if (x == NULL) return EV_ENOMEM;
  pthread_mutex_init(&x->writer, NULL);
  ev_status status = check(x, o);
  if (status != EV_OK) goto fail;
  size_t rows = x->o.max_rows;
  bool scaled = x->form == EV_FORM_I8;
  x->d = x->o.n_dims;
  x->stride = (x->d * ev_form_bytes(x->form) + 63) / 64 * 64;
  x->dot = ev_dot_of(x->form);
  x->dot_pair = ev_dot_pair_of(x->form);
  status = ev_region_open(&x->codes, rows * x->stride);
  if (status == EV_OK && x->o.rescore) status = ev_region_open(&x->vectors, rows * x->d * sizeof(float));
  if (status == EV_OK && (scaled || x->metric == EV_COSINE)) status = ev_region_open(&x->weight, rows * sizeof(float));
  if (status == EV_OK && scaled && x->metric == EV_COSINE) status = ev_region_open(&x->scale, rows * sizeof(float));
  if (status == EV_OK && x->metric == EV_L2) status = ev_region_open(&x->bias, rows * sizeof(float));
  if (status == EV_OK) status = ev_region_open(&x->live, (rows + 63) / 64 * sizeof(uint64_t));
  if (status == EV_OK) status = ev_region_open(&x->marks, rows * sizeof(uint64_t));
  if (status != EV_OK) goto fail;
  x->epochs = ev_epochs_new();
  if (x->epochs == NULL) {
    status = EV_ENOMEM;
    goto fail;
  }
  *out = x;
  return EV_OK;
fail:
  ev_index_free(x);
  return status;
}

ev_status ev_index_new(ev_index **out, const ev_index_options *o) {
  EV_TRY(ev_index_blank(out, o));
  ev_status status = (*out)->kind->open != NULL ? (*out)->kind->open(*out) : EV_OK;
  if (status == EV_OK) return EV_OK;
  ev_index_free(*out);
  *out = NULL;
  return status;
}

void ev_index_free(ev_index *x) {
  if (x == NULL) return;
  if (x->state != NULL) x->kind->close(x);
  ev_region_close(&x->codes);
  ev_region_close(&x->vectors);
  ev_region_close(&x->weight);
  ev_region_close(&x->scale);
  ev_region_close(&x->bias);
  ev_region_close(&x->live);
  ev_region_close(&x->marks);
  ev_epochs_free(x->epochs);
  pthread_mutex_destroy(&x->writer);
  ev_free(x);
}

ev_status ev_index_grow(ev_index *x, size_t rows) {
  EV_TRY(ev_region_grow(&x->codes, rows * x->stride));
  if (x->vectors.base != NULL) EV_TRY(ev_region_grow(&x->vectors, rows * x->d * sizeof(float)));
  if (x->weight.base != NULL) EV_TRY(ev_region_grow(&x->weight, rows * sizeof(float)));
  if (x->scale.base != NULL) EV_TRY(ev_region_grow(&x->scale, rows * sizeof(float)));
  if (x->bias.base != NULL) EV_TRY(ev_region_grow(&x->bias, rows * sizeof(float)));
  EV_TRY(ev_region_grow(&x->live, (rows + 63) / 64 * sizeof(uint64_t)));
  return ev_region_grow(&x->marks, rows * sizeof(uint64_t));
}

static float *floats(const ev_region *r) { return (float *)(void *)r->base; }

size_t ev_index_row_bytes(const ev_index *x) {
  size_t n = x->stride + sizeof(uint64_t); /* the code and the mark */
  if (x->vectors.base != NULL) n += x->d * sizeof(float);
  return n + sizeof(float) * ((x->weight.base != NULL) + (x->scale.base != NULL) + (x->bias.base != NULL));
}

size_t ev_index_n(const ev_index *x) { return atomic_load_explicit(&x->n_live, memory_order_acquire); }
size_t ev_index_n_rows(const ev_index *x) { return atomic_load_explicit(&x->n_rows, memory_order_acquire); }
const ev_index_options *ev_index_opts(const ev_index *x) { return &x->o; }
ev_epochs *ev_index_epochs(const ev_index *x) { return x->epochs; }

size_t ev_index_bytes(const ev_index *x) {
  size_t n = ev_index_n_rows(x), bytes = sizeof *x + n * ev_index_row_bytes(x) + n / 8;
  if (x->kind->bytes == NULL) return bytes;
  unsigned place = ev_epoch_enter(x->epochs);
  bytes += x->kind->bytes(x);
  ev_epoch_leave(x->epochs, place);
  return bytes;
}

/* ---- A row's numbers --------------------------------------------------------------------------------------*/
static float row_scale(const ev_index *x, uint32_t row) {
  if (x->form != EV_FORM_I8) return 1;
  return floats(x->scale.base != NULL ? &x->scale : &x->weight)[row];
}

const float *ev_index_vector(const ev_index *x, uint32_t row, float *scratch) {
  if (x->vectors.base != NULL) return floats(&x->vectors) + row * x->d;
  if (x->form == EV_FORM_F32) return (const float *)ev_index_code(x, row);
  ev_form_decode(scratch, ev_index_code(x, row), row_scale(x, row), x->form, x->d);
  return scratch;
}

/* 1 / |x|, and 0 for what is as good as the zero vector: the cosine is 0 then. */
float ev_inverse_norm(const float *v, size_t d) {
  double sum = ev_dot(v, v, d);
  if (sum < 1e-30) { /* squares near the end of float32 */
    sum = 0;
    for (size_t i = 0; i < d; i++) sum += (double)v[i] * v[i];
  }
  return sum > (double)FLT_MIN * FLT_MIN ? (float)(1 / sqrt(sum)) : 0;
}

float ev_index_exact(const ev_index *x, const float *q, float q_inverse_norm, uint32_t row, float *scratch) {
  const float *v = ev_index_vector(x, row, scratch);
  switch (x->metric) {
    case EV_DOT: return ev_dot(q, v, x->d);
    case EV_COSINE: return ev_dot(q, v, x->d) * q_inverse_norm * ev_inverse_norm(v, x->d);
    default: /* by differences: |q|² − 2 q·x + |x|² loses what matters where q and x are near */
      if (v != scratch) memcpy(scratch, v, x->d * sizeof *v);
      ev_axpy(scratch, q, -1, x->d);
      return -ev_dot(scratch, scratch, x->d);
  }
}

static void fill_row(ev_index *x, uint32_t row, const float *v, float *scratch) {
  char *code = x->codes.base + row * x->stride;
  size_t used = x->d * ev_form_bytes(x->form);
  float scale = 1;
  ev_form_encode(code, &scale, v, x->form, x->d);
  memset(code + used, 0, x->stride - used);
  if (x->vectors.base != NULL) memcpy(floats(&x->vectors) + row * x->d, v, x->d * sizeof *v);
  if (x->scale.base != NULL) floats(&x->scale)[row] = scale;
  if (x->weight.base == NULL && x->bias.base == NULL) return;
  const float *stored = v;
  if (x->form != EV_FORM_F32) {
    ev_form_decode(scratch, code, scale, x->form, x->d);
    stored = scratch;
  }
  if (x->weight.base != NULL) floats(&x->weight)[row] = x->metric == EV_COSINE ? scale * ev_inverse_norm(stored, x->d) : scale;
  if (x->bias.base != NULL) floats(&x->bias)[row] = -ev_dot(stored, stored, x->d);
}

/* ---- Checks -----------------------------------------------------------------------------------------------*/
/* The first vector that cannot be kept, or n. */
static bool sound(const float *v, size_t d, float most) {
  float lo, hi, sum = ev_dot(v, v, d);
  if (!(sum <= LONGEST)) return false; /* NaN, an infinity, or too long */
  if (most == FLT_MAX) return true;
  ev_minmax(&lo, &hi, v, d);
  return lo >= -most && hi <= most;
}

typedef struct filling {
  ev_index *x;
  const uint32_t *rows;
  const float *vectors;
  _Atomic size_t first_bad; /* checking */
  atomic_bool failed;       /* filling */
  float most;
} filling;

static void check_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  filling *f = ctx;
  for (size_t i = begin; i < end; i++) {
    if (sound(f->vectors + i * f->x->d, f->x->d, f->most)) continue;
    size_t first = atomic_load(&f->first_bad);
    while (i < first && !atomic_compare_exchange_weak(&f->first_bad, &first, i)) continue;
    return;
  }
}

static void fill_some(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  filling *f = ctx;
  float *scratch = ev_alloc(f->x->d, sizeof *scratch);
  if (scratch == NULL) {
    atomic_store(&f->failed, true);
    return;
  }
  for (size_t i = begin; i < end; i++) fill_row(f->x, f->rows[i], f->vectors + i * f->x->d, scratch);
  ev_free(scratch);
}

/* Names what is wrong with a vector that `sound` refused: "row 7: element 3 is nan". */
static ev_status unsound(const char *what, size_t number, const float *v, size_t d, float most) {
  for (size_t i = 0; i < d; i++) {
    if (!isfinite(v[i])) return ev_fail(EV_EINVAL, "%s %zu: element %zu is %g", what, number, i, (double)v[i]);
    if (fabsf(v[i]) > most) return ev_fail(EV_EINVAL, "%s %zu: element %zu is %g, more than the form holds", what, number, i, (double)v[i]);
  }
  return ev_fail(EV_EINVAL, "%s %zu: the vector's length is beyond %g", what, number, sqrt((double)LONGEST));
}

ev_status ev_index_check_vectors(const ev_index *x, const char *what, const uint32_t *rows, const float *v, size_t n, bool stored) {
  filling f = {.x = (ev_index *)(uintptr_t)x, .vectors = v, .most = stored && x->form == EV_FORM_F16 ? 65504 : FLT_MAX};
  atomic_init(&f.first_bad, n);
  ev_parallel_for(n, GRAIN, check_some, &f);
  size_t bad = atomic_load(&f.first_bad);
  return bad == n ? EV_OK : unsound(what, rows != NULL ? rows[bad] : bad, v + bad * x->d, x->d, f.most);
}

/* Each row once, below the limit, and live or not as wanted. With the writer's lock held. */
static ev_status check_rows(const ev_index *x, const uint32_t *rows, size_t n, bool live, size_t *end) {
  size_t n_rows = ev_index_n_rows(x), high = 0, low = SIZE_MAX;
  bool ascending = true;
  for (size_t i = 0; i < n; i++) {
    if (!live && rows[i] >= x->o.max_rows) return ev_fail(EV_ELIMIT, "row %u is beyond max_rows, %zu", rows[i], x->o.max_rows);
    bool is = rows[i] < n_rows && ev_index_live(x, rows[i]);
    if (live && !is) return ev_fail(EV_ENOTFOUND, "row %u is not in the index", rows[i]);
    if (!live && is) return ev_fail(EV_EEXIST, "row %u is in the index already", rows[i]);
    if (i > 0 && rows[i] <= rows[i - 1]) ascending = false;
    if (rows[i] > high) high = rows[i];
    if (rows[i] < low) low = rows[i];
  }
  *end = n == 0 ? 0 : high + 1;
  if (ascending) return EV_OK;
  uint64_t *met = ev_zalloc((high - low) / 64 + 1, sizeof *met);
  if (met == NULL) return EV_ENOMEM;
  ev_status status = EV_OK;
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    uint64_t *word = &met[(rows[i] - low) / 64], bit = (uint64_t)1 << (rows[i] - low) % 64;
    if ((*word & bit) != 0) status = ev_fail(EV_EINVAL, "row %u is named twice", rows[i]);
    *word |= bit;
  }
  ev_free(met);
  return status;
}

/* ---- Writing ----------------------------------------------------------------------------------------------*/
static _Atomic uint64_t *live_words(const ev_index *x) { return (_Atomic uint64_t *)(void *)x->live.base; }
static uint64_t *marks(const ev_index *x) { return (uint64_t *)(void *)x->marks.base; }

static ev_status put(ev_index *x, const uint32_t *rows, const float *vectors, size_t n) {
  size_t end, before = ev_index_n_rows(x);
  uint64_t latest = 0;
  EV_TRY(check_rows(x, rows, n, false, &end));
  EV_TRY(ev_index_grow(x, end));
  for (size_t i = 0; i < n; i++)
    if (marks(x)[rows[i]] > latest) latest = marks(x)[rows[i]];
  ev_epoch_wait(x->epochs, latest);
  filling f = {.x = x, .rows = rows, .vectors = vectors};
  ev_parallel_for(n, GRAIN, fill_some, &f);
  if (atomic_load(&f.failed)) return ev_fail(EV_ENOMEM, "out of memory: putting %zu rows", n);
  if (end > before) atomic_store_explicit(&x->n_rows, end, memory_order_release);
  ev_status status = x->kind->put != NULL ? x->kind->put(x, rows, n) : EV_OK;
  if (status != EV_OK) {
    atomic_store_explicit(&x->n_rows, before, memory_order_release);
    return status;
  }
  for (size_t i = 0; i < n; i++) atomic_fetch_or_explicit(&live_words(x)[rows[i] / 64], (uint64_t)1 << rows[i] % 64, memory_order_release);
  atomic_fetch_add(&x->n_live, n);
  return EV_OK;
}

ev_status ev_index_put(ev_index *x, const uint32_t *rows, const float *vectors, size_t n) {
  if (n == 0) return EV_OK;
  EV_TRY(ev_index_check_vectors(x, "row", rows, vectors, n, true));
  pthread_mutex_lock(&x->writer);
  ev_status status = put(x, rows, vectors, n);
  pthread_mutex_unlock(&x->writer);
  return status;
}

ev_status ev_index_delete(ev_index *x, const uint32_t *rows, size_t n) {
  size_t end;
  pthread_mutex_lock(&x->writer);
  ev_status status = check_rows(x, rows, n, true, &end);
  if (status == EV_OK && n > 0) {
    for (size_t i = 0; i < n; i++) atomic_fetch_and_explicit(&live_words(x)[rows[i] / 64], ~((uint64_t)1 << rows[i] % 64), memory_order_release);
    atomic_fetch_sub(&x->n_live, n);
    if (x->kind->unlink != NULL) x->kind->unlink(x, rows, n);
    uint64_t mark = ev_epoch_mark(x->epochs);
    for (size_t i = 0; i < n; i++) marks(x)[rows[i]] = mark;
  }
  pthread_mutex_unlock(&x->writer);
  return status;
}

/* ---- Reading ----------------------------------------------------------------------------------------------*/
bool ev_index_has(const ev_index *x, uint32_t row) { return row < ev_index_n_rows(x) && ev_index_live(x, row); }

ev_status ev_index_get(const ev_index *x, uint32_t row, float *out) {
  unsigned place = ev_epoch_enter(x->epochs);
  bool has = ev_index_has(x, row);
  if (has) {
    const float *v = ev_index_vector(x, row, out);
    if (v != out) memcpy(out, v, x->d * sizeof *out);
  }
  ev_epoch_leave(x->epochs, place);
  return has ? EV_OK : ev_fail(EV_ENOTFOUND, "row %u is not in the index", row);
}
