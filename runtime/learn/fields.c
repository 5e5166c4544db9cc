/* fields.c - what a ranker sees of a row: slate columns, ids and feature columns, as features of one vocabulary.
 *
 * One description serves every ranker: it is measured over the training rows, kept in the model's pack, and bound again to
 * whatever is to be scored. learn.h says what the two forms of a row are.
 *
 * Arrays: fields u8 (text, a line "side type n name" each; side 0 user, 1 item, 2 slate; type as ev_column_type, 3 = id),
 * slots u32, mean f32, std f32 (an element a field), known u8 (n_features: 1 = some training row has it). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "learn.h"

enum { TYPE_ID = EV_FLOAT + 1 }; /* in the file */

struct ev_fields {
  ev_rank_field at[EV_FIELDS_MAX];
  size_t n, n_features, n_slots, n_dense;
  uint8_t *known; /* (n_features) */
};

size_t ev_fields_n(const ev_fields *f) { return f->n; }
const ev_rank_field *ev_fields_at(const ev_fields *f, size_t i) { return &f->at[i]; }
size_t ev_fields_n_features(const ev_fields *f) { return f->n_features; }
size_t ev_fields_n_slots(const ev_fields *f) { return f->n_slots; }
size_t ev_fields_n_dense(const ev_fields *f) { return f->n_dense; }

void ev_fields_free(ev_fields *f) {
  if (f == NULL) return;
  ev_free(f->known);
  ev_free(f);
}

static bool is_rank(const char *slate_column) { return strncmp(slate_column, "rank.", 5) == 0; }
static float slate_value(float x, bool rank) { return !rank ? x : x > 0 ? 1 / log2f(1 + x) : 0; }

/* ---- Fit -----------------------------------------------------------------------------------------------*/
static ev_status add(ev_fields *f, ev_row_source from, ev_column_type type, bool id, const char *name, size_t size, size_t n_slots) {
  if (f->n == EV_FIELDS_MAX) return ev_fail(EV_ELIMIT, "a ranker takes at most %d fields", EV_FIELDS_MAX);
  if (strlen(name) >= sizeof f->at->name) return ev_fail(EV_EINVAL, "'%.60s…' is too long for a field", name);
  ev_rank_field *x = &f->at[f->n++];
  *x = (ev_rank_field){.from = from, .type = type, .id = id, .size = size, .offset = f->n_features, .slot = f->n_slots, .n_slots = n_slots,
                       .dense = f->n_dense, .mean = 0, .std = 1};
  snprintf(x->name, sizeof x->name, "%s", name);
  f->n_features += size;
  f->n_slots += n_slots;
  f->n_dense += type == EV_FLOAT;
  return f->n_features >= EV_NONE ? ev_fail(EV_ELIMIT, "more than 2^32 features") : EV_OK;
}

static size_t slots_of(const ev_column *c) {
  const uint32_t *codes;
  size_t most = 1;
  if (c->type == EV_FLOAT) return 0;
  if (c->type == EV_TOKEN) return 1;
  for (size_t row = 0; row < c->n_rows; row++) {
    size_t n = ev_column_tokens(c, row, &codes);
    if (n > most) most = n;
  }
  return most < EV_SLOTS_MAX ? most : EV_SLOTS_MAX;
}

static ev_status add_columns(ev_fields *f, const ev_snapshot *s, ev_side side, const char *const *names, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const ev_column *c = ev_snapshot_column(s, side, names[i]);
    if (c == NULL) return ev_fail(EV_EINVAL, "no %s column '%.60s'", side == EV_USER ? "user" : "item", names[i]);
    if (c->type != EV_FLOAT && c->n_tokens == 0) continue; /* no row has a value */
    EV_TRY(add(f, side == EV_USER ? EV_FROM_USER : EV_FROM_ITEM, c->type, false, c->name, c->type == EV_FLOAT ? 1 : c->n_tokens, slots_of(c)));
  }
  return EV_OK;
}

static const float *dense_of(const ev_rank_rows *rows, const char *name) { /* the column's value of row 0; a row further is n_dense floats further */
  for (size_t c = 0; c < rows->n_dense; c++)
    if (strcmp(rows->dense_names[c], name) == 0) return rows->dense + c;
  return NULL;
}

