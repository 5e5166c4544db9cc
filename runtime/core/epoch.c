/* epoch.c - epoch-based reclamation: readers that never wait (Fraser, Practical lock-freedom, 2004).
 *
 * A clock counts marks. A reader writes the clock's time into a slot of its own and clears it when it leaves; a mark has
 * passed when no slot holds an earlier time. So a reader pays one exchange on a cache line that is mostly its own, however
 * many readers there are; a read-write lock would bounce one line between all of them, a hazard pointer cost a fence a hop.
 *
 * Why it is safe: entering, a reader stores its slot and then, behind a full fence, reads the data. A writer unlinks,
 * and then, behind a full fence, reads the slots. Whichever fence comes first, either the writer sees the slot or the
 * reader sees that the thing is gone. A time read early and stored late is only older than it need be: the writer waits.
 * Everything a reader did happens before its slot's clearing, which the writer's load sees. */
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "core.h"

#define SLOTS 256

typedef struct slot {
  _Alignas(64) _Atomic uint64_t since; /* 0: free */
} slot;

struct ev_epochs {
  slot slots[SLOTS];
  _Alignas(64) _Atomic uint64_t now;
};

ev_epochs *ev_epochs_new(void) {
  ev_epochs *e = ev_zalloc(1, sizeof *e);
  if (e != NULL) atomic_init(&e->now, 1);
  return e;
}

void ev_epochs_free(ev_epochs *e) { ev_free(e); }

static unsigned home(void) { /* a thread comes back to the slot it used last: its cache has it */
  static _Atomic unsigned threads;
  static _Thread_local unsigned mine;
  if (mine == 0) mine = 1 + atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % SLOTS;
  return mine - 1;
}

unsigned ev_epoch_enter(ev_epochs *e) {
  for (unsigned place = home(), tried = 0;; place = (place + 1) % SLOTS) {
    uint64_t none = 0;
    if (atomic_load_explicit(&e->slots[place].since, memory_order_relaxed) == 0 &&
        atomic_compare_exchange_strong(&e->slots[place].since, &none, atomic_load(&e->now))) {
      atomic_thread_fence(memory_order_seq_cst);
      return place;
    }
    if (++tried % SLOTS == 0) sched_yield();
  }
}

void ev_epoch_leave(ev_epochs *e, unsigned place) { atomic_store_explicit(&e->slots[place].since, 0, memory_order_release); }

uint64_t ev_epoch_mark(ev_epochs *e) {
  uint64_t mark = atomic_fetch_add(&e->now, 1) + 1;
  atomic_thread_fence(memory_order_seq_cst);
  return mark;
}

bool ev_epoch_passed(ev_epochs *e, uint64_t mark) {
  for (unsigned i = 0; i < SLOTS; i++) {
    uint64_t since = atomic_load(&e->slots[i].since);
    if (since != 0 && since < mark) return false;
  }
  return true;
}

void ev_epoch_wait(ev_epochs *e, uint64_t mark) {
  for (unsigned turn = 0; !ev_epoch_passed(e, mark); turn++) {
    if (turn < 16) sched_yield();
    else nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
  }
}
