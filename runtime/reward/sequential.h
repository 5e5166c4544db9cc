/* sequential.h - what the sequential tests share; private to this room. */
#ifndef EV_REWARD_SEQUENTIAL_H
#define EV_REWARD_SEQUENTIAL_H

#include "reward.h"

/* One observation in units of the range: up has the mean as its mean, down one minus the mean, each at least its `least` (0 or
 * below, known before). EV_DRIFTING takes 0 only. */
void ev_sequence_see(ev_sequence *s, double up, double least_up, double down, double least_down);

#endif
