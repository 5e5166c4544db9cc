/* import_text.c - lines, dictionaries and growing columns: what every parser stands on. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "import.h"

bool lines_next(lines *l, const char **text, size_t *len, ev_status *status) {
  *status = EV_OK;
  if (l->at >= l->end) return false;
  l->number++;
  size_t left = (size_t)(l->end - l->at), look = left < LINE_MAX_BYTES + 1 ? left : LINE_MAX_BYTES + 1;
  const char *newline = memchr(l->at, '\n', look);
  if (newline == NULL && left > LINE_MAX_BYTES) {
    *status = ev_fail(EV_EINVAL, "%s:%zu: the line is longer than %u MiB", l->path, l->number, LINE_MAX_BYTES >> 20);
    return false;
  }
  const char *stop = newline != NULL ? newline : l->end;
  *text = l->at;
  *len = (size_t)(stop - l->at);
  l->at = newline != NULL ? newline + 1 : l->end;
  if (*len > 0 && (*text)[*len - 1] == '\r') --*len;
  size_t bad = ev_utf8_invalid(*text, *len);
  if (bad < *len) *status = ev_fail(EV_EINVAL, "%s:%zu: not UTF-8: byte 0x%02X at column %zu", l->path, l->number, (unsigned char)(*text)[bad], bad + 1);
  else if (memchr(*text, '\0', *len) != NULL) *status = ev_fail(EV_EINVAL, "%s:%zu: a NUL byte", l->path, l->number);
  return *status == EV_OK;
}

const char *quoted(char out[48], const char *s, size_t len) {
  size_t n = 0;
  out[n++] = '\'';
  for (size_t i = 0; i < len && n < 40; i++) {
    if ((unsigned char)s[i] >= 0x80 && n > 36) break; /* no half characters */
    out[n++] = (unsigned char)s[i] < 0x20 || s[i] == 0x7F ? '?' : s[i];
  }
  while (n > 1 && n >= 36 && ((unsigned char)out[n - 1] & 0xC0) == 0x80) n--;
  if (n >= 36 && (unsigned char)out[n - 1] >= 0xC0) n--;
  if (n < len + 1) memcpy(out + n, "…", 3), n += 3;
  out[n++] = '\'';
  out[n] = '\0';
  return out;
}

/* ---- Dictionary ----------------------------------------------------------------------------------------*/
static size_t probe(const dict *d, const char *s, size_t len, uint64_t hash) {
  size_t mask = d->n_slots - 1, at = hash & mask;
  uint32_t tag = (uint32_t)(hash >> 32);
  for (; d->slots[at].index != EV_NONE; at = (at + 1) & mask) {
    uint32_t i = d->slots[at].index;
    if (d->slots[at].tag == tag && d->ptr[i + 1] - d->ptr[i] == len && memcmp(d->bytes + d->ptr[i], s, len) == 0) break;
  }
  return at;
}

static ev_status rehash(dict *d, size_t n_slots) {
  void *old = d->slots;
  d->slots = ev_alloc(n_slots, sizeof *d->slots);
  if (d->slots == NULL) {
    d->slots = old;
    return EV_ENOMEM;
  }
  memset(d->slots, 0xFF, n_slots * sizeof *d->slots);
  d->n_slots = n_slots;
  for (size_t i = 0; i < d->n; i++) {
    uint64_t hash = ev_checksum(d->bytes + d->ptr[i], d->ptr[i + 1] - d->ptr[i]);
    size_t at = hash & (n_slots - 1);
    while (d->slots[at].index != EV_NONE) at = (at + 1) & (n_slots - 1);
    d->slots[at].index = (uint32_t)i;
    d->slots[at].tag = (uint32_t)(hash >> 32);
  }
  ev_free(old);
  return EV_OK;
}

