/* bind_arrivals.c - what was put while serving, for recalls: items that neither data nor models know. */
#include <math.h>

#include "bind.h"

/* request:arrivals(slate, half_life_s[, n]): appends the youngest n items that the data have not, each with the score 2^(−age / half-life).
 * While evaluating, and where nothing new was put, there are none. */
int ev_lua_request_arrivals(lua_State *L) {
  const ev_lrequest *q = ev_lua_request(L, 1);
  ev_slate *s = ev_lua_slate(L, 2);
  double half_life_s = luaL_checknumber(L, 3);
  size_t n = lua_isnoneornil(L, 4) ? q->n : (size_t)ev_lua_integer(L, 4, 1, EV_SLATE_MAX_ITEMS);
  luaL_argcheck(L, half_life_s > 0 && isfinite(half_life_s), 3, "a half-life in seconds, above 0");
  uint32_t items[EV_ARRIVALS_MAX];
  float scores[EV_ARRIVALS_MAX];
  if (n > q->n_arrivals) n = q->n_arrivals;
  for (size_t i = 0; i < n; i++) {
    items[i] = q->arrivals[i].item;
    scores[i] = (float)exp2(-q->arrivals[i].age_s / half_life_s);
    if (i > 0 && scores[i] >= scores[i - 1]) scores[i] = nextafterf(scores[i - 1], 0); /* as they came, also what came within the same second */
  }
  EV_CHECK(L, ev_slate_append(s, items, scores, n, 0));
  return 0;
}
