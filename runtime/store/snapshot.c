/* snapshot.c - a snapshot file, mapped. snapshot_write.c says what lies in it.
 *
 * Opening checks every pointer, index and code once, so that nothing afterwards needs to: a file that opens is
 * never read out of bounds, whoever wrote it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build.h"

typedef struct ids {
  const char *bytes;
  const uint64_t *ptr;
  const uint32_t *table;
  size_t n, slots;
} ids;

struct ev_snapshot {
  ev_pack *pack;
  size_t n_users, n_items, n;
  int64_t valid_cut, test_cut;
  bool sequential;
  const uint64_t *user_ptr, *item_ptr;
  const uint32_t *items, *item_inter;
  const uint8_t *folds;
  const int64_t *times;
  const float *ratings;
  ids user_ids, item_ids;
  ev_column *columns[3]; /* owned, by side; names owned */
  size_t n_columns[3];
};

static ev_status wrong(const ev_snapshot *s, const char *what) { return ev_fail(EV_ECORRUPT, "%s: %s", ev_pack_path(s->pack), what); }

/* An array of the right type and length. */
static ev_status take(const ev_snapshot *s, const char *name, ev_dtype dtype, size_t rows, const void **out) {
  ev_array a;
  EV_TRY(ev_pack_get(s->pack, name, dtype, &a));
  if (a.rows != rows || a.cols != 1) return ev_fail(EV_ECORRUPT, "%s: array '%s' has %zu rows, %zu expected", ev_pack_path(s->pack), name, a.rows, rows);
  *out = a.data;
  return EV_OK;
}

static bool ascends(const uint64_t *ptr, size_t n, uint64_t end) {
  if (ptr[0] != 0 || ptr[n] != end) return false;
  for (size_t i = 0; i < n; i++)
    if (ptr[i] > ptr[i + 1]) return false;
  return true;
}

static bool below(const uint32_t *x, size_t n, size_t limit, bool none) {
  for (size_t i = 0; i < n; i++)
    if (x[i] >= limit && !(none && x[i] == EV_NONE)) return false;
  return true;
}

static ev_status take_ids(const ev_snapshot *s, const char *side, size_t n, ids *out) {
  char name[48];
  const void *data = NULL;
  ev_array a;
  snprintf(name, sizeof name, "%s.id.ptr", side);
  EV_TRY(take(s, name, EV_U64, n + 1, &data));
  out->ptr = data;
  snprintf(name, sizeof name, "%s.id.bytes", side);
  EV_TRY(ev_pack_get(s->pack, name, EV_U8, &a));
  out->bytes = a.data;
  if (a.cols != 1 || !ascends(out->ptr, n, a.rows)) return wrong(s, "ids do not lie in their bytes");
  if (ev_utf8_invalid(out->bytes, a.rows) != a.rows) return wrong(s, "ids are not UTF-8");
  out->n = n;
  out->slots = ev_id_slots(n);
  snprintf(name, sizeof name, "%s.id.table", side);
  EV_TRY(take(s, name, EV_U32, out->slots, &data));
  out->table = data;
  size_t used = 0;
  for (size_t i = 0; i < out->slots; i++) used += out->table[i] != EV_NONE;
  if (used != n || !below(out->table, out->slots, n, true)) return wrong(s, "the table of ids is wrong");
  return EV_OK;
}

static ev_status take_tokens(const ev_snapshot *s, size_t number, ev_column *c) {
  char name[48];
  ev_array a;
  snprintf(name, sizeof name, "c.%zu.token_ptr", number);
  EV_TRY(ev_pack_get(s->pack, name, EV_U64, &a));
  if (a.rows == 0 || a.cols != 1 || a.rows > EV_NONE) return wrong(s, "a column's vocabulary is wrong");
  c->token_ptr = a.data;
  c->n_tokens = a.rows - 1;
  snprintf(name, sizeof name, "c.%zu.tokens", number);
  EV_TRY(ev_pack_get(s->pack, name, EV_U8, &a));
  c->token_bytes = a.data;
  if (a.cols != 1 || !ascends(c->token_ptr, c->n_tokens, a.rows)) return wrong(s, "a column's tokens do not lie in their bytes");
  if (ev_utf8_invalid(c->token_bytes, a.rows) != a.rows) return wrong(s, "a column's tokens are not UTF-8");
  return EV_OK;
}

