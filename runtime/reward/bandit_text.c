/* bandit_text.c - lines, names, times and growing arrays: what the parsers of bandit logs stand on. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bandit.h"

ev_status bandit_grow(void *array, size_t *cap, size_t need, size_t size) {
  if (need <= *cap) return EV_OK;
  size_t next = *cap == 0 ? 64 : *cap;
  while (next < need) next *= 2;
  void *p = ev_resize(*(void **)array, next, size);
  if (p == NULL) return EV_ENOMEM;
  *(void **)array = p;
  *cap = next;
  return EV_OK;
}

/* Arrays that grow together: each is grown before their common size is. */
static ev_status grow_all(void **const *arrays, const size_t *sizes, size_t n, size_t *cap, size_t need) {
  if (need <= *cap) return EV_OK;
  size_t next = *cap;
  for (size_t i = 0; i < n; i++) {
    next = *cap;
    EV_TRY(bandit_grow(arrays[i], &next, need, sizes[i]));
  }
  *cap = next;
  return EV_OK;
}

ev_status bandit_rows(ev_bandit_builder *b, size_t n) {
  void **const arrays[] = {(void **)&b->row_ptr, (void **)&b->position, (void **)&b->user, (void **)&b->time_ms};
  static const size_t sizes[] = {sizeof *b->row_ptr, sizeof *b->position, sizeof *b->user, sizeof *b->time_ms};
  if (n >= EV_NONE) return ev_fail(EV_ELIMIT, "%s: more than 2^32 rows", b->path);
  return grow_all(arrays, sizes, 4, &b->row_cap, n + 1);
}

ev_status bandit_places(ev_bandit_builder *b, size_t n) {
  void **const arrays[] = {(void **)&b->arm, (void **)&b->reward, (void **)&b->propensity, (void **)&b->marginal};
  static const size_t sizes[] = {sizeof *b->arm, sizeof *b->reward, sizeof *b->propensity, sizeof *b->marginal};
  return grow_all(arrays, sizes, 4, &b->place_cap, n);
}

void bandit_builder_free(ev_bandit_builder *b) {
  if (b == NULL) return;
  names_free(&b->arms);
  names_free(&b->context_names);
  names_free(&b->users);
  ev_free(b->row_ptr);
  ev_free(b->arm);
  ev_free(b->position);
  ev_free(b->user);
  ev_free(b->reward);
  ev_free(b->propensity);
  ev_free(b->marginal);
  ev_free(b->context);
  ev_free(b->pair);
  ev_free(b->arm_features);
  ev_free(b->time_ms);
  chances *both[] = {&b->logged, &b->evaluated};
  for (int i = 0; i < 2; i++) {
    ev_free(both[i]->ptr);
    ev_free(both[i]->arm);
    ev_free(both[i]->p);
  }
  ev_free(b);
}

bool bandit_next(bandit_lines *l, const char **text, size_t *len, ev_status *status) {
  *status = EV_OK;
  for (;;) {
    if (l->at >= l->end) return false;
    l->number++;
    size_t left = (size_t)(l->end - l->at), look = left < BANDIT_LINE_MAX + 1 ? left : BANDIT_LINE_MAX + 1;
    const char *newline = memchr(l->at, '\n', look);
    if (newline == NULL && left > BANDIT_LINE_MAX) {
      *status = ev_fail(EV_EINVAL, "%s:%zu: the line is longer than %u MiB", l->path, l->number, BANDIT_LINE_MAX >> 20);
      return false;
    }
    const char *stop = newline != NULL ? newline : l->end;
    *text = l->at;
    *len = (size_t)(stop - l->at);
    l->at = newline != NULL ? newline + 1 : l->end;
    if (*len > 0 && (*text)[*len - 1] == '\r') --*len;
    if (*len > 0) break; /* empty lines count, and say nothing */
  }
  size_t bad = ev_utf8_invalid(*text, *len);
  if (bad < *len) *status = ev_fail(EV_EINVAL, "%s:%zu: not UTF-8: byte 0x%02X at column %zu", l->path, l->number, (unsigned char)(*text)[bad], bad + 1);
  else if (memchr(*text, '\0', *len) != NULL) *status = ev_fail(EV_EINVAL, "%s:%zu: a NUL byte", l->path, l->number);
  return *status == EV_OK;
}

const char *bandit_quoted(char out[64], const char *s, size_t len) {
  snprintf(out, 64, "'%.*s%s'", (int)(len < 40 ? len : 40), s, len > 40 ? "..." : "");
  return ev_text_mend(out);
}

