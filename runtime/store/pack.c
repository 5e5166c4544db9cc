/* pack.c - one file of named, typed arrays.
 *
 *   header (128 bytes)  magic, number of arrays, table offset, file size, kind, table checksum, header checksum
 *   array, array, …     each starts on a 64-byte boundary, one of PAGE bytes or more on a page's; the gap before it is zero
 *   table               one entry of 96 bytes an array: name, type, shape, offset, checksum
 *
 * Everything is little-endian and naturally aligned, so that a mapped file is used as it lies. The table comes last
 * because arrays are written as they are made. Every byte is covered: by a checksum, or as a gap that must be zero. An array on a page boundary can be mapped alone and written to;
 * files from before large arrays were put there are as good to read. */
#include <stdio.h>
#include <string.h>

#include "store.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packs are mapped as they lie: a little-endian machine is needed"
#endif

#define MAGIC "EVPACK\0\1"
#define ALIGN 64
#define PAGE 4096
#define ARRAYS_MAX 4096

typedef struct header {
  char magic[8];
  uint64_t n_arrays, table_offset, file_size;
  char kind[32];
  uint64_t table_checksum;
  uint64_t reserved[6];
  uint64_t checksum; /* of the bytes before it */
} header;
_Static_assert(sizeof(header) == 128, "header is 128 bytes");

typedef struct entry {
  char name[48];
  uint64_t dtype, rows, cols, offset, checksum, reserved;
} entry;
_Static_assert(sizeof(entry) == 96, "entry is 96 bytes");

struct ev_pack {
  ev_map map;
  char *path;
  const header *head;
  const entry *table;
};

struct ev_pack_writer {
  ev_writer *file;
  entry *table; /* owned */
  size_t n, cap;
  char kind[32];
  ev_summer *sum;        /* of the array that is being written in pieces, table[n]; owned */
};

size_t ev_dtype_size(ev_dtype t) {
  static const size_t sizes[] = {1, 4, 8, 8, 4, 8};
  return (size_t)t < sizeof sizes / sizeof *sizes ? sizes[t] : 0;
}

/* ---- Writing -------------------------------------------------------------------------------------------*/
static ev_status pad(ev_writer *w, uint64_t multiple) {
  static const char zeros[PAGE];
  uint64_t over = ev_writer_offset(w) % multiple;
  return over == 0 ? EV_OK : ev_writer_write(w, zeros, (size_t)(multiple - over));
}

ev_status ev_pack_writer_open(ev_pack_writer **out, const char *path, const char *kind) {
  *out = NULL;
  if (strlen(kind) >= sizeof((header *)0)->kind) return ev_fail(EV_EINVAL, "'%s' is too long for a kind", kind);
  ev_pack_writer *w = ev_zalloc(1, sizeof *w);
  if (w == NULL) return EV_ENOMEM;
  header blank = {0};
  snprintf(w->kind, sizeof w->kind, "%s", kind);
  ev_status status = ev_writer_open(&w->file, path);
  if (status == EV_OK) status = ev_writer_write(w->file, &blank, sizeof blank);
  if (status != EV_OK) {
    ev_pack_writer_abort(w);
    return status;
  }
  *out = w;
  return EV_OK;
}

static ev_status bytes_of(const char *name, ev_dtype dtype, size_t rows, size_t cols, size_t *bytes) {
  size_t count;
  if (__builtin_mul_overflow(rows, cols, &count) || __builtin_mul_overflow(count, ev_dtype_size(dtype), bytes))
    return ev_fail(EV_ENOMEM, "array '%s' of %zu x %zu is too large", name, rows, cols);
  return EV_OK;
}

/* table[n] becomes an entry of that name, without rows, at the file's end. */
static ev_status begin(ev_pack_writer *w, const char *name, ev_dtype dtype, size_t cols, uint64_t alignment) {
  if (w->sum != NULL) return ev_fail(EV_EINVAL, "array '%s' is not ended", w->table[w->n].name);
  if (strlen(name) >= sizeof w->table->name) return ev_fail(EV_EINVAL, "'%s' is too long for an array's name", name);
  if (w->n == ARRAYS_MAX) return ev_fail(EV_ELIMIT, "a pack holds at most %d arrays", ARRAYS_MAX);
  for (size_t i = 0; i < w->n; i++)
    if (strcmp(w->table[i].name, name) == 0) return ev_fail(EV_EEXIST, "the pack has an array '%s' already", name);
  if (w->n == w->cap) {
    size_t cap = w->cap == 0 ? 16 : 2 * w->cap;
    entry *table = ev_resize(w->table, cap, sizeof *table);
    if (table == NULL) return EV_ENOMEM;
    w->table = table;
    w->cap = cap;
  }
  EV_TRY(pad(w->file, alignment));
  entry *e = &w->table[w->n];
  memset(e, 0, sizeof *e);
  memcpy(e->name, name, strlen(name));
  e->dtype = dtype;
  e->cols = cols;
  e->offset = ev_writer_offset(w->file);
  return EV_OK;
}

