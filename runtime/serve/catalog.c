/* catalog.c - items and users as they are now: a snapshot, and over it two live tables.
 *
 * An entry of a live table stands for all that is known of its item: a PUT writes what it was given, a PATCH what there was with what
 * it was given. So reading looks in one place, and never mixes two. An item of the snapshot that is deleted keeps an entry that says
 * so, since the snapshot cannot forget it; any other is taken out of its table.
 *
 * Writing: everything is checked and memory taken, then the table is written and synced, and only then what readers share is changed,
 * which cannot fail. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "catalog.h"

#define ROWS_MAX ((size_t)1 << 24) /* of a live table: address space for it */
#define NEW_USERS_MAX ((size_t)1 << 24)

/* ---- Indices -------------------------------------------------------------------------------------------*/
static _Atomic uint8_t *flags_at(const live_side *s, size_t i) { return (_Atomic uint8_t *)(void *)s->flags.base + i; }
static char **new_id_at(const live_side *s, size_t k) { return (char **)(void *)s->ids.base + k; }
static _Atomic uint32_t *row_at(const live_side *s, size_t row) { return (_Atomic uint32_t *)(void *)s->of_row.base + row; }
static size_t n_of(const live_side *s) { return atomic_load_explicit(&s->n, memory_order_acquire); }
static ev_items *table_of(const live_side *s) { return atomic_load_explicit(&s->table, memory_order_acquire); }

unsigned side_flags(const live_side *s, size_t i) { return i < n_of(s) ? atomic_load_explicit(flags_at(s, i), memory_order_acquire) : 0; }

const char *side_id(const live_side *s, size_t i, size_t *len) {
  *len = 0;
  if (i >= n_of(s)) return NULL;
  if (i < s->n_snapshot) return s->of == EV_ITEM ? ev_snapshot_item_id(s->snapshot, (uint32_t)i, len) : ev_snapshot_user_id(s->snapshot, (uint32_t)i, len);
  const char *id = *new_id_at(s, i - s->n_snapshot);
  *len = strlen(id);
  return id;
}

/* Where an id stands, or would. With the lock held. */
static size_t slot_of(const uint32_t *slots, size_t n_slots, const live_side *s, const char *id, size_t len) {
  size_t at = ev_checksum(id, len) & (n_slots - 1);
  for (; slots[at] != EV_NONE; at = (at + 1) & (n_slots - 1)) {
    const char *other = *new_id_at(s, slots[at]);
    if (strncmp(other, id, len) == 0 && other[len] == '\0') break;
  }
  return at;
}

uint32_t side_find(const live_side *s, const char *id, size_t len) {
  uint32_t i = s->of == EV_ITEM ? ev_snapshot_find_item(s->snapshot, id, len) : ev_snapshot_find_user(s->snapshot, id, len);
  if (i != EV_NONE || n_of(s) == s->n_snapshot || len == 0 || memchr(id, '\0', len) != NULL) return i;
  pthread_rwlock_rdlock((pthread_rwlock_t *)(uintptr_t)&s->lock);
  uint32_t k = s->slots[slot_of(s->slots, s->n_slots, s, id, len)];
  pthread_rwlock_unlock((pthread_rwlock_t *)(uintptr_t)&s->lock);
  return k == EV_NONE ? EV_NONE : (uint32_t)(s->n_snapshot + k);
}

/* Memory for n more ids: afterwards add_id cannot fail but for the id itself. */
static ev_status room_for(live_side *s, size_t n) {
  size_t have = n_of(s) - s->n_snapshot, want = 64;
  if (n_of(s) + n > s->most)
    return ev_fail(EV_ELIMIT, "%zu %ss that the data set has not: at most %zu; import them with the data", have + n, s->noun, s->most - s->n_snapshot);
  EV_TRY(ev_region_grow(&s->flags, s->n_snapshot + have + n));
  EV_TRY(ev_region_grow(&s->ids, (have + n) * sizeof(char *)));
  while (want < 2 * (have + n)) want *= 2;
  if (want <= s->n_slots) return EV_OK;
  uint32_t *slots = ev_alloc(want, sizeof *slots), *old = s->slots;
  if (slots == NULL) return EV_ENOMEM;
  memset(slots, 0xFF, want * sizeof *slots);
  for (size_t k = 0; k < have; k++) {
    const char *id = *new_id_at(s, k);
    slots[slot_of(slots, want, s, id, strlen(id))] = (uint32_t)k;
  }
  pthread_rwlock_wrlock(&s->lock);
  s->slots = slots;
  s->n_slots = want;
  pthread_rwlock_unlock(&s->lock);
  ev_free(old);
  return EV_OK;
}

