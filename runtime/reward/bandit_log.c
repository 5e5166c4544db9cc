/* bandit_log.c - a bandit log as an object: what a parser read, or a mapped file of it, looked through before anything trusts it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bandit.h"

/* ---- What was read -------------------------------------------------------------------------------------*/
/* Rows of one length: places behind a slate's end are there, and empty. */
static ev_status square(ev_bandit_builder *b) {
  size_t length = b->length;
  if (b->n_places == b->n * length) return EV_OK;
  if (b->n > BANDIT_DENSE_MAX / length) return ev_fail(EV_ELIMIT, "%s: %zu slates of up to %zu places", b->path, b->n, length);
  uint32_t *arm = ev_alloc(b->n, length * sizeof *arm);
  double *reward = ev_zalloc(b->n, length * sizeof *reward), *propensity = ev_zalloc(b->n, length * sizeof *propensity),
      *marginal = ev_zalloc(b->n, length * sizeof *marginal);
  bool short_of = arm == NULL || reward == NULL || propensity == NULL || marginal == NULL;
  for (size_t i = 0; i < b->n && !short_of; i++) {
    size_t from = b->row_ptr[i], n = b->row_ptr[i + 1] - from;
    for (size_t l = n; l < length; l++) arm[i * length + l] = EV_NONE;
    memcpy(arm + i * length, b->arm + from, n * sizeof *arm);
    memcpy(reward + i * length, b->reward + from, n * sizeof *reward);
    memcpy(propensity + i * length, b->propensity + from, n * sizeof *propensity);
    memcpy(marginal + i * length, b->marginal + from, n * sizeof *marginal);
  }
  chances *both[] = {&b->logged, &b->evaluated};
  for (int k = 0; k < 2 && !short_of; k++) {
    uint64_t *ptr = both[k]->ptr != NULL ? ev_alloc(b->n * length + 1, sizeof *ptr) : NULL;
    if (both[k]->ptr == NULL) continue;
    if (ptr == NULL) short_of = true;
    else {
      ptr[0] = 0;
      for (size_t i = 0, at = 0; i < b->n; i++)
        for (size_t l = 0; l < length; l++, at++) ptr[at + 1] = b->row_ptr[i] + l < b->row_ptr[i + 1] ? both[k]->ptr[b->row_ptr[i] + l + 1] : ptr[at];
      ev_free(both[k]->ptr);
      both[k]->ptr = ptr;
    }
  }
  if (short_of) {
    ev_free(arm);
    ev_free(reward);
    ev_free(propensity);
    ev_free(marginal);
    return EV_ENOMEM;
  }
  ev_free(b->arm);
  ev_free(b->reward);
  ev_free(b->propensity);
  ev_free(b->marginal);
  b->arm = arm, b->reward = reward, b->propensity = propensity, b->marginal = marginal;
  return EV_OK;
}

static ev_bandit_names names_of(const names *d) {
  static const uint64_t none[1];
  return (ev_bandit_names){d->n, d->n > 0 ? d->ptr : none, d->n > 0 ? d->bytes : ""};
}

static ev_bandit_probabilities chances_of(const chances *c) { return (ev_bandit_probabilities){c->ptr, c->arm, c->p}; }

static void view(ev_bandit_log *log, ev_bandit_builder *b) {
  size_t d = b->n_context == SIZE_MAX ? 0 : b->n_context;
  *log = (ev_bandit_log){
      .n = b->n, .length = b->length, .slates = b->slates, .n_arms = b->arms.n, .n_positions = b->n_positions, .n_users = b->has_user ? b->users.n : 0,
      .arm = b->arm, .position = b->has_position ? b->position : NULL, .reward = b->reward, .propensity = b->propensity,
      .marginal = b->has_marginal ? b->marginal : NULL, .logged = chances_of(&b->logged), .evaluated = chances_of(&b->evaluated),
      .features = {.n_context = d, .context = d > 0 ? b->context : NULL, .n_arm_features = b->n_arm_features, .arm_features = b->arm_features,
          .pair = b->pair},
      .arms = names_of(&b->arms), .context = names_of(&b->context_names), .time_ms = b->has_time ? b->time_ms : NULL, .user = b->has_user ? b->user : NULL,
      .reward_low = isinf(b->reward_low) ? NAN : b->reward_low, .reward_high = isinf(b->reward_low) ? NAN : b->reward_high, .built = b};
}

