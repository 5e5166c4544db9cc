/* policy.c FOLDER - what tests/bench/policy.lua times, in plain C: the same candidates, the same columns, loops as one writes them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/store.h"

enum { MOST = 1024, WEIGHTS = 16, COLUMNS = 32, CLUSTERS = 4096 };
static const double seconds = 0.5;

typedef struct slate {
  size_t n, n_history;
  uint32_t item[MOST], *history;
  float score[MOST];
} slate;

static const float *table; /* (n_items, n_columns) of the model */
static size_t n_columns, n_items;
static int cluster = -1, popular = -1;
static float weight_of[COLUMNS]; /* of the model's columns */
static float w_score, w_scaled, w_place, w_affinity, w_mine;
static float column[COLUMNS][MOST], scaled[MOST], place[MOST], affinity[MOST], mine[MOST], score[MOST];

static void fill(const slate *s) {
  for (size_t i = 0; i < s->n; i++)
    for (size_t c = 0; c < n_columns; c++) column[c][i] = table[s->item[i] * n_columns + c];
}

static void of_request(const slate *s) {
  static float share[CLUSTERS]; /* of the history, by cluster; zeros between calls */
  float low = INFINITY, high = -INFINITY, length = logf(1 + (float)s->n_history);
  for (size_t i = 0; i < s->n; i++) {
    low = score[i] < low ? score[i] : low;
    high = score[i] > high ? score[i] : high;
  }
  for (size_t i = 0; i < s->n; i++) scaled[i] = (score[i] - low) / (high - low);
  for (size_t i = 0; i < s->n; i++) place[i] = logf(2) / logf((float)i + 2);
  for (size_t h = 0; h < s->n_history; h++) share[(size_t)table[s->history[h] * n_columns + (size_t)cluster]] += 1 / (float)s->n_history;
  for (size_t i = 0; i < s->n; i++) affinity[i] = share[(size_t)column[cluster][i]];
  for (size_t h = 0; h < s->n_history; h++) share[(size_t)table[s->history[h] * n_columns + (size_t)cluster]] = 0;
  for (size_t i = 0; i < s->n; i++) mine[i] = column[popular][i] * length;
}

static void weigh(size_t n) {
  for (size_t i = 0; i < n; i++) score[i] = w_score * score[i] + w_scaled * scaled[i] + w_place * place[i] + w_affinity * affinity[i] + w_mine * mine[i];
  for (size_t c = 0; c < n_columns; c++) {
    if ((int)c == cluster) continue;
    for (size_t i = 0; i < n; i++) score[i] += weight_of[c] * column[c][i];
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void whole(const slate *s) {
  memcpy(score, s->score, s->n * sizeof *score);
  fill(s);
  of_request(s);
  weigh(s->n);
}

static void only_weigh(const slate *s) { weigh(s->n); }

static double time_of(void (*act)(const slate *s), const slate *slates, size_t n) {
  double best = INFINITY;
  for (int run = 0; run < 5; run++) {
    size_t done = 0;
    double start = now(), took;
    do {
      for (size_t i = 0; i < n; i++) {
        act(&slates[i]);
        __asm__ volatile("" ::: "memory"); /* the scores are wanted */
      }
      done += n;
      took = now() - start;
    } while (took < seconds);
    if (took / (double)done < best) best = took / (double)done;
  }
  return best * 1e6;
}

int main(int argc, char **argv) {
  char path[4096], name[64];
  size_t n_slates, n;
  if (argc != 2) return 2;
  snprintf(path, sizeof path, "%s/slates", argv[1]);
  FILE *f = fopen(path, "r");
  if (f == NULL || fscanf(f, "%4095s %zu %zu", path, &n_slates, &n) != 3 || n > MOST || n_slates > 4096) return 1;
  ev_pack *p;
  ev_array names, values;
  if (ev_pack_open(&p, path) != EV_OK || ev_pack_get(p, "names", EV_U8, &names) != EV_OK || ev_pack_get(p, "values", EV_F32, &values) != EV_OK) return 1;
  table = values.data, n_items = values.rows, n_columns = values.cols;
  char list[COLUMNS][64];
  const char *at = names.data;
  if (n_columns > COLUMNS) return 1;
  for (size_t c = 0; c < n_columns; c++) {
    size_t len = strcspn(at, "\n");
    snprintf(list[c], sizeof list[c], "%.*s", (int)len, at);
    if (strcmp(list[c], "cluster") == 0) cluster = (int)c;
    if (strcmp(list[c], "popular") == 0) popular = (int)c;
    at += len + 1;
  }
  for (int i = 0; i < WEIGHTS; i++) {
    float x;
    if (fscanf(f, "%63s %f", name, &x) != 2) return 1;
    const struct {
      const char *name;
      float *to;
    } own[] = {{"score", &w_score}, {"scaled", &w_scaled}, {"place", &w_place}, {"affinity", &w_affinity}, {"mine", &w_mine}};
    bool found = false;
    for (size_t k = 0; k < 5; k++)
      if (strcmp(own[k].name, name) == 0) *own[k].to = x, found = true;
    for (size_t c = 0; c < n_columns && !found; c++)
      if (strcmp(list[c], name) == 0) weight_of[c] = x, found = true;
    if (!found) return 1;
  }
  slate *slates = calloc(n_slates, sizeof *slates);
  for (size_t s = 0; s < n_slates; s++) {
    slates[s].n = n;
    if (fscanf(f, "%zu", &slates[s].n_history) != 1 || slates[s].n_history > MOST * 64) return 1;
    slates[s].history = calloc(slates[s].n_history + 1, sizeof(uint32_t));
    for (size_t h = 0; h < slates[s].n_history; h++)
      if (fscanf(f, "%u", &slates[s].history[h]) != 1 || slates[s].history[h] >= n_items) return 1;
    for (size_t i = 0; i < n; i++)
      if (fscanf(f, "%u %f", &slates[s].item[i], &slates[s].score[i]) != 2 || slates[s].item[i] >= n_items) return 1;
  }
  fclose(f);
  double sum = 0;
  for (size_t s = 0; s < n_slates; s++) {
    whole(&slates[s]);
    for (size_t i = 0; i < n; i++) sum += (double)score[i] * (double)((i + 1) % 7 + 1);
  }
  double t_whole = time_of(whole, slates, n_slates), t_weigh = time_of(only_weigh, slates, n_slates);
  printf("{\"whole\": %.6f, \"weigh\": %.6f, \"checksum\": %.9g}\n", t_whole, t_weigh, sum);
  return 0;
}