static uint32_t add_id(live_side *s, char *id, unsigned flags) { /* takes it */
  size_t n = n_of(s), k = n - s->n_snapshot;
  *new_id_at(s, k) = id;
  atomic_store_explicit(flags_at(s, n), (uint8_t)flags, memory_order_release);
  pthread_rwlock_wrlock(&s->lock);
  s->slots[slot_of(s->slots, s->n_slots, s, id, strlen(id))] = (uint32_t)k;
  atomic_store_explicit(&s->n, n + 1, memory_order_release); /* whoever finds the id finds what is behind it */
  pthread_rwlock_unlock(&s->lock);
  return (uint32_t)n;
}

/* ---- Opening -------------------------------------------------------------------------------------------*/
static ev_status side_open_table(live_side *s, bool create) {
  ev_items_options o;
  ev_items *t;
  ev_items_defaults(&o);
  o.index.max_rows = ROWS_MAX;
  o.create = create;
  if (create) EV_TRY(ev_mkdirs(s->folder));
  EV_TRY(ev_items_open(&t, s->folder, &o));
  atomic_store_explicit(&s->table, t, memory_order_release);
  return EV_OK;
}

static ev_status side_open(live_side *s, ev_side of, const ev_snapshot *snapshot, const char *folder, size_t most) {
  ev_buf path = {0};
  *s = (live_side){.of = of, .noun = of == EV_ITEM ? "item" : "user", .snapshot = snapshot};
  s->n_snapshot = of == EV_ITEM ? ev_snapshot_n_items(snapshot) : ev_snapshot_n_users(snapshot);
  s->most = s->n_snapshot + most;
  atomic_init(&s->n, s->n_snapshot);
  if (pthread_rwlock_init(&s->lock, NULL) != 0) return ev_fail(EV_EIO, "no lock could be made");
  EV_TRY(ev_buf_printf(&path, "%s/%ss", folder, s->noun));
  s->folder = path.data;
  EV_TRY(ev_region_open(&s->flags, s->most + 1));
  EV_TRY(ev_region_open(&s->ids, (most + 1) * sizeof(char *)));
  EV_TRY(ev_region_open(&s->of_row, ROWS_MAX * sizeof(uint32_t)));
  return ev_region_grow(&s->flags, s->n_snapshot + 1);
}

static void side_close(live_side *s) {
  if (s->noun == NULL) return;
  ev_items_close(table_of(s));
  for (size_t k = 0; s->ids.base != NULL && k < n_of(s) - s->n_snapshot; k++) ev_free(*new_id_at(s, k));
  ev_region_close(&s->flags);
  ev_region_close(&s->ids);
  ev_region_close(&s->of_row);
  ev_free(s->slots);
  ev_free(s->folder);
  pthread_rwlock_destroy(&s->lock);
}

/* An item that may be shown and was put then, in seconds; NaN: it is no arrival, or none any more. */
static void arrives(catalog *c, uint32_t item, double put_s) {
  if (item < c->sides[CATALOG_ITEM].n_snapshot) return;
  if (isnan(put_s)) c->n_arrivals = arrivals_remove(c->arrivals, c->n_arrivals, item);
  else c->n_arrivals = arrivals_insert(c->arrivals, c->n_arrivals, (arrival){item, llround(1000 * put_s)});
}

