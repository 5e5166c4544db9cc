/* reward_arms_kill.c - processes that update one state are killed at random moments, again and again.
 *
 * Afterwards every update that a process was told is done is there, of the others at most the one it was in; every model is what its
 * own sums say, and the locks work. EVECTION_KILL_ROUNDS (default 40) kills, from EVECTION_KILL_SEED (default 1). */
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "arms_world.h"

enum { WRITERS = 3, MODELS = 5, D = 24 };

typedef struct told { /* shared with the children */
  _Atomic uint64_t begun[WRITERS], done[WRITERS];
} told;

static void options(ev_arms_options *o) {
  ev_arms_defaults(o, EV_ARMS_LINEAR);
  o->n = MODELS;
  o->n_dims = D;
  o->window = 64;
}

static void write_on(const char *path, told *t, int writer, uint64_t seed) {
  ev_arms_options o;
  ev_arms *a;
  options(&o);
  if (ev_arms_open(&a, path, &o) != EV_OK) {
    fprintf(stderr, "%s\n", ev_error());
    _exit(3);
  }
  ev_rng r;
  ev_rng_seed(&r, seed, (uint64_t)writer);
  for (;;) {
    float x[2 * D], p[2];
    uint32_t order[2];
    ev_choice_options c;
    for (int i = 0; i < 2 * D; i++) x[i] = (float)ev_rng_normal(&r);
    atomic_fetch_add(&t->begun[writer], 1);
    if (ev_arms_update(a, ev_rng_below(&r, MODELS), x, ev_rng_normal(&r), 1, 1) != EV_OK) _exit(4);
    atomic_fetch_add(&t->done[writer], 1);
    ev_choice_defaults(&c, EV_RULE_UCB);
    if (ev_arms_choose(a, order, p, NULL, NULL, NULL, x, 2, &c) != EV_OK) _exit(5);
  }
}

static void a_killed_process_leaves_every_model_whole(void **state) {
  (void)state;
  const char *rounds_text = getenv("EVECTION_KILL_ROUNDS"), *seed_text = getenv("EVECTION_KILL_SEED");
  int rounds = rounds_text != NULL ? atoi(rounds_text) : 40;
  uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 10) : 1;
  told *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(t != MAP_FAILED);
  char path[160];
  snprintf(path, sizeof path, "%s", in_folder("killed"));
  ev_rng r;
  ev_rng_seed(&r, seed, 99);
  pid_t pids[WRITERS] = {0};
  for (int round = 0; round < rounds; round++) {
    for (int w = 0; w < WRITERS; w++) {
      if (pids[w] != 0) continue;
      pids[w] = fork();
      if (pids[w] == 0) write_on(path, t, w, seed + (uint64_t)round * 100);
    }
    usleep(1000 + ev_rng_below(&r, 8000));
    int w = (int)ev_rng_below(&r, WRITERS), status;
    bool all = ev_rng_below(&r, 4) == 0; /* nobody left: the next one finds the locks of the dead */
    for (int k = 0; k < WRITERS; k++) {
      if (k != w && !all) continue;
      kill(pids[k], SIGKILL);
      assert_int_equal(waitpid(pids[k], &status, 0), pids[k]);
      if (WIFEXITED(status)) fail_msg("seed %llu, round %d: a writer ended with %d", (unsigned long long)seed, round, WEXITSTATUS(status));
      pids[k] = 0;
    }
  }
  for (int w = 0; w < WRITERS; w++)
    if (pids[w] != 0) kill(pids[w], SIGKILL), waitpid(pids[w], NULL, 0);
  ev_arms_options o;
  ev_arms *a;
  options(&o);
  OK(ev_arms_open(&a, path, &o));
  double updates = 0, slot[4 + 2 * D + D * D], gram[D * D];
  for (uint32_t m = 0; m < MODELS; m++) {
    OK(ev_arms_read(a, m, slot));
    updates += slot[0];
    invert(gram, slot + 4 + 2 * D, D); /* torn, it would be no inverse of any A */
    double trace = 0;
    for (int i = 0; i < D; i++) {
      double theta = 0;
      trace += gram[i * D + i] - 1;
      for (int j = 0; j < D; j++) {
        theta += slot[4 + 2 * D + i * D + j] * slot[4 + D + j];
        NEAR(slot[4 + 2 * D + i * D + j], slot[4 + 2 * D + j * D + i], 0);
      }
      NEAR(slot[4 + i], theta, 1e-9);
    }
    if (slot[0] > 1000) NEAR(trace / slot[0] / D, 1, 0.05); /* Σ |x|² of normal x */
  }
  uint64_t begun = 0, done = 0;
  for (int w = 0; w < WRITERS; w++) begun += atomic_load(&t->begun[w]), done += atomic_load(&t->done[w]);
  if (!(updates >= (double)done && updates <= (double)begun && begun > 1000)) fail_msg("%g updates: %llu were done, %llu begun", updates, (unsigned long long)done, (unsigned long long)begun);
  float x[D] = {1};
  for (uint32_t m = 0; m < MODELS; m++) OK(ev_arms_update(a, m, x, 1, 1, 1));
  ev_arms_close(a);
  munmap(t, sizeof *t);
}

static void processes_together_learn_what_one_alone_would(void **state) {
  (void)state;
  ev_arms_options o;
  ev_arms *a;
  ev_arms_defaults(&o, EV_ARMS_COUNTS);
  o.n = 3;
  for (int child = 0; child < 4; child++)
    if (fork() == 0) { /* all make the file at once */
      if (ev_arms_open(&a, in_folder("together"), &o) != EV_OK) _exit(1);
      for (int i = 0; i < 20000; i++)
        if (ev_arms_update(a, (uint32_t)i % 3, NULL, i % 2, 1, 1) != EV_OK) _exit(2);
      _exit(0);
    }
  for (int child = 0; child < 4; child++) {
    int status;
    assert_true(wait(&status) > 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  OK(ev_arms_open(&a, in_folder("together"), &o));
  double n = 0, s = 0, slot[4];
  for (uint32_t i = 0; i < 3; i++) {
    OK(ev_arms_read(a, i, slot));
    n += slot[0], s += slot[1];
  }
  NEAR(n, 80000, 0);
  NEAR(s, 40000, 0);
  ev_arms_close(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_killed_process_leaves_every_model_whole),
      cmocka_unit_test(processes_together_learn_what_one_alone_would),
  };
  return RUN(tests);
}
