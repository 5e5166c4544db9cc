/* lately.c - while a canary runs: which agents proposed what in the latest slates, so that an event finds who earned it.
 *
 * Slates are numbered as they come. A slate's entry is at its number modulo LATELY_SLATES, its items lie in a ring of LATELY_ITEMS at the
 * place that is counted on likewise; whichever ring comes round first takes the oldest away. Slates whose ids hash alike are chained
 * from the youngest on by their numbers, so that nothing has to be taken out of a chain: what is too old ends it.
 *
 * 12 MB, and no more however large slates are. The ledger knows all of this too, but only once it is on disk, and in another process. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "inside.h"

#define SETS_MAX 64       /* versions that served while it ran: champion, challenger, reserve, and edits of them */
#define FALLBACK SETS_MAX /* nobody's slate */

typedef struct entry {
  uint64_t key[2];        /* of the impression's id */
  uint64_t before;        /* number + 1 of the slate before it in the chain; 0: none */
  uint64_t at;            /* of its first item */
  uint16_t n;
  uint8_t set;            /* whose recalls the bits are */
} entry;

typedef struct pick {
  uint32_t item, sources;
} pick;

struct lately {
  pthread_mutex_t lock;
  uint64_t n_slates, n_items; /* so far */
  size_t n_sets;
  char sets[SETS_MAX][32][48];
  uint64_t chains[LATELY_SLATES]; /* number + 1 of the youngest */
  entry slates[LATELY_SLATES];
  pick items[LATELY_ITEMS];
};

/* "5c1e09d27ab3f486-1f" → its two numbers; false: no id of ours. */
static bool key_of(const char *id, uint64_t key[2]) {
  size_t dash = strcspn(id, "-"), n = strlen(id);
  if (dash != 16 || n < 18 || n > 33 || strspn(id, "0123456789abcdef") != dash || strspn(id + 17, "0123456789abcdef") != n - 17) return false;
  for (int part = 0; part < 2; part++) {
    key[part] = 0;
    for (const char *at = id + 17 * part; *at != '\0' && *at != '-'; at++) key[part] = key[part] << 4 | (uint64_t)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
  }
  return true;
}

static uint64_t *chain_of(lately *s, const uint64_t key[2]) { return &s->chains[ev_checksum(key, 2 * sizeof *key) % LATELY_SLATES]; }

/* The slate of that number, while it and its items are there. */
static const entry *alive(const lately *s, uint64_t number) {
  const entry *e = &s->slates[number % LATELY_SLATES];
  return number < s->n_slates && s->n_slates - number <= LATELY_SLATES && s->n_items - e->at <= LATELY_ITEMS ? e : NULL;
}

lately *lately_new(void) {
  lately *s = ev_zalloc(1, sizeof *s); /* zeroed pages come as they are touched */
  if (s != NULL) pthread_mutex_init(&s->lock, NULL);
  return s;
}

void lately_free(lately *s) {
  if (s == NULL) return;
  pthread_mutex_destroy(&s->lock);
  ev_free(s);
}

static size_t set_of(lately *s, const char (*recalls)[48]) { /* SETS_MAX + 1: no room */
  if (recalls == NULL) return FALLBACK;
  for (size_t i = 0; i < s->n_sets; i++)
    if (memcmp(s->sets[i], recalls, sizeof s->sets[i]) == 0) return i;
  if (s->n_sets == SETS_MAX) return SETS_MAX + 1;
  memcpy(s->sets[s->n_sets], recalls, sizeof s->sets[0]);
  return s->n_sets++;
}

void lately_add(lately *s, const char *impression, const char (*recalls)[48], const ev_answer *answer) {
  uint64_t key[2];
  if (!key_of(impression, key) || answer->n > SLATE_MAX) return;
  pthread_mutex_lock(&s->lock);
  size_t set = set_of(s, recalls);
  if (set <= FALLBACK) {
    uint64_t number = s->n_slates++, *chain = chain_of(s, key);
    s->slates[number % LATELY_SLATES] = (entry){.key = {key[0], key[1]}, .before = *chain, .at = s->n_items, .n = (uint16_t)answer->n, .set = (uint8_t)set};
    *chain = number + 1;
    for (uint32_t i = 0; i < answer->n; i++) s->items[s->n_items++ % LATELY_ITEMS] = (pick){answer->picks[i].item, answer->picks[i].sources};
  }
  pthread_mutex_unlock(&s->lock);
}

size_t lately_agents(lately *s, const char *impression, uint32_t item, const char *out[32]) {
  uint64_t key[2], number;
  const entry *e = NULL;
  size_t n = 0;
  if (impression == NULL || !key_of(impression, key)) return 0;
  pthread_mutex_lock(&s->lock);
  for (number = *chain_of(s, key); number != 0 && (e = alive(s, number - 1)) != NULL; number = e->before)
    if (e->key[0] == key[0] && e->key[1] == key[1]) break;
  if (number != 0 && e != NULL) {
    for (uint32_t i = 0; i < e->n && n == 0; i++) {
      const pick *p = &s->items[(e->at + i) % LATELY_ITEMS];
      if (p->item != item) continue;
      if (e->set == FALLBACK) out[n++] = "fallback";
      for (uint32_t b = 0; b < 32 && e->set != FALLBACK; b++)
        if ((p->sources >> b & 1) != 0 && s->sets[e->set][b][0] != '\0') out[n++] = s->sets[e->set][b];
      break;
    }
  }
  pthread_mutex_unlock(&s->lock);
  return n;
}
