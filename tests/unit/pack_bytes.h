/* pack_bytes.h - what the tests of packs and of snapshots share: files as bytes, changed and sealed again. */
#ifndef TESTS_PACK_BYTES_H
#define TESTS_PACK_BYTES_H

#include <fcntl.h>
#include <math.h>

#include "store/store.h"
#include "support.h"

typedef struct bytes { /* a file in memory, where a mapping would lie: aligned, and not a byte longer */
  uint8_t *data;
  size_t size;
} bytes;

static bytes read_bytes(const char *path) {
  ev_buf b = {0};
  bytes out;
  assert_int_equal(ev_file_read(&b, path, 1 << 24), EV_OK);
  assert_int_equal(posix_memalign((void **)&out.data, 64, b.len), 0);
  memcpy(out.data, b.data, b.len);
  out.size = b.len;
  ev_buf_free(&b);
  return out;
}

static void rewrite(const char *path, const uint8_t *data, size_t size) { /* in place: truncating to nothing makes file systems flush */
  int fd = open(path, O_WRONLY | O_CREAT, 0644);
  assert_true(fd >= 0 && pwrite(fd, data, size, 0) == (ssize_t)size && ftruncate(fd, (off_t)size) == 0);
  close(fd);
}

static ev_status write_small(const char *path, const char *kind, float first) {
  const float numbers[3] = {first, -1, NAN};
  const uint8_t letters[5] = "abcde";
  const uint64_t wide[4] = {1, 2, 3, UINT64_MAX};
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, kind));
  ev_status status = ev_pack_write(w, "numbers", EV_F32, numbers, 3, 1);
  if (status == EV_OK) status = ev_pack_write(w, "letters", EV_U8, letters, 5, 1);
  if (status == EV_OK) status = ev_pack_write(w, "nothing", EV_I64, NULL, 0, 3);
  if (status == EV_OK) status = ev_pack_write(w, "wide", EV_U64, wide, 2, 2);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

/* Layout of pack.c: header of 128 bytes, table of 96 bytes an array at the offset in the header. */
static uint64_t *word(bytes b, size_t at) { return (uint64_t *)(void *)(b.data + at); }

static void seal(bytes b) { /* header and table pass their checksums again */
  *word(b, 64) = ev_checksum(b.data + *word(b, 16), b.size - *word(b, 16));
  *word(b, 120) = ev_checksum(b.data, 120);
}

#endif