static ev_status take_column(const ev_snapshot *s, size_t number, ev_column *c) {
  char name[48];
  const void *data = NULL;
  ev_array a;
  if (c->type == EV_FLOAT) {
    snprintf(name, sizeof name, "c.%zu.values", number);
    EV_TRY(take(s, name, EV_F32, c->n_rows, &data));
    c->values = data;
    return EV_OK;
  }
  EV_TRY(take_tokens(s, number, c));
  snprintf(name, sizeof name, "c.%zu.codes", number);
  EV_TRY(ev_pack_get(s->pack, name, EV_U32, &a));
  c->codes = a.data;
  if (c->type == EV_TOKEN) {
    if (a.rows != c->n_rows || a.cols != 1) return wrong(s, "a column has the wrong number of rows");
  } else {
    snprintf(name, sizeof name, "c.%zu.ptr", number);
    EV_TRY(take(s, name, EV_U64, c->n_rows + 1, &data));
    c->ptr = data;
    if (a.cols != 1 || !ascends(c->ptr, c->n_rows, a.rows)) return wrong(s, "a column's lists do not lie in their codes");
  }
  if (!below(c->codes, a.rows, c->n_tokens, c->type == EV_TOKEN)) return wrong(s, "a column has a code beyond its vocabulary");
  return EV_OK;
}

/* "side type name" lines → columns by side. */
static ev_status take_columns(ev_snapshot *s) {
  ev_array a;
  EV_TRY(ev_pack_get(s->pack, "columns", EV_U8, &a));
  const char *text = a.data, *end = text + a.rows * a.cols;
  size_t rows[3] = {s->n_users, s->n_items, s->n};
  if (ev_utf8_invalid(text, (size_t)(end - text)) != (size_t)(end - text)) return wrong(s, "the list of columns is not UTF-8");
  for (size_t number = 0; text < end; number++) {
    const char *newline = memchr(text, '\n', (size_t)(end - text));
    if (newline == NULL || newline - text < 5 || text[0] < '0' || text[0] > '2' || text[1] != ' ' || text[2] < '0' || text[2] > '2' || text[3] != ' ')
      return wrong(s, "the list of columns is wrong");
    int side = text[0] - '0';
    ev_column *grown = ev_resize(s->columns[side], s->n_columns[side] + 1, sizeof *grown);
    if (grown == NULL) return EV_ENOMEM;
    s->columns[side] = grown;
    ev_column *c = &grown[s->n_columns[side]];
    *c = (ev_column){.type = (ev_column_type)(text[2] - '0'), .n_rows = rows[side]};
    c->name = ev_strndup(text + 4, (size_t)(newline - text) - 4);
    if (c->name == NULL) return EV_ENOMEM;
    s->n_columns[side]++;
    EV_TRY(take_column(s, number, c));
    text = newline + 1;
  }
  return EV_OK;
}