static ev_status read_file(ev_bandit_builder *b, const char *path, const char *items, const ev_map *map) {
  bandit_lines l = {path, map->data, (const char *)map->data + map->size, map->data, 0};
  if (map->size == 0) return ev_fail(EV_EINVAL, "%s:1: the file is empty", path);
  const char *first = map->data, *stop = first + map->size;
  while (first < stop && (*first == ' ' || *first == '\t' || *first == '\r' || *first == '\n')) first++;
  bool json = first < stop && *first == '{';
  if (json && items != NULL) return ev_fail(EV_EINVAL, "%s: an item_context belongs to a table of the Open Bandit Dataset, not to JSON Lines", path);
  EV_TRY(json ? bandit_read_jsonl(b, &l) : bandit_read_obd(b, &l, items));
  if (b->n == 0) return ev_fail(EV_EINVAL, "%s: no rows", path);
  return square(b);
}

/* The log over what was built, or what went wrong with it; frees what is of no use. */
static ev_status finish(ev_bandit_log **out, ev_bandit_log *log, ev_bandit_builder *b, ev_status status) {
  if (status != EV_OK) {
    bandit_builder_free(b);
    ev_free(log);
    return status;
  }
  view(log, b);
  *out = log;
  return EV_OK;
}

ev_status ev_bandit_log_read(ev_bandit_log **out, const char *path, const char *items, const ev_bandit_options *o) {
  static const ev_bandit_options defaults;
  *out = NULL;
  if (o == NULL) o = &defaults;
  bool ranged = o->reward_low != 0 || o->reward_high != 0;
  if (ranged && !(o->reward_low < o->reward_high)) return ev_fail(EV_EINVAL, "rewards from %g to %g", o->reward_low, o->reward_high);
  ev_map map;
  EV_TRY(ev_map_open(&map, path));
  ev_bandit_log *log = ev_zalloc(1, sizeof *log);
  ev_bandit_builder *b = ev_zalloc(1, sizeof *b);
  ev_status status = EV_ENOMEM;
  if (log != NULL && b != NULL) {
    b->path = path;
    b->o = o;
    b->reward_low = ranged ? o->reward_low : -INFINITY;
    b->reward_high = ranged ? o->reward_high : INFINITY;
    status = read_file(b, path, items, &map);
    b->o = NULL, b->path = NULL; /* the caller's */
  }
  ev_map_close(&map);
  return finish(out, log, b, status);
}

/* Copies of columns that somebody else keeps. */
static ev_status copy(void *to, const void *from, size_t n, size_t size) { /* to: address of the pointer */
  if (from == NULL || n == 0) return EV_OK;
  void *p = ev_alloc(n, size);
  if (p == NULL) return EV_ENOMEM;
  memcpy(p, from, n * size);
  *(void **)to = p;
  return EV_OK;
}

static ev_status take(ev_bandit_builder *b, const ev_bandit_log *c) {
  size_t places = c->n * c->length;
  EV_TRY(copy(&b->arm, c->arm, places, sizeof *b->arm));
  EV_TRY(copy(&b->reward, c->reward, places, sizeof *b->reward));
  EV_TRY(copy(&b->propensity, c->propensity, places, sizeof *b->propensity));
  EV_TRY(copy(&b->marginal, c->marginal, places, sizeof *b->marginal));
  EV_TRY(copy(&b->position, c->position, c->n, sizeof *b->position));
  EV_TRY(copy(&b->context, c->features.context, c->n * c->features.n_context, sizeof *b->context));
  EV_TRY(copy(&b->arm_features, c->features.arm_features, c->n_arms * c->features.n_arm_features, sizeof *b->arm_features));
  EV_TRY(copy(&b->pair, c->features.pair, c->features.pair != NULL ? c->n * c->n_arms : 0, sizeof *b->pair));
  b->n = c->n, b->length = c->length, b->slates = c->slates, b->n_places = places, b->n_positions = c->n_positions;
  b->n_context = c->features.n_context, b->n_arm_features = c->features.n_arm_features;
  b->has_position = c->position != NULL, b->has_marginal = c->marginal != NULL;
  b->reward_low = isnan(c->reward_low) ? -INFINITY : c->reward_low, b->reward_high = isnan(c->reward_low) ? INFINITY : c->reward_high;
  names *lists[] = {&b->arms, &b->context_names};
  for (size_t k = 0; k < 2; k++)
    for (size_t i = 0; i < (k == 0 ? c->n_arms : c->features.n_context); i++) {
      char name[24];
      uint32_t at;
      EV_TRY(names_add(lists[k], name, (size_t)snprintf(name, sizeof name, "%zu", i + k), &at));
    }
  return EV_OK;
}

