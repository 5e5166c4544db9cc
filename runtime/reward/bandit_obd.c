/* bandit_obd.c - the Open Bandit Dataset (Saito, Aihara, Matsutani, Narita 2021): men.csv and its kin, and item_context.csv.
 *
 * A table with the columns timestamp, item_id, position, click, propensity_score, user_feature_* (hashed words) and
 * user-item_affinity_K (a number for item K). Words become one column for each word, in the order of the words, so that two
 * logs of the same campaign agree on them whatever came first. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bandit.h"

#define FIELDS_MAX 4096

typedef enum part { SKIP, TIME, ITEM, POSITION, CLICK, PROPENSITY, USER_FEATURE, AFFINITY } part;

typedef struct cell {
  const char *s;
  size_t len;
} cell;

typedef struct table {
  const char *path;
  size_t n;
  part *parts;      /* (FIELDS_MAX) */
  size_t *of;       /* (FIELDS_MAX): which user feature; which item */
  cell *cells;      /* (FIELDS_MAX) */
  cell *titles;     /* (FIELDS_MAX) of the header, borrowed from the mapping */
  names *levels;    /* (n_features) words of each user feature */
  size_t n_features, n_items; /* n_items: from affinities and item_context; 0: unknown */
  uint32_t *codes;  /* (rows, n_features) */
  size_t codes_cap;
} table;

static ev_status split(const table *t, size_t line, const char *text, size_t len, cell *out, size_t *n) {
  const char *at = text, *end = text + len;
  for (*n = 0;;) {
    if (*n == FIELDS_MAX) return ev_fail(EV_EINVAL, "%s:%zu: more than %d fields", t->path, line, FIELDS_MAX);
    if (at < end && *at == '"') {
      const char *quote = memchr(at + 1, '"', (size_t)(end - at - 1));
      if (quote == NULL || (quote + 1 < end && quote[1] != ','))
        return ev_fail(EV_EINVAL, "%s:%zu: a quote that is not closed at the end of its field", t->path, line);
      out[(*n)++] = (cell){at + 1, (size_t)(quote - at - 1)};
      at = quote + 1;
    } else {
      const char *comma = memchr(at, ',', (size_t)(end - at));
      const char *stop = comma != NULL ? comma : end;
      out[(*n)++] = (cell){at, (size_t)(stop - at)};
      at = stop;
    }
    if (at == end) return EV_OK;
    at++;
  }
}

static bool is(cell c, const char *s) { return strlen(s) == c.len && memcmp(c.s, s, c.len) == 0; }

static bool begins(cell c, const char *s, cell *rest) {
  size_t n = strlen(s);
  if (c.len <= n || memcmp(c.s, s, n) != 0) return false;
  *rest = (cell){c.s + n, c.len - n};
  return true;
}

static ev_status fault(const table *t, size_t line, const char *what, cell c) {
  char text[64];
  return ev_fail(EV_EINVAL, "%s:%zu: %s %s", t->path, line, what, bandit_quoted(text, c.s, c.len));
}