/* Days since 1970-01-01 of a date of the Gregorian calendar (Hinnant, days_from_civil). */
static int64_t days_from_civil(int64_t y, int64_t m, int64_t d) {
  y -= m <= 2;
  int64_t era = (y >= 0 ? y : y - 399) / 400, year = y - era * 400;
  int64_t day = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
  return era * 146097 + year * 365 + year / 4 - year / 100 + day - 719468;
}

static bool digits(const char **at, const char *end, size_t n, int64_t *out) {
  if ((size_t)(end - *at) < n) return false;
  *out = 0;
  for (size_t i = 0; i < n; i++, ++*at) {
    if (**at < '0' || **at > '9') return false;
    *out = *out * 10 + (**at - '0');
  }
  return true;
}

bool bandit_time(const char *s, size_t len, int64_t *ms) {
  double seconds;
  if (ev_parse_f64(s, len, &seconds)) {
    if (fabs(seconds) > 9e12) return false;
    *ms = (int64_t)floor(seconds * 1000);
    return true;
  }
  const char *at = s, *end = s + len;
  int64_t y, mo, d, h, mi, sec, fraction = 0, oh = 0, om = 0;
  if (!digits(&at, end, 4, &y) || at == end || *at++ != '-' || !digits(&at, end, 2, &mo) || at == end || *at++ != '-' || !digits(&at, end, 2, &d))
    return false;
  if (at == end || (*at != ' ' && *at != 'T')) return false;
  at++;
  if (!digits(&at, end, 2, &h) || at == end || *at++ != ':' || !digits(&at, end, 2, &mi) || at == end || *at++ != ':' || !digits(&at, end, 2, &sec))
    return false;
  if (mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 || sec > 60) return false;
  if (at < end && *at == '.') {
    int64_t unit = 100;
    for (at++; at < end && *at >= '0' && *at <= '9'; at++, unit /= 10) fraction += unit * (*at - '0');
  }
  int64_t sign = 0;
  if (at < end && *at == 'Z') at++;
  else if (at < end && (*at == '+' || *at == '-')) {
    sign = *at++ == '+' ? -1 : 1;
    if (!digits(&at, end, 2, &oh)) return false;
    if (at < end && *at == ':') at++;
    if (!digits(&at, end, 2, &om)) return false;
  }
  if (at != end) return false;
  *ms = ((days_from_civil(y, mo, d) * 24 + h + sign * oh) * 60 + mi + sign * om) * 60000 + sec * 1000 + fraction;
  return true;
}

/* ---- Names ---------------------------------------------------------------------------------------------*/
static size_t probe(const names *d, const char *s, size_t len) {
  size_t mask = d->n_slots - 1, at = ev_checksum(s, len) & mask;
  for (; d->slots[at] != EV_NONE; at = (at + 1) & mask) {
    uint32_t i = d->slots[at];
    if (d->ptr[i + 1] - d->ptr[i] == len && memcmp(d->bytes + d->ptr[i], s, len) == 0) break;
  }
  return at;
}

ev_status names_add(names *d, const char *s, size_t len, uint32_t *out) {
  if (2 * (d->n + 1) > d->n_slots) {
    size_t n_slots = d->n_slots == 0 ? 64 : 2 * d->n_slots;
    uint32_t *slots = ev_alloc(n_slots, sizeof *slots);
    if (slots == NULL) return EV_ENOMEM;
    ev_free(d->slots);
    memset(slots, 0xFF, n_slots * sizeof *slots);
    d->slots = slots;
    d->n_slots = n_slots;
    for (size_t i = 0; i < d->n; i++) slots[probe(d, d->bytes + d->ptr[i], d->ptr[i + 1] - d->ptr[i])] = (uint32_t)i;
  }
  size_t at = probe(d, s, len);
  *out = d->slots[at];
  if (*out != EV_NONE) return EV_OK;
  if (d->n + 1 >= EV_NONE) return ev_fail(EV_ELIMIT, "more than 2^32 different names");
  bool first = d->ptr == NULL;
  EV_TRY(bandit_grow(&d->ptr, &d->cap, d->n + 2, sizeof *d->ptr));
  if (first) d->ptr[0] = 0;
  size_t used = d->ptr[d->n];
  EV_TRY(bandit_grow(&d->bytes, &d->bytes_cap, used + len + 1, 1));
  memcpy(d->bytes + used, s, len);
  d->ptr[d->n + 1] = used + len;
  d->slots[at] = *out = (uint32_t)d->n++;
  return EV_OK;
}

uint32_t names_find(const names *d, const char *s, size_t len) { return d->n_slots == 0 ? EV_NONE : d->slots[probe(d, s, len)]; }

void names_free(names *d) {
  ev_free(d->bytes);
  ev_free(d->ptr);
  ev_free(d->slots);
  *d = (names){0};
}