static ev_status take_interactions(ev_snapshot *s) {
  const void *data = NULL;
  ev_array a;
  EV_TRY(take(s, "user.ptr", EV_U64, s->n_users + 1, &data));
  s->user_ptr = data;
  EV_TRY(take(s, "inter.item", EV_U32, s->n, &data));
  s->items = data;
  EV_TRY(take(s, "inter.fold", EV_U8, s->n, &data));
  s->folds = data;
  if (ev_pack_find(s->pack, "inter.time", &a)) {
    EV_TRY(take(s, "inter.time", EV_I64, s->n, &data));
    s->times = data;
  }
  if (ev_pack_find(s->pack, "inter.rating", &a)) {
    EV_TRY(take(s, "inter.rating", EV_F32, s->n, &data));
    s->ratings = data;
  }
  EV_TRY(take(s, "item.ptr", EV_U64, s->n_items + 1, &data));
  s->item_ptr = data;
  EV_TRY(take(s, "item.inter", EV_U32, s->n, &data));
  s->item_inter = data;
  if (!ascends(s->user_ptr, s->n_users, s->n) || !ascends(s->item_ptr, s->n_items, s->n)) return wrong(s, "users or items do not lie in the interactions");
  if (!below(s->items, s->n, s->n_items, false) || !below(s->item_inter, s->n, s->n, false)) return wrong(s, "an interaction names an item that is not there");
  for (size_t i = 0; i < s->n; i++)
    if (s->folds[i] != EV_TRAIN && s->folds[i] != EV_VALID && s->folds[i] != EV_TEST) return wrong(s, "an interaction is of no fold");
  for (size_t item = 0; item < s->n_items; item++)
    for (uint64_t k = s->item_ptr[item]; k < s->item_ptr[item + 1]; k++)
      if (s->items[s->item_inter[k]] != item || (k > s->item_ptr[item] && s->item_inter[k] <= s->item_inter[k - 1]))
        return wrong(s, "the two ways round do not agree");
  return EV_OK;
}

static ev_status read_all(ev_snapshot *s) {
  const void *data = NULL;
  if (strcmp(ev_pack_kind(s->pack), "snapshot") != 0) return wrong(s, "not a snapshot");
  EV_TRY(take(s, "meta", EV_U64, 6, &data));
  const uint64_t *meta = data;
  if (meta[0] >= EV_NONE || meta[1] >= EV_NONE || meta[2] >= EV_NONE) return wrong(s, "the counts make no sense");
  s->n_users = meta[0];
  s->n_items = meta[1];
  s->n = meta[2];
  s->valid_cut = (int64_t)meta[3];
  s->test_cut = (int64_t)meta[4];
  s->sequential = meta[5] != 0;
  EV_TRY(take_interactions(s));
  EV_TRY(take_ids(s, "user", s->n_users, &s->user_ids));
  EV_TRY(take_ids(s, "item", s->n_items, &s->item_ids));
  return take_columns(s);
}

ev_status ev_snapshot_open(ev_snapshot **out, const char *path) {
  *out = NULL;
  ev_snapshot *s = ev_zalloc(1, sizeof *s);
  if (s == NULL) return EV_ENOMEM;
  ev_status status = ev_pack_open(&s->pack, path);
  if (status == EV_OK) status = read_all(s);
  if (status != EV_OK) {
    ev_snapshot_close(s);
    return status;
  }
  *out = s;
  return EV_OK;
}

void ev_snapshot_close(ev_snapshot *s) {
  if (s == NULL) return;
  for (int side = 0; side < 3; side++) {
    for (size_t i = 0; i < s->n_columns[side]; i++) ev_free((char *)(uintptr_t)s->columns[side][i].name);
    ev_free(s->columns[side]);
  }
  ev_pack_close(s->pack);
  ev_free(s);
}

void ev_snapshot_hash(const ev_snapshot *s, ev_hash *out) { ev_pack_hash(s->pack, out); }
size_t ev_snapshot_n_users(const ev_snapshot *s) { return s->n_users; }
size_t ev_snapshot_n_items(const ev_snapshot *s) { return s->n_items; }
size_t ev_snapshot_n_interactions(const ev_snapshot *s) { return s->n; }
const uint64_t *ev_snapshot_user_ptr(const ev_snapshot *s) { return s->user_ptr; }
const uint64_t *ev_snapshot_item_ptr(const ev_snapshot *s) { return s->item_ptr; }
const uint32_t *ev_snapshot_item_interactions(const ev_snapshot *s) { return s->item_inter; }
const uint32_t *ev_snapshot_items(const ev_snapshot *s) { return s->items; }
const uint8_t *ev_snapshot_folds(const ev_snapshot *s) { return s->folds; }
const int64_t *ev_snapshot_times(const ev_snapshot *s) { return s->times; }
const float *ev_snapshot_ratings(const ev_snapshot *s) { return s->ratings; }

