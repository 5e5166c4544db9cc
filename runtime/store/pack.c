/* pack.c - one file of named, typed arrays.
 *
 *   header (128 bytes)  magic, number of arrays, table offset, file size, kind, table checksum, header checksum
 *   array, array, …     each starts on a 64-byte boundary; the gap before it is zero
 *   table               one entry of 96 bytes an array: name, type, shape, offset, checksum
 *
 * Everything is little-endian and naturally aligned, so that a mapped file is used as it lies. The table comes last
 * because arrays are written as they are made. Every byte is covered: by a checksum, or as a gap that must be zero. */
#include <stdio.h>
#include <string.h>

#include "store.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packs are mapped as they lie: a little-endian machine is needed"
#endif

#define MAGIC "EVPACK\0\1"
#define ALIGN 64
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
};

size_t ev_dtype_size(ev_dtype t) {
  static const size_t sizes[] = {1, 4, 8, 8, 4, 8};
  return (size_t)t < sizeof sizes / sizeof *sizes ? sizes[t] : 0;
}

/* ---- Writing -------------------------------------------------------------------------------------------*/
static ev_status pad(ev_writer *w, uint64_t multiple) {
  static const char zeros[ALIGN];
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

ev_status ev_pack_write(ev_pack_writer *w, const char *name, ev_dtype dtype, const void *data, size_t rows, size_t cols) {
  size_t count, bytes;
  if (strlen(name) >= sizeof w->table->name) return ev_fail(EV_EINVAL, "'%s' is too long for an array's name", name);
  if (w->n == ARRAYS_MAX) return ev_fail(EV_ELIMIT, "a pack holds at most %d arrays", ARRAYS_MAX);
  for (size_t i = 0; i < w->n; i++)
    if (strcmp(w->table[i].name, name) == 0) return ev_fail(EV_EEXIST, "the pack has an array '%s' already", name);
  if (__builtin_mul_overflow(rows, cols, &count) || __builtin_mul_overflow(count, ev_dtype_size(dtype), &bytes))
    return ev_fail(EV_ENOMEM, "array '%s' of %zu x %zu is too large", name, rows, cols);
  if (w->n == w->cap) {
    size_t cap = w->cap == 0 ? 16 : 2 * w->cap;
    entry *table = ev_resize(w->table, cap, sizeof *table);
    if (table == NULL) return EV_ENOMEM;
    w->table = table;
    w->cap = cap;
  }
  EV_TRY(pad(w->file, ALIGN));
  entry *e = &w->table[w->n];
  memset(e, 0, sizeof *e);
  memcpy(e->name, name, strlen(name));
  e->dtype = dtype;
  e->rows = rows;
  e->cols = cols;
  e->offset = ev_writer_offset(w->file);
  e->checksum = ev_checksum(data, bytes);
  EV_TRY(ev_writer_write(w->file, data, bytes));
  w->n++;
  return EV_OK;
}

void ev_pack_writer_abort(ev_pack_writer *w) {
  if (w == NULL) return;
  ev_writer_abort(w->file);
  ev_free(w->table);
  ev_free(w);
}

ev_status ev_pack_writer_commit(ev_pack_writer *w) {
  header h = {.magic = MAGIC, .n_arrays = w->n};
  memcpy(h.kind, w->kind, sizeof h.kind);
  ev_status status = pad(w->file, ALIGN);
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
  if (e->offset - *at >= ALIGN || !all_zero(p, *at, e->offset)) return ev_fail(EV_ECORRUPT, "the gap before array '%s' is not empty", e->name);
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
ev_status ev_pack_open(ev_pack **out, const char *path) {
  *out = NULL;
  ev_pack *p = ev_zalloc(1, sizeof *p);
  if (p == NULL) return EV_ENOMEM;
  ev_status status = EV_ENOMEM;
  p->path = ev_strndup(path, strlen(path));
  if (p->path == NULL) goto fail;
  status = ev_map_open(&p->map, path);
  if (status != EV_OK) goto fail;
  status = ev_pack_validate(p->map.data, p->map.size, true);
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

ev_status ev_pack_get(const ev_pack *p, const char *name, ev_dtype dtype, ev_array *out) {
  if (!ev_pack_find(p, name, out)) return ev_fail(EV_ECORRUPT, "%s: no array '%s'", p->path, name);
  if (out->dtype != dtype) return ev_fail(EV_ECORRUPT, "%s: array '%s' is of another type", p->path, name);
  return EV_OK;
}
