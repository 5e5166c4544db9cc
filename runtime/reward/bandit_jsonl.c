/* bandit_jsonl.c - bandit logs as JSON Lines: one decision or one slate a line (the format: docs/reference/ope.md).
 *
 * What a file's first row has, all of its rows have: a column that comes and goes is a mistake of the writer more often than
 * a fact about the world. Keys that are not known are refused, since a misspelt optional one would be lost in silence; those
 * that begin with '_' are the writer's own. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bandit.h"

#define DISTRIBUTION_SLACK 1e-6 /* how far from 1 probabilities may add up, and a propensity be from its arm's probability */

typedef struct at {
  ev_bandit_builder *b;
  size_t line;
} at;

#define WRONG(...) wrong(w, __VA_ARGS__)
EV_PRINTF(2, 3) static ev_status wrong(const at *w, const char *fmt, ...) {
  char text[400];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  return ev_fail(EV_EINVAL, "%s:%zu: %s", w->b->path, w->line, text);
}

/* What a value looks like, for a message. */
static const char *shown(char out[64], const json_t *v) {
  if (v == NULL) return "missing";
  if (json_is_string(v)) return bandit_quoted(out, json_string_value(v), json_string_length(v));
  if (json_is_integer(v)) snprintf(out, 64, "%lld", (long long)json_integer_value(v));
  else if (json_is_real(v)) snprintf(out, 64, "%.10g", json_real_value(v));
  else if (json_is_boolean(v)) snprintf(out, 64, "%s", json_is_true(v) ? "true" : "false");
  else snprintf(out, 64, "%s", json_is_null(v) ? "null" : json_is_array(v) ? "a list" : "an object");
  return out;
}

static const char *name_of(const json_t *v, char number[32], size_t *len) { /* a string, or a whole number as text; NULL: neither */
  if (json_is_string(v)) {
    *len = json_string_length(v);
    return *len > 0 && *len <= 1000 ? json_string_value(v) : NULL;
  }
  if (!json_is_integer(v)) return NULL;
  *len = (size_t)snprintf(number, 32, "%lld", (long long)json_integer_value(v));
  return number;
}

static ev_status arm_of(const at *w, const json_t *v, uint32_t *out) {
  char number[32], text[64];
  size_t len;
  const char *s = name_of(v, number, &len);
  if (s == NULL) return WRONG("an arm is a string or a whole number, not %s", shown(text, v));
  if (w->b->closed_arms) {
    *out = names_find(&w->b->arms, s, len);
    return *out != EV_NONE ? EV_OK : WRONG("arm %s is not among the arms of line 1", bandit_quoted(text, s, len));
  }
  EV_TRY(names_add(&w->b->arms, s, len, out));
  return w->b->arms.n <= BANDIT_ARMS_MAX ? EV_OK : ev_fail(EV_ELIMIT, "%s:%zu: more than %d arms", w->b->path, w->line, BANDIT_ARMS_MAX);
}

static ev_status reward_of(const at *w, const json_t *v, double *out) {
  char text[64];
  if (!json_is_number(v) && !json_is_boolean(v)) return WRONG("the reward is %s, not a number", shown(text, v));
  *out = json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
  if (!isfinite(*out)) return WRONG("the reward is %s, not a number", shown(text, v));
  if (*out < w->b->reward_low || *out > w->b->reward_high)
    return WRONG("the reward is %s, not between %g and %g", shown(text, v), w->b->reward_low, w->b->reward_high);
  return EV_OK;
}

static ev_status propensity_of(const at *w, const json_t *v, const char *what, double *out) {
  char text[64];
  if (!json_is_number(v)) return WRONG("the %s is %s, not a number above 0 and at most 1", what, shown(text, v));
  *out = json_number_value(v);
  return *out > 0 && *out <= 1 ? EV_OK : WRONG("the %s is %s, not above 0 and at most 1", what, shown(text, v));
}

