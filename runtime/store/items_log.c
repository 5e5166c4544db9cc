/* items_log.c - the write-ahead log of the live table.
 *
 *   head (256 bytes)   magic, generation, number of the first record, salt, the table's options, checksum
 *   record, record, …  each: a head of 40 bytes and a payload, a multiple of 8 bytes
 *     u64 check   XXH3 of salt, generation and the four words below
 *     u64 seq     one more than the record before
 *     u64 base    offset at which the write began that this record was part of
 *     u64 length  of the payload
 *     u64 sum     XXH3 of the payload
 *
 * A file is made whole beside its name and renamed, so its head is never torn. Records are appended in writes that are synced
 * before anybody is told; the next write begins after that. So a record whose base lies behind offset p proves that all before p
 * was on disk once. That tells a torn tail from damage. What is wrong at p, with no such record behind it, may belong to a write
 * that was cut off: then the file ends too early, or a sector of it is empty, for disks write sectors whole and in any order. Such
 * a tail is cut. Anything else that is wrong is corruption. Because a record's head has a checksum of its own, looking for one
 * costs a pass over the rest and no more. The salt keeps bytes that a user stored from passing for one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "items.h"

#define MAGIC "EVITEMS\1"
#define WINDOW ((size_t)1 << 20)
#define PIECES 64
#define SECTOR 512      /* or a multiple of it, of any disk */
#define EMPTY_LEAST 16  /* bytes of a sector within a record: more than a record's padding */

typedef struct log_head {
  char magic[8];
  uint64_t generation, first, salt;
  items_options options;
  uint64_t reserved[15];
  uint64_t checksum; /* of the bytes before it */
} log_head;
_Static_assert(sizeof(log_head) == 256, "the head is 256 bytes");

typedef struct record_head {
  uint64_t check, seq, base, length, sum;
} record_head;
_Static_assert(sizeof(record_head) == ITEMS_RECORD_HEAD, "a record's head is 40 bytes");

static uint64_t check_of(const items_log *l, const record_head *h) {
  const uint64_t words[6] = {l->salt, l->generation, h->seq, h->base, h->length, h->sum};
  return ev_checksum(words, sizeof words);
}

/* ---- Options --------------------------------------------------------------------------------------------*/
void items_options_pack(items_options *out, const ev_index_options *o) {
  *out = (items_options){.n_dims = o->n_dims, .max_rows = o->max_rows, .seed = o->seed, .rescore = o->rescore, .n_links = o->n_links,
                         .effort_build = o->effort_build, .n_lists = o->n_lists, .effort = o->effort};
  snprintf(out->kind, sizeof out->kind, "%s", o->kind);
  snprintf(out->metric, sizeof out->metric, "%s", o->metric);
  snprintf(out->form, sizeof out->form, "%s", o->form);
}

ev_status items_options_unpack(ev_index_options *out, const items_options *o, const char *path) {
  if (memchr(o->kind, '\0', sizeof o->kind) == NULL || memchr(o->metric, '\0', sizeof o->metric) == NULL || memchr(o->form, '\0', sizeof o->form) == NULL ||
      o->zero != 0 || o->rescore > 1)
    return ev_fail(EV_ECORRUPT, "%s: the table's options make no sense", path);
  *out = (ev_index_options){.kind = o->kind, .metric = o->metric, .form = o->form, .rescore = o->rescore != 0, .n_dims = o->n_dims, .max_rows = o->max_rows,
                            .n_links = o->n_links, .effort_build = o->effort_build, .n_lists = o->n_lists, .effort = o->effort, .seed = o->seed};
  return EV_OK;
}

/* ---- Files ----------------------------------------------------------------------------------------------*/
ev_status items_sync_folder(const char *folder) {
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ev_fail_errno("%s", folder);
  ev_status status = fsync(fd) == 0 ? EV_OK : ev_fail_errno("%s: cannot sync", folder);
  close(fd);
  return status;
}

void items_log_close(items_log *l) {
  if (l->path != NULL && l->fd >= 0) close(l->fd);
  ev_free(l->path);
  *l = (items_log){.fd = -1};
}

ev_status items_log_create(items_log *out, const char *path, uint64_t generation, uint64_t first, const items_options *o) {
  ev_writer *w;
  log_head h = {.magic = MAGIC, .generation = generation, .first = first, .options = *o};
  *out = (items_log){.fd = -1};
  if (getrandom(&h.salt, sizeof h.salt, 0) != (ssize_t)sizeof h.salt) h.salt = ev_now_ns() ^ (uint64_t)getpid() << 40;
  h.checksum = ev_checksum(&h, offsetof(log_head, checksum));
  if (access(path, F_OK) == 0) return ev_fail(EV_EEXIST, "%s: is there already", path);
  EV_TRY(ev_writer_open(&w, path));
  ev_status status = ev_writer_write(w, &h, sizeof h);
  if (status != EV_OK) {
    ev_writer_abort(w);
    return status;
  }
  EV_TRY(ev_writer_commit(w));
  status = items_log_open(out, path, generation, false);
  char folder[4096];
  const char *slash = strrchr(path, '/');
  snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 1 : (int)(slash - path), slash == NULL ? "." : path);
  if (status == EV_OK) status = items_sync_folder(folder);
  if (status != EV_OK) items_log_close(out);
  return status;
}

