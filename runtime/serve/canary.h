/* canary.h - what canary.c (serving and deciding) and canary_state.c (keeping and telling) share; private to them.
 *
 * Every user has a number: the how many-th he was to come. His entry in a hash table stays, so that he counts once; his unit lives
 * from his first slate until it and all before it are closed. Units enter the sequences in the order in which users came: who comes
 * back sooner under one arm does not enter sooner, so that each next unit is the challenger's with probability `share`, whatever
 * was before. That is all the statistics ask for.
 *
 * Two locks. `hot` guards what slates and events touch, and is held for a fraction of a microsecond; `slow` guards the statistics, which
 * canary_tick fills from what `hot` had gathered. Whoever wants both takes `slow` first. */
#ifndef EV_SERVE_CANARY_H
#define EV_SERVE_CANARY_H

#include <pthread.h>

#include "inside.h"

#define CANARY_USERS_MAX (1u << 21)
#define CANARY_SHARDS 64            /* of the table: each grows by itself, so that growing stops nobody for long */
#define CANARY_CHUNK 4096           /* units */
#define CANARY_AGENTS 32
#define CANARY_AGENT_NAME 48
#define CANARY_CREDITS_MAX (1u << 20)
#define CANARY_SEEN 65536           /* observations of the guardrails between two ticks */
#define CANARY_BUCKETS 176          /* of latency: eighths of an octave from 2^-5 ms on, the last one open */
#define CANARY_HISTORY 120
#define CANARY_BETS 5
#define CANARY_TIME_MAX (INT64_MAX / 4)

enum { CHAMPION, CHALLENGER };

typedef struct canary_user { /* 16 bytes; at most three quarters of a shard are in use */
  uint64_t key;              /* of the id; 0: free */
  uint32_t number;
  uint32_t round;            /* of the guardrails, the last in which he was counted */
} canary_user;

typedef struct canary_unit {
  int64_t until_ms;          /* closed from then on */
  double earned;
  uint32_t slates, credits;  /* the first of his in `credits`; EV_NONE */
  uint32_t arm, reserved;
} canary_unit;

typedef struct canary_credit { /* what proposals of one agent earned of a unit */
  double earned;
  uint32_t agent, next;
} canary_credit;

typedef struct canary_shard {
  canary_user *users;        /* (size), size a power of two */
  uint32_t size, n;
} canary_shard;

/* One watch over the guardrails. Each user counts once, as he comes. */
typedef struct canary_guard {
  uint64_t users[2], degraded[2], late[2];
  ev_canary errors, slow;    /* "worse" of 1 − degraded, 1 − late: the challenger's share is larger than the champion's by more than is allowed */
  double broken[CANARY_BETS], tardy[CANARY_BETS]; /* capital of bets that the challenger's share is above GROSS, above LATE_SHARE */
  double most_broken, most_tardy;
} canary_guard;

typedef struct canary_inner { /* of one agent */
  char name[CANARY_AGENT_NAME];
  uint32_t since, reserved;  /* the first user of whom it counts */
  ev_sequence arm[2];
} canary_inner;

typedef struct canary_point {
  double units, difference, low, high;
} canary_point;

typedef enum canary_stop { STOP_NONE, STOP_OUTER, STOP_ERRORS, STOP_BROKEN, STOP_LATE, STOP_BETTER, CANARY_STOPS } canary_stop;

typedef struct canary_book { /* the statistics, without pointers: kept as they stand */
  canary_options o;
  int64_t started_ms;        /* 0: nothing came yet */
  ev_canary outer;
  ev_sequence share[2][2];   /* first slates: degraded, late; of champion and challenger, to be shown */
  canary_guard ever, now;    /* over each user's first slate; over his first one of this round */
  uint32_t rounds;           /* those with a slate, the present one included */
  uint32_t verdict, stop;
  uint32_t n_history, stride; /* a point each `stride` units */
  int64_t decided_ms;
  char why[256];
  canary_point history[CANARY_HISTORY];
} canary_book;

typedef struct canary_counts { /* guarded by `hot` */
  int64_t now_ms;            /* the latest that was said: time never goes back */
  int64_t started_ms;
  uint64_t slates[2], degraded[2], latency[2][CANARY_BUCKETS];
  uint64_t opened[2], events[2]; /* users; events that count for one who is measured */
  uint64_t ignored;          /* slates of users beyond the bound, or for whom there was no memory */
  uint64_t mixed;            /* slates of the other arm than the user's unit */
  uint64_t unseen;           /* observations of the guardrails that were lost: nobody ticked */
  uint64_t uncredited;       /* rewards that no agent was credited with for want of room */
  uint32_t n_agents, round;
  uint32_t head, tail;       /* users whose unit has entered; users */
} canary_counts;

struct canary {
  pthread_mutex_t hot, slow;
  canary_book book;
  canary_inner inner[CANARY_AGENTS]; /* name and since: hot; arms: slow */
  canary_counts n;
  canary_shard shards[CANARY_SHARDS];
  canary_unit *chunks[CANARY_USERS_MAX / CANARY_CHUNK];
  canary_credit *credits;
  uint32_t n_credits, credits_size, free_credits; /* free_credits: a list of those given back */
  uint8_t seen[CANARY_SEEN]; /* a ring */
  uint32_t seen_from, seen_to;
};

/* Guardrails and outer test share the probability of a false roll-back, 1 − caution. */
#define CANARY_OUTER_PART 0.8
#define CANARY_TESTS 6       /* errors, broken, slow; ever and now */
#define CANARY_GROSS 0.25
#define CANARY_LATE_SHARE 0.01
double canary_need(const canary_book *b, const canary_guard *g); /* what an e-value of this watch must reach */
double canary_mixed(const double capital[CANARY_BETS]);
ev_status canary_start(canary **out);            /* empty, with its locks */
canary_unit *canary_unit_of(const canary *c, uint32_t number); /* of one that is in flight */
canary_user *canary_find(const canary *c, uint64_t key); /* or NULL */
bool canary_insert(canary *c, uint64_t key, uint32_t round, const canary_unit *u); /* the next user; u NULL: his unit has entered. false: no room */
bool canary_credited(canary *c, canary_unit *u, uint32_t agent, double earned);
double canary_bucket_ms(size_t bucket);          /* its upper end */
ev_status canary_check_options(const canary_options *o); /* EV_EINVAL */

#endif