ev_status ev_bandit_log_of(ev_bandit_log **out, const ev_bandit_log *columns) {
  *out = NULL;
  ev_bandit_log *log = ev_zalloc(1, sizeof *log);
  ev_bandit_builder *b = ev_zalloc(1, sizeof *b);
  ev_status status = log == NULL || b == NULL ? EV_ENOMEM : take(b, columns);
  return finish(out, log, b, status);
}

void ev_bandit_log_close(ev_bandit_log *log) {
  if (log == NULL) return;
  ev_pack_close(log->pack);
  bandit_builder_free(log->built);
  ev_free(log);
}

/* ---- File: a pack of kind "bandit" -----------------------------------------------------------------------*/
enum { H_N, H_LENGTH, H_SLATES, H_ARMS, H_POSITIONS, H_USERS, H_CONTEXT, H_ARM_FEATURES, H_SIZE };

static ev_status put(ev_pack_writer *w, const char *name, ev_dtype t, const void *data, size_t rows, size_t cols) {
  return data == NULL ? EV_OK : ev_pack_write(w, name, t, data, rows, cols);
}

static ev_status write_chances(ev_pack_writer *w, const char *of, const ev_bandit_probabilities *c, size_t n_places) {
  char name[3][24];
  static const char *const parts[] = {"ptr", "arm", "p"};
  if (c->ptr == NULL) return EV_OK;
  for (int i = 0; i < 3; i++) snprintf(name[i], sizeof name[i], "%s.%s", of, parts[i]);
  EV_TRY(ev_pack_write(w, name[0], EV_U64, c->ptr, n_places + 1, 1));
  EV_TRY(ev_pack_write(w, name[1], EV_U32, c->arm, c->ptr[n_places], 1));
  return ev_pack_write(w, name[2], EV_F64, c->p, c->ptr[n_places], 1);
}

static ev_status write_names(ev_pack_writer *w, const char *of, const ev_bandit_names *d) {
  char name[2][24];
  snprintf(name[0], sizeof name[0], "%s.ptr", of);
  snprintf(name[1], sizeof name[1], "%s.bytes", of);
  EV_TRY(ev_pack_write(w, name[0], EV_U64, d->ptr, d->n + 1, 1));
  return ev_pack_write(w, name[1], EV_U8, d->bytes, d->ptr[d->n], 1);
}

static ev_status write_log(const ev_bandit_log *log, ev_pack_writer *w) {
  const ev_ope_features *x = &log->features;
  const uint64_t head[H_SIZE] = {log->n, log->length, log->slates, log->n_arms, log->n_positions, log->n_users, x->n_context, x->n_arm_features};
  const double range[2] = {log->reward_low, log->reward_high};
  EV_TRY(ev_pack_write(w, "head", EV_U64, head, H_SIZE, 1));
  EV_TRY(ev_pack_write(w, "range", EV_F64, range, 2, 1));
  EV_TRY(ev_pack_write(w, "arm", EV_U32, log->arm, log->n, log->length));
  EV_TRY(ev_pack_write(w, "reward", EV_F64, log->reward, log->n, log->length));
  EV_TRY(ev_pack_write(w, "propensity", EV_F64, log->propensity, log->n, log->length));
  EV_TRY(put(w, "marginal", EV_F64, log->marginal, log->n, log->length));
  EV_TRY(put(w, "position", EV_U32, log->position, log->n, 1));
  EV_TRY(put(w, "time", EV_I64, log->time_ms, log->n, 1));
  EV_TRY(put(w, "user", EV_U32, log->user, log->n, 1));
  EV_TRY(put(w, "context", EV_F64, x->context, log->n, x->n_context));
  EV_TRY(put(w, "arm_features", EV_F64, x->arm_features, log->n_arms, x->n_arm_features));
  EV_TRY(put(w, "pair", EV_F64, x->pair, log->n, log->n_arms));
  EV_TRY(write_chances(w, "logged", &log->logged, log->n * log->length));
  EV_TRY(write_chances(w, "evaluated", &log->evaluated, log->n * log->length));
  EV_TRY(write_names(w, "arms", &log->arms));
  return write_names(w, "columns", &log->context);
}

