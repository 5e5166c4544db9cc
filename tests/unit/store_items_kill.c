/* store_items_kill.c - a process that puts, deletes and compacts is killed at a random moment, again and again: what it was told is
 * done is there, and the call that each of its threads was in the middle of is there whole or not at all.
 *
 * EVECTION_KILL_ROUNDS (default 100) kills, from EVECTION_KILL_SEED (default 1). A call follows from the seed, its thread and its
 * number, so that a number in a pipe is all that the child says. Writes are made in two parts, and renaming and removing take
 * their time, so that kills fall in between. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "items_model.h"
#include "slow_disk.h"

enum { WRITERS = 4 };

/* ---- Writes in two parts ----------------------------------------------------------------------------------*/
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t offset) {
  if (slow && v->iov_len > 1) {
    ssize_t half = pwrite(fd, v->iov_base, 1 + (size_t)ev_now_ns() % (v->iov_len - 1), offset);
    dawdle(100);
    return half;
  }
  return (ssize_t)syscall(SYS_pwritev, fd, v, n, offset & 0xFFFFFFFF, offset >> 32);
}

int rename(const char *from, const char *to) {
  dawdle(500);
  return (int)syscall(SYS_rename, from, to);
}

int unlink(const char *path) {
  dawdle(300);
  return (int)syscall(SYS_unlink, path);
}

/* ---- Calls ----------------------------------------------------------------------------------------------*/
typedef struct call {
  bool deletes;
  size_t n;
  unsigned ids[4];
  model_item items[4];
} call;

static call call_of(uint64_t seed, int writer, uint32_t number) {
  ev_rng r;
  ev_rng_seed(&r, seed, (uint64_t)writer << 32 | number);
  call c = {.deletes = ev_rng_below(&r, 4) == 0};
  c.n = 1 + ev_rng_below(&r, 4);
  unsigned first = ev_rng_below(&r, MODEL_IDS / WRITERS);
  for (size_t i = 0; i < c.n; i++) {
    c.ids[i] = (first + (unsigned)i) % (MODEL_IDS / WRITERS) * WRITERS + (unsigned)writer;
    c.items[i] = model_random(&r, true);
  }
  return c;
}

/* A delete is refused as a whole when one of its items is not there. */
static void on_model(model *m, const call *c) {
  for (size_t i = 0; c->deletes && i < c->n; i++)
    if (!m->items[c->ids[i]].there) return;
  for (size_t i = 0; i < c->n; i++) {
    if (c->deletes) m->items[c->ids[i]].there = false;
    else m->items[c->ids[i]] = c->items[i];
  }
}

static ev_status on_table(ev_items *t, const call *c) {
  if (c->deletes) {
    char names[4][32];
    const char *ids[4];
    for (size_t i = 0; i < c->n; i++) model_id(names[i], c->ids[i]), ids[i] = names[i];
    return ev_items_delete(t, ids, c->n);
  }
  model_call *p = calloc(1, sizeof *p);
  for (size_t i = 0; i < c->n; i++) model_add(p, c->ids[i], &c->items[i]);
  ev_status status = ev_items_put(t, p->items, p->n);
  free(p);
  return status;
}

/* ---- The child ------------------------------------------------------------------------------------------*/
typedef struct done { /* one write to the pipe, which is whole or absent */
  uint32_t writer, number;
} done;

typedef struct writing {
  ev_items *t;
  uint64_t seed;
  int writer, pipe;
  uint32_t number;
} writing;

static void *write_on(void *arg) {
  writing *w = arg;
  for (;; w->number++) {
    call c = call_of(w->seed, w->writer, w->number);
    ev_status status = on_table(w->t, &c);
    const done d = {(uint32_t)w->writer, w->number};
    if ((status != EV_OK && (status != EV_ENOTFOUND || !c.deletes)) || write(w->pipe, &d, sizeof d) != sizeof d) {
      fprintf(stderr, "writer %d, call %u: %s\n", w->writer, w->number, ev_error());
      _exit(3);
    }
  }
}

static void child(const char *path, uint64_t seed, const uint32_t *next, int to, uint32_t turn) {
  ev_items_options o = options("hnsw", MODEL_DIMS);
  ev_items *t;
  pthread_t thread;
  writing w[WRITERS];
  slow = true;
  o.compact_bytes = turn % 3 == 0 ? 4000 : 0;
  if (ev_items_open(&t, path, &o) != EV_OK) {
    fprintf(stderr, "open: %s\n", ev_error());
    _exit(3);
  }
  for (int i = 0; i < WRITERS; i++) {
    w[i] = (writing){t, seed, i, to, next[i]};
    if (pthread_create(&thread, NULL, write_on, &w[i]) != 0) _exit(3);
  }
  for (;;) {
    usleep(2000);
    if (turn % 3 == 1 && ev_items_compact(t) != EV_OK) {
      fprintf(stderr, "compact: %s\n", ev_error());
      _exit(3);
    }
  }
}