/* One distribution: { arm: p, … }, or [p, …] over the arms of line 1. Appended to c as one more place. */
static ev_status distribution(const at *w, const json_t *v, const char *what, chances *c, size_t place, uint32_t arm, double propensity) {
  ev_bandit_builder *b = w->b;
  char text[64];
  size_t n = json_is_object(v) ? json_object_size(v) : json_array_size(v);
  if (!json_is_object(v) && !json_is_array(v)) return WRONG("%s is %s, not an object or a list of probabilities", what, shown(text, v));
  if (json_is_array(v) && (!b->closed_arms || n != b->arms.n))
    return WRONG("%s is a list of %zu; line 1 names %zu arms", what, n, b->closed_arms ? b->arms.n : 0);
  bool first = c->ptr == NULL;
  EV_TRY(bandit_grow(&c->ptr, &c->ptr_cap, place + 2, sizeof *c->ptr));
  if (first) c->ptr[0] = 0;
  size_t cap = c->cap, other = c->cap;
  EV_TRY(bandit_grow(&c->arm, &cap, c->n + n, sizeof *c->arm));
  EV_TRY(bandit_grow(&c->p, &other, c->n + n, sizeof *c->p));
  c->cap = other;
  double sum = 0, chosen = 0;
  void *at_key = json_object_iter((json_t *)v);
  for (size_t i = 0; i < n; i++) {
    uint32_t a = (uint32_t)i;
    const json_t *p = json_is_array(v) ? json_array_get(v, i) : json_object_iter_value(at_key);
    if (json_is_object(v)) {
      json_t *key = json_string(json_object_iter_key(at_key));
      ev_status status = key == NULL ? WRONG("an arm of %s is not text", what) : arm_of(w, key, &a);
      json_decref(key);
      EV_TRY(status);
      at_key = json_object_iter_next((json_t *)v, at_key);
    }
    if (!json_is_number(p)) return WRONG("%s has %s for a probability", what, shown(text, p));
    double x = json_number_value(p);
    if (!(x >= 0 && x <= 1)) return WRONG("%s has the probability %s, not from 0 to 1", what, shown(text, p));
    sum += x;
    if (a == arm) chosen = x;
    if (x > 0) c->arm[c->n] = a, c->p[c->n++] = x;
  }
  if (!(fabs(sum - 1) <= DISTRIBUTION_SLACK)) return WRONG("%s add up to %.9g, not to 1", what, sum);
  if (propensity > 0 && !(fabs(chosen - propensity) <= DISTRIBUTION_SLACK))
    return WRONG("%s give the arm %.9g, its propensity is %.9g", what, chosen, propensity);
  c->ptr[place + 1] = c->n;
  return EV_OK;
}

static ev_status context(const at *w, const json_t *v) {
  ev_bandit_builder *b = w->b;
  char text[64];
  size_t n = json_is_object(v) ? json_object_size(v) : json_array_size(v), i = 0;
  if (v != NULL && !json_is_object(v) && !json_is_array(v)) return WRONG("the context is %s, not a list or an object of numbers", shown(text, v));
  if (n > BANDIT_CONTEXT_MAX) return WRONG("the context has %zu numbers, more than %d", n, BANDIT_CONTEXT_MAX);
  if (b->n_context == SIZE_MAX) {
    b->n_context = n;
    const char *key;
    json_t *x;
    uint32_t at_column;
    char number[32];
    if (json_is_object(v)) json_object_foreach((json_t *)v, key, x) EV_TRY(names_add(&b->context_names, key, strlen(key), &at_column));
    for (; json_is_array(v) && i < n; i++) EV_TRY(names_add(&b->context_names, number, (size_t)snprintf(number, sizeof number, "%zu", i + 1), &at_column));
  }
  if (n != b->n_context) return WRONG("the context has %zu numbers, that of the first row has %zu", n, b->n_context);
  if (n == 0) return EV_OK;
  EV_TRY(bandit_grow(&b->context, &b->context_cap, (b->n + 1) * n, sizeof *b->context));
  for (i = 0; i < n; i++) {
    const char *name = b->context_names.bytes + b->context_names.ptr[i];
    size_t len = b->context_names.ptr[i + 1] - b->context_names.ptr[i];
    const json_t *x = json_is_array(v) ? json_array_get(v, i) : json_object_getn(v, name, len);
    if (!json_is_number(x)) return WRONG("%.*s of the context is %s, not a number", (int)(len < 60 ? len : 60), name, shown(text, x));
    b->context[b->n * n + i] = json_number_value(x);
    if (!isfinite(b->context[b->n * n + i])) return WRONG("a number of the context is not finite");
  }
  return EV_OK;
}