ev_status ev_bandit_log_write(const ev_bandit_log *log, const char *path) {
  ev_pack_writer *w;
  EV_TRY(ev_pack_writer_open(&w, path, "bandit"));
  ev_status status = write_log(log, w);
  if (status == EV_OK) return ev_pack_writer_commit(w);
  ev_pack_writer_abort(w);
  return status;
}

static ev_status broken(const ev_pack *p, const char *what) { return ev_fail(EV_ECORRUPT, "%s: %s", ev_pack_path(p), what); }

/* An array of this shape, or NULL where it may be absent. */
static ev_status array(const ev_pack *p, const char *name, ev_dtype t, size_t rows, size_t cols, bool needed, const void **out) {
  ev_array a;
  *out = NULL;
  if (!needed && !ev_pack_find(p, name, &a)) return EV_OK;
  EV_TRY(ev_pack_get(p, name, t, &a));
  if (a.rows != rows || a.cols != cols)
    return ev_fail(EV_ECORRUPT, "%s: array '%s' is %zu x %zu, %zu x %zu expected", ev_pack_path(p), name, a.rows, a.cols, rows, cols);
  *out = a.data;
  return EV_OK;
}

static ev_status all_finite(const ev_pack *p, const char *name, const double *x, size_t n) {
  for (size_t i = 0; x != NULL && i < n; i++)
    if (!isfinite(x[i])) return ev_fail(EV_ECORRUPT, "%s: array '%s' holds %g", ev_pack_path(p), name, x[i]);
  return EV_OK;
}

static ev_status open_names(const ev_pack *p, const char *of, size_t n, ev_bandit_names *out) {
  char name[24];
  ev_array bytes;
  const void *ptr;
  snprintf(name, sizeof name, "%s.ptr", of);
  EV_TRY(array(p, name, EV_U64, n + 1, 1, true, &ptr));
  snprintf(name, sizeof name, "%s.bytes", of);
  EV_TRY(ev_pack_get(p, name, EV_U8, &bytes));
  *out = (ev_bandit_names){n, ptr, bytes.data};
  for (size_t i = 0; i < n; i++)
    if (out->ptr[i] > out->ptr[i + 1]) return broken(p, "names out of order");
  if (out->ptr[0] != 0 || bytes.cols != 1 || out->ptr[n] != bytes.rows) return broken(p, "names do not fit their bytes");
  return ev_utf8_invalid(bytes.data, bytes.rows) == bytes.rows ? EV_OK : broken(p, "a name is not UTF-8");
}

static ev_status open_chances(const ev_pack *p, const char *of, const ev_bandit_log *log, ev_bandit_probabilities *out) {
  char name[24];
  const void *ptr, *arm, *chance;
  size_t places = log->n * log->length;
  snprintf(name, sizeof name, "%s.ptr", of);
  EV_TRY(array(p, name, EV_U64, places + 1, 1, false, &ptr));
  *out = (ev_bandit_probabilities){0};
  if (ptr == NULL) return EV_OK;
  const uint64_t *at = ptr;
  for (size_t i = 0; i < places; i++)
    if (at[i] > at[i + 1]) return broken(p, "probabilities out of order");
  if (at[0] != 0) return broken(p, "probabilities do not begin at 0");
  snprintf(name, sizeof name, "%s.arm", of);
  EV_TRY(array(p, name, EV_U32, at[places], 1, true, &arm));
  snprintf(name, sizeof name, "%s.p", of);
  EV_TRY(array(p, name, EV_F64, at[places], 1, true, &chance));
  *out = (ev_bandit_probabilities){ptr, arm, chance};
  for (size_t i = 0; i < places; i++) {
    double sum = 0;
    for (uint64_t k = at[i]; k < at[i + 1]; k++) {
      if (out->arm[k] >= log->n_arms || !(out->p[k] > 0 && out->p[k] <= 1)) return broken(p, "a probability that is none");
      sum += out->p[k];
    }
    if (log->arm[i] == EV_NONE ? at[i] != at[i + 1] : !(fabs(sum - 1) <= 2e-6)) return broken(p, "probabilities that do not add up to 1");
  }
  return EV_OK;
}