/* What a table says, at the start: indices for what the snapshot has not, flags, hidden items. */
static ev_status side_read(catalog *c, live_side *s) {
  ev_items_reader r;
  ev_items_stats stats;
  ev_status status = EV_OK;
  if (!ev_file_exists(s->folder)) return EV_OK;
  status = side_open_table(s, false);
  if (status != EV_OK) return status == EV_ENOTFOUND ? EV_OK : status; /* a folder, and nothing in it yet */
  ev_items_stat(table_of(s), &stats);
  EV_TRY(ev_region_grow(&s->of_row, (stats.n_rows + 1) * sizeof(uint32_t)));
  ev_items_begin(&r, table_of(s));
  for (uint32_t row = ev_items_next(&r, 0); row != EV_NONE && status == EV_OK; row = ev_items_next(&r, row + 1)) {
    size_t len;
    const char *id = ev_items_id(&r, row, &len);
    bool gone = entry_flag(&r, row, FIELD_DELETED), hidden = gone || (s->of == EV_ITEM && entry_flag(&r, row, FIELD_HIDDEN));
    uint32_t i = side_find(s, id, len);
    if (i == EV_NONE && gone) continue; /* of another snapshot */
    if (i == EV_NONE) {
      status = room_for(s, 1);
      char *copy = status == EV_OK ? ev_strndup(id, len) : NULL;
      if (copy == NULL) status = status == EV_OK ? EV_ENOMEM : status;
      else i = add_id(s, copy, 0);
    }
    if (status != EV_OK) break;
    atomic_store_explicit(flags_at(s, i), (uint8_t)(FLAG_LIVE | (gone ? FLAG_GONE : 0)), memory_order_release);
    atomic_store_explicit(row_at(s, row), i + 1, memory_order_release);
    if (hidden) mask_hide(c, i, true);
    if (s->of == EV_ITEM) arrives(c, i, hidden ? NAN : entry_put_time(&r, row));
  }
  ev_items_end(&r);
  return status;
}

bool column_titles(const char *name) {
  size_t n = strlen(name);
  return (n >= 4 && strcasecmp(name + n - 4, "name") == 0) || strstr(name, "title") != NULL || strstr(name, "Title") != NULL;
}

static const ev_column *title_column(const ev_snapshot *s) {
  const ev_column *c = ev_snapshot_column(s, EV_ITEM, "title");
  for (size_t i = 0; c == NULL && i < ev_snapshot_n_columns(s, EV_ITEM); i++) {
    const ev_column *x = ev_snapshot_column_at(s, EV_ITEM, i);
    if (x->type != EV_FLOAT && column_titles(x->name)) c = x;
  }
  return c != NULL && c->type != EV_FLOAT ? c : NULL;
}

ev_status catalog_open(catalog **out, const char *folder, const ev_snapshot *s, board *b) {
  catalog *c = ev_zalloc(1, sizeof *c);
  *out = NULL;
  if (c == NULL) return EV_ENOMEM;
  size_t bits = (size_t)b->n_mask_words * 64, n_items = ev_snapshot_n_items(s);
  size_t most = bits < n_items ? 0 : bits - n_items;
  c->snapshot = s;
  c->board = b;
  c->title = title_column(s);
  pthread_mutex_init(&c->writer, NULL);
  ev_status status = masks_open(c);
  if (status == EV_OK && bits < n_items) status = ev_fail(EV_EINVAL, "the board has masks of %zu bits, and there are %zu items", bits, n_items);
  if (status == EV_OK) status = side_open(&c->sides[CATALOG_ITEM], EV_ITEM, s, folder, most < LIVE_ITEMS_MAX ? most : LIVE_ITEMS_MAX);
  if (status == EV_OK) status = side_open(&c->sides[CATALOG_USER], EV_USER, s, folder, NEW_USERS_MAX);
  for (int i = 0; i < 2 && status == EV_OK; i++) status = side_read(c, &c->sides[i]);
  if (status == EV_OK) arrivals_put(b, c->arrivals, c->n_arrivals);
  if (status != EV_OK) catalog_close(c);
  else *out = c;
  return status;
}

void catalog_close(catalog *c) {
  if (c == NULL) return;
  for (int i = 0; i < 2; i++) side_close(&c->sides[i]);
  masks_close(c);
  pthread_mutex_destroy(&c->writer);
  ev_free(c);
}

/* ---- Asking --------------------------------------------------------------------------------------------*/
size_t catalog_n_items(const catalog *c) { return n_of(&c->sides[CATALOG_ITEM]); }
uint32_t catalog_known(const catalog *c, const char *id, size_t len) { return side_find(&c->sides[CATALOG_ITEM], id, len); }

uint32_t catalog_find(const catalog *c, const char *id, size_t len) {
  uint32_t i = catalog_known(c, id, len);
  return i == EV_NONE || (side_flags(&c->sides[CATALOG_ITEM], i) & FLAG_GONE) != 0 ? EV_NONE : i;
}