/* { "arms": […], "positions": n, "reward_range": [low, high] }: what the rows cannot say themselves. */
static ev_status header(at *w, const json_t *v) {
  ev_bandit_builder *b = w->b;
  const char *key;
  json_t *x;
  char text[64];
  json_object_foreach((json_t *)v, key, x) {
    if (strcmp(key, "arms") == 0) {
      size_t i;
      json_t *arm;
      uint32_t a;
      if (!json_is_array(x) || json_array_size(x) == 0) return WRONG("arms is %s, not a list of names", shown(text, x));
      json_array_foreach(x, i, arm) {
        EV_TRY(arm_of(w, arm, &a));
        if (a != i) return WRONG("arm %s is named twice", shown(text, arm));
      }
      b->closed_arms = true;
    } else if (strcmp(key, "positions") == 0) {
      if (!json_is_integer(x) || json_integer_value(x) < 1 || json_integer_value(x) > BANDIT_PLACES_MAX)
        return WRONG("positions is %s, not from 1 to %d", shown(text, x), BANDIT_PLACES_MAX);
      b->n_positions = (size_t)json_integer_value(x);
    } else if (strcmp(key, "reward_range") == 0) {
      const json_t *low = json_array_get(x, 0), *high = json_array_get(x, 1);
      if (json_array_size(x) != 2 || !json_is_number(low) || !json_is_number(high) || !(json_number_value(low) < json_number_value(high)))
        return WRONG("reward_range is not [low, high]");
      if (isinf(b->reward_low)) b->reward_low = json_number_value(low), b->reward_high = json_number_value(high);
    } else if (*key != '_') {
      return WRONG("no key %s in a first line that describes the log", bandit_quoted(text, key, strlen(key)));
    }
  }
  return EV_OK;
}

static bool known(const char *key) {
  static const char *const keys[] = {"context", "arm", "slate", "position", "reward", "rewards", "propensity", "propensities", "marginals",
      "probabilities", "evaluated", "time", "user"};
  if (*key == '_') return true;
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (strcmp(key, keys[i]) == 0) return true;
  return false;
}

static ev_status same(const at *w, const char *key, bool has, bool *first) { /* as the first row has it */
  if (w->b->n == 0) *first = has;
  return has == *first ? EV_OK : WRONG(has ? "%s, which the first row does not have" : "no %s, which the first row has", key);
}

static ev_status place(const at *w, size_t l, const json_t *arm, const json_t *reward, const json_t *propensity, const json_t *marginal,
                       const json_t *logged, const json_t *evaluated) {
  ev_bandit_builder *b = w->b;
  size_t to = b->n_places + l;
  EV_TRY(arm_of(w, arm, &b->arm[to]));
  EV_TRY(reward_of(w, reward, &b->reward[to]));
  EV_TRY(propensity_of(w, propensity, "propensity", &b->propensity[to]));
  b->marginal[to] = 0;
  if (b->has_marginal) EV_TRY(propensity_of(w, marginal, "marginal propensity", &b->marginal[to]));
  if (b->has_logged) EV_TRY(distribution(w, logged, "probabilities", &b->logged, to, b->arm[to], b->propensity[to]));
  if (b->has_evaluated) EV_TRY(distribution(w, evaluated, "evaluated", &b->evaluated, to, EV_NONE, 0));
  return EV_OK;
}

static ev_status list_of(const at *w, const json_t *v, const char *key, size_t n) {
  char text[64];
  if (!json_is_array(v)) return WRONG("%s is %s, not a list", key, shown(text, v));
  return json_array_size(v) == n ? EV_OK : WRONG("%s has %zu entries, the slate has %zu", key, json_array_size(v), n);
}

