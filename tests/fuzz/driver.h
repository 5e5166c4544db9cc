/* driver.h - what a fuzz target gives, and what driver.c gives it. */
#ifndef TESTS_FUZZ_DRIVER_H
#define TESTS_FUZZ_DRIVER_H

#include "store/store.h"

typedef struct fuzz_target {
  void (*seeds)(void);                          /* sets up, and calls fuzz_seed with each good input */
  void (*one)(const uint8_t *data, size_t len); /* must survive any input; data is 64-byte aligned and fenced by the sanitizer */
  void (*repair)(uint8_t *data, size_t len);    /* NULL, or: makes checksums hold, so that damage reaches what lies behind them */
  const char *const *words;                     /* text that the parser knows, NULL at the end; or NULL */
} fuzz_target;

extern const fuzz_target fuzz; /* each target defines it */

void fuzz_seed(const void *data, size_t len);
const char *fuzz_path(const char *name);                                   /* in the run's own folder, which is removed; never freed */
void fuzz_write(const char *path, const void *data, size_t len);
void fuzz_repair_pack(uint8_t *data, size_t len);                          /* gaps, checksums and size of a pack */
void fuzz_fence(const ev_pack *p, bool up);                                /* makes the gaps between a pack's arrays unreadable; down before closing */
void fuzz_wrong(const char *file, int line, const char *what);             /* says so and ends the run */
#define FUZZ_REQUIRE(x) ((x) ? (void)0 : fuzz_wrong(__FILE__, __LINE__, #x))

#endif
