/* users.c - who is known: histories from the snapshot, grown by events; and what a user gets when no worker answers. */
#include <stdlib.h>
#include <string.h>

#include "inside.h"

typedef struct recent { /* the events of one user */
  char *id;
  uint32_t *items;
  size_t n, cap;
} recent;

struct users {
  const ev_snapshot *snapshot;
  uint32_t *popular; /* items, most popular first */
  recent *all;
  size_t n, cap;
  uint32_t *slots; /* open addressing over all; EV_NONE = free */
  size_t n_slots;
};

typedef struct counted {
  uint64_t count;
  uint32_t item;
} counted;

static int by_count(const void *a, const void *b) {
  const counted *x = a, *y = b;
  if (x->count != y->count) return x->count > y->count ? -1 : 1;
  return x->item < y->item ? -1 : x->item > y->item;
}

ev_status users_open(users **out, const ev_snapshot *s) {
  *out = NULL;
  size_t n_items = ev_snapshot_n_items(s);
  const uint64_t *ptr = ev_snapshot_item_ptr(s);
  users *u = ev_zalloc(1, sizeof *u);
  if (u == NULL) return EV_ENOMEM;
  u->snapshot = s;
  u->popular = ev_alloc(n_items, sizeof *u->popular);
  u->n_slots = 1024;
  u->slots = ev_alloc(u->n_slots, sizeof *u->slots);
  counted *c = ev_alloc(n_items, sizeof *c);
  if (u->popular == NULL || u->slots == NULL || c == NULL) {
    ev_free(c);
    users_close(u);
    return EV_ENOMEM;
  }
  memset(u->slots, 0xFF, u->n_slots * sizeof *u->slots);
  for (size_t i = 0; i < n_items; i++) c[i] = (counted){ptr[i + 1] - ptr[i], (uint32_t)i};
  qsort(c, n_items, sizeof *c, by_count);
  for (size_t i = 0; i < n_items; i++) u->popular[i] = c[i].item;
  ev_free(c);
  *out = u;
  return EV_OK;
}

void users_close(users *u) {
  if (u == NULL) return;
  for (size_t i = 0; i < u->n; i++) {
    ev_free(u->all[i].id);
    ev_free(u->all[i].items);
  }
  ev_free(u->all);
  ev_free(u->slots);
  ev_free(u->popular);
  ev_free(u);
}

static size_t slot_of(const users *u, const char *id) {
  size_t at = ev_checksum(id, strlen(id)) & (u->n_slots - 1);
  while (u->slots[at] != EV_NONE && strcmp(u->all[u->slots[at]].id, id) != 0) at = (at + 1) & (u->n_slots - 1);
  return at;
}

static const recent *find(const users *u, const char *id) {
  uint32_t i = u->slots[slot_of(u, id)];
  return i == EV_NONE ? NULL : &u->all[i];
}

static ev_status grow(users *u) {
  if (u->n == u->cap) {
    size_t cap = u->cap == 0 ? 256 : 2 * u->cap;
    recent *all = ev_resize(u->all, cap, sizeof *all);
    if (all == NULL) return EV_ENOMEM;
    u->all = all;
    u->cap = cap;
  }
  if (2 * (u->n + 1) <= u->n_slots) return EV_OK;
  uint32_t *slots = ev_alloc(2 * u->n_slots, sizeof *slots);
  if (slots == NULL) return EV_ENOMEM;
  ev_free(u->slots);
  u->slots = slots;
  u->n_slots *= 2;
  memset(slots, 0xFF, u->n_slots * sizeof *slots);
  for (size_t i = 0; i < u->n; i++) slots[slot_of(u, u->all[i].id)] = (uint32_t)i;
  return EV_OK;
}

ev_status users_add(users *u, const char *user, uint32_t item) {
  EV_TRY(grow(u));
  size_t at = slot_of(u, user);
  if (u->slots[at] == EV_NONE) {
    char *id = ev_strndup(user, strlen(user));
    if (id == NULL) return EV_ENOMEM;
    u->all[u->n] = (recent){.id = id};
    u->slots[at] = (uint32_t)u->n++;
  }
  recent *r = &u->all[u->slots[at]];
  if (r->n == r->cap) {
    size_t cap = r->cap == 0 ? 8 : 2 * r->cap;
    uint32_t *items = ev_resize(r->items, cap, sizeof *items);
    if (items == NULL) return EV_ENOMEM;
    r->items = items;
    r->cap = cap;
  }
  r->items[r->n++] = item;
  return EV_OK;
}

ev_status users_history(const users *u, const char *user, uint32_t **items, size_t *n) {
  uint32_t index = ev_snapshot_find_user(u->snapshot, user, strlen(user));
  const recent *r = find(u, user);
  const uint64_t *ptr = ev_snapshot_user_ptr(u->snapshot);
  size_t known = index != EV_NONE ? ptr[index + 1] - ptr[index] : 0, later = r != NULL ? r->n : 0;
  *n = 0;
  *items = ev_alloc(known + later, sizeof **items);
  if (*items == NULL) return EV_ENOMEM;
  if (known > 0) memcpy(*items, ev_snapshot_items(u->snapshot) + ptr[index], known * sizeof **items);
  if (later > 0) memcpy(*items + known, r->items, later * sizeof **items);
  *n = known + later;
  return EV_OK;
}

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

json_t *users_request(const users *u, const char *user, size_t n) {
  uint32_t *items;
  size_t n_items;
  if (users_history(u, user, &items, &n_items) != EV_OK) return NULL;
  json_t *history = json_array(), *seen = json_array();
  for (size_t i = n_items > HISTORY_MAX ? n_items - HISTORY_MAX : 0; i < n_items; i++) json_array_append_new(history, json_integer(items[i]));
  qsort(items, n_items, sizeof *items, by_number); /* each once: a message has a bounded size, a user's events have not */
  for (size_t i = 0; i < n_items; i++)
    if (i == 0 || items[i] != items[i - 1]) json_array_append_new(seen, json_integer(items[i]));
  ev_free(items);
  uint32_t index = ev_snapshot_find_user(u->snapshot, user, strlen(user));
  json_t *message = json_pack("{s:s, s:o, s:o, s:I}", "op", "recommend", "history", history, "seen", seen, "n", (json_int_t)n);
  if (message != NULL && index != EV_NONE) json_object_set_new(message, "user", json_integer(index));
  return message;
}

json_t *users_fallback(const users *u, const char *user, size_t n) {
  uint32_t *seen;
  size_t n_seen, n_items = ev_snapshot_n_items(u->snapshot);
  json_t *list = json_array();
  if (users_history(u, user, &seen, &n_seen) != EV_OK) return list;
  qsort(seen, n_seen, sizeof *seen, by_number);
  ev_buf title = {0};
  for (size_t i = 0; i < n_items && json_array_size(list) < n; i++) {
    uint32_t item = u->popular[i];
    if (bsearch(&item, seen, n_seen, sizeof item, by_number) != NULL) continue;
    size_t len;
    const char *id = ev_snapshot_item_id(u->snapshot, item, &len), *text = item_title(u->snapshot, item, &title);
    json_t *entry = json_pack("{s:s%, s:f, s:[s]}", "id", id, len, "score", 0.0, "sources", "fallback");
    if (entry != NULL && text != NULL) json_object_set_new(entry, "title", json_string(text));
    json_array_append_new(list, entry);
  }
  ev_buf_free(&title);
  ev_free(seen);
  return list;
}