bool catalog_id(const catalog *c, uint32_t item, char out[USER_MAX + 1]) {
  size_t len;
  const char *id = side_id(&c->sides[CATALOG_ITEM], item, &len);
  out[0] = '\0';
  if (id == NULL || len > USER_MAX) return false;
  memcpy(out, id, len);
  out[len] = '\0';
  return true;
}

static const char *joined(const ev_column *x, size_t row, ev_buf *scratch) { /* a title cut into words is one again */
  const uint32_t *codes = NULL;
  size_t n = ev_column_tokens(x, row, &codes), len;
  ev_buf_clear(scratch);
  for (size_t i = 0; i < n; i++) {
    const char *token = ev_column_token(x, codes[i], &len);
    if ((i > 0 && ev_buf_append(scratch, " ", 1) != EV_OK) || ev_buf_append(scratch, token, len) != EV_OK) return NULL;
  }
  return scratch->len > 0 ? scratch->data : NULL;
}

const char *catalog_title(const catalog *c, uint32_t item, ev_buf *scratch) {
  const live_side *s = &c->sides[CATALOG_ITEM];
  if ((side_flags(s, item) & FLAG_LIVE) == 0) return c->title == NULL || item >= s->n_snapshot ? NULL : joined(c->title, item, scratch);
  ev_items_reader r;
  size_t len;
  const char *id = side_id(s, item, &len), *title = NULL;
  ev_items_begin(&r, table_of(s));
  uint32_t row = ev_items_find(&r, id, len);
  const ev_column *best = NULL;
  for (size_t i = 0; row != EV_NONE && i < ev_items_n_columns(&r); i++) {
    const ev_column *x = ev_items_column_at(&r, i);
    const uint32_t *codes;
    if (x->type == EV_FLOAT || !column_titles(x->name) || ev_column_tokens(x, row, &codes) == 0) continue;
    if (best == NULL || strcmp(x->name, "title") == 0) best = x;
  }
  if (best != NULL) title = joined(best, row, scratch);
  ev_items_end(&r);
  return title;
}

static json_t *get(const live_side *s, const char *id, size_t len) {
  ev_items *t = table_of(s);
  uint32_t row = EV_NONE;
  json_t *o = NULL;
  if (t != NULL) {
    ev_items_reader r;
    ev_items_begin(&r, t);
    row = ev_items_find(&r, id, len);
    if (row != EV_NONE) o = entry_decode(s, &r, row);
    ev_items_end(&r);
  }
  if (row != EV_NONE) return o;
  uint32_t i = side_find(s, id, len);
  return i != EV_NONE && i < s->n_snapshot ? entry_of_snapshot(s, i) : NULL;
}

json_t *catalog_get(const catalog *c, catalog_side side, const char *id) { return get(&c->sides[side], id, strlen(id)); }

json_t *catalog_list(const catalog *c, catalog_side side, const char *after, size_t n) {
  const live_side *s = &c->sides[side];
  uint32_t before = after != NULL ? side_find(s, after, strlen(after)) : 0;
  if (before == EV_NONE) return NULL;
  json_t *list = json_array();
  for (size_t i = after != NULL ? before + 1u : 0; i < n_of(s) && json_array_size(list) < n; i++) {
    size_t len;
    const char *id = side_id(s, i, &len);
    json_t *o = (side_flags(s, i) & FLAG_GONE) != 0 ? NULL : get(s, id, len);
    if (o != NULL) json_array_append_new(list, o);
  }
  return list;
}

/* ---- Writing -------------------------------------------------------------------------------------------*/
static double item_number(const ev_item *x, const char *field) { /* NaN: it has none */
  for (size_t i = 0; i < x->n_fields; i++)
    if (strcmp(x->fields[i].name, field) == 0) return x->fields[i].number;
  return NAN;
}

static bool item_flag(const ev_item *x, const char *field) { return item_number(x, field) > 0; }