static ev_status check_places(const ev_pack *p, const ev_bandit_log *log) {
  for (size_t i = 0; i < log->n; i++) {
    bool over = false;
    for (size_t at = i * log->length; at < (i + 1) * log->length; at++) {
      if (log->arm[at] == EV_NONE) {
        if (!log->slates || at == i * log->length) return broken(p, "a row without an arm");
        over = true;
        continue;
      }
      if (over || log->arm[at] >= log->n_arms) return broken(p, "an arm that is none");
      if (!isfinite(log->reward[at]) || log->reward[at] < log->reward_low || log->reward[at] > log->reward_high) return broken(p, "a reward out of range");
      if (!(log->propensity[at] > 0 && log->propensity[at] <= 1) || (log->marginal != NULL && !(log->marginal[at] > 0 && log->marginal[at] <= 1)))
        return broken(p, "a propensity that is not above 0 and at most 1");
    }
    if (log->position != NULL && log->position[i] >= log->n_positions) return broken(p, "a position out of range");
    if (log->user != NULL && log->user[i] >= log->n_users) return broken(p, "a user out of range");
  }
  return EV_OK;
}

static ev_status open_log(ev_bandit_log *log, ev_pack *p) {
  const void *head, *range, *a[9];
  if (strcmp(ev_pack_kind(p), "bandit") != 0) return ev_fail(EV_ECORRUPT, "%s: '%s' is no bandit log", ev_pack_path(p), ev_pack_kind(p));
  EV_TRY(array(p, "head", EV_U64, H_SIZE, 1, true, &head));
  EV_TRY(array(p, "range", EV_F64, 2, 1, true, &range));
  const uint64_t *h = head;
  const double *r = range;
  if (h[H_N] == 0 || h[H_N] >= EV_NONE || h[H_LENGTH] == 0 || h[H_LENGTH] > BANDIT_PLACES_MAX || h[H_SLATES] > 1 ||
      (h[H_SLATES] == 0 && h[H_LENGTH] != 1) || h[H_ARMS] == 0 ||
      h[H_ARMS] > BANDIT_ARMS_MAX || h[H_POSITIONS] == 0 || h[H_POSITIONS] > BANDIT_PLACES_MAX || h[H_USERS] >= EV_NONE ||
          h[H_CONTEXT] > BANDIT_CONTEXT_MAX || h[H_ARM_FEATURES] > BANDIT_CONTEXT_MAX)
    return broken(p, "sizes that no log has");
  if (isnan(r[0]) != isnan(r[1]) || r[0] >= r[1] || isinf(r[0]) || isinf(r[1])) return broken(p, "rewards of no range");
  *log = (ev_bandit_log){.n = h[H_N], .length = h[H_LENGTH], .slates = h[H_SLATES], .n_arms = h[H_ARMS], .n_positions = h[H_POSITIONS], .n_users = h[H_USERS], .reward_low = r[0], .reward_high = r[1], .pack = p};
  log->features.n_context = h[H_CONTEXT];
  log->features.n_arm_features = h[H_ARM_FEATURES];
  EV_TRY(array(p, "arm", EV_U32, log->n, log->length, true, &a[0]));
  EV_TRY(array(p, "reward", EV_F64, log->n, log->length, true, &a[1]));
  EV_TRY(array(p, "propensity", EV_F64, log->n, log->length, true, &a[2]));
  EV_TRY(array(p, "marginal", EV_F64, log->n, log->length, false, &a[3]));
  EV_TRY(array(p, "position", EV_U32, log->n, 1, false, &a[4]));
  EV_TRY(array(p, "time", EV_I64, log->n, 1, false, &a[5]));
  EV_TRY(array(p, "user", EV_U32, log->n, 1, false, &a[6]));
  log->arm = a[0], log->reward = a[1], log->propensity = a[2], log->marginal = a[3], log->position = a[4], log->time_ms = a[5], log->user = a[6];
  EV_TRY(array(p, "context", EV_F64, log->n, h[H_CONTEXT], h[H_CONTEXT] > 0, &a[0]));
  EV_TRY(array(p, "arm_features", EV_F64, log->n_arms, h[H_ARM_FEATURES], h[H_ARM_FEATURES] > 0, &a[1]));
  EV_TRY(array(p, "pair", EV_F64, log->n, log->n_arms, false, &a[2]));
  log->features.context = a[0], log->features.arm_features = a[1], log->features.pair = a[2];
  if ((log->position == NULL && log->n_positions != 1) || (log->user == NULL && log->n_users != 0)) return broken(p, "sizes of columns that are not there");
  EV_TRY(all_finite(p, "context", log->features.context, log->n * h[H_CONTEXT]));
  EV_TRY(all_finite(p, "arm_features", log->features.arm_features, log->n_arms * h[H_ARM_FEATURES]));
  EV_TRY(all_finite(p, "pair", log->features.pair, log->n * log->n_arms));
  EV_TRY(check_places(p, log));
  EV_TRY(open_names(p, "arms", log->n_arms, &log->arms));
  EV_TRY(open_names(p, "columns", h[H_CONTEXT], &log->context));
  EV_TRY(open_chances(p, "logged", log, &log->logged));
  return open_chances(p, "evaluated", log, &log->evaluated);
}

