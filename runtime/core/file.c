/* file.c - mapped reading and atomic writing.
 *
 * A writer fills "PATH.tmp.PID" and renames it over PATH after fsync, then syncs the folder: a reader sees
 * the old file or the new one, and a crash leaves at most the temporary file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"

#define BUFFER_BYTES (1u << 16)

ev_status ev_map_open(ev_map *out, const char *path) {
  *out = (ev_map){0};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ev_fail_errno("%s", path);
  struct stat st;
  ev_status status = EV_OK;
  if (fstat(fd, &st) != 0) {
    status = ev_fail_errno("%s", path);
  } else if (!S_ISREG(st.st_mode)) {
    status = ev_fail(EV_EINVAL, "%s: not a regular file", path);
  } else if (st.st_size > 0) {
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) status = ev_fail_errno("%s: cannot map", path);
    else *out = (ev_map){p, (size_t)st.st_size, st.st_dev, st.st_ino};
  }
  close(fd);
  return status;
}

void ev_map_close(ev_map *m) {
  if (m->data != NULL) munmap((void *)(uintptr_t)m->data, m->size);
  *m = (ev_map){0};
}

bool ev_map_current(const ev_map *m, const char *path) { /* a mapped file's number is not given to another */
  struct stat st;
  return m->data != NULL && stat(path, &st) == 0 && st.st_dev == m->device && st.st_ino == m->file;
}

struct ev_writer {
  int fd;
  char *path, *temporary; /* owned */
  uint64_t offset;        /* bytes taken so far, the buffered ones too */
  size_t used;            /* bytes in the buffer */
  char buffer[BUFFER_BYTES];
};

ev_status ev_writer_open(ev_writer **out, const char *path) {
  *out = NULL;
  ev_writer *w = ev_alloc(1, sizeof *w);
  if (w == NULL) return EV_ENOMEM;
  size_t len = strlen(path);
  w->path = ev_strndup(path, len);
  w->temporary = ev_alloc(len + 32, 1);
  w->fd = -1;
  w->offset = w->used = 0;
  ev_status status = EV_ENOMEM;
  if (w->path == NULL || w->temporary == NULL) goto fail;
  snprintf(w->temporary, len + 32, "%s.tmp.%ld", path, (long)getpid());
  w->fd = open(w->temporary, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
  if (w->fd < 0) {
    status = ev_fail_errno("%s: cannot write", path);
    goto fail;
  }
  *out = w;
  return EV_OK;
fail:
  ev_free(w->path);
  ev_free(w->temporary);
  ev_free(w);
  return status;
}

static ev_status put(ev_writer *w, const char *data, size_t len, off_t offset) {
  while (len > 0) {
    ssize_t n = pwrite(w->fd, data, len, offset);
    if (n < 0) {
      if (errno == EINTR) continue;
      return ev_fail_errno("%s: cannot write", w->path);
    }
    data += n;
    offset += n;
    len -= (size_t)n;
  }
  return EV_OK;
}

static ev_status flush(ev_writer *w) {
  EV_TRY(put(w, w->buffer, w->used, (off_t)(w->offset - w->used)));
  w->used = 0;
  return EV_OK;
}

ev_status ev_writer_write(ev_writer *w, const void *data, size_t len) {
  if (len > BUFFER_BYTES - w->used) EV_TRY(flush(w));
  if (len >= BUFFER_BYTES) {
    EV_TRY(put(w, data, len, (off_t)w->offset));
  } else if (len > 0) {
    memcpy(w->buffer + w->used, data, len);
    w->used += len;
  }
  w->offset += len;
  return EV_OK;
}

ev_status ev_writer_pwrite(ev_writer *w, const void *data, size_t len, uint64_t offset) {
  if (offset + len > w->offset) return ev_fail(EV_EINVAL, "%s: overwrite behind the end", w->path);
  EV_TRY(flush(w));
  return put(w, data, len, (off_t)offset);
}

uint64_t ev_writer_offset(const ev_writer *w) { return w->offset; }

static void release(ev_writer *w) {
  if (w->fd >= 0) close(w->fd);
  ev_free(w->path);
  ev_free(w->temporary);
  ev_free(w);
}

/* A rename is durable once its folder is synced. Folders that cannot be opened (no read right) are let be. */
static void sync_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  char folder[4096];
  size_t len = slash == NULL ? 0 : (size_t)(slash - path);
  if (len >= sizeof folder) return;
  if (slash == NULL) strcpy(folder, ".");
  else if (len == 0) strcpy(folder, "/");
  else memcpy(folder, path, len), folder[len] = '\0';
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

ev_status ev_writer_commit(ev_writer *w) {
  ev_status status = flush(w);
  if (status == EV_OK && fsync(w->fd) != 0) status = ev_fail_errno("%s: cannot sync", w->path);
  if (status == EV_OK && rename(w->temporary, w->path) != 0) status = ev_fail_errno("%s: cannot rename", w->path);
  if (status == EV_OK) sync_folder(w->path);
  else unlink(w->temporary);
  release(w);
  return status;
}

void ev_writer_abort(ev_writer *w) {
  if (w == NULL) return;
  unlink(w->temporary);
  release(w);
}

ev_status ev_mkdirs(const char *path) {
  char part[4096];
  size_t len = strlen(path);
  if (len == 0 || len >= sizeof part) return ev_fail(EV_EINVAL, "'%.64s': not a folder name", path);
  for (size_t i = 0; i <= len; i++) {
    part[i] = path[i];
    if (i == 0 || (path[i] != '/' && path[i] != '\0')) continue;
    part[i] = '\0';
    struct stat st;
    if (mkdir(part, 0755) != 0 && (errno != EEXIST || stat(part, &st) != 0 || !S_ISDIR(st.st_mode))) {
      if (errno == EEXIST) errno = ENOTDIR;
      return ev_fail_errno("%s: cannot make the folder", part);
    }
    part[i] = path[i];
  }
  return EV_OK;
}

bool ev_file_exists(const char *path) { return access(path, F_OK) == 0; }

ev_status ev_file_read(ev_buf *out, const char *path, size_t max_bytes) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ev_fail_errno("%s", path);
  ev_status status = EV_OK;
  size_t start = out->len;
  for (;;) {
    status = ev_buf_reserve(out, 4096);
    if (status != EV_OK) break;
    ssize_t n = read(fd, out->data + out->len, out->cap - out->len - 1);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      status = ev_fail_errno("%s", path);
      break;
    }
    out->len += (size_t)n;
    out->data[out->len] = '\0';
    if (out->len - start > max_bytes) {
      status = ev_fail(EV_ELIMIT, "%s: larger than %zu bytes", path, max_bytes);
      break;
    }
    if (n == 0) break;
  }
  close(fd);
  if (status != EV_OK && out->data != NULL) out->data[out->len = start] = '\0';
  return status;
}