/* What readers share, once the table has it. rows (n): where the items were before. */
static void show(catalog *c, live_side *s, const ev_item *items, char **ids, const uint32_t *rows, size_t n) {
  ev_items_reader r;
  ev_items_begin(&r, table_of(s));
  for (size_t i = 0; i < n; i++)
    if (rows[i] != EV_NONE) atomic_store_explicit(row_at(s, rows[i]), 0, memory_order_release);
  for (size_t i = 0; i < n; i++) {
    size_t len = strlen(items[i].id);
    bool gone = item_flag(&items[i], FIELD_DELETED), hidden = gone || item_flag(&items[i], FIELD_HIDDEN);
    unsigned flags = FLAG_LIVE | (gone ? FLAG_GONE : 0);
    uint32_t at = side_find(s, items[i].id, len), row = ev_items_find(&r, items[i].id, len);
    if (s->of == EV_ITEM && hidden && at != EV_NONE) mask_hide(c, at, true);
    if (at == EV_NONE) {
      if (s->of == EV_ITEM && hidden) mask_hide(c, (uint32_t)n_of(s), true); /* before anybody can find it */
      at = add_id(s, ids[i], flags);
      ids[i] = NULL;
    }
    atomic_store_explicit(flags_at(s, at), (uint8_t)flags, memory_order_release);
    if (s->of == EV_ITEM && !hidden) mask_hide(c, at, false);
    if (row != EV_NONE) atomic_store_explicit(row_at(s, row), at + 1, memory_order_release);
    if (s->of == EV_ITEM) arrives(c, at, hidden ? NAN : item_number(&items[i], FIELD_PUT) + item_number(&items[i], FIELD_PUT_REST));
  }
  ev_items_end(&r);
  if (s->of != EV_ITEM) return;
  arrivals_put(c->board, c->arrivals, c->n_arrivals);
  atomic_fetch_add_explicit(&c->generation, 1, memory_order_acq_rel);
}

/* With the writer's lock held. */
static ev_status write_items(catalog *c, live_side *s, const ev_item *items, size_t n) {
  char **ids = ev_zalloc(n, sizeof *ids);
  uint32_t *rows = ev_alloc(n, sizeof *rows);
  ev_items_stats stats;
  ev_status status = ids == NULL || rows == NULL ? EV_ENOMEM : EV_OK;
  size_t n_new = 0;
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    if (side_find(s, items[i].id, strlen(items[i].id)) != EV_NONE) continue;
    ids[i] = ev_strndup(items[i].id, strlen(items[i].id));
    if (ids[i] == NULL) status = EV_ENOMEM;
    n_new++;
  }
  if (status == EV_OK && n_new > 0) status = room_for(s, n_new);
  if (status == EV_OK && table_of(s) == NULL) status = side_open_table(s, true);
  if (status == EV_OK) {
    ev_items_stat(table_of(s), &stats);
    status = ev_region_grow(&s->of_row, (stats.n_rows + n + 1) * sizeof(uint32_t));
  }
  if (status == EV_OK) {
    ev_items_reader r;
    ev_items_begin(&r, table_of(s));
    for (size_t i = 0; i < n; i++) rows[i] = ev_items_find(&r, items[i].id, strlen(items[i].id));
    ev_items_end(&r);
    status = ev_items_put(table_of(s), items, n);
  }
  if (status == EV_OK) show(c, s, items, ids, rows, n);
  for (size_t i = 0; ids != NULL && i < n; i++) ev_free(ids[i]);
  ev_free(ids);
  ev_free(rows);
  return status;
}

static ev_status write_batch(catalog *c, live_side *s, ev_item_batch *b) {
  const ev_item *items;
  size_t n = ev_item_batch_n(b);
  return n == 0 ? EV_OK : ev_item_batch_get(b, 0, &items) == EV_OK ? write_items(c, s, items, n) : EV_ENOMEM;
}

/* What there is, with what is given over it. */
static ev_status merged(const live_side *s, const char *id, const json_t *given, json_t **out) {
  *out = get(s, id, strlen(id));
  if (*out == NULL) return ev_fail(EV_ENOTFOUND, "no such %s: '%s'", s->noun, id);
  return json_object_update(*out, (json_t *)(uintptr_t)given) == 0 ? EV_OK : EV_ENOMEM;
}