ev_status dict_add(dict *d, const char *s, size_t len, uint32_t *out) {
  if (2 * (d->n + 1) > d->n_slots) EV_TRY(rehash(d, d->n_slots == 0 ? 64 : 2 * d->n_slots));
  uint64_t hash = ev_checksum(s, len);
  size_t at = probe(d, s, len, hash);
  *out = d->slots[at].index;
  if (*out != EV_NONE) return EV_OK;
  if (d->n + 1 >= EV_NONE) return ev_fail(EV_ELIMIT, "more than 2^32 different ids");
  if (d->n + 2 > d->cap) {
    size_t cap = d->cap == 0 ? 64 : 2 * d->cap;
    uint64_t *ptr = ev_resize(d->ptr, cap, sizeof *ptr);
    if (ptr == NULL) return EV_ENOMEM;
    if (d->cap == 0) ptr[0] = 0;
    d->ptr = ptr;
    d->cap = cap;
  }
  size_t used = d->ptr[d->n];
  if (used + len > d->bytes_cap || d->bytes == NULL) {
    size_t cap = d->bytes_cap == 0 ? 256 : d->bytes_cap;
    while (cap < used + len) cap *= 2;
    char *bytes = ev_resize(d->bytes, cap, 1);
    if (bytes == NULL) return EV_ENOMEM;
    d->bytes = bytes;
    d->bytes_cap = cap;
  }
  memcpy(d->bytes + used, s, len);
  d->ptr[d->n + 1] = used + len;
  d->slots[at].index = *out = (uint32_t)d->n++;
  d->slots[at].tag = (uint32_t)(hash >> 32);
  return EV_OK;
}

uint32_t dict_find(const dict *d, const char *s, size_t len) {
  return d->n_slots == 0 ? EV_NONE : d->slots[probe(d, s, len, ev_checksum(s, len))].index;
}

void dict_free(dict *d) {
  ev_free(d->bytes);
  ev_free(d->ptr);
  ev_free(d->slots);
  *d = (dict){0};
}

/* ---- Columns -------------------------------------------------------------------------------------------*/
ev_status columns_add(columns *c, const char *name, size_t len, ev_column_type type, column **out) {
  for (size_t i = 0; i < c->n; i++)
    if (strlen(c->at[i].name) == len && memcmp(c->at[i].name, name, len) == 0) return ev_fail(EV_EEXIST, "a column is named twice: %.*s", (int)len, name);
  column *grown = ev_resize(c->at, c->n + 1, sizeof *grown);
  if (grown == NULL) return EV_ENOMEM;
  c->at = grown;
  *out = &c->at[c->n];
  **out = (column){.type = type, .name = ev_strndup(name, len)};
  if ((*out)->name == NULL) return EV_ENOMEM;
  c->n++;
  return EV_OK;
}

static ev_status grow(void *array, size_t *cap, size_t need, size_t size) {
  if (need <= *cap) return EV_OK;
  size_t next = *cap == 0 ? 256 : *cap;
  while (next < need) next *= 2;
  void *p = ev_resize(*(void **)array, next, size);
  if (p == NULL) return EV_ENOMEM;
  *(void **)array = p;
  *cap = next;
  return EV_OK;
}

static ev_status add_row(column *c) {
  if (c->type == EV_TOKEN_LIST) {
    EV_TRY(grow(&c->ptr, &c->cap, c->n + 2, sizeof *c->ptr));
    c->ptr[c->n] = c->ptr[c->n + 1] = c->n_codes;
  } else if (c->type == EV_FLOAT) {
    EV_TRY(grow(&c->values, &c->cap, c->n + 1, sizeof *c->values));
    c->values[c->n] = NAN;
  } else {
    EV_TRY(grow(&c->codes, &c->cap, c->n + 1, sizeof *c->codes));
    c->codes[c->n] = EV_NONE;
  }
  c->n++;
  return EV_OK;
}

ev_status column_pad(column *c, size_t rows) {
  while (c->n < rows) EV_TRY(add_row(c));
  return EV_OK;
}

ev_status column_float(column *c, float value) {
  EV_TRY(add_row(c));
  c->values[c->n - 1] = value;
  return EV_OK;
}

ev_status column_token(column *c, const char *s, size_t len) {
  EV_TRY(add_row(c));
  return len == 0 ? EV_OK : dict_add(&c->tokens, s, len, &c->codes[c->n - 1]);
}

ev_status column_list(column *c) { return add_row(c); }

ev_status column_list_token(column *c, const char *s, size_t len) {
  uint32_t code;
  EV_TRY(dict_add(&c->tokens, s, len, &code));
  EV_TRY(grow(&c->codes, &c->codes_cap, c->n_codes + 1, sizeof *c->codes));
  c->codes[c->n_codes++] = code;
  c->ptr[c->n] = c->n_codes;
  return EV_OK;
}

