/* sampler.h - items drawn by a fixed distribution; private to this room.
 *
 * Any mixture of the uniform and a powered popularity is one distribution, so that a draw is one look into one alias table
 * whatever the mixture; a cell's share and its other item lie side by side, in one cache line. */
#ifndef EV_LEARN_SAMPLER_H
#define EV_LEARN_SAMPLER_H

#include "learn.h"

typedef struct ev_sampler_cell {
  float share;    /* of draws of this cell that are its own item */
  uint32_t other; /* what the rest of them are */
} ev_sampler_cell;

typedef struct ev_sampler {
  uint32_t n, threshold;  /* items; what makes a number below n unbiased (Lemire 2019) */
  ev_sampler_cell *cells; /* (n) owned; NULL: every item alike */
  float *log_q;           /* (n) owned; log of the probability of a draw, −inf: never */
} ev_sampler;

ev_status ev_sampler_open(ev_sampler *s, const ev_view *v, const ev_sampler_options *o);
void ev_sampler_close(ev_sampler *s);

static inline uint32_t ev_sampler_draw(const ev_sampler *s, ev_rng *r) {
  for (;;) {
    uint64_t u = ev_rng_u64(r), place = (u >> 32) * s->n;
    if ((uint32_t)place < s->threshold) continue;
    uint32_t i = (uint32_t)(place >> 32);
    return s->cells == NULL || (float)(uint32_t)u * 0x1p-32f < s->cells[i].share ? i : s->cells[i].other;
  }
}

/* A draw that is not among `seen` (ascending): after some tries the next item from there on that may be drawn; where there is
 * none at all, a seen one. */
uint32_t ev_sampler_draw_unseen(const ev_sampler *s, ev_rng *r, const uint32_t *seen, size_t n_seen);

#endif
