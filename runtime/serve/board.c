/* board.c - the memory that front, teams and workers share; and the boxes in it.
 *
 *   board | SLOTS_MAX slots | MASKS_MAX masks
 *
 * A box's head and tail are one 64-bit word: the front moves the tail, its worker the head, and a worker that wants to leave
 * closes the box in the same exchange that proves it empty. A worker sleeps on the word's low half (futex); the front wakes it
 * only when it says that it sleeps, so under load a hand-over needs no system call. */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inside.h"

#define CLOSED 0x80000000u
#define USES 0x3fffffu /* a use's number, as far as a box's entry holds it */

static size_t slots_at(void) { return (sizeof(board) + 4095) / 4096 * 4096; }

static size_t masks_at(void) { return (slots_at() + SLOTS_MAX * sizeof(slot) + 4095) / 4096 * 4096; }

static size_t whole(const board *b) { return masks_at() + MASKS_MAX * (size_t)b->n_mask_words * 8; }

ev_status board_new(board **out, size_t n_items) {
  board head = {.n_items = (uint32_t)n_items, .n_mask_words = (uint32_t)((n_items + LIVE_ITEMS_MAX + 63) / 64)};
  *out = NULL;
  void *p = mmap(NULL, whole(&head), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return ev_fail_errno("no shared memory for the requests");
  board *b = p;
  b->n_items = head.n_items;
  b->n_mask_words = head.n_mask_words;
  *out = b;
  return EV_OK;
}

void board_free(board *b) {
  if (b != NULL) munmap(b, whole(b));
}

slot *board_slot(board *b, uint32_t i) { return (slot *)(void *)((char *)b + slots_at()) + i; }

uint64_t *board_mask(board *b, uint32_t i) { return (uint64_t *)(void *)((char *)b + masks_at()) + (size_t)i * b->n_mask_words; }

size_t board_confined(const board *b, size_t *n_workers) {
  size_t n = 0, all = 0;
  for (size_t i = 0; i < SEATS_MAX; i++) {
    if (atomic_load(&b->seats[i].state) != SEAT_READY) continue;
    all++;
    n += atomic_load(&b->seats[i].confined) != 0;
  }
  if (n_workers != NULL) *n_workers = all;
  return n;
}

/* Written seldom and read by people: whoever comes in between waits a moment. A holder that was killed is passed over. */
static void lock_error(board *b) {
  for (int i = 0; i < 1000 && atomic_exchange(&b->error_lock, 1) != 0; i++) usleep(10);
}

void board_set_error(board *b, const char *why) {
  lock_error(b);
  snprintf(b->error, sizeof b->error, "%s", why);
  atomic_store(&b->error_lock, 0);
}

void board_error(board *b, char out[1024]) {
  lock_error(b);
  memcpy(out, b->error, sizeof b->error);
  atomic_store(&b->error_lock, 0);
  out[sizeof b->error - 1] = '\0';
}

/* ---- Slots ---------------------------------------------------------------------------------------------*/
uint32_t slot_state_of(const slot *s, uint32_t *use) {
  uint32_t word = atomic_load_explicit(&s->state, memory_order_acquire);
  if (use != NULL) *use = word >> 3 & USES;
  return word & 7;
}

bool slot_move(slot *s, uint32_t use, slot_state from, slot_state to) {
  uint32_t was = use << 3 | (uint32_t)from;
  return atomic_compare_exchange_strong(&s->state, &was, use << 3 | (uint32_t)to);
}

/* ---- Boxes ---------------------------------------------------------------------------------------------*/
static uint32_t head_of(uint64_t box) { return (uint32_t)(box >> 32); }
static uint32_t tail_of(uint64_t box) { return (uint32_t)box & ~CLOSED; }
static uint32_t between(uint64_t box) { return (tail_of(box) - head_of(box)) & ~CLOSED; }
static uint64_t make(uint32_t head, uint32_t tail, uint32_t closed) { return (uint64_t)(head & ~CLOSED) << 32 | (tail & ~CLOSED) | closed; }

static long futex(_Atomic uint64_t *box, int op, uint32_t value) { /* on the low half: x86-64 and AArch64 are little-endian */
  return syscall(SYS_futex, (uint32_t *)(void *)box, op, value, NULL, NULL, 0);
}

bool box_take(board *b, uint32_t at, uint32_t *slot_index, uint32_t *use) {
  seat *s = &b->seats[at];
  const team_board *t = &b->teams[at / TEAM_SEATS];
  for (;;) {
    uint64_t box = atomic_load(&s->box);
    if (between(box) > 0) {
      uint32_t entry = atomic_load(&s->ring[head_of(box) % BOX_DEPTH]);
      *slot_index = entry & (SLOTS_MAX - 1);
      *use = entry >> 10;
      return true;
    }
    if (atomic_load(&t->state) == TEAM_LEAVING) {
      if (atomic_compare_exchange_strong(&s->box, &box, box | CLOSED)) return false;
      continue;
    }
    atomic_store(&s->asleep, 1);
    if (atomic_load(&s->box) == box && atomic_load(&t->state) != TEAM_LEAVING) futex(&s->box, FUTEX_WAIT, (uint32_t)box);
    atomic_store(&s->asleep, 0);
  }
}

void box_done(board *b, uint32_t at) {
  _Atomic uint64_t *word = &b->seats[at].box;
  uint64_t box = atomic_load(word);
  while (!atomic_compare_exchange_weak(word, &box, make(head_of(box) + 1, tail_of(box), (uint32_t)box & CLOSED))) continue;
}

void box_wake(board *b, uint32_t at) { futex(&b->seats[at].box, FUTEX_WAKE, 1); }

size_t box_waiting(const board *b, uint32_t at) { return between(atomic_load(&b->seats[at].box)); }

bool box_push(board *b, uint32_t at, uint32_t slot_index, uint32_t use) {
  seat *s = &b->seats[at];
  uint64_t box = atomic_load(&s->box);
  do {
    if ((uint32_t)box & CLOSED || between(box) >= BOX_DEPTH) return false;
    atomic_store(&s->ring[tail_of(box) % BOX_DEPTH], slot_index | use << 10);
  } while (!atomic_compare_exchange_weak(&s->box, &box, make(head_of(box), tail_of(box) + 1, 0)));
  if (atomic_load(&s->asleep) != 0) box_wake(b, at);
  return true;
}

size_t box_salvage(board *b, uint32_t at, uint32_t entries[BOX_DEPTH]) {
  seat *s = &b->seats[at];
  uint64_t box = atomic_load(&s->box);
  size_t n = 0;
  for (uint32_t i = 0; i < between(box) && n < BOX_DEPTH; i++) entries[n++] = atomic_load(&s->ring[(head_of(box) + i) % BOX_DEPTH]);
  atomic_store(&s->box, 0);
  atomic_store(&s->due_ns, 0);
  atomic_store(&s->condemned, 0);
  atomic_store(&s->asleep, 0);
  atomic_store(&s->pid, 0);
  atomic_store(&s->state, SEAT_FREE);
  return n;
}

static bool end_seat(seat *s, int32_t pid) {
  return atomic_load(&s->pid) == pid && atomic_compare_exchange_strong(&s->state, &(uint32_t){SEAT_READY}, SEAT_DEAD);
}

bool seats_bury(board *b, pid_t pid) {
  bool any = false;
  for (size_t i = 0; i < SEATS_MAX; i++) any |= end_seat(&b->seats[i], (int32_t)pid);
  return any;
}

bool seats_bury_lost(board *b, uint32_t team) {
  bool any = false;
  for (size_t i = team * TEAM_SEATS; i < (team + 1) * TEAM_SEATS; i++) {
    seat *s = &b->seats[i];
    int32_t pid = atomic_load(&s->pid);
    if (atomic_load(&s->state) == SEAT_READY && pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) any |= end_seat(s, pid);
  }
  return any;
}
