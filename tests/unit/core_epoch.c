/* core_epoch.c - epochs: a mark passes when those inside have left; memory that is used again is never seen by who was inside. */
#include <pthread.h>
#include <stdatomic.h>

#include "support.h"

static void a_mark_passes_when_those_inside_have_left(void **s) {
  (void)s;
  ev_epochs *e = ev_epochs_new();
  assert_true(ev_epoch_passed(e, 0));
  uint64_t none = ev_epoch_mark(e);
  assert_true(ev_epoch_passed(e, none)); /* nobody is inside */
  unsigned a = ev_epoch_enter(e), b = ev_epoch_enter(e);
  assert_int_not_equal(a, b);
  assert_true(ev_epoch_passed(e, none)); /* they came later */
  uint64_t mark = ev_epoch_mark(e);
  assert_true(mark > none);
  assert_false(ev_epoch_passed(e, mark));
  unsigned c = ev_epoch_enter(e);
  ev_epoch_leave(e, a);
  assert_false(ev_epoch_passed(e, mark));
  ev_epoch_leave(e, b);
  assert_true(ev_epoch_passed(e, mark)); /* c came after it */
  uint64_t later = ev_epoch_mark(e);
  assert_false(ev_epoch_passed(e, later));
  assert_true(ev_epoch_passed(e, mark));
  ev_epoch_leave(e, c);
  assert_true(ev_epoch_passed(e, later));
  ev_epoch_wait(e, later);
  ev_epochs_free(e);
  ev_epochs_free(NULL);
}

static void all_256_places_may_be_taken_and_each_is_waited_for(void **s) {
  (void)s;
  ev_epochs *e = ev_epochs_new();
  unsigned places[256];
  bool taken[256] = {false};
  for (int i = 0; i < 256; i++) {
    places[i] = ev_epoch_enter(e);
    assert_true(places[i] < 256 && !taken[places[i]]);
    taken[places[i]] = true;
  }
  for (int i = 0; i < 256; i++) {
    uint64_t mark = ev_epoch_mark(e);
    for (int k = i; k < 256; k++) {
      assert_false(ev_epoch_passed(e, mark));
      ev_epoch_leave(e, places[k]);
    }
    assert_true(ev_epoch_passed(e, mark));
    for (int k = i; k < 256; k++) places[k] = ev_epoch_enter(e);
    ev_epoch_leave(e, places[i]);
  }
  ev_epochs_free(e);
}

/* Cells are published in a table, taken out, poisoned once their mark has passed, and used again: a reader who finds one in the
 * table must see its value whole until he leaves. */
enum { CELLS = 64, WORDS = 64, READERS = 3, ROUNDS = 4000 };
typedef struct cell {
  uint64_t words[WORDS]; /* all alike; not atomic: the protocol alone keeps writers off */
} cell;
typedef struct world {
  ev_epochs *e;
  cell cells[2 * CELLS];
  _Atomic(cell *) table[CELLS];
  atomic_bool done;
  _Atomic size_t looks, wrong;
} world;

static void *look(void *arg) {
  world *w = arg;
  ev_rng r;
  ev_rng_seed(&r, (uint64_t)(uintptr_t)&r, 0);
  while (!atomic_load_explicit(&w->done, memory_order_relaxed)) {
    unsigned place = ev_epoch_enter(w->e);
    for (int hops = 0; hops < 4; hops++) {
      const cell *c = atomic_load_explicit(&w->table[ev_rng_below(&r, CELLS)], memory_order_acquire);
      uint64_t first = c->words[0];
      for (int i = 0; i < WORDS; i++)
        if (c->words[i] != first || first == UINT64_MAX) atomic_fetch_add(&w->wrong, 1);
    }
    ev_epoch_leave(w->e, place);
    atomic_fetch_add_explicit(&w->looks, 1, memory_order_relaxed);
  }
  return NULL;
}

static void memory_that_is_used_again_is_never_seen_by_who_was_inside(void **s) {
  (void)s;
  world *w = calloc(1, sizeof *w);
  pthread_t readers[READERS];
  cell *spare[CELLS];
  uint64_t marks[CELLS];
  w->e = ev_epochs_new();
  for (int i = 0; i < CELLS; i++) atomic_store(&w->table[i], &w->cells[i]), spare[i] = &w->cells[CELLS + i], marks[i] = 0;
  for (int i = 0; i < READERS; i++) assert_int_equal(pthread_create(&readers[i], NULL, look, w), 0);
  while (atomic_load(&w->looks) == 0) continue;
  for (uint64_t round = 1; round <= ROUNDS; round++) {
    int i = (int)(round * 7 % CELLS);
    cell *c = spare[i];
    ev_epoch_wait(w->e, marks[i]);
    memset(c->words, 0xFF, sizeof c->words); /* poison, as a freed block would be */
    for (int k = 0; k < WORDS; k++) c->words[k] = round;
    spare[i] = atomic_exchange_explicit(&w->table[i], c, memory_order_acq_rel);
    marks[i] = ev_epoch_mark(w->e);
    if (round % 16 == 0) { /* at once, without a round in between */
      ev_epoch_wait(w->e, marks[i]);
      memset(spare[i]->words, 0xFF, sizeof c->words);
    }
  }
  atomic_store(&w->done, true);
  for (int i = 0; i < READERS; i++) pthread_join(readers[i], NULL);
  assert_int_equal(atomic_load(&w->wrong), 0);
  assert_true(atomic_load(&w->looks) > READERS);
  ev_epochs_free(w->e);
  free(w);
}

static void *pass_through(void *arg) {
  ev_epochs *e = arg;
  for (int i = 0; i < 2000; i++) ev_epoch_leave(e, ev_epoch_enter(e));
  return NULL;
}

static void a_full_house_lets_the_next_in_when_one_leaves(void **s) {
  (void)s;
  ev_epochs *e = ev_epochs_new();
  pthread_t thread[2];
  unsigned places[255];
  for (int i = 0; i < 255; i++) places[i] = ev_epoch_enter(e);
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&thread[i], NULL, pass_through, e), 0); /* two for one place */
  for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
  for (int i = 0; i < 255; i++) ev_epoch_leave(e, places[i]);
  assert_true(ev_epoch_passed(e, ev_epoch_mark(e)));
  ev_epochs_free(e);
}

static ev_status make(void) {
  ev_epochs *e = ev_epochs_new();
  ev_epochs_free(e);
  return e != NULL ? EV_OK : EV_ENOMEM;
}

static void making_survives_faults(void **s) {
  (void)s;
  ASSERT_SURVIVES_FAULTS(make(), );
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_mark_passes_when_those_inside_have_left), cmocka_unit_test(all_256_places_may_be_taken_and_each_is_waited_for),
      cmocka_unit_test(memory_that_is_used_again_is_never_seen_by_who_was_inside), cmocka_unit_test(a_full_house_lets_the_next_in_when_one_leaves),
      cmocka_unit_test(making_survives_faults),
  };
  return RUN(tests);
}
