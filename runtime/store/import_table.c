/* import_table.c - tables: CSV (RFC 4180 quotes), TSV, RecBole's atomic files; and lists of items by user.
 *
 * A header gives each field its part: user, item, rating, time, or a feature column. Atomic headers carry types
 * (name:token, token_seq, float); CSV and TSV do not, so a column whose values are all numbers becomes floats. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "import.h"

#define FIELDS_MAX 256

typedef enum part { SKIP, USER, ITEM, RATING, TIME, FEATURE } part;

typedef struct field { /* a piece of the line; quoted CSV fields with doubled quotes are unfolded in place */
  const char *s;
  size_t len;
} field;

typedef struct table {
  const char *path;
  ev_format format;
  size_t n;
  part parts[FIELDS_MAX];
  ev_column_type types[FIELDS_MAX];
  size_t columns[FIELDS_MAX]; /* FEATURE: which column */
  ev_buf unquoted;            /* fields whose quotes had to be undone */
  columns *to;                /* where features go: the interactions', or a feature file's own */
  uint32_t *index;            /* feature files: the user or item of each row, owned */
  size_t n_rows, cap;         /* of a feature file */
} table;

static ev_status fault(const table *t, size_t line, const char *what, const field *f) {
  char shown[48];
  return ev_fail(EV_EINVAL, "%s:%zu: %s %s", t->path, line, what, quoted(shown, f->s, f->len));
}

/* Splits a line; n is the number of fields found. */
static ev_status split(table *t, const char *text, size_t len, size_t line, field *out, size_t *n) {
  char separator = t->format == EV_FORMAT_CSV ? ',' : '\t';
  const char *at = text, *end = text + len;
  *n = 0;
  ev_buf_clear(&t->unquoted);
  EV_TRY(ev_buf_reserve(&t->unquoted, len)); /* so that pointers into it hold */
  for (;;) {
    if (*n == FIELDS_MAX) return ev_fail(EV_EINVAL, "%s:%zu: more than %d fields", t->path, line, FIELDS_MAX);
    field *f = &out[(*n)++];
    if (t->format == EV_FORMAT_CSV && at < end && *at == '"') {
      f->s = t->unquoted.data + t->unquoted.len;
      size_t start = t->unquoted.len;
      for (at++;;) {
        const char *quote = memchr(at, '"', (size_t)(end - at));
        if (quote == NULL) return ev_fail(EV_EINVAL, "%s:%zu: a quote is never closed (a field may not hold a newline)", t->path, line);
        EV_TRY(ev_buf_append(&t->unquoted, at, (size_t)(quote - at)));
        at = quote + 1;
        if (at == end || *at != '"') break;
        EV_TRY(ev_buf_append(&t->unquoted, at++, 1));
      }
      f->len = t->unquoted.len - start;
      if (at < end && *at != separator) return ev_fail(EV_EINVAL, "%s:%zu: text behind a closing quote", t->path, line);
    } else {
      const char *next = memchr(at, separator, (size_t)(end - at));
      f->s = at;
      f->len = (size_t)((next != NULL ? next : end) - at);
      at = next != NULL ? next : end;
    }
    if (at == end) return EV_OK;
    at++;
  }
}

static bool is(const field *f, const char *name) { return strlen(name) == f->len && memcmp(f->s, name, f->len) == 0; }

static bool is_one_of(const field *f, const char *const *names) {
  for (; *names != NULL; names++)
    if (is(f, *names)) return true;
  return false;
}

