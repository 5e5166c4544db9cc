/* The allocator of a Lua state: a cap that holds, large blocks that are used again, nothing lost on the way. */
#include "support.h"

#include "../../runtime/script/heap.h"

enum { SLOTS = 200 };

/* Random blocks that grow, shrink, end; each full of its own bytes. */
static void blocks_keep_what_they_hold(void **state) {
  (void)state;
  static unsigned char *block[SLOTS];
  static size_t size[SLOTS];
  ev_heap h = {0};
  ev_rng r;
  ev_rng_seed(&r, 1, 0);
  size_t total = 0;
  for (int round = 0; round < 20000; round++) {
    size_t i = ev_rng_below(&r, SLOTS), next = ev_rng_below(&r, 4) == 0 ? 0 : (size_t)1 << ev_rng_below(&r, 20);
    if (next > 0) next += ev_rng_below(&r, (uint32_t)next);
    unsigned char *q = ev_heap_alloc(&h, block[i], size[i], next);
    if (next > 0) assert_non_null(q);
    for (size_t k = 0; q != NULL && k < size[i] && k < next; k += 97) assert_int_equal(q[k], (unsigned char)i);
    if (next > 0) memset(q, (int)i, next);
    total += next - size[i];
    block[i] = q;
    size[i] = next;
    assert_true(h.used == total);
    assert_true(h.spare_bytes <= EV_HEAP_SPARE_BYTES && h.n_spare <= EV_HEAP_SPARE);
  }
  for (size_t i = 0; i < SLOTS; i++) ev_heap_alloc(&h, block[i], size[i], 0);
  assert_true(h.used == 0);
  ev_heap_empty(&h);
  assert_true(h.n_spare == 0 && h.spare_bytes == 0);
}

static void a_large_block_is_used_again(void **state) {
  (void)state;
  ev_heap h = {0};
  char *a = ev_heap_alloc(&h, NULL, 0, 163924), *b = ev_heap_alloc(&h, NULL, 0, 163924);
  a[0] = b[0] = 1; /* both are there at once */
  assert_true(a != b);
  ev_heap_alloc(&h, a, 163924, 0);
  assert_true(ev_heap_alloc(&h, NULL, 3, 163980) == a); /* old_size means nothing of a new block */
  ev_heap_alloc(&h, b, 163924, 0);
  char *c = ev_heap_alloc(&h, NULL, 0, 400000);
  assert_true(c != b);
  assert_int_equal(h.n_spare, 1);
  ev_heap_alloc(&h, a, 163980, 0);
  ev_heap_alloc(&h, c, 400000, 0);
  ev_heap_empty(&h);
}

static void the_cap_holds(void **state) {
  (void)state;
  ev_heap h = {.max = 1 << 20};
  void *a = ev_heap_alloc(&h, NULL, 0, 1000000);
  assert_non_null(a);
  assert_null(ev_heap_alloc(&h, NULL, 0, 48577)); /* one more than is left */
  assert_null(ev_heap_alloc(&h, a, 1000000, (1 << 20) + 1));
  assert_null(ev_heap_alloc(&h, NULL, 0, SIZE_MAX - 1));
  assert_true(h.used == 1000000);
  void *b = ev_heap_alloc(&h, NULL, 0, 48576);
  assert_non_null(b);
  a = ev_heap_alloc(&h, a, 1000000, 10);
  assert_non_null(a);
  void *c = ev_heap_alloc(&h, NULL, 0, 900000);
  assert_non_null(c);
  ev_heap_alloc(&h, a, 10, 0);
  ev_heap_alloc(&h, b, 48576, 0);
  ev_heap_alloc(&h, c, 900000, 0);
  assert_true(h.used == 0);
  ev_heap_empty(&h);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(blocks_keep_what_they_hold),
      cmocka_unit_test(a_large_block_is_used_again),
      cmocka_unit_test(the_cap_holds),
  };
  return RUN(tests);
}
