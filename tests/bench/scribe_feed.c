/* scribe_feed.c - slates of 20 items into a ledger: through the writer's process, through the writer's thread, or straight.
 *
 *   scribe_feed scribe|thread|put FILE SLATES BATCH RATE → {"slates_s": …, "producer_us": …, "writer_us": …, "post_us": …}
 *
 * One slate a post; put takes BATCH slates a transaction. RATE: slates a second, 0: as fast as it goes. producer_us and writer_us are
 * CPU time a slate (put and thread: both in producer_us, a process). post_us: the median time of a post that found room. */
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../runtime/serve/inside.h"

enum { SLATE = 20, ITEMS = 10000, NAMES = 65536 };
static const char *const agents[] = {"ease", "popular", "item_knn", "ease+item_knn"};
static const char version[] = "2f1d3c9a4b5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8";
static char (*names)[12];

static uint64_t mixed(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

typedef struct made {
  char id[40], user[16];
  ev_shown items[SLATE];
} made;

static ev_impression make(made *m, size_t n) { /* ids in order, as the service makes them */
  uint64_t r = mixed(n);
  snprintf(m->id, sizeof m->id, "%016llx-%zx", 0x1234567890abcdefull, n);
  snprintf(m->user, sizeof m->user, "u%llu", (unsigned long long)(r % 50000));
  for (size_t k = 0; k < SLATE; k++) m->items[k] = (ev_shown){names[mixed(r + k) % NAMES], 1.0 / (double)(k + 1), agents[r >> (2 * k) & 3], 0};
  return (ev_impression){m->id, m->user, version, 0.001, 1700000000000 + (int64_t)n * 10, m->items, SLATE};
}

static void check(ev_status status) {
  if (status == EV_OK) return;
  fprintf(stderr, "%s\n", ev_error());
  exit(1);
}

static double cpu_us(int who) {
  struct rusage u;
  getrusage(who, &u);
  return 1e6 * (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int ascending(const void *a, const void *b) { return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b); }

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  size_t n = strtoull(argv[3], NULL, 10), batch = strtoull(argv[4], NULL, 10);
  double rate = atof(argv[5]), making_us = 0;
  names = malloc(NAMES * sizeof *names);
  for (size_t i = 0; i < NAMES; i++) snprintf(names[i], sizeof names[i], "i%d", (int)(ITEMS * pow((double)(mixed(i) >> 11) * 0x1p-53, 3)));
  made *m = malloc(batch * sizeof *m);
  ev_impression *slates = malloc(batch * sizeof *slates);
  uint32_t *took = malloc(n * sizeof *took);
  double before = cpu_us(RUSAGE_SELF); /* what making the slates costs is not the ledger's */
  for (size_t i = 0; i < n; i++) slates[0] = make(m, i);
  making_us = cpu_us(RUSAGE_SELF) - before;
  int bell = eventfd(0, EFD_NONBLOCK);
  scribe *s = NULL;
  ev_ledger_writer *w = NULL;
  ev_ledger *l = NULL;
  pid_t pid = -1;
  if (argv[1][0] == 's') {
    check(scribe_new(&s, 1, 8 << 20, &bell));
    pid = fork();
    if (pid == 0) _exit((int)scribe_run(s, argv[2]));
  } else if (argv[1][0] == 't') {
    check(ev_ledger_writer_open(&w, argv[2], NULL));
  } else {
    check(ev_ledger_open(&l, argv[2]));
  }
  before = cpu_us(RUSAGE_SELF);
  uint64_t start = ev_now_ns();
  for (size_t i = 0; i < n; i += batch) {
    size_t k = l != NULL ? batch : 1;
    for (size_t j = 0; j < k; j++) slates[j] = make(&m[j], i + j);
    ev_ledger_batch b = {.impressions = slates, .n_impressions = k};
    ev_ledger_receipt r;
    uint64_t since = ev_now_ns();
    ev_status status = EV_OK;
    if (l != NULL) {
      check(ev_ledger_put(l, &b, &r));
    } else {
      for (size_t j = 0; j < batch; j++) {
        if (j > 0) slates[0] = make(m, i + j);
        if (rate > 0) {
          uint64_t due = start + (uint64_t)(1e9 * (double)(i + j) / rate), now = ev_now_ns();
          if (due > now) nanosleep(&(struct timespec){0, (long)(due - now)}, NULL);
        }
        since = ev_now_ns();
        while ((status = s != NULL ? scribe_post(s, 0, &b, NULL) : ev_ledger_post(w, &b, NULL, NULL)) == EV_ELIMIT) {
          if (s != NULL) poll(&(struct pollfd){bell, POLLIN, 0}, 1, 100);
          else usleep(1000);
          bell_hush(bell);
          since = ev_now_ns();
        }
        took[i + j] = (uint32_t)(ev_now_ns() - since);
        check(status);
      }
    }
  }
  if (s != NULL) scribe_stop(s);
  int status = 0;
  if (pid > 0 && (waitpid(pid, &status, 0) != pid || status != 0)) return 1;
  check(ev_ledger_writer_close(w));
  ev_ledger_close(l);
  double seconds = (double)(ev_now_ns() - start) * 1e-9, producer = cpu_us(RUSAGE_SELF) - before - making_us;
  if (l == NULL) qsort(took, n, sizeof *took, ascending);
  check(ev_ledger_open_reader(&l, argv[2]));
  sqlite3_stmt *count;
  sqlite3_prepare_v2(ev_ledger_db(l), "SELECT count(*), (SELECT count(*) FROM shown) FROM impressions", -1, &count, NULL);
  if (sqlite3_step(count) != SQLITE_ROW || sqlite3_column_int64(count, 0) != (int64_t)n || sqlite3_column_int64(count, 1) != (int64_t)n * SLATE) return 1;
  sqlite3_finalize(count);
  printf("{\"slates_s\": %.0f, \"producer_us\": %.3f, \"writer_us\": %.3f, \"post_us\": %.3f, \"post_p99_us\": %.3f}\n", (double)n / seconds, producer / (double)n,
         pid > 0 ? cpu_us(RUSAGE_CHILDREN) / (double)n : 0, argv[1][0] == 'p' ? 0 : took[n / 2] * 1e-3, argv[1][0] == 'p' ? 0 : took[n - n / 100 - 1] * 1e-3);
  return 0;
}
