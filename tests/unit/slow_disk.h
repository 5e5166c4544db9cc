/* slow_disk.h - a disk that takes its time, before the C library's, for tests that kill a process: once `slow` is set, syncs and
 * whatever calls dawdle() last long enough for a kill to fall into. */
#ifndef EV_TEST_SLOW_DISK_H
#define EV_TEST_SLOW_DISK_H

#include <unistd.h>

#include "core/core.h"

static bool slow; /* in the child */

static void dawdle(unsigned most_us) {
  static _Thread_local ev_rng r;
  if (!slow) return;
  if (r.s[0] == 0) ev_rng_seed(&r, ev_now_ns(), (uint64_t)getpid());
  usleep(ev_rng_below(&r, most_us));
}

int fdatasync(int fd) { /* a killed process loses nothing of what it wrote: only the time matters */
  dawdle(400);
  return fd >= 0 ? 0 : -1;
}

int fsync(int fd) { return fdatasync(fd); }

#endif