static ev_status row(at *w, const json_t *v) {
  ev_bandit_builder *b = w->b;
  char text[64], number[32];
  const char *key;
  json_t *x;
  json_object_foreach((json_t *)v, key, x) if (!known(key)) return WRONG("no key %s in a row of a bandit log", bandit_quoted(text, key, strlen(key)));
  const json_t *arm = json_object_get(v, "arm"), *slate = json_object_get(v, "slate"), *position = json_object_get(v, "position");
  const json_t *marginals = json_object_get(v, "marginals"), *logged = json_object_get(v, "probabilities"), *evaluated = json_object_get(v, "evaluated");
  const json_t *time = json_object_get(v, "time"), *user = json_object_get(v, "user");
  if ((arm != NULL) == (slate != NULL)) return WRONG("a row has either an arm or a slate");
  if (b->n > 0 && b->slates != (slate != NULL)) return WRONG(b->slates ? "an arm in a log of slates" : "a slate in a log of single arms");
  b->slates = slate != NULL;
  EV_TRY(same(w, "position", position != NULL, &b->has_position));
  EV_TRY(same(w, "marginals", marginals != NULL, &b->has_marginal));
  EV_TRY(same(w, "probabilities", logged != NULL, &b->has_logged));
  EV_TRY(same(w, "evaluated", evaluated != NULL, &b->has_evaluated));
  EV_TRY(same(w, "time", time != NULL, &b->has_time));
  EV_TRY(same(w, "user", user != NULL, &b->has_user));
  EV_TRY(bandit_rows(b, b->n + 1));
  EV_TRY(context(w, json_object_get(v, "context")));
  b->position[b->n] = b->user[b->n] = 0;
  b->time_ms[b->n] = 0;
  if (time != NULL) {
    const char *s = json_is_string(time) ? json_string_value(time) : number;
    if (json_is_number(time)) snprintf(number, sizeof number, "%.17g", json_number_value(time));
    if ((!json_is_string(time) && !json_is_number(time)) || !bandit_time(s, strlen(s), &b->time_ms[b->n]))
      return WRONG("the time is %s, not seconds or a date", shown(text, time));
  }
  if (user != NULL) {
    size_t len;
    const char *s = name_of(user, number, &len);
    if (s == NULL) return WRONG("the user is %s, not a string or a whole number", shown(text, user));
    EV_TRY(names_add(&b->users, s, len, &b->user[b->n]));
  }
  size_t n = 1;
  if (slate == NULL) {
    if (position != NULL) {
      json_int_t p = json_is_integer(position) ? json_integer_value(position) : 0;
      if (p < 1 || p > BANDIT_PLACES_MAX) return WRONG("the position is %s, not from 1 to %d", shown(text, position), BANDIT_PLACES_MAX);
      b->position[b->n] = (uint32_t)(p - 1);
    }
    if (marginals != NULL) return WRONG("marginals belong to slates");
    EV_TRY(bandit_places(b, b->n_places + 1));
    EV_TRY(place(w, 0, arm, json_object_get(v, "reward"), json_object_get(v, "propensity"), NULL, logged, evaluated));
  } else {
    const json_t *rewards = json_object_get(v, "rewards"), *propensities = json_object_get(v, "propensities");
    if (!json_is_array(slate) || json_array_size(slate) == 0 || json_array_size(slate) > BANDIT_PLACES_MAX)
      return WRONG("a slate is a list of 1 to %d arms", BANDIT_PLACES_MAX);
    if (position != NULL) return WRONG("a position in a log of slates");
    n = json_array_size(slate);
    EV_TRY(list_of(w, rewards, "rewards", n));
    EV_TRY(list_of(w, propensities, "propensities", n));
    if (marginals != NULL) EV_TRY(list_of(w, marginals, "marginals", n));
    if (logged != NULL) EV_TRY(list_of(w, logged, "probabilities", n));
    if (evaluated != NULL) EV_TRY(list_of(w, evaluated, "evaluated", n));
    EV_TRY(bandit_places(b, b->n_places + n));
    for (size_t l = 0; l < n; l++)
      EV_TRY(place(w, l, json_array_get(slate, l), json_array_get(rewards, l), json_array_get(propensities, l), json_array_get(marginals, l),
                   json_array_get(logged, l), json_array_get(evaluated, l)));
  }
  if (b->n == 0) b->row_ptr[0] = 0;
  b->n_places += n;
  b->row_ptr[++b->n] = b->n_places;
  if (n > b->length) b->length = n;
  return EV_OK;
}

ev_status bandit_read_jsonl(ev_bandit_builder *b, bandit_lines *l) {
  const char *text;
  size_t len, declared = 0;
  ev_status status;
  b->n_context = SIZE_MAX;
  while (bandit_next(l, &text, &len, &status)) {
    at w = {b, l->number};
    json_error_t error;
    json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL) return ev_fail(EV_EINVAL, "%s:%zu: not JSON: %s", b->path, l->number, ev_text_mend(error.text));
    if (!json_is_object(object)) status = wrong(&w, "not an object");
    else if (b->n == 0 && declared == 0 && json_object_get(object, "arm") == NULL && json_object_get(object, "slate") == NULL &&
             json_object_get(object, "propensity") == NULL &&
             (json_object_get(object, "arms") != NULL || json_object_get(object, "positions") != NULL || json_object_get(object, "reward_range") != NULL))
      status = header(&w, object), declared = 1;
    else
      status = row(&w, object);
    json_decref(object);
    if (status != EV_OK) return status;
    if (b->n % 1024 == 0) {
      if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
      if (b->o->progress != NULL) b->o->progress(b->o->progress_ctx, (uint64_t)(l->at - l->begin), (uint64_t)(l->end - l->begin));
    }
  }
  if (status != EV_OK) return status;
  size_t most = b->n_positions;
  for (size_t i = 0; i < b->n && b->has_position; i++)
    if (b->position[i] >= most) {
      if (b->n_positions > 0)
        return ev_fail(EV_EINVAL, "%s: row %zu is at position %u; line 1 says there are %zu", b->path, i + 1, b->position[i] + 1, b->n_positions);
      most = b->position[i] + 1;
    }
  b->n_positions = b->has_position ? most : 1;
  return EV_OK;
}