static part part_of(const ev_import_options *o, const field *f) {
  static const char *const users[] = {"user", "user_id", "userId", "userID", "UserId", "uid", "session_id", "visitorid", NULL};
  static const char *const items[] = {"item", "item_id", "itemId", "itemID", "ItemId", "iid", "movieId", "movie_id", "itemid", NULL};
  static const char *const ratings[] = {"rating", "score", "stars", NULL};
  static const char *const times[] = {"time", "timestamp", "ts", "unixtime", NULL};
  if (o->user != NULL ? is(f, o->user) : is_one_of(f, users)) return USER;
  if (o->item != NULL ? is(f, o->item) : is_one_of(f, items)) return ITEM;
  if (o->rating != NULL ? is(f, o->rating) : is_one_of(f, ratings)) return RATING;
  if (o->time != NULL ? is(f, o->time) : is_one_of(f, times)) return TIME;
  return FEATURE;
}

/* "name:type" of an atomic header → the name alone in *f, and its type. */
static ev_status atomic_type(const table *t, field *f, ev_column_type *type) {
  const char *colon = memchr(f->s, ':', f->len);
  if (colon == NULL) return fault(t, 1, "a header field must be name:type, not", f);
  field kind = {colon + 1, f->len - (size_t)(colon - f->s) - 1};
  f->len = (size_t)(colon - f->s);
  if (is(&kind, "token")) *type = EV_TOKEN;
  else if (is(&kind, "token_seq")) *type = EV_TOKEN_LIST;
  else if (is(&kind, "float")) *type = EV_FLOAT;
  else return fault(t, 1, "token, token_seq and float are read; unsupported type", &kind);
  return EV_OK;
}

static ev_status read_header(table *t, raw *r, ev_side side, lines *l) {
  const char *text;
  size_t len;
  ev_status status;
  field f[FIELDS_MAX];
  if (!lines_next(l, &text, &len, &status)) return status != EV_OK ? status : ev_fail(EV_EINVAL, "%s:1: the file is empty", t->path);
  if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) text += 3, len -= 3; /* byte order mark */
  EV_TRY(split(t, text, len, 1, f, &t->n));
  bool found[FEATURE + 1] = {false};
  for (size_t i = 0; i < t->n; i++) {
    t->types[i] = EV_TOKEN;
    if (t->format == EV_FORMAT_ATOMIC) EV_TRY(atomic_type(t, &f[i], &t->types[i]));
    if (f[i].len == 0 || f[i].len > 200) return fault(t, 1, "no name for a column:", &f[i]);
    part p = part_of(r->o, &f[i]);
    if (side == EV_USER && p != USER) p = FEATURE;
    if (side == EV_ITEM && p != ITEM) p = FEATURE;
    if (p != FEATURE && found[p]) return fault(t, 1, "a second column for the same thing:", &f[i]);
    found[p] = true;
    t->parts[i] = p;
    if (p != FEATURE) continue;
    columns *c = t->to;
    for (t->columns[i] = 0; t->columns[i] < c->n; t->columns[i]++)
      if (strlen(c->at[t->columns[i]].name) == f[i].len && memcmp(c->at[t->columns[i]].name, f[i].s, f[i].len) == 0) break;
    if (t->columns[i] < c->n) { /* known from an earlier file */
      if (c->at[t->columns[i]].type != t->types[i]) return fault(t, 1, "another type in an earlier file:", &f[i]);
      for (size_t k = 0; k < i; k++)
        if (t->parts[k] == FEATURE && t->columns[k] == t->columns[i]) return fault(t, 1, "a column is named twice:", &f[i]);
      continue;
    }
    column *made;
    EV_TRY(columns_add(c, f[i].s, f[i].len, t->types[i], &made));
    made->infer = t->format != EV_FORMAT_ATOMIC;
  }
  const char *const wanted[] = {NULL, r->o->user, r->o->item, r->o->rating, r->o->time};
  static const char *const options[] = {NULL, "user", "item", "rating", "time"};
  for (part p = USER; p <= TIME; p++) {
    bool needed = side == EV_INTERACTION ? p == USER || p == ITEM || wanted[p] != NULL : p == (side == EV_USER ? USER : ITEM);
    if (!needed || found[p]) continue;
    if (wanted[p] != NULL) return ev_fail(EV_EINVAL, "%s:1: no column '%s' (given by --%s)", t->path, wanted[p], options[p]);
    return ev_fail(EV_EINVAL, "%s:1: no %s column; name it with --%s", t->path, options[p], options[p]);
  }
  return EV_OK;
}