static ev_status place(column *to, column *from, const uint32_t *row_of, size_t n_ids) {
  for (size_t id = 0; id < n_ids; id++) {
    uint32_t row = row_of[id];
    EV_TRY(add_row(to));
    if (row == EV_NONE) continue;
    if (from->type == EV_FLOAT) to->values[id] = from->values[row];
    else if (from->type == EV_TOKEN) to->codes[id] = from->codes[row];
    else {
      size_t n = from->ptr[row + 1] - from->ptr[row];
      EV_TRY(grow(&to->codes, &to->codes_cap, to->n_codes + n, sizeof *to->codes));
      if (n > 0) memcpy(to->codes + to->n_codes, from->codes + from->ptr[row], n * sizeof *to->codes);
      to->n_codes += n;
      to->ptr[to->n] = to->n_codes;
    }
  }
  to->tokens = from->tokens; /* handed over */
  from->tokens = (dict){0};
  to->infer = from->infer;
  return EV_OK;
}

ev_status columns_place(columns *to, columns *own, const uint32_t *index, size_t n_rows, size_t n_ids, const char *path) {
  uint32_t *row_of = ev_alloc(n_ids, sizeof *row_of);
  if (row_of == NULL) return EV_ENOMEM;
  memset(row_of, 0xFF, n_ids * sizeof *row_of);
  ev_status status = EV_OK;
  for (size_t i = 0; i < n_rows && status == EV_OK; i++) {
    if (index[i] == EV_NONE) continue;
    if (row_of[index[i]] != EV_NONE)
      status = ev_fail(EV_EINVAL, "%s:%zu: the id of line %zu comes again", path, i + 2, (size_t)row_of[index[i]] + 2);
    row_of[index[i]] = (uint32_t)i;
  }
  for (size_t i = 0; i < own->n && status == EV_OK; i++) {
    column *c;
    status = columns_add(to, own->at[i].name, strlen(own->at[i].name), own->at[i].type, &c);
    if (status == EV_EEXIST) status = ev_fail(EV_EINVAL, "%s:1: a column '%s' came with an earlier file", path, own->at[i].name);
    if (status == EV_OK) status = place(c, &own->at[i], row_of, n_ids);
  }
  ev_free(row_of);
  return status;
}

/* Tokens of an untyped column that are all numbers become floats. */
static ev_status settle(column *c) {
  if (!c->infer || c->type != EV_TOKEN || c->tokens.n == 0) return EV_OK;
  double x;
  for (size_t i = 0; i < c->tokens.n; i++)
    if (!ev_parse_f64(c->tokens.bytes + c->tokens.ptr[i], c->tokens.ptr[i + 1] - c->tokens.ptr[i], &x) || fabs(x) > FLT_MAX) return EV_OK;
  float *values = ev_alloc(c->n, sizeof *values);
  if (values == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < c->n; i++) {
    uint32_t t = c->codes[i];
    values[i] = NAN;
    if (t != EV_NONE && ev_parse_f64(c->tokens.bytes + c->tokens.ptr[t], c->tokens.ptr[t + 1] - c->tokens.ptr[t], &x)) values[i] = (float)x;
  }
  ev_free(c->codes);
  dict_free(&c->tokens);
  c->codes = NULL;
  c->values = values;
  c->type = EV_FLOAT;
  return EV_OK;
}

ev_status columns_finish(columns *c, size_t rows, ev_column **out) {
  static const uint64_t no_tokens[1];
  *out = ev_zalloc(c->n, sizeof **out);
  if (*out == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < c->n; i++) {
    column *x = &c->at[i];
    ev_status status = column_pad(x, rows);
    if (status == EV_OK && x->type == EV_TOKEN_LIST && x->n == 0) {
      status = grow(&x->ptr, &x->cap, 1, sizeof *x->ptr);
      if (status == EV_OK) x->ptr[0] = 0;
    }
    if (status == EV_OK) status = settle(x);
    if (status != EV_OK) {
      ev_free(*out);
      *out = NULL;
      return status;
    }
    (*out)[i] = (ev_column){
        .name = x->name, .type = x->type, .n_rows = rows, .values = x->values, .codes = x->codes, .ptr = x->ptr,
        .n_tokens = x->tokens.n, .token_ptr = x->tokens.n > 0 ? x->tokens.ptr : no_tokens, .token_bytes = x->tokens.bytes,
    };
  }
  return EV_OK;
}

void columns_free(columns *c) {
  for (size_t i = 0; i < c->n; i++) {
    column *x = &c->at[i];
    ev_free(x->name);
    ev_free(x->values);
    ev_free(x->codes);
    ev_free(x->ptr);
    dict_free(&x->tokens);
  }
  ev_free(c->at);
  *c = (columns){0};
}