static void standardise(ev_rank_field *x, const ev_snapshot *s, const ev_rank_rows *rows) {
  const ev_column *c = x->from == EV_FROM_SLATE ? NULL : ev_snapshot_column(s, x->from == EV_FROM_USER ? EV_USER : EV_ITEM, x->name);
  const float *dense = x->from == EV_FROM_SLATE ? dense_of(rows, x->name) : NULL;
  double sum = 0, squares = 0, n = 0, origin = 0; /* differences from the first value: a time stamp's spread is small beside its size */
  bool rank = is_rank(x->name);
  for (size_t i = 0; i < rows->n_rows; i++) {
    size_t row = x->from == EV_FROM_USER ? rows->user[i] : rows->item[i];
    double value = dense != NULL ? slate_value(dense[i * rows->n_dense], rank) : c != NULL && row < c->n_rows ? c->values[row] : NAN;
    if (!isfinite(value)) continue;
    if (n == 0) origin = value;
    value -= origin;
    sum += value;
    squares += value * value;
    n++;
  }
  if (n == 0) return;
  double mean = sum / n, variance = squares / n - mean * mean;
  x->mean = (float)(origin + mean);
  x->std = variance > 1e-12 ? (float)sqrt(variance) : 1;
}

/* Marks the features of those who appear in the rows. */
static ev_status remember(ev_fields *f, const ev_snapshot *s, const ev_rank_rows *rows) {
  size_t n[2] = {ev_snapshot_n_users(s), ev_snapshot_n_items(s)};
  uint8_t *seen[2] = {ev_zalloc(n[0], 1), ev_zalloc(n[1], 1)};
  const uint32_t *codes, *of[2] = {rows->user, rows->item};
  f->known = ev_zalloc(f->n_features, 1);
  ev_status status = seen[0] == NULL || seen[1] == NULL || f->known == NULL ? EV_ENOMEM : EV_OK;
  for (int side = 0; side < 2 && status == EV_OK; side++)
    for (size_t i = 0; i < rows->n_rows; i++)
      if (of[side][i] < n[side]) seen[side][of[side][i]] = 1;
  for (size_t k = 0; k < f->n && status == EV_OK; k++) {
    const ev_rank_field *x = &f->at[k];
    int side = x->from == EV_FROM_USER ? 0 : 1;
    if (x->type == EV_FLOAT) {
      f->known[x->offset] = 1;
    } else if (x->id) {
      memcpy(f->known + x->offset, seen[side], x->size);
    } else {
      const ev_column *c = ev_snapshot_column(s, side == 0 ? EV_USER : EV_ITEM, x->name);
      for (size_t row = 0; row < c->n_rows; row++)
        for (size_t m = seen[side][row] ? ev_column_tokens(c, row, &codes) : 0; m > 0; m--) f->known[x->offset + codes[m - 1]] = 1;
    }
  }
  ev_free(seen[0]);
  ev_free(seen[1]);
  return status;
}

ev_status ev_fields_fit(ev_fields **out, const ev_snapshot *s, const ev_rank_rows *rows, const ev_fields_options *o) {
  *out = NULL;
  ev_fields *f = ev_zalloc(1, sizeof *f);
  if (f == NULL) return EV_ENOMEM;
  ev_status status = EV_OK;
  for (size_t i = 0; i < rows->n_dense && status == EV_OK; i++) status = add(f, EV_FROM_SLATE, EV_FLOAT, false, rows->dense_names[i], 1, 0);
  if (status == EV_OK && o->ids) status = add(f, EV_FROM_USER, EV_TOKEN, true, "", ev_snapshot_n_users(s), 1);
  if (status == EV_OK) status = add_columns(f, s, EV_USER, o->user_columns, o->n_user_columns);
  if (status == EV_OK && o->ids) status = add(f, EV_FROM_ITEM, EV_TOKEN, true, "", ev_snapshot_n_items(s), 1);
  if (status == EV_OK) status = add_columns(f, s, EV_ITEM, o->item_columns, o->n_item_columns);
  for (size_t i = 0; i < f->n && status == EV_OK; i++)
    if (f->at[i].type == EV_FLOAT) standardise(&f->at[i], s, rows);
  if (status == EV_OK) status = remember(f, s, rows);
  if (status == EV_OK) *out = f;
  else ev_fields_free(f);
  return status;
}

