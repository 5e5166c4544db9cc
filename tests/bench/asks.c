/* asks.c - requests a second of a core's time: asks COMPOSITION DATA [SECONDS [N]]
 *
 * Random users of the data with their whole histories, for N (20) items; everything in this process, as a script worker has it. Prints
 * a JSON list of {"name", "value", "unit"}: the path of the service, the same with a deadline and with interim answers, under a capped Lua
 * heap, and with explanations. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/core.h"
#include "script/script.h"
#include "store/store.h"

#define USERS 512

static const char *composition, *data_name;
static double seconds = 1;
static size_t n_wanted = 20;
static ev_ask asks[USERS];
static bool first_line = true;

static void need(ev_status status) {
  if (status == EV_OK) return;
  fprintf(stderr, "%s\n", ev_error());
  exit(1);
}

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static void make_asks(const ev_snapshot *s) {
  const uint64_t *ptr = ev_snapshot_user_ptr(s);
  ev_rng rng;
  ev_rng_seed(&rng, 1, 1);
  for (size_t i = 0; i < USERS; i++) {
    uint32_t user = ev_rng_below(&rng, (uint32_t)ev_snapshot_n_users(s)), *seen;
    const uint32_t *history = ev_snapshot_items(s) + ptr[user];
    size_t n = ptr[user + 1] - ptr[user], distinct = 0;
    seen = ev_alloc(n, sizeof *seen);
    if (seen == NULL) exit(1);
    memcpy(seen, history, n * sizeof *seen);
    qsort(seen, n, sizeof *seen, by_number);
    for (size_t k = 0; k < n; k++)
      if (k == 0 || seen[k] != seen[k - 1]) seen[distinct++] = seen[k];
    asks[i] = (ev_ask){.user = user, .history = history, .n_history = n, .seen = seen, .n_seen = distinct, .n = n_wanted};
  }
}

static bool keep(void *ctx, const ev_answer *so_far) { /* what a worker does: it copies the picks elsewhere */
  ev_answer *to = ctx;
  to->n = so_far->n;
  memcpy(to->picks, so_far->picks, so_far->n * sizeof *to->picks);
  return true;
}

static ev_host *host(size_t max_heap_bytes) {
  ev_host *h;
  ev_buf args = {0};
  ev_host_options o = {.root = ".", .home = getenv("EVECTION_HOME"), .max_heap_bytes = max_heap_bytes};
  need(ev_host_new(&h, &o));
  need(ev_buf_printf(&args, "{\"composition\": \"%s\", \"data\": \"%s\", \"seed\": 1}", composition, data_name));
  need(ev_host_serve(h, args.data, NULL));
  ev_buf_free(&args);
  ev_threads_set(1);
  return h;
}

typedef enum how { PLAIN, TIMED, SHOWN, EXPLAINED } how;

static uint64_t busy_ns(void) { /* of this process: what else runs on the machine does not count */
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static double requests_per_s(ev_host *h, how way) {
  static ev_answer answer, copy;
  ev_buf text = {0};
  uint64_t start = busy_ns(), end = start + (uint64_t)(seconds * 1e9), now = start;
  size_t done = 0;
  while (now < end) {
    for (size_t k = 0; k < 16; k++) {
      ev_ask ask = asks[done++ % USERS];
      ev_buf_clear(&text);
      ask.explain = way == EXPLAINED;
      if (way >= TIMED) ask.deadline_ns = ev_now_ns() + 5000000000; /* far enough for a busy machine: what it costs is the same */
      need(ev_host_recommend(h, &ask, &answer, &text, way == SHOWN ? keep : NULL, &copy));
    }
    now = busy_ns();
  }
  ev_buf_free(&text);
  return (double)done / (double)(now - start) * 1e9;
}

static void tell(const char *name, double value) {
  printf("%s\n  {\"name\": \"%s\", \"value\": %.1f, \"unit\": \"requests/s\"}", first_line ? "" : ",", name, value);
  first_line = false;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "asks COMPOSITION DATA [SECONDS [N]]\n");
    return 2;
  }
  composition = argv[1];
  data_name = argv[2];
  if (argc > 3) seconds = atof(argv[3]);
  if (argc > 4) n_wanted = (size_t)atoi(argv[4]);
  char path[4096];
  snprintf(path, sizeof path, "%s/data/%s.evs", getenv("EVECTION_HOME") != NULL ? getenv("EVECTION_HOME") : "var", data_name);
  ev_snapshot *s;
  need(ev_snapshot_open(&s, path));
  make_asks(s);
  ev_host *h = host(0), *capped = host((size_t)256 << 20);
  printf("[");
  requests_per_s(h, PLAIN);
  tell("plain", requests_per_s(h, PLAIN));
  tell("with a deadline", requests_per_s(h, TIMED));
  tell("with a deadline and interim answers", requests_per_s(h, SHOWN));
  tell("explained", requests_per_s(h, EXPLAINED));
  requests_per_s(capped, PLAIN);
  tell("under a heap cap", requests_per_s(capped, PLAIN));
  printf("\n]\n");
  ev_host_free(h);
  ev_host_free(capped);
  ev_snapshot_close(s);
  return 0;
}