ev_status items_log_open(items_log *out, const char *path, uint64_t generation, bool read_only) {
  log_head h;
  *out = (items_log){.fd = -1};
  out->path = ev_strndup(path, strlen(path));
  if (out->path == NULL) return EV_ENOMEM;
  out->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
  ev_status status = EV_OK;
  ssize_t n = 0;
  if (out->fd < 0) status = ev_fail_errno("%s", path);
  else if ((n = pread(out->fd, &h, sizeof h, 0)) < 0) status = ev_fail_errno("%s: cannot read", path);
  else if (n < (ssize_t)sizeof h) status = ev_fail(EV_ECORRUPT, "%s: %zd bytes are no log", path, n);
  else if (memcmp(h.magic, MAGIC, sizeof h.magic) != 0) status = ev_fail(EV_ECORRUPT, "%s: not a log of items, or one of another format", path);
  else if (ev_checksum(&h, offsetof(log_head, checksum)) != h.checksum) status = ev_fail(EV_ECORRUPT, "%s: offset 0: the head fails its checksum", path);
  else if (h.generation != generation) status = ev_fail(EV_ECORRUPT, "%s: is the log of generation %llu", path, (unsigned long long)h.generation);
  if (status != EV_OK) {
    items_log_close(out);
    return status;
  }
  out->generation = generation;
  out->salt = h.salt;
  out->first = h.first;
  out->options = h.options;
  out->end = sizeof h;
  return EV_OK;
}

/* ---- Reading --------------------------------------------------------------------------------------------*/
typedef struct reading { /* a window over the file */
  const items_log *l;
  uint64_t size;
  ev_buf buf;
  uint64_t at; /* file offset of its first byte */
} reading;

/* len bytes at an offset, both multiples of 8, within the size: 8-byte aligned, until the next call. */
static ev_status window(reading *r, uint64_t offset, size_t len, const void **out) {
  if (offset < r->at || offset + len > r->at + r->buf.len) {
    size_t want = len > WINDOW ? len : WINDOW, got = 0;
    if (want > r->size - offset) want = (size_t)(r->size - offset);
    r->buf.len = 0;
    EV_TRY(ev_buf_reserve(&r->buf, want));
    while (got < want) {
      ssize_t n = pread(r->l->fd, r->buf.data + got, want - got, (off_t)(offset + got));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ev_fail_errno("%s: cannot read", r->l->path);
      if (n == 0) break;
      got += (size_t)n;
    }
    if (got < len) return ev_fail(EV_EIO, "%s: became shorter while it was read", r->l->path);
    r->at = offset;
    r->buf.len = got;
  }
  *out = r->buf.data + (offset - r->at);
  return EV_OK;
}

static bool sound_head(const items_log *l, const record_head *h, uint64_t offset) {
  return h->base <= offset && h->length % 8 == 0 && h->length <= ITEMS_CALL_MAX && check_of(l, h) == h->check;
}

/* Whether what is wrong at an offset, up to the file's end, can be the rest of a write that was cut off. */
static ev_status is_torn(reading *r, uint64_t wrong, bool ends_early, bool *out) {
  const void *p;
  uint64_t empty = 0; /* bytes in a row that are zero, since the sector's begin */
  *out = ends_early;
  for (uint64_t at = wrong; at + 8 <= r->size; at += 8) {
    record_head h;
    uint64_t word;
    if (at % SECTOR == 0) empty = 0;
    EV_TRY(window(r, at, 8, &p));
    memcpy(&word, p, sizeof word);
    if (at == wrong || at % SECTOR == 0 || empty > 0) empty = word == 0 ? empty + 8 : 0;
    if (empty >= EMPTY_LEAST && ((at + 8) % SECTOR == 0 || at + 16 > r->size)) *out = true;
    if (at == wrong || at + sizeof h > r->size) continue;
    EV_TRY(window(r, at, sizeof h, &p));
    memcpy(&h, p, sizeof h);
    if (h.base <= wrong || !sound_head(r->l, &h, at)) continue;
    *out = false; /* a later write: this one was acknowledged */
    break;
  }
  return EV_OK;
}