static ev_status header(table *t, const char *text, size_t len) {
  bool found[AFFINITY + 1] = {false};
  size_t n_affinities = 0;
  if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) text += 3, len -= 3; /* byte order mark */
  EV_TRY(split(t, 1, text, len, t->titles, &t->n));
  for (size_t i = 0; i < t->n; i++) {
    cell c = t->titles[i], rest;
    int64_t item;
    t->parts[i] = is(c, "timestamp") ? TIME : is(c, "item_id") ? ITEM : is(c, "position") ? POSITION : is(c, "click") ? CLICK
        : is(c, "propensity_score") ? PROPENSITY : SKIP;
    if (begins(c, "user_feature_", &rest)) t->parts[i] = USER_FEATURE, t->of[i] = t->n_features++;
    if (begins(c, "user-item_affinity_", &rest)) {
      if (!ev_parse_i64(rest.s, rest.len, &item) || item < 0 || item >= BANDIT_ARMS_MAX) return fault(t, 1, "no item's number in the column", c);
      t->parts[i] = AFFINITY, t->of[i] = (size_t)item, n_affinities++;
      if ((size_t)item >= t->n_items) t->n_items = (size_t)item + 1;
    }
    if (t->parts[i] >= TIME && t->parts[i] <= PROPENSITY && found[t->parts[i]]) return fault(t, 1, "a column comes twice:", c);
    found[t->parts[i]] = true;
  }
  if (n_affinities != t->n_items)
    return ev_fail(EV_EINVAL, "%s:1: %zu affinity columns, the last of them for item %zu", t->path, n_affinities, t->n_items - 1);
  static const char *const wanted[] = {[ITEM] = "item_id", [CLICK] = "click", [PROPENSITY] = "propensity_score"};
  for (int p = ITEM; p <= PROPENSITY; p++)
    if (p != POSITION && !found[p]) return ev_fail(EV_EINVAL, "%s:1: no column %s", t->path, wanted[p]);
  return EV_OK;
}

static ev_status number(const table *t, size_t line, const char *what, cell c, double *out) {
  return ev_parse_f64(c.s, c.len, out) ? EV_OK : fault(t, line, what, c);
}

static ev_status row(table *t, ev_bandit_builder *b, size_t line) {
  size_t r = b->n, to = b->n_places;
  int64_t whole;
  EV_TRY(bandit_rows(b, r + 1));
  EV_TRY(bandit_places(b, to + 1));
  if (t->n_features > 0) EV_TRY(bandit_grow(&t->codes, &t->codes_cap, (r + 1) * t->n_features, sizeof *t->codes));
  b->position[r] = b->user[r] = 0;
  b->time_ms[r] = 0;
  b->marginal[to] = 0;
  for (size_t i = 0; i < t->n; i++) {
    cell c = t->cells[i];
    double x;
    switch (t->parts[i]) {
      case TIME:
        if (!bandit_time(c.s, c.len, &b->time_ms[r])) return fault(t, line, "the timestamp is", c);
        break;
      case ITEM:
        if (!ev_parse_i64(c.s, c.len, &whole) || whole < 0 || whole >= BANDIT_ARMS_MAX) return fault(t, line, "the item_id is", c);
        b->arm[to] = (uint32_t)whole;
        break;
      case POSITION:
        if (!ev_parse_i64(c.s, c.len, &whole) || whole < 1 || whole > BANDIT_PLACES_MAX) return fault(t, line, "the position is", c);
        b->position[r] = (uint32_t)whole - 1;
        if ((size_t)whole > b->n_positions) b->n_positions = (size_t)whole;
        b->has_position = true;
        break;
      case CLICK:
        EV_TRY(number(t, line, "the click is", c, &x));
        if (x < b->reward_low || x > b->reward_high)
          return ev_fail(EV_EINVAL, "%s:%zu: the click is '%.*s', not between %g and %g", t->path, line, (int)(c.len < 40 ? c.len : 40), c.s,
                         b->reward_low, b->reward_high);
        b->reward[to] = x;
        break;
      case PROPENSITY:
        if (c.len == 0) return ev_fail(EV_EINVAL, "%s:%zu: the propensity_score is missing", t->path, line);
        EV_TRY(number(t, line, "the propensity_score is", c, &x));
        if (!(x > 0 && x <= 1))
          return ev_fail(EV_EINVAL, "%s:%zu: the propensity_score is '%.*s', not above 0 and at most 1", t->path, line, (int)(c.len < 40 ? c.len : 40),
                         c.s);
        b->propensity[to] = x;
        break;
      case USER_FEATURE:
        EV_TRY(names_add(&t->levels[t->of[i]], c.s, c.len, &t->codes[r * t->n_features + t->of[i]]));
        if (t->levels[t->of[i]].n > BANDIT_CONTEXT_MAX)
          return ev_fail(EV_ELIMIT, "%s:%zu: more than %d words in one user feature", t->path, line, BANDIT_CONTEXT_MAX);
        break;
      case AFFINITY:
        EV_TRY(number(t, line, "the affinity is", c, &x));
        b->pair[r * t->n_items + t->of[i]] = x;
        break;
      case SKIP: break;
    }
  }
  if (r == 0) b->row_ptr[0] = 0;
  b->row_ptr[++b->n] = ++b->n_places;
  return EV_OK;
}