/* ---- Pack ----------------------------------------------------------------------------------------------*/
ev_status ev_fields_write(const ev_fields *f, ev_pack_writer *w) {
  ev_buf text = {0};
  float mean[EV_FIELDS_MAX], std[EV_FIELDS_MAX];
  uint32_t slots[EV_FIELDS_MAX];
  ev_status status = EV_OK;
  for (size_t i = 0; i < f->n && status == EV_OK; i++) {
    const ev_rank_field *x = &f->at[i];
    mean[i] = x->mean, std[i] = x->std, slots[i] = (uint32_t)x->n_slots;
    status = ev_buf_printf(&text, "%d %d %zu %s\n", (int)x->from, x->id ? TYPE_ID : (int)x->type, x->size, x->name);
  }
  if (status == EV_OK) status = ev_pack_write(w, "fields", EV_U8, text.data, text.len, 1);
  if (status == EV_OK) status = ev_pack_write(w, "slots", EV_U32, slots, f->n, 1);
  if (status == EV_OK) status = ev_pack_write(w, "mean", EV_F32, mean, f->n, 1);
  if (status == EV_OK) status = ev_pack_write(w, "std", EV_F32, std, f->n, 1);
  if (status == EV_OK) status = ev_pack_write(w, "known", EV_U8, f->known, f->n_features, 1);
  ev_buf_free(&text);
  return status;
}

static ev_status wrong(const ev_pack *p) { return ev_fail(EV_ECORRUPT, "%s: the list of fields is wrong", ev_pack_path(p)); }

static ev_status read_line(ev_fields *f, const char *text, size_t len, const ev_array *slots, const ev_pack *p) {
  char line[256];
  int from, type, at = 0;
  size_t size;
  if (len >= sizeof line || f->n >= slots->rows * slots->cols) return wrong(p);
  memcpy(line, text, len);
  line[len] = '\0';
  if (strlen(line) != len || sscanf(line, "%d %d %zu %n", &from, &type, &size, &at) != 3 || at == 0) return wrong(p);
  const char *name = line + at;
  uint32_t n_slots = ((const uint32_t *)slots->data)[f->n];
  bool id = type == TYPE_ID;
  if (id) type = EV_TOKEN;
  if (from < EV_FROM_USER || from > EV_FROM_SLATE || type < EV_TOKEN || type > EV_FLOAT || size == 0 || size >= EV_NONE ||
      strlen(name) >= sizeof f->at->name || (id && (*name != '\0' || size >= EV_NONE)) || (from == EV_FROM_SLATE && (type != EV_FLOAT || id)))
    return wrong(p);
  if (type == EV_FLOAT ? size != 1 || n_slots != 0 : type == EV_TOKEN ? n_slots != 1 : n_slots == 0 || n_slots > EV_SLOTS_MAX) return wrong(p);
  return add(f, (ev_row_source)from, (ev_column_type)type, id, name, size, n_slots);
}

static ev_status read_fields(ev_fields *f, const ev_pack *p) {
  ev_array text, slots, mean, std, known;
  EV_TRY(ev_pack_get(p, "fields", EV_U8, &text));
  EV_TRY(ev_pack_get(p, "slots", EV_U32, &slots));
  EV_TRY(ev_pack_get(p, "mean", EV_F32, &mean));
  EV_TRY(ev_pack_get(p, "std", EV_F32, &std));
  EV_TRY(ev_pack_get(p, "known", EV_U8, &known));
  const char *at = text.data, *end = at + text.rows * text.cols;
  while (at < end) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    if (newline == NULL) return wrong(p);
    EV_TRY(read_line(f, at, (size_t)(newline - at), &slots, p));
    at = newline + 1;
  }
  if (slots.rows * slots.cols != f->n || mean.rows * mean.cols != f->n || std.rows * std.cols != f->n || known.rows * known.cols != f->n_features)
    return ev_fail(EV_ECORRUPT, "%s: the fields' arrays do not fit each other", ev_pack_path(p));
  for (size_t i = 0; i < f->n; i++) f->at[i].mean = ((const float *)mean.data)[i], f->at[i].std = ((const float *)std.data)[i];
  f->known = ev_alloc(f->n_features, 1);
  if (f->known == NULL) return EV_ENOMEM;
  if (f->n_features > 0) memcpy(f->known, known.data, f->n_features);
  return EV_OK;
}

