/* index_protocol.h - how index.py speaks with the programs it measures, in C and C++.
 *
 * One command a line, "verb key=value …" without spaces in a value, answered by one line of JSON. The programs stay up
 * and take turns, so that ours and a peer are timed within seconds of each other. What goes wrong ends the program. */
#ifndef INDEX_PROTOCOL_H
#define INDEX_PROTOCOL_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char command_line[4096], *command_key[64], *command_value[64];
static int command_size;

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *fmt, ...) {
  va_list a;
  va_start(a, fmt);
  vfprintf(stderr, fmt, a);
  va_end(a);
  fputc('\n', stderr);
  exit(1);
}

static inline const char *command_read(void) { /* the verb, or NULL at the end */
  if (fgets(command_line, sizeof command_line, stdin) == NULL) return NULL;
  char *verb = strtok(command_line, " \n");
  command_size = 0;
  for (char *word; (word = strtok(NULL, " \n")) != NULL && command_size < 64; command_size++) {
    char *equals = strchr(word, '=');
    if (equals == NULL) die("%s: no =", word);
    *equals = '\0';
    command_key[command_size] = word;
    command_value[command_size] = equals + 1;
  }
  return verb == NULL ? "" : verb;
}

static inline const char *text_or(const char *key, const char *fallback) {
  for (int i = 0; i < command_size; i++)
    if (strcmp(command_key[i], key) == 0) return command_value[i];
  return fallback;
}

static inline const char *text(const char *key) {
  const char *value = text_or(key, NULL);
  if (value == NULL) die("no %s", key);
  return value;
}

static inline size_t number_or(const char *key, size_t fallback) {
  const char *value = text_or(key, NULL);
  return value == NULL ? fallback : (size_t)strtoull(value, NULL, 10);
}

static inline size_t number(const char *key) { return (size_t)strtoull(text(key), NULL, 10); }

static inline double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline const void *map_file(const char *path, size_t bytes) { /* at least so many; mapped until the end, read ahead */
  int fd = open(path, O_RDONLY);
  struct stat s;
  if (fd < 0 || fstat(fd, &s) != 0) die("%s: cannot be opened", path);
  if ((size_t)s.st_size < bytes) die("%s: %zu bytes, %zu needed", path, (size_t)s.st_size, bytes);
  void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (p == MAP_FAILED) die("%s: cannot be mapped", path);
  close(fd);
  return p;
}

static inline void write_file(const char *path, const void *data, size_t bytes) {
  FILE *f = fopen(path, "wb");
  if (f == NULL || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0) die("%s: cannot be written", path);
}

static inline void *fresh(size_t bytes) {
  void *p = malloc(bytes == 0 ? 1 : bytes);
  if (p == NULL) die("no memory for %zu bytes", bytes);
  return p;
}

static inline double memory_bytes(void) { /* resident memory that no file stands behind */
  FILE *f = fopen("/proc/self/status", "r");
  char line[256];
  double kib = 0;
  while (f != NULL && fgets(line, sizeof line, f) != NULL)
    if (sscanf(line, "RssAnon: %lf", &kib) == 1) break;
  if (f != NULL) fclose(f);
  return kib * 1024;
}

__attribute__((format(printf, 1, 2))) static inline void answer(const char *fmt, ...) {
  va_list a;
  va_start(a, fmt);
  vprintf(fmt, a);
  va_end(a);
  putchar('\n');
  fflush(stdout);
}

#endif
