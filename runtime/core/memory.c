/* memory.c - checked allocation with fault injection for tests, and the growable buffer.
 *
 * Blocks come from aligned_alloc or realloc, so that free() releases either; 64 bytes is a cache line and
 * the widest vector register. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core.h"

#define ALIGNMENT 64

static _Thread_local int64_t fail_at = -1;

void ev_mem_fail_at(int64_t n) { fail_at = n; }

bool ev_mem_fails(void) {
  if (fail_at < 0 || fail_at-- > 0) return false;
  ev_fail(EV_ENOMEM, "out of memory (planted by a test)");
  return true;
}

/* The size of n * size bytes, or false with the error set (overflow, or a planted failure). */
static bool admit(size_t n, size_t size, size_t *bytes) {
  if (ev_mem_fails()) return false;
  if (__builtin_mul_overflow(n, size, bytes) || *bytes > SIZE_MAX / 2) {
    ev_fail(EV_ENOMEM, "out of memory: %zu times %zu bytes", n, size);
    return false;
  }
  return true;
}

void *ev_alloc(size_t n, size_t size) {
  size_t bytes;
  if (!admit(n, size, &bytes)) return NULL;
  size_t rounded = bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  void *p = aligned_alloc(ALIGNMENT, rounded);
  if (p == NULL) ev_fail(EV_ENOMEM, "out of memory: %zu bytes", bytes);
  return p;
}

void *ev_zalloc(size_t n, size_t size) {
  void *p = ev_alloc(n, size);
  if (p != NULL) memset(p, 0, n * size);
  return p;
}

void *ev_resize(void *p, size_t n, size_t size) {
  size_t bytes;
  if (!admit(n, size, &bytes)) return NULL;
  void *q = realloc(p, bytes == 0 ? 1 : bytes);
  if (q == NULL) ev_fail(EV_ENOMEM, "out of memory: %zu bytes", bytes);
  return q;
}

char *ev_strndup(const char *s, size_t len) {
  char *copy = ev_alloc(len + 1, 1);
  if (copy == NULL) return NULL;
  memcpy(copy, s, len);
  copy[len] = '\0';
  return copy;
}

void ev_free(void *p) { free(p); }

uint64_t ev_peak_rss_bytes(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (uint64_t)u.ru_maxrss * 1024;
}

ev_status ev_buf_reserve(ev_buf *b, size_t extra) {
  size_t need;
  if (__builtin_add_overflow(b->len, extra, &need) || need == SIZE_MAX)
    return ev_fail(EV_ENOMEM, "out of memory: buffer of %zu + %zu bytes", b->len, extra);
  need += 1; /* the NUL */
  if (need <= b->cap) return EV_OK;
  size_t cap = b->cap < 64 ? 64 : b->cap;
  while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
  char *data = ev_resize(b->data, cap, 1);
  if (data == NULL) return EV_ENOMEM;
  b->data = data;
  b->cap = cap;
  return EV_OK;
}

ev_status ev_buf_append(ev_buf *b, const void *data, size_t len) {
  EV_TRY(ev_buf_reserve(b, len));
  if (len > 0) memcpy(b->data + b->len, data, len);
  b->len += len;
  b->data[b->len] = '\0';
  return EV_OK;
}

ev_status ev_buf_printf(ev_buf *b, const char *fmt, ...) {
  va_list args, again;
  va_start(args, fmt);
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, fmt, args);
  va_end(args);
  ev_status st = n < 0 ? ev_fail(EV_EINVAL, "cannot format text") : ev_buf_reserve(b, (size_t)n);
  if (st == EV_OK) {
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
    b->len += (size_t)n;
  }
  va_end(again);
  return st;
}

ev_status ev_buf_quoted(ev_buf *out, const char *s, size_t len) {
  EV_TRY(ev_buf_append(out, "\"", 1));
  size_t start = 0;
  for (size_t i = 0; i < len; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    EV_TRY(ev_buf_append(out, s + start, i - start));
    if (c == '"' || c == '\\') EV_TRY(ev_buf_printf(out, "\\%c", c));
    else if (c == '\n') EV_TRY(ev_buf_append(out, "\\n", 2));
    else EV_TRY(ev_buf_printf(out, "\\u%04x", c));
    start = i + 1;
  }
  EV_TRY(ev_buf_append(out, s + start, len - start));
  return ev_buf_append(out, "\"", 1);
}

void ev_buf_clear(ev_buf *b) {
  b->len = 0;
  if (b->data != NULL) b->data[0] = '\0';
}

void ev_buf_free(ev_buf *b) {
  ev_free(b->data);
  *b = (ev_buf){0};
}