ev_status ev_fields_read(ev_fields **out, const ev_pack *p) {
  *out = NULL;
  ev_fields *f = ev_zalloc(1, sizeof *f);
  if (f == NULL) return EV_ENOMEM;
  ev_status status = read_fields(f, p);
  if (status == EV_OK) *out = f;
  else ev_fields_free(f);
  return status;
}

/* ---- Reader --------------------------------------------------------------------------------------------*/
typedef struct bound { /* a field where its values lie */
  const ev_column *column; /* of a user's or an item's; NULL for ids */
  const float *values;     /* of a slate column: row i at values[i * stride]; NULL: 0 everywhere */
  size_t stride;
  bool rank;
} bound;

struct ev_row_reader {
  const ev_fields *f;
  size_t n;
  const uint32_t *user, *item; /* (n); user NULL: `asker` in every row */
  uint32_t asker;
  bool one_user;               /* a slate: the user's features are the same in every row, and come first */
  size_t n_shared;
  uint32_t shared_index[EV_ROW_FEATURES_MAX];
  float shared_value[EV_ROW_FEATURES_MAX];
  bound at[]; /* (f->n) */
};

size_t ev_row_reader_n(const ev_row_reader *r) { return r->n; }
void ev_row_reader_free(ev_row_reader *r) { ev_free(r); }

static ev_status new_reader(ev_row_reader **out, const ev_fields *f, const ev_snapshot *s) {
  *out = NULL;
  ev_row_reader *r = ev_alloc(1, sizeof *r + f->n * sizeof *r->at);
  if (r == NULL) return EV_ENOMEM;
  r->f = f;
  r->n = r->n_shared = 0;
  for (size_t i = 0; i < f->n; i++) {
    const ev_rank_field *x = &f->at[i];
    bound *b = &r->at[i];
    bool differs = false;
    *b = (bound){.rank = x->from == EV_FROM_SLATE && is_rank(x->name)};
    if (x->from == EV_FROM_SLATE) continue;
    if (x->id) {
      differs = x->size != (x->from == EV_FROM_USER ? ev_snapshot_n_users(s) : ev_snapshot_n_items(s));
    } else {
      b->column = ev_snapshot_column(s, x->from == EV_FROM_USER ? EV_USER : EV_ITEM, x->name);
      differs = b->column == NULL || b->column->type != x->type || (x->type != EV_FLOAT && b->column->n_tokens != x->size);
    }
    if (!differs) continue;
    ev_free(r);
    if (x->id) return ev_fail(EV_EINVAL, "the ranker was fitted on other data: it knows %zu %s", x->size, x->from == EV_FROM_USER ? "users" : "items");
    return ev_fail(EV_EINVAL, "the ranker was fitted on other data: column '%s' differs", x->name);
  }
  *out = r;
  return EV_OK;
}

typedef struct sparse { /* a row under construction */
  uint32_t *index;
  float *value;
  size_t n;
} sparse;

static void push(sparse *a, const ev_fields *f, size_t index, float value) {
  if (a->n < EV_ROW_FEATURES_MAX && value != 0 && f->known[index]) a->index[a->n] = (uint32_t)index, a->value[a->n++] = value;
}

/* The number of a FLOAT field in a row of the reader; NaN: missing. */
static float number(const ev_row_reader *r, size_t k, size_t row, size_t of) {
  const ev_rank_field *x = &r->f->at[k];
  const bound *b = &r->at[k];
  if (x->from != EV_FROM_SLATE) return of < b->column->n_rows ? (b->column->values[of] - x->mean) / x->std : NAN;
  float value = b->values != NULL ? slate_value(b->values[row * b->stride], b->rank) : 0;
  return isfinite(value) ? (value - x->mean) / x->std : NAN;
}

/* The tokens of a field of tokens: how many, and the first. */
static size_t tokens(const ev_row_reader *r, size_t k, const uint32_t *of, const uint32_t **codes) {
  const ev_rank_field *x = &r->f->at[k];
  if (!x->id) return ev_column_tokens(r->at[k].column, *of, codes);
  *codes = of;
  return *of < x->size ? 1 : 0;
}

