/* pool.c - one thread pool a process and a parallel loop over it.
 *
 * Slices are handed out by an atomic counter; the caller works too, so n threads means n - 1 helpers. OpenMP
 * would do the same, but GCC's runtime hangs in a child forked after a parallel region, and evaluations are
 * forked: here the child sees another process id and starts a pool of its own. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core.h"

#define MAX_THREADS 256
#define SPINS 1000 /* some 20 µs: a training step is hundreds of short loops, and a sleeper wakes in 50 */

typedef struct loop {
  ev_range_fn *fn;
  void *ctx;
  size_t n, grain;
  atomic_size_t next;
} loop;

static struct {
  pthread_mutex_t lock;
  pthread_cond_t start, done;
  pid_t pid;            /* the process that started the helpers */
  int helpers;          /* running helper threads */
  int wanted;           /* threads asked for; 0 = all cores */
  atomic_int active;    /* helpers still in the current loop; written with the lock held */
  int invited;          /* helpers taking part in it */
  atomic_uint_fast64_t round; /* likewise */
  loop *current;
  bool busy;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .start = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static _Thread_local bool inside;

static void work(loop *l, int worker) {
  for (;;) {
    size_t begin = atomic_fetch_add_explicit(&l->next, l->grain, memory_order_relaxed);
    if (begin >= l->n) return;
    size_t end = l->n - begin < l->grain ? l->n : begin + l->grain;
    l->fn(l->ctx, begin, end, worker);
  }
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void *helper(void *arg) {
  int id = (int)(intptr_t)arg;
  uint64_t seen = 0;
  inside = true;
  pthread_mutex_lock(&pool.lock);
  for (;;) {
    if (pool.round == seen) {
      pthread_mutex_unlock(&pool.lock);
      for (int i = 0; i < SPINS && pool.round == seen; i++) relax();
      pthread_mutex_lock(&pool.lock);
    }
    while (pool.round == seen) pthread_cond_wait(&pool.start, &pool.lock);
    seen = pool.round;
    if (id > pool.invited) continue;
    loop *l = pool.current;
    pthread_mutex_unlock(&pool.lock);
    work(l, id);
    pthread_mutex_lock(&pool.lock);
    if (--pool.active == 0) pthread_cond_signal(&pool.done);
  }
  return NULL;
}

int ev_threads(void) {
  static int cores;
  if (pool.wanted > 0) return pool.wanted;
  if (cores == 0) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    cores = n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
  }
  return cores;
}

void ev_threads_set(int n) { pool.wanted = n < 0 ? 0 : n > MAX_THREADS ? MAX_THREADS : n; }

/* With the lock held: as many helpers as asked for, as far as the system gives them. */
static int ensure_helpers(int wanted) {
  if (pool.pid != getpid()) { /* first use, or a forked child that inherited no threads */
    pool.pid = getpid();
    pool.helpers = 0;
    pool.round = 0;
    pthread_cond_init(&pool.start, NULL);
    pthread_cond_init(&pool.done, NULL);
  }
  while (pool.helpers < wanted) {
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int failed = pthread_create(&thread, &attr, helper, (void *)(intptr_t)(pool.helpers + 1));
    pthread_attr_destroy(&attr);
    if (failed) break;
    pool.helpers++;
  }
  return pool.helpers < wanted ? pool.helpers : wanted;
}

void ev_parallel_for(size_t n, size_t grain, ev_range_fn *fn, void *ctx) {
  if (n == 0) return;
  loop l = {.fn = fn, .ctx = ctx, .n = n, .grain = grain == 0 ? 1 : grain};
  atomic_init(&l.next, 0);
  size_t slices = (n - 1) / l.grain + 1;
  int threads = ev_threads();
  if (slices < (size_t)threads) threads = (int)slices;
  if (inside || threads <= 1) {
    work(&l, 0);
    return;
  }
  pthread_mutex_lock(&pool.lock);
  if (pool.busy && pool.pid == getpid()) { /* another thread's loop is running: this one does its own alone */
    pthread_mutex_unlock(&pool.lock);
    work(&l, 0);
    return;
  }
  pool.busy = true;
  pool.invited = pool.active = ensure_helpers(threads - 1);
  pool.current = &l;
  pool.round++;
  pthread_cond_broadcast(&pool.start);
  pthread_mutex_unlock(&pool.lock);
  inside = true;
  work(&l, 0);
  inside = false;
  for (int i = 0; i < SPINS && pool.active > 0; i++) relax();
  pthread_mutex_lock(&pool.lock);
  while (pool.active > 0) pthread_cond_wait(&pool.done, &pool.lock);
  pool.busy = false;
  pthread_mutex_unlock(&pool.lock);
}