static ev_status put_feature(const table *t, column *c, const field *f, size_t line) {
  double x;
  if (c->type == EV_TOKEN) return column_token(c, f->s, f->len);
  if (c->type == EV_FLOAT) {
    if (f->len == 0) return column_pad(c, c->n + 1);
    if (!ev_parse_f64(f->s, f->len, &x) || fabs(x) > FLT_MAX) return fault(t, line, "not a number:", f);
    return column_float(c, (float)x);
  }
  EV_TRY(column_list(c));
  for (size_t i = 0; i < f->len;) {
    const char *space = memchr(f->s + i, ' ', f->len - i);
    size_t n = (space != NULL ? (size_t)(space - f->s) : f->len) - i;
    if (n > 0) EV_TRY(column_list_token(c, f->s + i, n));
    i += n + 1;
  }
  return EV_OK;
}

static ev_status read_row(table *t, ev_side side, const field *f, size_t row, interaction *x, size_t line) {
  *x = (interaction){.rating = NAN};
  double number;
  for (size_t i = 0; i < t->n; i++) {
    switch (t->parts[i]) {
      case USER: x->user = f[i].s; x->user_len = f[i].len; break;
      case ITEM: x->item = f[i].s; x->item_len = f[i].len; break;
      case RATING:
        if (!ev_parse_f64(f[i].s, f[i].len, &x->rating) || fabs(x->rating) > FLT_MAX) return fault(t, line, "the rating is not a number:", &f[i]);
        break;
      case TIME:
        if (!ev_parse_f64(f[i].s, f[i].len, &number) || fabs(number) > 9e15) return fault(t, line, "the time is not a number of seconds:", &f[i]);
        x->time = (int64_t)floor(number);
        x->timed = true;
        break;
      case FEATURE: {
        column *c = &t->to->at[t->columns[i]];
        EV_TRY(column_pad(c, row));
        EV_TRY(put_feature(t, c, &f[i], line));
        break;
      }
      case SKIP: break;
    }
  }
  if (side != EV_ITEM && x->user_len == 0) return ev_fail(EV_EINVAL, "%s:%zu: the user is empty", t->path, line);
  if (side != EV_USER && x->item_len == 0) return ev_fail(EV_EINVAL, "%s:%zu: the item is empty", t->path, line);
  return EV_OK;
}

/* The user or item that a feature row is about. A stranger is added, unless a core is kept: then *known is false and
 * the row is left out. */
static ev_status take_id(table *t, raw *r, ev_side side, const field *f, size_t line, bool *known) {
  size_t id = 0;
  while (t->parts[id] != (side == EV_USER ? USER : ITEM)) id++;
  if (f[id].len == 0) return ev_fail(EV_EINVAL, "%s:%zu: the id is empty", t->path, line);
  dict *d = side == EV_USER ? &r->users : &r->items;
  uint32_t index = dict_find(d, f[id].s, f[id].len);
  *known = index != EV_NONE || r->o->k_core == 0;
  if (*known && index == EV_NONE) EV_TRY(dict_add(d, f[id].s, f[id].len, &index));
  if (t->n_rows == t->cap) {
    size_t cap = t->cap == 0 ? 256 : 2 * t->cap;
    uint32_t *grown = ev_resize(t->index, cap, sizeof *grown);
    if (grown == NULL) return EV_ENOMEM;
    t->index = grown;
    t->cap = cap;
  }
  t->index[t->n_rows++] = index;
  return EV_OK;
}

