/* arms.h - learning state from the inside; private to this room.
 *
 *   arms.c           the mapping: opening, slots, locks, snapshots
 *   arms_window.c    what was shown and waits for its reward
 *   arms_counts.c    counts, and the probability of being the best
 *   arms_linear.c    linear and logistic models
 *   arms_weights.c   EXP3, EXP4
 *   arms_policy.c    softmax policies
 *   arms_cma.c       CMA-ES
 *   arms_choose.c    decisions
 *
 * The file:  head (one page) │ locks │ slots: turn, copy 0, copy 1 │ window: entries of a ring
 * Slot i's whole copy is number turn % 2. A writer holds the slot's lock, fills the other copy and adds one to turn. */
#ifndef EV_REWARD_ARMS_H
#define EV_REWARD_ARMS_H

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "../math/math.h"
#include "reward.h"

typedef struct arms_layout { /* what a file keeps; compared byte by byte */
  char magic[8];
  uint32_t version, kind, n, n_dims, diagonal, window, n_locks, lock_bytes;
  uint64_t slot_size;   /* doubles */
  uint64_t slot_bytes;  /* from one slot to the next */
  uint64_t locks_at, slots_at, window_at, entry_bytes, total;
} arms_layout;

typedef struct arms_head {
  arms_layout layout;
  uint64_t sum; /* of the layout */
  _Atomic uint64_t ready; /* 1: whole */
  _Atomic uint64_t boot;  /* of the machine's run that used it last */
  _Atomic uint64_t ticks, decisions, shown, settled, rewarded, late, repaired; /* shown, settled: entries so far */
  _Atomic int64_t snapshot_ms;
} arms_head;

typedef struct arms_entry { /* one place of a slate that was shown */
  uint64_t key;
  uint32_t arm, place, places; /* place from 0 */
  float propensity;
  double reward;
  float x[]; /* (n_dims) */
} arms_entry;

struct ev_arms {
  ev_arms_options o;
  arms_layout layout;
  char *base;    /* the mapping */
  arms_head *head;
  int fd;        /* holds the shared lock on the file; −1: no file */
};

static inline size_t arms_dim(const ev_arms *a) { return a->o.n_dims; }
static inline pthread_mutex_t *arms_lock_of(const ev_arms *a, size_t k) { return (pthread_mutex_t *)(void *)(a->base + a->layout.locks_at + k * sizeof(pthread_mutex_t)); }

/* Locks: number 0 is the window's, slot i's is 1 + i mod (n_locks − 1). */
ev_status arms_lock(ev_arms *a, size_t k);
void arms_unlock(ev_arms *a, size_t k);
/* An update of a slot: the copy that stands, and the one to fill; then turn, or leave it. */
ev_status arms_begin(ev_arms *a, uint32_t i, const double **from, double **to);
void arms_end(ev_arms *a, uint32_t i, bool turn);
/* A whole copy of the first `size` doubles of slot i. */
ev_status arms_copy(const ev_arms *a, uint32_t i, double *out, size_t size);

void arms_first(const ev_arms *a, double *slot);              /* a slot that has learnt nothing */
ev_status arms_check_slot(const ev_arms *a, const double *slot); /* finite, and what must be positive is: EV_ECORRUPT */

double arms_draw_beta(double a, double b, ev_rng *r);
ev_status arms_counts_update(ev_arms *a, uint32_t i, double reward, double seen);
void arms_counts_now(const ev_arms *a, double *slot, uint64_t tick); /* faded to that tick */
ev_status arms_linear_update(ev_arms *a, uint32_t i, const float *x, double reward, double seen);
void arms_linear_moments(const ev_arms *a, const double *slot, const float *x, double *mean, double *variance, double *scratch); /* xᵀθ and xᵀA⁻¹x; scratch (d) */
ev_status arms_weights_update(ev_arms *a, uint32_t i, const float *x, double reward, double propensity, double seen);
void arms_weights_shares(const ev_arms *a, const double *slot, double *out); /* (n) w / Σ w */
ev_status arms_policy_update(ev_arms *a, const float *x, double reward, double seen);

static inline double arms_sigmoid(double z) { return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z)); }
/* Lower Cholesky factor of the symmetric a (n, n) into l; false: not positive definite. */
bool arms_cholesky(double *l, const double *a, size_t n);
/* a⁻¹ of the positive definite a by its factor, both (n, n); l and work (n, n) are scratch. */
bool arms_inverse(double *out, const double *a, double *l, double *work, size_t n);

#define ARMS_SLOT_HEAD 4 /* doubles before θ or the weights; counts are just these */

#endif
