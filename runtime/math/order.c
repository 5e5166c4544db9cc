/* order.c - numbers in ascending order: some dozens by Shell's sort, more of them by their digits. */
#include <string.h>

#include "math.h"

#define FEW 96 /* up to here Shell's sort is faster */

static void by_gaps(uint64_t *keys, size_t n) {
  static const size_t gaps[] = {57, 23, 10, 4, 1}; /* Ciura 2001 */
  for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++)
    for (size_t i = gaps[g]; i < n; i++) {
      uint64_t key = keys[i];
      size_t at = i;
      for (; at >= gaps[g] && keys[at - gaps[g]] > key; at -= gaps[g]) keys[at] = keys[at - gaps[g]];
      keys[at] = key;
    }
}

void ev_sort_keys(uint64_t *keys, uint64_t *room, size_t n) {
  if (n <= FEW) {
    by_gaps(keys, n);
    return;
  }
  uint32_t count[8][256];
  memset(count, 0, sizeof count);
  for (size_t i = 0; i < n; i++)
    for (unsigned digit = 0; digit < 8; digit++) count[digit][keys[i] >> 8 * digit & 255]++;
  uint64_t *from = keys, *to = room;
  for (unsigned digit = 0; digit < 8; digit++) {
    if (count[digit][from[0] >> 8 * digit & 255] == n) continue; /* all alike */
    uint32_t at = 0;
    for (unsigned v = 0; v < 256; v++) {
      uint32_t some = count[digit][v];
      count[digit][v] = at;
      at += some;
    }
    for (size_t i = 0; i < n; i++) to[count[digit][from[i] >> 8 * digit & 255]++] = from[i];
    uint64_t *other = from;
    from = to;
    to = other;
  }
  if (from != keys) memcpy(keys, from, n * sizeof *keys);
}