static ev_status read_table(table *t, raw *r, ev_map map, ev_side side, uint8_t fold, uint8_t file) {
  lines l = {t->path, map.data, (const char *)map.data + map.size, 0};
  const char *text;
  size_t len, n;
  ev_status status;
  field f[FIELDS_MAX];
  EV_TRY(read_header(t, r, side, &l));
  while (lines_next(&l, &text, &len, &status)) {
    if (len == 0) {
      if (l.at == l.end) break;
      return ev_fail(EV_EINVAL, "%s:%zu: an empty line", t->path, l.number);
    }
    EV_TRY(split(t, text, len, l.number, f, &n));
    if (n != t->n) return ev_fail(EV_EINVAL, "%s:%zu: ragged row: %zu fields, the header has %zu", t->path, l.number, n, t->n);
    interaction x;
    size_t row = r->n;
    if (side != EV_INTERACTION) {
      bool known = false;
      EV_TRY(take_id(t, r, side, f, l.number, &known));
      if (!known) continue;
      row = t->n_rows - 1;
    }
    EV_TRY(read_row(t, side, f, row, &x, l.number));
    r->bytes_here = (uint64_t)(l.at - (const char *)map.data);
    if (side == EV_INTERACTION) EV_TRY(raw_add(r, &x, fold, file, l.number));
  }
  if (status == EV_OK && l.number == 1) status = ev_fail(EV_EINVAL, "%s:1: a header and no rows", t->path);
  return status;
}

ev_status parse_table(raw *r, const char *path, ev_map map, uint8_t fold, uint8_t file, ev_format format) {
  table t = {.path = path, .format = format, .to = &r->columns[EV_INTERACTION]};
  ev_status status = read_table(&t, r, map, EV_INTERACTION, fold, file);
  ev_buf_free(&t.unquoted);
  return status;
}

ev_status parse_features(raw *r, const char *path, ev_map map, ev_side side) {
  columns own = {0};
  table t = {.path = path, .format = EV_FORMAT_ATOMIC, .to = &own};
  ev_status status = read_table(&t, r, map, side, 0, 0);
  for (size_t i = 0; i < own.n && status == EV_OK; i++) status = column_pad(&own.at[i], t.n_rows);
  if (status == EV_OK) status = columns_place(&r->columns[side], &own, t.index, t.n_rows, side == EV_USER ? r->users.n : r->items.n, path);
  columns_free(&own);
  ev_free(t.index);
  ev_buf_free(&t.unquoted);
  return status;
}

ev_status parse_lists(raw *r, const char *path, ev_map map, uint8_t fold, uint8_t file) {
  lines l = {path, map.data, (const char *)map.data + map.size, 0};
  const char *text;
  size_t len, before = r->n;
  ev_status status;
  char shown[48];
  while (lines_next(&l, &text, &len, &status)) {
    interaction x = {.rating = NAN};
    const char *end = text + len;
    for (const char *at = text; at < end;) {
      while (at < end && (*at == ' ' || *at == '\t')) at++;
      const char *start = at;
      while (at < end && *at != ' ' && *at != '\t') at++;
      if (at == start) break;
      if (x.user == NULL) {
        x.user = start;
        x.user_len = (size_t)(at - start);
        uint32_t ignored;
        EV_TRY(dict_add(&r->users, x.user, x.user_len, &ignored));
        continue;
      }
      x.item = start;
      x.item_len = (size_t)(at - start);
      int64_t number; /* lists are of numbers: anything else is another format, or damage */
      if (!ev_parse_i64(x.item, x.item_len, &number)) return ev_fail(EV_EINVAL, "%s:%zu: not an item number: %s", path, l.number, quoted(shown, x.item, x.item_len));
      r->bytes_here = (uint64_t)(l.at - (const char *)map.data);
      EV_TRY(raw_add(r, &x, fold, file, l.number));
    }
    if (x.user == NULL && l.at != l.end) return ev_fail(EV_EINVAL, "%s:%zu: an empty line", path, l.number);
  }
  if (status == EV_OK && r->n == before) status = ev_fail(EV_EINVAL, "%s:1: the file has no interactions", path);
  r->sequences = true;
  return status;
}
