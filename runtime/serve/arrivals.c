/* arrivals.c - the latest items that the snapshot has not, as the front tells them to the workers.
 *
 * A seqlock on the board: the catalog writes under its own lock, workers read without any, since they may be killed at any instruction.
 * A front that was killed in the middle of writing leaves an odd number behind, and nobody has arrivals until the next one has opened
 * its catalog, which is before it answers anybody. */
#include "inside.h"

#define TRIES 64

void arrivals_put(board *b, const arrival *list, size_t n) {
  arrivals_board *to = &b->arrivals;
  uint64_t odd = atomic_load_explicit(&to->sequence, memory_order_relaxed) | 1;
  atomic_store_explicit(&to->sequence, odd, memory_order_relaxed);
  atomic_thread_fence(memory_order_release);
  if (n > ARRIVALS_MAX) n = ARRIVALS_MAX;
  for (size_t i = 0; i < n; i++) {
    atomic_store_explicit(&to->item[i], list[i].item, memory_order_relaxed);
    atomic_store_explicit(&to->time_ms[i], list[i].time_ms, memory_order_relaxed);
  }
  atomic_store_explicit(&to->n, (uint32_t)n, memory_order_relaxed);
  atomic_store_explicit(&to->sequence, odd + 1, memory_order_release);
}

size_t arrivals_get(const board *b, arrival out[ARRIVALS_MAX]) {
  const arrivals_board *from = &b->arrivals;
  for (int i = 0; i < TRIES; i++) {
    uint64_t before = atomic_load_explicit(&from->sequence, memory_order_acquire);
    if (before & 1) continue;
    size_t n = atomic_load_explicit(&from->n, memory_order_relaxed);
    if (n > ARRIVALS_MAX) n = ARRIVALS_MAX;
    for (size_t k = 0; k < n; k++)
      out[k] = (arrival){atomic_load_explicit(&from->item[k], memory_order_relaxed), atomic_load_explicit(&from->time_ms[k], memory_order_relaxed)};
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&from->sequence, memory_order_relaxed) == before) return n;
  }
  return 0; /* it is being written: this slate does without */
}

size_t arrivals_insert(arrival *list, size_t n, arrival x) {
  n = arrivals_remove(list, n, x.item);
  size_t at = 0;
  while (at < n && (list[at].time_ms > x.time_ms || (list[at].time_ms == x.time_ms && list[at].item > x.item))) at++;
  if (at == ARRIVALS_MAX) return n;
  if (n == ARRIVALS_MAX) n--;
  for (size_t i = n; i > at; i--) list[i] = list[i - 1];
  list[at] = x;
  return n + 1;
}

size_t arrivals_remove(arrival *list, size_t n, uint32_t item) {
  size_t at = 0;
  while (at < n && list[at].item != item) at++;
  if (at == n) return n;
  for (size_t i = at + 1; i < n; i++) list[i - 1] = list[i];
  return n - 1;
}
