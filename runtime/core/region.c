/* region.c - memory that grows in place.
 *
 * Address space costs nothing until it is used, so a region takes all it may ever need at once, without access, and opens
 * it from the front as it grows. realloc would move the block under its readers; a list of chunks would cost every reader
 * one more load a row. The base lies on a huge page's boundary, and beyond the first huge page growth goes by whole ones:
 * rows that are visited at random then cost one walk of the page table where small pages cost a walk each. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"

#define HUGE_BYTES ((size_t)2 << 20)
#define STEP_BYTES ((size_t)64 << 10) /* within the first huge page, and a multiple of every page size */

static size_t up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

ev_status ev_region_open(ev_region *r, size_t limit) {
  *r = (ev_region){0};
  if (limit > SIZE_MAX / 4) return ev_fail(EV_ENOMEM, "out of memory: a region of %zu bytes", limit);
  if (ev_mem_fails()) return EV_ENOMEM;
  size_t size = up(limit == 0 ? 1 : limit, HUGE_BYTES), all = size + HUGE_BYTES;
  char *p = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return ev_fail(EV_ENOMEM, "cannot reserve %zu bytes of address space: %s", all, strerror(errno));
  size_t before = up((uintptr_t)p, HUGE_BYTES) - (uintptr_t)p, after = HUGE_BYTES - before;
  if (before > 0) munmap(p, before);
  if (after > 0) munmap(p + before + size, after);
  *r = (ev_region){p + before, 0, size};
  return EV_OK;
}

ev_status ev_region_grow(ev_region *r, size_t size) {
  if (size <= r->size) return EV_OK;
  if (size > r->limit) return ev_fail(EV_ELIMIT, "a region of %zu bytes cannot hold %zu", r->limit, size);
  if (ev_mem_fails()) return EV_ENOMEM;
  size_t least = r->size + r->size / 8;
  if (size < least) size = least;
  size = up(size, size <= HUGE_BYTES / 2 ? STEP_BYTES : HUGE_BYTES);
  if (size > r->limit) size = r->limit;
  if (mprotect(r->base + r->size, size - r->size, PROT_READ | PROT_WRITE) != 0) return ev_fail(EV_ENOMEM, "cannot grow a region to %zu bytes: %s", size, strerror(errno));
  size_t huge = up(r->size, HUGE_BYTES);
  if (size > huge) madvise(r->base + huge, size - huge, MADV_HUGEPAGE); /* a wish: without it everything works, slower */
  r->size = size;
  return EV_OK;
}

static ev_status read_all(int fd, char *to, size_t size, uint64_t offset, const char *path) {
  while (size > 0) {
    ssize_t n = pread(fd, to, size, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ev_fail_errno("%s: cannot read", path);
    if (n == 0) return ev_fail(EV_ECORRUPT, "%s: cut short", path);
    to += n;
    offset += (uint64_t)n;
    size -= (size_t)n;
  }
  return EV_OK;
}

/* Whole pages are the file's; what is left of the last one is read, so that the bytes behind it are zero. */
ev_status ev_region_map(ev_region *r, const char *path, uint64_t offset, size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = size / page * page;
  if (r->size != 0) return ev_fail(EV_EINVAL, "%s: mapped into a region that is in use", path);
  if (size > r->limit) return ev_fail(EV_ELIMIT, "%s: a region of %zu bytes cannot hold %zu", path, r->limit, size);
  if (offset % page != 0) return ev_fail(EV_EINVAL, "%s: offset %llu is not on a page boundary", path, (unsigned long long)offset);
  if (size == 0) return EV_OK;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ev_fail_errno("%s", path);
  struct stat st;
  ev_status status = EV_OK;
  if (fstat(fd, &st) != 0) {
    status = ev_fail_errno("%s", path);
  } else if ((uint64_t)st.st_size < size || (uint64_t)st.st_size - size < offset) {
    status = ev_fail(EV_ECORRUPT, "%s: cut short", path); /* reading mapped pages behind its end would be a signal */
  } else if (ev_mem_fails()) {
    status = EV_ENOMEM;
  } else if (whole > 0) {
    if (mmap(r->base, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset) == MAP_FAILED)
      status = ev_fail_errno("%s: cannot map", path); /* the reservation stays where it was */
    else r->size = whole;
  }
  if (status == EV_OK && size > whole) status = ev_region_grow(r, size);
  if (status == EV_OK && size > whole) status = read_all(fd, r->base + whole, size - whole, offset + whole, path);
  close(fd);
  return status;
}

void ev_region_close(ev_region *r) {
  if (r->base != NULL) munmap(r->base, r->limit);
  *r = (ev_region){0};
}