ev_status ev_bandit_log_open(ev_bandit_log **out, const char *path) {
  *out = NULL;
  ev_pack *p;
  EV_TRY(ev_pack_open(&p, path));
  ev_bandit_log *log = ev_zalloc(1, sizeof *log);
  ev_status status = log == NULL ? EV_ENOMEM : open_log(log, p);
  if (status != EV_OK) {
    ev_free(log);
    ev_pack_close(p);
    return status;
  }
  *out = log;
  return EV_OK;
}

void ev_bandit_log_hash(const ev_bandit_log *log, ev_hash *out) {
  *out = (ev_hash){{0}};
  if (log->pack != NULL) ev_pack_hash(log->pack, out);
}

/* ---- Views ---------------------------------------------------------------------------------------------*/
ev_ope_log ev_bandit_log_rows(const ev_bandit_log *log) {
  return (ev_ope_log){.n = log->n, .n_arms = log->n_arms, .n_positions = log->n_positions, .arm = log->arm, .position = log->position,
      .reward = log->reward, .propensity = log->propensity};
}

uint32_t ev_bandit_log_arm(const ev_bandit_log *log, const char *name, size_t len) {
  for (size_t i = 0; i < log->arms.n; i++)
    if (log->arms.ptr[i + 1] - log->arms.ptr[i] == len && memcmp(log->arms.bytes + log->arms.ptr[i], name, len) == 0) return (uint32_t)i;
  return EV_NONE;
}

ev_status ev_bandit_log_shares(double *out, const ev_bandit_log *log, bool counted) {
  if (log->slates) return ev_fail(EV_EINVAL, "shares by position of a log of slates");
  double *inverse = ev_zalloc(log->n_positions, log->n_arms * sizeof *inverse);
  if (inverse == NULL) return EV_ENOMEM;
  memset(out, 0, log->n_positions * log->n_arms * sizeof *out);
  for (size_t i = 0; i < log->n; i++) {
    size_t at = (log->position != NULL ? log->position[i] : 0) * log->n_arms + log->arm[i];
    out[at]++;
    inverse[at] += 1 / log->propensity[i];
  }
  ev_status status = EV_OK;
  for (size_t p = 0; p < log->n_positions && status == EV_OK; p++) {
    double sum = 0, *row = out + p * log->n_arms;
    for (size_t a = 0; a < log->n_arms; a++) {
      if (!counted && row[a] > 0) row[a] /= inverse[p * log->n_arms + a];
      sum += row[a];
    }
    if (!(sum > 0)) status = ev_fail(EV_EINVAL, "no row at position %zu", p + 1);
    for (size_t a = 0; a < log->n_arms; a++) row[a] /= sum;
  }
  ev_free(inverse);
  return status;
}