static void push_field(sparse *a, const ev_row_reader *r, size_t k, size_t row, uint32_t of) {
  const ev_rank_field *x = &r->f->at[k];
  if (x->type == EV_FLOAT) {
    float value = number(r, k, row, of);
    if (!isnan(value)) push(a, r->f, x->offset, value);
    return;
  }
  const uint32_t *codes = NULL;
  size_t n = tokens(r, k, &of, &codes);
  for (size_t i = 0; i < n; i++) push(a, r->f, x->offset + codes[i], x->type == EV_TOKEN ? 1 : 1 / (float)n);
}

size_t ev_row_features(uint32_t *index, float *value, const ev_row_reader *r, size_t row) {
  sparse a = {index, value, r->n_shared};
  if (a.n > 0) memcpy(index, r->shared_index, a.n * sizeof *index), memcpy(value, r->shared_value, a.n * sizeof *value);
  for (size_t k = 0; k < r->f->n; k++) {
    ev_row_source from = r->f->at[k].from;
    if (from != EV_FROM_USER) push_field(&a, r, k, row, r->item[row]);
    else if (!r->one_user) push_field(&a, r, k, row, r->user[row]);
  }
  return a.n;
}

void ev_row_columns(uint32_t *codes, float *weights, float *values, const ev_row_reader *r, const uint32_t *rows, size_t first, size_t n, float missing) {
  const ev_fields *f = r->f;
  for (size_t i = 0; i < n; i++) {
    size_t row = rows != NULL ? rows[i] : first + i;
    for (size_t k = 0; k < f->n; k++) {
      const ev_rank_field *x = &f->at[k];
      uint32_t of = x->from != EV_FROM_USER ? r->item[row] : r->one_user ? r->asker : r->user[row];
      if (x->type == EV_FLOAT) {
        float value = values != NULL ? number(r, k, row, of) : 0;
        if (values != NULL) values[i * f->n_dense + x->dense] = isnan(value) ? missing : value;
      } else if (codes != NULL) {
        const uint32_t *tokens_of = NULL;
        size_t m = tokens(r, k, &of, &tokens_of), used = m < x->n_slots ? m : x->n_slots;
        for (size_t j = 0; j < x->n_slots; j++) {
          size_t code = x->offset + (j < used ? tokens_of[j] : 0), at = i * f->n_slots + x->slot + j;
          codes[at] = (uint32_t)code;
          weights[at] = j < used && f->known[code] ? 1 / (float)used : 0;
        }
      }
    }
  }
}

ev_status ev_row_reader_of_rows(ev_row_reader **out, const ev_fields *f, const ev_snapshot *s, const ev_rank_rows *rows) {
  EV_TRY(new_reader(out, f, s));
  ev_row_reader *r = *out;
  r->n = rows->n_rows;
  r->user = rows->user;
  r->item = rows->item;
  r->asker = EV_NONE;
  r->one_user = false;
  for (size_t i = 0; i < f->n; i++)
    if (f->at[i].from == EV_FROM_SLATE) r->at[i].values = dense_of(rows, f->at[i].name), r->at[i].stride = rows->n_dense;
  return EV_OK;
}

ev_status ev_row_reader_of_slate(ev_row_reader **out, const ev_fields *f, const ev_snapshot *s, ev_slate *slate, uint32_t user) {
  EV_TRY(new_reader(out, f, s));
  ev_row_reader *r = *out;
  sparse a = {r->shared_index, r->shared_value, 0};
  r->n = ev_slate_n(slate);
  r->user = NULL;
  r->item = ev_slate_items(slate);
  r->asker = user;
  r->one_user = true;
  for (size_t i = 0; i < f->n; i++) {
    const ev_rank_field *x = &f->at[i];
    if (x->from == EV_FROM_SLATE) r->at[i].values = strcmp(x->name, "score") == 0 ? ev_slate_scores(slate) : ev_slate_find(slate, x->name), r->at[i].stride = 1;
    if (x->from == EV_FROM_USER && user != EV_NONE) push_field(&a, r, i, 0, user);
  }
  r->n_shared = a.n;
  return EV_OK;
}