/* The record at l->end. *whole false: there is none that holds, and *why says what is wrong. */
static ev_status read_record(reading *r, uint64_t seq, record_head *h, const void **payload, bool *whole, bool *short_file, const char **why) {
  const void *p;
  uint64_t at = r->l->end, left = r->size - at;
  *whole = false;
  *short_file = true;
  *why = "a record is cut short";
  if (left < sizeof *h) return EV_OK;
  EV_TRY(window(r, at, sizeof *h, &p));
  memcpy(h, p, sizeof *h);
  *short_file = false;
  *why = "a record's head fails its checksum";
  if (!sound_head(r->l, h, at)) return EV_OK;
  *short_file = true;
  *why = "a record is cut short";
  if (h->length > left - sizeof *h) return EV_OK;
  *short_file = false;
  EV_TRY(window(r, at, sizeof *h + h->length, &p));
  *payload = (const char *)p + sizeof *h;
  *why = "a record fails its checksum";
  if (ev_checksum(*payload, h->length) != h->sum) return EV_OK;
  *whole = true;
  if (h->seq == seq) return EV_OK;
  return ev_fail(EV_ECORRUPT, "%s: offset %llu: a record has the number %llu, not %llu", r->l->path, (unsigned long long)at, (unsigned long long)h->seq, (unsigned long long)seq);
}

ev_status items_log_replay(items_log *l, uint64_t *seq, bool last, items_log_fn *fn, void *ctx, uint64_t *cut) {
  struct stat st;
  if (fstat(l->fd, &st) != 0) return ev_fail_errno("%s", l->path);
  reading r = {.l = l, .size = (uint64_t)st.st_size};
  ev_status status = EV_OK;
  while (l->end < r.size && status == EV_OK) {
    record_head h;
    const void *payload = NULL;
    const char *why = "";
    bool whole, ends_early, torn = false;
    uint64_t at = l->end;
    status = read_record(&r, *seq + 1, &h, &payload, &whole, &ends_early, &why);
    if (status != EV_OK) break;
    if (whole) {
      status = fn(ctx, payload, h.length, h.seq);
      if (status == EV_OK) *seq = h.seq, l->end = at + sizeof h + h.length;
      else if (status != EV_ENOMEM && status != EV_EINTR && status != EV_EIO)
        status = ev_fail(EV_ECORRUPT, "%s: offset %llu: %s", l->path, (unsigned long long)at, ev_error());
      continue;
    }
    if (last) status = is_torn(&r, at, ends_early || r.size % 8 != 0, &torn);
    if (status != EV_OK) break;
    if (torn) {
      *cut = r.size - at;
      break;
    }
    status = ev_fail(EV_ECORRUPT, "%s: offset %llu: %s", l->path, (unsigned long long)at, why);
  }
  ev_buf_free(&r.buf);
  return status;
}

/* ---- Writing --------------------------------------------------------------------------------------------*/
ev_status items_log_cut(items_log *l) {
  if (ftruncate(l->fd, (off_t)l->end) != 0) return ev_fail_errno("%s: cannot cut at %llu", l->path, (unsigned long long)l->end);
  return fdatasync(l->fd) == 0 ? EV_OK : ev_fail_errno("%s: cannot sync", l->path);
}

static ev_status write_all(items_log *l, struct iovec *v, int n, uint64_t *offset) {
  while (n > 0) {
    ssize_t done = pwritev(l->fd, v, n, (off_t)*offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return ev_fail_errno("%s: cannot write", l->path);
    *offset += (uint64_t)done;
    for (; n > 0 && (size_t)done >= v->iov_len; v++, n--) done -= (ssize_t)v->iov_len;
    if (n > 0) v->iov_base = (char *)v->iov_base + done, v->iov_len -= (size_t)done;
  }
  return EV_OK;
}

ev_status items_log_append(items_log *l, ev_buf *const *bufs, size_t n, uint64_t seq, bool *usable) {
  struct iovec pieces[PIECES];
  uint64_t offset = l->end;
  ev_status status = EV_OK;
  for (size_t i = 0; i < n && status == EV_OK;) {
    int used = 0;
    for (; i < n && used < PIECES; i++) {
      size_t length = bufs[i]->len - ITEMS_RECORD_HEAD;
      record_head h = {.seq = seq + i, .base = l->end, .length = length, .sum = ev_checksum(bufs[i]->data + ITEMS_RECORD_HEAD, length)};
      h.check = check_of(l, &h);
      memcpy(bufs[i]->data, &h, sizeof h);
      pieces[used++] = (struct iovec){bufs[i]->data, bufs[i]->len};
    }
    status = write_all(l, pieces, used, &offset);
  }
  *usable = true;
  if (status == EV_OK && fdatasync(l->fd) != 0) {
    /* What is in the page cache may never reach the disk, and a second sync would not say so: nothing more is written. */
    status = ev_fail_errno("%s: cannot sync", l->path);
    *usable = false;
  }
  if (status == EV_OK) {
    l->end = offset;
    return EV_OK;
  }
  char why[1024];
  snprintf(why, sizeof why, "%s", ev_error());
  if (items_log_cut(l) != EV_OK) *usable = false;
  return ev_fail(status, "%s", why);
}