static int by_text(const void *a, const void *b) {
  const cell *x = a, *y = b;
  int order = memcmp(x->s, y->s, x->len < y->len ? x->len : y->len);
  return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* Words of one column → the place of each in the order of the words. @param[out] rank (n) */
static ev_status order(const names *d, uint32_t *rank, cell *sorted) {
  for (size_t i = 0; i < d->n; i++) sorted[i] = (cell){d->bytes + d->ptr[i], d->ptr[i + 1] - d->ptr[i]};
  qsort(sorted, d->n, sizeof *sorted, by_text);
  for (size_t i = 0; i < d->n; i++) rank[names_find(d, sorted[i].s, sorted[i].len)] = (uint32_t)i;
  return EV_OK;
}

static ev_status one_hot(table *t, ev_bandit_builder *b) {
  size_t width = 0;
  for (size_t f = 0; f < t->n_features; f++) width += t->levels[f].n;
  b->n_context = width;
  if (width == 0) return EV_OK;
  if (width > BANDIT_CONTEXT_MAX || b->n > BANDIT_DENSE_MAX / width) return ev_fail(EV_ELIMIT, "%s: %zu rows of %zu context columns", t->path, b->n, width);
  b->context = ev_zalloc(b->n, width * sizeof *b->context);
  uint32_t *rank = ev_alloc(width, sizeof *rank);
  cell *sorted = ev_alloc(width, sizeof *sorted);
  ev_status status = b->context == NULL || rank == NULL || sorted == NULL ? EV_ENOMEM : EV_OK;
  size_t from = 0, f = 0;
  for (size_t i = 0; i < t->n && status == EV_OK; i++) {
    if (t->parts[i] != USER_FEATURE) continue;
    f = t->of[i];
    status = order(&t->levels[f], rank, sorted);
    for (size_t k = 0; k < t->levels[f].n && status == EV_OK; k++) {
      char name[200];
      uint32_t column;
      int len = snprintf(name, sizeof name, "%.*s=%.*s", (int)(t->titles[i].len < 90 ? t->titles[i].len : 90), t->titles[i].s,
                         (int)(sorted[k].len < 90 ? sorted[k].len : 90), sorted[k].s);
      status = names_add(&b->context_names, name, (size_t)len, &column);
      if (status == EV_OK && column != from + k) status = ev_fail(EV_EINVAL, "%s:1: two words or columns begin alike for 90 letters", t->path);
    }
    for (size_t r = 0; r < b->n && status == EV_OK; r++) b->context[r * width + from + rank[t->codes[r * t->n_features + f]]] = 1;
    from += t->levels[f].n;
  }
  ev_free(rank);
  ev_free(sorted);
  return status;
}

/* item_context.csv: numbers stay, words become one column for each word. */
static ev_status read_items(table *t, ev_bandit_builder *b, const char *path, bandit_lines *l) {
  const char *text;
  size_t len, n, id = SIZE_MAX, columns = 0, rows = 0, cap = 0;
  ev_status status;
  t->path = path;
  if (!bandit_next(l, &text, &len, &status)) return status != EV_OK ? status : ev_fail(EV_EINVAL, "%s:1: the file is empty", path);
  EV_TRY(split(t, 1, text, len, t->titles, &n));
  size_t *column = t->of;
  for (size_t i = 0; i < n; i++) {
    cell rest;
    column[i] = SIZE_MAX;
    if (is(t->titles[i], "item_id")) id = i;
    else if (begins(t->titles[i], "item_feature_", &rest)) column[i] = columns++;
  }
  if (id == SIZE_MAX) return ev_fail(EV_EINVAL, "%s:1: no column item_id", path);
  names *words = ev_zalloc(columns, sizeof *words);
  bool *numeric = ev_alloc(columns, sizeof *numeric), *there = ev_zalloc(t->n_items, sizeof *there);
  double *values = NULL;
  uint32_t *codes = NULL, *item = NULL;
  size_t values_cap = 0, codes_cap = 0;
  if (words == NULL || numeric == NULL || there == NULL) status = EV_ENOMEM;
  for (size_t c = 0; c < columns && status == EV_OK; c++) numeric[c] = true;
  while (status == EV_OK && bandit_next(l, &text, &len, &status)) {
    size_t fields;
    int64_t arm = 0;
    status = split(t, l->number, text, len, t->cells, &fields);
    if (status == EV_OK && fields != n) status = ev_fail(EV_EINVAL, "%s:%zu: %zu fields, the header has %zu", path, l->number, fields, n);
    if (status == EV_OK && (!ev_parse_i64(t->cells[id].s, t->cells[id].len, &arm) || arm < 0 || (size_t)arm >= t->n_items))
      status = fault(t, l->number, "no item of the log:", t->cells[id]);
    if (status == EV_OK && there[arm]) status = fault(t, l->number, "an item comes twice:", t->cells[id]);
    if (status == EV_OK) status = bandit_grow(&item, &cap, rows + 1, sizeof *item);
    if (status == EV_OK && columns > 0) status = bandit_grow(&values, &values_cap, (rows + 1) * columns, sizeof *values);
    if (status == EV_OK && columns > 0) status = bandit_grow(&codes, &codes_cap, (rows + 1) * columns, sizeof *codes);
    if (status != EV_OK) break;
    there[arm] = true;
    item[rows] = (uint32_t)arm;
    for (size_t i = 0; i < n && status == EV_OK; i++) {
      size_t c = column[i];
      if (c == SIZE_MAX) continue;
      numeric[c] &= ev_parse_f64(t->cells[i].s, t->cells[i].len, &values[rows * columns + c]);
      status = names_add(&words[c], t->cells[i].s, t->cells[i].len, &codes[rows * columns + c]);
    }
    rows++;
  }
  if (status == EV_OK && rows != t->n_items) status = ev_fail(EV_EINVAL, "%s: %zu items, the log has %zu", path, rows, t->n_items);
  size_t width = 0, from = 0;
  for (size_t c = 0; c < columns && status == EV_OK; c++) width += numeric[c] ? 1 : words[c].n;
  if (status == EV_OK && (width > BANDIT_CONTEXT_MAX || t->n_items > BANDIT_DENSE_MAX / (width + 1)))
    status = ev_fail(EV_ELIMIT, "%s: %zu item feature columns", path, width);
  if (status == EV_OK && width > 0) {
    b->arm_features = ev_zalloc(t->n_items, width * sizeof *b->arm_features);
    b->n_arm_features = width;
    if (b->arm_features == NULL) status = EV_ENOMEM;
  }
  for (size_t c = 0; c < columns && status == EV_OK; c++) {
    for (size_t r = 0; r < rows; r++) {
      double *to = b->arm_features + item[r] * width + from;
      if (numeric[c]) *to = values[r * columns + c];
      else to[codes[r * columns + c]] = 1;
    }
    from += numeric[c] ? 1 : words[c].n;
  }
  for (size_t c = 0; words != NULL && c < columns; c++) names_free(&words[c]);
  ev_free(words);
  ev_free(numeric);
  ev_free(there);
  ev_free(values);
  ev_free(codes);
  ev_free(item);
  return status;
}

static ev_status read_rows(table *t, ev_bandit_builder *b, bandit_lines *l) {
  const char *text;
  size_t len, fields;
  ev_status status;
  if (!bandit_next(l, &text, &len, &status)) return status != EV_OK ? status : ev_fail(EV_EINVAL, "%s:1: the file is empty", t->path);
  EV_TRY(header(t, text, len));
  t->levels = ev_zalloc(t->n_features, sizeof *t->levels);
  if (t->levels == NULL) return EV_ENOMEM;
  bool affinities = t->n_items > 0;
  for (size_t i = 0; i < t->n; i++) b->has_time |= t->parts[i] == TIME;
  while (bandit_next(l, &text, &len, &status)) {
    EV_TRY(split(t, l->number, text, len, t->cells, &fields));
    if (fields != t->n) return ev_fail(EV_EINVAL, "%s:%zu: %zu fields, the header has %zu", t->path, l->number, fields, t->n);
    if (affinities) {
      size_t need = (b->n + 1) * t->n_items;
      if (need > BANDIT_DENSE_MAX) return ev_fail(EV_ELIMIT, "%s:%zu: more than %zu affinities", t->path, l->number, BANDIT_DENSE_MAX);
      EV_TRY(bandit_grow(&b->pair, &b->pair_cap, need, sizeof *b->pair));
      memset(b->pair + b->n * t->n_items, 0, t->n_items * sizeof *b->pair);
    }
    EV_TRY(row(t, b, l->number));
    if (affinities && b->arm[b->n_places - 1] >= t->n_items)
      return ev_fail(EV_EINVAL, "%s:%zu: item %u, but affinities of %zu items", t->path, l->number, b->arm[b->n_places - 1], t->n_items);
    if (b->n % 1024 != 0) continue;
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    if (b->o->progress != NULL) b->o->progress(b->o->progress_ctx, (uint64_t)(l->at - l->begin), (uint64_t)(l->end - l->begin));
  }
  if (status != EV_OK) return status;
  for (size_t i = 0; i < b->n_places && !affinities; i++)
    if (b->arm[i] >= t->n_items) t->n_items = b->arm[i] + 1;
  if (!b->has_position) b->n_positions = 1;
  b->length = 1;
  return one_hot(t, b);
}

ev_status bandit_read_obd(ev_bandit_builder *b, bandit_lines *l, const char *items) {
  table t = {.path = b->path};
  if (isinf(b->reward_low)) b->reward_low = 0, b->reward_high = 1; /* a click */
  t.parts = ev_alloc(FIELDS_MAX, sizeof *t.parts);
  t.of = ev_alloc(FIELDS_MAX, sizeof *t.of);
  t.cells = ev_alloc(FIELDS_MAX, sizeof *t.cells);
  t.titles = ev_alloc(FIELDS_MAX, sizeof *t.titles);
  ev_status status = t.parts == NULL || t.of == NULL || t.cells == NULL || t.titles == NULL ? EV_ENOMEM : read_rows(&t, b, l);
  ev_map map = {0};
  if (status == EV_OK && items != NULL) status = ev_map_open(&map, items);
  if (status == EV_OK && items != NULL) {
    bandit_lines more = {items, map.data, (const char *)map.data + map.size, map.data, 0};
    status = read_items(&t, b, items, &more);
  }
  ev_map_close(&map);
  for (size_t i = 0; i < t.n_items && status == EV_OK; i++) {
    char name[24];
    uint32_t arm;
    status = names_add(&b->arms, name, (size_t)snprintf(name, sizeof name, "%zu", i), &arm);
  }
  for (size_t f = 0; t.levels != NULL && f < t.n_features; f++) names_free(&t.levels[f]);
  ev_free(t.levels);
  ev_free(t.codes);
  ev_free(t.parts);
  ev_free(t.of);
  ev_free(t.cells);
  ev_free(t.titles);
  return status;
}