ev_status ev_pack_write(ev_pack_writer *w, const char *name, ev_dtype dtype, const void *data, size_t rows, size_t cols) {
  size_t bytes = 0;
  EV_TRY(bytes_of(name, dtype, rows, cols, &bytes));
  EV_TRY(begin(w, name, dtype, cols, bytes < PAGE ? ALIGN : PAGE));
  entry *e = &w->table[w->n];
  e->rows = rows;
  e->checksum = ev_checksum(data, bytes);
  EV_TRY(ev_writer_write(w->file, data, bytes));
  w->n++;
  return EV_OK;
}

ev_status ev_pack_begin(ev_pack_writer *w, const char *name, ev_dtype dtype, size_t cols) {
  EV_TRY(begin(w, name, dtype, cols, PAGE)); /* how long it gets is not known yet */
  w->sum = ev_summer_new();
  return w->sum != NULL ? EV_OK : EV_ENOMEM;
}

ev_status ev_pack_append(ev_pack_writer *w, const void *data, size_t rows) {
  size_t bytes = 0;
  if (w->sum == NULL) return ev_fail(EV_EINVAL, "rows for an array that was not begun");
  entry *e = &w->table[w->n];
  if (rows > SIZE_MAX - e->rows) return ev_fail(EV_ENOMEM, "array '%s' is too large", e->name);
  EV_TRY(bytes_of(e->name, (ev_dtype)e->dtype, e->rows + rows, e->cols, &bytes));
  EV_TRY(bytes_of(e->name, (ev_dtype)e->dtype, rows, e->cols, &bytes));
  ev_summer_add(w->sum, data, bytes);
  EV_TRY(ev_writer_write(w->file, data, bytes));
  e->rows += rows;
  return EV_OK;
}

ev_status ev_pack_end(ev_pack_writer *w) {
  if (w->sum == NULL) return ev_fail(EV_EINVAL, "the end of an array that was not begun");
  w->table[w->n++].checksum = ev_summer_end(w->sum);
  w->sum = NULL;
  return EV_OK;
}

void ev_pack_writer_abort(ev_pack_writer *w) {
  if (w == NULL) return;
  ev_writer_abort(w->file);
  if (w->sum != NULL) ev_summer_end(w->sum);
  ev_free(w->table);
  ev_free(w);
}

ev_status ev_pack_writer_commit(ev_pack_writer *w) {
  header h = {.magic = MAGIC, .n_arrays = w->n};
  memcpy(h.kind, w->kind, sizeof h.kind);
  ev_status status = w->sum != NULL ? ev_fail(EV_EINVAL, "array '%s' is not ended", w->table[w->n].name) : EV_OK;
  if (status == EV_OK) status = pad(w->file, ALIGN);
  h.table_offset = ev_writer_offset(w->file);
  h.table_checksum = ev_checksum(w->table, w->n * sizeof *w->table);
  if (status == EV_OK) status = ev_writer_write(w->file, w->table, w->n * sizeof *w->table);
  h.file_size = ev_writer_offset(w->file);
  h.checksum = ev_checksum(&h, offsetof(header, checksum));
  if (status == EV_OK) status = ev_writer_pwrite(w->file, &h, sizeof h, 0);
  if (status == EV_OK) {
    status = ev_writer_commit(w->file);
    w->file = NULL;
  }
  ev_pack_writer_abort(w);
  return status;
}

/* ---- Validation ----------------------------------------------------------------------------------------*/
static bool all_zero(const uint8_t *p, uint64_t begin, uint64_t end) {
  for (uint64_t i = begin; i < end; i++)
    if (p[i] != 0) return false;
  return true;
}

static ev_status validate_entry(const uint8_t *p, const header *h, const entry *e, size_t i, uint64_t *at, bool deep) {
  size_t count, bytes;
  if (memchr(e->name, '\0', sizeof e->name) == NULL || e->name[0] == '\0') return ev_fail(EV_ECORRUPT, "array %zu has no name", i);
  if (ev_dtype_size((ev_dtype)e->dtype) == 0 || e->dtype > EV_F64) return ev_fail(EV_ECORRUPT, "array '%s' is of unknown type", e->name);
  if (__builtin_mul_overflow(e->rows, e->cols, &count) || __builtin_mul_overflow(count, ev_dtype_size((ev_dtype)e->dtype), &bytes) ||
      e->offset > h->table_offset || bytes > h->table_offset - e->offset || e->offset % ALIGN != 0 || e->offset < *at || e->reserved != 0)
    return ev_fail(EV_ECORRUPT, "array '%s' does not lie in the file", e->name);
  if (e->offset - *at >= PAGE || !all_zero(p, *at, e->offset)) return ev_fail(EV_ECORRUPT, "the gap before array '%s' is not empty", e->name);
  *at = e->offset + bytes;
  if (deep && ev_checksum(p + e->offset, bytes) != e->checksum) return ev_fail(EV_ECORRUPT, "array '%s' fails its checksum", e->name);
  return EV_OK;
}

