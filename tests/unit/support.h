/* support.h - what the C unit tests share: cmocka, a temporary folder, allocation faults. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/core.h"

static char folder[64]; /* of this test program; removed at its end */

static int make_folder(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/evection-test-XXXXXX");
  return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return system(command);
}

__attribute__((unused)) static const char *in_folder(const char *name) { /* holds until the fourth next call */
  static char paths[4][160];
  static int turn;
  char *path = paths[turn++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

__attribute__((unused)) static void write_text(const char *path, const char *text, size_t len) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, len, f), len);
  fclose(f);
}

__attribute__((unused)) static bool same_bytes(const char *a, const char *b) { /* two files */
  ev_buf x = {0}, y = {0};
  assert_int_equal(ev_file_read(&x, a, 1 << 30), EV_OK);
  assert_int_equal(ev_file_read(&y, b, 1 << 30), EV_OK);
  bool same = x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
  ev_buf_free(&x);
  ev_buf_free(&y);
  return same;
}

/* Runs `call` (an ev_status expression) with its first, second, … allocation failing, until it gets through; in between
 * it must say EV_ENOMEM. `undo` is run after a success. */
#define ASSERT_SURVIVES_FAULTS(call, undo)                       \
  do {                                                           \
    int64_t fault_ = 0;                                          \
    for (;; fault_++) {                                          \
      ev_mem_fail_at(fault_);                                    \
      ev_status status_ = (call);                                \
      ev_mem_fail_at(-1);                                        \
      if (status_ == EV_OK) {                                    \
        undo;                                                    \
        break;                                                   \
      }                                                          \
      if (status_ != EV_ENOMEM) fail_msg("fault %d: %s: %s", (int)fault_, ev_status_name(status_), ev_error()); \
      if (fault_ > 100000) fail_msg("never gets through");       \
    }                                                            \
  } while (0)

#define RUN(tests) cmocka_run_group_tests(tests, make_folder, remove_folder)

#endif
