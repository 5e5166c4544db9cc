/* markov.c - what follows what: transitions between items within a window of each user's history. learn.h gives the formula.
 *
 * An item's row is added up over the users who have it: their histories around its place, so the cost is that of the pairs
 * in the windows and of finding the places. */
#include <math.h>

#include "item_graph.h"
#include "kinds.h"

typedef struct markov {
  const ev_view *view;
  const ev_markov_options *o;
  float *faded;        /* (window + 1) decay^(d − 1) of d steps; [0] is not used */
  size_t window;
  float *user_weight;  /* (n_users) n^-user_power */
  float *from, *to;    /* (n_items) |i|^power */
} markov;

static void markov_row(void *ctx, uint32_t item, float *acc, uint32_t *touched, size_t *n_touched) {
  const markov *m = ctx;
  const ev_csr *users = &m->view->by_item, *items = &m->view->by_user;
  size_t n = 0;
  for (uint64_t a = users->ptr[item]; a < users->ptr[item + 1]; a++) {
    uint32_t u = users->idx[a];
    uint64_t begin = items->ptr[u], end = items->ptr[u + 1], place = begin;
    while (items->idx[place] != item) place++;
    uint64_t first = m->o->backward > 0 && place - begin > m->window ? place - m->window : m->o->backward > 0 ? begin : place;
    uint64_t last = end - place > m->window ? place + m->window + 1 : end;
    for (uint64_t b = first; b < last; b++) {
      uint32_t other = items->idx[b];
      float w = m->user_weight[u] * (b > place ? m->faded[b - place] : b < place ? m->faded[place - b] * m->o->backward : 0);
      if (w == 0 || other == item) continue; /* underflow; it would be touched again and again */
      if (acc[other] == 0) touched[n++] = other;
      acc[other] += w;
    }
  }
  for (size_t t = 0; t < n; t++) acc[touched[t]] /= m->from[item] * m->to[touched[t]] + m->o->shrink;
  *n_touched = n;
}

ev_status ev_fit_markov(const char *path, const ev_view *v, const ev_markov_options *o, const ev_progress *p) {
  size_t n_users = v->by_user.n_rows, n_items = v->by_item.n_rows, longest = 0;
  for (size_t u = 0; u < n_users; u++) {
    size_t n = v->by_user.ptr[u + 1] - v->by_user.ptr[u];
    if (n > longest) longest = n;
  }
  markov m = {.view = v, .o = o, .window = o->window > 0 && o->window < longest ? o->window : longest};
  m.faded = ev_alloc(m.window + 1, sizeof *m.faded);
  m.user_weight = ev_alloc(n_users, sizeof *m.user_weight);
  m.from = ev_alloc(n_items, sizeof *m.from);
  m.to = ev_alloc(n_items, sizeof *m.to);
  ev_status status = m.faded == NULL || m.user_weight == NULL || m.from == NULL || m.to == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) {
    for (size_t d = 0; d <= m.window; d++) m.faded[d] = d > 0 ? powf(o->decay, (float)d - 1) : 0;
    for (size_t u = 0; u < n_users; u++) {
      size_t n = v->by_user.ptr[u + 1] - v->by_user.ptr[u];
      m.user_weight[u] = n > 0 ? powf((float)n, -o->user_power) : 0;
    }
    for (size_t i = 0; i < n_items; i++) {
      float n = (float)(v->by_item.ptr[i + 1] - v->by_item.ptr[i]);
      m.from[i] = powf(n, o->from_power);
      m.to[i] = powf(n, o->to_power);
    }
    status = ev_item_graph_fit(path, n_items, o->neighbours, o->half_life, markov_row, &m, p);
  }
  void *blocks[] = {m.faded, m.user_weight, m.from, m.to};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) ev_free(blocks[i]);
  return status;
}