ev_status ev_pack_validate(const void *data, size_t size, bool deep) {
  const uint8_t *p = data;
  const header *h = data;
  if (size < sizeof *h || memcmp(h->magic, MAGIC, sizeof h->magic) != 0) return ev_fail(EV_ECORRUPT, "not a pack");
  if (ev_checksum(h, offsetof(header, checksum)) != h->checksum) return ev_fail(EV_ECORRUPT, "the header fails its checksum");
  if (h->file_size != size) return ev_fail(EV_ECORRUPT, "%zu bytes long, %llu expected: cut short or grown", size, (unsigned long long)h->file_size);
  if (h->n_arrays > ARRAYS_MAX || h->table_offset % ALIGN != 0 || h->table_offset < sizeof *h || h->table_offset > size ||
      size - h->table_offset != h->n_arrays * sizeof(entry) || memchr(h->kind, '\0', sizeof h->kind) == NULL)
    return ev_fail(EV_ECORRUPT, "the header makes no sense");
  const entry *table = (const entry *)(const void *)(p + h->table_offset);
  if (ev_checksum(table, h->n_arrays * sizeof *table) != h->table_checksum) return ev_fail(EV_ECORRUPT, "the table fails its checksum");
  uint64_t at = sizeof *h;
  for (size_t i = 0; i < h->n_arrays; i++) EV_TRY(validate_entry(p, h, &table[i], i, &at, deep));
  if (h->table_offset - at >= ALIGN || !all_zero(p, at, h->table_offset)) return ev_fail(EV_ECORRUPT, "the gap before the table is not empty");
  return EV_OK;
}

/* ---- Reading -------------------------------------------------------------------------------------------*/
static ev_status open_pack(ev_pack **out, const char *path, bool deep) {
  *out = NULL;
  ev_pack *p = ev_zalloc(1, sizeof *p);
  if (p == NULL) return EV_ENOMEM;
  ev_status status = EV_ENOMEM;
  p->path = ev_strndup(path, strlen(path));
  if (p->path == NULL) goto fail;
  status = ev_map_open(&p->map, path);
  if (status != EV_OK) goto fail;
  status = ev_pack_validate(p->map.data, p->map.size, deep);
  if (status != EV_OK) {
    ev_fail(status, "%s: %s", path, ev_error());
    goto fail;
  }
  p->head = p->map.data;
  p->table = (const entry *)(const void *)((const uint8_t *)p->map.data + p->head->table_offset);
  *out = p;
  return EV_OK;
fail:
  ev_pack_close(p);
  return status;
}

ev_status ev_pack_open(ev_pack **out, const char *path) { return open_pack(out, path, true); }
ev_status ev_pack_map(ev_pack **out, const char *path) { return open_pack(out, path, false); }

ev_status ev_pack_verify(const ev_pack *p) {
  ev_status status = ev_pack_validate(p->map.data, p->map.size, true);
  return status == EV_OK ? EV_OK : ev_fail(status, "%s: %s", p->path, ev_error());
}

void ev_pack_close(ev_pack *p) {
  if (p == NULL) return;
  ev_map_close(&p->map);
  ev_free(p->path);
  ev_free(p);
}

const char *ev_pack_kind(const ev_pack *p) { return p->head->kind; }
const char *ev_pack_path(const ev_pack *p) { return p->path; }
size_t ev_pack_size(const ev_pack *p) { return p->head->n_arrays; }

void ev_pack_hash(const ev_pack *p, ev_hash *out) {
  /* Names, shapes and checksums stand for the content; offsets and the path do not matter. */
  ev_hash_of(out, p->head->kind, sizeof p->head->kind);
  for (size_t i = 0; i < p->head->n_arrays; i++) { /* a chain of hashes needs no memory */
    struct {
      ev_hash before;
      entry e;
    } link = {*out, p->table[i]};
    link.e.offset = 0;
    ev_hash_of(out, &link, sizeof link);
  }
}

const char *ev_pack_name(const ev_pack *p, size_t i, ev_array *out) {
  const entry *e = &p->table[i];
  *out = (ev_array){(const uint8_t *)p->map.data + e->offset, (ev_dtype)e->dtype, e->rows, e->cols};
  return e->name;
}

bool ev_pack_find(const ev_pack *p, const char *name, ev_array *out) {
  for (size_t i = 0; i < p->head->n_arrays; i++)
    if (strcmp(ev_pack_name(p, i, out), name) == 0) return true;
  *out = (ev_array){0};
  return false;
}

uint64_t ev_pack_offset(const ev_pack *p, const ev_array *a) { return (uint64_t)((const uint8_t *)a->data - (const uint8_t *)p->map.data); }

bool ev_pack_current(const ev_pack *p) { return ev_map_current(&p->map, p->path); }

ev_status ev_pack_get(const ev_pack *p, const char *name, ev_dtype dtype, ev_array *out) {
  if (!ev_pack_find(p, name, out)) return ev_fail(EV_ECORRUPT, "%s: no array '%s'", p->path, name);
  if (out->dtype != dtype) return ev_fail(EV_ECORRUPT, "%s: array '%s' is of another type", p->path, name);
  return EV_OK;
}