static const char *id_of(const ids *x, uint32_t i, size_t *len) {
  *len = x->ptr[i + 1] - x->ptr[i];
  return x->bytes + x->ptr[i];
}

static uint32_t find_id(const ids *x, const char *id, size_t len) {
  size_t slot = ev_checksum(id, len) & (x->slots - 1);
  for (; x->table[slot] != EV_NONE; slot = (slot + 1) & (x->slots - 1)) { /* ends: half the slots are free */
    size_t have;
    const char *bytes = id_of(x, x->table[slot], &have);
    if (have == len && memcmp(bytes, id, len) == 0) return x->table[slot];
  }
  return EV_NONE;
}

const char *ev_snapshot_user_id(const ev_snapshot *s, uint32_t user, size_t *len) { return id_of(&s->user_ids, user, len); }
const char *ev_snapshot_item_id(const ev_snapshot *s, uint32_t item, size_t *len) { return id_of(&s->item_ids, item, len); }
uint32_t ev_snapshot_find_user(const ev_snapshot *s, const char *id, size_t len) { return find_id(&s->user_ids, id, len); }
uint32_t ev_snapshot_find_item(const ev_snapshot *s, const char *id, size_t len) { return find_id(&s->item_ids, id, len); }
size_t ev_snapshot_n_columns(const ev_snapshot *s, ev_side side) { return s->n_columns[side]; }
const ev_column *ev_snapshot_column_at(const ev_snapshot *s, ev_side side, size_t i) { return &s->columns[side][i]; }

const ev_column *ev_snapshot_column(const ev_snapshot *s, ev_side side, const char *name) {
  for (size_t i = 0; i < s->n_columns[side]; i++)
    if (strcmp(s->columns[side][i].name, name) == 0) return &s->columns[side][i];
  return NULL;
}

size_t ev_column_tokens(const ev_column *c, size_t row, const uint32_t **codes) {
  if (row >= c->n_rows) return 0;
  if (c->type == EV_TOKEN_LIST && c->lengths != NULL) {
    uint64_t at = c->ptr[row], n = c->lengths[row];
    if (at > c->n_codes || n > c->n_codes - at) return 0;
    *codes = c->codes + at;
    return n;
  }
  if (c->type == EV_TOKEN_LIST) {
    *codes = c->codes + c->ptr[row];
    return c->ptr[row + 1] - c->ptr[row];
  }
  *codes = c->codes + row;
  return c->codes[row] != EV_NONE;
}

static bool among(const uint32_t *codes, size_t n, uint32_t code) {
  for (size_t i = 0; i < n; i++)
    if (codes[i] == code) return true;
  return false;
}

/* Whatever a list repeats counts once. Lists are short, so the product of their lengths beats sorting. */
double ev_column_alike(const ev_column *c, size_t a, size_t b) {
  const uint32_t *x = NULL, *y = NULL;
  size_t n = ev_column_tokens(c, a, &x), m = ev_column_tokens(c, b, &y), common = 0, all = 0;
  for (size_t i = 0; i < n; i++) {
    if (among(x, i, x[i])) continue;
    common += among(y, m, x[i]);
    all++;
  }
  for (size_t j = 0; j < m; j++) all += !among(y, j, y[j]) && !among(x, n, y[j]);
  return all == 0 ? 0 : (double)common / (double)all;
}

const char *ev_column_token(const ev_column *c, uint32_t code, size_t *len) {
  *len = 0;
  if (code >= c->n_tokens || c->token_ptr[code] > c->token_ptr[code + 1] || c->token_ptr[code + 1] > c->token_ptr[c->n_tokens]) return c->token_bytes;
  *len = c->token_ptr[code + 1] - c->token_ptr[code];
  return c->token_bytes + c->token_ptr[code];
}

bool ev_snapshot_sequential(const ev_snapshot *s) { return s->sequential; }

int64_t ev_snapshot_cut_time(const ev_snapshot *s, ev_fold fold) {
  return fold == EV_VALID ? s->valid_cut : fold == EV_TEST ? s->test_cut : INT64_MIN;
}