/* ---- The parent -----------------------------------------------------------------------------------------*/
static const char *wrong_of(const ev_items_reader *r, const model *m, int writer) {
  for (unsigned i = (unsigned)writer; i < MODEL_IDS; i += WRITERS) {
    char name[32];
    model_id(name, i);
    uint32_t row = ev_items_find(r, name, strlen(name));
    if ((row != EV_NONE) != m->items[i].there) return "there or not";
    const char *wrong = row == EV_NONE ? NULL : model_wrong_row(r, row, i, &m->items[i]);
    if (wrong != NULL) return wrong;
  }
  return NULL;
}

static void kills_lose_nothing_acknowledged(void **s) {
  (void)s;
  const char *rounds = getenv("EVECTION_KILL_ROUNDS"), *given = getenv("EVECTION_KILL_SEED"), *path = in_folder("killed");
  uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 1, n_done = 0, n_torn = 0, n_half = 0, cut_bytes = 0, generation = 0;
  uint32_t n = rounds != NULL ? (uint32_t)strtoul(rounds, NULL, 10) : getenv("EVECTION_SLOW") != NULL ? 10 : 100, next[WRITERS] = {0};
  ev_items_options o = options("hnsw", MODEL_DIMS), reading = o;
  model *m = calloc(1, sizeof *m), *more = calloc(1, sizeof *more);
  ev_rng r;
  ev_rng_seed(&r, seed, 99);
  reading.read_only = true;
  ev_items_close(open_items(path, &o));
  for (uint32_t round = 0; round < n; round++) {
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    uint32_t turn = ev_rng_below(&r, 3), wait_us = ev_rng_below(&r, ev_rng_below(&r, 4) == 0 ? 3000 : 25000);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) child(path, seed, next, ends[1], turn);
    close(ends[1]);
    usleep(wait_us);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status)) fail_msg("round %u of seed %d: the child ended by itself", round, (int)seed);
    done d;
    while (read(ends[0], &d, sizeof d) == sizeof d) {
      if (d.writer >= WRITERS || d.number != next[d.writer]) fail_msg("round %u: writer %u says %u", round, d.writer, d.number);
      call c = call_of(seed, (int)d.writer, next[d.writer]++);
      on_model(m, &c);
      n_done++;
    }
    close(ends[0]);
    if (ev_rng_below(&r, 4) == 0) ev_items_close(open_items(path, &reading)); /* changes nothing */
    ev_items *t = open_items(path, &o);
    ev_items_reader reader;
    ev_items_stats st;
    ev_items_begin(&reader, t);
    for (int i = 0; i < WRITERS; i++) {
      const char *wrong = wrong_of(&reader, m, i);
      if (wrong == NULL) continue; /* a call that changes nothing counts as absent, and is made again */
      *more = *m;
      call c = call_of(seed, i, next[i]);
      on_model(more, &c);
      if (wrong_of(&reader, more, i) != NULL) fail_msg("round %u of seed %d, writer %d after call %u: %s", round, (int)seed, i, next[i], wrong);
      *m = *more;
      next[i]++;
      n_half++;
    }
    unsigned who;
    const char *wrong = model_wrong(&reader, m, &who);
    if (wrong != NULL) fail_msg("round %u of seed %d: item %u: %s", round, (int)seed, who, wrong);
    ev_items_end(&reader);
    ev_items_stat(t, &st);
    n_torn += st.cut_bytes > 0;
    cut_bytes += st.cut_bytes;
    generation = st.generation;
    if (round % 50 == 0) assert_int_equal(ev_items_verify(t), EV_OK);
    ev_items_close(t);
  }
  printf("%u kills, %llu calls acknowledged, %llu more found whole, %llu torn tails of %llu bytes, %llu compactions\n", n, (unsigned long long)n_done,
         (unsigned long long)n_half, (unsigned long long)n_torn, (unsigned long long)cut_bytes, (unsigned long long)generation);
  free(m);
  free(more);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(kills_lose_nothing_acknowledged)};
  return RUN(tests);
}
