/* bandit.h - a bandit log under construction: what both parsers fill; private to this room. */
#ifndef EV_REWARD_BANDIT_H
#define EV_REWARD_BANDIT_H

#include "reward.h"

#define BANDIT_LINE_MAX (16u << 20)
#define BANDIT_PLACES_MAX 256
#define BANDIT_CONTEXT_MAX 4096
#define BANDIT_ARMS_MAX 1000000
#define BANDIT_DENSE_MAX ((size_t)1 << 28) /* numbers in one dense array: 2 GiB */

typedef struct names { /* strings ↔ numbers in order of first appearance */
  char *bytes;
  uint64_t *ptr; /* (n + 1) */
  size_t n, cap, bytes_cap;
  uint32_t *slots; /* open addressing; EV_NONE: free */
  size_t n_slots;
} names;
ev_status names_add(names *d, const char *s, size_t len, uint32_t *out); /* finds or adds */
uint32_t names_find(const names *d, const char *s, size_t len);
void names_free(names *d);

typedef struct chances { /* ev_bandit_probabilities, growing */
  uint64_t *ptr;
  uint32_t *arm;
  double *p;
  size_t n, cap, ptr_cap;
} chances;

typedef struct ev_bandit_builder {
  const char *path;
  const ev_bandit_options *o;
  size_t n, n_places;       /* rows; places of all rows so far */
  size_t length, n_context; /* the longest row; columns of context, SIZE_MAX until a row says */
  bool slates, has_position, has_marginal, has_logged, has_evaluated, has_time, has_user, closed_arms; /* as the first row has it */
  size_t n_positions;
  names arms, context_names, users;
  uint64_t *row_ptr;        /* (n + 1) places of each row */
  uint32_t *arm, *position, *user; /* (n_places), (n), (n); owned, as are the others */
  double *reward, *propensity, *marginal; /* (n_places) */
  double *context;          /* (n, n_context) */
  double *pair, *arm_features; /* (n, n_arms), (n_arms, n_arm_features) or NULL */
  size_t n_arm_features;
  int64_t *time_ms;
  chances logged, evaluated;
  double reward_low, reward_high;
  size_t row_cap, place_cap, context_cap, pair_cap;
} ev_bandit_builder;

ev_status bandit_grow(void *array, size_t *cap, size_t need, size_t size); /* array: address of the pointer */
ev_status bandit_rows(ev_bandit_builder *b, size_t n);   /* room for so many rows */
ev_status bandit_places(ev_bandit_builder *b, size_t n); /* and so many places */
void bandit_builder_free(ev_bandit_builder *b);

/* Lines of a mapped file, bounded and UTF-8. */
typedef struct bandit_lines {
  const char *path, *at, *end, *begin;
  size_t number;
} bandit_lines;
bool bandit_next(bandit_lines *l, const char **text, size_t *len, ev_status *status);
const char *bandit_quoted(char out[64], const char *s, size_t len);
bool bandit_time(const char *s, size_t len, int64_t *ms); /* seconds, or "2019-11-24 00:03:13.442536+00:00" */

ev_status bandit_read_jsonl(ev_bandit_builder *b, bandit_lines *l);
ev_status bandit_read_obd(ev_bandit_builder *b, bandit_lines *l, const char *items);

#endif