static ev_status add_entry(const live_side *s, ev_item_batch *b, const json_t *entry, size_t at, bool merge) {
  char id[USER_MAX];
  json_t *whole = NULL;
  ev_items_reader r;
  EV_TRY(entry_id(s, entry, at, id));
  if (merge) EV_TRY(merged(s, id, entry, &whole));
  ev_items *t = table_of(s);
  if (t != NULL) ev_items_begin(&r, t);
  ev_status status = entry_encode(b, s, t != NULL ? &r : NULL, id, merge ? whole : entry);
  uint32_t i = s->of == EV_ITEM ? side_find(s, id, strlen(id)) : 0, row = t != NULL ? ev_items_find(&r, id, strlen(id)) : EV_NONE;
  if (status == EV_OK && i >= s->n_snapshot && s->of == EV_ITEM) { /* one that is put again came when it came */
    double put_s = row != EV_NONE ? entry_put_time(&r, row) : NAN;
    status = entry_put_at(b, isnan(put_s) ? (double)ev_wall_ms() / 1000 : put_s);
  }
  if (t != NULL) ev_items_end(&r);
  json_decref(whole);
  return status;
}

ev_status catalog_put(catalog *c, catalog_side side, const json_t *const *entries, size_t n, bool merge) {
  live_side *s = &c->sides[side];
  ev_item_batch *b = ev_item_batch_new();
  if (b == NULL) return EV_ENOMEM;
  ev_status status = EV_OK;
  pthread_mutex_lock(&c->writer); /* a PATCH is of what stands when it is written */
  for (size_t i = 0; i < n && status == EV_OK; i++) status = add_entry(s, b, entries[i], i, merge);
  if (status == EV_OK) status = write_batch(c, s, b);
  pthread_mutex_unlock(&c->writer);
  ev_item_batch_free(b);
  return status;
}

ev_status catalog_ensure(catalog *c, const char *const *ids, size_t n) {
  live_side *s = &c->sides[CATALOG_ITEM];
  size_t first = 0;
  while (first < n && side_find(s, ids[first], strlen(ids[first])) != EV_NONE) first++;
  if (first == n) return EV_OK; /* as nearly always */
  ev_item_batch *b = ev_item_batch_new();
  json_t *added = json_object();
  ev_status status = b == NULL || added == NULL ? EV_ENOMEM : EV_OK;
  pthread_mutex_lock(&c->writer);
  for (size_t i = first; i < n && status == EV_OK; i++) {
    size_t len = strlen(ids[i]);
    if (side_find(s, ids[i], len) != EV_NONE || json_object_get(added, ids[i]) != NULL) continue;
    if (len == 0 || len >= USER_MAX) status = ev_fail(EV_EINVAL, "an item's id has 1 to %d bytes", USER_MAX - 1);
    else status = ev_item_batch_add(b, ids[i], len);
    json_object_set_new(added, ids[i], json_true());
  }
  if (status == EV_OK) status = write_batch(c, s, b);
  pthread_mutex_unlock(&c->writer);
  json_decref(added);
  ev_item_batch_free(b);
  return status;
}

/* With the writer's lock held: an entry that the snapshot has not. */
static ev_status take_out(catalog *c, live_side *s, uint32_t i, const char *id) {
  ev_items_reader r;
  ev_items_begin(&r, table_of(s));
  uint32_t row = ev_items_find(&r, id, strlen(id));
  ev_items_end(&r);
  EV_TRY(ev_items_delete(table_of(s), &id, 1));
  if (row != EV_NONE) atomic_store_explicit(row_at(s, row), 0, memory_order_release);
  atomic_store_explicit(flags_at(s, i), FLAG_GONE, memory_order_release);
  if (s->of == EV_ITEM) {
    mask_hide(c, i, true);
    arrives(c, i, NAN);
    arrivals_put(c->board, c->arrivals, c->n_arrivals);
    atomic_fetch_add_explicit(&c->generation, 1, memory_order_acq_rel);
  }
  return EV_OK;
}

ev_status catalog_delete(catalog *c, catalog_side side, const char *id) {
  live_side *s = &c->sides[side];
  const ev_field gone = {.name = FIELD_DELETED, .type = EV_FLOAT, .number = 1};
  pthread_mutex_lock(&c->writer);
  uint32_t i = side_find(s, id, strlen(id));
  ev_status status;
  if (i == EV_NONE || (side_flags(s, i) & FLAG_GONE) != 0) status = ev_fail(EV_ENOTFOUND, "no such %s: '%s'", s->noun, id);
  else if (i < s->n_snapshot) status = write_items(c, s, &(ev_item){.id = id, .fields = &gone, .n_fields = 1}, 1);
  else status = take_out(c, s, i, id);
  pthread_mutex_unlock(&c->writer);
  return status;
}
